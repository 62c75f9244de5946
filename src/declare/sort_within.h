/*-------------------------------------------------------------------------
 *
 * sort_within.h
 *	  ORDER BY s.ts WITHIN INTERVAL '10' SECOND: a stage that puts rows in order.
 *
 * In a raw tree the first expression of such an ORDER BY stands as the argument
 * of a call of ours, which core never sees: kda.sort_within (ts, '10000000').
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_SORT_WITHIN_H
#define KDA_SORT_WITHIN_H

#include "kda_stream.h"
#include "declare/compose.h"
#include "dialect/dialect.h"
#include "parser/parse_node.h"

/*
 * Puts the calls into the raw query, in place.  ereports where WITHIN cannot
 * be.  once: the query runs once, over the buffer: it is ORDER BY and no more.
 */
extern void kda_sort_bind(ParseState *pstate, Node *query, const KdaQuerySpec *spec, bool once);
/* The SELECT's call, NULL: it is not sorted so. */
extern FuncCall *kda_sort_of(SelectStmt *select);
/* The expression takes the place of its call again; returns the interval in microseconds. */
extern int64 kda_sort_take(SelectStmt *select);
/* The expression in a call, and the interval. */
extern Node *kda_sort_open(FuncCall *call, int64 *us);

/*
 * FROM of the SELECT is done: where it is sorted by another time than the
 * record's, its stream is replaced by one that has that time; where it has
 * windows as well, by one that is sorted.
 */
extern void kda_sort_compose(KdaCompose *compose, SelectStmt *select, int outer_location);

#endif							/* KDA_SORT_WITHIN_H */
