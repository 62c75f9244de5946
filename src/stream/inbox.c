/*-------------------------------------------------------------------------
 *
 * inbox.c
 *	  The inbox of a database stream: rows that sessions and pumps have
 *	  inserted, until the worker has read them and for looking at.
 *
 * A row carries the full transaction number of its top transaction: heap xmin
 * would be the subtransaction's, and is 32 bits.  The reader goes from snapshot
 * to snapshot, so a slow transaction's rows are read when it commits, and those
 * of an aborted one never.  A commit of a million rows is read in pieces; only
 * at its end does snapshot 2 take the place of snapshot 1.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/detoast.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/rows.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "runtime/runtime.h"
#include "stream/inbox.h"
#include "stream/indexes.h"
#include "stream/segment.h"
#include "stream/snapshot.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#define WRITE_ROWS	1000

/*---- writing */

struct KdaInboxWriter
{
	Oid			stream_relid;
	Relation	rel;
	KdaIndexes	indexes;
	BulkInsertState bistate;
	TupleTableSlot *slots[WRITE_ROWS];
	int			n;
	int			nslots;
	int			natts;			/* of the stream */
	AttrNumber *map;
	AttrNumber	rowtime;		/* column that gets the arrival, or of a derived row the time of its event, when left out; 0: none */
	Oid			rowtime_type;
	KdaStreamOptions *options;
	CommandId	cid;
	MemoryContext context;
	Datum	   *shards;			/* names of the source's, as text */
	int			nshards;
	Datum		origin;			/* of the last row, as text … */
	int			origin_of;		/* … which stands for this: shard + 1, or of a part - index - 1; 0: none yet */
};

static int64 next_seq = 1;

/* Which streams this session has written in which transaction: for kda.wait. */
#define REMEMBERED	16
static struct
{
	Oid			relid;
	FullTransactionId xid;
}			written[REMEMBERED];
static int	nwritten = 0;

bool
kda_inbox_written_in_transaction(Oid stream_relid)
{
	FullTransactionId me = GetTopFullTransactionIdIfAny();

	if (!FullTransactionIdIsValid(me))
		return false;
	for (int i = 0; i < Min(nwritten, REMEMBERED); i++)
		if (written[i].relid == stream_relid && FullTransactionIdEquals(written[i].xid, me))
			return true;
	return false;
}

KdaInboxWriter *
kda_inbox_begin(Oid stream_relid)
{
	KdaInboxWriter *w;
	KdaStreamIds ids;
	Relation	stream;
	KdaStreamOptions *options;

	if (!kda_stream_ids(stream_relid, &ids))
	{
		kda_stream_ensure_storage(stream_relid);
		CommandCounterIncrement();
		if (!kda_stream_ids(stream_relid, &ids))
			elog(ERROR, "stream %u has no storage", stream_relid);
	}
	if (ids.stranger)
	{
		/* a restored copy: this row's transaction number must not be taken for one of the original */
		kda_adopt_strangers();
		CommandCounterIncrement();
		if (!kda_stream_ids(stream_relid, &ids) || ids.stranger)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),	/* a worker tries again */
					 errmsg("stream \"%s\" is being restored", get_rel_name(stream_relid)),
					 errhint("Insert when the restore has ended.")));
	}
	w = palloc0(sizeof(KdaInboxWriter));
	w->context = CurrentMemoryContext;
	w->stream_relid = stream_relid;
	w->rel = table_open(ids.inbox, RowExclusiveLock);
	options = kda_stream_options_get(stream_relid);
	stream = table_open(stream_relid, AccessShareLock);
	w->natts = RelationGetDescr(stream)->natts;
	w->map = kda_inbox_map(RelationGetDescr(stream), w->rel);
	w->rowtime = options->rowtime_attno;
	w->options = options;
	if (w->rowtime > 0)
		w->rowtime_type = TupleDescAttr(RelationGetDescr(stream), w->rowtime - 1)->atttypid;
	table_close(stream, NoLock);

	/*
	 * Rows that nobody has read yet hold both segments: then it is the sessions
	 * that have to wait.
	 */
	if (!kda_in_worker && kda_segment_bytes(ids.inbox) > (int64) kda_buffer_size_kb * 1024)
	{
		/* it may be that only the worker has not yet made room */
		kda_slots_wake(MyDatabaseId);
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("stream \"%s\" is full: its queries have not read its rows yet", get_rel_name(stream_relid)),
				 errdetail("Its buffer holds more than kda_stream.buffer_size (%d kB).", kda_buffer_size_kb),
				 errhint("See kda.workers and kda.queries for what holds them back, or raise kda_stream.buffer_size.")));
	}

	kda_indexes_open(&w->indexes, w->rel);
	w->bistate = GetBulkInsertState();
	w->cid = GetCurrentCommandId(true);
	written[nwritten % REMEMBERED].relid = stream_relid;
	written[nwritten % REMEMBERED].xid = GetTopFullTransactionId();
	nwritten++;
	if (nwritten >= REMEMBERED * 2)
		nwritten -= REMEMBERED;
	return w;
}

