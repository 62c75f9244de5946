/*-------------------------------------------------------------------------
 *
 * segment.h
 *	  The rows of a stream's two segments, as one, in the order in which they
 *	  came: (kda_xid, kda_seq), their first two columns and their index.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_SEGMENT_H
#define KDA_SEGMENT_H

#include "kda_stream.h"
#include "access/genam.h"
#include "executor/tuptable.h"

typedef struct KdaSegmentCursor
{
	Relation	rel;			/* NULL: empty, or not there */
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	bool		within;			/* first the rest of the transaction that we stopped in */
	uint64		from_xid;
	bool		valid;			/* slot has a row: of this xid, seq */
	uint64		xid;
	int64		seq;
} KdaSegmentCursor;

typedef struct KdaSegments
{
	KdaSegmentCursor cursors[2];
	Snapshot	snapshot;
} KdaSegments;

/*
 * The rows that the snapshot sees, from that transaction on; within: from what
 * comes after that row of it.  Either segment may be InvalidOid.  Memory is of
 * the current context; calls of the others have to come in one that lives as
 * long.
 */
extern void kda_segments_open(KdaSegments *s, Oid a, Oid b, Snapshot snapshot, uint64 xid, int64 seq, bool within);
/* Where the next row stands, until advance; NULL: no more. */
extern KdaSegmentCursor *kda_segments_row(KdaSegments *s);
extern void kda_segments_advance(KdaSegments *s);
extern void kda_segments_close(KdaSegments *s);

#endif							/* KDA_SEGMENT_H */
