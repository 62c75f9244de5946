"""Joins of streams by time: the same text gives the same over tables that hold the same rows, for any data, any cut, any restart and any number of processes."""
import json
import random
from datetime import datetime, timedelta, timezone

import psycopg2.extras
import pytest
from harness import LONG, wait_until

SETTINGS = ["kda_stream.batch_records = 29", "kda_stream.max_workers = 8"]

SETUP = """
DROP SCHEMA IF EXISTS plain CASCADE;
DROP TABLE IF EXISTS t, u;
CREATE TABLE t (k int, name text);
INSERT INTO t VALUES (0, 'zero'), (1, 'one'), (2, 'two'), (2, 'deux'), (7, 'none');
CREATE TABLE u (name text, z bigint);
INSERT INTO u VALUES ('one', 1), ('two', 2), ('deux', 2), (NULL, 3);
CREATE SCHEMA plain;
CREATE TABLE plain.a (rowtime timestamptz, k int, v int);
CREATE TABLE plain.b (rowtime timestamptz, k bigint, w int);
CREATE TABLE plain.c (at timestamptz, k int, z bigint);
"""

# the windows of rows, as plain SQL says them
WINDOWS = {
    "tumble": ("TABLE(TUMBLE(TABLE %s, DESCRIPTOR(%s), INTERVAL '1' MINUTE))", "kda.hop_windows(%s, '1 min', '1 min')", "TUMBLING (INTERVAL '1' MINUTE)"),
    "hop": ("TABLE(HOP(TABLE %s, DESCRIPTOR(%s), INTERVAL '1' MINUTE, INTERVAL '3' MINUTES))", "kda.hop_windows(%s, '3 min', '1 min')", "SLIDING (INTERVAL '3' MINUTE, INTERVAL '1' MINUTE)"),
    "cumulate": ("TABLE(CUMULATE(TABLE %s, DESCRIPTOR(%s), INTERVAL '1' MINUTE, INTERVAL '3' MINUTES))", "kda.cumulate_windows(%s, '3 min', '1 min')", "CUMULATING (INTERVAL '3' MINUTE, INTERVAL '1' MINUTE)"),
    "session": ("TABLE(SESSION(TABLE %s PARTITION BY k, DESCRIPTOR(%s), INTERVAL '10' SECONDS))", None, "SESSION (INTERVAL '10' SECOND)"),
}
TIME = {"a": "rowtime", "b": "rowtime", "c": "at"}
VALUE = {"a": "v", "b": "w", "c": "z"}


def plain_windows(table, kind):
    """Rows with window_start, window_end."""
    if WINDOWS[kind][1]:
        return "(SELECT x.*, g.window_start, g.window_end FROM plain.%s x, %s g)" % (table, WINDOWS[kind][1] % ("x." + TIME[table]))
    time = TIME[table]
    return """(SELECT {columns}, min({time}) OVER (PARTITION BY k, s) AS window_start, max({time}) OVER (PARTITION BY k, s) + interval '10 s' AS window_end FROM
        (SELECT *, sum(begins) OVER (PARTITION BY k ORDER BY {time}) AS s FROM
            (SELECT *, CASE WHEN {time} - lag({time}) OVER (PARTITION BY k ORDER BY {time}) <= interval '10 s' THEN 0 ELSE 1 END AS begins FROM plain.{table}) x) x)""".format(
        columns="%s, k, %s" % (time, VALUE[table]), time=time, table=table)


