/*-------------------------------------------------------------------------
 *
 * shown.c
 *	  What has been emitted, and what is to be emitted again: see shown.h.
 *
 * In a pipeline worker, in its transaction.  Memory: a context for each look.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "query/groups.h"
#include "query/query.h"
#include "query/run.h"
#include "query/shown.h"
#include "runtime/fault.h"
#include "runtime/runtime.h"
#include "stream/indexes.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

/* Columns of the table; those of the result follow. */
enum
{
	SHOWN_TIME = 1,
	SHOWN_REVISION,
	SHOWN_GONE,
	SHOWN_FIRST
};

#define OURS	2				/* columns of the final part before those of the result */

struct KdaShown
{
	KdaQuery   *query;
	bool		keyed;			/* keys tell the rows of a window apart; else only all of their columns do */
	int			nkeys;
	int		   *keys;			/* columns of the result, from 0 */
	KdaKeySpec *specs;			/* NULL: not made yet */
	int			nrevisions;
	int		   *revisions;		/* columns of the result, from 0 */

	/* ends of windows that may have changed since they were looked at, ascending */
	KdaTime    *touched;
	int			ntouched;
	int			room;
	bool		all;			/* … all of them */
	bool		unknown;		/* … since what was touched is not known, not since records have come */
	/* the last record's pane: its windows are among them */
	KdaTime		pane_start;
	KdaTime		pane_end;
};

/* What is being emitted, and why. */
typedef enum Step
{
	STEP_CHANGES,				/* of open windows or endless groups */
	STEP_CLOSE,					/* the window closes: all of its rows */
	STEP_CORRECTION				/* it has closed before */
} Step;

/* A row as it was emitted last. */
typedef struct ShownRow
{
	struct ShownRow *next;		/* of the same hash bucket */
	ItemPointerData tid;
	uint64		hash;
	KdaTime		end;
	int32		revision;
	bool		gone;
	bool		matched;
	Datum	   *values;			/* of the result */
	bool	   *nulls;
} ShownRow;

/* One look at some windows. */
typedef struct Look
{
	KdaQuery   *query;
	KdaShown   *shown;
	Step		step;
	Relation	rel;
	TupleDesc	desc;			/* of the table */
	int			ncolumns;		/* of the result */
	ShownRow  **buckets;
	int			nbuckets;		/* a power of two */
	ShownRow  **rows;
	int			nrows;
	TupleTableSlot *out;		/* of the table */
	KdaIndexes	indexes;
	Snapshot	snapshot;
} Look;

/*---- making */

static int *
numbers(MemoryContext context, const char *list, int *n)
{
	int		   *result = MemoryContextAlloc(context, sizeof(int) * (strlen(list) / 2 + 1));
	char	   *at = (char *) list;

	*n = 0;
	while (*at)
		result[(*n)++] = (int) strtol(at, &at, 10) - 1;
	return result;
}

KdaShown *
kda_shown_create(KdaQuery *query, const char *keys, const char *revisions)
{
	KdaShown   *shown = MemoryContextAllocZero(query->context, sizeof(KdaShown));

	shown->query = query;
	shown->keyed = keys != NULL;
	if (keys)
		shown->keys = numbers(query->context, keys, &shown->nkeys);
	if (revisions)
		shown->revisions = numbers(query->context, revisions, &shown->nrevisions);
	kda_shown_at_abort(shown);
	return shown;
}

static void
forget_pane(KdaShown *shown)
{
	shown->pane_start = KDA_END_TIME;
	shown->pane_end = KDA_NO_TIME;
}

void
kda_shown_at_abort(KdaShown *shown)
{
	/* what is corrected at once is touched again by the batch that is tried again */
	shown->all = shown->unknown = shown->query->early;
	shown->ntouched = 0;
	forget_pane(shown);
}

/*---- which windows may have changed */

/* Where the end is in the list, or would be. */
static int
find_end(const KdaTime *ends, int n, KdaTime end)
{
	int			low = 0;

	while (low < n)
	{
		int			middle = (low + n) / 2;

		if (ends[middle] < end)
			low = middle + 1;
		else
			n = middle;
	}
	return low;
}

