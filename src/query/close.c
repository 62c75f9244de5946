/*-------------------------------------------------------------------------
 *
 * close.c
 *	  When windows close, which records are late for them, and when closed rows
 *	  are forgotten.  In the worker's transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/genam.h"
#include "access/table.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "query/groups.h"
#include "query/run.h"
#include "runtime/runtime.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#define ENDED_AT_ONCE	100000	/* sessions whose rows are given by one run of the final part */

static void
emit_final(KdaQuery *query, const KdaPlanBounds *bounds, KdaTime shard_wm, bool closed)
{
	Tuplestorestate *rows = kda_query_compute(query, bounds, closed);

	if (rows == NULL)
		return;
	kda_query_emit_computed(query, rows, shard_wm);
	tuplestore_end(rows);
}

/* Sessions in groups: the cache knows where those are that have ended. */
static void
emit_ended(KdaQuery *query, KdaTime frontier)
{
	KdaPlanBounds bounds = {.timed = false,.after = KDA_NO_TIME,.upto = KDA_END_TIME};
	int			n;
	ItemPointer tids = kda_groups_ended(query->groups, frontier, &n);

	for (int from = 0; from < n && query->failure == NULL; from += ENDED_AT_ONCE)
	{
		bounds.tids = tids + from;
		bounds.ntids = Min(n - from, ENDED_AT_ONCE);
		emit_final(query, &bounds, query->frontier, true);
	}
	pfree(tids);
}

KdaTime
kda_query_closed_upto(const KdaQuery *query, KdaTime watermark)
{
	if (query->deferred)
		watermark = kda_earlier(watermark, query->lateness_us);
	/* a row at exactly the gap is not late yet when the watermark has reached the end of its session */
	return kda_query_has_sessions(query) && query->window.kind == KDA_WINDOW_SESSION && !TIMESTAMP_NOT_FINITE(watermark) ?
		watermark - 1 : watermark;
}

KdaTime
kda_query_final_upto(const KdaQuery *query, KdaTime watermark)
{
	KdaTime		closed = kda_query_closed_upto(query, watermark);

	return query->deferred ? closed : kda_earlier(closed, query->lateness_us);
}

void
kda_query_forget_windows(KdaQuery *query, KdaTime upto)
{
	if (query->groups)
		kda_groups_close(query->groups, upto);
	else
		kda_kept_close(query->kept, upto);
	if (query->leftovers)
		kda_slotted_close_leftovers(query, upto);
	KDA_FAULT("closed");
}

void
kda_query_close_windows(KdaQuery *query, KdaTime frontier)
{
	KdaPlanBounds bounds = {.timed = true,.after = query->frontier,.upto = frontier};

	kda_query_prepare_state(query);
	/* after a restart windows may close before a record comes */
	if (query->groups)
		kda_groups_prepare(query->groups);
	if (query->slotted ? !kda_slotted_any_ends(query, frontier) :
		(query->groups ? kda_groups_min_window_end(query->groups) : kda_kept_min_window_end(query->kept)) > frontier)
		return;
	if (query->groups && kda_query_has_sessions(query))
		emit_ended(query, frontier);
	else
	{
		if (query->kept)
			kda_kept_begin_closing(query->kept, frontier);
		emit_final(query, &bounds, query->frontier, true);
	}
	if (query->failure)
		return;
	kda_current_query = query;
	kda_query_forget_windows(query, frontier);
	kda_current_query = NULL;
}

void
kda_query_emit_changed(KdaQuery *query)
{
	KdaPlanBounds bounds = {.after = KDA_NO_TIME,.upto = KDA_END_TIME};

	bounds.tids = kda_groups_written(query->groups, &bounds.ntids);
	if (bounds.ntids > 0)
		emit_final(query, &bounds, query->stream->watermark, false);
}

void
kda_query_emit_final(KdaQuery *query, const KdaPlanBounds *bounds, KdaTime shard_wm)
{
	emit_final(query, bounds, shard_wm, true);
}

KdaTime
kda_query_mark(const KdaQuery *query, int row)
{
	return Max(kda_earlier(query->stream->batch->shard_wm[row], query->lateness_us), Max(query->forgotten, query->accepts));
}

bool
kda_query_is_late(KdaQuery *query, int row)
{
	KdaBatch   *batch = query->stream->batch;
	KdaTime		t = batch->rowtime[row];

	/* an infinite time is in one window that never ends, or not in any */
	if (TIMESTAMP_NOT_FINITE(t) && query->window.kind != KDA_WINDOW_TUMBLING)
		return true;
	/* whether it joins a session that has closed depends on other rows: what is earlier than the watermark may not */
	if (query->window.kind == KDA_WINDOW_SESSION)
		return t < kda_earlier(batch->shard_wm[row], query->lateness_us) || t <= query->forgotten;
	return kda_window_last_end(&query->window, t) <= kda_query_mark(query, row);
}

/*---- forgetting */

#define FORGET_EVERY	(10 * USECS_PER_SEC)

/* The index on the time of the closed rows: ours, made first. */
static Oid
time_index(Relation closed)
{
	ListCell   *lc;
	Oid			found = InvalidOid;
	List	   *indexes = RelationGetIndexList(closed);

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_index->indnatts == 1 && index->rd_index->indkey.values[0] == 1 &&
			heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
			found = lfirst_oid(lc);
		index_close(index, NoLock);
		if (OidIsValid(found))
			break;
	}
	list_free(indexes);
	return found;
}

/*
 * Not by a DELETE statement: planning one would run the owner's index
 * expressions with the worker's rights.
 */
void
kda_query_forget_old(KdaQuery *query, TimestampTz now)
{
	KdaTime		mark = query->stream->watermark;
	Relation	closed;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	Oid			index;

	if (query->retention_us < 0 || !OidIsValid(query->closed_rel) || mark == KDA_NO_TIME ||
		TIMESTAMP_NOT_FINITE(mark) || now < query->forget_at)
		return;
	query->forget_at = now + FORGET_EVERY;
	closed = table_open(query->closed_rel, RowExclusiveLock);
	CommandCounterIncrement();
	ScanKeyInit(&key, 1, BTLessStrategyNumber, F_TIMESTAMPTZ_LT, TimestampTzGetDatum(mark - query->retention_us));
	PushActiveSnapshot(GetLatestSnapshot());
	index = time_index(closed);
	scan = systable_beginscan(closed, index, OidIsValid(index), GetActiveSnapshot(), 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		simple_table_tuple_delete(closed, &tuple->t_self, GetActiveSnapshot());
	}
	systable_endscan(scan);
	PopActiveSnapshot();
	table_close(closed, NoLock);
}
