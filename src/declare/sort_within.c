/*-------------------------------------------------------------------------
 *
 * sort_within.c
 *	  ORDER BY s.ts WITHIN INTERVAL '10' SECOND, Kinesis Data Analytics' T-sort.
 *
 * A row is held until nothing that may still come goes before it: until the
 * greatest time that was seen, less the interval, has reached its own.  What
 * comes later than that is late.  A SELECT that only filters, joins tables and
 * projects does so itself, by the stream's watermark (query/over.c).  The rest
 * becomes parts of the query, each a pump into a stream of ours:
 *
 *		by another time than the record's: a stream whose time is that one;
 *		each shard has a mark of its own (query/retime.c)
 *		beside windows, OVER and aggregates: a stream of sorted rows, which
 *		stands in FROM instead
 *
 * Runs in the session that declares the query, on the raw tree.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/relation.h"
#include "declare/from.h"
#include "catalog/namespace.h"
#include "catalog/options.h"
#include "catalog/pg_type.h"
#include "declare/query_words.h"
#include "declare/sort_within.h"
#include "declare/split.h"
#include "declare/window_clause.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#define SORT_CALL	"sort_within"
#define FORM		"ORDER BY s.ts WITHIN INTERVAL '10' SECOND [, ...]"

/*---- from the text to the tree */

typedef struct Bind
{
	ParseState *pstate;
	const KdaSortWithin *sort;
	SelectStmt *select;			/* the one whose ORDER BY has it */
	int			item;			/* which of its expressions stands before it */
	int			at;				/* where that was written */
} Bind;

static void
refuse(Bind *b, const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s", message),
			 hint ? errhint("%s", hint) : 0,
			 parser_errposition(b->pstate, b->sort->location)));
}

static bool
find_walker(Node *node, void *arg)
{
	Bind	   *b = arg;

	if (node == NULL)
		return false;
	if (IsA(node, SelectStmt))
	{
		ListCell   *lc;

		foreach(lc, ((SelectStmt *) node)->sortClause)
		{
			int			at = exprLocation(lfirst_node(SortBy, lc)->node);

			if (at >= b->sort->location || at <= b->at)
				continue;
			b->select = (SelectStmt *) node;
			b->item = foreach_current_index(lc);
			b->at = at;
		}
	}
	return raw_expression_tree_walker(node, find_walker, arg);
}

static int64
interval_us(Bind *b)
{
	Interval   *iv = kda_window_literal(b->pstate, b->sort->within);

	if (iv == NULL)
		refuse(b, "the interval of WITHIN must be a constant", FORM);
	if (iv->month != 0)
		refuse(b, "the interval of WITHIN must not have months or years", "Their length varies: give it in days or hours.");
	if (iv->time + iv->day * USECS_PER_DAY < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the interval of WITHIN must not be negative"),
				 parser_errposition(b->pstate, exprLocation(b->sort->within))));
	return iv->time + iv->day * USECS_PER_DAY;
}

/* ORDER BY 2, ORDER BY name: what the select list has there. */
static Node *
meant(SelectStmt *select, Node *item)
{
	ListCell   *lc;

	if (IsA(item, A_Const) && !((A_Const *) item)->isnull && IsA(&((A_Const *) item)->val, Integer))
	{
		int			n = ((A_Const *) item)->val.ival.ival;

		if (n >= 1 && n <= list_length(select->targetList))
			return copyObject(list_nth_node(ResTarget, select->targetList, n - 1)->val);
	}
	if (IsA(item, ColumnRef) && list_length(((ColumnRef *) item)->fields) == 1 &&
		IsA(linitial(((ColumnRef *) item)->fields), String))
		foreach(lc, select->targetList)
		{
			ResTarget  *rt = lfirst_node(ResTarget, lc);

			if (rt->name && strcmp(rt->name, strVal(linitial(((ColumnRef *) item)->fields))) == 0)
				return copyObject(rt->val);
		}
	return item;
}

/* A continuous query sorts the records that it groups; core, once, would sort the groups, which have no such column. */
static void
refuse_grouped(Bind *b)
{
	Node	   *time = linitial_node(SortBy, b->select->sortClause)->node;
	ListCell   *lc;

	if (!IsA(time, ColumnRef) || !kda_words_aggregated(b->select))
		return;
	foreach(lc, b->select->targetList)
	{
		ResTarget  *rt = lfirst_node(ResTarget, lc);

		if (rt->name && list_length(((ColumnRef *) time)->fields) == 1 &&
			strcmp(rt->name, strVal(linitial(((ColumnRef *) time)->fields))) == 0)
			return;
	}
	foreach(lc, kda_words_group_items(b->select))
		if (equal(kda_words_group_item(b->select, lfirst(lc)), time))
			return;
	refuse(b, "ORDER BY ... WITHIN sorts the records of a SELECT with aggregates only in continuous queries",
		   "Leave it out: nothing is late in what the buffer holds.");
}

