/*-------------------------------------------------------------------------
 *
 * output.c
 *	  One output in the deliver worker: seals what is committed, hands it to the
 *	  sink, stores what has been delivered.
 *
 * A seal is a piece of the outbox with its numbers: a row that says which rows
 * it is made of, committed and flushed before any of them leaves.  Whenever it
 * has to be sent again it is the same rows in the same order under the same
 * numbers.  The flush of that commit is also that of the rows' own: they were
 * visible before it, so their commits lie before it in the log.
 *
 * Nothing here waits for the network, and no transaction is open while a
 * sink's callback runs, but for open.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/table.h"
#include "access/timeline.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "runtime/error_stream.h"
#include "runtime/output.h"
#include "runtime/runtime.h"
#include "stream/outbox.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define ROTATE_EVERY	(5 * USECS_PER_SEC)
#define ROTATE_SOON		(USECS_PER_SEC / 10)
#define BACKOFF_FIRST_MS	100
#define DEFAULT_RECORDS	10000
#define DEFAULT_BYTES	(16 * 1024 * 1024)
#define SERVICE_EVERY	(USECS_PER_SEC / 20)

/*---- our own statements */

static MemoryContext around = NULL;

static void
begin(const char *activity)
{
	around = CurrentMemoryContext;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	pgstat_report_activity(STATE_RUNNING, activity);
}

static void
commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(around);
	pgstat_report_activity(STATE_IDLE, NULL);
	pgstat_report_stat(false);
}

static void
execute(const char *sql)
{
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not run: %s", sql);
}

