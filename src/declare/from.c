/*-------------------------------------------------------------------------
 *
 * from.c
 *	  Where in a SELECT the stream stands, before and after analysis.
 *
 * There is exactly one (compose.c has made it so).  It stands in the FROM of
 * the core SELECT, on the preserved side of every outer join, perhaps below
 * subqueries that only filter and project: those hand the record's place in
 * the batch on, in a column of ours.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/relation.h"
#include "access/sysattr.h"
#include "declare/compose.h"
#include "catalog/rows.h"
#include "declare/from.h"
#include "catalog/namespace.h"
#include "catalog/options.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "declare/query_words.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/*---- parts of ours */

RangeVar *
kda_part_rangevar(Oid relid, Alias *alias, int location)
{
	RangeVar   *rv = makeRangeVar(NULL, psprintf("%u", relid), location);

	rv->catalogname = pstrdup(KDA_PART_MARK);
	rv->alias = alias;
	return rv;
}

Oid
kda_part_relid(const RangeVar *rv)
{
	if (rv->catalogname == NULL || strcmp(rv->catalogname, KDA_PART_MARK) != 0)
		return InvalidOid;
	return (Oid) strtoul(rv->relname, NULL, 10);
}

/* (SELECT NULL::type AS column, …) alias: what the parser sees in its place. */
static Node *
stand_in(RangeVar *rv, Oid relid)
{
	Relation	rel = relation_open(relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	SelectStmt *select = makeNode(SelectStmt);
	RangeSubselect *sub = makeNode(RangeSubselect);

	for (int i = 0; i <= desc->natts; i++)
	{
		ResTarget  *rt = makeNode(ResTarget);
		TypeCast   *cast = makeNode(TypeCast);
		A_Const    *null = makeNode(A_Const);

		null->isnull = true;
		null->location = cast->location = rt->location = -1;
		cast->arg = (Node *) null;
		if (i < desc->natts)
		{
			Form_pg_attribute att = TupleDescAttr(desc, i);

			if (att->attisdropped)
				elog(ERROR, "a part of a query has lost a column");
			cast->typeName = makeTypeNameFromOid(att->atttypid, att->atttypmod);
			rt->name = pstrdup(NameStr(att->attname));
		}
		else
		{
			cast->typeName = makeTypeNameFromOid(TIDOID, -1);
			rt->name = pstrdup(KDA_ROW_COLUMN);
		}
		rt->val = (Node *) cast;
		select->targetList = lappend(select->targetList, rt);
	}
	sub->subquery = (Node *) select;
	sub->alias = rv->alias ? rv->alias : makeAlias(psprintf("part_%u", relid), NIL);
	relation_close(rel, AccessShareLock);
	return (Node *) sub;
}

/*---- raw trees */

typedef struct RawSearch
{
	bool		found;
	int			location;
} RawSearch;

bool
kda_is_continuous(Oid relid)
{
	KdaQueryIds ids;

	return kda_is_stream(relid) || (get_rel_relkind(relid) == RELKIND_VIEW && kda_query_ids(relid, &ids));
}

static bool
raw_stream_walker(Node *node, void *arg)
{
	RawSearch *search = arg;

	if (node == NULL)
		return false;
	if (IsA(node, RangeVar))
	{
		RangeVar   *rv = (RangeVar *) node;
		Oid			relid = kda_part_relid(rv);

		if (!OidIsValid(relid))
			relid = RangeVarGetRelid(rv, NoLock, true);
		if (OidIsValid(relid) && kda_is_continuous(relid))
		{
			search->found = true;
			search->location = rv->location;
			return true;
		}
		return false;
	}
	return raw_expression_tree_walker(node, raw_stream_walker, search);
}

bool
kda_raw_has_stream(Node *raw)
{
	RawSearch	search = {false, -1};

	(void) raw_stream_walker(raw, &search);
	return search.found;
}

/* Where the SELECT's own text begins, as far as its tree tells; -1: nowhere. */
int
kda_select_location(SelectStmt *select)
{
	while (select->op != SETOP_NONE)
		select = select->larg;
	return select->targetList ? linitial_node(ResTarget, select->targetList)->location : -1;
}

static bool
from_names_place(Node *item, const KdaWindowClause *window)
{
	if (IsA(item, RangeVar))
		return ((RangeVar *) item)->location >= window->span_start && ((RangeVar *) item)->location < window->span_end;
	if (IsA(item, JoinExpr))
		return from_names_place(((JoinExpr *) item)->larg, window) || from_names_place(((JoinExpr *) item)->rarg, window);
	return false;
}

/* The window clauses that stand in the SELECT. */
static List *
clauses_of(const KdaQuerySpec *spec, SelectStmt *select, int outer_location)
{
	List	   *clauses = NIL;
	int			location = kda_select_location(select);
	int			smallest = INT_MAX;
	ListCell   *lc,
			   *lf;

	for (int pass = 0; pass < 2; pass++)
		foreach(lc, spec->windows)
		{
			KdaWindowClause *w = lfirst(lc);
			int			length = w->span_end - w->span_start;

			if (w->in_from || location < w->span_start || location >= w->span_end ||
				(outer_location >= w->span_start && outer_location < w->span_end))
				continue;
			if (pass == 0)
				smallest = Min(smallest, length);
			else if (length == smallest)
				clauses = lappend(clauses, w);
		}
	foreach(lc, spec->windows)
		foreach(lf, select->fromClause)
			if (((KdaWindowClause *) lfirst(lc))->in_from && from_names_place(lfirst(lf), lfirst(lc)))
				clauses = lappend(clauses, lfirst(lc));
	return clauses;
}

/* The relation or subquery of FROM that a column belongs to, by its qualifier; item: where to look. */
static bool
is_qualified_by(ColumnRef *column, const char *name)
{
	return list_length(column->fields) == 1 ||
		(list_length(column->fields) == 2 && strcmp(strVal(linitial(column->fields)), name) == 0);
}

static bool names_time(Node *column, void *from_clause);

/* Does the subquery hand a time on by that name? */
static bool
subquery_gives_time(SelectStmt *select, const char *name)
{
	ListCell   *lc;

	if (select->op != SETOP_NONE)
		return pg_strcasecmp(name, "rowtime") == 0;
	foreach(lc, select->targetList)
	{
		ResTarget  *rt = lfirst_node(ResTarget, lc);
		ColumnRef  *ref = (ColumnRef *) rt->val;

		if (!IsA(ref, ColumnRef))
		{
			if (rt->name && strcmp(rt->name, name) == 0)
				return false;
			continue;
		}
		if (IsA(llast(ref->fields), A_Star))
		{
			ColumnRef  *all = copyObject(ref);

			llast(all->fields) = makeString(pstrdup(name));
			if (names_time((Node *) all, select->fromClause))
				return true;
		}
		else if (strcmp(rt->name ? rt->name : strVal(llast(ref->fields)), name) == 0)
			return names_time((Node *) ref, select->fromClause);
	}
	return pg_strcasecmp(name, "rowtime") == 0;
}

/* Does the column name the time of the stream, continuous view or subquery that item is? */
static bool
item_has_time(Node *item, ColumnRef *column)
{
	const char *word = strVal(llast(column->fields));

	if (IsA(item, JoinExpr))
		return item_has_time(((JoinExpr *) item)->larg, column) || item_has_time(((JoinExpr *) item)->rarg, column);
	if (IsA(item, RangeSubselect))
	{
		RangeSubselect *sub = (RangeSubselect *) item;

		return is_qualified_by(column, sub->alias ? sub->alias->aliasname : "") && kda_raw_has_stream(item) &&
			subquery_gives_time((SelectStmt *) sub->subquery, word);
	}
	if (IsA(item, RangeVar))
	{
		RangeVar   *rv = (RangeVar *) item;
		bool		part = OidIsValid(kda_part_relid(rv));
		Oid			relid = part ? kda_part_relid(rv) : RangeVarGetRelid(rv, NoLock, true);
		KdaWordContext words;

		if (!OidIsValid(relid) || !kda_is_continuous(relid) ||
			!is_qualified_by(column, rv->alias ? rv->alias->aliasname : rv->relname))
			return false;
		/* rows of windows have the window's time */
		if ((part || !kda_is_stream(relid)) && strcmp(word, "window_time") == 0)
			return true;
		if (!kda_is_stream(relid))
			return pg_strcasecmp(word, "rowtime") == 0;
		kda_words_begin(&words, NULL, relid, rv->alias ? rv->alias->aliasname : rv->relname, "ctid");
		return kda_words_is_time(&words, (Node *) column);
	}
	return false;
}

static bool
names_time(Node *column, void *from_clause)
{
	ListCell   *lc;

	if (column == NULL || !IsA(column, ColumnRef) || !IsA(llast(((ColumnRef *) column)->fields), String))
		return false;
	foreach(lc, (List *) from_clause)
		if (item_has_time(lfirst(lc), (ColumnRef *) column))
			return true;
	return false;
}

Node *
kda_from_item_of_time(Node *item, ColumnRef *column)
{
	if (IsA(item, JoinExpr))
	{
		Node	   *found = kda_from_item_of_time(((JoinExpr *) item)->larg, column);

		return found ? found : kda_from_item_of_time(((JoinExpr *) item)->rarg, column);
	}
	return IsA(llast(column->fields), String) && item_has_time(item, column) ? item : NULL;
}

bool
kda_from_names_time(Node *column, List *from_clause)
{
	return names_time(column, from_clause);
}

CommonTableExpr *
kda_from_window_join(SelectStmt *select)
{
	ListCell   *lc;

	if (select->withClause)
		foreach(lc, select->withClause->ctes)
			if (strcmp(lfirst_node(CommonTableExpr, lc)->ctename, KDA_SAME_WINDOW) == 0 ||
				strcmp(lfirst_node(CommonTableExpr, lc)->ctename, KDA_ONE_WINDOW) == 0)
				return lfirst(lc);
	return NULL;
}

KdaWindowClause *
kda_select_window(const KdaQuerySpec *spec, SelectStmt *select, int outer_location)
{
	return kda_words_choose_window(clauses_of(spec, select, outer_location), names_time, select->fromClause);
}

static bool
over_walker(Node *node, void *arg)
{
	if (node == NULL || IsA(node, SubLink) || IsA(node, SelectStmt))
		return false;
	if (IsA(node, FuncCall) && ((FuncCall *) node)->over != NULL)
		return true;
	return raw_expression_tree_walker(node, over_walker, arg);
}

bool
kda_raw_has_over(Node *raw)
{
	return over_walker(raw, NULL);
}

bool
kda_select_is_simple(const KdaQuerySpec *spec, SelectStmt *select, int outer_location)
{
	return select->op == SETOP_NONE && !select->valuesLists && !select->withClause && !select->distinctClause &&
		!select->sortClause && !select->limitCount && !select->limitOffset && !select->windowClause &&
		!select->lockingClause && !kda_words_aggregated(select) && !kda_raw_has_over((Node *) select->targetList) &&
		kda_select_window(spec, select, outer_location) == NULL;
}

/*---- before analysis */

static Node *find_in(KdaFrom *from, Node *item, int outer_location);

static Node *
row_reference(const char *name, const char *column)
{
	ColumnRef  *ref = makeNode(ColumnRef);

	ref->fields = list_make2(makeString(pstrdup(name)), makeString(pstrdup(column)));
	ref->location = -1;
	return (Node *) ref;
}

static void
refuse_nullable(KdaFrom *from, const char *name, int location)
{
	if (from->nullable)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 strcmp(name, KDA_JOIN_ALIAS) == 0 ?
				 errmsg("a join of streams stands on the side of an outer join that is filled with NULLs") :
				 errmsg("stream \"%s\" stands on the side of an outer join that is filled with NULLs", name),
				 errdetail("Rows of the other side would have to wait for records that may never come."),
				 errhint("Put the stream on the preserved side: stream LEFT JOIN table."),
				 parser_errposition(from->pstate, location)));
}

