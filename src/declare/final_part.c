/*-------------------------------------------------------------------------
 *
 * final_part.c
 *	  The final part of a continuous query: SQL over the table of what is kept.
 *
 * One text serves the worker, which runs it for the windows that close, and
 * the view, which shows the open ones.  Its first two columns are the bounds of
 * the window.  It has one of these forms:
 *
 *		groups, tumbling, sessions,	a row of the table is a row of the result
 *		or endless
 *		groups by pane				a window is the combination of its panes
 *		more than groups, or rows	for each open window, the user's SELECT over
 *									what is kept of it (LATERAL)
 *
 * For row-sliding queries (final_over.c) the first two columns are the record's
 * time and number instead.
 *
 * Built as a Query and written out by core's ruleutils, in the session that
 * declares the query.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/table.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "catalog/rows.h"
#include "declare/final_part.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "parser/parse_node.h"
#include "parser/parse_oper.h"
#include "parser/parse_relation.h"
#include "query/agg_signature.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* pg_operator.dat: timestamptz = < <= >=, bigint = */
#define TIME_EQ	1320
#define TIME_LT	1322
#define TIME_LE	1323
#define TIME_GE	1325
#define NUMBER_EQ	410

static void
add_user_targets(KdaFinal *f, Query *query)
{
	List	   *kept = kda_final_kept(f);
	ListCell   *lc;

	foreach(lc, f->split->user->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (!tle->resjunk)
			kda_final_add_target(query, kda_replace_kept((Node *) tle->expr, kept, kda_final_over_open, f), tle->resname);
	}
	query->hasSubLinks = f->split->user->hasSubLinks;
	query->cteList = copyObject(f->split->user->cteList);
}

/*---- a row of the table is a row of the result */

static void
add_bounds(KdaFinal *f, Query *query)
{
	kda_final_add_target(query, kda_final_bound(f, KDA_FINAL_WINDOW_START), "kda_start");
	kda_final_add_target(query, kda_final_bound(f, KDA_FINAL_WINDOW_END), "kda_end");
	if (f->split->shows_key)
		kda_final_add_target(query, f->by_row ? (Node *) kda_final_column(f, KDA_OPEN_FIRST_KEY + 2, NULL) :
							 (Node *) makeVar(f->window_rti, 3, INT8OID, -1, InvalidOid, f->window_levels), "kda_key");
}

static Query *
row_by_row(KdaFinal *f)
{
	Query	   *final = kda_final_select_from(f->open);

	f->by_row = true;
	add_bounds(f, final);
	add_user_targets(f, final);
	final->jointree->quals = kda_replace_kept(f->split->user->havingQual, kda_final_kept(f), kda_final_over_open, f);
	return final;
}

/*---- a window is the combination of its panes */

static void
group_by(Query *query, Node *expr, const char *name)
{
	TargetEntry *tle = NULL;
	SortGroupClause *sgc = makeNode(SortGroupClause);
	ListCell   *lc;

	foreach(lc, query->targetList)
		if (equal(lfirst_node(TargetEntry, lc)->expr, expr))
		tle = lfirst_node(TargetEntry, lc);
	if (tle == NULL)
	{
		tle = makeTargetEntry((Expr *) expr, list_length(query->targetList) + 1, NULL, true);
		query->targetList = lappend(query->targetList, tle);
	}
	if (tle->ressortgroupref != 0)
		return;
	tle->ressortgroupref = list_length(query->groupClause) + 1;
	sgc->tleSortGroupRef = tle->ressortgroupref;
	get_sort_group_operators(exprType(expr), false, true, false, &sgc->sortop, &sgc->eqop, NULL, &sgc->hashable);
	query->groupClause = lappend(query->groupClause, sgc);
}

static void
group_by_kept_keys(KdaFinal *f, Query *query)
{
	ListCell   *lc;

	foreach(lc, f->split->kept)
	{
		KdaKept    *kept = lfirst(lc);

		if (!IsA(kept->expr, Aggref))
			group_by(query, (Node *) kda_final_column(f, kept->attno, kept->expr), NULL);
	}
}

