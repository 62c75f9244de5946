/*-------------------------------------------------------------------------
 *
 * kafka.c
 *	  Reading a Kafka topic through librdkafka: a shard is a partition.
 *
 * Positions are ours (kda_storage.shard), so the plain consumer without a
 * group is used: one queue into which all partitions deliver.  What waits for
 * the network is done by a helper thread (kafka_helper.c); between the two
 * threads there is one mutex.
 *
 * A topic that was deleted and made anew must not be taken for the old one.
 * When reading begins (again) at a stored position, the record before it is
 * read too and compared (time stamp, CRC); a broker that knows fewer records
 * than have been read, or does not keep the position any more, makes the shard
 * lost.  A record handed out is never behind the position asked for, and
 * nothing that the library could not read is passed over.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/kafka_internal.h"

#include <stdlib.h>

#include "connector/threads.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "port/pg_crc32c.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"

#define FETCH_CHUNK		10000
#define AGAIN_US		USECS_PER_SEC	/* after trouble with a partition it is read again */
#define DAMAGED_TIMES	5				/* what cannot be read so often is lost */

/*---- opening and closing */

static rd_kafka_conf_t *
make_conf(const KdaSourceConfig *config)
{
	rd_kafka_conf_t *conf = kda_kafka_conf_new(config->server_options, config->user_options, false);

	kda_kafka_conf_set(conf, "check.crcs", "true");
	kda_kafka_conf_set(conf, "enable.partition.eof", "true");
	kda_kafka_conf_set(conf, "enable.auto.commit", "false");
	kda_kafka_conf_set(conf, "enable.auto.offset.store", "false");
	rd_kafka_conf_set_error_cb(conf, kda_kafka_on_error);
	/* for what kda_kafka_on_log() wants to hear; all else is dropped there */
	kda_kafka_conf_set(conf, "debug", "topic");
	kda_kafka_conf_set(conf, "log_level", "7");
	rd_kafka_conf_set_log_cb(conf, kda_kafka_on_log);
	return conf;
}

static KdaSource *
kafka_open(const KdaSourceConfig *config)
{
	rd_kafka_conf_t *conf = make_conf(config);
	bool		iam = kda_kafka_iam_wanted(config->server_options);
	Kafka	   *k = calloc(1, sizeof(Kafka));

	if (k == NULL || (k->topic_name = strdup(config->topic)) == NULL ||
		(k->messages = malloc(sizeof(rd_kafka_message_t *) * FETCH_CHUNK)) == NULL ||
		(iam && (k->token = kda_kafka_token_new()) == NULL))
	{
		if (k)
		{
			free(k->topic_name);
			free(k->messages);
		}
		free(k);
		rd_kafka_conf_destroy(conf);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	k->base.ops = &kda_kafka_ops;
	k->fetch_memory = config->fetch_memory;
	k->max_record_bytes = config->max_record_bytes;
	k->wake_fd = config->wake_fd;
	k->record_bytes = 1024;
	k->conf = conf;
	rd_kafka_conf_set_opaque(conf, k);
	pthread_mutex_init(&k->mutex, NULL);
	kda_condition_init(&k->to_helper);
	kda_condition_init(&k->to_main);

	if (iam)
	{
		PG_TRY();
		{
			k->iam = kda_kafka_iam_open(config->serverid, config->owner, config->wake_fd, k->token);
		}
		PG_CATCH();
		{
			kda_kafka_free(k);
			PG_RE_THROW();
		}
		PG_END_TRY();
	}

	/* the library's own threads are started from the helper */
	if (!kda_thread_start(kda_kafka_helper, k))
	{
		kda_kafka_free(k);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start a thread for stream %s", config->stream_name)));
	}
	return &k->base;
}

static bool
kafka_has_changed(KdaSource *source)
{
	KdaKafkaIam *iam = ((Kafka *) source)->iam;

	return iam && kda_kafka_iam_has_changed(iam);
}

/* The helper destroys everything of the library's; who comes last frees the rest. */
static void
kafka_close(KdaSource *source, int deadline_ms)
{
	Kafka	   *k = (Kafka *) source;
	bool		finished;

	kda_kafka_iam_close(k->iam);
	pthread_mutex_lock(&k->mutex);
	k->stop = true;
	pthread_cond_signal(&k->to_helper);
	finished = kda_condition_await(&k->to_main, &k->mutex, &k->finished, deadline_ms);
	k->closed = true;
	pthread_mutex_unlock(&k->mutex);
	if (finished)
		kda_kafka_free(k);
}

/*---- shards */

static void
ask(Kafka *k, KafkaShard *s, KafkaAsk what, const KdaShardStart *start)
{
	pthread_mutex_lock(&k->mutex);
	s->ask = what;
	s->ask_serial++;
	s->ask_position = s->base.next_position;
	if (start)
		s->ask_start = *start;
	pthread_cond_signal(&k->to_helper);
	pthread_mutex_unlock(&k->mutex);
}

static void
stop_reading(Kafka *k, KafkaShard *s)
{
	if (s->reading)
		rd_kafka_consume_stop(k->topic, s->partition);
	s->reading = false;
	s->again_at = 0;
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
		s->again_at = GetCurrentTimestamp() + AGAIN_US;
		return;
	}
	s->reading = true;
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
	s->damaged = 0;
	s->start = *start;
	s->base.next_position = -1;
	if (start->kind == KDA_START_POSITION)
	{
		s->base.next_position = start->position;
		ask(k, s, KAFKA_ASK_NOTHING, NULL);	/* what was asked before is of no use */
		go_on(k, s);
		return;
	}
	/* what was not there when the query was created is all new */
	if (start->kind == KDA_START_LATEST && s->was_missing)
		s->start.kind = KDA_START_EARLIEST;
	ask(k, s, KAFKA_ASK_START, &s->start);
}

