/*-------------------------------------------------------------------------
 *
 * scan.c
 *	  Splits SQL text into tokens and scripts into statements, and tells which
 *	  of them are ours.
 *
 * Lexical only: no catalog access, since it also runs in aborted transactions.
 * Core's own scanner cannot be used: it takes // for an operator and stops at
 * the apostrophe of such a comment.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "dialect/dialect.h"
#include "dialect/parse.h"
#include "dialect/scan.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "parser/parser.h"
#include "parser/scansup.h"
#include "utils/builtins.h"

static inline bool
ident_start(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}

static inline bool
ident_part(unsigned char c)
{
	return ident_start(c) || (c >= '0' && c <= '9') || c == '$';
}

/* End of a quoted thing that begins at p (a quote); doubled quotes and, if wanted, backslashes escape. */
static int
skip_quoted(const char *text, int p, int end, char quote, bool backslashes)
{
	p++;
	while (p < end)
	{
		if (backslashes && text[p] == '\\' && p + 1 < end)
			p += 2;
		else if (text[p] != quote)
			p++;
		else if (p + 1 < end && text[p + 1] == quote)
			p += 2;
		else
			return p + 1;
	}
	return end;
}

/* End of a $tag$…$tag$ string at p, or p if it is none. */
static int
skip_dollar(const char *text, int p, int end)
{
	int			q = p + 1;
	int			len;

	if (q < end && text[q] != '$' && !ident_start(text[q]))
		return p;
	while (q < end && text[q] != '$' && ident_part(text[q]))
		q++;
	if (q >= end || text[q] != '$')
		return p;
	len = q + 1 - p;
	for (q++; q + len <= end; q++)
		if (memcmp(text + q, text + p, len) == 0)
			return q + len;
	return end;
}

static int
skip_block_comment(const char *text, int p, int end)
{
	int			depth = 0;

	while (p + 1 < end)
	{
		if (text[p] == '/' && text[p + 1] == '*')
		{
			depth++;
			p += 2;
		}
		else if (text[p] == '*' && text[p + 1] == '/')
		{
			p += 2;
			if (--depth == 0)
				return p;
		}
		else
			p++;
	}
	return end;
}

static int
skip_line(const char *text, int p, int end)
{
	while (p < end && text[p] != '\n' && text[p] != '\r')
		p++;
	return p;
}

/*
 * Bodies of SQL functions (BEGIN ATOMIC … END) hold semicolons that end
 * nothing: how deep is token n in one?
 */
static int
atomic_depth(const KdaTokens *tokens, int n, int depth)
{
	if (depth == 0)
		return kda_token_is(tokens, n, "atomic") && kda_token_is(tokens, n - 1, "begin") &&
			kda_token_is(tokens, 0, "create") ? 1 : 0;
	if (kda_token_is(tokens, n, "case"))
		return depth + 1;
	if (kda_token_is(tokens, n, "end"))
		return depth - 1;
	return depth;
}

