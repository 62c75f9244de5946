/*-------------------------------------------------------------------------
 *
 * announce.h
 *	  Option notify: a NOTIFY for each row that is written into a stream.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_ANNOUNCE_H
#define KDA_ANNOUNCE_H

#include "kda_stream.h"
#include "catalog/options.h"
#include "executor/tuptable.h"

typedef struct KdaAnnouncer KdaAnnouncer;

/* NULL: the stream announces nothing.  desc and options must outlive it; memory is of the current context. */
extern KdaAnnouncer *kda_announce_begin(TupleDesc desc, const KdaStreamOptions *options);
/* Sent at the commit, once for each payload. */
extern void kda_announce(KdaAnnouncer *announcer, TupleTableSlot *slot);

#endif							/* KDA_ANNOUNCE_H */
