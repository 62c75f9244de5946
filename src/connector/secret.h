/*-------------------------------------------------------------------------
 *
 * secret.h
 *	  Memory for secrets, and text that grows in it.
 *
 * What lies here is left out of core dumps (MADV_DONTDUMP) and is zero again
 * once it is freed.  It is malloc's world, not palloc's: nothing here raises an
 * error, and any thread may call it.  Nothing of a server is needed, so tests
 * run this and sigv4.c outside of one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_SECRET_H
#define KDA_SECRET_H

#include "postgres.h"

/* NULL when memory has run out.  realloc(NULL) allocates, free(NULL) does nothing. */
extern void *kda_secret_alloc(size_t size);
extern void *kda_secret_calloc(size_t n, size_t size);
extern void *kda_secret_realloc(void *p, size_t size);
extern char *kda_secret_strdup(const char *s);
extern void kda_secret_free(void *p);

/*
 * For a thread that gets secrets from a library: its stack, where ciphers leave
 * pieces of what they decrypt, is left out of core dumps, too; the second one
 * zeroes what is not in use, before the thread ends.
 */
extern void kda_secret_stack(void);
extern void kda_secret_stack_wipe(void);

/*
 * After work with secrets on a stack that is dumped: zeroes what is below the
 * caller's frame.  Compilers keep nothing there on purpose, but vector registers
 * are saved there by the dynamic linker and by signals, as memcpy() left them.
 */
extern void kda_secret_clean_stack(void);

/*
 * Bytes that grow.  Zeroed memory is an empty one.  data has a '\0' after len
 * bytes, which do not include it; data is NULL while nothing was added.
 * After memory has run out, or limit would be exceeded, "failed" is set and
 * nothing is added any more: who builds a text looks once, at the end.
 */
typedef struct KdaText
{
	char	   *data;
	size_t		len;
	size_t		room;
	size_t		limit;			/* greatest len; 0: none */
	bool		failed;
	bool		plain;			/* holds no secrets: ordinary memory */
} KdaText;

extern void kda_text_add(KdaText *text, const void *bytes, size_t len);
extern void kda_text_adds(KdaText *text, const char *s);
extern void kda_text_addc(KdaText *text, char c);
extern void kda_text_addf(KdaText *text, const char *fmt,...) pg_attribute_printf(2, 3);

/* Empties it but keeps its memory, zeroed. */
extern void kda_text_reset(KdaText *text);
extern void kda_text_free(KdaText *text);

/* The text, "" if there is none. */
#define kda_text_str(t) ((t)->data ? (t)->data : "")

#endif							/* KDA_SECRET_H */
