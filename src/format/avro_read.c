/*-------------------------------------------------------------------------
 *
 * avro_read.c
 *	  Avro records to the values that columns want, by a plan that is made once
 *	  for each schema that records are written with.
 *
 * Nothing of a record is believed: lengths and counts are compared with what it
 * has left, and whatever it makes us visit is paid from a budget that its
 * length gives, because items of an array may take no bytes at all.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "common/int.h"
#include "format/avro.h"
#include "format/text.h"
#include "mb/pg_wchar.h"

#define FREE_PLACES		4000	/* values that take no bytes, however short the record is */
#define FREE_TEXT		(16 * 1024)	/* of its objects and arrays, as JSON */
#define MAX_DECIMAL		1024	/* bytes of a decimal number that is read; a numeric with 2466 digits */
#define EPOCH_DAYS		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)

/* A type of the writer's, and what is wanted of it. */
typedef struct ReadNode
{
	const KdaAvroType *type;
	int		   *slots;			/* that take the whole value */
	int			nslots;
	struct ReadNode **children; /* record: by field; union: by branch; map: by key.  NULL: skipped */
	char	  **keys;			/* map */
	int			nchildren;
} ReadNode;

struct KdaAvroPlan
{
	ReadNode   *root;
	KdaValue   *defaults;		/* [n]: of slots that records of this schema say nothing of */
	int			n;
};

typedef struct Reader
{
	const char *p;
	const char *end;
	int64		budget;
	int			max_depth;
	Size		max_text;
	MemoryContext temp;
	KdaDecodeError *error;
} Reader;

/*---- primitive parts */

static inline bool
malformed(Reader *r, const char *what)
{
	(void) kda_decode_error(r->error, "malformed", "Avro: %s", what);
	return false;
}

static bool
read_long(Reader *r, int64 *value)
{
	uint64		n = 0;
	int			shift = 0;
	unsigned char b;

	do
	{
		if (r->p >= r->end)
			return malformed(r, "the record ends inside of a number");
		b = (unsigned char) *r->p++;
		/* of the tenth byte one bit is left */
		if (shift > 63 || (shift == 63 && b > 1))
			return malformed(r, "a number has more than 64 bits");
		n |= (uint64) (b & 0x7f) << shift;
		shift += 7;
	} while (b & 0x80);
	*value = (int64) (n >> 1) ^ -(int64) (n & 1);
	return true;
}

/* So many bytes are there; they are passed. */
static inline bool
take(Reader *r, int64 len, const char **from)
{
	if (unlikely(len < 0 || len > r->end - r->p))
		return malformed(r, "a length goes beyond the end of the record");
	*from = r->p;
	r->p += len;
	return true;
}

/* A length and so many bytes. */
static inline bool
read_bytes(Reader *r, const char **from, uint32 *len)
{
	int64		n;

	if (!read_long(r, &n) || !take(r, n, from))
		return false;
	*len = (uint32) n;
	return true;
}

static bool
read_utf8(Reader *r, const char **from, uint32 *len)
{
	if (!read_bytes(r, from, len))
		return false;
	if (memchr(*from, '\0', *len))
		return malformed(r, "a string contains a zero byte");
	if (pg_encoding_verifymbstr(PG_UTF8, *from, *len) != (int) *len)
		return malformed(r, "a string is not valid UTF-8");
	return true;
}

static inline bool
visit(Reader *r, int depth)
{
	if (unlikely(--r->budget < 0))
		return malformed(r, "the record has more values than bytes");
	if (unlikely(depth > r->max_depth))
		return kda_decode_error(r->error, "too_large", "Avro: the record is nested deeper than kda_stream.max_json_depth allows (%d)",
								r->max_depth);
	return true;
}

/* How many items the next block of an array or map has; bytes: of all of them, -1: not said. */
static bool
read_block(Reader *r, int64 *count, int64 *bytes)
{
	*bytes = -1;
	if (!read_long(r, count))
		return false;
	if (*count >= 0)
		return true;
	if (*count == PG_INT64_MIN || !read_long(r, bytes))
		return malformed(r, "a block has no valid size");
	*count = -*count;
	if (*bytes < 0 || *bytes > r->end - r->p)
		return malformed(r, "a block goes beyond the end of the record");
	return true;
}

