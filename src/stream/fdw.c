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
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/rows.h"
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
#include "stream/announce.h"
#include "stream/inbox.h"
#include "stream/outbox.h"
#include "stream/ring.h"
#include "stream/segment.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

KdaStream  *(*kda_current_stream) (Oid relid) = NULL;
double		kda_plan_row_estimate = 1000;
KdaBatch   *(*kda_running_batch) (void) = NULL;

static bool
is_empty(Oid segment)
{
	Relation	rel;
	BlockNumber blocks;

	if (!OidIsValid(segment))
		return true;
	rel = table_open(segment, AccessShareLock);
	blocks = RelationGetNumberOfBlocks(rel);
	table_close(rel, AccessShareLock);
	return blocks == 0;
}

/* Has the stream's worker ever committed a record? */
static bool
has_read(int32 stream_id)
{
	char	   *found;

	return kda_owner_row(psprintf("SELECT 1 FROM kda_storage.stream_progress WHERE has_read AND stream_id = %d",
								  stream_id), 1, &found);
}

void
kda_note_unread_stream(Oid relid)
{
	char	   *name = get_rel_name(relid);
	KdaStreamIds ids;

	if (!kda_stream_has_query(relid))
		ereport(NOTICE,
				(errmsg("stream \"%s\" is not being read: no continuous query needs it", name),
				 errhint("SELECT * FROM kda.sample('%s') reads some records directly.",
						 quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name))));
	else if (kda_stream_options_get(relid)->retention_us == 0)
		ereport(NOTICE,
				(errmsg("stream \"%s\" keeps no records for looking at: its option retention is '0'", name)));
	else if (kda_stream_ids(relid, &ids) && is_empty(ids.ring) && is_empty(ids.ring2) && has_read(ids.id))
		ereport(NOTICE,
				(errmsg("the buffer of stream \"%s\" is empty", name),
				 errdetail("It keeps records for as long as option retention says, and does not survive a crash of the server."),
				 errhint("SELECT * FROM kda.sample('%s') reads some records directly.",
						 quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name))));
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
	Oid			segments[2];
	bool		open;
	KdaSegments rows;
	AttrNumber *maps[2];		/* of the inbox's segments */
	bool		ring;
	KdaDecoder *decoder;
	KdaRawBatch *raw;
	KdaBatch   *block;
	int			block_next;
	MemoryContext block_context;
	int			number;			/* in scans; -1: none */
	KdaTime    *rowtimes;		/* of every row handed out, for kda.rowtime(ctid) */
	int			nrows;
	int			capacity;
	MemoryContext context;
} StreamScan;

/*
 * A session's scans that are under way.  The ctid of a row tells its scan and
 * its place in it, so that kda.rowtime(ctid) finds it whatever else the query
 * reads.  Offset numbers of tables are smaller.
 */
#define FIRST_SCAN	0x8000
#define MAX_SCANS	(0xFFFE - FIRST_SCAN)

static StreamScan **scans = NULL;
static int	nscans = 0;

static void
register_scan(StreamScan *s)
{
	int			i = 0;

	while (i < nscans && scans[i])
		i++;
	if (i >= MAX_SCANS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many scans of streams at once")));
	if (i == nscans)
	{
		int			room = Max(nscans * 2, 16);

		scans = scans ? repalloc(scans, sizeof(StreamScan *) * room) :
			MemoryContextAlloc(TopMemoryContext, sizeof(StreamScan *) * room);
		memset(scans + nscans, 0, sizeof(StreamScan *) * (room - nscans));
		nscans = room;
	}
	scans[i] = s;
	s->number = i;
}

static void
forget_scan(void *arg)
{
	StreamScan *s = arg;

	if (s->number >= 0)
		scans[s->number] = NULL;
	s->number = -1;
}

static void
begin_batch_scan(StreamScan *s, ForeignScanState *node)
{
	TupleDesc	desc = RelationGetDescr(node->ss.ss_currentRelation);
	Oid			relid = RelationGetRelid(node->ss.ss_currentRelation);
	KdaStream  *stream = kda_current_stream ? kda_current_stream(relid) : NULL;
	Scan	   *plan = (Scan *) node->ss.ps.plan;
	Bitmapset  *used = NULL;
	bool		all;

	s->natts = desc->natts;
	if (stream == NULL || stream->batch == NULL)
		return;
	s->batch = stream->batch;
	pull_varattnos((Node *) plan->plan.targetlist, plan->scanrelid, &used);
	pull_varattnos((Node *) plan->plan.qual, plan->scanrelid, &used);
	all = bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, used);
	s->attrs = palloc(sizeof(int) * Max(desc->natts, 1));
	for (int i = 0; i < Min(desc->natts, s->batch->desc->natts); i++)
		if (s->batch->values[i] &&
			(all || bms_is_member(i + 1 - FirstLowInvalidHeapAttributeNumber, used)))
			s->attrs[s->nattrs++] = i;
	s->next = s->batch->scan_from;
}

