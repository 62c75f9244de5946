/*-------------------------------------------------------------------------
 *
 * alter.c
 *	  Changing what exists: states of streams and queries, and CREATE OR
 *	  REPLACE of streams and reference tables, which changes them in place.
 *
 * Runs in the session that asks for it, in its transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/relation.h"
#include "catalog/rows.h"
#include "declare/ddl.h"
#include "catalog/namespace.h"
#include "catalog/options.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/comment.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_type.h"
#include "runtime/runtime.h"
#include "stream/inbox.h"
#include "stream/stream.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/*---- streams */

static void
check_stream_owner(Oid relid, const char *name, bool output)
{
	KdaOutputIds ids;

	if (output && (!kda_output_ids(relid, &ids) || !OidIsValid(ids.source)))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not an output", name)));
	if (!output && kda_output_ids(relid, &ids) && OidIsValid(ids.source))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a stream", name),
				 errhint("Use ALTER OUTPUT.")));
	if (!kda_is_stream(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a stream", name)));
	if (!kda_is_relation_owner(relid))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_TABLE, name);
}

/*
 * RESUME after a failure.  A position that the source has lost is only given
 * up when the user has said where to begin (ALTER STREAM … OPTIONS (SET start …)).
 */
static void
resume(int32 id, Oid relid)
{
	kda_run_as_owner(psprintf("UPDATE kda_storage.shard SET position = NULL, from_first = false, last_position = NULL, last_arrival = NULL, last_crc = NULL "
							  "FROM kda_storage.stream s WHERE s.stream_id = shard.stream_id "
							  "AND s.start_again AND s.stream_id = %d; "
							  "UPDATE kda_storage.stream_progress p SET start = %s, declared = declared + 1, begun = declared + 1 FROM kda_storage.stream s "
							  "WHERE s.stream_id = p.stream_id AND s.start_again "
							  "AND s.stream_id = %d; "
							  "UPDATE kda_storage.stream_progress SET last_error = NULL "
							  "WHERE stream_id = %d; "
							  "UPDATE kda_storage.stream SET paused = false, failure = NULL, start_again = false "
							  "WHERE stream_id = %d",
							  id, quote_literal_cstr(kda_stream_options_get(relid)->start_text), id, id, id));
}

/* Of a stream that is written, or an output. */
static void
resume_output(Oid relid)
{
	kda_run_as_owner(psprintf("UPDATE kda_storage.output_progress p SET last_error = NULL FROM kda_storage.output o "
							  "WHERE o.output_id = p.output_id AND o.rel = %u::pg_catalog.regclass AND o.failure IS NOT NULL; "
							  "UPDATE kda_storage.output SET paused = false, failure = NULL WHERE rel = %u::pg_catalog.regclass", relid, relid));
}

static void
put_place(Oid stream, char control, int32 id, int64 number)
{
	KdaInboxPlace place = {control, number, id};
	KdaInboxWriter *writer = kda_inbox_begin(stream);

	kda_inbox_put_place(writer, &place);
	kda_inbox_end(writer);
}

/*
 * Rows in the inboxes of the stream, and of those that queries tie to it, say
 * where: what comes behind is judged by the new time.
 */