static bool
read_branch(Reader *r, const KdaAvroType *type, int *branch)
{
	int64		n;

	if (!read_long(r, &n))
		return false;
	if (n < 0 || n >= type->nbranches)
		return malformed(r, "a union has no such branch");
	*branch = (int) n;
	return true;
}

static bool
read_symbol(Reader *r, const KdaAvroType *type, const char **symbol)
{
	int64		n;

	if (!read_long(r, &n))
		return false;
	if (n < 0 || n >= type->nsymbols)
		return malformed(r, "an enum has no such symbol");
	*symbol = type->symbols[n];
	return true;
}

static uint64
little_endian(const char *p, int n)
{
	uint64		bits = 0;

	for (int i = n - 1; i >= 0; i--)
		bits = bits << 8 | (unsigned char) p[i];
	return bits;
}

static bool
skip(Reader *r, const KdaAvroType *type, int depth)
{
	const char *from;
	uint32		len;
	int64		n,
				bytes;
	int			branch;
	const char *symbol;

	if (!visit(r, depth))
		return false;
	switch (type->kind)
	{
		case KDA_AVRO_NULL:
			return true;
		case KDA_AVRO_BOOLEAN:
			return take(r, 1, &from);
		case KDA_AVRO_INT:
		case KDA_AVRO_LONG:
			return read_long(r, &n);
		case KDA_AVRO_FLOAT:
			return take(r, 4, &from);
		case KDA_AVRO_DOUBLE:
			return take(r, 8, &from);
		case KDA_AVRO_BYTES:
		case KDA_AVRO_STRING:
			return read_bytes(r, &from, &len);
		case KDA_AVRO_FIXED:
			return take(r, type->size, &from);
		case KDA_AVRO_ENUM:
			return read_symbol(r, type, &symbol);
		case KDA_AVRO_UNION:
			return read_branch(r, type, &branch) && skip(r, type->branches[branch], depth + 1);
		case KDA_AVRO_RECORD:
			for (int i = 0; i < type->nfields; i++)
				if (!skip(r, type->fields[i].type, depth + 1))
					return false;
			return true;
		case KDA_AVRO_ARRAY:
		case KDA_AVRO_MAP:
			for (;;)
			{
				if (!read_block(r, &n, &bytes))
					return false;
				if (n == 0)
					return true;
				if (bytes >= 0)
				{
					r->p += bytes;
					continue;
				}
				for (; n > 0; n--)
					if ((type->kind == KDA_AVRO_MAP && !read_bytes(r, &from, &len)) ||
						!skip(r, type->branches[0], depth + 1))
						return false;
			}
	}
	return false;				/* not reached */
}

/*---- values */

static inline void
set_text(KdaValue *v, KdaValueKind kind, const char *p, Size len)
{
	v->kind = kind;
	v->p = p;
	v->len = (uint32) len;
}

/* What a number of that type means; NULL, or why it means nothing. */
static const char *
set_integer(const KdaAvroType *type, int64 n, KdaValue *v)
{
	int64		unit = 1;

	v->kind = KDA_VALUE_INTEGER;
	v->integer = n;
	switch (type->logical)
	{
		case KDA_AVRO_DATE:
			v->kind = KDA_VALUE_DAY;
			v->integer = n - EPOCH_DAYS;
			return NULL;
		case KDA_AVRO_TIME_MILLIS:
		case KDA_AVRO_TIME_MICROS:
			unit = type->logical == KDA_AVRO_TIME_MILLIS ? 1000 : 1;
			if (n < 0 || n > USECS_PER_DAY / unit)
				return "a time of day is out of range";
			v->kind = KDA_VALUE_CLOCK;
			v->integer = n * unit;
			return NULL;
		case KDA_AVRO_TIMESTAMP_MILLIS:
		case KDA_AVRO_LOCAL_MILLIS:
		case KDA_AVRO_TIMESTAMP_MICROS:
		case KDA_AVRO_LOCAL_MICROS:
			if (type->logical == KDA_AVRO_TIMESTAMP_MILLIS || type->logical == KDA_AVRO_LOCAL_MILLIS)
				unit = 1000;
			v->kind = type->logical == KDA_AVRO_TIMESTAMP_MILLIS || type->logical == KDA_AVRO_TIMESTAMP_MICROS ?
				KDA_VALUE_MOMENT : KDA_VALUE_WALL;
			if (pg_mul_s64_overflow(n, unit, &n) ||
				pg_sub_s64_overflow(n, (int64) EPOCH_DAYS * USECS_PER_DAY, &v->integer) ||
				!IS_VALID_TIMESTAMP(v->integer))
				return "a time is out of range";
			return NULL;
		default:
			return NULL;
	}
}

