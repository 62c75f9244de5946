/*-------------------------------------------------------------------------
 *
 * threads.c
 *	  Threads of connectors, and the end of a process that has some.
 *
 *-------------------------------------------------------------------------
 */
#include "connector/threads.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifndef FRONTEND
#include "storage/ipc.h"
#endif

/* Threads of this process that may be inside of a library; counted with __atomic operations. */
static int	running = 0;

/*---- the end of the process */

#ifndef FRONTEND

static int	exit_code;

static void
leave(void)
{
	_exit(exit_code);
}

/*
 * The library's threads may still be running, in a call that hangs say, while
 * exit() would tear down what they use (OpenSSL's tables): leave without that.
 * Registered here and now, leave() is the first of exit()'s handlers, and
 * PostgreSQL's own callbacks have all run by then.
 */
static void
before_exit(int code, Datum arg)
{
	exit_code = code;
	if (__atomic_load_n(&running, __ATOMIC_SEQ_CST) > 0)
		atexit(leave);
}

static void
prepare_exit(void)
{
	static bool prepared = false;

	if (!prepared)
		on_proc_exit(before_exit, (Datum) 0);
	prepared = true;
}

#else
#define prepare_exit()	((void) 0)
#endif

/*---- threads */

bool
kda_thread_start(void *(*body) (void *arg), void *arg)
{
	pthread_attr_t detached;
	pthread_t	thread;
	sigset_t	all,
				before;
	bool		failed;

	prepare_exit();
	/* signals are this process's main thread's */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	__atomic_fetch_add(&running, 1, __ATOMIC_SEQ_CST);
	failed = pthread_create(&thread, &detached, body, arg) != 0;
	if (failed)
		kda_thread_ends();
	pthread_attr_destroy(&detached);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return !failed;
}

void
kda_thread_ends(void)
{
	__atomic_fetch_sub(&running, 1, __ATOMIC_SEQ_CST);
}

void
kda_condition_init(pthread_cond_t *condition)
{
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(condition, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

bool
kda_condition_await(pthread_cond_t *condition, pthread_mutex_t *mutex, const bool *flag, int deadline_ms)
{
	int64		end_ms = kda_monotonic_ms() + deadline_ms;
	struct timespec until = {end_ms / 1000, (end_ms % 1000) * 1000000L};

	while (deadline_ms > 0 && !*flag)
		if (pthread_cond_timedwait(condition, mutex, &until) != 0)
			break;
	return *flag;
}

int64
kda_monotonic_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void
kda_thread_wake(int fd)
{
	char		byte = 0;

	if (fd >= 0 && write(fd, &byte, 1) < 0)
		return;					/* the pipe is full: it will wake */
}
