/*-------------------------------------------------------------------------
 *
 * kafka_sink_once.c
 *	  Exactly once: one Kafka transaction for each batch, with its mark.
 *
 * The mark is the offset that a group named after the output has committed for
 * the topic's partition 0: the number of the batch's last record, with
 * timeline, LSN and number as the offset's metadata.  Nobody ever joins that
 * group.
 *
 * A commit may end without anybody knowing how.  Then a new producer is made,
 * which fences the old one and makes the broker finish what it has begun; after
 * that the group's mark says whether the batch is in.  A mark that is neither
 * the batch's nor the one before is another process's.
 *
 * Everything here runs on the helper thread.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/kafka_sink_internal.h"
#include "connector/threads.h"

#include <stdlib.h>

#define READ_AT_ONCE	256		/* records given to the library before a look whether the sink is being closed */
#define FULL_MS			10		/* the library's queue is full */
#define FIRST_PAUSE_MS	100
#define SLOW_MS			5000
#define TIMEOUT_SLACK_MS 1000	/* a coordinator counts from a moment later than ours */

static bool
is_same(const KdaSinkMark *a, const KdaSinkMark *b)
{
	return a->timeline == b->timeline && a->lsn == b->lsn && a->number == b->number;
}

/*---- the mark */

static rd_kafka_topic_partition_list_t *
mark_list(KafkaSink *k)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);

	rd_kafka_topic_partition_list_add(list, k->topic_name, 0);
	return list;
}

/* "kda 1 0/16B3740 20000"; what is written otherwise is none. */
static bool
parse_mark(const rd_kafka_topic_partition_t *p, KdaSinkMark *mark)
{
	char		text[100];
	unsigned int timeline,
				hi,
				lo;
	long long	number;
	int			end = 0;

	if (p->metadata == NULL || p->metadata_size == 0 || p->metadata_size >= sizeof(text))
		return false;
	memcpy(text, p->metadata, p->metadata_size);
	text[p->metadata_size] = '\0';
	if (sscanf(text, "kda %u %X/%X %lld%n", &timeline, &hi, &lo, &number, &end) != 4 || text[end] != '\0' ||
		number != p->offset)
		return false;
	mark->timeline = timeline;
	mark->lsn = ((uint64) hi << 32) | lo;
	mark->number = number;
	return true;
}

bool
kda_kafka_sink_read_mark(KafkaSink *k, bool *has, KdaSinkMark *mark)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_dup(k->mark_conf);
	char		why[512];
	uint64		given = 0;
	rd_kafka_t *consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_resp_err_t err;

	if (consumer == NULL)
	{
		rd_kafka_conf_destroy(conf);
		kda_kafka_sink_trouble(k, "%s", why);
		return false;
	}
	kda_kafka_token_apply(k->token, consumer, &given);
	rd_kafka_poll_set_consumer(consumer);
	list = mark_list(k);
	/* two connections have to be made first */
	err = rd_kafka_committed(consumer, list, 5 * KAFKA_SINK_CALL_MS);
	if (!err)
		err = list->elems[0].err;
	*has = !err && list->elems[0].offset >= 0 && parse_mark(&list->elems[0], mark);
	if (err)
	{
		/* a call that has timed out does not know why */
		rd_kafka_message_t *m = rd_kafka_consumer_poll(consumer, 0);

		if (m && m->err)
			strlcpy(k->reason, rd_kafka_message_errstr(m), sizeof(k->reason));
		kda_kafka_sink_trouble(k, "cannot read what consumer group \"%s\" has committed: %s", k->identity,
							   kda_kafka_sink_why(k, err, NULL));
		if (m)
			rd_kafka_message_destroy(m);
	}
	rd_kafka_topic_partition_list_destroy(list);
	rd_kafka_destroy_flags(consumer, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	return !err;
}

