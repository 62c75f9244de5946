/*-------------------------------------------------------------------------
 *
 * split.c
 *	  Splits the SELECT of a continuous query: what is done with each batch, and
 *	  what has to be kept so that the result can be computed from it.
 *
 * In: the raw SELECT with the window clause lifted out (dialect/).  Out: an
 * analysed Query for the whole, one for the per-batch part, and the list of
 * what is kept.  Runs in the session that declares the query, as that user.
 * Plans nothing and creates nothing.
 *
 * Two kinds of state.  Groups: partial aggregates by pane and key, where every
 * aggregate can be combined.  Rows: the columns that the final part needs, of
 * every record; the final part is then the user's own SQL over them, so that
 * whatever PostgreSQL can say about the rows of a window can be asked.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/heapam.h"
#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "declare/compose.h"
#include "catalog/rows.h"
#include "declare/from.h"
#include "catalog/namespace.h"
#include "catalog/options.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "declare/sort_within.h"
#include "declare/split.h"
#include "declare/window_clause.h"
#include "declare/query_words.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parse_func.h"
#include "parser/parse_clause.h"
#include "parser/parse_node.h"
#include "parser/parse_oper.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "query/agg_signature.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#define REFUSE_HINT_LATER	"This release does not keep such a query up to date."

static void
refuse(ParseState *pstate, const char *what, int location)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s cannot be used in a continuous query", what),
			 errhint(REFUSE_HINT_LATER),
			 parser_errposition(pstate, location)));
}

/*---- streams where none may be */

typedef struct StreamCount
{
	Oid			first;			/* to name in a message */
	Oid			before;			/* the one found last */
	int			n;
	Oid			view;			/* whose query is looked at: before 16 its range table names itself */
} StreamCount;

static bool
is_ours(Oid relid)
{
	return get_rel_namespace(relid) == get_namespace_oid(KDA_STORAGE_SCHEMA, false);
}

/* Streams in FROM, at any level and inside ordinary views. */
static bool
streams_walker(Node *node, void *arg)
{
	StreamCount *count = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		ListCell   *lc;

		foreach(lc, ((Query *) node)->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (rte->rtekind != RTE_RELATION)
				continue;
			if (rte->relkind == RELKIND_FOREIGN_TABLE && kda_is_stream(rte->relid))
			{
				/* users do not know streams of ours by name */
				if (count->n++ > 0 && (!OidIsValid(count->first) || !is_ours(rte->relid)))
					count->first = is_ours(rte->relid) && OidIsValid(count->before) ? count->before : rte->relid;
				count->before = rte->relid;
			}
			else if (rte->relkind == RELKIND_VIEW && rte->relid != count->view)
			{
				Relation	view = table_open(rte->relid, AccessShareLock);
				Oid			around = count->view;

				check_stack_depth();
				count->view = rte->relid;
				streams_walker((Node *) get_view_query(view), count);
				count->view = around;
				table_close(view, AccessShareLock);
			}
		}
		return query_tree_walker((Query *) node, streams_walker, count, 0);
	}
	return expression_tree_walker(node, streams_walker, count);
}

/* The one that kda_from_find has found is the only one. */
static void
refuse_other_streams(Query *query)
{
	StreamCount count = {InvalidOid, InvalidOid, 0, InvalidOid};

	streams_walker((Node *) query, &count);
	if (count.n > 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" is read inside a subquery or view of a continuous query", get_rel_name(count.first)),
				 errhint("Name the stream in FROM of the query itself: FROM a JOIN b ON .... IN and EXISTS can be used where both have the same window: ... TABLE (TUMBLE (...)) l WHERE l.k IN (SELECT r.k FROM TABLE (TUMBLE (...)) r WHERE r.window_start = l.window_start AND r.window_end = l.window_end).")));
}

/*---- the whole query, analysed */

/* GROUP BY 2 counts the select list's columns: two more stand before them now. */
static void
shift_ordinals(List *list, int by)
{
	ListCell   *lc;

	foreach(lc, list)
	{
		Node	   *node = lfirst(lc);

		if (node == NULL)
			continue;			/* DISTINCT without ON is a list of nothing */
		if (IsA(node, SortBy))
			node = ((SortBy *) node)->node;
		if (IsA(node, A_Const) && !((A_Const *) node)->isnull && IsA(&((A_Const *) node)->val, Integer))
			((A_Const *) node)->val.ival.ival += by;
	}
}

