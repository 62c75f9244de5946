/*-------------------------------------------------------------------------
 *
 * secret.c
 *	  Memory that core dumps leave out and that is zeroed when freed.
 *
 * Blocks of powers of two are cut from mapped chunks that stay; a larger block
 * is a mapping of its own.  Both begin with a header of 16 bytes.  One mutex
 * protects the lists, because libraries' threads may allocate, too.
 *
 *-------------------------------------------------------------------------
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE				/* pthread_getattr_np */
#endif

#include "connector/secret.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#define HEADER		16
#define MIN_SHIFT	5			/* smallest block: 32 bytes, header included */
#define MAX_SHIFT	16			/* greatest that is cut from a chunk: 64 kB */
#define CHUNK		((size_t) 512 * 1024)
#define PAGE		((size_t) 4096)
#define CLEANED		(32 * 1024) /* bytes of a stack that work with secrets may have used */

typedef struct Block
{
	size_t		size;			/* of the block, header included */
	size_t		used;			/* bytes that were asked for */
} Block;

typedef struct FreeBlock
{
	Block		header;
	struct FreeBlock *next;
} FreeBlock;

StaticAssertDecl(sizeof(Block) == HEADER, "header of a block of secret memory");

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static FreeBlock *lists[MAX_SHIFT + 1];
static char *chunk = NULL;		/* what has not been cut yet */
static size_t chunk_left = 0;

static void *
map(size_t size)
{
	void	   *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	(void) madvise(p, size, MADV_DONTDUMP);
	return p;
}

static int
shift_of(size_t size)
{
	int			shift = MIN_SHIFT;

	while (((size_t) 1 << shift) < size)
		shift++;
	return shift;
}

static Block *
block_of(void *p)
{
	return (Block *) ((char *) p - HEADER);
}

void *
kda_secret_alloc(size_t size)
{
	size_t		whole = size + HEADER;
	Block	   *block = NULL;

	if (size > SIZE_MAX / 4)
		return NULL;
	if (whole > (size_t) 1 << MAX_SHIFT)
	{
		whole = (whole + PAGE - 1) & ~(PAGE - 1);
		block = map(whole);
		if (block)
			block->size = whole;
	}
	else
	{
		int			shift = shift_of(whole);

		whole = (size_t) 1 << shift;
		pthread_mutex_lock(&mutex);
		if (lists[shift])
		{
			block = &lists[shift]->header;
			lists[shift] = lists[shift]->next;
			((FreeBlock *) block)->next = NULL;
		}
		else
		{
			if (chunk_left < whole)
			{
				char	   *fresh = map(CHUNK);

				/* the rest of the old chunk, less than a block of this size, is forgotten */
				if (fresh)
				{
					chunk = fresh;
					chunk_left = CHUNK;
				}
			}
			if (chunk_left >= whole)
			{
				block = (Block *) chunk;
				chunk += whole;
				chunk_left -= whole;
				block->size = whole;
			}
		}
		pthread_mutex_unlock(&mutex);
	}
	if (block == NULL)
		return NULL;
	block->used = size;
	return (char *) block + HEADER;
}

/* Memory that was never used, or freed, is zero already. */
void *
kda_secret_calloc(size_t n, size_t size)
{
	if (size != 0 && n > SIZE_MAX / size)
		return NULL;
	return kda_secret_alloc(n * size);
}

void
kda_secret_free(void *p)
{
	Block	   *block;

	if (p == NULL)
		return;
	block = block_of(p);
	if (block->size > (size_t) 1 << MAX_SHIFT)
	{
		munmap(block, block->size);
		return;
	}
	explicit_bzero(p, block->used);
	pthread_mutex_lock(&mutex);
	{
		int			shift = shift_of(block->size);

		((FreeBlock *) block)->next = lists[shift];
		lists[shift] = (FreeBlock *) block;
	}
	pthread_mutex_unlock(&mutex);
}

