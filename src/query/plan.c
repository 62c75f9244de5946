/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  Plans of per-batch and final parts, from the stored rules of their views.
 *
 * Names are never looked up again: the views hold OIDs.  A plan is kept per
 * class of batch sizes (the planner must know the true size, or it joins a
 * batch of 100,000 rows by index) and made again when anything that it depends
 * on has changed, found out as core's plan cache does: by invalidation
 * messages.  In pipeline workers, and for EXPLAIN in sessions.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/params.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "query/query.h"
#include "rewrite/rewriteHandler.h"
#include "runtime/locks.h"
#include "storage/lmgr.h"
#include "stream/fdw.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* timestamptz <= and > timestamptz, pg_operator.dat */
#define TIMESTAMPTZ_LE_OPERATOR	1323
#define TIMESTAMPTZ_GT_OPERATOR	1324
/* bigint <= and >= */
#define INT8_LE_OPERATOR	414
#define INT8_GE_OPERATOR	415
#define INT8_GT_OPERATOR	413
#define NUMBERED_COLUMN	3		/* the first one that bounds can be about */
#define CLASSES		4			/* batches up to 100, 2,000, 40,000, more */

typedef enum PlanKind
{
	PLAN_BATCH,					/* one for each class */
	PLAN_FINAL = CLASSES,		/* final part: + 1 within bounds of time, + 2 of some tuples */
	PLAN_NUMBERED = PLAN_FINAL + 4, /* joins: rows of one side, + 1 for the other */
	PLAN_LEAVING = PLAN_NUMBERED + 2,	/* row-sliding queries */
	PLAN_SLOTS
} PlanKind;

struct KdaPlan
{
	dlist_node	node;			/* in all_plans */
	MemoryContext context;
	Oid			view;
	bool		final;
	TupleDesc	desc;
	PlannedStmt *plans[PLAN_SLOTS];
	MemoryContext plan_context[PLAN_SLOTS];
	bool		valid[PLAN_SLOTS];
};

static dlist_head all_plans = DLIST_STATIC_INIT(all_plans);

/*---- invalidation, as in core's plancache.c */

static void
invalidate_all(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_plans)
	{
		KdaPlan    *plan = dlist_container(KdaPlan, node, iter.cur);

		memset(plan->valid, 0, sizeof(plan->valid));
	}
}

static void
on_relation(Datum arg, Oid relid)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_plans)
	{
		KdaPlan    *plan = dlist_container(KdaPlan, node, iter.cur);

		for (int i = 0; i < PLAN_SLOTS; i++)
			if (plan->valid[i] &&
				(relid == InvalidOid || relid == plan->view ||
				 list_member_oid(plan->plans[i]->relationOids, relid)))
				plan->valid[i] = false;
	}
}

static void
on_object(Datum arg, int cacheid, uint32 hashvalue)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_plans)
	{
		KdaPlan    *plan = dlist_container(KdaPlan, node, iter.cur);

		for (int i = 0; i < PLAN_SLOTS; i++)
		{
			ListCell   *lc;

			if (!plan->valid[i])
				continue;
			foreach(lc, plan->plans[i]->invalItems)
			{
				PlanInvalItem *item = lfirst(lc);

				if (item->cacheId == cacheid && (hashvalue == 0 || item->hashValue == hashvalue))
					plan->valid[i] = false;
			}
		}
	}
}

static void
on_anything(Datum arg, int cacheid, uint32 hashvalue)
{
	invalidate_all();
}

static void
register_callbacks(void)
{
	static bool done = false;

	if (done)
		return;
	CacheRegisterRelcacheCallback(on_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, on_object, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, on_object, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, on_anything, (Datum) 0);
	CacheRegisterSyscacheCallback(OPEROID, on_anything, (Datum) 0);
	CacheRegisterSyscacheCallback(AMOPOPID, on_anything, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, on_anything, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNDATAWRAPPEROID, on_anything, (Datum) 0);
	done = true;
}

/*---- the query of a view */

Query *
kda_view_query(Relation view)
{
	Query	   *query = copyObject(get_view_query(view));

	AcquireRewriteLocks(query, true, false);
	return query;
}

typedef struct ColumnsContext
{
	int			level;
	int			rtindex;
	Bitmapset  *attnos;
	int			natts;
} ColumnsContext;

