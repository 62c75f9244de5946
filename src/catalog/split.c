/*-------------------------------------------------------------------------
 *
 * split.c
 *	  Splits the SELECT of a continuous query into its per-batch part and its
 *	  final part, both ordinary SQL.
 *
 * In: the raw SELECT with the window clause lifted out (dialect/).  Out: an
 * analysed Query for the whole, one for the per-batch part, and the text of
 * the final part over the table of open groups.  Runs in the session that
 * declares the query, as that user.  Plans nothing and creates nothing.
 *
 * Words such as window_start are replaced in the raw tree by expressions over
 * kda.tumble_start(rowtime, size, offset), which also becomes the first group
 * key; from there on the parser's own rules say what is grouped and what is
 * not.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/options.h"
#include "catalog/pg_type.h"
#include "catalog/ddl.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_proc.h"
#include "catalog/split.h"
#include "parser/parse_coerce.h"
#include "rewrite/rewriteManip.h"
#include "utils/snapmgr.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parse_expr.h"
#include "parser/parse_func.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "parser/parse_type.h"
#include "query/agg_signature.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

#define REFUSE_HINT_LATER	"This release does not keep such a query up to date."

/* What the raw-tree replacement needs to know. */
typedef struct RawContext
{
	ParseState *pstate;			/* for error positions */
	RangeVar   *stream_rv;
	const char *stream_name;	/* alias or relation name */
	KdaStreamOptions *options;
	char	   *rowtime_column; /* NULL: not declared */
	bool		rowtime_is_timestamptz;
	Interval   *size;			/* NULL: no window */
	Interval   *offset;
	bool		outside;		/* in select list or HAVING, outside aggregates */
	bool		named_window;	/* window_start or window_end was used */
} RawContext;

static void
refuse(RawContext *cxt, const char *what, int location)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s cannot be used in a continuous query", what),
			 errhint(REFUSE_HINT_LATER),
			 parser_errposition(cxt ? cxt->pstate : NULL, location)));
}

/*---- building raw nodes */

static Node *
raw_function(const char *name, List *args, int location)
{
	return (Node *) makeFuncCall(list_make2(makeString(KDA_SCHEMA), makeString(pstrdup(name))),
								 args, COERCE_EXPLICIT_CALL, location);
}

static Node *
raw_interval(const Interval *value)
{
	A_Const    *c = makeNode(A_Const);
	TypeCast   *cast = makeNode(TypeCast);
	char	   *text = DatumGetCString(DirectFunctionCall1(interval_out, PointerGetDatum(value)));

	c->val.sval.type = T_String;
	c->val.sval.sval = text;
	c->location = -1;
	cast->arg = (Node *) c;
	cast->typeName = makeTypeNameFromNameList(list_make2(makeString("pg_catalog"),
														 makeString("interval")));
	cast->location = -1;
	return (Node *) cast;
}

static Node *
raw_stream_column(RawContext *cxt, const char *column, int location)
{
	ColumnRef  *ref = makeNode(ColumnRef);

	ref->fields = list_make2(makeString(pstrdup(cxt->stream_name)), makeString(pstrdup(column)));
	ref->location = location;
	return (Node *) ref;
}

/* The record's time, as timestamptz. */
static Node *
raw_rowtime(RawContext *cxt, int location)
{
	if (cxt->rowtime_column && cxt->rowtime_is_timestamptz)
		return raw_stream_column(cxt, cxt->rowtime_column, location);
	return raw_function("rowtime", list_make1(raw_stream_column(cxt, "ctid", location)), location);
}

static Node *
raw_window_start(RawContext *cxt, int location)
{
	return raw_function("tumble_start",
						list_make3(raw_rowtime(cxt, location), raw_interval(cxt->size),
								   raw_interval(cxt->offset)),
						location);
}

static Node *
raw_window_end(RawContext *cxt, int location)
{
	return raw_function("tumble_end",
						list_make2(raw_window_start(cxt, location), raw_interval(cxt->size)),
						location);
}

/*---- replacing words */

