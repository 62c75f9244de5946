/*-------------------------------------------------------------------------
 *
 * encode.h
 *	  Typed columns to bytes: what leaves for an outside system.
 *
 * The same row gives the same bytes whatever the session's settings are: times
 * have the zone of option time_zone, as the options say it.  Text is UTF-8.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_ENCODE_H
#define KDA_ENCODE_H

#include "kda_stream.h"
#include "catalog/options.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"

typedef struct KdaEncoder KdaEncoder;

/*
 * For rows of that form, in the format that the options name.  columns: which
 * of them (attribute numbers), NULL: all that are not dropped.  Columns with
 * option meta are of the record's envelope, never in its bytes; nor is the time
 * column with formats text and bytea.  desc and options stay the caller's and
 * must outlive the encoder; options->columns may be NULL: none has options.
 * ereports on what the format cannot say.
 */
extern KdaEncoder *kda_encoder_create(MemoryContext context, TupleDesc desc, const KdaStreamOptions *options,
									  Bitmapset *columns);

/*
 * Appends the row.  False: there is nothing to append (formats text and bytea,
 * whose only column is NULL): a tombstone where the other side knows that.
 * Output functions and casts to json may be code of users: run it as the one
 * that they belong to.  ereports (class 22) where a value cannot be said.
 * Memory that it needs meanwhile is of CurrentMemoryContext.
 */
extern bool kda_encode(KdaEncoder *encoder, TupleTableSlot *slot, StringInfo into);

/*
 * Format avro: the schema of what is encoded (JSON, UTF-8); NULL: another
 * format.  Records are bare: who sends them puts the header before them that a
 * registry's number for this text gives (schemas.h).
 */
extern const char *kda_encoder_schema(const KdaEncoder *encoder);

/*
 * A column as it stands in a key or a partition key: text as it is, bytea as its
 * bytes, else its text.  Any column of desc.  False: NULL.
 */
extern bool kda_encode_key(KdaEncoder *encoder, TupleTableSlot *slot, AttrNumber attno, StringInfo into);

#endif							/* KDA_ENCODE_H */
