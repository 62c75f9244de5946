/*-------------------------------------------------------------------------
 *
 * from.h
 *	  Where in a SELECT the stream stands.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_FROM_H
#define KDA_FROM_H

#include "kda_stream.h"
#include "declare/query_words.h"
#include "dialect/dialect.h"
#include "parser/parse_node.h"

/* Column of ours that carries a record's place in the batch through subqueries. */
#define KDA_ROW_COLUMN	"kda_row"

/*
 * A stream of ours, made for a part of a query, stands in a raw tree as this
 * RangeVar: catalogname is the mark, relname the OID.  No name is looked up:
 * users have no rights on the schema it lives in.
 */
#define KDA_PART_MARK	"\001kda"

/*
 * The WITH query that gives the rows of all sides of a join by window
 * (window_join.c): the first one where conditions of the user's say that the
 * windows are equal.  Columns KDA_SIDE_COLUMN, …, window_start, window_end.
 */
#define KDA_SAME_WINDOW	"kda_same_window"
#define KDA_ONE_WINDOW	"kda_one_window"
#define KDA_SIDE_COLUMN	"kda_side"

extern RangeVar *kda_part_rangevar(Oid relid, Alias *alias, int location);
/* InvalidOid: it is an ordinary one. */
extern Oid	kda_part_relid(const RangeVar *rv);

typedef struct KdaFrom
{
	ParseState *pstate;
	const KdaQuerySpec *spec;

	Oid			relid;			/* the stream */
	int			location;		/* where it was written */
	SelectStmt *core;			/* the SELECT that has it in FROM, but for subqueries that only filter and project */
	KdaWindowClause *core_window;	/* NULL: none */
	int			depth;			/* levels of core below the top */
	const char *name;			/* by which core's expressions refer to its rows */
	const char *row_column;		/* column of it that is the record's place: ctid or KDA_ROW_COLUMN */
	const char *joined;			/* core is a WITH query of that name: KDA_SAME_WINDOW, KDA_ONE_WINDOW; NULL: it is none */
	WithClause *around;			/* the user's WITH of the SELECTs around core, NULL: none */
	bool		nullable;		/* working state: below the nullable side of an outer join */

	/* after analysis */
	Query	   *query;			/* core */
	int			rti;			/* of name in it */
	AttrNumber	row_attno;		/* of row_column */
} KdaFrom;

/* Finds it; parts of ours are replaced by what the parser can analyse.  ereports if there is none. */
extern void kda_from_find(KdaFrom *from, SelectStmt *top);
/*
 * SELECT * of the core becomes the columns of its FROM, so that what of ours is
 * put there does not show in the SELECTs around it.  Analyses FROM.
 */
extern void kda_from_expand_stars(KdaFrom *from);
/* Puts parts of ours back into the analysed tree, and fills the fields below "after analysis". */
extern void kda_from_settle(KdaFrom *from, Query *top);

/*---- with.c */

/* WITH queries that read streams become subqueries, where they are named. */
extern void kda_with_inline(Node *select, const char *source_text);
/* WITH queries of a SELECT and those around it that it does not hide: a copy; NULL: none. */
extern WithClause *kda_with(WithClause *around, WithClause *own);
/* What a SELECT below this one can name: the user's WITH queries; NULL: none. */
extern WithClause *kda_with_around(WithClause *around, SelectStmt *select);

/*---- stream_column.c */

/* Through subqueries and joins to where the value comes from; queries: its own first, then those of what is returned. */
extern Node *kda_stream_origin(List **queries, Node *expr);
/* A Var of the stream's column, or kda.rowtime(), that the expression hands on; NULL: none.  queries: its own first. */
extern Node *kda_stream_column(List *queries, Node *expr, Oid stream);
/* A column "rowtime" of the query, in whatever case, that is not the record's time; NULL: none. */
extern const char *kda_hides_time(Query *query, Oid stream);
/* The same of the subquery in the SELECT's FROM that hands the records on. */
extern const char *kda_from_hides_time(KdaFrom *from, SelectStmt *select, const char *source_text);
/* Is it what stands for a part of ours in analysis? */
extern bool kda_is_stand_in(RangeTblEntry *rte);

/*---- whole_rows.c */

/* References to whole rows show no columns of ours; all: those to items of this FROM become ROW (columns) anyway. */
extern void kda_settle_whole_rows(ParseState *pstate, Query *query, bool all);

/*---- same_window.c */

/*
 * ereports unless rows join only within the same window; as_written: the
 * conditions have to say so.
 */
extern void kda_check_same_window(ParseState *pstate, Query *top, bool as_written);

/*---- raw trees */

/* Is it a stream or a continuous query? */
extern bool kda_is_continuous(Oid relid);
/* The relation or subquery below the FROM item whose record time the column names; NULL: none. */
extern Node *kda_from_item_of_time(Node *item, ColumnRef *column);

/* Does it name a stream or a continuous query? */
extern bool kda_raw_has_stream(Node *raw);
/* The WITH query of a join by window; NULL: it is none. */
extern CommonTableExpr *kda_from_window_join(SelectStmt *select);
/* Does the column name the time of a stream in FROM? */
extern bool kda_from_names_time(Node *column, List *from_clause);
/* ereports if the window cannot be the SELECT's: another time than its item's, no stream, not grouped by. */
extern void kda_from_check_window(ParseState *pstate, const KdaQuerySpec *spec, SelectStmt *select,
								  KdaWindowClause *window, Node *item, int outer_location);
/* SELECT * becomes the columns of FROM, but for those that are ours; with: WITH of it, NULL: its own. */
typedef bool (*KdaIsOurs) (TargetEntry *tle, Query *query, void *arg);
extern void kda_from_expand(SelectStmt *select, WithClause *with, const char *source_text, KdaIsOurs is_ours, void *arg);
/* Where the SELECT's own text begins. */
extern int	kda_select_location(SelectStmt *select);
/* The window clause of that SELECT, before kda_from_find(); outer_location: of the SELECT around it, -1: none. */
extern KdaWindowClause *kda_select_window(const KdaQuerySpec *spec, SelectStmt *select, int outer_location);
/* Does it only filter and project, so that each of its rows is a record of its stream? */
extern bool kda_select_is_simple(const KdaQuerySpec *spec, SelectStmt *select, int outer_location);

/* Has a raw expression or list a function with OVER, outside of its subqueries? */
extern bool kda_raw_has_over(Node *raw);

#endif							/* KDA_FROM_H */
