/*-------------------------------------------------------------------------
 *
 * query_words.c
 *	  Words of ours in the raw tree of a SELECT: window_start, window_end,
 *	  window_time, ROWTIME, STEP (…), TUMBLE_START (…) become references that
 *	  core's parser knows.
 *
 * The windows stand in FROM as a function, kda.windows(rowtime, description),
 * under a name of ours; the words become its columns.  From there on the
 * parser's own rules say what is grouped and what is not.
 *
 * For continuous queries and for ad hoc ones (dialect/adhoc.c), in the session
 * that states them.  The catalog is asked for functions of a name, and for
 * columns of the stream if it is known.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/namespace.h"
#include "catalog/options.h"
#include "catalog/pg_type.h"
#include "declare/query_words.h"
#include "declare/window_clause.h"
#include "dialect/words.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/*---- building raw nodes */

Node *
kda_raw_call(const char *name, List *args, int location)
{
	return (Node *) makeFuncCall(list_make2(makeString(KDA_SCHEMA), makeString(pstrdup(name))),
								 args, COERCE_EXPLICIT_CALL, location);
}

Node *
kda_raw_column(const char *relation, const char *column, int location)
{
	ColumnRef  *ref = makeNode(ColumnRef);

	ref->fields = list_make2(makeString(pstrdup(relation)), makeString(pstrdup(column)));
	ref->location = location;
	return (Node *) ref;
}

Node *
kda_raw_string(const char *value)
{
	A_Const    *c = makeNode(A_Const);

	c->val.sval.type = T_String;
	c->val.sval.sval = pstrdup(value);
	c->location = -1;
	return (Node *) c;
}

Node *
kda_raw_interval(const char *value)
{
	TypeCast   *cast = makeNode(TypeCast);

	cast->arg = kda_raw_string(value);
	cast->typeName = makeTypeNameFromNameList(list_make2(makeString("pg_catalog"), makeString("interval")));
	cast->location = -1;
	return (Node *) cast;
}

ResTarget *
kda_raw_target(const char *name, Node *value)
{
	ResTarget  *rt = makeNode(ResTarget);

	rt->name = pstrdup(name);
	rt->val = value;
	rt->location = -1;
	return rt;
}

ResTarget *
kda_raw_star(const char *relation)
{
	ColumnRef  *star = makeNode(ColumnRef);
	ResTarget  *rt = makeNode(ResTarget);

	if (relation)
		star->fields = list_make1(makeString(pstrdup(relation)));
	star->fields = lappend(star->fields, makeNode(A_Star));
	star->location = rt->location = -1;
	rt->val = (Node *) star;
	return rt;
}

Node *
kda_words_rowtime(KdaWordContext *cxt, int location)
{
	if (cxt->rowtime)
		return copyObject(cxt->rowtime);
	if (cxt->rowtime_column && cxt->rowtime_is_timestamptz)
		return kda_raw_column(cxt->stream_name, cxt->rowtime_column, location);
	return kda_raw_call("rowtime", list_make1(kda_raw_column(cxt->stream_name, cxt->row_column, location)), location);
}

static Node *
window_column(const char *column, int location)
{
	return kda_raw_column(KDA_WINDOW_ALIAS, column, location);
}

/* window_end - 1 ms: Flink's window_time. */
static Node *
window_time(int location)
{
	return (Node *) makeA_Expr(AEXPR_OP, list_make2(makeString("pg_catalog"), makeString("-")),
							   window_column("window_end", location), kda_raw_interval("1 millisecond"), location);
}

Node *
kda_words_window_from(KdaWordContext *cxt, Node *spec, List *keys)
{
	RangeFunction *from = makeNode(RangeFunction);

	from->lateral = true;
	from->functions = list_make1(list_make2(kda_raw_call(keys ? "keyed_windows" : "windows",
														 list_concat(list_make2(kda_words_rowtime(cxt, -1), spec), keys), -1),
											NIL));
	from->alias = makeAlias(KDA_WINDOW_ALIAS, NIL);
	return (Node *) from;
}

