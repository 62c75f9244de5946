/*-------------------------------------------------------------------------
 *
 * as_of.c
 *	  JOIN t FOR SYSTEM_TIME AS OF s.rowtime: an ordinary join with one more
 *	  condition, that the table's row held at the time of the record.
 *
 * When a row holds is said by the columns valid_from and valid_to of the table
 * (half-open, NULL: open), or else by its only tstzrange column:
 *
 *		(t.valid_from IS NULL OR t.valid_from <= s.rowtime) AND
 *		(t.valid_to IS NULL OR s.rowtime < t.valid_to)
 *		t.valid @> s.rowtime
 *
 * The condition goes to ON of the join that brings the table and the stream
 * together, so that a left join stays one; without ON, to WHERE.
 *
 * On raw trees, in the session that states the query, before anything else is
 * done with it.  Reads the catalog; what the user may see core checks later.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/htup_details.h"
#include "declare/as_of.h"
#include "catalog/rows.h"
#include "declare/from.h"
#include "catalog/namespace.h"
#include "catalog/options.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "declare/query_words.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#define PLAIN_JOIN_HINT	"A plain JOIN looks the table up as it is when the record is processed."

typedef struct Bind
{
	ParseState *pstate;
	const KdaQuerySpec *spec;
	bool		once;
	List	   *done;			/* KdaAsOf */

	/* the one at work */
	KdaAsOf    *as_of;
	RangeVar   *table;
	Oid			relid;
	Node	   *source;			/* item of FROM whose time it is */
	Node	   *condition;
} Bind;

