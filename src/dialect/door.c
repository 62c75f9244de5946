/*-------------------------------------------------------------------------
 *
 * door.c
 *	  The way in for bare KDA statements: a detour of core's raw_parser, made
 *	  once, in the postmaster, before any session exists.
 *
 * The first five bytes of raw_parser become a jump to a page of ours near by.
 * That page holds a jump to our function, and the instructions that the jump
 * has displaced, followed by a jump back behind them: calling that is calling
 * core's parser.  Only instructions that are known to be safe to move are
 * accepted (endbr64, push, mov between registers, lea relative to rip, whose
 * displacement is adjusted); anything else, another machine, or a kernel that
 * forbids it: the door stays shut with one line in the log, and kda.execute()
 * is the way in.
 *
 * No page is ever writable and executable at once.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <sys/mman.h>
#include <unistd.h>

#include "dialect/dialect.h"
#include "parser/parser.h"
#include "runtime/runtime.h"

#if defined(__x86_64__) && defined(__linux__)

#define JUMP_BYTES	5
#define PAGE_BYTES	4096
#define REACH		((intptr_t) 0x7f000000)

typedef List *(*RawParser) (const char *source, RawParseMode mode);

static RawParser past_detour = NULL;

static List *
call_core(const char *source, int mode)
{
	return past_detour(source, (RawParseMode) mode);
}

static List *
detour(const char *source, RawParseMode mode)
{
	if (mode != RAW_PARSE_DEFAULT || !kda_extend_grammar || !kda_text_is_suspicious(source))
		return past_detour(source, mode);
	return kda_raw_parse(source, mode);
}

/* Length of the instruction at p if it may be moved, else 0; *rip: where in it a displacement from rip is. */
static int
movable(const unsigned char *p, int *rip)
{
	*rip = 0;
	if (p[0] == 0xf3 && p[1] == 0x0f && p[2] == 0x1e && p[3] == 0xfa)
		return 4;				/* endbr64 */
	if (p[0] >= 0x50 && p[0] <= 0x57)
		return 1;				/* push r64 */
	if ((p[0] == 0x41) && p[1] >= 0x50 && p[1] <= 0x57)
		return 2;				/* push r8..r15 */
	if ((p[0] & 0xf8) == 0x48 && (p[1] == 0x89 || p[1] == 0x8b) && p[2] >= 0xc0)
		return 3;				/* mov r64, r64 */
	if ((p[0] == 0x89 || p[0] == 0x8b) && p[1] >= 0xc0)
		return 2;				/* mov r32, r32 */
	if (p[0] >= 0xb8 && p[0] <= 0xbf)
		return 5;				/* mov r32, imm32 */
	if ((p[0] & 0xf8) == 0x48 && p[1] == 0x8d && (p[2] & 0xc7) == 0x05)
	{
		*rip = 3;
		return 7;				/* lea r64, disp32(%rip) */
	}
	return 0;
}

static unsigned char *
page_near(unsigned char *target)
{
	intptr_t	base = (intptr_t) target & ~(intptr_t) 0xffff;

	for (intptr_t distance = 0x10000; distance < REACH; distance += 0x10000)
		for (int sign = -1; sign <= 1; sign += 2)
		{
			void	   *wish = (void *) (base + sign * distance);
			void	   *page;

			if (sign < 0 && base < distance)
				continue;
			page = mmap(wish, PAGE_BYTES, PROT_READ | PROT_WRITE,
						MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
			if (page == wish)
				return page;
			if (page != MAP_FAILED)
				munmap(page, PAGE_BYTES);
		}
	return NULL;
}

/* jmp *0(%rip), followed by the address: 14 bytes */
static unsigned char *
put_far_jump(unsigned char *p, const void *to)
{
	static const unsigned char code[6] = {0xff, 0x25, 0, 0, 0, 0};

	memcpy(p, code, sizeof(code));
	memcpy(p + sizeof(code), &to, sizeof(to));
	return p + sizeof(code) + sizeof(to);
}

static const char *
open_door(void)
{
	unsigned char *target = (unsigned char *) raw_parser;
	unsigned char *page;
	unsigned char *p;
	unsigned char *moved;
	int			n = 0;
	long		system_page = sysconf(_SC_PAGESIZE);
	unsigned char *first;
	Size		span;
	int32		distance;
	unsigned char jump[JUMP_BYTES];

	page = page_near(target);
	if (page == NULL)
		return "there is no free memory near the parser";
	p = put_far_jump(page, (void *) detour);
	p = moved = (unsigned char *) TYPEALIGN(16, (uintptr_t) p);
	while (n < JUMP_BYTES)
	{
		int			rip;
		int			len = movable(target + n, &rip);

		if (len == 0)
		{
			munmap(page, PAGE_BYTES);
			return "the parser begins with instructions that are not known";
		}
		memcpy(p, target + n, len);
		if (rip)
		{
			int32		disp;
			intptr_t	goal;

			memcpy(&disp, target + n + rip, sizeof(disp));
			goal = (intptr_t) (target + n + len) + disp - (intptr_t) (p + len);
			if (goal > INT32_MAX || goal < INT32_MIN)
			{
				munmap(page, PAGE_BYTES);
				return "an address that the parser uses is out of reach";
			}
			disp = (int32) goal;
			memcpy(p + rip, &disp, sizeof(disp));
		}
		n += len;
		p += len;
	}
	put_far_jump(p, target + n);
	if (mprotect(page, PAGE_BYTES, PROT_READ | PROT_EXEC) != 0)
	{
		munmap(page, PAGE_BYTES);
		return "the kernel does not allow new executable memory";
	}

	first = (unsigned char *) ((uintptr_t) target & ~(uintptr_t) (system_page - 1));
	span = (target + JUMP_BYTES - first + system_page - 1) & ~(Size) (system_page - 1);
	if (mprotect(first, span, PROT_READ | PROT_WRITE) != 0)
	{
		munmap(page, PAGE_BYTES);
		return "the kernel does not allow writing to the parser";
	}
	distance = (int32) ((intptr_t) page - (intptr_t) (target + JUMP_BYTES));
	jump[0] = 0xe9;
	memcpy(jump + 1, &distance, sizeof(distance));
	memcpy(target, jump, JUMP_BYTES);
	if (mprotect(first, span, PROT_READ | PROT_EXEC) != 0)
		ereport(FATAL,
				(errmsg("kda_stream could not make the parser executable again: %m")));
	past_detour = (RawParser) moved;
	kda_core_raw_parser = call_core;
	return NULL;
}
#else
static const char *
open_door(void)
{
	return "this machine is not x86-64 Linux";
}
#endif

void
kda_dialect_init(void)
{
	const char *why;

	if (!kda_extend_grammar)
		return;
	why = open_door();
	if (why)
		ereport(LOG,
				(errmsg("kda_stream does not extend the grammar: %s", why),
				 errhint("KDA statements can be run with SELECT kda.execute('...').")));
}
