/*-------------------------------------------------------------------------
 *
 * sessions.c
 *	  Which sessions and stagger windows are open (sessions.h).
 *
 * A row costs one hash probe; rows that come about in order find their session
 * at the head of their key's list; others in a treap of the key's sessions, since
 * with allowed_lateness there may be many.  What ends next is known from a queue whose
 * order is lazy: a session that has grown since it was put there goes back when
 * its turn comes, so growing costs nothing.
 *
 * In a pipeline worker only.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "query/sessions.h"
#include "utils/memutils.h"

typedef struct KdaSessionKeyEntry
{
	KdaSessionKey *key;			/* NULL in a look-up: the probe */
	uint32		hash;
	char		status;
} KdaSessionKeyEntry;

static inline bool *
nulls_of(const KdaSessions *sessions, KdaSessionKey *key)
{
	return (bool *) (key->values + sessions->nkeys);
}

static bool
entry_equal(KdaSessions *sessions, KdaSessionKey *have, KdaSessionKey *want)
{
	bool	   *nulls = nulls_of(sessions, have);

	if (want)
		return have == want;
	for (int i = 0; i < sessions->nkeys; i++)
	{
		if (nulls[i] != sessions->probe_nulls[i])
			return false;
		if (!nulls[i] && !kda_key_equal(&sessions->keys[i], have->values[i], sessions->probe_values[i]))
			return false;
	}
	return true;
}

#define SH_PREFIX kda_session_keys
#define SH_ELEMENT_TYPE KdaSessionKeyEntry
#define SH_KEY_TYPE KdaSessionKey *
#define SH_KEY key
#define SH_HASH_KEY(tb, key) ((uint32) (key)->hash)
#define SH_EQUAL(tb, a, b) entry_equal((KdaSessions *) (tb)->private_data, (a), (b))
#define SH_SCOPE static inline
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* The one that is due first is the greatest of the heap. */
static int
by_due(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	KdaTime		da = pairingheap_const_container(KdaSession, node, a)->due;
	KdaTime		db = pairingheap_const_container(KdaSession, node, b)->due;

	return da < db ? 1 : da > db ? -1 : 0;
}

/*---- all of them */

KdaSessions *
kda_sessions_create(MemoryContext context, MemoryContext state, KdaQuery *query, int nkeys, KdaKeySpec *keys)
{
	KdaSessions *sessions = MemoryContextAllocZero(context, sizeof(KdaSessions));

	sessions->query = query;
	sessions->window = &query->window;
	sessions->nkeys = nkeys;
	sessions->keys = keys;
	sessions->state = state;
	return sessions;
}

void
kda_sessions_forget(KdaSessions *sessions)
{
	MemoryContext old = MemoryContextSwitchTo(sessions->state);

	sessions->nodes = SlabContextCreate(sessions->state, "kda sessions", SLAB_DEFAULT_BLOCK_SIZE, sizeof(KdaSession));
	sessions->table = kda_session_keys_create(sessions->state, 64, sessions);
	sessions->queue = pairingheap_allocate(by_due, NULL);
	sessions->closed_queue = pairingheap_allocate(by_due, NULL);
	MemoryContextSwitchTo(old);
	dlist_init(&sessions->changes);
	sessions->loading = false;
	sessions->nsessions = 0;
	sessions->next_order = sessions->next_number = 1;
	sessions->ended = NULL;
	sessions->nended = sessions->room = 0;
	sessions->picked = NULL;
	sessions->npicked = 0;
}

/*---- keys */

