/*-------------------------------------------------------------------------
 *
 * convert.c
 *	  One value of a record to one column: the rules of JSON to SQL (docs,
 *	  "JSON values").  Common types are read without a function call; the rest
 *	  goes through the type's input function, which may raise an error.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "fmgr.h"
#include "funcapi.h"
#include "format/converter.h"
#include "format/number.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

bool
kda_decode_error(KdaDecodeError *error, const char *name, const char *fmt,...)
{
	va_list		args;

	error->name = name;
	va_start(args, fmt);
	vsnprintf(error->message, sizeof(error->message), fmt, args);
	va_end(args);
	/* no half character where it was cut off */
	error->message[pg_mbcliplen(error->message, strlen(error->message), sizeof(error->message) - 1)] = '\0';
	return false;
}

KdaConverter *
kda_converter_create(MemoryContext context, const char *column, Oid type, int32 typmod,
					 KdaTimeFormat time_format, const char *time_zone)
{
	KdaConverter *c = MemoryContextAllocZero(context, sizeof(KdaConverter));
	Oid			input;

	c->column = MemoryContextStrdup(context, column);
	c->context = context;
	if (get_typtype(type) == TYPTYPE_DOMAIN)
	{
		/* a value of what it is made of, which is then checked */
		if (DomainHasConstraints(type))
			c->domain = type;
		type = getBaseTypeAndTypmod(type, &typmod);
	}
	c->type = type;
	c->typmod = typmod;
	get_typlenbyval(type, &c->typlen, &c->byval);
	c->time_format = time_format;
	c->zone = pg_tzset(time_zone);
	if (c->zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" not recognized", time_zone)));
	c->zone_is_utc = pg_strcasecmp(time_zone, "UTC") == 0;
	getTypeInputInfo(type, &input, &c->ioparam);
	fmgr_info_cxt(input, &c->input, context);
	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
			c->kind = type == TEXTOID || typmod < 0 ? C_TEXT : C_VARCHAR;
			c->interned = MemoryContextAllocZero(context, sizeof(Interned) * INTERN_SLOTS);
			break;
		case INT2OID:
		case INT4OID:
		case INT8OID:
			c->kind = C_INT;
			break;
		case FLOAT4OID:
			c->kind = C_FLOAT4;
			break;
		case FLOAT8OID:
			c->kind = C_FLOAT8;
			break;
		case BOOLOID:
			c->kind = C_BOOL;
			break;
		case NUMERICOID:
			c->kind = C_NUMERIC;
			break;
		case TIMESTAMPTZOID:
		case TIMESTAMPOID:
		case DATEOID:
			c->kind = C_TIME;
			break;
		case JSONOID:
		case JSONBOID:
			c->kind = C_JSON;
			break;
		default:
			{
				char		category;
				bool		preferred;

				get_type_category_preferred(type, &category, &preferred);
				c->numbers = category == TYPCATEGORY_NUMERIC;
				c->texts = category == TYPCATEGORY_STRING;
				c->kind = OidIsValid(get_element_type(type)) || get_typtype(type) == TYPTYPE_COMPOSITE ?
					C_COMPOSED : C_INPUT;
				if (c->kind == C_COMPOSED)
				{
					MemoryContext old = MemoryContextSwitchTo(context);

					fmgr_info_cxt(F_JSON_TO_RECORD, &c->to_record, context);
					c->expected.type = T_ReturnSetInfo;
					c->expected.expectedDesc = CreateTemplateTupleDesc(1);
					TupleDescInitEntry(c->expected.expectedDesc, 1, "v", type, typmod, 0);
					BlessTupleDesc(c->expected.expectedDesc);
					MemoryContextSwitchTo(old);
				}
			}
	}
	return c;
}

/*---- messages */

KdaConverted
kda_convert_failed(KdaConverter *c, const KdaValue *v, KdaDecodeError *error, const char *why)
{
	static const char *const kinds[] = {"", "null", "string", "number", "boolean", "boolean", "object", "array"};
	int			len = pg_encoding_mbcliplen(PG_UTF8, v->p, v->len, 40);
	char		shown[41];

	memcpy(shown, v->p, len);
	shown[len] = '\0';
	/* the record is in UTF-8, the message in the database's encoding */
	if (GetDatabaseEncoding() != PG_UTF8)
		for (int i = 0; i < len; i++)
			if (IS_HIGHBIT_SET(shown[i]))
				shown[i] = '?';
	/* quality 0: not from JSON */
	kda_decode_error(error, "conversion", "column \"%s\": %s%s %s%s cannot be %s%s%s", c->column,
					 v->quality == 0 ? "value" : "JSON ", v->quality == 0 ? "" : kinds[v->kind],
					 shown, len < v->len ? "..." : "", format_type_be(c->type), why ? ": " : "", why ? why : "");
	return KDA_CONVERT_FAILED;
}

