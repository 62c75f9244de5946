/*-------------------------------------------------------------------------
 *
 * shown_sessions.c
 *	  What is emitted again of sessions and stagger windows (shown.h).
 *
 * A session that grows, or takes in others, is a window with other bounds.
 * The table keeps the number of its key with each row, and sessions of a key
 * are disjoint: so what was emitted of those that it is made of now are the
 * rows with its number whose ends lie within it.  They go, and the row that
 * takes their place counts on from the greatest of their revisions.  As long as
 * a session that was closed once is open again, and open windows are not
 * emitted, its number is remembered in rows that are gone.
 *
 * Only sessions that have changed are looked at; which these are is in
 * sessions.h.
 *
 * In a pipeline worker, in its transaction.  Memory: a context for each look.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "miscadmin.h"
#include "query/run.h"
#include "query/shown_rows.h"
#include "runtime/fault.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#define OURS	3				/* columns of the final part before those of the result: start, end, number of the key */
#define LOOKED_AT_ONCE	100000	/* sessions */
#define NOT_CLOSED	(-1)		/* revision that is remembered of a row whose session has not closed yet */

/* A session that is looked at. */
typedef struct Place
{
	KdaSession *session;
	int32		greatest;		/* revision that was emitted; of rows that nothing tells apart */
	bool		remembered;		/* … a row has it, or a greater one */
} Place;

typedef struct SessionLook
{
	KdaLook		look;
	KdaTime		closed;			/* sessions that end at or before this are */
	bool		keep;			/* rows of those may be corrected */
	Place	   *places;			/* in the order of numbers and ends */
	int			nplaces;
	Tuplestorestate *out_closed;
	Tuplestorestate *out_open;
} SessionLook;

static KdaSessions *
sessions_of(KdaQuery *query)
{
	return query->groups ? kda_groups_sessions(query->groups) : kda_kept_sessions(query->kept);
}

static int
by_number(const void *a, const void *b)
{
	const KdaSession *sa = ((const Place *) a)->session;
	const KdaSession *sb = ((const Place *) b)->session;

	if (sa->key->number != sb->key->number)
		return sa->key->number < sb->key->number ? -1 : 1;
	return sa->end < sb->end ? -1 : sa->end > sb->end;
}

static int
by_end(const void *a, const void *b)
{
	KdaTime		ea = (*(KdaSession *const *) a)->end;
	KdaTime		eb = (*(KdaSession *const *) b)->end;

	return ea < eb ? -1 : ea > eb;
}

/*---- the table */

/* What tells the rows of a window from others: where keys do, also those of former bounds are looked for. */
static uint64
window_hash(const KdaLook *look, int64 number, KdaTime end)
{
	return look->shown->keyed ? (uint64) number : kda_mix((uint64) number) ^ (uint64) end;
}

/* Calls take for each row of what the session is made of. */
static void
scan_session(KdaLook *look, const KdaSession *s, KdaTakeShown take, void *arg)
{
	ScanKeyData keys[3];
	/* stagger windows of a key overlap, but they do not change */
	KdaTime		after = look->query->window.kind == KDA_WINDOW_STAGGER ? s->end - 1 : s->start;

	ScanKeyInit(&keys[0], KDA_SHOWN_KEY, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(s->key->number));
	ScanKeyInit(&keys[1], KDA_SHOWN_TIME, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT, TimestampTzGetDatum(after));
	ScanKeyInit(&keys[2], KDA_SHOWN_TIME, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE, TimestampTzGetDatum(s->end));
	kda_look_scan(look, keys, 3, take, arg);
}

static void
take_shown(KdaLook *look, HeapTuple tuple, void *arg)
{
	Place	   *place = arg;
	HeapTuple	copy = heap_copytuple(tuple);
	bool		isnull;
	KdaTime		end = DatumGetTimestampTz(heap_getattr(copy, KDA_SHOWN_TIME, look->desc, &isnull));
	KdaShownRow *row = kda_look_take(look, copy, window_hash(look, place->session->key->number, end));

	row->place = (int) (place - ((SessionLook *) look)->places);
	place->greatest = Max(place->greatest, row->revision);
}