static void
reset(int32 id, Oid relid)
{
	char	   *found;
	int64		number;
	bool		database = kda_stream_options_get(relid)->server_type == NULL;
	bool		placed = database &&
		kda_owner_row(psprintf("SELECT 1 FROM kda_storage.query WHERE %u IN (stream::oid, stream2::oid) LIMIT 1", relid), 1, &found);

	if (!kda_owner_row(psprintf("UPDATE kda_storage.stream SET resets_wanted = resets_wanted + 1, reset_behind = %s WHERE stream_id = %d "
								"RETURNING resets_wanted", placed ? "true" : "false", id), 1, &found))
		return;
	number = strtoi64(found, NULL, 10);
	/* a stream that nobody reads keeps it for a query that begins with what is there */
	if (database)
		put_place(relid, KDA_CONTROL_RESET, id, number);
	if (!kda_owner_row(psprintf("WITH RECURSIVE reached AS (SELECT %u::oid AS rel UNION "
								"SELECT v.rel FROM reached t, kda_storage.query q "
								"LEFT JOIN kda_storage.stream p ON p.rel = q.target AND p.part_of IS NOT NULL, "
								"LATERAL (VALUES (q.stream::oid), (q.stream2::oid), (p.rel::oid)) v (rel) "
								"WHERE t.rel IN (q.stream::oid, q.stream2::oid, p.rel::oid) AND v.rel IS NOT NULL) "
								"SELECT pg_catalog.string_agg(s.rel::oid::text, ' ') FROM kda_storage.stream s JOIN reached t ON t.rel = s.rel "
								"WHERE s.part_of IS NULL AND s.rel <> %u", relid, relid), 1, &found) || found == NULL)
		return;
	for (char *next = found; *next;)
	{
		Oid			other = (Oid) strtoul(next, &next, 10);

		while (*next == ' ')
			next++;
		if (kda_stream_options_get(other)->server_type == NULL)
			put_place(other, KDA_CONTROL_STAND, id, number);
	}
}

void
kda_alter_stream_state(KdaStmt *stmt)
{
	Oid			relid = RangeVarGetRelid(stmt->name, ShareUpdateExclusiveLock, false);
	int32		id;

	check_stream_owner(relid, stmt->name->relname, stmt->object == KDA_OBJECT_OUTPUT);
	if (stmt->object == KDA_OBJECT_OUTPUT)
	{
		kda_adopt_strangers();
		CommandCounterIncrement();
		if (stmt->action == KDA_PAUSE)
			kda_run_as_owner(psprintf("UPDATE kda_storage.output SET paused = true WHERE rel = %u::pg_catalog.regclass", relid));
		else
			resume_output(relid);
		kda_catalog_changed();
		return;
	}
	id = kda_stream_ensure_storage(relid);
	kda_adopt_strangers();
	CommandCounterIncrement();
	switch (stmt->action)
	{
		case KDA_PAUSE:
			kda_run_as_owner(psprintf("UPDATE kda_storage.stream SET paused = true "
									  "WHERE stream_id = %d", id));
			break;
		case KDA_RESUME:
			resume(id, relid);
			resume_output(relid);
			break;
		case KDA_RESET:
			reset(id, relid);
			break;
		default:
			elog(ERROR, "unexpected action %d", (int) stmt->action);
	}
	kda_catalog_changed();
}

void
kda_stream_start_changed(Oid relid)
{
	KdaStreamIds ids;

	if (kda_stream_ids(relid, &ids))
		kda_run_as_owner(psprintf("UPDATE kda_storage.stream SET start_again = true "
								  "WHERE stream_id = %d AND failure IS NOT NULL", ids.id));
}

void
kda_set_may_add(Node *stmt)
{
	AlterTableStmt *alter = (AlterTableStmt *) stmt;
	Oid			relid;
	ListCell   *lc;

	if (!IsA(stmt, AlterTableStmt) || alter->objtype != OBJECT_FOREIGN_TABLE)
		return;
	relid = RangeVarGetRelid(alter->relation, NoLock, true);
	if (!OidIsValid(relid) || !kda_is_stream(relid))
		return;
	foreach(lc, alter->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);
		List	   *have = NIL;
		ListCell   *lw,
				   *lh;

		if (cmd->subtype == AT_GenericOptions)
			have = GetForeignTable(relid)->options;
		else if (cmd->subtype == AT_AlterColumnGenericOptions)
		{
			AttrNumber	attno = get_attnum(relid, cmd->name);

			if (attno <= 0)
				continue;		/* core's own message */
			have = GetForeignColumnOptions(relid, attno);
		}
		else
			continue;
		foreach(lw, (List *) cmd->def)
		{
			DefElem    *want = lfirst_node(DefElem, lw);
			bool		found = false;

			foreach(lh, have)
				found |= strcmp(lfirst_node(DefElem, lh)->defname, want->defname) == 0;
			if (want->defaction == DEFELEM_SET && !found)
				want->defaction = DEFELEM_ADD;
		}
	}
}