List *
kda_words_window_keys(void)
{
	return list_make2(window_column("window_start", -1), window_column("window_end", -1));
}

/*---- the stream and its window */

void
kda_words_begin(KdaWordContext *cxt, ParseState *pstate, Oid stream, const char *name, const char *row_column)
{
	KdaStreamOptions *options;

	memset(cxt, 0, sizeof(*cxt));
	cxt->pstate = pstate;
	cxt->stream = stream;
	cxt->stream_name = name;
	cxt->row_column = row_column;
	if (!OidIsValid(stream) || strcmp(row_column, "ctid") != 0)
		return;
	options = kda_stream_options_get(stream);
	if (options->rowtime_attno > 0)
	{
		cxt->rowtime_column = get_attname(stream, options->rowtime_attno, false);
		cxt->rowtime_is_timestamptz = get_atttype(stream, options->rowtime_attno) == TIMESTAMPTZOID;
	}
}

/* The column that the reference names, if it may be the stream's: unqualified, or by the stream's name. */
static const char *
stream_word(const KdaWordContext *cxt, ColumnRef *ref)
{
	int			n = list_length(ref->fields);
	Node	   *last = llast(ref->fields);

	if (!IsA(last, String) || n > 2)
		return NULL;
	if (n == 2 && strcmp(strVal(linitial(ref->fields)), cxt->stream_name) != 0)
		return NULL;
	return strVal(last);
}

/* No column of that name: the time attribute, whatever it is called. */
static bool
is_rowtime_word(const KdaWordContext *cxt, const char *word)
{
	AttrNumber	attno;

	if (pg_strcasecmp(word, "rowtime") != 0 || (cxt->hides_time && strcmp(word, cxt->hides_time) == 0))
		return false;
	attno = OidIsValid(cxt->stream) ? get_attnum(cxt->stream, word) : InvalidAttrNumber;
	if (attno == InvalidAttrNumber)
		return true;
	/* handed on: the time as well, unless it has become an ordinary column */
	return strcmp(cxt->row_column, "ctid") != 0 && attno == kda_stream_options_get(cxt->stream)->rowtime_attno;
}

bool
kda_words_is_time(const KdaWordContext *cxt, Node *column)
{
	const char *word = column && IsA(column, ColumnRef) ? stream_word(cxt, (ColumnRef *) column) : NULL;

	if (word == NULL)
		return false;
	if (!OidIsValid(cxt->stream) || is_rowtime_word(cxt, word))
		return true;
	return cxt->rowtime_column && strcmp(word, cxt->rowtime_column) == 0;
}

List *
kda_words_group_items(SelectStmt *select)
{
	List	   *items = NIL;
	ListCell   *lc;

	foreach(lc, select->groupClause)
	{
		RowExpr    *row = lfirst(lc);

		if (IsA(row, RowExpr) && row->row_format == COERCE_IMPLICIT_CAST)
			items = list_concat(items, row->args);
		else
			items = lappend(items, row);
	}
	return items;
}

Node *
kda_words_group_item(SelectStmt *select, Node *item)
{
	ListCell   *lc;

	if (IsA(item, A_Const) && !((A_Const *) item)->isnull && IsA(&((A_Const *) item)->val, Integer))
	{
		int			n = ((A_Const *) item)->val.ival.ival;

		if (n >= 1 && n <= list_length(select->targetList))
			return ((ResTarget *) list_nth(select->targetList, n - 1))->val;
	}
	else if (IsA(item, ColumnRef) && list_length(((ColumnRef *) item)->fields) == 1 &&
			 IsA(linitial(((ColumnRef *) item)->fields), String))
		foreach(lc, select->targetList)
		{
			ResTarget  *rt = lfirst_node(ResTarget, lc);

			if (rt->name && rt->val && IsA(rt->val, FuncCall) &&
				strcmp(rt->name, strVal(linitial(((ColumnRef *) item)->fields))) == 0)
				return rt->val;
		}
	return item;
}

