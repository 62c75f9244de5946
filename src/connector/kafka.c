/*-------------------------------------------------------------------------
 *
 * kafka.c
 *	  Reading a Kafka topic through librdkafka: a shard is a partition.
 *
 * Positions are ours (kda_storage.shard), so the plain consumer without a
 * group is used: one queue into which all partitions deliver.  librdkafka's
 * calls that wait for the network run on a helper thread of this source; it
 * learns partitions, translates 'earliest', 'latest' and timestamps into
 * offsets, and asks for end offsets.  Between the two threads there is one
 * mutex; the helper never calls into PostgreSQL.
 *
 * A topic that was deleted and made anew must not be taken for the old one.
 * When reading begins (again) at a stored position, the record before it is
 * read too and compared (time stamp, CRC); a broker that knows fewer records
 * than have been read, or does not keep the position any more, makes the shard
 * lost.  A record handed out is never behind the position asked for.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "commands/defrem.h"
#include "connector/kafka.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "port/pg_crc32c.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"

#define REFRESH_MS		3000	/* partitions and end offsets are looked at */
#define RETRY_MS		500		/* … while the broker does not answer */
#define CALL_MS			5000	/* longest wait of one call on the helper thread */
#define MAX_PARTITIONS	100000
#define FETCH_CHUNK		10000

/* Epoch of PostgreSQL in Kafka's milliseconds since 1970. */
#define EPOCH_MS		((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * 86400 * 1000)

/* What the helper thread is asked about a shard. */
typedef enum Ask
{
	ASK_NOTHING,
	ASK_START,					/* an offset for start.kind */
	ASK_RANGE,					/* the position was refused: what is there? */
	ASK_DONE					/* answered */
} Ask;

typedef struct KafkaShard
{
	KdaSourceShard base;		/* first */
	int32		partition;
	KdaShardStart start;
	bool		reading;		/* consume_start was called */
	int64		check_offset;	/* >= 0: the record there must be the one that start describes */
	bool		was_missing;	/* its topic did not exist when the source was opened */

	/* protected by the mutex */
	Ask			ask;
	Ask			asked;			/* what ASK_DONE answers */
	KdaShardStart ask_start;
	bool		answer_known;
	int64		low;			/* at the broker, -1 unknown */
	int64		high;
	int64		answer;
	uint64		range_round;	/* number of the refresh that low and high are of */
} KafkaShard;

typedef struct Kafka
{
	KdaSource	base;			/* first */
	MemoryContext context;
	char	   *stream_name;
	char	   *topic_name;
	Size		fetch_memory;
	int			wake_fd;
	rd_kafka_conf_t *conf;		/* what a handle is made with */

	/*
	 * Made by the helper.  The second handle is for its questions alone: on
	 * the first one they would wait behind a fetch that waits for records.
	 */
	rd_kafka_t *rk;
	rd_kafka_t *asking;
	rd_kafka_topic_t *topic;
	rd_kafka_queue_t *queue;
	rd_kafka_message_t **messages;

	pthread_t	thread;
	bool		thread_runs;
	pthread_mutex_t mutex;
	pthread_cond_t cond;

	/* protected by the mutex */
	bool		stop;
	bool		abandoned;		/* close() has not waited for the helper */
	bool		finished;		/* the helper has ended before that */
	bool		connected;		/* rk, topic, queue are there */
	int			partitions;		/* as last heard; 0: not known */
	bool		topic_missing;
	bool		ever_missing;	/* it has been missing since the source was opened */
	uint64		gone_round;		/* times that it has gone missing after it was there */
	uint64		refresh_round;	/* successful looks at the broker */
	bool		reachable;
	char		trouble[512];
	KafkaShard **shards;		/* same pointers as base.shards; grown by the main thread under the mutex */
	int			nshards;
	bool		ends_wanted;
	uint64		ends_round;		/* counts answers */

	/* main thread */
	uint64		gone_seen;
	uint64		unreachable_since_round;
	uint64		ends_asked_round;
	bool		ends_running;
} Kafka;

static void
wake_worker(Kafka *k)
{
	char		byte = 0;

	if (k->wake_fd >= 0 && write(k->wake_fd, &byte, 1) < 0)
		return;					/* the pipe is full: it will wake */
}

