/*-------------------------------------------------------------------------
 *
 * settle.c
 *	  After core has parsed the copy: what spellings.c has left in it is found
 *	  again in the tree, by its place.
 *
 * STEP (x, i), FLOOR (x, 'minute') and CEIL (x, 'minute') become kda.step,
 * kda.floor, kda.ceil.  GROUP BY … STEP (c BY i), FLOOR (c TO MINUTE), TUMBLE
 * (c, i), HOP (c, slide, size), SESSION (c, gap) are noted as windows (the last
 * three, outside of statements of ours, unless a function is called so); the
 * items stay where they are, since STEP of another column than the time is just
 * a key (declare/query_words.c knows).  Windows of joined relations become
 * conditions on their times.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "declare/query_words.h"
#include "dialect/parse.h"
#include "dialect/words.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"

typedef struct Settle
{
	KdaParser  *p;
	KdaQuerySpec *spec;
	bool		all;
	List	   *found;			/* int: places of calls */
	bool		(*is_stream) (Node *item);	/* the catalog may be asked; NULL: not yet */
} Settle;

/*---- calls */

static bool
call_walker(Node *node, void *arg)
{
	Settle	   *s = arg;

	if (node == NULL)
		return false;
	if (IsA(node, FuncCall) && list_length(((FuncCall *) node)->funcname) == 1 &&
		list_member_int(s->spec->calls, ((FuncCall *) node)->location))
	{
		FuncCall   *call = (FuncCall *) node;
		char	   *name = strVal(linitial(call->funcname));

		call->funcname = list_make2(makeString(KDA_SCHEMA), makeString(strcmp(name, "ceiling") == 0 ? "ceil" : name));
		s->found = list_append_unique_int(s->found, call->location);
	}
	return raw_expression_tree_walker(node, call_walker, arg);
}

/*---- windows */

static bool
is_ours(Settle *s, FuncCall *call)
{
	return list_length(call->funcname) == 2 && list_member_int(s->spec->calls, call->location);
}

static bool
is_plain(Settle *s, FuncCall *call, const char *name, int min, int max)
{
	return list_length(call->funcname) == 1 && strcmp(strVal(linitial(call->funcname)), name) == 0 &&
		list_length(call->args) >= min && list_length(call->args) <= max &&
		(s->all || !kda_raw_is_function(name));
}

/* The window that a GROUP BY item is; NULL: it is none. */
static KdaWindowClause *
window_of_item(Settle *s, Node *item)
{
	FuncCall   *call = (FuncCall *) item;
	KdaWindowClause *w;

	if (item == NULL || !IsA(item, FuncCall) || call->args == NIL || !IsA(linitial(call->args), ColumnRef) ||
		call->agg_order || call->agg_filter || call->agg_distinct || call->over)
		return NULL;
	w = palloc0(sizeof(KdaWindowClause));
	w->only_if_time = true;
	if (is_ours(s, call))
		w->args = kda_words_rounding(call);
	if (w->args == NIL)
	{
		w->only_if_time = false;
		if (is_plain(s, call, "tumble", 2, 3))
			w->args = list_copy_tail(call->args, 1);
		else if (is_plain(s, call, "hop", 3, 4))
		{
			w->kind = KDA_WINDOW_SLIDING;
			/* the slide comes first there */
			w->args = list_concat(list_make2(lthird(call->args), lsecond(call->args)), list_copy_tail(call->args, 3));
		}
		else if (is_plain(s, call, "session", 2, 2))
		{
			w->kind = KDA_WINDOW_SESSION;
			w->args = list_copy_tail(call->args, 1);
		}
		else
			return NULL;
	}
	w->args = copyObject(w->args);
	w->time = copyObject(linitial(call->args));
	w->key = copyObject(item);
	w->location = call->location;
	return w;
}

