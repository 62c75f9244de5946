/*-------------------------------------------------------------------------
 *
 * json.c
 *	  One pass over a JSON text (RFC 8259): checks all of it and notes where the
 *	  values of the wanted paths are.  Copies and allocates nothing but rows.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "format/value.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#define KEY_BYTES	32			/* longer keys are not expected */
#define MAX_KEYS	64			/* nor are more of them in one object */

/*
 * A key as it stood in the last object of its kind, with quotes and colon: the
 * records of a stream mostly have the same keys in the same order, and then
 * comparing is all that a key costs.
 */
typedef struct ExpectedKey
{
	char		text[KEY_BYTES];
	uint32		mask;			/* a bit for each byte */
	uint8		len;
	uint8		quality;		/* where it leads to, as find_child() says */
	struct PathNode *child;
} ExpectedKey;

/* A place in the tree of wanted paths. */
typedef struct PathNode
{
	char	   *key;			/* NULL: an array index, or the root */
	uint32		key_len;
	int			index;			/* array element; -1: each one ([*] of a row path) */
	bool		is_row;			/* each value here is a row */
	int		   *slots;
	bool	   *any_case;		/* [nslots]: a column's name, not a path: the key's case does not matter */
	int			nslots;
	bool		names_column;	/* any of them */
	struct PathNode **alike;	/* siblings that name columns and differ in case only */
	int			nalike;
	struct PathNode **children;
	int			nchildren;
	ExpectedKey *expected;		/* [MAX_KEYS], by the key's place in the object */
	int			nexpected;
	uint64		lengths;		/* bit min(len, 63) of the children's keys */
} PathNode;

struct KdaJsonPlan
{
	MemoryContext context;
	PathNode   *record;			/* row_path; its row node has no children */
	PathNode   *row;			/* paths of the columns, relative to a row */
	bool		any_value;		/* a row may be a scalar or an array: row_path is given, a column takes the row itself ($) */
};

/*---- building */

static PathNode *
new_node(MemoryContext context)
{
	return MemoryContextAllocZero(context, sizeof(PathNode));
}

static PathNode *
child(KdaJsonPlan *plan, PathNode *parent, const char *key, uint32 len, int index)
{
	PathNode   *node;

	for (int i = 0; i < parent->nchildren; i++)
	{
		node = parent->children[i];
		if (key ? (node->key && node->key_len == len && memcmp(node->key, key, len) == 0) :
			(node->key == NULL && node->index == index))
			return node;
	}
	node = new_node(plan->context);
	if (key)
	{
		node->key = MemoryContextAlloc(plan->context, len + 1);
		memcpy(node->key, key, len);
		node->key[len] = '\0';
		node->key_len = len;
		parent->lengths |= UINT64CONST(1) << Min(len, 63);
	}
	node->index = index;
	parent->children = parent->nchildren == 0 ?
		MemoryContextAlloc(plan->context, sizeof(PathNode *)) :
		repalloc(parent->children, sizeof(PathNode *) * (parent->nchildren + 1));
	parent->children[parent->nchildren++] = node;
	return node;
}

static void
bad_path(const char *path)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid JSON path \"%s\"", path),
			 errhint("Paths are made of $, .key, ['key'] and [number]; row_path may have [*].")));
}

/* Follows a path from a node, making what is missing. */
static PathNode *
follow(KdaJsonPlan *plan, PathNode *node, const char *path, bool star)
{
	const char *p = path;

	if (*p++ != '$')
		bad_path(path);
	while (*p)
	{
		if (*p == '.')
		{
			const char *from = ++p;

			if (*p == '"')
			{
				from = ++p;
				while (*p && *p != '"')
					p++;
				if (*p != '"' || p == from)
					bad_path(path);
				node = child(plan, node, from, p - from, 0);
				p++;
				continue;
			}
			while (*p && *p != '.' && *p != '[')
				p++;
			if (p == from)
				bad_path(path);
			node = child(plan, node, from, p - from, 0);
		}
		else if (*p == '[')
		{
			p++;
			if (*p == '*' && p[1] == ']')
			{
				if (!star)
					bad_path(path);
				node = child(plan, node, NULL, 0, -1);
				p += 2;
			}
			else if (*p == '\'' || *p == '"')
			{
				char		quote = *p++;
				const char *from = p;

				while (*p && *p != quote)
					p++;
				if (*p != quote || p[1] != ']')
					bad_path(path);
				node = child(plan, node, from, p - from, 0);
				p += 2;
			}
			else
			{
				char	   *end;
				long		n = strtol(p, &end, 10);

				if (end == p || *end != ']' || n < 0 || n > 1000000000)
					bad_path(path);
				node = child(plan, node, NULL, 0, (int) n);
				p = end + 1;
			}
		}
		else
			bad_path(path);
	}
	return node;
}