static void
touch_end(KdaShown *shown, KdaTime end)
{
	int			at = find_end(shown->touched, shown->ntouched, end);

	if (at < shown->ntouched && shown->touched[at] == end)
		return;
	if (shown->ntouched == shown->room)
	{
		shown->room = Max(64, shown->room * 2);
		shown->touched = shown->touched ? repalloc_huge(shown->touched, sizeof(KdaTime) * shown->room) :
			MemoryContextAllocHuge(shown->query->context, sizeof(KdaTime) * shown->room);
	}
	memmove(shown->touched + at + 1, shown->touched + at, sizeof(KdaTime) * (shown->ntouched - at));
	shown->touched[at] = end;
	shown->ntouched++;
}

void
kda_shown_touch(KdaQuery *query, KdaTime t)
{
	KdaShown   *shown = query->shown;
	KdaTime		after = query->forgotten;
	KdaTime		start,
				end;

	if (query->shape != KDA_SHAPE_WINDOWS)
	{
		shown->all = true;
		shown->unknown = false;
		return;
	}
	if (t >= shown->pane_start && t < shown->pane_end)
		return;
	if (!TIMESTAMP_NOT_FINITE(t))
	{
		shown->pane_start = kda_window_pane(&query->window, t);
		/* panes of days and months differ in length: then each record is looked at */
		shown->pane_end = query->window.unit == KDA_UNIT_US ? shown->pane_start + query->window.pane : shown->pane_start;
	}
	while (kda_window_next(&query->window, t, after, &start, &end))
	{
		touch_end(shown, end);
		if (TIMESTAMP_NOT_FINITE(end))
			break;
		after = end;
	}
}

/* Ends of all windows of which something is kept; palloc'd. */
static KdaTime *
known_ends(KdaQuery *query, int *n)
{
	KdaTime    *ends = query->groups ? kda_groups_window_ends(query->groups, KDA_END_TIME, n) :
		kda_kept_window_ends(query->kept, KDA_END_TIME, n);
	KdaTime    *copy = palloc_extended(sizeof(KdaTime) * (*n + 1), MCXT_ALLOC_HUGE);

	memcpy(copy, ends, sizeof(KdaTime) * *n);
	return copy;
}

static void
untouch(KdaShown *shown, KdaTime after, KdaTime upto)
{
	int			from = find_end(shown->touched, shown->ntouched, after);
	int			to = find_end(shown->touched, shown->ntouched, upto);

	if (from < shown->ntouched && shown->touched[from] == after)
		from++;
	if (to < shown->ntouched && shown->touched[to] == upto)
		to++;
	if (to <= from)
		return;
	memmove(shown->touched + from, shown->touched + to, sizeof(KdaTime) * (shown->ntouched - to));
	shown->ntouched -= to - from;
}

/*---- telling rows apart */

static void
make_specs(Look *look)
{
	KdaShown   *shown = look->shown;

	if (shown->specs)
		return;
	shown->specs = MemoryContextAllocZero(look->query->context, sizeof(KdaKeySpec) * (shown->nkeys + 1));
	for (int i = 0; i < shown->nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(look->desc, SHOWN_FIRST - 1 + shown->keys[i]);

		kda_key_make(look->query->context, &shown->specs[i],
					 (Node *) makeVar(1, att->attnum, att->atttypid, att->atttypmod, att->attcollation, 0));
	}
}

static bool
is_revision(const KdaShown *shown, int column)
{
	for (int i = 0; i < shown->nrevisions; i++)
		if (shown->revisions[i] == column)
			return true;
	return false;
}

/* Are all columns the same, to the bit, but for window_revision? */
static bool
same_row(Look *look, const Datum *a, const bool *anulls, const Datum *b, const bool *bnulls)
{
	for (int i = 0; i < look->ncolumns; i++)
	{
		Form_pg_attribute att = TupleDescAttr(look->desc, SHOWN_FIRST - 1 + i);

		if (is_revision(look->shown, i))
			continue;
		if (anulls[i] != bnulls[i] || (!anulls[i] && !datum_image_eq(a[i], b[i], att->attbyval, att->attlen)))
			return false;
	}
	return true;
}

static Datum
key_value(Look *look, int i, const Datum *values, const bool *nulls)
{
	int			column = look->shown->keys[i];
	KdaKeySpec *spec = &look->shown->specs[i];

	if (nulls[column])
		return (Datum) 0;
	return !spec->byval && spec->len == -1 ? PointerGetDatum(PG_DETOAST_DATUM_PACKED(values[column])) : values[column];
}