/* Does the reference name our stream's column (unqualified, or by the stream's name)? */
static const char *
stream_word(RawContext *cxt, ColumnRef *ref)
{
	int			n = list_length(ref->fields);
	Node	   *last = llast(ref->fields);

	if (!IsA(last, String))
		return NULL;
	if (n == 2 && (!IsA(linitial(ref->fields), String) ||
				   strcmp(strVal(linitial(ref->fields)), cxt->stream_name) != 0))
		return NULL;
	if (n > 2)
		return NULL;
	return strVal(last);
}

static Node *
replace_word(RawContext *cxt, ColumnRef *ref)
{
	const char *word = stream_word(cxt, ref);

	if (word == NULL)
		return NULL;

	if (cxt->size && list_length(ref->fields) == 1)
	{
		if (strcmp(word, "window_start") == 0)
		{
			cxt->named_window = true;
			return raw_window_start(cxt, ref->location);
		}
		if (strcmp(word, "window_end") == 0)
		{
			cxt->named_window = true;
			return raw_window_end(cxt, ref->location);
		}
		if (strcmp(word, "window_time") == 0 || strcmp(word, "window_closed") == 0 ||
			strcmp(word, "window_revision") == 0)
			refuse(cxt, psprintf("\"%s\"", word), ref->location);
	}

	if (pg_strcasecmp(word, "rowtime") == 0)
	{
		if (cxt->size && cxt->outside)
			return raw_window_end(cxt, ref->location);
		/* no column of that name: the time attribute, whatever it is called */
		if (get_attnum(cxt->options->relid, word) == InvalidAttrNumber)
			return raw_rowtime(cxt, ref->location);
	}
	return NULL;
}

static bool
is_aggregate_call(FuncCall *call)
{
	if (call->agg_star || call->agg_distinct || call->agg_order || call->agg_filter ||
		call->agg_within_group)
		return true;
	/* Any overload that is an aggregate will do: names are rarely shared. */
	{
		FuncCandidateList cand = FuncnameGetCandidates(call->funcname, -1, NIL, false, false,
													   false, true);

		for (; cand; cand = cand->next)
			if (get_func_prokind(cand->oid) == PROKIND_AGGREGATE)
				return true;
	}
	return false;
}

/*
 * raw_expression_tree_walker cannot replace nodes, and there is no raw
 * mutator in core; so the walker is handed the places that hold expressions.
 */
static bool replace_walker(Node *node, RawContext *cxt);

static Node *
replace_in(Node *node, RawContext *cxt)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, ColumnRef))
	{
		Node	   *other = replace_word(cxt, (ColumnRef *) node);

		return other ? other : node;
	}
	if (IsA(node, List))
	{
		ListCell   *lc;

		foreach(lc, (List *) node)
			lfirst(lc) = replace_in(lfirst(lc), cxt);
		return node;
	}
	replace_walker(node, cxt);
	return node;
}

#define REPLACE(field)	((field) = (void *) replace_in((Node *) (field), cxt))

