/*-------------------------------------------------------------------------
 *
 * kept_rows.c
 *	  State rows: the columns of records that open windows still need, in a
 *	  logged table, and which windows they are in.
 *
 * The table is the truth; in memory there is only the list of ends of open
 * windows, so that each commit knows at once whether one has closed; or, where
 * windows depend on other rows, which of them are open (sessions.h).  It is
 * read from the table when it is not known: at start and after an abort.
 *
 * In a pipeline worker only.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "query/query.h"
#include "query/run.h"
#include "query/sessions.h"
#include "storage/bufmgr.h"
#include "stream/fdw.h"
#include "stream/indexes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

struct KdaKeptRows
{
	KdaQuery   *query;
	KdaSessions *sessions;		/* windows that depend on other rows; else NULL */
	MemoryContext state;		/* … and what they know */
	KdaSession *only;			/* the one that closes alone, NULL: all that have ended */
	bool		known;			/* what follows reflects the table */
	int64		next_seq;
	int64		first_unseen;	/* next_seq when the table was read */
	int64		nrows;
	KdaTime    *ends;			/* of windows that are not forgotten, ascending */
	int			nends;
	int			room;
	/* the last row's pane: its windows are in the list */
	KdaTime		last_pane;
	KdaTime		last_mark;
};

/* Keys are the columns after the record's place. */
static void
create_sessions(KdaKeptRows *kept)
{
	KdaQuery   *query = kept->query;
	Relation	view = relation_open(query->batch_rel, AccessShareLock);
	Query	   *batch = kda_view_query(view);
	KdaKeySpec *keys = MemoryContextAllocZero(query->context, sizeof(KdaKeySpec) * (query->nkeys + 1));

	for (int i = 0; i < query->nkeys; i++)
		kda_key_make(query->context, &keys[i], (Node *) list_nth_node(TargetEntry, batch->targetList, i + 1)->expr);
	relation_close(view, NoLock);
	kept->state = AllocSetContextCreate(query->context, "kda sessions of kept rows", ALLOCSET_DEFAULT_SIZES);
	kept->sessions = kda_sessions_create(query->context, kept->state, query, query->nkeys, keys);
}

KdaKeptRows *
kda_kept_create(KdaQuery *query)
{
	KdaKeptRows *kept = MemoryContextAllocZero(query->context, sizeof(KdaKeptRows));

	kept->query = query;
	if (kda_query_has_sessions(query))
		create_sessions(kept);
	return kept;
}

void
kda_kept_at_abort(KdaKeptRows *kept)
{
	kept->known = false;
}

