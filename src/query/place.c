/*-------------------------------------------------------------------------
 *
 * place.c
 *	  kda.place: where a record stands in its stream, by its time and then by
 *	  the order of arrival.
 *
 * The windows of OVER (… RANGE INTERVAL … PRECEDING) are ordered by it.  A row
 * then sees no later-arriving row of its own time, as no two places are peers;
 * yet the distance of RANGE is measured in time alone, so that all records of
 * the first instant are included.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

typedef struct Place
{
	TimestampTz time;
	int64		arrived;
} Place;

#define PLACE(n)	((Place *) PG_GETARG_POINTER(n))

static inline int
compare(const Place *a, const Place *b)
{
	if (a->time != b->time)
		return a->time < b->time ? -1 : 1;
	return a->arrived < b->arrived ? -1 : a->arrived > b->arrived;
}

PG_FUNCTION_INFO_V1(kda_place_in);
Datum
kda_place_in(PG_FUNCTION_ARGS)
{
	const char *text = PG_GETARG_CSTRING(0);
	long long	time,
				arrived;
	char		rest;
	Place	   *p;

	if (sscanf(text, "%lld/%lld%c", &time, &arrived, &rest) != 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid input syntax for type %s: \"%s\"", "kda.place", text)));
	p = palloc(sizeof(Place));
	p->time = time;
	p->arrived = arrived;
	PG_RETURN_POINTER(p);
}

PG_FUNCTION_INFO_V1(kda_place_out);
Datum
kda_place_out(PG_FUNCTION_ARGS)
{
	Place	   *p = PLACE(0);

	PG_RETURN_CSTRING(psprintf(INT64_FORMAT "/" INT64_FORMAT, p->time, p->arrived));
}

PG_FUNCTION_INFO_V1(kda_place_make);

/* kda.place(timestamptz, bigint) */
Datum
kda_place_make(PG_FUNCTION_ARGS)
{
	Place	   *p = palloc(sizeof(Place));

	p->time = PG_GETARG_TIMESTAMPTZ(0);
	p->arrived = PG_GETARG_INT64(1);
	PG_RETURN_POINTER(p);
}

#define COMPARISON(name, op) \
PG_FUNCTION_INFO_V1(name); \
Datum \
name(PG_FUNCTION_ARGS) \
{ \
	PG_RETURN_BOOL(compare(PLACE(0), PLACE(1)) op 0); \
} \
extern int no_such_variable

COMPARISON(kda_place_lt, <);
COMPARISON(kda_place_le, <=);
COMPARISON(kda_place_eq, ==);
COMPARISON(kda_place_ge, >=);
COMPARISON(kda_place_gt, >);
COMPARISON(kda_place_ne, !=);

PG_FUNCTION_INFO_V1(kda_place_cmp);
Datum
kda_place_cmp(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(compare(PLACE(0), PLACE(1)));
}

PG_FUNCTION_INFO_V1(kda_place_in_range);

/* in_range support: value within base ± interval, by time alone */
Datum
kda_place_in_range(PG_FUNCTION_ARGS)
{
	Place	   *value = PLACE(0);
	Place	   *base = PLACE(1);
	bool		sub = PG_GETARG_BOOL(3);
	bool		less = PG_GETARG_BOOL(4);
	TimestampTz bound;

	bound = DatumGetTimestampTz(DirectFunctionCall2(sub ? timestamptz_mi_interval : timestamptz_pl_interval,
													TimestampTzGetDatum(base->time), PG_GETARG_DATUM(2)));
	PG_RETURN_BOOL(less ? value->time <= bound : value->time >= bound);
}
