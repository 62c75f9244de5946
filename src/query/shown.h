/*-------------------------------------------------------------------------
 *
 * shown.h
 *	  Rows of a window, or of endless groups, that may be emitted more than once.
 *
 * They are emitted while the window is open (EMIT EVERY, EMIT CHANGES of a
 * pump), when it closes, and when late records correct it (allowed_lateness).
 * The table shown_N holds what was emitted last of every window that is not
 * forgotten yet: kda_time (end of the window; infinity: endless groups),
 * kda_revision, kda_gone (the row is no more part of the result, but may come
 * back), then the columns of the result.  What the final part gives is compared
 * with it, and only what differs leaves.  So it does not matter which windows
 * are looked at, as long as it is all those that may have changed; and a crash
 * neither loses nor repeats a row, since the table commits with the state.
 *
 * A row that is found again, by the columns that are the keys of GROUP BY, has
 * one revision more with each correction.  Rows that nothing tells apart count
 * the corrections of their window.
 *
 * A view shows these rows besides its closed ones, to which they move when
 * they are final.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_SHOWN_H
#define KDA_SHOWN_H

#include "query/query.h"

typedef struct KdaShown KdaShown;

/* keys, revisions: kda_storage.query.shown_keys and revision_columns. */
extern KdaShown *kda_shown_create(KdaQuery *query, const char *keys, const char *revisions);

/* A record of that time counts in the batch that runs: its windows may have changed. */
extern void kda_shown_touch(KdaQuery *query, KdaTime t);

/*
 * Behind the batches, with what is kept written back: emits corrections, what
 * closes up to closed, and what is due of the rest; forgets what is final.
 * True if anything has to be saved for it.
 */
extern bool kda_shown_settle(KdaQuery *query, KdaTime closed, TimestampTz now);

/* When changes that wait for EMIT EVERY want to leave; KDA_END_TIME: there are none. */
extern TimestampTz kda_shown_due(KdaQuery *query, TimestampTz now);

/* What was touched is not known any more: all windows may have changed. */
extern void kda_shown_at_abort(KdaShown *shown);

#endif							/* KDA_SHOWN_H */
