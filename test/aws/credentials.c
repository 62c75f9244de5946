/*-------------------------------------------------------------------------
 *
 * credentials.c
 *	  Credentials and signed calls outside of a server, for
 *	  test_aws_credentials.py.  Commands, one a line, text in the fields of
 *	  fields.h; names are numbers:
 *
 *		open ca_pem retry_max_ms
 *		fixed name id secret token
 *		role name base arn external_id sts_url      base goes over to it
 *		machine name
 *		keys name                -> "ready id secret token", or "none error"
 *		again name               -> the same, after a service has refused these keys
 *		service name credentials url max_attempts   credentials -1: unsigned
 *		call n service target body timeout_ms       n calls at once
 *		                         -> for each: "trouble status code message answer"
 *		count service            -> "attempts failures throttled skew"
 *		json name text           -> "yes value" or "no"; xml the same; time text
 *		retry attempts first_ms max_ms at_least_ms   -> the pauses, of 20 at most, until it gives up
 *		clock seconds            sets the program's clock forward
 *		close
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "connector/aws.h"
#include "connector/credentials.h"
#include "fields.h"

#define MAX_FIELDS 16
#define MAX_NAMES 16
#define MAX_CALLS 1000

static KdaHttp *http = NULL;
static int	pipe_fds[2];
static int	retry_max_ms;
static KdaCredentials *credentials[MAX_NAMES];
static KdaAwsService services[MAX_NAMES];
static KdaAwsCall *calls[MAX_CALLS];

/* The connectors' clock, which libc's would be otherwise. */
static time_t clock_ahead = 0;

time_t
time(time_t * to)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	now.tv_sec += clock_ahead;
	if (to)
		*to = now.tv_sec;
	return now.tv_sec;
}

static void
show_string(const char *s, char end)
{
	show_field(s ? s : "", s ? strlen(s) : 0, end);
}

static void
show_keys(KdaCredentials *c)
{
	KdaAwsKeys	keys;
	KdaKeysState state;

	while ((state = kda_credentials_keys(c, &keys)) == KDA_KEYS_COMING)
		await_byte(pipe_fds[0]);
	if (state == KDA_KEYS_NONE)
	{
		printf("none ");
		show_string(kda_credentials_error(c), '\n');
		return;
	}
	printf("ready ");
	show_string(keys.access_key_id, ' ');
	show_string(keys.secret_access_key, ' ');
	show_string(keys.session_token, '\n');
}

static void
endpoint(const char *url, KdaEndpoint *to)
{
	char		why[200];

	if (!kda_endpoint_parse(url, KDA_REACH_USER, to, why, sizeof(why)))
		abort();
}

static void
make_calls(char **fields, const size_t *lens)
{
	int			n = atoi(fields[1]);

	for (int i = 0; i < n; i++)
	{
		calls[i] = kda_aws_call_new(&services[atoi(fields[2])]);
		/* its literals are this line's */
		calls[i]->target = fields[3];
		calls[i]->timeout_ms = atoi(fields[5]);
		kda_text_add(&calls[i]->body, fields[4], lens[4]);
		kda_aws_call_begin(calls[i]);
	}
	for (int left = n; left > 0;)
	{
		left = 0;
		for (int i = 0; i < n; i++)
			left += !kda_aws_call_done(calls[i]);
		if (left > 0)
			await_byte(pipe_fds[0]);
	}
	for (int i = 0; i < n; i++)
	{
		printf("%d %d ", calls[i]->error.trouble, calls[i]->error.status);
		show_string(calls[i]->error.code, ' ');
		show_string(calls[i]->error.message, ' ');
		show_text(&calls[i]->answer, '\n');
		kda_aws_call_free(calls[i]);
	}
}

static void
read_answer(const char *how, const char *name, const char *text, size_t len)
{
	KdaText		value = {0};
	char	   *exact = malloc(len ? len : 1);	/* no byte more, for the sanitizer */
	bool		found;

	memcpy(exact, text, len);
	found = strcmp(how, "json") == 0 ? kda_aws_json_field(exact, len, name, &value) :
		kda_aws_xml_element(exact, len, name, &value);
	printf(found ? "yes " : "no ");
	show_text(&value, '\n');
	kda_text_free(&value);
	free(exact);
}

