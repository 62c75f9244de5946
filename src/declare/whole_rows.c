/*-------------------------------------------------------------------------
 *
 * whole_rows.c
 *	  References to whole rows of FROM items that have columns of ours: s of
 *	  FROM (SELECT ...) s, and s.* inside ROW (...).
 *
 * Subqueries carry the record's place, sides of joins their times, to the
 * SELECT around them.  PostgreSQL would show these as columns of the row.  So
 * a whole row becomes ROW (its columns but ours).  A side of a join by window,
 * of which an outer join makes NULL, becomes NULL then as well; a joined
 * stream's row cannot, its columns only: it is refused.
 *
 * In the session that declares the query, on the analysed tree.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/pg_type.h"
#include "declare/compose.h"
#include "declare/from.h"
#include "declare/split.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"

typedef struct WholeRows
{
	ParseState *pstate;
	List	   *queries;		/* Query: the innermost first */
	bool		all;			/* of items of the outermost, whether or not they have columns of ours */
	bool		null_test;		/* below IS [NOT] NULL, which looks at the columns */
	bool		found;
} WholeRows;

static bool
is_ours(const char *name)
{
	return strcmp(name, KDA_ROW_COLUMN) == 0 || strcmp(name, KDA_TIME_COLUMN) == 0 || strcmp(name, KDA_PARTS_COLUMN) == 0 ||
		strcmp(name, KDA_NO_ROW_COLUMN) == 0 || kda_is_side_column(name);
}

/* The FROM item whose row or column that is; NULL: columns of ours are in subqueries and joins of them only. */
static RangeTblEntry *
item_of(WholeRows *cxt, Var *var)
{
	RangeTblEntry *rte;

	if ((int) var->varlevelsup >= list_length(cxt->queries) || IS_SPECIAL_VARNO(var->varno))
		return NULL;
	rte = rt_fetch(var->varno, list_nth_node(Query, cxt->queries, var->varlevelsup)->rtable);
	return rte->rtekind == RTE_SUBQUERY || rte->rtekind == RTE_JOIN ? rte : NULL;
}

/* Of a column of ours its name, else NULL. */
static const char *
column_of_ours(WholeRows *cxt, Node *node)
{
	Var		   *var = (Var *) node;
	RangeTblEntry *rte = IsA(node, Var) && var->varattno > 0 ? item_of(cxt, var) : NULL;
	const char *name = rte ? strVal(list_nth(rte->eref->colnames, var->varattno - 1)) : NULL;

	return name && is_ours(name) ? name : NULL;
}

/* Has the row columns of ours?  Which of them says what may be done with it? */
static const char *
mark_of(WholeRows *cxt, Var *var, RangeTblEntry *rte)
{
	const char *mark = cxt->all && (int) var->varlevelsup == list_length(cxt->queries) - 1 ? "" : NULL;
	ListCell   *lc;

	foreach(lc, rte->eref->colnames)
	{
		const char *name = strVal(lfirst(lc));

		if (is_ours(name) && (mark == NULL || mark[0] == '\0' || strcmp(name, KDA_PARTS_COLUMN) == 0 || strcmp(name, KDA_NO_ROW_COLUMN) == 0))
			mark = name;
	}
	return mark;
}

static bool
find_walker(Node *node, void *arg)
{
	WholeRows  *cxt = arg;
	bool		found;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		cxt->queries = lcons(node, cxt->queries);
		found = query_tree_walker((Query *) node, find_walker, cxt, 0);
		cxt->queries = list_delete_first(cxt->queries);
		return found;
	}
	if (IsA(node, Var))
	{
		RangeTblEntry *rte = item_of(cxt, (Var *) node);

		return rte && ((Var *) node)->varattno == 0 && mark_of(cxt, (Var *) node, rte);
	}
	if (IsA(node, RowExpr))
	{
		ListCell   *lc;

		foreach(lc, ((RowExpr *) node)->args)
			if (column_of_ours(cxt, lfirst(lc)))
				return true;
	}
	return expression_tree_walker(node, find_walker, cxt);
}

static void
refuse(WholeRows *cxt, RangeTblEntry *rte, int location)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("\"%s\" cannot be used as a whole row here", rte->eref->aliasname),
			 errdetail("Of streams that are joined, columns are known, not rows: an outer join would make it NULL, or its columns have been given other names."),
			 errhint("Name its columns: %s.%s, ....", rte->eref->aliasname, strVal(linitial(rte->eref->colnames))),
			 parser_errposition(cxt->pstate, location)));
}

