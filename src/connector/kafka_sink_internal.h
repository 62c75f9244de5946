/*-------------------------------------------------------------------------
 *
 * kafka_sink_internal.h
 *	  What the two threads of a Kafka sink share: kafka_sink.c is the deliver
 *	  worker's own; on the helper thread kafka_sink_thread.c connects,
 *	  kafka_sink_once.c sends batches exactly once, kafka_sink_least.c at least
 *	  once.
 *
 * A sink is memory of malloc's, because either thread may be the last one that
 * needs it.  The helper makes and destroys everything of the library's, hands
 * it copies of records, and never calls into PostgreSQL.  It looks at records
 * only between kda_kafka_sink_begin_reading() and _end_reading(), which close()
 * waits for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_KAFKA_SINK_INTERNAL_H
#define KDA_KAFKA_SINK_INTERNAL_H

#include "kda_stream.h"

#include <librdkafka/rdkafka.h>
#include <pthread.h>

#include "connector/kafka.h"
#include "connector/kafka_conf.h"
#include "connector/kafka_iam.h"
#include "connector/retry.h"

#define KAFKA_SINK_MAX_BATCHES	8		/* given to it before the first is done */
#define KAFKA_SINK_CALL_MS		1000	/* longest wait of one call of the library's */
#define KAFKA_SINK_LEAST_BYTES	1000	/* batches of the library's that small hold one record */

/* How far one record is. */
typedef enum KafkaRecordState
{
	KAFKA_WAITING,				/* to be sent (again) */
	KAFKA_SENT,					/* in the library's queues */
	KAFKA_SUSPECT,				/* was in a request that was refused for good; to be sent alone */
	KAFKA_FINE,					/* delivered; exactly once: would be, as a probe has shown */
	KAFKA_REFUSED				/* for good */
} KafkaRecordState;

/* A sealed batch on its way. */
typedef struct KafkaDelivery
{
	struct KafkaDelivery *next; /* main thread */
	KdaSealedBatch *batch;		/* main thread */
	const KdaOutRecord *records;
	int			n;
	KdaSinkMark mark;

	/* the helper's, until done */
	uint8	   *state;			/* [n] KafkaRecordState */
	char	  **refused;		/* [n] why; NULL: none is */
	int			sent;			/* records before this one have been given to the library, or need not be */
	int			undone;			/* neither fine nor refused */
	int			nsuspects;

	bool		done;			/* protected by the mutex */
} KafkaDelivery;

typedef struct KafkaSink
{
	KdaSink		base;			/* first; main thread */

	/* set by open() */
	char	   *topic_name;
	char	   *identity;		/* exactly once: transactional id, and the group that keeps the mark */
	bool		exactly_once;
	int			wake_fd;
	int			helper_fds[2];	/* a pipe that wakes the helper */
	rd_kafka_conf_t *conf;		/* what a producer is made with */
	rd_kafka_conf_t *mark_conf; /* exactly once: what reads the mark */
	KdaKafkaToken *token;		/* Amazon MSK with IAM; else NULL */
	int			transaction_timeout_ms;
	bool		expected;		/* exactly once: something was delivered before, so there should be a mark */

	/* the helper's own */
	rd_kafka_t *rk;
	rd_kafka_topic_t *topic;
	rd_kafka_queue_t *queue;
	uint64		token_given;	/* serial of the token that rk has */
	bool		initialized;	/* rk's transactions are */
	bool		connected;
	bool		probing;		/* rk sends each record alone, to find which ones are refused */
	bool		probe_refused;	/* ... and it has found one */
	Size		batch_bytes;	/* of the library's batches; 0: as configured.  Smaller after a refusal that no record
								 * alone explains */
	rd_kafka_resp_err_t suspicion;	/* what the suspects were refused with */
	KdaRetry	retry;
	int64		again_at;		/* monotonic ms; nothing is tried before */
	char		reason[400];	/* what the library has last complained of */
	KafkaDelivery *work[KAFKA_SINK_MAX_BATCHES];	/* not done, in order */
	int			nwork;
	bool		broken;			/* at least once: something was not delivered, a new producer is needed */
	int64		acknowledged;	/* records, by the broker */
	int64		acknowledged_seen;
	bool		has_at;			/* exactly once: the mark that the group must have now */
	KdaSinkMark at;
	bool		unsure;			/* ... or this one: its commit has not said how it ended */
	KdaSinkMark unsure_of;
	bool		in_transaction;
	int64		begun_at;		/* the transaction, monotonic ms */
	bool		was_connected;	/* at least once before */

	pthread_mutex_t mutex;
	pthread_cond_t to_main;

	/* protected by the mutex */
	bool		stop;
	bool		closed;			/* nobody waits for the helper: it frees all of this */
	bool		finished;		/* the helper has ended */
	bool		reading;		/* the helper looks at records */
	KafkaDelivery *incoming[KAFKA_SINK_MAX_BATCHES];
	int			nincoming;
	bool		known;			/* connected for the first time: found, has_found are there */
	bool		has_found;
	KdaSinkMark found;
	bool		failed;
	bool		missing;		/* the mark has gone */
	int64		retries;
	char		trouble[512];
	bool		mark_asked;		/* commit mark_again, so that it does not expire */
	KdaSinkMark mark_again;
	int64		marks_written;	/* commits of marks, alone or with a batch */

	/* main thread */
	KdaKafkaIam *iam;			/* makes token */
	KafkaDelivery *first;		/* not released, in order */
	int			nunder_way;
	TimestampTz marked_at;		/* when a mark was last committed, or read */
	int64		marks_seen;
	bool		found_taken;	/* has been compared with it */
	bool		has_last;
	KdaSinkMark last;			/* the mark to keep alive */
} KafkaSink;