static bool
columns_walker(Node *node, void *context)
{
	ColumnsContext *cxt = context;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if (var->varno == cxt->rtindex && (int) var->varlevelsup == cxt->level)
		{
			if (var->varattno > 0)
				cxt->attnos = bms_add_member(cxt->attnos, var->varattno);
			else if (var->varattno == 0)
				cxt->attnos = bms_add_range(cxt->attnos, 1, cxt->natts);
		}
		return false;
	}
	if (IsA(node, Query))
	{
		bool		result;

		cxt->level++;
		result = query_tree_walker((Query *) node, columns_walker, cxt, QTW_IGNORE_JOINALIASES);
		cxt->level--;
		return result;
	}
	return expression_tree_walker(node, columns_walker, cxt);
}

static int
stream_natts(Oid relid)
{
	Relation	rel = relation_open(relid, AccessShareLock);
	int			n = RelationGetNumberOfAttributes(rel);

	relation_close(rel, AccessShareLock);
	return n;
}

/* Columns of the stream that the query reads, at whatever level it stands in FROM. */
static Bitmapset *
columns_of(Query *query, Oid stream, int natts)
{
	ColumnsContext cxt = {0};
	Bitmapset  *found = NULL;
	int			i = 0;
	ListCell   *lc;

	check_stack_depth();
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		i++;
		if (rte->rtekind == RTE_SUBQUERY)
			found = bms_add_members(found, columns_of(rte->subquery, stream, natts));
		else if (rte->rtekind == RTE_RELATION && rte->relid == stream)
			cxt.rtindex = i;
	}
	if (cxt.rtindex == 0)
		return found;
	cxt.natts = natts;
	query->targetList = (List *) kda_flatten_join_alias_vars(query, (Node *) query->targetList);
	query->jointree = (FromExpr *) kda_flatten_join_alias_vars(query, (Node *) query->jointree);
	query->havingQual = kda_flatten_join_alias_vars(query, query->havingQual);
	query_tree_walker(query, columns_walker, &cxt, QTW_IGNORE_JOINALIASES);
	return bms_add_members(found, cxt.attnos);
}

Bitmapset *
kda_plan_columns_of(Oid view, Oid stream)
{
	Relation	rel = relation_open(view, AccessShareLock);
	Bitmapset  *found = columns_of(copyObject(get_view_query(rel)), stream, stream_natts(stream));

	relation_close(rel, AccessShareLock);
	return found;
}

static bool
relations_walker(Node *node, void *context)
{
	List	  **oids = context;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		ListCell   *lc;

		foreach(lc, ((Query *) node)->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (rte->rtekind == RTE_RELATION)
				*oids = list_append_unique_oid(*oids, rte->relid);
		}
		return query_tree_walker((Query *) node, relations_walker, oids, 0);
	}
	return expression_tree_walker(node, relations_walker, oids);
}

List *
kda_plan_relations(Oid view)
{
	Relation	rel = relation_open(view, AccessShareLock);
	List	   *oids = NIL;

	(void) relations_walker((Node *) get_view_query(rel), &oids);
	relation_close(rel, AccessShareLock);
	return oids;
}

/*---- making plans */

KdaPlan *
kda_plan_create(MemoryContext parent, Oid view, bool final)
{
	MemoryContext context = AllocSetContextCreate(parent, "kda plan", ALLOCSET_SMALL_SIZES);
	KdaPlan    *plan = MemoryContextAllocZero(context, sizeof(KdaPlan));
	Relation	rel = relation_open(view, AccessShareLock);
	MemoryContext old = MemoryContextSwitchTo(context);

	register_callbacks();
	plan->context = context;
	plan->view = view;
	plan->final = final;
	plan->desc = CreateTupleDescCopy(RelationGetDescr(rel));
	MemoryContextSwitchTo(old);
	relation_close(rel, AccessShareLock);
	dlist_push_tail(&all_plans, &plan->node);
	return plan;
}

void
kda_plan_free(KdaPlan *plan)
{
	dlist_delete(&plan->node);
	MemoryContextDelete(plan->context);
}

TupleDesc
kda_plan_desc(KdaPlan *plan)
{
	return plan->desc;
}

