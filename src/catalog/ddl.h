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
extern void kda_catalog_init(void);

/* utility_hook.c: runs one KDA statement that the dialect has parsed. */
extern void kda_execute_statement(KdaStmt *stmt, QueryCompletion *qc);

/* create_query.c */
extern void kda_create_query(KdaStmt *stmt);

/*---- view_index.c */

/* CREATE INDEX on a continuous view; false: it is on something else. */
extern bool kda_create_index(IndexStmt *stmt, const char *source);
/* DROP INDEX: drops those of continuous views; a statement with the others, or NULL. */
extern DropStmt *kda_drop_indexes(DropStmt *stmt);

/* alter.c */
typedef void (*KdaRunCore) (Node *stmt, const char *text);	/* runs a statement of core's */

extern void kda_alter_stream_state(KdaStmt *stmt);
extern void kda_alter_query(KdaStmt *stmt);
extern void kda_create_stream(KdaStmt *stmt, KdaRunCore run);
extern void kda_create_reference_table(KdaStmt *stmt, KdaRunCore run);
/*
 * ALTER STREAM … OPTIONS (SET …): of an option that still has its default, too.
 * Core would ask for ADD; that a default is not written down is our affair.
 */
extern void kda_set_may_add(Node *stmt);
/* create_query.c: are there queries on the stream that its option parallelism does not fit? */
extern void kda_check_parallelism(Oid stream);
/* Option start was set: a failed stream begins there when it is resumed. */
extern void kda_stream_start_changed(Oid relid);

/*---- rows.c: the catalog tables, by number and by relation */
typedef struct KdaStreamIds
{
	int32		id;				/* 0: no row yet */
	Oid			inbox,
				inbox2;
	Oid			ring,
				ring2;
	bool		stranger;		/* written in another system or database, and not adopted yet: see origin.c */
} KdaStreamIds;

typedef struct KdaQueryIds
{
	int32		id;				/* 0: not a continuous query */
	bool		is_pump;
	Oid			stream;
	Oid			batch;
	Oid			final;
	Oid			open;
	Oid			closed;
	Oid			target;
	Oid			shown;
} KdaQueryIds;

extern bool kda_stream_ids(Oid relid, KdaStreamIds *ids);
extern bool kda_query_ids(Oid relid, KdaQueryIds *ids);
/* Streams and pumps that were made for parts of a query; Oid. */
extern List *kda_query_parts(int32 query_id);
extern bool kda_stream_has_query(Oid relid);
/* The view whose closed rows are in that table; InvalidOid: none. */
extern Oid	kda_view_of_closed(Oid relid);
extern Oid	kda_storage_relation(const char *name);	/* InvalidOid if missing */
/* A number for a new stream or query. */
extern int32 kda_next_id(void);
extern Oid	kda_extension_owner(void);
extern bool kda_extension_exists(void);

/*
 * SQL of ours runs as the extension's owner, with search_path pg_catalog:
 * users have no rights on kda_storage.  Between begin and end SPI is connected.
 */
typedef struct KdaOwnerScope
{
	Oid			userid;
	int			sec_context;
	int			nestlevel;
} KdaOwnerScope;

/* search_path pg_catalog until AtEOXact_GUC(true, the result). */
extern int	kda_pin_search_path(void);
/* Text of a query that means the same under that search_path. */
extern char *kda_query_text(Query *query);
extern void kda_owner_begin(KdaOwnerScope *scope);
extern void kda_owner_end(KdaOwnerScope *scope);
extern void kda_run_as_owner(const char *sql);
/* The first n columns of the first row as text, palloc'd; false: there is none. */
extern bool kda_owner_row(const char *sql, int n, char **columns);
/* The catalog has changed: tells the database's workers at commit. */
extern void kda_catalog_changed(void);

extern bool kda_is_relation_owner(Oid relid);
extern bool kda_owns(Oid userid, Oid relid);
/* "type(mod) COLLATE x" for DDL of ours. */
extern char *kda_column_type_sql(Oid type, int32 typmod, Oid collation);

/*---- origin.c: which system and database a stream's row was written in */
extern char *kda_origin(void);
/*
 * Takes streams over that have come with a dump or copy; those of outside
 * servers are paused.  True if there are some whose rows have still to come.
 */
extern bool kda_adopt_strangers(void);

/* compat of permission checks and group RTEs, split.c's helpers */
extern void kda_check_query_permissions(Query *query);
extern Query *kda_flatten_group_rte(Query *query);

#endif							/* KDA_DDL_H */
