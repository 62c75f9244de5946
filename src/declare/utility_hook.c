/*-------------------------------------------------------------------------
 *
 * utility_hook.c
 *	  Where DDL passes: KDA statements are taken to who carries them out, and
 *	  ordinary statements that touch streams and continuous queries are
 *	  checked, redirected or followed up.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/rows.h"
#include "declare/ddl.h"
#include "declare/emission.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/options.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_rewrite.h"
#include "catalog/store_query.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "dialect/dialect.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "rewrite/rewriteHandler.h"
#include "runtime/runtime.h"
#include "storage/lmgr.h"
#include "stream/stream.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

static ProcessUtility_hook_type next_utility = NULL;
static object_access_hook_type next_access = NULL;

/*---- KDA statements */

/* A statement of core's that a KDA statement stands for. */
static void
run_core(Node *stmt, const char *text)
{
	PlannedStmt *planned = makeNode(PlannedStmt);

	planned->commandType = CMD_UTILITY;
	planned->canSetTag = false;
	planned->utilityStmt = stmt;
	planned->stmt_location = 0;
	planned->stmt_len = strlen(text);
	ProcessUtility(planned, text, false, PROCESS_UTILITY_QUERY, NULL, NULL, None_Receiver, NULL);
	CommandCounterIncrement();
}

/* STREAM names a stream, PUMP a pump, CONTINUOUS VIEW such a view; of what is not there core speaks. */
static void
check_kind(KdaObjectKind kind, RangeVar *name)
{
	static const char *const names[] = {"a stream", "a continuous view", "a pump", "an output"};
	Oid			relid = RangeVarGetRelid(name, NoLock, true);
	KdaQueryIds ids;
	KdaOutputIds output;
	bool		is_output;
	bool		fits;

	if (!OidIsValid(relid))
		return;
	is_output = kda_output_ids(relid, &output) && OidIsValid(output.source);
	if (kind == KDA_OBJECT_STREAM || kind == KDA_OBJECT_OUTPUT)
		fits = kda_is_stream(relid) && is_output == (kind == KDA_OBJECT_OUTPUT);
	else
		fits = kda_query_ids(relid, &ids) && ids.is_pump == (kind == KDA_OBJECT_PUMP);
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not %s", name->relname, names[kind])));
}

static void
check_drop(KdaStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, castNode(DropStmt, stmt->core)->objects)
		check_kind(stmt->object, makeRangeVarFromNameList(lfirst_node(List, lc)));
}

/* ALTER … IF EXISTS of what is not there. */
static bool
is_missing(KdaStmt *stmt)
{
	if (!stmt->if_exists || OidIsValid(RangeVarGetRelid(stmt->name, NoLock, true)))
		return false;
	ereport(NOTICE,
			(errmsg("relation \"%s\" does not exist, skipping", stmt->name->relname)));
	return true;
}

static CommandTag
tag_of(KdaStmt *stmt)
{
	switch (stmt->kind)
	{
		case KDA_STMT_CREATE_STREAM:
		case KDA_STMT_CREATE_OUTPUT:
			return CMDTAG_CREATE_FOREIGN_TABLE;
		case KDA_STMT_CREATE_REFERENCE_TABLE:
			return CMDTAG_CREATE_TABLE;
		case KDA_STMT_CREATE_VIEW:
		case KDA_STMT_CREATE_PUMP:
			return CMDTAG_CREATE_VIEW;
		case KDA_STMT_STREAM_STATE:
			return CMDTAG_ALTER_FOREIGN_TABLE;
		case KDA_STMT_QUERY_STATE:
		case KDA_STMT_QUERY_SET:
			return CMDTAG_ALTER_VIEW;
		case KDA_STMT_DROP:
			return stmt->object == KDA_OBJECT_STREAM || stmt->object == KDA_OBJECT_OUTPUT ? CMDTAG_DROP_FOREIGN_TABLE : CMDTAG_DROP_VIEW;
		case KDA_STMT_UTILITY:
			return CreateCommandTag(stmt->core);
		default:
			return CMDTAG_UNKNOWN;
	}
}

/*
 * log_statement = 'ddl' means our statements too; to core they are DO, which is
 * logged with 'all'.
 */
