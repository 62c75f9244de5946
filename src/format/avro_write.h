/*-------------------------------------------------------------------------
 *
 * avro_write.h
 *	  Rows to Avro records.  Private to format/.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_AVRO_WRITE_H
#define KDA_AVRO_WRITE_H

#include "kda_stream.h"
#include "catalog/options.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"

typedef struct KdaAvroWriter KdaAvroWriter;

/* The schema that is made from all columns of a stream that has no other; ASCII. */
extern char *kda_avro_derive(TupleDesc desc, const KdaStreamOptions *options);

/* attnos: the columns.  ereports on what Avro, or the schema that is given, cannot say. */
extern KdaAvroWriter *kda_avro_writer_create(MemoryContext context, TupleDesc desc, const KdaStreamOptions *options, List *attnos);
/* The schema that is written, UTF-8. */
extern const char *kda_avro_writer_schema(const KdaAvroWriter *writer);
/* Does it call functions that look at the session's settings? */
extern bool kda_avro_writer_calls(const KdaAvroWriter *writer);
/* Appends the row, whose columns are fetched. */
extern void kda_avro_write(KdaAvroWriter *writer, TupleTableSlot *slot, StringInfo into);

#endif							/* KDA_AVRO_WRITE_H */
