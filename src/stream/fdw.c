/*-------------------------------------------------------------------------
 *
 * fdw.c
 *	  A stream as a foreign table.
 *
 * In a worker a scan gives the current batch, each row with its number as
 * ctid.  In a session it gives what the buffer holds: rows of the inbox, or the
 * ring's raw records decoded.  INSERT and COPY write into the inbox.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/ddl.h"
#include "catalog/pg_type.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "foreign/fdwapi.h"
#include "format/format.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "parser/parse_relation.h"
#include "storage/bufmgr.h"
#include "stream/fdw.h"
#include "stream/inbox.h"
#include "stream/ring.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

KdaStream  *(*kda_current_stream) (Oid relid) = NULL;
double		kda_plan_row_estimate = 1000;
KdaBatch   *(*kda_running_batch) (void) = NULL;

void
kda_note_unread_stream(Oid relid)
{
	char	   *name = get_rel_name(relid);

	if (!kda_stream_has_query(relid))
		ereport(NOTICE,
				(errmsg("stream \"%s\" is not being read: no continuous query needs it", name),
				 errhint("SELECT * FROM kda.sample('%s') reads some records directly.",
						 quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name))));
	else if (kda_stream_options_get(relid)->retention_us == 0)
		ereport(NOTICE,
				(errmsg("stream \"%s\" keeps no records for looking at: its option retention is '0'", name)));
}

/*---- planning a scan */

static void
get_rel_size(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	if (kda_in_worker)
		baserel->tuples = kda_plan_row_estimate;
	else
	{
		KdaStreamIds ids;

		baserel->tuples = 1000;
		if (kda_stream_ids(relid, &ids) && OidIsValid(ids.inbox))
		{
			Relation	rel = table_open(ids.inbox, AccessShareLock);

			baserel->tuples = Max(1000.0, RelationGetNumberOfBlocks(rel) * 60.0);
			table_close(rel, AccessShareLock);
		}
	}
	baserel->rows = clamp_row_est(baserel->tuples *
								  clauselist_selectivity(root, baserel->baserestrictinfo, 0, JOIN_INNER, NULL));
}

static void
get_paths(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	Cost		total = baserel->tuples * (cpu_tuple_cost + baserel->baserestrictcost.per_tuple);

	add_path(baserel, (Path *) kda_create_foreignscan_path(root, baserel, NULL, baserel->rows, 0, total,
														   NIL, baserel->lateral_relids, NULL, NIL));
}

static ForeignScan *
get_plan(PlannerInfo *root, RelOptInfo *baserel, Oid relid, ForeignPath *best, List *tlist,
		 List *scan_clauses, Plan *outer_plan)
{
	return make_foreignscan(tlist, extract_actual_clauses(scan_clauses, false), baserel->relid,
							NIL, NIL, NIL, NIL, outer_plan);
}

/*---- scanning */

typedef struct StreamScan
{
	/* worker */
	KdaBatch   *batch;
	int			next;
	/* which attributes to hand out: NULL entries stay NULL */
	int			natts;
	int		   *attrs;
	int			nattrs;

	/* session */
	KdaStreamOptions *options;
	Relation	segment;
	Oid			segments[2];
	int			nth;
	TableScanDesc scan;
	TupleTableSlot *slot;
	AttrNumber *map;
	bool		ring;
	KdaDecoder *decoder;
	KdaRawBatch *raw;
	KdaBatch   *block;
	int			block_next;
	MemoryContext block_context;
	KdaTime    *rowtimes;		/* of every row handed out, for kda.rowtime(ctid) */
	int			nrows;
	int			capacity;
	MemoryContext context;
} StreamScan;

/* The session's most recent scan: whose rows kda.rowtime(ctid) speaks of. */
static StreamScan *last_scan = NULL;

static void
forget_scan(void *arg)
{
	if (last_scan == arg)
		last_scan = NULL;
}

