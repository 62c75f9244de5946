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
#include "access/htup_details.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "query/groups.h"
#include "query/query.h"
#include "query/run.h"
#include "query/shown_rows.h"
#include "runtime/fault.h"
#include "runtime/runtime.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#define OURS	2				/* columns of the final part before those of the result */

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

	/* sessions know themselves which of them have changed */
	if (query->shape != KDA_SHAPE_WINDOWS || kda_query_has_sessions(query))
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

/*---- the table */

/* Calls take for each row of windows that end within (after, upto]. */
static void
scan_rows(KdaLook *look, KdaTime after, KdaTime upto, KdaTakeShown take, void *arg)
{
	ScanKeyData keys[2];
	int			n = 0;

	if (after != KDA_NO_TIME)
		ScanKeyInit(&keys[n++], KDA_SHOWN_TIME, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT, TimestampTzGetDatum(after));
	ScanKeyInit(&keys[n++], KDA_SHOWN_TIME, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE, TimestampTzGetDatum(upto));
	kda_look_scan(look, keys, n, take, arg);
}

/*---- comparing */

static void
take_shown(KdaLook *look, HeapTuple tuple, void *arg)
{
	HeapTuple	copy = heap_copytuple(tuple);
	bool		isnull;

	(void) kda_look_take(look, copy, (uint64) DatumGetTimestampTz(heap_getattr(copy, KDA_SHOWN_TIME, look->desc, &isnull)));
}

static void
read_shown(KdaLook *look, KdaTime after, KdaTime upto)
{
	scan_rows(look, after, upto, take_shown, NULL);
	kda_look_hash(look);
}

/* Rows that nothing tells apart count the corrections of their window. */
static int32
next_revision(KdaLook *look, const KdaShownRow *had, KdaTime end)
{
	if (look->step != KDA_STEP_CORRECTION)
		return 0;
	if (look->shown->keyed)
		return had ? had->revision + 1 : 0;
	if (!look->counted || look->counted_end != end)
	{
		look->greatest = -1;
		look->counted_end = end;
		look->counted = true;
		for (int i = 0; i < look->nrows; i++)
			if (look->rows[i]->end == end)
				look->greatest = Max(look->greatest, look->rows[i]->revision);
	}
	return look->greatest + 1;
}

/*
 * Compares rows, as the final part gives them of windows within (after, upto],
 * with what was emitted of them; what has to leave goes to out.  keep: what is
 * emitted may be emitted again.
 */
static void
compare(KdaLook *look, Tuplestorestate *rows, TupleDesc from, KdaTime after, KdaTime upto, bool keep, Tuplestorestate *out)
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
		KdaShownRow *had;
		bool		same;
		int32		revision;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(in);
		had = kda_look_find(look, kda_look_hash_row(look, (uint64) end, in->tts_values + OURS, in->tts_isnull + OURS), end, 0,
							in->tts_values + OURS, in->tts_isnull + OURS);
		same = had && !had->gone && kda_look_same_row(look, had->values, had->nulls, in->tts_values + OURS, in->tts_isnull + OURS);
		if (!same || look->step == KDA_STEP_CLOSE)
		{
			revision = next_revision(look, had, end);
			if (had)
				kda_look_delete(look, &had->tid);
			if (keep)
				kda_look_put(look, end, 0, revision, revision, false, in->tts_values + OURS, in->tts_isnull + OURS);
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
		KdaShownRow *row = look->rows[i];

		if (row->matched || row->gone)
			continue;
		kda_look_delete(look, &row->tid);
		if (look->step == KDA_STEP_CORRECTION)
			kda_look_put(look, row->end, 0, row->revision, row->revision, true, row->values, row->nulls);
	}
	kda_become_self(&save);
	MemoryContextDelete(scratch);
	ExecDropSingleTupleTableSlot(in);
}

/* Looks at the windows that end within (after, upto].  Did anything leave? */
static bool
look_at(KdaQuery *query, KdaStep step, KdaTime after, KdaTime upto)
{
	KdaPlanBounds bounds = {.timed = query->shape == KDA_SHAPE_WINDOWS,.after = after,.upto = upto};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "kda shown", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Tuplestorestate *rows = kda_query_compute(query, &bounds, step != KDA_STEP_CHANGES);
	bool		keep = step != KDA_STEP_CLOSE || query->lateness_us > 0;
	bool		left = false;

	if (rows)
	{
		Tuplestorestate *out = tuplestore_begin_heap(false, false, work_mem);
		KdaLook		look;

		kda_look_begin(&look, query, step);
		compare(&look, rows, kda_plan_desc(query->final_plan), after, upto, keep, out);
		kda_look_end(&look);
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

static void
take_final(KdaLook *look, HeapTuple tuple, void *arg)
{
	bool		isnull;
	Datum		end = heap_getattr(tuple, KDA_SHOWN_TIME, look->desc, &isnull);
	/* start (nobody asks for it) and end */
	Datum		ours[OURS] = {end, end};

	kda_finish_row(arg, tuple, ours, OURS);
}

/* Those of windows that end at or before that. */
static void
finish(KdaQuery *query, KdaTime forgotten)
{
	KdaFinish	final;

	kda_finish_begin(&final, query);
	scan_rows(&final.look, KDA_NO_TIME, forgotten, take_final, &final);
	kda_finish_end(&final);
}

/*---- all of it */

bool
kda_shown_is_due(KdaQuery *query, TimestampTz now)
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
	return kda_shown_is_due(query, now) ? now : query->emitted_at + query->every_us;
}

/* Looks at those of touched windows within (after, upto]: neighbours together, nothing in between. */
static bool
look_at_touched(KdaQuery *query, KdaStep step, const KdaTime *known, int nknown, KdaTime after, KdaTime upto)
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

	if (!shown->all || !kda_shown_is_due(query, now))
		return false;
	if (look_at(query, KDA_STEP_CHANGES, KDA_NO_TIME, KDA_END_TIME) || !shown->unknown)
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
	bool		looked = false; /* at what is due, because records have come */
	bool		left = false;
	KdaTime    *known = NULL;
	int			nknown = 0;

	due = kda_shown_is_due(query, now);
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
		left |= look_at_touched(query, KDA_STEP_CORRECTION, known, nknown, query->forgotten,
								due ? query->frontier : Min(query->frontier, final));
	if (query->failure)
		return left;
	if ((query->groups ? kda_groups_min_window_end(query->groups) : kda_kept_min_window_end(query->kept)) <= closed)
	{
		left |= look_at(query, KDA_STEP_CLOSE, query->frontier, closed);
		untouch(shown, query->frontier, closed);
	}
	if (query->failure)
		return left;
	if (query->early && due && shown->ntouched > 0)
		left |= look_at_touched(query, KDA_STEP_CHANGES, known, nknown, Max(closed, query->frontier), KDA_END_TIME);
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
		kda_query_forget_windows(query, final);
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
	changed = query->shape != KDA_SHAPE_WINDOWS ? settle_groups(query, now) :
		kda_query_has_sessions(query) ? kda_shown_settle_sessions(query, closed, now) : settle_windows(query, closed, now);
	kda_current_query = NULL;
	return changed;
}
