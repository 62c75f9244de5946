/*-------------------------------------------------------------------------
 *
 * options.c
 *	  The options of streams, columns, servers and user mappings: one table of
 *	  names feeds the validator, its hints and kda_stream_options_get().
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/reloptions.h"
#include "access/sysattr.h"
#include "catalog/rows.h"
#include "catalog/options.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "common/int.h"
#include "fmgr.h"
#include "format/format.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

/*---- what there is */

typedef enum Value
{
	V_TEXT,						/* anything but '' */
	V_BOOL,
	V_DELAY,					/* interval, not negative */
	V_DELAY_OR_NEVER,
	V_FORMAT,
	V_START,
	V_ON_ERROR,
	V_CHAR,						/* one byte */
	V_ANY,						/* may be empty */
	V_COUNT,					/* a positive number */
	V_ZONE,
	V_DELIVERY,
	V_CHANGELOG,
	V_CODEC,
	V_COLUMNS,					/* names of columns; whether they are there is seen when the statement is done */
	V_CHANNEL,
	V_RECORDS,					/* from 1 to a million */
	V_BYTES,					/* a size as of a parameter: '4MB' */
	V_SCHEMA,					/* an Avro schema */
	V_LATER						/* known, but not part of this release */
} Value;

typedef enum Place
{
	P_ANY,
	P_SOURCE,					/* streams of outside servers */
	P_DATABASE					/* streams of the database */
} Place;

typedef struct Option
{
	const char *name;
	Value		value;
	Place		place;
	KdaFormatKind format;		/* P_SOURCE: only with this format; -1: any */
} Option;

#define ANY_FORMAT ((KdaFormatKind) -1)

static const Option stream_options[] = {
	{"topic", V_TEXT, P_SOURCE, ANY_FORMAT},
	{"stream", V_TEXT, P_SOURCE, ANY_FORMAT},
	{"format", V_FORMAT, P_SOURCE, ANY_FORMAT},
	{"row_path", V_TEXT, P_SOURCE, KDA_FORMAT_JSON},
	{"delimiter", V_CHAR, P_SOURCE, KDA_FORMAT_CSV},
	{"header", V_BOOL, P_SOURCE, KDA_FORMAT_CSV},
	{"null", V_ANY, P_SOURCE, KDA_FORMAT_CSV},
	{"schema", V_SCHEMA, P_SOURCE, KDA_FORMAT_AVRO},
	{"schema_registry", V_TEXT, P_SOURCE, KDA_FORMAT_AVRO},
	{"rowtime", V_ANY, P_ANY, ANY_FORMAT},
	{"time_zone", V_ZONE, P_ANY, ANY_FORMAT},
	{"watermark", V_DELAY, P_ANY, ANY_FORMAT},
	{"max_ahead", V_DELAY_OR_NEVER, P_ANY, ANY_FORMAT},
	{"allowed_lateness", V_DELAY, P_ANY, ANY_FORMAT},
	{"idle_timeout", V_DELAY_OR_NEVER, P_ANY, ANY_FORMAT},
	{"start", V_START, P_ANY, ANY_FORMAT},
	{"retention", V_DELAY, P_ANY, ANY_FORMAT},
	{"on_error", V_ON_ERROR, P_ANY, ANY_FORMAT},
	{"writable", V_BOOL, P_SOURCE, ANY_FORMAT},
	{"worker", V_TEXT, P_ANY, ANY_FORMAT},
	{"parallelism", V_COUNT, P_ANY, ANY_FORMAT},
	{"durable", V_BOOL, P_DATABASE, ANY_FORMAT},
	{"key", V_COLUMNS, P_ANY, ANY_FORMAT},
	{"headers", V_TEXT, P_SOURCE, ANY_FORMAT},
	{"explicit_hash_key", V_TEXT, P_SOURCE, ANY_FORMAT},
	{"delivery", V_DELIVERY, P_SOURCE, ANY_FORMAT},
	{"compression", V_CODEC, P_SOURCE, ANY_FORMAT},
	{"changelog", V_CHANGELOG, P_SOURCE, ANY_FORMAT},
	{"batch_records", V_RECORDS, P_SOURCE, ANY_FORMAT},
	{"batch_bytes", V_BYTES, P_SOURCE, ANY_FORMAT},
	{"ordered", V_BOOL, P_SOURCE, ANY_FORMAT},
	{"sequence_key", V_ANY, P_SOURCE, ANY_FORMAT},
	{"notify", V_CHANNEL, P_ANY, ANY_FORMAT},
	{"fan_out", V_LATER, P_ANY, ANY_FORMAT},
};

