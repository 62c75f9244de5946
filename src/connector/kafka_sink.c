/*-------------------------------------------------------------------------
 *
 * kafka_sink.c
 *	  Writing to a Kafka topic through librdkafka: the deliver worker's side.
 *
 * All that is sent and waited for is a helper thread's
 * (kafka_sink_thread.c); here batches go to it and its answers come back.
 *
 * Exactly once: one Kafka transaction for each batch, which commits the batch's
 * mark, too, as the offset (and its metadata) of a consumer group that nobody
 * joins.  Kafka forgets a group's offset after days without a commit, so an
 * idle sink commits its mark again once a day.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/kafka_sink_internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "commands/defrem.h"
#include "connector/threads.h"

#define QUEUE_BYTES		(64 * 1024 * 1024)	/* that the library may hold, at least */
#define QUEUE_RECORDS	200000
#define MARK_AGAIN_US	USECS_PER_DAY
#define FIRST_PAUSE_MS	100
#define PREFIX			"kda_stream-"	/* of transactional ids and groups, so that ACLs can name them all */

/*---- opening and closing */

static Size
number_of(const rd_kafka_conf_t *conf, const char *name)
{
	char		value[64];
	size_t		size = sizeof(value);

	if (rd_kafka_conf_get(conf, name, value, &size) != RD_KAFKA_CONF_OK)
		return 0;
	return strtoul(value, NULL, 10);
}

static void
on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
	/* why was said before */
	if (err != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
		kda_kafka_copy_reason(((KafkaSink *) opaque)->reason, sizeof(((KafkaSink *) opaque)->reason), err, reason);
}

/* What the library would write to stderr is of use to nobody there. */
static void
on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
}

/* The producer's; what decides about delivery is not for users to set. */
static rd_kafka_conf_t *
make_conf(const KdaSinkConfig *config)
{
	rd_kafka_conf_t *conf = kda_kafka_conf_new(config->server_options, config->user_options, true);
	Size		bytes;

	if (config->compression)
		kda_kafka_conf_set(conf, "compression.type", config->compression);
	if (rd_kafka_conf_set(conf, "partitioner", "murmur2_random", NULL, 0) == RD_KAFKA_CONF_OK)
	{
		/* as Java's producer does it, unless the server's options say otherwise */
		ListCell   *lc;

		foreach(lc, config->server_options)
			if (strcmp(lfirst_node(DefElem, lc)->defname, "partitioner") == 0)
				kda_kafka_conf_set(conf, "partitioner", defGetString(lfirst_node(DefElem, lc)));
	}
	kda_kafka_conf_set(conf, "enable.idempotence", "true");
	/* a gap in a partition would be a record passed over by those behind it */
	kda_kafka_conf_set(conf, "enable.gapless.guarantee", "true");
	if (number_of(conf, "max.in.flight") > 5)
		kda_kafka_conf_set(conf, "max.in.flight", "5");
	if (!config->exactly_once)
		kda_kafka_conf_set(conf, "message.timeout.ms", "0");	/* never given up */
	bytes = Max(QUEUE_BYTES, 2 * Max(config->batch_bytes, number_of(conf, "message.max.bytes")));
	kda_kafka_conf_set_number(conf, "queue.buffering.max.kbytes", bytes / 1024);
	kda_kafka_conf_set_number(conf, "queue.buffering.max.messages", Max(QUEUE_RECORDS, 2 * (Size) config->batch_records));
	rd_kafka_conf_set_error_cb(conf, on_error);
	rd_kafka_conf_set_log_cb(conf, on_log);
	return conf;
}

/* A consumer's that never joins its group: it only asks for the group's offset. */
static rd_kafka_conf_t *
make_mark_conf(const KdaSinkConfig *config)
{
	rd_kafka_conf_t *conf = kda_kafka_conf_new(config->server_options, config->user_options, false);

	kda_kafka_conf_set(conf, "isolation.level", "read_committed");
	kda_kafka_conf_set(conf, "enable.auto.commit", "false");
	rd_kafka_conf_set_error_cb(conf, on_error);
	rd_kafka_conf_set_log_cb(conf, on_log);
	return conf;
}

/* Of malloc's, NULL: no memory. */
static char *
make_identity(const KdaSinkConfig *config)
{
	Size		size = strlen(PREFIX) + strlen(config->identity) + 1;
	char	   *identity = malloc(size);

	if (identity)
		snprintf(identity, size, PREFIX "%s", config->identity);
	return identity;
}

