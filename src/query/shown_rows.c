/*-------------------------------------------------------------------------
 *
 * shown_rows.c
 *	  The table of what was emitted: its rows read, compared and written
 *	  (shown_rows.h).
 *
 * In a pipeline worker, in its transaction.  Memory: the caller's, a context
 * for each look.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "query/run.h"
#include "query/shown_rows.h"
#include "runtime/fault.h"
#include "runtime/runtime.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/*---- telling rows apart */

static void
make_specs(KdaLook *look)
{
	KdaShown   *shown = look->shown;

	if (shown->specs)
		return;
	shown->specs = MemoryContextAllocZero(look->query->context, sizeof(KdaKeySpec) * (shown->nkeys + 1));
	for (int i = 0; i < shown->nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(look->desc, look->first - 1 + shown->keys[i]);

		kda_key_make(look->query->context, &shown->specs[i],
					 (Node *) makeVar(1, att->attnum, att->atttypid, att->atttypmod, att->attcollation, 0));
	}
}

static bool
is_revision(const KdaShown *shown, int column)
{
	for (int i = 0; i < shown->nrevisions; i++)
		if (shown->revisions[i] == column)
			return true;
	return false;
}

bool
kda_look_same_row(KdaLook *look, const Datum *a, const bool *anulls, const Datum *b, const bool *bnulls)
{
	for (int i = 0; i < look->ncolumns; i++)
	{
		Form_pg_attribute att = TupleDescAttr(look->desc, look->first - 1 + i);

		if (is_revision(look->shown, i))
			continue;
		if (anulls[i] != bnulls[i] || (!anulls[i] && !datum_image_eq(a[i], b[i], att->attbyval, att->attlen)))
			return false;
	}
	return true;
}

static Datum
key_value(KdaLook *look, int i, const Datum *values, const bool *nulls)
{
	int			column = look->shown->keys[i];
	KdaKeySpec *spec = &look->shown->specs[i];

	if (nulls[column])
		return (Datum) 0;
	return !spec->byval && spec->len == -1 ? PointerGetDatum(PG_DETOAST_DATUM_PACKED(values[column])) : values[column];
}

bool
kda_look_same_key(KdaLook *look, const Datum *a, const bool *anulls, const Datum *b, const bool *bnulls)
{
	KdaShown   *shown = look->shown;

	if (!shown->keyed)
		return kda_look_same_row(look, a, anulls, b, bnulls);
	for (int i = 0; i < shown->nkeys; i++)
	{
		int			column = shown->keys[i];

		if (anulls[column] != bnulls[column] ||
			(!anulls[column] && !kda_key_equal(&shown->specs[i], key_value(look, i, a, anulls), key_value(look, i, b, bnulls))))
			return false;
	}
	return true;
}

uint64
kda_look_hash_row(KdaLook *look, uint64 window, const Datum *values, const bool *nulls)
{
	KdaShown   *shown = look->shown;
	uint64		hash = window;

	if (shown->keyed)
	{
		Datum	   *keys = palloc(sizeof(Datum) * (shown->nkeys + 1));
		bool	   *key_nulls = palloc(sizeof(bool) * (shown->nkeys + 1));

		for (int i = 0; i < shown->nkeys; i++)
		{
			keys[i] = key_value(look, i, values, nulls);
			key_nulls[i] = nulls[shown->keys[i]];
		}
		hash ^= kda_keys_hash(shown->specs, shown->nkeys, keys, key_nulls);
	}
	else
		for (int i = 0; i < look->ncolumns; i++)
		{
			Form_pg_attribute att = TupleDescAttr(look->desc, look->first - 1 + i);

			if (!is_revision(shown, i) && !nulls[i])
				hash = hash * 31 + datum_image_hash(values[i], att->attbyval, att->attlen);
		}
	return hash ^ (hash >> 29);
}

/*---- the table */

void
kda_look_begin(KdaLook *look, KdaQuery *query, KdaStep step)
{
	memset(look, 0, sizeof(*look));
	look->query = query;
	look->shown = query->shown;
	look->step = step;
	CommandCounterIncrement();
	look->rel = table_open(query->shown_rel, RowExclusiveLock);
	look->desc = RelationGetDescr(look->rel);
	look->first = kda_query_has_sessions(query) ? KDA_SHOWN_KEY + 1 : KDA_SHOWN_KEY;
	look->ncolumns = look->desc->natts - (look->first - 1);
	look->out = table_slot_create(look->rel, NULL);
	{
		List	   *indexes = RelationGetIndexList(look->rel);

		look->index = indexes ? linitial_oid(indexes) : InvalidOid;
		list_free(indexes);
	}
	kda_indexes_open(&look->indexes, look->rel);
	look->snapshot = RegisterSnapshot(GetLatestSnapshot());
	make_specs(look);
}

void
kda_look_end(KdaLook *look)
{
	UnregisterSnapshot(look->snapshot);
	kda_indexes_close(&look->indexes);
	ExecDropSingleTupleTableSlot(look->out);
	table_close(look->rel, NoLock);
	CommandCounterIncrement();
}

void
kda_look_scan(KdaLook *look, ScanKey keys, int nkeys, KdaTakeShown take, void *arg)
{
	SysScanDesc scan;
	HeapTuple	tuple;

	PushActiveSnapshot(look->snapshot);
	scan = systable_beginscan(look->rel, look->index, OidIsValid(look->index), look->snapshot, nkeys, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		take(look, tuple, arg);
	}
	systable_endscan(scan);
	PopActiveSnapshot();
}

