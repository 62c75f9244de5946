/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  A pipeline worker: polls its sources outside any transaction, then runs
 *	  one transaction with all stages (transaction.c), then waits.
 *
 * The only file that knows when things happen.  An error inside a transaction
 * ends here: abort, memory goes back to the last commit, and by its SQLSTATE
 * it is tried again with back-off, or the query or stream at fault is marked
 * as failed and the others go on.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/rows.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "jit/jit.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "query/run.h"
#include "query/shown.h"
#include "runtime/worker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define BACKOFF_FIRST_MS	100
#define STRANGERS_MS		500		/* from one look at a restore to the next */
#define MAX_WAIT_MS			10000	/* a look at everything, even if nobody woke us */

#define LOOK_AGAIN		(100 * INT64CONST(1000))
#define IDLE_TRANSACTION	(60 * USECS_PER_SEC)	/* retention goes on without records */
#define CAREFUL_COMMITS	1000
#define LOCK_BACKOFF_MS	1000	/* who holds a row or lock is gone at any moment */
#define CLOSE_MS		2000	/* for all sources together, when the process ends */

static int	retry_backoff_ms = 0;

static void
on_relcache(Datum arg, Oid relid)
{
	KdaWorker  *worker = kda_worker;
	ListCell   *lc;

	if (worker == NULL || worker->reload)
		return;
	/* kda_storage.query stands for the whole catalog: kda_catalog_changed() */
	if (relid == InvalidOid || relid == worker->query_catalog || !OidIsValid(worker->query_catalog))
	{
		worker->reload = true;
		return;
	}
	/* a stream that was altered, a view that got another owner */
	foreach(lc, worker->feeds)
		if (((KdaFeed *) lfirst(lc))->stream->relid == relid)
			worker->reload = true;
	foreach(lc, worker->queries)
		if (((KdaQuery *) lfirst(lc))->relid == relid)
			worker->reload = true;
}

/* A server or a user mapping: what is read with it is opened anew. */
static void
on_options(Datum arg, int cacheid, uint32 hash)
{
	kda_options_generation++;
	if (kda_worker)
		kda_worker->check_options = true;
}

/*---- errors */

static bool
retriable(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case MAKE_SQLSTATE('0', '8', '0', '0', '0'):
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):
			return true;
	}
	return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE;
}

static void
go_back(KdaWorker *worker)
{
	ListCell   *lc;

	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);

		kda_feed_go_back(feed);
		feed->more = true;		/* nothing has been read */
		/* if it was time alone that called for the transaction, it does so again */
		feed->tick_at = Min(feed->tick_at, kda_clock_now());
	}
	foreach(lc, worker->queries)
	{
		KdaQuery   *query = lfirst(lc);

		if (query->groups)
			kda_groups_at_abort(query->groups);
		if (query->kept)
			kda_kept_at_abort(query->kept);
		for (int s = 0; s < 2; s++)
			if (query->sides[s])
			{
				if (query->sides[s]->kept)
					kda_kept_at_abort(query->sides[s]->kept);
				query->join_passed[s] = KDA_NO_TIME;
			}
		if (query->retime)
			kda_retime_at_abort(query->retime);
		query->saved = false;
		query->left_seq = -1;
		query->frontier = query->saved_frontier;
		query->reset_sides = query->saved_reset_sides;
		query->forgotten = query->saved_forgotten;
		query->emitted_at = query->saved_emitted_at;
		if (query->shown)
			kda_shown_at_abort(query->shown);
		query->complete_from = query->saved_complete_from;
		query->joined = query->saved_joined;
		query->d_in = query->d_late = query->d_out = 0;
		query->d_busy_ms = 0;
	}
}

/* The one at fault stops; the transaction is tried again without it. */
static void
stop_stream(KdaFeed *feed, const char *message)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	kda_fail_stream(feed, message);
	PopActiveSnapshot();
	CommitTransactionCommand();
	kda_worker->reload = true;
}

/*---- the commit interval */

/*
 * When write-back, saving and commit take more than a quarter of the time
 * between two commits, that time doubles; when they take less than a
 * sixteenth, it shrinks again.  Growing tables (growth.c) stretch it, too.
 */
static void
adapt_interval(KdaWorker *worker)
{
	int			least = kda_commit_interval_ms;
	int			most = Max(kda_commit_interval_max_ms, least);

	if (worker->settle_us > (int64) worker->interval_ms * 250)
		worker->interval_ms *= 2;
	else if (worker->settle_us < (int64) worker->interval_ms * 60)
		worker->interval_ms -= Max(worker->interval_ms / 4, 1);
	least = Max(least, worker->interval_floor_ms);
	worker->interval_ms = Max(least, Min(worker->interval_ms, most));
	kda_shared->slots[kda_my_slot].interval_ms = worker->interval_ms;
}

