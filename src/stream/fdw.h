/*-------------------------------------------------------------------------
 *
 * fdw.h
 *	  How a scan of a stream in a worker finds its batch.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_FDW_H
#define KDA_FDW_H

#include "kda_stream.h"
#include "storage/itemptr.h"
#include "stream/stream.h"

/*
 * In a worker: the stream whose batch a scan of that relation gives; NULL when
 * the relation is none of this worker's (the scan is empty then).
 */
extern KdaStream *(*kda_current_stream) (Oid relid);

/* While a per-batch part is planned: the batch's size. */
extern double kda_plan_row_estimate;

/* A row's place in the batch travels as its ctid. */
#define KDA_ROWS_PER_BLOCK	1024

static inline void
kda_row_to_tid(int row, ItemPointer tid)
{
	ItemPointerSet(tid, row / KDA_ROWS_PER_BLOCK, row % KDA_ROWS_PER_BLOCK + 1);
}

static inline int
kda_tid_to_row(ItemPointer tid)
{
	return ItemPointerGetBlockNumberNoCheck(tid) * KDA_ROWS_PER_BLOCK +
		ItemPointerGetOffsetNumberNoCheck(tid) - 1;
}

#endif							/* KDA_FDW_H */