static inline TupleTableSlot *
load_row(StreamScan *s, TupleTableSlot *slot, int row)
{
	KdaBatch   *batch = s->batch;

	ExecClearTuple(slot);
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

static TupleTableSlot *
next_of_batch(StreamScan *s, TupleTableSlot *slot)
{
	KdaBatch   *batch = s->batch;
	int			row = s->next;

	if (batch == NULL)
		return ExecClearTuple(slot);
	if (batch->scan_skip)
		while (row < batch->scan_to && batch->scan_skip[row])
			row++;
	if (row >= batch->scan_to)
	{
		s->next = row;
		return ExecClearTuple(slot);
	}
	s->next = row + 1;
	return load_row(s, slot, row);
}

static TupleTableSlot *iterate_scan(ForeignScanState *node);
extern PGDLLEXPORT Datum kda_rowtime(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum kda_window_start_of(PG_FUNCTION_ARGS);

KdaBatch *
kda_scan_batch(PlanState *node)
{
	if (!kda_in_worker || !IsA(node, ForeignScanState) ||
		((ForeignScanState *) node)->fdwroutine->IterateForeignScan != iterate_scan)
		return NULL;
	return ((StreamScan *) ((ForeignScanState *) node)->fdw_state)->batch;
}

AttrNumber
kda_scan_column(PlanState *node, AttrNumber result_column)
{
	Scan	   *plan = (Scan *) node->plan;
	TargetEntry *tle = list_nth_node(TargetEntry, plan->plan.targetlist, result_column - 1);
	Var		   *var = (Var *) tle->expr;
	KdaBatch   *batch = kda_scan_batch(node);

	if (!IsA(var, Var) || var->varno != (int) plan->scanrelid || var->varattno <= 0 ||
		var->varattno > batch->desc->natts || batch->values[var->varattno - 1] == NULL)
		return 0;
	return var->varattno;
}

/* Is expr a call of that C function of ours? */
static List *
arguments_of(Expr *expr, PGFunction function)
{
	FmgrInfo	finfo;

	if (!IsA(expr, FuncExpr))
		return NIL;
	fmgr_info(((FuncExpr *) expr)->funcid, &finfo);
	return finfo.fn_addr == function ? ((FuncExpr *) expr)->args : NIL;
}

bool
kda_scan_window(PlanState *node, AttrNumber result_column, AttrNumber *attno, KdaWindowSpec *window)
{
	Scan	   *plan = (Scan *) node->plan;
	KdaBatch   *batch = kda_scan_batch(node);
	List	   *args = arguments_of(list_nth_node(TargetEntry, plan->plan.targetlist, result_column - 1)->expr,
									kda_window_start_of);
	Const	   *description;
	Var		   *time;

	if (list_length(args) != 2)
		return false;
	description = lsecond(args);
	if (!IsA(description, Const) || description->constisnull || description->consttype != TEXTOID)
		return false;
	kda_window_parse(TextDatumGetCString(description->constvalue), window);
	/* the others depend on a time zone, too */
	if (window->unit != KDA_UNIT_US)
		return false;
	time = linitial(args);
	if (IsA(time, Var))
	{
		*attno = time->varattno;
		return time->varno == (int) plan->scanrelid && time->vartype == TIMESTAMPTZOID &&
			time->varattno > 0 && time->varattno <= batch->desc->natts && batch->values[time->varattno - 1] != NULL;
	}
	args = arguments_of((Expr *) time, kda_rowtime);
	time = args ? linitial(args) : NULL;
	*attno = 0;
	return time && IsA(time, Var) && time->varno == (int) plan->scanrelid &&
		time->varattno == SelfItemPointerAttributeNumber && kda_running_batch && kda_running_batch() == batch;
}

TupleTableSlot *
kda_scan_load(PlanState *node, int row)
{
	return load_row(((ForeignScanState *) node)->fdw_state, ((ScanState *) node)->ss_ScanTupleSlot, row);
}

static void
begin_scan(ForeignScanState *node, int eflags)
{
	StreamScan  *s = palloc0(sizeof(StreamScan));
	Relation	rel = node->ss.ss_currentRelation;
	KdaStreamIds ids;

	node->fdw_state = s;
	s->context = CurrentMemoryContext;
	s->number = -1;
	if (kda_in_worker)
	{
		begin_batch_scan(s, node);
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
	if (RecoveryInProgress() && (s->ring || !s->options->durable))
	{
		/* unlogged tables are not there */
		s->segments[0] = s->segments[1] = InvalidOid;
		ereport(NOTICE,
				(errmsg("the buffer of stream \"%s\" is empty on a standby", RelationGetRelationName(rel))));
	}
	if (s->ring)
	{
		s->block_context = AllocSetContextCreate(CurrentMemoryContext, "kda ring block",
												 ALLOCSET_DEFAULT_SIZES);
		s->decoder = kda_decoder_create(CurrentMemoryContext, RelationGetDescr(rel), s->options);
		s->raw = kda_raw_batch_create(CurrentMemoryContext);
		s->block = kda_batch_create(CurrentMemoryContext, RelationGetDescr(rel), NULL);
		if (!RecoveryInProgress())
			kda_note_unread_stream(RelationGetRelid(rel));
	}
	{
		MemoryContextCallback *cb = palloc0(sizeof(MemoryContextCallback));

		cb->func = forget_scan;
		cb->arg = s;
		MemoryContextRegisterResetCallback(CurrentMemoryContext, cb);
	}
	register_scan(s);
}

static void
ignore_refusal(void *arg, int index, const KdaDecodeError *error)
{
}

/* The next row of the buffer, in the order in which they came; NULL: no more. */
static KdaSegmentCursor *
next_stored(StreamScan *s, ForeignScanState *node)
{
	/* the executor calls in memory that lasts for one row */
	MemoryContext old = MemoryContextSwitchTo(s->context);

	CHECK_FOR_INTERRUPTS();
	if (s->open)
		kda_segments_advance(&s->rows);
	else
	{
		kda_segments_open(&s->rows, s->segments[0], s->segments[1], node->ss.ps.state->es_snapshot, 0, 0, false);
		for (int i = 0; i < 2; i++)
			if (!s->ring && s->rows.cursors[i].rel)
				s->maps[i] = kda_inbox_map(RelationGetDescr(node->ss.ss_currentRelation), s->rows.cursors[i].rel);
		s->open = true;
	}
	MemoryContextSwitchTo(old);
	return kda_segments_row(&s->rows);
}

static void
close_stored(StreamScan *s)
{
	if (s->open)
		kda_segments_close(&s->rows);
	s->open = false;
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
	ItemPointerSet(&slot->tts_tid, (BlockNumber) s->nrows, FIRST_SCAN + s->number);
	s->rowtimes[s->nrows++] = t;
}

/* A row of the inbox; NULL: no more. */
static TupleTableSlot *
next_of_inbox(ForeignScanState *node, StreamScan *s, TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	AttrNumber	rowtime = s->options->rowtime_attno;
	KdaSegmentCursor *row;
	KdaTime		t;

	do
	{
		row = next_stored(s, node);
		if (row == NULL)
			return NULL;
		slot_getallattrs(row->slot);
	} while (!row->slot->tts_isnull[KDA_INBOX_CONTROL - 1]);
	for (int i = 0; i < desc->natts; i++)
	{
		AttrNumber	from = s->maps[row - s->rows.cursors][i];

		slot->tts_isnull[i] = from <= 0 || row->slot->tts_isnull[from - 1];
		slot->tts_values[i] = slot->tts_isnull[i] ? (Datum) 0 : row->slot->tts_values[from - 1];
	}
	t = DatumGetTimestampTz(row->slot->tts_values[KDA_INBOX_ARRIVAL - 1]);
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
		KdaSegmentCursor *row;
		bytea	   *data;
		char	  **names;
		int			nnames;
		bool		isnull;
		int32	   *map;
		KdaDecodeCounts counts = {0};
		MemoryContext old;

		row = next_stored(s, node);
		if (row == NULL)
			return false;
		MemoryContextReset(s->block_context);
		old = MemoryContextSwitchTo(s->block_context);
		data = DatumGetByteaPP(slot_getattr(row->slot, KDA_RING_DATA, &isnull));
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
	close_stored(s);
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
	close_stored(s);
	forget_scan(s);
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
	ItemPointer tid = (ItemPointer) PG_GETARG_POINTER(0);
	StreamScan *s = NULL;
	int			number;

	if (kda_in_worker)
	{
		int			row = kda_tid_to_row(tid);
		KdaBatch   *batch = kda_running_batch ? kda_running_batch() : NULL;

		if (batch == NULL || row < 0 || row >= batch->nrows)
			PG_RETURN_NULL();
		PG_RETURN_TIMESTAMPTZ(batch->rowtime[row]);
	}
	number = (int) ItemPointerGetOffsetNumberNoCheck(tid) - FIRST_SCAN;
	if (number >= 0 && number < nscans)
		s = scans[number];
	if (s == NULL || ItemPointerGetBlockNumberNoCheck(tid) >= (BlockNumber) s->nrows)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("ROWTIME is known only inside a query over its stream"),
				 errhint("Declare a column rowtime to see it in a plain SELECT.")));
	PG_RETURN_TIMESTAMPTZ(s->rowtimes[ItemPointerGetBlockNumberNoCheck(tid)]);
}

/*---- inserting */

/* Where rows of an INSERT go. */
typedef struct StreamInsert
{
	KdaStreamOptions *options;
	KdaInboxWriter *inbox;		/* a database stream */
	KdaOutboxWriter *outbox;	/* one of these is NULL */
	KdaAnnouncer *announcer;	/* NULL: none */
} StreamInsert;

static void
start_insert(ResultRelInfo *rinfo)
{
	Relation	rel = rinfo->ri_RelationDesc;
	Oid			relid = RelationGetRelid(rel);
	KdaStreamOptions *options = kda_stream_options_get(relid);
	KdaOutputIds ids;
	StreamInsert *insert = palloc0(sizeof(StreamInsert));

	if (kda_output_ids(relid, &ids) && OidIsValid(ids.source))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is an output", RelationGetRelationName(rel)),
				 errhint("Insert into the stream that it sends out, \"%s\".", get_rel_name(ids.source))));
	kda_outbox_check_writable(relid);
	if (options->server_type)
		insert->outbox = kda_outbox_begin(relid);
	else
		insert->inbox = kda_inbox_begin(relid);
	insert->options = options;
	insert->announcer = kda_announce_begin(RelationGetDescr(rel), options);
	rinfo->ri_FdwState = insert;
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
	start_insert(rinfo);
}

