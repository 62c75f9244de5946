/*-------------------------------------------------------------------------
 *
 * emission.c
 *	  When the rows of a continuous query leave, and how often.
 *
 *		EMIT ON WINDOW CLOSE	once, when the window closes
 *		EMIT CHANGES			at each commit that has changed them
 *		EMIT EVERY				the same, but not more often than that
 *		allowed_lateness		again, when a late record corrects them; what is not
 *								made of windows over the stream itself leaves later
 *
 * Whatever may leave more than once is compared with what has left before
 * (query/shown.c): that takes a table, and a way to tell which row of a window
 * is which.  In the session that declares the query.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/rows.h"
#include "declare/emission.h"
#include "declare/window_clause.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "parser/parse_node.h"
#include "parser/parsetree.h"
#include "stream/stream.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

static int
position(const char *source_text, int location)
{
	return location < 0 ? 0 : pg_mbstrlen_with_len(source_text, location) + 1;
}

static int64
every_us(KdaStmt *stmt, const char *source_text)
{
	ParseState *pstate = make_parsestate(NULL);
	Interval   *iv;
	int64		us;

	pstate->p_sourcetext = source_text;
	iv = kda_window_literal(pstate, stmt->query->emit_interval);
	if (iv == NULL || iv->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the interval of EMIT EVERY must be a constant without months"),
				 errhint("For example EMIT EVERY INTERVAL '10' SECOND."),
				 errposition(position(source_text, stmt->query->emit_location))));
	us = iv->time + (int64) iv->day * USECS_PER_DAY;
	if (us <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the interval of EMIT EVERY must be greater than zero"),
				 errposition(position(source_text, stmt->query->emit_location))));
	return us;
}

/*---- window_revision */

typedef struct RevisionContext
{
	Oid			function;
	int			n;
} RevisionContext;

static bool
revision_walker(Node *node, void *arg)
{
	RevisionContext *cxt = arg;

	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcid == cxt->function)
		cxt->n++;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, revision_walker, cxt, 0);
	return expression_tree_walker(node, revision_walker, cxt);
}

static char *
append_number(char *list, int n)
{
	return list ? psprintf("%s%s%d", list, list[0] ? " " : "", n) : psprintf("%d", n);
}

/* It is known only when the row leaves: it stands in the select list, by itself. */
static char *
revision_columns(KdaSplit *split)
{
	RevisionContext cxt = {LookupFuncName(list_make2(makeString(KDA_SCHEMA), makeString("window_revision")), 0, NULL, false), 0};
	char	   *columns = NULL;
	int			found = 0,
				n = 0;
	ListCell   *lc;

	revision_walker((Node *) split->top, &cxt);
	if (cxt.n == 0)
		return NULL;
	foreach(lc, split->top->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk)
			continue;
		n++;
		if (!IsA(tle->expr, FuncExpr) || ((FuncExpr *) tle->expr)->funcid != cxt.function || tle->ressortgroupref != 0)
			continue;
		found++;
		columns = append_number(columns, n);
	}
	if (found != cxt.n)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("window_revision can only be a column of its own"),
				 errdetail("It is not known before the row leaves."),
				 errhint("Use it in a SELECT from the result.")));
	return columns;
}

/*---- which row is which */

static bool
var_walker(Node *node, void *arg)
{
	KdaSplit *split = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varlevelsup > 0 || ((Var *) node)->varno != split->window_rti;
	if (IsA(node, Query))
		return true;
	return expression_tree_walker(node, var_walker, split);
}

/*
 * The columns that show the keys of GROUP BY, but for those that follow from
 * the window.  NULL if they do not tell the rows of a window apart.
 */
static char *
key_columns(KdaSplit *split)
{
	Query	   *query = split->user;
	char	   *columns = pstrdup("");
	ListCell   *lc,
			   *lt;

	if (split->depth > 0 || !(query->hasAggs || query->groupClause) || query->groupingSets || query->hasTargetSRFs)
		return NULL;
	foreach(lc, query->groupClause)
	{
		Node	   *key = (Node *) get_sortgroupclause_tle(lfirst_node(SortGroupClause, lc), query->targetList)->expr;
		int			n = 0,
					found = 0;

		if (!var_walker(key, split))
			continue;
		foreach(lt, query->targetList)
		{
			TargetEntry *tle = lfirst_node(TargetEntry, lt);

			if (tle->resjunk)
				continue;
			n++;
			if (found == 0 && equal(tle->expr, key))
				found = n;
		}
		if (found == 0)
			return NULL;
		columns = append_number(columns, found);
	}
	return columns;
}

