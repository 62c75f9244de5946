/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  Reading the catalog tables of kda_storage by relation, and running SQL of
 *	  ours as the extension's owner.
 *
 * Called in sessions (DDL) and workers, in a transaction.  Reads with the
 * catalog's own access methods, so that it also works in hooks, where SPI may
 * not be started.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/rows.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_relation.h"
#include "runtime/runtime.h"
#include "catalog/pg_class.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

Oid
kda_storage_relation(const char *name)
{
	Oid			nsp = get_namespace_oid(KDA_STORAGE_SCHEMA, true);

	return OidIsValid(nsp) ? get_relname_relid(name, nsp) : InvalidOid;
}

bool
kda_extension_exists(void)
{
	return OidIsValid(get_extension_oid(KDA_FDW_NAME, true));
}

Oid
kda_extension_owner(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(KDA_FDW_NAME));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"kda_stream\" is not installed in this database"),
				 errhint("CREATE EXTENSION kda_stream;")));
	return owner;
}

int
kda_pin_search_path(void)
{
	int			nestlevel = NewGUCNestLevel();

	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	return nestlevel;
}

char *
kda_query_text(Query *query)
{
	int			nestlevel = kda_pin_search_path();
	char	   *text = pg_get_querydef(query, false);

	AtEOXact_GUC(true, nestlevel);
	return text;
}

void
kda_owner_begin(KdaOwnerScope *scope)
{
	GetUserIdAndSecContext(&scope->userid, &scope->sec_context);
	SetUserIdAndSecContext(kda_extension_owner(), scope->sec_context | SECURITY_LOCAL_USERID_CHANGE);
	scope->nestlevel = kda_pin_search_path();
	(void) set_config_option("client_min_messages", "warning", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
}

void
kda_owner_end(KdaOwnerScope *scope)
{
	SPI_finish();
	AtEOXact_GUC(true, scope->nestlevel);
	SetUserIdAndSecContext(scope->userid, scope->sec_context);
}

void
kda_run_as_owner(const char *sql)
{
	KdaOwnerScope scope;
	int			rc;

	kda_owner_begin(&scope);
	rc = SPI_execute(sql, false, 0);
	if (rc < 0)
		elog(ERROR, "internal statement failed with %s: %s", SPI_result_code_string(rc), sql);
	kda_owner_end(&scope);
}

bool
kda_owner_row(const char *sql, int n, char **columns)
{
	KdaOwnerScope scope;
	MemoryContext old = CurrentMemoryContext;
	bool		found;

	kda_owner_begin(&scope);
	if (SPI_execute(sql, false, 1) < 0)
		elog(ERROR, "internal statement failed: %s", sql);
	found = SPI_processed > 0;
	for (int i = 0; i < n; i++)
	{
		char	   *value = found ? SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1) : NULL;

		columns[i] = value ? MemoryContextStrdup(old, value) : NULL;
	}
	kda_owner_end(&scope);
	return found;
}

int32
kda_next_id(void)
{
	static const char *const kinds[] = {"inbox_%da", "ring_%da", "batch_%d", "outbox_%da"};

	for (;;)
	{
		char	   *text;
		int32		id;
		bool		taken = false;

		kda_owner_row("SELECT pg_catalog.nextval('kda_storage.id_seq')", 1, &text);
		id = pg_strtoint32(text);
		/* a dump of the schema alone brings relations, but not how far the numbers have come */
		for (int i = 0; i < lengthof(kinds); i++)
			taken |= OidIsValid(kda_storage_relation(psprintf(kinds[i], id)));
		if (!taken)
			return id;
	}
}

/*
 * Finds the row whose column attno (a regclass) is relid; copies its values.
 */
