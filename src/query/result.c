/*-------------------------------------------------------------------------
 *
 * result.c
 *	  Runs the final part of a query over what is kept: the rows of windows that
 *	  close, of groups that changed, of records whose turn has come.
 *
 * An error in an expression must not hold up the rest: what is to blame is
 * found by running parts of it again, and goes to the error stream.
 * Here are also the functions that stand in final and per-batch parts.
 * In the worker's transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/rows.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "query/agg_signature.h"
#include "query/groups.h"
#include "query/run.h"
#include "runtime/error_stream.h"
#include "runtime/runtime.h"
#include "stream/fdw.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

/* Attribute of kda_storage.query_progress: see sql/. */
#define KDA_PROGRESS_FRONTIER	3

#define MAX_ISOLATED_RUNS 200	/* OVER: what still fails then is refused in the pieces that there are */

static KdaTime running_after,
			running_upto;		/* windows whose final part runs end within these */

/* Runs the final part; its rows land in a tuplestore. */
static void
run_final(KdaQuery *query, const KdaPlanBounds *bounds, Tuplestorestate *rows)
{
	DestReceiver *dest = CreateDestReceiver(DestTuplestore);
	KdaIdentity save;

	SetTuplestoreDestReceiverParams(dest, rows, CurrentMemoryContext, false, NULL, NULL);
	running_after = bounds->timed ? bounds->after : KDA_NO_TIME;
	running_upto = bounds->timed ? bounds->upto : KDA_END_TIME;
	kda_become_owner(query, &save);
	kda_plan_run_bounded(query->final_plan, bounds, dest);
	kda_become_self(&save);
	dest->rDestroy(dest);
}

static bool closing = false;	/* the windows whose final part runs are closed */
static bool computing = false;	/* the final part runs */

/*---- errors in the final part: which rows are to blame */

/* A tuple of the open table; those of one key belong together. */
typedef struct OpenTuple
{
	ItemPointerData tid;
	uint32		hash;
} OpenTuple;

static int
by_hash(const void *a, const void *b)
{
	const OpenTuple *ta = a;
	const OpenTuple *tb = b;

	return ta->hash != tb->hash ? (ta->hash < tb->hash ? -1 : 1) :
		ItemPointerCompare((ItemPointer) &ta->tid, (ItemPointer) &tb->tid);
}

