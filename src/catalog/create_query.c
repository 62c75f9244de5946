/*-------------------------------------------------------------------------
 *
 * create_query.c
 *	  CREATE CONTINUOUS VIEW and CREATE PUMP: storage tables, the views for the
 *	  per-batch and final part, the view that users read, and the catalog row.
 *
 * Runs in the session that declares the query.  What lives in kda_storage is
 * made as the extension's owner and then given to the user: it needs no right
 * on that schema, and reads and writes run with the user's own rights.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/ddl.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/options.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "mb/pg_wchar.h"
#include "catalog/split.h"
#include "commands/comment.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "dialect/scan.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "query/agg_signature.h"
#include "stream/inbox.h"
#include "stream/stream.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* What WITH (…) says. */
typedef struct QueryOptions
{
	char	   *start;			/* NULL: the stream's */
	char	   *retention;
	char	   *time_zone;
} QueryOptions;

static QueryOptions
read_options(KdaStmt *stmt)
{
	QueryOptions o = {0};
	ListCell   *lc;

	foreach(lc, stmt->options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "start") == 0)
		{
			o.start = defGetString(def);
			(void) kda_parse_start(o.start);
		}
		else if (strcmp(def->defname, "retention") == 0 && stmt->kind == KDA_STMT_CREATE_VIEW)
		{
			Interval   *iv;

			o.retention = defGetString(def);
			iv = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(o.retention),
													   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
			if (iv->time < 0 || iv->day < 0 || iv->month < 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("retention must not be negative: \"%s\"", o.retention)));
		}
		else if (strcmp(def->defname, "time_zone") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("option \"time_zone\" of a query is not part of this release"),
					 errhint("Windows of days are days of UTC; shift them with an offset: TUMBLING (INTERVAL '1' DAY, INTERVAL '…').")));
		else
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unrecognized option \"%s\"", def->defname),
					 errhint("Options of a continuous query: start, retention (views), time_zone.")));
	}
	return o;
}

static char *
storage_name(const char *what, int32 id)
{
	return psprintf(KDA_STORAGE_SCHEMA ".%s_%d", what, id);
}

static Oid
storage_oid(const char *what, int32 id)
{
	Oid			oid = kda_storage_relation(psprintf("%s_%d", what, id));

	if (!OidIsValid(oid))
		elog(ERROR, "storage relation %s_%d is missing", what, id);
	return oid;
}

/* Gives a storage relation to the query's owner and ties its life to the query. */
static void
hand_over(Oid relid, Oid owner, Oid query_rel)
{
	KdaOwnerScope scope;
	ObjectAddress self,
				parent;

	kda_owner_begin(&scope);
	ATExecChangeOwner(relid, owner, false, AccessExclusiveLock);
	kda_owner_end(&scope);
	ObjectAddressSet(self, RelationRelationId, relid);
	ObjectAddressSet(parent, RelationRelationId, query_rel);
	recordDependencyOn(&self, &parent, DEPENDENCY_INTERNAL);
}

/* "a", "b" … of the columns that users see */
static char *
column_list(KdaSplit *split)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < split->ncolumns; i++)
		appendStringInfo(&s, "%s%s", i ? ", " : "", quote_identifier(split->names[i]));
	return s.data;
}

/* … with their types, for CREATE TABLE and for AS e(…) */
static char *
typed_columns(KdaSplit *split)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < split->ncolumns; i++)
		appendStringInfo(&s, "%s%s %s", i ? ", " : "", quote_identifier(split->names[i]),
						 kda_column_type_sql(split->types[i], split->typmods[i], split->collations[i]));
	return s.data;
}

static char *
nulls_of_types(KdaSplit *split)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < split->ncolumns; i++)
		appendStringInfo(&s, "%sNULL::%s AS %s", i ? ", " : "",
						 format_type_extended(split->types[i], split->typmods[i],
											  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY),
						 quote_identifier(split->names[i]));
	return s.data;
}

/* The SELECT of the view that users read. */
static char *
user_view_sql(KdaStmt *stmt, KdaSplit *split, int32 id)
{
	char	   *columns = column_list(split);
	char	   *final = psprintf("SELECT %s FROM %s", columns, storage_name("final", id));
	char	   *closed = psprintf("SELECT %s FROM %s", columns, storage_name("closed", id));
	bool		pump = stmt->kind == KDA_STMT_CREATE_PUMP;

	switch (split->shape)
	{
		case KDA_SHAPE_ROWS:
			return pump ? psprintf("SELECT %s WHERE false", nulls_of_types(split)) : closed;
		case KDA_SHAPE_GROUPS:
			{
				char	   *empty = kda_split_empty_sql(split, storage_oid("open", id));

				return empty ? psprintf("%s UNION ALL %s", final, empty) : final;
			}
		case KDA_SHAPE_WINDOWS:
			if (pump)
				return final;
			if (stmt->query->emit == KDA_EMIT_CLOSE)
				return closed;
			return psprintf("%s UNION ALL %s", final, closed);
	}
	return NULL;				/* not reached */
}

