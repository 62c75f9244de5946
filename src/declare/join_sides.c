/*-------------------------------------------------------------------------
 *
 * join_sides.c
 *	  The sides of a join of streams by time: their columns, under which names
 *	  the query knows them, and which of them tell the time.
 *
 * A side is a stream, a subquery over one, the result of another join, or one
 * of these joined with tables: rows of tables are looked up when the side's
 * record comes, and kept with it, as far as the query names their columns.
 *
 * Runs in the session that declares the query, on the raw tree.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/options.h"
#include "catalog/pg_type.h"
#include "declare/from.h"
#include "declare/query_words.h"
#include "declare/stream_join.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"

static int
position(KdaCompose *c, int location)
{
	return location < 0 ? 0 : pg_mbstrlen_with_len(c->source_text, location) + 1;
}

KdaMadeJoin *
kda_made_join(KdaCompose *c, Node *item)
{
	ListCell   *lc;

	if (IsA(item, RangeVar) && OidIsValid(kda_part_relid((RangeVar *) item)))
		foreach(lc, c->joins)
			if (((KdaMadeJoin *) lfirst(lc))->stream == kda_part_relid((RangeVar *) item))
				return lfirst(lc);
	return NULL;
}

char *
kda_join_alias(Node *item)
{
	if (IsA(item, RangeVar))
		return ((RangeVar *) item)->alias ? ((RangeVar *) item)->alias->aliasname : ((RangeVar *) item)->relname;
	if (IsA(item, RangeSubselect) && ((RangeSubselect *) item)->alias)
		return ((RangeSubselect *) item)->alias->aliasname;
	if (IsA(item, RangeFunction) && ((RangeFunction *) item)->alias)
		return ((RangeFunction *) item)->alias->aliasname;
	if (IsA(item, RangeTableFunc) && ((RangeTableFunc *) item)->alias)
		return ((RangeTableFunc *) item)->alias->aliasname;
	if (IsA(item, RangeTableSample))
		return kda_join_alias(((RangeTableSample *) item)->relation);
	return NULL;
}

List *
kda_join_aliases(KdaCompose *c, Node *item)
{
	KdaMadeJoin *made = kda_made_join(c, item);
	List	   *aliases = NIL;
	ListCell   *lc;

	if (IsA(item, JoinExpr))
		return list_concat(kda_join_aliases(c, ((JoinExpr *) item)->larg), kda_join_aliases(c, ((JoinExpr *) item)->rarg));
	if (made == NULL)
		return kda_join_alias(item) ? list_make1(makeString(kda_join_alias(item))) : NIL;
	foreach(lc, made->rels)
		aliases = lappend(aliases, makeString(((KdaJoinRel *) lfirst(lc))->alias));
	return aliases;
}

int
kda_join_time_column(const KdaJoinRel *rel)
{
	ListCell   *lc;

	foreach(lc, rel->times)
	{
		KdaTimeColumn *time = lfirst(lc);

		if (time->low_us == 0 && time->high_us == 0 && !time->nullable)
			return time->column;
	}
	return 0;
}

/* (columns) behind a relation's alias are not the names of its row; a function's row may be its value. */
static bool
is_renamed(Node *item)
{
	return IsA(item, RangeFunction) || (IsA(item, RangeVar) && ((RangeVar *) item)->alias && ((RangeVar *) item)->alias->colnames);
}

/* A column that says something about the whole row. */
static ResTarget *
mark(const char *name)
{
	A_Const    *null = makeNode(A_Const);

	null->isnull = true;
	null->location = -1;
	return kda_raw_target(name, (Node *) null);
}

/*---- what tells the time */

typedef struct Times
{
	Oid			stream;
	KdaStreamOptions *options;
	List	   *bounds;			/* KdaTimeColumn, of its own columns */
	KdaMadeJoin *made;			/* the join whose result it is, NULL: none */
} Times;

