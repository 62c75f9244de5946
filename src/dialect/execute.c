/*-------------------------------------------------------------------------
 *
 * execute.c
 *	  kda.execute(text) and kda.query(text): the same dialect for who cannot or
 *	  does not want to send KDA statements as they are.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/rows.h"
#include "dialect/dialect.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/parser.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

typedef struct Script
{
	const char *text;
} Script;

/* Positions in the text are the inner query's, as with SPI. */
static void
context_callback(void *arg)
{
	Script	   *script = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(script->text);
	}
}

/* What would end the transaction that we are in, or speak to the client over our head. */
static void
refuse_protocol(Node *stmt)
{
	if (IsA(stmt, TransactionStmt))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("transaction commands cannot be used in kda.execute()")));
	if (IsA(stmt, CopyStmt) && ((CopyStmt *) stmt)->filename == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("COPY from or to the client cannot be used in kda.execute()")));
}

PG_FUNCTION_INFO_V1(kda_execute);

/* kda.execute(text): one or many statements, KDA's and ordinary ones, in this transaction */
Datum
kda_execute(PG_FUNCTION_ARGS)
{
	char	   *source = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Script		script = {source};
	ErrorContextCallback callback;
	List	   *raws;
	ListCell   *lc;

	callback.callback = context_callback;
	callback.arg = &script;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	raws = kda_raw_parse(source, RAW_PARSE_DEFAULT);
	foreach(lc, raws)
	{
		RawStmt    *raw = lfirst_node(RawStmt, lc);
		List	   *queries;
		ListCell   *lq;

		CHECK_FOR_INTERRUPTS();
		refuse_protocol(raw->stmt);
		CommandCounterIncrement();
		PushActiveSnapshot(GetTransactionSnapshot());
		queries = pg_analyze_and_rewrite_fixedparams(raw, source, NULL, 0, NULL);
		queries = pg_plan_queries(queries, source, 0, NULL);
		foreach(lq, queries)
		{
			PlannedStmt *stmt = lfirst_node(PlannedStmt, lq);

			CommandCounterIncrement();
			if (stmt->commandType == CMD_UTILITY)
				ProcessUtility(stmt, source, false, PROCESS_UTILITY_QUERY, NULL, NULL,
							   None_Receiver, NULL);
			else
			{
				QueryDesc  *qd;

				UpdateActiveSnapshotCommandId();
				qd = CreateQueryDesc(stmt, source, GetActiveSnapshot(), InvalidSnapshot, None_Receiver,
									 NULL, NULL, 0);
				ExecutorStart(qd, 0);
				kda_executor_run(qd);
				ExecutorFinish(qd);
				ExecutorEnd(qd);
				FreeQueryDesc(qd);
			}
		}
		PopActiveSnapshot();
		CommandCounterIncrement();
	}
	error_context_stack = callback.previous;
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(kda_query);

/* kda.query(text) → setof record: the rows of one SELECT, which may have a window clause */
Datum
kda_query(PG_FUNCTION_ARGS)
{
	char	   *source = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Script		script = {source};
	ErrorContextCallback callback;
	List	   *raws;
	List	   *queries;
	PlannedStmt *stmt;
	QueryDesc  *qd;
	DestReceiver *dest;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	callback.callback = context_callback;
	callback.arg = &script;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	raws = kda_raw_parse_query(source);
	if (list_length(raws) != 1 || !IsA(linitial_node(RawStmt, raws)->stmt, SelectStmt))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("kda.query() takes one SELECT"),
				 errhint("kda.execute() runs other statements.")));
	PushActiveSnapshot(GetTransactionSnapshot());
	queries = pg_analyze_and_rewrite_fixedparams(linitial(raws), source, NULL, 0, NULL);
	queries = pg_plan_queries(queries, source, CURSOR_OPT_PARALLEL_OK, NULL);
	stmt = linitial_node(PlannedStmt, queries);
	if (stmt->commandType != CMD_SELECT)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("kda.query() takes one SELECT")));
	dest = CreateDestReceiver(DestTuplestore);
	SetTuplestoreDestReceiverParams(dest, rsinfo->setResult, rsinfo->econtext->ecxt_per_query_memory,
									false, rsinfo->setDesc,
									"the columns of AS t(...) do not fit those of the SELECT in kda.query()");
	qd = CreateQueryDesc(stmt, source, GetActiveSnapshot(), InvalidSnapshot, dest, NULL, NULL, 0);
	ExecutorStart(qd, 0);
	kda_executor_run(qd);
	ExecutorFinish(qd);
	ExecutorEnd(qd);
	FreeQueryDesc(qd);
	dest->rDestroy(dest);
	PopActiveSnapshot();
	error_context_stack = callback.previous;
	return (Datum) 0;
}
