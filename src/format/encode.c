/*-------------------------------------------------------------------------
 *
 * encode.c
 *	  Rows to records: JSON, CSV, Avro (avro_write.c), text, bytea.
 *
 * What a row is made of is laid out once: pieces of text, each with the column
 * that follows it.  NULL is said as such, so every row has all of them.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/tupdesc.h"
#include "catalog/pg_type.h"
#include "format/avro_write.h"
#include "format/encode.h"
#include "format/format.h"
#include "format/writer.h"
#include "mb/pg_wchar.h"
#include "pgtime.h"
#include "utils/lsyscache.h"

typedef struct Piece
{
	char	   *text;			/* what stands before the column */
	int			len;
	AttrNumber	attno;			/* 0: nothing follows */
	KdaWriter  *writer;
} Piece;

struct KdaEncoder
{
	MemoryContext context;
	TupleDesc	desc;
	const KdaStreamOptions *options;
	Piece	   *pieces;
	int			npieces;
	AttrNumber	last;			/* the columns up to this are needed */
	bool		pin;			/* something asks for the session's settings */
	pg_tz	   *zone;
	int			null_len;		/* CSV */
	bool		quotes[256];	/* CSV: bytes of a value that must be quoted */
	KdaAvroWriter *avro;
	KdaWriter **keys;			/* [natts], made when they are asked for */
};

/*---- the layout of JSON: a tree of keys */

typedef struct KeyNode
{
	char	   *key;
	AttrNumber	attno;			/* 0: an object */
	List	   *children;		/* of KeyNode */
} KeyNode;

static const KdaColumnOptions *
column_options(const KdaStreamOptions *options, AttrNumber attno)
{
	static const KdaColumnOptions none;

	return options->columns ? &options->columns[attno - 1] : &none;
}

static const char *
column_name(TupleDesc desc, AttrNumber attno)
{
	return NameStr(TupleDescAttr(desc, attno - 1)->attname);
}

static void
cannot_write(TupleDesc desc, AttrNumber attno, const char *path, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("column \"%s\" with path %s cannot be written", column_name(desc, attno), path),
			 errdetail("%s", why),
			 errhint("Write through a stream of its own, whose paths are made of keys, as in '$.device.id', each for one column.")));
}

static void
add_node(KeyNode *root, TupleDesc desc, AttrNumber attno, const char *path)
{
	KeyNode	   *node = root;
	List	   *keys;
	ListCell   *lc;

	if (path == NULL)
		keys = list_make1((char *) column_name(desc, attno));
	else if (!kda_format_path_keys(path, &keys))
		cannot_write(desc, attno, path, "It is an element of an array, whose others nobody knows.");
	if (root->attno != 0)
		cannot_write(desc, attno, path ? path : psprintf("$.%s", column_name(desc, attno)),
					 psprintf("Column \"%s\" is written there.", column_name(desc, root->attno)));
	foreach(lc, keys)
	{
		char	   *key = lfirst(lc);
		KeyNode	   *next = NULL;
		ListCell   *lc2;

		foreach(lc2, node->children)
			if (strcmp(((KeyNode *) lfirst(lc2))->key, key) == 0)
				next = lfirst(lc2);
		if (next == NULL)
		{
			next = palloc0(sizeof(KeyNode));
			next->key = key;
			node->children = lappend(node->children, next);
		}
		else if (next->attno != 0)
			cannot_write(desc, attno, path ? path : psprintf("$.%s", key),
						 psprintf("Column \"%s\" is written there.", column_name(desc, next->attno)));
		node = next;
	}
	if (node->children != NIL)
		cannot_write(desc, attno, path ? path : psprintf("$.%s", column_name(desc, attno)),
					 "Another column is written below it.");
	node->attno = attno;
}

/*---- pieces */

