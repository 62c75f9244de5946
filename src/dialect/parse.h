/*-------------------------------------------------------------------------
 *
 * parse.h
 *	  Reading one KDA statement.  Private to dialect/: statement.c reads the
 *	  statements, clause.c what stands in a query, parse.c is what both need.
 *
 * Core's grammar does most of it.  In a copy of the text what is ours is
 * overwritten by spaces or by a core word of no greater length (STREAM by
 * TABLE), so that every location in core's raw tree is a place in the source.
 * Clauses that core does not know are lifted out and read here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_PARSE_H
#define KDA_PARSE_H

#include "kda_stream.h"
#include "dialect/dialect.h"
#include "dialect/scan.h"

typedef struct KdaParser
{
	KdaTokens  *tokens;
	const char *source;			/* the statement's text */
	char	   *copy;			/* what core will parse, of the same length */
	char	   *insert;			/* of a pump: its INSERT with an empty SELECT, at the same places */
	int			at;				/* current token */
} KdaParser;

/* Character position, for errposition, of a byte offset. */
extern int	kda_parse_position(KdaParser *p, int offset);
/* Syntax error at the current token. */
pg_noreturn extern void kda_parse_unexpected(KdaParser *p, const char *hint);
/* feature_not_supported at the current token. */
pg_noreturn extern void kda_parse_not_yet(KdaParser *p, const char *what, const char *hint);

/*---- taking tokens; hint: of the error, or NULL */
extern char *kda_parse_name(KdaParser *p, const char *hint);
extern RangeVar *kda_parse_qualified_name(KdaParser *p);
extern char *kda_parse_string(KdaParser *p, const char *hint);
/* The list of names in parentheses at the current token; List of String. */
extern List *kda_parse_names(KdaParser *p);
/* IF NOT EXISTS, IF EXISTS: taken if they are there. */
extern bool kda_parse_if_not_exists(KdaParser *p);
extern bool kda_parse_if_exists(KdaParser *p);
/* OPTIONS (name 'value', …); the caller has taken OPTIONS. */
extern List *kda_parse_generic_options(KdaParser *p);
/* WITH (name = value, …); the caller has taken WITH. */
extern List *kda_parse_with_options(KdaParser *p);
/* Index of the token that closes the parenthesis at token open. */
extern int	kda_parse_closing(KdaParser *p, int open);

/*---- the copy */
extern void kda_parse_blank(KdaParser *p, int from, int to);
/* Overwrites tokens [from, to) by text, which must not be longer. */
extern void kda_parse_overwrite(KdaParser *p, int from, int to, const char *text);
/* KDA's type names: at token i where a type stands; in casts of tokens [from, to). */
extern void kda_parse_replace_type(KdaParser *p, int i);
extern void kda_parse_replace_casts(KdaParser *p, int from, int to);
/* What core makes of the copy: one statement. */
extern Node *kda_parse_core(KdaParser *p);
/* Raw expressions, separated by commas, of tokens [from, to). */
extern List *kda_parse_expressions(KdaParser *p, int from, int to);

/*---- clause.c */
/* SELECT [STREAM] … from the current token to the end of the statement. */
extern KdaQuerySpec *kda_parse_query(KdaParser *p, KdaStmt *stmt);
/* The clause WINDOWED BY … at token at, blanked in the copy; *after: the token behind it. */
extern KdaWindowClause *kda_parse_window(KdaParser *p, int at, int *after);
/* The kind's word; taken. */
extern KdaWindowKind kda_parse_window_kind(KdaParser *p);
/* The parenthesis behind it, which must not be empty: index of the token that closes it. */
extern int	kda_parse_window_arguments(KdaParser *p);
/* Is STREAM, after SELECT at token i, KDA's keyword? */
extern bool kda_parse_is_select_stream(KdaTokens *tokens, int i);

static inline bool
is(KdaParser *p, const char *word)
{
	return kda_token_is(p->tokens, p->at, word);
}

static inline bool
is_char(KdaParser *p, char c)
{
	return kda_token_is_char(p->tokens, p->at, c);
}

static inline bool
at_end(KdaParser *p)
{
	return p->tokens->t[p->at].kind == KDA_TOKEN_END;
}

static inline bool
take(KdaParser *p, const char *word)
{
	if (!is(p, word))
		return false;
	p->at++;
	return true;
}

static inline void
expect(KdaParser *p, const char *word, const char *hint)
{
	if (!take(p, word))
		kda_parse_unexpected(p, hint);
}

static inline void
expect_char(KdaParser *p, char c, const char *hint)
{
	if (!is_char(p, c))
		kda_parse_unexpected(p, hint);
	p->at++;
}

#endif							/* KDA_PARSE_H */
