/*-------------------------------------------------------------------------
 *
 * retry.h
 *	  When something that failed is tried again: the one place that decides.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_RETRY_H
#define KDA_RETRY_H

#include "postgres.h"

#include "common/pg_prng.h"

typedef struct KdaRetry
{
	int			max_attempts;	/* 0: it goes on until it works */
	int			first_ms;		/* about the first pause; each one after is twice as long ... */
	int			max_ms;			/* ... up to this (kda_stream.retry_max_interval) */
	int			failed;			/* attempts, since the last success */
	int64		total;			/* failed attempts in all, for statistics */
	pg_prng_state random;
} KdaRetry;

extern void kda_retry_init(KdaRetry *retry, int max_attempts, int first_ms, int max_ms);

/*
 * An attempt has failed.  Gives the ms until the next one, half of it by
 * chance, so that many who failed together do not come back together; -1: that
 * was the last attempt.  at_least_ms: what the other side has asked for, which
 * counts up to max_ms.
 */
extern int64 kda_retry_after_failure(KdaRetry *retry, int64 at_least_ms);

extern void kda_retry_after_success(KdaRetry *retry);

#endif							/* KDA_RETRY_H */
