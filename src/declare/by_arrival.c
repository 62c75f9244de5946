/*-------------------------------------------------------------------------
 *
 * by_arrival.c
 *	  Aggregates over kept rows whose result depends on the order of the rows
 *	  (array_agg, string_agg, json_agg and those that users have defined) take
 *	  them as they came.
 *
 * The rows stand in their table in whatever order room was found for them, and
 * are read by an index on their time, or sorted by keys.  So such an aggregate,
 * if it has no ORDER BY or DISTINCT of its own, gets ORDER BY the row's number.
 * Where it stands in a level above the one that reads the rows, those between
 * show the number as a further column, as long as their rows are still those of
 * the table; then nothing else says in which order they come.
 *
 * Called while a query is declared.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/transam.h"
#include "catalog/pg_aggregate.h"
#include "declare/split.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_oper.h"
#include "query/agg_signature.h"
#include "rewrite/rewriteManip.h"

#define NUMBER_COLUMN	"kda_seq"

static bool
depends_on_order(const Aggref *agg)
{
	return agg->aggkind == AGGKIND_NORMAL && agg->aggorder == NIL && agg->aggdistinct == NIL && agg->args != NIL &&
		(agg->aggfnoid >= FirstNormalObjectId || kda_agg_shows_order(agg));
}

static bool
any_walker(Node *node, void *cxt)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, any_walker, cxt, 0);
	if (IsA(node, Aggref) && depends_on_order((Aggref *) node))
		return true;
	return expression_tree_walker(node, any_walker, cxt);
}

typedef struct LevelContext
{
	Var		   *number;			/* of the level's row */
	int			depth;			/* below it */
	bool		found;
} LevelContext;

/* Aggregates of the level, also those that stand in its subqueries. */
static Node *
order_mutator(Node *node, void *arg)
{
	LevelContext *cxt = arg;
	Node	   *result;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		cxt->depth++;
		result = (Node *) query_tree_mutator((Query *) node, order_mutator, (void *) cxt, 0);
		cxt->depth--;
		return result;
	}
	result = expression_tree_mutator(node, order_mutator, (void *) cxt);
	if (IsA(node, Aggref) && (int) ((Aggref *) node)->agglevelsup == cxt->depth && depends_on_order((Aggref *) node))
	{
		Aggref	   *agg = (Aggref *) result;
		Var		   *number = copyObject(cxt->number);
		TargetEntry *key = makeTargetEntry((Expr *) number, list_length(agg->args) + 1, NULL, true);
		SortGroupClause *sgc = makeNode(SortGroupClause);

		number->varlevelsup = cxt->depth;
		key->ressortgroupref = sgc->tleSortGroupRef = 1;
		get_sort_group_operators(number->vartype, true, true, false, &sgc->sortop, &sgc->eqop, NULL, &sgc->hashable);
		agg->args = lappend(agg->args, key);
		agg->aggorder = list_make1(sgc);
	}
	return result;
}

/* Is the row as a whole named, which another column would change? */
static bool
whole_row_walker(Node *node, void *arg)
{
	LevelContext *cxt = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varno == cxt->number->varno && ((Var *) node)->varattno == InvalidAttrNumber &&
			(int) ((Var *) node)->varlevelsup == cxt->depth;
	if (IsA(node, Query))
	{
		bool		found;

		cxt->depth++;
		found = query_tree_walker((Query *) node, whole_row_walker, cxt, 0);
		cxt->depth--;
		return found;
	}
	return expression_tree_walker(node, whole_row_walker, cxt);
}

static bool
names_whole_row(Query *query, int rti)
{
	LevelContext cxt = {makeVar(rti, InvalidAttrNumber, InvalidOid, -1, InvalidOid, 0)};

	return query_tree_walker(query, whole_row_walker, &cxt, 0);
}

static bool
gives_rows_of_table(const Query *query)
{
	return !query->hasAggs && query->groupClause == NIL && query->groupingSets == NIL && query->distinctClause == NIL &&
		!query->hasTargetSRFs && query->setOperations == NULL;
}

/* Columns that only sort stay behind those that are seen. */
static AttrNumber
show_number(Query *query, Var *number)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, query->targetList)
		if (lfirst_node(TargetEntry, lc)->resjunk)
			lfirst_node(TargetEntry, lc)->resno++;
		else
			n++;
	query->targetList = list_insert_nth(query->targetList, n,
										makeTargetEntry((Expr *) copyObject(number), n + 1, pstrdup(NUMBER_COLUMN), false));
	return n + 1;
}

/* show: as a column of the level.  Returns which one that is, 0: it has none. */
static AttrNumber
order_level(Query *query, Oid table, AttrNumber seq, bool show)
{
	LevelContext cxt = {0};
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		int			rti = foreach_current_index(lc) + 1;
		AttrNumber	attno = InvalidAttrNumber;

		if (rte->rtekind == RTE_RELATION && rte->relid == table)
			attno = seq;
		else if (rte->rtekind == RTE_SUBQUERY)
		{
			attno = order_level(rte->subquery, table, seq, !names_whole_row(query, rti));
			if (attno)
				rte->eref->colnames = lappend(rte->eref->colnames, makeString(pstrdup(NUMBER_COLUMN)));
		}
		if (attno)
			cxt.number = makeVar(rti, attno, INT8OID, -1, InvalidOid, 0);
	}
	if (cxt.number == NULL)
		return InvalidAttrNumber;
	query->targetList = (List *) order_mutator((Node *) query->targetList, &cxt);
	query->havingQual = order_mutator(query->havingQual, &cxt);
	return show && gives_rows_of_table(query) ? show_number(query, cxt.number) : InvalidAttrNumber;
}

void
kda_split_by_arrival(Query *query, Oid table, AttrNumber seq)
{
	if (any_walker((Node *) query, NULL))
		(void) order_level(query, table, seq, false);
}
