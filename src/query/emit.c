/*-------------------------------------------------------------------------
 *
 * emit.c
 *	  Final rows to where they go: a view's closed table, a pump's stream or
 *	  table.  In the worker's transaction.
 *
 * Rows come from the final part (closed windows, changed endless groups) or
 * straight from the per-batch part (queries without aggregates).  Their first
 * column is ours: window_start, or for plain rows the record's ctid, which
 * tells its row in the batch.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/ddl.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "catalog/store_query.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "query/agg_signature.h"
#include "query/groups.h"
#include "query/query.h"
#include "query/run.h"
#include "rewrite/rewriteHandler.h"
#include "runtime/error_stream.h"
#include "runtime/fault.h"
#include "runtime/runtime.h"
#include "stream/fdw.h"
#include "stream/inbox.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

/* What a sink gets with each row. */
typedef struct Emission
{
	KdaQuery   *query;
	Tuplestorestate *rows;
	TupleDesc	desc;			/* of rows: first column ours */
	KdaTime		shard_wm;		/* windows: the mark that a closing step is judged against */
} Emission;

/* Rowtime of an emitted row, and the watermark that it is judged against. */
static KdaTime
emitted_time(Emission *em, TupleTableSlot *slot, KdaTime *shard_wm)
{
	KdaQuery   *query = em->query;
	bool		isnull;
	Datum		first = slot_getattr(slot, 1, &isnull);

	*shard_wm = em->shard_wm;
	switch (query->shape)
	{
		case KDA_SHAPE_WINDOWS:
			return DatumGetTimestampTz(first) + query->window_size_us - 1;
		case KDA_SHAPE_ROWS:
			{
				int			row = kda_tid_to_row((ItemPointer) DatumGetPointer(first));

				*shard_wm = query->stream->batch->shard_wm[row];
				return query->stream->batch->rowtime[row];
			}
		case KDA_SHAPE_GROUPS:
			return query->stream->watermark == KDA_NO_TIME ? kda_clock_now() : query->stream->watermark;
	}
	return KDA_NO_TIME;			/* not reached */
}

KdaQuery   *kda_emitting_query = NULL;

/* Sinks take the rows [from, to) of an emission; this one is where they begin. */
static void
start_at(Emission *em, int from)
{
	tuplestore_rescan(em->rows);
	if (from > 0 && !tuplestore_skiptuples(em->rows, from, true))
		elog(ERROR, "row %d of an emission is missing", from);
}

/*---- sink: the closed table of a view */

static void
emit_to_closed(Emission *em, int from, int to)
{
	KdaQuery   *query = em->query;
	Relation	rel = table_open(query->closed_rel, RowExclusiveLock);
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *info = makeNode(ResultRelInfo);
	TupleTableSlot *in = MakeSingleTupleTableSlot(em->desc, &TTSOpsMinimalTuple);
	TupleTableSlot *out = table_slot_create(rel, NULL);
	BulkInsertState bistate = GetBulkInsertState();
	CommandId	cid = GetCurrentCommandId(true);
	MemoryContext old;
	KdaIdentity save;

	/* indexes may hold expressions of the owner's */
	kda_become_owner(query, &save);
	InitResultRelInfo(info, rel, 1, NULL, 0);
	ExecOpenIndices(info, false);
	start_at(em, from);
	for (int i = from; i < to && tuplestore_gettupleslot(em->rows, true, false, in); i++)
	{
		KdaTime		wm;
		KdaTime		time = emitted_time(em, in, &wm);

		ResetPerTupleExprContext(estate);
		old = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
		ExecClearTuple(out);
		slot_getallattrs(in);
		memcpy(out->tts_values, in->tts_values, sizeof(Datum) * em->desc->natts);
		memcpy(out->tts_isnull, in->tts_isnull, sizeof(bool) * em->desc->natts);
		out->tts_values[0] = TimestampTzGetDatum(query->shape == KDA_SHAPE_WINDOWS ? time + 1 : time);
		out->tts_isnull[0] = false;
		ExecStoreVirtualTuple(out);
		MemoryContextSwitchTo(old);
		table_tuple_insert(rel, out, cid, 0, bistate);
		if (info->ri_NumIndices > 0)
			list_free(kda_insert_index_tuples(info, out, estate));
		KDA_FAULT("emit_closed");
	}
	kda_become_self(&save);
	FreeBulkInsertState(bistate);
	table_finish_bulk_insert(rel, 0);
	ExecCloseIndices(info);
	ExecDropSingleTupleTableSlot(in);
	ExecDropSingleTupleTableSlot(out);
	FreeExecutorState(estate);
	table_close(rel, NoLock);
}

