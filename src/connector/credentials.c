/*-------------------------------------------------------------------------
 *
 * credentials.c
 *	  Gets keys and renews them in time.
 *
 * One object gets keys in one way (Kind).  A role's base is another object.
 * What is named by the environment of the server is reached as the machine
 * (KDA_REACH_MACHINE), and with the environment's own STS endpoint: a token of
 * the machine's goes to nobody whom a user has named.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/credentials.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "connector/aws.h"

#define RENEW_S			300		/* before the end */
#define SPREAD_S		60		/* of it by chance, so that processes do not come together */
#define LAST_S			10		/* keys are not used any more */
#define AT_LEAST_S		600		/* keys that were just given are good, whatever the clocks say */
#define FIRST_PAUSE_MS	500
#define INSTANCE_MS		2000	/* the metadata service is near, or not there */
#define CONTAINER_MS	5000
#define MAX_ANSWER		(64 * 1024)
#define MAX_TOKEN		(32 * 1024)
#define TOKEN_TTL		"21600"

typedef enum Kind
{
	FIXED,
	ROLE,
	WEB_IDENTITY,
	CONTAINER,
	INSTANCE,
	NOTHING						/* the environment is wrong; error says how */
} Kind;

/* What an INSTANCE is asked, one after the other. */
typedef enum Step
{
	SESSION_TOKEN,
	ROLE_NAME,
	ROLE_KEYS
} Step;

struct KdaCredentials
{
	Kind		kind;
	KdaHttp    *http;
	KdaCredentials *base;		/* ROLE */
	KdaAwsService sts;			/* ROLE, WEB_IDENTITY */
	KdaEndpoint endpoint;		/* CONTAINER, INSTANCE */
	KdaText		region;
	KdaText		role_arn;
	KdaText		external_id;
	KdaText		session_name;
	KdaText		token_file;
	KdaText		token;			/* CONTAINER: the environment's; INSTANCE: the session's */
	KdaText		role_name;

	/* the keys */
	KdaText		access_key_id;
	KdaText		secret_access_key;
	KdaText		session_token;
	int64		ends_at;		/* unix time; 0: they last */
	int64		renew_at;

	/* a refresh */
	Step		step;
	KdaHttpRequest *request;
	KdaAwsCall *call;
	KdaRetry	retry;
	int64		pause_ms;		/* before the next one */
	char		error[400];
};

static void start(KdaCredentials *c);

/*---- making and freeing */

static KdaCredentials *
make(Kind kind, KdaHttp *http, const char *region, int retry_max_ms)
{
	KdaCredentials *c = kda_secret_calloc(1, sizeof(KdaCredentials));

	if (c == NULL)
		return NULL;
	c->kind = kind;
	c->http = http;
	kda_text_adds(&c->region, region);
	kda_retry_init(&c->retry, 0, FIRST_PAUSE_MS, retry_max_ms);
	c->sts.http = http;
	c->sts.name = "sts";
	c->sts.region = kda_text_str(&c->region);
	c->sts.max_attempts = 1;	/* retry above is what decides */
	c->sts.retry_max_ms = retry_max_ms;
	return c;
}

KdaCredentials *
kda_credentials_fixed(const KdaAwsKeys *keys)
{
	KdaCredentials *c = make(FIXED, NULL, "", 1000);

	if (c == NULL)
		return NULL;
	kda_text_adds(&c->access_key_id, keys->access_key_id);
	kda_text_adds(&c->secret_access_key, keys->secret_access_key);
	if (keys->session_token)
		kda_text_adds(&c->session_token, keys->session_token);
	if (c->access_key_id.failed || c->secret_access_key.failed || c->session_token.failed)
	{
		kda_credentials_free(c);
		return NULL;
	}
	return c;
}

