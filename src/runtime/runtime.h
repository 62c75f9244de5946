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
#include "port/atomics.h"
#include "runtime/fault.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
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
#define KDA_MAX_WAITS		64
#define KDA_MAX_PARKED		16
#define KDA_MAX_QUEUED		64

/*
 * A slot for a pipeline or deliver worker: slot number + generation identify a run.
 * All of it is protected by KdaShared.lock but for what is marked otherwise.
 */
typedef struct KdaSlot
{
	bool		wanted;			/* a database has streams for it */
	Oid			database;		/* InvalidOid: the slot is free */
	NameData	worker;			/* option worker: 'main' */
	int			number;			/* which of its processes: 0 closes and emits, the others only count */
	bool		deliver;		/* it is the database's deliver worker */
	uint64		generation;		/* counts runs; raised by the launcher at each start */
	pid_t		pid;			/* 0: not running */
	Latch	   *latch;			/* of the running process, NULL otherwise */
	int			restarts;
	TimestampTz started;
	TimestampTz next_start;		/* back-off */
	char		last_error[256];
	char		waiting_for[192];	/* what holds the worker up now; empty: nothing */
	char		held_back_by[192];	/* whose old snapshot makes tables grow; empty: nobody's */
	bool		backing_off;	/* the worker itself pauses after an error */
	bool		stop_asked;		/* its end is no failure */
	/*
	 * Counts calls of kda_slots_wake().  The latch is not enough: whatever
	 * waits inside a transaction (for a lock, in code of users) resets it.
	 */
	pg_atomic_uint32 wakes;
	/* written by the worker alone, read without lock for kda.workers */
	uint64		commits;
	double		commit_ms;
	double		busy_ms;
	double		idle_ms;
	double		backpressured_ms;
	int			interval_ms;	/* between its commits, as stretched now */
	TimestampTz last_commit;
} KdaSlot;

/* A request of kda.wait: a worker takes it up and answers. */
typedef struct KdaWaitRequest
{
	uint64		id;				/* 0: free */
	Oid			database;
	Oid			stream;
	bool		done;
	pid_t		pid;			/* of the waiting backend, which frees the entry */
} KdaWaitRequest;

/* A database that somebody drops, renames or copies: no worker may be in it. */
typedef struct KdaParked
{
	Oid			database;		/* InvalidOid: free */
	pid_t		pid;			/* of the session that does it */
} KdaParked;

/* A worker that a database asks for and that no slot is free for. */
typedef struct KdaQueued
{
	Oid			database;		/* InvalidOid: free */
	NameData	worker;
	int			number;
	bool		deliver;
} KdaQueued;

/* A worker that a database asks for. */
typedef struct KdaWanted
{
	char	   *name;
	int			processes;		/* the greatest parallelism of its streams */
	bool		deliver;
} KdaWanted;

typedef struct KdaShared
{
	LWLock	   *lock;
	Latch	   *launcher_latch;
	pid_t		launcher_pid;
	uint64		next_wait_id;
	ConditionVariable wait_cv;	/* broadcast whenever a request is done */
	KdaWaitRequest waits[KDA_MAX_WAITS];
	KdaParked	parked[KDA_MAX_PARKED];
	KdaQueued	queued[KDA_MAX_QUEUED];
#ifdef KDA_FAULTS
	KdaFaultState fault;
#endif
	int			nslots;			/* kda_stream.max_workers */
	KdaSlot		slots[FLEXIBLE_ARRAY_MEMBER];
} KdaShared;

extern KdaShared *kda_shared;

extern void kda_shmem_init(void);

/*
 * Says which workers a database needs; slots that it had and does not ask for
 * any more are given up.  Returns the number of processes for which there was
 * no free slot; they are queued for the next one.
 */
extern int	kda_slots_want(Oid database, int n, const KdaWanted *wanted);
/* Makes a free slot that worker's; with the lock held. */
extern void kda_slot_assign(KdaSlot *slot, Oid database, const char *worker, int number, bool deliver);
extern void kda_slots_wake(Oid database);	/* sets the latches of its workers */
/* The same of one worker: of its process 0, or of the others. */
extern void kda_slots_wake_worker(const char *worker, bool first);
extern void kda_slots_wake_deliver(void);	/* the deliver worker of this database */
extern bool kda_slots_any(Oid database);	/* has it any? */
extern void kda_launcher_wake(void);

/*---- launcher.c, probe.c */
extern void kda_launcher_init(void);	/* registers the static background worker */
/* The workers that this database's streams ask for; in a transaction. */
extern int	kda_workers_wanted(KdaWanted **wanted);

/*---- notify.c: what other processes hear of a transaction, at its commit */

/*
 * This database's set of streams, queries or workers has changed: wakes the
 * launcher and the database's workers.
 */
extern void kda_notify_change(void);
/* Only wakes this database's workers (rows were inserted). */
extern void kda_notify_rows(void);
/* Only wakes its deliver worker (rows of outboxes were). */
extern void kda_notify_outbox(void);

/*---- park.c: no workers in a database while it is dropped, renamed, copied */
extern void kda_park_database(Oid database);
extern void kda_unpark_databases(void);
extern bool kda_is_parked(Oid database);

/*---- wait.c: kda.wait, and the worker's view of the requests */
extern int	kda_wait_pending(KdaWaitRequest *into, int max);
extern void kda_wait_mark_done(uint64 id);

/*---- process.c: what a worker's process is made of */
extern void kda_worker_attach(int slot);
/* A pipe that library threads write to; neither end blocks. */
extern void kda_worker_pipe(int *read_end, int *write_end);
extern void kda_worker_drain(int read_end);
/* The settings that a worker runs under, whatever the server's defaults are. */
extern void kda_worker_settings(const char *synchronous_commit);
extern bool kda_worker_should_stop(void);
/* Ends the process if its postmaster has: only waiting would notice, and there may always be more to do. */
extern void kda_worker_exit_alone(void);
/* strlcpy() that does not cut a character in two. */
extern void kda_copy_text(char *to, const char *from, Size size);
extern void kda_worker_report_error(const char *message);
/* What the worker is held up by, for kda.workers; NULL: by nothing any more. */
extern void kda_worker_report_waiting(const char *what);
extern void kda_worker_report_held_back(const char *who);
extern void kda_worker_report_backoff(bool backing_off);
extern uint32 kda_wait_event_main(void);
/* Is the database one that this server was told to run? */
extern bool kda_database_allowed(const char *name);

/*---- worker.c: the order of the stages */
extern PGDLLEXPORT void kda_worker_main(Datum arg);
extern PGDLLEXPORT void kda_deliver_main(Datum arg);
extern PGDLLEXPORT void kda_launcher_main(Datum arg);
extern PGDLLEXPORT void kda_probe_main(Datum arg);

/* True in a deliver worker. */
extern bool kda_in_deliver;

/* This worker's slot (index into kda_shared->slots). */
extern int	kda_my_slot;

#endif							/* KDA_RUNTIME_H */
