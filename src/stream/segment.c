/*-------------------------------------------------------------------------
 *
 * segment.c
 *	  Reading a stream's storage in the order in which its rows came.
 *
 * Sessions write side by side, and rows go where a page has room: where a row
 * lies says nothing about when it came.  So both segments are read by their
 * index on (kda_xid, kda_seq) and merged.  The worker reads the inbox so, and
 * whoever looks at a stream, inbox and ring.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/table.h"
#include "access/tableam.h"
#include "storage/bufmgr.h"
#include "stream/segment.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

static void
start_scan(KdaSegmentCursor *c, Snapshot snapshot, uint64 xid, int64 seq, bool within)
{
	ScanKeyData keys[2];

	c->within = within;
	c->from_xid = xid;
	if (within)
	{
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_XID8EQ, UInt64GetDatum(xid));
		ScanKeyInit(&keys[1], 2, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(seq));
	}
	else
		ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_XID8GE, UInt64GetDatum(xid));
	c->scan = kda_index_beginscan(c->rel, c->index, snapshot, within ? 2 : 1);
	index_rescan(c->scan, keys, within ? 2 : 1, NULL, 0);
}

static void
advance(KdaSegmentCursor *c, Snapshot snapshot)
{
	bool		isnull;

	c->valid = index_getnext_slot(c->scan, ForwardScanDirection, c->slot);
	if (!c->valid && c->within)
	{
		index_endscan(c->scan);
		start_scan(c, snapshot, c->from_xid + 1, 0, false);
		c->valid = index_getnext_slot(c->scan, ForwardScanDirection, c->slot);
	}
	if (!c->valid)
		return;
	c->xid = DatumGetUInt64(slot_getattr(c->slot, 1, &isnull));
	c->seq = DatumGetInt64(slot_getattr(c->slot, 2, &isnull));
}

void
kda_segments_open(KdaSegments *s, Oid a, Oid b, Snapshot snapshot, uint64 xid, int64 seq, bool within)
{
	memset(s, 0, sizeof(*s));
	s->snapshot = snapshot;
	for (int i = 0; i < 2; i++)
	{
		KdaSegmentCursor *c = &s->cursors[i];
		Oid			segment = i == 0 ? a : b;
		List	   *indexes;

		if (!OidIsValid(segment))
			continue;
		c->rel = table_open(segment, AccessShareLock);
		if (RelationGetNumberOfBlocks(c->rel) == 0)
		{
			table_close(c->rel, NoLock);
			c->rel = NULL;
			continue;
		}
		indexes = RelationGetIndexList(c->rel);
		if (indexes == NIL)
			elog(ERROR, "the index of %s is missing", RelationGetRelationName(c->rel));
		c->index = index_open(linitial_oid(indexes), AccessShareLock);
		c->slot = table_slot_create(c->rel, NULL);
		start_scan(c, snapshot, xid, seq, within);
		advance(c, snapshot);
	}
}

KdaSegmentCursor *
kda_segments_row(KdaSegments *s)
{
	KdaSegmentCursor *a = &s->cursors[0];
	KdaSegmentCursor *b = &s->cursors[1];

	if (!a->valid || (b->valid && (b->xid < a->xid || (b->xid == a->xid && b->seq < a->seq))))
		a = b;
	return a->valid ? a : NULL;
}

void
kda_segments_advance(KdaSegments *s)
{
	KdaSegmentCursor *c = kda_segments_row(s);

	if (c)
		advance(c, s->snapshot);
}

void
kda_segments_close(KdaSegments *s)
{
	for (int i = 0; i < 2; i++)
	{
		KdaSegmentCursor *c = &s->cursors[i];

		if (c->rel == NULL)
			continue;
		index_endscan(c->scan);
		ExecDropSingleTupleTableSlot(c->slot);
		index_close(c->index, NoLock);
		table_close(c->rel, NoLock);
		c->rel = NULL;
		c->valid = false;
	}
}
