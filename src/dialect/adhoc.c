/*-------------------------------------------------------------------------
 *
 * adhoc.c
 *	  SELECT … WINDOWED BY … outside a continuous query, however the window is
 *	  spelled: once, over the rows that the stream's buffer holds.
 *
 * As in a continuous query the windows stand in FROM, as kda.windows(rowtime,
 * description), and the words become its columns (declare/query_words.c);
 * sessions and stagger windows, which depend on other rows, are computed by
 * window functions (keyed_windows.c).  The rest is PostgreSQL's.
 *
 * Lexical, as all of the dialect, but for two questions to the catalog where a
 * transaction allows them: which relation of FROM is the stream (else the first
 * one), and whether a function is an aggregate.  Where it does not, the
 * statement will not be analysed either.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "declare/as_of.h"
#include "catalog/namespace.h"
#include "catalog/options.h"
#include "declare/sort_within.h"
#include "declare/window_clause.h"
#include "dialect/adhoc.h"
#include "dialect/parse.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/*---- the text */

static KdaParser
parser_of(const char *source, char *copy, KdaScriptPart *part)
{
	KdaParser	p = {part->tokens, source, copy, NULL, 0};

	return p;
}

void
kda_lift_windows(const char *source, char *copy, KdaScriptPart *part)
{
	KdaParser	parser;
	KdaParser  *p = &parser;
	ListCell   *lc;

	part->tokens = kda_scan(source, part->start, part->start + part->len, true);
	part->query = palloc0(sizeof(KdaQuerySpec));
	parser = parser_of(source, copy, part);
	for (lc = list_head(p->tokens->comments); lc; lc = lnext(p->tokens->comments, lnext(p->tokens->comments, lc)))
		kda_parse_blank(p, lfirst_int(lc), lfirst_int(lnext(p->tokens->comments, lc)));
	kda_parse_replace_casts(p, 0, p->tokens->n);
	kda_parse_replace_intervals(p, 0, p->tokens->n);
	kda_parse_spellings(p, part->query, 0, p->tokens->n);
	kda_parse_windows(p, part->query, 0, p->tokens->n);
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

/*---- FROM */

typedef struct Context
{
	KdaScriptPart *part;
	ParseState *pstate;			/* places of errors */
	const char *stored;			/* what it is stored in, NULL: it runs and is gone */
	const char *stored_hint;
	bool		catalog;		/* it may be asked */
	bool		alone;
	List	   *ctes;			/* names (char *) */
	List	   *done;			/* KdaWindowClause that have been seen to */
	bool		windowed;		/* one of them was a window */
} Context;

static void
relations_of(Node *from, List **relations)
{
	if (from && IsA(from, RangeVar))
		*relations = lappend(*relations, from);
	else if (from && IsA(from, JoinExpr))
	{
		relations_of(((JoinExpr *) from)->larg, relations);
		relations_of(((JoinExpr *) from)->rarg, relations);
	}
	else if (from && IsA(from, RangeTableSample))
		relations_of(((RangeTableSample *) from)->relation, relations);
}

typedef enum Kind
{
	OF_STREAM,
	OF_UNKNOWN,					/* it may come to be before this runs */
	OF_OTHER
} Kind;

static Kind
kind_of(Context *cxt, RangeVar *rv, Oid *relid)
{
	ListCell   *lc;

	*relid = InvalidOid;
	if (rv->schemaname == NULL)
		foreach(lc, cxt->ctes)
			if (strcmp(lfirst(lc), rv->relname) == 0)
				return OF_OTHER;
	if (!cxt->catalog)
		return OF_UNKNOWN;
	*relid = RangeVarGetRelid(rv, NoLock, true);
	if (OidIsValid(*relid) && kda_is_stream(*relid))
		return OF_STREAM;
	*relid = OidIsValid(*relid) && cxt->alone ? *relid : InvalidOid;
	return OidIsValid(*relid) ? OF_OTHER : OF_UNKNOWN;
}

/* The stream among the relations; NULL: there is none. */
static RangeVar *
find_stream(Context *cxt, List *relations, Oid *relid)
{
	RangeVar   *unknown = NULL;
	ListCell   *lc;

	foreach(lc, relations)
	{
		Kind		kind = kind_of(cxt, lfirst(lc), relid);

		if (kind == OF_STREAM)
			return lfirst(lc);
		if (kind == OF_UNKNOWN && unknown == NULL)
			unknown = lfirst(lc);
	}
	*relid = InvalidOid;
	return unknown;
}

/* Names by which FROM's columns are qualified; false: JOIN … USING, whose columns are not all of theirs. */
static bool
names_of(Node *from, List **names)
{
	Alias	   *alias = NULL;

	switch (nodeTag(from))
	{
		case T_RangeVar:
			alias = ((RangeVar *) from)->alias;
			if (alias == NULL)
				alias = makeAlias(((RangeVar *) from)->relname, NIL);
			break;
		case T_RangeSubselect:
			alias = ((RangeSubselect *) from)->alias;
			break;
		case T_RangeFunction:
			alias = ((RangeFunction *) from)->alias;
			break;
		case T_RangeTableSample:
			return names_of(((RangeTableSample *) from)->relation, names);
		case T_JoinExpr:
			alias = ((JoinExpr *) from)->alias;
			if (alias == NULL)
				return !((JoinExpr *) from)->isNatural && ((JoinExpr *) from)->usingClause == NIL &&
					names_of(((JoinExpr *) from)->larg, names) && names_of(((JoinExpr *) from)->rarg, names);
			break;
		default:
			break;
	}
	if (alias == NULL)
		return false;
	*names = lappend(*names, alias->aliasname);
	return true;
}

/* SELECT *, of what the user has put into FROM. */
static void
name_star(Context *cxt, SelectStmt *select)
{
	List	   *result = NIL;
	ListCell   *lc,
			   *ln;

	foreach(lc, select->targetList)
	{
		ResTarget  *rt = lfirst_node(ResTarget, lc);
		ColumnRef  *star = (ColumnRef *) rt->val;
		List	   *names = NIL;

		if (!IsA(star, ColumnRef) || list_length(star->fields) != 1 || !IsA(linitial(star->fields), A_Star))
		{
			result = lappend(result, rt);
			continue;
		}
		foreach(ln, select->fromClause)
			if (!names_of(lfirst(ln), &names))
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("SELECT * of such a FROM cannot be used with windows"),
						 errdetail("JOIN ... USING merges columns, and functions without an alias have no name."),
						 errhint("Name the columns one by one."),
						 parser_errposition(cxt->pstate, star->location)));
		foreach(ln, names)
		{
			ResTarget  *all = copyObject(rt);

			((ColumnRef *) all->val)->fields = list_make2(makeString(lfirst(ln)), makeNode(A_Star));
			result = lappend(result, all);
		}
	}
	select->targetList = result;
}