/*---- where it begins */

static bool
one_row(const char *sql, char **first, char **second)
{
	char	   *columns[2];
	bool		found = kda_owner_row(sql, second ? 2 : 1, columns);

	*first = columns[0];
	if (second)
		*second = columns[1];
	return found;
}

/*
 * Decides where the query begins, and where the stream does if this is its
 * first one.  Returns the snapshot before which rows do not count, or NULL.
 */
static char *
begin_reading(KdaSplit *split, const char *start, int32 stream_id, const char *stream_name)
{
	char	   *queries;
	char	   *records;
	char	   *begun = NULL;
	bool		database = kda_stream_options_get(split->stream)->server_type == NULL;
	KdaShardStart want = kda_parse_start(start);

	/* the stream's progress is one row: queries of one stream are declared one after the other */
	one_row(psprintf("SELECT (SELECT count(*) FROM kda_storage.query WHERE stream = %u)",
					 split->stream), &queries, NULL);
	one_row(psprintf("SELECT has_read, start FROM kda_storage.stream_progress WHERE stream_id = %d FOR UPDATE",
					 stream_id), &records, &begun);

	if (strcmp(queries, "0") == 0)
	{
		/* First query: the stream begins where this one does. */
		char	   *snapshot = database && want.kind == KDA_START_LATEST ? kda_inbox_snapshot() : NULL;

		kda_run_as_owner(psprintf("DELETE FROM kda_storage.shard WHERE stream_id = %d", stream_id));
		kda_run_as_owner(psprintf("UPDATE kda_storage.stream_progress SET start = %s, generation = generation + 1, watermark = NULL, derived_sent = NULL, "
								  "snapshot1 = %s, snapshot2 = NULL, last_xid = NULL, last_seq = NULL, has_read = false "
								  "WHERE stream_id = %d",
								  quote_literal_cstr(start),
								  snapshot ? quote_literal_cstr(snapshot) : "NULL", stream_id));
		if (!database && want.kind == KDA_START_LATEST)
			ereport(NOTICE,
					(errmsg("records that are already in stream %s are not counted", stream_name),
					 errhint("WITH (start = 'earliest') begins with the oldest record that the server keeps.")));
		return NULL;
	}
	if (strcmp(records, "f") == 0 && begun && strcmp(begun, start) == 0)
		return database && want.kind == KDA_START_LATEST ? kda_inbox_snapshot() : NULL;
	if (want.kind != KDA_START_LATEST)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream %s is already being read: a further query cannot begin at '%s'",
						stream_name, start),
				 errdetail("Catching up with a running stream is not part of this release."),
				 errhint("Use WITH (start = 'latest'), or create the queries of a stream in one transaction.")));
	return database ? kda_inbox_snapshot() : NULL;
}

/* Are there rows in a database stream that this query will not count? */
static bool
leaves_rows_out(Oid stream, const char *start)
{
	KdaStreamIds ids;
	char	   *found;

	if (kda_parse_start(start).kind == KDA_START_EARLIEST || !kda_stream_ids(stream, &ids) ||
		!OidIsValid(ids.inbox))
		return false;
	return kda_owner_row(psprintf("SELECT 1 FROM kda_storage.%s UNION ALL SELECT 1 FROM kda_storage.%s LIMIT 1",
								  quote_identifier(get_rel_name(ids.inbox)),
								  quote_identifier(get_rel_name(ids.inbox2))), 1, &found);
}

/*---- the statement */

/* A CREATE statement without what makes no difference: blanks, comments, OR REPLACE, case of words. */
static char *
essence(const char *statement)
{
	KdaTokens  *tokens = kda_scan(statement, 0, strlen(statement), true);
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < tokens->n; i++)
	{
		const KdaToken *t = &tokens->t[i];

		if (i == 1 && kda_token_is(tokens, 1, "or") && kda_token_is(tokens, 2, "replace"))
		{
			i = 2;
			continue;
		}
		if (t->kind == KDA_TOKEN_WORD)
			appendStringInfo(&s, "%s ", kda_token_value(tokens, i));
		else
			appendStringInfo(&s, "%.*s ", t->end - t->start, statement + t->start);
	}
	return s.data;
}

