/*-------------------------------------------------------------------------
 *
 * groups.c
 *	  Groups of open windows in memory: finding, reading back, evicting,
 *	  forgetting.  See groups.h for the rules.
 *
 * In a pipeline worker only.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/detoast.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "query/agg_signature.h"
#include "query/groups.h"
#include "query/sessions.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define NPARTITIONS		64
#define MIN_SESSION_BUCKET	(10 * USECS_PER_SEC)

/*---- hash tables */

typedef struct KdaGroupEntry
{
	KdaGroup   *group;			/* key */
	uint32		hash;
	char		status;
} KdaGroupEntry;

static bool probe_equal(KdaGroups *groups, KdaGroup *g);

/* A NULL key is the probe. */
static inline bool
entry_equal(KdaGroups *groups, KdaGroup *have, KdaGroup *want)
{
	return want == NULL ? probe_equal(groups, have) : have == want;
}

#define SH_PREFIX kda_group_table
#define SH_ELEMENT_TYPE KdaGroupEntry
#define SH_KEY_TYPE KdaGroup *
#define SH_KEY group
#define SH_HASH_KEY(tb, key) ((uint32) (key)->hash)
#define SH_EQUAL(tb, a, b) entry_equal((KdaGroups *) (tb)->private_data, (a), (b))
#define SH_SCOPE static inline
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct KdaEvicted
{
	uint64		hash;			/* key */
	ItemPointerData tid;
	KdaBucket  *bucket;
	struct KdaEvicted *more;	/* others of the same hash */
	char		status;
} KdaEvicted;

#define SH_PREFIX kda_evicted
#define SH_ELEMENT_TYPE KdaEvicted
#define SH_KEY_TYPE uint64
#define SH_KEY hash
#define SH_HASH_KEY(tb, key) ((uint32) ((key) >> 32) ^ (uint32) (key))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/*---- keys */

static inline uint64
hash_keys(KdaGroups *groups)
{
	return kda_keys_hash(groups->keys, groups->nkeys, groups->probe_values, groups->probe_nulls);
}

static bool
probe_equal(KdaGroups *groups, KdaGroup *g)
{
	bool	   *nulls = kda_group_nulls(groups, g);

	for (int i = groups->nkeys - 1; i >= 0; i--)
	{
		if (nulls[i] != groups->probe_nulls[i])
			return false;
		if (!nulls[i] && !kda_key_equal(&groups->keys[i], g->values[i], groups->probe_values[i]))
			return false;
	}
	return true;
}

/*---- buckets */

static KdaBucket *
find_bucket(KdaGroups *groups, int64 key)
{
	KdaBucket  *b = groups->last_bucket;
	int			slot;

	if (likely(b != NULL && b->key == key))
		return b;
	if (groups->nbuckets >= groups->nbucket_slots)
	{
		int			n = Max(64, groups->nbucket_slots * 2);
		KdaBucket **fresh = MemoryContextAllocZero(groups->state, sizeof(KdaBucket *) * n);

		for (int i = 0; i < groups->nbucket_slots; i++)
			while ((b = groups->buckets[i]) != NULL)
			{
				groups->buckets[i] = b->hash_next;
				slot = kda_mix(b->key) & (n - 1);
				b->hash_next = fresh[slot];
				fresh[slot] = b;
			}
		groups->buckets = fresh;
		groups->nbucket_slots = n;
	}
	slot = kda_mix(key) & (groups->nbucket_slots - 1);
	for (b = groups->buckets[slot]; b; b = b->hash_next)
		if (b->key == key)
			break;
	if (b == NULL)
	{
		b = MemoryContextAllocZero(groups->state, sizeof(KdaBucket));
		b->key = key;
		b->context = AllocSetContextCreate(groups->state, "kda groups", ALLOCSET_SMALL_SIZES);
		dlist_init(&b->groups);
		b->hash_next = groups->buckets[slot];
		groups->buckets[slot] = b;
		groups->nbuckets++;
	}
	groups->last_bucket = b;
	return b;
}