/*---- the windows of a SELECT */

/* Clauses that stand in this SELECT, whose FROM names the relations. */
static List *
clauses_of(Context *cxt, List *relations)
{
	KdaTokens  *tokens = cxt->part->tokens;
	List	   *clauses = NIL;
	ListCell   *lc,
			   *lr;

	foreach(lc, cxt->part->query->windows)
	{
		KdaWindowClause *w = lfirst(lc);

		foreach(lr, relations)
		{
			int			at = lfirst_node(RangeVar, lr)->location;
			int			start,
						end;

			kda_parse_select_span(tokens, kda_parse_token_at(tokens, at), &start, &end);
			if (w->in_from ? w->span_start <= at && at < w->span_end : w->span_start == start && w->span_end == end)
			{
				clauses = lappend(clauses, w);
				break;
			}
		}
	}
	return clauses;
}

/* GROUP BY 1, GROUP BY name: what it stands for. */
static Node *
key_of(Context *cxt, SelectStmt *select, List *relations, Node *item)
{
	Node	   *meant = kda_words_group_item(select, item);
	ColumnRef  *ref = (ColumnRef *) item;
	ListCell   *lc;

	if (meant != item || !IsA(ref, ColumnRef) || list_length(ref->fields) != 1 || !IsA(linitial(ref->fields), String))
		return meant;
	/* a column of FROM goes before a name of the select list */
	foreach(lc, relations)
	{
		Oid			relid;

		(void) kind_of(cxt, lfirst(lc), &relid);
		if (!OidIsValid(relid) || get_attnum(relid, strVal(linitial(ref->fields))) != InvalidAttrNumber)
			return item;
	}
	foreach(lc, select->targetList)
	{
		ResTarget  *rt = lfirst_node(ResTarget, lc);

		if (rt->name && strcmp(rt->name, strVal(linitial(ref->fields))) == 0)
			return rt->val;
	}
	return item;
}