/*---- the helper thread */

static void
set_trouble(Kafka *k, const char *text)
{
	pthread_mutex_lock(&k->mutex);
	strlcpy(k->trouble, text, sizeof(k->trouble));
	pthread_mutex_unlock(&k->mutex);
}

static void
note_trouble(Kafka *k, const char *what, rd_kafka_resp_err_t err)
{
	char		text[512];

	snprintf(text, sizeof(text), "%s: %s", what, rd_kafka_err2str(err));
	set_trouble(k, text);
}

/* A handle, with its share of the memory for each of n partitions. */
static bool
make_handle(Kafka *k, int n)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_dup(k->conf);
	rd_kafka_topic_conf_t *topic_conf = rd_kafka_topic_conf_new();
	char		why[512];
	char		kbytes[32];
	rd_kafka_t *rk;
	rd_kafka_topic_t *topic;

	snprintf(kbytes, sizeof(kbytes), "%d", (int) Max(k->fetch_memory / 1024 / Max(n, 16), 1024));
	rd_kafka_conf_set(conf, "queued.max.messages.kbytes", kbytes, NULL, 0);
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
	if (rk == NULL)
	{
		rd_kafka_conf_destroy(conf);
		rd_kafka_topic_conf_destroy(topic_conf);
		set_trouble(k, why);
		return false;
	}
	conf = rd_kafka_conf_dup(k->conf);
	k->asking = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
	if (k->asking == NULL)
	{
		rd_kafka_conf_destroy(conf);
		rd_kafka_topic_conf_destroy(topic_conf);
		rd_kafka_destroy(rk);
		set_trouble(k, why);
		return false;
	}
	/* a position that is gone is an error, never a jump */
	rd_kafka_topic_conf_set(topic_conf, "auto.offset.reset", "error", NULL, 0);
	topic = rd_kafka_topic_new(rk, k->topic_name, topic_conf);
	if (topic == NULL)
	{
		note_trouble(k, k->topic_name, rd_kafka_last_error());
		rd_kafka_destroy(rk);
		rd_kafka_destroy(k->asking);
		return false;
	}
	k->rk = rk;
	k->topic = topic;
	k->queue = rd_kafka_queue_new(rk);
	if (k->wake_fd >= 0)
		rd_kafka_queue_io_event_enable(k->queue, k->wake_fd, "k", 1);
	return true;
}

static void
drop_handle(Kafka *k)
{
	rd_kafka_queue_destroy(k->queue);
	rd_kafka_topic_destroy(k->topic);
	rd_kafka_destroy(k->rk);
	rd_kafka_destroy(k->asking);
	k->rk = k->asking = NULL;
	k->topic = NULL;
	k->queue = NULL;
}

/* Everything of the library's. */
static void
drop_all(Kafka *k)
{
	for (int i = 0; i < k->nshards; i++)
	{
		if (k->shards[i]->reading)
			rd_kafka_consume_stop(k->topic, k->shards[i]->partition);
		free(k->shards[i]);
	}
	k->nshards = 0;
	if (k->rk)
		drop_handle(k);
	rd_kafka_conf_destroy(k->conf);
}

