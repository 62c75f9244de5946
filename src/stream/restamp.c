/*-------------------------------------------------------------------------
 *
 * restamp.c
 *	  In a restored or copied database the numbers of the original's
 *	  transactions mean nothing: the rows of a stream's inbox are stamped anew,
 *	  and the snapshots that speak of them are written for the new numbers.
 *
 * Rows that have been read get the number 3, which every snapshot has seen: it
 * is that of the first transaction that there can be.  The others follow in
 * the order in which they would have been read, with the numbers from 4 on; the
 * next number begins wherever it is other queries whose CREATE has seen the
 * row, and which do not count it.  initdb has used these numbers up, so a
 * snapshot of now has seen them; the position and the beginnings of queries
 * list those that they have not seen.
 *
 * Called by origin.c, inside SPI and under its lock, in the transaction that
 * makes the stream this database's own; nobody has read or written it here
 * before.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/rows.h"
#include "executor/spi.h"
#include "stream/inbox.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#define READ	"3"

/* A snapshot that has not seen these of the unread rows' numbers either. */
static char *
snapshot_without(const char *now, const char *condition)
{
	char	   *text = quote_literal_cstr(now);

	/* its list is not empty: this transaction is in it */
	return psprintf("(SELECT pg_catalog.concat(coalesce(pg_catalog.min(number)::text, pg_catalog.split_part(%s, ':', 1)), ':', "
					"pg_catalog.split_part(%s, ':', 2), ':', "
					"pg_catalog.concat_ws(',', pg_catalog.string_agg(number::text, ',' ORDER BY number), pg_catalog.split_part(%s, ':', 3))) "
					"FROM numbers WHERE %s)",
					text, text, text, condition);
}

static char *
update_rows(const char *segment, int number)
{
	return psprintf("UPDATE " KDA_STORAGE_SCHEMA ".%s AS t SET kda_seq = o.n, kda_xid = o.number::text::pg_catalog.xid8 "
					"FROM numbered o WHERE o.segment = %d AND o.place = t.ctid", segment, number);
}

void
kda_inbox_restamp(int32 stream_id, Oid stream_relid)
{
	KdaStreamIds ids;
	const char *segments[2];
	char	   *now;
	char	   *last;
	StringInfoData s;

	if (!kda_stream_ids(stream_relid, &ids) || !OidIsValid(ids.inbox))
		return;
	kda_inbox_rename_columns(stream_relid, ids.inbox);
	kda_inbox_rename_columns(stream_relid, ids.inbox2);
	segments[0] = quote_identifier(get_rel_name(ids.inbox));
	segments[1] = quote_identifier(get_rel_name(ids.inbox2));

	/*
	 * What other transactions are writing meanwhile is not seen by the
	 * statement: the snapshot, taken before it, says that it has not been read.
	 */
	(void) GetTopFullTransactionId();
	now = kda_inbox_snapshot();

	initStringInfo(&s);
	appendStringInfo(&s, "WITH p AS MATERIALIZED (SELECT snapshot1::pg_catalog.pg_snapshot AS before, snapshot2::pg_catalog.pg_snapshot AS within, "
					 "last_xid, last_seq FROM kda_storage.stream_progress WHERE stream_id = %d), "
					 "starts AS MATERIALIZED (SELECT start, start::pg_catalog.pg_snapshot AS seen FROM "
					 "(SELECT start_snapshot FROM kda_storage.query WHERE stream = %u UNION SELECT start_snapshot2 FROM kda_storage.query WHERE stream2 = %u) u (start) "
					 "WHERE start IS NOT NULL), ",
					 stream_id, stream_relid, stream_relid);
	appendStringInfo(&s, "placed AS (SELECT u.*, coalesce(pg_catalog.pg_visible_in_snapshot(kda_xid, before), false) OR "
					 "coalesce(pg_catalog.pg_visible_in_snapshot(kda_xid, within) AND (kda_xid, kda_seq) <= (last_xid, last_seq), false) AS read, "
					 "coalesce(NOT pg_catalog.pg_visible_in_snapshot(kda_xid, within), false) AS later FROM p, "
					 "(SELECT 0 AS segment, ctid AS place, kda_xid, kda_seq FROM " KDA_STORAGE_SCHEMA ".%s UNION ALL "
					 "SELECT 1, ctid, kda_xid, kda_seq FROM " KDA_STORAGE_SCHEMA ".%s) u), ",
					 segments[0], segments[1]);
	appendStringInfoString(&s, "seen AS (SELECT segment, place, read, row_number() OVER (PARTITION BY read ORDER BY later, kda_xid, kda_seq, segment, place) AS n, "
						   "CASE WHEN NOT read THEN ARRAY(SELECT start FROM starts WHERE pg_catalog.pg_visible_in_snapshot(kda_xid, starts.seen) ORDER BY 1) END AS seen_by "
						   "FROM placed), "
						   "steps AS (SELECT *, NOT read AND lag(seen_by) OVER (PARTITION BY read ORDER BY n) IS DISTINCT FROM seen_by AS next FROM seen), "
						   "numbered AS MATERIALIZED (SELECT segment, place, n, seen_by, " READ " + sum(next::int) OVER (PARTITION BY read ORDER BY n) AS number FROM steps), "
						   "numbers AS MATERIALIZED (SELECT DISTINCT number, seen_by FROM numbered WHERE number > " READ "), ");
	appendStringInfo(&s, "rows0 AS (%s), rows1 AS (%s), ", update_rows(segments[0], 0), update_rows(segments[1], 1));
	appendStringInfo(&s, "progress AS (UPDATE kda_storage.stream_progress SET snapshot2 = NULL, last_xid = NULL, last_seq = NULL, "
					 "snapshot1 = CASE WHEN coalesce(snapshot1, snapshot2) IS NOT NULL THEN %s END WHERE stream_id = %d), ",
					 snapshot_without(now, "true"), stream_id);
	/* also of a source stream, whose records come by way of its inbox when it has several processes */
	appendStringInfo(&s, "queries AS (UPDATE kda_storage.query SET "
					 "start_snapshot = CASE WHEN stream <> %u THEN start_snapshot WHEN start_snapshot IS NOT NULL THEN %s END, "
					 "start_snapshot2 = CASE WHEN stream2 <> %u THEN start_snapshot2 WHEN start_snapshot2 IS NOT NULL THEN %s END "
					 "WHERE %u IN (stream, stream2)) ",
					 stream_relid, snapshot_without(now, "start_snapshot <> ALL (seen_by)"),
					 stream_relid, snapshot_without(now, "start_snapshot2 <> ALL (seen_by)"), stream_relid);
	appendStringInfoString(&s, "SELECT max(number)::text FROM numbers");
	SPI_execute(s.data, false, 0);
	last = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (last && strtou64(last, NULL, 10) >= strtou64(now, NULL, 10))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("unread rows of stream \"%s\" cannot be taken over from another database", get_rel_name(stream_relid)),
				 errdetail("They need transaction numbers up to %s, and the oldest transaction of this cluster that is running has %s.",
						   last, pnstrdup(now, strcspn(now, ":"))),
				 errhint("Let the original read them before the dump, or let some transactions pass.")));
}