def by_time(r):
    """Joins of streams, with tables anywhere."""
    bound = "b.rowtime BETWEEN a.rowtime - INTERVAL '%d' SECOND AND a.rowtime + INTERVAL '%d' SECOND" % (r.choice([0, 5, 40]), r.choice([0, 5, 40]))
    outer = r.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN"])
    other = r.choice(["JOIN", "LEFT JOIN"])
    any_ = r.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
    return r.choice([
        # merged columns
        "SELECT * FROM a %s b USING (k, rowtime)" % any_,
        "SELECT * FROM a NATURAL %s b" % any_,
        "SELECT k, v, w, a.k AS ak, b.k AS bk FROM a %s b USING (rowtime, k) WHERE k IS DISTINCT FROM 1 ORDER BY k" % any_,
        "SELECT k + 1 AS k1, v, w FROM a JOIN b USING (k) WHERE " + bound,
        "SELECT x.k, x.rowtime, v, w FROM a JOIN b USING (k, rowtime) AS x",
        "SELECT j.k, v, w FROM (a %s b USING (k, rowtime)) AS j WHERE j.k > 0" % any_,
        "SELECT k, v, w, z FROM a JOIN b USING (k) JOIN c USING (k) WHERE %s AND at BETWEEN a.rowtime - INTERVAL '20' SECOND AND a.rowtime" % bound,
        "SELECT b.k, rowtime, v, w, z FROM (a %s b USING (k, rowtime)) LEFT JOIN c ON c.k = b.k AND c.at = b.rowtime" % any_,
        "SELECT k, v, w, name FROM (a %s b USING (k, rowtime)) %s t USING (k)" % (any_, other),
        # tables before, between, inside
        "SELECT a.v, b.w, t.name FROM t JOIN a ON t.k = a.k %s b ON a.k = b.k AND %s" % (other, bound),
        "SELECT a.v, b.w, t.name, u.z FROM a %s t ON t.k = a.k %s b ON a.k = b.k AND %s LEFT JOIN u ON u.name = t.name" % (other, outer, bound),
        "SELECT a.v, b.w, name, z FROM t JOIN u USING (name) JOIN a USING (k) JOIN b ON b.k = a.k AND %s" % bound,
        "SELECT a.v, b.w, t.name FROM t, u, a, b WHERE t.k = a.k AND u.name = t.name AND b.k = u.z AND " + bound,
        "SELECT a.v, b.w, t.name FROM a, t, b WHERE t.k = a.k AND b.k = t.k AND " + bound,
        "SELECT a.v, b.w, name FROM a %s (b %s t ON t.k = b.k) ON a.k = b.k AND %s AND coalesce(name, '') <> 'one'" % (outer, other, bound),
        "SELECT a.v, b.w, c.z, t.name, s.name AS sname FROM a JOIN t ON a.k = t.k JOIN b ON a.k = b.k AND %s JOIN t s ON s.k = b.k AND s.name <> t.name %s c ON c.k = s.k AND c.at = b.rowtime" % (bound, outer),
        "SELECT a.v, b.w, l.x FROM a CROSS JOIN LATERAL (SELECT name || a.v AS x FROM t WHERE t.k = a.k) l JOIN b ON b.k = a.k AND length(l.x) > 4 AND " + bound,
        "SELECT k, count(*) AS n, sum(w) AS s FROM t JOIN a USING (k) %s b USING (k, rowtime) GROUP BY k" % other,
        "WITH x AS (SELECT * FROM t WHERE k > 0) SELECT v, w, name FROM x JOIN a USING (k) %s b USING (k, rowtime)" % other,
        "SELECT a.v, b.w, j.z, j.n2 FROM a JOIN (t JOIN u USING (name)) AS j (n2) ON j.k = a.k %s b ON b.k = j.z AND %s" % (other, bound),
        "SELECT j.k, j.name, count(*) AS n FROM (a JOIN t USING (k)) AS j GROUP BY j.k, j.name",
        "SELECT a.v, b.w, x FROM a CROSS JOIN generate_series(0, a.v %% 2) x %s b ON b.k = x AND %s" % (outer, bound),
        "SELECT a.v, b.w FROM t RIGHT JOIN a USING (k) FULL JOIN (u RIGHT JOIN b ON u.z = b.k) ON a.k = b.k AND a.rowtime = b.rowtime AND t.name = u.name",
        # joins over joins
        "SELECT s.*, z FROM (SELECT k, rowtime, v, w FROM a %s b USING (k, rowtime)) s %s c ON c.k = s.k AND at BETWEEN s.rowtime - INTERVAL '9' SECOND AND s.rowtime" % (any_, outer),
        "SELECT s.k, s.rowtime, z FROM (SELECT b.k, a.rowtime FROM t JOIN a USING (k) %s b ON a.k = b.k AND %s) s %s c ON c.k = s.k AND at BETWEEN s.rowtime AND s.rowtime + INTERVAL '9' SECOND" % (other, bound, any_),
        "SELECT k, rowtime, v, w, z FROM a %s b USING (k, rowtime) %s (SELECT at AS rowtime, k, z FROM c) c USING (k, rowtime)" % (any_, r.choice(["FULL JOIN", any_])),
        "SELECT a.v, b.w, z FROM a LEFT JOIN b ON a.k = b.k AND %s JOIN c ON c.k = a.k AND at BETWEEN a.rowtime AND GREATEST(a.rowtime, b.rowtime)" % bound,
        # stars and whole rows
        "SELECT * FROM (SELECT * FROM a x (r1, k1, v) %s b y (r2, k2, w) ON k1 = k2 AND r2 BETWEEN r1 AND r1 + INTERVAL '5' SECOND) s" % outer,
        "SELECT s::text AS row, ROW(s.*, 1)::text AS more FROM (SELECT b.*, v FROM a %s b USING (k, rowtime)) s" % any_,
        "SELECT a::text AS row, b IS NULL AS alone, ROW(b.*)::text AS fields FROM a LEFT JOIN b ON a.k = b.k AND b IS NOT NULL AND to_jsonb(a) ->> 'v' <> '7' AND %s" % bound,
        # a column rowtime that is not the time of the row
        "SELECT s.k, s.rowtime, max(s.rowtime) OVER (PARTITION BY k) AS m FROM (SELECT a.k, a.rowtime - INTERVAL '3' SECOND AS rowtime FROM a JOIN b ON a.k = b.k AND %s) s" % bound,
        # WHERE does not reach below the side that is filled with NULLs
        "SELECT c.z, a.v, b.w FROM c LEFT JOIN (a JOIN b ON a.k = b.k AND %s) ON c.k = a.k AND c.at = a.rowtime WHERE a.v IS NULL OR a.v > 50" % bound,
    ]), {}


