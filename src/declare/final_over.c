/*-------------------------------------------------------------------------
 *
 * final_over.c
 *	  The final part of row-sliding queries: OVER windows and sorts.
 *
 * The user's SELECT over the rows that are kept, its windows ordered by place
 * (time, then arrival), and around it what leaves: time and number of the row
 * first.  Beside it the DELETE of what no row to come can see.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/nbtree.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "catalog/rows.h"
#include "declare/final_part.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "parser/parse_oper.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

/*---- row-sliding queries */

static Node *
place_of_row(KdaFinal *f)
{
	Oid			argtypes[2] = {TIMESTAMPTZOID, INT8OID};
	Oid			func = LookupFuncName(list_make2(makeString(KDA_SCHEMA), makeString("place")), 2, argtypes, false);

	return (Node *) makeFuncExpr(func, get_func_rettype(func),
								 list_make2(kda_final_column(f, KDA_KEPT_TIME, NULL), kda_final_column(f, KDA_KEPT_SEQ, NULL)),
								 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

/* The frame's reach is measured in the new order. */
static void
order_by_place(WindowClause *wc, Oid sortop)
{
	Oid			family,
				type;
	bool		reverse;
	Oid			in_range;

	if (!(wc->frameOptions & FRAMEOPTION_RANGE))
		return;
	if (!kda_ordering_op(sortop, &family, &type, &reverse))
		elog(ERROR, "operator %u is not an ordering operator", sortop);
	in_range = get_opfamily_proc(family, type, INTERVALOID, BTINRANGE_PROC);
	if (!OidIsValid(in_range))
		elog(ERROR, "kda.place has no in_range function");
	wc->startInRangeFunc = wc->startOffset ? in_range : InvalidOid;
	wc->endInRangeFunc = wc->endOffset ? in_range : InvalidOid;
	wc->inRangeColl = InvalidOid;
	wc->inRangeAsc = true;
	wc->inRangeNullsFirst = false;
}

/* ORDER BY … WITHIN: the keys behind the time. */
static List *
sort_keys(Query *inner)
{
	List	   *keys = NIL;
	ListCell   *lc;

	for_each_from(lc, inner->sortClause, 1)
		keys = lappend(keys, copyObject(get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), inner->targetList)->expr));
	return keys;
}

/* They are columns of the inner query, from number first on; the outer one is sorted by them. */
static void
sort_by_keys(Query *outer, Query *inner, List *by, int first)
{
	ListCell   *lc;

	foreach(lc, by)
	{
		SortGroupClause *sgc = copyObject(lfirst_node(SortGroupClause, lc));
		TargetEntry *from = list_nth_node(TargetEntry, inner->targetList, first - 1 + foreach_current_index(lc));
		TargetEntry *key = makeTargetEntry((Expr *) makeVar(1, from->resno, exprType((Node *) from->expr),
															exprTypmod((Node *) from->expr), exprCollation((Node *) from->expr), 0),
										   list_length(outer->targetList) + 1, NULL, true);

		outer->targetList = lappend(outer->targetList, key);
		sgc->tleSortGroupRef = key->ressortgroupref = foreach_current_index(lc) + 3;
		outer->sortClause = lappend(outer->sortClause, sgc);
	}
}

/* Windows and columns that the node needs become columns of the inner query. */
static Node *
lift_mutator(Node *node, void *arg)
{
	Query	   *inner = arg;
	TargetEntry *found = NULL;
	ListCell   *lc;

	if (node == NULL)
		return NULL;
	if (!IsA(node, WindowFunc) && !IsA(node, Var))
		return expression_tree_mutator(node, lift_mutator, inner);
	foreach(lc, inner->targetList)
		if (equal(lfirst_node(TargetEntry, lc)->expr, node))
		found = lfirst(lc);
	if (found == NULL)
	{
		kda_final_add_target(inner, node, psprintf("kda_part%d", list_length(inner->targetList) + 1));
		found = llast(inner->targetList);
	}
	return (Node *) makeVar(1, found->resno, exprType(node), exprTypmod(node), exprCollation(node), 0);
}

