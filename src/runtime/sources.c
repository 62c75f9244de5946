/*-------------------------------------------------------------------------
 *
 * sources.c
 *	  The shards of a stream follow those of its source: new ones, where each
 *	  begins or goes on, those that are closed, those that are gone.
 *
 * In a pipeline worker, outside of transactions.  What changes here is stored
 * by the next transaction, and goes back with it (kda_feed_go_back).
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/options.h"
#include "runtime/runtime.h"
#include "runtime/worker.h"
#include "utils/memutils.h"

/* How far a shard has been read is stored at least so often, also when nothing comes. */
#define COMPLETE_EVERY	(10 * USECS_PER_MINUTE)

static int
find_shard(const KdaStream *stream, const char *name)
{
	for (int s = 0; s < stream->nshards; s++)
		if (strcmp(stream->shards[s].name, name) == 0)
			return s;
	return -1;
}

void
kda_sources_find_parents(KdaStream *stream)
{
	for (int s = 0; s < stream->nshards; s++)
		for (int p = 0; p < KDA_SHARD_PARENTS; p++)
			if (stream->shards[s].parents[p][0] && stream->shards[s].parent[p] == 0)
				stream->shards[s].parent[p] = find_shard(stream, stream->shards[s].parents[p]) + 1;
}

/* NULL: we do not have it. */
static KdaShard *
shard_of_source(KdaStream *stream, int i)
{
	const char *name = stream->source->shards[i]->name;
	int			s;

	/* most often they are in the same order */
	s = i < stream->nshards && strcmp(stream->shards[i].name, name) == 0 ? i : find_shard(stream, name);
	return s < 0 ? NULL : &stream->shards[s];
}

/* A shard that the source has told of. */
static void
add_shard(KdaFeed *feed, const KdaSourceShard *from)
{
	KdaStream  *stream = feed->stream;
	bool		later = feed->saved_nshards > 0;
	KdaShard   *shard;

	if (stream->nshards == 0)
		stream->shards = MemoryContextAllocZero(stream->context, sizeof(KdaShard));
	else
		stream->shards = repalloc(stream->shards, sizeof(KdaShard) * (stream->nshards + 1));
	shard = &stream->shards[stream->nshards++];
	memset(shard, 0, sizeof(*shard));
	shard->name = MemoryContextStrdup(stream->context, from->name);
	shard->position = -1;
	shard->last_position = -1;
	shard->last_arrival = KDA_NO_TIME;
	shard->max_arrival = KDA_NO_TIME;
	shard->watermark = KDA_NO_TIME;
	shard->complete_to = KDA_NO_TIME;
	shard->millis_behind = -1;
	shard->slot = feed->nslots > 1 ? (stream->nshards - 1) % feed->nslots : 0;
	shard->foreign = shard->slot != 0;
	shard->from_first = later;
	/* nothing that has come into it before is missed */
	if (later && stream->source->ops->marks)
		shard->complete_to = kda_clock_now();
	memcpy(shard->parents, from->parents, sizeof(shard->parents));
	strlcpy(shard->identity, from->identity, sizeof(shard->identity));

	/*
	 * A partition that appears while we run is read from its beginning:
	 * nothing in it has been seen.  The first ones are stored even before
	 * their place is known, so that it can be told; and so are all that have
	 * parents, before these are closed.
	 */
	shard->dirty = !later || feed->nslots > 1 || stream->source->ops->marks;
	shard->source_index = -1;
}

/* What the source has found out, and what we have read of it, are the shard's from now on. */
static void
follow_source(KdaStream *stream, KdaShard *shard, const KdaSourceShard *from)
{
	/* A position that it has found (latest, timestamp). */
	if (shard->position < 0 && from->next_position >= 0)
	{
		shard->position = shard->begun_at = from->next_position;
		if (stream->source->ops->marks)
		{
			strlcpy(shard->mark, from->mark, sizeof(shard->mark));
			strlcpy(shard->begun_mark, from->mark, sizeof(shard->begun_mark));
		}
		shard->dirty = true;
	}
	/* What is at the end and no record (a transaction's marker) lies behind us, too. */
	else if (from->at_end && stream->raw->n == 0 && from->next_position > shard->position)
	{
		shard->position = from->next_position;
		shard->dirty = true;
	}
	if (!stream->source->ops->marks)
		return;
	if (strcmp(shard->identity, from->identity) != 0)
	{
		strlcpy(shard->identity, from->identity, sizeof(shard->identity));
		shard->dirty = true;
	}
	if (from->millis_behind != shard->millis_behind)
	{
		/* worth a commit of its own only where that says something new */
		shard->dirty |= (from->millis_behind == 0) != (shard->millis_behind == 0);
		shard->millis_behind = from->millis_behind;
	}
	if (shard->position < from->next_position)
		return;
	if (from->complete_to > shard->complete_to)
	{
		shard->dirty |= shard->complete_to == KDA_NO_TIME || from->complete_to > shard->complete_to + COMPLETE_EVERY;
		shard->complete_to = from->complete_to;
	}
	if (from->closed && !shard->closed)
	{
		shard->closed = shard->dirty = true;
		shard->idle = false;
	}
}

