/*-------------------------------------------------------------------------
 *
 * kinesis_put.c
 *	  Requests of PutRecords and their answers outside of a server, for
 *	  test_kinesis_sink.py: a question a line, fields in hex with a dot before (a
 *	  lone "-": none), an answer a line.
 *
 *		put first_number stream member [value key hash_key]...	the body
 *		results n answer	how many have failed, which (y, n), code and message of the first
 *		refused n status code message	a record? and which one is blamed
 *
 *-------------------------------------------------------------------------
 */
#include "connector/kinesis_put.h"
#include "fields.h"

#define MAX_FIELDS 2000

static char *fields[MAX_FIELDS];
static size_t lens[MAX_FIELDS];

static void
put(int64 number, int n)
{
	KdaText		body = {.plain = true};
	KdaText		member = {.plain = true};
	KdaKinesisPut p = {.body = &body,.stream = fields[0]};

	if (fields[1])
	{
		kda_kinesis_member(&member, fields[1]);
		p.member = member.data;
	}
	kda_kinesis_put_begin(&p);
	for (int i = 2; i + 2 < n; i += 3)
	{
		KdaKinesisRecord r = {number + (i - 2) / 3, fields[i], lens[i], fields[i + 1], lens[i + 1], fields[i + 2]};

		kda_kinesis_put_add(&p, &r);
	}
	kda_kinesis_put_end(&p);
	show_text(&body, '\n');
	kda_text_free(&body);
	kda_text_free(&member);
}

static void
results(int n)
{
	bool	   *failed = calloc(n, sizeof(bool));
	KdaText		answer = {.data = fields[0],.len = lens[0]};
	KdaAwsError error;
	int			nfailed = kda_kinesis_put_results(&answer, n, failed, &error);

	printf("%d .", nfailed);
	for (int i = 0; i < n && nfailed >= 0; i++)
		putchar(failed[i] ? 'y' : 'n');
	putchar(' ');
	show_field(error.code, strlen(error.code), ' ');
	show_field(error.message, strlen(error.message), '\n');
	free(failed);
}

static void
refused(int n, int status)
{
	KdaAwsError error = {.trouble = KDA_AWS_REFUSED,.status = status};

	snprintf(error.code, sizeof(error.code), "%s", fields[0]);
	snprintf(error.message, sizeof(error.message), "%s", fields[1]);
	printf("%d %d\n", kda_kinesis_put_is_of_record(&error), kda_kinesis_put_blamed(error.message, n));
}

int
main(void)
{
	char	   *line = NULL;
	size_t		room = 0;

	while (getline(&line, &room, stdin) > 0)
	{
		char	   *what = strtok(line, " \n");
		int64		first = atoll(strtok(NULL, " \n"));
		int			status = strcmp(what, "refused") == 0 ? atoi(strtok(NULL, " \n")) : 0;
		int			n = 0;

		for (char *f = strtok(NULL, " \n"); f && n < MAX_FIELDS; f = strtok(NULL, " \n"), n++)
			fields[n] = decode_field(f, &lens[n]);
		if (strcmp(what, "put") == 0)
			put(first, n);
		else if (strcmp(what, "results") == 0)
			results((int) first);
		else
			refused((int) first, status);
		fflush(stdout);
		for (int i = 0; i < n; i++)
			free(fields[i]);
	}
	free(line);
	return 0;
}
