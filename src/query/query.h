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
#include "nodes/plannodes.h"
#include "stream/stream.h"
#include "tcop/dest.h"
#include "utils/tuplestore.h"

typedef enum KdaShape
{
	KDA_SHAPE_ROWS,				/* no aggregate: one row per record */
	KDA_SHAPE_GROUPS,			/* endless groups */
	KDA_SHAPE_WINDOWS			/* groups per window; key 1 is window_start */
} KdaShape;

typedef struct KdaGroups KdaGroups;	/* groups.h */
typedef struct KdaPlan KdaPlan;		/* plan.c */

typedef struct KdaQuery
{
	int32		id;
	Oid			relid;			/* the view that users read */
	char	   *name;
	Oid			owner;
	bool		is_pump;
	KdaShape	shape;
	bool		emit_on_close;	/* of a view: hides open windows; of a pump: emission at close */
	int64		window_size_us;
	int64		window_offset_us;
	int64		retention_us;	/* < 0: for ever */
	TimestampTz forget_at;		/* next look for rows that are older */
	int			nkeys;			/* leading columns of batch that are group keys (windows: incl. window_start) */
	Oid			batch_rel;
	Oid			final_rel;
	Oid			open_rel;
	Oid			closed_rel;
	Oid			target_rel;
	bool		target_is_stream;
	bool		stopped;
	char	   *failure;		/* NULL: runs */
	bool		failed_now;		/* failure is to be stored with this transaction */
	bool		joined;
	KdaTime		frontier;		/* windows ending at or before this are closed */
	KdaTime		complete_from;
	char	   *search_path;	/* that it was declared under */
	char	   *start_snapshot; /* database streams: rows visible in it are not this query's; NULL: all are */

	KdaStream  *stream;
	KdaGroups  *groups;			/* shapes groups and windows */
	KdaPlan    *batch_plan;
	KdaPlan    *final_plan;

	int			timeouts;		/* kda_stream.query_timeout was reached in this batch */
	int			careful;		/* so many commits more, rows are emitted so that one which is refused can be told */

	/* growth.c: size of the open table */
	int64		had_blocks;
	double		blocks_per_group;	/* the least that it needed; 0: not known */

	/* as of the last commit, to go back to after an abort */
	KdaTime		saved_frontier;
	KdaTime		saved_complete_from;
	bool		saved_joined;

	/* counters of this transaction */
	int64		d_in, d_late, d_out;
	double		d_busy_ms;
	MemoryContext context;
} KdaQuery;

/* The query that the worker is planning or executing now; NULL outside. */
extern KdaQuery *kda_current_query;
/* True while code of users may run as the owner of kda_current_query. */
extern bool kda_in_query;

/*---- plan.c: plans from views' rules, cached, rebuilt on invalidation */

/* Which of the final part's rows are wanted: those of some tuples of the open table, else of old windows. */
typedef struct KdaPlanBounds
{
	KdaTime		before;			/* first column < before */
	ItemPointer tids;			/* not NULL: these tuples */
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
/* Windows that end at or before frontier were emitted: deletes their rows of this slot and forgets them. */
extern void kda_groups_close(KdaGroups *groups, KdaTime frontier);
/* After the query's subtransaction was rolled back: forgets every group that it dirtied. */
extern void kda_groups_abort_query(KdaGroups *groups);
/* Addresses of the tuples that this transaction has written, each group once; palloc'd. */
extern ItemPointer kda_groups_written(KdaGroups *groups, int *n);
/* After a top-level commit: dirty marks become permanent, new tuple addresses valid. */
extern void kda_groups_at_commit(KdaGroups *groups);
/* After a top-level abort: forgets everything that this transaction touched. */
extern void kda_groups_at_abort(KdaGroups *groups);
extern void kda_groups_stats(KdaGroups *groups, int64 *ngroups, int64 *nwindows, int64 *bytes);
/* Distinct window ends that are open, the smallest; KDA_END_TIME: none.  Also windows that are only in the table. */
extern KdaTime kda_groups_min_window_end(KdaGroups *groups);

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

/*---- emit.c: final rows to closed table, stream, or table */

/*
 * The query whose rows are on their way to a closed table or stream without a
 * subtransaction: on an error the worker tries again with query->careful set.
 */
extern KdaQuery *kda_emitting_query;

/* Closes all windows that end at or before frontier. */
extern void kda_query_close_windows(KdaQuery *query, KdaTime frontier);
/* Endless groups that this transaction has changed. */
extern void kda_query_emit_changed(KdaQuery *query);
/* Deletes closed rows that are older than the view's retention, now and then. */
extern void kda_query_forget_old(KdaQuery *query, TimestampTz now);
/* Plain rows of one batch to where they go. */
extern void kda_query_emit_rows(KdaQuery *query, Tuplestorestate *rows);

#endif							/* KDA_QUERY_H */
