/*-------------------------------------------------------------------------
 *
 * growth.c
 *	  Notices that open tables grow because somebody's old snapshot keeps the
 *	  dead versions of their rows alive: the commit interval stretches (each
 *	  commit leaves a dead version of every group that it changed) and
 *	  kda.workers names who holds the snapshot.
 *
 * In the worker's transaction, every few seconds.  A table grows when it has
 * become larger since the last look and has several times the blocks for each
 * group that it once needed.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/table.h"
#include "access/transam.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "runtime/worker.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#define LOOK_EVERY		(2 * USECS_PER_SEC)
#define SMALL_BLOCKS	128		/* tables of a megabyte are nobody's trouble */
#define TIMES_LARGER	3

static bool
grows(KdaQuery *query)
{
	Relation	rel = table_open(query->open_rel, AccessShareLock);
	int64		blocks = RelationGetNumberOfBlocks(rel);
	int64		had = query->had_blocks;
	int64		ngroups,
				nwindows,
				bytes;
	double		each;

	table_close(rel, NoLock);
	kda_groups_stats(query->groups, &ngroups, &nwindows, &bytes);
	query->had_blocks = blocks;
	each = (double) blocks / Max(ngroups, 1);
	if (ngroups > 0 && (query->blocks_per_group == 0 || each < query->blocks_per_group))
		query->blocks_per_group = each;
	return ngroups > 0 && had > 0 && blocks > had && blocks > SMALL_BLOCKS &&
		blocks > TIMES_LARGER * query->blocks_per_group * Max(ngroups, 1);
}

/* Whose snapshot is older than that transaction?  Palloc'd; NULL: nobody's. */
static char *
snapshot_holder(TransactionId before)
{
	char	   *who = NULL;

	SPI_connect();
	SPI_execute(psprintf("SELECT who FROM ("
						 "SELECT pg_catalog.format('session %%s (user %%s, application \"%%s\"), in a transaction since %%s', "
						 "pid, usename, application_name, xact_start) AS who, pg_catalog.age(backend_xmin) AS age "
						 "FROM pg_catalog.pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() "
						 "AND (datid = %u OR backend_type = 'walsender') "
						 "UNION ALL SELECT pg_catalog.format('prepared transaction %%L', gid), pg_catalog.age(transaction) "
						 "FROM pg_catalog.pg_prepared_xacts "
						 "UNION ALL SELECT pg_catalog.format('replication slot %%s', slot_name), pg_catalog.age(xmin) "
						 "FROM pg_catalog.pg_replication_slots WHERE xmin IS NOT NULL) h "
						 "WHERE age > %d ORDER BY age DESC LIMIT 1",
						 MyDatabaseId, (int32) (ReadNextTransactionId() - before)), true, 1);
	if (SPI_processed > 0)
		who = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (who)
	{
		char	   *copy = SPI_palloc(strlen(who) + 1);

		strcpy(copy, who);
		who = copy;
	}
	SPI_finish();
	return who;
}

void
kda_growth_look(KdaWorker *worker, TimestampTz now)
{
	bool		growing = false;
	char	   *holder;
	int			least = kda_commit_interval_ms;
	ListCell   *lc;

	if (now < worker->growth_look_at)
		return;
	worker->growth_look_at = now + LOOK_EVERY;
	foreach(lc, worker->queries)
	{
		KdaQuery   *query = lfirst(lc);

		if (kda_query_runs(query) && kda_feed_runs(kda_feed_of(query->stream)) && query->groups)
			growing |= grows(query);
	}
	holder = growing || worker->interval_floor_ms > 0 ? snapshot_holder(worker->growth_look_xid) : NULL;
	worker->growth_look_xid = ReadNextTransactionId();
	if (holder && growing)
		worker->interval_floor_ms = Min(Max(worker->interval_floor_ms, least) * 2, kda_commit_interval_max_ms);
	else if (holder == NULL)
		worker->interval_floor_ms = worker->interval_floor_ms / 2 > least ? worker->interval_floor_ms / 2 : 0;
	kda_worker_report_held_back(holder && worker->interval_floor_ms > 0 ? holder : NULL);
}
