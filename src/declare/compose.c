/*-------------------------------------------------------------------------
 *
 * compose.c
 *	  Queries that are made of several.
 *
 * A continuous query reads one stream.  What cannot be said that way is taken
 * apart here: the inner piece becomes a pump into a stream of ours, and that
 * stream stands in FROM instead.
 *
 *		a window over the result of another window, or of rows with OVER
 *		UNION ALL of streams
 *		a continuous view in FROM: the rows of its closed windows
 *		joins of streams (stream_join.c, window_join.c)
 *
 * Parts live in kda_storage, belong to the query's owner and go with the query.
 * Runs in the session that declares it, on the raw tree.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/relation.h"
#include "access/xact.h"
#include "declare/as_of.h"
#include "declare/compose.h"
#include "catalog/rows.h"
#include "catalog/dependency.h"
#include "declare/from.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/options.h"
#include "catalog/pg_class.h"
#include "declare/sort_within.h"
#include "declare/split.h"
#include "declare/stream_join.h"
#include "commands/tablecmds.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "stream/stream.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

static void compose_select(KdaCompose *c, SelectStmt *select, int outer_location);

static int
position(KdaCompose *c, int location)
{
	return location < 0 ? 0 : pg_mbstrlen_with_len(c->source_text, location) + 1;
}

/*---- streams of ours */

/*
 * A stream with those columns, for the given owner.  Option worker is that of
 * its source, and so is time_zone; rowtime: its time column, '' if none is,
 * NULL: one of that name.
 */
static Oid
make_stream(int ncolumns, char **names, Oid *types, int32 *typmods, const KdaStreamOptions *source, const char *rowtime,
			Oid owner, int32 part_of)
{
	char	   *id;
	char	   *name;
	StringInfoData sql;
	Oid			relid;
	KdaOwnerScope scope;

	kda_owner_row("SELECT pg_catalog.nextval('kda_storage.id_seq')", 1, &id);
	name = psprintf("part_%s", id);
	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE FOREIGN TABLE kda_storage.%s (", name);
	for (int i = 0; i < ncolumns; i++)
		appendStringInfo(&sql, "%s%s %s", i ? ", " : "", quote_identifier(names[i]),
						 kda_column_type_sql(types[i], typmods[i], InvalidOid));
	appendStringInfo(&sql, ") SERVER kda OPTIONS (worker %s, time_zone %s, retention '0'", quote_literal_cstr(source->worker),
					 quote_literal_cstr(source->time_zone));
	if (rowtime)
		appendStringInfo(&sql, ", rowtime %s", quote_literal_cstr(rowtime));
	appendStringInfoChar(&sql, ')');
	kda_run_as_owner(sql.data);
	CommandCounterIncrement();
	relid = kda_storage_relation(name);
	(void) kda_stream_ensure_storage(relid);
	kda_run_as_owner(psprintf("UPDATE kda_storage.stream SET part_of = %d WHERE rel = %u::pg_catalog.regclass", part_of, relid));
	kda_owner_begin(&scope);
	ATExecChangeOwner(relid, owner, false, AccessExclusiveLock);
	kda_owner_end(&scope);
	CommandCounterIncrement();
	return relid;
}

Oid
kda_make_part_stream(KdaCompose *c, int ncolumns, char **names, Oid *types, int32 *typmods,
					 const KdaStreamOptions *source, const char *rowtime)
{
	Oid			stream = make_stream(ncolumns, names, types, typmods, source, rowtime, GetUserId(), c->query_id);

	c->parts = lappend_oid(c->parts, stream);
	return stream;
}

SelectStmt *
kda_compose_with(KdaCompose *c, SelectStmt *select)
{
	if (c->around == NULL)
		return select;
	select = memcpy(makeNode(SelectStmt), select, sizeof(SelectStmt));
	select->withClause = kda_with(c->around, select->withClause);
	return select;
}

/* The part of the specification that belongs to a SELECT below. */
static KdaQuerySpec *
spec_of(KdaCompose *c, SelectStmt *select, int outer_location)
{
	KdaQuerySpec *spec = palloc0(sizeof(KdaQuerySpec));

	spec->select = kda_compose_with(c, select);
	spec->windows = c->spec->windows;
	spec->outer_location = outer_location;
	return spec;
}

/* Runs the SELECT as a pump into a stream of ours; without a stream it makes one. */
static Oid
pump_into(KdaCompose *c, SelectStmt *select, int outer_location, Oid stream, bool add_window_columns)
{
	KdaQuerySpec *spec = spec_of(c, select, outer_location);
	KdaSplit   *split = kda_split_query(spec, c->source_text, c->time_zone, add_window_columns);

	if (split->shape == KDA_SHAPE_GROUPS)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the rows of an aggregate, DISTINCT, LIMIT or window function without a window are never final"),
				 errdetail("A window, a join or a UNION ALL over them would count each of their changes."),
				 errhint("Give the SELECT that has it a window of its own: WINDOWED BY ...."),
				 errposition(position(c, kda_select_location(select)))));
	if (!OidIsValid(stream))
	{
		const char *rowtime = NULL;

		if (split->sorted)
			rowtime = split->sorted_by ? split->sorted_by : "";
		else if (split->shape == KDA_SHAPE_WINDOWS && kda_window_gives_another_time(split))
			rowtime = "";
		stream = kda_make_part_stream(c, split->ncolumns, split->names, split->types, split->typmods,
									  kda_stream_options_get(split->stream), rowtime);
	}
	c->parts = lappend_oid(c->parts, kda_create_part(c, spec, stream, add_window_columns));
	return stream;
}