static bool
find_row(const char *table, AttrNumber attno, Oid relid, int ncols, Datum *values, bool *nulls)
{
	Oid			catalog = kda_storage_relation(table);
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	bool		found = false;

	if (!OidIsValid(catalog))
		return false;
	rel = table_open(catalog, AccessShareLock);
	ScanKeyInit(&key, attno, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);

		tuple = heap_copytuple(tuple);	/* values point into it */
		for (int i = 0; i < ncols; i++)
			values[i] = heap_getattr(tuple, i + 1, desc, &nulls[i]);
		found = true;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

static Oid
oid_or_invalid(Datum value, bool isnull)
{
	return isnull ? InvalidOid : DatumGetObjectId(value);
}

bool
kda_stream_ids(Oid relid, KdaStreamIds *ids)
{
	Datum		values[8];
	bool		nulls[8];

	memset(ids, 0, sizeof(*ids));
	if (!find_row("stream", 2, relid, 8, values, nulls))
		return false;
	ids->id = DatumGetInt32(values[0]);
	ids->inbox = oid_or_invalid(values[2], nulls[2]);
	ids->inbox2 = oid_or_invalid(values[3], nulls[3]);
	ids->ring = oid_or_invalid(values[4], nulls[4]);
	ids->ring2 = oid_or_invalid(values[5], nulls[5]);
	ids->stranger = strcmp(TextDatumGetCString(values[7]), kda_origin()) != 0;
	return true;
}

bool
kda_output_ids(Oid relid, KdaOutputIds *ids)
{
	Datum		values[8];
	bool		nulls[8];

	memset(ids, 0, sizeof(*ids));
	if (!find_row("output", 2, relid, 8, values, nulls))
		return false;
	ids->id = DatumGetInt32(values[0]);
	ids->source = oid_or_invalid(values[2], nulls[2]);
	ids->pump = oid_or_invalid(values[3], nulls[3]);
	ids->box = oid_or_invalid(values[4], nulls[4]);
	ids->box2 = oid_or_invalid(values[5], nulls[5]);
	ids->stranger = strcmp(TextDatumGetCString(values[7]), kda_origin()) != 0;
	return true;
}

/* Columns of kda_storage.query: see sql/. */
enum
{
	QUERY_ID = 1, QUERY_REL, QUERY_KIND, QUERY_DEFINITION, QUERY_STREAM, QUERY_SHAPE,
	QUERY_STATE, QUERY_WINDOW_SPEC, QUERY_PER_WINDOW, QUERY_EMIT, QUERY_START,
	QUERY_START_SNAPSHOT, QUERY_STOPPED, QUERY_RETENTION, QUERY_NKEYS, QUERY_BATCH, QUERY_FINAL, QUERY_OPEN,
	QUERY_CLOSED, QUERY_TARGET, QUERY_SHOWN, QUERY_NCOLS = QUERY_SHOWN,
	QUERY_STREAM2 = QUERY_SHOWN + 3, QUERY_BATCH2, QUERY_OPEN2
};

bool
kda_stream_has_query(Oid relid)
{
	Datum		values[1];
	bool		nulls[1];

	return find_row("query", QUERY_STREAM, relid, 1, values, nulls) ||
		find_row("query", QUERY_STREAM2, relid, 1, values, nulls);
}

List *
kda_query_parts(int32 query_id)
{
	KdaOwnerScope scope;
	MemoryContext old = CurrentMemoryContext;
	List	   *parts = NIL;

	kda_owner_begin(&scope);
	SPI_execute(psprintf("SELECT rel::oid FROM kda_storage.stream WHERE part_of = %d UNION ALL "
						 "SELECT rel::oid FROM kda_storage.query WHERE part_of = %d", query_id, query_id), true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Oid			oid = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		MemoryContext spi = MemoryContextSwitchTo(old);

		parts = lappend_oid(parts, oid);
		MemoryContextSwitchTo(spi);
	}
	kda_owner_end(&scope);
	return parts;
}

void
kda_depend(Oid self_oid, Oid on, DependencyType type)
{
	ObjectAddress self,
				parent;

	ObjectAddressSet(self, RelationRelationId, self_oid);
	ObjectAddressSet(parent, RelationRelationId, on);
	recordDependencyOn(&self, &parent, type);
}

bool
kda_owns(Oid userid, Oid relid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relid, userid);
#else
	return pg_class_ownercheck(relid, userid);
#endif
}

bool
kda_is_relation_owner(Oid relid)
{
	return kda_owns(GetUserId(), relid);
}

char *
kda_column_type_sql(Oid type, int32 typmod, Oid collation)
{
	char	   *name = format_type_extended(type, typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
	HeapTuple	tuple;
	Form_pg_collation form;

	if (!OidIsValid(collation) || collation == get_typcollation(type))
		return name;
	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for collation %u", collation);
	form = (Form_pg_collation) GETSTRUCT(tuple);
	name = psprintf("%s COLLATE %s", name,
					quote_qualified_identifier(get_namespace_name(form->collnamespace),
											   NameStr(form->collname)));
	ReleaseSysCache(tuple);
	return name;
}

bool
kda_query_ids(Oid relid, KdaQueryIds *ids)
{
	Datum		values[QUERY_OPEN2];
	bool		nulls[QUERY_OPEN2];

	memset(ids, 0, sizeof(*ids));
	if (!find_row("query", QUERY_REL, relid, QUERY_OPEN2, values, nulls))
		return false;
#define OIDCOL(c) oid_or_invalid(values[(c) - 1], nulls[(c) - 1])
	ids->id = DatumGetInt32(values[0]);
	ids->stream = OIDCOL(QUERY_STREAM);
	ids->batch = OIDCOL(QUERY_BATCH);
	ids->final = OIDCOL(QUERY_FINAL);
	ids->open = OIDCOL(QUERY_OPEN);
	ids->closed = OIDCOL(QUERY_CLOSED);
	ids->target = OIDCOL(QUERY_TARGET);
	ids->shown = OIDCOL(QUERY_SHOWN);
	ids->batch2 = OIDCOL(QUERY_BATCH2);
	ids->open2 = OIDCOL(QUERY_OPEN2);
	/* a view that hands its rows on has a target, too, but keeps them */
	ids->is_pump = OidIsValid(ids->target) && !OidIsValid(ids->closed);
	return true;
}

Oid
kda_view_of_closed(Oid relid)
{
	Datum		values[QUERY_NCOLS];
	bool		nulls[QUERY_NCOLS];

	if (!OidIsValid(relid) || !find_row("query", QUERY_CLOSED, relid, QUERY_NCOLS, values, nulls))
		return InvalidOid;
	return DatumGetObjectId(values[QUERY_REL - 1]);
}

void
kda_catalog_changed(void)
{
	Oid			rel = kda_storage_relation("query");

	if (OidIsValid(rel))
		CacheInvalidateRelcacheByRelid(rel);
	kda_notify_change();
}

void
kda_check_query_permissions(Query *query)
{
#if PG_VERSION_NUM >= 160000
	ExecCheckPermissions(query->rtable, query->rteperminfos, true);
#else
	ExecCheckRTPerms(query->rtable, true);
#endif
}

/* PostgreSQL 18 puts grouped expressions behind a range table entry of their own. */
Query *
kda_flatten_group_rte(Query *query)
{
#if PG_VERSION_NUM >= 180000
	if (query->hasGroupRTE)
	{
		query->targetList = (List *)
			flatten_group_exprs(NULL, query, (Node *) query->targetList);
		query->havingQual = flatten_group_exprs(NULL, query, query->havingQual);
		/* it is always the last entry */
		query->rtable = list_truncate(query->rtable, list_length(query->rtable) - 1);
		query->hasGroupRTE = false;
	}
#endif
	return query;
}