bool
kda_kafka_sink_settle(KafkaSink *k, bool has, const KdaSinkMark *found)
{
	if (k->unsure && has && is_same(found, &k->unsure_of))
	{
		/* it is in */
		if (k->nwork > 0 && is_same(&k->work[0]->mark, found))
			kda_kafka_sink_done(k);
		k->unsure = false;
		return true;
	}
	k->unsure = false;
	if (has ? k->has_at && is_same(found, &k->at) : !k->has_at)
		return true;
	if (!has)
	{
		/* with its topic, as good as always: what was sent there has gone, too */
		pthread_mutex_lock(&k->mutex);
		k->missing = true;
		pthread_mutex_unlock(&k->mutex);
		return true;
	}
	kda_kafka_sink_fail(k, "another process delivers as \"%s\": it has come to number " INT64_FORMAT " of timeline %u where this one had come to number " INT64_FORMAT " of timeline %u",
						k->identity, found->number, found->timeline, k->has_at ? k->at.number : 0, k->has_at ? k->at.timeline : 0);
	return false;
}

/*---- ends of transactions */

typedef enum Outcome
{
	FINE,
	ABORT,						/* give the transaction up and do it again */
	ANEW						/* with a new producer, which finds out */
} Outcome;

static bool
was_fenced(KafkaSink *k, rd_kafka_resp_err_t err)
{
	char		why[256];
	rd_kafka_resp_err_t fatal = rd_kafka_fatal_error(k->rk, why, sizeof(why));

	return err == RD_KAFKA_RESP_ERR__FENCED || err == RD_KAFKA_RESP_ERR_PRODUCER_FENCED ||
		err == RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH ||
		fatal == RD_KAFKA_RESP_ERR__FENCED || fatal == RD_KAFKA_RESP_ERR_PRODUCER_FENCED ||
		fatal == RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
}

/* Judges an error that cannot be tried again as it is; destroys it. */
static Outcome
judge(KafkaSink *k, rd_kafka_error_t *error)
{
	rd_kafka_resp_err_t err = rd_kafka_error_code(error);
	Outcome		outcome = ANEW;
	char		why[256];

	rd_kafka_poll(k->rk, 0);
	if (rd_kafka_error_txn_requires_abort(error))
		outcome = ABORT;
	else if (was_fenced(k, err) && kda_monotonic_ms() - k->begun_at < k->transaction_timeout_ms - TIMEOUT_SLACK_MS)
	{
		/* a transaction that lasted too long is fenced by the broker itself */
		kda_kafka_sink_fail(k, "another process delivers as \"%s\" and has taken over: only one may, so this one has stopped", k->identity);
		rd_kafka_error_destroy(error);
		return ANEW;
	}
	/* of its records the trouble is told when they have been looked at */
	if (outcome == ANEW && rd_kafka_fatal_error(k->rk, why, sizeof(why)))
		kda_kafka_sink_trouble(k, "%s", why);
	else if (outcome == ANEW || !k->broken)
		kda_kafka_sink_trouble(k, "%s", kda_kafka_sink_why(k, err, rd_kafka_error_string(error)));
	rd_kafka_error_destroy(error);
	return outcome;
}

/* A call with a time limit has ended with an error: true, it may be made again. */
static bool
may_go_on(KafkaSink *k, rd_kafka_error_t *error)
{
	if (!rd_kafka_error_is_retriable(error) || kda_kafka_sink_stops(k))
		return false;
	kda_kafka_token_apply(k->token, k->rk, &k->token_given);
	rd_kafka_poll(k->rk, rd_kafka_error_code(error) == RD_KAFKA_RESP_ERR__TIMED_OUT ? 0 : FIRST_PAUSE_MS);
	/* a great batch takes its time */
	if (k->reason[0] || kda_monotonic_ms() - k->begun_at > SLOW_MS)
		kda_kafka_sink_note(k, "%s", kda_kafka_sink_why(k, rd_kafka_error_code(error), rd_kafka_error_string(error)));
	rd_kafka_error_destroy(error);
	return true;
}

static Outcome
begin(KafkaSink *k)
{
	rd_kafka_error_t *error = rd_kafka_begin_transaction(k->rk);

	k->begun_at = kda_monotonic_ms();
	k->broken = false;
	if (error)
		return judge(k, error);
	k->in_transaction = true;
	return FINE;
}

