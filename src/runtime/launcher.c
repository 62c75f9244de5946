/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  One process a cluster that keeps a worker running in every slot that is
 *	  wanted: pipeline workers, and a deliver worker for each database with
 *	  outputs.
 *
 * pg_extension is per database: at start a probe worker (probe.c) looks into
 * each database, one after the other.  From then on sessions say at commit
 * what has changed (notify.c).  A worker that ends is started again with
 * back-off; one that is not wanted any more, or that kda_stream.enabled and
 * kda_stream.databases exclude, is told to end.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <signal.h>

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "runtime/runtime.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"

#define BACKOFF_FIRST_MS	100
#define STABLE_MS			30000	/* a run that lasted so long forgets the failures before it */
#define LOOK_MS				10000

typedef struct Database
{
	Oid			oid;
	char		name[NAMEDATALEN];
} Database;

static void
bgworker(BackgroundWorker *worker, const char *function, const char *name, const char *type)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker->bgw_library_name, "kda_stream", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, function, sizeof(worker->bgw_function_name));
	strlcpy(worker->bgw_name, name, BGW_MAXLEN);
	strlcpy(worker->bgw_type, type, BGW_MAXLEN);
}

void
kda_launcher_init(void)
{
	BackgroundWorker worker;

	bgworker(&worker, "kda_launcher_main", "kda_stream launcher", "kda_stream launcher");
	worker.bgw_restart_time = 5;
	RegisterBackgroundWorker(&worker);
}

/* All databases that can be connected to; in the caller's memory. */
static List *
databases(void)
{
	List	   *result = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	MemoryContext context = CurrentMemoryContext;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;
		Database   *db;

		if (!form->datallowconn)
			continue;
		old = MemoryContextSwitchTo(context);
		db = palloc(sizeof(Database));
		db->oid = form->oid;
		strlcpy(db->name, NameStr(form->datname), NAMEDATALEN);
		result = lappend(result, db);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return result;
}

/* One database after the other: does it have streams? */
static void
probe_all(List *dbs)
{
	ListCell   *lc;

	foreach(lc, dbs)
	{
		Database   *db = lfirst(lc);
		BackgroundWorker worker;
		BackgroundWorkerHandle *handle;
		char		name[BGW_MAXLEN];
		bool		parked;

		CHECK_FOR_INTERRUPTS();
		LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
		parked = kda_is_parked(db->oid);
		LWLockRelease(kda_shared->lock);
		if (parked || !kda_database_allowed(db->name))
			continue;
		snprintf(name, sizeof(name), "kda_stream probe of %s", db->name);
		bgworker(&worker, "kda_probe_main", name, "kda_stream probe");
		worker.bgw_main_arg = ObjectIdGetDatum(db->oid);
		worker.bgw_notify_pid = MyProcPid;
		if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		{
			ereport(WARNING,
					(errmsg("kda_stream could not look into database \"%s\": no free background worker", db->name),
					 errhint("Raise max_worker_processes.")));
			continue;
		}
		(void) WaitForBackgroundWorkerShutdown(handle);
		pfree(handle);
	}
}

static const char *
database_name(List *dbs, Oid oid)
{
	ListCell   *lc;

	foreach(lc, dbs)
		if (((Database *) lfirst(lc))->oid == oid)
			return ((Database *) lfirst(lc))->name;
	return NULL;
}

/* A worker's process has gone.  With the lock held. */
static void
ended(KdaSlot *slot, TimestampTz now)
{
	slot->latch = NULL;
	if (slot->stop_asked)
		slot->next_start = now;
	else
	{
		if (slot->started != 0 && (now - slot->started) / 1000 > STABLE_MS)
			slot->restarts = 0;
		slot->restarts++;
		slot->next_start = TimestampTzPlusMilliseconds(now,
													   Min((int64) BACKOFF_FIRST_MS << Min(slot->restarts - 1, 16),
														   kda_retry_max_interval_ms));
	}
	slot->stop_asked = false;
}

/* Gives a free slot to the first worker that waits for one.  With the lock held. */
static void
serve_queue(KdaSlot *slot, List *dbs)
{
	for (int i = 0; i < KDA_MAX_QUEUED; i++)
	{
		KdaQueued  *queued = &kda_shared->queued[i];

		if (!OidIsValid(queued->database))
			continue;
		if (database_name(dbs, queued->database) != NULL)
			kda_slot_assign(slot, queued->database, NameStr(queued->worker), queued->number, queued->deliver);
		queued->database = InvalidOid;
		if (slot->wanted)
			return;
	}
}

/*
 * Starts and stops workers; returns the time in ms until it has to be called
 * again.  A worker runs as long as its slot shows its pid: this launcher has
 * no handle of those that one before it has started.
 */