/* Does the stream's column tell the time of its rows? */
static bool
time_of_column(Times *t, Var *var, KdaTimeColumn *time)
{
	ListCell   *lc,
			   *lt;

	if (var->varattno == t->options->rowtime_attno && (var->vartype == TIMESTAMPTZOID || t->options->time_zone_is_utc))
		return true;
	foreach(lc, t->bounds)
	{
		*time = *(KdaTimeColumn *) lfirst(lc);
		if (time->column == var->varattno)
			return true;
	}
	/* the time of what was joined; the result's is later by up to the slack */
	if (t->made)
		foreach(lc, t->made->rels)
		{
			KdaJoinRel *rel = lfirst(lc);

			foreach(lt, rel->times)
			{
				*time = *(KdaTimeColumn *) lfirst(lt);
				time->low_us -= rel->slack_us;
				time->nullable |= rel->nullable;
				if (rel->first + time->column == var->varattno)
					return true;
			}
		}
	return false;
}

/* Does the expression?  queries: its own first. */
static bool
time_of_expression(Times *t, List *queries, Node *expr, KdaTimeColumn *time)
{
	Node	   *column = kda_stream_column(queries, expr, t->stream);
	List	   *args = NIL;
	ListCell   *lc;

	check_stack_depth();
	memset(time, 0, sizeof(*time));
	if (column)
		return !IsA(column, Var) || time_of_column(t, (Var *) column, time);
	/* one of several: what FULL JOIN ... USING merges */
	expr = kda_stream_origin(&queries, expr);
	if (expr && IsA(expr, CoalesceExpr))
		args = ((CoalesceExpr *) expr)->args;
	else if (expr && IsA(expr, MinMaxExpr))
		args = ((MinMaxExpr *) expr)->args;
	foreach(lc, args)
	{
		KdaTimeColumn one;

		if (!time_of_expression(t, queries, lfirst(lc), &one))
			return false;
		time->low_us = foreach_current_index(lc) == 0 ? one.low_us : Min(time->low_us, one.low_us);
		time->high_us = foreach_current_index(lc) == 0 ? one.high_us : Max(time->high_us, one.high_us);
		time->nullable |= one.nullable;
	}
	return args != NIL;
}

/* Columns of the rel that are the record's time, or a bound of its window. */
static void
find_times(KdaCompose *c, KdaJoinRel *rel, const KdaSplit *split)
{
	Times		times = {split->stream, kda_stream_options_get(split->stream), kda_window_bound_columns(split->stream)};
	ListCell   *lc;

	foreach(lc, c->joins)
		if (((KdaMadeJoin *) lfirst(lc))->stream == split->stream)
			times.made = lfirst(lc);
	for (int i = 1; i <= rel->ncolumns; i++)
	{
		KdaTimeColumn *time = palloc(sizeof(KdaTimeColumn));

		if (time_of_expression(&times, list_make1(split->user),
							   (Node *) list_nth_node(TargetEntry, split->user->targetList, rel->first + i - 1)->expr, time))
		{
			time->column = i;
			rel->times = lappend(rel->times, time);
		}
	}
}

/*---- one relation */

static KdaSplit *
split_of(KdaCompose *c, List *targets, Node *from)
{
	KdaQuerySpec *spec = palloc0(sizeof(KdaQuerySpec));
	SelectStmt *select = makeNode(SelectStmt);
	KdaSplit   *split;

	select->targetList = targets;
	select->fromClause = list_make1(from);
	kda_join_name_times(c, from, select);
	linitial(select->fromClause) = kda_join_in_from(c, from);
	spec->select = kda_compose_with(c, select);
	spec->outer_location = -1;
	split = kda_split_query(spec, c->source_text, c->time_zone, false);
	if (split->shape != KDA_SHAPE_ROWS)
		elog(ERROR, "a side of a stream join is not made of records");
	return split;
}

static ResTarget *
time_of(const char *alias, const char *name)
{
	ColumnRef  *time = makeNode(ColumnRef);

	if (alias)
		time->fields = list_make1(makeString(pstrdup(alias)));
	time->fields = lappend(time->fields, makeString("rowtime"));
	time->location = -1;
	return kda_raw_target(name, (Node *) time);
}

