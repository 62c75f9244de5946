/*-------------------------------------------------------------------------
 *
 * load.c
 *	  A pipeline worker's picture of its streams and queries: read from the
 *	  catalog tables at start and whenever a DDL statement has committed.
 *
 * An entry whose definition did not change is kept as it is, with its open
 * source and its cached groups; the others are made anew.  Runs in the worker,
 * kda_load() in a transaction of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/rows.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "query/shown.h"
#include "runtime/worker.h"
#include "stream/fdw.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

KdaWorker  *kda_worker = NULL;

static int
column(const char *name)
{
	int			n = SPI_fnumber(SPI_tuptable->tupdesc, name);

	if (n <= 0)
		elog(ERROR, "column \"%s\" is missing in the catalog of kda_stream", name);
	return n;
}

static Datum
value(uint64 row, const char *name, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column(name), isnull);
}

static bool
is_null(uint64 row, const char *name)
{
	bool		isnull;

	(void) value(row, name, &isnull);
	return isnull;
}

static int64
int_value(uint64 row, const char *name, int64 if_null)
{
	bool		isnull;
	int			n = column(name);
	Datum		d = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, n, &isnull);

	if (isnull)
		return if_null;
	switch (SPI_gettypeid(SPI_tuptable->tupdesc, n))
	{
		case BOOLOID:
			return DatumGetBool(d);
		case INT4OID:
			return DatumGetInt32(d);
		case REGCLASSOID:
		case OIDOID:
			return DatumGetObjectId(d);
		default:
			return DatumGetInt64(d);
	}
}

static char *
text_value(MemoryContext context, uint64 row, const char *name)
{
	char	   *s = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column(name));

	return s ? MemoryContextStrdup(context, s) : NULL;
}

static int64
interval_value_us(uint64 row, const char *name, int64 if_null)
{
	bool		isnull;
	Datum		d = value(row, name, &isnull);
	Interval   *iv;

	if (isnull)
		return if_null;
	iv = DatumGetIntervalP(d);
	return iv->time + ((int64) iv->day + (int64) iv->month * DAYS_PER_MONTH) * USECS_PER_DAY;
}

static char *
qualified_name(MemoryContext context, Oid relid)
{
	char	   *rel = get_rel_name(relid);

	if (rel == NULL)
		return MemoryContextStrdup(context, "?");
	return MemoryContextStrdup(context,
							   quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), rel));
}

bool
kda_feed_has_queries(const KdaFeed *feed)
{
	ListCell   *lc;

	foreach(lc, feed->stream->queries)
		if (kda_query_runs(lfirst(lc)))
			return true;
	return feed->relays;
}

KdaFeed *
kda_feed_by_relid(Oid relid)
{
	ListCell   *lc;

	foreach(lc, kda_worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);

		if (feed->stream->relid == relid && feed->relay_of == NULL)
			return feed;
	}
	return NULL;
}

/*---- streams */

static void
load_name(uint64 row, const char *name, char *into, Size size)
{
	char	   *s = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column(name));

	strlcpy(into, s ? s : "", size);
}

static void
load_shards(KdaFeed *feed)
{
	KdaStream  *stream = feed->stream;

	if (stream->options->server_type == NULL)
	{
		stream->shards = MemoryContextAllocZero(stream->context, sizeof(KdaShard));
		stream->nshards = 1;
		stream->shards[0].name = MemoryContextStrdup(stream->context, KDA_LOCAL_SHARD);
		stream->shards[0].source_index = -1;
		stream->shards[0].position = -1;
		stream->shards[0].last_position = -1;
		stream->shards[0].watermark = KDA_NO_TIME;
		stream->shards[0].max_arrival = KDA_NO_TIME;
		stream->shards[0].last_arrival = KDA_NO_TIME;
		stream->shards[0].complete_to = KDA_NO_TIME;
		stream->shards[0].millis_behind = -1;
	}
	/* slot 0 looks at those of the others, too */
	SPI_execute(psprintf("SELECT * FROM kda_storage.shard WHERE stream_id = %d AND (%d = 0 OR slot = %d) "
						 "ORDER BY length(shard), shard", stream->id, kda_worker->slot, kda_worker->slot), true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *name = text_value(stream->context, i, "shard");
		KdaShard   *shard = NULL;

		for (int s = 0; s < stream->nshards; s++)
			if (strcmp(stream->shards[s].name, name) == 0)
				shard = &stream->shards[s];
		if (shard == NULL)
		{
			if (stream->nshards == 0)
				stream->shards = MemoryContextAllocZero(stream->context, sizeof(KdaShard));
			else
				stream->shards = repalloc(stream->shards, sizeof(KdaShard) * (stream->nshards + 1));
			shard = &stream->shards[stream->nshards++];
			memset(shard, 0, sizeof(*shard));
		}
		shard->name = name;
		shard->source_index = -1;
		shard->stored = true;
		shard->slot = feed->nslots > 1 ? (int) int_value(i, "slot", 0) : 0;
		shard->foreign = shard->slot != kda_worker->slot;
		shard->from_first = int_value(i, "from_first", 0);
		shard->position = int_value(i, "position", -1);
		shard->last_position = int_value(i, "last_position", -1);
		shard->last_arrival = int_value(i, "last_arrival", KDA_NO_TIME);
		shard->last_crc = (uint32) int_value(i, "last_crc", 0);
		shard->max_arrival = int_value(i, "max_arrival", KDA_NO_TIME);
		shard->watermark = int_value(i, "watermark", KDA_NO_TIME);
		shard->closed = int_value(i, "closed", 0);
		if (shard->foreign)
			shard->idle = int_value(i, "idle", 0);
		load_name(i, "mark", shard->mark, sizeof(shard->mark));
		load_name(i, "identity", shard->identity, sizeof(shard->identity));
		load_name(i, "parent1", shard->parents[0], sizeof(shard->parents[0]));
		load_name(i, "parent2", shard->parents[1], sizeof(shard->parents[1]));
		shard->complete_to = int_value(i, "complete_to", KDA_NO_TIME);
		shard->millis_behind = int_value(i, "millis_behind", -1);
	}
	kda_sources_find_parents(stream);
}

