/*-------------------------------------------------------------------------
 *
 * split.c
 *	  Splits the SELECT of a continuous query: what is done with each batch, and
 *	  what has to be kept so that the result can be computed from it.
 *
 * In: the raw SELECT with the window clause lifted out (dialect/).  Out: an
 * analysed Query for the whole, one for the per-batch part, and the list of
 * what is kept.  Runs in the session that declares the query, as that user.
 * Plans nothing and creates nothing.
 *
 * Two kinds of state.  Groups: partial aggregates by pane and key, where every
 * aggregate can be combined.  Rows: the columns that the final part needs, of
 * every record; the final part is then the user's own SQL over them, so that
 * whatever PostgreSQL can say about the rows of a window can be asked.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/table.h"
#include "catalog/rows.h"
#include "declare/from.h"
#include "declare/sort_within.h"
#include "declare/split.h"
#include "declare/window_clause.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parse_func.h"
#include "parser/parse_clause.h"
#include "parser/parse_oper.h"
#include "parser/parsetree.h"
#include "query/agg_signature.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/typcache.h"

#define REFUSE_HINT_LATER	"This release does not keep such a query up to date."

static void
refuse(ParseState *pstate, const char *what, int location)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s cannot be used in a continuous query", what),
			 errhint(REFUSE_HINT_LATER),
			 parser_errposition(pstate, location)));
}

/*---- streams where none may be */

typedef struct StreamCount
{
	Oid			first;			/* to name in a message */
	Oid			before;			/* the one found last */
	int			n;
	Oid			view;			/* whose query is looked at: before 16 its range table names itself */
} StreamCount;

static bool
is_ours(Oid relid)
{
	return get_rel_namespace(relid) == get_namespace_oid(KDA_STORAGE_SCHEMA, false);
}

/* Streams in FROM, at any level and inside ordinary views. */
static bool
streams_walker(Node *node, void *arg)
{
	StreamCount *count = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		ListCell   *lc;

		foreach(lc, ((Query *) node)->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (rte->rtekind != RTE_RELATION)
				continue;
			if (rte->relkind == RELKIND_FOREIGN_TABLE && kda_is_stream(rte->relid))
			{
				/* users do not know streams of ours by name */
				if (count->n++ > 0 && (!OidIsValid(count->first) || !is_ours(rte->relid)))
					count->first = is_ours(rte->relid) && OidIsValid(count->before) ? count->before : rte->relid;
				count->before = rte->relid;
			}
			else if (rte->relkind == RELKIND_VIEW && rte->relid != count->view)
			{
				Relation	view = table_open(rte->relid, AccessShareLock);
				Oid			around = count->view;

				check_stack_depth();
				count->view = rte->relid;
				streams_walker((Node *) get_view_query(view), count);
				count->view = around;
				table_close(view, AccessShareLock);
			}
		}
		return query_tree_walker((Query *) node, streams_walker, count, 0);
	}
	return expression_tree_walker(node, streams_walker, count);
}

/* The one that kda_from_find has found is the only one. */
static void
refuse_other_streams(Query *query)
{
	StreamCount count = {InvalidOid, InvalidOid, 0, InvalidOid};

	streams_walker((Node *) query, &count);
	if (count.n > 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" is read inside a subquery or view of a continuous query", get_rel_name(count.first)),
				 errhint("Name the stream in FROM of the query itself: FROM a JOIN b ON .... IN and EXISTS can be used where both have the same window: ... TABLE (TUMBLE (...)) l WHERE l.k IN (SELECT r.k FROM TABLE (TUMBLE (...)) r WHERE r.window_start = l.window_start AND r.window_end = l.window_end).")));
}

/*---- the whole query, analysed */