/*
 * A decimal number: an integer of any length, the most significant byte first,
 * with so many digits after the point.
 */
static const char *
set_decimal(const char *p, Size len, int scale, MemoryContext temp, KdaValue *v)
{
	uint32		limbs[MAX_DECIMAL * 8 / 29 + 2] = {0};	/* of nine digits, the least first */
	int			nlimbs = 1;
	bool		negative = len > 0 && (p[0] & 0x80);
	char		digits[lengthof(limbs) * 9 + 1];
	int			ndigits = 0;
	char	   *text;
	char	   *out;

	if (len > MAX_DECIMAL)
		return "a decimal number is too long";
	for (Size i = 0; i < len; i++)
	{
		/* of a negative number what is left to 0: all bits turned, and one more */
		uint64		carry = negative ? (unsigned char) ~p[i] : (unsigned char) p[i];

		for (int j = 0; j < nlimbs; j++)
		{
			carry += (uint64) limbs[j] << 8;
			limbs[j] = (uint32) (carry % 1000000000);
			carry /= 1000000000;
		}
		if (carry > 0)
			limbs[nlimbs++] = (uint32) carry;
	}
	for (int j = 0; negative && j <= nlimbs; j++)
	{
		if (j == nlimbs)
			nlimbs++;
		if (++limbs[j] < 1000000000)
			break;
		limbs[j] = 0;
	}
	/* the last digit first */
	for (int j = 0; j < nlimbs; j++)
		for (int k = 0; k < 9; k++, limbs[j] /= 10)
			digits[ndigits++] = '0' + limbs[j] % 10;
	while (ndigits > scale + 1 && digits[ndigits - 1] == '0')
		ndigits--;
	text = out = MemoryContextAlloc(temp, Max(ndigits, scale + 1) + 3);
	if (negative)
		*out++ = '-';
	for (int i = Max(ndigits, scale + 1) - 1; i >= 0; i--)
	{
		*out++ = i < ndigits ? digits[i] : '0';
		if (i == scale && scale > 0)
			*out++ = '.';
	}
	set_text(v, KDA_VALUE_NUMBER, text, out - text);
	return NULL;
}

/* Bytes, or what they mean. */
static const char *
set_bytes(const KdaAvroType *type, const char *p, Size len, MemoryContext temp, KdaValue *v)
{
	if (type->logical == KDA_AVRO_DECIMAL)
		return set_decimal(p, len, type->scale, temp, v);
	if (type->logical == KDA_AVRO_UUID)
	{
		char	   *text = MemoryContextAlloc(temp, 36);
		char	   *out = text;

		for (int i = 0; i < 16; i++)
		{
			if (i == 4 || i == 6 || i == 8 || i == 10)
				*out++ = '-';
			*out++ = kda_hex_digits[(unsigned char) p[i] >> 4];
			*out++ = kda_hex_digits[p[i] & 15];
		}
		set_text(v, KDA_VALUE_STRING, text, 36);
		return NULL;
	}
	set_text(v, KDA_VALUE_BYTES, p, len);
	return NULL;
}

static bool to_json(Reader *r, const KdaAvroType *type, StringInfo out, int depth);

