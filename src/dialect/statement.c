/*-------------------------------------------------------------------------
 *
 * statement.c
 *	  One KDA statement: text to KdaStmt.
 *
 * Core's grammar does most of it.  In a copy of the text what is ours is
 * overwritten by spaces or by a core word of no greater length (STREAM by
 * TABLE), so that every location in core's raw tree is a place in the source.
 * Clauses that core does not know are lifted out and read here.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "dialect/adhoc.h"
#include "dialect/dialect.h"
#include "dialect/scan.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parser.h"
#include "utils/builtins.h"

typedef struct Parser
{
	KdaTokens  *tokens;
	const char *source;
	char	   *copy;			/* what core will parse: spaces outside of the statement */
	int			at;				/* current token */
	int			start;
	int			end;
} Parser;

const char *
kda_window_kind_name(KdaWindowKind kind)
{
	static const char *const names[] = {"TUMBLING", "SLIDING", "CUMULATING", "SESSION", "STAGGER"};

	return names[kind];
}

/*---- errors and small steps */

static int
position(Parser *p, int offset)
{
	return pg_mbstrlen_with_len(p->source, offset) + 1;
}

pg_noreturn static void
unexpected(Parser *p, const char *hint)
{
	KdaToken   *t = &p->tokens->t[p->at];

	if (t->kind == KDA_TOKEN_END)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("syntax error at end of input"),
				 hint ? errhint("%s", hint) : 0,
				 errposition(position(p, t->start))));
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("syntax error at or near \"%.*s\"", t->end - t->start, p->source + t->start),
			 hint ? errhint("%s", hint) : 0,
			 errposition(position(p, t->start))));
}

pg_noreturn static void
not_yet(Parser *p, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s is not part of this release", what),
			 errhint("%s", hint),
			 errposition(position(p, p->tokens->t[p->at].start))));
}

static bool
is(Parser *p, const char *word)
{
	return kda_token_is(p->tokens, p->at, word);
}

static bool
is_char(Parser *p, char c)
{
	return kda_token_is_char(p->tokens, p->at, c);
}

static bool
take(Parser *p, const char *word)
{
	if (!is(p, word))
		return false;
	p->at++;
	return true;
}

static void
expect(Parser *p, const char *word, const char *hint)
{
	if (!take(p, word))
		unexpected(p, hint);
}

static void
expect_char(Parser *p, char c, const char *hint)
{
	if (!is_char(p, c))
		unexpected(p, hint);
	p->at++;
}

static bool
at_end(Parser *p)
{
	return p->tokens->t[p->at].kind == KDA_TOKEN_END;
}

static char *
name(Parser *p, const char *hint)
{
	KdaTokenKind kind = p->tokens->t[p->at].kind;

	if (kind != KDA_TOKEN_WORD && kind != KDA_TOKEN_QUOTED)
		unexpected(p, hint);
	return kda_token_value(p->tokens, p->at++);
}

static RangeVar *
qualified_name(Parser *p)
{
	int			location = p->tokens->t[p->at].start;
	char	   *parts[3];
	int			n = 0;
	RangeVar   *rv;

	parts[n++] = name(p, NULL);
	while (is_char(p, '.') && n < 3)
	{
		p->at++;
		parts[n++] = name(p, NULL);
	}
	rv = makeRangeVar(n > 1 ? parts[n - 2] : NULL, parts[n - 1], location);
	if (n == 3)
		rv->catalogname = parts[0];
	return rv;
}

static char *
string(Parser *p, const char *hint)
{
	if (p->tokens->t[p->at].kind != KDA_TOKEN_STRING)
		unexpected(p, hint);
	return kda_token_value(p->tokens, p->at++);
}

/*---- the copy for core */

static void
blank(Parser *p, int from, int to)
{
	for (int i = from; i < to; i++)
		if (p->copy[i] != '\n' && p->copy[i] != '\r')
			p->copy[i] = ' ';
}