/* SELECT * does not show what of ours stands in FROM as well. */
static void
hide_ours_of_star(KdaSplit *split, Query *query, List *star_locations, bool hide_stream)
{
	ListCell   *lc;
	AttrNumber	resno = 1;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Var		   *var = (Var *) tle->expr;

		if (IsA(var, Var) && tle->ressortgroupref == 0 && list_member_int(star_locations, var->location) &&
			((var->varno == split->window_rti && split->window_rti > 0) || strcmp(tle->resname, KDA_TIME_COLUMN) == 0 ||
			 (var->varno == split->row_rti && (var->varattno == split->row_attno || hide_stream))))
			query->targetList = foreach_delete_current(query->targetList, lc);
		else
			tle->resno = resno++;
	}
}

static List *
star_locations(SelectStmt *select)
{
	List	   *locations = NIL;
	ListCell   *lc;

	foreach(lc, select->targetList)
	{
		Node	   *val = lfirst_node(ResTarget, lc)->val;

		if (IsA(val, ColumnRef) && IsA(llast(((ColumnRef *) val)->fields), A_Star))
			locations = lappend_int(locations, ((ColumnRef *) val)->location);
	}
	return locations;
}

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

static bool
mentions(Node *node, int rti)
{
	VarContext	cxt = {0};

	cxt.only_rti = rti;
	cxt.in_aggs = true;
	vars_walker(node, &cxt);
	return cxt.found;
}

static bool
mentions_others(Node *node, int rti)
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

/*---- checks */

static void
check_query(ParseState *pstate, Query *query, bool kept)
{
	if (query->rowMarks)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("FOR UPDATE cannot be used in a continuous query"),
				 errhint("Leave it out: tables are looked up as they are when a record is processed.")));
	if (query->hasModifyingCTE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous query cannot change data in WITH"),
				 errhint("CREATE PUMP ... AS INSERT INTO ... writes its result.")));
	if (kept ? contain_volatile_functions((Node *) query) : contain_volatile_functions((Node *) query->jointree))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a volatile function can stand only in the select list of a continuous query without aggregates"),
				 errdetail("Its result would change when records are read again."),
				 errhint("now() and current_timestamp are stable and may be used.")));
}

/*
 * GROUP BY t.id, with t.name in the select list because id is the key of t: the
 * column is grouped by as well, which changes no group.
 */
static void
group_by_dependent_columns(Query *query)
{
	VarContext	cxt = {0};
	ListCell   *lc,
			   *lt;

	vars_walker((Node *) query->targetList, &cxt);
	vars_walker(query->havingQual, &cxt);
	foreach(lc, cxt.vars)
	{
		TargetEntry *found = NULL;
		SortGroupClause *sgc;
		Oid			lt_op,
					eq_op;
		bool		hashable;

		foreach(lt, query->targetList)
			if (equal(lfirst_node(TargetEntry, lt)->expr, lfirst(lc)))
				found = lfirst_node(TargetEntry, lt);
		if (found && found->ressortgroupref != 0 && get_sortgroupref_clause_noerr(found->ressortgroupref, query->groupClause))
			continue;
		if (found == NULL)
		{
			found = makeTargetEntry(copyObject(lfirst(lc)), list_length(query->targetList) + 1, NULL, true);
			query->targetList = lappend(query->targetList, found);
		}
		get_sort_group_operators(exprType(lfirst(lc)), false, true, false, &lt_op, &eq_op, NULL, &hashable);
		sgc = makeNode(SortGroupClause);
		sgc->tleSortGroupRef = assignSortGroupRef(found, query->targetList);
		sgc->eqop = eq_op;
		sgc->sortop = lt_op;
		sgc->hashable = hashable;
		query->groupClause = lappend(query->groupClause, sgc);
	}
	query->constraintDeps = NIL;
}

/*---- windows that depend on other rows: what they are made for */

/* STAGGER stands instead of GROUP BY; without aggregates rows keep to themselves, as ever. */
static void
group_by_stagger(ParseState *pstate, SelectStmt *core, const KdaWindowClause *clause)
{
	if (core->groupClause)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("a SELECT with a STAGGER window cannot have GROUP BY"),
				 errdetail("PARTITION BY of the window says how its rows are grouped."),
				 parser_errposition(pstate, exprLocation(linitial(core->groupClause)))));
	if (kda_words_aggregated(core))
		core->groupClause = copyObject(clause->partition);
}

