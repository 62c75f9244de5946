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
#include "catalog/index.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "runtime/runtime.h"
#include "stream/inbox.h"
#include "stream/indexes.h"
#include "stream/segment.h"
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

/*---- tables */

/*
 * A domain's checks were made when the row came in; here they would run as the
 * extension's owner.
 */
static Oid
stored_type(Form_pg_attribute att, int32 *typmod)
{
	*typmod = att->atttypmod;
	return getBaseTypeAndTypmod(att->atttypid, typmod);
}

static char *
column_type(Form_pg_attribute att)
{
	int32		typmod;
	Oid			type = stored_type(att, &typmod);

	return kda_column_type_sql(type, typmod, att->attcollation);
}

char *
kda_inbox_ddl(Oid stream_relid, const char *name, bool durable)
{
	Relation	stream = table_open(stream_relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(stream);
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "CREATE %sTABLE %s (kda_xid pg_catalog.xid8 NOT NULL, kda_seq bigint NOT NULL, "
					 "kda_arrival pg_catalog.timestamptz NOT NULL, kda_shard_wm pg_catalog.timestamptz, "
					 "kda_derived boolean NOT NULL, kda_control \"char\", kda_shard varchar(128), kda_position bigint",
					 durable ? "" : "UNLOGGED ", name);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped)
			appendStringInfo(&s, ", c%d %s", i + 1, column_type(att));
	}
	appendStringInfo(&s, "); CREATE INDEX ON %s (kda_xid, kda_seq)", name);
	table_close(stream, NoLock);
	return s.data;
}

char *
kda_inbox_sync_ddl(Oid stream_relid, Oid inbox)
{
	Relation	stream = table_open(stream_relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(stream);
	StringInfoData s;
	const char *separator = "";

	initStringInfo(&s);
	appendStringInfo(&s, "ALTER TABLE " KDA_STORAGE_SCHEMA ".%s ", quote_identifier(get_rel_name(inbox)));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		char	   *name = psprintf("c%d", i + 1);
		AttrNumber	attno = get_attnum(inbox, name);
		Oid			type,
					collation,
					wanted;
		int32		typmod,
					wanted_typmod;

		if (att->attisdropped)
			continue;
		if (attno == InvalidAttrNumber)
		{
			appendStringInfo(&s, "%sADD COLUMN %s %s", separator, name, column_type(att));
			separator = ", ";
			continue;
		}
		get_atttypetypmodcoll(inbox, attno, &type, &typmod, &collation);
		wanted = stored_type(att, &wanted_typmod);
		if (type != wanted || typmod != wanted_typmod || collation != att->attcollation)
		{
			/* rows are cast as the extension's owner: by core's functions only */
			if (type != wanted && (type >= FirstNormalObjectId || wanted >= FirstNormalObjectId))
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("column \"%s\" of stream \"%s\" cannot be changed from type %s to type %s",
								NameStr(att->attname), RelationGetRelationName(stream), format_type_be(type),
								format_type_be(wanted)),
						 errhint("Add a column of the new type.")));
			appendStringInfo(&s, "%sALTER COLUMN %s TYPE %s USING %s::%s", separator, name,
							 column_type(att), name,
							 format_type_extended(wanted, wanted_typmod,
												  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
			separator = ", ";
		}
	}
	for (int i = 0; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->attisdropped && get_attnum(inbox, psprintf("c%d", i + 1)) != InvalidAttrNumber)
		{
			appendStringInfo(&s, "%sDROP COLUMN c%d", separator, i + 1);
			separator = ", ";
		}
	table_close(stream, NoLock);
	return separator[0] ? s.data : NULL;
}

/* The attribute numbers of a segment's columns of the stream, in the order of their names' numbers; returns how many. */
static int
stream_columns(TupleDesc inbox, AttrNumber *attnos)
{
	int		   *numbers = palloc(sizeof(int) * Max(inbox->natts, 1));
	int			n = 0;

	for (int i = KDA_INBOX_NCOLS; i < inbox->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(inbox, i);
		int			number,
					at;

		if (att->attisdropped)
			continue;
		number = atoi(NameStr(att->attname) + 1);
		for (at = n++; at > 0 && numbers[at - 1] > number; at--)
		{
			numbers[at] = numbers[at - 1];
			attnos[at] = attnos[at - 1];
		}
		numbers[at] = number;
		attnos[at] = i + 1;
	}
	pfree(numbers);
	return n;
}

