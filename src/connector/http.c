/*-------------------------------------------------------------------------
 *
 * http.c
 *	  HTTP over libcurl's multi handle, driven by one thread a client.
 *
 * Everything of libcurl's is called by that thread alone, but for
 * curl_multi_wakeup().  What the two threads share is protected by the client's
 * mutex: the list of requests and their stages.  A request belongs to the
 * caller while it is NEW or DONE, else to the thread; kda_http_free() of one
 * that is under way marks it GIVEN_UP, and the thread frees it.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/http.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "connector/threads.h"

#ifndef FRONTEND
#include "storage/fd.h"
#endif

#define USER_AGENT			"kda_stream/1.0"
#define IDLE_CONNECTION_S	50L /* servers close theirs after a minute and more */
#define CONNECTIONS			64
#define FURTHER_FDS			6	/* of the multi handle and the resolver */

typedef enum Stage
{
	NEW,
	WAITING,					/* for its time */
	RUNNING,
	DONE,
	GIVEN_UP
} Stage;

struct KdaHttpState
{
	KdaHttpRequest request;		/* what the caller sees */
	KdaHttp    *http;
	KdaEndpoint endpoint;
	const char *method;			/* a literal */
	KdaText		url;
	struct curl_slist *headers;
	bool		bad_header;
	bool		no_memory;

	/* the mutex */
	Stage		stage;
	int64		due_ms;
	struct KdaHttpState *prev;	/* all requests of the client */
	struct KdaHttpState *next;

	/* the thread */
	CURL	   *easy;
	struct KdaHttpState *next_taken;
	bool		forbidden;		/* an address was not connected to */
	bool		connected;		/* another one was */
	bool		too_large;
	bool		head_complete;
	char		curl_error[CURL_ERROR_SIZE];
};

typedef struct KdaHttpState State;

struct KdaHttp
{
	char	   *ca_file;
	char	   *ca_pem;
	char	   *proxy;
	int			wake_fd;
	int			max_connections;
	bool		http2;
	CURLM	   *multi;

	pthread_mutex_t mutex;
	pthread_cond_t to_main;
	State	   *all;
	int			orders;			/* requests that the thread has to look at now */
	bool		stop;
	bool		finished;		/* the thread has ended */
	bool		closed;			/* nobody waits for it: it frees the client */
};

/*---- memory */

static void
free_state(State *s)
{
	curl_slist_free_all(s->headers);
	kda_text_free(&s->url);
	kda_text_free(&s->request.body);
	kda_text_free(&s->request.answer);
	kda_text_free(&s->request.head);
	kda_secret_free(s);
}

/* The mutex is held. */
static void
unlink_state(KdaHttp *h, State *s)
{
	if (s->prev)
		s->prev->next = s->next;
	else
		h->all = s->next;
	if (s->next)
		s->next->prev = s->prev;
}

/* When nobody else has it any more. */
static void
free_client(KdaHttp *h)
{
	while (h->all)
	{
		State	   *s = h->all;

		h->all = s->next;
		free_state(s);
	}
	kda_secret_free(h->ca_file);
	kda_secret_free(h->ca_pem);
	kda_secret_free(h->proxy);
	pthread_mutex_destroy(&h->mutex);
	pthread_cond_destroy(&h->to_main);
	kda_secret_free(h);
}

/*---- callbacks of libcurl, on the thread */

static size_t
on_body(char *data, size_t size, size_t n, void *arg)
{
	State	   *s = arg;
	KdaText    *answer = &s->request.answer;

	if (n > answer->limit || answer->len > answer->limit - n)
	{
		s->too_large = true;
		return CURL_WRITEFUNC_ERROR;
	}
	kda_text_add(answer, data, n);
	return answer->failed ? CURL_WRITEFUNC_ERROR : n;
}

static size_t
on_header(char *data, size_t size, size_t n, void *arg)
{
	State	   *s = arg;
	KdaText    *head = &s->request.head;

	if (n <= 2 && (data[0] == '\r' || data[0] == '\n'))
		s->head_complete = true;
	/* a status line begins the answer; what came before was an interim one */
	if (n >= 5 && strncmp(data, "HTTP/", 5) == 0)
	{
		kda_text_reset(head);
		s->head_complete = false;
	}
	if (head->len + n > KDA_HTTP_MAX_HEAD)
	{
		s->too_large = true;
		return 0;
	}
	kda_text_add(head, data, n);
	return head->failed ? 0 : n;
}