PG_FUNCTION_INFO_V1(kda_resume_all);

/* kda.resume_all() → bigint: resumes what a restore left paused; the caller's own streams, all of them for a superuser */
Datum
kda_resume_all(PG_FUNCTION_ARGS)
{
	int64		n = 0;
	uint64		found;
	Oid		   *relids;
	MemoryContext old = CurrentMemoryContext;
	KdaOwnerScope scope;

	PreventCommandDuringRecovery("kda.resume_all()");
	kda_adopt_strangers();
	CommandCounterIncrement();
	kda_owner_begin(&scope);
	SPI_execute("SELECT rel::oid FROM kda_storage.stream WHERE paused UNION SELECT rel::oid FROM kda_storage.output WHERE paused", false, 0);
	found = SPI_processed;
	relids = MemoryContextAlloc(old, sizeof(Oid) * Max(found, 1));
	for (uint64 i = 0; i < found; i++)
	{
		bool		isnull;

		relids[i] = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	kda_owner_end(&scope);
	for (uint64 i = 0; i < found; i++)
	{
		KdaStreamIds ids;

		if (!get_rel_name(relids[i]) || !kda_is_relation_owner(relids[i]))
			continue;
		if (kda_stream_ids(relids[i], &ids))
			resume(ids.id, relids[i]);
		resume_output(relids[i]);
		n++;
	}
	if (n > 0)
		kda_catalog_changed();
	PG_RETURN_INT64(n);
}

/*---- queries */

static KdaQueryIds
owned_query(KdaStmt *stmt)
{
	bool		pump = stmt->object == KDA_OBJECT_PUMP;
	Oid			relid = RangeVarGetRelid(stmt->name, ShareUpdateExclusiveLock, false);
	KdaQueryIds ids;

	if (!kda_query_ids(relid, &ids) || ids.is_pump != pump)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a %s", stmt->name->relname, pump ? "pump" : "continuous view")));
	if (!kda_is_relation_owner(relid))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, stmt->name->relname);
	return ids;
}

void
kda_alter_query(KdaStmt *stmt)
{
	KdaQueryIds ids = owned_query(stmt);
	ListCell   *lc;

	if (stmt->kind == KDA_STMT_QUERY_STATE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s of a single query is not part of this release",
						stmt->action == KDA_STOP ? "STOP" : stmt->action == KDA_START ? "START" : "RESTART"),
				 errhint("ALTER STREAM ... PAUSE and RESUME hold all queries of a stream; DROP and CREATE begin a query anew.")));
	foreach(lc, stmt->options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		char	   *value = defGetString(def);
		Interval   *iv;

		if (strcmp(def->defname, "retention") != 0 || ids.is_pump)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" of \"%s\" cannot be changed", def->defname, stmt->name->relname),
					 errhint("Option retention of a continuous view can; for others DROP and CREATE it.")));
		if (!OidIsValid(ids.closed))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("retention of a view without a window is not part of this release")));
		iv = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(value),
												   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
		if (iv->time < 0 || iv->day < 0 || iv->month < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("retention must not be negative: \"%s\"", value)));
		kda_run_as_owner(psprintf("UPDATE kda_storage.query SET retention = %s "
								  "WHERE query_id = %d", quote_literal_cstr(value), ids.id));
	}
	kda_catalog_changed();
}

/*---- CREATE [OR REPLACE] STREAM, REFERENCE TABLE */

