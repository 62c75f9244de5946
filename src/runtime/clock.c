/*-------------------------------------------------------------------------
 *
 * clock.c
 *	  The wall clock, as far as it matters for results: nobody else reads it,
 *	  so that tests can drive it.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "runtime/runtime.h"

TimestampTz
kda_clock_now(void)
{
	return GetCurrentTimestamp();
}