/* Ends the piece that is being written: the column follows. */
static void
end_piece(KdaEncoder *e, StringInfo text, AttrNumber attno)
{
	Piece	   *piece = &e->pieces[e->npieces++];

	piece->text = MemoryContextAlloc(e->context, text->len + 1);
	memcpy(piece->text, text->data, text->len + 1);
	piece->len = text->len;
	piece->attno = attno;
	if (attno != 0)
	{
		piece->writer = kda_writer_create(e->context, TupleDescAttr(e->desc, attno - 1)->atttypid,
										  column_options(e->options, attno)->time_format, e->options->time_zone);
		e->pin |= kda_writer_calls(piece->writer);
		e->last = Max(e->last, attno);
	}
	resetStringInfo(text);
}

static void
lay_out(KdaEncoder *e, KeyNode *node, StringInfo text)
{
	ListCell   *lc;

	if (node->attno != 0)
	{
		end_piece(e, text, node->attno);
		return;
	}
	appendStringInfoChar(text, '{');
	foreach(lc, node->children)
	{
		KeyNode	   *child = lfirst(lc);

		if (foreach_current_index(lc) > 0)
			appendStringInfoChar(text, ',');
		kda_write_json_string(text, child->key, strlen(child->key));
		appendStringInfoChar(text, ':');
		lay_out(e, child, text);
	}
	appendStringInfoChar(text, '}');
}

/* row_path: each row is in a record of its own, at the place where it would be read. */
static void
lay_out_json(KdaEncoder *e, KeyNode *root, StringInfo text)
{
	StringInfoData close;
	const char *row_path = e->options->row_path;

	initStringInfo(&close);
	if (row_path)
	{
		Size		len = strlen(row_path);
		bool		array = len > 3 && strcmp(row_path + len - 3, "[*]") == 0;
		List	   *keys;
		ListCell   *lc;

		if (array)
			row_path = pnstrdup(row_path, len - 3);
		if (!kda_format_path_keys(row_path, &keys))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("rows cannot be written with row_path %s", e->options->row_path),
					 errhint("Write through a stream of its own, without row_path or with one of keys and a last [*], as in '$.items[*]'.")));
		foreach(lc, keys)
		{
			appendStringInfoChar(text, '{');
			kda_write_json_string(text, lfirst(lc), strlen(lfirst(lc)));
			appendStringInfoChar(text, ':');
			appendStringInfoChar(&close, '}');
		}
		if (array)
		{
			appendStringInfoChar(text, '[');
			/* it ends first */
			resetStringInfo(&close);
			appendStringInfoChar(&close, ']');
			for (int i = 0; i < list_length(keys); i++)
				appendStringInfoChar(&close, '}');
		}
	}
	lay_out(e, root, text);
	appendBinaryStringInfo(text, close.data, close.len);
	if (text->len > 0)
		end_piece(e, text, 0);
}

/* Quoted where COPY quotes it. */
static void
put_csv(KdaEncoder *e, StringInfo into, int from)
{
	char	   *p = into->data + from;
	int			len = into->len - from;
	bool		quote = len == e->null_len && memcmp(p, e->options->null_text, len) == 0;
	int			doubled = 0;

	for (int i = 0; i < len; i++)
	{
		quote |= e->quotes[(unsigned char) p[i]];
		doubled += p[i] == '"';
	}
	/* COPY's mark of the end */
	if (len == 2 && e->npieces == 1 && p[0] == '\\' && p[1] == '.')
		quote = true;
	if (!quote)
		return;
	kda_room(into, doubled + 2);
	p = into->data + from;
	into->len += doubled + 2;
	p[len + doubled + 1] = '"';
	for (int i = len - 1, at = len + doubled; i >= 0; i--)
	{
		p[at--] = p[i];
		if (p[i] == '"')
			p[at--] = '"';
	}
	p[0] = '"';
}

static void
lay_out_csv(KdaEncoder *e, List *attnos, StringInfo text)
{
	ListCell   *lc;

	e->null_len = strlen(e->options->null_text);
	e->quotes[(unsigned char) e->options->delimiter] = true;
	e->quotes['"'] = e->quotes['\n'] = e->quotes['\r'] = true;
	if (e->options->header)
	{
		foreach(lc, attnos)
		{
			int			from;

			if (foreach_current_index(lc) > 0)
				appendStringInfoChar(text, e->options->delimiter);
			from = text->len;
			appendStringInfoString(text, column_name(e->desc, lfirst_int(lc)));
			put_csv(e, text, from);
		}
		appendStringInfoChar(text, '\n');
	}
	foreach(lc, attnos)
	{
		if (foreach_current_index(lc) > 0)
			appendStringInfoChar(text, e->options->delimiter);
		end_piece(e, text, lfirst_int(lc));
	}
}

