/*-------------------------------------------------------------------------
 *
 * statement.c
 *	  One KDA statement: text to KdaStmt.  See parse.h for how.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "dialect/parse.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"

static void
description(KdaParser *p, KdaStmt *stmt)
{
	if (take(p, "description"))
		stmt->description = kda_parse_string(p, "DESCRIPTION '...'");
}

static void
create_stream(KdaParser *p, KdaStmt *stmt, int word)
{
	CreateForeignTableStmt *foreign = makeNode(CreateForeignTableStmt);
	CreateStmt *create;
	int			open,
				close;
	List	   *options = NIL;
	char	   *server = NULL;

	stmt->kind = KDA_STMT_CREATE_STREAM;
	stmt->object = KDA_OBJECT_STREAM;
	kda_parse_overwrite(p, word, word + 1, "TABLE");
	stmt->if_not_exists = kda_parse_if_not_exists(p);
	stmt->name = kda_parse_qualified_name(p);
	open = p->at;
	expect_char(p, '(', "CREATE STREAM name (column type, ...) [SERVER s] [OPTIONS (...)]");
	close = kda_parse_closing(p, open);

	kda_parse_replace_intervals(p, open, close);
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
			column = kda_parse_name(p, NULL);
			expect(p, "as", "WATERMARK FOR rowtime AS rowtime - INTERVAL '5' SECOND");
			expr = linitial(kda_parse_expressions(p, p->at, last));
			minus = (A_Expr *) expr;
			if (IsA(expr, ColumnRef))
				delay = "0";
			else if (IsA(expr, A_Expr) && minus->kind == AEXPR_OP &&
					 strcmp(strVal(linitial(minus->name)), "-") == 0 && minus->lexpr && IsA(minus->lexpr, ColumnRef) &&
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
				kda_parse_unexpected(p, "WATERMARK FOR rowtime AS rowtime - INTERVAL '5' SECOND");
			options = lappend(options, makeDefElem("rowtime", (Node *) makeString(column), -1));
			options = lappend(options, makeDefElem("watermark", (Node *) makeString(delay), -1));
			/* with the comma before it, or the one after */
			if (item > open + 1)
				kda_parse_blank(p, p->tokens->t[item - 1].start, p->tokens->t[last - 1].end);
			else
				kda_parse_blank(p, p->tokens->t[item].start, last < close ? p->tokens->t[last].end : p->tokens->t[last - 1].end);
		}
		else if (p->tokens->t[i].kind == KDA_TOKEN_WORD || p->tokens->t[i].kind == KDA_TOKEN_QUOTED)
			kda_parse_replace_type(p, i + 1);
		i = last;
	}
	p->at = close + 1;
	while (!at_end(p))
	{
		int			location = p->tokens->t[p->at].start;

		if (take(p, "server"))
			server = kda_parse_name(p, NULL);
		else if (take(p, "options"))
		{
			ListCell   *lc;

			foreach(lc, kda_parse_generic_options(p))
			{
				DefElem    *def = lfirst_node(DefElem, lc);
				ListCell   *lo;

				foreach(lo, options)
					if (strcmp(lfirst_node(DefElem, lo)->defname, def->defname) == 0)
						ereport(ERROR,
								(errcode(ERRCODE_SYNTAX_ERROR),
								 errmsg("option \"%s\" is given twice", def->defname),
								 errposition(kda_parse_position(p, def->location < 0 ? location : def->location))));
				options = lappend(options, def);
			}
		}
		else if (is(p, "description"))
			description(p, stmt);
		else
			kda_parse_unexpected(p, "CREATE STREAM name (column type, ...) [SERVER s] [OPTIONS (...)]");
	}
	kda_parse_replace_casts(p, open, close);
	kda_parse_blank(p, p->tokens->t[close].end, p->tokens->t[p->tokens->n].end);
	create = castNode(CreateStmt, kda_parse_core(p));
	foreign->base = *create;
	NodeSetTag(foreign, T_CreateForeignTableStmt);
	foreign->base.if_not_exists = stmt->if_not_exists;
	foreign->servername = server ? server : pstrdup(KDA_LOCAL_SERVER);
	foreign->options = options;
	stmt->core = (Node *) foreign;
}

static void
create_reference_table(KdaParser *p, KdaStmt *stmt, int word)
{
	int			first = p->at;

	stmt->kind = KDA_STMT_CREATE_REFERENCE_TABLE;
	kda_parse_overwrite(p, word, word + 1, "");
	stmt->if_not_exists = kda_parse_if_not_exists(p);
	stmt->name = kda_parse_qualified_name(p);
	if (is_char(p, '('))
	{
		int			open = p->at;
		int			close = kda_parse_closing(p, open);

		for (int i = open + 1; i < close; i++)
		{
			if (p->tokens->t[i].kind == KDA_TOKEN_WORD || p->tokens->t[i].kind == KDA_TOKEN_QUOTED)
				kda_parse_replace_type(p, i + 1);
			while (i < close && !(p->tokens->t[i].depth == p->tokens->t[open].depth + 1 && kda_token_is_char(p->tokens, i, ',')))
				i++;
		}
	}
	kda_parse_replace_casts(p, first, p->tokens->n);
	for (int i = p->at; i < p->tokens->n; i++)
		if (p->tokens->t[i].depth == 0 && kda_token_is(p->tokens, i, "description") &&
			p->tokens->t[i + 1].kind == KDA_TOKEN_STRING)
		{
			p->at = i;
			description(p, stmt);
			kda_parse_blank(p, p->tokens->t[i].start, p->tokens->t[i + 1].end);
		}
	stmt->core = kda_parse_core(p);
	p->at = first;
	if (!IsA(stmt->core, CreateStmt))
		kda_parse_unexpected(p, "CREATE REFERENCE TABLE name (column type, ...)");
}

