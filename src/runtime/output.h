/*-------------------------------------------------------------------------
 *
 * output.h
 *	  One output as the deliver worker holds it.  Private to runtime/.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_OUTPUT_H
#define KDA_OUTPUT_H

#include "kda_stream.h"
#include "catalog/options.h"
#include "catalog/rows.h"
#include "connector/sink.h"
#include "nodes/pg_list.h"
#include "stream/inbox.h"

/* A piece of the outbox that has got its numbers; a row of kda_storage.seal. */
typedef struct KdaSeal
{
	int64		first,
				last;
	TimeLineID	timeline;		/* of the server that has made it */
	KdaInboxPosition from;		/* snapshot2 is set */
	uint64		to_xid;
	int64		to_seq;
	MemoryContext context;		/* of all of it */
	KdaSealedBatch batch;		/* records NULL: not read yet */
} KdaSeal;

typedef struct KdaOutput
{
	KdaOutputIds ids;
	Oid			relid;
	char	   *name;			/* qualified, for messages */
	Oid			reported;		/* the stream whose refused rows they are */
	KdaStreamOptions *options;
	const KdaSinkOps *ops;
	bool		paused;
	char	   *failure;		/* NULL: it runs */
	MemoryContext context;
	/* what it was made with, to see whether something has changed */
	List	   *table_options;
	List	   *server_options;
	List	   *user_options;

	KdaSink    *sink;			/* NULL: not open */
	MemoryContext sink_context;
	bool		judged;			/* what the sink has delivered before is known */
	int64		retries_stored; /* … of the sink's */
	List	   *seals;			/* KdaSeal, oldest first: not delivered */
	int			sent;			/* so many of them are the sink's */
	/* as of the last commit */
	KdaInboxPosition position;	/* up to there it is sealed */
	int64		sealed;
	int64		delivered;
	bool		more;			/* there may be rows to seal */
	TimestampTz since;			/* segments have changed places */
	TransactionId retired_by;
	TimestampTz rotate_at;
	TimestampTz retry_at;		/* after an error, not before this */
	int			backoff_ms;
	char		last_error[512];
	char		stored_error[512];
	char		identity[64];	/* of its mark */
} KdaOutput;

/* In a transaction.  The rest of it is read when its sink is opened. */
extern KdaOutput *kda_output_make(MemoryContext parent, Oid relid);
/* Has anything changed that it was made with?  In a transaction. */
extern bool kda_output_changed(KdaOutput *output);
/* Ends what is under way; it is sent again when the sink is opened the next time. */
extern void kda_output_close(KdaOutput *output, int deadline_ms);
extern void kda_output_free(KdaOutput *output);

/*
 * Goes on with all that can be done without waiting.  Returns when it has to
 * be called again; an error leaves, by ereport, in or out of a transaction.
 */
extern TimestampTz kda_output_run(KdaOutput *output, int wake_fd, TimestampTz now);

/* In a transaction of its own: it is not delivered any more until people do something. */
extern void kda_output_fail(KdaOutput *output, const char *why);

#endif							/* KDA_OUTPUT_H */
