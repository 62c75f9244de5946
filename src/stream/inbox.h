/*-------------------------------------------------------------------------
 *
 * inbox.h
 *	  Rows of a database stream: written by sessions and pumps, read by the
 *	  worker between two snapshots.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_INBOX_H
#define KDA_INBOX_H

#include "kda_stream.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "stream/stream.h"

/*
 * Columns of a segment: ours first, then one for each column of the stream,
 * named after its number (c1, c2, ...), so that renaming a column changes
 * nothing here.
 */
enum
{
	KDA_INBOX_XID = 1,			/* xid8: of the writing transaction (its top) */
	KDA_INBOX_SEQ,				/* bigint: order within it */
	KDA_INBOX_ARRIVAL,			/* timestamptz; derived rows: the event's time; control rows: the watermark */
	KDA_INBOX_SHARD_WM,			/* timestamptz: derived rows only */
	KDA_INBOX_DERIVED,			/* bool: a pump wrote it */
	KDA_INBOX_CONTROL,			/* "char": 'a' advance, 'w' watermark of the writers, 'r' reset, 's' reset of another stream; NULL: a row;
								 * KDA_CONTROL_REFUSED (...): a row, too */
	KDA_INBOX_SHARD,			/* varchar, too short to need a TOAST table: records of a source stream that its slots hand to slot 0 (runtime/relay.c): shard … */
	KDA_INBOX_POSITION,			/* bigint: … and position in it.  Rows between parts of a query: "stream number/shard" and position
								 * of the record.  Of a reset: its stream, by number, and its number */
	KDA_INBOX_MARK,				/* varchar: the record's mark, of sources that have them */
	KDA_INBOX_NCOLS = KDA_INBOX_MARK
};

#define KDA_CONTROL_ADVANCE		'a'
#define KDA_CONTROL_WATERMARK	'w'
#define KDA_CONTROL_RESET		'r'
#define KDA_CONTROL_STAND		's'	/* rows before it are judged before the reset of a stream that queries tie to this one */
/* A record that other queries have refused: it was counted and reported for that.  Of KDA_REFUSED_* bits (batch.h). */
#define KDA_CONTROL_REFUSED(bits)	('0' + (bits))

/* A control row that says where, among the rows. */
typedef struct KdaInboxPlace
{
	char		control;		/* KDA_CONTROL_RESET or KDA_CONTROL_STAND; 0: none */
	int64		number;			/* of the reset */
	int32		stream;			/* … of that stream */
} KdaInboxPlace;

/*
 * A reader's position (the rule of PgQ).  Everything visible in snapshot1 has
 * been read.  While snapshot2 is set, the rows that are visible in it and not
 * in snapshot1 are being read in the order of (xid, seq), up to the last.
 */
typedef struct KdaInboxPosition
{
	char	   *snapshot1;		/* pg_snapshot as text; NULL: nothing has been read */
	char	   *snapshot2;
	uint64		last_xid;
	int64		last_seq;
} KdaInboxPosition;

/*---- inbox_table.c */

/* DDL of a segment's table, and of its index. */
extern char *kda_inbox_ddl(Oid stream_relid, const char *name, bool durable);
/* ALTER TABLE that makes a segment follow its stream; NULL if there is nothing to do. */
extern char *kda_inbox_sync_ddl(Oid stream_relid, Oid inbox);

/* For each column of the stream its attribute number in a segment, 0: none. */
extern AttrNumber *kda_inbox_map(TupleDesc stream, Relation segment);
/* In a restored copy: columns are named after the numbers that the stream's have now.  Inside SPI. */
extern void kda_inbox_rename_columns(Oid stream_relid, Oid segment);

/*---- writing: rows of the current transaction, any process */
typedef struct KdaInboxWriter KdaInboxWriter;

extern KdaInboxWriter *kda_inbox_begin(Oid stream_relid);
/*
 * slot has the stream's columns.  time: KDA_NO_TIME for a user's row (arrival
 * is now); for a derived one its event time, with the watermark of the shard
 * that it came from.
 */
extern void kda_inbox_put(KdaInboxWriter *writer, TupleTableSlot *slot, KdaTime time,
						  KdaTime shard_wm, bool derived);
/* The same for a derived row that goes to another part of the query: it remembers the record that it is made of. */
extern void kda_inbox_put_part(KdaInboxWriter *writer, TupleTableSlot *slot, KdaTime time, KdaTime shard_wm,
							   KdaStream *stream, int row);
/*
 * The batch's record as it is, for slot 0: those of its columns that are in
 * columns (attribute numbers), with its time, shard, position, and who has refused it.
 */
extern void kda_inbox_put_record(KdaInboxWriter *writer, KdaStream *stream, int row, Bitmapset *columns);
/* A control row, ordered after the rows put so far. */
extern void kda_inbox_put_control(KdaInboxWriter *writer, char control, KdaTime time);
/* The same: a place for that reset of that stream. */
extern void kda_inbox_put_place(KdaInboxWriter *writer, const KdaInboxPlace *place);
extern void kda_inbox_end(KdaInboxWriter *writer);
extern bool kda_inbox_written_in_transaction(Oid stream_relid);

/*---- reading, in a worker */

/*
 * Reads the next piece into stream->batch (at most max_rows rows, max_bytes)
 * and moves *position on; its strings are in context.  Returns the number of
 * rows; *more when further rows are waiting.  Control rows move
 * stream->advanced and stream->derived.  A piece ends before KDA_CONTROL_RESET
 * and KDA_CONTROL_STAND; when one comes next nothing else is read but it, and
 * *place says which.
 */
extern int	kda_inbox_read(KdaStream *stream, KdaInboxPosition *position, int max_rows,
						   Size max_bytes, bool *more, KdaInboxPlace *place, MemoryContext context);
/* Have all rows of that segment been read, and is no transaction writing it? */
extern bool kda_inbox_consumed(KdaStream *stream, Oid segment, const KdaInboxPosition *position);

/* Did that transaction commit before the snapshot was taken? */
extern bool kda_inbox_xid_visible(const char *snapshot, uint64 xid);

/* pg_snapshot text of now in which this transaction itself is in progress; palloc'd. */
extern char *kda_inbox_snapshot(void);

/*---- restamp.c */

/*
 * In a restored copy: rows, position and the beginnings of queries are put into
 * numbers that mean the same here.  Inside SPI.
 */
extern void kda_inbox_restamp(int32 stream_id, Oid stream_relid);

#endif							/* KDA_INBOX_H */
