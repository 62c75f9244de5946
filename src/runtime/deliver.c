/*-------------------------------------------------------------------------
 *
 * deliver.c
 *	  The deliver worker: one process for each database with outputs.  Knows
 *	  when things happen; what happens to one output is in output.c.
 *
 * Outputs do not depend on each other: an error of one of them is its own, and
 * is tried again with pauses while the others go on.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/rows.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "runtime/output.h"
#include "runtime/runtime.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define MAX_WAIT_MS		10000	/* a look at everything, even if nobody woke us */
#define BACKOFF_FIRST_MS	100
#define STRANGERS_MS	500
#define CLOSE_MS		2000	/* for all sinks together, when the process ends */

typedef struct Deliverer
{
	MemoryContext context;
	List	   *outputs;		/* KdaOutput */
	int			wake_read;		/* pipe that library threads write to */
	int			wake_write;
	Oid			catalog;		/* kda_storage.query stands for the whole catalog */
	bool		reload;
	bool		strangers;		/* a restore is under way: look again soon */
} Deliverer;

static Deliverer *me = NULL;
bool		kda_in_deliver = false;

static void
on_relcache(Datum arg, Oid relid)
{
	ListCell   *lc;

	if (me == NULL || me->reload)
		return;
	if (relid == InvalidOid || relid == me->catalog || !OidIsValid(me->catalog))
		me->reload = true;
	else
		foreach(lc, me->outputs)
			if (((KdaOutput *) lfirst(lc))->relid == relid)
				me->reload = true;
}

static void
on_options(Datum arg, int cacheid, uint32 hash)
{
	if (me)
		me->reload = true;
}

/* A seal must be on disk, and at a synchronous standby, before its records leave. */
#define SYNCHRONOUS_COMMIT	"on"

/*---- what there is */

static KdaOutput *
find(Oid relid, int32 id)
{
	ListCell   *lc;

	foreach(lc, me->outputs)
	{
		KdaOutput  *output = lfirst(lc);

		if (output->relid == relid && output->ids.id == id)
			return output;
	}
	return NULL;
}

/* The list outlives the transaction. */
static List *
add(Deliverer *d, List *outputs, KdaOutput *output)
{
	MemoryContext old = MemoryContextSwitchTo(d->context);

	outputs = lappend(outputs, output);
	MemoryContextSwitchTo(old);
	return outputs;
}

