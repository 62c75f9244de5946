/*-------------------------------------------------------------------------
 *
 * arrival.c
 *	  Puts what a query's per-batch part gives into the order of its records.
 *
 * A join (also IN and EXISTS) gives rows in an order of its own, which depends
 * on the plan and on how records were cut into batches.  Where the order of
 * arrival decides, it must not.
 *
 * In a pipeline worker only.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/pg_operator.h"
#include "miscadmin.h"
#include "query/query.h"
#include "query/run.h"
#include "stream/fdw.h"
#include "utils/tuplesort.h"

static bool
are_in_order(Tuplestorestate *rows, TupleTableSlot *slot)
{
	int			last = -1;
	bool		in_order = true;

	while (in_order && tuplestore_gettupleslot(rows, true, false, slot))
	{
		bool		isnull;
		int			row = kda_tid_to_row((ItemPointer) DatumGetPointer(slot_getattr(slot, 1, &isnull)));

		in_order = row >= last;
		last = row;
	}
	ExecClearTuple(slot);
	tuplestore_rescan(rows);
	return in_order;
}

Tuplestorestate *
kda_in_order_of_arrival(Tuplestorestate *rows, TupleDesc desc)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	Tuplestorestate *sorted = rows;

	if (!are_in_order(rows, slot))
	{
		AttrNumber	attno = 1;
		Oid			operator = TIDLessOperator;
		Oid			collation = InvalidOid;
		bool		nulls_first = false;
		Tuplesortstate *sort = tuplesort_begin_heap(desc, 1, &attno, &operator, &collation, &nulls_first,
													work_mem, NULL, TUPLESORT_NONE);

		while (tuplestore_gettupleslot(rows, true, false, slot))
			tuplesort_puttupleslot(sort, slot);
		tuplestore_end(rows);
		sorted = tuplestore_begin_heap(false, false, work_mem);
		tuplesort_performsort(sort);
		while (tuplesort_gettupleslot(sort, true, false, slot, NULL))
			tuplestore_puttupleslot(sorted, slot);
		tuplesort_end(sort);
	}
	ExecDropSingleTupleTableSlot(slot);
	return sorted;
}