static void
begin_batch_scan(StreamScan *s, TupleDesc desc, Oid relid)
{
	KdaStream  *stream = kda_current_stream ? kda_current_stream(relid) : NULL;

	s->natts = desc->natts;
	if (stream == NULL || stream->batch == NULL)
		return;
	s->batch = stream->batch;
	s->attrs = palloc(sizeof(int) * Max(desc->natts, 1));
	for (int i = 0; i < Min(desc->natts, s->batch->desc->natts); i++)
		if (s->batch->values[i])
			s->attrs[s->nattrs++] = i;
	s->next = s->batch->scan_from;
}

static TupleTableSlot *
next_of_batch(StreamScan *s, TupleTableSlot *slot)
{
	KdaBatch   *batch = s->batch;
	int			row = s->next;

	ExecClearTuple(slot);
	if (batch == NULL)
		return slot;
	if (batch->scan_skip)
		while (row < batch->scan_to && batch->scan_skip[row])
			row++;
	if (row >= batch->scan_to)
	{
		s->next = row;
		return slot;
	}
	s->next = row + 1;
	if (s->nattrs < s->natts)
		memset(slot->tts_isnull, true, s->natts);
	for (int i = 0; i < s->nattrs; i++)
	{
		int			a = s->attrs[i];

		slot->tts_values[a] = batch->values[a][row];
		slot->tts_isnull[a] = batch->nulls[a][row];
	}
	kda_row_to_tid(row, &slot->tts_tid);
	return ExecStoreVirtualTuple(slot);
}

static void
begin_scan(ForeignScanState *node, int eflags)
{
	StreamScan  *s = palloc0(sizeof(StreamScan));
	Relation	rel = node->ss.ss_currentRelation;
	KdaStreamIds ids;

	node->fdw_state = s;
	s->context = CurrentMemoryContext;
	if (kda_in_worker)
	{
		begin_batch_scan(s, RelationGetDescr(rel), RelationGetRelid(rel));
		return;
	}
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	s->options = kda_stream_options_get(RelationGetRelid(rel));
	s->natts = RelationGetDescr(rel)->natts;
	if (!kda_stream_ids(RelationGetRelid(rel), &ids))
		memset(&ids, 0, sizeof(ids));
	s->ring = s->options->server_type != NULL;
	s->segments[0] = s->ring ? ids.ring2 : ids.inbox2;
	s->segments[1] = s->ring ? ids.ring : ids.inbox;
	if (s->ring)
	{
		s->block_context = AllocSetContextCreate(CurrentMemoryContext, "kda ring block",
												 ALLOCSET_DEFAULT_SIZES);
		s->decoder = kda_decoder_create(CurrentMemoryContext, RelationGetDescr(rel), s->options);
		s->raw = kda_raw_batch_create(CurrentMemoryContext);
		s->block = kda_batch_create(CurrentMemoryContext, RelationGetDescr(rel), NULL);
		kda_note_unread_stream(RelationGetRelid(rel));
	}
	{
		MemoryContextCallback *cb = palloc0(sizeof(MemoryContextCallback));

		cb->func = forget_scan;
		cb->arg = s;
		MemoryContextRegisterResetCallback(CurrentMemoryContext, cb);
	}
	last_scan = s;
}

static void
ignore_refusal(void *arg, int index, const KdaDecodeError *error)
{
}

static bool
next_segment(StreamScan *s, TupleDesc desc, EState *estate)
{
	MemoryContext old;

	if (s->scan)
	{
		table_endscan(s->scan);
		ExecDropSingleTupleTableSlot(s->slot);
		table_close(s->segment, NoLock);
		s->scan = NULL;
	}
	while (s->nth < 2)
	{
		Oid			segment = s->segments[s->nth++];

		if (!OidIsValid(segment))
			continue;
		/* the executor calls in memory that lasts for one row */
		old = MemoryContextSwitchTo(s->context);
		s->segment = table_open(segment, AccessShareLock);
		s->slot = table_slot_create(s->segment, NULL);
		s->scan = table_beginscan(s->segment, estate->es_snapshot, 0, NULL);
		if (!s->ring)
			s->map = kda_inbox_map(desc, s->segment);
		MemoryContextSwitchTo(old);
		return true;
	}
	return false;
}

