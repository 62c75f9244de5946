/*-------------------------------------------------------------------------
 *
 * sink.c
 *	  A library for test_kinesis_sink.py: drives a sink's callbacks in a server
 *	  process, as a deliver worker does.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <fcntl.h>
#include <unistd.h>

#include "commands/defrem.h"
#include "connector/kinesis_sink.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "runtime/runtime.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/memutils.h"

PG_MODULE_MAGIC;

/* The extension's own are not visible outside of it. */
char	   *kda_machine_credentials_role;
int			kda_retry_max_interval_ms;

#define LOOK_MS 50

static void
wait_for_byte(int fd)
{
	char		bytes[100];

	(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, fd, LOOK_MS, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	while (read(fd, bytes, sizeof(bytes)) > 0)
		;
}

/* An element of an array of text or bytea, NULL for a null one. */
static const char *
element(const Datum *elements, const bool *nulls, int i, int *len)
{
	if (elements == NULL || nulls[i])
		return NULL;
	*len = VARSIZE_ANY_EXHDR(DatumGetPointer(elements[i]));
	return VARDATA_ANY(DatumGetPointer(elements[i]));
}

static int
elements_of(FunctionCallInfo fcinfo, int arg, Datum **elements, bool **nulls)
{
	int			n = 0;

	*elements = NULL;
	if (!PG_ARGISNULL(arg))
		deconstruct_array(PG_GETARG_ARRAYTYPE_P(arg), ARR_ELEMTYPE(PG_GETARG_ARRAYTYPE_P(arg)), -1, false, TYPALIGN_INT, elements, nulls, &n);
	return n;
}

PG_FUNCTION_INFO_V1(sink_run);

/*
 * sink_run(server oid, owner oid, topic text, options text[], first bigint,
 * size int, timeout_ms int, vals bytea[], keys bytea[], hash_keys text[]): sends
 * all in batches of that size until all are done or the time is over.  Options
 * are name, value, name, value; those that are fields of KdaSinkConfig go there.
 * Gives JSON: done (batches), retries, error, refused (number: words), ready.
 */
Datum
sink_run(PG_FUNCTION_ARGS)
{
	const KdaSinkOps *ops = &kda_kinesis_sink_ops;
	int64		first = PG_GETARG_INT64(4);
	int			size = PG_GETARG_INT32(5);
	TimestampTz until = GetCurrentTimestamp() + (int64) PG_GETARG_INT32(6) * 1000;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "sink", ALLOCSET_DEFAULT_SIZES);
	MemoryContext before;
	KdaSinkConfig config = {.output_name = "o",.identity = "me",.ordered = true,.sequence_key = "kda_seq",.retry_max_ms = 400};
	KdaSink    *sink;
	int			fds[2];
	Datum	   *values,
			   *keys,
			   *hash_keys,
			   *options;
	bool	   *value_nulls,
			   *key_nulls,
			   *hash_nulls,
			   *option_nulls;
	int			n = elements_of(fcinfo, 7, &values, &value_nulls);
	int			nbatches = (n + size - 1) / size;
	int			noptions;
	int			sent = 0;
	int			done = 0;
	KdaSealedBatch *batches = palloc0(sizeof(KdaSealedBatch) * (nbatches + 1));
	StringInfoData out;
	const char *comma = "";

	elements_of(fcinfo, 8, &keys, &key_nulls);
	elements_of(fcinfo, 9, &hash_keys, &hash_nulls);
	noptions = elements_of(fcinfo, 3, &options, &option_nulls);
	kda_machine_credentials_role = GetConfigOptionByName("kda_stream.machine_credentials_role", NULL, false);
	kda_retry_max_interval_ms = 400;
	if (pipe(fds) != 0)
		elog(ERROR, "no pipe");
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	fcntl(fds[1], F_SETFL, O_NONBLOCK);
	config.wake_fd = fds[1];
	config.serverid = PG_GETARG_OID(0);
	config.owner = PG_GETARG_OID(1);
	config.topic = text_to_cstring(PG_GETARG_TEXT_PP(2));
	for (int i = 0; i + 1 < noptions; i += 2)
	{
		char	   *name = TextDatumGetCString(options[i]);
		char	   *value = TextDatumGetCString(options[i + 1]);

		if (strcmp(name, "ordered") == 0)
			config.ordered = strcmp(value, "true") == 0;
		else if (strcmp(name, "batch_records") == 0)
			config.batch_records = atoi(value);
		else if (strcmp(name, "batch_bytes") == 0)
			config.batch_bytes = atoi(value);
		else if (strcmp(name, "sequence_key") == 0)
			config.sequence_key = value;
		else
			config.options = lappend(config.options, makeDefElem(name, (Node *) makeString(value), -1));
	}
	for (int b = 0; b < nbatches; b++)
	{
		KdaSealedBatch *batch = &batches[b];

		batch->first = first + (int64) b * size;
		batch->n = Min(size, n - b * size);
		batch->records = palloc0(sizeof(KdaOutRecord) * batch->n);
		for (int i = 0; i < batch->n; i++)
		{
			KdaOutRecord *r = &batch->records[i];
			int			at = b * size + i;

			r->value = element(values, value_nulls, at, &r->len);
			r->key = element(keys, key_nulls, at, &r->key_len);
			r->hash_key = hash_keys && !hash_nulls[at] ? TextDatumGetCString(hash_keys[at]) : NULL;
		}
	}

	before = MemoryContextSwitchTo(context);
	sink = ops->open(&config);
	MemoryContextSwitchTo(before);
	initStringInfo(&out);
	appendStringInfoString(&out, "{\"refused\": {");
	while (done < nbatches && GetCurrentTimestamp() < until)
	{
		ops->service(sink);
		while (sink->ready && sent < nbatches && sent - done < ops->max_batches)
			ops->send(sink, &batches[sent++]);
		while (done < sent && batches[done].done)
		{
			KdaSealedBatch *batch = &batches[done++];

			for (int i = 0; i < batch->n; i++)
				if (batch->records[i].refused)
				{
					appendStringInfo(&out, "%s\"" INT64_FORMAT "\": ", comma, batch->first + i);
					escape_json(&out, batch->records[i].refused);
					comma = ", ";
				}
			ops->release(sink, batch);
		}
		for (int i = done; i < sent; i++)
			if (i + 1 < sent && batches[i + 1].done && !batches[i].done)
				elog(ERROR, "batches are not done in order");
		if (done < nbatches)
			wait_for_byte(fds[0]);
	}
	appendStringInfo(&out, "}, \"done\": %d, \"of\": %d, \"retries\": " INT64_FORMAT ", \"error\": ", done, nbatches, sink->retries);
	escape_json(&out, sink->error);
	appendStringInfoChar(&out, '}');
	ops->close(sink, 1000);
	MemoryContextDelete(context);
	close(fds[0]);
	close(fds[1]);
	PG_RETURN_TEXT_P(cstring_to_text(out.data));
}