static void
take(KdaFrom *from, Oid relid, const char *name, const char *row_column, int location)
{
	if (OidIsValid(from->relid))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous query reads one stream, this one names \"%s\" as well", name),
				 errhint("Joins of streams are not part of this release."),
				 parser_errposition(from->pstate, location)));
	refuse_nullable(from, name, location);
	from->relid = relid;
	from->name = name;
	from->row_column = row_column;
	from->location = location;
}

/* A subquery that only filters and projects hands the record's place on. */
static void
find_through(KdaFrom *from, RangeSubselect *sub, int outer_location)
{
	SelectStmt *select = (SelectStmt *) sub->subquery;
	KdaWordContext words;
	ResTarget  *rt = makeNode(ResTarget);
	ListCell   *lc;

	foreach(lc, select->fromClause)
		lfirst(lc) = find_in(from, lfirst(lc), outer_location);
	if (!OidIsValid(from->relid))
		return;
	kda_words_begin(&words, from->pstate, from->relid, from->name, from->row_column);
	words.hides_time = kda_from_hides_time(from, select, from->pstate->p_sourcetext);
	kda_words_apply(&words, select);
	rt->name = pstrdup(KDA_ROW_COLUMN);
	rt->val = row_reference(from->name, from->row_column);
	rt->location = -1;
	select->targetList = lappend(select->targetList, rt);
	if (sub->alias == NULL)
		sub->alias = makeAlias("kda_records", NIL);
	from->name = sub->alias->aliasname;
	from->row_column = KDA_ROW_COLUMN;
}

