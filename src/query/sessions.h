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
	int64		number;			/* what is stored for it: keys of which a window is kept have different ones */
	KdaSession *newest;			/* with the latest start; never NULL between calls */
	KdaSession *root;			/* of all, as a tree by their start */
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
	/* what may leave more than once (shown.h) */
	bool		changed;		/* since it was looked at: it is in the list */
	bool		reopened;		/* something of it was emitted, which it no longer is */
	bool		closed;			/* emitted as it is */
	dlist_node	change;
	/* ours */
	KdaSession *before;			/* trees of what starts earlier and later */
	KdaSession *after;
	uint32		priority;		/* no less than theirs */
	bool		queued;
	KdaTime		due;			/* place in the queue; end may have moved on since */
	pairingheap_node node;
};

struct kda_session_keys_hash;

typedef struct KdaSessions
{
	KdaQuery   *query;
	KdaWindowSpec *window;
	int			nkeys;
	KdaKeySpec *keys;
	MemoryContext state;		/* keys … */
	MemoryContext nodes;		/* sessions; below it */
	struct kda_session_keys_hash *table;
	pairingheap *queue;			/* those that are not closed: least due first */
	pairingheap *closed_queue;	/* those that are closed, and kept for corrections */
	dlist_head	changes;		/* those that are changed */
	bool		loading;		/* the table is read: what it has was emitted before */
	int64		nsessions;
	int64		next_order;
	int64		next_number;	/* … of a key; its user gives them */

	/* key that is looked up */
	const Datum *probe_values;
	const bool *probe_nulls;

	/* taken from the queue: they end at or before the time that was asked for */
	KdaSession **ended;
	int			nended;
	int			room;

	/* whose rows the final part gives, in the order of their ends; the caller's */
	KdaSession **picked;
	int			npicked;
} KdaSessions;

/*
 * Itself lives in context, what is open below state.  keys and the query belong
 * to the caller.  kda_sessions_forget has to be called before anything else.
 */
extern KdaSessions *kda_sessions_create(MemoryContext context, MemoryContext state, KdaQuery *query,
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

/* Addresses of their groups' tuples; palloc'd.  In session_groups.c. */
extern ItemPointer kda_session_tids(KdaSession *const *list, int n);

/* A session with these bounds, as a table has it.  What was emitted of it is not known, unless the whole table is read. */
extern KdaSession *kda_sessions_add(KdaSessions *sessions, KdaSessionKey *key, KdaTime start, KdaTime end, int64 order);
/*
 * The whole table is read, until the second call: as of the last commit, when
 * all that had changed was emitted, unless EMIT EVERY put it off.
 */
extern void kda_sessions_begin_loading(KdaSessions *sessions);
extern void kda_sessions_end_loading(KdaSessions *sessions);
/* The latest that starts at or before t; NULL: none. */
extern KdaSession *kda_sessions_at(KdaSessionKey *key, KdaTime t);
/* Forgets it, and its key with the last one. */
extern void kda_sessions_remove(KdaSessions *sessions, KdaSession *session);

/* The smallest end of those that are not closed; KDA_END_TIME: there are none. */
extern KdaTime kda_sessions_min_end(KdaSessions *sessions);
/* Puts those that are not closed and end at or before upto into sessions->ended, in the order of their ends. */
extern void kda_sessions_end(KdaSessions *sessions, KdaTime upto);

/*
 * Where windows may be emitted more than once: a session is kept beyond its
 * close.  What changes it afterwards makes it one that is not closed.
 */

/* These were looked at; those of them that end at or before closed are closed now. */
extern void kda_sessions_settled(KdaSessions *sessions, KdaSession **list, int n, KdaTime closed);
/* The smallest end of those that are closed. */
extern KdaTime kda_sessions_min_closed(KdaSessions *sessions);
/* As kda_sessions_end, of those that are closed; where each window is emitted once, of those that are not. */
extern void kda_sessions_end_final(KdaSessions *sessions, KdaTime upto);

#endif							/* KDA_SESSIONS_H */
