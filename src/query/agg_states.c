/*-------------------------------------------------------------------------
 *
 * agg_states.c
 *	  Partial states of aggregates: what is called for them, and how they are
 *	  stored.  See groups.h.
 *
 * In a pipeline worker only.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "parser/parse_agg.h"
#include "query/agg_signature.h"
#include "query/groups.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

AggState *
kda_fake_aggstate(MemoryContext context, ExprContext **aggcontext)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	AggState   *state = makeNode(AggState);
	ExprContext *tmp = makeNode(ExprContext);

	*aggcontext = makeNode(ExprContext);
	(*aggcontext)->ecxt_per_query_memory = context;
	(*aggcontext)->ecxt_per_tuple_memory = context;
	tmp->ecxt_per_query_memory = context;
	tmp->ecxt_per_tuple_memory = AllocSetContextCreate(context, "kda aggregate temp",
													   ALLOCSET_DEFAULT_SIZES);
	state->curaggcontext = *aggcontext;
	state->tmpcontext = tmp;
	MemoryContextSwitchTo(old);
	return state;
}

void
kda_agg_make(KdaGroups *groups, KdaAggSpec *spec, Aggref *aggref)
{
	HeapTuple	tuple;
	Form_pg_aggregate form;
	Oid			argtypes[FUNC_MAX_ARGS];
	int			nargs = get_aggregate_argtypes(aggref, argtypes);
	Oid			transtype = kda_agg_transtype(aggref->aggfnoid, argtypes, nargs);
	Expr	   *expr,
			   *inv;
	Datum		init_text;
	MemoryContext old = MemoryContextSwitchTo(groups->context);

	spec->aggref = copyObject(aggref);
	spec->signature = kda_agg_signature(aggref);
	spec->crc = kda_agg_signature_crc(spec->signature);
	spec->nargs = list_length(aggref->args);
	get_typlenbyval(transtype, &spec->len, &spec->byval);
	spec->internal = transtype == INTERNALOID;
	groups->any_internal |= spec->internal;

	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggref->aggfnoid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggref->aggfnoid);
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	spec->fast = kda_fast_transition(form->aggtransfn);
	build_aggregate_transfn_expr(argtypes, nargs, 0, aggref->aggvariadic, transtype,
								 aggref->inputcollid, form->aggtransfn, InvalidOid, &expr, &inv);
	spec->trans = kda_make_call(groups->context, form->aggtransfn, nargs + 1, aggref->inputcollid,
							(Node *) groups->aggstate, (Node *) expr);
	spec->strict = spec->trans->flinfo->fn_strict;
	if (groups->sessions || spec->internal)
	{
		build_aggregate_transfn_expr(&transtype, 1, 0, false, transtype, aggref->inputcollid, form->aggcombinefn,
									 InvalidOid, &expr, NULL);
		spec->combine = kda_make_call(groups->context, form->aggcombinefn, 2, aggref->inputcollid,
								  (Node *) groups->aggstate, (Node *) expr);
	}
	if (spec->internal)
	{
		build_aggregate_serialfn_expr(form->aggserialfn, &expr);
		spec->serial = kda_make_call(groups->context, form->aggserialfn, 1, InvalidOid,
								 (Node *) groups->aggstate, (Node *) expr);
		build_aggregate_deserialfn_expr(form->aggdeserialfn, &expr);
		spec->deserial = kda_make_call(groups->context, form->aggdeserialfn, 2, InvalidOid,
								   (Node *) groups->aggstate, (Node *) expr);
	}
	init_text = SysCacheGetAttr(AGGFNOID, tuple, Anum_pg_aggregate_agginitval, &spec->init_null);
	if (!spec->init_null)
	{
		Oid			input,
					param;

		getTypeInputInfo(transtype, &input, &param);
		spec->init = OidInputFunctionCall(input, TextDatumGetCString(init_text), param, -1);
	}
	ReleaseSysCache(tuple);
	MemoryContextSwitchTo(old);
}

/*---- states on disk */

Datum
kda_agg_store(KdaGroups *groups, KdaAggSpec *spec, Datum value, bool isnull, bool *stored_null)
{
	FunctionCallInfo fcinfo = spec->serial;
	Datum		bytes;

	*stored_null = isnull;
	if (isnull || !spec->internal)
		return value;
	fcinfo->args[0].value = value;
	fcinfo->args[0].isnull = false;
	fcinfo->isnull = false;
	groups->aggcontext->ecxt_per_tuple_memory = CurrentMemoryContext;
	bytes = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
	{
		*stored_null = true;
		return (Datum) 0;
	}
	return kda_state_make(spec->crc, DatumGetByteaPP(bytes));
}

Datum
kda_agg_restore(KdaGroups *groups, KdaAggSpec *spec, Datum stored, bool isnull, MemoryContext context,
				bool *value_null)
{
	FunctionCallInfo fcinfo = spec->deserial;
	MemoryContext old;
	Datum		value;

	*value_null = isnull;
	if (isnull)
		return (Datum) 0;
	if (!spec->internal)
	{
		old = MemoryContextSwitchTo(context);
		if (spec->len == -1 && VARATT_IS_EXTENDED(DatumGetPointer(stored)))
			value = PointerGetDatum(detoast_attr((struct varlena *) DatumGetPointer(stored)));
		else
			value = datumCopy(stored, spec->byval, spec->len);
		MemoryContextSwitchTo(old);
		return value;
	}
	groups->aggcontext->ecxt_per_tuple_memory = groups->restoring;
	old = MemoryContextSwitchTo(groups->restoring);
	fcinfo->args[0].value = PointerGetDatum(kda_state_open(stored, spec->crc, spec->signature));
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = (Datum) 0;
	fcinfo->args[1].isnull = true;
	fcinfo->isnull = false;
	value = FunctionCallInvoke(fcinfo);
	if (!fcinfo->isnull)
	{
		/*
		 * What a deserialize function gives is good for the right side of the
		 * combine function only: numeric_accum() adds no squares to it.
		 */
		FunctionCallInfo combine = spec->combine;

		groups->aggcontext->ecxt_per_tuple_memory = context;
		combine->args[0].value = (Datum) 0;
		combine->args[0].isnull = true;
		combine->args[1].value = value;
		combine->args[1].isnull = false;
		combine->isnull = false;
		value = FunctionCallInvoke(combine);
		*value_null = combine->isnull;
	}
	else
		*value_null = true;
	MemoryContextSwitchTo(old);
	MemoryContextReset(groups->restoring);
	return value;
}
