/*-------------------------------------------------------------------------
 *
 * reset.c
 *	  ALTER STREAM … RESET: what is open of a stream leaves, and its time is
 *	  forgotten; so it goes on through all that is made of the stream inside
 *	  queries, that is, through the streams of ours between their parts.  Streams
 *	  that users' pumps write have a RESET of their own.
 *
 * Where.  A database stream has a row in its inbox that says where, and so have
 * those that queries tie to it.  Streams of outside servers have no such place.
 * First all that are tied come to rest: each at its place, or with nothing more
 * to give, and nothing is left between the parts of queries.  Then the streams
 * that are at their places are reset, in one transaction.  Then the parts: each
 * when its inbox is empty and nothing that it is made of is on its way any
 * more; meanwhile the streams stand still.  A join forgets what it keeps of a
 * stream when its other side is through, too: that may still give rows that
 * match.
 *
 * A stream's resets are numbered.  kda_storage.stream.resets_wanted is the
 * last that was asked for, stream_progress.resets_done the last that is done,
 * and the places carry the number: a tied stream passes one when the other
 * stream has done that reset.  query_progress.reset_sides says which sides of a
 * join wait for the other.  All of it is committed with what it belongs to.
 *
 * In slot 0's transaction; the other slots stand still while it is under way.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/rows.h"
#include "executor/spi.h"
#include "query/run.h"
#include "query/shown.h"
#include "runtime/fault.h"
#include "runtime/runtime.h"
#include "runtime/worker.h"
#include "utils/snapmgr.h"

/* In the last transaction a stream was reset: all that are tied look anew where they are. */
static bool any_reset = false;

/* All have come to rest, and yet none is at its reset: the places of concurrent RESETs have been read in different orders. */
static bool stuck = false;

/* The stream of ours that the query's rows go to; NULL: none. */
static KdaFeed *
part_written(const KdaQuery *query)
{
	KdaFeed    *target = query->target_is_stream ? kda_feed_by_relid(query->target_rel) : NULL;

	return target && target->is_part ? target : NULL;
}

static void
list_tied(const KdaQuery *query, KdaFeed *tied[3])
{
	tied[0] = kda_feed_by_relid(query->stream->relid);
	tied[1] = query->sides[1] ? kda_feed_by_relid(query->sides[1]->stream->relid) : NULL;
	tied[2] = part_written(query);
}

static void
spread_ties(KdaWorker *worker)
{
	bool		more = true;
	ListCell   *lc;

	while (more)
	{
		more = false;
		foreach(lc, worker->queries)
		{
			KdaFeed    *tied[3];
			bool		any = false;

			list_tied(lfirst(lc), tied);
			for (int i = 0; i < 3; i++)
				any |= tied[i] && tied[i]->tied;
			for (int i = 0; i < 3 && any; i++)
				if (tied[i] && !tied[i]->tied)
					more = tied[i]->tied = true;
		}
	}
}

/* Does the function say so of one of the streams that its rows are made of? */
static bool
any_source(const KdaFeed *feed, bool (*has) (const KdaFeed *feed))
{
	ListCell   *lc;

	foreach(lc, feed->writers)
	{
		KdaQuery   *query = lfirst(lc);

		for (int s = 0; s < 2; s++)
		{
			KdaStream  *stream = s == 0 ? query->stream : query->sides[1] ? query->sides[1]->stream : NULL;
			KdaFeed    *source = stream ? kda_feed_by_relid(stream->relid) : NULL;

			if (source && has(source))
				return true;
		}
	}
	return false;
}

/*
 * A part, as of the beginning of the transaction: may it still give rows from
 * before its reset?  Users' streams go first, all in one transaction.
 */
static bool
gives_old(const KdaFeed *feed)
{
	return feed->is_part && (feed->resetting || any_source(feed, gives_old));
}

/* As of now: will it be reset, in this transaction or, a part, in one of the next? */
static bool
will_reset(const KdaFeed *feed)
{
	if (!feed->is_part)
		return feed->may_reset;
	return (kda_feed_wants_reset(feed) && kda_feed_runs(feed)) || any_source(feed, will_reset);
}

static bool
stands(const KdaFeed *feed, bool parts)
{
	if (kda_worker->first_resets)
		return true;
	if (!feed->tied || feed->is_part)
		return false;
	return parts || (feed->resetting ? !feed->reset_behind : feed->arrived || feed->stream->options->server_type != NULL);
}