/* Do both name the same column?  The time may be written in several ways. */
static bool
same_column(const KdaWordContext *cxt, Node *a, Node *b)
{
	const char *x = IsA(a, ColumnRef) ? stream_word(cxt, (ColumnRef *) a) : NULL;
	const char *y = IsA(b, ColumnRef) ? stream_word(cxt, (ColumnRef *) b) : NULL;

	return x && y && (strcmp(x, y) == 0 || (kda_words_is_time(cxt, a) && kda_words_is_time(cxt, b)));
}

/* The same expression, or the same literal interval: INTERVAL '60' SECOND is INTERVAL '1' MINUTE. */
static bool
same_value(ParseState *pstate, Node *a, Node *b)
{
	Interval   *x,
			   *y;

	if (equal(a, b))
		return true;
	x = kda_window_literal(pstate, a);
	y = x ? kda_window_literal(pstate, b) : NULL;
	return y && x->time == y->time && x->day == y->day && x->month == y->month;
}

static bool
same_values(ParseState *pstate, List *a, List *b)
{
	if (list_length(a) != list_length(b))
		return false;
	for (int i = 0; i < list_length(a); i++)
		if (!same_value(pstate, list_nth(a, i), list_nth(b, i)))
			return false;
	return true;
}

/* Of two calls that begin with a column. */
static bool
same_arguments(const KdaWordContext *cxt, FuncCall *a, FuncCall *b)
{
	return a->args && b->args && same_column(cxt, linitial(a->args), linitial(b->args)) &&
		same_values(cxt->pstate, list_copy_tail(a->args, 1), list_copy_tail(b->args, 1));
}

List *
kda_words_rounding(FuncCall *call)
{
	const char *name;
	const char *unit;

	if (list_length(call->funcname) != 2 || strcmp(strVal(linitial(call->funcname)), KDA_SCHEMA) != 0 ||
		list_length(call->args) != 2)
		return NIL;
	name = strVal(lsecond(call->funcname));
	if (strcmp(name, "step") == 0)
		return list_make1(lsecond(call->args));
	if (strcmp(name, "floor") != 0 || !IsA(lsecond(call->args), A_Const) ||
		!IsA(&((A_Const *) lsecond(call->args))->val, String))
		return NIL;
	unit = strVal(&((A_Const *) lsecond(call->args))->val);
	/* weeks begin on Mondays, the epoch was a Thursday */
	if (strcmp(unit, "week") == 0)
		return list_make2(kda_raw_interval("7 days"), kda_raw_interval("4 days"));
	if (strcmp(unit, "quarter") == 0)
		return list_make1(kda_raw_interval("3 months"));
	return list_make1(kda_raw_interval(psprintf("1 %s", unit)));
}

/* Does the expression say the same as the key?  STEP and FLOOR may. */
static bool
is_key(const KdaWordContext *cxt, Node *node, Node *key)
{
	FuncCall   *a = (FuncCall *) node;
	FuncCall   *b = (FuncCall *) key;
	List	   *x;

	if (a == NULL || b == NULL || !IsA(a, FuncCall))
		return false;
	x = kda_words_rounding(a);
	if (x)
		return same_column(cxt, linitial(a->args), linitial(b->args)) &&
			same_values(cxt->pstate, x, kda_words_rounding(b));
	return equal(a->funcname, b->funcname) && same_arguments(cxt, a, b);
}

/* The window's GROUP BY item goes: window_start and window_end take its place. */
static void
take_key(KdaWordContext *cxt, SelectStmt *select)
{
	ListCell   *lc;
	List	   *rest = NIL;

	foreach(lc, kda_words_group_items(select))
		if (!is_key(cxt, kda_words_group_item(select, lfirst(lc)), cxt->key))
			rest = lappend(rest, lfirst(lc));
	select->groupClause = rest;
}

