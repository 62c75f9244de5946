/*-------------------------------------------------------------------------
 *
 * aws_reply.h
 *	  What AWS's services answer: fields of flat JSON and XML, and what an
 *	  error means for the call.
 *
 * Answers hold secrets, so nothing of them goes to other memory than the
 * caller's.  They come from the network, so they may be anything.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_AWS_REPLY_H
#define KDA_AWS_REPLY_H

#include "postgres.h"
#include "connector/http.h"

typedef enum KdaAwsTrouble
{
	KDA_AWS_FINE,
	KDA_AWS_AGAIN,				/* the service or the network had trouble: the same again */
	KDA_AWS_THROTTLED,			/* too many calls: again, later */
	KDA_AWS_SKEWED,				/* our clock differs: again with skew_s */
	KDA_AWS_EXPIRED,			/* the keys have ended: again with others */
	KDA_AWS_DENIED,				/* these keys may not, or are wrong */
	KDA_AWS_REFUSED				/* the request is wrong for this service */
} KdaAwsTrouble;

typedef struct KdaAwsError
{
	KdaAwsTrouble trouble;
	int			status;			/* of HTTP; 0: there was no answer */
	char		code[80];		/* AWS's word, as ProvisionedThroughputExceededException; "" if it said none */
	char		message[300];	/* code and text for people: printable ASCII without secrets */
	int64		skew_s;			/* KDA_AWS_SKEWED: the service's time less ours */
	int64		retry_after_ms; /* as it asked; 0: it did not */
} KdaAwsError;

/*
 * Judges a request that is done.  now: our unix time when it was sent, and
 * skew_s what was added to it for the signature; secrets: what was sent with it
 * and must not be in the message even if the other side quotes it, up to a NULL.
 */
extern void kda_aws_judge(const KdaHttpRequest *request, int64 now, int64 skew_s, const char *const *secrets,
						  KdaAwsError *error);

/* A string (or number) among the fields of a JSON object, decoded; false: there is none, or it is no JSON. */
extern bool kda_aws_json_field(const char *json, size_t len, const char *name, KdaText *value);

/*
 * Gives each() the elements of the array that is among the fields of a JSON
 * object, as they stand there, until it says false.  False: there is no such
 * array, or it is no JSON.
 */
extern bool kda_aws_json_each(const char *json, size_t len, const char *name,
							  bool (*each) (void *arg, const char *element, size_t len), void *arg);

/* The text of the first element of that name, decoded. */
extern bool kda_aws_xml_element(const char *xml, size_t len, const char *name, KdaText *value);

/* "2026-01-01T10:00:00Z", perhaps with fractions, as unix time. */
extern bool kda_aws_parse_time(const char *text, int64 *unix_seconds);

#endif							/* KDA_AWS_REPLY_H */