void
kda_resets_begin(KdaWorker *worker)
{
	bool		calm = true;
	bool		tied = false;	/* any is */
	bool		any = false;	/* … may be reset */
	bool		parts = false;	/* are on their way */
	ListCell   *lc;

	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);
		bool		resetting = kda_feed_wants_reset(feed) && kda_feed_runs(feed);

		if (resetting != feed->resetting || !feed->tied || any_reset)
			feed->arrived = feed->quiet = feed->at_reset = false;
		feed->resetting = feed->tied = resetting;
		tied |= resetting;
		parts |= resetting && feed->is_part;
	}
	any_reset = false;
	if (tied)
		spread_ties(worker);
	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);

		calm &= !parts && (feed->quiet || !feed->tied || !kda_feed_runs(feed));
	}
	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);

		feed->may_reset = feed->resetting &&
			(feed->is_part ? !any_source(feed, gives_old) : calm && (feed->at_reset || !feed->reset_behind));
		feed->stands = stands(feed, parts);
		any |= feed->may_reset;
	}
	stuck = tied && calm && !any;
}

static void
keep_reset_sides(KdaQuery *query, int sides)
{
	if (sides == query->reset_sides)
		return;
	query->reset_sides = sides;
	SPI_connect();
	SPI_execute(psprintf("UPDATE kda_storage.query_progress SET reset_sides = %d WHERE query_id = %d", sides, query->id), false, 0);
	SPI_finish();
}

static void
reset_join(KdaFeed *feed, KdaQuery *query)
{
	int			sides = query->reset_sides;
	bool		other_comes = false;

	for (int s = 0; s < 2; s++)
	{
		if (query->sides[s]->stream == feed->stream)
			sides |= 1 << s;
		else
			other_comes |= will_reset(kda_feed_by_relid(query->sides[s]->stream->relid));
	}
	if (!other_comes)
	{
		kda_join_reset(query, sides);
		sides = 0;
	}
	if (query->failure == NULL)
		keep_reset_sides(query, sides);
}

/* All that is open leaves. */
static void
reset_query(KdaFeed *feed, KdaQuery *query)
{
	KdaStream  *stream = feed->stream;

	switch (query->shape)
	{
		case KDA_SHAPE_JOIN:
			reset_join(feed, query);
			return;
		case KDA_SHAPE_OVER:
			/* rows to come do not look back at what has left */
			stream->watermark = KDA_END_TIME;
			kda_over_settle(query);
			stream->watermark = KDA_NO_TIME;
			if (query->failure)
				return;
			kda_kept_delete_before(query->kept, KDA_END_TIME);
			query->pruned_rows = kda_kept_count(query->kept);
			break;
		case KDA_SHAPE_WINDOWS:
			if (query->groups)
				kda_query_write_back(query);
			if (query->failure)
				return;
			/* of all slots */
			query->leftovers = query->slotted;
			query->nslots = 1;
			if (query->shown)
				(void) kda_shown_settle(query, KDA_END_TIME, kda_clock_now());
			else
				kda_query_close_windows(query, KDA_END_TIME);
			query->nslots = feed->nslots;
			query->leftovers = false;
			query->accepts = KDA_NO_TIME;
			break;
		default:
			if (query->retime)
				kda_retime_reset(query->retime);
			break;
	}
	query->frontier = query->forgotten = KDA_NO_TIME;
}

/* Behind what it has got until now. */
static void
want_reset(KdaFeed *feed)
{
	feed->resets_wanted = feed->resets_done + 1;
	feed->reset_behind = kda_feed_runs(feed);
	SPI_connect();
	SPI_execute(psprintf("UPDATE kda_storage.stream SET resets_wanted = " INT64_FORMAT ", reset_behind = %s WHERE stream_id = %d",
						 feed->resets_wanted, feed->reset_behind ? "true" : "false", feed->stream->id), false, 0);
	SPI_finish();
	feed->more = feed->touched = true;
}

