/*-------------------------------------------------------------------------
 *
 * aws.c
 *	  A call of a service: keys, signature, attempt, judgement, once more.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/aws.h"

#include <string.h>
#include <time.h>

#include "connector/credentials.h"

#define FIRST_PAUSE_MS	100
#define THROTTLED_MS	500		/* who was throttled begins with a longer pause */

KdaAwsCall *
kda_aws_call_new(KdaAwsService *service)
{
	KdaAwsCall *call = kda_secret_calloc(1, sizeof(KdaAwsCall));

	if (call == NULL)
		return NULL;
	call->service = service;
	call->content_type = "application/x-amz-json-1.1";
	call->max_answer = 1024 * 1024;
	call->timeout_ms = KDA_HTTP_TIMEOUT_MS;
	kda_retry_init(&call->retry, service->max_attempts, FIRST_PAUSE_MS, service->retry_max_ms);
	return call;
}

static void
give_up(KdaAwsCall *call, KdaAwsTrouble trouble, const char *message)
{
	call->error.trouble = trouble;
	if (message)
		snprintf(call->error.message, sizeof(call->error.message), "%s", message);
	call->done = true;
}

/* A copy, because the keys may be renewed while the attempt is under way. */
static bool
copy_keys(KdaAwsCall *call, const KdaAwsKeys *keys)
{
	kda_text_reset(&call->access_key_id);
	kda_text_reset(&call->secret_access_key);
	kda_text_reset(&call->session_token);
	kda_text_adds(&call->access_key_id, keys->access_key_id);
	kda_text_adds(&call->secret_access_key, keys->secret_access_key);
	if (keys->session_token)
		kda_text_adds(&call->session_token, keys->session_token);
	return !call->access_key_id.failed && !call->secret_access_key.failed && !call->session_token.failed;
}

static KdaAwsKeys
keys_of(KdaAwsCall *call)
{
	KdaAwsKeys	keys = {
		kda_text_str(&call->access_key_id),
		kda_text_str(&call->secret_access_key),
		call->session_token.len > 0 ? call->session_token.data : NULL
	};

	return keys;
}

/* Signs and adds the headers.  The time of the signature is that at which it will be sent. */
static bool
sign(KdaAwsCall *call)
{
	KdaAwsService *service = call->service;
	KdaAwsKeys	keys = keys_of(call);
	KdaHeader	headers[3];
	int			n = 0;
	KdaSigv4Request request = {0};
	KdaSigv4	signature = {0};
	bool		ok;

	headers[n++] = (KdaHeader)
	{
		"Host", service->endpoint.host
	};
	headers[n++] = (KdaHeader)
	{
		"Content-Type", call->content_type
	};
	if (call->target)
		headers[n++] = (KdaHeader)
	{
		"X-Amz-Target", call->target
	};
	request.method = "POST";
	request.path = "/";
	request.headers = headers;
	request.nheaders = n;
	request.body = kda_text_str(&call->body);
	request.body_len = call->body.len;
	request.region = service->region;
	request.service = service->name;
	ok = kda_sigv4_sign(&request, &keys, call->sent_at + call->sent_skew_s, &signature);
	if (ok)
	{
		kda_http_header(call->request, "X-Amz-Date", signature.date);
		if (keys.session_token)
			kda_http_header(call->request, "X-Amz-Security-Token", keys.session_token);
		kda_http_header(call->request, "Authorization", kda_text_str(&signature.authorization));
	}
	kda_sigv4_free(&signature);
	return ok;
}