static void
and_qual(Query *query, Node *qual)
{
	query->jointree->quals = query->jointree->quals ?
		(Node *) make_and_qual(query->jointree->quals, qual) : qual;
}

static Node *
param(int n, Oid type)
{
	Param	   *p = makeNode(Param);

	p->paramkind = PARAM_EXTERN;
	p->paramid = n;
	p->paramtype = type;
	p->paramtypmod = -1;
	p->location = -1;
	return (Node *) p;
}

static void
add_bounds(Query *query, bool timed, bool tids)
{
	if (timed)
	{
		Expr	   *end = lsecond_node(TargetEntry, query->targetList)->expr;

		and_qual(query, (Node *) make_opclause(TIMESTAMPTZ_GT_OPERATOR, BOOLOID, false, copyObject(end),
											   (Expr *) param(1, TIMESTAMPTZOID), InvalidOid, InvalidOid));
		and_qual(query, (Node *) make_opclause(TIMESTAMPTZ_LE_OPERATOR, BOOLOID, false, copyObject(end),
											   (Expr *) param(2, TIMESTAMPTZOID), InvalidOid, InvalidOid));
	}
	if (tids)
	{
		RangeTblRef *open = linitial_node(RangeTblRef, query->jointree->fromlist);
		ScalarArrayOpExpr *any = makeNode(ScalarArrayOpExpr);

		any->opno = TIDEqualOperator;
		any->opfuncid = F_TIDEQ;
		any->useOr = true;
		any->args = list_make2(makeVar(open->rtindex, SelfItemPointerAttributeNumber, TIDOID, -1, InvalidOid, 0),
							   param(3, TIDARRAYOID));
		any->location = -1;
		and_qual(query, (Node *) any);
	}
}

/* time <= $2 AND (time > $1 OR number > $3) */
static void
add_leaving_bounds(Query *query)
{
	Expr	   *time = linitial_node(TargetEntry, query->targetList)->expr;
	Expr	   *number = lsecond_node(TargetEntry, query->targetList)->expr;

	and_qual(query, (Node *) make_opclause(TIMESTAMPTZ_LE_OPERATOR, BOOLOID, false, copyObject(time),
										   (Expr *) param(2, TIMESTAMPTZOID), InvalidOid, InvalidOid));
	and_qual(query, (Node *) makeBoolExpr(OR_EXPR,
										  list_make2(make_opclause(TIMESTAMPTZ_GT_OPERATOR, BOOLOID, false, copyObject(time),
																   (Expr *) param(1, TIMESTAMPTZOID), InvalidOid, InvalidOid),
													 make_opclause(INT8_GT_OPERATOR, BOOLOID, false, copyObject(number),
																   (Expr *) param(3, INT8OID), InvalidOid, InvalidOid)), -1));
}

static void
add_number_bounds(Query *query, int column)
{
	Expr	   *number = list_nth_node(TargetEntry, query->targetList, column - 1)->expr;

	and_qual(query, (Node *) make_opclause(INT8_GE_OPERATOR, BOOLOID, false, copyObject(number),
										   (Expr *) param(1, INT8OID), InvalidOid, InvalidOid));
	and_qual(query, (Node *) make_opclause(INT8_LE_OPERATOR, BOOLOID, false, copyObject(number),
										   (Expr *) param(2, INT8OID), InvalidOid, InvalidOid));
}