static void
find_session_keys(KdaSplit *split, ParseState *pstate, const KdaWindowClause *clause)
{
	Query	   *user = split->user;
	RangeTblEntry *windows = rt_fetch(split->window_rti, user->rtable);
	FuncExpr   *call = castNode(FuncExpr, linitial_node(RangeTblFunction, windows->functions)->funcexpr);
	ListCell   *lc;

	if (clause->in_from || clause->kind == KDA_WINDOW_STAGGER)
		/* what PARTITION BY says, or all rows together */
		split->session_keys = copyObject(list_copy_tail(call->args, 2));
	else
	{
		if (user->groupingSets)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("GROUPING SETS, ROLLUP and CUBE do not say for which keys %s windows are made",
							kda_window_kind_name(split->window->kind)),
					 errhint("FROM TABLE (SESSION (TABLE s PARTITION BY k, DESCRIPTOR (rowtime), INTERVAL ...)) does; or write a query for each set."),
					 parser_errposition(pstate, clause->location)));
		foreach(lc, user->groupClause)
		{
			Node	   *key = (Node *) get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), user->targetList)->expr;

			if (!mentions(key, split->window_rti))
				split->session_keys = lappend(split->session_keys, copyObject(key));
			else if (mentions_others(key, split->window_rti))
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("a key of GROUP BY cannot be made of columns and %s windows at once",
								kda_window_kind_name(split->window->kind)),
						 errdetail("The windows depend on the keys."),
						 parser_errposition(pstate, clause->location)));
		}
	}
	split->session_keys = (List *) kda_flatten_join_alias_vars(user, (Node *) split->session_keys);
	foreach(lc, split->session_keys)
	{
		Oid			type = exprType(lfirst(lc));

		if (get_typtype(type) == TYPTYPE_PSEUDO || !OidIsValid(lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("%s windows cannot be made for keys of type %s",
							kda_window_kind_name(split->window->kind), format_type_be(type)),
					 errdetail("Values of the type cannot be stored and compared."),
					 parser_errposition(pstate, clause->location)));
	}
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

		if (!mentions(key, split->window_rti))
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
static bool
groups_suffice(KdaSplit *split)
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
		if (split->window && mentions(lfirst(lc), split->window_rti))
			return false;
		if (checkExprHasSubLink(lfirst(lc)))
			return false;
	}
	foreach(lc, user->groupClause)
	{
		Node	   *key = (Node *) get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), user->targetList)->expr;

		if (!kda_key_supported(exprType(key)))
			return false;
		if (split->window && mentions(key, split->window_rti) && mentions_others(key, split->window_rti))
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
static Node *
stream_ctid(KdaSplit *split)
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

static Node *
text_const(const char *value)
{
	return (Node *) makeConst(TEXTOID, -1, DEFAULT_COLLATION_OID, -1, CStringGetTextDatum(value), false, false);
}

