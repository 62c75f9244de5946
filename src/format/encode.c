/*-------------------------------------------------------------------------
 *
 * encode.c
 *	  Rows to bytes: JSON as row_to_json says it, or the one column of formats
 *	  text and bytea.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "format/encode.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"

struct KdaEncoder
{
	KdaFormatKind format;
	TupleDesc	desc;			/* the caller's */
	TupleDesc	row;			/* of the columns that are written */
	int			n;
	AttrNumber *columns;
	FmgrInfo   *output;			/* by attribute of desc: for keys; fn_oid invalid: not looked up yet */
	MemoryContext context;
};

KdaEncoder *
kda_encoder_create(MemoryContext context, TupleDesc desc, const KdaStreamOptions *options, Bitmapset *columns)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	KdaEncoder *e = palloc0(sizeof(KdaEncoder));

	e->format = options->format;
	e->desc = desc;
	e->context = context;
	e->columns = palloc(sizeof(AttrNumber) * Max(desc->natts, 1));
	e->output = palloc0(sizeof(FmgrInfo) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped && (columns == NULL || bms_is_member(i + 1, columns)))
			e->columns[e->n++] = i + 1;
	if (e->format == KDA_FORMAT_JSON)
	{
		e->row = CreateTemplateTupleDesc(e->n);
		for (int i = 0; i < e->n; i++)
			TupleDescCopyEntry(e->row, i + 1, desc, e->columns[i]);
		BlessTupleDesc(e->row);
	}
	else if (e->format == KDA_FORMAT_CSV || e->n != 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("rows with %d columns cannot be written in this format", e->n),
				 errhint("Use format 'json'.")));
	MemoryContextSwitchTo(old);
	return e;
}

bool
kda_encode_key(KdaEncoder *e, TupleTableSlot *slot, AttrNumber attno, StringInfo into)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, attno, &isnull);
	Oid			type = TupleDescAttr(e->desc, attno - 1)->atttypid;

	if (isnull)
		return false;
	if (type == TEXTOID || type == VARCHAROID || type == BYTEAOID)
	{
		struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);

		appendBinaryStringInfo(into, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
		return true;
	}
	if (!OidIsValid(e->output[attno - 1].fn_oid))
	{
		Oid			function;
		bool		varlena;

		getTypeOutputInfo(type, &function, &varlena);
		fmgr_info_cxt(function, &e->output[attno - 1], e->context);
	}
	appendStringInfoString(into, OutputFunctionCall(&e->output[attno - 1], value));
	return true;
}

void
kda_encode(KdaEncoder *e, TupleTableSlot *slot, StringInfo into)
{
	Datum	   *values;
	bool	   *nulls;
	text	   *json;

	if (e->format != KDA_FORMAT_JSON)
	{
		(void) kda_encode_key(e, slot, e->columns[0], into);
		return;
	}
	values = palloc(sizeof(Datum) * Max(e->n, 1));
	nulls = palloc(sizeof(bool) * Max(e->n, 1));
	for (int i = 0; i < e->n; i++)
		values[i] = slot_getattr(slot, e->columns[i], &nulls[i]);
	json = DatumGetTextPP(DirectFunctionCall1(row_to_json, heap_copy_tuple_as_datum(heap_form_tuple(e->row, values, nulls), e->row)));
	appendBinaryStringInfo(into, VARDATA_ANY(json), VARSIZE_ANY_EXHDR(json));
}