def windowed(r):
    """A window over joined rows, whose time is the later of the two; with tables before them."""
    first = r.choice(["", "t JOIN ", "t RIGHT JOIN "])
    key = "name, k" if first else "k"
    rows = "FROM %s a USING (k) JOIN b USING (k)" % first if first else "FROM a JOIN b USING (k)"
    bound = "b.rowtime BETWEEN a.rowtime - INTERVAL '%d' SECOND AND a.rowtime + INTERVAL '%d' SECOND" % (r.choice([0, 5, 40]), r.choice([0, 5, 40]))
    kind = r.choice(["tumble", "hop", "cumulate"])
    select = "SELECT window_start, window_end, %s, count(*) AS n, sum(w) AS s, max(a.rowtime) AS m " % key
    return select + "%s WHERE %s WINDOWED BY %s GROUP BY %s" % (rows, bound, WINDOWS[kind][2], key), {
        "plain": select + "%s, %s WHERE %s GROUP BY window_start, window_end, %s" % (rows, WINDOWS[kind][1] % "greatest(a.rowtime, b.rowtime)", bound, key)}


def by_bounds(r):
    """Rows of windows, joined by bounds of these: subqueries, Flink's tables, and views."""
    x, y = r.sample("abc", 2)
    kinds = r.choice([("session", "session")] * 3 + [(r.choice(["tumble", "hop", "cumulate"]), r.choice(["tumble", "hop", "cumulate"]))] * 4)
    outer = r.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
    on = ["l.k = r.k AND l.window_start = r.window_start AND l.window_end = r.window_end"]
    if kinds[0] != kinds[1]:
        on += ["l.k = r.k AND l.window_end = r.window_end", "l.k = r.k AND l.window_start = r.window_start"]
    form = r.choice(["rows", "groups", "views", "views"])
    if form == "views":
        on += ["l.k = r.k AND l.window_end = r.window_end"] + (["l.k = r.k AND l.window_start = r.window_start"] if "session" not in kinds else [])
    on = r.choice(on)
    columns = "l.k AS lk, r.k AS rk, l.window_start, r.window_end, l.n AS ln, r.n AS rn"
    sides = {}
    for name, table, kind in (("L", x, kinds[0]), ("R", y, kinds[1])):
        ours, plain = WINDOWS[kind][0] % (table, TIME[table]), plain_windows(table, kind)
        value = VALUE[table]
        # a key that is not shown
        key = "k, mod(%s, 2)" % value if kind != "session" and r.random() < 0.3 else "k"
        if form == "rows":
            rows = "(SELECT k, %s AS n, window_start, window_end FROM %%s q)" % value
        else:
            rows = "(SELECT k, count(*) + sum(%s) AS n, window_start, window_end FROM %%s q GROUP BY %s, window_start, window_end)" % (value, key)
        sides[name] = ((rows % ours).replace(" q)", ")").replace(" q GROUP", " GROUP"), rows % plain,
                       "SELECT k, count(*) + sum(%s) AS n, window_start, window_end FROM %s WINDOWED BY %s GROUP BY %s" % (value, table, WINDOWS[kind][2], key))
    return "SELECT %s FROM {L} l %s {R} r ON %s" % (columns, outer, on), {"sides": sides, "views": form == "views"}


