/*-------------------------------------------------------------------------
 *
 * window_join.c
 *	  Joins of streams by window: rows of both that are in the same window.
 *
 * The records of all sides go into one stream of ours, marked with their side;
 * the query is one over the windows of that stream.  For each of them it runs
 * what the user has written, over
 *
 *		WITH kda_same_window AS (SELECT kda_side, …, window_start, window_end FROM part)
 *
 * and every side is a SELECT from that.  So all of SQL can be said about the
 * rows of a window: inner and outer joins, IN and EXISTS, aggregates on either
 * side or above, and nothing is kept once the window has closed.
 *
 * UNION, INTERSECT and EXCEPT of SELECTs with the same window are done in the
 * same way.
 *
 * Two spellings of joins.  Flink's: each side is a subquery with a window in it, and the
 * conditions say that the bounds are equal; same_window.c checks that they do.
 * Ours: FROM a JOIN b ON … WINDOWED BY …, where no condition compares the times
 * of both sides (one that does bounds the join, and the window is over its rows).
 *
 * Runs in the session that declares the query, on the raw tree.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "declare/compose.h"
#include "catalog/rows.h"
#include "declare/from.h"
#include "catalog/options.h"
#include "catalog/pg_type.h"
#include "declare/split.h"
#include "declare/window_clause.h"
#include "declare/window_join.h"
#include "dialect/adhoc.h"
#include "dialect/words.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

static Node *
const_int(int value)
{
	A_Const    *c = makeNode(A_Const);

	c->val.ival.type = T_Integer;
	c->val.ival.ival = value;
	c->location = -1;
	return (Node *) c;
}

static Node *
null_of(Oid type, int32 typmod)
{
	A_Const    *null = makeNode(A_Const);
	TypeCast   *cast = makeNode(TypeCast);

	null->isnull = true;
	null->location = cast->location = -1;
	cast->arg = (Node *) null;
	cast->typeName = makeTypeNameFromOid(type, typmod);
	return (Node *) cast;
}

static char *
column_name(const KdaJoinLeaf *leaf, int column)
{
	return psprintf("c%d_%d", leaf->number, column + 1);
}

/* Hidden columns of a side: no two have the same name, for NATURAL JOIN. */
static char *
hidden(const KdaJoinLeaf *leaf, const char *what)
{
	return psprintf("kda_%s_%d", what, leaf->number);
}

bool
kda_is_side_column(const char *name)
{
	return strncmp(name, "kda_time_", 9) == 0 || strncmp(name, "kda_start_", 10) == 0 || strncmp(name, "kda_end_", 8) == 0;
}

static bool
is_hidden(TargetEntry *tle, Query *query, void *arg)
{
	return kda_is_side_column(tle->resname);
}

/*---- the window of all */

static char *
length_text(const KdaWindowSpec *spec, int64 length)
{
	Interval	iv = {0};

	if (spec->unit == KDA_UNIT_MONTH)
		iv.month = length;
	else if (spec->unit == KDA_UNIT_DAY)
		iv.day = length;
	else
		iv.time = length;
	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(&iv)));
}

/* For a message. */
static char *
window_text(const KdaWindowSpec *spec)
{
	Interval	offset = {.time = spec->offset_us};
	char	   *lengths = length_text(spec, spec->size);

	if (spec->slide != spec->size)
		lengths = psprintf("%s, %s", lengths, length_text(spec, spec->slide));
	if (spec->offset_us != 0)
		lengths = psprintf("%s, offset %s", lengths, DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(&offset))));
	return psprintf("%s (%s)", kda_window_kind_name(spec->kind), lengths);
}

