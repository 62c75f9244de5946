/*-------------------------------------------------------------------------
 *
 * retime.c
 *	  Rows that leave with another time than the record's: ORDER BY s.ts WITHIN
 *	  …, where ts is a column that the stream does not call its time.
 *
 * Each shard has a mark of its own, the greatest of these times that was seen
 * in it; a row is late when it is earlier than the mark before it by more than
 * the interval.  So which rows are late does not depend on how far the other
 * shards are, nor on how records were cut into batches.  The stream of ours
 * that the rows go to has the smallest mark of the live shards for its
 * watermark; where all are idle it goes on with the wall clock, as that of any
 * stream does.
 *
 * Marks are kept in kda_storage.sort_mark.  In a pipeline worker only.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "miscadmin.h"
#include "query/query.h"
#include "stream/fdw.h"
#include "utils/memutils.h"

typedef struct Mark
{
	char	   *shard;
	KdaTime		greatest;		/* KDA_NO_TIME: nothing has come */
	KdaTime		saved;			/* as of the last commit */
} Mark;

struct KdaRetime
{
	KdaQuery   *query;
	int			nmarks;
	int			room;
	Mark	   *marks;
	/* of the batch, by row */
	KdaTime    *times;
	KdaTime    *before;			/* mark of the shard */
	int			nrows;
};

KdaRetime *
kda_retime_create(KdaQuery *query)
{
	KdaRetime  *retime = MemoryContextAllocZero(query->context, sizeof(KdaRetime));

	retime->query = query;
	return retime;
}

static Mark *
add_mark(KdaRetime *retime, const char *shard)
{
	Mark	   *mark;

	if (retime->nmarks == retime->room)
	{
		retime->room = Max(retime->room * 2, 4);
		retime->marks = retime->marks ? repalloc(retime->marks, sizeof(Mark) * retime->room) :
			MemoryContextAlloc(retime->query->context, sizeof(Mark) * retime->room);
	}
	mark = &retime->marks[retime->nmarks++];
	mark->shard = MemoryContextStrdup(retime->query->context, shard);
	mark->greatest = mark->saved = KDA_NO_TIME;
	return mark;
}

/* Most often a shard has the same number in both lists. */
static Mark *
mark_of(KdaRetime *retime, int shard, bool add)
{
	const char *name = retime->query->stream->shards[shard].name;

	if (shard < retime->nmarks && strcmp(retime->marks[shard].shard, name) == 0)
		return &retime->marks[shard];
	for (int i = 0; i < retime->nmarks; i++)
		if (strcmp(retime->marks[i].shard, name) == 0)
			return &retime->marks[i];
	return add ? add_mark(retime, name) : NULL;
}

void
kda_retime_load(KdaRetime *retime, const char *shard, KdaTime greatest)
{
	Mark	   *mark = add_mark(retime, shard);

	mark->greatest = mark->saved = greatest;
}

static void
make_room(KdaRetime *retime, int nrows)
{
	if (nrows <= retime->nrows)
		return;
	if (retime->times)
	{
		pfree(retime->times);
		pfree(retime->before);
	}
	retime->nrows = 0;
	retime->times = MemoryContextAllocHuge(retime->query->context, sizeof(KdaTime) * nrows);
	retime->before = MemoryContextAllocHuge(retime->query->context, sizeof(KdaTime) * nrows);
	retime->nrows = nrows;
}