/* GROUP BY 2 counts the select list's columns: two more stand before them now. */
static void
shift_ordinals(List *list, int by)
{
	ListCell   *lc;

	foreach(lc, list)
	{
		Node	   *node = lfirst(lc);

		if (node == NULL)
			continue;			/* DISTINCT without ON is a list of nothing */
		if (IsA(node, SortBy))
			node = ((SortBy *) node)->node;
		if (IsA(node, A_Const) && !((A_Const *) node)->isnull && IsA(&((A_Const *) node)->val, Integer))
			((A_Const *) node)->val.ival.ival += by;
	}
}

/* SELECT * does not show what of ours stands in FROM as well. */
static void
hide_ours_of_star(KdaSplit *split, Query *query, List *star_locations, bool hide_stream)
{
	ListCell   *lc;
	AttrNumber	resno = 1;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Var		   *var = (Var *) tle->expr;

		if (IsA(var, Var) && tle->ressortgroupref == 0 && list_member_int(star_locations, var->location) &&
			((var->varno == split->window_rti && split->window_rti > 0) || strcmp(tle->resname, KDA_TIME_COLUMN) == 0 ||
			 (var->varno == split->row_rti && (var->varattno == split->row_attno || hide_stream))))
			query->targetList = foreach_delete_current(query->targetList, lc);
		else
			tle->resno = resno++;
	}
}

static List *
star_locations(SelectStmt *select)
{
	List	   *locations = NIL;
	ListCell   *lc;

	foreach(lc, select->targetList)
	{
		Node	   *val = lfirst_node(ResTarget, lc)->val;

		/* (s).* */
		if (IsA(val, A_Indirection) && IsA(llast(((A_Indirection *) val)->indirection), A_Star) &&
			IsA(((A_Indirection *) val)->arg, ColumnRef))
			locations = lappend_int(locations, ((ColumnRef *) ((A_Indirection *) val)->arg)->location);
		if (IsA(val, ColumnRef) && IsA(llast(((ColumnRef *) val)->fields), A_Star))
			locations = lappend_int(locations, ((ColumnRef *) val)->location);
	}
	return locations;
}

/*---- checks */

static void
check_query(ParseState *pstate, Query *query, bool kept)
{
	if (query->rowMarks)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("FOR UPDATE cannot be used in a continuous query"),
				 errhint("Leave it out: tables are looked up as they are when a record is processed.")));
	if (query->hasModifyingCTE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous query cannot change data in WITH"),
				 errhint("CREATE PUMP ... AS INSERT INTO ... writes its result.")));
	if (kept ? contain_volatile_functions((Node *) query) : contain_volatile_functions((Node *) query->jointree))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a volatile function can stand only in the select list of a continuous query without aggregates"),
				 errdetail("Its result would change when records are read again."),
				 errhint("now() and current_timestamp are stable and may be used.")));
}

/*
 * GROUP BY t.id, with t.name in the select list because id is the key of t: the
 * column is grouped by as well, which changes no group.
 */
static void
group_by_dependent_columns(Query *query)
{
	List	   *vars = kda_split_vars(query->havingQual, kda_split_vars((Node *) query->targetList, NIL));
	ListCell   *lc,
			   *lt;

	foreach(lc, vars)
	{
		TargetEntry *found = NULL;
		SortGroupClause *sgc;
		Oid			lt_op,
					eq_op;
		bool		hashable;

		foreach(lt, query->targetList)
			if (equal(lfirst_node(TargetEntry, lt)->expr, lfirst(lc)))
				found = lfirst_node(TargetEntry, lt);
		if (found && found->ressortgroupref != 0 && get_sortgroupref_clause_noerr(found->ressortgroupref, query->groupClause))
			continue;
		if (found == NULL)
		{
			found = makeTargetEntry(copyObject(lfirst(lc)), list_length(query->targetList) + 1, NULL, true);
			query->targetList = lappend(query->targetList, found);
		}
		get_sort_group_operators(exprType(lfirst(lc)), false, true, false, &lt_op, &eq_op, NULL, &hashable);
		sgc = makeNode(SortGroupClause);
		sgc->tleSortGroupRef = assignSortGroupRef(found, query->targetList);
		sgc->eqop = eq_op;
		sgc->sortop = lt_op;
		sgc->hashable = hashable;
		query->groupClause = lappend(query->groupClause, sgc);
	}
	query->constraintDeps = NIL;
}