/*---- pumps: the INSERT, planned anew each time: it follows what DDL has done */

/* As core would run it: columns that it leaves out have their defaults. */
static List *
insert_queries(KdaQuery *query, Query *insert)
{
	AcquireRewriteLocks(insert, true, false);
	return QueryRewrite(insert);
}

/*---- sink: a stream of this database */

/* Columns of the emitted row follow our own. */
static Node *
emitted_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && ((Var *) node)->varno == KDA_EMITTED_VARNO)
	{
		Var		   *var = copyObject((Var *) node);

		var->varno = OUTER_VAR;
		var->varattno++;
		return (Node *) var;
	}
	return expression_tree_mutator(node, emitted_mutator, context);
}

/*
 * For each column of the target an expression over the emitted row; whether
 * the pump leaves the time column to us.
 */
static List *
target_expressions(KdaQuery *query, Relation target, AttrNumber rowtime, bool *fill_rowtime)
{
	TupleDesc	desc = RelationGetDescr(target);
	Query	   *insert = kda_stored_insert(query->relid);
	List	   *exprs = NIL;
	ListCell   *lc;

	*fill_rowtime = rowtime > 0;
	foreach(lc, insert->targetList)
		if (lfirst_node(TargetEntry, lc)->resno == rowtime)
			*fill_rowtime = false;
	kda_check_query_permissions(insert);
	insert = linitial_node(Query, insert_queries(query, insert));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Expr	   *expr = NULL;

		foreach(lc, insert->targetList)
			if (lfirst_node(TargetEntry, lc)->resno == i + 1 && !lfirst_node(TargetEntry, lc)->resjunk)
				expr = lfirst_node(TargetEntry, lc)->expr;
		if (att->attisdropped)
			expr = (Expr *) makeNullConst(INT4OID, -1, InvalidOid);
		else if (expr == NULL)
			expr = (Expr *) makeNullConst(att->atttypid, att->atttypmod, att->attcollation);
		else
			expr = expression_planner((Expr *) emitted_mutator((Node *) expr, NULL));
		exprs = lappend(exprs, makeTargetEntry(expr, i + 1, NULL, false));
	}
	return exprs;
}

/* Rows [from, to). */
static void
emit_to_stream(Emission *em, int from, int to)
{
	KdaQuery   *query = em->query;
	Relation	target = table_open(query->target_rel, RowExclusiveLock);
	TupleDesc	desc = RelationGetDescr(target);
	KdaStreamOptions *options = kda_stream_options_get(query->target_rel);
	AttrNumber	rowtime = options->rowtime_attno;
	Oid			rowtime_type = rowtime > 0 ? TupleDescAttr(desc, rowtime - 1)->atttypid : InvalidOid;
	bool		checked = desc->constr && (desc->constr->has_not_null || desc->constr->num_check > 0);
	bool		generated = desc->constr && desc->constr->has_generated_stored;
	bool		fill_rowtime;
	EState	   *estate = CreateExecutorState();
	ExprContext *econtext = GetPerTupleExprContext(estate);
	ResultRelInfo *info = makeNode(ResultRelInfo);
	TupleTableSlot *in = MakeSingleTupleTableSlot(em->desc, &TTSOpsMinimalTuple);
	TupleTableSlot *out = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	ProjectionInfo *project;
	KdaInboxWriter *writer = kda_inbox_begin(query->target_rel);
	KdaIdentity save;
	MemoryContext old;
	List	   *exprs;

	kda_become_owner(query, &save);
	exprs = target_expressions(query, target, rowtime, &fill_rowtime);
	/* no range table stands behind it */
	InitResultRelInfo(info, target, 0, NULL, 0);
	old = MemoryContextSwitchTo(estate->es_query_cxt);
	project = ExecBuildProjectionInfo(exprs, econtext, out, NULL, em->desc);
	MemoryContextSwitchTo(old);
	start_at(em, from);
	for (int i = from; i < to && tuplestore_gettupleslot(em->rows, true, false, in); i++)
	{
		KdaTime		wm;
		KdaTime		time = emitted_time(em, in, &wm);
		TupleTableSlot *row;

		ResetExprContext(econtext);
		econtext->ecxt_outertuple = in;
		row = ExecProject(project);
		if (fill_rowtime)
		{
			row->tts_values[rowtime - 1] = kda_rowtime_value(options, rowtime_type, time);
			row->tts_isnull[rowtime - 1] = false;
		}
		if (generated)
			ExecComputeStoredGenerated(info, estate, row, CMD_INSERT);
		if (checked)
			ExecConstraints(info, row, estate);
		kda_inbox_put(writer, row, time, wm, true);
		KDA_FAULT("emit_stream");
	}
	kda_become_self(&save);
	kda_inbox_end(writer);
	ExecDropSingleTupleTableSlot(in);
	ExecDropSingleTupleTableSlot(out);
	FreeExecutorState(estate);
	table_close(target, NoLock);
}