static Query *
by_pane(KdaFinal *f)
{
	Query	   *final = kda_final_analyzed(psprintf("SELECT w.window_start AS kda_start, w.window_end AS kda_end FROM %s o, "
													"LATERAL kda.windows(o.k1, %s%s) w WHERE w.window_end OPERATOR(pg_catalog.>) (SELECT kda.frontier(%d))",
													kda_final_open_name(f), quote_literal_cstr(f->split->window_text),
													f->split->paned ? ", o.k2" : "", f->query_id));

	f->merge = true;
	f->window_rti = 2;
	f->window_levels = 0;
	add_user_targets(f, final);
	final->hasSubLinks = true;
	final->hasAggs = true;
	group_by(final, kda_final_bound(f, KDA_FINAL_WINDOW_START), NULL);
	group_by(final, kda_final_bound(f, KDA_FINAL_WINDOW_END), NULL);
	group_by_kept_keys(f, final);
	final->havingQual = kda_replace_kept(f->split->user->havingQual, kda_final_kept(f), kda_final_over_open, f);
	return final;
}

/* Endless groups, each the combination of what the slots have of it. */
static Query *
by_key(KdaFinal *f)
{
	Query	   *final = kda_final_analyzed(psprintf("SELECT NULL::timestamptz AS kda_start, NULL::timestamptz AS kda_end FROM %s o "
													"HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0", kda_final_open_name(f)));
	Node	   *having;

	f->merge = true;
	add_user_targets(f, final);
	group_by_kept_keys(f, final);
	having = kda_replace_kept(copyObject(f->split->user->havingQual), kda_final_kept(f), kda_final_over_open, f);
	if (having)
		final->havingQual = kda_final_and(list_make2(final->havingQual, having));
	return final;
}

/*---- the user's SELECT over what is kept of a window */

/*
 * Windows that depend on other rows: which of them close is known to the
 * worker, a view sees them in the rows that are kept.
 */
static Query *
open_sessions(KdaFinal *f)
{
	const KdaWindowSpec *window = f->split->window;
	const char *spec = quote_literal_cstr(f->split->window_text);
	char	   *kept;
	char	   *all;

	if (window->kind == KDA_WINDOW_STAGGER)
		kept = psprintf("SELECT DISTINCT o.kda_mark, kda.window_end(o.kda_mark, %s), o.kda_key FROM %s o WHERE NOT kda.closing(%d)",
						spec, kda_final_open_name(f), f->query_id);
	else
		kept = psprintf("SELECT pg_catalog.min(i.kda_time), kda.window_end(pg_catalog.max(i.kda_time), %s), i.kda_key FROM "
						"(SELECT s.kda_key, s.kda_time, pg_catalog.count(*) FILTER (WHERE s.first) OVER (PARTITION BY s.kda_key ORDER BY s.kda_time) AS n FROM "
						"(SELECT o.kda_key, o.kda_time, kda.window_end(pg_catalog.lag(o.kda_time) OVER (PARTITION BY o.kda_key ORDER BY o.kda_time), %s) "
						"OPERATOR(pg_catalog.<) o.kda_time AS first FROM %s o WHERE NOT kda.closing(%d)) s) i "
						"GROUP BY i.kda_key, i.n", spec, spec, kda_final_open_name(f), f->query_id);
	all = psprintf("SELECT c.window_start, c.window_end, c.kda_key FROM kda.closing_sessions(%d) c UNION ALL %s", f->query_id, kept);
	if (window->by_bounds)
		all = psprintf("SELECT a.window_start, a.window_end, pg_catalog.array_agg(a.kda_key) AS kda_keys FROM (%s) a "
					   "GROUP BY a.window_start, a.window_end", all);
	return kda_final_analyzed(all);
}

/* Conditions on the open table that a row belongs to that window. */
static List *
in_session(KdaFinal *f, int levels)
{
	const KdaWindowSpec *window = f->split->window;
	Node	   *key = (Node *) kda_final_column(f, RelationGetNumberOfAttributes(f->open), NULL);
	Node	   *same_key;

	f->window_rti = 1;
	f->window_levels = levels;
	if (window->by_bounds)
	{
		ScalarArrayOpExpr *any = makeNode(ScalarArrayOpExpr);

		any->opno = NUMBER_EQ;
		any->useOr = true;
		any->args = list_make2(key, makeVar(1, 3, INT8ARRAYOID, -1, InvalidOid, levels));
		any->location = -1;
		same_key = (Node *) any;
	}
	else
		same_key = kda_final_compare(NUMBER_EQ, key, (Node *) makeVar(1, 3, INT8OID, -1, InvalidOid, levels));
	if (window->kind == KDA_WINDOW_STAGGER)
		return list_make2(same_key, kda_final_compare(TIME_EQ, (Node *) kda_final_column(f, KDA_KEPT_MARK, NULL), kda_final_bound(f, KDA_FINAL_WINDOW_START)));
	return list_make3(same_key,
					  kda_final_compare(TIME_GE, (Node *) kda_final_column(f, KDA_KEPT_TIME, NULL), kda_final_bound(f, KDA_FINAL_WINDOW_START)),
					  kda_final_compare(TIME_LE, (Node *) kda_final_column(f, KDA_KEPT_TIME, NULL), kda_final_bound(f, KDA_FINAL_WINDOW_END)));
}