static void
refuse(Bind *b, int code, const char *message, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("%s", message),
			 detail ? errdetail("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 parser_errposition(b->pstate, b->as_of->location)));
}

/*---- where the table stands */

/* The relation below the item that was written there; NULL: none. */
static RangeVar *
relation_at(Node *item, int location)
{
	RangeVar   *found;

	if (item && IsA(item, RangeVar))
		return ((RangeVar *) item)->location == location ? (RangeVar *) item : NULL;
	if (item == NULL || !IsA(item, JoinExpr))
		return NULL;
	found = relation_at(((JoinExpr *) item)->larg, location);
	return found ? found : relation_at(((JoinExpr *) item)->rarg, location);
}

static bool
holds(Node *item, Node *leaf)
{
	if (item && IsA(item, JoinExpr))
		return holds(((JoinExpr *) item)->larg, leaf) || holds(((JoinExpr *) item)->rarg, leaf);
	return item == leaf;
}

/* On the way down to the table there must be no outer join: its rows would be chosen too late. */
static void
check_inner(Bind *b, Node *item)
{
	JoinExpr   *join = (JoinExpr *) item;

	if (!IsA(item, JoinExpr))
		return;
	if (join->jointype != JOIN_INNER)
		refuse(b, ERRCODE_FEATURE_NOT_SUPPORTED,
			   "FOR SYSTEM_TIME AS OF cannot stand inside an outer join without the stream", NULL,
			   "Join the stream with that table first: s LEFT JOIN t FOR SYSTEM_TIME AS OF s.rowtime ON ... LEFT JOIN u ON ....");
	check_inner(b, holds(join->larg, (Node *) b->table) ? join->larg : join->rarg);
}

static Node *
and_raw(Node *a, Node *b)
{
	return a ? (Node *) makeBoolExpr(AND_EXPR, list_make2(a, b), -1) : b;
}

/* Puts the condition where the table meets the stream. */
static void
put_condition(Bind *b, SelectStmt *select, Node *item)
{
	JoinExpr   *join = (JoinExpr *) item;
	bool		left;
	Node	   *with,
			   *without;

	if (!IsA(item, JoinExpr) || !holds(item, b->source))
	{
		/* FROM s, t */
		check_inner(b, item);
		select->whereClause = and_raw(select->whereClause, b->condition);
		return;
	}
	left = holds(join->larg, (Node *) b->table);
	with = left ? join->larg : join->rarg;
	without = left ? join->rarg : join->larg;
	if (!holds(without, b->source))
	{
		put_condition(b, select, with);
		return;
	}
	check_inner(b, with);
	if (join->jointype != JOIN_INNER && join->jointype != (left ? JOIN_RIGHT : JOIN_LEFT))
		refuse(b, ERRCODE_FEATURE_NOT_SUPPORTED,
			   psprintf("FOR SYSTEM_TIME AS OF cannot be used where all rows of \"%s\" are preserved", b->table->relname),
			   "A row without a record has no time to be looked up at.",
			   "Put the stream on the preserved side: stream LEFT JOIN table.");
	if (join->usingClause == NIL && !join->isNatural)
		join->quals = and_raw(join->quals, b->condition);
	else if (join->jointype == JOIN_INNER)
		select->whereClause = and_raw(select->whereClause, b->condition);
	else
		refuse(b, ERRCODE_FEATURE_NOT_SUPPORTED, "an outer join FOR SYSTEM_TIME AS OF needs ON", NULL,
			   "Instead of USING or NATURAL write ON s.k = t.k.");
}

/*---- whose time it is */

typedef struct StreamSearch
{
	Oid			relid;			/* the first one */
	int			n;
} StreamSearch;

static bool
stream_walker(Node *node, void *arg)
{
	StreamSearch *search = arg;

	if (node == NULL)
		return false;
	if (IsA(node, RangeVar))
	{
		Oid			relid = RangeVarGetRelid((RangeVar *) node, NoLock, true);

		if (OidIsValid(relid) && kda_is_continuous(relid))
		{
			if (search->n++ == 0)
				search->relid = relid;
		}
		return false;
	}
	return raw_expression_tree_walker(node, stream_walker, search);
}

static const char *
name_of(Node *item)
{
	Alias	   *alias = IsA(item, RangeVar) ? ((RangeVar *) item)->alias : ((RangeSubselect *) item)->alias;

	return alias ? alias->aliasname : IsA(item, RangeVar) ? ((RangeVar *) item)->relname : NULL;
}

/*
 * The time of the record, as timestamptz; or as the column is, if that is a
 * timestamp and so are the table's (as_is).
 */
static Node *
record_time(Bind *b, SelectStmt *select, bool as_is)
{
	ColumnRef  *column = (ColumnRef *) b->as_of->time;
	const char *name = name_of(b->source);
	const char *word = strVal(llast(column->fields));
	StreamSearch search = {InvalidOid, 0};
	StreamSearch all = {InvalidOid, 0};
	KdaStreamOptions *options;
	Oid			type = TIMESTAMPTZOID;
	Node	   *time;

	(void) stream_walker(b->source, &search);
	(void) stream_walker((Node *) select->fromClause, &all);
	if (name == NULL)
		refuse(b, ERRCODE_FEATURE_NOT_SUPPORTED, "a subquery that FOR SYSTEM_TIME AS OF speaks of needs a name", NULL,
			   "Give it an alias.");
	if (!kda_is_stream(search.relid))
		return kda_raw_column(name, word, column->location);
	options = kda_stream_options_get(search.relid);
	if (options->rowtime_attno > 0)
		type = get_atttype(search.relid, options->rowtime_attno);
	if (IsA(b->source, RangeVar))
	{
		if (options->rowtime_attno > 0)
			word = get_attname(search.relid, options->rowtime_attno, false);
		else if (b->once)
			return kda_raw_call("rowtime", list_make1(kda_raw_column(name, "ctid", column->location)), column->location);
	}
	if (options->rowtime_attno <= 0 && all.n > 1)
		refuse(b, ERRCODE_FEATURE_NOT_SUPPORTED,
			   psprintf("stream \"%s\" declares no time column for FOR SYSTEM_TIME AS OF beside another stream", name), NULL,
			   "Declare it: CREATE STREAM ... (rowtime timestamptz, ...).");
	time = kda_raw_column(name, word, column->location);
	/* a subquery's ROWTIME is a word of ours, and timestamptz */
	if (type != TIMESTAMPOID || as_is ||
		(IsA(b->source, RangeSubselect) && pg_strcasecmp(word, "rowtime") == 0 && all.n == 1))
		return time;
	return (Node *) makeFuncCall(list_make2(makeString("pg_catalog"), makeString("timezone")),
								 list_make2(kda_raw_string(options->time_zone), time), COERCE_EXPLICIT_CALL, -1);
}

/* Is the declared time column of the stream that is named itself a timestamp without time zone? */
static bool
time_is_plain(Bind *b)
{
	Oid			relid;
	KdaStreamOptions *options;

	if (!IsA(b->source, RangeVar))
		return false;
	relid = RangeVarGetRelid((RangeVar *) b->source, NoLock, true);
	if (!OidIsValid(relid) || !kda_is_stream(relid))
		return false;
	options = kda_stream_options_get(relid);
	return options->rowtime_attno > 0 && get_atttype(relid, options->rowtime_attno) == TIMESTAMPOID;
}

/*---- when a row of the table holds */

typedef struct Columns
{
	char	   *from;			/* columns of these names, as the query calls them */
	char	   *to;
	Oid			from_type;
	Oid			to_type;
	char	   *range;			/* the first one of type tstzrange */
	int			nranges;
	char	   *other;			/* a column that might have been meant: another range */
	Oid			other_type;
} Columns;

static Columns
columns_of(Bind *b)
{
	Columns		c = {0};
	ListCell   *alias = b->table->alias ? list_head(b->table->alias->colnames) : NULL;
	HeapTuple	tuple;

	for (int i = 1; HeapTupleIsValid(tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(b->relid), Int16GetDatum(i))); i++)
	{
		Form_pg_attribute att;
		char	   *name;

		att = (Form_pg_attribute) GETSTRUCT(tuple);
		if (!att->attisdropped)
		{
			/* t AS a (x, y): columns have other names in the query */
			name = pstrdup(alias ? strVal(lfirst(alias)) : NameStr(att->attname));
			if (alias)
				alias = lnext(b->table->alias->colnames, alias);
			if (strcmp(NameStr(att->attname), "valid_from") == 0)
			{
				c.from = name;
				c.from_type = getBaseType(att->atttypid);
			}
			else if (strcmp(NameStr(att->attname), "valid_to") == 0)
			{
				c.to = name;
				c.to_type = getBaseType(att->atttypid);
			}
			else if (getBaseType(att->atttypid) == TSTZRANGEOID)
			{
				if (c.nranges++ == 0)
					c.range = name;
			}
			else if (type_is_range(getBaseType(att->atttypid)))
			{
				c.other = name;
				c.other_type = att->atttypid;
			}
		}
		ReleaseSysCache(tuple);
	}
	return c;
}

