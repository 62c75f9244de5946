/*-------------------------------------------------------------------------
 *
 * park.c
 *	  Keeps workers out of a database while it is dropped, renamed, moved or
 *	  used as a template.
 *
 * Called by the session that does it, around core's own statement.  The
 * launcher forgets the entries of sessions that are gone.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <signal.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "runtime/runtime.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "utils/wait_event.h"

#define PARK_TIMEOUT_MS	10000

static int
workers_in(Oid database, bool terminate)
{
	int			n = 0;

	LWLockAcquire(kda_shared->lock, LW_SHARED);
	for (int s = 0; s < kda_shared->nslots; s++)
	{
		KdaSlot    *slot = &kda_shared->slots[s];

		if (slot->database == database && slot->pid != 0 && slot->pid != MyProcPid)
		{
			n++;
			if (terminate)
				kill(slot->pid, SIGTERM);
		}
	}
	LWLockRelease(kda_shared->lock);
	return n;
}

void
kda_park_database(Oid database)
{
	bool		done = false;
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PARK_TIMEOUT_MS);

	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < KDA_MAX_PARKED && !done; i++)
		if (!OidIsValid(kda_shared->parked[i].database))
		{
			kda_shared->parked[i].database = database;
			kda_shared->parked[i].pid = MyProcPid;
			done = true;
		}
	LWLockRelease(kda_shared->lock);

	/* core waits for other sessions to end for five seconds; ours are told to */
	while (workers_in(database, true) > 0 && GetCurrentTimestamp() < until)
	{
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20,
						 kda_wait_event_main());
		ResetLatch(MyLatch);
	}
}

void
kda_unpark_databases(void)
{
	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < KDA_MAX_PARKED; i++)
		if (kda_shared->parked[i].pid == MyProcPid)
			memset(&kda_shared->parked[i], 0, sizeof(KdaParked));
	LWLockRelease(kda_shared->lock);
	kda_launcher_wake();
}

/* Called with the lock held. */
bool
kda_is_parked(Oid database)
{
	for (int i = 0; i < KDA_MAX_PARKED; i++)
	{
		KdaParked  *parked = &kda_shared->parked[i];

		if (OidIsValid(parked->database) && parked->database == database)
		{
			if (BackendPidGetProc(parked->pid) != NULL)
				return true;
			memset(parked, 0, sizeof(*parked));
		}
	}
	return false;
}
