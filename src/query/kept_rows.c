/*-------------------------------------------------------------------------
 *
 * kept_rows.c
 *	  State rows: the columns of records that open windows still need, in a
 *	  logged table, and which windows they are in.
 *
 * The table is the truth; in memory there is only the list of ends of open
 * windows, so that each commit knows at once whether one has closed.  It is
 * read from the table when it is not known: at start and after an abort.
 *
 * In a pipeline worker only.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "query/query.h"
#include "query/run.h"
#include "storage/bufmgr.h"
#include "stream/fdw.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

struct KdaKeptRows
{
	KdaQuery   *query;
	bool		known;			/* what follows reflects the table */
	int64		next_seq;
	int64		first_unseen;	/* next_seq when the table was read */
	int64		nrows;
	KdaTime    *ends;			/* of open windows, ascending */
	int			nends;
	int			room;
	/* the last row's pane: its windows are in the list */
	KdaTime		last_pane;
	KdaTime		last_mark;
};

KdaKeptRows *
kda_kept_create(KdaQuery *query)
{
	KdaKeptRows *kept = MemoryContextAllocZero(query->context, sizeof(KdaKeptRows));

	kept->query = query;
	return kept;
}

void
kda_kept_at_abort(KdaKeptRows *kept)
{
	kept->known = false;
}

/* Where the end is in the list, or would be. */
static int
find_end(KdaKeptRows *kept, KdaTime end)
{
	int			low = 0,
				high = kept->nends;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (kept->ends[middle] < end)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void
note_windows(KdaKeptRows *kept, KdaTime t, KdaTime mark)
{
	KdaQuery   *query = kept->query;
	KdaTime		pane = kda_window_pane(&query->window, t);
	KdaTime		after = Max(mark, query->frontier);
	KdaTime		start,
				end;

	if (pane == kept->last_pane && mark == kept->last_mark)
		return;
	kept->last_pane = pane;
	kept->last_mark = mark;
	while (kda_window_next(&query->window, t, after, &start, &end))
	{
		int			at = find_end(kept, end);

		if (at == kept->nends || kept->ends[at] != end)
		{
			if (kept->nends == kept->room)
			{
				kept->room = Max(64, kept->room * 2);
				kept->ends = kept->ends ? repalloc_huge(kept->ends, sizeof(KdaTime) * kept->room) :
					MemoryContextAllocHuge(query->context, sizeof(KdaTime) * kept->room);
			}
			memmove(kept->ends + at + 1, kept->ends + at, sizeof(KdaTime) * (kept->nends - at));
			kept->ends[at] = end;
			kept->nends++;
		}
		if (TIMESTAMP_NOT_FINITE(end))
			break;
		after = end;
	}
}

static void
know(KdaKeptRows *kept)
{
	Relation	rel;
	TableScanDesc scan;
	TupleTableSlot *slot;

	if (kept->known)
		return;
	kept->nrows = 0;
	kept->nends = 0;
	kept->next_seq = 1;
	kept->last_pane = KDA_END_TIME;
	rel = table_open(kept->query->open_rel, AccessShareLock);
	slot = table_slot_create(rel, NULL);
	PushActiveSnapshot(GetLatestSnapshot());
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		slot_getsomeattrs(slot, KDA_KEPT_SEQ);
		kept->next_seq = Max(kept->next_seq, DatumGetInt64(slot->tts_values[KDA_KEPT_SEQ - 1]) + 1);
		kept->nrows++;
		if (kept->query->shape == KDA_SHAPE_WINDOWS)
			note_windows(kept, DatumGetTimestampTz(slot_getattr(slot, KDA_KEPT_TIME, &isnull)),
						 DatumGetTimestampTz(slot_getattr(slot, KDA_KEPT_MARK, &isnull)));
	}
	table_endscan(scan);
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	kept->first_unseen = kept->next_seq;
	kept->known = true;
}

