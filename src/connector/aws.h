/*-------------------------------------------------------------------------
 *
 * aws.h
 *	  Calls of AWS's services: signed, tried again while that can help, with
 *	  the time that the service has.
 *
 * Nothing here waits.  A call is begun, looked at after each wake-up of the
 * HTTP client, and freed; pauses before further attempts are the client's, so
 * that its byte in the pipe is the only thing to wait for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_AWS_H
#define KDA_AWS_H

#include "postgres.h"
#include "connector/aws_reply.h"
#include "connector/http.h"
#include "connector/retry.h"
#include "connector/sigv4.h"

struct KdaCredentials;

/*
 * A service at an endpoint, for many calls.  The caller's memory; strings and
 * what is pointed to live as long as its calls.
 */
typedef struct KdaAwsService
{
	KdaHttp    *http;
	KdaEndpoint endpoint;
	const char *name;			/* as it stands in a signature: kinesis, sts */
	const char *region;
	struct KdaCredentials *credentials; /* NULL: calls are not signed */
	int			max_attempts;	/* of a call; 0: until it works */
	int			retry_max_ms;

	/* kept by the calls; zero before the first one */
	int64		skew_s;			/* the service's clock less ours, once it has complained */
	int64		attempts;
	int64		failures;		/* of attempts */
	int64		throttled;		/* of failures */
} KdaAwsService;

typedef struct KdaAwsCall
{
	/* the caller's, before kda_aws_call_begin() */
	KdaText		body;			/* plain, if it holds no secrets */
	const char *content_type;	/* literals */
	const char *target;			/* X-Amz-Target; NULL: none */
	size_t		max_answer;
	bool		plain_answer;	/* bulk data instead of secrets */
	int			timeout_ms;
	int64		pause_ms;		/* before the first attempt; then its own, before the next one */
	const char *secret;			/* in the body: not to be quoted in a message; lives as long; NULL: none */

	/* when kda_aws_call_done() */
	KdaText		answer;			/* of a call without trouble; whoever takes it leaves zeroes */
	KdaAwsError error;			/* of the last attempt; trouble KDA_AWS_FINE: it has worked */

	/* its own */
	KdaAwsService *service;
	KdaHttpRequest *request;
	KdaRetry	retry;
	int64		sent_at;		/* unix time */
	int64		sent_skew_s;
	KdaText		access_key_id;	/* what the attempt is signed with */
	KdaText		secret_access_key;
	KdaText		session_token;
	bool		waits_for_keys;
	bool		corrected;		/* for the clock, or for keys that had expired: at most once each */
	bool		renewed;
	bool		done;
} KdaAwsCall;

/* POST to the endpoint.  NULL: no memory. */
extern KdaAwsCall *kda_aws_call_new(KdaAwsService *service);
extern void kda_aws_call_begin(KdaAwsCall *call);

/* Goes on with it; true once it has worked or been given up. */
extern bool kda_aws_call_done(KdaAwsCall *call);

/* At any time.  NULL does nothing. */
extern void kda_aws_call_free(KdaAwsCall *call);

#endif							/* KDA_AWS_H */