/* Overwrites tokens [from, to) by text, which must not be longer. */
static void
overwrite(Parser *p, int from, int to, const char *text)
{
	int			start = p->tokens->t[from].start;
	int			end = p->tokens->t[to - 1].end;

	Assert((int) strlen(text) <= end - start);
	blank(p, start, end);
	memcpy(p->copy + start, text, strlen(text));
}

static Node *
core_statement(Parser *p)
{
	List	   *list = kda_core_raw_parser(p->copy, RAW_PARSE_DEFAULT);

	if (list_length(list) != 1)
		unexpected(p, NULL);
	return linitial_node(RawStmt, list)->stmt;
}

/* Index of the token that closes the parenthesis at token open. */
static int
closing(Parser *p, int open)
{
	int			depth = p->tokens->t[open].depth;

	for (int i = open + 1; i < p->tokens->n; i++)
		if (p->tokens->t[i].depth == depth && kda_token_is_char(p->tokens, i, ')'))
			return i;
	p->at = p->tokens->n;
	unexpected(p, NULL);
}

/* KDA's type names, where a type stands: token i. */
static void
replace_type(Parser *p, int i)
{
	int			last = i;

	if (kda_token_is(p->tokens, i, "double") && !kda_token_is(p->tokens, i + 1, "precision"))
		overwrite(p, i, i + 1, "float8");
	else if (kda_token_is(p->tokens, i, "tinyint"))
		overwrite(p, i, i + 1, "int2");
	else if (kda_token_is(p->tokens, i, "varbinary") || kda_token_is(p->tokens, i, "binary"))
	{
		if (kda_token_is_char(p->tokens, i + 1, '('))
			last = closing(p, i + 1);
		overwrite(p, i, last + 1, "bytea");
	}
}

/* … in expressions: CAST(x AS DOUBLE), x::DOUBLE. */
static void
replace_types_in_expressions(Parser *p, int from, int to)
{
	int			casts[64];
	int			ncasts = 0;

	for (int i = from; i < to; i++)
	{
		if (kda_token_is(p->tokens, i, "cast") && kda_token_is_char(p->tokens, i + 1, '(') && ncasts < 64)
			casts[ncasts++] = p->tokens->t[i + 1].depth + 1;
		while (ncasts > 0 && kda_token_is_char(p->tokens, i, ')') && p->tokens->t[i].depth < casts[ncasts - 1])
			ncasts--;
		if (ncasts > 0 && kda_token_is(p->tokens, i, "as") && p->tokens->t[i].depth == casts[ncasts - 1])
			replace_type(p, i + 1);
		if (p->tokens->t[i].kind == KDA_TOKEN_OTHER && p->tokens->t[i].end - p->tokens->t[i].start == 2)
			replace_type(p, i + 1);
	}
}

/*---- clauses of ours */

/* OPTIONS ( [SET|ADD|DROP] name ['value'], … ); the caller has taken OPTIONS. */
static List *
generic_options(Parser *p)
{
	List	   *options = NIL;

	expect_char(p, '(', "OPTIONS (name 'value', …)");
	while (!is_char(p, ')'))
	{
		int			location = p->tokens->t[p->at].start;
		char	   *key = name(p, "OPTIONS (name 'value', …)");
		DefElem    *def;

		/* an unquoted dotted name: bootstrap.servers */
		while (is_char(p, '.'))
		{
			p->at++;
			key = psprintf("%s.%s", key, name(p, NULL));
		}
		def = makeDefElem(key, (Node *) makeString(string(p, "Values of options are strings: OPTIONS (name 'value', …).")),
						  location);
		options = lappend(options, def);
		if (!is_char(p, ','))
			break;
		p->at++;
	}
	expect_char(p, ')', "OPTIONS (name 'value', …)");
	return options;
}

