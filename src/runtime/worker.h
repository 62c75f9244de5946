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

typedef struct KdaFeedSchemas KdaFeedSchemas;

/* What the worker holds of a stream beside KdaStream itself. */
typedef struct KdaFeed
{
	KdaStream  *stream;			/* first, so that lists of either can be cast */
	int64		declared;		/* kda_storage.stream_progress, as of the last load */
	int64		begun;
	int			level;			/* 0: no pump writes it; writers have a smaller level */
	/* slots.c */
	int			nslots;			/* processes that share its shards */
	int64		generation;		/* of this process's row in kda_storage.slot, as of the load */
	bool		slotted;		/* states of its queries may be in parts */
	KdaTime		accepted;		/* slot 0: the least that the others have committed; KDA_END_TIME: no other has shards */
	KdaTime		closing;		/* windows may close up to this watermark in this transaction */
	bool		published;		/* other slots: this transaction has updated its row */
	KdaTime		closed;			/* … and have done so in the last one */
	/* relay.c; of a source stream */
	bool		relayed;		/* queries that one process has to run do so over the relay */
	bool		relays;			/* … and there are some */
	Bitmapset  *relay_columns;	/* … that read these, attribute numbers */
	struct KdaFeed *relay;		/* slot 0; NULL: it has none */
	bool		held;			/* what has been fetched waits in this transaction */
	/* backpressure.c */
	bool		blocked;		/* what its queries write is full: it stands still */
	TimestampTz blocked_at;		/* … and did so at the last look; 0: it did not */
	int64		blocked_us;		/* time that has not been stored yet */
	char	   *relay_read;		/* other slots: how far the relay has been read; as KdaInboxPosition.snapshot1 */
	uint64		relay_xid;		/* this transaction has written into it; 0: it has not */
	uint64		relay_mark,		/* bytes before it up to the first, and after it up to the second transaction */
				relay_last;
	int64		relay_before,	/* … were not read when we looked last */
				relay_after;
	/* … of a relay */
	struct KdaFeed *relay_of;	/* NULL: it is none */
	bool		drained;		/* the last transaction has found nothing more in it */

	List	   *writers;		/* KdaQuery: pumps that write it */
	KdaInboxPosition position;	/* database streams: as of the last commit */
	KdaInboxPosition next_position; /* as of this transaction */
	bool		position_known; /* a position is stored */
	char	   *start;			/* where reading begins, set by the first query */
	KdaTime		start_set;		/* when that was; KDA_NO_TIME: not known */
	bool		more;			/* the inbox has further rows now */
	KdaTime		derived_sent;	/* last watermark put into the inbox by its writers */
	int64		queries_seen;	/* number and greatest id of queries that made us load them again */
	/* reset.c */
	bool		is_part;		/* a stream of ours, between the parts of a query or behind a view */
	int64		resets_wanted;	/* as of the last load, or of this transaction */
	int64		resets_done;
	bool		reset_behind;	/* the next is behind what is in its inbox */
	bool		reset_again;	/* it has come to a place of one that is done already */
	int64		saved_resets_wanted;
	int64		saved_resets_done;
	bool		saved_reset_behind;
	/* as of the beginning of a transaction */
	bool		resetting;		/* it is on its way to a reset */
	bool		may_reset;		/* … and may do it when it is there */
	bool		tied;			/* queries tie it to one that is */
	bool		stands;			/* it stands still for that */
	/* while it is tied, since the last reset */
	bool		arrived;		/* it has given what it had */
	bool		at_reset;		/* … and has come to its reset */
	bool		quiet;			/* the last transaction has found nothing more to be done */
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
	KdaTime		saved_derived_sent;
	Oid			saved_segments[4];	/* inbox, inbox2, ring, ring2 */
	TimestampTz saved_segment_since;
	TransactionId saved_retired_by;
	TimestampTz saved_idle_since;
	/* feed_schemas.c */
	KdaFeedSchemas *schemas;	/* NULL: its records name none */
	bool		lacks_schemas;	/* what has been fetched waits for one */
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
	int			slot;			/* which of its processes this is: slots.c */
	MemoryContext context;		/* the worker's life */
	MemoryContext load_context; /* streams and queries; made anew by a reload that changed them */
	List	   *feeds;			/* KdaFeed, by level */
	List	   *queries;		/* KdaQuery, by number */
	int			wake_read;		/* pipe that library threads write to */
	int			wake_write;
	Oid			query_catalog;	/* kda_storage.query */
	bool		reload;			/* the catalog has changed */
	bool		check_options;	/* a server or user mapping has changed */
	bool		first_resets;	/* other slots than 0: slot 0 is resetting streams, as of the last load */
	bool		began;			/* the running transaction has its locks and may have changed memory */
	bool		committed;		/* it has committed, but memory does not follow yet */
	int			interval_ms;	/* between commits: commit_interval, stretched */
	int			interval_floor_ms;	/* growth.c: not below this for now; 0: no reason */
	TimestampTz growth_look_at;
	TransactionId growth_look_xid;	/* the next one to be given at the last look */
	int64		settle_us;		/* what it has cost beside its records: write-back, saving, commit; -1: no batch */
	bool		strangers;		/* a restore is under way: look again soon */
} KdaWorker;