/* The open windows. */
static Query *
open_windows(KdaFinal *f)
{
	KdaSplit   *split = f->split;
	const char *spec = quote_literal_cstr(split->window_text);

	if (!kda_window_is_aligned(split->window))
		return open_sessions(f);
	if (split->state == KDA_STATE_GROUPS && !split->paned && f->slotted)
		return kda_final_analyzed(psprintf("SELECT w.window_start, w.window_end FROM (SELECT DISTINCT o.k1 FROM %s o) p(pane), "
										   "LATERAL kda.windows(p.pane, %s) w WHERE w.window_end OPERATOR(pg_catalog.>) (SELECT kda.frontier(%d))",
										   kda_final_open_name(f), spec, f->query_id));
	if (split->state == KDA_STATE_GROUPS && !split->paned)
		return kda_final_analyzed(psprintf("SELECT DISTINCT o.k1 AS window_start, kda.window_end(o.k1, %s) AS window_end FROM %s o",
										   spec, kda_final_open_name(f)));
	return kda_final_analyzed(psprintf("SELECT DISTINCT w.window_start, w.window_end FROM (SELECT DISTINCT %s FROM %s o) p(pane, mark), "
									   "LATERAL kda.windows(p.pane, %s, p.mark) w WHERE w.window_end OPERATOR(pg_catalog.>) (SELECT kda.frontier(%d))",
									   split->state == KDA_STATE_GROUPS ? "o.k1, o.k2" :
									   psprintf("kda.window_start(o.kda_time, %s), o.kda_mark", spec),
									   kda_final_open_name(f), spec, f->query_id));
}

/* Conditions on the open table that a row belongs to the window; levels: how far up that is. */
static List *
in_window(KdaFinal *f, int levels)
{
	KdaSplit   *split = f->split;
	bool		groups = split->state == KDA_STATE_GROUPS;
	AttrNumber	time = groups ? KDA_OPEN_FIRST_KEY : KDA_KEPT_TIME;
	AttrNumber	mark = groups ? KDA_OPEN_FIRST_KEY + 1 : KDA_KEPT_MARK;

	if (split->window == NULL)
		return NIL;
	if (!kda_window_is_aligned(split->window))
		return in_session(f, levels);
	f->window_rti = 1;
	f->window_levels = levels;
	if (groups && !split->paned)
		return list_make1(kda_final_compare(TIME_EQ, (Node *) kda_final_column(f, time, NULL), kda_final_bound(f, KDA_FINAL_WINDOW_START)));
	return list_make3(kda_final_compare(TIME_GE, (Node *) kda_final_column(f, time, NULL), kda_final_bound(f, KDA_FINAL_WINDOW_START)),
					  kda_final_compare(TIME_LT, (Node *) kda_final_column(f, time, NULL), kda_final_bound(f, KDA_FINAL_WINDOW_END)),
					  kda_final_compare(TIME_LT, (Node *) kda_final_column(f, mark, NULL), kda_final_bound(f, KDA_FINAL_WINDOW_END)));
}

/* The same for a window that is one row, further up. */
static Query *
group_of_row(KdaFinal *f)
{
	Query	   *group = makeNode(Query);
	ListCell   *lc;

	group->commandType = CMD_SELECT;
	group->querySource = QSRC_ORIGINAL;
	group->canSetTag = true;
	group->jointree = makeFromExpr(NIL, NULL);
	foreach(lc, f->split->kept)
		kda_final_add_target(group, kda_final_over_open(lfirst(lc), f), psprintf("g%d", foreach_current_index(lc) + 1));
	IncrementVarSublevelsUp((Node *) group->targetList, f->split->depth + 2, 0);
	return group;
}

/* State groups: a subquery that gives keys and results of aggregates. */
static Query *
groups_of_window(KdaFinal *f)
{
	Query	   *groups;
	ListCell   *lc;

	if (f->by_row)
		return group_of_row(f);
	f->merge = f->split->paned || f->slotted;
	groups = f->merge ? kda_final_analyzed(psprintf("SELECT 1 FROM %s o HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0", kda_final_open_name(f))) :
		kda_final_select_from(f->open);
	groups->targetList = NIL;
	groups->jointree->quals = kda_final_and(in_window(f, f->split->depth + 2));
	foreach(lc, f->split->kept)
		kda_final_add_target(groups, kda_final_over_open(lfirst(lc), f), psprintf("g%d", foreach_current_index(lc) + 1));
	if (f->merge)
		group_by_kept_keys(f, groups);
	return groups;
}

