/*-------------------------------------------------------------------------
 *
 * avro_write.c
 *	  Rows to Avro records, of the schema that is given or of one that is made
 *	  from the columns.  Without a header: which number a registry gives to the
 *	  schema is not known yet when rows are written down.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/pg_type.h"
#include "format/avro.h"
#include "format/avro_write.h"
#include "format/format.h"
#include "format/text.h"
#include "format/writer.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define EPOCH_DAYS		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)
#define MAX_DIGITS		NUMERIC_MAX_PRECISION

/* A value of a column, or an element of one. */
typedef struct Value
{
	const KdaAvroType *type;	/* no union */
	int			branch;			/* that it is of a union; -1: there is no union */
	int			null_branch;	/* -1: NULL cannot be said */
	Oid			pgtype;			/* base type */
	const char *column;			/* for messages */
	KdaWriter  *text;			/* for strings and enums */
	struct Value *element;
	int16		typlen;			/* of the elements */
	bool		byval;
	char		align;
} Value;

typedef struct Step
{
	AttrNumber	attno;			/* 0: what is written is always the same: */
	int			branch;			/* ... the branch of a union; -1: nothing */
	Value	   *value;
} Step;

struct KdaAvroWriter
{
	MemoryContext context;
	TupleDesc	desc;
	const KdaStreamOptions *options;
	char	   *schema;			/* in UTF-8 */
	Step	   *steps;
	int			nsteps;
	int			room;
	bool		calls;
	pg_tz	   *zone;
	StringInfoData scratch;
};

/*---- a schema of the columns */

typedef struct Place
{
	AttrNumber	attno;
	List	   *keys;
} Place;

static const KdaColumnOptions *
column_options(KdaAvroWriter *w, AttrNumber attno)
{
	static const KdaColumnOptions none;

	return w->options->columns ? &w->options->columns[attno - 1] : &none;
}

static const char *
column_name(KdaAvroWriter *w, AttrNumber attno)
{
	return NameStr(TupleDescAttr(w->desc, attno - 1)->attname);
}

static bool
is_avro_name(const char *name)
{
	if (!isalpha((unsigned char) *name) && *name != '_')
		return false;
	while (isalnum((unsigned char) *name) || *name == '_')
		name++;
	return *name == '\0';
}