static void
log_ddl(const char *text, ProcessUtilityContext context)
{
	if (context == PROCESS_UTILITY_TOPLEVEL && (log_statement == LOGSTMT_DDL || log_statement == LOGSTMT_MOD))
		ereport(LOG,
				(errmsg("statement: %s", text),
				 errhidestmt(true),
				 errhidecontext(true)));
}

void
kda_execute_statement(KdaStmt *stmt, QueryCompletion *qc)
{
	const char *text = stmt->text;
	const char *what = GetCommandTagName(tag_of(stmt));

	PreventCommandIfReadOnly(what);
	PreventCommandDuringRecovery(what);
	kda_extension_owner();		/* says so if there is no extension */
	switch (stmt->kind)
	{
		case KDA_STMT_CREATE_STREAM:
			kda_create_stream(stmt, run_core);
			break;
		case KDA_STMT_CREATE_OUTPUT:
			kda_create_output(stmt, run_core);
			break;
		case KDA_STMT_CREATE_REFERENCE_TABLE:
			kda_create_reference_table(stmt, run_core);
			break;
		case KDA_STMT_CREATE_VIEW:
		case KDA_STMT_CREATE_PUMP:
			kda_create_query(stmt);
			break;
		case KDA_STMT_STREAM_STATE:
			if (!is_missing(stmt))
				kda_alter_stream_state(stmt);
			break;
		case KDA_STMT_QUERY_STATE:
		case KDA_STMT_QUERY_SET:
			if (!is_missing(stmt))
				kda_alter_query(stmt);
			break;
		case KDA_STMT_DROP:
			check_drop(stmt);
			run_core(stmt->core, text);
			break;
		case KDA_STMT_UTILITY:
			check_kind(stmt->object, stmt->name);
			if (stmt->object == KDA_OBJECT_STREAM || stmt->object == KDA_OBJECT_OUTPUT)
				kda_set_may_add(stmt->core);
			run_core(stmt->core, text);
			break;
		default:
			elog(ERROR, "unexpected statement %d", (int) stmt->kind);
	}
	if (qc)
		SetQueryCompletion(qc, tag_of(stmt), 0);
}

/*---- ordinary statements */

static bool
is_storage(const RangeTblEntry *rte, const KdaQueryIds *ids)
{
	return OidIsValid(rte->relid) && (rte->relid == ids->final || rte->relid == ids->closed || rte->relid == ids->shown);
}

/*
 * Does the view select from its storage?  In the middle of a restore it does
 * not yet: pg_dump makes an empty view first and replaces it later.
 */
static bool
shows_storage(Oid relid, const KdaQueryIds *ids)
{
	Relation	rel = table_open(relid, AccessShareLock);
	bool		found = false;
	ListCell   *lc;

	foreach(lc, get_view_query(rel)->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_SUBQUERY)
		{
			ListCell   *ls;

			foreach(ls, rte->subquery->rtable)
				found |= is_storage(lfirst_node(RangeTblEntry, ls), ids);
		}
		found |= is_storage(rte, ids);
	}
	table_close(rel, NoLock);
	return found;
}

/* SELECT NULL::type AS column, …: what pg_dump --clean puts in a view's place before it drops it. */
static bool
is_dummy(Node *query)
{
	SelectStmt *select = (SelectStmt *) query;
	ListCell   *lc;

	if (!IsA(query, SelectStmt) || select->op != SETOP_NONE || select->fromClause || select->valuesLists)
		return false;
	foreach(lc, select->targetList)
	{
		Node	   *value = lfirst_node(ResTarget, lc)->val;

		while (value && (IsA(value, TypeCast) || IsA(value, CollateClause)))
			value = IsA(value, TypeCast) ? ((TypeCast *) value)->arg : ((CollateClause *) value)->arg;
		if (value == NULL || !IsA(value, A_Const) || !((A_Const *) value)->isnull)
			return false;
	}
	return true;
}

static bool
names_storage(const RangeVar *name)
{
	return name && name->schemaname && strcmp(name->schemaname, KDA_STORAGE_SCHEMA) == 0;
}

/*
 * pg_dump --clean --if-exists drops the parts of a query or stream one by one,
 * before or after what they are parts of; core refuses the former.  They are
 * cut off first.  No process may tie them again meanwhile (origin.c).
 */
