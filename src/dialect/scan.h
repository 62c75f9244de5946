/*-------------------------------------------------------------------------
 *
 * scan.h
 *	  Tokens of a SQL text, as far as the dialect has to know them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_SCAN_H
#define KDA_SCAN_H

#include "kda_stream.h"

typedef enum KdaTokenKind
{
	KDA_TOKEN_WORD,				/* unquoted identifier or keyword */
	KDA_TOKEN_QUOTED,			/* "identifier" */
	KDA_TOKEN_STRING,			/* '…', E'…', $$…$$ and their like */
	KDA_TOKEN_NUMBER,
	KDA_TOKEN_OTHER,			/* one byte of punctuation, or :: */
	KDA_TOKEN_END
} KdaTokenKind;

typedef struct KdaToken
{
	KdaTokenKind kind;
	int			start;			/* byte offsets in the text */
	int			end;
	int			depth;			/* of parentheses and brackets before it */
} KdaToken;

typedef struct KdaTokens
{
	const char *text;
	KdaToken   *t;				/* the last one is KDA_TOKEN_END */
	int			n;				/* without it */
	List	   *comments;		/* of int pairs (start, end): // comments */
} KdaTokens;

/*
 * Tokens of text[start, end).  slashes: // begins a comment.  Never fails: an
 * unterminated string or comment reaches to the end (core's parser says so).
 */
extern KdaTokens *kda_scan(const char *text, int start, int end, bool slashes);

/* Is token i the word (lower case)? */
extern bool kda_token_is(const KdaTokens *tokens, int i, const char *word);
/* Is it that punctuation? */
extern bool kda_token_is_char(const KdaTokens *tokens, int i, char c);
/* Value of a WORD (folded), QUOTED or STRING token; palloc'd. */
extern char *kda_token_value(const KdaTokens *tokens, int i);

#endif							/* KDA_SCAN_H */
