/*-------------------------------------------------------------------------
 *
 * origin.c
 *	  Is this database still the one that wrote kda_storage, or a restored or
 *	  copied one?  In a copy the streams of outside servers are paused, because
 *	  two databases would read and write the same outside systems; streams of
 *	  the database begin their positions anew, since transaction numbers mean
 *	  something else here.
 *
 * Called once by a worker when it starts.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/ddl.h"
#include "catalog/dependency.h"
#include "catalog/options.h"
#include "catalog/pg_class.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "runtime/runtime.h"
#include "stream/inbox.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

/* Storage of a query goes with its view: pg_dump does not keep that. */
static void
record_dependencies(void)
{
	static const char *const columns[] = {"batch", "final", "open", "closed"};

	for (int c = 0; c < lengthof(columns); c++)
	{
		SPI_execute(psprintf("SELECT rel::oid, %s::oid FROM kda_storage.query WHERE %s IS NOT NULL "
							 "AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = %s::oid "
							 "AND d.deptype = 'i')",
							 columns[c], columns[c], columns[c]), true, 0);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			bool		isnull;
			ObjectAddress self,
						parent;

			ObjectAddressSet(parent, RelationRelationId,
							 DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)));
			ObjectAddressSet(self, RelationRelationId,
							 DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull)));
			recordDependencyOn(&self, &parent, DEPENDENCY_INTERNAL);
		}
	}
}

void
kda_adopt_origin(void)
{
	char		mine[64];
	char	   *theirs = NULL;
	bool		same = false;
	int			paused = 0;

	snprintf(mine, sizeof(mine), UINT64_FORMAT, GetSystemIdentifier());
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (!kda_extension_exists())
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		return;
	}
	SPI_connect();
	/* one worker of a database does this, the others see it done */
	SPI_execute("LOCK TABLE kda_storage.origin IN SHARE ROW EXCLUSIVE MODE", false, 0);
	SPI_execute("SELECT system_identifier, database_oid FROM kda_storage.origin", false, 1);
	if (SPI_processed > 0)
	{
		bool		isnull;

		theirs = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		same = strcmp(theirs, mine) == 0 &&
			DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull)) == MyDatabaseId;
	}
	if (!same)
	{
		SPI_execute("DELETE FROM kda_storage.origin", false, 0);
		SPI_execute(psprintf("INSERT INTO kda_storage.origin (system_identifier, database_oid) VALUES (%s, %u)",
							 quote_literal_cstr(mine), MyDatabaseId), false, 0);
	}
	if (!same && theirs != NULL)
	{
		SPITupleTable *table;
		uint64		n;

		record_dependencies();
		SPI_execute("SELECT stream_id, rel::oid FROM kda_storage.stream", true, 0);
		table = SPI_tuptable;
		n = SPI_processed;
		for (uint64 i = 0; i < n; i++)
		{
			bool		isnull;
			int32		id = DatumGetInt32(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull));
			Oid			rel = DatumGetObjectId(SPI_getbinval(table->vals[i], table->tupdesc, 2, &isnull));

			if (get_rel_name(rel) == NULL)
				continue;
			if (kda_stream_options_get(rel)->server_type != NULL)
			{
				SPI_execute(psprintf("UPDATE kda_storage.stream SET paused = true WHERE stream_id = %d", id), false, 0);
				paused++;
			}
			else
				kda_inbox_restamp(id, rel);
		}
		if (paused > 0)
			ereport(WARNING,
					(errmsg("database \"%s\" is a restored or copied one: its %d streams of outside servers are paused",
							get_database_name(MyDatabaseId), paused),
					 errhint("ALTER STREAM … RESUME, or SELECT kda.resume_all(), once no other database reads them.")));
	}
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
}