static void
read_shown(SessionLook *sl)
{
	for (int i = 0; i < sl->nplaces; i++)
		scan_session(&sl->look, sl->places[i].session, take_shown, &sl->places[i]);
	kda_look_hash(&sl->look);
}

/*---- comparing */

static Place *
find_place(SessionLook *sl, int64 number, KdaTime end)
{
	KdaSessionKey key = {.number = number};
	KdaSession	session = {.key = &key,.end = end};
	Place		probe = {&session};

	return bsearch(&probe, sl->places, sl->nplaces, sizeof(Place), by_number);
}

/*
 * The row of these bounds that was emitted for a key: taken out, and those of
 * other bounds go: theirs have become this one.  revision: the greatest of them.
 */
static KdaShownRow *
take_of_key(KdaLook *look, uint64 hash, ptrdiff_t place, KdaTime end, const Datum *values, const bool *nulls, int32 *revision)
{
	KdaShownRow **link = kda_look_bucket(look, hash);
	KdaShownRow *had = NULL;

	while (*link)
	{
		KdaShownRow *row = *link;

		if (row->hash != hash || row->place != place || !kda_look_same_key(look, row->values, row->nulls, values, nulls))
		{
			link = &row->next;
			continue;
		}
		*link = row->next;
		row->matched = true;
		*revision = Max(*revision, row->revision);
		if (row->end == end && (had == NULL || had->gone))
		{
			if (had)
				kda_look_delete(look, &had->tid);
			had = row;
		}
		else
			kda_look_delete(look, &row->tid);
	}
	return had;
}

/* One row of the final part. */
static void
compare_row(SessionLook *sl, TupleTableSlot *in, TupleDesc from)
{
	KdaLook    *look = &sl->look;
	KdaQuery   *query = look->query;
	bool		isnull;
	KdaTime		end = DatumGetTimestampTz(slot_getattr(in, 2, &isnull));
	int64		number = DatumGetInt64(slot_getattr(in, 3, &isnull));
	Place	   *place = find_place(sl, number, end);
	bool		open = end > sl->closed;
	KdaShownRow *had = NULL;
	int32		revision = NOT_CLOSED;
	bool		same;
	Datum	   *values;
	bool	   *nulls;
	uint64		hash;

	if (place == NULL)
		elog(ERROR, "query %s gives a row of a session that nobody has asked for", query->name);
	slot_getallattrs(in);
	values = in->tts_values + OURS;
	nulls = in->tts_isnull + OURS;
	hash = kda_look_hash_row(look, window_hash(look, number, end), values, nulls);
	if (look->shown->keyed)
		had = take_of_key(look, hash, place - sl->places, end, values, nulls, &revision);
	else
	{
		had = kda_look_find(look, hash, end, (int) (place - sl->places), values, nulls);
		revision = place->greatest;
	}
	same = had && !had->gone && kda_look_same_row(look, had->values, had->nulls, values, nulls);
	/* what closes leaves in any case, but only once */
	if (same && !open && (end > query->frontier || had->revision == NOT_CLOSED))
		same = false;
	if (same)
	{
		place->remembered |= had->revision == place->greatest;
		return;
	}
	if (had)
		kda_look_delete(look, &had->tid);
	if (open || sl->keep)
	{
		kda_look_put(look, end, number, open ? revision : revision + 1, revision + 1, false, values, nulls);
		place->remembered = true;
	}
	for (int i = 0; i < look->shown->nrevisions; i++)
		values[look->shown->revisions[i]] = Int32GetDatum(revision + 1);
	tuplestore_putvalues(open ? sl->out_open : sl->out_closed, from, in->tts_values, in->tts_isnull);
}

