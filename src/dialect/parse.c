/*-------------------------------------------------------------------------
 *
 * parse.c
 *	  Small steps of reading a KDA statement: names, options, the copy of the
 *	  text that core parses.  See parse.h.
 *
 * No catalog access.  Memory is the caller's current context.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "dialect/parse.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "parser/parser.h"
#include "utils/builtins.h"

/*---- errors */

int
kda_parse_position(KdaParser *p, int offset)
{
	return pg_mbstrlen_with_len(p->source, offset) + 1;
}

void
kda_parse_unexpected(KdaParser *p, const char *hint)
{
	KdaToken   *t = &p->tokens->t[p->at];

	if (t->kind == KDA_TOKEN_END)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("syntax error at end of input"),
				 hint ? errhint("%s", hint) : 0,
				 errposition(kda_parse_position(p, t->start))));
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("syntax error at or near \"%.*s\"", t->end - t->start, p->source + t->start),
			 hint ? errhint("%s", hint) : 0,
			 errposition(kda_parse_position(p, t->start))));
}

void
kda_parse_not_yet(KdaParser *p, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s is not part of this release", what),
			 errhint("%s", hint),
			 errposition(kda_parse_position(p, p->tokens->t[p->at].start))));
}

/*---- taking tokens */

char *
kda_parse_name(KdaParser *p, const char *hint)
{
	KdaTokenKind kind = p->tokens->t[p->at].kind;

	if (kind != KDA_TOKEN_WORD && kind != KDA_TOKEN_QUOTED)
		kda_parse_unexpected(p, hint);
	return kda_token_value(p->tokens, p->at++);
}

RangeVar *
kda_parse_qualified_name(KdaParser *p)
{
	int			location = p->tokens->t[p->at].start;
	char	   *parts[3];
	int			n = 0;
	RangeVar   *rv;

	parts[n++] = kda_parse_name(p, NULL);
	while (is_char(p, '.') && n < 3)
	{
		p->at++;
		parts[n++] = kda_parse_name(p, NULL);
	}
	rv = makeRangeVar(n > 1 ? parts[n - 2] : NULL, parts[n - 1], location);
	if (n == 3)
		rv->catalogname = parts[0];
	return rv;
}

char *
kda_parse_string(KdaParser *p, const char *hint)
{
	if (p->tokens->t[p->at].kind != KDA_TOKEN_STRING)
		kda_parse_unexpected(p, hint);
	return kda_token_value(p->tokens, p->at++);
}

List *
kda_parse_names(KdaParser *p)
{
	List	   *names = NIL;

	expect_char(p, '(', NULL);
	do
		names = lappend(names, makeString(kda_parse_name(p, NULL)));
	while (is_char(p, ',') && ++p->at);
	expect_char(p, ')', NULL);
	return names;
}

bool
kda_parse_if_not_exists(KdaParser *p)
{
	if (!is(p, "if") || !kda_token_is(p->tokens, p->at + 1, "not"))
		return false;
	p->at += 2;
	expect(p, "exists", "IF NOT EXISTS");
	return true;
}

bool
kda_parse_if_exists(KdaParser *p)
{
	if (!is(p, "if") || !kda_token_is(p->tokens, p->at + 1, "exists"))
		return false;
	p->at += 2;
	return true;
}

List *
kda_parse_generic_options(KdaParser *p)
{
	static const char *const form = "OPTIONS (name 'value', ...)";
	List	   *options = NIL;

	expect_char(p, '(', form);
	while (!is_char(p, ')'))
	{
		int			location = p->tokens->t[p->at].start;
		char	   *key = kda_parse_name(p, form);

		/* an unquoted dotted name: bootstrap.servers */
		while (is_char(p, '.'))
		{
			p->at++;
			key = psprintf("%s.%s", key, kda_parse_name(p, NULL));
		}
		options = lappend(options,
						  makeDefElem(key,
									  (Node *) makeString(kda_parse_string(p, "Values of options are strings: OPTIONS (name 'value', ...).")),
									  location));
		if (!is_char(p, ','))
			break;
		p->at++;
	}
	expect_char(p, ')', form);
	return options;
}

List *
kda_parse_with_options(KdaParser *p)
{
	static const char *const form = "WITH (name = value, ...)";
	List	   *options = NIL;

	expect_char(p, '(', form);
	while (!is_char(p, ')'))
	{
		int			location = p->tokens->t[p->at].start;
		char	   *key = kda_parse_name(p, form);
		char	   *value;

		expect_char(p, '=', form);
		if (p->tokens->t[p->at].kind == KDA_TOKEN_OTHER || at_end(p))
			kda_parse_unexpected(p, form);
		value = kda_token_value(p->tokens, p->at++);
		options = lappend(options, makeDefElem(key, (Node *) makeString(value), location));
		if (!is_char(p, ','))
			break;
		p->at++;
	}
	expect_char(p, ')', form);
	return options;
}

