/*-------------------------------------------------------------------------
 *
 * run.h
 *	  Being the owner of a query, and what an error means: shared by run.c and
 *	  emit.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_RUN_H
#define KDA_RUN_H

#include "query/query.h"

typedef struct KdaIdentity
{
	Oid			userid;
	int			sec_context;
	int			guc_level;
} KdaIdentity;

/*
 * Between the two, code of users may run: as owner, security restricted, with
 * the search_path that the query was declared under.
 */
extern void kda_become_owner(KdaQuery *query, KdaIdentity *save);
extern void kda_become_self(const KdaIdentity *save);

extern bool kda_error_is_transient(int sqlstate);

/* Binds what the query keeps to its table, if that was not done yet. */
extern void kda_query_prepare_state(KdaQuery *query);

/*
 * The rows of a per-batch part whose first column is the record's ctid, in the
 * order of the records: as they are, or in another tuplestore instead of this one.
 */
extern Tuplestorestate *kda_in_order_of_arrival(Tuplestorestate *rows, TupleDesc desc);

/* Marks the query as failed in memory; the worker stores it at the end of the transaction. */
extern void kda_query_fail(KdaQuery *query, const ErrorData *edata);

/*
 * kda_stream.query_timeout around a piece of work that may run code of users.
 * judge() belongs into the handler of its errors: when the time was up it
 * says so in edata's message, and a query that needs too long again and again
 * within one batch fails, since it would hold up all others for ever.
 */
extern void kda_query_timer_start(void);
extern void kda_query_timer_stop(void);
extern void kda_query_timer_judge(KdaQuery *query, ErrorData *edata);

#endif							/* KDA_RUN_H */