static long
tend(List *dbs, BackgroundWorkerHandle **handles, bool *running)
{
	TimestampTz now = GetCurrentTimestamp();
	long		wait = LOOK_MS;

	for (int s = 0; s < kda_shared->nslots; s++)
	{
		KdaSlot    *slot = &kda_shared->slots[s];
		const char *name;
		bool		allowed;
		bool		start = false;
		pid_t		stop = 0;
		pid_t		pid;
		uint64		generation = 0;

		if (handles[s] && GetBackgroundWorkerPid(handles[s], &pid) == BGWH_STOPPED)
		{
			pfree(handles[s]);
			handles[s] = NULL;
		}

		LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
		if (handles[s] == NULL && slot->pid == 0)
		{
			if (running[s])
				ended(slot, now);
			running[s] = false;
		}
		else
			running[s] = true;
		name = OidIsValid(slot->database) ? database_name(dbs, slot->database) : NULL;
		if (OidIsValid(slot->database) && name == NULL)
			slot->wanted = false;	/* dropped */
		if (!running[s] && !slot->wanted)
		{
			slot->database = InvalidOid;
			serve_queue(slot, dbs);
			name = slot->wanted ? database_name(dbs, slot->database) : NULL;
		}
		allowed = slot->wanted && kda_database_allowed(name) && !kda_is_parked(slot->database);
		if (!running[s])
		{
			if (allowed && slot->next_start <= now)
			{
				start = true;
				generation = ++slot->generation;
			}
			else if (allowed)
				wait = Min(wait, TimestampDifferenceMilliseconds(now, slot->next_start));
		}
		else if (!allowed)
		{
			slot->stop_asked = true;
			stop = slot->pid;
		}
		LWLockRelease(kda_shared->lock);

		/* its next look at its slot would tell it, too, but it may be waiting for a lock */
		if (stop != 0)
			kill(stop, SIGTERM);
		if (start)
		{
			BackgroundWorker worker;
			char		title[BGW_MAXLEN];
			MemoryContext old;
			bool		registered;

			if (slot->deliver)
				snprintf(title, sizeof(title), "kda_stream deliver worker of %s", name);
			else if (slot->number == 0)
				snprintf(title, sizeof(title), "kda_stream worker %s of %s", NameStr(slot->worker), name);
			else
				snprintf(title, sizeof(title), "kda_stream worker %s slot %d of %s", NameStr(slot->worker), slot->number, name);
			bgworker(&worker, slot->deliver ? "kda_deliver_main" : "kda_worker_main", title,
					 slot->deliver ? "kda_stream deliver" : "kda_stream worker");
			worker.bgw_main_arg = Int32GetDatum(s);
			memcpy(worker.bgw_extra, &generation, sizeof(generation));
			worker.bgw_notify_pid = MyProcPid;
			old = MemoryContextSwitchTo(TopMemoryContext);	/* of the handle */
			registered = RegisterDynamicBackgroundWorker(&worker, &handles[s]);
			MemoryContextSwitchTo(old);
			running[s] = registered;
			if (!registered)
			{
				handles[s] = NULL;
				LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
				strlcpy(slot->last_error, "no free background worker: raise max_worker_processes",
						sizeof(slot->last_error));
				slot->next_start = TimestampTzPlusMilliseconds(now, 5000);
				LWLockRelease(kda_shared->lock);
				wait = Min(wait, 5000);
				ereport(WARNING,
						(errmsg("kda_stream could not start worker \"%s\" of database \"%s\": no free background worker",
								NameStr(slot->worker), name),
						 errhint("Raise max_worker_processes.")));
			}
		}
	}
	return wait;
}

static void
at_exit(int code, Datum arg)
{
	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	kda_shared->launcher_latch = NULL;
	kda_shared->launcher_pid = 0;
	LWLockRelease(kda_shared->lock);
}

void
kda_launcher_main(Datum arg)
{
	BackgroundWorkerHandle **handles;
	bool	   *running;		/* by slot: a process of it was there at the last look */
	MemoryContext scratch;
	bool		probed = false;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	SetConfigOption("application_name", "kda_stream launcher", PGC_USERSET, PGC_S_SESSION);

	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	kda_shared->launcher_latch = &MyProc->procLatch;
	kda_shared->launcher_pid = MyProcPid;
	LWLockRelease(kda_shared->lock);
	before_shmem_exit(at_exit, (Datum) 0);

	running = MemoryContextAllocZero(TopMemoryContext, sizeof(bool) * kda_shared->nslots);
	handles = MemoryContextAllocZero(TopMemoryContext,
									 sizeof(BackgroundWorkerHandle *) * kda_shared->nslots);
	scratch = AllocSetContextCreate(TopMemoryContext, "kda launcher", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		List	   *dbs;
		long		wait;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(scratch);
		MemoryContextSwitchTo(scratch);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			probed = false;		/* other databases may be allowed now */
		}
		dbs = databases();
		if (!probed && kda_enabled)
		{
			probe_all(dbs);
			probed = true;
		}
		wait = tend(dbs, handles, running);
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, wait,
						 kda_wait_event_main());
		ResetLatch(MyLatch);
	}
}
