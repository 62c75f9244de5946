/*-------------------------------------------------------------------------
 *
 * rows.h
 *	  What exists: the rows of kda_storage by number and by relation, and our
 *	  own SQL over them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_ROWS_H
#define KDA_ROWS_H

#include "kda_stream.h"
#include "catalog/dependency.h"
#include "nodes/parsenodes.h"

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
	Oid			batch2;			/* joins: of the right side */
	Oid			open2;
} KdaQueryIds;

typedef struct KdaOutputIds
{
	int32		id;				/* 0: it has not been written yet */
	Oid			source;			/* CREATE OUTPUT … FROM; InvalidOid: a stream that is written */
	Oid			pump;
	Oid			box,
				box2;
	bool		stranger;
} KdaOutputIds;

extern bool kda_output_ids(Oid relid, KdaOutputIds *ids);
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

/* One relation goes with another, or (DEPENDENCY_NORMAL) keeps it. */
extern void kda_depend(Oid self, Oid on, DependencyType type);
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

#endif							/* KDA_ROWS_H */
