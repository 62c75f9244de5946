/*-------------------------------------------------------------------------
 *
 * kafka_helper.c
 *	  The helper thread of a Kafka source: everything that waits for the
 *	  network.  It learns partitions, translates 'earliest', 'latest' and
 *	  timestamps into offsets, asks for the ends of partitions, and makes and
 *	  destroys the library's handles.
 *
 * Runs with all signals blocked, and so do the threads that the library starts
 * from it.  Nothing here may call PostgreSQL: no palloc, no ereport, no elog.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/kafka_internal.h"
#include "connector/threads.h"

#include <time.h>

#define LOOK_MS			3000	/* partitions and end offsets are looked at */
#define RETRY_MS		500		/* ... while the broker does not answer */
#define FIRST_CALL_MS	1000	/* longest wait of one call, doubled while there is no answer */
#define MAX_CALL_MS		10000

#define MESSAGE_BYTES			400		/* what the library itself needs for a message, at least */
#define BACKOFF_SETTABLE		0x020200ff

#define DEFAULT_FETCH_BYTES		(1024 * 1024)		/* of one partition in one answer, as the library has it */
#define DEFAULT_ANSWER_BYTES	(50 * 1024 * 1024)	/* one answer */
#define DEFAULT_RECEIVE_BYTES	100000000

/*---- what is wrong */

static void
set_trouble(Kafka *k, const char *text)
{
	pthread_mutex_lock(&k->mutex);
	strlcpy(k->trouble, text, sizeof(k->trouble));
	pthread_mutex_unlock(&k->mutex);
}

/* The library's own complaint says more than that a call has timed out. */
static void
note_trouble(Kafka *k, const char *what, rd_kafka_resp_err_t err)
{
	char		text[512];

	char		no_token[256] = "";

	if (k->asking)
		rd_kafka_poll(k->asking, 0);
	if (k->token)
		kda_kafka_token_error(k->token, no_token, sizeof(no_token));
	snprintf(text, sizeof(text), "%s: %s", what, no_token[0] ? no_token : k->reason[0] ? k->reason : rd_kafka_err2str(err));
	set_trouble(k, text);
}

void
kda_kafka_on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
	Kafka	   *k = opaque;

	if (err == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
	{
		/* why was said before */
		pthread_mutex_lock(&k->mutex);
		k->reachable = false;
		pthread_mutex_unlock(&k->mutex);
		return;
	}
	kda_kafka_copy_reason(k->reason, sizeof(k->reason), err, reason);
}

/*
 * What the library would write to stderr is of use to nobody there.  But only
 * its log tells that a fetch found its topic gone: it may be made anew before
 * anybody looks, and then be longer than what was read.
 */
void
kda_kafka_on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
	if (strcmp(facility, "BROKERUA") == 0)
		__atomic_fetch_add(&((Kafka *) rd_kafka_opaque(rk))->doubts, 1, __ATOMIC_SEQ_CST);
}

/* Serves the callbacks of both handles. */
static void
take_complaints(Kafka *k)
{
	if (k->rk == NULL)
		return;
	rd_kafka_poll(k->asking, 0);
	rd_kafka_poll(k->rk, 0);
}

/*---- handles */

/*
 * The library holds, for each partition, up to its queue and one answer more,
 * so half of a partition's share goes to either.
 */
static void
divide_memory(Kafka *k, rd_kafka_conf_t *conf, int npartitions)
{
	Size		share = k->fetch_memory / Max(npartitions, 4);
	Size		answer = Max(Min(k->fetch_memory / 4, (Size) DEFAULT_ANSWER_BYTES), (Size) DEFAULT_FETCH_BYTES);

	kda_kafka_conf_set_number(conf, "queued.max.messages.kbytes", Max(share / 2 / 1024, (Size) 1));
	kda_kafka_conf_set_number(conf, "queued.min.messages", Max(share / 2 / MESSAGE_BYTES, (Size) 100));
	/* 1 s by default; unknown before 2.2, see nudge() */
	kda_kafka_conf_set_number(conf, "fetch.queue.backoff.ms", 5);
	kda_kafka_conf_set_number(conf, "fetch.message.max.bytes", Max(Min(share / 2, (Size) DEFAULT_FETCH_BYTES), (Size) 1024));
	kda_kafka_conf_set_number(conf, "fetch.max.bytes", answer);
	/* a record that is larger than all of this comes alone */
	kda_kafka_conf_set_number(conf, "receive.message.max.bytes",
			  Max(k->max_record_bytes + DEFAULT_FETCH_BYTES + answer, (Size) DEFAULT_RECEIVE_BYTES));
}

