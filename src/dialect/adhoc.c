/*-------------------------------------------------------------------------
 *
 * adhoc.c
 *	  SELECT … WINDOWED BY TUMBLING … outside a continuous query: once, over the
 *	  rows that the stream's buffer holds.
 *
 * For core's parser the clause becomes the first item of GROUP BY, at its own
 * place, so that it is found again in the SELECT that it stands in, however
 * deep.  Then it becomes plain SQL in the raw tree: the window's start is
 * kda.tumble_start(kda.rowtime(s.ctid), size, offset), the first group key, and
 * window_start, window_end and ROWTIME are replaced by expressions over it.
 *
 * Lexical, as all of the dialect, but for two questions to the catalog where a
 * transaction allows them: which relation of FROM is the stream (else the
 * first one), and whether a function is an aggregate.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/options.h"
#include "dialect/adhoc.h"
#include "dialect/parse.h"
#include "dialect/words.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_type.h"

static int
position(const char *source, int offset)
{
	return pg_mbstrlen_with_len(source, offset) + 1;
}

/*---- the text */

void
kda_lift_windows(const char *source, char *copy, KdaScriptPart *part)
{
	KdaTokens  *tokens = kda_scan(source, part->start, part->start + part->len, true);
	KdaParser	parser = {tokens, source, copy, NULL, 0};
	KdaParser  *p = &parser;
	ListCell   *lc;

	for (lc = list_head(tokens->comments); lc; lc = lnext(tokens->comments, lnext(tokens->comments, lc)))
		kda_parse_blank(p, lfirst_int(lc), lfirst_int(lnext(tokens->comments, lc)));
	kda_parse_replace_casts(p, 0, tokens->n);
	for (int i = 0; i < tokens->n; i++)
	{
		int			close;
		KdaWindowKind kind;

		if (kda_parse_is_select_stream(tokens, i))
			kda_parse_overwrite(p, i + 1, i + 2, "");
		if (!kda_token_is(tokens, i, "windowed") || !kda_token_is(tokens, i + 1, "by"))
			continue;
		p->at = i + 2;
		kind = kda_parse_window_kind(p);
		if (kind != KDA_WINDOW_TUMBLING)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("%s windows are not part of this release", kda_window_kind_name(kind)),
					 errhint("TUMBLING (size [, offset]) is."),
					 errposition(position(source, tokens->t[i].start))));
		close = kda_parse_window_arguments(p);
		kda_parse_overwrite(p, i, i + 2, "GROUP BY");
		if (kda_token_is(tokens, close + 1, "group") && kda_token_is(tokens, close + 2, "by"))
			kda_parse_overwrite(p, close + 1, close + 3, ",");
		/* core will find a function call there */
		part->windows = lappend_int(part->windows, tokens->t[i + 2].start);
	}
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

/*---- the tree */

typedef struct Context
{
	KdaScriptPart *part;
	const char *source;
	bool		catalog;		/* it may be asked */
	int			found;			/* clauses that have been worked in */

	/* of the SELECT at hand */
	const char *stream_name;	/* as its columns are qualified */
	Node	   *start;			/* raw expression of window_start */
	Node	   *size;
	Node	   *rowtime;
	bool		outside;		/* select list, HAVING, ORDER BY: ROWTIME is the window's */
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

static Node *
replace_word(ColumnRef *ref, bool in_aggregate, void *arg)
{
	Context    *cxt = arg;
	int			n = list_length(ref->fields);
	Node	   *last = llast(ref->fields);

	if (!IsA(last, String) || n > 2)
		return NULL;
	if (n == 2 && strcmp(strVal(linitial(ref->fields)), cxt->stream_name) != 0)
		return NULL;
	if (pg_strcasecmp(strVal(last), "rowtime") == 0)
		return cxt->outside && !in_aggregate ? window_end(cxt) : copyObject(cxt->rowtime);
	if (n == 2)
		return NULL;
	if (strcmp(strVal(last), "window_start") == 0)
		return copyObject(cxt->start);
	if (strcmp(strVal(last), "window_end") == 0)
		return window_end(cxt);
	return NULL;
}

/* A select-list word keeps its name although an expression takes its place. */
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

/* The relation of FROM that is a stream; where that cannot be known, the first one. */
static RangeVar *
find_stream(Node *from, bool catalog, RangeVar **first)
{
	if (from && IsA(from, JoinExpr))
	{
		RangeVar   *found = find_stream(((JoinExpr *) from)->larg, catalog, first);

		return found ? found : find_stream(((JoinExpr *) from)->rarg, catalog, first);
	}
	if (from == NULL || !IsA(from, RangeVar))
		return NULL;
	if (*first == NULL)
		*first = (RangeVar *) from;
	if (catalog)
	{
		Oid			relid = RangeVarGetRelid((RangeVar *) from, NoLock, true);

		if (OidIsValid(relid) && kda_is_stream(relid))
			return (RangeVar *) from;
	}
	return NULL;
}

static bool
is_not_constant(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	if (IsA(node, ColumnRef) || IsA(node, SubLink))
		return true;
	return raw_expression_tree_walker(node, is_not_constant, arg);
}

/* kda.tumble_start(rowtime, size, offset) would be computed for each row: say now what is wrong. */
static void
check_arguments(Context *cxt, FuncCall *window)
{
	ListCell   *lc;

	if (list_length(window->args) > 2)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("TUMBLING takes one or two arguments, not %d", list_length(window->args)),
				 errhint("TUMBLING (size [, offset])"),
				 errposition(position(cxt->source, window->location))));
	foreach(lc, window->args)
		if (is_not_constant(lfirst(lc), NULL))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the %s of a window must be a constant", lc == list_head(window->args) ? "size" : "offset"),
					 errhint("For example INTERVAL '1' MINUTE."),
					 errposition(position(cxt->source, exprLocation(lfirst(lc))))));
}

