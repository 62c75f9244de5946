/*-------------------------------------------------------------------------
 *
 * stream.h
 *	  A stream as a worker holds it, and the stages that work on one stream:
 *	  watermark, ring, inbox.  Its foreign scan is in fdw.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_STREAM_STREAM_H
#define KDA_STREAM_STREAM_H

#include "kda_stream.h"
#include "catalog/options.h"
#include "connector/connector.h"
#include "format/format.h"
#include "stream/batch.h"
#include "utils/rel.h"

/* A shard, as the worker holds it; saved in kda_storage.shard at each commit. */
typedef struct KdaShard
{
	char	   *name;
	int			source_index;	/* in source->shards, -1: not (yet) seen there */
	bool		stored;			/* has a row in kda_storage.shard */
	bool		dirty;			/* changed since the last commit */
	int64		position;		/* next offset; -1: nothing read yet */
	int64		last_position;
	KdaTime		last_arrival;
	uint32		last_crc;
	KdaTime		max_arrival;	/* arrival time is raised to this */
	KdaTime		watermark;		/* KDA_NO_TIME: nothing has come yet */
	bool		closed;
	bool		idle;
	TimestampTz quiet_since;	/* wall clock: confirmed end without records since; 0: not quiet */
} KdaShard;

typedef struct KdaStream
{
	int32		id;
	Oid			relid;
	char	   *name;			/* qualified, for messages */
	Oid			owner;
	KdaStreamOptions *options;
	TupleDesc	desc;			/* copy */
	bool		paused;
	char	   *failure;		/* NULL: runs */
	Oid			inbox;			/* InvalidOid: source stream */
	Oid			ring;

	KdaSource  *source;			/* NULL: database stream, or not reading */
	KdaDecoder *decoder;
	KdaBatch   *batch;
	KdaRawBatch *raw;

	int			nshards;
	KdaShard   *shards;
	KdaTime		watermark;		/* smallest over live shards; never goes back */
	KdaTime		advanced;		/* by kda.advance: shards and stream are at least this */
	List	   *queries;		/* of KdaQuery, in the order of their creation */
	Bitmapset  *needed;			/* attnums that some query reads */
	/* counters of this transaction, added to kda_storage.stream_progress at commit */
	int64		d_records, d_bytes, d_late, d_failed, d_skipped;
	MemoryContext context;
} KdaStream;

/*---- watermark.c: pure functions over arrays, no catalog, no clock of its own */

typedef struct KdaWatermarkResult
{
	int64		ahead;			/* rows refused because further ahead than max_ahead */
} KdaWatermarkResult;

/*
 * For rows [from, batch->nrows): fills rowtime where it is KDA_NO_TIME from
 * arrival made monotone (raised to the shard's greatest, lowered to now),
 * shard_wm with the shard's watermark before the row, and moves the shards'
 * watermarks on record by record.  A row further ahead than max_ahead moves
 * nothing: ahead(arg, row) is called and the row is to be left out (its
 * rowtime becomes KDA_NO_TIME).  derived: rows carry their own shard_wm (rows
 * that a pump wrote) and do not move watermarks by their rowtime.
 */
extern void kda_watermark_apply(KdaStream *stream, KdaBatch *batch, int from, TimestampTz now,
								void (*ahead) (void *arg, int row), void *arg);

/* Smallest over live shards (neither idle nor closed); never back.  Returns true if it moved. */
extern bool kda_watermark_update(KdaStream *stream);

/*
 * Idle and wall-clock moves (interface.md section 9 "wall clock"): called
 * with the time now; sets shards idle whose end was confirmed for
 * idle_timeout, and moves the stream's watermark on by the time that passes
 * from then on, never beyond now.  Returns the next time at which something
 * would change (KDA_END_TIME: nothing), and *moved.
 */
extern TimestampTz kda_watermark_tick(KdaStream *stream, TimestampTz now, bool *moved);

/*---- ring.c: UNLOGGED table of compressed blocks of raw records */

extern Oid	kda_ring_create(int32 stream_id, Oid owner);
extern void kda_ring_append(KdaStream *stream, const KdaRawBatch *raw, TimestampTz now);
/* Forgets blocks older than retention or beyond kda_stream.buffer_size; never waits for a lock. */
extern void kda_ring_trim(KdaStream *stream, TimestampTz now);

/*---- inbox.c: table of typed rows of a database stream */

/* Columns: those of the stream, then kda_xid xid8, kda_seq bigint, kda_arrival timestamptz, kda_shard_wm timestamptz, kda_derived bool, kda_control text */
extern Oid	kda_inbox_create(int32 stream_id, Oid stream_relid, Oid owner, bool durable);

typedef struct KdaInboxWriter KdaInboxWriter;

/* Appends rows of the current transaction; any process. */
extern KdaInboxWriter *kda_inbox_begin(Oid stream_relid);
extern void kda_inbox_put(KdaInboxWriter *writer, TupleTableSlot *slot,
						  KdaTime shard_wm, bool derived);
/* In a worker: the writing query's watermark for the stream, ordered after the rows put so far (a control row). */
extern void kda_inbox_put_watermark(KdaInboxWriter *writer, KdaTime watermark);
extern void kda_inbox_end(KdaInboxWriter *writer);

/* Position of a reader: see architecture 10.4 in docs/development. */
typedef struct KdaInboxPosition
{
	char	   *snapshot1;		/* pg_snapshot text; NULL: from the first row */
	char	   *snapshot2;
	uint64		last_xid;		/* within snapshot2's rows: read up to here */
	int64		last_seq;
} KdaInboxPosition;

/*
 * Reads the next piece into the batch (at most max_rows rows, max_bytes) and
 * moves *position on.  Returns the number of rows; *more when further rows
 * are already waiting.  Control rows move stream->advanced and the derived
 * watermark instead of becoming rows.
 */
extern int	kda_inbox_read(KdaStream *stream, KdaInboxPosition *position, KdaBatch *batch,
						   int max_rows, Size max_bytes, bool *more, MemoryContext context);
extern void kda_inbox_trim(KdaStream *stream, const KdaInboxPosition *position, TimestampTz now);

/*---- fdw.c */

/*
 * In a worker: the stream whose batch a scan of that relation gives.  NULL
 * when the relation is none of this transaction's (then the scan is empty).
 */
extern KdaStream *(*kda_current_stream) (Oid relid);

/* Creates storage and the row of kda_storage.stream if missing (CREATE FOREIGN TABLE by hand, first use); returns the id. */
extern int32 kda_stream_ensure_storage(Oid relid);

#endif							/* KDA_STREAM_STREAM_H */
