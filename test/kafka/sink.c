/*-------------------------------------------------------------------------
 *
 * sink.c
 *	  The Kafka sink outside of a server, for test_kafka_sink.py: this program
 *	  is the deliver worker.  Commands, one a line, text in the fields of
 *	  fields.h:
 *
 *		option name value                   of the server
 *		open topic identity once timeline lsn number retry_max_ms
 *		record key value headers time       for the next batch; time: us since 2000, "-": none
 *		count first n                       the same for n records {"n": number}, key number % 100
 *		send first timeline lsn             the batch, numbered from first on
 *		state    -> ready has_mark timeline lsn number missing retries failed under_way error
 *		done     -> number, refused ones of the first batch that is done: n [index why]...; "-": none is
 *		clock s                             the time goes on by so much
 *		keys region id secret token         with sasl.mechanisms AWS_MSK_IAM: from now on
 *		token unix_seconds -> the token that they give at that time
 *		close ms -> "closed" and how long it took in ms
 *
 *-------------------------------------------------------------------------
 */
#include "server.h"

#include "../aws/fields.h"

#define MAX_FIELDS 16
#define MAX_BATCHES 64
#define MAX_RECORDS 200000

/*---- tokens */

static void
show_token(int64 unix_seconds)
{
	KdaKafkaToken *token = kda_kafka_token_new();

	if (!kda_kafka_token_make(token, region, &keys, unix_seconds))
		abort();
	show_text(&token->text, '\n');
	kda_kafka_token_free(token);
}

/*---- batches */

static KdaSink *sink;
static KdaSealedBatch *batches[MAX_BATCHES];
static int	nbatches;
static KdaOutRecord *records;
static int	nrecords;

static KdaOutRecord *
new_record(void)
{
	if (records == NULL)
		records = calloc(MAX_RECORDS, sizeof(KdaOutRecord));
	records[nrecords].time = KDA_NO_TIME;
	return &records[nrecords++];
}

static void
count_records(int64 first, int n)
{
	for (int64 number = first; number < first + n; number++)
	{
		KdaOutRecord *r = new_record();
		char		text[64];

		r->key_len = snprintf(text, sizeof(text), "%d", (int) (number % 100));
		r->key = strdup(text);
		r->len = snprintf(text, sizeof(text), "{\"n\": %lld}", (long long) number);
		r->value = strdup(text);
	}
}

static void
send_batch(int64 first, TimeLineID timeline, XLogRecPtr lsn)
{
	KdaSealedBatch *b = calloc(1, sizeof(KdaSealedBatch));

	b->first = first;
	b->n = nrecords;
	b->records = records;
	b->mark.timeline = timeline;
	b->mark.lsn = lsn;
	b->mark.number = first + nrecords - 1;
	records = NULL;
	nrecords = 0;
	batches[nbatches++] = b;
	sink->ops->send(sink, b);
}

static void
free_batch(KdaSealedBatch *b)
{
	for (int i = 0; i < b->n; i++)
	{
		free(unconstify(char *, b->records[i].key));
		free(unconstify(char *, b->records[i].value));
		free(unconstify(char *, b->records[i].headers));
	}
	free(b->records);
	free(b);
}

static void
show_done(void)
{
	KdaSealedBatch *b = nbatches > 0 ? batches[0] : NULL;
	int			n = 0;

	sink->ops->service(sink);
	for (int i = 1; i < nbatches; i++)
		if (batches[i]->done && !batches[i - 1]->done)
			abort();
	if (b == NULL || !b->done)
	{
		printf("-\n");
		return;
	}
	for (int i = 0; i < b->n; i++)
		n += b->records[i].refused != NULL;
	printf("%lld %d ", (long long) b->mark.number, n);
	for (int i = 0; i < b->n; i++)
		if (b->records[i].refused)
		{
			printf("%d ", i);
			show_field(b->records[i].refused, strlen(b->records[i].refused), ' ');
		}
	printf("\n");
	sink->ops->release(sink, b);
	memmove(&batches[0], &batches[1], sizeof(batches[0]) * --nbatches);
	free_batch(b);
}

