/*-------------------------------------------------------------------------
 *
 * transaction.c
 *	  One micro-batch: all stages of all streams of this worker, in order, in
 *	  one transaction.
 *
 *		lock			every relation of it, or nothing (locks.c)
 *		advance, read	what was declared and what has come
 *		decode			bytes to columns (source streams)
 *		watermark		rowtime, lateness, shard and stream watermark
 *		ring			raw records, for looking at
 *		query			each continuous query over the batch
 *		write back		changed groups to the open tables
 *		close, emit		windows that the watermark has passed
 *		save			positions and counters
 *
 * A stage takes the stream and its batch; none calls the next one.  Streams go
 * in the order in which pumps feed them.  An error leaves by ereport: worker.c
 * aborts, goes back and tries again.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/rows.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_crc32c.h"
#include "portability/instr_time.h"
#include "runtime/error_stream.h"
#include "runtime/fault.h"
#include "query/groups.h"
#include "query/run.h"
#include "query/shown.h"
#include "runtime/worker.h"
#include "stream/fdw.h"
#include "stream/inbox.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

KdaFeed    *kda_current_feed = NULL;

/* Memory of what is found in a transaction and needed behind its commit; emptied when the next one begins. */
static MemoryContext after_commit = NULL;

/* Microseconds of this transaction that do not depend on the number of records. */
static int64 settle_time = 0;

#define ROTATE_EVERY	(5 * USECS_PER_SEC)
#define BLOCKED_LOOK	(USECS_PER_SEC / 10)
#define ROTATE_SOON		(USECS_PER_SEC / 50)

#define KDA_LATE_REPORTED	2

/* The stream whose refusals are being reported. */
typedef struct RefuseContext
{
	KdaFeed    *feed;
	KdaQuery   *query;
	uint8	   *failed_any;		/* by row: some query has refused it */
	uint8	   *late_any;		/* by row: it was late for some query */
} RefuseContext;

static KdaStream *
current_stream(Oid relid)
{
	KdaFeed    *feed;

	/* the query that runs may do so over the stream's relay */
	if (kda_current_query && kda_current_query->stream->relid == relid)
		return kda_current_query->stream;
	feed = kda_feed_by_relid(relid);
	return feed ? feed->stream : NULL;
}

static KdaBatch *
running_batch(void)
{
	return kda_current_query ? kda_current_query->stream->batch : NULL;
}

/*
 * Types of a stream's columns may run code of whoever made them (domains,
 * casts to json): it runs as the stream's owner.
 */
static void
become_stream_owner(KdaStream *stream, Oid *userid, int *sec_context)
{
	GetUserIdAndSecContext(userid, sec_context);
	SetUserIdAndSecContext(stream->owner,
						   *sec_context | SECURITY_RESTRICTED_OPERATION | SECURITY_LOCAL_USERID_CHANGE);
}

/*---- refused records */

/* The bytes of a row: the raw record, or a database stream's row as JSON. */
static void
row_data(KdaStream *stream, int row, const char **data, Size *len)
{
	KdaBatch   *batch = stream->batch;

	if (stream->raw && stream->raw->n > 0)
	{
		KdaRawRecord *rec = &stream->raw->records[batch->record[row]];

		*data = rec->data;
		*len = rec->len;
	}
	else
	{
		Datum	   *values = palloc(sizeof(Datum) * stream->desc->natts);
		bool	   *nulls = palloc(sizeof(bool) * stream->desc->natts);
		HeapTuple	tuple;
		text	   *json;
		Oid			userid;
		int			sec_context;

		for (int i = 0; i < stream->desc->natts; i++)
		{
			nulls[i] = batch->values[i] == NULL || batch->nulls[i][row];
			values[i] = nulls[i] ? (Datum) 0 : batch->values[i][row];
		}
		tuple = heap_form_tuple(stream->desc, values, nulls);
		become_stream_owner(stream, &userid, &sec_context);
		json = DatumGetTextPP(DirectFunctionCall1(row_to_json,
												  heap_copy_tuple_as_datum(tuple, stream->desc)));
		SetUserIdAndSecContext(userid, sec_context);
		*data = VARDATA_ANY(json);
		*len = VARSIZE_ANY_EXHDR(json);
	}
}

