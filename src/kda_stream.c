/*-------------------------------------------------------------------------
 *
 * kda_stream.c
 *	  Module magic and _PG_init: calls each room's init, nothing else.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/rows.h"
#include "connector/connector.h"
#include "declare/ddl.h"
#include "dialect/dialect.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "query/query.h"
#include "runtime/runtime.h"

PG_MODULE_MAGIC;

bool		kda_in_worker = false;

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("kda_stream must be loaded via shared_preload_libraries"),
				 errhint("Add kda_stream to shared_preload_libraries in postgresql.conf and restart the server.")));

	kda_guc_init();
	kda_connector_init();
	kda_shmem_init();
	kda_launcher_init();
	kda_query_init();
	kda_declare_init();
	kda_dialect_init();
}
