/*-------------------------------------------------------------------------
 *
 * window_clause.h
 *	  What a window clause says, checked.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_WINDOW_CLAUSE_H
#define KDA_WINDOW_CLAUSE_H

#include "kda_stream.h"
#include "dialect/dialect.h"
#include "parser/parse_node.h"
#include "stream/window.h"

/*
 * The windows that the clause describes; palloc'd.  time_zone: of calendar
 * units, NULL: UTC.  ereports with the place in pstate's text.
 */
extern KdaWindowSpec *kda_window_of_clause(ParseState *pstate, const KdaWindowClause *clause,
										   const char *time_zone);

/* The interval that a raw literal is, without asking the catalog; NULL: it is no literal. */
extern Interval *kda_window_literal(ParseState *pstate, Node *raw);

/* Are its arguments literals, so that kda_window_of_clause() does not ask the catalog? */
extern bool kda_window_is_literal(ParseState *pstate, const KdaWindowClause *clause);

/* ereports if an argument names a column of the stream: it has to be a constant, a parameter or a variable. */
extern void kda_window_refuse_columns(ParseState *pstate, const KdaWindowClause *clause, Oid stream);

#endif							/* KDA_WINDOW_CLAUSE_H */
