/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *	  Snapshots as text, as a reader of an inbox or an outbox stores how far it
 *	  has come.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/transam.h"
#include "access/xact.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "stream/inbox.h"
#include "stream/snapshot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

KdaSnap *
kda_snapshot_parse(const char *text)
{
	KdaSnap    *snap = palloc0(sizeof(KdaSnap));
	char	   *p;
	int			room = 16;

	snap->xip = palloc(sizeof(uint64) * room);
	snap->xmin = strtou64(text, &p, 10);
	snap->xmax = strtou64(p + 1, &p, 10);
	while (*p && p[1])
	{
		if (snap->n == room)
			snap->xip = repalloc(snap->xip, sizeof(uint64) * (room *= 2));
		snap->xip[snap->n++] = strtou64(p + 1, &p, 10);
	}
	return snap;
}

bool
kda_snapshot_sees(const KdaSnap *snap, uint64 xid)
{
	int			low = 0,
				high;

	if (snap == NULL || xid >= snap->xmax)
		return false;
	if (xid < snap->xmin)
		return true;
	high = snap->n;
	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (snap->xip[middle] == xid)
			return false;
		if (snap->xip[middle] < xid)
			low = middle + 1;
		else
			high = middle;
	}
	return true;
}

bool
kda_inbox_xid_visible(const char *snapshot, uint64 xid)
{
	/* the same snapshot is asked for row after row */
	static char *last = NULL;
	static KdaSnap *parsed = NULL;

	if (last == NULL || strcmp(last, snapshot) != 0)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		if (last)
		{
			pfree(last);
			pfree(parsed->xip);
			pfree(parsed);
			last = NULL;
		}
		parsed = kda_snapshot_parse(snapshot);
		last = pstrdup(snapshot);
		MemoryContextSwitchTo(old);
	}
	return kda_snapshot_sees(parsed, xid);
}

char *
kda_inbox_snapshot(void)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(pg_snapshot_out,
														   OidFunctionCall0(F_PG_CURRENT_SNAPSHOT)));
	FullTransactionId me = GetTopFullTransactionIdIfAny();
	KdaSnap    *snap;
	uint64		mine;
	StringInfoData s;
	bool		done = false;

	if (!FullTransactionIdIsValid(me))
		return text;
	mine = U64FromFullTransactionId(me);
	snap = kda_snapshot_parse(text);
	if (mine >= snap->xmax)
		return text;
	initStringInfo(&s);
	appendStringInfo(&s, UINT64_FORMAT ":" UINT64_FORMAT ":", Min(snap->xmin, mine), snap->xmax);
	for (int i = 0; i < snap->n; i++)
	{
		if (!done && snap->xip[i] > mine)
		{
			appendStringInfo(&s, UINT64_FORMAT ",", mine);
			done = true;
		}
		appendStringInfo(&s, UINT64_FORMAT ",", snap->xip[i]);
	}
	if (!done)
		appendStringInfo(&s, UINT64_FORMAT ",", mine);
	s.data[--s.len] = '\0';
	return s.data;
}
