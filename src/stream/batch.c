/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  Memory of a batch: columns as arrays, everything by reference in an arena
 *	  that is emptied as a whole.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "nodes/bitmapset.h"
#include "stream/batch.h"
#include "utils/memutils.h"

#define FIRST_CAPACITY	1024
#define CHUNK_BYTES		(1024 * 1024)
#define KEEP_CHUNKS		64		/* more than this is given back at reset */

/* Over all batches of the process, so that no two are ever taken for one. */
static uint64 generations = 0;

struct KdaArenaChunk
{
	KdaArenaChunk *next;
	Size		size;
	bool		used;
};

static void
resize(KdaBatch *batch, int capacity)
{
#define RESIZE(array) \
	((array) = (array) ? repalloc_huge((array), sizeof(*(array)) * (Size) capacity) : \
	 MemoryContextAllocHuge(batch->context, sizeof(*(array)) * (Size) capacity))
	for (int i = 0; i < batch->desc->natts; i++)
		if (batch->nulls[i])
		{
			batch->values[i] = repalloc_huge(batch->values[i], sizeof(Datum) * (Size) capacity);
			batch->nulls[i] = repalloc_huge(batch->nulls[i], (Size) capacity);
		}
	RESIZE(batch->rowtime);
	RESIZE(batch->shard_wm);
	RESIZE(batch->shard);
	RESIZE(batch->position);
	RESIZE(batch->xid);
	if (batch->mark)
		RESIZE(batch->mark);
	RESIZE(batch->origin);
	RESIZE(batch->refused);
	RESIZE(batch->arrival);
	RESIZE(batch->record);
	batch->capacity = capacity;
}

KdaBatch *
kda_batch_create(MemoryContext parent, TupleDesc desc, Bitmapset *needed)
{
	MemoryContext context = AllocSetContextCreate(parent, "kda batch", ALLOCSET_DEFAULT_SIZES);
	KdaBatch   *batch = MemoryContextAllocZero(context, sizeof(KdaBatch));

	batch->context = context;
	batch->generation = ++generations;
	batch->desc = desc;
	batch->values = MemoryContextAllocZero(context, sizeof(Datum *) * Max(desc->natts, 1));
	batch->nulls = MemoryContextAllocZero(context, sizeof(bool *) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
		if ((needed == NULL || bms_is_member(i + 1, needed)) && !TupleDescAttr(desc, i)->attisdropped)
		{
			batch->values[i] = MemoryContextAlloc(context, sizeof(Datum));
			batch->nulls[i] = MemoryContextAlloc(context, 8);
		}
	resize(batch, FIRST_CAPACITY);
	return batch;
}

void
kda_batch_reset(KdaBatch *batch)
{
	KdaArenaChunk *chunk,
			  **link = &batch->arena;
	int			kept = 0;

	while ((chunk = *link) != NULL)
	{
		chunk->used = false;
		if (chunk->size > CHUNK_BYTES || ++kept > KEEP_CHUNKS)
		{
			*link = chunk->next;
			pfree(chunk);
		}
		else
			link = &chunk->next;
	}
	batch->arena_next = batch->arena_end = NULL;
	batch->generation = ++generations;
	batch->bytes = 0;
	batch->nrows = 0;
	batch->scan_from = batch->scan_to = 0;
	batch->scan_skip = NULL;
	if (batch->mark)
		pfree(batch->mark);
	batch->mark = NULL;
}

void
kda_batch_destroy(KdaBatch *batch)
{
	MemoryContextDelete(batch->context);
}

void
kda_batch_grow(KdaBatch *batch, int at_least)
{
	int64		capacity = (int64) batch->capacity * 2;

	resize(batch, (int) Max(Min(capacity, PG_INT32_MAX / 2), at_least));
}

void *
kda_batch_alloc_slow(KdaBatch *batch, Size size)
{
	KdaArenaChunk *chunk = NULL;
	char	   *start;

	if (size <= CHUNK_BYTES / 4)
		for (chunk = batch->arena; chunk; chunk = chunk->next)
			if (!chunk->used && chunk->size == CHUNK_BYTES)
				break;
	if (chunk == NULL)
	{
		/* a large value gets a chunk of its own, the current one goes on being filled */
		Size		room = size > CHUNK_BYTES / 4 ? size : CHUNK_BYTES;

		chunk = MemoryContextAllocHuge(batch->context, MAXALIGN(sizeof(KdaArenaChunk)) + room);
		chunk->size = room;
		chunk->next = batch->arena;
		batch->arena = chunk;
	}
	chunk->used = true;
	start = (char *) chunk + MAXALIGN(sizeof(KdaArenaChunk));
	batch->bytes += size;
	if (size <= CHUNK_BYTES / 4)
	{
		batch->arena_next = start + size;
		batch->arena_end = start + chunk->size;
	}
	return start;
}

Datum
kda_batch_text(KdaBatch *batch, const char *data, Size len)
{
	text	   *t = kda_batch_alloc(batch, VARHDRSZ + len);

	SET_VARSIZE(t, VARHDRSZ + len);
	memcpy(VARDATA(t), data, len);
	return PointerGetDatum(t);
}