/*---- text of a value */

/*
 * The characters of a string, or the source text of anything else, with a zero
 * byte after them.  NULL with *why.
 */
static char *
plain_text(const KdaValue *v, MemoryContext temp, int *len, const char **why)
{
	char	   *out = MemoryContextAllocHuge(temp, (Size) v->len + 1);

	if (v->escaped)
	{
		*len = kda_json_unescape(v->p, v->len, out, why);
		if (*len < 0)
			return NULL;
	}
	else
	{
		memcpy(out, v->p, v->len);
		*len = v->len;
	}
	out[*len] = '\0';
	return out;
}

static inline bool
foreign_encoding(void)
{
	int			encoding = GetDatabaseEncoding();

	return unlikely(encoding != PG_UTF8 && encoding != PG_SQL_ASCII);
}

/* Copies a result of an input function to where the batch lives. */
Datum
kda_convert_to_batch(KdaConverter *c, KdaBatch *batch, Datum d)
{
	Size		size;
	void	   *copy;

	if (c->byval)
		return d;
	if (c->typlen == -1)
		d = PointerGetDatum(PG_DETOAST_DATUM(d));
	size = c->typlen == -1 ? VARSIZE(DatumGetPointer(d)) :
		c->typlen == -2 ? strlen(DatumGetCString(d)) + 1 : c->typlen;
	copy = kda_batch_alloc(batch, size);
	memcpy(copy, DatumGetPointer(d), size);
	return PointerGetDatum(copy);
}

static KdaConverted
by_input(KdaConverter *c, const KdaValue *v, KdaBatch *batch, MemoryContext temp, bool may_raise,
		 Datum *result, KdaDecodeError *error)
{
	const char *why;
	char	   *text;
	int			len;
	MemoryContext old;
	pg_tz	   *zone = session_timezone;

	if (!may_raise)
		return KDA_CONVERT_MAY_RAISE;
	text = plain_text(v, temp, &len, &why);
	if (text == NULL)
		return kda_convert_failed(c, v, error, why);
	old = MemoryContextSwitchTo(temp);
	if (foreign_encoding())
		text = pg_any_to_server(text, len, PG_UTF8);
	/* a time without a zone is in the stream's; decode.c puts it back after an error */
	session_timezone = c->zone;
	*result = InputFunctionCall(&c->input, text, c->ioparam, c->typmod);
	session_timezone = zone;
	*result = kda_convert_to_batch(c, batch, *result);
	MemoryContextSwitchTo(old);
	return KDA_CONVERTED;
}

/* All bytes of a string of at most 16, in two numbers that overlap. */
static inline void
bytes_of(const char *p, int len, uint64 *first, uint64 *last)
{
	uint32		a,
				b;

	if (len >= 8)
	{
		memcpy(first, p, 8);
		memcpy(last, p + len - 8, 8);
	}
	else if (len >= 4)
	{
		memcpy(&a, p, 4);
		memcpy(&b, p + len - 4, 4);
		*first = a;
		*last = b;
	}
	else
	{
		*first = len > 0 ? (unsigned char) p[0] | (uint64) (unsigned char) p[len / 2] << 8 |
			(uint64) (unsigned char) p[len - 1] << 16 : 0;
		*last = 0;
	}
}

/*
 * The place of a short string among those of the batch, so that equal ones
 * share their memory (see batch.h); NULL: it is not looked for.  A column
 * whose values hardly ever come again is left alone for the rest of the batch.
 */
