/*-------------------------------------------------------------------------
 *
 * window.c
 *	  Windows as arithmetic (window.h), and the SQL functions that give their
 *	  bounds.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "stream/window.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

static const char *const kind_names[] = {"tumbling", "sliding", "cumulating", "session", "stagger"};
static const char *const by_bounds_name = "session_bounds";
static const char *const unit_names[] = {"us", "day", "month"};

/*---- text */

char *
kda_window_format(const KdaWindowSpec *spec)
{
	return psprintf("%s %s " INT64_FORMAT " " INT64_FORMAT " " INT64_FORMAT " %s",
					spec->by_bounds ? by_bounds_name : kind_names[spec->kind],
					unit_names[spec->unit], spec->size, spec->slide, spec->offset_us, spec->zone_name);
}

static int
find_name(const char *const *names, int n, const char *value)
{
	for (int i = 0; i < n; i++)
		if (strcmp(names[i], value) == 0)
			return i;
	return -1;
}

static int
find_kind(const char *name, bool *by_bounds)
{
	*by_bounds = strcmp(name, by_bounds_name) == 0;
	return *by_bounds ? KDA_WINDOW_SESSION : find_name(kind_names, lengthof(kind_names), name);
}

void
kda_window_parse(const char *text, KdaWindowSpec *spec)
{
	char		kind[16],
				unit[16];
	long long	size,
				slide,
				offset;
	int			at = 0;

	memset(spec, 0, sizeof(*spec));
	if (sscanf(text, "%15s %15s %lld %lld %lld %n", kind, unit, &size, &slide, &offset, &at) != 5 || at == 0 ||
		strlen(text + at) > TZ_STRLEN_MAX ||
		find_kind(kind, &spec->by_bounds) < 0 || find_name(unit_names, lengthof(unit_names), unit) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid description of windows: \"%s\"", text)));
	spec->kind = find_kind(kind, &spec->by_bounds);
	spec->unit = find_name(unit_names, lengthof(unit_names), unit);
	spec->size = size;
	spec->slide = slide;
	spec->offset_us = offset;
	strlcpy(spec->zone_name, text + at, sizeof(spec->zone_name));
	kda_window_finish(spec);
}

static int64
gcd(int64 a, int64 b)
{
	while (b != 0)
	{
		int64		r = a % b;

		a = b;
		b = r;
	}
	return a;
}

void
kda_window_finish(KdaWindowSpec *spec)
{
	if (spec->size <= 0 || spec->slide <= 0 || (kda_window_is_aligned(spec) && spec->slide > spec->size) ||
		(spec->kind == KDA_WINDOW_CUMULATING && spec->size % spec->slide != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("windows of size " INT64_FORMAT " and slide " INT64_FORMAT " are impossible", spec->size, spec->slide)));
	spec->zone = pg_tzset(spec->zone_name);
	if (spec->zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" not recognized", spec->zone_name)));
	spec->pane = spec->kind == KDA_WINDOW_TUMBLING ? spec->size :
		spec->kind == KDA_WINDOW_CUMULATING ? spec->slide : gcd(spec->size, spec->slide);
	spec->known_from = spec->known_to = 0;
}

/*---- calendar units */

/* The wall clock of the zone at t, as if it were UTC. */
static int64
to_wall(const KdaWindowSpec *spec, KdaTime t)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			tz;

	if (timestamp2tm(t, &tz, &tm, &fsec, NULL, spec->zone) != 0)
		return t;
	return t - (int64) tz * USECS_PER_SEC;
}

/* When the wall clock of the zone shows that. */
static KdaTime
from_wall(const KdaWindowSpec *spec, int64 wall)
{
	struct pg_tm tm;
	fsec_t		fsec;

	if (timestamp2tm(wall, NULL, &tm, &fsec, NULL, NULL) != 0)
		return wall;
	return wall + (int64) DetermineTimeZoneOffset(&tm, spec->zone) * USECS_PER_SEC;
}

