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
 * For row-sliding queries the first two columns are the record's time and
 * number instead.
 *
 * Built as a Query and written out by core's ruleutils, in the session that
 * declares the query.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/nbtree.h"
#include "access/table.h"
#include "catalog/rows.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "declare/split.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parse_func.h"
#include "parser/parse_func.h"
#include "parser/parse_node.h"
#include "parser/parse_oper.h"
#include "parser/parse_relation.h"
#include "query/agg_signature.h"
#include "rewrite/rewriteManip.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/ruleutils.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* pg_operator.dat: timestamptz = < <= >=, bigint = */
#define TIME_EQ	1320
#define TIME_LT	1322
#define TIME_LE	1323
#define TIME_GE	1325
#define NUMBER_EQ	410

/* Stands in a KdaKept for the columns of the windows. */
#define WINDOW_START	(-101)
#define WINDOW_END		(-102)

/*---- replacing expressions, at any depth */

typedef struct ReplaceContext
{
	List	   *kept;
	int			depth;
	KdaMakeKept make;
	void	   *arg;
} ReplaceContext;

static Node *
replace_mutator(Node *node, void *arg)
{
	ReplaceContext *cxt = arg;
	ListCell   *lc;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Node	   *result;

		cxt->depth++;
		result = (Node *) query_tree_mutator((Query *) node, replace_mutator, (void *) cxt, 0);
		cxt->depth--;
		return result;
	}
	foreach(lc, cxt->kept)
	{
		KdaKept    *kept = lfirst(lc);
		Node	   *want = kept->expr;

		if (nodeTag(want) != nodeTag(node))
			continue;
		if (cxt->depth > 0)
		{
			want = copyObject(want);
			IncrementVarSublevelsUp(want, cxt->depth, 0);
		}
		if (equal(node, want))
		{
			Node	   *other = cxt->make(kept, cxt->arg);

			if (cxt->depth > 0)
				IncrementVarSublevelsUp(other, cxt->depth, 0);
			return other;
		}
	}
	return expression_tree_mutator(node, replace_mutator, (void *) cxt);
}

Node *
kda_replace_kept(Node *node, List *kept, KdaMakeKept make, void *arg)
{
	ReplaceContext cxt = {kept, 0, make, arg};

	return replace_mutator(node, &cxt);
}

/*---- pieces */

typedef struct Final
{
	KdaSplit   *split;
	Relation	open;
	int32		query_id;
	bool		merge;			/* states of several rows are combined */
	bool		slotted;		/* … since each slot may have one */
	bool		by_row;			/* a row of the table is a window by itself: bounds are expressions over it */
	int			window_rti;		/* whose columns 1 and 2 are the window's bounds */
	int			window_levels;	/* … so many query levels up */
} Final;

/* SQL of ours as a Query; its names are looked up as the extension's owner. */
static Query *
analyzed(const char *sql)
{
	MemoryContext old = CurrentMemoryContext;
	KdaOwnerScope scope;
	Query	   *query;

	kda_owner_begin(&scope);
	MemoryContextSwitchTo(old);
	query = parse_analyze_fixedparams(linitial_node(RawStmt, pg_parse_query(sql)), sql, NULL, 0, NULL);
	kda_owner_end(&scope);
	MemoryContextSwitchTo(old);
	return query;
}

static char *
open_name(Final *f)
{
	return psprintf(KDA_STORAGE_SCHEMA ".%s", quote_identifier(RelationGetRelationName(f->open)));
}

static Var *
open_column(Final *f, AttrNumber attno, Node *like)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(f->open), attno - 1);

	return makeVar(1, attno, att->atttypid, like ? exprTypmod(like) : att->atttypmod, att->attcollation, 0);
}

static Node *bound_of_row(Final *f, int attno);

static Node *
window_column(Final *f, int attno)
{
	if (f->by_row)
	{
		Node	   *bound = bound_of_row(f, attno);

		IncrementVarSublevelsUp(bound, f->window_levels, 0);
		return bound;
	}
	return (Node *) makeVar(f->window_rti, attno == WINDOW_START ? 1 : 2, TIMESTAMPTZOID, -1, InvalidOid,
							f->window_levels);
}

