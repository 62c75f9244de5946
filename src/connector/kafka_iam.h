/*-------------------------------------------------------------------------
 *
 * kafka_iam.h
 *	  Sign-in at Amazon MSK with IAM, for sources and sinks: property
 *	  sasl.mechanisms 'AWS_MSK_IAM'.
 *
 * The worker's thread has the keys and makes tokens; helper threads give them
 * to the library (kafka_token.h).
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_KAFKA_IAM_H
#define KDA_KAFKA_IAM_H

#include "kda_stream.h"

#include "connector/kafka_token.h"
#include "nodes/pg_list.h"

typedef struct KdaKafkaIam KdaKafkaIam;

/* Do these options of a server ask for it? */
extern bool kda_kafka_iam_wanted(List *server_options);

/*
 * In a transaction; ereports when a right is missing.  Lives in
 * CurrentMemoryContext, at most until kda_kafka_iam_close().  With keys that
 * stand in the user mapping there is a token at once.  token is the caller's.
 */
extern KdaKafkaIam *kda_kafka_iam_open(Oid serverid, Oid userid, int wake_fd, KdaKafkaToken *token);

/* Makes the next token in time.  Cheap; called in each round.  NULL does nothing. */
extern void kda_kafka_iam_service(KdaKafkaIam *iam);

/* In a transaction: have the keys in the catalog become others? */
extern bool kda_kafka_iam_has_changed(KdaKafkaIam *iam);

/* NULL does nothing. */
extern void kda_kafka_iam_close(KdaKafkaIam *iam);

#endif							/* KDA_KAFKA_IAM_H */