static void
flush(KdaInboxWriter *w)
{
	if (w->n == 0)
		return;
	table_multi_insert(w->rel, w->slots, w->n, w->cid, 0, w->bistate);
	for (int i = 0; i < w->n; i++)
	{
		kda_indexes_add(&w->indexes, w->slots[i]);
		ExecClearTuple(w->slots[i]);
	}
	w->n = 0;
}

static inline void
put(TupleTableSlot *slot, AttrNumber column, Datum value)
{
	slot->tts_values[column - 1] = value;
	slot->tts_isnull[column - 1] = false;
}

static TupleTableSlot *
next_slot(KdaInboxWriter *w)
{
	TupleTableSlot *slot;

	if (w->n == WRITE_ROWS)
		flush(w);
	if (w->n == w->nslots)
	{
		MemoryContext old = MemoryContextSwitchTo(w->context);

		w->slots[w->nslots++] = MakeSingleTupleTableSlot(RelationGetDescr(w->rel), &TTSOpsVirtual);
		w->slots[w->nslots - 1]->tts_tableOid = RelationGetRelid(w->rel);
		MemoryContextSwitchTo(old);
	}
	slot = w->slots[w->n++];
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, sizeof(bool) * slot->tts_tupleDescriptor->natts);
	put(slot, KDA_INBOX_XID, FullTransactionIdGetDatum(GetTopFullTransactionId()));
	put(slot, KDA_INBOX_SEQ, Int64GetDatum(next_seq++));
	return slot;
}

/* As text; made once per writer. */
static Datum
shard_name(KdaInboxWriter *w, KdaStream *stream, int shard)
{
	if (shard >= w->nshards)
	{
		MemoryContext old = MemoryContextSwitchTo(w->context);

		w->shards = w->shards ? repalloc(w->shards, sizeof(Datum) * stream->nshards) : palloc(sizeof(Datum) * stream->nshards);
		while (w->nshards < stream->nshards)
		{
			w->shards[w->nshards] = CStringGetTextDatum(stream->shards[w->nshards].name);
			w->nshards++;
		}
		MemoryContextSwitchTo(old);
	}
	return w->shards[shard];
}

/* Where the batch's row has come from, as text; rows of one shard share it. */
static Datum
origin_of(KdaInboxWriter *w, KdaStream *stream, int row)
{
	KdaBatch   *batch = stream->batch;
	int			index = stream->norigins > 0 ? batch->origin[row] : 0;
	int			key = index > 0 ? -index : batch->shard[row] + 1;
	MemoryContext old;

	if (key == w->origin_of)
		return w->origin;
	old = MemoryContextSwitchTo(w->context);
	w->origin = CStringGetTextDatum(index > 0 ? stream->origins[index - 1] : psprintf("%d/%s", stream->id, stream->shards[batch->shard[row]].name));
	w->origin_of = key;
	MemoryContextSwitchTo(old);
	return w->origin;
}

static TupleTableSlot *
put_values(KdaInboxWriter *w, TupleTableSlot *from, KdaTime time, KdaTime shard_wm, bool derived)
{
	TupleTableSlot *slot = next_slot(w);
	KdaTime		arrival = time == KDA_NO_TIME ? GetCurrentTransactionStartTimestamp() : time;

	slot_getallattrs(from);
	for (int i = 0; i < w->natts; i++)
		if (w->map[i] > 0)
		{
			slot->tts_values[w->map[i] - 1] = from->tts_values[i];
			slot->tts_isnull[w->map[i] - 1] = from->tts_isnull[i];
		}
	/* a user's row: the worker takes the arrival for it, made monotone, and so do those who look */
	if (derived && w->rowtime > 0 && from->tts_isnull[w->rowtime - 1] && w->map[w->rowtime - 1] > 0)
		put(slot, w->map[w->rowtime - 1], kda_rowtime_value(w->options, w->rowtime_type, arrival));
	put(slot, KDA_INBOX_ARRIVAL, TimestampTzGetDatum(arrival));
	put(slot, KDA_INBOX_DERIVED, BoolGetDatum(derived));
	if (derived && shard_wm != KDA_NO_TIME)
		put(slot, KDA_INBOX_SHARD_WM, TimestampTzGetDatum(shard_wm));
	return slot;
}

