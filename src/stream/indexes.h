/*-------------------------------------------------------------------------
 *
 * indexes.h
 *	  The indexes of a table of ours, while rows are written into it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_INDEXES_H
#define KDA_INDEXES_H

#include "kda_stream.h"
#include "nodes/execnodes.h"

typedef struct KdaIndexes
{
	EState	   *estate;			/* its memory for one row is emptied after each */
	ResultRelInfo *info;
} KdaIndexes;

extern void kda_indexes_open(KdaIndexes *indexes, Relation rel);
/* The row that has just been inserted from the slot. */
extern void kda_indexes_add(KdaIndexes *indexes, TupleTableSlot *slot);
extern void kda_indexes_close(KdaIndexes *indexes);

#endif							/* KDA_INDEXES_H */