/* A whole value: arrays, maps and records as JSON. */
static bool
read_value(Reader *r, const KdaAvroType *type, KdaValue *v, int depth)
{
	const char *from;
	const char *why = NULL;
	uint32		len;
	int64		n;
	int			branch;

	if (!visit(r, depth))
		return false;
	v->escaped = false;
	v->quality = 0;
	switch (type->kind)
	{
		case KDA_AVRO_NULL:
			v->kind = KDA_VALUE_NULL;
			return true;
		case KDA_AVRO_BOOLEAN:
			if (!take(r, 1, &from))
				return false;
			if (*from != 0 && *from != 1)
				return malformed(r, "a boolean is neither true nor false");
			if (*from)
				set_text(v, KDA_VALUE_TRUE, "true", 4);
			else
				set_text(v, KDA_VALUE_FALSE, "false", 5);
			return true;
		case KDA_AVRO_INT:
		case KDA_AVRO_LONG:
			if (!read_long(r, &n))
				return false;
			if (type->kind == KDA_AVRO_INT && (n < PG_INT32_MIN || n > PG_INT32_MAX))
				return malformed(r, "an int has more than 32 bits");
			why = set_integer(type, n, v);
			break;
		case KDA_AVRO_FLOAT:
			{
				uint32		bits;
				float		f;

				if (!take(r, 4, &from))
					return false;
				bits = (uint32) little_endian(from, 4);
				memcpy(&f, &bits, 4);
				v->kind = KDA_VALUE_FLOAT;
				v->number = f;
				return true;
			}
		case KDA_AVRO_DOUBLE:
			{
				uint64		bits;

				if (!take(r, 8, &from))
					return false;
				bits = little_endian(from, 8);
				memcpy(&v->number, &bits, 8);
				v->kind = KDA_VALUE_DOUBLE;
				return true;
			}
		case KDA_AVRO_BYTES:
			if (!read_bytes(r, &from, &len))
				return false;
			why = set_bytes(type, from, len, r->temp, v);
			break;
		case KDA_AVRO_FIXED:
			if (!take(r, type->size, &from))
				return false;
			why = set_bytes(type, from, type->size, r->temp, v);
			break;
		case KDA_AVRO_STRING:
			if (!read_utf8(r, &from, &len))
				return false;
			set_text(v, KDA_VALUE_STRING, from, len);
			return true;
		case KDA_AVRO_ENUM:
			if (!read_symbol(r, type, &from))
				return false;
			set_text(v, KDA_VALUE_STRING, from, strlen(from));
			return true;
		case KDA_AVRO_UNION:
			return read_branch(r, type, &branch) && read_value(r, type->branches[branch], v, depth + 1);
		case KDA_AVRO_ARRAY:
		case KDA_AVRO_MAP:
		case KDA_AVRO_RECORD:
			{
				MemoryContext old = MemoryContextSwitchTo(r->temp);
				StringInfoData out;
				bool		fine;

				initStringInfo(&out);
				r->budget++;	/* it is visited a second time */
				fine = to_json(r, type, &out, depth);
				MemoryContextSwitchTo(old);
				if (fine)
					set_text(v, type->kind == KDA_AVRO_ARRAY ? KDA_VALUE_ARRAY : KDA_VALUE_OBJECT, out.data, out.len);
				return fine;
			}
	}
	if (why)
		return kda_decode_error(r->error, "conversion", "Avro: %s", why);
	return true;
}

static bool
to_json(Reader *r, const KdaAvroType *type, StringInfo out, int depth)
{
	KdaValue	v = {0},
				text;
	const char *from;
	const char *why;
	uint32		len;
	int64		n,
				bytes;
	int			branch;
	bool		first = true;

	if ((Size) out->len > r->max_text)
		return kda_decode_error(r->error, "too_large", "Avro: a value has more than %zu bytes as JSON", r->max_text);
	switch (type->kind)
	{
		case KDA_AVRO_UNION:
			return visit(r, depth) && read_branch(r, type, &branch) && to_json(r, type->branches[branch], out, depth + 1);
		case KDA_AVRO_RECORD:
			if (!visit(r, depth))
				return false;
			kda_put(out, "{", 1);
			for (int i = 0; i < type->nfields; i++)
			{
				if (i > 0)
					kda_put(out, ",", 1);
				kda_write_json_string(out, type->fields[i].name, strlen(type->fields[i].name));
				kda_put(out, ":", 1);
				if (!to_json(r, type->fields[i].type, out, depth + 1))
					return false;
			}
			kda_put(out, "}", 1);
			return true;
		case KDA_AVRO_ARRAY:
		case KDA_AVRO_MAP:
			if (!visit(r, depth))
				return false;
			kda_put(out, type->kind == KDA_AVRO_ARRAY ? "[" : "{", 1);
			for (;;)
			{
				if (!read_block(r, &n, &bytes))
					return false;
				if (n == 0)
					break;
				for (; n > 0; n--)
				{
					if (!first)
						kda_put(out, ",", 1);
					first = false;
					if (type->kind == KDA_AVRO_MAP)
					{
						if (!read_utf8(r, &from, &len))
							return false;
						kda_write_json_string(out, from, len);
						kda_put(out, ":", 1);
					}
					if (!to_json(r, type->branches[0], out, depth + 1))
						return false;
				}
			}
			kda_put(out, type->kind == KDA_AVRO_ARRAY ? "]" : "}", 1);
			return true;
		default:
			if (!read_value(r, type, &v, depth))
				return false;
			why = v.kind == KDA_VALUE_NULL ? NULL : kda_value_as_text(&v, r->temp, &text);
			if (why)
				return kda_decode_error(r->error, "conversion", "Avro: %s", why);
			if (v.kind == KDA_VALUE_NULL)
				kda_put(out, "null", 4);
			else if (text.kind == KDA_VALUE_STRING)
				kda_write_json_string(out, text.p, text.len);
			else
				kda_put(out, text.p, text.len);
			return true;
	}
}