static KdaSink *
sink_open(const KdaSinkConfig *config)
{
	rd_kafka_conf_t *conf = make_conf(config);
	rd_kafka_conf_t *mark_conf = config->exactly_once ? make_mark_conf(config) : NULL;
	bool		iam = kda_kafka_iam_wanted(config->server_options);
	KafkaSink  *k = calloc(1, sizeof(KafkaSink));

	if (k)
	{
		if (iam)
			k->token = kda_kafka_token_new();
		k->base.ops = &kda_kafka_sink_ops;
		k->exactly_once = config->exactly_once;
		k->wake_fd = config->wake_fd;
		k->conf = conf;
		k->mark_conf = mark_conf;
		k->transaction_timeout_ms = number_of(conf, "transaction.timeout.ms");
		k->expected = k->exactly_once && config->delivered.number > 0;
		k->has_last = config->delivered.number > 0;
		k->last = config->delivered;
		kda_retry_init(&k->retry, 0, FIRST_PAUSE_MS, config->retry_max_ms);
		pthread_mutex_init(&k->mutex, NULL);
		kda_condition_init(&k->to_main);
		k->helper_fds[0] = k->helper_fds[1] = -1;
		k->topic_name = strdup(config->topic);
		k->identity = make_identity(config);
		rd_kafka_conf_set_opaque(conf, k);
		if (mark_conf)
			rd_kafka_conf_set_opaque(mark_conf, k);
		if (mark_conf && k->identity)
		{
			rd_kafka_conf_set(conf, "transactional.id", k->identity, NULL, 0);
			rd_kafka_conf_set(mark_conf, "group.id", k->identity, NULL, 0);
		}
	}
	if (k == NULL || k->topic_name == NULL || k->identity == NULL || (iam && k->token == NULL) ||
		pipe2(k->helper_fds, O_NONBLOCK | O_CLOEXEC) != 0)
	{
		if (k)
			kda_kafka_sink_free(k);
		else
		{
			rd_kafka_conf_destroy(conf);
			if (mark_conf)
				rd_kafka_conf_destroy(mark_conf);
		}
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory, or of files, for output %s", config->output_name)));
	}

	if (iam)
	{
		PG_TRY();
		{
			k->iam = kda_kafka_iam_open(config->serverid, config->owner, config->wake_fd, k->token);
		}
		PG_CATCH();
		{
			kda_kafka_sink_free(k);
			PG_RE_THROW();
		}
		PG_END_TRY();
	}

	/* the library's own threads are started from the helper */
	if (!kda_thread_start(kda_kafka_sink_helper, k))
	{
		kda_kafka_sink_free(k);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start a thread for output %s", config->output_name)));
	}
	return &k->base;
}

static void
free_delivery(KafkaDelivery *d)
{
	for (int i = 0; d->refused && i < d->n; i++)
		free(d->refused[i]);
	free(d->refused);
	free(d->state);
	free(d);
}

void
kda_kafka_sink_free(KafkaSink *k)
{
	while (k->first)
	{
		KafkaDelivery *d = k->first;

		k->first = d->next;
		free_delivery(d);
	}
	for (int i = 0; i < 2; i++)
		if (k->helper_fds[i] >= 0)
			close(k->helper_fds[i]);
	free(k->topic_name);
	free(k->identity);
	kda_kafka_token_free(k->token);
	rd_kafka_conf_destroy(k->conf);
	if (k->mark_conf)
		rd_kafka_conf_destroy(k->mark_conf);
	pthread_mutex_destroy(&k->mutex);
	pthread_cond_destroy(&k->to_main);
	free(k);
}

/* The helper destroys everything of the library's; who comes last frees the rest. */
static void
sink_close(KdaSink *sink, int deadline_ms)
{
	KafkaSink  *k = (KafkaSink *) sink;
	bool		finished;

	kda_kafka_iam_close(k->iam);
	pthread_mutex_lock(&k->mutex);
	k->stop = true;
	kda_thread_wake(k->helper_fds[1]);
	finished = kda_condition_await(&k->to_main, &k->mutex, &k->finished, deadline_ms);
	/* records are the caller's: this takes no longer than some hundred of them */
	while (k->reading)
		pthread_cond_wait(&k->to_main, &k->mutex);
	k->closed = true;
	pthread_mutex_unlock(&k->mutex);
	if (finished)
		kda_kafka_sink_free(k);
}

