/*-------------------------------------------------------------------------
 *
 * server.h
 *	  What of PostgreSQL the parsers need, in the simplest form, and random
 *	  numbers: for the programs of this folder, each of which includes it once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FUZZ_SERVER_H
#define FUZZ_SERVER_H

#include "kda_stream.h"

#include <setjmp.h>

#include "format/value.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

MemoryContext CurrentMemoryContext = NULL;
MemoryContext TopMemoryContext = NULL;
static jmp_buf on_error;
static void *held[65536];
static int	nheld = 0;

/* Everything is freed after each record but what a plan is made of. */
static bool keeping = true;

static void *
allocate(Size size)
{
	void	   *p = malloc(size ? size : 1);

	if (!keeping)
		held[nheld++] = p;
	return p;
}

void *
MemoryContextAlloc(MemoryContext context, Size size)
{
	return allocate(size);
}

/* What a plan remembers of the records that it has read. */
void *
MemoryContextAllocZero(MemoryContext context, Size size)
{
	return memset(malloc(size), 0, size);
}

void *
MemoryContextAllocHuge(MemoryContext context, Size size)
{
	return allocate(size);
}

char *
MemoryContextStrdup(MemoryContext context, const char *s)
{
	return strcpy(allocate(strlen(s) + 1), s);
}

void *
palloc(Size size)
{
	return allocate(size);
}

void
pfree(void *p)
{
	for (int i = 0; i < nheld; i++)
		if (held[i] == p)
			held[i] = held[--nheld];
	free(p);
}

void *
repalloc(void *p, Size size)
{
	void	   *q = realloc(p, size);

	for (int i = 0; i < nheld; i++)
		if (held[i] == p)
			held[i] = q;
	return q;
}

void *
repalloc_huge(void *p, Size size)
{
	return repalloc(p, size);
}

MemoryContext
AllocSetContextCreateInternal(MemoryContext parent, const char *name, Size min, Size init, Size max)
{
	return NULL;
}

void
MemoryContextDelete(MemoryContext context)
{
}

void
check_stack_depth(void)
{
}

bool
stack_is_too_deep(void)
{
	return false;
}

bool
errstart(int elevel, const char *domain)
{
	return true;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return true;
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	longjmp(on_error, 1);
}

int
errcode(int sqlerrcode)
{
	return 0;
}

int
errmsg(const char *fmt,...)
{
	return 0;
}

int
errhint(const char *fmt,...)
{
	return 0;
}

#if PG_VERSION_NUM >= 160000
void
ExceptionalCondition(const char *conditionName, const char *fileName, int lineNumber)
#else
void
ExceptionalCondition(const char *conditionName, const char *errorType, const char *fileName, int lineNumber)
#endif
{
	fprintf(stderr, "%s\n", conditionName);
	abort();
}

bool
kda_decode_error(KdaDecodeError *error, const char *name, const char *fmt,...)
{
	va_list		args;

	error->name = name;
	va_start(args, fmt);
	vsnprintf(error->message, sizeof(error->message), fmt, args);
	va_end(args);
	return false;
}

/*---- chance */

static uint64 state;

static uint32
some(uint32 n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32) (state >> 16) % n;
}

#endif							/* FUZZ_SERVER_H */