/*
 * The helper has answered.  The broker was asked for its end after everything
 * before ask_position had been read, so an end that is lower is another
 * topic's.  Records read since the question prove nothing.
 */
static void
take_answer(Kafka *k, KafkaShard *s, KafkaAsk asked, int64 ask_position, int64 low, int64 high, int64 answer)
{
	int64		want = s->base.next_position;

	if (asked == KAFKA_ASK_START)
	{
		s->start.kind = KDA_START_POSITION;
		s->start.position = Max(answer, low);
		s->start.last_position = -1;
		s->base.next_position = s->start.position;
		go_on(k, s);
	}
	else if (s->base.lost || !s->base.assigned)
		return;
	else if (want < low)
		lose(k, s, "offsets " INT64_FORMAT " to " INT64_FORMAT " of partition %d of topic \"%s\" are gone: the oldest one kept is " INT64_FORMAT,
			 want, low - 1, s->partition, k->topic_name, low);
	else if (ask_position > high)
		lose(k, s, "offset " INT64_FORMAT " of partition %d of topic \"%s\" is beyond its end " INT64_FORMAT ": the topic was truncated or created anew",
			 ask_position, s->partition, k->topic_name, high);
	else if (!s->reading)
	{
		/* only the record before it has left */
		s->check_offset = -1;
		begin_reading(k, s, want);
	}
}

/* Makes shards of partitions that are new. */
static void
add_shards(Kafka *k, int partitions, bool was_missing)
{
	KafkaShard **shards = malloc(sizeof(KafkaShard *) * partitions);
	KafkaShard **had = k->shards;
	int			n = k->nshards;

	if (shards == NULL)
		return;					/* the next time */
	if (n > 0)
		memcpy(shards, had, sizeof(KafkaShard *) * n);
	for (; n < partitions; n++)
	{
		KafkaShard *s = calloc(1, sizeof(KafkaShard));

		if (s == NULL)
			break;
		s->partition = n;
		snprintf(s->base.name, sizeof(s->base.name), "%d", n);
		s->base.next_position = s->base.first_position = s->base.end_position = -1;
		s->check_offset = -1;
		s->low = s->high = -1;
		s->was_missing = was_missing;
		shards[n] = s;
	}
	pthread_mutex_lock(&k->mutex);
	k->shards = shards;
	k->nshards = n;
	pthread_cond_signal(&k->to_helper);
	pthread_mutex_unlock(&k->mutex);
	free(had);
	k->base.shards = (KdaSourceShard **) shards;
	k->base.nshards = n;
}

