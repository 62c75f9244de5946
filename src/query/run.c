/*-------------------------------------------------------------------------
 *
 * run.c
 *	  One continuous query over the batch of its stream, as its owner.
 *
 * The good path is one subtransaction and one execution.  When it fails, the
 * same rows are run in halves, down to the record that is to blame: that one
 * is refused, the others count.  What each successful half did is written back
 * before the next one begins, so that a later failure takes only its own
 * groups with it.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "executor/tstoreReceiver.h"
#include "miscadmin.h"
#include "query/groups.h"
#include "query/query.h"
#include "query/run.h"
#include "runtime/fault.h"
#include "runtime/runtime.h"
#include "tcop/dest.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

KdaQuery   *kda_current_query = NULL;
bool		kda_in_query = false;

typedef struct RunContext
{
	KdaQuery   *query;
	Tuplestorestate *rows;
	void		(*refuse) (void *arg, int row, ErrorData *edata);
	void	   *arg;
	MemoryContext context;
	ResourceOwner owner;
	bool		halving;
} RunContext;

/* Errors that say nothing about a record: the whole transaction is tried again. */
bool
kda_error_is_transient(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case MAKE_SQLSTATE('0', '8', '0', '0', '0'):
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):
			return true;
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):
			/* a query_timeout is the query's own */
			return sqlstate != ERRCODE_QUERY_CANCELED;
	}
	return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE;
}

void
kda_become_owner(KdaQuery *query, KdaIdentity *save)
{
	GetUserIdAndSecContext(&save->userid, &save->sec_context);
	SetUserIdAndSecContext(query->owner,
						   save->sec_context | SECURITY_RESTRICTED_OPERATION |
						   SECURITY_LOCAL_USERID_CHANGE);
	save->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", query->search_path, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	kda_current_query = query;
	kda_in_query = true;
}

void
kda_become_self(const KdaIdentity *save)
{
	AtEOXact_GUC(true, save->guc_level);
	SetUserIdAndSecContext(save->userid, save->sec_context);
	kda_in_query = false;
}

/*---- kda_stream.query_timeout */

#define MAX_TIMEOUTS	16		/* in one batch */

static TimestampTz timer_started = 0;	/* 0: not running */
static int	timer_ms;

void
kda_query_timer_start(void)
{
	timer_started = 0;
	if (kda_query_timeout_ms <= 0)
		return;
	timer_ms = kda_query_timeout_ms;
	timer_started = GetCurrentTimestamp();
	enable_timeout_after(STATEMENT_TIMEOUT, timer_ms);
}

void
kda_query_timer_stop(void)
{
	if (timer_started != 0)
		disable_timeout(STATEMENT_TIMEOUT, false);
	timer_started = 0;
}

void
kda_query_timer_judge(KdaQuery *query, ErrorData *edata)
{
	bool		expired = timer_started != 0 && edata->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		TimestampDifferenceExceeds(timer_started, GetCurrentTimestamp(), timer_ms);

	kda_query_timer_stop();
	if (!expired)
		return;
	edata->message = psprintf("the query took longer than kda_stream.query_timeout (%d ms)", timer_ms);
	if (++query->timeouts > MAX_TIMEOUTS && query->failure == NULL)
		kda_query_fail(query, edata);
}

/*---- running */

/* Runs rows [from, to); into is NULL for groups. */
static void
execute(RunContext *cxt, int from, int to, Tuplestorestate *into)
{
	KdaQuery   *query = cxt->query;
	KdaBatch   *batch = query->stream->batch;
	KdaIdentity save;
	DestReceiver *dest;

	batch->scan_from = from;
	batch->scan_to = to;
	kda_become_owner(query, &save);
	if (into)
	{
		dest = CreateDestReceiver(DestTuplestore);
		SetTuplestoreDestReceiverParams(dest, into, cxt->context, false, NULL, NULL);
	}
	else
		dest = None_Receiver;
	KDA_FAULT("query");
	kda_plan_run(query->batch_plan, to - from, dest);
	if (into)
		dest->rDestroy(dest);
	kda_become_self(&save);
	KDA_FAULT("query_done");
	if (cxt->halving && query->groups)
		kda_groups_write_back(query->groups);
}

