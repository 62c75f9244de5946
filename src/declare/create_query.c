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

#include "access/table.h"
#include "access/xact.h"
#include "declare/compose.h"
#include "catalog/rows.h"
#include "declare/ddl.h"
#include "catalog/dependency.h"
#include "declare/emission.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/options.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_inherits.h"
#include "declare/split.h"
#include "catalog/store_query.h"
#include "commands/comment.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "commands/trigger.h"
#include "dialect/scan.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_coerce.h"
#include "pgtime.h"
#include "query/agg_signature.h"
#include "stream/inbox.h"
#include "stream/outbox.h"
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
		{
			o.time_zone = defGetString(def);
			if (pg_tzset(o.time_zone) == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("time zone \"%s\" not recognized", o.time_zone),
						 errhint("SELECT name FROM pg_timezone_names lists them.")));
		}
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
						 kda_column_type_sql(split->types[i], split->typmods[i], split->collations[i]),
						 quote_identifier(split->names[i]));
	return s.data;
}

/* Never automatically updatable: the worker relies on what is in its tables. */
static char *
read_only(const char *sql, KdaSplit *split)
{
	return psprintf("%s UNION ALL SELECT %s WHERE false", sql, nulls_of_types(split));
}

/* Rows of the final part; where there are two of them, of the one that fits what the slots have left. */
static char *
final_sql(KdaSplit *split, const char *columns, int32 id)
{
	KdaStreamIds ids;

	if (!OidIsValid(kda_storage_relation(psprintf("merged_%d", id))))
		return psprintf("SELECT %s FROM %s", columns, storage_name("final", id));
	kda_stream_ids(split->stream, &ids);
	return psprintf("SELECT %s FROM %s WHERE NOT kda.slotted(%d) UNION ALL SELECT %s FROM %s WHERE kda.slotted(%d)",
					columns, storage_name("final", id), ids.id, columns, storage_name("merged", id), ids.id);
}

