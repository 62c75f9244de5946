/*-------------------------------------------------------------------------
 *
 * save.c
 *	  What a transaction of a worker leaves behind: positions, watermarks and
 *	  counters of its streams and queries.
 *
 * Everything here runs inside the worker's transaction, with its effects, so
 * that position and result are kept or lost together.  After an abort the
 * memory goes back to what the last commit left (kda_feed_go_back).
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/rows.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "runtime/worker.h"
#include "utils/builtins.h"

#define MAX_PARAMS 19

typedef struct Statement
{
	const char *sql;
	int			nargs;
	Oid			types[MAX_PARAMS];
	SPIPlanPtr	plan;			/* kept for the worker's life */
} Statement;

static Statement save_stream = {
	"UPDATE kda_storage.stream_progress SET watermark = $2, advanced = $3, derived_sent = $4, "
	"snapshot1 = $5, snapshot2 = $6, last_xid = $7, last_seq = $8, "
	"has_read = has_read OR $9 > 0, "
	"records_in = records_in + $9, bytes_in = bytes_in + $10, "
	"records_late = records_late + $11, records_failed = records_failed + $12, "
	"records_skipped = records_skipped + $13, last_commit = $14, last_error = $15, "
	"derived = $16, coming = $17 "
	"WHERE stream_id = $1 RETURNING declared",
	17, {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, XID8OID, INT8OID,
	INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

static Statement save_shard = {
	"INSERT INTO kda_storage.shard AS s (stream_id, shard, position, last_position, last_arrival, last_crc, "
	"max_arrival, watermark, closed, end_position, idle, slot, from_first, mark, complete_to, identity, parent1, parent2, millis_behind) "
	"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) "
	"ON CONFLICT (stream_id, shard) DO UPDATE SET position = EXCLUDED.position, "
	"last_position = EXCLUDED.last_position, last_arrival = EXCLUDED.last_arrival, last_crc = EXCLUDED.last_crc, "
	"max_arrival = EXCLUDED.max_arrival, watermark = EXCLUDED.watermark, closed = EXCLUDED.closed, "
	"end_position = EXCLUDED.end_position, idle = EXCLUDED.idle, mark = EXCLUDED.mark, complete_to = EXCLUDED.complete_to, "
	"identity = EXCLUDED.identity, parent1 = EXCLUDED.parent1, parent2 = EXCLUDED.parent2, millis_behind = EXCLUDED.millis_behind",
	19, {INT4OID, TEXTOID, INT8OID, INT8OID, TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	BOOLOID, INT8OID, BOOLOID, INT4OID, BOOLOID, TEXTOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, INT8OID}
};

static Statement forget_shard = {
	"DELETE FROM kda_storage.shard WHERE stream_id = $1 AND shard = $2",
	2, {INT4OID, TEXTOID}
};

/* Slots other than 0 add to the counters; the rest is slot 0's. */
static Statement save_stream_share = {
	"UPDATE kda_storage.stream_progress SET has_read = has_read OR $2 > 0, "
	"records_in = records_in + $2, bytes_in = bytes_in + $3, "
	"records_late = records_late + $4, records_failed = records_failed + $5, "
	"records_skipped = records_skipped + $6, last_commit = $7, last_error = coalesce($8, last_error) "
	"WHERE stream_id = $1 RETURNING declared",
	8, {INT4OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, TEXTOID}
};

static Statement save_query_counts = {
	"UPDATE kda_storage.query_progress SET records_in = records_in + $2, records_late = records_late + $3, "
	"records_out = records_out + $4, busy_ms = busy_ms + $5, last_commit = $6 WHERE query_id = $1",
	6, {INT4OID, INT8OID, INT8OID, INT8OID, FLOAT8OID, TIMESTAMPTZOID}
};

static Statement save_query_share = {
	"INSERT INTO kda_storage.query_share AS h (query_id, slot, open_windows, groups, state_bytes) VALUES ($1, $2, $3, $4, $5) "
	"ON CONFLICT (query_id, slot) DO UPDATE SET open_windows = EXCLUDED.open_windows, groups = EXCLUDED.groups, state_bytes = EXCLUDED.state_bytes",
	5, {INT4OID, INT4OID, INT8OID, INT8OID, INT8OID}
};

static Statement save_query = {
	"UPDATE kda_storage.query_progress SET joined = true, frontier = $2, complete_from = $3, "
	"records_in = records_in + $4, records_late = records_late + $5, "
	"records_out = records_out + $6, open_windows = $7, groups = $8, state_bytes = $9, "
	"busy_ms = busy_ms + $10, last_commit = $11, forgotten = $12, emitted_at = $13 "
	"WHERE query_id = $1",
	13, {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID,
	FLOAT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

static Statement save_sort_mark = {
	"INSERT INTO kda_storage.sort_mark AS m (query_id, shard, greatest) VALUES ($1, $2, $3) "
	"ON CONFLICT (query_id, shard) DO UPDATE SET greatest = EXCLUDED.greatest",
	3, {INT4OID, TEXTOID, TIMESTAMPTZOID}
};

static Statement fail_stream = {
	"UPDATE kda_storage.stream SET failure = $2 WHERE stream_id = $1",
	2, {INT4OID, TEXTOID}
};

static Statement fail_stream_error = {
	"UPDATE kda_storage.stream_progress SET last_error = $2 WHERE stream_id = $1",
	2, {INT4OID, TEXTOID}
};

static Statement fail_query = {
	"UPDATE kda_storage.query_progress SET failure = $2, last_error = $2 "
	"WHERE query_id = $1",
	2, {INT4OID, TEXTOID}
};

/* The first column of the first row that it returns, else 0: a bigint. */
static int64
run(Statement *st, Datum *values, char *nulls)
{
	int			rc;
	int64		result = 0;
	bool		isnull;

	SPI_connect();
	if (st->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(st->sql, st->nargs, st->types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare: %s", st->sql);
		st->plan = plan;
	}
	rc = SPI_execute_plan(st->plan, values, nulls, false, 0);
	if (rc < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(rc), st->sql);
	if (SPI_tuptable && SPI_processed > 0)
		result = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return result;
}

static void
set_time(Datum *values, char *nulls, int i, KdaTime t)
{
	values[i] = TimestampTzGetDatum(t);
	nulls[i] = t == KDA_NO_TIME ? 'n' : ' ';
}

static void
set_text(Datum *values, char *nulls, int i, const char *s)
{
	values[i] = s ? CStringGetTextDatum(s) : (Datum) 0;
	nulls[i] = s ? ' ' : 'n';
}

static void
set_position(Datum *values, char *nulls, int i, int64 position)
{
	values[i] = Int64GetDatum(position);
	nulls[i] = position < 0 ? 'n' : ' ';
}

static int64
save_share(KdaFeed *feed, TimestampTz now)
{
	KdaStream  *stream = feed->stream;
	Datum		values[MAX_PARAMS];
	char		nulls[MAX_PARAMS];

	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int32GetDatum(stream->id);
	values[1] = Int64GetDatum(stream->d_records);
	values[2] = Int64GetDatum(stream->d_bytes);
	values[3] = Int64GetDatum(stream->d_late);
	values[4] = Int64GetDatum(stream->d_failed);
	values[5] = Int64GetDatum(stream->d_skipped);
	values[6] = TimestampTzGetDatum(now);
	set_text(values, nulls, 7, feed->last_error[0] ? feed->last_error : NULL);
	return run(&save_stream_share, values, nulls);
}

/* Its return value tells whether a query was declared meanwhile. */
static int64
save_all(KdaFeed *feed, TimestampTz now)
{
	KdaStream  *stream = feed->stream;
	KdaFeed    *inbox = feed->relay ? feed->relay : feed;	/* whose rows are in the inbox */
	Datum		values[MAX_PARAMS];
	char		nulls[MAX_PARAMS];

	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int32GetDatum(stream->id);
	/* what others see has closed as far as it says */
	set_time(values, nulls, 1, feed->nslots > 1 ? feed->closing : stream->watermark);
	set_time(values, nulls, 16, feed->nslots > 1 ? stream->watermark : KDA_NO_TIME);
	set_time(values, nulls, 2, stream->advanced);
	set_time(values, nulls, 3, inbox->derived_sent);
	set_text(values, nulls, 4, inbox->next_position.snapshot1);
	set_text(values, nulls, 5, inbox->next_position.snapshot2);
	values[6] = UInt64GetDatum(inbox->next_position.last_xid);
	values[7] = Int64GetDatum(inbox->next_position.last_seq);
	values[8] = Int64GetDatum(stream->d_records);
	values[9] = Int64GetDatum(stream->d_bytes);
	values[10] = Int64GetDatum(stream->d_late);
	values[11] = Int64GetDatum(stream->d_failed);
	values[12] = Int64GetDatum(stream->d_skipped);
	values[13] = TimestampTzGetDatum(now);
	set_text(values, nulls, 14, feed->last_error[0] ? feed->last_error : NULL);
	set_time(values, nulls, 15, inbox->stream->derived);
	return run(&save_stream, values, nulls);
}

void
kda_save_feed(KdaFeed *feed, TimestampTz now)
{
	KdaStream  *stream = feed->stream;
	Datum		values[MAX_PARAMS];
	char		nulls[MAX_PARAMS];

	if (feed->relay_of)
		return;					/* with its stream */
	/* rows of kda_storage.slot come first: slots.c */
	if (stream->slot > 0)
		kda_slots_publish(feed);
	for (int i = 0; i < stream->nshards; i++)
		if (stream->shards[i].foreign && stream->shards[i].dirty)
			kda_slots_add_shard(feed, &stream->shards[i]);
	if ((stream->slot > 0 ? save_share(feed, now) : save_all(feed, now)) != feed->declared)
	{
		kda_worker->reload = true;
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a query of stream %s was declared while its records were processed", stream->name),
				 errdetail("They are processed again, with it.")));
	}

	for (int i = 0; i < stream->nshards; i++)
	{
		KdaShard   *shard = &stream->shards[i];
		KdaSourceShard *from = stream->source && shard->source_index >= 0 ?
			stream->source->shards[shard->source_index] : NULL;

		if (!shard->dirty || shard->foreign)
			continue;
		memset(nulls, ' ', sizeof(nulls));
		values[0] = Int32GetDatum(stream->id);
		set_text(values, nulls, 1, shard->name);
		set_position(values, nulls, 2, shard->position);
		set_position(values, nulls, 3, shard->last_position);
		set_time(values, nulls, 4, shard->last_arrival);
		values[5] = Int64GetDatum((int64) shard->last_crc);
		set_time(values, nulls, 6, shard->max_arrival);
		set_time(values, nulls, 7, shard->watermark);
		values[8] = BoolGetDatum(shard->closed);
		set_position(values, nulls, 9, from ? from->end_position : -1);
		values[10] = BoolGetDatum(shard->idle);
		values[11] = Int32GetDatum(shard->slot);
		values[12] = BoolGetDatum(shard->from_first);
		set_text(values, nulls, 13, shard->mark[0] ? shard->mark : NULL);
		set_time(values, nulls, 14, shard->complete_to);
		set_text(values, nulls, 15, shard->identity[0] ? shard->identity : NULL);
		set_text(values, nulls, 16, shard->parents[0][0] ? shard->parents[0] : NULL);
		set_text(values, nulls, 17, shard->parents[1][0] ? shard->parents[1] : NULL);
		set_position(values, nulls, 18, shard->millis_behind);
		if (unlikely(shard->gone))
			run(&forget_shard, values, NULL);
		else
			run(&save_shard, values, nulls);
	}
}

static void
save_mark(KdaQuery *query, const char *shard, KdaTime greatest)
{
	Datum		values[3] = {Int32GetDatum(query->id), CStringGetTextDatum(shard), TimestampTzGetDatum(greatest)};

	run(&save_sort_mark, values, NULL);
}

void
kda_save_query(KdaQuery *query, TimestampTz now)
{
	Datum		values[MAX_PARAMS];
	char		nulls[MAX_PARAMS];
	int64		ngroups = 0,
				nwindows = 0,
				bytes = 0;

	if (query->groups)
		kda_groups_stats(query->groups, &ngroups, &nwindows, &bytes);
	else if (query->kept)
		kda_kept_stats(query->kept, &ngroups, &nwindows, &bytes);
	if (query->slot > 0)
	{
		values[0] = Int32GetDatum(query->id);
		values[1] = Int64GetDatum(query->d_in);
		values[2] = Int64GetDatum(query->d_late);
		values[3] = Int64GetDatum(query->d_out);
		values[4] = Float8GetDatum(query->d_busy_ms);
		values[5] = TimestampTzGetDatum(now);
		run(&save_query_counts, values, NULL);
		if (query->state == KDA_STATE_NONE)
			return;
		values[1] = Int32GetDatum(query->slot);
		values[2] = Int64GetDatum(nwindows);
		values[3] = Int64GetDatum(ngroups);
		/* the table is shared, and slot 0 counts it */
		values[4] = Int64GetDatum(query->groups ? bytes : 0);
		run(&save_query_share, values, NULL);
		return;
	}
	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int32GetDatum(query->id);
	set_time(values, nulls, 1, query->frontier);
	set_time(values, nulls, 2, query->complete_from);
	values[3] = Int64GetDatum(query->d_in);
	values[4] = Int64GetDatum(query->d_late);
	values[5] = Int64GetDatum(query->d_out);
	values[6] = Int64GetDatum(nwindows);
	values[7] = Int64GetDatum(ngroups);
	values[8] = Int64GetDatum(bytes);
	values[9] = Float8GetDatum(query->d_busy_ms);
	values[10] = TimestampTzGetDatum(now);
	set_time(values, nulls, 11, query->forgotten);
	set_time(values, nulls, 12, query->emitted_at ? query->emitted_at : KDA_NO_TIME);
	run(&save_query, values, nulls);
	if (query->retime)
		kda_retime_save(query, save_mark);
}

void
kda_fail_stream(KdaFeed *feed, const char *why)
{
	Datum		values[2] = {Int32GetDatum(feed->stream->id), CStringGetTextDatum(why)};

	run(&fail_stream, values, NULL);
	run(&fail_stream_error, values, NULL);
	kda_catalog_changed();
}

void
kda_fail_query(KdaQuery *query, const char *why)
{
	Datum		values[2] = {Int32GetDatum(query->id),
	CStringGetTextDatum(psprintf("%s; correct the cause, then DROP and CREATE it", why))};

	run(&fail_query, values, NULL);
	kda_catalog_changed();
	ereport(LOG,
			(errmsg("continuous query %s has failed: %s", query->name, why),
			 errhint("Correct the cause, then DROP and CREATE the query.")));
}

/*---- memory beside the tables */

static void
copy_shards(KdaFeed *feed)
{
	KdaStream  *stream = feed->stream;

	if (stream->nshards > feed->saved_nshards || feed->saved_shards == NULL)
	{
		if (feed->saved_shards)
			pfree(feed->saved_shards);
		feed->saved_shards = MemoryContextAlloc(stream->context,
												sizeof(KdaShard) * Max(stream->nshards, 1));
	}
	if (stream->nshards > 0)
		memcpy(feed->saved_shards, stream->shards, sizeof(KdaShard) * stream->nshards);
	feed->saved_nshards = stream->nshards;
}

/* The new text lives only until the next transaction begins. */
static void
keep_text(MemoryContext context, char **had, const char *now)
{
	char	   *copy;

	if (*had == now)
		return;
	copy = now ? MemoryContextStrdup(context, now) : NULL;
	if (*had)
		pfree(*had);
	*had = copy;
}

void
kda_feed_remember_catalog(KdaFeed *feed)
{
	KdaStream  *stream = feed->stream;

	feed->saved_resets_wanted = feed->resets_wanted;
	feed->saved_resets_done = feed->resets_done;
	feed->saved_reset_behind = feed->reset_behind;
	feed->saved_segments[0] = stream->inbox;
	feed->saved_segments[1] = stream->inbox2;
	feed->saved_segments[2] = stream->ring;
	feed->saved_segments[3] = stream->ring2;
	feed->saved_segment_since = stream->segment_since;
	feed->saved_retired_by = stream->retired_by;
}

void
kda_feed_remember(KdaFeed *feed)
{
	KdaStream  *stream = feed->stream;

	for (int i = 0; i < stream->nshards; i++)
	{
		stream->shards[i].stored |= stream->shards[i].dirty && stream->shards[i].position >= 0;
		stream->shards[i].dirty = false;
	}
	copy_shards(feed);
	feed->saved_watermark = stream->watermark;
	feed->saved_advanced = stream->advanced;
	feed->saved_derived = stream->derived;
	feed->saved_derived_sent = feed->derived_sent;
	kda_feed_remember_catalog(feed);
	feed->saved_idle_since = stream->idle_since;
	keep_text(stream->context, &feed->position.snapshot1, feed->next_position.snapshot1);
	keep_text(stream->context, &feed->position.snapshot2, feed->next_position.snapshot2);
	feed->position.last_xid = feed->next_position.last_xid;
	feed->position.last_seq = feed->next_position.last_seq;
	feed->next_position = feed->position;
	stream->d_records = stream->d_bytes = stream->d_late = stream->d_failed = stream->d_skipped = 0;
	feed->touched = false;
}

void
kda_feed_go_back(KdaFeed *feed)
{
	KdaStream  *stream = feed->stream;

	for (int i = 0; i < feed->saved_nshards; i++)
	{
		KdaShard   *shard = &stream->shards[i];
		KdaShard	had = *shard;

		*shard = feed->saved_shards[i];
		shard->source_index = had.source_index;
		shard->quiet_since = had.quiet_since;
		/* where it begins was found since: that is not asked again */
		if (shard->position < 0 && had.position >= 0)
		{
			shard->position = shard->begun_at = had.begun_at;
			memcpy(shard->begun_mark, had.begun_mark, sizeof(shard->begun_mark));
			strlcpy(shard->mark, had.begun_mark, sizeof(shard->mark));
			memcpy(shard->identity, had.identity, sizeof(shard->identity));
			shard->dirty = true;
		}
	}
	/* Shards that the last commit did not know yet start over. */
	for (int i = feed->saved_nshards; i < stream->nshards; i++)
	{
		KdaShard   *shard = &stream->shards[i];

		shard->watermark = shard->max_arrival = shard->last_arrival = KDA_NO_TIME;
		shard->last_position = -1;
		shard->idle = shard->closed = shard->gone = false;
		if (shard->position >= 0)
		{
			shard->position = shard->begun_at;
			strlcpy(shard->mark, shard->begun_mark, sizeof(shard->mark));
			shard->dirty = true;
		}
	}
	stream->watermark = feed->saved_watermark;
	stream->advanced = feed->saved_advanced;
	stream->derived = feed->saved_derived;
	feed->derived_sent = feed->saved_derived_sent;
	feed->resets_wanted = feed->saved_resets_wanted;
	feed->resets_done = feed->saved_resets_done;
	feed->reset_behind = feed->saved_reset_behind;
	feed->reset_again = feed->arrived = feed->quiet = feed->at_reset = false;
	feed->advanced = true;		/* what was taken is there again */
	stream->inbox = feed->saved_segments[0];
	stream->inbox2 = feed->saved_segments[1];
	stream->ring = feed->saved_segments[2];
	stream->ring2 = feed->saved_segments[3];
	stream->segment_since = feed->saved_segment_since;
	stream->retired_by = feed->saved_retired_by;
	stream->idle_since = feed->saved_idle_since;
	feed->next_position = feed->position;
	stream->d_records = stream->d_bytes = stream->d_late = stream->d_failed = stream->d_skipped = 0;
}