/*---- batches */

static void
sink_send(KdaSink *sink, KdaSealedBatch *batch)
{
	KafkaSink  *k = (KafkaSink *) sink;
	KafkaDelivery *d = calloc(1, sizeof(KafkaDelivery));
	KafkaDelivery **last = &k->first;

	Assert(sink->ready);
	if (d == NULL || (d->state = calloc(Max(batch->n, 1), 1)) == NULL)
	{
		free(d);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	d->batch = batch;
	d->records = batch->records;
	d->n = d->undone = batch->n;
	d->mark = batch->mark;
	batch->done = false;
	batch->state = d;
	while (*last)
		last = &(*last)->next;
	*last = d;
	k->nunder_way++;
	sink->ready = k->nunder_way < KAFKA_SINK_MAX_BATCHES;
	pthread_mutex_lock(&k->mutex);
	k->incoming[k->nincoming++] = d;
	pthread_mutex_unlock(&k->mutex);
	kda_thread_wake(k->helper_fds[1]);
}

static void
sink_release(KdaSink *sink, KdaSealedBatch *batch)
{
	KafkaSink  *k = (KafkaSink *) sink;

	for (KafkaDelivery **p = &k->first; *p; p = &(*p)->next)
		if (*p == batch->state)
		{
			KafkaDelivery *d = *p;

			*p = d->next;
			free_delivery(d);
			break;
		}
	for (int i = 0; i < batch->n; i++)
		batch->records[i].refused = NULL;
	batch->state = NULL;
}

static void
take_done(KafkaSink *k)
{
	for (KafkaDelivery *d = k->first; d; d = d->next)
	{
		bool		done;

		if (d->batch->done)
			continue;
		pthread_mutex_lock(&k->mutex);
		done = d->done;
		pthread_mutex_unlock(&k->mutex);
		if (!done)
			break;
		for (int i = 0; d->refused && i < d->n; i++)
			d->batch->records[i].refused = d->refused[i];
		d->batch->done = true;
		k->has_last = true;
		k->last = d->mark;
		k->nunder_way--;
	}
}

/* Kafka forgets what nobody commits. */
static void
keep_mark(KafkaSink *k)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		written;

	pthread_mutex_lock(&k->mutex);
	written = k->marks_written != k->marks_seen;
	k->marks_seen = k->marks_written;
	if (written || k->marked_at == 0)
		k->marked_at = now;
	else if (k->has_last && k->nunder_way == 0 && !k->mark_asked && now - k->marked_at >= MARK_AGAIN_US)
	{
		k->mark_again = k->last;
		k->mark_asked = true;
		kda_thread_wake(k->helper_fds[1]);
	}
	pthread_mutex_unlock(&k->mutex);
}

static void
sink_service(KdaSink *sink)
{
	KafkaSink  *k = (KafkaSink *) sink;
	bool		known;

	kda_kafka_iam_service(k->iam);
	take_done(k);
	pthread_mutex_lock(&k->mutex);
	known = k->known;
	if (known)
	{
		/* once: what is sent since may have smaller numbers, after a failover */
		if (!k->found_taken && k->has_found && (!k->has_last || k->found.number > k->last.number))
		{
			k->has_last = true;
			k->last = k->found;
		}
		k->found_taken = true;
		sink->has_mark = k->has_found;
		sink->found_mark = k->found;
		sink->marks_missing = k->missing;
	}
	sink->failed = k->failed;
	sink->retries = k->retries;
	strlcpy(sink->error, k->trouble, sizeof(sink->error));
	pthread_mutex_unlock(&k->mutex);
	sink->ready = known && !sink->failed && k->nunder_way < KAFKA_SINK_MAX_BATCHES;
	if (known && k->exactly_once)
		keep_mark(k);
}

const KdaSinkOps kda_kafka_sink_ops = {
	.type = "kafka",
	.exactly_once = true,
	.batch_records = 20000,
	.batch_bytes = 16 * 1024 * 1024,
	.max_batches = KAFKA_SINK_MAX_BATCHES,
	.open = sink_open,
	.close = sink_close,
	.service = sink_service,
	.send = sink_send,
	.release = sink_release
};
