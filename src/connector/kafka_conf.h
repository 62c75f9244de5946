/*-------------------------------------------------------------------------
 *
 * kafka_conf.h
 *	  From the options of a server and a user mapping to librdkafka's
 *	  configuration, for sources and sinks.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_KAFKA_CONF_H
#define KDA_KAFKA_CONF_H

#include "kda_stream.h"

#include <librdkafka/rdkafka.h>

#include "nodes/pg_list.h"

/* Epoch of PostgreSQL in Kafka's milliseconds since 1970. */
#define KAFKA_EPOCH_MS	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * 86400 * 1000)

/*
 * What both directions share: the options (DefElem), less those that only the
 * other direction has.  ereports on a wrong value, without showing it.
 */
extern rd_kafka_conf_t *kda_kafka_conf_new(List *server_options, List *user_options, bool producer);

/* Sets one property; ereports if the library does not take it, and destroys conf then. */
extern void kda_kafka_conf_set(rd_kafka_conf_t *conf, const char *name, const char *value);

/* The rest may be called by any thread.  What the library does not know (an older one) is passed over. */
extern void kda_kafka_conf_set_number(rd_kafka_conf_t *conf, const char *name, Size number);

/* Copies what the library's error callback says, without what changes each time. */
extern void kda_kafka_copy_reason(char *to, Size size, int err, const char *reason);

#endif							/* KDA_KAFKA_CONF_H */