/* Returns the stream whose record it is. */
static KdaStream *
add_error(KdaFeed *feed, int row, const char *name, const char *message, Oid query)
{
	KdaStream  *stream = feed->stream;
	const char *data = NULL;
	Size		len = 0;
	const char *shard;
	char	   *place;
	KdaFeed    *whose = kda_feed_of_row(feed, row, &shard, &place);

	row_data(stream, row, &data, &len);
	/* the record itself may not have been late or refused: it is a matter of this query */
	if (feed->is_part && !OidIsValid(query) && stream->queries != NIL)
		query = ((KdaQuery *) linitial(stream->queries))->relid;
	kda_error_add(name, message, whose->stream->relid, shard, place,
				  stream->batch->rowtime[row], data, len, query);
	whose->touched = true;
	return whose->stream;
}

static void
stop_on_error(KdaFeed *feed, const char *shard, const char *place, const char *message)
{
	if (!feed->stream->options->on_error_stop)
		return;
	/* the stream's affair, not that of the query that has found it */
	kda_current_query = NULL;
	ereport(ERROR,
			(errcode(ERRCODE_DATA_EXCEPTION),
			 errmsg("stream %s has stopped at shard %s position %s: %s",
					feed->stream->name, shard, place, message),
			 errhint("Correct the cause or set option on_error 'continue', then ALTER STREAM %s RESUME.",
					 feed->stream->name)));
}

static void
refuse_record(void *arg, int index, const KdaDecodeError *error)
{
	KdaFeed    *feed = arg;
	KdaStream  *stream = feed->stream;
	KdaRawRecord *rec = &stream->raw->records[index];
	KdaShard   *shard = NULL;
	char		buffer[KDA_PLACE_SIZE];
	const char *place = kda_raw_place(rec, buffer);

	for (int s = 0; s < stream->nshards; s++)
		if (stream->shards[s].source_index == rec->shard)
			shard = &stream->shards[s];
	stop_on_error(feed, shard ? shard->name : "?", place, error->message);
	kda_error_add(error->name, error->message, stream->relid, shard ? shard->name : NULL, place,
				  KDA_NO_TIME, rec->data, rec->len, InvalidOid);
	stream->d_failed++;
}

static void
refuse_ahead(void *arg, int row)
{
	KdaFeed    *feed = arg;

	stop_on_error(feed, feed->stream->shards[feed->stream->batch->shard[row]].name,
				  kda_place_of_row(feed->stream, row), "its time is too far ahead");
	add_error(feed, row, "ahead",
			  "the record's time is further ahead of now than option max_ahead allows", InvalidOid)->d_failed++;
}

static void
refuse_expression(void *arg, int row, ErrorData *edata)
{
	RefuseContext *cxt = arg;
	KdaStream  *whose;

	stop_on_error(cxt->feed, cxt->feed->stream->shards[cxt->feed->stream->batch->shard[row]].name,
				  kda_place_of_row(cxt->feed->stream, row), edata->message);
	whose = add_error(cxt->feed, row, "expression", edata->message, cxt->query->relid);
	if (!cxt->failed_any[row])
		whose->d_failed++;
	cxt->failed_any[row] = 1;
}

/* A row whose time to be sorted by is of no use. */
static void
refuse_time(void *arg, int row, const char *error_name, const char *message)
{
	RefuseContext *cxt = arg;
	KdaStream  *whose;
	bool		late = strcmp(error_name, "late") == 0;

	if (!late)
		stop_on_error(cxt->feed, cxt->feed->stream->shards[cxt->feed->stream->batch->shard[row]].name,
					  kda_place_of_row(cxt->feed->stream, row), message);
	else
	{
		cxt->query->d_late++;
		if (cxt->late_any[row])
			return;
		/* reported here, with its own message, and once */
		cxt->late_any[row] = KDA_LATE_REPORTED;
	}
	whose = add_error(cxt->feed, row, error_name, message, late ? InvalidOid : cxt->query->relid);
	if (late)
		whose->d_late++;
	else if (!cxt->failed_any[row])
	{
		whose->d_failed++;
		cxt->failed_any[row] = 1;
	}
}

/*---- stage: read and decode */