/* The SELECT of the view that users read; it holds no expression of theirs. */
static char *
user_view_sql(KdaStmt *stmt, KdaSplit *split, const KdaEmission *emission, int32 id)
{
	char	   *columns = column_list(split);
	char	   *final = final_sql(split, columns, id);
	char	   *closed = psprintf("SELECT %s FROM %s", columns, storage_name("closed", id));
	bool		pump = stmt->kind == KDA_STMT_CREATE_PUMP;
	bool		every = emission->every_us > 0;

	if (emission->shown)
	{
		char	   *shown = psprintf("SELECT %s FROM %s WHERE NOT kda_gone", columns, storage_name("shown", id));

		/* what is kept of windows that have closed is for corrections */
		if (split->shape == KDA_SHAPE_WINDOWS)
			final = psprintf("%s WHERE kda_end OPERATOR(pg_catalog.>) (SELECT kda.frontier(%d))", final, id);
		else if (!pump)
			final = shown;
		closed = psprintf("%s UNION ALL %s", shown, closed);
	}

	switch (split->shape)
	{
		case KDA_SHAPE_ROWS:
		case KDA_SHAPE_OVER:
			return pump ? psprintf("SELECT %s WHERE false", nulls_of_types(split)) : read_only(closed, split);
		case KDA_SHAPE_GROUPS:
			if (!OidIsValid(kda_storage_relation(psprintf("empty_%d", id))))
				return read_only(final, split);
			return psprintf("%s UNION ALL SELECT %s FROM %s WHERE NOT EXISTS (SELECT FROM %s)", final, columns,
							storage_name("empty", id), storage_name("open", id));
		case KDA_SHAPE_WINDOWS:
			if (pump)
				return read_only(final, split);
			if (stmt->query->emit == KDA_EMIT_CLOSE || every)
				return read_only(closed, split);
			return psprintf("%s UNION ALL %s", final, closed);
		case KDA_SHAPE_JOIN:
			break;				/* only as a part */
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

/* What the slots of a stream have handed to slot 0 until now: after the row of their progress was locked. */
static char *
snapshot_of_now(void)
{
	char	   *snapshot;

	PushActiveSnapshot(GetLatestSnapshot());
	snapshot = kda_inbox_snapshot();
	PopActiveSnapshot();
	return snapshot;
}

/*
 * RESETs that were said before the first query: one that begins with the rows
 * that are there comes to their places among them; for the others, time begins
 * anew at once.
 */
static void
begin_resets(int32 stream_id, const KdaStreamIds *ids, bool from_first)
{
	char	   *said;

	if (!kda_owner_row(psprintf("UPDATE kda_storage.stream SET reset_behind = %s WHERE stream_id = %d AND resets_wanted > 0 RETURNING 1",
								from_first ? "true" : "false", stream_id), 1, &said))
		return;
	if (from_first)
		kda_run_as_owner(psprintf("UPDATE kda_storage.stream_progress SET resets_done = coalesce((SELECT pg_catalog.min(kda_position) - 1 FROM "
								  "(SELECT kda_position FROM kda_storage.%s WHERE kda_control = '%c' UNION ALL "
								  "SELECT kda_position FROM kda_storage.%s WHERE kda_control = '%c') r), resets_done) WHERE stream_id = %d",
								  quote_identifier(get_rel_name(ids->inbox)), KDA_CONTROL_RESET,
								  quote_identifier(get_rel_name(ids->inbox2)), KDA_CONTROL_RESET, stream_id));
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
	KdaStreamIds ids;
	bool		has_inbox = kda_stream_ids(split->stream, &ids) && OidIsValid(ids.inbox);
	bool		relay = !database && has_inbox;
	char	   *now;
	KdaOutputIds output;

	if (kda_output_ids(split->stream, &output) && OidIsValid(output.source))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("output \"%s\" cannot be read", get_rel_name(split->stream)),
				 errhint("Read the stream that it sends out, \"%s\".", get_rel_name(output.source))));
	if (!database && kda_source_ops(kda_stream_options_get(split->stream)->server_type) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream %s is on a server of type \"%s\" and can only be written", stream_name,
						kda_stream_options_get(split->stream)->server_type)));

	if (!database && kda_stream_options_get(split->stream)->compression)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream %s has option compression and cannot be read", stream_name),
				 errdetail("It is for records that are written; what brokers compress by themselves needs no option."),
				 errhint("Declare a stream without it for what is read.")));

	/*
	 * The stream's progress is one row: queries of one stream are declared one
	 * after the other, and no worker commits records from here to our commit.
	 * One that has read some by then finds the row changed and does it again.
	 */
	one_row(psprintf("SELECT (SELECT count(*) FROM kda_storage.query WHERE %u IN (stream::oid, stream2::oid))",
					 split->stream), &queries, NULL);
	one_row(psprintf("UPDATE kda_storage.stream_progress SET declared = declared + 1 WHERE stream_id = %d "
					 "RETURNING has_read, start", stream_id), &records, &begun);
	now = database ? kda_inbox_snapshot() : relay ? snapshot_of_now() : NULL;

	if (strcmp(queries, "0") == 0)
	{
		/* First query: the stream begins where this one does. */
		char	   *snapshot = database && want.kind != KDA_START_LATEST ? NULL : now;

		kda_run_as_owner(psprintf("DELETE FROM kda_storage.shard WHERE stream_id = %d; "
								  "UPDATE kda_storage.slot SET accepted = NULL WHERE stream_id = %d", stream_id, stream_id));
		if (database && has_inbox)
			begin_resets(stream_id, &ids, snapshot == NULL);
		kda_run_as_owner(psprintf("UPDATE kda_storage.stream_progress SET start = %s, start_set = pg_catalog.clock_timestamp(), watermark = NULL, coming = NULL, derived_sent = NULL, "
								  "snapshot1 = %s, snapshot2 = NULL, last_xid = NULL, last_seq = NULL, has_read = false, "
								  "begun = declared%s WHERE stream_id = %d",
								  quote_literal_cstr(start),
								  snapshot ? quote_literal_cstr(snapshot) : "NULL", relay ? ", derived = NULL" : "", stream_id));
		if (!database && want.kind == KDA_START_LATEST)
			ereport(NOTICE,
					(errmsg("records that are already in stream %s are not counted", stream_name),
					 errhint("WITH (start = 'earliest') begins with the oldest record that the server keeps.")));
		return NULL;
	}
	if (strcmp(records, "f") == 0 && begun && strcmp(begun, start) == 0)
		return database && want.kind == KDA_START_LATEST ? now : NULL;
	if (want.kind != KDA_START_LATEST)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream %s is already being read: a further query cannot begin at '%s'",
						stream_name, start),
				 errdetail("Catching up with a running stream is not part of this release."),
				 errhint("Use WITH (start = 'latest'), or create the queries of a stream in one transaction.")));
	return now;
}

