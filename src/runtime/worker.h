/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  What the files of a pipeline worker share: its streams and queries, and
 *	  how they are loaded and saved.  Private to runtime/.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_WORKER_H
#define KDA_WORKER_H

#include "kda_stream.h"
#include "nodes/pg_list.h"
#include "query/query.h"
#include "runtime/runtime.h"
#include "stream/inbox.h"
#include "stream/stream.h"

/* What the worker holds of a stream beside KdaStream itself. */
typedef struct KdaFeed
{
	KdaStream  *stream;			/* first, so that lists of either can be cast */
	int			level;			/* 0: no pump writes it; writers have a smaller level */
	List	   *writers;		/* KdaQuery: pumps that write it */
	KdaInboxPosition position;	/* database streams: as of the last commit */
	KdaInboxPosition next_position; /* as of this transaction */
	bool		position_known; /* a position is stored */
	char	   *start;			/* where reading begins, set by the first query */
	int64		generation;		/* of that beginning */
	bool		more;			/* the inbox has further rows now */
	KdaTime		derived_sent;	/* last watermark put into the inbox by its writers */
	int64		queries_seen;	/* number and greatest id of queries that made us load them again */
	bool		reset_wanted;
	bool		touched;		/* something of it changed in this transaction */
	bool		advanced;		/* kda.advance may have left something */
	TimestampTz rotate_at;		/* next look at the segments */
	TimestampTz tick_at;		/* when idle time-out or wall clock would move it */
	/* state as of the last commit, to go back to after an abort */
	KdaShard   *saved_shards;
	int			saved_nshards;
	KdaTime		saved_watermark;
	KdaTime		saved_advanced;
	KdaTime		saved_derived;
	char		last_error[512];
	char		stored_error[512];	/* what kda_storage says */
	TimestampTz retry_at;		/* its source could not be opened: not before this */
	/* what the source was opened with */
	MemoryContext options_context;
	List	   *server_options;
	List	   *user_options;
	Size		fetch_memory;
} KdaFeed;

typedef struct KdaWorker
{
	char	   *name;			/* option worker */
	MemoryContext context;		/* the worker's life */
	MemoryContext load_context; /* streams and queries; made anew by a reload that changed them */
	List	   *feeds;			/* KdaFeed, by level */
	List	   *queries;		/* KdaQuery, by number */
	int			wake_read;		/* pipe that library threads write to */
	int			wake_write;
	Oid			query_catalog;	/* kda_storage.query */
	bool		reload;			/* the catalog has changed */
	bool		check_options;	/* a server or user mapping has changed */
} KdaWorker;

extern KdaWorker *kda_worker;

/* The stream that is being worked on: an error outside its queries is its own. */
extern KdaFeed *kda_current_feed;

/*---- load.c */

/* Brings feeds and queries in line with the catalog; in a transaction of its own. */
extern void kda_load(KdaWorker *worker);
extern KdaFeed *kda_feed_by_relid(Oid relid);
/* Ends reading from a source; what was fetched and not applied is forgotten. */
extern void kda_source_close(KdaStream *stream);
/* Opens sources of streams that have queries, closes the others; no transaction. */
extern void kda_sources_update(KdaWorker *worker);
/* Matches the shards that a source has found with the stored ones and begins to read them; no transaction. */
extern void kda_sources_assign(KdaFeed *feed);

/*---- save.c: inside the worker's transaction */
extern void kda_save_feed(KdaFeed *feed, TimestampTz now);
extern void kda_save_query(KdaQuery *query, TimestampTz now);
extern void kda_fail_stream(KdaFeed *feed, const char *why);
extern void kda_fail_query(KdaQuery *query, const char *why);
extern void kda_feed_remember(KdaFeed *feed);	/* after a commit */
extern void kda_feed_go_back(KdaFeed *feed);	/* after an abort */

/*---- transaction.c: one transaction, all stages */

/* Returns true if more input is already waiting. */
extern bool kda_transaction(KdaWorker *worker);

/*---- waits.c: answers kda.wait */
extern void kda_waits_look(KdaWorker *worker);		/* takes new requests up, before a transaction */
extern void kda_waits_after_commit(KdaWorker *worker);
extern bool kda_waits_pending(void);

#endif							/* KDA_WORKER_H */
