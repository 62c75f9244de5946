/*-------------------------------------------------------------------------
 *
 * join_times.c
 *	  Rows of windows in a join by time: which of their columns are bounds of
 *	  the window, and how far from the time of the row these are.
 *
 * The time of such a row is its window's end less 1 µs, or window_end or
 * window_time if it shows them as rowtime.  So window_end tells it exactly, and window_start does where
 * all windows have one size; of others it does so within their sizes.
 *
 * A column is a bound if the query that writes the stream hands it on
 * unchanged, whatever it calls it.  That is seen in the final part as it is
 * stored, so it holds for views that were declared long ago.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/options.h"
#include "catalog/rows.h"
#include "declare/from.h"
#include "declare/stream_join.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "stream/window.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

typedef enum Which
{
	NONE,
	START,
	END
} Which;

/* A bound of the window, and something added to it: window_time is the end less 1 ms. */
typedef struct Bound
{
	Which		which;
	int64		plus_us;
} Bound;

static Query *
query_of_view(Oid view)
{
	Relation	rel = relation_open(view, AccessShareLock);
	Query	   *query = copyObject(get_view_query(rel));

	relation_close(rel, AccessShareLock);
	return query;
}

/* The query's columns: keys of GROUP BY that are not shown stand beside them. */
static List *
shown(Query *query)
{
	List	   *columns = NIL;
	ListCell   *lc;

	foreach(lc, query->targetList)
		if (!lfirst_node(TargetEntry, lc)->resjunk)
			columns = lappend(columns, lfirst(lc));
	return columns;
}

/* Takes what is added to the expression off it. */
static Node *
without_constant(Node *expr, int64 *plus_us)
{
	OpExpr	   *op = (OpExpr *) expr;
	Const	   *by;
	Interval   *iv;

	if (!IsA(expr, OpExpr) || list_length(op->args) != 2)
		return expr;
	set_opfuncid(op);
	by = (Const *) eval_const_expressions(NULL, lsecond(op->args));
	if ((op->opfuncid != F_TIMESTAMPTZ_MI_INTERVAL && op->opfuncid != F_TIMESTAMPTZ_PL_INTERVAL) || !IsA(by, Const) ||
		by->constisnull)
		return expr;
	iv = DatumGetIntervalP(by->constvalue);
	if (iv->month != 0 || iv->day != 0)
		return expr;
	*plus_us += op->opfuncid == F_TIMESTAMPTZ_PL_INTERVAL ? iv->time : -iv->time;
	return linitial(op->args);
}

/* The same through levels, with what is added on the way. */
static Node *
origin_with_constant(List **queries, Node *expr, int64 *plus_us)
{
	*plus_us = 0;
	for (;;)
	{
		Node	   *below;

		expr = kda_stream_origin(queries, expr);
		below = without_constant(expr, plus_us);
		if (below == expr)
			return expr;
		expr = below;
	}
}

/* Which bound of the window a column of the final part is; it begins with both. */
static Bound
bound_of(Query *final, int column)
{
	List	   *own = list_make1(final);
	int64		plus_us;
	Node	   *expr = origin_with_constant(&own, (Node *) list_nth_node(TargetEntry, shown(final), column - 1)->expr, &plus_us);

	for (int i = 0; i < 2; i++)
	{
		List	   *queries = list_make1(final);
		Node	   *bound = kda_stream_origin(&queries, (Node *) list_nth_node(TargetEntry, shown(final), i)->expr);

		if (linitial(queries) == linitial(own) && equal(bound, expr))
			return (Bound) {i == 0 ? START : END, plus_us};
	}
	return (Bound) {NONE, 0};
}

/* window_end or window_time */
static bool
is_end(Bound bound)
{
	return bound.which == END && (bound.plus_us == 0 || bound.plus_us == -1000);
}

/* Is the column, of that name, another time than the window's? */
static bool
is_another_time(const char *name, Bound bound)
{
	return strcmp(name, "rowtime") == 0 && !is_end(bound);
}

