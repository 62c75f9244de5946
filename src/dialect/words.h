/*-------------------------------------------------------------------------
 *
 * words.h
 *	  Replacing column references and calls in raw expressions, in place.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_WORDS_H
#define KDA_WORDS_H

#include "kda_stream.h"
#include "nodes/parsenodes.h"

typedef struct KdaWords
{
	/* NULL: the reference stays; in_aggregate: it is an argument of an aggregate */
	Node	   *(*replace) (ColumnRef *ref, bool in_aggregate, void *arg);
	/* the same for calls, before their arguments are looked into; may be NULL */
	Node	   *(*replace_call) (FuncCall *call, bool in_aggregate, void *arg);
	bool		(*is_aggregate) (FuncCall *call);
	void	   *arg;
	bool		in_aggregate;	/* where replacing is now */
} KdaWords;

/*
 * The expression, or list of them, with its references replaced.  Subqueries
 * have names of their own: only their test expressions are looked into.
 */
extern Node *kda_words_replace(Node *node, KdaWords *words);

/* Conditions of joins and arguments of functions in a FROM item. */
extern void kda_words_replace_in_joins(Node *from, KdaWords *words);

/* Is it an aggregate, as far as the syntax or the catalog tells?  In a transaction that is not aborted. */
extern bool kda_raw_is_aggregate(FuncCall *call);
/* Is there a function of that name on the search path?  Yes, where the catalog cannot be asked. */
extern bool kda_raw_is_function(const char *name);

#endif							/* KDA_WORDS_H */
