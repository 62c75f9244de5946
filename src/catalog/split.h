/*-------------------------------------------------------------------------
 *
 * split.h
 *	  Splits the SELECT of a continuous query into its per-batch part and its
 *	  final part.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_SPLIT_H
#define KDA_SPLIT_H

#include "kda_stream.h"
#include "dialect/dialect.h"
#include "nodes/parsenodes.h"
#include "query/query.h"

typedef struct KdaSplit
{
	Oid			stream;
	KdaShape	shape;
	Interval   *window_size;	/* windows only */
	Interval   *window_offset;
	int			nkeys;			/* with window_start as the first */

	Query	   *user;			/* the whole SELECT, analysed; plain SQL */
	Query	   *batch;			/* per-batch part */

	/* the columns that users see */
	int			ncolumns;
	char	  **names;
	Oid		   *types;
	int32	   *typmods;
	Oid		   *collations;
	bool		has_rowtime;	/* one of them is called rowtime */
	bool		window_columns_added;	/* the first two are window_start and window_end, unasked */
} KdaSplit;

/*
 * Analyses the query as the current user, checks his rights, refuses what
 * cannot be kept up to date.  add_window_columns: window_start and window_end
 * become the first columns if the select list, HAVING name neither (views).
 */
extern KdaSplit *kda_split_query(KdaQuerySpec *spec, const char *source_text,
								 bool add_window_columns);

/*
 * The final part over the table of open groups (shapes groups and windows):
 * first column window_start (NULL for endless groups), then the columns that
 * users see.
 */
extern Query *kda_split_final(KdaSplit *split, Oid open_relid);

/*
 * Without GROUP BY keys there is one row before any record has come: the query
 * that gives it, in the user's columns.
 */
extern Query *kda_split_empty(KdaSplit *split);

#endif							/* KDA_SPLIT_H */