static PlannedStmt *
make_plan(KdaPlan *plan, int which, double row_count)
{
	Relation	view;
	Query	   *query;
	List	   *rewritten;
	PlannedStmt *stmt;
	MemoryContext old;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "kda planning",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext context;
	double		save_estimate = kda_plan_row_estimate;

	old = MemoryContextSwitchTo(scratch);
	view = relation_open(plan->view, AccessShareLock);
	query = kda_view_query(view);
	relation_close(view, NoLock);
	if (plan->final)
	{
		if (which == PLAN_LEAVING)
			add_leaving_bounds(query);
		else if (which >= PLAN_NUMBERED)
			add_number_bounds(query, which - PLAN_NUMBERED + NUMBERED_COLUMN);
		else
			add_bounds(query, (which - PLAN_FINAL) & 1, (which - PLAN_FINAL) & 2);
	}
	rewritten = QueryRewrite(query);
	if (list_length(rewritten) != 1)
		elog(ERROR, "the rule of view %u gives %d queries", plan->view, list_length(rewritten));

	PG_TRY();
	{
		kda_plan_row_estimate = row_count;
		kda_planning_groups = !plan->final && kda_current_query ? kda_current_query->groups : NULL;
		stmt = pg_plan_query(linitial_node(Query, rewritten), "kda_stream", 0, NULL);
	}
	PG_FINALLY();
	{
		kda_plan_row_estimate = save_estimate;
		kda_planning_groups = NULL;
	}
	PG_END_TRY();

	if (plan->plan_context[which])
		MemoryContextDelete(plan->plan_context[which]);
	plan->plans[which] = NULL;
	context = plan->plan_context[which] = AllocSetContextCreate(plan->context, "kda planned statement",
																ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(context);
	plan->plans[which] = copyObject(stmt);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	plan->valid[which] = true;
	return plan->plans[which];
}

/*
 * Locks what the plan names; taking a lock is also when invalidations arrive.
 * In a worker nearly all of it is locked already.
 */
static void
lock_relations(PlannedStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_RELATION)
			kda_lock_or_leave(rte->relid, rte->rellockmode);
	}
}

static PlannedStmt *
get_plan(KdaPlan *plan, int which, double row_count)
{
	AcceptInvalidationMessages();
	for (;;)
	{
		if (plan->valid[which])
		{
			lock_relations(plan->plans[which]);
			if (plan->valid[which])
				return plan->plans[which];
		}
		make_plan(plan, which, row_count);
	}
}

/*---- running */

static uint64
execute(PlannedStmt *stmt, ParamListInfo params, DestReceiver *dest)
{
	QueryDesc  *qd = CreateQueryDesc(stmt, "kda_stream", GetActiveSnapshot(), InvalidSnapshot, dest,
									 params, NULL, 0);
	uint64		n;

	ExecutorStart(qd, 0);
	kda_executor_run(qd);
	n = qd->estate->es_processed;
	ExecutorFinish(qd);
	ExecutorEnd(qd);
	FreeQueryDesc(qd);
	return n;
}

uint64
kda_plan_run(KdaPlan *plan, double row_count, DestReceiver *dest)
{
	static const double sizes[CLASSES] = {100, 2000, 40000, 200000};
	int			class = 0;

	while (class < CLASSES - 1 && row_count > sizes[class])
		class++;
	return execute(get_plan(plan, class, sizes[class]), NULL, dest);
}

uint64
kda_plan_run_bounded(KdaPlan *plan, const KdaPlanBounds *bounds, DestReceiver *dest)
{
	int			which = bounds->leaving ? PLAN_LEAVING : bounds->numbered ? PLAN_NUMBERED + bounds->numbered - NUMBERED_COLUMN :
		PLAN_FINAL + (bounds->timed ? 1 : 0) + (bounds->tids ? 2 : 0);
	ParamListInfo params = makeParamList(3);

	for (int i = 0; i < 3; i++)
	{
		params->params[i].isnull = false;
		params->params[i].pflags = 0;
		params->params[i].ptype = i < 2 ? (bounds->numbered ? INT8OID : TIMESTAMPTZOID) : TIDARRAYOID;
	}
	params->params[0].value = bounds->numbered ? Int64GetDatum(bounds->first) : TimestampTzGetDatum(bounds->after);
	params->params[1].value = bounds->numbered ? Int64GetDatum(bounds->last) : TimestampTzGetDatum(bounds->upto);
	params->params[2].isnull = bounds->tids == NULL;
	if (bounds->leaving)
	{
		params->params[2].ptype = INT8OID;
		params->params[2].value = Int64GetDatum(bounds->first);
		params->params[2].isnull = false;
	}
	if (bounds->tids)
	{
		Datum	   *items = palloc_extended(sizeof(Datum) * Max(bounds->ntids, 1), MCXT_ALLOC_HUGE);

		for (int i = 0; i < bounds->ntids; i++)
			items[i] = PointerGetDatum(&bounds->tids[i]);
		params->params[2].value = PointerGetDatum(construct_array(items, bounds->ntids, TIDOID,
																  sizeof(ItemPointerData), false, TYPALIGN_SHORT));
	}
	return execute(get_plan(plan, which, 1000), params, dest);
}
