"""Random continuous queries, each with the plain SELECT that must give the same rows.

A query is made once and written twice: as a user of KDA, of Flink or of ours
writes it, and as SQL over ordinary tables that uses nothing of the extension.
Windows of the clock are generate_series there; sessions and stagger windows are
computed in Python (test_sessions.py has the models).

Behind each stream "s" stands a table "s_in" of every row that it was given, in
order of arrival (seq), with the watermark that the row's shard had before it,
less the stream's allowed_lateness (wm; -infinity: none yet).  So whether a row counts, and in which window, is a
condition in SQL: window_end > wm, or rowtime >= wm where rows and not windows
are late.
"""
import re
from datetime import datetime, timedelta, timezone

from test_sessions import sessions, staggers

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
US = timedelta(microseconds=1)
SECOND, MINUTE, HOUR, DAY = 10 ** 6, 60 * 10 ** 6, 3600 * 10 ** 6, 86400 * 10 ** 6

COLUMNS = {"id": "int", "k": "int", "t": "text", "v": "int", "n": "numeric", "f": "float8", "b": "boolean",
           "d": "timestamp", "arr": "int[]", "j": "jsonb"}

# what can be computed from a row; those whose columns a source has are used
NUMBERS = ["a.v", "a.k", "a.n", "a.f", "a.v % 3", "a.v + a.k", "length(a.t)", "coalesce(a.v, 0)", "a.arr[1]",
           "CASE WHEN a.b THEN a.v ELSE a.k END", "abs(a.v)", "extract(day FROM a.d)::int", "(a.j->>'x')::int",
           "least(a.k, a.v)", "cardinality(a.arr)", "a.n * 2", "round(a.n, 1)", "a.n + a.v", "a.f * 2", "a.v::bigint * a.v",
           "a.v::smallint"]
OTHERS = ["a.t", "a.b", "a.d", "upper(a.t)", "coalesce(a.t, '-') || 'x'", "a.t || a.k", "to_char(a.d, 'YYYY-MM-DD')",
          "date_trunc('hour', a.d)", "a.v > 3", "a.t IS NULL", "a.d::date", "a.j", "a.arr", "ROW(a.k, a.t)::text", "a.t::varchar(3)",
          "a.j->'x'"]
KEYS = ["a.k", "a.t", "a.b", "a.v % 2", "upper(a.t)", "coalesce(a.k, -1)", "a.d::date", "a.n > 1", "a.arr[1]", "a.f", "a.arr",
        "a.t COLLATE \"C\"", "a.j", "a.n"]
CONDITIONS = ["a.v > 3", "a.k <> 2", "a.t LIKE '%a%'", "a.t IS NULL", "a.b", "a.n BETWEEN 1 AND 60", "a.id % 3 <> 0",
              "a.arr @> ARRAY[2]", "EXISTS (SELECT FROM dim x WHERE x.k = a.k AND x.w > 2)", "a.k IN (SELECT x.k FROM dim x WHERE x.w < 5)",
              "a.k NOT IN (1, 4)", "a.v > (SELECT min(x.w) FROM dim x)", "(a.k, a.b) <> (1, true)", "a.f > 0 OR a.v IS NULL",
              "a.t IS DISTINCT FROM 'a'"]
# FROM, with what it adds to the columns; {s} is the source
JOINS = [("{s}", []), ("{s} JOIN dim y ON y.k = a.k", ["y.w", "y.name"]), ("{s} LEFT JOIN dim y ON y.k = a.k AND y.w > 2", ["y.w", "coalesce(y.name, '?')"]),
         ("dim y JOIN {s} ON y.k = a.k", ["y.w"]), ("{s} LEFT JOIN dimu z ON z.k = a.k JOIN dim y ON y.name = z.name", ["y.w + z.w", "z.name"]),
         ("{s} CROSS JOIN LATERAL unnest(a.arr) AS y(w)", ["y.w"]), ("{s}, unnest(a.arr) WITH ORDINALITY AS y(w, o)", ["y.w", "y.o"]),
         ("{s} CROSS JOIN LATERAL (SELECT max(x.w) AS w FROM dim x WHERE x.k = a.k) y", ["y.w"]),
         ("{s} LEFT JOIN LATERAL (SELECT x.w FROM dim x WHERE x.k = a.k ORDER BY x.w DESC LIMIT 1) y ON true", ["y.w"]),
         ("{s} LEFT JOIN dim_view y ON y.k = a.k", ["y.w"]), ("{s} JOIN dim_parts y ON y.k = a.k", ["y.w"]),
         ("{s} LEFT JOIN c y ON y.k = a.k", ["y.w"]), ("{s} JOIN (SELECT k, avg(w) AS w FROM dim GROUP BY k) y USING (k)", ["y.w"]),
         ("{s}, dimu y", ["y.w", "y.name"], "y.k = a.k"),
         # as they were at the row's time: @OF@ is written by a user, @HELD@ is what it means
         ("{s} LEFT JOIN dim_times@OF@ y ON y.k = a.k@HELD@", ["y.w", "y.name"]), ("{s} JOIN dim_times@OF@ y ON y.k < a.k@HELD@", ["y.w", "y.name"])]

DIMENSIONS = """
CREATE TABLE dim (k int, w int, name text);
INSERT INTO dim VALUES (0, 1, 'zero'), (1, 2, 'one'), (1, 3, 'uno'), (3, 7, NULL), (NULL, 9, 'none');
CREATE TABLE dimu (k int PRIMARY KEY, w int, name text);
INSERT INTO dimu VALUES (0, 1, 'zero'), (1, 2, 'one'), (2, NULL, 'zero'), (4, 8, 'four');
CREATE VIEW dim_view AS SELECT k, sum(w) AS w FROM dim GROUP BY k;
CREATE TABLE dim_parts (k int, w int) PARTITION BY LIST (k);
CREATE TABLE dim_parts_0 PARTITION OF dim_parts FOR VALUES IN (0, 1);
CREATE TABLE dim_parts_2 PARTITION OF dim_parts DEFAULT;
INSERT INTO dim_parts VALUES (0, 5), (1, 6), (2, 7), (NULL, 8);
CREATE TABLE dim_times (k int, w int, name text, valid_from timestamptz, valid_to timestamptz);
INSERT INTO dim_times SELECT k, i, 'time ' || i, CASE WHEN i > 0 THEN start + i * step END, CASE WHEN i < 6 THEN start + (i + 1) * step END
    FROM generate_series(0, 2) k, generate_series(0, 6) i, LATERAL (VALUES ({start}, {step} * (k + 2) * interval '1 us')) v(start, step) WHERE (k, i) <> (2, 3);
CREATE FUNCTION widest(text, text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS
    $$ SELECT CASE WHEN length($1) > length($2) OR length($1) = length($2) AND $1 > $2 THEN $1 ELSE $2 END $$;
-- of one's own: one that can be put together from parts, and one that cannot
CREATE AGGREGATE widest (text) (SFUNC = widest, STYPE = text, COMBINEFUNC = widest, INITCOND = '');
CREATE AGGREGATE widest_of_all (text) (SFUNC = widest, STYPE = text, INITCOND = '');
CREATE FUNCTION add_numbers(numeric, VARIADIC numeric[]) RETURNS numeric LANGUAGE sql IMMUTABLE AS
    $$ SELECT coalesce($1, 0) + coalesce((SELECT sum(x) FROM unnest($2) x), 0) $$;
CREATE AGGREGATE add_up (VARIADIC numeric[]) (SFUNC = add_numbers, STYPE = numeric);
"""


