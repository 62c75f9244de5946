/*-------------------------------------------------------------------------
 *
 * avro.h
 *	  Avro: schemas, and records to values.  Private to format/, but for what
 *	  schemas.h says.
 *
 * libavro knows neither aliases nor logical types, allocates per value and
 * trusts its input; here a schema is a tree of at most so many nodes, a record
 * is read straight into the values that columns want, and every length, count
 * and depth is checked against what the record has left.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_AVRO_H
#define KDA_AVRO_H

#include "kda_stream.h"
#include "format/schemas.h"
#include "format/value.h"
#include "lib/stringinfo.h"

#define KDA_AVRO_MAX_SCHEMA		(1024 * 1024)	/* bytes of a schema's text */
#define KDA_AVRO_MAX_NODES		20000	/* types and fields in it */
#define KDA_AVRO_MAX_DEPTH		64		/* of its nesting */

typedef enum KdaAvroKind
{
	KDA_AVRO_NULL,
	KDA_AVRO_BOOLEAN,
	KDA_AVRO_INT,
	KDA_AVRO_LONG,
	KDA_AVRO_FLOAT,
	KDA_AVRO_DOUBLE,
	KDA_AVRO_BYTES,
	KDA_AVRO_STRING,
	KDA_AVRO_FIXED,
	KDA_AVRO_ENUM,
	KDA_AVRO_ARRAY,
	KDA_AVRO_MAP,
	KDA_AVRO_UNION,
	KDA_AVRO_RECORD
} KdaAvroKind;

typedef enum KdaAvroLogical
{
	KDA_AVRO_PLAIN,
	KDA_AVRO_DECIMAL,
	KDA_AVRO_DATE,
	KDA_AVRO_TIME_MILLIS,
	KDA_AVRO_TIME_MICROS,
	KDA_AVRO_TIMESTAMP_MILLIS,
	KDA_AVRO_TIMESTAMP_MICROS,
	KDA_AVRO_LOCAL_MILLIS,
	KDA_AVRO_LOCAL_MICROS,
	KDA_AVRO_UUID
} KdaAvroLogical;

typedef struct KdaAvroType KdaAvroType;

typedef struct KdaAvroField
{
	char	   *name;
	char	  **aliases;
	int			naliases;
	KdaAvroType *type;
	char	   *default_json;	/* source text; NULL: none */
} KdaAvroField;

/* A named type that is used in several places, also inside of itself, is one node. */
struct KdaAvroType
{
	KdaAvroKind kind;
	KdaAvroLogical logical;
	int			precision;		/* decimal */
	int			scale;
	int64		size;			/* fixed */
	char	   *name;			/* record, enum, fixed: with its namespace */
	char	  **symbols;		/* enum */
	int			nsymbols;
	KdaAvroType **branches;		/* union; array and map: [0] */
	int			nbranches;
	KdaAvroField *fields;		/* record */
	int			nfields;
};

/*---- avro_schema.c: needs a server */

/*
 * A schema's text (JSON, UTF-8, any length) as a tree in memory of the context;
 * NULL with *why (at most 200 characters, from palloc) if it is none.
 */
extern KdaAvroType *kda_avro_schema(MemoryContext context, const char *text, Size len, char **why);

/*---- avro_read.c */

typedef struct KdaAvroPlan KdaAvroPlan;

/* What a slot wants: keys from the record down; a column without a path: its name, in any case. */
typedef struct KdaAvroWish
{
	char	  **keys;
	int			nkeys;
	bool		any_case;
	const char *column;			/* for messages */
} KdaAvroWish;

/*
 * From records that were written with that schema.  reader: as the stream wants
 * to see them, for aliases and defaults; NULL: as they are.  NULL with *error if
 * no record of that schema gives rows.
 */
extern KdaAvroPlan *kda_avro_plan(MemoryContext context, const KdaAvroType *writer, const KdaAvroType *reader,
								  const KdaAvroWish *wishes, int n, KdaDecodeError *error);

/*
 * Adds the row that the bytes stand for, all of which must be used up; strings
 * that are wanted are checked to be UTF-8.  temp: for values that are not in
 * the record as they are wanted.  max_text: of those.  Returns false with *error.
 */
extern bool kda_avro_read(KdaAvroPlan *plan, const char *data, Size len, int max_depth, Size max_text,
						  MemoryContext temp, KdaRows *rows, KdaDecodeError *error);

/*---- avro_decode.c */

typedef struct KdaAvroDecoder KdaAvroDecoder;

/* schemas: that records name; NULL: they are written with the reader's, which then there is. */
extern KdaAvroDecoder *kda_avro_decoder_create(MemoryContext context, const KdaAvroType *reader, KdaSchemas *schemas,
											   const KdaAvroWish *wishes, int n);
/* A record as it came, with its header; values may point into temp. */
extern bool kda_avro_decode(KdaAvroDecoder *decoder, const char *data, Size len, MemoryContext temp, KdaRows *rows,
							KdaDecodeError *error);

#endif							/* KDA_AVRO_H */
