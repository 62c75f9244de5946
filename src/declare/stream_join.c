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
#include "declare/stream_join.h"
#include "catalog/rows.h"
#include "declare/from.h"
#include "catalog/options.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "declare/split.h"
#include "declare/sort_within.h"
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

typedef struct StreamJoin
{
	KdaCompose *c;
	KdaJoinSide		sides[2];
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

/*---- the bound */

typedef struct Linear
{
	int			side;			/* whose time it is, -1: neither */
	int64		slack;			/* of the rel */
	int64		low;			/* µs; it is the time plus low to high */
	int64		high;
} Linear;

static Linear linear(StreamJoin *j, Node *node);

/* One of several times of one side: what COALESCE, GREATEST or LEAST gives. */
static Linear
one_of(StreamJoin *j, List *args)
{
	Linear		one = linear(j, linitial(args));
	ListCell   *lc;

	for_each_from(lc, args, 1)
	{
		Linear		other = linear(j, lfirst(lc));

		if (other.side != one.side)
			return (Linear) {-1, 0, 0, 0};
		one.slack = Max(one.slack, other.slack);
		one.low = Min(one.low, other.low);
		one.high = Max(one.high, other.high);
	}
	return one;
}

static Linear
linear(StreamJoin *j, Node *node)
{
	Linear		none = {-1, 0, 0, 0};

	while (node && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	if (node == NULL)
		return none;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;
		KdaJoinRel *rel = list_nth(j->rels, var->varno - 1);
		int			side = list_nth_int(j->rel_sides, var->varno - 1);
		ListCell   *lc;

		if (var->varlevelsup != 0)
			return none;
		if (rel->pseudo_time && var->varattno == rel->ncolumns + 1)
			return (Linear) {side, rel->slack_us, 0, 0};
		foreach(lc, rel->times)
		{
			KdaTimeColumn *time = lfirst(lc);

			if (time->column == var->varattno)
				return (Linear) {side, rel->slack_us, time->low_us, time->high_us};
		}
		return none;
	}
	/* a column that FULL JOIN ... USING has merged */
	if (IsA(node, CoalesceExpr))
		return one_of(j, ((CoalesceExpr *) node)->args);
	if (IsA(node, MinMaxExpr))
		return one_of(j, ((MinMaxExpr *) node)->args);
	if (IsA(node, OpExpr) && list_length(((OpExpr *) node)->args) == 2)
	{
		OpExpr	   *op = (OpExpr *) node;
		Linear		l;
		Node	   *by = eval_const_expressions(NULL, lsecond(op->args));
		Interval   *iv;
		int64		plus;

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
		plus = (iv->time + (int64) iv->day * USECS_PER_DAY) * (op->opfuncid == F_TIMESTAMPTZ_PL_INTERVAL || op->opfuncid == F_TIMESTAMP_PL_INTERVAL ? 1 : -1);
		l.low += plus;
		l.high += plus;
		if (iv->day != 0 && (op->opfuncid == F_TIMESTAMPTZ_PL_INTERVAL || op->opfuncid == F_TIMESTAMPTZ_MI_INTERVAL))
		{
			/* clocks change: a day is what the server's TimeZone says */
			l.low -= USECS_PER_DAY;
			l.high += USECS_PER_DAY;
		}
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
	KdaJoinRel		   *rel = list_nth(j->rels, var->varno - 1);

	return var->varattno > rel->ncolumns ? 0 : rel->first + var->varattno;
}

/* What a condition says of the time between the two rows, and which columns are equal. */
static void
read_condition(StreamJoin *j, Node *node)
{
	OpExpr	   *op;
	Linear		a,
				b;
	int64		least,			/* right - left, at equality */
				most;

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
		least = swapped ? b.low - a.high : a.low - b.high;
		most = swapped ? b.high - a.low : a.high - b.low;
		switch (op->opfuncid)
		{
			case F_TIMESTAMPTZ_EQ:
			case F_TIMESTAMP_EQ:
				bound_low(j, least, left_slack);
				bound_high(j, most, right_slack);
				break;
			case F_TIMESTAMPTZ_LE:
			case F_TIMESTAMPTZ_LT:
			case F_TIMESTAMP_LE:
			case F_TIMESTAMP_LT:
				if (swapped)
					bound_high(j, most, right_slack);
				else
					bound_low(j, least, left_slack);
				break;
			case F_TIMESTAMPTZ_GE:
			case F_TIMESTAMPTZ_GT:
			case F_TIMESTAMP_GE:
			case F_TIMESTAMP_GT:
				if (swapped)
					bound_low(j, least, left_slack);
				else
					bound_high(j, most, right_slack);
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
	ParseState *pstate = make_parsestate(NULL);
	Query	   *query;
	List	   *quals;
	ListCell   *lc;

	foreach(lc, j->rels)
		select->fromClause = lappend(select->fromClause,
									 kda_join_stand_in(&j->sides[list_nth_int(j->rel_sides, foreach_current_index(lc))], lfirst(lc)));
	select->whereClause = condition;
	raw->stmt = (Node *) kda_compose_with(j->c, select);
	query = parse_analyze_fixedparams(raw, j->c->source_text, NULL, 0, NULL);
	pstate->p_sourcetext = j->c->source_text;
	kda_settle_whole_rows(pstate, query, true);
	if (contain_volatile_functions((Node *) query->jointree))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the condition of a stream join must not be volatile"),
				 errdetail("Rows may be matched again after a restart, and have to match then as they did."),
				 errhint("Put what is volatile into the select list, or into WHERE of a query that reads the joined rows from a stream."),
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

/*---- times of what was joined */

typedef struct TimesContext
{
	KdaMadeJoin	   *made;
	KdaWindowClause *window;	/* NULL: undeclared times; else what names its time */
} TimesContext;

/* Is the rel's time that of the result? */
static bool
is_time_of_result(const KdaJoinRel *rel)
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
		KdaJoinRel		   *rel = lfirst(lc);

		if (strcmp(rel->alias, strVal(linitial(ref->fields))) != 0)
			continue;
		if (cxt->window)
			return is_time_of_result(rel) && equal(((ColumnRef *) cxt->window->time)->fields, ref->fields) &&
				kda_join_time_column(rel) > 0 &&
				strcmp(cxt->made->names[rel->first + kda_join_time_column(rel) - 1], column) == 0 ?
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
	TimesContext cxt = {kda_made_join(c, item), NULL};
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
	/* ORDER BY a.rowtime WITHIN is by the result's time in that case, too */
	if (kda_sort_of(select))
	{
		KdaWindowClause sort = {0};

		sort.time = linitial(kda_sort_of(select)->args);
		if (IsA(sort.time, ColumnRef))
		{
			cxt.window = &sort;
			linitial(kda_sort_of(select)->args) = kda_words_replace(copyObject(sort.time), &words);
			cxt.window = NULL;
		}
	}
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

static void
check_names(StreamJoin *j)
{
	ListCell   *la,
			   *lb;

	foreach(la, j->rels)
		foreach(lb, j->rels)
			if (foreach_current_index(la) < foreach_current_index(lb) &&
				strcmp(((KdaJoinRel *) lfirst(la))->alias, ((KdaJoinRel *) lfirst(lb))->alias) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_ALIAS),
						 errmsg("table name \"%s\" specified more than once", ((KdaJoinRel *) lfirst(la))->alias),
						 errposition(position(j->c, j->location))));
}

/* What the side is called by: a stream of it, not a table. */
static KdaJoinRel *
stream_of_side(const KdaJoinSide *side)
{
	ListCell   *lc;

	foreach(lc, side->rels)
		if (((KdaJoinRel *) lfirst(lc))->pseudo_time || ((KdaJoinRel *) lfirst(lc))->times)
			return lfirst(lc);
	return linitial(side->rels);
}

/* Are there rows of windows on both sides, which tell no other time? */
static bool
speaks_of_windows(StreamJoin *j)
{
	for (int i = 0; i < 2; i++)
	{
		KdaJoinRel *rel = stream_of_side(&j->sides[i]);

		if (rel->times == NIL || kda_join_time_column(rel) > 0)
			return false;
	}
	return true;
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
	KdaMadeJoin	   *made = palloc0(sizeof(KdaMadeJoin));
	ListCell   *lc;

	j.location = location;
	for (int i = 0; i < 2; i++)
	{
		kda_join_describe(c, &j.sides[i], i == 0 ? left : right, location);
		foreach(lc, j.sides[i].rels)
		{
			j.rels = lappend(j.rels, lfirst(lc));
			j.rel_sides = lappend_int(j.rel_sides, i);
		}
	}
	check_names(&j);
	query = analyse(&j, condition);
	if (!j.bounded_low || !j.bounded_high)
	{
		const char *a = stream_of_side(&j.sides[0])->alias;
		const char *b = stream_of_side(&j.sides[1])->alias;

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("the join of \"%s\" and \"%s\" has no bound on time", a, b),
				 errdetail("Each record would have to be kept for ever, because another one could still match."),
				 speaks_of_windows(&j) ? errhint("Rows of windows are joined by their ends: ON %s.window_end = %s.window_end AND ....", a, b) :
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
		KdaJoinRel		   *rel = memcpy(palloc(sizeof(KdaJoinRel)), lfirst(lc), sizeof(KdaJoinRel));
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
