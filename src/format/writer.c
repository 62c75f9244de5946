/*-------------------------------------------------------------------------
 *
 * writer.c
 *	  One value of a column as JSON (what to_jsonb says) or as text (what COPY
 *	  says).  Common types are written without a function call and without
 *	  memory of their own; arrays element by element; the rest by its output
 *	  function, and composite types and those that have a cast to json by
 *	  to_json, which knows all about them.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "fmgr.h"
#include "format/writer.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_coerce.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

typedef enum Kind
{
	W_TEXT,
	W_BOOL,
	W_INT2,
	W_INT4,
	W_INT8,
	W_FLOAT4,
	W_FLOAT8,
	W_NUMERIC,
	W_DATE,
	W_TIMESTAMP,
	W_TIMESTAMPTZ,
	W_UUID,
	W_BYTEA,
	W_JSON,
	W_JSONB,
	W_ARRAY,					/* as text by its output function */
	W_TO_JSON,					/* the same */
	W_OUTPUT
} Kind;

struct KdaWriter
{
	Kind		kind;
	Oid			type;
	KdaTimeFormat time_format;
	pg_tz	   *zone;
	bool		zone_is_utc;
	KdaDayText	day;
	FmgrInfo	output;
	FmgrInfo	to_json;		/* W_TO_JSON */
	KdaWriter  *element;		/* W_ARRAY */
	int16		typlen;			/* of the elements */
	bool		byval;
	char		align;
};

static bool
has_json_cast(Oid type)
{
	Oid			function;

	return type >= FirstNormalObjectId &&
		find_coercion_pathway(JSONOID, type, COERCION_EXPLICIT, &function) == COERCION_PATH_FUNC;
}

KdaWriter *
kda_writer_create(MemoryContext context, Oid type, KdaTimeFormat time_format, const char *time_zone)
{
	KdaWriter  *w = MemoryContextAllocZero(context, sizeof(KdaWriter));
	Oid			output;
	bool		varlena;

	type = getBaseType(type);
	w->type = type;
	w->time_format = time_format;
	w->zone = pg_tzset(time_zone);
	if (w->zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" not recognized", time_zone)));
	w->zone_is_utc = pg_strcasecmp(time_zone, "UTC") == 0;
	getTypeOutputInfo(type, &output, &varlena);
	fmgr_info_cxt(output, &w->output, context);
	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			w->kind = W_TEXT;
			break;
		case BOOLOID:
			w->kind = W_BOOL;
			break;
		case INT2OID:
			w->kind = W_INT2;
			break;
		case INT4OID:
			w->kind = W_INT4;
			break;
		case INT8OID:
			w->kind = W_INT8;
			break;
		case FLOAT4OID:
			w->kind = W_FLOAT4;
			break;
		case FLOAT8OID:
			w->kind = W_FLOAT8;
			break;
		case NUMERICOID:
			w->kind = W_NUMERIC;
			break;
		case DATEOID:
			w->kind = W_DATE;
			break;
		case TIMESTAMPOID:
			w->kind = W_TIMESTAMP;
			break;
		case TIMESTAMPTZOID:
			w->kind = W_TIMESTAMPTZ;
			break;
		case UUIDOID:
			w->kind = W_UUID;
			break;
		case BYTEAOID:
			w->kind = W_BYTEA;
			break;
		case JSONOID:
			w->kind = W_JSON;
			break;
		case JSONBOID:
			w->kind = W_JSONB;
			break;
		default:
			if (OidIsValid(get_element_type(type)))
			{
				Oid			element = get_element_type(type);

				w->kind = W_ARRAY;
				w->element = kda_writer_create(context, element, KDA_TIME_ISO8601, time_zone);
				get_typlenbyvalalign(element, &w->typlen, &w->byval, &w->align);
			}
			else if (type_is_rowtype(type) || has_json_cast(type))
			{
				MemoryContext old = MemoryContextSwitchTo(context);
				Const	   *arg = makeNullConst(type, -1, InvalidOid);

				w->kind = W_TO_JSON;
				fmgr_info_cxt(F_TO_JSON, &w->to_json, context);
				/* it asks the call for the type of what it gets */
				fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSON, JSONOID, list_make1(arg), InvalidOid, InvalidOid,
														 COERCE_EXPLICIT_CALL), &w->to_json);
				MemoryContextSwitchTo(old);
			}
			else
				w->kind = W_OUTPUT;
	}
	return w;
}