static char *
text_at(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

static int64
number_at(uint64 row, int column)
{
	char	   *text = text_at(row, column);

	return text ? strtoi64(text, NULL, 10) : 0;
}

static char *
literal(const char *text)
{
	return text ? quote_literal_cstr(text) : "NULL";
}

static char *
number_or_null(uint64 number)
{
	return number ? psprintf("'" UINT64_FORMAT "'", number) : "NULL";
}

/* Texts move to that context. */
static KdaInboxPosition
copy_position(MemoryContext context, const KdaInboxPosition *from)
{
	KdaInboxPosition copy = *from;

	copy.snapshot1 = from->snapshot1 ? MemoryContextStrdup(context, from->snapshot1) : NULL;
	copy.snapshot2 = from->snapshot2 ? MemoryContextStrdup(context, from->snapshot2) : NULL;
	return copy;
}

static void
set_position(KdaOutput *output, const KdaInboxPosition *to)
{
	KdaInboxPosition copy = copy_position(output->context, to);

	if (output->position.snapshot1)
		pfree(output->position.snapshot1);
	if (output->position.snapshot2)
		pfree(output->position.snapshot2);
	output->position = copy;
}

static KdaInboxPosition
position_at(uint64 row, int column)
{
	KdaInboxPosition position;
	char	   *xid = text_at(row, column + 2);

	position.snapshot1 = text_at(row, column);
	position.snapshot2 = text_at(row, column + 1);
	position.last_xid = xid ? strtou64(xid, NULL, 10) : 0;
	position.last_seq = number_at(row, column + 3);
	return position;
}

/*---- what it is made of */

static void
look_up_options(KdaOutput *output, MemoryContext context, List **table, List **server, List **user)
{
	ForeignTable *foreign = GetForeignTable(output->relid);
	ForeignServer *of = GetForeignServer(foreign->serverid);
	UserMapping *mapping = kda_user_mapping(output->options->owner, foreign->serverid);
	MemoryContext old = MemoryContextSwitchTo(context);

	*table = copyObject(foreign->options);
	*server = copyObject(of->options);
	*user = mapping ? copyObject(mapping->options) : NIL;
	MemoryContextSwitchTo(old);
}

KdaOutput *
kda_output_make(MemoryContext parent, Oid relid)
{
	MemoryContext context = AllocSetContextCreate(parent, "kda output", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	KdaOutput  *output = palloc0(sizeof(KdaOutput));

	output->context = context;
	output->relid = relid;
	(void) kda_output_ids(relid, &output->ids);
	output->reported = OidIsValid(output->ids.source) ? output->ids.source : relid;
	output->name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
	output->options = kda_stream_options_get(relid);
	output->ops = output->options->server_type ? kda_sink_ops(output->options->server_type) : NULL;
	MemoryContextSwitchTo(old);
	look_up_options(output, context, &output->table_options, &output->server_options, &output->user_options);
	output->more = true;
	return output;
}

bool
kda_output_changed(KdaOutput *output)
{
	Relation	rel = table_open(output->relid, AccessShareLock);
	List	   *table,
			   *server,
			   *user;
	bool		changed = rel->rd_rel->relowner != output->options->owner ||
		GetForeignTable(output->relid)->serverid != output->options->serverid;

	table_close(rel, NoLock);
	if (changed)
		return true;
	look_up_options(output, CurrentMemoryContext, &table, &server, &user);
	return !equal(table, output->table_options) || !equal(server, output->server_options) || !equal(user, output->user_options) ||
		(output->sink && output->sink->ops->has_changed && output->sink->ops->has_changed(output->sink));
}

static void
free_seals(KdaOutput *output)
{
	ListCell   *lc;

	foreach(lc, output->seals)
		MemoryContextDelete(((KdaSeal *) lfirst(lc))->context);
	list_free(output->seals);
	output->seals = NIL;
	output->sent = 0;
}

void
kda_output_close(KdaOutput *output, int deadline_ms)
{
	KdaSink    *sink = output->sink;

	output->sink = NULL;
	output->judged = false;
	if (sink)
		sink->ops->close(sink, deadline_ms);
	if (output->sink_context)
		MemoryContextDelete(output->sink_context);
	output->sink_context = NULL;
	free_seals(output);
}

void
kda_output_free(KdaOutput *output)
{
	kda_output_close(output, 0);
	MemoryContextDelete(output->context);
}

void
kda_output_fail(KdaOutput *output, const char *why)
{
	begin("storing a failure");
	execute(psprintf("UPDATE kda_storage.output SET failure = %s WHERE output_id = %d", literal(why), output->ids.id));
	execute(psprintf("UPDATE kda_storage.output_progress SET last_error = %s WHERE output_id = %d", literal(why), output->ids.id));
	commit();
	output->failure = MemoryContextStrdup(output->context, why);
	ereport(LOG,
			(errmsg("output %s has failed: %s", output->name, why),
			 errhint("Correct the cause, then ALTER %s ... RESUME.", OidIsValid(output->ids.source) ? "OUTPUT" : "STREAM")));
	kda_output_close(output, 0);
}

/*---- opening */

static KdaSeal *
new_seal(KdaOutput *output)
{
	MemoryContext context = AllocSetContextCreate(output->context, "kda sealed batch", ALLOCSET_DEFAULT_SIZES);
	KdaSeal    *seal = MemoryContextAllocZero(context, sizeof(KdaSeal));

	seal->context = context;
	return seal;
}

/* Progress and seals, as they are in the tables. */
static void
load(KdaOutput *output)
{
	int32		id = output->ids.id;
	KdaInboxPosition position;

	free_seals(output);
	(void) kda_output_ids(output->relid, &output->ids);
	output->retired_by = InvalidTransactionId;
	execute(psprintf("SELECT p.sealed, p.delivered, p.snapshot1, p.snapshot2, p.last_xid, p.last_seq, "
					 "(extract(epoch FROM o.segment_since - '2000-01-01 00:00:00+00'::pg_catalog.timestamptz) * 1000000)::bigint, p.last_error, o.identity "
					 "FROM kda_storage.output_progress p JOIN kda_storage.output o USING (output_id) WHERE output_id = %d", id));
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("output %s is not there any more", output->name)));
	output->sealed = number_at(0, 1);
	output->delivered = number_at(0, 2);
	position = position_at(0, 3);
	set_position(output, &position);
	output->since = number_at(0, 7);
	strlcpy(output->identity, text_at(0, 9), sizeof(output->identity));
	strlcpy(output->stored_error, text_at(0, 8) ? text_at(0, 8) : "", sizeof(output->stored_error));
	execute(psprintf("SELECT first, last, timeline, snapshot1, snapshot2, from_xid, from_seq, to_xid, to_seq "
					 "FROM kda_storage.seal WHERE output_id = %d ORDER BY first", id));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		KdaSeal    *seal = new_seal(output);
		MemoryContext old;

		seal->first = number_at(i, 1);
		seal->last = number_at(i, 2);
		seal->timeline = (TimeLineID) number_at(i, 3);
		position = position_at(i, 4);
		seal->from = copy_position(seal->context, &position);
		seal->to_xid = strtou64(text_at(i, 8), NULL, 10);
		seal->to_seq = number_at(i, 9);
		old = MemoryContextSwitchTo(output->context);
		output->seals = lappend(output->seals, seal);
		MemoryContextSwitchTo(old);
	}
	output->more = true;
}