KdaWindowClause *
kda_words_choose_window(List *clauses, KdaIsTime is_time, void *arg)
{
	ListCell   *lc;

	/* beside a window that is stated, STEP and FLOOR are keys */
	foreach(lc, clauses)
		if (!((KdaWindowClause *) lfirst(lc))->only_if_time)
			return lfirst(lc);
	foreach(lc, clauses)
		if (is_time(((KdaWindowClause *) lfirst(lc))->time, arg))
			return lfirst(lc);
	return NULL;
}

static bool
is_word(Node *column, const char *word)
{
	return column && IsA(column, ColumnRef) && IsA(llast(((ColumnRef *) column)->fields), String) &&
		pg_strcasecmp(strVal(llast(((ColumnRef *) column)->fields)), word) == 0;
}

static bool
groups_by_word(SelectStmt *select, const char *word)
{
	ListCell   *lc;

	foreach(lc, kda_words_group_items(select))
		if (is_word(kda_words_group_item(select, lfirst(lc)), word))
			return true;
	return false;
}

static void
check_time(ParseState *pstate, KdaWindowClause *w, const char *stream, const char *time)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("column \"%s\" is not the time attribute of stream \"%s\"",
					NameListToString(((ColumnRef *) w->time)->fields), stream),
			 time ? errdetail("It is \"%s\".", time) :
			 errdetail("The stream declares none: its time is the records' arrival."),
			 time ? errhint("Windows are over the stream's time: write %s.", quote_identifier(time)) :
			 errhint("Write ROWTIME, or declare the column with WATERMARK FOR or option rowtime of the stream."),
			 parser_errposition(pstate, exprLocation(w->time))));
}

static void
two_windows(ParseState *pstate, KdaWindowClause *w)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("a SELECT has one window"),
			 w->in_from ? errhint("Put each TABLE (...) into a subquery.") :
			 errhint("Write a SELECT for each, in continuous queries of their own."),
			 parser_errposition(pstate, w->location)));
}

void
kda_words_check_window(ParseState *pstate, SelectStmt *select, List *clauses, KdaWindowClause *window,
					   KdaIsTime is_time, void *arg, const char *stream, const char *time)
{
	ListCell   *lc;

	if (window == NULL)
		return;
	foreach(lc, clauses)
	{
		KdaWindowClause *w = lfirst(lc);

		if (w == window)
			continue;
		if (!w->only_if_time)
			two_windows(pstate, w);
		/* beside a window that is stated, a column is a key; but ROWTIME, elsewhere, is the window's */
		if (is_time(w->time, arg) && (window->only_if_time || is_word(w->time, "rowtime")) &&
			!(window->only_if_time && same_values(pstate, w->args, window->args)))
			two_windows(pstate, w);
	}
	if (window->time && !window->only_if_time && !is_time(window->time, arg))
		check_time(pstate, window, stream, time);
	if (window->in_from && kda_words_aggregated(select) &&
		!(groups_by_word(select, "window_start") && groups_by_word(select, "window_end")))
		ereport(ERROR,
				(errcode(ERRCODE_GROUPING_ERROR),
				 errmsg("an aggregate over TABLE (%s (...)) must be grouped by its windows",
						window->kind == KDA_WINDOW_TUMBLING ? "TUMBLE" : window->kind == KDA_WINDOW_SLIDING ? "HOP" :
						window->kind == KDA_WINDOW_CUMULATING ? "CUMULATE" : "SESSION"),
				 errhint("GROUP BY window_start, window_end, ..."),
				 parser_errposition(pstate, window->location)));
}

void
kda_words_set_window(KdaWordContext *cxt, SelectStmt *select, KdaWindowClause *window)
{
	cxt->windowed = window != NULL;
	cxt->in_from = window && window->in_from;
	cxt->key = window ? window->key : NULL;
	if (cxt->key)
		take_key(cxt, select);
}