static void
stage_read(KdaFeed *feed, KdaInboxPlace *place)
{
	KdaStream  *stream = feed->stream;
	KdaDecodeCounts counts = {0};
	int32	   *shard_map;
	char	  **names;
	Oid			userid;
	int			sec_context;

	memset(place, 0, sizeof(*place));
	kda_batch_reset(stream->batch);
	if (stream->options->server_type == NULL)
	{
		int			n;
		Size		limit = (Size) kda_batch_bytes_kb * 1024;

		n = kda_inbox_read(stream, &feed->next_position, kda_batch_records, limit, &feed->more,
						   place, after_commit);
		stream->d_records += n;
		stream->d_bytes += stream->batch->bytes;
		if (stream->relay)
			return;				/* whether shards are quiet, those know who read them */
		if (n > 0 || feed->more)
			stream->shards[0].quiet_since = 0;
		else if (stream->shards[0].quiet_since == 0)
			stream->shards[0].quiet_since = kda_clock_now();
		return;
	}

	if (stream->raw->n == 0 || feed->held)
		return;
	shard_map = palloc(sizeof(int32) * Max(stream->source->nshards, 1));
	names = palloc(sizeof(char *) * Max(stream->nshards, 1));
	for (int i = 0; i < stream->source->nshards; i++)
		shard_map[i] = -1;
	for (int s = 0; s < stream->nshards; s++)
	{
		names[s] = stream->shards[s].name;
		if (stream->shards[s].source_index >= 0)
			shard_map[stream->shards[s].source_index] = s;
	}
	become_stream_owner(stream, &userid, &sec_context);
	kda_decode(stream->decoder, stream->raw, stream->source->ops, shard_map, names, stream->batch,
			   refuse_record, feed, &counts);
	SetUserIdAndSecContext(userid, sec_context);
	stream->d_records += stream->raw->n;
	stream->d_bytes += stream->raw->bytes;
	stream->d_skipped += counts.skipped;

	/* the new positions */
	for (int i = stream->raw->n - 1; i >= 0; i--)
	{
		KdaRawRecord *rec = &stream->raw->records[i];
		KdaShard   *shard = &stream->shards[shard_map[rec->shard]];
		char		place[KDA_PLACE_SIZE];
		pg_crc32c	crc;

		if (shard->dirty && shard->position > rec->position)
			continue;
		shard->position = rec->position + 1;
		shard->last_position = rec->position;
		shard->last_arrival = rec->arrival;
		if (rec->mark)
			strlcpy(shard->mark, kda_raw_place(rec, place), sizeof(shard->mark));
		INIT_CRC32C(crc);
		if (rec->data)
			COMP_CRC32C(crc, rec->data, rec->len);
		FIN_CRC32C(crc);
		shard->last_crc = crc;
		shard->dirty = true;
		shard->idle = false;
		shard->quiet_since = 0;
	}
}

/* A time column that the record has left out shows the arrival that stands for it. */
static void
fill_rowtime(KdaStream *stream)
{
	KdaBatch   *batch = stream->batch;
	AttrNumber	attno = stream->options->rowtime_attno;
	Oid			type;

	if (attno <= 0 || batch->values[attno - 1] == NULL)
		return;
	type = TupleDescAttr(stream->desc, attno - 1)->atttypid;
	for (int i = 0; i < batch->nrows; i++)
		if (unlikely(batch->nulls[attno - 1][i]) && batch->rowtime[i] != KDA_NO_TIME)
		{
			batch->values[attno - 1][i] = kda_rowtime_value(stream->options, type, batch->rowtime[i]);
			batch->nulls[attno - 1][i] = false;
		}
}

/*---- stage: lateness of one query */

/*
 * Marks the rows that the query must not see; NULL if it sees all.  Late rows
 * are also marked in late_any.
 */
