/*-------------------------------------------------------------------------
 *
 * clause.c
 *	  What stands in the SELECT of a continuous query and is not core's:
 *	  WINDOWED BY, EMIT, and ON CONFLICT, which belongs to the pump.  Other
 *	  spellings of windows: spellings.c.
 *
 * Each is read, blanked in the copy, and kept apart.  No catalog access.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "dialect/parse.h"
#include "nodes/makefuncs.h"

const char *
kda_window_kind_name(KdaWindowKind kind)
{
	static const char *const names[] = {"TUMBLING", "SLIDING", "CUMULATING", "SESSION", "STAGGER"};

	return names[kind];
}

static KdaWindowKind
read_window_kind(KdaParser *p)
{
	if (take(p, "tumbling"))
		return KDA_WINDOW_TUMBLING;
	if (take(p, "sliding") || take(p, "hopping"))
		return KDA_WINDOW_SLIDING;
	if (take(p, "cumulating"))
		return KDA_WINDOW_CUMULATING;
	if (take(p, "session"))
		return KDA_WINDOW_SESSION;
	if (take(p, "stagger"))
		return KDA_WINDOW_STAGGER;
	kda_parse_unexpected(p, "WINDOWED BY TUMBLING (...), SLIDING (...), CUMULATING (...), SESSION (...) or STAGGER (...)");
}

static int
read_window_arguments(KdaParser *p)
{
	int			open = p->at;
	int			close;

	expect_char(p, '(', "For example WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)");
	close = kda_parse_closing(p, open);
	if (close == open + 1)
	{
		p->at = close;
		kda_parse_unexpected(p, "The window needs a size, for example INTERVAL '1' MINUTE.");
	}
	return close;
}

/* Between WHERE and GROUP BY: these words are reserved, so they are what they seem. */
static void
check_window_place(KdaParser *p, int at, int after)
{
	static const char *const later[] = {"having", "limit", "offset", "fetch"};
	static const char *const hint = "WINDOWED BY stands between WHERE and GROUP BY.";
	int			depth = p->tokens->t[at].depth;

	for (int i = at - 1; i >= 0 && p->tokens->t[i].depth >= depth; i--)
	{
		bool		is_later = false;

		if (p->tokens->t[i].depth > depth)
			continue;
		for (int w = 0; w < lengthof(later); w++)
			is_later |= kda_token_is(p->tokens, i, later[w]);
		/* unlike WITHIN GROUP (…) */
		is_later |= (kda_token_is(p->tokens, i, "group") || kda_token_is(p->tokens, i, "order")) &&
			kda_token_is(p->tokens, i + 1, "by");
		if (is_later)
		{
			p->at = at;
			kda_parse_unexpected(p, hint);
		}
		if (kda_token_is(p->tokens, i, "select"))
			break;
	}
	if (kda_token_is(p->tokens, after, "where"))
	{
		p->at = after;
		kda_parse_unexpected(p, hint);
	}
}

/* (PARTITION BY k, … RANGE length) */
static void
read_stagger(KdaParser *p, KdaWindowClause *w, int open, int close)
{
	static const char *const form = "STAGGER (PARTITION BY k, ... RANGE INTERVAL '1' MINUTE)";
	int			depth = p->tokens->t[open].depth + 1;
	int			range = open + 1;

	p->at = open + 1;
	expect(p, "partition", form);
	expect(p, "by", form);
	while (range < close && !(p->tokens->t[range].depth == depth && kda_token_is(p->tokens, range, "range")))
		range++;
	if (range == p->at || range + 1 >= close)
	{
		p->at = range == p->at ? p->at : close;
		kda_parse_unexpected(p, form);
	}
	w->partition = kda_parse_expressions(p, p->at, range);
	w->args = kda_parse_expressions(p, range + 1, close);
}

/* The clause WINDOWED BY … at token at, blanked in the copy; *after: the token behind it. */
static KdaWindowClause *
read_window(KdaParser *p, int at, int *after)
{
	KdaWindowClause *w = palloc0(sizeof(KdaWindowClause));
	int			open,
				close;

	p->at = at + 2;
	w->location = p->tokens->t[at].start;
	w->kind = read_window_kind(p);
	open = p->at;
	close = read_window_arguments(p);
	if (w->kind == KDA_WINDOW_STAGGER)
		read_stagger(p, w, open, close);
	else
		w->args = kda_parse_expressions(p, open + 1, close);
	kda_parse_blank(p, p->tokens->t[at].start, p->tokens->t[close].end);
	*after = close + 1;
	kda_parse_select_span(p->tokens, at, &w->span_start, &w->span_end);
	check_window_place(p, at, *after);
	return w;
}

/*
 * SELECT stream FROM, SELECT stream, a, SELECT stream.a, SELECT stream + 1 name
 * a column; in a KDA statement everything else is KDA's keyword.
 */
bool
kda_parse_is_select_stream(KdaTokens *tokens, int i)
{
	if (!kda_token_is(tokens, i, "select") || !kda_token_is(tokens, i + 1, "stream"))
		return false;
	if (tokens->t[i + 2].kind == KDA_TOKEN_END)
		return false;
	if (tokens->t[i + 2].kind != KDA_TOKEN_OTHER)
		return !kda_token_is(tokens, i + 2, "from") && !kda_token_is(tokens, i + 2, "as");
	if (kda_token_is_char(tokens, i + 2, '*'))
		return kda_token_is(tokens, i + 3, "from") || kda_token_is_char(tokens, i + 3, ',');
	return kda_token_is_char(tokens, i + 2, '(');
}

