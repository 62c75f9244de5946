/*-------------------------------------------------------------------------
 *
 * spellings.c
 *	  How Kinesis Data Analytics and Flink spell windows and times inside a
 *	  SELECT, made something that core's grammar knows.
 *
 * In the copy of the text STEP (x BY i) becomes STEP (x, i), FLOOR (x TO MINUTE)
 * becomes FLOOR (x, 'minute'), TABLE (TUMBLE (TABLE t, …)) becomes t, and what
 * has no place in core's tree is lifted out into the KdaQuerySpec; nothing
 * moves.  When core has parsed the copy, kda_parse_settle() finds in the tree
 * what stood there, and the windows that are GROUP BY items.
 *
 * Names only; the catalog is asked but for functions that are called TUMBLE,
 * HOP or SESSION.  Whether STEP is of the stream's time, and whose windows these
 * are, says declare/query_words.c.
 *
 *-------------------------------------------------------------------------
 */
#include "kda_stream.h"

#include "dialect/parse.h"
#include "dialect/words.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parser.h"

/*---- places */

/* The token that opens the parenthesis which token close closes. */
static int
opening(const KdaTokens *tokens, int close)
{
	int			depth = tokens->t[close].depth;
	int			i = close - 1;

	while (i >= 0 && tokens->t[i].depth > depth)
		i--;
	return Max(i, 0);
}

static bool
is_set_operation(const KdaTokens *tokens, int i)
{
	return kda_token_is(tokens, i, "union") || kda_token_is(tokens, i, "intersect") || kda_token_is(tokens, i, "except");
}

void
kda_parse_select_tokens(const KdaTokens *tokens, int at, int *first, int *last)
{
	int			from = at;
	int			to;
	int			depth;

	for (;;)
	{
		depth = tokens->t[from].depth;
		while (from > 0 && tokens->t[from - 1].depth >= depth)
			from--;
		if (from == 0 || depth == 0 || kda_token_is(tokens, from, "select") || kda_token_is(tokens, from, "with"))
			break;
		from--;					/* a parenthesis of something else: go on around it */
	}
	for (to = from; to < tokens->n && tokens->t[to].depth >= depth; to++)
		;
	/* of a set operation, the side */
	*first = from;
	for (int i = from; i < to; i++)
		if (tokens->t[i].depth == depth && is_set_operation(tokens, i))
		{
			if (i >= at)
			{
				to = i;
				break;
			}
			*first = i + 1;
		}
	*last = Max(to - 1, *first);
}

void
kda_parse_select_span(const KdaTokens *tokens, int at, int *start, int *end)
{
	int			first,
				last;

	kda_parse_select_tokens(tokens, at, &first, &last);
	*start = tokens->t[first].start;
	*end = tokens->t[last].end;
}

