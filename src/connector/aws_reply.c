/*-------------------------------------------------------------------------
 *
 * aws_reply.c
 *	  Reads what AWS's services answer.
 *
 * Which codes are tried again is what AWS's own SDKs do (botocore's retry
 * handlers, "standard" mode).  An error's body may be JSON (Kinesis), XML (STS,
 * and what stands before any service) or a page of some box in between.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/aws_reply.h"

#include <curl/curl.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define MAX_DEPTH	64
#define SKEW_S		240			/* AWS accepts 300 */

/*---- JSON */

typedef struct Json
{
	const char *p;
	const char *end;
} Json;

static void
skip_space(Json *j)
{
	while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r'))
		j->p++;
}

static bool
take(Json *j, char c)
{
	skip_space(j);
	if (j->p >= j->end || *j->p != c)
		return false;
	j->p++;
	return true;
}

static void
add_utf8(KdaText *to, uint32 c)
{
	if (c < 0x80)
		kda_text_addc(to, c);
	else if (c < 0x800)
	{
		kda_text_addc(to, 0xC0 | (c >> 6));
		kda_text_addc(to, 0x80 | (c & 0x3F));
	}
	else if (c < 0x10000)
	{
		kda_text_addc(to, 0xE0 | (c >> 12));
		kda_text_addc(to, 0x80 | ((c >> 6) & 0x3F));
		kda_text_addc(to, 0x80 | (c & 0x3F));
	}
	else
	{
		kda_text_addc(to, 0xF0 | (c >> 18));
		kda_text_addc(to, 0x80 | ((c >> 12) & 0x3F));
		kda_text_addc(to, 0x80 | ((c >> 6) & 0x3F));
		kda_text_addc(to, 0x80 | (c & 0x3F));
	}
}

/* The four digits of \uXXXX. */
static bool
take_hex4(Json *j, uint32 *c)
{
	*c = 0;
	if (j->end - j->p < 4)
		return false;
	for (int i = 0; i < 4; i++, j->p++)
	{
		const char *digits = "0123456789abcdef";
		const char *d = *j->p ? strchr(digits, *j->p >= 'A' && *j->p <= 'F' ? *j->p + ('a' - 'A') : *j->p) : NULL;

		if (d == NULL)
			return false;
		*c = *c * 16 + (uint32) (d - digits);
	}
	return true;
}

static bool
take_escape(Json *j, KdaText *to)
{
	static const char from[] = "\"\\/bfnrt";
	static const char meant[] = "\"\\/\b\f\n\r\t";
	const char *e;
	uint32		c,
				low;

	if (j->p >= j->end)
		return false;
	if (*j->p != 'u')
	{
		e = *j->p ? strchr(from, *j->p++) : NULL;
		if (e && to)
			kda_text_addc(to, meant[e - from]);
		return e != NULL;
	}
	j->p++;
	if (!take_hex4(j, &c) || c == 0)
		return false;
	if (c >= 0xD800 && c <= 0xDBFF)
	{
		if (j->end - j->p < 2 || j->p[0] != '\\' || j->p[1] != 'u')
			return false;
		j->p += 2;
		if (!take_hex4(j, &low) || low < 0xDC00 || low > 0xDFFF)
			return false;
		c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
	}
	if (to)
		add_utf8(to, c);
	return true;
}

/* A string; to: where it goes, or NULL. */
static bool
take_string(Json *j, KdaText *to)
{
	if (!take(j, '"'))
		return false;
	while (j->p < j->end && *j->p != '"')
	{
		const char *from = j->p;

		if (*j->p == '\\')
		{
			j->p++;
			if (!take_escape(j, to))
				return false;
			continue;
		}
		while (j->p < j->end && *j->p != '"' && *j->p != '\\')
			if (*j->p++ == '\0')
				return false;
		if (to)
			kda_text_add(to, from, j->p - from);
	}
	return take(j, '"');
}

/* A number or word. */
static bool
take_scalar(Json *j, KdaText *to)
{
	const char *from;

	skip_space(j);
	from = j->p;
	while (j->p < j->end && *j->p && strchr("+-.0123456789abcdefghijklmnopqrstuvwxyzE", *j->p))
		j->p++;
	if (to)
		kda_text_add(to, from, j->p - from);
	return j->p > from;
}

static bool
skip_value(Json *j, int depth)
{
	char		close;

	skip_space(j);
	if (j->p >= j->end || depth > MAX_DEPTH)
		return false;
	if (*j->p == '"')
		return take_string(j, NULL);
	if (*j->p != '{' && *j->p != '[')
		return take_scalar(j, NULL);
	close = *j->p++ == '{' ? '}' : ']';
	if (take(j, close))
		return true;
	do
	{
		if (close == '}' && (!take_string(j, NULL) || !take(j, ':')))
			return false;
		if (!skip_value(j, depth + 1))
			return false;
	} while (take(j, ','));
	return take(j, close);
}