/* Where the end is in the list, or would be. */
static int
find_end(KdaKeptRows *kept, KdaTime end)
{
	int			low = 0,
				high = kept->nends;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (kept->ends[middle] < end)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void
note_windows(KdaKeptRows *kept, KdaTime t, KdaTime mark)
{
	KdaQuery   *query = kept->query;
	KdaTime		pane = kda_window_pane(&query->window, t);
	KdaTime		after = Max(mark, query->forgotten);
	KdaTime		start,
				end;

	if (pane == kept->last_pane && mark == kept->last_mark)
		return;
	kept->last_pane = pane;
	kept->last_mark = mark;
	while (kda_window_next(&query->window, t, after, &start, &end))
	{
		int			at = find_end(kept, end);

		if (at == kept->nends || kept->ends[at] != end)
		{
			if (kept->nends == kept->room)
			{
				kept->room = Max(64, kept->room * 2);
				kept->ends = kept->ends ? repalloc_huge(kept->ends, sizeof(KdaTime) * kept->room) :
					MemoryContextAllocHuge(query->context, sizeof(KdaTime) * kept->room);
			}
			memmove(kept->ends + at + 1, kept->ends + at, sizeof(KdaTime) * (kept->nends - at));
			kept->ends[at] = end;
			kept->nends++;
		}
		if (TIMESTAMP_NOT_FINITE(end))
			break;
		after = end;
	}
}

/*---- sessions */

/* The key in columns first … of the slot, 0 is the first one; its varlena values are made plain in the current context. */
static KdaSessionKey *
key_of(KdaKeptRows *kept, TupleTableSlot *slot, int first)
{
	int			n = kept->query->nkeys;
	Datum	   *values = palloc(sizeof(Datum) * (n + 1));
	KdaKeySpec *keys = kept->sessions->keys;

	slot_getsomeattrs(slot, Max(first + n, 1));
	for (int i = 0; i < n; i++)
	{
		values[i] = slot->tts_values[first + i];
		if (!slot->tts_isnull[first + i] && !keys[i].byval && keys[i].len == -1)
			values[i] = PointerGetDatum(PG_DETOAST_DATUM_PACKED(values[i]));
	}
	return kda_sessions_key(kept->sessions, values, slot->tts_isnull + first);
}

static void
forget_sessions(KdaKeptRows *kept)
{
	MemoryContextReset(kept->state);
	kda_sessions_forget(kept->sessions);
	kept->only = NULL;
}

/* A row of the table. */
static void
know_row(KdaKeptRows *kept, TupleTableSlot *slot)
{
	KdaTime		t,
				mark;
	int64		seq;
	KdaSessionKey *key;

	slot_getallattrs(slot);
	t = DatumGetTimestampTz(slot->tts_values[KDA_KEPT_TIME - 1]);
	mark = DatumGetTimestampTz(slot->tts_values[KDA_KEPT_MARK - 1]);
	seq = DatumGetInt64(slot->tts_values[KDA_KEPT_SEQ - 1]);
	key = key_of(kept, slot, KDA_KEPT_FIRST - 1);
	key->number = DatumGetInt64(slot->tts_values[slot->tts_tupleDescriptor->natts - 1]);
	if (kept->query->window.kind == KDA_WINDOW_SESSION)
		(void) kda_sessions_touch(kept->sessions, key, t, KDA_NO_TIME, NULL, NULL);
	else
	{
		KdaSession *s = kda_sessions_at(key, mark);

		/* the row that came first has opened it */
		if (s && s->start == mark)
			s->order = Min(s->order, seq);
		else
			(void) kda_sessions_add(kept->sessions, key, mark, mark + kept->query->window.size, seq);
	}
}

/* A row that comes; gives what kda_mark and kda_key say. */
static KdaTime
note_row(KdaKeptRows *kept, TupleTableSlot *in, int row, KdaTime t, int64 seq, int64 *number)
{
	KdaSessionKey *key = key_of(kept, in, 1);
	KdaSession *s;

	if (key->newest == NULL)
		key->number = seq;
	kept->sessions->next_order = seq;
	s = kda_sessions_touch(kept->sessions, key, t, kda_query_mark(kept->query, row), NULL, NULL);
	*number = key->number;
	return kept->query->window.kind == KDA_WINDOW_STAGGER ? s->start : KDA_NO_TIME;
}

static void
know(KdaKeptRows *kept)
{
	Relation	rel;
	TableScanDesc scan;
	TupleTableSlot *slot;
	MemoryContext scratch,
				old;

	if (kept->known)
		return;
	if (kept->sessions)
	{
		forget_sessions(kept);
		kda_sessions_begin_loading(kept->sessions);
	}
	scratch = AllocSetContextCreate(CurrentMemoryContext, "kda kept rows", ALLOCSET_SMALL_SIZES);
	kept->nrows = 0;
	kept->nends = 0;
	kept->next_seq = 1;
	kept->last_pane = KDA_END_TIME;
	rel = table_open(kept->query->open_rel, AccessShareLock);
	slot = table_slot_create(rel, NULL);
	PushActiveSnapshot(GetLatestSnapshot());
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	old = MemoryContextSwitchTo(scratch);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		slot_getsomeattrs(slot, KDA_KEPT_SEQ);
		if (DatumGetInt16(slot->tts_values[0]) != kept->query->slot)
			continue;			/* another process's */
		kept->next_seq = Max(kept->next_seq, DatumGetInt64(slot->tts_values[KDA_KEPT_SEQ - 1]) + 1);
		kept->nrows++;
		MemoryContextReset(scratch);
		if (kept->sessions)
			know_row(kept, slot);
		else if (kept->query->shape == KDA_SHAPE_WINDOWS)
			note_windows(kept, DatumGetTimestampTz(slot_getattr(slot, KDA_KEPT_TIME, &isnull)),
						 DatumGetTimestampTz(slot_getattr(slot, KDA_KEPT_MARK, &isnull)));
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	table_endscan(scan);
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	kept->first_unseen = kept->next_seq;
	kept->known = true;
	if (kept->sessions)
		kda_sessions_end_loading(kept->sessions);
}

/*---- appending */

int64
kda_kept_append(KdaKeptRows *kept, Tuplestorestate *rows)
{
	KdaQuery   *query = kept->query;
	KdaBatch   *batch = query->stream->batch;
	TupleDesc	desc = kda_plan_desc(query->batch_plan);
	Relation	rel;
	KdaIndexes	indexes;
	TupleTableSlot *in,
			   *out;
	BulkInsertState bistate;
	CommandId	cid;
	int64		first;

	know(kept);
	first = kept->next_seq;
	if (tuplestore_tuple_count(rows) == 0)
		return first;
	rel = table_open(query->open_rel, RowExclusiveLock);
	cid = GetCurrentCommandId(true);
	in = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	out = table_slot_create(rel, NULL);
	bistate = GetBulkInsertState();
	kda_indexes_open(&indexes, rel);
	while (tuplestore_gettupleslot(rows, true, false, in))
	{
		bool		isnull;
		int			row = kda_tid_to_row((ItemPointer) DatumGetPointer(slot_getattr(in, 1, &isnull)));
		KdaTime		time = batch->rowtime[row];
		KdaTime		mark = KDA_NO_TIME;
		int64		number = 0;

		ExecClearTuple(out);
		slot_getallattrs(in);
		if (kept->sessions)
		{
			MemoryContext old = MemoryContextSwitchTo(GetPerTupleMemoryContext(indexes.estate));

			mark = note_row(kept, in, row, time, kept->next_seq, &number);
			MemoryContextSwitchTo(old);
		}
		else if (query->shape == KDA_SHAPE_WINDOWS)
			mark = kda_window_after(&query->window, time, kda_query_mark(query, row));
		memset(out->tts_isnull, false, sizeof(bool) * KDA_KEPT_SEQ);
		out->tts_values[0] = Int16GetDatum(query->slot);
		out->tts_values[KDA_KEPT_TIME - 1] = TimestampTzGetDatum(time);
		out->tts_values[KDA_KEPT_MARK - 1] = TimestampTzGetDatum(mark);
		out->tts_values[KDA_KEPT_SEQ - 1] = Int64GetDatum(kept->next_seq++);
		memcpy(out->tts_values + KDA_KEPT_SEQ, in->tts_values + 1, sizeof(Datum) * (desc->natts - 1));
		memcpy(out->tts_isnull + KDA_KEPT_SEQ, in->tts_isnull + 1, sizeof(bool) * (desc->natts - 1));
		/* kda_key of sessions; sides of a join: not matched yet */
		for (int i = KDA_KEPT_SEQ + desc->natts - 1; i < out->tts_tupleDescriptor->natts; i++)
		{
			out->tts_values[i] = kept->sessions ? Int64GetDatum(number) : BoolGetDatum(false);
			out->tts_isnull[i] = false;
		}
		ExecStoreVirtualTuple(out);
		table_tuple_insert(rel, out, cid, 0, bistate);
		kda_indexes_add(&indexes, out);
		kept->nrows++;
		if (query->shape == KDA_SHAPE_WINDOWS && kept->sessions == NULL)
			note_windows(kept, time, mark);
	}
	FreeBulkInsertState(bistate);
	table_finish_bulk_insert(rel, 0);
	kda_indexes_close(&indexes);
	ExecDropSingleTupleTableSlot(in);
	ExecDropSingleTupleTableSlot(out);
	table_close(rel, NoLock);
	return first;
}

int64
kda_kept_next(KdaKeptRows *kept)
{
	know(kept);
	return kept->next_seq;
}

int64
kda_kept_first_unseen(KdaKeptRows *kept)
{
	know(kept);
	return kept->first_unseen;
}

int64
kda_kept_count(KdaKeptRows *kept)
{
	return kept->nrows;
}

void
kda_kept_forget_count(KdaKeptRows *kept, int64 deleted)
{
	kept->nrows -= deleted;
}

static void
delete_where(KdaKeptRows *kept, const char *condition, Oid type, Datum value)
{
	SPI_connect();
	SPI_execute_with_args(psprintf("DELETE FROM %s.%s WHERE %s $1 AND kda_slot = %d", KDA_STORAGE_SCHEMA,
								   quote_identifier(get_rel_name(kept->query->open_rel)), condition, kept->query->slot),
						  1, &type, &value, NULL, false, 0);
	kept->nrows -= (int64) SPI_processed;
	SPI_finish();
}

void
kda_kept_delete(KdaKeptRows *kept, int64 seq)
{
	delete_where(kept, "kda_seq =", INT8OID, Int64GetDatum(seq));
}

void
kda_kept_delete_before(KdaKeptRows *kept, KdaTime time)
{
	delete_where(kept, "kda_time <", TIMESTAMPTZOID, TimestampTzGetDatum(time));
}

/*---- closing */

KdaSessions *
kda_kept_sessions(KdaKeptRows *kept)
{
	know(kept);
	return kept->sessions;
}

/* Of those that are picked: distinct ones, in order. */
static KdaTime *
ends_of_sessions(KdaKeptRows *kept, KdaTime upto, int *n)
{
	KdaSessions *sessions = kept->sessions;
	KdaTime    *ends = palloc_extended(sizeof(KdaTime) * (sessions->npicked + 1), MCXT_ALLOC_HUGE);

	*n = 0;
	for (int i = 0; i < sessions->npicked && sessions->picked[i]->end <= upto; i++)
		if (*n == 0 || ends[*n - 1] != sessions->picked[i]->end)
			ends[(*n)++] = sessions->picked[i]->end;
	return ends;
}

/* Is b the same window as a? */
static bool
same_window(KdaKeptRows *kept, const KdaSession *a, const KdaSession *b)
{
	return a == b || (kept->query->window.by_bounds && a->start == b->start && a->end == b->end);
}

/* The first that is picked and ends at or after that time. */
static int
first_picked(const KdaSessions *sessions, KdaTime end)
{
	int			low = 0,
				high = sessions->npicked;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (sessions->picked[middle]->end < end)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The n-th window that ends at that time, or how many there are if n < 0. */
static KdaSession *
nth_ending(KdaKeptRows *kept, KdaTime end, int n, int *count)
{
	KdaSessions *sessions = kept->sessions;

	*count = 0;
	for (int i = first_picked(sessions, end); i < sessions->npicked && sessions->picked[i]->end == end; i++)
	{
		KdaSession *s = sessions->picked[i];
		bool		first = true;

		for (int j = i - 1; first && kept->query->window.by_bounds && j >= 0 && sessions->picked[j]->end == end; j--)
			first = !same_window(kept, sessions->picked[j], s);
		if (first && (*count)++ == n)
			return s;
	}
	return NULL;
}

int
kda_kept_count_ending(KdaKeptRows *kept, KdaTime end)
{
	int			n;

	if (kept->sessions == NULL || kept->only)
		return 1;
	(void) nth_ending(kept, end, -1, &n);
	return n;
}

void
kda_kept_only(KdaKeptRows *kept, KdaTime end, int n)
{
	int			count;

	kept->only = n < 0 ? NULL : nth_ending(kept, end, n, &count);
}

void
kda_kept_put_closing(KdaKeptRows *kept, KdaTime after, KdaTime upto, ReturnSetInfo *rsinfo)
{
	KdaSessions *sessions = kept->sessions;

	for (int i = first_picked(sessions, after + 1); i < sessions->npicked && sessions->picked[i]->end <= upto; i++)
	{
		KdaSession *s = sessions->picked[i];
		Datum		values[3] = {TimestampTzGetDatum(s->start), TimestampTzGetDatum(s->end), Int64GetDatum(s->key->number)};
		bool		nulls[3] = {false, false, false};

		CHECK_FOR_INTERRUPTS();
		if (kept->only == NULL || same_window(kept, kept->only, s))
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

/* Rows of the sessions that are final go, and they are forgotten. */
static void
close_sessions(KdaKeptRows *kept, KdaTime frontier)
{
	KdaSessions *sessions = kept->sessions;
	int			n;
	Datum	   *keys;
	Datum	   *starts;
	Datum	   *ends;
	Oid			types[3] = {INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID};
	Datum		values[3];

	sessions->npicked = 0;
	kda_sessions_end_final(sessions, frontier);
	n = sessions->nended;
	keys = palloc_extended(sizeof(Datum) * (n + 1), MCXT_ALLOC_HUGE);
	starts = palloc_extended(sizeof(Datum) * (n + 1), MCXT_ALLOC_HUGE);
	ends = palloc_extended(sizeof(Datum) * (n + 1), MCXT_ALLOC_HUGE);

	for (int i = 0; i < n; i++)
	{
		KdaSession *s = sessions->ended[i];

		keys[i] = Int64GetDatum(s->key->number);
		starts[i] = TimestampTzGetDatum(s->start);
		ends[i] = TimestampTzGetDatum(s->end);
		kda_sessions_remove(sessions, s);
	}
	sessions->nended = 0;
	values[0] = PointerGetDatum(construct_array(keys, n, INT8OID, 8, true, TYPALIGN_DOUBLE));
	values[1] = PointerGetDatum(construct_array(starts, n, TIMESTAMPTZOID, 8, true, TYPALIGN_DOUBLE));
	values[2] = PointerGetDatum(construct_array(ends, n, TIMESTAMPTZOID, 8, true, TYPALIGN_DOUBLE));
	SPI_connect();
	SPI_execute_with_args(psprintf("DELETE FROM %s.%s o USING ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) c(key, first, last) "
								   "WHERE o.kda_key = c.key AND %s", KDA_STORAGE_SCHEMA,
								   quote_identifier(get_rel_name(kept->query->open_rel)),
								   kept->query->window.kind == KDA_WINDOW_STAGGER ? "o.kda_mark = c.first" :
								   "o.kda_time >= c.first AND o.kda_time <= c.last"),
						  3, types, values, NULL, false, 0);
	kept->nrows -= (int64) SPI_processed;
	SPI_finish();
	pfree(keys);
	pfree(starts);
	pfree(ends);
	if (sessions->nsessions == 0)
		forget_sessions(kept);
}

KdaTime *
kda_kept_window_ends(KdaKeptRows *kept, KdaTime upto, int *n)
{
	know(kept);
	if (kept->sessions)
		return ends_of_sessions(kept, upto, n);
	*n = find_end(kept, upto);
	if (*n < kept->nends && kept->ends[*n] == upto)
		(*n)++;
	return kept->ends;
}

KdaTime
kda_kept_min_window_end(KdaKeptRows *kept)
{
	int			at;

	know(kept);
	if (kept->sessions)
		return kda_sessions_min_end(kept->sessions);
	at = find_end(kept, kept->query->frontier);
	if (at < kept->nends && kept->ends[at] == kept->query->frontier)
		at++;
	return at < kept->nends ? kept->ends[at] : KDA_END_TIME;
}

void
kda_kept_begin_closing(KdaKeptRows *kept, KdaTime frontier)
{
	know(kept);
	if (kept->sessions)
	{
		KdaSessions *sessions = kept->sessions;

		kda_sessions_end(sessions, frontier);
		sessions->picked = sessions->ended;
		sessions->npicked = sessions->nended;
	}
}

void
kda_kept_close(KdaKeptRows *kept, KdaTime frontier)
{
	KdaQuery   *query = kept->query;
	int			n;

	if (kept->sessions)
	{
		close_sessions(kept, frontier);
		return;
	}
	(void) kda_kept_window_ends(kept, frontier, &n);
	kept->nends -= n;
	if (kept->nends > 0)
		memmove(kept->ends, kept->ends + n, sizeof(KdaTime) * kept->nends);
	kept->last_pane = KDA_END_TIME;
	kda_kept_delete_before(kept, kda_window_keep_from(&query->window, frontier));
}

void
kda_kept_stats(KdaKeptRows *kept, int64 *nrows, int64 *nwindows, int64 *bytes)
{
	Relation	rel = table_open(kept->query->open_rel, AccessShareLock);

	*nrows = kept->nrows;
	*nwindows = kept->sessions ? kept->sessions->nsessions : kept->nends;
	*bytes = (int64) RelationGetNumberOfBlocks(rel) * BLCKSZ;
	if (kept->sessions)
		*bytes += MemoryContextMemAllocated(kept->state, true);
	table_close(rel, NoLock);
}