static bool
names_rowtime_walker(Node *node, void *alias)
{
	if (node == NULL)
		return false;
	if (IsA(node, ColumnRef))
	{
		List	   *fields = ((ColumnRef *) node)->fields;

		return list_length(fields) == 2 && IsA(lsecond(fields), String) &&
			pg_strcasecmp(strVal(lsecond(fields)), "rowtime") == 0 && strcmp(strVal(linitial(fields)), alias) == 0;
	}
	return raw_expression_tree_walker(node, names_rowtime_walker, alias);
}

static bool
names_rowtime(KdaCompose *c, const char *alias)
{
	return alias && raw_expression_tree_walker((Node *) c->joined, names_rowtime_walker, (void *) alias);
}

static void
check_alias(KdaCompose *c, const char *alias, int location)
{
	if (alias && strcmp(alias, KDA_JOIN_ALIAS) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("name \"%s\" is reserved", alias),
				 errhint("Give what is joined another alias."),
				 errposition(position(c, location))));
	if (alias)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("what is joined by time needs a name"),
			 errhint("Give the subquery or function an alias."),
			 errposition(position(c, location))));
}

/* A stream, or a subquery over one, alone. */
static void
describe_alone(KdaCompose *c, KdaJoinSide *side, Node *item, int location)
{
	KdaJoinRel *rel = palloc0(sizeof(KdaJoinRel));
	Node	   *from = copyObject(item);

	rel->alias = kda_join_alias(item);
	rel->renamed = is_renamed(item);
	check_alias(c, rel->alias, location);
	side->split = split_of(c, list_make1(kda_raw_star(NULL)), copyObject(from));
	if (!side->split->has_rowtime && names_rowtime(c, rel->alias))
	{
		side->split = split_of(c, list_make2(kda_raw_star(NULL), time_of(NULL, KDA_TIME_COLUMN)), from);
		rel->shown_time = true;
	}
	rel->ncolumns = side->split->ncolumns;
	rel->pseudo_time = !side->split->has_rowtime;
	find_times(c, rel, side->split);
	side->names = side->split->names;
	side->rels = list_make1(rel);
}

/* The result of a join, alone. */
static void
describe_made(KdaCompose *c, KdaJoinSide *side, Node *item, KdaMadeJoin *made)
{
	RangeVar   *rv = copyObject((RangeVar *) item);
	KdaQuerySpec *spec = palloc0(sizeof(KdaQuerySpec));
	SelectStmt *select = makeNode(SelectStmt);

	/* as a relation like others */
	rv->alias = makeAlias("kda_side", NIL);
	select->targetList = list_make1(kda_raw_star(NULL));
	select->fromClause = list_make1(rv);
	spec->select = select;
	spec->outer_location = -1;
	side->split = kda_split_query(spec, c->source_text, c->time_zone, false);
	side->names = made->names;
	side->rels = made->rels;
}

/*---- a stream beside tables */

typedef struct NamedContext
{
	List	   *names;			/* String */
	bool		all;
} NamedContext;

static bool
named_walker(Node *node, void *arg)
{
	NamedContext *cxt = arg;

	if (node == NULL)
		return false;
	if (IsA(node, ColumnRef))
	{
		ListCell   *lc;

		foreach(lc, ((ColumnRef *) node)->fields)
			if (IsA(lfirst(lc), String))
				cxt->names = lappend(cxt->names, lfirst(lc));
			else
				cxt->all = true;
		return false;
	}
	return raw_expression_tree_walker(node, named_walker, cxt);
}

static bool
is_named(const NamedContext *named, const char *name)
{
	ListCell   *lc;

	foreach(lc, named->names)
		if (strcmp(strVal(lfirst(lc)), name) == 0)
			return true;
	return named->all;
}

typedef struct Beside
{
	KdaCompose *c;
	Node	   *from;			/* the whole side */
	NamedContext named;			/* in the query */
	List	   *rels;
	List	   *targets;		/* ResTarget of the side's columns */
	List	   *names;			/* String, of the same */
	int			location;
} Beside;

