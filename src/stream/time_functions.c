/*-------------------------------------------------------------------------
 *
 * time_functions.c
 *	  FLOOR (… TO …) and CEIL (… TO …) of Kinesis Data Analytics as functions
 *	  (STEP: window.c), and the starts of stagger windows over rows that are all there.
 *
 * Times are rounded in UTC, so that the result depends on no setting.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "windowapi.h"

/* timestamptz and timestamp alike: a timestamptz is its UTC. */
static Timestamp
floor_to(Timestamp t, text *unit)
{
	return DatumGetTimestamp(DirectFunctionCall2(timestamp_trunc, PointerGetDatum(unit), TimestampGetDatum(t)));
}

static Timestamp
ceil_to(Timestamp t, text *unit)
{
	Timestamp	down = floor_to(t, unit);
	char	   *name;
	Datum		one;

	if (down == t)
		return t;
	name = text_to_cstring(unit);
	one = DirectFunctionCall3(interval_in,
							  CStringGetDatum(pg_strcasecmp(name, "quarter") == 0 ? "3 months" : psprintf("1 %s", name)),
							  ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	return DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval, TimestampGetDatum(down), one));
}

static DateADT
date_of(Timestamp t)
{
	return DatumGetDateADT(DirectFunctionCall1(timestamp_date, TimestampGetDatum(t)));
}

static Timestamp
time_of(DateADT date)
{
	return DatumGetTimestamp(DirectFunctionCall1(date_timestamp, DateADTGetDatum(date)));
}

PG_FUNCTION_INFO_V1(kda_floor_time);

/* kda.floor(timestamptz | timestamp, unit) */
Datum
kda_floor_time(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMP(floor_to(PG_GETARG_TIMESTAMP(0), PG_GETARG_TEXT_PP(1)));
}

PG_FUNCTION_INFO_V1(kda_ceil_time);

/* kda.ceil(timestamptz | timestamp, unit) */
Datum
kda_ceil_time(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMP(ceil_to(PG_GETARG_TIMESTAMP(0), PG_GETARG_TEXT_PP(1)));
}

PG_FUNCTION_INFO_V1(kda_floor_date);

/* kda.floor(date, unit) */
Datum
kda_floor_date(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATEADT(date_of(floor_to(time_of(PG_GETARG_DATEADT(0)), PG_GETARG_TEXT_PP(1))));
}

PG_FUNCTION_INFO_V1(kda_ceil_date);

/* kda.ceil(date, unit) */
Datum
kda_ceil_date(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATEADT(date_of(ceil_to(time_of(PG_GETARG_DATEADT(0)), PG_GETARG_TEXT_PP(1))));
}

/*---- stagger windows */

typedef struct Stagger
{
	TimestampTz start;
	TimestampTz end;
	int			nth;			/* in the order of opening */
} Stagger;

/* The windows of a partition that have been opened so far, in the order of their starts. */
typedef struct Opened
{
	int			n;
	int			room;
	Stagger    *windows;
} Opened;

/* How many of them begin at or before t. */
static int
begun(const Opened *opened, TimestampTz t)
{
	int			low = 0;
	int			high = opened->n;

	while (low < high)
	{
		int			mid = (low + high) / 2;

		if (opened->windows[mid].start <= t)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

PG_FUNCTION_INFO_V1(kda_stagger_start);

/*
 * kda.stagger_start(timestamptz, length) OVER (PARTITION BY key ORDER BY
 * arrival): a row goes into the window of its key that contains it and was
 * opened first; if there is none, it opens one.
 */
Datum
kda_stagger_start(PG_FUNCTION_ARGS)
{
	WindowObject object = PG_WINDOW_OBJECT();
	Opened	   *opened = WinGetPartitionLocalMemory(object, sizeof(Opened));
	bool		isnull;
	TimestampTz t = DatumGetTimestampTz(WinGetFuncArgCurrent(object, 0, &isnull));
	Interval   *length;
	Stagger    *found = NULL;
	int			i;

	if (isnull)
		PG_RETURN_NULL();
	length = DatumGetIntervalP(WinGetFuncArgCurrent(object, 1, &isnull));
	if (isnull)
		PG_RETURN_NULL();
	i = begun(opened, t);
	/* all are equally long: those that contain t stand together */
	for (int k = i - 1; k >= 0 && opened->windows[k].end > t; k--)
		if (found == NULL || opened->windows[k].nth < found->nth)
			found = &opened->windows[k];
	if (found)
		PG_RETURN_TIMESTAMPTZ(found->start);
	if (opened->n == opened->room)
	{
		/* beside the partition's own memory, which ends with it */
		MemoryContext context = GetMemoryChunkContext(opened);

		opened->room = Max(8, opened->room * 2);
		opened->windows = opened->windows ? repalloc_huge(opened->windows, sizeof(Stagger) * (Size) opened->room) :
			MemoryContextAllocHuge(context, sizeof(Stagger) * (Size) opened->room);
	}
	memmove(opened->windows + i + 1, opened->windows + i, sizeof(Stagger) * (opened->n - i));
	opened->windows[i].start = t;
	opened->windows[i].end = DatumGetTimestampTz(DirectFunctionCall2(timestamp_pl_interval, TimestampTzGetDatum(t),
																	 IntervalPGetDatum(length)));
	opened->windows[i].nth = opened->n++;
	PG_RETURN_TIMESTAMPTZ(t);
}
