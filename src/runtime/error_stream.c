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
#include "runtime/fault.h"
#include "runtime/runtime.h"
#include "runtime/worker.h"
#include "utils/builtins.h"

#define MAX_DATA_BYTES	(64 * 1024)
#define ROW_BYTES		128		/* what a row takes beside its texts */
#define LOOK_EVERY		(5 * USECS_PER_SEC)
#define TRIM_ROWS		10000	/* at most so many leave in one transaction */

/* Accounted size of the rows that this transaction has added. */
static int64 added_bytes = 0;

static void
run(const char *sql)
{
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not run: %s", sql);
}

void
kda_error_stream_begin(void)
{
	added_bytes = 0;
}

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
	Datum		values[10];
	char		nulls[10];
	int64		bytes = ROW_BYTES + strlen(message);
	int			rc;
	Oid			userid;
	int			sec_context;
	KdaFeed    *feed;

	memset(nulls, ' ', sizeof(nulls));
	/* callers may be in the middle of a user's code */
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(GetSessionUserId(), 0);
	SPI_connect();
	if (plan == NULL)
	{
		Oid			types[10] = {TEXTOID, TEXTOID, REGCLASSOID, TEXTOID, TEXTOID, TIMESTAMPTZOID,
		BYTEAOID, TEXTOID, REGCLASSOID, INT4OID};

		plan = SPI_prepare("INSERT INTO kda_storage.error (error_name, message, stream, shard, position, "
						   "data_rowtime, data_row, data_text, query, bytes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
						   10, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare the insert into kda_storage.error");
	}
	values[0] = CStringGetTextDatum(error_name);
	values[1] = CStringGetTextDatum(message);
	feed = kda_worker ? kda_feed_by_relid(stream) : NULL;	/* the deliver worker has none */
	values[2] = ObjectIdGetDatum(feed ? kda_feed_behind(feed)->stream->relid : stream);
	values[3] = shard ? CStringGetTextDatum(shard) : (Datum) 0;
	nulls[3] = shard ? ' ' : 'n';
	values[4] = position ? CStringGetTextDatum(position) : (Datum) 0;
	nulls[4] = position ? ' ' : 'n';
	values[5] = TimestampTzGetDatum(rowtime);
	nulls[5] = rowtime == KDA_NO_TIME ? 'n' : ' ';
	if (data)
	{
		bytea	   *row;

		len = Min(len, MAX_DATA_BYTES);
		row = palloc(VARHDRSZ + len);
		SET_VARSIZE(row, VARHDRSZ + len);
		memcpy(VARDATA(row), data, len);
		values[6] = PointerGetDatum(row);
		bytes += len;
		/* the same as text, where it is text */
		values[7] = PointerGetDatum(as_text(data, len));
		if (DatumGetPointer(values[7]))
			bytes += VARSIZE_ANY_EXHDR(DatumGetPointer(values[7]));
		else
			nulls[7] = 'n';
	}
	else
		nulls[6] = nulls[7] = 'n';
	values[8] = ObjectIdGetDatum(query);
	nulls[8] = OidIsValid(query) ? ' ' : 'n';
	values[9] = Int32GetDatum((int32) bytes);
	rc = SPI_execute_plan(plan, values, nulls, false, 0);
	if (rc != SPI_OK_INSERT)
		elog(ERROR, "could not insert into kda_storage.error: %s", SPI_result_code_string(rc));
	SPI_finish();
	SetUserIdAndSecContext(userid, sec_context);
	added_bytes += bytes;
	KDA_FAULT("error_row");
	if (kda_log_payloads && data)
		ereport(LOG,
				(errmsg("refused record: %s", message), errdetail("%.*s", (int) len, data)));
}

void
kda_error_stream_settle(TimestampTz now)
{
	static TimestampTz look_at = 0;
	int64		limit = (int64) kda_error_stream_size_kb * 1024;
	int64		bytes = 0;
	bool		isnull;
	bool		aged = false;

	if (added_bytes == 0 && now < look_at)
		return;
	SPI_connect();
	run(added_bytes > 0 ?
		psprintf("UPDATE kda_storage.forgotten SET bytes = bytes + " INT64_FORMAT " RETURNING bytes", added_bytes) :
		"SELECT bytes FROM kda_storage.forgotten");
	if (SPI_processed == 1)
		bytes = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	added_bytes = 0;
	if (bytes <= limit)
	{
		run(psprintf("SELECT FROM (SELECT error_time FROM kda_storage.error ORDER BY error_id LIMIT 1) e "
					 "WHERE error_time < pg_catalog.now() - pg_catalog.make_interval(mins => %d)",
					 kda_error_retention_min));
		aged = SPI_processed > 0;
	}
	look_at = now + LOOK_EVERY;
	if (bytes > limit || aged)
	{
		/*
		 * error_id grows with time, so the oldest rows come first.  By size a
		 * tenth more goes than has to, or every further row would cost a look.
		 */
		run(psprintf("WITH old AS (SELECT e.error_id, e.error_time, e.bytes, "
					 "pg_catalog.sum(e.bytes) OVER (ORDER BY e.error_id) AS upto "
					 "FROM (SELECT error_id, error_time, bytes FROM kda_storage.error "
					 "ORDER BY error_id LIMIT %d) e), "
					 "gone AS (DELETE FROM kda_storage.error d USING old "
					 "WHERE d.error_id = old.error_id "
					 "AND (old.error_time < pg_catalog.now() - pg_catalog.make_interval(mins => %d) "
					 "OR old.upto - old.bytes < " INT64_FORMAT ") RETURNING d.error_id, d.bytes), "
					 "whole AS (DELETE FROM kda_storage.refused r USING gone WHERE r.error_id = gone.error_id) "
					 "UPDATE kda_storage.forgotten f SET errors = f.errors + n.n, "
					 "bytes = greatest(f.bytes - n.bytes, 0) "
					 "FROM (SELECT pg_catalog.count(*) AS n, coalesce(pg_catalog.sum(bytes), 0) AS bytes FROM gone) n "
					 "WHERE n.n > 0",
					 TRIM_ROWS, kda_error_retention_min,
					 bytes > limit ? bytes - limit / 10 * 9 : 0));
		/* more of them at once, if so many had to go; else in a while */
		if (SPI_processed > 0)
			look_at = 0;
	}
	SPI_finish();
}
