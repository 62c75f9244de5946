/*-------------------------------------------------------------------------
 *
 * kafka_sink_thread.c
 *	  The helper thread of a Kafka sink: connects, waits, and lets
 *	  kafka_sink_once.c or kafka_sink_least.c send.
 *
 * Runs with all signals blocked, and so do the threads that the library starts
 * from it.  Nothing here may call PostgreSQL: no palloc, no ereport, no elog.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/kafka_sink_internal.h"
#include "connector/threads.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#define WAIT_MS		1000		/* longest sleep: what the library says is looked at that often */

/*---- what is wrong */

static void
say(KafkaSink *k, const char *fmt, va_list args)
{
	char		text[512];

	vsnprintf(text, sizeof(text), fmt, args);
	pthread_mutex_lock(&k->mutex);
	k->retries++;
	strlcpy(k->trouble, text, sizeof(k->trouble));
	pthread_mutex_unlock(&k->mutex);
	kda_thread_wake(k->wake_fd);
}

void
kda_kafka_sink_trouble(KafkaSink *k, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	say(k, fmt, args);
	va_end(args);
	k->again_at = kda_monotonic_ms() + kda_retry_after_failure(&k->retry, 0);
}

void
kda_kafka_sink_note(KafkaSink *k, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	say(k, fmt, args);
	va_end(args);
}

void
kda_kafka_sink_fail(KafkaSink *k, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	say(k, fmt, args);
	va_end(args);
	pthread_mutex_lock(&k->mutex);
	k->failed = true;
	pthread_mutex_unlock(&k->mutex);
	kda_thread_wake(k->wake_fd);
}

void
kda_kafka_sink_clear_trouble(KafkaSink *k)
{
	kda_retry_after_success(&k->retry);
	k->reason[0] = '\0';
	pthread_mutex_lock(&k->mutex);
	k->trouble[0] = '\0';
	pthread_mutex_unlock(&k->mutex);
}

const char *
kda_kafka_sink_why(KafkaSink *k, rd_kafka_resp_err_t err, const char *text)
{
	if (k->rk)
		rd_kafka_poll(k->rk, 0);
	if (k->token)
	{
		char		no_token[256];

		kda_kafka_token_error(k->token, no_token, sizeof(no_token));
		if (no_token[0])
			strlcpy(k->reason, no_token, sizeof(k->reason));
	}
	/* the library's own complaint says more than that a call has timed out */
	if (k->reason[0] && (err == RD_KAFKA_RESP_ERR__TIMED_OUT || err == RD_KAFKA_RESP_ERR__TRANSPORT ||
						 err == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || err == RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT))
		return k->reason;
	return text ? text : rd_kafka_err2str(err);
}

/*---- what the two threads share */

bool
kda_kafka_sink_stops(KafkaSink *k)
{
	bool		stop;

	pthread_mutex_lock(&k->mutex);
	stop = k->stop;
	pthread_mutex_unlock(&k->mutex);
	return stop;
}

bool
kda_kafka_sink_begin_reading(KafkaSink *k)
{
	pthread_mutex_lock(&k->mutex);
	k->reading = !k->stop;
	pthread_mutex_unlock(&k->mutex);
	return k->reading;
}

void
kda_kafka_sink_end_reading(KafkaSink *k)
{
	pthread_mutex_lock(&k->mutex);
	k->reading = false;
	pthread_cond_signal(&k->to_main);
	pthread_mutex_unlock(&k->mutex);
}

static void
take_incoming(KafkaSink *k)
{
	pthread_mutex_lock(&k->mutex);
	for (int i = 0; i < k->nincoming; i++)
		k->work[k->nwork++] = k->incoming[i];
	k->nincoming = 0;
	pthread_mutex_unlock(&k->mutex);
}

void
kda_kafka_sink_done(KafkaSink *k)
{
	KafkaDelivery *d = k->work[0];

	memmove(&k->work[0], &k->work[1], sizeof(KafkaDelivery *) * --k->nwork);
	pthread_mutex_lock(&k->mutex);
	d->done = true;
	pthread_mutex_unlock(&k->mutex);
	kda_thread_wake(k->wake_fd);
}

/*---- records */