bool
kda_writer_calls(const KdaWriter *w)
{
	return w->kind >= W_ARRAY;
}

void
kda_writer_pin(KdaPinned *old, pg_tz *zone)
{
	*old = (KdaPinned) {DateStyle, DateOrder, IntervalStyle, extra_float_digits, bytea_output, session_timezone};
	DateStyle = USE_ISO_DATES;
	DateOrder = DATEORDER_MDY;
	IntervalStyle = INTSTYLE_POSTGRES;
	extra_float_digits = 1;
	bytea_output = BYTEA_OUTPUT_HEX;
	session_timezone = zone;
}

void
kda_writer_unpin(const KdaPinned *old)
{
	DateStyle = old->date_style;
	DateOrder = old->date_order;
	IntervalStyle = old->interval_style;
	extra_float_digits = old->float_digits;
	bytea_output = old->bytea_style;
	session_timezone = old->zone;
}

/*---- strings and bytes */

static void
put_text(StringInfo into, Datum value, bool json)
{
	struct varlena *t = PG_DETOAST_DATUM_PACKED(value);

	if (json)
		kda_write_json_string(into, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
	else
		kda_put(into, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

static void
put_cstring(StringInfo into, const char *text, bool json)
{
	if (json)
		kda_write_json_string(into, text, strlen(text));
	else
		kda_put(into, text, strlen(text));
}

static void
put_hex(StringInfo into, const char *p, Size len)
{
	char	   *out;

	if (len > (MaxAllocSize - 16) / 2)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a value of type bytea is too long to be written as text"),
				 errdetail("It has %zu bytes.", len)));
	out = kda_room(into, len * 2);
	for (Size i = 0; i < len; i++)
	{
		*out++ = kda_hex_digits[(unsigned char) p[i] >> 4];
		*out++ = kda_hex_digits[(unsigned char) p[i] & 15];
	}
	into->len += (int) (len * 2);
}

static void
put_uuid(StringInfo into, const pg_uuid_t *uuid)
{
	char	   *out = kda_room(into, UUID_LEN * 2 + 4);

	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = kda_hex_digits[uuid->data[i] >> 4];
		*out++ = kda_hex_digits[uuid->data[i] & 15];
	}
	into->len = (int) (out - into->data);
}

/*---- numbers */

/* A float that JSON has no number for is a string. */
static void
put_float8(StringInfo into, double d, bool json)
{
	if (unlikely(isnan(d) || isinf(d)))
		put_cstring(into, isnan(d) ? "NaN" : d > 0 ? "Infinity" : "-Infinity", json);
	else
		into->len += double_to_shortest_decimal_bufn(d, kda_room(into, DOUBLE_SHORTEST_DECIMAL_LEN));
}

static void
put_float4(StringInfo into, float f, bool json)
{
	if (unlikely(isnan(f) || isinf(f)))
		put_cstring(into, isnan(f) ? "NaN" : f > 0 ? "Infinity" : "-Infinity", json);
	else
		into->len += float_to_shortest_decimal_bufn(f, kda_room(into, FLOAT_SHORTEST_DECIMAL_LEN));
}

static void
put_numeric(StringInfo into, Datum value, bool json)
{
	Numeric		n = DatumGetNumeric(value);
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(n)));

	put_cstring(into, text, json && (numeric_is_nan(n) || numeric_is_inf(n)));
	pfree(text);
}

/*---- times */

#define EPOCH_DAYS	(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)

