/*-------------------------------------------------------------------------
 *
 * fault.c
 *	  Fault points of test builds (-DKDA_FAULTS); empty otherwise.  Tests call
 *	  its functions after CREATE FUNCTION … LANGUAGE C: the extension's script
 *	  does not know them.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "runtime/fault.h"

#ifdef KDA_FAULTS

#include <signal.h>
#include <unistd.h>

#include "lib/stringinfo.h"
#include "runtime/runtime.h"
#include "utils/builtins.h"

void
kda_fault_point(const char *name)
{
	KdaFaultState *f = &kda_shared->fault;
	char		action[sizeof(f->action)] = "";
	int			i;

	if (!kda_in_worker && !kda_in_deliver)
		return;
	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < f->nseen; i++)
		if (strcmp(f->seen[i].name, name) == 0)
			break;
	if (i == f->nseen && i < KDA_MAX_FAULT_POINTS)
		strlcpy(f->seen[f->nseen++].name, name, sizeof(f->seen[0].name));
	if (i < KDA_MAX_FAULT_POINTS)
		f->seen[i].count++;
	if (strcmp(f->name, name) == 0 && --f->countdown <= 0)
	{
		strlcpy(action, f->action, sizeof(action));
		f->name[0] = '\0';
	}
	LWLockRelease(kda_shared->lock);

	if (action[0] == '\0')
		return;
	if (strcmp(action, "kill") == 0)
		kill(getpid(), SIGKILL);
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(action[0], action[1], action[2], action[3], action[4])),
			 errmsg("injected fault at \"%s\"", name)));
}

PG_FUNCTION_INFO_V1(kda_fault_arm);

/* fault_arm(point text, nth int, action text): action is a SQLSTATE or 'kill' */
Datum
kda_fault_arm(PG_FUNCTION_ARGS)
{
	KdaFaultState *f = &kda_shared->fault;

	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	text_to_cstring_buffer(PG_GETARG_TEXT_PP(0), f->name, sizeof(f->name));
	f->countdown = PG_GETARG_INT32(1);
	text_to_cstring_buffer(PG_GETARG_TEXT_PP(2), f->action, sizeof(f->action));
	LWLockRelease(kda_shared->lock);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(kda_fault_armed);

/* fault_armed() → text: the point that has still to be reached; NULL: it was */
Datum
kda_fault_armed(PG_FUNCTION_ARGS)
{
	char		name[sizeof(kda_shared->fault.name)];

	LWLockAcquire(kda_shared->lock, LW_SHARED);
	strlcpy(name, kda_shared->fault.name, sizeof(name));
	LWLockRelease(kda_shared->lock);
	if (name[0] == '\0')
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

PG_FUNCTION_INFO_V1(kda_fault_seen);

/* fault_seen() → text: the points that workers have passed, with spaces between */
Datum
kda_fault_seen(PG_FUNCTION_ARGS)
{
	StringInfoData s;

	initStringInfo(&s);
	LWLockAcquire(kda_shared->lock, LW_SHARED);
	for (int i = 0; i < kda_shared->fault.nseen; i++)
		appendStringInfo(&s, "%s%s", i > 0 ? " " : "", kda_shared->fault.seen[i].name);
	LWLockRelease(kda_shared->lock);
	PG_RETURN_TEXT_P(cstring_to_text(s.data));
}

#endif							/* KDA_FAULTS */