static bool
replace_walker(Node *node, RawContext *cxt)
{
	bool		outside = cxt->outside;

	if (node == NULL)
		return false;
	check_stack_depth();

	switch (nodeTag(node))
	{
		case T_ResTarget:
			REPLACE(((ResTarget *) node)->val);
			return false;
		case T_A_Expr:
			REPLACE(((A_Expr *) node)->lexpr);
			REPLACE(((A_Expr *) node)->rexpr);
			return false;
		case T_BoolExpr:
			REPLACE(((BoolExpr *) node)->args);
			return false;
		case T_TypeCast:
			REPLACE(((TypeCast *) node)->arg);
			return false;
		case T_CollateClause:
			REPLACE(((CollateClause *) node)->arg);
			return false;
		case T_FuncCall:
			{
				FuncCall   *call = (FuncCall *) node;

				if (is_aggregate_call(call))
					cxt->outside = false;
				REPLACE(call->args);
				REPLACE(call->agg_order);
				REPLACE(call->agg_filter);
				cxt->outside = outside;
				return false;
			}
		case T_NullTest:
			REPLACE(((NullTest *) node)->arg);
			return false;
		case T_BooleanTest:
			REPLACE(((BooleanTest *) node)->arg);
			return false;
		case T_CaseExpr:
			REPLACE(((CaseExpr *) node)->arg);
			REPLACE(((CaseExpr *) node)->args);
			REPLACE(((CaseExpr *) node)->defresult);
			return false;
		case T_CaseWhen:
			REPLACE(((CaseWhen *) node)->expr);
			REPLACE(((CaseWhen *) node)->result);
			return false;
		case T_CoalesceExpr:
			REPLACE(((CoalesceExpr *) node)->args);
			return false;
		case T_MinMaxExpr:
			REPLACE(((MinMaxExpr *) node)->args);
			return false;
		case T_RowExpr:
			REPLACE(((RowExpr *) node)->args);
			return false;
		case T_A_ArrayExpr:
			REPLACE(((A_ArrayExpr *) node)->elements);
			return false;
		case T_A_Indirection:
			REPLACE(((A_Indirection *) node)->arg);
			REPLACE(((A_Indirection *) node)->indirection);
			return false;
		case T_A_Indices:
			REPLACE(((A_Indices *) node)->lidx);
			REPLACE(((A_Indices *) node)->uidx);
			return false;
		case T_SortBy:
			REPLACE(((SortBy *) node)->node);
			return false;
		case T_NamedArgExpr:
			REPLACE(((NamedArgExpr *) node)->arg);
			return false;
		case T_XmlExpr:
			REPLACE(((XmlExpr *) node)->named_args);
			REPLACE(((XmlExpr *) node)->args);
			return false;
		case T_XmlSerialize:
			REPLACE(((XmlSerialize *) node)->expr);
			return false;
		case T_JoinExpr:
			REPLACE(((JoinExpr *) node)->quals);
			replace_walker(((JoinExpr *) node)->larg, cxt);
			replace_walker(((JoinExpr *) node)->rarg, cxt);
			return false;
		case T_SubLink:
			/* inside, the words are the subquery's own unless qualified; only the test is ours */
			REPLACE(((SubLink *) node)->testexpr);
			return false;
		default:
			return false;
	}
}

/*---- FROM: exactly one stream, on the preserved side of every outer join */

typedef struct FromContext
{
	RawContext *raw;
	RangeVar   *stream;
	Oid			stream_relid;
	RangeVar   *missing;		/* a relation that does not exist, or a CTE */
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
		{
			from->missing = rv;	/* a CTE, or the parser's error */
			return;
		}
		if (!kda_is_stream(relid))
		{
			if (get_rel_relkind(relid) == RELKIND_VIEW && query_of_relation(relid))
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("\"%s\" is a continuous query and cannot be read by another one", rv->relname),
						 errhint("Write its result into a stream with CREATE PUMP, and read that stream."),
						 parser_errposition(from->raw->pstate, rv->location)));
			return;
		}
		if (OidIsValid(from->stream_relid))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a continuous query reads one stream, this one names \"%s\" and \"%s\"",
							from->stream->relname, rv->relname),
					 errhint("Joins of streams are not part of this release."),
					 parser_errposition(from->raw->pstate, rv->location)));
		if (from->nullable)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("stream \"%s\" stands on the side of an outer join that is filled with NULLs", rv->relname),
					 errdetail("Rows of the other side would have to wait for records that may never come."),
					 errhint("Put the stream on the preserved side: stream LEFT JOIN table."),
					 parser_errposition(from->raw->pstate, rv->location)));
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
stream_below_walker(Node *node, void *context)
{
	Oid		   *found = context;

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

/*---- window clause */

static Interval *
constant_interval(RawContext *cxt, Node *raw, const char *what)
{
	Node	   *expr = transformExpr(cxt->pstate, raw, EXPR_KIND_SELECT_TARGET);
	int			location = exprLocation(raw);
	Const	   *c;

	expr = coerce_to_target_type(cxt->pstate, expr, exprType(expr), INTERVALOID, -1,
								 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
	if (expr == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the %s of a window must be an interval", what),
				 parser_errposition(cxt->pstate, location)));
	expr = eval_const_expressions(NULL, expr);
	if (!IsA(expr, Const) || ((Const *) expr)->constisnull)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the %s of a window must be a constant", what),
				 errhint("For example INTERVAL '1' MINUTE."),
				 parser_errposition(cxt->pstate, location)));
	c = (Const *) expr;
	return DatumGetIntervalP(c->constvalue);
}

