/*-------------------------------------------------------------------------
 *
 * redrive.c
 *	  kda.redrive: refused records once more.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/options.h"
#include "catalog/rows.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "stream/outbox.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#define ROWS_AT_ONCE	1000

static char *
bytes_of(SPITupleTable *table, uint64 row, int column, int *len)
{
	bool		isnull;
	Datum		value = SPI_getbinval(table->vals[row], table->tupdesc, column, &isnull);
	struct varlena *bytes;

	*len = 0;
	if (isnull)
		return NULL;
	bytes = PG_DETOAST_DATUM_PACKED(value);
	*len = VARSIZE_ANY_EXHDR(bytes);
	return pnstrdup(VARDATA_ANY(bytes), *len);
}

/*
 * What a sink of that output has refused since goes into its outbox again,
 * behind what is there, and leaves kda.error_stream.  In one piece with this
 * transaction.
 */
static int64
send_again(Oid relid, int32 output_id, const char *since)
{
	KdaOutboxWriter *writer;
	KdaOwnerScope scope;
	int64		n = 0;
	int64		last = 0;
	char	   *condition = psprintf("r.output_id = %d AND e.error_id = r.error_id AND e.error_time >= %s::pg_catalog.timestamptz",
									 output_id, quote_literal_cstr(since));
	SPIPlanPtr	plan;
	Portal		portal;

	writer = kda_outbox_begin(relid);
	kda_owner_begin(&scope);
	plan = SPI_prepare(psprintf("SELECT r.time, r.key, r.value, r.headers, r.hash_key, r.error_id FROM kda_storage.refused r, kda_storage.error e "
								"WHERE %s ORDER BY r.error_id FOR UPDATE OF r", condition), 0, NULL);
	if (plan == NULL)
		elog(ERROR, "could not prepare a look at kda_storage.refused");
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, false);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, ROWS_AT_ONCE);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			KdaOutRecord record = {0};
			bool		isnull;
			int			ignored;

			record.time = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
			record.key = bytes_of(SPI_tuptable, i, 2, &record.key_len);
			record.value = bytes_of(SPI_tuptable, i, 3, &record.len);
			record.headers = bytes_of(SPI_tuptable, i, 4, &ignored);
			record.hash_key = bytes_of(SPI_tuptable, i, 5, &ignored);
			last = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 6, &isnull));
			kda_outbox_put_record(writer, &record);
			n++;
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	/* what was refused since has not been sent: the one process that refuses counts up */
	SPI_execute(psprintf("WITH gone AS (DELETE FROM kda_storage.refused r USING kda_storage.error e WHERE %s AND r.error_id <= " INT64_FORMAT " RETURNING r.error_id), "
						 "rows AS (DELETE FROM kda_storage.error e USING gone WHERE e.error_id = gone.error_id RETURNING e.bytes) "
						 "UPDATE kda_storage.forgotten SET bytes = greatest(bytes - (SELECT coalesce(pg_catalog.sum(bytes), 0) FROM rows), 0)",
						 condition, last), false, 0);
	kda_owner_end(&scope);
	kda_outbox_end(writer);
	return n;
}

PG_FUNCTION_INFO_V1(kda_redrive);

/* kda.redrive(stream, error_name, since) → bigint: how many records are sent again */
Datum
kda_redrive(PG_FUNCTION_ARGS)
{
	Oid			relid;
	const char *since;
	const char *name;
	int64		n = 0;
	KdaOutputIds ids;
	char	   *error_name = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *list;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("kda.redrive needs a stream and a time")));
	PreventCommandDuringRecovery("kda.redrive()");
	relid = PG_GETARG_OID(0);
	name = get_rel_name(relid);
	if (name == NULL || !kda_is_stream(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a stream", name ? name : "?")));
	if (!kda_is_relation_owner(relid))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_TABLE, name);
	/* whatever DateStyle is */
	if (TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(2)))
		since = PG_GETARG_TIMESTAMPTZ(2) < 0 ? "-infinity" : "infinity";
	else
		since = pstrdup(timestamptz_to_str(PG_GETARG_TIMESTAMPTZ(2)));
	/* its own deliveries, and those of the outputs that are made from it */
	if (error_name == NULL || strcmp(error_name, "delivery") == 0)
	{
		if (kda_owner_row(psprintf("SELECT pg_catalog.string_agg(rel::oid::text, ' ' ORDER BY output_id) FROM kda_storage.output "
								   "WHERE %u IN (rel::oid, source::oid)", relid), 1, &list) && list)
			for (char *next = list; *next;)
			{
				Oid			output = (Oid) strtoul(next, &next, 10);

				while (*next == ' ')
					next++;
				if (kda_output_ids(output, &ids) && kda_is_relation_owner(output))
					n += send_again(output, ids.id, since);
			}
	}
	if ((error_name && strcmp(error_name, "delivery") != 0) ||
		(error_name == NULL && kda_owner_row(psprintf("SELECT 1 FROM kda_storage.error WHERE stream = %u::pg_catalog.regclass AND error_name <> 'delivery' "
													  "AND error_time >= %s::pg_catalog.timestamptz LIMIT 1", relid, quote_literal_cstr(since)), 1, &list)))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("records that were refused when they were read cannot be processed again in this release"),
				 errhint("kda.redrive(stream, 'delivery') sends deliveries again.")));
	PG_RETURN_INT64(n);
}
