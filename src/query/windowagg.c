/*-------------------------------------------------------------------------
 *
 * windowagg.c
 *	  KdaWindowAgg: takes the rows of its child and advances the groups of the
 *	  query that runs now.  Gives no rows: results are read from the groups when
 *	  their windows close.
 *
 * An input row costs one hash probe and its transitions.  Keys and arguments
 * that are plain columns of the child are taken from its slot; others are
 * evaluated.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "query/groups.h"
#include "query/windowagg.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

typedef struct Input
{
	int			attno;			/* column of the child, 0: expr */
	ExprState  *expr;
	bool		varlena;		/* a key that may come compressed or out of line */
} Input;

typedef struct AggInput
{
	int			nargs;
	Input	   *args;
	ExprState  *filter;
} AggInput;

typedef struct KdaWindowAggState
{
	CustomScanState css;
	KdaGroups  *groups;
	int			nkeys;
	int			naggs;
	Input	   *keys;
	AggInput   *aggs;
	bool		done;
} KdaWindowAggState;

static Node *create_state(CustomScan *scan);
static void begin(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *exec(CustomScanState *node);
static void end(CustomScanState *node);
static void rescan(CustomScanState *node);
static void explain(CustomScanState *node, List *ancestors, ExplainState *es);

const CustomScanMethods kda_windowagg_scan_methods = {
	.CustomName = "KdaWindowAgg",
	.CreateCustomScanState = create_state
};

static const CustomExecMethods exec_methods = {
	.CustomName = "KdaWindowAgg",
	.BeginCustomScan = begin,
	.ExecCustomScan = exec,
	.EndCustomScan = end,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain
};

static Node *
create_state(CustomScan *scan)
{
	KdaWindowAggState *state = palloc0(sizeof(KdaWindowAggState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &exec_methods;
	return (Node *) state;
}

static void
make_input(Input *input, Expr *expr, PlanState *parent)
{
	input->attno = 0;
	input->varlena = get_typlen(exprType((Node *) expr)) == -1;
	if (IsA(expr, Var) && ((Var *) expr)->varno == INDEX_VAR)
		input->attno = ((Var *) expr)->varattno;
	else
		input->expr = ExecInitExpr(expr, parent);
}

/* The owner may have lost the right to an aggregate since. */
static void
check_aggregate(Oid aggfnoid)
{
#if PG_VERSION_NUM >= 160000
	AclResult	result = object_aclcheck(ProcedureRelationId, aggfnoid, GetUserId(), ACL_EXECUTE);
#else
	AclResult	result = pg_proc_aclcheck(aggfnoid, GetUserId(), ACL_EXECUTE);
#endif

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_AGGREGATE, get_func_name(aggfnoid));
	InvokeFunctionExecuteHook(aggfnoid);
}

static void
begin(CustomScanState *node, EState *estate, int eflags)
{
	KdaWindowAggState *state = (KdaWindowAggState *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;
	ListCell   *le = list_head(scan->custom_exprs);
	ListCell   *lp = list_head(scan->custom_private);
	PlanState  *child = ExecInitNode(linitial(scan->custom_plans), estate, eflags);
	PlanState  *self = &node->ss.ps;

	node->custom_ps = list_make1(child);
	state->nkeys = lfirst_int(lp);
	lp = lnext(scan->custom_private, lp);
	state->naggs = (list_length(scan->custom_private) - 1) / 3;
	state->keys = palloc0(sizeof(Input) * Max(state->nkeys, 1));
	state->aggs = palloc0(sizeof(AggInput) * Max(state->naggs, 1));
	for (int i = 0; i < state->nkeys; i++)
	{
		make_input(&state->keys[i], lfirst(le), self);
		le = lnext(scan->custom_exprs, le);
	}
	for (int i = 0; i < state->naggs; i++)
	{
		AggInput   *agg = &state->aggs[i];
		bool		filtered;
		Oid			aggfnoid;

		agg->nargs = lfirst_int(lp);
		lp = lnext(scan->custom_private, lp);
		filtered = lfirst_int(lp);
		lp = lnext(scan->custom_private, lp);
		aggfnoid = (Oid) lfirst_int(lp);
		lp = lnext(scan->custom_private, lp);
		check_aggregate(aggfnoid);
		agg->args = palloc0(sizeof(Input) * Max(agg->nargs, 1));
		for (int a = 0; a < agg->nargs; a++)
		{
			make_input(&agg->args[a], lfirst(le), self);
			le = lnext(scan->custom_exprs, le);
		}
		if (filtered)
		{
			agg->filter = ExecInitQual(list_make1(lfirst(le)), self);
			le = lnext(scan->custom_exprs, le);
		}
		if (kda_current_query && kda_current_query->groups &&
			(i >= kda_current_query->groups->naggs ||
			 kda_current_query->groups->aggs[i].aggref->aggfnoid != aggfnoid))
			elog(ERROR, "the plan's aggregates are not those of the query's groups");
	}
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;

	if (kda_current_query == NULL || kda_current_query->groups == NULL)
		elog(ERROR, "KdaWindowAgg runs only in a worker");
	state->groups = kda_current_query->groups;
	if (state->groups->nkeys != state->nkeys || state->groups->naggs != state->naggs)
		elog(ERROR, "the plan does not fit the query's groups");
	kda_groups_prepare(state->groups);
}

static inline Datum
evaluate(Input *input, TupleTableSlot *slot, ExprContext *econtext, bool *isnull)
{
	if (likely(input->attno > 0))
	{
		*isnull = slot->tts_isnull[input->attno - 1];
		return slot->tts_values[input->attno - 1];
	}
	return ExecEvalExpr(input->expr, econtext, isnull);
}

static TupleTableSlot *
exec(CustomScanState *node)
{
	KdaWindowAggState *state = (KdaWindowAggState *) node;
	KdaGroups  *groups = state->groups;
	PlanState  *child = linitial(node->custom_ps);
	ExprContext *econtext = node->ss.ps.ps_ExprContext;
	MemoryContext temp = groups->aggstate->tmpcontext->ecxt_per_tuple_memory;
	Datum		args[FUNC_MAX_ARGS];
	bool		nulls[FUNC_MAX_ARGS];

	if (state->done)
		return NULL;
	for (;;)
	{
		TupleTableSlot *slot = ExecProcNode(child);
		KdaGroup   *g;
		MemoryContext old;

		if (TupIsNull(slot))
			break;
		ResetExprContext(econtext);
		MemoryContextReset(temp);
		econtext->ecxt_scantuple = slot;
		slot_getallattrs(slot);
		old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
		for (int i = 0; i < state->nkeys; i++)
		{
			Datum		v = evaluate(&state->keys[i], slot, econtext, &groups->probe_nulls[i]);

			if (state->keys[i].varlena && !groups->probe_nulls[i])
				v = PointerGetDatum(PG_DETOAST_DATUM_PACKED(v));
			groups->probe_values[i] = v;
		}
		g = kda_groups_touch(groups);
		for (int i = 0; i < state->naggs; i++)
		{
			AggInput   *agg = &state->aggs[i];

			if (agg->filter && !ExecQual(agg->filter, econtext))
				continue;
			for (int a = 0; a < agg->nargs; a++)
				args[a] = evaluate(&agg->args[a], slot, econtext, &nulls[a]);
			kda_group_advance(groups, g, i, args, nulls);
		}
		MemoryContextSwitchTo(old);
	}
	state->done = true;
	return NULL;
}

static void
end(CustomScanState *node)
{
	ExecEndNode(linitial(node->custom_ps));
}

static void
rescan(CustomScanState *node)
{
	elog(ERROR, "KdaWindowAgg cannot be scanned again");
}

static void
explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	KdaWindowAggState *state = (KdaWindowAggState *) node;

	ExplainPropertyInteger("Group Keys", NULL, state->nkeys, es);
	ExplainPropertyInteger("Aggregates", NULL, state->naggs, es);
}