static Outcome
give_mark(KafkaSink *k, const KdaSinkMark *mark)
{
	rd_kafka_consumer_group_metadata_t *group = rd_kafka_consumer_group_metadata_new(k->identity);
	rd_kafka_topic_partition_list_t *list = mark_list(k);
	rd_kafka_error_t *error;
	char		text[100];

	snprintf(text, sizeof(text), "kda %u %X/%X " INT64_FORMAT, mark->timeline, LSN_FORMAT_ARGS(mark->lsn), mark->number);
	list->elems[0].offset = mark->number;
	list->elems[0].metadata = strdup(text); /* the list's */
	list->elems[0].metadata_size = strlen(text);
	if (list->elems[0].metadata == NULL)
	{
		/* an offset alone would be no mark */
		rd_kafka_topic_partition_list_destroy(list);
		rd_kafka_consumer_group_metadata_destroy(group);
		kda_kafka_sink_trouble(k, "out of memory");
		return ABORT;
	}
	do
	{
		error = rd_kafka_send_offsets_to_transaction(k->rk, list, group, KAFKA_SINK_CALL_MS);
		if (error && rd_kafka_error_code(error) == RD_KAFKA_RESP_ERR__STATE)
		{
			/* the transaction has failed meanwhile; the same call says why before it does anything */
			rd_kafka_error_destroy(error);
			error = rd_kafka_send_offsets_to_transaction(k->rk, list, group, KAFKA_SINK_CALL_MS);
		}
	} while (error && may_go_on(k, error));
	rd_kafka_topic_partition_list_destroy(list);
	rd_kafka_consumer_group_metadata_destroy(group);
	return error ? judge(k, error) : FINE;
}

static Outcome
commit(KafkaSink *k, const KdaSinkMark *mark)
{
	rd_kafka_error_t *error;

	k->unsure = true;
	k->unsure_of = *mark;
	do
		error = rd_kafka_commit_transaction(k->rk, KAFKA_SINK_CALL_MS);
	while (error && may_go_on(k, error));
	if (error)
	{
		Outcome		outcome = judge(k, error);

		/* what has to be aborted was not committed */
		k->unsure = outcome != ABORT;
		return outcome;
	}
	k->unsure = k->in_transaction = false;
	k->has_at = true;
	k->at = *mark;
	pthread_mutex_lock(&k->mutex);
	k->marks_written++;
	k->mark_asked = false;
	pthread_mutex_unlock(&k->mutex);
	return FINE;
}

/* False: a new producer is needed. */
static bool
give_up(KafkaSink *k)
{
	rd_kafka_error_t *error;

	do
		error = rd_kafka_abort_transaction(k->rk, KAFKA_SINK_CALL_MS);
	while (error && may_go_on(k, error));
	k->in_transaction = false;
	if (error == NULL)
		return true;
	(void) judge(k, error);
	return false;
}

void
kda_kafka_sink_give_up(KafkaSink *k)
{
	/* readers of the topic would wait for the end of what was begun */
	if (k->rk && k->in_transaction && !rd_kafka_fatal_error(k->rk, NULL, 0))
	{
		rd_kafka_error_t *error = rd_kafka_abort_transaction(k->rk, KAFKA_SINK_CALL_MS);

		if (error)
			rd_kafka_error_destroy(error);
	}
}

/*---- batches */

/*
 * Gives the library all records that are not refused, or only the suspects.
 * False: it takes no more, or the sink is being closed.
 */
static bool
give_records(KafkaSink *k, KafkaDelivery *d, bool suspects)
{
	int			i = 0;

	while (i < d->n)
	{
		rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;
		int			end = Min(d->n, i + READ_AT_ONCE);

		if (!kda_kafka_sink_begin_reading(k))
			return false;
		for (; i < end; i++)
		{
			if (d->state[i] == KAFKA_REFUSED || (suspects && d->state[i] != KAFKA_SUSPECT))
				continue;
			err = kda_kafka_sink_produce(k, d, i);
			if (err && d->state[i] != KAFKA_REFUSED)
				break;
			err = RD_KAFKA_RESP_ERR_NO_ERROR;
		}
		kda_kafka_sink_end_reading(k);
		rd_kafka_poll(k->rk, err == RD_KAFKA_RESP_ERR__QUEUE_FULL ? FULL_MS : 0);
		if (k->broken || (err && err != RD_KAFKA_RESP_ERR__QUEUE_FULL))
		{
			if (err && !k->broken)
				strlcpy(k->reason, rd_kafka_err2str(err), sizeof(k->reason));
			k->broken = true;
			return false;
		}
	}
	return true;
}