void
kda_inbox_put(KdaInboxWriter *w, TupleTableSlot *from, KdaTime time, KdaTime shard_wm, bool derived)
{
	TupleTableSlot *slot = put_values(w, from, time, shard_wm, derived);

	ExecStoreVirtualTuple(slot);
	ExecMaterializeSlot(slot);
}

void
kda_inbox_put_part(KdaInboxWriter *w, TupleTableSlot *from, KdaTime time, KdaTime shard_wm, KdaStream *stream, int row)
{
	TupleTableSlot *slot = put_values(w, from, time, shard_wm, true);

	put(slot, KDA_INBOX_SHARD, origin_of(w, stream, row));
	put(slot, KDA_INBOX_POSITION, Int64GetDatum(stream->batch->position[row]));
	if (stream->batch->refused[row])
		put(slot, KDA_INBOX_CONTROL, CharGetDatum(KDA_CONTROL_REFUSED(stream->batch->refused[row])));
	ExecStoreVirtualTuple(slot);
	ExecMaterializeSlot(slot);
}

void
kda_inbox_put_record(KdaInboxWriter *w, KdaStream *stream, int row, Bitmapset *columns)
{
	KdaBatch   *batch = stream->batch;
	TupleTableSlot *slot = next_slot(w);
	int			c = -1;

	while ((c = bms_next_member(columns, c)) >= 0)
	{
		int			i = c - 1;

		if (i >= 0 && i < w->natts && w->map[i] > 0 && batch->values[i] && !batch->nulls[i][row])
			put(slot, w->map[i], batch->values[i][row]);
	}
	put(slot, KDA_INBOX_ARRIVAL, TimestampTzGetDatum(batch->rowtime[row]));
	put(slot, KDA_INBOX_DERIVED, BoolGetDatum(true));
	if (batch->shard_wm[row] != KDA_NO_TIME)
		put(slot, KDA_INBOX_SHARD_WM, TimestampTzGetDatum(batch->shard_wm[row]));
	if (batch->refused[row])
		put(slot, KDA_INBOX_CONTROL, CharGetDatum(KDA_CONTROL_REFUSED(batch->refused[row])));
	put(slot, KDA_INBOX_SHARD, shard_name(w, stream, batch->shard[row]));
	put(slot, KDA_INBOX_POSITION, Int64GetDatum(batch->position[row]));
	/* what it points to is the batch's, which is there until the writer has ended */
	ExecStoreVirtualTuple(slot);
}

void
kda_inbox_put_control(KdaInboxWriter *w, char control, KdaTime time)
{
	TupleTableSlot *slot = next_slot(w);

	put(slot, KDA_INBOX_ARRIVAL, TimestampTzGetDatum(time));
	put(slot, KDA_INBOX_DERIVED, BoolGetDatum(true));
	put(slot, KDA_INBOX_CONTROL, CharGetDatum(control));
	ExecStoreVirtualTuple(slot);
}

void
kda_inbox_put_place(KdaInboxWriter *w, const KdaInboxPlace *place)
{
	TupleTableSlot *slot = next_slot(w);

	put(slot, KDA_INBOX_ARRIVAL, TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
	put(slot, KDA_INBOX_DERIVED, BoolGetDatum(true));
	put(slot, KDA_INBOX_CONTROL, CharGetDatum(place->control));
	put(slot, KDA_INBOX_SHARD, CStringGetTextDatum(psprintf("%d", place->stream)));
	put(slot, KDA_INBOX_POSITION, Int64GetDatum(place->number));
	ExecStoreVirtualTuple(slot);
}

void
kda_inbox_end(KdaInboxWriter *w)
{
	flush(w);
	FreeBulkInsertState(w->bistate);
	table_finish_bulk_insert(w->rel, 0);
	kda_indexes_close(&w->indexes);
	for (int i = 0; i < w->nslots; i++)
		ExecDropSingleTupleTableSlot(w->slots[i]);
	table_close(w->rel, NoLock);
	pfree(w);
	kda_notify_rows();
}

/*---- reading */

/* Of a record that another slot has read: that of its source. */
static int
shard_of(KdaStream *stream, text *name)
{
	static int	last = 0;
	Size		len = VARSIZE_ANY_EXHDR(name);

	for (int i = 0; i < stream->nshards; i++)
	{
		int			s = (last + i) % stream->nshards;

		if (strlen(stream->shards[s].name) == len && memcmp(stream->shards[s].name, VARDATA_ANY(name), len) == 0)
			return last = s;
	}
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("shard \"%s\" of stream %s is not known yet", text_to_cstring(name), stream->name)));
}