Oid
kda_compose_pump_into(KdaCompose *c, SelectStmt *select, int outer_location, Oid stream)
{
	return pump_into(c, select, outer_location, stream, false);
}

/*---- a continuous view in FROM */

/* Is the time of the view's rows another one than that of the records which a column may show? */
static bool
hands_on_another_time(const KdaQueryIds *ids)
{
	char	   *found[2];

	if (!kda_owner_row(psprintf("SELECT shape = 'over' AND EXISTS (SELECT FROM kda_storage.query r WHERE r.part_of = q.query_id AND r.retimed), "
								"CASE shape WHEN 'windows' THEN final::oid END FROM kda_storage.query q WHERE q.query_id = %d",
								ids->id), 2, found))
		return false;
	return strcmp(found[0], "t") == 0 || (found[1] && kda_window_view_gives_another_time((Oid) strtoul(found[1], NULL, 10)));
}

static Oid
stream_of_view(KdaCompose *c, RangeVar *rv, Oid relid, const KdaQueryIds *ids)
{
	Relation	rel;
	TupleDesc	desc;
	char	  **names;
	Oid		   *types;
	int32	   *typmods;
	Oid			stream = ids->target;
	ObjectAddress self,
				parent;

	if (ids->is_pump)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is a pump and cannot be read by a continuous query", rv->relname),
				 errhint("Read the stream that it writes."),
				 errposition(position(c, rv->location))));
	if (!OidIsValid(ids->closed))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("continuous view \"%s\" has no window", rv->relname),
				 errdetail("Its groups never close, so none of its rows is ever final."),
				 errhint("Give it a window, or read its stream."),
				 errposition(position(c, rv->location))));
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_VIEW, rv->relname);
	if (!OidIsValid(stream))
	{
		Oid			owner;

		rel = relation_open(relid, AccessShareLock);
		owner = rel->rd_rel->relowner;
		desc = RelationGetDescr(rel);
		names = palloc(sizeof(char *) * desc->natts);
		types = palloc(sizeof(Oid) * desc->natts);
		typmods = palloc(sizeof(int32) * desc->natts);
		for (int i = 0; i < desc->natts; i++)
		{
			names[i] = pstrdup(NameStr(TupleDescAttr(desc, i)->attname));
			types[i] = TupleDescAttr(desc, i)->atttypid;
			typmods[i] = TupleDescAttr(desc, i)->atttypmod;
		}
		stream = make_stream(desc->natts, names, types, typmods, kda_stream_options_get(ids->stream),
							 hands_on_another_time(ids) ? "" : NULL, owner, ids->id);
		relation_close(rel, NoLock);
		ObjectAddressSet(self, RelationRelationId, stream);
		ObjectAddressSet(parent, RelationRelationId, relid);
		recordDependencyOn(&self, &parent, DEPENDENCY_INTERNAL);
		kda_run_as_owner(psprintf("UPDATE kda_storage.query SET target = %u::pg_catalog.regclass WHERE query_id = %d",
								  stream, ids->id));
		CommandCounterIncrement();
	}
	kda_run_as_owner(psprintf("GRANT SELECT ON kda_storage.%s TO %s", quote_identifier(get_rel_name(stream)),
							  quote_identifier(GetUserNameFromId(GetUserId(), false))));
	return stream;
}

