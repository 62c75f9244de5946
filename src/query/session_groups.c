/*-------------------------------------------------------------------------
 *
 * session_groups.c
 *	  Groups whose window depends on other rows: a group is a session, or a
 *	  stagger window, of its key.
 *
 * The sessions of sessions.c find the groups, by the key without the window;
 * everything else is as groups.h says.  A row that bridges two sessions makes
 * one group of them: the later one's states go into the earlier one's, and its
 * tuple is deleted with the next write-back.  Until then it stays among the
 * dirty groups, so that a rolled back attempt can bring it back.
 *
 * In a pipeline worker only.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "query/agg_signature.h"
#include "query/groups.h"
#include "query/sessions.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

static inline bool
is_stagger(KdaGroups *groups)
{
	return groups->query->window.kind == KDA_WINDOW_STAGGER;
}

void
kda_session_groups_init(KdaGroups *groups)
{
	groups->sessions = kda_sessions_create(groups->context, groups->state, groups->query,
										   groups->nkeys - KDA_SESSION_COLUMNS, groups->keys + KDA_SESSION_COLUMNS);
}

/* A group's own columns as its session has them. */
static void
set_bounds(KdaGroups *groups, KdaGroup *g)
{
	KdaSession *s = g->session;
	bool	   *nulls = kda_group_nulls(groups, g);

	g->values[0] = TimestampTzGetDatum(s->start);
	g->values[1] = is_stagger(groups) ? Int64GetDatum(s->order) :
		TimestampTzGetDatum(s->end - groups->query->window.size);
	g->values[2] = Int64GetDatum(s->key->number);
	nulls[0] = nulls[1] = nulls[2] = false;
}

static KdaSession *
session_of_probe(KdaGroups *groups)
{
	KdaTime		start = DatumGetTimestampTz(groups->probe_values[0]);
	KdaSessionKey *key = kda_sessions_key(groups->sessions, groups->probe_values + KDA_SESSION_COLUMNS,
										  groups->probe_nulls + KDA_SESSION_COLUMNS);

	key->number = DatumGetInt64(groups->probe_values[2]);
	groups->sessions->next_number = Max(groups->sessions->next_number, key->number + 1);
	if (is_stagger(groups))
		return kda_sessions_add(groups->sessions, key, start, start + groups->query->window.size,
								DatumGetInt64(groups->probe_values[1]));
	return kda_sessions_add(groups->sessions, key, start,
							DatumGetTimestampTz(groups->probe_values[1]) + groups->query->window.size, 0);
}

static void
fetch(KdaGroups *groups, Relation rel, ItemPointer tid, TupleTableSlot *slot)
{
	if (!table_tuple_fetch_row_version(rel, tid, SnapshotAny, slot))
		elog(ERROR, "a group of %s has vanished from its table", groups->query->name);
	slot_getallattrs(slot);
}

/*---- what a row does to sessions that are there */

/* In memory, and dirty: an error from here on has it read again. */
static void
hold(void *arg, KdaSession *session)
{
	KdaGroups  *groups = arg;

	if (session->group == NULL)
	{
		Relation	rel = table_open(groups->query->open_rel, RowExclusiveLock);
		TupleTableSlot *slot = table_slot_create(rel, NULL);
		KdaGroup   *g;

		fetch(groups, rel, &session->tid, slot);
		/* the probe has the same key */
		g = kda_group_make(groups, session->key->hash);
		kda_group_set_states(groups, g, slot);
		g->tid = session->tid;
		g->session = session;
		session->group = g;
		ExecDropSingleTupleTableSlot(slot);
		table_close(rel, NoLock);
	}
	kda_group_dirty(groups, session->group);
}

static void
join(void *arg, KdaSession *into, KdaSession *from)
{
	KdaGroups  *groups = arg;
	KdaGroup   *g = from->group;

	for (int i = 0; i < groups->naggs; i++)
		kda_group_combine(groups, into->group, g, i);
	kda_groups_remove(groups, g);
	g->gone = true;
	g->session = NULL;
}

static const KdaSessionCalls calls = {hold, join};

KdaGroup *
kda_session_group(KdaGroups *groups)
{
	KdaTime		t = DatumGetTimestampTz(groups->probe_values[0]);
	KdaTime		mark = is_stagger(groups) ?
		kda_query_mark(groups->query, (int) DatumGetInt64(groups->probe_values[1])) : KDA_NO_TIME;
	KdaSessionKey *key = kda_sessions_key(groups->sessions, groups->probe_values + KDA_SESSION_COLUMNS,
										  groups->probe_nulls + KDA_SESSION_COLUMNS);
	KdaSession *session;

	if (key->newest == NULL)
		key->number = groups->sessions->next_number++;
	session = kda_sessions_touch(groups->sessions, key, t, mark, &calls, groups);

	if (session->group == NULL)
	{
		session->group = kda_group_make(groups, key->hash);
		session->group->session = session;
		kda_group_dirty(groups, session->group);
	}
	set_bounds(groups, session->group);
	return session->group;
}

