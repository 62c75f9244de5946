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
#include "dialect/scan.h"
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

KdaTokens *
kda_scan(const char *text, int start, int end, bool slashes)
{
	KdaTokens  *tokens = palloc0(sizeof(KdaTokens));
	int			room = 64;
	int			p = start;
	int			depth = 0;

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
	}
	tokens->t[tokens->n].kind = KDA_TOKEN_END;
	tokens->t[tokens->n].start = tokens->t[tokens->n].end = end;
	tokens->t[tokens->n].depth = 0;
	return tokens;
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

char *
kda_token_value(const KdaTokens *tokens, int i)
{
	const KdaToken *t = &tokens->t[i];
	const char *s = tokens->text + t->start;
	int			len = t->end - t->start;
	StringInfoData out;

	switch (t->kind)
	{
		case KDA_TOKEN_WORD:
			return downcase_truncate_identifier(s, len, true);
		case KDA_TOKEN_QUOTED:
		case KDA_TOKEN_STRING:
			{
				char		quote;
				bool		backslashes = false;

				initStringInfo(&out);
				if (s[0] == '$')
				{
					int			tag = (int) (strchr(s + 1, '$') - s) + 1;

					appendBinaryStringInfo(&out, s + tag, Max(len - 2 * tag, 0));
					return out.data;
				}
				while (*s != '\'' && *s != '"')
				{
					backslashes |= *s == 'e' || *s == 'E';
					s++;
					len--;
				}
				quote = *s;
				for (int k = 1; k < len - 1; k++)
				{
					if (s[k] == quote)
						k++;	/* doubled */
					else if (backslashes && s[k] == '\\')
					{
						k++;
						appendStringInfoChar(&out, s[k] == 'n' ? '\n' : s[k] == 't' ? '\t' : s[k] == 'r' ? '\r' : s[k]);
						continue;
					}
					appendStringInfoChar(&out, s[k]);
				}
				if (quote == '"')
					truncate_identifier(out.data, out.len, true);
				return out.data;
			}
		default:
			return pnstrdup(s, len);
	}
}

/*---- scripts */

static bool
is_kda_statement(const KdaTokens *tokens, int i, int last)
{
	if (kda_token_is(tokens, i, "create"))
	{
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

static bool
has_window_clause(const KdaTokens *tokens, int i, int last)
{
	for (; i + 2 < last; i++)
		if (kda_token_is(tokens, i, "windowed") && kda_token_is(tokens, i + 1, "by") &&
			tokens->t[i + 2].kind == KDA_TOKEN_WORD)
			return true;
	return false;
}

/* Tokens of SQL-language function bodies (BEGIN ATOMIC … END) hold semicolons that end nothing. */
static int
statement_end(const KdaTokens *tokens, int i)
{
	bool		create = kda_token_is(tokens, i, "create");
	int			atomic = 0;

	for (; i < tokens->n; i++)
	{
		if (create && kda_token_is(tokens, i, "begin") && kda_token_is(tokens, i + 1, "atomic"))
			atomic++;
		else if (atomic > 0 && kda_token_is(tokens, i, "case"))
			atomic++;
		else if (atomic > 0 && kda_token_is(tokens, i, "end"))
			atomic--;
		if (atomic == 0 && tokens->t[i].depth == 0 && kda_token_is_char(tokens, i, ';'))
			break;
	}
	return i;
}

List *
kda_split_script(const char *source)
{
	int			end = strlen(source);
	int			at = 0;
	List	   *parts = NIL;

	while (at < end)
	{
		/* whether // is a comment depends on the statement: look at its first words */
		KdaTokens  *tokens = kda_scan(source, at, end, true);
		bool		ours = tokens->n > 0 && is_kda_statement(tokens, 0, tokens->n);
		int			last;
		KdaScriptPart *part;

		if (tokens->n == 0)
			break;
		if (!ours)
		{
			int			first = tokens->t[0].start;

			tokens = kda_scan(source, first, end, false);
			at = first;
			if (tokens->n == 0)
				break;
		}
		last = statement_end(tokens, 0);
		if (last > 0)
		{
			part = palloc0(sizeof(KdaScriptPart));
			part->start = tokens->t[0].start;
			part->len = tokens->t[last].start - part->start;
			part->is_kda = ours;
			part->is_windowed = !ours && has_window_clause(tokens, 0, last);
			parts = lappend(parts, part);
		}
		at = tokens->t[last].end;
		if (last >= tokens->n)
			break;
	}
	return parts;
}

/*---- a quick look */

/* Case-insensitive words without which a text has nothing of ours. */
static bool
word_at(const char *p, const char *word)
{
	for (; *word; p++, word++)
		if ((*p | 0x20) != *word)
			return false;
	return true;
}

bool
kda_text_is_suspicious(const char *source)
{
	for (const char *p = source; *p; p++)
	{
		switch (*p | 0x20)
		{
			case 's':
				if (word_at(p, "stream"))
					return true;
				break;
			case 'p':
				if (word_at(p, "pump"))
					return true;
				break;
			case 'c':
				if (word_at(p, "continuous"))
					return true;
				break;
			case 'w':
				if (word_at(p, "windowed"))
					return true;
				break;
			case 'r':
				if (word_at(p, "reference"))
					return true;
				break;
			case 'o':
				if (word_at(p, "output"))
					return true;
				break;
			default:
				break;
		}
	}
	return false;
}