/* Goes to the value of a field of an object. */
static bool
find_field(Json *j, const char *name)
{
	KdaText		key = {0};
	bool		found = false;

	if (!take(j, '{'))
		return false;
	do
	{
		kda_text_reset(&key);
		if (!take_string(j, &key) || !take(j, ':'))
			break;
		skip_space(j);
		found = strcmp(kda_text_str(&key), name) == 0;
	} while (!found && skip_value(j, 0) && take(j, ','));
	kda_text_free(&key);
	return found && j->p < j->end;
}

bool
kda_aws_json_field(const char *json, size_t len, const char *name, KdaText *value)
{
	Json		j = {json, json + len};

	if (!find_field(&j, name) || *j.p == '{' || *j.p == '[')
		return false;
	kda_text_reset(value);
	return (*j.p == '"' ? take_string(&j, value) : take_scalar(&j, value)) && !value->failed;
}

bool
kda_aws_json_each(const char *json, size_t len, const char *name,
				  bool (*each) (void *arg, const char *element, size_t len), void *arg)
{
	Json		j = {json, json + len};

	if (!find_field(&j, name) || !take(&j, '['))
		return false;
	if (take(&j, ']'))
		return true;
	do
	{
		const char *from;

		skip_space(&j);
		from = j.p;
		if (!skip_value(&j, 0))
			return false;
		if (!each(arg, from, j.p - from))
			return true;
	} while (take(&j, ','));
	return take(&j, ']');
}

/*---- XML */

/* A character reference or one of XML's five names; gives what follows it. */
static const char *
take_entity(const char *p, const char *end, KdaText *to)
{
	static const struct
	{
		const char *name;
		char		meant;
	}			names[] = {{"amp;", '&'}, {"lt;", '<'}, {"gt;", '>'}, {"quot;", '"'}, {"apos;", '\''}};
	uint32		c = 0;
	bool		hex;

	for (int i = 0; i < (int) lengthof(names); i++)
		if ((size_t) (end - p) >= strlen(names[i].name) && strncmp(p, names[i].name, strlen(names[i].name)) == 0)
		{
			kda_text_addc(to, names[i].meant);
			return p + strlen(names[i].name);
		}
	if (p >= end || *p++ != '#')
		return NULL;
	hex = p < end && *p == 'x';
	for (p += hex; p < end && *p != ';'; p++)
	{
		int			digit = *p >= '0' && *p <= '9' ? *p - '0' : hex && *p >= 'a' && *p <= 'f' ? *p - 'a' + 10 :
		hex && *p >= 'A' && *p <= 'F' ? *p - 'A' + 10 : -1;

		if (digit < 0)
			return NULL;
		c = c * (hex ? 16 : 10) + digit;
		if (c > 0x10FFFF)
			return NULL;
	}
	if (p >= end || c == 0)
		return NULL;
	add_utf8(to, c);
	return p + 1;
}

/* Finds "<name" followed by the end of a name. */
static const char *
find_tag(const char *p, const char *end, const char *name)
{
	size_t		len = strlen(name);

	for (; (size_t) (end - p) > len + 1; p++)
	{
		p = memchr(p, '<', end - p);
		if (p == NULL || (size_t) (end - p) <= len + 1)
			return NULL;
		if (memcmp(p + 1, name, len) == 0 && (p[len + 1] == '>' || p[len + 1] == ' '))
			return p;
	}
	return NULL;
}

bool
kda_aws_xml_element(const char *xml, size_t len, const char *name, KdaText *value)
{
	const char *end = xml + len;
	const char *p = find_tag(xml, end, name);

	p = p ? memchr(p, '>', end - p) : NULL;
	if (p == NULL)
		return false;
	kda_text_reset(value);
	for (p++; p && p < end && *p != '<' && *p != '\0';)
		if (*p == '&')
			p = take_entity(p + 1, end, value);
		else
			kda_text_addc(value, *p++);
	return p && p + 1 < end && p[0] == '<' && p[1] == '/' && !value->failed;
}

/*---- times */