/* What cannot be the window of a join is refused, and two that are not the same. */
static void
check_windows(KdaWindowJoin *j)
{
	KdaWindowSpec *first = NULL;
	ListCell   *lc;

	foreach(lc, j->leaves)
	{
		KdaJoinLeaf	   *leaf = lfirst(lc);
		KdaWindowSpec *spec = kda_window_of_clause(j->pstate, leaf->window, j->c->time_zone);

		if (!kda_window_is_aligned(spec))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("streams cannot be joined by %s windows", kda_window_kind_name(spec->kind)),
					 errdetail("Their bounds depend on the rows of each stream, so that rows of two streams are hardly ever in the same one."),
					 errhint("Use TUMBLING, SLIDING or CUMULATING; or join the streams by their times first and put the window over the result: ON ... AND b.rowtime BETWEEN a.rowtime - INTERVAL '5' MINUTE AND a.rowtime."),
					 parser_errposition(j->pstate, leaf->window->location)));
		if (first == NULL)
			first = spec;
		if (strcmp(kda_window_format(first), kda_window_format(spec)) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the streams that a window joins must have the same window"),
					 errdetail("One is %s, the other %s.", window_text(first), window_text(spec)),
					 errhint("Give both the same kind, size, slide and offset."),
					 parser_errposition(j->pstate, leaf->window->location)));
	}
}

/*
 * Flink's form with windows that are not one: each side is then a stream of
 * the rows of its windows, and the condition on the bounds one on times.
 */
static bool
joins_by_time(KdaWindowJoin *j)
{
	const char *first = NULL;
	bool		same = true;
	ListCell   *lc;

	foreach(lc, j->leaves)
	{
		KdaJoinLeaf *leaf = lfirst(lc);
		KdaWindowSpec *spec = kda_window_of_clause(j->pstate, leaf->window, j->c->time_zone);
		const char *text = kda_window_format(spec);

		if (leaf->sublink)
			return false;
		if (first == NULL)
			first = text;
		same = same && kda_window_is_aligned(spec) && strcmp(first, text) == 0;
	}
	return !j->ours && !same;
}

static int
location_of(Node *item)
{
	return IsA(item, RangeVar) ? ((RangeVar *) item)->location :
		kda_select_location((SelectStmt *) ((RangeSubselect *) item)->subquery);
}

/* The leaves' clauses go; theirs is one in FROM, at the place of the first. */
static void
move_windows(KdaWindowJoin *j)
{
	List	   *windows = NIL;
	ListCell   *lc,
			   *ll;

	foreach(lc, j->c->spec->windows)
	{
		bool		used = false;

		foreach(ll, j->leaves)
			used |= ((KdaJoinLeaf *) lfirst(ll))->window == lfirst(lc);
		if (!used)
			windows = lappend(windows, lfirst(lc));
	}
	j->c->spec->windows = windows;
}

static void
put_window(KdaWindowJoin *j, KdaWindowClause *window, int location)
{
	KdaWindowClause *one = palloc(sizeof(KdaWindowClause));

	*one = *window;
	one->in_from = true;
	one->time = one->key = NULL;
	one->only_if_time = false;
	one->span_start = location;
	one->span_end = location + 1;
	j->c->spec->windows = lappend(j->c->spec->windows, one);
}

/*---- the stream of all sides */

static void
describe(KdaWindowJoin *j, KdaJoinLeaf *leaf)
{
	KdaQuerySpec *spec = palloc0(sizeof(KdaQuerySpec));
	SelectStmt *all = makeNode(SelectStmt);
	ColumnRef  *star = makeNode(ColumnRef);

	if (IsA(leaf->item, RangeVar))
	{
		RangeVar   *rv = (RangeVar *) leaf->item;

		leaf->name = rv->alias ? rv->alias->aliasname : rv->relname;
	}
	else
	{
		RangeSubselect *sub = (RangeSubselect *) leaf->item;

		if (sub->alias == NULL)
			sub->alias = makeAlias(psprintf("kda_records_%d", leaf->number), NIL);
		leaf->name = sub->alias->aliasname;
	}
	star->fields = list_make1(makeNode(A_Star));
	star->location = -1;
	all->targetList = list_make1(makeNode(ResTarget));
	linitial_node(ResTarget, all->targetList)->val = (Node *) star;
	linitial_node(ResTarget, all->targetList)->location = -1;
	all->fromClause = list_make1(copyObject(leaf->item));
	spec->select = all;
	spec->outer_location = -1;
	leaf->split = kda_split_query(spec, j->c->source_text, j->c->time_zone, false);
	if (leaf->split->shape != KDA_SHAPE_ROWS)
		elog(ERROR, "a side of a window join is not made of records");
}

