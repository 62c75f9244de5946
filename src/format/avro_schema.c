/*-------------------------------------------------------------------------
 *
 * avro_schema.c
 *	  The text of an Avro schema to a tree.  The text comes from a registry or
 *	  from a user: PostgreSQL's jsonb reads it, and what it says is bounded.
 *
 * As the specification wants it, a logical type that is not known, or does not
 * fit what it stands on, is as if it were not there.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "format/avro.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#define MAX_NAMED	2000

typedef struct Parse
{
	MemoryContext context;
	KdaAvroType *named[MAX_NAMED];
	int			nnamed;
	int			nodes;
	char	   *why;
} Parse;

static const char *const primitives[] = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"};

static KdaAvroType *parse_type(Parse *parse, JsonbValue *v, const char *namespace, int depth);

static void *wrong(Parse *parse, const char *fmt,...) pg_attribute_printf(2, 3);

static void *
wrong(Parse *parse, const char *fmt,...)
{
	char		text[200];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	text[pg_mbcliplen(text, strlen(text), sizeof(text) - 1)] = '\0';
	if (parse->why == NULL)
		parse->why = pstrdup(text);
	return NULL;
}

/*---- JSON */

static bool
member(JsonbValue *object, const char *key, JsonbValue *result)
{
	return object->type == jbvBinary && JsonContainerIsObject(object->val.binary.data) &&
		getKeyJsonValueFromContainer(object->val.binary.data, key, strlen(key), result) != NULL;
}

/* A string member as UTF-8; NULL: there is none. */
static char *
text_of(Parse *parse, const JsonbValue *v)
{
	char	   *text = pnstrdup(v->val.string.val, v->val.string.len);

	if (GetDatabaseEncoding() != PG_SQL_ASCII)
		text = pg_server_to_any(text, strlen(text), PG_UTF8);
	return MemoryContextStrdup(parse->context, text);
}

static char *
text_member(Parse *parse, JsonbValue *object, const char *key)
{
	JsonbValue	v;

	return member(object, key, &v) && v.type == jbvString ? text_of(parse, &v) : NULL;
}

/* A whole number that is not negative; -1: there is none. */
static int64
number_member(JsonbValue *object, const char *key)
{
	JsonbValue	v;
	Datum		text;
	char	   *end;
	int64		n;

	if (!member(object, key, &v) || v.type != jbvNumeric)
		return -1;
	text = DirectFunctionCall1(numeric_out, NumericGetDatum(v.val.numeric));
	errno = 0;
	n = strtoi64(DatumGetCString(text), &end, 10);
	return *end || errno || n < 0 ? -1 : n;
}

/* The elements of an array member; NULL: there is none. */
static JsonbValue *
array_member(JsonbValue *object, const char *key, JsonbValue *array, int *n)
{
	if (!member(object, key, array) || array->type != jbvBinary || !JsonContainerIsArray(array->val.binary.data))
		return NULL;
	*n = JsonContainerSize(array->val.binary.data);
	return array;
}

static JsonbValue *
element(JsonbValue *array, int i)
{
	return getIthJsonbValueFromContainer(array->val.binary.data, i);
}

/*---- names */

static bool
is_name(const char *name)
{
	if (!isalpha((unsigned char) *name) && *name != '_')
		return false;
	while (isalnum((unsigned char) *name) || *name == '_')
		name++;
	return *name == '\0';
}

/* With the namespace that it is in. */
static char *
full_name(Parse *parse, const char *name, const char *namespace)
{
	char	   *full;

	if (strchr(name, '.') || namespace == NULL || *namespace == '\0')
		return MemoryContextStrdup(parse->context, name);
	full = MemoryContextAlloc(parse->context, strlen(namespace) + strlen(name) + 2);
	sprintf(full, "%s.%s", namespace, name);
	return full;
}

static KdaAvroType *
find_named(Parse *parse, const char *full)
{
	for (int i = 0; i < parse->nnamed; i++)
		if (strcmp(parse->named[i]->name, full) == 0)
			return parse->named[i];
	return NULL;
}

/*---- types */

static KdaAvroType *
new_type(Parse *parse, KdaAvroKind kind)
{
	KdaAvroType *type;

	if (++parse->nodes > KDA_AVRO_MAX_NODES)
		return wrong(parse, "it has more than %d types and fields", KDA_AVRO_MAX_NODES);
	type = MemoryContextAllocZero(parse->context, sizeof(KdaAvroType));
	type->kind = kind;
	return type;
}