void
kda_sort_bind(ParseState *pstate, Node *query, const KdaQuerySpec *spec, bool once)
{
	ListCell   *lc,
			   *ls;

	foreach(lc, spec->sorts)
	{
		Bind		b = {pstate, lfirst(lc), NULL, 0, -1};
		SortBy	   *by;
		int64		us;

		(void) find_walker(query, &b);
		if (b.select == NULL || b.item > 0)
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("WITHIN must follow the first expression of ORDER BY"),
					 errhint(FORM),
					 parser_errposition(pstate, b.sort->location)));
		us = interval_us(&b);
		if (once)
		{
			refuse_grouped(&b);
			continue;
		}
		by = linitial_node(SortBy, b.select->sortClause);
		if (by->sortby_dir != SORTBY_DEFAULT && by->sortby_dir != SORTBY_ASC)
			refuse(&b, "ORDER BY ... WITHIN sorts by time in ascending order", "Leave DESC out.");
		if (b.select->op != SETOP_NONE)
			refuse(&b, "ORDER BY ... WITHIN cannot stand behind UNION ALL",
				   "SELECT * FROM (... UNION ALL ...) u ORDER BY u.ts WITHIN INTERVAL ....");
		if (b.select->limitCount || b.select->limitOffset)
			refuse(&b, "LIMIT cannot be used with ORDER BY ... WITHIN", "Rows never end: LIMIT counts inside a window.");
		if (b.select->distinctClause)
			refuse(&b, "DISTINCT cannot be used with ORDER BY ... WITHIN", "SELECT DISTINCT inside a window removes duplicates.");
		foreach(ls, b.select->sortClause)
			lfirst_node(SortBy, ls)->node = meant(b.select, lfirst_node(SortBy, ls)->node);
		by->node = kda_raw_call(SORT_CALL, list_make2(by->node, kda_raw_string(psprintf(INT64_FORMAT, us))), b.sort->location);
	}
}

FuncCall *
kda_sort_of(SelectStmt *select)
{
	FuncCall   *call = select->sortClause ? (FuncCall *) linitial_node(SortBy, select->sortClause)->node : NULL;

	return call && IsA(call, FuncCall) && list_length(call->funcname) == 2 &&
		strcmp(strVal(linitial(call->funcname)), KDA_SCHEMA) == 0 && strcmp(strVal(lsecond(call->funcname)), SORT_CALL) == 0 ?
		call : NULL;
}

int64
kda_sort_take(SelectStmt *select)
{
	SortBy	   *by = linitial_node(SortBy, select->sortClause);
	int64		us;

	by->node = kda_sort_open(kda_sort_of(select), &us);
	return us;
}

Node *
kda_sort_open(FuncCall *call, int64 *us)
{
	*us = strtoi64(strVal(&lsecond_node(A_Const, call->args)->val), NULL, 10);
	return linitial(call->args);
}

/*---- the stage */

static int
position(KdaCompose *c, int location)
{
	return location < 0 ? 0 : pg_mbstrlen_with_len(c->source_text, location) + 1;
}

/* Where in FROM the stream stands; NULL: nowhere. */
static Node **
stream_place(Node **item)
{
	Node	  **found;

	if (IsA(*item, JoinExpr))
	{
		found = stream_place(&((JoinExpr *) *item)->larg);
		return found ? found : stream_place(&((JoinExpr *) *item)->rarg);
	}
	return kda_raw_has_stream(*item) ? item : NULL;
}

static const char *
name_of(Node *item)
{
	Alias	   *alias = IsA(item, RangeVar) ? ((RangeVar *) item)->alias : ((RangeSubselect *) item)->alias;

	return alias ? alias->aliasname : IsA(item, RangeVar) ? ((RangeVar *) item)->relname : "kda_records";
}

static int
location_of(Node *item)
{
	return IsA(item, RangeVar) ? ((RangeVar *) item)->location :
		kda_select_location((SelectStmt *) ((RangeSubselect *) item)->subquery);
}

