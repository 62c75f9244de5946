/*-------------------------------------------------------------------------
 *
 * final_part.h
 *	  What the files of the final part share: pieces of Query trees over the
 *	  table of what is kept.  Private to declare/.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_FINAL_PART_H
#define KDA_FINAL_PART_H

#include "kda_stream.h"
#include "declare/split.h"
#include "utils/rel.h"

/* Stand in a KdaKept for the columns of the windows. */
#define KDA_FINAL_WINDOW_START	(-101)
#define KDA_FINAL_WINDOW_END	(-102)

typedef struct KdaFinal
{
	KdaSplit   *split;
	Relation	open;
	int32		query_id;
	bool		merge;			/* states of several rows are combined */
	bool		slotted;		/* … since each slot may have one */
	bool		by_row;			/* a row of the table is a window by itself: bounds are expressions over it */
	int			window_rti;		/* whose columns 1 and 2 are the window's bounds */
	int			window_levels;	/* … so many query levels up */
} KdaFinal;

/*---- final_pieces.c */

/* SQL of ours as a Query; its names are looked up as the extension's owner. */
extern Query *kda_final_analyzed(const char *sql);

/* The table of what is kept, by name, to be put into SQL. */
extern char *kda_final_open_name(KdaFinal *f);
extern Var *kda_final_column(KdaFinal *f, AttrNumber attno, Node *like);

/* attno: KDA_FINAL_WINDOW_START or KDA_FINAL_WINDOW_END. */
extern Node *kda_final_bound(KdaFinal *f, int attno);

/* The kept expressions, and the columns of the windows. */
extern List *kda_final_kept(KdaFinal *f);

/* For kda_replace_kept(), arg: a KdaFinal: what a kept expression is over the table … */
extern Node *kda_final_over_open(const KdaKept *kept, void *arg);

/* … and over a subquery that gives them in their order. */
extern Node *kda_final_over_subquery(const KdaKept *kept, void *arg);

/* A Query that selects from one relation. */
extern Query *kda_final_select_from(Relation rel);
extern RangeTblEntry *kda_final_subquery(Query *query, const char *alias, bool lateral);
extern Node *kda_final_compare(Oid operator, Node *a, Node *b);
extern Node *kda_final_and(List *quals);
extern void kda_final_add_target(Query *query, Node *expr, const char *name);

/*---- final_over.c */

/* The final part of a row-sliding query. */
extern Query *kda_final_over(KdaFinal *f);

#endif							/* KDA_FINAL_PART_H */
