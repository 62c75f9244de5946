/*-------------------------------------------------------------------------
 *
 * shmem.c
 *	  The shared memory of all our processes: worker slots, requests of
 *	  kda.wait, parked databases.
 *
 * Everything in it is protected by KdaShared.lock, but for the counters of a
 * slot, which its worker alone writes.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "miscadmin.h"
#include "runtime/runtime.h"
#include "utils/builtins.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"

KdaShared  *kda_shared = NULL;

static shmem_request_hook_type next_request_hook = NULL;
static shmem_startup_hook_type next_startup_hook = NULL;

static Size
shared_size(void)
{
	return add_size(offsetof(KdaShared, slots), mul_size(kda_max_workers, sizeof(KdaSlot)));
}

static void
request(void)
{
	if (next_request_hook)
		next_request_hook();
	RequestAddinShmemSpace(MAXALIGN(shared_size()));
	RequestNamedLWLockTranche("kda_stream", 1);
}

static void
startup(void)
{
	bool		found;

	if (next_startup_hook)
		next_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	kda_shared = ShmemInitStruct("kda_stream", shared_size(), &found);
	if (!found)
	{
		memset(kda_shared, 0, shared_size());
		kda_shared->lock = &GetNamedLWLockTranche("kda_stream")->lock;
		kda_shared->nslots = kda_max_workers;
		for (int i = 0; i < kda_max_workers; i++)
			pg_atomic_init_u32(&kda_shared->slots[i].wakes, 0);
		ConditionVariableInit(&kda_shared->wait_cv);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
kda_shmem_init(void)
{
	next_request_hook = shmem_request_hook;
	shmem_request_hook = request;
	next_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup;
}

void
kda_slot_assign(KdaSlot *slot, Oid database, const char *worker, int number, bool deliver)
{
	uint64		generation = slot->generation;

	memset(slot, 0, sizeof(*slot));
	pg_atomic_init_u32(&slot->wakes, 0);
	slot->generation = generation + 1;	/* one that was about to start for somebody else ends */
	slot->wanted = true;
	slot->database = database;
	namestrcpy(&slot->worker, worker);
	slot->number = number;
	slot->deliver = deliver;
}

/* With the lock held. */
static void
queue(Oid database, const char *worker, int number, bool deliver)
{
	for (int i = 0; i < KDA_MAX_QUEUED; i++)
		if (!OidIsValid(kda_shared->queued[i].database))
		{
			kda_shared->queued[i].database = database;
			namestrcpy(&kda_shared->queued[i].worker, worker);
			kda_shared->queued[i].number = number;
			kda_shared->queued[i].deliver = deliver;
			return;
		}
}

/* A slot for that process, or the queue; with the lock held.  False: there was no slot. */
static bool
provide(Oid database, const char *worker, int number, bool deliver)
{
	KdaSlot    *unused = NULL;

	for (int s = 0; s < kda_shared->nslots; s++)
	{
		KdaSlot    *slot = &kda_shared->slots[s];

		if (slot->database == database && slot->number == number && slot->deliver == deliver &&
			strcmp(NameStr(slot->worker), worker) == 0)
			return true;
		if (unused == NULL && !slot->wanted && slot->pid == 0)
			unused = slot;
	}
	if (unused == NULL)
	{
		queue(database, worker, number, deliver);
		return false;
	}
	kda_slot_assign(unused, database, worker, number, deliver);
	return true;
}

int
kda_slots_want(Oid database, int n, const KdaWanted *wanted)
{
	int			missing = 0;
	int			most = 0;

	LWLockAcquire(kda_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < KDA_MAX_QUEUED; i++)
		if (kda_shared->queued[i].database == database)
			kda_shared->queued[i].database = InvalidOid;
	for (int s = 0; s < kda_shared->nslots; s++)
	{
		KdaSlot    *slot = &kda_shared->slots[s];

		if (slot->database != database)
			continue;
		slot->wanted = false;
		for (int i = 0; i < n; i++)
			if (strcmp(NameStr(slot->worker), wanted[i].name) == 0 && slot->deliver == wanted[i].deliver &&
				slot->number < wanted[i].processes)
				slot->wanted = true;
	}
	/* each worker gets one process before any gets a second one */
	for (int i = 0; i < n; i++)
		most = Max(most, wanted[i].processes);
	for (int number = 0; number < most; number++)
		for (int i = 0; i < n; i++)
			if (number < wanted[i].processes && !provide(database, wanted[i].name, number, wanted[i].deliver))
				missing++;
	LWLockRelease(kda_shared->lock);
	return missing;
}

/* With the lock held. */
static void
wake(KdaSlot *slot)
{
	pg_atomic_fetch_add_u32(&slot->wakes, 1);
	if (slot->latch)
		SetLatch(slot->latch);
}

void
kda_slots_wake(Oid database)
{
	LWLockAcquire(kda_shared->lock, LW_SHARED);
	for (int s = 0; s < kda_shared->nslots; s++)
	{
		KdaSlot    *slot = &kda_shared->slots[s];

		if (slot->database != database)
			continue;
		wake(slot);
	}
	LWLockRelease(kda_shared->lock);
}

void
kda_slots_wake_worker(const char *worker, bool first)
{
	LWLockAcquire(kda_shared->lock, LW_SHARED);
	for (int s = 0; s < kda_shared->nslots; s++)
	{
		KdaSlot    *slot = &kda_shared->slots[s];

		if (slot->database != MyDatabaseId || slot->deliver || (slot->number == 0) != first || strcmp(NameStr(slot->worker), worker) != 0)
			continue;
		wake(slot);
	}
	LWLockRelease(kda_shared->lock);
}

void
kda_slots_wake_deliver(void)
{
	LWLockAcquire(kda_shared->lock, LW_SHARED);
	for (int s = 0; s < kda_shared->nslots; s++)
	{
		KdaSlot    *slot = &kda_shared->slots[s];

		if (slot->database != MyDatabaseId || !slot->deliver)
			continue;
		wake(slot);
	}
	LWLockRelease(kda_shared->lock);
}

void
kda_launcher_wake(void)
{
	LWLockAcquire(kda_shared->lock, LW_SHARED);
	if (kda_shared->launcher_latch)
		SetLatch(kda_shared->launcher_latch);
	LWLockRelease(kda_shared->lock);
}

bool
kda_slots_any(Oid database)
{
	bool		any = false;

	LWLockAcquire(kda_shared->lock, LW_SHARED);
	for (int i = 0; i < kda_shared->nslots; i++)
		any |= kda_shared->slots[i].wanted && kda_shared->slots[i].database == database;
	LWLockRelease(kda_shared->lock);
	return any;
}
