/*-------------------------------------------------------------------------
 *
 * slots.c
 *	  Several processes of a worker, its slots, share the shards of a source
 *	  stream (option parallelism).
 *
 * Who writes what:
 *
 *		shard				the slot that owns it: position, watermark, idle.  Slot 0
 *							makes new rows and divides them
 *		slot				each slot its own row, in every commit; slot 0 all of them
 *							when it divides, resets or has found a shard
 *		stream_progress		slot 0: watermark, coming, advanced, how far the relay
 *							is.  All: counters
 *		query_progress		slot 0: joined, frontier, complete_from.  All: counters
 *		open tables			each slot its own rows (kda_slot); slot 0 also those of
 *							slots that there are no more
 *		query_share			each slot but 0 its own rows
 *		inbox				all, for the queries that slot 0 runs alone: relay.c
 *		closed tables,		slot 0; rows without aggregates: the slot that has read
 *		targets of pumps	the record
 *		error stream		whoever has read the record
 *
 * Closing.  Slot 0 finds the stream's watermark M over what all slots have
 * committed, and commits it (coming).  A slot reads M before a batch, judges the batch
 * against it (what is late for M is late), and commits M as "accepted" with the
 * batch.  M never goes back, so whoever sees accepted >= F knows of that slot:
 * what it has committed before is visible, and nothing that it commits later
 * counts in a window that ends at or before F.  Slot 0 therefore closes to F,
 * the least accepted of all slots that own shards, in a snapshot not older than
 * the one that it has read them in, and F is what others see as the watermark.
 *
 * Fencing.  Before it writes anything a slot updates its row, where generation is
 * what it was when the slot read its shards and states.  Whoever changes the
 * generation holds the row until its own commit: transactions of that slot are
 * either before it, and visible, or find their row changed before they have
 * touched anything; then the slot reads everything anew.  So nobody changes a
 * tuple that another process believes to be its own.
 *
 * Order of row locks: slot, stream_progress, shard, query_progress.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/rows.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "runtime/fault.h"
#include "runtime/worker.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

typedef struct Statement
{
	const char *sql;
	int			nargs;
	Oid			types[4];
	SPIPlanPtr	plan;			/* kept for the worker's life */
} Statement;

static Statement read_shards = {
	"SELECT shard, slot, position, watermark, closed, idle FROM kda_storage.shard WHERE stream_id = $1",
	1, {INT4OID}
};

/* The least that slots with shards accept against; NULL first. */
static Statement read_accepted = {
	"SELECT s.accepted FROM kda_storage.slot s WHERE s.stream_id = $1 AND s.slot > 0 AND EXISTS "
	"(SELECT FROM kda_storage.shard h WHERE h.stream_id = $1 AND h.slot = s.slot) ORDER BY s.accepted NULLS FIRST LIMIT 1",
	1, {INT4OID}
};

static Statement read_first = {
	"SELECT coalesce(p.coming, p.watermark), p.advanced, s.ring::oid, s.ring2::oid, p.snapshot1 FROM kda_storage.stream s "
	"JOIN kda_storage.stream_progress p USING (stream_id) JOIN kda_storage.slot l USING (stream_id) "
	"WHERE stream_id = $1 AND l.slot = $2 AND l.generation = $3",
	3, {INT4OID, INT4OID, INT8OID}
};

static Statement read_frontiers = {
	"SELECT p.query_id, p.frontier FROM kda_storage.query q JOIN kda_storage.query_progress p USING (query_id) "
	"WHERE q.stream::oid = $1",
	1, {OIDOID}
};

static Statement publish = {
	"UPDATE kda_storage.slot SET accepted = $4 WHERE stream_id = $1 AND slot = $2 AND generation = $3",
	4, {INT4OID, INT4OID, INT8OID, TIMESTAMPTZOID}
};

static Statement add_shard = {
	"WITH added AS (INSERT INTO kda_storage.shard (stream_id, shard, slot, from_first) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING slot) "
	"UPDATE kda_storage.slot l SET generation = pg_catalog.pg_current_xact_id()::text::bigint FROM added a "
	"WHERE l.stream_id = $1 AND l.slot = a.slot",
	4, {INT4OID, TEXTOID, INT4OID, BOOLOID}
};

/* Between SPI_connect and SPI_finish. */
static uint64
run(Statement *st, Datum *values, const char *nulls, bool read_only)
{
	int			rc;

	if (st->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(st->sql, st->nargs, st->types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare: %s", st->sql);
		st->plan = plan;
	}
	rc = SPI_execute_plan(st->plan, values, nulls, read_only, 0);
	if (rc < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(rc), st->sql);
	return SPI_processed;
}

static Datum
column(uint64 row, int n, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, n, isnull);
}

static KdaTime
time_column(uint64 row, int n)
{
	bool		isnull;
	Datum		d = column(row, n, &isnull);

	return isnull ? KDA_NO_TIME : DatumGetTimestampTz(d);
}