/* Are there rows in a database stream that this query will not count? */
static bool
leaves_rows_out(Oid stream, const char *start)
{
	KdaStreamIds ids;
	char	   *found;

	if (kda_parse_start(start).kind == KDA_START_EARLIEST || kda_stream_options_get(stream)->server_type != NULL ||
		!kda_stream_ids(stream, &ids) || !OidIsValid(ids.inbox))
		return false;
	return kda_owner_row(psprintf("SELECT 1 FROM kda_storage.%s UNION ALL SELECT 1 FROM kda_storage.%s LIMIT 1",
								  quote_identifier(get_rel_name(ids.inbox)),
								  quote_identifier(get_rel_name(ids.inbox2))), 1, &found);
}

/*---- the statement */

/* A quoted name that says no more than it would without quotes. */
static bool
needs_no_quotes(const char *name)
{
	return strcmp(quote_identifier(name), name) == 0;
}

/*
 * A CREATE statement without what makes no difference: blanks, comments,
 * OR REPLACE, case of words, quotes around plain names, DESCRIPTION.
 */
static char *
essence(const char *statement)
{
	KdaTokens  *tokens = kda_scan(statement, 0, strlen(statement), true);
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < tokens->n; i++)
	{
		const KdaToken *t = &tokens->t[i];
		char	   *value;

		if (i == 1 && kda_token_is(tokens, 1, "or") && kda_token_is(tokens, 2, "replace"))
			i = 2;
		else if (t->depth == 0 && kda_token_is(tokens, i, "description") &&
				 tokens->t[i + 1].kind == KDA_TOKEN_STRING)
			i++;
		else if (t->kind == KDA_TOKEN_WORD)
			appendStringInfo(&s, "%s ", kda_token_value(tokens, i));
		else if (t->kind == KDA_TOKEN_QUOTED && needs_no_quotes(value = kda_token_value(tokens, i)))
			appendStringInfo(&s, "%s ", value);
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
		kda_notice_exists(stmt->name->relname);
		return true;
	}
	if (!stmt->or_replace || !kda_query_ids(existing, &ids))
		return false;			/* core's own error says it */
	if (!kda_is_relation_owner(existing))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, stmt->name->relname);
	one_row(psprintf("SELECT definition FROM kda_storage.query WHERE query_id = %d", ids.id),
			&had, NULL);
	if (had && strcmp(essence(had), essence(definition)) == 0)
	{
		/* the same: nothing happens, but for the comment */
		if (stmt->description)
			CreateComments(existing, RelationRelationId, 0, stmt->description);
		return true;
	}
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("\"%s\" is running with another definition", stmt->name->relname),
			 errdetail("Replacing the query of a running one is not part of this release."),
			 errhint("DROP it and CREATE it again.")));
}

static char *
definition_text(KdaStmt *stmt)
{
	/* a part of a query has none */
	char	   *text = pstrdup(stmt->text ? stmt->text : "");
	int			n = strlen(text);

	while (n > 0 && isspace((unsigned char) text[n - 1]))
		text[--n] = '\0';
	return text;
}

/*
 * A pump's rows arrive in a security-restricted context, in which core does
 * not let a trigger wait for the end of the transaction.
 */
static void
refuse_deferred_triggers(Oid target, bool updates)
{
	List	   *members = find_all_inheritors(target, AccessShareLock, NULL);
	ListCell   *lc;

	foreach(lc, members)
	{
		Relation	rel = table_open(lfirst_oid(lc), NoLock);

		for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
		{
			Trigger    *trigger = &rel->trigdesc->triggers[i];

			if (!trigger->tginitdeferred || trigger->tgenabled == TRIGGER_DISABLED ||
				trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA ||
				!(TRIGGER_FOR_INSERT(trigger->tgtype) || (updates && TRIGGER_FOR_UPDATE(trigger->tgtype))))
				continue;
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a pump cannot write into table \"%s\"", RelationGetRelationName(rel)),
					 errdetail("Its trigger \"%s\"%s is deferred to the end of the transaction.", trigger->tgname,
							   OidIsValid(trigger->tgconstraint) ?
							   psprintf(" of constraint \"%s\"", get_constraint_name(trigger->tgconstraint)) : ""),
					 errhint("Make the constraint INITIALLY IMMEDIATE: ALTER TABLE ... ALTER CONSTRAINT ... INITIALLY IMMEDIATE.")));
		}
		table_close(rel, NoLock);
	}
}