static uint8 *
make_mask(KdaFeed *feed, KdaQuery *query, uint8 *late_any)
{
	KdaStream  *stream = feed->stream;
	KdaBatch   *batch = stream->batch;
	uint8	   *mask = NULL;
	bool		windows = query->shape == KDA_SHAPE_WINDOWS;
	bool		snapshot = query->start_snapshot != NULL && stream->options->server_type == NULL;
	bool		early = query->early;
	bool		corrects = query->shown && query->lateness_us > 0;
	KdaTime		frontier = Max(query->frontier, query->accepts);

	for (int i = 0; i < batch->nrows; i++)
	{
		KdaTime		t = batch->rowtime[i];
		bool		skip = false;

		if (unlikely(t == KDA_NO_TIME))
			skip = true;		/* refused as ahead */
		else if (unlikely(snapshot && kda_inbox_xid_visible(query->start_snapshot, batch->xid[i])))
			skip = true;
		else if (query->shape == KDA_SHAPE_OVER)
		{
			/* rows leave in the order of time: what came earlier has left */
			if (unlikely(t < query->frontier || (batch->shard_wm[i] > KDA_NO_TIME + query->delay_us + 1 &&
												 t < batch->shard_wm[i] - query->delay_us)))
			{
				skip = true;
				query->d_late++;
				late_any[i] |= 1;
			}
		}
		else if (query->shape == KDA_SHAPE_JOIN)
		{
			/* joins know late records: what they could match may have gone; RESET has forgotten the watermark */
			KdaTime		mark = Max(batch->shard_wm[i], Min(feed->saved_watermark, stream->watermark));

			if (unlikely(t < kda_earlier(mark, stream->options->allowed_lateness_us) || TIMESTAMP_NOT_FINITE(t)))
			{
				skip = true;
				query->d_late++;
				late_any[i] |= 1;
			}
		}
		else if (windows && unlikely(t < batch->shard_wm[i] || t <= frontier || TIMESTAMP_NOT_FINITE(t)))
		{
			if (kda_query_is_late(query, i))
			{
				skip = true;
				query->d_late++;
				late_any[i] |= 1;
			}
			else if (corrects && t < query->frontier)
				kda_shown_touch(query, t);
		}
		if (unlikely(early) && !skip)
			kda_shown_touch(query, t);
		if (unlikely(skip))
		{
			if (mask == NULL)
				mask = palloc0(batch->nrows);
			mask[i] = 1;
		}
	}
	return mask;
}

/*---- stage: queries */

/* A query that this worker has not run yet: where does it begin? */
static void
join_query(KdaFeed *feed, KdaQuery *query)
{
	KdaStream  *stream = feed->stream;

	if (query->joined)
		return;
	if (feed->relay_of)
		feed = feed->relay_of;
	query->joined = true;
	query->frontier = query->forgotten = kda_query_closed_upto(query, stream->watermark);
	/* a sort waits for what is earlier */
	if (query->shape == KDA_SHAPE_OVER && !TIMESTAMP_NOT_FINITE(query->frontier))
		query->frontier = query->forgotten = query->frontier - query->delay_us;
	/* a database stream that had no rows when the query was created has missed none */
	if (query->shape == KDA_SHAPE_WINDOWS &&
		(feed->stream->options->server_type == NULL ? query->complete_from == KDA_END_TIME :
		 kda_parse_start(feed->start ? feed->start : "latest").kind != KDA_START_EARLIEST))
	{
		KdaTime		seen;

		/* records that are on their way are not this query's */
		stream = feed->stream;
		seen = stream->watermark == KDA_NO_TIME ? kda_clock_now() :
			stream->watermark + stream->options->watermark_us;
		for (int s = 0; s < stream->nshards; s++)
			if (stream->shards[s].watermark != KDA_NO_TIME)
				seen = Max(seen, stream->shards[s].watermark + stream->options->watermark_us);
		/* what began within the gap may have begun earlier */
		if (query->window.kind == KDA_WINDOW_SESSION)
			seen += query->window.size;
		query->complete_from = kda_window_next_start(&query->window, seen + 1);
	}
}

/* Goes on with the records to whoever sees them next: what has been reported by now. */
static void
mark_refused(KdaBatch *batch, const uint8 *late, const uint8 *failed)
{
	for (int i = 0; i < batch->nrows; i++)
		batch->refused[i] = (late[i] ? KDA_REFUSED_LATE : 0) | (failed[i] ? KDA_REFUSED_FAILED : 0);
}