/* Shape rows: the record's place in the batch, perhaps another time for it, then the select list. */
static Query *
rows_batch(KdaSplit *split)
{
	Query	   *batch = copyObject(split->user);
	ListCell   *lc;

	foreach(lc, batch->targetList)
		lfirst_node(TargetEntry, lc)->resno += split->time ? 2 : 1;
	if (split->time)
		batch->targetList = lcons(makeTargetEntry((Expr *) copyObject(split->time), 2, "kda_time", false), batch->targetList);
	batch->targetList = lcons(makeTargetEntry((Expr *) stream_ctid(split), 1, "kda_row", false), batch->targetList);
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
static Query *
groups_batch(KdaSplit *split)
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
					  kda_call("batch_row", INT8OID, list_make1(stream_ctid(split))));
	}
	else if (split->window)
	{
		split->paned = split->window->kind != KDA_WINDOW_TUMBLING;
		add_plain_key(batch, kda_call("window_start", TIMESTAMPTZOID,
									 list_make2(window_time(split), text_const(split->window_text))));
		if (split->paned)
			add_plain_key(batch, kda_call("pane_after", TIMESTAMPTZOID, list_make1(stream_ctid(split))));
	}
	foreach(lc, user->groupClause)
	{
		SortGroupClause *sgc = lfirst_node(SortGroupClause, lc);
		TargetEntry *tle = get_sortgroupclause_tle(sgc, user->targetList);

		/* a key of the window alone follows from the pane */
		if (split->window && mentions((Node *) tle->expr, split->window_rti))
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
static Query *
kept_rows_batch(KdaSplit *split)
{
	Query	   *user = split->user;
	Query	   *batch = without_windows(split);
	VarContext	cxt = {0};
	List	   *quals = make_ands_implicit((Expr *) batch->jointree->quals);
	List	   *now = NIL;
	List	   *later = NIL;
	ListCell   *lc;
	Node	   *ctid = stream_ctid(split);

	/* conditions on windows wait for them */
	foreach(lc, quals)
		if (split->window && mentions(lfirst(lc), split->window_rti))
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
static Query *
sorted_batch(KdaSplit *split)
{
	Query	   *user = split->user;
	Query	   *batch = copyObject(user);
	Index		time = linitial_node(SortGroupClause, user->sortClause)->tleSortGroupRef;
	ListCell   *lc;

	batch->targetList = list_make1(makeTargetEntry((Expr *) stream_ctid(split), 1, "kda_row", false));
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

/* By one of the columns before it, or by one of ours. */
static bool
is_name_taken(List *targets, TargetEntry *tle)
{
	ListCell   *lc;

	if (strcmp(tle->resname, "kda_time") == 0 || strcmp(tle->resname, "kda_row") == 0)
		return true;
	foreach(lc, targets)
	{
		TargetEntry *other = lfirst_node(TargetEntry, lc);

		if (other == tle)
			return false;
		if (!other->resjunk && strcmp(other->resname, tle->resname) == 0)
			return true;
	}
	return false;
}

/* A pump's columns are inserted by their places: nobody has to name them. */
static void
make_names_unique(List *targets)
{
	ListCell   *lc;

	foreach(lc, targets)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		char	   *name = tle->resname;

		for (int n = tle->resno; !tle->resjunk && is_name_taken(targets, tle); n++)
			tle->resname = psprintf("%.40s_%d", name, n);
	}
}

static void
describe_columns(KdaSplit *split)
{
	List	   *targets = split->top->targetList;
	ListCell   *lc;
	int			i = 0;

	split->names = palloc0(sizeof(char *) * (list_length(targets) + 2));
	split->types = palloc0(sizeof(Oid) * (list_length(targets) + 2));
	split->typmods = palloc0(sizeof(int32) * (list_length(targets) + 2));
	split->collations = palloc0(sizeof(Oid) * (list_length(targets) + 2));
	if (split->window_columns_around)
		for (; i < 2; i++)
		{
			split->names[i] = i == 0 ? "window_start" : "window_end";
			split->types[i] = TIMESTAMPTZOID;
			split->typmods[i] = -1;
		}
	foreach(lc, targets)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk)
			continue;
		split->names[i] = tle->resname;
		split->types[i] = exprType((Node *) tle->expr);
		split->typmods[i] = exprTypmod((Node *) tle->expr);
		split->collations[i] = exprCollation((Node *) tle->expr);
		if (split->types[i] == UNKNOWNOID)
			split->types[i] = TEXTOID;
		if (get_typtype(split->types[i]) == TYPTYPE_PSEUDO)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a continuous query cannot give a column of type %s", format_type_be(split->types[i])),
					 errhint("Cast \"%s\" to a type of its own.", tle->resname)));
		if (pg_strcasecmp(tle->resname, "rowtime") == 0)
			split->has_rowtime = true;
		if (is_name_taken(targets, tle) ||
			(split->window_columns_around && (strcmp(tle->resname, "window_start") == 0 || strcmp(tle->resname, "window_end") == 0)))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 strncmp(tle->resname, "kda_", 4) == 0 ?
					 errmsg("column name \"%s\" is reserved", tle->resname) :
					 errmsg("column \"%s\" specified more than once", tle->resname),
					 errhint("Give the columns different names with AS.")));
		i++;
	}
	split->ncolumns = i;
}

/*---- row-sliding queries */

/* KDA's RANGE … PRECEDING and ROWS … PRECEDING are ordered by time without saying so. */
static bool
order_by_time_walker(Node *node, void *arg)
{
	KdaWordContext *words = arg;

	if (node == NULL || IsA(node, SubLink) || IsA(node, SelectStmt))
		return false;
	if (IsA(node, WindowDef))
	{
		WindowDef  *def = (WindowDef *) node;

		if (def->orderClause == NIL && def->refname == NULL && (def->frameOptions & FRAMEOPTION_START_OFFSET_PRECEDING))
		{
			SortBy	   *by = makeNode(SortBy);

			by->node = kda_words_rowtime(words, -1);
			by->location = -1;
			def->orderClause = list_make1(by);
		}
		return false;
	}
	if (IsA(node, FuncCall) && ((FuncCall *) node)->over)
		order_by_time_walker((Node *) ((FuncCall *) node)->over, words);
	return raw_expression_tree_walker(node, order_by_time_walker, words);
}

