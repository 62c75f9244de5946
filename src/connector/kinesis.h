/*-------------------------------------------------------------------------
 *
 * kinesis.h
 *	  Kinesis streams as sources: what the rest of connector/ sees of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_KINESIS_H
#define KDA_KINESIS_H

#include "connector/connector.h"

extern const KdaSourceOps kda_kinesis_ops;

/* ereports if topic is no name or ARN of a stream. */
extern void kda_kinesis_check_stream(const char *stream_name, const char *topic, int parallelism);

#endif							/* KDA_KINESIS_H */