static inline Interned *
find_interned(KdaConverter *c, KdaBatch *batch, const char *p, int len, bool *found)
{
	Interned   *entry;
	uint64		first,
				last,
				hash;

	if (c->interned == NULL || len > INTERN_BYTES)
		return NULL;
	if (unlikely(c->generation != batch->generation))
	{
		c->generation = batch->generation;
		c->tries = c->hits = 0;
	}
	if (c->tries >= INTERN_TRIES && c->hits < c->tries / 2)
		return NULL;
	c->tries++;
	bytes_of(p, len, &first, &last);
	hash = (first ^ (uint64) len << 56) * UINT64CONST(0x9e3779b97f4a7c15) ^ last * UINT64CONST(0xc2b2ae3d27d4eb4f);
	entry = &c->interned[(hash ^ hash >> 32) & (INTERN_SLOTS - 1)];
	*found = entry->first == first && entry->last == last && entry->len == len &&
		entry->generation == batch->generation;
	if (*found)
		c->hits++;
	else
	{
		entry->first = first;
		entry->last = last;
		entry->len = len;
		entry->generation = 0;	/* until it has been made */
	}
	return entry;
}

static KdaConverted
to_text(KdaConverter *c, const KdaValue *v, KdaBatch *batch, MemoryContext temp, bool may_raise,
		Datum *result, KdaDecodeError *error)
{
	struct varlena *out;
	int			len = v->len;
	Interned   *entry = NULL;

	if (v->kind >= KDA_VALUE_OBJECT)
	{
		const char *why = kda_json_bad_escape(v->p, v->len);

		if (why)
			return kda_convert_failed(c, v, error, why);
	}
	if (foreign_encoding())
		return by_input(c, v, batch, temp, may_raise, result, error);
	if (likely(!v->escaped))
	{
		bool		found;

		entry = find_interned(c, batch, v->p, len, &found);
		if (entry && likely(found))
		{
			*result = PointerGetDatum(entry->text);
			return KDA_CONVERTED;
		}
	}
	out = kda_batch_alloc(batch, (Size) len + VARHDRSZ);
	if (unlikely(v->escaped))
	{
		const char *why;

		len = kda_json_unescape(v->p, v->len, VARDATA(out), &why);
		if (len < 0)
			return kda_convert_failed(c, v, error, why);
	}
	else
		memcpy(VARDATA(out), v->p, len);
	if (c->kind == C_VARCHAR && len > c->typmod - VARHDRSZ)
	{
		int			max = c->typmod - VARHDRSZ;
		int			clip = pg_mbcharcliplen(VARDATA(out), len, max);

		for (int i = clip; i < len; i++)
			if (VARDATA(out)[i] != ' ')
				return kda_convert_failed(c, v, error, "it is too long");
		len = clip;
	}
	SET_VARSIZE(out, len + VARHDRSZ);
	if (entry)
	{
		entry->text = out;
		entry->generation = batch->generation;
	}
	*result = PointerGetDatum(out);
	return KDA_CONVERTED;
}

/*---- numbers */

static const char *
trim(const char *p, int *len)
{
	while (*len > 0 && isspace((unsigned char) *p))
	{
		p++;
		(*len)--;
	}
	while (*len > 0 && isspace((unsigned char) p[*len - 1]))
		(*len)--;
	return p;
}

static KdaConverted
to_int(KdaConverter *c, const KdaValue *v, KdaBatch *batch, MemoryContext temp, bool may_raise,
	   Datum *result, KdaDecodeError *error)
{
	int64		n;
	int			len = v->len;
	const char *p = v->p;
	const char *why;

	if (v->kind == KDA_VALUE_STRING)
	{
		/* '12.0' is no integer in PostgreSQL, 12.0 in JSON is */
		if (v->escaped || len == 0 || memchr(p, '.', len) || memchr(p, 'e', len) || memchr(p, 'E', len))
			return by_input(c, v, batch, temp, may_raise, result, error);
		p = trim(p, &len);
	}
	why = kda_read_integer(p, len, &n);
	if (why == NULL && ((c->type == INT4OID && (n < PG_INT32_MIN || n > PG_INT32_MAX)) ||
						(c->type == INT2OID && (n < PG_INT16_MIN || n > PG_INT16_MAX))))
		why = "out of range";
	if (why)
		return v->kind == KDA_VALUE_STRING ? by_input(c, v, batch, temp, may_raise, result, error) :
			kda_convert_failed(c, v, error, why);
	*result = c->type == INT8OID ? Int64GetDatum(n) : c->type == INT4OID ? Int32GetDatum((int32) n) :
		Int16GetDatum((int16) n);
	return KDA_CONVERTED;
}

