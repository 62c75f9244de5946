/*-------------------------------------------------------------------------
 *
 * indexes.c
 *	  Rows that are inserted below the executor come into the table's indexes.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "executor/executor.h"
#include "stream/indexes.h"
#include "utils/rel.h"

void
kda_indexes_open(KdaIndexes *indexes, Relation rel)
{
	indexes->estate = CreateExecutorState();
	indexes->info = makeNode(ResultRelInfo);
	InitResultRelInfo(indexes->info, rel, 1, NULL, 0);
	ExecOpenIndices(indexes->info, false);
}

void
kda_indexes_add(KdaIndexes *indexes, TupleTableSlot *slot)
{
	if (indexes->info->ri_NumIndices > 0)
		list_free(kda_insert_index_tuples(indexes->info, slot, indexes->estate));
	ResetPerTupleExprContext(indexes->estate);
}

void
kda_indexes_close(KdaIndexes *indexes)
{
	ExecCloseIndices(indexes->info);
	FreeExecutorState(indexes->estate);
}
