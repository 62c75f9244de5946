/*-------------------------------------------------------------------------
 *
 * waits.c
 *	  The worker's side of kda.wait: everything that could be read when the
 *	  call came has been processed and committed, through every query that
 *	  depends on it.
 *
 * A request names a stream.  Its target is found when the worker takes it up:
 * the end of each shard at the broker, or for database streams a snapshot.
 * Once the stream has come so far, the streams that its pumps write must do
 * the same, level by level: each of them must have been found empty in a
 * transaction that began after the level before was done.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "miscadmin.h"
#include "runtime/worker.h"
#include "utils/inval.h"
#include "utils/memutils.h"

typedef struct Wait
{
	uint64		id;
	Oid			stream;
	int64	   *ends;			/* source streams: by source shard */
	int			nends;
	bool		ends_known;
	uint64		asked;			/* serial of the source whose ends_begin gave this ticket; 0: none yet */
	uint64		ticket;
	List	   *pending;		/* Oid of streams that are still to be found empty */
	bool		armed;			/* a transaction has begun since the current level came up */
	bool		relayed;		/* the current level is done, but for what its slots have handed on */
} Wait;

static List *waits = NIL;

bool
kda_waits_pending(void)
{
	return waits != NIL;
}

/* The stream and all that its pumps write, in the order of levels. */
static List *
with_dependants(KdaWorker *worker, Oid stream)
{
	List	   *found = list_make1_oid(stream);
	ListCell   *lc,
			   *lw;

	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);

		foreach(lw, feed->writers)
		{
			KdaQuery   *query = lfirst(lw);

			if ((list_member_oid(found, query->stream->relid) ||
				 (query->sides[1] && list_member_oid(found, query->sides[1]->stream->relid))) &&
				!query->stopped && !query->failure)
				found = list_append_unique_oid(found, feed->stream->relid);
		}
	}
	return found;
}

void
kda_waits_look(KdaWorker *worker)
{
	KdaWaitRequest requests[KDA_MAX_WAITS];
	int			n = kda_wait_pending(requests, KDA_MAX_WAITS);
	MemoryContext old;
	ListCell   *lc;

	/* those whose backend has given up */
	foreach(lc, waits)
	{
		Wait	   *wait = lfirst(lc);
		bool		alive = false;

		for (int i = 0; i < n; i++)
			alive |= requests[i].id == wait->id;
		if (!alive)
		{
			waits = foreach_delete_current(waits, lc);
			list_free(wait->pending);
			if (wait->ends)
				pfree(wait->ends);
			pfree(wait);
		}
	}

	/* queries that were committed before the call must be known before it is judged */
	if (n > 0)
		AcceptInvalidationMessages();
	if (worker->reload)
		return;

	old = MemoryContextSwitchTo(worker->context);
	for (int i = 0; i < n; i++)
	{
		bool		known = false;
		Wait	   *wait;

		foreach(lc, waits)
			known |= ((Wait *) lfirst(lc))->id == requests[i].id;
		if (known || kda_feed_by_relid(requests[i].stream) == NULL)
			continue;
		wait = palloc0(sizeof(Wait));
		wait->id = requests[i].id;
		wait->stream = requests[i].stream;
		wait->pending = with_dependants(worker, wait->stream);
		waits = lappend(waits, wait);
	}
	MemoryContextSwitchTo(old);

	foreach(lc, waits)
	{
		Wait	   *wait = lfirst(lc);
		KdaFeed    *feed = kda_feed_by_relid(wait->stream);
		KdaSource  *source = feed ? feed->stream->source : NULL;

		if (wait->pending)
		{
			KdaFeed    *next = kda_feed_by_relid(linitial_oid(wait->pending));

			/* from here on a transaction will begin that sees all of it */
			if (next && !wait->armed)
			{
				next->more = true;
				wait->armed = true;
			}
			/* how far the other slots are is seen by transactions */
			if (next && next->nslots > 1 && worker->slot == 0)
				next->more = true;
		}
		if (worker->slot > 0)
			continue;			/* slot 0 answers */
		if (source && source->known && !wait->ends_known)
		{
			if (wait->asked != source->serial)
			{
				/* the first time, or it has been opened anew since */
				wait->ticket = source->ops->ends_begin(source);
				wait->asked = source->serial;
				wait->nends = source->nshards;
				if (wait->ends)
					pfree(wait->ends);
				wait->ends = MemoryContextAllocZero(worker->context,
													sizeof(int64) * Max(source->nshards, 1));
			}
			wait->ends_known = source->ops->ends_poll(source, wait->ticket, wait->ends, wait->nends);
		}
	}
}

/* Of a shard that another slot reads, the position is that of its last commit. */
static bool
shard_reached(Wait *wait, KdaSource *source, KdaShard *shard)
{
	for (int i = 0; i < Min(source->nshards, wait->nends); i++)
		if (strcmp(source->shards[i]->name, shard->name) == 0)
			return shard->position >= wait->ends[i] ||
				(shard->source_index == i && source->shards[i]->at_end && source->shards[i]->next_position >= wait->ends[i]);
	return true;				/* has appeared since */
}

/* Has this stream come so far that the wait may go on to the next one? */
static bool
reached(Wait *wait, KdaFeed *feed)
{
	KdaStream  *stream = feed->stream;

	if (stream->paused || stream->failure)
		return false;			/* what it holds has not been processed */
	if (!kda_feed_has_queries(feed))
		return true;			/* nothing depends on it that could still come */
	if (kda_feed_wants_reset(feed))
		return false;
	if (stream->options->server_type == NULL)
		return wait->armed && !feed->more;
	if (!wait->ends_known || stream->raw->n > 0)
		return false;
	/* it may have been opened anew and not know its shards yet */
	if (stream->source == NULL || !stream->source->known || !kda_slots_are_closed(feed))
		return false;
	for (int s = 0; s < stream->nshards; s++)
		if (!shard_reached(wait, stream->source, &stream->shards[s]))
			return false;
	return true;
}

/* Have the queries that run over its relay processed all that is in it? */
static bool
relay_reached(KdaFeed *feed)
{
	return feed->relay == NULL || !kda_feed_runs(feed->relay) || (feed->relay->drained && !feed->relay->more);
}

void
kda_waits_after_commit(KdaWorker *worker)
{
	ListCell   *lc;

	if (worker->slot > 0)
		return;
	foreach(lc, waits)
	{
		Wait	   *wait = lfirst(lc);

		while (wait->pending)
		{
			KdaFeed    *feed = kda_feed_by_relid(linitial_oid(wait->pending));

			if (feed && (wait->relayed ? !relay_reached(feed) : !reached(wait, feed)))
				break;
			if (feed && !wait->relayed && !relay_reached(feed))
			{
				/* by a transaction that begins now */
				feed->relay->more = true;
				wait->relayed = true;
				break;
			}
			wait->pending = list_delete_first(wait->pending);
			wait->armed = wait->relayed = false;
			if (wait->pending && (feed = kda_feed_by_relid(linitial_oid(wait->pending))) != NULL &&
				feed->stream->options->server_type == NULL)
				break;			/* its rows are read by a transaction that begins now */
		}
		if (wait->pending == NIL)
		{
			kda_wait_mark_done(wait->id);
			waits = foreach_delete_current(waits, lc);
			if (wait->ends)
				pfree(wait->ends);
			pfree(wait);
		}
	}
}
