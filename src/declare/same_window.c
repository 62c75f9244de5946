/*-------------------------------------------------------------------------
 *
 * same_window.c
 *	  Of a join by window, as the user has written it: do its rows join only
 *	  within the same window?
 *
 * The engine runs the query for each window by itself.  That gives the same as
 * the plain SELECT over all windows if, at each level of the query,
 *
 *		every row comes from one window: FROM gives none without a record, and
 *		what it joins has equal bounds;
 *		what looks at several rows, GROUP BY and PARTITION BY, has the bounds
 *		among its keys;
 *		subqueries in expressions have the bounds of the row that they stand at.
 *
 * Bounds are found again through subqueries, joins and COALESCE, down to the
 * columns of the WITH query.  In the session that declares the query, after
 * analysis.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "declare/from.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_agg.h"
#include "parser/parsetree.h"
#include "utils/fmgroids.h"

typedef enum Bound
{
	NONE,
	START,
	END
} Bound;

/* A query and those around it. */
typedef struct Level
{
	Query	   *query;
	struct Level *up;
} Level;

typedef struct Check
{
	ParseState *pstate;
	bool		as_written;		/* the user has written the bounds; else only what is in no window is refused */
} Check;

static void
refuse(Check *check, const char *detail, const char *hint, int location)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("streams are joined by windows within the same window only"),
			 errdetail("%s", detail),
			 errhint("%s", hint),
			 parser_errposition(check->pstate, location)));
}

static void
refuse_condition(Check *check, int location)
{
	refuse(check, "The condition does not say that both rows are of the same window.",
		   "ON l.window_start = r.window_start AND l.window_end = r.window_end AND ..., or USING (window_start, window_end, ...).",
		   location);
}

/*---- which relations of FROM have records */

static bool has_records(Query *query);

static bool
is_records(RangeTblEntry *rte)
{
	return rte->rtekind == RTE_CTE &&
		(strcmp(rte->ctename, KDA_SAME_WINDOW) == 0 || strcmp(rte->ctename, KDA_ONE_WINDOW) == 0);
}

static bool
is_source(RangeTblEntry *rte)
{
	return is_records(rte) ||
		(rte->rtekind == RTE_SUBQUERY && has_records(rte->subquery));
}

/* In FROM, at any level. */
static bool
has_records(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
		if (is_source(lfirst_node(RangeTblEntry, lc)))
			return true;
	return false;
}

static Bitmapset *
sources_below(Query *query, Node *from)
{
	if (IsA(from, RangeTblRef))
	{
		int			rti = ((RangeTblRef *) from)->rtindex;

		return is_source(rt_fetch(rti, query->rtable)) ? bms_make_singleton(rti) : NULL;
	}
	if (IsA(from, JoinExpr))
		return bms_union(sources_below(query, ((JoinExpr *) from)->larg), sources_below(query, ((JoinExpr *) from)->rarg));
	if (IsA(from, FromExpr))
	{
		Bitmapset  *all = NULL;
		ListCell   *lc;

		foreach(lc, ((FromExpr *) from)->fromlist)
			all = bms_union(all, sources_below(query, lfirst(lc)));
		return all;
	}
	return NULL;
}

/* Has each row of it a record of one of these? */
static bool
covers(Query *query, Node *from, Bitmapset *sources)
{
	JoinExpr   *join = (JoinExpr *) from;
	ListCell   *lc;

	if (IsA(from, RangeTblRef))
		return bms_is_member(((RangeTblRef *) from)->rtindex, sources);
	if (IsA(from, FromExpr))
	{
		foreach(lc, ((FromExpr *) from)->fromlist)
			if (covers(query, lfirst(lc), sources))
				return true;
		return false;
	}
	if (!IsA(from, JoinExpr))
		return false;
	switch (join->jointype)
	{
		case JOIN_INNER:
			return covers(query, join->larg, sources) || covers(query, join->rarg, sources);
		case JOIN_LEFT:
			return covers(query, join->larg, sources);
		case JOIN_RIGHT:
			return covers(query, join->rarg, sources);
		case JOIN_FULL:
			return covers(query, join->larg, sources) && covers(query, join->rarg, sources);
		default:
			return false;
	}
}