KdaTime
kda_window_time_slow(const KdaWindowSpec *spec, int64 index)
{
	int64		wall;

	if (spec->unit == KDA_UNIT_DAY)
		wall = index * USECS_PER_DAY - KDA_EPOCH_SHIFT_US;
	else
	{
		int64		year = kda_floor_to(index, MONTHS_PER_YEAR) / MONTHS_PER_YEAR + 1970;
		int			month = (int) (index - (year - 1970) * MONTHS_PER_YEAR) + 1;

		wall = (int64) (date2j((int) year, month, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
	}
	return from_wall(spec, wall + spec->offset_us);
}

int64
kda_window_index_slow(KdaWindowSpec *spec, KdaTime t)
{
	int64		wall;
	int64		index;

	if (t >= spec->known_from && t < spec->known_to)
		return spec->known_index;
	wall = to_wall(spec, t) - spec->offset_us;
	if (spec->unit == KDA_UNIT_DAY)
		index = kda_floor_to(wall + KDA_EPOCH_SHIFT_US, USECS_PER_DAY) / USECS_PER_DAY;
	else
	{
		struct pg_tm tm;
		fsec_t		fsec;

		if (timestamp2tm(wall, NULL, &tm, &fsec, NULL, NULL) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
					 errmsg("timestamp out of range")));
		index = ((int64) tm.tm_year - 1970) * MONTHS_PER_YEAR + tm.tm_mon - 1;
	}
	/* where clocks are set back over the bound, a wall clock time is there twice */
	while (kda_window_time_slow(spec, index) > t)
		index--;
	while (kda_window_time_slow(spec, index + 1) <= t)
		index++;
	spec->known_from = kda_window_time_slow(spec, index);
	spec->known_to = kda_window_time_slow(spec, index + 1);
	return spec->known_index = index;
}

/*---- windows of a time */

bool
kda_window_next(KdaWindowSpec *spec, KdaTime t, KdaTime after, KdaTime *start, KdaTime *end)
{
	int64		i,
				first,
				last,
				step,
				length;

	if (unlikely(TIMESTAMP_NOT_FINITE(t)))
	{
		*start = *end = t;
		return t > after;
	}
	if (!kda_window_is_aligned(spec))
	{
		*start = t;
		*end = t + spec->size;
		return *end > after;
	}
	if (after == KDA_END_TIME)
		return false;
	i = kda_window_index(spec, t);
	/* ends are at first, first + step, … last */
	if (spec->kind == KDA_WINDOW_CUMULATING)
	{
		int64		base = kda_floor_to(i, spec->size);

		length = 0;
		step = spec->slide;
		first = kda_floor_to(i, step) + step;
		last = base + spec->size;
		*start = kda_window_time(spec, base);
	}
	else
	{
		length = spec->size;
		step = spec->slide;
		first = kda_floor_to(i - length, step) + step + length;
		last = kda_floor_to(i, step) + length;
	}
	if (after != KDA_NO_TIME)
	{
		int64		a = kda_window_index(spec, after);

		if (first <= a)
			first += kda_floor_to(a - first, step) + step;
	}
	if (first > last)
		return false;
	*end = kda_window_time(spec, first);
	if (length > 0)
		*start = kda_window_time(spec, first - length);
	return true;
}

KdaTime
kda_window_after(KdaWindowSpec *spec, KdaTime t, KdaTime mark)
{
	KdaTime		after = KDA_NO_TIME;
	KdaTime		start,
				end;

	while (kda_window_next(spec, t, after, &start, &end) && end <= mark && end > after)
		after = end;
	return after;
}

KdaTime
kda_window_last_end(KdaWindowSpec *spec, KdaTime t)
{
	int64		i;

	if (unlikely(TIMESTAMP_NOT_FINITE(t)))
		return t;
	if (!kda_window_is_aligned(spec))
		return t + spec->size;
	i = kda_window_index(spec, t);
	return kda_window_time(spec, spec->size +
						   kda_floor_to(i, spec->kind == KDA_WINDOW_CUMULATING ? spec->size : spec->slide));
}

KdaTime
kda_window_keep_from(KdaWindowSpec *spec, KdaTime frontier)
{
	int64		i;

	if (TIMESTAMP_NOT_FINITE(frontier))
		return frontier;
	i = kda_window_index(spec, frontier);
	if (spec->kind == KDA_WINDOW_CUMULATING)
		return kda_window_time(spec, kda_floor_to(i, spec->size));
	return kda_window_time(spec, kda_floor_to(i - spec->size, spec->slide) + spec->slide);
}

KdaTime
kda_window_next_start(KdaWindowSpec *spec, KdaTime t)
{
	int64		step = spec->kind == KDA_WINDOW_CUMULATING ? spec->size : spec->slide;
	KdaTime		start;

	if (TIMESTAMP_NOT_FINITE(t) || !kda_window_is_aligned(spec))
		return t;
	start = kda_window_time(spec, kda_floor_to(kda_window_index(spec, t), step));
	return start == t ? t : kda_window_time(spec, kda_floor_to(kda_window_index(spec, t), step) + step);
}

/*---- SQL functions */

/* A spec from intervals; zone NULL: UTC, and days are 24 hours. */
static void
spec_of(KdaWindowSpec *spec, KdaWindowKind kind, const Interval *size, const Interval *slide,
		const Interval *offset, const char *zone)
{
	static const char *const what = "the size of a window must be greater than zero";

	memset(spec, 0, sizeof(*spec));
	spec->kind = kind;
	strlcpy(spec->zone_name, zone ? zone : "UTC", sizeof(spec->zone_name));
	if (slide == NULL)
		slide = size;
	if (size->month != 0 && size->day == 0 && size->time == 0 && slide->day == 0 && slide->time == 0)
	{
		spec->unit = KDA_UNIT_MONTH;
		spec->size = size->month;
		spec->slide = slide->month;
	}
	else if (size->month != 0 || slide->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("months cannot be mixed with shorter units in the size of a window")));
	else if (zone && size->time == 0 && slide->time == 0)
	{
		spec->unit = KDA_UNIT_DAY;
		spec->size = size->day;
		spec->slide = slide->day;
	}
	else
	{
		spec->unit = KDA_UNIT_US;
		spec->size = size->time + (int64) size->day * USECS_PER_DAY;
		spec->slide = slide->time + (int64) slide->day * USECS_PER_DAY;
	}
	if (spec->size <= 0 || spec->slide <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", what)));
	if (offset)
	{
		if (offset->month != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the offset of a window cannot have months")));
		spec->offset_us = offset->time + (int64) offset->day * USECS_PER_DAY;
	}
	kda_window_finish(spec);
}

PG_FUNCTION_INFO_V1(kda_window_description_of);

/* kda.window_description(kind, size [, slide [, offset]]) */
Datum
kda_window_description_of(PG_FUNCTION_ARGS)
{
	KdaWindowSpec spec;
	char	   *name;
	int			kind;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the size of a window must not be NULL")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	kind = find_name(kind_names, lengthof(kind_names), name);
	if (kind < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown kind of windows: \"%s\"", name)));
	spec_of(&spec, kind, PG_GETARG_INTERVAL_P(1), PG_ARGISNULL(2) ? NULL : PG_GETARG_INTERVAL_P(2),
			PG_ARGISNULL(3) ? NULL : PG_GETARG_INTERVAL_P(3), NULL);
	PG_RETURN_TEXT_P(cstring_to_text(kda_window_format(&spec)));
}

