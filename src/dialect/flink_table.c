/*-------------------------------------------------------------------------
 *
 * flink_table.c
 *	  CREATE TABLE … WITH ('connector' = …), pasted from a Flink job: an error
 *	  whose hint says it in our words.
 *
 * Nothing is created: a Flink table says neither where its secrets are nor
 * whether it is read or written.  What has no counterpart is named.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "dialect/parse.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

typedef struct Option
{
	char	   *name;
	char	   *value;
	bool		used;
} Option;

typedef struct Table
{
	char	   *name;
	StringInfoData columns;
	Option	   *options;
	int			noptions;
	StringInfoData left_out;	/* what has no counterpart */
	bool		secret;			/* one of the options was one: it is not repeated */
	char	   *type_of_first;	/* column */
} Table;

/*---- small steps */

/* A name, perhaps in backquotes; p->at is behind it. */
static char *
name(KdaParser *p)
{
	int			start = p->tokens->t[p->at].start;

	if (is_char(p, '`'))
	{
		const char *end = strchr(p->source + start + 1, '`');

		if (end == NULL)
			kda_parse_unexpected(p, NULL);
		while (!at_end(p) && p->tokens->t[p->at].start <= end - p->source)
			p->at++;
		return pnstrdup(p->source + start + 1, end - p->source - start - 1);
	}
	return kda_parse_name(p, NULL);
}

/* The source text of tokens [from, to), names in backquotes quoted as ours. */
static char *
text_of(KdaParser *p, int from, int to)
{
	StringInfoData s;

	initStringInfo(&s);
	appendBinaryStringInfo(&s, p->source + p->tokens->t[from].start,
						   p->tokens->t[to - 1].end - p->tokens->t[from].start);
	for (int i = 0; i < s.len; i++)
		if (s.data[i] == '`')
			s.data[i] = '"';
	return s.data;
}

static void
leave_out(Table *table, const char *what)
{
	appendStringInfo(&table->left_out, "%s%s", table->left_out.len ? ", " : "", what);
}

/* Behind < … > or ( … ) at the current token, if one is there. */
static void
skip_brackets(KdaParser *p)
{
	int			depth = 0;

	if (is_char(p, '('))
		p->at = kda_parse_closing(p, p->at) + 1;
	else if (is_char(p, '<'))
		do
		{
			depth += is_char(p, '<') ? 1 : is_char(p, '>') ? -1 : 0;
			p->at++;
		} while (depth > 0 && !at_end(p));
}

/*---- columns */

static const char *const types[][2] = {
	{"string", "text"}, {"bytes", "bytea"}, {"binary", "bytea"}, {"varbinary", "bytea"},
	{"tinyint", "smallint"}, {"integer", "int"}, {"float", "real"}, {"double", "double precision"},
	{"dec", "numeric"}, {"decimal", "numeric"}, {"timestamp", "timestamptz"}, {"timestamp_ltz", "timestamptz"},
	{"row", "jsonb"}, {"map", "jsonb"}, {"multiset", "jsonb"}, {"raw", "jsonb"}, {"variant", "jsonb"},
};

/* The type at the current token, in our words. */
static char *
type(KdaParser *p)
{
	char	   *word = name(p);
	const char *ours = word;
	char	   *result;

	if (strcmp(word, "array") == 0 && is_char(p, '<'))
	{
		p->at++;
		result = psprintf("%s[]", type(p));
		(void) (is_char(p, '>') && p->at++);
		return result;
	}
	for (int i = 0; i < lengthof(types); i++)
		if (strcmp(word, types[i][0]) == 0)
			ours = types[i][1];
	result = pstrdup(ours);
	if (is_char(p, '('))
	{
		int			open = p->at;

		skip_brackets(p);
		if (strcmp(ours, "numeric") == 0 || strcmp(ours, "char") == 0 || strcmp(ours, "varchar") == 0 ||
			strcmp(ours, "time") == 0)
			result = psprintf("%s%s", ours, text_of(p, open, p->at));
	}
	else
		skip_brackets(p);
	(void) take(p, "precision");
	if (take(p, "with") || take(p, "without"))
	{
		(void) take(p, "local");
		(void) take(p, "time");
		(void) take(p, "zone");
	}
	return result;
}

/* METADATA FROM '…' of a column: ours, or NULL. */
static const char *
meta_of(const char *key)
{
	static const char *const metas[][2] = {
		{"timestamp", "arrival"}, {"partition", "shard"}, {"offset", "position"}, {"headers", "headers"},
		{"shard-id", "shard"}, {"sequence-number", "position"},
	};

	for (int i = 0; i < lengthof(metas); i++)
		if (strcmp(key, metas[i][0]) == 0)
			return metas[i][1];
	return NULL;
}

static void
add_column(Table *table, const char *text)
{
	appendStringInfo(&table->columns, "%s\n  %s", table->columns.len ? "," : "", text);
}

