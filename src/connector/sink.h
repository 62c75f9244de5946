/*-------------------------------------------------------------------------
 *
 * sink.h
 *	  What the rest of the house knows of an outside system that is written to:
 *	  an opaque sink and one struct of callbacks.
 *
 * A sink runs in a deliver worker.  It gets sealed batches: records whose
 * transactions are committed and flushed, numbered for ever, in order.  After a
 * crash the same numbers come again with the same records.  No callback blocks,
 * raises an error for something that the network did, or is called inside a
 * transaction, unless its comment says so.  Library threads never call into
 * PostgreSQL: they write a byte to wake_fd.
 *
 * A sink never gives up: trouble of the network or of the other side is tried
 * again with pauses (retry.h) until it works or the sink is closed, and is told
 * in error[] and retries.  A record that the other side refuses for good is
 * refused alone; the others of its batch are delivered.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_SINK_H
#define KDA_SINK_H

#include "kda_stream.h"

#include "access/xlogdefs.h"
#include "nodes/pg_list.h"

/* How far a sink has come, as it is kept at the sink itself where that can be. */
typedef struct KdaSinkMark
{
	TimeLineID	timeline;		/* of this cluster when the batch was sealed */
	XLogRecPtr	lsn;			/* end of the commit that sealed it */
	int64		number;			/* of the last record delivered; 0: none yet */
} KdaSinkMark;

/* One record to be sent.  Bytes are the caller's until its batch is done. */
typedef struct KdaOutRecord
{
	const char *key;			/* NULL: no key */
	int			key_len;
	const char *value;			/* NULL: tombstone */
	int			len;
	const char *headers;		/* flat JSON object, NUL-terminated; NULL: none */
	const char *hash_key;		/* Kinesis: explicit hash key, decimal; NULL: none */
	KdaTime		time;			/* row time */

	/* the sink's, before done: why it is refused for good, NULL: it was delivered; lives until the batch is released */
	char	   *refused;
} KdaOutRecord;

typedef struct KdaSealedBatch
{
	int64		first;			/* number of records[0]; they are consecutive */
	int			n;
	KdaOutRecord *records;
	KdaSinkMark mark;			/* with the number of the last record */

	/* the sink's */
	bool		done;			/* every record is delivered or refused */
	void	   *state;
} KdaSealedBatch;

typedef struct KdaSinkConfig
{
	const char *output_name;	/* for messages */
	const char *identity;		/* the same at every start, another for every output of every cluster and database: names of
								 * transactions and marks are made of it */
	const char *topic;			/* option topic or stream, default the relation's name */
	Oid			serverid;
	Oid			owner;			/* whose user mapping is used */
	List	   *server_options; /* DefElem */
	List	   *user_options;	/* DefElem: of the user mapping; secrets.  NIL if ops->reads_mapping */
	List	   *options;		/* DefElem: of the output's foreign table, validated */
	bool		exactly_once;	/* option delivery; false also where the sink cannot do it */
	bool		ordered;
	int			batch_records;	/* at most so many in one call of the sink's; 0: as many as are good for it */
	Size		batch_bytes;
	const char *sequence_key;	/* Kinesis: JSON key for the record's number; "": none */
	const char *compression;	/* NULL: none */
	int			retry_max_ms;	/* kda_stream.retry_max_interval */
	KdaSinkMark delivered;		/* as this database has stored it */
	int			wake_fd;		/* write end of a non-blocking pipe, a byte wakes the worker */
} KdaSinkConfig;

typedef struct KdaSink
{
	const struct KdaSinkOps *ops;	/* set by whoever has opened it */
	bool		ready;			/* knows what it has delivered (found_mark) and can take a batch now */
	bool		has_mark;		/* the other side keeps a mark, and has one */
	KdaSinkMark found_mark;		/* … valid when ready the first time.  Whether it is ours is the deliver worker's to say */
	bool		marks_missing;	/* it should have one (delivered.number > 0) but it has expired or its topic was made anew */
	int64		retries;		/* attempts that have failed, since it was opened */
	bool		failed;			/* cannot go on without a change by people (topic missing and may not be made, fenced, not authorized) */
	bool		reopen;			/* works no more, but a new one would */
	char		error[512];		/* last trouble, "" if none; never a secret */
} KdaSink;

typedef struct KdaSinkOps
{
	const char *type;			/* of CREATE SERVER ... TYPE */
	bool		exactly_once;	/* can it be? */
	int			batch_records;	/* what is good for it: size of a sealed batch */
	Size		batch_bytes;
	int			max_batches;	/* it may be given so many before the first is done */
	bool		reads_mapping;	/* it looks into the user mapping by itself: nobody else does */

	/*
	 * In a transaction, for what it needs of the catalog; begins to connect but
	 * does not wait.  Memory from CurrentMemoryContext, which lasts as long as
	 * the sink.  ereport(ERROR) on a wrong option.
	 */
	KdaSink    *(*open) (const KdaSinkConfig *config);

	/* In a transaction: would it be opened with another user mapping now?  NULL: see the options. */
	bool		(*has_changed) (KdaSink *sink);

	/* Frees everything; batches under way may or may not be delivered.  Waits at most deadline_ms. */
	void		(*close) (KdaSink *sink, int deadline_ms);

	/* Goes on with all that is under way; sets ready, and done of batches, which become so in order. */
	void		(*service) (KdaSink *sink);

	/* Takes a batch; only when ready. */
	void		(*send) (KdaSink *sink, KdaSealedBatch *batch);

	/* Frees what it holds of a batch that is done. */
	void		(*release) (KdaSink *sink, KdaSealedBatch *batch);
} KdaSinkOps;

/* NULL if type is none of ours that can be written to. */
extern const KdaSinkOps *kda_sink_ops(const char *type);

#endif							/* KDA_SINK_H */