/*---- kafka_sink.c */

/* Frees a sink whose helper has ended or never began. */
extern void kda_kafka_sink_free(KafkaSink *k);

/*---- kafka_sink_thread.c */

/* Body of the helper thread; arg: the KafkaSink. */
extern void *kda_kafka_sink_helper(void *arg);

/* False: the sink is being closed, and records may not be looked at. */
extern bool kda_kafka_sink_begin_reading(KafkaSink *k);
extern void kda_kafka_sink_end_reading(KafkaSink *k);
extern bool kda_kafka_sink_stops(KafkaSink *k);

/* An attempt has failed: says so and waits before the next one. */
extern void kda_kafka_sink_trouble(KafkaSink *k, const char *fmt,...) pg_attribute_printf(2, 3);
extern void kda_kafka_sink_note(KafkaSink *k, const char *fmt,...) pg_attribute_printf(2, 3);
extern void kda_kafka_sink_fail(KafkaSink *k, const char *fmt,...) pg_attribute_printf(2, 3);
extern void kda_kafka_sink_clear_trouble(KafkaSink *k);

/* A library's error with the reason that its callback gave, if there is one. */
extern const char *kda_kafka_sink_why(KafkaSink *k, rd_kafka_resp_err_t err, const char *text);

extern void kda_kafka_sink_drop(KafkaSink *k);

/* Gives records[i] to the library.  Anything but NO_ERROR and _QUEUE_FULL: it was not taken. */
extern rd_kafka_resp_err_t kda_kafka_sink_produce(KafkaSink *k, KafkaDelivery *d, int i);

/* Would no broker ever take this record, whatever is tried? */
extern bool kda_kafka_sink_is_refusal(rd_kafka_resp_err_t err);
extern void kda_kafka_sink_refuse(KafkaSink *k, KafkaDelivery *d, int i, const char *why);

/* After records were sent alone: if none of them was to blame, the library's batches get smaller. */
extern void kda_kafka_sink_after_probe(KafkaSink *k, bool found_one);

/* work[0] is done. */
extern void kda_kafka_sink_done(KafkaSink *k);

/*---- kafka_sink_once.c */

extern void kda_kafka_sink_send_once(KafkaSink *k, KafkaDelivery *d);

/* Commits a mark alone. */
extern void kda_kafka_sink_write_mark(KafkaSink *k, const KdaSinkMark *mark);

/* Reads the mark of the group.  False: no answer (said as trouble). */
extern bool kda_kafka_sink_read_mark(KafkaSink *k, bool *has, KdaSinkMark *mark);

/* What the group has decides about a commit of which nobody knows how it ended.  False: the sink has failed. */
extern bool kda_kafka_sink_settle(KafkaSink *k, bool has, const KdaSinkMark *found);

/* Gives up a transaction under way, if that is quick. */
extern void kda_kafka_sink_give_up(KafkaSink *k);

/*---- kafka_sink_least.c */

/* Goes on with all that is under way; false: there is nothing to do but wait. */
extern bool kda_kafka_sink_pump(KafkaSink *k);

/*---- kafka_headers.c */

/* From a flat JSON object, NUL-terminated.  NULL: it is none, or no memory. */
extern rd_kafka_headers_t *kda_kafka_headers(const char *json);

#endif							/* KDA_KAFKA_SINK_INTERNAL_H */