/* What was emitted, and is no more part of the result. */
static void
compare_rest(SessionLook *sl)
{
	KdaLook    *look = &sl->look;

	for (int i = 0; i < look->nrows; i++)
	{
		KdaShownRow *row = look->rows[i];
		Place	   *place = &sl->places[row->place];
		KdaSession *s = place->session;
		/* if it comes back, or its session closes again, it is no new row */
		bool		remember = row->revision != NOT_CLOSED && (s->end > sl->closed || sl->keep) &&
			(look->shown->keyed || (row->revision == place->greatest && !place->remembered));

		if (row->matched)
			continue;
		place->remembered |= remember;
		if (remember && s->end > sl->closed)
			s->reopened = true;
		if (remember && row->gone && row->end == s->end)
			continue;
		kda_look_delete(look, &row->tid);
		if (remember)
			kda_look_put(look, s->end, s->key->number, row->revision, row->revision, true, row->values, row->nulls);
	}
}

static void
compare(SessionLook *sl, Tuplestorestate *rows)
{
	TupleDesc	from = kda_plan_desc(sl->look.query->final_plan);
	TupleTableSlot *in = MakeSingleTupleTableSlot(from, &TTSOpsMinimalTuple);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "kda shown row", ALLOCSET_SMALL_SIZES);

	while (tuplestore_gettupleslot(rows, true, false, in))
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);

		CHECK_FOR_INTERRUPTS();
		compare_row(sl, in, from);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
	}
	MemoryContextDelete(scratch);
	ExecDropSingleTupleTableSlot(in);
}

/*---- looking */

/* The rows of these sessions, which are in the order of their ends; NULL: the query has failed. */
static Tuplestorestate *
compute(KdaQuery *query, KdaSession **list, int n, bool closed)
{
	KdaPlanBounds bounds = {.timed = false,.after = KDA_NO_TIME,.upto = KDA_END_TIME};
	KdaSessions *sessions = sessions_of(query);
	Tuplestorestate *rows;

	if (query->groups)
	{
		bounds.tids = kda_session_tids(list, n);
		bounds.ntids = n;
	}
	else
	{
		sessions->picked = list;
		sessions->npicked = n;
		bounds.timed = true;
		bounds.upto = list[n - 1]->end;
	}
	rows = kda_query_compute(query, &bounds, closed);
	sessions->npicked = 0;
	return rows;
}

static int
emit(KdaQuery *query, Tuplestorestate *rows, bool kept)
{
	int			n = (int) tuplestore_tuple_count(rows);

	/* a view shows what is kept; what is not goes to its closed rows */
	if (n > 0 && (query->is_pump || !kept))
		kda_query_emit_computed(query, rows, query->forgotten);
	else
		query->d_out += n;
	tuplestore_end(rows);
	return n;
}

/* Looks at sessions, which are in the order of their ends.  Did anything leave? */
static bool
look_at(KdaQuery *query, KdaSession **list, int n, KdaTime closed)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "kda shown", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SessionLook sl = {.closed = closed,.keep = query->lateness_us > 0,.nplaces = n};
	Tuplestorestate *parts[2] = {NULL, NULL};
	int			nclosed = 0;
	bool		left = false;
	KdaIdentity save;

	while (nclosed < n && list[nclosed]->end <= closed)
		nclosed++;
	if (nclosed > 0)
		parts[0] = compute(query, list, nclosed, true);
	if (nclosed < n && query->early && query->failure == NULL)
		parts[1] = compute(query, list + nclosed, n - nclosed, false);
	if (query->failure == NULL)
	{
		sl.places = palloc_extended(sizeof(Place) * n, MCXT_ALLOC_HUGE);
		for (int i = 0; i < n; i++)
		{
			sl.places[i].session = list[i];
			sl.places[i].greatest = NOT_CLOSED;
			sl.places[i].remembered = false;
			/* found out below */
			list[i]->reopened = false;
		}
		qsort(sl.places, n, sizeof(Place), by_number);
		sl.out_closed = tuplestore_begin_heap(false, false, work_mem);
		sl.out_open = tuplestore_begin_heap(false, false, work_mem);
		kda_look_begin(&sl.look, query, KDA_STEP_CHANGES);
		/* equality of keys may be the owner's code */
		kda_become_owner(query, &save);
		read_shown(&sl);
		for (int i = 0; i < 2; i++)
			if (parts[i])
			{
				compare(&sl, parts[i]);
				tuplestore_end(parts[i]);
			}
		compare_rest(&sl);
		kda_become_self(&save);
		kda_look_end(&sl.look);
		left = emit(query, sl.out_closed, sl.keep) > 0;
		left |= emit(query, sl.out_open, true) > 0;
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	KDA_FAULT("looked");
	return left;
}