static void
derive_type(Oid type, int32 typmod, StringInfo out)
{
	type = getBaseTypeAndTypmod(type, &typmod);
	switch (type)
	{
		case BOOLOID:
			appendStringInfoString(out, "\"boolean\"");
			break;
		case INT2OID:
		case INT4OID:
			appendStringInfoString(out, "\"int\"");
			break;
		case INT8OID:
			appendStringInfoString(out, "\"long\"");
			break;
		case FLOAT4OID:
			appendStringInfoString(out, "\"float\"");
			break;
		case FLOAT8OID:
			appendStringInfoString(out, "\"double\"");
			break;
		case BYTEAOID:
			appendStringInfoString(out, "\"bytes\"");
			break;
		case DATEOID:
			appendStringInfoString(out, "{\"type\":\"int\",\"logicalType\":\"date\"}");
			break;
		case TIMEOID:
			appendStringInfoString(out, "{\"type\":\"long\",\"logicalType\":\"time-micros\"}");
			break;
		case TIMESTAMPTZOID:
			appendStringInfoString(out, "{\"type\":\"long\",\"logicalType\":\"timestamp-micros\"}");
			break;
		case TIMESTAMPOID:
			appendStringInfoString(out, "{\"type\":\"long\",\"logicalType\":\"local-timestamp-micros\"}");
			break;
		case UUIDOID:
			appendStringInfoString(out, "{\"type\":\"string\",\"logicalType\":\"uuid\"}");
			break;
		case NUMERICOID:
			{
				int			precision = typmod < (int32) VARHDRSZ ? 0 : ((typmod - VARHDRSZ) >> 16) & 0xffff;
				int			scale = typmod < (int32) VARHDRSZ ? 0 : (((typmod - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;

				/* without a scale, or with one that Avro does not know, its digits are a string */
				if (precision == 0 || scale < 0 || scale > precision)
					appendStringInfoString(out, "\"string\"");
				else
					appendStringInfo(out, "{\"type\":\"bytes\",\"logicalType\":\"decimal\",\"precision\":%d,\"scale\":%d}",
									 precision, scale);
				break;
			}
		default:
			if (OidIsValid(get_element_type(type)))
			{
				appendStringInfoString(out, "{\"type\":\"array\",\"items\":[\"null\",");
				derive_type(get_element_type(type), typmod, out);
				appendStringInfoString(out, "]}");
			}
			else
				appendStringInfoString(out, "\"string\"");
	}
}

/* places: those that have come here, by their keys from at on. */
static void
derive_record(KdaAvroWriter *w, List *places, int at, const char *name, StringInfo out)
{
	List	   *left = list_copy(places);
	bool		first = true;

	appendStringInfo(out, "{\"type\":\"record\",\"name\":\"%s\",\"fields\":[", name);
	while (left != NIL)
	{
		Place	   *place = linitial(left);
		const char *key = list_nth(place->keys, at);
		List	   *same = NIL;
		ListCell   *lc;

		if (!is_avro_name(key))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_NAME),
					 errmsg("column \"%s\" cannot be a field of an Avro record", column_name(w, place->attno)),
					 errdetail("\"%s\" is not made of ASCII letters, digits and underscores.", key),
					 errhint("Option path '$.name' of the column gives the field another name.")));
		foreach(lc, left)
			if (strcmp(list_nth(((Place *) lfirst(lc))->keys, at), key) == 0)
				same = lappend(same, lfirst(lc));
		foreach(lc, same)
			left = list_delete_ptr(left, lfirst(lc));
		appendStringInfo(out, "%s{\"name\":\"%s\",\"type\":", first ? "" : ",", key);
		first = false;
		if (list_length(place->keys) == at + 1)
		{
			Form_pg_attribute att = TupleDescAttr(w->desc, place->attno - 1);

			if (list_length(same) > 1)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("columns \"%s\" and \"%s\" cannot both be written at %s", column_name(w, place->attno),
								column_name(w, ((Place *) lsecond(same))->attno), key)));
			appendStringInfoString(out, "[\"null\",");
			derive_type(att->atttypid, att->atttypmod, out);
			appendStringInfoString(out, "],\"default\":null}");
		}
		else
		{
			foreach(lc, same)
				if (list_length(((Place *) lfirst(lc))->keys) == at + 1)
					ereport(ERROR,
							(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							 errmsg("columns \"%s\" and \"%s\" cannot both be written at %s", column_name(w, place->attno),
									column_name(w, ((Place *) lfirst(lc))->attno), key)));
			derive_record(w, same, at + 1, psprintf("%s_%s", name, key), out);
			appendStringInfoChar(out, '}');
		}
	}
	appendStringInfoString(out, "]}");
}

static List *
find_places(KdaAvroWriter *w, List *attnos)
{
	List	   *places = NIL;
	ListCell   *lc;

	foreach(lc, attnos)
	{
		Place	   *place = palloc(sizeof(Place));
		const char *path = column_options(w, lfirst_int(lc))->path;

		place->attno = lfirst_int(lc);
		if (path == NULL)
			place->keys = list_make1((char *) column_name(w, place->attno));
		else if (!kda_format_path_keys(path, &place->keys) || place->keys == NIL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("column \"%s\" with path %s cannot be written", column_name(w, place->attno), path),
					 errhint("Write through a stream of its own, whose paths are made of keys, as in '$.device.id'.")));
		places = lappend(places, place);
	}
	return places;
}

/* A record that is called as the stream. */
static char *
derive_schema(KdaAvroWriter *w, List *places)
{
	StringInfoData out;
	char	   *name = get_rel_name(w->options->relid);

	/* names of relations are freer than Avro's */
	for (char *p = name; p && *p; p++)
		if (!isalnum((unsigned char) *p))
			*p = '_';
	initStringInfo(&out);
	derive_record(w, places, 0, name == NULL ? "row" : is_avro_name(name) ? name : psprintf("_%s", name), &out);
	return out.data;
}

char *
kda_avro_derive(TupleDesc desc, const KdaStreamOptions *options)
{
	KdaAvroWriter w = {.desc = desc,.options = options};
	List	   *attnos = NIL;

	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped && column_options(&w, i + 1)->meta == KDA_META_NONE)
			attnos = lappend_int(attnos, i + 1);
	return derive_schema(&w, find_places(&w, attnos));
}