static void
note_rowtime(StreamScan *s, KdaTime t, TupleTableSlot *slot)
{
	if (s->nrows == s->capacity)
	{
		s->capacity = Max(s->capacity * 2, 1024);
		s->rowtimes = s->rowtimes ? repalloc_huge(s->rowtimes, sizeof(KdaTime) * (Size) s->capacity) :
			MemoryContextAllocHuge(s->context, sizeof(KdaTime) * (Size) s->capacity);
	}
	kda_row_to_tid(s->nrows, &slot->tts_tid);
	s->rowtimes[s->nrows++] = t;
}

/* A row of the inbox; NULL: no more. */
static TupleTableSlot *
next_of_inbox(ForeignScanState *node, StreamScan *s, TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	AttrNumber	rowtime = s->options->rowtime_attno;
	KdaTime		t;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (s->scan == NULL && !next_segment(s, RelationGetDescr(node->ss.ss_currentRelation), node->ss.ps.state))
			return NULL;
		if (!table_scan_getnextslot(s->scan, ForwardScanDirection, s->slot))
		{
			if (!next_segment(s, RelationGetDescr(node->ss.ss_currentRelation), node->ss.ps.state))
				return NULL;
			continue;
		}
		slot_getallattrs(s->slot);
		if (!s->slot->tts_isnull[KDA_INBOX_CONTROL - 1])
			continue;
		break;
	}
	for (int i = 0; i < desc->natts; i++)
	{
		AttrNumber	from = s->map[i];

		slot->tts_isnull[i] = from <= 0 || s->slot->tts_isnull[from - 1];
		slot->tts_values[i] = slot->tts_isnull[i] ? (Datum) 0 : s->slot->tts_values[from - 1];
	}
	t = DatumGetTimestampTz(s->slot->tts_values[KDA_INBOX_ARRIVAL - 1]);
	if (rowtime > 0)
	{
		Oid			type = TupleDescAttr(desc, rowtime - 1)->atttypid;

		if (!slot->tts_isnull[rowtime - 1])
			t = kda_rowtime_of(s->options, type, slot->tts_values[rowtime - 1]);
		else
		{
			slot->tts_values[rowtime - 1] = kda_rowtime_value(s->options, type, t);
			slot->tts_isnull[rowtime - 1] = false;
		}
	}
	note_rowtime(s, t, slot);
	return ExecStoreVirtualTuple(slot);
}

/* Takes blocks until one has rows; false: no more. */
static bool
next_block(ForeignScanState *node, StreamScan *s)
{
	for (;;)
	{
		bytea	   *data;
		char	  **names;
		int			nnames;
		bool		isnull;
		int32	   *map;
		KdaDecodeCounts counts = {0};
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (s->scan == NULL && !next_segment(s, RelationGetDescr(node->ss.ss_currentRelation), node->ss.ps.state))
			return false;
		if (!table_scan_getnextslot(s->scan, ForwardScanDirection, s->slot))
		{
			if (!next_segment(s, RelationGetDescr(node->ss.ss_currentRelation), node->ss.ps.state))
				return false;
			continue;
		}
		MemoryContextReset(s->block_context);
		old = MemoryContextSwitchTo(s->block_context);
		data = DatumGetByteaPP(slot_getattr(s->slot, 2, &isnull));
		kda_batch_reset(s->block);
		if (kda_ring_unpack(VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data), s->raw, &names, &nnames))
		{
			map = palloc(sizeof(int32) * Max(nnames, 1));
			for (int i = 0; i < nnames; i++)
				map[i] = i;
			kda_decode(s->decoder, s->raw, &kda_ring_ops, map, names, s->block, ignore_refusal, NULL, &counts);
		}
		MemoryContextSwitchTo(old);
		s->block_next = 0;
		if (s->block->nrows > 0)
			return true;
	}
}