/* Is the expression the record's time? */
static bool
is_record_time(KdaSplit *split, Node *expr, AttrNumber rowtime_attno)
{
	if (IsA(expr, Var))
		return ((Var *) expr)->varno == split->row_rti && ((Var *) expr)->varlevelsup == 0 && rowtime_attno > 0 &&
			((Var *) expr)->varattno == rowtime_attno;
	return IsA(expr, FuncExpr) && list_length(((FuncExpr *) expr)->args) == 1 &&
		equal(linitial(((FuncExpr *) expr)->args), stream_ctid(split));
}

typedef struct WindowFuncContext
{
	Query	   *query;
	bool		looks_beyond;	/* a function that does not keep to its frame */
} WindowFuncContext;

static bool
window_func_walker(Node *node, void *arg)
{
	WindowFuncContext *cxt = arg;

	if (node == NULL)
		return false;
	if (IsA(node, WindowFunc))
	{
		WindowFunc *func = (WindowFunc *) node;
		WindowClause *wc = list_nth_node(WindowClause, cxt->query->windowClause, func->winref - 1);

		if (func->winagg || func->winfnoid == F_FIRST_VALUE || func->winfnoid == F_LAST_VALUE || func->winfnoid == F_NTH_VALUE)
			return false;
		/* lag looks so many rows back: they are kept if the frame is counted in rows */
		if ((func->winfnoid == F_LAG_ANYELEMENT || func->winfnoid == F_LAG_ANYELEMENT_INT4 ||
			 func->winfnoid == F_LAG_ANYCOMPATIBLE_INT4_ANYCOMPATIBLE) && (wc->frameOptions & FRAMEOPTION_ROWS) &&
			IsA(wc->startOffset, Const))
		{
			Node	   *by = list_length(func->args) > 1 ? lsecond(func->args) : NULL;
			int			n = by == NULL ? 1 : IsA(by, Const) && !((Const *) by)->constisnull ? DatumGetInt32(((Const *) by)->constvalue) : -1;

			if (n >= 0 && n <= DatumGetInt64(((Const *) wc->startOffset)->constvalue))
				return false;
		}
		cxt->looks_beyond = true;
		return false;
	}
	return expression_tree_walker(node, window_func_walker, cxt);
}

static bool
is_zero_interval(const Const *offset)
{
	Interval   *iv;

	if (offset->consttype != INTERVALOID)
		return false;
	iv = DatumGetIntervalP(offset->constvalue);
	return iv->time == 0 && iv->day == 0 && iv->month == 0;
}

/*
 * Are all windows of OVER ordered by time, and do they end at the row itself
 * or before it and begin at a bounded distance?  Then each record's row is final as soon as
 * the watermark has reached it.
 */
static bool
slides_by_row(KdaSplit *split)
{
	Query	   *query = split->user;
	AttrNumber	rowtime = split->row_attno < 0 ? kda_stream_options_get(split->stream)->rowtime_attno : 0;
	WindowFuncContext cxt = {query, false};
	ListCell   *lc;

	if (!query->hasWindowFuncs || query->distinctClause || query->sortClause || query->limitCount || query->limitOffset ||
		query->hasTargetSRFs || split->depth > 0)
		return false;
	foreach(lc, query->windowClause)
	{
		WindowClause *wc = lfirst_node(WindowClause, lc);
		SortGroupClause *by;
		bool		reverse;
		Oid			opfamily,
					optype;

		if (list_length(wc->orderClause) != 1 || !(wc->frameOptions & FRAMEOPTION_START_OFFSET_PRECEDING) ||
			!(wc->frameOptions & (FRAMEOPTION_END_CURRENT_ROW | FRAMEOPTION_END_OFFSET_PRECEDING)) || !(wc->frameOptions & (FRAMEOPTION_RANGE | FRAMEOPTION_ROWS)) ||
			(wc->frameOptions & FRAMEOPTION_EXCLUSION))
			return false;
		wc->startOffset = eval_const_expressions(NULL, wc->startOffset);
		if (!IsA(wc->startOffset, Const) || ((Const *) wc->startOffset)->constisnull)
			return false;
		if (wc->endOffset)
		{
			wc->endOffset = eval_const_expressions(NULL, wc->endOffset);
			if (!IsA(wc->endOffset, Const) || ((Const *) wc->endOffset)->constisnull)
				return false;
			/* a row sees none of its own time that came later */
			if ((wc->frameOptions & FRAMEOPTION_RANGE) && is_zero_interval((Const *) wc->endOffset))
			{
				wc->frameOptions &= ~FRAMEOPTION_END_OFFSET_PRECEDING;
				wc->frameOptions |= FRAMEOPTION_END_CURRENT_ROW;
				wc->endOffset = NULL;
				wc->endInRangeFunc = InvalidOid;
			}
		}
		by = linitial_node(SortGroupClause, wc->orderClause);
		if (!is_record_time(split, (Node *) get_sortgroupclause_tle(by, query->targetList)->expr, rowtime))
			return false;
		if (!kda_ordering_op(by->sortop, &opfamily, &optype, &reverse) || reverse)
			return false;
	}
	window_func_walker((Node *) query->targetList, &cxt);
	return !cxt.looks_beyond;
}

