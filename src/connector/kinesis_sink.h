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

#endif							/* KDA_KINESIS_SINK_H */
