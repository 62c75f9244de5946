/*-------------------------------------------------------------------------
 *
 * kinesis_kpl.h
 *	  Records that the Kinesis Producer Library has put together into one.
 *
 * The format is described in awslabs/amazon-kinesis-producer,
 * aggregation-format.md: four magic bytes, a protobuf message, its MD5.  What
 * does not fit it exactly is an ordinary record, as for the Kinesis Client
 * Library.  Records come from anybody who may write to the stream.  No server
 * is needed, so tests run this outside of one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_KINESIS_KPL_H
#define KDA_KINESIS_KPL_H

#include "postgres.h"

#define KDA_KPL_MAX_RECORDS		1000000 /* in one aggregate, and keys; more is no aggregate */

typedef unsigned __int128 KdaHashKey;

typedef struct KdaKplKey
{
	const char *p;
	uint32		len;
	bool		hashed;
	KdaHashKey	hash;
} KdaKplKey;

/* Points into the record, which must live as long. */
typedef struct KdaKpl
{
	const uint8 *p;				/* what is left of the message */
	const uint8 *end;
	KdaKplKey  *keys;			/* malloc'd: partition keys, then explicit hash keys */
	uint32		nkeys;
	uint32		nhashes;
	int32		next;			/* number of the next record */
	int32		n;				/* of records */
} KdaKpl;

typedef enum KdaKplKind
{
	KDA_KPL_PLAIN,				/* an ordinary record */
	KDA_KPL_AGGREGATE,			/* to be read with kda_kpl_next(), then freed */
	KDA_KPL_ELSEWHERE,			/* has a record of another shard: the producer sends all of it again */
	KDA_KPL_NO_MEMORY
} KdaKplKind;

/* from, to: the shard's range of hash keys. */
extern KdaKplKind kda_kpl_begin(KdaKpl *kpl, const char *data, size_t len, KdaHashKey from, KdaHashKey to);

/* False: that was the last one.  What begin has looked at is not looked at again. */
extern bool kda_kpl_next(KdaKpl *kpl, const char **data, size_t *len, const char **key, size_t *key_len);

extern void kda_kpl_free(KdaKpl *kpl);

/* Decimal digits; false if they are none, or too many. */
extern bool kda_kpl_hash_key(const char *text, size_t len, KdaHashKey *key);

#endif							/* KDA_KINESIS_KPL_H */
