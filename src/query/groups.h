/*-------------------------------------------------------------------------
 *
 * groups.h
 *	  The groups of one query's open windows, in memory between batches.
 *	  Private to query/: windowagg.c advances them with transition.c, writeback.c
 *	  stores them, groups.c finds, reads back and forgets them.
 *
 * Truth is the open table as of the last commit plus, for dirty groups, the
 * memory.  Groups live in buckets: a window's, or for endless groups one of
 * NPARTITIONS by hash.  A bucket owns the memory of its groups and is evicted
 * as a whole; what remains of an evicted group is its hash and tuple address.
 *
 * Errors: write-back keeps a log of the tuple addresses that it replaced, so
 * that a rolled back subtransaction can be undone (kda_groups_abort_query):
 * its groups are read again.  After a top-level abort everything is forgotten
 * and the table scanned anew at the next use.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_GROUPS_H
#define KDA_GROUPS_H

#include "kda_stream.h"
#include "fmgr.h"
#include "lib/ilist.h"
#include "nodes/execnodes.h"
#include "query/keys.h"
#include "query/query.h"
#include "storage/itemptr.h"

/* Transitions that need no function call: of built-in functions over values that fit into a Datum. */
typedef enum KdaFastAgg
{
	KDA_FAST_NONE,
	KDA_FAST_COUNT,				/* count(*), count(x): arguments that are not NULL */
	KDA_FAST_SUM_INT4,			/* sum(int4) and sum(int2): bigint state, NULL at first */
	KDA_FAST_SUM_INT2,
	KDA_FAST_AVG_INT4,			/* avg(int4) and avg(int2): array of number and sum */
	KDA_FAST_AVG_INT2,
	KDA_FAST_SUM_FLOAT8,
	KDA_FAST_SUM_FLOAT4,
	KDA_FAST_MIN_INT2,
	KDA_FAST_MAX_INT2,
	KDA_FAST_MIN_INT4,			/* date too */
	KDA_FAST_MAX_INT4,
	KDA_FAST_MIN_INT8,			/* time, timestamps too */
	KDA_FAST_MAX_INT8,
	KDA_FAST_MIN_FLOAT8,
	KDA_FAST_MAX_FLOAT8,
	KDA_FAST_BOOL_AND,
	KDA_FAST_BOOL_OR
} KdaFastAgg;

/* One state column. */
typedef struct KdaAggSpec
{
	Aggref	   *aggref;			/* of the stored view */
	char	   *signature;
	uint32		crc;
	int			nargs;
	KdaFastAgg	fast;
	bool		strict;
	bool		internal;		/* state is a pointer; serialize functions */
	bool		byval;
	int16		len;
	Datum		init;
	bool		init_null;
	FunctionCallInfo trans;		/* state, arguments */
	FunctionCallInfo combine;	/* state, another one; makes a state of what deserial gives; NULL: neither is needed */
	FunctionCallInfo serial;
	FunctionCallInfo deserial;
} KdaAggSpec;

typedef struct KdaBucket
{
	int64		key;			/* window_start, or partition */
	MemoryContext context;
	dlist_head	groups;			/* resident ones */
	int64		nresident;
	int64		nevicted;
	int64		ngarbage;		/* groups that are gone, whose memory is still here */
	uint64		last_used;		/* number of the transaction */
	struct KdaBucket *hash_next;
} KdaBucket;

typedef struct KdaGroup
{
	dlist_node	node;			/* in its bucket */
	uint64		hash;
	KdaBucket  *bucket;
	ItemPointerData tid;		/* in the open table; invalid: not stored yet */
	bool		dirty;			/* memory is ahead of the table */
	bool		reread;			/* kda_groups_abort_query: has to be read again */
	bool		gone;			/* sessions: part of another one now; dirty until its tuple is deleted */
	struct KdaSession *session; /* sessions and stagger windows, else NULL */
	Datum		values[FLEXIBLE_ARRAY_MEMBER];	/* keys, states; then the null flags */
} KdaGroup;

typedef struct KdaUndo
{
	KdaGroup   *group;
	ItemPointerData old;
} KdaUndo;

struct kda_group_table_hash;
struct kda_evicted_hash;

struct KdaGroups
{
	KdaQuery   *query;
	MemoryContext context;		/* specs, for the life of the query */
	MemoryContext state;		/* groups; emptied when everything is forgotten */
	MemoryContext restoring;	/* a state on its way back, reset after each */
	Size		budget;

	int			nkeys;
	int			naggs;
	KdaKeySpec *keys;
	KdaAggSpec *aggs;
	bool		any_internal;
	struct KdaSessions *sessions;	/* windows that depend on other rows: what finds the groups; else NULL */

	bool		bound;			/* memory reflects the table */
	Oid			file;			/* of the table that it reflects */
	struct kda_group_table_hash *table;
	struct kda_evicted_hash *evicted;
	int64		nevicted;
	KdaBucket **buckets;		/* hash by key */
	int			nbucket_slots;
	int			nbuckets;
	KdaBucket  *last_bucket;
	int64		nresident;

