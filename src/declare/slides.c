/*-------------------------------------------------------------------------
 *
 * slides.c
 *	  Is a query with OVER, or sorted with WITHIN, one whose rows leave one by
 *	  one as time goes on?
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/pg_collation.h"
#include "declare/split.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

/*---- row-sliding queries */

static bool
order_by_time_walker(Node *node, void *arg)
{
	KdaWordContext *words = arg;

	if (node == NULL || IsA(node, SubLink) || IsA(node, SelectStmt))
		return false;
	if (IsA(node, WindowDef))
	{
		WindowDef  *def = (WindowDef *) node;

		if (def->orderClause == NIL && def->refname == NULL && (def->frameOptions & FRAMEOPTION_START_OFFSET_PRECEDING))
		{
			SortBy	   *by = makeNode(SortBy);

			by->node = kda_words_rowtime(words, -1);
			by->location = -1;
			def->orderClause = list_make1(by);
		}
		return false;
	}
	if (IsA(node, FuncCall) && ((FuncCall *) node)->over)
		order_by_time_walker((Node *) ((FuncCall *) node)->over, words);
	return raw_expression_tree_walker(node, order_by_time_walker, words);
}

void
kda_split_order_by_time(Node *raw, KdaWordContext *words)
{
	(void) order_by_time_walker(raw, words);
}

/* Is the expression the record's time? */
static bool
is_record_time(KdaSplit *split, Node *expr, AttrNumber rowtime_attno)
{
	if (IsA(expr, Var))
		return ((Var *) expr)->varno == split->row_rti && ((Var *) expr)->varlevelsup == 0 && rowtime_attno > 0 &&
			((Var *) expr)->varattno == rowtime_attno;
	return IsA(expr, FuncExpr) && list_length(((FuncExpr *) expr)->args) == 1 &&
		equal(linitial(((FuncExpr *) expr)->args), kda_split_ctid(split));
}

typedef struct WindowFuncContext
{
	Query	   *query;
	bool		looks_beyond;	/* a function that does not keep to its frame */
} WindowFuncContext;

static bool
window_func_walker(Node *node, void *arg)
{
	WindowFuncContext *cxt = arg;

	if (node == NULL)
		return false;
	if (IsA(node, WindowFunc))
	{
		WindowFunc *func = (WindowFunc *) node;
		WindowClause *wc = list_nth_node(WindowClause, cxt->query->windowClause, func->winref - 1);

		if (func->winagg || func->winfnoid == F_FIRST_VALUE || func->winfnoid == F_LAST_VALUE || func->winfnoid == F_NTH_VALUE)
			return false;
		/* lag looks so many rows back: they are kept if the frame is counted in rows */
		if ((func->winfnoid == F_LAG_ANYELEMENT || func->winfnoid == F_LAG_ANYELEMENT_INT4 ||
			 func->winfnoid == F_LAG_ANYCOMPATIBLE_INT4_ANYCOMPATIBLE) && (wc->frameOptions & FRAMEOPTION_ROWS) &&
			IsA(wc->startOffset, Const))
		{
			Node	   *by = list_length(func->args) > 1 ? lsecond(func->args) : NULL;
			int			n = by == NULL ? 1 : IsA(by, Const) && !((Const *) by)->constisnull ? DatumGetInt32(((Const *) by)->constvalue) : -1;

			if (n >= 0 && n <= DatumGetInt64(((Const *) wc->startOffset)->constvalue))
				return false;
		}
		cxt->looks_beyond = true;
		return false;
	}
	return expression_tree_walker(node, window_func_walker, cxt);
}

static bool
is_zero_interval(const Const *offset)
{
	Interval   *iv;

	if (offset->consttype != INTERVALOID)
		return false;
	iv = DatumGetIntervalP(offset->constvalue);
	return iv->time == 0 && iv->day == 0 && iv->month == 0;
}

/*
 * Are all windows of OVER ordered by time, and do they end at the row itself
 * or before it and begin at a bounded distance?  Then each record's row is final as soon as
 * the watermark has reached it.
 */
