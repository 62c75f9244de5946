/*-------------------------------------------------------------------------
 *
 * watermark.c
 *	  Time of a stream: each record's rowtime, each shard's watermark, the
 *	  stream's.
 *
 * In and out: arrays of the batch, shards of the stream.  No catalog, and no
 * clock of its own: "now" is an argument.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "stream/stream.h"

/*
 * A watermark that goes with the wall clock takes steps.  Each one wakes the
 * streams that are made of this one, and their commit must not be the cause of
 * the next step.
 */
#define IDLE_STEP	USECS_PER_SEC

/* What a shard's watermark counts as: kda.advance lifts all of them. */
static inline KdaTime
shard_mark(const KdaStream *stream, const KdaShard *shard)
{
	return Max(shard->watermark, stream->advanced);
}

bool
kda_shard_waits(const KdaStream *stream, const KdaShard *shard)
{
	for (int p = 0; p < KDA_SHARD_PARENTS; p++)
		if (unlikely(shard->parent[p] > 0) && !stream->shards[shard->parent[p] - 1].closed)
			return true;
	return false;
}

void
kda_watermark_apply(KdaStream *stream, KdaBatch *batch, int from, TimestampTz now,
					void (*ahead) (void *arg, int row), void *arg)
{
	int64		delay = stream->options->watermark_us;
	KdaTime		limit = stream->options->max_ahead_us == KDA_NEVER_US ? KDA_END_TIME :
		now + stream->options->max_ahead_us;

	for (int i = from; i < batch->nrows; i++)
	{
		KdaShard   *shard = &stream->shards[batch->shard[i]];
		KdaTime		t = batch->rowtime[i];
		KdaTime		mark;

		if (batch->shard_wm[i] != KDA_NO_TIME)
		{
			/* A pump's row: it keeps the mark of the shard that it came from. */
			if (t == KDA_NO_TIME)
				batch->rowtime[i] = batch->arrival[i];
			continue;
		}
		mark = batch->shard_wm[i] = shard_mark(stream, shard);
		if (t == KDA_NO_TIME)
		{
			/* arrival: never back, never ahead of the clock */
			t = batch->arrival[i] == KDA_NO_TIME ? now : Min(batch->arrival[i], now);
			if (t < shard->max_arrival)
				t = shard->max_arrival;
			else
				shard->max_arrival = t;
			batch->rowtime[i] = t;
		}
		else if (unlikely(t > limit))
		{
			ahead(arg, i);
			batch->rowtime[i] = KDA_NO_TIME;
			continue;
		}
		/* infinite times stand, but move nothing */
		if (!TIMESTAMP_NOT_FINITE(t) && t - delay > shard->watermark)
		{
			shard->watermark = t - delay;
			shard->dirty = true;
		}
		(void) mark;
	}
}

bool
kda_watermark_update(KdaStream *stream)
{
	KdaTime		least = KDA_END_TIME;
	KdaTime		before = stream->watermark;
	bool		held = false;

	for (int s = 0; s < stream->nshards; s++)
	{
		KdaShard   *shard = &stream->shards[s];

		/* what waits for its parents holds nothing; from the commit that closes them on it does */
		if (shard->idle || shard->closed || kda_shard_waits(stream, shard))
			continue;
		if (stream->has_writers && shard->watermark == KDA_NO_TIME)
			continue;			/* only pumps write it */
		if (shard_mark(stream, shard) == KDA_NO_TIME)
			held = true;
		least = Min(least, shard_mark(stream, shard));
	}
	if (stream->has_writers)
	{
		if (stream->derived == KDA_NO_TIME && stream->advanced == KDA_NO_TIME)
			held = true;
		least = Min(least, Max(stream->derived, stream->advanced));
	}
	/* All of them went idle at once: nothing holds time back any more but what they have seen. */
	if (least == KDA_END_TIME && !held)
		for (int s = 0; s < stream->nshards; s++)
			if (shard_mark(stream, &stream->shards[s]) != KDA_NO_TIME)
				least = Min(least, shard_mark(stream, &stream->shards[s]));
	if (!held && least != KDA_END_TIME && least > stream->watermark)
		stream->watermark = least;
	if (stream->advanced > stream->watermark)
		stream->watermark = stream->advanced;
	return stream->watermark != before;
}

TimestampTz
kda_watermark_tick(KdaStream *stream, TimestampTz now, bool *moved)
{
	int64		timeout = stream->options->idle_timeout_us;
	TimestampTz next = KDA_END_TIME;
	bool		all_idle = true;
	bool		any = false;	/* … and there are some */
	TimestampTz quiet = 0;

	*moved = false;
	if (timeout == KDA_NEVER_US)
		return KDA_END_TIME;
	for (int s = 0; s < stream->nshards; s++)
	{
		KdaShard   *shard = &stream->shards[s];

		if (shard->closed || kda_shard_waits(stream, shard))
			continue;
		any = true;
		if (shard->foreign)
		{
			/* its own process says when it is idle */
			all_idle &= shard->idle;
			quiet = Max(quiet, now);
			continue;
		}
		if (shard->quiet_since == 0)
		{
			shard->idle = false;
			all_idle = false;
			continue;
		}
		if (now >= shard->quiet_since + timeout)
		{
			if (!shard->idle)
				*moved = shard->dirty = true;
			shard->idle = true;
		}
		else
		{
			all_idle = false;
			next = Min(next, shard->quiet_since + timeout);
		}
		quiet = Max(quiet, shard->quiet_since + timeout);
	}

	if (stream->slot > 0)
		return next;

	/* Pumps give the time: only what they write moves it. */
	if (!any || !all_idle || stream->has_writers)
	{
		stream->idle_since = 0;
		return next;
	}

	/*
	 * All caught up and quiet: from the moment when the last one became idle
	 * the watermark goes with the wall clock, never beyond it.
	 */
	if (stream->idle_since == 0)
		stream->idle_since = Min(quiet, now);
	else if (now < stream->idle_since + IDLE_STEP)
		return Min(next, stream->idle_since + IDLE_STEP);
	if (stream->watermark != KDA_NO_TIME && stream->watermark < now)
	{
		KdaTime		to = Min(stream->watermark + (now - stream->idle_since), now);

		if (to > stream->watermark)
		{
			stream->watermark = to;
			*moved = true;
		}
		next = Min(next, now + IDLE_STEP);
	}
	else if (stream->watermark == KDA_NO_TIME)
	{
		/* kda_watermark_update() gives it its first one now that nothing holds it: then it goes on */
		for (int s = 0; s < stream->nshards; s++)
			if (shard_mark(stream, &stream->shards[s]) != KDA_NO_TIME)
				next = Min(next, now + IDLE_STEP);
	}
	stream->idle_since = now;
	return next;
}
