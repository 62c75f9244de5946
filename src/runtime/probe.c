/*-------------------------------------------------------------------------
 *
 * probe.c
 *	  A short-lived process that looks into one database: does it have the
 *	  extension, and which workers do its streams ask for?
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/rows.h"
#include "catalog/options.h"
#include "executor/spi.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "runtime/runtime.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

int
kda_workers_wanted(KdaWanted **wanted)
{
	MemoryContext context = CurrentMemoryContext;
	KdaOwnerScope scope;
	int			n = 0;

	*wanted = NULL;
	if (!kda_extension_exists() || !OidIsValid(kda_storage_relation("query_progress")))
		return 0;
	kda_owner_begin(&scope);
	SPI_execute("SELECT s.rel FROM kda_storage.stream s JOIN pg_catalog.pg_foreign_table t "
				"ON t.ftrelid = s.rel ORDER BY s.stream_id", true, 0);
	*wanted = MemoryContextAlloc(context, sizeof(KdaWanted) * (SPI_processed + 2));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Oid			rel = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		char	   *name = kda_stream_worker_name(rel);
		int			processes = kda_stream_parallelism(rel);
		int			j = 0;

		while (j < n && strcmp((*wanted)[j].name, name) != 0)
			j++;
		if (j == n)
			(*wanted)[n++] = (KdaWanted) {MemoryContextStrdup(context, name), processes, false};
		else
			(*wanted)[j].processes = Max((*wanted)[j].processes, processes);
	}
	SPI_execute("SELECT FROM kda_storage.output o JOIN pg_catalog.pg_foreign_table t ON t.ftrelid = o.rel LIMIT 1", true, 1);
	if (SPI_processed > 0)
		(*wanted)[n++] = (KdaWanted) {MemoryContextStrdup(context, "deliver"), 1, true};
	kda_owner_end(&scope);
	return n;
}

void
kda_probe_main(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);
	KdaWanted  *wanted;
	int			n;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	n = kda_workers_wanted(&wanted);
	if (kda_slots_want(database, n, wanted) > 0)
		ereport(WARNING,
				(errmsg("some workers of kda_stream cannot be started: all %d slots are in use", kda_max_workers),
				 errhint("Raise kda_stream.max_workers and restart the server.")));
	PopActiveSnapshot();
	CommitTransactionCommand();
	proc_exit(0);
}