static bool
names_windows(Node *node, void *arg)
{
	static const char *const words[] = {"window_start", "window_end", "window_time", "window_closed"};

	if (node == NULL)
		return false;
	if (IsA(node, ColumnRef) && IsA(llast(((ColumnRef *) node)->fields), String))
		for (int i = 0; i < lengthof(words); i++)
			if (strcmp(strVal(llast(((ColumnRef *) node)->fields)), words[i]) == 0)
				return true;
	return raw_expression_tree_walker(node, names_windows, arg);
}

bool
kda_names_windows(Node *node)
{
	return names_windows(node, NULL);
}

/* What sessions are told apart by: PARTITION BY, else GROUP BY. */
static List *
window_keys(Context *cxt, SelectStmt *select, List *relations, KdaWindowClause *clause)
{
	List	   *keys = NIL;
	ListCell   *lc;

	if (clause->in_from || clause->kind == KDA_WINDOW_STAGGER)
		return copyObject(clause->partition);
	foreach(lc, kda_words_group_items(select))
	{
		Node	   *key = key_of(cxt, select, relations, lfirst(lc));

		if (IsA(key, GroupingSet))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("sessions cannot be used with grouping sets"),
					 errdetail("Each grouping set would have sessions of its own."),
					 errhint("Write a SELECT for each, and UNION ALL."),
					 parser_errposition(cxt->pstate, clause->location)));
		if (!names_windows(key, NULL))
			keys = lappend(keys, copyObject(key));
	}
	return keys;
}

/* A number is none, and core says so in words that can be understood. */
static Node *
as_interval(Node *raw)
{
	TypeCast   *cast = makeNode(TypeCast);

	cast->arg = raw;
	cast->typeName = makeTypeNameFromNameList(list_make2(makeString("pg_catalog"), makeString("interval")));
	cast->location = exprLocation(raw);
	return (Node *) cast;
}

/* The description of the windows: a string, or what computes it from sizes that are no literals. */
static Node *
description(Context *cxt, KdaWindowClause *clause, Oid stream)
{
	static const char *const names[] = {"tumbling", "sliding", "cumulating"};
	int			lengths = clause->kind == KDA_WINDOW_TUMBLING ? 1 : 2;
	int			n = list_length(clause->args);
	List	   *args;
	A_Const    *null = makeNode(A_Const);

	/* the number of arguments is checked there as well */
	if (kda_window_is_literal(cxt->pstate, clause) || n < lengths || n > lengths + 1)
		return kda_raw_string(kda_window_format(kda_window_of_clause(cxt->pstate, clause, NULL)));
	if (OidIsValid(stream))
		kda_window_refuse_columns(cxt->pstate, clause, stream);
	null->isnull = true;
	null->location = -1;
	args = list_make2(kda_raw_string(names[clause->kind]), as_interval(linitial(clause->args)));
	if (n > 1)
		args = lappend(args, lengths == 2 ? as_interval(lsecond(clause->args)) : (Node *) null);
	if (n > lengths)
		args = lappend(args, as_interval(llast(clause->args)));
	return kda_raw_call("window_description", args, clause->location);
}