extern KdaWorker *kda_worker;

/* The stream that is being worked on: an error outside its queries is its own. */
extern KdaFeed *kda_current_feed;

/* Does this query take part in transactions? */
static inline bool
kda_query_runs(const KdaQuery *query)
{
	return query->failure == NULL && !query->stopped;
}

/* Has the stream a query that does? */
extern bool kda_feed_has_queries(const KdaFeed *feed);

/* Is there anything to do for the stream in a transaction? */
static inline bool
kda_feed_runs(const KdaFeed *feed)
{
	return feed->stream->failure == NULL && !feed->stream->paused && kda_feed_has_queries(feed);
}

/* Does a RESET of the stream wait? */
static inline bool
kda_feed_wants_reset(const KdaFeed *feed)
{
	return feed->resets_wanted > feed->resets_done || feed->reset_again;
}

/*---- load.c */

/* Brings feeds and queries in line with the catalog; in a transaction of its own. */
extern void kda_load(KdaWorker *worker);
extern KdaFeed *kda_feed_by_relid(Oid relid);	/* the stream, not its relay */
extern void kda_load_progress(KdaFeed *feed);
/* Ends reading from a source; what was fetched and not applied is forgotten.  deadline_ms 0: the process ends. */
extern void kda_source_close(KdaStream *stream, int deadline_ms);
/* Opens sources of streams that have queries, closes the others; no transaction. */
extern void kda_sources_update(KdaWorker *worker);

/*---- sources.c */

/* Matches the shards that a source has found with the stored ones and begins to read them; no transaction. */
extern void kda_sources_assign(KdaFeed *feed);
/* Which shards each one has to wait for; again when there are new ones. */
extern void kda_sources_find_parents(KdaStream *stream);

/*---- save.c: inside the worker's transaction */
extern void kda_save_feed(KdaFeed *feed, TimestampTz now);
extern void kda_save_query(KdaQuery *query, TimestampTz now);
extern void kda_fail_stream(KdaFeed *feed, const char *why);
extern void kda_fail_query(KdaQuery *query, const char *why);
extern void kda_feed_remember(KdaFeed *feed);	/* after a commit */
extern void kda_feed_remember_catalog(KdaFeed *feed);	/* after loading: the part that DDL changes */
extern void kda_feed_go_back(KdaFeed *feed);	/* after an abort */

/*---- locks.c: see locks.h */

/*
 * In the worker's transaction, first of all: locks all that its queries touch.
 * False: the catalog has changed, load it first.  Leaves by an error when a
 * lock is not to be had; then kda_locks_blocked(), and kda_locks_wait() waits
 * for it after the rollback.
 */
extern bool kda_locks_take(KdaWorker *worker);
/* The same for what kda_load() looks at. */
extern void kda_locks_take_catalog(KdaWorker *worker);
extern bool kda_locks_blocked(void);
extern void kda_locks_wait(void);
extern void kda_locks_forget(void); /* queries have changed */
/* For lock_timeout, of locks that cannot be known beforehand. */
extern int	kda_locks_timeout_ms(void);

/*---- slots.c: several processes share the shards of a stream; inside the worker's transaction */

/* Slot 0: divides the shards where option parallelism has changed.  True: commit, and load everything anew. */
extern bool kda_slots_arrange(KdaWorker *worker);
/* Before a batch: what the other slots have committed.  False: commit, and load everything anew. */
extern bool kda_slots_look(KdaWorker *worker);
/*
 * Other slots than 0, before they write anything: what this transaction is
 * judged against.  An error: the shards are not its own any more.  begin(): if
 * it is going to write.
 */