/* Target of a pump: a stream of this database or a table. */
static void
check_target(InsertStmt *insert, Oid *target, bool *is_stream)
{
	char	   *name = insert->relation->relname;
	char		kind;
	KdaQueryIds ids;

	*target = RangeVarGetRelid(insert->relation, RowExclusiveLock, false);
	*is_stream = kda_is_stream(*target);
	kind = get_rel_relkind(*target);
	if (*is_stream)
	{
		KdaOutputIds output;

		kda_outbox_check_writable(*target);
		if (kda_output_ids(*target, &output) && OidIsValid(output.source))
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" is an output", name),
					 errhint("Write into the stream that it sends out, \"%s\".", get_rel_name(output.source))));
	}
	if ((kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE && kind != RELKIND_VIEW &&
		 kind != RELKIND_FOREIGN_TABLE) || (kind == RELKIND_VIEW && kda_query_ids(*target, &ids)))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is neither a stream nor a table", name)));
	if (*is_stream && insert->onConflictClause)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ON CONFLICT cannot be used with stream \"%s\"", name),
				 errhint("It is for pumps into tables.")));
	if (kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE)
		refuse_deferred_triggers(*target, insert->onConflictClause != NULL);
}

/* Pumps that write the stream which their source is made of, directly or not. */
static void
refuse_cycle(Oid source, Oid target, const char *name)
{
	char	   *found;

	if (source != target &&
		!one_row(psprintf("WITH RECURSIVE up(rel) AS (SELECT %u::oid UNION "
						  "SELECT s.rel FROM up JOIN kda_storage.query q ON q.target::oid = up.rel, "
						  "LATERAL (VALUES (q.stream::oid), (q.stream2::oid)) s(rel) WHERE s.rel IS NOT NULL) "
						  "SELECT 1 FROM up WHERE rel = %u", source, target), &found, NULL))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("pump \"%s\" would feed stream \"%s\" from itself", name, get_rel_name(target)),
			 errhint("A stream must not depend on what it is made of.")));
}

static bool
is_part(Oid stream)
{
	return get_rel_namespace(stream) == get_namespace_oid(KDA_STORAGE_SCHEMA, true);
}

/* A pump's rows are read in the transaction order of one process. */
static void
same_worker(Oid source, Oid target)
{
	char	   *a = kda_stream_options_get(source)->worker;
	char	   *b = kda_stream_options_get(target)->worker;

	if (strcmp(a, b) == 0)
		return;
	/* users know nothing of a stream between the parts of a query */
	if (is_part(source) || is_part(target))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("the streams of a query are on different workers"),
				 errdetail("Option worker of stream \"%s\" is '%s', that of another one '%s'.",
						   get_rel_name(is_part(source) ? target : source), is_part(source) ? b : a, is_part(source) ? a : b),
				 errhint("Streams that a query ties together share a worker: ALTER STREAM ... OPTIONS (SET worker '...').")));
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("streams \"%s\" and \"%s\" are on different workers", get_rel_name(source),
						get_rel_name(target)),
				 errdetail("Option worker is '%s' and '%s'.", a, b),
				 errhint("Streams that a query ties together share a worker: ALTER STREAM ... OPTIONS (SET worker '...').")));
}

/* The columns of a stream of ours were made for the first branch of a UNION ALL: do the others fit? */
static void
check_part_columns(KdaStmt *stmt, KdaSplit *split, const char *source_text)
{
	Relation	rel = table_open(stmt->part_target, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);

	if (desc->natts != split->ncolumns)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("each UNION query must have the same number of columns")));
	for (int i = 0; i < desc->natts; i++)
		if (!can_coerce_type(1, &split->types[i], &TupleDescAttr(desc, i)->atttypid, COERCION_ASSIGNMENT))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("UNION types %s and %s cannot be matched", format_type_be(TupleDescAttr(desc, i)->atttypid),
							format_type_be(split->types[i]))));
	table_close(rel, NoLock);
}

#define JOIN_ONE_SLOT	"A join of streams finds matches among the records of all shards."

static const char *
why_one_slot(KdaSplit *split, bool pump, const KdaEmission *emission)
{
	if (split->one_slot == NULL && emission->shown)
		return "What it has emitted is compared with what the records of all shards give now.";
	if (split->one_slot == NULL && split->time)
		return "It puts the records of all shards into one order.";
	if (split->one_slot == NULL && pump && split->shape == KDA_SHAPE_GROUPS)
		return "It hands on groups that are made of the records of all shards, whenever they change.";
	return split->one_slot;
}

