/*-------------------------------------------------------------------------
 *
 * decode.c
 *	  Records of a source to rows of a batch: parse (json.c, csv.c, avro_decode.c), convert
 *	  (convert.c), and what comes from the record's envelope.
 *
 * Records are tried as they come, without a subtransaction.  When a value
 * needs an input function that may raise an error, the rest is done inside
 * one; when that fails, in halves, down to the record that is to blame.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "foreign/foreign.h"
#include "format/avro.h"
#include "format/avro_write.h"
#include "format/format.h"
#include "format/schemas.h"
#include "format/value.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "runtime/runtime.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/* What is on the way to a value is forgotten when there is so much of it. */
#define TEMP_LIMIT		(8 * 1024 * 1024)

typedef struct Column
{
	AttrNumber	attno;
	int			slot;			/* in KdaRows; -1: from the envelope */
	KdaMetaKind meta;
	KdaConverter *converter;
	bool		rowtime;		/* it gives the record's time */
	bool		required;		/* ... and has a path: must be there */
} Column;

struct KdaDecoder
{
	MemoryContext context;
	MemoryContext plan;			/* of what follows; made anew when a batch needs other columns */
	MemoryContext temp;			/* reset now and then */
	TupleDesc	desc;
	const KdaStreamOptions *options;
	Oid			owner;			/* of the stream */
	bool	   *needed;			/* [natts] what the plan was made for */
	Column	   *columns;
	int			ncolumns;
	KdaJsonPlan *json;
	const KdaAvroType *schema;	/* option schema */
	KdaSchemas *schemas;		/* that records name */
	KdaAvroDecoder *avro;
	KdaCsv		csv;
	KdaRows		rows;
};

/* What one call works on. */
typedef struct Job
{
	KdaDecoder *decoder;
	const KdaRawBatch *raw;
	const KdaSourceOps *ops;
	const int32 *shard_map;
	char	   *const *shard_names;
	KdaBatch   *batch;
	KdaDecodeCounts *counts;
	Column	   *column;			/* being converted: an input function's message does not name it */
	/* refused records, reported when they are certain */
	int		   *refused;
	KdaDecodeError *errors;
	int			nrefused;
	int			room;
} Job;

typedef enum Outcome
{
	DONE,
	REFUSED,
	NEEDS_SUBTRANSACTION
} Outcome;

/*---- the plan */

static Column *
add_column(KdaDecoder *d, AttrNumber attno)
{
	Form_pg_attribute att = TupleDescAttr(d->desc, attno - 1);
	const KdaColumnOptions *o = &d->options->columns[attno - 1];
	Column	   *c = &d->columns[d->ncolumns++];

	c->attno = attno;
	c->slot = -1;
	c->meta = o->meta;
	c->rowtime = attno == d->options->rowtime_attno;
	c->required = c->rowtime && o->path != NULL;
	if (o->meta == KDA_META_NONE)
		c->converter = kda_converter_create(d->plan, NameStr(att->attname), att->atttypid, att->atttypmod,
											o->time_format, d->options->time_zone);
	else if (o->meta != KDA_META_ARRIVAL)
		/* they come as text; a partition fits into any type that was allowed */
		c->converter = kda_converter_create(d->plan, NameStr(att->attname), att->atttypid, att->atttypmod,
											KDA_TIME_ISO8601, "UTC");
	return c;
}

/* A name or path as records spell it, in memory of the context. */
static char *
in_utf8(MemoryContext context, const char *text)
{
	return MemoryContextStrdup(context, GetDatabaseEncoding() == PG_SQL_ASCII ? text :
							   pg_server_to_any(text, strlen(text), PG_UTF8));
}

/* See format.h. */
bool
kda_format_path_keys(const char *path, List **keys)
{
	const char *p = path + 1;

	if (keys)
		*keys = NIL;
	while (*p)
	{
		const char *from;

		if (p[0] == '.' && p[1] != '"')
		{
			from = ++p;
			p += strcspn(p, ".[");
			if (keys)
				*keys = lappend(*keys, pnstrdup(from, p - from));
			continue;
		}
		if (p[0] == '[' && p[1] != '\'' && p[1] != '"')
			return false;
		/* ."key", ['key'], ["key"]; that it ends has been checked with the options */
		from = p + 2;
		if (keys)
			*keys = lappend(*keys, pnstrdup(from, strchr(from, p[1]) - from));
		p = strchr(from, p[1]) + (p[0] == '[' ? 2 : 1);
	}
	return true;
}

