/*-------------------------------------------------------------------------
 *
 * query_words.c
 *	  Words of ours in the raw tree of a SELECT: window_start, window_end,
 *	  window_time, ROWTIME … become references that core's parser knows.
 *
 * The windows stand in FROM as a function, kda.windows(rowtime, description),
 * under a name of ours; the words become its columns.  From there on the
 * parser's own rules say what is grouped and what is not.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/query_words.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_node.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/*---- building raw nodes */

static Node *
raw_function(const char *name, List *args, int location)
{
	return (Node *) makeFuncCall(list_make2(makeString(KDA_SCHEMA), makeString(pstrdup(name))),
								 args, COERCE_EXPLICIT_CALL, location);
}

static Node *
raw_stream_column(KdaWordContext *cxt, const char *column, int location)
{
	ColumnRef  *ref = makeNode(ColumnRef);

	ref->fields = list_make2(makeString(pstrdup(cxt->stream_name)), makeString(pstrdup(column)));
	ref->location = location;
	return (Node *) ref;
}

/* The record's time, as timestamptz. */
static Node *
raw_rowtime(KdaWordContext *cxt, int location)
{
	if (cxt->rowtime_column && cxt->rowtime_is_timestamptz)
		return raw_stream_column(cxt, cxt->rowtime_column, location);
	return raw_function("rowtime", list_make1(raw_stream_column(cxt, cxt->row_column, location)), location);
}

static Node *
raw_window_column(const char *column, int location)
{
	ColumnRef  *ref = makeNode(ColumnRef);

	ref->fields = list_make2(makeString(KDA_WINDOW_ALIAS), makeString(pstrdup(column)));
	ref->location = location;
	return (Node *) ref;
}

static Node *
raw_string(const char *value)
{
	A_Const    *c = makeNode(A_Const);

	c->val.sval.type = T_String;
	c->val.sval.sval = pstrdup(value);
	c->location = -1;
	return (Node *) c;
}

/* window_end - 1 ms: Flink's window_time. */
static Node *
raw_window_time(int location)
{
	TypeCast   *cast = makeNode(TypeCast);

	cast->arg = raw_string("1 millisecond");
	cast->typeName = makeTypeNameFromNameList(list_make2(makeString("pg_catalog"), makeString("interval")));
	cast->location = -1;
	return (Node *) makeA_Expr(AEXPR_OP, list_make2(makeString("pg_catalog"), makeString("-")),
							   raw_window_column("window_end", location), (Node *) cast, location);
}

Node *
kda_words_rowtime(KdaWordContext *cxt)
{
	return raw_rowtime(cxt, -1);
}

Node *
kda_words_window_from(KdaWordContext *cxt, const char *spec)
{
	RangeFunction *from = makeNode(RangeFunction);

	from->lateral = true;
	from->functions = list_make1(list_make2(raw_function("windows",
														 list_make2(raw_rowtime(cxt, -1), raw_string(spec)), -1),
											NIL));
	from->alias = makeAlias(KDA_WINDOW_ALIAS, NIL);
	return (Node *) from;
}

List *
kda_words_window_keys(void)
{
	return list_make2(raw_window_column("window_start", -1), raw_window_column("window_end", -1));
}

/*---- replacing words */

/* Does the reference name our stream's column (unqualified, or by the stream's name)? */
static const char *
stream_word(KdaWordContext *cxt, ColumnRef *ref)
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
replace_word(KdaWordContext *cxt, ColumnRef *ref)
{
	const char *word = stream_word(cxt, ref);

	if (word == NULL)
		return NULL;

	if (cxt->windowed && list_length(ref->fields) == 1)
	{
		if (strcmp(word, "window_start") == 0 || strcmp(word, "window_end") == 0)
		{
			cxt->named_window = true;
			return raw_window_column(word, ref->location);
		}
		if (strcmp(word, "window_time") == 0)
			return raw_window_time(ref->location);
		if (strcmp(word, "window_closed") == 0 || strcmp(word, "window_revision") == 0)
			return raw_function(word, NIL, ref->location);
	}

	if (pg_strcasecmp(word, "rowtime") == 0)
	{
		if (cxt->windowed && cxt->outside)
			return raw_window_column("window_end", ref->location);
		if (cxt->rowtime_column == NULL)
			return raw_rowtime(cxt, ref->location);
	}
	return NULL;
}

bool
kda_words_is_aggregate(FuncCall *call)
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
static bool replace_walker(Node *node, KdaWordContext *cxt);

Node *
kda_query_words_replace(Node *node, KdaWordContext *cxt)
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
			lfirst(lc) = kda_query_words_replace(lfirst(lc), cxt);
		return node;
	}
	replace_walker(node, cxt);
	return node;
}

#define REPLACE(field)	((field) = (void *) kda_query_words_replace((Node *) (field), cxt))

static bool
replace_walker(Node *node, KdaWordContext *cxt)
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

				if (call->over == NULL && kda_words_is_aggregate(call))
					cxt->outside = false;
				REPLACE(call->args);
				REPLACE(call->agg_order);
				REPLACE(call->agg_filter);
				if (call->over)
					replace_walker((Node *) call->over, cxt);
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
		case T_WindowDef:
			REPLACE(((WindowDef *) node)->partitionClause);
			REPLACE(((WindowDef *) node)->orderClause);
			return false;
		case T_GroupingSet:
			REPLACE(((GroupingSet *) node)->content);
			return false;
		case T_GroupingFunc:
			REPLACE(((GroupingFunc *) node)->args);
			return false;
		case T_RangeFunction:
			REPLACE(((RangeFunction *) node)->functions);
			return false;
		case T_SubLink:
			/* inside, the words are the subquery's own unless qualified; only the test is ours */
			REPLACE(((SubLink *) node)->testexpr);
			return false;
		default:
			return false;
	}
}

void
kda_words_name_targets(List *targets)
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

/*---- what kind of query */

static bool
aggregate_walker(Node *node, void *found)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink) || IsA(node, SelectStmt))
		return false;
	if (IsA(node, FuncCall) && ((FuncCall *) node)->over == NULL && kda_words_is_aggregate((FuncCall *) node))
		return true;
	return raw_expression_tree_walker(node, aggregate_walker, found);
}

bool
kda_words_aggregated(SelectStmt *select)
{
	return select->groupClause != NIL || select->havingClause != NULL ||
		aggregate_walker((Node *) select->targetList, NULL) || aggregate_walker((Node *) select->sortClause, NULL);
}
