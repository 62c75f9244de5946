/*-------------------------------------------------------------------------
 *
 * window_math.h
 *	  Which window a time falls into.  Windows are half-open, aligned to the
 *	  Unix epoch (1970-01-01 00:00 UTC) plus offset.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_WINDOW_MATH_H
#define KDA_WINDOW_MATH_H

#include "kda_stream.h"

/* From the Unix epoch to PostgreSQL's, µs. */
#define KDA_EPOCH_SHIFT_US \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* Start of the window of size_us > 0 that t falls into. */
static inline KdaTime
kda_tumble_start(KdaTime t, int64 size_us, int64 offset_us)
{
	int64		since = t - (offset_us - KDA_EPOCH_SHIFT_US) % size_us;
	int64		into = since % size_us;

	if (into < 0)
		into += size_us;
	return t - into;
}

#endif							/* KDA_WINDOW_MATH_H */