/* The table's options as ADD, SET and DROP that lead to those that are wanted. */
List *
kda_option_changes(List *have, List *want)
{
	List	   *changes = NIL;
	ListCell   *lc,
			   *lh;

	foreach(lc, want)
	{
		DefElem    *def = copyObject(lfirst_node(DefElem, lc));
		bool		same = false;

		def->defaction = DEFELEM_ADD;
		foreach(lh, have)
		{
			DefElem    *had = lfirst_node(DefElem, lh);

			if (strcmp(had->defname, def->defname) == 0)
			{
				def->defaction = DEFELEM_SET;
				same = strcmp(defGetString(had), defGetString(def)) == 0;
			}
		}
		if (!same)
			changes = lappend(changes, def);
	}
	foreach(lh, have)
	{
		DefElem    *had = lfirst_node(DefElem, lh);
		bool		wanted = false;

		foreach(lc, want)
			wanted |= strcmp(had->defname, lfirst_node(DefElem, lc)->defname) == 0;
		if (!wanted)
			changes = lappend(changes, makeDefElemExtended(NULL, had->defname, NULL, DEFELEM_DROP, -1));
	}
	return changes;
}

static void
add_command(AlterTableStmt *alter, AlterTableType type, char *column, Node *def)
{
	AlterTableCmd *cmd = makeNode(AlterTableCmd);

	cmd->subtype = type;
	cmd->name = column;
	cmd->def = def;
	cmd->behavior = DROP_RESTRICT;
	alter->cmds = lappend(alter->cmds, cmd);
}

/* serial is no type, but stands where one does. */
static void
column_type(TypeName *name, Oid *type, int32 *typmod)
{
	static const struct
	{
		const char *name;
		Oid			type;
	}			serials[] = {
		{"smallserial", INT2OID}, {"serial2", INT2OID}, {"serial", INT4OID}, {"serial4", INT4OID},
		{"bigserial", INT8OID}, {"serial8", INT8OID}
	};

	if (list_length(name->names) == 1 && name->arrayBounds == NIL)
		for (int i = 0; i < lengthof(serials); i++)
			if (strcmp(strVal(linitial(name->names)), serials[i].name) == 0)
			{
				*type = serials[i].type;
				*typmod = -1;
				return;
			}
	typenameTypeIdAndMod(NULL, name, type, typmod);
}

/*
 * What turns the relation into what the statement says: columns and options
 * are added, nothing is taken away.
 */
static AlterTableStmt *
differences(Oid relid, RangeVar *name, List *elements, bool stream, List *options)
{
	AlterTableStmt *alter = makeNode(AlterTableStmt);
	Relation	rel = relation_open(relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	bool	   *named = palloc0(sizeof(bool) * (desc->natts + 1));
	ListCell   *lc;

	alter->relation = name;
	alter->objtype = stream ? OBJECT_FOREIGN_TABLE : OBJECT_TABLE;
	foreach(lc, elements)
	{
		ColumnDef  *def;
		Form_pg_attribute att = NULL;
		Oid			type,
					collation;
		int32		typmod;
		List	   *changes;

		if (!IsA(lfirst(lc), ColumnDef))
			continue;			/* constraints are the table's business */
		def = lfirst_node(ColumnDef, lc);
		for (int i = 0; i < desc->natts; i++)
			if (!TupleDescAttr(desc, i)->attisdropped &&
				strcmp(NameStr(TupleDescAttr(desc, i)->attname), def->colname) == 0)
				att = TupleDescAttr(desc, i);
		if (att == NULL)
		{
			add_command(alter, AT_AddColumn, NULL, (Node *) def);
			continue;
		}
		named[att->attnum] = true;
		column_type(def->typeName, &type, &typmod);
		collation = def->collClause ? get_collation_oid(def->collClause->collname, false) : att->attcollation;
		if (type != att->atttypid || typmod != att->atttypmod || collation != att->attcollation)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("column \"%s\" of \"%s\" is of type %s and cannot become %s", def->colname,
							name->relname, format_type_with_typemod(att->atttypid, att->atttypmod),
							format_type_with_typemod(type, typmod)),
					 errhint("OR REPLACE adds columns and changes options; otherwise DROP and CREATE it, or ALTER it yourself.")));
		if (stream)
		{
			changes = kda_option_changes(GetForeignColumnOptions(relid, att->attnum), def->fdwoptions);
			if (changes)
				add_command(alter, AT_AlterColumnGenericOptions, def->colname, (Node *) changes);
		}
	}
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped && !named[i + 1])
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("column \"%s\" of \"%s\" would be lost", NameStr(TupleDescAttr(desc, i)->attname),
							name->relname),
					 errhint("Name it in the statement, or ALTER ... DROP COLUMN it first.")));
	if (stream)
	{
		List	   *changes = kda_option_changes(GetForeignTable(relid)->options, options);

		if (changes)
			add_command(alter, AT_GenericOptions, NULL, (Node *) changes);
	}
	relation_close(rel, AccessShareLock);
	return alter;
}

