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
	int			slot;			/* of the worker: the process that reads it */
	bool		foreign;		/* that is another one: what follows is as of its last commit */
	bool		from_first;		/* begins with its first record, whatever option start says */
	bool		stored;			/* has a row in kda_storage.shard */
	bool		dirty;			/* changed since the last commit */
	int64		position;		/* next offset; -1: nothing read yet */
	int64		begun_at;		/* what position was when the source had found it */
	/* of sources with marks: see KdaShardStart */
	char		mark[KDA_MARK_SIZE];
	char		begun_mark[40];	/* with begun_at */
	KdaTime		complete_to;
	char		identity[40];
	char		parents[KDA_SHARD_PARENTS][KDA_SHARD_NAME]; /* as in KdaSourceShard */
	int			parent[KDA_SHARD_PARENTS]; /* their indexes here + 1; 0: none, or not known any more */
	int64		millis_behind;
	bool		gone;			/* to be forgotten */
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
	Oid			inbox,			/* segments of a database stream or relay, the one that is written first */
				inbox2;
	Oid			ring,			/* segments of a source stream's buffer; InvalidOid: retention '0' */
				ring2;
	TimestampTz segment_since;

	KdaSource  *source;			/* NULL: database stream, or not reading */
	KdaDecoder *decoder;
	KdaBatch   *batch;
	KdaRawBatch *raw;

	int			nshards;
	KdaShard   *shards;
	KdaTime		watermark;		/* smallest over live shards; never goes back */
	KdaTime		advanced;		/* by kda.advance: shards and stream are at least this */
	KdaTime		derived;		/* from the pumps that write it: their rows do not fall below */
	bool		has_writers;
	char	  **origins;		/* of parts of queries: "stream number/shard" that rows have come from */
	int			norigins;
	bool		relay;			/* what several slots have read of a source stream, for slot 0: runtime/relay.c */
	TimestampTz idle_since;		/* all shards are idle since; 0: no */
	TransactionId retired_by;	/* transaction after which nobody needs the other segment's rows */
	int			slot;			/* of the worker that has it: 0 alone moves the watermark */
	List	   *queries;		/* of KdaQuery, in the order of their creation */
	Bitmapset  *needed;			/* attnums that some query reads */
	/* counters of this transaction, added to kda_storage.stream_progress at commit */
	int64		d_records, d_bytes, d_late, d_failed, d_skipped;
	MemoryContext context;
} KdaStream;

/*---- watermark.c: pure functions over arrays, no catalog, no clock of its own */

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

/* Has it still to wait until the shards that it has come from are closed? */
extern bool kda_shard_waits(const KdaStream *stream, const KdaShard *shard);

/* Smallest over live shards (begun, neither idle nor closed); never back.  Returns true if it moved. */
extern bool kda_watermark_update(KdaStream *stream);

/*
 * Idle and wall-clock moves: called
 * with the time now; sets shards idle whose end was confirmed for
 * idle_timeout, and moves the stream's watermark on by the time that passes
 * from then on, never beyond now.  Returns the next time at which something
 * would change (KDA_END_TIME: nothing), and *moved.
 */
extern TimestampTz kda_watermark_tick(KdaStream *stream, TimestampTz now, bool *moved);

/*---- ring.c: raw records in compressed blocks, for looking at */

extern void kda_ring_append(KdaStream *stream, const KdaRawBatch *raw, char *const *shard_names);

/*---- storage.c: storage tables, in two segments that take turns */

/* Creates storage and the row of kda_storage.stream if missing (CREATE FOREIGN TABLE by hand, first use); returns the id. */
extern int32 kda_stream_ensure_storage(Oid relid);
/* Of a source stream: makes the inbox by which its slots hand records to slot 0 (runtime/relay.c), if there is none. */
extern void kda_stream_ensure_relay(Oid relid);
/* After ALTER FOREIGN TABLE: the segments follow the columns and options. */
extern void kda_stream_sync_storage(Oid relid);
/*
 * Lets the segments change places and empties the old one when nobody needs
 * its rows any more; never waits for a lock.  position: how far a database
 * stream has been read in this transaction; NULL: nobody reads it.  Returns
 * whether the buffer is so full that this should be called again soon.
 */
struct KdaInboxPosition;
extern bool kda_stream_rotate(KdaStream *stream, TimestampTz now, const struct KdaInboxPosition *position);
/* Size of a segment on disk, with what is stored out of line. */
extern int64 kda_segment_bytes(Oid segment);

/*---- fdw.c: see fdw.h */

/* A NOTICE when a session looks at a source stream that no query reads. */
extern void kda_note_unread_stream(Oid relid);

/* The batch of the query that runs now; NULL outside.  Set by query/run.c. */
extern KdaBatch *(*kda_running_batch) (void);

/*---- functions.c */

/* Takes what kda.advance has left for a source stream; KDA_NO_TIME: nothing. */
extern KdaTime kda_take_advances(KdaStream *stream);

#endif							/* KDA_STREAM_STREAM_H */
