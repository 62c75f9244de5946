/*-------------------------------------------------------------------------
 *
 * http.h
 *	  HTTP requests that do not block: a client, its requests, their answers.
 *
 * A client is one thread that drives libcurl's multi handle, whatever the
 * number of requests, because a pipeline worker's transaction may last longer
 * than a server waits.  The thread calls nothing of PostgreSQL's; when an answer
 * is complete it writes a byte to wake_fd.  All functions here are for the one
 * thread that has opened the client.  They raise no errors: trouble is what
 * becomes of a request.
 *
 * Connections are kept and shared, TLS is always verified, redirects are
 * answers like others, a proxy is used only if configured, nothing of the
 * environment matters.  What libcurl allocates is secret memory (secret.h), if
 * nobody has initialised libcurl in this process before.  HTTP/2 is an
 * exception: before curl 8.13 its library keeps headers in ordinary memory, so a
 * request with a session token in them should not go by such a client.
 *
 * No server is needed, so tests run this outside of one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_HTTP_H
#define KDA_HTTP_H

#include "postgres.h"
#include "connector/endpoint.h"
#include "connector/secret.h"

#define KDA_HTTP_CONNECT_MS		5000
#define KDA_HTTP_TIMEOUT_MS		30000
#define KDA_HTTP_MAX_HEAD		(64 * 1024)

typedef struct KdaHttpConfig
{
	const char *ca_file;		/* certificates instead of the system's */
	const char *ca_pem;			/* the same by value */
	const char *proxy;			/* URL; NULL: none.  Never for this machine's addresses or metadata services */
	int			wake_fd;		/* write end of a non-blocking pipe; -1: who waits looks by himself */
	int			max_connections;	/* requests beyond wait for one; 0: as many as are good for a worker */
	bool		http2;			/* where the server can do it; a connection then carries many requests */
} KdaHttpConfig;

typedef enum KdaHttpResult
{
	KDA_HTTP_ANSWERED,			/* status, head and answer are there, whatever the status is */
	KDA_HTTP_UNREACHABLE,		/* no connection, or it broke before the answer was (seen to be) complete */
	KDA_HTTP_TIMED_OUT,
	KDA_HTTP_UNTRUSTED,			/* TLS: the certificate is not accepted */
	KDA_HTTP_FORBIDDEN,			/* the name means addresses that may not be connected to */
	KDA_HTTP_TOO_LARGE,			/* head or body */
	KDA_HTTP_NO_MEMORY,
	KDA_HTTP_BROKEN				/* no HTTP, or a request that cannot be sent */
} KdaHttpResult;

typedef struct KdaHttp KdaHttp;

/*
 * One exchange.  What comes first is the caller's until kda_http_send(); the
 * rest may be read once kda_http_done() says so.  All memory in it goes with
 * kda_http_free(); a caller who wants to keep the answer takes it out (and
 * leaves zeroes).
 */
typedef struct KdaHttpRequest
{
	KdaText		body;			/* to be sent; an empty one, too, unless by GET */
	KdaText		answer;			/* caller sets plain for bulk data and limit = greatest size (required) */
	int			timeout_ms;		/* for all of it, from the first byte of the handshake on */

	KdaHttpResult result;
	int			status;
	KdaText		head;			/* status line and header lines as they came */
	char		error[256];		/* printable ASCII; "" if result is KDA_HTTP_ANSWERED */

	struct KdaHttpState *state;
} KdaHttpRequest;

/*
 * Initialises libcurl with secret memory.  At the start of a server, before
 * librdkafka or another library does it with other memory; elsewhere
 * kda_http_open() does it.
 */
extern void kda_http_init(void);

/* NULL: no memory, thread or descriptors. */
extern KdaHttp *kda_http_open(const KdaHttpConfig *config);

/*
 * Frees the client and all of its requests, also those under way.  Waits at
 * most deadline_ms for its thread, which then cleans up by itself.
 */
extern void kda_http_close(KdaHttp *http, int deadline_ms);

/* method: the literal "GET", "POST" or "PUT".  path: with the query, percent-encoded.  NULL: no memory. */
extern KdaHttpRequest *kda_http_request(KdaHttp *http, const char *method, const KdaEndpoint *endpoint,
										const char *path);

/* A header to be sent.  One with a control character in it makes the request KDA_HTTP_BROKEN. */
extern void kda_http_header(KdaHttpRequest *request, const char *name, const char *value);

/* Hands it to the client's thread, which begins with it after delay_ms. */
extern void kda_http_send(KdaHttpRequest *request, int64 delay_ms);

extern bool kda_http_done(const KdaHttpRequest *request);

/* At any time: what is under way is cancelled.  NULL does nothing. */
extern void kda_http_free(KdaHttpRequest *request);

/* Copies a header of the answer (the last one of that name) into value; false: there is none. */
extern bool kda_http_answer_header(const KdaHttpRequest *request, const char *name, char *value, size_t size);

#endif							/* KDA_HTTP_H */