/*---- sink: a table, by an ordinary INSERT over kda.emitted() */

static Emission *emitting = NULL;
static int	emitting_from,
			emitting_to;		/* rows [from, to) of it */

PG_FUNCTION_INFO_V1(kda_emitted);

/* kda.emitted() → setof record: the rows that the worker is emitting; an error elsewhere. */
Datum
kda_emitted(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TupleTableSlot *in;
	TupleTableSlot *out;
	int			n = 0;

	if (emitting == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("kda.emitted() gives rows only to a pump's own INSERT")));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (rsinfo->setDesc->natts != emitting->desc->natts - 1)
		elog(ERROR, "kda.emitted() gives %d columns, %d are expected", emitting->desc->natts - 1,
			 rsinfo->setDesc->natts);
	in = MakeSingleTupleTableSlot(emitting->desc, &TTSOpsMinimalTuple);
	out = MakeSingleTupleTableSlot(rsinfo->setDesc, &TTSOpsVirtual);
	tuplestore_rescan(emitting->rows);
	while (n < emitting_to && tuplestore_gettupleslot(emitting->rows, true, false, in))
	{
		if (n++ < emitting_from)
			continue;
		ExecClearTuple(out);
		slot_getallattrs(in);
		memcpy(out->tts_values, in->tts_values + 1, sizeof(Datum) * rsinfo->setDesc->natts);
		memcpy(out->tts_isnull, in->tts_isnull + 1, sizeof(bool) * rsinfo->setDesc->natts);
		ExecStoreVirtualTuple(out);
		tuplestore_puttupleslot(rsinfo->setResult, out);
	}
	ExecDropSingleTupleTableSlot(in);
	ExecDropSingleTupleTableSlot(out);
	return (Datum) 0;
}

/* kda.emitted() AS e(…) with the columns of the view, as a range table entry. */
static RangeTblEntry *
emitted_entry(KdaQuery *query)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	RangeTblFunction *function = makeNode(RangeTblFunction);
	Relation	view = table_open(query->relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(view);
	Oid			none[1];
	FuncExpr   *call = makeFuncExpr(LookupFuncName(list_make2(makeString(KDA_SCHEMA), makeString("emitted")), 0, none, false),
									RECORDOID, NIL, InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);

	call->funcretset = true;
	function->funcexpr = (Node *) call;
	function->funccolcount = desc->natts;
	rte->rtekind = RTE_FUNCTION;
	rte->functions = list_make1(function);
	rte->eref = makeAlias("e", NIL);
	rte->inFromCl = true;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		rte->eref->colnames = lappend(rte->eref->colnames, makeString(pstrdup(NameStr(att->attname))));
		function->funccolnames = lappend(function->funccolnames, makeString(pstrdup(NameStr(att->attname))));
		function->funccoltypes = lappend_oid(function->funccoltypes, att->atttypid);
		function->funccoltypmods = lappend_int(function->funccoltypmods, att->atttypmod);
		function->funccolcollations = lappend_oid(function->funccolcollations, att->attcollation);
	}
	table_close(view, NoLock);
	return rte;
}