static void
add_column(Beside *b, const char *alias, const char *column)
{
	const char *as = psprintf("s%d", list_length(b->targets) + 1);

	b->names = lappend(b->names, makeString(pstrdup(column)));
	b->targets = lappend(b->targets, kda_raw_target(as, kda_raw_column(alias, column, -1)));
}

static void
add_rels(Beside *b, Node *item, bool nullable)
{
	KdaMadeJoin *made = kda_made_join(b->c, item);
	KdaJoinRel *rel;
	KdaSplit   *split;
	bool		stream;
	ListCell   *lc;

	check_stack_depth();
	if (IsA(item, JoinExpr))
	{
		JoinType	type = ((JoinExpr *) item)->jointype;

		add_rels(b, ((JoinExpr *) item)->larg, nullable || type == JOIN_RIGHT || type == JOIN_FULL);
		add_rels(b, ((JoinExpr *) item)->rarg, nullable || type == JOIN_LEFT || type == JOIN_FULL);
		return;
	}
	if (made)
	{
		foreach(lc, made->rels)
		{
			rel = memcpy(palloc(sizeof(KdaJoinRel)), lfirst(lc), sizeof(KdaJoinRel));
			rel->first = list_length(b->targets);
			for (int i = 0; i < rel->ncolumns; i++)
				add_column(b, rel->alias, made->names[((KdaJoinRel *) lfirst(lc))->first + i]);
			b->rels = lappend(b->rels, rel);
		}
		return;
	}
	rel = palloc0(sizeof(KdaJoinRel));
	rel->nullable = nullable;
	rel->renamed = is_renamed(item);
	rel->alias = kda_join_alias(item);
	check_alias(b->c, rel->alias, b->location);
	rel->first = list_length(b->targets);
	stream = kda_raw_has_stream(item);
	split = split_of(b->c, list_make1(kda_raw_star(rel->alias)), copyObject(b->from));
	for (int i = 0; i < split->ncolumns; i++)
		if (stream || is_named(&b->named, rel->alias) || is_named(&b->named, split->names[i]))
			add_column(b, rel->alias, split->names[i]);
	if (stream)
	{
		rel->pseudo_time = !split->has_rowtime;
		if (rel->pseudo_time && names_rowtime(b->c, rel->alias))
		{
			const char *as = psprintf("s%d", list_length(b->targets) + 1);

			b->names = lappend(b->names, makeString(KDA_TIME_COLUMN));
			b->targets = lappend(b->targets, time_of(rel->alias, as));
			rel->shown_time = true;
		}
	}
	rel->ncolumns = list_length(b->targets) - rel->first;
	b->rels = lappend(b->rels, rel);
}

static void
describe_beside(KdaCompose *c, KdaJoinSide *side, Node *item, int location)
{
	Beside		b = {c, item};
	ListCell   *lc;

	b.location = location;
	(void) raw_expression_tree_walker((Node *) c->joined, named_walker, &b.named);
	foreach(lc, c->spec->windows)
		(void) named_walker((Node *) ((KdaWindowClause *) lfirst(lc))->partition, &b.named);
	add_rels(&b, item, false);
	side->split = split_of(c, b.targets, copyObject(item));
	side->rels = b.rels;
	side->names = palloc(sizeof(char *) * list_length(b.names));
	foreach(lc, b.names)
		side->names[foreach_current_index(lc)] = strVal(lfirst(lc));
	/* of tables nothing is found */
	foreach(lc, b.rels)
		if (((KdaJoinRel *) lfirst(lc))->times == NIL)
			find_times(c, lfirst(lc), side->split);
}

void
kda_join_describe(KdaCompose *c, KdaJoinSide *side, Node *item, int location)
{
	KdaMadeJoin *made = kda_made_join(c, item);

	if (made)
		describe_made(c, side, item, made);
	else if (IsA(item, JoinExpr))
		describe_beside(c, side, item, location);
	else
		describe_alone(c, side, item, location);
	side->ncolumns = side->split->ncolumns;
	side->types = side->split->types;
	side->typmods = side->split->typmods;
}