/* Not to what is on or beside this machine. */
static bool
is_proxied(const State *s)
{
	return s->http->proxy && !s->endpoint.loopback && s->endpoint.reach == KDA_REACH_USER;
}

/* The one place where a connection is made: names may mean anything. */
static curl_socket_t
on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	State	   *s = arg;
	KdaReach	reach = is_proxied(s) ? KDA_REACH_PROXY : s->endpoint.reach;
	int			fd;

	if (purpose != CURLSOCKTYPE_IPCXN || !kda_endpoint_may_connect(&address->addr, reach, s->endpoint.plain))
	{
		s->forbidden = true;
		return CURL_SOCKET_BAD;
	}
	s->connected = true;
	fd = socket(address->family, address->socktype, address->protocol);
	if (fd >= 0)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* OpenSSL does not keep what it has decrypted. */
static CURLcode
on_ssl_ctx(CURL *easy, void *ctx, void *arg)
{
#ifdef SSL_OP_CLEANSE_PLAINTEXT
	SSL_CTX_set_options((SSL_CTX *) ctx, SSL_OP_CLEANSE_PLAINTEXT);
#endif
	return CURLE_OK;
}

/*---- the thread */

static void
set_error(State *s, KdaHttpResult result, const char *text)
{
	char	   *p;

	s->request.result = result;
	snprintf(s->request.error, sizeof(s->request.error), "%s", text);
	for (p = s->request.error; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
}

static void
set_up(KdaHttp *h, State *s)
{
	CURL	   *e = s->easy;
	bool		has_body = strcmp(s->method, "GET") != 0;

	curl_easy_setopt(e, CURLOPT_PRIVATE, s);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, s->curl_error);
	curl_easy_setopt(e, CURLOPT_URL, s->url.data);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, s->endpoint.plain ? "http" : "https");
	curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(e, CURLOPT_PROXY, is_proxied(s) ? h->proxy : "");
	curl_easy_setopt(e, CURLOPT_NOPROXY, "");
	curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(e, CURLOPT_USERAGENT, USER_AGENT);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long) KDA_HTTP_CONNECT_MS);
	curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long) s->request.timeout_ms);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, IDLE_CONNECTION_S);
#if LIBCURL_VERSION_NUM >= 0x075700
	/* a resolver that hangs does not hold back a client that is closed */
	curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
#endif

	curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(e, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	(void) curl_easy_setopt(e, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
	/* with it libcurl would read all certificates for each connection, and add them to those that are given */
	curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
	if (h->ca_file)
		curl_easy_setopt(e, CURLOPT_CAINFO, h->ca_file);
	else if (h->ca_pem)
	{
		struct curl_blob blob = {h->ca_pem, strlen(h->ca_pem), CURL_BLOB_NOCOPY};

		curl_easy_setopt(e, CURLOPT_CAINFO_BLOB, &blob);
	}

	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, h->http2 ? (long) CURL_HTTP_VERSION_2TLS : (long) CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_PIPEWAIT, h->http2 ? 1L : 0L);
	curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, s->method);
	if (has_body)
	{
		curl_easy_setopt(e, CURLOPT_POST, 1L);
		curl_easy_setopt(e, CURLOPT_POSTFIELDS, kda_text_str(&s->request.body));
		curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) s->request.body.len);
	}
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, s->headers);

	curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_socket);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, s);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, s);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, s);
	curl_easy_setopt(e, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t) s->request.answer.limit);
	if (s->endpoint.reach == KDA_REACH_MACHINE)
	{
		/* a connection that others must not have does not come to them by being kept */
		curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
		curl_easy_setopt(e, CURLOPT_FORBID_REUSE, 1L);
	}
}

/*
 * Is it certain that nothing is missing?  A head without its empty line, or a
 * body that ends with the connection, may have been cut anywhere.
 */
static bool
is_complete(State *s)
{
	char		value[32];
	long		version = 0;

	curl_easy_getinfo(s->easy, CURLINFO_HTTP_VERSION, &version);
	return s->head_complete &&
		(version > CURL_HTTP_VERSION_1_1 || s->request.answer.len == 0 ||
		 kda_http_answer_header(&s->request, "Content-Length", value, sizeof(value)) ||
		 kda_http_answer_header(&s->request, "Transfer-Encoding", value, sizeof(value)));
}

