/*-------------------------------------------------------------------------
 *
 * join.c
 *	  Joins of two streams: keeps the rows of both sides, matches each batch of
 *	  one side with what is kept of the other, and lets rows go that nothing
 *	  can match any more.
 *
 * A row of the batch is kept before it is matched, and it is matched with what
 * the other side has kept so far; so each pair is found once, by whichever row
 * is kept later.  Unmatched rows of an outer side leave when they go.
 *
 * In a pipeline worker only, in its transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "miscadmin.h"
#include "query/query.h"
#include "query/run.h"
#include "runtime/runtime.h"
#include "stream/fdw.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/* Columns of a match before the user's: times and numbers of both rows. */
enum
{
	MATCH_LEFT_TIME = 1,
	MATCH_RIGHT_TIME,
	MATCH_LEFT_SEQ,
	MATCH_RIGHT_SEQ
};

typedef struct Matching
{
	KdaQuery   *query;
	int			side;
	Tuplestorestate *rows;		/* matches */
	MemoryContext context;
	ResourceOwner owner;
} Matching;

/* The rows of the side numbered first to last with the other side's. */
static ErrorData *
match_range(Matching *m, int64 first, int64 last)
{
	KdaQuery   *query = m->query;
	KdaPlanBounds bounds = {0};
	ErrorData  *volatile edata = NULL;
	Tuplestorestate *some = tuplestore_begin_heap(false, false, work_mem);
	KdaIdentity save;

	bounds.numbered = m->side == 0 ? MATCH_LEFT_SEQ : MATCH_RIGHT_SEQ;
	bounds.first = first;
	bounds.last = last;
	GetUserIdAndSecContext(&save.userid, &save.sec_context);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(m->context);
	PG_TRY();
	{
		DestReceiver *dest = CreateDestReceiver(DestTuplestore);
		KdaIdentity before;

		SetTuplestoreDestReceiverParams(dest, some, m->context, false, NULL, NULL);
		kda_become_owner(query, &before);
		kda_plan_run_bounded(query->final_plan, &bounds, dest);
		kda_become_self(&before);
		dest->rDestroy(dest);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(m->context);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		kda_in_query = false;
		SetUserIdAndSecContext(save.userid, save.sec_context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(m->context);
	CurrentResourceOwner = m->owner;
	if (edata == NULL)
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(kda_plan_desc(query->final_plan), &TTSOpsMinimalTuple);

		while (tuplestore_gettupleslot(some, true, false, slot))
			tuplestore_puttupleslot(m->rows, slot);
		ExecDropSingleTupleTableSlot(slot);
	}
	tuplestore_end(some);
	if (edata && kda_error_is_transient(edata->sqlerrcode))
		ReThrowError(edata);
	return edata;
}

/* Halves until the row to blame is alone; that one is refused and kept no longer. */
static void
match_or_halve(Matching *m, int64 first, int64 last, const int *batch_rows, int64 base,
			   void (*refuse) (void *arg, int row, ErrorData *edata), void *arg)
{
	ErrorData  *edata;

	CHECK_FOR_INTERRUPTS();
	if (first > last || m->query->failure)
		return;
	edata = match_range(m, first, last);
	if (edata == NULL)
		return;
	if (ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION)
	{
		kda_query_fail(m->query, edata);
		return;
	}
	if (first == last)
	{
		refuse(arg, batch_rows[first - base], edata);
		kda_kept_delete(m->query->sides[m->side]->kept, first);
		return;
	}
	FreeErrorData(edata);
	match_or_halve(m, first, first + (last - first) / 2, batch_rows, base, refuse, arg);
	match_or_halve(m, first + (last - first) / 2 + 1, last, batch_rows, base, refuse, arg);
}

static int
by_number(const void *a, const void *b)
{
	int64		na = DatumGetInt64(*(const Datum *) a);
	int64		nb = DatumGetInt64(*(const Datum *) b);

	return na < nb ? -1 : na > nb;
}

/* Rows of an outer side that have found a partner. */
static void
mark_matched(KdaQuery *query, int side, Tuplestorestate *matches)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(kda_plan_desc(query->final_plan), &TTSOpsMinimalTuple);
	int64		n = tuplestore_tuple_count(matches);
	Datum	   *numbers = palloc_extended(sizeof(Datum) * Max(n, 1), MCXT_ALLOC_HUGE);
	int			distinct = 0;
	Oid			types[1] = {INT8ARRAYOID};
	Datum		values[1];
	int64		i = 0;

	tuplestore_rescan(matches);
	while (tuplestore_gettupleslot(matches, true, false, slot))
	{
		bool		isnull;

		numbers[i++] = slot_getattr(slot, side == 0 ? MATCH_LEFT_SEQ : MATCH_RIGHT_SEQ, &isnull);
	}
	ExecDropSingleTupleTableSlot(slot);
	qsort(numbers, i, sizeof(Datum), by_number);
	for (int64 k = 0; k < i; k++)
		if (distinct == 0 || numbers[distinct - 1] != numbers[k])
			numbers[distinct++] = numbers[k];
	values[0] = PointerGetDatum(construct_array(numbers, distinct, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	SPI_connect();
	SPI_execute_with_args(psprintf("UPDATE " KDA_STORAGE_SCHEMA ".%s SET kda_matched = true "
								   "WHERE kda_seq = ANY ($1) AND NOT kda_matched",
								   quote_identifier(get_rel_name(query->sides[side]->open_rel))),
						  1, types, values, NULL, false, 0);
	SPI_finish();
	pfree(numbers);
}

void
kda_join_run(KdaQuery *query, int side, void (*refuse) (void *arg, int row, ErrorData *edata), void *arg)
{
	KdaQuery   *one = query->sides[side];
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
	Matching	m = {query, side, NULL, CurrentMemoryContext, CurrentResourceOwner};
	int			nrows;
	int		   *batch_rows;
	int64		first;
	TupleTableSlot *slot;
	int			i = 0;

	kda_query_run(one, rows, refuse, arg);
	if (one->failure)
	{
		query->failure = MemoryContextStrdup(query->context, one->failure);
		query->failed_now = true;
		tuplestore_end(rows);
		return;
	}
	nrows = (int) tuplestore_tuple_count(rows);
	if (nrows > 0)
	{
		batch_rows = palloc_extended(sizeof(int) * nrows, MCXT_ALLOC_HUGE);
		slot = MakeSingleTupleTableSlot(kda_plan_desc(one->batch_plan), &TTSOpsMinimalTuple);
		while (tuplestore_gettupleslot(rows, true, false, slot))
		{
			bool		isnull;

			batch_rows[i++] = kda_tid_to_row((ItemPointer) DatumGetPointer(slot_getattr(slot, 1, &isnull)));
		}
		ExecDropSingleTupleTableSlot(slot);
		tuplestore_rescan(rows);
		kda_query_prepare_state(one);
		first = kda_kept_append(one->kept, rows);
		if (query->final_plan == NULL)
			query->final_plan = kda_plan_create(query->context, query->final_rel, true);
		kda_current_query = query;
		CommandCounterIncrement();
		PushActiveSnapshot(GetLatestSnapshot());
		m.rows = tuplestore_begin_heap(false, false, work_mem);
		match_or_halve(&m, first, first + nrows - 1, batch_rows, first, refuse, arg);
		PopActiveSnapshot();
		if (query->failure == NULL && tuplestore_tuple_count(m.rows) > 0)
		{
			for (int s = 0; s < 2; s++)
				if (query->join_outer & (1 << s))
					mark_matched(query, s, m.rows);
			tuplestore_rescan(m.rows);
			kda_query_emit_joined(query, m.rows, kda_plan_desc(query->final_plan));
		}
		tuplestore_end(m.rows);
		kda_current_query = NULL;
	}
	tuplestore_end(rows);
}

/*---- what cannot match any more */

/* No row of that side that counts is earlier. */
static KdaTime
side_watermark(KdaQuery *query, int side)
{
	KdaStream  *stream = query->sides[side]->stream;

	return kda_earlier(stream->watermark, stream->options->allowed_lateness_us);
}

/* Rows of that side before this time are passed: the other side's watermark is beyond all that they could match. */
static KdaTime
passed(KdaQuery *query, int side)
{
	KdaTime		other = side_watermark(query, 1 - side);
	int64		reach = side == 0 ? query->join_high_us : -query->join_low_us;

	if (TIMESTAMP_NOT_FINITE(other))
		return other;
	return other - reach;
}

KdaTime
kda_join_watermark(KdaQuery *query)
{
	KdaTime		least = KDA_END_TIME;

	for (int s = 0; s < 2; s++)
	{
		KdaTime		w = side_watermark(query, s);

		if (w == KDA_NO_TIME)
			return KDA_NO_TIME;
		least = Min(least, w);
		/* unmatched rows leave with their own time once they are passed */
		if (query->join_outer & (1 << s))
			least = Min(least, passed(query, s));
	}
	return least;
}

/* Unmatched rows of that side that go now, with NULLs for the other. */
static void
emit_unmatched(KdaQuery *query, int side, KdaTime before)
{
	TupleDesc	desc = kda_plan_desc(query->final_plan);
	StringInfoData sql;
	Oid			types[1] = {TIMESTAMPTZOID};
	Datum		values[1] = {TimestampTzGetDatum(before)};
	Tuplestorestate *rows;
	TupleTableSlot *slot;
	MemoryContext old = CurrentMemoryContext;
	char		mine = side == 0 ? 'l' : 'r';

	initStringInfo(&sql);
	appendStringInfoString(&sql, side == 0 ? "SELECT kda_time, NULL::pg_catalog.timestamptz, kda_seq, NULL::bigint" :
						   "SELECT NULL::pg_catalog.timestamptz, kda_time, NULL::bigint, kda_seq");
	for (int i = MATCH_RIGHT_SEQ; i < desc->natts; i++)
	{
		/* l1, l2 … r1, r2 … */
		const char *name = NameStr(TupleDescAttr(desc, i)->attname);

		if (name[0] == mine)
			appendStringInfo(&sql, ", c%s", name + 1);
		else
			appendStringInfo(&sql, ", NULL::%s", format_type_extended(TupleDescAttr(desc, i)->atttypid,
																	  TupleDescAttr(desc, i)->atttypmod,
																	  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	}
	appendStringInfo(&sql, " FROM " KDA_STORAGE_SCHEMA ".%s WHERE kda_time < $1 AND NOT kda_matched ORDER BY kda_time, kda_seq",
					 quote_identifier(get_rel_name(query->sides[side]->open_rel)));
	rows = tuplestore_begin_heap(false, false, work_mem);
	SPI_connect();
	SPI_execute_with_args(sql.data, 1, types, values, NULL, false, 0);
	MemoryContextSwitchTo(old);
	slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		ExecClearTuple(slot);
		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, slot->tts_values, slot->tts_isnull);
		ExecStoreVirtualTuple(slot);
		tuplestore_puttupleslot(rows, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	SPI_finish();
	if (tuplestore_tuple_count(rows) > 0)
		kda_query_emit_joined(query, rows, desc);
	tuplestore_end(rows);
}

void
kda_join_settle(KdaQuery *query)
{
	if (query->final_plan == NULL)
		query->final_plan = kda_plan_create(query->context, query->final_rel, true);
	for (int s = 0; s < 2; s++)
	{
		KdaTime		before = passed(query, s);
		int64		next;

		if (before == KDA_NO_TIME)
			continue;
		kda_query_prepare_state(query->sides[s]);
		next = kda_kept_next(query->sides[s]->kept);
		/* the other side may be so far ahead that rows come that it has passed */
		if (before <= query->join_passed[s] && next == query->join_seen[s])
			continue;
		kda_current_query = query;
		CommandCounterIncrement();
		PushActiveSnapshot(GetLatestSnapshot());
		if (query->join_outer & (1 << s))
			emit_unmatched(query, s, before);
		kda_kept_delete_before(query->sides[s]->kept, before);
		PopActiveSnapshot();
		kda_current_query = NULL;
		query->join_passed[s] = before;
		query->join_seen[s] = next;
	}
	query->frontier = Max(query->frontier, kda_join_watermark(query));
}

void
kda_join_reset(KdaQuery *query, int sides)
{
	if (query->final_plan == NULL)
		query->final_plan = kda_plan_create(query->context, query->final_rel, true);
	kda_current_query = query;
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	for (int s = 0; s < 2; s++)
	{
		query->join_passed[s] = KDA_NO_TIME;
		if (!(sides & (1 << s)))
			continue;
		kda_query_prepare_state(query->sides[s]);
		if (query->join_outer & (1 << s))
			emit_unmatched(query, s, KDA_END_TIME);
		kda_kept_delete_before(query->sides[s]->kept, KDA_END_TIME);
	}
	PopActiveSnapshot();
	kda_current_query = NULL;
	query->frontier = KDA_NO_TIME;
}
