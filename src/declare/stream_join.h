/*-------------------------------------------------------------------------
 *
 * stream_join.h
 *	  Joins of streams by time: what is joined.  Between join_sides.c, which
 *	  describes the sides, and stream_join.c, which joins them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_STREAM_JOIN_H
#define KDA_STREAM_JOIN_H

#include "kda_stream.h"
#include "declare/compose.h"
#include "declare/split.h"

/* A column that tells the time of the rows that have it: the two differ by low to high. */
typedef struct KdaTimeColumn
{
	int			column;			/* from 1 */
	int64		low_us;			/* column - time */
	int64		high_us;
	bool		nullable;		/* or it is NULL */
} KdaTimeColumn;

/*
 * What the query calls by one name: a stream, a subquery over one, or a table
 * beside one.  A side that is itself a join has several.
 */
typedef struct KdaJoinRel
{
	char	   *alias;
	int			first;			/* its first column among the side's, from 0 */
	int			ncolumns;
	List	   *times;			/* KdaTimeColumn */
	bool		pseudo_time;	/* rowtime is not declared: one more column, for conditions */
	bool		shown_time;		/* its last column is the time that it does not declare, KDA_TIME_COLUMN */
	bool		nullable;		/* outer joins fill it with NULLs */
	bool		renamed;		/* its columns have other names than those of its row's type */
	int64		slack_us;		/* the side's time is later than the rel's by at most this */
} KdaJoinRel;

/* One side of the join. */
typedef struct KdaJoinSide
{
	KdaSplit   *split;			/* all columns of it */
	int			ncolumns;
	char	  **names;			/* as the query knows them */
	Oid		   *types;
	int32	   *typmods;
	List	   *rels;			/* KdaJoinRel */
	Oid			kept;			/* table */
} KdaJoinSide;

/* A join that was made: what its result is made of. */
typedef struct KdaMadeJoin
{
	Oid			stream;
	List	   *rels;			/* KdaJoinRel, columns counted over both sides */
	char	  **names;			/* of the columns, as the query knows them */
} KdaMadeJoin;

/*---- join_sides.c */

/* The join whose result the item is; NULL: it is none. */
extern KdaMadeJoin *kda_made_join(KdaCompose *compose, Node *item);
/* The name by which expressions refer to the item's columns, NULL: it has none. */
extern char *kda_join_alias(Node *item);
/* What a FROM item with one stream gives; location: of the join, for errors. */
extern void kda_join_describe(KdaCompose *compose, KdaJoinSide *side, Node *item, int location);
/* (SELECT NULL::type AS column, ...) alias: what conditions are analysed against. */
extern Node *kda_join_stand_in(const KdaJoinSide *side, const KdaJoinRel *rel);
/* The rel's column that is its time; 0: none. */
extern int	kda_join_time_column(const KdaJoinRel *rel);

/* The item as it is in analysis: streams are stand-ins.  A copy. */
extern Node *kda_join_analysable(KdaCompose *compose, Node *item, int location);

/*---- join_times.c */

/* Of a stream of ours that windows are written into: the columns that are their bounds. */
extern List *kda_window_bound_columns(Oid stream);
/* Has the query, or the final part of a view, a column rowtime that is not the end of its windows? */
extern bool kda_window_gives_another_time(const KdaSplit *split);
extern bool kda_window_view_gives_another_time(Oid final);

#endif							/* KDA_STREAM_JOIN_H */