/* Several processes read the stream: those that have to be run by one get its records from them. */
static void
ensure_relay(Oid stream, const char *one_slot)
{
	if (one_slot && kda_stream_parallelism(stream) > 1)
		kda_stream_ensure_relay(stream);
}

void
kda_parallelism_changed(Oid stream)
{
	char	   *found;

	if (kda_stream_parallelism(stream) > 1 &&
		kda_owner_row(psprintf("SELECT 1 FROM kda_storage.query q WHERE %u IN (q.stream::oid, q.stream2::oid) AND q.one_slot IS NOT NULL LIMIT 1", stream),
					  1, &found))
		kda_stream_ensure_relay(stream);
}

static const char *const shape_names[] = {"rows", "groups", "windows", "join", "over"};

static char *
regclass_literal(Oid relid)
{
	return OidIsValid(relid) ? psprintf("%u::pg_catalog.regclass", relid) : "NULL";
}

/* A group that HAVING leaves out since a record has come: nobody tells what is to be taken away. */
static void
refuse_vanishing(KdaSplit *split, Oid target)
{
	if (split->shape == KDA_SHAPE_GROUPS && split->user->havingQual && kda_stream_options_get(target)->upsert)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a pump without a window cannot have HAVING when it writes stream \"%s\"", get_rel_name(target)),
				 errdetail("With changelog 'upsert' each group that no longer qualifies would need a record that takes the earlier one away, which this release does not make."),
				 errhint("Make columns of the conditions of HAVING, or use changelog 'append'.")));
}

/*
 * Makes the query's storage, views and catalog row.  part_of: the number of the
 * query that it is a part of, 0: it is one of its own.  Returns the view that
 * stands for it.
 */
