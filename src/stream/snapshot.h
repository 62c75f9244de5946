/*-------------------------------------------------------------------------
 *
 * snapshot.h
 *	  A pg_snapshot that has been taken apart.  How one is taken is in inbox.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_SNAPSHOT_H
#define KDA_SNAPSHOT_H

#include "kda_stream.h"

typedef struct KdaSnap
{
	uint64		xmin,
				xmax;
	int			n;
	uint64	   *xip;			/* ascending */
} KdaSnap;

/* palloc'd. */
extern KdaSnap *kda_snapshot_parse(const char *text);
/* Had that transaction committed, or aborted, when it was taken?  NULL sees none. */
extern bool kda_snapshot_sees(const KdaSnap *snap, uint64 xid);

#endif							/* KDA_SNAPSHOT_H */