typedef struct AroundContext
{
	Query	   *was;
	Query	   *now;
} AroundContext;

static void
put_core(Query *query, AroundContext *cxt)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind != RTE_SUBQUERY)
			continue;
		/* it refers to the windows, which stand outside */
		if (rte->subquery == cxt->was)
		{
			rte->subquery = cxt->now;
			rte->lateral = true;
		}
		else
		{
			put_core(rte->subquery, cxt);
			rte->lateral = true;
		}
	}
	foreach(lc, query->cteList)
		if (lfirst_node(CommonTableExpr, lc)->ctequery == (Node *) cxt->was)
		lfirst_node(CommonTableExpr, lc)->ctequery = (Node *) cxt->now;
}

/* The whole SELECT with another core. */
static Query *
around_core(KdaSplit *split, Query *core)
{
	AroundContext cxt = {split->user, core};
	Query	   *top;

	if (split->depth == 0)
		return core;
	/* pointers tell which one it is: it is put back afterwards */
	put_core(split->top, &cxt);
	top = copyObject(split->top);
	cxt.was = core;
	cxt.now = split->user;
	put_core(split->top, &cxt);
	return top;
}

static Query *
for_each_window(KdaFinal *f)
{
	KdaSplit   *split = f->split;
	Query	   *inner = copyObject(split->user);
	Query	   *outer = makeNode(Query);
	KdaMakeKept make;
	List	   *kept = kda_final_kept(f);
	RangeTblRef *ref = makeNode(RangeTblRef);
	List	   *quals = NIL;
	Node	   *having;
	Query	   *source = NULL;
	ListCell   *lc;
	int			rti = 0;

	f->by_row = split->state == KDA_STATE_GROUPS && split->window && !kda_window_is_aligned(split->window);
	if (split->state == KDA_STATE_GROUPS)
	{
		source = groups_of_window(f);
		f->window_levels = split->depth + 1;
		f->window_rti = 1;
		make = kda_final_over_subquery;
	}
	else
	{
		quals = in_window(f, split->depth + 1);
		make = kda_final_over_open;
	}
	/* the user's query, but for FROM */
	having = kda_replace_kept(inner->havingQual, kept, make, f);
	inner->targetList = (List *) kda_replace_kept((Node *) inner->targetList, kept, make, f);
	inner->windowClause = (List *) kda_replace_kept((Node *) inner->windowClause, kept, make, f);
	inner->limitCount = kda_replace_kept(inner->limitCount, kept, make, f);
	inner->limitOffset = kda_replace_kept(inner->limitOffset, kept, make, f);
	if (split->window_quals)
		quals = lappend(quals, kda_replace_kept(split->window_quals, kept, make, f));
	if (source)
	{
		/* aggregates are columns now */
		inner->rtable = list_make1(kda_final_subquery(source, "g", split->window != NULL));
#if PG_VERSION_NUM >= 160000
		inner->rteperminfos = NIL;
#endif
		inner->groupClause = NIL;
		inner->havingQual = NULL;
		inner->hasAggs = false;
		if (having)
			quals = lappend(quals, having);
		foreach(lc, inner->targetList)
		{
			TargetEntry *tle = lfirst_node(TargetEntry, lc);

			/* what only GROUP BY named */
			if (tle->resjunk && !get_sortgroupref_clause_noerr(tle->ressortgroupref, inner->sortClause) &&
				!get_sortgroupref_clause_noerr(tle->ressortgroupref, inner->distinctClause))
			{
				bool		window = false;
				ListCell   *lw;

				foreach(lw, inner->windowClause)
				{
					WindowClause *wc = lfirst_node(WindowClause, lw);

					window |= get_sortgroupref_clause_noerr(tle->ressortgroupref, wc->partitionClause) ||
						get_sortgroupref_clause_noerr(tle->ressortgroupref, wc->orderClause);
				}
				if (!window)
					inner->targetList = foreach_delete_current(inner->targetList, lc);
			}
		}
		/* the executor counts columns */
		foreach(lc, inner->targetList)
			lfirst_node(TargetEntry, lc)->resno = foreach_current_index(lc) + 1;
	}
	else
	{
		Query	   *from = kda_final_select_from(f->open);

		inner->rtable = from->rtable;
#if PG_VERSION_NUM >= 160000
		inner->rteperminfos = from->rteperminfos;
#endif
		inner->havingQual = having;
	}
	ref->rtindex = 1;
	inner->jointree = makeFromExpr(list_make1(ref), kda_final_and(quals));

	/* the levels around it stay as they are */
	inner = around_core(split, inner);
	if (split->state == KDA_STATE_ROWS)
		kda_split_by_arrival(inner, RelationGetRelid(f->open), KDA_KEPT_SEQ);

	/* around it the windows */
	outer->commandType = CMD_SELECT;
	outer->querySource = QSRC_ORIGINAL;
	outer->canSetTag = true;
	outer->jointree = makeFromExpr(NIL, NULL);
	if (f->by_row)
	{
		outer = kda_final_select_from(f->open);
		rti++;
	}
	else if (split->window)
	{
		outer->rtable = lappend(outer->rtable, kda_final_subquery(open_windows(f), "w", false));
		ref = makeNode(RangeTblRef);
		ref->rtindex = ++rti;
		outer->jointree->fromlist = lappend(outer->jointree->fromlist, ref);
	}
	outer->rtable = lappend(outer->rtable, kda_final_subquery(inner, "q", split->window != NULL));
	ref = makeNode(RangeTblRef);
	ref->rtindex = ++rti;
	outer->jointree->fromlist = lappend(outer->jointree->fromlist, ref);
	f->window_rti = 1;
	f->window_levels = 0;
	f->by_row |= split->window == NULL;
	add_bounds(f, outer);
	if (split->window_columns_around)
	{
		kda_final_add_target(outer, kda_final_bound(f, KDA_FINAL_WINDOW_START), "window_start");
		kda_final_add_target(outer, kda_final_bound(f, KDA_FINAL_WINDOW_END), "window_end");
	}
	foreach(lc, inner->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (!tle->resjunk)
			kda_final_add_target(outer, (Node *) makeVar(rti, tle->resno, exprType((Node *) tle->expr), exprTypmod((Node *) tle->expr),
														 exprCollation((Node *) tle->expr), 0), tle->resname);
	}
	return outer;
}
Query *
kda_split_final(KdaSplit *split, Oid open_relid, int32 query_id)
{
	Relation	open = table_open(open_relid, AccessShareLock);
	KdaFinal	f = {split, open, query_id};
	Query	   *final = split->shape == KDA_SHAPE_OVER ? kda_final_over(&f) :
	split->per_window ? for_each_window(&f) :
	split->paned ? by_pane(&f) : row_by_row(&f);

	table_close(open, NoLock);
	return final;
}