/*---- replacing words */

static Node *
replace_ref(ColumnRef *ref, bool in_aggregate, void *arg)
{
	KdaWordContext *cxt = arg;
	const char *word = stream_word(cxt, ref);

	if (word == NULL)
		return NULL;
	if (cxt->windowed && (list_length(ref->fields) == 1 || cxt->in_from))
	{
		if (strcmp(word, "window_start") == 0 || strcmp(word, "window_end") == 0)
		{
			cxt->named_window = true;
			return window_column(word, ref->location);
		}
		if (strcmp(word, "window_time") == 0)
			return window_time(ref->location);
		if (strcmp(word, "window_closed") == 0 && cxt->closed)
			return copyObject(cxt->closed);
		if (strcmp(word, "window_closed") == 0 || strcmp(word, "window_revision") == 0)
			return kda_raw_call(word, NIL, ref->location);
	}
	if (pg_strcasecmp(word, "rowtime") == 0)
	{
		if (cxt->windowed && cxt->outside && !in_aggregate)
			return window_column("window_end", ref->location);
		if (is_rowtime_word(cxt, word))
			return kda_words_rowtime(cxt, ref->location);
	}
	return NULL;
}

/* Does the call name what the key names: TUMBLE_START of TUMBLE?  The rest of its name, or NULL. */
static const char *
auxiliary(KdaWordContext *cxt, FuncCall *call)
{
	FuncCall   *key = (FuncCall *) cxt->key;
	const char *name = strVal(llast(call->funcname));
	const char *of;
	int			n;

	if (key == NULL || list_length(key->funcname) > 1 || list_length(call->funcname) > 1)
		return NULL;
	of = strVal(llast(key->funcname));
	n = strlen(of);
	return strncmp(name, of, n) == 0 && name[n] == '_' ? name + n + 1 : NULL;
}

/* What GROUP BY says of the records is said of them in the select list, too. */
static Node *
grouped_call(KdaWordContext *cxt, FuncCall *call)
{
	ListCell   *lc;

	foreach(lc, cxt->grouped)
		if (equal(call, lfirst(lc)) || is_key(cxt, (Node *) call, lfirst(lc)))
		{
			Node	   *inside;

			cxt->outside = false;
			inside = linitial(kda_words_expressions(cxt, list_make1(copyObject(call))));
			cxt->outside = true;
			return inside;
		}
	return NULL;
}

static Node *
replace_call(FuncCall *call, bool in_aggregate, void *arg)
{
	KdaWordContext *cxt = arg;
	const char *what;

	if (cxt->windowed && cxt->outside && !in_aggregate && cxt->grouped)
	{
		Node	   *inside = grouped_call(cxt, call);

		if (inside)
			return inside;
	}
	if (!cxt->windowed || !cxt->keyed || in_aggregate || cxt->key == NULL)
		return NULL;
	if (is_key(cxt, (Node *) call, cxt->key))
	{
		cxt->named_window = true;
		return window_column("window_start", call->location);
	}
	what = auxiliary(cxt, call);
	if (what == NULL)
		return NULL;
	if (strcmp(what, "start") != 0 && strcmp(what, "end") != 0 && strcmp(what, "rowtime") != 0 &&
		strcmp(what, "proctime") != 0)
		return NULL;
	if (!same_arguments(cxt, call, (FuncCall *) cxt->key))
		ereport(ERROR,
				(errcode(ERRCODE_GROUPING_ERROR),
				 errmsg("%s has other arguments than %s in GROUP BY", NameListToString(call->funcname),
						NameListToString(((FuncCall *) cxt->key)->funcname)),
				 errhint("Repeat the arguments of GROUP BY."),
				 parser_errposition(cxt->pstate, call->location)));
	if (strcmp(what, "proctime") == 0)
		return (Node *) makeFuncCall(list_make2(makeString("pg_catalog"), makeString("now")), NIL,
									 COERCE_EXPLICIT_CALL, call->location);
	if (strcmp(what, "rowtime") == 0)
		return window_time(call->location);
	cxt->named_window = true;
	return window_column(strcmp(what, "start") == 0 ? "window_start" : "window_end", call->location);
}