static int64
bucket_key(KdaGroups *groups, const Datum *values, const bool *nulls, uint64 hash)
{
	if (groups->query->shape != KDA_SHAPE_WINDOWS)
		return hash % NPARTITIONS;
	/* sessions that are touched at about the same time come to an end at about the same time */
	if (groups->sessions)
		return kda_floor_to(DatumGetTimestampTz(values[0]), Max(groups->query->window.size, MIN_SESSION_BUCKET));
	return nulls[0] ? PG_INT64_MIN : DatumGetTimestampTz(values[0]);
}

#define FOREACH_BUCKET(groups, b) \
	for (int i_ = 0; i_ < (groups)->nbucket_slots; i_++) \
		for (KdaBucket *b = (groups)->buckets[i_], *next_ = b ? b->hash_next : NULL; b; \
			 b = next_, next_ = b ? b->hash_next : NULL)

/*---- groups */

KdaGroup *
kda_group_make(KdaGroups *groups, uint64 hash)
{
	int			n = groups->nkeys + groups->naggs;
	KdaBucket  *bucket = find_bucket(groups, bucket_key(groups, groups->probe_values, groups->probe_nulls, hash));
	MemoryContext old = MemoryContextSwitchTo(bucket->context);
	KdaGroup   *g = palloc(offsetof(KdaGroup, values) + n * (sizeof(Datum) + sizeof(bool)));
	bool	   *nulls = kda_group_nulls(groups, g);

	g->hash = hash;
	g->bucket = bucket;
	g->dirty = g->reread = g->gone = false;
	g->session = NULL;
	ItemPointerSetInvalid(&g->tid);
	for (int i = 0; i < groups->nkeys; i++)
	{
		KdaKeySpec *key = &groups->keys[i];

		nulls[i] = groups->probe_nulls[i];
		if (nulls[i])
			g->values[i] = (Datum) 0;
		else if (key->byval)
			g->values[i] = groups->probe_values[i];
		else
			g->values[i] = kda_copy_value(groups->probe_values[i], false, key->len);
	}
	for (int i = 0; i < groups->naggs; i++)
	{
		KdaAggSpec *spec = &groups->aggs[i];

		nulls[groups->nkeys + i] = spec->init_null;
		g->values[groups->nkeys + i] = spec->init_null ? (Datum) 0 :
			datumCopy(spec->init, spec->byval, spec->len);
	}
	MemoryContextSwitchTo(old);
	dlist_push_tail(&bucket->groups, &g->node);
	bucket->nresident++;
	groups->nresident++;
	return g;
}

static KdaGroup *
new_group(KdaGroups *groups, uint64 hash)
{
	KdaGroup   *g = kda_group_make(groups, hash);
	bool		found;

	kda_group_table_insert_hash(groups->table, NULL, (uint32) hash, &found)->group = g;
	Assert(!found);
	return g;
}

void
kda_groups_remove(KdaGroups *groups, KdaGroup *g)
{
	KdaGroupEntry *entry = groups->sessions ? NULL :
		kda_group_table_lookup_hash(groups->table, g, (uint32) g->hash);

	if (entry)
		kda_group_table_delete_item(groups->table, entry);
	dlist_delete(&g->node);
	g->bucket->nresident--;
	g->bucket->ngarbage++;
	groups->nresident--;
}

void
kda_group_restore(KdaGroups *groups, KdaGroup *g)
{
	dlist_push_tail(&g->bucket->groups, &g->node);
	g->bucket->nresident++;
	g->bucket->ngarbage--;
	groups->nresident++;
}

void
kda_group_set_states(KdaGroups *groups, KdaGroup *g, TupleTableSlot *slot)
{
	bool	   *nulls = kda_group_nulls(groups, g);

	for (int i = 0; i < groups->naggs; i++)
	{
		int			att = KDA_OPEN_FIRST_KEY - 1 + groups->nkeys + i;

		g->values[groups->nkeys + i] = kda_agg_restore(groups, &groups->aggs[i], slot->tts_values[att],
													   slot->tts_isnull[att], g->bucket->context,
													   &nulls[groups->nkeys + i]);
	}
}

