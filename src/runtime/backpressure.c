/*-------------------------------------------------------------------------
 *
 * backpressure.c
 *	  A sink that is down fills its outbox; then the streams whose pumps write
 *	  it stand still, and lose nothing: a source keeps its records, and a
 *	  database stream its rows.
 *
 * In a pipeline worker, in its transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "executor/spi.h"
#include "runtime/worker.h"
#include "utils/snapmgr.h"

#define STORE_EVERY	USECS_PER_SEC

/* Half of what it may hold: sessions want to insert, too. */
static bool
is_half_full(KdaFeed *feed)
{
	return kda_segment_bytes(feed->stream->inbox) + kda_segment_bytes(feed->stream->inbox2) > (int64) kda_buffer_size_kb * 512;
}

static bool
is_blocked(KdaFeed *feed)
{
	ListCell   *lc;

	if (!kda_feed_runs(feed))
		return false;
	if (feed->relay && feed->relay->blocked && is_half_full(feed->relay))
		return true;
	foreach(lc, feed->stream->queries)
	{
		KdaQuery   *query = lfirst(lc);
		KdaFeed    *target;

		if (!kda_query_runs(query))
			continue;
		if (OidIsValid(query->outbox[0]) &&
			kda_segment_bytes(query->outbox[0]) + kda_segment_bytes(query->outbox[1]) > (int64) kda_outbox_size_kb * 1024)
			return true;
		/* who writes a stream that stands still, once that has enough */
		target = query->target_is_stream && !OidIsValid(query->outbox[0]) ? kda_feed_by_relid(query->target_rel) : NULL;
		if (target && target != feed && target->blocked && is_half_full(target))
			return true;
	}
	return false;
}

void
kda_backpressure_look(KdaWorker *worker, TimestampTz now)
{
	KdaSlot    *slot = &kda_shared->slots[kda_my_slot];
	bool		any = false;

	PushActiveSnapshot(GetLatestSnapshot());
	/* those that are written come behind those that write them */
	for (int i = list_length(worker->feeds) - 1; i >= 0; i--)
	{
		KdaFeed    *feed = list_nth(worker->feeds, i);

		feed->blocked = is_blocked(feed);
		if (feed->blocked_at != 0)
		{
			feed->blocked_us += now - feed->blocked_at;
			if (!any)
				slot->backpressured_ms += (now - feed->blocked_at) / 1000.0;
			any = true;
		}
		feed->blocked_at = feed->blocked ? now : 0;
		if (feed->blocked_us > 0 && (feed->blocked_us >= STORE_EVERY || !feed->blocked))
		{
			SPI_connect();
			SPI_execute(psprintf("UPDATE kda_storage.stream_progress SET backpressured_ms = backpressured_ms + " INT64_FORMAT " WHERE stream_id = %d",
								 feed->blocked_us / 1000, feed->stream->id), false, 0);
			SPI_finish();
			feed->blocked_us = 0;
		}
	}
	if (any)
		kda_slots_wake_deliver();
	PopActiveSnapshot();
}