/* In memory of the context. */
static void
set_wish(MemoryContext context, KdaAvroWish *wish, const char *column, const char *path)
{
	List	   *keys;
	ListCell   *lc;

	wish->column = column;
	wish->any_case = path == NULL;
	if (path == NULL)
		keys = list_make1((char *) column);
	else
		(void) kda_format_path_keys(path, &keys);
	wish->keys = MemoryContextAlloc(context, sizeof(char *) * Max(list_length(keys), 1));
	foreach(lc, keys)
		wish->keys[wish->nkeys++] = MemoryContextStrdup(context, lfirst(lc));
}

/* Option schema, in memory of the context. */
static KdaAvroType *
read_schema(MemoryContext context, const char *text)
{
	char	   *why;
	char	   *utf8 = in_utf8(CurrentMemoryContext, text);
	KdaAvroType *schema = kda_avro_schema(context, utf8, strlen(utf8), &why);

	if (schema == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid Avro schema"),
				 errdetail("%s.", why)));
	return schema;
}

void
kda_format_check_schema(const char *text)
{
	(void) read_schema(CurrentMemoryContext, text);
}

static void
make_plan(KdaDecoder *d, KdaBatch *batch)
{
	int			natts = d->desc->natts;
	KdaJsonWish *wishes;
	KdaAvroWish *avro_wishes;
	int		   *slot_of;
	const char **names;
	int			nslots = 0;

	if (d->plan)
		MemoryContextDelete(d->plan);
	d->plan = AllocSetContextCreate(d->context, "kda decoder plan", ALLOCSET_SMALL_SIZES);
	d->needed = MemoryContextAllocZero(d->plan, sizeof(bool) * Max(natts, 1));
	d->columns = MemoryContextAllocZero(d->plan, sizeof(Column) * Max(natts, 1));
	d->ncolumns = 0;
	wishes = MemoryContextAllocZero(d->plan, sizeof(KdaJsonWish) * Max(natts, 1));
	avro_wishes = MemoryContextAllocZero(d->plan, sizeof(KdaAvroWish) * Max(natts, 1));
	slot_of = MemoryContextAllocZero(d->plan, sizeof(int) * Max(natts, 1));
	names = MemoryContextAllocZero(d->plan, sizeof(char *) * Max(natts, 1));
	memset(&d->rows, 0, sizeof(d->rows));
	d->rows.context = d->plan;
	memset(&d->csv, 0, sizeof(d->csv));

	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(d->desc, i);
		const KdaColumnOptions *o = &d->options->columns[i];
		Column	   *c;

		d->needed[i] = batch->values[i] != NULL;
		if (att->attisdropped)
			continue;
		/* CSV: columns by position, whether somebody reads them or not */
		if (o->meta == KDA_META_NONE)
		{
			names[d->csv.ncolumns] = in_utf8(d->plan, NameStr(att->attname));
			slot_of[d->csv.ncolumns] = -1;
		}
		if (d->needed[i])
		{
			/* text and bytea: the time column is not in the record */
			bool		in_record = o->meta == KDA_META_NONE &&
				!(i + 1 == d->options->rowtime_attno &&
				  (d->options->format == KDA_FORMAT_TEXT || d->options->format == KDA_FORMAT_BYTEA));

			c = add_column(d, i + 1);
			if (in_record)
			{
				wishes[nslots].path = o->path ? in_utf8(d->plan, o->path) : NULL;
				wishes[nslots].name = names[d->csv.ncolumns];
				if (d->options->format == KDA_FORMAT_AVRO)
					set_wish(d->plan, &avro_wishes[nslots], wishes[nslots].name, wishes[nslots].path);
				slot_of[d->csv.ncolumns] = nslots;
				c->slot = nslots++;
			}
		}
		if (o->meta == KDA_META_NONE)
			d->csv.ncolumns++;
	}
	d->rows.nslots = nslots;
	d->csv.delimiter = d->options->delimiter;
	d->csv.header = d->options->header;
	d->csv.null_text = d->options->null_text;
	d->csv.names = names;
	d->csv.slot_of = slot_of;
	d->csv.context = d->plan;
	if (d->options->format == KDA_FORMAT_JSON)
		d->json = kda_json_plan(d->plan, wishes, nslots,
								d->options->row_path ? in_utf8(d->plan, d->options->row_path) : NULL);
	if (d->options->format == KDA_FORMAT_AVRO)
		d->avro = kda_avro_decoder_create(d->plan, d->schema, d->schemas, avro_wishes, nslots);
}

