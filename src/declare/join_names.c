/*-------------------------------------------------------------------------
 *
 * join_names.c
 *	  Names in joins of streams with USING, NATURAL and tables before streams.
 *
 * A stream's join becomes a part, and FROM another one.  So names are made to
 * depend on FROM no longer: a column that USING merges is replaced by what it
 * is made of, as PostgreSQL makes it,
 *
 *		JOIN, LEFT JOIN		the left one
 *		RIGHT JOIN			the right one
 *		FULL JOIN			COALESCE (left, right)
 *
 * and SELECT * is written out.  Subqueries in expressions keep their names: a
 * merged column of the query around them is then ambiguous, and refused.
 *
 * Runs in the session that declares the query, on the raw tree.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "declare/from.h"
#include "declare/query_words.h"
#include "declare/stream_join.h"
#include "dialect/words.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parse_relation.h"
#include "parser/parse_target.h"
#include "parser/parsetree.h"

/* A column of a FROM item, as SELECT * shows it. */
typedef struct Column
{
	char	   *name;
	Node	   *value;			/* raw; qualified, or made of such */
	Oid			type;
	bool		merged;
} Column;

/* JOIN … USING (…) AS u: u.k.  Of other items, too. */
typedef struct Using
{
	char	   *alias;
	List	   *columns;		/* Column */
} Using;

typedef struct Names
{
	Query	   *query;			/* FROM, analysed */
	List	   *columns;		/* Column: what can be named here */
	List	   *leaves;			/* Using: the columns of each item that is no join */
	List	   *usings;			/* Using */
	bool		all;			/* every column is replaced, not only the merged ones */
} Names;

/*---- which joins there are */

static bool
merges(Node *item)
{
	JoinExpr   *join = (JoinExpr *) item;

	return IsA(item, JoinExpr) && (join->usingClause || join->isNatural || merges(join->larg) || merges(join->rarg));
}

/* Do columns of a table come before those of a stream that is joined with another one? */
static void
find_order(Node *item, int *streams, bool *table)
{
	if (IsA(item, JoinExpr))
	{
		find_order(((JoinExpr *) item)->larg, streams, table);
		find_order(((JoinExpr *) item)->rarg, streams, table);
	}
	else if (kda_raw_has_stream(item))
		(*streams)++;
	else
		*table = true;
}

/* a.*, (a).* or *: of the alias, '' for all; NULL: it is another expression. */
static const char *
starred_alias(Node *val)
{
	List	   *fields;

	if (IsA(val, A_Indirection) && list_length(((A_Indirection *) val)->indirection) == 1 &&
		IsA(linitial(((A_Indirection *) val)->indirection), A_Star) && IsA(((A_Indirection *) val)->arg, ColumnRef))
	{
		fields = ((ColumnRef *) ((A_Indirection *) val)->arg)->fields;
		return list_length(fields) == 1 && IsA(linitial(fields), String) ? strVal(linitial(fields)) : NULL;
	}
	if (!IsA(val, ColumnRef) || !IsA(llast(((ColumnRef *) val)->fields), A_Star))
		return NULL;
	fields = ((ColumnRef *) val)->fields;
	return list_length(fields) == 1 ? "" : list_length(fields) == 2 ? strVal(linitial(fields)) : NULL;
}

static bool
needs_settling(SelectStmt *select)
{
	int			before = 0;
	bool		table = false;
	ListCell   *lc;

	/* what stands in FROM then has columns of ours */
	foreach(lc, select->targetList)
		if (starred_alias(lfirst_node(ResTarget, lc)->val))
			return true;

	foreach(lc, select->fromClause)
	{
		int			streams = before;

		if (merges(lfirst(lc)))
			return true;
		find_order(lfirst(lc), &streams, &table);
		/* what is merged with the item before goes to its place */
		if (table && before > 0 && streams > before)
			return true;
		before = streams;
	}
	return false;
}

