/*-------------------------------------------------------------------------
 *
 * sink.c
 *	  How much CPU the Kafka sink takes, beside librdkafka alone.
 *
 *		sink raw|least|once SERVERS TOPIC ROWS
 *
 * Rows are JSON of 100 bytes with a key of 8, made before the clock starts.
 * "raw" gives them to rd_kafka_produce() as they are, without keeping count;
 * "least" and "once" are src/connector's sink, with sealed batches of 20,000.
 * Prints rows per CPU second of the whole process, and wall seconds.
 *
 *-------------------------------------------------------------------------
 */
#include "../test/kafka/server.h"

#include <poll.h>
#include <stdio.h>
#include <sys/resource.h>

#define BATCH	20000
#define DISTINCT 100000			/* rows that are made; they come again and again */
#define ROW_SIZE 112

static char *rows;
static int	key_len[DISTINCT],
			row_len[DISTINCT];

#define key_of(i) (rows + (size_t) ((i) % DISTINCT) * (ROW_SIZE + 16))
#define row_of(i) (key_of(i) + 16)

static double
cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void
make_rows(void)
{
	rows = malloc((size_t) DISTINCT * (ROW_SIZE + 16));
	for (int i = 0; i < DISTINCT; i++)
	{
		key_len[i] = snprintf(key_of(i), 16, "u-%06d", i % 50000);
		row_len[i] = snprintf(row_of(i), ROW_SIZE,
							  "{\"user_id\":\"u-%06d\",\"action\":\"%s\",\"country\":\"%s\",\"window\":\"2026-01-01T10:%02d:00Z\",\"cnt\":%07d}",
							  i % 50000, i % 3 ? "click" : "watch", i % 2 ? "KR" : "US", i % 60, i);
	}
	fprintf(stderr, "a row has %d bytes: %s\n", row_len[0], row_of(0));
}

/* On the library's queue being full or the batches under way too many. */
static void
pause_for(int fd, int ms)
{
	struct pollfd p = {fd, POLLIN, 0};
	char		bytes[256];

	poll(&p, 1, ms);
	while (read(fd, bytes, sizeof(bytes)) > 0)
		;
}

static void
run_raw(const char *servers, const char *name, int64 n)
{
	char		why[256];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	rd_kafka_topic_t *topic;

	rd_kafka_conf_set(conf, "bootstrap.servers", servers, NULL, 0);
	rd_kafka_conf_set(conf, "enable.idempotence", "true", NULL, 0);
	rd_kafka_conf_set(conf, "partitioner", "murmur2_random", NULL, 0);
	rd_kafka_conf_set(conf, "queue.buffering.max.messages", "200000", NULL, 0);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why));
	topic = rd_kafka_topic_new(rk, name, NULL);
	for (int64 i = 0; i < n; i++)
		while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, row_of(i), row_len[i % DISTINCT],
								key_of(i), key_len[i % DISTINCT], NULL) != 0)
			rd_kafka_poll(rk, 10);
	rd_kafka_flush(rk, 120000);
	rd_kafka_topic_destroy(topic);
	rd_kafka_destroy(rk);
}

static void
take_done(KdaSink *sink, KdaSealedBatch **batches, int *first, int next)
{
	sink->ops->service(sink);
	for (; *first < next && batches[*first]->done; ++*first)
	{
		sink->ops->release(sink, batches[*first]);
		free(batches[*first]->records);
		free(batches[*first]);
	}
}

static void
run_sink(bool once, const char *servers, const char *name, int64 n)
{
	int			fds[2];
	int			total = (int) ((n + BATCH - 1) / BATCH);
	KdaSealedBatch **batches = calloc(total, sizeof(KdaSealedBatch *));
	int			first = 0;
	KdaSinkConfig config = {
		.output_name = "bench",.topic = name,.identity = name,.exactly_once = once,.retry_max_ms = 1000,
		.server_options = &options.list,
	};
	KdaSink    *sink;

	if (pipe2(fds, O_NONBLOCK) != 0)
		exit(1);
	config.wake_fd = fds[1];
	add_option("bootstrap.servers", unconstify(char *, servers));
	sink = kda_kafka_sink_ops.open(&config);
	for (int b = 0; b < total; b++)
	{
		KdaSealedBatch *batch = calloc(1, sizeof(KdaSealedBatch));

		batch->first = (int64) b * BATCH + 1;
		batch->n = (int) Min(BATCH, n - (int64) b * BATCH);
		batch->records = calloc(batch->n, sizeof(KdaOutRecord));
		for (int i = 0; i < batch->n; i++)
		{
			KdaOutRecord *r = &batch->records[i];
			int64		row = (int64) b * BATCH + i;

			r->key = key_of(row);
			r->key_len = key_len[row % DISTINCT];
			r->value = row_of(row);
			r->len = row_len[row % DISTINCT];
			r->time = (int64) 800000000 * USECS_PER_SEC + row;
		}
		batch->mark.timeline = 1;
		batch->mark.number = batch->first + batch->n - 1;
		batches[b] = batch;
		for (;;)
		{
			take_done(sink, batches, &first, b);
			if (sink->ready)
				break;
			pause_for(fds[0], 100);
		}
		sink->ops->send(sink, batch);
	}
	while (take_done(sink, batches, &first, total), first < total)
		pause_for(fds[0], 100);
	sink->ops->close(sink, 10000);
	free(batches);
}

int
main(int argc, char **argv)
{
	double		cpu;
	int64		begun;
	int64		n;

	if (argc != 5)
	{
		fprintf(stderr, "usage: sink raw|least|once SERVERS TOPIC ROWS\n");
		return 2;
	}
	n = atoll(argv[4]);
	make_rows();
	cpu = cpu_seconds();
	begun = kda_monotonic_ms();
	if (strcmp(argv[1], "raw") == 0)
		run_raw(argv[2], argv[3], n);
	else
		run_sink(strcmp(argv[1], "once") == 0, argv[2], argv[3], n);
	cpu = cpu_seconds() - cpu;
	printf("%.0f %.2f\n", n / cpu, (kda_monotonic_ms() - begun) / 1000.0);
	return 0;
}