/* One transaction; true if more input waits.  Errors do not leave. */
static bool
try_transaction(KdaWorker *worker)
{
	volatile bool more = false;
	MemoryContext context = CurrentMemoryContext;
	volatile int64 started = GetCurrentTimestamp();
	volatile bool failed = false;
	volatile bool blocked = false;
	KdaSlot    *slot = &kda_shared->slots[kda_my_slot];

	kda_current_query = NULL;
	kda_current_feed = NULL;
	PG_TRY();
	{
		more = kda_transaction(worker);
		if (retry_backoff_ms > 0)
			kda_worker_report_backoff(false);
		retry_backoff_ms = 0;
		if (worker->settle_us >= 0)
		{
			slot->commits++;
			slot->last_commit = GetCurrentTimestamp();
			slot->commit_ms += (slot->last_commit - started) / 1000.0;
			slot->busy_ms += (slot->last_commit - started) / 1000.0;
			adapt_interval(worker);
		}
	}
	PG_CATCH();
	{
		ErrorData  *edata;
		KdaQuery   *query = kda_current_query;
		KdaFeed    *feed = kda_current_feed;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		HOLD_INTERRUPTS();
		blocked = edata->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE && kda_locks_blocked();
		if (!blocked)
			EmitErrorReport();
		FlushErrorState();
		kda_in_query = false;
		if (worker->committed)
		{
			/* what is in the tables counts: read it again */
			ereport(LOG,
					(errmsg("worker \"%s\" of kda_stream starts again: an error came after its commit", worker->name)));
			proc_exit(1);
		}
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(context);
		if (worker->began)
			go_back(worker);
		worker->began = false;
		kda_current_query = NULL;
		kda_current_feed = NULL;
		RESUME_INTERRUPTS();
		failed = true;

		if (ProcDiePending || (edata->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN))
			proc_exit(1);
		if (!blocked)
			kda_worker_report_error(edata->message);

		if (blocked)
			more = true;
		else if (!retriable(edata->sqlerrcode) && query && query == kda_emitting_query && query->careful == 0)
		{
			/* perhaps only some rows are refused by where they go */
			query->careful = CAREFUL_COMMITS;
			more = true;
		}
		else if (!retriable(edata->sqlerrcode) && query)
		{
			/* stored by the next try, which goes without it */
			kda_query_fail(query, edata);
			more = true;
		}
		else if (!retriable(edata->sqlerrcode) && feed)
		{
			stop_stream(feed, edata->detail ? psprintf("%s (%s)", edata->message, edata->detail) : edata->message);
			more = true;
		}
		else
		{
			bool		lock = edata->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
				edata->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED;

			retry_backoff_ms = retry_backoff_ms == 0 ? BACKOFF_FIRST_MS :
				Min(retry_backoff_ms * 2,
					lock ? Min(LOCK_BACKOFF_MS, kda_retry_max_interval_ms) : kda_retry_max_interval_ms);
			kda_worker_report_backoff(true);
			if (feed)
			{
				kda_copy_text(feed->last_error, edata->message, sizeof(feed->last_error));
				feed->stored_error[0] = '\0';
			}
		}
		kda_emitting_query = NULL;
		FreeErrorData(edata);
	}
	PG_END_TRY();
	if (failed)
		pgstat_report_activity(STATE_IDLE, NULL);
	if (blocked)
		kda_locks_wait();
	return more;
}

/* Streams and queries as the catalog says; waits for a lock without holding anything. */
static void
load(KdaWorker *worker)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool blocked;

	do
	{
		blocked = false;
		PG_TRY();
		{
			kda_load(worker);
		}
		PG_CATCH();
		{
			ErrorData  *edata;

			MemoryContextSwitchTo(context);
			edata = CopyErrorData();
			blocked = edata->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE && kda_locks_blocked();
			if (!blocked)
			{
				/* memory may be half made: the next process makes it anew */
				kda_worker_report_error(edata->message);
				PG_RE_THROW();
			}
			FreeErrorData(edata);
			FlushErrorState();
			AbortOutOfAnyTransaction();
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);
		if (blocked)
			kda_locks_wait();
	} while (blocked);
}

/*---- sources */