static int64
interval_us(RawContext *cxt, const Interval *iv, const char *what, int location)
{
	if (iv->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a window %s of months or years is not part of this release", what),
				 errhint("Use days or shorter units."),
				 parser_errposition(cxt->pstate, location)));
	return iv->time + (int64) iv->day * USECS_PER_DAY;
}

static void
read_window(RawContext *cxt, KdaWindowClause *window)
{
	int64		size;
	int64		offset = 0;
	int			nargs = list_length(window->args);

	if (window->kind != KDA_WINDOW_TUMBLING)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s windows are not part of this release", kda_window_kind_name(window->kind)),
				 errhint("TUMBLING (size [, offset]) is."),
				 parser_errposition(cxt->pstate, window->location)));
	if (nargs < 1 || nargs > 2)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("TUMBLING takes one or two arguments, not %d", nargs),
				 errhint("TUMBLING (size [, offset])"),
				 parser_errposition(cxt->pstate, window->location)));

	cxt->size = constant_interval(cxt, linitial(window->args), "size");
	size = interval_us(cxt, cxt->size, "size", exprLocation(linitial(window->args)));
	if (size <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the size of a window must be greater than zero"),
				 errdetail("It is %s.", DatumGetCString(DirectFunctionCall1(interval_out, PointerGetDatum(cxt->size)))),
				 parser_errposition(cxt->pstate, exprLocation(linitial(window->args)))));
	if (nargs == 2)
	{
		cxt->offset = constant_interval(cxt, lsecond(window->args), "offset");
		offset = interval_us(cxt, cxt->offset, "offset", exprLocation(lsecond(window->args)));
	}
	else
		cxt->offset = palloc0(sizeof(Interval));
	if (offset >= size || offset <= -size)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the offset of a window must be smaller than its size"),
				 errdetail("The offset is %s, the size %s.",
						   DatumGetCString(DirectFunctionCall1(interval_out, PointerGetDatum(cxt->offset))),
						   DatumGetCString(DirectFunctionCall1(interval_out, PointerGetDatum(cxt->size)))),
				 parser_errposition(cxt->pstate, exprLocation(lsecond(window->args)))));
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

static bool
volatile_parts(Query *query)
{
	return contain_volatile_functions((Node *) query->jointree);
}

static void
check_query(RawContext *cxt, Query *query, bool aggregated)
{
	if (query->commandType != CMD_SELECT || query->utilityStmt)
		refuse(cxt, "this statement", -1);
	if (query->setOperations)
		refuse(cxt, "UNION, INTERSECT or EXCEPT", -1);
	if (query->cteList)
		refuse(cxt, "WITH", -1);
	if (query->rowMarks)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("FOR UPDATE cannot be used in a continuous query")));
	if (query->groupingSets)
		refuse(cxt, "GROUPING SETS, ROLLUP or CUBE", -1);
	if (query->hasWindowFuncs)
		refuse(cxt, "a window function (OVER)", -1);
	if (query->distinctClause)
		refuse(cxt, "DISTINCT", -1);
	if (query->sortClause || query->limitCount || query->limitOffset)
		refuse(cxt, "ORDER BY or LIMIT", -1);
	if (aggregated && query->hasTargetSRFs)
		refuse(cxt, "a set-returning function beside an aggregate", -1);
	if (aggregated && query->constraintDeps)
		refuse(cxt, "a column that GROUP BY names only through a primary key", -1);
	if (aggregated ? contain_volatile_functions((Node *) query) : volatile_parts(query))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a volatile function can stand only in the select list of a continuous query without aggregates"),
				 errdetail("Its result would change when records are read again."),
				 errhint("now() and current_timestamp are stable and may be used.")));
	if (aggregated && query->hasSubLinks &&
		(checkExprHasSubLink((Node *) query->targetList) || checkExprHasSubLink(query->havingQual)))
		refuse(cxt, "a subquery in the select list or HAVING beside an aggregate", -1);
}