/* The item, or what stands for it in analysis. */
static Node *
find_in(KdaFrom *from, Node *item, int outer_location)
{
	if (IsA(item, RangeVar))
	{
		RangeVar   *rv = (RangeVar *) item;
		Oid			relid = kda_part_relid(rv);

		if (OidIsValid(relid))
		{
			RangeSubselect *sub = (RangeSubselect *) stand_in(rv, relid);

			take(from, relid, sub->alias->aliasname, KDA_ROW_COLUMN, rv->location);
			return (Node *) sub;
		}
		relid = RangeVarGetRelid(rv, NoLock, true);
		/* nothing by that name: a CTE, or the parser says so */
		if (OidIsValid(relid) && kda_is_stream(relid))
			take(from, relid, rv->alias ? rv->alias->aliasname : rv->relname, "ctid", rv->location);
	}
	else if (IsA(item, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) item;
		bool		nullable = from->nullable;

		from->nullable = nullable || join->jointype == JOIN_RIGHT || join->jointype == JOIN_FULL;
		join->larg = find_in(from, join->larg, outer_location);
		from->nullable = nullable || join->jointype == JOIN_LEFT || join->jointype == JOIN_FULL;
		join->rarg = find_in(from, join->rarg, outer_location);
		from->nullable = nullable;
	}
	else if (IsA(item, RangeSubselect) && !((RangeSubselect *) item)->lateral && kda_raw_has_stream(item) &&
			 kda_select_is_simple(from->spec, (SelectStmt *) ((RangeSubselect *) item)->subquery, outer_location))
		find_through(from, (RangeSubselect *) item, outer_location);
	return item;
}