/* The view with that name is there already: does the statement say the same? */
static bool
exists_already(KdaStmt *stmt, const char *definition)
{
	Oid			existing = RangeVarGetRelid(stmt->name, NoLock, true);
	KdaQueryIds ids;
	char	   *had = NULL;

	if (!OidIsValid(existing))
		return false;
	if (stmt->if_not_exists)
	{
		ereport(NOTICE,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists, skipping", stmt->name->relname)));
		return true;
	}
	if (!stmt->or_replace || !kda_query_ids(existing, &ids))
		return false;			/* core's own error says it */
	if (!kda_is_relation_owner(existing))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, stmt->name->relname);
	one_row(psprintf("SELECT definition FROM kda_storage.query WHERE query_id = %d", ids.id),
			&had, NULL);
	if (had && strcmp(essence(had), essence(definition)) == 0)
		return true;			/* the same: nothing happens */
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("\"%s\" is running with another definition", stmt->name->relname),
			 errdetail("Replacing the query of a running one is not part of this release."),
			 errhint("DROP it and CREATE it again.")));
}

static char *
definition_text(KdaStmt *stmt, const char *source)
{
	char	   *text = pnstrdup(source + stmt->start, stmt->len);
	int			n = strlen(text);

	while (n > 0 && isspace((unsigned char) text[n - 1]))
		text[--n] = '\0';
	while (isspace((unsigned char) *text))
		text++;
	return text;
}

/* Target of a pump: a stream of this database or a table; the INSERT for the latter. */
static char *
check_target(KdaStmt *stmt, KdaSplit *split, Oid *target, bool *is_stream)
{
	StringInfoData sql;
	ListCell   *lc;
	bool		first = true;
	SPIPlanPtr	plan;

	*target = RangeVarGetRelid(stmt->target, RowExclusiveLock, false);
	*is_stream = kda_is_stream(*target);
	if (*is_stream && kda_stream_options_get(*target)->server_type != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" is on an outside server and cannot be written yet", stmt->target->relname),
				 errhint("Write into a stream of the database (CREATE STREAM without SERVER) or a table.")));
	if (!*is_stream && get_rel_relkind(*target) != RELKIND_RELATION &&
		get_rel_relkind(*target) != RELKIND_PARTITIONED_TABLE &&
		get_rel_relkind(*target) != RELKIND_VIEW && get_rel_relkind(*target) != RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is neither a stream nor a table", stmt->target->relname)));
	if (*is_stream && stmt->on_conflict)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ON CONFLICT cannot be used with stream \"%s\"", stmt->target->relname),
				 errhint("It is for pumps into tables.")));

	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO %s ",
					 quote_qualified_identifier(get_namespace_name(get_rel_namespace(*target)),
												get_rel_name(*target)));
	if (stmt->target_columns)
	{
		appendStringInfoChar(&sql, '(');
		foreach(lc, stmt->target_columns)
		{
			appendStringInfo(&sql, "%s%s", first ? "" : ", ", quote_identifier(strVal(lfirst(lc))));
			first = false;
		}
		appendStringInfoString(&sql, ") ");
	}
	/* columns by position: the names of the select list need not be the target's */
	appendStringInfo(&sql, "SELECT %s FROM %s.emitted() AS e(%s)", column_list(split), KDA_SCHEMA,
					 typed_columns(split));
	if (stmt->on_conflict)
		appendStringInfo(&sql, " %s", stmt->on_conflict);

	/* The parser says what does not fit; rights are checked as the user. */
	SPI_connect();
	plan = SPI_prepare(sql.data, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "could not prepare: %s", sql.data);
	SPI_freeplan(plan);
	SPI_finish();
	if (pg_class_aclcheck(*target, GetUserId(), ACL_INSERT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(*target, GetUserId(), ACL_INSERT, ACLMASK_ANY) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(*target)), stmt->target->relname);
	return sql.data;
}

/* Pumps that write the stream which their source is made of, directly or not. */
static void
refuse_cycle(Oid source, Oid target, const char *name)
{
	char	   *found;

	if (source != target &&
		!one_row(psprintf("WITH RECURSIVE up(rel) AS (SELECT %u::oid UNION "
						  "SELECT q.stream::oid FROM up JOIN kda_storage.query q ON q.target::oid = up.rel) "
						  "SELECT 1 FROM up WHERE rel = %u", source, target), &found, NULL))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("pump \"%s\" would feed stream \"%s\" from itself", name, get_rel_name(target)),
			 errhint("A stream must not depend on what it is made of.")));
}

