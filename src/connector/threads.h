/*-------------------------------------------------------------------------
 *
 * threads.h
 *	  Threads of connectors: whatever waits for the network and has no
 *	  asynchronous interface of its own.
 *
 * A thread never calls PostgreSQL: no palloc, no ereport, no elog.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_THREADS_H
#define KDA_THREADS_H

#include "postgres.h"

#include <pthread.h>

/*
 * Starts a detached thread with all signals blocked, which the threads that it
 * starts inherit.  False: the system has none left.
 */
extern bool kda_thread_start(void *(*body) (void *arg), void *arg);

/* A thread calls this when it uses nothing of a library's any more. */
extern void kda_thread_ends(void);

/* A condition whose timed waits go by the monotonic clock. */
extern void kda_condition_init(pthread_cond_t *condition);

/*
 * Waits until *flag, for which the condition is signalled under the mutex, at
 * most deadline_ms; the mutex is held.  Gives *flag.
 */
extern bool kda_condition_await(pthread_cond_t *condition, pthread_mutex_t *mutex, const bool *flag, int deadline_ms);

/* Monotonic time in ms. */
extern int64 kda_monotonic_ms(void);

/* A byte into a non-blocking pipe that somebody waits for; fd < 0: nobody does. */
extern void kda_thread_wake(int fd);

#endif							/* KDA_THREADS_H */
