/*-------------------------------------------------------------------------
 *
 * iso_time.h
 *	  Times as ISO 8601 writes them, read without a function call.  Private to
 *	  format/.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_ISO_TIME_H
#define KDA_ISO_TIME_H

#include "kda_stream.h"

/*
 * ISO 8601: YYYY-MM-DD[(T| )HH:MM[:SS[.fraction]]][Z|±HH[[:]MM]].  Anything else
 * is left to the input function.  wall: the clock's time, date: the day's start
 * on it, as if it were UTC; zone_seconds: east of Greenwich.
 */
extern bool kda_read_iso_time(const char *p, int len, int64 *wall, int64 *date, bool *has_zone, int *zone_seconds);

/* The last time in UTC that was read: the next one is often of the same minute. */
typedef struct KdaMinute
{
	char		text[16];		/* YYYY-MM-DDTHH:MM */
	int64		start;
} KdaMinute;

/* YYYY-MM-DDTHH:MM:SS[.fraction]Z of that minute.  *time is in UTC. */
extern bool kda_read_same_minute(const KdaMinute *last, const char *p, int len, int64 *time);
extern void kda_remember_minute(KdaMinute *last, const char *p, int len, int64 time);

#endif							/* KDA_ISO_TIME_H */
