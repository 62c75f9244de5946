/*-------------------------------------------------------------------------
 *
 * sigv4.h
 *	  AWS Signature Version 4: signs a request in its headers, or in its query.
 *
 * A function of request, keys and time alone: no clock, no state, no errors
 * raised.  What it makes is secret memory (secret.h), because a session token
 * is part of what is signed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_SIGV4_H
#define KDA_SIGV4_H

#include "postgres.h"
#include "connector/secret.h"

#define KDA_SIGV4_UNSIGNED_PAYLOAD "UNSIGNED-PAYLOAD"

typedef struct KdaAwsKeys
{
	const char *access_key_id;
	const char *secret_access_key;
	const char *session_token;	/* NULL: keys that last */
} KdaAwsKeys;

typedef struct KdaHeader
{
	const char *name;
	const char *value;
} KdaHeader;

typedef struct KdaSigv4Request
{
	const char *method;			/* upper case */
	const char *path;			/* as it goes over the wire, percent-encoded, without the query; "" is "/" */
	const char *query;			/* as it goes over the wire, without '?'; NULL: none */
	const KdaHeader *headers;	/* all that are to be signed: Host must be among them */
	int			nheaders;
	const char *body;
	size_t		body_len;
	const char *payload_hash;	/* instead of the body's SHA-256 in hex: UNSIGNED-PAYLOAD; NULL: the body's */
	const char *region;
	const char *service;
	bool		path_as_is;		/* S3: the path is neither normalised nor encoded once more */
	bool		token_unsigned; /* the session token is sent but not signed (some older services) */
} KdaSigv4Request;

/* What came out; zeroed memory before, kda_sigv4_free() after. */
typedef struct KdaSigv4
{
	char		date[17];		/* value of X-Amz-Date: 20150830T123600Z */
	KdaText		canonical_request;
	KdaText		string_to_sign;
	KdaText		authorization;	/* value of Authorization; of presign: empty */
	KdaText		query;			/* of presign: the request's query with the signature in it */
} KdaSigv4;

/*
 * Signs in headers.  The caller sends the request's headers as given, and
 * Authorization, X-Amz-Date and, with temporary keys, X-Amz-Security-Token
 * beside; if those two are among the given headers, these are left out for
 * the ones made here.  False: no memory, no SHA-256, or a time that has no four-digit year.
 */
extern bool kda_sigv4_sign(const KdaSigv4Request *request, const KdaAwsKeys *keys, int64 unix_seconds,
						   KdaSigv4 *out);

/*
 * Signs in the query ("presigned URL"), good for expires_s seconds (AWS allows
 * 1 to 604800).  The session token is part of the query.
 */
extern bool kda_sigv4_presign(const KdaSigv4Request *request, const KdaAwsKeys *keys, int64 unix_seconds,
							  int expires_s, KdaSigv4 *out);

extern void kda_sigv4_free(KdaSigv4 *out);

/* Adds s percent-encoded as AWS wants it: all but A-Z a-z 0-9 - _ . ~ (and '/' if keep_slash). */
extern void kda_uri_encode(KdaText *to, const char *s, size_t len, bool keep_slash);

/* SHA-256 of bytes, in lower case hex.  False: OpenSSL cannot. */
extern bool kda_sha256_hex(const void *bytes, size_t len, char hex[65]);

#endif							/* KDA_SIGV4_H */