/* Seconds or milliseconds since 1970, as exactly as they are. */
static void
put_epoch(KdaWriter *w, StringInfo into, int64 time)
{
	int64		unit = w->time_format == KDA_TIME_EPOCH ? USECS_PER_SEC : 1000;
	int64		whole;
	int			rest;
	char	   *out = kda_room(into, 40);
	char	   *from = out;

	/* no finite timestamp is so far away that this overflows */
	time += EPOCH_DAYS * USECS_PER_DAY;
	whole = time / unit;
	rest = (int) (time % unit);
	if (time < 0 && whole == 0)
		*out++ = '-';
	out += pg_lltoa(whole, out);
	if (rest != 0)
	{
		int			digits = unit == 1000 ? 3 : 6;

		rest = abs(rest);
		*out++ = '.';
		for (int i = digits; i > 0; i--, rest /= 10)
			out[i - 1] = '0' + rest % 10;
		out += digits;
		while (out[-1] == '0')
			out--;
	}
	into->len += (int) (out - from);
}

/* A wall clock time in the writer's zone as a point in time. */
static int64
from_wall(KdaWriter *w, int64 wall)
{
	struct pg_tm tm;
	fsec_t		fsec;

	if (w->zone_is_utc || timestamp2tm(wall, NULL, &tm, &fsec, NULL, NULL) != 0)
		return wall;
	return wall + (int64) DetermineTimeZoneOffset(&tm, w->zone) * USECS_PER_SEC;
}

static void
out_of_range(KdaWriter *w)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
			 errmsg("%s out of range", format_type_be(w->type))));
}

static void
put_date(KdaWriter *w, StringInfo into, DateADT date, bool json)
{
	char	   *out;

	if (w->time_format != KDA_TIME_ISO8601 && !DATE_NOT_FINITE(date))
	{
		int64		wall = (int64) date * USECS_PER_DAY;

		if (date >= TIMESTAMP_END_JULIAN - POSTGRES_EPOCH_JDATE)
			out_of_range(w);
		put_epoch(w, into, from_wall(w, wall));
		return;
	}
	out = kda_room(into, MAXDATELEN + 2);
	if (json)
		*out++ = '"';
	if (likely(date >= KDA_FIRST_DAY && date <= KDA_LAST_DAY))
		out = kda_put_day(&w->day, out, date);
	else
	{
		if (DATE_NOT_FINITE(date))
			EncodeSpecialDate(date, out);
		else
		{
			struct pg_tm tm = {0};

			j2date(date + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
			EncodeDateOnly(&tm, USE_XSD_DATES, out);
		}
		out += strlen(out);
	}
	if (json)
		*out++ = '"';
	into->len = (int) (out - into->data);
}

static void
put_timestamp(KdaWriter *w, StringInfo into, int64 time, bool json)
{
	bool		with_zone = w->kind == W_TIMESTAMPTZ;
	int64		day = time / USECS_PER_DAY;
	int64		rest = time % USECS_PER_DAY;
	char	   *out;

	if (w->time_format != KDA_TIME_ISO8601 && !TIMESTAMP_NOT_FINITE(time))
	{
		put_epoch(w, into, with_zone ? time : from_wall(w, time));
		return;
	}
	if (rest < 0)
	{
		rest += USECS_PER_DAY;
		day--;
	}
	out = kda_room(into, MAXDATELEN + 2);
	if (json)
		*out++ = '"';
	if (likely((!with_zone || w->zone_is_utc) && day >= KDA_FIRST_DAY && day <= KDA_LAST_DAY))
	{
		out = kda_put_day(&w->day, out, day);
		*out++ = json ? 'T' : ' ';
		out = kda_put_clock(out, rest);
		if (with_zone)
		{
			memcpy(out, "+00:00", 6);
			out += json ? 6 : 3;
		}
	}
	else
	{
		if (TIMESTAMP_NOT_FINITE(time))
			EncodeSpecialTimestamp(time, out);
		else
		{
			struct pg_tm tm;
			fsec_t		fsec;
			int			tz;
			const char *tzn = NULL;

			if (timestamp2tm(time, with_zone ? &tz : NULL, &tm, &fsec, with_zone ? &tzn : NULL, w->zone) != 0)
				out_of_range(w);
			EncodeDateTime(&tm, fsec, with_zone, with_zone ? tz : 0, tzn, json ? USE_XSD_DATES : USE_ISO_DATES, out);
		}
		out += strlen(out);
	}
	if (json)
		*out++ = '"';
	into->len = (int) (out - into->data);
}

/*---- arrays */

/* One dimension; *at: the next element. */
static void
put_dimension(KdaWriter *w, StringInfo into, int ndim, const int *dims, Datum *elements, bool *nulls, int *at)
{
	kda_put(into, "[", 1);
	for (int i = 0; i < dims[0]; i++)
	{
		if (i > 0)
			kda_put(into, ",", 1);
		if (ndim > 1)
			put_dimension(w, into, ndim - 1, dims + 1, elements, nulls, at);
		else
		{
			if (nulls[*at])
				kda_put(into, "null", 4);
			else
				kda_write_json(w->element, elements[*at], into);
			(*at)++;
		}
	}
	kda_put(into, "]", 1);
}

static void
put_array(KdaWriter *w, StringInfo into, Datum value)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	Datum	   *elements;
	bool	   *nulls;
	int			n,
				at = 0;

	if (ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)) == 0)
	{
		kda_put(into, "[]", 2);
		return;
	}
	deconstruct_array(array, ARR_ELEMTYPE(array), w->typlen, w->byval, w->align, &elements, &nulls, &n);
	put_dimension(w, into, ARR_NDIM(array), ARR_DIMS(array), elements, nulls, &at);
}

