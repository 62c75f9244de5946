/*-------------------------------------------------------------------------
 *
 * kafka_token.h
 *	  What Amazon MSK takes for a password: a URL signed with AWS's keys, and
 *	  its way from the thread that has the keys to the library.
 *
 * Both functions and memory need nothing of a server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_KAFKA_TOKEN_H
#define KDA_KAFKA_TOKEN_H

#include "postgres.h"

#include <librdkafka/rdkafka.h>
#include <pthread.h>

#include "connector/secret.h"
#include "connector/sigv4.h"

#define KDA_MSK_IAM			"AWS_MSK_IAM"	/* as a value of sasl.mechanisms */
#define KDA_MSK_TOKEN_S		900				/* a token's life, as AWS has it */

/* The newest token; in secret memory, for several threads. */
typedef struct KdaKafkaToken
{
	pthread_mutex_t mutex;

	/* protected by the mutex */
	KdaText		text;			/* "": there is none yet */
	int64		expires_ms;		/* since 1970 */
	uint64		serial;			/* counts the tokens */
	char		error[256];		/* why there is none; "" */
} KdaKafkaToken;

/* NULL: no memory. */
extern KdaKafkaToken *kda_kafka_token_new(void);

/* NULL does nothing. */
extern void kda_kafka_token_free(KdaKafkaToken *token);

/*
 * Makes one from keys, good for KDA_MSK_TOKEN_S from unix_seconds on (format:
 * github.com/aws/aws-msk-iam-sasl-signer-python).  False: no memory.
 */
extern bool kda_kafka_token_make(KdaKafkaToken *token, const char *region, const KdaAwsKeys *keys, int64 unix_seconds);

/* There is no new one; error "": there will be. */
extern void kda_kafka_token_fail(KdaKafkaToken *token, const char *error);

/* Gives it to a handle of the library's, if it is not the one that this handle has (*serial).  token NULL does nothing. */
extern void kda_kafka_token_apply(KdaKafkaToken *token, rd_kafka_t *rk, uint64 *serial);

/* Copies why there is none; "" if that is not the trouble. */
extern void kda_kafka_token_error(KdaKafkaToken *token, char *error, Size size);

#endif							/* KDA_KAFKA_TOKEN_H */