static KdaAvroType *
by_name(Parse *parse, const char *name, const char *namespace)
{
	KdaAvroType *type;

	for (int i = 0; i < lengthof(primitives); i++)
		if (strcmp(primitives[i], name) == 0)
			return new_type(parse, (KdaAvroKind) i);
	type = find_named(parse, full_name(parse, name, namespace));
	/* a name that is not qualified may be one without a namespace */
	if (type == NULL)
		type = find_named(parse, name);
	return type ? type : wrong(parse, "type \"%s\" is not defined before it is used", name);
}

static void
read_logical(JsonbValue *v, KdaAvroType *type)
{
	static const struct
	{
		const char *name;
		KdaAvroKind kind;
		KdaAvroLogical logical;
	}			simple[] =
	{
		{"date", KDA_AVRO_INT, KDA_AVRO_DATE},
		{"time-millis", KDA_AVRO_INT, KDA_AVRO_TIME_MILLIS},
		{"time-micros", KDA_AVRO_LONG, KDA_AVRO_TIME_MICROS},
		{"timestamp-millis", KDA_AVRO_LONG, KDA_AVRO_TIMESTAMP_MILLIS},
		{"timestamp-micros", KDA_AVRO_LONG, KDA_AVRO_TIMESTAMP_MICROS},
		{"local-timestamp-millis", KDA_AVRO_LONG, KDA_AVRO_LOCAL_MILLIS},
		{"local-timestamp-micros", KDA_AVRO_LONG, KDA_AVRO_LOCAL_MICROS},
		{"uuid", KDA_AVRO_STRING, KDA_AVRO_UUID},
		{"uuid", KDA_AVRO_FIXED, KDA_AVRO_UUID},
	};
	JsonbValue	name;

	if (!member(v, "logicalType", &name) || name.type != jbvString)
		return;
	for (int i = 0; i < lengthof(simple); i++)
		if (strlen(simple[i].name) == name.val.string.len && simple[i].kind == type->kind &&
			memcmp(simple[i].name, name.val.string.val, name.val.string.len) == 0 &&
			(type->kind != KDA_AVRO_FIXED || type->size == 16))
			type->logical = simple[i].logical;
	if (name.val.string.len == 7 && memcmp(name.val.string.val, "decimal", 7) == 0 &&
		(type->kind == KDA_AVRO_BYTES || type->kind == KDA_AVRO_FIXED))
	{
		JsonbValue	v2;
		int64		precision = number_member(v, "precision");
		int64		scale = member(v, "scale", &v2) ? number_member(v, "scale") : 0;

		if (precision > 0 && precision <= NUMERIC_MAX_PRECISION && scale >= 0 && scale <= precision)
		{
			type->logical = KDA_AVRO_DECIMAL;
			type->precision = (int) precision;
			type->scale = (int) scale;
		}
	}
}

static bool
read_fields(Parse *parse, JsonbValue *v, KdaAvroType *type, const char *namespace, int depth)
{
	JsonbValue	array;
	int			n;

	if (array_member(v, "fields", &array, &n) == NULL)
		return wrong(parse, "record \"%s\" has no fields", type->name) != NULL;
	if (n > KDA_AVRO_MAX_NODES)
		return wrong(parse, "it has more than %d types and fields", KDA_AVRO_MAX_NODES) != NULL;
	type->fields = MemoryContextAllocZero(parse->context, sizeof(KdaAvroField) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		KdaAvroField *field = &type->fields[i];
		JsonbValue *from = element(&array, i);
		JsonbValue	value,
					aliases;
		int			naliases;

		field->name = text_member(parse, from, "name");
		if (field->name == NULL || !is_name(field->name))
			return wrong(parse, "field %d of record \"%s\" has no valid name", i + 1, type->name) != NULL;
		for (int j = 0; j < i; j++)
			if (strcmp(type->fields[j].name, field->name) == 0)
				return wrong(parse, "record \"%s\" has two fields \"%s\"", type->name, field->name) != NULL;
		if (++parse->nodes > KDA_AVRO_MAX_NODES)
			return wrong(parse, "it has more than %d types and fields", KDA_AVRO_MAX_NODES) != NULL;
		if (!member(from, "type", &value))
			return wrong(parse, "field \"%s\" of record \"%s\" has no type", field->name, type->name) != NULL;
		field->type = parse_type(parse, &value, namespace, depth + 1);
		if (field->type == NULL)
			return false;
		if (array_member(from, "aliases", &aliases, &naliases))
		{
			field->aliases = MemoryContextAllocZero(parse->context, sizeof(char *) * Max(naliases, 1));
			for (int j = 0; j < naliases; j++)
			{
				JsonbValue *alias = element(&aliases, j);

				if (alias->type != jbvString || ++parse->nodes > KDA_AVRO_MAX_NODES)
					return wrong(parse, "field \"%s\" of record \"%s\" has bad aliases", field->name, type->name) != NULL;
				field->aliases[field->naliases++] = text_of(parse, alias);
			}
		}
		if (member(from, "default", &value))
		{
			Jsonb	   *json = JsonbValueToJsonb(&value);
			char	   *text = JsonbToCString(NULL, &json->root, VARSIZE(json));

			if (GetDatabaseEncoding() != PG_SQL_ASCII)
				text = pg_server_to_any(text, strlen(text), PG_UTF8);
			field->default_json = MemoryContextStrdup(parse->context, text);
		}
		type->nfields = i + 1;
	}
	return true;
}