static void
run_queries(KdaFeed *feed, TimestampTz now)
{
	KdaStream  *stream = feed->stream;
	KdaBatch   *batch = stream->batch;
	uint8	   *late_any;
	uint8	   *failed_any;
	ListCell   *lc;

	if (batch->nrows == 0)
		return;
	late_any = palloc0(batch->nrows);
	failed_any = palloc0(batch->nrows);
	if (stream->relay || feed->is_part)
		for (int i = 0; i < batch->nrows; i++)
		{
			late_any[i] = batch->refused[i] & KDA_REFUSED_LATE ? KDA_LATE_REPORTED : 0;
			failed_any[i] = (batch->refused[i] & KDA_REFUSED_FAILED) != 0;
		}
	foreach(lc, stream->queries)
	{
		KdaQuery   *query = lfirst(lc);
		Tuplestorestate *rows = NULL;
		RefuseContext cxt = {feed, query, failed_any, late_any};
		instr_time	start,
					end;

		if (!kda_query_runs(query))
			continue;
		INSTR_TIME_SET_CURRENT(start);
		batch->scan_from = 0;
		batch->scan_to = batch->nrows;
		if (query->shape == KDA_SHAPE_JOIN)
		{
			for (int s = 0; s < 2 && query->failure == NULL; s++)
				if (query->sides[s]->stream == stream)
				{
					batch->scan_from = 0;
					batch->scan_to = batch->nrows;
					batch->scan_skip = make_mask(feed, query->sides[s], late_any);
					kda_join_run(query, s, refuse_expression, &cxt);
					query->d_late += query->sides[s]->d_late;
					query->sides[s]->d_late = 0;
				}
			query->d_in += batch->nrows;
			continue;
		}
		batch->scan_skip = make_mask(feed, query, late_any);
		if (query->state != KDA_STATE_GROUPS)
			rows = tuplestore_begin_heap(false, false, work_mem);
		kda_query_run(query, rows, refuse_expression, &cxt);
		if (kda_query_passes_on(query))
			mark_refused(batch, late_any, failed_any);
		if (rows)
		{
			if (query->failure == NULL)
				rows = kda_in_order_of_arrival(rows, kda_plan_desc(query->batch_plan));
			if (query->failure == NULL && query->state == KDA_STATE_ROWS)
				kda_kept_append(query->kept, rows);
			else if (query->failure == NULL && query->retime)
			{
				Tuplestorestate *accepted = kda_retime_rows(query, rows, now, refuse_time, &cxt);

				kda_query_emit_rows(query, accepted);
				tuplestore_end(accepted);
			}
			else if (query->failure == NULL)
				kda_query_emit_rows(query, rows);
			tuplestore_end(rows);
		}
		query->d_in += batch->nrows;
		INSTR_TIME_SET_CURRENT(end);
		INSTR_TIME_SUBTRACT(end, start);
		query->d_busy_ms += INSTR_TIME_GET_MILLISEC(end);
	}
	batch->scan_skip = NULL;

	for (int i = 0; i < batch->nrows; i++)
		if (unlikely(late_any[i] == 1))
			add_error(feed, i, "late", "the record came after its window was closed", InvalidOid)->d_late++;
	if (feed->relays)
	{
		mark_refused(batch, late_any, failed_any);
		kda_relay_records(feed);
	}
}

/* Closes what the watermark has passed, writes the rest back. */
static void
settle_queries(KdaFeed *feed, TimestampTz now)
{
	KdaStream  *stream = feed->stream;
	ListCell   *lc;

	foreach(lc, stream->queries)
	{
		KdaQuery   *query = lfirst(lc);
		KdaTime		mark = feed->nslots > 1 ? feed->closing : stream->watermark;
		KdaTime		closed = kda_query_closed_upto(query, mark);

		if (!kda_query_runs(query))
			continue;
		if (query->groups)
		{
			kda_query_write_back(query);
			if (query->failure)
				continue;
		}
		if (query->slot > 0)
		{
			if (query->shape == KDA_SHAPE_WINDOWS && query->first_frontier > query->frontier)
			{
				kda_query_forget_closed(query, query->first_frontier);
				query->frontier = query->forgotten = query->first_frontier;
			}
			continue;
		}
		if (query->shape == KDA_SHAPE_JOIN)
		{
			kda_join_settle(query);
			continue;
		}
		if (query->shape == KDA_SHAPE_OVER)
		{
			kda_over_settle(query);
			if (stream->watermark != KDA_NO_TIME)
				query->frontier = Max(query->frontier, stream->watermark - query->delay_us);
			kda_query_forget_old(query, now);
			continue;
		}
		if (query->shown)
		{
			feed->touched |= kda_shown_settle(query, closed, now);
			feed->tick_at = Min(feed->tick_at, kda_shown_due(query, now));
		}
		else if (query->shape == KDA_SHAPE_WINDOWS)
			kda_query_close_windows(query, closed);
		else if (query->shape == KDA_SHAPE_GROUPS && query->is_pump && query->groups)
			kda_query_emit_changed(query);
		query->frontier = Max(query->frontier, closed);
		query->forgotten = Max(query->forgotten, kda_query_final_upto(query, mark));
		kda_query_forget_old(query, now);
	}
}

