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

#define TROUBLE_US	(4 * USECS_PER_SEC)
#define CLOSE_MS	1000	/* longest wait for the source to end */

typedef struct Sample
{
	KdaSource  *source;
	KdaRawBatch *raw;
	KdaDecoder *decoder;
	KdaBatch   *batch;
	TupleDesc	desc;
	ReturnSetInfo *rsinfo;
	TimestampTz until;
	int64	   *ends;			/* by shard */
	int			nends;
	uint64		ticket;
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
	char		buffer[KDA_PLACE_SIZE];
	const char *place = kda_raw_place(rec, buffer);
	int			rows;

	names[0] = s->source->shards[rec->shard]->name;
	kda_batch_reset(s->batch);
	s->refused = false;
	kda_decode(s->decoder, &one, s->source->ops, map, names, s->batch, note_refusal, s, &counts);
	rows = s->batch->nrows;
	for (int i = 0; i < Max(rows, 1); i++)
	{
		Datum		values[6];
		bool		nulls[6] = {0};
		bytea	   *data = palloc(VARHDRSZ + rec->len);

		SET_VARSIZE(data, VARHDRSZ + rec->len);
		if (rec->data)
			memcpy(VARDATA(data), rec->data, rec->len);
		values[0] = CStringGetTextDatum(names[0]);
		values[1] = CStringGetTextDatum(place);
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
	static uint32 event = 0;

	if (event == 0)
		event = WaitEventExtensionNew("KdaStreamSample");
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
no_connection(Sample *s, const char *otherwise)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION),
			 errmsg("could not read from the server: %s", s->source->error[0] ? s->source->error : otherwise),
			 errhint("Check the options of the server and of the stream, and the user mapping of the stream's owner.")));
}

/*
 * Serves the source until done; an error when the time is over, or when there
 * has been trouble for so long that it will not go away.
 */
static void
await(Sample *s, bool (*done) (Sample *s), const char *otherwise)
{
	TimestampTz trouble_since = 0;

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();

		s->source->ops->service(s->source);
		if (done(s))
			return;
		if (s->source->error[0] == '\0')
			trouble_since = 0;
		else if (trouble_since == 0)
			trouble_since = now;
		if (s->source->failed || now >= s->until ||
			(trouble_since != 0 && now >= trouble_since + TROUBLE_US))
			no_connection(s, otherwise);
		pause_for(10);
	}
}

static bool
shards_known(Sample *s)
{
	return s->source->known;
}

static bool
ends_known(Sample *s)
{
	return s->source->ops->ends_poll(s->source, s->ticket, s->ends, s->nends);
}

/* Takes records until there are n, or no more; gives their number. */
static int
take_records(Sample *s, int n)
{
	const KdaSourceOps *ops = s->source->ops;
	int			got = 0;
	bool		done = false;

	while (got < n && !done)
	{
		ops->service(s->source);
		if (ops->fetch(s->source, s->raw, n - got, 64 * 1024 * 1024) == 0)
		{
			done = true;
			for (int i = 0; i < s->source->nshards; i++)
				done &= s->source->shards[i]->at_end || s->source->shards[i]->closed || s->source->shards[i]->lost;
			if (!done && GetCurrentTimestamp() >= s->until)
			{
				if (got == 0)
					no_connection(s, "no records came in time");
				done = true;
			}
			if (!done)
				pause_for(10);
			continue;
		}
		for (int i = 0; i < s->raw->n && got < n; i++, got++)
			put_record(s, &s->raw->records[i]);
		ops->release(s->source, s->raw);
	}
	return got;
}

/* Sources that cannot be read backwards: n records of the last minute, else of the last hour, else from the oldest on. */
static void
read_later_and_later(Sample *s, int n)
{
	static const int64 back[] = {USECS_PER_MINUTE, USECS_PER_HOUR, 0};
	TimestampTz now = GetCurrentTimestamp();

	await(s, shards_known, "no answer");
	for (int t = 0; t < lengthof(back); t++)
	{
		for (int i = 0; i < s->source->nshards; i++)
		{
			KdaShardStart start = {0};

			start.kind = back[t] > 0 ? KDA_START_TIME : KDA_START_EARLIEST;
			start.time = now - back[t];
			start.last_position = -1;
			start.complete_to = KDA_NO_TIME;
			s->source->ops->assign(s->source, i, &start);
		}
		if (take_records(s, n) >= n || t == lengthof(back) - 1 || GetCurrentTimestamp() >= s->until)
			break;
		/* they come again */
		tuplestore_clear(s->rsinfo->setResult);
	}
}

/* The last n records of each shard, until there are n of them or no more. */
static void
read_sample(Sample *s, int n)
{
	const KdaSourceOps *ops = s->source->ops;

	if (ops->marks)
	{
		read_later_and_later(s, n);
		return;
	}
	await(s, shards_known, "no answer");
	s->nends = s->source->nshards;
	s->ends = palloc0(sizeof(int64) * Max(s->nends, 1));
	s->ticket = ops->ends_begin(s->source);
	await(s, ends_known, "no answer");
	for (int i = 0; i < s->nends; i++)
	{
		KdaShardStart start = {0};

		start.kind = KDA_START_POSITION;
		start.position = Max(s->ends[i] - n, Max(s->source->shards[i]->first_position, 0));
		start.last_position = -1;
		ops->assign(s->source, i, &start);
	}
	(void) take_records(s, n);
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
	const KdaSourceOps *ops;
	Relation	rel;

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
	ops = kda_source_ops(options->server_type);
	if (ops == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" is on a server of type \"%s\" and can only be written", get_rel_name(relid), options->server_type)));
	config.owner = rel->rd_rel->relowner;
	config.serverid = options->serverid;
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
	config.max_record_bytes = kda_max_record_bytes;
	config.wake_fd = -1;
	s.until = GetCurrentTimestamp() + timeout->time +
		((int64) timeout->day + (int64) timeout->month * DAYS_PER_MONTH) * USECS_PER_DAY;
	s.source = ops->open(&config);
	PG_TRY();
	{
		read_sample(&s, n);
	}
	PG_FINALLY();
	{
		s.source->ops->release(s.source, s.raw);
		s.source->ops->close(s.source, CLOSE_MS);
	}
	PG_END_TRY();
	return (Datum) 0;
}