	/* since the last write-back */
	KdaGroup  **dirty;
	int			ndirty;
	int			dirty_room;
	/* since the transaction began */
	KdaUndo    *undo;
	int			nundo;
	int			undo_room;
	int			undo_mark;		/* where the running attempt began */
	uint64		transaction;	/* counts commits */

	/* key of the row that is looked up */
	Datum	   *probe_values;
	bool	   *probe_nulls;

	/* what transition functions see */
	AggState   *aggstate;
	ExprContext *aggcontext;	/* its memory is the bucket's */
	MemoryContext temp;			/* reset per row (transition results) or chunk */
};

static inline bool *
kda_group_nulls(const KdaGroups *groups, KdaGroup *g)
{
	return (bool *) (g->values + groups->nkeys + groups->naggs);
}

/* Memory reflects the table from here on; in a transaction, before any group is asked for. */
extern void kda_groups_prepare(KdaGroups *groups);

/* The group of probe_values/probe_nulls; made if there is none.  Marks it dirty. */
extern KdaGroup *kda_groups_touch(KdaGroups *groups);

/*---- transition.c */

/* The direct transition that stands for a transition function. */
extern KdaFastAgg kda_fast_transition(Oid function);

/* Adds one input row to a state. */
extern void kda_group_advance(KdaGroups *groups, KdaGroup *g, int agg,
							  const Datum *args, const bool *nulls);

/*
 * Adds n input rows to a state that has a direct transition: of rows[i] of a
 * column to list[i].  values NULL: without argument; nulls NULL: none is.
 */
extern void kda_groups_advance_rows(KdaGroups *groups, int agg, KdaGroup *const *list, const int *rows, int n,
									const Datum *values, const bool *nulls);

/*---- agg_states.c */

/* What is to be called for an aggregate of the stored view. */
extern void kda_agg_make(KdaGroups *groups, KdaAggSpec *spec, Aggref *aggref);
/* What is stored for a state, and the other way; in the current context. */
extern Datum kda_agg_store(KdaGroups *groups, KdaAggSpec *spec, Datum value, bool isnull, bool *stored_null);
extern Datum kda_agg_restore(KdaGroups *groups, KdaAggSpec *spec, Datum stored, bool isnull,
							 MemoryContext context, bool *value_null);
/* A context for functions that ask AggCheckCallContext. */
extern AggState *kda_fake_aggstate(MemoryContext context, ExprContext **aggcontext);

/*---- groups.c */

/* A tuple's keys and states, read back. */
extern void kda_groups_remove(KdaGroups *groups, KdaGroup *g);
extern void kda_groups_forget(KdaGroups *groups);

/* Hash of the keys of a tuple of the open table, without the first ones. */
extern uint32 kda_groups_hash_tuple(KdaGroups *groups, TupleTableSlot *slot, int first_key);

/* Marks where an attempt (a subtransaction) begins. */
extern void kda_groups_begin_attempt(KdaGroups *groups);

/*---- session_groups.c: groups whose window depends on other rows; called by groups.c */

/* Leading columns of theirs: start, then the last row's time (sessions) or the order of opening (stagger), the number of the key. */
#define KDA_SESSION_COLUMNS 3

extern void kda_session_groups_init(KdaGroups *groups);
/* The group of the probe, whose own columns are the row's time, (stagger) its place in the batch, and nothing. */
extern KdaGroup *kda_session_group(KdaGroups *groups);
/* A tuple of the table, which is also the probe. */
extern void kda_session_group_load(KdaGroups *groups, TupleTableSlot *slot, bool resident);
extern void kda_session_groups_abort(KdaGroups *groups);
/* Its memory goes; its session knows where it is stored. */
extern void kda_session_group_evict(KdaGroup *g);
/* Groups of the sessions that are final: forgotten.  Gives the addresses of their tuples. */
extern ItemPointer kda_session_groups_close(KdaGroups *groups, KdaTime frontier, int64 *n);

/*---- what it needs of groups.c */

/* A group of the probe that nothing finds yet, with initial states. */
extern KdaGroup *kda_group_make(KdaGroups *groups, uint64 hash);
extern void kda_group_dirty(KdaGroups *groups, KdaGroup *g);
extern void kda_group_set_states(KdaGroups *groups, KdaGroup *g, TupleTableSlot *slot);
extern void kda_groups_set_probe(KdaGroups *groups, TupleTableSlot *slot);
/* Adds the state of another group. */
extern void kda_group_combine(KdaGroups *groups, KdaGroup *g, KdaGroup *other, int agg);
/* Undoes kda_groups_remove. */
extern void kda_group_restore(KdaGroups *groups, KdaGroup *g);

/*---- final.c: states of internal type on disk */
extern Datum kda_state_make(uint32 crc, bytea *serialized);
extern bytea *kda_state_open(Datum state, uint32 crc, const char *signature);

#endif							/* KDA_GROUPS_H */
