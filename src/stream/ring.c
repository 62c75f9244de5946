/*-------------------------------------------------------------------------
 *
 * ring.c
 *	  The buffer of a source stream: raw records as they came, in LZ4 blocks of
 *	  about a thousand, one row a block, in UNLOGGED tables.
 *
 * Only for looking at: empty after a crash, and nothing depends on it.  A block
 * is a header and a compressed body:
 *
 *		int32 magic, int32 size of the body before compression
 *		body: int32 number of shards, names (int32 length, bytes);
 *			  int32 number of records, each: int32 shard, int64 position,
 *			  int64 arrival, int32 length or -1 of key, headers, data, and their bytes;
 *			  with the other magic also of the place as text
 *
 * Numbers are in the machine's own byte order: blocks never leave the server.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include <lz4.h>

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "stream/indexes.h"
#include "stream/ring.h"
#include "stream/stream.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/xid8.h"

#define BLOCK_MAGIC		0x4b444131	/* KDA1 */
#define MARKS_MAGIC		0x4b444132	/* KDA2 */
#define BLOCK_RECORDS	1000
#define BLOCK_BYTES		(512 * 1024)
#define RECORD_HEADER	(5 * sizeof(int32) + 2 * sizeof(int64) + KDA_PLACE_SIZE)

/* The next four write where enlargeStringInfo() has made room. */
static inline void
put_raw(StringInfo s, const void *p, Size len)
{
	memcpy(s->data + s->len, p, len);
	s->len += len;
}

static inline void
put32(StringInfo s, int32 v)
{
	put_raw(s, &v, sizeof(v));
}

static inline void
put64(StringInfo s, int64 v)
{
	put_raw(s, &v, sizeof(v));
}

static inline void
put_bytes(StringInfo s, const char *data, Size len)
{
	put32(s, data ? (int32) len : -1);
	if (data && len > 0)
		put_raw(s, data, len);
}

char *
kda_ring_ddl(const char *name)
{
	return psprintf("CREATE UNLOGGED TABLE %s (kda_xid pg_catalog.xid8 NOT NULL, kda_seq bigint NOT NULL, data bytea NOT NULL); "
					"ALTER TABLE %s ALTER data SET STORAGE EXTERNAL; CREATE INDEX ON %s (kda_xid, kda_seq)",
					name, name, name);
}

/* What writes blocks, for the time of one batch. */
typedef struct Writer
{
	Relation	rel;
	KdaIndexes	indexes;
	TupleTableSlot *slot;
	CommandId	cid;
	BulkInsertState bistate;
} Writer;

/* Blocks of one transaction have to be told apart. */
static int64 next_seq = 1;

static void
store_block(Writer *w, StringInfo body, bool marks)
{
	int			bound = LZ4_compressBound(body->len);
	bytea	   *block = palloc(VARHDRSZ + 2 * sizeof(int32) + bound);
	int32		header[2] = {marks ? MARKS_MAGIC : BLOCK_MAGIC, body->len};
	int			size = LZ4_compress_default(body->data, VARDATA(block) + sizeof(header), body->len, bound);
	TupleTableSlot *slot = w->slot;

	if (size <= 0)
		elog(ERROR, "could not compress a block of the buffer");
	memcpy(VARDATA(block), header, sizeof(header));
	SET_VARSIZE(block, VARHDRSZ + sizeof(header) + size);
	ExecClearTuple(slot);
	slot->tts_values[KDA_RING_XID - 1] = FullTransactionIdGetDatum(GetTopFullTransactionId());
	slot->tts_values[KDA_RING_SEQ - 1] = Int64GetDatum(next_seq++);
	slot->tts_values[KDA_RING_DATA - 1] = PointerGetDatum(block);
	memset(slot->tts_isnull, false, sizeof(bool) * KDA_RING_NCOLS);
	ExecStoreVirtualTuple(slot);
	table_tuple_insert(w->rel, slot, w->cid, 0, w->bistate);
	kda_indexes_add(&w->indexes, slot);
	ExecClearTuple(slot);
	pfree(block);
}

static void
begin_body(StringInfo s, char *const *names, int nnames)
{
	resetStringInfo(s);
	enlargeStringInfo(s, 2 * sizeof(int32));
	put32(s, nnames);
	for (int i = 0; i < nnames; i++)
	{
		Size		len = strlen(names[i]);

		enlargeStringInfo(s, len + 2 * sizeof(int32));
		put_bytes(s, names[i], len);
	}
	put32(s, 0);				/* number of records, filled in at the end */
}