/*
 * By their order, not by their names: in a restored stream the columns are
 * numbered anew, without those that had been dropped.
 */
AttrNumber *
kda_inbox_map(TupleDesc stream, Relation inbox)
{
	AttrNumber *map = palloc0(sizeof(AttrNumber) * Max(stream->natts, 1));
	AttrNumber *attnos = palloc(sizeof(AttrNumber) * Max(RelationGetDescr(inbox)->natts, 1));
	int			n = stream_columns(RelationGetDescr(inbox), attnos);
	int			next = 0;

	for (int i = 0; i < stream->natts && next < n; i++)
		if (!TupleDescAttr(stream, i)->attisdropped)
			map[i] = attnos[next++];
	pfree(attnos);
	return map;
}

void
kda_inbox_rename_columns(Oid stream_relid, Oid segment)
{
	Relation	stream = table_open(stream_relid, AccessShareLock);
	Relation	inbox = table_open(segment, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(stream);
	AttrNumber *map = kda_inbox_map(desc, inbox);

	/* a number never grows, so that no name is taken when its turn comes */
	for (int i = 0; i < desc->natts; i++)
	{
		const char *had;

		if (map[i] <= 0)
			continue;
		had = NameStr(TupleDescAttr(RelationGetDescr(inbox), map[i] - 1)->attname);
		if (atoi(had + 1) != i + 1)
			SPI_execute(psprintf("ALTER TABLE " KDA_STORAGE_SCHEMA ".%s RENAME COLUMN %s TO c%d",
								 quote_identifier(RelationGetRelationName(inbox)), had, i + 1), false, 0);
	}
	table_close(inbox, NoLock);
	table_close(stream, NoLock);
}

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

void
kda_inbox_put(KdaInboxWriter *w, TupleTableSlot *from, KdaTime time, KdaTime shard_wm, bool derived)
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
	ExecStoreVirtualTuple(slot);
	ExecMaterializeSlot(slot);
}

void
kda_inbox_put_record(KdaInboxWriter *w, KdaStream *stream, int row, Bitmapset *columns, uint8 refused)
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
	if (refused)
		put(slot, KDA_INBOX_CONTROL, CharGetDatum(KDA_CONTROL_REFUSED(refused)));
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

/*---- snapshots */

typedef struct Snap
{
	uint64		xmin,
				xmax;
	int			n;
	uint64	   *xip;			/* ascending */
} Snap;

static Snap *
parse_snapshot(const char *text)
{
	Snap	   *snap = palloc0(sizeof(Snap));
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

static bool
visible_in(const Snap *snap, uint64 xid)
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
	static Snap *parsed = NULL;

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
		parsed = parse_snapshot(snapshot);
		last = pstrdup(snapshot);
		MemoryContextSwitchTo(old);
	}
	return visible_in(parsed, xid);
}

char *
kda_inbox_snapshot(void)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(pg_snapshot_out,
														   OidFunctionCall0(F_PG_CURRENT_SNAPSHOT)));
	FullTransactionId me = GetTopFullTransactionIdIfAny();
	Snap	   *snap;
	uint64		mine;
	StringInfoData s;
	bool		done = false;

	if (!FullTransactionIdIsValid(me))
		return text;
	mine = U64FromFullTransactionId(me);
	snap = parse_snapshot(text);
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