void
kda_json_check_path(const char *path, bool star)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "kda path", ALLOCSET_SMALL_SIZES);
	KdaJsonPlan plan = {.context = scratch};

	(void) follow(&plan, new_node(scratch), path, star);
	MemoryContextDelete(scratch);
}

static bool
same_but_case(const char *a, const char *b, uint32 len)
{
	for (uint32 i = 0; i < len; i++)
		if (pg_ascii_tolower((unsigned char) a[i]) != pg_ascii_tolower((unsigned char) b[i]))
			return false;
	return true;
}

/* Columns "a" and "A": a key that is the name of one stands for the other, too. */
static void
find_alike(KdaJsonPlan *plan, PathNode *parent)
{
	for (int i = 0; i < parent->nchildren; i++)
	{
		PathNode   *node = parent->children[i];

		for (int j = 0; j < parent->nchildren; j++)
		{
			PathNode   *other = parent->children[j];

			if (i == j || node->key == NULL || !other->names_column || other->key_len != node->key_len ||
				!same_but_case(other->key, node->key, node->key_len))
				continue;
			if (node->alike == NULL)
				node->alike = MemoryContextAlloc(plan->context, sizeof(PathNode *) * parent->nchildren);
			node->alike[node->nalike++] = other;
		}
	}
}

static void
add_slot(KdaJsonPlan *plan, PathNode *node, int slot, bool any_case)
{
	int			n = node->nslots++;

	node->slots = n == 0 ? MemoryContextAlloc(plan->context, sizeof(int)) :
		repalloc(node->slots, sizeof(int) * (n + 1));
	node->any_case = n == 0 ? MemoryContextAlloc(plan->context, sizeof(bool)) :
		repalloc(node->any_case, sizeof(bool) * (n + 1));
	node->slots[n] = slot;
	node->any_case[n] = any_case;
	node->names_column |= any_case;
}

KdaJsonPlan *
kda_json_plan(MemoryContext context, const KdaJsonWish *wishes, int n, const char *row_path)
{
	KdaJsonPlan *plan = MemoryContextAllocZero(context, sizeof(KdaJsonPlan));

	plan->context = context;
	plan->row = new_node(context);
	for (int i = 0; i < n; i++)
	{
		PathNode   *node = wishes[i].path ? follow(plan, plan->row, wishes[i].path, false) :
			child(plan, plan->row, wishes[i].name, strlen(wishes[i].name), 0);

		add_slot(plan, node, i, wishes[i].path == NULL);
	}
	plan->any_value = row_path && plan->row->nslots > 0;
	find_alike(plan, plan->row);
	plan->record = new_node(context);
	if (row_path)
		follow(plan, plan->record, row_path, true)->is_row = true;
	else
		plan->record->is_row = true;
	return plan;
}

/*---- reading */

typedef struct Reader
{
	KdaJsonPlan *plan;
	const char *start;
	const char *p;
	const char *end;
	int			depth;			/* levels that are left */
	int			max_depth;
	KdaRows    *rows;
	int			row;			/* number of the row being read; -1: outside */
	KdaDecodeError *error;
} Reader;

static bool
fail(Reader *r, const char *what)
{
	if (r->p >= r->end)
		return kda_decode_error(r->error, "malformed", "the JSON text ends too early: %s", what);
	return kda_decode_error(r->error, "malformed", "invalid JSON at byte " INT64_FORMAT ": %s",
							(int64) (r->p - r->start), what);
}