/* window_closed: has the stream's watermark passed the window's end?  Sessions can still grow at it. */
static Node *
closed(RangeVar *stream, KdaWindowClause *clause)
{
	TypeCast   *relation = makeNode(TypeCast);
	CoalesceExpr *value = makeNode(CoalesceExpr);
	A_Const    *no = makeNode(A_Const);

	relation->arg = kda_raw_string(quote_qualified_identifier(stream->schemaname, stream->relname));
	relation->typeName = makeTypeNameFromNameList(list_make2(makeString("pg_catalog"), makeString("regclass")));
	relation->location = -1;
	no->val.boolval.type = T_Boolean;
	no->location = -1;
	value->args = list_make2(makeA_Expr(AEXPR_OP,
										list_make2(makeString("pg_catalog"),
												   makeString(clause->kind == KDA_WINDOW_SESSION ? ">" : ">=")),
										kda_raw_call("watermark", list_make1(relation), -1),
										kda_raw_column(KDA_WINDOW_ALIAS, "window_end", -1), -1),
							 no);
	value->location = -1;
	return (Node *) value;
}

static void
refuse(Context *cxt, const char *message, const char *hint, int location)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s", message),
			 errhint("%s", hint),
			 parser_errposition(cxt->pstate, location)));
}

/* The stream that the clauses speak of; NULL: they are no windows but keys. */
static RangeVar *
stream_of(Context *cxt, List *relations, List *clauses, Oid *relid)
{
	RangeVar   *stream;
	ListCell   *lc,
			   *lr;
	KdaWindowClause *in_from = NULL;

	foreach(lc, clauses)
	{
		KdaWindowClause *w = lfirst(lc);

		if (w->in_from && in_from)
			refuse(cxt, "two TABLE (...) with windows in one FROM are not part of this release",
				   "Put each of them into a subquery.", w->location);
		if (!w->in_from)
			continue;
		in_from = w;
		foreach(lr, relations)
		{
			RangeVar   *rv = lfirst_node(RangeVar, lr);

			if (w->span_start <= rv->location && rv->location < w->span_end)
				relations = list_make1(rv);
		}
	}
	stream = find_stream(cxt, relations, relid);
	if (stream)
		return stream;
	foreach(lc, clauses)
		if (!((KdaWindowClause *) lfirst(lc))->only_if_time)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
					 in_from ? errmsg("\"%s\" is not a stream", linitial_node(RangeVar, relations)->relname) :
					 errmsg("a window stands in a SELECT that reads a stream"),
					 errhint("Name a stream in FROM; CREATE STREAM makes one."),
					 parser_errposition(cxt->pstate, ((KdaWindowClause *) lfirst(lc))->location)));
	return NULL;
}

static bool
is_time(Node *column, void *words)
{
	return kda_words_is_time(words, column);
}

/* Is the relation below the nullable side of an outer join? */
static bool
is_nullable(Node *from, RangeVar *relation, bool nullable)
{
	JoinExpr   *join = (JoinExpr *) from;

	if (from && IsA(from, RangeTableSample))
		from = ((RangeTableSample *) from)->relation;
	if (from == NULL || !IsA(from, JoinExpr))
		return nullable && from == (Node *) relation;
	return is_nullable(join->larg, relation, nullable || join->jointype == JOIN_RIGHT || join->jointype == JOIN_FULL) ||
		is_nullable(join->rarg, relation, nullable || join->jointype == JOIN_LEFT || join->jointype == JOIN_FULL);
}

/*---- other streams in FROM: rows of the same window join */

typedef struct TimesContext
{
	KdaWordContext *a;
	KdaWordContext *b;
	bool		names_a;
	bool		names_b;
} TimesContext;