/* The same of a row that has come from another part of a query; index + 1. */
static int
index_of_origin(KdaStream *stream, text *name)
{
	static int	last = 0;
	Size		len = VARSIZE_ANY_EXHDR(name);
	MemoryContext old;

	for (int i = 0; i < stream->norigins; i++)
	{
		int			o = (last + i) % stream->norigins;

		if (strlen(stream->origins[o]) == len && memcmp(stream->origins[o], VARDATA_ANY(name), len) == 0)
			return (last = o) + 1;
	}
	old = MemoryContextSwitchTo(stream->context);
	if (stream->norigins % 16 == 0)
		stream->origins = stream->origins ? repalloc(stream->origins, sizeof(char *) * (stream->norigins + 16)) : palloc(sizeof(char *) * 16);
	stream->origins[stream->norigins] = text_to_cstring(name);
	MemoryContextSwitchTo(old);
	return ++stream->norigins;
}

/* Says where, in the order of the rows. */
static inline bool
is_place(char control)
{
	return control == KDA_CONTROL_RESET || control == KDA_CONTROL_STAND;
}

/* Moves nothing but adds a row. */
static inline bool
is_record(Datum control, bool isnull)
{
	char		c = isnull ? '\0' : DatumGetChar(control);

	return c != KDA_CONTROL_ADVANCE && c != KDA_CONTROL_WATERMARK && !is_place(c);
}

static void
take_row(KdaStream *stream, KdaSegmentCursor *c, AttrNumber *map)
{
	KdaBatch   *batch = stream->batch;
	int			row = kda_batch_add_row(batch);
	TupleDesc	desc = stream->desc;
	bool		isnull;
	AttrNumber	rowtime = stream->options->rowtime_attno;
	bool		derived;
	Datum		mark;

	slot_getallattrs(c->slot);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		AttrNumber	from = map[i];
		Datum		value;

		if (batch->values[i] == NULL || from <= 0 || from > c->slot->tts_tupleDescriptor->natts ||
			c->slot->tts_isnull[from - 1])
			continue;
		value = c->slot->tts_values[from - 1];
		if (!att->attbyval)
		{
			Size		size;
			void	   *copy;
			struct varlena *detoasted = NULL;

			if (att->attlen == -1 && VARATT_IS_EXTENDED(DatumGetPointer(value)))
				value = PointerGetDatum(detoasted = detoast_attr((struct varlena *) DatumGetPointer(value)));
			size = datumGetSize(value, false, att->attlen);
			copy = kda_batch_alloc(batch, size);
			memcpy(copy, DatumGetPointer(value), size);
			value = PointerGetDatum(copy);
			if (detoasted)
				pfree(detoasted);
		}
		batch->values[i][row] = value;
		batch->nulls[i][row] = false;
	}
	derived = DatumGetBool(c->slot->tts_values[KDA_INBOX_DERIVED - 1]);
	batch->shard[row] = 0;
	batch->record[row] = row;
	batch->xid[row] = c->xid;
	batch->position[row] = (int64) c->xid;
	batch->refused[row] = 0;
	batch->origin[row] = 0;
	if (!c->slot->tts_isnull[KDA_INBOX_SHARD - 1])
	{
		text	   *shard = DatumGetTextPP(c->slot->tts_values[KDA_INBOX_SHARD - 1]);

		if (stream->relay)
			batch->shard[row] = shard_of(stream, shard);
		else
			batch->origin[row] = index_of_origin(stream, shard);
		batch->position[row] = DatumGetInt64(c->slot->tts_values[KDA_INBOX_POSITION - 1]);
		if (!c->slot->tts_isnull[KDA_INBOX_CONTROL - 1])
			batch->refused[row] = DatumGetChar(c->slot->tts_values[KDA_INBOX_CONTROL - 1]) - KDA_CONTROL_REFUSED(0);
	}
	batch->arrival[row] = DatumGetTimestampTz(c->slot->tts_values[KDA_INBOX_ARRIVAL - 1]);
	mark = slot_getattr(c->slot, KDA_INBOX_SHARD_WM, &isnull);
	/* "came before any watermark" is still not "no pump's row" */
	batch->shard_wm[row] = !derived ? KDA_NO_TIME : isnull ? KDA_NO_TIME + 1 : DatumGetTimestampTz(mark);
	batch->rowtime[row] = KDA_NO_TIME;
	if (rowtime > 0 && batch->values[rowtime - 1] && !batch->nulls[rowtime - 1][row])
		batch->rowtime[row] = kda_rowtime_of(stream->options, TupleDescAttr(desc, rowtime - 1)->atttypid,
											 batch->values[rowtime - 1][row]);
}