static void
open_sink(KdaOutput *output, int wake_fd)
{
	KdaSinkConfig config = {0};
	MemoryContext old;

	begin("opening an output");
	load(output);
	output->sink_context = AllocSetContextCreate(output->context, "kda sink", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(output->sink_context);
	config.output_name = output->name;
	config.identity = psprintf(UINT64_FORMAT "-%u-%s", GetSystemIdentifier(), MyDatabaseId, output->identity);
	config.topic = output->options->topic;
	config.serverid = output->options->serverid;
	config.owner = output->options->owner;
	config.server_options = output->server_options;
	config.user_options = output->user_options;
	config.options = output->table_options;
	config.exactly_once = output->ops->exactly_once && !output->options->at_least_once;
	config.ordered = output->options->ordered;
	config.batch_records = output->options->batch_records;
	config.batch_bytes = (Size) output->options->batch_bytes;
	config.sequence_key = output->options->sequence_key;
	config.compression = output->options->compression;
	config.retry_max_ms = kda_retry_max_interval_ms;
	config.delivered.number = output->delivered;
	config.delivered.timeline = GetWALInsertionTimeLine();
	config.delivered.lsn = GetFlushRecPtr(NULL);
	config.wake_fd = wake_fd;
	output->retries_stored = 0;
	output->sink = output->ops->open(&config);
	output->sink->ops = output->ops;
	MemoryContextSwitchTo(old);
	commit();
}

/*---- what the sink has delivered before we knew */

static void
store_delivered(KdaOutput *output, int64 upto, int64 again, int64 n)
{
	execute(psprintf("DELETE FROM kda_storage.seal WHERE output_id = %d AND last <= " INT64_FORMAT, output->ids.id, upto));
	execute(psprintf("UPDATE kda_storage.output_progress SET delivered = " INT64_FORMAT ", records_out = records_out + " INT64_FORMAT
					 ", records_again = records_again + " INT64_FORMAT " WHERE output_id = %d", upto, n, again, output->ids.id));
}

/* Seals up to there are delivered; memory follows the tables. */
static void
drop_seals(KdaOutput *output, int64 upto)
{
	while (output->seals != NIL && ((KdaSeal *) linitial(output->seals))->last <= upto)
	{
		MemoryContextDelete(((KdaSeal *) linitial(output->seals))->context);
		output->seals = list_delete_first(output->seals);
	}
	output->delivered = Max(output->delivered, upto);
}

static char *
mark_text(const KdaSinkMark *mark)
{
	return psprintf("timeline %u, %X/%X, number " INT64_FORMAT, mark->timeline, LSN_FORMAT_ARGS(mark->lsn), mark->number);
}

/*
 * Compares the mark that the sink has found on the other side with our own
 * history: returns an error text if it is not of it.
 */
static char *
judge(KdaOutput *output)
{
	KdaSinkMark *mark = &output->sink->found_mark;
	TimeLineID	mine = GetWALInsertionTimeLine();
	List	   *history;
	int64		upto = output->delivered;
	int64		again = 0;
	bool		ours;
	bool		is_seal = false;
	ListCell   *lc;

	if (!output->sink->has_mark)
	{
		if (output->sink->marks_missing)
			ereport(LOG,
					(errmsg("output %s: the other side has no mark of what it has got; it goes on behind number " INT64_FORMAT,
							output->name, output->delivered)));
		return NULL;
	}
	history = readTimeLineHistory(mine);
	if (mark->timeline == mine)
	{
		if (mark->lsn > GetXLogInsertRecPtr())
			return psprintf("its mark at the other side (%s) is from the future of this server: another one has written under its name", mark_text(mark));
		ours = true;
	}
	else if (tliInHistory(mark->timeline, history))
		ours = mark->lsn <= tliSwitchPoint(mark->timeline, history, NULL);
	else
		return psprintf("its mark at the other side (%s) is not of the history of this server (timeline %u)", mark_text(mark), mine);
	if (ours && mark->number <= output->delivered)
		return NULL;
	foreach(lc, output->seals)
	{
		KdaSeal    *seal = lfirst(lc);

		if (seal->last > mark->number || (!ours && seal->timeline > mark->timeline))
			break;
		upto = Max(upto, seal->last);
		is_seal |= seal->last == mark->number;
	}
	/* sealed before the switch: it is here, so it is of that history, wherever its batch was sent */
	if (is_seal)
		ours = true;
	if (ours && !is_seal)
		return psprintf("of its mark at the other side (%s) this server has given no such number to a batch (delivered " INT64_FORMAT ", sealed " INT64_FORMAT ")",
						mark_text(mark), output->delivered, output->sealed);
	begin("storing what is delivered");
	if (!ours && mark->number > upto)
	{
		/* once: until something has been sent, the same mark is found at each start */
		execute(psprintf("UPDATE kda_storage.output_progress SET passed_mark = %s WHERE output_id = %d AND passed_mark IS DISTINCT FROM %s",
						 literal(mark_text(mark)), output->ids.id, literal(mark_text(mark))));
		if (SPI_processed > 0)
		{
			again = mark->number - upto;
			ereport(WARNING,
					(errmsg("output %s: " INT64_FORMAT " records had been delivered by a server that this one has taken over from; they may be sent again",
							output->name, again),
					 errdetail("The mark at the other side is %s; this server's history has left that timeline before, behind number " INT64_FORMAT ".",
							   mark_text(mark), upto)));
		}
	}
	store_delivered(output, upto, again, upto - output->delivered);
	commit();
	drop_seals(output, upto);
	return NULL;
}

/*---- sealing */

/* What has to be kept in the outbox begins there. */
static const KdaInboxPosition *
undelivered(KdaOutput *output, int done)
{
	return list_length(output->seals) > done ? &((KdaSeal *) list_nth(output->seals, done))->from : &output->position;
}

static void
store_seal(KdaOutput *output, KdaSeal *seal)
{
	execute(psprintf("INSERT INTO kda_storage.seal (output_id, first, last, timeline, snapshot1, snapshot2, from_xid, from_seq, to_xid, to_seq) VALUES "
					 "(%d, " INT64_FORMAT ", " INT64_FORMAT ", %u, %s, %s, %s, " INT64_FORMAT ", '" UINT64_FORMAT "', " INT64_FORMAT ")",
					 output->ids.id, seal->first, seal->last, seal->timeline, literal(seal->from.snapshot1), literal(seal->from.snapshot2),
					 number_or_null(seal->from.last_xid), seal->from.last_seq, seal->to_xid, seal->to_seq));
}

/* Options batch_records and batch_bytes, else what is good for the sink. */
static int
batch_limit(KdaOutput *output, Size *bytes)
{
	KdaStreamOptions *o = output->options;

	*bytes = o->batch_bytes > 0 ? (Size) o->batch_bytes : output->ops->batch_bytes > 0 ? output->ops->batch_bytes : DEFAULT_BYTES;
	return o->batch_records > 0 ? o->batch_records : output->ops->batch_records > 0 ? output->ops->batch_records : DEFAULT_RECORDS;
}

/* The next piece, with its numbers; NULL: there are no rows. */
static KdaSeal *
make_seal(KdaOutput *output, KdaInboxPosition *position, int64 *sealed, bool *more)
{
	KdaSeal    *seal = new_seal(output);
	KdaInboxPosition last;
	KdaInboxPosition from = *position;
	Size		bytes;
	int			limit = batch_limit(output, &bytes);
	char	   *seen;

	seal->batch.n = kda_outbox_read(&output->ids, position, 0, 0, limit, bytes, &seal->batch.records, &last, &seen, more, seal->context);
	if (seal->batch.n == 0)
	{
		/* where it has come to lives longer than the seal */
		*position = copy_position(CurrentMemoryContext, position);
		MemoryContextDelete(seal->context);
		return NULL;
	}
	seal->from = copy_position(seal->context, &from);
	seal->from.snapshot2 = seen;
	if (from.snapshot2 == NULL)
		seal->from.last_xid = seal->from.last_seq = 0;
	seal->to_xid = last.last_xid;
	seal->to_seq = last.last_seq;
	seal->first = *sealed + 1;
	seal->last = *sealed + seal->batch.n;
	seal->timeline = GetWALInsertionTimeLine();
	*sealed = seal->last;
	store_seal(output, seal);
	return seal;
}

/* The rows of one that was sealed before. */
static void
read_seal(KdaOutput *output, KdaSeal *seal)
{
	KdaInboxPosition position = seal->from;
	KdaInboxPosition last;
	char	   *seen;
	bool		more;
	int			n = (int) (seal->last - seal->first + 1);

	seal->batch.n = kda_outbox_read(&output->ids, &position, seal->to_xid, seal->to_seq, n, MaxAllocHugeSize, &seal->batch.records,
									&last, &seen, &more, seal->context);
	if (seal->batch.n != n || last.last_xid != seal->to_xid || last.last_seq != seal->to_seq)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the outbox of output %s has %d rows with the numbers " INT64_FORMAT " to " INT64_FORMAT,
						output->name, seal->batch.n, seal->first, seal->last)));
}