/* WITH (name = value, …); the caller has taken WITH. */
static List *
with_options(Parser *p)
{
	List	   *options = NIL;

	expect_char(p, '(', "WITH (name = value, …)");
	while (!is_char(p, ')'))
	{
		int			location = p->tokens->t[p->at].start;
		char	   *key = name(p, "WITH (name = value, …)");
		char	   *value;

		expect_char(p, '=', "WITH (name = value, …)");
		if (p->tokens->t[p->at].kind == KDA_TOKEN_OTHER || at_end(p))
			unexpected(p, "WITH (name = value, …)");
		value = kda_token_value(p->tokens, p->at++);
		options = lappend(options, makeDefElem(key, (Node *) makeString(value), location));
		if (!is_char(p, ','))
			break;
		p->at++;
	}
	expect_char(p, ')', "WITH (name = value, …)");
	return options;
}

static void
description(Parser *p, KdaStmt *stmt)
{
	if (take(p, "description"))
		stmt->description = string(p, "DESCRIPTION '…'");
}

/* Raw expressions of the tokens [from, to). */
static List *
expressions(Parser *p, int from, int to)
{
	char	   *text;
	int			start = p->tokens->t[from].start;
	int			end = p->tokens->t[to - 1].end;
	List	   *list;
	List	   *result = NIL;
	ListCell   *lc;

	if (to <= from)
		return NIL;
	/* something always stands before it: SELECT fits */
	text = palloc(end + 1);
	memset(text, ' ', end);
	memcpy(text + start, p->copy + start, end - start);
	memcpy(text + start - 7, "SELECT ", 7);
	text[end] = '\0';
	list = kda_core_raw_parser(text, RAW_PARSE_DEFAULT);
	foreach(lc, castNode(SelectStmt, linitial_node(RawStmt, list)->stmt)->targetList)
		result = lappend(result, lfirst_node(ResTarget, lc)->val);
	return result;
}

KdaWindowClause *
kda_window_clause(const char *source, char *copy, KdaTokens *tokens, int at, int *after)
{
	Parser		p = {tokens, source, copy, at + 2, 0, 0};
	KdaWindowClause *w = palloc0(sizeof(KdaWindowClause));
	int			open,
				close;

	w->location = tokens->t[at].start;
	if (take(&p, "tumbling"))
		w->kind = KDA_WINDOW_TUMBLING;
	else if (take(&p, "sliding") || take(&p, "hopping"))
		w->kind = KDA_WINDOW_SLIDING;
	else if (take(&p, "cumulating"))
		w->kind = KDA_WINDOW_CUMULATING;
	else if (take(&p, "session"))
		w->kind = KDA_WINDOW_SESSION;
	else if (take(&p, "stagger"))
		w->kind = KDA_WINDOW_STAGGER;
	else
		unexpected(&p, "WINDOWED BY TUMBLING (…), SLIDING (…), CUMULATING (…), SESSION (…) or STAGGER (…)");
	open = p.at;
	expect_char(&p, '(', "For example WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)");
	close = closing(&p, open);
	if (w->kind == KDA_WINDOW_TUMBLING || w->kind == KDA_WINDOW_SLIDING ||
		w->kind == KDA_WINDOW_CUMULATING || w->kind == KDA_WINDOW_SESSION)
	{
		if (close == open + 1)
		{
			p.at = close;
			unexpected(&p, "The window needs a size, for example INTERVAL '1' MINUTE.");
		}
		w->args = expressions(&p, open + 1, close);
	}
	blank(&p, tokens->t[at].start, tokens->t[close].end);
	*after = close + 1;
	return w;
}

/* Words that core's grammar would answer with a bare syntax error. */
static void
refuse_unknown_spellings(Parser *p, int from, int to)
{
	for (int i = from; i < to; i++)
	{
		int			depth = p->tokens->t[i].depth;

		if (!kda_token_is_char(p->tokens, i + 1, '('))
			continue;
		if (kda_token_is(p->tokens, i, "floor") || kda_token_is(p->tokens, i, "step"))
			for (int j = i + 2; j < to && p->tokens->t[j].depth > depth; j++)
				if (p->tokens->t[j].depth == depth + 1 &&
					(kda_token_is(p->tokens, j, "to") || kda_token_is(p->tokens, j, "by")))
				{
					p->at = i;
					not_yet(p, kda_token_is(p->tokens, i, "step") ? "STEP (… BY …)" : "FLOOR (… TO …)",
							"Write WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) before GROUP BY.");
				}
		if (kda_token_is(p->tokens, i, "table") && p->tokens->t[i + 2].kind == KDA_TOKEN_WORD &&
			kda_token_is_char(p->tokens, i + 3, '('))
		{
			p->at = i;
			not_yet(p, "TABLE (TUMBLE (…)) in FROM", "Write WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) before GROUP BY.");
		}
	}
}