/*---- which type says a column */

/* How well: 0 not at all, 1 as text, 2 it does, 3 it is meant for it. */
static int
fits(Oid pgtype, const KdaAvroType *type)
{
	bool		text = type->kind == KDA_AVRO_STRING && type->logical == KDA_AVRO_PLAIN;

	switch (pgtype)
	{
		case BOOLOID:
			return type->kind == KDA_AVRO_BOOLEAN ? 3 : text;
		case INT2OID:
		case INT4OID:
			if (type->logical == KDA_AVRO_PLAIN && (type->kind == KDA_AVRO_INT || type->kind == KDA_AVRO_LONG))
				return type->kind == KDA_AVRO_INT ? 3 : 2;
			return type->logical == KDA_AVRO_DECIMAL || type->kind == KDA_AVRO_DOUBLE ? 2 : text;
		case INT8OID:
			if (type->logical == KDA_AVRO_PLAIN && (type->kind == KDA_AVRO_INT || type->kind == KDA_AVRO_LONG))
				return type->kind == KDA_AVRO_LONG ? 3 : 2;
			return type->logical == KDA_AVRO_DECIMAL ? 2 : text;
		case FLOAT4OID:
			return type->kind == KDA_AVRO_FLOAT ? 3 : type->kind == KDA_AVRO_DOUBLE ? 2 : text;
		case FLOAT8OID:
			return type->kind == KDA_AVRO_DOUBLE ? 3 : type->kind == KDA_AVRO_FLOAT ? 2 : text;
		case NUMERICOID:
			return type->logical == KDA_AVRO_DECIMAL ? 3 :
				type->logical == KDA_AVRO_PLAIN && (type->kind == KDA_AVRO_INT || type->kind == KDA_AVRO_LONG) ? 2 : text;
		case BYTEAOID:
			return type->logical == KDA_AVRO_PLAIN && type->kind == KDA_AVRO_BYTES ? 3 :
				type->logical == KDA_AVRO_PLAIN && type->kind == KDA_AVRO_FIXED ? 2 : text;
		case DATEOID:
			return type->logical == KDA_AVRO_DATE ? 3 : text;
		case TIMEOID:
			return type->logical == KDA_AVRO_TIME_MICROS ? 3 : type->logical == KDA_AVRO_TIME_MILLIS ? 2 : text;
		case TIMESTAMPTZOID:
			return type->logical == KDA_AVRO_TIMESTAMP_MICROS ? 3 : type->logical == KDA_AVRO_TIMESTAMP_MILLIS ? 2 : text;
		case TIMESTAMPOID:
			return type->logical == KDA_AVRO_LOCAL_MICROS ? 3 : type->logical == KDA_AVRO_LOCAL_MILLIS ||
				type->logical == KDA_AVRO_TIMESTAMP_MICROS || type->logical == KDA_AVRO_TIMESTAMP_MILLIS ? 2 : text;
		case UUIDOID:
			return type->logical == KDA_AVRO_UUID ? 3 : text;
		default:
			if (type->kind == KDA_AVRO_ARRAY && OidIsValid(get_element_type(pgtype)))
				return 3;
			return type->kind == KDA_AVRO_ENUM ? 2 : text ? 3 : 0;
	}
}

