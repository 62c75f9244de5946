/*-------------------------------------------------------------------------
 *
 * kafka_sink_least.c
 *	  At least once: an idempotent producer with several batches under way.
 *
 * The library keeps the order of a partition as long as nothing fails for
 * good.  Whatever does makes the producer useless ("gapless"): a new one sends
 * again, in order, what was not acknowledged.
 *
 * Everything here runs on the helper thread.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/kafka_sink_internal.h"
#include "connector/threads.h"

#define READ_AT_ONCE	256

static int
count_suspects(KafkaSink *k)
{
	int			n = 0;

	for (int i = 0; i < k->nwork; i++)
		n += k->work[i]->nsuspects;
	return n;
}

/*
 * Gives the library what it takes now; records with suspects among them go one
 * by one, and nothing behind the last suspect.  True: it has taken all.
 */
static bool
give_records(KafkaSink *k)
{
	int			suspects = count_suspects(k);
	bool		full = false;

	for (int w = 0; w < k->nwork && !full; w++)
	{
		KafkaDelivery *d = k->work[w];

		while (d->sent < d->n && !full && !k->broken)
		{
			int			end = Min(d->n, d->sent + READ_AT_ONCE);

			if (k->probing && suspects == 0)
				return true;
			if (!kda_kafka_sink_begin_reading(k))
				return true;
			for (; d->sent < end; d->sent++)
			{
				uint8	   *state = &d->state[d->sent];
				rd_kafka_resp_err_t err;

				if (*state == KAFKA_FINE || *state == KAFKA_REFUSED)
					continue;
				err = kda_kafka_sink_produce(k, d, d->sent);
				if (*state == KAFKA_REFUSED)
					continue;
				if (err)
				{
					full = true;
					if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL)
					{
						strlcpy(k->reason, rd_kafka_err2str(err), sizeof(k->reason));
						k->broken = true;
					}
					break;
				}
				if (*state == KAFKA_SUSPECT)
					suspects--;
				else
					*state = KAFKA_SENT;
			}
			kda_kafka_sink_end_reading(k);
		}
	}
	return !full;
}

/* A new producer begins with the first record that was not acknowledged. */
static void
start_over(KafkaSink *k, bool pause)
{
	char		why[256];
	rd_kafka_resp_err_t fatal = rd_kafka_fatal_error(k->rk, why, sizeof(why));

	if (pause)
		kda_kafka_sink_trouble(k, "%s", k->reason[0] ? k->reason : fatal ? why : "records were not delivered");
	kda_kafka_sink_drop(k);
	for (int w = 0; w < k->nwork; w++)
	{
		KafkaDelivery *d = k->work[w];

		d->sent = 0;
		for (int i = 0; i < d->n; i++)
			if (d->state[i] == KAFKA_SENT)
				d->state[i] = KAFKA_WAITING;
	}
}

bool
kda_kafka_sink_pump(KafkaSink *k)
{
	int			suspects;
	bool		all,
				progress;

	if (!k->probing && count_suspects(k) > 0)
	{
		k->probing = true;
		k->probe_refused = false;
		start_over(k, false);
		return true;
	}
	all = give_records(k);
	rd_kafka_poll(k->rk, 0);
	while (k->nwork > 0 && k->work[0]->undone == 0)
		kda_kafka_sink_done(k);
	progress = k->acknowledged != k->acknowledged_seen;
	k->acknowledged_seen = k->acknowledged;
	if (progress)
		kda_kafka_sink_clear_trouble(k);
	else if (k->nwork > 0 && k->reason[0])
	{
		kda_kafka_sink_note(k, "%s", k->reason);
		k->reason[0] = '\0';
	}
	suspects = count_suspects(k);
	if (k->probing && suspects == 0)
	{
		kda_kafka_sink_after_probe(k, k->probe_refused);
		k->probing = false;
		start_over(k, false);
		return true;
	}
	if (k->broken || rd_kafka_fatal_error(k->rk, NULL, 0))
	{
		/* what is refused alone, or will be sent alone, is no reason to wait */
		start_over(k, suspects == 0 && !progress);
		return true;
	}
	/* room that acknowledgements have made is told by no further ones */
	return !all && progress;
}
