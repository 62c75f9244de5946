/*-------------------------------------------------------------------------
 *
 * kafka.h
 *	  The Kafka connector: kafka_options.c says which properties there are,
 *	  kafka.c reads, kafka_sink.c writes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_KAFKA_H
#define KDA_KAFKA_H

#include "connector/connector.h"
#include "connector/sink.h"

extern const KdaSourceOps kda_kafka_ops;
extern const KdaSinkOps kda_kafka_sink_ops;

/* ereport on a property that is not allowed there; see kda_connector_check_user_mapping(). */
extern void kda_kafka_check_server(List *options);
extern void kda_kafka_check_user_mapping(const ForeignServer *server, List *given, List *all);

/* Is this option a property of the library's that a consumer or a producer has? */
extern bool kda_kafka_property_fits(const char *name, bool producer);

#endif							/* KDA_KAFKA_H */