KdaDecoder *
kda_decoder_create(MemoryContext context, TupleDesc desc, const KdaStreamOptions *options)
{
	KdaDecoder *d = MemoryContextAllocZero(context, sizeof(KdaDecoder));

	d->context = context;
	d->desc = desc;
	d->options = options;
	d->owner = options->owner;
	d->temp = AllocSetContextCreate(context, "kda decoder", ALLOCSET_DEFAULT_SIZES);
	if (options->schema)
		d->schema = read_schema(context, options->schema);
	if (options->format == KDA_FORMAT_AVRO && options->schema_registry)
		d->schemas = kda_schemas_create(context, KDA_FRAMING_CONFLUENT, get_foreign_server_oid(options->schema_registry, false));
	else if (options->format == KDA_FORMAT_AVRO && options->schema == NULL)
		d->schema = read_schema(context, kda_avro_derive(desc, options));
	return d;
}

KdaSchemas *
kda_decoder_schemas(KdaDecoder *d)
{
	return d->schemas;
}

static bool
plan_fits(KdaDecoder *d, KdaBatch *batch)
{
	if (d->plan == NULL)
		return false;
	for (int i = 0; i < d->desc->natts; i++)
		if (d->needed[i] != (batch->values[i] != NULL))
			return false;
	return true;
}

/*---- one record */

static void
refuse_later(Job *job, int index, const KdaDecodeError *error)
{
	if (job->nrefused == job->room)
	{
		job->room = job->room ? job->room * 2 : 16;
		job->refused = job->refused ? repalloc(job->refused, sizeof(int) * job->room) :
			palloc(sizeof(int) * job->room);
		job->errors = job->errors ? repalloc_huge(job->errors, sizeof(KdaDecodeError) * job->room) :
			MemoryContextAllocHuge(CurrentMemoryContext, sizeof(KdaDecodeError) * job->room);
	}
	job->refused[job->nrefused] = index;
	job->errors[job->nrefused++] = *error;
}

/* Valid UTF-8 that needs no closer look, nor holds a zero byte: the usual case. */
static inline bool
is_ascii(const char *p, Size len)
{
#ifdef __SSE2__
	const char *end = p + len;
	__m128i		zero = _mm_setzero_si128();

#define FINE(p) (_mm_movemask_epi8(_mm_cmpgt_epi8(_mm_loadu_si128((const __m128i *) (p)), zero)) == 0xFFFF)
	for (; end - p >= 16; p += 16)
		if (!FINE(p))
			return false;
	if (len >= 16)
		return FINE(end - 16);
#undef FINE
	for (; p < end; p++)
		if (*(const signed char *) p <= 0)
			return false;
	return true;
#else
	return false;
#endif
}

static bool
parse(KdaDecoder *d, const KdaRawRecord *rec, KdaDecodeError *error)
{
	d->rows.nrows = 0;
	if (rec->len > (Size) kda_max_record_bytes)
		return kda_decode_error(error, "too_large", "the record has %zu bytes, kda_stream.max_record_bytes allows %d",
								rec->len, kda_max_record_bytes);
	if (d->options->format == KDA_FORMAT_BYTEA)
	{
		kda_rows_add(&d->rows);
		return true;
	}
	if (d->options->format == KDA_FORMAT_AVRO)
		return kda_avro_decode(d->avro, rec->data, rec->len, d->temp, &d->rows, error);
	/*
	 * From a topic comes UTF-8; a database in another encoding converts single
	 * values.  SQL_ASCII takes any bytes as text, but JSON is UTF-8.
	 */
	if (!is_ascii(rec->data, rec->len) &&
		(GetDatabaseEncoding() != PG_SQL_ASCII || d->options->format == KDA_FORMAT_JSON) &&
		pg_encoding_verifymbstr(PG_UTF8, rec->data, rec->len) != rec->len)
		return kda_decode_error(error, "malformed", "the record is not valid UTF-8 at byte %d",
								pg_encoding_verifymbstr(PG_UTF8, rec->data, rec->len));
	switch (d->options->format)
	{
		case KDA_FORMAT_JSON:
			return kda_json_parse(d->json, rec->data, rec->len, kda_max_json_depth, &d->rows, error);
		case KDA_FORMAT_CSV:
			if (memchr(rec->data, '\0', rec->len))
				return kda_decode_error(error, "malformed", "the record contains a zero byte");
			return kda_csv_parse(&d->csv, rec->data, rec->len, &d->rows, error);
		default:
			{
				KdaValue   *v = kda_rows_add(&d->rows);

				if (memchr(rec->data, '\0', rec->len))
					return kda_decode_error(error, "malformed", "the record contains a zero byte");
				if (d->rows.nslots > 0)
				{
					v->p = rec->data;
					v->len = rec->len;
					v->kind = KDA_VALUE_STRING;
				}
				return true;
			}
	}
}