static void
put_window(Context *cxt, SelectStmt *select, FuncCall *window)
{
	RangeVar   *stream = NULL;
	RangeVar   *first = NULL;
	ColumnRef  *ctid = makeNode(ColumnRef);
	KdaWords	words = {replace_word, kda_raw_is_aggregate, cxt, false};
	ListCell   *lc;

	foreach(lc, select->fromClause)
	{
		stream = find_stream(lfirst(lc), cxt->catalog, &first);
		if (stream)
			break;
	}
	if (stream == NULL && (first == NULL ||
						   (cxt->catalog && OidIsValid(RangeVarGetRelid(first, NoLock, true)))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("WINDOWED BY stands in a SELECT that reads a stream"),
				 errhint("Name a stream in FROM; CREATE STREAM makes one."),
				 errposition(position(cxt->source, window->location))));
	if (stream == NULL)
		stream = first;
	check_arguments(cxt, window);
	cxt->found++;
	cxt->stream_name = stream->alias ? stream->alias->aliasname : stream->relname;
	ctid->fields = list_make2(makeString(pstrdup(cxt->stream_name)), makeString("ctid"));
	ctid->location = -1;
	cxt->rowtime = call("rowtime", list_make1(ctid));
	cxt->size = linitial(window->args);
	cxt->start = call("tumble_start", lcons(cxt->rowtime, copyObject(window->args)));

	keep_names(select->targetList);
	cxt->outside = true;
	kda_words_replace((Node *) select->targetList, &words);
	select->havingClause = kda_words_replace(select->havingClause, &words);
	kda_words_replace((Node *) select->sortClause, &words);
	cxt->outside = false;
	select->whereClause = kda_words_replace(select->whereClause, &words);
	kda_words_replace((Node *) select->groupClause, &words);
	foreach(lc, select->fromClause)
		kda_words_replace_in_joins(lfirst(lc), &words);
	linitial(select->groupClause) = copyObject(cxt->start);
}

/* Looks for SELECTs whose GROUP BY begins with one of the clauses. */
static bool
window_walker(Node *node, void *arg)
{
	Context    *cxt = arg;

	if (node == NULL)
		return false;
	if (IsA(node, SelectStmt))
	{
		SelectStmt *select = (SelectStmt *) node;
		FuncCall   *first = select->groupClause ? linitial(select->groupClause) : NULL;

		if (first && IsA(first, FuncCall) && list_member_int(cxt->part->windows, first->location))
		{
			Context		mine = *cxt;

			put_window(&mine, select, first);
			cxt->found = mine.found;
		}
	}
	return raw_expression_tree_walker(node, window_walker, cxt);
}

/* The query that a utility statement holds, or the statement itself. */
static Node *
query_of(Node *stmt)
{
	for (;;)
	{
		switch (nodeTag(stmt))
		{
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
				if (((CopyStmt *) stmt)->query == NULL)
					return stmt;
				stmt = ((CopyStmt *) stmt)->query;
				break;
			default:
				return stmt;
		}
	}
}

static void
refuse_containers(Node *stmt, Context *cxt)
{
	const char *where = NULL;

	if (IsA(stmt, ViewStmt) ||
		(IsA(stmt, CreateTableAsStmt) && ((CreateTableAsStmt *) stmt)->objtype == OBJECT_MATVIEW))
		where = "view";
	else if (IsA(stmt, CreateFunctionStmt))
		where = "function body that is stored parsed";
	else if (IsA(stmt, RuleStmt))
		where = "rule";
	if (where)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("WINDOWED BY cannot be used in a %s", where),
				 IsA(stmt, CreateFunctionStmt) ? errhint("Give the body as a string: AS $$ … $$.") :
				 errhint("CREATE CONTINUOUS VIEW keeps the result up to date."),
				 errposition(position(cxt->source, linitial_int(cxt->part->windows)))));
}

void
kda_put_windows(Node *stmt, KdaScriptPart *part, const char *source, bool alone)
{
	Context		cxt = {0};
	Node	   *query;

	cxt.part = part;
	cxt.source = source;
	cxt.catalog = alone && IsTransactionState();
	refuse_containers(stmt, &cxt);
	query = query_of(stmt);
	if (IsA(query, SelectStmt) || IsA(query, InsertStmt) || IsA(query, UpdateStmt) || IsA(query, DeleteStmt) ||
		IsA(query, MergeStmt))
		(void) window_walker(query, &cxt);
	if (cxt.found < list_length(part->windows))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("WINDOWED BY stands in a SELECT, between WHERE and GROUP BY"),
				 errposition(position(source, linitial_int(part->windows)))));
	if (IsA(query, InsertStmt))
		ereport(NOTICE,
				(errmsg("this INSERT runs once, over the rows that the stream's buffer holds now"),
				 errhint("CREATE PUMP … AS INSERT INTO … keeps inserting.")));
}