void
kda_groups_set_probe(KdaGroups *groups, TupleTableSlot *slot)
{
	for (int i = 0; i < groups->nkeys; i++)
	{
		groups->probe_values[i] = slot->tts_values[KDA_OPEN_FIRST_KEY - 1 + i];
		groups->probe_nulls[i] = slot->tts_isnull[KDA_OPEN_FIRST_KEY - 1 + i];
		if (!groups->probe_nulls[i] && groups->keys[i].len == -1 &&
			VARATT_IS_EXTENDED(DatumGetPointer(groups->probe_values[i])))
			groups->probe_values[i] = PointerGetDatum(detoast_attr((struct varlena *) DatumGetPointer(groups->probe_values[i])));
	}
}

static void
add_evicted(KdaGroups *groups, uint64 hash, ItemPointer tid, KdaBucket *bucket)
{
	bool		found;
	KdaEvicted *e = kda_evicted_insert(groups->evicted, hash, &found);

	if (found)
	{
		KdaEvicted *more = MemoryContextAlloc(groups->state, sizeof(KdaEvicted));

		*more = *e;
		e->more = more;
	}
	else
		e->more = NULL;
	e->hash = hash;
	e->tid = *tid;
	e->bucket = bucket;
	bucket->nevicted++;
	groups->nevicted++;
}

/* Removes the entry with that address; there is one. */
static void
remove_evicted(KdaGroups *groups, KdaEvicted *head, ItemPointer tid)
{
	KdaEvicted *e = head;

	while (!ItemPointerEquals(&e->tid, tid))
		e = e->more;
	e->bucket->nevicted--;
	groups->nevicted--;
	if (head->more)
	{
		/* the head takes the place of the one that goes */
		KdaEvicted *second = head->more;

		e->tid = head->tid;
		e->bucket = head->bucket;
		head->tid = second->tid;
		head->bucket = second->bucket;
		head->more = second->more;
		pfree(second);
	}
	else
		kda_evicted_delete_item(groups->evicted, head);
}

