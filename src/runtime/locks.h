/*-------------------------------------------------------------------------
 *
 * locks.h
 *	  Locks on relations that a worker takes without ever waiting for one
 *	  while it holds another.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_LOCKS_H
#define KDA_LOCKS_H

#include "kda_stream.h"
#include "storage/lockdefs.h"

/*
 * In a worker's transaction: locks the relation, or leaves by an error (55P03)
 * at which the worker rolls back, waits for that lock in an empty transaction
 * and starts over.  In other processes it waits, as anybody does.
 */
extern void kda_lock_or_leave(Oid relid, LOCKMODE mode);

#endif							/* KDA_LOCKS_H */