void
kda_query_prepare_state(KdaQuery *query)
{
	if (query->state == KDA_STATE_GROUPS && query->groups == NULL)
		query->groups = kda_groups_create(query, (Size) kda_state_cache_kb * 1024);
	if (query->state == KDA_STATE_ROWS && query->kept == NULL)
		query->kept = kda_kept_create(query);
}

/* NULL on success, else the error; the subtransaction is gone either way. */
static ErrorData *
attempt(RunContext *cxt, int from, int to, Tuplestorestate *into)
{
	ErrorData  *volatile edata = NULL;
	KdaIdentity save;

	GetUserIdAndSecContext(&save.userid, &save.sec_context);
	if (cxt->query->groups)
		kda_groups_begin_attempt(cxt->query->groups);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt->context);
	PG_TRY();
	{
		kda_query_timer_start();
		execute(cxt, from, to, into);
		kda_query_timer_stop();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt->context);
		edata = CopyErrorData();
		FlushErrorState();
		kda_query_timer_judge(cxt->query, edata);
		RollbackAndReleaseCurrentSubTransaction();
		kda_in_query = false;
		SetUserIdAndSecContext(save.userid, save.sec_context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt->context);
	CurrentResourceOwner = cxt->owner;
	if (edata && cxt->query->groups)
		kda_groups_abort_query(cxt->query->groups);
	return edata;
}

static void
append(Tuplestorestate *to, Tuplestorestate *from, TupleDesc desc)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);

	while (tuplestore_gettupleslot(from, true, false, slot))
		tuplestore_puttupleslot(to, slot);
	ExecDropSingleTupleTableSlot(slot);
}

static void
halve(RunContext *cxt, int from, int to)
{
	Tuplestorestate *part = NULL;
	ErrorData  *edata;

	CHECK_FOR_INTERRUPTS();
	if (cxt->query->failure)
		return;
	if (cxt->rows)
		part = tuplestore_begin_heap(false, false, work_mem);
	edata = attempt(cxt, from, to, part);
	if (edata == NULL)
	{
		if (part)
			append(cxt->rows, part, kda_plan_desc(cxt->query->batch_plan));
	}
	else if (kda_error_is_transient(edata->sqlerrcode))
		ReThrowError(edata);
	else if (to - from == 1)
		cxt->refuse(cxt->arg, from, edata);
	else
	{
		int			middle = from + (to - from) / 2;

		FreeErrorData(edata);
		halve(cxt, from, middle);
		halve(cxt, middle, to);
	}
	if (part)
		tuplestore_end(part);
}

void
kda_query_fail(KdaQuery *query, const ErrorData *edata)
{
	query->failure = MemoryContextStrdup(query->context,
										 edata->detail ?
										 psprintf("%s (%s)", edata->message, edata->detail) :
										 edata->message);
	query->failed_now = true;
}

void
kda_query_run(KdaQuery *query, Tuplestorestate *rows,
			  void (*refuse) (void *arg, int row, ErrorData *edata), void *arg)
{
	KdaBatch   *batch = query->stream->batch;
	RunContext	cxt = {query, rows, refuse, arg, CurrentMemoryContext, CurrentResourceOwner, false};
	ErrorData  *edata;

	kda_current_query = query;
	query->timeouts = 0;
	if (query->batch_plan == NULL)
	{
		query->batch_plan = kda_plan_create(query->context, query->batch_rel, false);
		kda_query_prepare_state(query);
	}

	edata = attempt(&cxt, 0, batch->nrows, rows);
	if (edata)
	{
		ErrorData  *none;

		if (kda_error_is_transient(edata->sqlerrcode))
			ReThrowError(edata);
		if (rows)
			tuplestore_clear(rows);

		/* Does it fail without any record?  Then no record is to blame. */
		none = attempt(&cxt, 0, 0, rows);
		if (none)
		{
			if (kda_error_is_transient(none->sqlerrcode))
				ReThrowError(none);
			kda_query_fail(query, none);
		}
		else
		{
			cxt.halving = true;
			halve(&cxt, 0, batch->nrows);
		}
	}
	batch->scan_from = 0;
	batch->scan_to = batch->nrows;
	kda_current_query = NULL;
}

void
kda_query_write_back(KdaQuery *query)
{
	kda_current_query = query;
	kda_groups_write_back(query->groups);
	kda_current_query = NULL;
}