/* Tokens up to end, or, for one statement, up to the semicolon that ends it. */
static KdaTokens *
scan(const char *text, int start, int end, bool slashes, bool one_statement)
{
	KdaTokens  *tokens = palloc0(sizeof(KdaTokens));
	int			room = 64;
	int			p = start;
	int			depth = 0;
	int			atomic = 0;

	tokens->text = text;
	tokens->t = palloc(sizeof(KdaToken) * room);
	while (p < end)
	{
		unsigned char c = text[p];
		KdaToken   *t;

		if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v')
		{
			p++;
			continue;
		}
		if (c == '-' && p + 1 < end && text[p + 1] == '-')
		{
			p = skip_line(text, p, end);
			continue;
		}
		if (c == '/' && p + 1 < end && text[p + 1] == '*')
		{
			p = skip_block_comment(text, p, end);
			continue;
		}
		if (slashes && c == '/' && p + 1 < end && text[p + 1] == '/')
		{
			int			q = skip_line(text, p, end);

			tokens->comments = lappend_int(lappend_int(tokens->comments, p), q);
			p = q;
			continue;
		}
		if (tokens->n + 1 >= room)
			tokens->t = repalloc_huge(tokens->t, sizeof(KdaToken) * (room *= 2));
		t = &tokens->t[tokens->n++];
		t->start = p;
		t->depth = depth;
		if (ident_start(c))
		{
			int			q = p;

			while (q < end && ident_part(text[q]))
				q++;
			t->kind = KDA_TOKEN_WORD;
			/* E'…', B'…', X'…', N'…', U&'…', U&"…" */
			if (q - p == 1 && q < end && text[q] == '\'' && strchr("eEbBxXnN", c))
			{
				t->kind = KDA_TOKEN_STRING;
				q = skip_quoted(text, q, end, '\'', c == 'e' || c == 'E');
			}
			else if (q - p == 1 && (c == 'u' || c == 'U') && q + 1 < end && text[q] == '&' &&
					 (text[q + 1] == '\'' || text[q + 1] == '"'))
			{
				t->kind = text[q + 1] == '"' ? KDA_TOKEN_QUOTED : KDA_TOKEN_STRING;
				q = skip_quoted(text, q + 1, end, text[q + 1], false);
			}
			p = q;
		}
		else if (c == '"')
		{
			t->kind = KDA_TOKEN_QUOTED;
			p = skip_quoted(text, p, end, '"', false);
		}
		else if (c == '\'')
		{
			t->kind = KDA_TOKEN_STRING;
			p = skip_quoted(text, p, end, '\'', !standard_conforming_strings);
		}
		else if (c == '$' && skip_dollar(text, p, end) > p)
		{
			t->kind = KDA_TOKEN_STRING;
			p = skip_dollar(text, p, end);
		}
		else if (c >= '0' && c <= '9')
		{
			t->kind = KDA_TOKEN_NUMBER;
			while (p < end && (ident_part(text[p]) || text[p] == '.'))
				p++;
		}
		else
		{
			t->kind = KDA_TOKEN_OTHER;
			if (c == '(' || c == '[')
				depth++;
			else if ((c == ')' || c == ']') && depth > 0)
				t->depth = --depth;
			p += (c == ':' && p + 1 < end && text[p + 1] == ':') ? 2 : 1;
		}
		t->end = p;
		if (one_statement)
		{
			if (c == ';' && depth == 0 && atomic == 0)
			{
				tokens->n--;
				end = t->start;
				break;
			}
			if (t->kind == KDA_TOKEN_WORD)
				atomic = atomic_depth(tokens, tokens->n - 1, atomic);
		}
	}
	tokens->t[tokens->n].kind = KDA_TOKEN_END;
	tokens->t[tokens->n].start = tokens->t[tokens->n].end = end;
	tokens->t[tokens->n].depth = 0;
	return tokens;
}

KdaTokens *
kda_scan(const char *text, int start, int end, bool slashes)
{
	return scan(text, start, end, slashes, false);
}

static void
free_tokens(KdaTokens *tokens)
{
	list_free(tokens->comments);
	pfree(tokens->t);
	pfree(tokens);
}

bool
kda_token_is(const KdaTokens *tokens, int i, const char *word)
{
	const KdaToken *t;
	int			len = strlen(word);

	if (i < 0 || i >= tokens->n)
		return false;
	t = &tokens->t[i];
	return t->kind == KDA_TOKEN_WORD && t->end - t->start == len &&
		pg_strncasecmp(tokens->text + t->start, word, len) == 0;
}

bool
kda_token_is_char(const KdaTokens *tokens, int i, char c)
{
	return i >= 0 && i < tokens->n && tokens->t[i].kind == KDA_TOKEN_OTHER &&
		tokens->t[i].end - tokens->t[i].start == 1 && tokens->text[tokens->t[i].start] == c;
}

