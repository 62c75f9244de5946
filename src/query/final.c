/*-------------------------------------------------------------------------
 *
 * final.c
 *	  kda.final, which turns a stored state into an aggregate's result,
 *	  kda.merge, which does so with several, and kda.state, the type of states that have no SQL type of their own.
 *
 * Views of final parts call kda.final, so it runs with the rights of whoever
 * reads the view.  Deserialize functions believe their input: therefore
 * kda.state takes no bytes from users, carries its aggregate's signature as a
 * CRC, and EXECUTE on the aggregate is checked.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "parser/parse_agg.h"
#include "query/agg_signature.h"
#include "query/groups.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/* How to get from states to the result of one aggregate; for the life of a call site. */
typedef struct Final
{
	char	   *signature;
	uint32		crc;
	Oid			transtype;
	bool		internal;
	FunctionCallInfo final;		/* NULL: the state is the result */
	FunctionCallInfo deserial;
	FunctionCallInfo combine;	/* … also makes a state of what deserial gives */
	int16		len;			/* of the transition type */
	bool		byval;
	AggState   *aggstate;
	ExprContext *aggcontext;
} Final;

static FunctionCallInfo
make_call(MemoryContext context, Oid function, int nargs, Oid collation, AggState *aggstate, Expr *expr)
{
	FmgrInfo   *flinfo = MemoryContextAllocZero(context, sizeof(FmgrInfo));
	FunctionCallInfo fcinfo = MemoryContextAllocZero(context, SizeForFunctionCallInfo(nargs));

	fmgr_info_cxt(function, flinfo, context);
	fmgr_info_set_expr((Node *) expr, flinfo);
	InitFunctionCallInfoData(*fcinfo, flinfo, nargs, collation, (Node *) aggstate, NULL);
	return fcinfo;
}

static Final *
prepare(FunctionCallInfo fcinfo, const char *signature, Oid result, Oid state_type)
{
	MemoryContext context = fcinfo->flinfo->fn_mcxt;
	Final	   *f = MemoryContextAllocZero(context, sizeof(Final));
	KdaAggIdentity id;
	HeapTuple	tuple;
	Form_pg_aggregate form;
	MemoryContext old = MemoryContextSwitchTo(context);
	Expr	   *expr;
	Oid			stored_type;

	kda_agg_identify(signature, &id);
#if PG_VERSION_NUM >= 160000
	if (object_aclcheck(ProcedureRelationId, id.aggfnoid, GetUserId(), ACL_EXECUTE) != ACLCHECK_OK)
#else
	if (pg_proc_aclcheck(id.aggfnoid, GetUserId(), ACL_EXECUTE) != ACLCHECK_OK)
#endif
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_AGGREGATE, get_func_name(id.aggfnoid));

	f->signature = pstrdup(signature);
	f->crc = kda_agg_signature_crc(signature);
	f->transtype = kda_agg_transtype(id.aggfnoid, id.argtypes, id.nargs);
	f->internal = f->transtype == INTERNALOID;
	get_typlenbyval(f->transtype, &f->len, &f->byval);
	stored_type = f->internal ? GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("state"),
						ObjectIdGetDatum(get_namespace_oid(KDA_SCHEMA, false))) : f->transtype;
	if (getBaseType(state_type) != getBaseType(stored_type))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("a state of %s is of type %s, not %s", signature,
						format_type_be(stored_type), format_type_be(state_type))));
	f->aggstate = kda_fake_aggstate(context, &f->aggcontext);
	f->aggcontext->ecxt_per_tuple_memory = AllocSetContextCreate(context, "kda.final", ALLOCSET_DEFAULT_SIZES);

	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(id.aggfnoid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", id.aggfnoid);
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	if (OidIsValid(form->aggfinalfn))
	{
		int			nargs = form->aggfinalextra ? id.nargs + 1 : 1;

		if (getBaseType(get_func_rettype(form->aggfinalfn)) != getBaseType(result) &&
			!IsPolymorphicType(get_func_rettype(form->aggfinalfn)))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("the result of %s is of type %s, not %s", signature,
							format_type_be(get_func_rettype(form->aggfinalfn)), format_type_be(result))));
		build_aggregate_finalfn_expr(id.argtypes, nargs, f->transtype, result, fcinfo->fncollation,
									 form->aggfinalfn, &expr);
		f->final = make_call(context, form->aggfinalfn, nargs, fcinfo->fncollation, f->aggstate, expr);
	}
	else if (f->internal || f->transtype != result)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the result of %s is of type %s, not %s", signature,
						format_type_be(f->transtype), format_type_be(result))));
	if (f->internal)
	{
		build_aggregate_deserialfn_expr(form->aggdeserialfn, &expr);
		f->deserial = make_call(context, form->aggdeserialfn, 2, InvalidOid, f->aggstate, expr);
	}
	if (OidIsValid(form->aggcombinefn))
	{
		Expr	   *inverse;

		build_aggregate_transfn_expr(&f->transtype, 1, 0, false, f->transtype, fcinfo->fncollation,
									 form->aggcombinefn, InvalidOid, &expr, &inverse);
		f->combine = make_call(context, form->aggcombinefn, 2, fcinfo->fncollation, f->aggstate, expr);
	}
	ReleaseSysCache(tuple);
	MemoryContextSwitchTo(old);
	return f;
}