static Value *
make_value(KdaAvroWriter *w, const char *column, Oid pgtype, KdaTimeFormat time_format, const KdaAvroType *type)
{
	Value	   *v = MemoryContextAllocZero(w->context, sizeof(Value));
	int			best = 0;

	v->pgtype = getBaseType(pgtype);
	v->column = column;
	v->branch = v->null_branch = -1;
	if (type->kind == KDA_AVRO_UNION)
	{
		for (int i = 0; i < type->nbranches; i++)
		{
			int			how = fits(v->pgtype, type->branches[i]);

			if (type->branches[i]->kind == KDA_AVRO_NULL)
				v->null_branch = i;
			else if (how > best)
			{
				best = how;
				v->branch = i;
				v->type = type->branches[i];
			}
		}
	}
	else
	{
		best = fits(v->pgtype, type);
		v->type = type;
	}
	if (best == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of type %s cannot be written as the schema wants it", column, format_type_be(pgtype)),
				 errhint("Without option schema, the schema is made from the columns.")));
	if (v->type->kind == KDA_AVRO_ARRAY)
	{
		Oid			element = get_element_type(v->pgtype);

		v->element = make_value(w, column, element, KDA_TIME_ISO8601, v->type->branches[0]);
		get_typlenbyvalalign(element, &v->typlen, &v->byval, &v->align);
	}
	else if ((v->type->kind == KDA_AVRO_STRING && v->pgtype != TEXTOID && v->pgtype != VARCHAROID) ||
			 v->type->kind == KDA_AVRO_ENUM || v->type->logical == KDA_AVRO_DECIMAL || v->pgtype == NUMERICOID)
	{
		v->text = kda_writer_create(w->context, v->pgtype, time_format, w->options->time_zone);
		w->calls = true;
	}
	return v;
}

static void
add_step(KdaAvroWriter *w, AttrNumber attno, int branch, Value *value)
{
	if (w->nsteps == w->room)
	{
		w->room = Max(w->room * 2, 16);
		w->steps = w->steps ? repalloc(w->steps, sizeof(Step) * w->room) : MemoryContextAlloc(w->context, sizeof(Step) * w->room);
	}
	w->steps[w->nsteps++] = (Step) {attno, branch, value};
}

/* A record's fields in their order, each from a column, from several inside of it, or NULL. */
static void
plan_record(KdaAvroWriter *w, const KdaAvroType *type, List *places, int at, List **used)
{
	for (int i = 0; i < type->nfields; i++)
	{
		const KdaAvroField *field = &type->fields[i];
		List	   *inside = NIL;
		Place	   *whole = NULL;
		const KdaAvroType *record = field->type;
		int			branch = -1;
		ListCell   *lc;

		for (int pass = 0; pass < 2 && whole == NULL && inside == NIL; pass++)
			foreach(lc, places)
			{
				Place	   *place = lfirst(lc);
				const char *key = list_nth(place->keys, at);

				/* a column without a path: its name, in any case */
				if (pass == 0 ? strcmp(key, field->name) != 0 :
					(pg_strcasecmp(key, field->name) != 0 || column_options(w, place->attno)->path != NULL))
					continue;
				if (list_length(place->keys) == at + 1)
					whole = place;
				else
					inside = lappend(inside, place);
			}
		if (whole)
		{
			add_step(w, whole->attno, -1,
					 make_value(w, column_name(w, whole->attno), TupleDescAttr(w->desc, whole->attno - 1)->atttypid,
								column_options(w, whole->attno)->time_format, field->type));
			*used = lappend_int(*used, whole->attno);
			continue;
		}
		for (int b = 0; field->type->kind == KDA_AVRO_UNION && b < field->type->nbranches; b++)
			if (field->type->branches[b]->kind == (inside ? KDA_AVRO_RECORD : KDA_AVRO_NULL))
			{
				branch = b;
				record = field->type->branches[b];
				break;
			}
		if (inside && record->kind == KDA_AVRO_RECORD)
		{
			add_step(w, 0, branch, NULL);
			plan_record(w, record, inside, at + 1, used);
		}
		else if (branch >= 0 || field->type->kind == KDA_AVRO_NULL)
			add_step(w, 0, branch, NULL);
		else
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("field \"%s\" of the schema has no column", field->name),
					 errdetail("It cannot be null."),
					 errhint("Add a column of that name, or make its type a union with \"null\".")));
	}
}