/* A select-list word keeps its name although an expression takes its place. */
static void
name_targets(KdaWordContext *cxt, List *targets)
{
	ListCell   *lc;

	foreach(lc, targets)
	{
		ResTarget  *rt = lfirst_node(ResTarget, lc);

		if (rt->name || rt->val == NULL)
			continue;
		if (IsA(rt->val, ColumnRef))
		{
			Node	   *last = llast(((ColumnRef *) rt->val)->fields);

			if (IsA(last, String))
				rt->name = pstrdup(strVal(last));
		}
		else if (IsA(rt->val, FuncCall) && auxiliary(cxt, (FuncCall *) rt->val))
			rt->name = pstrdup(strVal(llast(((FuncCall *) rt->val)->funcname)));
	}
}

/* SELECT * FROM TABLE (TUMBLE (…)) shows the windows behind the columns. */
static List *
show_windows(KdaWordContext *cxt, List *targets)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, targets)
	{
		ResTarget  *rt = lfirst_node(ResTarget, lc);
		ColumnRef  *ref = (ColumnRef *) rt->val;

		result = lappend(result, rt);
		if (!IsA(ref, ColumnRef) || !IsA(llast(ref->fields), A_Star) ||
			!(list_length(ref->fields) == 1 ||
			  (list_length(ref->fields) == 2 && strcmp(strVal(linitial(ref->fields)), cxt->stream_name) == 0)))
			continue;
		cxt->named_window = true;
		result = lappend(result, kda_raw_target("window_start", window_column("window_start", -1)));
		result = lappend(result, kda_raw_target("window_end", window_column("window_end", -1)));
		result = lappend(result, kda_raw_target("window_time", window_time(-1)));
	}
	return result;
}

void
kda_words_apply(KdaWordContext *cxt, SelectStmt *select)
{
	KdaWords	words = {replace_ref, replace_call, kda_raw_is_aggregate, cxt, false};
	ListCell   *lc;

	/* a key that has left GROUP BY was one */
	cxt->aggregated = cxt->key != NULL || kda_words_aggregated(select);
	if (cxt->in_from)
		select->targetList = show_windows(cxt, select->targetList);
	name_targets(cxt, select->targetList);
	foreach(lc, kda_words_group_items(select))
	{
		Node	   *item = kda_words_group_item(select, lfirst(lc));

		if (IsA(item, FuncCall))
			cxt->grouped = lappend(cxt->grouped, copyObject(item));
	}
	cxt->keyed = true;
	cxt->outside = cxt->aggregated;
	(void) kda_words_replace((Node *) select->targetList, &words);
	select->havingClause = kda_words_replace(select->havingClause, &words);
	(void) kda_words_replace((Node *) select->sortClause, &words);
	(void) kda_words_replace((Node *) select->windowClause, &words);
	cxt->outside = false;
	(void) kda_words_replace((Node *) select->distinctClause, &words);
	(void) kda_words_replace((Node *) select->groupClause, &words);
	cxt->keyed = false;
	select->whereClause = kda_words_replace(select->whereClause, &words);
	foreach(lc, select->fromClause)
		kda_words_replace_in_joins(lfirst(lc), &words);
}

