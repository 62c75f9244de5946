/*-------------------------------------------------------------------------
 *
 * format.h
 *	  Bytes to typed columns: straight from a record into a batch, only the
 *	  columns that the batch has (batch->values[i] != NULL).
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_FORMAT_H
#define KDA_FORMAT_H

#include "kda_stream.h"
#include "catalog/options.h"
#include "connector/connector.h"
#include "stream/batch.h"

typedef struct KdaDecoder KdaDecoder;

/* Why a record was refused: error_name of kda.error_stream, and a message. */
typedef struct KdaDecodeError
{
	const char *name;			/* "malformed", "conversion", "too_large" */
	char		message[512];	/* names the column and the value's kind; no secrets */
} KdaDecodeError;

/*
 * desc and options stay the caller's and must outlive the decoder.  Memory
 * from the given context.  ereports on impossible options (a path that does
 * not parse, a type that the format cannot give).
 */
extern KdaDecoder *kda_decoder_create(MemoryContext context, TupleDesc desc,
									  const KdaStreamOptions *options);

/* The schemas that records name; NULL where they name none. */
extern struct KdaSchemas *kda_decoder_schemas(KdaDecoder *decoder);

/* ereports on a JSON path that does not parse; star: of option row_path, [*] may be in it. */
extern void kda_json_check_path(const char *path, bool star);

/* The keys (char *) of a path made of nothing else; false if there is something else.  keys may be NULL. */
extern bool kda_format_path_keys(const char *path, List **keys);
/* ereports on a text (in the database's encoding) that is no Avro schema. */
extern void kda_format_check_schema(const char *text);

/*
 * Called for each record that is refused.  index: into raw->records.
 */
typedef void (*KdaRefuse) (void *arg, int index, const KdaDecodeError *error);

typedef struct KdaDecodeCounts
{
	int64		skipped;		/* tombstones, empty payloads */
	int64		failed;
} KdaDecodeCounts;

/*
 * Decodes all records of raw and appends their rows to batch (values, nulls,
 * shard, position, arrival, record; rowtime from the declared time column or
 * KDA_NO_TIME where arrival is to be taken).  shard_map translates the
 * source's shard index to the batch's; shard_names is by the batch's index.
 *
 * Runs in a transaction.  Values whose input function can raise an error are
 * tried together in one subtransaction, and one record at a time only after a
 * failure, so a good batch pays for none.
 */
extern void kda_decode(KdaDecoder *decoder, const KdaRawBatch *raw,
					   const KdaSourceOps *ops, const int32 *shard_map,
					   char *const *shard_names, KdaBatch *batch,
					   KdaRefuse refuse, void *arg, KdaDecodeCounts *counts);

#endif							/* KDA_FORMAT_H */