static const char *const format_names[] = {"json", "csv", "text", "bytea", "avro"};
static const char *const meta_names[] = {"", "shard", "position", "arrival", "key", "headers"};
static const char *const codec_names[] = {"none", "gzip", "snappy", "lz4", "zstd"};
static const char *const time_format_names[] = {"iso8601", "epoch", "epoch_ms"};

static int
find_name(const char *const *names, int n, const char *value)
{
	for (int i = 0; i < n; i++)
		if (strcmp(names[i], value) == 0)
			return i;
	return -1;
}

static void
bad_value(const char *option, const char *value, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for option \"%s\": \"%s\"", option, value),
			 errhint("%s", hint)));
}

/*---- single values */

/* An interval as µs, a month as 30 days. */
static int64
delay_us(const char *option, const char *value)
{
	Interval   *iv = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(value),
														   ObjectIdGetDatum(InvalidOid),
														   Int32GetDatum(-1)));
	int64		us;

	if (iv->time < 0 || iv->day < 0 || iv->month < 0)
		bad_value(option, value, "It must not be negative.");
	if (pg_mul_s64_overflow((int64) iv->day + (int64) iv->month * DAYS_PER_MONTH, USECS_PER_DAY, &us) ||
		pg_add_s64_overflow(us, iv->time, &us) || us > INT64CONST(100) * 366 * USECS_PER_DAY)
		bad_value(option, value, "It must not be longer than a hundred years.");
	return us;
}

static int64
delay_or_never_us(const char *option, const char *value)
{
	return pg_strcasecmp(value, "never") == 0 ? KDA_NEVER_US : delay_us(option, value);
}

static bool
bool_value(const char *option, const char *value)
{
	bool		result;

	if (!parse_bool(value, &result))
		bad_value(option, value, "It is 'true' or 'false'.");
	return result;
}

/* '4MB' and the like. */
static int64
bytes_value(const char *option, const char *value)
{
	int			kb;

	if (!parse_int(value, &kb, GUC_UNIT_KB, NULL) || kb < 1 || kb > 1024 * 1024)
		bad_value(option, value, "It is a size from '1kB' to '1GB'.");
	return (int64) kb * 1024;
}

KdaShardStart
kda_parse_start(const char *value)
{
	KdaShardStart start = {0};

	start.last_position = -1;
	start.last_arrival = KDA_NO_TIME;
	if (pg_strcasecmp(value, "earliest") == 0 || pg_strcasecmp(value, "trim_horizon") == 0)
		start.kind = KDA_START_EARLIEST;
	else if (pg_strcasecmp(value, "latest") == 0 || pg_strcasecmp(value, "now") == 0)
		start.kind = KDA_START_LATEST;
	else
	{
		if (value[0] == '\0' || !isdigit((unsigned char) value[0]))
			bad_value("start", value, "It is 'earliest', 'latest' or a timestamp.");
		start.kind = KDA_START_TIME;
		start.time = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(value),
															 ObjectIdGetDatum(InvalidOid),
															 Int32GetDatum(-1)));
	}
	return start;
}

