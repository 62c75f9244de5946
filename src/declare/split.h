/*-------------------------------------------------------------------------
 *
 * split.h
 *	  Splits the SELECT of a continuous query into its per-batch part and its
 *	  final part.
 *
 * split.c analyses, checks and decides what is kept; final_part.c writes the
 * final part.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_SPLIT_H
#define KDA_SPLIT_H

#include "kda_stream.h"
#include "declare/query_words.h"
#include "dialect/dialect.h"
#include "nodes/parsenodes.h"
#include "query/query.h"
#include "stream/window.h"

/* An expression of the user's query and the column of the open table that holds it. */
typedef struct KdaKept
{
	Node	   *expr;
	AttrNumber	attno;
} KdaKept;

typedef struct KdaSplit
{
	Oid			stream;
	KdaShape	shape;
	KdaStateKind state;			/* shapes groups and windows */
	KdaWindowSpec *window;		/* shape windows */
	char	   *window_text;	/* its description */
	List	   *session_keys;	/* windows that depend on other rows: expressions of user, they are made for each */
	int			nkeys;			/* leading key columns of batch; state groups with windows: their own come first */
	bool		paned;			/* … and then the mark of late records, since a record is in several windows */
	bool		per_window;		/* the final part runs once for each window: it has more than groups */

	Query	   *top;			/* the whole SELECT, analysed */
	Query	   *user;			/* the one of its levels that has the stream in FROM; often the whole */
	int			depth;			/* how many levels the stream's is below the top */
	int			row_rti;		/* the record's place in the batch, as a Var of user */
	AttrNumber	row_attno;
	int			window_rti;		/* where the windows stand in its FROM, 0: no window */
	Query	   *batch;			/* per-batch part */
	List	   *kept;			/* KdaKept: what the final part finds in the open table */
	bool		sorted;			/* shape over: ORDER BY … WITHIN */
	const char *sorted_by;		/* … a column of the result that is the time of the rows that leave; NULL: none */
	bool		sort_strict;	/* … with further keys: rows of one time leave together */
	Node	   *time;			/* shape rows: what the time of the rows that leave is; NULL: the record's */
	int64		delay_us;		/* WITHIN of a sort, or of the one that the time is for */
	Node	   *window_quals;	/* conditions of WHERE on windows: the final part's */

	/* the columns that users see */
	int			ncolumns;
	char	  **names;
	Oid		   *types;
	int32	   *typmods;
	Oid		   *collations;
	bool		has_rowtime;	/* one of them is called rowtime */
	bool		window_columns_added;	/* the first two are window_start and window_end, unasked */
	bool		window_columns_around;	/* … and they stand around the whole SELECT, not in its list */
	bool		shows_key;		/* sessions that may be emitted more than once: the final part gives the number of their key, too */
	const char *one_slot;		/* why one process has to see all records; NULL: they may be divided */
} KdaSplit;

/*
 * Analyses the query as the current user, checks his rights, refuses what
 * cannot be kept up to date.  add_window_columns: window_start and window_end
 * become the first columns if the select list, HAVING name neither (views).
 */
extern KdaSplit *kda_split_query(KdaQuerySpec *spec, const char *source_text,
								 const char *time_zone, bool add_window_columns);

/* CREATE TABLE of what is kept. */
extern char *kda_split_open_ddl(KdaSplit *split, const char *name);

/*---- batch_part.c: split->batch for each kind of state; what it gives is added to split->kept */
extern Query *kda_split_rows_batch(KdaSplit *split);
extern Query *kda_split_groups_batch(KdaSplit *split);
extern Query *kda_split_kept_rows_batch(KdaSplit *split);
extern Query *kda_split_sorted_batch(KdaSplit *split);
/* Do partial states of groups hold all that the final part needs? */
extern bool kda_split_groups_suffice(KdaSplit *split);
/* The record's place in the batch: ctid of the stream, or the column that stands for it. */
extern Node *kda_split_ctid(KdaSplit *split);
/* Does an expression, at any level, have a column of that entry of the top level? */
extern bool kda_split_mentions(Node *node, int rti);
/* ... or one of another entry? */
extern bool kda_split_mentions_others(Node *node, int rti);
/* Adds the columns of the top level that stand outside of aggregates. */
extern List *kda_split_vars(Node *node, List *vars);
extern Node *kda_text_const(const char *value);

/*---- by_arrival.c */

/* In a SELECT over a table of rows: aggregates whose result depends on their order take them by that column. */
extern void kda_split_by_arrival(Query *query, Oid table, AttrNumber seq);

/*---- slides.c */

/* KDA's RANGE ... PRECEDING and ROWS ... PRECEDING are ordered by time without saying so: below the raw node they do. */
extern void kda_split_order_by_time(Node *raw, KdaWordContext *words);
/* Does each record give one row, made of it and of those before it? */
extern bool kda_split_slides_by_row(KdaSplit *split);
/* ORDER BY ... WITHIN by another time than the record's: takes it off the select list. */
extern void kda_split_take_time(KdaSplit *split, ParseState *pstate);
/* ORDER BY ... WITHIN by the record's time. */
extern void kda_split_check_sorted(KdaSplit *split);

/*---- final_part.c */

/*
 * The final part over the table of what is kept: the columns window_start,
 * window_end (NULL for endless groups), if shows_key the number of the
 * session's key, then those that users see.
 */
extern Query *kda_split_final(KdaSplit *split, Oid open_relid, int32 query_id);
/* The same where several slots have a state of a group each; NULL: the final part combines states in any case. */
extern Query *kda_split_merged(KdaSplit *split, Oid open_relid, int32 query_id);

/* Shape over: DELETE of what no row to come can see, $1: rows up to there have left; NULL: those rows themselves. */
extern char *kda_split_prune_sql(KdaSplit *split, Oid open_relid);

/*
 * Without GROUP BY keys there is one row before any record has come: the query
 * that gives it, in the user's columns.  NULL where that cannot happen.
 */
extern Query *kda_split_empty(KdaSplit *split);

/*---- helpers of both: expressions across query levels */

/* Copy of node in which each kept expression, at any query level, is replaced by make(kept, arg). */
typedef Node *(*KdaMakeKept) (const KdaKept *kept, void *arg);
extern Node *kda_replace_kept(Node *node, List *kept, KdaMakeKept make, void *arg);

#endif							/* KDA_SPLIT_H */