/*---- windows that depend on other rows: what they are made for */

/* STAGGER stands instead of GROUP BY; without aggregates rows keep to themselves, as ever. */
static void
group_by_stagger(ParseState *pstate, SelectStmt *core, const KdaWindowClause *clause)
{
	if (core->groupClause)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("a SELECT with a STAGGER window cannot have GROUP BY"),
				 errdetail("PARTITION BY of the window says how its rows are grouped."),
				 parser_errposition(pstate, exprLocation(linitial(core->groupClause)))));
	if (kda_words_aggregated(core))
		core->groupClause = copyObject(clause->partition);
}

static void
find_session_keys(KdaSplit *split, ParseState *pstate, const KdaWindowClause *clause)
{
	Query	   *user = split->user;
	RangeTblEntry *windows = rt_fetch(split->window_rti, user->rtable);
	FuncExpr   *call = castNode(FuncExpr, linitial_node(RangeTblFunction, windows->functions)->funcexpr);
	ListCell   *lc;

	if (clause->in_from || clause->kind == KDA_WINDOW_STAGGER)
		/* what PARTITION BY says, or all rows together */
		split->session_keys = copyObject(list_copy_tail(call->args, 2));
	else
	{
		if (user->groupingSets)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("GROUPING SETS, ROLLUP and CUBE do not say for which keys %s windows are made",
							kda_window_kind_name(split->window->kind)),
					 errhint("FROM TABLE (SESSION (TABLE s PARTITION BY k, DESCRIPTOR (rowtime), INTERVAL ...)) does; or write a query for each set."),
					 parser_errposition(pstate, clause->location)));
		foreach(lc, user->groupClause)
		{
			Node	   *key = (Node *) get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), user->targetList)->expr;

			if (!kda_split_mentions(key, split->window_rti))
				split->session_keys = lappend(split->session_keys, copyObject(key));
			else if (kda_split_mentions_others(key, split->window_rti))
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("a key of GROUP BY cannot be made of columns and %s windows at once",
								kda_window_kind_name(split->window->kind)),
						 errdetail("The windows depend on the keys."),
						 parser_errposition(pstate, clause->location)));
		}
	}
	split->session_keys = (List *) kda_flatten_join_alias_vars(user, (Node *) split->session_keys);
	foreach(lc, split->session_keys)
	{
		Oid			type = exprType(lfirst(lc));

		if (get_typtype(type) == TYPTYPE_PSEUDO || !OidIsValid(lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("%s windows cannot be made for keys of type %s",
							kda_window_kind_name(split->window->kind), format_type_be(type)),
					 errdetail("Values of the type cannot be stored and compared."),
					 parser_errposition(pstate, clause->location)));
	}
}

/* By one of the columns before it, or by one of ours. */
static bool
is_name_taken(List *targets, TargetEntry *tle)
{
	ListCell   *lc;

	if (strcmp(tle->resname, "kda_time") == 0 || strcmp(tle->resname, "kda_row") == 0)
		return true;
	foreach(lc, targets)
	{
		TargetEntry *other = lfirst_node(TargetEntry, lc);

		if (other == tle)
			return false;
		if (!other->resjunk && strcmp(other->resname, tle->resname) == 0)
			return true;
	}
	return false;
}

/* A pump's columns are inserted by their places: nobody has to name them. */
static void
make_names_unique(List *targets)
{
	ListCell   *lc;

	foreach(lc, targets)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		char	   *name = tle->resname;

		for (int n = tle->resno; !tle->resjunk && is_name_taken(targets, tle); n++)
			tle->resname = psprintf("%.40s_%d", name, n);
	}
}