/*---- UNION ALL */

/* Streams of all branches, one after the other: they may have different windows, or none. */
static bool
is_union_all(SelectStmt *select)
{
	if (select->op == SETOP_NONE)
		return true;
	return select->op == SETOP_UNION && select->all && !select->sortClause && !select->limitCount && !select->limitOffset &&
		is_union_all(select->larg) && is_union_all(select->rarg);
}

static void
union_branches(KdaCompose *c, SelectStmt *select, List **branches)
{
	if (select->op == SETOP_NONE)
	{
		*branches = lappend(*branches, select);
		return;
	}
	if (select->op != SETOP_UNION || !select->all || select->sortClause || select->limitCount || select->limitOffset ||
		select->withClause)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("streams can only be put together with UNION ALL"),
				 errdetail("UNION, INTERSECT and EXCEPT, and ORDER BY or LIMIT behind a UNION ALL, would have to see all of the records that will ever come."),
				 errhint("They work where each branch is one SELECT with the same window: SELECT ... WINDOWED BY ... INTERSECT SELECT ... WINDOWED BY ...."),
				 errposition(position(c, kda_select_location(select)))));
	union_branches(c, select->larg, branches);
	union_branches(c, select->rarg, branches);
}

static Oid
union_stream(KdaCompose *c, SelectStmt *select, int outer_location, bool add_window_columns)
{
	List	   *branches = NIL;
	Oid			stream = InvalidOid;
	ListCell   *lc;

	union_branches(c, select, &branches);
	foreach(lc, branches)
	{
		SelectStmt *branch = lfirst(lc);

		if (!kda_raw_has_stream((Node *) branch))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("each branch of a UNION ALL must read a stream"),
					 errposition(position(c, kda_select_location(branch)))));
		compose_select(c, branch, outer_location);
		stream = pump_into(c, branch, outer_location, stream, add_window_columns);
	}
	return stream;
}

/*---- SELECTs */

/* What a column is called where its window is: subqueries may have renamed it. */
static const char *
name_below(SelectStmt *select, ColumnRef *ref)
{
	List	   *fields = ref->fields;
	const char *name;
	ListCell   *lf,
			   *lt;

	if (!IsA(llast(fields), String))
		return "";
	name = strVal(llast(fields));
	foreach(lf, select->fromClause)
	{
		RangeSubselect *sub = lfirst(lf);

		if (!IsA(sub, RangeSubselect) || ((SelectStmt *) sub->subquery)->op != SETOP_NONE ||
			(list_length(fields) == 2 && (sub->alias == NULL || strcmp(strVal(linitial(fields)), sub->alias->aliasname) != 0)))
			continue;
		foreach(lt, ((SelectStmt *) sub->subquery)->targetList)
		{
			ResTarget  *rt = lfirst_node(ResTarget, lt);
			ColumnRef  *val = (ColumnRef *) rt->val;

			if (rt->name && strcmp(rt->name, name) == 0)
				return IsA(val, ColumnRef) ? name_below((SelectStmt *) sub->subquery, val) : "";
		}
	}
	return name;
}

/* Does the SELECT group or partition by both bounds of a window below it, so that it looks at one window at a time? */
static bool
names_both_bounds(SelectStmt *select, List *list)
{
	bool		start = false,
				end = false;
	ListCell   *lc;

	foreach(lc, list)
	{
		Node	   *node = lfirst(lc);

		if (IsA(node, ColumnRef))
		{
			start |= strcmp(name_below(select, (ColumnRef *) node), "window_start") == 0;
			end |= strcmp(name_below(select, (ColumnRef *) node), "window_end") == 0;
		}
	}
	return start && end;
}

typedef struct OverContext
{
	SelectStmt *select;
	bool		across;			/* a window function looks across windows of time */
} OverContext;

static bool
over_walker(Node *node, void *arg)
{
	OverContext *cxt = arg;

	if (node == NULL || IsA(node, SubLink) || IsA(node, SelectStmt))
		return false;
	if (IsA(node, FuncCall) && ((FuncCall *) node)->over != NULL)
	{
		WindowDef  *def = ((FuncCall *) node)->over;
		ListCell   *lc;

		if (def->name)
			foreach(lc, cxt->select->windowClause)
				if (strcmp(lfirst_node(WindowDef, lc)->name, def->name) == 0)
					def = lfirst_node(WindowDef, lc);
		if (!names_both_bounds(cxt->select, def->partitionClause))
			cxt->across = true;
	}
	return raw_expression_tree_walker(node, over_walker, cxt);
}