/* All sides go to one stream, so they share its worker. */
static void
check_workers(KdaWindowJoin *j)
{
	KdaJoinLeaf	   *first = linitial(j->leaves);
	const char *worker = kda_stream_options_get(first->split->stream)->worker;
	ListCell   *lc;

	foreach(lc, j->leaves)
	{
		KdaJoinLeaf	   *leaf = lfirst(lc);
		const char *other = kda_stream_options_get(leaf->split->stream)->worker;

		if (strcmp(worker, other) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
					 errmsg("streams \"%s\" and \"%s\" are on different workers", first->name, leaf->name),
					 errdetail("Option worker is '%s' and '%s'.", worker, other),
					 errhint("Streams that a query ties together share a worker: ALTER STREAM ... OPTIONS (SET worker '...')."),
					 parser_errposition(j->pstate, location_of(leaf->item))));
	}
}

static Oid
make_stream(KdaWindowJoin *j)
{
	int			n = 1;
	char	  **names;
	Oid		   *types;
	int32	   *typmods;
	ListCell   *lc;

	foreach(lc, j->leaves)
		n += ((KdaJoinLeaf *) lfirst(lc))->split->ncolumns;
	names = palloc(sizeof(char *) * n);
	types = palloc(sizeof(Oid) * n);
	typmods = palloc(sizeof(int32) * n);
	names[0] = KDA_SIDE_COLUMN;
	types[0] = INT4OID;
	typmods[0] = -1;
	n = 1;
	foreach(lc, j->leaves)
	{
		KdaJoinLeaf	   *leaf = lfirst(lc);

		for (int i = 0; i < leaf->split->ncolumns; i++)
		{
			names[n] = column_name(leaf, i);
			types[n] = leaf->split->types[i];
			typmods[n++] = leaf->split->typmods[i];
		}
	}
	return kda_make_part_stream(j->c, n, names, types, typmods,
								kda_stream_options_get(((KdaJoinLeaf *) linitial(j->leaves))->split->stream), NULL);
}

/* Conditions that can be asked of its records before they are kept. */
static void
take_conditions(KdaJoinLeaf *leaf, bool ours)
{
	SelectStmt *select = leaf->select;

	if (ours)
	{
		if (!leaf->nullable)
			leaf->where = kda_compose_conditions_on(select->whereClause, list_make1(makeString(leaf->name)));
		return;
	}
	if (list_length(select->fromClause) == 1 && linitial(select->fromClause) == leaf->item &&
		!kda_names_windows(select->whereClause))
	{
		leaf->where = select->whereClause;
		select->whereClause = NULL;
	}
}

/* INSERT INTO the stream SELECT its side, NULL, …, its columns, NULL, … */
static void
make_pump(KdaWindowJoin *j, KdaJoinLeaf *leaf)
{
	SelectStmt *select = makeNode(SelectStmt);
	ListCell   *lc;

	select->targetList = list_make1(kda_raw_target(KDA_SIDE_COLUMN, const_int(leaf->number)));
	foreach(lc, j->leaves)
	{
		KdaJoinLeaf	   *other = lfirst(lc);

		for (int i = 0; i < other->split->ncolumns; i++)
			select->targetList = lappend(select->targetList,
										 kda_raw_target(column_name(other, i),
														other == leaf ? kda_raw_column(leaf->name, leaf->split->names[i], -1) :
														null_of(other->split->types[i], other->split->typmods[i])));
	}
	select->fromClause = list_make1(copyObject(leaf->item));
	select->whereClause = leaf->where;
	(void) kda_compose_pump_into(j->c, select, -1, j->stream);
}

/*---- what stands in FROM instead */

