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

typedef struct KdaLiftedWindow
{
	KdaScriptPart *part;
	KdaWindowClause *window;
} KdaLiftedWindow;

/* Takes the window clause out of the copy. */
extern KdaLiftedWindow *kda_lift_window(const char *source, char *copy, KdaScriptPart *part);
/* Works it into the statement's SELECT. */
extern void kda_put_window(Node *stmt, List *windows, KdaScriptPart *part, const char *source);
/* Blanks // comments that stand between statements. */
extern void kda_blank_comments(const char *source, char *copy, List *parts);

/* statement.c: the clause WINDOWED BY … at token at; blanks it in copy. */
extern KdaWindowClause *kda_window_clause(const char *source, char *copy, KdaTokens *tokens, int at,
										  int *after);

#endif							/* KDA_ADHOC_H */