static KdaConverted
to_float(KdaConverter *c, const KdaValue *v, KdaBatch *batch, MemoryContext temp, bool may_raise,
		 Datum *result, KdaDecodeError *error)
{
	double		d;

	if (v->kind == KDA_VALUE_STRING)
		return by_input(c, v, batch, temp, may_raise, result, error);
	if (c->kind == C_FLOAT4)
	{
		float		f;

		if (!kda_read_float4(v->p, v->len, &f))
			return kda_convert_failed(c, v, error, "out of range");
		*result = Float4GetDatum(f);
		return KDA_CONVERTED;
	}
	if (!kda_read_float8(v->p, v->len, &d))
		return kda_convert_failed(c, v, error, "out of range");
	*result = Float8GetDatum(d);
	return KDA_CONVERTED;
}

/*---- times */

/* A wall clock time in the converter's zone as a point in time. */
int64
kda_convert_from_wall(KdaConverter *c, int64 wall)
{
	struct pg_tm tm;
	fsec_t		fsec;

	if (c->zone_is_utc || timestamp2tm(wall, NULL, &tm, &fsec, NULL, NULL) != 0)
		return wall;
	return wall + (int64) DetermineTimeZoneOffset(&tm, c->zone) * USECS_PER_SEC;
}

/* And back. */
int64
kda_convert_to_wall(KdaConverter *c, int64 time)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			tz;

	if (c->zone_is_utc || timestamp2tm(time, &tz, &tm, &fsec, NULL, c->zone) != 0)
		return time;
	return time - (int64) tz * USECS_PER_SEC;
}

/* timestamp(n): rounded as core does it. */
void
kda_convert_put_time(KdaConverter *c, int64 time, Datum *result)
{
	*result = c->typmod < 0 || c->typmod >= MAX_TIMESTAMP_PRECISION ? Int64GetDatum(time) :
		DirectFunctionCall2(timestamp_scale, Int64GetDatum(time), Int32GetDatum(c->typmod));
}

void
kda_convert_put_date(int64 wall, Datum *result)
{
	int64		days = wall / USECS_PER_DAY;

	if (wall % USECS_PER_DAY < 0)
		days--;
	*result = DateADTGetDatum((DateADT) days);
}

