/*-------------------------------------------------------------------------
 *
 * connector.h
 *	  What the rest of the house knows of an outside system: an opaque source
 *	  and one struct of callbacks.
 *
 * A source runs in a pipeline worker.  No callback blocks, raises an error
 * (ereport) for something that the network did, or is called inside a
 * transaction, unless its comment says so.  Library threads never call into
 * PostgreSQL: they write a byte to wake_fd.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_CONNECTOR_H
#define KDA_CONNECTOR_H

#include "kda_stream.h"

#include "foreign/foreign.h"
#include "nodes/pg_list.h"

/* One record as it came.  Bytes belong to the source until release(). */
typedef struct KdaRawRecord
{
	const char *data;			/* NULL: tombstone */
	Size		len;
	const char *key;			/* NULL: no key */
	Size		key_len;
	void	   *headers;		/* opaque; ops->headers_json() reads it */
	int32		shard;			/* index into the source's shards */
	int32		mark_sub;		/* number within what mark names; -1: that is the record */
	int64		position;		/* offset within the shard; of sources with marks, the record's number since reading began */
	const char *mark;			/* the source's own name of the place; NULL: position is it */
	KdaTime		arrival;		/* the broker's stamp; KDA_NO_TIME if it has none */
} KdaRawRecord;

typedef struct KdaRawBatch
{
	KdaRawRecord *records;
	int			n;
	int			capacity;
	Size		bytes;			/* data + key of all records */
	MemoryContext context;		/* owns records[] */
	void	  **handles;		/* [n], the source's own (library messages) */
} KdaRawBatch;

typedef enum KdaStartKind
{
	KDA_START_EARLIEST,
	KDA_START_LATEST,
	KDA_START_TIME,
	KDA_START_POSITION			/* go on: next record to read */
} KdaStartKind;

#define KDA_MARK_SIZE		160
#define KDA_SHARD_NAME		64
#define KDA_SHARD_PARENTS	2

/* Where reading of a shard begins. */
typedef struct KdaShardStart
{
	KdaStartKind kind;
	KdaTime		time;			/* KDA_START_TIME; KDA_START_LATEST: when that was said, KDA_NO_TIME: not known */
	int64		position;		/* KDA_START_POSITION: the next offset */
	/* KDA_START_POSITION, of sources with marks: the last applied record, or where reading began; "" of others */
	char		mark[KDA_MARK_SIZE];
	KdaTime		complete_to;	/* what had arrived by then has been read; KDA_NO_TIME: not known */
	char		identity[40];	/* of what it was read from; "": not known */
	/* of the last applied record, to notice a re-created topic; last_position < 0: nothing to compare */
	int64		last_position;
	KdaTime		last_arrival;
	uint32		last_crc;		/* CRC-32C (pg_crc32c) of its value bytes */
} KdaShardStart;

/* What a source says of one shard; all kept up to date by service(). */
typedef struct KdaSourceShard
{
	char		name[KDA_SHARD_NAME];	/* Kafka: the partition number */
	char		parents[KDA_SHARD_PARENTS][KDA_SHARD_NAME]; /* shards whose records come before its own; "": none */
	bool		assigned;		/* assign() was called; false again when it has to be called anew */
	bool		closed;			/* will never give a record again; its children are in the list */
	bool		gone;			/* is not in the list any more */
	bool		at_end;			/* since its last record the broker has confirmed that there is nothing more */
	int64		next_position;	/* next offset to be handed out; -1 not known yet */
	int64		first_position; /* low end at the broker, -1 unknown */
	int64		end_position;	/* high end at the broker as last heard of, -1 unknown */
	/* of sources with marks */
	char		mark[KDA_MARK_SIZE];	/* of what was handed out last, or where reading begins */
	KdaTime		complete_to;	/* KdaShardStart.complete_to of what has been handed out */
	char		identity[40];
	int64		millis_behind;	/* as last heard of; -1 unknown */
	bool		lost;			/* its position is gone (retention, truncated, topic re-created): the stream must stop */
	char		error[512];		/* with lost: what is missing; else last transient trouble or "" */
} KdaSourceShard;

typedef struct KdaSourceConfig
{
	const char *stream_name;	/* for messages */
	const char *topic;			/* option topic (or stream), default the relation's name */
	List	   *server_options; /* DefElem: library properties by their own names */
	List	   *user_options;	/* DefElem: of the user mapping; secrets; unless ops->reads_mapping */
	Oid			serverid;
	Oid			owner;			/* the stream's: whose mapping it is */
	Size		fetch_memory;	/* bytes the source may hold in its queues */
	Size		max_record_bytes;	/* records up to this size must be able to come */
	int			wake_fd;		/* write end of a non-blocking pipe, a byte wakes the worker */
	bool		ring_wanted;
} KdaSourceConfig;

