/*-------------------------------------------------------------------------
 *
 * stats.c
 *	  kda.workers: what shared memory knows of the launcher and the workers.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "commands/dbcommands.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "runtime/runtime.h"
#include "utils/builtins.h"

#define NCOLUMNS 17

PG_FUNCTION_INFO_V1(kda_workers);

/* Rows of view kda.workers. */
Datum
kda_workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = kda_clock_now();
	KdaSlot    *slots;
	KdaQueued	queued[KDA_MAX_QUEUED];
	pid_t		launcher;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	n = kda_shared->nslots;
	slots = palloc(sizeof(KdaSlot) * Max(n, 1));
	LWLockAcquire(kda_shared->lock, LW_SHARED);
	memcpy(slots, kda_shared->slots, sizeof(KdaSlot) * n);
	memcpy(queued, kda_shared->queued, sizeof(queued));
	launcher = kda_shared->launcher_pid;
	LWLockRelease(kda_shared->lock);

	for (int i = -1; i < n; i++)
	{
		Datum		values[NCOLUMNS] = {0};
		bool		nulls[NCOLUMNS];
		KdaSlot    *slot = i < 0 ? NULL : &slots[i];

		memset(nulls, false, sizeof(nulls));
		if (slot && !OidIsValid(slot->database))
			continue;
		if (slot == NULL)
		{
			memset(nulls, true, sizeof(nulls));
			values[0] = Int32GetDatum(launcher);
			nulls[0] = launcher == 0;
			values[1] = CStringGetTextDatum("launcher");
			values[4] = CStringGetTextDatum(launcher ? "running" : "stopped");
			nulls[1] = nulls[4] = false;
		}
		else
		{
			char	   *database = get_database_name(slot->database);
			const char *state = slot->pid == 0 ?
				(!slot->wanted ? "stopped" : slot->next_start > now ? "backing off" : "starting") :
				slot->backing_off ? "backing off" : "running";

			values[0] = Int32GetDatum(slot->pid);
			nulls[0] = slot->pid == 0;
			values[1] = CStringGetTextDatum(slot->deliver ? "deliver" : "pipeline");
			values[2] = Int32GetDatum(slot->number);
			nulls[3] = database == NULL;
			values[3] = database ? CStringGetTextDatum(database) : (Datum) 0;
			values[4] = CStringGetTextDatum(state);
			values[5] = Int64GetDatum(slot->restarts);
			nulls[6] = slot->last_error[0] == '\0';
			values[6] = CStringGetTextDatum(slot->last_error);
			values[7] = Int64GetDatum(slot->commits);
			values[8] = Float8GetDatum(slot->commit_ms);
			values[9] = Float8GetDatum(slot->busy_ms);
			values[10] = Float8GetDatum(slot->backpressured_ms);
			values[11] = Float8GetDatum(slot->idle_ms);
			values[12] = TimestampTzGetDatum(slot->last_commit);
			nulls[12] = slot->last_commit == 0;
			values[13] = Int32GetDatum(slot->interval_ms);
			nulls[13] = slot->interval_ms == 0;
			nulls[14] = slot->waiting_for[0] == '\0';
			values[14] = CStringGetTextDatum(slot->waiting_for);
			nulls[15] = slot->held_back_by[0] == '\0';
			values[15] = CStringGetTextDatum(slot->held_back_by);
			values[16] = CStringGetTextDatum(NameStr(slot->worker));
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	/* those that no slot is free for */
	for (int i = 0; i < KDA_MAX_QUEUED; i++)
	{
		Datum		values[NCOLUMNS] = {0};
		bool		nulls[NCOLUMNS];
		char	   *database;

		if (!OidIsValid(queued[i].database))
			continue;
		memset(nulls, true, sizeof(nulls));
		database = get_database_name(queued[i].database);
		values[1] = CStringGetTextDatum(queued[i].deliver ? "deliver" : "pipeline");
		values[3] = database ? CStringGetTextDatum(database) : (Datum) 0;
		values[4] = CStringGetTextDatum("starting");
		values[16] = CStringGetTextDatum(NameStr(queued[i].worker));
		nulls[16] = false;
		values[6] = CStringGetTextDatum(psprintf("worker \"%s\" waits for a slot: raise kda_stream.max_workers (%d) and restart the server",
												 NameStr(queued[i].worker), kda_max_workers));
		nulls[1] = nulls[4] = nulls[6] = false;
		nulls[3] = database == NULL;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
