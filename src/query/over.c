/*-------------------------------------------------------------------------
 *
 * over.c
 *	  Row-sliding queries, OVER (… RANGE or ROWS … PRECEDING), and sorts: one
 *	  row leaves for each record, in the order of (time, arrival), as soon as the
 *	  watermark has reached its time.
 *
 * Records are kept as long as rows to come can see them.  The final part is the
 * user's own SELECT over them, ordered by kda.place.
 *
 * In a pipeline worker only.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "query/query.h"
#include "query/run.h"
#include "utils/snapmgr.h"

#define PRUNE_ROWS	1000		/* so many more than after the last pruning */

/* Rows that no row to come can see. */
static void
prune(KdaQuery *query, KdaTime left)
{
	Datum		values[1] = {TimestampTzGetDatum(left)};
	Oid			types[1] = {TIMESTAMPTZOID};
	KdaIdentity save;

	if (kda_kept_count(query->kept) < query->pruned_rows * 2 + PRUNE_ROWS && query->prune_text != NULL)
		return;
	kda_current_query = query;
	if (query->prune_text == NULL)
		kda_kept_delete_before(query->kept, left == KDA_END_TIME ? left : left + 1);
	else
	{
		/* it computes the user's PARTITION BY */
		SPI_connect();
		kda_become_owner(query, &save);
		if (query->prune_plan == NULL)
		{
			SPIPlanPtr	plan = SPI_prepare(query->prune_text, 1, types);

			if (plan == NULL || SPI_keepplan(plan) != 0)
				elog(ERROR, "could not prepare: %s", query->prune_text);
			query->prune_plan = plan;
		}
		if (SPI_execute_plan(query->prune_plan, values, NULL, false, 0) < 0)
			elog(ERROR, "could not run: %s", query->prune_text);
		kda_kept_forget_count(query->kept, (int64) SPI_processed);
		kda_become_self(&save);
		SPI_finish();
	}
	kda_current_query = NULL;
	query->pruned_rows = kda_kept_count(query->kept);
}

void
kda_over_settle(KdaQuery *query)
{
	KdaTime		mark = query->stream->watermark;
	KdaPlanBounds bounds = {0};
	int64		next;
	int			strict;

	kda_query_prepare_state(query);
	if (mark == KDA_NO_TIME)
		return;
	if (!TIMESTAMP_NOT_FINITE(mark))
		mark -= query->delay_us;
	/* one of the mark's own time may still come, and go before others of it */
	strict = query->sort_strict ? 1 : 0;
	/* all that the table had at the last commit and whose time was reached has left */
	if (query->left_seq < 0)
		query->left_seq = kda_kept_first_unseen(query->kept) - 1;
	next = kda_kept_next(query->kept);
	if (mark <= query->frontier && next - 1 <= query->left_seq)
		return;
	bounds.leaving = true;
	bounds.after = query->frontier == KDA_NO_TIME ? KDA_NO_TIME : query->frontier - strict;
	bounds.upto = Max(mark, query->frontier) - strict;
	bounds.first = query->left_seq;
	kda_query_emit_final(query, &bounds, query->frontier);
	if (query->failure)
		return;
	query->left_seq = next - 1;
	prune(query, bounds.upto);
}
