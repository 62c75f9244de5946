/*-------------------------------------------------------------------------
 *
 * avro.c
 *	  Random schemas, and random and damaged records of them, for avro_read.c
 *	  outside of a server, for the sanitizers to watch:
 *
 *		avro SECONDS [SEED]
 *
 * Each record lies in memory of exactly its size, so that one byte read too far
 * is seen.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <time.h>

#include "format/avro.h"
#include "server.h"

#define MAX_BYTES	(64 * 1024)

static KdaAvroType *types[64];
static int	ntypes;

/* A type; one that is there already makes schemas that hold themselves. */
static KdaAvroType *
make_type(int depth)
{
	static char *const symbols[] = {"A", "B"};
	static char *const names[] = {"a", "b", "c", "d"};
	static char *const aliases[] = {"z", "y"};
	KdaAvroType *type;

	if (ntypes > 0 && (ntypes == lengthof(types) || some(12) == 0))
		return types[some(ntypes)];
	type = MemoryContextAllocZero(NULL, sizeof(KdaAvroType));
	types[ntypes++] = type;
	type->kind = (KdaAvroKind) some(depth > 4 ? KDA_AVRO_ARRAY : KDA_AVRO_RECORD + 1);
	type->size = some(20);
	switch (type->kind)
	{
		case KDA_AVRO_INT:
			type->logical = some(2) ? KDA_AVRO_PLAIN : KDA_AVRO_DATE + some(2);
			break;
		case KDA_AVRO_LONG:
			type->logical = some(2) ? KDA_AVRO_PLAIN : KDA_AVRO_TIME_MICROS + some(5);
			break;
		case KDA_AVRO_BYTES:
		case KDA_AVRO_FIXED:
			if (some(2))
			{
				type->logical = KDA_AVRO_DECIMAL;
				type->scale = some(40);
			}
			else if (type->kind == KDA_AVRO_FIXED && some(2))
			{
				type->logical = KDA_AVRO_UUID;
				type->size = 16;
			}
			break;
		case KDA_AVRO_ENUM:
			type->symbols = (char **) symbols;
			type->nsymbols = some(3);
			break;
		case KDA_AVRO_ARRAY:
		case KDA_AVRO_MAP:
		case KDA_AVRO_UNION:
			type->nbranches = type->kind == KDA_AVRO_UNION ? some(4) : 1;
			type->branches = MemoryContextAllocZero(NULL, sizeof(KdaAvroType *) * 4);
			for (int i = 0; i < type->nbranches; i++)
				type->branches[i] = make_type(depth + 1);
			break;
		case KDA_AVRO_RECORD:
			type->name = "r";
			type->fields = MemoryContextAllocZero(NULL, sizeof(KdaAvroField) * 4);
			for (int i = some(5); i > 0; i--)
			{
				KdaAvroField field = {.name = names[type->nfields],.aliases = (char **) aliases,.naliases = some(3)};
				static char *const defaults[] = {NULL, "null", "1", "\"a\\u00ff\"", "[1]", "{}", "true", "-1.5"};

				field.default_json = defaults[some(lengthof(defaults))];
				field.type = make_type(depth + 1);
				type->fields[type->nfields++] = field;
			}
			break;
		default:
			break;
	}
	return type;
}

static int
write_long(char *to, int64 n)
{
	uint64		u = ((uint64) n << 1) ^ (uint64) (n >> 63);
	int			len = 0;

	for (; u >= 0x80; u >>= 7)
		to[len++] = (char) (u | 0x80);
	to[len++] = (char) u;
	return len;
}