/* Outputs as the catalog says; those that have not changed go on as they are. */
static void
load(Deliverer *d)
{
	List	   *outputs = NIL;
	SPITupleTable *table;
	uint64		n;
	ListCell   *lc;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	d->reload = false;
	d->catalog = kda_storage_relation("query");
	if (!kda_extension_exists() || !OidIsValid(kda_storage_relation("output")))
		n = 0;
	else
	{
		d->strangers = kda_adopt_strangers();
		CommandCounterIncrement();
		UpdateActiveSnapshotCommandId();
		SPI_connect();
		SPI_execute(psprintf("SELECT o.output_id, o.rel::oid, o.paused OR coalesce(s.paused, false), o.failure FROM kda_storage.output o "
							 "JOIN pg_catalog.pg_foreign_table t ON t.ftrelid = o.rel "
							 "LEFT JOIN kda_storage.stream s ON s.rel = o.rel WHERE o.origin = %s ORDER BY o.output_id",
							 quote_literal_cstr(kda_origin())), true, 0);
		n = SPI_processed;
		table = SPI_tuptable;
		for (uint64 i = 0; i < n; i++)
		{
			int32		id = atoi(SPI_getvalue(table->vals[i], table->tupdesc, 1));
			Oid			relid = (Oid) strtoul(SPI_getvalue(table->vals[i], table->tupdesc, 2), NULL, 10);
			bool		paused = strcmp(SPI_getvalue(table->vals[i], table->tupdesc, 3), "t") == 0;
			char	   *failure = SPI_getvalue(table->vals[i], table->tupdesc, 4);
			KdaOutput  *output = find(relid, id);

			if (get_rel_name(relid) == NULL)
				continue;
			/* somebody is changing it: it stays as it is until he is through */
			if (!ConditionalLockRelationOid(relid, AccessShareLock))
			{
				d->reload = true;
				if (output)
				{
					outputs = add(d, outputs, output);
					d->outputs = list_delete_ptr(d->outputs, output);
				}
				continue;
			}
			if (output && kda_output_changed(output))
			{
				d->outputs = list_delete_ptr(d->outputs, output);
				kda_output_free(output);
				output = NULL;
			}
			if (output == NULL)
				output = kda_output_make(d->context, relid);
			else
				d->outputs = list_delete_ptr(d->outputs, output);
			output->paused = paused;
			if (failure == NULL && output->failure)
				output->retry_at = 0;
			if (output->failure)
				pfree(output->failure);
			output->failure = failure ? MemoryContextStrdup(output->context, failure) : NULL;
			output->more = true;
			outputs = add(d, outputs, output);
		}
		SPI_finish();
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	/* what is left was dropped */
	foreach(lc, d->outputs)
		kda_output_free(lfirst(lc));
	list_free(d->outputs);
	d->outputs = outputs;
}

/*---- the loop */

static TimestampTz
run(Deliverer *d, KdaOutput *output, TimestampTz now)
{
	MemoryContext context = CurrentMemoryContext;
	volatile TimestampTz again = KDA_END_TIME;

	PG_TRY();
	{
		again = kda_output_run(output, d->wake_write, now);
	}
	PG_CATCH();
	{
		ErrorData  *edata;
		bool		lock;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		HOLD_INTERRUPTS();
		lock = edata->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE || edata->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED;
		if (!lock)
			EmitErrorReport();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		RESUME_INTERRUPTS();
		if (ProcDiePending || edata->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
			proc_exit(1);
		/* half of a commit may have been done: what is in the tables counts, and is read again */
		kda_output_close(output, 0);
		if (!lock)
		{
			kda_worker_report_error(edata->message);
			kda_copy_text(output->last_error, edata->message, sizeof(output->last_error));
		}
		output->backoff_ms = output->backoff_ms == 0 ? BACKOFF_FIRST_MS : Min(output->backoff_ms * 2, kda_retry_max_interval_ms);
		output->retry_at = TimestampTzPlusMilliseconds(now, output->backoff_ms);
		again = output->retry_at;
		d->reload = true;
		FreeErrorData(edata);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return again;
}

static void
close_sinks(int code, Datum arg)
{
	ListCell   *lc;
	TimestampTz until = GetCurrentTimestamp() + CLOSE_MS * 1000;

	if (me == NULL)
		return;
	foreach(lc, me->outputs)
	{
		KdaOutput  *output = lfirst(lc);

		if (output->sink)
			output->sink->ops->close(output->sink, (int) TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until));
		output->sink = NULL;
	}
}

static void
loop(Deliverer *d)
{
	KdaSlot    *slot = &kda_shared->slots[kda_my_slot];
	uint32		wakes = pg_atomic_read_u32(&slot->wakes);
	WaitEventSet *set = kda_create_wait_event_set(d->context, 3);
	MemoryContext scratch = AllocSetContextCreate(d->context, "kda deliver loop", ALLOCSET_DEFAULT_SIZES);

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(set, WL_SOCKET_READABLE, d->wake_read, NULL, NULL);
	for (;;)
	{
		TimestampTz now;
		TimestampTz again = KDA_END_TIME;
		long		timeout = MAX_WAIT_MS;
		bool		woken;
		WaitEvent	event;
		ListCell   *lc;

		MemoryContextReset(scratch);
		MemoryContextSwitchTo(scratch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			kda_worker_settings(SYNCHRONOUS_COMMIT);
		}
		if (kda_worker_should_stop())
			return;
		kda_worker_exit_alone();
		/* sessions wake us at their commit, just before they send what it has invalidated */
		woken = pg_atomic_read_u32(&slot->wakes) != wakes;
		wakes = pg_atomic_read_u32(&slot->wakes);
		AcceptInvalidationMessages();
		if (d->reload)
			load(d);
		now = kda_clock_now();
		foreach(lc, d->outputs)
		{
			KdaOutput  *output = lfirst(lc);

			output->more |= woken;
			again = Min(again, run(d, output, now));
		}
		slot->last_commit = now;
		slot->busy_ms += (kda_clock_now() - now) / 1000.0;

		now = kda_clock_now();
		if (again != KDA_END_TIME)
			timeout = Min(timeout, TimestampDifferenceMilliseconds(now, again));
		if (d->strangers)
			timeout = Min(timeout, STRANGERS_MS);
		if (woken)
			timeout = Min(timeout, 100);
		if (WaitEventSetWait(set, d->reload ? Min(timeout, BACKOFF_FIRST_MS) : timeout, &event, 1, kda_wait_event_main()) > 0)
		{
			if (event.events & WL_LATCH_SET)
				ResetLatch(MyLatch);
			if (event.events & WL_SOCKET_READABLE)
				kda_worker_drain(d->wake_read);
		}
		else
			d->reload |= d->strangers;
		slot->idle_ms += (kda_clock_now() - now) / 1000.0;
	}
}

void
kda_deliver_main(Datum arg)
{
	kda_worker_attach(DatumGetInt32(arg));
	kda_in_deliver = true;
	kda_worker_settings(SYNCHRONOUS_COMMIT);
	me = MemoryContextAllocZero(TopMemoryContext, sizeof(Deliverer));
	me->context = AllocSetContextCreate(TopMemoryContext, "kda deliver worker", ALLOCSET_DEFAULT_SIZES);
	me->reload = true;
	kda_worker_pipe(&me->wake_read, &me->wake_write);
	CacheRegisterRelcacheCallback(on_relcache, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, on_options, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, on_options, (Datum) 0);
	before_shmem_exit(close_sinks, (Datum) 0);
	loop(me);
	proc_exit(0);
}
