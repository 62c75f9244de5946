/*-------------------------------------------------------------------------
 *
 * rawparse.c
 *	  What core's raw_parser gives for a text that may hold KDA statements.
 *
 * In a copy of the text each KDA statement is overwritten by DO '' and spaces,
 * each window clause by a GROUP BY item; core parses the copy, so every
 * location stays true.  Then the DO nodes get the statement's text as a mark,
 * which the ProcessUtility hook knows, and window clauses are worked into
 * their SELECT.  Text without KDA words is not looked at here.
 *
 * The time that this takes grows with the text's length, not with its square:
 * a dump of a thousand statements is one text.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "dialect/adhoc.h"
#include "dialect/dialect.h"
#include "dialect/scan.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"

#define MARK	"kda_statement"

static List *
core_raw_parser(const char *source, int mode)
{
	return raw_parser(source, (RawParseMode) mode);
}

List	   *(*kda_core_raw_parser) (const char *source, int mode) = core_raw_parser;

/*---- places of errors */

static void
shift_position(void *arg)
{
	KdaPlace   *place = arg;
	int			position = geterrposition();

	/* an error of a query inside has its own text and no position here */
	if (position > 0)
		errposition(position + pg_mbstrlen_with_len(place->source, place->start));
}

void
kda_place_begin(KdaPlace *place, const char *source, int start)
{
	place->source = source;
	place->start = start;
	place->callback.callback = shift_position;
	place->callback.arg = place;
	place->callback.previous = error_context_stack;
	error_context_stack = &place->callback;
}

void
kda_place_end(KdaPlace *place)
{
	error_context_stack = place->callback.previous;
}

/*---- marks */

static Node *
mark(char *text, int start)
{
	DoStmt	   *stmt = makeNode(DoStmt);

	stmt->args = list_make1(makeDefElem(MARK, (Node *) list_make2(makeString(text), makeInteger(start)), -1));
	return (Node *) stmt;
}

bool
kda_is_marked(Node *stmt, char **text, int *start)
{
	DefElem    *def;
	List	   *list;

	if (stmt == NULL || !IsA(stmt, DoStmt) || ((DoStmt *) stmt)->args == NIL)
		return false;
	def = linitial_node(DefElem, ((DoStmt *) stmt)->args);
	if (strcmp(def->defname, MARK) != 0)
		return false;
	list = castNode(List, def->arg);
	*text = strVal(linitial(list));
	*start = intVal(lsecond(list));
	return true;
}

List *
kda_raw_parse(const char *source, int mode)
{
	List	   *parts = kda_split_script(source);
	List	   *result;
	ListCell   *lc;
	ListCell   *lp;
	char	   *copy;
	bool		ours = false;

	foreach(lc, parts)
	{
		KdaScriptPart *part = lfirst(lc);

		ours |= part->is_kda || part->is_windowed;
	}
	if (!ours)
	{
		result = kda_core_raw_parser(source, mode);
		kda_explain_plain_rowtime(result, source);
		return result;
	}

	copy = pstrdup(source);
	foreach(lc, parts)
	{
		KdaScriptPart *part = lfirst(lc);

		if (part->is_kda)
		{
			/* says what is wrong with it now, as core does for a whole script */
			char	   *text = pnstrdup(source + part->start, part->len);
			KdaPlace	place;

			kda_place_begin(&place, source, part->start);
			(void) kda_parse_statement(text);
			kda_place_end(&place);
			memset(copy + part->start, ' ', part->len);
			memcpy(copy + part->start, "DO ''", 5);
		}
		else if (part->is_windowed)
			kda_lift_windows(source, copy, part);
	}
	/* a // comment between statements means nothing to core */
	kda_blank_comments(source, copy, parts);
	result = kda_core_raw_parser(copy, mode);

	/* both lists are in the order of the text */
	lp = list_head(parts);
	foreach(lc, result)
	{
		RawStmt    *raw = lfirst_node(RawStmt, lc);
		int			end = raw->stmt_len > 0 ? raw->stmt_location + raw->stmt_len : INT_MAX;
		KdaScriptPart *part = NULL;

		/* 18 and before differ in whether leading space belongs to the statement */
		while (lp && (part = lfirst(lp))->start < raw->stmt_location)
			lp = lnext(parts, lp);
		if (lp == NULL)
			break;
		part = lfirst(lp);
		if (part->start >= end)
			continue;
		if (part->is_kda)
		{
			raw->stmt = mark(pnstrdup(source + part->start, part->len), part->start);
			raw->stmt_location = part->start;
			raw->stmt_len = part->len;
		}
		else if (part->is_windowed)
			kda_put_windows(raw->stmt, part, source, list_length(result) == 1);
	}
	return result;
}