int
kda_inbox_read(KdaStream *stream, KdaInboxPosition *position, int max_rows, Size max_bytes,
			   bool *more, KdaInboxPlace *place, MemoryContext context)
{
	KdaBatch   *batch = stream->batch;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "kda inbox read",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	KdaSnap    *snap1 = position->snapshot1 ? kda_snapshot_parse(position->snapshot1) : NULL;
	KdaSnap    *snap2;
	char	   *text2 = position->snapshot2;
	bool		old_snapshot = text2 != NULL;
	KdaSegments segments;
	AttrNumber *maps[2] = {NULL, NULL};
	KdaSegmentCursor *c;
	int			n = 0;
	bool		any = false;
	bool		resumed = text2 != NULL;
	bool		within = resumed && position->last_xid > 0;
	uint64		from = within ? position->last_xid : snap1 ? snap1->xmin : 0;

	if (text2 == NULL)
		text2 = kda_inbox_snapshot();
	snap2 = kda_snapshot_parse(text2);
	*more = false;
	memset(place, 0, sizeof(*place));
	kda_segments_open(&segments, stream->inbox, stream->inbox2, GetActiveSnapshot(), from, position->last_seq, within);
	for (int i = 0; i < 2; i++)
		if (segments.cursors[i].rel)
			maps[i] = kda_inbox_map(stream->desc, segments.cursors[i].rel);
	while ((c = kda_segments_row(&segments)) != NULL && c->xid < snap2->xmax)
	{
		bool		isnull;
		Datum		control;

		if (!kda_snapshot_sees(snap2, c->xid) || kda_snapshot_sees(snap1, c->xid))
		{
			kda_segments_advance(&segments);
			continue;
		}
		if (n >= max_rows || batch->bytes >= max_bytes)
		{
			*more = true;
			break;
		}
		control = slot_getattr(c->slot, KDA_INBOX_CONTROL, &isnull);
		if (n > 0 && !isnull && (DatumGetChar(control) == KDA_CONTROL_ADVANCE || is_place(DatumGetChar(control))))
		{
			/* the rows before it are judged without it */
			*more = true;
			break;
		}
		any = true;
		position->last_xid = c->xid;
		position->last_seq = c->seq;
		if (!isnull && is_place(DatumGetChar(control)))
		{
			place->control = DatumGetChar(control);
			place->stream = atoi(TextDatumGetCString(slot_getattr(c->slot, KDA_INBOX_SHARD, &isnull)));
			place->number = DatumGetInt64(slot_getattr(c->slot, KDA_INBOX_POSITION, &isnull));
			*more = true;
			break;
		}
		if (!is_record(control, isnull))
		{
			KdaTime		time = DatumGetTimestampTz(slot_getattr(c->slot, KDA_INBOX_ARRIVAL, &isnull));

			if (DatumGetChar(control) == KDA_CONTROL_ADVANCE)
				stream->advanced = Max(stream->advanced, time);
			else
				stream->derived = Max(stream->derived, time);
		}
		else
		{
			take_row(stream, c, maps[c - segments.cursors]);
			n++;
		}
		if (n % 64 == 0)
			CHECK_FOR_INTERRUPTS();
		kda_segments_advance(&segments);
	}
	kda_segments_close(&segments);
	MemoryContextSwitchTo(context);
	if (any || *more)
	{
		if (*more)
			position->snapshot2 = pstrdup(text2);
		else
		{
			position->snapshot1 = pstrdup(text2);
			position->snapshot2 = NULL;
			position->last_xid = 0;
			position->last_seq = 0;
		}
	}
	else if (position->snapshot2 != NULL)
	{
		position->snapshot1 = pstrdup(position->snapshot2);
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

bool
kda_inbox_consumed(KdaStream *stream, Oid segment, const KdaInboxPosition *position)
{
	KdaSnap    *snap = position && position->snapshot1 ? kda_snapshot_parse(position->snapshot1) : NULL;
	KdaSegments segments;
	KdaSegmentCursor *c;
	bool		consumed = true;

	if (position && position->snapshot2)
		return false;
	kda_segments_open(&segments, segment, InvalidOid, GetActiveSnapshot(), snap ? snap->xmin : 0, 0, false);
	while (consumed && (c = kda_segments_row(&segments)) != NULL)
	{
		consumed = kda_snapshot_sees(snap, c->xid);
		kda_segments_advance(&segments);
	}
	kda_segments_close(&segments);
	return consumed;
}