bool
kda_kafka_sink_is_refusal(rd_kafka_resp_err_t err)
{
	switch (err)
	{
		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
		case RD_KAFKA_RESP_ERR_INVALID_RECORD:
		case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
		case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT:
			return true;
		default:
			return false;
	}
}

void
kda_kafka_sink_refuse(KafkaSink *k, KafkaDelivery *d, int i, const char *why)
{
	if (d->state[i] == KAFKA_REFUSED)
		return;
	if (d->refused == NULL)
		d->refused = calloc(d->n, sizeof(char *));
	if (d->refused == NULL || (d->refused[i] = strdup(why)) == NULL)
	{
		/* without memory for why it is not refused yet: it comes here again */
		k->broken = true;
		return;
	}
	if (d->state[i] == KAFKA_SUSPECT)
		d->nsuspects--;
	d->state[i] = KAFKA_REFUSED;
	d->undone--;
}

static int64
milliseconds(KdaTime time)
{
	int64		ms;

	if (TIMESTAMP_NOT_FINITE(time))
		return 0;				/* now */
	ms = time / 1000 - (time % 1000 < 0 ? 1 : 0) + KAFKA_EPOCH_MS;
	return Max(ms, 1);			/* Kafka has nothing before 1970 */
}

rd_kafka_resp_err_t
kda_kafka_sink_produce(KafkaSink *k, KafkaDelivery *d, int i)
{
	const KdaOutRecord *r = &d->records[i];
	rd_kafka_vu_t vus[7];
	int			n = 0;
	rd_kafka_headers_t *headers = NULL;
	rd_kafka_error_t *error;
	rd_kafka_resp_err_t err;

	if (r->headers && (headers = kda_kafka_headers(r->headers)) == NULL)
	{
		kda_kafka_sink_refuse(k, d, i, "its headers are not a JSON object of names and values");
		return RD_KAFKA_RESP_ERR_INVALID_RECORD;
	}
	vus[n].vtype = RD_KAFKA_VTYPE_RKT;
	vus[n++].u.rkt = k->topic;
	vus[n].vtype = RD_KAFKA_VTYPE_MSGFLAGS;
	vus[n++].u.i = RD_KAFKA_MSG_F_COPY;
	vus[n].vtype = RD_KAFKA_VTYPE_VALUE;
	vus[n].u.mem.ptr = unconstify(char *, r->value);
	vus[n++].u.mem.size = r->value ? r->len : 0;
	if (r->key)
	{
		vus[n].vtype = RD_KAFKA_VTYPE_KEY;
		vus[n].u.mem.ptr = unconstify(char *, r->key);
		vus[n++].u.mem.size = r->key_len;
	}
	vus[n].vtype = RD_KAFKA_VTYPE_TIMESTAMP;
	vus[n++].u.i64 = milliseconds(r->time);
	vus[n].vtype = RD_KAFKA_VTYPE_OPAQUE;
	vus[n++].u.ptr = &d->state[i];
	if (headers)
	{
		vus[n].vtype = RD_KAFKA_VTYPE_HEADERS;
		vus[n++].u.headers = headers;
	}
	error = rd_kafka_produceva(k->rk, vus, n);
	if (error == NULL)
		return RD_KAFKA_RESP_ERR_NO_ERROR;
	err = rd_kafka_error_code(error);
	rd_kafka_error_destroy(error);
	if (headers)
		rd_kafka_headers_destroy(headers);
	if (kda_kafka_sink_is_refusal(err))
	{
		char		why[200];

		snprintf(why, sizeof(why), "%s: the record has %d bytes; property \"message.max.bytes\" of the server and max.message.bytes of the topic say how many it may have",
				 rd_kafka_err2str(err), r->len + r->key_len);
		kda_kafka_sink_refuse(k, d, i, why);
	}
	return err;
}

