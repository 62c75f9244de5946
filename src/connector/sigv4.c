/*-------------------------------------------------------------------------
 *
 * sigv4.c
 *	  AWS Signature Version 4, after "Create a signed AWS API request" in AWS's
 *	  IAM User Guide.  Hashes are OpenSSL's: PostgreSQL's own wrappers want a
 *	  resource owner, which a worker between two transactions has not.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/sigv4.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <time.h>

#define ALGORITHM	"AWS4-HMAC-SHA256"
#define HASH_BYTES	32

/* A name and value to be sorted. */
typedef struct Pair
{
	const char *name;
	const char *value;
	int			place;			/* in the request */
} Pair;

/* In one piece of text, each name and value ends with '\0'. */
typedef struct Pairs
{
	KdaText		text;
	Pair	   *pairs;
	int			n;
} Pairs;

/*---- hashes and encodings */

static void
to_hex(const unsigned char *bytes, size_t len, char *hex)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++)
	{
		hex[2 * i] = digits[bytes[i] >> 4];
		hex[2 * i + 1] = digits[bytes[i] & 15];
	}
	hex[2 * len] = '\0';
}

bool
kda_sha256_hex(const void *bytes, size_t len, char hex[65])
{
	unsigned char hash[EVP_MAX_MD_SIZE];

	if (EVP_Digest(bytes, len, hash, NULL, EVP_sha256(), NULL) != 1)
		return false;
	to_hex(hash, HASH_BYTES, hex);
	return true;
}

static bool
hmac(const void *key, size_t key_len, const char *text, size_t len, unsigned char out[HASH_BYTES])
{
	return HMAC(EVP_sha256(), key, (int) key_len, (const unsigned char *) text, len, out, NULL) != NULL;
}

static bool
is_unreserved(unsigned char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
		c == '-' || c == '_' || c == '.' || c == '~';
}

static void
encode_byte(KdaText *to, unsigned char c)
{
	static const char digits[] = "0123456789ABCDEF";

	if (is_unreserved(c))
		kda_text_addc(to, c);
	else
	{
		kda_text_addc(to, '%');
		kda_text_addc(to, digits[c >> 4]);
		kda_text_addc(to, digits[c & 15]);
	}
}