/*
 * The SELECT has a subquery with a window (or an endless aggregate) in FROM.
 * Can it be evaluated for each window by itself?
 */
static bool
one_window_at_a_time(KdaCompose *c, SelectStmt *select, int outer_location)
{
	OverContext over = {select, false};

	/* windows beside a table as of their time, or in the order of it, are records, which have one */
	if (kda_select_window(c->spec, select, outer_location) || kda_as_of_in(c->spec, select) || kda_sort_of(select))
		return false;
	if (kda_words_aggregated(select) && !names_both_bounds(select, select->groupClause))
		return false;
	over_walker((Node *) select->targetList, &over);
	if (over.across)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a window function over the rows of several windows has no final result"),
				 errhint("PARTITION BY window_start, window_end, ... looks at one window at a time."),
				 errposition(position(c, kda_select_location(select)))));
	return true;
}

int
kda_count_streams(Node *item)
{
	if (IsA(item, JoinExpr))
		return kda_count_streams(((JoinExpr *) item)->larg) + kda_count_streams(((JoinExpr *) item)->rarg);
	return kda_raw_has_stream(item) ? 1 : 0;
}

static bool
joins_streams(SelectStmt *select)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, select->fromClause)
		n += kda_count_streams(lfirst(lc));
	return n > 1;
}

static bool
is_simple_below(KdaCompose *c, SelectStmt *select, int outer_location)
{
	return select->op == SETOP_NONE && kda_select_is_simple(c->spec, select, outer_location);
}

/* Does some SELECT on the way down to the stream have a window? */
static bool
has_window_below(KdaCompose *c, SelectStmt *select, int outer_location)
{
	ListCell   *lc;

	if (select->op != SETOP_NONE)
		return false;
	if (kda_select_window(c->spec, select, outer_location) || kda_from_window_join(select))
		return true;
	foreach(lc, select->fromClause)
		if (IsA(lfirst(lc), RangeSubselect) && kda_raw_has_stream(lfirst(lc)) &&
			has_window_below(c, (SelectStmt *) ((RangeSubselect *) lfirst(lc))->subquery, kda_select_location(select)))
			return true;
	return false;
}

/* Does it look at all records that ever come? */
static bool
is_endless(KdaCompose *c, SelectStmt *select, int outer_location)
{
	return kda_split_query(spec_of(c, select, outer_location), c->source_text, c->time_zone, false)->shape == KDA_SHAPE_GROUPS;
}

Node *
kda_compose_item(KdaCompose *c, Node *item, SelectStmt *select, int outer_location)
{
	if (IsA(item, RangeVar))
	{
		RangeVar   *rv = (RangeVar *) item;
		Oid			relid = OidIsValid(kda_part_relid(rv)) ? InvalidOid : RangeVarGetRelid(rv, AccessShareLock, true);
		KdaQueryIds ids;

		if (OidIsValid(relid) && get_rel_relkind(relid) == RELKIND_VIEW && kda_query_ids(relid, &ids))
			return (Node *) kda_part_rangevar(stream_of_view(c, rv, relid, &ids),
											  rv->alias ? rv->alias : makeAlias(rv->relname, NIL), rv->location);
	}
	else if (IsA(item, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) item;

		join->larg = kda_compose_item(c, join->larg, select, outer_location);
		join->rarg = kda_compose_item(c, join->rarg, select, outer_location);
	}
	else if (IsA(item, RangeSubselect) && kda_raw_has_stream(item))
	{
		RangeSubselect *sub = (RangeSubselect *) item;
		SelectStmt *below = (SelectStmt *) sub->subquery;
		int			location = kda_select_location(below);
		Alias	   *alias = sub->alias ? sub->alias : makeAlias("kda_records", NIL);
		Oid			stream;
		ListCell   *lc;

		if (sub->lateral)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a subquery that reads a stream cannot be LATERAL"),
					 errdetail("It would be another query for each record of the other stream."),
					 errhint("Join the streams: FROM a JOIN b ON a.k = b.k AND b.rowtime BETWEEN a.rowtime - INTERVAL '5' MINUTE AND a.rowtime."),
					 errposition(position(c, location))));
		if (below->op != SETOP_NONE && !is_union_all(below))
		{
			SelectStmt *set = kda_compose_window_set(c, below, kda_select_location(select));

			if (set)
				sub->subquery = (Node *) (below = set);
		}
		if (below->op != SETOP_NONE)
			stream = union_stream(c, below, kda_select_location(select), false);
		else
		{
			if (!kda_from_window_join(below))
				compose_select(c, below, kda_select_location(select));
			if (is_simple_below(c, below, kda_select_location(select)))
				return item;
			if (has_window_below(c, below, kda_select_location(select)) && !joins_streams(select) && one_window_at_a_time(c, select, outer_location))
				return item;
			/* without any window the whole is one SELECT over all records */
			if (!kda_select_window(c->spec, select, outer_location) && !joins_streams(select) &&
				is_endless(c, below, kda_select_location(select)))
				return item;
			stream = pump_into(c, below, kda_select_location(select), InvalidOid, false);
		}
		/* what stands there now has no window: that of TABLE (TUMBLE (...)) was the part's */
		foreach(lc, c->spec->windows)
		{
			KdaWindowClause *w = lfirst(lc);

			if (w->in_from && location >= w->span_start && location < w->span_end)
				location = -1;
		}
		return (Node *) kda_part_rangevar(stream, alias, location);
	}
	return item;
}