void *
kda_secret_realloc(void *p, size_t size)
{
	void	   *bigger;

	if (p == NULL)
		return kda_secret_alloc(size);
	if (size <= block_of(p)->size - HEADER)
	{
		/* what is cut off is zeroed, so that all that is unused is zero */
		if (size < block_of(p)->used)
			explicit_bzero((char *) p + size, block_of(p)->used - size);
		block_of(p)->used = size;
		return p;
	}
	bigger = kda_secret_alloc(size);
	if (bigger == NULL)
		return NULL;
	memcpy(bigger, p, block_of(p)->used);
	kda_secret_free(p);
	return bigger;
}

char *
kda_secret_strdup(const char *s)
{
	size_t		len = strlen(s) + 1;
	char	   *copy = kda_secret_alloc(len);

	if (copy)
		memcpy(copy, s, len);
	return copy;
}

/*---- stacks */

static bool
find_stack(char **low, size_t *size)
{
	pthread_attr_t attr;
	void	   *address;
	bool		found;

	if (pthread_getattr_np(pthread_self(), &attr) != 0)
		return false;
	found = pthread_attr_getstack(&attr, &address, size) == 0;
	pthread_attr_destroy(&attr);
	*low = (char *) (((uintptr_t) address + PAGE - 1) & ~(PAGE - 1));
	*size -= *low - (char *) address;
	return found;
}

void
kda_secret_stack(void)
{
	char	   *low;
	size_t		size;

	if (find_stack(&low, &size))
		(void) madvise(low, size, MADV_DONTDUMP);
}

void
kda_secret_stack_wipe(void)
{
	char	   *low;
	size_t		size;
	uintptr_t	here = ((uintptr_t) __builtin_frame_address(0) - PAGE) & ~(PAGE - 1);

	/* the kernel gives fresh pages when it is used again */
	if (find_stack(&low, &size) && here > (uintptr_t) low)
		(void) madvise(low, here - (uintptr_t) low, MADV_DONTNEED);
}

pg_noinline void
kda_secret_clean_stack(void)
{
	char		dead[CLEANED];

	explicit_bzero(dead, sizeof(dead));
}

/*---- text */

/* Makes room for more bytes and the final '\0'. */
static bool
reserve(KdaText *text, size_t more)
{
	size_t		need = text->len + more + 1;
	size_t		room = Max(text->room, 64);
	char	   *data;

	if (text->failed || (text->limit != 0 && (more > text->limit || text->len > text->limit - more)))
	{
		text->failed = true;
		return false;
	}
	if (need <= text->room)
		return true;
	while (room < need)
		room *= 2;
	data = text->plain ? realloc(text->data, room) : kda_secret_realloc(text->data, room);
	if (data == NULL)
	{
		text->failed = true;
		return false;
	}
	text->data = data;
	text->room = room;
	return true;
}

void
kda_text_add(KdaText *text, const void *bytes, size_t len)
{
	if (!reserve(text, len))
		return;
	if (len > 0)
		memcpy(text->data + text->len, bytes, len);
	text->len += len;
	text->data[text->len] = '\0';
}

void
kda_text_adds(KdaText *text, const char *s)
{
	kda_text_add(text, s, strlen(s));
}

void
kda_text_addc(KdaText *text, char c)
{
	kda_text_add(text, &c, 1);
}

void
kda_text_addf(KdaText *text, const char *fmt,...)
{
	va_list		args;
	int			len;

	va_start(args, fmt);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (len < 0)
		text->failed = true;
	if (len < 0 || !reserve(text, len))
		return;
	va_start(args, fmt);
	vsnprintf(text->data + text->len, len + 1, fmt, args);
	va_end(args);
	text->len += len;
}

void
kda_text_reset(KdaText *text)
{
	if (text->data)
	{
		if (!text->plain)
			explicit_bzero(text->data, text->len);
		text->data[0] = '\0';
	}
	text->len = 0;
	text->failed = false;
}

void
kda_text_free(KdaText *text)
{
	if (text->plain)
		free(text->data);
	else
		kda_secret_free(text->data);
	text->data = NULL;
	text->len = text->room = 0;
	text->failed = false;
}