/* SELECT of all columns of the item, which FROM shows. */
static SelectStmt *
all_of(KdaCompose *c, Node *item)
{
	SelectStmt *select = makeNode(SelectStmt);
	const char *name = name_of(item);
	Oid			relid = IsA(item, RangeVar) ? kda_part_relid((RangeVar *) item) : InvalidOid;
	ColumnRef  *star = makeNode(ColumnRef);
	ResTarget  *rt = makeNode(ResTarget);

	if (IsA(item, RangeSubselect) && ((RangeSubselect *) item)->alias == NULL)
		((RangeSubselect *) item)->alias = makeAlias(name, NIL);
	if (OidIsValid(relid))
	{
		/* that of joined streams is not shown by * */
		Relation	rel = relation_open(relid, AccessShareLock);

		for (int i = 0; i < RelationGetNumberOfAttributes(rel); i++)
		{
			char	   *column = NameStr(TupleDescAttr(RelationGetDescr(rel), i)->attname);

			select->targetList = lappend(select->targetList, kda_raw_target(column, kda_raw_column(name, column, -1)));
		}
		relation_close(rel, NoLock);
	}
	else
	{
		star->fields = list_make2(makeString(pstrdup(name)), makeNode(A_Star));
		star->location = rt->location = -1;
		rt->val = (Node *) star;
		select->targetList = list_make1(rt);
	}
	select->fromClause = list_make1(kda_join_in_from(c, copyObject(item)));
	return select;
}

/* The column of the part that shows its time: the key itself, if that is one; else none does. */
static const char *
time_column(const KdaSplit *split, Node *key)
{
	const char *name = key && IsA(key, ColumnRef) && IsA(llast(((ColumnRef *) key)->fields), String) ?
		strVal(llast(((ColumnRef *) key)->fields)) : NULL;

	for (int i = 0; name && i < split->ncolumns; i++)
		if (strcmp(split->names[i], name) == 0 && (split->types[i] == TIMESTAMPTZOID || split->types[i] == TIMESTAMPOID))
			return name;
	return "";
}

/* Rows of the SELECT go into a stream of ours, which takes the item's place.  key: as whose column its time may be seen. */
static void
put_part(KdaCompose *c, Node **place, SelectStmt *select, Node *key, FuncCall *time)
{
	KdaQuerySpec *spec = palloc0(sizeof(KdaQuerySpec));
	Node	   *item = *place;
	KdaSplit   *split;
	KdaStreamOptions *source;
	Oid			stream;

	spec->select = select;
	spec->time = time ? copyObject(time) : NULL;
	spec->outer_location = -1;
	split = kda_split_query(spec, c->source_text, c->time_zone, false);
	source = kda_stream_options_get(split->stream);
	stream = kda_make_part_stream(c, split->ncolumns, split->names, split->types, split->typmods, source,
								  time_column(split, key));
	c->parts = lappend_oid(c->parts, kda_create_part(c, spec, stream, false));
	*place = (Node *) kda_part_rangevar(stream, makeAlias(name_of(item), NIL), location_of(item));
}

/* kda.rowtime (place in the batch) */
static Node *
record_time(Node *item, const char *row_column)
{
	return kda_raw_call("rowtime", list_make1(kda_raw_column(name_of(item), row_column, -1)), -1);
}

void
kda_sort_compose(KdaCompose *c, SelectStmt *select, int outer_location)
{
	FuncCall   *call = kda_sort_of(select);
	Node	   *key = call ? linitial(call->args) : NULL;
	Node	  **place = NULL;
	Node	   *rowtime;
	Node	   *shown;
	bool		is_time;
	ListCell   *lc;

	if (call == NULL)
		return;
	foreach(lc, select->fromClause)
		if (place == NULL)
			place = stream_place((Node **) &lfirst(lc));
	if (place == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("ORDER BY ... WITHIN sorts the rows of a stream"),
				 errhint("Name a stream in FROM of the same SELECT."),
				 errposition(position(c, call->location))));
	is_time = IsA(key, ColumnRef) && IsA(llast(((ColumnRef *) key)->fields), String) &&
		kda_from_item_of_time(*place, (ColumnRef *) key) != NULL;
	if (!is_time)
	{
		put_part(c, place, all_of(c, *place), key, call);
	}

	/* from here on the order is that of the stream's time */
	shown = key;
	rowtime = NULL;
	if (IsA(*place, RangeVar))
	{
		bool		part = OidIsValid(kda_part_relid((RangeVar *) *place));
		Oid			relid = part ? kda_part_relid((RangeVar *) *place) : RangeVarGetRelid((RangeVar *) *place, NoLock, false);
		AttrNumber	attno = kda_stream_options_get(relid)->rowtime_attno;

		shown = attno > 0 ? kda_raw_column(name_of(*place), get_attname(relid, attno, false), exprLocation(key)) : NULL;
		if (!part)
			rowtime = shown ? shown : record_time(*place, "ctid");
	}
	if (rowtime == NULL)
		rowtime = record_time(*place, KDA_ROW_COLUMN);
	linitial(call->args) = copyObject(rowtime);
	if (!kda_select_window(c->spec, select, outer_location) && !kda_words_aggregated(select) &&
		!kda_raw_has_over((Node *) select->targetList))
		return;
	{
		SelectStmt *sorted = all_of(c, *place);

		sorted->sortClause = select->sortClause;
		select->sortClause = NIL;
		put_part(c, place, sorted, shown, NULL);
	}
}