/* Rows [from, to), by the stored INSERT over kda.emitted(). */
static void
insert_into_table(Emission *em, int from, int to)
{
	KdaQuery   *query = em->query;
	Query	   *insert;
	RangeTblRef *ref = makeNode(RangeTblRef);
	KdaIdentity save;
	ListCell   *lc;

	emitting = em;
	emitting_from = from;
	emitting_to = to;
	kda_become_owner(query, &save);
	insert = kda_stored_insert(query->relid);
	lfirst(list_nth_cell(insert->rtable, KDA_EMITTED_VARNO - 1)) = emitted_entry(query);
	ref->rtindex = KDA_EMITTED_VARNO;
	insert->jointree->fromlist = lappend(insert->jointree->fromlist, ref);
	foreach(lc, insert_queries(query, insert))
	{
		PlannedStmt *plan;
		QueryDesc  *desc;

		CommandCounterIncrement();
		PushActiveSnapshot(GetLatestSnapshot());
		plan = pg_plan_query(lfirst_node(Query, lc), NULL, CURSOR_OPT_PARALLEL_OK, NULL);
		desc = CreateQueryDesc(plan, "pump", GetActiveSnapshot(), InvalidSnapshot, None_Receiver, NULL, NULL, 0);
		ExecutorStart(desc, 0);
		kda_executor_run(desc);
		ExecutorFinish(desc);
		ExecutorEnd(desc);
		FreeQueryDesc(desc);
		PopActiveSnapshot();
	}
	KDA_FAULT("emit_table");
	CommandCounterIncrement();
	kda_become_self(&save);
	emitting = NULL;
}

static void
emit_range(Emission *em, int from, int to)
{
	if (!em->query->is_pump)
		emit_to_closed(em, from, to);
	else if (em->query->target_is_stream)
		emit_to_stream(em, from, to);
	else
		insert_into_table(em, from, to);
}

/* A row as JSON, but for its first columns; casts to json may be the owner's code. */
static char *
slot_json(KdaQuery *query, TupleTableSlot *slot, int skip)
{
	KdaIdentity save;
	char	   *json;
	TupleDesc	from = slot->tts_tupleDescriptor;
	TupleDesc	desc = CreateTemplateTupleDesc(from->natts - skip);
	HeapTuple	tuple;

	slot_getallattrs(slot);
	for (int i = skip; i < from->natts; i++)
		TupleDescCopyEntry(desc, i - skip + 1, from, i + 1);
	BlessTupleDesc(desc);
	tuple = heap_form_tuple(desc, slot->tts_values + skip, slot->tts_isnull + skip);
	kda_become_owner(query, &save);
	json = TextDatumGetCString(DirectFunctionCall1(row_to_json, heap_copy_tuple_as_datum(tuple, desc)));
	kda_become_self(&save);
	return json;
}

/* A row that the target refuses goes to the error stream; the others get there. */
static void
emit_or_halve(Emission *em, int from, int to, MemoryContext context, ResourceOwner owner)
{
	ErrorData  *volatile edata = NULL;
	KdaIdentity save;

	GetUserIdAndSecContext(&save.userid, &save.sec_context);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		kda_query_timer_start();
		emit_range(em, from, to);
		kda_query_timer_stop();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		kda_query_timer_judge(em->query, edata);
		RollbackAndReleaseCurrentSubTransaction();
		emitting = NULL;
		kda_in_query = false;
		SetUserIdAndSecContext(save.userid, save.sec_context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (edata == NULL)
	{
		em->query->d_out += to - from;
		return;
	}
	if (kda_error_is_transient(edata->sqlerrcode))
		ReThrowError(edata);
	if (em->query->failure)
		return;
	/* a missing right, table or column is nobody's record's fault */
	if (ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION)
	{
		kda_query_fail(em->query, edata);
		return;
	}
	if (to - from <= 1)
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(em->desc, &TTSOpsMinimalTuple);
		int			n = 0;
		char	   *json = NULL;
		KdaTime		time = KDA_NO_TIME,
					wm;

		tuplestore_rescan(em->rows);
		while (tuplestore_gettupleslot(em->rows, true, false, slot))
			if (n++ == from)
			{
				time = emitted_time(em, slot, &wm);
				json = slot_json(em->query, slot, 1);
				break;
			}
		ExecDropSingleTupleTableSlot(slot);
		kda_error_add("rejected", edata->message, em->query->stream->relid, NULL, NULL, time,
					  json, json ? strlen(json) : 0, em->query->relid);
		return;
	}
	FreeErrorData(edata);
	emit_or_halve(em, from, from + (to - from) / 2, context, owner);
	if (em->query->failure == NULL)
		emit_or_halve(em, from + (to - from) / 2, to, context, owner);
}

/*---- all sinks */

