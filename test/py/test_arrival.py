"""Aggregates that show an order, without ORDER BY inside: rows are in the order in which they came, however they were kept, cut into batches and closed."""
import random

import pytest
from harness import LONG

SETTINGS = ["kda_stream.batch_records = 23", "autovacuum = off"]

SHOWN = ("array_agg(v)", "string_agg(v::text, ',')", "json_agg(v)", "jsonb_agg(v)::text", "json_object_agg(v, k)", "first(v)", "last(v)", "array_agg(v) FILTER (WHERE v % 2 = 0)")
XML = "xmlagg(xmlelement(name x, v))::text"        # where the server has XML


def shown(names, order=""):
    """The aggregates as columns; order: inside of each."""
    return ", ".join((a.replace(") FILTER", order + ") FILTER") if "FILTER" in a else a.replace(")::text", order + ")::text") if a.startswith(("jsonb", "xml"))
                      else a[:-1] + order + ")") + "%s AS a%d" % ("::text" if a.startswith("json") and "::text" not in a else "", i) for i, a in enumerate(names))


HOP = "(SELECT h.*, kda.tumble_start(t, '10 s') - o * interval '10 s' AS w FROM h, generate_series(0, 2) o) i"
# the rows with the number of their session
SESSIONS = ("(SELECT *, sum(begins) OVER (PARTITION BY k ORDER BY t, id) nth FROM (SELECT *, "
            "CASE WHEN t - lag(t) OVER (PARTITION BY k ORDER BY t, id) <= interval '0.2 s' THEN 0 ELSE 1 END begins FROM h) g) i")
QUERIES = {
    # name: (the query over stream s, the same over table h of its rows, in which id tells who came first)
    "minutes": ("SELECT window_start AS w, k, {a} FROM s WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k", "SELECT kda.tumble_start(t, '10 s'), k, {b} FROM h GROUP BY 1, 2"),
    "whole": ("SELECT window_start AS w, {a} FROM s WINDOWED BY TUMBLING (INTERVAL '10' SECOND)", "SELECT kda.tumble_start(t, '10 s'), {b} FROM h GROUP BY 1"),
    "sliding": ("SELECT window_start AS w, k, {a} FROM s WINDOWED BY SLIDING (INTERVAL '30' SECOND, INTERVAL '10' SECOND) GROUP BY k", "SELECT w, k, {b} FROM %s GROUP BY 1, 2" % HOP),
    "growing": ("SELECT window_end AS w, k, {a} FROM s WINDOWED BY CUMULATING (INTERVAL '30' SECOND, INTERVAL '10' SECOND) GROUP BY k",
                "SELECT e, k, {b} FROM (SELECT h.*, e FROM h, LATERAL (SELECT kda.tumble_start(t, '30 s') + n * interval '10 s' AS e FROM generate_series(1, 3) n) l WHERE e > t) i GROUP BY 1, 2"),
    "sessions": ("SELECT window_start AS w, k, {a} FROM s WINDOWED BY SESSION (INTERVAL '0.2' SECOND) GROUP BY k", "SELECT min(t), k, {b} FROM %s GROUP BY k, nth" % SESSIONS),
    "endless": ("SELECT k, {a} FROM s GROUP BY k", "SELECT k, {b} FROM h GROUP BY 1"),
    "joined": ("SELECT window_start AS w, name, {a} FROM s JOIN names USING (k) WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY name",
               "SELECT kda.tumble_start(t, '10 s'), name, {b} FROM h JOIN names USING (k) GROUP BY 1, 2"),
    "nested": ("SELECT window_start AS w, k, {a} FROM (SELECT rowtime, k, v FROM s WHERE v > 10) p WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k",
               "SELECT kda.tumble_start(t, '10 s'), k, {b} FROM h WHERE v > 10 GROUP BY 1, 2"),
    "chosen": ("SELECT window_start AS w, k, {a} FROM s WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k HAVING (array_agg(v))[1] > 300",
               "SELECT kda.tumble_start(t, '10 s'), k, {b} FROM h GROUP BY 1, 2 HAVING (array_agg(v ORDER BY id))[1] > 300"),
    "sets": ("SELECT window_start AS w, k, {a} FROM s WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY ROLLUP (k)",
             "SELECT w, k, {b} FROM (SELECT h.*, kda.tumble_start(t, '10 s') AS w FROM h) i GROUP BY w, ROLLUP (k)"),
}


@pytest.mark.parametrize("seed", range(20 if LONG else 2))
def test_order_of_arrival(server, seed):
    r = random.Random(seed)
    aggregates = SHOWN + ((XML,) if server.value("SELECT setting LIKE '%%--with-libxml%%' FROM pg_config WHERE name = 'CONFIGURE'" % ()) else ())
    server.sql("DROP STREAM IF EXISTS s CASCADE; DROP TABLE IF EXISTS h, names; DROP AGGREGATE IF EXISTS first(int), last(int)")
    server.sql("CREATE OR REPLACE FUNCTION keep_first(int, int) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1';"
               "CREATE OR REPLACE FUNCTION keep_last(int, int) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $2';"
               "CREATE AGGREGATE first(int) (sfunc = keep_first, stype = int); CREATE AGGREGATE last(int) (sfunc = keep_last, stype = int)")
    server.sql("CREATE STREAM s (rowtime timestamptz, k text, v int) OPTIONS (watermark '15 seconds', idle_timeout 'never')")
    server.sql("CREATE TABLE h (id serial, t timestamptz, k text, v int); CREATE TABLE names (k text, name text); INSERT INTO names VALUES ('a', 'A'), ('b', 'B'), ('c', 'B')")
    for name, (query, _) in QUERIES.items():
        server.sql("CREATE CONTINUOUS VIEW %s AS %s" % (name, query.format(a=shown(aggregates))))
    second = 0.0
    for _ in range(12):
        rows = []
        for _ in range(r.choice([1, 10, 60])):
            second += r.random()
            rows.append("('2026-01-01 00:00:00+00'::timestamptz + %f * interval '1 s', '%s', %d)" % (second + 15 - 15 * r.random(), r.choice("abcd"), r.randrange(1000)))
        server.sql("BEGIN; INSERT INTO s VALUES {0}; INSERT INTO h (t, k, v) VALUES {0}; COMMIT".format(", ".join(rows)))
        if r.random() < 0.5:
            assert server.value("SELECT kda.wait('s')")
        # room of rows that have gone is used again, and indexes are worth a look
        if r.random() < 0.5:
            for table in server.sql("SELECT 'kda_storage.' || relname FROM pg_class WHERE relname LIKE 'open\\_%' AND relkind = 'r'"):
                server.sql("VACUUM ANALYZE " + table[0])
    for flush in (False, True):
        if flush:
            server.sql("SELECT kda.advance('s', '2026-02-01')")
        assert server.value("SELECT kda.wait('s')")
        assert server.sql("SELECT name, state, records_late FROM kda.queries WHERE state <> 'running' OR records_late > 0") == []
        for name, (_, plain) in QUERIES.items():
            columns = "w, k" if "AS w" in QUERIES[name][0] and " k, " in QUERIES[name][0] else "w, name" if name == "joined" else "w" if name == "whole" else "k"
            ours = server.sql("SELECT %s, %s FROM %s ORDER BY %s" % (columns, ", ".join("a%d" % i for i in range(len(aggregates))), name, columns))
            theirs = server.sql("SELECT * FROM (%s) x ORDER BY %s" % (plain.format(b=shown(aggregates, " ORDER BY id")), ", ".join(str(i + 1) for i in range(len(columns.split(", "))))))
            assert ours == theirs, "%s, seed %d" % (name, seed)