static bool
unsupported_aggregate_walker(Node *node, void *context)
{
	RawContext *cxt = context;

	if (node == NULL)
		return false;
	if (IsA(node, Aggref))
	{
		char	   *why = NULL;

		if (!kda_agg_supported((Aggref *) node, &why))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("aggregate %s cannot be used in a continuous query",
							format_procedure(((Aggref *) node)->aggfnoid)),
					 why ? errdetail("%s", why) : 0,
					 errhint("Plain aggregates whose partial results can be combined and stored can be used."),
					 parser_errposition(cxt->pstate, ((Aggref *) node)->location)));
		return false;
	}
	return expression_tree_walker(node, unsupported_aggregate_walker, cxt);
}

static bool
collect_aggs_walker(Node *node, void *context)
{
	List	  **aggs = context;

	if (node == NULL)
		return false;
	if (IsA(node, Aggref))
	{
		*aggs = list_append_unique(*aggs, node);
		return false;
	}
	return expression_tree_walker(node, collect_aggs_walker, aggs);
}

static List *
collect_aggs(Query *user)
{
	List	   *aggs = NIL;

	collect_aggs_walker((Node *) user->targetList, &aggs);
	collect_aggs_walker(user->havingQual, &aggs);
	return aggs;
}

static Query *
make_batch_query(KdaSplit *split)
{
	Query	   *user = split->user;
	Query	   *batch = copyObject(user);
	List	   *targets = NIL;
	AttrNumber	resno = 1;
	ListCell   *lc;
	List	   *group = NIL;

	if (split->shape == KDA_SHAPE_ROWS)
	{
		/* first the record's place in the batch: what is emitted takes its time from there */
		int			rti = 0;

		foreach(lc, batch->rtable)
			if (lfirst_node(RangeTblEntry, lc)->rtekind == RTE_RELATION &&
				lfirst_node(RangeTblEntry, lc)->relid == split->stream)
				rti = foreach_current_index(lc) + 1;
		foreach(lc, batch->targetList)
			lfirst_node(TargetEntry, lc)->resno++;
		batch->targetList = lcons(makeTargetEntry((Expr *) makeVar(rti, SelfItemPointerAttributeNumber, TIDOID,
																   -1, InvalidOid, 0),
												  1, "kda_row", false),
								  batch->targetList);
		return batch;
	}

	foreach(lc, user->groupClause)
	{
		SortGroupClause *sgc = lfirst_node(SortGroupClause, lc);
		TargetEntry *tle = get_sortgroupclause_tle(sgc, user->targetList);
		TargetEntry *key = makeTargetEntry(copyObject(tle->expr), resno,
										   psprintf("k%d", resno), false);
		SortGroupClause *copy = copyObject(sgc);

		key->ressortgroupref = copy->tleSortGroupRef = resno;
		targets = lappend(targets, key);
		group = lappend(group, copy);
		resno++;
	}
	split->nkeys = resno - 1;
	foreach(lc, collect_aggs(user))
	{
		targets = lappend(targets,
						  makeTargetEntry(copyObject(lfirst(lc)), resno,
										  psprintf("s%d", resno - split->nkeys), false));
		resno++;
	}
	batch->targetList = targets;
	batch->groupClause = group;
	batch->havingQual = NULL;
	batch->hasTargetSRFs = false;
	return batch;
}

