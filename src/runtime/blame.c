/*-------------------------------------------------------------------------
 *
 * blame.c
 *	  Whose record is it?  What is refused between the parts of a query is
 *	  reported of the users' stream that it has come from: users know nothing of
 *	  the streams that are made for parts.
 *
 * A row that was passed on knows its record.  What is made of several (a
 * window's row, a match of a join) is that of the stream behind the parts; of
 * several streams, of the first one.
 *
 * In pipeline workers only.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "runtime/worker.h"

KdaFeed *
kda_feed_behind(KdaFeed *feed)
{
	while (feed->is_part && feed->writers != NIL)
	{
		KdaFeed    *next = kda_feed_by_relid(((KdaQuery *) linitial(feed->writers))->stream->relid);

		if (next == NULL)
			break;
		feed = next;
	}
	return feed;
}

char *
kda_place_of_row(KdaStream *stream, int row)
{
	KdaBatch   *batch = stream->batch;
	char		place[KDA_PLACE_SIZE];

	if (stream->raw && stream->raw->n > 0)
		return pstrdup(kda_raw_place(&stream->raw->records[batch->record[row]], place));
	if (batch->mark && batch->mark[row])
		return pstrdup(batch->mark[row]);
	return psprintf(INT64_FORMAT, batch->position[row]);
}

KdaFeed *
kda_feed_of_row(KdaFeed *feed, int row, const char **shard, char **place)
{
	KdaStream  *stream = feed->stream;
	KdaBatch   *batch = stream->batch;
	const char *origin;
	ListCell   *lc;

	*shard = NULL;
	*place = NULL;
	if (!feed->is_part)
	{
		*shard = stream->shards[batch->shard[row]].name;
		*place = kda_place_of_row(stream, row);
		return feed;
	}
	if (batch->origin[row] == 0)
		return kda_feed_behind(feed);
	origin = stream->origins[batch->origin[row] - 1];
	foreach(lc, kda_worker->feeds)
	{
		KdaFeed    *other = lfirst(lc);

		if (other->relay_of || other->stream->id != atoi(origin))
			continue;
		*shard = strchr(origin, '/') + 1;
		*place = kda_place_of_row(stream, row);
		return other;
	}
	return kda_feed_behind(feed);
}