/*
 * The user's columns of the outer query.  Expressions over windows are
 * computed there, of the rows that leave: the inner query sees all that are
 * kept, and an error in one of them would be everybody's.
 */
static List *
lift_targets(Query *inner, List *shown)
{
	List	   *lifted = NIL;
	bool		lazy = !inner->hasSubLinks && !inner->hasTargetSRFs;
	ListCell   *lc;

	foreach(lc, shown)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (lazy && tle->ressortgroupref == 0)
			lifted = lappend(lifted, lift_mutator((Node *) tle->expr, inner));
		else
		{
			tle->resno = list_length(inner->targetList) + 1;
			inner->targetList = lappend(inner->targetList, tle);
			lifted = lappend(lifted, makeVar(1, tle->resno, exprType((Node *) tle->expr), exprTypmod((Node *) tle->expr),
											 exprCollation((Node *) tle->expr), 0));
		}
	}
	return lifted;
}

/* The user's SELECT with its windows ordered by place, and the rows' time and number beside it. */
Query *
kda_final_over(KdaFinal *f)
{
	KdaSplit   *split = f->split;
	Query	   *inner = copyObject(split->user);
	Query	   *from = kda_final_select_from(f->open);
	Query	   *outer = makeNode(Query);
	Node	   *place = place_of_row(f);
	RangeTblRef *ref = makeNode(RangeTblRef);
	Index		sortref = 0;
	SortGroupClause *sgc;
	List	   *shown = NIL;
	List	   *junk = NIL;
	List	   *keys;
	List	   *lifted;
	ListCell   *lc;

	inner->targetList = (List *) kda_replace_kept((Node *) inner->targetList, split->kept, kda_final_over_open, f);
	foreach(lc, inner->targetList)
		sortref = Max(sortref, lfirst_node(TargetEntry, lc)->ressortgroupref);
	if (inner->windowClause)
	{
		TargetEntry *tle = makeTargetEntry((Expr *) place, list_length(inner->targetList) + 1, NULL, true);

		tle->ressortgroupref = sortref + 1;
		inner->targetList = lappend(inner->targetList, tle);
		foreach(lc, inner->windowClause)
		{
			WindowClause *wc = lfirst_node(WindowClause, lc);

			sgc = makeNode(SortGroupClause);
			sgc->tleSortGroupRef = tle->ressortgroupref;
			get_sort_group_operators(exprType(place), true, true, false, &sgc->sortop, &sgc->eqop, NULL, &sgc->hashable);
			wc->orderClause = list_make1(sgc);
			order_by_place(wc, sgc->sortop);
		}
	}
	keys = split->sorted ? sort_keys(inner) : NIL;
	/* what only sorts comes after the others */
	foreach(lc, inner->targetList)
	{
		if (lfirst_node(TargetEntry, lc)->resjunk)
			junk = lappend(junk, lfirst(lc));
		else
			shown = lappend(shown, lfirst(lc));
	}
	/* ours first */
	inner->targetList = NIL;
	kda_final_add_target(inner, (Node *) kda_final_column(f, KDA_KEPT_TIME, NULL), "kda_time");
	kda_final_add_target(inner, (Node *) kda_final_column(f, KDA_KEPT_SEQ, NULL), "kda_seq");
	foreach(lc, keys)
		kda_final_add_target(inner, lfirst(lc), psprintf("kda_key%d", foreach_current_index(lc) + 1));
	lifted = lift_targets(inner, shown);
	if (split->sorted)
	{
		/* nothing but the sort needed them; what computes the select list is in the per-batch part */
		junk = NIL;
		inner->cteList = NIL;
		inner->hasSubLinks = inner->hasTargetSRFs = false;
	}
	foreach(lc, junk)
	{
		lfirst_node(TargetEntry, lc)->resno = list_length(inner->targetList) + 1;
		inner->targetList = lappend(inner->targetList, lfirst(lc));
	}
	inner->sortClause = NIL;
	inner->rtable = from->rtable;
#if PG_VERSION_NUM >= 160000
	inner->rteperminfos = from->rteperminfos;
#endif
	ref->rtindex = 1;
	inner->jointree = makeFromExpr(list_make1(ref), NULL);

	outer->commandType = CMD_SELECT;
	outer->querySource = QSRC_ORIGINAL;
	outer->canSetTag = true;
	outer->rtable = list_make1(kda_final_subquery(inner, "q", false));
	outer->jointree = makeFromExpr(list_make1(copyObject(ref)), NULL);
	for (int i = 0; i < 2; i++)
	{
		TargetEntry *tle = list_nth_node(TargetEntry, inner->targetList, i);

		kda_final_add_target(outer, (Node *) makeVar(1, tle->resno, exprType((Node *) tle->expr), exprTypmod((Node *) tle->expr),
													 exprCollation((Node *) tle->expr), 0), tle->resname);
	}
	foreach(lc, lifted)
		kda_final_add_target(outer, lfirst(lc), list_nth_node(TargetEntry, shown, foreach_current_index(lc))->resname);
	for (int i = 0; i < 2; i++)
	{
		TargetEntry *tle = list_nth_node(TargetEntry, outer->targetList, i);

		sgc = makeNode(SortGroupClause);
		sgc->tleSortGroupRef = tle->ressortgroupref = i + 1;
		get_sort_group_operators(exprType((Node *) tle->expr), true, true, false, &sgc->sortop, &sgc->eqop, NULL, &sgc->hashable);
		outer->sortClause = lappend(outer->sortClause, sgc);
		/* time, the user's further keys, order of arrival */
		if (i == 0 && split->sorted)
			sort_by_keys(outer, inner, list_copy_tail(split->user->sortClause, 1), 3);
	}
	return outer;
}