/* By one of the columns before it, or by one of ours. */
static bool
is_name_taken(Query *query, TargetEntry *tle)
{
	ListCell   *lc;

	if (strcmp(tle->resname, "kda_time") == 0 || strcmp(tle->resname, "kda_row") == 0)
		return true;
	foreach(lc, query->targetList)
	{
		TargetEntry *other = lfirst_node(TargetEntry, lc);

		if (other == tle)
			return false;
		if (!other->resjunk && strcmp(other->resname, tle->resname) == 0)
			return true;
	}
	return false;
}

/* A pump's columns are inserted by their places: nobody has to name them. */
static void
make_names_unique(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		char	   *name = tle->resname;

		for (int n = tle->resno; !tle->resjunk && is_name_taken(query, tle); n++)
			tle->resname = psprintf("%.40s_%d", name, n);
	}
}

KdaSplit *
kda_split_query(KdaQuerySpec *spec, const char *source_text, bool add_window_columns)
{
	KdaSplit   *split = palloc0(sizeof(KdaSplit));
	SelectStmt *select = copyObject(spec->select);
	RawContext	cxt = {0};
	FromContext from = {0};
	RawStmt    *raw;
	Query	   *query;
	ListCell   *lc;
	bool		aggregated;
	int			i;

	cxt.pstate = make_parsestate(NULL);
	cxt.pstate->p_sourcetext = source_text;
	from.raw = &cxt;

	if (select->op != SETOP_NONE || select->valuesLists)
		refuse(&cxt, "UNION, INTERSECT, EXCEPT or VALUES", -1);

	foreach(lc, select->fromClause)
		find_stream(lfirst(lc), &from);
	if (!OidIsValid(from.stream_relid) && from.missing && select->withClause == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 from.missing->schemaname ?
				 errmsg("relation \"%s.%s\" does not exist", from.missing->schemaname, from.missing->relname) :
				 errmsg("relation \"%s\" does not exist", from.missing->relname),
				 parser_errposition(cxt.pstate, from.missing->location)));
	if (!OidIsValid(from.stream_relid))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("a continuous query must read a stream"),
				 errhint("Name a stream in FROM; CREATE STREAM makes one.")));
	split->stream = from.stream_relid;
	cxt.stream_rv = from.stream;
	cxt.stream_name = from.stream->alias ? from.stream->alias->aliasname : from.stream->relname;
	cxt.options = kda_stream_options_get(from.stream_relid);
	if (cxt.options->rowtime_attno > 0)
	{
		cxt.rowtime_column = get_attname(from.stream_relid, cxt.options->rowtime_attno, false);
		cxt.rowtime_is_timestamptz =
			get_atttype(from.stream_relid, cxt.options->rowtime_attno) == TIMESTAMPTZOID;
	}

	if (spec->window)
		read_window(&cxt, spec->window);

	/* Words of ours become plain SQL. */
	name_targets(select->targetList);
	cxt.outside = true;
	replace_in((Node *) select->targetList, &cxt);
	select->havingClause = replace_in(select->havingClause, &cxt);
	cxt.outside = false;
	select->whereClause = replace_in(select->whereClause, &cxt);
	select->groupClause = (List *) replace_in((Node *) select->groupClause, &cxt);
	foreach(lc, select->fromClause)
		replace_walker(lfirst(lc), &cxt);

	if (cxt.size)
	{
		if (add_window_columns && !cxt.named_window)
		{
			select->targetList = lcons(result_column("window_start", raw_window_start(&cxt, -1)),
									   lcons(result_column("window_end", raw_window_end(&cxt, -1)),
											 select->targetList));
			shift_ordinals(select->groupClause, 2);
			split->window_columns_added = true;
		}
		select->groupClause = lcons(raw_window_start(&cxt, -1), select->groupClause);
	}

	raw = makeNode(RawStmt);
	raw->stmt = (Node *) select;
	query = parse_analyze_fixedparams(raw, source_text, NULL, 0, NULL);
	query = kda_flatten_group_rte(query);

	aggregated = query->hasAggs || query->groupClause != NIL;
	if (cxt.size && !query->hasAggs && list_length(query->groupClause) == 1 &&
		list_length(select->groupClause) == 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("WINDOWED BY needs an aggregate or GROUP BY"),
				 errhint("Leave WINDOWED BY out to get one row per record.")));
	check_query(&cxt, query, aggregated);
	refuse_streams_below(query, cxt.pstate);
	if (aggregated)
	{
		unsupported_aggregate_walker((Node *) query->targetList, &cxt);
		unsupported_aggregate_walker(query->havingQual, &cxt);
	}

	foreach(lc, query->groupClause)
	{
		TargetEntry *tle = get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), query->targetList);

		if (!kda_key_supported(exprType((Node *) tle->expr)))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a continuous query cannot group by type %s", format_type_be(exprType((Node *) tle->expr))),
					 errdetail("The type has no hash function."),
					 parser_errposition(cxt.pstate, exprLocation((Node *) tle->expr))));
	}

	/* Rights are checked here, and again whenever the query runs. */
	kda_check_query_permissions(query);

	split->user = query;
	split->shape = cxt.size ? KDA_SHAPE_WINDOWS :
		aggregated ? KDA_SHAPE_GROUPS : KDA_SHAPE_ROWS;
	split->window_size = cxt.size;
	split->window_offset = cxt.offset;
	if (!add_window_columns)
		make_names_unique(query);
	split->batch = make_batch_query(split);

	split->names = palloc0(sizeof(char *) * list_length(query->targetList));
	split->types = palloc0(sizeof(Oid) * list_length(query->targetList));
	split->typmods = palloc0(sizeof(int32) * list_length(query->targetList));
	split->collations = palloc0(sizeof(Oid) * list_length(query->targetList));
	i = 0;
	foreach(lc, query->targetList)
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
		if (is_name_taken(query, tle))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 strncmp(tle->resname, "kda_", 4) == 0 ?
					 errmsg("column name \"%s\" is reserved", tle->resname) :
					 errmsg("column \"%s\" specified more than once", tle->resname),
					 errhint("Give the columns different names with AS.")));
		i++;
	}
	split->ncolumns = i;
	return split;
}

