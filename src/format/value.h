/*-------------------------------------------------------------------------
 *
 * value.h
 *	  Between the parsers (json.c, csv.c) and the converters (convert.c): where
 *	  in a record the value of a column is.  Private to format/.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_VALUE_H
#define KDA_VALUE_H

#include "kda_stream.h"
#include "format/format.h"

typedef enum KdaValueKind
{
	KDA_VALUE_MISSING = 0,
	KDA_VALUE_NULL,
	KDA_VALUE_STRING,			/* JSON: between the quotes */
	KDA_VALUE_NUMBER,
	KDA_VALUE_TRUE,
	KDA_VALUE_FALSE,
	KDA_VALUE_OBJECT,			/* source text */
	KDA_VALUE_ARRAY,
	/* not from text: binary.c */
	KDA_VALUE_INTEGER,
	KDA_VALUE_FLOAT,			/* was written as a float of 4 bytes */
	KDA_VALUE_DOUBLE,
	KDA_VALUE_MOMENT,			/* integer: µs since 2000-01-01 in UTC */
	KDA_VALUE_WALL,				/* integer: the same of a clock whose zone nobody knows */
	KDA_VALUE_DAY,				/* integer: days since 2000-01-01 */
	KDA_VALUE_CLOCK,			/* integer: µs since midnight */
	KDA_VALUE_BYTES
} KdaValueKind;

typedef struct KdaValue
{
	union
	{
		const char *p;			/* into the record */
		int64		integer;
		double		number;		/* KDA_VALUE_FLOAT, KDA_VALUE_DOUBLE */
	};
	uint32		len;
	uint8		kind;			/* KdaValueKind */
	bool		escaped;		/* a JSON string with backslashes */
	uint8		quality;		/* 2: the key matched exactly, 1: but for its case; 0: not from JSON */
} KdaValue;

/* Rows of one record: values[row * nslots + slot]. */
typedef struct KdaRows
{
	KdaValue   *values;
	int			nslots;
	int			nrows;
	int			room;			/* rows that fit */
	MemoryContext context;
} KdaRows;

/* A further row with all values missing. */
static inline KdaValue *
kda_rows_add(KdaRows *rows)
{
	KdaValue   *v;

	if (unlikely(rows->nrows == rows->room))
	{
		rows->room = rows->room ? rows->room * 2 : 16;
		rows->values = rows->values ?
			repalloc_huge(rows->values, sizeof(KdaValue) * rows->room * Max(rows->nslots, 1)) :
			MemoryContextAllocHuge(rows->context, sizeof(KdaValue) * rows->room * Max(rows->nslots, 1));
	}
	v = rows->values + (Size) rows->nrows++ * rows->nslots;
	memset(v, 0, sizeof(KdaValue) * rows->nslots);
	return v;
}

extern bool kda_decode_error(KdaDecodeError *error, const char *name, const char *fmt,...) pg_attribute_printf(3, 4);

/*---- json.c */
typedef struct KdaJsonPlan KdaJsonPlan;

/* What a slot wants: path NULL: the key name, in any case. */
typedef struct KdaJsonWish
{
	const char *path;
	const char *name;
} KdaJsonWish;

extern KdaJsonPlan *kda_json_plan(MemoryContext context, const KdaJsonWish *wishes, int n,
								  const char *row_path);
/*
 * Checks the whole text (it must be valid UTF-8 already) and adds its rows.
 * Returns false with *error.
 */
extern bool kda_json_parse(KdaJsonPlan *plan, const char *data, Size len, int max_depth,
						   KdaRows *rows, KdaDecodeError *error);
/*
 * Resolves backslashes; out has room for len bytes.  Returns the length, or -1
 * with *why (a zero character, half a surrogate pair).
 */
extern int	kda_json_unescape(const char *p, uint32 len, char *out, const char **why);

/*
 * In the source text of a JSON value: why an escape stands for no character
 * that text can have, NULL if all do.
 */
extern const char *kda_json_bad_escape(const char *p, uint32 len);

/*---- csv.c */
typedef struct KdaCsv
{
	char		delimiter;
	bool		header;
	const char *null_text;
	int			ncolumns;		/* of the stream */
	const char *const *names;	/* of the columns, for the header */
	const int  *slot_of;		/* [ncolumns]: -1: no query reads it */
	char	   *scratch;		/* for quoted fields; as long as the longest record */
	Size		scratch_size;
	int		   *column_of;		/* of the record's header, by field */
	MemoryContext context;
} KdaCsv;

extern bool kda_csv_parse(KdaCsv *csv, const char *data, Size len, KdaRows *rows, KdaDecodeError *error);

/*---- convert.c, binary.c */
typedef struct KdaConverter KdaConverter;

typedef enum KdaConverted
{
	KDA_CONVERTED,
	KDA_CONVERT_FAILED,			/* *error says why */
	KDA_CONVERT_MAY_RAISE		/* not tried: needs a subtransaction around it */
} KdaConverted;

extern KdaConverter *kda_converter_create(MemoryContext context, const char *column, Oid type, int32 typmod,
										  KdaTimeFormat time_format, const char *time_zone);
/*
 * value is neither missing nor null.  may_raise: an ereport is all right.
 * temp: for what is needed on the way.
 */
extern KdaConverted kda_convert(KdaConverter *converter, const KdaValue *value, KdaBatch *batch,
								MemoryContext temp, bool may_raise, Datum *result, KdaDecodeError *error);
/* May the column be null?  Raises an error if not (a domain NOT NULL). */
extern KdaConverted kda_convert_null(KdaConverter *converter, bool may_raise);

/*
 * A value that was not text as one that is, as JSON would say it; in memory of
 * temp.  NULL, or why it cannot be said.
 */
extern const char *kda_value_as_text(const KdaValue *value, MemoryContext temp, KdaValue *text);

#endif							/* KDA_VALUE_H */