/* (SELECT c1_1 AS x, … FROM kda_same_window WHERE kda_side = 1) AS a */
static Node *
side_in_from(KdaWindowJoin *j, KdaJoinLeaf *leaf)
{
	static const char *const whats[][2] = {{"time", "kda_time"}, {"start", "window_start"}, {"end", "window_end"}};
	RangeSubselect *sub = makeNode(RangeSubselect);
	SelectStmt *select = makeNode(SelectStmt);
	Alias	   *alias = IsA(leaf->item, RangeVar) ? ((RangeVar *) leaf->item)->alias : ((RangeSubselect *) leaf->item)->alias;

	for (int i = 0; i < leaf->split->ncolumns; i++)
		select->targetList = lappend(select->targetList,
									 kda_raw_target(leaf->split->names[i], kda_raw_column("k", column_name(leaf, i), -1)));
	for (int i = 0; i < lengthof(whats); i++)
		select->targetList = lappend(select->targetList,
									 kda_raw_target(hidden(leaf, whats[i][0]), kda_raw_column("k", whats[i][1], -1)));
	select->fromClause = list_make1(makeRangeVar(NULL, pstrdup(j->with), -1));
	linitial_node(RangeVar, select->fromClause)->alias = makeAlias("k", NIL);
	select->whereClause = (Node *) makeA_Expr(AEXPR_OP, list_make2(makeString("pg_catalog"), makeString("=")),
											  kda_raw_column("k", KDA_SIDE_COLUMN, -1), const_int(leaf->number), -1);
	sub->subquery = (Node *) select;
	sub->alias = alias ? copyObject(alias) : makeAlias(leaf->name, NIL);
	return (Node *) sub;
}

static Node *
replace_item(Node *from, Node *was, Node *now)
{
	if (from == was)
		return now;
	if (IsA(from, JoinExpr))
	{
		((JoinExpr *) from)->larg = replace_item(((JoinExpr *) from)->larg, was, now);
		((JoinExpr *) from)->rarg = replace_item(((JoinExpr *) from)->rarg, was, now);
	}
	return from;
}

/* SELECT … FROM part: what the sides read.  As a stand-in for the parser it has no FROM. */
static WithClause *
with_clause(KdaWindowJoin *j, bool stand_in, int location)
{
	WithClause *with = makeNode(WithClause);
	CommonTableExpr *cte = makeNode(CommonTableExpr);
	SelectStmt *select = makeNode(SelectStmt);
	static const char *const ours[][2] = {{"kda_time", "rowtime"}, {"window_start", "window_start"}, {"window_end", "window_end"}};
	ListCell   *lc;

	select->targetList = list_make1(kda_raw_target(KDA_SIDE_COLUMN, stand_in ? null_of(INT4OID, -1) :
												   kda_raw_column("u", KDA_SIDE_COLUMN, -1)));
	foreach(lc, j->leaves)
	{
		KdaJoinLeaf	   *leaf = lfirst(lc);

		for (int i = 0; i < leaf->split->ncolumns; i++)
			select->targetList = lappend(select->targetList,
										 kda_raw_target(column_name(leaf, i), stand_in ?
														null_of(leaf->split->types[i], leaf->split->typmods[i]) :
														kda_raw_column("u", column_name(leaf, i), -1)));
	}
	for (int i = 0; i < lengthof(ours); i++)
		select->targetList = lappend(select->targetList,
									 kda_raw_target(ours[i][0], stand_in ? null_of(TIMESTAMPTZOID, -1) :
													kda_raw_column("u", ours[i][1], -1)));
	if (!stand_in)
		select->fromClause = list_make1(kda_part_rangevar(j->stream, makeAlias("u", NIL), location));
	cte->ctename = pstrdup(j->with);
	cte->ctematerialized = CTEMaterializeDefault;
	cte->ctequery = (Node *) select;
	cte->location = with->location = -1;
	with->ctes = list_make1(cte);
	return with;
}

