/*-------------------------------------------------------------------------
 *
 * kafka_headers.c
 *	  A record's headers from a flat JSON object: a string becomes its bytes,
 *	  null a header without value, anything else its JSON text.
 *
 * Runs on the helper thread of a sink: nothing of PostgreSQL's is called.  The
 * text comes from the database; what it cannot read it does not take.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/kafka_sink_internal.h"

#include <stdlib.h>

#define MAX_DEPTH	64

typedef struct Reader
{
	const char *p;
	char	   *text;			/* of the last string */
	Size		len;
} Reader;

static bool
take(Reader *r, char c)
{
	r->p += strspn(r->p, " \t\r\n");
	if (*r->p != c)
		return false;
	r->p++;
	return true;
}

static bool
take_hex4(Reader *r, uint32 *c)
{
	*c = 0;
	for (int i = 0; i < 4; i++, r->p++)
	{
		char		h = *r->p;
		int			digit = h >= '0' && h <= '9' ? h - '0' : h >= 'a' && h <= 'f' ? h - 'a' + 10 : h >= 'A' && h <= 'F' ? h - 'A' + 10 : -1;

		if (digit < 0)
			return false;
		*c = *c * 16 + digit;
	}
	return true;
}

static void
add_utf8(Reader *r, uint32 c)
{
	char	   *to = r->text + r->len;

	if (c < 0x80)
		*to++ = c;
	else if (c < 0x800)
	{
		*to++ = 0xC0 | (c >> 6);
		*to++ = 0x80 | (c & 0x3F);
	}
	else if (c < 0x10000)
	{
		*to++ = 0xE0 | (c >> 12);
		*to++ = 0x80 | ((c >> 6) & 0x3F);
		*to++ = 0x80 | (c & 0x3F);
	}
	else
	{
		*to++ = 0xF0 | (c >> 18);
		*to++ = 0x80 | ((c >> 12) & 0x3F);
		*to++ = 0x80 | ((c >> 6) & 0x3F);
		*to++ = 0x80 | (c & 0x3F);
	}
	r->len = to - r->text;
}

/* What follows a backslash; never longer than what it was written with. */
static bool
take_escape(Reader *r)
{
	static const char from[] = "\"\\/bfnrt";
	static const char meant[] = "\"\\/\b\f\n\r\t";
	const char *e;
	uint32		c,
				low;

	if (*r->p == '\0')
		return false;
	if (*r->p != 'u')
	{
		e = strchr(from, *r->p++);
		if (e)
			r->text[r->len++] = meant[e - from];
		return e != NULL;
	}
	r->p++;
	if (!take_hex4(r, &c) || (c >= 0xDC00 && c <= 0xDFFF))
		return false;
	if (c >= 0xD800 && c <= 0xDBFF)
	{
		if (r->p[0] != '\\' || r->p[1] != 'u')
			return false;
		r->p += 2;
		if (!take_hex4(r, &low) || low < 0xDC00 || low > 0xDFFF)
			return false;
		c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
	}
	add_utf8(r, c);
	return true;
}

/* A string into text, which has room for the whole JSON. */
static bool
take_string(Reader *r)
{
	r->len = 0;
	if (!take(r, '"'))
		return false;
	while (*r->p != '"')
		if (*r->p == '\0')
			return false;
		else if (*r->p == '\\')
		{
			r->p++;
			if (!take_escape(r))
				return false;
		}
		else
			r->text[r->len++] = *r->p++;
	r->p++;
	return true;
}

/* Any value; only where it ends is of interest. */
static bool
skip_value(Reader *r, int depth)
{
	char		close;

	r->p += strspn(r->p, " \t\r\n");
	if (*r->p == '"')
		return take_string(r);
	if (*r->p != '{' && *r->p != '[')
	{
		Size		len = strspn(r->p, "+-.0123456789abcdefghijklmnopqrstuvwxyzE");

		r->p += len;
		return len > 0;
	}
	if (depth >= MAX_DEPTH)
		return false;
	close = *r->p++ == '{' ? '}' : ']';
	if (take(r, close))
		return true;
	do
		if ((close == '}' && (!take_string(r) || !take(r, ':'))) || !skip_value(r, depth + 1))
			return false;
	while (take(r, ','));
	return take(r, close);
}

static bool
take_header(Reader *r, rd_kafka_headers_t *headers, char *name)
{
	Size		name_len;
	const char *value;

	if (!take_string(r) || !take(r, ':'))
		return false;
	name_len = r->len;
	memcpy(name, r->text, name_len);
	r->p += strspn(r->p, " \t\r\n");
	value = r->p;
	if (*value == '"')
		return take_string(r) &&
			rd_kafka_header_add(headers, name, name_len, r->text, r->len) == RD_KAFKA_RESP_ERR_NO_ERROR;
	if (!skip_value(r, 0))
		return false;
	if (r->p - value == 4 && strncmp(value, "null", 4) == 0)
		return rd_kafka_header_add(headers, name, name_len, NULL, 0) == RD_KAFKA_RESP_ERR_NO_ERROR;
	return rd_kafka_header_add(headers, name, name_len, value, r->p - value) == RD_KAFKA_RESP_ERR_NO_ERROR;
}

rd_kafka_headers_t *
kda_kafka_headers(const char *json)
{
	Size		room = strlen(json) + 1;
	char	   *memory = malloc(room * 2);	/* a name, and what is being read */
	Reader		r = {json, memory};
	rd_kafka_headers_t *headers = rd_kafka_headers_new(8);
	bool		fine = memory != NULL && take(&r, '{');

	if (fine && !take(&r, '}'))
	{
		do
			fine = take_header(&r, headers, memory + room);
		while (fine && take(&r, ','));
		fine = fine && take(&r, '}');
	}
	fine = fine && r.p[strspn(r.p, " \t\r\n")] == '\0';
	free(memory);
	if (fine)
		return headers;
	rd_kafka_headers_destroy(headers);
	return NULL;
}
