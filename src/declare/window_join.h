/*-------------------------------------------------------------------------
 *
 * window_join.h
 *	  Joins of streams by window: what is joined.  Between window_leaves.c, which
 *	  finds it, and window_join.c, which rewrites it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_WINDOW_JOIN_H
#define KDA_WINDOW_JOIN_H

#include "kda_stream.h"
#include "declare/compose.h"
#include "declare/split.h"
#include "parser/parse_node.h"

/* A SELECT with a window, and the windowed item of its FROM; ours: one for each. */
typedef struct KdaJoinLeaf
{
	SelectStmt *select;
	int			outer_location; /* of the SELECT around it */
	KdaWindowClause *window;
	Node	   *item;			/* of FROM, as written */
	bool		nullable;		/* in FROM of the SELECT */
	bool		sublink;		/* the SELECT is an expression's subquery */
	int			number;			/* from 1 */
	char	   *name;			/* by which the SELECT refers to its columns */
	KdaSplit   *split;			/* SELECT * FROM item */
	Node	   *where;			/* conditions on its records alone, NULL: none */
} KdaJoinLeaf;

typedef struct KdaWindowJoin
{
	KdaCompose *c;
	ParseState *pstate;
	List	   *leaves;			/* KdaJoinLeaf */
	Oid			stream;
	bool		ours;			/* one SELECT has all leaves */
	const char *with;			/* KDA_SAME_WINDOW or KDA_ONE_WINDOW */
} KdaWindowJoin;

/*
 * Is the SELECT a join by window?  Fills leaves and ours.  TABLE (TUMBLE (…))
 * beside others in its FROM becomes a subquery, whatever the answer.
 */
extern bool kda_window_join_find(KdaWindowJoin *join, SelectStmt *select, int outer_location);
/*
 * Is each branch of the set operation a SELECT with a window?  Fills the leaves.
 * may_be_table: it may be one without a stream, since it is only taken away or
 * looked up.
 */
extern bool kda_window_join_branches(KdaWindowJoin *join, SelectStmt *select, int outer_location, bool may_be_table);

#endif							/* KDA_WINDOW_JOIN_H */
