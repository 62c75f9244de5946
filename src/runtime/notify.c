/*-------------------------------------------------------------------------
 *
 * notify.c
 *	  What the launcher and the workers hear of a session's transaction: once,
 *	  at its commit, never after an abort.
 *
 * Which workers the database needs is read before the commit (the catalog
 * cannot be read after it) and told after it.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "runtime/runtime.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

static bool registered = false;
static bool changed = false;
static bool inserted = false;
static bool outboxes = false;
static int	nwanted = 0;
static KdaWanted *wanted = NULL;

static void
at_xact_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			/* a restored or copied database: nobody has started its workers yet */
			if ((inserted || outboxes) && !kda_slots_any(MyDatabaseId))
				changed = true;
			if (changed)
			{
				MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

				PushActiveSnapshot(GetTransactionSnapshot());
				nwanted = kda_workers_wanted(&wanted);
				PopActiveSnapshot();
				MemoryContextSwitchTo(old);
			}
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (changed)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has changed streams or continuous queries")));
			break;
		case XACT_EVENT_COMMIT:
			if (changed)
			{
				int			missing = kda_slots_want(MyDatabaseId, nwanted, wanted);

				if (missing > 0)
					ereport(WARNING,
							(errmsg("%d of this database's workers cannot be started: all %d slots are in use",
									missing, kda_max_workers),
							 errhint("Raise kda_stream.max_workers and restart the server.")));
				kda_launcher_wake();
			}
			if (changed || inserted)
				kda_slots_wake(MyDatabaseId);
			else if (outboxes)
				kda_slots_wake_deliver();
			changed = inserted = outboxes = false;
			wanted = NULL;
			break;
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			changed = inserted = outboxes = false;
			wanted = NULL;
			break;
		default:
			break;
	}
}

static void
ensure_registered(void)
{
	if (!registered)
		RegisterXactCallback(at_xact_event, NULL);
	registered = true;
}

void
kda_notify_change(void)
{
	ensure_registered();
	changed = true;
}

void
kda_notify_rows(void)
{
	if (kda_in_worker)
		return;
	ensure_registered();
	inserted = true;
}

void
kda_notify_outbox(void)
{
	ensure_registered();
	outboxes = true;
}
