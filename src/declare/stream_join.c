/*-------------------------------------------------------------------------
 *
 * stream_join.c
 *	  Joins of two streams, as a part of a query: what is kept of both sides,
 *	  how rows match, and for how long.
 *
 * Each side's rows are kept in a table.  A batch of one side is matched with
 * what is kept of the other (the "match": SQL over both tables).  The time
 * between two rows that can match must be bounded by the condition; by this
 * bound rows leave when the other side's watermark has passed them.  The result
 * goes into a stream of ours, which stands in FROM:
 *
 *		part kda_join, LATERAL (SELECT kda_join.l1 AS x, …) a, LATERAL (SELECT …) b
 *
 * so that everything else in the query finds a.x and b.y as before.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/table.h"
#include "declare/compose.h"
#include "catalog/rows.h"
#include "declare/from.h"
#include "catalog/options.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "declare/split.h"
#include "declare/query_words.h"
#include "dialect/words.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/*
 * What the query calls by one name: a stream, or a subquery over one.  A side
 * that is itself a join has several.
 */
typedef struct Rel
{
	char	   *alias;
	int			first;			/* its first column among the side's, from 0 */
	int			ncolumns;
	int			time_column;	/* of it, from 1; 0: none */
	bool		pseudo_time;	/* rowtime is not declared: one more column, for conditions */
	bool		shown_time;		/* its last column is the time that it does not declare, KDA_TIME_COLUMN */
	bool		nullable;		/* outer joins fill it with NULLs */
	int64		slack_us;		/* the side's time is later than the rel's by at most this */
} Rel;

/* One side of the join. */
typedef struct Side
{
	KdaSplit   *split;			/* SELECT * FROM item */
	int			ncolumns;
	char	  **names;
	Oid		   *types;
	int32	   *typmods;
	List	   *rels;			/* Rel */
	Oid			kept;			/* table */
} Side;

/* A join that was made: what its result is made of. */
typedef struct Made
{
	Oid			stream;
	List	   *rels;			/* Rel, columns counted over both sides */
	char	  **names;			/* of the columns, as the query knows them */
} Made;

typedef struct StreamJoin
{
	KdaCompose *c;
	Side		sides[2];
	List	   *rels;			/* of both sides; the n-th is range table entry n of the condition */
	List	   *rel_sides;		/* int */
	bool		bounded_low,
				bounded_high;
	int64		low,			/* right time - left time, µs */
				high;
	List	   *equal;			/* int pairs: columns of left and right that are compared by = */
	int			location;
} StreamJoin;

static int
position(KdaCompose *c, int location)
{
	return location < 0 ? 0 : pg_mbstrlen_with_len(c->source_text, location) + 1;
}

/*---- sides */

/* Does the output expression give the record's time? */
static bool
is_time(Query *query, Node *expr, Oid stream)
{
	if (expr && IsA(expr, Var) && ((Var *) expr)->varlevelsup == 0)
	{
		Var		   *var = (Var *) expr;
		RangeTblEntry *rte = rt_fetch(var->varno, query->rtable);

		if (rte->rtekind == RTE_RELATION)
			return rte->relid == stream && var->varattno > 0 &&
				var->varattno == kda_stream_options_get(stream)->rowtime_attno &&
				(var->vartype == TIMESTAMPTZOID || kda_stream_options_get(stream)->time_zone_is_utc);
		if (rte->rtekind == RTE_SUBQUERY && var->varattno > 0)
			return is_time(rte->subquery,
						   (Node *) get_tle_by_resno(rte->subquery->targetList, var->varattno)->expr, stream);
	}
	/* kda.rowtime(place in the batch) */
	if (expr && IsA(expr, FuncExpr) && list_length(((FuncExpr *) expr)->args) == 1 &&
		exprType(linitial(((FuncExpr *) expr)->args)) == TIDOID && exprType(expr) == TIMESTAMPTZOID)
		return true;
	return false;
}

