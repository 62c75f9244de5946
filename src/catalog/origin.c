/*-------------------------------------------------------------------------
 *
 * origin.c
 *	  Telling a restored or copied database from the original: its streams of
 *	  outside servers must not read until somebody says so.
 *
 * Each stream's row says in which system and database it was written.  A row
 * that names another one has come by a dump or as a copy of the database.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/rows.h"
#include "catalog/dependency.h"
#include "catalog/objectaddress.h"
#include "catalog/options.h"
#include "catalog/pg_class.h"
#include "catalog/store_query.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "stream/inbox.h"
#include "stream/outbox.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

char *
kda_origin(void)
{
	return psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
}

static Oid
oid_at(uint64 row, int column)
{
	bool		isnull;

	return DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull));
}

/* Storage goes with its stream or query: pg_dump does not keep that. */
static void
record_dependencies(void)
{
	static const char *const columns[][2] = {
		{"stream", "inbox"}, {"stream", "inbox2"}, {"stream", "ring"}, {"stream", "ring2"},
		{"query", "batch"}, {"query", "final"}, {"query", "open"}, {"query", "closed"}, {"query", "shown"},
		{"query", "batch2"}, {"query", "open2"}, {"output", "box"}, {"output", "box2"}, {"output", "pump"}
	};

	for (int c = 0; c < lengthof(columns); c++)
	{
		SPI_execute(psprintf("SELECT t.%s::oid, t.rel::oid FROM kda_storage.%s t "
							 "JOIN pg_catalog.pg_class a ON a.oid = t.%s JOIN pg_catalog.pg_class b ON b.oid = t.rel "
							 "WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass "
							 "AND d.objid = a.oid AND d.refobjid = b.oid AND d.deptype = 'i')",
							 columns[c][1], columns[c][0], columns[c][1]), true, 0);
		for (uint64 i = 0; i < SPI_processed; i++)
			kda_depend(oid_at(i, 1), oid_at(i, 2), DEPENDENCY_INTERNAL);
	}
	/* parts go with the query that they were made for */
	SPI_execute("SELECT p.rel::oid, q.rel::oid FROM (SELECT rel, part_of FROM kda_storage.stream UNION ALL "
				"SELECT rel, part_of FROM kda_storage.query) p JOIN kda_storage.query q ON q.query_id = p.part_of "
				"JOIN pg_catalog.pg_class a ON a.oid = p.rel JOIN pg_catalog.pg_class b ON b.oid = q.rel "
				"WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass "
				"AND d.objid = a.oid AND d.refobjid = b.oid AND d.deptype = 'i')", true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
		kda_depend(oid_at(i, 1), oid_at(i, 2), DEPENDENCY_INTERNAL);
	SPI_execute("SELECT c.oid, q.rel::oid FROM kda_storage.query q JOIN pg_catalog.pg_class c "
				"ON c.relname IN ('empty_' || q.query_id, 'merged_' || q.query_id) AND c.relnamespace = 'kda_storage'::regnamespace "
				"WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass "
				"AND d.objid = c.oid AND d.refobjid = q.rel AND d.deptype = 'i')", true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
		kda_depend(oid_at(i, 1), oid_at(i, 2), DEPENDENCY_INTERNAL);
	SPI_execute("SELECT q.rel::oid FROM kda_storage.query q JOIN pg_catalog.pg_rewrite r ON r.ev_class = q.rel "
				"WHERE q.target IS NOT NULL AND r.rulename = 'kda_insert' "
				"AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass "
				"AND d.objid = r.oid AND d.refobjid = q.rel AND d.deptype = 'i')", true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
		kda_tie_insert(oid_at(i, 1));
	SPI_execute("SELECT q.rel::oid, q.target::oid FROM kda_storage.query q JOIN pg_catalog.pg_class c ON c.oid = q.target "
				"WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass "
				"AND d.objid = q.rel AND d.refobjid = q.target)", true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
		kda_depend(oid_at(i, 1), oid_at(i, 2), DEPENDENCY_NORMAL);
}

/* Are there queries whose parts do not go with them?  Rows of a restored dump come in any order. */
static bool
misses_dependencies(void)
{
	SPI_execute("SELECT FROM kda_storage.query q JOIN pg_catalog.pg_class c ON c.oid = q.batch JOIN pg_catalog.pg_class v ON v.oid = q.rel "
				"WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass "
				"AND d.objid = q.batch AND d.refobjid = q.rel AND d.deptype = 'i') LIMIT 1", true, 1);
	return SPI_processed > 0;
}

/*
 * A database stream's rows are stamped anew, which needs them all: pg_restore
 * makes indexes when all data is there, so that tells.
 */
#define RESTORED	"(s.inbox IS NULL OR (EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = s.inbox) " \
	"AND EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = s.inbox2)))"

#define RESTORED_OUTBOX	"(EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = o.box) " \
	"AND EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = o.box2))"

/*
 * The same of outputs: they are paused.  Rows in their outboxes were meant for
 * the outside by the original, which may have delivered them since.
 */
static int
adopt_outputs(const char *mine, bool *remain)
{
	SPITupleTable *table;
	uint64		n;
	int			paused = 0;

	SPI_execute(psprintf("SELECT FROM kda_storage.output o WHERE o.origin <> %s AND NOT " RESTORED_OUTBOX, mine), true, 1);
	*remain |= SPI_processed > 0;
	SPI_execute(psprintf("SELECT o.output_id, o.box::oid, o.box2::oid FROM kda_storage.output o JOIN pg_catalog.pg_class c ON c.oid = o.rel "
						 "WHERE o.origin <> %s AND " RESTORED_OUTBOX, mine), true, 0);
	table = SPI_tuptable;
	n = SPI_processed;
	if (n == 0)
		return 0;
	SPI_execute("LOCK TABLE kda_storage.stream IN SHARE ROW EXCLUSIVE MODE", false, 0);
	record_dependencies();
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		int32		id = DatumGetInt32(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull));

		SPI_execute(psprintf("UPDATE kda_storage.output SET origin = %s, paused = true WHERE output_id = %d AND origin <> %s", mine, id, mine), false, 0);
		if (SPI_processed == 0)
			continue;
		paused++;
		kda_outbox_restamp(id, DatumGetObjectId(SPI_getbinval(table->vals[i], table->tupdesc, 2, &isnull)),
						   DatumGetObjectId(SPI_getbinval(table->vals[i], table->tupdesc, 3, &isnull)));
	}
	return paused;
}

bool
kda_adopt_strangers(void)
{
	KdaOwnerScope scope;
	int			outputs;
	bool		remain;
	char	   *mine = quote_literal_cstr(kda_origin());
	SPITupleTable *table;
	uint64		n;
	int			paused = 0;

	if (!OidIsValid(kda_storage_relation("query_progress")))
		return false;
	kda_owner_begin(&scope);
	SPI_execute(psprintf("SELECT FROM kda_storage.stream s WHERE s.origin <> %s AND NOT " RESTORED, mine), true, 1);
	remain = SPI_processed > 0;
	SPI_execute(psprintf("SELECT s.stream_id, s.rel::oid FROM kda_storage.stream s JOIN pg_catalog.pg_class c ON c.oid = s.rel "
						 "WHERE s.origin <> %s AND " RESTORED, mine), true, 0);
	table = SPI_tuptable;
	n = SPI_processed;
	if (n > 0)
	{
		/* one process does it, the others see it done */
		SPI_execute("LOCK TABLE kda_storage.stream IN SHARE ROW EXCLUSIVE MODE", false, 0);
		record_dependencies();
		SPI_execute("UPDATE kda_storage.forgotten SET bytes = (SELECT coalesce(pg_catalog.sum(bytes), 0) FROM kda_storage.error)", false, 0);
	}
	else if (misses_dependencies())
	{
		SPI_execute("LOCK TABLE kda_storage.stream IN SHARE ROW EXCLUSIVE MODE", false, 0);
		record_dependencies();
	}
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		int32		id = DatumGetInt32(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull));
		Oid			rel = DatumGetObjectId(SPI_getbinval(table->vals[i], table->tupdesc, 2, &isnull));
		bool		outside = kda_stream_options_get(rel)->server_type != NULL;

		SPI_execute(psprintf("UPDATE kda_storage.stream SET origin = %s, paused = paused OR %s "
							 "WHERE stream_id = %d AND origin <> %s",
							 mine, outside ? "true" : "false", id, mine), false, 0);
		if (SPI_processed == 0)
			continue;
		/* generations are numbers of another server's transactions: the shards are divided anew */
		SPI_execute(psprintf("DELETE FROM kda_storage.slot WHERE stream_id = %d", id), false, 0);
		if (outside)
			paused++;
		/* of an outside stream: if its slots have handed records on */
		kda_inbox_restamp(id, rel);
	}
	outputs = adopt_outputs(mine, &remain);
	kda_owner_end(&scope);
	if (n > 0 || outputs > 0)
		kda_catalog_changed();
	if (outputs > 0)
		ereport(LOG,
				(errmsg("database \"%s\" is a restored or copied one: its %d outputs are paused",
						get_database_name(MyDatabaseId), outputs),
				 errhint("ALTER OUTPUT ... RESUME, ALTER STREAM ... RESUME, or SELECT kda.resume_all(), once no other database writes there.")));
	if (paused > 0)
		ereport(LOG,
				(errmsg("database \"%s\" is a restored or copied one: its %d streams of outside servers are paused",
						get_database_name(MyDatabaseId), paused),
				 errhint("ALTER STREAM ... RESUME, or SELECT kda.resume_all(), once no other database reads them.")));
	return remain;
}