static TupleTableSlot *
next_of_ring(ForeignScanState *node, StreamScan *s, TupleTableSlot *slot)
{
	KdaBatch   *b = s->block;
	AttrNumber	rowtime = s->options->rowtime_attno;
	KdaTime		t;
	int			row;

	if (s->block_next >= b->nrows && !next_block(node, s))
		return NULL;
	row = s->block_next++;
	for (int i = 0; i < s->natts; i++)
	{
		slot->tts_isnull[i] = b->values[i] == NULL || b->nulls[i][row];
		slot->tts_values[i] = slot->tts_isnull[i] ? (Datum) 0 : b->values[i][row];
	}
	t = b->rowtime[row] == KDA_NO_TIME ? b->arrival[row] : b->rowtime[row];
	if (rowtime > 0 && slot->tts_isnull[rowtime - 1] && t != KDA_NO_TIME)
	{
		slot->tts_values[rowtime - 1] = kda_rowtime_value(s->options, TupleDescAttr(b->desc, rowtime - 1)->atttypid, t);
		slot->tts_isnull[rowtime - 1] = false;
	}
	note_rowtime(s, t, slot);
	return ExecStoreVirtualTuple(slot);
}

static TupleTableSlot *
iterate_scan(ForeignScanState *node)
{
	StreamScan  *s = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	TupleTableSlot *result;

	if (likely(kda_in_worker))
		return next_of_batch(s, slot);
	ExecClearTuple(slot);
	result = s->ring ? next_of_ring(node, s, slot) : next_of_inbox(node, s, slot);
	return result ? result : slot;
}

static void
rescan(ForeignScanState *node)
{
	StreamScan  *s = node->fdw_state;

	if (kda_in_worker)
	{
		s->next = s->batch ? s->batch->scan_from : 0;
		return;
	}
	s->nth = 2;
	next_segment(s, RelationGetDescr(node->ss.ss_currentRelation), node->ss.ps.state);
	s->nth = 0;
	s->nrows = 0;
	s->block_next = 0;
	if (s->block)
		kda_batch_reset(s->block);
}

static void
end_scan(ForeignScanState *node)
{
	StreamScan  *s = node->fdw_state;

	if (s == NULL || kda_in_worker)
		return;
	s->nth = 2;
	next_segment(s, RelationGetDescr(node->ss.ss_currentRelation), node->ss.ps.state);
}

static void
explain_scan(ForeignScanState *node, ExplainState *es)
{
	if (kda_in_worker)
		return;
	ExplainPropertyText("Buffer", "rows that the stream still holds", es);
}

PG_FUNCTION_INFO_V1(kda_rowtime);

/* kda.rowtime(tid) → timestamptz: the time of the stream's row with that ctid, inside a query over it. */
Datum
kda_rowtime(PG_FUNCTION_ARGS)
{
	int			row = kda_tid_to_row((ItemPointer) PG_GETARG_POINTER(0));

	if (kda_in_worker)
	{
		KdaBatch   *batch = kda_running_batch ? kda_running_batch() : NULL;

		if (batch == NULL || row < 0 || row >= batch->nrows)
			PG_RETURN_NULL();
		PG_RETURN_TIMESTAMPTZ(batch->rowtime[row]);
	}
	if (last_scan == NULL || row < 0 || row >= last_scan->nrows)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("ROWTIME is known only inside a query over its stream"),
				 errhint("Declare a column rowtime to see it in a plain SELECT.")));
	PG_RETURN_TIMESTAMPTZ(last_scan->rowtimes[row]);
}

/*---- inserting */