KdaAvroWriter *
kda_avro_writer_create(MemoryContext context, TupleDesc desc, const KdaStreamOptions *options, List *attnos)
{
	KdaAvroWriter *w = MemoryContextAllocZero(context, sizeof(KdaAvroWriter));
	MemoryContext old = MemoryContextSwitchTo(context);
	List	   *places = NIL;
	List	   *used = NIL;
	KdaAvroType *type;
	char	   *why;
	ListCell   *lc;

	w->context = context;
	w->desc = desc;
	w->options = options;
	w->zone = pg_tzset(options->time_zone);
	initStringInfo(&w->scratch);
	places = find_places(w, attnos);
	if (options->schema)
		w->schema = GetDatabaseEncoding() == PG_SQL_ASCII ? pstrdup(options->schema) :
			pstrdup(pg_server_to_any(options->schema, strlen(options->schema), PG_UTF8));
	else
		w->schema = derive_schema(w, places);
	type = kda_avro_schema(context, w->schema, strlen(w->schema), &why);
	if (type == NULL || type->kind != KDA_AVRO_RECORD)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid Avro schema"),
				 errdetail("%s.", type ? "It is not one of a record" : why)));
	plan_record(w, type, places, 0, &used);
	foreach(lc, attnos)
		if (!list_member_int(used, lfirst_int(lc)))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" is no field of the schema", column_name(w, lfirst_int(lc))),
					 errhint("Without option schema, the schema is made from the columns.")));
	MemoryContextSwitchTo(old);
	return w;
}

const char *
kda_avro_writer_schema(const KdaAvroWriter *w)
{
	return w->schema;
}

bool
kda_avro_writer_calls(const KdaAvroWriter *w)
{
	return w->calls;
}

/*---- values */

static inline void
put_long(StringInfo into, int64 n)
{
	uint64		u = ((uint64) n << 1) ^ (uint64) (n >> 63);
	char	   *out = kda_room(into, 10);

	while (u >= 0x80)
	{
		*out++ = (char) (u | 0x80);
		u >>= 7;
	}
	*out++ = (char) u;
	into->len = (int) (out - into->data);
}

static void
put_bytes(StringInfo into, const char *p, Size len)
{
	put_long(into, (int64) len);
	kda_put(into, p, len);
}

static void
put_bits(StringInfo into, uint64 bits, int n)
{
	char	   *out = kda_room(into, 8);

	for (int i = 0; i < n; i++, bits >>= 8)
		out[i] = (char) bits;
	into->len += n;
}

static void
cannot(const Value *v, const char *text, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("column \"%s\": %.80s cannot be written as the schema wants it", v->column, text),
			 errdetail("%s", why)));
}

/* Text of the database's encoding as a string. */
static void
put_string(StringInfo into, const char *p, Size len)
{
	if (GetDatabaseEncoding() != PG_UTF8)
	{
		char	   *utf8 = pg_server_to_any(p, (int) len, PG_UTF8);

		if (utf8 != p)
		{
			p = utf8;
			len = strlen(utf8);
		}
	}
	put_bytes(into, p, len);
}

/* The text of a value in the scratch space. */
static const char *
text_of(KdaAvroWriter *w, Value *v, Datum value)
{
	resetStringInfo(&w->scratch);
	kda_write_text(v->text, value, &w->scratch);
	*kda_room(&w->scratch, 1) = '\0';
	return w->scratch.data;
}

/* The integer that a decimal number is at that scale; its digits without sign into digits, their number. */
static int
unscaled(const Value *v, const char *text, int scale, char *digits, bool *negative)
{
	const char *p = text;
	int			n = 0;
	int			after = -1;

	*negative = *p == '-';
	if (*negative)
		p++;
	for (; *p; p++)
	{
		if (*p == '.')
		{
			after = 0;
			continue;
		}
		if (!isdigit((unsigned char) *p))
			cannot(v, text, "It is not a finite number.");
		if (after >= 0 && after++ >= scale)
		{
			if (*p != '0')
				cannot(v, text, psprintf("It has more than %d digits after the point.", scale));
			continue;
		}
		if (n == 0 && *p == '0')
			continue;
		if (n >= MAX_DIGITS)
			cannot(v, text, "It has too many digits.");
		digits[n++] = *p;
	}
	for (after = Max(after, 0); after < scale && n > 0; after++)
	{
		if (n >= MAX_DIGITS)
			cannot(v, text, "It has too many digits.");
		digits[n++] = '0';
	}
	return n;
}

