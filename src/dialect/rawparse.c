/*-------------------------------------------------------------------------
 *
 * rawparse.c
 *	  What core's raw_parser gives for a text that may hold KDA statements.
 *
 * In a copy of the text each KDA statement is overwritten by DO '' and spaces,
 * each window clause by spaces; core parses the copy, so every location stays
 * true.  Then the DO nodes get the statement's text as a mark, which the
 * ProcessUtility hook knows, and window clauses are worked into their SELECT.
 * Text without KDA words is not looked at here.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "dialect/adhoc.h"
#include "dialect/dialect.h"
#include "dialect/scan.h"
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

static Node *
mark(const char *source, KdaScriptPart *part)
{
	DoStmt	   *stmt = makeNode(DoStmt);

	stmt->args = list_make1(makeDefElem(MARK,
										(Node *) list_make3(makeString(pstrdup(source)),
															makeInteger(part->start),
															makeInteger(part->len)), -1));
	return (Node *) stmt;
}

bool
kda_is_marked(Node *stmt, char **source, int *start, int *len)
{
	DefElem    *def;
	List	   *list;

	if (stmt == NULL || !IsA(stmt, DoStmt) || ((DoStmt *) stmt)->args == NIL)
		return false;
	def = linitial_node(DefElem, ((DoStmt *) stmt)->args);
	if (strcmp(def->defname, MARK) != 0)
		return false;
	list = castNode(List, def->arg);
	*source = strVal(linitial(list));
	*start = intVal(lsecond(list));
	*len = intVal(lthird(list));
	return true;
}

List *
kda_raw_parse(const char *source, int mode)
{
	List	   *parts = kda_split_script(source);
	List	   *result;
	ListCell   *lc;
	char	   *copy;
	bool		ours = false;
	List	   *windows = NIL;

	foreach(lc, parts)
	{
		KdaScriptPart *part = lfirst(lc);

		ours |= part->is_kda || part->is_windowed;
	}
	if (!ours)
		return kda_core_raw_parser(source, mode);

	copy = pstrdup(source);
	foreach(lc, parts)
	{
		KdaScriptPart *part = lfirst(lc);

		if (part->is_kda)
		{
			/* says what is wrong with it now, as core does for a whole script */
			(void) kda_parse_statement(source, part->start, part->len);
			memset(copy + part->start, ' ', part->len);
			memcpy(copy + part->start, "DO ''", 5);
		}
		else if (part->is_windowed)
			windows = lappend(windows, kda_lift_window(source, copy, part));
	}
	/* a // comment between statements means nothing to core */
	kda_blank_comments(source, copy, parts);
	result = kda_core_raw_parser(copy, mode);

	foreach(lc, result)
	{
		RawStmt    *raw = lfirst_node(RawStmt, lc);
		ListCell   *lp;

		foreach(lp, parts)
		{
			KdaScriptPart *part = lfirst(lp);
			/* 18 and before differ in whether leading space belongs to the statement */
			bool		here = raw->stmt_location <= part->start &&
				(raw->stmt_len == 0 || raw->stmt_location + raw->stmt_len > part->start);

			if (!here)
				continue;
			if (part->is_kda)
			{
				raw->stmt = mark(source, part);
				raw->stmt_location = part->start;
				raw->stmt_len = part->len;
			}
			else if (part->is_windowed)
				kda_put_window(raw->stmt, windows, part, source);
			break;
		}
	}
	return result;
}