PG_FUNCTION_INFO_V1(kda_tumble_start_sql);

/* kda.tumble_start(timestamptz, size [, offset [, time_zone]]): start of the window that the time falls into */
Datum
kda_tumble_start_sql(PG_FUNCTION_ARGS)
{
	TimestampTz t = PG_GETARG_TIMESTAMPTZ(0);
	KdaWindowSpec spec;

	spec_of(&spec, KDA_WINDOW_TUMBLING, PG_GETARG_INTERVAL_P(1), NULL,
			PG_NARGS() > 2 ? PG_GETARG_INTERVAL_P(2) : NULL,
			PG_NARGS() > 3 ? text_to_cstring(PG_GETARG_TEXT_PP(3)) : NULL);
	PG_RETURN_TIMESTAMPTZ(kda_window_pane(&spec, t));
}

PG_FUNCTION_INFO_V1(kda_tumble_end_sql);

/* kda.tumble_end(window_start, size): its end */
Datum
kda_tumble_end_sql(PG_FUNCTION_ARGS)
{
	TimestampTz t = PG_GETARG_TIMESTAMPTZ(0);
	KdaWindowSpec spec;

	if (TIMESTAMP_NOT_FINITE(t))
		PG_RETURN_TIMESTAMPTZ(t);
	spec_of(&spec, KDA_WINDOW_TUMBLING, PG_GETARG_INTERVAL_P(1), NULL, NULL, NULL);
	if (spec.unit == KDA_UNIT_US)
		PG_RETURN_TIMESTAMPTZ(t + spec.size);
	return DirectFunctionCall2(timestamptz_pl_interval, PG_GETARG_DATUM(0), PG_GETARG_DATUM(1));
}

