/*-------------------------------------------------------------------------
 *
 * outbox.c
 *	  The outbox of a stream on an outside server: its tables, and what
 *	  sessions and pumps write into them, in their own transactions.
 *
 * Two logged segments take turns (outbox_read.c).  Encoding may run code of
 * whoever made the columns' types: it runs as the stream's owner.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/options.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "format/encode.h"
#include "miscadmin.h"
#include "runtime/runtime.h"
#include "storage/lmgr.h"
#include "stream/indexes.h"
#include "stream/outbox.h"
#include "stream/stream.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/xid8.h"

#define WRITE_ROWS	1000
#define WRITE_BYTES	(1024 * 1024)

/*---- storage */

static Oid
make_segment(Oid relid, int32 id, const char *suffix)
{
	char	   *name = psprintf("outbox_%d%s", id, suffix);
	Oid			oid;

	/* what is encoded is never compressed well by ours, nor looked at but by the deliver worker */
	kda_run_as_owner(psprintf("CREATE TABLE " KDA_STORAGE_SCHEMA ".%s (kda_xid pg_catalog.xid8 NOT NULL, kda_seq bigint NOT NULL, "
							  "at pg_catalog.timestamptz NOT NULL, time pg_catalog.timestamptz NOT NULL, key bytea, value bytea, "
							  "headers text, hash_key text); "
							  "CREATE INDEX ON " KDA_STORAGE_SCHEMA ".%s (kda_xid, kda_seq)", name, name));
	CommandCounterIncrement();
	oid = kda_storage_relation(name);
	kda_depend(oid, relid, DEPENDENCY_INTERNAL);
	return oid;
}

int32
kda_outbox_ensure(Oid relid, Oid source)
{
	KdaOutputIds ids;

	if (kda_output_ids(relid, &ids))
		return ids.id;
	/* two sessions may write it for the first time at once */
	LockDatabaseObject(RelationRelationId, relid, 0, ShareUpdateExclusiveLock);
	CommandCounterIncrement();
	if (kda_output_ids(relid, &ids))
		return ids.id;
	ids.id = kda_next_id();
	kda_run_as_owner(psprintf("INSERT INTO kda_storage.output (output_id, rel, source, box, box2, origin) VALUES "
							  "(%d, %u::pg_catalog.regclass, %s, %u::pg_catalog.regclass, %u::pg_catalog.regclass, %s); "
							  "INSERT INTO kda_storage.output_progress (output_id) VALUES (%d)",
							  ids.id, relid, OidIsValid(source) ? psprintf("%u::pg_catalog.regclass", source) : "NULL",
							  make_segment(relid, ids.id, "a"), make_segment(relid, ids.id, "b"),
							  quote_literal_cstr(kda_origin()), ids.id));
	CommandCounterIncrement();
	kda_catalog_changed();
	return ids.id;
}

void
kda_outbox_check_writable(Oid relid)
{
	KdaStreamOptions *options = kda_stream_options_get(relid);
	const char *name = get_rel_name(relid);

	if (options->server_type == NULL)
		return;
	if (kda_sink_ops(options->server_type) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" is on a server of type \"%s\" and cannot be written", name, options->server_type),
				 errhint("Streams of the database (CREATE STREAM without SERVER) take INSERT and COPY.")));
	if (options->schema_registry)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" has option schema_registry and cannot be written", name),
				 errdetail("Schemas are not registered by this release, so no record could name its own."),
				 errhint("A stream with option schema and without a registry writes records that are nothing but their data.")));
	if (!options->writable)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream \"%s\" is not writable", name),
				 errhint("ALTER STREAM %s OPTIONS (SET writable 'true') lets INSERT go to its server.", quote_identifier(name))));
	if (!options->writable_given && kda_stream_has_query(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream \"%s\" is read by a continuous query and is not writable", name),
				 errdetail("What is written would come back as records of the stream."),
				 errhint("Declare another stream for what is written, or ALTER STREAM %s OPTIONS (SET writable 'true').", quote_identifier(name))));
}