static Datum
bytes_to_batch(KdaBatch *batch, const char *data, Size len)
{
	struct varlena *out = kda_batch_alloc(batch, len + VARHDRSZ);

	SET_VARSIZE(out, len + VARHDRSZ);
	memcpy(VARDATA(out), data, len);
	return PointerGetDatum(out);
}

/* A column from the envelope; *isnull if there is nothing. */
static KdaConverted
meta_value(Job *job, Column *c, const KdaRawRecord *rec, bool may_raise, Datum *result, bool *isnull,
		   KdaDecodeError *error)
{
	KdaDecoder *d = job->decoder;
	KdaValue	v = {0};
	char		place[KDA_PLACE_SIZE];
	int			shard = job->shard_map[rec->shard];

	*isnull = false;
	v.kind = KDA_VALUE_STRING;
	switch (c->meta)
	{
		case KDA_META_ARRIVAL:
			*isnull = rec->arrival == KDA_NO_TIME;
			*result = kda_rowtime_value(d->options, TupleDescAttr(d->desc, c->attno - 1)->atttypid, rec->arrival);
			return KDA_CONVERTED;
		case KDA_META_SHARD:
			v.p = shard >= 0 ? job->shard_names[shard] : "?";
			v.len = strlen(v.p);
			break;
		case KDA_META_POSITION:
			v.p = kda_raw_place(rec, place);
			v.len = strlen(v.p);
			break;
		case KDA_META_KEY:
			*isnull = rec->key == NULL;
			if (*isnull)
				return KDA_CONVERTED;
			v.p = rec->key;
			v.len = rec->key_len;
			if (TupleDescAttr(d->desc, c->attno - 1)->atttypid == BYTEAOID)
			{
				*result = bytes_to_batch(job->batch, v.p, v.len);
				return KDA_CONVERTED;
			}
			if (pg_encoding_verifymbstr(PG_UTF8, v.p, v.len) != (int) v.len || memchr(v.p, '\0', v.len))
			{
				kda_decode_error(error, "conversion", "the record's key is not valid UTF-8; a bytea column takes any");
				return KDA_CONVERT_FAILED;
			}
			break;
		case KDA_META_HEADERS:
			{
				MemoryContext old = MemoryContextSwitchTo(d->temp);

				v.p = rec->headers && job->ops->headers_json ? job->ops->headers_json(rec) : NULL;
				MemoryContextSwitchTo(old);
				*isnull = v.p == NULL;
				if (*isnull)
					return KDA_CONVERTED;
				v.len = strlen(v.p);
				break;
			}
		case KDA_META_NONE:
			*isnull = true;		/* the time column of a text stream */
			return KDA_CONVERTED;
	}
	return kda_convert(c->converter, &v, job->batch, d->temp, may_raise, result, error);
}

static Outcome
one_record(Job *job, int index, bool may_raise)
{
	KdaDecoder *d = job->decoder;
	KdaBatch   *batch = job->batch;
	const KdaRawRecord *rec = &job->raw->records[index];
	KdaDecodeError error;
	int			first = batch->nrows;

	if (rec->data == NULL || rec->len == 0)
	{
		job->counts->skipped++;
		return DONE;
	}
	if (!parse(d, rec, &error))
		goto refused;
	if (d->rows.nrows == 0)
		job->counts->skipped++;

	for (int r = 0; r < d->rows.nrows; r++)
	{
		KdaValue   *values = d->rows.values + (Size) r * d->rows.nslots;
		int			row = kda_batch_add_raw_row(batch);

		batch->rowtime[row] = KDA_NO_TIME;
		batch->shard_wm[row] = KDA_NO_TIME;
		batch->shard[row] = job->shard_map[rec->shard];
		batch->position[row] = rec->position;
		batch->arrival[row] = rec->arrival;
		batch->record[row] = index;
		for (int i = 0; i < d->ncolumns; i++)
		{
			Column	   *c = &d->columns[i];
			Datum		result = (Datum) 0;
			bool		isnull = false;
			KdaConverted converted = KDA_CONVERTED;

			job->column = c;
			if (c->slot < 0)
				converted = meta_value(job, c, rec, may_raise, &result, &isnull, &error);
			else if (d->options->format == KDA_FORMAT_BYTEA)
				result = bytes_to_batch(batch, rec->data, rec->len);
			else if (values[c->slot].kind <= KDA_VALUE_NULL)
				isnull = true;
			else
				converted = kda_convert(c->converter, &values[c->slot], batch, d->temp, may_raise,
										&result, &error);
			if (unlikely(converted != KDA_CONVERTED))
			{
				if (converted == KDA_CONVERT_MAY_RAISE)
				{
					batch->nrows = first;
					return NEEDS_SUBTRANSACTION;
				}
				goto refused;
			}
			batch->nulls[c->attno - 1][row] = isnull;
			if (isnull)
			{
				if (unlikely(c->converter && kda_convert_null(c->converter, may_raise) == KDA_CONVERT_MAY_RAISE))
				{
					batch->nrows = first;
					return NEEDS_SUBTRANSACTION;
				}
				if (unlikely(c->required))
				{
					kda_decode_error(&error, "conversion", "column \"%s\": the record has no time at path %s",
									 NameStr(TupleDescAttr(d->desc, c->attno - 1)->attname),
									 d->options->columns[c->attno - 1].path);
					goto refused;
				}
				continue;
			}
			batch->values[c->attno - 1][row] = result;
			if (c->rowtime)
			{
				KdaTime		t = kda_rowtime_of(d->options, TupleDescAttr(d->desc, c->attno - 1)->atttypid, result);

				if (unlikely(TIMESTAMP_NOT_FINITE(t)))
				{
					kda_decode_error(&error, "conversion", "column \"%s\": the time of a record must be finite",
									 NameStr(TupleDescAttr(d->desc, c->attno - 1)->attname));
					goto refused;
				}
				batch->rowtime[row] = t;
			}
		}
	}
	return DONE;

refused:
	batch->nrows = first;
	refuse_later(job, index, &error);
	return REFUSED;
}

