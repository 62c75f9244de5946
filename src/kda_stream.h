/*-------------------------------------------------------------------------
 *
 * kda_stream.h
 *	  The shared vocabulary of all rooms: schema names, time, and which
 *	  process we are.  Every .c file includes this first, in place of
 *	  postgres.h.
 *
 * Rooms depend one way only:
 *	  catalog, format < connector, stream < query < runtime; dialect beside.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_STREAM_H
#define KDA_STREAM_H

#include "postgres.h"

#include "compat.h"
#include "datatype/timestamp.h"
#include "utils/timestamp.h"

#define KDA_SCHEMA			"kda"			/* what users call */
#define KDA_STORAGE_SCHEMA	"kda_storage"	/* tables of ours, not for users */
#define KDA_FDW_NAME		"kda_stream"
#define KDA_LOCAL_SERVER	"kda"			/* server of streams in the database */
#define KDA_LOCAL_SHARD		"local"			/* their only shard */

/*
 * Points in time are microseconds as in TimestampTz.  KDA_NO_TIME means "none
 * yet": smaller than every real time, so that comparisons need no branch.
 */
typedef TimestampTz KdaTime;
#define KDA_NO_TIME		DT_NOBEGIN
#define KDA_END_TIME	DT_NOEND
#define KDA_NEVER_US	(-1)	/* a delay option that says 'never' */

/* True in a pipeline worker while it runs; false in every other process. */
extern bool kda_in_worker;

#endif							/* KDA_STREAM_H */