/* SELECT [STREAM] … from the current token to the end of the statement. */
static KdaQuerySpec *
query_spec(Parser *p, KdaStmt *stmt)
{
	KdaQuerySpec *spec = palloc0(sizeof(KdaQuerySpec));
	int			first = p->at;
	int			to = p->tokens->n;
	Node	   *core;

	if (!is(p, "select"))
		unexpected(p, "A continuous query is a SELECT.");
	replace_types_in_expressions(p, first, to);

	for (int i = first; i < p->tokens->n; i++)
	{
		int			depth = p->tokens->t[i].depth;

		if (kda_token_is(p->tokens, i, "select") && kda_token_is(p->tokens, i + 1, "stream") &&
			(p->tokens->t[i + 2].kind != KDA_TOKEN_OTHER || kda_token_is_char(p->tokens, i + 2, '*') ||
			 kda_token_is_char(p->tokens, i + 2, '(')) && !kda_token_is(p->tokens, i + 2, "from") &&
			!kda_token_is(p->tokens, i + 2, "as"))
			overwrite(p, i + 1, i + 2, "");
		if (kda_token_is(p->tokens, i, "windowed") && kda_token_is(p->tokens, i + 1, "by"))
		{
			int			after;

			if (depth > 0)
			{
				p->at = i;
				not_yet(p, "WINDOWED BY inside a subquery", "Put the window into a continuous query of its own.");
			}
			if (spec->window)
			{
				p->at = i;
				unexpected(p, "A query has one WINDOWED BY.");
			}
			spec->window = kda_window_clause(p->source, p->copy, p->tokens, i, &after);
			i = after - 1;
			continue;
		}
		if (depth == 0 && kda_token_is(p->tokens, i, "emit") &&
			(kda_token_is(p->tokens, i + 1, "changes") || kda_token_is(p->tokens, i + 1, "on") ||
			 kda_token_is(p->tokens, i + 1, "every")))
		{
			int			begin = i;

			spec->emit_location = p->tokens->t[i].start;
			p->at = i + 1;
			if (take(p, "changes"))
				spec->emit = KDA_EMIT_CHANGES;
			else if (take(p, "every"))
			{
				int			last = p->at;

				spec->emit = KDA_EMIT_EVERY;
				while (last < p->tokens->n && !(p->tokens->t[last].depth == 0 && kda_token_is(p->tokens, last, "on")))
					last++;
				if (last == p->at)
					unexpected(p, "EMIT EVERY INTERVAL '…'");
				spec->emit_interval = linitial(expressions(p, p->at, last));
				p->at = last;
			}
			else
			{
				expect(p, "on", NULL);
				expect(p, "window", "EMIT ON WINDOW CLOSE");
				expect(p, "close", "EMIT ON WINDOW CLOSE");
				spec->emit = KDA_EMIT_CLOSE;
			}
			blank(p, p->tokens->t[begin].start, p->tokens->t[p->at - 1].end);
			to = Min(to, begin);
			i = p->at - 1;
			if (!at_end(p) && !is(p, "on"))
				unexpected(p, NULL);
			continue;
		}
		if (depth == 0 && kda_token_is(p->tokens, i, "on") && kda_token_is(p->tokens, i + 1, "conflict"))
		{
			int			start = p->tokens->t[i].start;

			if (stmt->kind != KDA_STMT_CREATE_PUMP)
			{
				p->at = i;
				unexpected(p, NULL);
			}
			/* EMIT may stand on either side of it */
			p->at = i + 2;
			while (p->at < p->tokens->n && !(p->tokens->t[p->at].depth == 0 && is(p, "emit")))
				p->at++;
			stmt->on_conflict = pnstrdup(p->source + start, p->tokens->t[p->at - 1].end - start);
			stmt->on_conflict_location = start;
			blank(p, start, p->tokens->t[p->at - 1].end);
			i = p->at - 1;
			continue;
		}
	}
	refuse_unknown_spellings(p, first, p->tokens->n);
	blank(p, p->start, p->tokens->t[first].start);
	core = core_statement(p);
	if (!IsA(core, SelectStmt))
	{
		p->at = first;
		unexpected(p, "A continuous query is a SELECT.");
	}
	spec->select = (SelectStmt *) core;
	if (spec->select->intoClause)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("SELECT INTO cannot be used in a continuous query")));
	return spec;
}