static void
put_decimal(KdaAvroWriter *w, Value *v, Datum value, StringInfo into)
{
	char		digits[MAX_DIGITS];
	unsigned char bytes[MAX_DIGITS / 2 + 2] = {0};	/* the least first */
	int			nbytes = 1;
	bool		negative;
	const char *text = text_of(w, v, value);
	int			n = unscaled(v, text, v->type->scale, digits, &negative);
	int			size;
	char	   *out;

	if (n > v->type->precision)
		cannot(v, text, psprintf("It has more than %d digits.", v->type->precision));
	for (int i = 0; i < n; i++)
	{
		int			carry = digits[i] - '0';

		for (int j = 0; j < nbytes; j++)
		{
			carry += bytes[j] * 10;
			bytes[j] = (unsigned char) carry;
			carry >>= 8;
		}
		if (carry)
			bytes[nbytes++] = (unsigned char) carry;
	}
	/* room for the sign */
	if (bytes[nbytes - 1] & 0x80)
		nbytes++;
	if (negative)
	{
		int			carry = 1;

		for (int j = 0; j < nbytes; j++)
		{
			carry += (unsigned char) ~bytes[j];
			bytes[j] = (unsigned char) carry;
			carry >>= 8;
		}
	}
	size = v->type->kind == KDA_AVRO_FIXED ? (int) v->type->size : nbytes;
	if (nbytes > size)
		cannot(v, text, psprintf("It does not fit into %d bytes.", size));
	if (v->type->kind == KDA_AVRO_BYTES)
		put_long(into, size);
	out = kda_room(into, size);
	for (int i = 0; i < size; i++)
		out[i] = size - 1 - i < nbytes ? (char) bytes[size - 1 - i] : negative && n > 0 ? (char) 0xff : 0;
	into->len += size;
}

static int64
integer_of(KdaAvroWriter *w, Value *v, Datum value)
{
	switch (v->pgtype)
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		case INT8OID:
			return DatumGetInt64(value);
		default:
			{
				/* numeric */
				char		digits[MAX_DIGITS + 2];
				bool		negative;
				const char *text = text_of(w, v, value);
				int			n = unscaled(v, text, 0, digits + 1, &negative);
				char	   *end;
				int64		result;

				digits[0] = negative ? '-' : '+';
				digits[n + 1] = '\0';
				errno = 0;
				result = n == 0 ? 0 : strtoi64(digits, &end, 10);
				if (errno != 0)
					cannot(v, text, "It has more than 64 bits.");
				return result;
			}
	}
}

static void
put_time(KdaAvroWriter *w, Value *v, Datum value, StringInfo into)
{
	int64		n;
	int64		unit = v->type->logical == KDA_AVRO_TIMESTAMP_MILLIS || v->type->logical == KDA_AVRO_LOCAL_MILLIS ||
		v->type->logical == KDA_AVRO_TIME_MILLIS ? 1000 : 1;

	if (v->pgtype == DATEOID)
	{
		if (DATE_NOT_FINITE(DatumGetDateADT(value)))
			cannot(v, "infinity", "A date of Avro is finite.");
		put_long(into, (int64) DatumGetDateADT(value) + EPOCH_DAYS);
		return;
	}
	n = DatumGetInt64(value);
	if (v->pgtype != TIMEOID)
	{
		if (TIMESTAMP_NOT_FINITE(n))
			cannot(v, "infinity", "A time of Avro is finite.");
		if (v->pgtype == TIMESTAMPOID && (v->type->logical == KDA_AVRO_TIMESTAMP_MICROS || v->type->logical == KDA_AVRO_TIMESTAMP_MILLIS))
		{
			struct pg_tm tm;
			fsec_t		fsec;

			if (timestamp2tm(n, NULL, &tm, &fsec, NULL, NULL) == 0)
				n += (int64) DetermineTimeZoneOffset(&tm, w->zone) * USECS_PER_SEC;
		}
		n += (int64) EPOCH_DAYS * USECS_PER_DAY;
	}
	/* down, so that times before 1970 are treated alike */
	put_long(into, n / unit - (n % unit < 0));
}

static void write_value(KdaAvroWriter *w, Value *v, Datum value, bool isnull, StringInfo into);

static void
put_array(KdaAvroWriter *w, Value *v, Datum value, StringInfo into)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("column \"%s\": an array of %d dimensions cannot be written", v->column, ARR_NDIM(array)),
				 errdetail("An array of Avro has one.")));
	deconstruct_array(array, ARR_ELEMTYPE(array), v->typlen, v->byval, v->align, &elements, &nulls, &n);
	if (n > 0)
		put_long(into, n);
	for (int i = 0; i < n; i++)
		write_value(w, v->element, elements[i], nulls[i], into);
	put_long(into, 0);
}

