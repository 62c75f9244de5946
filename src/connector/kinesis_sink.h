/*-------------------------------------------------------------------------
 *
 * kinesis_sink.h
 *	  Kinesis as something that is written to.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_KINESIS_SINK_H
#define KDA_KINESIS_SINK_H

#include "connector/sink.h"

extern const KdaSinkOps kda_kinesis_sink_ops;

/* ereports if a stream of that name cannot be written so; 0: not given. */
extern void kda_kinesis_check_writing(const char *name, int64 batch_records, int64 batch_bytes, bool headers, bool compression);

#endif							/* KDA_KINESIS_SINK_H */