char *
kda_split_prune_sql(KdaSplit *split, Oid open_relid)
{
	Relation	open = table_open(open_relid, AccessShareLock);
	KdaFinal	f = {split, open, 0};
	List	   *context = deparse_context_for(RelationGetRelationName(open), open_relid);
	StringInfoData s;
	int64		range_us = -1;
	const char *name = kda_final_open_name(&f);
	ListCell   *lc;
	int			nestlevel;

	if (split->user->windowClause == NIL)
	{
		table_close(open, NoLock);
		return NULL;
	}
	nestlevel = kda_pin_search_path();
	initStringInfo(&s);
	appendStringInfo(&s, "DELETE FROM %s AS d WHERE d.kda_time < $1", name);
	foreach(lc, split->user->windowClause)
	{
		WindowClause *wc = lfirst_node(WindowClause, lc);
		Const	   *offset = castNode(Const, wc->startOffset);
		ListCell   *lp;

		if (wc->frameOptions & FRAMEOPTION_RANGE)
		{
			Interval   *iv = DatumGetIntervalP(offset->constvalue);

			/* a month is at most 31 days, and clocks change */
			range_us = Max(range_us, iv->time + ((int64) iv->day + (int64) iv->month * 31 + (iv->day || iv->month ? 1 : 0)) * USECS_PER_DAY);
			continue;
		}
		appendStringInfo(&s, " AND d.ctid IN (SELECT x.ctid FROM (SELECT %s.ctid, pg_catalog.row_number() OVER (",
						 quote_identifier(RelationGetRelationName(open)));
		foreach(lp, wc->partitionClause)
		{
			Node	   *expr = (Node *) get_sortgroupclause_tle(lfirst_node(SortGroupClause, lp), split->user->targetList)->expr;

			appendStringInfo(&s, "%s(%s)", lp == list_head(wc->partitionClause) ? "PARTITION BY " : ", ",
							 deparse_expression(kda_replace_kept(copyObject(expr), split->kept, kda_final_over_open, &f), context, false, false));
		}
		appendStringInfo(&s, " ORDER BY kda_time DESC, kda_seq DESC) AS n FROM %s WHERE kda_time <= $1) x WHERE x.n > " INT64_FORMAT ")",
						 name, Max(DatumGetInt64(offset->constvalue), 0));
	}
	if (range_us >= 0)
		appendStringInfo(&s, " AND d.kda_time < $1 - '" INT64_FORMAT " microseconds'::pg_catalog.interval", range_us);
	AtEOXact_GUC(true, nestlevel);
	table_close(open, NoLock);
	return s.data;
}