Node *
kda_join_without_alias(Node *item, int streams)
{
	JoinExpr   *join = (JoinExpr *) item;
	RangeSubselect *sub;
	SelectStmt *select;

	if (!IsA(item, JoinExpr))
		return item;
	join->larg = kda_join_without_alias(join->larg, streams);
	join->rarg = kda_join_without_alias(join->rarg, streams);
	if (join->alias == NULL || kda_count_streams(item) > streams)
		return item;
	select = makeNode(SelectStmt);
	select->targetList = list_make1(kda_raw_star(NULL));
	select->fromClause = list_make1(join);
	sub = makeNode(RangeSubselect);
	sub->subquery = (Node *) select;
	sub->alias = join->alias;
	/* tables may look at items before them */
	sub->lateral = !kda_raw_has_stream(item);
	join->alias = NULL;
	return (Node *) sub;
}

/*---- names */

static Column *
find(List *columns, const char *name, bool *several)
{
	Column	   *found = NULL;
	ListCell   *lc;

	*several = false;
	foreach(lc, columns)
		if (strcmp(((Column *) lfirst(lc))->name, name) == 0)
		{
			*several |= found != NULL;
			found = lfirst(lc);
		}
	return found;
}

static Node *
replace_name(ColumnRef *ref, bool in_aggregate, void *arg)
{
	Names	   *names = arg;
	Column	   *column;
	bool		several;
	ListCell   *lc;

	if (!IsA(llast(ref->fields), String))
		return NULL;
	if (list_length(ref->fields) == 1)
	{
		column = find(names->columns, strVal(linitial(ref->fields)), &several);
		return column && !several && (column->merged || names->all) ? copyObject(column->value) : NULL;
	}
	if (list_length(ref->fields) == 2 && IsA(linitial(ref->fields), String))
		foreach(lc, names->usings)
		{
			Using	   *u = lfirst(lc);

			if (strcmp(u->alias, strVal(linitial(ref->fields))) == 0)
			{
				column = find(u->columns, strVal(lsecond(ref->fields)), &several);
				return column ? copyObject(column->value) : NULL;
			}
		}
	return NULL;
}

static Node *
cast_to(const Column *column, Oid type, int32 typmod)
{
	TypeCast   *cast;

	if (column->type == type)
		return copyObject(column->value);
	cast = makeNode(TypeCast);
	cast->arg = copyObject(column->value);
	cast->typeName = makeTypeNameFromOid(type, typmod);
	cast->location = -1;
	return (Node *) cast;
}

/* What the merged column is made of, as core's buildMergedJoinVar() does it. */
static Node *
merged_value(JoinType jointype, const Column *l, const Column *r, Oid type, int32 typmod)
{
	CoalesceExpr *both;

	switch (jointype)
	{
		case JOIN_RIGHT:
			return cast_to(r, type, typmod);
		case JOIN_FULL:
			both = makeNode(CoalesceExpr);
			both->args = list_make2(cast_to(l, type, typmod), cast_to(r, type, typmod));
			both->location = -1;
			return (Node *) both;
		case JOIN_INNER:
			if (l->type != type && r->type == type)
				return copyObject(r->value);
			return cast_to(l, type, typmod);
		default:
			return cast_to(l, type, typmod);
	}
}

static List *
columns_of_leaf(Names *names, int rti)
{
	RangeTblEntry *rte = rt_fetch(rti, names->query->rtable);
	List	   *columns = NIL;
	List	   *colnames;
	List	   *vars;
	ListCell   *ln,
			   *lv;

	kda_expand_rte(rte, rti, 0, &colnames, &vars);
	forboth(ln, colnames, lv, vars)
	{
		Column	   *column = palloc0(sizeof(Column));

		column->name = strVal(lfirst(ln));
		column->value = kda_raw_column(rte->eref->aliasname, column->name, -1);
		column->type = exprType(lfirst(lv));
		columns = lappend(columns, column);
	}
	return columns;
}

