/*-------------------------------------------------------------------------
 *
 * text.h
 *	  Strings of JSON, days and times of day, as they are written.  Private to
 *	  format/; needs no server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_TEXT_H
#define KDA_TEXT_H

#include "kda_stream.h"
#include "lib/stringinfo.h"
#include "utils/memutils.h"

/* Room for so many more bytes; where they go. */
static inline char *
kda_room(StringInfo into, Size size)
{
	if (unlikely((Size) (into->maxlen - into->len) <= size))
		enlargeStringInfo(into, (int) Min(size, (Size) MaxAllocSize));
	return into->data + into->len;
}

static inline void
kda_put(StringInfo into, const char *p, Size len)
{
	memcpy(kda_room(into, len), p, len);
	into->len += (int) len;
}

extern const char kda_hex_digits[];

/* Append a JSON string with its quotes. */
extern void kda_write_json_string(StringInfo into, const char *p, Size len);

/* Days since 2000-01-01 whose year has four digits: 0001-01-01 to 9999-12-31. */
#define KDA_FIRST_DAY	(-730119)
#define KDA_LAST_DAY	2921939

/* The last day that was written: the next time is often of the same.  Zero at first. */
typedef struct KdaDayText
{
	int64		day;
	char		text[10];
} KdaDayText;

/* Between these two: YYYY-MM-DD.  Both return where they have ended. */
extern char *kda_put_day(KdaDayText *last, char *out, int64 day);
/* Microseconds of a day: HH:MM:SS and as many digits of its fraction as there are. */
extern char *kda_put_clock(char *out, int64 time);

#endif							/* KDA_TEXT_H */
