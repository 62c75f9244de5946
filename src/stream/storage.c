/*-------------------------------------------------------------------------
 *
 * storage.c
 *	  Storage tables of a stream.  Each kind has two segments: one is written,
 *	  the other waits until nobody needs its rows and is then truncated, so
 *	  that nothing is deleted row by row.
 *
 * Made by CREATE STREAM, or on first use when somebody wrote CREATE FOREIGN
 * TABLE (so that a restored dump finds its own).  They belong to the
 * extension's owner and go with the stream.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/rows.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "runtime/runtime.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "stream/inbox.h"
#include "stream/ring.h"
#include "stream/stream.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define MIN_ROTATE_US	(10 * USECS_PER_SEC)

static Oid
make_segment(Oid relid, const KdaStreamOptions *options, bool database, int32 id, const char *suffix)
{
	char	   *name = psprintf("%s_%d%s", database ? "inbox" : "ring", id, suffix);
	char	   *qualified = psprintf(KDA_STORAGE_SCHEMA ".%s", name);
	ObjectAddress self,
				parent;
	Oid			oid;

	if (database)
		kda_run_as_owner(kda_inbox_ddl(relid, qualified, options->durable));
	else
		kda_run_as_owner(kda_ring_ddl(qualified));
	CommandCounterIncrement();
	oid = kda_storage_relation(name);
	ObjectAddressSet(self, RelationRelationId, oid);
	ObjectAddressSet(parent, RelationRelationId, relid);
	recordDependencyOn(&self, &parent, DEPENDENCY_INTERNAL);
	return oid;
}

/* To a stream that has none of that kind. */
static void
add_segments(Oid relid, const KdaStreamOptions *options, bool database, int32 id)
{
	const char *kind = database ? "inbox" : "ring";

	kda_run_as_owner(psprintf("UPDATE kda_storage.stream SET %s = %u::pg_catalog.regclass, %s2 = %u::pg_catalog.regclass WHERE stream_id = %d",
							  kind, make_segment(relid, options, database, id, "a"),
							  kind, make_segment(relid, options, database, id, "b"), id));
}

int32
kda_stream_ensure_storage(Oid relid)
{
	KdaStreamIds ids;
	KdaStreamOptions *options;

	if (kda_stream_ids(relid, &ids))
		return ids.id;
	/* two sessions may use it for the first time at once */
	LockRelationOid(kda_storage_relation("stream"), ShareRowExclusiveLock);
	CommandCounterIncrement();
	if (kda_stream_ids(relid, &ids))
		return ids.id;

	options = kda_stream_options_get(relid);
	ids.id = kda_next_id();
	kda_run_as_owner(psprintf("INSERT INTO kda_storage.stream (stream_id, rel, origin) VALUES (%d, %u::pg_catalog.regclass, %s); "
							  "INSERT INTO kda_storage.stream_progress (stream_id) VALUES (%d)",
							  ids.id, relid, quote_literal_cstr(kda_origin()), ids.id));
	if (options->server_type == NULL || options->retention_us > 0)
		add_segments(relid, options, options->server_type == NULL, ids.id);
	CommandCounterIncrement();
	kda_catalog_changed();
	return ids.id;
}

void
kda_stream_ensure_relay(Oid relid)
{
	int32		id = kda_stream_ensure_storage(relid);
	KdaStreamIds ids;

	LockRelationOid(kda_storage_relation("stream"), ShareRowExclusiveLock);
	CommandCounterIncrement();
	if (!kda_stream_ids(relid, &ids) || OidIsValid(ids.inbox))
		return;
	add_segments(relid, kda_stream_options_get(relid), true, id);
	CommandCounterIncrement();
	kda_catalog_changed();
}

void
kda_stream_sync_storage(Oid relid)
{
	KdaStreamIds ids;
	KdaStreamOptions *options = kda_stream_options_get(relid);

	/* of a restored copy, the names of the columns are put right first */
	kda_adopt_strangers();
	CommandCounterIncrement();
	if (!kda_stream_ids(relid, &ids))
		return;
	if (OidIsValid(ids.inbox))
	{
		Oid			segments[2] = {ids.inbox, ids.inbox2};

		for (int i = 0; i < 2; i++)
		{
			char	   *sql = kda_inbox_sync_ddl(relid, segments[i]);

			if (sql)
				kda_run_as_owner(sql);
			if ((get_rel_persistence(segments[i]) == RELPERSISTENCE_PERMANENT) != options->durable)
				kda_run_as_owner(psprintf("ALTER TABLE " KDA_STORAGE_SCHEMA ".%s SET %s",
										  quote_identifier(get_rel_name(segments[i])),
										  options->durable ? "LOGGED" : "UNLOGGED"));
		}
	}
	if (!OidIsValid(ids.ring) && options->retention_us > 0 && options->server_type != NULL)
		add_segments(relid, options, false, ids.id);
	kda_catalog_changed();
}