def make_rows(r, count):
    """By stream: rows whose time goes back by less than the delay."""
    rows = {"a": [], "b": [], "c": []}
    now = 0
    for _ in range(count):
        now += r.choice([0, 0, 1, 2, 5, 15])
        table = r.choice("abc")
        rows[table].append((now - r.choice([0, 0, 1, 7, 29]), r.choice([None, 0, 1, 1, 2, 2, 3]), r.randrange(100)))
    return rows


class Source:
    """Where the rows of a, b and c come from: INSERT, or a broker whose partitions several processes share."""

    def __init__(self, server, r, kafka=None, name=None, parallelism=1):
        self.server, self.r, self.kafka, self.name = server, r, kafka, name
        for table, columns in (("a", "rowtime timestamptz, k int, v int"), ("b", "rowtime timestamptz, k bigint, w int"), ("c", "at timestamptz, k int, z bigint")):
            options = "rowtime '%s', watermark '30 s', idle_timeout 'never'" % TIME[table]
            where = ""
            if kafka:
                kafka.create_topic(self.topic(table), 3)
                where = " SERVER msk"
                options += ", topic '%s', start 'earliest', max_ahead 'never', parallelism '%d'" % (self.topic(table), parallelism)
            server.sql("SELECT kda.execute(%s)", "CREATE STREAM %s (%s)%s OPTIONS (%s)" % (table, columns, where, options))

    def topic(self, table):
        return "%s_%s" % (self.name, table)

    def give(self, table, rows):
        conn = self.server.connect()
        for target in ("plain." + table,) if self.kafka else (table, "plain." + table):
            psycopg2.extras.execute_values(conn.cursor(), "INSERT INTO %s VALUES %%s" % target, rows, "(timestamptz '2026-01-01 00:00:00+00' + %s * interval '1 s', %s, %s)")
        conn.close()
        if self.kafka:
            p = self.kafka.producer()
            for second, k, value in rows:
                at = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=second)
                p.produce(self.topic(table), json.dumps({TIME[table]: at.isoformat(), "k": k, VALUE[table]: value}), partition=self.r.randrange(3))
            p.flush(60)


def run(server, seed, r, source, count):
    sql = server.sql
    queries = []
    for i in range(count):
        text, how = (by_time, by_bounds, by_time, by_bounds, windowed)[i % 5](r)
        ours = plain = text
        if how.get("views"):
            for side in "LR":
                sql("SELECT kda.execute(%s)", "CREATE CONTINUOUS VIEW j%d_%s AS %s" % (i, side, how["sides"][side][2]))
            ours = text.format(L="j%d_l" % i, R="j%d_r" % i)
        elif "sides" in how:
            ours = text.format(**{n: s[0] for n, s in how["sides"].items()})
        if "sides" in how:
            plain = text.format(**{n: s[1] for n, s in how["sides"].items()})
        plain = how.get("plain", plain)
        try:
            sql("SELECT kda.execute(%s)", "CREATE CONTINUOUS VIEW j%d AS %s" % (i, ours))
        except Exception as e:
            raise AssertionError("seed %d: %s\n%s" % (seed, ours, e))
        queries.append(("j%d" % i, ours, plain))
    left = make_rows(r, 400)
    while any(left.values()):
        table = r.choice([t for t in left if left[t]])
        n = r.choice([1, 3, 20, 60])
        some, left[table] = left[table][:n], left[table][n:]
        source.give(table, some)
        if r.random() < 0.06:
            sql("SELECT pg_terminate_backend(pid) FROM kda.workers WHERE kind = 'pipeline'")
    for table in "abc":
        assert server.value("SELECT kda.wait(%s, '60 s')", table)
    for table in "abc":
        sql("SELECT kda.advance(%s, '2026-02-01')", table)
    for table in "abc":
        assert server.value("SELECT kda.wait(%s, '60 s')", table)
    conn = server.connect()
    cur = conn.cursor()
    found = 0
    for name, ours, plain in queries:
        # the same columns in the same order
        cur.execute("SET search_path = plain, public; CREATE TEMP VIEW w AS " + plain)
        columns = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '%s'::regclass AND attnum > 0"
        cur.execute(columns % ("public." + name) + " UNION ALL " + columns % "pg_temp.w")
        shown, expected = cur.fetchall()
        assert shown == expected, "seed %d: %s" % (seed, ours)
        cur.execute("SELECT count(*) FROM w")
        found += cur.fetchone()[0]
        cur.execute("SELECT 'extra', x::text FROM (TABLE public.{0} EXCEPT ALL TABLE w) x UNION ALL SELECT 'missing', x::text FROM (TABLE w EXCEPT ALL TABLE public.{0}) x ORDER BY 1, 2 LIMIT 8".format(name))
        differ = cur.fetchall()
        assert not differ, "seed %d: %s\n%s\n%s" % (seed, ours, plain, "\n".join(map(str, differ)))
        cur.execute("DROP VIEW w; RESET search_path")
    conn.close()
    assert found > 100
    assert sql("SELECT name, state, last_error FROM kda.queries WHERE state <> 'running' OR last_error IS NOT NULL") == []
    assert sql("SELECT error_name, message FROM kda.error_stream WHERE stream IN ('a'::regclass, 'b'::regclass, 'c'::regclass)") == []
    # parts of queries are stored as views, whose text a dump has to be able to give
    sql("""DO $$ DECLARE v oid; BEGIN
        FOR v IN SELECT oid FROM pg_class WHERE relkind = 'v' AND relnamespace = 'kda_storage'::regnamespace LOOP
            EXECUTE 'CREATE TEMP VIEW again AS ' || pg_get_viewdef(v);
            DROP VIEW again;
        END LOOP; END $$""")
    # nothing is kept that cannot match any more
    kept = [x[0] for x in sql("SELECT relname FROM pg_class WHERE relname ~ '^(left|right)_' AND relkind = 'r' AND relnamespace = 'kda_storage'::regnamespace")]
    assert sum(server.value("SELECT count(*) FROM kda_storage.%s" % t) for t in kept) == 0