static void
give_tokens(Kafka *k)
{
	if (k->rk == NULL)
		return;
	kda_kafka_token_apply(k->token, k->rk, &k->token_given[0]);
	kda_kafka_token_apply(k->token, k->asking, &k->token_given[1]);
}

/* Both handles, with the memory divided over n partitions. */
static bool
make_handles(Kafka *k, int n)
{
	rd_kafka_conf_t *conf;
	rd_kafka_topic_conf_t *topic_conf;
	char		why[512];
	rd_kafka_t *rk;

	conf = rd_kafka_conf_dup(k->conf);
	divide_memory(k, conf, n);
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
	if (rk == NULL)
	{
		rd_kafka_conf_destroy(conf);
		set_trouble(k, why);
		return false;
	}
	conf = rd_kafka_conf_dup(k->conf);
	k->asking = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
	if (k->asking == NULL)
	{
		rd_kafka_conf_destroy(conf);
		rd_kafka_destroy(rk);
		set_trouble(k, why);
		return false;
	}
	/* a position that is gone is an error, never a jump */
	topic_conf = rd_kafka_topic_conf_new();
	rd_kafka_topic_conf_set(topic_conf, "auto.offset.reset", "error", NULL, 0);
	k->topic = rd_kafka_topic_new(rk, k->topic_name, topic_conf);
	if (k->topic == NULL)
	{
		note_trouble(k, k->topic_name, rd_kafka_last_error());
		rd_kafka_destroy(rk);
		rd_kafka_destroy(k->asking);
		k->asking = NULL;
		return false;
	}
	k->rk = rk;
	k->token_given[0] = k->token_given[1] = 0;
	give_tokens(k);
	k->queue = rd_kafka_queue_new(rk);
	if (k->wake_fd >= 0)
		rd_kafka_queue_io_event_enable(k->queue, k->wake_fd, "k", 1);
	pthread_mutex_lock(&k->mutex);
	k->sized_for = Max(n, 4);
	pthread_mutex_unlock(&k->mutex);
	return true;
}

static void
drop_handles(Kafka *k)
{
	if (k->rk == NULL)
		return;
	rd_kafka_queue_destroy(k->queue);
	rd_kafka_topic_destroy(k->topic);
	rd_kafka_destroy(k->rk);
	rd_kafka_destroy(k->asking);
	k->rk = k->asking = NULL;
	k->topic = NULL;
	k->queue = NULL;
}

void
kda_kafka_free(Kafka *k)
{
	for (int i = 0; i < k->nshards; i++)
		free(k->shards[i]);
	free(k->shards);
	free(k->looking_at);
	free(k->leaders);
	free(k->messages);
	free(k->topic_name);
	kda_kafka_token_free(k->token);
	rd_kafka_conf_destroy(k->conf);
	pthread_mutex_destroy(&k->mutex);
	pthread_cond_destroy(&k->to_helper);
	pthread_cond_destroy(&k->to_main);
	free(k);
}

/*---- questions */

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
	err = rd_kafka_metadata(k->asking, 0, topic, &md, k->call_ms);
	rd_kafka_topic_destroy(topic);
	take_complaints(k);
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
		{
			k->reason[0] = '\0';
			note_trouble(k, k->topic_name, t->err);
		}
		else
		{
			n = Min(t->partition_cnt, KAFKA_MAX_PARTITIONS);
			if (n > k->nleaders)
			{
				int32	   *grown = realloc(k->leaders, sizeof(int32) * n);

				if (grown == NULL)
				{
					n = -1;
					break;
				}
				k->leaders = grown;
				k->nleaders = n;
			}
			for (int p = 0; p < k->nleaders; p++)
				k->leaders[p] = -1;
			for (int p = 0; p < t->partition_cnt; p++)
				if (t->partitions[p].id >= 0 && t->partitions[p].id < n)
					k->leaders[t->partitions[p].id] = t->partitions[p].leader;
		}
	}
	rd_kafka_metadata_destroy(md);
	return n;
}

