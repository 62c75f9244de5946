/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Differences between PostgreSQL 15, 16, 17 and 18, written in the newest
 *	  API's shape: code elsewhere is written as for 18.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_COMPAT_H
#define KDA_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "kda_stream needs PostgreSQL 15 or later"
#endif

/* Symbols are hidden but for these; from 16 on core says so itself. */
#if PG_VERSION_NUM < 160000
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#include "fmgr.h"
#undef PG_FUNCTION_INFO_V1
#define PG_FUNCTION_INFO_V1(funcname) \
extern PGDLLEXPORT Datum funcname(PG_FUNCTION_ARGS); \
extern PGDLLEXPORT const Pg_finfo_record *CppConcat(pg_finfo_,funcname)(void); \
const Pg_finfo_record * \
CppConcat(pg_finfo_,funcname) (void) \
{ \
	static const Pg_finfo_record my_finfo = {1}; \
	return &my_finfo; \
} \
extern int no_such_variable
#endif

/* Headers that came to be by cutting older ones, which everyone has anyway. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

#if PG_VERSION_NUM < 180000
#define pg_noreturn	pg_attribute_noreturn()
#endif

/* Named wait events came with 17; before, all extensions share one. */
#include "utils/wait_event.h"
#if PG_VERSION_NUM < 170000
#define WaitEventExtensionNew(name)	((uint32) PG_WAIT_EXTENSION)
#endif

/* One slot into all indexes of a relation, without uniqueness deferral. */
#if PG_VERSION_NUM >= 160000
#define kda_insert_index_tuples(info, slot, estate) \
	ExecInsertIndexTuples((info), (slot), (estate), false, false, NULL, NIL, false)
#else
#define kda_insert_index_tuples(info, slot, estate) \
	ExecInsertIndexTuples((info), (slot), (estate), false, false, NULL, NIL)
#endif

/* 18 knows OLD and NEW of RETURNING. */
#if PG_VERSION_NUM >= 180000
#define kda_expand_rte(rte, rti, up, names, vars) \
	expandRTE((rte), (rti), (up), VAR_RETURNING_DEFAULT, -1, false, (names), (vars))
#else
#define kda_expand_rte(rte, rti, up, names, vars) \
	expandRTE((rte), (rti), (up), -1, false, (names), (vars))
#endif

/* 18 counts index searches for EXPLAIN. */
#if PG_VERSION_NUM >= 180000
#define kda_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), NULL, (nkeys), 0)
#else
#define kda_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), (nkeys), 0)
#endif

/* 17 ties a set to a resource owner. */
#if PG_VERSION_NUM >= 170000
#define kda_create_wait_event_set(context, n)	CreateWaitEventSet(NULL, (n))
#else
#define kda_create_wait_event_set(context, n)	CreateWaitEventSet((context), (n))
#endif

#if PG_VERSION_NUM >= 180000
#define kda_executor_run(desc)	ExecutorRun((desc), ForwardScanDirection, 0)
#else
#define kda_executor_run(desc)	ExecutorRun((desc), ForwardScanDirection, 0, true)
#endif

/* Has the raw INSERT a RETURNING clause? */
#if PG_VERSION_NUM >= 180000
#define kda_insert_returns(insert)	((insert)->returningClause != NULL)
#else
#define kda_insert_returns(insert)	((insert)->returningList != NIL)
#endif

/* CREATE INDEX on a table that the caller has checked and locked. */
#if PG_VERSION_NUM >= 160000
#define kda_define_index(relid, stmt) \
	DefineIndex((relid), (stmt), InvalidOid, InvalidOid, InvalidOid, -1, false, false, true, false, false)
#else
#define kda_define_index(relid, stmt) \
	DefineIndex((relid), (stmt), InvalidOid, InvalidOid, InvalidOid, false, false, true, false, false)
#endif

/* 17 and 18 take more arguments; written in 18's order. */
#if PG_VERSION_NUM >= 180000
#define kda_create_foreignscan_path(root, rel, target, rows, startup, total, keys, outer, fdw_outer, private) \
	create_foreignscan_path((root), (rel), (target), (rows), 0, (startup), (total), (keys), (outer), (fdw_outer), NIL, (private))
#elif PG_VERSION_NUM >= 170000
#define kda_create_foreignscan_path(root, rel, target, rows, startup, total, keys, outer, fdw_outer, private) \
	create_foreignscan_path((root), (rel), (target), (rows), (startup), (total), (keys), (outer), (fdw_outer), NIL, (private))
#else
#define kda_create_foreignscan_path(root, rel, target, rows, startup, total, keys, outer, fdw_outer, private) \
	create_foreignscan_path((root), (rel), (target), (rows), (startup), (total), (keys), (outer), (fdw_outer), (private))
#endif

/* Gives in *index whether the new tuple needs index entries. */
#if PG_VERSION_NUM >= 160000
#define kda_table_tuple_update(rel, tid, slot, snapshot, index) \
	do { \
		TU_UpdateIndexes which_; \
		simple_table_tuple_update((rel), (tid), (slot), (snapshot), &which_); \
		*(index) = which_ != TU_None; \
	} while (0)
#else
#define kda_table_tuple_update(rel, tid, slot, snapshot, index) \
	simple_table_tuple_update((rel), (tid), (slot), (snapshot), (index))
#endif

#if PG_VERSION_NUM >= 160000
#define kda_flatten_join_alias_vars(query, node)	flatten_join_alias_vars(NULL, (query), (node))
#else
#define kda_flatten_join_alias_vars(query, node)	flatten_join_alias_vars((query), (node))
#endif

/* Type name to type; soft errors came with 16. */
#include "parser/parse_type.h"
#if PG_VERSION_NUM >= 160000
#define kda_parse_type(text, type, typmod)	((void) parseTypeString((text), (type), (typmod), NULL))
#else
#define kda_parse_type(text, type, typmod)	parseTypeString((text), (type), (typmod), false)
#endif

/* Where a relation's file is: changes when it is rewritten or truncated. */
#if PG_VERSION_NUM >= 160000
#define kda_relation_file(rel)	((rel)->rd_locator.relNumber)
#else
#define kda_relation_file(rel)	((rel)->rd_node.relNode)
#endif

#include "access/stratnum.h"
#include "parser/parse_relation.h"
#include "utils/lsyscache.h"

/* 16 keeps the rights of a relation beside its entry; one that was made by hand asks for none. */
#if PG_VERSION_NUM >= 160000
#define kda_add_rights(query, rte)	((void) addRTEPermissionInfo(&(query)->rteperminfos, (rte)))
#else
#define kda_add_rights(query, rte)	((void) (query), (void) (rte))
#endif

/* The operator family and the type that an ordering operator belongs to, and whether it is "greater". */
static inline bool
kda_ordering_op(Oid op, Oid *family, Oid *type, bool *reverse)
{
#if PG_VERSION_NUM >= 180000
	CompareType strategy;
#else
	int16		strategy;
#endif
	bool		found = get_ordering_op_properties(op, family, type, &strategy);

#if PG_VERSION_NUM >= 180000
	*reverse = found && strategy == COMPARE_GT;
#else
	*reverse = found && strategy == BTGreaterStrategyNumber;
#endif
	return found;
}

#endif							/* KDA_COMPAT_H */
