/*-------------------------------------------------------------------------
 *
 * split.c
 *	  Splits the SELECT of a continuous query: what is done with each batch, and
 *	  what has to be kept so that the result can be computed from it.
 *
 * In: the raw SELECT with the window clause lifted out (dialect/).  Out: an
 * analysed Query for the whole, one for the per-batch part, and the list of
 * what is kept.  Runs in the session that declares the query, as that user.
 * Plans nothing and creates nothing.
 *
 * Two kinds of state.  Groups: partial aggregates by pane and key, where every
 * aggregate can be combined.  Rows: the columns that the final part needs, of
 * every record; the final part is then the user's own SQL over them, so that
 * whatever PostgreSQL can say about the rows of a window can be asked.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/heapam.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/ddl.h"
#include "catalog/namespace.h"
#include "catalog/options.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "catalog/split.h"
#include "catalog/window_clause.h"
#include "catalog/words.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parse_func.h"
#include "parser/parse_clause.h"
#include "parser/parse_node.h"
#include "parser/parse_oper.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "query/agg_signature.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"

#define REFUSE_HINT_LATER	"This release does not keep such a query up to date."

static void
refuse(ParseState *pstate, const char *what, int location)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s cannot be used in a continuous query", what),
			 errhint(REFUSE_HINT_LATER),
			 parser_errposition(pstate, location)));
}

/*---- FROM: exactly one stream, on the preserved side of every outer join */

typedef struct FromContext
{
	ParseState *pstate;
	RangeVar   *stream;
	Oid			stream_relid;
	bool		nullable;		/* below the nullable side of an outer join */
} FromContext;

static bool
query_of_relation(Oid relid)
{
	Oid			query_rel = get_relname_relid("query", get_namespace_oid(KDA_STORAGE_SCHEMA, false));
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	rel = table_open(query_rel, AccessShareLock);
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	while (!found && (tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;

		found = DatumGetObjectId(heap_getattr(tuple, 2, RelationGetDescr(rel), &isnull)) == relid;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

static void
find_stream(Node *node, FromContext *from)
{
	if (node == NULL)
		return;
	if (IsA(node, RangeVar))
	{
		RangeVar   *rv = (RangeVar *) node;
		Oid			relid = RangeVarGetRelid(rv, NoLock, true);

		if (!OidIsValid(relid))
			return;				/* a CTE, or the parser's error */
		if (!kda_is_stream(relid))
		{
			if (get_rel_relkind(relid) == RELKIND_VIEW && query_of_relation(relid))
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("\"%s\" is a continuous query and cannot be read by another one", rv->relname),
						 errhint("Write its result into a stream with CREATE PUMP, and read that stream."),
						 parser_errposition(from->pstate, rv->location)));
			return;
		}
		if (OidIsValid(from->stream_relid))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a continuous query reads one stream, this one names \"%s\" and \"%s\"",
							from->stream->relname, rv->relname),
					 errhint("Joins of streams are not part of this release."),
					 parser_errposition(from->pstate, rv->location)));
		if (from->nullable)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("stream \"%s\" stands on the side of an outer join that is filled with NULLs", rv->relname),
					 errdetail("Rows of the other side would have to wait for records that may never come."),
					 errhint("Put the stream on the preserved side: stream LEFT JOIN table."),
					 parser_errposition(from->pstate, rv->location)));
		from->stream = rv;
		from->stream_relid = relid;
	}
	else if (IsA(node, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) node;
		bool		nullable = from->nullable;

		from->nullable = nullable || join->jointype == JOIN_RIGHT || join->jointype == JOIN_FULL;
		find_stream(join->larg, from);
		from->nullable = nullable || join->jointype == JOIN_LEFT || join->jointype == JOIN_FULL;
		find_stream(join->rarg, from);
		from->nullable = nullable;
	}
}

/* A stream anywhere else than in the top-level FROM (subquery, CTE, SubLink). */
static bool
stream_below_walker(Node *node, Oid *found)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		ListCell   *lc;

		foreach(lc, ((Query *) node)->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_FOREIGN_TABLE &&
				kda_is_stream(rte->relid))
			{
				*found = rte->relid;
				return true;
			}
		}
		return query_tree_walker((Query *) node, stream_below_walker, found, 0);
	}
	return expression_tree_walker(node, stream_below_walker, found);
}

