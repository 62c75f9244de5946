/*-------------------------------------------------------------------------
 *
 * compose.h
 *	  Queries that are made of several: their parts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_COMPOSE_H
#define KDA_COMPOSE_H

#include "kda_stream.h"
#include "dialect/dialect.h"

typedef struct KdaCompose
{
	KdaQuerySpec *spec;			/* of the whole; its select and windows are changed */
	const char *source_text;
	const char *time_zone;		/* option of the query, NULL: none */
	const char *start;			/* likewise */
	int32		query_id;		/* of the whole */
	bool		is_view;
	List	   *parts;			/* Oid: what was made, and goes with the whole */
} KdaCompose;

/*
 * Makes streams and pumps for those parts of the query that have to be
 * computed before the rest, and puts the streams in their place.  What remains
 * reads one stream.
 */
extern void kda_compose(KdaCompose *compose);

/*---- create_query.c */

/* A pump that is a part of a query: its rows go to a stream of ours.  Returns its view. */
extern Oid	kda_create_part(KdaCompose *compose, KdaQuerySpec *spec, Oid target, bool add_window_columns);

#endif							/* KDA_COMPOSE_H */
