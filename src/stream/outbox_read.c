/*-------------------------------------------------------------------------
 *
 * outbox_read.c
 *	  Reading an outbox, as an inbox is read: between two snapshots, so that a
 *	  slow transaction's rows are found when it has committed, and those of an
 *	  aborted one never.  And making room when its rows have left.
 *
 * In the deliver worker, in its transactions; kda_outbox_pending() in sessions.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/detoast.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "runtime/runtime.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "stream/outbox.h"
#include "stream/segment.h"
#include "stream/snapshot.h"
#include "stream/stream.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define MIN_ROTATE_US	(10 * USECS_PER_SEC)

/* Bytes of a value in the current context; NULL: it is null. */
static char *
take_bytes(TupleTableSlot *slot, AttrNumber column, int *len)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column, &isnull);
	struct varlena *plain;
	char	   *copy;

	*len = 0;
	if (isnull)
		return NULL;
	plain = PG_DETOAST_DATUM_PACKED(value);
	*len = VARSIZE_ANY_EXHDR(plain);
	copy = palloc(*len + 1);
	memcpy(copy, VARDATA_ANY(plain), *len);
	copy[*len] = '\0';
	if ((Pointer) plain != DatumGetPointer(value))
		pfree(plain);
	return copy;
}

static Size
take_record(TupleTableSlot *slot, KdaOutRecord *record)
{
	bool		isnull;
	int			headers_len,
				hash_key_len;

	memset(record, 0, sizeof(*record));
	record->time = DatumGetTimestampTz(slot_getattr(slot, KDA_BOX_TIME, &isnull));
	record->key = take_bytes(slot, KDA_BOX_KEY, &record->key_len);
	record->value = take_bytes(slot, KDA_BOX_VALUE, &record->len);
	record->headers = take_bytes(slot, KDA_BOX_HEADERS, &headers_len);
	record->hash_key = take_bytes(slot, KDA_BOX_HASH_KEY, &hash_key_len);
	return record->key_len + record->len + headers_len + hash_key_len;
}

int
kda_outbox_read(const KdaOutputIds *ids, KdaInboxPosition *position, uint64 to_xid, int64 to_seq,
				int max_records, Size max_bytes, KdaOutRecord **records, KdaInboxPosition *last,
				char **seen, bool *more, MemoryContext context)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "kda outbox read", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	KdaSnap    *snap1 = position->snapshot1 ? kda_snapshot_parse(position->snapshot1) : NULL;
	char	   *text2 = position->snapshot2 ? position->snapshot2 : kda_inbox_snapshot();
	bool		old_snapshot = position->snapshot2 != NULL;
	KdaSnap    *snap2 = kda_snapshot_parse(text2);
	bool		within = old_snapshot && position->last_xid > 0;
	KdaSegments segments;
	KdaSegmentCursor *c;
	int			n = 0;
	int			room = 0;
	Size		bytes = 0;

	*more = false;
	*records = NULL;
	memset(last, 0, sizeof(*last));
	kda_segments_open(&segments, ids->box, ids->box2, GetActiveSnapshot(),
					  within ? position->last_xid : snap1 ? snap1->xmin : 0, position->last_seq, within);
	while ((c = kda_segments_row(&segments)) != NULL && c->xid < snap2->xmax)
	{
		if (!kda_snapshot_sees(snap2, c->xid) || kda_snapshot_sees(snap1, c->xid))
		{
			kda_segments_advance(&segments);
			continue;
		}
		if (to_xid > 0 && (c->xid > to_xid || (c->xid == to_xid && c->seq > to_seq)))
			break;
		if (n >= max_records || bytes >= max_bytes)
		{
			*more = true;
			break;
		}
		MemoryContextSwitchTo(context);
		if (n == room)
		{
			room = Max(64, Min(room * 2, max_records));
			*records = *records ? repalloc_huge(*records, sizeof(KdaOutRecord) * room) :
				MemoryContextAllocHuge(context, sizeof(KdaOutRecord) * room);
		}
		bytes += take_record(c->slot, &(*records)[n++]);
		MemoryContextSwitchTo(scratch);
		last->last_xid = c->xid;
		last->last_seq = c->seq;
		if (n % 64 == 0)
			CHECK_FOR_INTERRUPTS();
		kda_segments_advance(&segments);
	}
	kda_segments_close(&segments);
	MemoryContextSwitchTo(context);
	*seen = pstrdup(text2);
	if (*more)
	{
		position->snapshot2 = *seen;
		position->last_xid = last->last_xid;
		position->last_seq = last->last_seq;
	}
	else if (n > 0 || old_snapshot)
	{
		position->snapshot1 = *seen;
		position->snapshot2 = NULL;
		position->last_xid = 0;
		position->last_seq = 0;
	}
	/* what was committed after the snapshot whose pieces these were has not been looked for */
	*more |= old_snapshot;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	return n;
}

