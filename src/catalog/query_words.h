/*-------------------------------------------------------------------------
 *
 * query_words.h
 *	  Words of ours in the raw tree of a SELECT.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_QUERY_WORDS_H
#define KDA_QUERY_WORDS_H

#include "kda_stream.h"
#include "nodes/parsenodes.h"

/* The name under which windows stand in FROM. */
#define KDA_WINDOW_ALIAS	"kda_w"

typedef struct KdaWordContext
{
	const char *stream_name;	/* alias or relation name */
	const char *row_column;		/* of it: the record's place in the batch */
	char	   *rowtime_column; /* NULL: not declared */
	bool		rowtime_is_timestamptz;
	bool		windowed;		/* the query has a window clause */
	bool		outside;		/* in select list, HAVING or ORDER BY, outside aggregates */
	bool		named_window;	/* window_start or window_end was used */
} KdaWordContext;

/* Replaces the words below node, in place; returns what stands for node itself. */
extern Node *kda_query_words_replace(Node *node, KdaWordContext *cxt);

/* A select-list word keeps its name although an expression takes its place. */
extern void kda_words_name_targets(List *targets);

/* The record's time. */
extern Node *kda_words_rowtime(KdaWordContext *cxt);
/* FROM item for the windows of a record. */
extern Node *kda_words_window_from(KdaWordContext *cxt, const char *spec);
/* window_start, window_end as GROUP BY keys. */
extern List *kda_words_window_keys(void);

/* Does the SELECT itself (not its subqueries) aggregate? */
extern bool kda_words_aggregated(SelectStmt *select);
extern bool kda_words_is_aggregate(FuncCall *call);

#endif							/* KDA_QUERY_WORDS_H */