void
kda_ring_append(KdaStream *stream, const KdaRawBatch *raw, char *const *shard_names)
{
	Writer		w;
	StringInfoData body;
	int			from = 0;
	int			nnames = stream->source->nshards;
	bool		headers = false;
	bool		marks = stream->source->ops->marks;
	int			count_at;

	for (int i = 0; i < stream->desc->natts; i++)
		headers |= stream->options->columns[i].meta == KDA_META_HEADERS;

	w.rel = table_open(stream->ring, RowExclusiveLock);
	kda_indexes_open(&w.indexes, w.rel);
	w.slot = table_slot_create(w.rel, NULL);
	w.cid = GetCurrentCommandId(true);
	w.bistate = GetBulkInsertState();
	initStringInfo(&body);
	while (from < raw->n)
	{
		int32		n = 0;

		begin_body(&body, shard_names, nnames);
		count_at = body.len - sizeof(int32);
		for (; from < raw->n && n < BLOCK_RECORDS && (n == 0 || body.len < BLOCK_BYTES); from++, n++)
		{
			KdaRawRecord *rec = &raw->records[from];
			char	   *json = headers ? stream->source->ops->headers_json(rec) : NULL;
			Size		json_len = json ? strlen(json) : 0;

			enlargeStringInfo(&body, RECORD_HEADER + rec->key_len + json_len + rec->len);
			put32(&body, rec->shard);
			put64(&body, rec->position);
			put64(&body, rec->arrival);
			put_bytes(&body, rec->key, rec->key_len);
			put_bytes(&body, json, json_len);
			put_bytes(&body, rec->data, rec->len);
			if (marks)
			{
				char		buffer[KDA_PLACE_SIZE];
				const char *place = kda_raw_place(rec, buffer);

				put_bytes(&body, place, strlen(place));
			}
		}
		memcpy(body.data + count_at, &n, sizeof(n));
		store_block(&w, &body, marks);
		CHECK_FOR_INTERRUPTS();
	}
	pfree(body.data);
	FreeBulkInsertState(w.bistate);
	kda_indexes_close(&w.indexes);
	ExecDropSingleTupleTableSlot(w.slot);
	table_close(w.rel, NoLock);
}

/*---- reading */

typedef struct Reader
{
	const char *p;
	const char *end;
	bool		bad;
} Reader;

static int32
get32(Reader *r)
{
	int32		v = 0;

	if (r->end - r->p < (ptrdiff_t) sizeof(v))
		r->bad = true;
	else
	{
		memcpy(&v, r->p, sizeof(v));
		r->p += sizeof(v);
	}
	return v;
}

static int64
get64(Reader *r)
{
	int64		v = 0;

	if (r->end - r->p < (ptrdiff_t) sizeof(v))
		r->bad = true;
	else
	{
		memcpy(&v, r->p, sizeof(v));
		r->p += sizeof(v);
	}
	return v;
}

static const char *
get_bytes(Reader *r, Size *len)
{
	int32		n = get32(r);
	const char *p = r->p;

	*len = 0;
	if (n < 0 || r->bad)
		return NULL;
	if (r->end - r->p < n)
	{
		r->bad = true;
		return NULL;
	}
	*len = n;
	r->p += n;
	return p;
}

bool
kda_ring_unpack(const char *data, Size len, KdaRawBatch *raw, char ***shard_names, int *nshards)
{
	int32		header[2];
	char	   *body;
	Reader		r;
	int32		n;

	raw->n = 0;
	raw->bytes = 0;
	if (len < sizeof(header))
		return false;
	memcpy(header, data, sizeof(header));
	if ((header[0] != BLOCK_MAGIC && header[0] != MARKS_MAGIC) || header[1] < 0)
		return false;
	body = MemoryContextAllocHuge(CurrentMemoryContext, header[1] + 1);
	if (LZ4_decompress_safe(data + sizeof(header), body, (int) (len - sizeof(header)), header[1]) != header[1])
		return false;
	r.p = body;
	r.end = body + header[1];
	r.bad = false;
	n = get32(&r);
	if (r.bad || n < 0 || n > header[1])
		return false;
	*shard_names = palloc(sizeof(char *) * Max(n, 1));
	*nshards = n;
	for (int i = 0; i < n; i++)
	{
		Size		l;
		const char *name = get_bytes(&r, &l);

		if (name == NULL)
			return false;
		(*shard_names)[i] = pnstrdup(name, l);
	}
	n = get32(&r);
	for (int i = 0; i < n && !r.bad; i++)
	{
		KdaRawRecord *rec = kda_raw_batch_add(raw, NULL);
		Size		l;

		rec->shard = get32(&r);
		rec->position = get64(&r);
		rec->arrival = get64(&r);
		rec->key = get_bytes(&r, &rec->key_len);
		rec->headers = (void *) get_bytes(&r, &l);
		if (rec->headers)
			rec->headers = pnstrdup(rec->headers, l);
		rec->data = get_bytes(&r, &rec->len);
		if (header[0] == MARKS_MAGIC)
		{
			const char *place = get_bytes(&r, &l);

			if (place)
				rec->mark = pnstrdup(place, l);
			rec->mark_sub = -1;
		}
		if (rec->shard < 0 || rec->shard >= *nshards)
			return false;
	}
	return !r.bad;
}

static char *
ring_headers(const KdaRawRecord *record)
{
	return record->headers;
}

const KdaSourceOps kda_ring_ops = {
	.type = "ring",
	.headers_json = ring_headers
};