static void
cut_off_parts(DropStmt *stmt)
{
	ListCell   *lc;

	if (!stmt->missing_ok ||
		(stmt->removeType != OBJECT_VIEW && stmt->removeType != OBJECT_TABLE && stmt->removeType != OBJECT_FOREIGN_TABLE &&
		 stmt->removeType != OBJECT_RULE))
		return;
	foreach(lc, stmt->objects)
	{
		List	   *names = lfirst_node(List, lc);
		bool		is_rule = stmt->removeType == OBJECT_RULE;
		RangeVar   *name;
		Oid			catalog,
					relid,
					part;

		/* a rule's name stands after its view's */
		if (is_rule && (list_length(names) < 2 || strcmp(strVal(llast(names)), KDA_INSERT_RULE) != 0))
			continue;
		name = makeRangeVarFromNameList(is_rule ? list_truncate(list_copy(names), list_length(names) - 1) : names);
		if ((!is_rule && !names_storage(name)) || !OidIsValid(catalog = kda_storage_relation("stream")))
			continue;
		relid = RangeVarGetRelid(name, NoLock, true);
		if (!OidIsValid(relid) || !kda_is_relation_owner(relid))
			continue;			/* core says why not */
		part = is_rule ? kda_stored_insert_rule(relid, true) : relid;
		LockRelationOid(catalog, ShareRowExclusiveLock);
		if (OidIsValid(part) &&
			deleteDependencyRecordsForClass(is_rule ? RewriteRelationId : RelationRelationId, part,
											RelationRelationId, DEPENDENCY_INTERNAL) > 0)
			CommandCounterIncrement();
	}
}

static void
refuse_replacing_view(ViewStmt *stmt)
{
	Oid			relid = stmt->replace ? RangeVarGetRelid(stmt->view, NoLock, true) : InvalidOid;
	KdaQueryIds ids;

	if (OidIsValid(relid) && get_rel_relkind(relid) == RELKIND_VIEW && kda_query_ids(relid, &ids) &&
		shows_storage(relid, &ids) && !is_dummy(stmt->query))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is a %s", stmt->view->relname, ids.is_pump ? "pump" : "continuous view"),
				 errhint("DROP it first.")));
}

/* Before a statement on a database's files: no worker may be in it. */
static bool
park_for(Node *stmt)
{
	char	   *name = NULL;
	Oid			database;

	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) stmt)->dbname;
			break;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) stmt)->subname;
			break;
		case T_AlterDatabaseStmt:
			{
				ListCell   *lc;

				foreach(lc, ((AlterDatabaseStmt *) stmt)->options)
					if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
						name = ((AlterDatabaseStmt *) stmt)->dbname;
				break;
			}
		case T_CreatedbStmt:
			{
				ListCell   *lc;

				name = "template1";
				foreach(lc, ((CreatedbStmt *) stmt)->options)
					if (strcmp(lfirst_node(DefElem, lc)->defname, "template") == 0 &&
						lfirst_node(DefElem, lc)->arg)
						name = defGetString(lfirst_node(DefElem, lc));
				break;
			}
		default:
			return false;
	}
	database = name ? get_database_oid(name, true) : InvalidOid;
	if (!OidIsValid(database))
		return false;
	kda_park_database(database);
	return true;
}

/* ALTER VIEW … OWNER TO: what belongs to the query follows. */
static void
owner_follows(Oid relid)
{
	KdaQueryIds ids;
	Oid			parts[9];
	Oid			owner;
	Relation	rel;
	KdaOwnerScope scope;
	ListCell   *lc;

	if (!kda_query_ids(relid, &ids))
		return;
	rel = table_open(relid, AccessShareLock);
	owner = rel->rd_rel->relowner;
	table_close(rel, NoLock);
	parts[0] = ids.batch;
	parts[1] = ids.final;
	parts[2] = ids.open;
	parts[3] = ids.closed;
	parts[4] = ids.shown;
	parts[5] = kda_storage_relation(psprintf("merged_%d", ids.id));
	parts[6] = kda_storage_relation(psprintf("empty_%d", ids.id));
	parts[7] = ids.batch2;
	parts[8] = ids.open2;
	kda_owner_begin(&scope);
	for (int i = 0; i < lengthof(parts); i++)
		if (OidIsValid(parts[i]))
			ATExecChangeOwner(parts[i], owner, true, AccessExclusiveLock);
	kda_owner_end(&scope);
	/* what it was taken apart into */
	foreach(lc, kda_query_parts(ids.id))
	{
		kda_owner_begin(&scope);
		ATExecChangeOwner(lfirst_oid(lc), owner, false, AccessExclusiveLock);
		kda_owner_end(&scope);
		CommandCounterIncrement();
		owner_follows(lfirst_oid(lc));
	}
	kda_catalog_changed();
}