/*---- bounds */

static Bound bound_of(Level *level, Node *node, Bitmapset **sources);

/* A column of a subquery's result; it must be the bound of each of its rows. */
static Bound
bound_of_output(Level *level, Query *query, AttrNumber attno, Bitmapset **sources, int rti)
{
	Level		below = {query, level};
	TargetEntry *tle = get_tle_by_resno(query->targetList, attno);
	Node	   *expr = tle ? (Node *) tle->expr : NULL;
	Bitmapset  *inside = NULL;
	Bound		bound;

	if (expr == NULL || query->setOperations)
		return NONE;
	/* LATERAL (SELECT l.window_start): of the relation beside it */
	if (IsA(expr, Var) && ((Var *) expr)->varlevelsup == 1 && query->rtable == NIL)
	{
		Var		   *var = copyObject((Var *) expr);

		var->varlevelsup = 0;
		return bound_of(level, (Node *) var, sources);
	}
	bound = bound_of(&below, expr, &inside);
	if (bound == NONE || !covers(query, (Node *) query->jointree, inside))
		return NONE;
	*sources = bms_add_member(*sources, rti);
	return bound;
}

/* Of the level itself; sources: the relations of its FROM that it is taken from. */
static Bound
bound_of(Level *level, Node *node, Bitmapset **sources)
{
	while (node && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	if (node == NULL)
		return NONE;
	if (IsA(node, CoalesceExpr))
	{
		Bound		all = NONE;
		ListCell   *lc;

		foreach(lc, ((CoalesceExpr *) node)->args)
		{
			Bound		one = bound_of(level, lfirst(lc), sources);

			if (one == NONE || (all != NONE && all != one))
				return NONE;
			all = one;
		}
		return all;
	}
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == 0 && ((Var *) node)->varattno > 0)
	{
		Var		   *var = (Var *) node;
		RangeTblEntry *rte = rt_fetch(var->varno, level->query->rtable);

		switch (rte->rtekind)
		{
			case RTE_JOIN:
				return bound_of(level, list_nth(rte->joinaliasvars, var->varattno - 1), sources);
			case RTE_SUBQUERY:
				return bound_of_output(level, rte->subquery, var->varattno, sources, var->varno);
			case RTE_CTE:
				if (is_records(rte))
				{
					const char *name = strVal(list_nth(rte->eref->colnames, var->varattno - 1));

					*sources = bms_add_member(*sources, var->varno);
					return strcmp(name, "window_start") == 0 ? START : strcmp(name, "window_end") == 0 ? END : NONE;
				}
				return NONE;
#if PG_VERSION_NUM >= 180000
			case RTE_GROUP:
				return bound_of(level, list_nth(rte->groupexprs, var->varattno - 1), sources);
#endif
			default:
				return NONE;
		}
	}
	return NONE;
}

/* An expression of the level that is a bound of each of its rows. */
static Bound
bound_of_rows(Level *level, Node *node)
{
	Bitmapset  *sources = NULL;
	Bound		bound = bound_of(level, node, &sources);

	return bound != NONE && covers(level->query, (Node *) level->query->jointree, sources) ? bound : NONE;
}

/*---- conditions */

typedef struct Equal
{
	Bound		bound;
	Bitmapset  *a;
	Bitmapset  *b;				/* NULL: of the row of the level around it */
} Equal;

