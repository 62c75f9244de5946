/*-------------------------------------------------------------------------
 *
 * window.h
 *	  Which windows a time falls into.
 *
 * Windows are half-open, [start, end).  Bounds are counted in units from
 * 1970-01-01 00:00 plus an offset: microseconds of UTC, or calendar days or
 * months of a time zone.  In these units every kind is integer arithmetic:
 *
 *		tumbling	[k * size, (k + 1) * size)
 *		sliding		[k * slide, k * slide + size)
 *		cumulating	[k * size, k * size + j * slide), 1 <= j <= size / slide
 *
 * Sessions and stagger windows depend on other rows too (query/sessions.h);
 * here size is the gap or length, and a row's own window is [t, t + size).
 *
 * Pure functions: no catalog but for time zones, no clock.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_WINDOW_H
#define KDA_WINDOW_H

#include "kda_stream.h"
#include "pgtime.h"

typedef enum KdaWindowKind
{
	KDA_WINDOW_TUMBLING,
	KDA_WINDOW_SLIDING,
	KDA_WINDOW_CUMULATING,
	KDA_WINDOW_SESSION,
	KDA_WINDOW_STAGGER
} KdaWindowKind;

typedef enum KdaWindowUnit
{
	KDA_UNIT_US,
	KDA_UNIT_DAY,
	KDA_UNIT_MONTH
} KdaWindowUnit;

typedef struct KdaWindowSpec
{
	KdaWindowKind kind;
	KdaWindowUnit unit;
	int64		size;			/* units; session: gap, stagger: length (µs) */
	int64		slide;			/* units; tumbling: size; cumulating: step */
	int64		pane;			/* units; every window is made of whole panes */
	int64		offset_us;
	bool		by_bounds;		/* sessions of several keys that begin and end together are one window */
	char		zone_name[TZ_STRLEN_MAX + 1];
	pg_tz	   *zone;
	/* calendar units: the range of times that the last answer holds for */
	KdaTime		known_from;
	KdaTime		known_to;
	int64		known_index;
} KdaWindowSpec;

/* From the Unix epoch to PostgreSQL's, µs. */
#define KDA_EPOCH_SHIFT_US \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

static inline int64
kda_floor_to(int64 value, int64 step)
{
	int64		into = value % step;

	return value - (into < 0 ? into + step : into);
}

/*
 * Text of a spec, as stored views have it: "sliding us 300000000 60000000 0 UTC".
 * Parsing trusts nothing: it ereports.
 */
extern char *kda_window_format(const KdaWindowSpec *spec);
extern void kda_window_parse(const char *text, KdaWindowSpec *spec);
/* Fills pane and checks; to be called when the other fields are set. */
extern void kda_window_finish(KdaWindowSpec *spec);

/* Does every row's window follow from the row alone? */
static inline bool
kda_window_is_aligned(const KdaWindowSpec *spec)
{
	return spec->kind <= KDA_WINDOW_CUMULATING;
}

/* The unit that t falls into, and the time at which a unit begins. */
extern int64 kda_window_index_slow(KdaWindowSpec *spec, KdaTime t);
extern KdaTime kda_window_time_slow(const KdaWindowSpec *spec, int64 index);

static inline int64
kda_window_index(KdaWindowSpec *spec, KdaTime t)
{
	if (likely(spec->unit == KDA_UNIT_US))
		return t - spec->offset_us + KDA_EPOCH_SHIFT_US;
	return kda_window_index_slow(spec, t);
}

static inline KdaTime
kda_window_time(const KdaWindowSpec *spec, int64 index)
{
	if (likely(spec->unit == KDA_UNIT_US))
		return index + spec->offset_us - KDA_EPOCH_SHIFT_US;
	return kda_window_time_slow(spec, index);
}

/* Start of the pane that t falls into; infinite times are their own. */
static inline KdaTime
kda_window_pane(KdaWindowSpec *spec, KdaTime t)
{
	if (unlikely(TIMESTAMP_NOT_FINITE(t)))
		return t;
	return kda_window_time(spec, kda_floor_to(kda_window_index(spec, t), spec->pane));
}

/*
 * Windows that t falls into, in the order of their ends: the first one whose
 * end is later than after.  Returns false if there is none.  An infinite time
 * has the one window [t, t].  Sessions and stagger windows: [t, t + size).
 */
extern bool kda_window_next(KdaWindowSpec *spec, KdaTime t, KdaTime after, KdaTime *start, KdaTime *end);

/*
 * The greatest end of a window of t that is not later than mark; KDA_NO_TIME
 * if there is none: the record counts in all of its windows.
 */
extern KdaTime kda_window_after(KdaWindowSpec *spec, KdaTime t, KdaTime mark);

/* End of the last window that t falls into. */
extern KdaTime kda_window_last_end(KdaWindowSpec *spec, KdaTime t);

/* Rows before this are in no window that ends after frontier (aligned kinds). */
extern KdaTime kda_window_keep_from(KdaWindowSpec *spec, KdaTime frontier);

/* Start of the first window that begins at or after t (aligned kinds). */
extern KdaTime kda_window_next_start(KdaWindowSpec *spec, KdaTime t);

#endif							/* KDA_WINDOW_H */
