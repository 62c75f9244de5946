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
#include "nodes/execnodes.h"
#include "storage/itemptr.h"
#include "stream/stream.h"
#include "stream/window.h"

/*
 * In a worker: the stream whose batch a scan of that relation gives; NULL when
 * the relation is none of this worker's (the scan is empty then).
 */
extern KdaStream *(*kda_current_stream) (Oid relid);

/*
 * A node that reads a stream can do so by columns.  In a worker: the batch that
 * a plan node below it scans, and its stream's attribute (0: none) that a
 * column of the node's result is; NULL if the node is no scan of a batch.
 */
extern KdaBatch *kda_scan_batch(PlanState *node);
extern AttrNumber kda_scan_column(PlanState *node, AttrNumber result_column);
/*
 * Is a column of the node's result kda.window_start(time, description) of
 * windows that are counted in microseconds?  attno: the attribute that is the
 * time; 0: the record's rowtime.
 */
extern bool kda_scan_window(PlanState *node, AttrNumber result_column, AttrNumber *attno, KdaWindowSpec *window);
/* Puts a row into the scan's slot, the attributes that the node's own expressions read. */
extern TupleTableSlot *kda_scan_load(PlanState *node, int row);

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