KdaCredentials *
kda_credentials_role(KdaHttp *http, KdaCredentials *base, const KdaRole *role, const KdaEndpoint *sts,
					 const char *region, int retry_max_ms)
{
	KdaCredentials *c = base ? make(ROLE, http, region, retry_max_ms) : NULL;

	if (c == NULL)
	{
		kda_credentials_free(base);
		return NULL;
	}
	c->base = base;
	c->sts.credentials = base;
	c->sts.endpoint = *sts;
	kda_text_adds(&c->role_arn, role->arn);
	kda_text_adds(&c->session_name, role->session_name);
	if (role->external_id)
		kda_text_adds(&c->external_id, role->external_id);
	if (c->role_arn.failed || c->session_name.failed || c->external_id.failed || c->region.failed)
	{
		kda_credentials_free(c);
		return NULL;
	}
	return c;
}

static const char *
setting(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

/* Takes an endpoint from the environment; false: it is not good, and error says so. */
static bool
set_endpoint(KdaCredentials *c, const char *name, const char *url, KdaEndpoint *endpoint)
{
	char		why[200];

	if (kda_endpoint_parse(url, KDA_REACH_MACHINE, endpoint, why, sizeof(why)))
		return true;
	c->kind = NOTHING;
	snprintf(c->error, sizeof(c->error), "environment variable %s of the server is wrong: %s", name, why);
	return false;
}

static void
find_machine(KdaCredentials *c)
{
	const char *value;
	char		url[1200];

	if (setting("AWS_WEB_IDENTITY_TOKEN_FILE") && setting("AWS_ROLE_ARN"))
	{
		c->kind = WEB_IDENTITY;
		kda_text_adds(&c->token_file, setting("AWS_WEB_IDENTITY_TOKEN_FILE"));
		kda_text_adds(&c->role_arn, setting("AWS_ROLE_ARN"));
		kda_text_adds(&c->session_name, setting("AWS_ROLE_SESSION_NAME") ? setting("AWS_ROLE_SESSION_NAME") : "kda_stream");
		if ((value = setting("AWS_ENDPOINT_URL_STS")) != NULL)
			set_endpoint(c, "AWS_ENDPOINT_URL_STS", value, &c->sts.endpoint);
		else
			kda_endpoint_of_aws("sts", kda_text_str(&c->region), &c->sts.endpoint);
		return;
	}
	if ((value = setting("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")) != NULL)
	{
		c->kind = CONTAINER;
		snprintf(url, sizeof(url), "http://169.254.170.2%s%s", *value == '/' ? "" : "/", value);
		set_endpoint(c, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", url, &c->endpoint);
	}
	else if ((value = setting("AWS_CONTAINER_CREDENTIALS_FULL_URI")) != NULL)
	{
		c->kind = CONTAINER;
		set_endpoint(c, "AWS_CONTAINER_CREDENTIALS_FULL_URI", value, &c->endpoint);
	}
	if (c->kind == CONTAINER)
	{
		if (setting("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"))
			kda_text_adds(&c->token_file, setting("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"));
		else if (setting("AWS_CONTAINER_AUTHORIZATION_TOKEN"))
			kda_text_adds(&c->token, setting("AWS_CONTAINER_AUTHORIZATION_TOKEN"));
	}
	if (c->kind != INSTANCE)
		return;
	value = setting("AWS_EC2_METADATA_DISABLED");
	if (value && strcasecmp(value, "true") == 0)
	{
		c->kind = NOTHING;
		snprintf(c->error, sizeof(c->error), "the machine has no credentials: its environment names none, and AWS_EC2_METADATA_DISABLED is set");
		return;
	}
	value = setting("AWS_EC2_METADATA_SERVICE_ENDPOINT");
	set_endpoint(c, "AWS_EC2_METADATA_SERVICE_ENDPOINT", value ? value : "http://169.254.169.254", &c->endpoint);
}

KdaCredentials *
kda_credentials_machine(KdaHttp *http, const char *region, int retry_max_ms)
{
	KdaCredentials *c = make(INSTANCE, http, region, retry_max_ms);

	if (c == NULL)
		return NULL;
	find_machine(c);
	if (c->region.failed || c->token_file.failed || c->role_arn.failed || c->session_name.failed || c->token.failed)
	{
		kda_credentials_free(c);
		return NULL;
	}
	return c;
}

void
kda_credentials_free(KdaCredentials *c)
{
	if (c == NULL)
		return;
	kda_http_free(c->request);
	kda_aws_call_free(c->call);
	kda_credentials_free(c->base);
	kda_text_free(&c->region);
	kda_text_free(&c->role_arn);
	kda_text_free(&c->external_id);
	kda_text_free(&c->session_name);
	kda_text_free(&c->token_file);
	kda_text_free(&c->token);
	kda_text_free(&c->role_name);
	kda_text_free(&c->access_key_id);
	kda_text_free(&c->secret_access_key);
	kda_text_free(&c->session_token);
	kda_secret_free(c);
}

/*---- outcomes */

static const char *
what_was_done(const KdaCredentials *c)
{
	switch (c->kind)
	{
		case ROLE:
			return "could not assume the role";
		case WEB_IDENTITY:
			return "could not assume the role of the web identity";
		case CONTAINER:
			return "could not get the credentials of the container";
		default:
			return "could not get the credentials of the instance";
	}
}

/* The refresh has failed; the next one is on its way. */
static void
fail(KdaCredentials *c, const char *message)
{
	const char *of = c->kind == ROLE || c->kind == WEB_IDENTITY ? kda_text_str(&c->role_arn) : NULL;

	snprintf(c->error, sizeof(c->error), "%s%s%.150s%s: %s", what_was_done(c), of ? " \"" : "", of ? of : "", of ? "\"" : "", message);
	c->pause_ms = kda_retry_after_failure(&c->retry, 0);
	start(c);
}

/* New keys are complete in these texts, which are taken over. */
static void
succeed(KdaCredentials *c, KdaText *access_key_id, KdaText *secret_access_key, KdaText *session_token, KdaText *expiration)
{
	int64		now = (int64) time(NULL) + c->sts.skew_s;
	int64		margin = RENEW_S + (int64) pg_prng_uint64_range(&c->retry.random, 0, SPREAD_S);
	KdaText		old;

#define SWAP(a, b)	(old = *(a), *(a) = *(b), *(b) = old)
	SWAP(&c->access_key_id, access_key_id);
	SWAP(&c->secret_access_key, secret_access_key);
	SWAP(&c->session_token, session_token);
#undef SWAP
	if (!kda_aws_parse_time(kda_text_str(expiration), &c->ends_at))
		c->ends_at = now + 3600;
	c->ends_at = Max(c->ends_at, now + AT_LEAST_S);
	c->renew_at = c->ends_at - Min(margin, (c->ends_at - now) / 2);
	c->error[0] = '\0';
	kda_retry_after_success(&c->retry);
}

/* STS answers in XML, the others in JSON. */
static void
take_keys(KdaCredentials *c, const KdaText *answer, bool xml)
{
	bool		(*get) (const char *, size_t, const char *, KdaText *) = xml ? kda_aws_xml_element : kda_aws_json_field;
	const char *text = kda_text_str(answer);
	KdaText		id = {0};
	KdaText		secret = {0};
	KdaText		token = {0};
	KdaText		expiration = {0};

	if (get(text, answer->len, "AccessKeyId", &id) && get(text, answer->len, "SecretAccessKey", &secret) &&
		get(text, answer->len, xml ? "SessionToken" : "Token", &token) && id.len > 0 && secret.len > 0)
	{
		get(text, answer->len, "Expiration", &expiration);
		succeed(c, &id, &secret, &token, &expiration);
	}
	else
		fail(c, "the answer has no keys in it");
	kda_text_free(&id);
	kda_text_free(&secret);
	kda_text_free(&token);
	kda_text_free(&expiration);
}

/*---- asking */

/* A file with a token, without the line's end. */
static bool
read_token(const char *path, KdaText *token)
{
	char		buffer[4096];
	ssize_t		n = -1;
	int			fd = open(path, O_RDONLY | O_CLOEXEC);

	kda_text_reset(token);
	if (fd >= 0)
	{
		while ((n = read(fd, buffer, sizeof(buffer))) > 0 && token->len < MAX_TOKEN)
			kda_text_add(token, buffer, n);
		explicit_bzero(buffer, sizeof(buffer));
		close(fd);
	}
	while (token->len > 0 && strchr(" \t\r\n", token->data[token->len - 1]))
		token->data[--token->len] = '\0';
	return n == 0 && token->len > 0 && strlen(token->data) == token->len && !token->failed;
}

static void
add_parameter(KdaText *body, const char *name, const char *value)
{
	kda_text_addf(body, "&%s=", name);
	kda_uri_encode(body, value, strlen(value), false);
}

static void
ask_sts(KdaCredentials *c, int64 pause_ms)
{
	KdaAwsCall *call = kda_aws_call_new(&c->sts);

	if (call == NULL)
		return;					/* whoever asks next tries again */
	call->content_type = "application/x-www-form-urlencoded; charset=utf-8";
	call->max_answer = MAX_ANSWER;
	call->pause_ms = pause_ms;
	kda_text_addf(&call->body, "Action=%s&Version=2011-06-15", c->kind == ROLE ? "AssumeRole" : "AssumeRoleWithWebIdentity");
	add_parameter(&call->body, "RoleArn", kda_text_str(&c->role_arn));
	add_parameter(&call->body, "RoleSessionName", kda_text_str(&c->session_name));
	if (c->external_id.len > 0)
		add_parameter(&call->body, "ExternalId", c->external_id.data);
	if (c->kind == WEB_IDENTITY)
	{
		add_parameter(&call->body, "WebIdentityToken", kda_text_str(&c->token));
		call->secret = kda_text_str(&c->token);
	}
	kda_aws_call_begin(call);
	c->call = call;
}

static void
ask_machine(KdaCredentials *c, int64 pause_ms)
{
	KdaText		path = {0};
	bool		token_wanted = c->kind == INSTANCE && c->step == SESSION_TOKEN;

	if (c->kind == CONTAINER)
		kda_text_adds(&path, c->endpoint.path);
	else if (token_wanted)
		kda_text_adds(&path, "/latest/api/token");
	else
	{
		kda_text_adds(&path, "/latest/meta-data/iam/security-credentials/");
		if (c->step == ROLE_KEYS)
			kda_uri_encode(&path, kda_text_str(&c->role_name), c->role_name.len, false);
	}
	c->request = path.failed ? NULL : kda_http_request(c->http, token_wanted ? "PUT" : "GET", &c->endpoint, path.data);
	kda_text_free(&path);
	if (c->request == NULL)
		return;
	c->request->timeout_ms = c->kind == CONTAINER ? CONTAINER_MS : INSTANCE_MS;
	c->request->answer.limit = MAX_ANSWER;
	if (c->kind == CONTAINER && c->token.len > 0)
		kda_http_header(c->request, "Authorization", c->token.data);
	else if (token_wanted)
		kda_http_header(c->request, "X-aws-ec2-metadata-token-ttl-seconds", TOKEN_TTL);
	else if (c->kind == INSTANCE)
		kda_http_header(c->request, "X-aws-ec2-metadata-token", kda_text_str(&c->token));
	kda_http_send(c->request, pause_ms);
}

/*
 * Begins a refresh, if what it needs is there.  A file is read now, also if the
 * asking is later.
 */
static void
start(KdaCredentials *c)
{
	int64		pause_ms = c->pause_ms;
	KdaAwsKeys	base_keys;

	if (c->base)
		switch (kda_credentials_keys(c->base, &base_keys))
		{
			case KDA_KEYS_READY:
				break;
			case KDA_KEYS_COMING:
				return;
			case KDA_KEYS_NONE:
				snprintf(c->error, sizeof(c->error), "%s", kda_credentials_error(c->base));
				return;
		}
	c->pause_ms = 0;
	c->step = SESSION_TOKEN;
	if (c->token_file.len > 0 && !read_token(c->token_file.data, &c->token))
	{
		snprintf(c->error, sizeof(c->error), "%s: no token can be read from file \"%.200s\"", what_was_done(c), c->token_file.data);
		c->renew_at = (int64) time(NULL) + c->retry.max_ms / 1000 + 1;
		return;
	}
	if (c->kind == ROLE || c->kind == WEB_IDENTITY)
		ask_sts(c, pause_ms);
	else
		ask_machine(c, pause_ms);
}

/* An answer of the container or the instance. */
static void
take_answer(KdaCredentials *c)
{
	KdaHttpRequest *request = c->request;
	const char *secrets[] = {kda_text_str(&c->token), NULL};
	KdaAwsError error;
	const char *text = kda_text_str(&request->answer);
	size_t		line = strcspn(text, "\r\n");

	c->request = NULL;
	kda_aws_judge(request, (int64) time(NULL), 0, secrets, &error);
	if (error.trouble != KDA_AWS_FINE)
	{
		/* a packet that may take no hop more does not reach a container on the instance */
		if (c->kind == INSTANCE && request->result == KDA_HTTP_TIMED_OUT)
			fail(c, "the metadata service does not answer (from inside of a container its hop limit must be 2 or more)");
		else
			fail(c, error.message);
	}
	else if (c->kind == CONTAINER || c->step == ROLE_KEYS)
		take_keys(c, &request->answer, false);
	else if (line == 0 || line > MAX_TOKEN)
		fail(c, c->step == ROLE_NAME ? "the instance has no role" : "the metadata service gives no session token");
	else
	{
		KdaText    *to = c->step == SESSION_TOKEN ? &c->token : &c->role_name;

		kda_text_reset(to);
		kda_text_add(to, text, line);
		c->step++;
		ask_machine(c, 0);
	}
	kda_http_free(request);
}

/* Goes on with what is under way. */
static void
service(KdaCredentials *c)
{
	if (c->request && kda_http_done(c->request))
		take_answer(c);
	else if (c->call && kda_aws_call_done(c->call))
	{
		KdaAwsCall *call = c->call;

		c->call = NULL;
		if (call->error.trouble == KDA_AWS_FINE)
			take_keys(c, &call->answer, true);
		else
			fail(c, call->error.message);
		kda_aws_call_free(call);
	}
}

/*---- for users */

KdaKeysState
kda_credentials_keys(KdaCredentials *c, KdaAwsKeys *keys)
{
	int64		now = (int64) time(NULL) + c->sts.skew_s;
	bool		usable;

	if (c->kind == NOTHING)
		return KDA_KEYS_NONE;
	if (c->kind != FIXED)
	{
		service(c);
		if (c->request == NULL && c->call == NULL && now >= c->renew_at)
			start(c);
		kda_secret_clean_stack();
	}
	usable = c->access_key_id.len > 0 && (c->ends_at == 0 || now < c->ends_at - LAST_S);
	if (!usable)
		return c->error[0] ? KDA_KEYS_NONE : KDA_KEYS_COMING;
	keys->access_key_id = c->access_key_id.data;
	keys->secret_access_key = c->secret_access_key.data;
	keys->session_token = c->session_token.len > 0 ? c->session_token.data : NULL;
	return KDA_KEYS_READY;
}

bool
kda_credentials_refuse(KdaCredentials *c, const char *access_key_id)
{
	if (c->kind == FIXED || c->kind == NOTHING)
		return false;
	/* perhaps they are others already */
	if (strcmp(kda_text_str(&c->access_key_id), access_key_id) == 0)
	{
		kda_text_reset(&c->access_key_id);
		c->renew_at = 0;
	}
	return true;
}

const char *
kda_credentials_error(const KdaCredentials *c)
{
	return c->error;
}