/*---- taking turns */

int64
kda_segment_bytes(Oid segment)
{
	Relation	rel = table_open(segment, AccessShareLock);
	int64		n = (int64) RelationGetNumberOfBlocks(rel) * BLCKSZ;

	if (OidIsValid(rel->rd_rel->reltoastrelid))
	{
		Relation	toast = table_open(rel->rd_rel->reltoastrelid, AccessShareLock);

		n += (int64) RelationGetNumberOfBlocks(toast) * BLCKSZ;
		table_close(toast, NoLock);
	}
	table_close(rel, NoLock);
	return n;
}

static void
run(const char *sql)
{
	SPI_connect();
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not run: %s", sql);
	SPI_finish();
}

bool
kda_stream_rotate(KdaStream *stream, TimestampTz now, const KdaInboxPosition *position)
{
	bool		database = stream->options->server_type == NULL;
	Oid			current = database ? stream->inbox : stream->ring;
	Oid			other = database ? stream->inbox2 : stream->ring2;
	int64		retention = stream->options->retention_us;
	const char *kind = database ? "inbox" : "ring";
	bool		full;

	if (!OidIsValid(current) || !OidIsValid(other))
		return false;
	full = kda_segment_bytes(current) >= (int64) kda_buffer_size_kb * 512;

	if (kda_segment_bytes(other) > 0)
	{
		Relation	rel;

		/*
		 * What has still to be read stays.  The rest stays for the retention
		 * (its rows are younger than when they changed places), but within the
		 * size.
		 */
		if ((database && position && !kda_inbox_consumed(stream, other, position)) ||
			(now < stream->segment_since + retention && !full))
		{
			stream->retired_by = InvalidTransactionId;
			return full;
		}
		if (database)
		{
			/*
			 * TRUNCATE is not MVCC-safe: whoever still has an older snapshot
			 * would find the rows gone.
			 */
			if (!TransactionIdIsValid(stream->retired_by))
			{
				stream->retired_by = GetTopTransactionId();
				return full;
			}
			rel = table_open(other, AccessShareLock);
			if (!TransactionIdPrecedes(stream->retired_by, GetOldestNonRemovableTransactionId(rel)))
			{
				table_close(rel, AccessShareLock);
				return full;
			}
			table_close(rel, AccessShareLock);
		}
		if (!ConditionalLockRelationOid(other, AccessExclusiveLock))
			return full;
		if (database && position)
		{
			/* somebody who knew of it before they changed places may have written into it last */
			bool		consumed;

			PushActiveSnapshot(GetLatestSnapshot());
			consumed = kda_inbox_consumed(stream, other, position);
			PopActiveSnapshot();
			if (!consumed)
				return full;
		}
		run(psprintf("TRUNCATE " KDA_STORAGE_SCHEMA ".%s", quote_identifier(get_rel_name(other))));
		stream->retired_by = InvalidTransactionId;
		return full;
	}

	/* The other one is empty: is it time to change places? */
	if (kda_segment_bytes(current) == 0)
		return false;
	if (now < stream->segment_since + Max(retention, MIN_ROTATE_US) && !full)
		return false;
	/* the time is that of a source stream's ring */
	run(psprintf("UPDATE kda_storage.stream SET %s = %u::pg_catalog.regclass, %s2 = %u::pg_catalog.regclass%s WHERE stream_id = %d",
				 kind, other, kind, current, stream->relay ? "" : ", segment_since = pg_catalog.clock_timestamp()", stream->id));
	if (database)
	{
		stream->inbox = other;
		stream->inbox2 = current;
	}
	else
	{
		stream->ring = other;
		stream->ring2 = current;
	}
	stream->segment_since = now;
	stream->retired_by = InvalidTransactionId;
	return full;
}