/*---- making room */

/* Need no row of the segments be read any more by whoever has come to that position? */
static bool
is_read(Oid a, Oid b, const KdaInboxPosition *position, int64 *left, TimestampTz *oldest)
{
	KdaSnap    *snap1 = position->snapshot1 ? kda_snapshot_parse(position->snapshot1) : NULL;
	KdaSnap    *snap2 = position->snapshot2 ? kda_snapshot_parse(position->snapshot2) : NULL;
	KdaSegments segments;
	KdaSegmentCursor *c;
	bool		read = true;

	kda_segments_open(&segments, a, b, GetActiveSnapshot(), snap1 ? snap1->xmin : 0, 0, false);
	while ((c = kda_segments_row(&segments)) != NULL)
	{
		bool		isnull;

		if (!kda_snapshot_sees(snap1, c->xid) &&
			!(kda_snapshot_sees(snap2, c->xid) &&
			  (c->xid < position->last_xid || (c->xid == position->last_xid && c->seq <= position->last_seq))))
		{
			read = false;
			if (left == NULL)
				break;
			if ((*left)++ == 0)
				*oldest = DatumGetTimestampTz(slot_getattr(c->slot, KDA_BOX_AT, &isnull));
			else
				*oldest = Min(*oldest, DatumGetTimestampTz(slot_getattr(c->slot, KDA_BOX_AT, &isnull)));
		}
		CHECK_FOR_INTERRUPTS();
		kda_segments_advance(&segments);
	}
	kda_segments_close(&segments);
	return read;
}

static void
run(const char *sql)
{
	SPI_connect();
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not run: %s", sql);
	SPI_finish();
}

/* As kda_stream_rotate() does it for an inbox, whose comments say why. */
KdaRoom
kda_outbox_rotate(KdaOutputIds *ids, const KdaInboxPosition *delivered, TimestampTz now,
				  TimestampTz *since, TransactionId *retired_by)
{
	Oid			current = ids->box;
	Oid			other = ids->box2;
	KdaRoom		look = kda_segment_bytes(current) + kda_segment_bytes(other) > (int64) kda_outbox_size_kb * 256 ?
		KDA_ROOM_SCARCE : KDA_ROOM_ENOUGH;

	if (kda_segment_bytes(other) > 0)
	{
		Relation	rel;
		bool		read;

		if (!is_read(other, InvalidOid, delivered, NULL, NULL))
		{
			*retired_by = InvalidTransactionId;
			return look;
		}
		if (!TransactionIdIsValid(*retired_by))
		{
			*retired_by = GetTopTransactionId();
			return look;
		}
		rel = table_open(other, AccessShareLock);
		read = TransactionIdPrecedes(*retired_by, GetOldestNonRemovableTransactionId(rel));
		table_close(rel, AccessShareLock);
		if (!read || !ConditionalLockRelationOid(other, AccessExclusiveLock))
			return look;
		/* somebody who knew of it before they changed places may have written into it last */
		PushActiveSnapshot(GetLatestSnapshot());
		read = is_read(other, InvalidOid, delivered, NULL, NULL);
		PopActiveSnapshot();
		if (!read)
			return look;
		run(psprintf("TRUNCATE " KDA_STORAGE_SCHEMA ".%s", quote_identifier(get_rel_name(other))));
		*retired_by = InvalidTransactionId;
		return look;
	}
	if (kda_segment_bytes(current) == 0)
		return KDA_ROOM_EMPTY;
	if ((now < *since + MIN_ROTATE_US && kda_segment_bytes(current) < (int64) kda_outbox_size_kb * 256))
		return look;
	/* making room never waits: what has been delivered is stored in the same transaction */
	if (!ConditionalLockRelationOid(kda_storage_relation("output"), RowExclusiveLock))
		return look;
	run(psprintf("UPDATE kda_storage.output SET box = %u::pg_catalog.regclass, box2 = %u::pg_catalog.regclass, "
				 "segment_since = pg_catalog.clock_timestamp() WHERE output_id = %d", other, current, ids->id));
	ids->box = other;
	ids->box2 = current;
	*since = now;
	*retired_by = InvalidTransactionId;
	return look;
}

/*---- what is left */

PG_FUNCTION_INFO_V1(kda_outbox_pending);