static void
begin_insert(ModifyTableState *mtstate, ResultRelInfo *rinfo)
{
	start_insert(rinfo);
}

/* RETURNING shows for a time that was left out what everybody else will see. */
static void
show_arrival(ResultRelInfo *rinfo, TupleTableSlot *slot)
{
	KdaStreamOptions *options = ((StreamInsert *) rinfo->ri_FdwState)->options;
	AttrNumber	rowtime = options->rowtime_attno;

	slot_getallattrs(slot);
	if (rowtime <= 0 || !slot->tts_isnull[rowtime - 1])
		return;
	slot->tts_values[rowtime - 1] = kda_rowtime_value(options, TupleDescAttr(slot->tts_tupleDescriptor, rowtime - 1)->atttypid,
													  GetCurrentTransactionStartTimestamp());
	slot->tts_isnull[rowtime - 1] = false;
}

static TupleTableSlot *
exec_insert(EState *estate, ResultRelInfo *rinfo, TupleTableSlot *slot, TupleTableSlot *plan_slot)
{
	StreamInsert *insert = rinfo->ri_FdwState;

	/* core leaves both to a foreign table's owner: that is us */
	if (rinfo->ri_RelationDesc->rd_att->constr)
		ExecConstraints(rinfo, slot, estate);
	if (rinfo->ri_RelationDesc->rd_rel->relispartition &&
		(rinfo->ri_RootResultRelInfo == NULL || (rinfo->ri_TrigDesc && rinfo->ri_TrigDesc->trig_insert_before_row)))
		ExecPartitionCheck(rinfo, slot, estate, true);
	if (insert->inbox)
		kda_inbox_put(insert->inbox, slot, KDA_NO_TIME, KDA_NO_TIME, false);
	else
	{
		/* a record that leaves says its time */
		show_arrival(rinfo, slot);
		kda_outbox_put(insert->outbox, slot, KDA_NO_TIME);
	}
	if (insert->announcer)
		kda_announce(insert->announcer, slot);
	if (rinfo->ri_projectReturning && insert->inbox)
		show_arrival(rinfo, slot);
	return slot;
}

static void
end_modify(EState *estate, ResultRelInfo *rinfo)
{
	StreamInsert *insert = rinfo->ri_FdwState;

	if (insert && insert->inbox)
		kda_inbox_end(insert->inbox);
	else if (insert)
		kda_outbox_end(insert->outbox);
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
