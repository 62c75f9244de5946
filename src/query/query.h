/*-------------------------------------------------------------------------
 *
 * query.h
 *	  A continuous query as a worker holds it, and what the worker calls.
 *
 * Its SQL is kept in views (kda_storage.query): "batch" is the per-batch part
 * (keys, then one column per distinct aggregate, or plain rows), "final" the
 * final part over the table of open groups.  Both are planned from the view's
 * stored rule, so names are never looked up again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_QUERY_H
#define KDA_QUERY_H

#include "kda_stream.h"
#include "nodes/execnodes.h"
#include "nodes/plannodes.h"
#include "stream/stream.h"
#include "stream/window.h"
#include "tcop/dest.h"
#include "utils/tuplestore.h"

typedef enum KdaShape
{
	KDA_SHAPE_ROWS,				/* no aggregate: one row per record */
	KDA_SHAPE_GROUPS,			/* endless groups */
	KDA_SHAPE_WINDOWS,			/* groups per window; key 1 is window_start */
	KDA_SHAPE_JOIN,				/* of two streams: join.c */
	KDA_SHAPE_OVER				/* one row per record, that looks at those before it; or a sort: over.c */
} KdaShape;

typedef enum KdaStateKind
{
	KDA_STATE_NONE,				/* shape rows */
	KDA_STATE_GROUPS,			/* partial aggregates by pane and key */
	KDA_STATE_ROWS				/* the records' columns: the final part is the user's SQL over them */
} KdaStateKind;

/* Columns of the open table of state rows: kda_slot, then these, then c1, c2 … */
enum
{
	KDA_KEPT_TIME = 2,			/* timestamptz: the record's time */
	KDA_KEPT_MARK,				/* timestamptz: it counts in windows that end later than this */
	KDA_KEPT_SEQ,				/* bigint: order of arrival */
	KDA_KEPT_FIRST
};

/*
 * Sessions and stagger windows: c1 … are their key, and one more column comes
 * last, kda_key: a number that rows of the same key share while a window of it
 * is open.  kda_mark is the start of a stagger window.
 */

typedef struct KdaGroups KdaGroups;	/* groups.h */
typedef struct KdaKeptRows KdaKeptRows;	/* kept_rows.c */
typedef struct KdaPlan KdaPlan;		/* plan.c */
typedef struct KdaRetime KdaRetime; /* retime.c */