/* SELECT * FROM item, or SELECT *, ROWTIME AS … */
static KdaQuerySpec *
select_all_from(KdaCompose *c, Node *item, bool with_time)
{
	KdaQuerySpec *spec = palloc0(sizeof(KdaQuerySpec));
	SelectStmt *select = makeNode(SelectStmt);
	ResTarget  *rt = makeNode(ResTarget);
	ColumnRef  *star = makeNode(ColumnRef);

	star->fields = list_make1(makeNode(A_Star));
	star->location = rt->location = -1;
	rt->val = (Node *) star;
	select->targetList = list_make1(rt);
	if (with_time)
	{
		ColumnRef  *time = makeNode(ColumnRef);

		time->fields = list_make1(makeString("rowtime"));
		time->location = -1;
		select->targetList = lappend(select->targetList, kda_raw_target(KDA_TIME_COLUMN, (Node *) time));
	}
	item = copyObject(item);
	/* the result of a join, as a relation like others */
	if (IsA(item, RangeVar) && OidIsValid(kda_part_relid((RangeVar *) item)))
	{
		Alias	   *alias = ((RangeVar *) item)->alias;

		((RangeVar *) item)->alias = makeAlias("kda_side", alias ? alias->colnames : NIL);
	}
	select->fromClause = list_make1(item);
	spec->select = select;
	spec->outer_location = -1;
	return spec;
}

static char *
alias_of(Node *item)
{
	if (IsA(item, RangeVar))
		return ((RangeVar *) item)->alias ? ((RangeVar *) item)->alias->aliasname : ((RangeVar *) item)->relname;
	if (IsA(item, RangeSubselect) && ((RangeSubselect *) item)->alias)
		return ((RangeSubselect *) item)->alias->aliasname;
	return NULL;
}

static Made *
made_of(KdaCompose *c, Node *item)
{
	ListCell   *lc;

	if (IsA(item, RangeVar) && OidIsValid(kda_part_relid((RangeVar *) item)))
		foreach(lc, c->joins)
			if (((Made *) lfirst(lc))->stream == kda_part_relid((RangeVar *) item))
				return lfirst(lc);
	return NULL;
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

static void
describe_side(StreamJoin *j, int which, Node *item)
{
	Side	   *side = &j->sides[which];
	Made	   *made = made_of(j->c, item);
	int			i = 0;
	ListCell   *lc;

	side->split = kda_split_query(select_all_from(j->c, item, false), j->c->source_text, j->c->time_zone, false);
	if (made == NULL && alias_of(item) && !side->split->has_rowtime &&
		raw_expression_tree_walker((Node *) j->c->joined, names_rowtime_walker, alias_of(item)))
		side->split = kda_split_query(select_all_from(j->c, item, true), j->c->source_text, j->c->time_zone, false);
	if (side->split->shape != KDA_SHAPE_ROWS)
		elog(ERROR, "a side of a stream join is not made of records");
	side->ncolumns = side->split->ncolumns;
	side->names = made ? made->names : side->split->names;
	side->types = side->split->types;
	side->typmods = side->split->typmods;
	if (made)
		side->rels = made->rels;
	else
	{
		Rel		   *rel = palloc0(sizeof(Rel));

		rel->alias = alias_of(item);
		if (rel->alias == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a side of a stream join needs a name"),
					 errhint("Give the subquery an alias."),
					 errposition(position(j->c, j->location))));
		rel->ncolumns = side->ncolumns;
		rel->pseudo_time = true;
		foreach(lc, side->split->user->targetList)
		{
			TargetEntry *tle = lfirst_node(TargetEntry, lc);

			i++;
			if (rel->time_column == 0 && is_time(side->split->user, (Node *) tle->expr, side->split->stream))
				rel->time_column = i;
			/* a declared one is a column like others */
			if (pg_strcasecmp(tle->resname, "rowtime") == 0)
				rel->pseudo_time = false;
		}
		rel->shown_time = strcmp(side->names[side->ncolumns - 1], KDA_TIME_COLUMN) == 0;
		side->rels = list_make1(rel);
	}
	foreach(lc, side->rels)
	{
		ListCell   *lo;

		foreach(lo, j->rels)
			if (strcmp(((Rel *) lfirst(lo))->alias, ((Rel *) lfirst(lc))->alias) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_ALIAS),
						 errmsg("table name \"%s\" specified more than once", ((Rel *) lfirst(lc))->alias),
						 errposition(position(j->c, j->location))));
		j->rels = lappend(j->rels, lfirst(lc));
		j->rel_sides = lappend_int(j->rel_sides, which);
	}
}