static inline void
skip_space(Reader *r)
{
	while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\t' || *r->p == '\r'))
		r->p++;
}

/* At the byte after the opening quote; leaves p after the closing one. */
static inline bool
read_string(Reader *r, bool *escaped)
{
	const char *p = r->p;

	*escaped = false;
	for (;;)
	{
#ifdef __SSE2__
		while (r->end - p >= 16)
		{
			__m128i		chunk = _mm_loadu_si128((const __m128i *) p);
			__m128i		stop = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(chunk, _mm_set1_epi8('"')),
														 _mm_cmpeq_epi8(chunk, _mm_set1_epi8('\\'))),
											/* unsigned less than 0x20 */
											_mm_cmpeq_epi8(_mm_min_epu8(chunk, _mm_set1_epi8(0x1f)), chunk));
			int			mask = _mm_movemask_epi8(stop);

			if (mask)
			{
				p += __builtin_ctz(mask);
				goto found;
			}
			p += 16;
		}
#endif
		while (p < r->end && *p != '"' && *p != '\\' && (unsigned char) *p >= 0x20)
			p++;
#ifdef __SSE2__
found:
#endif
		r->p = p;
		if (p >= r->end)
			return fail(r, "a string is not closed");
		if (*p == '"')
		{
			r->p = p + 1;
			return true;
		}
		if (*p != '\\')
			return fail(r, "a control character in a string must be escaped");
		*escaped = true;
		if (r->end - p < 2)
		{
			r->p = r->end;
			return fail(r, "a string is not closed");
		}
		switch (p[1])
		{
			case '"':
			case '\\':
			case '/':
			case 'b':
			case 'f':
			case 'n':
			case 'r':
			case 't':
				p += 2;
				break;
			case 'u':
				for (int i = 2; i < 6; i++)
					if (r->end - p <= i || !isxdigit((unsigned char) p[i]))
						return fail(r, "\\u must be followed by four hexadecimal digits");
				p += 6;
				break;
			default:
				return fail(r, "an unknown escape in a string");
		}
	}
}

static inline bool
read_number(Reader *r)
{
	const char *p = r->p;

#define DIGIT(p) ((p) < r->end && *(p) >= '0' && *(p) <= '9')
	if (*p == '-')
		p++;
	if (!DIGIT(p))
	{
		r->p = p;
		return fail(r, "a value was expected");
	}
	if (*p == '0')
		p++;
	else
		while (DIGIT(p))
			p++;
	if (p < r->end && *p == '.')
	{
		p++;
		r->p = p;
		if (!DIGIT(p))
			return fail(r, "a digit must follow the decimal point");
		while (DIGIT(p))
			p++;
	}
	if (p < r->end && (*p == 'e' || *p == 'E'))
	{
		p++;
		if (p < r->end && (*p == '+' || *p == '-'))
			p++;
		r->p = p;
		if (!DIGIT(p))
			return fail(r, "a digit must follow the exponent");
		while (DIGIT(p))
			p++;
	}
	r->p = p;
	return true;
#undef DIGIT
}

static bool
read_word(Reader *r, const char *word, int len)
{
	if (r->end - r->p < len || memcmp(r->p, word, len) != 0)
		return fail(r, "a value was expected");
	r->p += len;
	return true;
}

/*
 * The child that a key leads to, or NULL; *quality 1: only by another case, so
 * that it stands for columns' names alone.
 */
static PathNode *
find_child(PathNode *node, const char *key, uint32 len, uint8 *quality)
{
	PathNode   *any = NULL;

	if (!(node->lengths & (UINT64CONST(1) << Min(len, 63))))
		return NULL;
	for (int i = 0; i < node->nchildren; i++)
	{
		PathNode   *c = node->children[i];

		if (c->key == NULL || c->key_len != len)
			continue;
		if (memcmp(c->key, key, len) == 0)
		{
			*quality = 2;
			return c;
		}
		if (c->names_column && any == NULL && same_but_case(c->key, key, len))
			any = c;
	}
	*quality = 1;
	return any;
}

static bool read_value(Reader *r, PathNode *node, uint8 quality);