Node *
kda_join_stand_in(const KdaJoinSide *side, const KdaJoinRel *rel)
{
	SelectStmt *select = makeNode(SelectStmt);
	RangeSubselect *sub = makeNode(RangeSubselect);

	for (int i = 0; i < rel->ncolumns + (rel->pseudo_time ? 1 : 0); i++)
	{
		ResTarget  *rt = makeNode(ResTarget);
		TypeCast   *cast = makeNode(TypeCast);
		A_Const    *null = makeNode(A_Const);
		int			at = rel->first + i;

		null->isnull = true;
		null->location = cast->location = rt->location = -1;
		cast->arg = (Node *) null;
		cast->typeName = i < rel->ncolumns ? makeTypeNameFromOid(side->types[at], side->typmods[at]) :
			makeTypeNameFromOid(TIMESTAMPTZOID, -1);
		/* also of a rel that has been joined before */
		rt->name = i < rel->ncolumns && !(rel->shown_time && !rel->pseudo_time && i == rel->ncolumns - 1) ?
			side->names[at] : "rowtime";
		rt->val = (Node *) cast;
		select->targetList = lappend(select->targetList, rt);
	}
	if (rel->pseudo_time || rel->shown_time)
		select->targetList = lappend(select->targetList, mark(KDA_NO_ROW_COLUMN));
	else if (rel->nullable || rel->renamed)
		select->targetList = lappend(select->targetList, mark(KDA_PARTS_COLUMN));
	sub->subquery = (Node *) select;
	sub->alias = makeAlias(rel->alias, NIL);
	return (Node *) sub;
}

Node *
kda_join_analysable(KdaCompose *c, Node *item, int location)
{
	KdaJoinSide side = {0};
	KdaJoinRel *rel;

	if (IsA(item, JoinExpr))
	{
		JoinExpr   *join = makeNode(JoinExpr);

		memcpy(join, item, sizeof(JoinExpr));
		join->larg = kda_join_analysable(c, join->larg, location);
		join->rarg = kda_join_analysable(c, join->rarg, location);
		return (Node *) join;
	}
	if (!kda_raw_has_stream(item))
		return copyObject(item);
	describe_alone(c, &side, item, location);
	side.types = side.split->types;
	side.typmods = side.split->typmods;
	/* what it does not declare is no column */
	rel = linitial(side.rels);
	rel->pseudo_time = false;
	rel->ncolumns -= rel->shown_time ? 1 : 0;
	rel->shown_time = rel->renamed = false;
	return kda_join_stand_in(&side, rel);
}

/*---- what stands in FROM instead */

/* LATERAL (SELECT kda_join.c1 AS x, ...) alias */
static Node *
rel_in_from(const KdaMadeJoin *made, const KdaJoinRel *rel)
{
	RangeSubselect *sub = makeNode(RangeSubselect);
	SelectStmt *select = makeNode(SelectStmt);

	for (int i = 0; i < rel->ncolumns; i++)
		select->targetList = lappend(select->targetList,
									 kda_raw_target(made->names[rel->first + i],
													kda_raw_column(KDA_JOIN_ALIAS, psprintf("j%d", rel->first + i + 1), -1)));
	if (rel->nullable || rel->renamed)
		select->targetList = lappend(select->targetList, mark(KDA_PARTS_COLUMN));
	sub->lateral = true;
	sub->subquery = (Node *) select;
	sub->alias = makeAlias(rel->alias, NIL);
	return (Node *) sub;
}

Node *
kda_join_in_from(KdaCompose *c, Node *item)
{
	KdaMadeJoin *made = kda_made_join(c, item);
	ListCell   *lc;

	if (IsA(item, JoinExpr))
	{
		((JoinExpr *) item)->larg = kda_join_in_from(c, ((JoinExpr *) item)->larg);
		((JoinExpr *) item)->rarg = kda_join_in_from(c, ((JoinExpr *) item)->rarg);
	}
	if (made)
		foreach(lc, made->rels)
		{
			JoinExpr   *cross = makeNode(JoinExpr);

			cross->jointype = JOIN_INNER;
			cross->larg = item;
			cross->rarg = rel_in_from(made, lfirst(lc));
			item = (Node *) cross;
		}
	return item;
}