void
kda_notice_exists(const char *name)
{
	ereport(NOTICE,
			(errcode(ERRCODE_DUPLICATE_TABLE),
			 errmsg("relation \"%s\" already exists, skipping", name)));
}

/* Is there one already, so that nothing or little is to do?  Returns its changes in *alter, NULL: leave it alone. */
static bool
existing_relation(KdaStmt *stmt, bool stream, List *elements, const char *server, List *options,
				  AlterTableStmt **alter)
{
	Oid			relid = RangeVarGetRelid(stmt->name, NoLock, true);

	*alter = NULL;
	if (!OidIsValid(relid))
		return false;
	if (stmt->if_not_exists)
	{
		kda_notice_exists(stmt->name->relname);
		return true;
	}
	if (!stmt->or_replace)
		return false;			/* core's own error says it */
	if (stream ? !kda_is_stream(relid) : get_rel_relkind(relid) != RELKIND_RELATION)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" exists and is not a %s", stmt->name->relname, stream ? "stream" : "table")));
	if (!kda_is_relation_owner(relid))
		aclcheck_error(ACLCHECK_NOT_OWNER, stream ? OBJECT_FOREIGN_TABLE : OBJECT_TABLE, stmt->name->relname);
	if (stream && strcmp(GetForeignServer(GetForeignTable(relid)->serverid)->servername, server) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("stream \"%s\" is on server \"%s\" and cannot move to \"%s\"", stmt->name->relname,
						GetForeignServer(GetForeignTable(relid)->serverid)->servername, server),
				 errhint("DROP it and CREATE it again.")));
	*alter = differences(relid, stmt->name, elements, stream, options);
	return true;
}

/* Creates the relation or changes it; returns it, InvalidOid if it is left alone. */
static Oid
create_or_change(KdaStmt *stmt, bool stream, List *elements, const char *server, List *options, KdaRunCore run)
{
	AlterTableStmt *alter;

	if (!existing_relation(stmt, stream, elements, server, options, &alter))
		run(stmt->core, stmt->text);
	else if (alter == NULL)
		return InvalidOid;
	else if (alter->cmds)
		run((Node *) alter, stmt->text);
	CommandCounterIncrement();
	return RangeVarGetRelid(stmt->name, NoLock, false);
}

static void
describe(Oid relid, KdaStmt *stmt)
{
	if (stmt->description)
		CreateComments(relid, RelationRelationId, 0, stmt->description);
}

void
kda_create_stream(KdaStmt *stmt, KdaRunCore run)
{
	CreateForeignTableStmt *core = castNode(CreateForeignTableStmt, stmt->core);
	Oid			relid;

	kda_extension_owner();		/* says so if there is no extension */
	relid = create_or_change(stmt, true, core->base.tableElts, core->servername, core->options, run);
	if (!OidIsValid(relid))
		return;
	(void) kda_stream_ensure_storage(relid);
	describe(relid, stmt);
}

void
kda_create_reference_table(KdaStmt *stmt, KdaRunCore run)
{
	Oid			relid = create_or_change(stmt, false, castNode(CreateStmt, stmt->core)->tableElts, NULL, NIL, run);

	if (OidIsValid(relid))
		describe(relid, stmt);
}