static KdaAvroType *
named_type(Parse *parse, JsonbValue *v, KdaAvroKind kind, const char *namespace, int depth)
{
	KdaAvroType *type = new_type(parse, kind);
	char	   *name = text_member(parse, v, "name");
	char	   *own = text_member(parse, v, "namespace");
	char	   *inner;
	char	   *dot;

	if (type == NULL)
		return NULL;
	if (name == NULL || *name == '\0')
		return wrong(parse, "a record, an enum or a fixed type has no name");
	type->name = full_name(parse, name, own ? own : namespace);
	if (find_named(parse, type->name))
		return wrong(parse, "type \"%s\" is defined twice", type->name);
	if (parse->nnamed == MAX_NAMED)
		return wrong(parse, "it has more than %d named types", MAX_NAMED);
	parse->named[parse->nnamed++] = type;
	/* what is inside is in the namespace of its name */
	inner = pstrdup(type->name);
	dot = strrchr(inner, '.');
	*(dot ? dot : inner) = '\0';
	namespace = inner;
	if (kind == KDA_AVRO_FIXED)
	{
		type->size = number_member(v, "size");
		if (type->size < 0 || type->size > MaxAllocSize)
			return wrong(parse, "fixed type \"%s\" has no valid size", type->name);
		read_logical(v, type);
	}
	else if (kind == KDA_AVRO_ENUM)
	{
		JsonbValue	array;
		int			n;

		if (array_member(v, "symbols", &array, &n) == NULL || n > KDA_AVRO_MAX_NODES)
			return wrong(parse, "enum \"%s\" has no symbols, or too many", type->name);
		type->symbols = MemoryContextAllocZero(parse->context, sizeof(char *) * Max(n, 1));
		for (int i = 0; i < n; i++)
		{
			JsonbValue *symbol = element(&array, i);

			if (symbol->type != jbvString || ++parse->nodes > KDA_AVRO_MAX_NODES)
				return wrong(parse, "enum \"%s\" has a symbol that is no name", type->name);
			type->symbols[type->nsymbols] = text_of(parse, symbol);
			if (!is_name(type->symbols[type->nsymbols]))
				return wrong(parse, "enum \"%s\" has a symbol that is no name", type->name);
			type->nsymbols++;
		}
	}
	else if (!read_fields(parse, v, type, namespace, depth))
		return NULL;
	return type;
}