static void
refuse_streams_below(Query *query, ParseState *pstate)
{
	Oid			found = InvalidOid;

	/* query_tree_walker hands each subquery to the walker, not the top level's own rtable */
	if (query_tree_walker(query, stream_below_walker, &found, 0))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" is read inside a subquery of a continuous query",
						get_rel_name(found)),
				 errhint("Name the stream in FROM of the query itself.")));
}

/*---- the whole query, analysed */

static ResTarget *
result_column(const char *name, Node *value)
{
	ResTarget  *rt = makeNode(ResTarget);

	rt->name = pstrdup(name);
	rt->val = value;
	rt->location = -1;
	return rt;
}

/* GROUP BY 2 counts the select list's columns: two more stand before them now. */
static void
shift_ordinals(List *list, int by)
{
	ListCell   *lc;

	foreach(lc, list)
	{
		Node	   *node = lfirst(lc);

		if (IsA(node, SortBy))
			node = ((SortBy *) node)->node;
		if (IsA(node, A_Const) && !((A_Const *) node)->isnull && IsA(&((A_Const *) node)->val, Integer))
			((A_Const *) node)->val.ival.ival += by;
	}
}

/* A select-list word keeps its name although an expression takes its place. */
static void
name_targets(List *targets)
{
	ListCell   *lc;

	foreach(lc, targets)
	{
		ResTarget  *rt = lfirst_node(ResTarget, lc);

		if (rt->name == NULL && rt->val && IsA(rt->val, ColumnRef))
		{
			Node	   *last = llast(((ColumnRef *) rt->val)->fields);

			if (IsA(last, String))
				rt->name = pstrdup(strVal(last));
		}
	}
}


/* SELECT * does not show the windows, which stand in FROM as well. */
static void
hide_windows_of_star(Query *query, int window_rti, List *star_locations)
{
	ListCell   *lc;
	AttrNumber	resno = 1;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (IsA(tle->expr, Var) && ((Var *) tle->expr)->varno == window_rti &&
			list_member_int(star_locations, ((Var *) tle->expr)->location) && tle->ressortgroupref == 0)
			query->targetList = foreach_delete_current(query->targetList, lc);
		else
			tle->resno = resno++;
	}
}

static List *
star_locations(SelectStmt *select)
{
	List	   *locations = NIL;
	ListCell   *lc;

	foreach(lc, select->targetList)
	{
		Node	   *val = lfirst_node(ResTarget, lc)->val;

		if (IsA(val, ColumnRef) && list_length(((ColumnRef *) val)->fields) == 1 &&
			IsA(linitial(((ColumnRef *) val)->fields), A_Star))
			locations = lappend_int(locations, ((ColumnRef *) val)->location);
	}
	return locations;
}

/*---- levels */

typedef struct VarContext
{
	int			depth;
	List	   *vars;			/* as seen from the top */
	int			only_rti;		/* 0: all */
	bool		in_aggs;		/* also those inside aggregates of the top level */
	bool		found;
} VarContext;

/* Vars (and ctid's) of the top level below node, at any depth. */
static bool
vars_walker(Node *node, VarContext *cxt)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if ((int) var->varlevelsup == cxt->depth && (cxt->only_rti == 0 || var->varno == cxt->only_rti))
		{
			Var		   *copy = copyObject(var);

			copy->varlevelsup = 0;
			copy->location = -1;
			cxt->found = true;
			cxt->vars = list_append_unique(cxt->vars, copy);
		}
		return false;
	}
	if (IsA(node, Aggref) && (int) ((Aggref *) node)->agglevelsup == cxt->depth && !cxt->in_aggs)
		return false;
	if (IsA(node, Query))
	{
		cxt->depth++;
		query_tree_walker((Query *) node, vars_walker, cxt, 0);
		cxt->depth--;
		return false;
	}
	return expression_tree_walker(node, vars_walker, cxt);
}

static bool
mentions(Node *node, int rti)
{
	VarContext	cxt = {0};

	cxt.only_rti = rti;
	cxt.in_aggs = true;
	vars_walker(node, &cxt);
	return cxt.found;
}

static bool
mentions_others(Node *node, int rti)
{
	VarContext	cxt = {0};
	ListCell   *lc;

	cxt.in_aggs = true;
	vars_walker(node, &cxt);
	foreach(lc, cxt.vars)
		if (lfirst_node(Var, lc)->varno != rti)
			return true;
	return false;
}

