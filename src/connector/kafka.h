/*-------------------------------------------------------------------------
 *
 * kafka.h
 *	  The Kafka connector: kafka_options.c says which properties there are,
 *	  kafka.c reads.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_KAFKA_H
#define KDA_KAFKA_H

#include "connector/connector.h"

extern const KdaSourceOps kda_kafka_ops;

/* ereports on a property that is not allowed there. */
extern void kda_kafka_check_options(List *options, bool user_mapping);

#endif							/* KDA_KAFKA_H */
