/*-------------------------------------------------------------------------
 *
 * window_leaves.c
 *	  Finds joins of streams by window, and set operations inside one: which
 *	  SELECTs have the window, and which item of their FROM is the stream's.
 *
 * Names and places only: whether the windows are the same, and the conditions
 * say so, is checked later.  In the session that declares the query, on the raw
 * tree.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "declare/from.h"
#include "declare/window_join.h"
#include "dialect/adhoc.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"

/*---- what is joined */

/* Items of FROM that have a stream. */
static void
items_of(Node *item, bool nullable, List **items, List **nullables)
{
	if (IsA(item, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) item;

		items_of(join->larg, nullable || join->jointype == JOIN_RIGHT || join->jointype == JOIN_FULL, items, nullables);
		items_of(join->rarg, nullable || join->jointype == JOIN_LEFT || join->jointype == JOIN_FULL, items, nullables);
	}
	else if ((IsA(item, RangeVar) || IsA(item, RangeSubselect)) && kda_raw_has_stream(item))
	{
		*items = lappend(*items, item);
		*nullables = lappend_int(*nullables, nullable);
	}
}

static void
items_of_select(SelectStmt *select, List **items, List **nullables)
{
	ListCell   *lc;

	foreach(lc, select->fromClause)
		items_of(lfirst(lc), false, items, nullables);
}

static bool
sublinks_walker(Node *node, void *arg)
{
	List	  **found = arg;

	if (node == NULL)
		return false;
	if (IsA(node, SubLink) && kda_raw_has_stream(((SubLink *) node)->subselect))
		*found = lappend(*found, ((SubLink *) node)->subselect);
	if (IsA(node, SelectStmt))
		return false;
	return raw_expression_tree_walker(node, sublinks_walker, found);
}

/* Subqueries over streams in the SELECT's expressions. */
static List *
sublinks_of(SelectStmt *select)
{
	List	   *found = NIL;

	(void) sublinks_walker(select->whereClause, &found);
	(void) sublinks_walker((Node *) select->targetList, &found);
	(void) sublinks_walker(select->havingClause, &found);
	return found;
}

static void
add_leaf(KdaWindowJoin *j, SelectStmt *select, int outer_location, KdaWindowClause *window, Node *item, bool nullable)
{
	KdaJoinLeaf	   *leaf = palloc0(sizeof(KdaJoinLeaf));

	leaf->select = select;
	leaf->outer_location = outer_location;
	leaf->window = window;
	leaf->item = item;
	leaf->nullable = nullable;
	leaf->number = list_length(j->leaves) + 1;
	j->leaves = lappend(j->leaves, leaf);
}

/* Flink's form: the SELECTs with a window below this one; false: some stream has none. */
static bool
collect(KdaWindowJoin *j, SelectStmt *select, int outer_location)
{
	KdaWindowClause *window;
	List	   *items = NIL;
	List	   *nullables = NIL;
	List	   *sublinks;
	int			location = kda_select_location(select);
	ListCell   *lc;

	check_stack_depth();
	if (select->op != SETOP_NONE)
		return false;
	window = kda_select_window(j->c->spec, select, outer_location);
	items_of_select(select, &items, &nullables);
	sublinks = sublinks_of(select);
	if (window)
	{
		if (list_length(items) != 1 || sublinks)
			return false;
		/* a window over the result of another, or of an aggregate, is none of records */
		if (IsA(linitial(items), RangeSubselect) &&
			!kda_select_is_simple(j->c->spec, (SelectStmt *) linitial_node(RangeSubselect, items)->subquery, location))
			return false;
		add_leaf(j, select, outer_location, window, linitial(items), linitial_int(nullables));
		return true;
	}
	foreach(lc, items)
		if (!IsA(lfirst(lc), RangeSubselect) ||
			!collect(j, (SelectStmt *) lfirst_node(RangeSubselect, lc)->subquery, location))
			return false;
	foreach(lc, sublinks)
	{
		int			before = list_length(j->leaves);

		if (!collect(j, lfirst(lc), location))
			return false;
		for (int i = before; i < list_length(j->leaves); i++)
			((KdaJoinLeaf *) list_nth(j->leaves, i))->sublink = true;
	}
	return items != NIL;
}

/* Do conditions of the join speak of bounds of windows? */
static bool
conditions_name_bounds(Node *item)
{
	JoinExpr   *join = (JoinExpr *) item;
	ListCell   *lc;

	if (!IsA(item, JoinExpr))
		return false;
	foreach(lc, join->usingClause)
		if (strcmp(strVal(lfirst(lc)), "window_start") == 0 || strcmp(strVal(lfirst(lc)), "window_end") == 0)
			return true;
	return join->isNatural || kda_names_windows(join->quals) || conditions_name_bounds(join->larg) ||
		conditions_name_bounds(join->rarg);
}

static bool
names_bounds(SelectStmt *select)
{
	ListCell   *lc;

	foreach(lc, select->fromClause)
		if (conditions_name_bounds(lfirst(lc)))
			return true;
	if (kda_names_windows(select->whereClause))
		return true;
	foreach(lc, sublinks_of(select))
		if (kda_names_windows(lfirst(lc)))
			return true;
	return false;
}