/* Of the leaves of one SELECT, f of what they have, else the one. */
static Node *
combine(List *leaves, const char *what, bool greatest)
{
	List	   *args = NIL;
	ListCell   *lc;

	foreach(lc, leaves)
		args = lappend(args, kda_raw_column(((KdaJoinLeaf *) lfirst(lc))->name, hidden(lfirst(lc), what), -1));
	if (list_length(args) == 1)
		return linitial(args);
	if (greatest)
	{
		MinMaxExpr *most = makeNode(MinMaxExpr);

		most->op = IS_GREATEST;
		most->args = args;
		most->location = -1;
		return (Node *) most;
	}
	else
	{
		CoalesceExpr *first = makeNode(CoalesceExpr);

		first->args = args;
		first->location = -1;
		return (Node *) first;
	}
}

/* LATERAL (SELECT a.kda_start_1 AS window_start, …) AS kda_w */
static Node *
windows_in_from(List *leaves)
{
	RangeSubselect *sub = makeNode(RangeSubselect);
	SelectStmt *select = makeNode(SelectStmt);

	select->targetList = list_make2(kda_raw_target("window_start", combine(leaves, "start", false)),
									kda_raw_target("window_end", combine(leaves, "end", false)));
	sub->lateral = true;
	sub->subquery = (Node *) select;
	sub->alias = makeAlias(KDA_WINDOW_ALIAS, NIL);
	return (Node *) sub;
}

/* a.ROWTIME of a stream that declares none. */
static Node *
replace_time(ColumnRef *ref, bool in_aggregate, void *arg)
{
	ListCell   *lc;

	if (list_length(ref->fields) != 2 || !IsA(lsecond(ref->fields), String) ||
		pg_strcasecmp(strVal(lsecond(ref->fields)), "rowtime") != 0)
		return NULL;
	foreach(lc, (List *) arg)
	{
		KdaJoinLeaf	   *leaf = lfirst(lc);

		if (strcmp(strVal(linitial(ref->fields)), leaf->name) == 0 && !leaf->split->has_rowtime)
			return kda_raw_column(leaf->name, hidden(leaf, "time"), ref->location);
	}
	return NULL;
}

/* A SELECT whose FROM has those leaves becomes one over their sides. */
static void
rewrite(KdaWindowJoin *j, List *leaves)
{
	KdaJoinLeaf	   *first = linitial(leaves);
	SelectStmt *select = first->select;
	KdaWordContext words;
	ListCell   *lc,
			   *lf;

	foreach(lc, leaves)
	{
		KdaJoinLeaf	   *leaf = lfirst(lc);
		Node	   *side = side_in_from(j, leaf);

		foreach(lf, select->fromClause)
			lfirst(lf) = replace_item(lfirst(lf), leaf->item, side);
	}
	if (j->ours)
	{
		KdaWords	times = {replace_time, NULL, kda_raw_is_aggregate, leaves, false};

		kda_words_replace_in_select(select, &times);
		/* what is qualified belongs to one side and stays */
		kda_words_begin(&words, j->pstate, InvalidOid, "", KDA_ROW_COLUMN);
	}
	else
	{
		bool		is_stream = IsA(first->item, RangeVar) && !OidIsValid(kda_part_relid((RangeVar *) first->item));

		kda_words_begin(&words, j->pstate, first->split->stream, first->name, is_stream ? "ctid" : KDA_ROW_COLUMN);
		words.hides_time = is_stream ? NULL : kda_hides_time(first->split->user, first->split->stream);
	}
	words.rowtime = combine(leaves, "time", true);
	kda_words_set_window(&words, select, first->window);
	kda_words_apply(&words, select);
	kda_from_expand(select, kda_with(j->c->around, with_clause(j, true, -1)), j->c->source_text, is_hidden, NULL);
	select->fromClause = lappend(select->fromClause, windows_in_from(leaves));
	if (words.aggregated)
		select->groupClause = list_concat(kda_words_window_keys(), select->groupClause);
}