static RangeSubselect *
subselect_with_stream(Node *item)
{
	RangeSubselect *sub = NULL;

	if (IsA(item, RangeSubselect) && kda_raw_has_stream(item))
		return (RangeSubselect *) item;
	if (IsA(item, JoinExpr))
	{
		sub = subselect_with_stream(((JoinExpr *) item)->larg);
		if (sub == NULL)
			sub = subselect_with_stream(((JoinExpr *) item)->rarg);
	}
	return sub;
}

/* written: FROM of the core as it was. */
static void
check_window(KdaFrom *from, List *written, int outer_location)
{
	KdaWindowClause *window = from->core_window;
	List	   *clauses;
	char	   *time = NULL;

	if (window == NULL)
		return;
	if (window->in_from && (from->location < window->span_start || from->location >= window->span_end))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("the relation in TABLE (...) is not a stream"),
				 errhint("CREATE STREAM makes one."),
				 parser_errposition(from->pstate, window->location)));
	if (strcmp(from->row_column, "ctid") == 0)
	{
		KdaStreamOptions *options = kda_stream_options_get(from->relid);

		if (options->rowtime_attno > 0)
			time = get_attname(from->relid, options->rowtime_attno, false);
	}
	{
		SelectStmt	as_written = *from->core;

		as_written.fromClause = written;
		clauses = clauses_of(from->spec, &as_written, outer_location);
	}
	kda_words_check_window(from->pstate, from->core, clauses, window, names_time, written, from->name, time);
}

