/*-------------------------------------------------------------------------
 *
 * batch_part.c
 *	  The per-batch part of a query: the analysed SELECT becomes what the worker
 *	  runs over a batch, and what it gives is kept: partial aggregates of groups,
 *	  rows, or nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/rows.h"
#include "catalog/pg_collation.h"
#include "declare/split.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "parser/parse_oper.h"
#include "parser/parsetree.h"
#include "query/agg_signature.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"

/*---- levels */

typedef struct VarContext
{
	int			depth;
	List	   *vars;			/* as seen from the top */
	int			only_rti;		/* 0: all */
	bool		in_aggs;		/* also those inside aggregates of the top level */
	bool		found;
} VarContext;

/* Vars (and ctid's) of the top level below node, at any depth. */
static bool
vars_walker(Node *node, void *arg)
{
	VarContext *cxt = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if ((int) var->varlevelsup == cxt->depth && (cxt->only_rti == 0 || var->varno == cxt->only_rti))
		{
			Var		   *copy = copyObject(var);

			copy->varlevelsup = 0;
			copy->location = -1;
			cxt->found = true;
			cxt->vars = list_append_unique(cxt->vars, copy);
		}
		return false;
	}
	if (IsA(node, Aggref) && (int) ((Aggref *) node)->agglevelsup == cxt->depth && !cxt->in_aggs)
		return false;
	if (IsA(node, Query))
	{
		cxt->depth++;
		query_tree_walker((Query *) node, vars_walker, cxt, 0);
		cxt->depth--;
		return false;
	}
	return expression_tree_walker(node, vars_walker, cxt);
}

List *
kda_split_vars(Node *node, List *vars)
{
	VarContext	cxt = {0};

	cxt.vars = vars;
	vars_walker(node, &cxt);
	return cxt.vars;
}

bool
kda_split_mentions(Node *node, int rti)
{
	VarContext	cxt = {0};

	cxt.only_rti = rti;
	cxt.in_aggs = true;
	vars_walker(node, &cxt);
	return cxt.found;
}

bool
kda_split_mentions_others(Node *node, int rti)
{
	VarContext	cxt = {0};
	ListCell   *lc;

	cxt.in_aggs = true;
	vars_walker(node, &cxt);
	foreach(lc, cxt.vars)
		if (lfirst_node(Var, lc)->varno != rti)
			return true;
	return false;
}

typedef struct AggContext
{
	int			depth;
	List	   *aggs;
} AggContext;

/* Aggregates of the top level, as seen from there. */
static bool
aggs_walker(Node *node, void *arg)
{
	AggContext *cxt = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Aggref) && (int) ((Aggref *) node)->agglevelsup == cxt->depth)
	{
		Node	   *copy = copyObject(node);

		if (cxt->depth > 0)
			IncrementVarSublevelsUp(copy, -cxt->depth, cxt->depth);
		cxt->aggs = list_append_unique(cxt->aggs, copy);
		return false;
	}
	if (IsA(node, Query))
	{
		cxt->depth++;
		query_tree_walker((Query *) node, aggs_walker, cxt, 0);
		cxt->depth--;
		return false;
	}
	return expression_tree_walker(node, aggs_walker, cxt);
}

static List *
collect_aggs(Query *user)
{
	AggContext	cxt = {0};

	aggs_walker((Node *) user->targetList, &cxt);
	aggs_walker(user->havingQual, &cxt);
	return cxt.aggs;
}
/* Does FROM give the rows of the stream in their order, each once?  IN and EXISTS are joins, too. */
static bool
stream_stands_alone(Query *query, int window_rti)
{
	int			n = 0;
	bool		alone = !checkExprHasSubLink(query->jointree->quals);
	ListCell   *lc;

	foreach(lc, query->jointree->fromlist)
	{
		RangeTblEntry *rte;

		if (!IsA(lfirst(lc), RangeTblRef))
			return false;
		if (((RangeTblRef *) lfirst(lc))->rtindex == window_rti)
			continue;
		rte = rt_fetch(((RangeTblRef *) lfirst(lc))->rtindex, query->rtable);
		if (rte->rtekind == RTE_SUBQUERY)
			alone &= stream_stands_alone(rte->subquery, 0);
		n++;
	}
	return alone && n == 1;
}