static void
note_group_windows(Settle *s, SelectStmt *select)
{
	ListCell   *lc;

	foreach(lc, kda_words_group_items(select))
	{
		KdaWindowClause *w = window_of_item(s, kda_words_group_item(select, lfirst(lc)));

		if (w == NULL)
			continue;
		kda_parse_select_span(s->p->tokens, kda_parse_token_at(s->p->tokens, w->location), &w->span_start, &w->span_end);
		s->spec->windows = lappend(s->spec->windows, w);
	}
}

/* OVER (… ROWS 10 PRECEDING) without ORDER BY: PostgreSQL has no use for RANGE so, and a stream has an order. */
static void
note_row_window(Settle *s, WindowDef *def)
{
	KdaRowWindow *w;

	if ((def->frameOptions & FRAMEOPTION_NONDEFAULT) == 0 || def->orderClause || def->refname ||
		(def->frameOptions & (FRAMEOPTION_RANGE | FRAMEOPTION_ROWS)) == 0)
		return;
	w = palloc0(sizeof(KdaRowWindow));
	w->def = def;
	w->rows = (def->frameOptions & FRAMEOPTION_ROWS) != 0;
	w->unbounded = (def->frameOptions & FRAMEOPTION_START_UNBOUNDED_PRECEDING) != 0;
	w->reach = def->startOffset;
	w->relation = -1;
	w->location = def->location;
	kda_parse_select_span(s->p->tokens, kda_parse_token_at(s->p->tokens, def->location), &w->span_start, &w->span_end);
	s->spec->row_windows = lappend(s->spec->row_windows, w);
}

/*---- FROM a OVER (RANGE …) AS x JOIN b OVER (RANGE …) AS y */

typedef struct Reach
{
	const char *name;			/* of the relation */
	KdaRowWindow *window;		/* NULL: it has none, only its current row */
} Reach;

/* What the window is when it has been named: OVER w. */
static void
find_named(SelectStmt *select, KdaRowWindow *w)
{
	ListCell   *lc;

	if (w->def->name == NULL)
		return;
	foreach(lc, select->windowClause)
	{
		WindowDef  *def = lfirst_node(WindowDef, lc);

		if (strcmp(def->name, w->def->name) != 0)
			continue;
		w->def = def;
		w->rows = (def->frameOptions & FRAMEOPTION_ROWS) != 0;
		w->unbounded = (def->frameOptions & FRAMEOPTION_START_UNBOUNDED_PRECEDING) != 0;
		w->reach = def->startOffset;
	}
}

static void
add_reach(List **reaches, const char *name, KdaRowWindow *window)
{
	Reach	   *r = palloc(sizeof(Reach));

	r->name = name;
	r->window = window;
	*reaches = lappend(*reaches, r);
}

/* Relations below item that have a window in time; once the catalog is known, streams without one as well. */
static void
reaches_of(Settle *s, SelectStmt *select, Node *item, List **reaches)
{
	ListCell   *lc;
	RangeVar   *rv = (RangeVar *) item;

	if (item && IsA(item, JoinExpr))
	{
		reaches_of(s, select, ((JoinExpr *) item)->larg, reaches);
		reaches_of(s, select, ((JoinExpr *) item)->rarg, reaches);
		return;
	}
	if (item && IsA(item, RangeSubselect) && s->is_stream && ((RangeSubselect *) item)->alias && s->is_stream(item))
		add_reach(reaches, ((RangeSubselect *) item)->alias->aliasname, NULL);
	if (item == NULL || !IsA(item, RangeVar))
		return;
	foreach(lc, s->spec->row_windows)
	{
		KdaRowWindow *w = lfirst(lc);

		if (w->relation < 0 || w->relation != rv->location)
			continue;
		find_named(select, w);
		if ((w->def->frameOptions & FRAMEOPTION_RANGE) && w->def->partitionClause == NIL &&
			((w->def->frameOptions & FRAMEOPTION_END_CURRENT_ROW) || s->is_stream))
			add_reach(reaches, rv->alias ? rv->alias->aliasname : rv->relname, w);
		return;
	}
	if (s->is_stream && s->is_stream(item))
		add_reach(reaches, rv->alias ? rv->alias->aliasname : rv->relname, NULL);
}