void
kda_from_check_window(ParseState *pstate, const KdaQuerySpec *spec, SelectStmt *select, KdaWindowClause *window,
					  Node *item, int outer_location)
{
	RangeVar   *rv = (RangeVar *) item;
	const char *name = "";
	char	   *time = NULL;

	if (IsA(item, RangeVar))
	{
		Oid			relid = OidIsValid(kda_part_relid(rv)) ? InvalidOid : RangeVarGetRelid(rv, NoLock, true);

		name = rv->alias ? rv->alias->aliasname : rv->relname;
		if (OidIsValid(relid) && kda_is_stream(relid) && kda_stream_options_get(relid)->rowtime_attno > 0)
			time = get_attname(relid, kda_stream_options_get(relid)->rowtime_attno, false);
	}
	else if (((RangeSubselect *) item)->alias)
		name = ((RangeSubselect *) item)->alias->aliasname;
	kda_words_check_window(pstate, select, clauses_of(spec, select, outer_location), window, names_time,
						   select->fromClause, name, time);
}

/* Does it name kda.error_stream? */
static bool
error_stream_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeVar))
	{
		Oid			relid = RangeVarGetRelid((RangeVar *) node, NoLock, true);

		return OidIsValid(relid) && relid == get_relname_relid("error_stream", get_namespace_oid(KDA_SCHEMA, true));
	}
	return raw_expression_tree_walker(node, error_stream_walker, context);
}

/* A stream that does not exist is the likelier mistake than a query without one. */
static bool
refuse_missing_walker(Node *node, void *arg)
{
	ParseState *pstate = arg;

	if (node == NULL)
		return false;
	if (IsA(node, RangeVar))
	{
		RangeVar   *rv = (RangeVar *) node;

		if (!OidIsValid(RangeVarGetRelid(rv, NoLock, true)))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 rv->schemaname ?
					 errmsg("relation \"%s.%s\" does not exist", rv->schemaname, rv->relname) :
					 errmsg("relation \"%s\" does not exist", rv->relname),
					 parser_errposition(pstate, rv->location)));
		return false;
	}
	return raw_expression_tree_walker(node, refuse_missing_walker, pstate);
}

void
kda_from_find(KdaFrom *from, SelectStmt *top)
{
	SelectStmt *select = top;
	int			outer_location = from->spec->outer_location;

	for (from->depth = 0;; from->depth++)
	{
		RangeSubselect *sub = NULL;
		List	   *written;
		ListCell   *lc;

		check_stack_depth();
		if (kda_from_window_join(select))
		{
			CommonTableExpr *cte = kda_from_window_join(select);

			from->joined = cte->ctename;
			from->around = kda_with_around(from->around, select);
			outer_location = -1;
			select = (SelectStmt *) cte->ctequery;
			continue;
		}
		from->core = select;
		from->core_window = kda_select_window(from->spec, select, outer_location);
		written = copyObject(select->fromClause);
		foreach(lc, select->fromClause)
			lfirst(lc) = find_in(from, lfirst(lc), kda_select_location(select));
		if (OidIsValid(from->relid))
		{
			check_window(from, written, outer_location);
			return;
		}
		foreach(lc, select->fromClause)
			if (sub == NULL)
				sub = subselect_with_stream(lfirst(lc));
		if (sub == NULL || ((SelectStmt *) sub->subquery)->op != SETOP_NONE)
			break;
		outer_location = kda_select_location(select);
		from->around = kda_with_around(from->around, select);
		select = (SelectStmt *) sub->subquery;
	}
	if (top->withClause == NULL)
		(void) refuse_missing_walker((Node *) select->fromClause, from->pstate);
	if (error_stream_walker((Node *) select->fromClause, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous query over kda.error_stream is not part of this release"),
				 errhint("Read the view in a job of your own, and INSERT what is new into a stream.")));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("a continuous query must read a stream"),
			 errhint("Name a stream in FROM; CREATE STREAM makes one.")));
}

