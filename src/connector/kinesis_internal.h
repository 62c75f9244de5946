/*-------------------------------------------------------------------------
 *
 * kinesis_internal.h
 *	  A Kinesis stream that is read: shared by kinesis.c (the stream, its list
 *	  of shards) and kinesis_shard.c (reading of one shard).
 *
 * All of it runs on the main thread; what waits is the HTTP client's.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_KINESIS_INTERNAL_H
#define KDA_KINESIS_INTERNAL_H

#include "kda_stream.h"

#include "connector/aws.h"
#include "connector/aws_access.h"
#include "connector/connector.h"
#include "connector/kinesis_kpl.h"
#include "connector/kinesis_reply.h"

#define KINESIS_EPOCH_MS	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000)
#define KINESIS_NEVER_MS	PG_INT64_MAX
#define KINESIS_OLDEST		"TRIM_HORIZON"	/* as a mark: from the oldest record on */

/* A page of records that is being handed out. */
typedef struct KinesisReply
{
	struct KinesisReply *next;	/* of the same shard */
	KdaText		answer;
	KdaKinesisPage page;
	int			refs;			/* records that were handed out and not released */
	bool		dropped;		/* no shard has it any more */
	int			n;				/* records in it, as far as it has been read */
	int			limit;			/* that was asked for */
	int64		sent_ms;		/* monotonic, like all times in ms here */
	TimestampTz sent_at;
	/* the aggregate that is being taken apart */
	bool		in_kpl;
	KdaKpl		kpl;
	char	   *sequence;
	KdaTime		arrival;
} KinesisReply;

typedef struct KinesisShard
{
	KdaSourceShard base;		/* first */
	bool		listed_ended;	/* the list says that it has an end */
	KdaHashKey	from_hash;
	KdaHashKey	to_hash;
	KdaShardStart start;

	char	   *iterator;		/* malloc'd; NULL: to be asked for */
	KdaAwsCall *call;
	bool		asks_records;	/* else the call is for an iterator */
	int64		sent_ms;		/* of the last call for records */
	TimestampTz sent_at;
	int64		next_ms;		/* no call before */
	int			limit;			/* records a call */
	KdaRetry	retry;			/* after errors that a call is not tried again for */
	KinesisReply *first;		/* pages that are not handed out yet */
	KinesisReply *last;
	int			npages;

	/* the record that reading goes on behind has still to come, and to be compared */
	bool		verify;
	char		want[KDA_MARK_SIZE];
	int32		want_sub;		/* -1: it is no part of an aggregate */
	bool		compare;		/* start has its arrival and CRC */
	int64		since_ms;		/* unix time: what came before is passed over; 0: nothing is */

	bool		ended;			/* there are no more records; closed once its children are in the list */
	int64		ended_ms;
	int			nchildren;
	char		children[KDA_KINESIS_CHILDREN][KDA_SHARD_NAME];
	int64		covered_ms;		/* what had come by then has been handed out */
} KinesisShard;

typedef struct Kinesis
{
	KdaSource	base;			/* first */
	MemoryContext context;
	KdaAwsAccess *access;
	KdaAwsService service;
	Oid			serverid;
	Oid			owner;
	int			wake_fd;
	char		name[300];		/* name or ARN */
	char		stream_field[340];	/* "StreamName":"..." or "StreamARN":"..." */
	char		arn_field[340]; /* the latter with a comma before it, or "" */
	Size		fetch_memory;

	KinesisShard **shards;		/* base.shards */
	KinesisShard **found;		/* of the list that is being read */
	int			nfound;
	bool		missing;		/* there is no such stream */
	char		trouble[512];	/* with its description and list */
	int64		retention_us;	/* 0: not known */
	char		identity[40];

	KdaAwsCall *call;
	bool		asks_list;		/* else the call is for the description */
	int64		list_at_ms;		/* next time that the list is read */
	int64		list_began_ms;
	int64		listed_ms;		/* when the last complete list was begun */
	KdaRetry	retry;

	Size		held;			/* bytes of pages */
	int			running;		/* calls for records */
	int			nopen;			/* shards that are being read */
	int			turn;			/* where service and fetch begin */
	int64		next_ms;		/* when service() has something to do */
} Kinesis;

/*---- kinesis.c */

extern KdaAwsCall *kda_kinesis_call(Kinesis *k, const char *target, const char *fmt,...) pg_attribute_printf(3, 4);

/* May this text stand in a request as it is? */
extern bool kda_kinesis_is_plain(const char *s);

/* The list is to be read again, because of something that was seen now. */
extern void kda_kinesis_want_list(Kinesis *k, int64 now_ms);

/*---- kinesis_shard.c */

extern KinesisShard *kda_kinesis_shard_new(const KdaKinesisShardInfo *info);
extern void kda_kinesis_shard_free(Kinesis *k, KinesisShard *s);
extern void kda_kinesis_shard_assign(Kinesis *k, KinesisShard *s, const KdaShardStart *start);
extern void kda_kinesis_shard_service(Kinesis *k, KinesisShard *s, int64 now_ms);

/* Its stream must stop. */
extern void kda_kinesis_shard_lose(Kinesis *k, KinesisShard *s, const char *fmt,...) pg_attribute_printf(3, 4);

/* Appends records; returns their number. */
extern int	kda_kinesis_shard_fetch(Kinesis *k, KinesisShard *s, int index, KdaRawBatch *into, int max_records, Size limit);
extern void kda_kinesis_release(Kinesis *k, KdaRawBatch *batch);

#endif							/* KDA_KINESIS_INTERNAL_H */