/*
 * The last of the select list is not the user's: the time of the rows that
 * leave, as timestamptz.
 */
static void
take_time(KdaSplit *split, ParseState *pstate)
{
	TargetEntry *tle = llast_node(TargetEntry, split->user->targetList);
	Oid			type = getBaseType(exprType((Node *) tle->expr));

	split->user->targetList = list_truncate(split->user->targetList, list_length(split->user->targetList) - 1);
	split->time = (Node *) tle->expr;
	if (type == TIMESTAMPOID)
		split->time = (Node *) makeFuncExpr(F_TIMEZONE_TEXT_TIMESTAMP, TIMESTAMPTZOID,
											list_make2(text_const(kda_stream_options_get(split->stream)->time_zone), split->time),
											InvalidOid, DEFAULT_COLLATION_OID, COERCE_EXPLICIT_CALL);
	else if (type != TIMESTAMPTZOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("ORDER BY ... WITHIN sorts by time, not by type %s", format_type_be(exprType((Node *) tle->expr))),
				 errhint("Its first expression is the stream's time, or of type timestamptz or timestamp."),
				 parser_errposition(pstate, exprLocation((Node *) tle->expr))));
}

/* ORDER BY … WITHIN: the first key is the record's time (sort_within.c has made it so). */
static void
check_sorted(KdaSplit *split)
{
	AttrNumber	rowtime = split->row_attno < 0 ? kda_stream_options_get(split->stream)->rowtime_attno : 0;
	SortGroupClause *by = linitial_node(SortGroupClause, split->user->sortClause);
	ListCell   *lc;

	if (split->depth > 0 || split->user->hasWindowFuncs ||
		!is_record_time(split, (Node *) get_sortgroupclause_tle(by, split->user->targetList)->expr, rowtime))
		elog(ERROR, "a sorted query is not sorted by the time of its records");
	rowtime = kda_stream_options_get(split->stream)->rowtime_attno;
	foreach(lc, split->user->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Var		   *var = (Var *) tle->expr;

		if (!tle->resjunk && IsA(var, Var) && var->varno == split->row_rti && var->varlevelsup == 0 &&
			split->row_attno < 0 && rowtime > 0 && var->varattno == rowtime && split->sorted_by == NULL)
			split->sorted_by = tle->resname;
	}
	split->sort_strict = list_length(split->user->sortClause) > 1;
}

/*---- sessions of several keys in a SELECT around them */

static bool
over_walker(Node *node, void *cxt)
{
	if (node == NULL || IsA(node, SubLink) || IsA(node, SelectStmt))
		return false;
	if (IsA(node, FuncCall) && ((FuncCall *) node)->over)
		return true;
	return raw_expression_tree_walker(node, over_walker, cxt);
}

static bool
looks_at_rows(SelectStmt *select)
{
	return select->distinctClause || select->sortClause || select->limitCount || select->limitOffset ||
		over_walker((Node *) select->targetList, NULL);
}

/* Does a SELECT around core group, or look at several rows?  It then sees sessions with the same bounds as one window. */
static bool
groups_around(SelectStmt *select, SelectStmt *core)
{
	ListCell   *lc;

	if (select == core)
		return false;
	if (kda_words_aggregated(select) || looks_at_rows(select))
		return true;
	foreach(lc, select->fromClause)
	{
		SelectStmt *below = IsA(lfirst(lc), RangeSubselect) ? (SelectStmt *) ((RangeSubselect *) lfirst(lc))->subquery : NULL;

		if (below && IsA(below, SelectStmt) && groups_around(below, core))
			return true;
	}
	return false;
}