bool
kda_split_slides_by_row(KdaSplit *split)
{
	Query	   *query = split->user;
	AttrNumber	rowtime = split->row_attno < 0 ? kda_stream_options_get(split->stream)->rowtime_attno : 0;
	WindowFuncContext cxt = {query, false};
	ListCell   *lc;

	if (!query->hasWindowFuncs || query->distinctClause || query->sortClause || query->limitCount || query->limitOffset ||
		query->hasTargetSRFs || split->depth > 0)
		return false;
	foreach(lc, query->windowClause)
	{
		WindowClause *wc = lfirst_node(WindowClause, lc);
		SortGroupClause *by;
		bool		reverse;
		Oid			opfamily,
					optype;

		if (list_length(wc->orderClause) != 1 || !(wc->frameOptions & FRAMEOPTION_START_OFFSET_PRECEDING) ||
			!(wc->frameOptions & (FRAMEOPTION_END_CURRENT_ROW | FRAMEOPTION_END_OFFSET_PRECEDING)) || !(wc->frameOptions & (FRAMEOPTION_RANGE | FRAMEOPTION_ROWS)) ||
			(wc->frameOptions & FRAMEOPTION_EXCLUSION))
			return false;
		wc->startOffset = eval_const_expressions(NULL, wc->startOffset);
		if (!IsA(wc->startOffset, Const) || ((Const *) wc->startOffset)->constisnull)
			return false;
		if (wc->endOffset)
		{
			wc->endOffset = eval_const_expressions(NULL, wc->endOffset);
			if (!IsA(wc->endOffset, Const) || ((Const *) wc->endOffset)->constisnull)
				return false;
			/* a row sees none of its own time that came later */
			if ((wc->frameOptions & FRAMEOPTION_RANGE) && is_zero_interval((Const *) wc->endOffset))
			{
				wc->frameOptions &= ~FRAMEOPTION_END_OFFSET_PRECEDING;
				wc->frameOptions |= FRAMEOPTION_END_CURRENT_ROW;
				wc->endOffset = NULL;
				wc->endInRangeFunc = InvalidOid;
			}
		}
		by = linitial_node(SortGroupClause, wc->orderClause);
		if (!is_record_time(split, (Node *) get_sortgroupclause_tle(by, query->targetList)->expr, rowtime))
			return false;
		if (!kda_ordering_op(by->sortop, &opfamily, &optype, &reverse) || reverse)
			return false;
	}
	window_func_walker((Node *) query->targetList, &cxt);
	return !cxt.looks_beyond;
}

/*
 * The last of the select list is not the user's: the time of the rows that
 * leave, as timestamptz.
 */
void
kda_split_take_time(KdaSplit *split, ParseState *pstate)
{
	TargetEntry *tle = llast_node(TargetEntry, split->user->targetList);
	Oid			type = getBaseType(exprType((Node *) tle->expr));

	split->user->targetList = list_truncate(split->user->targetList, list_length(split->user->targetList) - 1);
	split->time = (Node *) tle->expr;
	if (type == TIMESTAMPOID)
		split->time = (Node *) makeFuncExpr(F_TIMEZONE_TEXT_TIMESTAMP, TIMESTAMPTZOID,
											list_make2(kda_text_const(kda_stream_options_get(split->stream)->time_zone), split->time),
											InvalidOid, DEFAULT_COLLATION_OID, COERCE_EXPLICIT_CALL);
	else if (type != TIMESTAMPTZOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("ORDER BY ... WITHIN sorts by time, not by type %s", format_type_be(exprType((Node *) tle->expr))),
				 errhint("Its first expression is the stream's time, or of type timestamptz or timestamp."),
				 parser_errposition(pstate, exprLocation((Node *) tle->expr))));
}

/* ORDER BY … WITHIN: the first key is the record's time (sort_within.c has made it so). */
void
kda_split_check_sorted(KdaSplit *split)
{
	AttrNumber	rowtime = split->row_attno < 0 ? kda_stream_options_get(split->stream)->rowtime_attno : 0;
	SortGroupClause *by = linitial_node(SortGroupClause, split->user->sortClause);
	ListCell   *lc;

	if (split->depth > 0 || split->user->hasWindowFuncs ||
		!is_record_time(split, (Node *) get_sortgroupclause_tle(by, split->user->targetList)->expr, rowtime))
		elog(ERROR, "a sorted query is not sorted by the time of its records");
	rowtime = kda_stream_options_get(split->stream)->rowtime_attno;
	foreach(lc, split->user->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Var		   *var = (Var *) tle->expr;

		if (!tle->resjunk && IsA(var, Var) && var->varno == split->row_rti && var->varlevelsup == 0 &&
			split->row_attno < 0 && rowtime > 0 && var->varattno == rowtime && split->sorted_by == NULL)
			split->sorted_by = tle->resname;
	}
	split->sort_strict = list_length(split->user->sortClause) > 1;
}
