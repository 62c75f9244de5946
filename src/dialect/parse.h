/*-------------------------------------------------------------------------
 *
 * parse.h
 *	  Reading one KDA statement.  Private to dialect/: statement.c reads the
 *	  statements, clause.c and spellings.c what stands in a query, parse.c is what
 *	  all need.
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
/* Raw expressions, separated by commas, of tokens [from, to); at least one. */
extern List *kda_parse_expressions(KdaParser *p, int from, int to);

/*---- clause.c */
/* SELECT [STREAM] … from the current token to the end of the statement. */
extern KdaQuerySpec *kda_parse_query(KdaParser *p, KdaStmt *stmt);
/* The clauses WINDOWED BY … of tokens [from, to), blanked in the copy. */
extern void kda_parse_windows(KdaParser *p, KdaQuerySpec *spec, int from, int to);
/* Is STREAM, after SELECT at token i, KDA's keyword? */
extern bool kda_parse_is_select_stream(KdaTokens *tokens, int i);

/*---- spellings.c */
/* Is there a spelling of ours in it that core's grammar has no use for? */
extern bool kda_parse_is_spelled(const KdaTokens *tokens);
/* Reads and replaces, in the copy, what is ours in tokens [from, to), but for WINDOWED BY and EMIT. */
extern void kda_parse_spellings(KdaParser *p, KdaQuerySpec *spec, int from, int to);
/* INTERVAL '10' MINUTES and its like in tokens [from, to). */
extern void kda_parse_replace_intervals(KdaParser *p, int from, int to);
/* The SELECT around token at, of a set operation one side: its tokens, or its place. */
extern void kda_parse_select_tokens(const KdaTokens *tokens, int at, int *first, int *last);
extern void kda_parse_select_span(const KdaTokens *tokens, int at, int *start, int *end);
/* The first token at or behind a byte offset. */
extern int	kda_parse_token_at(const KdaTokens *tokens, int offset);

/* The word that makes a call at token i ours: BY of STEP, TO of FLOOR; 0: it is not. */
extern int	kda_parse_call_word(const KdaTokens *tokens, int i);

/*---- flink_table.c */
/* CREATE TABLE … WITH ('…' = …)? */
extern bool kda_is_flink_table(const KdaTokens *tokens);
/* Says it in our words, as an error. */
pg_noreturn extern void kda_refuse_flink_table(KdaParser *p);

/*---- settle.c */
/*
 * Goes through what core has made of the copy: STEP and its like become
 * functions of ours, windows that are GROUP BY items go into spec->windows,
 * those that slide along rows into spec->row_windows.  all: GROUP BY TUMBLE (…)
 * is one even where a function is called so.
 */
extern void kda_parse_settle(KdaParser *p, KdaQuerySpec *spec, Node *query, bool all);

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
