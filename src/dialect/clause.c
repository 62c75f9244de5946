/*-------------------------------------------------------------------------
 *
 * clause.c
 *	  What stands in the SELECT of a continuous query and is not core's:
 *	  STREAM, WINDOWED BY, EMIT, and ON CONFLICT, which belongs to the pump.
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

KdaWindowKind
kda_parse_window_kind(KdaParser *p)
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
	kda_parse_unexpected(p, "WINDOWED BY TUMBLING (…), SLIDING (…), CUMULATING (…), SESSION (…) or STAGGER (…)");
}

int
kda_parse_window_arguments(KdaParser *p)
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

KdaWindowClause *
kda_parse_window(KdaParser *p, int at, int *after)
{
	KdaWindowClause *w = palloc0(sizeof(KdaWindowClause));
	int			open,
				close;

	p->at = at + 2;
	w->location = p->tokens->t[at].start;
	w->kind = kda_parse_window_kind(p);
	open = p->at;
	close = kda_parse_window_arguments(p);
	if (w->kind != KDA_WINDOW_STAGGER)
		w->args = kda_parse_expressions(p, open + 1, close);
	kda_parse_blank(p, p->tokens->t[at].start, p->tokens->t[close].end);
	*after = close + 1;
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

/* Between WHERE and GROUP BY: these words are reserved, so they are what they seem. */
static void
check_window_place(KdaParser *p, int from, int at, int after)
{
	static const char *const later[] = {"group", "having", "order", "limit", "offset", "fetch"};
	static const char *const hint = "WINDOWED BY stands between WHERE and GROUP BY.";
	int			depth = p->tokens->t[at].depth;

	for (int i = from; i < at; i++)
		for (int w = 0; w < lengthof(later); w++)
			if (p->tokens->t[i].depth == depth && kda_token_is(p->tokens, i, later[w]))
			{
				p->at = at;
				kda_parse_unexpected(p, hint);
			}
	if (kda_token_is(p->tokens, after, "where"))
	{
		p->at = after;
		kda_parse_unexpected(p, hint);
	}
}

/* Words that core's grammar would answer with a bare syntax error. */
static void
refuse_unknown_spellings(KdaParser *p, int from)
{
	static const char *const hint = "Write WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) before GROUP BY.";
	int			to = p->tokens->n;

	for (int i = from; i < to; i++)
	{
		int			depth = p->tokens->t[i].depth;

		if (!kda_token_is_char(p->tokens, i + 1, '('))
			continue;
		if (kda_token_is(p->tokens, i, "floor") || kda_token_is(p->tokens, i, "step"))
			for (int j = i + 2; j < to && p->tokens->t[j].depth > depth; j++)
				if (p->tokens->t[j].depth == depth + 1 &&
					(kda_token_is(p->tokens, j, "to") || kda_token_is(p->tokens, j, "by")))
				{
					p->at = i;
					kda_parse_not_yet(p, kda_token_is(p->tokens, i, "step") ? "STEP (… BY …)" : "FLOOR (… TO …)", hint);
				}
		if (kda_token_is(p->tokens, i, "table") && p->tokens->t[i + 2].kind == KDA_TOKEN_WORD &&
			kda_token_is_char(p->tokens, i + 3, '('))
		{
			p->at = i;
			kda_parse_not_yet(p, "TABLE (TUMBLE (…)) in FROM", hint);
		}
	}
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
			kda_parse_unexpected(p, "EMIT EVERY INTERVAL '…'");
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
	int			after;
	Node	   *core;

	if (!is(p, "select"))
		kda_parse_unexpected(p, is(p, "with") || is(p, "values") || is(p, "table") || is_char(p, '(') ?
							 "This release keeps a plain SELECT … FROM stream up to date." :
							 "A continuous query is a SELECT.");
	kda_parse_replace_casts(p, first, p->tokens->n);
	for (int i = first; i < p->tokens->n; i++)
	{
		if (kda_parse_is_select_stream(p->tokens, i))
			kda_parse_overwrite(p, i + 1, i + 2, "");
		else if (kda_token_is(p->tokens, i, "windowed") && kda_token_is(p->tokens, i + 1, "by"))
		{
			p->at = i;
			if (p->tokens->t[i].depth > 0)
				kda_parse_not_yet(p, "WINDOWED BY inside a subquery", "Put the window into a continuous query of its own.");
			if (spec->window)
				kda_parse_unexpected(p, "A query has one WINDOWED BY.");
			spec->window = kda_parse_window(p, i, &after);
			check_window_place(p, first, i, after);
			i = after - 1;
		}
		else if (is_emit(p, i))
			i = read_emit(p, spec, i) - 1;
		else if (p->tokens->t[i].depth == 0 && kda_token_is(p->tokens, i, "on") &&
				 kda_token_is(p->tokens, i + 1, "conflict"))
		{
			p->at = i;
			if (stmt->kind != KDA_STMT_CREATE_PUMP)
				kda_parse_unexpected(p, NULL);
			/* EMIT may stand on either side of it */
			while (p->at < p->tokens->n && !is_emit(p, p->at))
				p->at++;
			memcpy(p->insert + p->tokens->t[i].start, p->copy + p->tokens->t[i].start,
				   p->tokens->t[p->at - 1].end - p->tokens->t[i].start);
			kda_parse_blank(p, p->tokens->t[i].start, p->tokens->t[p->at - 1].end);
			i = p->at - 1;
		}
	}
	refuse_unknown_spellings(p, first);
	kda_parse_blank(p, 0, p->tokens->t[first].start);
	core = kda_parse_core(p);
	if (!IsA(core, SelectStmt))
	{
		p->at = first;
		kda_parse_unexpected(p, "A continuous query is a SELECT.");
	}
	spec->select = (SelectStmt *) core;
	if (spec->select->intoClause)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("SELECT INTO cannot be used in a continuous query")));
	return spec;
}
