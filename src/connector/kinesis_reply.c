/*-------------------------------------------------------------------------
 *
 * kinesis_reply.c
 *	  Reads what Kinesis answers, where it lies.
 *
 * A scanner over JSON that knows no more than what these answers need: it
 * finds the ends of values fast (memchr over strings) and checks the structure
 * only of what it takes.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/kinesis_reply.h"

#include <string.h>

#define MAX_DEPTH	64

typedef struct Scan
{
	char	   *p;
	char	   *end;			/* *end is '\0' */
} Scan;

/* A string as it stands between its quotes. */
typedef struct Piece
{
	char	   *p;
	size_t		len;
	bool		escapes;
} Piece;

static inline void
skip_space(Scan *s)
{
	while (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r')
		s->p++;
}

static inline bool
take(Scan *s, char c)
{
	skip_space(s);
	if (*s->p != c || s->p >= s->end)
		return false;
	s->p++;
	return true;
}

static inline bool
take_string(Scan *s, Piece *piece)
{
	char	   *from;
	char	   *q;

	if (!take(s, '"'))
		return false;
	from = q = s->p;
	for (;; q++)
	{
		char	   *b;

		q = memchr(q, '"', s->end - q);
		if (q == NULL)
			return false;
		/* an odd number of backslashes before it makes it a part of the string */
		for (b = q; b > from && b[-1] == '\\'; b--)
			;
		if ((q - b) % 2 == 0)
			break;
	}
	piece->p = from;
	piece->len = q - from;
	piece->escapes = memchr(from, '\\', piece->len) != NULL;
	s->p = q + 1;
	return true;
}

/* A value of any kind. */
static bool
skip_value(Scan *s)
{
	int			depth = 0;
	Piece		piece;

	do
	{
		skip_space(s);
		if (s->p >= s->end)
			return false;
		switch (*s->p)
		{
			case '"':
				if (!take_string(s, &piece))
					return false;
				break;
			case '{':
			case '[':
				if (++depth > MAX_DEPTH)
					return false;
				s->p++;
				break;
			case '}':
			case ']':
				if (--depth < 0)
					return false;
				s->p++;
				break;
			case ',':
			case ':':
				if (depth == 0)
					return false;
				s->p++;
				break;
			default:
				{
					char	   *from = s->p;

					while ((*s->p >= '0' && *s->p <= '9') || (*s->p >= 'a' && *s->p <= 'z') ||
						   *s->p == '.' || *s->p == '-' || *s->p == '+' || *s->p == 'E')
						s->p++;
					if (s->p == from)
						return false;
				}
		}
	} while (depth > 0);
	return true;
}

/*---- escapes */

static bool
hex4(const char *p, uint32 *c)
{
	*c = 0;
	for (int i = 0; i < 4; i++)
	{
		char		d = p[i];

		if (d >= '0' && d <= '9')
			*c = *c * 16 + (d - '0');
		else if ((d | 0x20) >= 'a' && (d | 0x20) <= 'f')
			*c = *c * 16 + ((d | 0x20) - 'a' + 10);
		else
			return false;
	}
	return true;
}

static char *
put_utf8(char *to, uint32 c)
{
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
	return to;
}

/* What is written is never longer than what was read. */
static bool
unescape(Piece *piece)
{
	char	   *p = piece->p;
	char	   *end = p + piece->len;
	char	   *to = p;

	while (p < end)
	{
		static const char from[] = "\"\\/bfnrt";
		static const char meant[] = "\"\\/\b\f\n\r\t";
		const char *e;
		uint32		c,
					low;

		if (*p != '\\')
		{
			*to++ = *p++;
			continue;
		}
		if (++p >= end)
			return false;
		if (*p != 'u')
		{
			e = *p ? strchr(from, *p++) : NULL;
			if (e == NULL)
				return false;
			*to++ = meant[e - from];
			continue;
		}
		p++;
		if (end - p < 4 || !hex4(p, &c))
			return false;
		p += 4;
		if (c >= 0xD800 && c <= 0xDBFF)
		{
			if (end - p < 6 || p[0] != '\\' || p[1] != 'u' || !hex4(p + 2, &low) || low < 0xDC00 || low > 0xDFFF)
				return false;
			p += 6;
			c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
		}
		else if (c >= 0xDC00 && c <= 0xDFFF)
			return false;
		to = put_utf8(to, c);
	}
	piece->len = to - piece->p;
	piece->escapes = false;
	return true;
}

/* As text that ends with a zero: its closing quote has been passed. */
static bool
end_text(Piece *piece)
{
	if (piece->escapes && !unescape(piece))
		return false;
	piece->p[piece->len] = '\0';
	return true;
}

static bool
take_text(Scan *s, char **text)
{
	Piece		piece;

	if (!take_string(s, &piece) || !end_text(&piece))
		return false;
	*text = piece.p;
	return true;
}

static inline bool
is_named(const Piece *name, const char *what)
{
	return name->len == strlen(what) && memcmp(name->p, what, name->len) == 0;
}

/* "name": of the next field.  False at the object's end, and in what is no object. */
static bool
take_name(Scan *s, bool *first, bool *end, Piece *name)
{
	*end = false;
	if (take(s, '}'))
	{
		*end = true;
		return false;
	}
	if (!*first && !take(s, ','))
		return false;
	*first = false;
	return take_string(s, name) && take(s, ':');
}

/*---- base64 */

#define X	255

static const uint8 digits[256] = {
	X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X,
	X, X, X, X, X, X, X, X, X, X, X, 62, X, X, X, 63, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, X, X, X, X, X, X,
	X, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, X, X, X, X, X,
	X, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, X, X, X, X, X,
	X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X,
	X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X,
	X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X,
	X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X
};

ssize_t
kda_kinesis_base64(char *data, size_t len)
{
	const uint8 *p = (const uint8 *) data;
	uint8	   *to = (uint8 *) data;
	uint8		bad = 0;
	size_t		tail;

	if (len % 4 != 0)
		return -1;
	if (len == 0)
		return 0;
	/* all but the last four, which may be padded; a digit has two bits to spare */
	for (size_t i = 0; i < len / 4 - 1; i++, p += 4, to += 3)
	{
		uint8		a = digits[p[0]],
					b = digits[p[1]],
					c = digits[p[2]],
					d = digits[p[3]];

		bad |= a | b | c | d;
		to[0] = (a << 2) | (b >> 4);
		to[1] = (b << 4) | (c >> 2);
		to[2] = (c << 6) | d;
	}
	tail = p[3] != '=' ? 3 : p[2] != '=' ? 2 : 1;
	{
		uint8		a = digits[p[0]],
					b = digits[p[1]],
					c = tail > 1 ? digits[p[2]] : 0,
					d = tail > 2 ? digits[p[3]] : 0;

		bad |= a | b | c | d;
		to[0] = (a << 2) | (b >> 4);
		if (tail > 1)
			to[1] = (b << 4) | (c >> 2);
		if (tail > 2)
			to[2] = (c << 6) | d;
	}
	if (bad & 0xC0)
		return -1;
	return (ssize_t) (to - (uint8 *) data + tail);
}

/*---- numbers */

/* Seconds, with fraction and exponent as services write them, as ms; -1: no such number. */
static int64
take_seconds(Scan *s)
{
	int64		n = 0;
	int			scale = 3;		/* n * 10^(scale - 3) seconds */
	bool		any = false;

	skip_space(s);
	for (; *s->p >= '0' && *s->p <= '9'; s->p++, any = true)
		if (n < INT64CONST(100000000000000000))
			n = n * 10 + (*s->p - '0');
		else
			scale++;
	if (*s->p == '.')
		for (s->p++; *s->p >= '0' && *s->p <= '9'; s->p++)
			if (n < INT64CONST(100000000000000000))
			{
				n = n * 10 + (*s->p - '0');
				scale--;
			}
	if (*s->p == 'e' || *s->p == 'E')
	{
		int			exponent = 0;
		bool		minus = false;

		s->p++;
		if (*s->p == '+' || *s->p == '-')
			minus = *s->p++ == '-';
		for (; *s->p >= '0' && *s->p <= '9' && exponent < 1000; s->p++)
			exponent = exponent * 10 + (*s->p - '0');
		scale += minus ? -exponent : exponent;
	}
	if (!any)
		return -1;
	for (; scale > 0; scale--)
	{
		if (n > INT64CONST(100000000000000000))
			return -1;
		n *= 10;
	}
	for (; scale < 0 && n > 0; scale++)
		n = scale == -1 ? (n + 5) / 10 : n / 10;
	return n;
}

static bool
take_integer(Scan *s, int64 *n)
{
	bool		any = false;

	skip_space(s);
	*n = 0;
	for (; *s->p >= '0' && *s->p <= '9'; s->p++, any = true)
		if (*n < INT64CONST(100000000000000000))
			*n = *n * 10 + (*s->p - '0');
	return any;
}

static bool
is_digits(const char *text, size_t most)
{
	size_t		len = strspn(text, "0123456789");

	return len > 0 && len <= most && text[len] == '\0' && (text[0] != '0' || len == 1);
}

int
kda_kinesis_compare(const char *a, const char *b)
{
	size_t		la = strlen(a);
	size_t		lb = strlen(b);

	return la != lb ? (la < lb ? -1 : 1) : strcmp(a, b);
}

/*---- GetRecords */

/* [{"ShardId": ..., ...}, ...] */
static bool
take_children(Scan *s, KdaKinesisPage *page)
{
	if (!take(s, '['))
		return false;
	if (take(s, ']'))
		return true;
	do
	{
		bool		first = true,
					end;
		Piece		name;

		if (!take(s, '{'))
			return false;
		while (take_name(s, &first, &end, &name))
		{
			char	   *id;

			if (!is_named(&name, "ShardId"))
			{
				if (!skip_value(s))
					return false;
				continue;
			}
			if (!take_text(s, &id))
				return false;
			if (page->nchildren < KDA_KINESIS_CHILDREN)
				page->children[page->nchildren++] = id;
		}
		if (!end)
			return false;
	} while (take(s, ','));
	return take(s, ']');
}

static bool
take_null(Scan *s)
{
	skip_space(s);
	if (s->end - s->p < 4 || memcmp(s->p, "null", 4) != 0)
		return false;
	s->p += 4;
	return true;
}

bool
kda_kinesis_page(KdaKinesisPage *page, char *data, size_t len)
{
	Scan		s = {data, data + len};
	bool		first = true,
				end;
	Piece		name;

	memset(page, 0, sizeof(KdaKinesisPage));
	page->millis_behind = -1;
	page->end = s.end;
	page->first = true;
	if (!take(&s, '{'))
		return false;
	while (take_name(&s, &first, &end, &name))
	{
		if (is_named(&name, "Records"))
		{
			skip_space(&s);
			page->next = s.p + 1;
			if (*s.p != '[' || !skip_value(&s))
				return false;
			page->empty = page->next[strspn(page->next, " \n\t\r")] == ']';
		}
		else if (is_named(&name, "NextShardIterator"))
		{
			if (!take_null(&s) && !take_text(&s, &page->iterator))
				return false;
		}
		else if (is_named(&name, "MillisBehindLatest"))
		{
			if (!take_null(&s) && !take_integer(&s, &page->millis_behind))
				return false;
		}
		else if (is_named(&name, "ChildShards"))
		{
			if (!take_null(&s) && !take_children(&s, page))
				return false;
		}
		else if (!skip_value(&s))
			return false;
	}
	return end && page->next != NULL;
}

KdaKinesisNext
kda_kinesis_next(KdaKinesisPage *page, KdaKinesisRecord *record)
{
	Scan		s = {page->next, page->end};
	bool		first = true,
				end;
	Piece		name;
	Piece		data = {0};

	if (page->next == NULL)
		return KDA_KINESIS_NO_MORE;
	if (take(&s, ']'))
	{
		page->next = NULL;
		return KDA_KINESIS_NO_MORE;
	}
	memset(record, 0, sizeof(KdaKinesisRecord));
	record->arrival_ms = -1;
	page->next = NULL;
	if ((!page->first && !take(&s, ',')) || !take(&s, '{'))
		return KDA_KINESIS_BROKEN;
	page->first = false;
	while (take_name(&s, &first, &end, &name))
	{
		Piece		piece;

		if (is_named(&name, "Data"))
		{
			if (!take_string(&s, &data) || (data.escapes && !unescape(&data)))
				return KDA_KINESIS_BROKEN;
		}
		else if (is_named(&name, "SequenceNumber"))
		{
			if (!take_text(&s, &record->sequence))
				return KDA_KINESIS_BROKEN;
		}
		else if (is_named(&name, "PartitionKey"))
		{
			if (!take_string(&s, &piece) || !end_text(&piece))
				return KDA_KINESIS_BROKEN;
			record->key = piece.p;
			record->key_len = piece.len;
		}
		else if (is_named(&name, "ApproximateArrivalTimestamp"))
		{
			if (!take_null(&s) && (record->arrival_ms = take_seconds(&s)) < 0)
				return KDA_KINESIS_BROKEN;
		}
		else if (!skip_value(&s))
			return KDA_KINESIS_BROKEN;
	}
	if (!end || data.p == NULL || record->sequence == NULL || !is_digits(record->sequence, 129))
		return KDA_KINESIS_BROKEN;
	{
		ssize_t		n = kda_kinesis_base64(data.p, data.len);

		if (n < 0)
			return KDA_KINESIS_BROKEN;
		record->data = data.p;
		record->len = n;
	}
	page->next = s.p;
	return KDA_KINESIS_RECORD;
}

/*---- the other answers */

static bool
take_hashes(Scan *s, KdaKinesisShardInfo *shard)
{
	bool		first = true,
				end;
	Piece		name;

	if (!take(s, '{'))
		return false;
	while (take_name(s, &first, &end, &name))
		if (is_named(&name, "StartingHashKey") ? !take_text(s, &shard->from_hash) :
			is_named(&name, "EndingHashKey") ? !take_text(s, &shard->to_hash) : !skip_value(s))
			return false;
	return end;
}

static bool
take_range(Scan *s, KdaKinesisShardInfo *shard)
{
	bool		first = true,
				end;
	Piece		name;

	if (!take(s, '{'))
		return false;
	while (take_name(s, &first, &end, &name))
	{
		if (is_named(&name, "EndingSequenceNumber") && !take_null(s))
			shard->ended = true;
		else if (is_named(&name, "EndingSequenceNumber"))
			continue;
		if (!skip_value(s))
			return false;
	}
	return end;
}

static bool
take_shard(Scan *s, KdaKinesisShardInfo *shard)
{
	bool		first = true,
				end;
	Piece		name;

	memset(shard, 0, sizeof(KdaKinesisShardInfo));
	shard->from_hash = shard->to_hash = "";
	if (!take(s, '{'))
		return false;
	while (take_name(s, &first, &end, &name))
	{
		bool		ok;

		if (is_named(&name, "ShardId"))
			ok = take_text(s, &shard->id);
		else if (is_named(&name, "ParentShardId"))
			ok = take_null(s) || take_text(s, &shard->parents[0]);
		else if (is_named(&name, "AdjacentParentShardId"))
			ok = take_null(s) || take_text(s, &shard->parents[1]);
		else if (is_named(&name, "HashKeyRange"))
			ok = take_hashes(s, shard);
		else if (is_named(&name, "SequenceNumberRange"))
			ok = take_range(s, shard);
		else
			ok = skip_value(s);
		if (!ok)
			return false;
	}
	return end && shard->id != NULL;
}

bool
kda_kinesis_shards(char *data, size_t len, bool (*add) (void *arg, const KdaKinesisShardInfo *shard), void *arg, char **token)
{
	Scan		s = {data, data + len};
	bool		first = true,
				end;
	Piece		name;
	bool		found = false;

	*token = NULL;
	if (!take(&s, '{'))
		return false;
	while (take_name(&s, &first, &end, &name))
	{
		if (is_named(&name, "NextToken"))
		{
			if (!take_null(&s) && !take_text(&s, token))
				return false;
		}
		else if (is_named(&name, "Shards"))
		{
			found = true;
			if (!take(&s, '['))
				return false;
			if (take(&s, ']'))
				continue;
			do
			{
				KdaKinesisShardInfo shard;

				if (!take_shard(&s, &shard) || !add(arg, &shard))
					return false;
			} while (take(&s, ','));
			if (!take(&s, ']'))
				return false;
		}
		else if (!skip_value(&s))
			return false;
	}
	return end && found;
}

bool
kda_kinesis_summary(char *data, size_t len, KdaKinesisSummary *summary)
{
	Scan		s = {data, data + len};
	bool		first = true,
				end;
	Piece		name;

	summary->status = "";
	summary->created_ms = summary->retention_hours = 0;
	if (!take(&s, '{') || !take_string(&s, &name) || !is_named(&name, "StreamDescriptionSummary") || !take(&s, ':') || !take(&s, '{'))
		return false;
	while (take_name(&s, &first, &end, &name))
	{
		bool		ok;

		if (is_named(&name, "StreamStatus"))
			ok = take_text(&s, &summary->status);
		else if (is_named(&name, "RetentionPeriodHours"))
			ok = take_integer(&s, &summary->retention_hours);
		else if (is_named(&name, "StreamCreationTimestamp"))
			ok = (summary->created_ms = take_seconds(&s)) >= 0;
		else
			ok = skip_value(&s);
		if (!ok)
			return false;
	}
	return end;
}

char *
kda_kinesis_string(char *data, size_t len, const char *name)
{
	Scan		s = {data, data + len};
	bool		first = true,
				end;
	Piece		field;

	if (!take(&s, '{'))
		return NULL;
	while (take_name(&s, &first, &end, &field))
	{
		char	   *text;

		if (is_named(&field, name))
			return take_text(&s, &text) ? text : NULL;

		if (!skip_value(&s))
			break;
	}
	return NULL;
}