static void
check_writable(Relation rel)
{
	if (kda_stream_options_get(RelationGetRelid(rel))->server_type != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" is on an outside server and cannot be written yet",
						RelationGetRelationName(rel)),
				 errhint("Only streams of the database (CREATE STREAM without SERVER) take INSERT and COPY.")));
}

static int
updatable(Relation rel)
{
	return 1 << CMD_INSERT;
}

static List *
plan_modify(PlannerInfo *root, ModifyTable *plan, Index result, int subplan)
{
	if (plan->onConflictAction != ONCONFLICT_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ON CONFLICT cannot be used with a stream")));
	return NIL;
}

static void
begin_modify(ModifyTableState *mtstate, ResultRelInfo *rinfo, List *fdw_private, int subplan, int eflags)
{
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	check_writable(rinfo->ri_RelationDesc);
	rinfo->ri_FdwState = kda_inbox_begin(RelationGetRelid(rinfo->ri_RelationDesc));
}

static void
begin_insert(ModifyTableState *mtstate, ResultRelInfo *rinfo)
{
	check_writable(rinfo->ri_RelationDesc);
	rinfo->ri_FdwState = kda_inbox_begin(RelationGetRelid(rinfo->ri_RelationDesc));
}

/* RETURNING shows for a time that was left out what everybody else will see. */
static void
show_arrival(ResultRelInfo *rinfo, TupleTableSlot *slot)
{
	KdaStreamOptions *options = kda_stream_options_get(RelationGetRelid(rinfo->ri_RelationDesc));
	AttrNumber	rowtime = options->rowtime_attno;

	if (rowtime <= 0 || !slot->tts_isnull[rowtime - 1])
		return;
	slot->tts_values[rowtime - 1] = kda_rowtime_value(options, TupleDescAttr(slot->tts_tupleDescriptor, rowtime - 1)->atttypid,
													  GetCurrentTransactionStartTimestamp());
	slot->tts_isnull[rowtime - 1] = false;
}

static TupleTableSlot *
exec_insert(EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot, TupleTableSlot *plan_slot)
{
	/* core leaves both to a foreign table's owner: that is us */
	if (rinfo->ri_RelationDesc->rd_att->constr)
		ExecConstraints(rinfo, slot, estate);
	if (rinfo->ri_RelationDesc->rd_rel->relispartition &&
		(rinfo->ri_RootResultRelInfo == NULL || (rinfo->ri_TrigDesc && rinfo->ri_TrigDesc->trig_insert_before_row)))
		ExecPartitionCheck(rinfo, slot, estate, true);
	kda_inbox_put(rinfo->ri_FdwState, slot, KDA_NO_TIME, KDA_NO_TIME, false);
	if (rinfo->ri_projectReturning)
		show_arrival(rinfo, slot);
	return slot;
}

static void
end_modify(EState *estate, ResultRelInfo *rinfo)
{
	if (rinfo->ri_FdwState)
		kda_inbox_end(rinfo->ri_FdwState);
	rinfo->ri_FdwState = NULL;
}

PG_FUNCTION_INFO_V1(kda_fdw_handler);

Datum
kda_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *r = makeNode(FdwRoutine);

	r->GetForeignRelSize = get_rel_size;
	r->GetForeignPaths = get_paths;
	r->GetForeignPlan = get_plan;
	r->BeginForeignScan = begin_scan;
	r->IterateForeignScan = iterate_scan;
	r->ReScanForeignScan = rescan;
	r->EndForeignScan = end_scan;
	r->ExplainForeignScan = explain_scan;
	r->IsForeignRelUpdatable = updatable;
	r->PlanForeignModify = plan_modify;
	r->BeginForeignModify = begin_modify;
	r->ExecForeignInsert = exec_insert;
	r->EndForeignModify = end_modify;
	r->BeginForeignInsert = begin_insert;
	r->EndForeignInsert = end_modify;
	PG_RETURN_POINTER(r);
}