/* (SELECT NULL::type AS column, …) alias: what conditions are analysed against. */
static Node *
stand_in(const Side *side, const Rel *rel)
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
	sub->subquery = (Node *) select;
	sub->alias = makeAlias(rel->alias, NIL);
	return (Node *) sub;
}

/*---- the bound */

typedef struct Linear
{
	int			side;			/* whose time it is, -1: neither */
	int64		slack;			/* of the rel */
	int64		plus;			/* µs */
} Linear;

static Linear
linear(StreamJoin *j, Node *node)
{
	Linear		none = {-1, 0, 0};

	while (node && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	if (node == NULL)
		return none;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;
		Rel		   *rel = list_nth(j->rels, var->varno - 1);

		if (var->varlevelsup == 0 &&
			((rel->time_column > 0 && var->varattno == rel->time_column) ||
			 (rel->pseudo_time && var->varattno == rel->ncolumns + 1)))
			return (Linear) {list_nth_int(j->rel_sides, var->varno - 1), rel->slack_us, 0};
		return none;
	}
	if (IsA(node, OpExpr) && list_length(((OpExpr *) node)->args) == 2)
	{
		OpExpr	   *op = (OpExpr *) node;
		Linear		l;
		Node	   *by = eval_const_expressions(NULL, lsecond(op->args));
		Interval   *iv;

		set_opfuncid(op);
		if (op->opfuncid != F_TIMESTAMPTZ_PL_INTERVAL && op->opfuncid != F_TIMESTAMPTZ_MI_INTERVAL &&
			op->opfuncid != F_TIMESTAMP_PL_INTERVAL && op->opfuncid != F_TIMESTAMP_MI_INTERVAL)
			return none;
		l = linear(j, linitial(op->args));
		if (l.side < 0 || !IsA(by, Const) || ((Const *) by)->constisnull)
			return none;
		iv = DatumGetIntervalP(((Const *) by)->constvalue);
		if (iv->month != 0)
			return none;
		l.plus += (iv->time + (int64) iv->day * USECS_PER_DAY) * (op->opfuncid == F_TIMESTAMPTZ_PL_INTERVAL || op->opfuncid == F_TIMESTAMP_PL_INTERVAL ? 1 : -1);
		return l;
	}
	return none;
}

/* right rel - left rel >= low, or <= high; a side's time is later than its rel's by up to the slack. */
static void
bound_low(StreamJoin *j, int64 low, int64 left_slack)
{
	low -= left_slack;
	j->low = j->bounded_low ? Max(j->low, low) : low;
	j->bounded_low = true;
}

static void
bound_high(StreamJoin *j, int64 high, int64 right_slack)
{
	high += right_slack;
	j->high = j->bounded_high ? Min(j->high, high) : high;
	j->bounded_high = true;
}

/* The side's column that a Var of the condition is; 0: the pseudo time column. */
static int
side_column(StreamJoin *j, const Var *var)
{
	Rel		   *rel = list_nth(j->rels, var->varno - 1);

	return var->varattno > rel->ncolumns ? 0 : rel->first + var->varattno;
}

