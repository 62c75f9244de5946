/*-------------------------------------------------------------------------
 *
 * avro_decode.c
 *	  Avro records of a stream: which schema each was written with, and the plan
 *	  for it.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <zlib.h>

#include "format/avro.h"
#include "format/schemas.h"
#include "runtime/runtime.h"
#include "utils/memutils.h"

typedef struct Planned
{
	const KdaAvroType *type;
	KdaAvroPlan *plan;			/* NULL: refused */
	KdaDecodeError error;
	struct Planned *next;
} Planned;

struct KdaAvroDecoder
{
	MemoryContext context;
	const KdaAvroType *reader;	/* option schema; NULL: there is none */
	KdaSchemas *schemas;		/* NULL: all records are written with the reader's */
	KdaFraming	framing;
	const KdaAvroWish *wishes;
	int			n;
	Planned    *planned;		/* the last one that was used is the first */
	char	   *inflated;		/* grows as needed */
	Size		inflated_size;
};

KdaAvroDecoder *
kda_avro_decoder_create(MemoryContext context, const KdaAvroType *reader, KdaSchemas *schemas, const KdaAvroWish *wishes, int n)
{
	KdaAvroDecoder *d = MemoryContextAllocZero(context, sizeof(KdaAvroDecoder));

	d->context = context;
	d->reader = reader;
	d->schemas = schemas;
	d->framing = schemas ? kda_schemas_framing(schemas) : KDA_FRAMING_BARE;
	d->wishes = wishes;
	d->n = n;
	return d;
}

static Planned *
plan_for(KdaAvroDecoder *d, const KdaAvroType *type)
{
	Planned   **at = &d->planned;
	Planned    *found;

	while (*at && (*at)->type != type)
		at = &(*at)->next;
	found = *at;
	if (found == NULL)
	{
		found = MemoryContextAllocZero(d->context, sizeof(Planned));
		found->type = type;
		found->plan = kda_avro_plan(d->context, type, d->reader, d->wishes, d->n, &found->error);
	}
	else
		*at = found->next;
	found->next = d->planned;
	d->planned = found;
	return found;
}

/* The bytes behind a header of Glue's, which may be compressed with zlib. */
static bool
inflate_record(KdaAvroDecoder *d, const char **data, Size *len, KdaDecodeError *error)
{
	z_stream	z = {0};
	Size		limit = kda_max_record_bytes;
	int			result;

	if (inflateInit(&z) != Z_OK)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	z.next_in = (Bytef *) *data;
	z.avail_in = *len;
	for (;;)
	{
		if (z.total_out == d->inflated_size)
		{
			Size		size = Min(Max(d->inflated_size * 2, 64 * 1024), limit + 1);

			if (d->inflated_size > limit)
			{
				inflateEnd(&z);
				return kda_decode_error(error, "too_large", "the record has more than %d bytes when it is no longer compressed; kda_stream.max_record_bytes allows no more",
										kda_max_record_bytes);
			}
			/* memory that the context cannot give is an error that leaves zlib's own behind */
			d->inflated = d->inflated ? repalloc_huge(d->inflated, size) : MemoryContextAllocHuge(d->context, size);
			d->inflated_size = size;
		}
		z.next_out = (Bytef *) d->inflated + z.total_out;
		z.avail_out = d->inflated_size - z.total_out;
		result = inflate(&z, Z_NO_FLUSH);
		if (result == Z_STREAM_END)
			break;
		if (result != Z_OK || (z.avail_in == 0 && z.avail_out > 0))
		{
			inflateEnd(&z);
			return kda_decode_error(error, "malformed", "the record is compressed with zlib, but cannot be read");
		}
	}
	*data = d->inflated;
	*len = z.total_out;
	inflateEnd(&z);
	return true;
}

bool
kda_avro_decode(KdaAvroDecoder *d, const char *data, Size len, MemoryContext temp, KdaRows *rows, KdaDecodeError *error)
{
	const KdaAvroType *type = d->reader;
	Planned    *planned;

	if (d->framing != KDA_FRAMING_BARE)
	{
		KdaSchemaId id;
		KdaSchema  *schema;
		int			header;
		const char *why;
		char		text[40];

		if (!kda_schema_of_record(d->framing, data, len, &id, &header, &why))
			return kda_decode_error(error, "malformed", "the record names no schema: %s", why);
		schema = kda_schemas_find(d->schemas, &id);
		if (schema == NULL)
			schema = kda_schemas_load(d->schemas, &id);
		if (schema == NULL || schema->type == NULL)
			return kda_decode_error(error, "malformed", "schema %s of the record cannot be used: %s", kda_schema_id_text(&id, text),
									schema ? schema->why : "nobody has asked the registry for it");
		type = schema->type;
		if (d->framing == KDA_FRAMING_GLUE && data[1] == 5)
		{
			data += header;
			len -= header;
			if (!inflate_record(d, &data, &len, error))
				return false;
		}
		else
		{
			data += header;
			len -= header;
		}
	}
	planned = d->planned && d->planned->type == type ? d->planned : plan_for(d, type);
	if (planned->plan == NULL)
	{
		*error = planned->error;
		return false;
	}
	return kda_avro_read(planned->plan, data, len, kda_max_json_depth, kda_max_record_bytes, temp, rows, error);
}