void
kda_load_progress(KdaFeed *feed)
{
	KdaStream  *stream = feed->stream;

	stream->watermark = KDA_NO_TIME;
	stream->advanced = KDA_NO_TIME;
	stream->derived = KDA_NO_TIME;
	SPI_execute(psprintf("SELECT * FROM kda_storage.stream_progress WHERE stream_id = %d",
						 stream->id), true, 0);
	if (SPI_processed == 0)
		return;
	feed->closed = int_value(0, "watermark", KDA_NO_TIME);
	stream->watermark = int_value(0, "coming", feed->closed);
	stream->advanced = int_value(0, "advanced", KDA_NO_TIME);
	stream->derived = int_value(0, "derived", KDA_NO_TIME);
	feed->derived_sent = int_value(0, "derived_sent", KDA_NO_TIME);
	feed->position.snapshot1 = text_value(stream->context, 0, "snapshot1");
	feed->position.snapshot2 = text_value(stream->context, 0, "snapshot2");
	{
		bool		isnull;
		Datum		d = value(0, "last_xid", &isnull);

		feed->position.last_xid = isnull ? 0 : DatumGetUInt64(d);
	}
	feed->position.last_seq = int_value(0, "last_seq", 0);
	feed->start = text_value(stream->context, 0, "start");
	feed->start_set = int_value(0, "start_set", KDA_NO_TIME);
	feed->position_known = feed->start != NULL;
}