void
kda_uri_encode(KdaText *to, const char *s, size_t len, bool keep_slash)
{
	for (size_t i = 0; i < len; i++)
		if (keep_slash && s[i] == '/')
			kda_text_addc(to, '/');
		else
			encode_byte(to, s[i]);
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* A part of a query as it was sent, perhaps encoded with less care, or not at all. */
static void
encode_again(KdaText *to, const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (s[i] == '%' && i + 2 < len && hex_digit(s[i + 1]) >= 0 && hex_digit(s[i + 2]) >= 0)
		{
			encode_byte(to, hex_digit(s[i + 1]) * 16 + hex_digit(s[i + 2]));
			i += 2;
		}
		else
			encode_byte(to, s[i]);
}

/*---- sorting */

static int
compare_query(const void *a, const void *b)
{
	const Pair *x = a;
	const Pair *y = b;
	int			c = strcmp(x->name, y->name);

	return c != 0 ? c : strcmp(x->value, y->value);
}

/* Values of the same header stay in the order of the request. */
static int
compare_headers(const void *a, const void *b)
{
	const Pair *x = a;
	const Pair *y = b;
	int			c = strcmp(x->name, y->name);

	return c != 0 ? c : x->place - y->place;
}

/* From text that is complete: n names and values. */
static bool
make_pairs(Pairs *p, int n, int (*compare) (const void *, const void *))
{
	const char *at = p->text.data;

	p->n = n;
	p->pairs = kda_secret_alloc(sizeof(Pair) * Max(n, 1));
	if (p->pairs == NULL || p->text.failed)
		return false;
	for (int i = 0; i < n; i++)
	{
		p->pairs[i].name = at;
		p->pairs[i].value = at + strlen(at) + 1;
		p->pairs[i].place = i;
		at = p->pairs[i].value + strlen(p->pairs[i].value) + 1;
	}
	if (n > 0)
		qsort(p->pairs, n, sizeof(Pair), compare);
	return true;
}

static void
free_pairs(Pairs *p)
{
	kda_text_free(&p->text);
	kda_secret_free(p->pairs);
}

/*---- the canonical request */

/*
 * RFC 3986's dot segments and repeated slashes are taken out, then what is left
 * is encoded, also what was encoded already: AWS (but for S3) wants it twice.
 */
static void
add_path(KdaText *to, const KdaSigv4Request *r)
{
	KdaText		path = {0};
	const char *p = r->path ? r->path : "";
	size_t		len;

	if (r->path_as_is)
	{
		kda_text_adds(to, *p ? p : "/");
		return;
	}
	while (*p)
	{
		const char *end;

		while (*p == '/')
			p++;
		end = p + strcspn(p, "/");
		len = end - p;
		if (len == 2 && memcmp(p, "..", 2) == 0)
		{
			while (path.len > 0 && path.data[path.len - 1] != '/')
				path.data[--path.len] = '\0';
			if (path.len > 0)
				path.data[--path.len] = '\0';
		}
		else if (len > 0 && !(len == 1 && *p == '.'))
		{
			kda_text_addc(&path, '/');
			kda_text_add(&path, p, len);
		}
		p = end;
	}
	/* a slash at the end stays */
	len = r->path ? strlen(r->path) : 0;
	if (path.len == 0 || (len > 0 && r->path[len - 1] == '/'))
		kda_text_addc(&path, '/');
	to->failed |= path.failed;
	if (path.data)
		kda_uri_encode(to, path.data, path.len, true);
	kda_text_free(&path);
}

/* Encoded, then sorted by name and value. */
static void
add_query(KdaText *to, const char *query)
{
	Pairs		p = {0};
	int			n = 0;

	while (query && *query)
	{
		size_t		len = strcspn(query, "&");
		const char *equals = memchr(query, '=', len);
		size_t		name_len = equals ? equals - query : len;

		if (len > 0)
		{
			encode_again(&p.text, query, name_len);
			kda_text_addc(&p.text, '\0');
			if (equals)
				encode_again(&p.text, equals + 1, len - name_len - 1);
			kda_text_addc(&p.text, '\0');
			n++;
		}
		query += len + (query[len] == '&');
	}
	if (!make_pairs(&p, n, compare_query))
		to->failed = true;
	for (int i = 0; !to->failed && i < n; i++)
		kda_text_addf(to, "%s%s=%s", i ? "&" : "", p.pairs[i].name, p.pairs[i].value);
	free_pairs(&p);
}

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Without space at its ends, and with one blank for any space in it. */
static void
add_trimmed(KdaText *to, const char *s)
{
	while (is_space(*s))
		s++;
	for (; *s; s++)
	{
		if (!is_space(*s))
			kda_text_addc(to, *s);
		else if (s[1] != '\0' && !is_space(s[1]))
			kda_text_addc(to, ' ');
	}
}

static void
add_header(Pairs *p, const char *name, const char *value)
{
	for (const char *c = name; *c; c++)
		kda_text_addc(&p->text, pg_ascii_tolower((unsigned char) *c));
	kda_text_addc(&p->text, '\0');
	add_trimmed(&p->text, value);
	kda_text_addc(&p->text, '\0');
	p->n++;
}

/* Their names in the order of signing: a;b;c. */
static void
add_names(KdaText *to, const Pairs *p)
{
	for (int i = 0; i < p->n; i++)
		if (i == 0 || strcmp(p->pairs[i].name, p->pairs[i - 1].name) != 0)
			kda_text_addf(to, "%s%s", i ? ";" : "", p->pairs[i].name);
}

/* extra: what is signed beside the request's own, n of them */
static bool
sort_headers(Pairs *p, const KdaSigv4Request *r, const KdaHeader *extra, int nextra)
{
	for (int i = 0; i < r->nheaders; i++)
		if (pg_strcasecmp(r->headers[i].name, "x-amz-date") != 0 &&
			pg_strcasecmp(r->headers[i].name, "x-amz-security-token") != 0)
			add_header(p, r->headers[i].name, r->headers[i].value);
	for (int i = 0; i < nextra; i++)
		add_header(p, extra[i].name, extra[i].value);
	return make_pairs(p, p->n, compare_headers);
}

static void
make_canonical(KdaText *to, const KdaSigv4Request *r, const char *query, const Pairs *p)
{
	char		hash[65];

	kda_text_addf(to, "%s\n", r->method);
	add_path(to, r);
	kda_text_addc(to, '\n');
	add_query(to, query);
	kda_text_addc(to, '\n');
	for (int i = 0; i < p->n; i++)
	{
		if (i > 0 && strcmp(p->pairs[i].name, p->pairs[i - 1].name) == 0)
			kda_text_addf(to, ",%s", p->pairs[i].value);
		else
			kda_text_addf(to, "%s%s:%s", i ? "\n" : "", p->pairs[i].name, p->pairs[i].value);
	}
	kda_text_adds(to, "\n\n");
	add_names(to, p);
	if (r->payload_hash == NULL && !kda_sha256_hex(r->body_len ? r->body : "", r->body_len, hash))
	{
		to->failed = true;
		return;
	}
	kda_text_addf(to, "\n%s", r->payload_hash ? r->payload_hash : hash);
}

/*---- signing */

static bool
format_date(int64 unix_seconds, char date[17])
{
	time_t		t = (time_t) unix_seconds;
	struct tm	tm;

	if (gmtime_r(&t, &tm) == NULL || tm.tm_year < -900 || tm.tm_year > 8099)
		return false;
	return strftime(date, 17, "%Y%m%dT%H%M%SZ", &tm) == 16;
}

static void
add_scope(KdaText *to, const KdaSigv4Request *r, const char *date)
{
	kda_text_addf(to, "%.8s/%s/%s/aws4_request", date, r->region, r->service);
}

/* The signature of the canonical request, in hex. */
static bool
sign(const KdaSigv4Request *r, const KdaAwsKeys *keys, KdaSigv4 *out, char signature[65])
{
	unsigned char key[HASH_BYTES];
	KdaText		first = {0};
	char		hash[65];
	bool		ok;

	if (out->canonical_request.failed ||
		!kda_sha256_hex(out->canonical_request.data, out->canonical_request.len, hash))
		return false;
	kda_text_addf(&out->string_to_sign, ALGORITHM "\n%s\n", out->date);
	add_scope(&out->string_to_sign, r, out->date);
	kda_text_addf(&out->string_to_sign, "\n%s", hash);

	kda_text_adds(&first, "AWS4");
	kda_text_adds(&first, keys->secret_access_key);
	ok = !first.failed && !out->string_to_sign.failed &&
		hmac(first.data, first.len, out->date, 8, key) &&
		hmac(key, HASH_BYTES, r->region, strlen(r->region), key) &&
		hmac(key, HASH_BYTES, r->service, strlen(r->service), key) &&
		hmac(key, HASH_BYTES, "aws4_request", 12, key) &&
		hmac(key, HASH_BYTES, out->string_to_sign.data, out->string_to_sign.len, key);
	if (ok)
		to_hex(key, HASH_BYTES, signature);
	explicit_bzero(key, sizeof(key));
	kda_text_free(&first);
	return ok;
}

bool
kda_sigv4_sign(const KdaSigv4Request *r, const KdaAwsKeys *keys, int64 unix_seconds, KdaSigv4 *out)
{
	Pairs		p = {0};
	KdaHeader	extra[2];
	int			nextra = 0;
	char		signature[65];
	bool		ok;

	if (!format_date(unix_seconds, out->date))
		return false;
	extra[nextra++] = (KdaHeader) {"x-amz-date", out->date};
	if (keys->session_token && !r->token_unsigned)
		extra[nextra++] = (KdaHeader) {"x-amz-security-token", keys->session_token};
	ok = sort_headers(&p, r, extra, nextra);
	if (ok)
	{
		make_canonical(&out->canonical_request, r, r->query, &p);
		ok = sign(r, keys, out, signature);
	}
	if (ok)
	{
		kda_text_addf(&out->authorization, ALGORITHM " Credential=%s/", keys->access_key_id);
		add_scope(&out->authorization, r, out->date);
		kda_text_adds(&out->authorization, ", SignedHeaders=");
		add_names(&out->authorization, &p);
		kda_text_addf(&out->authorization, ", Signature=%s", signature);
		ok = !out->authorization.failed;
	}
	free_pairs(&p);
	return ok;
}

static void
add_parameter(KdaText *to, const char *name, const char *value, size_t len)
{
	kda_text_addf(to, "%s%s=", to->len ? "&" : "", name);
	kda_uri_encode(to, value, len, false);
}

bool
kda_sigv4_presign(const KdaSigv4Request *r, const KdaAwsKeys *keys, int64 unix_seconds, int expires_s,
				  KdaSigv4 *out)
{
	Pairs		p = {0};
	KdaText		names = {0};
	KdaText		credential = {0};
	char		seconds[16];
	char		signature[65];
	bool		ok;

	if (!format_date(unix_seconds, out->date))
		return false;
	ok = sort_headers(&p, r, NULL, 0);
	if (ok)
	{
		add_names(&names, &p);
		kda_text_addf(&credential, "%s/", keys->access_key_id);
		add_scope(&credential, r, out->date);
		snprintf(seconds, sizeof(seconds), "%d", expires_s);
		if (r->query)
			kda_text_adds(&out->query, r->query);
		add_parameter(&out->query, "X-Amz-Algorithm", ALGORITHM, strlen(ALGORITHM));
		add_parameter(&out->query, "X-Amz-Credential", kda_text_str(&credential), credential.len);
		add_parameter(&out->query, "X-Amz-Date", out->date, 16);
		add_parameter(&out->query, "X-Amz-Expires", seconds, strlen(seconds));
		add_parameter(&out->query, "X-Amz-SignedHeaders", kda_text_str(&names), names.len);
		if (keys->session_token && !r->token_unsigned)
			add_parameter(&out->query, "X-Amz-Security-Token", keys->session_token, strlen(keys->session_token));
		ok = !names.failed && !credential.failed && !out->query.failed;
	}
	if (ok)
	{
		make_canonical(&out->canonical_request, r, out->query.data, &p);
		ok = sign(r, keys, out, signature);
	}
	if (ok)
	{
		if (keys->session_token && r->token_unsigned)
			add_parameter(&out->query, "X-Amz-Security-Token", keys->session_token, strlen(keys->session_token));
		add_parameter(&out->query, "X-Amz-Signature", signature, 64);
		ok = !out->query.failed;
	}
	kda_text_free(&names);
	kda_text_free(&credential);
	free_pairs(&p);
	return ok;
}

void
kda_sigv4_free(KdaSigv4 *out)
{
	kda_text_free(&out->canonical_request);
	kda_text_free(&out->string_to_sign);
	kda_text_free(&out->authorization);
	kda_text_free(&out->query);
}
