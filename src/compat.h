/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Differences between PostgreSQL 15, 16, 17 and 18, written in the newest
 *	  API's shape: code elsewhere is written as for 18.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_COMPAT_H
#define KDA_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "kda_stream needs PostgreSQL 15 or later"
#endif

/* Named wait events came with 17; before, all extensions share one. */
#if PG_VERSION_NUM < 170000
#include "utils/wait_event.h"
#define WaitEventExtensionNew(name)	((uint32) PG_WAIT_EXTENSION)
#endif

#endif							/* KDA_COMPAT_H */
