/*-------------------------------------------------------------------------
 *
 * writeback.c
 *	  Changed groups to the open table: new ones in bulk, the others in place at
 *	  the tuple address that the cache remembers.  The cache needs no index; a
 *	  table has one only where its final part looks up single windows.
 *
 * Updates go in the order of the table; each page is pruned once before, or
 * every second update would leave it for want of room.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "query/agg_signature.h"
#include "query/groups.h"
#include "runtime/fault.h"
#include "storage/bufmgr.h"
#include "stream/indexes.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define INSERT_ROWS	500

static int
by_address(const void *a, const void *b)
{
	const KdaGroup *ga = *(KdaGroup *const *) a;
	const KdaGroup *gb = *(KdaGroup *const *) b;

	return ItemPointerCompare((ItemPointer) &ga->tid, (ItemPointer) &gb->tid);
}

/* Stored keys and states of a group into a slot; by-reference ones in the current context. */
static void
fill_slot(KdaGroups *groups, KdaGroup *g, TupleTableSlot *slot)
{
	bool	   *nulls = kda_group_nulls(groups, g);
	int			att = 0;

	ExecClearTuple(slot);
	slot->tts_values[att] = Int16GetDatum(groups->query->slot);
	slot->tts_isnull[att++] = false;
	for (int i = 0; i < groups->nkeys; i++, att++)
	{
		slot->tts_values[att] = g->values[i];
		slot->tts_isnull[att] = nulls[i];
	}
	for (int i = 0; i < groups->naggs; i++, att++)
		slot->tts_values[att] = kda_agg_store(groups, &groups->aggs[i], g->values[groups->nkeys + i],
											  nulls[groups->nkeys + i], &slot->tts_isnull[att]);
	ExecStoreVirtualTuple(slot);
}

static void
remember(KdaGroups *groups, KdaGroup *g)
{
	if (groups->nundo == groups->undo_room)
	{
		groups->undo_room = Max(1024, groups->undo_room * 2);
		groups->undo = groups->undo ?
			repalloc_huge(groups->undo, sizeof(KdaUndo) * groups->undo_room) :
			MemoryContextAllocHuge(groups->context, sizeof(KdaUndo) * groups->undo_room);
	}
	groups->undo[groups->nundo].group = g;
	groups->undo[groups->nundo++].old = g->tid;
}

static void
insert_groups(KdaGroups *groups, Relation rel, KdaIndexes *indexes, KdaGroup **list, int n, CommandId cid)
{
	TupleTableSlot *slots[INSERT_ROWS];
	BulkInsertState bistate = GetBulkInsertState();
	int			nslots = Min(n, INSERT_ROWS);

	for (int i = 0; i < nslots; i++)
	{
		slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
		slots[i]->tts_tableOid = RelationGetRelid(rel);
	}
	for (int from = 0; from < n; from += INSERT_ROWS)
	{
		int			m = Min(INSERT_ROWS, n - from);
		MemoryContext old = MemoryContextSwitchTo(groups->temp);

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < m; i++)
		{
			KDA_FAULT("write_back_new");
			fill_slot(groups, list[from + i], slots[i]);
		}
		table_multi_insert(rel, slots, m, cid, 0, bistate);
		MemoryContextSwitchTo(old);
		for (int i = 0; i < m; i++)
		{
			remember(groups, list[from + i]);
			list[from + i]->tid = slots[i]->tts_tid;
			kda_indexes_add(indexes, slots[i]);
			ExecClearTuple(slots[i]);
		}
		MemoryContextReset(groups->temp);
	}
	for (int i = 0; i < nslots; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	FreeBulkInsertState(bistate);
	table_finish_bulk_insert(rel, 0);
}

