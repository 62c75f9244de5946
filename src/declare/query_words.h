/*-------------------------------------------------------------------------
 *
 * query_words.h
 *	  Words of ours in the raw tree of a SELECT that reads a stream.
 *
 * First the window: kda_words_choose_window() says which of the clauses is the
 * SELECT's.  Then kda_words_set_window() and kda_words_apply() make plain SQL of
 * the words.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_QUERY_WORDS_H
#define KDA_QUERY_WORDS_H

#include "kda_stream.h"
#include "dialect/dialect.h"
#include "nodes/parsenodes.h"
#include "parser/parse_node.h"

/* The name under which windows stand in FROM. */
#define KDA_WINDOW_ALIAS	"kda_w"

typedef struct KdaWordContext
{
	ParseState *pstate;			/* places of errors */
	Oid			stream;			/* InvalidOid: not known yet (a script creates it) */
	const char *stream_name;	/* by which its rows are referred to */
	const char *row_column;		/* of it: the record's place in the batch; ctid: the stream's own columns are there */
	char	   *rowtime_column; /* NULL: not declared */
	bool		rowtime_is_timestamptz;
	const char *hides_time;		/* so the subquery that gives its rows calls an ordinary column; NULL: none */
	Node	   *rowtime;		/* raw: what stands for the record's time; NULL: its column, or kda.rowtime(ctid) */
	Node	   *closed;			/* raw: what stands for window_closed; NULL: kda.window_closed() */

	/* kda_words_set_window() */
	bool		windowed;		/* the SELECT has windows */
	bool		in_from;		/* … in Flink's TABLE (TUMBLE (…)) */
	Node	   *key;			/* … as this GROUP BY item, which is no longer there */

	/* kda_words_apply() */
	bool		aggregated;
	bool		outside;		/* in select list, HAVING or ORDER BY of an aggregated SELECT */
	bool		keyed;			/* where the key may stand: anywhere but in WHERE and FROM */
	List	   *grouped;		/* what GROUP BY names, as written */
	bool		named_window;	/* window_start or window_end was used */
} KdaWordContext;

/* The stream in FROM, by its name there; InvalidOid: unknown. */
extern void kda_words_begin(KdaWordContext *cxt, ParseState *pstate, Oid stream, const char *name,
							const char *row_column);

/* Does the column, as written, name the time of that stream? */
extern bool kda_words_is_time(const KdaWordContext *cxt, Node *column);

/*---- the window of a SELECT */
typedef bool (*KdaIsTime) (Node *column, void *arg);

/*
 * Which of the clauses that stand in the SELECT is its window; NULL: none, they
 * are keys of GROUP BY.
 */
extern KdaWindowClause *kda_words_choose_window(List *clauses, KdaIsTime is_time, void *arg);
/*
 * ereports if the window speaks of another time than the stream's, if there
 * are two, or if it stands in FROM and is not grouped by.  stream: what to call
 * it, time: its time column or NULL.
 */
extern void kda_words_check_window(ParseState *pstate, SelectStmt *select, List *clauses, KdaWindowClause *window,
								   KdaIsTime is_time, void *arg, const char *stream, const char *time);
/* The SELECT has that window; a key of GROUP BY goes out of it.  NULL: it has none. */
extern void kda_words_set_window(KdaWordContext *cxt, SelectStmt *select, KdaWindowClause *window);

/* Makes plain SQL of the SELECT's words, in place; windows must be put into FROM. */
extern void kda_words_apply(KdaWordContext *cxt, SelectStmt *select);

/* References everywhere in the SELECT but in its subqueries. */
struct KdaWords;
extern void kda_words_replace_in_select(SelectStmt *select, struct KdaWords *words);

/* The same as kda_words_apply() of raw expressions that do not stand in it any more; kda_words_apply() comes first. */
extern List *kda_words_expressions(KdaWordContext *cxt, List *expressions);

/*
 * FROM item for the windows of a record; spec: raw expression of their description;
 * keys: raw expressions, what they are made for, NIL: GROUP BY says it.
 */
extern Node *kda_words_window_from(KdaWordContext *cxt, Node *spec, List *keys);
/* window_start, window_end as GROUP BY keys. */
extern List *kda_words_window_keys(void);
/* The record's time, as timestamptz. */
extern Node *kda_words_rowtime(KdaWordContext *cxt, int location);

/* Items of GROUP BY, with (a, b) taken apart. */
extern List *kda_words_group_items(SelectStmt *select);

/*
 * What an item of GROUP BY stands for: n, the n-th of the select list; a name
 * there, if that is a call; else itself.
 */
extern Node *kda_words_group_item(SelectStmt *select, Node *item);

/* Does the SELECT itself (not its subqueries) aggregate? */
extern bool kda_words_aggregated(SelectStmt *select);

/* What has been read and is not there yet: ereports if there is any. */
extern void kda_words_refuse(ParseState *pstate, KdaQuerySpec *spec);

/* kda.step (c, i), kda.floor (c, unit): the windows' size, and an offset or none; NIL: another call. */
extern List *kda_words_rounding(FuncCall *call);

/*---- raw nodes */
extern Node *kda_raw_string(const char *value);
extern Node *kda_raw_interval(const char *value);
extern Node *kda_raw_call(const char *name, List *args, int location);	/* of schema kda */
extern ResTarget *kda_raw_target(const char *name, Node *value);
/* relation.*; NULL: * */
extern ResTarget *kda_raw_star(const char *relation);
extern Node *kda_raw_column(const char *relation, const char *column, int location);

#endif							/* KDA_QUERY_WORDS_H */