/* The value of a literal or quoted name that is more than its characters: core's parser knows. */
static char *
core_value(const KdaTokens *tokens, const KdaToken *t)
{
	/* at its own place, so that an error points there */
	int			pad = Max(t->start - 7, 0);
	int			len = t->end - t->start;
	const char *s = tokens->text + t->start;
	char	   *text = psprintf("%*sSELECT %.*s", pad, "", len, s);
	List	   *list = kda_core_raw_parser(text, RAW_PARSE_DEFAULT);
	SelectStmt *select = castNode(SelectStmt, linitial_node(RawStmt, list)->stmt);
	Node	   *value = linitial_node(ResTarget, select->targetList)->val;

	if (IsA(value, TypeCast))
		value = ((TypeCast *) value)->arg;	/* N'…' */
	if (IsA(value, ColumnRef))
		return strVal(linitial(((ColumnRef *) value)->fields));
	if (IsA(value, A_Const) && IsA(&((A_Const *) value)->val, String))
		return ((A_Const *) value)->val.sval.sval;
	return pnstrdup(s, len);
}

char *
kda_token_value(const KdaTokens *tokens, int i)
{
	const KdaToken *t = &tokens->t[i];
	const char *s = tokens->text + t->start;
	int			len = t->end - t->start;

	switch (t->kind)
	{
		case KDA_TOKEN_WORD:
			return downcase_truncate_identifier(s, len, true);
		case KDA_TOKEN_QUOTED:
		case KDA_TOKEN_STRING:
			return core_value(tokens, t);
		default:
			return pnstrdup(s, len);
	}
}

/*---- scripts */

static bool
is_kda_statement(const KdaTokens *tokens)
{
	int			i = 0;

	if (kda_token_is(tokens, i, "create"))
	{
		if (kda_is_flink_table(tokens))
			return true;
		i++;
		if (kda_token_is(tokens, i, "or") && kda_token_is(tokens, i + 1, "replace"))
			i += 2;
		return kda_token_is(tokens, i, "stream") || kda_token_is(tokens, i, "pump") ||
			(kda_token_is(tokens, i, "continuous") && kda_token_is(tokens, i + 1, "view")) ||
			(kda_token_is(tokens, i, "reference") && kda_token_is(tokens, i + 1, "table")) ||
			kda_token_is(tokens, i, "output");
	}
	if (kda_token_is(tokens, i, "alter") || kda_token_is(tokens, i, "drop"))
		return kda_token_is(tokens, i + 1, "stream") || kda_token_is(tokens, i + 1, "pump") ||
			(kda_token_is(tokens, i + 1, "continuous") && kda_token_is(tokens, i + 2, "view")) ||
			kda_token_is(tokens, i + 1, "output");
	return false;
}

/* Does the place lie in a // comment? */
static bool
in_comment(const KdaTokens *tokens, int place)
{
	for (ListCell *lc = list_head(tokens->comments); lc; lc = lnext(tokens->comments, lnext(tokens->comments, lc)))
		if (place >= lfirst_int(lc) && place < lfirst_int(lnext(tokens->comments, lc)))
			return true;
	return false;
}

/*
 * The statement at source[at, end), what it is and where it ends.  Whether //
 * is a comment depends on the statement: in one of ours it is, elsewhere it is
 * somebody's operator.
 */
static KdaTokens *
next_statement(const char *source, int at, int end, bool *ours, bool *windowed)
{
	KdaTokens  *tokens = scan(source, at, end, true, true);
	KdaTokens  *plain;

	*ours = is_kda_statement(tokens);
	*windowed = !*ours && kda_parse_is_spelled(tokens);
	if (*ours || tokens->comments == NIL || tokens->n == 0)
		return tokens;

	plain = scan(source, tokens->t[0].start, end, false, true);
	if (*windowed)
	{
		int			stop = plain->t[plain->n].start;

		/* a semicolon behind // ends an ordinary statement; but not one of ours */
		if (kda_parse_is_spelled(plain) || !in_comment(tokens, stop))
		{
			free_tokens(plain);
			return tokens;
		}
	}
	free_tokens(tokens);
	*windowed = false;
	return plain;
}