bool
kda_outbox_is_full(const KdaOutputIds *ids)
{
	return kda_segment_bytes(ids->box) + kda_segment_bytes(ids->box2) > (int64) kda_outbox_size_kb * 1024;
}

/*---- writing */

struct KdaOutboxWriter
{
	Relation	rel;
	TupleDesc	desc;			/* of the stream */
	Relation	stream;
	KdaStreamOptions *options;
	KdaEncoder *encoder;
	KdaEncoder *key_encoder;	/* of several columns; NULL: key is one, or there is none */
	Bitmapset  *payload;		/* upsert: columns that say whether there is a row at all */
	KdaIndexes	indexes;
	BulkInsertState bistate;
	TupleTableSlot *slots[WRITE_ROWS];
	int			n;
	int			nslots;
	Size		bytes;
	CommandId	cid;
	MemoryContext context;
	MemoryContext scratch;		/* emptied after each row */
};

static int64 next_seq = 1;

static void
make_encoders(KdaOutboxWriter *w)
{
	KdaStreamOptions *o = w->options;
	Bitmapset  *columns = NULL;

	for (int i = 0; i < w->desc->natts; i++)
		if (!TupleDescAttr(w->desc, i)->attisdropped && o->columns[i].meta == KDA_META_NONE &&
			i + 1 != o->headers_attno && i + 1 != o->hash_key_attno)
			columns = bms_add_member(columns, i + 1);
	if (columns == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream \"%s\" has no column that could be written", RelationGetRelationName(w->stream)),
				 errdetail("Columns with option meta, and those of options headers and explicit_hash_key, are no part of a record's value.")));
	w->encoder = kda_encoder_create(w->context, w->desc, o, columns);
	if (o->nkeys > 1)
	{
		KdaStreamOptions *json = palloc(sizeof(KdaStreamOptions));
		Bitmapset  *keys = NULL;

		*json = *o;
		json->format = KDA_FORMAT_JSON;
		for (int i = 0; i < o->nkeys; i++)
			keys = bms_add_member(keys, o->keys[i]);
		w->key_encoder = kda_encoder_create(w->context, w->desc, json, keys);
	}
	if (o->upsert)
	{
		for (int i = 0; i < o->nkeys; i++)
			columns = bms_del_member(columns, o->keys[i]);
		if (o->rowtime_attno > 0)
			columns = bms_del_member(columns, o->rowtime_attno);
		w->payload = columns;
	}
}

KdaOutboxWriter *
kda_outbox_begin(Oid relid)
{
	KdaOutboxWriter *w;
	KdaOutputIds ids;

	if (!kda_output_ids(relid, &ids))
	{
		kda_outbox_ensure(relid, InvalidOid);
		CommandCounterIncrement();
		if (!kda_output_ids(relid, &ids))
			elog(ERROR, "output %u has no storage", relid);
	}
	if (ids.stranger)
	{
		/* a restored copy: this row's transaction number must not be taken for one of the original */
		kda_adopt_strangers();
		CommandCounterIncrement();
		if (!kda_output_ids(relid, &ids) || ids.stranger)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),	/* a worker tries again */
					 errmsg("output \"%s\" is being restored", get_rel_name(relid)),
					 errhint("Insert when the restore has ended.")));
	}
	if (!kda_in_worker && kda_outbox_is_full(&ids))
	{
		/* it may be that only the deliver worker has not yet made room */
		kda_slots_wake_deliver();
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("the outbox of \"%s\" is full: its rows have not been delivered yet", get_rel_name(relid)),
				 errdetail("It holds more than kda_stream.outbox_size (%d kB).", kda_outbox_size_kb),
				 errhint("See kda.outputs for what holds its deliveries up, or raise kda_stream.outbox_size.")));
	}
	w = palloc0(sizeof(KdaOutboxWriter));
	w->context = CurrentMemoryContext;
	w->scratch = AllocSetContextCreate(CurrentMemoryContext, "kda outbox row", ALLOCSET_DEFAULT_SIZES);
	w->options = kda_stream_options_get(relid);
	w->stream = table_open(relid, AccessShareLock);
	w->desc = RelationGetDescr(w->stream);
	make_encoders(w);
	w->rel = table_open(ids.box, RowExclusiveLock);
	kda_indexes_open(&w->indexes, w->rel);
	w->bistate = GetBulkInsertState();
	w->cid = GetCurrentCommandId(true);
	return w;
}