int64
kda_kept_append(KdaKeptRows *kept, Tuplestorestate *rows)
{
	KdaQuery   *query = kept->query;
	KdaBatch   *batch = query->stream->batch;
	TupleDesc	desc = kda_plan_desc(query->batch_plan);
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *info;
	TupleTableSlot *in,
			   *out;
	BulkInsertState bistate;
	CommandId	cid;
	int64		first;

	know(kept);
	first = kept->next_seq;
	if (tuplestore_tuple_count(rows) == 0)
		return first;
	rel = table_open(query->open_rel, RowExclusiveLock);
	cid = GetCurrentCommandId(true);
	estate = CreateExecutorState();
	info = makeNode(ResultRelInfo);
	in = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	out = table_slot_create(rel, NULL);
	bistate = GetBulkInsertState();
	InitResultRelInfo(info, rel, 1, NULL, 0);
	ExecOpenIndices(info, false);
	while (tuplestore_gettupleslot(rows, true, false, in))
	{
		bool		isnull;
		int			row = kda_tid_to_row((ItemPointer) DatumGetPointer(slot_getattr(in, 1, &isnull)));
		KdaTime		time = batch->rowtime[row];
		KdaTime		mark = query->shape == KDA_SHAPE_WINDOWS ?
			kda_window_after(&query->window, time, kda_query_mark(query, row)) : KDA_NO_TIME;

		ExecClearTuple(out);
		slot_getallattrs(in);
		memset(out->tts_isnull, false, sizeof(bool) * KDA_KEPT_SEQ);
		out->tts_values[0] = Int16GetDatum(0);
		out->tts_values[KDA_KEPT_TIME - 1] = TimestampTzGetDatum(time);
		out->tts_values[KDA_KEPT_MARK - 1] = TimestampTzGetDatum(mark);
		out->tts_values[KDA_KEPT_SEQ - 1] = Int64GetDatum(kept->next_seq++);
		memcpy(out->tts_values + KDA_KEPT_SEQ, in->tts_values + 1, sizeof(Datum) * (desc->natts - 1));
		memcpy(out->tts_isnull + KDA_KEPT_SEQ, in->tts_isnull + 1, sizeof(bool) * (desc->natts - 1));
		/* sides of a join: not matched yet */
		for (int i = KDA_KEPT_SEQ + desc->natts - 1; i < out->tts_tupleDescriptor->natts; i++)
		{
			out->tts_values[i] = BoolGetDatum(false);
			out->tts_isnull[i] = false;
		}
		ExecStoreVirtualTuple(out);
		table_tuple_insert(rel, out, cid, 0, bistate);
		if (info->ri_NumIndices > 0)
			list_free(kda_insert_index_tuples(info, out, estate));
		ResetPerTupleExprContext(estate);
		kept->nrows++;
		if (query->shape == KDA_SHAPE_WINDOWS)
			note_windows(kept, time, mark);
	}
	FreeBulkInsertState(bistate);
	table_finish_bulk_insert(rel, 0);
	ExecCloseIndices(info);
	ExecDropSingleTupleTableSlot(in);
	ExecDropSingleTupleTableSlot(out);
	FreeExecutorState(estate);
	table_close(rel, NoLock);
	return first;
}

int64
kda_kept_next(KdaKeptRows *kept)
{
	know(kept);
	return kept->next_seq;
}

int64
kda_kept_first_unseen(KdaKeptRows *kept)
{
	know(kept);
	return kept->first_unseen;
}

int64
kda_kept_count(KdaKeptRows *kept)
{
	return kept->nrows;
}

void
kda_kept_forget_count(KdaKeptRows *kept, int64 deleted)
{
	kept->nrows -= deleted;
}

static void
delete_where(KdaKeptRows *kept, const char *condition, Oid type, Datum value)
{
	SPI_connect();
	SPI_execute_with_args(psprintf("DELETE FROM %s.%s WHERE %s $1", KDA_STORAGE_SCHEMA,
								   quote_identifier(get_rel_name(kept->query->open_rel)), condition),
						  1, &type, &value, NULL, false, 0);
	kept->nrows -= (int64) SPI_processed;
	SPI_finish();
}

void
kda_kept_delete(KdaKeptRows *kept, int64 seq)
{
	delete_where(kept, "kda_seq =", INT8OID, Int64GetDatum(seq));
}

void
kda_kept_delete_before(KdaKeptRows *kept, KdaTime time)
{
	delete_where(kept, "kda_time <", TIMESTAMPTZOID, TimestampTzGetDatum(time));
}

KdaTime *
kda_kept_window_ends(KdaKeptRows *kept, KdaTime upto, int *n)
{
	know(kept);
	*n = find_end(kept, upto);
	if (*n < kept->nends && kept->ends[*n] == upto)
		(*n)++;
	return kept->ends;
}

KdaTime
kda_kept_min_window_end(KdaKeptRows *kept)
{
	know(kept);
	return kept->nends > 0 ? kept->ends[0] : KDA_END_TIME;
}

void
kda_kept_close(KdaKeptRows *kept, KdaTime frontier)
{
	KdaQuery   *query = kept->query;
	int			n;

	(void) kda_kept_window_ends(kept, frontier, &n);
	kept->nends -= n;
	if (kept->nends > 0)
		memmove(kept->ends, kept->ends + n, sizeof(KdaTime) * kept->nends);
	kept->last_pane = KDA_END_TIME;
	kda_kept_delete_before(kept, kda_window_keep_from(&query->window, frontier));
}

void
kda_kept_stats(KdaKeptRows *kept, int64 *nrows, int64 *nwindows, int64 *bytes)
{
	Relation	rel = table_open(kept->query->open_rel, AccessShareLock);

	*nrows = kept->nrows;
	*nwindows = kept->nends;
	*bytes = (int64) RelationGetNumberOfBlocks(rel) * BLCKSZ;
	table_close(rel, NoLock);
}
