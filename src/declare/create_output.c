/*-------------------------------------------------------------------------
 *
 * create_output.c
 *	  CREATE OUTPUT o FROM s SERVER x: what comes into stream s leaves to x, too.
 *
 * It is a foreign table of its name on that server, with the columns of s, and
 * a pump that nobody sees: INSERT INTO o SELECT * FROM s.  The pump belongs to
 * the table, and the table depends on s.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/relation.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/options.h"
#include "catalog/pg_class.h"
#include "catalog/rows.h"
#include "commands/comment.h"
#include "commands/defrem.h"
#include "declare/ddl.h"
#include "foreign/foreign.h"
#include "nodes/makefuncs.h"
#include "stream/outbox.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* The columns of s, and their names as a list of SQL. */
static List *
columns_of(Oid source, char **names)
{
	Relation	rel = relation_open(source, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	List	   *columns = NIL;
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		columns = lappend(columns, makeColumnDef(NameStr(att->attname), att->atttypid, att->atttypmod, att->attcollation));
		appendStringInfo(&s, "%s%s", s.len ? ", " : "", quote_identifier(NameStr(att->attname)));
	}
	relation_close(rel, NoLock);
	*names = s.data;
	return columns;
}

static const char *
option_value(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
		if (strcmp(lfirst_node(DefElem, lc)->defname, name) == 0)
			return defGetString(lfirst_node(DefElem, lc));
	return NULL;
}

/* The time of its rows is that of s, whatever its column is called. */
static List *
with_time_of(Oid source, List *options)
{
	KdaStreamOptions *from = kda_stream_options_get(source);

	if (option_value(options, "rowtime") == NULL && from->rowtime_attno > 0)
		options = lappend(options, makeDefElem("rowtime", (Node *) makeString(get_attname(source, from->rowtime_attno, false)), -1));
	if (option_value(options, "time_zone") == NULL && !from->time_zone_is_utc)
		options = lappend(options, makeDefElem("time_zone", (Node *) makeString(from->time_zone), -1));
	return options;
}

/* Is there one already?  OR REPLACE gives it the options of the statement. */
static bool
exists(KdaStmt *stmt, Oid source, KdaRunCore run)
{
	Oid			relid = RangeVarGetRelid(stmt->name, NoLock, true);
	KdaOutputIds ids;
	AlterTableStmt *alter;
	AlterTableCmd *cmd;
	List	   *changes;

	if (!OidIsValid(relid))
		return false;
	if (stmt->if_not_exists)
	{
		kda_notice_exists(stmt->name->relname);
		return true;
	}
	if (!stmt->or_replace)
		return false;			/* core's own error says it */
	if (!kda_output_ids(relid, &ids) || !OidIsValid(ids.source))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" exists and is not an output", stmt->name->relname)));
	if (!kda_is_relation_owner(relid))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_TABLE, stmt->name->relname);
	if (ids.source != source || strcmp(GetForeignServer(GetForeignTable(relid)->serverid)->servername, stmt->server) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("output \"%s\" sends stream \"%s\" to server \"%s\"", stmt->name->relname, get_rel_name(ids.source),
						GetForeignServer(GetForeignTable(relid)->serverid)->servername),
				 errhint("DROP it and CREATE it again.")));
	changes = kda_option_changes(GetForeignTable(relid)->options, with_time_of(source, stmt->options));
	if (changes == NIL)
		return true;
	cmd = makeNode(AlterTableCmd);
	cmd->subtype = AT_GenericOptions;
	cmd->def = (Node *) changes;
	alter = makeNode(AlterTableStmt);
	alter->relation = stmt->name;
	alter->cmds = list_make1(cmd);
	alter->objtype = OBJECT_FOREIGN_TABLE;
	run((Node *) alter, stmt->text);
	return true;
}

void
kda_create_output(KdaStmt *stmt, KdaRunCore run)
{
	Oid			source = RangeVarGetRelid(stmt->source, AccessShareLock, false);
	CreateForeignTableStmt *create = makeNode(CreateForeignTableStmt);
	KdaOutputIds ids;
	Oid			relid,
				pump;
	char	   *names;

	if (!kda_is_stream(source) || (kda_output_ids(source, &ids) && OidIsValid(ids.source)))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a stream", stmt->source->relname),
				 errhint("CREATE OUTPUT sends out a stream; of a continuous view, CREATE PUMP ... AS INSERT INTO a stream of the server.")));
	if (exists(stmt, source, run))
		return;
	create->base.relation = stmt->name;
	create->base.tableElts = columns_of(source, &names);
	create->base.oncommit = ONCOMMIT_NOOP;
	create->servername = stmt->server;
	create->options = with_time_of(source, stmt->options);
	run((Node *) create, stmt->text);
	relid = RangeVarGetRelid(stmt->name, NoLock, false);
	if (kda_stream_options_get(relid)->server_type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is this database", stmt->server),
				 errhint("A pump sends the rows of a stream to another one of the database.")));
	kda_outbox_check_writable(relid);
	pump = kda_create_output_pump(psprintf("CREATE PUMP " KDA_STORAGE_SCHEMA ".output_%d AS INSERT INTO %s (%s) SELECT %s FROM %s", kda_next_id(),
										   quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid)), names, names,
										   quote_qualified_identifier(get_namespace_name(get_rel_namespace(source)), get_rel_name(source))),
								  relid, option_value(stmt->options, "start"));
	kda_run_as_owner(psprintf("UPDATE kda_storage.output SET source = %u::pg_catalog.regclass, pump = %u::pg_catalog.regclass WHERE rel = %u::pg_catalog.regclass",
							  source, pump, relid));
	kda_depend(pump, relid, DEPENDENCY_INTERNAL);
	kda_depend(relid, source, DEPENDENCY_NORMAL);
	if (stmt->description)
		CreateComments(relid, RelationRelationId, 0, stmt->description);
	kda_catalog_changed();
}