/* Takes what the sources have; true when a transaction is called for at once. */
static bool
poll_sources(KdaWorker *worker, bool *any)
{
	bool		full = false;
	ListCell   *lc;

	*any = false;
	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);
		KdaStream  *stream = feed->stream;
		KdaSource  *source = stream->source;
		Size		limit = (Size) kda_batch_bytes_kb * 1024;
		TimestampTz now;

		if (source == NULL)
		{
			/* it could not be opened: that is to be seen */
			if (strcmp(feed->last_error, feed->stored_error) != 0)
				*any = true;
			continue;
		}
		source->ops->service(source);
		kda_sources_assign(feed);

		kda_feed_schemas_begin(feed);
		/* while an aborted batch is waiting to be tried again, it stays as it is */
		if (retry_backoff_ms == 0 && stream->raw->n < kda_batch_records && stream->raw->bytes < limit)
			source->ops->fetch(source, stream->raw, kda_batch_records - stream->raw->n,
							   limit - stream->raw->bytes);
		kda_copy_text(feed->last_error, source->error, sizeof(feed->last_error));
		feed->lacks_schemas = !kda_feed_schemas_ready(feed, feed->last_error, sizeof(feed->last_error));
		if (stream->raw->n > 0 && !feed->lacks_schemas)
			*any = true;
		if (!feed->held && !feed->lacks_schemas && (stream->raw->n >= kda_batch_records || stream->raw->bytes >= limit))
			full = true;

		now = kda_clock_now();
		for (int s = 0; s < stream->nshards; s++)
		{
			KdaShard   *shard = &stream->shards[s];
			KdaSourceShard *from;

			if (shard->source_index < 0)
				continue;
			from = source->shards[shard->source_index];
			if (from->lost)
			{
				stop_stream(feed,
							 psprintf("%s; ALTER STREAM %s OPTIONS (SET start '...') and ALTER STREAM %s RESUME go on from there",
									  from->error, stream->name, stream->name));
				break;
			}
			if (!from->at_end)
				shard->quiet_since = 0;
			else if (shard->quiet_since == 0 && stream->raw->n == 0)
			{
				shard->quiet_since = now;
				feed->tick_at = now;	/* how long until it is idle? */
			}
			if (shard->dirty)
				*any = true;
		}
		if (source->failed && stream->failure == NULL)
			stop_stream(feed, source->error);
		if (strcmp(feed->last_error, feed->stored_error) != 0)
			*any = true;
	}
	return full;
}

/* Has a shard come to its end with the records that were applied just now?  From here on it is quiet. */
static bool
ends_to_note(KdaWorker *worker)
{
	ListCell   *lc;

	foreach(lc, worker->feeds)
	{
		KdaStream  *stream = ((KdaFeed *) lfirst(lc))->stream;

		if (stream->source == NULL || stream->raw->n > 0)
			continue;
		for (int s = 0; s < stream->nshards; s++)
			if (stream->shards[s].source_index >= 0 && stream->shards[s].quiet_since == 0 &&
				stream->source->shards[stream->shards[s].source_index]->at_end)
				return true;
	}
	return false;
}

static TimestampTz
next_tick(KdaWorker *worker)
{
	TimestampTz at = KDA_END_TIME;
	ListCell   *lc;

	foreach(lc, worker->feeds)
		at = Min(at, ((KdaFeed *) lfirst(lc))->tick_at);
	return at;
}

/* When a source wants to be looked after, though nothing has come; 0: none does. */
static TimestampTz
next_service(KdaWorker *worker)
{
	TimestampTz at = 0;
	ListCell   *lc;

	foreach(lc, worker->feeds)
	{
		KdaSource  *source = ((KdaFeed *) lfirst(lc))->stream->source;

		if (source && source->service_at != 0 && (at == 0 || source->service_at < at))
			at = source->service_at;
	}
	return at;
}

static bool
inbox_rows_waiting(KdaWorker *worker)
{
	ListCell   *lc;

	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);

		if (feed->more || (kda_feed_wants_reset(feed) && kda_feed_runs(feed)))
			return true;
	}
	return false;
}

/* Somebody has inserted, advanced or asked: every database stream may have rows. */
static void
look_into_inboxes(KdaWorker *worker)
{
	ListCell   *lc;

	foreach(lc, worker->feeds)
	{
		KdaFeed    *feed = lfirst(lc);

		if (kda_feed_runs(feed))
		{
			feed->more = true;
			feed->advanced = true;
		}
		else if (feed->stream->queries == NIL && feed->stream->options->server_type == NULL && feed->tick_at == KDA_END_TIME)
			feed->tick_at = feed->rotate_at;	/* rows that nobody reads are looked after, too */
	}
}

/*---- the loop */

static void
close_sources(int code, Datum arg)
{
	ListCell   *lc;
	TimestampTz until;

	if (kda_worker == NULL)
		return;
	until = GetCurrentTimestamp() + CLOSE_MS * 1000;
	foreach(lc, kda_worker->feeds)
		kda_source_close(((KdaFeed *) lfirst(lc))->stream, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until));
}

