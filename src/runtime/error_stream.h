/*-------------------------------------------------------------------------
 *
 * error_stream.h
 *	  kda.error_stream: records that were refused.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_ERROR_STREAM_H
#define KDA_ERROR_STREAM_H

#include "kda_stream.h"

/*
 * Adds a row in the current transaction.  rowtime may be KDA_NO_TIME, shard,
 * position and data NULL, query InvalidOid.  data is cut at 64 kB.
 */
/* A stream between parts of a query stands for the one that it is made of. */
extern void kda_error_add(const char *error_name, const char *message, Oid stream,
						  const char *shard, const char *position, KdaTime rowtime,
						  const char *data, Size len, Oid query);

/*
 * At the begin and at the end of a worker's transaction: accounts for the rows
 * that it has added, and forgets the oldest ones beyond
 * kda_stream.error_stream_size and error_retention.
 */
extern void kda_error_stream_begin(void);
extern void kda_error_stream_settle(TimestampTz now);

#endif							/* KDA_ERROR_STREAM_H */