/*
 * Nothing that leaves from now on is earlier than this.  Several slots: what is
 * before the watermark of the last commit has been written by transactions
 * that are older than this one, so readers find it before the new mark; of
 * windows, those that may close have left.
 */
static KdaTime
passes(KdaQuery *query)
{
	KdaFeed    *feed = kda_feed_of(query->stream);

	return feed->nslots == 1 ? feed->stream->watermark :
		query->shape == KDA_SHAPE_WINDOWS ? feed->closing : feed->saved_watermark;
}

/* The watermarks of streams that pumps write follow those of their sources. */
static void
pass_watermark_on(KdaFeed *feed, TimestampTz now)
{
	KdaTime		least = KDA_END_TIME;
	ListCell   *lc;
	KdaInboxWriter *writer;

	if (feed->relay_of)
		least = kda_feed_runs(feed) ? kda_relay_watermark(feed) : KDA_NO_TIME;
	else if (feed->writers == NIL)
		return;
	foreach(lc, feed->writers)
	{
		KdaQuery   *query = lfirst(lc);

		if (kda_query_runs(query))
			least = Min(least, query->shape == KDA_SHAPE_JOIN ? kda_join_watermark(query) :
						query->retime ? kda_retime_watermark(query, now) :
						query->shape == KDA_SHAPE_OVER && query->stream->watermark != KDA_NO_TIME ?
						query->stream->watermark - query->delay_us :
						kda_query_final_upto(query, passes(query)));
	}
	if (least == KDA_END_TIME || least == KDA_NO_TIME ||
		(feed->derived_sent != KDA_NO_TIME && least <= feed->derived_sent))
		return;
	writer = kda_inbox_begin(feed->stream->relid);
	kda_inbox_put_control(writer, KDA_CONTROL_WATERMARK, least);
	kda_inbox_end(writer);
	feed->derived_sent = least;
	feed->touched = true;
	if (feed->relay_of)
		feed->relay_of->touched = true; /* saved with it */
	feed->more = true;
}

/* The names of the source's shards, by its own index. */
static char **
source_shard_names(KdaStream *stream)
{
	char	  **names = palloc(sizeof(char *) * Max(stream->source->nshards, 1));

	for (int i = 0; i < stream->source->nshards; i++)
		names[i] = stream->source->shards[i]->name;
	return names;
}

/*---- all of it */

/* Storage that nobody needs any more makes room. */
static void
rotate(KdaFeed *feed, TimestampTz now)
{
	bool		again = kda_stream_rotate(feed->stream, now, feed->stream->queries == NIL ? NULL : &feed->next_position);

	feed->rotate_at = now + (again ? ROTATE_SOON : ROTATE_EVERY);
	if (again)
		feed->tick_at = Min(feed->tick_at, feed->rotate_at);
}

/* A database stream without queries: rows that nobody waits for go by age and size. */
static void
keep_unread(KdaFeed *feed, TimestampTz now)
{
	KdaStream  *stream = feed->stream;

	if (stream->options->server_type != NULL)
		return;
	if (now >= feed->rotate_at)
		rotate(feed, now);
	if (kda_segment_bytes(stream->inbox) > 0 || kda_segment_bytes(stream->inbox2) > 0)
		feed->tick_at = feed->rotate_at;
}