static bool
times_walker(Node *node, void *arg)
{
	TimesContext *times = arg;

	if (node == NULL || IsA(node, SubLink))
		return false;
	if (IsA(node, ColumnRef) && list_length(((ColumnRef *) node)->fields) == 2)
	{
		times->names_a |= kda_words_is_time(times->a, node);
		times->names_b |= kda_words_is_time(times->b, node);
		return false;
	}
	return raw_expression_tree_walker(node, times_walker, times);
}

/* Does one condition speak of both times? */
static bool
condition_on_times(KdaWordContext *a, KdaWordContext *b, Node *quals)
{
	TimesContext times = {a, b, false, false};
	ListCell   *lc;

	if (quals && IsA(quals, JoinExpr))
		return condition_on_times(a, b, ((JoinExpr *) quals)->quals) || condition_on_times(a, b, ((JoinExpr *) quals)->larg) ||
			condition_on_times(a, b, ((JoinExpr *) quals)->rarg);
	if (quals && (IsA(quals, RangeVar) || IsA(quals, RangeSubselect) || IsA(quals, RangeFunction)))
		return false;
	if (quals && IsA(quals, BoolExpr) && ((BoolExpr *) quals)->boolop == AND_EXPR)
	{
		foreach(lc, ((BoolExpr *) quals)->args)
			if (condition_on_times(a, b, lfirst(lc)))
				return true;
		return false;
	}
	(void) times_walker(quals, &times);
	return times.names_a && times.names_b;
}

static bool
joins_by_time(KdaWordContext *a, KdaWordContext *b, SelectStmt *select)
{
	ListCell   *lc;

	foreach(lc, select->fromClause)
		if (condition_on_times(a, b, lfirst(lc)))
			return true;
	return condition_on_times(a, b, select->whereClause);
}

static Node *
same_bound(const char *a, const char *b, const char *bound)
{
	return (Node *) makeA_Expr(AEXPR_OP, list_make2(makeString("pg_catalog"), makeString("=")),
							   kda_raw_column(a, bound, -1), kda_raw_column(b, bound, -1), -1);
}

static void
join_other_streams(Context *cxt, SelectStmt *select, KdaWordContext *words, KdaWindowClause *clause, List *relations,
				   RangeVar *stream)
{
	List	   *from = NIL;
	ListCell   *lc,
			   *lf;

	if (clause->in_from || clause->key || !cxt->catalog)
		return;
	foreach(lc, relations)
	{
		RangeVar   *rv = lfirst_node(RangeVar, lc);
		KdaWordContext other;
		RangeFunction *windows;
		char	   *alias = psprintf("%s_%d", KDA_WINDOW_ALIAS, foreach_current_index(lc) + 1);
		Oid			relid;

		if (rv == stream || kind_of(cxt, rv, &relid) != OF_STREAM)
			continue;
		kda_words_begin(&other, cxt->pstate, relid, rv->alias ? rv->alias->aliasname : rv->relname, "ctid");
		if (joins_by_time(words, &other, select))
			continue;
		if (clause->kind == KDA_WINDOW_SESSION || clause->kind == KDA_WINDOW_STAGGER)
			refuse(cxt, psprintf("streams cannot be joined by %s windows", kda_window_kind_name(clause->kind)),
				   "Use TUMBLING, SLIDING or CUMULATING, or compare the times of the streams.", clause->location);
		foreach(lf, select->fromClause)
			if (is_nullable(lfirst(lf), rv, false))
				refuse(cxt, "an outer join of streams by window needs a window on each side here",
					   "FROM (SELECT *, window_start, window_end FROM a WINDOWED BY ...) x LEFT JOIN (... b ...) y ON x.window_start = y.window_start AND x.window_end = y.window_end AND ....",
					   rv->location);
		windows = (RangeFunction *) kda_words_window_from(&other, description(cxt, clause, relid), NIL);
		windows->alias = makeAlias(alias, NIL);
		from = lappend(from, windows);
		for (int i = 0; i < 2; i++)
		{
			Node	   *same = same_bound(KDA_WINDOW_ALIAS, alias, i == 0 ? "window_start" : "window_end");

			select->whereClause = select->whereClause == NULL ? same :
				(Node *) makeBoolExpr(AND_EXPR, list_make2(select->whereClause, same), -1);
		}
	}
	select->fromClause = list_concat(select->fromClause, from);
}