bool
kda_window_gives_another_time(const KdaSplit *split)
{
	/* bounds that are put around the SELECT are not in it */
	int			around = split->window_columns_around ? 2 : 0;

	for (int i = around; i < split->ncolumns; i++)
	{
		List	   *queries = list_make1(split->top);
		Bound		bound = {NONE, 0};
		Var		   *var;

		var = (Var *) origin_with_constant(&queries, (Node *) list_nth_node(TargetEntry, shown(split->top), i - around)->expr,
										   &bound.plus_us);
		if (linitial(queries) == split->user && IsA(var, Var) && var->varno == split->window_rti && var->varattno == 2)
			bound.which = END;
		if (is_another_time(split->names[i], bound))
			return true;
	}
	return false;
}

bool
kda_window_view_gives_another_time(Oid final)
{
	Query	   *query = query_of_view(final);

	for (int i = 3; i <= list_length(shown(query)); i++)
		if (is_another_time(list_nth_node(TargetEntry, shown(query), i - 1)->resname, bound_of(query, i)))
			return true;
	return false;
}

/* How long the windows are: false if that depends on the rows. */
static bool
sizes_of(const KdaWindowSpec *spec, int64 *least_us, int64 *most_us)
{
	int64		least = spec->kind == KDA_WINDOW_CUMULATING ? spec->slide : spec->size;

	if (!kda_window_is_aligned(spec))
		return false;
	switch (spec->unit)
	{
		case KDA_UNIT_MONTH:
			*least_us = least * 27 * USECS_PER_DAY;
			*most_us = spec->size * 32 * USECS_PER_DAY;
			break;
		case KDA_UNIT_DAY:
			/* clocks change */
			*least_us = (least - 1) * USECS_PER_DAY;
			*most_us = (spec->size + 1) * USECS_PER_DAY;
			break;
		default:
			*least_us = least;
			*most_us = spec->size;
	}
	return true;
}

static List *
add_bound(List *bounds, int column, int64 low_us, int64 high_us)
{
	KdaTimeColumn *bound = palloc0(sizeof(KdaTimeColumn));

	bound->column = column;
	bound->low_us = low_us;
	bound->high_us = high_us;
	return lappend(bounds, bound);
}

static List *
bounds_of_windows(Oid stream, Query *final, const char *window_spec)
{
	AttrNumber	rowtime = kda_stream_options_get(stream)->rowtime_attno;
	int			ncolumns = list_length(shown(final)) - 2;
	int64		time_us = -1;	/* time - end */
	int64		least_us = 0;
	int64		most_us = 0;
	KdaWindowSpec spec;
	bool		sized;
	List	   *bounds = NIL;

	kda_window_parse(window_spec, &spec);
	sized = sizes_of(&spec, &least_us, &most_us);
	if (rowtime > 0)
	{
		Bound		bound = rowtime <= ncolumns ? bound_of(final, rowtime + 2) : (Bound) {NONE, 0};

		if (!is_end(bound))
			return NIL;
		time_us = bound.plus_us;
	}
	for (int i = 1; i <= ncolumns; i++)
	{
		Bound		bound = bound_of(final, i + 2);
		int64		us = bound.plus_us - time_us;

		if (bound.which == END)
			bounds = add_bound(bounds, i, us, us);
		else if (bound.which == START && sized)
			bounds = add_bound(bounds, i, us - most_us, us - least_us);
	}
	return bounds;
}

List *
kda_window_bound_columns(Oid stream)
{
	char	   *writer[4];
	Relation	rel;
	int			natts;
	Query	   *final;

	/* nobody else writes into streams of ours */
	if (get_rel_namespace(stream) != get_namespace_oid(KDA_STORAGE_SCHEMA, false))
		return NIL;
	if (!kda_owner_row(psprintf("SELECT count(*), min(final::oid::text), min(window_spec), min(shape) "
								"FROM " KDA_STORAGE_SCHEMA ".query WHERE target = %u", stream), 4, writer) ||
		strcmp(writer[0], "1") != 0 || writer[1] == NULL || writer[2] == NULL || strcmp(writer[3], "windows") != 0)
		return NIL;
	rel = relation_open(stream, AccessShareLock);
	natts = RelationGetNumberOfAttributes(rel);
	relation_close(rel, AccessShareLock);
	final = query_of_view((Oid) strtoul(writer[1], NULL, 10));
	if (list_length(shown(final)) != natts + 2)
		return NIL;
	return bounds_of_windows(stream, final, writer[2]);
}
