/*-------------------------------------------------------------------------
 *
 * value_text.c
 *	  Values that were not text, as JSON would say them: what no converter takes
 *	  as it is, and what is inside of arrays, maps and records.  Needs no server.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <math.h>

#include "common/shortest_dec.h"
#include "format/text.h"
#include "format/value.h"

#define TEXT_ROOM	40

static const char *
say_time(const KdaValue *v, char **out)
{
	KdaDayText	last = {0};
	int64		day = v->integer;
	int64		rest = 0;

	if (v->kind != KDA_VALUE_DAY)
	{
		day = v->integer / USECS_PER_DAY;
		rest = v->integer % USECS_PER_DAY;
		if (rest < 0)
		{
			rest += USECS_PER_DAY;
			day--;
		}
	}
	if (day < KDA_FIRST_DAY || day > KDA_LAST_DAY)
		return "a time is not of the years 1 to 9999, and cannot be written as text";
	*out = kda_put_day(&last, *out, day);
	if (v->kind == KDA_VALUE_DAY)
		return NULL;
	*(*out)++ = 'T';
	*out = kda_put_clock(*out, rest);
	if (v->kind == KDA_VALUE_MOMENT)
	{
		memcpy(*out, "+00:00", 6);
		*out += 6;
	}
	return NULL;
}

static char *
say_double(const KdaValue *v, char *out, KdaValueKind *kind)
{
	if (isnan(v->number) || isinf(v->number))
	{
		*kind = KDA_VALUE_STRING;
		return out + sprintf(out, "%s", isnan(v->number) ? "NaN" : v->number > 0 ? "Infinity" : "-Infinity");
	}
	*kind = KDA_VALUE_NUMBER;
	return out + (v->kind == KDA_VALUE_FLOAT ? float_to_shortest_decimal_bufn((float) v->number, out) :
				  double_to_shortest_decimal_bufn(v->number, out));
}

const char *
kda_value_as_text(const KdaValue *v, MemoryContext temp, KdaValue *text)
{
	char	   *from;
	char	   *out;
	KdaValueKind kind = KDA_VALUE_STRING;
	const char *why = NULL;

	*text = *v;
	if (v->kind < KDA_VALUE_INTEGER)
		return NULL;
	from = out = MemoryContextAlloc(temp, v->kind == KDA_VALUE_BYTES ? (Size) v->len * 2 + 2 : TEXT_ROOM);
	switch (v->kind)
	{
		case KDA_VALUE_INTEGER:
			kind = KDA_VALUE_NUMBER;
			out += sprintf(out, INT64_FORMAT, v->integer);
			break;
		case KDA_VALUE_FLOAT:
		case KDA_VALUE_DOUBLE:
			out = say_double(v, out, &kind);
			break;
		case KDA_VALUE_CLOCK:
			out = kda_put_clock(out, v->integer);
			break;
		case KDA_VALUE_BYTES:
			*out++ = '\\';
			*out++ = 'x';
			for (uint32 i = 0; i < v->len; i++)
			{
				*out++ = kda_hex_digits[(unsigned char) v->p[i] >> 4];
				*out++ = kda_hex_digits[v->p[i] & 15];
			}
			break;
		default:
			why = say_time(v, &out);
	}
	text->kind = kind;
	text->p = from;
	text->len = (uint32) (out - from);
	text->escaped = false;
	text->quality = 0;
	return why;
}