/* Is each group of GROUP BY a whole session? */
static bool
is_group_of_session(KdaSplit *split)
{
	List	   *keys = NIL;
	ListCell   *lc;

	foreach(lc, split->user->groupClause)
	{
		Node	   *key = (Node *) get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), split->user->targetList)->expr;

		if (!kda_split_mentions(key, split->window_rti))
			keys = list_append_unique(keys, key);
	}
	/* sessions of other keys may be the same window */
	if (split->window->by_bounds && split->per_window)
		return false;
	/* a join gives rows in an order of its own */
	if (split->window->kind == KDA_WINDOW_STAGGER && !stream_stands_alone(split->user, split->window_rti))
		return false;
	return list_difference(keys, split->session_keys) == NIL && list_difference(split->session_keys, keys) == NIL;
}

/*---- what is kept */

static bool
group_key_has_srf(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->groupClause)
		if (expression_returns_set((Node *) get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), query->targetList)->expr))
			return true;
	return false;
}

/* Can the result be computed from partial aggregates by pane and key? */
bool
kda_split_groups_suffice(KdaSplit *split)
{
	Query	   *user = split->user;
	ListCell   *lc;

	if (user->groupingSets || group_key_has_srf(user) || split->window_quals)
		return false;
	if (split->window && !kda_window_is_aligned(split->window) && !is_group_of_session(split))
		return false;
	foreach(lc, collect_aggs(user))
	{
		char	   *why;

		if (!kda_agg_supported(lfirst(lc), &why))
			return false;
		/* states of panes and of sessions are not combined in the order of their rows */
		if (kda_agg_shows_order(lfirst(lc)) &&
			((split->window && split->window->kind != KDA_WINDOW_TUMBLING) || !stream_stands_alone(user, split->window_rti)))
			return false;
		if (split->window && kda_split_mentions(lfirst(lc), split->window_rti))
			return false;
		if (checkExprHasSubLink(lfirst(lc)))
			return false;
	}
	foreach(lc, user->groupClause)
	{
		Node	   *key = (Node *) get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), user->targetList)->expr;

		if (!kda_key_supported(exprType(key)))
			return false;
		if (split->window && kda_split_mentions(key, split->window_rti) && kda_split_mentions_others(key, split->window_rti))
			return false;
	}
	return true;
}

static void
keep(KdaSplit *split, Node *expr, AttrNumber attno)
{
	KdaKept    *kept = palloc(sizeof(KdaKept));

	kept->expr = expr;
	kept->attno = attno;
	split->kept = lappend(split->kept, kept);
}

/* FROM without the windows. */
static Query *
without_windows(KdaSplit *split)
{
	Query	   *batch = copyObject(split->user);
	ListCell   *lc;

	if (split->window_rti == 0)
		return batch;
	foreach(lc, batch->jointree->fromlist)
		if (IsA(lfirst(lc), RangeTblRef) && ((RangeTblRef *) lfirst(lc))->rtindex == split->window_rti)
			batch->jointree->fromlist = foreach_delete_current(batch->jointree->fromlist, lc);
	/* the entry stays where it is, and names nothing */
	return batch;
}

/* The record's place in the batch. */
Node *
kda_split_ctid(KdaSplit *split)
{
	return (Node *) makeVar(split->row_rti, split->row_attno, TIDOID, -1, InvalidOid, 0);
}

