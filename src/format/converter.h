/*-------------------------------------------------------------------------
 *
 * converter.h
 *	  What convert.c and binary.c share: the converter of a column.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_CONVERTER_H
#define KDA_CONVERTER_H

#include "kda_stream.h"
#include "fmgr.h"
#include "format/iso_time.h"
#include "format/value.h"
#include "nodes/execnodes.h"
#include "pgtime.h"

typedef enum Kind
{
	C_TEXT,
	C_VARCHAR,
	C_INT,						/* 2, 4, 8 bytes */
	C_FLOAT4,
	C_FLOAT8,
	C_BOOL,
	C_NUMERIC,
	C_TIME,						/* timestamptz, timestamp, date */
	C_JSON,						/* json, jsonb */
	C_COMPOSED,					/* arrays, composite types: from JSON arrays and objects */
	C_INPUT						/* everything else */
} Kind;

#define INTERN_SLOTS	512		/* a power of two */
#define INTERN_BYTES	16		/* longer strings are not looked for */
#define INTERN_TRIES	256		/* after so many it must have been worth it */

/* A short string that a batch has already. */
typedef struct Interned
{
	uint64		first;			/* with last and len, all of its bytes */
	uint64		last;
	uint64		generation;		/* of the batch */
	struct varlena *text;
	int			len;
} Interned;

struct KdaConverter
{
	Kind		kind;
	char	   *column;
	Oid			type;
	int32		typmod;
	int16		typlen;
	bool		byval;
	bool		numbers;		/* C_INPUT: JSON numbers are welcome */
	bool		texts;			/* C_INPUT: so is everything, as its source text */
	Oid			domain;			/* whose constraints a value must satisfy; InvalidOid: none */
	void	   *domain_info;
	MemoryContext context;
	KdaTimeFormat time_format;
	pg_tz	   *zone;
	bool		zone_is_utc;
	FmgrInfo	input;
	Oid			ioparam;
	Interned   *interned;		/* C_TEXT, C_VARCHAR: [INTERN_SLOTS] */
	uint64		generation;		/* of the batch that the next two speak of */
	int			tries;
	int			hits;
	KdaMinute	minute;			/* C_TIME */
	FmgrInfo	to_record;		/* C_COMPOSED: json_to_record */
	ReturnSetInfo expected;		/* ... of one column */
};

/*---- convert.c */
extern KdaConverted kda_convert_base(KdaConverter *converter, const KdaValue *value, KdaBatch *batch, MemoryContext temp,
									 bool may_raise, Datum *result, KdaDecodeError *error);
/* The value cannot be of the column's type; why: NULL: its kind says it. */
extern KdaConverted kda_convert_failed(KdaConverter *converter, const KdaValue *value, KdaDecodeError *error, const char *why);
/* Copies a result of a function to where the batch lives. */
extern Datum kda_convert_to_batch(KdaConverter *converter, KdaBatch *batch, Datum value);
/* Wall clock times of the converter's zone, as if they were UTC, and points in time. */
extern int64 kda_convert_to_wall(KdaConverter *converter, int64 time);
extern int64 kda_convert_from_wall(KdaConverter *converter, int64 wall);
extern void kda_convert_put_time(KdaConverter *converter, int64 time, Datum *result);
extern void kda_convert_put_date(int64 wall, Datum *result);

/*---- binary.c: values that were not text */
extern KdaConverted kda_convert_binary(KdaConverter *converter, const KdaValue *value, KdaBatch *batch, MemoryContext temp,
									   bool may_raise, Datum *result, KdaDecodeError *error);

#endif							/* KDA_CONVERTER_H */