static void
show_state(void)
{
	int			under_way = 0;

	sink->ops->service(sink);
	for (int i = 0; i < nbatches; i++)
		under_way += !batches[i]->done;
	printf("%d %d %u %llu %lld %d %lld %d %d ", sink->ready, sink->has_mark, sink->found_mark.timeline,
		   (unsigned long long) sink->found_mark.lsn, (long long) sink->found_mark.number, sink->marks_missing,
		   (long long) sink->retries, sink->failed, under_way);
	show_field(sink->error, strlen(sink->error), '\n');
}

static void
close_sink(int deadline_ms)
{
	int64		begun = kda_monotonic_ms();

	sink->ops->close(sink, deadline_ms);
	sink = NULL;
	/* whatever is under way: its records are gone */
	for (int i = 0; i < nbatches; i++)
		free_batch(batches[i]);
	nbatches = 0;
	printf("closed %d\n", (int) (kda_monotonic_ms() - begun));
}

int
main(void)
{
	char	   *line = NULL;
	size_t		room = 0;
	int			pipe_fds[2];

	make_pipe(pipe_fds);
	while (getline(&line, &room, stdin) > 0)
	{
		char	   *fields[MAX_FIELDS];
		int			n = 0;
		size_t		len;

		for (char *f = strtok(line, " \n"); f && n < MAX_FIELDS; f = strtok(NULL, " \n"))
			fields[n++] = f;
		if (strcmp(fields[0], "option") == 0)
			add_option(decode_field(fields[1], &len), decode_field(fields[2], &len));
		else if (strcmp(fields[0], "open") == 0)
		{
			KdaSinkConfig config = {
				.output_name = "o",
				.topic = decode_field(fields[1], &len),
				.identity = decode_field(fields[2], &len),
				.exactly_once = atoi(fields[3]),
				.delivered.timeline = atoi(fields[4]),
				.delivered.lsn = strtoull(fields[5], NULL, 10),
				.delivered.number = atoll(fields[6]),
				.retry_max_ms = atoi(fields[7]),
				.ordered = true,
				.server_options = &options.list,
				.wake_fd = pipe_fds[1],
			};

			sink = kda_kafka_sink_ops.open(&config);
			free(unconstify(char *, config.topic));
			free(unconstify(char *, config.identity));
		}
		else if (strcmp(fields[0], "record") == 0)
		{
			KdaOutRecord *r = new_record();

			r->key = decode_field(fields[1], &len);
			r->key_len = len;
			r->value = decode_field(fields[2], &len);
			r->len = len;
			r->headers = decode_field(fields[3], &len);
			if (strcmp(fields[4], "-") != 0)
				r->time = atoll(fields[4]);
		}
		else if (strcmp(fields[0], "count") == 0)
			count_records(atoll(fields[1]), atoi(fields[2]));
		else if (strcmp(fields[0], "send") == 0)
			send_batch(atoll(fields[1]), atoi(fields[2]), strtoull(fields[3], NULL, 10));
		else if (strcmp(fields[0], "state") == 0)
			show_state();
		else if (strcmp(fields[0], "done") == 0)
			show_done();
		else if (strcmp(fields[0], "clock") == 0)
			clock_ahead_us += atoll(fields[1]) * USECS_PER_SEC;
		else if (strcmp(fields[0], "keys") == 0)
		{
			free_keys();
			region = decode_field(fields[1], &len);
			keys.access_key_id = decode_field(fields[2], &len);
			keys.secret_access_key = decode_field(fields[3], &len);
			keys.session_token = decode_field(fields[4], &len);
			keys_are_new = true;
		}
		else if (strcmp(fields[0], "token") == 0)
			show_token(atoll(fields[1]));
		else if (strcmp(fields[0], "close") == 0)
			close_sink(atoi(fields[1]));
		else
			abort();
		fflush(stdout);
	}
	free(line);
	free_keys();
	return 0;
}
