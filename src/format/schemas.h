/*-------------------------------------------------------------------------
 *
 * schemas.h
 *	  The schemas that records of a stream are written with: what a record says
 *	  of its own, and what is known of each.
 *
 * The decoder looks them up; who asks a registry for them (connector/) puts
 * them in.  Outside of any transaction is all right.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_SCHEMAS_H
#define KDA_SCHEMAS_H

#include "kda_stream.h"

/* How a record says which schema it has. */
typedef enum KdaFraming
{
	KDA_FRAMING_BARE,			/* it does not: all have the same */
	KDA_FRAMING_CONFLUENT,		/* a zero byte, a number of 4 bytes, most significant first */
	KDA_FRAMING_GLUE			/* 3, compression (0: none, 5: zlib), a UUID of 16 bytes */
} KdaFraming;

#define KDA_SCHEMA_ID_BYTES		16	/* the longest: Glue's */
#define KDA_SCHEMA_HEADER_BYTES	18

typedef struct KdaSchemaId
{
	uint8		len;			/* 4 or 16 */
	uint8		bytes[KDA_SCHEMA_ID_BYTES];
} KdaSchemaId;

typedef struct KdaSchema
{
	KdaSchemaId id;
	const struct KdaAvroType *type; /* NULL: there is none */
	char	   *why;			/* ... because of this */
	TimestampTz since;			/* ... as of then */
} KdaSchema;

typedef struct KdaSchemas KdaSchemas;

/* registry: the server that gives the numbers. */
extern KdaSchemas *kda_schemas_create(MemoryContext context, KdaFraming framing, Oid registry);
extern KdaFraming kda_schemas_framing(const KdaSchemas *schemas);

/* NULL: nobody has asked for it yet.  A pointer stays good. */
extern KdaSchema *kda_schemas_find(KdaSchemas *schemas, const KdaSchemaId *id);
/* What the registry says of it: a schema's text, or (text NULL) why there is none. */
extern KdaSchema *kda_schemas_add(KdaSchemas *schemas, const KdaSchemaId *id, const char *text, Size len, const char *why);
/* In a transaction: what kda_storage.registered_schema has of the registry; NULL: nothing. */
extern KdaSchema *kda_schemas_load(KdaSchemas *schemas, const KdaSchemaId *id);
extern void kda_schemas_store(KdaSchemas *schemas, const KdaSchemaId *id, const char *text, Size len);
extern void kda_schemas_forget(KdaSchemas *schemas, const KdaSchemaId *id);

/* Which schema a record says it has; *header: how long that is.  False: it says nothing that is understood, *why. */
extern bool kda_schema_of_record(KdaFraming framing, const char *data, Size len, KdaSchemaId *id, int *header, const char **why);
/* The other way; gives the length of the header. */
extern int	kda_schema_header(KdaFraming framing, const KdaSchemaId *id, char *out);

/* As messages name it; out has room for 40 bytes. */
extern char *kda_schema_id_text(const KdaSchemaId *id, char *out);

#endif							/* KDA_SCHEMAS_H */