/* Sends an attempt, as soon as there are keys. */
static void
attempt(KdaAwsCall *call)
{
	KdaAwsService *service = call->service;

	call->waits_for_keys = false;
	if (service->credentials)
	{
		KdaAwsKeys	keys;

		switch (kda_credentials_keys(service->credentials, &keys))
		{
			case KDA_KEYS_READY:
				break;
			case KDA_KEYS_COMING:
				call->waits_for_keys = true;
				return;
			case KDA_KEYS_NONE:
				give_up(call, KDA_AWS_DENIED, kda_credentials_error(service->credentials));
				return;
		}
		if (!copy_keys(call, &keys))
		{
			give_up(call, KDA_AWS_AGAIN, "out of memory");
			return;
		}
	}
	call->request = kda_http_request(service->http, "POST", &service->endpoint, "/");
	if (call->request == NULL)
	{
		give_up(call, KDA_AWS_AGAIN, "out of memory");
		return;
	}
	call->request->timeout_ms = call->timeout_ms;
	call->request->answer.limit = call->max_answer;
	call->request->answer.plain = call->plain_answer;
	call->request->body.plain = call->body.plain;
	kda_text_add(&call->request->body, kda_text_str(&call->body), call->body.len);
	kda_http_header(call->request, "Content-Type", call->content_type);
	if (call->target)
		kda_http_header(call->request, "X-Amz-Target", call->target);
	call->sent_at = (int64) time(NULL) + call->pause_ms / 1000;
	call->sent_skew_s = service->skew_s;
	if (service->credentials && !sign(call))
	{
		give_up(call, KDA_AWS_AGAIN, "the request could not be signed");
		return;
	}
	service->attempts++;
	kda_http_send(call->request, call->pause_ms);
}

/* Once more after a pause, or never. */
static void
again(KdaAwsCall *call, int64 at_least_ms)
{
	call->pause_ms = kda_retry_after_failure(&call->retry, at_least_ms);
	if (call->pause_ms < 0)
		call->done = true;
	else
		attempt(call);
}

static void
judge(KdaAwsCall *call)
{
	KdaAwsService *service = call->service;
	const char *secrets[5];
	int			n = 0;

	secrets[n++] = kda_text_str(&call->secret_access_key);
	secrets[n++] = kda_text_str(&call->session_token);
	secrets[n++] = kda_text_str(&call->access_key_id);
	if (call->secret)
		secrets[n++] = call->secret;
	secrets[n] = NULL;
	kda_aws_judge(call->request, call->sent_at, call->sent_skew_s, secrets, &call->error);
	if (call->error.trouble == KDA_AWS_FINE)
	{
		call->answer = call->request->answer;
		memset(&call->request->answer, 0, sizeof(KdaText));
		call->done = true;
	}
	kda_http_free(call->request);
	call->request = NULL;
	if (call->done)
		return;
	service->failures++;
	switch (call->error.trouble)
	{
		case KDA_AWS_AGAIN:
			again(call, call->error.retry_after_ms);
			break;
		case KDA_AWS_THROTTLED:
			service->throttled++;
			again(call, Max(call->error.retry_after_ms, THROTTLED_MS));
			break;
		case KDA_AWS_SKEWED:
			/* at once, but only once: a clock that moves is no clock */
			service->skew_s = call->error.skew_s;
			call->pause_ms = 0;
			if (call->corrected)
				again(call, 0);
			else
				attempt(call);
			call->corrected = true;
			break;
		case KDA_AWS_EXPIRED:
			call->pause_ms = 0;
			if (service->credentials && !call->renewed &&
				kda_credentials_refuse(service->credentials, kda_text_str(&call->access_key_id)))
			{
				call->renewed = true;
				attempt(call);
				break;
			}
			/* FALLTHROUGH */
		default:
			call->done = true;
	}
}

void
kda_aws_call_begin(KdaAwsCall *call)
{
	if (call->body.failed)
		give_up(call, KDA_AWS_AGAIN, "out of memory");
	else
		attempt(call);
	kda_secret_clean_stack();
}

bool
kda_aws_call_done(KdaAwsCall *call)
{
	if (call->done || (!call->waits_for_keys && !kda_http_done(call->request)))
		return call->done;
	if (call->waits_for_keys)
		attempt(call);
	else
		judge(call);
	kda_secret_clean_stack();
	return call->done;
}

void
kda_aws_call_free(KdaAwsCall *call)
{
	if (call == NULL)
		return;
	kda_http_free(call->request);
	kda_text_free(&call->body);
	kda_text_free(&call->answer);
	kda_text_free(&call->access_key_id);
	kda_text_free(&call->secret_access_key);
	kda_text_free(&call->session_token);
	kda_secret_free(call);
}