/*---- records */

static bool
read_node(Reader *r, const ReadNode *node, KdaValue *values, int depth)
{
	const KdaAvroType *type = node->type;

	if (node->nslots > 0)
	{
		const char *begin = r->p;
		KdaValue   *first = &values[node->slots[0]];

		if (!read_value(r, type, first, depth))
			return false;
		for (int i = 1; i < node->nslots; i++)
			values[node->slots[i]] = *first;
		if (node->nchildren == 0)
			return true;
		/* and parts of it */
		r->p = begin;
	}
	/* nothing of it is wanted */
	if (node->nchildren == 0)
		return skip(r, type, depth);
	if (!visit(r, depth))
		return false;
	switch (type->kind)
	{
		case KDA_AVRO_RECORD:
			for (int i = 0; i < type->nfields; i++)
				if (!(node->children[i] ? read_node(r, node->children[i], values, depth + 1) :
					  skip(r, type->fields[i].type, depth + 1)))
					return false;
			return true;
		case KDA_AVRO_UNION:
			{
				int			branch;

				if (!read_branch(r, type, &branch))
					return false;
				return node->children[branch] ? read_node(r, node->children[branch], values, depth + 1) :
					skip(r, type->branches[branch], depth + 1);
			}
		case KDA_AVRO_MAP:
			for (;;)
			{
				int64		n,
							bytes;

				if (!read_block(r, &n, &bytes))
					return false;
				if (n == 0)
					return true;
				for (; n > 0; n--)
				{
					const char *key;
					uint32		len;
					ReadNode   *child = NULL;

					if (!read_bytes(r, &key, &len))
						return false;
					for (int i = 0; i < node->nchildren; i++)
						if (strlen(node->keys[i]) == len && memcmp(node->keys[i], key, len) == 0)
							child = node->children[i];
					if (!(child ? read_node(r, child, values, depth + 1) : skip(r, type->branches[0], depth + 1)))
						return false;
				}
			}
		default:
			return skip(r, type, depth);
	}
}

bool
kda_avro_read(KdaAvroPlan *plan, const char *data, Size len, int max_depth, Size max_text, MemoryContext temp,
			  KdaRows *rows, KdaDecodeError *error)
{
	/*
	 * What takes no bytes (nulls, names of fields) is paid for by what does: a
	 * batch is measured by the bytes of its records.
	 */
	Reader		r = {data, data + len, (int64) len * 16 + FREE_PLACES, max_depth, Min(max_text, len * 64 + FREE_TEXT), temp, error};
	KdaValue   *values = kda_rows_add(rows);

	if (plan->n > 0)
		memcpy(values, plan->defaults, sizeof(KdaValue) * plan->n);
	if (!read_node(&r, plan->root, values, 0))
		return false;
	if (r.p != r.end)
		return malformed(&r, "the record is longer than its schema says");
	return true;
}

/*---- plans */

typedef struct Planning
{
	MemoryContext context;
	KdaAvroPlan *plan;
	const KdaAvroWish *wishes;
	bool	   *found;
	int			nodes;			/* made so far: records in unions in records could be very many */
} Planning;

static bool
same_name(const char *a, const char *b, bool any_case)
{
	return any_case ? pg_strcasecmp(a, b) == 0 : strcmp(a, b) == 0;
}

static int
find_field(const KdaAvroType *record, const char *name, bool any_case)
{
	for (int i = 0; i < record->nfields; i++)
		if (strcmp(record->fields[i].name, name) == 0)
			return i;
	for (int i = 0; any_case && i < record->nfields; i++)
		if (pg_strcasecmp(record->fields[i].name, name) == 0)
			return i;
	return -1;
}

static int
find_alias(const KdaAvroType *record, const char *name, bool any_case)
{
	for (int i = 0; i < record->nfields; i++)
		for (int j = 0; j < record->fields[i].naliases; j++)
			if (same_name(record->fields[i].aliases[j], name, any_case))
				return i;
	return -1;
}

