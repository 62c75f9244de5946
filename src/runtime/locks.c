/*-------------------------------------------------------------------------
 *
 * locks.c
 *	  Before a batch a worker locks every relation of it, each conditionally,
 *	  in the order streams, joined tables and targets, storage.  What it cannot
 *	  have at once makes it roll back and wait in an empty transaction, where
 *	  it holds nothing that anybody could want: no user ever loses a deadlock
 *	  to a worker, and no snapshot keeps dead rows alive meanwhile.
 *
 * The list is made from the rules of the queries' views and kept until one of
 * its relations changes or the worker loads its queries anew.  What it cannot
 * know (tables that users' functions or foreign keys touch, rows that somebody
 * else has locked) is bounded by lock_timeout: kda_locks_timeout_ms().
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/rows.h"
#include "catalog/options.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "runtime/locks.h"
#include "runtime/worker.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

typedef enum Phase
{
	PHASE_STREAM,
	PHASE_TABLE,
	PHASE_STORAGE
} Phase;

typedef struct Wanted
{
	Oid			relid;
	LOCKMODE	mode;
	Phase		phase;
} Wanted;

static Wanted *wanted = NULL;
static int	nwanted = 0;
static int	room = 0;
static bool valid = false;

/* What kda_lock_or_leave() could not have. */
static Oid	blocked_relid = InvalidOid;
static LOCKMODE blocked_mode = NoLock;

/*---- one lock */

void
kda_lock_or_leave(Oid relid, LOCKMODE mode)
{
	if (!kda_in_worker)
	{
		LockRelationOid(relid, mode);
		return;
	}
	if (ConditionalLockRelationOid(relid, mode))
		return;
	blocked_relid = relid;
	blocked_mode = mode;
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not obtain lock on relation \"%s\"", get_rel_name(relid))));
}

bool
kda_locks_blocked(void)
{
	return OidIsValid(blocked_relid);
}