/*---- making one */

KdaEncoder *
kda_encoder_create(MemoryContext context, TupleDesc desc, const KdaStreamOptions *options, Bitmapset *columns)
{
	KdaEncoder *e = MemoryContextAllocZero(context, sizeof(KdaEncoder));
	bool		whole = options->format == KDA_FORMAT_TEXT || options->format == KDA_FORMAT_BYTEA;
	KeyNode		root = {0};
	List	   *attnos = NIL;
	StringInfoData text;
	ListCell   *lc;

	e->context = context;
	e->desc = desc;
	e->options = options;
	e->zone = pg_tzset(options->time_zone);
	e->keys = MemoryContextAllocZero(context, sizeof(KdaWriter *) * Max(desc->natts, 1));
	e->pieces = MemoryContextAllocZero(context, sizeof(Piece) * (desc->natts + 1));
	for (int i = 0; i < desc->natts; i++)
	{
		const KdaColumnOptions *o = column_options(options, i + 1);

		if (TupleDescAttr(desc, i)->attisdropped || (columns && !bms_is_member(i + 1, columns)) ||
			o->meta != KDA_META_NONE || (whole && i + 1 == options->rowtime_attno))
			continue;
		attnos = lappend_int(attnos, i + 1);
		if (options->format == KDA_FORMAT_JSON)
			add_node(&root, desc, i + 1, o->path);
	}
	initStringInfo(&text);
	switch (options->format)
	{
		case KDA_FORMAT_JSON:
			lay_out_json(e, &root, &text);
			break;
		case KDA_FORMAT_CSV:
			lay_out_csv(e, attnos, &text);
			break;
		case KDA_FORMAT_TEXT:
		case KDA_FORMAT_BYTEA:
			if (list_length(attnos) != 1)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
						 errmsg("format \"%s\" writes one column, not %d",
								options->format == KDA_FORMAT_TEXT ? "text" : "bytea", list_length(attnos)),
						 errhint("Formats json and csv write several.")));
			if (options->format == KDA_FORMAT_BYTEA &&
				getBaseType(TupleDescAttr(desc, linitial_int(attnos) - 1)->atttypid) != BYTEAOID)
				ereport(ERROR,
						(errcode(ERRCODE_DATATYPE_MISMATCH),
						 errmsg("column \"%s\" must be of type bytea with format \"bytea\"",
								column_name(desc, linitial_int(attnos)))));
			end_piece(e, &text, linitial_int(attnos));
			break;
		case KDA_FORMAT_AVRO:
			e->avro = kda_avro_writer_create(context, desc, options, attnos);
			e->pin = kda_avro_writer_calls(e->avro);
			foreach(lc, attnos)
				e->last = Max(e->last, lfirst_int(lc));
			break;
	}
	pfree(text.data);
	return e;
}

/*---- rows */

/* What has been written since then, from the database's encoding to UTF-8; SQL_ASCII takes any bytes, but JSON is UTF-8. */
static void
to_utf8(KdaEncoder *e, StringInfo into, int from)
{
	char	   *utf8;

	if (likely(GetDatabaseEncoding() == PG_UTF8) ||
		(GetDatabaseEncoding() == PG_SQL_ASCII && e->options->format != KDA_FORMAT_JSON))
		return;
	utf8 = pg_server_to_any(into->data + from, into->len - from, PG_UTF8);
	if (utf8 == into->data + from)
		return;
	into->len = from;
	appendStringInfoString(into, utf8);
}