/* Is the probe's group among the evicted ones?  Then it is read back. */
static KdaGroup *
read_back(KdaGroups *groups, uint64 hash)
{
	KdaEvicted *head = kda_evicted_lookup(groups->evicted, hash);
	Relation	rel;
	TupleTableSlot *slot;
	KdaGroup   *g = NULL;

	if (head == NULL)
		return NULL;
	rel = table_open(groups->query->open_rel, RowExclusiveLock);
	slot = table_slot_create(rel, NULL);
	for (KdaEvicted *e = head; e && g == NULL; e = e->more)
	{
		bool		same = true;

		if (!table_tuple_fetch_row_version(rel, &e->tid, SnapshotAny, slot))
			elog(ERROR, "a group of %s has vanished from its table", groups->query->name);
		slot_getallattrs(slot);
		for (int i = 0; i < groups->nkeys && same; i++)
		{
			int			att = KDA_OPEN_FIRST_KEY - 1 + i;

			same = slot->tts_isnull[att] == groups->probe_nulls[i] &&
				(slot->tts_isnull[att] ||
				 kda_key_equal(&groups->keys[i], groups->keys[i].len == -1 ?
						   PointerGetDatum(PG_DETOAST_DATUM_PACKED(slot->tts_values[att])) :
						   slot->tts_values[att], groups->probe_values[i]));
		}
		if (!same)
			continue;
		g = new_group(groups, hash);
		g->tid = e->tid;
		kda_group_set_states(groups, g, slot);
		remove_evicted(groups, head, &g->tid);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	return g;
}

void
kda_group_dirty(KdaGroups *groups, KdaGroup *g)
{
	if (g->dirty)
		return;
	if (groups->ndirty == groups->dirty_room)
	{
		groups->dirty_room = Max(1024, groups->dirty_room * 2);
		groups->dirty = groups->dirty ?
			repalloc_huge(groups->dirty, sizeof(KdaGroup *) * groups->dirty_room) :
			MemoryContextAllocHuge(groups->context, sizeof(KdaGroup *) * groups->dirty_room);
	}
	groups->dirty[groups->ndirty++] = g;
	g->dirty = true;
	g->bucket->last_used = groups->transaction;
}

KdaGroup *
kda_groups_touch(KdaGroups *groups)
{
	uint64		hash;
	KdaGroupEntry *entry;
	KdaGroup   *g;

	if (groups->sessions)
		return kda_session_group(groups);
	hash = hash_keys(groups);
	entry = kda_group_table_lookup_hash(groups->table, NULL, (uint32) hash);
	if (likely(entry != NULL))
		g = entry->group;
	else
	{
		g = groups->nevicted > 0 ? read_back(groups, hash) : NULL;
		if (g == NULL)
			g = new_group(groups, hash);
	}
	kda_group_dirty(groups, g);
	return g;
}

/*---- binding to the table */

static Size
memory_used(KdaGroups *groups)
{
	return MemoryContextMemAllocated(groups->state, true);
}

static void
load(KdaGroups *groups, Relation rel)
{
	TableScanDesc scan;
	TupleTableSlot *slot;
	MemoryContext old;

	kda_groups_forget(groups);
	if (groups->sessions)
		kda_sessions_begin_loading(groups->sessions);
	slot = table_slot_create(rel, NULL);
	PushActiveSnapshot(GetLatestSnapshot());
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	old = MemoryContextSwitchTo(groups->temp);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		uint64		hash;
		bool		resident = groups->nresident % 256 != 0 || memory_used(groups) < groups->budget / 2;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(groups->temp);
		slot_getallattrs(slot);
		if (DatumGetInt16(slot->tts_values[0]) != groups->query->slot)
			continue;			/* another process's */
		kda_groups_set_probe(groups, slot);
		if (groups->sessions)
		{
			kda_session_group_load(groups, slot, resident);
			continue;
		}
		hash = hash_keys(groups);
		if (resident)
		{
			KdaGroup   *g = new_group(groups, hash);

			g->tid = slot->tts_tid;
			kda_group_set_states(groups, g, slot);
		}
		else
			add_evicted(groups, hash, &slot->tts_tid,
						find_bucket(groups, bucket_key(groups, groups->probe_values, groups->probe_nulls, hash)));
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(groups->temp);
	table_endscan(scan);
	PopActiveSnapshot();
	if (groups->sessions)
		kda_sessions_end_loading(groups->sessions);
	ExecDropSingleTupleTableSlot(slot);
	groups->bound = true;
	groups->file = kda_relation_file(rel);
}

void
kda_groups_prepare(KdaGroups *groups)
{
	Relation	rel = table_open(groups->query->open_rel, RowExclusiveLock);

	/* VACUUM FULL and its like have moved every tuple */
	if (!groups->bound || groups->file != kda_relation_file(rel))
		load(groups, rel);
	table_close(rel, NoLock);
}

KdaGroups *
kda_groups_create(KdaQuery *query, Size budget)
{
	MemoryContext context = AllocSetContextCreate(query->context, "kda groups of a query",
												  ALLOCSET_DEFAULT_SIZES);
	KdaGroups  *groups = MemoryContextAllocZero(context, sizeof(KdaGroups));
	Relation	view = relation_open(query->batch_rel, AccessShareLock);
	Query	   *batch = kda_view_query(view);
	ListCell   *lc;
	int			i = 0;

	groups->query = query;
	groups->context = context;
	groups->state = AllocSetContextCreate(context, "kda group states", ALLOCSET_DEFAULT_SIZES);
	groups->temp = AllocSetContextCreate(context, "kda group temp", ALLOCSET_DEFAULT_SIZES);
	groups->restoring = AllocSetContextCreate(context, "kda group restored", ALLOCSET_DEFAULT_SIZES);
	groups->budget = budget;
	groups->aggstate = kda_fake_aggstate(context, &groups->aggcontext);
	groups->nkeys = query->nkeys;
	groups->naggs = list_length(batch->targetList) - query->nkeys;
	groups->keys = MemoryContextAllocZero(context, sizeof(KdaKeySpec) * (groups->nkeys + 1));
	groups->aggs = MemoryContextAllocZero(context, sizeof(KdaAggSpec) * (groups->naggs + 1));
	groups->probe_values = MemoryContextAllocZero(context, sizeof(Datum) * (groups->nkeys + 1));
	groups->probe_nulls = MemoryContextAllocZero(context, sizeof(bool) * (groups->nkeys + 1));
	if (query->shape == KDA_SHAPE_WINDOWS && !kda_window_is_aligned(&query->window))
		kda_session_groups_init(groups);
	foreach(lc, batch->targetList)
	{
		Node	   *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;

		if (i < groups->nkeys)
			kda_key_make(groups->context, &groups->keys[i], expr);
		else
			kda_agg_make(groups, &groups->aggs[i - groups->nkeys], castNode(Aggref, expr));
		i++;
	}
	relation_close(view, NoLock);
	return groups;
}

void
kda_groups_free(KdaGroups *groups)
{
	MemoryContextDelete(groups->context);
}

void
kda_groups_forget(KdaGroups *groups)
{
	MemoryContextReset(groups->state);
	groups->table = kda_group_table_create(groups->state, 256, groups);
	groups->evicted = kda_evicted_create(groups->state, 16, NULL);
	if (groups->sessions)
		kda_sessions_forget(groups->sessions);
	groups->nevicted = 0;
	groups->buckets = NULL;
	groups->nbucket_slots = groups->nbuckets = 0;
	groups->last_bucket = NULL;
	groups->nresident = 0;
	groups->ndirty = 0;
	groups->nundo = groups->undo_mark = 0;
	groups->bound = false;
}

/*---- transactions */

void
kda_groups_begin_attempt(KdaGroups *groups)
{
	groups->undo_mark = groups->nundo;
}

/* The state as the table has it: the tuple that the group's address says. */
static void
reread(KdaGroups *groups, KdaGroup *g, Relation rel, TupleTableSlot *slot)
{
	if (!g->reread)
		return;
	g->reread = false;
	g->dirty = false;
	if (!ItemPointerIsValid(&g->tid))
	{
		kda_groups_remove(groups, g);
		return;
	}
	if (!table_tuple_fetch_row_version(rel, &g->tid, SnapshotAny, slot))
		elog(ERROR, "a group of %s has vanished from its table", groups->query->name);
	slot_getallattrs(slot);
	kda_group_set_states(groups, g, slot);
}

void
kda_groups_abort_query(KdaGroups *groups)
{
	Relation	rel;
	TupleTableSlot *slot;
	int			nundo = groups->nundo;

	if (!groups->bound)
		return;
	if (groups->sessions)
	{
		kda_session_groups_abort(groups);
		return;
	}
	for (int i = groups->nundo - 1; i >= groups->undo_mark; i--)
	{
		groups->undo[i].group->tid = groups->undo[i].old;
		groups->undo[i].group->reread = true;
	}
	for (int i = 0; i < groups->ndirty; i++)
		groups->dirty[i]->reread = true;

	rel = table_open(groups->query->open_rel, RowExclusiveLock);
	slot = table_slot_create(rel, NULL);
	/* a removed group's memory stays until its bucket goes, so both lists can be walked */
	for (int i = groups->undo_mark; i < nundo; i++)
		reread(groups, groups->undo[i].group, rel, slot);
	for (int i = 0; i < groups->ndirty; i++)
		reread(groups, groups->dirty[i], rel, slot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	groups->nundo = groups->undo_mark;
	groups->ndirty = 0;
}

static void
evict(KdaGroups *groups, KdaBucket *b)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &b->groups)
	{
		KdaGroup   *g = dlist_container(KdaGroup, node, iter.cur);

		if (groups->sessions)
			kda_session_group_evict(g);
		else
			add_evicted(groups, g->hash, &g->tid, b);
		kda_groups_remove(groups, g);
	}
	dlist_init(&b->groups);
	MemoryContextReset(b->context);
	b->ngarbage = 0;
}

