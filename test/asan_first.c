/*
 * LD_PRELOAD, linked with -z initfirst: lets the address sanitizer wake up at
 * its first malloc() while nobody holds a lock.  Otherwise that is in the
 * constructor of a library that libldap brings, inside newlocale(), and the
 * sanitizer's own start (a failing dlsym(), so a translated message) waits for
 * the locale lock for ever.
 */
#include <stdlib.h>

static void __attribute__((constructor))
wake(void)
{
	void	   *volatile p = malloc(1);

	free(p);
}