/* Asks the broker for the topic's partitions; -1: no answer, 0: no such topic. */
static int
ask_partitions(Kafka *k)
{
	const struct rd_kafka_metadata *md;
	rd_kafka_topic_t *topic = rd_kafka_topic_new(k->asking, k->topic_name, NULL);
	rd_kafka_resp_err_t err;
	int			n = -1;

	if (topic == NULL)
	{
		note_trouble(k, k->topic_name, rd_kafka_last_error());
		return -1;
	}
	err = rd_kafka_metadata(k->asking, 0, topic, &md, CALL_MS);
	rd_kafka_topic_destroy(topic);

	if (err)
	{
		note_trouble(k, "the broker does not answer", err);
		return -1;
	}
	for (int i = 0; i < md->topic_cnt; i++)
	{
		const struct rd_kafka_metadata_topic *t = &md->topics[i];

		if (strcmp(t->topic, k->topic_name) != 0)
			continue;
		if (t->err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
			n = 0;
		else if (t->err)
			note_trouble(k, k->topic_name, t->err);
		else
			n = Min(t->partition_cnt, MAX_PARTITIONS);
	}
	rd_kafka_metadata_destroy(md);
	return n;
}

static bool
ask_range(Kafka *k, int32 partition, int64 *low, int64 *high)
{
	rd_kafka_resp_err_t err = rd_kafka_query_watermark_offsets(k->asking, k->topic_name, partition, low, high, CALL_MS);

	if (err)
		note_trouble(k, "cannot ask for the ends of the topic", err);
	return err == RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* The first offset at or after a time. */
static bool
ask_time(Kafka *k, int32 partition, KdaTime time, int64 high, int64 *offset)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_topic_partition_t *p = rd_kafka_topic_partition_list_add(list, k->topic_name, partition);
	rd_kafka_resp_err_t err;
	bool		fine;

	/* milliseconds, rounded up */
	p->offset = time / 1000 + (time % 1000 > 0 ? 1 : 0) + EPOCH_MS;
	err = rd_kafka_offsets_for_times(k->asking, list, CALL_MS);
	if (!err)
		err = p->err;
	fine = !err;
	if (fine)
		*offset = p->offset >= 0 ? p->offset : high;	/* nothing that young yet */
	else
		note_trouble(k, "cannot look up a timestamp", err);
	rd_kafka_topic_partition_list_destroy(list);
	return fine;
}

/* What one shard was asked; the mutex is not held. */
static void
serve_shard(Kafka *k, KafkaShard *s, bool all)
{
	Ask			ask;
	KdaShardStart start;
	int64		low = -1,
				high = -1,
				answer = -1;
	bool		fine;

	pthread_mutex_lock(&k->mutex);
	ask = s->ask;
	start = s->ask_start;
	pthread_mutex_unlock(&k->mutex);
	if (ask != ASK_START && ask != ASK_RANGE && !all)
		return;

	fine = ask_range(k, s->partition, &low, &high);
	if (fine && ask == ASK_START)
		switch (start.kind)
		{
			case KDA_START_EARLIEST:
				answer = low;
				break;
			case KDA_START_LATEST:
				answer = high;
				break;
			case KDA_START_TIME:
				fine = ask_time(k, s->partition, start.time, high, &answer);
				break;
			case KDA_START_POSITION:
				answer = start.position;
				break;
		}
	pthread_mutex_lock(&k->mutex);
	if (fine)
	{
		s->low = low;
		s->high = high;
		s->range_round = k->refresh_round + 1;
		if (s->ask == ask && (ask == ASK_START || ask == ASK_RANGE))
		{
			s->answer = answer;
			s->asked = ask;
			s->ask = ASK_DONE;
		}
	}
	else
		k->reachable = false;
	pthread_mutex_unlock(&k->mutex);
}

/* One look at the broker; returns when to look again, in ms. */
static int
look(Kafka *k)
{
	int			n;
	bool		ends;

	if (!k->connected)
	{
		if (k->rk == NULL && !make_handle(k, 0))
			return RETRY_MS;
	}
	n = ask_partitions(k);
	if (n > 16 && !k->connected)
	{
		drop_handle(k);
		if (!make_handle(k, n))
			return RETRY_MS;
	}

	pthread_mutex_lock(&k->mutex);
	if (n <= 0)
	{
		if (n == 0)
		{
			if (!k->topic_missing && k->partitions > 0)
				k->gone_round++;
			k->topic_missing = k->ever_missing = true;
			snprintf(k->trouble, sizeof(k->trouble), "topic \"%s\" does not exist", k->topic_name);
		}
		k->reachable = false;
		pthread_mutex_unlock(&k->mutex);
		wake_worker(k);
		return RETRY_MS;
	}
	k->topic_missing = false;
	k->reachable = true;
	k->connected = true;
	k->partitions = n;
	ends = k->ends_wanted;
	n = k->nshards;
	pthread_mutex_unlock(&k->mutex);

	for (int i = 0; i < n; i++)
	{
		bool		stop;

		pthread_mutex_lock(&k->mutex);
		stop = k->stop;
		pthread_mutex_unlock(&k->mutex);
		if (stop)
			return 0;
		serve_shard(k, k->shards[i], true);
	}

	pthread_mutex_lock(&k->mutex);
	if (k->reachable)
	{
		k->refresh_round++;
		if (n == k->partitions)
			k->trouble[0] = '\0';
		if (ends && n == k->partitions)
		{
			k->ends_wanted = false;
			k->ends_round++;
		}
	}
	n = !k->reachable || k->ends_wanted ? RETRY_MS : REFRESH_MS;
	pthread_mutex_unlock(&k->mutex);
	wake_worker(k);
	return n;
}

static void *
helper(void *arg)
{
	Kafka	   *k = arg;
	int			wait_ms = 0;

	for (;;)
	{
		bool		stop;
		bool		asked = false;
		struct timespec until;
		int			n;

		pthread_mutex_lock(&k->mutex);
		if (wait_ms > 0 && !k->stop)
		{
			for (int i = 0; i < k->nshards; i++)
				asked |= k->shards[i]->ask == ASK_START || k->shards[i]->ask == ASK_RANGE;
			if (!(asked && k->reachable) && !(k->ends_wanted && k->reachable))
			{
				clock_gettime(CLOCK_REALTIME, &until);
				until.tv_sec += wait_ms / 1000;
				until.tv_nsec += (wait_ms % 1000) * 1000000L;
				if (until.tv_nsec >= 1000000000L)
				{
					until.tv_sec++;
					until.tv_nsec -= 1000000000L;
				}
				if (pthread_cond_timedwait(&k->cond, &k->mutex, &until) != 0)
					wait_ms = 0;
			}
			else if (k->ends_wanted)
				wait_ms = 0;
		}
		stop = k->stop;
		n = k->nshards;
		pthread_mutex_unlock(&k->mutex);
		if (stop)
			break;
		if (wait_ms == 0 || !k->connected)
			wait_ms = look(k);
		else
		{
			for (int i = 0; i < n; i++)
				serve_shard(k, k->shards[i], false);
			wake_worker(k);
		}
	}

	pthread_mutex_lock(&k->mutex);
	k->finished = !k->abandoned;
	pthread_mutex_unlock(&k->mutex);
	if (!k->finished)
		drop_all(k);			/* nobody waits; the small rest goes with the process */
	return NULL;
}

/*---- opening and closing, main thread */

static void
set_property(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		why[512];

	if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK)
	{
		rd_kafka_conf_destroy(conf);
		/* the library's message may hold the value, which may be a secret */
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid value for property \"%s\"", name)));
	}
}

