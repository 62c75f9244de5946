/*-------------------------------------------------------------------------
 *
 * adhoc.c
 *	  SELECT … WINDOWED BY TUMBLING … outside a continuous query: once, over the
 *	  rows that the stream's buffer holds.
 *
 * Becomes plain SQL in the raw tree: the window's start is
 * kda.tumble_start(kda.rowtime(s.ctid), size, offset), the first group key, and
 * window_start, window_end and ROWTIME are replaced by expressions over it.
 * The stream is the first relation of FROM.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "dialect/adhoc.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"

static int
position(const char *source, int offset)
{
	return pg_mbstrlen_with_len(source, offset) + 1;
}

KdaLiftedWindow *
kda_lift_window(const char *source, char *copy, KdaScriptPart *part)
{
	KdaTokens  *tokens = kda_scan(source, part->start, part->start + part->len, false);
	KdaLiftedWindow *lifted = palloc0(sizeof(KdaLiftedWindow));

	lifted->part = part;
	for (int i = 0; i + 2 < tokens->n; i++)
	{
		int			after;

		if (!kda_token_is(tokens, i, "windowed") || !kda_token_is(tokens, i + 1, "by") ||
			tokens->t[i + 2].kind != KDA_TOKEN_WORD)
			continue;
		if (lifted->window)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a statement can have one WINDOWED BY"),
					 errposition(position(source, tokens->t[i].start))));
		lifted->window = kda_window_clause(source, copy, tokens, i, &after);
		i = after - 1;
	}
	for (int i = 0; i + 2 < tokens->n; i++)
		if (kda_token_is(tokens, i, "select") && kda_token_is(tokens, i + 1, "stream") &&
			tokens->t[i + 2].kind != KDA_TOKEN_OTHER && !kda_token_is(tokens, i + 2, "from"))
			memset(copy + tokens->t[i + 1].start, ' ', tokens->t[i + 1].end - tokens->t[i + 1].start);
	return lifted;
}

void
kda_blank_comments(const char *source, char *copy, List *parts)
{
	int			at = 0;
	ListCell   *lc;

	for (lc = list_head(parts);; lc = lnext(parts, lc))
	{
		int			end = lc ? ((KdaScriptPart *) lfirst(lc))->start : (int) strlen(source);
		KdaTokens  *tokens = kda_scan(source, at, end, true);
		ListCell   *c;

		for (c = list_head(tokens->comments); c; c = lnext(tokens->comments, lnext(tokens->comments, c)))
			memset(copy + lfirst_int(c), ' ', lfirst_int(lnext(tokens->comments, c)) - lfirst_int(c));
		if (lc == NULL)
			break;
		at = end + ((KdaScriptPart *) lfirst(lc))->len;
	}
}

/* The SELECT that a statement is or holds. */
static SelectStmt *
select_of(Node *stmt)
{
	while (stmt)
	{
		switch (nodeTag(stmt))
		{
			case T_SelectStmt:
				return (SelectStmt *) stmt;
			case T_InsertStmt:
				stmt = ((InsertStmt *) stmt)->selectStmt;
				break;
			case T_ExplainStmt:
				stmt = ((ExplainStmt *) stmt)->query;
				break;
			case T_CreateTableAsStmt:
				stmt = ((CreateTableAsStmt *) stmt)->query;
				break;
			case T_DeclareCursorStmt:
				stmt = ((DeclareCursorStmt *) stmt)->query;
				break;
			case T_PrepareStmt:
				stmt = ((PrepareStmt *) stmt)->query;
				break;
			case T_CopyStmt:
				stmt = ((CopyStmt *) stmt)->query;
				break;
			default:
				return NULL;
		}
	}
	return NULL;
}

static RangeVar *
first_relation(Node *from)
{
	while (from && IsA(from, JoinExpr))
		from = ((JoinExpr *) from)->larg;
	return from && IsA(from, RangeVar) ? (RangeVar *) from : NULL;
}

typedef struct Context
{
	Node	   *start;			/* raw expression of window_start */
	Node	   *size;
	Node	   *rowtime;
	bool		inside;			/* an aggregate */
} Context;

static Node *
call(const char *name, List *args)
{
	return (Node *) makeFuncCall(list_make2(makeString(KDA_SCHEMA), makeString(pstrdup(name))), args,
								 COERCE_EXPLICIT_CALL, -1);
}

static Node *
window_end(Context *cxt)
{
	return call("tumble_end", list_make2(copyObject(cxt->start), copyObject(cxt->size)));
}