void
kda_run_feed(KdaFeed *feed, TimestampTz now)
{
	KdaStream  *stream = feed->stream;
	KdaTime		advance;
	bool		moved = false;
	KdaInboxPlace place;
	instr_time	start,
				end;
	ListCell   *lc;

	feed->more = false;
	feed->held = false;
	feed->tick_at = KDA_END_TIME;
	if (stream->failure || stream->paused)
		return;
	if (stream->queries == NIL)
		keep_unread(feed, now);
	if (!kda_feed_runs(feed))
		return;
	if (feed->blocked)
	{
		feed->held = true;
		feed->closing = feed->closed;
		feed->tick_at = now + BLOCKED_LOOK;
		return;
	}
	if (feed->stands && !feed->may_reset)
	{
		feed->held = feed->quiet = true;
		/* what may close by now has not */
		feed->closing = feed->closed;
		kda_reset_look(feed);
		return;
	}
	kda_current_feed = feed;
	kda_slots_begin(feed);
	if (kda_reset_at_once(feed))
	{
		kda_current_feed = NULL;
		return;
	}
	feed->held = kda_relay_holds(feed) || feed->lacks_schemas;
	if (stream->relay)
		kda_relay_see_shards(feed);
	foreach(lc, stream->queries)
		join_query(feed, lfirst(lc));

	if (feed->advanced && stream->options->server_type && stream->slot == 0)
	{
		advance = kda_take_advances(stream);
		if (advance > stream->advanced)
			stream->advanced = advance;
	}
	feed->advanced = false;

	KDA_FAULT("read");
	stage_read(feed, &place);
	KDA_FAULT("decoded");
	kda_reset_after_read(feed, &place);
	kda_watermark_apply(stream, stream->batch, 0, now, refuse_ahead, feed);
	fill_rowtime(stream);
	KDA_FAULT("watermark");
	if (OidIsValid(stream->ring) && stream->raw->n > 0 && !feed->held)
		kda_ring_append(stream, stream->raw, source_shard_names(stream));
	KDA_FAULT("ring");
	run_queries(feed, now);
	KDA_FAULT("queries");

	/* idle shards and the wall clock come after the rows that were there */
	if (stream->relay)
		feed->tick_at = KDA_END_TIME;	/* the stream does that */
	else if (feed->held && stream->raw->n > 0)
		feed->tick_at = now + (int64) kda_worker->interval_ms * 1000;	/* its shards are not quiet */
	else
		feed->tick_at = kda_watermark_tick(stream, now, &moved);
	if (stream->slot > 0)
		moved |= stream->watermark != feed->accepted;
	else if (kda_watermark_update(stream))
	{
		bool		again;

		moved = true;
		/* the first mark that there is, when all shards are idle already: it goes on with the wall clock */
		if (feed->tick_at == KDA_END_TIME)
			feed->tick_at = kda_watermark_tick(stream, now, &again);
	}

	INSTR_TIME_SET_CURRENT(start);
	settle_queries(feed, now);
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	settle_time += INSTR_TIME_GET_MICROSEC(end);
	KDA_FAULT("settled");

	feed->touched |= moved || stream->batch->nrows > 0 || stream->d_records > 0 ||
		stream->watermark != feed->saved_watermark || stream->advanced != feed->saved_advanced ||
		feed->next_position.snapshot1 != feed->position.snapshot1 ||
		feed->next_position.snapshot2 != feed->position.snapshot2 ||
		strcmp(feed->last_error, feed->stored_error) != 0;
	for (int s = 0; s < stream->nshards; s++)
		feed->touched |= stream->shards[s].dirty;
	feed->touched |= feed->nslots > 1 && stream->slot == 0 && feed->closing != feed->closed;
	foreach(lc, stream->queries)
		feed->touched |= stream->slot == 0 && ((KdaQuery *) lfirst(lc))->frontier != ((KdaQuery *) lfirst(lc))->saved_frontier;
	if (stream->slot > 0)
		feed->touched |= TransactionIdIsValid(GetTopTransactionIdIfAny());
	else if (now >= feed->rotate_at && (feed->touched || feed->rotate_at != 0))
		rotate(feed, now);
	if (stream->relay)
		kda_relay_count(feed);
	kda_reset_look(feed);
	kda_current_feed = NULL;
}

/*
 * From the commit on until memory has followed, going back to the last commit
 * would apply the batch twice.
 */
static void
at_xact_event(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && kda_worker->began)
		kda_worker->committed = true;
}