bool
kda_aws_parse_time(const char *text, int64 *unix_seconds)
{
	struct tm	t = {0};
	int			n = 0;

	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &t.tm_year, &t.tm_mon, &t.tm_mday, &t.tm_hour, &t.tm_min, &t.tm_sec, &n) != 6)
		return false;
	if (text[n] == '.')
		n += 1 + (int) strspn(text +n + 1, "0123456789");
	if (strcmp(text +n, "Z") != 0 && strcmp(text +n, "+00:00") != 0)
		return false;
	if (t.tm_year < 1970 || t.tm_mon < 1 || t.tm_mon > 12 || t.tm_mday < 1 || t.tm_mday > 31 ||
		t.tm_hour > 23 || t.tm_min > 59 || t.tm_sec > 60)
		return false;
	t.tm_year -= 1900;
	t.tm_mon -= 1;
	*unix_seconds = timegm(&t);
	return true;
}

/*---- errors */

typedef struct Code
{
	const char *code;
	KdaAwsTrouble trouble;
} Code;

static const Code codes[] = {
	{"Throttling", KDA_AWS_THROTTLED},
	{"ThrottlingException", KDA_AWS_THROTTLED},
	{"ThrottledException", KDA_AWS_THROTTLED},
	{"RequestThrottled", KDA_AWS_THROTTLED},
	{"RequestThrottledException", KDA_AWS_THROTTLED},
	{"TooManyRequestsException", KDA_AWS_THROTTLED},
	{"ProvisionedThroughputExceededException", KDA_AWS_THROTTLED},
	{"KMSThrottlingException", KDA_AWS_THROTTLED},
	{"RequestLimitExceeded", KDA_AWS_THROTTLED},
	{"LimitExceededException", KDA_AWS_THROTTLED},
	{"BandwidthLimitExceeded", KDA_AWS_THROTTLED},
	{"SlowDown", KDA_AWS_THROTTLED},
	{"EC2ThrottledException", KDA_AWS_THROTTLED},
	{"PriorRequestNotComplete", KDA_AWS_AGAIN},
	{"TransactionInProgressException", KDA_AWS_AGAIN},
	{"RequestTimeout", KDA_AWS_AGAIN},
	{"RequestTimeoutException", KDA_AWS_AGAIN},
	{"InternalFailure", KDA_AWS_AGAIN},
	{"InternalFailureException", KDA_AWS_AGAIN},
	{"InternalServerError", KDA_AWS_AGAIN},
	{"InternalError", KDA_AWS_AGAIN},
	{"ServiceUnavailable", KDA_AWS_AGAIN},
	{"ServiceUnavailableException", KDA_AWS_AGAIN},
	{"IDPCommunicationError", KDA_AWS_AGAIN},
	{"ExpiredToken", KDA_AWS_EXPIRED},
	{"ExpiredTokenException", KDA_AWS_EXPIRED},
	{"TokenRefreshRequired", KDA_AWS_EXPIRED},
	{"AccessDenied", KDA_AWS_DENIED},
	{"AccessDeniedException", KDA_AWS_DENIED},
	{"InvalidClientTokenId", KDA_AWS_DENIED},
	{"UnrecognizedClientException", KDA_AWS_DENIED},
	{"IncompleteSignature", KDA_AWS_DENIED},
	{"IncompleteSignatureException", KDA_AWS_DENIED},
	{"MissingAuthenticationToken", KDA_AWS_DENIED},
	{"MissingAuthenticationTokenException", KDA_AWS_DENIED},
	{"OptInRequired", KDA_AWS_DENIED},
};

/* What a service says of a signature whose time is wrong; without a wrong time it is the keys that are. */
static const char *const skew_codes[] = {
	"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture", "InvalidSignatureException",
	"SignatureDoesNotMatch", "AuthFailure", "InvalidSignature"
};

static KdaAwsTrouble
trouble_of_status(int status)
{
	if (status == 429)
		return KDA_AWS_THROTTLED;
	if (status == 408 || status == 500 || status == 502 || status == 503 || status == 504)
		return KDA_AWS_AGAIN;
	if (status == 401 || status == 403)
		return KDA_AWS_DENIED;
	return KDA_AWS_REFUSED;
}

/* Every occurrence of a secret is replaced; where it was stays to be seen. */
static void
take_out(KdaText *from, const char *const *secrets)
{
	for (; *secrets; secrets++)
	{
		size_t		len = strlen(*secrets);

		if (len > 0 && from->data)
			for (char *p = from->data; (p = strstr(p, *secrets)) != NULL; p += len)
				memset(p, '*', len);
	}
}

