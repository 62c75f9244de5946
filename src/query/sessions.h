/*-------------------------------------------------------------------------
 *
 * sessions.h
 *	  Which sessions and stagger windows are open, by key: windows whose bounds
 *	  depend on other rows.  Private to query/.
 *
 * In memory only: session_groups.c and kept_rows.c make it from their tables at
 * start and after an abort.  Of a session it knows the bounds; what belongs to
 * it (a group, rows) is its user's.
 *
 * Sessions of one key are disjoint, and further apart than the gap.  Stagger
 * windows of one key all have the same length; they may overlap.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_SESSIONS_H
#define KDA_SESSIONS_H

#include "kda_stream.h"
#include "lib/pairingheap.h"
#include "query/groups.h"
#include "stream/window.h"

typedef struct KdaSession KdaSession;

typedef struct KdaSessionKey
{
	uint64		hash;
	int64		number;			/* state rows: what their column kda_key says */
	KdaSession *newest;			/* with the latest start; never NULL between calls */
	Datum		values[FLEXIBLE_ARRAY_MEMBER];	/* then the null flags */
} KdaSessionKey;

struct KdaSession
{
	KdaTime		start;			/* window_start */
	KdaTime		end;			/* window_end; of a session: last row + gap */
	int64		order;			/* stagger: windows opened earlier have smaller ones */
	KdaSessionKey *key;
	KdaSession *newer,			/* neighbours of the same key by start */
			   *older;
	/* state groups */
	KdaGroup   *group;			/* NULL: not in memory */
	ItemPointerData tid;		/* … then it is here */
	/* ours */
	bool		queued;
	KdaTime		due;			/* place in the queue; end may have moved on since */
	pairingheap_node node;
};

struct kda_session_keys_hash;

typedef struct KdaSessions
{
	KdaWindowSpec *window;
	int			nkeys;
	KdaKeySpec *keys;
	MemoryContext state;		/* keys … */
	MemoryContext nodes;		/* sessions; below it */
	struct kda_session_keys_hash *table;
	pairingheap *queue;			/* least due first */
	int64		nsessions;
	int64		next_order;

	/* key that is looked up */
	const Datum *probe_values;
	const bool *probe_nulls;

	/* taken from the queue: they end at or before the time that was asked for */
	KdaSession **ended;
	int			nended;
	int			room;
} KdaSessions;

/*
 * Itself lives in context, what is open below state.  keys and window belong to
 * the caller.  kda_sessions_forget has to be called before anything else.
 */
extern KdaSessions *kda_sessions_create(MemoryContext context, MemoryContext state, KdaWindowSpec *window,
										int nkeys, KdaKeySpec *keys);
/* No session is open.  The caller has reset state. */
extern void kda_sessions_forget(KdaSessions *sessions);

/*
 * The key with these values, made if it is new; a session has to be added to
 * it then.  Varlena values are neither compressed nor out of line.
 */
extern KdaSessionKey *kda_sessions_key(KdaSessions *sessions, const Datum *values, const bool *nulls);

/* What happens to the sessions that a row changes; NULL: nothing to do. */
typedef struct KdaSessionCalls
{
	/* is going to be changed: an error here leaves everything as it was */
	void		(*hold) (void *arg, KdaSession *session);
	/* from becomes part of into, which is earlier; from is gone after it */
	void		(*join) (void *arg, KdaSession *into, KdaSession *from);
} KdaSessionCalls;

/*
 * The window that a row at t belongs to; it is opened, or put together from
 * those that the row bridges, as it has to be.  The row is not late.  mark
 * (stagger): windows that end at or before it take no rows.
 */
extern KdaSession *kda_sessions_touch(KdaSessions *sessions, KdaSessionKey *key, KdaTime t, KdaTime mark,
									  const KdaSessionCalls *calls, void *arg);

/* A session with these bounds, as a table has it. */
extern KdaSession *kda_sessions_add(KdaSessions *sessions, KdaSessionKey *key, KdaTime start, KdaTime end, int64 order);
/* Forgets it, and its key with the last one. */
extern void kda_sessions_remove(KdaSessions *sessions, KdaSession *session);

/* The smallest end; KDA_END_TIME: none is open. */
extern KdaTime kda_sessions_min_end(KdaSessions *sessions);
/* Puts those that end at or before upto into sessions->ended, in the order of their ends. */
extern void kda_sessions_end(KdaSessions *sessions, KdaTime upto);

#endif							/* KDA_SESSIONS_H */