/* Moves nothing but adds a row. */
static inline bool
is_record(Datum control, bool isnull)
{
	char		c = isnull ? '\0' : DatumGetChar(control);

	return c != KDA_CONTROL_ADVANCE && c != KDA_CONTROL_WATERMARK;
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
	if (!c->slot->tts_isnull[KDA_INBOX_SHARD - 1])
	{
		batch->shard[row] = shard_of(stream, DatumGetTextPP(c->slot->tts_values[KDA_INBOX_SHARD - 1]));
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
			   bool *more, MemoryContext context)
{
	KdaBatch   *batch = stream->batch;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "kda inbox read",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	Snap	   *snap1 = position->snapshot1 ? parse_snapshot(position->snapshot1) : NULL;
	Snap	   *snap2;
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
	snap2 = parse_snapshot(text2);
	*more = false;
	kda_segments_open(&segments, stream->inbox, stream->inbox2, GetActiveSnapshot(), from, position->last_seq, within);
	for (int i = 0; i < 2; i++)
		if (segments.cursors[i].rel)
			maps[i] = kda_inbox_map(stream->desc, segments.cursors[i].rel);
	while ((c = kda_segments_row(&segments)) != NULL && c->xid < snap2->xmax)
	{
		bool		isnull;
		Datum		control;

		if (!visible_in(snap2, c->xid) || visible_in(snap1, c->xid))
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
		if (!isnull && DatumGetChar(control) == KDA_CONTROL_ADVANCE && n > 0)
		{
			/* the rows before it are judged without it */
			*more = true;
			break;
		}
		any = true;
		position->last_xid = c->xid;
		position->last_seq = c->seq;
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
	Snap	   *snap = position && position->snapshot1 ? parse_snapshot(position->snapshot1) : NULL;
	KdaSegments segments;
	KdaSegmentCursor *c;
	bool		consumed = true;

	if (position && position->snapshot2)
		return false;
	kda_segments_open(&segments, segment, InvalidOid, GetActiveSnapshot(), snap ? snap->xmin : 0, 0, false);
	while (consumed && (c = kda_segments_row(&segments)) != NULL)
	{
		consumed = visible_in(snap, c->xid);
		kda_segments_advance(&segments);
	}
	kda_segments_close(&segments);
	return consumed;
}

void
kda_inbox_restamp(int32 stream_id, Oid stream_relid)
{
	KdaStreamIds ids;
	char	   *snapshot;
	char	   *update[2];

	if (!kda_stream_ids(stream_relid, &ids) || !OidIsValid(ids.inbox))
		return;
	kda_inbox_rename_columns(stream_relid, ids.inbox);
	kda_inbox_rename_columns(stream_relid, ids.inbox2);
	/*
	 * Numbers of another system mean nothing here: read rows become ancient, the
	 * others this transaction's, in their order.  What other transactions are
	 * writing meanwhile is not seen here: taken before, the snapshot says that
	 * it has not been read.
	 */
	(void) GetTopFullTransactionId();
	snapshot = kda_inbox_snapshot();
	for (int i = 0; i < 2; i++)
		update[i] = psprintf("UPDATE " KDA_STORAGE_SCHEMA ".%s AS r SET kda_seq = o.n, kda_xid = CASE WHEN "
							 "pg_catalog.pg_visible_in_snapshot(r.kda_xid, p.snapshot1::pg_catalog.pg_snapshot) OR "
							 "(p.snapshot2 IS NOT NULL AND pg_catalog.pg_visible_in_snapshot(r.kda_xid, p.snapshot2::pg_catalog.pg_snapshot) "
							 "AND (r.kda_xid < p.last_xid OR (r.kda_xid = p.last_xid "
							 "AND r.kda_seq <= p.last_seq))) THEN '3'::pg_catalog.xid8 "
							 "ELSE pg_catalog.pg_current_xact_id() END "
							 "FROM kda_storage.stream_progress p, o WHERE p.stream_id = %d AND o.segment = %d AND o.place = r.ctid",
							 quote_identifier(get_rel_name(i == 0 ? ids.inbox : ids.inbox2)), stream_id, i);
	SPI_execute(psprintf("WITH o AS MATERIALIZED (SELECT segment, place, "
						 "pg_catalog.row_number() OVER (ORDER BY kda_xid, kda_seq, segment, place) AS n FROM "
						 "(SELECT 0 AS segment, ctid AS place, kda_xid, kda_seq FROM " KDA_STORAGE_SCHEMA ".%s UNION ALL "
						 "SELECT 1, ctid, kda_xid, kda_seq FROM " KDA_STORAGE_SCHEMA ".%s) AS u), one AS (%s) %s",
						 quote_identifier(get_rel_name(ids.inbox)), quote_identifier(get_rel_name(ids.inbox2)),
						 update[0], update[1]), false, 0);
	SPI_execute(psprintf("UPDATE kda_storage.stream_progress SET snapshot1 = CASE WHEN snapshot1 IS NOT NULL THEN %s END, "
						 "snapshot2 = NULL, last_xid = NULL, last_seq = NULL WHERE stream_id = %d",
						 quote_literal_cstr(snapshot), stream_id), false, 0);
	/* also of queries of a source stream whose records came by way of it */
	SPI_execute(psprintf("UPDATE kda_storage.query SET start_snapshot = CASE WHEN stream = r THEN NULL ELSE start_snapshot END, "
						 "start_snapshot2 = CASE WHEN stream2 = r THEN NULL ELSE start_snapshot2 END "
						 "FROM (SELECT %u::pg_catalog.regclass AS r) s WHERE r IN (stream, stream2)",
						 stream_relid), false, 0);
}