int
kda_parse_closing(KdaParser *p, int open)
{
	int			depth = p->tokens->t[open].depth;

	for (int i = open + 1; i < p->tokens->n; i++)
		if (p->tokens->t[i].depth == depth && kda_token_is_char(p->tokens, i, ')'))
			return i;
	p->at = p->tokens->n;
	kda_parse_unexpected(p, NULL);
}

/*---- the copy for core */

void
kda_parse_blank(KdaParser *p, int from, int to)
{
	for (int i = from; i < to; i++)
		if (p->copy[i] != '\n' && p->copy[i] != '\r')
			p->copy[i] = ' ';
}

void
kda_parse_overwrite(KdaParser *p, int from, int to, const char *text)
{
	int			start = p->tokens->t[from].start;
	int			end = p->tokens->t[to - 1].end;

	Assert((int) strlen(text) <= end - start);
	kda_parse_blank(p, start, end);
	memcpy(p->copy + start, text, strlen(text));
}

void
kda_parse_replace_type(KdaParser *p, int i)
{
	int			last = i;

	if (kda_token_is(p->tokens, i, "double") && !kda_token_is(p->tokens, i + 1, "precision"))
		kda_parse_overwrite(p, i, i + 1, "float8");
	else if (kda_token_is(p->tokens, i, "tinyint"))
		kda_parse_overwrite(p, i, i + 1, "int2");
	else if (kda_token_is(p->tokens, i, "varbinary") || kda_token_is(p->tokens, i, "binary"))
	{
		if (kda_token_is_char(p->tokens, i + 1, '('))
			last = kda_parse_closing(p, i + 1);
		kda_parse_overwrite(p, i, last + 1, "bytea");
	}
}

#define MAX_CASTS	64

void
kda_parse_replace_casts(KdaParser *p, int from, int to)
{
	int			casts[MAX_CASTS];	/* depths of the parentheses of CASTs that are open */
	int			n = 0;

	for (int i = from; i < to; i++)
	{
		int			depth = p->tokens->t[i].depth;

		if (kda_token_is(p->tokens, i, "cast") && kda_token_is_char(p->tokens, i + 1, '(') && n < MAX_CASTS)
			casts[n++] = p->tokens->t[i + 1].depth + 1;
		while (n > 0 && kda_token_is_char(p->tokens, i, ')') && depth < casts[n - 1])
			n--;
		if (n > 0 && kda_token_is(p->tokens, i, "as") && depth == casts[n - 1])
			kda_parse_replace_type(p, i + 1);
		if (p->tokens->t[i].kind == KDA_TOKEN_OTHER && p->tokens->t[i].end - p->tokens->t[i].start == 2)
			kda_parse_replace_type(p, i + 1);	/* :: */
	}
}

Node *
kda_parse_core(KdaParser *p)
{
	List	   *list = kda_core_raw_parser(p->copy, RAW_PARSE_DEFAULT);

	if (list_length(list) != 1)
		kda_parse_unexpected(p, NULL);
	return linitial_node(RawStmt, list)->stmt;
}

List *
kda_parse_expressions(KdaParser *p, int from, int to)
{
	char	   *text;
	int			start = p->tokens->t[from].start;
	int			end;
	SelectStmt *select;
	List	   *list;
	List	   *result = NIL;
	ListCell   *lc;

	p->at = from;
	if (to <= from)
		kda_parse_unexpected(p, NULL);
	end = p->tokens->t[to - 1].end;
	/* something of ours always stands before it: SELECT fits */
	Assert(start >= 7);
	text = palloc(end + 1);
	memset(text, ' ', end);
	memcpy(text + start, p->copy + start, end - start);
	memcpy(text + start - 7, "SELECT ", 7);
	text[end] = '\0';
	list = kda_core_raw_parser(text, RAW_PARSE_DEFAULT);
	p->at = from;
	/* whatever else a SELECT can have, it must not: also a semicolon, and nothing at all */
	if (list_length(list) != 1)
		kda_parse_unexpected(p, NULL);
	select = castNode(SelectStmt, linitial_node(RawStmt, list)->stmt);
	if (select->targetList == NIL || select->distinctClause || select->intoClause || select->fromClause ||
		select->whereClause || select->groupClause || select->havingClause || select->windowClause ||
		select->op != SETOP_NONE || select->sortClause || select->limitCount || select->limitOffset ||
		select->lockingClause)
		kda_parse_unexpected(p, NULL);
	foreach(lc, select->targetList)
	{
		ResTarget  *rt = lfirst_node(ResTarget, lc);

		/* an alias, a lonely *: core's grammar knows them in a select list only */
		if (rt->name || (IsA(rt->val, ColumnRef) && IsA(linitial(((ColumnRef *) rt->val)->fields), A_Star)))
			kda_parse_unexpected(p, NULL);
		result = lappend(result, rt->val);
	}
	return result;
}