/*
 * Some records were in a request that was refused.  A transaction that is never
 * committed sends each of them alone, to see which ones it is.
 */
static void
probe(KafkaSink *k, KafkaDelivery *d)
{
	int			suspects = d->nsuspects;

	if (!k->probing)
	{
		k->probing = true;
		k->probe_refused = false;
		kda_kafka_sink_drop(k);
		return;
	}
	if (begin(k) != FINE)
	{
		kda_kafka_sink_drop(k);
		return;
	}
	if (give_records(k, d, true))
		while (!k->broken && d->nsuspects > 0 && !kda_kafka_sink_stops(k) &&
			   kda_monotonic_ms() - k->begun_at < k->transaction_timeout_ms / 2)
			(void) rd_kafka_flush(k->rk, 100);
	if (!give_up(k) || d->nsuspects == suspects)
	{
		if (d->nsuspects == suspects)
			kda_kafka_sink_trouble(k, "%s", k->reason[0] ? k->reason : "the broker does not answer");
		kda_kafka_sink_drop(k);
	}
	if (d->nsuspects > 0)
		return;					/* the next round goes on with the rest */
	kda_kafka_sink_after_probe(k, k->probe_refused);
	k->probing = false;
	kda_kafka_sink_drop(k);
}

/* The transaction was given up. */
static void
look_at_records(KafkaSink *k, KafkaDelivery *d)
{
	if (d->nsuspects == 1)
	{
		/* it was alone in its request */
		for (int i = 0; i < d->n; i++)
			if (d->state[i] == KAFKA_SUSPECT)
				kda_kafka_sink_refuse(k, d, i, rd_kafka_err2str(k->suspicion));
	}
	else if (d->nsuspects > 1)
		;						/* probe() comes next */
	else if (k->broken)
	{
		kda_kafka_sink_trouble(k, "%s", k->reason[0] ? k->reason : "records were not delivered");
		/* is its topic still there? */
		k->connected = false;
	}
}

void
kda_kafka_sink_send_once(KafkaSink *k, KafkaDelivery *d)
{
	Outcome		outcome;

	if (d->nsuspects > 0)
	{
		probe(k, d);
		return;
	}
	for (int i = 0; i < d->n; i++)
		if (d->state[i] != KAFKA_REFUSED)
			d->state[i] = KAFKA_WAITING;
	outcome = begin(k);
	if (outcome == FINE && !give_records(k, d, false))
	{
		if (kda_kafka_sink_stops(k))
			return;
		outcome = ABORT;
	}
	if (outcome == FINE)
		outcome = give_mark(k, &d->mark);
	if (outcome == FINE)
		outcome = commit(k, &d->mark);
	if (kda_kafka_sink_stops(k))
		return;
	switch (outcome)
	{
		case FINE:
			kda_kafka_sink_clear_trouble(k);
			kda_kafka_sink_done(k);
			break;
		case ABORT:
			if (give_up(k))
				look_at_records(k, d);
			else
			{
				look_at_records(k, d);
				kda_kafka_sink_drop(k);
			}
			break;
		case ANEW:
			kda_kafka_sink_drop(k);
			break;
	}
}

void
kda_kafka_sink_write_mark(KafkaSink *k, const KdaSinkMark *mark)
{
	Outcome		outcome = begin(k);

	if (outcome == FINE)
		outcome = give_mark(k, mark);
	if (outcome == FINE)
		outcome = commit(k, mark);
	if (outcome == ANEW || (outcome == ABORT && !give_up(k)))
		kda_kafka_sink_drop(k);
	else if (outcome == FINE)
		kda_kafka_sink_clear_trouble(k);
}
