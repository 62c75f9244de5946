/*-------------------------------------------------------------------------
 *
 * adhoc.h
 *	  Spellings of ours in statements that are no KDA statements.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_ADHOC_H
#define KDA_ADHOC_H

#include "kda_stream.h"
#include "declare/query_words.h"
#include "dialect/dialect.h"
#include "dialect/scan.h"
#include "nodes/pg_list.h"

/*
 * Makes what is ours in a statement something that core can parse, in the
 * copy: window clauses are lifted out, STEP (x BY i) is STEP (x, i).
 */
extern void kda_lift_windows(const char *source, char *copy, KdaScriptPart *part);
/*
 * Works it into the SELECTs that it stood in.  alone: no other statement is in
 * the text, so that what the catalog says now holds when it runs.
 */
extern void kda_put_windows(Node *stmt, KdaScriptPart *part, const char *source, bool alone);
/* Blanks // comments that stand between statements. */
extern void kda_blank_comments(const char *source, char *copy, List *parts);

/* Does the raw expression use a word that stands for windows? */
extern bool kda_names_windows(Node *node);

/*---- keyed_windows.c: sessions and stagger windows over rows that are all there */

/*
 * The SELECT's FROM and WHERE, replaced by subqueries that give each row its
 * window; keys: raw expressions.  Words of ours have still to be replaced in
 * the SELECT; those of FROM and WHERE are.
 */
extern void kda_put_keyed_windows(KdaWordContext *words, SelectStmt *select, KdaWindowClause *clause, List *keys);

/* plain_rowtime.c: says why a plain SELECT cannot name ROWTIME, if that is what is wrong with it. */
extern void kda_explain_plain_rowtime(List *raws, const char *source);

#endif							/* KDA_ADHOC_H */