/* A column, WATERMARK or constraint: tokens up to end. */
static void
column(KdaParser *p, Table *table, int end)
{
	int			first = p->at;
	char	   *column_name;
	char	   *column_type;
	const char *meta = NULL;
	bool		metadata = false;

	if (is(p, "watermark") && kda_token_is(p->tokens, p->at + 1, "for"))
	{
		add_column(table, text_of(p, first, end));
		return;
	}
	if (is(p, "constraint") || (is(p, "primary") && kda_token_is(p->tokens, p->at + 1, "key")))
	{
		leave_out(table, "PRIMARY KEY");
		return;
	}
	column_name = name(p);
	if (is(p, "as"))
	{
		leave_out(table, psprintf("computed column %s", quote_identifier(column_name)));
		return;
	}
	column_type = type(p);
	while (p->at < end)
	{
		if (take(p, "metadata"))
		{
			metadata = true;
			meta = meta_of(take(p, "from") ? kda_parse_string(p, NULL) : column_name);
		}
		else
			p->at++;			/* NOT NULL, VIRTUAL, COMMENT '…' */
	}
	if (metadata && meta == NULL)
	{
		leave_out(table, psprintf("metadata column %s", quote_identifier(column_name)));
		return;
	}
	if (table->type_of_first == NULL)
		table->type_of_first = column_type;
	add_column(table, psprintf("%s %s%s", quote_identifier(column_name), column_type,
							   meta ? psprintf(" OPTIONS (meta '%s')", meta) : ""));
}

static void
columns(KdaParser *p, Table *table)
{
	int			close = kda_parse_closing(p, p->at);
	int			depth = p->tokens->t[p->at].depth + 1;

	p->at++;
	while (p->at < close)
	{
		int			angles = 0;
		int			end = p->at;

		for (; end < close; end++)
		{
			if (kda_token_is_char(p->tokens, end, '<'))
				angles++;
			else if (kda_token_is_char(p->tokens, end, '>') && angles > 0)
				angles--;
			else if (angles == 0 && p->tokens->t[end].depth == depth && kda_token_is_char(p->tokens, end, ','))
				break;
		}
		if (end > p->at)
			column(p, table, end);
		p->at = end + 1;
	}
	p->at = close + 1;
}

/*---- options */

static char *
value_of(Table *table, const char *option)
{
	for (int i = 0; i < table->noptions; i++)
		if (strcmp(table->options[i].name, option) == 0)
		{
			table->options[i].used = true;
			return table->options[i].value;
		}
	return NULL;
}

static void
options(KdaParser *p, Table *table)
{
	expect_char(p, '(', NULL);
	while (!is_char(p, ')'))
	{
		Option	   *o;

		table->options = table->options ? repalloc(table->options, sizeof(Option) * (table->noptions + 1)) :
			palloc(sizeof(Option));
		o = &table->options[table->noptions++];
		o->name = kda_parse_string(p, NULL);
		expect_char(p, '=', NULL);
		o->value = kda_parse_string(p, NULL);
		o->used = false;
		if (!is_char(p, ','))
			break;
		p->at++;
	}
	expect_char(p, ')', NULL);
}

/* Properties of the client library that go to the server as they are. */
static const char *const server_properties[] = {
	"bootstrap.servers", "security.protocol", "sasl.mechanism", "client.id", "client.rack", "isolation.level",
	"ssl.endpoint.identification.algorithm",
};

static bool
is_secret(const char *option)
{
	static const char *const words[] = {"password", "secret", "jaas", "token", "credential", "access"};

	for (int i = 0; i < lengthof(words); i++)
		if (strstr(option, words[i]))
			return true;
	return false;
}

static void
add_option(StringInfo s, const char *option, const char *value)
{
	if (value)
		appendStringInfo(s, "%s%s %s", s->len ? ", " : "", quote_identifier(option), quote_literal_cstr(value));
}

static void
copy_option(StringInfo s, Table *table, const char *theirs, const char *ours)
{
	add_option(s, ours, value_of(table, theirs));
}

static const char *
start_of(Table *table, const char *mode)
{
	char	   *millis = value_of(table, "scan.startup.timestamp-millis");

	if (mode == NULL)
		return NULL;
	if (strcmp(mode, "earliest-offset") == 0 || pg_strcasecmp(mode, "trim_horizon") == 0)
		return "earliest";
	if (strcmp(mode, "latest-offset") == 0 || pg_strcasecmp(mode, "latest") == 0)
		return "latest";
	if (strcmp(mode, "timestamp") == 0 && millis)
		return pstrdup(timestamptz_to_str(time_t_to_timestamptz(strtoll(millis, NULL, 10) / 1000)));
	leave_out(table, psprintf("'%s' (option start takes 'earliest', 'latest' or a timestamp)", mode));
	return NULL;
}

static const char *
format_of(Table *table)
{
	char	   *format = value_of(table, "format");

	if (format == NULL)
		format = value_of(table, "value.format");
	if (format && strcmp(format, "raw") == 0)
		return table->type_of_first && strcmp(table->type_of_first, "text") == 0 ? "text" : "bytea";
	if (format && strcmp(format, "avro-confluent") == 0)
		return "avro";
	return format;
}