/*---- joins of streams */

typedef struct OnlyContext
{
	List	   *aliases;		/* String */
	bool		others;			/* something else is named, or nothing says what */
} OnlyContext;

static bool
only_walker(Node *node, void *arg)
{
	OnlyContext *cxt = arg;

	if (node == NULL)
		return false;
	if (IsA(node, SubLink) || IsA(node, SelectStmt))
	{
		cxt->others = true;
		return true;
	}
	if (IsA(node, ColumnRef))
	{
		ColumnRef  *ref = (ColumnRef *) node;
		bool		known = false;
		ListCell   *lc;

		if (list_length(ref->fields) == 2 && IsA(linitial(ref->fields), String))
			foreach(lc, cxt->aliases)
				known |= strcmp(strVal(lfirst(lc)), strVal(linitial(ref->fields))) == 0;
		cxt->others |= !known;
		return cxt->others;
	}
	return raw_expression_tree_walker(node, only_walker, cxt);
}

static Node *
and_conditions(Node *a, Node *b)
{
	return a == NULL ? b : b == NULL ? a : (Node *) makeBoolExpr(AND_EXPR, list_make2(a, b), -1);
}

/* Conditions of WHERE that speak of these two items alone. */
Node *
kda_compose_conditions_on(Node *where, List *aliases)
{
	Node	   *found = NULL;
	List	   *all = where == NULL ? NIL : IsA(where, BoolExpr) && ((BoolExpr *) where)->boolop == AND_EXPR ?
		((BoolExpr *) where)->args : list_make1(where);
	ListCell   *lc;

	foreach(lc, all)
	{
		OnlyContext cxt = {aliases, false};

		if (IsA(lfirst(lc), BoolExpr) && ((BoolExpr *) lfirst(lc))->boolop == AND_EXPR)
		{
			found = and_conditions(found, kda_compose_conditions_on(lfirst(lc), aliases));
			continue;
		}
		only_walker(lfirst(lc), &cxt);
		if (!cxt.others)
			found = and_conditions(found, copyObject(lfirst(lc)));
	}
	return found;
}

static int
location_of(Node *item)
{
	if (IsA(item, RangeVar))
		return ((RangeVar *) item)->location;
	if (IsA(item, JoinExpr))
		return location_of(((JoinExpr *) item)->larg);
	if (IsA(item, RangeSubselect))
		return kda_select_location((SelectStmt *) ((RangeSubselect *) item)->subquery);
	return -1;
}

static Node *
join_streams(KdaCompose *c, Node *where, Node *left, Node *right, JoinType type, Node *condition, int location)
{
	if (type == JOIN_INNER)
		condition = and_conditions(condition,
								   kda_compose_conditions_on(where,
												 list_concat(kda_join_aliases(c, left), kda_join_aliases(c, right))));
	if (condition == NULL)
	{
		A_Const    *yes = makeNode(A_Const);

		yes->val.boolval.type = T_Boolean;
		yes->val.boolval.boolval = true;
		yes->location = -1;
		condition = (Node *) yes;
	}
	return kda_compose_join(c, left, right, type, condition, location);
}

/*
 * In a tree of JOINs, those of two streams become parts, with the tables that
 * are joined below them; those with tables above stay as they are.  nullable:
 * an outer join fills the item with NULLs, which WHERE sees.
 */