typedef struct AggContext
{
	int			depth;
	List	   *aggs;
} AggContext;

/* Aggregates of the top level, as seen from there. */
static bool
aggs_walker(Node *node, AggContext *cxt)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref) && (int) ((Aggref *) node)->agglevelsup == cxt->depth)
	{
		Node	   *copy = copyObject(node);

		if (cxt->depth > 0)
			IncrementVarSublevelsUp(copy, -cxt->depth, cxt->depth);
		cxt->aggs = list_append_unique(cxt->aggs, copy);
		return false;
	}
	if (IsA(node, Query))
	{
		cxt->depth++;
		query_tree_walker((Query *) node, aggs_walker, cxt, 0);
		cxt->depth--;
		return false;
	}
	return expression_tree_walker(node, aggs_walker, cxt);
}

static List *
collect_aggs(Query *user)
{
	AggContext	cxt = {0};

	aggs_walker((Node *) user->targetList, &cxt);
	aggs_walker(user->havingQual, &cxt);
	return cxt.aggs;
}

/*---- checks */

static void
check_query(ParseState *pstate, Query *query, bool kept)
{
	if (query->commandType != CMD_SELECT || query->utilityStmt)
		refuse(pstate, "this statement", -1);
	if (query->setOperations)
		refuse(pstate, "UNION, INTERSECT or EXCEPT", -1);
	if (query->rowMarks)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("FOR UPDATE cannot be used in a continuous query")));
	if (query->hasModifyingCTE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous query cannot change data in WITH"),
				 errhint("CREATE PUMP … AS INSERT INTO … writes its result.")));
	if (kept ? contain_volatile_functions((Node *) query) : contain_volatile_functions((Node *) query->jointree))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a volatile function can stand only in the select list of a continuous query without aggregates"),
				 errdetail("Its result would change when records are read again."),
				 errhint("now() and current_timestamp are stable and may be used.")));
}

/*
 * GROUP BY t.id, with t.name in the select list because id is the key of t: the
 * column is grouped by as well, which changes no group.
 */
static void
group_by_dependent_columns(Query *query)
{
	VarContext	cxt = {0};
	ListCell   *lc,
			   *lt;

	vars_walker((Node *) query->targetList, &cxt);
	vars_walker(query->havingQual, &cxt);
	foreach(lc, cxt.vars)
	{
		TargetEntry *found = NULL;
		SortGroupClause *sgc;
		Oid			lt_op,
					eq_op;
		bool		hashable;

		foreach(lt, query->targetList)
			if (equal(lfirst_node(TargetEntry, lt)->expr, lfirst(lc)))
				found = lfirst_node(TargetEntry, lt);
		if (found && found->ressortgroupref != 0 && get_sortgroupref_clause_noerr(found->ressortgroupref, query->groupClause))
			continue;
		if (found == NULL)
		{
			found = makeTargetEntry(copyObject(lfirst(lc)), list_length(query->targetList) + 1, NULL, true);
			query->targetList = lappend(query->targetList, found);
		}
		get_sort_group_operators(exprType(lfirst(lc)), false, true, false, &lt_op, &eq_op, NULL, &hashable);
		sgc = makeNode(SortGroupClause);
		sgc->tleSortGroupRef = assignSortGroupRef(found, query->targetList);
		sgc->eqop = eq_op;
		sgc->sortop = lt_op;
		sgc->hashable = hashable;
		query->groupClause = lappend(query->groupClause, sgc);
	}
	query->constraintDeps = NIL;
}

/*---- what is kept */

static bool
group_key_has_srf(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->groupClause)
		if (expression_returns_set((Node *) get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), query->targetList)->expr))
			return true;
	return false;
}

/* Can the result be computed from partial aggregates by pane and key? */
static bool
groups_suffice(KdaSplit *split)
{
	Query	   *user = split->user;
	ListCell   *lc;

	if (user->groupingSets || group_key_has_srf(user) || split->window_quals)
		return false;
	if (split->window && !kda_window_is_aligned(split->window))
		return false;
	foreach(lc, collect_aggs(user))
	{
		char	   *why;

		if (!kda_agg_supported(lfirst(lc), &why))
			return false;
		if (split->window && mentions(lfirst(lc), split->window_rti))
			return false;
		if (checkExprHasSubLink(lfirst(lc)))
			return false;
	}
	foreach(lc, user->groupClause)
	{
		Node	   *key = (Node *) get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), user->targetList)->expr;

		if (!kda_key_supported(exprType(key)))
			return false;
		if (split->window && mentions(key, split->window_rti) && mentions_others(key, split->window_rti))
			return false;
	}
	return true;
}

