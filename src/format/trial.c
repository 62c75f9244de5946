/*-------------------------------------------------------------------------
 *
 * trial.c
 *	  A stream's format tried in a session, without its server: what would be
 *	  sent for a row, what a record would be read as.  For tests and for people
 *	  who look for a mistake; kda_storage is not open to everyone.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "format/encode.h"
#include "format/format.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

/* The stream's options and a copy of its columns. */
static KdaStreamOptions *
look_up(Oid relid, TupleDesc *desc)
{
	Relation	rel;

	if (!kda_is_stream(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a stream", get_rel_name(relid) ? get_rel_name(relid) : "?")));
	rel = relation_open(relid, AccessShareLock);
	*desc = CreateTupleDescCopy(RelationGetDescr(rel));
	relation_close(rel, AccessShareLock);
	return kda_stream_options_get(relid);
}

typedef struct Encoding
{
	Oid			relid;
	TupleDesc	desc;
	KdaEncoder *encoder;
	TupleTableSlot *slot;
} Encoding;

PG_FUNCTION_INFO_V1(kda_trial_encode);

/* kda_storage.encode(stream, row) → bytea; NULL: a tombstone.  row: of the stream's own type. */
Datum
kda_trial_encode(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	HeapTupleHeader header = PG_GETARG_HEAPTUPLEHEADER(1);
	Encoding   *encoding = fcinfo->flinfo->fn_extra;
	HeapTupleData tuple;
	StringInfoData out;
	bool		some;

	if (encoding == NULL || encoding->relid != relid)
	{
		MemoryContext old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
		KdaStreamOptions *options;

		encoding = palloc0(sizeof(Encoding));
		encoding->relid = relid;
		options = look_up(relid, &encoding->desc);
		encoding->encoder = kda_encoder_create(CurrentMemoryContext, encoding->desc, options, NULL);
		encoding->slot = MakeSingleTupleTableSlot(encoding->desc, &TTSOpsHeapTuple);
		fcinfo->flinfo->fn_extra = encoding;
		MemoryContextSwitchTo(old);
	}
	if (HeapTupleHeaderGetTypeId(header) != get_rel_type_id(relid))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the row is not one of stream \"%s\"", get_rel_name(relid)),
				 errhint("Write ROW(...)::%s.", format_type_be(get_rel_type_id(relid)))));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	ExecStoreHeapTuple(&tuple, encoding->slot, false);
	initStringInfo(&out);
	appendStringInfoSpaces(&out, VARHDRSZ);
	some = kda_encode(encoding->encoder, encoding->slot, &out);
	ExecClearTuple(encoding->slot);
	if (!some)
		PG_RETURN_NULL();
	SET_VARSIZE(out.data, out.len);
	PG_RETURN_BYTEA_P(out.data);
}

PG_FUNCTION_INFO_V1(kda_trial_schema);

/* kda_storage.schema(stream) → text: the Avro schema of what it writes. */
Datum
kda_trial_schema(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	KdaStreamOptions *options = look_up(PG_GETARG_OID(0), &desc);
	const char *schema = kda_encoder_schema(kda_encoder_create(CurrentMemoryContext, desc, options, NULL));

	if (schema == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(pg_any_to_server(schema, strlen(schema), PG_UTF8)));
}

typedef struct Refusal
{
	bool		refused;
	KdaDecodeError error;
} Refusal;

static void
note_refusal(void *arg, int index, const KdaDecodeError *error)
{
	((Refusal *) arg)->refused = true;
	((Refusal *) arg)->error = *error;
}

PG_FUNCTION_INFO_V1(kda_trial_decode);

/* kda_storage.decode(stream, record) → (row, error_name, message), a row for each that it gives. */
Datum
kda_trial_decode(PG_FUNCTION_ARGS)
{
	static const KdaSourceOps no_source;
	bytea	   *data = PG_GETARG_BYTEA_PP(1);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *names[1] = {"0"};
	int32		map[1] = {0};
	KdaRawRecord record = {0};
	KdaRawBatch raw = {.records = &record,.n = 1,.capacity = 1};
	KdaDecodeCounts counts = {0};
	Refusal		refusal = {0};
	KdaStreamOptions *options;
	KdaBatch   *batch;
	TupleDesc	desc;

	InitMaterializedSRF(fcinfo, 0);
	options = look_up(PG_GETARG_OID(0), &desc);
	batch = kda_batch_create(CurrentMemoryContext, desc, NULL);
	record.data = VARDATA_ANY(data);
	record.len = VARSIZE_ANY_EXHDR(data);
	record.arrival = KDA_NO_TIME;
	kda_decode(kda_decoder_create(CurrentMemoryContext, desc, options), &raw, &no_source, map, names, batch,
			   note_refusal, &refusal, &counts);
	for (int row = 0; row < Max(batch->nrows, refusal.refused ? 1 : 0); row++)
	{
		Datum		result[3] = {0};
		bool		isnull[3] = {true, true, true};

		if (refusal.refused)
		{
			result[1] = CStringGetTextDatum(refusal.error.name);
			result[2] = CStringGetTextDatum(refusal.error.message);
			isnull[1] = isnull[2] = false;
		}
		else
		{
			Datum	   *values = palloc0(sizeof(Datum) * Max(desc->natts, 1));
			bool	   *nulls = palloc0(sizeof(bool) * Max(desc->natts, 1));

			for (int i = 0; i < desc->natts; i++)
			{
				nulls[i] = batch->values[i] == NULL || batch->nulls[i][row];
				values[i] = nulls[i] ? (Datum) 0 : batch->values[i][row];
			}
			BlessTupleDesc(desc);
			result[0] = DirectFunctionCall1(row_to_json, heap_copy_tuple_as_datum(heap_form_tuple(desc, values, nulls), desc));
			isnull[0] = false;
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, result, isnull);
	}
	return (Datum) 0;
}