static void
emit(Emission *em)
{
	KdaQuery   *query = em->query;
	int64		n = tuplestore_tuple_count(em->rows);

	if (n == 0)
		return;
	/* inserts run code of users in any case; the other sinks rarely refuse a row */
	if ((query->is_pump && !query->target_is_stream) || query->careful > 0)
		emit_or_halve(em, 0, (int) n, CurrentMemoryContext, CurrentResourceOwner);
	else
	{
		kda_emitting_query = query;
		emit_range(em, 0, (int) n);
		kda_emitting_query = NULL;
		query->d_out += n;
	}
}

void
kda_query_emit_rows(KdaQuery *query, Tuplestorestate *rows)
{
	Emission	em = {query, rows, kda_plan_desc(query->batch_plan), KDA_NO_TIME};

	kda_current_query = query;
	emit(&em);
	kda_current_query = NULL;
}

/* Runs the final part; its rows land in a tuplestore. */
static void
run_final(KdaQuery *query, const KdaPlanBounds *bounds, Tuplestorestate *rows)
{
	DestReceiver *dest = CreateDestReceiver(DestTuplestore);
	KdaIdentity save;

	SetTuplestoreDestReceiverParams(dest, rows, CurrentMemoryContext, false, NULL, NULL);
	kda_become_owner(query, &save);
	kda_plan_run_bounded(query->final_plan, bounds, dest);
	kda_become_self(&save);
	dest->rDestroy(dest);
}