static Node *
compose_joins(KdaCompose *c, SelectStmt *select, Node *item, bool nullable)
{
	JoinExpr   *join = (JoinExpr *) item;
	bool		right = IsA(item, JoinExpr) && (join->jointype == JOIN_RIGHT || join->jointype == JOIN_FULL);
	bool		left = IsA(item, JoinExpr) && (join->jointype == JOIN_LEFT || join->jointype == JOIN_FULL);

	if (!IsA(item, JoinExpr))
		return item;
	join->larg = compose_joins(c, select, join->larg, nullable || right);
	join->rarg = compose_joins(c, select, join->rarg, nullable || left);
	if (!kda_raw_has_stream(join->larg) || !kda_raw_has_stream(join->rarg))
		return item;
	return join_streams(c, nullable ? NULL : select->whereClause, join->larg, join->rarg, join->jointype, join->quals,
						location_of(join->larg));
}

static void
compose_select(KdaCompose *c, SelectStmt *select, int outer_location)
{
	List	   *items = NIL;
	int			stream = -1;	/* the place of the one that has it */
	WithClause *around = c->around;
	ListCell   *lc,
			   *cell;

	check_stack_depth();
	c->around = kda_with(around, select->withClause);
	/* names below it would be lost when its columns are looked through */
	foreach(lc, select->fromClause)
		lfirst(lc) = kda_join_without_alias(lfirst(lc), 1);
	if (kda_compose_window_join(c, select, outer_location))
	{
		c->around = around;
		return;
	}
	foreach(lc, select->fromClause)
		lfirst(lc) = kda_join_without_alias(lfirst(lc), INT_MAX);
	foreach(lc, select->fromClause)
		lfirst(lc) = kda_compose_item(c, lfirst(lc), select, outer_location);
	if (joins_streams(select))
		kda_join_settle_names(c, select, outer_location);
	foreach(lc, select->fromClause)
	{
		Node	   *item;

		c->joined = select;
		item = compose_joins(c, select, lfirst(lc), false);
		if (!kda_raw_has_stream(item) || stream < 0)
		{
			if (kda_raw_has_stream(item))
				stream = list_length(items);
			items = lappend(items, item);
			continue;
		}
		cell = list_nth_cell(items, stream);
		lfirst(cell) = join_streams(c, select->whereClause, lfirst(cell), item, JOIN_INNER, NULL, location_of(item));
	}
	if (stream >= 0)
	{
		cell = list_nth_cell(items, stream);
		kda_join_name_times(c, lfirst(cell), select);
		lfirst(cell) = kda_join_in_from(c, lfirst(cell));
	}
	select->fromClause = items;
	kda_sort_compose(c, select, outer_location);
	c->around = around;
}

void
kda_compose(KdaCompose *c)
{
	SelectStmt *select = c->spec->select = copyObject(c->spec->select);
	ParseState *pstate = make_parsestate(NULL);

	pstate->p_sourcetext = c->source_text;
	kda_bind_row_windows(c->spec, select, kda_raw_has_stream);
	kda_words_refuse(pstate, c->spec);
	kda_with_inline((Node *) select, c->source_text);
	kda_as_of_bind(pstate, (Node *) select, c->spec, false);
	kda_sort_bind(pstate, (Node *) select, c->spec, false);
	if (select->op != SETOP_NONE && kda_raw_has_stream((Node *) select) && !is_union_all(select))
	{
		SelectStmt *set = kda_compose_window_set(c, select, -1);

		if (set)
		{
			c->spec->select = set;
			return;
		}
	}
	if (select->op != SETOP_NONE && kda_raw_has_stream((Node *) select))
	{
		/* what remains is SELECT * FROM the stream of all */
		SelectStmt *all = makeNode(SelectStmt);
		ResTarget  *rt = makeNode(ResTarget);
		ColumnRef  *star = makeNode(ColumnRef);
		int			location = kda_select_location(select);
		Oid			stream = union_stream(c, select, -1, c->is_view);

		star->fields = list_make1(makeNode(A_Star));
		star->location = rt->location = -1;
		rt->val = (Node *) star;
		all->targetList = list_make1(rt);
		all->fromClause = list_make1(kda_part_rangevar(stream, makeAlias("u", NIL), location));
		c->spec->select = all;
		c->spec->windows = NIL;
		return;
	}
	compose_select(c, select, -1);
}