/* On librdkafka's threads, or ours in poll: remembers what is wrong. */
static void
on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
	Kafka	   *k = opaque;

	pthread_mutex_lock(&k->mutex);
	snprintf(k->trouble, sizeof(k->trouble), "%s: %s", rd_kafka_err2str(err), reason);
	if (err == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
		k->reachable = false;
	pthread_mutex_unlock(&k->mutex);
}

/* What the library would write to stderr is of use to nobody there. */
static void
on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
}

static KdaSource *
kafka_open(const KdaSourceConfig *config)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "kda kafka source", ALLOCSET_SMALL_SIZES);
	Kafka	   *k = MemoryContextAllocZero(context, sizeof(Kafka));
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	ListCell   *lc;
	sigset_t	all,
				before;

	k->context = context;
	k->base.ops = &kda_kafka_ops;
	k->stream_name = MemoryContextStrdup(context, config->stream_name);
	k->topic_name = MemoryContextStrdup(context, config->topic);
	k->fetch_memory = config->fetch_memory;
	k->wake_fd = config->wake_fd;

	set_property(conf, "isolation.level", "read_committed");
	set_property(conf, "socket.nagle.disable", "true");
	foreach(lc, config->server_options)
		set_property(conf, lfirst_node(DefElem, lc)->defname, defGetString(lfirst_node(DefElem, lc)));
	foreach(lc, config->user_options)
		set_property(conf, lfirst_node(DefElem, lc)->defname, defGetString(lfirst_node(DefElem, lc)));
	set_property(conf, "enable.partition.eof", "true");
	set_property(conf, "enable.auto.commit", "false");
	set_property(conf, "enable.auto.offset.store", "false");
	set_property(conf, "allow.auto.create.topics", "false");
	set_property(conf, "topic.metadata.refresh.interval.ms", "10000");
	rd_kafka_conf_set_opaque(conf, k);
	rd_kafka_conf_set_error_cb(conf, on_error);
	rd_kafka_conf_set_log_cb(conf, on_log);
	k->conf = conf;
	pthread_mutex_init(&k->mutex, NULL);
	pthread_cond_init(&k->cond, NULL);
	k->messages = MemoryContextAlloc(context, sizeof(rd_kafka_message_t *) * FETCH_CHUNK);

	/* signals are this process's main thread's */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	if (pthread_create(&k->thread, NULL, helper, k) == 0)
		k->thread_runs = true;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!k->thread_runs)
	{
		rd_kafka_conf_destroy(conf);
		MemoryContextDelete(context);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start a thread for stream %s", config->stream_name)));
	}
	return &k->base;
}