/* CREATE SERVER and CREATE STREAM. */
static char *
in_our_words(Table *table, const char *connector)
{
	StringInfoData server;
	StringInfoData stream;
	StringInfoData s;
	const char *server_name = quote_identifier(psprintf("%s_server", table->name));
	bool		kafka = strstr(connector, "kafka") != NULL;
	bool		kinesis = strstr(connector, "kinesis") != NULL;

	initStringInfo(&server);
	initStringInfo(&stream);
	initStringInfo(&s);
	if (kafka)
	{
		for (int i = 0; i < lengthof(server_properties); i++)
			copy_option(&server, table, psprintf("properties.%s", server_properties[i]), server_properties[i]);
		(void) value_of(table, "properties.group.id");	/* positions are kept with the results */
		copy_option(&stream, table, "topic", "topic");
	}
	else if (kinesis)
	{
		copy_option(&server, table, "aws.region", "region");
		copy_option(&server, table, "aws.endpoint", "endpoint");
		copy_option(&stream, table, "stream", "stream");
		copy_option(&stream, table, "stream.arn", "stream");
	}
	if (kafka || kinesis)
	{
		add_option(&stream, "format", format_of(table));
		copy_option(&stream, table, "csv.field-delimiter", "delimiter");
		copy_option(&stream, table, "csv.null-literal", "null");
		copy_option(&stream, table, "avro-confluent.url", "schema_registry");
		copy_option(&stream, table, "avro-confluent.schema-registry.url", "schema_registry");
		add_option(&stream, "start", start_of(table, value_of(table, kafka ? "scan.startup.mode" : "scan.stream.initpos")));
		(void) value_of(table, "json.ignore-parse-errors");
		(void) value_of(table, "json.fail-on-missing-field");
		appendStringInfo(&s, "CREATE SERVER %s TYPE '%s' FOREIGN DATA WRAPPER kda_stream\n  OPTIONS (%s);\n", server_name,
						 kafka ? "kafka" : "kinesis", server.data);
	}
	for (int i = 0; i < table->noptions; i++)
	{
		Option	   *o = &table->options[i];

		if (o->used)
			continue;
		if (is_secret(o->name))
			table->secret = true;
		leave_out(table, psprintf("'%s'", o->name));
	}
	if (table->secret && (kafka || kinesis))
		appendStringInfo(&s, "CREATE USER MAPPING FOR CURRENT_USER SERVER %s\n  OPTIONS (%s);\n", server_name,
						 kafka ? "\"sasl.username\" '...', \"sasl.password\" '...'" : "access_key_id '...', secret_access_key '...'");
	appendStringInfo(&s, "CREATE STREAM %s (%s\n)", quote_identifier(table->name), table->columns.data);
	if (kafka || kinesis)
		appendStringInfo(&s, " SERVER %s\n  OPTIONS (%s)", server_name, stream.data);
	appendStringInfoChar(&s, ';');
	if (!kafka && !kinesis)
		appendStringInfo(&s, "\nThat stream is in the database: connector '%s' has no counterpart here. A table is an ordinary CREATE TABLE.",
						 connector);
	if (table->left_out.len)
		appendStringInfo(&s, "\nLeft out: %s.", table->left_out.data);
	return s.data;
}

bool
kda_is_flink_table(const KdaTokens *tokens)
{
	int			i = 1;

	if (!kda_token_is(tokens, 0, "create"))
		return false;
	if (kda_token_is(tokens, i, "temporary"))
		i++;
	if (!kda_token_is(tokens, i, "table"))
		return false;
	for (; i < tokens->n; i++)
		if (tokens->t[i].depth == 0 && kda_token_is(tokens, i, "with") && kda_token_is_char(tokens, i + 1, '(') &&
			tokens->t[i + 2].kind == KDA_TOKEN_STRING && kda_token_is_char(tokens, i + 3, '='))
			return true;
	return false;
}

void
kda_refuse_flink_table(KdaParser *p)
{
	Table		table = {0};
	char	   *connector;
	char	   *hint;
	int			with;

	initStringInfo(&table.columns);
	initStringInfo(&table.left_out);
	p->at = kda_token_is(p->tokens, 1, "temporary") ? 3 : 2;
	(void) kda_parse_if_not_exists(p);
	table.name = name(p);
	while (is_char(p, '.'))
	{
		p->at++;
		table.name = name(p);
	}
	if (is_char(p, '('))
		columns(p, &table);
	while (!at_end(p) && !(is(p, "with") && kda_token_is_char(p->tokens, p->at + 1, '(')))
		p->at++;				/* COMMENT, PARTITIONED BY */
	with = p->at;
	expect(p, "with", NULL);
	options(p, &table);
	connector = value_of(&table, "connector");
	hint = in_our_words(&table, connector ? connector : "");
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("CREATE TABLE ... WITH ('connector' = '%s') is Flink's statement", connector ? connector : ""),
			 errhint("Here it is:\n%s", hint),
			 errhidestmt(table.secret),
	/* with a place kda.execute() would show the text, in the log as well */
			 table.secret ? 0 : errposition(kda_parse_position(p, p->tokens->t[with].start))));
}