/* ALTER OUTPUT … OWNER TO: its pump runs as its owner. */
static void
pump_follows(Oid relid)
{
	KdaOutputIds ids;
	KdaOwnerScope scope;
	Relation	rel;
	Oid			owner;

	if (!kda_output_ids(relid, &ids) || !OidIsValid(ids.pump))
		return;
	rel = table_open(relid, AccessShareLock);
	owner = rel->rd_rel->relowner;
	table_close(rel, NoLock);
	kda_owner_begin(&scope);
	ATExecChangeOwner(ids.pump, owner, false, AccessExclusiveLock);
	kda_owner_end(&scope);
	CommandCounterIncrement();
	owner_follows(ids.pump);
}

static bool
sets_start(AlterTableCmd *cmd)
{
	ListCell   *lc;

	if (cmd->subtype != AT_GenericOptions)
		return false;
	foreach(lc, (List *) cmd->def)
		if (strcmp(lfirst_node(DefElem, lc)->defname, "start") == 0)
			return true;
	return false;
}

/* Option allowed_lateness of a stream. */
static int64
lateness_of(const RangeVar *name)
{
	Oid			relid = RangeVarGetRelid(name, NoLock, true);

	return OidIsValid(relid) && kda_is_stream(relid) ? kda_stream_options_get(relid)->allowed_lateness_us : 0;
}

/* The columns of an output are those of its stream when it was made, by their places. */
static void
refuse_other_columns(Oid relid, AlterTableCmd *cmd)
{
	KdaOutputIds ids;

	if ((cmd->subtype == AT_AddColumn || cmd->subtype == AT_DropColumn || cmd->subtype == AT_AlterColumnType) &&
		kda_output_ids(relid, &ids) && OidIsValid(ids.source))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("columns of output \"%s\" cannot be changed", get_rel_name(relid)),
				 errdetail("They are those that stream \"%s\" had when the output was made.", get_rel_name(ids.source)),
				 errhint("DROP the output and CREATE it again.")));
}

static void
after_alter_table(AlterTableStmt *stmt, int64 former_lateness)
{
	Oid			relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	ListCell   *lc;

	if (!OidIsValid(relid))
		return;
	if (get_rel_relkind(relid) == RELKIND_VIEW)
	{
		foreach(lc, stmt->cmds)
			if (lfirst_node(AlterTableCmd, lc)->subtype == AT_ChangeOwner)
				owner_follows(relid);
	}
	else if (kda_is_stream(relid))
	{
		foreach(lc, stmt->cmds)
			refuse_other_columns(relid, lfirst_node(AlterTableCmd, lc));
		CommandCounterIncrement();
		kda_check_stream(relid);
		kda_stream_sync_storage(relid);
		kda_parallelism_changed(relid);
		kda_emission_check_stream(relid, former_lateness);
		foreach(lc, stmt->cmds)
			if (sets_start(lfirst_node(AlterTableCmd, lc)))
				kda_stream_start_changed(relid);
		foreach(lc, stmt->cmds)
			if (lfirst_node(AlterTableCmd, lc)->subtype == AT_ChangeOwner)
				pump_follows(relid);
		kda_catalog_changed();
	}
}

/*
 * What follows from a stream's name by default must not change with it: the
 * topic stays.  A renamed column is another JSON key, as the contract says.
 */