static inline void
note_slots(Reader *r, PathNode *node, const char *p, const char *end, KdaValueKind kind, bool escaped, uint8 quality)
{
	KdaValue   *values = r->rows->values + (Size) r->row * r->rows->nslots;

	for (int i = 0; i < node->nslots; i++)
	{
		KdaValue   *v = &values[node->slots[i]];

		/* the last one counts, but an exact key before another */
		if (quality < v->quality || (quality == 1 && !node->any_case[i]))
			continue;
		v->p = p;
		v->len = end - p;
		v->kind = kind;
		v->escaped = escaped;
		v->quality = quality;
	}
}

static inline void
note(Reader *r, PathNode *node, const char *p, const char *end, KdaValueKind kind, bool escaped, uint8 quality)
{
	note_slots(r, node, p, end, kind, escaped, quality);
	for (int i = 0; i < node->nalike; i++)
		note_slots(r, node->alike[i], p, end, kind, escaped, 1);
}

/* Below a value that counts now, what an earlier one had left is gone. */
static void
forget_below(Reader *r, PathNode *node)
{
	for (int i = 0; i < node->nchildren; i++)
	{
		PathNode   *c = node->children[i];
		KdaValue   *values = r->rows->values + (Size) r->row * r->rows->nslots;

		for (int s = 0; s < c->nslots; s++)
			memset(&values[c->slots[s]], 0, sizeof(KdaValue));
		forget_below(r, c);
	}
}

static inline bool
go_down(Reader *r)
{
	if (--r->depth >= 0 && !stack_is_too_deep())
		return true;
	return kda_decode_error(r->error, "too_large", "the JSON text is nested deeper than %d levels",
							r->depth < 0 ? r->max_depth : r->max_depth - r->depth - 1);
}

/* Is this the text at p, of which size bytes are left? */
static inline bool
is_expected(const ExpectedKey *key, const char *p, ptrdiff_t size)
{
#ifdef __SSE2__
	if (likely(size >= KEY_BYTES))
	{
		uint32		low = _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *) p),
														   _mm_loadu_si128((const __m128i *) key->text)));
		uint32		high = _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *) (p + 16)),
															_mm_loadu_si128((const __m128i *) (key->text + 16))));

		return ((low | high << 16) & key->mask) == key->mask;
	}
#endif
	return size >= key->len && memcmp(p, key->text, key->len) == 0;
}

/* Remembers the n-th key of an object; from is its quote, to the byte after its colon. */
static void
expect(Reader *r, PathNode *node, int n, const char *from, const char *to, PathNode *child, uint8 quality)
{
	ExpectedKey *key;

	if (n >= MAX_KEYS || to - from > KEY_BYTES || n > node->nexpected)
		return;
	if (node->expected == NULL)
		node->expected = MemoryContextAllocZero(r->plan->context, sizeof(ExpectedKey) * MAX_KEYS);
	key = &node->expected[n];
	key->len = to - from;
	memcpy(key->text, from, key->len);
	key->mask = key->len == 32 ? PG_UINT32_MAX : ((uint32) 1 << key->len) - 1;
	key->quality = quality;
	key->child = child;
	node->nexpected = Max(node->nexpected, n + 1);
}

/* A key with its colon, the n-th one of its object; where it leads to. */
static bool
read_key(Reader *r, PathNode *node, int n, PathNode **next, uint8 *quality)
{
	const char *from = r->p;
	bool		escaped;
	uint32		len;

	if (r->p >= r->end || *r->p != '"')
		return fail(r, "a key in quotes was expected");
	r->p++;
	if (!read_string(r, &escaped))
		return false;
	len = r->p - from - 2;
	if (node && node->nchildren > 0)
	{
		if (unlikely(escaped))
		{
			char	   *plain = palloc(len + 1);
			const char *why;
			int			size = kda_json_unescape(from + 1, len, plain, &why);

			if (size >= 0)
				*next = find_child(node, plain, size, quality);
			pfree(plain);
		}
		else
			*next = find_child(node, from + 1, len, quality);
	}
	skip_space(r);
	if (r->p >= r->end || *r->p != ':')
		return fail(r, "a colon was expected");
	r->p++;
	if (node && node->nchildren > 0 && !escaped && r->p - from == len + 3)
		expect(r, node, n, from, r->p, *next, *quality);
	return true;
}