static Oid
build(KdaStmt *stmt, const char *source_text, const QueryOptions *options, int32 id, Oid namespace,
	  bool add_window_columns, int32 part_of)
{
	bool		pump = stmt->kind == KDA_STMT_CREATE_PUMP;
	Oid			owner = GetUserId();
	KdaSplit   *split;
	char	   *search_path = pstrdup(namespace_search_path);
	Oid			target = InvalidOid;
	bool		target_is_stream = false;
	bool		outside = false;	/* that stream is on an outside server */
	int32		stream_id;
	const char *start;
	char	   *snapshot;
	char	   *qualified;
	Oid			view;
	Oid			batch,
				open = InvalidOid,
				closed = InvalidOid,
				final = InvalidOid,
				merged = InvalidOid,
				empty = InvalidOid;
	KdaEmission emission;
	Oid			shown = InvalidOid;
	const char *one_slot;
	char	   *prune = NULL;
	Query	   *no_rows;
	KdaOwnerScope scope;

	split = kda_split_query(stmt->query, source_text, options->time_zone, add_window_columns);
	if (split->ncolumns == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("a continuous query must have at least one column")));
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
	if (options->retention && split->shape == KDA_SHAPE_GROUPS)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("retention of a view without a window is not part of this release"),
				 errhint("With WINDOWED BY, or without aggregates, rows go by their time.")));
	kda_emission_decide(stmt, split, source_text, part_of != 0, &emission);
	split->shows_key = emission.shown && split->window && !kda_window_is_aligned(split->window);
	if (pump && split->shape == KDA_SHAPE_GROUPS && split->per_window)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a pump without a window cannot have such a query"),
				 errdetail("DISTINCT, ORDER BY, LIMIT, window functions, and aggregates that cannot be combined look at all records that ever came: none of its rows is ever final."),
				 errhint("Add WINDOWED BY, or CREATE CONTINUOUS VIEW and read it.")));
	if (pump)
	{
		if (OidIsValid(stmt->part_target))
		{
			target = stmt->part_target;
			target_is_stream = true;
			check_part_columns(stmt, split, source_text);
		}
		else
			check_target(stmt->insert, &target, &target_is_stream);
		if (target_is_stream)
		{
			refuse_cycle(split->stream, target, stmt->name->relname);
			outside = kda_stream_options_get(target)->server_type != NULL;
			if (outside)
				refuse_vanishing(split, target);
			else
				same_worker(split->stream, target);
		}
	}
	one_slot = why_one_slot(split, pump, &emission);
	stream_id = kda_stream_ensure_storage(split->stream);
	ensure_relay(split->stream, one_slot);
	if (outside)
		(void) kda_outbox_ensure(target, InvalidOid);
	else if (target_is_stream)
		(void) kda_stream_ensure_storage(target);
	start = options->start ? options->start :
		kda_stream_options_get(split->stream)->start_text;
	snapshot = begin_reading(split, start, stream_id,
							 quote_qualified_identifier(get_namespace_name(get_rel_namespace(split->stream)),
														get_rel_name(split->stream)));

	/* Storage, the view of the per-batch part, and that of the final part. */
	batch = kda_store_view(psprintf("batch_%d", id), split->batch, owner);
	if (split->shape != KDA_SHAPE_ROWS)
	{
		kda_run_as_owner(kda_split_open_ddl(split, storage_name("open", id)));
		CommandCounterIncrement();
		open = storage_oid("open", id);
		final = kda_store_view(psprintf("final_%d", id), kda_split_final(split, open, id), owner);
		if (one_slot == NULL && kda_stream_options_get(split->stream)->server_type != NULL)
		{
			Query	   *by_slots = kda_split_merged(split, open, id);

			if (by_slots)
				merged = kda_store_view(psprintf("merged_%d", id), by_slots, owner);
		}
		no_rows = kda_split_empty(split);
		if (no_rows)
			empty = kda_store_view(psprintf("empty_%d", id), no_rows, owner);
	}
	if (split->shape == KDA_SHAPE_OVER)
		prune = kda_split_prune_sql(split, open);
	if (!pump && split->shape != KDA_SHAPE_GROUPS)
	{
		kda_run_as_owner(psprintf("CREATE TABLE %s (kda_time pg_catalog.timestamptz%s%s); "
								  "CREATE INDEX ON %s (kda_time)",
								  storage_name("closed", id), split->ncolumns ? ", " : "",
								  typed_columns(split), storage_name("closed", id)));
		CommandCounterIncrement();
		closed = storage_oid("closed", id);
	}

	if (emission.shown)
	{
		kda_run_as_owner(psprintf("CREATE TABLE %s (kda_time pg_catalog.timestamptz NOT NULL, kda_revision int NOT NULL, "
								  "kda_gone boolean NOT NULL, %s%s); CREATE INDEX ON %s (%skda_time)",
								  storage_name("shown", id), split->shows_key ? "kda_key bigint NOT NULL, " : "", typed_columns(split),
								  storage_name("shown", id), split->shows_key ? "kda_key, " : ""));
		CommandCounterIncrement();
		shown = storage_oid("shown", id);
	}

	/* What users read. */
	qualified = quote_qualified_identifier(get_namespace_name(namespace), stmt->name->relname);
	kda_run_as_owner(psprintf("CREATE VIEW %s (%s) AS %s", qualified, column_list(split),
							  user_view_sql(stmt, split, &emission, id)));
	CommandCounterIncrement();
	view = get_relname_relid(stmt->name->relname, namespace);

	hand_over(batch, owner, view);
	if (OidIsValid(final))
		hand_over(final, owner, view);
	if (OidIsValid(merged))
		hand_over(merged, owner, view);
	if (OidIsValid(empty))
		hand_over(empty, owner, view);
	if (OidIsValid(open))
		hand_over(open, owner, view);
	if (OidIsValid(closed))
		hand_over(closed, owner, view);
	if (OidIsValid(shown))
		hand_over(shown, owner, view);
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
		CommandCounterIncrement();	/* the view is the user's */
		if (stmt->insert)
			kda_store_insert(view, stmt->insert, stmt->query->select->targetList, stmt->text);
	}

	kda_run_as_owner(psprintf("INSERT INTO kda_storage.query (query_id, rel, kind, definition, stream, shape, "
							  "state, window_spec, per_window, emit, start, start_snapshot, stopped, retention, nkeys, "
							  "batch, final, open, closed, target, shown, search_path, part_of, delay_us, sort_strict, retimed, prune_text, "
							  "every_us, shown_keys, revision_columns, one_slot) VALUES "
							  "(%d, %s, '%s', %s, %s, '%s', %s, %s, %s, '%s', %s, %s, %s, %s, %d, %s, %s, %s, %s, %s, %s, %s, %s, " INT64_FORMAT ", %s, %s, %s, "
							  INT64_FORMAT ", %s, %s, %s); "
							  "INSERT INTO kda_storage.query_progress (query_id, complete_from) VALUES (%d, %s)",
							  id, regclass_literal(view), pump ? "pump" : "view",
							  quote_literal_cstr(definition_text(stmt)), regclass_literal(split->stream),
							  shape_names[split->shape],
							  split->state == KDA_STATE_NONE ? "NULL" : split->state == KDA_STATE_GROUPS ? "'groups'" : "'rows'",
							  split->window ? quote_literal_cstr(split->window_text) : "NULL",
							  split->per_window ? "true" : "false",
							  emission.mode, quote_literal_cstr(start),
							  snapshot ? quote_literal_cstr(snapshot) : "NULL",
							  stmt->stopped ? "true" : "false",
							  options->retention ? quote_literal_cstr(options->retention) : "NULL",
							  split->nkeys, regclass_literal(batch), regclass_literal(final),
							  regclass_literal(open), regclass_literal(closed), regclass_literal(target), regclass_literal(shown),
							  quote_literal_cstr(search_path), part_of ? psprintf("%d", part_of) : "NULL",
							  split->delay_us, split->sort_strict ? "true" : "false", split->time ? "true" : "false",
							  prune ? quote_literal_cstr(prune) : "NULL", emission.every_us,
							  emission.keys ? quote_literal_cstr(emission.keys) : "NULL",
							  emission.revisions ? quote_literal_cstr(emission.revisions) : "NULL",
							  one_slot ? quote_literal_cstr(one_slot) : "NULL", id,
							  leaves_rows_out(split->stream, start) ? "'infinity'" : "NULL"));
	return view;
}