int
kda_parse_token_at(const KdaTokens *tokens, int offset)
{
	int			low = 0;
	int			high = tokens->n;

	while (low < high)
	{
		int			mid = (low + high) / 2;

		if (tokens->t[mid].start < offset)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static bool
is_any(const KdaTokens *tokens, int i, const char *const *words, int n)
{
	for (int w = 0; w < n; w++)
		if (kda_token_is(tokens, i, words[w]))
			return true;
	return false;
}

/* Where a relation or subquery of FROM begins whose last token is last; -1: it is none.  nested: ( t JOIN … ) counts. */
static int
relation_before(const KdaTokens *tokens, int last, bool nested)
{
	static const char *const before[] = {"from", "join", "lateral", "only"};
	int			i = last;

	if (i < 0)
		return -1;
	if (kda_token_is_char(tokens, i, ')'))
	{
		i = opening(tokens, i);
		if (!kda_token_is(tokens, i + 1, "select") && !kda_token_is(tokens, i + 1, "with") &&
			!kda_token_is(tokens, i + 1, "values") && !kda_token_is_char(tokens, i + 1, '('))
			return -1;
	}
	else
	{
		if (tokens->t[i].kind != KDA_TOKEN_WORD && tokens->t[i].kind != KDA_TOKEN_QUOTED)
			return -1;
		while (i >= 2 && kda_token_is_char(tokens, i - 1, '.'))
			i -= 2;
	}
	return kda_token_is_char(tokens, i - 1, ',') || (nested && kda_token_is_char(tokens, i - 1, '(')) || is_any(tokens, i - 1, before, lengthof(before)) ? i : -1;
}

/*---- what is ours */

/* STEP ( … BY … ): the token BY, else 0; not that of ORDER BY in an aggregate. */
static int
step_by(const KdaTokens *tokens, int i)
{
	static const char *const others[] = {"order", "group", "partition"};
	int			depth = tokens->t[i].depth;

	if (!kda_token_is(tokens, i, "step") || !kda_token_is_char(tokens, i + 1, '(') || kda_token_is_char(tokens, i - 1, '.'))
		return 0;
	for (int j = i + 2; j < tokens->n && tokens->t[j].depth > depth; j++)
		if (tokens->t[j].depth == depth + 1 && kda_token_is(tokens, j, "by") &&
			!is_any(tokens, j - 1, others, lengthof(others)))
			return j;
	return 0;
}

static const char *const floor_units[] = {"second", "minute", "hour", "day", "week", "month", "quarter", "year"};

/* FLOOR ( … TO MINUTE ): the token TO, else 0; not that of a type, INTERVAL DAY TO MINUTE. */
static int
floor_to(const KdaTokens *tokens, int i)
{
	static const char *const words[] = {"floor", "ceil", "ceiling"};
	static const char *const fields[] = {"year", "month", "day", "hour", "minute"};
	int			depth = tokens->t[i].depth;
	int			close = i + 2;

	if (!is_any(tokens, i, words, lengthof(words)) || !kda_token_is_char(tokens, i + 1, '(') ||
		kda_token_is_char(tokens, i - 1, '.'))
		return 0;
	while (close < tokens->n && tokens->t[close].depth > depth)
		close++;
	if (close - 2 < i + 3 || !kda_token_is(tokens, close - 2, "to") ||
		!is_any(tokens, close - 1, floor_units, lengthof(floor_units)))
		return 0;
	if (is_any(tokens, close - 3, fields, lengthof(fields)) &&
		(kda_token_is(tokens, close - 4, "interval") || tokens->t[close - 4].kind == KDA_TOKEN_STRING))
		return 0;
	return close - 2;
}

int
kda_parse_call_word(const KdaTokens *tokens, int i)
{
	int			by = step_by(tokens, i);

	return by ? by : floor_to(tokens, i);
}

static const char *const table_functions[] = {"tumble", "hop", "cumulate", "session"};

/* FROM TABLE ( TUMBLE ( …, FROM TUMBLE ( TABLE …: the token TUMBLE, else 0. */
static int
table_function(const KdaTokens *tokens, int i)
{
	static const char *const before[] = {"from", "join", "lateral"};
	bool		table = kda_token_is(tokens, i, "table") && kda_token_is_char(tokens, i + 1, '(');
	int			at = table ? i + 2 : i;

	if (!is_any(tokens, at, table_functions, lengthof(table_functions)) || !kda_token_is_char(tokens, at + 1, '('))
		return 0;
	if (!kda_token_is_char(tokens, i - 1, ',') && !is_any(tokens, i - 1, before, lengthof(before)))
		return 0;
	if (!table && !kda_token_is(tokens, at + 2, "table") &&
		!(kda_token_is(tokens, at + 2, "data") && kda_token_is_char(tokens, at + 3, '=') &&
		  kda_token_is_char(tokens, at + 4, '>')))
		return 0;
	return at;
}

static bool
is_as_of(const KdaTokens *tokens, int i)
{
	return kda_token_is(tokens, i, "for") && kda_token_is(tokens, i + 1, "system_time") &&
		kda_token_is(tokens, i + 2, "as") && kda_token_is(tokens, i + 3, "of");
}

static bool
is_within(const KdaTokens *tokens, int i)
{
	return kda_token_is(tokens, i, "within") && kda_token_is(tokens, i + 1, "interval") &&
		tokens->t[i + 2].kind == KDA_TOKEN_STRING;
}

/* FROM a OVER ( … ), FROM a OVER w, where WINDOW w AS ( … ) follows; FROM a over is an alias */
static bool
is_from_over(const KdaTokens *tokens, int i)
{
	int			depth = tokens->t[i].depth;
	char	   *name;

	if (!kda_token_is(tokens, i, "over") || relation_before(tokens, i - 1, false) < 0)
		return false;
	if (kda_token_is_char(tokens, i + 1, '('))
		return true;
	if (tokens->t[i + 1].kind != KDA_TOKEN_WORD && tokens->t[i + 1].kind != KDA_TOKEN_QUOTED)
		return false;
	name = kda_token_value(tokens, i + 1);
	for (int j = i + 2; j + 2 < tokens->n && tokens->t[j].depth >= depth; j++)
		if (tokens->t[j].depth == depth && kda_token_is(tokens, j + 1, "as") && kda_token_is_char(tokens, j + 2, '(') &&
			(kda_token_is(tokens, j - 1, "window") || kda_token_is_char(tokens, j - 1, ',')) &&
			(tokens->t[j].kind == KDA_TOKEN_WORD || tokens->t[j].kind == KDA_TOKEN_QUOTED) &&
			strcmp(kda_token_value(tokens, j), name) == 0)
			return true;
	return false;
}

/* GROUP BY TUMBLE ( column, INTERVAL '…': Flink's older spelling, unless somebody has a function of that name */
static bool
is_group_window(const KdaTokens *tokens, int i)
{
	static const char *const words[] = {"tumble", "hop", "session"};
	int			at = i + 3;

	if (!is_any(tokens, i, words, lengthof(words)) || !kda_token_is_char(tokens, i + 1, '(') ||
		kda_token_is_char(tokens, i - 1, '.') ||
		(tokens->t[i + 2].kind != KDA_TOKEN_WORD && tokens->t[i + 2].kind != KDA_TOKEN_QUOTED))
		return false;
	if (kda_token_is_char(tokens, at, '.'))
		at += 2;
	return kda_token_is_char(tokens, at, ',') && kda_token_is(tokens, at + 1, "interval") &&
		tokens->t[at + 2].kind == KDA_TOKEN_STRING && !kda_raw_is_function(kda_token_value(tokens, i));
}

bool
kda_parse_is_spelled(const KdaTokens *tokens)
{
	for (int i = 0; i < tokens->n; i++)
	{
		if (tokens->t[i].kind != KDA_TOKEN_WORD)
			continue;
		if ((kda_token_is(tokens, i, "windowed") && kda_token_is(tokens, i + 1, "by")) || step_by(tokens, i) ||
			floor_to(tokens, i) || table_function(tokens, i) || is_as_of(tokens, i) || is_within(tokens, i) ||
			is_from_over(tokens, i) || is_group_window(tokens, i))
			return true;
	}
	return false;
}

/*---- intervals */

/* Behind INTERVAL '1' DAY TO SECOND (3) at token i. */
static int
interval_end(const KdaTokens *tokens, int i)
{
	static const char *const fields[] = {"year", "month", "day", "hour", "minute", "second",
		"years", "months", "days", "hours", "minutes", "seconds", "week", "weeks", "millisecond", "milliseconds"};
	int			end = i + 2;

	while (is_any(tokens, end, fields, lengthof(fields)))
	{
		end++;
		if (kda_token_is_char(tokens, end, '('))
		{
			while (end < tokens->n && !kda_token_is_char(tokens, end, ')'))
				end++;
			end++;
		}
		if (!kda_token_is(tokens, end, "to"))
			break;
		end++;
	}
	return Min(end, tokens->n);
}

/*
 * INTERVAL '10' MINUTES is INTERVAL '10' MINUTE; INTERVAL '2' WEEK, which core's
 * grammar does not have, is INTERVAL '2 WEEK'; of DAY (3) the digits go.
 */
static void
replace_interval(KdaParser *p, int i)
{
	static const char *const plural[] = {"years", "months", "days", "hours", "minutes", "seconds"};
	static const char *const in_string[] = {"week", "weeks", "millisecond", "milliseconds"};
	const KdaTokens *tokens = p->tokens;
	int			end = interval_end(tokens, i);

	if (is_any(tokens, i + 2, in_string, lengthof(in_string)) && p->source[tokens->t[i + 1].start] == '\'')
	{
		/* '2' WEEK is as long as '2 WEEK' */
		kda_parse_overwrite(p, i + 1, i + 3,
							psprintf("%.*s %s'", tokens->t[i + 1].end - tokens->t[i + 1].start - 1,
									 p->source + tokens->t[i + 1].start, kda_token_value(tokens, i + 2)));
		return;
	}
	for (int j = i + 2; j < end; j++)
	{
		if (is_any(tokens, j, plural, lengthof(plural)))
			p->copy[tokens->t[j].end - 1] = ' ';
		else if (kda_token_is_char(tokens, j, '(') && !kda_token_is(tokens, j - 1, "second"))
			kda_parse_blank(p, tokens->t[j].start, tokens->t[kda_parse_closing(p, j)].end);
	}
}

void
kda_parse_replace_intervals(KdaParser *p, int from, int to)
{
	for (int i = from; i < to; i++)
		if (kda_token_is(p->tokens, i, "interval") && p->tokens->t[i + 1].kind == KDA_TOKEN_STRING)
			replace_interval(p, i);
}

/*---- TABLE (TUMBLE (TABLE t, DESCRIPTOR (c), …)) */

typedef enum Role
{
	DATA, TIMECOL, SIZE, SLIDE, STEP, GAP, OFFSET, NROLES
} Role;

static const char *const roles[] = {"data", "timecol", "size", "slide", "step", "gap", "offset"};	/* as Role */

typedef struct TableFunction
{
	KdaWindowKind kind;
	const char *form;
	Role		order[6];		/* of arguments without a name */
	int			min;			/* so many must be there; what follows is optional */
	int			max;
} TableFunction;

static const TableFunction functions[] = {	/* as table_functions */
	{KDA_WINDOW_TUMBLING, "TABLE (TUMBLE (TABLE t, DESCRIPTOR (rowtime), size [, offset]))",
	{DATA, TIMECOL, SIZE, OFFSET}, 3, 4},
	{KDA_WINDOW_SLIDING, "TABLE (HOP (TABLE t, DESCRIPTOR (rowtime), slide, size [, offset]))",
	{DATA, TIMECOL, SLIDE, SIZE, OFFSET}, 4, 5},
	{KDA_WINDOW_CUMULATING, "TABLE (CUMULATE (TABLE t, DESCRIPTOR (rowtime), step, size [, offset]))",
	{DATA, TIMECOL, STEP, SIZE, OFFSET}, 4, 5},
	{KDA_WINDOW_SESSION, "TABLE (SESSION (TABLE t [PARTITION BY k, ...], DESCRIPTOR (rowtime), gap))",
	{DATA, TIMECOL, GAP}, 3, 3},
};

/* Is a named argument at token i?  NAME => */
static bool
is_named(const KdaTokens *tokens, int i)
{
	return tokens->t[i].kind == KDA_TOKEN_WORD && kda_token_is_char(tokens, i + 1, '=') &&
		kda_token_is_char(tokens, i + 2, '>');
}

/* Behind the expression at p->at: the comma or closing parenthesis of its depth, at most stop. */
static int
expression_end(KdaParser *p, int stop)
{
	int			depth = p->tokens->t[p->at].depth;
	int			i = p->at;

	while (i < stop && !(p->tokens->t[i].depth == depth && kda_token_is_char(p->tokens, i, ',')))
		i++;
	return i;
}

static Node *
expression(KdaParser *p, int stop, const char *form)
{
	int			end = expression_end(p, stop);
	List	   *list;

	if (end == p->at)
		kda_parse_unexpected(p, form);
	list = kda_parse_expressions(p, p->at, end);
	p->at = end;
	return linitial(list);
}

/* PARTITION BY k, …: up to DESCRIPTOR or the next named argument. */
static List *
partition(KdaParser *p, int stop, const char *form)
{
	List	   *list = NIL;

	p->at++;
	expect(p, "by", form);
	for (;;)
	{
		if (is_char(p, '('))
		{
			int			close = kda_parse_closing(p, p->at);

			list = list_concat(list, kda_parse_expressions(p, p->at + 1, close));
			p->at = close + 1;
		}
		else
			list = lappend(list, expression(p, stop, form));
		if (!is_char(p, ',') || kda_token_is(p->tokens, p->at + 1, "descriptor") || is_named(p->tokens, p->at + 1))
			return list;
		p->at++;
	}
}

/* At: TABLE or the function; name: the function.  Returns the token behind all of it. */
static int
read_table_function(KdaParser *p, KdaQuerySpec *spec, int at, int name)
{
	const KdaTokens *tokens = p->tokens;
	KdaWindowClause *w = palloc0(sizeof(KdaWindowClause));
	const TableFunction *f = NULL;
	Node	   *given[NROLES] = {0};
	int			close = kda_parse_closing(p, name + 1);
	int			last = close;
	int			table = 0,
				table_end = 0;
	int			n = 0;
	bool		named = false;

	for (int k = 0; k < lengthof(functions); k++)
		if (kda_token_is(tokens, name, table_functions[k]))
			f = &functions[k];
	if (at != name)
	{
		p->at = last = close + 1;
		expect_char(p, ')', f->form);
	}
	p->at = name + 2;
	while (p->at < close)
	{
		int			start = p->at;
		int			role = -1;

		if (is_named(tokens, p->at))
		{
			for (int k = 0; k < f->max; k++)
				if (kda_token_is(tokens, p->at, roles[f->order[k]]))
					role = f->order[k];
			named = true;
			if (role >= 0)
				p->at += 3;
		}
		else if (!named && n < f->max)
			role = f->order[n];
		if (role < 0 || given[role])
			kda_parse_unexpected(p, f->form);
		n++;
		if (role == DATA)
		{
			expect(p, "table", f->form);
			table = p->at;
			(void) kda_parse_qualified_name(p);
			table_end = p->at;
			if (is(p, "partition"))
			{
				if (f->kind != KDA_WINDOW_SESSION)
					kda_parse_unexpected(p, "Only sessions depend on PARTITION BY: group by the column instead.");
				w->partition = partition(p, close, f->form);
			}
			given[role] = (Node *) makeInteger(start);
		}
		else if (role == TIMECOL)
		{
			ColumnRef  *column = makeNode(ColumnRef);

			expect(p, "descriptor", f->form);
			expect_char(p, '(', f->form);
			column->location = tokens->t[p->at].start;
			column->fields = list_make1(makeString(kda_parse_name(p, f->form)));
			expect_char(p, ')', f->form);
			given[role] = w->time = (Node *) column;
		}
		else
			given[role] = expression(p, close, f->form);
		if (p->at < close)
		{
			expect_char(p, ',', f->form);
			if (p->at == close)
				kda_parse_unexpected(p, f->form);
		}
	}
	for (int k = 0; k < f->min; k++)
		if (given[f->order[k]] == NULL)
		{
			p->at = close;
			kda_parse_unexpected(p, f->form);
		}
	w->kind = f->kind;
	w->in_from = true;
	w->args = list_make1(given[f->kind == KDA_WINDOW_SESSION ? GAP : SIZE]);
	if (f->kind == KDA_WINDOW_SLIDING || f->kind == KDA_WINDOW_CUMULATING)
		w->args = lappend(w->args, given[f->kind == KDA_WINDOW_SLIDING ? SLIDE : STEP]);
	if (given[OFFSET])
		w->args = lappend(w->args, given[OFFSET]);
	w->location = tokens->t[name].start;
	w->span_start = tokens->t[at].start;
	w->span_end = tokens->t[last].end;
	spec->windows = lappend(spec->windows, w);
	kda_parse_blank(p, tokens->t[at].start, tokens->t[table].start);
	kda_parse_blank(p, tokens->t[table_end - 1].end, tokens->t[last].end);
	return last + 1;
}

/*---- what is lifted out of the text */

static void
fill_row_window(KdaRowWindow *w, WindowDef *def)
{
	w->def = def;
	w->rows = (def->frameOptions & FRAMEOPTION_ROWS) != 0;
	w->unbounded = (def->frameOptions & FRAMEOPTION_START_UNBOUNDED_PRECEDING) != 0;
	w->reach = def->startOffset;
}

/* FROM a OVER (RANGE …) at token i; returns the token behind it. */
static int
read_from_over(KdaParser *p, KdaQuerySpec *spec, int i)
{
	static const char *const call = "SELECT count(*) ";
	const KdaTokens *tokens = p->tokens;
	int			end = kda_token_is_char(tokens, i + 1, '(') ? kda_parse_closing(p, i + 1) + 1 : i + 2;
	int			start = tokens->t[i].start;
	int			stop = tokens->t[end - 1].end;
	int			pad = start - (int) strlen(call);
	char	   *text = palloc(stop + 1);
	KdaRowWindow *w = palloc0(sizeof(KdaRowWindow));
	List	   *list;

	/* a window of a function is what core can read, behind SELECT … FROM of the user's */
	p->at = i;
	if (pad < 0)
		kda_parse_unexpected(p, NULL);
	memset(text, ' ', stop);
	memcpy(text + pad, call, strlen(call));
	memcpy(text + start, p->copy + start, stop - start);
	text[stop] = '\0';
	/* RANGE INTERVAL … FOLLOWING: core has it only behind BETWEEN */
	if (kda_token_is(tokens, end - 2, "following") && kda_token_is(tokens, i + 2, "range") &&
		!kda_token_is(tokens, i + 3, "between"))
	{
		w->following = true;
		memcpy(text + tokens->t[end - 2].start, "preceding", strlen("preceding"));
	}
	list = kda_core_raw_parser(text, RAW_PARSE_DEFAULT);
	if (list_length(list) != 1)
		kda_parse_unexpected(p, NULL);
	list = castNode(SelectStmt, linitial_node(RawStmt, list)->stmt)->targetList;
	fill_row_window(w, castNode(FuncCall, linitial_node(ResTarget, list)->val)->over);
	w->relation = tokens->t[relation_before(tokens, i - 1, false)].start;
	w->location = start;
	kda_parse_select_span(tokens, i, &w->span_start, &w->span_end);
	spec->row_windows = lappend(spec->row_windows, w);
	kda_parse_blank(p, start, stop);
	return end;
}

static int
read_within(KdaParser *p, KdaQuerySpec *spec, int i)
{
	KdaSortWithin *sort = palloc0(sizeof(KdaSortWithin));
	const KdaTokens *tokens = p->tokens;
	int			end = interval_end(tokens, i + 1);
	int			by = i;
	int			first,
				last;

	/* of the SELECT's own ORDER BY */
	kda_parse_select_tokens(tokens, i, &first, &last);
	while (by > first && !(tokens->t[by].depth == tokens->t[i].depth && kda_token_is(tokens, by, "order")))
		by--;
	if (by <= first || tokens->t[first].depth != tokens->t[i].depth)
	{
		p->at = i;
		kda_parse_unexpected(p, "ORDER BY s.ts WITHIN INTERVAL '10' SECOND");
	}
	sort->within = linitial(kda_parse_expressions(p, i + 1, end));
	sort->location = p->tokens->t[i].start;
	kda_parse_select_span(p->tokens, i, &sort->span_start, &sort->span_end);
	spec->sorts = lappend(spec->sorts, sort);
	kda_parse_blank(p, p->tokens->t[i].start, p->tokens->t[end - 1].end);
	return end;
}

static int
read_as_of(KdaParser *p, KdaQuerySpec *spec, int i)
{
	static const char *const form = "JOIN t FOR SYSTEM_TIME AS OF s.rowtime [AS a] ON ...";
	KdaAsOf    *as_of = palloc0(sizeof(KdaAsOf));
	int			relation = relation_before(p->tokens, i - 1, true);
	int			end = i + 4;

	p->at = i;
	if (relation < 0)
		kda_parse_unexpected(p, form);
	p->at = end;
	(void) kda_parse_name(p, form);
	for (end = p->at; kda_token_is_char(p->tokens, end, '.'); end = p->at)
	{
		p->at++;
		(void) kda_parse_name(p, form);
	}
	as_of->time = linitial(kda_parse_expressions(p, i + 4, end));
	as_of->relation = p->tokens->t[relation].start;
	as_of->location = p->tokens->t[i].start;
	spec->as_of = lappend(spec->as_of, as_of);
	kda_parse_blank(p, p->tokens->t[i].start, p->tokens->t[end - 1].end);
	return end;
}

void
kda_parse_spellings(KdaParser *p, KdaQuerySpec *spec, int from, int to)
{
	const KdaTokens *tokens = p->tokens;
	int			name;

	/* calls first: they may stand in what is lifted out */
	for (int i = from; i < to; i++)
	{
		int			by = step_by(tokens, i);
		int			unit = floor_to(tokens, i);

		if (by)
			kda_parse_overwrite(p, by, by + 1, ",");
		else if (unit)
			kda_parse_overwrite(p, unit, unit + 2, psprintf(",'%s'", kda_token_value(tokens, unit + 1)));
		if (by || unit)
			spec->calls = lappend_int(spec->calls, tokens->t[i].start);
	}
	for (int i = from; i < to; i++)
	{
		if (kda_parse_is_select_stream(p->tokens, i))
			kda_parse_overwrite(p, i + 1, i + 2, "");
		else if ((name = table_function(tokens, i)) != 0)
			i = read_table_function(p, spec, i, name) - 1;
		else if (is_from_over(tokens, i))
			i = read_from_over(p, spec, i) - 1;
		else if (is_within(tokens, i))
			i = read_within(p, spec, i) - 1;
		else if (is_as_of(tokens, i))
			i = read_as_of(p, spec, i) - 1;
	}
}