static void
set_outcome(State *s, CURLcode code)
{
	const char *text = s->curl_error[0] ? s->curl_error : curl_easy_strerror(code);
	long		status = 0;

	curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
	s->request.status = (int) status;
	switch (code)
	{
		case CURLE_OK:
			if (!is_complete(s))
			{
				set_error(s, KDA_HTTP_UNREACHABLE, "the answer was cut off");
				break;
			}
			s->request.result = KDA_HTTP_ANSWERED;
			s->request.error[0] = '\0';
			break;
		case CURLE_OPERATION_TIMEDOUT:
			set_error(s, KDA_HTTP_TIMED_OUT, text);
			break;
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_CACERT_BADFILE:
			set_error(s, KDA_HTTP_UNTRUSTED, text);
			break;
		case CURLE_FILESIZE_EXCEEDED:
			set_error(s, KDA_HTTP_TOO_LARGE, "the answer is too large");
			break;
		case CURLE_WRITE_ERROR:
			if (s->too_large)
				set_error(s, KDA_HTTP_TOO_LARGE, "the answer is too large");
			else
				set_error(s, KDA_HTTP_NO_MEMORY, "out of memory");
			break;
#if LIBCURL_VERSION_NUM >= 0x080600
		case CURLE_TOO_LARGE:
			set_error(s, KDA_HTTP_TOO_LARGE, "the answer is too large");
			break;
#endif
		case CURLE_OUT_OF_MEMORY:
			/* before 8.6 libcurl says so, too, of a line longer than 100 kB */
			set_error(s, KDA_HTTP_NO_MEMORY, "out of memory, or the answer's header is too large");
			break;
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_URL_MALFORMAT:
		case CURLE_WEIRD_SERVER_REPLY:
		case CURLE_BAD_CONTENT_ENCODING:
			set_error(s, KDA_HTTP_BROKEN, text);
			break;
		default:
			if (s->forbidden && !s->connected)
				set_error(s, KDA_HTTP_FORBIDDEN, "the host's address may not be used as an endpoint");
			else
				set_error(s, KDA_HTTP_UNREACHABLE, text);
	}
}

/* The caller has it again, unless he has given it up. */
static void
hand_back(KdaHttp *h, State *s)
{
	bool		given_up;

	if (s->easy)
		curl_easy_cleanup(s->easy);
	s->easy = NULL;
	pthread_mutex_lock(&h->mutex);
	given_up = s->stage == GIVEN_UP;
	if (given_up)
	{
		h->orders--;
		unlink_state(h, s);
	}
	else
		s->stage = DONE;
	pthread_mutex_unlock(&h->mutex);
	if (given_up)
		free_state(s);
}

static void
begin(KdaHttp *h, State *s)
{
	if (s->no_memory || s->bad_header || s->request.body.failed || s->url.failed)
		set_error(s, s->bad_header ? KDA_HTTP_BROKEN : KDA_HTTP_NO_MEMORY,
				  s->bad_header ? "a header has a control character in it" : "out of memory");
	else if ((s->easy = curl_easy_init()) == NULL)
		set_error(s, KDA_HTTP_NO_MEMORY, "out of memory");
	else
	{
		set_up(h, s);
		if (curl_multi_add_handle(h->multi, s->easy) == CURLM_OK)
			return;
		set_error(s, KDA_HTTP_NO_MEMORY, "out of memory");
	}
	hand_back(h, s);
	kda_thread_wake(h->wake_fd);
}

/*
 * Begins what is due, ends what was given up.  Gives the ms until the next one
 * is due, and whether the client is to stop.
 */