typedef struct KdaQuery
{
	int32		id;
	Oid			relid;			/* the view that users read */
	char	   *name;
	Oid			owner;
	bool		is_pump;
	KdaShape	shape;
	bool		early;			/* open windows are emitted, too: EMIT EVERY, EMIT CHANGES of a pump */
	int64		every_us;		/* EMIT EVERY, 0: with each commit */
	int64		lateness_us;	/* records count so long after their window's end */
	bool		deferred;		/* … and nothing leaves earlier: it cannot be corrected */
	KdaStateKind state;
	KdaWindowSpec window;		/* shape windows */
	bool		per_window;		/* the final part is more than groups: it runs for each window as a whole */
	int64		retention_us;	/* < 0: for ever */
	TimestampTz forget_at;		/* next look for rows that are older */
	int			nkeys;			/* leading columns of batch that are group keys (windows: incl. window_start) */
	Oid			batch_rel;
	Oid			final_rel;
	Oid			open_rel;
	Oid			closed_rel;
	Oid			shown_rel;		/* shown.h; InvalidOid: each window is emitted once */
	Oid			target_rel;
	bool		target_is_stream;
	bool		target_is_read;	/* … and some query reads it */
	bool		target_is_part;	/* … it is one of ours, between parts of a query */
	Oid			outbox[2];		/* target on an outside server: segments of its outbox; InvalidOid: it is none */
	bool		stopped;
	char	   *failure;		/* NULL: runs */
	bool		failed_now;		/* failure is to be stored with this transaction */
	bool		saved;			/* in this transaction */
	bool		joined;
	KdaTime		frontier;		/* windows ending at or before this are closed */
	KdaTime		forgotten;		/* … and at or before this, what is kept of them is gone; frontier less lateness_us at most */
	TimestampTz emitted_at;		/* EMIT EVERY: last time, 0: never yet */
	int			slot;			/* of the worker: whose rows of the open table are ours */
	bool		slotted;		/* there may be rows of several slots; a close takes all of them */
	bool		leftovers;		/* … also of slots that there are no more: they go with ours */
	int			nslots;
	Oid			merged_rel;		/* the final part that combines states of several slots; InvalidOid: final_rel does so */
	KdaTime		accepts;		/* several slots: records that are late for this do not count; else KDA_NO_TIME */
	KdaTime		first_frontier; /* other slots than 0: the frontier as slot 0 has committed it */
	KdaTime		complete_from;
	char	   *search_path;	/* that it was declared under */
	char	   *start_snapshot; /* database streams: rows visible in it are not this query's; NULL: all are */

	KdaStream  *stream;
	KdaGroups  *groups;			/* state groups */
	KdaKeptRows *kept;			/* state rows */
	struct KdaShown *shown;		/* what was emitted, where it may be emitted again */
	KdaPlan    *batch_plan;
	KdaPlan    *final_plan;

	int			timeouts;		/* kda_stream.query_timeout was reached in this batch */
	int			careful;		/* so many commits more, rows are emitted so that one which is refused can be told */

	/* growth.c: size of the open table */
	int64		had_blocks;
	double		blocks_per_group;	/* the least that it needed; 0: not known */

	/* shape over */
	int64		delay_us;		/* rows leave this long after their time: WITHIN of a sort */
	bool		sort_strict;	/* … and those of one time together: further keys sort them */
	char	   *prune_text;		/* NULL: what has left is of no use to rows to come */
	struct _SPI_plan *prune_plan;
	int64		left_seq;		/* rows up to this number, and not later than the frontier, have left */
	int64		pruned_rows;	/* kept at the last pruning */

	/* shape rows */
	KdaRetime  *retime;			/* what leaves has another time than the record: retime.c; else NULL */

	/* shape join: each side as a query of its own, for its per-batch part and its kept rows */
	struct KdaQuery *sides[2];
	int64		join_low_us;	/* right time - left time of rows that match */
	int64		join_high_us;
	int			join_outer;		/* bits: unmatched rows of that side leave, too */
	KdaTime		join_passed[2]; /* rows before this have gone … */
	int64		join_seen[2];	/* … of those numbered lower */
	int			reset_sides;	/* bits: that side has forgotten its time, its rows wait for the other one to do so */
	int			saved_reset_sides;

	/* as of the last commit, to go back to after an abort */
	KdaTime		saved_frontier;
	KdaTime		saved_forgotten;
	TimestampTz saved_emitted_at;
	KdaTime		saved_complete_from;
	bool		saved_joined;

	/* counters of this transaction */
	int64		d_in, d_late, d_out;
	double		d_busy_ms;
	MemoryContext context;
} KdaQuery;

/* Do records go on as they are to the next part of the query? */
static inline bool
kda_query_passes_on(const KdaQuery *query)
{
	return query->target_is_part && query->shape == KDA_SHAPE_ROWS;
}

/* The query that the worker is planning or executing now; NULL outside. */
extern KdaQuery *kda_current_query;
/* True while code of users may run as the owner of kda_current_query. */
extern bool kda_in_query;

/*---- plan.c: plans from views' rules, cached, rebuilt on invalidation */

/* Which of the final part's rows are wanted. */
typedef struct KdaPlanBounds
{
	bool		leaving;		/* over: time <= upto, and (time > after or number > first) */
	int			numbered;		/* joins: first <= this column <= last; 0: no such bound */
	int64		first;
	int64		last;
	bool		timed;			/* windows: after < window_end <= upto */
	KdaTime		after;
	KdaTime		upto;
	ItemPointer tids;			/* not NULL: only from these tuples of the open table */
	int			ntids;
} KdaPlanBounds;

/*
 * view: whose rule is the query.  Runs and plans as the caller's current user,
 * in the active snapshot.
 */
