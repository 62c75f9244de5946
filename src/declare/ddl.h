/*-------------------------------------------------------------------------
 *
 * ddl.h
 *	  Making and dropping streams and continuous queries, in the session that
 *	  asks for it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_DDL_H
#define KDA_DDL_H

#include "kda_stream.h"
#include "dialect/dialect.h"
#include "tcop/utility.h"

/* Hooks: ProcessUtility, object access. */
extern void kda_declare_init(void);

/* utility_hook.c: runs one KDA statement that the dialect has parsed. */
extern void kda_execute_statement(KdaStmt *stmt, QueryCompletion *qc);

/* create_query.c */
extern void kda_create_query(KdaStmt *stmt);

/* The pump behind an output, by the text of its CREATE PUMP; it is in kda_storage. */
extern Oid	kda_create_output_pump(const char *text, Oid output, const char *start);

/*---- view_index.c */

/* CREATE INDEX on a continuous view; false: it is on something else. */
extern bool kda_create_index(IndexStmt *stmt, const char *source);
/* DROP INDEX: drops those of continuous views; a statement with the others, or NULL. */
extern DropStmt *kda_drop_indexes(DropStmt *stmt);

/* alter.c */
typedef void (*KdaRunCore) (Node *stmt, const char *text);	/* runs a statement of core's */

/* create_output.c */
extern void kda_create_output(KdaStmt *stmt, KdaRunCore run);

/* The object's options as ADD, SET and DROP that lead to those that are wanted. */
extern List *kda_option_changes(List *have, List *want);
extern void kda_alter_stream_state(KdaStmt *stmt);
extern void kda_alter_query(KdaStmt *stmt);
/* IF NOT EXISTS: it is there.  In core's words. */
extern void kda_notice_exists(const char *name);
extern void kda_create_stream(KdaStmt *stmt, KdaRunCore run);
extern void kda_create_reference_table(KdaStmt *stmt, KdaRunCore run);
/*
 * ALTER STREAM … OPTIONS (SET …): of an option that still has its default, too.
 * Core would ask for ADD; that a default is not written down is our affair.
 */
extern void kda_set_may_add(Node *stmt);
/* create_query.c: what queries of the stream need now that several processes may read it. */
extern void kda_parallelism_changed(Oid stream);
/* Option start was set: a failed stream begins there when it is resumed. */
extern void kda_stream_start_changed(Oid relid);

#endif							/* KDA_DDL_H */