void
kda_words_replace_in_select(SelectStmt *select, KdaWords *words)
{
	ListCell   *lc;

	foreach(lc, select->targetList)
	{
		ResTarget  *rt = lfirst_node(ResTarget, lc);

		/* it keeps its name */
		if (rt->name == NULL && rt->val && IsA(rt->val, ColumnRef) && IsA(llast(((ColumnRef *) rt->val)->fields), String))
			rt->name = pstrdup(strVal(llast(((ColumnRef *) rt->val)->fields)));
	}
	(void) kda_words_replace((Node *) select->targetList, words);
	(void) kda_words_replace((Node *) select->distinctClause, words);
	(void) kda_words_replace((Node *) select->sortClause, words);
	(void) kda_words_replace((Node *) select->windowClause, words);
	(void) kda_words_replace((Node *) select->groupClause, words);
	select->havingClause = kda_words_replace(select->havingClause, words);
	select->whereClause = kda_words_replace(select->whereClause, words);
	foreach(lc, select->fromClause)
		kda_words_replace_in_joins(lfirst(lc), words);
}

List *
kda_words_expressions(KdaWordContext *cxt, List *expressions)
{
	KdaWords	words = {replace_ref, replace_call, kda_raw_is_aggregate, cxt, false};

	return (List *) kda_words_replace((Node *) expressions, &words);
}

/*---- what kind of query */

static bool
aggregate_walker(Node *node, void *found)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink) || IsA(node, SelectStmt))
		return false;
	if (IsA(node, FuncCall) && ((FuncCall *) node)->over == NULL && kda_raw_is_aggregate((FuncCall *) node))
		return true;
	return raw_expression_tree_walker(node, aggregate_walker, found);
}

bool
kda_words_aggregated(SelectStmt *select)
{
	return select->groupClause != NIL || select->havingClause != NULL ||
		aggregate_walker((Node *) select->targetList, NULL) || aggregate_walker((Node *) select->sortClause, NULL);
}

/*---- windows of streams in FROM */

/* RANGE CURRENT ROW of a stream that is joined with none says nothing. */
static bool
is_current_row(const KdaRowWindow *w)
{
	return !w->rows && (w->def->frameOptions & FRAMEOPTION_START_CURRENT_ROW) &&
		(w->def->frameOptions & FRAMEOPTION_END_CURRENT_ROW) && w->def->partitionClause == NIL;
}

void
kda_words_refuse(ParseState *pstate, KdaQuerySpec *spec)
{
	ListCell   *lc;

	foreach(lc, spec->row_windows)
	{
		KdaRowWindow *w = lfirst(lc);

		if (w->relation < 0 || w->bound || is_current_row(w))
			continue;
		if (w->rows)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a stream in FROM cannot have a window of ROWS"),
					 errdetail("Which rows of it are the last ones, when a row of another stream comes, depends on the order in which the two arrive: the result would not be the same twice."),
					 errhint("Say how far back in time: FROM a OVER (RANGE INTERVAL '1' MINUTE PRECEDING) AS x JOIN b ON ...; the last rows of one stream: OVER (ROWS ... PRECEDING) in the select list."),
					 parser_errposition(pstate, w->location)));
		if (w->def->partitionClause)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the window of a stream in FROM cannot have PARTITION BY"),
					 errhint("Compare the columns in the condition of the join: ON x.k = y.k."),
					 parser_errposition(pstate, w->location)));
		if (w->following || !(w->def->frameOptions & FRAMEOPTION_END_CURRENT_ROW))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a window that reaches ahead needs another stream without a window to be joined with"),
					 errdetail("It is counted from the current row of that stream."),
					 errhint("FROM a JOIN b OVER (RANGE INTERVAL '1' MINUTE FOLLOWING) AS y ON ...; or compare the times: b.rowtime BETWEEN a.rowtime AND a.rowtime + INTERVAL '1' MINUTE."),
					 parser_errposition(pstate, w->location)));
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the window of a stream in FROM needs another stream to be joined with"),
				 errdetail("It says how much earlier than a row of the other stream its rows may be."),
				 errhint("Leave it out: a row of the stream is joined with tables as it comes. Aggregates of the last minute: OVER (RANGE INTERVAL '1' MINUTE PRECEDING) in the select list."),
				 parser_errposition(pstate, w->location)));
	}
}