/* Two lists, and their merged columns first. */
static List *
merge(Names *names, JoinExpr *join, JoinExpr *analysed, List *left, List *right)
{
	RangeTblEntry *rte = rt_fetch(analysed->rtindex, names->query->rtable);
	List	   *columns = NIL;
	List	   *equal = NIL;
	ListCell   *lc;

	left = list_copy(left);
	right = list_copy(right);
	foreach(lc, analysed->usingClause)
	{
		Node	   *alias_var = list_nth(rte->joinaliasvars, foreach_current_index(lc));
		Column	   *column = palloc0(sizeof(Column));
		bool		several;
		Column	   *l = find(left, strVal(lfirst(lc)), &several);
		Column	   *r = find(right, strVal(lfirst(lc)), &several);

		column->name = strVal(lfirst(lc));
		column->type = exprType(alias_var);
		column->value = merged_value(join->jointype, l, r, column->type, exprTypmod(alias_var));
		column->merged = true;
		columns = lappend(columns, column);
		equal = lappend(equal, makeSimpleA_Expr(AEXPR_OP, "=", copyObject(l->value), copyObject(r->value), -1));
		left = list_delete_ptr(left, l);
		right = list_delete_ptr(right, r);
	}
	if (join->join_using_alias)
	{
		Using	   *u = palloc(sizeof(Using));

		u->alias = join->join_using_alias->aliasname;
		u->columns = columns;
		names->usings = lappend(names->usings, u);
	}
	/* OVER (RANGE ...) of a side in FROM is a condition as well */
	if (join->quals)
		equal = lappend(equal, join->quals);
	if (equal)
		join->quals = list_length(equal) == 1 ? linitial(equal) : (Node *) makeBoolExpr(AND_EXPR, equal, -1);
	join->usingClause = NIL;
	join->isNatural = false;
	join->join_using_alias = NULL;
	return list_concat(list_concat(list_copy(columns), left), right);
}

/* The columns of an item; its joins have ON thereafter, whose names are qualified. */
static List *
settle_item(Names *names, Node *item, Node *analysed)
{
	JoinExpr   *join = (JoinExpr *) item;
	List	   *left,
			   *right;
	Names		here = *names;
	KdaWords	words = {replace_name, NULL, kda_raw_is_aggregate, &here, false};

	check_stack_depth();
	if (!IsA(item, JoinExpr))
	{
		Using	   *leaf = palloc(sizeof(Using));

		leaf->alias = rt_fetch(castNode(RangeTblRef, analysed)->rtindex, names->query->rtable)->eref->aliasname;
		leaf->columns = columns_of_leaf(names, castNode(RangeTblRef, analysed)->rtindex);
		names->leaves = lappend(names->leaves, leaf);
		return leaf->columns;
	}
	left = settle_item(names, join->larg, castNode(JoinExpr, analysed)->larg);
	right = settle_item(names, join->rarg, castNode(JoinExpr, analysed)->rarg);
	here.columns = list_concat(list_copy(left), right);
	here.usings = names->usings;
	here.all = true;
	join->quals = kda_words_replace(join->quals, &words);
	return merge(names, join, castNode(JoinExpr, analysed), left, right);
}

/* FROM with stand-ins; what the conditions say makes no difference to names. */
static void
forget_conditions(Node *item)
{
	JoinExpr   *join = (JoinExpr *) item;

	if (!IsA(item, JoinExpr))
		return;
	forget_conditions(join->larg);
	forget_conditions(join->rarg);
	if (join->quals)
	{
		A_Const    *yes = makeNode(A_Const);

		yes->val.boolval.type = T_Boolean;
		yes->val.boolval.boolval = true;
		yes->location = -1;
		join->quals = (Node *) yes;
	}
}

static Query *
analyse(KdaCompose *c, SelectStmt *select)
{
	SelectStmt *all = makeNode(SelectStmt);
	RawStmt    *raw = makeNode(RawStmt);
	A_Const    *null = makeNode(A_Const);
	ListCell   *lc;

	null->isnull = true;
	null->location = -1;
	all->targetList = list_make1(kda_raw_target("nothing", (Node *) null));
	foreach(lc, select->fromClause)
	{
		Node	   *item = kda_join_analysable(c, lfirst(lc), -1);

		forget_conditions(item);
		all->fromClause = lappend(all->fromClause, item);
	}
	raw->stmt = (Node *) kda_compose_with(c, all);
	return parse_analyze_fixedparams(raw, c->source_text, NULL, 0, NULL);
}