/* slot: of the hash table, where it is. */
static void
drop_bucket(KdaGroups *groups, KdaBucket *b, int slot)
{
	KdaBucket **link;

	for (link = &groups->buckets[slot]; *link != b; link = &(*link)->hash_next)
		;
	*link = b->hash_next;
	MemoryContextDelete(b->context);
	if (groups->last_bucket == b)
		groups->last_bucket = NULL;
	pfree(b);
	groups->nbuckets--;
}

/* Sessions leave their buckets one by one: what is mostly garbage makes room. */
static void
tidy(KdaGroups *groups)
{
	/* what time has left behind of the tables that find them */
	if (groups->sessions->nsessions == 0 && groups->nbuckets > 0)
	{
		kda_groups_forget(groups);
		groups->bound = true;	/* the table is empty, too */
		return;
	}
	FOREACH_BUCKET(groups, b)
	{
		if (b->nresident == 0)
			drop_bucket(groups, b, i_);
		else if (b->ngarbage > Max(b->nresident, 100))
			evict(groups, b);
	}
}

/* All groups are clean here: buckets that have not been used for longest go first. */
void
kda_groups_at_commit(KdaGroups *groups)
{
	groups->nundo = groups->undo_mark = 0;
	groups->transaction++;
	if (groups->ndirty > 0)
		kda_groups_forget(groups);	/* its query has failed */
	if (!groups->bound)
		return;
	if (groups->sessions)
		tidy(groups);
	while (memory_used(groups) > groups->budget)
	{
		KdaBucket  *oldest = NULL;

		FOREACH_BUCKET(groups, b)
			if (b->nresident > 0 && (oldest == NULL || b->last_used < oldest->last_used))
				oldest = b;
		if (oldest == NULL)
			break;
		evict(groups, oldest);
	}
}

