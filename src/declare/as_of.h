/*-------------------------------------------------------------------------
 *
 * as_of.h
 *	  JOIN t FOR SYSTEM_TIME AS OF s.rowtime: the rows of a table that held at
 *	  the time of a record.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_AS_OF_H
#define KDA_AS_OF_H

#include "kda_stream.h"
#include "dialect/dialect.h"
#include "parser/parse_node.h"

/*
 * Adds to the raw query, in place, what FOR SYSTEM_TIME AS OF of its
 * specification says: conditions on the tables' columns, in ON or WHERE.
 * ereports where it cannot be.  once: the query runs once, over the buffer, so
 * that ROWTIME is no word of ours yet.
 */
extern void kda_as_of_bind(ParseState *pstate, Node *query, const KdaQuerySpec *spec, bool once);
/* Does the SELECT itself have such a table in FROM? */
extern bool kda_as_of_in(const KdaQuerySpec *spec, SelectStmt *select);

#endif							/* KDA_AS_OF_H */