List *
kda_split_script(const char *source)
{
	int			end = strlen(source);
	int			at = 0;
	List	   *parts = NIL;

	while (at < end)
	{
		bool		ours,
					windowed;
		KdaTokens  *tokens = next_statement(source, at, end, &ours, &windowed);
		int			stop = tokens->t[tokens->n].start;

		CHECK_FOR_INTERRUPTS();
		if (tokens->n > 0)
		{
			KdaScriptPart *part = palloc0(sizeof(KdaScriptPart));

			part->start = tokens->t[0].start;
			part->len = stop - part->start;
			part->is_kda = ours;
			part->is_windowed = windowed;
			parts = lappend(parts, part);
		}
		free_tokens(tokens);
		at = stop + 1;
	}
	return parts;
}

/*---- a quick look */

/*
 * Runs for every statement of the server, so it looks at the beginnings of
 * words only.  What lies in strings and comments counts as well: it costs a
 * closer look, no more.
 */
static bool
word_at(const char *p, const char *word)
{
	for (; *word; p++, word++)
		if ((*p | 0x20) != (*word | 0x20))
			return false;
	return true;
}

/* The word, and then a parenthesis, or a comment before it. */
static bool
call_at(const char *p, const char *word)
{
	if (!word_at(p, word))
		return false;
	p += strlen(word);
	while (*p == ' ' || (*p >= '\t' && *p <= '\r'))
		p++;
	return *p == '(' || *p == '/' || *p == '-';
}

/* Words without which a text has nothing of ours. */
static bool
suspicious_word(const char *p, bool quoted)
{
	switch (*p | 0x20)
	{
		case 'c':
			return word_at(p, "continuous") || call_at(p, "ceil") || call_at(p, "ceiling") ||
				(quoted && word_at(p, "connector'"));
		case 'f':
			return call_at(p, "floor");
		case 'h':
			return call_at(p, "hop");
		case 'o':
			return word_at(p, "output");
		case 'p':
			return word_at(p, "pump");
		case 'r':
			return word_at(p, "reference") || word_at(p, "rowtime");
		case 's':
			return word_at(p, "stream") || call_at(p, "step") || word_at(p, "system_time") || call_at(p, "session");
		case 't':
			return call_at(p, "table") || call_at(p, "tumble");
		case 'w':
			return word_at(p, "windowed") || word_at(p, "within");
		default:
			return false;
	}
}

/* Of a byte: may it be in a word, may a word of ours begin with it? */
#define IN_WORD	1
#define FIRST	2

static const uint8 byte_kinds[256] = {
	['0' ... '9'] = IN_WORD,['$'] = IN_WORD,['_'] = IN_WORD,[0x80 ... 0xff] = IN_WORD,
	['A' ... 'B'] = IN_WORD,['C'] = IN_WORD | FIRST,['D' ... 'E'] = IN_WORD,['F'] = IN_WORD | FIRST,
	['G'] = IN_WORD,['H'] = IN_WORD | FIRST,['I' ... 'N'] = IN_WORD,['O' ... 'P'] = IN_WORD | FIRST,['Q'] = IN_WORD,['R' ... 'T'] = IN_WORD | FIRST,
	['U' ... 'V'] = IN_WORD,['W'] = IN_WORD | FIRST,['X' ... 'Z'] = IN_WORD,
	['a' ... 'b'] = IN_WORD,['c'] = IN_WORD | FIRST,['d' ... 'e'] = IN_WORD,['f'] = IN_WORD | FIRST,
	['g'] = IN_WORD,['h'] = IN_WORD | FIRST,['i' ... 'n'] = IN_WORD,['o' ... 'p'] = IN_WORD | FIRST,['q'] = IN_WORD,['r' ... 't'] = IN_WORD | FIRST,
	['u' ... 'v'] = IN_WORD,['w'] = IN_WORD | FIRST,['x' ... 'z'] = IN_WORD,
};

bool
kda_text_is_suspicious(const char *source)
{
	const unsigned char *p = (const unsigned char *) source;

	for (;;)
	{
		while (!(byte_kinds[*p] & IN_WORD))
			if (*p++ == '\0')
				return false;
		if ((byte_kinds[*p] & FIRST) &&
			suspicious_word((const char *) p, (const char *) p > source && p[-1] == '\''))
			return true;
		while (byte_kinds[*p] & IN_WORD)
			p++;
	}
}