static bool
same_key(Look *look, const Datum *a, const bool *anulls, const Datum *b, const bool *bnulls)
{
	KdaShown   *shown = look->shown;

	if (!shown->keyed)
		return same_row(look, a, anulls, b, bnulls);
	for (int i = 0; i < shown->nkeys; i++)
	{
		int			column = shown->keys[i];

		if (anulls[column] != bnulls[column] ||
			(!anulls[column] && !kda_key_equal(&shown->specs[i], key_value(look, i, a, anulls), key_value(look, i, b, bnulls))))
			return false;
	}
	return true;
}

static uint64
hash_row(Look *look, KdaTime end, const Datum *values, const bool *nulls)
{
	KdaShown   *shown = look->shown;
	uint64		hash = (uint64) end;

	if (shown->keyed)
	{
		Datum	   *keys = palloc(sizeof(Datum) * (shown->nkeys + 1));
		bool	   *key_nulls = palloc(sizeof(bool) * (shown->nkeys + 1));

		for (int i = 0; i < shown->nkeys; i++)
		{
			keys[i] = key_value(look, i, values, nulls);
			key_nulls[i] = nulls[shown->keys[i]];
		}
		hash ^= kda_keys_hash(shown->specs, shown->nkeys, keys, key_nulls);
	}
	else
		for (int i = 0; i < look->ncolumns; i++)
		{
			Form_pg_attribute att = TupleDescAttr(look->desc, SHOWN_FIRST - 1 + i);

			if (!is_revision(shown, i) && !nulls[i])
				hash = hash * 31 + datum_image_hash(values[i], att->attbyval, att->attlen);
		}
	return hash ^ (hash >> 29);
}

/*---- the table */

static Oid
time_index(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	Oid			index = indexes ? linitial_oid(indexes) : InvalidOid;

	list_free(indexes);
	return index;
}

/* Calls take for each row of windows that end within (after, upto]. */
static void
scan_rows(Look *look, KdaTime after, KdaTime upto, void (*take) (Look *look, HeapTuple tuple, void *arg), void *arg)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			index = time_index(look->rel);
	int			n = 0;

	if (after != KDA_NO_TIME)
		ScanKeyInit(&keys[n++], SHOWN_TIME, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT, TimestampTzGetDatum(after));
	ScanKeyInit(&keys[n++], SHOWN_TIME, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE, TimestampTzGetDatum(upto));
	PushActiveSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(look->rel, index, OidIsValid(index), GetActiveSnapshot(), n, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		take(look, tuple, arg);
	}
	systable_endscan(scan);
	PopActiveSnapshot();
}

static void
begin_look(Look *look, KdaQuery *query, Step step)
{
	memset(look, 0, sizeof(*look));
	look->query = query;
	look->shown = query->shown;
	look->step = step;
	CommandCounterIncrement();
	look->rel = table_open(query->shown_rel, RowExclusiveLock);
	look->desc = RelationGetDescr(look->rel);
	look->ncolumns = look->desc->natts - (SHOWN_FIRST - 1);
	look->out = table_slot_create(look->rel, NULL);
	kda_indexes_open(&look->indexes, look->rel);
	look->snapshot = RegisterSnapshot(GetLatestSnapshot());
	make_specs(look);
}

static void
end_look(Look *look)
{
	UnregisterSnapshot(look->snapshot);
	kda_indexes_close(&look->indexes);
	ExecDropSingleTupleTableSlot(look->out);
	table_close(look->rel, NoLock);
	CommandCounterIncrement();
}

static void
put_row(Look *look, KdaTime end, int32 revision, bool gone, const Datum *values, const bool *nulls)
{
	TupleTableSlot *out = look->out;

	ExecClearTuple(out);
	out->tts_values[SHOWN_TIME - 1] = TimestampTzGetDatum(end);
	out->tts_values[SHOWN_REVISION - 1] = Int32GetDatum(revision);
	out->tts_values[SHOWN_GONE - 1] = BoolGetDatum(gone);
	memset(out->tts_isnull, false, sizeof(bool) * (SHOWN_FIRST - 1));
	memcpy(out->tts_values + SHOWN_FIRST - 1, values, sizeof(Datum) * look->ncolumns);
	memcpy(out->tts_isnull + SHOWN_FIRST - 1, nulls, sizeof(bool) * look->ncolumns);
	for (int i = 0; i < look->shown->nrevisions; i++)
		out->tts_values[SHOWN_FIRST - 1 + look->shown->revisions[i]] = Int32GetDatum(revision);
	ExecStoreVirtualTuple(out);
	table_tuple_insert(look->rel, out, GetCurrentCommandId(true), 0, NULL);
	kda_indexes_add(&look->indexes, out);
	KDA_FAULT("shown");
}