static void
assign_shard(KdaFeed *feed, KdaShard *shard, int index)
{
	KdaSource  *source = feed->stream->source;
	KdaShardStart start = {0};

	shard->source_index = index;
	if (shard->position >= 0)
	{
		start.kind = KDA_START_POSITION;
		start.position = shard->position;
		start.last_position = shard->last_position;
		start.last_arrival = shard->last_arrival;
		start.last_crc = shard->last_crc;
	}
	else
	{
		if (shard->from_first || feed->start == NULL)
			start.kind = shard->from_first ? KDA_START_EARLIEST : KDA_START_LATEST;
		else
			start = kda_parse_start(feed->start);
		if (start.kind == KDA_START_LATEST)
			start.time = feed->start_set;
		start.last_position = -1;
		shard->position = -1;
	}
	strlcpy(start.mark, shard->mark, sizeof(start.mark));
	strlcpy(start.identity, shard->identity, sizeof(start.identity));
	start.complete_to = shard->complete_to;
	source->ops->assign(source, index, &start);
}

/* Shards that the source does not tell of any more: what has been read can be forgotten. */
static void
see_gone_shards(KdaFeed *feed)
{
	KdaStream  *stream = feed->stream;
	KdaSource  *source = stream->source;

	for (int s = 0; s < stream->nshards; s++)
	{
		KdaShard   *shard = &stream->shards[s];
		bool		gone = true;

		if (shard->gone)
			continue;
		if (shard->source_index >= 0)
			gone = source->shards[shard->source_index]->gone;
		else
			for (int i = 0; i < source->nshards && gone; i++)
				gone = strcmp(source->shards[i]->name, shard->name) != 0;
		if (!gone)
			continue;
		/* its last records are here already */
		if (shard->source_index >= 0 && source->shards[shard->source_index]->assigned && !source->shards[shard->source_index]->closed &&
			shard->position < source->shards[shard->source_index]->next_position)
			continue;
		/* what was to be begun anew has no identity yet */
		if (shard->closed || (shard->position < 0 && shard->identity[0] == '\0'))
		{
			shard->closed = shard->gone = shard->dirty = true;
			continue;
		}
		if (source->failed)
			continue;
		snprintf(source->error, sizeof(source->error),
				 "shard %s has left the stream before it was read to its end: the records after %s are gone; ALTER STREAM %s OPTIONS (SET start '...') and ALTER STREAM %s RESUME go on from there",
				 shard->name, shard->position < 0 ? "its beginning" : shard->mark, stream->name, stream->name);
		source->failed = true;
	}
}

void
kda_sources_assign(KdaFeed *feed)
{
	KdaStream  *stream = feed->stream;
	KdaSource  *source = stream->source;

	/* slot 0 says whose they are */
	for (int i = 0; i < source->nshards && kda_worker->slot == 0; i++)
		if (shard_of_source(stream, i) == NULL && !source->shards[i]->gone)
			add_shard(feed, source->shards[i]);
	/* of those that are stored they were found before */
	if (source->ops->marks && stream->nshards > feed->saved_nshards)
		kda_sources_find_parents(stream);
	for (int i = 0; i < source->nshards; i++)
	{
		KdaSourceShard *from = source->shards[i];
		KdaShard   *shard = shard_of_source(stream, i);

		if (shard == NULL || shard->foreign)
			continue;
		if (from->assigned && shard->source_index == i)
		{
			follow_source(stream, shard, from);
			continue;
		}
		if (shard->source_index == i && stream->raw->n > 0)
			continue;			/* what has been fetched comes first */
		if (source->ops->marks)
		{
			if (shard->closed)
			{
				/* read to its end before */
				shard->source_index = i;
				from->assigned = from->closed = true;
				from->next_position = shard->position;
				continue;
			}
			if (kda_shard_waits(stream, shard))
				continue;
		}
		assign_shard(feed, shard, i);
	}
	if (source->ops->marks && source->known)
		see_gone_shards(feed);
}
