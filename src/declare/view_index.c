/*-------------------------------------------------------------------------
 *
 * view_index.c
 *	  CREATE INDEX and DROP INDEX on a continuous view: on the table that holds
 *	  the rows of its closed windows.
 *
 * That table is the view's owner's, in a schema on which he has no rights.  So
 * names are resolved here; everything else runs with his own rights, since an
 * index holds expressions of his.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/rows.h"
#include "declare/ddl.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_tablespace.h"
#include "commands/comment.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_utilcmd.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* As core would name it, after the view. */
static char *
choose_name(IndexStmt *stmt)
{
	StringInfoData name;
	ListCell   *lc;

	initStringInfo(&name);
	appendStringInfoString(&name, stmt->relation->relname);
	foreach(lc, stmt->indexParams)
	{
		IndexElem  *elem = lfirst_node(IndexElem, lc);

		appendStringInfo(&name, "_%s", elem->name ? elem->name : "expr");
	}
	return ChooseRelationName(name.data, NULL, "idx", get_namespace_oid(KDA_STORAGE_SCHEMA, false), false);
}

static void
check_tablespace(const char *name)
{
	Oid			oid = name ? get_tablespace_oid(name, false) : GetDefaultTablespace(RELPERSISTENCE_PERMANENT, false);

	if (!OidIsValid(oid) || oid == MyDatabaseTableSpace)
		return;
#if PG_VERSION_NUM >= 160000
	if (object_aclcheck(TableSpaceRelationId, oid, GetUserId(), ACL_CREATE) != ACLCHECK_OK)
#else
	if (pg_tablespace_aclcheck(oid, GetUserId(), ACL_CREATE) != ACLCHECK_OK)
#endif
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLESPACE, get_tablespace_name(oid));
}

bool
kda_create_index(IndexStmt *stmt, const char *source)
{
	Oid			relid = stmt->relation ? RangeVarGetRelid(stmt->relation, NoLock, true) : InvalidOid;
	KdaQueryIds ids;
	Oid			existing;

	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_VIEW || !kda_query_ids(relid, &ids))
		return false;
	if (!kda_is_relation_owner(relid))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, stmt->relation->relname);
	if (!OidIsValid(ids.closed))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot create an index on \"%s\"", stmt->relation->relname),
				 errdetail("It keeps no closed windows or rows."),
				 errhint("Indexes are for continuous views with a window, or without aggregates.")));
	if (stmt->concurrent || stmt->unique || stmt->primary)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an index on continuous view \"%s\" can be neither %s", stmt->relation->relname,
						"CONCURRENTLY built nor UNIQUE")));
	LockRelationOid(ids.closed, ShareLock);
	stmt = copyObject(stmt);
	if (stmt->idxname == NULL)
		stmt->idxname = choose_name(stmt);
	existing = kda_storage_relation(stmt->idxname);
	if (OidIsValid(existing) && stmt->if_not_exists)
	{
		kda_notice_exists(stmt->idxname);
		return true;
	}
	check_tablespace(stmt->tableSpace);
	stmt->relation = makeRangeVar(KDA_STORAGE_SCHEMA, get_rel_name(ids.closed), -1);
	stmt = transformIndexStmt(ids.closed, stmt, source);
	(void) kda_define_index(ids.closed, stmt);
	return true;
}

/* The index of that name on a view that the name's schema, or the search path, shows. */
static Oid
find_index(List *name)
{
	char	   *schema;
	char	   *relname;
	Oid			index,
				view;
	KdaQueryIds ids;

	DeconstructQualifiedName(name, &schema, &relname);
	index = kda_storage_relation(relname);
	if (!OidIsValid(index) || get_rel_relkind(index) != RELKIND_INDEX)
		return InvalidOid;
	view = kda_view_of_closed(IndexGetRelation(index, true));
	if (!OidIsValid(view) || !kda_query_ids(view, &ids))
		return InvalidOid;
	if (schema ? get_namespace_oid(schema, true) != get_rel_namespace(view) : !RelationIsVisible(view))
		return InvalidOid;
	return index;
}

DropStmt *
kda_drop_indexes(DropStmt *stmt)
{
	List	   *others = NIL;
	ObjectAddresses *ours = new_object_addresses();
	int			n = 0;
	ListCell   *lc;

	foreach(lc, stmt->objects)
	{
		List	   *name = lfirst_node(List, lc);
		Oid			index = InvalidOid;
		ObjectAddress address;

		if (!OidIsValid(RangeVarGetRelid(makeRangeVarFromNameList(name), NoLock, true)))
			index = find_index(name);
		if (!OidIsValid(index))
		{
			others = lappend(others, name);
			continue;
		}
		if (!kda_is_relation_owner(index))
			aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_INDEX, get_rel_name(index));
		LockRelationOid(IndexGetRelation(index, false), AccessExclusiveLock);
		LockRelationOid(index, AccessExclusiveLock);
		ObjectAddressSet(address, RelationRelationId, index);
		add_exact_object_address(&address, ours);
		n++;
	}
	if (n > 0)
		performMultipleDeletions(ours, stmt->behavior, 0);
	free_object_addresses(ours);
	if (others == NIL)
		return NULL;
	if (n == 0)
		return stmt;
	stmt = copyObject(stmt);
	stmt->objects = others;
	return stmt;
}