/* What a condition says of the time between the two rows, and which columns are equal. */
static void
read_condition(StreamJoin *j, Node *node)
{
	OpExpr	   *op;
	Linear		a,
				b;
	int64		difference;		/* right - left, at equality */

	if (!IsA(node, OpExpr) || list_length(((OpExpr *) node)->args) != 2)
		return;
	op = (OpExpr *) node;
	set_opfuncid(op);
	a = linear(j, linitial(op->args));
	b = linear(j, lsecond(op->args));
	if (a.side >= 0 && b.side >= 0 && a.side != b.side)
	{
		bool		swapped = a.side == 1;	/* right OP left */
		int64		left_slack = swapped ? b.slack : a.slack;
		int64		right_slack = swapped ? a.slack : b.slack;

		/* left + p OP right + q: right - left OP' p - q */
		difference = swapped ? b.plus - a.plus : a.plus - b.plus;
		switch (op->opfuncid)
		{
			case F_TIMESTAMPTZ_EQ:
			case F_TIMESTAMP_EQ:
				bound_low(j, difference, left_slack);
				bound_high(j, difference, right_slack);
				break;
			case F_TIMESTAMPTZ_LE:
			case F_TIMESTAMPTZ_LT:
			case F_TIMESTAMP_LE:
			case F_TIMESTAMP_LT:
				if (swapped)
					bound_high(j, difference, right_slack);
				else
					bound_low(j, difference, left_slack);
				break;
			case F_TIMESTAMPTZ_GE:
			case F_TIMESTAMPTZ_GT:
			case F_TIMESTAMP_GE:
			case F_TIMESTAMP_GT:
				if (swapped)
					bound_low(j, difference, left_slack);
				else
					bound_high(j, difference, right_slack);
				break;
			default:
				break;
		}
		return;
	}
	if (op_mergejoinable(op->opno, exprType(linitial(op->args))) || op_hashjoinable(op->opno, exprType(linitial(op->args))))
	{
		Node	   *l = linitial(op->args);
		Node	   *r = lsecond(op->args);

		while (IsA(l, RelabelType))
			l = (Node *) ((RelabelType *) l)->arg;
		while (IsA(r, RelabelType))
			r = (Node *) ((RelabelType *) r)->arg;
		if (IsA(l, Var) && IsA(r, Var))
		{
			int			left = list_nth_int(j->rel_sides, ((Var *) l)->varno - 1);

			if (left == list_nth_int(j->rel_sides, ((Var *) r)->varno - 1))
				return;
			if (left == 1)
			{
				Node	   *swap = l;

				l = r;
				r = swap;
			}
			if (side_column(j, (Var *) l) > 0 && side_column(j, (Var *) r) > 0)
				j->equal = lappend_int(lappend_int(j->equal, side_column(j, (Var *) l)), side_column(j, (Var *) r));
		}
	}
}

/*---- the match */

typedef struct MapContext
{
	StreamJoin *j;
	int			depth;
} MapContext;

/* Columns of the stand-ins are columns of the tables of what is kept. */
static bool
map_walker(Node *node, void *arg)
{
	MapContext *cxt = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if ((int) var->varlevelsup == cxt->depth)
		{
			int			column = side_column(cxt->j, var);

			var->varno = list_nth_int(cxt->j->rel_sides, var->varno - 1) + 1;
			var->varattno = column == 0 ? KDA_KEPT_TIME : KDA_KEPT_FIRST - 1 + column;
			var->varattnosyn = var->varattno;
			var->varnosyn = var->varno;
		}
		return false;
	}
	if (IsA(node, Query))
	{
		cxt->depth++;
		query_tree_walker((Query *) node, map_walker, cxt, 0);
		cxt->depth--;
		return false;
	}
	return expression_tree_walker(node, map_walker, cxt);
}