/*---- statements */

static void
create_stream(Parser *p, KdaStmt *stmt, int word)
{
	CreateForeignTableStmt *foreign = makeNode(CreateForeignTableStmt);
	CreateStmt *create;
	int			open,
				close;
	List	   *options = NIL;
	char	   *server = NULL;
	int			word_end = word;

	stmt->kind = KDA_STMT_CREATE_STREAM;
	stmt->object = KDA_OBJECT_STREAM;
	overwrite(p, word, word + 1, "TABLE");
	if (is(p, "if"))
	{
		p->at++;
		expect(p, "not", "IF NOT EXISTS");
		expect(p, "exists", "IF NOT EXISTS");
		stmt->if_not_exists = true;
	}
	(void) word_end;
	stmt->name = qualified_name(p);
	open = p->at;
	expect_char(p, '(', "CREATE STREAM name (column type, …) [SERVER s] [OPTIONS (…)]");
	close = closing(p, open);

	/* columns: types, and Flink's WATERMARK FOR c AS c - INTERVAL … */
	for (int i = open + 1; i < close; i++)
	{
		int			item = i;
		int			last;

		for (last = i; last < close; last++)
			if (p->tokens->t[last].depth == p->tokens->t[open].depth + 1 && kda_token_is_char(p->tokens, last, ','))
				break;
		if (kda_token_is(p->tokens, i, "watermark") && kda_token_is(p->tokens, i + 1, "for"))
		{
			char	   *column;
			Node	   *expr;
			A_Expr	   *minus;
			char	   *delay = NULL;

			p->at = i + 2;
			column = name(p, NULL);
			expect(p, "as", "WATERMARK FOR rowtime AS rowtime - INTERVAL '5' SECOND");
			expr = linitial(expressions(p, p->at, last));
			minus = (A_Expr *) expr;
			if (IsA(expr, ColumnRef))
				delay = "0";
			else if (IsA(expr, A_Expr) && minus->kind == AEXPR_OP &&
					 strcmp(strVal(linitial(minus->name)), "-") == 0 && IsA(minus->lexpr, ColumnRef) &&
					 IsA(minus->rexpr, TypeCast))
			{
				/* INTERVAL '5' SECOND: the text between the operator and the comma is an interval */
				int			m = p->at;

				while (m < last && !kda_token_is(p->tokens, m, "interval"))
					m++;
				if (m < last && p->tokens->t[m + 1].kind == KDA_TOKEN_STRING)
				{
					delay = kda_token_value(p->tokens, m + 1);
					if (m + 2 < last)
						delay = psprintf("%s %s", delay, kda_token_value(p->tokens, m + 2));
				}
			}
			if (delay == NULL)
				unexpected(p, "WATERMARK FOR rowtime AS rowtime - INTERVAL '5' SECOND");
			options = lappend(options, makeDefElem("rowtime", (Node *) makeString(column), -1));
			options = lappend(options, makeDefElem("watermark", (Node *) makeString(delay), -1));
			/* with the comma before it, or the one after */
			if (item > open + 1)
				blank(p, p->tokens->t[item - 1].start, p->tokens->t[last - 1].end);
			else
				blank(p, p->tokens->t[item].start, last < close ? p->tokens->t[last].end : p->tokens->t[last - 1].end);
		}
		else if (p->tokens->t[i].kind == KDA_TOKEN_WORD || p->tokens->t[i].kind == KDA_TOKEN_QUOTED)
			replace_type(p, i + 1);
		i = last;
	}
	p->at = close + 1;
	while (!at_end(p))
	{
		int			location = p->tokens->t[p->at].start;

		if (take(p, "server"))
			server = name(p, NULL);
		else if (take(p, "options"))
		{
			ListCell   *lc;

			foreach(lc, generic_options(p))
			{
				DefElem    *def = lfirst_node(DefElem, lc);
				ListCell   *lo;

				foreach(lo, options)
					if (strcmp(lfirst_node(DefElem, lo)->defname, def->defname) == 0)
						ereport(ERROR,
								(errcode(ERRCODE_SYNTAX_ERROR),
								 errmsg("option \"%s\" is given twice", def->defname),
								 errposition(position(p, def->location < 0 ? location : def->location))));
				options = lappend(options, def);
			}
		}
		else if (is(p, "description"))
			description(p, stmt);
		else
			unexpected(p, "CREATE STREAM name (column type, …) [SERVER s] [OPTIONS (…)]");
	}
	blank(p, p->tokens->t[close].end, p->end);
	create = castNode(CreateStmt, core_statement(p));
	foreign->base = *create;
	NodeSetTag(foreign, T_CreateForeignTableStmt);
	foreign->base.if_not_exists = stmt->if_not_exists;
	foreign->servername = server ? server : pstrdup(KDA_LOCAL_SERVER);
	foreign->options = options;
	stmt->core = (Node *) foreign;
}