/* A reference to the column that an expanded star gives. */
static Node *
star_column(Query *query, TargetEntry *tle)
{
	ColumnRef  *ref = makeNode(ColumnRef);
	Var		   *var = (Var *) tle->expr;
	RangeTblEntry *rte = IsA(var, Var) ? rt_fetch(var->varno, query->rtable) : NULL;

	/* columns that a join has merged have no relation's name */
	if (rte == NULL || rte->rtekind == RTE_JOIN)
		ref->fields = list_make1(makeString(pstrdup(tle->resname)));
	else
		ref->fields = list_make2(makeString(pstrdup(rte->eref->aliasname)),
								 makeString(pstrdup(strVal(list_nth(rte->eref->colnames, var->varattno - 1)))));
	ref->location = -1;
	return (Node *) ref;
}

void
kda_from_expand(SelectStmt *select, WithClause *with, const char *source_text, KdaIsOurs is_ours, void *arg)
{
	List	   *targets = NIL;
	ListCell   *lc,
			   *lt;

	foreach(lc, select->targetList)
	{
		ResTarget  *star = lfirst_node(ResTarget, lc);
		SelectStmt *all;
		RawStmt    *raw;
		Query	   *query;

		if (!IsA(star->val, ColumnRef) || !IsA(llast(((ColumnRef *) star->val)->fields), A_Star))
		{
			targets = lappend(targets, star);
			continue;
		}
		all = makeNode(SelectStmt);
		all->targetList = list_make1(copyObject(star));
		all->fromClause = copyObject(select->fromClause);
		all->withClause = kda_with(with, select->withClause);
		raw = makeNode(RawStmt);
		raw->stmt = (Node *) all;
		query = parse_analyze_fixedparams(raw, source_text, NULL, 0, NULL);
		foreach(lt, query->targetList)
		{
			TargetEntry *tle = lfirst_node(TargetEntry, lt);
			ResTarget  *rt = makeNode(ResTarget);

			if (is_ours(tle, query, arg))
				continue;
			rt->name = pstrdup(tle->resname);
			rt->val = star_column(query, tle);
			rt->location = star->location;
			targets = lappend(targets, rt);
		}
	}
	select->targetList = targets;
}

/* The record's place; of joined streams, whose columns are in the list by their own names, the result's. */
static bool
is_ours(TargetEntry *tle, Query *query, void *arg)
{
	KdaFrom    *from = arg;
	Var		   *var = (Var *) tle->expr;
	RangeTblEntry *rte = IsA(var, Var) ? rt_fetch(var->varno, query->rtable) : NULL;

	return strcmp(tle->resname, KDA_ROW_COLUMN) == 0 || strcmp(tle->resname, KDA_TIME_COLUMN) == 0 ||
		(rte && strcmp(from->name, KDA_JOIN_ALIAS) == 0 && strcmp(rte->eref->aliasname, KDA_JOIN_ALIAS) == 0);
}

void
kda_from_expand_stars(KdaFrom *from)
{
	kda_from_expand(from->core, from->around, from->pstate->p_sourcetext, is_ours, from);
}

/*---- after analysis */

/* A stand-in has our column last, and no FROM. */
bool
kda_is_stand_in(RangeTblEntry *rte)
{
	return rte->rtekind == RTE_SUBQUERY && rte->subquery->rtable == NIL && rte->subquery->targetList != NIL &&
		strcmp(llast_node(TargetEntry, rte->subquery->targetList)->resname, KDA_ROW_COLUMN) == 0;
}