/* outbox_pending(output_id) → (pending bigint, oldest timestamptz): rows that are committed and not known to be delivered */
Datum
kda_outbox_pending(PG_FUNCTION_ARGS)
{
	int32		id = PG_GETARG_INT32(0);
	TupleDesc	desc;
	Datum		values[2] = {Int64GetDatum(0)};
	bool		nulls[2] = {false, true};
	char	   *found[6];
	int64		n = 0;
	TimestampTz oldest = 0;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "outbox_pending returns a row");
	/* from the first batch on that has not been delivered */
	if (kda_owner_row(psprintf("SELECT o.box::oid, o.box2::oid, CASE WHEN e.first IS NULL THEN p.snapshot1 ELSE e.snapshot1 END, "
							   "CASE WHEN e.first IS NULL THEN p.snapshot2 ELSE e.snapshot2 END, "
							   "CASE WHEN e.first IS NULL THEN p.last_xid ELSE e.from_xid END, "
							   "CASE WHEN e.first IS NULL THEN p.last_seq ELSE e.from_seq END "
							   "FROM kda_storage.output o JOIN kda_storage.output_progress p USING (output_id) "
							   "LEFT JOIN LATERAL (SELECT * FROM kda_storage.seal s WHERE s.output_id = o.output_id ORDER BY first LIMIT 1) e ON true "
							   "WHERE o.output_id = %d", id), 6, found))
	{
		KdaInboxPosition position = {found[2], found[3], found[4] ? strtou64(found[4], NULL, 10) : 0,
			found[5] ? strtoi64(found[5], NULL, 10) : 0};

		(void) is_read((Oid) strtoul(found[0], NULL, 10), (Oid) strtoul(found[1], NULL, 10), &position, &n, &oldest);
	}
	values[0] = Int64GetDatum(n);
	values[1] = TimestampTzGetDatum(oldest);
	nulls[1] = n == 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*---- a restored copy */

/*
 * Its numbers of transactions are another server's.  Rows that had been
 * delivered go, and the others become rows of a transaction that has ended
 * long ago, in the order that they had; what has been sealed and not delivered
 * will be sealed again.
 */
void
kda_outbox_restamp(int32 output_id, Oid box, Oid box2)
{
	const char *segments[2] = {quote_identifier(get_rel_name(box)), quote_identifier(get_rel_name(box2))};

	for (int i = 0; i < 2; i++)
		SPI_execute(psprintf("DELETE FROM " KDA_STORAGE_SCHEMA ".%s AS t USING ("
							 "SELECT CASE WHEN e.first IS NULL THEN p.snapshot1 ELSE e.snapshot1 END::pg_catalog.pg_snapshot AS before, "
							 "CASE WHEN e.first IS NULL THEN p.snapshot2 ELSE e.snapshot2 END::pg_catalog.pg_snapshot AS within, "
							 "CASE WHEN e.first IS NULL THEN p.last_xid ELSE e.from_xid END AS last_xid, "
							 "CASE WHEN e.first IS NULL THEN p.last_seq ELSE e.from_seq END AS last_seq "
							 "FROM kda_storage.output_progress p LEFT JOIN LATERAL (SELECT * FROM kda_storage.seal s "
							 "WHERE s.output_id = p.output_id ORDER BY first LIMIT 1) e ON true WHERE p.output_id = %d) q "
							 "WHERE coalesce(pg_catalog.pg_visible_in_snapshot(t.kda_xid, before), false) OR "
							 "coalesce(pg_catalog.pg_visible_in_snapshot(t.kda_xid, within) AND (t.kda_xid, t.kda_seq) <= (last_xid, last_seq), false)",
							 segments[i], output_id), false, 0);
	SPI_execute(psprintf("WITH numbered AS MATERIALIZED (SELECT segment, place, pg_catalog.row_number() OVER (ORDER BY kda_xid, kda_seq, segment, place) AS n FROM "
						 "(SELECT 0 AS segment, ctid AS place, kda_xid, kda_seq FROM " KDA_STORAGE_SCHEMA ".%s UNION ALL "
						 "SELECT 1, ctid, kda_xid, kda_seq FROM " KDA_STORAGE_SCHEMA ".%s) u), "
						 "a AS (UPDATE " KDA_STORAGE_SCHEMA ".%s AS t SET kda_xid = '3', kda_seq = n FROM numbered WHERE segment = 0 AND place = t.ctid), "
						 "b AS (UPDATE " KDA_STORAGE_SCHEMA ".%s AS t SET kda_xid = '3', kda_seq = n FROM numbered WHERE segment = 1 AND place = t.ctid), "
						 "c AS (DELETE FROM kda_storage.seal WHERE output_id = %d) "
						 "UPDATE kda_storage.output_progress SET snapshot1 = NULL, snapshot2 = NULL, last_xid = NULL, last_seq = NULL, sealed = delivered "
						 "WHERE output_id = %d",
						 segments[0], segments[1], segments[0], segments[1], output_id, output_id), false, 0);
	/* the original goes on under its own name */
	SPI_execute(psprintf("UPDATE kda_storage.output SET identity = pg_catalog.gen_random_uuid()::text WHERE output_id = %d", output_id), false, 0);
}