static void
after_rename(RenameStmt *stmt)
{
	bool		column = stmt->renameType == OBJECT_COLUMN;
	RangeVar   *name;
	Oid			relid;
	KdaStreamOptions *options;
	AlterTableStmt *alter;
	AlterTableCmd *cmd;
	ListCell   *lc;

	if (stmt->relation == NULL)
		return;
	name = copyObject(stmt->relation);
	if (!column)
		name->relname = stmt->newname;
	relid = RangeVarGetRelid(name, NoLock, true);
	if (!OidIsValid(relid))
		return;
	kda_catalog_changed();
	if (!kda_is_stream(relid))
		return;
	CommandCounterIncrement();
	options = kda_stream_options_get(relid);
	if (options->server_type == NULL)
		return;
	if (column)
	{
		AttrNumber	attno = get_attnum(relid, stmt->newname);

		if (attno > 0 && options->columns[attno - 1].path == NULL &&
			options->columns[attno - 1].meta == KDA_META_NONE && options->format == KDA_FORMAT_JSON)
			ereport(NOTICE,
					(errmsg("column \"%s\" is read from the key of its new name", stmt->newname),
					 errhint("ALTER STREAM %s ALTER COLUMN %s OPTIONS (ADD path '$.%s') keeps reading the former one.",
							 quote_identifier(name->relname), quote_identifier(stmt->newname), stmt->subname)));
		return;
	}
	foreach(lc, GetForeignTable(relid)->options)
		if (strcmp(lfirst_node(DefElem, lc)->defname, "topic") == 0 ||
			strcmp(lfirst_node(DefElem, lc)->defname, "stream") == 0)
			return;
	cmd = makeNode(AlterTableCmd);
	cmd->subtype = AT_GenericOptions;
	cmd->def = (Node *) list_make1(makeDefElemExtended(NULL, "topic", (Node *) makeString(stmt->relation->relname),
													   DEFELEM_ADD, -1));
	alter = makeNode(AlterTableStmt);
	alter->relation = name;
	alter->cmds = list_make1(cmd);
	alter->objtype = OBJECT_FOREIGN_TABLE;
	run_core((Node *) alter, "ALTER STREAM ... RENAME");
}

/* What can only be checked when it is there. */
static void
follow_up(Node *stmt, int64 former_lateness)
{
	switch (nodeTag(stmt))
	{
			/* a restore: the rows of its streams have come, or the rows that wait in them have */
		case T_CopyStmt:
			if (((CopyStmt *) stmt)->is_from && names_storage(((CopyStmt *) stmt)->relation) &&
				strcmp(((CopyStmt *) stmt)->relation->relname, "stream") == 0)
				kda_catalog_changed();
			break;
		case T_IndexStmt:
			if (names_storage(((IndexStmt *) stmt)->relation))
				kda_catalog_changed();
			break;
		case T_CreateForeignTableStmt:
			{
				Oid			relid = RangeVarGetRelid(((CreateForeignTableStmt *) stmt)->base.relation, NoLock, true);

				if (OidIsValid(relid) && kda_is_stream(relid))
					kda_check_stream(relid);
				break;
			}
		case T_AlterTableStmt:
			after_alter_table((AlterTableStmt *) stmt, former_lateness);
			break;
		case T_CreateForeignServerStmt:
			{
				Oid			server = get_foreign_server_oid(((CreateForeignServerStmt *) stmt)->servername, true);

				CommandCounterIncrement();
				if (OidIsValid(server) && kda_is_our_server(server))
					kda_check_server(server);
				break;
			}
		case T_AlterForeignServerStmt:
			{
				Oid			server = get_foreign_server_oid(((AlterForeignServerStmt *) stmt)->servername, true);

				CommandCounterIncrement();
				if (OidIsValid(server) && kda_is_our_server(server))
				{
					kda_check_server(server);
					kda_catalog_changed();
				}
				break;
			}
		case T_CreateUserMappingStmt:
			{
				CreateUserMappingStmt *create = (CreateUserMappingStmt *) stmt;
				Oid			server = get_foreign_server_oid(create->servername, true);

				if (OidIsValid(server) && kda_is_our_server(server))
				{
					CommandCounterIncrement();
					kda_check_user_mapping(server, create->user, create->options);
					kda_catalog_changed();
				}
				break;
			}
		case T_AlterUserMappingStmt:
			{
				AlterUserMappingStmt *alter = (AlterUserMappingStmt *) stmt;
				Oid			server = get_foreign_server_oid(alter->servername, true);

				if (OidIsValid(server) && kda_is_our_server(server))
				{
					CommandCounterIncrement();
					kda_check_user_mapping(server, alter->user, alter->options);
					kda_catalog_changed();
				}
				break;
			}
		case T_ReassignOwnedStmt:
			kda_catalog_changed();	/* queries run as their owner */
			break;
		case T_RenameStmt:
			after_rename((RenameStmt *) stmt);
			break;
		case T_AlterObjectSchemaStmt:
			kda_catalog_changed();	/* names in messages */
			break;
		case T_DropUserMappingStmt:
			{
				Oid			server = get_foreign_server_oid(((DropUserMappingStmt *) stmt)->servername, true);

				if (OidIsValid(server) && kda_is_our_server(server))
					kda_catalog_changed();
				break;
			}
		case T_TransactionStmt:
			/* it may have inserted into streams */
			if (((TransactionStmt *) stmt)->kind == TRANS_STMT_COMMIT_PREPARED)
				kda_slots_wake(MyDatabaseId);
			break;
		default:
			break;
	}
}