static void
create_reference_table(Parser *p, KdaStmt *stmt, int word)
{
	int			open;

	stmt->kind = KDA_STMT_CREATE_REFERENCE_TABLE;
	overwrite(p, word, word + 1, "");
	if (is(p, "if"))
	{
		p->at += 3;
		stmt->if_not_exists = true;
	}
	stmt->name = qualified_name(p);
	open = p->at;
	if (is_char(p, '('))
	{
		int			close = closing(p, open);

		for (int i = open + 1; i < close; i++)
		{
			if (p->tokens->t[i].kind == KDA_TOKEN_WORD || p->tokens->t[i].kind == KDA_TOKEN_QUOTED)
				replace_type(p, i + 1);
			while (i < close && !(p->tokens->t[i].depth == p->tokens->t[open].depth + 1 && kda_token_is_char(p->tokens, i, ',')))
				i++;
		}
		p->at = close + 1;
		if (is(p, "description"))
		{
			int			d = p->at;

			description(p, stmt);
			blank(p, p->tokens->t[d].start, p->tokens->t[p->at - 1].end);
		}
	}
	stmt->core = core_statement(p);
	if (!IsA(stmt->core, CreateStmt))
		unexpected(p, NULL);
}

static void
create_view(Parser *p, KdaStmt *stmt)
{
	stmt->kind = KDA_STMT_CREATE_VIEW;
	stmt->object = KDA_OBJECT_VIEW;
	if (take(p, "if"))
	{
		expect(p, "not", "IF NOT EXISTS");
		expect(p, "exists", "IF NOT EXISTS");
		stmt->if_not_exists = true;
	}
	stmt->name = qualified_name(p);
	if (is_char(p, '('))
	{
		p->at++;
		do
			stmt->columns = lappend(stmt->columns, makeString(name(p, NULL)));
		while (is_char(p, ',') && ++p->at);
		expect_char(p, ')', NULL);
	}
	description(p, stmt);
	if (take(p, "with"))
		stmt->options = with_options(p);
	description(p, stmt);
	expect(p, "as", "CREATE CONTINUOUS VIEW name [WITH (…)] AS SELECT …");
	stmt->query = query_spec(p, stmt);
}