static Node *
kda_call(const char *name, Oid result, List *args)
{
	Oid			argtypes[3];
	int			n = 0;
	ListCell   *lc;

	foreach(lc, args)
		argtypes[n++] = exprType(lfirst(lc));
	return (Node *) makeFuncExpr(LookupFuncName(list_make2(makeString(KDA_SCHEMA), makeString(pstrdup(name))), n, argtypes, false),
								 result, args, InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

Node *
kda_text_const(const char *value)
{
	return (Node *) makeConst(TEXTOID, -1, DEFAULT_COLLATION_OID, -1, CStringGetTextDatum(value), false, false);
}

/* Shape rows: the record's place in the batch, perhaps another time for it, then the select list. */
Query *
kda_split_rows_batch(KdaSplit *split)
{
	Query	   *batch = copyObject(split->user);
	ListCell   *lc;

	foreach(lc, batch->targetList)
		lfirst_node(TargetEntry, lc)->resno += split->time ? 2 : 1;
	if (split->time)
		batch->targetList = lcons(makeTargetEntry((Expr *) copyObject(split->time), 2, "kda_time", false), batch->targetList);
	batch->targetList = lcons(makeTargetEntry((Expr *) kda_split_ctid(split), 1, "kda_row", false), batch->targetList);
	return batch;
}

static void
add_key(Query *batch, Node *expr, Oid eqop, Oid sortop, bool hashable)
{
	int			n = list_length(batch->targetList) + 1;
	TargetEntry *key = makeTargetEntry((Expr *) expr, n, psprintf("k%d", n), false);
	SortGroupClause *sgc = makeNode(SortGroupClause);

	key->ressortgroupref = sgc->tleSortGroupRef = n;
	sgc->eqop = eqop;
	sgc->sortop = sortop;
	sgc->hashable = hashable;
	batch->targetList = lappend(batch->targetList, key);
	batch->groupClause = lappend(batch->groupClause, sgc);
}

static void
add_plain_key(Query *batch, Node *expr)
{
	Oid			lt_op,
				eq_op;
	bool		hashable;

	get_sort_group_operators(exprType(expr), true, true, false, &lt_op, &eq_op, NULL, &hashable);
	add_key(batch, expr, eq_op, lt_op, hashable);
}

/* The time of a record, as the windows in FROM have it. */
static Node *
window_time(KdaSplit *split)
{
	RangeTblEntry *rte = rt_fetch(split->window_rti, split->user->rtable);
	FuncExpr   *call = castNode(FuncExpr, linitial_node(RangeTblFunction, rte->functions)->funcexpr);

	return copyObject(linitial(call->args));
}

/* State groups: pane, mark, keys, then a column for each aggregate. */
Query *
kda_split_groups_batch(KdaSplit *split)
{
	Query	   *user = split->user;
	Query	   *batch = without_windows(split);
	List	   *aggs = collect_aggs(user);
	ListCell   *lc;

	batch->targetList = NIL;
	batch->groupClause = NIL;
	if (split->window && !kda_window_is_aligned(split->window))
	{
		/* a record by itself: the worker makes windows of them */
		add_plain_key(batch, window_time(split));
		add_plain_key(batch, split->window->kind == KDA_WINDOW_SESSION ? window_time(split) :
					  kda_call("batch_row", INT8OID, list_make1(kda_split_ctid(split))));
		add_plain_key(batch, (Node *) makeConst(INT8OID, -1, InvalidOid, sizeof(int64), Int64GetDatum(0), false, FLOAT8PASSBYVAL));
	}
	else if (split->window)
	{
		split->paned = split->window->kind != KDA_WINDOW_TUMBLING;
		add_plain_key(batch, kda_call("window_start", TIMESTAMPTZOID,
									 list_make2(window_time(split), kda_text_const(split->window_text))));
		if (split->paned)
			add_plain_key(batch, kda_call("pane_after", TIMESTAMPTZOID, list_make1(kda_split_ctid(split))));
	}
	foreach(lc, user->groupClause)
	{
		SortGroupClause *sgc = lfirst_node(SortGroupClause, lc);
		TargetEntry *tle = get_sortgroupclause_tle(sgc, user->targetList);

		/* a key of the window alone follows from the pane */
		if (split->window && kda_split_mentions((Node *) tle->expr, split->window_rti))
			continue;
		add_key(batch, (Node *) copyObject(tle->expr), sgc->eqop, sgc->sortop, sgc->hashable);
		keep(split, (Node *) copyObject(tle->expr), KDA_OPEN_FIRST_KEY - 1 + list_length(batch->targetList));
	}
	split->nkeys = list_length(batch->targetList);
	foreach(lc, aggs)
	{
		int			n = list_length(batch->targetList) + 1;

		batch->targetList = lappend(batch->targetList,
									makeTargetEntry(copyObject(lfirst(lc)), n, psprintf("s%d", n - split->nkeys), false));
		keep(split, copyObject(lfirst(lc)), KDA_OPEN_FIRST_KEY - 1 + n);
	}
	batch->hasAggs = aggs != NIL;
	batch->havingQual = NULL;
	batch->hasTargetSRFs = false;
	batch->hasWindowFuncs = false;
	batch->windowClause = NIL;
	batch->distinctClause = NIL;
	batch->hasDistinctOn = false;
	batch->sortClause = NIL;
	batch->limitCount = batch->limitOffset = NULL;
	return batch;
}

static void
keep_column(KdaSplit *split, Query *batch, Node *expr)
{
	int			n = list_length(batch->targetList);

	batch->targetList = lappend(batch->targetList,
								makeTargetEntry((Expr *) copyObject(expr), n + 1, psprintf("c%d", n), false));
	keep(split, copyObject(expr), KDA_KEPT_FIRST - 1 + n);
}

/*
 * What windows of a row-sliding query look at is computed when the record
 * comes: an error in it is that record's, and not of all rows that see it.
 */
static bool
can_be_kept(Node *expr)
{
	return !IsA(expr, Var) && !IsA(expr, Const) && !contain_windowfuncs(expr) && !checkExprHasSubLink(expr) &&
		!expression_returns_set(expr) && get_typtype(exprType(expr)) != TYPTYPE_PSEUDO;
}

static bool
seen_walker(Node *node, void *arg)
{
	VarContext *cxt = arg;
	ListCell   *lc;

	if (node == NULL)
		return false;
	if (IsA(node, WindowFunc))
	{
		foreach(lc, ((WindowFunc *) node)->args)
			if (can_be_kept(lfirst(lc)))
				cxt->vars = list_append_unique(cxt->vars, lfirst(lc));
			else
				(void) seen_walker(lfirst(lc), cxt);
		return seen_walker((Node *) ((WindowFunc *) node)->aggfilter, cxt);
	}
	if (IsA(node, TargetEntry) && ((TargetEntry *) node)->ressortgroupref != 0 &&
		can_be_kept((Node *) ((TargetEntry *) node)->expr))
	{
		cxt->vars = list_append_unique(cxt->vars, ((TargetEntry *) node)->expr);
		return false;
	}
	if (IsA(node, Var) || IsA(node, Query))
		return vars_walker(node, cxt);
	return expression_tree_walker(node, seen_walker, cxt);
}

/* State rows: the record's place, keys of sessions, then every column that the final part needs. */
Query *
kda_split_kept_rows_batch(KdaSplit *split)
{
	Query	   *user = split->user;
	Query	   *batch = without_windows(split);
	VarContext	cxt = {0};
	List	   *quals = make_ands_implicit((Expr *) batch->jointree->quals);
	List	   *now = NIL;
	List	   *later = NIL;
	ListCell   *lc;
	Node	   *ctid = kda_split_ctid(split);

	/* conditions on windows wait for them */
	foreach(lc, quals)
		if (split->window && kda_split_mentions(lfirst(lc), split->window_rti))
			later = lappend(later, lfirst(lc));
		else
			now = lappend(now, lfirst(lc));
	batch->jointree->quals = (Node *) make_ands_explicit(now);
	if (now == NIL)
		batch->jointree->quals = NULL;
	split->window_quals = later ? (Node *) make_ands_explicit(later) : NULL;

	cxt.in_aggs = true;
	if (split->shape == KDA_SHAPE_OVER)
		seen_walker((Node *) user->targetList, &cxt);
	else
		vars_walker((Node *) user->targetList, &cxt);
	vars_walker(user->havingQual, &cxt);
	vars_walker(split->window_quals, &cxt);
	vars_walker((Node *) user->windowClause, &cxt);
	vars_walker(user->limitCount, &cxt);
	vars_walker(user->limitOffset, &cxt);
	batch->targetList = list_make1(makeTargetEntry((Expr *) ctid, 1, "kda_row", false));
	batch->hasTargetSRFs = false;
	foreach(lc, split->session_keys)
	{
		keep_column(split, batch, lfirst(lc));
		batch->hasTargetSRFs |= expression_returns_set(lfirst(lc));
	}
	split->nkeys = list_length(split->session_keys);
	foreach(lc, cxt.vars)
	{
		Var		   *var = lfirst(lc);

		if (!IsA(var, Var))
		{
			keep_column(split, batch, (Node *) var);
			continue;
		}
		if (split->window && var->varno == split->window_rti)
			continue;
		if (equal(var, ctid))
		{
			/* kda.rowtime(ctid) */
			keep(split, kda_call("rowtime", TIMESTAMPTZOID, list_make1(copyObject(ctid))), KDA_KEPT_TIME);
			continue;
		}
		if (get_typtype(var->vartype) == TYPTYPE_PSEUDO)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a continuous query cannot keep values of type %s", format_type_be(var->vartype)),
					 errhint("Name the columns one by one.")));
		if (!list_member(split->session_keys, var))
			keep_column(split, batch, (Node *) var);
	}
	batch->groupClause = NIL;
	batch->groupingSets = NIL;
	batch->havingQual = NULL;
	batch->hasAggs = false;
	batch->hasWindowFuncs = false;
	batch->windowClause = NIL;
	batch->distinctClause = NIL;
	batch->hasDistinctOn = false;
	batch->sortClause = NIL;
	batch->limitCount = batch->limitOffset = NULL;
	batch->limitOption = LIMIT_OPTION_COUNT;
	return batch;
}

