/*-------------------------------------------------------------------------
 *
 * reset.c
 *	  ALTER STREAM … RESET: what is open of a stream leaves, and its time is
 *	  forgotten; so it goes on through all that is made of the stream inside
 *	  queries, that is, through the streams of ours between their parts.  Streams
 *	  that users' pumps write have a RESET of their own.
 *
 * Where.  A database stream that is read has a row in its inbox that says where,
 * and so have those that queries tie to it.  Streams of outside servers have no
 * such place.  First all of them come to rest there, and nothing is left
 * between the parts of queries.  Then the streams are
 * reset, in one transaction.  Then the parts: each when its inbox is empty and
 * nothing that it is made of is on its way any more.  A join forgets what it
 * keeps of a stream when its other side is through, too: that may still give
 * rows that match.  Until all is done the streams stand still.
 *
 * kda_storage.stream.reset_wanted says, with each commit, which streams are
 * still on their way, query_progress.reset_sides which sides of a join wait for
 * the other.  In slot 0's transaction; the other slots stand still while it is
 * under way.
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
		return feed->may_reset && feed->reset_wanted;
	return (feed->reset_wanted && kda_feed_runs(feed)) || any_source(feed, will_reset);
}

void
kda_resets_begin(KdaWorker *worker)
{
	bool		calm = true;
	ListCell   *lc;

	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);
		bool		resetting = feed->reset_wanted && kda_feed_runs(feed);

		if (resetting != feed->resetting || !feed->tied)
			feed->arrived = feed->quiet = feed->at_reset = false;
		feed->resetting = feed->tied = resetting;
	}
	spread_ties(worker);
	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);

		if (feed->tied && kda_feed_runs(feed))
			calm &= feed->quiet && !(feed->is_part && feed->resetting);
	}
	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);

		feed->calm = feed->tied && calm;
		feed->may_reset = feed->resetting &&
			(feed->is_part ? !any_source(feed, gives_old) : calm && (feed->at_reset || !feed->reset_behind));
		feed->stands = worker->first_resets ||
			(feed->tied && !feed->is_part &&
			 (feed->resetting ? !feed->reset_behind : feed->arrived || feed->stream->options->server_type != NULL));
	}
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
	feed->reset_wanted = true;
	feed->reset_behind = kda_feed_runs(feed);
	SPI_connect();
	SPI_execute(psprintf("UPDATE kda_storage.stream SET reset_wanted = true, reset_behind = %s WHERE stream_id = %d",
						 feed->reset_behind ? "true" : "false", feed->stream->id), false, 0);
	SPI_finish();
	feed->more = feed->touched = true;
}

/* Emits what is open, forgets the time, and wants the same of the streams of ours that are made of it. */
static void
reset_stream(KdaFeed *feed)
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
		reset_stream(feed->relay);
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
	SPI_connect();
	SPI_execute(psprintf("UPDATE kda_storage.stream SET reset_wanted = false, reset_behind = false WHERE stream_id = %d",
						 stream->id), false, 0);
	SPI_finish();
	feed->reset_wanted = feed->reset_behind = false;
	feed->touched = feed->more = true;
	/* slots that stand still are told by this; so is this one, of resets that were asked for together with this one */
	kda_catalog_changed();
}

/*---- with a transaction */

bool
kda_reset_at_once(KdaFeed *feed)
{
	if (!feed->may_reset || feed->reset_behind)
		return false;
	reset_stream(feed);
	/* nothing is read with it: what has been fetched waits */
	feed->held = true;
	return true;
}

void
kda_reset_after_read(KdaFeed *feed, char place)
{
	bool		empty = feed->stream->batch->nrows == 0 && !feed->more;

	if (place == KDA_CONTROL_RESET && !feed->resetting)
	{
		/* there are several in the inbox, or the catalog has not been read since */
		want_reset(feed);
		kda_worker->reload |= !feed->tied;
	}
	if (feed->may_reset && (place == KDA_CONTROL_RESET || empty))
	{
		reset_stream(feed);
		return;
	}
	if (place == KDA_CONTROL_STAND && (feed->tied ? feed->calm : feed->stood))
	{
		/* the other one is reset now, or has been */
		feed->stood = feed->quiet = false;
		return;
	}
	if (place)
	{
		/* it is met again */
		feed->next_position = feed->position;
		if (!feed->tied && place == KDA_CONTROL_STAND)
			kda_worker->reload = feed->stood = true;
	}
	feed->arrived |= feed->tied && !feed->resetting && (place || !feed->more);
	feed->at_reset = feed->resetting && (place == KDA_CONTROL_RESET || empty);
	feed->quiet = place ? true : empty;
}

void
kda_reset_look(KdaFeed *feed)
{
	ListCell   *lc;

	/* what it has given is on its way */
	foreach(lc, feed->stream->queries)
		feed->quiet &= ((KdaQuery *) lfirst(lc))->d_out == 0;
	/* for those who wait */
	feed->more |= feed->tied || feed->reset_wanted;
}