bool
kda_transaction(KdaWorker *worker)
{
	TimestampTz now = kda_clock_now();
	ListCell   *lc,
			   *lq;
	bool		more = false;
	static bool registered = false;
	instr_time	start,
				end;

	if (!registered)
	{
		RegisterXactCallback(at_xact_event, NULL);
		after_commit = AllocSetContextCreate(worker->context, "kda positions", ALLOCSET_SMALL_SIZES);
	}
	registered = true;
	MemoryContextReset(after_commit);
	worker->began = worker->committed = false;
	worker->settle_us = -1;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, "processing a batch");
	if (!kda_locks_take(worker))
	{
		CommitTransactionCommand();
		return true;
	}
	if (kda_slots_arrange(worker) || !kda_slots_look(worker))
	{
		CommitTransactionCommand();
		worker->reload = true;
		return true;
	}
	worker->began = true;
	settle_time = 0;
	kda_error_stream_begin();
	kda_current_stream = current_stream;
	kda_running_batch = running_batch;

	foreach(lc, worker->feeds)
		((KdaFeed *) lfirst(lc))->next_position = ((KdaFeed *) lfirst(lc))->position;
	kda_resets_begin(worker);
	kda_backpressure_look(worker, now);
	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);

		/* a snapshot of its own each, so that it sees what the stages before it have written */
		PushActiveSnapshot(GetLatestSnapshot());
		kda_run_feed(feed, now);
		PopActiveSnapshot();
		CommandCounterIncrement();
	}
	INSTR_TIME_SET_CURRENT(start);
	PushActiveSnapshot(GetLatestSnapshot());
	foreach(lc, worker->feeds)
		pass_watermark_on(lfirst(lc), now);
	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);
		KDA_FAULT("save");
		if (feed->touched)
			kda_save_feed(feed, now);
		KDA_FAULT("saved");
		foreach(lq, feed->stream->queries)
		{
			KdaQuery   *query = lfirst(lq);

			if (query->failed_now)
			{
				kda_fail_query(query, query->failure);
				query->failed_now = false;
			}
			if (feed->touched && kda_query_runs(query) && !query->saved)
			{
				kda_save_query(query, now);
				query->saved = true;	/* a join stands in two lists */
			}
			if (query->target_is_stream && query->d_out > 0)
			{
				KdaFeed    *target = kda_feed_by_relid(query->target_rel);

				if (target)
					target->more = true;
			}
		}
	}
	kda_error_stream_settle(now);
	if (worker->slot == 0)
		kda_growth_look(worker, now);
	PopActiveSnapshot();
	KDA_FAULT("commit");
	CommitTransactionCommand();
	KDA_FAULT("committed");
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	worker->settle_us = settle_time + INSTR_TIME_GET_MICROSEC(end);
	pgstat_report_activity(STATE_IDLE, NULL);
	pgstat_report_stat(false);

	/* What was done is permanent: memory follows. */
	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);

		kda_relay_at_commit(feed);
		if (feed->stream->source && feed->stream->raw->n > 0 && !feed->held)
			feed->stream->source->ops->release(feed->stream->source, feed->stream->raw);
		strlcpy(feed->stored_error, feed->last_error, sizeof(feed->stored_error));
		KDA_FAULT("remember");
		kda_slots_after_commit(feed, feed->saved_watermark, feed->touched);
		if (feed->stream->slot > 0 && feed->touched)
			feed->accepted = feed->stream->watermark;
		kda_feed_remember(feed);
		feed->drained = feed->relay_of && kda_feed_runs(feed) && !feed->more;
		more |= feed->more && kda_feed_runs(feed);
		foreach(lq, feed->stream->queries)
		{
			KdaQuery   *query = lfirst(lq);

			if (query->groups)
				kda_groups_at_commit(query->groups);
			if (query->retime)
				kda_retime_at_commit(query->retime);
			query->saved_frontier = query->frontier;
			query->saved_reset_sides = query->reset_sides;
			query->saved_forgotten = query->forgotten;
			query->saved_emitted_at = query->emitted_at;
			query->saved_complete_from = query->complete_from;
			query->saved_joined = query->joined;
			if (query->careful > 0)
				query->careful--;
			query->d_in = query->d_late = query->d_out = 0;
			query->d_busy_ms = 0;
			query->saved = false;
		}
	}
	worker->began = worker->committed = false;
	return more;
}