static KdaFeed *
make_feed(KdaWorker *worker, int32 id, Oid relid, int nslots, int64 generation, KdaTime accepted)
{
	MemoryContext context = AllocSetContextCreate(worker->context, "kda stream",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	KdaFeed    *feed = palloc0(sizeof(KdaFeed));
	KdaStream  *stream = palloc0(sizeof(KdaStream));
	Relation	rel = relation_open(relid, AccessShareLock);

	stream->context = context;
	stream->id = id;
	stream->relid = relid;
	stream->name = qualified_name(context, relid);
	stream->owner = rel->rd_rel->relowner;
	stream->desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
	stream->options = kda_stream_options_get(relid);
	relation_close(rel, AccessShareLock);
	feed->stream = stream;
	feed->nslots = nslots;
	feed->generation = generation;
	feed->accepted = accepted;
	feed->closed = KDA_NO_TIME;
	stream->slot = worker->slot;
	feed->tick_at = KDA_END_TIME;
	feed->derived_sent = KDA_NO_TIME;
	MemoryContextSwitchTo(old);
	kda_load_progress(feed);
	load_shards(feed);
	feed->next_position = feed->position;
	kda_feed_remember(feed);
	return feed;
}

/* Waits at most that long: a source that hangs in a call cleans up behind us. */
void
kda_source_close(KdaStream *stream, int deadline_ms)
{
	KdaSource  *source = stream->source;

	if (source == NULL)
		return;
	/* records that were not applied are read again: positions know nothing of them */
	if (stream->raw && stream->raw->n > 0)
		source->ops->release(source, stream->raw);
	stream->source = NULL;
	source->ops->close(source, deadline_ms);
	for (int s = 0; s < stream->nshards; s++)
	{
		stream->shards[s].source_index = -1;
		stream->shards[s].quiet_since = 0;
	}
}

static void
drop_feed(KdaFeed *feed)
{
	kda_source_close(feed->stream, 0);
	MemoryContextDelete(feed->stream->context);
}

/* Did options, columns or owner change, so that everything has to be made anew? */
static bool
same_stream(KdaStream *stream, const Oid *segments)
{
	Relation	rel = relation_open(stream->relid, AccessShareLock);
	KdaStreamOptions *options = kda_stream_options_get(stream->relid);
	KdaStreamOptions *had = stream->options;
	bool		same;

	/* they change places while we run */
	same = (segments[0] == stream->inbox || segments[0] == stream->inbox2) &&
		(segments[1] == stream->inbox || segments[1] == stream->inbox2) &&
		(segments[2] == stream->ring || segments[2] == stream->ring2) &&
		(segments[3] == stream->ring || segments[3] == stream->ring2) &&
		stream->owner == rel->rd_rel->relowner &&
		equalTupleDescs(stream->desc, RelationGetDescr(rel)) &&
		kda_stream_options_equal(had, options, stream->desc->natts);
	relation_close(rel, AccessShareLock);
	return same;
}

/*
 * Other slots than 0: is slot 0 resetting streams?  All of the worker's, since
 * any of them may be tied to one of theirs.
 */
static bool
first_resets(KdaWorker *worker)
{
	if (worker->slot == 0)
		return false;
	SPI_execute(psprintf("SELECT r.rel FROM kda_storage.stream r JOIN kda_storage.stream_progress USING (stream_id) "
						 "JOIN pg_catalog.pg_foreign_table t ON t.ftrelid = r.rel WHERE resets_wanted > resets_done AND NOT r.paused AND r.failure IS NULL AND r.origin = %s "
						 "AND EXISTS (SELECT FROM kda_storage.query q JOIN kda_storage.query_progress p USING (query_id) "
						 "WHERE r.rel IN (q.stream, q.stream2) AND NOT q.stopped AND p.failure IS NULL)", quote_literal_cstr(kda_origin())), true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
		if (strcmp(kda_stream_worker_name((Oid) int_value(i, "rel", 0)), worker->name) == 0)
			return true;
	return false;
}

static void
load_streams(KdaWorker *worker)
{
	List	   *feeds = NIL;
	SPITupleTable *table;
	uint64		n;
	ListCell   *lc;

	SPI_execute(psprintf("SELECT s.*, p.resets_done, p.declared, p.begun, p.slotted, p.relayed, t.ftrelid IS NOT NULL AS alive, l.generation, l.accepted, "
						 "(SELECT pg_catalog.count(*) FROM kda_storage.slot c WHERE c.stream_id = s.stream_id) AS nslots "
						 "FROM kda_storage.stream s "
						 "JOIN kda_storage.stream_progress p USING (stream_id) "
						 "LEFT JOIN pg_catalog.pg_foreign_table t ON t.ftrelid = s.rel "
						 "LEFT JOIN kda_storage.slot l ON l.stream_id = s.stream_id AND l.slot = %d "
						 "WHERE s.origin = %s AND (%d = 0 OR l.slot IS NOT NULL) ORDER BY stream_id",
						 worker->slot, quote_literal_cstr(kda_origin()), worker->slot), true, 0);
	table = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		Oid			relid;
		KdaFeed    *feed;
		Oid			segments[4];	/* inbox, its other; ring, its other */
		int32		id;
		char	   *failure;
		bool		paused,
					is_part,
					reset_behind;
		int64		resets_wanted,
					resets_done;
		char	   *worker_name;
		TimestampTz since;
		int64		declared,
					begun,
					generation;
		int			nslots;
		bool		slotted,
					relayed;
		KdaTime		accepted;

		SPI_tuptable = table;
		if (!int_value(i, "alive", 0))
			continue;
		relid = (Oid) int_value(i, "rel", 0);
		id = (int32) int_value(i, "stream_id", 0);
		segments[0] = (Oid) int_value(i, "inbox", 0);
		segments[1] = (Oid) int_value(i, "inbox2", 0);
		segments[2] = (Oid) int_value(i, "ring", 0);
		segments[3] = (Oid) int_value(i, "ring2", 0);
		since = int_value(i, "segment_since", 0);
		paused = int_value(i, "paused", 0);
		is_part = int_value(i, "part_of", 0) != 0;
		resets_wanted = int_value(i, "resets_wanted", 0);
		resets_done = int_value(i, "resets_done", 0);
		reset_behind = int_value(i, "reset_behind", 0);
		failure = text_value(CurrentMemoryContext, i, "failure");
		declared = int_value(i, "declared", 0);
		begun = int_value(i, "begun", 0);
		slotted = int_value(i, "slotted", 0);
		relayed = int_value(i, "relayed", 0);
		nslots = Max((int) int_value(i, "nslots", 0), 1);
		generation = int_value(i, "generation", 0);
		accepted = int_value(i, "accepted", KDA_NO_TIME);

		worker_name = kda_stream_worker_name(relid);
		if (strcmp(worker_name, worker->name) != 0)
			continue;

		feed = kda_feed_by_relid(relid);
		/* its first query may have been dropped and another one created: then it begins anew */
		if (feed && feed->stream->id == id && feed->begun == begun && feed->nslots == nslots &&
			(worker->slot == 0 || feed->generation == generation) && same_stream(feed->stream, segments) &&
			(feed->stream->failure == NULL) == (failure == NULL))
			worker->feeds = list_delete_ptr(worker->feeds, feed);
		else
			feed = make_feed(worker, id, relid, nslots, generation, accepted);
		feed->slotted = slotted;
		feed->relayed = relayed;
		feed->relays = false;
		bms_free(feed->relay_columns);
		feed->relay_columns = NULL;
		feed->declared = declared;
		feed->begun = begun;
		feed->stream->inbox = segments[0];
		feed->stream->inbox2 = segments[1];
		feed->stream->ring = segments[2];
		feed->stream->ring2 = segments[3];
		feed->stream->segment_since = since;
		if (paused != feed->stream->paused)
			kda_source_close(feed->stream, 0);
		feed->stream->paused = paused;
		feed->stream->failure = failure ? MemoryContextStrdup(feed->stream->context, failure) : NULL;
		feed->is_part = is_part;
		/* slot 0 does them */
		feed->resets_wanted = worker->slot == 0 ? resets_wanted : 0;
		feed->resets_done = worker->slot == 0 ? resets_done : 0;
		feed->reset_behind = reset_behind;
		kda_feed_remember_catalog(feed);
		if (!feed->position_known)
		{
			/* the first query may have been created since */
			kda_load_progress(feed);
			feed->next_position = feed->position;
		}
		feed->stream->queries = NIL;
		feed->stream->has_writers = false;
		feed->writers = NIL;
		feed->level = 0;
		feeds = lappend(feeds, feed);
		if (worker->slot == 0 && feed->stream->options->server_type && OidIsValid(segments[0]))
		{
			if (feed->relay)
				worker->feeds = list_delete_ptr(worker->feeds, feed->relay);
			else
				feed->relay = kda_relay_make(feed);
			kda_relay_follow(feed->relay);
			feeds = lappend(feeds, feed->relay);
		}
	}
	/* what is left was dropped or made anew */
	foreach(lc, worker->feeds)
		drop_feed(lfirst(lc));
	list_free(worker->feeds);
	{
		MemoryContext old = MemoryContextSwitchTo(worker->context);

		worker->feeds = list_copy(feeds);
		MemoryContextSwitchTo(old);
	}
}

/*---- queries */

static KdaQuery *
query_by_id(List *queries, int32 id)
{
	ListCell   *lc;

	foreach(lc, queries)
		if (((KdaQuery *) lfirst(lc))->id == id)
			return lfirst(lc);
	return NULL;
}

/* Those that pass records on come last: what the others refuse goes with the record. */
static void
add_query(KdaStream *stream, KdaQuery *query)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, stream->queries)
		n += !kda_query_passes_on(lfirst(lc));
	stream->queries = kda_query_passes_on(query) ? lappend(stream->queries, query) : list_insert_nth(stream->queries, n, query);
}

