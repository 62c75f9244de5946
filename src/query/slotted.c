/*-------------------------------------------------------------------------
 *
 * slotted.c
 *	  Queries of a stream that several processes read: each of these slots keeps
 *	  its own rows in the open table, the final part combines them.
 *
 * A slot's memory knows its own rows only.  What slot 0 has to know of the
 * others when windows close is asked of the table here.  Who may do what when
 * is the affair of runtime/slots.c.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/rows.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "query/groups.h"
#include "query/query.h"
#include "query/run.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Attribute of kda_storage.stream_progress: see sql/. */
#define KDA_PROGRESS_SLOTTED	14

bool
kda_slotted_any_ends(KdaQuery *query, KdaTime frontier)
{
	KdaTime		start,
				end;

	if (TIMESTAMP_NOT_FINITE(query->frontier))
		return frontier > query->frontier;
	return kda_window_next(&query->window, query->frontier, query->frontier, &start, &end) && end <= frontier;
}

/* Which pane a row of the open table belongs to follows from it. */
static const char *
time_column(const KdaQuery *query)
{
	return query->state == KDA_STATE_ROWS ? "kda_time" : "k1";
}

KdaTime *
kda_slotted_window_ends(KdaQuery *query, const KdaPlanBounds *bounds, int *n)
{
	Oid			types[2] = {TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum		values[2] = {TimestampTzGetDatum(bounds->after), TimestampTzGetDatum(bounds->upto)};
	KdaTime    *ends;

	SPI_connect();
	SPI_execute_with_args(psprintf("SELECT DISTINCT w.window_end FROM %s.%s o, LATERAL kda.windows(o.%s, %s%s) w "
								   "WHERE w.window_end > $1 AND w.window_end <= $2 ORDER BY 1", KDA_STORAGE_SCHEMA,
								   quote_identifier(get_rel_name(query->open_rel)), time_column(query),
								   quote_literal_cstr(kda_window_format(&query->window)),
								   query->state == KDA_STATE_ROWS ? ", o.kda_mark" :
								   query->window.kind == KDA_WINDOW_TUMBLING ? "" : ", o.k2"),
						  2, types, values, NULL, true, 0);
	*n = (int) SPI_processed;
	ends = SPI_palloc(sizeof(KdaTime) * (*n + 1));
	for (int i = 0; i < *n; i++)
	{
		bool		isnull;

		ends[i] = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	SPI_finish();
	return ends;
}

void
kda_slotted_close_leftovers(KdaQuery *query, KdaTime frontier)
{
	Oid			type = TIMESTAMPTZOID;
	Datum		value = TimestampTzGetDatum(frontier);

	CommandCounterIncrement();
	SPI_connect();
	SPI_execute_with_args(psprintf("DELETE FROM %s.%s o WHERE o.kda_slot >= %d AND kda.window_end(o.%s, %s) <= $1", KDA_STORAGE_SCHEMA,
								   quote_identifier(get_rel_name(query->open_rel)), query->nslots, time_column(query),
								   quote_literal_cstr(kda_window_format(&query->window))),
						  1, &type, &value, NULL, false, 0);
	SPI_finish();
}

void
kda_query_forget_closed(KdaQuery *query, KdaTime frontier)
{
	kda_query_prepare_state(query);
	kda_current_query = query;
	if (query->kept && kda_kept_min_window_end(query->kept) <= frontier)
		kda_kept_close(query->kept, frontier);
	if (query->groups)
	{
		kda_groups_prepare(query->groups);
		if (kda_groups_min_window_end(query->groups) <= frontier)
			kda_groups_close(query->groups, frontier);
	}
	kda_current_query = NULL;
}

PG_FUNCTION_INFO_V1(kda_slotted);

/* kda.slotted(stream_id) → boolean: as of the caller's snapshot */
Datum
kda_slotted(PG_FUNCTION_ARGS)
{
	Relation	rel = table_open(kda_storage_relation("stream_progress"), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		slotted = false;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(PG_GETARG_INT32(0)));
	scan = systable_beginscan(rel, kda_storage_relation("stream_progress_pkey"), true, GetActiveSnapshot(), 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		slotted = DatumGetBool(heap_getattr(tuple, KDA_PROGRESS_SLOTTED, RelationGetDescr(rel), &isnull));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	PG_RETURN_BOOL(slotted);
}