/* A stored state as the aggregate's own functions know it; in the current context. */
static Datum
open_state(Final *f, Datum stored, bool *isnull)
{
	if (!f->internal || *isnull)
		return stored;
	f->deserial->args[0].value = PointerGetDatum(kda_state_open(stored, f->crc, f->signature));
	f->deserial->args[0].isnull = false;
	f->deserial->args[1].value = (Datum) 0;
	f->deserial->args[1].isnull = true;
	f->deserial->isnull = false;
	stored = FunctionCallInvoke(f->deserial);
	*isnull = f->deserial->isnull;
	return stored;
}

/* What a deserialize function gives is good for the right side of the combine function only. */
static Datum
combine_with_nothing(Final *f, Datum state, bool *isnull)
{
	if (!f->internal || *isnull)
		return state;
	f->combine->args[0].value = (Datum) 0;
	f->combine->args[0].isnull = true;
	f->combine->args[1].value = state;
	f->combine->args[1].isnull = false;
	f->combine->isnull = false;
	state = FunctionCallInvoke(f->combine);
	*isnull = f->combine->isnull;
	return state;
}

/* The final function; in the current context. */
static Datum
finish(Final *f, Datum state, bool *isnull)
{
	Datum		result;

	if (f->final == NULL)
		return state;
	if (f->final->flinfo->fn_strict && (*isnull || f->final->nargs > 1))
	{
		*isnull = true;
		return (Datum) 0;
	}
	f->final->args[0].value = state;
	f->final->args[0].isnull = *isnull;
	for (int i = 1; i < f->final->nargs; i++)
	{
		f->final->args[i].value = (Datum) 0;
		f->final->args[i].isnull = true;
	}
	f->final->isnull = false;
	result = FunctionCallInvoke(f->final);
	*isnull = f->final->isnull;
	return result;
}

PG_FUNCTION_INFO_V1(kda_final);

/* kda.final(signature text, state "any", NULL::result type) → result */
Datum
kda_final(PG_FUNCTION_ARGS)
{
	Final	   *f = fcinfo->flinfo->fn_extra;
	Datum		state = PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1);
	bool		isnull = PG_ARGISNULL(1);
	MemoryContext old;
	Datum		result;
	int16		len;
	bool		byval;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (f == NULL)
		f = fcinfo->flinfo->fn_extra = prepare(fcinfo, text_to_cstring(PG_GETARG_TEXT_PP(0)),
											   get_fn_expr_rettype(fcinfo->flinfo),
											   get_fn_expr_argtype(fcinfo->flinfo, 1));
	if (f->final == NULL)
	{
		if (isnull)
			PG_RETURN_NULL();
		PG_RETURN_DATUM(state);
	}
	MemoryContextReset(f->aggcontext->ecxt_per_tuple_memory);
	old = MemoryContextSwitchTo(f->aggcontext->ecxt_per_tuple_memory);
	/* final functions may rely on a state of their own: give them a copy */
	if (!f->internal && !isnull)
		state = datumCopy(state, f->byval, f->len);
	state = open_state(f, state, &isnull);
	state = combine_with_nothing(f, state, &isnull);
	result = finish(f, state, &isnull);
	MemoryContextSwitchTo(old);
	if (isnull)
		PG_RETURN_NULL();
	get_typlenbyval(get_fn_expr_rettype(fcinfo->flinfo), &len, &byval);
	PG_RETURN_DATUM(datumCopy(result, byval, len));
}

/*---- kda.merge: several states, as core's combine step does it */

typedef struct Merge
{
	Final	   *f;
	MemoryContext context;		/* of the group */
	Datum		state;
	bool		isnull;
	bool		any;			/* a state has come */
} Merge;

PG_FUNCTION_INFO_V1(kda_merge_step);

