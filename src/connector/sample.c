/*-------------------------------------------------------------------------
 *
 * sample.c
 *	  kda.sample: the last few records of a source stream, read directly from
 *	  the server.  Moves no position.  The connection test and the first look.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/options.h"
#include "fmgr.h"
#include "format/format.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "runtime/runtime.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

typedef struct Sample
{
	KdaSource  *source;
	KdaRawBatch *raw;
	KdaDecoder *decoder;
	KdaBatch   *batch;
	TupleDesc	desc;
	ReturnSetInfo *rsinfo;
	/* of the record being decoded */
	bool		refused;
	char		error[512];
} Sample;

static void
note_refusal(void *arg, int index, const KdaDecodeError *error)
{
	Sample	   *s = arg;

	s->refused = true;
	snprintf(s->error, sizeof(s->error), "%s: %s", error->name, error->message);
}

static Datum
row_json(Sample *s, int row)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(s->desc->natts, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(s->desc->natts, 1));

	for (int i = 0; i < s->desc->natts; i++)
	{
		nulls[i] = s->batch->values[i] == NULL || s->batch->nulls[i][row];
		values[i] = nulls[i] ? (Datum) 0 : s->batch->values[i][row];
	}
	return DirectFunctionCall1(row_to_json,
							   heap_copy_tuple_as_datum(heap_form_tuple(s->desc, values, nulls), s->desc));
}

/* One row for each row that the record gives, at least one. */
static void
put_record(Sample *s, KdaRawRecord *rec)
{
	int32	   *map = palloc0(sizeof(int32) * s->source->nshards);
	char	  **names = palloc(sizeof(char *));
	KdaRawBatch one = {.records = rec,.n = 1,.capacity = 1};
	KdaDecodeCounts counts = {0};
	char		position[32];
	int			rows;

	names[0] = s->source->shards[rec->shard]->name;
	kda_batch_reset(s->batch);
	s->refused = false;
	kda_decode(s->decoder, &one, s->source->ops, map, names, s->batch, note_refusal, s, &counts);
	rows = s->batch->nrows;
	snprintf(position, sizeof(position), INT64_FORMAT, rec->position);
	for (int i = 0; i < Max(rows, 1); i++)
	{
		Datum		values[6];
		bool		nulls[6] = {0};
		bytea	   *data = palloc(VARHDRSZ + rec->len);

		SET_VARSIZE(data, VARHDRSZ + rec->len);
		if (rec->data)
			memcpy(VARDATA(data), rec->data, rec->len);
		values[0] = CStringGetTextDatum(names[0]);
		values[1] = CStringGetTextDatum(position);
		values[2] = TimestampTzGetDatum(rec->arrival);
		nulls[2] = rec->arrival == KDA_NO_TIME;
		values[3] = PointerGetDatum(data);
		nulls[3] = rec->data == NULL;
		nulls[4] = rows == 0;
		values[4] = rows == 0 ? (Datum) 0 : row_json(s, i);
		nulls[5] = !s->refused;
		values[5] = s->refused ? CStringGetTextDatum(s->error) : (Datum) 0;
		tuplestore_putvalues(s->rsinfo->setResult, s->rsinfo->setDesc, values, nulls);
	}
}

/* Waits a little for the source. */
static void
pause_for(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
read_sample(Sample *s, int n, TimestampTz until)
{
	const KdaSourceOps *ops = s->source->ops;
	int64	   *ends;
	uint64		ticket;
	int			got = 0;
	bool		done = false;

	/* where each shard ends */
	while (!s->source->known && !s->source->failed)
	{
		ops->service(s->source);
		if (GetCurrentTimestamp() >= until)
			break;
		pause_for(10);
	}
	if (!s->source->known)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION),
				 errmsg("could not read from the server: %s",
						s->source->error[0] ? s->source->error : "no answer"),
				 errhint("Check the server's options and its user mapping.")));
	ends = palloc0(sizeof(int64) * Max(s->source->nshards, 1));
	ticket = ops->ends_begin(s->source);
	while (!ops->ends_poll(s->source, ticket, ends, s->source->nshards) && GetCurrentTimestamp() < until)
	{
		ops->service(s->source);
		pause_for(10);
	}
	ops->service(s->source);
	for (int i = 0; i < s->source->nshards; i++)
	{
		KdaShardStart start = {0};

		start.kind = KDA_START_POSITION;
		start.position = Max(ends[i] - n, Max(s->source->shards[i]->first_position, 0));
		start.last_position = -1;
		ops->assign(s->source, i, &start);
	}
	while (got < n && !done)
	{
		ops->service(s->source);
		if (ops->fetch(s->source, s->raw, n - got, 64 * 1024 * 1024) == 0)
		{
			done = true;
			for (int i = 0; i < s->source->nshards; i++)
				done &= s->source->shards[i]->at_end || s->source->shards[i]->lost;
			if (GetCurrentTimestamp() >= until)
				done = true;
			if (!done)
				pause_for(10);
			continue;
		}
		for (int i = 0; i < s->raw->n && got < n; i++, got++)
			put_record(s, &s->raw->records[i]);
		ops->release(s->source, s->raw);
	}
}

PG_FUNCTION_INFO_V1(kda_sample);

/* kda.sample(stream, n, timeout) → (shard, position, arrival, data, row_json, error) */
Datum
kda_sample(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	int			n = PG_GETARG_INT32(1);
	Interval   *timeout = PG_GETARG_INTERVAL_P(2);
	Sample		s = {0};
	KdaStreamOptions *options;
	KdaSourceConfig config = {0};
	ForeignServer *server;
	UserMapping *mapping;
	Relation	rel;
	TimestampTz until;

	InitMaterializedSRF(fcinfo, 0);
	s.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	if (!kda_is_stream(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a stream", get_rel_name(relid) ? get_rel_name(relid) : "?")));
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_TABLE, get_rel_name(relid));
	if (n < 1 || n > 10000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the number of records must be between 1 and 10000")));
	options = kda_stream_options_get(relid);
	if (options->server_type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("stream \"%s\" is in this database", get_rel_name(relid)),
				 errhint("SELECT * FROM %s shows its rows.", quote_identifier(get_rel_name(relid)))));

	rel = relation_open(relid, AccessShareLock);
	s.desc = CreateTupleDescCopy(RelationGetDescr(rel));
	if (s.desc->tdtypeid == RECORDOID && s.desc->tdtypmod < 0)
		assign_record_type_typmod(s.desc);
	server = GetForeignServer(options->serverid);
	mapping = kda_user_mapping(rel->rd_rel->relowner, options->serverid);
	relation_close(rel, AccessShareLock);
	s.raw = kda_raw_batch_create(CurrentMemoryContext);
	s.batch = kda_batch_create(CurrentMemoryContext, s.desc, NULL);
	s.decoder = kda_decoder_create(CurrentMemoryContext, s.desc, options);

	config.stream_name = get_rel_name(relid);
	config.topic = options->topic;
	config.server_options = server->options;
	config.user_options = mapping ? mapping->options : NIL;
	config.fetch_memory = 16 * 1024 * 1024;
	config.wake_fd = -1;
	until = GetCurrentTimestamp() + timeout->time + (int64) timeout->day * USECS_PER_DAY;
	s.source = kda_source_ops(options->server_type)->open(&config);
	PG_TRY();
	{
		read_sample(&s, n, until);
	}
	PG_FINALLY();
	{
		s.source->ops->close(s.source, 10000);
	}
	PG_END_TRY();
	return (Datum) 0;
}