static void
keep(KdaSplit *split, Node *expr, AttrNumber attno)
{
	KdaKept    *kept = palloc(sizeof(KdaKept));

	kept->expr = expr;
	kept->attno = attno;
	split->kept = lappend(split->kept, kept);
}

/* FROM without the windows. */
static Query *
without_windows(KdaSplit *split)
{
	Query	   *batch = copyObject(split->user);
	ListCell   *lc;

	if (split->window_rti == 0)
		return batch;
	foreach(lc, batch->jointree->fromlist)
		if (IsA(lfirst(lc), RangeTblRef) && ((RangeTblRef *) lfirst(lc))->rtindex == split->window_rti)
			batch->jointree->fromlist = foreach_delete_current(batch->jointree->fromlist, lc);
	/* the entry stays where it is, and names nothing */
	return batch;
}

static int
stream_rti(Query *query, Oid stream)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
		if (lfirst_node(RangeTblEntry, lc)->rtekind == RTE_RELATION &&
			lfirst_node(RangeTblEntry, lc)->relid == stream)
			return foreach_current_index(lc) + 1;
	elog(ERROR, "stream %u is not in the query", stream);
}

static Node *
stream_ctid(KdaSplit *split)
{
	return (Node *) makeVar(stream_rti(split->user, split->stream), SelfItemPointerAttributeNumber, TIDOID, -1,
							InvalidOid, 0);
}