void
kda_locks_wait(void)
{
	Oid			relid = blocked_relid;
	LOCKMODE	mode = blocked_mode;
	MemoryContext context = CurrentMemoryContext;
	int			save_timeout = LockTimeout;
	char	   *name;
	char	   *what;

	blocked_relid = InvalidOid;
	StartTransactionCommand();
	name = get_rel_name(relid);
	if (name == NULL)
	{
		/* dropped since */
		CommitTransactionCommand();
		MemoryContextSwitchTo(context);
		return;
	}
	what = psprintf("lock on %s.%s", get_namespace_name(get_rel_namespace(relid)), name);
	/* the look into the catalog was the only snapshot */
	InvalidateCatalogSnapshot();
	kda_worker_report_waiting(what);
	pgstat_report_activity(STATE_RUNNING, psprintf("waiting for %s", what));
	PG_TRY();
	{
		LockTimeout = 0;
		LockRelationOid(relid, mode);
		LockTimeout = save_timeout;
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		LockTimeout = save_timeout;
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
		AbortOutOfAnyTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	kda_worker_report_waiting(NULL);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/*
 * Longest wait for a lock inside a batch, where others are held: well below
 * the deadlock_timeout of sessions that run with the server's setting, so that
 * the worker has given way before any of them looks for a deadlock.
 */
int
kda_locks_timeout_ms(void)
{
	const char *server = GetConfigOptionResetString("deadlock_timeout");
	int			ms;

	if (server == NULL || !parse_int(server, &ms, GUC_UNIT_MS, NULL))
		ms = 1000;
	return Max(1, Min(ms / 2, 500));
}

/*---- all of a batch */

static void
want(Oid relid, LOCKMODE mode, Phase phase)
{
	if (!OidIsValid(relid))
		return;
	if (nwanted == room)
	{
		room = Max(64, room * 2);
		wanted = wanted ? repalloc(wanted, sizeof(Wanted) * room) :
			MemoryContextAlloc(TopMemoryContext, sizeof(Wanted) * room);
	}
	wanted[nwanted].relid = relid;
	wanted[nwanted].mode = mode;
	wanted[nwanted++].phase = phase;
}

static void
want_storage(const char *name, LOCKMODE mode)
{
	want(kda_storage_relation(name), mode, PHASE_STORAGE);
}

/* A table with its partitions or children; the indexes too, where others may lock them alone. */
static void
want_table(Oid relid, LOCKMODE mode)
{
	List	   *members;
	ListCell   *lc,
			   *li;

	kda_lock_or_leave(relid, mode);
	members = find_all_inheritors(relid, NoLock, NULL);
	foreach(lc, members)
	{
		Relation	rel;

		kda_lock_or_leave(lfirst_oid(lc), mode);
		want(lfirst_oid(lc), mode, PHASE_TABLE);
		if (mode != AccessShareLock)
			continue;			/* keeps REINDEX out, as DROP INDEX */
		rel = try_relation_open(lfirst_oid(lc), NoLock);
		if (rel == NULL)
			continue;
		if (rel->rd_rel->relhasindex)
			foreach(li, RelationGetIndexList(rel))
				want(lfirst_oid(li), AccessShareLock, PHASE_TABLE);
		relation_close(rel, NoLock);
	}
}

static void
want_rule(Oid view, Phase phase)
{
	ListCell   *lc;

	/* a rule names its own view as well */
	for (int i = 0; i < nwanted; i++)
		if (wanted[i].relid == view)
			return;
	kda_lock_or_leave(view, AccessShareLock);
	want(view, AccessShareLock, phase);
	if (get_rel_relkind(view) != RELKIND_VIEW)
		return;					/* dropped; the worker will hear of it */
	foreach(lc, kda_plan_relations(view))
	{
		Oid			relid = lfirst_oid(lc);

		switch (get_rel_relkind(relid))
		{
			case RELKIND_VIEW:
				check_stack_depth();
				want_rule(relid, PHASE_TABLE);
				break;
			case RELKIND_FOREIGN_TABLE:
				want(relid, AccessShareLock, kda_is_stream(relid) ? PHASE_STREAM : PHASE_TABLE);
				break;
			case RELKIND_RELATION:
			case RELKIND_PARTITIONED_TABLE:
			case RELKIND_MATVIEW:
				if (get_rel_namespace(relid) != get_rel_namespace(view) || phase != PHASE_STORAGE)
					want_table(relid, AccessShareLock);
				break;
		}
	}
}

static void
want_query(KdaQuery *query)
{
	want_rule(query->batch_rel, PHASE_STORAGE);
	if (OidIsValid(query->final_rel))
		want_rule(query->final_rel, PHASE_STORAGE);
	if (OidIsValid(query->merged_rel))
		want_rule(query->merged_rel, PHASE_STORAGE);
	want(query->open_rel, RowExclusiveLock, PHASE_STORAGE);
	want(query->closed_rel, RowExclusiveLock, PHASE_STORAGE);
	want(query->shown_rel, RowExclusiveLock, PHASE_STORAGE);
	/* a join: of the right side, too */
	if (query->sides[1])
	{
		want_rule(query->sides[1]->batch_rel, PHASE_STORAGE);
		want(query->sides[1]->open_rel, RowExclusiveLock, PHASE_STORAGE);
	}
	want(query->outbox[0], RowExclusiveLock, PHASE_STORAGE);
	want(query->outbox[1], RowExclusiveLock, PHASE_STORAGE);
	if (!OidIsValid(query->target_rel))
		return;
	switch (get_rel_relkind(query->target_rel))
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
			want_table(query->target_rel, RowExclusiveLock);
			break;
		default:
			want(query->target_rel, RowExclusiveLock, query->target_is_stream ? PHASE_STREAM : PHASE_TABLE);
			break;
	}
}

static int
by_relid(const void *a, const void *b)
{
	const Wanted *wa = a;
	const Wanted *wb = b;

	if (wa->relid != wb->relid)
		return wa->relid < wb->relid ? -1 : 1;
	return wb->mode - wa->mode; /* the strongest first */
}

static int
by_order(const void *a, const void *b)
{
	const Wanted *wa = a;
	const Wanted *wb = b;

	if (wa->phase != wb->phase)
		return (int) wa->phase - (int) wb->phase;
	return wa->relid < wb->relid ? -1 : 1;
}

static void
make_list(KdaWorker *worker)
{
	ListCell   *lc,
			   *lq;
	int			n = 0;
	bool		sources = false;

	nwanted = 0;
	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);
		KdaStream  *stream = feed->stream;

		if (!kda_feed_runs(feed))
			continue;
		want(stream->relid, AccessShareLock, PHASE_STREAM);
		/* a source stream's is that of its relay; those who write it lock what is written now */
		if (stream->options->server_type == NULL)
		{
			want(stream->inbox, feed->writers ? RowExclusiveLock : AccessShareLock, PHASE_STORAGE);
			want(stream->inbox2, feed->writers ? RowExclusiveLock : AccessShareLock, PHASE_STORAGE);
		}
		want(stream->ring, RowExclusiveLock, PHASE_STORAGE);
		want(stream->ring2, RowExclusiveLock, PHASE_STORAGE);
		sources |= stream->options->server_type != NULL;
		foreach(lq, stream->queries)
			if (kda_query_runs(lfirst(lq)))
				want_query(lfirst(lq));
	}
	want_storage("stream", RowExclusiveLock);
	want_storage("stream_progress", RowExclusiveLock);
	want_storage("shard", RowExclusiveLock);
	want_storage("slot", RowExclusiveLock);
	want_storage("query", AccessShareLock);
	want_storage("query_progress", RowExclusiveLock);
	want_storage("query_share", RowExclusiveLock);
	want_storage("sort_mark", RowExclusiveLock);
	want_storage("output", AccessShareLock);
	want_storage("error", RowExclusiveLock);
	want_storage("refused", RowExclusiveLock);
	want_storage("forgotten", RowExclusiveLock);
	if (sources)
		want_storage("advance", RowExclusiveLock);

	qsort(wanted, nwanted, sizeof(Wanted), by_relid);
	for (int i = 0; i < nwanted; i++)
	{
		if (n > 0 && wanted[n - 1].relid == wanted[i].relid)
		{
			wanted[n - 1].phase = Min(wanted[n - 1].phase, wanted[i].phase);
			continue;
		}
		wanted[n++] = wanted[i];
	}
	nwanted = n;
	qsort(wanted, nwanted, sizeof(Wanted), by_order);
}