/* window_start and window_end become the first columns of the SELECT. */
static void
add_window_columns(SelectStmt *select)
{
	List	   *keys = kda_words_window_keys();

	select->targetList = lcons(kda_raw_target("window_start", linitial(keys)),
							   lcons(kda_raw_target("window_end", lsecond(keys)), select->targetList));
	shift_ordinals(select->groupClause, 2);
	shift_ordinals(select->sortClause, 2);
	shift_ordinals(select->distinctClause, 2);
}

static bool
has_window_column(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (!tle->resjunk && (strcmp(tle->resname, "window_start") == 0 || strcmp(tle->resname, "window_end") == 0))
			return true;
	}
	return false;
}

/* An aggregate whose result shows in which order the records have come; user-defined ones are believed not to. */
static bool
order_shows_walker(Node *node, void *cxt)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, order_shows_walker, cxt, 0);
	if (IsA(node, Aggref) && ((Aggref *) node)->aggorder == NIL)
		switch (((Aggref *) node)->aggfnoid)
		{
			case F_ARRAY_AGG_ANYNONARRAY:
			case F_ARRAY_AGG_ANYARRAY:
			case F_STRING_AGG_TEXT_TEXT:
			case F_STRING_AGG_BYTEA_BYTEA:
			case F_JSON_AGG:
			case F_JSONB_AGG:
			case F_JSON_OBJECT_AGG:
			case F_JSONB_OBJECT_AGG:
			case F_XMLAGG:
#if PG_VERSION_NUM >= 160000
			case F_JSON_AGG_STRICT:
			case F_JSON_OBJECT_AGG_STRICT:
			case F_JSON_OBJECT_AGG_UNIQUE:
			case F_JSON_OBJECT_AGG_UNIQUE_STRICT:
			case F_JSONB_AGG_STRICT:
			case F_JSONB_OBJECT_AGG_STRICT:
			case F_JSONB_OBJECT_AGG_UNIQUE:
			case F_JSONB_OBJECT_AGG_UNIQUE_STRICT:
#endif
				return true;
		}
	return expression_tree_walker(node, order_shows_walker, cxt);
}

/* Records of several shards have no order among each other, and each slot sees only its own ones. */
static const char *
why_one_slot(KdaSplit *split)
{
	if (split->window && split->window->kind == KDA_WINDOW_SESSION)
		return "Sessions are made of the records of all shards.";
	if (split->window && split->window->kind == KDA_WINDOW_STAGGER)
		return "Stagger windows open in the order of arrival.";
	if (split->shape == KDA_SHAPE_OVER)
		return "Its rows look at the records before them, in the order of arrival.";
	if (order_shows_walker((Node *) split->user, NULL))
		return "It has an aggregate whose result shows the order of arrival.";
	return NULL;
}