static void
kafka_close(KdaSource *source, int deadline_ms)
{
	Kafka	   *k = (Kafka *) source;

	pthread_mutex_lock(&k->mutex);
	k->stop = true;
	pthread_cond_signal(&k->cond);
	pthread_mutex_unlock(&k->mutex);
	if (deadline_ms <= 0)
		return;					/* the process ends: the library goes with it */
	{
		struct timespec until;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += deadline_ms / 1000;
		until.tv_nsec += (deadline_ms % 1000) * 1000000L;
		if (until.tv_nsec >= 1000000000L)
		{
			until.tv_sec++;
			until.tv_nsec -= 1000000000L;
		}
		if (pthread_timedjoin_np(k->thread, NULL, &until) != 0)
		{
			/* it waits for a broker that does not answer, and cleans up when that ends */
			bool		finished;

			pthread_mutex_lock(&k->mutex);
			k->abandoned = true;
			finished = k->finished;
			pthread_mutex_unlock(&k->mutex);
			if (!finished)
			{
				pthread_detach(k->thread);
				return;
			}
			pthread_join(k->thread, NULL);
		}
	}
	drop_all(k);
	pthread_mutex_destroy(&k->mutex);
	pthread_cond_destroy(&k->cond);
	MemoryContextDelete(k->context);
}
/*---- shards */

static void
ask(Kafka *k, KafkaShard *s, Ask what, const KdaShardStart *start)
{
	pthread_mutex_lock(&k->mutex);
	s->ask = what;
	if (start)
		s->ask_start = *start;
	pthread_cond_signal(&k->cond);
	pthread_mutex_unlock(&k->mutex);
}

static void
stop_reading(Kafka *k, KafkaShard *s)
{
	if (s->reading)
		rd_kafka_consume_stop(k->topic, s->partition);
	s->reading = false;
	s->base.at_end = false;
}

static void
lose(Kafka *k, KafkaShard *s, const char *fmt,...) pg_attribute_printf(3, 4);

static void
lose(Kafka *k, KafkaShard *s, const char *fmt,...)
{
	va_list		args;

	stop_reading(k, s);
	va_start(args, fmt);
	vsnprintf(s->base.error, sizeof(s->base.error), fmt, args);
	va_end(args);
	s->base.lost = true;
}

static void
begin_reading(Kafka *k, KafkaShard *s, int64 offset)
{
	stop_reading(k, s);
	if (rd_kafka_consume_start_queue(k->topic, s->partition, offset, k->queue) != 0)
	{
		snprintf(s->base.error, sizeof(s->base.error), "cannot read partition %d: %s", s->partition,
				 rd_kafka_err2str(rd_kafka_last_error()));
		return;
	}
	s->reading = true;
	s->base.at_end = false;
}

/* From the position; the record before it proves that the topic is the same. */
static void
go_on(Kafka *k, KafkaShard *s)
{
	if (s->start.last_position >= 0 && s->start.last_position < s->start.position)
	{
		s->check_offset = s->start.last_position;
		begin_reading(k, s, s->start.last_position);
	}
	else
	{
		s->check_offset = -1;
		begin_reading(k, s, s->start.position);
	}
}