void
kda_groups_at_abort(KdaGroups *groups)
{
	kda_groups_forget(groups);
}

void
kda_groups_stats(KdaGroups *groups, int64 *ngroups, int64 *nwindows, int64 *bytes)
{
	*ngroups = groups->sessions ? groups->sessions->nsessions : groups->nresident + groups->nevicted;
	*nwindows = groups->sessions ? groups->sessions->nsessions :
		groups->query->shape == KDA_SHAPE_WINDOWS ? groups->nbuckets : 0;
	*bytes = memory_used(groups);
}

KdaTime
kda_groups_min_window_end(KdaGroups *groups)
{
	KdaQuery   *query = groups->query;
	KdaTime		least = KDA_END_TIME;
	KdaTime		start,
				end;

	if (groups->sessions)
		return kda_sessions_min_end(groups->sessions);
	FOREACH_BUCKET(groups, b)
		if (b->nresident + b->nevicted > 0 && kda_window_next(&query->window, b->key, query->frontier, &start, &end))
			least = Min(least, end);
	return least;
}

static int
by_time(const void *a, const void *b)
{
	KdaTime		ta = *(const KdaTime *) a;
	KdaTime		tb = *(const KdaTime *) b;

	return ta < tb ? -1 : ta > tb;
}

KdaTime *
kda_groups_window_ends(KdaGroups *groups, KdaTime upto, int *n)
{
	KdaQuery   *query = groups->query;
	int			room = 64;
	KdaTime    *ends = palloc(sizeof(KdaTime) * room);
	int			found = 0;

	/* after a start or an abort time may go on before the query's next row comes */
	if (!groups->bound)
		kda_groups_prepare(groups);
	FOREACH_BUCKET(groups, b)
	{
		KdaTime		after = query->forgotten;
		KdaTime		start,
					end;

		if (b->nresident + b->nevicted == 0)
			continue;
		while (kda_window_next(&query->window, b->key, after, &start, &end) && end <= upto)
		{
			if (found == room)
				ends = repalloc_huge(ends, sizeof(KdaTime) * (room *= 2));
			ends[found++] = after = end;
			if (TIMESTAMP_NOT_FINITE(end))
				break;
		}
	}
	qsort(ends, found, sizeof(KdaTime), by_time);
	*n = 0;
	for (int i = 0; i < found; i++)
		if (*n == 0 || ends[*n - 1] != ends[i])
			ends[(*n)++] = ends[i];
	return ends;
}

