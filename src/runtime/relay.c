/*-------------------------------------------------------------------------
 *
 * relay.c
 *	  Queries that one process has to run over a stream that several read:
 *	  sessions, joins, OVER, whatever depends on the order of arrival, or on
 *	  the records of all shards.
 *
 * The slots read and decode their shards, and write the records, each with its
 * time, its shard, its position and the mark that its shard had before it, into
 * the inbox of the stream, in the transaction that also saves their positions.
 * Slot 0 holds a second KdaStream for the same relation, the relay, which is
 * read from that inbox as any database stream is, and runs these queries over
 * it.  They are not aware of it: their per-batch part scans the stream, and
 * the batch of the query that runs is the relay's.
 *
 * Order.  A shard's records are in the inbox as they were in the shard: within
 * a transaction by number, and a slot's transactions (also when the shard
 * changes hands: slots.c) come one after the other.
 *
 * Time.  Whether a record is late is judged by the mark that it brings, and by
 * what has closed here.  The relay's watermark follows that of the stream as
 * slot 0 has committed it in an earlier transaction: found over what all slots
 * had committed by then, so what is not late for its shard and earlier than it
 * was written by a transaction older than the one that hands it on, and is
 * read first.  A slot that lags or is gone holds it back, an idle shard does
 * not.
 *
 * kda_storage: the inbox is in the stream's row of kda_storage.stream, how far
 * the relay is in its row of stream_progress (derived, derived_sent, snapshot1
 * ...), which slot 0 saves with the stream.  While relayed is set there, these
 * queries run over the relay: from the moment when the shards are divided
 * among several slots until slot 0 alone reads them again and has found the
 * inbox empty.  Until then it leaves new records where they are.
 *
 * In pipeline workers only.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "access/transam.h"
#include "executor/spi.h"
#include "runtime/fault.h"
#include "runtime/worker.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define ROW_BYTES	100			/* about, of a row beside its values by reference */

KdaFeed *
kda_feed_of(const KdaStream *stream)
{
	ListCell   *lc;

	foreach(lc, kda_worker->feeds)
		if (((KdaFeed *) lfirst(lc))->stream == stream)
			return lfirst(lc);
	return NULL;
}

/*---- loading */