/* Result of an aggregate from its state in the open table. */
static Node *
result_of_state(Final *f, Aggref *agg, AttrNumber attno)
{
	Var		   *state = open_column(f, attno, NULL);
	Node	   *signature = (Node *) makeConst(TEXTOID, -1, DEFAULT_COLLATION_OID, -1,
											   CStringGetTextDatum(kda_agg_signature(agg)), false, false);
	Node	   *type = (Node *) makeNullConst(agg->aggtype, -1, agg->aggcollid);
	List	   *args = list_make3(signature, state, type);
	ParseState *pstate;
	Aggref	   *merge;

	if (!f->merge)
	{
		Oid			argtypes[3] = {TEXTOID, ANYOID, ANYELEMENTOID};

		/* nothing to finish: count, sum(int4), min, max … */
		if (kda_agg_state_is_result(agg) && state->vartype == agg->aggtype)
			return (Node *) state;
		return (Node *) makeFuncExpr(LookupFuncName(list_make2(makeString(KDA_SCHEMA), makeString("final")), 3, argtypes, false),
									 agg->aggtype, args, agg->aggcollid, agg->inputcollid, COERCE_EXPLICIT_CALL);
	}
	pstate = make_parsestate(NULL);
	pstate->p_expr_kind = EXPR_KIND_SELECT_TARGET;
	merge = castNode(Aggref, ParseFuncOrColumn(pstate, list_make2(makeString(KDA_SCHEMA), makeString("merge")), args, NULL,
											   makeFuncCall(list_make2(makeString(KDA_SCHEMA), makeString("merge")), NIL,
															COERCE_EXPLICIT_CALL, -1), false, -1));
	merge->aggcollid = agg->aggcollid;
	merge->inputcollid = agg->inputcollid;
	return (Node *) merge;
}

/* What a kept expression is over the open table. */
static Node *
over_open(const KdaKept *kept, void *arg)
{
	Final	   *f = arg;

	if (kept->attno < 0)
		return window_column(f, kept->attno);
	if (IsA(kept->expr, Aggref))
		return result_of_state(f, (Aggref *) kept->expr, kept->attno);
	return (Node *) open_column(f, kept->attno, kept->expr);
}

/* … and over a subquery that gives them in their order. */
static Node *
over_subquery(const KdaKept *kept, void *arg)
{
	Final	   *f = arg;
	int			n = 0;
	ListCell   *lc;

	if (kept->attno < 0)
		return window_column(f, kept->attno);
	foreach(lc, f->split->kept)
	{
		n++;
		if (lfirst(lc) == kept)
			break;
	}
	return (Node *) makeVar(1, n, exprType(kept->expr), exprTypmod(kept->expr), exprCollation(kept->expr), 0);
}

/* The kept expressions, and the columns of the windows. */
static List *
kept_and_windows(Final *f)
{
	List	   *all = list_copy(f->split->kept);

	if (f->split->window)
		for (int i = 1; i <= 2; i++)
		{
			KdaKept    *k = palloc(sizeof(KdaKept));

			k->expr = (Node *) makeVar(f->split->window_rti, i, TIMESTAMPTZOID, -1, InvalidOid, 0);
			k->attno = i == 1 ? WINDOW_START : WINDOW_END;
			all = lappend(all, k);
		}
	return all;
}

/* A Query that selects from one relation. */
static Query *
select_from(Relation rel)
{
	ParseState *pstate = make_parsestate(NULL);
	Query	   *query = makeNode(Query);
	RangeTblRef *ref = makeNode(RangeTblRef);

	(void) addRangeTableEntryForRelation(pstate, rel, AccessShareLock, makeAlias("o", NIL), false, true);
	query->commandType = CMD_SELECT;
	query->querySource = QSRC_ORIGINAL;
	query->canSetTag = true;
	query->rtable = pstate->p_rtable;
#if PG_VERSION_NUM >= 160000
	query->rteperminfos = pstate->p_rteperminfos;
#endif
	ref->rtindex = 1;
	query->jointree = makeFromExpr(list_make1(ref), NULL);
	return query;
}