/* What is asked about one shard, and the answer. */
typedef struct Question
{
	KafkaShard *shard;
	KafkaAsk	ask;
	uint64		serial;
	KdaShardStart start;
	int64		low;
	int64		high;
	int64		answer;
} Question;

/*
 * One request a broker for all partitions.  In the list a partition's offset is
 * a time in milliseconds, or -2 and -1 for its beginning and its end; after the
 * call the first offset at or after it, -1: none.
 */
static bool
ask_offsets(Kafka *k, rd_kafka_topic_partition_list_t *list, const char *what)
{
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;

	if (list->cnt > 0)
		err = rd_kafka_offsets_for_times(k->asking, list, k->call_ms);
	if (err)
		note_trouble(k, what, err);
	return err == RD_KAFKA_RESP_ERR_NO_ERROR;
}

static bool
ask_ranges(Kafka *k, Question *questions, int n)
{
	rd_kafka_topic_partition_list_t *lows = rd_kafka_topic_partition_list_new(n);
	rd_kafka_topic_partition_list_t *highs = rd_kafka_topic_partition_list_new(n);
	rd_kafka_topic_partition_list_t *times = rd_kafka_topic_partition_list_new(n);
	bool		fine;

	for (int i = 0; i < n; i++)
	{
		Question   *q = &questions[i];
		int32		partition = q->shard->partition;

		q->low = q->high = q->answer = -1;
		if (partition >= k->nleaders || k->leaders[partition] < 0)
		{
			char		text[512];

			snprintf(text, sizeof(text), "partition %d of topic \"%s\" has no leader", partition, k->topic_name);
			set_trouble(k, text);
			continue;
		}
		rd_kafka_topic_partition_list_add(lows, k->topic_name, partition)->offset = RD_KAFKA_OFFSET_BEGINNING;
		rd_kafka_topic_partition_list_add(highs, k->topic_name, partition)->offset = RD_KAFKA_OFFSET_END;
		if (q->ask == KAFKA_ASK_START && q->start.kind == KDA_START_TIME)
		{
			/* rounded up; a negative number would be one of the special ones */
			int64		ms = q->start.time / 1000 + (q->start.time % 1000 > 0 ? 1 : 0) + KAFKA_EPOCH_MS;

			rd_kafka_topic_partition_list_add(times, k->topic_name, partition)->offset = Max(ms, 0);
		}
	}
	fine = ask_offsets(k, lows, "cannot ask for the beginning of the topic") &&
		ask_offsets(k, highs, "cannot ask for the end of the topic") &&
		ask_offsets(k, times, "cannot look up a timestamp");
	for (int i = 0; fine && i < n; i++)
	{
		Question   *q = &questions[i];
		int32		partition = q->shard->partition;
		rd_kafka_topic_partition_t *low = rd_kafka_topic_partition_list_find(lows, k->topic_name, partition);
		rd_kafka_topic_partition_t *high = rd_kafka_topic_partition_list_find(highs, k->topic_name, partition);
		rd_kafka_topic_partition_t *at = rd_kafka_topic_partition_list_find(times, k->topic_name, partition);
		rd_kafka_resp_err_t err;

		if (low == NULL || high == NULL)
			continue;
		err = low->err ? low->err : high->err ? high->err : at ? at->err : RD_KAFKA_RESP_ERR_NO_ERROR;
		if (err || low->offset < 0 || high->offset < 0)
		{
			note_trouble(k, "cannot ask for the ends of a partition", err ? err : RD_KAFKA_RESP_ERR_UNKNOWN);
			continue;
		}
		q->low = low->offset;
		q->high = high->offset;
		if (q->ask == KAFKA_ASK_START)
			switch (q->start.kind)
			{
				case KDA_START_EARLIEST:
					q->answer = q->low;
					break;
				case KDA_START_LATEST:
					q->answer = q->high;
					break;
				case KDA_START_TIME:
					/* nothing that young yet: what comes from now on */
					q->answer = at && at->offset >= 0 ? at->offset : q->high;
					break;
				case KDA_START_POSITION:
					q->answer = q->start.position;
					break;
			}
	}
	rd_kafka_topic_partition_list_destroy(lows);
	rd_kafka_topic_partition_list_destroy(highs);
	rd_kafka_topic_partition_list_destroy(times);
	return fine;
}