KdaSplit *
kda_split_query(KdaQuerySpec *spec, const char *source_text, const char *time_zone, bool add_columns)
{
	KdaSplit   *split = palloc0(sizeof(KdaSplit));
	SelectStmt *select = copyObject(spec->select);
	SelectStmt *core;
	ParseState *pstate = make_parsestate(NULL);
	KdaWordContext words;
	KdaFrom		from = {0};
	RawStmt    *raw;
	Query	   *query;
	ListCell   *lc;
	bool		aggregated;
	List	   *stars = NIL;

	pstate->p_sourcetext = source_text;
	from.pstate = pstate;
	from.spec = spec;
	if (select->op != SETOP_NONE || select->valuesLists)
		refuse(pstate, "UNION, INTERSECT, EXCEPT or VALUES", -1);
	kda_from_find(&from, select);
	core = from.core;
	split->stream = from.relid;
	split->depth = from.depth;
	kda_words_begin(&words, pstate, from.relid, from.name, from.row_column);
	if (from.core_window)
	{
		split->window = kda_window_of_clause(pstate, from.core_window, time_zone);
		if (split->window->kind == KDA_WINDOW_SESSION && groups_around(select, core) && !looks_at_rows(core))
			split->window->by_bounds = true;
		split->window_text = kda_window_format(split->window);
		if (split->window->kind == KDA_WINDOW_STAGGER)
			group_by_stagger(pstate, core, from.core_window);
	}

	if (kda_sort_of(core))
	{
		split->sorted = true;
		split->delay_us = kda_sort_take(core);
	}
	if (spec->time)
		core->targetList = lappend(core->targetList, kda_raw_target("kda_time", kda_sort_open(copyObject(spec->time), &split->delay_us)));

	/* Words of ours become plain SQL. */
	kda_words_set_window(&words, core, from.core_window);
	kda_words_apply(&words, core);
	aggregated = words.aggregated;
	if (split->depth > 0)
		kda_from_expand_stars(&from);
	stars = star_locations(core);
	if (!split->window)
	{
		order_by_time_walker((Node *) core->targetList, &words);
		order_by_time_walker((Node *) core->windowClause, &words);
	}
	if (split->window)
	{
		List	   *keys = kda_words_expressions(&words, copyObject(from.core_window->partition));

		core->fromClause = lappend(core->fromClause, kda_words_window_from(&words, kda_raw_string(split->window_text), keys));
		if (add_columns && !words.named_window && split->depth == 0)
		{
			add_window_columns(core);
			split->window_columns_added = true;
		}
		if (aggregated)
			core->groupClause = list_concat(kda_words_window_keys(), core->groupClause);
	}

	raw = makeNode(RawStmt);
	raw->stmt = (Node *) select;
	query = split->top = parse_analyze_fixedparams(raw, source_text, NULL, 0, NULL);
	if (query->commandType != CMD_SELECT || query->utilityStmt)
		refuse(pstate, "this statement", -1);
	split->top = query = kda_flatten_group_rte(query);
	kda_from_settle(&from, query);
	split->row_rti = from.rti;
	split->row_attno = from.row_attno;
	refuse_other_streams(query);
	if (from.joined)
		kda_check_same_window(pstate, query, strcmp(from.joined, KDA_SAME_WINDOW) == 0);
	check_query(pstate, query, aggregated || split->window || split->depth > 0 || spec->time);
	/* Rights are checked here, and again whenever the query runs. */
	kda_check_query_permissions(query);
	if (add_columns && split->window && split->depth > 0 && !has_window_column(query))
		split->window_columns_added = split->window_columns_around = true;

	query = split->user = split->depth > 0 ? kda_flatten_group_rte(from.query) : query;
	if (split->window)
	{
		foreach(lc, query->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (rte->rtekind == RTE_FUNCTION && rte->alias && strcmp(rte->alias->aliasname, KDA_WINDOW_ALIAS) == 0)
				split->window_rti = foreach_current_index(lc) + 1;
		}
	}
	hide_ours_of_star(split, query, stars, strcmp(from.name, KDA_JOIN_ALIAS) == 0);
	query->targetList = (List *) kda_flatten_join_alias_vars(query, (Node *) query->targetList);
	query->havingQual = kda_flatten_join_alias_vars(query, query->havingQual);
	query->jointree = (FromExpr *) kda_flatten_join_alias_vars(query, (Node *) query->jointree);
	if (query->constraintDeps)
		group_by_dependent_columns(query);
	if (spec->time)
		take_time(split, pstate);
	if (split->window && !kda_window_is_aligned(split->window))
		find_session_keys(split, pstate, from.core_window);

	if (!add_columns)
		make_names_unique(split->top->targetList);

	/* a window function, DISTINCT, ORDER BY or LIMIT looks at several rows, too */
	split->per_window = split->depth > 0 || query->hasWindowFuncs || query->distinctClause || query->sortClause ||
		query->limitCount || query->limitOffset || query->hasTargetSRFs;
	split->shape = split->window ? KDA_SHAPE_WINDOWS :
		aggregated || split->depth > 0 || query->hasWindowFuncs || query->distinctClause || query->sortClause ||
		query->limitCount || query->limitOffset ? KDA_SHAPE_GROUPS : KDA_SHAPE_ROWS;
	if (split->sorted)
		check_sorted(split);
	if (split->sorted || (!split->window && !aggregated && slides_by_row(split)))
		split->shape = KDA_SHAPE_OVER;
	if (split->shape == KDA_SHAPE_ROWS)
	{
		split->state = KDA_STATE_NONE;
		split->batch = rows_batch(split);
	}
	else if (split->shape == KDA_SHAPE_OVER)
	{
		split->state = KDA_STATE_ROWS;
		split->per_window = false;
		split->batch = split->sorted ? sorted_batch(split) : kept_rows_batch(split);
	}
	else if (aggregated && !(query->jointree->quals && split->window && mentions(query->jointree->quals, split->window_rti)) &&
			 groups_suffice(split))
	{
		split->state = KDA_STATE_GROUPS;
		split->batch = groups_batch(split);
	}
	else
	{
		split->state = KDA_STATE_ROWS;
		split->per_window = true;
		split->batch = kept_rows_batch(split);
	}
	describe_columns(split);
	split->one_slot = why_one_slot(split);
	return split;
}