static Node *
compare(const char *operator, Node *left, Node *right)
{
	return (Node *) makeA_Expr(AEXPR_OP, list_make2(makeString("pg_catalog"), makeString(pstrdup(operator))),
							   left, right, -1);
}

static Node *
or_open(Node *column, Node *condition)
{
	NullTest   *null = makeNode(NullTest);

	null->arg = (Expr *) column;
	null->nulltesttype = IS_NULL;
	null->location = -1;
	return (Node *) makeBoolExpr(OR_EXPR, list_make2(null, condition), -1);
}

static Node *
condition_of(Bind *b, SelectStmt *select)
{
	const char *table = b->table->alias ? b->table->alias->aliasname : b->table->relname;
	Columns		c = columns_of(b);
	bool		zoned = c.from_type == TIMESTAMPTZOID && c.to_type == TIMESTAMPTZOID;
	bool		plain = c.from_type == TIMESTAMPOID && c.to_type == TIMESTAMPOID && time_is_plain(b);

	if (zoned || plain)
	{
		Node	   *time = record_time(b, select, plain);
		Node	   *from = kda_raw_column(table, c.from, -1);
		Node	   *to = kda_raw_column(table, c.to, -1);

		return and_raw(or_open(from, compare("<=", copyObject(from), time)),
					   or_open(to, compare("<", copyObject(time), copyObject(to))));
	}
	if (c.nranges == 1)
		return compare("@>", kda_raw_column(table, c.range, -1), record_time(b, select, false));
	if (c.nranges > 1)
		refuse(b, ERRCODE_AMBIGUOUS_COLUMN,
			   psprintf("table \"%s\" has %d columns of type tstzrange", b->table->relname, c.nranges),
			   "Which of them says when a row holds cannot be told.",
			   "Columns valid_from and valid_to say it without a doubt; or join a view of the table that shows one of them.");
	if (c.from && c.to)
		refuse(b, ERRCODE_DATATYPE_MISMATCH,
			   psprintf("columns valid_from and valid_to of table \"%s\" do not say when a row holds", b->table->relname),
			   psprintf("They are of type %s and %s.", format_type_be(c.from_type), format_type_be(c.to_type)),
			   "Make both timestamptz; or timestamp, where the stream's time column is a timestamp as well.");
	refuse(b, ERRCODE_UNDEFINED_COLUMN,
		   psprintf("table \"%s\" does not say when its rows hold", b->table->relname),
		   c.other ? psprintf("Column \"%s\" is of type %s.", c.other, format_type_be(c.other_type)) :
		   c.from ? "It has a column valid_from, but no valid_to." :
		   c.to ? "It has a column valid_to, but no valid_from." : NULL,
		   "FOR SYSTEM_TIME AS OF needs columns valid_from and valid_to of type timestamptz (half-open, NULL is open), or one column of type tstzrange. "
		   PLAIN_JOIN_HINT);
	return NULL;				/* not reached */
}

