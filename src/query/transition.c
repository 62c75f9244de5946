/*-------------------------------------------------------------------------
 *
 * transition.c
 *	  One input row more in an aggregate's state: through its transition
 *	  function, as core's executor would, or directly where the function is a
 *	  built-in one over values that fit into a Datum.
 *
 * In a pipeline worker only.  A direct transition gives what the function
 * gives, its errors included.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "query/groups.h"
#include "utils/array.h"
#include "utils/date.h"
#include "utils/expandeddatum.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*---- through the function */

/* What a function has made of a state takes its place; its memory is the bucket's. */
static void
replace_state(KdaAggSpec *spec, MemoryContext bucket, Datum *value, bool *isnull, Datum result, bool result_null)
{
	if (!spec->byval && DatumGetPointer(result) != DatumGetPointer(*value))
	{
		Datum		was = *value;
		bool		was_null = *isnull;

		if (!result_null)
		{
			MemoryContext old = MemoryContextSwitchTo(bucket);

			if (!(DatumIsReadWriteExpandedObject(result, false, spec->len) &&
				  MemoryContextGetParent(DatumGetEOHP(result)->eoh_context) == bucket))
				result = kda_copy_value(result, spec->byval, spec->len);
			MemoryContextSwitchTo(old);
		}
		else
			result = (Datum) 0;
		if (!was_null)
		{
			if (DatumIsReadWriteExpandedObject(was, false, spec->len))
				DeleteExpandedObject(was);
			else
				pfree(DatumGetPointer(was));
		}
	}
	*value = result;
	*isnull = result_null;
}

/* As core's advance_transition_function, with the state in the group's bucket. */
static void
call_transition(KdaGroups *groups, KdaGroup *g, KdaAggSpec *spec, Datum *value, bool *isnull,
				const Datum *args, const bool *nulls)
{
	FunctionCallInfo fcinfo = spec->trans;
	MemoryContext bucket = g->bucket->context;
	MemoryContext old;
	Datum		result;

	if (spec->strict)
	{
		for (int i = 0; i < spec->nargs; i++)
			if (nulls[i])
				return;
		if (*isnull)
		{
			/* the first value becomes the state: binary compatible, as core requires */
			if (!spec->init_null)
				return;			/* the state has become NULL for good */
			old = MemoryContextSwitchTo(bucket);
			*value = kda_copy_value(args[0], spec->byval, spec->len);
			*isnull = false;
			MemoryContextSwitchTo(old);
			return;
		}
	}
	groups->aggcontext->ecxt_per_tuple_memory = bucket;
	old = MemoryContextSwitchTo(groups->aggstate->tmpcontext->ecxt_per_tuple_memory);
	fcinfo->args[0].value = *value;
	fcinfo->args[0].isnull = *isnull;
	for (int i = 0; i < spec->nargs; i++)
	{
		fcinfo->args[i + 1].value = args[i];
		fcinfo->args[i + 1].isnull = nulls[i];
	}
	fcinfo->isnull = false;
	result = FunctionCallInvoke(fcinfo);
	replace_state(spec, bucket, value, isnull, result, fcinfo->isnull);
	MemoryContextSwitchTo(old);
}

/* The states of two groups become one: as core's advance_combine_function, with the result in the first one's bucket. */
void
kda_group_combine(KdaGroups *groups, KdaGroup *g, KdaGroup *other, int agg)
{
	KdaAggSpec *spec = &groups->aggs[agg];
	FunctionCallInfo fcinfo = spec->combine;
	int			att = groups->nkeys + agg;
	Datum	   *value = &g->values[att];
	bool	   *isnull = &kda_group_nulls(groups, g)[att];
	bool		other_null = kda_group_nulls(groups, other)[att];
	MemoryContext old;
	Datum		result;

	if (fcinfo->flinfo->fn_strict)
	{
		if (other_null)
			return;
		if (*isnull)
		{
			/* core knows no strict combine functions of internal states */
			old = MemoryContextSwitchTo(g->bucket->context);
			*value = kda_copy_value(other->values[att], spec->byval, spec->len);
			*isnull = false;
			MemoryContextSwitchTo(old);
			return;
		}
	}
	groups->aggcontext->ecxt_per_tuple_memory = g->bucket->context;
	old = MemoryContextSwitchTo(groups->aggstate->tmpcontext->ecxt_per_tuple_memory);
	fcinfo->args[0].value = *value;
	fcinfo->args[0].isnull = *isnull;
	fcinfo->args[1].value = MakeExpandedObjectReadOnly(other->values[att], other_null, spec->len);
	fcinfo->args[1].isnull = other_null;
	fcinfo->isnull = false;
	result = FunctionCallInvoke(fcinfo);
	replace_state(spec, g->bucket->context, value, isnull, result, fcinfo->isnull);
	MemoryContextSwitchTo(old);
}

/*---- directly */