static int
take_orders(KdaHttp *h, bool *stop)
{
	State	   *taken = NULL;
	State	   *given_up = NULL;
	int64		now = kda_monotonic_ms();
	int64		wait_ms = 10000;

	pthread_mutex_lock(&h->mutex);
	*stop = h->stop;
	if (h->orders > 0)
		for (State *s = h->all, *next; s; s = next)
		{
			next = s->next;
			if (s->stage == WAITING && s->due_ms <= now)
			{
				s->stage = RUNNING;
				h->orders--;
				s->next_taken = taken;
				taken = s;
			}
			else if (s->stage == WAITING)
				wait_ms = Min(wait_ms, s->due_ms - now);
			else if (s->stage == GIVEN_UP)
			{
				h->orders--;
				unlink_state(h, s);
				s->next_taken = given_up;
				given_up = s;
			}
		}
	pthread_mutex_unlock(&h->mutex);

	while (given_up)
	{
		State	   *s = given_up;

		given_up = s->next_taken;
		if (s->easy)
		{
			curl_multi_remove_handle(h->multi, s->easy);
			curl_easy_cleanup(s->easy);
		}
		free_state(s);
	}
	while (taken)
	{
		State	   *s = taken;

		taken = s->next_taken;
		if (*stop)
			break;
		begin(h, s);
	}
	return (int) wait_ms;
}

static void *
serve(void *arg)
{
	KdaHttp    *h = arg;
	bool		stop = false;
	bool		closed;

	kda_secret_stack();
	for (;;)
	{
		int			wait_ms = take_orders(h, &stop);
		int			running;
		int			left;
		CURLMsg    *message;
		bool		done = false;

		if (stop)
			break;
		curl_multi_perform(h->multi, &running);
		while ((message = curl_multi_info_read(h->multi, &left)) != NULL)
		{
			State	   *s = NULL;
			CURLcode	code = message->data.result;

			if (message->msg != CURLMSG_DONE)
				continue;
			curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &s);
			curl_multi_remove_handle(h->multi, s->easy);
			set_outcome(s, code);
			hand_back(h, s);
			done = true;
		}
		if (done)
			kda_thread_wake(h->wake_fd);
		else
			curl_multi_poll(h->multi, NULL, 0, wait_ms, NULL);
	}

	for (State *s = h->all; s; s = s->next)
		if (s->easy)
		{
			curl_multi_remove_handle(h->multi, s->easy);
			curl_easy_cleanup(s->easy);
		}
	curl_multi_cleanup(h->multi);
	OPENSSL_thread_stop();
	kda_secret_stack_wipe();
	kda_thread_ends();
	pthread_mutex_lock(&h->mutex);
	h->finished = true;
	closed = h->closed;
	pthread_cond_signal(&h->to_main);
	pthread_mutex_unlock(&h->mutex);
	if (closed)
		free_client(h);
	return NULL;
}

/*---- for callers */

static void
reserve_fds(KdaHttp *h, bool reserve)
{
#ifndef FRONTEND
	for (int i = 0; i < h->max_connections + FURTHER_FDS; i++)
		if (reserve)
			ReserveExternalFD();
		else
			ReleaseExternalFD();
#endif
}

static pthread_once_t initialized = PTHREAD_ONCE_INIT;

static void
initialize(void)
{
	curl_global_init_mem(CURL_GLOBAL_DEFAULT, kda_secret_alloc, kda_secret_free, kda_secret_realloc,
						 kda_secret_strdup, kda_secret_calloc);
}

void
kda_http_init(void)
{
	pthread_once(&initialized, initialize);
}

KdaHttp *
kda_http_open(const KdaHttpConfig *config)
{
	KdaHttp    *h = kda_secret_calloc(1, sizeof(KdaHttp));

	if (h == NULL)
		return NULL;
	kda_http_init();
	pthread_mutex_init(&h->mutex, NULL);
	kda_condition_init(&h->to_main);
	h->wake_fd = config->wake_fd;
	h->http2 = config->http2;
	h->max_connections = config->max_connections > 0 ? config->max_connections : CONNECTIONS;
	h->ca_file = config->ca_file ? kda_secret_strdup(config->ca_file) : NULL;
	h->ca_pem = config->ca_pem ? kda_secret_strdup(config->ca_pem) : NULL;
	h->proxy = config->proxy ? kda_secret_strdup(config->proxy) : NULL;
	h->multi = curl_multi_init();
	if (h->multi == NULL || (config->ca_file && !h->ca_file) || (config->ca_pem && !h->ca_pem) ||
		(config->proxy && !h->proxy))
	{
		if (h->multi)
			curl_multi_cleanup(h->multi);
		free_client(h);
		return NULL;
	}
	curl_multi_setopt(h->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long) h->max_connections);
	curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long) h->max_connections);
	if (!kda_thread_start(serve, h))
	{
		curl_multi_cleanup(h->multi);
		free_client(h);
		return NULL;
	}
	reserve_fds(h, true);
	return h;
}