/*
 * ORDER BY … WITHIN: the select list is computed when the record comes, as
 * without it, so that an error is that record's; what is kept is the result,
 * and the further keys.
 */
Query *
kda_split_sorted_batch(KdaSplit *split)
{
	Query	   *user = split->user;
	Query	   *batch = copyObject(user);
	Index		time = linitial_node(SortGroupClause, user->sortClause)->tleSortGroupRef;
	ListCell   *lc;

	batch->targetList = list_make1(makeTargetEntry((Expr *) kda_split_ctid(split), 1, "kda_row", false));
	batch->sortClause = NIL;
	foreach(lc, user->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (!tle->resjunk || tle->ressortgroupref != time)
			keep_column(split, batch, (Node *) tle->expr);
	}
	return batch;
}

char *
kda_split_open_ddl(KdaSplit *split, const char *name)
{
	StringInfoData s;
	ListCell   *lc;

	if (split->state == KDA_STATE_GROUPS)
	{
		char	   *ddl = kda_groups_table_ddl(split->batch, split->nkeys, name);

		/* where each window is looked up by itself */
		return split->per_window && split->window && kda_window_is_aligned(split->window) ? psprintf("%s; CREATE INDEX ON %s (k1)", ddl, name) : ddl;
	}
	initStringInfo(&s);
	appendStringInfo(&s, "CREATE TABLE %s (kda_slot smallint NOT NULL DEFAULT 0, kda_time pg_catalog.timestamptz NOT NULL, "
					 "kda_mark pg_catalog.timestamptz NOT NULL, kda_seq bigint NOT NULL", name);
	foreach(lc, split->batch->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resno == 1)
			continue;
		appendStringInfo(&s, ", %s %s", quote_identifier(tle->resname),
						 kda_column_type_sql(exprType((Node *) tle->expr), exprTypmod((Node *) tle->expr),
											 exprCollation((Node *) tle->expr)));
	}
	if (split->window && !kda_window_is_aligned(split->window))
		appendStringInfo(&s, ", kda_key bigint NOT NULL); CREATE INDEX ON %s (kda_key, %s)", name,
						 split->window->kind == KDA_WINDOW_SESSION ? "kda_time" : "kda_mark");
	else
		appendStringInfo(&s, "); CREATE INDEX ON %s (kda_time)", name);
	return s.data;
}