extern KdaPlan *kda_plan_create(MemoryContext context, Oid view, bool final);
extern void kda_plan_free(KdaPlan *plan);
/* The columns that the plan gives. */
extern TupleDesc kda_plan_desc(KdaPlan *plan);
/* Runs a per-batch part over row_count rows (the planner's estimate; plans are kept per size class). */
extern uint64 kda_plan_run(KdaPlan *plan, double row_count, DestReceiver *dest);
/* Runs a final part. */
extern uint64 kda_plan_run_bounded(KdaPlan *plan, const KdaPlanBounds *bounds, DestReceiver *dest);
/* Attribute numbers of stream that the view's query reads (for decoding only those). */
extern Bitmapset *kda_plan_columns_of(Oid view, Oid stream);
/* The query of a view's rule, ready to be rewritten; a copy. */
extern Query *kda_view_query(Relation view);
/* All relations that the view's query names, for locking; list of Oid. */
extern List *kda_plan_relations(Oid view);

/*---- hook.c: create_upper_paths_hook, KdaWindowAgg's planner side */
extern void kda_query_init(void);
/* The groups that the plan being made is for; NULL: core's own Agg. */
extern KdaGroups *kda_planning_groups;

/*---- groups.c / windowagg.c / writeback.c: groups kept between batches */

/*
 * Binds the open table.  nkeys leading columns of the batch view are keys.
 * budget_bytes: of the cache; clean groups are evicted beyond it.
 */
extern KdaGroups *kda_groups_create(KdaQuery *query, Size budget_bytes);
extern void kda_groups_free(KdaGroups *groups);
/* Writes dirty groups to the open table; in the worker's transaction, as superuser context of the worker. */
extern void kda_groups_write_back(KdaGroups *groups);
/* Windows that end at or before frontier are not needed any more: deletes their rows of this slot and forgets them. */
extern void kda_groups_close(KdaGroups *groups, KdaTime frontier);
/* After the query's subtransaction was rolled back: forgets every group that it dirtied. */
extern void kda_groups_abort_query(KdaGroups *groups);
/* Sessions and stagger windows, while the groups are prepared; else NULL. */
extern struct KdaSessions *kda_groups_sessions(KdaGroups *groups);
extern struct KdaSessions *kda_kept_sessions(KdaKeptRows *kept);
/* … window_end of a tuple. */
extern KdaTime kda_groups_tuple_end(KdaGroups *groups, TupleTableSlot *slot);
/* … addresses of the tuples of those that end at or before upto; palloc'd. */
extern ItemPointer kda_groups_ended(KdaGroups *groups, KdaTime upto, int *n);
/* Addresses of the tuples that this transaction has written, each group once; palloc'd. */
extern ItemPointer kda_groups_written(KdaGroups *groups, int *n);
/* After a top-level commit: dirty marks become permanent, new tuple addresses valid. */
extern void kda_groups_at_commit(KdaGroups *groups);
/* After a top-level abort: forgets everything that this transaction touched. */
extern void kda_groups_at_abort(KdaGroups *groups);
extern void kda_groups_stats(KdaGroups *groups, int64 *ngroups, int64 *nwindows, int64 *bytes);
/* Ends of windows of which something is kept, ascending, up to a time; also of windows that are only in the table. */
extern KdaTime *kda_groups_window_ends(KdaGroups *groups, KdaTime upto, int *n);
/* The smallest of those that are open, later than the query's frontier; KDA_END_TIME: none. */
extern KdaTime kda_groups_min_window_end(KdaGroups *groups);

/*---- kept_rows.c: state rows */