void
kda_http_close(KdaHttp *h, int deadline_ms)
{
	bool		finished;

	reserve_fds(h, false);
	pthread_mutex_lock(&h->mutex);
	h->stop = true;
	curl_multi_wakeup(h->multi);
	finished = kda_condition_await(&h->to_main, &h->mutex, &h->finished, deadline_ms);
	h->closed = true;
	pthread_mutex_unlock(&h->mutex);
	if (finished)
		free_client(h);
}

KdaHttpRequest *
kda_http_request(KdaHttp *h, const char *method, const KdaEndpoint *endpoint, const char *path)
{
	State	   *s = kda_secret_calloc(1, sizeof(State));

	if (s == NULL)
		return NULL;
	s->http = h;
	s->method = method;
	s->endpoint = *endpoint;
	s->request.state = s;
	s->request.timeout_ms = KDA_HTTP_TIMEOUT_MS;
	kda_text_adds(&s->url, endpoint->base);
	kda_text_adds(&s->url, path);
	/* libcurl's own that nobody has asked for */
	kda_http_header(&s->request, "Accept", "");
	kda_http_header(&s->request, "Expect", "");
	kda_http_header(&s->request, "Content-Type", "");
	pthread_mutex_lock(&h->mutex);
	s->next = h->all;
	if (h->all)
		h->all->prev = s;
	h->all = s;
	pthread_mutex_unlock(&h->mutex);
	return &s->request;
}

static bool
has_control(const char *s)
{
	for (; *s; s++)
		if ((unsigned char) *s < ' ' || *s == 0x7F)
			return true;
	return false;
}

void
kda_http_header(KdaHttpRequest *request, const char *name, const char *value)
{
	State	   *s = request->state;
	KdaText		line = {0};
	struct curl_slist *longer;

	/* "Name:" takes a header of libcurl's away */
	kda_text_addf(&line, *value ? "%s: %s" : "%s:", name, value);
	s->bad_header |= has_control(name) || has_control(value);
	longer = line.failed ? NULL : curl_slist_append(s->headers, line.data);
	if (longer)
		s->headers = longer;
	else
		s->no_memory = true;
	kda_text_free(&line);
}

void
kda_http_send(KdaHttpRequest *request, int64 delay_ms)
{
	State	   *s = request->state;
	KdaHttp    *h = s->http;

	Assert(s->stage == NEW);
	pthread_mutex_lock(&h->mutex);
	s->due_ms = kda_monotonic_ms() + Max(delay_ms, 0);
	s->stage = WAITING;
	h->orders++;
	curl_multi_wakeup(h->multi);
	pthread_mutex_unlock(&h->mutex);
}

bool
kda_http_done(const KdaHttpRequest *request)
{
	KdaHttp    *h = request->state->http;
	bool		done;

	pthread_mutex_lock(&h->mutex);
	done = request->state->stage == DONE;
	pthread_mutex_unlock(&h->mutex);
	return done;
}

void
kda_http_free(KdaHttpRequest *request)
{
	State	   *s;
	KdaHttp    *h;
	bool		ours;

	if (request == NULL)
		return;
	s = request->state;
	h = s->http;
	pthread_mutex_lock(&h->mutex);
	ours = s->stage == NEW || s->stage == DONE;
	if (ours)
		unlink_state(h, s);
	else
	{
		if (s->stage == RUNNING)
			h->orders++;		/* one that waits is an order already */
		s->stage = GIVEN_UP;
		curl_multi_wakeup(h->multi);
	}
	pthread_mutex_unlock(&h->mutex);
	if (ours)
		free_state(s);
}

bool
kda_http_answer_header(const KdaHttpRequest *request, const char *name, char *value, size_t size)
{
	const char *line = kda_text_str(&request->head);
	size_t		name_len = strlen(name);
	bool		found = false;

	for (; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL)
	{
		const char *from;
		size_t		len;

		if (strncasecmp(line, name, name_len) != 0 || line[name_len] != ':')
			continue;
		from = line + name_len + 1;
		from += strspn(from, " \t");
		len = strcspn(from, "\r\n");
		while (len > 0 && (from[len - 1] == ' ' || from[len - 1] == '\t'))
			len--;
		len = Min(len, size - 1);
		memcpy(value, from, len);
		value[len] = '\0';
		found = true;
	}
	return found;
}
