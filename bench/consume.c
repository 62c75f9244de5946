/*-------------------------------------------------------------------------
 *
 * consume.c
 *	  What the extension is measured against: bare C, no database.
 *
 *		consume SERVERS TOPIC PARTITIONS EVENTS			only consumes
 *		consume SERVERS TOPIC PARTITIONS EVENTS FILE	and counts: events and sum of value by
 *														minute, country and action, into FILE
 *
 * librdkafka gives messages of all partitions in batches, yyjson decodes them
 * whole, an open hash table holds the groups.  Prints wall seconds and CPU
 * seconds of the process with its library's threads.
 *
 *-------------------------------------------------------------------------
 */
#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "yyjson.h"

#define BATCH	10000

typedef struct Group
{
	int64_t		minute;			/* 0: free */
	char		country[16];
	char		action[24];
	int64_t		count;
	int64_t		sum;
} Group;

static Group *groups;
static uint64_t room = 1024;
static uint64_t used = 0;
static char decode_memory[65536];
static yyjson_alc allocator;

static void
die(const char *what)
{
	fprintf(stderr, "consume: %s\n", what);
	exit(1);
}

/*---- groups */

static inline uint64_t
hash_bytes(uint64_t h, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char) p[i]) * 0x100000001b3ULL;
	return h;
}

static Group *
find(int64_t minute, const char *country, size_t country_len, const char *action, size_t action_len)
{
	uint64_t	h = hash_bytes(hash_bytes((uint64_t) minute * 0x9e3779b97f4a7c15ULL, country, country_len), action, action_len);

	for (uint64_t at = (h ^ h >> 32) & (room - 1);; at = (at + 1) & (room - 1))
	{
		Group	   *g = &groups[at];

		if (g->minute == 0)
		{
			if (country_len >= sizeof(g->country) || action_len >= sizeof(g->action))
				die("a key is too long");
			g->minute = minute;
			memcpy(g->country, country, country_len + 1);
			memcpy(g->action, action, action_len + 1);
			used++;
			return g;
		}
		if (g->minute == minute && memcmp(g->country, country, country_len + 1) == 0 &&
			memcmp(g->action, action, action_len + 1) == 0)
			return g;
	}
}

static void
grow(void)
{
	Group	   *old = groups;
	uint64_t	n = room;

	room *= 2;
	used = 0;
	groups = calloc(room, sizeof(Group));
	for (uint64_t i = 0; i < n; i++)
		if (old[i].minute)
		{
			Group	   *g = find(old[i].minute, old[i].country, strlen(old[i].country), old[i].action, strlen(old[i].action));

			g->count = old[i].count;
			g->sum = old[i].sum;
		}
	free(old);
}

/*---- events */

/* Minutes since 1970 of YYYY-MM-DDTHH:MM:SSZ; 0: not of that form. */
static int64_t
minute_of(const char *p, size_t len)
{
	static const char form[] = "0000-00-00T00:00:00Z";
	int			y,
				m,
				d;

	if (len != sizeof(form) - 1)
		return 0;
	for (size_t i = 0; i < len; i++)
		if (form[i] == '0' ? p[i] < '0' || p[i] > '9' : p[i] != form[i])
			return 0;
#define TWO(i) ((p[i] - '0') * 10 + p[(i) + 1] - '0')
	y = TWO(0) * 100 + TWO(2);
	m = TWO(5);
	d = TWO(8);
	/* days from 1970-01-01, the year beginning in March */
	if (m <= 2)
	{
		y--;
		m += 12;
	}
	return (((int64_t) y * 365 + y / 4 - y / 100 + y / 400 + (153 * (m - 3) + 2) / 5 + d - 719469) * 24 + TWO(11)) * 60 + TWO(14);
}