Oid
kda_create_part(KdaCompose *c, KdaQuerySpec *spec, Oid target, bool add_window_columns)
{
	KdaStmt    *stmt = palloc0(sizeof(KdaStmt));
	QueryOptions options = {0};
	int32		id = kda_next_id();

	stmt->kind = KDA_STMT_CREATE_PUMP;
	stmt->object = KDA_OBJECT_PUMP;
	stmt->name = makeRangeVar(KDA_STORAGE_SCHEMA, psprintf("part_%d", id), -1);
	stmt->query = spec;
	stmt->part_target = target;
	options.start = c->start ? pstrdup(c->start) : NULL;
	options.time_zone = c->time_zone ? pstrdup(c->time_zone) : NULL;
	return build(stmt, c->source_text, &options, id, get_namespace_oid(KDA_STORAGE_SCHEMA, false), add_window_columns,
				 c->query_id);
}

/* Its columns are those of the output by their places: no INSERT stands behind it. */
Oid
kda_create_output_pump(const char *text, Oid output, const char *start)
{
	KdaStmt    *stmt = kda_parse_statement(text);
	QueryOptions options = {0};

	stmt->insert = NULL;
	stmt->part_target = output;
	options.start = start ? pstrdup(start) : NULL;
	return build(stmt, stmt->text, &options, kda_next_id(), get_namespace_oid(KDA_STORAGE_SCHEMA, false), false, 0);
}

/*---- joins */

static char *
kept_columns(KdaSplit *side)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < side->ncolumns; i++)
		appendStringInfo(&s, ", c%d %s", i + 1,
						 kda_column_type_sql(side->types[i], side->typmods[i], side->collations[i]));
	return s.data;
}

int32
kda_join_tables(KdaJoinParts *parts, List *equal, Oid *kept)
{
	static const char *const names[] = {"left", "right"};
	int32		id = kda_next_id();

	for (int i = 0; i < 2; i++)
	{
		char	   *table = storage_name(names[i], id);
		StringInfoData s;
		ListCell   *lc;
		bool		mine = i == 0;

		initStringInfo(&s);
		appendStringInfo(&s, "CREATE TABLE %s (kda_slot smallint NOT NULL DEFAULT 0, kda_time pg_catalog.timestamptz NOT NULL, "
						 "kda_mark pg_catalog.timestamptz NOT NULL, kda_seq bigint NOT NULL%s, "
						 "kda_matched boolean NOT NULL DEFAULT false); CREATE INDEX ON %s (kda_time); CREATE INDEX ON %s (kda_seq); ",
						 table, kept_columns(parts->sides[i]), table, table);
		if (equal)
		{
			appendStringInfo(&s, "CREATE INDEX ON %s (", table);
			foreach(lc, equal)
			{
				if (mine)
					appendStringInfo(&s, "c%d, ", lfirst_int(lc));
				mine = !mine;
			}
			appendStringInfoString(&s, "kda_time)");
		}
		kda_run_as_owner(s.data);
		CommandCounterIncrement();
		kept[i] = storage_oid(names[i], id);
	}
	return id;
}