/*---- comparing */

static void
take_shown(Look *look, HeapTuple tuple, void *arg)
{
	int		   *room = arg;
	Datum	   *values = palloc(sizeof(Datum) * look->desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * look->desc->natts);
	ShownRow   *row = palloc0(sizeof(ShownRow));

	tuple = heap_copytuple(tuple);
	heap_deform_tuple(tuple, look->desc, values, nulls);
	row->tid = tuple->t_self;
	row->end = DatumGetTimestampTz(values[SHOWN_TIME - 1]);
	row->revision = DatumGetInt32(values[SHOWN_REVISION - 1]);
	row->gone = DatumGetBool(values[SHOWN_GONE - 1]);
	row->values = values + SHOWN_FIRST - 1;
	row->nulls = nulls + SHOWN_FIRST - 1;
	row->hash = hash_row(look, row->end, row->values, row->nulls);
	if (look->nrows == *room)
	{
		*room = Max(64, *room * 2);
		look->rows = look->rows ? repalloc_huge(look->rows, sizeof(ShownRow *) * *room) :
			palloc_extended(sizeof(ShownRow *) * *room, MCXT_ALLOC_HUGE);
	}
	look->rows[look->nrows++] = row;
}

static void
read_shown(Look *look, KdaTime after, KdaTime upto)
{
	int			room = 0;

	scan_rows(look, after, upto, take_shown, &room);
	look->nbuckets = 64;
	while (look->nbuckets < look->nrows)
		look->nbuckets *= 2;
	look->buckets = palloc_extended(sizeof(ShownRow *) * look->nbuckets, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = look->nrows - 1; i >= 0; i--)
	{
		ShownRow  **bucket = &look->buckets[look->rows[i]->hash & (look->nbuckets - 1)];

		look->rows[i]->next = *bucket;
		*bucket = look->rows[i];
	}
}

static ShownRow *
find_shown(Look *look, KdaTime end, const Datum *values, const bool *nulls)
{
	uint64		hash = hash_row(look, end, values, nulls);

	for (ShownRow *row = look->buckets[hash & (look->nbuckets - 1)]; row; row = row->next)
		if (row->hash == hash && row->end == end && !row->matched &&
			same_key(look, row->values, row->nulls, values, nulls))
			return row;
	return NULL;
}

/* Rows that nothing tells apart count the corrections of their window. */
static int32
next_revision(Look *look, const ShownRow *had, KdaTime end)
{
	int32		greatest = -1;

	if (look->step != STEP_CORRECTION)
		return 0;
	if (look->shown->keyed)
		return had ? had->revision + 1 : 0;
	for (int i = 0; i < look->nrows; i++)
		if (look->rows[i]->end == end)
			greatest = Max(greatest, look->rows[i]->revision);
	return greatest + 1;
}

/*
 * Compares rows, as the final part gives them of windows within (after, upto],
 * with what was emitted of them; what has to leave goes to out.  keep: what is
 * emitted may be emitted again.
 */
static void
compare(Look *look, Tuplestorestate *rows, TupleDesc from, KdaTime after, KdaTime upto, bool keep, Tuplestorestate *out)
{
	TupleTableSlot *in = MakeSingleTupleTableSlot(from, &TTSOpsMinimalTuple);
	Datum	   *values = palloc(sizeof(Datum) * from->natts);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "kda shown row", ALLOCSET_SMALL_SIZES);
	KdaIdentity save;

	/* equality of keys may be the owner's code */
	kda_become_owner(look->query, &save);
	read_shown(look, after, upto);
	while (tuplestore_gettupleslot(rows, true, false, in))
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);
		bool		isnull;
		Datum		end_value = slot_getattr(in, 2, &isnull);
		KdaTime		end = isnull ? KDA_END_TIME : DatumGetTimestampTz(end_value);
		ShownRow   *had;
		bool		same;
		int32		revision;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(in);
		had = find_shown(look, end, in->tts_values + OURS, in->tts_isnull + OURS);
		same = had && !had->gone && same_row(look, had->values, had->nulls, in->tts_values + OURS, in->tts_isnull + OURS);
		if (had)
			had->matched = true;
		if (!same || look->step == STEP_CLOSE)
		{
			revision = next_revision(look, had, end);
			if (had)
				simple_table_tuple_delete(look->rel, &had->tid, look->snapshot);
			if (keep)
				put_row(look, end, revision, false, in->tts_values + OURS, in->tts_isnull + OURS);
			memcpy(values, in->tts_values, sizeof(Datum) * from->natts);
			for (int i = 0; i < look->shown->nrevisions; i++)
				values[OURS + look->shown->revisions[i]] = Int32GetDatum(revision);
			tuplestore_putvalues(out, from, values, in->tts_isnull);
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
	}
	/* what has vanished; if it comes back it is no new row */
	for (int i = 0; i < look->nrows; i++)
	{
		ShownRow   *row = look->rows[i];

		if (row->matched || row->gone)
			continue;
		simple_table_tuple_delete(look->rel, &row->tid, look->snapshot);
		if (look->step == STEP_CORRECTION)
			put_row(look, row->end, row->revision, true, row->values, row->nulls);
	}
	kda_become_self(&save);
	MemoryContextDelete(scratch);
	ExecDropSingleTupleTableSlot(in);
}