def prepare(server):
    server.sql("SELECT kda.execute('DROP STREAM IF EXISTS a, b, c CASCADE')")
    server.sql(SETUP)


@pytest.mark.parametrize("seed", range(60 if LONG else 3))
def test_joins(server, seed):
    prepare(server)
    r = random.Random(seed)
    run(server, seed, r, Source(server, r), 30 if LONG else 20)


@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize("seed", range(100, 115 if LONG else 101))
def test_joins_over_a_broker(server, kafka, msk, seed, parallelism):
    prepare(server)
    r = random.Random(seed)
    run(server, seed, r, Source(server, r, kafka, "joins_%d_%d" % (seed, parallelism), parallelism), 20)


def test_days_are_as_long_as_the_clock_says(server):
    """The day on which clocks are set back has 25 hours: what a condition or a frame of a day reaches is kept as long."""
    server.sql("ALTER SYSTEM SET timezone = 'Europe/Berlin'")
    server.sql("SELECT pg_reload_conf()")
    try:
        wait_until(lambda: server.value("SHOW timezone") == "Europe/Berlin", "the zone")
        server.sql("CREATE STREAM day_a (rowtime timestamptz, k int, v int) OPTIONS (idle_timeout 'never')")
        server.sql("CREATE STREAM day_b (rowtime timestamptz, k int, w int) OPTIONS (idle_timeout 'never')")
        condition = "a.k = b.k AND b.rowtime BETWEEN a.rowtime AND a.rowtime + INTERVAL '1' DAY"
        server.sql("CREATE CONTINUOUS VIEW day_inner AS SELECT v, w FROM day_a a JOIN day_b b ON " + condition)
        server.sql("CREATE CONTINUOUS VIEW day_left AS SELECT v, w FROM day_a a LEFT JOIN day_b b ON " + condition)
        server.sql("CREATE CONTINUOUS VIEW day_over AS SELECT w, count(*) OVER (ORDER BY rowtime RANGE INTERVAL '1' DAY PRECEDING) AS n FROM day_b")
        server.sql("INSERT INTO day_a VALUES ('2026-10-24 12:00', 1, 1)")
        for w, t in enumerate(("2026-10-24 11:50", "2026-10-25 11:10", "2026-10-25 11:40", "2026-10-25 11:45", "2026-10-25 13:00"), 1):
            server.sql("INSERT INTO day_b VALUES (%s, 1, %s)", t, w)
            assert server.value("SELECT kda.wait('day_a', '60 s') AND kda.wait('day_b', '60 s')")
        assert server.sql("SELECT v, w FROM day_inner ORDER BY w") == [(1, 2), (1, 3), (1, 4)]
        assert server.sql("SELECT v, w FROM day_left ORDER BY w") == [(1, 2), (1, 3), (1, 4)]
        assert server.sql("SELECT w, n FROM day_over ORDER BY w") == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4)]
    finally:
        server.sql("ALTER SYSTEM RESET timezone")
        server.sql("SELECT pg_reload_conf()")