/* Words in the usual places: bare, in calls, operators, CASE and casts. */
static Node *
replace(Node *node, Context *cxt)
{
	ListCell   *lc;
	bool		inside = cxt->inside;

	if (node == NULL)
		return NULL;
	switch (nodeTag(node))
	{
		case T_ColumnRef:
			{
				Node	   *last = llast(((ColumnRef *) node)->fields);

				if (!IsA(last, String) || list_length(((ColumnRef *) node)->fields) > 2)
					return node;
				if (pg_strcasecmp(strVal(last), "rowtime") == 0)
					return cxt->inside ? copyObject(cxt->rowtime) : window_end(cxt);
				if (list_length(((ColumnRef *) node)->fields) > 1)
					return node;
				if (strcmp(strVal(last), "window_start") == 0)
					return copyObject(cxt->start);
				if (strcmp(strVal(last), "window_end") == 0)
					return window_end(cxt);
				return node;
			}
		case T_List:
			foreach(lc, (List *) node)
				lfirst(lc) = replace(lfirst(lc), cxt);
			return node;
		case T_ResTarget:
			((ResTarget *) node)->val = replace(((ResTarget *) node)->val, cxt);
			return node;
		case T_SortBy:
			((SortBy *) node)->node = replace(((SortBy *) node)->node, cxt);
			return node;
		case T_A_Expr:
			((A_Expr *) node)->lexpr = replace(((A_Expr *) node)->lexpr, cxt);
			((A_Expr *) node)->rexpr = replace(((A_Expr *) node)->rexpr, cxt);
			return node;
		case T_BoolExpr:
			((BoolExpr *) node)->args = (List *) replace((Node *) ((BoolExpr *) node)->args, cxt);
			return node;
		case T_TypeCast:
			((TypeCast *) node)->arg = replace(((TypeCast *) node)->arg, cxt);
			return node;
		case T_FuncCall:
			/* min(rowtime) is about records; to_char(rowtime, …) about the window */
			cxt->inside = inside || list_length(((FuncCall *) node)->funcname) == 1;
			((FuncCall *) node)->args = (List *) replace((Node *) ((FuncCall *) node)->args, cxt);
			cxt->inside = inside;
			return node;
		case T_CaseExpr:
			((CaseExpr *) node)->args = (List *) replace((Node *) ((CaseExpr *) node)->args, cxt);
			((CaseExpr *) node)->defresult = (Expr *) replace((Node *) ((CaseExpr *) node)->defresult, cxt);
			return node;
		case T_CaseWhen:
			((CaseWhen *) node)->expr = (Expr *) replace((Node *) ((CaseWhen *) node)->expr, cxt);
			((CaseWhen *) node)->result = (Expr *) replace((Node *) ((CaseWhen *) node)->result, cxt);
			return node;
		case T_CoalesceExpr:
			((CoalesceExpr *) node)->args = (List *) replace((Node *) ((CoalesceExpr *) node)->args, cxt);
			return node;
		case T_NullTest:
			((NullTest *) node)->arg = (Expr *) replace((Node *) ((NullTest *) node)->arg, cxt);
			return node;
		default:
			return node;
	}
}

static void
keep_names(List *targets)
{
	ListCell   *lc;

	foreach(lc, targets)
	{
		ResTarget  *rt = lfirst_node(ResTarget, lc);

		if (rt->name == NULL && rt->val && IsA(rt->val, ColumnRef) &&
			IsA(llast(((ColumnRef *) rt->val)->fields), String))
			rt->name = pstrdup(strVal(llast(((ColumnRef *) rt->val)->fields)));
	}
}

void
kda_put_window(Node *stmt, List *windows, KdaScriptPart *part, const char *source)
{
	KdaWindowClause *window = NULL;
	SelectStmt *select;
	RangeVar   *stream;
	ColumnRef  *ctid;
	Context		cxt = {0};
	ListCell   *lc;

	foreach(lc, windows)
		if (((KdaLiftedWindow *) lfirst(lc))->part == part)
			window = ((KdaLiftedWindow *) lfirst(lc))->window;
	if (window == NULL)
		return;
	if (IsA(stmt, ViewStmt) ||
		(IsA(stmt, CreateTableAsStmt) && ((CreateTableAsStmt *) stmt)->objtype == OBJECT_MATVIEW))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("WINDOWED BY cannot be used in a view"),
				 errhint("CREATE CONTINUOUS VIEW keeps the result up to date."),
				 errposition(position(source, window->location))));
	if (window->kind != KDA_WINDOW_TUMBLING)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s windows are not part of this release", kda_window_kind_name(window->kind)),
				 errhint("TUMBLING (size [, offset]) is."),
				 errposition(position(source, window->location))));
	select = select_of(stmt);
	stream = select && select->fromClause ? first_relation(linitial(select->fromClause)) : NULL;
	if (stream == NULL || select->op != SETOP_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("WINDOWED BY stands in a SELECT … FROM stream"),
				 errhint("Subqueries and UNION cannot have it."),
				 errposition(position(source, window->location))));
	if (list_length(window->args) > 2)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("TUMBLING takes one or two arguments, not %d", list_length(window->args)),
				 errposition(position(source, window->location))));

	ctid = makeNode(ColumnRef);
	ctid->fields = list_make2(makeString(stream->alias ? stream->alias->aliasname : stream->relname),
							  makeString("ctid"));
	ctid->location = -1;
	cxt.rowtime = call("rowtime", list_make1(ctid));
	cxt.size = linitial(window->args);
	cxt.start = call("tumble_start", lcons(cxt.rowtime, copyObject(window->args)));
	keep_names(select->targetList);
	replace((Node *) select->targetList, &cxt);
	select->havingClause = replace(select->havingClause, &cxt);
	replace((Node *) select->sortClause, &cxt);
	replace((Node *) select->groupClause, &cxt);
	select->groupClause = lcons(copyObject(cxt.start), select->groupClause);
	if (IsA(stmt, InsertStmt))
		ereport(NOTICE,
				(errmsg("this INSERT runs once, over the rows that the stream's buffer holds now"),
				 errhint("CREATE PUMP … AS INSERT INTO … keeps inserting.")));
}