/* State groups: the tuples whose pane is in the window, keys together; of endless groups all. */
static OpenTuple *
tuples_of_window(KdaQuery *query, KdaTime end, int *n)
{
	bool		windows = query->shape == KDA_SHAPE_WINDOWS;
	Relation	rel = table_open(query->open_rel, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	bool		paned = query->window.kind != KDA_WINDOW_TUMBLING;
	int			room = 64;
	OpenTuple  *tuples = palloc(sizeof(OpenTuple) * room);

	*n = 0;
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		KdaTime		start,
					found;

		CHECK_FOR_INTERRUPTS();
		if (windows && (!kda_window_next(&query->window, DatumGetTimestampTz(slot_getattr(slot, KDA_OPEN_FIRST_KEY, &isnull)),
										 end - 1, &start, &found) || found != end))
			continue;
		if (*n == room)
			tuples = repalloc_huge(tuples, sizeof(OpenTuple) * (room *= 2));
		slot_getallattrs(slot);
		tuples[*n].tid = slot->tts_tid;
		tuples[(*n)++].hash = kda_groups_hash_tuple(query->groups, slot, !windows ? 0 : paned ? 2 : 1);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	qsort(tuples, *n, sizeof(OpenTuple), by_hash);
	return tuples;
}

/* A result that cannot be computed: what it is made of goes to the error stream. */
static void
refuse_result(KdaQuery *query, const KdaPlanBounds *bounds, const ErrorData *edata)
{
	char	   *json = NULL;
	KdaTime		time = bounds->timed ? bounds->upto - 1 : bounds->leaving ? bounds->upto : KDA_NO_TIME;

	/* as long as the window is open it may still come right */
	if (!closing && query->shape == KDA_SHAPE_WINDOWS)
		return;

	if (bounds->tids)
	{
		Relation	rel = table_open(query->open_rel, AccessShareLock);
		TupleTableSlot *slot = table_slot_create(rel, NULL);

		if (table_tuple_fetch_row_version(rel, &bounds->tids[0], GetActiveSnapshot(), slot))
		{
			json = kda_query_row_json(query, slot, KDA_OPEN_FIRST_KEY - 1);
			if (kda_query_has_sessions(query))
				time = kda_groups_tuple_end(query->groups, slot) - 1;
		}
		ExecDropSingleTupleTableSlot(slot);
		table_close(rel, NoLock);
	}
	else
		json = psprintf("{\"%s\":\"%s\"}", bounds->leaving ? "rowtime" : "window_end", timestamptz_to_str(bounds->upto));
	kda_error_add("expression", edata->message, query->stream->relid, NULL, NULL, time, json, json ? strlen(json) : 0, query->relid);
}

static Tuplestorestate *final_rows(KdaQuery *query, const KdaPlanBounds *bounds);

static int	isolated_runs;		/* since the emission began */

static void
append_rows(KdaQuery *query, Tuplestorestate *to, const KdaPlanBounds *bounds)
{
	Tuplestorestate *some = final_rows(query, bounds);
	TupleTableSlot *slot;

	if (some == NULL)
		return;
	slot = MakeSingleTupleTableSlot(kda_plan_desc(query->final_plan), &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(some, true, false, slot))
		tuplestore_puttupleslot(to, slot);
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(some);
}

/* Ends of windows within the bounds, ascending. */
static KdaTime *
window_ends(KdaQuery *query, const KdaPlanBounds *bounds, int *n)
{
	KdaTime    *ends = query->slotted ? kda_slotted_window_ends(query, bounds, n) :
		query->groups ? kda_groups_window_ends(query->groups, bounds->upto, n) :
		kda_kept_window_ends(query->kept, bounds->upto, n);
	int			before = 0;

	while (before < *n && ends[before] <= bounds->after)
		before++;
	*n -= before;
	return memcpy(palloc(sizeof(KdaTime) * (*n + 1)), ends + before, sizeof(KdaTime) * *n);
}

/* Can single keys of a window be asked for? */
static bool
keys_are_separate(KdaQuery *query)
{
	return query->groups != NULL && !query->per_window;
}

/* Two halves of tuples, where keys stay together; n > 0.  Returns how many are in the first one. */
static int
half(const OpenTuple *tuples, int n)
{
	int			middle = n / 2;

	while (middle > 0 && tuples[middle].hash == tuples[middle - 1].hash)
		middle--;
	if (middle == 0)
		for (middle = n / 2; middle < n && (middle == 0 || tuples[middle].hash == tuples[middle - 1].hash); middle++)
			;
	return middle;
}

static void
by_halves(KdaQuery *query, Tuplestorestate *rows, const KdaPlanBounds *bounds, OpenTuple *tuples, int n)
{
	int			middle = half(tuples, n);

	for (int part = 0; part < 2 && query->failure == NULL; part++)
	{
		KdaPlanBounds some = *bounds;
		OpenTuple  *from = part == 0 ? tuples : tuples + middle;

		some.ntids = part == 0 ? middle : n - middle;
		if (some.ntids == 0)
			continue;
		some.tids = palloc_extended(sizeof(ItemPointerData) * some.ntids, MCXT_ALLOC_HUGE);
		for (int i = 0; i < some.ntids; i++)
			some.tids[i] = from[i].tid;
		append_rows(query, rows, &some);
		pfree(some.tids);
	}
}

static int
by_time(const void *a, const void *b)
{
	KdaTime		ta = *(const KdaTime *) a;
	KdaTime		tb = *(const KdaTime *) b;

	return ta < tb ? -1 : ta > tb;
}

/* OVER: the times of the rows that leave within the bounds, ascending, each once; palloc'd. */
static KdaTime *
leaving_times(KdaQuery *query, const KdaPlanBounds *bounds, int *n)
{
	Relation	rel = table_open(query->open_rel, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	int			room = 64;
	int			found = 0;
	KdaTime    *times = palloc(sizeof(KdaTime) * room);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		KdaTime		time = DatumGetTimestampTz(slot_getattr(slot, KDA_KEPT_TIME, &isnull));

		CHECK_FOR_INTERRUPTS();
		if (time > bounds->upto ||
			(time <= bounds->after && DatumGetInt64(slot_getattr(slot, KDA_KEPT_SEQ, &isnull)) <= bounds->first))
			continue;
		if (found == room)
			times = repalloc_huge(times, sizeof(KdaTime) * (room *= 2));
		times[found++] = time;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	qsort(times, found, sizeof(KdaTime), by_time);
	*n = 0;
	for (int i = 0; i < found; i++)
		if (i == 0 || times[i] != times[i - 1])
			times[(*n)++] = times[i];
	return times;
}

/*
 * The bounds do not give rows without an error: single windows are tried, then
 * single keys of a window; what is left is to blame.
 */
static void
isolate(KdaQuery *query, Tuplestorestate *rows, const KdaPlanBounds *bounds, const ErrorData *edata)
{
	OpenTuple  *tuples;
	KdaPlanBounds window;
	int			n;

	if (bounds->leaving)
	{
		/*
		 * Single instants are tried; rows of the one to blame are lost
		 * together.  One row that others look back at may spoil them all.
		 */
		KdaTime    *times = leaving_times(query, bounds, &n);

		if (n > 1 && isolated_runs++ < MAX_ISOLATED_RUNS)
		{
			KdaPlanBounds some = *bounds;
			KdaTime		middle = times[n / 2 - 1];

			pfree(times);
			some.upto = middle;
			append_rows(query, rows, &some);
			some.after = middle;
			some.upto = bounds->upto;
			some.first = PG_INT64_MAX;
			if (query->failure == NULL)
				append_rows(query, rows, &some);
			return;
		}
		pfree(times);
		refuse_result(query, bounds, edata);
		return;
	}
	if (bounds->timed && bounds->tids == NULL)
	{
		KdaTime    *ends = window_ends(query, bounds, &n);
		int			keys;

		if (n > 1)
		{
			KdaPlanBounds some = *bounds;

			some.upto = ends[n / 2 - 1];
			append_rows(query, rows, &some);
			some.after = some.upto;
			some.upto = ends[n - 1];
			pfree(ends);
			if (query->failure == NULL)
				append_rows(query, rows, &some);
			return;
		}
		if (n == 1)
		{
			/* which keys it has is asked by its end; time may have come further */
			window = *bounds;
			window.upto = ends[0];
			bounds = &window;
		}
		if (n == 1 && query->kept && (keys = kda_kept_count_ending(query->kept, ends[0])) > 1)
		{
			/* sessions of several keys */
			for (int i = 0; i < keys && query->failure == NULL; i++)
			{
				kda_kept_only(query->kept, ends[0], i);
				append_rows(query, rows, bounds);
			}
			kda_kept_only(query->kept, ends[0], -1);
			return;
		}
		if (n == 1 && keys_are_separate(query))
		{
			tuples = tuples_of_window(query, ends[0], &n);
			if (n > 0 && half(tuples, n) < n)
			{
				by_halves(query, rows, bounds, tuples, n);
				pfree(tuples);
				return;
			}
		}
		refuse_result(query, bounds, edata);
		return;
	}
	if (!bounds->timed && bounds->tids == NULL && keys_are_separate(query))
	{
		/* all of the endless groups */
		tuples = tuples_of_window(query, KDA_END_TIME, &n);
		if (n > 0)
			by_halves(query, rows, bounds, tuples, n);
		return;
	}
	tuples = palloc_extended(sizeof(OpenTuple) * Max(bounds->ntids, 1), MCXT_ALLOC_HUGE);
	n = bounds->ntids;
	for (int i = 0; i < n; i++)
	{
		tuples[i].tid = bounds->tids[i];
		tuples[i].hash = i;		/* endless groups, sessions: each tuple is a key of its own */
	}
	if (bounds->timed)
	{
		/* the same tuples with their keys again */
		Relation	rel = table_open(query->open_rel, AccessShareLock);
		TupleTableSlot *slot = table_slot_create(rel, NULL);
		int			found = 0;

		for (int i = 0; i < n; i++)
			if (table_tuple_fetch_row_version(rel, &tuples[i].tid, GetActiveSnapshot(), slot))
			{
				slot_getallattrs(slot);
				tuples[found] = tuples[i];
				tuples[found++].hash = kda_groups_hash_tuple(query->groups, slot, query->window.kind != KDA_WINDOW_TUMBLING ? 2 : 1);
			}
		ExecDropSingleTupleTableSlot(slot);
		table_close(rel, NoLock);
		n = found;
		qsort(tuples, n, sizeof(OpenTuple), by_hash);
	}
	if (n > 1 && half(tuples, n) < n)
		by_halves(query, rows, bounds, tuples, n);
	else
		refuse_result(query, bounds, edata);
	pfree(tuples);
}

/*
 * The final rows within bounds.  A row whose expressions fail is refused, the
 * others are given; NULL if the query cannot run at all (it has failed then).
 */
static Tuplestorestate *
final_rows(KdaQuery *query, const KdaPlanBounds *bounds)
{
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
	MemoryContext context = CurrentMemoryContext;
	/* an executor that ends by an error leaves everything behind */
	MemoryContext run_context = AllocSetContextCreate(context, "kda final part", ALLOCSET_DEFAULT_SIZES);
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile edata = NULL;
	KdaIdentity save;
	KdaPlanBounds none = {.timed = true,.after = KDA_END_TIME,.upto = KDA_END_TIME};

	GetUserIdAndSecContext(&save.userid, &save.sec_context);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(run_context);
	PG_TRY();
	{
		kda_query_timer_start();
		run_final(query, bounds, rows);
		kda_query_timer_stop();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		kda_query_timer_judge(query, edata);
		RollbackAndReleaseCurrentSubTransaction();
		kda_in_query = false;
		SetUserIdAndSecContext(save.userid, save.sec_context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	MemoryContextDelete(run_context);
	CurrentResourceOwner = owner;
	if (edata == NULL)
		return rows;

	tuplestore_end(rows);
	if (kda_error_is_transient(edata->sqlerrcode))
		ReThrowError(edata);
	if (query->failure)
		return NULL;
	/* does it fail without any row, or for want of a right, no row is to blame */
	if (bounds->after == none.after ||
		ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION)
	{
		kda_query_fail(query, edata);
		return NULL;
	}
	if (bounds->timed && bounds->tids == NULL)
	{
		Tuplestorestate *nothing = final_rows(query, &none);

		if (nothing == NULL)
			return NULL;
		tuplestore_end(nothing);
	}
	rows = tuplestore_begin_heap(false, false, work_mem);
	isolate(query, rows, bounds, edata);
	FreeErrorData(edata);
	if (query->failure)
	{
		tuplestore_end(rows);
		return NULL;
	}
	return rows;
}

Tuplestorestate *
kda_query_compute(KdaQuery *query, const KdaPlanBounds *bounds, bool closed)
{
	Tuplestorestate *rows;
	KdaQuery   *around = kda_current_query;

	if (query->final_plan == NULL)
		query->final_plan = kda_plan_create(query->context, query->slotted && OidIsValid(query->merged_rel) ?
											query->merged_rel : query->final_rel, true);
	kda_current_query = query;
	isolated_runs = 0;
	closing = closed;
	computing = true;
	CommandCounterIncrement();
	KDA_FAULT("close");
	PushActiveSnapshot(GetLatestSnapshot());
	rows = final_rows(query, bounds);
	PopActiveSnapshot();
	closing = computing = false;
	kda_current_query = around;
	return rows;
}

/*---- functions that stand in final parts */

PG_FUNCTION_INFO_V1(kda_closing);

/* kda.closing(query_id) → boolean: true while the worker runs the final part of the query, for what kda.closing_sessions() gives then */
Datum
kda_closing(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(computing && kda_current_query && kda_current_query->id == PG_GETARG_INT32(0));
}

PG_FUNCTION_INFO_V1(kda_closing_sessions);

/* kda.closing_sessions(query_id) → (window_start, window_end, kda_key): sessions whose rows are asked for; none outside of kda.closing() */
Datum
kda_closing_sessions(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	if (computing && kda_current_query && kda_current_query->id == PG_GETARG_INT32(0) && kda_current_query->kept)
		kda_kept_put_closing(kda_current_query->kept, running_after, running_upto, (ReturnSetInfo *) fcinfo->resultinfo);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(kda_window_closed);

/* kda.window_closed() → boolean: true while the worker emits closed windows */
Datum
kda_window_closed(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(closing);
}

PG_FUNCTION_INFO_V1(kda_window_revision);

/* kda.window_revision() → int */
Datum
kda_window_revision(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(0);
}

/* The row in the batch of the query that runs. */
static int
row_of_argument(FunctionCallInfo fcinfo, const char *function)
{
	KdaQuery   *query = kda_current_query;
	int			row = PG_ARGISNULL(0) ? -1 : kda_tid_to_row((ItemPointer) PG_GETARG_POINTER(0));
	KdaBatch   *batch = kda_in_worker && query ? query->stream->batch : NULL;

	if (batch == NULL || row < 0 || row >= batch->nrows)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s is known only inside a worker", function)));
	return row;
}

PG_FUNCTION_INFO_V1(kda_batch_row);

/* kda.batch_row(tid) → bigint: the record's place in the batch, in order of arrival */
Datum
kda_batch_row(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(row_of_argument(fcinfo, "kda.batch_row()"));
}

PG_FUNCTION_INFO_V1(kda_pane_after);

/* kda.pane_after(tid) → timestamptz: of the record at that place in the batch, for the query that runs */
Datum
kda_pane_after(PG_FUNCTION_ARGS)
{
	int			row = row_of_argument(fcinfo, "kda.pane_after()");
	KdaQuery   *query = kda_current_query;

	PG_RETURN_TIMESTAMPTZ(kda_window_after(&query->window, query->stream->batch->rowtime[row], kda_query_mark(query, row)));
}

PG_FUNCTION_INFO_V1(kda_frontier);

/* kda.frontier(query_id) → timestamptz: as of the caller's snapshot; -infinity: nothing is closed yet */
Datum
kda_frontier(PG_FUNCTION_ARGS)
{
	int32		id = PG_GETARG_INT32(0);
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	KdaTime		frontier = KDA_NO_TIME;

	/* the worker is ahead of its table; what it asks for is bounded besides, and may be windows that are corrected */
	if (kda_in_worker && kda_current_query && kda_current_query->id == id)
		PG_RETURN_TIMESTAMPTZ(kda_current_query->forgotten);
	rel = table_open(kda_storage_relation("query_progress"), AccessShareLock);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	scan = systable_beginscan(rel, kda_storage_relation("query_progress_pkey"), true, GetActiveSnapshot(), 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		d = heap_getattr(tuple, KDA_PROGRESS_FRONTIER, RelationGetDescr(rel), &isnull);

		if (!isnull)
			frontier = DatumGetTimestampTz(d);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	PG_RETURN_TIMESTAMPTZ(frontier);
}