/*---- ranges of records */

/* Records [from, to); returns the first one that needs a subtransaction, or to. */
static int
plain_range(Job *job, int from, int to)
{
	for (int i = from; i < to; i++)
	{
		if ((i & 1023) == 1023 || ((i & 15) == 15 && MemoryContextMemAllocated(job->decoder->temp, false) > TEMP_LIMIT))
		{
			CHECK_FOR_INTERRUPTS();
			MemoryContextReset(job->decoder->temp);
		}
		if (one_record(job, i, false) == NEEDS_SUBTRANSACTION)
			return i;
	}
	return to;
}

/* Inside a subtransaction; what fails is done in halves. */
static void
guarded_range(Job *job, int from, int to)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	pg_tz	   *zone = session_timezone;
	int			rows = job->batch->nrows;
	int			refused = job->nrefused;
	KdaDecodeCounts counts = *job->counts;
	ErrorData  *volatile edata = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		for (int i = from; i < to; i++)
		{
			if ((i & 255) == 255 || ((i & 15) == 15 && MemoryContextMemAllocated(job->decoder->temp, false) > TEMP_LIMIT))
			{
				CHECK_FOR_INTERRUPTS();
				MemoryContextReset(job->decoder->temp);
			}
			one_record(job, i, true);
		}
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		session_timezone = zone;
		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (edata == NULL)
		return;

	/* as if nothing had happened */
	job->batch->nrows = rows;
	job->nrefused = refused;
	*job->counts = counts;
	switch (ERRCODE_TO_CATEGORY(edata->sqlerrcode))
	{
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):
			ReThrowError(edata);	/* not the record's fault */
	}
	if (to - from == 1)
	{
		KdaDecodeError error;

		kda_decode_error(&error, "conversion", "column \"%s\": %s%s%s",
						 NameStr(TupleDescAttr(job->decoder->desc, job->column->attno - 1)->attname),
						 edata->message, edata->detail ? ": " : "", edata->detail ? edata->detail : "");
		refuse_later(job, from, &error);
	}
	else
	{
		int			middle = from + (to - from) / 2;

		guarded_range(job, from, middle);
		guarded_range(job, middle, to);
	}
	FreeErrorData(edata);
}

void
kda_decode(KdaDecoder *decoder, const KdaRawBatch *raw, const KdaSourceOps *ops, const int32 *shard_map,
		   char *const *shard_names, KdaBatch *batch, KdaRefuse refuse, void *arg, KdaDecodeCounts *counts)
{
	Job			job = {decoder, raw, ops, shard_map, shard_names, batch, counts};
	int			at;
	Oid			user;
	int			sec_context;

	if (!plan_fits(decoder, batch))
		make_plan(decoder, batch);

	/* domains and types may call functions of users: they run as the stream's owner */
	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(decoder->owner, sec_context | SECURITY_RESTRICTED_OPERATION);
	at = plain_range(&job, 0, raw->n);
	if (at < raw->n)
		guarded_range(&job, at, raw->n);
	SetUserIdAndSecContext(user, sec_context);
	MemoryContextReset(decoder->temp);
	for (int i = 0; i < job.nrefused; i++)
		refuse(arg, job.refused[i], &job.errors[i]);
	counts->failed += job.nrefused;
}