/* (internal, signature text, state "any", NULL::result type) → internal */
Datum
kda_merge_step(PG_FUNCTION_ARGS)
{
	MemoryContext context;
	Merge	   *m = PG_ARGISNULL(0) ? NULL : (Merge *) PG_GETARG_POINTER(0);
	Final	   *f;
	Datum		other = PG_ARGISNULL(2) ? (Datum) 0 : PG_GETARG_DATUM(2);
	bool		other_null = PG_ARGISNULL(2);
	MemoryContext old;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "kda.merge called outside an aggregate");
	if (fcinfo->flinfo->fn_extra == NULL)
	{
		if (PG_ARGISNULL(1))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("the aggregate of kda.merge must not be null")));
		fcinfo->flinfo->fn_extra = prepare(fcinfo, text_to_cstring(PG_GETARG_TEXT_PP(1)),
										   get_fn_expr_argtype(fcinfo->flinfo, 3),
										   get_fn_expr_argtype(fcinfo->flinfo, 2));
	}
	f = fcinfo->flinfo->fn_extra;
	if (f->combine == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("states of %s cannot be combined", f->signature)));
	if (m == NULL)
	{
		m = MemoryContextAllocZero(context, sizeof(Merge));
		m->context = AllocSetContextCreate(context, "kda.merge", ALLOCSET_SMALL_SIZES);
		m->f = f;
		m->isnull = true;
	}
	f->aggcontext->ecxt_per_tuple_memory = m->context;
	old = MemoryContextSwitchTo(m->context);
	if (!f->internal && !other_null)
		other = datumCopy(other, f->byval, f->len);
	other = open_state(f, other, &other_null);
	if (!m->any || (f->combine->flinfo->fn_strict && m->isnull))
	{
		m->state = combine_with_nothing(f, other, &other_null);
		m->isnull = other_null;
	}
	else if (!(f->combine->flinfo->fn_strict && other_null))
	{
		f->combine->args[0].value = m->state;
		f->combine->args[0].isnull = m->isnull;
		f->combine->args[1].value = other;
		f->combine->args[1].isnull = other_null;
		f->combine->isnull = false;
		m->state = FunctionCallInvoke(f->combine);
		m->isnull = f->combine->isnull;
	}
	m->any = true;
	MemoryContextSwitchTo(old);
	PG_RETURN_POINTER(m);
}

PG_FUNCTION_INFO_V1(kda_merge_final);

Datum
kda_merge_final(PG_FUNCTION_ARGS)
{
	Merge	   *m = PG_ARGISNULL(0) ? NULL : (Merge *) PG_GETARG_POINTER(0);
	MemoryContext old;
	Datum		result;
	bool		isnull;

	if (!AggCheckCallContext(fcinfo, NULL))
		elog(ERROR, "kda.merge called outside an aggregate");
	if (m == NULL)
		PG_RETURN_NULL();
	isnull = m->isnull;
	m->f->aggcontext->ecxt_per_tuple_memory = m->context;
	old = MemoryContextSwitchTo(m->context);
	result = finish(m->f, m->state, &isnull);
	MemoryContextSwitchTo(old);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}

/*---- kda.state: CRC of the signature, then what the serialize function gave */

Datum
kda_state_make(uint32 crc, bytea *serialized)
{
	Size		len = VARSIZE_ANY_EXHDR(serialized);
	struct varlena *state = palloc(VARHDRSZ + sizeof(crc) + len);

	SET_VARSIZE(state, VARHDRSZ + sizeof(crc) + len);
	memcpy(VARDATA(state), &crc, sizeof(crc));
	memcpy(VARDATA(state) + sizeof(crc), VARDATA_ANY(serialized), len);
	return PointerGetDatum(state);
}

bytea *
kda_state_open(Datum stored, uint32 crc, const char *signature)
{
	struct varlena *state = PG_DETOAST_DATUM_PACKED(stored);
	Size		len = VARSIZE_ANY_EXHDR(state);
	uint32		have = 0;
	bytea	   *bytes;

	if (len >= sizeof(have))
		memcpy(&have, VARDATA_ANY(state), sizeof(have));
	if (len < sizeof(have) || have != crc)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the state is not one of %s", signature)));
	len -= sizeof(have);
	bytes = palloc(VARHDRSZ + len);
	SET_VARSIZE(bytes, VARHDRSZ + len);
	memcpy(VARDATA(bytes), VARDATA_ANY(state) + sizeof(have), len);
	return bytes;
}

static void
refuse_users(void)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only superusers may give a value of type kda.state"),
				 errdetail("Such values are made by continuous queries; functions believe what they hold.")));
}

PG_FUNCTION_INFO_V1(kda_state_in);
Datum
kda_state_in(PG_FUNCTION_ARGS)
{
	refuse_users();
	return DirectFunctionCall1(byteain, PG_GETARG_DATUM(0));
}

PG_FUNCTION_INFO_V1(kda_state_out);
Datum
kda_state_out(PG_FUNCTION_ARGS)
{
	/* always hex, whatever bytea_output says: a dump must not depend on it */
	struct varlena *state = PG_GETARG_VARLENA_PP(0);
	Size		len = VARSIZE_ANY_EXHDR(state);
	char	   *text = palloc(len * 2 + 3);

	text[0] = '\\';
	text[1] = 'x';
	hex_encode(VARDATA_ANY(state), len, text + 2);
	text[len * 2 + 2] = '\0';
	PG_RETURN_CSTRING(text);
}

PG_FUNCTION_INFO_V1(kda_state_recv);
Datum
kda_state_recv(PG_FUNCTION_ARGS)
{
	refuse_users();
	return DirectFunctionCall1(bytearecv, PG_GETARG_DATUM(0));
}

PG_FUNCTION_INFO_V1(kda_state_send);
Datum
kda_state_send(PG_FUNCTION_ARGS)
{
	return DirectFunctionCall1(byteasend, PG_GETARG_DATUM(0));
}
