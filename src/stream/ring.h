/*-------------------------------------------------------------------------
 *
 * ring.h
 *	  Reading the buffer of a source stream, in a session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_RING_H
#define KDA_RING_H

#include "kda_stream.h"
#include "connector/connector.h"

/* Columns of a segment: which transaction wrote the block, its number in it, the block. */
enum
{
	KDA_RING_XID = 1,
	KDA_RING_SEQ,
	KDA_RING_DATA,
	KDA_RING_NCOLS = KDA_RING_DATA
};

/* DDL of a segment's table, and of its index. */
extern char *kda_ring_ddl(const char *name);

/*
 * Unpacks a block into raw (its records point into memory of the current
 * context); the names of the shards that they refer to by index.  Returns
 * false if the block is not one of ours.
 */
extern bool kda_ring_unpack(const char *data, Size len, KdaRawBatch *raw, char ***shard_names,
							int *nshards);
/* Stands for the source when records of the buffer are decoded. */
extern const KdaSourceOps kda_ring_ops;

#endif							/* KDA_RING_H */