/* The spec of a call site: constant, so it is read once. */
static KdaWindowSpec *
call_spec(FunctionCallInfo fcinfo, int arg)
{
	typedef struct Known
	{
		char	   *text;
		KdaWindowSpec spec;
	} Known;
	Known	   *known = fcinfo->flinfo->fn_extra;
	text	   *t = PG_GETARG_TEXT_PP(arg);

	if (known && strlen(known->text) == VARSIZE_ANY_EXHDR(t) &&
		memcmp(known->text, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t)) == 0)
		return &known->spec;
	known = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt, sizeof(Known));
	known->text = MemoryContextStrdup(fcinfo->flinfo->fn_mcxt, text_to_cstring(t));
	kda_window_parse(known->text, &known->spec);
	fcinfo->flinfo->fn_extra = known;
	return &known->spec;
}

PG_FUNCTION_INFO_V1(kda_window_start_of);

/* kda.window_start(timestamptz, description): start of the pane that the time falls into */
Datum
kda_window_start_of(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(kda_window_pane(call_spec(fcinfo, 1), PG_GETARG_TIMESTAMPTZ(0)));
}

PG_FUNCTION_INFO_V1(kda_window_end_of);

/* kda.window_end(timestamptz, description): end of the last window that the time falls into */
Datum
kda_window_end_of(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(kda_window_last_end(call_spec(fcinfo, 1), PG_GETARG_TIMESTAMPTZ(0)));
}

static void
put_windows(FunctionCallInfo fcinfo, KdaWindowSpec *spec, KdaTime t, KdaTime after)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	KdaTime		start,
				end;

	while (kda_window_next(spec, t, after, &start, &end))
	{
		Datum		values[2] = {TimestampTzGetDatum(start), TimestampTzGetDatum(end)};
		bool		nulls[2] = {false, false};

		CHECK_FOR_INTERRUPTS();
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		after = end;
	}
}

PG_FUNCTION_INFO_V1(kda_windows);

/*
 * kda.windows(timestamptz, description [, after timestamptz]) → (window_start,
 * window_end): the windows that the time falls into and that end later than
 * after.  NULL: none.
 */
Datum
kda_windows(PG_FUNCTION_ARGS)
{
	KdaWindowSpec spec;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return (Datum) 0;
	kda_window_parse(text_to_cstring(PG_GETARG_TEXT_PP(1)), &spec);
	put_windows(fcinfo, &spec, PG_GETARG_TIMESTAMPTZ(0),
				PG_NARGS() < 3 || PG_ARGISNULL(2) ? KDA_NO_TIME : PG_GETARG_TIMESTAMPTZ(2));
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(kda_keyed_windows);

/* kda.keyed_windows(timestamptz, description, VARIADIC keys) → (window_start, window_end): a record's own one, whatever its key */
Datum
kda_keyed_windows(PG_FUNCTION_ARGS)
{
	KdaWindowSpec spec;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return (Datum) 0;
	kda_window_parse(text_to_cstring(PG_GETARG_TEXT_PP(1)), &spec);
	put_windows(fcinfo, &spec, PG_GETARG_TIMESTAMPTZ(0), KDA_NO_TIME);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(kda_hop_windows);

/* kda.hop_windows(timestamptz, size, slide [, offset [, time_zone]]) → (window_start, window_end) */
Datum
kda_hop_windows(PG_FUNCTION_ARGS)
{
	KdaWindowSpec spec;

	InitMaterializedSRF(fcinfo, 0);
	spec_of(&spec, KDA_WINDOW_SLIDING, PG_GETARG_INTERVAL_P(1), PG_GETARG_INTERVAL_P(2), PG_GETARG_INTERVAL_P(3),
			PG_ARGISNULL(4) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(4)));
	put_windows(fcinfo, &spec, PG_GETARG_TIMESTAMPTZ(0), KDA_NO_TIME);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(kda_cumulate_windows);

/* kda.cumulate_windows(timestamptz, size, step [, offset [, time_zone]]) → (window_start, window_end) */
Datum
kda_cumulate_windows(PG_FUNCTION_ARGS)
{
	KdaWindowSpec spec;

	InitMaterializedSRF(fcinfo, 0);
	spec_of(&spec, KDA_WINDOW_CUMULATING, PG_GETARG_INTERVAL_P(1), PG_GETARG_INTERVAL_P(2), PG_GETARG_INTERVAL_P(3),
			PG_ARGISNULL(4) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(4)));
	put_windows(fcinfo, &spec, PG_GETARG_TIMESTAMPTZ(0), KDA_NO_TIME);
	return (Datum) 0;
}