static void
drop_query(KdaQuery *query)
{
	if (query->groups)
		kda_groups_free(query->groups);
	if (query->batch_plan)
		kda_plan_free(query->batch_plan);
	if (query->final_plan)
		kda_plan_free(query->final_plan);
	for (int s = 0; s < 2; s++)
		if (query->sides[s] && query->sides[s]->batch_plan)
			kda_plan_free(query->sides[s]->batch_plan);
	if (query->prune_plan)
		SPI_freeplan(query->prune_plan);
	MemoryContextDelete(query->context);
}

static void
load_sort_marks(KdaQuery *query)
{
	SPITupleTable *table = SPI_tuptable;

	SPI_execute(psprintf("SELECT shard, greatest FROM kda_storage.sort_mark WHERE query_id = %d", query->id), true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
		kda_retime_load(query->retime, text_value(CurrentMemoryContext, i, "shard"), int_value(i, "greatest", KDA_NO_TIME));
	SPI_tuptable = table;
}

/* Each side of a join is a query of its own, as far as its batches and its kept rows go. */
static void
load_sides(KdaQuery *query, KdaStream *right, uint64 row)
{
	query->join_low_us = int_value(row, "join_low_us", 0);
	query->join_high_us = int_value(row, "join_high_us", 0);
	query->join_outer = (int) int_value(row, "join_outer", 0);
	for (int s = 0; s < 2; s++)
	{
		KdaQuery   *side = query->sides[s];

		if (side == NULL)
		{
			side = query->sides[s] = MemoryContextAllocZero(query->context, sizeof(KdaQuery));
			side->id = query->id;
			side->relid = query->relid;
			side->owner = query->owner;
			side->context = query->context;
			side->shape = KDA_SHAPE_JOIN;
			side->state = KDA_STATE_ROWS;
			side->frontier = side->forgotten = KDA_NO_TIME;
			side->batch_rel = (Oid) int_value(row, s == 0 ? "batch" : "batch2", 0);
			side->open_rel = (Oid) int_value(row, s == 0 ? "open" : "open2", 0);
			side->start_snapshot = text_value(query->context, row, s == 0 ? "start_snapshot" : "start_snapshot2");
			query->join_passed[s] = KDA_NO_TIME;
		}
		side->stream = s == 0 ? query->stream : right;
		side->name = query->name;
	}
}

/* Are there rows of several slots in its open table? */
static void
load_slotted(KdaFeed *feed, KdaQuery *query, uint64 row)
{
	bool		slotted = feed->slotted && is_null(row, "one_slot") && query->shape != KDA_SHAPE_ROWS;

	if (slotted != query->slotted && query->final_plan)
	{
		kda_plan_free(query->final_plan);
		query->final_plan = NULL;
	}
	query->slotted = slotted;
	query->nslots = feed->nslots;
	query->target_is_read = int_value(row, "target_read", 0);
	query->target_is_part = int_value(row, "target_part", 0);
	query->merged_rel = slotted ? kda_storage_relation(psprintf("merged_%d", query->id)) : InvalidOid;
	query->leftovers = false;
	if (slotted && query->slot == 0 && query->shape == KDA_SHAPE_WINDOWS)
	{
		SPITupleTable *table = SPI_tuptable;

		SPI_execute(psprintf("SELECT FROM kda_storage.%s WHERE kda_slot >= %d LIMIT 1",
							 quote_identifier(get_rel_name(query->open_rel)), query->nslots), true, 1);
		query->leftovers = SPI_processed > 0;
		SPI_tuptable = table;
	}
}

/* Does that query take its records of the stream from the relay?  Then they are to be handed on. */
static bool
note_relayed(Oid stream, uint64 row)
{
	KdaFeed    *feed = OidIsValid(stream) ? kda_feed_by_relid(stream) : NULL;

	if (feed == NULL || !feed->relayed || !OidIsValid(feed->stream->inbox) || is_null(row, "one_slot"))
		return false;
	if (is_null(row, "failure") && !int_value(row, "stopped", 0))
	{
		Oid			batch2 = (Oid) int_value(row, "batch2", 0);
		Bitmapset  *columns = kda_plan_columns_of((Oid) int_value(row, "batch", 0), stream);
		MemoryContext old;

		if (OidIsValid(batch2))
			columns = bms_add_members(columns, kda_plan_columns_of(batch2, stream));
		old = MemoryContextSwitchTo(feed->stream->context);
		feed->relays = true;
		feed->relay_columns = bms_add_members(feed->relay_columns, columns);
		if (feed->stream->options->rowtime_attno > 0)
			feed->relay_columns = bms_add_member(feed->relay_columns, feed->stream->options->rowtime_attno);
		MemoryContextSwitchTo(old);
	}
	return true;
}

static void
load_queries(KdaWorker *worker)
{
	List	   *queries = NIL;
	SPITupleTable *table;
	uint64		n;
	ListCell   *lc;

	SPI_execute("SELECT q.*, p.joined, p.frontier, p.forgotten, p.emitted_at, p.complete_from, p.failure, p.reset_sides, c.relowner, "
				"EXISTS (SELECT FROM kda_storage.query r WHERE q.target IN (r.stream, r.stream2)) AS target_read, "
				"EXISTS (SELECT FROM kda_storage.stream t WHERE t.rel = q.target AND t.part_of IS NOT NULL) AS target_part "
				"FROM kda_storage.query q JOIN kda_storage.query_progress p USING (query_id) "
				"JOIN pg_catalog.pg_class c ON c.oid = q.rel ORDER BY query_id",
				true, 0);
	table = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		KdaFeed    *feed;
		KdaQuery   *query;
		int32		id;
		MemoryContext context;
		char	   *shape;
		char	   *state;
		bool		relayed,
					right_relayed;

		SPI_tuptable = table;
		relayed = note_relayed((Oid) int_value(i, "stream", 0), i);
		right_relayed = note_relayed((Oid) int_value(i, "stream2", 0), i);
		feed = kda_feed_by_relid((Oid) int_value(i, "stream", 0));
		if (feed == NULL)
			continue;			/* another worker's */
		if (worker->slot > 0 && !is_null(i, "one_slot"))
			continue;			/* slot 0 runs it */
		if (relayed)
			feed = feed->relay;
		id = (int32) int_value(i, "query_id", 0);
		query = query_by_id(worker->queries, id);
		if (query && query->stream == feed->stream &&
			query->owner == (Oid) int_value(i, "relowner", 0))
		{
			worker->queries = list_delete_ptr(worker->queries, query);
		}
		else
		{
			context = AllocSetContextCreate(worker->context, "kda query", ALLOCSET_DEFAULT_SIZES);
			query = MemoryContextAllocZero(context, sizeof(KdaQuery));
			query->context = context;
			query->id = id;
			query->relid = (Oid) int_value(i, "rel", 0);
			query->owner = (Oid) int_value(i, "relowner", 0);
			query->stream = feed->stream;
			query->batch_rel = (Oid) int_value(i, "batch", 0);
			query->final_rel = (Oid) int_value(i, "final", 0);
			query->open_rel = (Oid) int_value(i, "open", 0);
			query->closed_rel = (Oid) int_value(i, "closed", 0);
			query->is_pump = strcmp(text_value(CurrentMemoryContext, i, "kind"), "pump") == 0;
			shape = text_value(CurrentMemoryContext, i, "shape");
			query->shape = strcmp(shape, "rows") == 0 ? KDA_SHAPE_ROWS :
				strcmp(shape, "groups") == 0 ? KDA_SHAPE_GROUPS :
				strcmp(shape, "join") == 0 ? KDA_SHAPE_JOIN :
				strcmp(shape, "over") == 0 ? KDA_SHAPE_OVER : KDA_SHAPE_WINDOWS;
			query->delay_us = int_value(i, "delay_us", 0);
			query->sort_strict = int_value(i, "sort_strict", 0);
			query->prune_text = text_value(context, i, "prune_text");
			if (int_value(i, "retimed", 0))
			{
				query->retime = kda_retime_create(query);
				load_sort_marks(query);
			}
			query->left_seq = -1;
			query->shown_rel = (Oid) int_value(i, "shown", 0);
			query->every_us = int_value(i, "every_us", 0);
			query->early = query->every_us > 0 ||
				(query->is_pump && OidIsValid(query->shown_rel) && strcmp(text_value(CurrentMemoryContext, i, "emit"), "changes") == 0);
			state = text_value(CurrentMemoryContext, i, "state");
			query->state = state == NULL ? KDA_STATE_NONE :
				strcmp(state, "groups") == 0 ? KDA_STATE_GROUPS : KDA_STATE_ROWS;
			if (query->shape == KDA_SHAPE_WINDOWS)
				kda_window_parse(text_value(CurrentMemoryContext, i, "window_spec"), &query->window);
			/* late records: what cannot be corrected waits for them */
			query->deferred = int_value(i, "part_of", 0) != 0 ||
				(query->shape == KDA_SHAPE_WINDOWS && query->window.by_bounds && query->state == KDA_STATE_ROWS);
			if (query->shape == KDA_SHAPE_WINDOWS ? query->deferred || OidIsValid(query->shown_rel) :
				query->shape == KDA_SHAPE_ROWS && (query->deferred || !query->is_pump) && !query->retime)
				query->lateness_us = feed->stream->options->allowed_lateness_us;
			else if (query->shape == KDA_SHAPE_OVER && !query->retime)
				query->delay_us = Max(query->delay_us, feed->stream->options->allowed_lateness_us);
			query->per_window = int_value(i, "per_window", 0);
			query->nkeys = (int) int_value(i, "nkeys", 0);
			query->joined = int_value(i, "joined", 0);
			query->frontier = int_value(i, "frontier", KDA_NO_TIME);
			query->forgotten = int_value(i, "forgotten", query->frontier);
			query->emitted_at = int_value(i, "emitted_at", 0);
			query->complete_from = int_value(i, "complete_from", KDA_NO_TIME);
			query->reset_sides = query->saved_reset_sides = (int) int_value(i, "reset_sides", 0);
			query->saved_joined = query->joined;
			query->saved_frontier = query->frontier;
			query->saved_forgotten = query->forgotten;
			query->saved_emitted_at = query->emitted_at;
			query->saved_complete_from = query->complete_from;
			query->start_snapshot = text_value(context, i, "start_snapshot");
			query->search_path = text_value(context, i, "search_path");
			if (OidIsValid(query->shown_rel))
				query->shown = kda_shown_create(query, text_value(CurrentMemoryContext, i, "shown_keys"),
												text_value(CurrentMemoryContext, i, "revision_columns"));
			query->slot = worker->slot;
			query->accepts = query->first_frontier = KDA_NO_TIME;
			if (query->slot > 0)
			{
				/* how far this slot has forgotten what has closed: not known */
				query->frontier = query->saved_frontier = query->forgotten = query->saved_forgotten = KDA_NO_TIME;
				query->joined = query->saved_joined = true;
			}
		}
		load_slotted(feed, query, i);
		query->name = qualified_name(query->context, query->relid);
		if (query->shape == KDA_SHAPE_JOIN)
		{
			KdaFeed    *right = kda_feed_by_relid((Oid) int_value(i, "stream2", 0));
			MemoryContext old;

			if (right == NULL)
				continue;		/* being moved to another worker */
			if (right_relayed)
				right = right->relay;
			load_sides(query, right->stream, i);
			old = MemoryContextSwitchTo(right->stream->context);
			if (right != feed)
				add_query(right->stream, query);
			MemoryContextSwitchTo(old);
		}
		/* a view may hand its rows on since another query reads it */
		query->target_rel = (Oid) int_value(i, "target", 0);
		query->target_is_stream = OidIsValid(query->target_rel) && kda_is_stream(query->target_rel);
		{
			KdaOutputIds output;
			bool		out = query->target_is_stream && kda_output_ids(query->target_rel, &output);

			query->outbox[0] = out ? output.box : InvalidOid;
			query->outbox[1] = out ? output.box2 : InvalidOid;
		}
		query->retention_us = interval_value_us(i, "retention", -1);
		query->stopped = int_value(i, "stopped", 0);
		query->failure = text_value(query->context, i, "failure");
		{
			MemoryContext old = MemoryContextSwitchTo(feed->stream->context);

			add_query(feed->stream, query);
			MemoryContextSwitchTo(old);
		}
		queries = lappend(queries, query);
	}
	foreach(lc, worker->queries)
		drop_query(lfirst(lc));
	list_free(worker->queries);
	{
		MemoryContext old = MemoryContextSwitchTo(worker->context);

		worker->queries = list_copy(queries);
		MemoryContextSwitchTo(old);
	}
}