/* Emits what is open, forgets the time, and wants the same of the streams of ours that are made of it; number: of the reset. */
static void
reset_stream(KdaFeed *feed, int64 number)
{
	KdaStream  *stream = feed->stream;
	ListCell   *lc;

	kda_slots_reset(feed);
	/* what has been handed on until now belongs before it */
	if (feed->relay && kda_feed_runs(feed->relay))
	{
		do
		{
			CommandCounterIncrement();
			PushActiveSnapshot(GetLatestSnapshot());
			kda_run_feed(feed->relay, kda_clock_now());
			PopActiveSnapshot();
		} while (feed->relay->more);
		reset_stream(feed->relay, 0);
		kda_current_feed = feed;
	}
	foreach(lc, stream->queries)
	{
		KdaQuery   *query = lfirst(lc);

		if (!kda_query_runs(query))
			continue;
		reset_query(feed, query);
		if (part_written(query))
			want_reset(part_written(query));
	}
	KDA_FAULT("reset");
	for (int s = 0; s < stream->nshards; s++)
	{
		stream->shards[s].watermark = KDA_NO_TIME;
		stream->shards[s].max_arrival = KDA_NO_TIME;
		stream->shards[s].dirty = !stream->shards[s].foreign;
	}
	stream->watermark = KDA_NO_TIME;
	stream->advanced = KDA_NO_TIME;
	/* those that write it say anew how far they are */
	stream->derived = KDA_NO_TIME;
	feed->derived_sent = KDA_NO_TIME;
	feed->accepted = feed->nslots > 1 ? KDA_NO_TIME : feed->accepted;
	feed->closing = KDA_NO_TIME;
	feed->touched = feed->more = true;
	/* it has done so with its stream */
	if (feed->relay_of)
		return;
	feed->resets_done = Max(feed->resets_done, number);
	feed->reset_again = feed->may_reset = false;
	any_reset = true;
	SPI_connect();
	SPI_execute(psprintf("UPDATE kda_storage.stream_progress SET resets_done = " INT64_FORMAT " WHERE stream_id = %d",
						 feed->resets_done, stream->id), false, 0);
	SPI_finish();
	/* slots that stand still are told by this */
	kda_catalog_changed();
}

/*---- with a transaction */

bool
kda_reset_at_once(KdaFeed *feed)
{
	if (!feed->may_reset || feed->reset_behind)
		return false;
	reset_stream(feed, feed->resets_wanted);
	/* nothing is read with it: what has been fetched waits */
	feed->held = true;
	return true;
}

/* Must a stream stand at the place until that other one has done that reset? */
static bool
waits_for(const KdaInboxPlace *place)
{
	ListCell   *lc;

	foreach(lc, kda_worker->feeds)
	{
		KdaFeed    *other = lfirst(lc);

		if (other->relay_of || other->stream->id != place->stream)
			continue;
		if (!kda_feed_runs(other) || other->resets_done >= place->number)
			return false;
		/* asked for since the catalog was read */
		kda_worker->reload |= other->resets_wanted < place->number;
		return !stuck;
	}
	return false;
}

/* The place is met again. */
static void
stay(KdaFeed *feed)
{
	feed->next_position = feed->position;
	feed->arrived = feed->quiet = true;
}

void
kda_reset_after_read(KdaFeed *feed, const KdaInboxPlace *place)
{
	bool		empty = feed->stream->batch->nrows == 0 && !feed->more;

	if (feed->may_reset && (place->control == KDA_CONTROL_RESET || empty))
	{
		reset_stream(feed, place->control ? place->number : feed->resets_wanted);
		return;
	}
	feed->quiet = empty;
	feed->arrived |= !feed->more;
	feed->at_reset = feed->resetting && (place->control == KDA_CONTROL_RESET || empty);
	if (place->control == KDA_CONTROL_STAND && waits_for(place))
		stay(feed);
	else if (place->control == KDA_CONTROL_RESET)
	{
		stay(feed);
		if (place->number <= feed->resets_done)
			feed->reset_again = true;
		else
			kda_worker->reload |= place->number > feed->resets_wanted;
	}
}

void
kda_reset_look(KdaFeed *feed)
{
	ListCell   *lc;

	/* what it has given is on its way */
	foreach(lc, feed->stream->queries)
		feed->quiet &= ((KdaQuery *) lfirst(lc))->d_out == 0;
	/* for those who wait */
	feed->more |= feed->tied || kda_feed_wants_reset(feed);
}
