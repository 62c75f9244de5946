/*-------------------------------------------------------------------------
 *
 * inside.c
 *	  Parts of the extension measured by themselves, as SQL functions of a
 *	  session: the connector with and without the decoder, the encoder, and the
 *	  parser.
 *
 * Linked with the extension's own object files but the one that sets it up, so
 * what is measured is the same code without transactions, queries and states.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "access/htup_details.h"
#include "access/relation.h"
#include "connector/connector.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "format/encode.h"
#include "format/format.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/parser.h"
#include "stream/batch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

PG_MODULE_MAGIC;

#define BATCH_RECORDS	100000
#define BATCH_BYTES		(64 * 1024 * 1024)

/* Of src/kda_stream.c, which is not linked in. */
bool		kda_in_worker = false;

static double
seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void
refuse(void *arg, int index, const KdaDecodeError *error)
{
	ereport(ERROR, (errmsg("record %d was refused: %s", index, error->message)));
}

PG_FUNCTION_INFO_V1(kda_bench_read);

/*
 * bench_read(stream regclass, events bigint, columns text[], OUT wall, OUT cpu):
 * reads a stream's topic from its beginning.  columns: those to decode, NULL: none.
 */
Datum
kda_bench_read(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	int64		events = PG_GETARG_INT64(1);
	Relation	rel = relation_open(relid, AccessShareLock);
	KdaStreamOptions *options = kda_stream_options_get(relid);
	const KdaSourceOps *ops = kda_source_ops(options->server_type);
	KdaSourceConfig config = {0};
	KdaShardStart start = {0};
	KdaSource  *source;
	KdaRawBatch *raw = kda_raw_batch_create(CurrentMemoryContext);
	KdaDecoder *decoder = NULL;
	KdaBatch   *batch = NULL;
	int64		seen = 0;
	int			fds[2];
	double		wall = 0,
				cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "two columns are expected");
	if (!PG_ARGISNULL(2))
	{
		Bitmapset  *needed = NULL;
		Datum	   *names;
		int			n;

		deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &n);
		for (int i = 0; i < n; i++)
			needed = bms_add_member(needed, get_attnum(relid, TextDatumGetCString(names[i])));
		decoder = kda_decoder_create(CurrentMemoryContext, RelationGetDescr(rel), options);
		batch = kda_batch_create(CurrentMemoryContext, RelationGetDescr(rel), needed);
	}
	if (pipe(fds) != 0)
		elog(ERROR, "no pipe: %m");
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	fcntl(fds[1], F_SETFL, O_NONBLOCK);
	config.stream_name = "bench";
	config.topic = options->topic;
	config.server_options = GetForeignServer(options->serverid)->options;
	config.fetch_memory = 256 * 1024 * 1024;
	config.wake_fd = fds[1];
	source = ops->open(&config);
	start.kind = KDA_START_EARLIEST;
	start.last_position = -1;

	while (seen < events)
	{
		CHECK_FOR_INTERRUPTS();
		ops->service(source);
		for (int i = 0; i < source->nshards; i++)
			if (!source->shards[i]->assigned)
				ops->assign(source, i, &start);
		if (ops->fetch(source, raw, BATCH_RECORDS, BATCH_BYTES) == 0)
		{
			struct pollfd fd = {fds[0], POLLIN, 0};
			char		buffer[256];

			poll(&fd, 1, 1000);
			while (read(fds[0], buffer, sizeof(buffer)) > 0)
				;
			continue;
		}
		if (seen == 0)
			wall = seconds(CLOCK_MONOTONIC);
		if (decoder)
		{
			KdaDecodeCounts counts = {0};
			int32	   *map = palloc(sizeof(int32) * source->nshards);
			char	  **names = palloc(sizeof(char *) * source->nshards);

			for (int i = 0; i < source->nshards; i++)
			{
				map[i] = i;
				names[i] = source->shards[i]->name;
			}
			kda_batch_reset(batch);
			kda_decode(decoder, raw, ops, map, names, batch, refuse, NULL, &counts);
			if (batch->nrows != raw->n)
				elog(ERROR, "%d records gave %d rows", raw->n, batch->nrows);
		}
		seen += raw->n;
		ops->release(source, raw);
	}
	wall = seconds(CLOCK_MONOTONIC) - wall;
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	ops->close(source, 5000);
	close(fds[0]);
	close(fds[1]);
	relation_close(rel, AccessShareLock);
	values[0] = Float8GetDatum(wall);
	values[1] = Float8GetDatum(cpu);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

PG_FUNCTION_INFO_V1(kda_bench_encode);

/* bench_encode(stream regclass, row record, times int, OUT bytes, OUT ns): the stream's format for that row, bytes and CPU time of one. */
Datum
kda_bench_encode(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	HeapTupleHeader row = PG_GETARG_HEAPTUPLEHEADER(1);
	int			times = PG_GETARG_INT32(2);
	Relation	rel = relation_open(relid, AccessShareLock);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bench encode", ALLOCSET_DEFAULT_SIZES);
	KdaEncoder *encoder = kda_encoder_create(CurrentMemoryContext, RelationGetDescr(rel), kda_stream_options_get(relid), NULL);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(row),.t_data = row};
	StringInfoData out;
	MemoryContext old;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};
	double		cpu;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "two columns are expected");
	heap_deform_tuple(&tuple, RelationGetDescr(rel), slot->tts_values, slot->tts_isnull);
	ExecStoreVirtualTuple(slot);
	initStringInfo(&out);
	old = MemoryContextSwitchTo(context);
	cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
	for (int i = 0; i < times; i++)
	{
		if (i % 1000 == 0)
		{
			CHECK_FOR_INTERRUPTS();
			MemoryContextReset(context);
		}
		resetStringInfo(&out);
		(void) kda_encode(encoder, slot, &out);
	}
	cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
	MemoryContextSwitchTo(old);
	values[0] = Float8GetDatum(out.len);
	values[1] = Float8GetDatum(cpu * 1e9 / times);
	ExecDropSingleTupleTableSlot(slot);
	relation_close(rel, AccessShareLock);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

PG_FUNCTION_INFO_V1(kda_bench_parse);

/* bench_parse(sql text, times int) → double precision: CPU nanoseconds of one call of core's raw_parser. */
Datum
kda_bench_parse(PG_FUNCTION_ARGS)
{
	char	   *sql = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int			times = PG_GETARG_INT32(1);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bench parse", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	double		cpu = seconds(CLOCK_THREAD_CPUTIME_ID);

	for (int i = 0; i < times; i++)
	{
		(void) raw_parser(sql, RAW_PARSE_DEFAULT);
		MemoryContextReset(context);
	}
	cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	PG_RETURN_FLOAT8(cpu * 1e9 / times);
}