static RangeTblEntry *
kept_rte(int which, Oid relid)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	Relation	rel = table_open(relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);

	rte->rtekind = RTE_RELATION;
	rte->relid = relid;
	rte->relkind = RELKIND_RELATION;
	rte->rellockmode = AccessShareLock;
	rte->inh = true;
	rte->inFromCl = true;
	rte->alias = makeAlias(which == 0 ? "l" : "r", NIL);
	rte->eref = makeAlias(rte->alias->aliasname, NIL);
	for (int i = 0; i < desc->natts; i++)
		rte->eref->colnames = lappend(rte->eref->colnames, makeString(pstrdup(NameStr(TupleDescAttr(desc, i)->attname))));
	table_close(rel, NoLock);
	return rte;
}

static void
add_column(Query *query, Node *expr, char *name)
{
	query->targetList = lappend(query->targetList,
								makeTargetEntry((Expr *) expr, list_length(query->targetList) + 1, name, false));
}

static Node *
kept_column(StreamJoin *j, int which, AttrNumber attno, Oid type, int32 typmod)
{
	return (Node *) makeVar(which + 1, attno, type, typmod, get_typcollation(type), 0);
}

/* The condition, analysed as the user; its Vars are those of the stand-ins. */
static Query *
analyse(StreamJoin *j, Node *condition)
{
	SelectStmt *select = makeNode(SelectStmt);
	RawStmt    *raw = makeNode(RawStmt);
	Query	   *query;
	List	   *quals;
	ListCell   *lc;

	foreach(lc, j->rels)
		select->fromClause = lappend(select->fromClause,
									 stand_in(&j->sides[list_nth_int(j->rel_sides, foreach_current_index(lc))], lfirst(lc)));
	select->whereClause = condition;
	raw->stmt = (Node *) select;
	query = parse_analyze_fixedparams(raw, j->c->source_text, NULL, 0, NULL);
	if (contain_volatile_functions((Node *) query->jointree))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the condition of a stream join must not be volatile"),
				 errposition(position(j->c, j->location))));
	quals = make_ands_implicit((Expr *) canonicalize_qual((Expr *) copyObject(query->jointree->quals), false));
	foreach(lc, quals)
		read_condition(j, lfirst(lc));
	return query;
}

/* What is kept of both sides, joined. */
static Query *
match_query(StreamJoin *j, Query *query)
{
	MapContext	map = {j, 0};
	static const char *const seq_names[] = {"kda_left", "kda_right"};

	query_tree_walker(query, map_walker, &map, 0);
	query->rtable = list_make2(kept_rte(0, j->sides[0].kept), kept_rte(1, j->sides[1].kept));
#if PG_VERSION_NUM >= 160000
	query->rteperminfos = NIL;
#endif
	query->jointree->fromlist = NIL;
	for (int i = 1; i <= 2; i++)
	{
		RangeTblRef *ref = makeNode(RangeTblRef);

		kda_add_rights(query, list_nth_node(RangeTblEntry, query->rtable, i - 1));
		ref->rtindex = i;
		query->jointree->fromlist = lappend(query->jointree->fromlist, ref);
	}
	query->targetList = NIL;
	add_column(query, kept_column(j, 0, KDA_KEPT_TIME, TIMESTAMPTZOID, -1), "kda_left_time");
	add_column(query, kept_column(j, 1, KDA_KEPT_TIME, TIMESTAMPTZOID, -1), "kda_right_time");
	for (int i = 0; i < 2; i++)
		add_column(query, kept_column(j, i, KDA_KEPT_SEQ, INT8OID, -1), pstrdup(seq_names[i]));
	for (int i = 0; i < 2; i++)
		for (int k = 0; k < j->sides[i].ncolumns; k++)
			add_column(query, kept_column(j, i, KDA_KEPT_FIRST + k, j->sides[i].types[k], j->sides[i].typmods[k]),
					   psprintf("%c%d", i == 0 ? 'l' : 'r', k + 1));
	return query;
}

/*---- what stands in FROM instead */

static Node *
reference(const char *table, const char *column)
{
	ColumnRef  *ref = makeNode(ColumnRef);

	ref->fields = list_make2(makeString(pstrdup(table)), makeString(pstrdup(column)));
	ref->location = -1;
	return (Node *) ref;
}