/*---- what the sink has done */

/* A record that the other side will never take; the whole of it is kept for kda.redrive. */
static void
store_refused(KdaOutput *output, int64 number, KdaOutRecord *record)
{
	static SPIPlanPtr plan = NULL;
	Datum		values[6];
	char		nulls[7] = "      ";

	kda_error_add("delivery", record->refused, output->reported, NULL, psprintf(INT64_FORMAT, number), record->time,
				  record->value, record->len, InvalidOid);
	if (plan == NULL)
	{
		Oid			types[6] = {INT4OID, TIMESTAMPTZOID, BYTEAOID, BYTEAOID, TEXTOID, TEXTOID};

		plan = SPI_prepare("INSERT INTO kda_storage.refused (error_id, output_id, time, key, value, headers, hash_key) "
						   "VALUES (pg_catalog.currval('kda_storage.error_id_seq'), $1, $2, $3, $4, $5, $6)", 6, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare the insert into kda_storage.refused");
	}
	values[0] = Int32GetDatum(output->ids.id);
	values[1] = TimestampTzGetDatum(record->time);
	values[2] = PointerGetDatum(record->key ? cstring_to_text_with_len(record->key, record->key_len) : NULL);
	values[3] = PointerGetDatum(record->value ? cstring_to_text_with_len(record->value, record->len) : NULL);
	values[4] = PointerGetDatum(record->headers ? cstring_to_text(record->headers) : NULL);
	values[5] = PointerGetDatum(record->hash_key ? cstring_to_text(record->hash_key) : NULL);
	for (int i = 2; i < 6; i++)
		if (DatumGetPointer(values[i]) == NULL)
			nulls[i] = 'n';
	if (SPI_execute_plan(plan, values, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not insert into kda_storage.refused");
}

/* Batches are done in order: so many are. */
static int
count_done(KdaOutput *output)
{
	int			n = 0;

	while (n < output->sent && ((KdaSeal *) list_nth(output->seals, n))->batch.done)
		n++;
	return n;
}

static bool
same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static void
store_progress(KdaOutput *output, int64 sealed, int64 delivered, const KdaInboxPosition *position, int64 refused, int64 retries, bool delivery)
{
	execute(psprintf("UPDATE kda_storage.output_progress SET sealed = " INT64_FORMAT ", delivered = " INT64_FORMAT ", "
					 "snapshot1 = %s, snapshot2 = %s, last_xid = %s, last_seq = " INT64_FORMAT ", "
					 "records_out = records_out + " INT64_FORMAT ", records_failed = records_failed + " INT64_FORMAT ", "
					 "retries = retries + " INT64_FORMAT ", last_error = %s%s WHERE output_id = %d",
					 sealed, delivered, literal(position->snapshot1), literal(position->snapshot2),
					 number_or_null(position->last_xid), position->last_seq, delivered - output->delivered - refused, refused,
					 retries, output->last_error[0] ? literal(output->last_error) : "NULL",
					 delivery ? ", last_delivery = pg_catalog.clock_timestamp()" : "", output->ids.id));
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("output %s is not there any more", output->name)));
}

static void
store_error(KdaOutput *output)
{
	int64		retries = output->sink ? output->sink->retries - output->retries_stored : 0;

	begin("storing an error");
	execute(psprintf("UPDATE kda_storage.output_progress SET last_error = %s, retries = retries + " INT64_FORMAT " WHERE output_id = %d",
					 output->last_error[0] ? literal(output->last_error) : "NULL", retries, output->ids.id));
	commit();
	output->retries_stored += retries;
	strlcpy(output->stored_error, output->last_error, sizeof(output->stored_error));
}

static void
make_room(KdaOutput *output, int done, TimestampTz now)
{
	switch (kda_outbox_rotate(&output->ids, undelivered(output, done), now, &output->since, &output->retired_by))
	{
		case KDA_ROOM_EMPTY:
			output->rotate_at = KDA_END_TIME;
			break;
		case KDA_ROOM_ENOUGH:
			output->rotate_at = now + ROTATE_EVERY;
			break;
		case KDA_ROOM_SCARCE:
			output->rotate_at = now + ROTATE_SOON;
			break;
	}
}

/*
 * One transaction: what has been delivered, what is sealed next, rows of seals
 * that have to be sent again, and room for new ones.
 */
static void
transact(KdaOutput *output, int done, int wanted, TimestampTz now)
{
	MemoryContext scratch = AllocSetContextCreate(output->context, "kda delivery", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = CurrentMemoryContext;
	KdaInboxPosition position;
	List	   *volatile made = NIL;
	int64		sealed = output->sealed;
	int64		delivered = output->delivered;
	int64		refused = 0;
	int64		retries = output->sink->retries - output->retries_stored;
	bool		more = output->more;
	ListCell   *lc;

	begin("delivering");
	MemoryContextSwitchTo(scratch);
	PG_TRY();
	{
		kda_error_stream_begin();
		if (done > 0)
			KDA_FAULT("delivered");
		for (int i = 0; i < done; i++)
		{
			KdaSeal    *seal = list_nth(output->seals, i);

			for (int r = 0; r < seal->batch.n; r++)
				if (seal->batch.records[r].refused)
				{
					store_refused(output, seal->first + r, &seal->batch.records[r]);
					refused++;
				}
			delivered = seal->last;
		}
		if (done > 0)
			execute(psprintf("DELETE FROM kda_storage.seal WHERE output_id = %d AND last <= " INT64_FORMAT, output->ids.id, delivered));
		position = copy_position(scratch, &output->position);
		for (int i = output->sent; i < list_length(output->seals) && i < done + wanted; i++)
		{
			KdaSeal    *seal = list_nth(output->seals, i);

			if (seal->batch.records == NULL)
				read_seal(output, seal);
		}
		while (more && list_length(output->seals) + list_length(made) < done + wanted)
		{
			KdaSeal    *seal = make_seal(output, &position, &sealed, &more);

			if (seal)
				made = lappend(made, seal);
		}
		if (done > 0 || made != NIL || retries != 0 || strcmp(output->last_error, output->stored_error) != 0 ||
			!same_text(position.snapshot1, output->position.snapshot1) || !same_text(position.snapshot2, output->position.snapshot2))
			store_progress(output, sealed, delivered, &position, refused, retries, done > 0);
		/* rows of transactions that have failed take room, too */
		if (output->more)
			output->rotate_at = Min(output->rotate_at, kda_outbox_is_full(&output->ids) ? now : now + ROTATE_EVERY);
		if (now >= output->rotate_at)
			make_room(output, done, now);
		kda_error_stream_settle(now);
		KDA_FAULT("seal");
		commit();
		KDA_FAULT("sealed");
	}
	PG_CATCH();
	{
		/* it is closed, and loaded anew */
		foreach(lc, made)
			MemoryContextDelete(((KdaSeal *) lfirst(lc))->context);
		MemoryContextSwitchTo(old);
		MemoryContextDelete(scratch);
		PG_RE_THROW();
	}
	PG_END_TRY();

	/* what was done is permanent: memory follows */
	for (int i = 0; i < done; i++)
	{
		KdaSeal    *seal = list_nth(output->seals, i);

		output->sink->ops->release(output->sink, &seal->batch);
	}
	output->sent -= done;
	drop_seals(output, delivered);
	MemoryContextSwitchTo(output->context);
	foreach(lc, made)
		output->seals = lappend(output->seals, lfirst(lc));
	output->sealed = sealed;
	output->more = more;
	output->retries_stored += retries;
	set_position(output, &position);
	strlcpy(output->stored_error, output->last_error, sizeof(output->stored_error));
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

static void
hand_over(KdaOutput *output, KdaSeal *seal)
{
	KdaSealedBatch *batch = &seal->batch;

	batch->first = seal->first;
	/*
	 * Any place of our history behind the commit that has sealed it; all of the
	 * log up to here is flushed.
	 */
	batch->mark.timeline = GetWALInsertionTimeLine();
	batch->mark.lsn = GetFlushRecPtr(NULL);
	batch->mark.number = seal->last;
	batch->done = false;
	output->sink->ops->send(output->sink, batch);
}

TimestampTz
kda_output_run(KdaOutput *output, int wake_fd, TimestampTz now)
{
	KdaSink    *sink;
	int			done;
	int			room;
	bool		behind;
	bool		given = false;
	char	   *trouble;

	if (output->paused || output->failure || output->ops == NULL)
	{
		if (output->sink)
			kda_output_close(output, 0);
		return KDA_END_TIME;
	}
	if (output->retry_at > now)
		return output->retry_at;
	if (output->sink == NULL)
	{
		/* why it could not be opened the last time is to be seen */
		if (strcmp(output->last_error, output->stored_error) != 0)
			store_error(output);
		open_sink(output, wake_fd);
	}
	sink = output->sink;
	sink->ops->service(sink);
	kda_copy_text(output->last_error, sink->error, sizeof(output->last_error));
	if (sink->failed)
	{
		kda_output_fail(output, sink->error);
		return KDA_END_TIME;
	}
	if (sink->ready && !output->judged)
	{
		trouble = judge(output);
		if (trouble)
		{
			kda_output_fail(output, trouble);
			return KDA_END_TIME;
		}
		output->judged = true;
	}
	done = count_done(output);
	room = Max(sink->ops->max_batches, 1);
	/* is there something for the sink that is not read or sealed yet? */
	behind = output->judged && sink->ready && output->sent - done < room &&
		(output->more || (list_length(output->seals) > output->sent &&
						  ((KdaSeal *) list_nth(output->seals, output->sent))->batch.records == NULL));
	if (output->judged && (done > 0 || behind || now >= output->rotate_at || sink->retries != output->retries_stored ||
						   strcmp(output->last_error, output->stored_error) != 0))
		transact(output, done, sink->ready ? room : 0, now);
	else if (!output->judged && strcmp(output->last_error, output->stored_error) != 0)
		store_error(output);
	while (output->judged && sink->ready && output->sent < list_length(output->seals) && output->sent < room)
	{
		KdaSeal    *seal = list_nth(output->seals, output->sent);

		if (seal->batch.records == NULL)
			break;
		hand_over(output, seal);
		output->sent++;
		given = true;
		KDA_FAULT("sent");
	}
	if (given)
		sink->ops->service(sink);
	if (sink->reopen)
	{
		kda_output_close(output, 0);
		output->backoff_ms = output->backoff_ms == 0 ? BACKOFF_FIRST_MS : Min(output->backoff_ms * 2, kda_retry_max_interval_ms);
		return output->retry_at = TimestampTzPlusMilliseconds(now, output->backoff_ms);
	}
	output->backoff_ms = 0;
	/* it has taken all that it can; if it is through with something already, or there is more, at once */
	if (count_done(output) > 0 || (output->judged && sink->ready && output->more && output->sent < room))
		return now;
	/* its pauses end without anybody's waking us */
	if (output->sent > 0 || !sink->ready)
		return Min(output->rotate_at, now + SERVICE_EVERY);
	return output->rotate_at;
}