/*---- what is final */

typedef struct FinalSession
{
	KdaFinish	finish;
	KdaSession *session;
} FinalSession;

static void
take_final(KdaLook *look, HeapTuple tuple, void *arg)
{
	FinalSession *final = arg;
	KdaSession *s = final->session;
	Datum		ours[OURS] = {TimestampTzGetDatum(s->start), TimestampTzGetDatum(s->end), Int64GetDatum(s->key->number)};

	kda_finish_row(&final->finish, tuple, ours, OURS);
}

static void
finish(KdaQuery *query, KdaSession **list, int n)
{
	FinalSession final;

	kda_finish_begin(&final.finish, query);
	for (int i = 0; i < n; i++)
	{
		final.session = list[i];
		scan_session(&final.finish.look, list[i], take_final, &final);
	}
	kda_finish_end(&final.finish);
}

/*---- all of it */

/*
 * Those that have to be looked at now, in the order of their ends; palloc'd.
 * What closes does so at once, what has closed before is corrected when it is
 * due, but before it is final.
 */
static KdaSession **
choose(KdaQuery *query, KdaTime closed, KdaTime final, bool due, int *n)
{
	KdaSessions *sessions = sessions_of(query);
	int			room;
	KdaSession **list;
	dlist_iter	iter;

	kda_sessions_end(sessions, closed);
	room = sessions->nended;
	if (due)
		dlist_foreach(iter, &sessions->changes)
			room++;
	list = palloc_extended(sizeof(KdaSession *) * (room + 1), MCXT_ALLOC_HUGE);
	*n = 0;
	for (int i = 0; i < sessions->nended; i++)
		if (due || sessions->ended[i]->end > query->frontier || sessions->ended[i]->end <= final)
			list[(*n)++] = sessions->ended[i];
	if (due)
	{
		dlist_foreach(iter, &sessions->changes)
		{
			KdaSession *s = dlist_container(KdaSession, change, iter.cur);

			if (s->end > closed)
				list[(*n)++] = s;
		}
	}
	qsort(list, *n, sizeof(KdaSession *), by_end);
	return list;
}

bool
kda_shown_settle_sessions(KdaQuery *query, KdaTime closed, TimestampTz now)
{
	KdaShown   *shown = query->shown;
	KdaSessions *sessions = sessions_of(query);
	KdaTime		final = kda_earlier(closed, query->lateness_us);
	bool		due = kda_shown_is_due(query, now);
	bool		left = false;
	bool		looked;			/* at what is due, because records have come */
	int			n;
	KdaSession **list = choose(query, closed, final, due, &n);

	looked = due && n > 0 && !shown->unknown;
	for (int from = 0; from < n && query->failure == NULL; from += LOOKED_AT_ONCE)
		left |= look_at(query, list + from, Min(n - from, LOOKED_AT_ONCE), closed);
	if (query->failure)
		return left;
	kda_sessions_settled(sessions, list, n, closed);
	pfree(list);
	shown->all = query->early && !dlist_is_empty(&sessions->changes);
	shown->unknown &= shown->all;
	if (query->every_us > 0 && due && (left || looked))
		query->emitted_at = now;
	if (kda_sessions_min_closed(sessions) <= final)
	{
		/* the option may have been set to 0 since they were closed */
		if (query->lateness_us > 0 || query->forgotten < query->frontier)
		{
			kda_sessions_end_final(sessions, final);
			finish(query, sessions->ended, sessions->nended);
		}
		if (query->failure)
			return left;
		kda_query_forget_windows(query, final);
		left = true;
	}
	return left || looked;
}