/* "com.amazonaws.kinesis#ExpiredIteratorException:http://..." is ExpiredIteratorException. */
static void
set_code(KdaAwsError *error, const char *said, const char *const *secrets)
{
	KdaText		copy = {0};
	const char *code;
	const char *hash;
	size_t		len;

	kda_text_adds(&copy, said);
	take_out(&copy, secrets);
	code = kda_text_str(&copy);
	hash = strchr(code, '#');
	if (hash)
		code = hash + 1;
	len = strspn(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
	if (len > 0 && len < sizeof(error->code))
		snprintf(error->code, sizeof(error->code), "%.*s", (int) len, code);
	kda_text_free(&copy);
}

/* Code and text for people.  AWS's texts may quote what was signed, with the session token in it. */
static void
set_message(KdaAwsError *error, KdaText *text, const char *const *secrets)
{
	char	   *quoted;
	size_t		len;

	take_out(text, secrets);
	if (text->data && (quoted = strstr(text->data, "The Canonical String")) != NULL)
		*quoted = '\0';
	len = snprintf(error->message, sizeof(error->message), "%s%s%s", error->code[0] ? error->code : "",
				   error->code[0] && *kda_text_str(text) ? ": " : "", kda_text_str(text));
	if (error->message[0] == '\0')
		len = snprintf(error->message, sizeof(error->message), "HTTP status %d", error->status);
	len = Min(len, sizeof(error->message) - 1);
	for (size_t i = 0; i < len; i++)
		if (error->message[i] < ' ' || error->message[i] > '~')
			error->message[i] = error->message[i] == '\n' || error->message[i] == '\r' || error->message[i] == '\t' ? ' ' : '?';
	while (len > 0 && error->message[len - 1] == ' ')
		error->message[--len] = '\0';
}

static bool
is_skew_code(const char *code)
{
	for (int i = 0; i < (int) lengthof(skew_codes); i++)
		if (strcmp(code, skew_codes[i]) == 0)
			return true;
	return false;
}

/* What an answer with an error status says, whatever its form. */
static void
read_error(const KdaHttpRequest *request, const char *const *secrets, KdaAwsError *error, KdaText *message)
{
	const char *body = kda_text_str(&request->answer);
	size_t		len = request->answer.len;
	KdaText		code = {0};
	char		header[200];

	if (kda_http_answer_header(request, "x-amzn-ErrorType", header, sizeof(header)))
		set_code(error, header, secrets);
	if (kda_aws_json_field(body, len, "__type", &code) || kda_aws_json_field(body, len, "code", &code) ||
		kda_aws_json_field(body, len, "Code", &code) || kda_aws_xml_element(body, len, "Code", &code))
		set_code(error, kda_text_str(&code), secrets);
	if (!kda_aws_json_field(body, len, "message", message) && !kda_aws_json_field(body, len, "Message", message) &&
		!kda_aws_xml_element(body, len, "Message", message))
	{
		/* a page of something that is no service of AWS's says more than nothing */
		kda_text_reset(message);
		if (error->code[0] == '\0')
			kda_text_addf(message, "HTTP status %d%s%s", error->status, len > 0 ? ": " : "", body);
	}
	kda_text_free(&code);
}

void
kda_aws_judge(const KdaHttpRequest *request, int64 now, int64 skew_s, const char *const *secrets, KdaAwsError *error)
{
	KdaText		message = {0};
	char		header[100];
	int64		date = -1;

	memset(error, 0, sizeof(KdaAwsError));
	if (request->result != KDA_HTTP_ANSWERED)
	{
		/* a request that cannot be sent, or whose answer cannot be taken, will not get better */
		error->trouble = request->result == KDA_HTTP_BROKEN || request->result == KDA_HTTP_FORBIDDEN ||
			request->result == KDA_HTTP_TOO_LARGE ? KDA_AWS_REFUSED : KDA_AWS_AGAIN;
		snprintf(error->message, sizeof(error->message), "%s", request->error);
		return;
	}
	error->status = request->status;
	if (request->status >= 200 && request->status < 300)
		return;

	read_error(request, secrets, error, &message);
	error->trouble = trouble_of_status(error->status);
	for (int i = 0; i < (int) lengthof(codes); i++)
		if (strcmp(error->code, codes[i].code) == 0)
			error->trouble = codes[i].trouble;
	if (kda_http_answer_header(request, "Retry-After", header, sizeof(header)))
		error->retry_after_ms = Max(0, Min(atoll(header), 3600)) * 1000;
	if (kda_http_answer_header(request, "Date", header, sizeof(header)))
		date = curl_getdate(header, NULL);
	if (is_skew_code(error->code))
	{
		error->trouble = KDA_AWS_DENIED;
		if (date >= 0 && (date - now - skew_s > SKEW_S || now + skew_s - date > SKEW_S))
		{
			error->trouble = KDA_AWS_SKEWED;
			error->skew_s = date - now;
		}
	}
	if (error->status >= 300 && error->status < 400 && error->code[0] == '\0')
	{
		kda_text_reset(&message);
		kda_text_addf(&message, "HTTP status %d: redirects are not followed", error->status);
	}
	set_message(error, &message, secrets);
	kda_text_free(&message);
}