/*---- what goes together */

void
kda_emission_decide(KdaStmt *stmt, KdaSplit *split, const char *source_text, bool part, KdaEmission *emission)
{
	bool		pump = stmt->kind == KDA_STMT_CREATE_PUMP;
	KdaEmit		emit = stmt->query->emit;
	bool		windows = split->shape == KDA_SHAPE_WINDOWS;
	/* what is kept are rows, and sessions that begin and end together are looked at together */
	bool		mixed = windows && split->window->by_bounds && split->state == KDA_STATE_ROWS;
	bool		early = emit == KDA_EMIT_EVERY || (pump && windows && emit == KDA_EMIT_CHANGES);

	memset(emission, 0, sizeof(*emission));
	if (emit == KDA_EMIT_CLOSE && !windows)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("EMIT ON WINDOW CLOSE needs a window"),
				 errhint("Add WINDOWED BY TUMBLING (...), or leave EMIT out.")));
	if (emit == KDA_EMIT_EVERY)
	{
		emission->every_us = every_us(stmt, source_text);
		if (!windows && split->shape != KDA_SHAPE_GROUPS)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
					 errmsg("EMIT EVERY needs groups or a window"),
					 errdetail("A row that is made of one record never changes."),
					 errhint("Add GROUP BY or WINDOWED BY, or leave EMIT out."),
					 errposition(position(source_text, stmt->query->emit_location))));
	}
	if (early && mixed)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("EMIT %s cannot be used with sessions of several keys in one row", emit == KDA_EMIT_EVERY ? "EVERY" : "CHANGES of a pump"),
				 errdetail("Sessions of other keys with the same bounds are one window: when one of them changes, nothing tells which row becomes which."),
				 errhint("GROUP BY window_start, window_end and the columns of PARTITION BY; DISTINCT, ORDER BY, LIMIT and window functions in a query over that."),
				 errposition(position(source_text, stmt->query->emit_location))));

	emission->mode = emit == KDA_EMIT_EVERY ? "every" : early ? "changes" :
		emit == KDA_EMIT_CLOSE || (pump && windows) ? "close" : "changes";
	/* what is not shown waits for late records */
	emission->shown = early || (windows && !part && !mixed && kda_stream_options_get(split->stream)->allowed_lateness_us > 0);
	if (windows)
		emission->revisions = revision_columns(split);
	if (emission->shown)
		emission->keys = key_columns(split);
}

void
kda_emission_check_stream(Oid stream, int64 former_us)
{
	int64		lateness_us = kda_stream_options_get(stream)->allowed_lateness_us;
	char	   *columns[2];

	if (lateness_us == 0 ||
		!kda_owner_row(psprintf("SELECT CASE WHEN part_of IS NULL THEN rel::pg_catalog.text ELSE "
								"(SELECT q.rel::pg_catalog.text FROM kda_storage.query q WHERE q.query_id = p.part_of) END, shape "
								"FROM kda_storage.query p WHERE (stream = %u OR stream2 = %u) AND CASE shape WHEN 'windows' THEN "
								"shown IS NULL AND part_of IS NULL AND NOT (state = 'rows' AND window_spec ~ '^session_bounds') "
								"WHEN 'join' THEN %s ELSE false END "
								"ORDER BY query_id LIMIT 1", stream, stream, lateness_us > former_us ? "true" : "false"), 2, columns))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("option allowed_lateness of stream \"%s\" cannot be set now", get_rel_name(stream)),
			 strcmp(columns[1], "join") == 0 ?
			 errdetail("Continuous query %s keeps nothing of what later records could match.", columns[0]) :
			 errdetail("Continuous query %s keeps nothing of windows that have closed.", columns[0]),
			 errhint("DROP the query, set the option and CREATE it again.")));
}
