/*-------------------------------------------------------------------------
 *
 * windowagg.c
 *	  KdaWindowAgg: takes the rows of its child and advances the groups of the
 *	  query that runs now.  Gives no rows: results are read from the groups when
 *	  their windows close.
 *
 * There are two ways.  Where the child is the scan of a stream, rows are taken
 * from the batch by columns, a block at a time: first each row's group, then
 * aggregate by aggregate their transitions.  Of the child only its qual and,
 * where something else than plain columns is asked for, its projection are
 * used.  Groups are remembered by the very Datums of their keys, since equal
 * strings of a batch mostly share their memory (batch.h).
 *
 * Where the child is anything else, rows come from it one by one.
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
#include "stream/fdw.h"
#include "stream/window.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#define BLOCK_ROWS		256
#define MEMO_SLOTS		1024	/* a power of two */
#define MEMO_ROWS		64		/* fewer rows are not worth it */

typedef struct Input
{
	int			attno;			/* column of the child, 0: expr */
	ExprState  *expr;
	bool		byval;
	bool		varlena;		/* a key that may come compressed or out of line */

	/* by columns */
	const Datum *values;		/* NULL: from the child's slot */
	const bool *nulls;
	const KdaTime *times;		/* the record's time */
	KdaWindowSpec *window;		/* start of its pane that values or times fall into; NULL: themselves */
	KdaTime		pane_start;		/* the last one */
	KdaTime		pane_end;
} Input;