static void
loop(KdaWorker *worker)
{
	TimestampTz last_commit = 0;
	bool		more = true;	/* look at once */
	uint32		wakes;
	TimestampTz look_again = 0;
	KdaSlot    *slot = &kda_shared->slots[kda_my_slot];
	MemoryContext scratch = AllocSetContextCreate(worker->context, "kda worker loop",
												  ALLOCSET_DEFAULT_SIZES);

	wakes = pg_atomic_read_u32(&slot->wakes);
	look_into_inboxes(worker);
	for (;;)
	{
		bool		full,
					any;
		TimestampTz now,
					due,
					tick,
					service;
		long		timeout;
		WaitEvent	event;
		static WaitEventSet *set = NULL;

		MemoryContextReset(scratch);
		MemoryContextSwitchTo(scratch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			kda_worker_settings("off");
		}
		if (kda_worker_should_stop())
			return;
		kda_worker_exit_alone();
		if (!IsTransactionState())
			AcceptInvalidationMessages();
		if (worker->reload)
		{
			load(worker);
			look_into_inboxes(worker);
			more = true;
		}
		if (pg_atomic_read_u32(&slot->wakes) != wakes)
		{
			wakes = pg_atomic_read_u32(&slot->wakes);
			look_into_inboxes(worker);
			/* sessions wake us at their commit, just before they send what it has invalidated */
			look_again = kda_clock_now() + LOOK_AGAIN;
		}
		kda_sources_update(worker);
		kda_waits_look(worker);
		full = poll_sources(worker, &any);

		now = kda_clock_now();
		tick = next_tick(worker);
		due = last_commit + (int64) worker->interval_ms * 1000;
		if (retry_backoff_ms > 0)
			due = last_commit + (int64) retry_backoff_ms * 1000;
		any |= inbox_rows_waiting(worker) || tick <= now ||
			(worker->feeds != NIL && now >= last_commit + IDLE_TRANSACTION);
		if ((any && now >= due) || (full && retry_backoff_ms == 0) ||
			(more && retry_backoff_ms == 0) || (kda_waits_pending() && any && retry_backoff_ms == 0))
		{
			more = try_transaction(worker);
			last_commit = kda_clock_now();
			kda_waits_after_commit(worker);
			/* a full batch may have left records behind, for which nobody wakes us */
			if (retry_backoff_ms == 0 && (more || full || ends_to_note(worker)))
				continue;
			now = last_commit;
			due = now + (int64) (retry_backoff_ms > 0 ? retry_backoff_ms : worker->interval_ms) * 1000;
			any = inbox_rows_waiting(worker);
			tick = next_tick(worker);
		}
		else
			kda_waits_after_commit(worker);

		/* Until rows come, the next commit is due, or time itself moves something. */
		timeout = MAX_WAIT_MS;
		if (any)
			timeout = Min(timeout, TimestampDifferenceMilliseconds(now, due));
		if (tick != KDA_END_TIME)
			timeout = Min(timeout, TimestampDifferenceMilliseconds(now, Max(tick, due)));
		service = next_service(worker);
		if (service != 0)
			timeout = Min(timeout, TimestampDifferenceMilliseconds(now, service));
		if (look_again > now)
			timeout = Min(timeout, TimestampDifferenceMilliseconds(now, look_again));
		if (kda_waits_pending())
			timeout = Min(timeout, 20);
		if (worker->strangers)
			timeout = Min(timeout, STRANGERS_MS);

		if (set == NULL)
		{
			set = kda_create_wait_event_set(worker->context, 3);
			AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
			AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
			AddWaitEventToSet(set, WL_SOCKET_READABLE, worker->wake_read, NULL, NULL);
		}
		if (WaitEventSetWait(set, Max(timeout, 0), &event, 1, kda_wait_event_main()) > 0)
		{
			if (event.events & WL_LATCH_SET)
				ResetLatch(MyLatch);
			if (event.events & WL_SOCKET_READABLE)
				kda_worker_drain(worker->wake_read);
		}
		else if (worker->strangers)
			worker->reload = true;
		slot->idle_ms += (kda_clock_now() - now) / 1000.0;
	}
}

void
kda_worker_main(Datum arg)
{
	KdaWorker  *worker;

	kda_worker_attach(DatumGetInt32(arg));
	kda_in_worker = true;
	kda_worker_settings("off");

	worker = MemoryContextAllocZero(TopMemoryContext, sizeof(KdaWorker));
	worker->context = AllocSetContextCreate(TopMemoryContext, "kda worker", ALLOCSET_DEFAULT_SIZES);
	worker->name = MemoryContextStrdup(worker->context, NameStr(kda_shared->slots[kda_my_slot].worker));
	worker->slot = kda_shared->slots[kda_my_slot].number;
	worker->reload = true;
	worker->interval_ms = kda_commit_interval_ms;
	kda_worker = worker;
	kda_worker_pipe(&worker->wake_read, &worker->wake_write);
	CacheRegisterRelcacheCallback(on_relcache, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, on_options, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, on_options, (Datum) 0);
	before_shmem_exit(close_sources, (Datum) 0);

	loop(worker);
	proc_exit(0);
}