static bool
read_object(Reader *r, PathNode *node)
{
	int			rows_before = -1;

	if (!go_down(r))
		return false;
	r->p++;
	skip_space(r);
	if (r->p < r->end && *r->p == '}')
	{
		r->p++;
		r->depth++;
		return true;
	}
	for (int n = 0;; n++)
	{
		PathNode   *next = NULL;
		uint8		quality = 2;

		if (node && n < node->nexpected && is_expected(&node->expected[n], r->p, r->end - r->p))
		{
			next = node->expected[n].child;
			quality = node->expected[n].quality;
			r->p += node->expected[n].len;
		}
		else if (!read_key(r, node, n, &next, &quality))
			return false;
		if (unlikely(next && r->row < 0))
		{
			/* on the way to the rows: of two keys the last one counts */
			if (rows_before < 0)
				rows_before = r->rows->nrows;
			r->rows->nrows = rows_before;
		}
		if (r->p < r->end && *r->p == '"' && (next == NULL || (next->nchildren == 0 && !next->is_row)))
		{
			/* what read_value() does, for the usual kind of value */
			const char *from = ++r->p;
			bool		escaped;

			if (!read_string(r, &escaped))
				return false;
			if (next && next->nslots > 0 && r->row >= 0)
				note(r, next, from, r->p - 1, KDA_VALUE_STRING, escaped, quality);
		}
		else if (!read_value(r, next, quality))
			return false;
		skip_space(r);
		if (r->p < r->end && *r->p == ',')
		{
			r->p++;
			skip_space(r);
			continue;
		}
		if (r->p < r->end && *r->p == '}')
		{
			r->p++;
			r->depth++;
			return true;
		}
		return fail(r, "a comma or } was expected");
	}
}

static bool
read_array(Reader *r, PathNode *node)
{
	int			n = 0;

	if (!go_down(r))
		return false;
	r->p++;
	skip_space(r);
	if (r->p < r->end && *r->p == ']')
	{
		r->p++;
		r->depth++;
		return true;
	}
	for (;;)
	{
		PathNode   *next = NULL;

		if (node)
			for (int i = 0; i < node->nchildren; i++)
				if (node->children[i]->key == NULL && (node->children[i]->index == n || node->children[i]->index == -1))
					next = node->children[i];
		if (!read_value(r, next, 2))
			return false;
		n++;
		skip_space(r);
		if (r->p < r->end && *r->p == ',')
		{
			r->p++;
			continue;
		}
		if (r->p < r->end && *r->p == ']')
		{
			r->p++;
			r->depth++;
			return true;
		}
		return fail(r, "a comma or ] was expected");
	}
}

static bool
read_value(Reader *r, PathNode *node, uint8 quality)
{
	const char *from;
	KdaValueKind kind;
	bool		escaped = false;
	bool		row = false;

	skip_space(r);
	if (unlikely(r->p >= r->end))
		return fail(r, "a value was expected");

	if (unlikely(node && node->is_row))
	{
		/* null where row_path expects rows: none */
		row = *r->p != 'n' || r->plan->record == node;
		if (row && *r->p != '{' && !r->plan->any_value)
			return *r->p == '[' || *r->p == '"' || *r->p == '-' || isalnum((unsigned char) *r->p) ?
				kda_decode_error(r->error, "malformed", "the record is not a JSON object%s",
								 r->plan->record == node ? "; option row_path takes rows out of arrays" : " where option row_path points to") :
				fail(r, "a value was expected");
		if (row)
		{
			r->row = r->rows->nrows;
			kda_rows_add(r->rows);
			node = r->plan->row;
		}
	}
	else if (node && r->row >= 0 && quality == 2 && unlikely(node->nchildren > 0))
		forget_below(r, node);

	from = r->p;
	switch (*r->p)
	{
		case '"':
			r->p++;
			if (!read_string(r, &escaped))
				return false;
			if (node && node->nslots > 0 && r->row >= 0)
				note(r, node, from + 1, r->p - 1, KDA_VALUE_STRING, escaped, quality);
			if (row)
				r->row = -1;
			return true;
		case '{':
			kind = KDA_VALUE_OBJECT;
			if (!read_object(r, quality == 2 ? node : NULL))
				return false;
			break;
		case '[':
			kind = KDA_VALUE_ARRAY;
			if (!read_array(r, quality == 2 ? node : NULL))
				return false;
			break;
		case 't':
			kind = KDA_VALUE_TRUE;
			if (!read_word(r, "true", 4))
				return false;
			break;
		case 'f':
			kind = KDA_VALUE_FALSE;
			if (!read_word(r, "false", 5))
				return false;
			break;
		case 'n':
			kind = KDA_VALUE_NULL;
			if (!read_word(r, "null", 4))
				return false;
			break;
		default:
			kind = KDA_VALUE_NUMBER;
			if (!read_number(r))
				return false;
			break;
	}
	if (node && node->nslots > 0 && r->row >= 0)
		note(r, node, from, r->p, kind, false, quality);
	if (row)
		r->row = -1;
	return true;
}

