/*-------------------------------------------------------------------------
 *
 * words.c
 *	  Replacing column references and calls in raw expressions.
 *
 * Core has a walker over raw trees but no mutator; here are the places in
 * which an expression can stand.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "dialect/words.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"

bool
kda_raw_is_aggregate(FuncCall *call)
{
	FuncCandidateList candidate;

	if (call->agg_star || call->agg_distinct || call->agg_order || call->agg_filter ||
		call->agg_within_group)
		return true;
	if (!IsTransactionState())
		return false;
	/* Any overload that is an aggregate will do: names are rarely shared. */
	candidate = FuncnameGetCandidates(call->funcname, -1, NIL, false, false, false, true);
	for (; candidate; candidate = candidate->next)
		if (get_func_prokind(candidate->oid) == PROKIND_AGGREGATE)
			return true;
	return false;
}

bool
kda_raw_is_function(const char *name)
{
	return !IsTransactionState() ||
		FuncnameGetCandidates(list_make1(makeString(pstrdup(name))), -1, NIL, false, false, false, true) != NULL;
}

#define REPLACE(field)	((field) = (void *) kda_words_replace((Node *) (field), words))

Node *
kda_words_replace(Node *node, KdaWords *words)
{
	ListCell   *lc;
	Node	   *other;
	bool		in_aggregate = words->in_aggregate;

	if (node == NULL)
		return NULL;
	check_stack_depth();
	switch (nodeTag(node))
	{
		case T_ColumnRef:
			other = words->replace((ColumnRef *) node, in_aggregate, words->arg);
			return other ? other : node;
		case T_List:
			foreach(lc, (List *) node)
				REPLACE(lfirst(lc));
			return node;
		case T_ResTarget:
			REPLACE(((ResTarget *) node)->val);
			return node;
		case T_SortBy:
			REPLACE(((SortBy *) node)->node);
			return node;
		case T_GroupingSet:
			REPLACE(((GroupingSet *) node)->content);
			return node;
		case T_A_Expr:
			REPLACE(((A_Expr *) node)->lexpr);
			REPLACE(((A_Expr *) node)->rexpr);
			return node;
		case T_BoolExpr:
			REPLACE(((BoolExpr *) node)->args);
			return node;
		case T_TypeCast:
			REPLACE(((TypeCast *) node)->arg);
			return node;
		case T_CollateClause:
			REPLACE(((CollateClause *) node)->arg);
			return node;
		case T_FuncCall:
			{
				FuncCall   *call = (FuncCall *) node;

				other = words->replace_call ? words->replace_call(call, in_aggregate, words->arg) : NULL;
				if (other)
					return other;
				if (call->over)
					REPLACE(call->over);
				else if (words->is_aggregate(call))
					words->in_aggregate = true;
				REPLACE(call->args);
				REPLACE(call->agg_order);
				REPLACE(call->agg_filter);
				words->in_aggregate = in_aggregate;
				return node;
			}
		case T_WindowDef:
			REPLACE(((WindowDef *) node)->partitionClause);
			REPLACE(((WindowDef *) node)->orderClause);
			return node;
		case T_GroupingFunc:
			REPLACE(((GroupingFunc *) node)->args);
			return node;
		case T_NamedArgExpr:
			REPLACE(((NamedArgExpr *) node)->arg);
			return node;
		case T_NullTest:
			REPLACE(((NullTest *) node)->arg);
			return node;
		case T_BooleanTest:
			REPLACE(((BooleanTest *) node)->arg);
			return node;
		case T_CaseExpr:
			REPLACE(((CaseExpr *) node)->arg);
			REPLACE(((CaseExpr *) node)->args);
			REPLACE(((CaseExpr *) node)->defresult);
			return node;
		case T_CaseWhen:
			REPLACE(((CaseWhen *) node)->expr);
			REPLACE(((CaseWhen *) node)->result);
			return node;
		case T_CoalesceExpr:
			REPLACE(((CoalesceExpr *) node)->args);
			return node;
		case T_MinMaxExpr:
			REPLACE(((MinMaxExpr *) node)->args);
			return node;
		case T_RowExpr:
			REPLACE(((RowExpr *) node)->args);
			return node;
		case T_A_ArrayExpr:
			REPLACE(((A_ArrayExpr *) node)->elements);
			return node;
		case T_A_Indirection:
			REPLACE(((A_Indirection *) node)->arg);
			REPLACE(((A_Indirection *) node)->indirection);
			return node;
		case T_A_Indices:
			REPLACE(((A_Indices *) node)->lidx);
			REPLACE(((A_Indices *) node)->uidx);
			return node;
		case T_XmlExpr:
			REPLACE(((XmlExpr *) node)->named_args);
			REPLACE(((XmlExpr *) node)->args);
			return node;
		case T_XmlSerialize:
			REPLACE(((XmlSerialize *) node)->expr);
			return node;
		case T_SubLink:
			REPLACE(((SubLink *) node)->testexpr);
			return node;
		default:
			return node;
	}
}

void
kda_words_replace_in_joins(Node *from, KdaWords *words)
{
	if (from && IsA(from, RangeFunction))
		REPLACE(((RangeFunction *) from)->functions);
	if (from == NULL || !IsA(from, JoinExpr))
		return;
	REPLACE(((JoinExpr *) from)->quals);
	kda_words_replace_in_joins(((JoinExpr *) from)->larg, words);
	kda_words_replace_in_joins(((JoinExpr *) from)->rarg, words);
}