static void
check_value(const Option *option, const char *value)
{
	switch (option->value)
	{
		case V_ANY:
			break;
		case V_TEXT:
			if (value[0] == '\0')
				bad_value(option->name, value, "It must not be empty.");
			if (strcmp(option->name, "worker") == 0 && strlen(value) >= NAMEDATALEN)
				bad_value(option->name, value, "The name of a worker has at most 63 bytes.");
			break;
		case V_BOOL:
			(void) bool_value(option->name, value);
			break;
		case V_DELAY:
			(void) delay_us(option->name, value);
			break;
		case V_DELAY_OR_NEVER:
			(void) delay_or_never_us(option->name, value);
			break;
		case V_FORMAT:
			if (find_name(format_names, lengthof(format_names), value) < 0)
				bad_value(option->name, value, "Formats: json, csv, avro, text, bytea.");
			break;
		case V_START:
			(void) kda_parse_start(value);
			break;
		case V_ON_ERROR:
			if (strcmp(value, "continue") != 0 && strcmp(value, "stop") != 0)
				bad_value(option->name, value, "It is 'continue' or 'stop'.");
			break;
		case V_CHAR:
			if (strlen(value) != 1 || value[0] == '"' || value[0] == '\n' || value[0] == '\r')
				bad_value(option->name, value, "It is one byte, and neither a quote nor an end of line.");
			break;
		case V_COUNT:
			{
				int64		n = strtoi64(value, NULL, 10);

				if (n < 1 || n > 1024)
					bad_value(option->name, value, "It is a number from 1 on.");
			}
			break;
		case V_ZONE:
			/* a name of pg_timezone_names: an abbreviation does not say what it means in other years */
			if (pg_tzset(value) == NULL || !pg_tz_acceptable(pg_tzset(value)))
				bad_value(option->name, value, "It is a name such as 'UTC' or 'Asia/Seoul', see pg_timezone_names.");
			break;
		case V_DELIVERY:
			if (strcmp(value, "exactly_once") != 0 && strcmp(value, "at_least_once") != 0)
				bad_value(option->name, value, "It is 'exactly_once' or 'at_least_once'.");
			break;
		case V_CHANGELOG:
			if (strcmp(value, "append") != 0 && strcmp(value, "upsert") != 0)
				bad_value(option->name, value, "It is 'append' or 'upsert'.");
			break;
		case V_CODEC:
			if (find_name(codec_names, lengthof(codec_names), value) < 0)
				bad_value(option->name, value, "It is none, gzip, snappy, lz4 or zstd.");
			break;
		case V_COLUMNS:
			if (value[0] == '\0')
				bad_value(option->name, value, "It is the name of a column, or several with commas between them.");
			break;
		case V_CHANNEL:
			if (value[0] == '\0' || strlen(value) >= NAMEDATALEN)
				bad_value(option->name, value, "It is the name of a channel that sessions LISTEN to, of at most 63 bytes.");
			break;
		case V_RECORDS:
			{
				int64		n = strtoi64(value, NULL, 10);

				if (n < 1 || n > 1000000)
					bad_value(option->name, value, "It is a number from 1 to 1000000.");
			}
			break;
		case V_BYTES:
			(void) bytes_value(option->name, value);
			break;
		case V_SCHEMA:
			kda_format_check_schema(value);
			break;
		case V_LATER:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("option \"%s\" is not part of this release", option->name)));
			break;
	}
}

static const Option *
find_option(const char *name)
{
	for (int i = 0; i < lengthof(stream_options); i++)
		if (strcmp(stream_options[i].name, name) == 0)
			return &stream_options[i];
	return NULL;
}

static char *
stream_option_names(void)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < lengthof(stream_options); i++)
		if (stream_options[i].value != V_LATER)
			appendStringInfo(&s, "%s%s", s.len ? ", " : "", stream_options[i].name);
	return s.data;
}

/*---- the validator */

/* Option names that hold secrets in some system: nothing of them may be shown. */
static bool
is_secret_name(const char *name)
{
	return strstr(name, "password") || strstr(name, "secret") || strstr(name, "token") ||
		strcmp(name, "sasl.username") == 0 || strcmp(name, "ssl.key.pem") == 0 ||
		strcmp(name, "access_key_id") == 0;
}

PG_FUNCTION_INFO_V1(kda_fdw_validator);

/*
 * Validator of FOREIGN DATA WRAPPER kda_stream.  Sees one object's options
 * alone; what depends on the server's type is checked when the statement is
 * done (kda_check_server, kda_check_stream).
 */