static void
write_value(KdaAvroWriter *w, Value *v, Datum value, bool isnull, StringInfo into)
{
	if (isnull)
	{
		if (v->null_branch < 0)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("column \"%s\" is null, which the schema does not allow", v->column)));
		put_long(into, v->null_branch);
		return;
	}
	if (v->branch >= 0)
		put_long(into, v->branch);
	switch (v->type->kind)
	{
		case KDA_AVRO_BOOLEAN:
			kda_put(into, DatumGetBool(value) ? "\1" : "\0", 1);
			break;
		case KDA_AVRO_INT:
		case KDA_AVRO_LONG:
			if (v->type->logical != KDA_AVRO_PLAIN)
				put_time(w, v, value, into);
			else
			{
				int64		n = integer_of(w, v, value);

				if (v->type->kind == KDA_AVRO_INT && (n < PG_INT32_MIN || n > PG_INT32_MAX))
					cannot(v, psprintf(INT64_FORMAT, n), "It has more than 32 bits.");
				put_long(into, n);
			}
			break;
		case KDA_AVRO_FLOAT:
		case KDA_AVRO_DOUBLE:
			{
				double		d = v->pgtype == FLOAT4OID ? DatumGetFloat4(value) : v->pgtype == FLOAT8OID ? DatumGetFloat8(value) :
					v->pgtype == INT2OID ? DatumGetInt16(value) : DatumGetInt32(value);
				float		f = (float) d;
				uint64		bits = 0;
				uint32		bits4;

				memcpy(&bits, &d, 8);
				memcpy(&bits4, &f, 4);
				put_bits(into, v->type->kind == KDA_AVRO_FLOAT ? bits4 : bits, v->type->kind == KDA_AVRO_FLOAT ? 4 : 8);
				break;
			}
		case KDA_AVRO_BYTES:
		case KDA_AVRO_FIXED:
			if (v->type->logical == KDA_AVRO_DECIMAL)
				put_decimal(w, v, value, into);
			else if (v->type->logical == KDA_AVRO_UUID)
				kda_put(into, (char *) DatumGetUUIDP(value)->data, UUID_LEN);
			else
			{
				struct varlena *b = PG_DETOAST_DATUM_PACKED(value);

				if (v->type->kind == KDA_AVRO_BYTES)
					put_bytes(into, VARDATA_ANY(b), VARSIZE_ANY_EXHDR(b));
				else if (VARSIZE_ANY_EXHDR(b) != v->type->size)
					cannot(v, psprintf("a value of %d bytes", (int) VARSIZE_ANY_EXHDR(b)),
						   psprintf("The schema has a fixed size of " INT64_FORMAT ".", v->type->size));
				else
					kda_put(into, VARDATA_ANY(b), VARSIZE_ANY_EXHDR(b));
			}
			break;
		case KDA_AVRO_STRING:
			if (v->text)
			{
				const char *text = text_of(w, v, value);

				put_string(into, text, w->scratch.len);
			}
			else
			{
				struct varlena *t = PG_DETOAST_DATUM_PACKED(value);

				put_string(into, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
			}
			break;
		case KDA_AVRO_ENUM:
			{
				const char *text = text_of(w, v, value);
				int			i = 0;

				while (i < v->type->nsymbols && strcmp(v->type->symbols[i], text) != 0)
					i++;
				if (i == v->type->nsymbols)
					cannot(v, psprintf("\"%s\"", text), psprintf("It is no symbol of enum \"%s\".", v->type->name));
				put_long(into, i);
				break;
			}
		case KDA_AVRO_ARRAY:
			put_array(w, v, value, into);
			break;
		default:
			elog(ERROR, "unexpected type of Avro: %d", (int) v->type->kind);
	}
}

void
kda_avro_write(KdaAvroWriter *w, TupleTableSlot *slot, StringInfo into)
{
	for (int i = 0; i < w->nsteps; i++)
	{
		Step	   *step = &w->steps[i];

		if (step->attno != 0)
			write_value(w, step->value, slot->tts_values[step->attno - 1], slot->tts_isnull[step->attno - 1], into);
		else if (step->branch >= 0)
			put_long(into, step->branch);
	}
}
