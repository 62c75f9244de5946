/*-------------------------------------------------------------------------
 *
 * runtime.h
 *	  Parameters, shared memory, launcher, worker, clock.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_RUNTIME_H
#define KDA_RUNTIME_H

#include "kda_stream.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

/*---- guc.c: the parameters kda_stream.* (units in the names) */
extern bool kda_enabled;
extern bool kda_extend_grammar;
extern char *kda_databases;
extern int	kda_max_workers;
extern int	kda_commit_interval_ms;
extern int	kda_commit_interval_max_ms;
extern int	kda_batch_records;
extern int	kda_batch_bytes_kb;
extern int	kda_state_cache_kb;
extern int	kda_buffer_size_kb;
extern int	kda_outbox_size_kb;
extern int	kda_error_stream_size_kb;
extern int	kda_error_retention_min;
extern int	kda_retry_max_interval_ms;
extern int	kda_fetch_memory_kb;
extern int	kda_query_timeout_ms;
extern int	kda_max_record_bytes;
extern int	kda_max_json_depth;
extern char *kda_machine_credentials_role;
extern bool kda_log_payloads;

extern void kda_guc_init(void);

/*---- clock.c: nobody else reads the clock for semantics */
extern TimestampTz kda_clock_now(void);

/*---- shmem.c */
#define KDA_WORKER_NAME_LEN		64

typedef enum KdaSlotState
{
	KDA_SLOT_FREE,
	KDA_SLOT_WANTED,			/* the launcher should start it */
	KDA_SLOT_STARTING,
	KDA_SLOT_RUNNING,
	KDA_SLOT_BACKOFF,
	KDA_SLOT_STOPPED
} KdaSlotState;

/*
 * A slot for a pipeline worker: slot number + generation identify a run.
 * Protected by KdaShared.lock but for what is marked otherwise.
 */
typedef struct KdaSlot
{
	KdaSlotState state;
	uint64		generation;		/* counts runs; raised by the launcher at each start */
	Oid			database;
	NameData	worker;			/* option worker: 'main' */
	pid_t		pid;
	Latch	   *latch;			/* of the running process, NULL otherwise */
	int			restarts;
	TimestampTz next_start;		/* back-off */
	char		last_error[256];
	/* written by the worker alone, read without lock for kda.workers */
	uint64		commits;
	double		commit_ms;
	double		busy_ms;
	double		idle_ms;
	double		backpressured_ms;
	TimestampTz last_commit;
	char		doing[128];		/* what it waits for, "" if nothing */
	/* kda.wait: tickets taken and served; waiters sleep on served_cv */
	uint64		wait_taken;
	uint64		wait_served;	/* every wait with ticket <= this is answered */
	ConditionVariable served_cv;
} KdaSlot;

/*
 * A request of kda.wait: the worker sees it, finds targets, and answers.
 */
#define KDA_MAX_WAITS	64
typedef struct KdaWaitRequest
{
	uint64		id;				/* 0: free */
	Oid			database;
	Oid			stream;
	bool		seen;			/* the worker has taken it up */
	bool		done;
	pid_t		pid;			/* of the waiting backend; it frees the entry */
} KdaWaitRequest;

typedef struct KdaShared
{
	LWLock	   *lock;
	Latch	   *launcher_latch;
	pid_t		launcher_pid;
	uint64		next_wait_id;
	ConditionVariable wait_cv;	/* broadcast whenever a request is done */
	KdaWaitRequest waits[KDA_MAX_WAITS];
	int			nslots;			/* kda_stream.max_workers */
	KdaSlot		slots[FLEXIBLE_ARRAY_MEMBER];
} KdaShared;

extern KdaShared *kda_shared;

extern void kda_shmem_init(void);

/*---- launcher.c */
extern void kda_launcher_init(void);	/* registers the static background worker and hooks for DROP DATABASE etc. */
/*
 * Tells at commit of the current transaction (never on abort): this
 * database's set of streams, queries or workers has changed.  Wakes the
 * launcher and the database's workers.
 */
extern void kda_notify_change(void);
/* Only wakes this database's workers at commit (rows were inserted). */
extern void kda_notify_rows(void);
/* ProcessUtility part: parks workers of a database for DROP/RENAME/… DATABASE, CREATE DATABASE TEMPLATE. Called by catalog/utility_hook.c around the statement. */
extern void kda_park_database(const char *dbname);
extern void kda_unpark_databases(void);

/*---- worker.c: the order of the stages */
extern PGDLLEXPORT void kda_worker_main(Datum arg);
extern PGDLLEXPORT void kda_launcher_main(Datum arg);
extern PGDLLEXPORT void kda_probe_main(Datum arg);

/* This worker's slot (index into kda_shared->slots). */
extern int	kda_my_slot;

#endif							/* KDA_RUNTIME_H */