static Node *
kda_call(const char *name, Oid result, List *args)
{
	Oid			argtypes[3];
	int			n = 0;
	ListCell   *lc;

	foreach(lc, args)
		argtypes[n++] = exprType(lfirst(lc));
	return (Node *) makeFuncExpr(LookupFuncName(list_make2(makeString(KDA_SCHEMA), makeString(pstrdup(name))), n, argtypes, false),
								 result, args, InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

static Node *
text_const(const char *value)
{
	return (Node *) makeConst(TEXTOID, -1, DEFAULT_COLLATION_OID, -1, CStringGetTextDatum(value), false, false);
}

/* Shape rows: the record's place in the batch, then the select list. */
static Query *
rows_batch(KdaSplit *split)
{
	Query	   *batch = copyObject(split->user);
	ListCell   *lc;

	foreach(lc, batch->targetList)
		lfirst_node(TargetEntry, lc)->resno++;
	batch->targetList = lcons(makeTargetEntry((Expr *) stream_ctid(split), 1, "kda_row", false), batch->targetList);
	return batch;
}

static void
add_key(Query *batch, Node *expr, Oid eqop, Oid sortop, bool hashable)
{
	int			n = list_length(batch->targetList) + 1;
	TargetEntry *key = makeTargetEntry((Expr *) expr, n, psprintf("k%d", n), false);
	SortGroupClause *sgc = makeNode(SortGroupClause);

	key->ressortgroupref = sgc->tleSortGroupRef = n;
	sgc->eqop = eqop;
	sgc->sortop = sortop;
	sgc->hashable = hashable;
	batch->targetList = lappend(batch->targetList, key);
	batch->groupClause = lappend(batch->groupClause, sgc);
}

static void
add_time_key(Query *batch, Node *expr)
{
	Oid			lt_op,
				eq_op;
	bool		hashable;

	get_sort_group_operators(TIMESTAMPTZOID, true, true, false, &lt_op, &eq_op, NULL, &hashable);
	add_key(batch, expr, eq_op, lt_op, hashable);
}

/* The time of a record, as the windows in FROM have it. */
static Node *
window_time(KdaSplit *split)
{
	RangeTblEntry *rte = rt_fetch(split->window_rti, split->user->rtable);
	FuncExpr   *call = castNode(FuncExpr, linitial_node(RangeTblFunction, rte->functions)->funcexpr);

	return copyObject(linitial(call->args));
}

/* State groups: pane, mark, keys, then a column for each aggregate. */
static Query *
groups_batch(KdaSplit *split)
{
	Query	   *user = split->user;
	Query	   *batch = without_windows(split);
	List	   *aggs = collect_aggs(user);
	ListCell   *lc;

	batch->targetList = NIL;
	batch->groupClause = NIL;
	if (split->window)
	{
		split->paned = split->window->kind != KDA_WINDOW_TUMBLING;
		add_time_key(batch, kda_call("window_start", TIMESTAMPTZOID,
									 list_make2(window_time(split), text_const(split->window_text))));
		if (split->paned)
			add_time_key(batch, kda_call("pane_after", TIMESTAMPTZOID, list_make1(stream_ctid(split))));
	}
	foreach(lc, user->groupClause)
	{
		SortGroupClause *sgc = lfirst_node(SortGroupClause, lc);
		TargetEntry *tle = get_sortgroupclause_tle(sgc, user->targetList);

		/* a key of the window alone follows from the pane */
		if (split->window && mentions((Node *) tle->expr, split->window_rti))
			continue;
		add_key(batch, (Node *) copyObject(tle->expr), sgc->eqop, sgc->sortop, sgc->hashable);
		keep(split, (Node *) copyObject(tle->expr), KDA_OPEN_FIRST_KEY - 1 + list_length(batch->targetList));
	}
	split->nkeys = list_length(batch->targetList);
	foreach(lc, aggs)
	{
		int			n = list_length(batch->targetList) + 1;

		batch->targetList = lappend(batch->targetList,
									makeTargetEntry(copyObject(lfirst(lc)), n, psprintf("s%d", n - split->nkeys), false));
		keep(split, copyObject(lfirst(lc)), KDA_OPEN_FIRST_KEY - 1 + n);
	}
	batch->hasAggs = aggs != NIL;
	batch->havingQual = NULL;
	batch->hasTargetSRFs = false;
	batch->hasWindowFuncs = false;
	batch->windowClause = NIL;
	batch->distinctClause = NIL;
	batch->hasDistinctOn = false;
	batch->sortClause = NIL;
	batch->limitCount = batch->limitOffset = NULL;
	return batch;
}

/* State rows: the record's place, then every column that the final part needs. */
static Query *
kept_rows_batch(KdaSplit *split)
{
	Query	   *user = split->user;
	Query	   *batch = without_windows(split);
	VarContext	cxt = {0};
	List	   *quals = make_ands_implicit((Expr *) batch->jointree->quals);
	List	   *now = NIL;
	List	   *later = NIL;
	ListCell   *lc;
	int			n = 1;
	Node	   *ctid = stream_ctid(split);

	/* conditions on windows wait for them */
	foreach(lc, quals)
		if (split->window && mentions(lfirst(lc), split->window_rti))
			later = lappend(later, lfirst(lc));
		else
			now = lappend(now, lfirst(lc));
	batch->jointree->quals = (Node *) make_ands_explicit(now);
	if (now == NIL)
		batch->jointree->quals = NULL;
	split->window_quals = later ? (Node *) make_ands_explicit(later) : NULL;

	cxt.in_aggs = true;
	vars_walker((Node *) user->targetList, &cxt);
	vars_walker(user->havingQual, &cxt);
	vars_walker(split->window_quals, &cxt);
	vars_walker((Node *) user->windowClause, &cxt);
	vars_walker(user->limitCount, &cxt);
	vars_walker(user->limitOffset, &cxt);
	batch->targetList = list_make1(makeTargetEntry((Expr *) ctid, 1, "kda_row", false));
	foreach(lc, cxt.vars)
	{
		Var		   *var = lfirst_node(Var, lc);

		if (split->window && var->varno == split->window_rti)
			continue;
		if (equal(var, ctid))
		{
			/* kda.rowtime(ctid) */
			keep(split, kda_call("rowtime", TIMESTAMPTZOID, list_make1(copyObject(ctid))), KDA_KEPT_TIME);
			continue;
		}
		if (get_typtype(var->vartype) == TYPTYPE_PSEUDO)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a continuous query cannot keep values of type %s", format_type_be(var->vartype)),
					 errhint("Name the columns one by one.")));
		batch->targetList = lappend(batch->targetList,
									makeTargetEntry((Expr *) copyObject(var), n + 1, psprintf("c%d", n), false));
		keep(split, (Node *) copyObject(var), KDA_KEPT_FIRST - 1 + n);
		n++;
	}
	batch->groupClause = NIL;
	batch->groupingSets = NIL;
	batch->havingQual = NULL;
	batch->hasAggs = false;
	batch->hasTargetSRFs = false;
	batch->hasWindowFuncs = false;
	batch->windowClause = NIL;
	batch->distinctClause = NIL;
	batch->hasDistinctOn = false;
	batch->sortClause = NIL;
	batch->limitCount = batch->limitOffset = NULL;
	batch->limitOption = LIMIT_OPTION_COUNT;
	return batch;
}