/*---- what follows from both */

static int
by_level(const ListCell *a, const ListCell *b)
{
	const KdaFeed *fa = lfirst(a);
	const KdaFeed *fb = lfirst(b);

	return fa->level != fb->level ? fa->level - fb->level : fa->stream->id - fb->stream->id;
}

static void
derive(KdaWorker *worker)
{
	ListCell   *lc,
			   *lq;
	MemoryContext old = MemoryContextSwitchTo(worker->context);

	foreach(lc, worker->queries)
	{
		KdaQuery   *query = lfirst(lc);
		/* what leaves for outside has no watermark here */
		KdaFeed    *target = query->target_is_stream && !OidIsValid(query->outbox[0]) ? kda_feed_by_relid(query->target_rel) : NULL;

		/* what leaves for an outside server comes back, if at all, as its records */
		if (target && target->stream->options->server_type == NULL)
		{
			target->writers = lappend(target->writers, query);
			target->stream->has_writers = true;
		}
	}
	/* Cycles are refused at CREATE, so the levels come to rest. */
	for (int round = 0; round <= list_length(worker->feeds); round++)
		foreach(lc, worker->feeds)
		{
			KdaFeed    *feed = lfirst(lc);

			foreach(lq, feed->writers)
			{
				KdaQuery   *query = lfirst(lq);

				feed->level = Max(feed->level, kda_feed_of(query->stream)->level + 1);
				if (query->sides[1])
					feed->level = Max(feed->level, kda_feed_of(query->sides[1]->stream)->level + 1);
			}
			if (feed->relay_of)
				feed->level = feed->relay_of->level + 1;
		}
	list_sort(worker->feeds, by_level);

	/* Which columns does some query read?  All of them for a database stream: rows are typed already. */
	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);
		KdaStream  *stream = feed->stream;
		Bitmapset  *needed = NULL;

		if (feed->relay_of)
			needed = bms_add_members(needed, feed->relay_of->relay_columns);
		else if (stream->options->server_type == NULL)
			needed = bms_add_range(needed, 1, stream->desc->natts);
		else if (stream->options->rowtime_attno > 0)
			needed = bms_add_member(needed, stream->options->rowtime_attno);
		needed = bms_add_members(needed, feed->relay_columns);
		if (stream->options->server_type)
			foreach(lq, stream->queries)
			{
				KdaQuery   *query = lfirst(lq);

				needed = bms_add_members(needed, kda_plan_columns_of(query->batch_rel, stream->relid));
				if (query->sides[1])
					needed = bms_add_members(needed, kda_plan_columns_of(query->sides[1]->batch_rel, stream->relid));
			}
		if (stream->batch == NULL || !bms_equal(needed, stream->needed))
		{
			MemoryContext mine = MemoryContextSwitchTo(stream->context);

			if (stream->batch)
				kda_batch_destroy(stream->batch);
			bms_free(stream->needed);
			stream->needed = bms_copy(needed);
			stream->batch = kda_batch_create(stream->context, stream->desc, stream->needed);
			if (stream->options->server_type && stream->decoder == NULL)
			{
				stream->decoder = kda_decoder_create(stream->context, stream->desc, stream->options);
				stream->raw = kda_raw_batch_create(stream->context);
			}
			MemoryContextSwitchTo(mine);
		}
	}
	MemoryContextSwitchTo(old);
}