static RangeTblEntry *
subquery_rte(Query *query, const char *alias, bool lateral)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	List	   *names = NIL;
	ListCell   *lc;

	foreach(lc, query->targetList)
		if (!lfirst_node(TargetEntry, lc)->resjunk)
			names = lappend(names, makeString(pstrdup(lfirst_node(TargetEntry, lc)->resname)));
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = query;
	rte->alias = makeAlias(alias, NIL);
	rte->eref = makeAlias(alias, names);
	rte->lateral = lateral;
	rte->inFromCl = true;
	return rte;
}

static Node *
compare(Oid operator, Node *a, Node *b)
{
	return (Node *) make_opclause(operator, BOOLOID, false, (Expr *) a, (Expr *) b, InvalidOid, InvalidOid);
}

static Node *
and_all(List *quals)
{
	return quals == NIL ? NULL : list_length(quals) == 1 ? linitial(quals) : (Node *) makeBoolExpr(AND_EXPR, quals, -1);
}

static void
add_target(Query *query, Node *expr, const char *name)
{
	query->targetList = lappend(query->targetList,
								makeTargetEntry((Expr *) expr, list_length(query->targetList) + 1, pstrdup(name), false));
}

static void
add_user_targets(Final *f, Query *query)
{
	List	   *kept = kept_and_windows(f);
	ListCell   *lc;

	foreach(lc, f->split->user->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (!tle->resjunk)
			add_target(query, kda_replace_kept((Node *) tle->expr, kept, over_open, f), tle->resname);
	}
	query->hasSubLinks = f->split->user->hasSubLinks;
	query->cteList = copyObject(f->split->user->cteList);
}

/*---- a row of the table is a row of the result */

