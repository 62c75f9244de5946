/*-------------------------------------------------------------------------
 *
 * text.c
 *	  Strings of JSON, days and times of day, as they are written: see text.h.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "format/text.h"
#include "port/pg_bitutils.h"

/*---- strings */

#define PIECE	8192			/* bytes of a string for which room is made at once */

/* What stands for a byte in a JSON string after the backslash; 'u': \u00xx, 0: the byte itself. */
static const char escapes[256] = {
	'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'b', 't', 'n', 'u', 'f', 'r', 'u', 'u',
	'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u',
	['"'] = '"',['\\'] = '\\'
};

const char	kda_hex_digits[] = "0123456789abcdef";

/* len is at most PIECE; out has room for six times as much and 16 bytes. */
static inline char *
escape_piece(char *out, const char *p, Size len)
{
	const char *end = p + len;

	for (;;)
	{
		unsigned char c;

#ifdef __SSE2__
		while (end - p >= 16)
		{
			__m128i		x = _mm_loadu_si128((const __m128i *) p);
			__m128i		low = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x);
			__m128i		odd = _mm_or_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8('"')), _mm_cmpeq_epi8(x, _mm_set1_epi8('\\')));
			int			mask = _mm_movemask_epi8(_mm_or_si128(low, odd));

			_mm_storeu_si128((__m128i *) out, x);
			if (mask != 0)
			{
				int			clean = pg_rightmost_one_pos32(mask);

				p += clean;
				out += clean;
				break;
			}
			p += 16;
			out += 16;
		}
#endif
		while (p < end && escapes[(unsigned char) *p] == 0)
			*out++ = *p++;
		if (p == end)
			return out;
		c = (unsigned char) *p++;
		*out++ = '\\';
		*out++ = escapes[c];
		if (escapes[c] == 'u')
		{
			*out++ = '0';
			*out++ = '0';
			*out++ = kda_hex_digits[c >> 4];
			*out++ = kda_hex_digits[c & 15];
		}
	}
}

void
kda_write_json_string(StringInfo into, const char *p, Size len)
{
	char	   *out = kda_room(into, Min(len, PIECE) * 6 + 18);

	*out++ = '"';
	for (;;)
	{
		Size		piece = Min(len, PIECE);

		out = escape_piece(out, p, piece);
		into->len = (int) (out - into->data);
		p += piece;
		len -= piece;
		if (len == 0)
			break;
		out = kda_room(into, Min(len, PIECE) * 6 + 17);
	}
	*out++ = '"';
	into->len = (int) (out - into->data);
}

/*---- times */

static inline char *
two_digits(char *out, int n)
{
	*out++ = '0' + n / 10;
	*out++ = '0' + n % 10;
	return out;
}

/* Of days since 2000-01-01 in years that have four digits. */
static void
civil(int day, int *year, int *month, int *mday)
{
	/* years begin with March here, eras of 400 years in the year 0 */
	int			shifted = day + 730425;
	int			era = shifted / 146097;
	int			of_era = shifted % 146097;
	int			year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	int			of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	int			march = (5 * of_year + 2) / 153;

	*mday = of_year - (153 * march + 2) / 5 + 1;
	*month = march < 10 ? march + 3 : march - 9;
	*year = year_of_era + era * 400 + (*month <= 2);
}

char *
kda_put_day(KdaDayText *last, char *out, int64 day)
{
	if (unlikely(last->day != day || last->text[0] == '\0'))
	{
		int			year,
					month,
					mday;
		char	   *text = last->text;

		civil((int) day, &year, &month, &mday);
		text = two_digits(text, year / 100);
		text = two_digits(text, year % 100);
		*text++ = '-';
		text = two_digits(text, month);
		*text++ = '-';
		(void) two_digits(text, mday);
		last->day = day;
	}
	memcpy(out, last->text, 10);
	return out + 10;
}

char *
kda_put_clock(char *out, int64 time)
{
	int			micros = (int) (time % USECS_PER_SEC);
	int			seconds = (int) (time / USECS_PER_SEC);

	out = two_digits(out, seconds / SECS_PER_HOUR);
	*out++ = ':';
	out = two_digits(out, seconds / SECS_PER_MINUTE % MINS_PER_HOUR);
	*out++ = ':';
	out = two_digits(out, seconds % SECS_PER_MINUTE);
	if (micros != 0)
	{
		char	   *digit = out + 7;

		*out = '.';
		for (int i = 6; i > 0; i--, micros /= 10)
			out[i] = '0' + micros % 10;
		while (digit[-1] == '0')
			digit--;
		out = digit;
	}
	return out;
}