KdaSessionKey *
kda_sessions_key(KdaSessions *sessions, const Datum *values, const bool *nulls)
{
	uint64		hash = kda_keys_hash(sessions->keys, sessions->nkeys, values, nulls);
	KdaSessionKeyEntry *entry;
	KdaSessionKey *key;
	MemoryContext old;
	bool		found;

	sessions->probe_values = values;
	sessions->probe_nulls = nulls;
	entry = kda_session_keys_lookup_hash(sessions->table, NULL, (uint32) hash);
	if (likely(entry != NULL))
		return entry->key;

	old = MemoryContextSwitchTo(sessions->state);
	key = palloc(offsetof(KdaSessionKey, values) + sessions->nkeys * (sizeof(Datum) + sizeof(bool)));
	key->hash = hash;
	key->number = 0;
	key->newest = key->root = NULL;
	for (int i = 0; i < sessions->nkeys; i++)
	{
		nulls_of(sessions, key)[i] = nulls[i];
		key->values[i] = nulls[i] ? (Datum) 0 :
			kda_copy_value(values[i], sessions->keys[i].byval, sessions->keys[i].len);
	}
	MemoryContextSwitchTo(old);
	kda_session_keys_insert_hash(sessions->table, key, (uint32) hash, &found)->key = key;
	return key;
}

static void
remove_key(KdaSessions *sessions, KdaSessionKey *key)
{
	kda_session_keys_delete_item(sessions->table,
								 kda_session_keys_lookup_hash(sessions->table, key, (uint32) key->hash));
	for (int i = 0; i < sessions->nkeys; i++)
		if (!sessions->keys[i].byval && !nulls_of(sessions, key)[i])
			pfree(DatumGetPointer(key->values[i]));
	pfree(key);
}

/*---- the sessions of a key: a list, and a treap by start and order of opening */

static inline bool
is_before(const KdaSession *a, const KdaSession *b)
{
	return a->start != b->start ? a->start < b->start : a->order < b->order;
}

KdaSession *
kda_sessions_at(KdaSessionKey *key, KdaTime t)
{
	KdaSession *found = NULL;

	if (key->newest && key->newest->start <= t)
		return key->newest;
	for (KdaSession *s = key->root; s;)
	{
		if (s->start <= t)
		{
			found = s;
			s = s->after;
		}
		else
			s = s->before;
	}
	return found;
}

static KdaSession *
oldest(KdaSessionKey *key)
{
	KdaSession *s = key->root;

	while (s && s->before)
		s = s->before;
	return s;
}

static void
plant(KdaSession **at, KdaSession *s)
{
	KdaSession *rest;
	KdaSession **before = &s->before;
	KdaSession **after = &s->after;

	s->priority = (uint32) kda_mix((uint64) (uintptr_t) s);
	while (*at && (*at)->priority >= s->priority)
		at = is_before(s, *at) ? &(*at)->before : &(*at)->after;
	/* what was there is parted by it */
	for (rest = *at; rest;)
	{
		if (is_before(s, rest))
		{
			*after = rest;
			after = &rest->before;
			rest = rest->before;
		}
		else
		{
			*before = rest;
			before = &rest->after;
			rest = rest->after;
		}
	}
	*before = *after = NULL;
	*at = s;
}

static void
uproot(KdaSession **at, KdaSession *s)
{
	KdaSession *before = s->before;
	KdaSession *after = s->after;

	while (*at != s)
		at = is_before(s, *at) ? &(*at)->before : &(*at)->after;
	while (before && after)
	{
		if (before->priority >= after->priority)
		{
			*at = before;
			at = &before->after;
			before = before->after;
		}
		else
		{
			*at = after;
			at = &after->before;
			after = after->before;
		}
	}
	*at = before ? before : after;
}

/*---- sessions */

static void
enqueue(KdaSessions *sessions, KdaSession *s)
{
	s->due = s->end;
	s->queued = true;
	pairingheap_add(s->closed ? sessions->closed_queue : sessions->queue, &s->node);
}

static void
dequeue(KdaSessions *sessions, KdaSession *s)
{
	if (s->queued)
		pairingheap_remove(s->closed ? sessions->closed_queue : sessions->queue, &s->node);
	s->queued = false;
}

/* What was taken out and is still there takes its place again. */
static void
put_back(KdaSessions *sessions)
{
	for (int i = 0; i < sessions->nended; i++)
		enqueue(sessions, sessions->ended[i]);
	sessions->nended = 0;
}

static void
change(KdaSessions *sessions, KdaSession *s)
{
	if (!s->changed)
		dlist_push_tail(&sessions->changes, &s->change);
	s->changed = true;
}