static void
create_view(KdaParser *p, KdaStmt *stmt)
{
	stmt->kind = KDA_STMT_CREATE_VIEW;
	stmt->object = KDA_OBJECT_VIEW;
	stmt->if_not_exists = kda_parse_if_not_exists(p);
	stmt->name = kda_parse_qualified_name(p);
	if (is_char(p, '('))
		stmt->columns = kda_parse_names(p);
	description(p, stmt);
	if (take(p, "with"))
		stmt->options = kda_parse_with_options(p);
	description(p, stmt);
	expect(p, "as", "CREATE CONTINUOUS VIEW name [WITH (...)] AS SELECT ...");
	stmt->query = kda_parse_query(p, stmt);
}

/* INSERT INTO target … up to SELECT, where the parser then stands; it is kept in p->insert. */
static void
read_insert(KdaParser *p, const char *form)
{
	int			len = p->tokens->t[p->tokens->n].end;
	int			first = p->at;
	int			end;

	expect(p, "insert", form);
	expect(p, "into", form);
	(void) kda_parse_qualified_name(p);
	while (!at_end(p) && !(p->tokens->t[p->at].depth == 0 &&
						   (is(p, "select") || is(p, "with") || is(p, "values") || is(p, "table") || is(p, "default"))))
		p->at++;
	if (at_end(p))
		kda_parse_unexpected(p, form);
	end = p->tokens->t[p->at].end;
	p->insert = palloc(len + 1);
	memset(p->insert, ' ', len);
	p->insert[len] = '\0';
	memcpy(p->insert + p->tokens->t[first].start, p->copy + p->tokens->t[first].start,
		   end - p->tokens->t[first].start);
	/* whatever the query is, to the INSERT it is a SELECT; the name behind WITH leaves room for the word */
	if (is(p, "with") && p->tokens->t[p->at].start + strlen("SELECT") <= len)
		memcpy(p->insert + p->tokens->t[p->at].start, "SELECT", strlen("SELECT"));
}

static void
create_pump(KdaParser *p, KdaStmt *stmt)
{
	static const char *const form = "CREATE PUMP name [STOPPED] [WITH (...)] AS INSERT INTO target [(columns)] SELECT ...";

	stmt->kind = KDA_STMT_CREATE_PUMP;
	stmt->object = KDA_OBJECT_PUMP;
	stmt->if_not_exists = kda_parse_if_not_exists(p);
	stmt->name = kda_parse_qualified_name(p);
	for (;;)
	{
		if (take(p, "stopped"))
			stmt->stopped = true;
		else if (take(p, "started"))
			stmt->stopped = false;
		else if (take(p, "with"))
			stmt->options = kda_parse_with_options(p);
		else if (is(p, "description"))
			description(p, stmt);
		else
			break;
	}
	expect(p, "as", form);
	read_insert(p, form);
	stmt->query = kda_parse_query(p, stmt);
	/* the INSERT with an empty SELECT: kda_parse_query has put ON CONFLICT behind it */
	p->copy = p->insert;
	stmt->insert = castNode(InsertStmt, kda_parse_core(p));
	if (kda_insert_returns(stmt->insert) || stmt->insert->withClause)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the INSERT of a pump cannot have RETURNING")));
}

/* ADD [COLUMN] [IF NOT EXISTS] c DOUBLE, ALTER [COLUMN] c [SET DATA] TYPE DOUBLE */
static void
replace_altered_types(KdaParser *p, int from)
{
	for (int i = from; i < p->tokens->n; i++)
	{
		int			column = i + 1;

		if (p->tokens->t[i].depth > 0)
			continue;
		if (kda_token_is(p->tokens, i, "add"))
		{
			if (kda_token_is(p->tokens, column, "column"))
				column++;
			if (kda_token_is(p->tokens, column, "if"))
				column += 3;
			if (column + 1 < p->tokens->n)
				kda_parse_replace_type(p, column + 1);
		}
		else if (kda_token_is(p->tokens, i, "type"))
			kda_parse_replace_type(p, i + 1);
	}
	kda_parse_replace_casts(p, from, p->tokens->n);
}