/* The tuples of the open table that the bounds stand for. */
static void
find_tuples(KdaQuery *query, KdaPlanBounds *bounds)
{
	Relation	rel = table_open(query->open_rel, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	int			room = 64;

	bounds->tids = palloc(sizeof(ItemPointerData) * room);
	bounds->ntids = 0;
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		Datum		start = slot_getattr(slot, KDA_OPEN_FIRST_KEY, &isnull);

		if (isnull || DatumGetTimestampTz(start) >= bounds->before)
			continue;
		if (bounds->ntids == room)
		{
			room *= 2;
			bounds->tids = repalloc_huge(bounds->tids, sizeof(ItemPointerData) * room);
		}
		bounds->tids[bounds->ntids++] = slot->tts_tid;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

/* A group whose final row cannot be computed: what it is goes to the error stream. */
static void
refuse_group(KdaQuery *query, ItemPointer tid, const ErrorData *edata)
{
	Relation	rel = table_open(query->open_rel, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	KdaTime		time = KDA_NO_TIME;
	char	   *json = NULL;

	if (table_tuple_fetch_row_version(rel, tid, GetActiveSnapshot(), slot))
	{
		if (query->shape == KDA_SHAPE_WINDOWS)
		{
			bool		isnull;

			time = DatumGetTimestampTz(slot_getattr(slot, KDA_OPEN_FIRST_KEY, &isnull)) +
				query->window_size_us - 1;
		}
		json = slot_json(query, slot, KDA_OPEN_FIRST_KEY - 1);
	}
	kda_error_add("expression", edata->message, query->stream->relid, NULL, NULL, time,
				  json, json ? strlen(json) : 0, query->relid);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

/*
 * The final rows within bounds.  A row whose expressions fail is refused, the
 * others are given; NULL if the query cannot run at all (it has failed then).
 */
static Tuplestorestate *
final_rows(KdaQuery *query, KdaPlanBounds *bounds)
{
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile edata = NULL;
	KdaIdentity save;

	GetUserIdAndSecContext(&save.userid, &save.sec_context);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		kda_query_timer_start();
		run_final(query, bounds, rows);
		kda_query_timer_stop();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		kda_query_timer_judge(query, edata);
		RollbackAndReleaseCurrentSubTransaction();
		kda_in_query = false;
		SetUserIdAndSecContext(save.userid, save.sec_context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (edata == NULL)
		return rows;

	tuplestore_end(rows);
	if (kda_error_is_transient(edata->sqlerrcode))
		ReThrowError(edata);
	if (query->failure)
		return NULL;
	if (bounds->tids == NULL)
		find_tuples(query, bounds);
	if (bounds->ntids == 0 ||
		ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION)
	{
		kda_query_fail(query, edata);
		return NULL;
	}
	rows = tuplestore_begin_heap(false, false, work_mem);
	if (bounds->ntids == 1)
		refuse_group(query, bounds->tids, edata);
	else
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(kda_plan_desc(query->final_plan), &TTSOpsMinimalTuple);

		for (int half = 0; half < 2 && query->failure == NULL; half++)
		{
			int			middle = bounds->ntids / 2;
			KdaPlanBounds part = *bounds;
			Tuplestorestate *some;

			part.tids = half == 0 ? bounds->tids : bounds->tids + middle;
			part.ntids = half == 0 ? middle : bounds->ntids - middle;
			some = final_rows(query, &part);
			if (some == NULL)
				break;
			while (tuplestore_gettupleslot(some, true, false, slot))
				tuplestore_puttupleslot(rows, slot);
			tuplestore_end(some);
		}
		ExecDropSingleTupleTableSlot(slot);
	}
	return rows;
}

void
kda_query_close_windows(KdaQuery *query, KdaTime frontier)
{
	Emission	em = {query, NULL, NULL, query->frontier};
	KdaPlanBounds bounds = {0};

	if (query->final_plan == NULL)
		query->final_plan = kda_plan_create(query->context, query->final_rel, true);
	if (query->groups == NULL)
		query->groups = kda_groups_create(query, (Size) kda_state_cache_kb * 1024);
	if (kda_groups_min_window_end(query->groups) > frontier)
		return;
	kda_current_query = query;
	/* windows that end at or before the frontier: window_start < frontier - size + 1 µs */
	bounds.before = frontier == KDA_END_TIME ? KDA_END_TIME : frontier - query->window_size_us + 1;
	CommandCounterIncrement();
	KDA_FAULT("close");
	PushActiveSnapshot(GetLatestSnapshot());
	em.rows = final_rows(query, &bounds);
	PopActiveSnapshot();
	if (em.rows)
	{
		em.desc = kda_plan_desc(query->final_plan);
		emit(&em);
		tuplestore_end(em.rows);
	}
	if (query->failure == NULL)
		kda_groups_close(query->groups, frontier);
	KDA_FAULT("closed");
	kda_current_query = NULL;
}

void
kda_query_emit_changed(KdaQuery *query)
{
	Emission	em = {query, NULL, NULL, KDA_NO_TIME};
	KdaPlanBounds bounds = {0};
	int			n;

	if (query->final_plan == NULL)
		query->final_plan = kda_plan_create(query->context, query->final_rel, true);
	bounds.tids = kda_groups_written(query->groups, &n);
	bounds.ntids = n;
	if (n == 0)
		return;
	kda_current_query = query;
	em.shard_wm = query->stream->watermark;
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	em.rows = final_rows(query, &bounds);
	PopActiveSnapshot();
	if (em.rows)
	{
		em.desc = kda_plan_desc(query->final_plan);
		emit(&em);
		tuplestore_end(em.rows);
	}
	kda_current_query = NULL;
}

#define FORGET_EVERY	(10 * USECS_PER_SEC)

/* The index on the time of the closed rows: ours, made first. */
static Oid
time_index(Relation closed)
{
	ListCell   *lc;
	Oid			found = InvalidOid;
	List	   *indexes = RelationGetIndexList(closed);

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_index->indnatts == 1 && index->rd_index->indkey.values[0] == 1 &&
			heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
			found = lfirst_oid(lc);
		index_close(index, NoLock);
		if (OidIsValid(found))
			break;
	}
	list_free(indexes);
	return found;
}

/*
 * Not by a DELETE statement: planning one would run the owner's index
 * expressions with the worker's rights.
 */
void
kda_query_forget_old(KdaQuery *query, TimestampTz now)
{
	KdaTime		mark = query->stream->watermark;
	Relation	closed;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	Oid			index;

	if (query->retention_us < 0 || !OidIsValid(query->closed_rel) || mark == KDA_NO_TIME ||
		TIMESTAMP_NOT_FINITE(mark) || now < query->forget_at)
		return;
	query->forget_at = now + FORGET_EVERY;
	closed = table_open(query->closed_rel, RowExclusiveLock);
	CommandCounterIncrement();
	ScanKeyInit(&key, 1, BTLessStrategyNumber, F_TIMESTAMPTZ_LT, TimestampTzGetDatum(mark - query->retention_us));
	PushActiveSnapshot(GetLatestSnapshot());
	index = time_index(closed);
	scan = systable_beginscan(closed, index, OidIsValid(index), GetActiveSnapshot(), 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		simple_table_tuple_delete(closed, &tuple->t_self, GetActiveSnapshot());
	}
	systable_endscan(scan);
	PopActiveSnapshot();
	table_close(closed, NoLock);
}
