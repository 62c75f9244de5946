/*-------------------------------------------------------------------------
 *
 * csv.c
 *	  CSV (RFC 4180): a record holds one or more lines, each of them a row.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "format/value.h"

#define MAX_HEADER	1600		/* names of a header that are looked at; a table has no more columns */

typedef struct Field
{
	const char *p;
	uint32		len;
	bool		quoted;
} Field;

/*
 * The field at *p; leaves *p at the delimiter or the end of the line.
 * Quoted fields with doubled quotes are copied to the scratch space.
 */
static bool
read_field(KdaCsv *csv, const char **pp, const char *end, char **scratch, Field *field, KdaDecodeError *error)
{
	const char *p = *pp;

	if (p < end && *p == '"')
	{
		const char *from = ++p;
		char	   *copy = *scratch;
		bool		doubled = false;

		for (;;)
		{
			const char *quote = memchr(p, '"', end - p);

			if (quote == NULL)
				return kda_decode_error(error, "malformed", "a quoted CSV field is not closed");
			if (quote + 1 < end && quote[1] == '"')
			{
				/* up to and with the first of the two */
				memcpy(copy, p, quote + 1 - p);
				copy += quote + 1 - p;
				doubled = true;
				p = quote + 2;
				continue;
			}
			if (doubled)
			{
				memcpy(copy, p, quote - p);
				copy += quote - p;
				field->p = *scratch;
				field->len = copy - *scratch;
				*scratch = copy;
			}
			else
			{
				field->p = from;
				field->len = quote - from;
			}
			p = quote + 1;
			break;
		}
		field->quoted = true;
		if (p < end && *p != csv->delimiter && *p != '\n' && *p != '\r')
			return kda_decode_error(error, "malformed", "something follows a quoted CSV field");
	}
	else
	{
		const char *from = p;

		while (p < end && *p != csv->delimiter && *p != '\n' && *p != '\r')
			p++;
		field->p = from;
		field->len = p - from;
		field->quoted = false;
	}
	*pp = p;
	return true;
}

bool
kda_csv_parse(KdaCsv *csv, const char *data, Size len, KdaRows *rows, KdaDecodeError *error)
{
	const char *p = data;
	const char *end = data + len;
	char	   *scratch;
	bool		header = csv->header;
	int		   *column_of = NULL;	/* by field: the stream's column, -1: none */
	int			nfields = csv->ncolumns;
	Size		null_len = strlen(csv->null_text);
	int			line = 0;

	if (csv->scratch_size < len + 1)
	{
		if (csv->scratch)
			pfree(csv->scratch);
		csv->scratch_size = Max(len + 1, csv->scratch_size * 2);
		csv->scratch = MemoryContextAllocHuge(csv->context, csv->scratch_size);
	}
	scratch = csv->scratch;
	while (p < end)
	{
		KdaValue   *values = NULL;
		int			n = 0;

		line++;
		if (*p == '\n' || *p == '\r')
		{
			p++;				/* empty line, or the second half of a line end */
			continue;
		}
		if (header)
		{
			if (csv->column_of == NULL)
				csv->column_of = MemoryContextAlloc(csv->context, sizeof(int) * MAX_HEADER);
			column_of = csv->column_of;
			nfields = 0;
		}
		else
			values = kda_rows_add(rows);
		for (;;)
		{
			Field		field = {0};
			int			column;

			if (!read_field(csv, &p, end, &scratch, &field, error))
				return false;
			if (header)
			{
				if (n < MAX_HEADER)
				{
					column_of[n] = -1;
					for (int pass = 0; pass < 2 && column_of[n] < 0; pass++)
						for (int c = 0; c < csv->ncolumns; c++)
							if (strlen(csv->names[c]) == field.len &&
								(pass == 0 ? memcmp(csv->names[c], field.p, field.len) :
								 pg_strncasecmp(csv->names[c], field.p, field.len)) == 0)
							{
								column_of[n] = c;
								break;
							}
					nfields = n + 1;
				}
			}
			else if (n < nfields)
			{
				column = column_of ? column_of[n] : n;
				if (column >= 0 && csv->slot_of[column] >= 0)
				{
					KdaValue   *v = &values[csv->slot_of[column]];

					v->p = field.p;
					v->len = field.len;
					v->kind = !field.quoted && field.len == null_len &&
						memcmp(field.p, csv->null_text, null_len) == 0 ? KDA_VALUE_NULL : KDA_VALUE_STRING;
					v->quality = 0;	/* no JSON */
				}
			}
			n++;
			if (p < end && *p == csv->delimiter)
			{
				p++;
				continue;
			}
			break;
		}
		if (!header && n < nfields)
			return kda_decode_error(error, "malformed", "line %d has %d of %d CSV columns", line, n, nfields);
		if (p + 1 < end && p[0] == '\r' && p[1] == '\n')
			p++;
		if (p < end)
			p++;
		header = false;
	}
	return true;
}