/* Looks at the windows that end within (after, upto].  Did anything leave? */
static bool
look_at(KdaQuery *query, Step step, KdaTime after, KdaTime upto)
{
	KdaPlanBounds bounds = {.timed = query->shape == KDA_SHAPE_WINDOWS,.after = after,.upto = upto};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "kda shown", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Tuplestorestate *rows = kda_query_compute(query, &bounds, step != STEP_CHANGES);
	bool		keep = step != STEP_CLOSE || query->lateness_us > 0;
	bool		left = false;

	if (rows)
	{
		Tuplestorestate *out = tuplestore_begin_heap(false, false, work_mem);
		Look		look;

		begin_look(&look, query, step);
		compare(&look, rows, kda_plan_desc(query->final_plan), after, upto, keep, out);
		end_look(&look);
		left = tuplestore_tuple_count(out) > 0;
		/* a view shows what is kept; what is not goes to its closed rows */
		if (query->is_pump || !keep)
			kda_query_emit_computed(query, out, query->forgotten);
		else
			query->d_out += tuplestore_tuple_count(out);
		tuplestore_end(out);
		tuplestore_end(rows);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	KDA_FAULT("looked");
	return left;
}

/*---- what is final */

typedef struct FinalRows
{
	Tuplestorestate *rows;
	TupleDesc	desc;			/* of the final part */
} FinalRows;

static void
take_final(Look *look, HeapTuple tuple, void *arg)
{
	FinalRows  *final = arg;
	Datum	   *values = palloc(sizeof(Datum) * look->desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * look->desc->natts);
	bool		gone;

	heap_deform_tuple(tuple, look->desc, values, nulls);
	gone = DatumGetBool(values[SHOWN_GONE - 1]);
	/* in their places: start (nobody asks for it), end, columns */
	values[SHOWN_FIRST - 2] = values[SHOWN_TIME - 1];
	nulls[SHOWN_FIRST - 2] = false;
	nulls[SHOWN_FIRST - 3] = true;
	if (final->rows && !gone)
		tuplestore_putvalues(final->rows, final->desc, values + SHOWN_FIRST - 1 - OURS, nulls + SHOWN_FIRST - 1 - OURS);
	simple_table_tuple_delete(look->rel, &tuple->t_self, look->snapshot);
	pfree(values);
	pfree(nulls);
}

/* Rows of windows that end at or before that are not corrected any more: a view's go to its closed ones. */
static void
finish(KdaQuery *query, KdaTime forgotten)
{
	FinalRows	final = {NULL, NULL};
	Look		look;
	int64		had_out = query->d_out;

	if (!query->is_pump)
	{
		if (query->final_plan == NULL)
			query->final_plan = kda_plan_create(query->context, query->final_rel, true);
		final.rows = tuplestore_begin_heap(false, false, work_mem);
		final.desc = kda_plan_desc(query->final_plan);
	}
	begin_look(&look, query, STEP_CLOSE);
	scan_rows(&look, KDA_NO_TIME, forgotten, take_final, &final);
	end_look(&look);
	if (final.rows)
	{
		kda_query_emit_computed(query, final.rows, query->forgotten);
		tuplestore_end(final.rows);
		query->d_out = had_out; /* they were counted when they were shown */
	}
	KDA_FAULT("finished");
}

/*---- all of it */

static bool
is_due(KdaQuery *query, TimestampTz now)
{
	return query->every_us == 0 || query->emitted_at == 0 || now >= query->emitted_at + query->every_us ||
		now < query->emitted_at;	/* the clock was set back */
}

TimestampTz
kda_shown_due(KdaQuery *query, TimestampTz now)
{
	KdaShown   *shown = query->shown;

	if (query->every_us == 0 || (shown->ntouched == 0 && !shown->all))
		return KDA_END_TIME;
	return is_due(query, now) ? now : query->emitted_at + query->every_us;
}

/* Looks at those of touched windows within (after, upto]: neighbours together, nothing in between. */
static bool
look_at_touched(KdaQuery *query, Step step, const KdaTime *known, int nknown, KdaTime after, KdaTime upto)
{
	KdaShown   *shown = query->shown;
	KdaTime		begin = KDA_NO_TIME,
				end = KDA_NO_TIME;
	bool		open = false;
	bool		left = false;
	int			at = 0;

	for (int i = 0; i <= nknown && query->failure == NULL; i++)
	{
		bool		wanted = i < nknown && known[i] > after && known[i] <= upto;

		if (wanted)
		{
			while (at < shown->ntouched && shown->touched[at] < known[i])
				at++;
			wanted = at < shown->ntouched && shown->touched[at] == known[i];
		}
		if (wanted)
		{
			if (!open)
				begin = i > 0 ? known[i - 1] : query->forgotten;
			open = true;
			end = known[i];
		}
		else if (open)
		{
			left |= look_at(query, step, begin, end);
			open = false;
		}
	}
	untouch(shown, after, upto);
	return left;
}

static bool
settle_groups(KdaQuery *query, TimestampTz now)
{
	KdaShown   *shown = query->shown;

	if (!shown->all || !is_due(query, now))
		return false;
	if (look_at(query, STEP_CHANGES, KDA_NO_TIME, KDA_END_TIME) || !shown->unknown)
		query->emitted_at = now;
	shown->all = shown->unknown = false;
	return true;
}

static bool
settle_windows(KdaQuery *query, KdaTime closed, TimestampTz now)
{
	KdaShown   *shown = query->shown;
	KdaTime		final = kda_query_final_upto(query, closed);
	bool		due;
	bool		looked = false;	/* at what is due, because records have come */
	bool		left = false;
	KdaTime    *known = NULL;
	int			nknown = 0;

	due = is_due(query, now);
	if (shown->all || shown->ntouched > 0 || final > query->forgotten)
		known = known_ends(query, &nknown);
	if (shown->all)
	{
		for (int i = 0; i < nknown; i++)
			touch_end(shown, known[i]);
		shown->all = false;
	}
	else
		looked = due && shown->ntouched > 0;
	/* corrections first: what they correct may become final now */
	if (shown->ntouched > 0 && shown->touched[0] <= query->frontier && (due || shown->touched[0] <= final))
		left |= look_at_touched(query, STEP_CORRECTION, known, nknown, query->forgotten,
								due ? query->frontier : Min(query->frontier, final));
	if (query->failure)
		return left;
	if ((query->groups ? kda_groups_min_window_end(query->groups) : kda_kept_min_window_end(query->kept)) <= closed)
	{
		left |= look_at(query, STEP_CLOSE, query->frontier, closed);
		untouch(shown, query->frontier, closed);
	}
	if (query->failure)
		return left;
	if (query->early && due && shown->ntouched > 0)
		left |= look_at_touched(query, STEP_CHANGES, known, nknown, Max(closed, query->frontier), KDA_END_TIME);
	if (query->failure)
		return left;
	if (query->every_us > 0 && due && (left || looked))
		query->emitted_at = now;
	if (final > query->forgotten && nknown > 0 && known[0] <= final)
	{
		/* the option may have been set to 0 since they were closed */
		if (query->lateness_us > 0 || query->forgotten < query->frontier)
			finish(query, final);
		if (query->failure)
			return left;
		if (query->groups)
			kda_groups_close(query->groups, final);
		else
			kda_kept_close(query->kept, final);
		KDA_FAULT("closed");
		left = true;
	}
	/* a late record may count in windows that are still open */
	if (!query->early)
		shown->ntouched = 0;
	forget_pane(shown);
	if (known)
		pfree(known);
	return left || looked;
}

bool
kda_shown_settle(KdaQuery *query, KdaTime closed, TimestampTz now)
{
	bool		changed;

	kda_current_query = query;
	kda_query_prepare_state(query);
	/* after a restart windows may close before a record comes */
	if (query->groups)
		kda_groups_prepare(query->groups);
	changed = query->shape == KDA_SHAPE_WINDOWS ? settle_windows(query, closed, now) : settle_groups(query, now);
	kda_current_query = NULL;
	return changed;
}