Oid
kda_create_join_part(KdaCompose *c, KdaJoinParts *parts, Oid *kept)
{
	int32		id = parts->id;
	Oid			owner = GetUserId();
	Oid			view;
	Oid			batches[2];
	Oid			match;
	char	   *snapshots[2];
	const char *start = c->start;
	KdaOwnerScope scope;
	ObjectAddress self,
				parent;

	for (int i = 0; i < 2; i++)
	{
		Oid			stream = parts->sides[i]->stream;
		const char *begin = start ? start : kda_stream_options_get(stream)->start_text;

		snapshots[i] = begin_reading(parts->sides[i], begin, kda_stream_ensure_storage(stream),
									 quote_qualified_identifier(get_namespace_name(get_rel_namespace(stream)), get_rel_name(stream)));
		same_worker(stream, parts->target);
		ensure_relay(stream, JOIN_ONE_SLOT);
		batches[i] = kda_store_view(psprintf(i == 0 ? "batch_%d" : "rbatch_%d", id), parts->sides[i]->batch, owner);
	}
	match = kda_store_view(psprintf("final_%d", id), parts->match, owner);
	kda_run_as_owner(psprintf("CREATE VIEW %s AS SELECT WHERE false", storage_name("part", id)));
	CommandCounterIncrement();
	view = storage_oid("part", id);
	for (int i = 0; i < 2; i++)
	{
		hand_over(batches[i], owner, view);
		hand_over(kept[i], owner, view);
	}
	hand_over(match, owner, view);
	kda_owner_begin(&scope);
	ATExecChangeOwner(view, owner, false, AccessExclusiveLock);
	kda_owner_end(&scope);
	ObjectAddressSet(self, RelationRelationId, view);
	ObjectAddressSet(parent, RelationRelationId, parts->target);
	recordDependencyOn(&self, &parent, DEPENDENCY_NORMAL);

	kda_run_as_owner(psprintf("INSERT INTO kda_storage.query (query_id, rel, kind, definition, stream, shape, emit, start, start_snapshot, "
							  "batch, final, open, target, part_of, stream2, batch2, open2, start_snapshot2, join_low_us, join_high_us, join_outer, search_path, one_slot) VALUES "
							  "(%d, %s, 'pump', '', %s, 'join', 'changes', %s, %s, %s, %s, %s, %s, %d, %s, %s, %s, %s, " INT64_FORMAT ", " INT64_FORMAT ", %d, %s, %s); "
							  "INSERT INTO kda_storage.query_progress (query_id) VALUES (%d)",
							  id, regclass_literal(view), regclass_literal(parts->sides[0]->stream),
							  quote_literal_cstr(start ? start : "latest"),
							  snapshots[0] ? quote_literal_cstr(snapshots[0]) : "NULL",
							  regclass_literal(batches[0]), regclass_literal(match), regclass_literal(kept[0]),
							  regclass_literal(parts->target), c->query_id, regclass_literal(parts->sides[1]->stream),
							  regclass_literal(batches[1]), regclass_literal(kept[1]),
							  snapshots[1] ? quote_literal_cstr(snapshots[1]) : "NULL",
							  parts->low_us, parts->high_us, (parts->outer[0] ? 1 : 0) + (parts->outer[1] ? 2 : 0),
							  quote_literal_cstr(namespace_search_path), quote_literal_cstr(JOIN_ONE_SLOT), id));
	CommandCounterIncrement();
	kda_catalog_changed();
	return view;
}

void
kda_create_query(KdaStmt *stmt)
{
	const char *source_text = stmt->text;
	bool		pump = stmt->kind == KDA_STMT_CREATE_PUMP;
	QueryOptions options;
	char	   *definition = definition_text(stmt);
	Oid			namespace;
	Oid			existing;
	KdaCompose	compose = {0};
	int32		id;
	Oid			view;
	ListCell   *lc;

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

	id = kda_next_id();
	compose.spec = stmt->query;
	compose.source_text = source_text;
	compose.time_zone = options.time_zone;
	compose.start = options.start;
	compose.query_id = id;
	compose.is_view = !pump;
	kda_compose(&compose);
	view = build(stmt, source_text, &options, id, namespace, !pump, 0);
	foreach(lc, compose.parts)
	{
		ObjectAddress self,
					parent;

		ObjectAddressSet(self, RelationRelationId, lfirst_oid(lc));
		ObjectAddressSet(parent, RelationRelationId, view);
		recordDependencyOn(&self, &parent, DEPENDENCY_INTERNAL);
	}
	if (stmt->description)
		CreateComments(view, RelationRelationId, 0, stmt->description);
	kda_catalog_changed();
}