typedef struct KdaSource
{
	const struct KdaSourceOps *ops;
	uint64		serial;			/* its user's: tells it from one that was open before */
	int			nshards;
	KdaSourceShard **shards;	/* appended to by service() when new ones appear; never shrinks */
	bool		known;			/* the list of shards has been learnt at least once */
	bool		reopen;			/* works, but wants to be closed and opened again */
	TimestampTz service_at;		/* service() is to be called then, even if nobody writes to wake_fd; 0: no */
	bool		failed;			/* cannot go on without a change (topic gone, bad property, wrong password counts as retrying) */
	char		error[512];		/* last trouble, "" if none; never a secret */
} KdaSource;

typedef struct KdaSourceOps
{
	const char *type;			/* of CREATE SERVER … TYPE */
	bool		marks;			/* its records have marks, its shards may have parents and go */
	bool		reads_mapping;	/* it looks into the user mapping by itself: nobody else does */

	/*
	 * Creates threads but does not wait for the network.  ereport(ERROR) on a
	 * wrong property.  In a transaction; what it pallocs is in
	 * CurrentMemoryContext, which lives until close().
	 */
	KdaSource  *(*open) (const KdaSourceConfig *config);

	/* In a transaction: would it be opened with something else now?  NULL: see the options. */
	bool		(*has_changed) (KdaSource *source);

	/*
	 * Frees everything; all records must have been released.  Waits at most
	 * deadline_ms: what then still waits for the network cleans up by itself,
	 * or goes with the process.
	 */
	void		(*close) (KdaSource *source, int deadline_ms);

	/* Housekeeping: takes events, learns new shards, refreshes metadata in time, updates shards[].  Cheap; called in each round. */
	void		(*service) (KdaSource *source);

	/* Begins reading of shards[shard] (again). */
	void		(*assign) (KdaSource *source, int shard, const KdaShardStart *start);

	/*
	 * Appends records that are already in local queues, at most max_records
	 * and (but for the first one) max_bytes.  Offsets of a shard increase and
	 * the first one is >= the one asked.  Returns the number appended.
	 */
	int			(*fetch) (KdaSource *source, KdaRawBatch *into, int max_records, Size max_bytes);

	/* Gives the bytes of all records back to the source and empties the batch. */
	void		(*release) (KdaSource *source, KdaRawBatch *batch);

	/*
	 * Asks for the end positions of all shards as they are now or later (for
	 * kda.wait): begin starts it and gives a ticket, poll says true when ends[]
	 * (by shard index, nends entries) is filled.
	 */
	uint64		(*ends_begin) (KdaSource *source);
	bool		(*ends_poll) (KdaSource *source, uint64 ticket, int64 *ends, int nends);

	/* Headers as a JSON object, NUL-terminated, palloc'd; NULL if none.  May run in a transaction. */
	char	   *(*headers_json) (const KdaRawRecord *record);
} KdaSourceOps;

/* From _PG_init. */
extern void kda_connector_init(void);

/* Where the record stands, as users see it: its mark, else its offset.  The buffer, or the mark itself. */
#define KDA_PLACE_SIZE	(KDA_MARK_SIZE + 12)
extern const char *kda_raw_place(const KdaRawRecord *record, char *buffer);

/* NULL if type is none of ours that can be read. */
extern const KdaSourceOps *kda_source_ops(const char *type);

extern KdaRawBatch *kda_raw_batch_create(MemoryContext parent);
extern KdaRawRecord *kda_raw_batch_add(KdaRawBatch *batch, void *handle);

/*
 * Validate options of a server and of a user mapping once the statement is done:
 * called by catalog/options.c.  ereport with name, and a hint with what is
 * allowed.  given: those of the statement (without a value where one is dropped);
 * all: of the mapping as it is now.
 */
extern void kda_connector_check_server(const ForeignServer *server);
extern void kda_connector_check_user_mapping(const ForeignServer *server, List *given, List *all);

/* Can streams of such a server be read or written, and one that is called topic there?  ereports if not. */
extern void kda_connector_check_stream(const char *type, const char *stream_name, const char *topic, int parallelism);

/* Is the position of its records text? */
extern bool kda_connector_has_marks(const char *type);

/* How a stream is to be written. */
typedef struct KdaWriting
{
	bool		exactly_once;	/* option delivery asks for it */
	int64		batch_records;	/* 0: not given */
	int64		batch_bytes;
	bool		headers;
	bool		compression;
} KdaWriting;

/* Can its records be delivered so?  type NULL: in the database.  ereports if not. */
extern void kda_connector_check_writing(const char *type, const char *stream_name, const KdaWriting *how);

/* Does the connector read this server's user mappings by itself, past the caches?  Then nobody else does. */
extern bool kda_connector_keeps_mapping(const ForeignServer *server);

/* Is there a registry of that name, which the user may use?  ereports if not. */
extern void kda_connector_check_registry(const char *name, Oid userid);

#endif							/* KDA_CONNECTOR_H */