static void
describe_columns(KdaSplit *split)
{
	List	   *targets = split->top->targetList;
	ListCell   *lc;
	int			i = 0;

	split->names = palloc0(sizeof(char *) * (list_length(targets) + 2));
	split->types = palloc0(sizeof(Oid) * (list_length(targets) + 2));
	split->typmods = palloc0(sizeof(int32) * (list_length(targets) + 2));
	split->collations = palloc0(sizeof(Oid) * (list_length(targets) + 2));
	if (split->window_columns_around)
		for (; i < 2; i++)
		{
			split->names[i] = i == 0 ? "window_start" : "window_end";
			split->types[i] = TIMESTAMPTZOID;
			split->typmods[i] = -1;
		}
	foreach(lc, targets)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk)
			continue;
		split->names[i] = tle->resname;
		split->types[i] = exprType((Node *) tle->expr);
		split->typmods[i] = exprTypmod((Node *) tle->expr);
		split->collations[i] = exprCollation((Node *) tle->expr);
		if (split->types[i] == UNKNOWNOID)
			split->types[i] = TEXTOID;
		if (get_typtype(split->types[i]) == TYPTYPE_PSEUDO)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a continuous query cannot give a column of type %s", format_type_be(split->types[i])),
					 errhint("Cast \"%s\" to a type of its own.", tle->resname)));
		if (pg_strcasecmp(tle->resname, "rowtime") == 0)
			split->has_rowtime = true;
		if (is_name_taken(targets, tle) ||
			(split->window_columns_around && (strcmp(tle->resname, "window_start") == 0 || strcmp(tle->resname, "window_end") == 0)))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 strncmp(tle->resname, "kda_", 4) == 0 ?
					 errmsg("column name \"%s\" is reserved", tle->resname) :
					 errmsg("column \"%s\" specified more than once", tle->resname),
					 errhint("Give the columns different names with AS.")));
		i++;
	}
	split->ncolumns = i;
}

/*---- sessions of several keys in a SELECT around them */

static bool
looks_at_rows(SelectStmt *select)
{
	return select->distinctClause || select->sortClause || select->limitCount || select->limitOffset ||
		kda_raw_has_over((Node *) select->targetList);
}

/* Does a SELECT around core group, or look at several rows?  It then sees sessions with the same bounds as one window. */
static bool
groups_around(SelectStmt *select, SelectStmt *core)
{
	ListCell   *lc;

	if (select == core)
		return false;
	if (kda_words_aggregated(select) || looks_at_rows(select))
		return true;
	foreach(lc, select->fromClause)
	{
		SelectStmt *below = IsA(lfirst(lc), RangeSubselect) ? (SelectStmt *) ((RangeSubselect *) lfirst(lc))->subquery : NULL;

		if (below && IsA(below, SelectStmt) && groups_around(below, core))
			return true;
	}
	return false;
}

/*
 * Is each row of the result made of records of one key's sessions?  Then
 * sessions of several keys with the same bounds need not be looked at together.
 */
static bool
keeps_session_keys_apart(KdaSplit *split)
{
	Query	   *user = split->user;
	List	   *keys = NIL;
	ListCell   *lc;

	if (split->per_window || user->groupingSets)
		return false;
	if (!user->hasAggs && !user->groupClause && !user->havingQual)
		return true;
	foreach(lc, user->groupClause)
		keys = lappend(keys, get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), user->targetList)->expr);
	return list_difference(split->session_keys, keys) == NIL;
}

/* window_start and window_end become the first columns of the SELECT. */
static void
add_window_columns(SelectStmt *select)
{
	List	   *keys = kda_words_window_keys();

	select->targetList = lcons(kda_raw_target("window_start", linitial(keys)),
							   lcons(kda_raw_target("window_end", lsecond(keys)), select->targetList));
	shift_ordinals(select->groupClause, 2);
	shift_ordinals(select->sortClause, 2);
	shift_ordinals(select->distinctClause, 2);
}

static bool
has_window_column(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (!tle->resjunk && (strcmp(tle->resname, "window_start") == 0 || strcmp(tle->resname, "window_end") == 0))
			return true;
	}
	return false;
}