int
main(void)
{
	char	   *line = NULL;
	size_t		room = 0;

	make_pipe(pipe_fds);
	while (getline(&line, &room, stdin) > 0)
	{
		char	   *fields[MAX_FIELDS];
		size_t		lens[MAX_FIELDS];
		bool		decoded[MAX_FIELDS];
		int			n = 0;
		int			name;

		for (char *f = strtok(line, " \n"); f && n < MAX_FIELDS; f = strtok(NULL, " \n"), n++)
		{
			decoded[n] = f[0] == '.' || strcmp(f, "-") == 0;
			fields[n] = decoded[n] ? decode_field(f, &lens[n]) : f;
		}
		name = n > 1 && !decoded[1] ? atoi(fields[1]) : 0;
		if (strcmp(fields[0], "open") == 0)
		{
			KdaHttpConfig config = {.ca_pem = fields[1],.wake_fd = pipe_fds[1]};

			http = kda_http_open(&config);
			retry_max_ms = atoi(fields[2]);
			memset(services, 0, sizeof(services));
		}
		else if (strcmp(fields[0], "fixed") == 0)
		{
			KdaAwsKeys	keys = {fields[2], fields[3], fields[4]};

			credentials[name] = kda_credentials_fixed(&keys);
		}
		else if (strcmp(fields[0], "role") == 0)
		{
			KdaRole		role = {fields[3], fields[4], "kda_stream"};
			KdaEndpoint sts;

			endpoint(fields[5], &sts);
			credentials[name] = kda_credentials_role(http, credentials[atoi(fields[2])], &role, &sts, "eu-west-1", retry_max_ms);
			credentials[atoi(fields[2])] = NULL;
		}
		else if (strcmp(fields[0], "machine") == 0)
			credentials[name] = kda_credentials_machine(http, "eu-west-1", retry_max_ms);
		else if (strcmp(fields[0], "keys") == 0)
			show_keys(credentials[name]);
		else if (strcmp(fields[0], "again") == 0)
		{
			KdaAwsKeys	keys;

			while (kda_credentials_keys(credentials[name], &keys) != KDA_KEYS_READY)
				await_byte(pipe_fds[0]);
			if (!kda_credentials_refuse(credentials[name], keys.access_key_id))
				abort();
			show_keys(credentials[name]);
		}
		else if (strcmp(fields[0], "service") == 0)
		{
			KdaAwsService *service = &services[name];

			memset(service, 0, sizeof(KdaAwsService));
			service->http = http;
			service->name = "kinesis";
			service->region = "eu-west-1";
			service->credentials = atoi(fields[2]) >= 0 ? credentials[atoi(fields[2])] : NULL;
			service->max_attempts = atoi(fields[4]);
			service->retry_max_ms = retry_max_ms;
			endpoint(fields[3], &service->endpoint);
		}
		else if (strcmp(fields[0], "call") == 0)
			make_calls(fields, lens);
		else if (strcmp(fields[0], "count") == 0)
			printf(INT64_FORMAT " " INT64_FORMAT " " INT64_FORMAT " " INT64_FORMAT "\n", services[name].attempts,
				   services[name].failures, services[name].throttled, services[name].skew_s);
		else if (strcmp(fields[0], "json") == 0 || strcmp(fields[0], "xml") == 0)
			read_answer(fields[0], fields[1], fields[2], lens[2]);
		else if (strcmp(fields[0], "time") == 0)
		{
			int64		seconds = -1;

			kda_aws_parse_time(fields[1], &seconds);
			printf(INT64_FORMAT "\n", seconds);
		}
		else if (strcmp(fields[0], "retry") == 0)
		{
			KdaRetry	retry;
			int64		pause = 0;

			kda_retry_init(&retry, atoi(fields[1]), atoi(fields[2]), atoi(fields[3]));
			for (int i = 0; i < 20 && pause >= 0; i++)
			{
				pause = kda_retry_after_failure(&retry, atoi(fields[4]));
				printf(INT64_FORMAT " ", pause);
			}
			printf("\n");
		}
		else if (strcmp(fields[0], "clock") == 0)
			clock_ahead = atoll(fields[1]);
		else if (strcmp(fields[0], "close") == 0)
		{
			for (int i = 0; i < MAX_NAMES; i++)
				kda_credentials_free(credentials[i]);
			memset(credentials, 0, sizeof(credentials));
			kda_http_close(http, 10000);
			printf("closed\n");
		}
		for (int i = 0; i < n; i++)
			if (decoded[i] && fields[i])
			{
				explicit_bzero(fields[i], lens[i]);
				free(fields[i]);
			}
		explicit_bzero(line, room);
		fflush(stdout);
	}
	free(line);
	return 0;
}