static void
update_groups(KdaGroups *groups, Relation rel, KdaIndexes *indexes, KdaGroup **list, int n)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	BlockNumber pruned = InvalidBlockNumber;
	bool		heap = rel->rd_rel->relam == HEAP_TABLE_AM_OID;

	slot->tts_tableOid = RelationGetRelid(rel);
	for (int i = 0; i < n; i++)
	{
		KdaGroup   *g = list[i];
		BlockNumber block = ItemPointerGetBlockNumber(&g->tid);
		ItemPointerData tid = g->tid;
		MemoryContext old;
		bool		index;

		if (heap && block != pruned)
		{
			Buffer		buffer = ReadBuffer(rel, block);

			CHECK_FOR_INTERRUPTS();
			heap_page_prune_opt(rel, buffer);
			ReleaseBuffer(buffer);
			pruned = block;
		}
		KDA_FAULT("write_back");
		old = MemoryContextSwitchTo(groups->temp);
		fill_slot(groups, g, slot);
		kda_table_tuple_update(rel, &tid, slot, snapshot, &index);
		if (index)
			kda_indexes_add(indexes, slot);
		MemoryContextSwitchTo(old);
		remember(groups, g);
		g->tid = slot->tts_tid;
		ExecClearTuple(slot);
		if (i % 64 == 63)
			MemoryContextReset(groups->temp);
	}
	MemoryContextReset(groups->temp);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
}

/* Sessions that are part of others now. */
static void
delete_gone(KdaGroups *groups, Relation rel)
{
	Snapshot	snapshot = NULL;

	for (int i = 0; i < groups->ndirty; i++)
	{
		KdaGroup   *g = groups->dirty[i];

		if (!g->gone || !ItemPointerIsValid(&g->tid))
			continue;
		if (snapshot == NULL)
			snapshot = RegisterSnapshot(GetLatestSnapshot());
		simple_table_tuple_delete(rel, &g->tid, snapshot);
		remember(groups, g);
		ItemPointerSetInvalid(&g->tid);
	}
	if (snapshot)
		UnregisterSnapshot(snapshot);
}

void
kda_groups_write_back(KdaGroups *groups)
{
	Relation	rel;
	KdaGroup  **fresh;
	KdaGroup  **known;
	int			nfresh = 0,
				nknown = 0;
	CommandId	cid;
	KdaIndexes	indexes;

	if (groups->ndirty == 0)
		return;
	rel = table_open(groups->query->open_rel, RowExclusiveLock);
	/* tuples that this command has written must not be updated by it again */
	CommandCounterIncrement();
	cid = GetCurrentCommandId(true);
	fresh = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(KdaGroup *) * groups->ndirty);
	known = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(KdaGroup *) * groups->ndirty);
	for (int i = 0; i < groups->ndirty; i++)
	{
		if (groups->dirty[i]->gone)
			continue;
		if (ItemPointerIsValid(&groups->dirty[i]->tid))
			known[nknown++] = groups->dirty[i];
		else
			fresh[nfresh++] = groups->dirty[i];
	}
	if (groups->sessions)
		delete_gone(groups, rel);
	kda_indexes_open(&indexes, rel);
	qsort(known, nknown, sizeof(KdaGroup *), by_address);
	if (nknown > 0)
		update_groups(groups, rel, &indexes, known, nknown);
	if (nfresh > 0)
		insert_groups(groups, rel, &indexes, fresh, nfresh, cid);
	for (int i = 0; i < groups->ndirty; i++)
		groups->dirty[i]->dirty = false;
	groups->ndirty = 0;
	kda_indexes_close(&indexes);
	pfree(fresh);
	pfree(known);
	table_close(rel, NoLock);
}

ItemPointer
kda_groups_written(KdaGroups *groups, int *n)
{
	ItemPointer tids;
	*n = 0;
	if (groups->nundo == 0)
		return NULL;
	tids = palloc_extended(sizeof(ItemPointerData) * groups->nundo, MCXT_ALLOC_HUGE);
	/* a group may have been written several times: its last address counts */
	for (int i = 0; i < groups->nundo; i++)
		groups->undo[i].group->reread = true;
	for (int i = 0; i < groups->nundo; i++)
	{
		KdaGroup   *g = groups->undo[i].group;

		if (!g->reread)
			continue;
		g->reread = false;
		if (ItemPointerIsValid(&g->tid))
			tids[(*n)++] = g->tid;
	}
	return tids;
}