/* ROW (columns); NULL where the side's row is none. */
static Node *
row_of(WholeRows *cxt, Var *var, RangeTblEntry *rte)
{
	RowExpr    *row = makeNode(RowExpr);
	const char *mark = mark_of(cxt, var, rte);
	Node	   *there = NULL;
	List	   *names;
	List	   *vars;
	ListCell   *ln,
			   *lv;

	if (strcmp(mark, KDA_NO_ROW_COLUMN) == 0 || (strcmp(mark, KDA_PARTS_COLUMN) == 0 && !cxt->null_test))
		refuse(cxt, rte, var->location);
	row->row_typeid = RECORDOID;
	row->row_format = COERCE_IMPLICIT_CAST;
	row->location = var->location;
	kda_expand_rte(rte, var->varno, var->varlevelsup, &names, &vars);
	forboth(ln, names, lv, vars)
	{
		const char *name = strVal(lfirst(ln));

#if PG_VERSION_NUM >= 160000
		/* the outer joins that make NULL of it */
		lfirst_node(Var, lv)->varnullingrels = bms_copy(var->varnullingrels);
#endif
		if (kda_is_side_column(name))
			there = lfirst(lv);
		if (is_ours(name))
			continue;
		row->args = lappend(row->args, lfirst(lv));
		row->colnames = lappend(row->colnames, lfirst(ln));
	}
	if (there && rte->rtekind == RTE_SUBQUERY && !cxt->null_test)
	{
		CaseExpr   *either = makeNode(CaseExpr);
		CaseWhen   *when = makeNode(CaseWhen);
		NullTest   *test = makeNode(NullTest);

		test->arg = (Expr *) there;
		test->nulltesttype = IS_NOT_NULL;
		test->location = when->location = either->location = -1;
		when->expr = (Expr *) test;
		when->result = (Expr *) row;
		either->casetype = RECORDOID;
		either->args = list_make1(when);
		either->defresult = (Expr *) makeNullConst(RECORDOID, -1, InvalidOid);
		return (Node *) either;
	}
	return (Node *) row;
}

static Node *
replace_mutator(Node *node, void *arg)
{
	WholeRows  *cxt = arg;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		cxt->queries = lcons(node, cxt->queries);
		/* others point to it */
		node = (Node *) query_tree_mutator((Query *) node, replace_mutator, cxt, QTW_DONT_COPY_QUERY);
		cxt->queries = list_delete_first(cxt->queries);
		return node;
	}
	if (IsA(node, Var))
	{
		RangeTblEntry *rte = item_of(cxt, (Var *) node);

		if (rte && ((Var *) node)->varattno == 0 && mark_of(cxt, (Var *) node, rte))
			return row_of(cxt, (Var *) node, rte);
	}
	if (IsA(node, NullTest) && ((NullTest *) node)->argisrow && IsA(((NullTest *) node)->arg, Var))
	{
		NullTest   *test = copyObject((NullTest *) node);

		cxt->null_test = true;
		test->arg = (Expr *) replace_mutator((Node *) test->arg, cxt);
		cxt->null_test = false;
		return (Node *) test;
	}
	node = expression_tree_mutator(node, replace_mutator, cxt);
	if (IsA(node, RowExpr))
	{
		RowExpr    *row = (RowExpr *) node;
		List	   *args = NIL;
		List	   *names = NIL;
		ListCell   *lc;

		foreach(lc, row->args)
		{
			const char *ours = column_of_ours(cxt, lfirst(lc));

			if (ours && strcmp(ours, KDA_NO_ROW_COLUMN) == 0)
				refuse(cxt, item_of(cxt, lfirst(lc)), row->location);
			if (ours)
				continue;
			args = lappend(args, lfirst(lc));
			if (row->row_typeid == RECORDOID && row->colnames)
				names = lappend(names, makeString(psprintf("f%d", list_length(args))));
		}
		if (list_length(args) < list_length(row->args))
		{
			row->args = args;
			row->colnames = names;
		}
	}
	return node;
}

void
kda_settle_whole_rows(ParseState *pstate, Query *query, bool all)
{
	WholeRows	cxt = {pstate};

	cxt.all = all;
	if (find_walker((Node *) query, &cxt))
		(void) replace_mutator((Node *) query, &cxt);
}
