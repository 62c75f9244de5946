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
#include "catalog/options.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "runtime/runtime.h"
#include "storage/latch.h"
#include "stream/inbox.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

static void
free_request(int i)
{
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
	int64		timeout_us = iv->time + ((int64) iv->day + (int64) iv->month * DAYS_PER_MONTH) * USECS_PER_DAY;
	TimestampTz until = GetCurrentTimestamp() + timeout_us;
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
				 errmsg("%d sessions are waiting in kda.wait already", KDA_MAX_WAITS)));
	kda_slots_wake(MyDatabaseId);

	PG_TRY();
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
	PG_CATCH();
	{
		free_request(mine);
		PG_RE_THROW();
	}
	PG_END_TRY();
	free_request(mine);
	PG_RETURN_BOOL(done);
}