/*---- all of them */

static inline void
write_value(KdaWriter *w, Datum value, StringInfo into, bool json)
{
	switch (w->kind)
	{
		case W_TEXT:
			put_text(into, value, json);
			break;
		case W_BOOL:
			if (!json)
				kda_put(into, DatumGetBool(value) ? "t" : "f", 1);
			else if (DatumGetBool(value))
				kda_put(into, "true", 4);
			else
				kda_put(into, "false", 5);
			break;
		case W_INT2:
			into->len += pg_ltoa(DatumGetInt16(value), kda_room(into, 12));
			break;
		case W_INT4:
			into->len += pg_ltoa(DatumGetInt32(value), kda_room(into, 12));
			break;
		case W_INT8:
			into->len += pg_lltoa(DatumGetInt64(value), kda_room(into, MAXINT8LEN + 1));
			break;
		case W_FLOAT4:
			put_float4(into, DatumGetFloat4(value), json);
			break;
		case W_FLOAT8:
			put_float8(into, DatumGetFloat8(value), json);
			break;
		case W_NUMERIC:
			put_numeric(into, value, json);
			break;
		case W_DATE:
			put_date(w, into, DatumGetDateADT(value), json);
			break;
		case W_TIMESTAMP:
		case W_TIMESTAMPTZ:
			put_timestamp(w, into, DatumGetInt64(value), json);
			break;
		case W_UUID:
			if (json)
				kda_put(into, "\"", 1);
			put_uuid(into, DatumGetUUIDP(value));
			if (json)
				kda_put(into, "\"", 1);
			break;
		case W_BYTEA:
			{
				struct varlena *b = PG_DETOAST_DATUM_PACKED(value);

				if (json)
					kda_put(into, "\"\\\\x", 4);
				else
					kda_put(into, "\\x", 2);
				put_hex(into, VARDATA_ANY(b), VARSIZE_ANY_EXHDR(b));
				if (json)
					kda_put(into, "\"", 1);
				break;
			}
		case W_JSON:
			put_text(into, value, false);
			break;
		case W_JSONB:
			{
				Jsonb	   *jb = DatumGetJsonbP(value);

				(void) JsonbToCString(into, &jb->root, VARSIZE(jb));
				break;
			}
		case W_ARRAY:
			if (json)
				put_array(w, into, value);
			else
				put_cstring(into, OutputFunctionCall(&w->output, value), false);
			break;
		case W_TO_JSON:
			if (json)
				put_text(into, FunctionCall1(&w->to_json, value), false);
			else
				put_cstring(into, OutputFunctionCall(&w->output, value), false);
			break;
		case W_OUTPUT:
			put_cstring(into, OutputFunctionCall(&w->output, value), json);
			break;
	}
}

void
kda_write_json(KdaWriter *w, Datum value, StringInfo into)
{
	write_value(w, value, into, true);
}

void
kda_write_text(KdaWriter *w, Datum value, StringInfo into)
{
	write_value(w, value, into, false);
}
