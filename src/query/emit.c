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

#include "access/heapam.h"
#include "catalog/rows.h"
#include "catalog/store_query.h"
#include "executor/nodeModifyTable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "query/run.h"
#include "rewrite/rewriteHandler.h"
#include "parser/parse_coerce.h"
#include "runtime/error_stream.h"
#include "runtime/runtime.h"
#include "stream/announce.h"
#include "stream/fdw.h"
#include "stream/inbox.h"
#include "stream/indexes.h"
#include "stream/outbox.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"


/* What a sink gets with each row. */
typedef struct Emission
{
	KdaQuery   *query;
	Tuplestorestate *rows;
	TupleDesc	desc;			/* of rows */
	int			ours;			/* number of their columns that are ours: they come first */
	KdaTime		shard_wm;		/* windows: the mark that a closing step is judged against */
} Emission;

/* Shape rows: the record in the batch. */
static int
row_of_batch(TupleTableSlot *slot)
{
	bool		isnull;

	return kda_tid_to_row((ItemPointer) DatumGetPointer(slot_getattr(slot, 1, &isnull)));
}

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
				int			row = row_of_batch(slot);

				if (query->retime)
					return kda_retime_of(query->retime, row, shard_wm);
				*shard_wm = kda_earlier(query->stream->batch->shard_wm[row], query->lateness_us);
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
	KdaIndexes	indexes;
	TupleTableSlot *in = MakeSingleTupleTableSlot(em->desc, &TTSOpsMinimalTuple);
	TupleTableSlot *out = table_slot_create(rel, NULL);
	BulkInsertState bistate = GetBulkInsertState();
	CommandId	cid = GetCurrentCommandId(true);
	MemoryContext old;
	KdaIdentity save;

	/* indexes may hold expressions of the owner's */
	kda_become_owner(query, &save);
	kda_indexes_open(&indexes, rel);
	start_at(em, from);
	for (int i = from; i < to && tuplestore_gettupleslot(em->rows, true, false, in); i++)
	{
		KdaTime		wm;
		KdaTime		time = emitted_time(em, in, &wm);

		old = MemoryContextSwitchTo(GetPerTupleMemoryContext(indexes.estate));
		ExecClearTuple(out);
		slot_getallattrs(in);
		memcpy(out->tts_values + 1, in->tts_values + em->ours, sizeof(Datum) * (em->desc->natts - em->ours));
		memcpy(out->tts_isnull + 1, in->tts_isnull + em->ours, sizeof(bool) * (em->desc->natts - em->ours));
		out->tts_values[0] = TimestampTzGetDatum(query->shape == KDA_SHAPE_WINDOWS ? time + 1 : time);
		out->tts_isnull[0] = false;
		ExecStoreVirtualTuple(out);
		MemoryContextSwitchTo(old);
		table_tuple_insert(rel, out, cid, 0, bistate);
		kda_indexes_add(&indexes, out);
		KDA_FAULT("emit_closed");
	}
	kda_become_self(&save);
	FreeBulkInsertState(bistate);
	table_finish_bulk_insert(rel, 0);
	kda_indexes_close(&indexes);
	ExecDropSingleTupleTableSlot(in);
	ExecDropSingleTupleTableSlot(out);
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
	KdaInboxWriter *writer = options->server_type ? NULL : kda_inbox_begin(query->target_rel);
	KdaOutboxWriter *outbox = options->server_type ? kda_outbox_begin(query->target_rel) : NULL;
	KdaAnnouncer *announcer = kda_announce_begin(desc, options);
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
		if (announcer)
			kda_announce(announcer, row);
		if (outbox)
			kda_outbox_put(outbox, row, time);
		else if (kda_query_passes_on(query))
			kda_inbox_put_part(writer, row, time, wm, query->stream, row_of_batch(in));
		else
			kda_inbox_put(writer, row, time, wm, true);
		KDA_FAULT("emit_stream");
	}
	kda_become_self(&save);
	if (outbox)
		kda_outbox_end(outbox);
	else
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
char *
kda_query_row_json(KdaQuery *query, TupleTableSlot *slot, int skip)
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
				json = kda_query_row_json(em->query, slot, em->ours);
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

void
kda_query_emit_computed(KdaQuery *query, Tuplestorestate *rows, KdaTime shard_wm)
{
	/* shown_sessions.c needs the number of the key besides the bounds */
	int			ours = query->shown && kda_query_has_sessions(query) ? 3 : 2;
	Emission	em = {query, rows, kda_plan_desc(query->final_plan), ours, shard_wm};
	KdaQuery   *around = kda_current_query;

	kda_current_query = query;
	emit(&em);
	kda_current_query = around;
}
