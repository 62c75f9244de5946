/*-------------------------------------------------------------------------
 *
 * number.c
 *	  Numbers as JSON and CSV write them, without a function call: see number.h.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <math.h>

#include "format/number.h"

/* Decimal text without blanks as an integer; NULL on success, else what is wrong. */
const char *
kda_read_integer(const char *p, int len, int64 *out)
{
	const char *end = p + len;
	bool		negative = false;
	uint64		value = 0;
	int			digits = 0;
	int			scale = 0;		/* digits after the point */
	int64		exponent = 0;
	int			zeros = 0;		/* trailing ones that are not in value yet */
	bool		point = false;
	bool		any = false;

	if (p < end && (*p == '-' || *p == '+'))
		negative = *p++ == '-';
	/* the usual case */
	if (end - p <= 18)
	{
		const char *q = p;

		while (q < end && *q >= '0' && *q <= '9')
			value = value * 10 + (*q++ - '0');
		if (q == end && q > p)
		{
			*out = negative ? -(int64) value : (int64) value;
			return NULL;
		}
		value = 0;
	}
	for (; p < end; p++)
	{
		if (*p >= '0' && *p <= '9')
		{
			any = true;
			if (point)
				scale++;
			if (*p == '0')
			{
				zeros++;
				continue;
			}
			for (; zeros > 0; zeros--)
				if (value != 0 || digits > 0)
				{
					if (++digits > 19 || value > PG_UINT64_MAX / 10)
						return "out of range";
					value *= 10;
				}
			if (++digits > 19 || value > PG_UINT64_MAX / 10)
				return "out of range";
			value = value * 10 + (*p - '0');
		}
		else if (*p == '.' && !point)
			point = true;
		else
			break;
	}
	if (!any)
		return "invalid syntax";
	if (p < end && (*p == 'e' || *p == 'E'))
	{
		bool		down = false;

		p++;
		if (p < end && (*p == '-' || *p == '+'))
			down = *p++ == '-';
		if (p >= end)
			return "invalid syntax";
		for (; p < end && *p >= '0' && *p <= '9'; p++)
			exponent = Min(exponent * 10 + (*p - '0'), 1000000);
		if (down)
			exponent = -exponent;
	}
	if (p < end)
		return "invalid syntax";
	if (value != 0)
	{
		exponent += zeros - scale;
		if (exponent < 0)
			return "it has a fraction";
		for (; exponent > 0; exponent--)
		{
			if (value > PG_UINT64_MAX / 10)
				return "out of range";
			value *= 10;
		}
	}
	if (value > (uint64) PG_INT64_MAX + (negative ? 1 : 0))
		return "out of range";
	*out = negative ? (int64) (0 - value) : (int64) value;
	return NULL;
}

/* The text of a number with a zero byte after it, in buffer if it fits. */
static char *
number_text(const char *p, int len, char *buffer, int size)
{
	char	   *copy = len < size ? buffer : palloc(len + 1);

	memcpy(copy, p, len);
	copy[len] = '\0';
	return copy;
}

/* A JSON number as a float; false if it is out of range.  A double made shorter would be rounded twice. */
bool
kda_read_float4(const char *p, int len, float *out)
{
	char		buffer[128];
	char	   *copy = number_text(p, len, buffer, sizeof(buffer));
	bool		fine;

	errno = 0;
	*out = strtof(copy, NULL);
	fine = !(errno == ERANGE && (*out == 0.0f || isinf(*out)));
	if (copy != buffer)
		pfree(copy);
	return fine;
}

/* A JSON number as a double; false if it is out of range. */
bool
kda_read_float8(const char *p, int len, double *out)
{
	static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
	const char *end = p + len;
	const char *q = p;
	bool		negative = false;
	int64		mantissa = 0;
	int			digits = 0;
	int			scale = 0;
	char		buffer[128];
	char	   *copy;
	bool		fine;

	if (q < end && *q == '-')
	{
		negative = true;
		q++;
	}
	while (q < end && *q >= '0' && *q <= '9' && digits <= 15)
	{
		mantissa = mantissa * 10 + (*q++ - '0');
		digits++;
	}
	if (q < end && *q == '.' && digits > 0)
	{
		q++;
		while (q < end && *q >= '0' && *q <= '9' && digits <= 15)
		{
			mantissa = mantissa * 10 + (*q++ - '0');
			digits++;
			scale++;
		}
	}
	if (q == end && digits > 0 && digits <= 15)
	{
		/* both are exact, so that one division rounds correctly */
		double		d = (double) mantissa / powers[scale];

		*out = negative ? -d : d;
		return true;
	}
	copy = number_text(p, len, buffer, sizeof(buffer));
	errno = 0;
	*out = strtod(copy, NULL);
	fine = !(errno == ERANGE && (*out == 0.0 || isinf(*out)));
	if (copy != buffer)
		pfree(copy);
	return fine;
}

/* A string as JSON would write the number: no hexadecimal digits, no "nan". */
bool
kda_looks_like_number(const char *p, int len)
{
	bool		digit = false;

	for (int i = 0; i < len; i++)
	{
		if (p[i] >= '0' && p[i] <= '9')
			digit = true;
		else if (!(p[i] == '.' && digit) && !((p[i] == 'e' || p[i] == 'E') && digit) &&
				 !((p[i] == '-' || p[i] == '+') && (i == 0 || (p[i - 1] | 0x20) == 'e')))
			return false;
	}
	return digit;
}