static void
put_window(Context *cxt, SelectStmt *select)
{
	List	   *relations = NIL;
	List	   *clauses;
	RangeVar   *stream;
	Oid			relid;
	KdaWordContext words;
	KdaWindowClause *clause;
	ListCell   *lc;

	foreach(lc, select->fromClause)
		relations_of(lfirst(lc), &relations);
	clauses = clauses_of(cxt, relations);
	if (clauses == NIL)
		return;
	cxt->done = list_concat(cxt->done, clauses);
	stream = stream_of(cxt, relations, clauses, &relid);
	if (stream == NULL)
		return;
	kda_words_begin(&words, cxt->pstate, relid, stream->alias ? stream->alias->aliasname : stream->relname, "ctid");
	clause = kda_words_choose_window(clauses, is_time, &words);
	if (clause == NULL)
		return;
	kda_words_check_window(cxt->pstate, select, clauses, clause, is_time, &words, stream->relname, words.rowtime_column);
	kda_words_set_window(&words, select, clause);
	if (cxt->stored)
		refuse(cxt, psprintf("windows over a stream cannot be used in a %s", cxt->stored), cxt->stored_hint, clause->location);
	cxt->windowed = true;
	foreach(lc, select->fromClause)
		if (is_nullable(lfirst(lc), stream, false))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("stream \"%s\" stands on the side of an outer join that is filled with NULLs", stream->relname),
					 errdetail("A row without a record has no time, and so no window."),
					 errhint("Put the stream on the preserved side: stream LEFT JOIN table."),
					 parser_errposition(cxt->pstate, stream->location)));
	words.closed = closed(stream, clause);
	name_star(cxt, select);
	if (clause->kind == KDA_WINDOW_SESSION || clause->kind == KDA_WINDOW_STAGGER)
	{
		List	   *keys = window_keys(cxt, select, relations, clause);

		if (clause->kind == KDA_WINDOW_STAGGER && select->groupClause)
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("a SELECT with a STAGGER window cannot have GROUP BY"),
					 errdetail("PARTITION BY of the window says how its rows are grouped."),
					 parser_errposition(cxt->pstate, exprLocation(linitial(select->groupClause)))));
		if (clause->kind == KDA_WINDOW_STAGGER && kda_words_aggregated(select))
			select->groupClause = copyObject(clause->partition);
		kda_put_keyed_windows(&words, select, clause, keys);
		kda_words_apply(&words, select);
	}
	else
	{
		kda_words_apply(&words, select);
		select->fromClause = lappend(select->fromClause, kda_words_window_from(&words, description(cxt, clause, relid), NIL));
	}
	join_other_streams(cxt, select, &words, clause, relations, stream);
	if (words.aggregated)
		select->groupClause = list_concat(kda_words_window_keys(), select->groupClause);
}

/* SELECTs from the innermost out: what is put around FROM would hide it. */
static bool
select_walker(Node *node, void *arg)
{
	Context    *cxt = arg;

	if (node == NULL)
		return false;
	if (IsA(node, CommonTableExpr))
		cxt->ctes = lappend(cxt->ctes, ((CommonTableExpr *) node)->ctename);
	(void) raw_expression_tree_walker(node, select_walker, cxt);
	if (IsA(node, SelectStmt) && ((SelectStmt *) node)->op == SETOP_NONE)
		put_window(cxt, (SelectStmt *) node);
	return false;
}

/*---- the statement */