static void
service_shard(Kafka *k, KafkaShard *s, bool reachable, uint64 round, TimestampTz now)
{
	KafkaAsk	asked;
	int64		low,
				high,
				answer,
				ask_position;
	uint64		range_round;

	pthread_mutex_lock(&k->mutex);
	asked = s->ask == KAFKA_ASK_DONE ? s->asked : KAFKA_ASK_NOTHING;
	if (s->ask == KAFKA_ASK_DONE)
		s->ask = KAFKA_ASK_NOTHING;
	low = s->low;
	high = s->high;
	answer = s->answer;
	ask_position = s->ask_position;
	range_round = s->range_round;
	reachable &= s->reachable;
	pthread_mutex_unlock(&k->mutex);

	if (asked != KAFKA_ASK_NOTHING)
		take_answer(k, s, asked, ask_position, low, high, answer);
	s->base.first_position = low;
	s->base.end_position = Max(high, s->base.next_position);

	if (s->again_at != 0 && now >= s->again_at && s->base.assigned && !s->base.lost)
	{
		s->again_at = 0;
		if (s->check_offset >= 0)
			go_on(k, s);
		else
			begin_reading(k, s, s->base.next_position);
	}

	if (!reachable)
		s->base.at_end = false;
	else if (!s->base.at_end && s->reading && s->check_offset < 0 && high >= 0 &&
			 range_round >= k->unreachable_since_round && k->unreachable_since_round > 0 &&
			 s->base.next_position >= high)
		s->base.at_end = true;	/* the library says it only once, before the broker went away */

	/* fewer records than have been read: is it still the topic that we knew? */
	if (s->reading && high >= 0 && s->base.next_position > high && reachable &&
		range_round == round && round > 0)
		ask(k, s, KAFKA_ASK_RANGE, NULL);
}

/*
 * A fetch has found no such topic, or no longer its leader: what comes now may
 * be another topic's.  Everything is read anew, from the last record on.
 */
static bool
take_doubts(Kafka *k)
{
	int			doubts = __atomic_load_n(&k->doubts, __ATOMIC_SEQ_CST);

	if (likely(doubts == k->doubts_seen))
		return false;
	k->doubts_seen = doubts;
	for (int i = 0; i < k->nshards; i++)
		stop_reading(k, k->shards[i]);
	pthread_mutex_lock(&k->mutex);
	k->doubt_round++;
	pthread_mutex_unlock(&k->mutex);
	return true;
}

static void
kafka_service(KdaSource *source)
{
	Kafka	   *k = (Kafka *) source;
	int			partitions,
				sized_for;
	bool		connected,
				reachable,
				missing,
				ever_missing;
	uint64		doubt,
				round;
	TimestampTz now = GetCurrentTimestamp();

	kda_kafka_iam_service(k->iam);
	pthread_mutex_lock(&k->mutex);
	connected = k->connected;
	partitions = k->partitions;
	sized_for = k->sized_for;
	reachable = k->reachable;
	missing = k->topic_missing;
	ever_missing = k->ever_missing;
	doubt = k->doubt_round;
	round = k->look_round;
	strlcpy(source->error, k->trouble, sizeof(source->error));
	pthread_mutex_unlock(&k->mutex);

	if (!connected)
		return;
	if (take_doubts(k))
		doubt++;				/* what it has just become */
	if (!reachable)
		k->unreachable_since_round = round + 1;
	/* so many new partitions that the division of the memory is wrong */
	if (partitions > sized_for * 2)
		source->reopen = true;

	if (partitions > k->nshards && !missing)
	{
		add_shards(k, partitions, ever_missing && !source->known);
		source->known = true;
	}

	/* The topic was gone and is back, or has become shorter: is it still the same one? */
	if (doubt != k->doubt_seen && !missing && reachable)
	{
		k->doubt_seen = doubt;
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

		service_shard(k, s, reachable, round, now);
		if (s->base.error[0] && !s->base.lost && source->error[0] == '\0')
			strlcpy(source->error, s->base.error, sizeof(source->error));
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
	return (ms - KAFKA_EPOCH_MS) * 1000;
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
				stop_reading(k, s);
				ask(k, s, KAFKA_ASK_RANGE, NULL);
				break;
			}
			s->base.at_end = true;
			s->base.next_position = Max(s->base.next_position, m->offset);
			s->base.error[0] = '\0';
			break;
		case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
		case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
			stop_reading(k, s);
			ask(k, s, KAFKA_ASK_RANGE, NULL);
			break;
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
			/* the helper finds out; until then nothing is read */
			stop_reading(k, s);
			s->again_at = GetCurrentTimestamp() + AGAIN_US;
			pthread_mutex_lock(&k->mutex);
			if (!k->topic_missing)
				k->doubt_round++;
			k->topic_missing = true;
			k->reachable = false;
			pthread_cond_signal(&k->to_helper);
			pthread_mutex_unlock(&k->mutex);
			break;
		default:

			/*
			 * The library goes on behind what it cannot read (a wrong checksum,
			 * say); we do not: the same place is tried again.
			 */
			stop_reading(k, s);
			snprintf(s->base.error, sizeof(s->base.error), "partition %d: %s", s->partition,
					 rd_kafka_message_errstr(m));
			s->again_at = GetCurrentTimestamp() + AGAIN_US;
			if ((m->err == RD_KAFKA_RESP_ERR__BAD_MSG || m->err == RD_KAFKA_RESP_ERR__BAD_COMPRESSION ||
				 m->err == RD_KAFKA_RESP_ERR__UNDERFLOW) && ++s->damaged >= DAMAGED_TIMES)
				lose(k, s, "what follows offset " INT64_FORMAT " of partition %d of topic \"%s\" cannot be read: %s",
					 s->base.next_position - 1, s->partition, k->topic_name, rd_kafka_message_errstr(m));
			break;
	}
}

