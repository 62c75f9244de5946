/*-------------------------------------------------------------------------
 *
 * schemas.c
 *	  The schemas that are known of a stream, by the numbers that records carry:
 *	  see schemas.h.  They are kept as long as the stream is: a registry never
 *	  gives a number to another schema.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/rows.h"
#include "format/avro.h"
#include "format/schemas.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

struct KdaSchemas
{
	MemoryContext context;
	KdaFraming	framing;
	HTAB	   *table;
	Oid			registry;
};

/* The pointer in it stays where it is when the table grows. */
typedef struct Entry
{
	KdaSchemaId id;
	KdaSchema  *schema;
} Entry;

KdaSchemas *
kda_schemas_create(MemoryContext context, KdaFraming framing, Oid registry)
{
	KdaSchemas *schemas = MemoryContextAllocZero(context, sizeof(KdaSchemas));
	HASHCTL		control = {.keysize = sizeof(KdaSchemaId),.entrysize = sizeof(Entry),.hcxt = context};

	schemas->context = context;
	schemas->framing = framing;
	schemas->registry = registry;
	schemas->table = hash_create("kda schemas", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return schemas;
}

KdaFraming
kda_schemas_framing(const KdaSchemas *schemas)
{
	return schemas->framing;
}

KdaSchema *
kda_schemas_find(KdaSchemas *schemas, const KdaSchemaId *id)
{
	Entry	   *entry = hash_search(schemas->table, id, HASH_FIND, NULL);

	return entry ? entry->schema : NULL;
}

KdaSchema *
kda_schemas_add(KdaSchemas *schemas, const KdaSchemaId *id, const char *text, Size len, const char *why)
{
	Entry	   *entry = hash_search(schemas->table, id, HASH_ENTER, NULL);
	KdaSchema  *schema = MemoryContextAllocZero(schemas->context, sizeof(KdaSchema));
	char	   *wrong = NULL;

	entry->schema = schema;
	schema->id = *id;
	schema->since = GetCurrentTimestamp();
	if (text)
		schema->type = kda_avro_schema(schemas->context, text, len, &wrong);
	if (schema->type == NULL)
		schema->why = MemoryContextStrdup(schemas->context, wrong ? wrong : why);
	return schema;
}

/* The number as a literal of bytea. */
static char *
literal(const KdaSchemaId *id)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s, "'\\x");
	for (int i = 0; i < id->len; i++)
		appendStringInfo(&s, "%02x", id->bytes[i]);
	appendStringInfoChar(&s, '\'');
	return s.data;
}

KdaSchema *
kda_schemas_load(KdaSchemas *schemas, const KdaSchemaId *id)
{
	char	   *text;

	if (!kda_owner_row(psprintf("SELECT pg_catalog.encode(schema, 'hex') FROM kda_storage.registered_schema WHERE registry = %u AND id = %s",
								schemas->registry, literal(id)), 1, &text))
		return NULL;
	/* the text is UTF-8, whatever the database's encoding is */
	text[hex_decode(text, strlen(text), text)] = '\0';
	return kda_schemas_add(schemas, id, text, strlen(text), NULL);
}

void
kda_schemas_store(KdaSchemas *schemas, const KdaSchemaId *id, const char *text, Size len)
{
	char	   *hex = palloc(len * 2 + 1);

	hex[hex_encode(text, len, hex)] = '\0';
	kda_run_as_owner(psprintf("INSERT INTO kda_storage.registered_schema (registry, id, schema) VALUES (%u, %s, '\\x%s') ON CONFLICT DO NOTHING",
							  schemas->registry, literal(id), hex));
}

void
kda_schemas_forget(KdaSchemas *schemas, const KdaSchemaId *id)
{
	KdaSchema  *schema = kda_schemas_find(schemas, id);

	(void) hash_search(schemas->table, id, HASH_REMOVE, NULL);
	/* a refused one is in no plan */
	if (schema && schema->type == NULL)
		pfree(schema);
}

bool
kda_schema_of_record(KdaFraming framing, const char *data, Size len, KdaSchemaId *id, int *header, const char **why)
{
	memset(id, 0, sizeof(*id));
	*header = 0;
	switch (framing)
	{
		case KDA_FRAMING_BARE:
			return true;
		case KDA_FRAMING_CONFLUENT:
			*header = 5;
			*why = "it does not begin with a zero byte and the number of a schema";
			if (len < 5 || data[0] != 0)
				return false;
			id->len = 4;
			break;
		case KDA_FRAMING_GLUE:
			*header = KDA_SCHEMA_HEADER_BYTES;
			*why = "it does not begin with the bytes of the Glue schema registry";
			if (len < KDA_SCHEMA_HEADER_BYTES || data[0] != 3)
				return false;
			*why = "it is compressed in a way that is not known";
			if (data[1] != 0 && data[1] != 5)
				return false;
			id->len = 16;
			break;
	}
	memcpy(id->bytes, data + *header - id->len, id->len);
	return true;
}

int
kda_schema_header(KdaFraming framing, const KdaSchemaId *id, char *out)
{
	int			n = 0;

	if (framing == KDA_FRAMING_BARE)
		return 0;
	if (framing == KDA_FRAMING_CONFLUENT)
		out[n++] = 0;
	else
	{
		out[n++] = 3;
		out[n++] = 0;
	}
	memcpy(out + n, id->bytes, id->len);
	return n + id->len;
}

char *
kda_schema_id_text(const KdaSchemaId *id, char *out)
{
	char	   *p = out;

	if (id->len == 4)
		sprintf(out, "%u", (uint32) id->bytes[0] << 24 | id->bytes[1] << 16 | id->bytes[2] << 8 | id->bytes[3]);
	else
		for (int i = 0; i < id->len; i++)
			p += sprintf(p, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", id->bytes[i]);
	return out;
}
