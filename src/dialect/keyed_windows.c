/*-------------------------------------------------------------------------
 *
 * keyed_windows.c
 *	  Sessions and stagger windows of an ad hoc query, over rows that are all
 *	  there: plain SQL, by window functions.
 *
 * The SELECT's FROM and WHERE move into a subquery, which gives of each row its
 * time, its place, its keys and, as whole rows, the relations of FROM.  Around
 * it comes what finds the windows; the SELECT then reads the relations, under
 * their own names, out of the whole rows:
 *
 *		FROM (… finds kda_start, kda_end … FROM (SELECT …) …) AS kda_x,
 *			LATERAL (SELECT (kda_x.s).*) AS s, …,
 *			LATERAL (SELECT kda_x.kda_start AS window_start, …) AS kda_w
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "declare/window_clause.h"
#include "dialect/adhoc.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* Aliases of FROM: whose whole rows are kept. */
static void
aliases_of(KdaWordContext *words, KdaWindowClause *clause, Node *from, List **aliases)
{
	Alias	   *alias = NULL;

	if (IsA(from, JoinExpr) && ((JoinExpr *) from)->alias == NULL)
	{
		aliases_of(words, clause, ((JoinExpr *) from)->larg, aliases);
		aliases_of(words, clause, ((JoinExpr *) from)->rarg, aliases);
		return;
	}
	if (IsA(from, RangeTableSample))
		from = ((RangeTableSample *) from)->relation;
	if (IsA(from, JoinExpr))
		alias = ((JoinExpr *) from)->alias;
	else if (IsA(from, RangeSubselect))
		alias = ((RangeSubselect *) from)->alias;
	else if (IsA(from, RangeVar))
		alias = ((RangeVar *) from)->alias ? ((RangeVar *) from)->alias : makeAlias(((RangeVar *) from)->relname, NIL);
	if (alias == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s windows cannot be used with a function in FROM", kda_window_kind_name(clause->kind)),
				 errhint("Put the function into a subquery around the windows."),
				 parser_errposition(words->pstate, clause->location)));
	*aliases = lappend(*aliases, alias);
}

static Node *
all_of(List *conditions)
{
	return conditions == NIL ? NULL : list_length(conditions) == 1 ? linitial(conditions) :
		(Node *) makeBoolExpr(AND_EXPR, conditions, -1);
}

/* SELECT … FROM … WHERE …: a row for each of the user's, before it is in a window. */
static SelectStmt *
inner_select(KdaWordContext *words, SelectStmt *select, KdaWindowClause *clause, List *keys, List *aliases, List *where)
{
	SelectStmt *inner = makeNode(SelectStmt);
	KdaWordContext plain = *words;
	TypeCast   *length = makeNode(TypeCast);
	ListCell   *lc;

	plain.windowed = plain.in_from = false;
	plain.key = NULL;
	inner->fromClause = select->fromClause;
	inner->whereClause = all_of(where);
	foreach(lc, keys)
		inner->targetList = lappend(inner->targetList,
									kda_raw_target(psprintf("kda_k%d", foreach_current_index(lc) + 1), lfirst(lc)));
	kda_words_apply(&plain, inner);
	inner->targetList = lappend(inner->targetList, kda_raw_target("kda_time", kda_words_rowtime(words, -1)));
	inner->targetList = lappend(inner->targetList,
								kda_raw_target("kda_row", kda_raw_column(words->stream_name, "ctid", -1)));
	length->arg = copyObject(linitial(clause->args));
	length->typeName = makeTypeNameFromNameList(list_make2(makeString("pg_catalog"), makeString("interval")));
	length->location = -1;
	inner->targetList = lappend(inner->targetList, kda_raw_target("kda_length", (Node *) length));
	foreach(lc, aliases)
	{
		ColumnRef  *row = makeNode(ColumnRef);
		char	   *name = lfirst_node(Alias, lc)->aliasname;

		row->fields = list_make1(makeString(name));
		row->location = -1;
		inner->targetList = lappend(inner->targetList, kda_raw_target(name, (Node *) row));
	}
	return inner;
}