static Node *
and_raw(Node *a, Node *b)
{
	return a ? (Node *) makeBoolExpr(AND_EXPR, list_make2(a, b), -1) : b;
}

static bool
follows(const KdaRowWindow *w)
{
	return w && (w->following || !(w->def->frameOptions & FRAMEOPTION_END_CURRENT_ROW));
}

/* later.ROWTIME <= earlier.ROWTIME + so much, added to the condition. */
static Node *
within_reach(Node *condition, const Reach *earlier, const Reach *later)
{
	KdaRowWindow *w = earlier->window;
	Node	   *reach = NULL;
	int			location = w ? w->location : later->window->location;

	/* what comes before the other's current row, or behind it */
	if (w && !w->following)
		reach = w->unbounded ? NULL : w->reach;
	else if (w == NULL)
		reach = later->window->following ? later->window->reach : later->window->def->endOffset;
	if ((w && !w->following && w->unbounded) ||
		(w == NULL && (later->window->def->frameOptions & FRAMEOPTION_END_UNBOUNDED_FOLLOWING)))
		return condition;
	return and_raw(condition,
				   (Node *) makeA_Expr(AEXPR_OP, list_make1(makeString("<=")),
									   kda_raw_column(later->name, "rowtime", location),
									   (Node *) makeSimpleA_Expr(AEXPR_OP, "+", kda_raw_column(earlier->name, "rowtime", location),
																 reach ? copyObject(reach) : kda_raw_interval("0"), location),
									   location));
}

/*
 * A row is seen by those of the other side that come up to so much later.  A
 * side without a window has its current row: what the other's window holds is
 * counted from there.  both: so are two sides with windows, but for those that
 * reach ahead.
 */
static Node *
bind(Node *condition, List *left, List *right, bool both)
{
	ListCell   *ll,
			   *lr;

	foreach(ll, left)
		foreach(lr, right)
		{
			Reach	   *l = lfirst(ll);
			Reach	   *r = lfirst(lr);

			if (l->window == NULL ? r->window == NULL : r->window && (!both || follows(l->window) || follows(r->window)))
				continue;
			condition = within_reach(condition, l, r);
			condition = within_reach(condition, r, l);
			if (l->window)
				l->window->bound = true;
			if (r->window)
				r->window->bound = true;
		}
	return condition;
}

/* inner: neither an outer join nor an alias stands above, so that WHERE may say it. */
static void
bind_joins(Settle *s, SelectStmt *select, Node *item, bool inner)
{
	JoinExpr   *join = (JoinExpr *) item;
	List	   *left = NIL;
	List	   *right = NIL;

	if (item == NULL || !IsA(item, JoinExpr))
		return;
	inner = inner && join->jointype == JOIN_INNER && join->alias == NULL;
	bind_joins(s, select, join->larg, inner);
	bind_joins(s, select, join->rarg, inner);
	reaches_of(s, select, join->larg, &left);
	reaches_of(s, select, join->rarg, &right);
	/* two windows say it all before the catalog is known */
	if (!join->isNatural && !join->usingClause)
		join->quals = bind(join->quals, left, right, s->is_stream == NULL);
	else if (inner)
		select->whereClause = bind(select->whereClause, left, right, s->is_stream == NULL);
	else if (s->is_stream)
		/* a condition beside USING: in a continuous query both become one with ON */
		join->quals = bind(join->quals, left, right, true);
}

static bool
uses_window_walker(Node *node, void *name)
{
	if (node == NULL)
		return false;
	if (IsA(node, FuncCall) && ((FuncCall *) node)->over && ((FuncCall *) node)->over->name &&
		strcmp(((FuncCall *) node)->over->name, name) == 0)
		return true;
	return raw_expression_tree_walker(node, uses_window_walker, name);
}