static void
execute(const char *sql)
{
	int			rc = SPI_execute(sql, false, 0);

	if (rc < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(rc), sql);
}

/*---- dividing the shards */

static bool
is_to_be_divided(KdaFeed *feed)
{
	return kda_feed_runs(feed) && feed->stream->options->server_type != NULL &&
		feed->stream->options->parallelism != feed->nslots;
}

/* Every shard gets its slot; whoever had it before is fenced out. */
static void
divide(KdaFeed *feed)
{
	int			id = feed->stream->id;
	int			n = feed->stream->options->parallelism;

	SPI_connect();
	execute(psprintf("DELETE FROM kda_storage.slot WHERE stream_id = %d", id));
	execute(psprintf("UPDATE kda_storage.stream_progress SET slotted = slotted OR %d > 1 WHERE stream_id = %d", n, id));
	if (n > 1 && !feed->relayed)
		kda_relay_begin(feed);
	if (n > 1)
		execute(psprintf("INSERT INTO kda_storage.slot SELECT p.stream_id, n, pg_catalog.pg_current_xact_id()::text::bigint, coalesce(p.coming, p.watermark) "
						 "FROM kda_storage.stream_progress p, pg_catalog.generate_series(0, %d) n WHERE p.stream_id = %d", n - 1, id));
	execute(psprintf("UPDATE kda_storage.shard h SET slot = o.slot FROM "
					 "(SELECT shard, (pg_catalog.row_number() OVER (ORDER BY pg_catalog.length(shard), shard) - 1) %% %d AS slot "
					 "FROM kda_storage.shard WHERE stream_id = %d) o "
					 "WHERE h.stream_id = %d AND h.shard = o.shard AND h.slot <> o.slot", n, id, id));
	SPI_finish();
	KDA_FAULT("slots_divided");
	ereport(LOG,
			(errmsg("stream %s is read by %d process%s of worker \"%s\"", feed->stream->name, n, n == 1 ? "" : "es",
					kda_worker->name)));
}

bool
kda_slots_arrange(KdaWorker *worker)
{
	bool		any = false;
	ListCell   *lc;

	if (worker->slot > 0)
		return false;
	foreach(lc, worker->feeds)
	{
		bool		divided = is_to_be_divided(lfirst(lc));

		if (!divided && !kda_relay_is_drained(lfirst(lc)))
			continue;
		PushActiveSnapshot(GetLatestSnapshot());
		if (divided)
			divide(lfirst(lc));
		else
			kda_relay_end(lfirst(lc));
		PopActiveSnapshot();
		any = true;
	}
	if (any)
		kda_catalog_changed();
	return any;
}

/*---- before a batch */

/* Slot 0: the shards of the others, and how far windows may close. */
static void
read_others(KdaFeed *feed)
{
	KdaStream  *stream = feed->stream;
	Datum		values[1] = {Int32GetDatum(stream->id)};
	uint64		n = run(&read_shards, values, NULL, true);

	for (uint64 i = 0; i < n; i++)
	{
		char	   *name = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		bool		isnull;

		for (int s = 0; s < stream->nshards; s++)
		{
			KdaShard   *shard = &stream->shards[s];
			Datum		position;

			if (!shard->foreign || strcmp(shard->name, name) != 0)
				continue;
			position = column(i, 3, &isnull);
			shard->position = isnull ? -1 : DatumGetInt64(position);
			shard->watermark = time_column(i, 4);
			shard->closed = DatumGetBool(column(i, 5, &isnull));
			shard->idle = DatumGetBool(column(i, 6, &isnull));
			shard->dirty = false;
		}
	}
	feed->accepted = run(&read_accepted, values, NULL, true) > 0 ? time_column(0, 1) : KDA_END_TIME;
	feed->closing = Min(feed->accepted, stream->watermark);
	KDA_FAULT("slots_read");
}

/* The others: what slot 0 has committed.  False: their shards have been taken away. */
static bool
read_from_first(KdaFeed *feed)
{
	KdaStream  *stream = feed->stream;
	Datum		values[3] = {Int32GetDatum(stream->id), Int32GetDatum(kda_worker->slot), Int64GetDatum(feed->generation)};
	bool		isnull;
	uint64		n;

	if (run(&read_first, values, NULL, true) == 0)
		return false;
	stream->watermark = time_column(0, 1);
	stream->advanced = time_column(0, 2);
	stream->ring = DatumGetObjectId(column(0, 3, &isnull));
	if (isnull)
		stream->ring = InvalidOid;
	stream->ring2 = DatumGetObjectId(column(0, 4, &isnull));
	if (isnull)
		stream->ring2 = InvalidOid;
	if (feed->relays)
	{
		char	   *read = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 5);

		if (feed->relay_read)
			pfree(feed->relay_read);
		feed->relay_read = read ? MemoryContextStrdup(stream->context, read) : NULL;
	}
	values[0] = ObjectIdGetDatum(stream->relid);
	n = run(&read_frontiers, values, NULL, true);
	for (uint64 i = 0; i < n; i++)
	{
		int32		id = DatumGetInt32(column(i, 1, &isnull));
		ListCell   *lc;

		foreach(lc, stream->queries)
			if (((KdaQuery *) lfirst(lc))->id == id)
				((KdaQuery *) lfirst(lc))->first_frontier = time_column(i, 2);
	}
	return true;
}

