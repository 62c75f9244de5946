/*-------------------------------------------------------------------------
 *
 * with.c
 *	  WITH: queries that read streams stand where they are named, as subqueries
 *	  do; those over tables go into every part of the query that may name them.
 *
 * Runs in the session that declares the query, on the raw tree.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "declare/from.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"

/*---- over streams */

typedef struct InlineContext
{
	CommonTableExpr *cte;
} InlineContext;

static bool inline_walker(Node *node, void *arg);

static Node *
inline_item(Node *item, InlineContext *cxt)
{
	RangeVar   *rv = (RangeVar *) item;

	if (IsA(item, JoinExpr))
	{
		((JoinExpr *) item)->larg = inline_item(((JoinExpr *) item)->larg, cxt);
		((JoinExpr *) item)->rarg = inline_item(((JoinExpr *) item)->rarg, cxt);
	}
	else if (IsA(item, RangeVar) && rv->schemaname == NULL && strcmp(rv->relname, cxt->cte->ctename) == 0)
	{
		RangeSubselect *sub = makeNode(RangeSubselect);

		sub->subquery = copyObject(cxt->cte->ctequery);
		sub->alias = rv->alias ? copyObject(rv->alias) : makeAlias(cxt->cte->ctename, NIL);
		if (sub->alias->colnames == NIL)
			sub->alias->colnames = copyObject(cxt->cte->aliascolnames);
		return (Node *) sub;
	}
	return item;
}

static bool
defines(WithClause *with, const char *name)
{
	ListCell   *lc;

	if (with)
		foreach(lc, with->ctes)
			if (strcmp(lfirst_node(CommonTableExpr, lc)->ctename, name) == 0)
				return true;
	return false;
}

static bool
inline_walker(Node *node, void *arg)
{
	InlineContext *cxt = arg;
	ListCell   *lc;

	if (node == NULL)
		return false;
	if (IsA(node, SelectStmt))
	{
		SelectStmt *select = (SelectStmt *) node;

		/* another one of that name hides it */
		if (defines(select->withClause, cxt->cte->ctename))
			return false;
		foreach(lc, select->fromClause)
			lfirst(lc) = inline_item(lfirst(lc), cxt);
	}
	return raw_expression_tree_walker(node, inline_walker, cxt);
}

/* WITH queries that read streams stand where they are named, like subqueries. */
static bool
with_walker(Node *node, void *arg)
{
	const char *source_text = arg;

	if (node == NULL)
		return false;
	if (IsA(node, SelectStmt) && ((SelectStmt *) node)->withClause)
	{
		SelectStmt *select = (SelectStmt *) node;
		WithClause *with = select->withClause;
		List	   *rest = list_copy(with->ctes);
		List	   *kept = NIL;

		select->withClause = NULL;
		while (rest)
		{
			InlineContext cxt = {linitial(rest)};
			ListCell   *lc;

			rest = list_delete_first(rest);
			if (!kda_raw_has_stream(cxt.cte->ctequery) || !IsA(cxt.cte->ctequery, SelectStmt))
			{
				kept = lappend(kept, cxt.cte);
				continue;
			}
			if (with->recursive)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("WITH RECURSIVE cannot read a stream"),
						 errhint("Leave out RECURSIVE, if \"%s\" does not refer to itself.", cxt.cte->ctename),
						 errposition(cxt.cte->location < 0 ? 0 : pg_mbstrlen_with_len(source_text, cxt.cte->location) + 1)));
			foreach(lc, rest)
				(void) inline_walker(lfirst_node(CommonTableExpr, lc)->ctequery, &cxt);
			(void) inline_walker((Node *) select, &cxt);
		}
		if (kept)
		{
			with->ctes = kept;
			select->withClause = with;
		}
	}
	return raw_expression_tree_walker(node, with_walker, arg);
}

void
kda_with_inline(Node *select, const char *source_text)
{
	(void) with_walker(select, (void *) source_text);
}

/*---- over tables */

WithClause *
kda_with(WithClause *around, WithClause *own)
{
	WithClause *with = makeNode(WithClause);
	ListCell   *lc,
			   *lo;

	if (around)
		foreach(lc, around->ctes)
		{
			bool		hidden = false;

			if (own)
				foreach(lo, own->ctes)
					hidden |= strcmp(lfirst_node(CommonTableExpr, lc)->ctename, lfirst_node(CommonTableExpr, lo)->ctename) == 0;
			if (!hidden)
				with->ctes = lappend(with->ctes, copyObject(lfirst(lc)));
		}
	if (own)
		with->ctes = list_concat(with->ctes, copyObject(own->ctes));
	with->recursive = own && own->recursive;
	with->location = -1;
	return with->ctes ? with : NULL;
}

WithClause *
kda_with_around(WithClause *around, SelectStmt *select)
{
	WithClause *with = kda_with(around, select->withClause);
	CommonTableExpr *ours = kda_from_window_join(select);

	if (ours)
		with->ctes = list_delete(with->ctes, ours);
	return with && with->ctes ? with : NULL;
}