static bool
is_asked(const KafkaShard *s)
{
	return s->ask == KAFKA_ASK_START || s->ask == KAFKA_ASK_RANGE;
}

/* Answers what shards ask; all: and looks at the ends of the others, too.  Returns whether every one was answered. */
static bool
serve_shards(Kafka *k, bool all)
{
	Question   *questions = malloc(sizeof(Question) * Max(k->nlooking_at, 1));
	int			n = 0;
	bool		fine;

	if (questions == NULL)
		return false;
	pthread_mutex_lock(&k->mutex);
	for (int i = 0; i < k->nlooking_at; i++)
	{
		KafkaShard *s = k->looking_at[i];

		if (!all && !is_asked(s))
			continue;
		questions[n].shard = s;
		questions[n].ask = s->ask;
		questions[n].serial = s->ask_serial;
		questions[n++].start = s->ask_start;
	}
	pthread_mutex_unlock(&k->mutex);

	fine = ask_ranges(k, questions, n);

	pthread_mutex_lock(&k->mutex);
	for (int i = 0; i < n; i++)
	{
		Question   *q = &questions[i];
		KafkaShard *s = q->shard;

		s->reachable = fine && q->high >= 0;
		if (!s->reachable)
		{
			fine = false;
			continue;
		}
		/* an end that goes back is not the end of the same records */
		if (q->high < s->high)
			k->doubt_round++;
		s->low = q->low;
		s->high = q->high;
		s->range_round = k->look_round + 1;
		if (s->ask_serial == q->serial && is_asked(s))
		{
			s->answer = q->answer;
			s->asked = q->ask;
			s->ask = KAFKA_ASK_DONE;
		}
	}
	if (!fine)
		k->reachable = false;
	pthread_mutex_unlock(&k->mutex);
	free(questions);
	return fine;
}

/* Takes a copy of the list of shards; the mutex is held. */
static bool
copy_shards(Kafka *k)
{
	if (k->nshards > k->nlooking_at)
	{
		KafkaShard **grown = realloc(k->looking_at, sizeof(KafkaShard *) * k->nshards);

		if (grown == NULL)
			return false;
		k->looking_at = grown;
		memcpy(grown, k->shards, sizeof(KafkaShard *) * k->nshards);
		k->nlooking_at = k->nshards;
	}
	return true;
}

/* One look at the broker; returns when to look again, in ms. */
static int
look(Kafka *k)
{
	int			n;
	uint64		ends;
	bool		fine;

	if (k->rk == NULL && !make_handles(k, 0))
		return RETRY_MS;
	n = ask_partitions(k);
	if (n > k->sized_for && !k->connected)
	{
		drop_handles(k);
		if (!make_handles(k, n))
			return RETRY_MS;
	}
	if (n <= 0)
	{
		pthread_mutex_lock(&k->mutex);
		if (n == 0)
		{
			if (!k->topic_missing && k->partitions > 0)
				k->doubt_round++;
			k->topic_missing = k->ever_missing = true;
			snprintf(k->trouble, sizeof(k->trouble), "topic \"%s\" does not exist", k->topic_name);
		}
		else
			k->call_ms = Min(k->call_ms * 2, MAX_CALL_MS);
		k->reachable = false;
		pthread_mutex_unlock(&k->mutex);
		return RETRY_MS;
	}

	pthread_mutex_lock(&k->mutex);
	k->topic_missing = false;
	k->reachable = true;
	k->connected = true;
	k->partitions = n;
	ends = k->ends_asked;
	(void) copy_shards(k);
	pthread_mutex_unlock(&k->mutex);

	fine = serve_shards(k, true);

	pthread_mutex_lock(&k->mutex);
	if (fine)
	{
		k->look_round++;
		k->reason[0] = '\0';
		k->call_ms = Max(k->call_ms, FIRST_CALL_MS * 4);
		/* all partitions have been looked at, not only those that the main thread had made shards of */
		if (k->nlooking_at >= k->partitions)
		{
			k->trouble[0] = '\0';
			k->ends_answered = Max(k->ends_answered, ends);
		}
	}
	else
		k->call_ms = Min(k->call_ms * 2, MAX_CALL_MS);
	n = fine && k->ends_asked == k->ends_answered ? LOOK_MS : RETRY_MS;
	pthread_mutex_unlock(&k->mutex);
	return n;
}