/* The record that a value of the type can be; NULL: it is none. */
static const KdaAvroType *
record_of(const KdaAvroType *type)
{
	if (type && type->kind == KDA_AVRO_UNION)
		for (int i = 0; i < type->nbranches; i++)
			if (type->branches[i]->kind == KDA_AVRO_RECORD)
				return type->branches[i];
	return type && type->kind == KDA_AVRO_RECORD ? type : NULL;
}

/* Bytes of a default: each character stands for the byte of its number. */
static Size
latin1(const char *p, Size len, char *out)
{
	char	   *from = out;

	for (Size i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) p[i];

		if (c >= 0xc0 && i + 1 < len)
			c = (unsigned char) (c << 6 | (p[++i] & 0x3f));
		*out++ = (char) c;
	}
	return out - from;
}

/* A reader's default; the first branch of a union is the one that it is of. */
static void
set_default(Planning *planning, const KdaAvroField *field, KdaValue *v)
{
	const KdaAvroType *type = field->type;
	const char *json = field->default_json;
	Size		len;
	char	   *text;
	const char *why;

	if (json == NULL)
		return;
	if (type->kind == KDA_AVRO_UNION && type->nbranches > 0)
		type = type->branches[0];
	len = strlen(json);
	memset(v, 0, sizeof(*v));
	if (json[0] == '"')
	{
		int			n;

		text = MemoryContextAlloc(planning->context, len + 1);
		n = kda_json_unescape(json + 1, (uint32) len - 2, text, &why);
		if (n < 0)
			return;
		if (type->kind == KDA_AVRO_BYTES || type->kind == KDA_AVRO_FIXED)
		{
			char	   *bytes = MemoryContextAlloc(planning->context, n + 1);
			Size		nbytes = latin1(text, n, bytes);

			if (type->kind == KDA_AVRO_FIXED && nbytes != type->size)
				return;
			if (set_bytes(type, bytes, nbytes, planning->context, v) != NULL)
				memset(v, 0, sizeof(*v));
		}
		else
			set_text(v, KDA_VALUE_STRING, text, n);
	}
	else if (type->kind == KDA_AVRO_INT || type->kind == KDA_AVRO_LONG)
	{
		if (set_integer(type, strtoi64(json, NULL, 10), v) != NULL)
			memset(v, 0, sizeof(*v));
	}
	else
		set_text(v, json[0] == 'n' ? KDA_VALUE_NULL : json[0] == 't' ? KDA_VALUE_TRUE : json[0] == 'f' ? KDA_VALUE_FALSE :
				 json[0] == '{' ? KDA_VALUE_OBJECT : json[0] == '[' ? KDA_VALUE_ARRAY : KDA_VALUE_NUMBER, json, len);
}

/*
 * Which field of the writer's a key means: the reader's field of that name, and
 * that by its own name or its aliases; what the reader does not know, by the
 * name or the aliases that the writer gives it.
 */
static int
resolve(const KdaAvroType *writer, const KdaAvroType *reader, const char *key, bool any_case, const KdaAvroField **wanted)
{
	int			i = reader ? find_field(reader, key, any_case) : -1;
	int			found;

	*wanted = NULL;
	if (i >= 0)
	{
		const KdaAvroField *field = &reader->fields[i];

		*wanted = field;
		found = find_field(writer, field->name, false);
		for (int j = 0; found < 0 && j < field->naliases; j++)
			found = find_field(writer, field->aliases[j], false);
		return found;
	}
	found = find_field(writer, key, any_case);
	return found >= 0 ? found : find_alias(writer, key, any_case);
}

