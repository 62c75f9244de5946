/*-------------------------------------------------------------------------
 *
 * error_stream.c
 *	  Writes kda_storage.error, and keeps it within its bounds.
 *
 * In the worker, inside its transaction: an error row and the position behind
 * its record are committed together, so that each is there exactly once.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "runtime/error_stream.h"
#include "runtime/runtime.h"
#include "utils/builtins.h"

#define MAX_DATA_BYTES	(64 * 1024)
#define TRIM_EVERY_MS	60000

/*
 * The bytes as text of this database, if they are text: records of outside are
 * in UTF-8, rows of a database stream in the database's encoding.
 */
static text *
as_text(const char *data, Size len)
{
	int			encoding = GetDatabaseEncoding();
	Oid			conversion;
	char	   *converted;
	Size		room;

	/* where it was cut off, no half character */
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		len = len == MAX_DATA_BYTES ? pg_encoding_mbcliplen(encoding, data, len, len) : len;
	else if (pg_encoding_verifymbstr(PG_UTF8, data, len) == (int) len)
	{
		conversion = FindDefaultConversionProc(PG_UTF8, encoding);
		if (!OidIsValid(conversion))
			return NULL;
		room = len * MAX_CONVERSION_GROWTH + 1;
		converted = palloc(room);
		if (pg_do_encoding_conversion_buf(conversion, PG_UTF8, encoding, (unsigned char *) unconstify(char *, data), len,
										  (unsigned char *) converted, room, true) != (int) len)
			return NULL;
		return cstring_to_text(converted);
	}
	if (!pg_verify_mbstr(encoding, data, len, true))
		return NULL;
	return cstring_to_text_with_len(data, len);
}

void
kda_error_add(const char *error_name, const char *message, Oid stream, const char *shard,
			  const char *position, KdaTime rowtime, const char *data, Size len, Oid query)
{
	static SPIPlanPtr plan = NULL;
	Datum		values[9];
	char		nulls[9];
	int			rc;
	Oid			userid;
	int			sec_context;

	memset(nulls, ' ', sizeof(nulls));
	/* callers may be in the middle of a user's code */
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(GetSessionUserId(), 0);
	SPI_connect();
	if (plan == NULL)
	{
		Oid			types[9] = {TEXTOID, TEXTOID, REGCLASSOID, TEXTOID, TEXTOID, TIMESTAMPTZOID,
		BYTEAOID, TEXTOID, REGCLASSOID};

		plan = SPI_prepare("INSERT INTO kda_storage.error (error_name, message, stream, shard, position, "
						   "data_rowtime, data_row, data_text, query) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
						   9, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare the insert into kda_storage.error");
	}
	values[0] = CStringGetTextDatum(error_name);
	values[1] = CStringGetTextDatum(message);
	values[2] = ObjectIdGetDatum(stream);
	values[3] = shard ? CStringGetTextDatum(shard) : (Datum) 0;
	nulls[3] = shard ? ' ' : 'n';
	values[4] = position ? CStringGetTextDatum(position) : (Datum) 0;
	nulls[4] = position ? ' ' : 'n';
	values[5] = TimestampTzGetDatum(rowtime);
	nulls[5] = rowtime == KDA_NO_TIME ? 'n' : ' ';
	if (data)
	{
		bytea	   *bytes;

		len = Min(len, MAX_DATA_BYTES);
		bytes = palloc(VARHDRSZ + len);
		SET_VARSIZE(bytes, VARHDRSZ + len);
		memcpy(VARDATA(bytes), data, len);
		values[6] = PointerGetDatum(bytes);
		values[7] = PointerGetDatum(as_text(data, len));
		nulls[7] = DatumGetPointer(values[7]) ? ' ' : 'n';
	}
	else
		nulls[6] = nulls[7] = 'n';
	values[8] = ObjectIdGetDatum(query);
	nulls[8] = OidIsValid(query) ? ' ' : 'n';
	rc = SPI_execute_plan(plan, values, nulls, false, 0);
	if (rc != SPI_OK_INSERT)
		elog(ERROR, "could not insert into kda_storage.error: %s", SPI_result_code_string(rc));
	SPI_finish();
	SetUserIdAndSecContext(userid, sec_context);
	if (kda_log_payloads && data)
		ereport(LOG,
				(errmsg("refused record: %s", message), errdetail("%.*s", (int) len, data)));
}

void
kda_error_stream_trim(void)
{
	static TimestampTz last = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (last != 0 && !TimestampDifferenceExceeds(last, now, TRIM_EVERY_MS))
		return;
	last = now;
	SPI_connect();
	/* error_id grows with time: the oldest tenth goes when there are too many bytes */
	SPI_execute(psprintf("WITH gone AS (DELETE FROM kda_storage.error WHERE "
						 "error_time < pg_catalog.now() - pg_catalog.make_interval(mins => %d) "
						 "OR (pg_catalog.pg_total_relation_size('kda_storage.error') > %d::bigint * 1024 "
						 "AND error_id < (SELECT pg_catalog.min(error_id) + "
						 "(pg_catalog.max(error_id) - pg_catalog.min(error_id)) / 10 "
						 "FROM kda_storage.error)) RETURNING 1), "
						 "n AS (SELECT pg_catalog.count(*) AS n FROM gone) "
						 "UPDATE kda_storage.forgotten SET errors = errors + n.n FROM n "
						 "WHERE n.n > 0",
						 kda_error_retention_min, kda_error_stream_size_kb), false, 0);
	SPI_finish();
}