/* What has become of a message; from rd_kafka_poll(). */
static void
on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
	KafkaSink  *k = opaque;
	uint8	   *state = m->_private;
	KafkaDelivery *d = NULL;

	for (int i = 0; i < k->nwork && d == NULL; i++)
		if (state >= k->work[i]->state && state < k->work[i]->state + k->work[i]->n)
			d = k->work[i];
	if (d == NULL || *state == KAFKA_REFUSED || *state == KAFKA_FINE)
		return;
	if (likely(m->err == RD_KAFKA_RESP_ERR_NO_ERROR))
	{
		if (*state == KAFKA_SUSPECT)
			d->nsuspects--;
		*state = KAFKA_FINE;
		d->undone--;
		k->acknowledged++;
		return;
	}
	if (m->err == RD_KAFKA_RESP_ERR__PURGE_QUEUE || m->err == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT)
		return;					/* of a transaction that was given up */
	k->broken = true;
	if (!kda_kafka_sink_is_refusal(m->err))
	{
		if (m->err != RD_KAFKA_RESP_ERR__FATAL)
			strlcpy(k->reason, rd_kafka_err2str(m->err), sizeof(k->reason));
		return;
	}
	k->suspicion = m->err;
	if (k->probing)
	{
		k->probe_refused = true;
		kda_kafka_sink_refuse(k, d, state - d->state, rd_kafka_err2str(m->err));
	}
	else if (*state != KAFKA_SUSPECT)
	{
		*state = KAFKA_SUSPECT;
		d->nsuspects++;
	}
}

void
kda_kafka_sink_after_probe(KafkaSink *k, bool found_one)
{
	if (!found_one)
		k->batch_bytes = Max((k->batch_bytes ? k->batch_bytes : 1000000) / 4, KAFKA_SINK_LEAST_BYTES);
}

/*---- connecting */

static bool
make_producer(KafkaSink *k)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_dup(k->conf);
	char		why[512];

	rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
	if (k->exactly_once && !k->probing)
		rd_kafka_conf_set(conf, "delivery.report.only.error", "true", NULL, 0);
	if (k->batch_bytes)
		kda_kafka_conf_set_number(conf, "batch.size", k->batch_bytes);
	if (k->probing || k->batch_bytes == KAFKA_SINK_LEAST_BYTES)
		kda_kafka_conf_set_number(conf, "batch.num.messages", 1);
	k->reason[0] = '\0';
	k->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why));
	if (k->rk == NULL)
	{
		rd_kafka_conf_destroy(conf);
		kda_kafka_sink_trouble(k, "%s", why);
		return false;
	}
	k->topic = rd_kafka_topic_new(k->rk, k->topic_name, NULL);
	if (k->topic == NULL)
	{
		kda_kafka_sink_trouble(k, "topic \"%s\": %s", k->topic_name, rd_kafka_err2str(rd_kafka_last_error()));
		kda_kafka_sink_drop(k);
		return false;
	}
	k->token_given = 0;
	kda_kafka_token_apply(k->token, k->rk, &k->token_given);
	k->queue = rd_kafka_queue_get_main(k->rk);
	rd_kafka_queue_io_event_enable(k->queue, k->helper_fds[1], "k", 1);
	return true;
}

void
kda_kafka_sink_drop(KafkaSink *k)
{
	if (k->rk == NULL)
		return;
	if (k->queue)
	{
		rd_kafka_queue_io_event_enable(k->queue, -1, NULL, 0);
		rd_kafka_queue_destroy(k->queue);
	}
	if (k->topic)
		rd_kafka_topic_destroy(k->topic);
	rd_kafka_destroy(k->rk);
	k->rk = NULL;
	k->topic = NULL;
	k->queue = NULL;
	k->initialized = k->connected = k->in_transaction = false;
}

static bool
init_transactions(KafkaSink *k)
{
	rd_kafka_error_t *error = rd_kafka_init_transactions(k->rk, KAFKA_SINK_CALL_MS);
	rd_kafka_resp_err_t err;

	if (error == NULL)
		return true;
	err = rd_kafka_error_code(error);
	if (err == RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT || err == RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE)
		kda_kafka_sink_fail(k, "%s", rd_kafka_error_string(error));
	else
		kda_kafka_sink_trouble(k, "%s", kda_kafka_sink_why(k, err, rd_kafka_error_string(error)));
	if (!rd_kafka_error_is_retriable(error))
		kda_kafka_sink_drop(k);
	rd_kafka_error_destroy(error);
	return false;
}