void
kda_load(KdaWorker *worker)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	worker->query_catalog = kda_storage_relation("query");
	if (kda_extension_exists() && OidIsValid(kda_storage_relation("query_progress")))
	{
		/*
		 * Before anything in memory changes.  What the messages that came with
		 * the locks spoke of is seen by a snapshot that is taken after them.
		 */
		kda_locks_take_catalog(worker);
		worker->reload = false;
		PopActiveSnapshot();
		PushActiveSnapshot(GetLatestSnapshot());
		kda_locks_forget();
		worker->strangers = worker->slot == 0 && kda_adopt_strangers();
		CommandCounterIncrement();
		InvalidateCatalogSnapshot();
		UpdateActiveSnapshotCommandId();
		SPI_connect();
		worker->first_resets = first_resets(worker);
		load_streams(worker);
		load_queries(worker);
		derive(worker);
		SPI_finish();
	}
	else
		worker->reload = false;
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*---- sources */

/*
 * The options of a stream's server and of the user mapping that it is read
 * with, as they are now; in memory of the context.  In a transaction.
 */
static void
look_up_options(KdaStream *stream, MemoryContext context, List **server_options, List **user_options)
{
	ForeignServer *server = GetForeignServer(stream->options->serverid);
	UserMapping *mapping = kda_user_mapping(stream->owner, stream->options->serverid);
	MemoryContext old = MemoryContextSwitchTo(context);

	*server_options = copyObject(server->options);
	*user_options = mapping ? copyObject(mapping->options) : NIL;
	MemoryContextSwitchTo(old);
}