char *
kda_split_open_ddl(KdaSplit *split, const char *name)
{
	StringInfoData s;
	ListCell   *lc;

	if (split->state == KDA_STATE_GROUPS)
	{
		char	   *ddl = kda_groups_table_ddl(split->batch, split->nkeys, name);

		/* where each window is looked up by itself */
		return split->per_window && split->window ? psprintf("%s; CREATE INDEX ON %s (k1)", ddl, name) : ddl;
	}
	initStringInfo(&s);
	appendStringInfo(&s, "CREATE TABLE %s (kda_slot smallint NOT NULL DEFAULT 0, kda_time pg_catalog.timestamptz NOT NULL, "
					 "kda_mark pg_catalog.timestamptz NOT NULL, kda_seq bigint NOT NULL", name);
	foreach(lc, split->batch->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resno == 1)
			continue;
		appendStringInfo(&s, ", %s %s", quote_identifier(tle->resname),
						 kda_column_type_sql(exprType((Node *) tle->expr), exprTypmod((Node *) tle->expr),
											 exprCollation((Node *) tle->expr)));
	}
	appendStringInfo(&s, "); CREATE INDEX ON %s (kda_time)", name);
	return s.data;
}

static void
describe_columns(KdaSplit *split)
{
	List	   *targets = split->user->targetList;
	ListCell   *lc;
	int			i = 0;

	split->names = palloc0(sizeof(char *) * list_length(targets));
	split->types = palloc0(sizeof(Oid) * list_length(targets));
	split->typmods = palloc0(sizeof(int32) * list_length(targets));
	split->collations = palloc0(sizeof(Oid) * list_length(targets));
	foreach(lc, targets)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk)
			continue;
		split->names[i] = tle->resname;
		split->types[i] = exprType((Node *) tle->expr);
		split->typmods[i] = exprTypmod((Node *) tle->expr);
		split->collations[i] = exprCollation((Node *) tle->expr);
		if (split->types[i] == UNKNOWNOID)
			split->types[i] = TEXTOID;
		if (pg_strcasecmp(tle->resname, "rowtime") == 0)
			split->has_rowtime = true;
		for (int j = 0; j < i; j++)
			if (strcmp(split->names[j], tle->resname) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("column \"%s\" specified more than once", tle->resname),
						 errhint("Give the columns different names with AS.")));
		i++;
	}
	split->ncolumns = i;
}