static void
kafka_assign(KdaSource *source, int shard, const KdaShardStart *start)
{
	Kafka	   *k = (Kafka *) source;
	KafkaShard *s = (KafkaShard *) source->shards[shard];

	stop_reading(k, s);
	s->base.assigned = true;
	s->base.lost = false;
	s->base.error[0] = '\0';
	s->start = *start;
	s->base.next_position = -1;
	if (start->kind == KDA_START_POSITION)
	{
		s->base.next_position = start->position;
		go_on(k, s);
		return;
	}
	/* what was not there when the query was created is all new */
	if (start->kind == KDA_START_LATEST && s->was_missing)
		s->start.kind = KDA_START_EARLIEST;
	ask(k, s, ASK_START, &s->start);
}

/* The helper has answered. */
static void
take_answer(Kafka *k, KafkaShard *s)
{
	Ask			asked;
	int64		low,
				high,
				answer;

	pthread_mutex_lock(&k->mutex);
	asked = s->ask == ASK_DONE ? s->asked : ASK_NOTHING;
	if (s->ask == ASK_DONE)
		s->ask = ASK_NOTHING;
	low = s->low;
	high = s->high;
	answer = s->answer;
	pthread_mutex_unlock(&k->mutex);

	if (asked == ASK_START)
	{
		s->start.kind = KDA_START_POSITION;
		s->start.position = Max(answer, low);
		s->start.last_position = -1;
		s->base.next_position = s->start.position;
		go_on(k, s);
	}
	else if (asked == ASK_RANGE)
	{
		int64		want = s->base.next_position;

		if (want < low)
			lose(k, s, "offsets " INT64_FORMAT " to " INT64_FORMAT " of partition %d of topic \"%s\" are gone: the oldest one kept is " INT64_FORMAT,
				 want, low - 1, s->partition, k->topic_name, low);
		else if (want > high)
			lose(k, s, "offset " INT64_FORMAT " of partition %d of topic \"%s\" is beyond its end " INT64_FORMAT ": the topic was truncated or created anew",
				 want, s->partition, k->topic_name, high);
		else
		{
			/* only the record before it has left */
			s->check_offset = -1;
			begin_reading(k, s, want);
		}
	}
}

static void
kafka_service(KdaSource *source)
{
	Kafka	   *k = (Kafka *) source;
	int			partitions;
	bool		connected,
				reachable,
				missing,
				ever_missing;
	uint64		gone,
				round;

	pthread_mutex_lock(&k->mutex);
	connected = k->connected;
	partitions = k->partitions;
	reachable = k->reachable;
	missing = k->topic_missing;
	ever_missing = k->ever_missing;
	gone = k->gone_round;
	round = k->refresh_round;
	strlcpy(source->error, k->trouble, sizeof(source->error));
	pthread_mutex_unlock(&k->mutex);

	if (!connected)
		return;
	rd_kafka_poll(k->rk, 0);
	rd_kafka_poll(k->asking, 0);
	if (!reachable)
		k->unreachable_since_round = round + 1;

	/* new partitions */
	if (partitions > k->nshards && !missing)
	{
		KafkaShard **shards = MemoryContextAlloc(k->context, sizeof(KafkaShard *) * partitions);
		int			n = k->nshards;

		if (n > 0)
			memcpy(shards, k->shards, sizeof(KafkaShard *) * n);
		for (; n < partitions; n++)
		{
			KafkaShard *s = calloc(1, sizeof(KafkaShard));

			if (s == NULL)
				break;			/* the next time */
			s->partition = n;
			snprintf(s->base.name, sizeof(s->base.name), "%d", n);
			s->base.next_position = s->base.first_position = s->base.end_position = -1;
			s->check_offset = -1;
			s->low = s->high = -1;
			s->was_missing = ever_missing && !source->known;
			shards[n] = s;
		}
		/* the old array stays where it is: the helper may be reading it */
		pthread_mutex_lock(&k->mutex);
		k->shards = shards;
		k->nshards = n;
		pthread_cond_signal(&k->cond);
		pthread_mutex_unlock(&k->mutex);
		source->shards = (KdaSourceShard **) shards;
		source->nshards = n;
		source->known = true;
	}

	/* The topic was gone and is back: is it still the same one? */
	if (gone != k->gone_seen && !missing && reachable)
	{
		k->gone_seen = gone;
		for (int i = 0; i < k->nshards; i++)
		{
			KafkaShard *s = k->shards[i];

			if (s->base.assigned && s->base.next_position >= 0 && !s->base.lost)
			{
				/* the worker assigns it again, with its last record to compare */
				stop_reading(k, s);
				s->base.assigned = false;
			}
		}
	}

	for (int i = 0; i < k->nshards; i++)
	{
		KafkaShard *s = k->shards[i];
		int64		low,
					high;
		uint64		range_round;

		take_answer(k, s);
		pthread_mutex_lock(&k->mutex);
		low = s->low;
		high = s->high;
		range_round = s->range_round;
		pthread_mutex_unlock(&k->mutex);
		s->base.first_position = low;
		s->base.end_position = Max(high, s->base.next_position);

		if (!reachable)
			s->base.at_end = false;
		else if (!s->base.at_end && s->reading && s->check_offset < 0 && high >= 0 &&
				 range_round >= k->unreachable_since_round && range_round > 0 &&
				 k->unreachable_since_round > 0 && s->base.next_position >= high)
			s->base.at_end = true;	/* the library says it only once, before the broker went away */

		/* fewer records than have been read: not the topic that we knew */
		if (s->reading && !s->base.lost && high >= 0 && s->base.next_position > high &&
			reachable && range_round == round && round > 0)
			ask(k, s, ASK_RANGE, NULL);
	}
}