/* TABLE (TUMBLE (…)) AS l beside others: (SELECT * FROM TABLE (TUMBLE (…))) AS l. */
static Node *
wrap_tables(KdaWindowJoin *j, Node *item)
{
	SelectStmt *one = makeNode(SelectStmt);

	if (IsA(item, JoinExpr))
	{
		((JoinExpr *) item)->larg = wrap_tables(j, ((JoinExpr *) item)->larg);
		((JoinExpr *) item)->rarg = wrap_tables(j, ((JoinExpr *) item)->rarg);
		return item;
	}
	one->fromClause = list_make1(item);
	if (IsA(item, RangeVar) && kda_select_window(j->c->spec, one, -1))
	{
		RangeVar   *rv = (RangeVar *) item;
		RangeSubselect *sub = makeNode(RangeSubselect);
		ColumnRef  *star = makeNode(ColumnRef);
		ResTarget  *rt = makeNode(ResTarget);

		star->fields = list_make1(makeNode(A_Star));
		star->location = rt->location = rv->location;
		rt->val = (Node *) star;
		one->targetList = list_make1(rt);
		sub->subquery = (Node *) one;
		sub->alias = rv->alias ? rv->alias : makeAlias(rv->relname, NIL);
		rv->alias = NULL;
		return (Node *) sub;
	}
	return item;
}

typedef struct TimesContext
{
	List	   *leaves;
	const KdaJoinLeaf *first;			/* whose time is named */
	bool		several;
} TimesContext;

static bool
times_walker(Node *node, void *arg)
{
	TimesContext *cxt = arg;

	ListCell   *lc;

	if (node == NULL || IsA(node, SubLink))
		return false;
	if (IsA(node, ColumnRef))
	{
		foreach(lc, cxt->leaves)
			if (list_length(((ColumnRef *) node)->fields) == 2 &&
				kda_from_names_time(node, list_make1(((KdaJoinLeaf *) lfirst(lc))->item)))
			{
				cxt->several |= cxt->first && cxt->first != lfirst(lc);
				cxt->first = lfirst(lc);
			}
		return false;
	}
	return raw_expression_tree_walker(node, times_walker, cxt);
}

/* Does one condition speak of the times of two of them? */
static bool
condition_on_times(List *leaves, Node *quals)
{
	TimesContext cxt = {leaves, NULL, false};
	ListCell   *lc;

	if (quals == NULL)
		return false;
	if (IsA(quals, BoolExpr) && ((BoolExpr *) quals)->boolop == AND_EXPR)
	{
		foreach(lc, ((BoolExpr *) quals)->args)
			if (condition_on_times(leaves, lfirst(lc)))
				return true;
		return false;
	}
	(void) times_walker(quals, &cxt);
	return cxt.several;
}

/* USING (rowtime): is the column the time of something on both sides? */
static bool
using_times(JoinExpr *join)
{
	ListCell   *lc;

	foreach(lc, join->usingClause)
	{
		ColumnRef  *column = makeNode(ColumnRef);

		column->fields = list_make1(lfirst(lc));
		column->location = -1;
		if (kda_from_names_time((Node *) column, list_make1(join->larg)) &&
			kda_from_names_time((Node *) column, list_make1(join->rarg)))
			return true;
	}
	return false;
}

static bool
join_on_times(List *leaves, Node *item)
{
	JoinExpr   *join = (JoinExpr *) item;

	return IsA(item, JoinExpr) && (condition_on_times(leaves, join->quals) || using_times(join) ||
								   join_on_times(leaves, join->larg) || join_on_times(leaves, join->rarg));
}

bool
kda_window_join_find(KdaWindowJoin *j, SelectStmt *select, int outer_location)
{
	KdaWindowClause *window = NULL;
	List	   *items = NIL;
	List	   *nullables = NIL;
	List	   *sublinks;
	ListCell   *lc;

	if (select->op != SETOP_NONE)
		return false;
	items_of_select(select, &items, &nullables);
	sublinks = sublinks_of(select);
	if (list_length(items) + list_length(sublinks) < 2 || items == NIL)
		return false;
	if (list_length(items) > 1)
	{
		foreach(lc, select->fromClause)
			lfirst(lc) = wrap_tables(j, lfirst(lc));
		items = nullables = NIL;
		items_of_select(select, &items, &nullables);
	}
	window = kda_select_window(j->c->spec, select, outer_location);
	if (window == NULL)
	{
		return names_bounds(select) && collect(j, select, outer_location);
	}
	/* ours; a window that is a key of GROUP BY is of one stream's time */
	j->ours = true;
	if (window->in_from || window->key || list_length(items) < 2)
		return false;
	foreach(lc, items)
		add_leaf(j, select, outer_location, window, lfirst(lc), list_nth_int(nullables, foreach_current_index(lc)));
	if (condition_on_times(j->leaves, select->whereClause))
		return false;
	foreach(lc, select->fromClause)
		if (join_on_times(j->leaves, lfirst(lc)))
			return false;
	return true;
}

/*---- branches of a set operation */

bool
kda_window_join_branches(KdaWindowJoin *j, SelectStmt *select, int outer_location, bool may_be_table)
{
	KdaWindowClause *window;
	List	   *items = NIL;
	List	   *nullables = NIL;

	check_stack_depth();
	if (select->op != SETOP_NONE)
		return kda_window_join_branches(j, select->larg, outer_location, may_be_table) &&
			kda_window_join_branches(j, select->rarg, outer_location, may_be_table || select->op != SETOP_UNION);
	if (!kda_raw_has_stream((Node *) select))
		return may_be_table;
	window = kda_select_window(j->c->spec, select, outer_location);
	items_of_select(select, &items, &nullables);
	if (window == NULL || list_length(items) != 1 || sublinks_of(select) ||
		(IsA(linitial(items), RangeSubselect) &&
		 !kda_select_is_simple(j->c->spec, (SelectStmt *) linitial_node(RangeSubselect, items)->subquery,
							   kda_select_location(select))))
		return false;
	add_leaf(j, select, outer_location, window, linitial(items), linitial_int(nullables));
	return true;
}