/* ALTER STREAM | OUTPUT …; word: that token. */
static void
alter_stream(KdaParser *p, KdaStmt *stmt, int word)
{
	bool		if_exists;
	int			save;

	if_exists = kda_parse_if_exists(p);
	stmt->name = kda_parse_qualified_name(p);
	save = p->at;
	stmt->kind = KDA_STMT_STREAM_STATE;
	stmt->if_exists = if_exists;
	if (take(p, "pause"))
		stmt->action = KDA_PAUSE;
	else if (take(p, "resume"))
		stmt->action = KDA_RESUME;
	else if (stmt->object == KDA_OBJECT_STREAM && take(p, "reset"))
		stmt->action = KDA_RESET;
	else
	{
		kda_parse_overwrite(p, word, word + 1, "TABLE");
		stmt->kind = KDA_STMT_UTILITY;
		replace_altered_types(p, save);
		stmt->core = kda_parse_core(p);
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
		kda_parse_unexpected(p, NULL);
}

/* ALTER PUMP | CONTINUOUS VIEW …; [word, word_end): the tokens of PUMP or CONTINUOUS VIEW. */
static void
alter_query(KdaParser *p, KdaStmt *stmt, int word, int word_end)
{
	stmt->if_exists = kda_parse_if_exists(p);
	stmt->name = kda_parse_qualified_name(p);
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
		stmt->options = kda_parse_with_options(p);
		if (!at_end(p))
			kda_parse_unexpected(p, NULL);
		return;
	}
	else
	{
		kda_parse_overwrite(p, word, word_end, "VIEW");
		stmt->kind = KDA_STMT_UTILITY;
		stmt->core = kda_parse_core(p);
		return;
	}
	if (stmt->action != KDA_STOP && take(p, "from"))
		stmt->from = kda_parse_string(p, "START FROM 'latest' | 'timestamp'");
	if (!at_end(p))
		kda_parse_unexpected(p, NULL);
}

static void
create_output(KdaParser *p, KdaStmt *stmt)
{
	static const char *const form = "CREATE OUTPUT name FROM stream SERVER s [OPTIONS (...)]";

	stmt->kind = KDA_STMT_CREATE_OUTPUT;
	stmt->object = KDA_OBJECT_OUTPUT;
	stmt->if_not_exists = kda_parse_if_not_exists(p);
	stmt->name = kda_parse_qualified_name(p);
	expect(p, "from", form);
	stmt->source = kda_parse_qualified_name(p);
	expect(p, "server", form);
	stmt->server = kda_parse_name(p, NULL);
	while (!at_end(p))
	{
		if (stmt->options == NIL && take(p, "options"))
			stmt->options = kda_parse_generic_options(p);
		else if (stmt->description == NULL && is(p, "description"))
			description(p, stmt);
		else
			kda_parse_unexpected(p, form);
	}
}

static void
drop(KdaParser *p, KdaStmt *stmt, int word, int word_end)
{
	bool		table = stmt->object == KDA_OBJECT_STREAM || stmt->object == KDA_OBJECT_OUTPUT;

	stmt->kind = KDA_STMT_DROP;
	kda_parse_overwrite(p, word, word_end, table ? "TABLE" : "VIEW");
	stmt->core = kda_parse_core(p);
	if (!IsA(stmt->core, DropStmt))
		kda_parse_unexpected(p, NULL);
	if (table)
		((DropStmt *) stmt->core)->removeType = OBJECT_FOREIGN_TABLE;
}

KdaStmt *
kda_parse_statement(const char *text)
{
	KdaParser	parser = {0};
	KdaParser  *p = &parser;
	KdaStmt    *stmt = palloc0(sizeof(KdaStmt));
	ListCell   *lc;
	int			word;

	p->source = stmt->text = text;
	p->tokens = kda_scan(text, 0, strlen(text), true);
	p->copy = pstrdup(text);
	for (lc = list_head(p->tokens->comments); lc; lc = lnext(p->tokens->comments, lnext(p->tokens->comments, lc)))
		kda_parse_blank(p, lfirst_int(lc), lfirst_int(lnext(p->tokens->comments, lc)));

	if (kda_is_flink_table(p->tokens))
		kda_refuse_flink_table(p);
	if (take(p, "create"))
	{
		if (is(p, "or") && kda_token_is(p->tokens, p->at + 1, "replace"))
		{
			kda_parse_overwrite(p, p->at, p->at + 2, "");
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
		else if (take(p, "output"))
			create_output(p, stmt);
		else
			kda_parse_unexpected(p, NULL);
		return stmt;
	}
	if (take(p, "alter"))
	{
		word = p->at;
		if (take(p, "stream") || is(p, "output"))
		{
			stmt->object = take(p, "output") ? KDA_OBJECT_OUTPUT : KDA_OBJECT_STREAM;
			alter_stream(p, stmt, word);
		}
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
		else
			kda_parse_unexpected(p, NULL);
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
		else if (take(p, "output"))
		{
			stmt->object = KDA_OBJECT_OUTPUT;
			drop(p, stmt, word, word + 1);
		}
		else
			kda_parse_unexpected(p, NULL);
		return stmt;
	}
	kda_parse_unexpected(p, NULL);
}