static KdaAvroType *
parse_union(Parse *parse, JsonbValue *v, const char *namespace, int depth)
{
	KdaAvroType *type = new_type(parse, KDA_AVRO_UNION);
	int			n = JsonContainerSize(v->val.binary.data);

	if (type == NULL)
		return NULL;
	if (n > KDA_AVRO_MAX_NODES)
		return wrong(parse, "it has more than %d types and fields", KDA_AVRO_MAX_NODES);
	type->branches = MemoryContextAllocZero(parse->context, sizeof(KdaAvroType *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		KdaAvroType *branch = parse_type(parse, element(v, i), namespace, depth + 1);

		if (branch == NULL)
			return NULL;
		if (branch->kind == KDA_AVRO_UNION)
			return wrong(parse, "a union is directly in a union");
		type->branches[type->nbranches++] = branch;
	}
	return type;
}

static KdaAvroType *
parse_type(Parse *parse, JsonbValue *v, const char *namespace, int depth)
{
	JsonbValue	inner;
	KdaAvroType *type;
	char	   *name;

	if (depth > KDA_AVRO_MAX_DEPTH)
		return wrong(parse, "its types are nested deeper than %d levels", KDA_AVRO_MAX_DEPTH);
	if (v->type == jbvString)
		return by_name(parse, text_of(parse, v), namespace);
	if (v->type == jbvBinary && JsonContainerIsArray(v->val.binary.data))
		return parse_union(parse, v, namespace, depth);
	if (!member(v, "type", &inner))
		return wrong(parse, "a type is neither a name, a union nor an object with a type");
	if (inner.type != jbvString)
		return parse_type(parse, &inner, namespace, depth + 1);
	name = text_of(parse, &inner);
	if (strcmp(name, "record") == 0 || strcmp(name, "error") == 0)
		return named_type(parse, v, KDA_AVRO_RECORD, namespace, depth);
	if (strcmp(name, "enum") == 0)
		return named_type(parse, v, KDA_AVRO_ENUM, namespace, depth);
	if (strcmp(name, "fixed") == 0)
		return named_type(parse, v, KDA_AVRO_FIXED, namespace, depth);
	if (strcmp(name, "array") == 0 || strcmp(name, "map") == 0)
	{
		bool		array = name[0] == 'a';

		type = new_type(parse, array ? KDA_AVRO_ARRAY : KDA_AVRO_MAP);
		if (type == NULL)
			return NULL;
		if (!member(v, array ? "items" : "values", &inner))
			return wrong(parse, "an array has no items, or a map no values");
		type->branches = MemoryContextAllocZero(parse->context, sizeof(KdaAvroType *));
		type->branches[0] = parse_type(parse, &inner, namespace, depth + 1);
		type->nbranches = 1;
		return type->branches[0] ? type : NULL;
	}
	type = by_name(parse, name, namespace);
	if (type && type->name == NULL)
		read_logical(v, type);
	return type;
}

KdaAvroType *
kda_avro_schema(MemoryContext context, const char *text, Size len, char **why)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext scratch;
	Parse	   *volatile parse;
	KdaAvroType *volatile type = NULL;

	*why = NULL;
	if (len > KDA_AVRO_MAX_SCHEMA)
	{
		*why = psprintf("it has %zu bytes, more than %d", len, KDA_AVRO_MAX_SCHEMA);
		return NULL;
	}
	scratch = AllocSetContextCreate(old, "kda avro schema", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(scratch);
	parse = palloc0(sizeof(Parse));
	parse->context = context;
	/* no more than memory is touched inside, so that no subtransaction is needed */
	PG_TRY();
	{
		char	   *copy = pnstrdup(text, len);
		JsonbValue	root;
		Jsonb	   *json;

		if (strlen(copy) != len)
			ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION), errmsg("it has a zero byte")));
		if (GetDatabaseEncoding() != PG_SQL_ASCII)
			copy = pg_any_to_server(copy, len, PG_UTF8);
		/* a primitive type may be given without quotes */
		for (int i = 0; i < lengthof(primitives); i++)
			if (strcmp(copy, primitives[i]) == 0)
			{
				copy = psprintf("\"%s\"", primitives[i]);
				break;
			}
		json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(copy)));
		if (JB_ROOT_IS_SCALAR(json))
			root = *getIthJsonbValueFromContainer(&json->root, 0);
		else
		{
			root.type = jbvBinary;
			root.val.binary.data = &json->root;
			root.val.binary.len = VARSIZE(json);
		}
		type = parse_type(parse, &root, "", 0);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(scratch);
		edata = CopyErrorData();
		FlushErrorState();
		/* out of memory, a shutdown: not the text's fault */
		switch (ERRCODE_TO_CATEGORY(edata->sqlerrcode))
		{
			case MAKE_SQLSTATE('5', '3', '0', '0', '0'):
			case MAKE_SQLSTATE('5', '7', '0', '0', '0'):
				ReThrowError(edata);
		}
		(void) wrong(parse, "%s", edata->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	if (type == NULL)
		*why = pstrdup(parse->why ? parse->why : "it cannot be read");
	MemoryContextDelete(scratch);
	return type;
}
