/*-------------------------------------------------------------------------
 *
 * store_query.h
 *	  Analysed queries kept in the catalog: as views, and a pump's INSERT as a
 *	  rule.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_STORE_QUERY_H
#define KDA_STORE_QUERY_H

#include "kda_stream.h"
#include "nodes/parsenodes.h"
#include "utils/relcache.h"

/*
 * Makes view kda_storage.name over the query, owned by owner.  The query was
 * analysed as the user: its text must never be parsed with more rights than
 * his, because a constant of a user's type runs the user's code when it is read.
 */
extern Oid	kda_store_view(const char *name, Query *query, Oid owner);

/*
 * Keeps the INSERT of a pump with the pump's view: its columns, in order, are
 * what is inserted.  insert: raw, its SELECT does not matter.  Runs as the
 * user, checks rights.  targets: the select list (ResTarget) that the columns
 * come from, for error positions in text.
 */
extern void kda_store_insert(Oid view, InsertStmt *insert, List *targets, const char *text);

/*
 * The INSERT of a pump, a copy: Vars of relation KDA_EMITTED_VARNO are the
 * view's columns.  Raises an error if it has gone.
 */
extern Query *kda_stored_insert(Oid view);
#define KDA_EMITTED_VARNO	2

/* The rule that holds it: what belongs to the view. */
#define KDA_INSERT_RULE		"kda_insert"
extern Oid	kda_stored_insert_rule(Oid view, bool missing_ok);
/* … which goes with the rule, and the other way round; also after a restore. */
extern void kda_tie_insert(Oid view);

#endif							/* KDA_STORE_QUERY_H */