typedef struct AggInput
{
	int			nargs;
	Input	   *args;
	ExprState  *filter;
	bool		by_columns;		/* done for a whole block */
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

	/* by columns */
	KdaBatch   *batch;			/* NULL: row by row */
	bool		any_slow;		/* some aggregate is advanced row by row */
	bool		needs_slot;		/* something has to be evaluated by row */
	bool		needs_projection;
	KdaGroup  **memo;			/* [MEMO_SLOTS], NULL: not used */
	Datum	   *memo_keys;		/* [MEMO_SLOTS * nkeys] */
	int			memo_tries;
	int			memo_hits;
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
	int16		len;

	get_typlenbyval(exprType((Node *) expr), &len, &input->byval);
	input->attno = 0;
	input->varlena = len == -1;
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

/*---- by columns: what can be taken from where */

static void
find_column(KdaWindowAggState *state, PlanState *child, Input *input, bool is_key)
{
	KdaBatch   *batch = state->batch;
	KdaWindowSpec window;
	AttrNumber	attno;

	if (input->attno == 0)
	{
		state->needs_slot = state->needs_projection = true;
		return;
	}
	attno = kda_scan_column(child, input->attno);
	if (attno > 0)
	{
		input->values = batch->values[attno - 1];
		input->nulls = batch->nulls[attno - 1];
		return;
	}
	if (is_key && kda_scan_window(child, input->attno, &attno, &window))
	{
		input->window = palloc(sizeof(KdaWindowSpec));
		*input->window = window;
		input->pane_start = KDA_END_TIME;
		input->pane_end = KDA_NO_TIME;
		if (attno > 0)
		{
			input->values = batch->values[attno - 1];
			input->nulls = batch->nulls[attno - 1];
		}
		else
			input->times = batch->rowtime;
		return;
	}
	state->needs_slot = state->needs_projection = true;
}

static void
prepare_columns(KdaWindowAggState *state, PlanState *child)
{
	bool		stable = true;	/* the keys' Datums tell them apart */

	/* a row may make one session of two: no group may be remembered */
	state->batch = state->groups->sessions ? NULL : kda_scan_batch(child);
	if (state->batch == NULL)
		return;
	if (child->qual)
		state->needs_slot = true;
	for (int i = 0; i < state->nkeys; i++)
	{
		Input	   *key = &state->keys[i];

		find_column(state, child, key, true);
		if (!key->byval && key->values == NULL)
			stable = false;		/* made for one row, in memory that the next one uses again */
	}
	for (int i = 0; i < state->naggs; i++)
	{
		AggInput   *agg = &state->aggs[i];

		agg->by_columns = agg->filter == NULL && agg->nargs <= 1 && state->groups->aggs[i].fast != KDA_FAST_NONE;
		for (int a = 0; a < agg->nargs; a++)
		{
			find_column(state, child, &agg->args[a], false);
			if (agg->args[a].values == NULL)
				agg->by_columns = false;
		}
		if (agg->filter)
			state->needs_slot = state->needs_projection = true;
		if (!agg->by_columns)
			state->any_slow = true;
	}
	if (stable && state->nkeys > 0 && state->batch->scan_to - state->batch->scan_from >= MEMO_ROWS)
	{
		state->memo = palloc0(sizeof(KdaGroup *) * MEMO_SLOTS);
		state->memo_keys = palloc(sizeof(Datum) * MEMO_SLOTS * state->nkeys);
	}
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
	prepare_columns(state, child);
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

/* The group of a row whose keys are in probe_values, as they came. */
static KdaGroup *
find_group(KdaWindowAggState *state)
{
	KdaGroups  *groups = state->groups;

	for (int i = 0; i < state->nkeys; i++)
		if (state->keys[i].varlena && !groups->probe_nulls[i])
			groups->probe_values[i] = PointerGetDatum(PG_DETOAST_DATUM_PACKED(groups->probe_values[i]));
	return kda_groups_touch(groups);
}

static KdaGroup *
find_group_here(KdaWindowAggState *state, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	KdaGroup   *g = find_group(state);

	MemoryContextSwitchTo(old);
	return g;
}

/* Advances the aggregates that are done row by row. */
static void
advance_row(KdaWindowAggState *state, KdaGroup *g, TupleTableSlot *slot, int row)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	Datum		args[FUNC_MAX_ARGS];
	bool		nulls[FUNC_MAX_ARGS];

	for (int i = 0; i < state->naggs; i++)
	{
		AggInput   *agg = &state->aggs[i];

		if (agg->by_columns || (agg->filter && !ExecQual(agg->filter, econtext)))
			continue;
		for (int a = 0; a < agg->nargs; a++)
		{
			Input	   *input = &agg->args[a];

			if (input->values)
			{
				args[a] = input->values[row];
				nulls[a] = input->nulls[row];
			}
			else
				args[a] = evaluate(input, slot, econtext, &nulls[a]);
		}
		kda_group_advance(state->groups, g, i, args, nulls);
	}
}

/*---- row by row */

static void
exec_rows(KdaWindowAggState *state, PlanState *child)
{
	KdaGroups  *groups = state->groups;
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	MemoryContext temp = groups->aggstate->tmpcontext->ecxt_per_tuple_memory;

	for (;;)
	{
		TupleTableSlot *slot = ExecProcNode(child);
		MemoryContext old;

		if (TupIsNull(slot))
			break;
		ResetExprContext(econtext);
		MemoryContextReset(temp);
		econtext->ecxt_scantuple = slot;
		slot_getallattrs(slot);
		old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
		for (int i = 0; i < state->nkeys; i++)
			groups->probe_values[i] = evaluate(&state->keys[i], slot, econtext, &groups->probe_nulls[i]);
		advance_row(state, find_group(state), slot, -1);
		MemoryContextSwitchTo(old);
	}
}

/*---- by columns */

static inline Datum
pane_of(Input *input, KdaTime t)
{
	if (unlikely(t < input->pane_start || t >= input->pane_end))
	{
		if (TIMESTAMP_NOT_FINITE(t))
			return TimestampTzGetDatum(t);
		input->pane_start = kda_window_pane(input->window, t);
		input->pane_end = input->pane_start + input->window->pane;
	}
	return TimestampTzGetDatum(input->pane_start);
}

static inline Datum
key_of(Input *key, int row, TupleTableSlot *slot, ExprContext *econtext, bool *isnull)
{
	if (key->times)
	{
		*isnull = false;
		return pane_of(key, key->times[row]);
	}
	if (key->values)
	{
		*isnull = key->nulls[row];
		if (*isnull)
			return (Datum) 0;
		return key->window ? pane_of(key, DatumGetTimestampTz(key->values[row])) : key->values[row];
	}
	return evaluate(key, slot, econtext, isnull);
}

/*
 * The group of the probe's keys: the one that had the same Datums in this
 * batch, else looked up.  All that is remembered has been touched since the
 * execution began, so it is marked as changed already.
 */
static inline KdaGroup *
remembered_group(KdaWindowAggState *state, MemoryContext context)
{
	KdaGroups  *groups = state->groups;
	uint64		h = 0;
	Datum	   *had;
	uint32		at;
	bool		same = true;

	for (int i = 0; i < state->nkeys; i++)
	{
		if (unlikely(groups->probe_nulls[i]))
			return find_group_here(state, context);
		h = (h ^ (uint64) groups->probe_values[i]) * UINT64CONST(0x9e3779b97f4a7c15);
		h ^= h >> 32;
	}
	at = h & (MEMO_SLOTS - 1);
	had = state->memo_keys + (Size) at * state->nkeys;
	if (state->memo[at])
		for (int i = 0; i < state->nkeys; i++)
			same &= had[i] == groups->probe_values[i];
	else
		same = false;
	state->memo_tries++;
	if (likely(same))
	{
		state->memo_hits++;
		return state->memo[at];
	}
	for (int i = 0; i < state->nkeys; i++)
		had[i] = groups->probe_values[i];
	state->memo[at] = NULL;		/* until it is found */
	return state->memo[at] = find_group_here(state, context);
}

static void
exec_columns(KdaWindowAggState *state, PlanState *child)
{
	KdaGroups  *groups = state->groups;
	KdaBatch   *batch = state->batch;
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	ExprContext *inner = child->ps_ExprContext;
	MemoryContext temp = groups->aggstate->tmpcontext->ecxt_per_tuple_memory;
	MemoryContext scratch = econtext->ecxt_per_tuple_memory;
	const uint8 *skip = batch->scan_skip;
	int			to = batch->scan_to;
	int			rows[BLOCK_ROWS];
	KdaGroup   *list[BLOCK_ROWS];

	for (int row = batch->scan_from; row < to;)
	{
		int			n = 0;

		CHECK_FOR_INTERRUPTS();
		/* rarely used, but for keys that are not flat */
		ResetExprContext(econtext);
		for (; row < to && n < BLOCK_ROWS; row++)
		{
			TupleTableSlot *slot = NULL;

			if (skip && skip[row])
				continue;
			if (state->needs_slot)
			{
				CHECK_FOR_INTERRUPTS();
				slot = kda_scan_load(child, row);
				ResetExprContext(inner);
				inner->ecxt_scantuple = slot;
				if (child->qual && !ExecQual(child->qual, inner))
					continue;
				if (state->needs_projection)
				{
					if (child->ps_ProjInfo)
						slot = ExecProject(child->ps_ProjInfo);
					slot_getallattrs(slot);
					ResetExprContext(econtext);
					econtext->ecxt_scantuple = slot;
				}
			}
			if (state->needs_projection)
			{
				MemoryContext old = MemoryContextSwitchTo(scratch);

				for (int i = 0; i < state->nkeys; i++)
					groups->probe_values[i] = key_of(&state->keys[i], row, slot, econtext, &groups->probe_nulls[i]);
				MemoryContextSwitchTo(old);
			}
			else
				for (int i = 0; i < state->nkeys; i++)
					groups->probe_values[i] = key_of(&state->keys[i], row, NULL, NULL, &groups->probe_nulls[i]);
			list[n] = state->memo ? remembered_group(state, scratch) : find_group_here(state, scratch);
			if (state->any_slow)
			{
				MemoryContext old = MemoryContextSwitchTo(scratch);

				MemoryContextReset(temp);
				advance_row(state, list[n], slot, row);
				MemoryContextSwitchTo(old);
			}
			rows[n++] = row;
		}
		for (int i = 0; i < state->naggs; i++)
			if (state->aggs[i].by_columns)
			{
				Input	   *arg = state->aggs[i].nargs > 0 ? &state->aggs[i].args[0] : NULL;

				kda_groups_advance_rows(groups, i, list, rows, n, arg ? arg->values : NULL, arg ? arg->nulls : NULL);
			}
		/* keys of which hardly any come again */
		if (state->memo && state->memo_tries >= 4 * BLOCK_ROWS)
		{
			if (state->memo_hits < state->memo_tries / 4)
				state->memo = NULL;
			state->memo_tries = state->memo_hits = 0;
		}
	}
}

static TupleTableSlot *
exec(CustomScanState *node)
{
	KdaWindowAggState *state = (KdaWindowAggState *) node;
	PlanState  *child = linitial(node->custom_ps);

	if (!state->done)
	{
		if (state->batch)
			exec_columns(state, child);
		else
			exec_rows(state, child);
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