static void
count_event(const char *data, size_t len)
{
	yyjson_doc *doc = yyjson_read_opts((char *) data, len, 0, &allocator, NULL);
	yyjson_val *root = yyjson_doc_get_root(doc);
	yyjson_val *time = yyjson_obj_get(root, "timestamp");
	yyjson_val *country = yyjson_obj_get(root, "country");
	yyjson_val *action = yyjson_obj_get(root, "action");
	yyjson_val *value = yyjson_obj_get(root, "value");
	int64_t		minute;
	Group	   *g;

	if (!yyjson_is_str(time) || !yyjson_is_str(country) || !yyjson_is_str(action) || !yyjson_is_int(value))
		die("an event is not as expected");
	minute = minute_of(yyjson_get_str(time), yyjson_get_len(time));
	if (minute == 0)
		die("a time is not as expected");
	if (used * 2 >= room)
		grow();
	g = find(minute, yyjson_get_str(country), yyjson_get_len(country), yyjson_get_str(action), yyjson_get_len(action));
	g->count++;
	g->sum += yyjson_get_sint(value);
	yyjson_doc_free(doc);
}

static void
write_groups(const char *path)
{
	FILE	   *f = fopen(path, "w");

	if (f == NULL)
		die("cannot write the result");
	for (uint64_t i = 0; i < room; i++)
		if (groups[i].minute)
			fprintf(f, "%lld,%s,%s,%lld,%lld\n", (long long) groups[i].minute, groups[i].country, groups[i].action,
					(long long) groups[i].count, (long long) groups[i].sum);
	fclose(f);
}

/*---- all of it */

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		why[256];

	if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK)
		die(why);
}

static double
seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int
main(int argc, char **argv)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	rd_kafka_topic_t *topic;
	rd_kafka_queue_t *queue;
	static rd_kafka_message_t *messages[BATCH];
	char		why[256];
	int			partitions;
	int64_t		events;
	int64_t		seen = 0;
	const char *path;
	double		wall,
				cpu;

	if (argc < 5)
	{
		fprintf(stderr, "usage: consume SERVERS TOPIC PARTITIONS EVENTS [FILE]\n");
		return 2;
	}
	partitions = atoi(argv[3]);
	events = atoll(argv[4]);
	path = argc > 5 ? argv[5] : NULL;
	groups = calloc(room, sizeof(Group));
	yyjson_alc_pool_init(&allocator, decode_memory, sizeof(decode_memory));

	set(conf, "bootstrap.servers", argv[1]);
	/* these are the extension's own settings, see README.md */
	set(conf, "queued.min.messages", getenv("QUEUED_MIN_MESSAGES") ? getenv("QUEUED_MIN_MESSAGES") : "100000");
	set(conf, "socket.nagle.disable", "true");
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
	if (rk == NULL)
		die(why);
	topic = rd_kafka_topic_new(rk, argv[2], NULL);
	queue = rd_kafka_queue_new(rk);
	for (int p = 0; p < partitions; p++)
		if (rd_kafka_consume_start_queue(topic, p, RD_KAFKA_OFFSET_BEGINNING, queue) != 0)
			die("cannot read a partition");

	wall = cpu = 0;
	while (seen < events)
	{
		ssize_t		n = rd_kafka_consume_batch_queue(queue, 1000, messages, BATCH);

		if (n < 0)
			die("cannot consume");
		for (ssize_t i = 0; i < n; i++)
		{
			rd_kafka_message_t *m = messages[i];

			if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR)
			{
				/* without the time that it takes to connect */
				if (seen++ == 0)
					wall = seconds(CLOCK_MONOTONIC);
				if (path)
					count_event(m->payload, m->len);
			}
			rd_kafka_message_destroy(m);
		}
	}
	wall = seconds(CLOCK_MONOTONIC) - wall;
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
	printf("%.3f %.3f\n", wall, cpu);
	if (path)
		write_groups(path);
	/* the process ends: nothing is to be gained by an orderly farewell */
	fflush(stdout);
	_exit(0);
}