Datum
kda_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		char	   *value = defGetString(def);

		if (catalog != UserMappingRelationId && is_secret_name(def->defname))
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("option \"%s\" belongs to a user mapping", def->defname),
					 errhint("CREATE USER MAPPING FOR ... SERVER ... OPTIONS (\"%s\" '...');", def->defname),
					 errhidestmt(true), errhidecontext(true)));
		if (catalog == ForeignTableRelationId)
		{
			const Option *option = find_option(def->defname);

			if (option == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
						 errmsg("invalid option \"%s\" of a stream", def->defname),
						 errhint("Options of a stream: %s.", stream_option_names())));
			check_value(option, value);
		}
		else if (catalog == AttributeRelationId)
		{
			if (strcmp(def->defname, "path") == 0)
			{
				if (value[0] != '$')
					bad_value("path", value, "A path begins with $, as in '$.device.id'.");
			}
			else if (strcmp(def->defname, "meta") == 0)
			{
				if (find_name(meta_names + 1, lengthof(meta_names) - 1, value) < 0)
					bad_value("meta", value, "It is shard, position, arrival, key or headers.");
			}
			else if (strcmp(def->defname, "time_format") == 0)
			{
				if (find_name(time_format_names, lengthof(time_format_names), value) < 0)
					bad_value("time_format", value, "It is iso8601, epoch (seconds) or epoch_ms.");
			}
			else
				ereport(ERROR,
						(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
						 errmsg("invalid option \"%s\" of a column", def->defname),
						 errhint("Options of a column: path, meta, time_format.")));
		}
		else if (catalog == ForeignDataWrapperRelationId)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("foreign data wrapper \"kda_stream\" has no options"),
					 errhint("Options belong to servers (CREATE SERVER ... TYPE 'kafka' ... OPTIONS (...)).")));
	}
	PG_RETURN_VOID();
}

bool
kda_is_our_server(Oid serverid)
{
	ForeignServer *server = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	ForeignDataWrapper *wrapper;

	if (server == NULL)
		return false;
	wrapper = GetForeignDataWrapperExtended(server->fdwid, FDW_MISSING_OK);
	return wrapper && strcmp(wrapper->fdwname, KDA_FDW_NAME) == 0;
}

void
kda_check_server(Oid serverid)
{
	ForeignServer *server = GetForeignServer(serverid);

	if (server->servertype == NULL)
	{
		if (creating_extension)
			return;				/* server kda itself */
		if (strcmp(server->servername, KDA_LOCAL_SERVER) == 0 && server->options == NIL)
			return;
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 strcmp(server->servername, KDA_LOCAL_SERVER) == 0 ?
				 errmsg("server \"%s\" has no options", server->servername) :
				 errmsg("server \"%s\" has no type", server->servername),
				 errhint("CREATE SERVER name TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" '...');")));
	}
	kda_connector_check_server(server);
}

void
kda_check_user_mapping(Oid serverid, const RoleSpec *user, List *options)
{
	ForeignServer *server = GetForeignServer(serverid);
	Oid			userid = user->roletype == ROLESPEC_PUBLIC ? InvalidOid : get_rolespec_oid(user, false);
	HeapTuple	tuple;
	List	   *all = NIL;

	if (server->servertype == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("server \"%s\" is this database and needs no user mapping", server->servername),
				 errhidestmt(true), errhidecontext(true)));
	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid), ObjectIdGetDatum(serverid));
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple, Anum_pg_user_mapping_umoptions, &isnull);

		if (!isnull)
			all = untransformRelOptions(value);
		ReleaseSysCache(tuple);
	}
	kda_connector_check_user_mapping(server, options, all);
}

/*---- all of a stream's */

bool
kda_is_stream(Oid relid)
{
	HeapTuple	tuple;
	Oid			server;

	if (get_rel_relkind(relid) != RELKIND_FOREIGN_TABLE)
		return false;
	tuple = SearchSysCache1(FOREIGNTABLEREL, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return false;
	server = ((Form_pg_foreign_table) GETSTRUCT(tuple))->ftserver;
	ReleaseSysCache(tuple);
	return kda_is_our_server(server);
}

static AttrNumber
find_column(TupleDesc desc, const char *name, bool any_case)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped &&
			(any_case ? pg_strcasecmp(NameStr(att->attname), name) : strcmp(NameStr(att->attname), name)) == 0)
			return att->attnum;
	}
	return InvalidAttrNumber;
}

