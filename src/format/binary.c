/*-------------------------------------------------------------------------
 *
 * binary.c
 *	  Values that were not text (Avro's) to columns: straight where the types
 *	  are alike, else by way of the text that JSON would have.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "catalog/pg_type.h"
#include "format/converter.h"
#include "mb/pg_wchar.h"
#include "utils/date.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

/* The days whose midnight is a timestamp. */
#define FIRST_TIMESTAMP_DAY	(DATETIME_MIN_JULIAN - POSTGRES_EPOCH_JDATE)
#define LAST_TIMESTAMP_DAY	(TIMESTAMP_END_JULIAN - POSTGRES_EPOCH_JDATE - 1)

static KdaConverted
as_text(KdaConverter *c, const KdaValue *v, KdaBatch *batch, MemoryContext temp, bool may_raise, Datum *result, KdaDecodeError *error)
{
	KdaValue	text;
	const char *why = kda_value_as_text(v, temp, &text);

	if (why)
	{
		kda_decode_error(error, "conversion", "column \"%s\": %s", c->column, why);
		return KDA_CONVERT_FAILED;
	}
	return kda_convert_base(c, &text, batch, temp, may_raise, result, error);
}

static bool
put_integer(KdaConverter *c, int64 n, KdaBatch *batch, Datum *result)
{
	switch (c->type)
	{
		case INT8OID:
			*result = Int64GetDatum(n);
			return true;
		case INT4OID:
			*result = Int32GetDatum((int32) n);
			return n >= PG_INT32_MIN && n <= PG_INT32_MAX;
		case INT2OID:
			*result = Int16GetDatum((int16) n);
			return n >= PG_INT16_MIN && n <= PG_INT16_MAX;
		case FLOAT8OID:
			*result = Float8GetDatum((double) n);
			return true;
		case FLOAT4OID:
			*result = Float4GetDatum((float) n);
			return true;
		case NUMERICOID:
			if (c->typmod >= 0)
				return false;
			*result = kda_convert_to_batch(c, batch, NumericGetDatum(int64_to_numeric(n)));
			return true;
		default:
			return false;
	}
}

/* A date, a point in time or a wall clock time. */
static bool
put_time(KdaConverter *c, const KdaValue *v, Datum *result)
{
	int64		wall;

	if (v->kind == KDA_VALUE_DAY)
	{
		if (c->type == DATEOID)
		{
			*result = DateADTGetDatum((DateADT) v->integer);
			return v->integer == (DateADT) v->integer && IS_VALID_DATE((DateADT) v->integer) &&
				!DATE_NOT_FINITE((DateADT) v->integer);
		}
		if (v->integer < FIRST_TIMESTAMP_DAY || v->integer > LAST_TIMESTAMP_DAY)
			return false;
		wall = v->integer * USECS_PER_DAY;
	}
	else
		wall = v->integer;
	switch (c->type)
	{
		case TIMESTAMPTZOID:
			kda_convert_put_time(c, v->kind == KDA_VALUE_MOMENT ? v->integer : kda_convert_from_wall(c, wall), result);
			return true;
		case TIMESTAMPOID:
			kda_convert_put_time(c, v->kind == KDA_VALUE_MOMENT ? kda_convert_to_wall(c, v->integer) : wall, result);
			return true;
		case DATEOID:
			kda_convert_put_date(v->kind == KDA_VALUE_MOMENT ? kda_convert_to_wall(c, v->integer) : wall, result);
			return true;
		default:
			return false;
	}
}

KdaConverted
kda_convert_binary(KdaConverter *c, const KdaValue *v, KdaBatch *batch, MemoryContext temp, bool may_raise, Datum *result,
				   KdaDecodeError *error)
{
	MemoryContext old;
	bool		done = false;

	switch (v->kind)
	{
		case KDA_VALUE_INTEGER:
			old = MemoryContextSwitchTo(temp);
			done = put_integer(c, v->integer, batch, result);
			MemoryContextSwitchTo(old);
			break;
		case KDA_VALUE_FLOAT:
			done = c->type == FLOAT4OID || c->type == FLOAT8OID;
			if (done)
				*result = c->type == FLOAT4OID ? Float4GetDatum((float) v->number) : Float8GetDatum(v->number);
			break;
		case KDA_VALUE_DOUBLE:
			done = c->type == FLOAT8OID;
			if (done)
				*result = Float8GetDatum(v->number);
			break;
		case KDA_VALUE_MOMENT:
		case KDA_VALUE_WALL:
		case KDA_VALUE_DAY:
			done = put_time(c, v, result);
			break;
		case KDA_VALUE_CLOCK:
			done = c->type == TIMEOID && c->typmod < 0;
			if (done)
				*result = TimeADTGetDatum(v->integer);
			break;
		case KDA_VALUE_BYTES:
			if (c->type == BYTEAOID)
			{
				struct varlena *out = kda_batch_alloc(batch, (Size) v->len + VARHDRSZ);

				SET_VARSIZE(out, (Size) v->len + VARHDRSZ);
				memcpy(VARDATA(out), v->p, v->len);
				*result = PointerGetDatum(out);
				done = true;
			}
			else if (c->kind == C_TEXT || c->kind == C_VARCHAR)
			{
				/* bytes may be read as a string, where they are one */
				KdaValue	text = *v;

				if (memchr(v->p, '\0', v->len) || pg_encoding_verifymbstr(PG_UTF8, v->p, v->len) != (int) v->len)
				{
					kda_decode_error(error, "conversion", "column \"%s\": the bytes are not valid UTF-8; a bytea column takes any",
									 c->column);
					return KDA_CONVERT_FAILED;
				}
				text.kind = KDA_VALUE_STRING;
				return kda_convert_base(c, &text, batch, temp, may_raise, result, error);
			}
			break;
		default:
			break;
	}
	return done ? KDA_CONVERTED : as_text(c, v, batch, temp, may_raise, result, error);
}