/*---- the final part */

typedef struct FinalContext
{
	List	   *keys;			/* expressions of the batch query's keys */
	List	   *aggs;
	Relation	open;
	AttrNumber	first_key;		/* attribute of k1 in open */
	Oid			final_func;
} FinalContext;

static Node *
final_mutator(Node *node, void *context)
{
	FinalContext *cxt = context;
	ListCell   *lc;
	int			i = 0;

	if (node == NULL)
		return NULL;

	foreach(lc, cxt->keys)
	{
		if (equal(node, lfirst(lc)))
		{
			Form_pg_attribute att = TupleDescAttr(RelationGetDescr(cxt->open), cxt->first_key - 1 + i);

			return (Node *) makeVar(1, att->attnum, att->atttypid, exprTypmod(node),
									att->attcollation, 0);
		}
		i++;
	}
	if (IsA(node, Aggref))
	{
		Form_pg_attribute att;
		Aggref	   *agg = (Aggref *) node;
		Const	   *sig;

		i = 0;
		foreach(lc, cxt->aggs)
		{
			if (equal(node, lfirst(lc)))
				break;
			i++;
		}
		Assert(lc != NULL);
		att = TupleDescAttr(RelationGetDescr(cxt->open),
							cxt->first_key - 1 + list_length(cxt->keys) + i);
		/* nothing to finish: count, sum(int4), min, max … */
		if (kda_agg_state_is_result(agg) && att->atttypid == agg->aggtype)
			return (Node *) makeVar(1, att->attnum, att->atttypid, att->atttypmod, att->attcollation, 0);
		sig = makeConst(TEXTOID, -1, DEFAULT_COLLATION_OID, -1,
						CStringGetTextDatum(kda_agg_signature(agg)), false, false);
		return (Node *) makeFuncExpr(cxt->final_func, agg->aggtype,
									 list_make3(sig,
												makeVar(1, att->attnum, att->atttypid, att->atttypmod,
														att->attcollation, 0),
												makeNullConst(agg->aggtype, -1, agg->aggcollid)),
									 agg->aggcollid, agg->inputcollid, COERCE_EXPLICIT_CALL);
	}
	if (IsA(node, Var))
		ereport(ERROR,
				(errcode(ERRCODE_GROUPING_ERROR),
				 errmsg("a column of the select list is neither in GROUP BY nor inside an aggregate")));
	return expression_tree_mutator(node, final_mutator, (void *) cxt);
}