KdaSplit *
kda_split_query(KdaQuerySpec *spec, const char *source_text, const char *time_zone, bool add_window_columns)
{
	KdaSplit   *split = palloc0(sizeof(KdaSplit));
	SelectStmt *select = copyObject(spec->select);
	ParseState *pstate = make_parsestate(NULL);
	KdaWordContext words = {0};
	FromContext from = {0};
	KdaStreamOptions *options;
	RawStmt    *raw;
	Query	   *query;
	ListCell   *lc;
	bool		aggregated;
	List	   *stars = NIL;

	pstate->p_sourcetext = source_text;
	from.pstate = pstate;
	if (select->op != SETOP_NONE || select->valuesLists)
		refuse(pstate, "UNION, INTERSECT, EXCEPT or VALUES", -1);

	foreach(lc, select->fromClause)
		find_stream(lfirst(lc), &from);
	if (!OidIsValid(from.stream_relid))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("a continuous query must read a stream"),
				 errhint("Name a stream in FROM; CREATE STREAM makes one.")));
	split->stream = from.stream_relid;
	words.stream_name = from.stream->alias ? from.stream->alias->aliasname : from.stream->relname;
	options = kda_stream_options_get(from.stream_relid);
	if (options->rowtime_attno > 0)
	{
		words.rowtime_column = get_attname(from.stream_relid, options->rowtime_attno, false);
		words.rowtime_is_timestamptz = get_atttype(from.stream_relid, options->rowtime_attno) == TIMESTAMPTZOID;
	}
	if (spec->windows)
	{
		KdaWindowClause *clause = linitial(spec->windows);

		split->window = kda_window_of_clause(pstate, clause, time_zone);
		split->window_text = kda_window_format(split->window);
		if (split->window->kind == KDA_WINDOW_SESSION || split->window->kind == KDA_WINDOW_STAGGER)
			refuse(pstate, psprintf("a %s window", kda_window_kind_name(split->window->kind)), clause->location);
	}

	/* Words of ours become plain SQL. */
	words.windowed = split->window != NULL;
	aggregated = kda_words_aggregated(select);
	name_targets(select->targetList);
	words.outside = aggregated;
	kda_words_replace((Node *) select->targetList, &words);
	select->havingClause = kda_words_replace(select->havingClause, &words);
	kda_words_replace((Node *) select->sortClause, &words);
	kda_words_replace((Node *) select->windowClause, &words);
	words.outside = false;
	kda_words_replace((Node *) select->distinctClause, &words);
	select->whereClause = kda_words_replace(select->whereClause, &words);
	select->groupClause = (List *) kda_words_replace((Node *) select->groupClause, &words);
	foreach(lc, select->fromClause)
		(void) kda_words_replace(lfirst(lc), &words);

	if (split->window)
	{
		stars = star_locations(select);
		select->fromClause = lappend(select->fromClause, kda_words_window_from(&words, split->window_text));
		if (add_window_columns && !words.named_window)
		{
			List	   *keys = kda_words_window_keys();

			select->targetList = lcons(result_column("window_start", linitial(keys)),
									   lcons(result_column("window_end", lsecond(keys)), select->targetList));
			shift_ordinals(select->groupClause, 2);
			shift_ordinals(select->sortClause, 2);
			shift_ordinals(select->distinctClause, 2);
			split->window_columns_added = true;
		}
		if (aggregated)
			select->groupClause = list_concat(kda_words_window_keys(), select->groupClause);
	}

	raw = makeNode(RawStmt);
	raw->stmt = (Node *) select;
	query = parse_analyze_fixedparams(raw, source_text, NULL, 0, NULL);
	query = kda_flatten_group_rte(query);
	if (split->window)
	{
		foreach(lc, query->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (rte->rtekind == RTE_FUNCTION && rte->alias && strcmp(rte->alias->aliasname, KDA_WINDOW_ALIAS) == 0)
				split->window_rti = foreach_current_index(lc) + 1;
		}
		if (stars)
			hide_windows_of_star(query, split->window_rti, stars);
	}
	query->targetList = (List *) kda_flatten_join_alias_vars(query, (Node *) query->targetList);
	query->havingQual = kda_flatten_join_alias_vars(query, query->havingQual);
	query->jointree = (FromExpr *) kda_flatten_join_alias_vars(query, (Node *) query->jointree);
	if (query->constraintDeps)
		group_by_dependent_columns(query);

	/* a window function, DISTINCT, ORDER BY or LIMIT looks at several rows, too */
	split->user = query;
	split->per_window = query->hasWindowFuncs || query->distinctClause || query->sortClause || query->limitCount ||
		query->limitOffset || query->hasTargetSRFs;
	check_query(pstate, query, aggregated || split->window || split->per_window);
	refuse_streams_below(query, pstate);
	/* Rights are checked here, and again whenever the query runs. */
	kda_check_query_permissions(query);

	split->shape = split->window ? KDA_SHAPE_WINDOWS :
		aggregated || query->hasWindowFuncs || query->distinctClause || query->sortClause || query->limitCount ||
		query->limitOffset ? KDA_SHAPE_GROUPS : KDA_SHAPE_ROWS;
	if (split->shape == KDA_SHAPE_ROWS)
	{
		split->state = KDA_STATE_NONE;
		split->batch = rows_batch(split);
	}
	else if (aggregated && !(query->jointree->quals && split->window && mentions(query->jointree->quals, split->window_rti)) &&
			 groups_suffice(split))
	{
		split->state = KDA_STATE_GROUPS;
		split->batch = groups_batch(split);
	}
	else
	{
		split->state = KDA_STATE_ROWS;
		split->per_window = true;
		split->batch = kept_rows_batch(split);
	}
	describe_columns(split);
	return split;
}

char *
kda_split_batch_sql(KdaSplit *split)
{
	return kda_query_text(split->batch);
}