void
kda_parse_windows(KdaParser *p, KdaQuerySpec *spec, int from, int to)
{
	for (int i = from; i < to; i++)
	{
		KdaWindowClause *window;
		ListCell   *lc;
		int			after;

		if (!kda_token_is(p->tokens, i, "windowed") || !kda_token_is(p->tokens, i + 1, "by"))
			continue;
		window = read_window(p, i, &after);
		foreach(lc, spec->windows)
			if (((KdaWindowClause *) lfirst(lc))->span_start == window->span_start)
			{
				p->at = i;
				kda_parse_unexpected(p, "A SELECT has one WINDOWED BY.");
			}
		spec->windows = lappend(spec->windows, window);
		i = after - 1;
	}
}

static bool
is_on_conflict(KdaParser *p, int i)
{
	return p->tokens->t[i].depth == 0 && kda_token_is(p->tokens, i, "on") && kda_token_is(p->tokens, i + 1, "conflict");
}

/* EMIT CHANGES, EMIT ON WINDOW CLOSE, EMIT EVERY …; EMIT may also be somebody's name. */
static bool
is_emit(KdaParser *p, int i)
{
	return p->tokens->t[i].depth == 0 && kda_token_is(p->tokens, i, "emit") &&
		(kda_token_is(p->tokens, i + 1, "changes") || kda_token_is(p->tokens, i + 1, "every") ||
		 (kda_token_is(p->tokens, i + 1, "on") && kda_token_is(p->tokens, i + 2, "window")));
}

/* Returns the token behind it. */
static int
read_emit(KdaParser *p, KdaQuerySpec *spec, int i)
{
	if (spec->emit != KDA_EMIT_DEFAULT)
	{
		p->at = i;
		kda_parse_unexpected(p, "A query has one EMIT.");
	}
	spec->emit_location = p->tokens->t[i].start;
	p->at = i + 1;
	if (take(p, "changes"))
		spec->emit = KDA_EMIT_CHANGES;
	else if (take(p, "every"))
	{
		int			last = p->at;

		spec->emit = KDA_EMIT_EVERY;
		while (last < p->tokens->n && !(p->tokens->t[last].depth == 0 && kda_token_is(p->tokens, last, "on")))
			last++;
		if (last == p->at)
			kda_parse_unexpected(p, "EMIT EVERY INTERVAL '...'");
		spec->emit_interval = linitial(kda_parse_expressions(p, p->at, last));
		p->at = last;
	}
	else
	{
		p->at += 2;
		expect(p, "close", "EMIT ON WINDOW CLOSE");
		spec->emit = KDA_EMIT_CLOSE;
	}
	kda_parse_blank(p, p->tokens->t[i].start, p->tokens->t[p->at - 1].end);
	if (!at_end(p) && !is(p, "on"))
		kda_parse_unexpected(p, NULL);
	return p->at;
}

KdaQuerySpec *
kda_parse_query(KdaParser *p, KdaStmt *stmt)
{
	KdaQuerySpec *spec = palloc0(sizeof(KdaQuerySpec));
	int			first = p->at;
	int			end;
	Node	   *core;

	if (!is(p, "select") && !is(p, "with") && !is_char(p, '('))
		kda_parse_unexpected(p, "A continuous query is a SELECT.");
	spec->outer_location = -1;
	for (end = first; end < p->tokens->n; end++)
		if (is_on_conflict(p, end))
			break;
	kda_parse_replace_casts(p, first, p->tokens->n);
	kda_parse_replace_intervals(p, first, p->tokens->n);
	kda_parse_spellings(p, spec, first, end);
	kda_parse_windows(p, spec, first, end);
	for (int i = first; i < p->tokens->n; i++)
	{
		if (is_emit(p, i))
			i = read_emit(p, spec, i) - 1;
		else if (is_on_conflict(p, i))
		{
			p->at = i;
			if (stmt->kind != KDA_STMT_CREATE_PUMP)
				kda_parse_unexpected(p, NULL);
			/* EMIT may stand on either side of it */
			while (p->at < p->tokens->n && !is_emit(p, p->at))
				p->at++;
			stmt->on_conflict = pnstrdup(p->source + p->tokens->t[i].start,
										 p->tokens->t[p->at - 1].end - p->tokens->t[i].start);
			memcpy(p->insert + p->tokens->t[i].start, p->copy + p->tokens->t[i].start,
				   p->tokens->t[p->at - 1].end - p->tokens->t[i].start);
			kda_parse_blank(p, p->tokens->t[i].start, p->tokens->t[p->at - 1].end);
			i = p->at - 1;
		}
	}
	kda_parse_blank(p, 0, p->tokens->t[first].start);
	core = kda_parse_core(p);
	if (!IsA(core, SelectStmt))
	{
		p->at = first;
		kda_parse_unexpected(p, "A continuous query is a SELECT.");
	}
	spec->select = (SelectStmt *) core;
	kda_parse_settle(p, spec, core, true);
	if (spec->select->intoClause)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("SELECT INTO cannot be used in a continuous query"),
				 errhint("CREATE PUMP ... AS INSERT INTO ... SELECT ... writes into a table.")));
	return spec;
}