static void
on_relcache(Datum arg, Oid relid)
{
	if (!valid)
		return;
	if (relid == InvalidOid)
		valid = false;
	for (int i = 0; i < nwanted && valid; i++)
		if (wanted[i].relid == relid)
			valid = false;
}

void
kda_locks_forget(void)
{
	valid = false;
}

bool
kda_locks_take(KdaWorker *worker)
{
	static bool registered = false;

	if (!registered)
		CacheRegisterRelcacheCallback(on_relcache, (Datum) 0);
	registered = true;
	blocked_relid = InvalidOid;
	AcceptInvalidationMessages();
	for (;;)
	{
		if (worker->reload)
			return false;
		if (!valid)
		{
			/* a change that arrives while the list is made shows in it or makes it invalid again */
			valid = true;
			nwanted = 0;
			PG_TRY();
			{
				make_list(worker);
			}
			PG_CATCH();
			{
				valid = false;
				PG_RE_THROW();
			}
			PG_END_TRY();
		}
		for (int i = 0; i < nwanted && valid; i++)
			kda_lock_or_leave(wanted[i].relid, wanted[i].mode);
		if (valid && !worker->reload)
			return true;
	}
}

/*---- loading */

void
kda_locks_take_catalog(KdaWorker *worker)
{
	static const char *const tables[] = {"stream", "stream_progress", "shard", "slot", "query", "query_progress", "sort_mark"};

	blocked_relid = InvalidOid;
	for (int i = 0; i < lengthof(tables); i++)
		kda_lock_or_leave(kda_storage_relation(tables[i]), AccessShareLock);
	SPI_connect();
	SPI_execute("SELECT s.rel::oid, q.rel::oid, q.batch::oid, q.batch2::oid FROM kda_storage.stream s "
				"JOIN pg_catalog.pg_foreign_table t ON t.ftrelid = s.rel "
				"LEFT JOIN kda_storage.query q ON s.rel IN (q.stream, q.stream2)", true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
		for (int c = 1; c <= 4; c++)
		{
			bool		isnull;
			Oid			relid = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, c, &isnull));

			if (c == 1 && strcmp(kda_stream_worker_name(relid), worker->name) != 0)
				break;			/* another worker's */
			if (!isnull)
				kda_lock_or_leave(relid, AccessShareLock);
		}
	SPI_finish();
}