/* A value of the type, if it is not too long. */
static int
write_value(char *to, char *end, const KdaAvroType *type, int depth)
{
	char	   *p = to;

	if (end - to < 200 || depth > 20)
		return 0;
	switch (type->kind)
	{
		case KDA_AVRO_BOOLEAN:
			*p++ = (char) some(2);
			break;
		case KDA_AVRO_INT:
			p += write_long(p, (int32) some(PG_UINT32_MAX) >> some(32));
			break;
		case KDA_AVRO_LONG:
			p += write_long(p, (int64) ((uint64) some(PG_UINT32_MAX) << 32 | some(PG_UINT32_MAX)) >> some(64));
			break;
		case KDA_AVRO_FLOAT:
		case KDA_AVRO_DOUBLE:
		case KDA_AVRO_FIXED:
			for (int n = type->kind == KDA_AVRO_FIXED ? (int) type->size : type->kind == KDA_AVRO_FLOAT ? 4 : 8; n > 0; n--)
				*p++ = (char) some(256);
			break;
		case KDA_AVRO_BYTES:
		case KDA_AVRO_STRING:
			{
				int			n = some(40);

				p += write_long(p, n);
				for (; n > 0; n--)
					*p++ = type->kind == KDA_AVRO_BYTES ? (char) some(256) : (char) (some(120) + 1);
				break;
			}
		case KDA_AVRO_ENUM:
			p += write_long(p, some(Max(type->nsymbols, 1)));
			break;
		case KDA_AVRO_UNION:
			if (type->nbranches > 0)
			{
				int			n = some(type->nbranches);

				p += write_long(p, n);
				p += write_value(p, end, type->branches[n], depth + 1);
			}
			break;
		case KDA_AVRO_ARRAY:
		case KDA_AVRO_MAP:
			for (int blocks = some(3); blocks > 0 && end - p > 200; blocks--)
			{
				int			n = some(3) + 1;

				p += write_long(p, n);
				for (; n > 0 && end - p > 200; n--)
				{
					if (type->kind == KDA_AVRO_MAP)
					{
						p += write_long(p, 1);
						*p++ = "abcd"[some(4)];
					}
					p += write_value(p, end, type->branches[0], depth + 1);
				}
			}
			p += write_long(p, 0);
			break;
		case KDA_AVRO_RECORD:
			for (int i = 0; i < type->nfields; i++)
				p += write_value(p, end, type->fields[i].type, depth + 1);
			break;
		default:
			break;
	}
	return (int) (p - to);
}

static int
damage(char *data, int len)
{
	for (int times = some(4); times > 0 && len > 0; times--)
	{
		int			at = some(len);

		switch (some(4))
		{
			case 0:
				data[at] = (char) some(256);
				break;
			case 1:
				data[at] = (char) (some(2) ? 0xff : 0);
				break;
			case 2:
				len = at;
				break;
			default:
				memmove(data + at + 1, data + at, len - at);
				data[at] = (char) some(256);
				len++;
				break;
		}
	}
	return len;
}

/* Every byte of what was read, and its text. */
static void
look_at(const KdaRows *rows)
{
	static volatile uint64 sum;

	for (int i = 0; i < rows->nrows * rows->nslots; i++)
	{
		KdaValue	text;

		if (rows->values[i].kind <= KDA_VALUE_NULL || kda_value_as_text(&rows->values[i], NULL, &text) != NULL)
			continue;
		for (uint32 j = 0; j < text.len; j++)
			sum += (unsigned char) text.p[j];
	}
}

int
main(int argc, char **argv)
{
	static char *a[] = {"a"},
			   *ab[] = {"a", "b"},
			   *bc[] = {"b", "c", "a"},
			   *z[] = {"Z"};
	static const KdaAvroWish wishes[] = {{a, 1, true, "a"}, {NULL, 0, false, "all"}, {ab, 2, false, "ab"}, {bc, 3, false, "bc"}, {z, 1, true, "z"}};
	time_t		until = time(NULL) + (argc > 1 ? atoi(argv[1]) : 5);
	long		n = 0,
				taken = 0;
	static char buffer[MAX_BYTES + 100];

	state = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64) time(NULL);
	printf("seed " UINT64_FORMAT "\n", state);
	state = state * UINT64CONST(6364136223846793005) + 1442695040888963407;
	while (time(NULL) < until)
	{
		KdaDecodeError error = {0};
		KdaAvroType *schema,
				   *reader;
		KdaAvroPlan *plan;
		int			nwishes = some(lengthof(wishes) + 1);

		keeping = true;
		ntypes = 0;
		schema = make_type(0);
		reader = some(2) ? make_type(0) : NULL;
		plan = kda_avro_plan(NULL, schema, reader, wishes, nwishes, &error);
		if (plan == NULL)
			continue;
		keeping = false;
		for (int i = 0; i < 200; i++)
		{
			int			len = damage(buffer, write_value(buffer, buffer + MAX_BYTES, schema, 0));
			char	   *data = memcpy(malloc(len ? len : 1), buffer, len);
			KdaRows		rows = {.nslots = nwishes};
			bool		fine = kda_avro_read(plan, data, len, 1 + some(60), 100000, NULL, &rows, &error);

			if (fine)
				look_at(&rows);
			else if (error.name == NULL || error.message[0] == '\0')
				abort();
			taken += fine;
			n++;
			for (int j = 0; j < nheld; j++)
				free(held[j]);
			nheld = 0;
			free(data);
		}
	}
	printf("%ld records, %ld taken\n", n, taken);
	return n > 0 && taken > n / 20 && taken < n ? 0 : 1;
}
