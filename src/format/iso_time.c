/*-------------------------------------------------------------------------
 *
 * iso_time.c
 *	  Times as ISO 8601 writes them, without a function call: see iso_time.h.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "datatype/timestamp.h"
#include "format/iso_time.h"
#include "utils/datetime.h"

static inline int
two_digits(const char *p)
{
	unsigned	a = (unsigned char) p[0] - '0',
				b = (unsigned char) p[1] - '0';

	return a <= 9 && b <= 9 ? (int) (a * 10 + b) : -1;
}

/*
 * ISO 8601: YYYY-MM-DD[(T| )HH:MM[:SS[.fraction]]][Z|±HH[[:]MM]].  Anything else
 * is left to the input function.
 */
bool
kda_read_iso_time(const char *p, int len, int64 *wall, int64 *date, bool *has_zone, int *zone_seconds)
{
	static const int month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	const char *end = p + len;
	int			century,
				year,
				month,
				day,
				hour = 0,
				minute = 0,
				second = 0,
				micros = 0;
	int			days;

	*has_zone = false;
	*zone_seconds = 0;
	if (len < 10 || p[4] != '-' || p[7] != '-' || (century = two_digits(p)) < 0 ||
		(year = two_digits(p + 2)) < 0 || (month = two_digits(p + 5)) < 0 || (day = two_digits(p + 8)) < 0)
		return false;
	year += century * 100;
	if (year == 0 || month < 1 || month > 12 || day < 1)
		return false;
	days = month_days[month - 1] + (month == 2 && isleap(year) ? 1 : 0);
	if (day > days)
		return false;
	p += 10;
	if (p < end && (*p == 'T' || *p == ' ' || *p == 't'))
	{
		p++;
		if (end - p < 5 || (hour = two_digits(p)) < 0 || p[2] != ':' || (minute = two_digits(p + 3)) < 0 ||
			hour > 23 || minute > 59)
			return false;
		p += 5;
		if (p < end && *p == ':')
		{
			if (end - p < 3 || (second = two_digits(p + 1)) < 0 || second > 59)
				return false;
			p += 3;
			if (p < end && (*p == '.' || *p == ','))
			{
				int			n = 0;
				bool		up = false;

				p++;
				for (; p < end && *p >= '0' && *p <= '9'; p++, n++)
				{
					if (n < 6)
						micros = micros * 10 + (*p - '0');
					else if (n == 6)
						up = *p >= '5';	/* core rounds */
				}
				if (n == 0 || n > 9)
					return false;
				for (; n < 6; n++)
					micros *= 10;
				micros += up;
			}
		}
	}
	if (p < end && (*p == 'Z' || *p == 'z'))
	{
		*has_zone = true;
		p++;
	}
	else if (p < end && (*p == '+' || *p == '-'))
	{
		bool		west = *p == '-';
		int			h,
					m = 0;

		p++;
		if (end - p < 2 || (h = two_digits(p)) < 0)
			return false;
		p += 2;
		if (p < end && *p == ':')
			p++;
		if (end - p >= 2)
		{
			if ((m = two_digits(p)) < 0)
				return false;
			p += 2;
		}
		if (h > 15 || m > 59)
			return false;
		*has_zone = true;
		*zone_seconds = (h * 60 + m) * 60 * (west ? -1 : 1);
	}
	if (p != end)
		return false;
	*date = (int64) (date2j(year, month, day) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
	*wall = *date + ((int64) hour * 3600 + minute * 60 + second) * USECS_PER_SEC + micros;
	return true;
}

/*
 * The usual time: YYYY-MM-DDTHH:MM:SS[.fraction]Z of the same minute as the
 * last one that was read.  *time is in UTC.
 */
bool
kda_read_same_minute(const KdaMinute *last, const char *p, int len, int64 *time)
{
	const char *end = p + len - 1;
	int			second;
	int			micros = 0;

	if (len < 20 || len > 27 || memcmp(p, last->text, sizeof(last->text)) != 0 || p[16] != ':' ||
		(second = two_digits(p + 17)) < 0 || second > 59 || *end != 'Z')
		return false;
	if (len > 20)
	{
		static const int scale[] = {1, 100000, 10000, 1000, 100, 10, 1};

		if (p[19] != '.' || len == 21)
			return false;
		for (const char *q = p + 20; q < end; q++)
		{
			if (*q < '0' || *q > '9')
				return false;
			micros = micros * 10 + (*q - '0');
		}
		micros *= scale[end - p - 20];
	}
	*time = last->start + second * USECS_PER_SEC + micros;
	return true;
}

void
kda_remember_minute(KdaMinute *last, const char *p, int len, int64 time)
{
	int64		into = time % USECS_PER_MINUTE;

	/* more than six digits are rounded, perhaps into the next minute */
	if (len < 20 || len > 27 || p[10] != 'T' || p[13] != ':' || p[16] != ':' || p[len - 1] != 'Z')
		return;
	memcpy(last->text, p, sizeof(last->text));
	last->start = time - (into < 0 ? into + USECS_PER_MINUTE : into);
}
