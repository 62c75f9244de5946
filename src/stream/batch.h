/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  A batch: the records of one stream in one transaction, as columns.
 *
 * Filled by format/ (values) and stream/watermark.c (rowtime, shard_wm, late);
 * read by the stream's foreign scan and by query/.  Everything a batch points
 * to lives in its arena (or in the connector's own buffers for raw bytes) and
 * goes with kda_batch_reset(); nothing in it is freed one by one.  Rows may
 * share values by reference: an equal string of the same column often has the
 * same address, so that comparing addresses is worth a try.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KDA_BATCH_H
#define KDA_BATCH_H

#include "kda_stream.h"
#include "access/tupdesc.h"

typedef struct KdaArenaChunk KdaArenaChunk;

/* A record that came by way of an inbox had been refused by queries before: */
#define KDA_REFUSED_LATE	1	/* it was late for one */
#define KDA_REFUSED_FAILED	2	/* an expression of one has failed */

typedef struct KdaBatch
{
	TupleDesc	desc;			/* the stream relation's; not owned */
	int			nrows;
	int			capacity;

	/* [desc->natts]; an entry is NULL when no query needs the column */
	Datum	  **values;
	bool	  **nulls;

	/* each [capacity] */
	KdaTime    *rowtime;		/* the record's time, never KDA_NO_TIME after the watermark stage */
	KdaTime    *shard_wm;		/* the watermark its shard had before this row */
	int32	   *shard;			/* index into KdaStream.shards */
	int64	   *position;		/* offset in the shard; rows of an inbox: as xid, unless their origin is known */
	uint64	   *xid;			/* rows of an inbox: the transaction that wrote them */
	const char **mark;			/* rows of an inbox: of the record, in the arena; NULL: none has come with one since the reset */
	int32	   *origin;			/* rows of an inbox: index + 1 into KdaStream.origins, 0: not known */
	uint8	   *refused;		/* rows of an inbox: KDA_REFUSED_* bits, 0: by nobody */
	KdaTime    *arrival;
	int32	   *record;			/* index of the raw record it came from (row_path, CSV: several rows each) */

	/*
	 * What the running query sees: rows [scan_from, scan_to) whose bit in
	 * scan_skip (NULL: none) is not set.  Set by query/ before each execution.
	 */
	int			scan_from;
	int			scan_to;
	const uint8 *scan_skip;		/* one byte a row, nonzero: not for this query */

	uint64		generation;		/* another one after each reset, never 0 */
	MemoryContext context;		/* owns arrays and arena */
	KdaArenaChunk *arena;
	char	   *arena_next;		/* bump pointer */
	char	   *arena_end;
	Size		bytes;			/* arena bytes handed out since reset */
} KdaBatch;

/* needed: bitmapset of attnums (1-based); NULL: all columns */
extern KdaBatch *kda_batch_create(MemoryContext parent, TupleDesc desc, Bitmapset *needed);
extern void kda_batch_reset(KdaBatch *batch);
extern void kda_batch_destroy(KdaBatch *batch);
extern void kda_batch_grow(KdaBatch *batch, int at_least);
extern void *kda_batch_alloc_slow(KdaBatch *batch, Size size);

/* MAXALIGNed memory that lives until kda_batch_reset(). */
static inline void *
kda_batch_alloc(KdaBatch *batch, Size size)
{
	size = MAXALIGN(size);
	if (likely((Size) (batch->arena_end - batch->arena_next) >= size))
	{
		void	   *p = batch->arena_next;

		batch->arena_next += size;
		batch->bytes += size;
		return p;
	}
	return kda_batch_alloc_slow(batch, size);
}

/* Appends a row; values and nulls of every needed column are the caller's to set. */
static inline int
kda_batch_add_raw_row(KdaBatch *batch)
{
	if (unlikely(batch->nrows == batch->capacity))
		kda_batch_grow(batch, batch->nrows + 1);
	return batch->nrows++;
}

/* Appends a row with every needed column NULL; returns its number. */
static inline int
kda_batch_add_row(KdaBatch *batch)
{
	if (unlikely(batch->nrows == batch->capacity))
		kda_batch_grow(batch, batch->nrows + 1);
	for (int i = 0; i < batch->desc->natts; i++)
		if (batch->nulls[i])
			batch->nulls[i][batch->nrows] = true;
	return batch->nrows++;
}

/* Text of len bytes, already known to be valid in the database encoding. */
extern Datum kda_batch_text(KdaBatch *batch, const char *data, Size len);

#endif							/* KDA_BATCH_H */