static KdaConverted
to_time(KdaConverter *c, const KdaValue *v, KdaBatch *batch, MemoryContext temp, bool may_raise,
		Datum *result, KdaDecodeError *error)
{
	int64		wall,
				date;
	bool		has_zone;
	int			zone;

	if (c->time_format != KDA_TIME_ISO8601)
	{
		/* seconds or milliseconds since 1970, as a number or its text */
		int64		unit = c->time_format == KDA_TIME_EPOCH ? USECS_PER_SEC : 1000;
		int64		whole;
		int64		time;
		int			len = v->len;
		const char *p = v->kind == KDA_VALUE_STRING ? trim(v->p, &len) : v->p;

		if (v->kind == KDA_VALUE_STRING && (v->escaped || !kda_looks_like_number(p, len)))
			return kda_convert_failed(c, v, error, "it is no number");
		if (kda_read_integer(p, len, &whole) == NULL)
		{
			if (pg_mul_s64_overflow(whole, unit, &time))
				return kda_convert_failed(c, v, error, "out of range");
		}
		else
		{
			double		d;

			if (!kda_read_float8(p, len, &d) || fabs(d) > 1e18 / unit)
				return kda_convert_failed(c, v, error, "out of range");
			time = (int64) rint(d * unit);
		}
		if (pg_sub_s64_overflow(time, (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY, &time) ||
			!IS_VALID_TIMESTAMP(time))
			return kda_convert_failed(c, v, error, "out of range");
		if (c->type == TIMESTAMPTZOID)
			kda_convert_put_time(c, time, result);
		else if (c->type == TIMESTAMPOID)
			kda_convert_put_time(c, kda_convert_to_wall(c, time), result);
		else
			kda_convert_put_date(kda_convert_to_wall(c, time), result);
		return KDA_CONVERTED;
	}
	if (v->kind == KDA_VALUE_NUMBER)
		return kda_convert_failed(c, v, error, "option time_format 'epoch' or 'epoch_ms' of the column says what it means");
	if (c->type == TIMESTAMPTZOID && !v->escaped && kda_read_same_minute(&c->minute, v->p, v->len, &wall))
	{
		kda_convert_put_time(c, wall, result);
		return KDA_CONVERTED;
	}
	if (v->escaped || !kda_read_iso_time(v->p, v->len, &wall, &date, &has_zone, &zone))
		return by_input(c, v, batch, temp, may_raise, result, error);
	kda_remember_minute(&c->minute, v->p, v->len, wall);
	switch (c->type)
	{
		case TIMESTAMPTZOID:
			kda_convert_put_time(c, has_zone ? wall - (int64) zone * USECS_PER_SEC : kda_convert_from_wall(c, wall), result);
			break;
		case TIMESTAMPOID:
			/* a zone that is given counts: the wall clock of the stream's zone */
			kda_convert_put_time(c, has_zone ? kda_convert_to_wall(c, wall - (int64) zone * USECS_PER_SEC) : wall, result);
			break;
		default:
			/* as core reads a date: what follows the day does not count */
			kda_convert_put_date(date, result);
			break;
	}
	return KDA_CONVERTED;
}

/*---- the rest */

static KdaConverted
to_bool(KdaConverter *c, const KdaValue *v, KdaBatch *batch, MemoryContext temp, bool may_raise,
		Datum *result, KdaDecodeError *error)
{
	switch (v->kind)
	{
		case KDA_VALUE_TRUE:
			*result = BoolGetDatum(true);
			return KDA_CONVERTED;
		case KDA_VALUE_FALSE:
			*result = BoolGetDatum(false);
			return KDA_CONVERTED;
		case KDA_VALUE_STRING:
			{
				bool		b;
				int			len = v->len;
				const char *p = trim(v->p, &len);

				if (!v->escaped && parse_bool_with_len(p, len, &b))
				{
					*result = BoolGetDatum(b);
					return KDA_CONVERTED;
				}
				return kda_convert_failed(c, v, error, NULL);
			}
		default:
			return kda_convert_failed(c, v, error, NULL);
	}
}

static KdaConverted
to_numeric(KdaConverter *c, const KdaValue *v, KdaBatch *batch, MemoryContext temp, bool may_raise,
		   Datum *result, KdaDecodeError *error)
{
	/* without a limit and of sane length, a JSON number cannot fail */
	bool		harmless = v->kind == KDA_VALUE_NUMBER && c->typmod < 0 && v->len <= 100 &&
		memchr(v->p, 'e', v->len) == NULL && memchr(v->p, 'E', v->len) == NULL;

	return by_input(c, v, batch, temp, may_raise || harmless, result, error);
}

/* The source text of a JSON value; strings with their quotes. */
static void
with_quotes(const KdaValue *v, KdaValue *source)
{
	*source = *v;
	source->escaped = false;
	if (v->kind == KDA_VALUE_STRING)
	{
		source->p--;
		source->len += 2;
	}
}

static KdaConverted
to_composed(KdaConverter *c, const KdaValue *v, KdaBatch *batch, MemoryContext temp, bool may_raise,
			Datum *result, KdaDecodeError *error)
{
	LOCAL_FCINFO(fcinfo, 1);
	MemoryContext old;
	bool		isnull = true;
	pg_tz	   *zone = session_timezone;
	StringInfoData json;
	HeapTupleData tuple;

	if (v->kind == KDA_VALUE_STRING)
		return by_input(c, v, batch, temp, may_raise, result, error);
	if (v->kind != KDA_VALUE_ARRAY && v->kind != KDA_VALUE_OBJECT)
		return kda_convert_failed(c, v, error, NULL);
	if (!may_raise)
		return KDA_CONVERT_MAY_RAISE;
	old = MemoryContextSwitchTo(temp);
	initStringInfo(&json);
	appendStringInfoString(&json, "{\"v\":");
	if (foreign_encoding())
		appendStringInfoString(&json, pg_any_to_server(pnstrdup(v->p, v->len), v->len, PG_UTF8));
	else
		appendBinaryStringInfo(&json, v->p, v->len);
	appendStringInfoChar(&json, '}');
	InitFunctionCallInfoData(*fcinfo, &c->to_record, 1, InvalidOid, NULL, (Node *) &c->expected);
	fcinfo->args[0].value = PointerGetDatum(cstring_to_text_with_len(json.data, json.len));
	fcinfo->args[0].isnull = false;
	session_timezone = c->zone;
	*result = FunctionCallInvoke(fcinfo);
	session_timezone = zone;
	if (!fcinfo->isnull)
	{
		tuple.t_data = DatumGetHeapTupleHeader(*result);
		tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
		ItemPointerSetInvalid(&tuple.t_self);
		tuple.t_tableOid = InvalidOid;
		*result = heap_getattr(&tuple, 1, c->expected.expectedDesc, &isnull);
		if (!isnull)
			*result = kda_convert_to_batch(c, batch, *result);
	}
	MemoryContextSwitchTo(old);
	return isnull ? kda_convert_failed(c, v, error, NULL) : KDA_CONVERTED;
}

KdaConverted
kda_convert_base(KdaConverter *c, const KdaValue *v, KdaBatch *batch, MemoryContext temp, bool may_raise,
		Datum *result, KdaDecodeError *error)
{
	bool		scalar = v->kind == KDA_VALUE_STRING || v->kind == KDA_VALUE_NUMBER;

	if (v->kind >= KDA_VALUE_INTEGER)
		return kda_convert_binary(c, v, batch, temp, may_raise, result, error);
	switch (c->kind)
	{
		case C_TEXT:
		case C_VARCHAR:
			return to_text(c, v, batch, temp, may_raise, result, error);
		case C_INT:
			return scalar ? to_int(c, v, batch, temp, may_raise, result, error) : kda_convert_failed(c, v, error, NULL);
		case C_FLOAT4:
		case C_FLOAT8:
			return scalar ? to_float(c, v, batch, temp, may_raise, result, error) : kda_convert_failed(c, v, error, NULL);
		case C_NUMERIC:
			return scalar ? to_numeric(c, v, batch, temp, may_raise, result, error) : kda_convert_failed(c, v, error, NULL);
		case C_TIME:
			return scalar ? to_time(c, v, batch, temp, may_raise, result, error) : kda_convert_failed(c, v, error, NULL);
		case C_BOOL:
			return to_bool(c, v, batch, temp, may_raise, result, error);
		case C_JSON:
			{
				KdaValue	source;
				const char *why;

				if (v->quality == 0)	/* not from JSON: its text is the document */
					source = *v;
				else
					with_quotes(v, &source);
				/* jsonb finds them itself, json keeps the text as it is */
				if (c->type == JSONOID && (why = kda_json_bad_escape(source.p, source.len)) != NULL)
					return kda_convert_failed(c, v, error, why);
				return by_input(c, &source, batch, temp, may_raise, result, error);
			}
		case C_COMPOSED:
			return to_composed(c, v, batch, temp, may_raise, result, error);
		case C_INPUT:
			if (c->texts && v->kind >= KDA_VALUE_OBJECT && kda_json_bad_escape(v->p, v->len))
				return kda_convert_failed(c, v, error, kda_json_bad_escape(v->p, v->len));
			if (v->kind == KDA_VALUE_STRING || c->texts || (v->kind == KDA_VALUE_NUMBER && c->numbers))
				return by_input(c, v, batch, temp, may_raise, result, error);
			return kda_convert_failed(c, v, error, NULL);
	}
	return KDA_CONVERT_FAILED;	/* not reached */
}

KdaConverted
kda_convert(KdaConverter *c, const KdaValue *v, KdaBatch *batch, MemoryContext temp, bool may_raise,
			Datum *result, KdaDecodeError *error)
{
	KdaConverted converted;

	if (likely(!OidIsValid(c->domain)))
		return kda_convert_base(c, v, batch, temp, may_raise, result, error);
	if (!may_raise)
		return KDA_CONVERT_MAY_RAISE;
	converted = kda_convert_base(c, v, batch, temp, may_raise, result, error);
	if (converted == KDA_CONVERTED)
		domain_check(*result, false, c->domain, &c->domain_info, c->context);
	return converted;
}

KdaConverted
kda_convert_null(KdaConverter *c, bool may_raise)
{
	if (!OidIsValid(c->domain))
		return KDA_CONVERTED;
	if (!may_raise)
		return KDA_CONVERT_MAY_RAISE;
	domain_check((Datum) 0, true, c->domain, &c->domain_info, c->context);
	return KDA_CONVERTED;
}