static inline void
put_value(KdaEncoder *e, Piece *piece, Datum value, StringInfo into)
{
	switch (e->options->format)
	{
		case KDA_FORMAT_JSON:
			kda_write_json(piece->writer, value, into);
			break;
		case KDA_FORMAT_CSV:
			{
				int			from = into->len;

				kda_write_text(piece->writer, value, into);
				put_csv(e, into, from);
				break;
			}
		case KDA_FORMAT_TEXT:
			kda_write_text(piece->writer, value, into);
			break;
		case KDA_FORMAT_BYTEA:
			{
				struct varlena *b = PG_DETOAST_DATUM_PACKED(value);

				kda_put(into, VARDATA_ANY(b), VARSIZE_ANY_EXHDR(b));
				break;
			}
		case KDA_FORMAT_AVRO:
			break;				/* not in pieces */
	}
}

static void
encode_pieces(KdaEncoder *e, TupleTableSlot *slot, StringInfo into)
{
	int			null_len = e->options->format == KDA_FORMAT_JSON ? 4 : e->null_len;
	const char *null_text = e->options->format == KDA_FORMAT_JSON ? "null" : e->options->null_text;

	if (e->avro)
	{
		kda_avro_write(e->avro, slot, into);
		return;
	}
	for (int i = 0; i < e->npieces; i++)
	{
		Piece	   *piece = &e->pieces[i];

		kda_put(into, piece->text, piece->len);
		if (piece->attno == 0)
			continue;
		if (slot->tts_isnull[piece->attno - 1])
			kda_put(into, null_text, null_len);
		else
			put_value(e, piece, slot->tts_values[piece->attno - 1], into);
	}
	*kda_room(into, 1) = '\0';
}

/* The same, or (key) one value alone as text, whatever the session's settings are. */
static pg_noinline void
encode_pinned(KdaEncoder *e, TupleTableSlot *slot, KdaWriter *key, Datum value, StringInfo into)
{
	KdaPinned	pinned;

	kda_writer_pin(&pinned, e->zone);
	PG_TRY();
	{
		if (key)
			kda_write_text(key, value, into);
		else
			encode_pieces(e, slot, into);
	}
	PG_CATCH();
	{
		kda_writer_unpin(&pinned);
		PG_RE_THROW();
	}
	PG_END_TRY();
	kda_writer_unpin(&pinned);
}

bool
kda_encode(KdaEncoder *e, TupleTableSlot *slot, StringInfo into)
{
	int			from = into->len;

	slot_getsomeattrs(slot, e->last);
	if ((e->options->format == KDA_FORMAT_TEXT || e->options->format == KDA_FORMAT_BYTEA) &&
		slot->tts_isnull[e->last - 1])
		return false;
	if (unlikely(e->pin))
		encode_pinned(e, slot, NULL, (Datum) 0, into);
	else
		encode_pieces(e, slot, into);
	if (e->options->format != KDA_FORMAT_BYTEA && e->options->format != KDA_FORMAT_AVRO)
		to_utf8(e, into, from);
	return true;
}

const char *
kda_encoder_schema(const KdaEncoder *e)
{
	return e->avro ? kda_avro_writer_schema(e->avro) : NULL;
}

bool
kda_encode_key(KdaEncoder *e, TupleTableSlot *slot, AttrNumber attno, StringInfo into)
{
	Oid			type = TupleDescAttr(e->desc, attno - 1)->atttypid;
	int			from = into->len;
	bool		isnull;
	Datum		value = slot_getattr(slot, attno, &isnull);
	KdaWriter **key = &e->keys[attno - 1];

	if (isnull)
		return false;
	if (getBaseType(type) == BYTEAOID)
	{
		struct varlena *b = PG_DETOAST_DATUM_PACKED(value);

		kda_put(into, VARDATA_ANY(b), VARSIZE_ANY_EXHDR(b));
		return true;
	}
	if (*key == NULL)
		*key = kda_writer_create(e->context, type, column_options(e->options, attno)->time_format, e->options->time_zone);
	encode_pinned(e, slot, *key, value, into);
	*kda_room(into, 1) = '\0';
	to_utf8(e, into, from);
	return true;
}
