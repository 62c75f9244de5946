/*-------------------------------------------------------------------------
 *
 * kinesis_reply.h
 *	  What Kinesis answers: pages of records, lists of shards, a stream's
 *	  description.
 *
 * Everything is read where it lies: strings are unescaped, and data decoded
 * from base64, in the answer's own memory, which is written to.  Nothing is
 * allocated for a record.  Answers come from the network and may be anything.
 * No server is needed, so tests run this outside of one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_KINESIS_REPLY_H
#define KDA_KINESIS_REPLY_H

#include "postgres.h"

#define KDA_KINESIS_CHILDREN	4

/* An answer of GetRecords.  data[len] must be '\0'. */
typedef struct KdaKinesisPage
{
	char	   *next;			/* the rest of the array Records; NULL: there is none */
	char	   *end;
	bool		first;
	bool		empty;			/* there are no records */
	char	   *iterator;		/* NUL-terminated; NULL: the shard has ended */
	int64		millis_behind;	/* -1: it was not said */
	int			nchildren;		/* of a shard that has ended; what is beyond the array is left out */
	char	   *children[KDA_KINESIS_CHILDREN];
} KdaKinesisPage;

typedef struct KdaKinesisRecord
{
	char	   *data;
	size_t		len;
	char	   *key;			/* partition key, NUL-terminated; NULL: none */
	size_t		key_len;
	char	   *sequence;		/* decimal digits, NUL-terminated */
	int64		arrival_ms;		/* unix time; -1: it was not said */
} KdaKinesisRecord;

/* False: this is no such answer. */
extern bool kda_kinesis_page(KdaKinesisPage *page, char *data, size_t len);

typedef enum KdaKinesisNext
{
	KDA_KINESIS_RECORD,
	KDA_KINESIS_NO_MORE,
	KDA_KINESIS_BROKEN			/* not well-formed; the page cannot be read any further */
} KdaKinesisNext;

extern KdaKinesisNext kda_kinesis_next(KdaKinesisPage *page, KdaKinesisRecord *record);

/* An entry of ListShards' answer. */
typedef struct KdaKinesisShardInfo
{
	char	   *id;
	char	   *parents[2];		/* NULL: none */
	char	   *from_hash;		/* decimal digits; "" if it was not said */
	char	   *to_hash;
	bool		ended;
} KdaKinesisShardInfo;

/*
 * Calls add for each shard, in the answer's order; it may say no.  token: of
 * the next page, NULL: this is the last one.
 */
extern bool kda_kinesis_shards(char *data, size_t len, bool (*add) (void *arg, const KdaKinesisShardInfo *shard), void *arg,
							   char **token);

/* DescribeStreamSummary's answer. */
typedef struct KdaKinesisSummary
{
	char	   *status;			/* "" if it was not said */
	int64		created_ms;		/* unix time; 0 if it was not said, like the next */
	int64		retention_hours;
} KdaKinesisSummary;

extern bool kda_kinesis_summary(char *data, size_t len, KdaKinesisSummary *summary);

/* The one string of that name in an answer's object, NUL-terminated; NULL: there is none. */
extern char *kda_kinesis_string(char *data, size_t len, const char *name);

/* Decimal digits without leading zeroes: <0, 0, >0. */
extern int	kda_kinesis_compare(const char *a, const char *b);

/* In place; gives the number of bytes, or -1. */
extern ssize_t kda_kinesis_base64(char *data, size_t len);

#endif							/* KDA_KINESIS_REPLY_H */