/*
 * Windows of the relations of FROM bound the time between the rows that join:
 * they become conditions on their times.
 */
static void
bind_relations(Settle *s, SelectStmt *select)
{
	List	   *before = NIL;
	ListCell   *lc;

	if (s->spec->row_windows == NIL)
		return;
	foreach(lc, select->fromClause)
	{
		List	   *here = NIL;

		bind_joins(s, select, lfirst(lc), true);
		reaches_of(s, select, lfirst(lc), &here);
		select->whereClause = bind(select->whereClause, before, here, s->is_stream == NULL);
		before = list_concat(before, here);
	}
	/* a window that only FROM has named is nothing to core */
	foreach(lc, select->windowClause)
	{
		WindowDef  *def = lfirst_node(WindowDef, lc);
		ListCell   *lw;
		bool		bound = false;

		foreach(lw, s->spec->row_windows)
			bound |= ((KdaRowWindow *) lfirst(lw))->bound && ((KdaRowWindow *) lfirst(lw))->def == def;
		if (bound && !uses_window_walker((Node *) select->targetList, def->name))
			select->windowClause = foreach_delete_current(select->windowClause, lc);
	}
}

static bool
window_walker(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	if (IsA(node, SelectStmt))
	{
		bind_relations(arg, (SelectStmt *) node);
		note_group_windows(arg, (SelectStmt *) node);
	}
	else if (IsA(node, WindowDef))
		note_row_window(arg, (WindowDef *) node);
	return raw_expression_tree_walker(node, window_walker, arg);
}

/* Two windows of one SELECT, unless both stand in FROM or may turn out to be keys. */
static void
refuse_two_windows(Settle *s)
{
	ListCell   *la,
			   *lb;

	foreach(la, s->spec->windows)
	{
		KdaWindowClause *a = lfirst(la);
		int			start,
					end;

		if (!a->in_from)
			continue;
		kda_parse_select_span(s->p->tokens, kda_parse_token_at(s->p->tokens, a->span_start), &start, &end);
		foreach(lb, s->spec->windows)
		{
			KdaWindowClause *b = lfirst(lb);

			if (!b->in_from && !b->only_if_time && b->span_start == start && b->span_end == end)
				ereport(ERROR,
						(errcode(ERRCODE_SYNTAX_ERROR),
						 errmsg("a SELECT has one window"),
						 errdetail("Its windows are those of FROM TABLE (...)."),
						 errposition(kda_parse_position(s->p, b->location))));
		}
	}
}

void
kda_parse_settle(KdaParser *p, KdaQuerySpec *spec, Node *query, bool all)
{
	Settle		s = {p, spec, all, NIL, NULL};
	ListCell   *lc;

	(void) call_walker(query, &s);
	foreach(lc, spec->windows)
	{
		KdaWindowClause *w = lfirst(lc);

		(void) call_walker((Node *) w->args, &s);
		(void) call_walker((Node *) w->partition, &s);
	}
	foreach(lc, spec->row_windows)
		(void) call_walker((Node *) ((KdaRowWindow *) lfirst(lc))->def, &s);
	foreach(lc, spec->calls)
		if (!list_member_int(s.found, lfirst_int(lc)))
		{
			/* in a place that is not looked into, where core would have stopped at BY or TO */
			p->at = kda_parse_call_word(p->tokens, kda_parse_token_at(p->tokens, lfirst_int(lc)));
			kda_parse_unexpected(p, NULL);
		}
	(void) window_walker(query, &s);
	refuse_two_windows(&s);
}

static bool
bind_walker(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	if (IsA(node, SelectStmt))
		bind_relations(arg, (SelectStmt *) node);
	return raw_expression_tree_walker(node, bind_walker, arg);
}

void
kda_bind_row_windows(KdaQuerySpec *spec, SelectStmt *select, bool (*is_stream) (Node *item))
{
	Settle		s = {NULL, spec, true, NIL, is_stream};

	(void) bind_walker((Node *) select, &s);
}