static void
create_pump(Parser *p, KdaStmt *stmt)
{
	static const char *const form = "CREATE PUMP name [STOPPED] [WITH (…)] AS INSERT INTO target [(columns)] SELECT …";

	stmt->kind = KDA_STMT_CREATE_PUMP;
	stmt->object = KDA_OBJECT_PUMP;
	if (take(p, "if"))
	{
		expect(p, "not", "IF NOT EXISTS");
		expect(p, "exists", "IF NOT EXISTS");
		stmt->if_not_exists = true;
	}
	stmt->name = qualified_name(p);
	for (;;)
	{
		if (take(p, "stopped"))
			stmt->stopped = true;
		else if (take(p, "started"))
			stmt->stopped = false;
		else if (take(p, "with"))
			stmt->options = with_options(p);
		else if (is(p, "description"))
			description(p, stmt);
		else
			break;
	}
	expect(p, "as", form);
	expect(p, "insert", form);
	expect(p, "into", form);
	stmt->target = qualified_name(p);
	if (is_char(p, '('))
	{
		p->at++;
		do
			stmt->target_columns = lappend(stmt->target_columns, makeString(name(p, NULL)));
		while (is_char(p, ',') && ++p->at);
		expect_char(p, ')', NULL);
	}
	stmt->query = query_spec(p, stmt);
}

/* ALTER STREAM …; word: the token STREAM. */
static void
alter_stream(Parser *p, KdaStmt *stmt, int word)
{
	int			save;

	stmt->object = KDA_OBJECT_STREAM;
	if (is(p, "if"))
		p->at += 2;
	stmt->name = qualified_name(p);
	save = p->at;
	stmt->kind = KDA_STMT_STREAM_STATE;
	if (take(p, "pause"))
		stmt->action = KDA_PAUSE;
	else if (take(p, "resume"))
		stmt->action = KDA_RESUME;
	else if (take(p, "reset"))
		stmt->action = KDA_RESET;
	else
	{
		overwrite(p, word, word + 1, "TABLE");
		stmt->kind = KDA_STMT_UTILITY;
		/* ADD COLUMN c DOUBLE */
		for (int i = save; i < p->tokens->n; i++)
			if (kda_token_is(p->tokens, i, "column"))
				replace_type(p, kda_token_is(p->tokens, i + 1, "if") ? i + 5 : i + 2);
		stmt->core = core_statement(p);
		if (IsA(stmt->core, AlterTableStmt))
			((AlterTableStmt *) stmt->core)->objtype = OBJECT_FOREIGN_TABLE;
		else if (IsA(stmt->core, RenameStmt))
		{
			RenameStmt *rename = (RenameStmt *) stmt->core;

			if (rename->renameType == OBJECT_TABLE)
				rename->renameType = OBJECT_FOREIGN_TABLE;
			else if (rename->renameType == OBJECT_COLUMN)
				rename->relationType = OBJECT_FOREIGN_TABLE;
		}
		else if (IsA(stmt->core, AlterObjectSchemaStmt))
			((AlterObjectSchemaStmt *) stmt->core)->objectType = OBJECT_FOREIGN_TABLE;
		return;
	}
	if (!at_end(p))
		unexpected(p, NULL);
}

/* ALTER PUMP | CONTINUOUS VIEW …; [word, word_end): the tokens of PUMP or CONTINUOUS VIEW. */
static void
alter_query(Parser *p, KdaStmt *stmt, int word, int word_end)
{
	stmt->name = qualified_name(p);
	stmt->kind = KDA_STMT_QUERY_STATE;
	if (take(p, "stop"))
		stmt->action = KDA_STOP;
	else if (take(p, "start"))
		stmt->action = KDA_START;
	else if (take(p, "restart"))
		stmt->action = KDA_RESTART;
	else if (is(p, "set") && kda_token_is_char(p->tokens, p->at + 1, '('))
	{
		p->at++;
		stmt->kind = KDA_STMT_QUERY_SET;
		stmt->options = with_options(p);
		if (!at_end(p))
			unexpected(p, NULL);
		return;
	}
	else
	{
		overwrite(p, word, word_end, "VIEW");
		stmt->kind = KDA_STMT_UTILITY;
		stmt->core = core_statement(p);
		return;
	}
	if (stmt->action != KDA_STOP && take(p, "from"))
		stmt->from = string(p, "START FROM 'latest' | 'timestamp'");
	if (!at_end(p))
		unexpected(p, NULL);
}