static bool
wants_source(KdaFeed *feed)
{
	KdaStream  *stream = feed->stream;

	return stream->options->server_type != NULL && kda_feed_runs(feed);
}

static void
open_source(KdaWorker *worker, KdaFeed *feed, Size fetch_memory)
{
	static uint64 serial = 0;
	KdaStream  *stream = feed->stream;
	KdaSourceConfig config = {0};
	MemoryContext old = CurrentMemoryContext;

	if (feed->options_context)
		MemoryContextReset(feed->options_context);
	else
		feed->options_context = AllocSetContextCreate(stream->context, "kda source options",
													  ALLOCSET_SMALL_SIZES);
	StartTransactionCommand();
	look_up_options(stream, feed->options_context, &feed->server_options, &feed->user_options);
	config.server_options = feed->server_options;
	config.user_options = feed->user_options;
	config.serverid = stream->options->serverid;
	config.owner = stream->owner;
	config.stream_name = stream->name;
	config.topic = stream->options->topic;
	config.fetch_memory = fetch_memory;
	config.max_record_bytes = kda_max_record_bytes;
	config.wake_fd = worker->wake_write;
	config.ring_wanted = stream->options->retention_us > 0;
	MemoryContextSwitchTo(stream->context);
	stream->source = kda_source_ops(stream->options->server_type)->open(&config);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	stream->source->serial = ++serial;
	feed->fetch_memory = fetch_memory;
}