/* wishes: those that have come here (numbers), by their first at keys. */
static ReadNode *
build(Planning *planning, const KdaAvroType *type, const KdaAvroType *reader, const int *wishes, int n, int at)
{
	ReadNode   *node = MemoryContextAllocZero(planning->context, sizeof(ReadNode));
	int		   *deeper = MemoryContextAllocZero(planning->context, sizeof(int) * Max(n, 1));
	int		   *rest = MemoryContextAllocZero(planning->context, sizeof(int) * Max(n, 1));
	int			ndeeper = 0;

	node->type = type;
	node->slots = MemoryContextAllocZero(planning->context, sizeof(int) * Max(n, 1));
	for (int i = 0; i < n; i++)
		if (planning->wishes[wishes[i]].nkeys == at)
		{
			node->slots[node->nslots++] = wishes[i];
			planning->found[wishes[i]] = true;
		}
		else
			deeper[ndeeper++] = wishes[i];
	if (ndeeper == 0 || ++planning->nodes > KDA_AVRO_MAX_NODES)
		return node;
	if (type->kind == KDA_AVRO_UNION)
	{
		node->nchildren = type->nbranches;
		node->children = MemoryContextAllocZero(planning->context, sizeof(ReadNode *) * Max(node->nchildren, 1));
		for (int i = 0; i < type->nbranches; i++)
			/* no schema has a union directly in another */
			if (type->branches[i]->kind != KDA_AVRO_UNION)
				node->children[i] = build(planning, type->branches[i], reader, deeper, ndeeper, at);
	}
	else if (type->kind == KDA_AVRO_RECORD)
	{
		reader = record_of(reader);
		node->nchildren = type->nfields;
		node->children = MemoryContextAllocZero(planning->context, sizeof(ReadNode *) * Max(node->nchildren, 1));
		for (int i = 0; i < ndeeper; i++)
		{
			const KdaAvroWish *wish = &planning->wishes[deeper[i]];
			const KdaAvroField *wanted;
			int			field = resolve(type, reader, wish->keys[at], wish->any_case, &wanted);
			int			nrest = 0;

			if (field < 0)
			{
				if (wanted && at + 1 == wish->nkeys)
					set_default(planning, wanted, &planning->plan->defaults[deeper[i]]);
				continue;
			}
			if (node->children[field])
				continue;		/* with one before it */
			for (int j = i; j < ndeeper; j++)
			{
				const KdaAvroField *same;

				if (resolve(type, reader, planning->wishes[deeper[j]].keys[at], planning->wishes[deeper[j]].any_case, &same) == field)
					rest[nrest++] = deeper[j];
			}
			node->children[field] = build(planning, type->fields[field].type, wanted ? wanted->type : NULL, rest, nrest, at + 1);
		}
	}
	else if (type->kind == KDA_AVRO_MAP)
	{
		node->children = MemoryContextAllocZero(planning->context, sizeof(ReadNode *) * ndeeper);
		node->keys = MemoryContextAllocZero(planning->context, sizeof(char *) * ndeeper);
		for (int i = 0; i < ndeeper; i++)
		{
			char	   *key = planning->wishes[deeper[i]].keys[at];
			int			nrest = 0;

			for (int j = 0; j < node->nchildren && key; j++)
				if (strcmp(node->keys[j], key) == 0)
					key = NULL;
			if (key == NULL)
				continue;
			for (int j = i; j < ndeeper; j++)
				if (strcmp(planning->wishes[deeper[j]].keys[at], key) == 0)
					rest[nrest++] = deeper[j];
			node->keys[node->nchildren] = key;
			node->children[node->nchildren++] = build(planning, type->branches[0], NULL, rest, nrest, at + 1);
		}
	}
	return node;
}

KdaAvroPlan *
kda_avro_plan(MemoryContext context, const KdaAvroType *writer, const KdaAvroType *reader, const KdaAvroWish *wishes, int n,
			  KdaDecodeError *error)
{
	Planning	planning = {context, MemoryContextAllocZero(context, sizeof(KdaAvroPlan)), wishes};
	int		   *all = MemoryContextAllocZero(context, sizeof(int) * Max(n, 1));
	bool		keys = false;

	planning.found = MemoryContextAllocZero(context, sizeof(bool) * Max(n, 1));
	planning.plan->defaults = MemoryContextAllocZero(context, sizeof(KdaValue) * Max(n, 1));
	planning.plan->n = n;
	for (int i = 0; i < n; i++)
	{
		all[i] = i;
		keys |= wishes[i].nkeys > 0;
	}
	if (keys && record_of(writer) == NULL && writer->kind != KDA_AVRO_MAP)
	{
		kda_decode_error(error, "malformed", "Avro: the schema is not one of records; a column with path '$' takes the value itself");
		return NULL;
	}
	planning.plan->root = build(&planning, writer, reader, all, n, 0);
	if (planning.nodes > KDA_AVRO_MAX_NODES)
	{
		kda_decode_error(error, "malformed", "Avro: the paths of the columns lead to more than %d places of the schema", KDA_AVRO_MAX_NODES);
		return NULL;
	}
	return planning.plan;
}