def spell(text, words):
    """Each word that two spellings say differently, by what one of them says."""
    for word, said in words.items():
        text = text.replace(word, said)
    return text


def fill(text, tables):
    """@0@, @1@ ... by the tables of a join."""
    return spell(text, {"@%d@" % i: table for i, table in enumerate(tables)})


def literal(when):
    return "'%s'::timestamptz" % (when.isoformat() if when else "-infinity")


class Source:
    """What stands in FROM: ours(alias) is the text for a continuous query, plain(state) a SELECT that gives
    seq, id, rt (its time), wm and the columns, as things are now."""

    def __init__(self, ours, plain, columns, time, watermark, streams, ordered=True, corrected=None):
        self.ours = ours
        self.plain = plain
        self.columns = columns      # names
        self.time = time            # name of the column that has the time, or None
        self.watermark = watermark  # state -> up to where all is final
        self.corrected = corrected or watermark    # … and to where windows have closed that may be corrected
        self.streams = streams
        self.ordered = ordered      # there is one order of arrival
        self.table_name = None      # that a window table function can name

    def has(self, expression):
        return all(c in self.columns for c in re.findall(r"\ba\.(\w+)", expression))

    def words(self, expressions):
        return [e for e in expressions if self.has(e)]


class Window:
    """One window: how it is written, and which windows a row is in."""

    def __init__(self, kind, size, slide, offset, unit, zone):
        self.kind, self.size, self.slide, self.offset, self.unit, self.zone = kind, size, slide, offset, unit, zone
        self.by_bounds = False      # sessions of several keys with the same bounds are one

    def keyed(self):
        return self.kind in ("session", "stagger")

    def options(self):
        """WITH (...) of the query that it stands in."""
        return " WITH (time_zone = '%s')" % self.zone if self.unit != "us" else ""

    def relation(self):
        """SELECT of ws, we: all windows that a row of the relation base can be in."""
        step = self.size if self.kind == "cumulating" else self.slide
        if self.unit == "us":
            k0, k1 = ("floor((extract(epoch FROM (SELECT %s(rt) FROM base)) * 1000000 + (%d)) / %d)::bigint" % (f, d - self.offset, step)
                      for f, d in (("min", -self.size - step), ("max", step)))
            at = lambda n: "(timestamptz '1970-01-01 00:00Z' + %d * interval '1 us' + %s * interval '1 us')" % (self.offset, n)
        elif self.unit == "day":
            k0, k1 = ("floor(extract(epoch FROM (SELECT %s(rt) FROM base)) / 86400 / %d)::bigint + %d" % (f, step, d)
                      for f, d in (("min", -self.size // step - 3), ("max", 3)))
            at = lambda n: "((timestamp '1970-01-01' + %s * interval '1 day' + %d * interval '1 us') AT TIME ZONE '%s')" % (n, self.offset, self.zone)
        else:
            k0, k1 = "-3", str(12 * 60 // step)
            at = lambda n: "((timestamp '1970-01-01' + %s * interval '1 month') AT TIME ZONE '%s')" % (n, self.zone)
        if self.kind == "cumulating":
            return "SELECT %s AS ws, %s AS we FROM generate_series(%s, %s) i, generate_series(1, %d) j" % (
                at("(i * %d)" % step), at("(i * %d + j * %d)" % (step, self.slide)), k0, k1, self.size // self.slide)
        return "SELECT %s AS ws, %s AS we FROM generate_series(%s, %s) i" % (at("(i * %d)" % step), at("(i * %d + %d)" % (step, self.size)), k0, k1)

    def interval(self, r, n):
        if self.unit == "day":
            return "INTERVAL '%d' DAY" % n
        if self.unit == "month":
            return "INTERVAL '%d' YEAR" % (n // 12) if n % 12 == 0 and r.random() < 0.5 else "INTERVAL '%d' MONTH" % n
        return us_interval(r, n)

    def clause(self, r, keys):
        def i(n):
            return self.interval(r, n)
        offset = ", " + us_interval(r, self.offset) if self.offset else ""
        if self.kind == "tumbling":
            return "TUMBLING (%s%s)" % (i(self.size), offset)
        if self.kind == "sliding":
            return "%s (%s, %s%s)" % (r.choice(["SLIDING", "HOPPING"]), i(self.size), i(self.slide), offset)
        if self.kind == "cumulating":
            return "CUMULATING (%s, %s%s)" % (i(self.size), i(self.slide), offset)
        if self.kind == "session":
            return "SESSION (%s)" % i(self.size)
        return "STAGGER (PARTITION BY %s RANGE %s)" % (", ".join(keys), i(self.size))

    def table(self, r, name, time, partition):
        """FROM TABLE (…) as Flink has it."""
        def i(n):
            return self.interval(r, n)
        offset = ", " + us_interval(r, self.offset) if self.offset else ""
        table = "TABLE %s%s, DESCRIPTOR(%s)" % (name, partition, time)
        sizes = {"tumbling": i(self.size) + offset, "sliding": i(self.slide) + ", " + i(self.size) + offset,
                 "cumulating": i(self.slide) + ", " + i(self.size) + offset, "session": i(self.size)}[self.kind]
        return "TABLE(%s(%s, %s)) AS a" % ({"tumbling": "TUMBLE", "sliding": "HOP", "cumulating": "CUMULATE", "session": "SESSION"}[self.kind], table, sizes)

    def group(self, r, time):
        """GROUP BY TUMBLE(…), STEP, FLOOR."""
        sizes = [self.interval(r, n) for n in ([self.slide, self.size] if self.kind == "sliding" else [self.size])]
        ways = ["%s(a.%s, %s)" % ({"tumbling": "TUMBLE", "sliding": "HOP", "session": "SESSION"}[self.kind], time, ", ".join(sizes))]
        if self.kind == "tumbling" and self.unit == "us":
            ways += ["STEP(a.ROWTIME BY %s)" % sizes[0]] * 2
            ways += ["FLOOR(a.ROWTIME TO %s)" % word for n, word in ((SECOND, "SECOND"), (MINUTE, "MINUTE"), (HOUR, "HOUR"), (DAY, "DAY")) if n == self.size] * 2
        return r.choice(ways)


def us_interval(r, n):
    ways = [(n // size, word) for size, word in ((SECOND, "SECOND"), (MINUTE, "MINUTE"), (HOUR, "HOUR")) if n % size == 0 and abs(n // size) < 100000]
    if not ways:
        return "INTERVAL '%d microseconds'" % n
    return "INTERVAL '%d' %s" % r.choice(ways)


class Query:
    """statements make it (texts, or what gives one); read is what shows its rows; expected(state) what they must be.
    partial: while more can come, it shows only part of that; skip_open: it is not looked at then."""

    def __init__(self, number):
        self.view = self.read = "q%d" % number
        self.statements = []
        self.expected = None
        self.partial = self.skip_open = False
        self.refused = None     # the error that it must get
        self.adhoc = None       # (text that runs once, what it must give)
        self.shape = ""

    def __str__(self):
        return ";\n".join(s for s in self.statements if isinstance(s, str))


class State:
    """How far things are: watermarks of the streams, and a connection to ask the database."""

    def __init__(self, watermarks, ask):
        self.watermarks, self.ask = watermarks, ask


def earlier(t, us):
    return t and t - us * US


def stream_source(world, stream):
    columns = list(COLUMNS) + [stream.time]
    source = Source(lambda: stream.name + " a", lambda state: "SELECT seq, %s AS rt, wm, %s FROM %s_in" % (stream.time, ", ".join(columns), stream.name),
                    columns, stream.time, lambda state: earlier(state.watermarks[stream.name], stream.lateness), [stream], stream.shards == 1,
                    lambda state: state.watermarks[stream.name])
    source.table_name = stream.name
    return source


AGGREGATES = [
    "count(*)", "count(*)", "count({o})", "sum({x})", "sum({x})", "avg({x})", "min({x})", "max({x})", "min({t})", "max({t})",
    "stddev_samp(({x})::numeric)", "var_pop(({x})::numeric)", "bool_and({c})", "bool_or({c})", "every({c})", "bit_and(({x})::int)",
    "regr_count(({x})::float8, ({x})::float8)", "widest(({o})::text)", "min(({o})::text)", "corr(1, 2)",
    # from here on: not put together from parts
    "count(DISTINCT {o})", "sum(DISTINCT {x})", "avg(DISTINCT {x})", "array_agg(({o})::text ORDER BY {o} DESC)", "array_agg(DISTINCT {x})",
    "string_agg(({o})::text, ',' ORDER BY ({o})::text COLLATE \"C\")", "percentile_cont(0.5) WITHIN GROUP (ORDER BY ({x})::float8)",
    "percentile_disc(ARRAY[0.25, 0.75]) WITHIN GROUP (ORDER BY {x})", "mode() WITHIN GROUP (ORDER BY {o})",
    "rank(3) WITHIN GROUP (ORDER BY ({x})::int)", "cume_dist(3) WITHIN GROUP (ORDER BY ({x})::int)", "jsonb_agg({o} ORDER BY {o})",
    "widest_of_all(({o})::text)", "add_up(({x})::numeric, ({x})::numeric)", "range_agg(int4range(({x})::int, ({x})::int + 1))"]
COMBINABLE = AGGREGATES.index("count(DISTINCT {o})")
WRAPPED = ["{a}", "{a}", "{a}", "{a}", "coalesce(({a})::text, 'none')", "({a}) IS NULL", "CASE WHEN count(*) > 2 THEN {a} END", "NULLIF({a}, {a})",
           "row_to_json(ROW({a}, {b}))::text", "greatest(({a})::text, ({b})::text)"]


CTE = "c AS (SELECT x.k, count(*) AS w FROM dim x GROUP BY x.k)"


class Select:
    """A SELECT with places for what the two spellings say differently."""

    def __init__(self):
        self.cte = ""           # that FROM names
        self.items = []         # expressions
        self.distinct = ""
        self.source_from = "{s}"
        self.time = None        # column of the stream that @OF@ names
        self.where = []
        self.keys = []
        self.grouping = None    # GROUP BY, if it is more than the list of keys
        self.having = None
        self.tail = ""          # ORDER BY, LIMIT

    def names_bounds(self):
        """A view that names no bound of its windows gets both as columns."""
        return any("@WS@" in e or "@WE@" in e for e in self.items + [self.having or ""])

    def text(self, source, where=(), group=(), words=None, window=""):
        out = "SELECT %s%s FROM %s" % (self.distinct, ", ".join("%s AS c%d" % (e, i + 1) for i, e in enumerate(self.items)),
                                       self.source_from.replace("{s}", source))
        conditions = list(self.where) + list(where)
        if conditions:
            out += " WHERE " + " AND ".join("(%s)" % c for c in conditions)
        if window:
            out += " WINDOWED BY " + window
        groups = list(group) + ([self.grouping] if self.grouping else list(self.keys))
        if groups:
            out += " GROUP BY " + ", ".join(groups)
        if self.having:
            out += " HAVING " + self.having
        out += self.tail
        out = spell(out, words or {**OUR_WORDS, "@OF@": " FOR SYSTEM_TIME AS OF a.%s" % self.time})
        return "WITH %s %s" % (self.cte, out) if self.cte else out


OUR_WORDS = {"@WS@": "window_start", "@WE@": "window_end", "@WT@": "window_time", "@CLOSED@": "window_closed", "@HELD@": ""}
PLAIN_WORDS = {"@OF@": "", "@HELD@": " AND a.rt >= coalesce(y.valid_from, '-infinity') AND a.rt < coalesce(y.valid_to, 'infinity')"}


def plain_words(watermark, kind):
    closed = "(w.we %s %s)" % ("<" if kind == "session" else "<=", literal(watermark))
    return {**PLAIN_WORDS, "@WS@": "w.ws", "@WE@": "w.we", "@WT@": "(w.we - interval '1 ms')", "@CLOSED@": closed}


class Generator:
    def __init__(self, r, world):
        self.r, self.world, self.number = r, world, 0

    # ---- pieces

    def window(self, keyed=True):
        r = self.r
        kind = r.choice(["tumbling", "tumbling", "sliding", "sliding", "cumulating"] + (["session", "session", "stagger"] if keyed else []))
        if kind in ("session", "stagger"):
            return Window(kind, r.choice(self.world.gaps), 1, 0, "us", "UTC")
        unit = r.choice(self.world.units)
        zone = r.choice(["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]) if unit != "us" else "UTC"
        if unit == "month":
            kind = "tumbling"
            return Window(kind, *[r.choice([1, 3, 12])] * 2, 0, unit, zone)
        step = r.choice(self.world.steps if unit == "us" else [1, 1, 2, 7])
        times = r.choice([1, 2, 3, 5, 8])
        size, slide = step * times, step
        if kind == "tumbling":
            slide = size
        elif kind == "sliding" and r.random() < 0.3 and times > 2:
            slide = step * 2        # panes are shorter than the slide
        offset = 0
        if r.random() < 0.3:
            limit = size if unit == "us" else size * DAY
            offset = r.choice([limit // 2, -limit // 3 // SECOND * SECOND, step // 2 if unit == "us" else HOUR])
            offset = offset // SECOND * SECOND
        return Window(kind, size, slide, offset, unit, zone)

    def expressions(self, source, extra):
        numbers = source.words(NUMBERS) + [e for e in extra if "name" not in e]
        others = source.words(OTHERS) + [e for e in extra if "name" in e] + (["a." + source.time] if source.time else [])
        return numbers, others

    def aggregate(self, source, extra, combinable=None):
        r = self.r
        numbers, others = self.expressions(source, extra)
        kinds = AGGREGATES[:COMBINABLE] if combinable or r.random() < 0.5 else AGGREGATES
        text = r.choice(kinds).format(x=r.choice(numbers), o=r.choice(numbers + others), c=r.choice(source.words(CONDITIONS[:6]) or ["true"]),
                                      t="a." + source.time if source.time else r.choice(numbers))
        if r.random() < 0.2:
            text += " FILTER (WHERE %s)" % r.choice(source.words(CONDITIONS[:6]) or ["true"])
        return text

    def base(self, source, select, joins=True):
        """FROM and WHERE; gives the expressions that the joins add."""
        r = self.r
        join = r.choice(JOINS) if joins and r.random() < 0.35 else JOINS[0]
        if not source.has("a.k a.arr" if "arr" in join[0] else "a.k") or "@OF@" in join[0] and not source.time:
            join = JOINS[0]
        select.time = source.time
        select.source_from = join[0]
        select.cte = CTE if " c y " in join[0] else ""
        select.where = list(join[2:])
        for _ in range(r.choice([0, 0, 1, 1, 2])):
            conditions = source.words(CONDITIONS)
            if conditions:
                select.where.append(r.choice(conditions))
        return join[1]

    def aggregated(self, source, select, extra, keyed=False, windowed=True, combinable=None, sets=True):
        """Select list, GROUP BY, HAVING, ORDER BY of a SELECT that groups."""
        r = self.r
        keys = r.sample(source.words(KEYS), min(len(source.words(KEYS)), r.choice([0, 1, 1, 1, 2])))
        if not keyed and extra and r.random() < 0.3:
            keys.append(r.choice(extra))
        select.keys = list(keys)
        shown = [k for k in keys if r.random() < 0.8]
        aggs = [self.aggregate(source, extra, combinable) for _ in range(r.choice([1, 1, 2, 3]))]
        for i, a in enumerate(aggs):
            aggs[i] = r.choice(WRAPPED).format(a=a, b=r.choice(aggs[:i] or [a])) if r.random() < 0.4 else a
        select.items = shown + aggs
        if windowed:
            self.words(select)
        grouped_by_sets = False
        if sets and not keyed and keys and r.random() < 0.25 and len(keys) < 3:
            grouped_by_sets = True
            all_keys = ", ".join(keys)
            select.grouping = r.choice(["ROLLUP (%s)" % all_keys, "CUBE (%s)" % all_keys, "GROUPING SETS ((%s), ())" % all_keys,
                                        "GROUPING SETS (%s, (%s))" % (", ".join("(%s)" % k for k in keys), all_keys)])
            if r.random() < 0.5:
                select.items.append("grouping(%s)" % all_keys)
        if r.random() < 0.2:
            select.having = r.choice(["count(*) > 1", "count(*) % 2 = 1", "min(a.id) > 20" if source.has("a.id") else "count(*) > 0"] + (["@WE@ > @WS@ + interval '1 us'"] if windowed else []))
        if windowed and r.random() < 0.15 and all(k in shown for k in keys):
            select.items.append(r.choice(["rank() OVER (ORDER BY count(*))", "sum(count(*)) OVER ()", "dense_rank() OVER (ORDER BY min(%s) DESC NULLS LAST)" % r.choice(source.words(["a.v", "a.k"])),
                                          "count(*) OVER (PARTITION BY count(*))"] + (["row_number() OVER (ORDER BY %s)" % ", ".join(keys)] if keys and not grouped_by_sets else [])))
        self.tail(select, windowed, True)
        return select

    def words(self, select):
        for _ in range(self.r.choice([0, 0, 1, 2])):
            select.items.insert(self.r.randrange(len(select.items) + 1), self.r.choice(["@WS@", "@WE@", "@WT@", "@CLOSED@", "@WE@ - @WS@", "extract(hour FROM @WS@)"]))

    def tail(self, select, windowed, aggregated):
        r = self.r
        over = any(" OVER " in e for e in select.items)
        if r.random() < 0.12:
            select.distinct = "DISTINCT "
        if r.random() > (0.25 if windowed else 0.08):
            return
        order = list(range(1, len(select.items) + 1))
        r.shuffle(order)
        by = ", ".join(str(i) if select.distinct or r.random() < 0.5 else "c%d" % i for i in order)
        by = ", ".join(e + r.choice(["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]) for e in by.split(", "))
        if not aggregated and not over and not select.distinct and r.random() < 0.3:
            select.distinct = "DISTINCT ON (c%d) " % order[0]
            select.tail = " ORDER BY " + re.sub(r"^c?\d+", "c%d" % order[0], by)
            return
        if r.random() < 0.25 and not select.distinct:
            select.tail = " ORDER BY c%d FETCH FIRST %d ROWS WITH TIES" % (order[0], r.choice([1, 2, 3]))
        else:
            select.tail = " ORDER BY %s LIMIT %d%s" % (by, r.choice([1, 2, 3]), r.choice(["", "", " OFFSET 1"]))

    def rows(self, source, select, extra, windowed=True):
        r = self.r
        numbers, others = self.expressions(source, extra)
        select.items = ["a.id"] * source.has("a.id") + r.sample(numbers + others, r.choice([1, 2, 3]))
        if windowed:
            self.words(select)
            if r.random() < 0.3:
                select.items.append(r.choice(["count(*) OVER ()", "rank() OVER (PARTITION BY a.k ORDER BY a.v)", "sum(a.v) OVER (PARTITION BY a.k ORDER BY a.id)",
                                              "first_value(a.id) OVER (ORDER BY a.id)", "lag(a.id) OVER (ORDER BY a.id DESC)"] if source.has("a.id a.k a.v") and not extra else ["count(*) OVER ()"]))
            self.tail(select, True, False)
        elif r.random() < 0.1:
            select.distinct = "DISTINCT "

    # ---- queries

    def windowed_sql(self, source, select, window, prefix, closed_only, shards_keys, corrected=False):
        """SQL of what the windows hold; closed_only: without the open ones; corrected: those that are closed may change."""
        def sql(state):
            closed_upto = (source.corrected if corrected else source.watermark)(state)
            words = plain_words(closed_upto, window.kind)
            watermark = literal(closed_upto)
            where = " AND ".join("(%s)" % c for c in select.where) or "true"
            from_ = spell(select.source_from.replace("{s}", "base a"), words)
            base = "WITH base AS MATERIALIZED (%s)" % source.plain(state) + (", " + select.cte if select.cte else "")
            if window.keyed():
                win = self.place(base, from_, where, window, shards_keys, state)
            else:
                win = "SELECT ROW(ws, we)::text AS wid, ws, we, id FROM base JOIN (%s) x ON rt >= ws AND rt < we AND we > wm" % window.relation()
            closed = ""
            if closed_only:
                closed = " HAVING we %s %s" % ("<" if window.kind == "session" else "<=", watermark)
            return ("%s, win AS MATERIALIZED (%s), w AS MATERIALIZED (SELECT wid, ws, we, array_agg(id) AS ids FROM win JOIN (SELECT DISTINCT a.id FROM %s WHERE %s) o USING (id) GROUP BY wid, ws, we%s) "
                    "SELECT %sx.* FROM w CROSS JOIN LATERAL (%s) x" % (
                        base, win, from_, where, closed, "w.ws AS window_start, w.we AS window_end, " if prefix else "",
                        select.text("base a", ["a.id = ANY (w.ids)"], words=words)))
        return sql

    def place(self, base, from_, where, window, keys, state):
        """Windows of sessions and staggers, computed here."""
        rows = state.ask("%s SELECT DISTINCT a.seq, a.id, a.rt, NULLIF(a.wm, '-infinity'), ROW(%s)::text FROM %s WHERE %s ORDER BY 1" % (base, ", ".join(keys), from_, where))
        us = lambda t: None if t is None else (t - EPOCH) // US
        size = window.size
        if window.kind == "session":
            taken = [(us(rt), key, id_) for _, id_, rt, wm, key in rows if us(wm) is None or us(rt) >= us(wm)]
            found = sessions(taken, size, lambda row: row[1])
        else:
            taken = [((us(rt), key, id_), us(wm)) for _, id_, rt, wm, key in rows if us(wm) is None or us(rt) + size > us(wm)]
            found = staggers(taken, size, lambda row: row[1])
        values = []
        for n, (key, start, end, members) in enumerate(found):
            wid = "%d-%d" % (start, end) if window.by_bounds else str(n)
            values += ["('%s', %s, %s, %d)" % (wid, literal(EPOCH + start * US), literal(EPOCH + end * US), m[2]) for m in members]
        if not values:
            return "SELECT ''::text AS wid, now() AS ws, now() AS we, 0 AS id WHERE false"
        return "SELECT * FROM (VALUES %s) v(wid, ws, we, id)" % ", ".join(values)

    def windowed(self, q, source, aggregated=None, inner=False):
        """A SELECT with a window: gives (text of ours, sql of the plain one, prefix, options)."""
        r = self.r
        window = self.window()
        if window.kind == "stagger" and not source.ordered:
            window = Window("tumbling", self.world.steps[0], self.world.steps[0], 0, "us", "UTC")
        select = Select()
        extra = self.base(source, select)
        if aggregated is None:
            aggregated = r.random() < 0.8
        spelling = r.choice(["ours", "ours", "ours", "table", "group"])
        if spelling == "table" and (not source.table_name or window.kind == "stagger" or "{s}" != select.source_from or not source.time):
            spelling = "ours"
        if spelling == "group" and (not aggregated or not source.time or window.kind in ("cumulating", "stagger") or window.offset):
            spelling = "ours"
        in_table_session = spelling == "table" and window.kind == "session"
        if aggregated:
            self.aggregated(source, select, extra, keyed=window.keyed() and not in_table_session)
            keys = list(select.keys)
        else:
            self.rows(source, select, extra)
            keys = []
        if window.kind == "stagger":
            keys = keys or ["a.k"]
            if aggregated:
                select.keys = list(keys)
        partition = []
        if in_table_session:
            window.by_bounds = True
            keys = partition = r.sample([k for k in ("k", "t", "b") if k in source.columns], r.choice([0, 1, 1]))
        prefix = not select.names_bounds() and not (spelling == "table" and aggregated)
        if spelling == "ours":
            saved = list(select.keys), select.grouping
            if window.kind == "stagger":
                select.keys, select.grouping = [], None
            body = self.with_window(select, source, window, keys)
            select.keys, select.grouping = saved
        elif spelling == "table":
            body = select.text(window.table(r, source.table_name, source.time, " PARTITION BY " + ", ".join(partition) if partition else ""),
                               group=r.choice([["window_start", "window_end"], ["window_end", "window_start"]]) if aggregated else ())
        else:
            body = select.text(source.ours(), group=[window.group(r, source.time)])
        q.shape += " %s/%s" % (window.kind, spelling)
        return body, select, window, prefix, window.options(), [("a." + k if in_table_session else k) for k in keys]

    def with_window(self, select, source, window, keys):
        return select.text(source.ours(), window=window.clause(self.r, keys))

    # ---- kinds of queries

    def make(self):
        """The next random query."""
        r = self.r
        q = Query(self.number)
        self.number += 1
        kinds = [(self.make_windowed, 44), (self.make_plain, 8), (self.make_endless, 9), (self.make_over, 11), (self.make_join, 10),
                 (self.make_window_join, 6), (self.make_sorted, 6), (self.make_composed, 12), (self.make_refused, 3)]
        kind = r.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
        q.shape = kind.__name__[5:]
        kind(q)
        return q

    def stream(self):
        return stream_source(self.world, self.r.choice(self.world.streams))

    def finish(self, q, body, options, sql, windowed=True, corrected=False):
        """A view, a view of closed windows, or a pump into a table; sql(bounds, closed_only) gives the plain one."""
        way = self.r.choice(["view"] * 6 + ["closed"] * windowed + ["pump"])
        if way == "pump" and corrected:
            # its table would have each correction
            way = "closed"
        q.shape += " " + way
        if way == "pump":
            # only views get the bounds by themselves
            q.expected = sql(False, True)
            q.statements.append(lambda state: "CREATE TABLE %s_t AS %s WITH NO DATA" % (q.view, q.expected(state)))
            q.statements.append("CREATE PUMP %s%s AS INSERT INTO %s_t %s" % (q.view, options, q.view, body))
            q.read = q.view + "_t"
        else:
            q.expected = sql(True, way == "closed")
            q.statements.append("CREATE CONTINUOUS VIEW %s%s AS %s%s" % (q.view, options, body, " EMIT ON WINDOW CLOSE" if way == "closed" else ""))

    def make_windowed(self, q):
        source = self.stream()
        body, select, window, prefix, options, keys = self.windowed(q, source)
        late = source.streams[0].lateness > 0
        # sessions of several keys in one row may have to wait
        q.skip_open = late and window.by_bounds
        self.finish(q, body, options, lambda bounds, closed: self.windowed_sql(source, select, window, prefix and bounds, closed, keys, True), corrected=late)
        # once over the buffer, where no row is late; days are those of UTC, sessions of functions' rows are refused
        if source.streams[0].name.endswith("_k") or select.tail or select.distinct or any(" OVER " in e or "@CLOSED@" in e for e in select.items) or \
                window.zone != "UTC" or window.keyed() and "unnest" in select.source_from:
            return
        all_rows = Source(None, lambda state: source.plain(state).replace(" wm,", " '-infinity'::timestamptz AS wm,", 1), source.columns, source.time, source.watermark, source.streams)
        q.adhoc = body, self.windowed_sql(all_rows, select, window, False, False, keys)

    def make_refused(self, q):
        """What has no final result, or none that plain SQL would give; anything else must not be refused."""
        r = self.r
        source = self.stream()
        name, time = source.table_name, source.time
        step = us_interval(r, r.choice(self.world.steps))
        text, q.refused = r.choice([
            ("SELECT count(*) FROM %s a WINDOWED BY SLIDING (INTERVAL '1' SECOND, %s)" % (name, step), "slide of a window must not be greater than its size"),
            ("SELECT count(*) FROM %s a WINDOWED BY SESSION (%s) GROUP BY ROLLUP (k)" % (name, step), "do not say for which keys"),
            ("SELECT a.k, random() FROM %s a WINDOWED BY TUMBLING (%s)" % (name, step), "volatile function"),
            ("SELECT a.id FROM %s a JOIN %s b ON a.k = b.k" % (name, name), "has no bound on time"),
            ("SELECT a.id FROM %s a FULL JOIN dim y ON y.k = a.k" % name, "side of an outer join that is filled with NULLs"),
            ("SELECT k FROM %s INTERSECT SELECT k FROM %s" % (name, name), "only be put together with UNION ALL"),
            ("SELECT count(n) FROM (SELECT rank() OVER (ORDER BY %s) AS n FROM %s) x WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)" % (time, name), "without a window are never final"),
            ("SELECT rank() OVER (ORDER BY n) FROM (SELECT count(*) AS n FROM %s WINDOWED BY TUMBLING (%s)) x" % (name, step), "several windows has no final result")])
        q.statements.append("CREATE CONTINUOUS VIEW %s AS %s" % (q.view, text))

    def plain_sql(self, source, select):
        def sql(state):
            return "WITH base AS MATERIALIZED (%s) SELECT * FROM (%s) x" % (source.plain(state), select.text("base a", words=PLAIN_WORDS))
        return sql

    def make_plain(self, q):
        source = self.stream()
        select = Select()
        self.rows(source, select, self.base(source, select), windowed=False)
        sql = self.plain_sql(source, select)
        if select.distinct:
            self.view_only(q, select, source, sql)
        else:
            self.finish(q, select.text(source.ours()), "", lambda bounds, closed: sql, windowed=False)

    def view_only(self, q, select, source, sql):
        q.statements.append("CREATE CONTINUOUS VIEW %s AS %s" % (q.view, select.text(source.ours())))
        q.expected = sql

    def make_endless(self, q, source=None):
        source = source or self.stream()
        select = Select()
        self.aggregated(source, select, self.base(source, select), windowed=False)
        self.view_only(q, select, source, self.plain_sql(source, select))

    # ---- ORDER BY ... WITHIN

    def make_sorted(self, q):
        """Rows that have left, or windows of them: what came too late for the sort is in none."""
        r = self.r
        stream = self.stream()
        within = r.choice(self.world.gaps + [0])
        # what comes later counts as long as allowed_lateness says, if that is longer
        beyond = max(within - stream.streams[0].lateness, 0)
        mark = lambda state: earlier(stream.watermark(state), beyond)
        plain = lambda state: "SELECT seq, rt, '-infinity'::timestamptz AS wm, %s FROM (%s) a WHERE rt >= wm - interval '%d us' AND rt <= %s" % (
            ", ".join(stream.columns), stream.plain(state), beyond, literal(mark(state)))
        source = Source(stream.ours, plain, stream.columns, stream.time, mark, stream.streams, stream.ordered)
        sort = " ORDER BY a.%s WITHIN %s" % (source.time, us_interval(r, within))
        select = Select()
        if r.random() < 0.5:
            self.rows(source, select, self.base(source, select), windowed=False)
            select.distinct = ""
            sql = self.plain_sql(source, select)
            return self.finish(q, select.text(source.ours()) + sort, "", lambda bounds, closed: sql, windowed=False)
        window = self.window(keyed=False)
        self.aggregated(source, select, self.base(source, select))
        select.tail = select.distinct = ""
        q.shape += " " + window.kind
        prefix = not select.names_bounds()
        self.finish(q, self.with_window(select, source, window, []) + sort, window.options(),
                    lambda bounds, closed: self.windowed_sql(source, select, window, prefix and bounds, closed, []))

    # ---- OVER

    def over(self, source, q, bounded=True):
        """(select text of ours, plain columns) of one output row per input row.
        Not bounded: windows that begin with the first row; they are computed over all rows at hand, in core's own way."""
        r = self.r
        where = [r.choice(CONDITIONS) for _ in range(r.choice([0, 0, 1]))]
        time = source.time
        items, plain = ["a.id", "a.%s" % time, "a.k", "a.v"], ["a.id", "a.%s" % time, "a.k", "a.v"]
        for n in range(r.choice([1, 1, 2, 3])):
            key = r.choice(["", "a.k", "a.t", "a.b", "a.v % 2", "a.k, a.b"])
            keys = [k for k in key.split(", ") if k]
            partition = "PARTITION BY %s " % key if key else ""
            order = r.choice(["ORDER BY a.%s " % time, "ORDER BY a.%s " % time, ""])
            x = r.choice(["a.v", "a.n", "a.f", "a.k", "a.v + 1"])
            agg = r.choice(["sum(%s)", "count(%s)", "avg(%s)", "min(%s)", "max(%s)", "array_agg(%s)", "var_pop((%s)::numeric)"]) % x
            if r.random() < 0.15:
                agg += " FILTER (WHERE a.v > 2)"
            same = " AND ".join("(%s) IS NOT DISTINCT FROM (%s)" % (k.replace("a.", "p."), k) for k in keys) or "true"
            kind = r.choice(["range", "rows"]) if bounded else "all"
            if kind == "range":
                back = r.choice(self.world.gaps + [0])
                upto = r.choice([None, None, None, back // 2])
                interval = us_interval(r, back)
                frame = "RANGE %s PRECEDING" % interval if upto is None else "RANGE BETWEEN %s PRECEDING AND %s PRECEDING" % (interval, us_interval(r, upto))
                if upto is None and r.random() < 0.3:
                    frame = "RANGE BETWEEN %s PRECEDING AND CURRENT ROW" % interval
                ours = "%s OVER (%s%s%s)" % (agg, partition, order, frame)
                ordered = agg.replace("array_agg(%s)" % x, "array_agg(%s ORDER BY a.rt, a.seq)" % x)
                plain_one = "(SELECT %s FROM base p WHERE %s AND p.rt BETWEEN a.rt - interval '%d us' AND a.rt - interval '%d us' AND (p.rt, p.seq) <= (a.rt, a.seq))" % (
                    ordered.replace("a.", "p."), same, back, upto or 0)
            else:
                full = "PARTITION BY %s ORDER BY a.rt, a.seq " % key if key else "ORDER BY a.rt, a.seq "
                if kind == "rows":
                    back = r.choice([0, 1, 2, 5, 30])
                    frame = r.choice(["ROWS %d PRECEDING" % back, "ROWS BETWEEN %d PRECEDING AND CURRENT ROW" % back, "ROWS BETWEEN %d PRECEDING AND %d PRECEDING" % (back, back // 2)])
                    call = r.choice([agg, agg, "first_value(%s)" % x, "last_value(%s)" % x, "nth_value(%s, 2)" % x])
                    ours, plain_one = "%s OVER (%s%s%s)" % (call, partition, order, frame), "%s OVER (%s%s)" % (call, full, frame)
                else:
                    order = "ORDER BY a.%s " % time
                    call = r.choice([agg, "rank()", "dense_rank()"]) + " OVER (%s%s%s)" % (
                        partition, order, r.choice(["", "RANGE UNBOUNDED PRECEDING"]))
                    ours = plain_one = call.replace("array_agg", "count")
            items.append(ours)
            plain.append(plain_one)
        if r.random() < 0.2 and len(items) == 5 and kind == "range":
            # by name
            spec = items[4].split(" OVER ", 1)
            items[4], named = spec[0] + " OVER w", " WINDOW w AS " + spec[1]
        else:
            named = ""
        columns = ["id", time, "k", "v"] + ["o%d" % i for i in range(1, len(items) - 3)]
        select = ", ".join("%s AS %s" % p for p in zip(items, columns))
        condition = " WHERE " + " AND ".join("(%s)" % c for c in where) if where else ""
        body = "SELECT %s FROM %s%s%s" % (select, source.ours(), condition, named)

        def sql(state):
            if not bounded:
                return "WITH base AS MATERIALIZED (%s) SELECT a.seq, a.rt, %s FROM base a%s" % (source.plain(state), ", ".join("%s AS %s" % p for p in zip(items, columns)), condition)
            # rows that have left
            base = "SELECT * FROM (%s) a WHERE a.rt >= a.wm AND a.rt <= %s%s" % (source.plain(state), literal(source.watermark(state)), condition.replace(" WHERE", " AND", 1))
            return "WITH base AS MATERIALIZED (%s) SELECT a.seq, a.rt, %s FROM base a" % (base, ", ".join("%s AS %s" % p for p in zip(plain, columns)))
        return body, sql, columns

    def make_over(self, q):
        source = self.stream()
        bounded = self.r.random() < 0.85
        body, sql, columns = self.over(source, q, bounded)
        only = ", ".join(columns)
        shown = lambda state: "SELECT %s FROM (%s) o" % (only, sql(state))
        if not bounded:
            q.shape += " all"
            q.statements.append("CREATE CONTINUOUS VIEW %s AS %s" % (q.view, body))
            q.expected = shown
            return
        if self.r.random() < 0.2:
            condition = self.r.choice(["v > 3", "o1 IS NOT NULL", "id % 2 = 0"])
            body = "SELECT %s FROM (%s) x WHERE %s" % (only, body, condition)
            inner = shown
            shown = lambda state: "SELECT * FROM (%s) o WHERE %s" % (inner(state), condition)
        self.finish(q, body, "", lambda bounds, closed: shown, windowed=False)

    # ---- joins of streams

    def join(self, q):
        """Two or three streams: (FROM of ours, plain FROM, WHERE, condition of emission, outer?, names and sources)."""
        r = self.r
        three = r.random() < 0.2
        sources = [self.stream() for _ in range(3 if three else 2)]
        names = ["a", "b", "c"][:len(sources)]
        kind = "JOIN" if three and r.random() < 0.6 else r.choice(["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT JOIN"])
        ours, conditions = sources[0].table_name + " a", []
        plain = "(@0@) a"
        for i in range(1, len(sources)):
            lo, hi = r.choice(self.world.gaps + [0]), r.choice(self.world.gaps + [0])
            left, right = "a.%s" % sources[0].time, "%s.%s" % (names[i], sources[i].time)
            n = names[i]
            bound = r.choice([
                "%s BETWEEN %s - INTERVAL '%d us' AND %s + INTERVAL '%d us'" % (right, left, lo, left, hi),
                "%s >= %s - INTERVAL '%d us' AND %s <= %s + INTERVAL '%d us'" % (right, left, lo, right, left, hi),
                "%s <= %s + INTERVAL '%d us' AND %s > %s - INTERVAL '%d us'" % (left, right, lo, left, right, hi),
                "%s = %s" % (left, right)])
            key = r.choice(["a.k = %s.k" % n] * 4 + ["a.t = %s.t AND a.b = %s.b" % (n, n), "a.k = %s.v %% 5" % n, "a.k < %s.k" % n, "a.id %% 4 = %s.id %% 4" % n])
            extra = r.choice(["", "", " AND a.v > 2", " AND %s.n > 10" % n, " AND a.id <> %s.id" % n])
            on = "%s AND %s%s" % (key, bound, extra)
            step = kind if i == 1 or kind == "JOIN" else r.choice(["JOIN", "LEFT JOIN"]) if kind in ("JOIN", "LEFT JOIN") else "LEFT JOIN"
            ours += " %s %s %s ON %s" % (step, sources[i].table_name, n, on)
            plain += " %s (@%d@) %s ON %s" % (step, i, n, on)
            q.shape += " " + step
        where = ""
        if r.random() < 0.25:
            where = " WHERE " + r.choice(["a.v > 1", "b.k <> 2", "a.n > b.n", "a.id IS NOT NULL", "b.id IS NULL OR a.b"])
        if not three and r.random() < 0.15:
            ours, plain = ours + " LEFT JOIN dimu z ON z.k = a.k", plain + " LEFT JOIN dimu z ON z.k = a.k"
        outer = "LEFT" in q.shape or "RIGHT" in q.shape or "FULL" in q.shape

        def from_(state):
            text = plain
            if kind == "FULL JOIN":
                # core has no FULL JOIN with other conditions than equality
                rest = text.split(" ON ", 1)[1].split(" LEFT JOIN ", 1)
                on, rest = rest[0], " LEFT JOIN " + rest[1] if len(rest) > 1 else ""
                text = ("(SELECT a.id AS a_id, b.id AS b_id FROM (@0@) a LEFT JOIN (@1@) b ON %s UNION ALL SELECT NULL, b.id FROM (@1@) b WHERE NOT EXISTS (SELECT FROM (@0@) a WHERE %s)) u "
                        "LEFT JOIN (@0@) a ON a.id = u.a_id LEFT JOIN (@1@) b ON b.id = u.b_id%s" % (on, on, rest))
            return fill(text, ["SELECT * FROM (%s) x WHERE rt >= wm" % s.plain(state) for s in sources])
        return ours, from_, where, outer, names, sources

    def watermark_of(self, sources):
        def watermark(state):
            marks = [s.watermark(state) for s in sources]
            return None if None in marks else min(marks)
        return watermark

    def make_join(self, q):
        r = self.r
        ours, from_, where, outer, names, sources = self.join(q)
        q.partial = outer
        items = ["%s.id AS %s_id" % (n, n) for n in names] + ["%s AS x%d" % (e, i) for i, e in enumerate(
            r.sample(["a.t", "b.n", "a.v + b.v", "b.%s - a.%s" % (sources[1].time, sources[0].time), "coalesce(a.k, b.k)", "a.b", "b.d"], 2))]
        if r.random() < 0.6:
            select = "SELECT %s FROM @FROM@%s" % (", ".join(items), where)
            sql = lambda state: select.replace("@FROM@", from_(state))
            self.finish(q, select.replace("@FROM@", ours), "", lambda bounds, closed: sql, windowed=False)
            return
        times = ", ".join("%s.rt" % n for n in names)
        columns = ["id", "k", "v", "t"]

        def plain(state):
            return ("SELECT j.*, row_number() OVER () AS seq, row_number() OVER () AS id, '-infinity'::timestamptz AS wm FROM "
                    "(SELECT greatest(%s) AS rt, a.k, b.v, a.t, b.f FROM %s%s) j" % (times, from_(state), where))
        source = Source(lambda: ours, plain, ["k", "v", "t", "f"], None, self.watermark_of(sources), [s for x in sources for s in x.streams])
        window = self.window(keyed=False)
        aggs = r.sample(["count(*)", "sum(b.v)", "max(a.t)", "count(DISTINCT b.v)", "sum(b.f)", "array_agg(b.v ORDER BY b.v)"], 2)
        key = r.choice(["", "a.k"])
        text = "SELECT %s%s FROM %s%s WINDOWED BY %s%s" % (key + ", " if key else "", ", ".join("%s AS c%d" % p[::-1] for p in enumerate(aggs)),
                                                          ours, where, window.clause(r, []), " GROUP BY " + key if key else "")
        select = Select()
        select.items = ([key] if key else []) + [a.replace("b.", "a.") for a in aggs]
        select.keys = [key] if key else []
        q.shape += " windowed"
        q.statements.append("CREATE CONTINUOUS VIEW %s%s AS %s" % (q.view, window.options(), text))
        q.expected = self.windowed_sql(source, select, window, True, False, [])
        q.skip_open = outer

    def make_window_join(self, q):
        """Rows of the same window: for each of the windows, the join of what each side has in it."""
        r = self.r
        three = r.random() < 0.2
        sources = [self.stream() for _ in range(3 if three else 2)]
        names = ["a", "b", "c"][:len(sources)]
        window = self.window(keyed=False)
        from_ = "@0@ a"
        for i, n in enumerate(names[1:], 1):
            key = r.choice(["a.k = %s.k" % n] * 3 + ["a.t = %s.t AND a.b = %s.b" % (n, n), "a.id %% 4 = %s.id %% 4" % n])
            extra = r.choice(["", "", " AND a.v > 2", " AND a.id <> %s.id" % n])
            kind = r.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN" if not extra else "LEFT JOIN"])
            from_ += " %s @%d@ %s ON %s%s" % (kind, i, n, key, extra)
            q.shape += " " + kind
        if r.random() < 0.2:
            from_ += " LEFT JOIN dimu z ON z.k = a.k"
        where = r.choice(["", "", " WHERE a.v > 1 OR b.v IS NULL", " WHERE b.id IS NOT NULL"])
        group = ""
        if r.random() < 0.5:
            items = ["%s.id AS %s_id" % (n, n) for n in names] + r.sample(["a.t", "a.v + b.v AS x", "coalesce(a.k, b.k) AS y", "b.n"], 2)
        else:
            key = r.choice(["a.k", "b.t", "a.b"])
            items = [key] + r.sample(["count(*) AS n", "count(DISTINCT b.v) AS d", "sum(a.n) AS s", "max(b.t) AS m", "count(b.id) AS bs"], 2)
            group = " GROUP BY " + key
        text = "SELECT %s FROM %s%s" % (", ".join(items), from_, where)
        q.shape += " " + window.kind

        def sql(bounds, closed):
            def expected(state):
                with_ = ", ".join("base_%s AS MATERIALIZED (%s)" % (n, s.plain(state)) for n, s in zip(names, sources))
                with_ += ", base AS MATERIALIZED (%s)" % " UNION ALL ".join("SELECT rt FROM base_%s" % n for n in names)
                each = ["(SELECT * FROM base_%s WHERE rt >= x.ws AND rt < x.we AND x.we > wm)" % n for n in names]
                condition = " WHERE x.we <= %s" % literal(self.watermark_of(sources)(state)) if closed else ""
                return "WITH %s SELECT %so.* FROM (%s) x CROSS JOIN LATERAL (%s%s) o%s" % (
                    with_, "x.ws AS window_start, x.we AS window_end, " if bounds else "", window.relation(), fill(text, each), group, condition)
            return expected
        self.finish(q, fill(text, [s.table_name for s in sources]) + " WINDOWED BY " + window.clause(r, []) + group, window.options(), sql)

    # ---- queries over queries

    def closed_windows(self, q):
        """SELECT with a window whose rows go on, and their Source."""
        r = self.r
        base = self.stream()
        select = Select()
        self.base(base, select, joins=False)
        window = self.window()
        if window.kind == "stagger":
            window = Window("tumbling", self.world.steps[0], self.world.steps[0], 0, "us", "UTC")
        select.keys = r.choice([["a.k"], ["a.k", "a.t"], ["a.k", "a.b"]])
        select.items = ["a.k", r.choice(["count(*)", "sum(a.v)", "count(DISTINCT a.v)"]), "sum(a.n)", "max(a.t)", "bool_or(a.b)"]
        columns = ["k", "v", "n", "t", "b"]
        sql = self.windowed_sql(base, select, window, True, True, select.keys)
        text = self.with_window(select, base, window, []).replace("SELECT ", "SELECT window_start, window_end, ", 1)
        for i, c in enumerate(columns):
            text = text.replace("AS c%d" % (i + 1), "AS " + c, 1)
        names = ", ".join("c%d AS %s" % (i + 1, c) for i, c in enumerate(columns))

        def plain(state):
            return ("SELECT row_number() OVER (ORDER BY window_end) AS seq, row_number() OVER () AS id, window_end - interval '1 us' AS rt, '-infinity'::timestamptz AS wm, "
                    "window_start, window_end, %s FROM (%s) x" % (names, sql(state)))
        lag = US if window.kind == "session" else 0 * US
        mark = lambda state: base.watermark(state) and base.watermark(state) - lag
        source = Source(None, plain, columns, None, mark, base.streams, ordered=False)
        return text, window.options(), source

    def make_composed(self, q):
        r = self.r
        kind = r.choice(["view", "view", "subquery", "union", "union", "pump", "over", "two_levels", "top", "rows"])
        q.shape += " " + kind
        if kind in ("view", "subquery", "two_levels", "top"):
            text, options, source = self.closed_windows(q)
            if kind == "view":
                q.statements.append("CREATE CONTINUOUS VIEW %s_in%s AS %s" % (q.view, options, text))
                source.ours = lambda: "%s_in a" % q.view
            else:
                source.ours = lambda: "(%s) a" % text
            if kind == "two_levels" or kind == "top":
                # one window at a time
                if kind == "two_levels":
                    outer = "SELECT window_start, window_end, count(*) AS c1, max(v) AS c2, sum(n) AS c3 FROM %s GROUP BY window_start, window_end"
                else:
                    outer = "SELECT * FROM (SELECT window_start, window_end, k, v, row_number() OVER (PARTITION BY window_start, window_end ORDER BY v DESC NULLS LAST, k, n, t, b) AS rn FROM %s) y WHERE rn <= 2"
                q.statements.append("CREATE CONTINUOUS VIEW %s%s AS %s" % (q.view, options, outer % source.ours()))
                q.expected = lambda state: outer % ("(%s) a" % source.plain(state))
                q.skip_open = True
                return
            if r.random() < 0.3:
                return self.make_endless_over(q, source, options)
            return self.windowed_over(q, source, options)
        if kind == "union":
            branches = [self.stream() for _ in range(r.choice([2, 2, 3]))]
            conditions = [r.choice(CONDITIONS) for _ in branches]
            columns = ["id", "k", "v", "n", "t", "b"]
            names = ", ".join(columns)
            text = " UNION ALL ".join("SELECT %s FROM %s a WHERE %s" % (", ".join("a." + c for c in columns), s.table_name, c) for s, c in zip(branches, conditions))

            def plain(state):
                each = " UNION ALL ".join("SELECT a.rt, a.wm, a.id AS was, %s FROM (%s) a WHERE %s" % (", ".join("a." + c for c in columns if c != "id"), s.plain(state), c) for s, c in zip(branches, conditions))
                return "SELECT row_number() OVER () AS seq, row_number() OVER () AS id, u.* FROM (%s) u" % each
            if r.random() < 0.3:
                q.statements.append("CREATE CONTINUOUS VIEW %s AS %s" % (q.view, text))
                q.expected = lambda state: "SELECT was AS id, %s FROM (%s) x" % (names.replace("id, ", ""), plain(state))
                return
            source = Source(lambda: "(%s) a" % text, plain, [c for c in columns if c != "id"], None, self.watermark_of(branches), [s for b in branches for s in b.streams], ordered=False)
            return self.make_endless(q, source) if r.random() < 0.3 else self.windowed_over(q, source, "")
        if kind in ("pump", "rows"):
            base = self.stream()
            condition = r.choice(CONDITIONS)
            columns = ["id", "k", "v", "n", "t", "b"]
            types = ", ".join("%s %s" % (c, COLUMNS[c]) for c in columns)
            row = "SELECT %s FROM %s WHERE %s" % (", ".join("a." + c for c in columns), base.ours(), condition)
            if kind == "pump":
                q.statements.append("CREATE STREAM %s_in (%s) OPTIONS (idle_timeout 'never')" % (q.view, types))
                q.statements.append("CREATE PUMP %s_p AS INSERT INTO %s_in %s" % (q.view, q.view, row))
                ours = lambda: "%s_in a" % q.view
            else:
                ours = lambda: "(%s) a" % row
            plain = lambda state: "SELECT a.* FROM (%s) a WHERE %s" % (base.plain(state), condition)
            mark = base.watermark
            if kind == "pump":
                # that stream has no allowed_lateness
                plain = lambda state: "SELECT a.* FROM (%s) a WHERE %s" % (
                    base.plain(state).replace(" wm,", " wm + interval '%d us' AS wm," % base.streams[0].lateness, 1), condition)
                mark = base.corrected
            source = Source(ours, plain, columns, None, mark, base.streams, base.ordered, mark if kind == "pump" else base.corrected)
            return self.windowed_over(q, source, "", corrected=True)
        base = self.stream()
        body, sql, columns = self.over(base, q)
        plain = lambda state: "SELECT '-infinity'::timestamptz AS wm, o.* FROM (%s) o" % sql(state)
        source = Source(lambda: "(%s) a" % body, plain, ["id", "k", "v"], None, base.watermark, base.streams, ordered=False)
        return self.windowed_over(q, source, "")

    def windowed_over(self, q, source, options, corrected=False):
        while True:
            number = len(q.shape)
            body, select, window, prefix, mine, keys = self.windowed(q, source)
            if not mine or not options or mine == options:
                break
            q.shape = q.shape[:number]
        q.statements.append("CREATE CONTINUOUS VIEW %s%s AS %s" % (q.view, mine or options, body))
        q.expected = self.windowed_sql(source, select, window, prefix, False, keys, corrected)

    def make_endless_over(self, q, source, options):
        select = Select()
        self.aggregated(source, select, self.base(source, select), windowed=False)
        q.statements.append("CREATE CONTINUOUS VIEW %s%s AS %s" % (q.view, options, select.text(source.ours())))
        q.expected = self.plain_sql(source, select)