/* A pump's rows are read in the transaction order of one process. */
static void
same_worker(Oid source, Oid target)
{
	char	   *a = kda_stream_options_get(source)->worker;
	char	   *b = kda_stream_options_get(target)->worker;

	if (strcmp(a, b) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("streams \"%s\" and \"%s\" are on different workers", get_rel_name(source),
						get_rel_name(target)),
				 errdetail("Option worker is '%s' and '%s'.", a, b),
				 errhint("Streams that a query ties together share a worker: ALTER STREAM … OPTIONS (SET worker '…').")));
}

static int32
next_id(void)
{
	char	   *id;

	one_row("SELECT pg_catalog.nextval('kda_storage.id_seq')", &id, NULL);
	return pg_strtoint32(id);
}

static const char *const shape_names[] = {"rows", "groups", "windows"};

static char *
interval_literal(const Interval *iv)
{
	if (iv == NULL)
		return "NULL";
	return psprintf("%s::pg_catalog.interval",
					quote_literal_cstr(DatumGetCString(DirectFunctionCall1(interval_out, PointerGetDatum(iv)))));
}

static char *
regclass_literal(Oid relid)
{
	return OidIsValid(relid) ? psprintf("%u::pg_catalog.regclass", relid) : "NULL";
}

void
kda_create_query(KdaStmt *stmt, const char *source_text)
{
	bool		pump = stmt->kind == KDA_STMT_CREATE_PUMP;
	Oid			owner = GetUserId();
	QueryOptions options;
	KdaSplit   *split;
	char	   *definition = definition_text(stmt, source_text);
	Oid			namespace;
	Oid			existing;
	Oid			target = InvalidOid;
	bool		target_is_stream = false;
	char	   *insert_text = NULL;
	int32		id;
	int32		stream_id;
	char	   *start;
	char	   *snapshot;
	char	   *qualified;
	Oid			view;
	Oid			batch,
				open = InvalidOid,
				closed = InvalidOid,
				final = InvalidOid;
	const char *emit;
	KdaOwnerScope scope;

	PreventCommandIfReadOnly(pump ? "CREATE PUMP" : "CREATE CONTINUOUS VIEW");
	PreventCommandDuringRecovery(pump ? "CREATE PUMP" : "CREATE CONTINUOUS VIEW");
	if (InSecurityRestrictedOperation())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot create a continuous query within security-restricted operation")));

	options = read_options(stmt);
	if (exists_already(stmt, definition))
		return;
	namespace = RangeVarGetAndCheckCreationNamespace(stmt->name, NoLock, &existing);
	if (OidIsValid(existing))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists", stmt->name->relname)));
	if (stmt->name->relpersistence == RELPERSISTENCE_TEMP || isTempNamespace(namespace))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a continuous query cannot be temporary")));
	if (stmt->query->emit == KDA_EMIT_EVERY)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("EMIT EVERY is not part of this release"),
				 errhint("EMIT CHANGES and EMIT ON WINDOW CLOSE are."),
				 errposition(pg_mbstrlen_with_len(source_text, stmt->query->emit_location) + 1)));

	split = kda_split_query(stmt->query, source_text, !pump);
	if (stmt->columns)
	{
		ListCell   *lc;
		int			i = 0;

		/* window columns that nobody has asked for keep their names */
		if (split->window_columns_added && list_length(stmt->columns) == split->ncolumns - 2)
			i = 2;
		else if (list_length(stmt->columns) != split->ncolumns)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("the view has %d column names but its query gives %d columns",
							list_length(stmt->columns), split->ncolumns)));
		foreach(lc, stmt->columns)
			split->names[i++] = strVal(lfirst(lc));
		i = 0;
		foreach(lc, split->user->targetList)
			if (!lfirst_node(TargetEntry, lc)->resjunk)
				lfirst_node(TargetEntry, lc)->resname = split->names[i++];
	}
	if (options.retention && split->shape == KDA_SHAPE_GROUPS)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("retention of a view without a window is not part of this release"),
				 errhint("With WINDOWED BY, or without aggregates, rows go by their time.")));
	if (stmt->query->emit == KDA_EMIT_CLOSE && split->shape != KDA_SHAPE_WINDOWS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("EMIT ON WINDOW CLOSE needs a window"),
				 errhint("Add WINDOWED BY TUMBLING (…), or leave EMIT out.")));
	if (pump)
	{
		if (split->shape == KDA_SHAPE_WINDOWS && stmt->query->emit == KDA_EMIT_CHANGES)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("EMIT CHANGES of a pump with windows is not part of this release"),
					 errhint("Leave it out: a window leaves when it closes.")));
		insert_text = check_target(stmt, split, &target, &target_is_stream);
		if (target_is_stream)
		{
			refuse_cycle(split->stream, target, stmt->name->relname);
			same_worker(split->stream, target);
		}
	}
	emit = stmt->query->emit == KDA_EMIT_CLOSE || (pump && split->shape == KDA_SHAPE_WINDOWS) ?
		"close" : "changes";

	stream_id = kda_stream_ensure_storage(split->stream);
	if (target_is_stream)
		(void) kda_stream_ensure_storage(target);
	start = options.start ? options.start :
		kda_stream_options_get(split->stream)->start_text;
	snapshot = begin_reading(split, start, stream_id,
							 quote_qualified_identifier(get_namespace_name(get_rel_namespace(split->stream)),
														get_rel_name(split->stream)));
	id = next_id();

	/* Storage, the view of the per-batch part, and that of the final part. */
	kda_run_as_owner(psprintf("CREATE VIEW %s AS %s", storage_name("batch", id), kda_split_batch_sql(split)));
	CommandCounterIncrement();
	batch = storage_oid("batch", id);
	if (split->shape != KDA_SHAPE_ROWS)
	{
		kda_run_as_owner(kda_groups_table_ddl(split->batch, split->nkeys, storage_name("open", id)));
		CommandCounterIncrement();
		open = storage_oid("open", id);
		kda_run_as_owner(psprintf("CREATE VIEW %s AS %s", storage_name("final", id),
								  kda_split_final_sql(split, open)));
		CommandCounterIncrement();
		final = storage_oid("final", id);
	}
	if (!pump && split->shape != KDA_SHAPE_GROUPS)
	{
		kda_run_as_owner(psprintf("CREATE TABLE %s (kda_time pg_catalog.timestamptz%s%s); "
								  "CREATE INDEX ON %s (kda_time)",
								  storage_name("closed", id), split->ncolumns ? ", " : "",
								  typed_columns(split), storage_name("closed", id)));
		CommandCounterIncrement();
		closed = storage_oid("closed", id);
	}

	/* What users read. */
	qualified = quote_qualified_identifier(get_namespace_name(namespace), stmt->name->relname);
	kda_run_as_owner(psprintf("CREATE VIEW %s (%s) AS %s", qualified, column_list(split),
							  user_view_sql(stmt, split, id)));
	CommandCounterIncrement();
	view = get_relname_relid(stmt->name->relname, namespace);

	hand_over(batch, owner, view);
	if (OidIsValid(final))
		hand_over(final, owner, view);
	if (OidIsValid(open))
		hand_over(open, owner, view);
	if (OidIsValid(closed))
		hand_over(closed, owner, view);
	kda_owner_begin(&scope);
	ATExecChangeOwner(view, owner, false, AccessExclusiveLock);
	kda_owner_end(&scope);
	if (OidIsValid(target))
	{
		ObjectAddress self,
					parent;

		ObjectAddressSet(self, RelationRelationId, view);
		ObjectAddressSet(parent, RelationRelationId, target);
		recordDependencyOn(&self, &parent, DEPENDENCY_NORMAL);
	}

	kda_run_as_owner(psprintf("INSERT INTO kda_storage.query (query_id, rel, kind, definition, stream, shape, "
							  "window_size, window_offset, emit, start, start_snapshot, stopped, retention, nkeys, "
							  "batch, final, open, closed, target, insert_text, target_columns) VALUES "
							  "(%d, %s, '%s', %s, %s, '%s', %s, %s, '%s', %s, %s, %s, %s, %d, %s, %s, %s, %s, %s, %s, %s); "
							  "INSERT INTO kda_storage.query_progress (query_id, complete_from) VALUES (%d, %s)",
							  id, regclass_literal(view), pump ? "pump" : "view",
							  quote_literal_cstr(definition), regclass_literal(split->stream),
							  shape_names[split->shape],
							  interval_literal(split->window_size), interval_literal(split->window_offset),
							  emit, quote_literal_cstr(start),
							  snapshot ? quote_literal_cstr(snapshot) : "NULL",
							  stmt->stopped ? "true" : "false",
							  options.retention ? quote_literal_cstr(options.retention) : "NULL",
							  split->nkeys, regclass_literal(batch), regclass_literal(final),
							  regclass_literal(open), regclass_literal(closed), regclass_literal(target),
							  insert_text && !target_is_stream ? quote_literal_cstr(insert_text) : "NULL",
							  kda_name_array(stmt->target_columns), id,
							  leaves_rows_out(split->stream, start) ? "'infinity'" : "NULL"));
	if (stmt->description)
		CreateComments(view, RelationRelationId, 0, stmt->description);
	kda_catalog_changed();
}