/*
 * Options of one column that are part of a CREATE: core carries them out one
 * column after the other, and only all of them together make sense.
 */
static bool
is_part_of_create(Node *stmt, ProcessUtilityContext context)
{
	ListCell   *lc;

	if (context != PROCESS_UTILITY_SUBCOMMAND || !IsA(stmt, AlterTableStmt))
		return false;
	foreach(lc, ((AlterTableStmt *) stmt)->cmds)
		if (lfirst_node(AlterTableCmd, lc)->subtype != AT_AlterColumnGenericOptions)
			return false;
	return true;
}

static bool
is_of_interest(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_IndexStmt:
		case T_DropStmt:
		case T_ReassignOwnedStmt:
		case T_RenameStmt:
		case T_AlterObjectSchemaStmt:
		case T_ViewStmt:
		case T_CreateForeignTableStmt:
		case T_AlterTableStmt:
		case T_CreateForeignServerStmt:
		case T_AlterForeignServerStmt:
		case T_CreateUserMappingStmt:
		case T_AlterUserMappingStmt:
		case T_DropUserMappingStmt:
		case T_TransactionStmt:
			return true;
		default:
			return false;
	}
}

static void
call_next(PlannedStmt *pstmt, const char *source, bool read_only_tree, ProcessUtilityContext context,
		  ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	if (next_utility)
		next_utility(pstmt, source, read_only_tree, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, source, read_only_tree, context, params, env, dest, qc);
}

/* A statement on a database: no worker is in it until it has ended, also by an error. */
static void
call_parked(PlannedStmt *pstmt, const char *source, bool read_only_tree, ProcessUtilityContext context,
			ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	bool		parked = park_for(pstmt->utilityStmt);

	PG_TRY();
	{
		call_next(pstmt, source, read_only_tree, context, params, env, dest, qc);
	}
	PG_FINALLY();
	{
		if (parked)
			kda_unpark_databases();
	}
	PG_END_TRY();
}

static void
utility(PlannedStmt *pstmt, const char *source, bool read_only_tree, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *stmt = pstmt->utilityStmt;
	char	   *text;
	int			start;
	int64		former_lateness = 0;

	if (IsA(stmt, DoStmt) && kda_is_marked(stmt, &text, &start))
	{
		KdaPlace	place;

		kda_place_begin(&place, source, start);
		log_ddl(text, context);
		kda_execute_statement(kda_parse_statement(text), qc);
		kda_place_end(&place);
		return;
	}
	if (IsA(stmt, DropdbStmt) || IsA(stmt, CreatedbStmt) || IsA(stmt, AlterDatabaseStmt) ||
		(IsA(stmt, RenameStmt) && ((RenameStmt *) stmt)->renameType == OBJECT_DATABASE))
	{
		call_parked(pstmt, source, read_only_tree, context, params, env, dest, qc);
		return;
	}
	if (!is_of_interest(stmt) || is_part_of_create(stmt, context) || (!IsA(stmt, TransactionStmt) && !kda_extension_exists()))
	{
		call_next(pstmt, source, read_only_tree, context, params, env, dest, qc);
		return;
	}

	if (IsA(stmt, ViewStmt))
		refuse_replacing_view((ViewStmt *) stmt);
	else if (IsA(stmt, IndexStmt) && kda_create_index((IndexStmt *) stmt, source))
		return;
	else if (IsA(stmt, DropStmt) && ((DropStmt *) stmt)->removeType == OBJECT_INDEX)
	{
		DropStmt   *others = kda_drop_indexes((DropStmt *) stmt);

		if (others == NULL)
			return;
		pstmt = copyObject(pstmt);
		pstmt->utilityStmt = stmt = (Node *) others;
	}
	else if (IsA(stmt, DropStmt))
		cut_off_parts((DropStmt *) stmt);
	if (IsA(stmt, AlterTableStmt))
		former_lateness = lateness_of(((AlterTableStmt *) stmt)->relation);
	/* core may scribble on the tree: what is looked at afterwards is a copy */
	if (!IsA(stmt, TransactionStmt))
		stmt = copyObject(stmt);
	call_next(pstmt, source, read_only_tree, context, params, env, dest, qc);
	follow_up(stmt, former_lateness);
}