static void
drop(Parser *p, KdaStmt *stmt, int word, int word_end)
{
	stmt->kind = KDA_STMT_DROP;
	overwrite(p, word, word_end, stmt->object == KDA_OBJECT_STREAM ? "TABLE" : "VIEW");
	stmt->core = core_statement(p);
	if (!IsA(stmt->core, DropStmt))
		unexpected(p, NULL);
	if (stmt->object == KDA_OBJECT_STREAM)
		((DropStmt *) stmt->core)->removeType = OBJECT_FOREIGN_TABLE;
}

KdaStmt *
kda_parse_statement(const char *source, int start, int len)
{
	Parser		parser = {0};
	Parser	   *p = &parser;
	KdaStmt    *stmt = palloc0(sizeof(KdaStmt));
	ListCell   *lc;
	int			word;

	p->source = source;
	p->start = start;
	p->end = start + len;
	p->tokens = kda_scan(source, start, start + len, true);
	p->copy = palloc(p->end + 1);
	memset(p->copy, ' ', start);
	memcpy(p->copy + start, source + start, len);
	p->copy[p->end] = '\0';
	for (lc = list_head(p->tokens->comments); lc; lc = lnext(p->tokens->comments, lnext(p->tokens->comments, lc)))
		blank(p, lfirst_int(lc), lfirst_int(lnext(p->tokens->comments, lc)));
	stmt->start = start;
	stmt->len = len;

	if (take(p, "create"))
	{
		if (is(p, "or") && kda_token_is(p->tokens, p->at + 1, "replace"))
		{
			overwrite(p, p->at, p->at + 2, "");
			p->at += 2;
			stmt->or_replace = true;
		}
		word = p->at;
		if (take(p, "stream"))
			create_stream(p, stmt, word);
		else if (take(p, "pump"))
			create_pump(p, stmt);
		else if (take(p, "continuous"))
		{
			expect(p, "view", NULL);
			create_view(p, stmt);
		}
		else if (take(p, "reference"))
		{
			expect(p, "table", NULL);
			create_reference_table(p, stmt, word);
		}
		else if (is(p, "output"))
			not_yet(p, "CREATE OUTPUT", "Outputs to outside systems come in a later release.");
		else
			unexpected(p, NULL);
		return stmt;
	}
	if (take(p, "alter"))
	{
		word = p->at;
		if (take(p, "stream"))
			alter_stream(p, stmt, word);
		else if (take(p, "pump"))
		{
			stmt->object = KDA_OBJECT_PUMP;
			alter_query(p, stmt, word, word + 1);
		}
		else if (take(p, "continuous"))
		{
			expect(p, "view", NULL);
			stmt->object = KDA_OBJECT_VIEW;
			alter_query(p, stmt, word, word + 2);
		}
		else if (is(p, "output"))
			not_yet(p, "ALTER OUTPUT", "Outputs to outside systems come in a later release.");
		else
			unexpected(p, NULL);
		return stmt;
	}
	if (take(p, "drop"))
	{
		word = p->at;
		if (take(p, "stream"))
		{
			stmt->object = KDA_OBJECT_STREAM;
			drop(p, stmt, word, word + 1);
		}
		else if (take(p, "pump"))
		{
			stmt->object = KDA_OBJECT_PUMP;
			drop(p, stmt, word, word + 1);
		}
		else if (take(p, "continuous"))
		{
			expect(p, "view", NULL);
			stmt->object = KDA_OBJECT_VIEW;
			drop(p, stmt, word, word + 2);
		}
		else if (is(p, "output"))
			not_yet(p, "DROP OUTPUT", "Outputs to outside systems come in a later release.");
		else
			unexpected(p, NULL);
		return stmt;
	}
	unexpected(p, NULL);
}
