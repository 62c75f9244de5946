/*-------------------------------------------------------------------------
 *
 * parse.c
 *	  Feeds random and damaged records to the parsers (json.c, csv.c) outside
 *	  of a server, for the sanitizers to watch:
 *
 *		parse SECONDS [SEED]
 *
 * Each record lies in memory of exactly its size, so that one byte read too far
 * is seen.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <time.h>

#include "format/value.h"
#include "server.h"

/*---- records */

static int
write_json(char *to, int depth)
{
	static const char *const atoms[] = {"null", "true", "false", "0", "-1.5e+10", "12345678901234567890", "\"\"", "\"a\"",
		"\"\\ud83d\\ude00\"", "\"\\u0000\"", "\"\\ud800\"", "\"0123456789abcdef0123456789abcdef\\n\"", "\"\xc3\xa9\""};
	static const char *const keys[] = {"a", "A", "x", "y", "items", "long_key_of_more_than_sixteen_bytes", "\\u0061", ""};
	int			n = some(4);
	char	   *p = to;
	uint32		kind = some(10);

	if (depth > 5 || kind < 5)
		return sprintf(to, "%s", atoms[some(lengthof(atoms))]);
	*p++ = kind < 7 ? '[' : '{';
	for (int i = 0; i < n; i++)
	{
		if (i)
			*p++ = ',';
		if (some(4) == 0)
			*p++ = ' ';
		if (kind >= 7)
			p += sprintf(p, "\"%s\":", keys[some(lengthof(keys))]);
		p += write_json(p, depth + 1);
	}
	*p++ = kind < 7 ? ']' : '}';
	return p - to;
}

static int
write_csv(char *to)
{
	static const char *const fields[] = {"a", "", "1", "\"q\"", "\"a\"\"b\"", "\"two\nlines\"", "\"open", "x\"y", "NULL", "\"\"", "\"x\"y"};
	char	   *p = to;

	for (int line = some(4); line >= 0; line--)
	{
		for (int i = some(5); i >= 0; i--)
			p += sprintf(p, "%s%s", fields[some(lengthof(fields))], i ? "," : "");
		p += sprintf(p, "%s", line ? (some(2) ? "\n" : "\r\n") : "");
	}
	return p - to;
}

static int
damage(char *data, int len)
{
	static const char bytes[] = "{}[]\",:\\u0123456789abcdefE+-. \n\r\t\xff\xc3\x01tfn";

	for (int times = some(4); times > 0 && len > 0; times--)
	{
		int			at = some(len);

		switch (some(3))
		{
			case 0:
				data[at] = bytes[some(sizeof(bytes) - 1)];
				break;
			case 1:
				len = at;
				break;
			default:
				memmove(data + at + 1, data + at, len - at);
				data[at] = bytes[some(sizeof(bytes) - 1)];
				len++;
				break;
		}
	}
	return len;
}

/* Values lie in the record (CSV: or in the scratch space). */
static void
look_at(const KdaRows *rows, const char *data, int len, const KdaCsv *csv)
{
	for (int i = 0; i < rows->nrows * rows->nslots; i++)
	{
		const KdaValue *v = &rows->values[i];
		char	   *out;
		const char *why = NULL;
		int			n;

		if (v->kind <= KDA_VALUE_NULL)
			continue;
		if (!(v->p >= data && v->p + v->len <= data + len) &&
			!(csv && v->p >= csv->scratch && v->p + v->len <= csv->scratch + csv->scratch_size))
			abort();
		if (csv)
			continue;
		out = malloc(v->len + 1);
		if (v->kind == KDA_VALUE_STRING)
		{
			n = kda_json_unescape(v->p, v->len, out, &why);
			/* both must say the same */
			if (n > (int) v->len || (n < 0) != (kda_json_bad_escape(v->p, v->len) != NULL) || (n < 0 && why == NULL))
				abort();
		}
		else
			(void) kda_json_bad_escape(v->p, v->len);
		free(out);
	}
}

int
main(int argc, char **argv)
{
	static const KdaJsonWish wishes[] = {{NULL, "a"}, {NULL, "A"}, {NULL, "long_key_of_more_than_sixteen_bytes"}, {"$.x.y", "b"}, {"$.x[1]", "c"},
		{"$", "d"}, {"$.items[0].a", "e"}, {NULL, "x"}, {"$['x']", "f"}};
	static const char *const row_paths[] = {NULL, "$[*]", "$.items[*]", "$.x[*].y[*]", "$.items"};
	static const char *const bad_paths[] = {"", "x", "$.", "$[", "$[1", "$['", "$['a'", "$[*]", "$..a", "$.\"", "$[99999999999]", "$[-1]"};
	KdaJsonPlan *plans[lengthof(row_paths) * 2];
	static const char *const names[] = {"a", "b", "c"};
	static const int slots[] = {0, -1, 1};
	KdaCsv		csvs[2];
	time_t		until = time(NULL) + (argc > 1 ? atoi(argv[1]) : 5);
	long		n = 0,
				taken = 0;
	static char buffer[1 << 20];

	state = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64) time(NULL);
	printf("seed " UINT64_FORMAT "\n", state);
	state = state * UINT64CONST(6364136223846793005) + 1442695040888963407;
	for (int i = 0; i < lengthof(bad_paths); i++)
		if (setjmp(on_error) == 0)
		{
			kda_json_check_path(bad_paths[i], false);
			fprintf(stderr, "path %s was taken\n", bad_paths[i]);
			return 1;
		}
	for (int i = 0; i < lengthof(plans); i++)
		plans[i] = kda_json_plan(NULL, wishes, i % 2 ? lengthof(wishes) : 4, row_paths[i / 2]);
	for (int i = 0; i < 2; i++)
		csvs[i] = (KdaCsv) {.delimiter = ',',.header = i == 1,.null_text = "NULL",.ncolumns = 3,.names = names,.slot_of = slots};

	while ((n & 1023) != 0 || time(NULL) < until)
	{
		bool		json = some(4) != 0;
		int			len = damage(buffer, json ? write_json(buffer, 0) : write_csv(buffer));
		char	   *data = memcpy(malloc(len ? len : 1), buffer, len);
		int			which = some(lengthof(plans));
		KdaRows		rows = {.nslots = json ? (which % 2 ? lengthof(wishes) : 4) : 2};
		KdaDecodeError error = {0};
		bool		fine;

		keeping = !json;		/* the scratch space of CSV outlives the record */
		fine = json ? kda_json_parse(plans[which], data, len, 1 + some(30), &rows, &error) :
			kda_csv_parse(&csvs[which % 2], data, len, &rows, &error);
		if (fine)
			look_at(&rows, data, len, json ? NULL : &csvs[which % 2]);
		else if (error.name == NULL || error.message[0] == '\0')
			abort();
		taken += fine;
		n++;
		if (!json)
			free(rows.values);
		for (int i = 0; i < nheld; i++)
			free(held[i]);
		nheld = 0;
		free(data);
	}
	printf("%ld records, %ld taken\n", n, taken);
	return n > 0 && taken > n / 20 && taken < n ? 0 : 1;
}