static void
set_option(KdaStreamOptions *o, const char *name, char *value, char **rowtime)
{
	if (strcmp(name, "topic") == 0 || strcmp(name, "stream") == 0)
		o->topic = value;
	else if (strcmp(name, "format") == 0)
		o->format = find_name(format_names, lengthof(format_names), value);
	else if (strcmp(name, "row_path") == 0)
		o->row_path = value;
	else if (strcmp(name, "delimiter") == 0)
		o->delimiter = value[0];
	else if (strcmp(name, "header") == 0)
		o->header = bool_value(name, value);
	else if (strcmp(name, "null") == 0)
		o->null_text = value;
	else if (strcmp(name, "schema") == 0)
		o->schema = value;
	else if (strcmp(name, "schema_registry") == 0)
		o->schema_registry = value;
	else if (strcmp(name, "rowtime") == 0)
		*rowtime = value;
	else if (strcmp(name, "time_zone") == 0)
		o->time_zone = value;
	else if (strcmp(name, "watermark") == 0)
		o->watermark_us = delay_us(name, value);
	else if (strcmp(name, "max_ahead") == 0)
		o->max_ahead_us = delay_or_never_us(name, value);
	else if (strcmp(name, "allowed_lateness") == 0)
		o->allowed_lateness_us = delay_us(name, value);
	else if (strcmp(name, "idle_timeout") == 0)
		o->idle_timeout_us = delay_or_never_us(name, value);
	else if (strcmp(name, "start") == 0)
		o->start_text = value;
	else if (strcmp(name, "retention") == 0)
		o->retention_us = delay_us(name, value);
	else if (strcmp(name, "on_error") == 0)
		o->on_error_stop = strcmp(value, "stop") == 0;
	else if (strcmp(name, "writable") == 0)
	{
		o->writable = bool_value(name, value);
		o->writable_given = true;
	}
	else if (strcmp(name, "delivery") == 0)
	{
		o->exactly_once = strcmp(value, "exactly_once") == 0;
		o->at_least_once = !o->exactly_once;
	}
	else if (strcmp(name, "changelog") == 0)
		o->upsert = strcmp(value, "upsert") == 0;
	else if (strcmp(name, "compression") == 0)
		o->compression = strcmp(value, "none") == 0 ? NULL : value;
	else if (strcmp(name, "batch_records") == 0)
		o->batch_records = (int) strtoi64(value, NULL, 10);
	else if (strcmp(name, "batch_bytes") == 0)
		o->batch_bytes = bytes_value(name, value);
	else if (strcmp(name, "ordered") == 0)
		o->ordered = bool_value(name, value);
	else if (strcmp(name, "sequence_key") == 0)
		o->sequence_key = value;
	else if (strcmp(name, "notify") == 0)
		o->notify = value;
	else if (strcmp(name, "worker") == 0)
		o->worker = value;
	else if (strcmp(name, "parallelism") == 0)
		o->parallelism = (int) strtoi64(value, NULL, 10);
	else if (strcmp(name, "durable") == 0)
		o->durable = bool_value(name, value);
}

static AttrNumber
named_column(TupleDesc desc, const char *option, const char *name)
{
	AttrNumber	attno = find_column(desc, name, false);

	if (attno == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" named in option \"%s\" does not exist", name, option)));
	return attno;
}

/* Option key: one column's name as it stands, or several as in SQL. */
static void
set_keys(KdaStreamOptions *o, TupleDesc desc, const char *value)
{
	List	   *names;
	ListCell   *lc;

	if (find_column(desc, value, false) != InvalidAttrNumber || strchr(value, ',') == NULL)
		names = list_make1(unconstify(char *, value));
	else if (!SplitIdentifierString(pstrdup(value), ',', &names) || names == NIL)
		bad_value("key", value, "It is the name of a column, or several with commas between them.");
	o->keys = palloc(sizeof(AttrNumber) * list_length(names));
	o->nkeys = 0;
	foreach(lc, names)
		o->keys[o->nkeys++] = named_column(desc, "key", lfirst(lc));
}

#define DEFAULT_WORKER	"main"

int
kda_stream_parallelism(Oid relid)
{
	ListCell   *lc;

	foreach(lc, GetForeignTable(relid)->options)
		if (strcmp(lfirst_node(DefElem, lc)->defname, "parallelism") == 0)
			return (int) strtoi64(defGetString(lfirst_node(DefElem, lc)), NULL, 10);
	return 1;
}

char *
kda_stream_worker_name(Oid relid)
{
	ListCell   *lc;

	foreach(lc, GetForeignTable(relid)->options)
		if (strcmp(lfirst_node(DefElem, lc)->defname, "worker") == 0)
			return defGetString(lfirst_node(DefElem, lc));
	return DEFAULT_WORKER;
}

