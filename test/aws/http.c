/*-------------------------------------------------------------------------
 *
 * http.c
 *	  The HTTP client outside of a server, for test_aws_http.py.  Commands, one
 *	  a line, text in the fields of fields.h:
 *
 *		parse reach url                             -> "ok base host path" or "no why"
 *		open ca_file ca_pem proxy connections http2       a new client
 *		send name reach timeout_ms limit delay_ms method url body [name value]...
 *		free name                                   cancels it, or forgets it
 *		wait name                                   -> "name result status error head answer"
 *		any                                         -> the name of some request that is done
 *		memory bytes                                no more than this beyond what there is; 0: all
 *		close deadline_ms                           -> "closed", whatever is under way
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dlfcn.h>
#include <netdb.h>
#include <sys/resource.h>

#include "connector/http.h"
#include "fields.h"

#define MAX_FIELDS 64
#define MAX_REQUESTS 1000

static KdaHttp *http = NULL;
static int	pipe_fds[2];
static struct
{
	int			name;
	KdaHttpRequest *request;
}			requests[MAX_REQUESTS];

/* Names of this test's own: libcurl's resolver finds this before libc's. */
int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **res)
{
	static const char *const names[][2] = {
		{"metadata.example", "169.254.169.254"},
		{"metadata6.example", "fd00:ec2::254"},
		{"mapped.example", "::ffff:169.254.169.254"},
		{"here.example", "127.0.0.1"},
	};
	int			(*real) (const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");

	for (int i = 0; node && i < (int) lengthof(names); i++)
		if (strcmp(node, names[i][0]) == 0)
			return real(names[i][1], service, hints, res);
	return real(node, service, hints, res);
}

static KdaHttpRequest **
slot_of(int name)
{
	for (int i = 0; i < MAX_REQUESTS; i++)
		if (requests[i].request && requests[i].name == name)
			return &requests[i].request;
	return NULL;
}

static void
limit_memory(long bytes)
{
	struct rlimit limit;
	long		pages = 0;
	FILE	   *f = fopen("/proc/self/statm", "r");

	if (f == NULL || fscanf(f, "%ld", &pages) != 1)
		abort();
	fclose(f);
	getrlimit(RLIMIT_AS, &limit);
	limit.rlim_cur = bytes > 0 ? (rlim_t) (pages * sysconf(_SC_PAGESIZE) + bytes) : limit.rlim_max;
	setrlimit(RLIMIT_AS, &limit);
}

static void
send_request(char **fields, int n)
{
	KdaEndpoint endpoint;
	char		why[200];
	size_t		body_len;
	size_t		len;
	char	   *url = decode_field(fields[7], &len);
	char	   *body = decode_field(fields[8], &body_len);
	char	   *path = strchr(strstr(url, "//") + 2, '/');
	char	   *base = strdup(url);
	KdaHttpRequest *request;
	const char *method = strcmp(fields[6], "GET") == 0 ? "GET" : strcmp(fields[6], "PUT") == 0 ? "PUT" : "POST";

	base[path - url] = '\0';
	if (!kda_endpoint_parse(base, atoi(fields[2]), &endpoint, why, sizeof(why)))
		abort();
	request = kda_http_request(http, method, &endpoint, path);
	if (request == NULL)
	{
		/* no memory: there is none of this name */
		free(url);
		free(base);
		free(body);
		return;
	}
	request->timeout_ms = atoi(fields[3]);
	request->answer.limit = atoll(fields[4]);
	request->answer.plain = true;
	if (body)
		kda_text_add(&request->body, body, body_len);
	for (int i = 9; i + 1 < n; i += 2)
	{
		char	   *name = decode_field(fields[i], &len);
		char	   *value = decode_field(fields[i + 1], &len);

		kda_http_header(request, name, value);
		free(name);
		free(value);
	}
	for (int i = 0; i < MAX_REQUESTS; i++)
		if (requests[i].request == NULL)
		{
			requests[i].name = atoi(fields[1]);
			requests[i].request = request;
			break;
		}
	kda_http_send(request, atoll(fields[5]));
	free(url);
	free(base);
	free(body);
}

static void
show_outcome(const char *name, KdaHttpRequest *request)
{
	while (!kda_http_done(request))
		await_byte(pipe_fds[0]);
	printf("%s %d %d ", name, request->result, request->status);
	show_field(request->error, strlen(request->error), ' ');
	show_text(&request->head, ' ');
	show_text(&request->answer, '\n');
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
		int			n = 0;
		size_t		len;

		for (char *f = strtok(line, " \n"); f && n < MAX_FIELDS; f = strtok(NULL, " \n"))
			fields[n++] = f;
		if (strcmp(fields[0], "parse") == 0)
		{
			KdaEndpoint endpoint;
			char		why[200];
			char	   *url = decode_field(fields[2], &len);

			if (kda_endpoint_parse(url, atoi(fields[1]), &endpoint, why, sizeof(why)))
				printf("ok %s %s %s\n", endpoint.base, endpoint.host, endpoint.path);
			else
				printf("no %s\n", why);
			free(url);
		}
		else if (strcmp(fields[0], "open") == 0)
		{
			char	   *ca_file = decode_field(fields[1], &len);
			char	   *ca_pem = decode_field(fields[2], &len);
			char	   *proxy = decode_field(fields[3], &len);
			KdaHttpConfig config = {ca_file, ca_pem, proxy, pipe_fds[1], atoi(fields[4]), atoi(fields[5]) != 0};

			http = kda_http_open(&config);
			free(ca_file);
			free(ca_pem);
			free(proxy);
		}
		else if (strcmp(fields[0], "send") == 0)
			send_request(fields, n);
		else if (strcmp(fields[0], "free") == 0)
		{
			KdaHttpRequest **request = slot_of(atoi(fields[1]));

			if (request)
			{
				kda_http_free(*request);
				*request = NULL;
			}
		}
		else if (strcmp(fields[0], "wait") == 0)
		{
			KdaHttpRequest **request = slot_of(atoi(fields[1]));

			if (request)
				show_outcome(fields[1], *request);
			else
				printf("%s %d 0 . . .\n", fields[1], KDA_HTTP_NO_MEMORY);
		}
		else if (strcmp(fields[0], "any") == 0)
		{
			int			found = -1;

			for (;;)
			{
				for (int i = 0; i < MAX_REQUESTS && found < 0; i++)
					if (requests[i].request && kda_http_done(requests[i].request))
						found = requests[i].name;
				if (found >= 0)
					break;
				await_byte(pipe_fds[0]);
			}
			printf("%d\n", found);
		}
		else if (strcmp(fields[0], "memory") == 0)
			limit_memory(atol(fields[1]));
		else if (strcmp(fields[0], "close") == 0)
		{
			kda_http_close(http, atoi(fields[1]));
			memset(requests, 0, sizeof(requests));
			printf("closed\n");
		}
		fflush(stdout);
	}
	free(line);
	return 0;
}