/* The columns that the alias gives; '': all. */
static List *
columns_of(Names *names, const char *alias)
{
	ListCell   *lc;

	if (alias[0] == '\0')
		return names->columns;
	foreach(lc, names->leaves)
		if (strcmp(((Using *) lfirst(lc))->alias, alias) == 0)
			return ((Using *) lfirst(lc))->columns;
	foreach(lc, names->usings)
		if (strcmp(((Using *) lfirst(lc))->alias, alias) == 0)
			return ((Using *) lfirst(lc))->columns;
	return NIL;
}

/* SELECT *: every column under its name. */
static List *
write_out(Names *names, List *targets)
{
	List	   *result = NIL;
	ListCell   *lc,
			   *ln;

	foreach(lc, targets)
	{
		ResTarget  *rt = lfirst_node(ResTarget, lc);
		const char *alias = starred_alias(rt->val);
		bool		several;
		List	   *columns = NIL;

		/* (c).* of a column c is another thing */
		if (alias && !(IsA(rt->val, A_Indirection) && find(names->columns, alias, &several)))
			columns = columns_of(names, alias);
		if (columns == NIL)
			result = lappend(result, rt);
		foreach(ln, columns)
		{
			Column	   *column = lfirst(ln);
			ResTarget  *one = kda_raw_target(column->name, copyObject(column->value));

			one->location = rt->location;
			result = lappend(result, one);
		}
	}
	return result;
}

/* ORDER BY k, DISTINCT ON (k): a name of the select list, if there is one. */
static bool
names_output(Node *item, List *targets)
{
	ColumnRef  *ref = (ColumnRef *) (IsA(item, SortBy) ? ((SortBy *) item)->node : item);
	ListCell   *lc;

	if (ref == NULL || !IsA(ref, ColumnRef) || list_length(ref->fields) != 1 || !IsA(linitial(ref->fields), String))
		return false;
	foreach(lc, targets)
	{
		ResTarget  *rt = lfirst_node(ResTarget, lc);

		if (strcmp(rt->name ? rt->name : FigureColname(rt->val), strVal(linitial(ref->fields))) == 0)
			return true;
	}
	return false;
}

static List *
replace_but_outputs(List *items, List *targets, KdaWords *words)
{
	ListCell   *lc;

	foreach(lc, items)
		if (lfirst(lc) && !names_output(lfirst(lc), targets))
			lfirst(lc) = kda_words_replace(lfirst(lc), words);
	return items;
}

void
kda_join_settle_names(KdaCompose *c, SelectStmt *select, int outer_location)
{
	KdaWindowClause *window = kda_select_window(c->spec, select, outer_location);
	Names		names = {0};
	KdaWords	words = {replace_name, NULL, kda_raw_is_aggregate, &names, false};
	List	   *sort = select->sortClause;
	List	   *distinct = select->distinctClause;
	ListCell   *lc;

	c->joined = select;
	if (!needs_settling(select))
		return;
	names.query = analyse(c, select);
	foreach(lc, select->fromClause)
		names.columns = list_concat(names.columns,
									settle_item(&names, lfirst(lc), list_nth(names.query->jointree->fromlist, foreach_current_index(lc))));
	select->targetList = write_out(&names, select->targetList);
	select->sortClause = select->distinctClause = NIL;
	kda_words_replace_in_select(select, &words);
	select->sortClause = replace_but_outputs(sort, select->targetList, &words);
	select->distinctClause = replace_but_outputs(distinct, select->targetList, &words);
	if (window && !window->in_from)
		foreach(lc, window->partition)
			lfirst(lc) = kda_words_replace(lfirst(lc), &words);
	/* WHERE may say when rows match, and then its columns belong to one side */
	names.all = true;
	select->whereClause = kda_words_replace(select->whereClause, &words);
}