KdaShownRow *
kda_look_take(KdaLook *look, HeapTuple tuple, uint64 window)
{
	Datum	   *values = palloc(sizeof(Datum) * look->desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * look->desc->natts);
	KdaShownRow *row = palloc0(sizeof(KdaShownRow));

	heap_deform_tuple(tuple, look->desc, values, nulls);
	row->tid = tuple->t_self;
	row->end = DatumGetTimestampTz(values[KDA_SHOWN_TIME - 1]);
	row->revision = DatumGetInt32(values[KDA_SHOWN_REVISION - 1]);
	row->gone = DatumGetBool(values[KDA_SHOWN_GONE - 1]);
	row->values = values + look->first - 1;
	row->nulls = nulls + look->first - 1;
	row->hash = kda_look_hash_row(look, window, row->values, row->nulls);
	if (look->nrows == look->room)
	{
		look->room = Max(64, look->room * 2);
		look->rows = look->rows ? repalloc_huge(look->rows, sizeof(KdaShownRow *) * look->room) :
			palloc_extended(sizeof(KdaShownRow *) * look->room, MCXT_ALLOC_HUGE);
	}
	look->rows[look->nrows++] = row;
	return row;
}

void
kda_look_hash(KdaLook *look)
{
	look->nbuckets = 64;
	while (look->nbuckets < look->nrows)
		look->nbuckets *= 2;
	look->buckets = palloc_extended(sizeof(KdaShownRow *) * look->nbuckets, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = look->nrows - 1; i >= 0; i--)
	{
		KdaShownRow **bucket = &look->buckets[look->rows[i]->hash & (look->nbuckets - 1)];

		look->rows[i]->next = *bucket;
		*bucket = look->rows[i];
	}
}

KdaShownRow *
kda_look_find(KdaLook *look, uint64 hash, KdaTime end, int place, const Datum *values, const bool *nulls)
{
	for (KdaShownRow **link = kda_look_bucket(look, hash); *link; link = &(*link)->next)
	{
		KdaShownRow *row = *link;

		if (row->hash == hash && row->end == end && row->place == place &&
			kda_look_same_key(look, row->values, row->nulls, values, nulls))
		{
			*link = row->next;
			row->matched = true;
			return row;
		}
	}
	return NULL;
}

void
kda_look_put(KdaLook *look, KdaTime end, int64 key, int32 revision, int32 shown_as, bool gone,
			 const Datum *values, const bool *nulls)
{
	TupleTableSlot *out = look->out;

	ExecClearTuple(out);
	out->tts_values[KDA_SHOWN_TIME - 1] = TimestampTzGetDatum(end);
	out->tts_values[KDA_SHOWN_REVISION - 1] = Int32GetDatum(revision);
	out->tts_values[KDA_SHOWN_GONE - 1] = BoolGetDatum(gone);
	if (look->first > KDA_SHOWN_KEY)
		out->tts_values[KDA_SHOWN_KEY - 1] = Int64GetDatum(key);
	memset(out->tts_isnull, false, sizeof(bool) * (look->first - 1));
	memcpy(out->tts_values + look->first - 1, values, sizeof(Datum) * look->ncolumns);
	memcpy(out->tts_isnull + look->first - 1, nulls, sizeof(bool) * look->ncolumns);
	for (int i = 0; i < look->shown->nrevisions; i++)
		out->tts_values[look->first - 1 + look->shown->revisions[i]] = Int32GetDatum(shown_as);
	ExecStoreVirtualTuple(out);
	table_tuple_insert(look->rel, out, GetCurrentCommandId(true), 0, NULL);
	kda_indexes_add(&look->indexes, out);
	KDA_FAULT("shown");
}

void
kda_look_delete(KdaLook *look, ItemPointer tid)
{
	simple_table_tuple_delete(look->rel, tid, look->snapshot);
}

/*---- what is final */

void
kda_finish_begin(KdaFinish *finish, KdaQuery *query)
{
	finish->rows = NULL;
	finish->had_out = query->d_out;
	if (!query->is_pump)
	{
		if (query->final_plan == NULL)
			query->final_plan = kda_plan_create(query->context, query->final_rel, true);
		finish->rows = tuplestore_begin_heap(false, false, work_mem);
	}
	kda_look_begin(&finish->look, query, KDA_STEP_CLOSE);
}

void
kda_finish_row(KdaFinish *finish, HeapTuple tuple, const Datum *ours, int nours)
{
	KdaLook    *look = &finish->look;
	Datum	   *values = palloc(sizeof(Datum) * (nours + look->desc->natts));
	bool	   *nulls = palloc(sizeof(bool) * (nours + look->desc->natts));

	heap_deform_tuple(tuple, look->desc, values + nours, nulls + nours);
	if (finish->rows && !DatumGetBool(values[nours + KDA_SHOWN_GONE - 1]))
	{
		int			before = look->first - 1;	/* columns of the table; ours take their last places */

		memcpy(values + before, ours, sizeof(Datum) * nours);
		memset(nulls + before, false, sizeof(bool) * nours);
		tuplestore_putvalues(finish->rows, kda_plan_desc(look->query->final_plan), values + before, nulls + before);
	}
	kda_look_delete(look, &tuple->t_self);
	pfree(values);
	pfree(nulls);
}

void
kda_finish_end(KdaFinish *finish)
{
	KdaQuery   *query = finish->look.query;

	kda_look_end(&finish->look);
	if (finish->rows)
	{
		kda_query_emit_computed(query, finish->rows, query->forgotten);
		tuplestore_end(finish->rows);
		query->d_out = finish->had_out; /* they were counted when they were shown */
	}
	KDA_FAULT("finished");
}
