/*-------------------------------------------------------------------------
 *
 * kinesis_reply.c
 *	  What Kinesis answers, read outside of a server, for test_kinesis_reply.py
 *	  and bench/.  Commands, one a line, text in the fields of fields.h:
 *
 *		page answer      -> "no"; or "yes iterator behind children", a line "sequence
 *						 key arrival data" for each record, with "/" and a number behind
 *						 the sequence for parts of an aggregate, and "end" or "broken"
 *		shards answer    -> "no", or "yes token n"
 *		summary answer   -> "no", or "yes status created hours"
 *		base64 text      -> "no", or "yes bytes"
 *		hash text        -> "no", or "yes"
 *		speed answer n   -> records, bytes and CPU seconds of reading it n times
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "connector/kinesis_kpl.h"
#include "connector/kinesis_reply.h"
#include "fields.h"

static void
show_record(const KdaKinesisRecord *rec, int part, const char *key, size_t key_len, const char *data, size_t len)
{
	printf("%s", rec->sequence);
	if (part >= 0)
		printf("/%d", part);
	putchar(' ');
	show_field(key ? key : "", key_len, ' ');
	printf("%lld ", (long long) rec->arrival_ms);
	show_field(data, len, '\n');
}

/* Gives the number of records; -1: the page was broken. */
static long
read_records(KdaKinesisPage *page, bool show, size_t *bytes)
{
	KdaKinesisRecord rec;
	KdaKinesisNext next;
	long		n = 0;

	while ((next = kda_kinesis_next(page, &rec)) == KDA_KINESIS_RECORD)
	{
		KdaKpl		kpl;
		KdaKplKind	kind = kda_kpl_begin(&kpl, rec.data, rec.len, 0, ~(KdaHashKey) 0);
		const char *key,
				   *data;
		size_t		key_len,
					len;

		if (kind == KDA_KPL_PLAIN)
		{
			if (show)
				show_record(&rec, -1, rec.key, rec.key_len, rec.data, rec.len);
			*bytes += rec.len;
			n++;
		}
		else if (kind == KDA_KPL_AGGREGATE)
		{
			for (int part = 0; kda_kpl_next(&kpl, &data, &len, &key, &key_len); part++, n++)
			{
				if (show)
					show_record(&rec, part, key, key_len, data, len);
				*bytes += len;
			}
			kda_kpl_free(&kpl);
		}
	}
	return next == KDA_KINESIS_BROKEN ? -1 : n;
}

static void
do_page(char *text, size_t len)
{
	KdaKinesisPage page;
	size_t		bytes = 0;

	if (!kda_kinesis_page(&page, text, len))
	{
		printf("no\n");
		return;
	}
	printf("yes ");
	show_field(page.iterator ? page.iterator : "", page.iterator ? strlen(page.iterator) : 0, ' ');
	printf("%lld", (long long) page.millis_behind);
	for (int i = 0; i < page.nchildren; i++)
	{
		putchar(' ');
		printf(".");
		for (const char *c = page.children[i]; *c; c++)
			printf("%02x", (unsigned char) *c);
	}
	putchar('\n');
	printf(read_records(&page, true, &bytes) < 0 ? "broken\n" : "end\n");
}

static bool
count_shard(void *arg, const KdaKinesisShardInfo *shard)
{
	*(int *) arg += strlen(shard->id) > 0 && strlen(shard->from_hash) + strlen(shard->to_hash) < 10000;
	return true;
}

static void
do_speed(const char *text, size_t len, int times)
{
	clock_t		spent = 0;
	long		n = 0;
	size_t		bytes = 0;
	char	   *copy = malloc(len + 1);

	for (int i = 0; i < times; i++)
	{
		KdaKinesisPage page;
		clock_t		begun;

		memcpy(copy, text, len + 1);
		begun = clock();
		if (kda_kinesis_page(&page, copy, len))
			n += read_records(&page, false, &bytes);
		spent += clock() - begun;
	}
	free(copy);
	printf("%ld %zu %.6f\n", n, bytes, (double) spent / CLOCKS_PER_SEC);
}

int
main(void)
{
	char	   *line = NULL;
	size_t		room = 0;
	ssize_t		got;

	while ((got = getline(&line, &room, stdin)) > 0)
	{
		char	   *fields[3];
		char	   *copies[3] = {NULL};
		size_t		lens[3];
		char	   *word;
		char	   *token;
		int			n = 0;

		line[got - 1] = '\0';
		word = strtok(line, " ");
		for (int i = 1; i < 3; i++)
		{
			fields[i] = strtok(NULL, " ");
			lens[i] = 0;
			if (fields[i] && (fields[i][0] == '.' || fields[i][0] == '-'))
				fields[i] = copies[i] = decode_field(fields[i], &lens[i]);
		}
		if (strcmp(word, "page") == 0)
			do_page(fields[1], lens[1]);
		else if (strcmp(word, "shards") == 0)
		{
			if (kda_kinesis_shards(fields[1], lens[1], count_shard, &n, &token))
			{
				printf("yes ");
				show_field(token ? token : "", token ? strlen(token) : 0, ' ');
				printf("%d\n", n);
			}
			else
				printf("no\n");
		}
		else if (strcmp(word, "summary") == 0)
		{
			KdaKinesisSummary summary;

			if (kda_kinesis_summary(fields[1], lens[1], &summary))
			{
				printf("yes ");
				show_field(summary.status, strlen(summary.status), ' ');
				printf("%lld %lld\n", (long long) summary.created_ms, (long long) summary.retention_hours);
			}
			else
				printf("no\n");
		}
		else if (strcmp(word, "base64") == 0)
		{
			ssize_t		size = kda_kinesis_base64(fields[1], lens[1]);

			printf(size < 0 ? "no\n" : "yes ");
			if (size >= 0)
				show_field(fields[1], size, '\n');
		}
		else if (strcmp(word, "hash") == 0)
		{
			KdaHashKey	key;

			printf(kda_kpl_hash_key(fields[1], lens[1], &key) ? "yes\n" : "no\n");
		}
		else if (strcmp(word, "speed") == 0)
			do_speed(fields[1], lens[1], atoi(fields[2]));
		fflush(stdout);
		free(copies[1]);
		free(copies[2]);
	}
	free(line);
	return 0;
}
