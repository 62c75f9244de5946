/*-------------------------------------------------------------------------
 *
 * adhoc.h
 *	  Window clauses in SELECTs that are no continuous query.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_ADHOC_H
#define KDA_ADHOC_H

#include "kda_stream.h"
#include "dialect/dialect.h"
#include "dialect/scan.h"
#include "nodes/pg_list.h"

/*
 * Makes the window clauses of a statement something that core can parse, in
 * the copy: WINDOWED BY w (…) GROUP BY k becomes GROUP BY w (…), k.
 */
extern void kda_lift_windows(const char *source, char *copy, KdaScriptPart *part);
/*
 * Works them into the SELECTs that they stand in.  alone: no other statement
 * is in the text, so that what the catalog says now holds when it runs.
 */
extern void kda_put_windows(Node *stmt, KdaScriptPart *part, const char *source, bool alone);
/* Blanks // comments that stand between statements. */
extern void kda_blank_comments(const char *source, char *copy, List *parts);

/* plain_rowtime.c: says why a plain SELECT cannot name ROWTIME, if that is what is wrong with it. */
extern void kda_explain_plain_rowtime(List *raws, const char *source);

#endif							/* KDA_ADHOC_H */