extern KdaKeptRows *kda_kept_create(KdaQuery *query);
/* Appends what the per-batch part has given (its first column is the record's place in the batch). */
/* Returns the number of the first one; the others follow. */
extern int64 kda_kept_append(KdaKeptRows *kept, Tuplestorestate *rows);
/* Number of the next row. */
extern int64 kda_kept_next(KdaKeptRows *kept);
/* … as it was when the table was read: rows from there on are of this process. */
extern int64 kda_kept_first_unseen(KdaKeptRows *kept);
extern int64 kda_kept_count(KdaKeptRows *kept);
extern void kda_kept_forget_count(KdaKeptRows *kept, int64 deleted);
extern void kda_kept_delete(KdaKeptRows *kept, int64 seq);
extern void kda_kept_delete_before(KdaKeptRows *kept, KdaTime time);
/* As kda_groups_window_ends and kda_groups_min_window_end. */
extern KdaTime *kda_kept_window_ends(KdaKeptRows *kept, KdaTime upto, int *n);
extern KdaTime kda_kept_min_window_end(KdaKeptRows *kept);
/* Windows that end at or before frontier were emitted: rows that no other window needs go. */
extern void kda_kept_close(KdaKeptRows *kept, KdaTime frontier);
extern void kda_kept_stats(KdaKeptRows *kept, int64 *nrows, int64 *nwindows, int64 *bytes);
extern void kda_kept_at_abort(KdaKeptRows *kept);

/*---- over.c */

/* Rows whose time the watermark has reached leave; what no later row can see goes. */
extern void kda_over_settle(KdaQuery *query);

/*---- retime.c: rows leave with another time than the record's, so that they can be sorted by it */

extern KdaRetime *kda_retime_create(KdaQuery *query);
/* At start: the greatest time that was seen in a shard. */
extern void kda_retime_load(KdaRetime *retime, const char *shard, KdaTime greatest);
/*
 * What the per-batch part has given, in order of arrival; the second column is
 * the new time.  Returns those rows that have one and are not late; the others
 * go to refuse.  Their times are asked for as long as the batch is there.
 */
typedef void (*KdaRefuseRow) (void *arg, int row, const char *error_name, const char *message);
extern Tuplestorestate *kda_retime_rows(KdaQuery *query, Tuplestorestate *rows, TimestampTz now, KdaRefuseRow refuse, void *arg);
/* Of a row of the batch: its new time, and the greatest of its shard before it. */
extern KdaTime kda_retime_of(KdaRetime *retime, int row, KdaTime *shard_wm);
/* The greatest times are forgotten. */
extern void kda_retime_reset(KdaRetime *retime);
/* No row that leaves from now on is earlier. */
extern KdaTime kda_retime_watermark(KdaQuery *query, TimestampTz now);
/* Calls save for each shard whose greatest time has changed since the last commit. */
extern void kda_retime_save(KdaQuery *query, void (*save) (KdaQuery *query, const char *shard, KdaTime greatest));
extern void kda_retime_at_commit(KdaRetime *retime);
extern void kda_retime_at_abort(KdaRetime *retime);

/*---- slotted.c: several slots have rows in the open table */

/* Does any window end behind the query's frontier and not behind that time?  Every instant is in some window. */
extern bool kda_slotted_any_ends(KdaQuery *query, KdaTime upto);
/* Ends of windows within the bounds of which some slot has rows, ascending; palloc'd. */
extern KdaTime *kda_slotted_window_ends(KdaQuery *query, const KdaPlanBounds *bounds, int *n);
/* Deletes what slots that there are no more (number >= nslots) have of windows that end at or before frontier. */
extern void kda_slotted_close_leftovers(KdaQuery *query, KdaTime frontier);
/* Other slots than 0: slot 0 has closed up to there, this slot's rows go. */
extern void kda_query_forget_closed(KdaQuery *query, KdaTime frontier);

/*---- join.c */

/* Keeps the batch's rows of one side and matches them with what is kept of the other. */
extern void kda_join_run(KdaQuery *query, int side,
						 void (*refuse) (void *arg, int row, ErrorData *edata), void *arg);
/* After the batches: what nothing can match any more goes. */
extern void kda_join_settle(KdaQuery *query);
/* The streams of those sides (bits) have forgotten their time: what is kept of them matches nothing to come; unmatched rows leave. */
extern void kda_join_reset(KdaQuery *query, int sides);
/* Nothing that the join gives from now on is earlier than this. */
extern KdaTime kda_join_watermark(KdaQuery *query);
/* Windows that end at or before frontier are going to be emitted. */
extern void kda_kept_begin_closing(KdaKeptRows *kept, KdaTime frontier);
/* Sessions, while those that are picked are emitted: how many windows end then, or 1 if they cannot be told apart. */
extern int	kda_kept_count_ending(KdaKeptRows *kept, KdaTime end);
/* Only the n-th of them is given by the next calls; n < 0: all are. */
extern void kda_kept_only(KdaKeptRows *kept, KdaTime end, int n);
/* Puts them into the result: window_start, window_end, key. */
extern void kda_kept_put_closing(KdaKeptRows *kept, KdaTime after, KdaTime upto, ReturnSetInfo *rsinfo);