static void
flush(KdaOutboxWriter *w)
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
	w->bytes = 0;
}

static inline void
put(TupleTableSlot *slot, AttrNumber column, Datum value)
{
	slot->tts_values[column - 1] = value;
	slot->tts_isnull[column - 1] = false;
}

static Datum
bytes_datum(const char *data, Size len)
{
	bytea	   *value;

	if (len > MaxAllocSize - VARHDRSZ)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a record of %zu bytes is too large to be written", len)));
	value = palloc(VARHDRSZ + len);
	SET_VARSIZE(value, VARHDRSZ + len);
	memcpy(VARDATA(value), data, len);
	return PointerGetDatum(value);
}

/* A row with what every row has; the rest is put in behind it, then store() is called. */
static TupleTableSlot *
next_slot(KdaOutboxWriter *w, KdaTime time)
{
	TupleTableSlot *slot;

	if (w->n == WRITE_ROWS || w->bytes >= WRITE_BYTES)
		flush(w);
	if (w->n == w->nslots)
	{
		MemoryContext old = MemoryContextSwitchTo(w->context);

		w->slots[w->nslots++] = MakeSingleTupleTableSlot(RelationGetDescr(w->rel), &TTSOpsVirtual);
		w->slots[w->nslots - 1]->tts_tableOid = RelationGetRelid(w->rel);
		MemoryContextSwitchTo(old);
	}
	slot = w->slots[w->n];
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, sizeof(bool) * slot->tts_tupleDescriptor->natts);
	put(slot, KDA_BOX_XID, FullTransactionIdGetDatum(GetTopFullTransactionId()));
	put(slot, KDA_BOX_SEQ, Int64GetDatum(next_seq++));
	put(slot, KDA_BOX_AT, TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
	put(slot, KDA_BOX_TIME, TimestampTzGetDatum(time));
	return slot;
}

static void
store(KdaOutboxWriter *w, TupleTableSlot *slot)
{
	ExecStoreVirtualTuple(slot);
	ExecMaterializeSlot(slot);
	w->n++;
}

static KdaTime
time_of(KdaOutboxWriter *w, TupleTableSlot *from)
{
	AttrNumber	rowtime = w->options->rowtime_attno;
	bool		isnull = true;
	Datum		value = (Datum) 0;
	KdaTime		time = KDA_NO_TIME;

	if (rowtime > 0)
		value = slot_getattr(from, rowtime, &isnull);
	if (!isnull)
		time = kda_rowtime_of(w->options, TupleDescAttr(w->desc, rowtime - 1)->atttypid, value);
	return TIMESTAMP_NOT_FINITE(time) ? GetCurrentTransactionStartTimestamp() : time;
}

/* changelog 'upsert': a row of which nothing but its key is left takes the earlier one away. */
static bool
is_tombstone(KdaOutboxWriter *w, TupleTableSlot *from)
{
	int			c = -1;

	if (!w->options->upsert || bms_is_empty(w->payload))
		return false;
	while ((c = bms_next_member(w->payload, c)) >= 0)
		if (!from->tts_isnull[c - 1])
			return false;
	return true;
}