static Node *
window_end_of(Final *f, Node *start)
{
	Oid			argtypes[2] = {TIMESTAMPTZOID, TEXTOID};

	return (Node *) makeFuncExpr(LookupFuncName(list_make2(makeString(KDA_SCHEMA), makeString("window_end")), 2, argtypes, false),
								 TIMESTAMPTZOID,
								 list_make2(start, makeConst(TEXTOID, -1, DEFAULT_COLLATION_OID, -1,
															 CStringGetTextDatum(f->split->window_text), false, false)),
								 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

/* The start is a column; the end follows from it, or from the last row of a session. */
static Node *
bound_of_row(Final *f, int attno)
{
	AttrNumber	column = KDA_OPEN_FIRST_KEY;

	if (f->split->window == NULL)
		return (Node *) makeNullConst(TIMESTAMPTZOID, -1, InvalidOid);
	if (attno == WINDOW_START)
		return (Node *) open_column(f, column, NULL);
	if (f->split->window->kind == KDA_WINDOW_SESSION)
		column++;
	return window_end_of(f, (Node *) open_column(f, column, NULL));
}

static void
add_bounds(Final *f, Query *query)
{
	add_target(query, window_column(f, WINDOW_START), "kda_start");
	add_target(query, window_column(f, WINDOW_END), "kda_end");
	if (f->split->shows_key)
		add_target(query, f->by_row ? (Node *) open_column(f, KDA_OPEN_FIRST_KEY + 2, NULL) :
				   (Node *) makeVar(f->window_rti, 3, INT8OID, -1, InvalidOid, f->window_levels), "kda_key");
}

static Query *
row_by_row(Final *f)
{
	Query	   *final = select_from(f->open);

	f->by_row = true;
	add_bounds(f, final);
	add_user_targets(f, final);
	final->jointree->quals = kda_replace_kept(f->split->user->havingQual, kept_and_windows(f), over_open, f);
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
group_by_kept_keys(Final *f, Query *query)
{
	ListCell   *lc;

	foreach(lc, f->split->kept)
	{
		KdaKept    *kept = lfirst(lc);

		if (!IsA(kept->expr, Aggref))
			group_by(query, (Node *) open_column(f, kept->attno, kept->expr), NULL);
	}
}

static Query *
by_pane(Final *f)
{
	Query	   *final = analyzed(psprintf("SELECT w.window_start AS kda_start, w.window_end AS kda_end FROM %s o, "
										  "LATERAL kda.windows(o.k1, %s%s) w WHERE w.window_end OPERATOR(pg_catalog.>) (SELECT kda.frontier(%d))",
										  open_name(f), quote_literal_cstr(f->split->window_text),
										  f->split->paned ? ", o.k2" : "", f->query_id));

	f->merge = true;
	f->window_rti = 2;
	f->window_levels = 0;
	add_user_targets(f, final);
	final->hasSubLinks = true;
	final->hasAggs = true;
	group_by(final, window_column(f, WINDOW_START), NULL);
	group_by(final, window_column(f, WINDOW_END), NULL);
	group_by_kept_keys(f, final);
	final->havingQual = kda_replace_kept(f->split->user->havingQual, kept_and_windows(f), over_open, f);
	return final;
}

/* Endless groups, each the combination of what the slots have of it. */
static Query *
by_key(Final *f)
{
	Query	   *final = analyzed(psprintf("SELECT NULL::timestamptz AS kda_start, NULL::timestamptz AS kda_end FROM %s o "
										  "HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0", open_name(f)));
	Node	   *having;

	f->merge = true;
	add_user_targets(f, final);
	group_by_kept_keys(f, final);
	having = kda_replace_kept(copyObject(f->split->user->havingQual), kept_and_windows(f), over_open, f);
	if (having)
		final->havingQual = and_all(list_make2(final->havingQual, having));
	return final;
}

/*---- the user's SELECT over what is kept of a window */

/*
 * Windows that depend on other rows: which of them close is known to the
 * worker, a view sees them in the rows that are kept.
 */
static Query *
open_sessions(Final *f)
{
	const KdaWindowSpec *window = f->split->window;
	const char *spec = quote_literal_cstr(f->split->window_text);
	char	   *kept;
	char	   *all;

	if (window->kind == KDA_WINDOW_STAGGER)
		kept = psprintf("SELECT DISTINCT o.kda_mark, kda.window_end(o.kda_mark, %s), o.kda_key FROM %s o WHERE NOT kda.closing(%d)",
						spec, open_name(f), f->query_id);
	else
		kept = psprintf("SELECT pg_catalog.min(i.kda_time), kda.window_end(pg_catalog.max(i.kda_time), %s), i.kda_key FROM "
						"(SELECT s.kda_key, s.kda_time, pg_catalog.count(*) FILTER (WHERE s.first) OVER (PARTITION BY s.kda_key ORDER BY s.kda_time) AS n FROM "
						"(SELECT o.kda_key, o.kda_time, kda.window_end(pg_catalog.lag(o.kda_time) OVER (PARTITION BY o.kda_key ORDER BY o.kda_time), %s) "
						"OPERATOR(pg_catalog.<) o.kda_time AS first FROM %s o WHERE NOT kda.closing(%d)) s) i "
						"GROUP BY i.kda_key, i.n", spec, spec, open_name(f), f->query_id);
	all = psprintf("SELECT c.window_start, c.window_end, c.kda_key FROM kda.closing_sessions(%d) c UNION ALL %s", f->query_id, kept);
	if (window->by_bounds)
		all = psprintf("SELECT a.window_start, a.window_end, pg_catalog.array_agg(a.kda_key) AS kda_keys FROM (%s) a "
					   "GROUP BY a.window_start, a.window_end", all);
	return analyzed(all);
}

/* Conditions on the open table that a row belongs to that window. */
static List *
in_session(Final *f, int levels)
{
	const KdaWindowSpec *window = f->split->window;
	Node	   *key = (Node *) open_column(f, RelationGetNumberOfAttributes(f->open), NULL);
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
		same_key = compare(NUMBER_EQ, key, (Node *) makeVar(1, 3, INT8OID, -1, InvalidOid, levels));
	if (window->kind == KDA_WINDOW_STAGGER)
		return list_make2(same_key, compare(TIME_EQ, (Node *) open_column(f, KDA_KEPT_MARK, NULL), window_column(f, WINDOW_START)));
	return list_make3(same_key,
					  compare(TIME_GE, (Node *) open_column(f, KDA_KEPT_TIME, NULL), window_column(f, WINDOW_START)),
					  compare(TIME_LE, (Node *) open_column(f, KDA_KEPT_TIME, NULL), window_column(f, WINDOW_END)));
}

/* The open windows. */
static Query *
open_windows(Final *f)
{
	KdaSplit   *split = f->split;
	const char *spec = quote_literal_cstr(split->window_text);

	if (!kda_window_is_aligned(split->window))
		return open_sessions(f);
	if (split->state == KDA_STATE_GROUPS && !split->paned && f->slotted)
		return analyzed(psprintf("SELECT w.window_start, w.window_end FROM (SELECT DISTINCT o.k1 FROM %s o) p(pane), "
								 "LATERAL kda.windows(p.pane, %s) w WHERE w.window_end OPERATOR(pg_catalog.>) (SELECT kda.frontier(%d))",
								 open_name(f), spec, f->query_id));
	if (split->state == KDA_STATE_GROUPS && !split->paned)
		return analyzed(psprintf("SELECT DISTINCT o.k1 AS window_start, kda.window_end(o.k1, %s) AS window_end FROM %s o",
								 spec, open_name(f)));
	return analyzed(psprintf("SELECT DISTINCT w.window_start, w.window_end FROM (SELECT DISTINCT %s FROM %s o) p(pane, mark), "
							 "LATERAL kda.windows(p.pane, %s, p.mark) w WHERE w.window_end OPERATOR(pg_catalog.>) (SELECT kda.frontier(%d))",
							 split->state == KDA_STATE_GROUPS ? "o.k1, o.k2" :
							 psprintf("kda.window_start(o.kda_time, %s), o.kda_mark", spec),
							 open_name(f), spec, f->query_id));
}

/* Conditions on the open table that a row belongs to the window; levels: how far up that is. */
static List *
in_window(Final *f, int levels)
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
		return list_make1(compare(TIME_EQ, (Node *) open_column(f, time, NULL), window_column(f, WINDOW_START)));
	return list_make3(compare(TIME_GE, (Node *) open_column(f, time, NULL), window_column(f, WINDOW_START)),
					  compare(TIME_LT, (Node *) open_column(f, time, NULL), window_column(f, WINDOW_END)),
					  compare(TIME_LT, (Node *) open_column(f, mark, NULL), window_column(f, WINDOW_END)));
}

/* The same for a window that is one row, further up. */
static Query *
group_of_row(Final *f)
{
	Query	   *group = makeNode(Query);
	ListCell   *lc;

	group->commandType = CMD_SELECT;
	group->querySource = QSRC_ORIGINAL;
	group->canSetTag = true;
	group->jointree = makeFromExpr(NIL, NULL);
	foreach(lc, f->split->kept)
		add_target(group, over_open(lfirst(lc), f), psprintf("g%d", foreach_current_index(lc) + 1));
	IncrementVarSublevelsUp((Node *) group->targetList, f->split->depth + 2, 0);
	return group;
}

/* State groups: a subquery that gives keys and results of aggregates. */
static Query *
groups_of_window(Final *f)
{
	Query	   *groups;
	ListCell   *lc;

	if (f->by_row)
		return group_of_row(f);
	f->merge = f->split->paned || f->slotted;
	groups = f->merge ? analyzed(psprintf("SELECT 1 FROM %s o HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0", open_name(f))) :
		select_from(f->open);
	groups->targetList = NIL;
	groups->jointree->quals = and_all(in_window(f, f->split->depth + 2));
	foreach(lc, f->split->kept)
		add_target(groups, over_open(lfirst(lc), f), psprintf("g%d", foreach_current_index(lc) + 1));
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
for_each_window(Final *f)
{
	KdaSplit   *split = f->split;
	Query	   *inner = copyObject(split->user);
	Query	   *outer = makeNode(Query);
	KdaMakeKept make;
	List	   *kept = kept_and_windows(f);
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
		make = over_subquery;
	}
	else
	{
		quals = in_window(f, split->depth + 1);
		make = over_open;
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
		inner->rtable = list_make1(subquery_rte(source, "g", split->window != NULL));
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
		Query	   *from = select_from(f->open);

		inner->rtable = from->rtable;
#if PG_VERSION_NUM >= 160000
		inner->rteperminfos = from->rteperminfos;
#endif
		inner->havingQual = having;
	}
	ref->rtindex = 1;
	inner->jointree = makeFromExpr(list_make1(ref), and_all(quals));

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
		outer = select_from(f->open);
		rti++;
	}
	else if (split->window)
	{
		outer->rtable = lappend(outer->rtable, subquery_rte(open_windows(f), "w", false));
		ref = makeNode(RangeTblRef);
		ref->rtindex = ++rti;
		outer->jointree->fromlist = lappend(outer->jointree->fromlist, ref);
	}
	outer->rtable = lappend(outer->rtable, subquery_rte(inner, "q", split->window != NULL));
	ref = makeNode(RangeTblRef);
	ref->rtindex = ++rti;
	outer->jointree->fromlist = lappend(outer->jointree->fromlist, ref);
	f->window_rti = 1;
	f->window_levels = 0;
	f->by_row |= split->window == NULL;
	add_bounds(f, outer);
	if (split->window_columns_around)
	{
		add_target(outer, window_column(f, WINDOW_START), "window_start");
		add_target(outer, window_column(f, WINDOW_END), "window_end");
	}
	foreach(lc, inner->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (!tle->resjunk)
			add_target(outer, (Node *) makeVar(rti, tle->resno, exprType((Node *) tle->expr), exprTypmod((Node *) tle->expr),
											   exprCollation((Node *) tle->expr), 0), tle->resname);
	}
	return outer;
}

/*---- row-sliding queries */

static Node *
place_of_row(Final *f)
{
	Oid			argtypes[2] = {TIMESTAMPTZOID, INT8OID};
	Oid			func = LookupFuncName(list_make2(makeString(KDA_SCHEMA), makeString("place")), 2, argtypes, false);

	return (Node *) makeFuncExpr(func, get_func_rettype(func),
								 list_make2(open_column(f, KDA_KEPT_TIME, NULL), open_column(f, KDA_KEPT_SEQ, NULL)),
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
		add_target(inner, node, psprintf("kda_part%d", list_length(inner->targetList) + 1));
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
static Query *
sliding(Final *f)
{
	KdaSplit   *split = f->split;
	Query	   *inner = copyObject(split->user);
	Query	   *from = select_from(f->open);
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

	inner->targetList = (List *) kda_replace_kept((Node *) inner->targetList, split->kept, over_open, f);
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
	add_target(inner, (Node *) open_column(f, KDA_KEPT_TIME, NULL), "kda_time");
	add_target(inner, (Node *) open_column(f, KDA_KEPT_SEQ, NULL), "kda_seq");
	foreach(lc, keys)
		add_target(inner, lfirst(lc), psprintf("kda_key%d", foreach_current_index(lc) + 1));
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
	outer->rtable = list_make1(subquery_rte(inner, "q", false));
	outer->jointree = makeFromExpr(list_make1(copyObject(ref)), NULL);
	for (int i = 0; i < 2; i++)
	{
		TargetEntry *tle = list_nth_node(TargetEntry, inner->targetList, i);

		add_target(outer, (Node *) makeVar(1, tle->resno, exprType((Node *) tle->expr), exprTypmod((Node *) tle->expr),
										   exprCollation((Node *) tle->expr), 0), tle->resname);
	}
	foreach(lc, lifted)
		add_target(outer, lfirst(lc), list_nth_node(TargetEntry, shown, foreach_current_index(lc))->resname);
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
	Final		f = {split, open, 0};
	List	   *context = deparse_context_for(RelationGetRelationName(open), open_relid);
	StringInfoData s;
	int64		range_us = -1;
	const char *name = open_name(&f);
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
							 deparse_expression(kda_replace_kept(copyObject(expr), split->kept, over_open, &f), context, false, false));
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

Query *
kda_split_final(KdaSplit *split, Oid open_relid, int32 query_id)
{
	Relation	open = table_open(open_relid, AccessShareLock);
	Final		f = {split, open, query_id};
	Query	   *final = split->shape == KDA_SHAPE_OVER ? sliding(&f) :
		split->per_window ? for_each_window(&f) :
		split->paned ? by_pane(&f) : row_by_row(&f);

	table_close(open, NoLock);
	return final;
}

Query *
kda_split_merged(KdaSplit *split, Oid open_relid, int32 query_id)
{
	Relation	open;
	Final		f = {.split = split,.query_id = query_id,.slotted = true};
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