/* An aggregate whose result shows in which order the records have come; user-defined ones are believed not to. */
static bool
order_shows_walker(Node *node, void *cxt)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, order_shows_walker, cxt, 0);
	if (IsA(node, Aggref) && kda_agg_shows_order((Aggref *) node))
		return true;
	return expression_tree_walker(node, order_shows_walker, cxt);
}

/* Records of several shards have no order among each other, and each slot sees only its own ones. */
static const char *
why_one_slot(KdaSplit *split)
{
	if (split->window && split->window->kind == KDA_WINDOW_SESSION)
		return "Sessions are made of the records of all shards.";
	if (split->window && split->window->kind == KDA_WINDOW_STAGGER)
		return "Stagger windows open in the order of arrival.";
	if (split->shape == KDA_SHAPE_OVER)
		return "Its rows look at the records before them, in the order of arrival.";
	if (order_shows_walker((Node *) split->user, NULL))
		return "It has an aggregate whose result shows the order of arrival.";
	return NULL;
}

KdaSplit *
kda_split_query(KdaQuerySpec *spec, const char *source_text, const char *time_zone, bool add_columns)
{
	KdaSplit   *split = palloc0(sizeof(KdaSplit));
	SelectStmt *select = copyObject(spec->select);
	SelectStmt *core;
	ParseState *pstate = make_parsestate(NULL);
	KdaWordContext words;
	KdaFrom		from = {0};
	RawStmt    *raw;
	Query	   *query;
	ListCell   *lc;
	bool		aggregated;
	List	   *stars = NIL;

	pstate->p_sourcetext = source_text;
	from.pstate = pstate;
	from.spec = spec;
	if (select->op != SETOP_NONE || select->valuesLists)
		refuse(pstate, "UNION, INTERSECT, EXCEPT or VALUES", -1);
	kda_from_find(&from, select);
	core = from.core;
	/* it will be run by itself */
	core->withClause = kda_with(from.around, core->withClause);
	split->stream = from.relid;
	split->depth = from.depth;
	kda_words_begin(&words, pstate, from.relid, from.name, from.row_column);
	words.hides_time = kda_from_hides_time(&from, core, source_text);
	if (from.core_window)
	{
		split->window = kda_window_of_clause(pstate, from.core_window, time_zone);
		if (split->window->kind == KDA_WINDOW_SESSION && groups_around(select, core) && !looks_at_rows(core))
			split->window->by_bounds = true;
		split->window_text = kda_window_format(split->window);
		if (split->window->kind == KDA_WINDOW_STAGGER)
			group_by_stagger(pstate, core, from.core_window);
	}

	if (kda_sort_of(core))
	{
		split->sorted = true;
		split->delay_us = kda_sort_take(core);
	}
	if (spec->time)
		core->targetList = lappend(core->targetList, kda_raw_target("kda_time", kda_sort_open(copyObject(spec->time), &split->delay_us)));

	/* Words of ours become plain SQL. */
	kda_words_set_window(&words, core, from.core_window);
	kda_words_apply(&words, core);
	aggregated = words.aggregated;
	/* DISTINCT would have to compare what of ours is there */
	if (split->depth > 0 || (core->distinctClause && strcmp(from.row_column, "ctid") != 0))
		kda_from_expand_stars(&from);
	stars = star_locations(core);
	if (!split->window)
	{
		kda_split_order_by_time((Node *) core->targetList, &words);
		kda_split_order_by_time((Node *) core->windowClause, &words);
	}
	if (split->window)
	{
		List	   *keys = kda_words_expressions(&words, copyObject(from.core_window->partition));

		core->fromClause = lappend(core->fromClause, kda_words_window_from(&words, kda_raw_string(split->window_text), keys));
		if (add_columns && !words.named_window && split->depth == 0)
		{
			add_window_columns(core);
			split->window_columns_added = true;
		}
		if (aggregated)
			core->groupClause = list_concat(kda_words_window_keys(), core->groupClause);
	}

	raw = makeNode(RawStmt);
	raw->stmt = (Node *) select;
	query = split->top = parse_analyze_fixedparams(raw, source_text, NULL, 0, NULL);
	if (query->commandType != CMD_SELECT || query->utilityStmt)
		refuse(pstate, "this statement", -1);
	split->top = query = kda_flatten_group_rte(query);
	kda_from_settle(&from, query);
	kda_settle_whole_rows(pstate, query, false);
	split->row_rti = from.rti;
	split->row_attno = from.row_attno;
	refuse_other_streams(query);
	if (from.joined)
		kda_check_same_window(pstate, query, strcmp(from.joined, KDA_SAME_WINDOW) == 0);
	check_query(pstate, query, aggregated || split->window || split->depth > 0 || spec->time);
	/* Rights are checked here, and again whenever the query runs. */
	kda_check_query_permissions(query);
	if (add_columns && split->window && split->depth > 0 && !has_window_column(query))
		split->window_columns_added = split->window_columns_around = true;

	query = split->user = split->depth > 0 ? kda_flatten_group_rte(from.query) : query;
	if (split->window)
	{
		foreach(lc, query->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (rte->rtekind == RTE_FUNCTION && rte->alias && strcmp(rte->alias->aliasname, KDA_WINDOW_ALIAS) == 0)
				split->window_rti = foreach_current_index(lc) + 1;
		}
	}
	hide_ours_of_star(split, query, stars, strcmp(from.name, KDA_JOIN_ALIAS) == 0);
	query->targetList = (List *) kda_flatten_join_alias_vars(query, (Node *) query->targetList);
	query->havingQual = kda_flatten_join_alias_vars(query, query->havingQual);
	query->jointree = (FromExpr *) kda_flatten_join_alias_vars(query, (Node *) query->jointree);
	if (query->constraintDeps)
		group_by_dependent_columns(query);
	if (spec->time)
		kda_split_take_time(split, pstate);
	if (split->window && !kda_window_is_aligned(split->window))
		find_session_keys(split, pstate, from.core_window);

	if (!add_columns)
		make_names_unique(split->top->targetList);

	/* a window function, DISTINCT, ORDER BY or LIMIT looks at several rows, too */
	split->per_window = split->depth > 0 || query->hasWindowFuncs || query->distinctClause || query->sortClause ||
		query->limitCount || query->limitOffset || query->hasTargetSRFs;
	if (split->window && split->window->by_bounds && keeps_session_keys_apart(split))
	{
		split->window->by_bounds = false;
		split->window_text = kda_window_format(split->window);
	}
	split->shape = split->window ? KDA_SHAPE_WINDOWS :
		aggregated || split->depth > 0 || query->hasWindowFuncs || query->distinctClause || query->sortClause ||
		query->limitCount || query->limitOffset ? KDA_SHAPE_GROUPS : KDA_SHAPE_ROWS;
	if (split->sorted)
		kda_split_check_sorted(split);
	if (split->sorted || (!split->window && !aggregated && kda_split_slides_by_row(split)))
		split->shape = KDA_SHAPE_OVER;
	if (split->shape == KDA_SHAPE_ROWS)
	{
		split->state = KDA_STATE_NONE;
		split->batch = kda_split_rows_batch(split);
	}
	else if (split->shape == KDA_SHAPE_OVER)
	{
		split->state = KDA_STATE_ROWS;
		split->per_window = false;
		split->batch = split->sorted ? kda_split_sorted_batch(split) : kda_split_kept_rows_batch(split);
	}
	else if (aggregated && !(query->jointree->quals && split->window && kda_split_mentions(query->jointree->quals, split->window_rti)) &&
			 kda_split_groups_suffice(split))
	{
		split->state = KDA_STATE_GROUPS;
		split->batch = kda_split_groups_batch(split);
	}
	else
	{
		split->state = KDA_STATE_ROWS;
		split->per_window = true;
		split->batch = kda_split_kept_rows_batch(split);
	}
	describe_columns(split);
	split->one_slot = why_one_slot(split);
	return split;
}