KdaFastAgg
kda_fast_transition(Oid function)
{
	static const struct
	{
		Oid			function;
		KdaFastAgg	fast;
	}			known[] = {
		{F_INT8INC, KDA_FAST_COUNT},
		{F_INT8INC_ANY, KDA_FAST_COUNT},
		{F_INT4_SUM, KDA_FAST_SUM_INT4},
		{F_INT2_SUM, KDA_FAST_SUM_INT2},
		{F_INT4_AVG_ACCUM, KDA_FAST_AVG_INT4},
		{F_INT2_AVG_ACCUM, KDA_FAST_AVG_INT2},
		{F_FLOAT8PL, KDA_FAST_SUM_FLOAT8},
		{F_FLOAT4PL, KDA_FAST_SUM_FLOAT4},
		{F_INT2SMALLER, KDA_FAST_MIN_INT2},
		{F_INT2LARGER, KDA_FAST_MAX_INT2},
		{F_INT4SMALLER, KDA_FAST_MIN_INT4},
		{F_INT4LARGER, KDA_FAST_MAX_INT4},
		{F_DATE_SMALLER, KDA_FAST_MIN_INT4},
		{F_DATE_LARGER, KDA_FAST_MAX_INT4},
		{F_INT8SMALLER, KDA_FAST_MIN_INT8},
		{F_INT8LARGER, KDA_FAST_MAX_INT8},
		{F_TIME_SMALLER, KDA_FAST_MIN_INT8},
		{F_TIME_LARGER, KDA_FAST_MAX_INT8},
		{F_TIMESTAMP_SMALLER, KDA_FAST_MIN_INT8},
		{F_TIMESTAMP_LARGER, KDA_FAST_MAX_INT8},
		{F_TIMESTAMPTZ_SMALLER, KDA_FAST_MIN_INT8},
		{F_TIMESTAMPTZ_LARGER, KDA_FAST_MAX_INT8},
		{F_FLOAT8SMALLER, KDA_FAST_MIN_FLOAT8},
		{F_FLOAT8LARGER, KDA_FAST_MAX_FLOAT8},
		{F_BOOLAND_STATEFUNC, KDA_FAST_BOOL_AND},
		{F_BOOLOR_STATEFUNC, KDA_FAST_BOOL_OR},
	};

	for (int i = 0; i < lengthof(known); i++)
		if (known[i].function == function)
			return known[i].fast;
	return KDA_FAST_NONE;
}

/* The two numbers inside a state of avg(int2), avg(int4). */
static inline void
add_to_average(Datum state, int64 add)
{
	ArrayType  *array = (ArrayType *) DatumGetPointer(state);
	int64	   *pair = (int64 *) ARR_DATA_PTR(array);

	if (unlikely(ARR_HASNULL(array) || VARSIZE(array) != ARR_OVERHEAD_NONULLS(1) + 2 * sizeof(int64)))
		elog(ERROR, "expected 2-element int8 array");
	pair[0]++;
	pair[1] += add;
}

/*
 * A value that is not NULL.  Where the first one becomes the state (a strict
 * function without initial value) that needs nothing of its own.
 */
static pg_attribute_always_inline void
step(const KdaFastAgg fast, const KdaAggSpec *spec, Datum *value, bool *isnull, Datum arg)
{
	if (fast == KDA_FAST_COUNT)
	{
		*value = Int64GetDatum(DatumGetInt64(*value) + 1);
		return;
	}
	if (fast == KDA_FAST_SUM_INT4 || fast == KDA_FAST_SUM_INT2)
	{
		int64		add = fast == KDA_FAST_SUM_INT4 ? DatumGetInt32(arg) : DatumGetInt16(arg);

		/* core's int4_sum does not check for overflow either: 2^32 rows are needed */
		*value = Int64GetDatum(*isnull ? add : DatumGetInt64(*value) + add);
		*isnull = false;
		return;
	}
	if (unlikely(*isnull))
	{
		if (spec->init_null && fast != KDA_FAST_AVG_INT4 && fast != KDA_FAST_AVG_INT2)
		{
			*value = arg;
			*isnull = false;
		}
		return;
	}

#define KEEP_IF(condition)	do { if (condition) *value = arg; } while (0)
	switch (fast)
	{
		case KDA_FAST_AVG_INT4:
			add_to_average(*value, DatumGetInt32(arg));
			break;
		case KDA_FAST_AVG_INT2:
			add_to_average(*value, DatumGetInt16(arg));
			break;
		case KDA_FAST_SUM_FLOAT8:
			*value = Float8GetDatum(float8_pl(DatumGetFloat8(*value), DatumGetFloat8(arg)));
			break;
		case KDA_FAST_SUM_FLOAT4:
			*value = Float4GetDatum(float4_pl(DatumGetFloat4(*value), DatumGetFloat4(arg)));
			break;
		case KDA_FAST_MIN_INT2:
			KEEP_IF(DatumGetInt16(arg) < DatumGetInt16(*value));
			break;
		case KDA_FAST_MAX_INT2:
			KEEP_IF(DatumGetInt16(arg) > DatumGetInt16(*value));
			break;
		case KDA_FAST_MIN_INT4:
			KEEP_IF(DatumGetInt32(arg) < DatumGetInt32(*value));
			break;
		case KDA_FAST_MAX_INT4:
			KEEP_IF(DatumGetInt32(arg) > DatumGetInt32(*value));
			break;
		case KDA_FAST_MIN_INT8:
			KEEP_IF(DatumGetInt64(arg) < DatumGetInt64(*value));
			break;
		case KDA_FAST_MAX_INT8:
			KEEP_IF(DatumGetInt64(arg) > DatumGetInt64(*value));
			break;
		case KDA_FAST_MIN_FLOAT8:
			/* of equal ones (0 and -0) core keeps the newcomer */
			KEEP_IF(!float8_lt(DatumGetFloat8(*value), DatumGetFloat8(arg)));
			break;
		case KDA_FAST_MAX_FLOAT8:
			KEEP_IF(!float8_gt(DatumGetFloat8(*value), DatumGetFloat8(arg)));
			break;
		case KDA_FAST_BOOL_AND:
			*value = BoolGetDatum(DatumGetBool(*value) && DatumGetBool(arg));
			break;
		case KDA_FAST_BOOL_OR:
			*value = BoolGetDatum(DatumGetBool(*value) || DatumGetBool(arg));
			break;
		default:
			break;
	}
#undef KEEP_IF
}