bool
kda_json_parse(KdaJsonPlan *plan, const char *data, Size len, int max_depth, KdaRows *rows,
			   KdaDecodeError *error)
{
	Reader		r = {plan, data, data, data + len, max_depth, max_depth, rows, -1, error};

	check_stack_depth();
	if (!read_value(&r, plan->record, 2))
		return false;
	skip_space(&r);
	if (r.p < r.end)
		return fail(&r, "something follows the JSON text");
	return true;
}

/*---- strings */

static int
hex4(const char *p)
{
	int			v = 0;

	for (int i = 0; i < 4; i++)
	{
		char		c = p[i];

		v = v * 16 + (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
	}
	return v;
}

/*
 * The character of \u at p, which has been read before; returns its length, 12
 * with both halves of a pair, or 0 with *why.
 */
static int
read_escape(const char *p, const char *end, int *c, const char **why)
{
	int			low;

	*c = hex4(p + 2);
	if (*c == 0)
	{
		*why = "\\u0000 cannot be stored in text";
		return 0;
	}
	if (*c >= 0xDC00 && *c <= 0xDFFF)
	{
		*why = "a Unicode low surrogate without the high one before it";
		return 0;
	}
	if (*c < 0xD800 || *c > 0xDFFF)
		return 6;
	low = end - p >= 12 && p[6] == '\\' && p[7] == 'u' ? hex4(p + 8) : 0;
	if (low < 0xDC00 || low > 0xDFFF)
	{
		*why = "a Unicode high surrogate without the low one after it";
		return 0;
	}
	*c = 0x10000 + ((*c - 0xD800) << 10) + (low - 0xDC00);
	return 12;
}

const char *
kda_json_bad_escape(const char *p, uint32 len)
{
	const char *end = p + len;

	while (p < end && (p = memchr(p, '\\', end - p)) != NULL)
	{
		int			c,
					n = 2;
		const char *why;

		if (p[1] == 'u' && (n = read_escape(p, end, &c, &why)) == 0)
			return why;
		p += n;
	}
	return NULL;
}

int
kda_json_unescape(const char *p, uint32 len, char *out, const char **why)
{
	const char *end = p + len;
	char	   *o = out;

	while (p < end)
	{
		const char *slash = memchr(p, '\\', end - p);
		int			c,
					n;

		if (slash == NULL)
			slash = end;
		memcpy(o, p, slash - p);
		o += slash - p;
		p = slash;
		if (p >= end)
			break;
		switch (p[1])
		{
			case 'b':
				*o++ = '\b';
				break;
			case 'f':
				*o++ = '\f';
				break;
			case 'n':
				*o++ = '\n';
				break;
			case 'r':
				*o++ = '\r';
				break;
			case 't':
				*o++ = '\t';
				break;
			case 'u':
				n = read_escape(p, end, &c, why);
				if (n == 0)
					return -1;
				p += n - 2;
				unicode_to_utf8(c, (unsigned char *) o);
				o += pg_utf_mblen((unsigned char *) o);
				break;
			default:
				*o++ = p[1];
				break;
		}
		p += 2;
	}
	return o - out;
}