KdaStreamOptions *
kda_stream_options_get(Oid relid)
{
	KdaStreamOptions *o = palloc0(sizeof(KdaStreamOptions));
	ForeignTable *table = GetForeignTable(relid);
	ForeignServer *server = GetForeignServer(table->serverid);
	Relation	rel = relation_open(relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	char	   *rowtime = NULL;
	ListCell   *lc;

	o->relid = relid;
	o->owner = rel->rd_rel->relowner;
	o->serverid = table->serverid;
	o->server_type = server->servertype;
	o->topic = pstrdup(RelationGetRelationName(rel));
	o->delimiter = ',';
	o->null_text = "";
	o->time_zone = "UTC";
	o->max_ahead_us = server->servertype ? USECS_PER_HOUR : KDA_NEVER_US;
	o->idle_timeout_us = 30 * USECS_PER_SEC;
	o->start_text = "latest";
	o->retention_us = 10 * USECS_PER_MINUTE;
	o->writable = true;
	o->durable = true;
	o->worker = DEFAULT_WORKER;
	o->parallelism = 1;
	o->ordered = true;
	o->sequence_key = "kda_seq";
	foreach(lc, table->options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		char	   *value = defGetString(def);

		set_option(o, def->defname, value, &rowtime);
		if (strcmp(def->defname, "key") == 0)
			set_keys(o, desc, value);
		else if (strcmp(def->defname, "headers") == 0)
			o->headers_attno = named_column(desc, def->defname, value);
		else if (strcmp(def->defname, "explicit_hash_key") == 0)
			o->hash_key_attno = named_column(desc, def->defname, value);
	}
	o->start = kda_parse_start(o->start_text);
	o->time_zone_is_utc = pg_strcasecmp(o->time_zone, "UTC") == 0;

	/* '': none is, whatever it is called */
	if (rowtime == NULL || *rowtime != '\0')
		o->rowtime_attno = rowtime ? find_column(desc, rowtime, false) : find_column(desc, "rowtime", true);

	o->columns = palloc0(sizeof(KdaColumnOptions) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		KdaColumnOptions *c = &o->columns[i];

		if (TupleDescAttr(desc, i)->attisdropped)
			continue;
		foreach(lc, GetForeignColumnOptions(relid, i + 1))
		{
			DefElem    *def = lfirst_node(DefElem, lc);
			char	   *value = defGetString(def);

			if (strcmp(def->defname, "path") == 0)
				c->path = value;
			else if (strcmp(def->defname, "meta") == 0)
				c->meta = find_name(meta_names, lengthof(meta_names), value);
			else if (strcmp(def->defname, "time_format") == 0)
				c->time_format = find_name(time_format_names, lengthof(time_format_names), value);
		}
		/* what a record's key and headers are read into, they are written from */
		if (c->meta == KDA_META_KEY && o->nkeys == 0)
		{
			o->keys = palloc(sizeof(AttrNumber));
			o->keys[o->nkeys++] = i + 1;
		}
		else if (c->meta == KDA_META_HEADERS && o->headers_attno == 0)
			o->headers_attno = i + 1;
	}
	relation_close(rel, AccessShareLock);
	return o;
}

static bool
same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

bool
kda_stream_options_equal(const KdaStreamOptions *a, const KdaStreamOptions *b, int natts)
{
	if (a->serverid != b->serverid || !same_text(a->server_type, b->server_type) ||
		!same_text(a->topic, b->topic) || a->format != b->format || !same_text(a->row_path, b->row_path) ||
		a->delimiter != b->delimiter || a->header != b->header || !same_text(a->null_text, b->null_text) ||
		!same_text(a->schema, b->schema) || !same_text(a->schema_registry, b->schema_registry) ||
		a->rowtime_attno != b->rowtime_attno || !same_text(a->time_zone, b->time_zone) ||
		a->watermark_us != b->watermark_us || a->max_ahead_us != b->max_ahead_us ||
		a->allowed_lateness_us != b->allowed_lateness_us || a->idle_timeout_us != b->idle_timeout_us ||
		a->retention_us != b->retention_us || a->on_error_stop != b->on_error_stop ||
		a->durable != b->durable || !same_text(a->worker, b->worker) || a->parallelism != b->parallelism)
		return false;
	for (int i = 0; i < natts; i++)
		if (!same_text(a->columns[i].path, b->columns[i].path) ||
			a->columns[i].meta != b->columns[i].meta ||
			a->columns[i].time_format != b->columns[i].time_format)
			return false;
	return true;
}

void
kda_check_stream(Oid relid)
{
	ForeignTable *table = GetForeignTable(relid);
	KdaStreamOptions *o = kda_stream_options_get(relid);
	Relation	rel = relation_open(relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	const char *name = RelationGetRelationName(rel);
	KdaWriting	how;
	bool		topic = false;
	int			ncolumns = 0;
	ListCell   *lc;

	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" cannot be temporary", name),
				 errdetail("The worker that reads it is another session.")));
	if (o->server_type)
		kda_connector_check_stream(o->server_type, name, o->topic, o->parallelism);

	foreach(lc, table->options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		const Option *option = find_option(def->defname);

		if (option == NULL)
			continue;
		if ((option->place == P_SOURCE) && o->server_type == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("option \"%s\" cannot be used with stream \"%s\"", option->name, name),
					 errdetail("The stream is in the database; the option is for streams of outside servers."),
					 errhint("Name the server: CREATE STREAM ... SERVER ... OPTIONS (...).")));
		if (option->place == P_DATABASE && o->server_type != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("option \"%s\" cannot be used with stream \"%s\"", option->name, name),
					 errdetail("The stream is on an outside server; the option is for streams of the database.")));
		if (option->format != ANY_FORMAT && option->format != o->format)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("option \"%s\" cannot be used with format \"%s\"", option->name,
							format_names[o->format]),
					 errhint("It is for format \"%s\".", format_names[option->format])));
		if (strcmp(option->name, "topic") == 0 || strcmp(option->name, "stream") == 0)
		{
			if (topic)
				ereport(ERROR,
						(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
						 errmsg("options \"topic\" and \"stream\" say the same thing; give one of them")));
			topic = true;
		}
		if (strcmp(option->name, "rowtime") == 0 && o->rowtime_attno == 0 && *defGetString(def) != '\0')
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" named in option \"rowtime\" does not exist", defGetString(def))));
	}
	if (o->parallelism > 1 && o->server_type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" cannot have a parallelism of %d", name, o->parallelism),
				 errdetail("The stream is in the database and has one shard, which one process reads."),
				 errhint("Parallelism divides the shards of a stream of an outside server. Option worker 'name' puts a stream on a process of its own.")));
	if (o->headers_attno > 0 && TupleDescAttr(desc, o->headers_attno - 1)->atttypid != JSONBOID &&
		TupleDescAttr(desc, o->headers_attno - 1)->atttypid != JSONOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" gives the headers of stream \"%s\" but is of type %s",
						NameStr(TupleDescAttr(desc, o->headers_attno - 1)->attname), name,
						format_type_be(TupleDescAttr(desc, o->headers_attno - 1)->atttypid)),
				 errhint("Headers are a JSON object of strings: jsonb or json.")));
	if (o->upsert && o->nkeys == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("option \"changelog\" 'upsert' of stream \"%s\" needs a key", name),
				 errhint("Option key names the columns that tell which earlier record a record replaces.")));
	how.exactly_once = o->exactly_once;
	how.batch_records = o->batch_records;
	how.batch_bytes = o->batch_bytes;
	how.headers = o->headers_attno > 0;
	how.compression = o->compression != NULL;
	kda_connector_check_writing(o->server_type, name, &how);
	if (o->row_path)
		kda_json_check_path(o->row_path, true);
	if (o->schema_registry)
		kda_connector_check_registry(o->schema_registry, o->owner);
	if (o->rowtime_attno > 0)
	{
		Form_pg_attribute att = TupleDescAttr(desc, o->rowtime_attno - 1);

		if (att->atttypid != TIMESTAMPTZOID && att->atttypid != TIMESTAMPOID)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" gives the time of stream \"%s\" but is of type %s",
							NameStr(att->attname), name, format_type_be(att->atttypid)),
					 errhint("The time attribute is timestamptz or timestamp.")));
	}
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		KdaColumnOptions *c = &o->columns[i];

		if (att->attisdropped)
			continue;
		if (o->server_type == NULL && (c->meta != KDA_META_NONE || c->path || c->time_format != KDA_TIME_ISO8601))
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("column \"%s\" of stream \"%s\" cannot have options", NameStr(att->attname), name),
					 errdetail("Rows of a stream in the database come as columns already.")));
		if (c->meta != KDA_META_NONE)
		{
			static const Oid meta_types[][4] = {
				{0}, {TEXTOID, VARCHAROID, INT4OID, INT8OID}, {TEXTOID, VARCHAROID, INT8OID, NUMERICOID},
				{TIMESTAMPTZOID, TIMESTAMPOID}, {TEXTOID, VARCHAROID, BYTEAOID}, {JSONBOID, JSONOID}
			};
			bool		fits = false;
			/* a number there is none that every position fits into */
			bool		text = c->meta == KDA_META_POSITION && o->server_type && kda_connector_has_marks(o->server_type);

			for (int t = 0; t < 4; t++)
				fits |= meta_types[c->meta][t] == att->atttypid && (!text || t < 2);
			if (!fits)
				ereport(ERROR,
						(errcode(ERRCODE_DATATYPE_MISMATCH),
						 errmsg("column \"%s\" with meta '%s' cannot be of type %s", NameStr(att->attname),
								meta_names[c->meta], format_type_be(att->atttypid)),
						 errhint("Use %s.", text ? "text" : c->meta == KDA_META_ARRIVAL ? "timestamptz" :
								 c->meta == KDA_META_HEADERS ? "jsonb" :
								 c->meta == KDA_META_KEY ? "text or bytea" : "text or a number")));
			if (c->path)
				ereport(ERROR,
						(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
						 errmsg("column \"%s\" has both a path and meta", NameStr(att->attname))));
			continue;
		}
		if (c->path)
			kda_json_check_path(c->path, false);
		if (c->path && o->format == KDA_FORMAT_AVRO && !kda_format_path_keys(c->path, NULL))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("column \"%s\" with path %s cannot be read from format \"avro\"", NameStr(att->attname), c->path),
					 errhint("A path into Avro is made of keys, as in '$.device.id'; an array is read as a whole, as an SQL array or jsonb.")));
		if (c->path && o->format != KDA_FORMAT_JSON && o->format != KDA_FORMAT_AVRO)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("column \"%s\" has a path, but the format is \"%s\"", NameStr(att->attname),
							format_names[o->format])));
		if (c->time_format != KDA_TIME_ISO8601 && att->atttypid != TIMESTAMPTZOID &&
			att->atttypid != TIMESTAMPOID && att->atttypid != DATEOID)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("column \"%s\" of type %s cannot have a time_format", NameStr(att->attname),
							format_type_be(att->atttypid))));
		if (i + 1 != o->rowtime_attno)
		{
			ncolumns++;
			if (o->server_type && o->format == KDA_FORMAT_BYTEA && att->atttypid != BYTEAOID)
				ereport(ERROR,
						(errcode(ERRCODE_DATATYPE_MISMATCH),
						 errmsg("column \"%s\" must be of type bytea with format \"bytea\"", NameStr(att->attname))));
		}
	}
	if (o->server_type && (o->format == KDA_FORMAT_TEXT || o->format == KDA_FORMAT_BYTEA) && ncolumns > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("format \"%s\" gives one column, but stream \"%s\" has %d", format_names[o->format],
						name, ncolumns),
				 errhint("Further columns need option meta.")));
	relation_close(rel, AccessShareLock);
}

UserMapping *
kda_user_mapping(Oid userid, Oid serverid)
{
	HeapTuple	tuple;

	if (kda_connector_keeps_mapping(GetForeignServer(serverid)))
		return NULL;
	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid), ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tuple))
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
								ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tuple))
		return NULL;
	ReleaseSysCache(tuple);
	return GetUserMapping(userid, serverid);
}

KdaTime
kda_rowtime_of(const KdaStreamOptions *options, Oid type, Datum value)
{
	if (type == TIMESTAMPTZOID || options->time_zone_is_utc)
		return (KdaTime) DatumGetInt64(value);
	return DatumGetTimestampTz(DirectFunctionCall2(timestamp_zone,
												   PointerGetDatum(cstring_to_text(options->time_zone)),
												   value));
}

Datum
kda_rowtime_value(const KdaStreamOptions *options, Oid type, KdaTime time)
{
	if (type == TIMESTAMPTZOID || options->time_zone_is_utc)
		return Int64GetDatum(time);
	return DirectFunctionCall2(timestamptz_zone,
							   PointerGetDatum(cstring_to_text(options->time_zone)),
							   TimestampTzGetDatum(time));
}