Query *
kda_split_merged(KdaSplit *split, Oid open_relid, int32 query_id)
{
	Relation	open;
	KdaFinal	f = {.split = split,.query_id = query_id,.slotted = true};
	Query	   *final;

	if (split->one_slot || split->state != KDA_STATE_GROUPS || split->paned)
		return NULL;
	f.open = open = table_open(open_relid, AccessShareLock);
	final = split->per_window ? for_each_window(&f) : split->window ? by_pane(&f) : by_key(&f);
	table_close(open, NoLock);
	return final;
}

/*---- no record yet */

static Node *
empty_mutator(Node *node, void *cxt)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == 0)
		return (Node *) makeNullConst(((Var *) node)->vartype, ((Var *) node)->vartypmod,
									  ((Var *) node)->varcollid);
	return expression_tree_mutator(node, empty_mutator, cxt);
}

Query *
kda_split_empty(KdaSplit *split)
{
	Query	   *empty;
	List	   *targets = NIL;
	ListCell   *lc;

	/* rows: the user's own SQL over no rows does it */
	if (split->shape != KDA_SHAPE_GROUPS || split->state != KDA_STATE_GROUPS || split->nkeys > 0 || split->user->limitCount ||
		split->user->limitOffset)
		return NULL;

	/* The user's own aggregates over no rows at all. */
	empty = makeNode(Query);
	empty->commandType = CMD_SELECT;
	empty->querySource = QSRC_ORIGINAL;
	empty->canSetTag = true;
	empty->hasAggs = true;
	foreach(lc, split->user->targetList)
	{
		TargetEntry *tle = copyObject(lfirst_node(TargetEntry, lc));

		if (tle->resjunk)
			continue;
		tle->expr = (Expr *) empty_mutator((Node *) tle->expr, NULL);
		targets = lappend(targets, tle);
	}
	empty->targetList = targets;
	empty->jointree = makeFromExpr(NIL, makeBoolConst(false, false));
	empty->havingQual = empty_mutator(copyObject(split->user->havingQual), NULL);
	return empty;
}