/*
 * The library's thread of a broker sleeps for up to a second when its queues
 * are full, and nobody tells it that they have been emptied (before 2.2): an
 * answer of the broker does.
 */
static void
nudge(Kafka *k)
{
	int32		asked[64];		/* brokers, each by one of its partitions */
	int			n = 0;
	bool		stop = false;
	int64		low,
				high;

	for (int p = 0; p < k->nleaders && n < lengthof(asked) && !stop; p++)
	{
		bool		before = k->leaders[p] < 0;

		for (int i = 0; i < n; i++)
			before |= asked[i] == k->leaders[p];
		if (before)
			continue;
		asked[n++] = k->leaders[p];
		(void) rd_kafka_query_watermark_offsets(k->rk, k->topic_name, p, &low, &high, FIRST_CALL_MS);
		pthread_mutex_lock(&k->mutex);
		stop = k->stop;
		pthread_mutex_unlock(&k->mutex);
	}
}

/*---- the thread */

static bool
has_questions(Kafka *k)
{
	for (int i = 0; i < k->nshards; i++)
		if (is_asked(k->shards[i]))
			return true;
	return false;
}

/* Is there something to do before the next look?  The mutex is held. */
static bool
is_wanted(Kafka *k)
{
	if (k->stop)
		return true;
	if (!k->reachable)
		return false;			/* the next look answers */
	return k->nudge || has_questions(k) ||
		(k->ends_asked > k->ends_answered && k->nshards >= k->partitions);
}

void *
kda_kafka_helper(void *arg)
{
	Kafka	   *k = arg;
	int64		look_at = kda_monotonic_ms();
	bool		closed;

	k->call_ms = FIRST_CALL_MS;
	for (;;)
	{
		bool		stop;
		bool		whole;
		bool		nudged;
		bool		asked;

		pthread_mutex_lock(&k->mutex);
		while (!is_wanted(k) && kda_monotonic_ms() < look_at)
		{
			struct timespec until = {look_at / 1000, (look_at % 1000) * 1000000L};

			pthread_cond_timedwait(&k->to_helper, &k->mutex, &until);
		}
		stop = k->stop;
		whole = k->ends_asked > k->ends_answered || kda_monotonic_ms() >= look_at || !copy_shards(k);
		nudged = k->nudge;
		k->nudge = false;
		asked = has_questions(k);
		pthread_mutex_unlock(&k->mutex);
		if (stop)
			break;
		if (nudged && k->rk && rd_kafka_version() < BACKOFF_SETTABLE)
			nudge(k);
		give_tokens(k);
		if (whole)
			look_at = kda_monotonic_ms() + look(k);
		else if (asked && !serve_shards(k, false))
			look_at = kda_monotonic_ms() + RETRY_MS;
		take_complaints(k);
		if (whole || asked)
			kda_thread_wake(k->wake_fd);
	}

	/* From here on the main thread uses nothing of the library's. */
	for (int i = 0; i < k->nshards; i++)
		if (k->shards[i]->reading)
			rd_kafka_consume_stop(k->topic, k->shards[i]->partition);
	drop_handles(k);
	kda_thread_ends();
	pthread_mutex_lock(&k->mutex);
	k->finished = true;
	closed = k->closed;
	pthread_cond_signal(&k->to_main);
	pthread_mutex_unlock(&k->mutex);
	if (closed)
		kda_kafka_free(k);
	return NULL;
}