/* Have server or user mapping changed since it was opened? */
static bool
options_changed(KdaFeed *feed)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "kda source options",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = CurrentMemoryContext;
	KdaSource  *source = feed->stream->source;
	List	   *server_options,
			   *user_options;
	bool		changed;

	StartTransactionCommand();
	look_up_options(feed->stream, scratch, &server_options, &user_options);
	changed = !equal(server_options, feed->server_options) || !equal(user_options, feed->user_options) ||
		(source->ops->has_changed && source->ops->has_changed(source));
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	return changed;
}

void
kda_sources_update(KdaWorker *worker)
{
	ListCell   *lc;
	Size		share;
	int			wanted = 0;
	bool		check_options = worker->check_options;
	MemoryContext old = CurrentMemoryContext;

	worker->check_options = false;
	foreach(lc, worker->feeds)
		if (wants_source(lfirst(lc)))
			wanted++;
	share = (Size) kda_fetch_memory_kb * 1024 / Max(wanted, 1);

	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);
		KdaStream  *stream = feed->stream;

		if (stream->source == NULL && !(wants_source(feed) &&
										(feed->retry_at == 0 || kda_clock_now() >= feed->retry_at || check_options)))
			continue;
		PG_TRY();
		{
			/* also when it holds more than its share, now that there are more of them */
			if (stream->source && (!wants_source(feed) || stream->source->reopen ||
								   feed->fetch_memory / 2 > share ||
								   (check_options && options_changed(feed))))
				kda_source_close(stream, 0);
			if (stream->source == NULL && wants_source(feed))
				open_source(worker, feed, share);
		}
		PG_CATCH();
		{
			ErrorData  *edata;

			MemoryContextSwitchTo(old);
			edata = CopyErrorData();
			FlushErrorState();
			AbortOutOfAnyTransaction();
			MemoryContextSwitchTo(old);
			kda_copy_text(feed->last_error, edata->message, sizeof(feed->last_error));
			feed->retry_at = kda_clock_now() + 5 * USECS_PER_SEC;
			FreeErrorData(edata);
		}
		PG_END_TRY();
	}
}
