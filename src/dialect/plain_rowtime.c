/*-------------------------------------------------------------------------
 *
 * plain_rowtime.c
 *	  SELECT ROWTIME FROM s, where the stream declares no such column: core's
 *	  "column does not exist" with a hint.
 *
 * Only for a single plain SELECT from one stream that a client has typed: in a
 * function ROWTIME may be a variable, in a script the column may come to be
 * before the SELECT runs.  Everything else is core's to complain about.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/options.h"
#include "dialect/adhoc.h"
#include "dialect/words.h"
#include "mb/pg_wchar.h"
#include "utils/lsyscache.h"

typedef struct Search
{
	const char *stream_name;
	ColumnRef  *found;
} Search;

static Node *
look(ColumnRef *ref, bool in_aggregate, void *arg)
{
	Search	   *search = arg;
	int			n = list_length(ref->fields);

	if (n <= 2 && IsA(llast(ref->fields), String) && strcmp(strVal(llast(ref->fields)), "rowtime") == 0 &&
		(n == 1 || strcmp(strVal(linitial(ref->fields)), search->stream_name) == 0) && search->found == NULL)
		search->found = ref;
	return NULL;
}

static bool
no_aggregate(FuncCall *call)
{
	return false;
}

void
kda_explain_plain_rowtime(List *raws, const char *source)
{
	SelectStmt *select;
	RangeVar   *stream;
	Oid			relid;
	Search		search = {0};
	KdaWords	words = {look, NULL, no_aggregate, &search, false};

	if (error_context_stack != NULL || !IsTransactionState() || list_length(raws) != 1)
		return;
	select = (SelectStmt *) linitial_node(RawStmt, raws)->stmt;
	if (!IsA(select, SelectStmt) || select->op != SETOP_NONE || list_length(select->fromClause) != 1 ||
		!IsA(linitial(select->fromClause), RangeVar))
		return;
	stream = linitial_node(RangeVar, select->fromClause);
	search.stream_name = stream->alias ? stream->alias->aliasname : stream->relname;
	/* what stands elsewhere may mean a column of the result */
	(void) kda_words_replace((Node *) select->targetList, &words);
	(void) kda_words_replace(select->whereClause, &words);
	if (search.found == NULL)
		return;
	relid = RangeVarGetRelid(stream, NoLock, true);
	if (!OidIsValid(relid) || !kda_is_stream(relid) || get_attnum(relid, "rowtime") != InvalidAttrNumber)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"rowtime\" does not exist"),
			 errhint("ROWTIME of a stream that does not declare it is known in continuous queries and beside WINDOWED BY; CREATE STREAM ... (rowtime timestamptz, ...) declares it."),
			 errposition(pg_mbstrlen_with_len(source, search.found->location) + 1)));
}
