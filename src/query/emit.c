/*-------------------------------------------------------------------------
 *
 * emit.c
 *	  Final rows to where they go: a view's closed table, a pump's stream or
 *	  table.  In the worker's transaction.
 *
 * Rows come from the final part (closed windows, changed endless groups) or
 * straight from the per-batch part (queries without aggregates).  Their first
 * columns are ours: the bounds of the window, or for plain rows the record's
 * ctid, which tells its row in the batch.
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
#include "catalog/rows.h"
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
#include "parser/parse_coerce.h"
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

/* Attribute of kda_storage.query_progress: see sql/. */
#define KDA_PROGRESS_FRONTIER	3

#define ENDED_AT_ONCE	100000	/* sessions whose rows are given by one run of the final part */
#define MAX_ISOLATED_RUNS 200	/* OVER: what still fails then is refused in the pieces that there are */

/* What a sink gets with each row. */
typedef struct Emission
{
	KdaQuery   *query;
	Tuplestorestate *rows;
	TupleDesc	desc;			/* of rows */
	int			ours;			/* number of their columns that are ours: they come first */
	KdaTime		shard_wm;		/* windows: the mark that a closing step is judged against */
} Emission;

/* Rowtime of an emitted row, and the watermark that it is judged against. */
static KdaTime
emitted_time(Emission *em, TupleTableSlot *slot, KdaTime *shard_wm)
{
	KdaQuery   *query = em->query;
	bool		isnull;

	*shard_wm = em->shard_wm;
	switch (query->shape)
	{
		case KDA_SHAPE_WINDOWS:
			return DatumGetTimestampTz(slot_getattr(slot, 2, &isnull)) - 1;
		case KDA_SHAPE_OVER:
			return DatumGetTimestampTz(slot_getattr(slot, 1, &isnull));
		case KDA_SHAPE_ROWS:
			{
				int			row = kda_tid_to_row((ItemPointer) DatumGetPointer(slot_getattr(slot, 1, &isnull)));

				if (query->retime)
					return kda_retime_of(query->retime, row, shard_wm);
				*shard_wm = query->stream->batch->shard_wm[row];
				return query->stream->batch->rowtime[row];
			}
		case KDA_SHAPE_JOIN:
			{
				/* the later one; an unmatched row has one */
				bool		left_null,
							right_null;
				KdaTime		left = DatumGetTimestampTz(slot_getattr(slot, 1, &left_null));
				KdaTime		right = DatumGetTimestampTz(slot_getattr(slot, 2, &right_null));

				return left_null ? right : right_null ? left : Max(left, right);
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
		memcpy(out->tts_values + 1, in->tts_values + em->ours, sizeof(Datum) * (em->desc->natts - em->ours));
		memcpy(out->tts_isnull + 1, in->tts_isnull + em->ours, sizeof(bool) * (em->desc->natts - em->ours));
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
		var->varattno += *(int *) context;
		return (Node *) var;
	}
	return expression_tree_mutator(node, emitted_mutator, context);
}

/* Of a stream that was made for the query: its columns are the query's. */
static List *
columns_by_place(Emission *em, TupleDesc desc)
{
	List	   *exprs = NIL;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Form_pg_attribute from = TupleDescAttr(em->desc, em->ours + i);
		Node	   *expr = (Node *) makeVar(OUTER_VAR, em->ours + i + 1, from->atttypid, from->atttypmod,
											from->attcollation, 0);

		expr = coerce_to_target_type(NULL, expr, from->atttypid, att->atttypid, att->atttypmod,
									 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
		exprs = lappend(exprs, makeTargetEntry(expression_planner((Expr *) expr), i + 1, NULL, false));
	}
	return exprs;
}

/*
 * For each column of the target an expression over the emitted row; whether
 * the pump leaves the time column to us.
 */
static List *
target_expressions(Emission *em, Relation target, AttrNumber rowtime, bool *fill_rowtime)
{
	KdaQuery   *query = em->query;
	TupleDesc	desc = RelationGetDescr(target);
	Query	   *insert;
	List	   *exprs = NIL;
	ListCell   *lc;

	if (!OidIsValid(kda_stored_insert_rule(query->relid, true)))
	{
		*fill_rowtime = false;
		return columns_by_place(em, desc);
	}
	insert = kda_stored_insert(query->relid);
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
			expr = expression_planner((Expr *) emitted_mutator((Node *) expr, &em->ours));
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
	exprs = target_expressions(em, target, rowtime, &fill_rowtime);
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
	if (rsinfo->setDesc->natts != emitting->desc->natts - emitting->ours)
		elog(ERROR, "kda.emitted() gives %d columns, %d are expected", emitting->desc->natts - emitting->ours,
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
		memcpy(out->tts_values, in->tts_values + emitting->ours, sizeof(Datum) * rsinfo->setDesc->natts);
		memcpy(out->tts_isnull, in->tts_isnull + emitting->ours, sizeof(bool) * rsinfo->setDesc->natts);
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
	{
		emit_to_closed(em, from, to);
		if (em->query->target_is_stream && em->query->target_is_read)
			emit_to_stream(em, from, to);
	}
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
				json = slot_json(em->query, slot, em->ours);
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
	Emission	em = {query, rows, kda_plan_desc(query->batch_plan), query->retime ? 2 : 1, KDA_NO_TIME};

	kda_current_query = query;
	emit(&em);
	kda_current_query = NULL;
}

void
kda_query_emit_joined(KdaQuery *query, Tuplestorestate *rows, TupleDesc desc)
{
	Emission	em = {query, rows, desc, 4, query->frontier};

	emit(&em);
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

static bool closing = false;	/* the windows whose final part runs are closed */

/*---- errors in the final part: which rows are to blame */

/* A tuple of the open table; those of one key belong together. */
typedef struct OpenTuple
{
	ItemPointerData tid;
	uint32		hash;
} OpenTuple;

static int
by_hash(const void *a, const void *b)
{
	const OpenTuple *ta = a;
	const OpenTuple *tb = b;

	return ta->hash != tb->hash ? (ta->hash < tb->hash ? -1 : 1) :
		ItemPointerCompare((ItemPointer) &ta->tid, (ItemPointer) &tb->tid);
}

/* State groups: the tuples whose pane is in the window, keys together; of endless groups all. */
static OpenTuple *
tuples_of_window(KdaQuery *query, KdaTime end, int *n)
{
	bool		windows = query->shape == KDA_SHAPE_WINDOWS;
	Relation	rel = table_open(query->open_rel, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	bool		paned = query->window.kind != KDA_WINDOW_TUMBLING;
	int			room = 64;
	OpenTuple  *tuples = palloc(sizeof(OpenTuple) * room);

	*n = 0;
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		KdaTime		start,
					found;

		CHECK_FOR_INTERRUPTS();
		if (windows && (!kda_window_next(&query->window, DatumGetTimestampTz(slot_getattr(slot, KDA_OPEN_FIRST_KEY, &isnull)),
										 end - 1, &start, &found) || found != end))
			continue;
		if (*n == room)
			tuples = repalloc_huge(tuples, sizeof(OpenTuple) * (room *= 2));
		slot_getallattrs(slot);
		tuples[*n].tid = slot->tts_tid;
		tuples[(*n)++].hash = kda_groups_hash_tuple(query->groups, slot, !windows ? 0 : paned ? 2 : 1);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	qsort(tuples, *n, sizeof(OpenTuple), by_hash);
	return tuples;
}

/* A result that cannot be computed: what it is made of goes to the error stream. */
static void
refuse_result(KdaQuery *query, const KdaPlanBounds *bounds, const ErrorData *edata)
{
	char	   *json = NULL;
	KdaTime		time = bounds->timed ? bounds->upto - 1 : bounds->leaving ? bounds->upto : KDA_NO_TIME;

	/* as long as the window is open it may still come right */
	if (!closing && query->shape == KDA_SHAPE_WINDOWS)
		return;

	if (bounds->tids)
	{
		Relation	rel = table_open(query->open_rel, AccessShareLock);
		TupleTableSlot *slot = table_slot_create(rel, NULL);

		if (table_tuple_fetch_row_version(rel, &bounds->tids[0], GetActiveSnapshot(), slot))
		{
			json = slot_json(query, slot, KDA_OPEN_FIRST_KEY - 1);
			if (kda_query_has_sessions(query))
				time = kda_groups_tuple_end(query->groups, slot) - 1;
		}
		ExecDropSingleTupleTableSlot(slot);
		table_close(rel, NoLock);
	}
	else
		json = psprintf("{\"%s\":\"%s\"}", bounds->leaving ? "rowtime" : "window_end", timestamptz_to_str(bounds->upto));
	kda_error_add("expression", edata->message, query->stream->relid, NULL, NULL, time, json, json ? strlen(json) : 0, query->relid);
}

static Tuplestorestate *final_rows(KdaQuery *query, const KdaPlanBounds *bounds);

static int	isolated_runs;		/* since the emission began */

static void
append_rows(KdaQuery *query, Tuplestorestate *to, const KdaPlanBounds *bounds)
{
	Tuplestorestate *some = final_rows(query, bounds);
	TupleTableSlot *slot;

	if (some == NULL)
		return;
	slot = MakeSingleTupleTableSlot(kda_plan_desc(query->final_plan), &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(some, true, false, slot))
		tuplestore_puttupleslot(to, slot);
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(some);
}

/* Ends of windows within the bounds, ascending. */
static KdaTime *
window_ends(KdaQuery *query, const KdaPlanBounds *bounds, int *n)
{
	KdaTime    *ends = query->slotted ? kda_slotted_window_ends(query, bounds, n) :
		query->groups ? kda_groups_window_ends(query->groups, bounds->upto, n) :
		kda_kept_window_ends(query->kept, bounds->upto, n);
	int			before = 0;

	while (before < *n && ends[before] <= bounds->after)
		before++;
	*n -= before;
	return memcpy(palloc(sizeof(KdaTime) * (*n + 1)), ends + before, sizeof(KdaTime) * *n);
}

/* Can single keys of a window be asked for? */
static bool
keys_are_separate(KdaQuery *query)
{
	return query->groups != NULL && !query->per_window;
}

/* Two halves of tuples, where keys stay together; n > 0.  Returns how many are in the first one. */
static int
half(const OpenTuple *tuples, int n)
{
	int			middle = n / 2;

	while (middle > 0 && tuples[middle].hash == tuples[middle - 1].hash)
		middle--;
	if (middle == 0)
		for (middle = n / 2; middle < n && (middle == 0 || tuples[middle].hash == tuples[middle - 1].hash); middle++)
			;
	return middle;
}

static void
by_halves(KdaQuery *query, Tuplestorestate *rows, const KdaPlanBounds *bounds, OpenTuple *tuples, int n)
{
	int			middle = half(tuples, n);

	for (int part = 0; part < 2 && query->failure == NULL; part++)
	{
		KdaPlanBounds some = *bounds;
		OpenTuple  *from = part == 0 ? tuples : tuples + middle;

		some.ntids = part == 0 ? middle : n - middle;
		if (some.ntids == 0)
			continue;
		some.tids = palloc_extended(sizeof(ItemPointerData) * some.ntids, MCXT_ALLOC_HUGE);
		for (int i = 0; i < some.ntids; i++)
			some.tids[i] = from[i].tid;
		append_rows(query, rows, &some);
		pfree(some.tids);
	}
}

static int
by_time(const void *a, const void *b)
{
	KdaTime		ta = *(const KdaTime *) a;
	KdaTime		tb = *(const KdaTime *) b;

	return ta < tb ? -1 : ta > tb;
}

/* OVER: the times of the rows that leave within the bounds, ascending, each once; palloc'd. */
static KdaTime *
leaving_times(KdaQuery *query, const KdaPlanBounds *bounds, int *n)
{
	Relation	rel = table_open(query->open_rel, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	int			room = 64;
	int			found = 0;
	KdaTime    *times = palloc(sizeof(KdaTime) * room);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		KdaTime		time = DatumGetTimestampTz(slot_getattr(slot, KDA_KEPT_TIME, &isnull));

		CHECK_FOR_INTERRUPTS();
		if (time > bounds->upto ||
			(time <= bounds->after && DatumGetInt64(slot_getattr(slot, KDA_KEPT_SEQ, &isnull)) <= bounds->first))
			continue;
		if (found == room)
			times = repalloc_huge(times, sizeof(KdaTime) * (room *= 2));
		times[found++] = time;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	qsort(times, found, sizeof(KdaTime), by_time);
	*n = 0;
	for (int i = 0; i < found; i++)
		if (i == 0 || times[i] != times[i - 1])
			times[(*n)++] = times[i];
	return times;
}

/*
 * The bounds do not give rows without an error: single windows are tried, then
 * single keys of a window; what is left is to blame.
 */
static void
isolate(KdaQuery *query, Tuplestorestate *rows, const KdaPlanBounds *bounds, const ErrorData *edata)
{
	OpenTuple  *tuples;
	KdaPlanBounds window;
	int			n;

	if (bounds->leaving)
	{
		/*
		 * Single instants are tried; rows of the one to blame are lost
		 * together.  One row that others look back at may spoil them all.
		 */
		KdaTime    *times = leaving_times(query, bounds, &n);

		if (n > 1 && isolated_runs++ < MAX_ISOLATED_RUNS)
		{
			KdaPlanBounds some = *bounds;
			KdaTime		middle = times[n / 2 - 1];

			pfree(times);
			some.upto = middle;
			append_rows(query, rows, &some);
			some.after = middle;
			some.upto = bounds->upto;
			some.first = PG_INT64_MAX;
			if (query->failure == NULL)
				append_rows(query, rows, &some);
			return;
		}
		pfree(times);
		refuse_result(query, bounds, edata);
		return;
	}
	if (bounds->timed && bounds->tids == NULL)
	{
		KdaTime    *ends = window_ends(query, bounds, &n);
		int			keys;

		if (n > 1)
		{
			KdaPlanBounds one = *bounds;

			for (int i = 0; i < n && query->failure == NULL; i++)
			{
				one.upto = ends[i];
				append_rows(query, rows, &one);
				one.after = ends[i];
			}
			return;
		}
		if (n == 1)
		{
			/* which keys it has is asked by its end; time may have come further */
			window = *bounds;
			window.upto = ends[0];
			bounds = &window;
		}
		if (n == 1 && query->kept && (keys = kda_kept_count_ending(query->kept, ends[0])) > 1)
		{
			/* sessions of several keys */
			for (int i = 0; i < keys && query->failure == NULL; i++)
			{
				kda_kept_only(query->kept, ends[0], i);
				append_rows(query, rows, bounds);
			}
			kda_kept_only(query->kept, ends[0], -1);
			return;
		}
		if (n == 1 && keys_are_separate(query))
		{
			tuples = tuples_of_window(query, ends[0], &n);
			if (n > 0 && half(tuples, n) < n)
			{
				by_halves(query, rows, bounds, tuples, n);
				pfree(tuples);
				return;
			}
		}
		refuse_result(query, bounds, edata);
		return;
	}
	if (!bounds->timed && bounds->tids == NULL && keys_are_separate(query))
	{
		/* all of the endless groups */
		tuples = tuples_of_window(query, KDA_END_TIME, &n);
		if (n > 0)
			by_halves(query, rows, bounds, tuples, n);
		return;
	}
	tuples = palloc_extended(sizeof(OpenTuple) * Max(bounds->ntids, 1), MCXT_ALLOC_HUGE);
	n = bounds->ntids;
	for (int i = 0; i < n; i++)
	{
		tuples[i].tid = bounds->tids[i];
		tuples[i].hash = i;		/* endless groups, sessions: each tuple is a key of its own */
	}
	if (bounds->timed)
	{
		/* the same tuples with their keys again */
		Relation	rel = table_open(query->open_rel, AccessShareLock);
		TupleTableSlot *slot = table_slot_create(rel, NULL);
		int			found = 0;

		for (int i = 0; i < n; i++)
			if (table_tuple_fetch_row_version(rel, &tuples[i].tid, GetActiveSnapshot(), slot))
			{
				slot_getallattrs(slot);
				tuples[found] = tuples[i];
				tuples[found++].hash = kda_groups_hash_tuple(query->groups, slot, query->window.kind != KDA_WINDOW_TUMBLING ? 2 : 1);
			}
		ExecDropSingleTupleTableSlot(slot);
		table_close(rel, NoLock);
		n = found;
		qsort(tuples, n, sizeof(OpenTuple), by_hash);
	}
	if (n > 1 && half(tuples, n) < n)
		by_halves(query, rows, bounds, tuples, n);
	else
		refuse_result(query, bounds, edata);
	pfree(tuples);
}

/*
 * The final rows within bounds.  A row whose expressions fail is refused, the
 * others are given; NULL if the query cannot run at all (it has failed then).
 */
static Tuplestorestate *
final_rows(KdaQuery *query, const KdaPlanBounds *bounds)
{
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
	MemoryContext context = CurrentMemoryContext;
	/* an executor that ends by an error leaves everything behind */
	MemoryContext run_context = AllocSetContextCreate(context, "kda final part", ALLOCSET_DEFAULT_SIZES);
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile edata = NULL;
	KdaIdentity save;
	KdaPlanBounds none = {.timed = true,.after = KDA_END_TIME,.upto = KDA_END_TIME};

	GetUserIdAndSecContext(&save.userid, &save.sec_context);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(run_context);
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
	MemoryContextDelete(run_context);
	CurrentResourceOwner = owner;
	if (edata == NULL)
		return rows;

	tuplestore_end(rows);
	if (kda_error_is_transient(edata->sqlerrcode))
		ReThrowError(edata);
	if (query->failure)
		return NULL;
	/* does it fail without any row, or for want of a right, no row is to blame */
	if (bounds->after == none.after ||
		ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION)
	{
		kda_query_fail(query, edata);
		return NULL;
	}
	if (bounds->timed && bounds->tids == NULL)
	{
		Tuplestorestate *nothing = final_rows(query, &none);

		if (nothing == NULL)
			return NULL;
		tuplestore_end(nothing);
	}
	rows = tuplestore_begin_heap(false, false, work_mem);
	isolate(query, rows, bounds, edata);
	FreeErrorData(edata);
	if (query->failure)
	{
		tuplestore_end(rows);
		return NULL;
	}
	return rows;
}

/*---- what leaves */

Tuplestorestate *
kda_query_compute(KdaQuery *query, const KdaPlanBounds *bounds, bool closed)
{
	Tuplestorestate *rows;
	KdaQuery   *around = kda_current_query;

	if (query->final_plan == NULL)
		query->final_plan = kda_plan_create(query->context, query->slotted && OidIsValid(query->merged_rel) ?
											query->merged_rel : query->final_rel, true);
	kda_current_query = query;
	isolated_runs = 0;
	closing = closed;
	CommandCounterIncrement();
	KDA_FAULT("close");
	PushActiveSnapshot(GetLatestSnapshot());
	rows = final_rows(query, bounds);
	PopActiveSnapshot();
	closing = false;
	kda_current_query = around;
	return rows;
}

void
kda_query_emit_computed(KdaQuery *query, Tuplestorestate *rows, KdaTime shard_wm)
{
	Emission	em = {query, rows, kda_plan_desc(query->final_plan), 2, shard_wm};
	KdaQuery   *around = kda_current_query;

	kda_current_query = query;
	emit(&em);
	kda_current_query = around;
}

static void
emit_final(KdaQuery *query, const KdaPlanBounds *bounds, KdaTime shard_wm, bool closed)
{
	Tuplestorestate *rows = kda_query_compute(query, bounds, closed);

	if (rows == NULL)
		return;
	kda_query_emit_computed(query, rows, shard_wm);
	tuplestore_end(rows);
}

/* Sessions in groups: the cache knows where those are that have ended. */
static void
emit_ended(KdaQuery *query, KdaTime frontier)
{
	KdaPlanBounds bounds = {.timed = false,.after = KDA_NO_TIME,.upto = KDA_END_TIME};
	int			n;
	ItemPointer tids = kda_groups_ended(query->groups, frontier, &n);

	for (int from = 0; from < n && query->failure == NULL; from += ENDED_AT_ONCE)
	{
		bounds.tids = tids + from;
		bounds.ntids = Min(n - from, ENDED_AT_ONCE);
		emit_final(query, &bounds, query->frontier, true);
	}
	pfree(tids);
}

static inline KdaTime
earlier(KdaTime t, int64 us)
{
	return TIMESTAMP_NOT_FINITE(t) ? t : t - us;
}

KdaTime
kda_query_closed_upto(const KdaQuery *query, KdaTime watermark)
{
	if (query->deferred)
		watermark = earlier(watermark, query->lateness_us);
	/* a row at exactly the gap is not late yet when the watermark has reached the end of its session */
	return kda_query_has_sessions(query) && query->window.kind == KDA_WINDOW_SESSION && !TIMESTAMP_NOT_FINITE(watermark) ?
		watermark - 1 : watermark;
}

KdaTime
kda_query_final_upto(const KdaQuery *query, KdaTime watermark)
{
	KdaTime		closed = kda_query_closed_upto(query, watermark);

	return query->deferred ? closed : earlier(closed, query->lateness_us);
}

void
kda_query_close_windows(KdaQuery *query, KdaTime frontier)
{
	KdaPlanBounds bounds = {.timed = true,.after = query->frontier,.upto = frontier};

	kda_query_prepare_state(query);
	/* after a restart windows may close before a record comes */
	if (query->groups)
		kda_groups_prepare(query->groups);
	if (query->slotted ? !kda_slotted_any_ends(query, frontier) :
		(query->groups ? kda_groups_min_window_end(query->groups) : kda_kept_min_window_end(query->kept)) > frontier)
		return;
	if (query->groups && kda_query_has_sessions(query))
		emit_ended(query, frontier);
	else
	{
		if (query->kept)
			kda_kept_begin_closing(query->kept, frontier);
		emit_final(query, &bounds, query->frontier, true);
	}
	if (query->failure)
		return;
	kda_current_query = query;
	if (query->groups)
		kda_groups_close(query->groups, frontier);
	else
		kda_kept_close(query->kept, frontier);
	if (query->leftovers)
		kda_slotted_close_leftovers(query, frontier);
	KDA_FAULT("closed");
	kda_current_query = NULL;
}

void
kda_query_emit_changed(KdaQuery *query)
{
	KdaPlanBounds bounds = {.after = KDA_NO_TIME,.upto = KDA_END_TIME};

	bounds.tids = kda_groups_written(query->groups, &bounds.ntids);
	if (bounds.ntids > 0)
		emit_final(query, &bounds, query->stream->watermark, false);
}

void
kda_query_emit_final(KdaQuery *query, const KdaPlanBounds *bounds, KdaTime shard_wm)
{
	emit_final(query, bounds, shard_wm, true);
}

KdaTime
kda_query_mark(const KdaQuery *query, int row)
{
	return Max(earlier(query->stream->batch->shard_wm[row], query->lateness_us), Max(query->forgotten, query->accepts));
}

bool
kda_query_is_late(KdaQuery *query, int row)
{
	KdaBatch   *batch = query->stream->batch;
	KdaTime		t = batch->rowtime[row];

	/* an infinite time is in one window that never ends, or not in any */
	if (TIMESTAMP_NOT_FINITE(t) && query->window.kind != KDA_WINDOW_TUMBLING)
		return true;
	/* whether it joins a session that has closed depends on other rows: what is earlier than the watermark may not */
	if (query->window.kind == KDA_WINDOW_SESSION)
		return t < batch->shard_wm[row] || t <= query->frontier;
	return kda_window_last_end(&query->window, t) <= kda_query_mark(query, row);
}

/*---- functions that stand in final parts */

PG_FUNCTION_INFO_V1(kda_closing);

/* kda.closing(query_id) → boolean: true while the worker emits closed windows of the query, which kda.closing_sessions() gives then */
Datum
kda_closing(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(closing && kda_current_query && kda_current_query->id == PG_GETARG_INT32(0));
}

PG_FUNCTION_INFO_V1(kda_closing_sessions);

/* kda.closing_sessions(query_id) → (window_start, window_end, kda_key): sessions that close; none outside of kda.closing() */
Datum
kda_closing_sessions(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	if (closing && kda_current_query && kda_current_query->id == PG_GETARG_INT32(0) && kda_current_query->kept)
		kda_kept_put_closing(kda_current_query->kept, (ReturnSetInfo *) fcinfo->resultinfo);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(kda_window_closed);

/* kda.window_closed() → boolean: true while the worker emits closed windows */
Datum
kda_window_closed(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(closing);
}

PG_FUNCTION_INFO_V1(kda_window_revision);

/* kda.window_revision() → int */
Datum
kda_window_revision(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(0);
}

/* The row in the batch of the query that runs. */
static int
row_of_argument(FunctionCallInfo fcinfo, const char *function)
{
	KdaQuery   *query = kda_current_query;
	int			row = PG_ARGISNULL(0) ? -1 : kda_tid_to_row((ItemPointer) PG_GETARG_POINTER(0));
	KdaBatch   *batch = kda_in_worker && query ? query->stream->batch : NULL;

	if (batch == NULL || row < 0 || row >= batch->nrows)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s is known only inside a worker", function)));
	return row;
}

PG_FUNCTION_INFO_V1(kda_batch_row);

/* kda.batch_row(tid) → bigint: the record's place in the batch, in order of arrival */
Datum
kda_batch_row(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(row_of_argument(fcinfo, "kda.batch_row()"));
}

PG_FUNCTION_INFO_V1(kda_pane_after);

/* kda.pane_after(tid) → timestamptz: of the record at that place in the batch, for the query that runs */
Datum
kda_pane_after(PG_FUNCTION_ARGS)
{
	int			row = row_of_argument(fcinfo, "kda.pane_after()");
	KdaQuery   *query = kda_current_query;

	PG_RETURN_TIMESTAMPTZ(kda_window_after(&query->window, query->stream->batch->rowtime[row], kda_query_mark(query, row)));
}

PG_FUNCTION_INFO_V1(kda_frontier);

/* kda.frontier(query_id) → timestamptz: as of the caller's snapshot; -infinity: nothing is closed yet */
Datum
kda_frontier(PG_FUNCTION_ARGS)
{
	int32		id = PG_GETARG_INT32(0);
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	KdaTime		frontier = KDA_NO_TIME;

	/* the worker is ahead of its table; what it asks for is bounded besides, and may be windows that are corrected */
	if (kda_in_worker && kda_current_query && kda_current_query->id == id)
		PG_RETURN_TIMESTAMPTZ(kda_current_query->forgotten);
	rel = table_open(kda_storage_relation("query_progress"), AccessShareLock);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	scan = systable_beginscan(rel, kda_storage_relation("query_progress_pkey"), true, GetActiveSnapshot(), 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		d = heap_getattr(tuple, KDA_PROGRESS_FRONTIER, RelationGetDescr(rel), &isnull);

		if (!isnull)
			frontier = DatumGetTimestampTz(d);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	PG_RETURN_TIMESTAMPTZ(frontier);
}

/*---- forgetting */

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