/* LATERAL (SELECT kda_join.c1 AS x, …) alias */
static Node *
rel_in_from(const Made *made, const Rel *rel)
{
	RangeSubselect *sub = makeNode(RangeSubselect);
	SelectStmt *select = makeNode(SelectStmt);

	for (int i = 0; i < rel->ncolumns; i++)
	{
		ResTarget  *rt = makeNode(ResTarget);

		rt->name = made->names[rel->first + i];
		rt->val = reference(KDA_JOIN_ALIAS, psprintf("j%d", rel->first + i + 1));
		rt->location = -1;
		select->targetList = lappend(select->targetList, rt);
	}
	sub->lateral = true;
	sub->subquery = (Node *) select;
	sub->alias = makeAlias(rel->alias, NIL);
	return (Node *) sub;
}

Node *
kda_join_in_from(KdaCompose *c, Node *item)
{
	Made	   *made = made_of(c, item);
	ListCell   *lc;

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

/*---- times of what was joined */

typedef struct TimesContext
{
	Made	   *made;
	KdaWindowClause *window;	/* NULL: undeclared times; else what names its time */
} TimesContext;

/* Is the rel's time that of the result? */
static bool
is_time_of_result(const Rel *rel)
{
	return rel->slack_us == 0 && !rel->nullable;
}

static Node *
replace_time(ColumnRef *ref, bool in_aggregate, void *arg)
{
	TimesContext *cxt = arg;
	ListCell   *lc;
	const char *column;

	if (list_length(ref->fields) != 2 || !IsA(lsecond(ref->fields), String))
		return NULL;
	column = strVal(lsecond(ref->fields));
	foreach(lc, cxt->made->rels)
	{
		Rel		   *rel = lfirst(lc);

		if (strcmp(rel->alias, strVal(linitial(ref->fields))) != 0)
			continue;
		if (cxt->window)
			return is_time_of_result(rel) && equal(((ColumnRef *) cxt->window->time)->fields, ref->fields) &&
				rel->time_column > 0 && strcmp(cxt->made->names[rel->first + rel->time_column - 1], column) == 0 ?
				kda_raw_column(KDA_JOIN_ALIAS, "rowtime", ref->location) : NULL;
		if (rel->shown_time && pg_strcasecmp(column, "rowtime") == 0)
			return is_time_of_result(rel) ? kda_raw_column(KDA_JOIN_ALIAS, "rowtime", ref->location) :
				kda_raw_column(rel->alias, KDA_TIME_COLUMN, ref->location);
	}
	return NULL;
}

void
kda_join_name_times(KdaCompose *c, Node *item, SelectStmt *select)
{
	TimesContext cxt = {made_of(c, item), NULL};
	KdaWords	words = {replace_time, NULL, kda_raw_is_aggregate, &cxt, false};
	ListCell   *lc;

	if (IsA(item, JoinExpr))
	{
		kda_join_name_times(c, ((JoinExpr *) item)->larg, select);
		kda_join_name_times(c, ((JoinExpr *) item)->rarg, select);
	}
	if (cxt.made == NULL)
		return;
	kda_words_replace_in_select(select, &words);
	/* GROUP BY STEP (a.rowtime BY …) is a window of the result if a's rows are its later ones */
	foreach(lc, c->spec->windows)
	{
		KdaWindowClause *w = lfirst(lc);
		int			location = kda_select_location(select);

		if (w->key == NULL || !IsA(w->time, ColumnRef) || location < w->span_start || location >= w->span_end)
			continue;
		cxt.window = NULL;
		w->time = kda_words_replace(w->time, &words);
		w->key = kda_words_replace(w->key, &words);
		cxt.window = memcpy(palloc(sizeof(KdaWindowClause)), w, sizeof(KdaWindowClause));
		cxt.window->time = copyObject(w->time);
		kda_words_replace_in_select(select, &words);
		w->time = kda_words_replace(w->time, &words);
		w->key = kda_words_replace(w->key, &words);
	}
}

List *
kda_join_aliases(KdaCompose *c, Node *item)
{
	Made	   *made = made_of(c, item);
	List	   *aliases = NIL;
	ListCell   *lc;

	if (made == NULL)
		return alias_of(item) ? list_make1(makeString(alias_of(item))) : NIL;
	foreach(lc, made->rels)
		aliases = lappend(aliases, makeString(((Rel *) lfirst(lc))->alias));
	return aliases;
}

Node *
kda_compose_join(KdaCompose *c, Node *left, Node *right, JoinType type, Node *condition, int location)
{
	StreamJoin	j = {c};
	Query	   *query;
	int			n = 0;
	char	  **names;
	Oid		   *types;
	int32	   *typmods;
	Oid			kept[2];
	KdaJoinParts parts = {0};
	Made	   *made = palloc0(sizeof(Made));
	ListCell   *lc;

	j.location = location;
	describe_side(&j, 0, left);
	describe_side(&j, 1, right);
	query = analyse(&j, condition);
	if (!j.bounded_low || !j.bounded_high)
	{
		const char *a = ((Rel *) linitial(j.sides[0].rels))->alias;
		const char *b = ((Rel *) linitial(j.sides[1].rels))->alias;

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("the join of \"%s\" and \"%s\" has no bound on time", a, b),
				 errdetail("Each record would have to be kept for ever, because another one could still match."),
				 errhint("Add a condition such as %s.rowtime BETWEEN %s.rowtime - INTERVAL '5' MINUTE AND %s.rowtime + INTERVAL '5' MINUTE.",
						 b, a, a),
				 errposition(position(c, location))));
	}

	n = j.sides[0].ncolumns + j.sides[1].ncolumns;
	names = palloc(sizeof(char *) * n);
	types = palloc(sizeof(Oid) * n);
	typmods = palloc(sizeof(int32) * n);
	made->names = palloc(sizeof(char *) * n);
	n = 0;
	for (int i = 0; i < 2; i++)
		for (int k = 0; k < j.sides[i].ncolumns; k++)
		{
			names[n] = psprintf("j%d", n + 1);
			made->names[n] = j.sides[i].names[k];
			types[n] = j.sides[i].types[k];
			typmods[n++] = j.sides[i].typmods[k];
		}
	made->stream = kda_make_part_stream(c, n, names, types, typmods,
										kda_stream_options_get(j.sides[0].split->stream), NULL);
	foreach(lc, j.rels)
	{
		Rel		   *rel = memcpy(palloc(sizeof(Rel)), lfirst(lc), sizeof(Rel));
		int			which = list_nth_int(j.rel_sides, foreach_current_index(lc));

		/* the later of the two sides is the result's time */
		if (which == 1)
			rel->first += j.sides[0].ncolumns;
		rel->slack_us += which == 0 ? Max(j.high, 0) : Max(-j.low, 0);
		rel->nullable |= type == JOIN_FULL || type == (which == 0 ? JOIN_RIGHT : JOIN_LEFT);
		rel->pseudo_time = false;
		made->rels = lappend(made->rels, rel);
	}
	c->joins = lappend(c->joins, made);

	for (int i = 0; i < 2; i++)
		parts.sides[i] = j.sides[i].split;
	parts.low_us = j.low;
	parts.high_us = j.high;
	parts.outer[0] = type == JOIN_LEFT || type == JOIN_FULL;
	parts.outer[1] = type == JOIN_RIGHT || type == JOIN_FULL;
	parts.target = made->stream;
	parts.id = kda_join_tables(&parts, j.equal, kept);
	for (int i = 0; i < 2; i++)
		j.sides[i].kept = kept[i];
	parts.match = match_query(&j, query);
	c->parts = lappend_oid(c->parts, kda_create_join_part(c, &parts, kept));
	return (Node *) kda_part_rangevar(made->stream, makeAlias(KDA_JOIN_ALIAS, NIL), location);
}