uint32
kda_groups_hash_tuple(KdaGroups *groups, TupleTableSlot *slot, int first_key)
{
	kda_groups_set_probe(groups, slot);
	for (int i = 0; i < first_key; i++)
		groups->probe_nulls[i] = true;
	return (uint32) hash_keys(groups);
}

/*---- closing */

static int
by_tid(const void *a, const void *b)
{
	return ItemPointerCompare((ItemPointer) a, (ItemPointer) b);
}

/* Groups of windows that end at or before frontier: forgotten.  Gives the addresses of their tuples. */
static ItemPointer
close_buckets(KdaGroups *groups, KdaTime frontier, int64 *ntids)
{
	int64		room = groups->nresident + groups->nevicted;
	ItemPointer tids = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(ItemPointerData) * (room + 1));
	int64		n = 0;

	FOREACH_BUCKET(groups, b)
	{
		KdaTime		end = kda_window_last_end(&groups->query->window, b->key);
		dlist_mutable_iter iter;

		if (end > frontier)
			continue;
		dlist_foreach_modify(iter, &b->groups)
		{
			KdaGroup   *g = dlist_container(KdaGroup, node, iter.cur);

			if (ItemPointerIsValid(&g->tid))
				tids[n++] = g->tid;
			kda_groups_remove(groups, g);
		}
		if (b->nevicted > 0)
		{
			kda_evicted_iterator it;
			KdaEvicted *e;
			uint64	   *hashes = palloc_extended(sizeof(uint64) * b->nevicted, MCXT_ALLOC_HUGE);
			int64		nhashes = 0;

			kda_evicted_start_iterate(groups->evicted, &it);
			while ((e = kda_evicted_iterate(groups->evicted, &it)) != NULL)
				for (KdaEvicted *m = e; m; m = m->more)
					if (m->bucket == b)
					{
						tids[n++] = m->tid;
						hashes[nhashes++] = e->hash;
					}
			for (int64 i = 0; i < nhashes; i++)
				remove_evicted(groups, kda_evicted_lookup(groups->evicted, hashes[i]), &tids[n - nhashes + i]);
			pfree(hashes);
		}
		drop_bucket(groups, b, i_);
	}
	*ntids = n;
	return tids;
}

void
kda_groups_close(KdaGroups *groups, KdaTime frontier)
{
	int64		n;
	ItemPointer tids = groups->sessions ? kda_session_groups_close(groups, frontier, &n) :
		close_buckets(groups, frontier, &n);

	if (n > 0)
	{
		Relation	rel = table_open(groups->query->open_rel, RowExclusiveLock);
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

		qsort(tids, n, sizeof(ItemPointerData), by_tid);
		for (int64 i = 0; i < n; i++)
		{
			if (i % 1024 == 0)
				CHECK_FOR_INTERRUPTS();
			simple_table_tuple_delete(rel, &tids[i], snapshot);
		}
		UnregisterSnapshot(snapshot);
		table_close(rel, NoLock);
	}
	pfree(tids);
	/* the undo log speaks of groups that are gone; a later abort forgets everything */
	groups->nundo = groups->undo_mark = 0;
	if (groups->sessions)
		tidy(groups);
}
