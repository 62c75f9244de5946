/*-------------------------------------------------------------------------
 *
 * kinesis_put.h
 *	  PutRecords of Kinesis: the body of a request, and what an answer says of
 *	  each of its records.
 *
 * No server is needed, so tests run this outside of one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_KINESIS_PUT_H
#define KDA_KINESIS_PUT_H

#include "postgres.h"
#include "connector/aws_reply.h"
#include "connector/secret.h"

/* Quotas of a request, as AWS documents them; bytes are those of data and partition keys. */
#define KDA_KINESIS_PUT_RECORDS		500
#define KDA_KINESIS_PUT_BYTES		(10 * 1024 * 1024)

/* A request while it is written; zero, then what comes first is the caller's. */
typedef struct KdaKinesisPut
{
	KdaText    *body;			/* empty */
	const char *stream;			/* name or ARN */
	const char *member;			/* of JSON objects, first, with the record's number: "\"kda_seq\":"; NULL: none */

	int			n;				/* records in it */
	KdaText		head;			/* the beginning of a record */
} KdaKinesisPut;

typedef struct KdaKinesisRecord
{
	int64		number;
	const char *value;
	size_t		len;
	const char *key;			/* UTF-8; NULL: the number */
	size_t		key_len;
	const char *hash_key;		/* NULL: none */
} KdaKinesisRecord;

/* A JSON string's member name with its quotes and colon, for KdaKinesisPut.member. */
extern void kda_kinesis_member(KdaText *to, const char *name);

extern void kda_kinesis_put_begin(KdaKinesisPut *put);
extern void kda_kinesis_put_add(KdaKinesisPut *put, const KdaKinesisRecord *record);

/* Then only the body is left, which may have failed. */
extern void kda_kinesis_put_end(KdaKinesisPut *put);

/* At most so many bytes of the quota are a record's (spaces in an object's beginning may make it fewer). */
extern size_t kda_kinesis_size(const KdaKinesisRecord *record, const char *member);

/*
 * What the answer to a request of n records says: failed[i] is set or cleared.
 * Gives the number of those that have failed, with the first one's trouble in
 * *error; -1: it is no such answer.
 */
extern int	kda_kinesis_put_results(const KdaText *answer, int n, bool *failed, KdaAwsError *error);

/* Which record (from 0) a refusal of a request of n blames; -1: it does not say. */
extern int	kda_kinesis_put_blamed(const char *message, int n);

/* Is a refusal about some record, rather than about the stream? */
extern bool kda_kinesis_put_is_of_record(const KdaAwsError *error);

#endif							/* KDA_KINESIS_PUT_H */
