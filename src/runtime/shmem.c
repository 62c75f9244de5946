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
kda_slot_assign(KdaSlot *slot, Oid database, const char *worker)
{
	uint64		generation = slot->generation;

	memset(slot, 0, sizeof(*slot));
	pg_atomic_init_u32(&slot->wakes, 0);
	slot->generation = generation + 1;	/* one that was about to start for somebody else ends */
	slot->wanted = true;
	slot->database = database;
	namestrcpy(&slot->worker, worker);
}

/* With the lock held. */
static void
queue(Oid database, const char *worker)
{
	for (int i = 0; i < KDA_MAX_QUEUED; i++)
		if (!OidIsValid(kda_shared->queued[i].database))
		{
			kda_shared->queued[i].database = database;
			namestrcpy(&kda_shared->queued[i].worker, worker);
			return;
		}
}

int
kda_slots_want(Oid database, int n, char **names)
{
	int			missing = 0;

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
			if (strcmp(NameStr(slot->worker), names[i]) == 0)
				slot->wanted = true;
	}
	for (int i = 0; i < n; i++)
	{
		KdaSlot    *unused = NULL;
		bool		have = false;

		for (int s = 0; s < kda_shared->nslots; s++)
		{
			KdaSlot    *slot = &kda_shared->slots[s];

			if (slot->database == database && strcmp(NameStr(slot->worker), names[i]) == 0)
				have = true;
			else if (unused == NULL && !slot->wanted && slot->pid == 0)
				unused = slot;
		}
		if (have)
			continue;
		if (unused == NULL)
		{
			missing++;
			queue(database, names[i]);
			continue;
		}
		kda_slot_assign(unused, database, names[i]);
	}
	LWLockRelease(kda_shared->lock);
	return missing;
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
		pg_atomic_fetch_add_u32(&slot->wakes, 1);
		if (slot->latch)
			SetLatch(slot->latch);
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
