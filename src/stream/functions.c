/*-------------------------------------------------------------------------
 *
 * functions.c
 *	  kda.advance: the SQL function, and the worker's side of it.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/rows.h"
#include "catalog/options.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "runtime/runtime.h"
#include "stream/inbox.h"
#include "stream/stream.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(kda_advance);

/* kda.advance(stream regclass, watermark timestamptz): nothing earlier will come */
Datum
kda_advance(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	TimestampTz t = PG_GETARG_TIMESTAMPTZ(1);

	if (!kda_is_stream(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a stream", get_rel_name(relid) ? get_rel_name(relid) : "?")));
	if (pg_class_aclcheck(relid, GetUserId(), ACL_INSERT) != ACLCHECK_OK && !kda_is_relation_owner(relid))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_TABLE, get_rel_name(relid));
	if (TIMESTAMP_NOT_FINITE(t))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("a watermark must be finite"),
				 errdetail("It is %s.", t == DT_NOBEGIN ? "-infinity" : "infinity"),
				 errhint("kda.advance takes the time before which nothing more will come.")));
	if (kda_stream_options_get(relid)->server_type == NULL)
	{
		KdaInboxWriter *writer = kda_inbox_begin(relid);

		kda_inbox_put_control(writer, KDA_CONTROL_ADVANCE, t);
		kda_inbox_end(writer);
	}
	else
	{
		int32		id = kda_stream_ensure_storage(relid);

		kda_run_as_owner(psprintf("INSERT INTO kda_storage.advance VALUES (%d, %s)", id,
								  quote_literal_cstr(timestamptz_to_str(t))));
		kda_notify_rows();
	}
	PG_RETURN_VOID();
}

KdaTime
kda_take_advances(KdaStream *stream)
{
	KdaTime		t = KDA_NO_TIME;
	bool		isnull;
	Datum		d;

	SPI_connect();
	SPI_execute(psprintf("WITH gone AS (DELETE FROM kda_storage.advance WHERE stream_id = %d RETURNING watermark) "
						 "SELECT pg_catalog.max(watermark) FROM gone", stream->id), false, 0);
	d = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
		t = DatumGetTimestampTz(d);
	SPI_finish();
	return t;
}