/* Makes the stream and rewrites the leaves; the WITH that they read. */
static WithClause *
compose(KdaWindowJoin *j)
{
	KdaWindowClause *window;
	int			location;
	ListCell   *lc;

	check_windows(j);
	window = ((KdaJoinLeaf *) linitial(j->leaves))->window;
	location = location_of(((KdaJoinLeaf *) linitial(j->leaves))->item);
	foreach(lc, j->leaves)
	{
		KdaJoinLeaf	   *leaf = lfirst(lc);
		Node	   *was = leaf->item;
		ListCell   *lf;

		if (!j->ours)
			kda_from_check_window(j->pstate, j->c->spec, leaf->select, leaf->window, leaf->item, leaf->outer_location);
		leaf->item = kda_compose_item(j->c, leaf->item, leaf->select, leaf->outer_location);
		foreach(lf, leaf->select->fromClause)
			lfirst(lf) = replace_item(lfirst(lf), was, leaf->item);
	}
	move_windows(j);
	foreach(lc, j->leaves)
	{
		describe(j, lfirst(lc));
		take_conditions(lfirst(lc), j->ours);
	}
	check_workers(j);
	j->stream = make_stream(j);
	foreach(lc, j->leaves)
		make_pump(j, lfirst(lc));
	put_window(j, window, location);
	if (j->ours)
		rewrite(j, j->leaves);
	else
		foreach(lc, j->leaves)
			rewrite(j, list_make1(lfirst(lc)));
	return with_clause(j, false, location);
}

/* Its columns are looked through to those of the sides, which its alias hides. */
static void
refuse_alias(KdaWindowJoin *j, Node *item)
{
	JoinExpr   *join = (JoinExpr *) item;

	if (!IsA(item, JoinExpr))
		return;
	if (join->alias && kda_count_streams(item) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a join of streams by window cannot have an alias, as \"%s\"", join->alias->aliasname),
				 errhint("Name the columns by the aliases of what is joined, and rename them in the select list."),
				 parser_errposition(j->pstate, ((KdaJoinLeaf *) linitial(j->leaves))->window->location)));
	refuse_alias(j, join->larg);
	refuse_alias(j, join->rarg);
}

bool
kda_compose_window_join(KdaCompose *c, SelectStmt *select, int outer_location)
{
	KdaWindowJoin	j = {c, make_parsestate(NULL)};
	WithClause *with;
	ListCell   *lc;

	j.pstate->p_sourcetext = c->source_text;
	if (!kda_window_join_find(&j, select, outer_location) || joins_by_time(&j))
		return false;
	foreach(lc, select->fromClause)
		refuse_alias(&j, lfirst(lc));
	j.with = j.ours ? KDA_ONE_WINDOW : KDA_SAME_WINDOW;
	with = compose(&j);
	if (select->withClause)
		with->ctes = list_concat(with->ctes, select->withClause->ctes);
	select->withClause = with;
	return true;
}

/*---- UNION, INTERSECT, EXCEPT of what is in the same window */

SelectStmt *
kda_compose_window_set(KdaCompose *c, SelectStmt *set, int outer_location)
{
	KdaWindowJoin	j = {c, make_parsestate(NULL)};
	SelectStmt *all;
	RangeSubselect *sub = makeNode(RangeSubselect);
	ColumnRef  *star = makeNode(ColumnRef);
	ResTarget  *rt = makeNode(ResTarget);

	j.pstate->p_sourcetext = c->source_text;
	j.with = KDA_ONE_WINDOW;
	if (!kda_window_join_branches(&j, set, outer_location, false) || j.leaves == NIL)
		return NULL;
	all = makeNode(SelectStmt);
	star->fields = list_make1(makeNode(A_Star));
	star->location = rt->location = kda_select_location(set);
	rt->val = (Node *) star;
	all->targetList = list_make1(rt);
	sub->subquery = (Node *) set;
	sub->alias = makeAlias("u", NIL);
	all->fromClause = list_make1(sub);
	all->withClause = compose(&j);
	return all;
}