/*---- records */

/* Is this the record that was read last? */
static bool
same_record(KafkaShard *s, const rd_kafka_message_t *m, KdaTime arrival)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	if (m->payload)
		COMP_CRC32C(crc, m->payload, m->len);
	FIN_CRC32C(crc);
	return crc == s->start.last_crc && arrival == s->start.last_arrival;
}

static KdaTime
arrival_of(const rd_kafka_message_t *m)
{
	rd_kafka_timestamp_type_t type;
	int64		ms = rd_kafka_message_timestamp(m, &type);

	if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE || ms < 0 || ms > PG_INT64_MAX / 1000 - 1)
		return KDA_NO_TIME;
	return (ms - EPOCH_MS) * 1000;
}

static void
take_event(Kafka *k, KafkaShard *s, const rd_kafka_message_t *m)
{
	switch (m->err)
	{
		case RD_KAFKA_RESP_ERR__PARTITION_EOF:
			if (s->check_offset >= 0)
			{
				/* the record before the position is not there any more, nor anything after it */
				ask(k, s, ASK_RANGE, NULL);
				stop_reading(k, s);
				break;
			}
			s->base.at_end = true;
			s->base.next_position = Max(s->base.next_position, m->offset);
			s->base.error[0] = '\0';
			break;
		case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
		case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
			stop_reading(k, s);
			ask(k, s, ASK_RANGE, NULL);
			break;
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
			/* the helper finds out; until then nothing is read */
			stop_reading(k, s);
			pthread_mutex_lock(&k->mutex);
			if (!k->topic_missing)
				k->gone_round++;
			k->topic_missing = true;
			k->reachable = false;
			pthread_cond_signal(&k->cond);
			pthread_mutex_unlock(&k->mutex);
			break;
		default:
			s->base.at_end = false;
			snprintf(s->base.error, sizeof(s->base.error), "partition %d: %s", s->partition,
					 rd_kafka_message_errstr(m));
			break;
	}
}

