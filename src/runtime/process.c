/*-------------------------------------------------------------------------
 *
 * process.c
 *	  What a worker's process is made of: its slot, its connection to
 *	  the database, when it has to stop, what it says of itself.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "libpq/pqsignal.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "runtime/runtime.h"
#include "runtime/worker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/varlena.h"

int			kda_my_slot = -1;
static uint64 my_generation = 0;

static void
detach(int code, Datum arg)
{
	KdaSlot    *slot = &kda_shared->slots[kda_my_slot];

	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	/* nobody else sets or clears it while this process lives: two workers never meet in a slot */
	if (slot->pid == MyProcPid)
	{
		slot->latch = NULL;
		slot->pid = 0;
		slot->waiting_for[0] = slot->held_back_by[0] = '\0';
		slot->backing_off = false;
	}
	if (kda_shared->launcher_latch)
		SetLatch(kda_shared->launcher_latch);
	LWLockRelease(kda_shared->lock);
}

void
kda_worker_attach(int number)
{
	KdaSlot    *slot = &kda_shared->slots[number];
	Oid			database;
	char		name[NAMEDATALEN];
	int			of_worker;
	bool		deliver;
	uint64		generation;

	kda_my_slot = number;
	memcpy(&generation, MyBgworkerEntry->bgw_extra, sizeof(generation));
	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	if (slot->pid != 0 || !slot->wanted || slot->generation != generation || kda_is_parked(slot->database))
	{
		/* given up since, or somebody else is there already */
		LWLockRelease(kda_shared->lock);
		proc_exit(0);
	}
	slot->pid = MyProcPid;
	slot->latch = &MyProc->procLatch;
	slot->started = GetCurrentTimestamp();
	my_generation = generation;
	database = slot->database;
	strlcpy(name, NameStr(slot->worker), sizeof(name));
	of_worker = slot->number;
	deliver = slot->deliver;
	LWLockRelease(kda_shared->lock);
	before_shmem_exit(detach, (Datum) 0);

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	SetConfigOption("application_name", deliver ? "kda_stream deliver" : of_worker == 0 ? psprintf("kda_stream %s", name) :
					psprintf("kda_stream %s/%d", name, of_worker), PGC_USERSET, PGC_S_SESSION);
	pgstat_report_activity(STATE_IDLE, NULL);
}

void
kda_worker_pipe(int *read_end, int *write_end)
{
	int			fds[2];

	if (pipe(fds) != 0)
		ereport(ERROR,
				(errcode_for_file_access(), errmsg("could not create a pipe: %m")));
	for (int i = 0; i < 2; i++)
	{
		fcntl(fds[i], F_SETFL, O_NONBLOCK);
		fcntl(fds[i], F_SETFD, FD_CLOEXEC);
	}
	*read_end = fds[0];
	*write_end = fds[1];
}

void
kda_worker_drain(int read_end)
{
	char		buffer[256];

	while (read(read_end, buffer, sizeof(buffer)) > 0)
		;
}

void
kda_worker_settings(const char *synchronous_commit)
{
	SetConfigOption("synchronous_commit", synchronous_commit, PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("jit", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", psprintf("%d", kda_locks_timeout_ms()), PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("idle_in_transaction_session_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET, PGC_S_OVERRIDE);
	/* in a deadlock with a user's session, it is the worker that gives way */
	SetConfigOption("deadlock_timeout", "100ms", PGC_SUSET, PGC_S_OVERRIDE);
}

void
kda_worker_exit_alone(void)
{
	/*
	 * Not PostmasterIsAlive(): that looks once, when the signal of the death
	 * comes, and a child in the middle of its birth may still hold the pipe.
	 */
	if (!PostmasterIsAliveInternal())
		proc_exit(1);
}

bool
kda_worker_should_stop(void)
{
	KdaSlot    *slot = &kda_shared->slots[kda_my_slot];
	bool		stop;

	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	stop = !slot->wanted || slot->generation != my_generation || kda_is_parked(slot->database) || !kda_enabled;
	if (stop)
		slot->stop_asked = true;
	LWLockRelease(kda_shared->lock);
	return stop;
}

void
kda_copy_text(char *to, const char *from, Size size)
{
	int			len = pg_mbcliplen(from, strlen(from), size - 1);

	memmove(to, from, len);
	to[len] = '\0';
}

void
kda_worker_report_error(const char *message)
{
	KdaSlot    *slot = &kda_shared->slots[kda_my_slot];

	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	kda_copy_text(slot->last_error, message, sizeof(slot->last_error));
	LWLockRelease(kda_shared->lock);
}

void
kda_worker_report_waiting(const char *what)
{
	KdaSlot    *slot = &kda_shared->slots[kda_my_slot];
	static char before[sizeof(slot->last_error)];

	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	if (what)
	{
		if (slot->waiting_for[0] == '\0')
			strlcpy(before, slot->last_error, sizeof(before));
		strlcpy(slot->waiting_for, what, sizeof(slot->waiting_for));
		snprintf(slot->last_error, sizeof(slot->last_error), "waiting for %s", what);
	}
	else if (slot->waiting_for[0] != '\0')
	{
		slot->waiting_for[0] = '\0';
		strlcpy(slot->last_error, before, sizeof(slot->last_error));
	}
	LWLockRelease(kda_shared->lock);
}

void
kda_worker_report_held_back(const char *who)
{
	KdaSlot    *slot = &kda_shared->slots[kda_my_slot];

	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	strlcpy(slot->held_back_by, who ? who : "", sizeof(slot->held_back_by));
	LWLockRelease(kda_shared->lock);
}

void
kda_worker_report_backoff(bool backing_off)
{
	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	kda_shared->slots[kda_my_slot].backing_off = backing_off;
	LWLockRelease(kda_shared->lock);
}

uint32
kda_wait_event_main(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = WaitEventExtensionNew("KdaStreamMain");
	return event;
}

bool
kda_database_allowed(const char *name)
{
	List	   *allowed;
	ListCell   *lc;

	if (!kda_enabled)
		return false;
	if (kda_databases == NULL || kda_databases[0] == '\0')
		return true;
	if (!SplitIdentifierString(pstrdup(kda_databases), ',', &allowed))
		return false;
	foreach(lc, allowed)
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	return false;
}
