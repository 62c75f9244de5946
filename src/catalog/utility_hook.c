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
#include "catalog/ddl.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/options.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "dialect/dialect.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "rewrite/rewriteHandler.h"
#include "runtime/runtime.h"
#include "stream/stream.h"
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

typedef struct CoreContext
{
	const char *source;
	int			start;
	int			len;
} CoreContext;

/* A statement of core's that a KDA statement stands for. */
static void
run_core(Node *stmt, void *arg)
{
	CoreContext *cxt = arg;
	PlannedStmt *planned = makeNode(PlannedStmt);

	planned->commandType = CMD_UTILITY;
	planned->canSetTag = false;
	planned->utilityStmt = stmt;
	planned->stmt_location = cxt->start;
	planned->stmt_len = cxt->len;
	ProcessUtility(planned, cxt->source, false, PROCESS_UTILITY_QUERY, NULL, NULL, None_Receiver, NULL);
	CommandCounterIncrement();
}

/* DROP STREAM of a stream, DROP PUMP of a pump, DROP CONTINUOUS VIEW of a view. */
static void
check_drop(KdaStmt *stmt)
{
	static const char *const names[] = {"stream", "continuous view", "pump", "output"};
	DropStmt   *core = castNode(DropStmt, stmt->core);
	ListCell   *lc;

	foreach(lc, core->objects)
	{
		RangeVar   *name = makeRangeVarFromNameList(lfirst_node(List, lc));
		Oid			relid = RangeVarGetRelid(name, NoLock, true);
		KdaQueryIds ids;
		bool		fits;

		if (!OidIsValid(relid))
			continue;			/* core's own message */
		if (stmt->object == KDA_OBJECT_STREAM)
			fits = kda_is_stream(relid);
		else
			fits = kda_query_ids(relid, &ids) && ids.is_pump == (stmt->object == KDA_OBJECT_PUMP);
		if (!fits)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" is not a %s", name->relname, names[stmt->object])));
	}
}

static CommandTag
tag_of(KdaStmt *stmt)
{
	switch (stmt->kind)
	{
		case KDA_STMT_CREATE_STREAM:
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
			return stmt->object == KDA_OBJECT_STREAM ? CMDTAG_DROP_FOREIGN_TABLE : CMDTAG_DROP_VIEW;
		case KDA_STMT_UTILITY:
			return CreateCommandTag(stmt->core);
		default:
			return CMDTAG_UNKNOWN;
	}
}

void
kda_execute_statement(KdaStmt *stmt, const char *source_text, ProcessUtilityContext context,
					  QueryCompletion *qc)
{
	CoreContext cxt = {source_text, stmt->start, stmt->len};
	const char *what = GetCommandTagName(tag_of(stmt));

	PreventCommandIfReadOnly(what);
	PreventCommandDuringRecovery(what);
	kda_extension_owner();		/* says so if there is no extension */
	switch (stmt->kind)
	{
		case KDA_STMT_CREATE_STREAM:
			kda_create_stream(stmt, run_core, &cxt);
			break;
		case KDA_STMT_CREATE_REFERENCE_TABLE:
			kda_create_reference_table(stmt, run_core, &cxt);
			break;
		case KDA_STMT_CREATE_VIEW:
		case KDA_STMT_CREATE_PUMP:
			kda_create_query(stmt, source_text);
			break;
		case KDA_STMT_STREAM_STATE:
			kda_alter_stream_state(stmt);
			break;
		case KDA_STMT_QUERY_STATE:
		case KDA_STMT_QUERY_SET:
			kda_alter_query(stmt);
			break;
		case KDA_STMT_DROP:
			check_drop(stmt);
			run_core(stmt->core, &cxt);
			break;
		case KDA_STMT_UTILITY:
			if (stmt->object == KDA_OBJECT_STREAM)
				kda_set_may_add(stmt->core);
			run_core(stmt->core, &cxt);
			break;
		default:
			elog(ERROR, "unexpected statement %d", (int) stmt->kind);
	}
	if (qc)
		SetQueryCompletion(qc, tag_of(stmt), 0);
}

/*---- ordinary statements */

/* CREATE INDEX ON view: on the rows of its closed windows. */
static IndexStmt *
redirect_index(IndexStmt *stmt)
{
	Oid			relid = stmt->relation ? RangeVarGetRelid(stmt->relation, NoLock, true) : InvalidOid;
	KdaQueryIds ids;

	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_VIEW || !kda_query_ids(relid, &ids))
		return NULL;
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
	stmt = copyObject(stmt);
	if (stmt->idxname == NULL)
	{
		/* as core would name it after the view */
		StringInfoData name;
		ListCell   *lc;

		initStringInfo(&name);
		appendStringInfoString(&name, stmt->relation->relname);
		foreach(lc, stmt->indexParams)
		{
			IndexElem  *elem = lfirst_node(IndexElem, lc);

			appendStringInfo(&name, "_%s", elem->name ? elem->name : "expr");
		}
		stmt->idxname = ChooseRelationName(name.data, NULL, "idx", get_namespace_oid(KDA_STORAGE_SCHEMA, false), false);
	}
	stmt->relation = makeRangeVar(KDA_STORAGE_SCHEMA, get_rel_name(ids.closed), -1);
	return stmt;
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
				found |= OidIsValid(lfirst_node(RangeTblEntry, ls)->relid) &&
					(lfirst_node(RangeTblEntry, ls)->relid == ids->final ||
					 lfirst_node(RangeTblEntry, ls)->relid == ids->closed);
		}
		found |= OidIsValid(rte->relid) && (rte->relid == ids->final || rte->relid == ids->closed);
	}
	table_close(rel, NoLock);
	return found;
}