static List *
equals_of(Level *level, Node *quals, List *equals)
{
	ListCell   *lc;
	OpExpr	   *op = (OpExpr *) quals;

	if (quals == NULL)
		return equals;
	if (IsA(quals, List) || (IsA(quals, BoolExpr) && ((BoolExpr *) quals)->boolop == AND_EXPR))
	{
		foreach(lc, IsA(quals, List) ? (List *) quals : ((BoolExpr *) quals)->args)
			equals = equals_of(level, lfirst(lc), equals);
		return equals;
	}
	if (!IsA(op, OpExpr) || list_length(op->args) != 2)
		return equals;
	set_opfuncid(op);
	if (op->opfuncid != F_TIMESTAMPTZ_EQ)
		return equals;
	for (int swap = 0; swap < 2; swap++)
	{
		Equal	   *e = palloc0(sizeof(Equal));
		Node	   *a = list_nth(op->args, swap);
		Node	   *b = list_nth(op->args, 1 - swap);

		e->bound = bound_of(level, a, &e->a);
		if (e->bound == NONE)
			continue;
		if (e->bound == bound_of(level, b, &e->b))
		{
			equals = lappend(equals, e);
			break;
		}
		if (IsA(b, Var) && ((Var *) b)->varlevelsup == 1 && level->up)
		{
			Var		   *outer = copyObject((Var *) b);

			outer->varlevelsup = 0;
			e->b = NULL;
			if (bound_of(level->up, (Node *) outer, &e->b) == e->bound)
			{
				e->b = NULL;
				equals = lappend(equals, e);
			}
		}
	}
	return equals;
}

/* Do the equalities tie the two sets, in both bounds? */
static bool
ties(List *equals, Bitmapset *a, Bitmapset *b)
{
	bool		found[3] = {false};
	ListCell   *lc;

	foreach(lc, equals)
	{
		Equal	   *e = lfirst(lc);

		if (e->b && ((bms_is_subset(e->a, a) && bms_is_subset(e->b, b)) || (bms_is_subset(e->a, b) && bms_is_subset(e->b, a))))
			found[e->bound] = true;
	}
	return found[START] && found[END];
}

/* Each join of FROM; above: equalities that hold of what passes. */
static void
check_joins(Check *check, Level *level, Node *from, List *above)
{
	if (IsA(from, FromExpr))
	{
		FromExpr   *f = (FromExpr *) from;
		List	   *here = equals_of(level, f->quals, list_copy(above));
		Bitmapset  *before = NULL;
		List	   *rest = NIL;
		ListCell   *lc;

		foreach(lc, f->fromlist)
		{
			check_joins(check, level, lfirst(lc), here);
			if (sources_below(level->query, lfirst(lc)))
				rest = lappend(rest, sources_below(level->query, lfirst(lc)));
		}
		/* in any order */
		while (rest)
		{
			bool		found = false;

			foreach(lc, rest)
			{
				Bitmapset  *one = lfirst(lc);

				if (before && !ties(here, before, one))
					continue;
				before = bms_union(before, one);
				rest = list_delete_ptr(rest, one);
				found = true;
				break;
			}
			if (!found)
				refuse_condition(check, exprLocation(f->quals));
		}
	}
	else if (IsA(from, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) from;
		List	   *own = equals_of(level, join->quals, NIL);
		bool		inner = join->jointype == JOIN_INNER;
		Bitmapset  *left = sources_below(level->query, join->larg);
		Bitmapset  *right = sources_below(level->query, join->rarg);
		List	   *here = inner ? list_concat(list_copy(above), own) : own;

		check_joins(check, level, join->larg, inner || join->jointype == JOIN_LEFT ? list_concat(list_copy(above), inner ? own : NIL) : NIL);
		check_joins(check, level, join->rarg, inner || join->jointype == JOIN_RIGHT ? list_concat(list_copy(above), inner ? own : NIL) : NIL);
		if (left && right && !ties(here, left, right))
			refuse_condition(check, exprLocation(join->quals));
	}
}

/* Is the level bound to the row of the one around it? */
static bool
is_tied_to_outer(Level *level)
{
	bool		found[3] = {false};
	ListCell   *lc;

	foreach(lc, equals_of(level, level->query->jointree->quals, NIL))
	{
		Equal	   *e = lfirst(lc);

		if (e->b == NULL && covers(level->query, (Node *) level->query->jointree, e->a))
			found[e->bound] = true;
	}
	return found[START] && found[END];
}

/*---- what looks at several rows */

static bool
keys_name_bounds(Level *level, List *keys)
{
	bool		found[3] = {false};
	ListCell   *lc;

	foreach(lc, keys)
		found[bound_of_rows(level, lfirst(lc))] = true;
	return found[START] && found[END];
}

static List *
expressions_of(Query *query, List *clauses)
{
	List	   *keys = NIL;
	ListCell   *lc;

	foreach(lc, clauses)
		keys = lappend(keys, get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), query->targetList)->expr);
	return keys;
}

