/*-------------------------------------------------------------------------
 *
 * produce.c
 *	  Writes the events of the benchmark into a topic.
 *
 *		produce SERVERS TOPIC PARTITIONS EVENTS PER_MINUTE [PER_SECOND]
 *
 * Each event is a JSON object of 160 to 230 bytes.  Their times begin at
 * 2025-11-10 and go forward, PER_MINUTE events to a minute, give or take two
 * seconds, so that windows fill and close.  The same arguments give the same
 * events.  With PER_SECOND it writes at that pace and with the time of now.
 *
 *-------------------------------------------------------------------------
 */
#include <librdkafka/rdkafka.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const countries[] = {"KR", "US", "JP", "DE", "BR", "FR", "GB", "IN", "VN", "ID",
"TH", "MX", "CA", "AU", "IT", "ES", "NL", "SE", "PL", "TW"};
static const char *const actions[] = {"click", "view", "purchase", "add_to_cart", "search", "share"};
static const char *const devices[] = {"mobile", "desktop", "tablet"};
static const char *const sources[] = {"newsletter", "search", "social", "banner-left", "affiliate"};

static uint64_t seed = 88172645463325252ULL;

static uint32_t
number_below(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t) ((seed >> 32) * n >> 32);
}

/* Small ones are more frequent. */
static uint32_t
skewed_below(uint32_t n)
{
	uint64_t	r = number_below(65536);

	return (uint32_t) (r * r * n >> 32);
}

#define PICK(array, n) ((array)[n])
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int
make_event(char *buffer, size_t size, time_t time)
{
	static time_t shown = -1;
	static char text[32];

	if (time != shown)
	{
		struct tm	tm;

		gmtime_r(&time, &tm);
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
		shown = time;
	}
	return snprintf(buffer, size,
					"{\"timestamp\":\"%s\",\"user_id\":\"u-%u\",\"action\":\"%s\",\"page\":\"/products/%u?from=%s&campaign=%u\","
					"\"device\":\"%s\",\"country\":\"%s\",\"value\":%u}",
					text, skewed_below(50000), PICK(actions, skewed_below(COUNT(actions))), skewed_below(4000),
					PICK(sources, number_below(COUNT(sources))), 2025000000 + number_below(1000),
					PICK(devices, skewed_below(COUNT(devices))), PICK(countries, skewed_below(COUNT(countries))),
					number_below(10) == 0 ? number_below(1000) : 1);
}

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		why[256];

	if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK)
	{
		fprintf(stderr, "produce: %s\n", why);
		exit(1);
	}
}

static int64_t failures = 0;

static void
delivered(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
	if (message->err)
		failures++;
}

int
main(int argc, char **argv)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	rd_kafka_topic_t *topic;
	char		why[256];
	int			partitions;
	int64_t		events,
				per_minute,
				per_second;
	int64_t		bytes = 0;
	struct timespec begun;

	if (argc < 6)
	{
		fprintf(stderr, "usage: produce SERVERS TOPIC PARTITIONS EVENTS PER_MINUTE [PER_SECOND]\n");
		return 2;
	}
	partitions = atoi(argv[3]);
	events = atoll(argv[4]);
	per_minute = atoll(argv[5]);
	per_second = argc > 6 ? atoll(argv[6]) : 0;
	set(conf, "bootstrap.servers", argv[1]);
	set(conf, "log_level", "3");
	set(conf, "linger.ms", per_second ? "1" : "50");
	set(conf, "batch.size", "500000");
	/* a retried batch stays where it belongs */
	set(conf, "enable.idempotence", "true");
	set(conf, "queue.buffering.max.messages", "1000000");
	rd_kafka_conf_set_dr_msg_cb(conf, delivered);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why));
	if (rk == NULL)
	{
		fprintf(stderr, "produce: %s\n", why);
		return 1;
	}
	topic = rd_kafka_topic_new(rk, argv[2], NULL);
	clock_gettime(CLOCK_MONOTONIC, &begun);

	for (int64_t i = 0; i < events; i++)
	{
		char		event[512];
		time_t		when = 1762732800 + i * 60 / per_minute + (time_t) number_below(5) - 2;
		int			len;

		if (per_second)
		{
			if (i % (per_second / 200 + 1) == 0)
			{
				struct timespec due = begun;
				int64_t		ns = begun.tv_nsec + i % per_second * 1000000000LL / per_second;

				due.tv_sec += i / per_second + ns / 1000000000LL;
				due.tv_nsec = ns % 1000000000LL;
				clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
				rd_kafka_poll(rk, 0);
			}
			when = time(NULL);
		}
		len = make_event(event, sizeof(event), when);
		bytes += len;
		while (rd_kafka_produce(topic, (int32_t) (i % partitions), RD_KAFKA_MSG_F_COPY, event, len, NULL, 0, NULL) != 0)
		{
			if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			{
				fprintf(stderr, "produce: %s\n", rd_kafka_err2str(rd_kafka_last_error()));
				return 1;
			}
			rd_kafka_poll(rk, 50);
		}
		if (i % 1024 == 0)
			rd_kafka_poll(rk, 0);
	}
	if (rd_kafka_flush(rk, 120000) != RD_KAFKA_RESP_ERR_NO_ERROR || failures > 0)
	{
		fprintf(stderr, "produce: not all events have reached the broker\n");
		return 1;
	}
	printf("%.1f\n", (double) bytes / events);
	rd_kafka_topic_destroy(topic);
	rd_kafka_destroy(rk);
	return 0;
}