static bool
find_topic(KafkaSink *k)
{
	const struct rd_kafka_metadata *md;
	rd_kafka_resp_err_t err = rd_kafka_metadata(k->rk, 0, k->topic, &md, KAFKA_SINK_CALL_MS);

	if (err)
	{
		kda_kafka_sink_trouble(k, "the broker does not answer: %s", kda_kafka_sink_why(k, err, NULL));
		return false;
	}
	err = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
	for (int i = 0; i < md->topic_cnt; i++)
		if (strcmp(md->topics[i].topic, k->topic_name) == 0)
			err = md->topics[i].err == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE ? RD_KAFKA_RESP_ERR_NO_ERROR : md->topics[i].err;
	rd_kafka_metadata_destroy(md);
	if (err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
		kda_kafka_sink_trouble(k, "topic \"%s\" does not exist", k->topic_name);
	else if (err)
		kda_kafka_sink_trouble(k, "topic \"%s\": %s", k->topic_name, rd_kafka_err2str(err));
	return err == RD_KAFKA_RESP_ERR_NO_ERROR;
}

static void
connect_producer(KafkaSink *k)
{
	bool		has = false;
	KdaSinkMark mark = {0};

	if (k->rk == NULL && !make_producer(k))
		return;
	if (k->exactly_once && !k->initialized && !(k->initialized = init_transactions(k)))
		return;
	if (!find_topic(k))
		return;
	if (k->exactly_once)
	{
		if (!kda_kafka_sink_read_mark(k, &has, &mark))
			return;
		if (k->was_connected && !kda_kafka_sink_settle(k, has, &mark))
		{
			kda_kafka_sink_drop(k);
			return;
		}
		k->has_at = has;
		k->at = mark;
	}
	k->connected = true;
	k->broken = false;
	kda_kafka_sink_clear_trouble(k);
	if (k->was_connected)
		return;
	k->was_connected = true;
	pthread_mutex_lock(&k->mutex);
	k->known = true;
	k->has_found = has;
	k->found = mark;
	k->missing = k->expected && !has;
	pthread_mutex_unlock(&k->mutex);
	kda_thread_wake(k->wake_fd);
}

/*---- the thread */

/* Until there may be something to do. */
static void
wait_for_work(KafkaSink *k, int64 timeout_ms)
{
	struct pollfd p = {k->helper_fds[0], POLLIN, 0};
	char		bytes[256];

	if (timeout_ms > 0)
		(void) poll(&p, 1, (int) timeout_ms);
	while (read(k->helper_fds[0], bytes, sizeof(bytes)) > 0)
		;
}

/* One round; gives the ms until the next one, if nothing happens. */
static int64
work(KafkaSink *k)
{
	int64		pause = k->again_at - kda_monotonic_ms();
	bool		failed,
				mark_asked;
	KdaSinkMark mark;

	if (k->rk)
	{
		kda_kafka_token_apply(k->token, k->rk, &k->token_given);
		rd_kafka_poll(k->rk, 0);
	}
	if (pause > 0)
		return Min(pause, WAIT_MS);
	pthread_mutex_lock(&k->mutex);
	failed = k->failed;
	mark_asked = k->mark_asked;
	mark = k->mark_again;
	pthread_mutex_unlock(&k->mutex);
	if (failed)
		return WAIT_MS;
	if (!k->connected)
	{
		connect_producer(k);
		return 0;
	}
	if (!k->exactly_once)
	{
		return kda_kafka_sink_pump(k) ? 0 : WAIT_MS;
	}
	if (k->nwork > 0)
		kda_kafka_sink_send_once(k, k->work[0]);
	else if (mark_asked)
		kda_kafka_sink_write_mark(k, &mark);
	else
		return WAIT_MS;
	return 0;
}

void *
kda_kafka_sink_helper(void *arg)
{
	KafkaSink  *k = arg;
	bool		closed;

	while (!kda_kafka_sink_stops(k))
	{
		take_incoming(k);
		wait_for_work(k, work(k));
	}
	if (k->exactly_once)
		kda_kafka_sink_give_up(k);
	k->nwork = 0;
	kda_kafka_sink_drop(k);
	kda_thread_ends();
	pthread_mutex_lock(&k->mutex);
	k->finished = true;
	closed = k->closed;
	pthread_cond_signal(&k->to_main);
	pthread_mutex_unlock(&k->mutex);
	if (closed)
		kda_kafka_sink_free(k);
	return NULL;
}