/*
 * It is going to be changed, or has just been made.  Whether that has to be
 * looked at: as long as it is open, and nothing of it was emitted, only where
 * open windows are.
 */
static void
note_change(KdaSessions *sessions, KdaSession *s)
{
	KdaQuery   *query = sessions->query;

	if (query->shown == NULL || sessions->loading)
		return;
	if (s->closed)
	{
		dequeue(sessions, s);
		s->closed = false;
		enqueue(sessions, s);
	}
	if (query->early || s->reopened || s->end <= query->frontier)
		change(sessions, s);
	/* … as it was before */
	s->reopened |= s->changed && s->end <= query->frontier;
}

/* What was emitted of it, and whether it is as it is now, is not known. */
static void
doubt(KdaSessions *sessions, KdaSession *s)
{
	if (sessions->query->shown == NULL)
		return;
	change(sessions, s);
	s->reopened = true;
}

static void
unchange(KdaSession *s)
{
	if (s->changed)
		dlist_delete(&s->change);
	s->changed = false;
}

/* All of it was emitted as it is. */
static void
settle(KdaSessions *sessions, KdaSession *s)
{
	dequeue(sessions, s);
	s->closed = true;
	s->reopened = false;
	enqueue(sessions, s);
}

static KdaSession *
add(KdaSessions *sessions, KdaSessionKey *key, KdaTime start, KdaTime end, int64 order)
{
	KdaSession *s = MemoryContextAlloc(sessions->nodes, sizeof(KdaSession));
	KdaSession *older = kda_sessions_at(key, start);
	KdaSession *newer = older ? older->newer : oldest(key);

	s->start = start;
	s->end = end;
	s->order = order;
	s->key = key;
	s->newer = newer;
	s->older = older;
	if (newer)
		newer->older = s;
	else
		key->newest = s;
	if (older)
		older->newer = s;
	plant(&key->root, s);
	s->group = NULL;
	ItemPointerSetInvalid(&s->tid);
	s->changed = s->reopened = s->closed = false;
	enqueue(sessions, s);
	note_change(sessions, s);
	sessions->nsessions++;
	sessions->next_order = Max(sessions->next_order, order + 1);
	return s;
}

KdaSession *
kda_sessions_add(KdaSessions *sessions, KdaSessionKey *key, KdaTime start, KdaTime end, int64 order)
{
	KdaSession *s = add(sessions, key, start, end, order);

	if (!sessions->loading)
		doubt(sessions, s);
	return s;
}

void
kda_sessions_begin_loading(KdaSessions *sessions)
{
	sessions->loading = true;
}

void
kda_sessions_end_loading(KdaSessions *sessions)
{
	KdaQuery   *query = sessions->query;
	kda_session_keys_iterator it;
	KdaSessionKeyEntry *entry;

	sessions->loading = false;
	if (query->shown == NULL)
		return;
	kda_session_keys_start_iterate(sessions->table, &it);
	while ((entry = kda_session_keys_iterate(sessions->table, &it)) != NULL)
		for (KdaSession *s = entry->key->newest; s; s = s->older)
		{
			if (query->early && (query->every_us > 0 || s->end > query->frontier))
				doubt(sessions, s);
			else if (s->end <= query->frontier)
				settle(sessions, s);
			else
				s->reopened = true; /* perhaps: then rows that are gone remember it */
		}
}

void
kda_sessions_remove(KdaSessions *sessions, KdaSession *s)
{
	if (s->newer)
		s->newer->older = s->older;
	else
		s->key->newest = s->older;
	if (s->older)
		s->older->newer = s->newer;
	uproot(&s->key->root, s);
	if (s->key->newest == NULL)
		remove_key(sessions, s->key);
	dequeue(sessions, s);
	unchange(s);
	sessions->nsessions--;
	pfree(s);
}