static void
refuse_replacing_view(ViewStmt *stmt)
{
	Oid			relid = stmt->replace ? RangeVarGetRelid(stmt->view, NoLock, true) : InvalidOid;
	KdaQueryIds ids;

	if (OidIsValid(relid) && get_rel_relkind(relid) == RELKIND_VIEW && kda_query_ids(relid, &ids) &&
		shows_storage(relid, &ids))
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
	Oid			parts[4];
	Oid			owner;
	Relation	rel;
	KdaOwnerScope scope;

	if (!kda_query_ids(relid, &ids))
		return;
	rel = table_open(relid, AccessShareLock);
	owner = rel->rd_rel->relowner;
	table_close(rel, NoLock);
	parts[0] = ids.batch;
	parts[1] = ids.final;
	parts[2] = ids.open;
	parts[3] = ids.closed;
	kda_owner_begin(&scope);
	for (int i = 0; i < lengthof(parts); i++)
		if (OidIsValid(parts[i]))
			ATExecChangeOwner(parts[i], owner, true, AccessExclusiveLock);
	kda_owner_end(&scope);
	kda_catalog_changed();
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

static void
after_alter_table(AlterTableStmt *stmt)
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
		CommandCounterIncrement();
		kda_check_stream(relid);
		kda_stream_sync_storage(relid);
		foreach(lc, stmt->cmds)
			if (sets_start(lfirst_node(AlterTableCmd, lc)))
				kda_stream_start_changed(relid);
	}
}

/* What can only be checked when it is there. */
static void
follow_up(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_CreateForeignTableStmt:
			{
				Oid			relid = RangeVarGetRelid(((CreateForeignTableStmt *) stmt)->base.relation, NoLock, true);

				if (OidIsValid(relid) && kda_is_stream(relid))
					kda_check_stream(relid);
				break;
			}
		case T_AlterTableStmt:
			after_alter_table((AlterTableStmt *) stmt);
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
					kda_check_user_mapping(server, create->options);
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
					kda_check_user_mapping(server, alter->options);
					kda_catalog_changed();
				}
				break;
			}
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

static bool
is_of_interest(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_IndexStmt:
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

static void
utility(PlannedStmt *pstmt, const char *source, bool read_only_tree, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *stmt = pstmt->utilityStmt;
	char	   *text;
	int			start,
				len;

	if (IsA(stmt, DoStmt) && kda_is_marked(stmt, &text, &start, &len))
	{
		kda_execute_statement(kda_parse_statement(text, start, len), text, context, qc);
		return;
	}
	if (IsA(stmt, DropdbStmt) || IsA(stmt, CreatedbStmt) || IsA(stmt, AlterDatabaseStmt) ||
		(IsA(stmt, RenameStmt) && ((RenameStmt *) stmt)->renameType == OBJECT_DATABASE))
	{
		bool		parked = park_for(stmt);

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
		return;
	}
	if (!is_of_interest(stmt) || (!IsA(stmt, TransactionStmt) && !kda_extension_exists()))
	{
		call_next(pstmt, source, read_only_tree, context, params, env, dest, qc);
		return;
	}

	if (IsA(stmt, ViewStmt))
		refuse_replacing_view((ViewStmt *) stmt);
	else if (IsA(stmt, IndexStmt))
	{
		IndexStmt  *redirected = redirect_index((IndexStmt *) stmt);

		if (redirected)
		{
			Oid			userid;
			int			sec_context;

			/* the schema is not the user's; core runs what is the user's as the table's owner */
			pstmt = copyObject(pstmt);
			pstmt->utilityStmt = (Node *) redirected;
			GetUserIdAndSecContext(&userid, &sec_context);
			SetUserIdAndSecContext(kda_extension_owner(), sec_context | SECURITY_LOCAL_USERID_CHANGE);
			call_next(pstmt, source, false, context, params, env, dest, qc);
			SetUserIdAndSecContext(userid, sec_context);
			return;
		}
	}
	/* core may scribble on the tree: what is looked at afterwards is a copy */
	if (!IsA(stmt, TransactionStmt))
		stmt = copyObject(stmt);
	call_next(pstmt, source, read_only_tree, context, params, env, dest, qc);
	follow_up(stmt);
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
	if (kind == RELKIND_FOREIGN_TABLE && kda_stream_ids(relid, &stream))
	{
		delete_rows("shard", 1, F_INT4EQ, Int32GetDatum(stream.id));
		delete_rows("advance", 1, F_INT4EQ, Int32GetDatum(stream.id));
		delete_rows("stream_progress", 1, F_INT4EQ, Int32GetDatum(stream.id));
		delete_rows("stream", 1, F_INT4EQ, Int32GetDatum(stream.id));
		kda_catalog_changed();
	}
	else if (kind == RELKIND_VIEW && kda_query_ids(relid, &query))
	{
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
kda_catalog_init(void)
{
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
	next_access = object_access_hook;
	object_access_hook = object_access;
}