/* The query that a utility statement holds, or the statement itself. */
static Node *
query_of(Node *stmt, Context *cxt)
{
	static const char *const keep = "CREATE CONTINUOUS VIEW keeps the result up to date.";

	for (;;)
	{
		switch (nodeTag(stmt))
		{
			case T_ExplainStmt:
				stmt = ((ExplainStmt *) stmt)->query;
				break;
			case T_CreateTableAsStmt:
				if (((CreateTableAsStmt *) stmt)->objtype == OBJECT_MATVIEW)
				{
					cxt->stored = "materialized view";
					cxt->stored_hint = keep;
				}
				stmt = ((CreateTableAsStmt *) stmt)->query;
				break;
			case T_ViewStmt:
				cxt->stored = "view";
				cxt->stored_hint = keep;
				stmt = ((ViewStmt *) stmt)->query;
				break;
			case T_RuleStmt:
				cxt->stored = "rule";
				cxt->stored_hint = keep;
				return (Node *) ((RuleStmt *) stmt)->actions;
			case T_CreateFunctionStmt:
				cxt->stored = "function body that is stored parsed";
				cxt->stored_hint = "Give the body as a string: AS $$ ... $$.";
				return ((CreateFunctionStmt *) stmt)->sql_body;
			case T_DeclareCursorStmt:
				stmt = ((DeclareCursorStmt *) stmt)->query;
				break;
			case T_PrepareStmt:
				stmt = ((PrepareStmt *) stmt)->query;
				break;
			case T_CopyStmt:
				return ((CopyStmt *) stmt)->query;
			case T_SelectStmt:
			case T_InsertStmt:
			case T_UpdateStmt:
			case T_DeleteStmt:
			case T_MergeStmt:
				return stmt;
			default:
				return NULL;
		}
	}
}

/* OVER (… ROWS n PRECEDING), which core would take in the order of the scan. */
static void
refuse_row_windows(Context *cxt)
{
	ListCell   *lr,
			   *lw;

	foreach(lr, cxt->part->query->row_windows)
	{
		KdaRowWindow *r = lfirst(lr);
		bool		inside = false;

		foreach(lw, cxt->part->query->windows)
			inside |= ((KdaWindowClause *) lfirst(lw))->span_start >= r->span_start &&
				((KdaWindowClause *) lfirst(lw))->span_end <= r->span_end;
		if (!inside && cxt->part->is_query && r->relation < 0)
			refuse(cxt, "OVER (...) without ORDER BY slides along a stream only in continuous queries",
				   "Here say what it is ordered by: OVER (PARTITION BY ... ORDER BY rowtime ...).", r->location);
	}
	kda_words_refuse(cxt->pstate, cxt->part->query);
}

void
kda_put_windows(Node *stmt, KdaScriptPart *part, const char *source, bool alone)
{
	Context		cxt = {0};
	KdaParser	parser = parser_of(source, NULL, part);
	Node	   *query;
	ListCell   *lc;

	cxt.part = part;
	cxt.pstate = make_parsestate(NULL);
	cxt.pstate->p_sourcetext = source;
	cxt.catalog = IsTransactionState();
	cxt.alone = alone;
	query = query_of(stmt, &cxt);
	kda_parse_settle(&parser, part->query, query, part->is_query);
	refuse_row_windows(&cxt);
	if (cxt.catalog)
	{
		kda_as_of_bind(cxt.pstate, query, part->query, true);
		kda_sort_bind(cxt.pstate, query, part->query, true);
	}
	(void) select_walker(query, &cxt);
	foreach(lc, part->query->windows)
	{
		KdaWindowClause *w = lfirst(lc);

		if (!w->only_if_time && !list_member_ptr(cxt.done, w))
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("a window stands in the SELECT that names its stream in FROM"),
					 errhint("WINDOWED BY stands between WHERE and GROUP BY of that SELECT."),
					 parser_errposition(cxt.pstate, w->location)));
	}
	if (query && IsA(query, InsertStmt) && cxt.windowed)
		ereport(NOTICE,
				(errmsg("this INSERT runs once, over the rows that the stream's buffer holds now"),
				 errhint("CREATE PUMP ... AS INSERT INTO ... keeps inserting.")));
}
