/*-------------------------------------------------------------------------
 *
 * retry.c
 *	  Exponential back-off with jitter, bounded in time and number.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/retry.h"

#include <time.h>

void
kda_retry_init(KdaRetry *retry, int max_attempts, int first_ms, int max_ms)
{
	memset(retry, 0, sizeof(KdaRetry));
	retry->max_attempts = max_attempts;
	retry->first_ms = Max(first_ms, 2);
	retry->max_ms = Max(max_ms, 2);
	if (!pg_prng_strong_seed(&retry->random))
		pg_prng_seed(&retry->random, (uint64) time(NULL) ^ (uint64) (uintptr_t) retry);
}

int64
kda_retry_after_failure(KdaRetry *retry, int64 at_least_ms)
{
	int64		pause = retry->max_ms;

	retry->failed++;
	retry->total++;
	if (retry->max_attempts > 0 && retry->failed >= retry->max_attempts)
		return -1;
	if (retry->failed <= 30)
		pause = Min(pause, (int64) retry->first_ms << (retry->failed - 1));
	pause = pause / 2 + (int64) pg_prng_uint64_range(&retry->random, 0, pause / 2);
	return Max(pause, Min(at_least_ms, (int64) retry->max_ms));
}

void
kda_retry_after_success(KdaRetry *retry)
{
	retry->failed = 0;
}
