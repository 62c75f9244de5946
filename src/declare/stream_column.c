/*-------------------------------------------------------------------------
 *
 * stream_column.c
 *	  Which column of the stream, or its time, an expression hands on; and
 *	  whether "rowtime" of a subquery is an ordinary column.
 *
 * Runs in the session that declares the query, on analysed trees.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/options.h"
#include "catalog/pg_type.h"
#include "declare/from.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parsetree.h"

/* kda.rowtime(place in the batch) */
static bool
is_kda_rowtime(Node *expr)
{
	return IsA(expr, FuncExpr) && list_length(((FuncExpr *) expr)->args) == 1 &&
		exprType(linitial(((FuncExpr *) expr)->args)) == TIDOID && exprType(expr) == TIMESTAMPTZOID;
}

Node *
kda_stream_origin(List **queries, Node *expr)
{
	while (expr && IsA(expr, Var) && (int) ((Var *) expr)->varlevelsup < list_length(*queries) && ((Var *) expr)->varattno > 0)
	{
		Var		   *var = (Var *) expr;
		RangeTblEntry *rte;

		/* what a join gives stands in LATERAL subqueries */
		*queries = list_copy_tail(*queries, var->varlevelsup);
		rte = rt_fetch(var->varno, linitial_node(Query, *queries)->rtable);
		if (rte->rtekind == RTE_SUBQUERY && !kda_is_stand_in(rte) && rte->subquery->setOperations == NULL)
		{
			*queries = lcons(rte->subquery, *queries);
			expr = (Node *) get_tle_by_resno(rte->subquery->targetList, var->varattno)->expr;
		}
		else if (rte->rtekind == RTE_JOIN)
			expr = list_nth(rte->joinaliasvars, var->varattno - 1);
#if PG_VERSION_NUM >= 180000
		else if (rte->rtekind == RTE_GROUP)
			expr = list_nth(rte->groupexprs, var->varattno - 1);
#endif
		else
		{
			/* at its own level */
			var = copyObject(var);
			var->varlevelsup = 0;
			return (Node *) var;
		}
	}
	return expr;
}

Node *
kda_stream_column(List *queries, Node *expr, Oid stream)
{
	Node	   *origin = kda_stream_origin(&queries, expr);
	Var		   *var = (Var *) origin;
	RangeTblEntry *rte;

	if (origin && is_kda_rowtime(origin))
		return origin;
	if (origin == NULL || !IsA(origin, Var) || var->varlevelsup != 0 || var->varattno <= 0)
		return NULL;
	rte = rt_fetch(var->varno, linitial_node(Query, queries)->rtable);
	return (rte->rtekind == RTE_RELATION && rte->relid == stream) || (rte->rtekind == RTE_SUBQUERY && kda_is_stand_in(rte)) ?
		origin : NULL;
}

const char *
kda_hides_time(Query *query, Oid stream)
{
	AttrNumber	rowtime = kda_stream_options_get(stream)->rowtime_attno;
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Node	   *column;

		if (tle->resjunk || pg_strcasecmp(tle->resname, "rowtime") != 0)
			continue;
		column = kda_stream_column(list_make1(query), (Node *) tle->expr, stream);
		if (column == NULL || (IsA(column, Var) && ((Var *) column)->varattno != rowtime))
			return tle->resname;
	}
	return NULL;
}

/* The item of that name. */
static Node *
find_item(Node *item, const char *name)
{
	if (IsA(item, JoinExpr))
	{
		Node	   *found = find_item(((JoinExpr *) item)->larg, name);

		return found ? found : find_item(((JoinExpr *) item)->rarg, name);
	}
	return IsA(item, RangeSubselect) && ((RangeSubselect *) item)->alias &&
		strcmp(((RangeSubselect *) item)->alias->aliasname, name) == 0 ? item : NULL;
}

const char *
kda_from_hides_time(KdaFrom *from, SelectStmt *select, const char *source_text)
{
	Node	   *item = NULL;
	SelectStmt *all;
	RawStmt    *raw;
	ListCell   *lc;

	foreach(lc, select->fromClause)
		if (item == NULL)
			item = find_item(lfirst(lc), from->name);
	if (item == NULL || strcmp(from->row_column, "ctid") == 0)
		return NULL;
	all = makeNode(SelectStmt);
	all->targetList = list_make1(kda_raw_star(NULL));
	all->fromClause = list_make1(copyObject(item));
	all->withClause = kda_with(from->around, select->withClause);
	raw = makeNode(RawStmt);
	raw->stmt = (Node *) all;
	return kda_hides_time(parse_analyze_fixedparams(raw, source_text, NULL, 0, NULL), from->relid);
}
