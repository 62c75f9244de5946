/*-------------------------------------------------------------------------
 *
 * final_pieces.c
 *	  Pieces that final parts are built of.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "catalog/rows.h"
#include "declare/final_part.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parse_func.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "query/agg_signature.h"
#include "rewrite/rewriteManip.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/rel.h"

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

/* SQL of ours as a Query; its names are looked up as the extension's owner. */
Query *
kda_final_analyzed(const char *sql)
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

char *
kda_final_open_name(KdaFinal *f)
{
	return psprintf(KDA_STORAGE_SCHEMA ".%s", quote_identifier(RelationGetRelationName(f->open)));
}

Var *
kda_final_column(KdaFinal *f, AttrNumber attno, Node *like)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(f->open), attno - 1);

	return makeVar(1, attno, att->atttypid, like ? exprTypmod(like) : att->atttypmod, att->attcollation, 0);
}

static Node *
window_end_of(KdaFinal *f, Node *start)
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
bound_of_row(KdaFinal *f, int attno)
{
	AttrNumber	column = KDA_OPEN_FIRST_KEY;

	if (f->split->window == NULL)
		return (Node *) makeNullConst(TIMESTAMPTZOID, -1, InvalidOid);
	if (attno == KDA_FINAL_WINDOW_START)
		return (Node *) kda_final_column(f, column, NULL);
	if (f->split->window->kind == KDA_WINDOW_SESSION)
		column++;
	return window_end_of(f, (Node *) kda_final_column(f, column, NULL));
}

Node *
kda_final_bound(KdaFinal *f, int attno)
{
	if (f->by_row)
	{
		Node	   *bound = bound_of_row(f, attno);

		IncrementVarSublevelsUp(bound, f->window_levels, 0);
		return bound;
	}
	return (Node *) makeVar(f->window_rti, attno == KDA_FINAL_WINDOW_START ? 1 : 2, TIMESTAMPTZOID, -1, InvalidOid,
							f->window_levels);
}

/* Result of an aggregate from its state in the open table. */
static Node *
result_of_state(KdaFinal *f, Aggref *agg, AttrNumber attno)
{
	Var		   *state = kda_final_column(f, attno, NULL);
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
Node *
kda_final_over_open(const KdaKept *kept, void *arg)
{
	KdaFinal   *f = arg;

	if (kept->attno < 0)
		return kda_final_bound(f, kept->attno);
	if (IsA(kept->expr, Aggref))
		return result_of_state(f, (Aggref *) kept->expr, kept->attno);
	return (Node *) kda_final_column(f, kept->attno, kept->expr);
}

/* … and over a subquery that gives them in their order. */
Node *
kda_final_over_subquery(const KdaKept *kept, void *arg)
{
	KdaFinal   *f = arg;
	int			n = 0;
	ListCell   *lc;

	if (kept->attno < 0)
		return kda_final_bound(f, kept->attno);
	foreach(lc, f->split->kept)
	{
		n++;
		if (lfirst(lc) == kept)
			break;
	}
	return (Node *) makeVar(1, n, exprType(kept->expr), exprTypmod(kept->expr), exprCollation(kept->expr), 0);
}

/* The kept expressions, and the columns of the windows. */
List *
kda_final_kept(KdaFinal *f)
{
	List	   *all = list_copy(f->split->kept);

	if (f->split->window)
		for (int i = 1; i <= 2; i++)
		{
			KdaKept    *k = palloc(sizeof(KdaKept));

			k->expr = (Node *) makeVar(f->split->window_rti, i, TIMESTAMPTZOID, -1, InvalidOid, 0);
			k->attno = i == 1 ? KDA_FINAL_WINDOW_START : KDA_FINAL_WINDOW_END;
			all = lappend(all, k);
		}
	return all;
}

/* A Query that selects from one relation. */
Query *
kda_final_select_from(Relation rel)
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

RangeTblEntry *
kda_final_subquery(Query *query, const char *alias, bool lateral)
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

Node *
kda_final_compare(Oid operator, Node *a, Node *b)
{
	return (Node *) make_opclause(operator, BOOLOID, false, (Expr *) a, (Expr *) b, InvalidOid, InvalidOid);
}

Node *
kda_final_and(List *quals)
{
	return quals == NIL ? NULL : list_length(quals) == 1 ? linitial(quals) : (Node *) makeBoolExpr(AND_EXPR, quals, -1);
}

void
kda_final_add_target(Query *query, Node *expr, const char *name)
{
	query->targetList = lappend(query->targetList,
								makeTargetEntry((Expr *) expr, list_length(query->targetList) + 1, pstrdup(name), false));
}
