/*-------------------------------------------------------------------------
 *
 * wait.c
 *	  kda.wait: a session's request in shared memory, and how the worker that
 *	  answers it (waits.c) sees and answers it.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/rows.h"
#include "catalog/options.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "runtime/runtime.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "stream/inbox.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

#define MAX_TIMEOUT_US	(100 * 365 * USECS_PER_DAY)

/* Also when the session is ended while it waits. */
static void
free_request(int code, Datum arg)
{
	int			i = DatumGetInt32(arg);

	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	memset(&kda_shared->waits[i], 0, sizeof(KdaWaitRequest));
	LWLockRelease(kda_shared->lock);
}

int
kda_wait_pending(KdaWaitRequest *into, int max)
{
	int			n = 0;

	LWLockAcquire(kda_shared->lock, LW_SHARED);
	for (int i = 0; i < KDA_MAX_WAITS && n < max; i++)
		if (kda_shared->waits[i].id != 0 && !kda_shared->waits[i].done &&
			kda_shared->waits[i].database == MyDatabaseId)
			into[n++] = kda_shared->waits[i];
	LWLockRelease(kda_shared->lock);
	return n;
}

void
kda_wait_mark_done(uint64 id)
{
	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < KDA_MAX_WAITS; i++)
		if (kda_shared->waits[i].id == id)
			kda_shared->waits[i].done = true;
	LWLockRelease(kda_shared->lock);
	ConditionVariableBroadcast(&kda_shared->wait_cv);
}

PG_FUNCTION_INFO_V1(kda_wait);

/*
 * kda.wait(stream regclass, timeout interval) → boolean: true when everything
 * that was readable at the call has been processed and committed.
 */
Datum
kda_wait(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Interval   *iv = PG_GETARG_INTERVAL_P(1);
	double		timeout_us = iv->time + ((double) iv->day + (double) iv->month * DAYS_PER_MONTH) * USECS_PER_DAY;
	TimestampTz until;
	volatile int mine = -1;
	bool		done = false;

	if (!kda_is_stream(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a stream", get_rel_name(relid) ? get_rel_name(relid) : "?"),
				 errhint("kda.wait takes the stream that a query reads.")));
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK &&
		pg_class_aclcheck(relid, GetUserId(), ACL_INSERT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_TABLE, get_rel_name(relid));
	if (kda_inbox_written_in_transaction(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this transaction has itself inserted into \"%s\"", get_rel_name(relid)),
				 errhint("COMMIT first: rows are processed once they are committed.")));

	/* nothing depends on it: all of it has been processed */
	if (!kda_stream_has_query(relid))
		PG_RETURN_BOOL(true);

	/* a copied database whose workers nobody has asked for yet */
	if (!kda_slots_any(MyDatabaseId))
	{
		KdaWanted  *wanted;
		int			n = kda_workers_wanted(&wanted);

		(void) kda_slots_want(MyDatabaseId, n, wanted);
		kda_launcher_wake();
	}

	until = GetCurrentTimestamp() + (int64) Max(Min(timeout_us, (double) MAX_TIMEOUT_US), 0);
	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < KDA_MAX_WAITS; i++)
		if (kda_shared->waits[i].id == 0)
		{
			kda_shared->waits[i].id = ++kda_shared->next_wait_id;
			kda_shared->waits[i].database = MyDatabaseId;
			kda_shared->waits[i].stream = relid;
			kda_shared->waits[i].done = false;
			kda_shared->waits[i].pid = MyProcPid;
			mine = i;
			break;
		}
	LWLockRelease(kda_shared->lock);
	if (mine < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("%d sessions are waiting in kda.wait already", KDA_MAX_WAITS),
				 errhint("Try again when some of them have ended.")));
	kda_slots_wake(MyDatabaseId);

	PG_ENSURE_ERROR_CLEANUP(free_request, Int32GetDatum(mine));
	{
		ConditionVariablePrepareToSleep(&kda_shared->wait_cv);
		for (;;)
		{
			int64		left;

			LWLockAcquire(kda_shared->lock, LW_SHARED);
			done = kda_shared->waits[mine].done;
			LWLockRelease(kda_shared->lock);
			left = (until - GetCurrentTimestamp()) / 1000;
			if (done || left <= 0)
				break;
			(void) ConditionVariableTimedSleep(&kda_shared->wait_cv, Min(left, 1000),
											   kda_wait_event_main());
		}
		ConditionVariableCancelSleep();
	}
	PG_END_ENSURE_ERROR_CLEANUP(free_request, Int32GetDatum(mine));
	free_request(0, Int32GetDatum(mine));
	PG_RETURN_BOOL(done);
}