/* Appends a message, or not if it is not one that was asked for; false: it is to be destroyed. */
static bool
take_message(Kafka *k, KafkaShard *s, rd_kafka_message_t *m, KdaRawBatch *into)
{
	KdaTime		arrival = arrival_of(m);
	KdaRawRecord *rec;

	if (unlikely(s->check_offset >= 0))
	{
		if (m->offset == s->check_offset && !same_record(s, m, arrival))
		{
			lose(k, s, "the record at offset " INT64_FORMAT " of partition %d of topic \"%s\" is not the one that was read: the topic was created anew",
				 m->offset, s->partition, k->topic_name);
			return false;
		}
		if (m->offset >= s->check_offset)
			s->check_offset = -1;
	}
	if (m->offset < s->base.next_position)
		return false;
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
	if (unlikely(s->base.error[0]))
	{
		s->base.error[0] = '\0';
		s->damaged = 0;
	}
	return true;
}

/* After a fetch: if the broker has more, its thread must not sleep over it. */
static void
ask_for_more(Kafka *k)
{
	bool		backlog = false;

	pthread_mutex_lock(&k->mutex);
	for (int i = 0; i < k->nshards && !backlog; i++)
		backlog = k->shards[i]->reading && k->shards[i]->base.next_position < k->shards[i]->high;
	if (backlog && !k->nudge)
	{
		k->nudge = true;
		pthread_cond_signal(&k->to_helper);
	}
	pthread_mutex_unlock(&k->mutex);
}

static int
kafka_fetch(KdaSource *source, KdaRawBatch *into, int max_records, Size max_bytes)
{
	Kafka	   *k = (Kafka *) source;
	Size		limit = into->bytes + max_bytes;
	int			added = 0;

	if (!source->known)
		return 0;
	while (added < max_records && (into->n == 0 || into->bytes < limit))
	{
		/* so many that their bytes will be about what is wanted */
		Size		room = (limit - Min(into->bytes, limit)) / Max(k->record_bytes, 1) + 1;
		Size		bytes = into->bytes;
		ssize_t		n;
		int			taken = 0;

		n = rd_kafka_consume_batch_queue(k->queue, 0, k->messages,
										 Min(Min(max_records - added, FETCH_CHUNK), room));
		if (n <= 0)
			break;
		/* seen before the messages are: they came after it */
		(void) take_doubts(k);
		for (ssize_t i = 0; i < n; i++)
		{
			rd_kafka_message_t *m = k->messages[i];
			KafkaShard *s = m->partition >= 0 && m->partition < k->nshards ? k->shards[m->partition] : NULL;

			if (s && s->reading && m->err)
				take_event(k, s, m);
			else if (s && s->reading && take_message(k, s, m, into))
			{
				taken++;
				continue;
			}
			rd_kafka_message_destroy(m);
		}
		added += taken;
		if (taken > 0)
			k->record_bytes = (k->record_bytes + (into->bytes - bytes) / taken) / 2;
	}
	if (added > 0)
		ask_for_more(k);
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

static uint64
kafka_ends_begin(KdaSource *source)
{
	Kafka	   *k = (Kafka *) source;
	uint64		ticket;

	pthread_mutex_lock(&k->mutex);
	ticket = ++k->ends_asked;
	pthread_cond_signal(&k->to_helper);
	pthread_mutex_unlock(&k->mutex);
	return ticket;
}

static bool
kafka_ends_poll(KdaSource *source, uint64 ticket, int64 *ends, int nends)
{
	Kafka	   *k = (Kafka *) source;
	bool		done;

	pthread_mutex_lock(&k->mutex);
	done = k->ends_answered >= ticket;
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
	.has_changed = kafka_has_changed,
	.close = kafka_close,
	.service = kafka_service,
	.assign = kafka_assign,
	.fetch = kafka_fetch,
	.release = kafka_release,
	.ends_begin = kafka_ends_begin,
	.ends_poll = kafka_ends_poll,
	.headers_json = kafka_headers_json
};