/*---- run.c: one query over the batch, errors isolated per record */

/*
 * Runs the per-batch part of query over its stream's batch: groups are
 * accumulated, plain rows go to rows (a tuplestore with the batch view's
 * columns).  One subtransaction; on an error it halves down to the record and
 * calls refuse(arg, row, edata).  As the query's owner, security restricted.
 */
extern void kda_query_run(KdaQuery *query, Tuplestorestate *rows,
						  void (*refuse) (void *arg, int row, ErrorData *edata), void *arg);

/* Writes changed groups back; an error makes the query fail, not the worker. */
extern void kda_query_write_back(KdaQuery *query);

/*---- emit.c, result.c, close.c: final rows to closed table, stream, or table */

/*
 * The query whose rows are on their way to a closed table or stream without a
 * subtransaction: on an error the worker tries again with query->careful set.
 */
extern KdaQuery *kda_emitting_query;

/* A watermark, for what waits so long for late records. */
static inline KdaTime
kda_earlier(KdaTime t, int64 us)
{
	/* a row that came before any watermark has one that is close to the least */
	return TIMESTAMP_NOT_FINITE(t) ? t : t < KDA_NO_TIME + us ? KDA_NO_TIME : t - us;
}

/* What is kept of windows that end at or before upto goes: all of it has left. */
extern void kda_query_forget_windows(KdaQuery *query, KdaTime upto);
/* Closes all windows that end at or before frontier. */
extern void kda_query_close_windows(KdaQuery *query, KdaTime frontier);
/* A time later than which a record of the batch counts, for the query that runs: windows that end at or before it are past. */
extern KdaTime kda_query_mark(const KdaQuery *query, int row);
/* Is that record late for all of its windows? */
extern bool kda_query_is_late(KdaQuery *query, int row);
/* The frontier that a watermark makes. */
extern KdaTime kda_query_closed_upto(const KdaQuery *query, KdaTime watermark);
/* Windows that end at or before this are not corrected any more; also what no row that the query emits later falls below. */
extern KdaTime kda_query_final_upto(const KdaQuery *query, KdaTime watermark);

/* Do its windows depend on other rows? */
static inline bool
kda_query_has_sessions(const KdaQuery *query)
{
	return query->shape == KDA_SHAPE_WINDOWS && !kda_window_is_aligned(&query->window);
}
/* Endless groups that this transaction has changed. */
extern void kda_query_emit_changed(KdaQuery *query);
/* Deletes closed rows that are older than the view's retention, now and then. */
extern void kda_query_forget_old(KdaQuery *query, TimestampTz now);
/* A row as JSON, without its first columns; palloc'd. */
extern char *kda_query_row_json(KdaQuery *query, TupleTableSlot *slot, int skip);
/* The final part's rows within bounds; NULL: the query has failed.  closed: what window_closed says. */
extern Tuplestorestate *kda_query_compute(KdaQuery *query, const KdaPlanBounds *bounds, bool closed);
/* Such rows leave. */
extern void kda_query_emit_computed(KdaQuery *query, Tuplestorestate *rows, KdaTime shard_wm);
/* Final rows within bounds leave. */
extern void kda_query_emit_final(KdaQuery *query, const KdaPlanBounds *bounds, KdaTime shard_wm);
/* Rows of a join: times of both records, their numbers, then the target's columns. */
extern void kda_query_emit_joined(KdaQuery *query, Tuplestorestate *rows, TupleDesc desc);
/* Plain rows of one batch to where they go. */
extern void kda_query_emit_rows(KdaQuery *query, Tuplestorestate *rows);

#endif							/* KDA_QUERY_H */