Tuplestorestate *
kda_retime_rows(KdaQuery *query, Tuplestorestate *rows, TimestampTz now, KdaRefuseRow refuse, void *arg)
{
	KdaRetime  *retime = query->retime;
	KdaBatch   *batch = query->stream->batch;
	int64		max_ahead = query->stream->options->max_ahead_us;
	KdaTime		limit = max_ahead == KDA_NEVER_US ? KDA_END_TIME : now + max_ahead;
	Tuplestorestate *accepted = tuplestore_begin_heap(false, false, work_mem);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(kda_plan_desc(query->batch_plan), &TTSOpsMinimalTuple);

	make_room(retime, batch->nrows);
	while (tuplestore_gettupleslot(rows, true, false, slot))
	{
		bool		isnull;
		int			row = kda_tid_to_row((ItemPointer) DatumGetPointer(slot_getattr(slot, 1, &isnull)));
		KdaTime		time = DatumGetTimestampTz(slot_getattr(slot, 2, &isnull));
		Mark	   *mark = mark_of(retime, batch->shard[row], true);

		if (isnull || TIMESTAMP_NOT_FINITE(time))
		{
			refuse(arg, row, "expression", isnull ? "the time that ORDER BY ... WITHIN sorts by is null" :
				   "the time that ORDER BY ... WITHIN sorts by is infinite");
			continue;
		}
		if (time > limit)
		{
			refuse(arg, row, "ahead", "the time that ORDER BY ... WITHIN sorts by is further ahead of now than option max_ahead allows");
			continue;
		}
		retime->times[row] = time;
		retime->before[row] = mark->greatest;
		if (mark->greatest != KDA_NO_TIME && time < mark->greatest - query->delay_us)
		{
			refuse(arg, row, "late", "the record came later than ORDER BY ... WITHIN waits for");
			continue;
		}
		mark->greatest = Max(mark->greatest, time);
		tuplestore_puttupleslot(accepted, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	return accepted;
}

KdaTime
kda_retime_of(KdaRetime *retime, int row, KdaTime *shard_wm)
{
	*shard_wm = retime->before[row];
	return retime->times[row];
}

KdaTime
kda_retime_watermark(KdaQuery *query, TimestampTz now)
{
	KdaStream  *stream = query->stream;
	KdaTime		least = KDA_END_TIME;
	KdaTime		seen = KDA_END_TIME;
	TimestampTz idle_since = 0;
	bool		all_idle = true;

	for (int s = 0; s < stream->nshards; s++)
	{
		KdaShard   *shard = &stream->shards[s];
		Mark	   *mark = mark_of(query->retime, s, false);
		KdaTime		greatest = mark ? mark->greatest : KDA_NO_TIME;

		if (greatest != KDA_NO_TIME)
			seen = Min(seen, greatest);
		if (shard->closed)
			continue;
		if (shard->idle)
		{
			idle_since = Max(idle_since, shard->quiet_since + stream->options->idle_timeout_us);
			continue;
		}
		all_idle = false;
		/* a shard from which nothing has come holds it, until it is idle */
		least = Min(least, greatest);
	}
	if (!all_idle)
		return least == KDA_END_TIME ? KDA_NO_TIME : least;
	if (seen == KDA_END_TIME)
		return KDA_NO_TIME;
	/* a stream that pumps write is quiet for as long as they are: their sources may be far behind */
	if (stream->has_writers || idle_since == 0 || now <= idle_since || seen >= now)
		return seen;
	return Min(seen + (now - idle_since), now);
}

void
kda_retime_save(KdaQuery *query, void (*save) (KdaQuery *query, const char *shard, KdaTime greatest))
{
	for (int i = 0; i < query->retime->nmarks; i++)
	{
		Mark	   *mark = &query->retime->marks[i];

		if (mark->greatest != mark->saved)
			save(query, mark->shard, mark->greatest);
	}
}

void
kda_retime_reset(KdaRetime *retime)
{
	for (int i = 0; i < retime->nmarks; i++)
		retime->marks[i].greatest = KDA_NO_TIME;
}

void
kda_retime_at_commit(KdaRetime *retime)
{
	for (int i = 0; i < retime->nmarks; i++)
		retime->marks[i].saved = retime->marks[i].greatest;
}

void
kda_retime_at_abort(KdaRetime *retime)
{
	for (int i = 0; i < retime->nmarks; i++)
		retime->marks[i].greatest = retime->marks[i].saved;
}