extern void kda_slots_begin(KdaFeed *feed);
extern void kda_slots_publish(KdaFeed *feed);
/* Slot 0: the row of a shard that another slot has to read. */
extern void kda_slots_add_shard(KdaFeed *feed, KdaShard *shard);
/* Slot 0: takes everything from the other slots; they begin without a watermark. */
extern void kda_slots_reset(KdaFeed *feed);
/* After the commit: wakes those who wait for it. */
extern void kda_slots_after_commit(KdaFeed *feed, KdaTime watermark_before, bool saved);
/* Has all closed that the watermark has passed? */
extern bool kda_slots_are_closed(const KdaFeed *feed);

/*---- relay.c: queries that one process has to run over a stream that several read */

/* The feed of a stream, or of its relay, that is held here. */
extern KdaFeed *kda_feed_of(const KdaStream *stream);
/* While loading: the relay of a source stream, and what it takes from the stream each time. */
extern KdaFeed *kda_relay_make(KdaFeed *source);
extern void kda_relay_follow(KdaFeed *relay);
/* Must what this process has fetched of the stream wait? */
extern bool kda_relay_holds(KdaFeed *source);
/* Hands the batch's records on, and who has refused them. */
extern void kda_relay_records(KdaFeed *source);
extern void kda_relay_at_commit(KdaFeed *source);
/* Before the relay runs: the shards as the stream has them. */
extern void kda_relay_see_shards(KdaFeed *relay);
/* No record that is handed on from now on is earlier without being late; KDA_NO_TIME: not known. */
extern KdaTime kda_relay_watermark(const KdaFeed *relay);
/* After it has run: its counters are the stream's. */
extern void kda_relay_count(KdaFeed *relay);
/* While shards are divided: what it gets comes after all that slot 0 has processed alone. */
extern void kda_relay_begin(KdaFeed *source);
/* May slot 0, which is alone, run all queries over the stream itself again?  And does so from the next load on. */
extern bool kda_relay_is_drained(const KdaFeed *source);
extern void kda_relay_end(KdaFeed *source);

/*---- reset.c: ALTER STREAM … RESET; inside the worker's transaction */

/* Before any stream runs: which are on their way to a reset, and which stand still until then. */
extern void kda_resets_begin(KdaWorker *worker);
/* Before a stream reads.  True: it has been reset, and reads nothing in this transaction. */
extern bool kda_reset_at_once(KdaFeed *feed);
/* After it has read; place: the control row that it has come to. */
extern void kda_reset_after_read(KdaFeed *feed, const KdaInboxPlace *place);
/* When it is through, or stands still. */
extern void kda_reset_look(KdaFeed *feed);

/*---- blame.c: rows between the parts of a query are reported of the users' stream that they have come from */

extern KdaFeed *kda_feed_behind(KdaFeed *feed);
/*
 * Of a row of its batch, with shard of the record, and where it stands there,
 * palloc'd; shard NULL: it is made of several.
 */
extern KdaFeed *kda_feed_of_row(KdaFeed *feed, int row, const char **shard, char **place);
/* The latter alone. */
extern char *kda_place_of_row(KdaStream *stream, int row);

/*---- backpressure.c: inside the worker's transaction */

/* Before any stream runs: which have to wait until outboxes have room. */
extern void kda_backpressure_look(KdaWorker *worker, TimestampTz now);

/*---- feed_schemas.c: outside of transactions */

/* Before more is fetched. */
extern void kda_feed_schemas_begin(KdaFeed *feed);
/* Are the schemas of all records that have been fetched known, or known not to be?  Asks for them; trouble: what keeps them from us. */
extern bool kda_feed_schemas_ready(KdaFeed *feed, char *trouble, Size size);
extern void kda_feed_schemas_close(KdaFeed *feed);
extern uint64 kda_options_generation;

/*---- growth.c: inside the worker's transaction, now and then */
extern void kda_growth_look(KdaWorker *worker, TimestampTz now);

/*---- transaction.c: one transaction, all stages */

/* Returns true if more input is already waiting. */
extern bool kda_transaction(KdaWorker *worker);
/* Inside it: all stages of one stream, once. */
extern void kda_run_feed(KdaFeed *feed, TimestampTz now);

/*---- waits.c: answers kda.wait */
extern void kda_waits_look(KdaWorker *worker);		/* takes new requests up, before a transaction */
extern void kda_waits_after_commit(KdaWorker *worker);
extern bool kda_waits_pending(void);

#endif							/* KDA_WORKER_H */