static int
kafka_fetch(KdaSource *source, KdaRawBatch *into, int max_records, Size max_bytes)
{
	Kafka	   *k = (Kafka *) source;
	Size		limit = into->bytes + max_bytes;
	int			added = 0;

	if (k->queue == NULL || !source->known)
		return 0;
	while (added < max_records && (into->n == 0 || into->bytes < limit))
	{
		ssize_t		n = rd_kafka_consume_batch_queue(k->queue, 0, k->messages,
													 Min(max_records - added, FETCH_CHUNK));

		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++)
		{
			rd_kafka_message_t *m = k->messages[i];
			KafkaShard *s = m->partition >= 0 && m->partition < k->nshards ? k->shards[m->partition] : NULL;
			KdaRawRecord *rec;
			KdaTime		arrival;

			if (s == NULL || m->err)
			{
				if (s && s->reading)
					take_event(k, s, m);
				rd_kafka_message_destroy(m);
				continue;
			}
			if (!s->reading)
			{
				rd_kafka_message_destroy(m);
				continue;
			}
			arrival = arrival_of(m);
			if (unlikely(s->check_offset >= 0))
			{
				if (m->offset == s->check_offset && !same_record(s, m, arrival))
					lose(k, s, "the record at offset " INT64_FORMAT " of partition %d of topic \"%s\" is not the one that was read: the topic was created anew",
						 m->offset, s->partition, k->topic_name);
				if (m->offset >= s->check_offset)
					s->check_offset = -1;
				if (s->base.lost)
				{
					rd_kafka_message_destroy(m);
					continue;
				}
			}
			if (m->offset < s->base.next_position)
			{
				rd_kafka_message_destroy(m);
				continue;
			}
			rec = kda_raw_batch_add(into, m);
			rec->data = m->payload;
			rec->len = m->len;
			rec->key = m->key;
			rec->key_len = m->key_len;
			rec->headers = m;
			rec->shard = m->partition;
			rec->position = m->offset;
			rec->arrival = arrival;
			into->bytes += m->len + m->key_len;
			s->base.next_position = m->offset + 1;
			s->base.at_end = false;
			added++;
		}
	}
	return added;
}

static void
kafka_release(KdaSource *source, KdaRawBatch *batch)
{
	for (int i = 0; i < batch->n; i++)
		rd_kafka_message_destroy(batch->handles[i]);
	batch->n = 0;
	batch->bytes = 0;
}

/*---- ends */

static void
kafka_ends_begin(KdaSource *source)
{
	Kafka	   *k = (Kafka *) source;

	pthread_mutex_lock(&k->mutex);
	k->ends_asked_round = k->ends_round;
	k->ends_wanted = true;
	pthread_cond_signal(&k->cond);
	pthread_mutex_unlock(&k->mutex);
}

static bool
kafka_ends_poll(KdaSource *source, int64 *ends, int nends)
{
	Kafka	   *k = (Kafka *) source;
	bool		done;

	pthread_mutex_lock(&k->mutex);
	done = k->ends_round > k->ends_asked_round;
	if (done)
		for (int i = 0; i < nends && i < k->nshards; i++)
			ends[i] = k->shards[i]->high;
	pthread_mutex_unlock(&k->mutex);
	return done;
}

/*---- headers */

static char *
kafka_headers_json(const KdaRawRecord *record)
{
	rd_kafka_headers_t *headers;
	StringInfoData s;
	const char *name;
	const void *value;
	size_t		size;

	if (record->headers == NULL || rd_kafka_message_headers(record->headers, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return NULL;
	initStringInfo(&s);
	appendStringInfoChar(&s, '{');
	for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
	{
		if (s.len > 1)
			appendStringInfoChar(&s, ',');
		escape_json(&s, name);
		appendStringInfoChar(&s, ':');
		if (value && memchr(value, '\0', size) == NULL && pg_encoding_verifymbstr(PG_UTF8, value, size) == (int) size)
			escape_json(&s, pnstrdup(value, size));
		else if (value)
		{
			/* not text: hexadecimal, as bytea shows it */
			char	   *hex = palloc(size * 2 + 1);

			hex_encode(value, size, hex);
			hex[size * 2] = '\0';
			appendStringInfo(&s, "\"\\\\x%s\"", hex);
		}
		else
			appendStringInfoString(&s, "null");
	}
	appendStringInfoChar(&s, '}');
	return s.data;
}

const KdaSourceOps kda_kafka_ops = {
	.type = "kafka",
	.open = kafka_open,
	.close = kafka_close,
	.service = kafka_service,
	.assign = kafka_assign,
	.fetch = kafka_fetch,
	.release = kafka_release,
	.ends_begin = kafka_ends_begin,
	.ends_poll = kafka_ends_poll,
	.headers_json = kafka_headers_json
};