/* A Query that selects the given entries from one relation. */
static Query *
select_from(Relation rel, const char *alias)
{
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *item;
	Query	   *query = makeNode(Query);
	RangeTblRef *ref = makeNode(RangeTblRef);

	item = addRangeTableEntryForRelation(pstate, rel, AccessShareLock,
										 makeAlias(alias, NIL), false, true);
	query->commandType = CMD_SELECT;
	query->querySource = QSRC_ORIGINAL;
	query->canSetTag = true;
	query->rtable = pstate->p_rtable;
#if PG_VERSION_NUM >= 160000
	query->rteperminfos = pstate->p_rteperminfos;
#endif
	ref->rtindex = item->p_rtindex;
	query->jointree = makeFromExpr(list_make1(ref), NULL);
	return query;
}

Query *
kda_split_final(KdaSplit *split, Oid open_relid)
{
	Relation	open = table_open(open_relid, AccessShareLock);
	FinalContext cxt = {0};
	Query	   *final;
	List	   *targets = NIL;
	AttrNumber	resno = 1;
	ListCell   *lc;
	Oid			argtypes[3] = {TEXTOID, ANYOID, ANYELEMENTOID};
	Expr	   *first;
	int			i = 0;

	foreach(lc, split->batch->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (i++ < split->nkeys)
			cxt.keys = lappend(cxt.keys, tle->expr);
		else
			cxt.aggs = lappend(cxt.aggs, tle->expr);
	}
	cxt.open = open;
	cxt.first_key = KDA_OPEN_FIRST_KEY;
	cxt.final_func = LookupFuncName(list_make2(makeString(KDA_SCHEMA), makeString("final")),
									3, argtypes, false);

	final = select_from(open, "o");
	if (split->shape == KDA_SHAPE_WINDOWS)
		first = (Expr *) final_mutator(copyObject(linitial(cxt.keys)), &cxt);
	else
		first = (Expr *) makeNullConst(TIMESTAMPTZOID, -1, InvalidOid);
	targets = lappend(targets, makeTargetEntry(first, resno++, "kda_time", false));
	foreach(lc, split->user->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk)
			continue;
		targets = lappend(targets,
						  makeTargetEntry((Expr *) final_mutator((Node *) tle->expr, &cxt),
										  resno++, tle->resname, false));
	}
	final->targetList = targets;
	final->jointree->quals = final_mutator(split->user->havingQual, &cxt);
	table_close(open, NoLock);
	return final;
}

static Node *
empty_mutator(Node *node, void *cxt)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
		return (Node *) makeNullConst(((Var *) node)->vartype, ((Var *) node)->vartypmod,
									  ((Var *) node)->varcollid);
	return expression_tree_mutator(node, empty_mutator, cxt);
}

Query *
kda_split_empty(KdaSplit *split)
{
	Query	   *empty = makeNode(Query);
	ListCell   *lc;

	/* The user's own aggregates over no rows at all. */
	empty->commandType = CMD_SELECT;
	empty->querySource = QSRC_ORIGINAL;
	empty->canSetTag = true;
	empty->hasAggs = true;
	foreach(lc, split->user->targetList)
	{
		TargetEntry *tle = copyObject(lfirst_node(TargetEntry, lc));

		tle->expr = (Expr *) empty_mutator((Node *) tle->expr, NULL);
		empty->targetList = lappend(empty->targetList, tle);
	}
	empty->jointree = makeFromExpr(NIL, makeBoolConst(false, false));
	empty->havingQual = empty_mutator(copyObject(split->user->havingQual), NULL);
	return empty;
}