/* The WITH query of a join by window, analysed. */
static Query *
window_join_of(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->cteList)
		if (strcmp(lfirst_node(CommonTableExpr, lc)->ctename, KDA_SAME_WINDOW) == 0 ||
			strcmp(lfirst_node(CommonTableExpr, lc)->ctename, KDA_ONE_WINDOW) == 0)
			return castNode(Query, lfirst_node(CommonTableExpr, lc)->ctequery);
	return NULL;
}

static bool
holds_stream(Query *query, Oid relid)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_RELATION && rte->relid == relid)
			return true;
		if (rte->rtekind == RTE_SUBQUERY && (kda_is_stand_in(rte) || holds_stream(rte->subquery, relid)))
			return true;
	}
	return window_join_of(query) != NULL;
}

typedef struct PlaceContext
{
	int			rti;
	AttrNumber	was;
	int			depth;
} PlaceContext;

/* References to our column of a stand-in become references to ctid. */
static bool
place_walker(Node *node, void *arg)
{
	PlaceContext *cxt = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if (var->varno == cxt->rti && (int) var->varlevelsup == cxt->depth && var->varattno == cxt->was)
		{
			var->varattno = SelfItemPointerAttributeNumber;
			if (var->varnosyn == (Index) var->varno)
				var->varattnosyn = var->varattno;
		}
		return false;
	}
	if (IsA(node, Query))
	{
		cxt->depth++;
		query_tree_walker((Query *) node, place_walker, cxt, 0);
		cxt->depth--;
		return false;
	}
	return expression_tree_walker(node, place_walker, cxt);
}

static void
become_relation(Query *query, int rti, RangeTblEntry *rte, Oid relid)
{
	PlaceContext cxt = {rti, list_length(rte->subquery->targetList), 0};
	Relation	rel = relation_open(relid, AccessShareLock);

	rte->rtekind = RTE_RELATION;
	rte->subquery = NULL;
	rte->lateral = false;
	rte->relid = relid;
	rte->relkind = RELKIND_FOREIGN_TABLE;
	rte->rellockmode = AccessShareLock;
	rte->inh = true;
	rte->eref->colnames = list_truncate(rte->eref->colnames, RelationGetNumberOfAttributes(rel));
	relation_close(rel, AccessShareLock);
	kda_add_rights(query, rte);
	query_tree_walker(query, place_walker, &cxt, 0);
}

/* Below the core: parts of ours inside subqueries that filter and project. */
static void
settle_below(Query *query, Oid relid)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind != RTE_SUBQUERY)
			continue;
		if (kda_is_stand_in(rte))
			become_relation(query, foreach_current_index(lc) + 1, rte, relid);
		else
			settle_below(rte->subquery, relid);
	}
}

void
kda_from_settle(KdaFrom *from, Query *top)
{
	Query	   *query = top;
	ListCell   *lc;

	for (int i = 0; i < from->depth; i++)
	{
		Query	   *next = window_join_of(query);

		foreach(lc, query->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (next == NULL && rte->rtekind == RTE_SUBQUERY && holds_stream(rte->subquery, from->relid))
				next = rte->subquery;
		}
		if (next == NULL)
			elog(ERROR, "the stream has got lost in the query");
		query = next;
	}
	from->query = query;
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		int			rti = foreach_current_index(lc) + 1;

		if (rte->rtekind == RTE_SUBQUERY && kda_is_stand_in(rte))
			become_relation(query, rti, rte, from->relid);
		if (rte->rtekind == RTE_RELATION && rte->relid == from->relid)
		{
			from->rti = rti;
			from->row_attno = SelfItemPointerAttributeNumber;
		}
		else if (rte->rtekind == RTE_SUBQUERY && holds_stream(rte->subquery, from->relid))
		{
			from->rti = rti;
			from->row_attno = list_length(rte->eref->colnames);
			settle_below(rte->subquery, from->relid);
		}
	}
	if (from->rti == 0)
		elog(ERROR, "the stream has got lost in the query");
}
