/*-------------------------------------------------------------------------
 *
 * outbox.h
 *	  What leaves for an outside system, between the commit of the transaction
 *	  that has written it and its delivery.
 *
 * Rows of an outbox are encoded already: whatever happens to the stream's
 * columns or types later, they leave as they were inserted.  Writers say in
 * which transaction (kda_xid, kda_seq) a row was written and no more; numbers
 * are given when the deliver worker seals (runtime/output.c), since those of
 * writers are not in the order of their commits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_OUTBOX_H
#define KDA_OUTBOX_H

#include "kda_stream.h"
#include "catalog/rows.h"
#include "connector/sink.h"
#include "executor/tuptable.h"
#include "stream/inbox.h"

/* Columns of a segment. */
enum
{
	KDA_BOX_XID = 1,			/* xid8: of the writing transaction (its top) */
	KDA_BOX_SEQ,				/* bigint: order within it */
	KDA_BOX_AT,					/* timestamptz: when it was inserted */
	KDA_BOX_TIME,				/* timestamptz: row time */
	KDA_BOX_KEY,				/* bytea */
	KDA_BOX_VALUE,				/* bytea; NULL: tombstone */
	KDA_BOX_HEADERS,			/* text: JSON object */
	KDA_BOX_HASH_KEY,			/* text */
	KDA_BOX_NCOLS = KDA_BOX_HASH_KEY
};

/*---- outbox.c: storage and writing, in any process */

/* Makes the outbox of a stream that has none; returns its number.  source, pump: of CREATE OUTPUT. */
extern int32 kda_outbox_ensure(Oid relid, Oid source);
/* Does INSERT into the stream go to its server?  ereports with the reason and a way out if not. */
extern void kda_outbox_check_writable(Oid relid);
/* Does it hold as much as kda_stream.outbox_size allows? */
extern bool kda_outbox_is_full(const KdaOutputIds *ids);

typedef struct KdaOutboxWriter KdaOutboxWriter;

/* Rows of the current transaction.  In a session: 53400 when it is full. */
extern KdaOutboxWriter *kda_outbox_begin(Oid relid);
/* slot has the stream's columns.  time: KDA_NO_TIME: its time column says it, else now. */
extern void kda_outbox_put(KdaOutboxWriter *writer, TupleTableSlot *slot, KdaTime time);
/* A record that has been encoded before; what it points to is copied. */
extern void kda_outbox_put_record(KdaOutboxWriter *writer, const KdaOutRecord *record);
extern void kda_outbox_end(KdaOutboxWriter *writer);

/*---- outbox_read.c: in the deliver worker */

/*
 * Takes the next piece: at most max_records rows, max_bytes (but one row at
 * least), and none behind (to_xid, to_seq) unless that is 0.  Moves *position
 * on as kda_inbox_read() does.  *seen: the snapshot that the rows are of.
 * Records, texts and *position's strings are in context.  Returns the number
 * of rows; *more: others are waiting.
 */
extern int	kda_outbox_read(const KdaOutputIds *ids, KdaInboxPosition *position, uint64 to_xid, int64 to_seq,
							int max_records, Size max_bytes, KdaOutRecord **records, KdaInboxPosition *last,
							char **seen, bool *more, MemoryContext context);

typedef enum KdaRoom
{
	KDA_ROOM_EMPTY,				/* there is nothing in it */
	KDA_ROOM_ENOUGH,
	KDA_ROOM_SCARCE				/* look again soon */
} KdaRoom;

/*
 * Lets the segments change places and empties the old one when all its rows
 * have been delivered; never waits for a lock.  delivered: what has been read
 * by then need not be read again.  *since: when they last changed places;
 * *retired_by: kept between calls, invalid at first.
 */
extern KdaRoom kda_outbox_rotate(KdaOutputIds *ids, const KdaInboxPosition *delivered, TimestampTz now,
							  TimestampTz *since, TransactionId *retired_by);

/* In a restored copy: what had not been delivered is made new.  Inside SPI. */
extern void kda_outbox_restamp(int32 output_id, Oid box, Oid box2);

#endif							/* KDA_OUTBOX_H */