/* The window that was opened first of those that contain t and still take rows. */
static KdaSession *
touch_stagger(KdaSessions *sessions, KdaSessionKey *key, KdaTime t, KdaTime mark, const KdaSessionCalls *calls, void *arg)
{
	KdaSession *found = NULL;

	/* all have one length: their ends are in the order of their starts */
	for (KdaSession *s = kda_sessions_at(key, t); s && s->end > t; s = s->older)
		if (s->end > mark && (found == NULL || s->order < found->order))
			found = s;
	if (found == NULL)
		return add(sessions, key, t, t + sessions->window->size, sessions->next_order);
	if (calls)
		calls->hold(arg, found);
	note_change(sessions, found);
	return found;
}

KdaSession *
kda_sessions_touch(KdaSessions *sessions, KdaSessionKey *key, KdaTime t, KdaTime mark,
				   const KdaSessionCalls *calls, void *arg)
{
	KdaTime		end = t + sessions->window->size;
	KdaSession *s;

	if (unlikely(sessions->nended > 0))
		put_back(sessions);
	if (sessions->window->kind == KDA_WINDOW_STAGGER)
		return touch_stagger(sessions, key, t, mark, calls, arg);

	s = kda_sessions_at(key, end);
	if (s == NULL || s->end < t)
		return add(sessions, key, t, end, 0);

	/* the earliest one that the row joins takes in the others, in the order of time */
	while (s->older && s->older->end >= t)
		s = s->older;
	if (calls)
		calls->hold(arg, s);
	note_change(sessions, s);
	while (s->newer && s->newer->start <= end)
	{
		KdaSession *from = s->newer;

		note_change(sessions, from);

		if (calls)
		{
			calls->hold(arg, from);
			calls->join(arg, s, from);
		}
		s->end = Max(s->end, from->end);
		if (from->reopened)
		{
			s->reopened = true;
			note_change(sessions, s);
		}
		kda_sessions_remove(sessions, from);
	}
	s->start = Min(s->start, t);
	s->end = Max(s->end, end);
	return s;
}

/*---- ends */

/* The session that ends first; NULL: none. */
static KdaSession *
first(KdaSessions *sessions, pairingheap *queue)
{
	while (!pairingheap_is_empty(queue))
	{
		KdaSession *s = pairingheap_container(KdaSession, node, pairingheap_first(queue));

		if (s->due == s->end)
			return s;
		(void) pairingheap_remove_first(queue);
		enqueue(sessions, s);
	}
	return NULL;
}

static KdaTime
min_end(KdaSessions *sessions, pairingheap *queue)
{
	KdaSession *s;

	put_back(sessions);
	s = first(sessions, queue);
	return s ? s->end : KDA_END_TIME;
}

KdaTime
kda_sessions_min_end(KdaSessions *sessions)
{
	return min_end(sessions, sessions->queue);
}

KdaTime
kda_sessions_min_closed(KdaSessions *sessions)
{
	return min_end(sessions, sessions->closed_queue);
}

void
kda_sessions_settled(KdaSessions *sessions, KdaSession **list, int n, KdaTime closed)
{
	put_back(sessions);
	for (int i = 0; i < n; i++)
	{
		KdaSession *s = list[i];

		unchange(s);
		if (s->end <= closed)
			settle(sessions, s);
	}
}

static void
take_out(KdaSessions *sessions, pairingheap *queue, KdaTime upto)
{
	KdaSession *s;

	put_back(sessions);
	while ((s = first(sessions, queue)) != NULL && s->end <= upto)
	{
		if (sessions->nended == sessions->room)
		{
			sessions->room = Max(256, sessions->room * 2);
			sessions->ended = sessions->ended ?
				repalloc_huge(sessions->ended, sizeof(KdaSession *) * sessions->room) :
				MemoryContextAllocHuge(sessions->state, sizeof(KdaSession *) * sessions->room);
		}
		(void) pairingheap_remove_first(queue);
		s->queued = false;
		sessions->ended[sessions->nended++] = s;
	}
}

void
kda_sessions_end(KdaSessions *sessions, KdaTime upto)
{
	take_out(sessions, sessions->queue, upto);
}

void
kda_sessions_end_final(KdaSessions *sessions, KdaTime upto)
{
	take_out(sessions, sessions->query->shown ? sessions->closed_queue : sessions->queue, upto);
}