static pg_attribute_always_inline void
advance_rows(const KdaFastAgg fast, KdaGroups *groups, int agg, KdaGroup *const *list, const int *rows, int n,
			 const Datum *values, const bool *nulls)
{
	const KdaAggSpec *spec = &groups->aggs[agg];
	int			at = groups->nkeys + agg;

	for (int i = 0; i < n; i++)
	{
		int			row = rows[i];

		if (nulls && nulls[row])
			continue;
		step(fast, spec, &list[i]->values[at], &kda_group_nulls(groups, list[i])[at], values ? values[row] : (Datum) 0);
	}
}

/* Calls function with fast as a constant, so that each kind gets a loop of its own. */
#define FOR_EACH_KIND(function, ...) \
	case KDA_FAST_COUNT: function(KDA_FAST_COUNT, __VA_ARGS__); break; \
	case KDA_FAST_SUM_INT4: function(KDA_FAST_SUM_INT4, __VA_ARGS__); break; \
	case KDA_FAST_SUM_INT2: function(KDA_FAST_SUM_INT2, __VA_ARGS__); break; \
	case KDA_FAST_AVG_INT4: function(KDA_FAST_AVG_INT4, __VA_ARGS__); break; \
	case KDA_FAST_AVG_INT2: function(KDA_FAST_AVG_INT2, __VA_ARGS__); break; \
	case KDA_FAST_SUM_FLOAT8: function(KDA_FAST_SUM_FLOAT8, __VA_ARGS__); break; \
	case KDA_FAST_SUM_FLOAT4: function(KDA_FAST_SUM_FLOAT4, __VA_ARGS__); break; \
	case KDA_FAST_MIN_INT2: function(KDA_FAST_MIN_INT2, __VA_ARGS__); break; \
	case KDA_FAST_MAX_INT2: function(KDA_FAST_MAX_INT2, __VA_ARGS__); break; \
	case KDA_FAST_MIN_INT4: function(KDA_FAST_MIN_INT4, __VA_ARGS__); break; \
	case KDA_FAST_MAX_INT4: function(KDA_FAST_MAX_INT4, __VA_ARGS__); break; \
	case KDA_FAST_MIN_INT8: function(KDA_FAST_MIN_INT8, __VA_ARGS__); break; \
	case KDA_FAST_MAX_INT8: function(KDA_FAST_MAX_INT8, __VA_ARGS__); break; \
	case KDA_FAST_MIN_FLOAT8: function(KDA_FAST_MIN_FLOAT8, __VA_ARGS__); break; \
	case KDA_FAST_MAX_FLOAT8: function(KDA_FAST_MAX_FLOAT8, __VA_ARGS__); break; \
	case KDA_FAST_BOOL_AND: function(KDA_FAST_BOOL_AND, __VA_ARGS__); break; \
	case KDA_FAST_BOOL_OR: function(KDA_FAST_BOOL_OR, __VA_ARGS__); break

void
kda_groups_advance_rows(KdaGroups *groups, int agg, KdaGroup *const *list, const int *rows, int n,
						const Datum *values, const bool *nulls)
{
	switch (groups->aggs[agg].fast)
	{
		case KDA_FAST_NONE:
			elog(ERROR, "an aggregate without direct transition");
			break;
		FOR_EACH_KIND(advance_rows, groups, agg, list, rows, n, values, nulls);
	}
}

void
kda_group_advance(KdaGroups *groups, KdaGroup *g, int agg, const Datum *args, const bool *nulls)
{
	KdaAggSpec *spec = &groups->aggs[agg];
	Datum	   *value = &g->values[groups->nkeys + agg];
	bool	   *isnull = &kda_group_nulls(groups, g)[groups->nkeys + agg];

	if (spec->fast != KDA_FAST_NONE && spec->nargs > 0 && nulls[0])
		return;
	switch (spec->fast)
	{
		case KDA_FAST_NONE:
			call_transition(groups, g, spec, value, isnull, args, nulls);
			break;
		FOR_EACH_KIND(step, spec, value, isnull, spec->nargs > 0 ? args[0] : (Datum) 0);
	}
}
