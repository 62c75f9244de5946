/*-------------------------------------------------------------------------
 *
 * kafka_internal.h
 *	  What the two threads of a Kafka source share: kafka.c is the worker's (or
 *	  session's) own, kafka_helper.c the helper thread's.
 *
 * A source is memory of malloc's, because either thread may be the last one
 * that needs it: close() does not have to wait for a call that hangs.  The
 * helper makes and destroys everything of the library's and never calls into
 * PostgreSQL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_KAFKA_INTERNAL_H
#define KDA_KAFKA_INTERNAL_H

#include "kda_stream.h"

#include <librdkafka/rdkafka.h>
#include <pthread.h>

#include "connector/kafka.h"
#include "connector/kafka_conf.h"
#include "connector/kafka_iam.h"

#define KAFKA_MAX_PARTITIONS	100000

/* What the helper thread is asked about a shard. */
typedef enum KafkaAsk
{
	KAFKA_ASK_NOTHING,
	KAFKA_ASK_START,			/* an offset for start.kind */
	KAFKA_ASK_RANGE,			/* the position was refused: what is there? */
	KAFKA_ASK_DONE				/* answered */
} KafkaAsk;

typedef struct KafkaShard
{
	KdaSourceShard base;		/* first; main thread */
	int32		partition;
	KdaShardStart start;
	bool		reading;		/* consume_start was called */
	int64		check_offset;	/* >= 0: the record there must be the one that start describes */
	bool		was_missing;	/* its topic did not exist when the source was opened */
	TimestampTz again_at;		/* reading has stopped and begins again then; 0: not */
	int			damaged;		/* times that what is at next_position could not be read */

	/* protected by the mutex */
	KafkaAsk	ask;
	KafkaAsk	asked;			/* what KAFKA_ASK_DONE answers */
	KdaShardStart ask_start;
	int64		ask_position;	/* next_position when it was asked: what is read since may be beyond the answer */
	uint64		ask_serial;		/* an answer to an older question is none */
	int64		low;			/* at the broker, -1 unknown */
	int64		high;
	int64		answer;
	uint64		range_round;	/* number of the look that low and high are of */
	bool		reachable;		/* the last look had an answer for this partition */
} KafkaShard;

typedef struct Kafka
{
	KdaSource	base;			/* first; main thread */

	/* set by open() */
	char	   *topic_name;
	Size		fetch_memory;
	Size		max_record_bytes;
	int			wake_fd;
	rd_kafka_conf_t *conf;		/* what a handle is made with */
	KdaKafkaToken *token;		/* Amazon MSK with IAM; else NULL */

	/*
	 * Made by the helper; the main thread uses rk, topic and queue once it has
	 * seen "connected".  The second handle is for the helper's questions alone:
	 * on the first one they would wait behind a fetch that waits for records.
	 */
	rd_kafka_t *rk;
	rd_kafka_t *asking;
	rd_kafka_topic_t *topic;
	rd_kafka_queue_t *queue;

	/* the helper's own */
	char		reason[512];	/* what the library has last complained of */
	int			call_ms;		/* longest wait of one call */
	uint64		token_given[2]; /* serials of the tokens that rk and asking have */
	int32	   *leaders;		/* by partition, of the last look; -1: none */
	int			nleaders;
	KafkaShard **looking_at;	/* its copy of shards[] */
	int			nlooking_at;

	pthread_mutex_t mutex;
	pthread_cond_t to_helper;
	pthread_cond_t to_main;

	/* counted by the library's threads, with __atomic operations */
	int			doubts;			/* fetches that found no such topic or another leader */

	/* protected by the mutex */
	bool		nudge;			/* records are waiting at the broker: wake the library's threads */
	bool		stop;
	bool		closed;			/* nobody waits for the helper: it frees all of this */
	bool		finished;		/* the helper has ended */
	bool		connected;		/* rk, topic, queue are there */
	int			sized_for;		/* partitions that the memory is divided by */
	int			partitions;		/* as last heard; 0: not known */
	bool		topic_missing;
	bool		ever_missing;	/* it has been missing since the source was opened */
	uint64		doubt_round;	/* times that the topic may have become another one */
	uint64		look_round;		/* complete looks at the broker */
	bool		reachable;
	char		trouble[512];
	KafkaShard **shards;		/* grown by the main thread */
	int			nshards;
	uint64		ends_asked;		/* tickets of ends_begin */
	uint64		ends_answered;

	/* main thread */
	KdaKafkaIam *iam;			/* makes token */
	int			doubts_seen;
	uint64		doubt_seen;
	uint64		unreachable_since_round;
	Size		record_bytes;	/* running average */
	rd_kafka_message_t **messages;
} Kafka;

/* Body of the helper thread; arg: the Kafka. */
extern void *kda_kafka_helper(void *arg);

/* Frees the memory of a source whose helper has ended or never began. */
extern void kda_kafka_free(Kafka *k);

/* For rd_kafka_conf_set_error_cb: remembers what the library says, on the helper thread. */
extern void kda_kafka_on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque);

/* For rd_kafka_conf_set_log_cb: on any of the library's threads. */
extern void kda_kafka_on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text);

#endif							/* KDA_KAFKA_INTERNAL_H */