/* What finds the windows of the inner SELECT, which stands there as kda_inner. */
static char *
outer_text(KdaWindowClause *clause, int nkeys)
{
	StringInfoData keys;
	char	   *partition;

	initStringInfo(&keys);
	for (int i = 1; i <= nkeys; i++)
		appendStringInfo(&keys, "%skda_k%d", i > 1 ? ", " : "", i);
	partition = nkeys > 0 ? psprintf("PARTITION BY %s", keys.data) : "";
	if (clause->kind == KDA_WINDOW_STAGGER)
		return psprintf("SELECT * FROM (SELECT *, kda_start OPERATOR(pg_catalog.+) kda_length AS kda_end FROM ("
						"SELECT *, kda.stagger_start(kda_time, kda_length) OVER (%s ORDER BY kda_row) AS kda_start "
						"FROM kda_inner WHERE kda_time IS NOT NULL) kda_1) kda_x", partition);
	/* a gap as long as the session's joins */
	return psprintf("SELECT * FROM (SELECT *, pg_catalog.min(kda_time) OVER w AS kda_start, "
					"pg_catalog.max(kda_time) OVER w OPERATOR(pg_catalog.+) kda_length AS kda_end FROM ("
					"SELECT *, pg_catalog.sum(kda_new) OVER (%s ORDER BY kda_time, kda_row ROWS UNBOUNDED PRECEDING) AS kda_nth FROM ("
					"SELECT *, CASE WHEN kda_time OPERATOR(pg_catalog.<=) (pg_catalog.lag(kda_time) OVER "
					"(%s ORDER BY kda_time, kda_row) OPERATOR(pg_catalog.+) kda_length) THEN 0 ELSE 1 END AS kda_new "
					"FROM kda_inner WHERE kda_time IS NOT NULL) kda_1) kda_2 WINDOW w AS (PARTITION BY %s%skda_nth)) kda_x",
					partition, partition, keys.data, nkeys > 0 ? ", " : "");
}

/* FROM of a SELECT that is given as text. */
static List *
from_of_text(const char *text)
{
	return castNode(SelectStmt, linitial_node(RawStmt, kda_core_raw_parser(text, RAW_PARSE_DEFAULT))->stmt)->fromClause;
}

static Node *
lateral(const char *text, Alias *alias)
{
	RangeSubselect *from = linitial_node(RangeSubselect, from_of_text(psprintf("SELECT FROM LATERAL (%s) a", text)));

	from->alias = copyObject(alias);
	return (Node *) from;
}

/* Puts the SELECT where the relation kda_inner stands. */
static void
put_inner(List *from, SelectStmt *inner)
{
	RangeSubselect *sub;

	while (IsA(linitial(from), RangeSubselect))
		from = ((SelectStmt *) linitial_node(RangeSubselect, from)->subquery)->fromClause;
	sub = makeNode(RangeSubselect);
	sub->subquery = (Node *) inner;
	sub->alias = makeAlias("kda_0", NIL);
	linitial(from) = sub;
}

void
kda_put_keyed_windows(KdaWordContext *words, SelectStmt *select, KdaWindowClause *clause, List *keys)
{
	List	   *aliases = NIL;
	List	   *inside = NIL;
	List	   *outside = NIL;
	List	   *from;
	BoolExpr   *where = (BoolExpr *) select->whereClause;
	ListCell   *lc;

	if (!kda_window_is_literal(words->pstate, clause))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the %s of a window must be a constant", clause->kind == KDA_WINDOW_SESSION ? "gap" : "size"),
				 errhint("For example INTERVAL '1' MINUTE."),
				 parser_errposition(words->pstate, clause->location)));
	(void) kda_window_of_clause(words->pstate, clause, NULL);
	foreach(lc, select->fromClause)
		aliases_of(words, clause, lfirst(lc), &aliases);

	/* conditions on the windows wait for them */
	foreach(lc, where && IsA(where, BoolExpr) && where->boolop == AND_EXPR ? where->args :
			where ? list_make1(where) : NIL)
	{
		if (kda_names_windows(lfirst(lc)))
			outside = lappend(outside, lfirst(lc));
		else
			inside = lappend(inside, lfirst(lc));
	}
	from = from_of_text(outer_text(clause, list_length(keys)));
	put_inner(from, inner_select(words, select, clause, keys, aliases, inside));
	foreach(lc, aliases)
	{
		Alias	   *alias = lfirst_node(Alias, lc);

		from = lappend(from, lateral(psprintf("SELECT (kda_x.%s).*", quote_identifier(alias->aliasname)), alias));
	}
	from = lappend(from, lateral("SELECT kda_x.kda_start AS window_start, kda_x.kda_end AS window_end",
								 makeAlias(KDA_WINDOW_ALIAS, NIL)));
	select->fromClause = from;
	select->whereClause = all_of(outside);
	words->rowtime = kda_raw_column("kda_x", "kda_time", -1);
}