KdaFeed *
kda_relay_make(KdaFeed *source)
{
	KdaStream  *from = source->stream;
	MemoryContext context = AllocSetContextCreate(kda_worker->context, "kda relay", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	KdaFeed    *feed = palloc0(sizeof(KdaFeed));
	KdaStream  *stream = palloc0(sizeof(KdaStream));

	stream->context = context;
	stream->id = from->id;
	stream->relid = from->relid;
	stream->name = pstrdup(from->name);
	stream->owner = from->owner;
	stream->desc = CreateTupleDescCopyConstr(from->desc);
	stream->options = kda_stream_options_get(from->relid);
	/* it is read from the database, where a record's time stands beside it; nobody looks at what has been read */
	stream->options->server_type = NULL;
	stream->options->rowtime_attno = 0;
	stream->options->retention_us = 0;
	stream->options->parallelism = 1;
	stream->relay = true;
	feed->stream = stream;
	feed->relay_of = source;
	feed->nslots = 1;
	feed->closed = KDA_NO_TIME;
	feed->accepted = feed->closing = KDA_NO_TIME;
	feed->tick_at = KDA_END_TIME;
	MemoryContextSwitchTo(old);
	kda_load_progress(feed);
	/* what closes by it has been told */
	stream->watermark = stream->derived;
	stream->advanced = KDA_NO_TIME;
	feed->next_position = feed->position;
	kda_feed_remember(feed);
	return feed;
}

void
kda_relay_follow(KdaFeed *relay)
{
	KdaFeed    *source = relay->relay_of;
	KdaStream  *stream = relay->stream;

	relay->begun = source->begun;
	relay->declared = source->declared;
	stream->inbox = source->stream->inbox;
	stream->inbox2 = source->stream->inbox2;
	stream->paused = source->stream->paused;
	stream->failure = source->stream->failure ? MemoryContextStrdup(stream->context, source->stream->failure) : NULL;
	stream->queries = NIL;
	stream->has_writers = true;
	relay->writers = NIL;
	relay->level = 0;
	kda_feed_remember_catalog(relay);
}

/*---- slots: writing */

/*
 * Records that were handed on and are still to be read, in bytes: those up to
 * the one transaction, and those after it.  Of this process, per stream; what
 * another one has left is not known.
 */
static bool
is_far_ahead(KdaFeed *source)
{
	const char *read = kda_worker->slot == 0 && source->relay ? source->relay->position.snapshot1 : source->relay_read;

	if (source->relay_mark > 0 && read && kda_inbox_xid_visible(read, source->relay_mark))
	{
		source->relay_before = source->relay_after;
		source->relay_mark = source->relay_last;
		source->relay_after = 0;
		if (kda_inbox_xid_visible(read, source->relay_mark))
			source->relay_before = source->relay_mark = 0;
	}
	return source->relay_before + source->relay_after > (int64) kda_buffer_size_kb * 1024 / source->nslots;
}

bool
kda_relay_holds(KdaFeed *source)
{
	if (source->stream->options->server_type == NULL)
		return false;
	/* what has been handed on comes first */
	if (source->nslots == 1 && source->relayed && source->relay)
		return true;
	return source->relays && is_far_ahead(source);
}

void
kda_relay_records(KdaFeed *source)
{
	KdaStream  *stream = source->stream;
	KdaBatch   *batch = stream->batch;
	KdaInboxWriter *writer = NULL;

	for (int i = 0; i < batch->nrows; i++)
	{
		if (batch->rowtime[i] == KDA_NO_TIME)
			continue;			/* refused as ahead */
		if (writer == NULL)
			writer = kda_inbox_begin(stream->relid);
		kda_inbox_put_record(writer, stream, i, source->relay_columns);
	}
	if (writer == NULL)
		return;
	kda_inbox_end(writer);
	source->relay_xid = U64FromFullTransactionId(GetTopFullTransactionId());
	KDA_FAULT("relayed");
}

void
kda_relay_at_commit(KdaFeed *source)
{
	int64		bytes;

	if (source->relay_xid == 0)
		return;
	bytes = source->stream->batch->bytes + (int64) source->stream->batch->nrows * ROW_BYTES;
	source->relay_last = source->relay_xid;
	if (source->relay_mark == 0)
	{
		source->relay_mark = source->relay_xid;
		source->relay_before = bytes;
	}
	else
		source->relay_after += bytes;
	source->relay_xid = 0;
	if (source->relay)
		source->relay->more = true;
}

/*---- slot 0: reading */

void
kda_relay_see_shards(KdaFeed *relay)
{
	KdaStream  *from = relay->relay_of->stream;
	KdaStream  *stream = relay->stream;

	if (stream->nshards < from->nshards)
		stream->shards = stream->shards ? repalloc(stream->shards, sizeof(KdaShard) * from->nshards) :
			MemoryContextAlloc(stream->context, sizeof(KdaShard) * from->nshards);
	for (int s = 0; s < from->nshards; s++)
	{
		KdaShard   *shard = &stream->shards[s];

		if (s == stream->nshards)
		{
			memset(shard, 0, sizeof(*shard));
			shard->name = MemoryContextStrdup(stream->context, from->shards[s].name);
			shard->source_index = -1;
			shard->position = shard->last_position = -1;
			shard->watermark = shard->max_arrival = shard->last_arrival = KDA_NO_TIME;
			stream->nshards++;
		}
		shard->closed = from->shards[s].closed;
		shard->idle = from->shards[s].idle;
		shard->quiet_since = from->shards[s].quiet_since;
	}
}

KdaTime
kda_relay_watermark(const KdaFeed *relay)
{
	const KdaFeed *source = relay->relay_of;

	/* after a RESET it begins anew with the next commit */
	return source->stream->watermark < source->saved_watermark ? KDA_NO_TIME : source->saved_watermark;
}

void
kda_relay_count(KdaFeed *relay)
{
	KdaStream  *from = relay->relay_of->stream;
	KdaStream  *stream = relay->stream;

	from->d_late += stream->d_late;
	from->d_failed += stream->d_failed;
	stream->d_records = stream->d_bytes = stream->d_late = stream->d_failed = stream->d_skipped = 0;
	relay->relay_of->touched |= relay->touched;
}

/*---- switching it on and off */

void
kda_relay_begin(KdaFeed *source)
{
	SPI_connect();
	SPI_execute(psprintf("UPDATE kda_storage.stream_progress SET relayed = true, snapshot1 = %s, snapshot2 = NULL, last_xid = NULL, "
						 "last_seq = NULL, derived = coalesce(coming, watermark), derived_sent = coalesce(coming, watermark) WHERE stream_id = %d",
						 quote_literal_cstr(kda_inbox_snapshot()), source->stream->id), false, 0);
	SPI_finish();
}

bool
kda_relay_is_drained(const KdaFeed *source)
{
	return source->relayed && source->nslots == 1 && source->stream->options->parallelism == 1 &&
		(source->relay == NULL || !kda_feed_has_queries(source->relay) || source->relay->drained);
}

void
kda_relay_end(KdaFeed *source)
{
	SPI_connect();
	SPI_execute(psprintf("UPDATE kda_storage.stream_progress SET relayed = false WHERE stream_id = %d", source->stream->id), false, 0);
	SPI_finish();
	KDA_FAULT("relay_ended");
}
