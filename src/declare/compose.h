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
#include "catalog/options.h"
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
	WithClause *around;			/* WITH over tables of the SELECTs around the place, NULL: none */
	SelectStmt *joined;			/* whose streams are being joined */
	List	   *joins;			/* of stream_join.c: what the results of joins are made of */
} KdaCompose;

/*
 * Makes streams and pumps for those parts of the query that have to be
 * computed before the rest, and puts the streams in their place.  What remains
 * reads one stream.
 */
extern void kda_compose(KdaCompose *compose);

/*
 * A stream of ours for rows of a part, made of a stream with the options
 * source.  rowtime: its time column; '': none; NULL: one of that name.
 */
extern Oid	kda_make_part_stream(KdaCompose *compose, int ncolumns, char **names, Oid *types, int32 *typmods,
								 const KdaStreamOptions *source, const char *rowtime);

/* Runs the SELECT as a pump into a stream of ours; InvalidOid: it makes one. */
extern Oid	kda_compose_pump_into(KdaCompose *compose, SelectStmt *select, int outer_location, Oid stream);
/* An item of the SELECT's FROM, or the stream of ours that stands for it. */
extern Node *kda_compose_item(KdaCompose *compose, Node *item, SelectStmt *select, int outer_location);
/* The SELECT, a copy of its own if need be, with the WITH queries over tables that are visible where it stands. */
extern SelectStmt *kda_compose_with(KdaCompose *compose, SelectStmt *select);
/* How many streams the item joins. */
extern int	kda_count_streams(Node *item);
/* Those conditions, of the ones that are joined by AND, that name nothing but columns qualified by the aliases (String). */
extern Node *kda_compose_conditions_on(Node *where, List *aliases);

/*---- window_join.c */

/*
 * If the SELECT joins streams by window, makes the stream of all sides and
 * rewrites the SELECT over it.  Returns false if it does not.
 */
extern bool kda_compose_window_join(KdaCompose *compose, SelectStmt *select, int outer_location);
/*
 * A set operation of SELECTs with the same window: what has to be run instead,
 * as the result of kda_compose_window_join() is.  NULL: it is none.
 */
extern SelectStmt *kda_compose_window_set(KdaCompose *compose, SelectStmt *set, int outer_location);
/* A column of ours of what stands in FROM for a side: it has a value in each of the side's rows. */
extern bool kda_is_side_column(const char *name);

/*---- stream_join.c */

/* a.ROWTIME of a joined stream that declares none, where the query speaks of it. */
#define KDA_TIME_COLUMN	"kda_rowtime"
/* Marks what stands in FROM for a joined stream, for whole_rows.c: its columns are known, but not its row. */
#define KDA_PARTS_COLUMN "kda_parts"
/* Likewise, and it has columns besides that are not the row's. */
#define KDA_NO_ROW_COLUMN "kda_no_row"
/* Under which the result of a join stands in FROM. */
#define KDA_JOIN_ALIAS	"kda_join"

/*
 * Joins two FROM items, each of which gives the records of one stream.
 * Returns what stands for both of them; further joins may be made with it.
 */
extern Node *kda_compose_join(KdaCompose *compose, Node *left, Node *right, JoinType type, Node *condition,
							  int location);
/* The names by which expressions refer to the item's columns; String. */
extern List *kda_join_aliases(KdaCompose *compose, Node *item);
/* What the SELECT calls the times of the streams that item joins becomes columns of it, where they are none. */
extern void kda_join_name_times(KdaCompose *compose, Node *item, SelectStmt *select);
/*
 * Columns that USING and NATURAL merge become what they are made of, the joins
 * have ON, and SELECT * the columns of FROM: then streams and tables may be
 * joined in another order.
 */
extern void kda_join_settle_names(KdaCompose *compose, SelectStmt *select, int outer_location);
/* (a JOIN b ...) AS j, of so many streams at most, is a subquery. */
extern Node *kda_join_without_alias(Node *item, int streams);
/* At the end: the result of a join as FROM has to show it, with these names. */
extern Node *kda_join_in_from(KdaCompose *compose, Node *item);

/* What a join is made of. */
typedef struct KdaJoinParts
{
	int32		id;
	struct KdaSplit *sides[2];
	int64		low_us;			/* right time - left time */
	int64		high_us;
	bool		outer[2];		/* unmatched rows of that side leave as well */
	Query	   *match;
	Oid			target;
} KdaJoinParts;

/*---- create_query.c */

/* The tables of what is kept, with an index on the columns that are compared (pairs of numbers); returns the join's number. */
extern int32 kda_join_tables(KdaJoinParts *parts, List *equal, Oid *kept);
/* The catalog row of a join and its views; returns the view that stands for it. */
extern Oid	kda_create_join_part(KdaCompose *compose, KdaJoinParts *parts, Oid *kept);

/* A pump that is a part of a query: its rows go to a stream of ours.  Returns its view. */
extern Oid	kda_create_part(KdaCompose *compose, KdaQuerySpec *spec, Oid target, bool add_window_columns);

#endif							/* KDA_COMPOSE_H */