static void
check_grouping(Check *check, Level *level)
{
	Query	   *query = level->query;
	static const char *const hint = "GROUP BY l.window_start, l.window_end, ...; of a FULL JOIN, COALESCE (l.window_start, r.window_start) and the same of window_end.";
	ListCell   *lc,
			   *lr;

	if (query->groupingSets)
	{
		foreach(lc, expand_grouping_sets(query->groupingSets, query->groupDistinct, -1))
		{
			List	   *keys = NIL;

			foreach(lr, lfirst(lc))
				keys = lappend(keys, get_sortgroupref_tle(lfirst_int(lr), query->targetList)->expr);
			if (!keys_name_bounds(level, keys))
				refuse(check, "A grouping set does not have the bounds of the window.",
					   "GROUP BY l.window_start, l.window_end, GROUPING SETS (...).", -1);
		}
	}
	else if ((query->hasAggs || query->groupClause || query->havingQual) &&
			 !keys_name_bounds(level, expressions_of(query, query->groupClause)))
		refuse(check, "An aggregate is not grouped by the bounds of the window.", hint, -1);
	foreach(lc, query->windowClause)
	{
		WindowClause *wc = lfirst_node(WindowClause, lc);

		if (!keys_name_bounds(level, expressions_of(query, wc->partitionClause)))
			refuse(check, "A window function looks at the rows of several windows.",
				   "PARTITION BY l.window_start, l.window_end, ...", -1);
	}
}

/*---- levels */

static void check_level(Check *check, Level *level, bool tied);

typedef struct ExpressionContext
{
	Check	   *check;
	Level	   *level;
} ExpressionContext;

static bool
holds_records_walker(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		if (has_records((Query *) node))
			return true;
		return query_tree_walker((Query *) node, holds_records_walker, arg, 0);
	}
	return expression_tree_walker(node, holds_records_walker, arg);
}

static bool
expression_walker(Node *node, void *arg)
{
	ExpressionContext *cxt = arg;

	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
	{
		SubLink    *link = (SubLink *) node;
		Level		below = {(Query *) link->subselect, cxt->level};

		if (holds_records_walker(link->subselect, NULL))
		{
			if (below.query->setOperations || !has_records(below.query) || !has_records(cxt->level->query) ||
				!is_tied_to_outer(&below))
				refuse(cxt->check, "A subquery does not say that its rows are of the same window.",
					   "WHERE l.k IN (SELECT r.k FROM (...) r WHERE r.window_start = l.window_start AND r.window_end = l.window_end).",
					   link->location);
			check_level(cxt->check, &below, true);
		}
		return expression_walker(link->testexpr, cxt);
	}
	if (IsA(node, Query))
		return false;
	return expression_tree_walker(node, expression_walker, cxt);
}

/* tied: all of its rows are of one window. */
static void
check_level(Check *check, Level *level, bool tied)
{
	Query	   *query = level->query;
	ExpressionContext cxt = {check, level};
	Bitmapset  *sources = sources_below(query, (Node *) query->jointree);
	ListCell   *lc;

	check_stack_depth();
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		Level		below = {rte->subquery, level};

		if (rte->rtekind == RTE_SUBQUERY && is_source(rte))
			check_level(check, &below, false);
	}
	if (sources)
	{
		if (!covers(query, (Node *) query->jointree, sources))
			refuse(check, "An outer join gives rows that are in no window.",
				   "Put what has a window on the preserved side: l LEFT JOIN table.", -1);
		if (check->as_written)
			check_joins(check, level, (Node *) query->jointree, NIL);
		if (check->as_written && !tied)
			check_grouping(check, level);
	}
	(void) expression_walker((Node *) query->targetList, &cxt);
	(void) expression_walker((Node *) query->jointree, &cxt);
	(void) expression_walker(query->havingQual, &cxt);
}

void
kda_check_same_window(ParseState *pstate, Query *top, bool as_written)
{
	Check		check = {pstate, as_written};
	Level		level = {top, NULL};

	check_level(&check, &level, false);
}