static bool
read_slots(KdaFeed *feed)
{
	bool		mine = true;
	ListCell   *lc;

	SPI_connect();
	if (kda_worker->slot == 0)
		read_others(feed);
	else
		mine = read_from_first(feed);
	SPI_finish();
	foreach(lc, feed->stream->queries)
	{
		KdaQuery   *query = lfirst(lc);

		query->accepts = kda_query_closed_upto(query, feed->stream->watermark);
	}
	return mine;
}

bool
kda_slots_look(KdaWorker *worker)
{
	bool		mine = true;
	ListCell   *lc;

	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);

		if (feed->nslots == 1 || !kda_feed_runs(feed))
			continue;
		feed->published = false;
		PushActiveSnapshot(GetLatestSnapshot());
		mine &= read_slots(feed);
		PopActiveSnapshot();
	}
	return mine;
}

/*---- with the batch */

/* Is there anything that this slot is going to write? */
static bool
has_work(KdaFeed *feed)
{
	KdaStream  *stream = feed->stream;
	ListCell   *lc;

	if (stream->watermark != feed->accepted || (stream->raw && stream->raw->n > 0))
		return true;
	for (int s = 0; s < stream->nshards; s++)
		if (stream->shards[s].dirty)
			return true;
	foreach(lc, stream->queries)
		if (((KdaQuery *) lfirst(lc))->first_frontier > ((KdaQuery *) lfirst(lc))->frontier)
			return true;
	return false;
}

void
kda_slots_begin(KdaFeed *feed)
{
	if (kda_worker->slot > 0 && has_work(feed))
		kda_slots_publish(feed);
}

void
kda_slots_publish(KdaFeed *feed)
{
	Datum		values[4] = {Int32GetDatum(feed->stream->id), Int32GetDatum(kda_worker->slot), Int64GetDatum(feed->generation),
	TimestampTzGetDatum(feed->stream->watermark)};
	char		nulls[4] = {' ', ' ', ' ', feed->stream->watermark == KDA_NO_TIME ? 'n' : ' '};

	if (feed->published)
		return;
	feed->published = true;
	SPI_connect();
	if (run(&publish, values, nulls, false) == 0)
	{
		kda_worker->reload = true;
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the shards of stream %s were divided anew while their records were processed", feed->stream->name),
				 errdetail("They are processed again by whoever has them now.")));
	}
	SPI_finish();
	KDA_FAULT("slots_published");
}

void
kda_slots_add_shard(KdaFeed *feed, KdaShard *shard)
{
	Datum		values[4] = {Int32GetDatum(feed->stream->id), CStringGetTextDatum(shard->name), Int32GetDatum(shard->slot),
	BoolGetDatum(shard->from_first)};

	SPI_connect();
	run(&add_shard, values, NULL, false);
	SPI_finish();
	kda_catalog_changed();
}

void
kda_slots_reset(KdaFeed *feed)
{
	int			id = feed->stream->id;

	if (feed->nslots == 1)
		return;
	SPI_connect();
	execute(psprintf("UPDATE kda_storage.slot SET generation = pg_catalog.pg_current_xact_id()::text::bigint, accepted = NULL "
					 "WHERE stream_id = %d AND slot > 0", id));
	execute(psprintf("UPDATE kda_storage.shard SET watermark = NULL, max_arrival = NULL WHERE stream_id = %d AND slot > 0", id));
	SPI_finish();
	/* what they have committed until now counts */
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	(void) read_slots(feed);
	PopActiveSnapshot();
	kda_catalog_changed();
}

/*---- after the commit */

void
kda_slots_after_commit(KdaFeed *feed, KdaTime watermark_before, bool saved)
{
	KdaStream  *stream = feed->stream;
	bool		closed;

	if (feed->nslots == 1)
		return;
	closed = feed->closing != feed->closed;
	feed->closed = feed->closing;
	if (kda_worker->slot > 0)
	{
		if (saved)
			kda_slots_wake_worker(kda_worker->name, true);
		return;
	}
	/* they accept against the one, and forget what the other has closed */
	if (stream->watermark != watermark_before || closed)
		kda_slots_wake_worker(kda_worker->name, false);
	/* all have said so already: windows close in the next transaction */
	if (feed->closing < stream->watermark && feed->accepted >= stream->watermark)
		feed->more = true;
}

bool
kda_slots_are_closed(const KdaFeed *feed)
{
	return feed->nslots == 1 || feed->closed >= feed->stream->watermark;
}
