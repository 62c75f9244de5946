/*-------------------------------------------------------------------------
 *
 * inspect.c
 *	  Functions that show what streams and queries are and how far they have
 *	  come.  The views of schema kda are in sql/.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/table.h"
#include "catalog/ddl.h"
#include "catalog/objectaddress.h"
#include "catalog/options.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "query/query.h"
#include "rewrite/rewriteHandler.h"
#include "stream/stream.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* A stream or query that the user may read; its ids. */
static bool
readable(Oid relid, AclMode right, KdaStreamIds *stream, KdaQueryIds *query)
{
	char	   *name = get_rel_name(relid);

	memset(stream, 0, sizeof(*stream));
	memset(query, 0, sizeof(*query));
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (!kda_is_stream(relid) && !kda_query_ids(relid, query))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is neither a stream nor a continuous query", name)));
	if (right != 0)
	{
		if (pg_class_aclcheck(relid, GetUserId(), right) != ACLCHECK_OK)
			aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(relid)), name);
	}
	else if (!kda_is_relation_owner(relid))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relid)), name);
	return query->id != 0 || kda_stream_ids(relid, stream);
}

PG_FUNCTION_INFO_V1(kda_watermark);

/* kda.watermark(stream, view or pump) → timestamptz; NULL: none yet */
Datum
kda_watermark(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	KdaStreamIds stream;
	KdaQueryIds query;
	char	   *text;

	if (!readable(relid, ACL_SELECT, &stream, &query))
		PG_RETURN_NULL();
	if (query.id != 0 && !kda_stream_ids(query.stream, &stream))
		PG_RETURN_NULL();
	kda_owner_row(psprintf("SELECT pg_catalog.timestamptz_out(watermark) FROM kda_storage.stream_progress "
						   "WHERE stream_id = %d", stream.id), 1, &text);
	if (text == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(DirectFunctionCall3(timestamptz_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid),
										Int32GetDatum(-1)));
}

PG_FUNCTION_INFO_V1(kda_definition);

/* kda.definition(view or pump) → text: its CREATE statement */
Datum
kda_definition(PG_FUNCTION_ARGS)
{
	KdaStreamIds stream;
	KdaQueryIds query;
	char	   *text;

	if (!readable(PG_GETARG_OID(0), 0, &stream, &query) || query.id == 0)
		PG_RETURN_NULL();
	kda_owner_row(psprintf("SELECT definition FROM kda_storage.query WHERE query_id = %d",
						   query.id), 1, &text);
	if (text == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(text));
}

static void
put_line(ReturnSetInfo *rsinfo, const char *line, int len, const char *indent)
{
	Datum		value = CStringGetTextDatum(psprintf("%s%.*s", indent, len, line));
	bool		isnull = false;

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &isnull);
}

/*
 * The plan of a part, made as the query's owner: planning runs functions of
 * his.  Not by an EXPLAIN statement: he has no right on the schema.
 */
static void
explain(ReturnSetInfo *rsinfo, const char *title, Oid relid)
{
	Relation	view = table_open(relid, AccessShareLock);
	Query	   *query = kda_view_query(view);
	ExplainState *es = NewExplainState();
	Oid			userid;
	int			sec_context;
	int			nestlevel = kda_pin_search_path();
	ListCell   *lc;

	put_line(rsinfo, title, strlen(title), "");
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(view->rd_rel->relowner,
						   sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	es->costs = false;
	ExplainBeginOutput(es);
	foreach(lc, QueryRewrite(query))
	{
		PlannedStmt *plan = pg_plan_query(lfirst_node(Query, lc), NULL, CURSOR_OPT_PARALLEL_OK, NULL);
		QueryDesc  *desc = CreateQueryDesc(plan, "", GetActiveSnapshot(), InvalidSnapshot, None_Receiver, NULL, NULL, 0);

		ExecutorStart(desc, EXEC_FLAG_EXPLAIN_ONLY);
		ExplainPrintPlan(es, desc);
		ExecutorEnd(desc);
		FreeQueryDesc(desc);
	}
	ExplainEndOutput(es);
	SetUserIdAndSecContext(userid, sec_context);
	AtEOXact_GUC(false, nestlevel);
	for (char *line = es->str->data; line && *line;)
	{
		char	   *end = strchr(line, '\n');

		put_line(rsinfo, line, end ? (int) (end - line) : (int) strlen(line), "  ");
		line = end ? end + 1 : NULL;
	}
	table_close(view, NoLock);
}

PG_FUNCTION_INFO_V1(kda_explain);

/* kda.explain(view or pump) → setof text: the plans of its two parts */
Datum
kda_explain(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	KdaStreamIds stream;
	KdaQueryIds query;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (!readable(PG_GETARG_OID(0), 0, &stream, &query) || query.id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a continuous query", get_rel_name(PG_GETARG_OID(0)))));
	explain(rsinfo, "Per batch, its groups are kept in memory and written back:", query.batch);
	if (OidIsValid(query.final))
		explain(rsinfo, "Final part, over the open groups:", query.final);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(kda_reset_statistics);

/* kda.reset_statistics(object): counters of one object, or of everything that the caller owns, become zero */
Datum
kda_reset_statistics(PG_FUNCTION_ARGS)
{
	char	   *streams = "true";
	char	   *queries = "true";

	if (!PG_ARGISNULL(0))
	{
		KdaStreamIds stream;
		KdaQueryIds query;

		(void) readable(PG_GETARG_OID(0), 0, &stream, &query);
		streams = psprintf("s.stream_id = %d", stream.id);
		queries = psprintf("q.query_id = %d", query.id);
	}
	kda_run_as_owner(psprintf("UPDATE kda_storage.stream_progress p SET bytes_in = 0, records_in = 0, records_late = 0, records_failed = 0, "
							  "records_skipped = 0, backpressured_ms = 0, stats_reset = pg_catalog.now() "
							  "FROM kda_storage.stream s JOIN pg_catalog.pg_class c ON c.oid = s.rel "
							  "WHERE s.stream_id = p.stream_id AND %s "
							  "AND pg_catalog.pg_has_role(%u, c.relowner, 'USAGE'); "
							  "UPDATE kda_storage.query_progress p SET records_in = 0, records_late = 0, records_out = 0, busy_ms = 0, "
							  "stats_reset = pg_catalog.now() "
							  "FROM kda_storage.query q JOIN pg_catalog.pg_class c ON c.oid = q.rel "
							  "WHERE q.query_id = p.query_id AND %s "
							  "AND pg_catalog.pg_has_role(%u, c.relowner, 'USAGE')",
							  streams, GetUserId(), queries, GetUserId()));
	PG_RETURN_VOID();
}