/*---- the table */

void
kda_session_group_load(KdaGroups *groups, TupleTableSlot *slot, bool resident)
{
	KdaSession *session = session_of_probe(groups);

	session->tid = slot->tts_tid;
	if (!resident)
		return;
	session->group = kda_group_make(groups, session->key->hash);
	session->group->tid = slot->tts_tid;
	session->group->session = session;
	kda_group_set_states(groups, session->group, slot);
}

void
kda_session_group_evict(KdaGroup *g)
{
	if (g->session == NULL)
		return;
	g->session->tid = g->tid;
	g->session->group = NULL;
}

/* The group as its tuple has it; it takes part again if a merger that was rolled back had put an end to it. */
static void
restore(KdaGroups *groups, KdaGroup *g, Relation rel, TupleTableSlot *slot)
{
	if (!ItemPointerIsValid(&g->tid))
	{
		if (!g->gone)
			kda_groups_remove(groups, g);
		return;
	}
	fetch(groups, rel, &g->tid, slot);
	kda_groups_set_probe(groups, slot);
	kda_group_set_states(groups, g, slot);
	g->session = session_of_probe(groups);
	g->session->group = g;
	set_bounds(groups, g);
	if (g->gone)
	{
		g->gone = false;
		kda_group_restore(groups, g);
	}
}

void
kda_session_groups_abort(KdaGroups *groups)
{
	Relation	rel = table_open(groups->query->open_rel, RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int			n = 0;
	KdaGroup  **touched = palloc_extended(sizeof(KdaGroup *) * (groups->ndirty + groups->nundo - groups->undo_mark + 1),
										  MCXT_ALLOC_HUGE);

	for (int i = 0; i < groups->ndirty; i++)
	{
		touched[n++] = groups->dirty[i];
		groups->dirty[i]->reread = true;
	}
	for (int i = groups->nundo - 1; i >= groups->undo_mark; i--)
	{
		KdaGroup   *g = groups->undo[i].group;

		g->tid = groups->undo[i].old;
		if (!g->reread)
			touched[n++] = g;
		g->reread = true;
	}
	/* all bounds that may be wrong go before the right ones come */
	for (int i = 0; i < n; i++)
	{
		touched[i]->reread = touched[i]->dirty = false;
		if (touched[i]->session)
			kda_sessions_remove(groups->sessions, touched[i]->session);
		touched[i]->session = NULL;
	}
	for (int i = 0; i < n; i++)
		restore(groups, touched[i], rel, slot);
	pfree(touched);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	groups->nundo = groups->undo_mark;
	groups->ndirty = 0;
}

KdaSessions *
kda_groups_sessions(KdaGroups *groups)
{
	return groups->sessions;
}

/*---- closing */

KdaTime
kda_groups_tuple_end(KdaGroups *groups, TupleTableSlot *slot)
{
	bool		isnull;

	return DatumGetTimestampTz(slot_getattr(slot, KDA_OPEN_FIRST_KEY + (is_stagger(groups) ? 0 : 1), &isnull)) +
		groups->query->window.size;
}

ItemPointer
kda_session_tids(KdaSession *const *list, int n)
{
	ItemPointer tids = palloc_extended(sizeof(ItemPointerData) * (n + 1), MCXT_ALLOC_HUGE);

	for (int i = 0; i < n; i++)
		tids[i] = list[i]->group ? list[i]->group->tid : list[i]->tid;
	return tids;
}

ItemPointer
kda_groups_ended(KdaGroups *groups, KdaTime upto, int *n)
{
	KdaSessions *sessions = groups->sessions;

	kda_sessions_end(sessions, upto);
	*n = sessions->nended;
	return kda_session_tids(sessions->ended, sessions->nended);
}

ItemPointer
kda_session_groups_close(KdaGroups *groups, KdaTime frontier, int64 *n)
{
	KdaSessions *sessions = groups->sessions;
	ItemPointer tids;

	kda_sessions_end_final(sessions, frontier);
	tids = kda_session_tids(sessions->ended, sessions->nended);
	*n = sessions->nended;
	for (int i = 0; i < sessions->nended; i++)
	{
		KdaSession *s = sessions->ended[i];

		if (s->group)
		{
			s->group->session = NULL;
			kda_groups_remove(groups, s->group);
		}
		kda_sessions_remove(sessions, s);
	}
	sessions->nended = 0;
	return tids;
}
