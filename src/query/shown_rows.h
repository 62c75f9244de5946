/*-------------------------------------------------------------------------
 *
 * shown_rows.h
 *	  The table of what was emitted (shown.h), as shown.c and shown_sessions.c
 *	  read and write it.  Private to them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_SHOWN_ROWS_H
#define KDA_SHOWN_ROWS_H

#include "kda_stream.h"
#include "access/htup.h"
#include "executor/tuptable.h"
#include "query/groups.h"
#include "query/query.h"
#include "query/sessions.h"
#include "query/shown.h"
#include "stream/indexes.h"
#include "utils/relcache.h"
#include "utils/tuplestore.h"

/* Columns of the table; those of the result follow. */
enum
{
	KDA_SHOWN_TIME = 1,
	KDA_SHOWN_REVISION,
	KDA_SHOWN_GONE,
	KDA_SHOWN_KEY				/* sessions and stagger windows only */
};

struct KdaShown
{
	KdaQuery   *query;
	bool		keyed;			/* keys tell the rows of a window apart; else only all of their columns do */
	int			nkeys;
	int		   *keys;			/* columns of the result, from 0 */
	KdaKeySpec *specs;			/* NULL: not made yet */
	int			nrevisions;
	int		   *revisions;		/* columns of the result, from 0 */

	/* ends of windows that may have changed since they were looked at, ascending */
	KdaTime    *touched;
	int			ntouched;
	int			room;
	bool		all;			/* … all of them */
	bool		unknown;		/* … since what was touched is not known, not since records have come */
	/* the last record's pane: its windows are among them */
	KdaTime		pane_start;
	KdaTime		pane_end;
};

/* What is being emitted, and why. */
typedef enum KdaStep
{
	KDA_STEP_CHANGES,			/* of open windows or endless groups */
	KDA_STEP_CLOSE,				/* the window closes: all of its rows */
	KDA_STEP_CORRECTION			/* it has closed before */
} KdaStep;

/* A row as it was emitted last. */
typedef struct KdaShownRow
{
	struct KdaShownRow *next;	/* of the same hash bucket */
	ItemPointerData tid;
	uint64		hash;
	KdaTime		end;
	int32		revision;
	bool		gone;
	bool		matched;
	int			place;			/* sessions: in the list that is looked at; else 0 */
	Datum	   *values;			/* of the result */
	bool	   *nulls;
} KdaShownRow;

/* One look at some windows. */
typedef struct KdaLook
{
	KdaQuery   *query;
	KdaShown   *shown;
	KdaStep		step;			/* aligned windows */
	Relation	rel;
	TupleDesc	desc;			/* of the table */
	int			first;			/* the first column of the result, */
	int			ncolumns;		/* … and how many there are */
	KdaShownRow **buckets;
	int			nbuckets;		/* a power of two */
	KdaShownRow **rows;
	int			nrows;
	int			room;
	/* aligned windows whose rows nothing tells apart: the greatest revision of the last one that was asked for */
	bool		counted;
	KdaTime		counted_end;
	int32		greatest;
	TupleTableSlot *out;		/* of the table */
	Oid			index;			/* on the time, of sessions on the number of the key and the time */
	KdaIndexes	indexes;
	Snapshot	snapshot;
} KdaLook;

extern void kda_look_begin(KdaLook *look, KdaQuery *query, KdaStep step);
extern void kda_look_end(KdaLook *look);

/* Calls take for each row of the table that fits the keys, which its index has. */
typedef void (*KdaTakeShown) (KdaLook *look, HeapTuple tuple, void *arg);
extern void kda_look_scan(KdaLook *look, struct ScanKeyData *keys, int nkeys, KdaTakeShown take, void *arg);

/* Keeps in mind a row of the table, which is a copy.  hash: of what tells its window from others. */
extern KdaShownRow *kda_look_take(KdaLook *look, HeapTuple tuple, uint64 hash);

/* Those that were taken can be looked up from now on. */
extern void kda_look_hash(KdaLook *look);
static inline KdaShownRow **
kda_look_bucket(const KdaLook *look, uint64 hash)
{
	return &look->buckets[hash & (look->nbuckets - 1)];
}
/* The row of that window that is the same, as far as anything tells: taken out of its bucket, and matched.  NULL: none. */
extern KdaShownRow *kda_look_find(KdaLook *look, uint64 hash, KdaTime end, int place, const Datum *values, const bool *nulls);

/* Columns of a result: are all the same, to the bit, but for window_revision?  Is it the same row, as far as anything tells? */
extern bool kda_look_same_row(KdaLook *look, const Datum *a, const bool *anulls, const Datum *b, const bool *bnulls);
extern bool kda_look_same_key(KdaLook *look, const Datum *a, const bool *anulls, const Datum *b, const bool *bnulls);

/* … hash of what tells; window: of the window. */
extern uint64 kda_look_hash_row(KdaLook *look, uint64 window, const Datum *values, const bool *nulls);

/* Puts a row into the table: revision is what it remembers, shown_as what its column window_revision says.  key: of a session. */
extern void kda_look_put(KdaLook *look, KdaTime end, int64 key, int32 revision, int32 shown_as, bool gone,
						 const Datum *values, const bool *nulls);
extern void kda_look_delete(KdaLook *look, ItemPointer tid);

/*
 * Rows that are not corrected any more leave the table; a view's go to its
 * closed ones.  For each of them: what the final part gives before the columns
 * of the result.
 */
typedef struct KdaFinish
{
	KdaLook		look;
	Tuplestorestate *rows;		/* NULL: they are not wanted */
	int64		had_out;
} KdaFinish;

extern void kda_finish_begin(KdaFinish *finish, KdaQuery *query);
extern void kda_finish_row(KdaFinish *finish, HeapTuple tuple, const Datum *ours, int nours);
extern void kda_finish_end(KdaFinish *finish);

/* May windows leave now?  EMIT EVERY. */
extern bool kda_shown_is_due(KdaQuery *query, TimestampTz now);

/*---- shown_sessions.c: kda_shown_settle of sessions and stagger windows */
extern bool kda_shown_settle_sessions(KdaQuery *query, KdaTime closed, TimestampTz now);

#endif							/* KDA_SHOWN_ROWS_H */