/*---- what is dropped */

static void
delete_rows(const char *table, AttrNumber attno, Oid eqproc, Datum key)
{
	Oid			relid = kda_storage_relation(table);
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData scankey;
	HeapTuple	tuple;

	if (!OidIsValid(relid))
		return;
	rel = table_open(relid, RowExclusiveLock);
	ScanKeyInit(&scankey, attno, BTEqualStrategyNumber, eqproc, key);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &scankey);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		simple_table_tuple_delete(rel, &tuple->t_self, GetActiveSnapshot());
	systable_endscan(scan);
	table_close(rel, NoLock);
}

/* The rows of a stream or query go with it. */
static void
forget_relation(Oid relid)
{
	char		kind = get_rel_relkind(relid);
	KdaStreamIds stream;
	KdaQueryIds query;
	KdaOutputIds output;
	bool		pushed = false;

	if (kind != RELKIND_FOREIGN_TABLE && kind != RELKIND_VIEW)
		return;
	if (!OidIsValid(kda_storage_relation("query")))
		return;
	if (!ActiveSnapshotSet())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}
	if (kind == RELKIND_FOREIGN_TABLE && kda_output_ids(relid, &output))
	{
		delete_rows("refused", 2, F_INT4EQ, Int32GetDatum(output.id));
		delete_rows("seal", 1, F_INT4EQ, Int32GetDatum(output.id));
		delete_rows("output_progress", 1, F_INT4EQ, Int32GetDatum(output.id));
		delete_rows("output", 1, F_INT4EQ, Int32GetDatum(output.id));
		kda_catalog_changed();
	}
	if (kind == RELKIND_FOREIGN_TABLE && kda_stream_ids(relid, &stream))
	{
		delete_rows("shard", 1, F_INT4EQ, Int32GetDatum(stream.id));
		delete_rows("slot", 1, F_INT4EQ, Int32GetDatum(stream.id));
		delete_rows("advance", 1, F_INT4EQ, Int32GetDatum(stream.id));
		delete_rows("stream_progress", 1, F_INT4EQ, Int32GetDatum(stream.id));
		delete_rows("stream", 1, F_INT4EQ, Int32GetDatum(stream.id));
		kda_catalog_changed();
	}
	else if (kind == RELKIND_VIEW && kda_query_ids(relid, &query))
	{
		delete_rows("query_share", 1, F_INT4EQ, Int32GetDatum(query.id));
		delete_rows("sort_mark", 1, F_INT4EQ, Int32GetDatum(query.id));
		delete_rows("query_progress", 1, F_INT4EQ, Int32GetDatum(query.id));
		delete_rows("query", 1, F_INT4EQ, Int32GetDatum(query.id));
		kda_catalog_changed();
	}
	if (pushed)
		PopActiveSnapshot();
}

static void
object_access(ObjectAccessType access, Oid classid, Oid objectid, int subid, void *arg)
{
	if (next_access)
		next_access(access, classid, objectid, subid, arg);
	if (access != OAT_DROP || subid != 0)
		return;
	if (classid == RelationRelationId)
		forget_relation(objectid);
	else if (classid == ExtensionRelationId)
		kda_notify_change();	/* if it is ours, the workers go */
}

void
kda_declare_init(void)
{
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
	next_access = object_access_hook;
	object_access_hook = object_access;
}