/*---- a SELECT */

static void
check_table(Bind *b, SelectStmt *select)
{
	ListCell   *lc;
	char		kind;
	bool		table;

	if (select->withClause && b->table->schemaname == NULL)
		foreach(lc, select->withClause->ctes)
			if (strcmp(lfirst_node(CommonTableExpr, lc)->ctename, b->table->relname) == 0)
				refuse(b, ERRCODE_WRONG_OBJECT_TYPE,
					   psprintf("\"%s\" is not a table: FOR SYSTEM_TIME AS OF cannot be used with it", b->table->relname),
					   NULL, "Name the table or view itself.");
	b->relid = RangeVarGetRelid(b->table, NoLock, true);
	if (!OidIsValid(b->relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s\" does not exist", b->table->relname),
				 errhint("FOR SYSTEM_TIME AS OF looks at the table's columns when the statement is read: the table must be there before."),
				 parser_errposition(b->pstate, b->table->location)));
	kind = get_rel_relkind(b->relid);
	table = kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE || kind == RELKIND_FOREIGN_TABLE ||
		kind == RELKIND_VIEW || kind == RELKIND_MATVIEW;
	if (!table || kda_is_continuous(b->relid))
		refuse(b, ERRCODE_WRONG_OBJECT_TYPE,
			   psprintf("\"%s\" is not a table: FOR SYSTEM_TIME AS OF cannot be used with it", b->table->relname),
			   kda_is_continuous(b->relid) ? "Rows of streams and continuous views are events, which hold at one instant." : NULL,
			   kda_is_continuous(b->relid) ? "Streams are joined with a bound on the time between their rows." : NULL);
}

/* The time must be that of a record in FROM beside the table. */
static void
find_source(Bind *b, SelectStmt *select)
{
	ListCell   *lc;
	char	   *name = NameListToString(((ColumnRef *) b->as_of->time)->fields);

	foreach(lc, select->fromClause)
	{
		Node	   *found = kda_from_item_of_time(lfirst(lc), (ColumnRef *) b->as_of->time);

		if (found && b->source)
			refuse(b, ERRCODE_AMBIGUOUS_COLUMN,
				   psprintf("column reference \"%s\" is ambiguous", name), NULL, "Write AS OF s.rowtime with the name of the stream.");
		if (found)
			b->source = found;
	}
	if (b->source == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not the time attribute of a stream in FROM", name),
				 errdetail("FOR SYSTEM_TIME AS OF takes the time of a record, which stands in the same FROM as the table."),
				 errhint("Write AS OF s.ROWTIME, where s is the stream. " PLAIN_JOIN_HINT),
				 parser_errposition(b->pstate, exprLocation(b->as_of->time))));
}

static void
bind_select(Bind *b, SelectStmt *select)
{
	ListCell   *la,
			   *lf;

	foreach(la, b->spec->as_of)
		foreach(lf, select->fromClause)
		{
			b->as_of = lfirst(la);
			b->table = relation_at(lfirst(lf), b->as_of->relation);
			if (b->table == NULL)
				continue;
			b->done = lappend(b->done, b->as_of);
			b->source = NULL;
			check_table(b, select);
			find_source(b, select);
			b->condition = condition_of(b, select);
			put_condition(b, select, lfirst(lf));
		}
}

static bool
select_walker(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	if (IsA(node, SelectStmt))
		bind_select(arg, (SelectStmt *) node);
	return raw_expression_tree_walker(node, select_walker, arg);
}

void
kda_as_of_bind(ParseState *pstate, Node *query, const KdaQuerySpec *spec, bool once)
{
	Bind		b = {pstate, spec, once, NIL};
	ListCell   *lc;

	if (spec->as_of == NIL)
		return;
	(void) select_walker(query, &b);
	foreach(lc, spec->as_of)
		if (!list_member_ptr(b.done, lfirst(lc)))
		{
			b.as_of = lfirst(lc);
			refuse(&b, ERRCODE_WRONG_OBJECT_TYPE, "FOR SYSTEM_TIME AS OF must follow the name of a table in FROM of a SELECT",
				   NULL, "JOIN t FOR SYSTEM_TIME AS OF s.rowtime [AS a] ON ...");
		}
}

bool
kda_as_of_in(const KdaQuerySpec *spec, SelectStmt *select)
{
	ListCell   *la,
			   *lf;

	foreach(la, spec->as_of)
		foreach(lf, select->fromClause)
			if (relation_at(lfirst(lf), ((KdaAsOf *) lfirst(la))->relation))
				return true;
	return false;
}