static Datum
headers_text(KdaOutboxWriter *w, Datum value)
{
	Jsonb	   *object;

	if (TupleDescAttr(w->desc, w->options->headers_attno - 1)->atttypid == JSONBOID)
		object = DatumGetJsonbP(value);
	else
		object = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(TextDatumGetCString(value))));
	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("headers of stream \"%s\" must be a JSON object", RelationGetRelationName(w->stream))));
	return CStringGetTextDatum(JsonbToCString(NULL, &object->root, VARSIZE(object)));
}

void
kda_outbox_put(KdaOutboxWriter *w, TupleTableSlot *from, KdaTime time)
{
	TupleTableSlot *slot = next_slot(w, time == KDA_NO_TIME ? time_of(w, from) : time);
	KdaStreamOptions *o = w->options;
	MemoryContext old = MemoryContextSwitchTo(w->scratch);
	StringInfoData bytes;
	Oid			userid;
	int			sec_context;

	slot_getallattrs(from);
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(o->owner, sec_context | SECURITY_RESTRICTED_OPERATION | SECURITY_LOCAL_USERID_CHANGE);
	initStringInfo(&bytes);
	if (w->key_encoder)
	{
		kda_encode(w->key_encoder, from, &bytes);
		put(slot, KDA_BOX_KEY, bytes_datum(bytes.data, bytes.len));
	}
	else if (o->nkeys == 1 && kda_encode_key(w->encoder, from, o->keys[0], &bytes))
		put(slot, KDA_BOX_KEY, bytes_datum(bytes.data, bytes.len));
	else if (o->upsert)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("the key of a row of stream \"%s\" is null", RelationGetRelationName(w->stream)),
				 errdetail("With option changelog 'upsert' each record has a key.")));
	w->bytes += bytes.len;
	if (!is_tombstone(w, from))
	{
		resetStringInfo(&bytes);
		/* text and bytea: NULL is a tombstone, too */
		if (kda_encode(w->encoder, from, &bytes))
			put(slot, KDA_BOX_VALUE, bytes_datum(bytes.data, bytes.len));
		w->bytes += bytes.len;
	}
	if (o->headers_attno > 0 && !from->tts_isnull[o->headers_attno - 1])
		put(slot, KDA_BOX_HEADERS, headers_text(w, from->tts_values[o->headers_attno - 1]));
	resetStringInfo(&bytes);
	if (o->hash_key_attno > 0 && kda_encode_key(w->encoder, from, o->hash_key_attno, &bytes))
		put(slot, KDA_BOX_HASH_KEY, PointerGetDatum(cstring_to_text_with_len(bytes.data, bytes.len)));
	SetUserIdAndSecContext(userid, sec_context);
	MemoryContextSwitchTo(old);
	store(w, slot);
	MemoryContextReset(w->scratch);
}

void
kda_outbox_put_record(KdaOutboxWriter *w, const KdaOutRecord *record)
{
	TupleTableSlot *slot = next_slot(w, record->time);
	MemoryContext old = MemoryContextSwitchTo(w->scratch);

	if (record->key)
		put(slot, KDA_BOX_KEY, bytes_datum(record->key, record->key_len));
	if (record->value)
		put(slot, KDA_BOX_VALUE, bytes_datum(record->value, record->len));
	if (record->headers)
		put(slot, KDA_BOX_HEADERS, CStringGetTextDatum(record->headers));
	if (record->hash_key)
		put(slot, KDA_BOX_HASH_KEY, CStringGetTextDatum(record->hash_key));
	w->bytes += record->len;
	MemoryContextSwitchTo(old);
	store(w, slot);
	MemoryContextReset(w->scratch);
}

void
kda_outbox_end(KdaOutboxWriter *w)
{
	flush(w);
	FreeBulkInsertState(w->bistate);
	table_finish_bulk_insert(w->rel, 0);
	kda_indexes_close(&w->indexes);
	for (int i = 0; i < w->nslots; i++)
		ExecDropSingleTupleTableSlot(w->slots[i]);
	table_close(w->rel, NoLock);
	table_close(w->stream, NoLock);
	MemoryContextDelete(w->scratch);
	pfree(w);
	kda_notify_outbox();
}
