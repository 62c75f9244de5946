"""Any cut into batches, transactions and writers gives what the same SELECT gives over the same rows."""
import random
import threading

import pytest
from harness import LONG, Postgres

SETTINGS = ["kda_stream.batch_records = 37", "kda_stream.state_cache = '1MB'"]

WINDOW = "kda.tumble_start(rowtime, '1 min', '7 s')"
QUERIES = [
    # columns of the select list, GROUP BY keys, WHERE
    ("k, count(*) n, sum(v) s, avg(v) a, min(v) mi, max(t) ma, count(v) FILTER (WHERE v > 10) f", "k", "true"),
    ("k, t, sum(n) s, avg(n) a, stddev_samp(n) sd, bool_or(v > 50) bo", "k, t", "v IS NOT NULL"),
    ("count(*) n, sum(v) s, max(n) m, sum(length(t)) l", "", "k <> 3"),
    ("v % 3 AS r, array_length(array_agg(1), 1) c", "v % 3", "true"),
    # what has transitions of its own, over plain columns and over expressions
    ("t, count(f) n, sum(f) sf, min(f) mif, max(f) maf, sum(s) ss, avg(s) as_, min(s) mis, max(s) mas, avg(v) av, min(v) miv, max(v) mav", "t", "true"),
    ("k, min(b) mib, max(b) mab, min(d) mid, max(d) mad, min(rowtime) mir, max(rowtime) mar, bool_and(o) ao, bool_or(o) oo, every(o) eo, sum(b) sb, max(g) mg, sum(g) sg", "k", "true"),
    ("o, d, max(f + 1) mf, sum(s * 2) s2, min(b + 1) mib, count(*) FILTER (WHERE o) fo, max(d) FILTER (WHERE f > 0) md", "o, d", "s IS DISTINCT FROM 3"),
    ("f, s, b, count(*) n", "f, s, b", "true"),
]
EXTRA = ", f float8, s smallint, b bigint, d date, o boolean, g real"


def rows(r, count):
    at = 0.0
    result = []
    for _ in range(count):
        at += r.random() * 2
        result.append((
            "2026-01-01 00:00:00+00", at - r.random() * 5,
            r.choice([None, 1, 2, 3, 4, 5, 6, 7]), r.choice([None, "", "a", "b", "long " * 20]),
            r.choice([None, r.randrange(100)]), r.choice([None, r.randrange(10000) / 100]),
            # sums of these are exact in any order
            r.choice([None, 0.0, -0.0, r.randrange(-9, 9) / 4]), r.choice([None, r.randrange(-5, 5)]),
            r.choice([None, r.randrange(-3, 3) * 10 ** 12]), r.choice([None, "2026-01-%02d" % r.randrange(1, 4)]),
            r.choice([None, True, False]), r.choice([None, r.randrange(-9, 9) / 4])))
    return result


@pytest.mark.parametrize("seed", range(12 if LONG else 3))
def test_cut_anywhere(server, seed):
    r = random.Random(seed)
    server.sql("DROP STREAM IF EXISTS p CASCADE; DROP TABLE IF EXISTS same; DROP TABLE IF EXISTS copied")
    server.sql("CREATE STREAM p (rowtime timestamptz, k int, t text, v int, n numeric%s) OPTIONS (watermark '10 s')" % EXTRA)
    server.sql("CREATE TABLE same (rowtime timestamptz, k int, t text, v int, n numeric%s)" % EXTRA)
    server.sql("CREATE TABLE copied (k int, v int)")
    usable = []
    for i, (columns, keys, where) in enumerate(QUERIES):
        if "array_agg" in columns and server.value("SELECT aggcombinefn::oid FROM pg_aggregate WHERE aggfnoid = 'array_agg(anynonarray)'::regprocedure") == 0:
            continue        # no combine function before 16
        usable.append(i)
        group = " GROUP BY " + keys if keys else ""
        server.sql("CREATE CONTINUOUS VIEW p_w%d AS SELECT window_start AS w, %s FROM p WHERE %s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE, INTERVAL '7' SECOND)%s" % (i, columns, where, group))
        server.sql("CREATE CONTINUOUS VIEW p_g%d AS SELECT %s FROM p WHERE %s%s" % (i, columns, where, group))
    server.sql("CREATE CONTINUOUS VIEW p_rows AS SELECT rowtime, k, t, v, n FROM p WHERE k > 2")
    server.sql("CREATE PUMP p_pump AS INSERT INTO copied SELECT k, v FROM p WHERE v > 50")

    data = rows(r, 3000)
    at = 0
    while at < len(data):
        n = r.choice([1, 2, 10, 100, 500])
        conn = server.connect(autocommit=False)
        cur = conn.cursor()
        for chunk in (data[at:at + n // 2], data[at + n // 2:at + n]):
            if not chunk:
                continue
            args = b",".join(cur.mogrify("(%s::timestamptz + %s * interval '1 s', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)", row) for row in chunk).decode()
            cur.execute("INSERT INTO p VALUES " + args)
            cur.execute("INSERT INTO same VALUES " + args)
        if r.random() < 0.1:
            conn.rollback()
        else:
            conn.commit()
            at += n
        conn.close()
        if r.random() < 0.05:
            server.sql("SELECT pg_terminate_backend(pid) FROM kda.workers WHERE kind = 'pipeline'")
    assert server.value("SELECT kda.wait('p', '60 s')")
    assert server.value("SELECT records_late FROM kda.streams WHERE stream = 'p'::regclass") == 0
    for i in usable:
        columns, keys, where = QUERIES[i]
        group = " GROUP BY " + keys if keys else ""
        wgroup = " GROUP BY " + WINDOW + (", " + keys if keys else "")
        for view, text in (("p_w%d" % i, "SELECT %s AS w, %s FROM same WHERE %s%s" % (WINDOW, columns, where, wgroup)),
                           ("p_g%d" % i, "SELECT %s FROM same WHERE %s%s" % (columns, where, group))):
            assert server.sql("(TABLE %s EXCEPT ALL (%s)) UNION ALL ((%s) EXCEPT ALL TABLE %s) LIMIT 5" % (view, text, text, view)) == [], view
    text = "SELECT rowtime, k, t, v, n FROM same WHERE k > 2"
    assert server.sql("(TABLE p_rows EXCEPT ALL (%s)) UNION ALL ((%s) EXCEPT ALL TABLE p_rows) LIMIT 5" % (text, text)) == []
    text = "SELECT k, v FROM same WHERE v > 50"
    assert server.sql("(TABLE copied EXCEPT ALL (%s)) UNION ALL ((%s) EXCEPT ALL TABLE copied) LIMIT 5" % (text, text)) == []


def test_concurrent_writers(server):
    """Transactions that commit in another order than they began are all seen, once."""
    server.sql("CREATE STREAM cw (w int, v int); CREATE CONTINUOUS VIEW cw_v AS SELECT w, count(*) n, sum(v) s FROM cw GROUP BY w")

    def write(w):
        r = random.Random(w)
        conn = server.connect(autocommit=False)
        cur = conn.cursor()
        for i in range(150):
            for _ in range(r.randrange(1, 4)):
                cur.execute("INSERT INTO cw VALUES (%s, 1)", (w,))
                expected[w] += 1
                if r.random() < 0.3:
                    cur.execute("SELECT pg_sleep(%s)", (r.random() / 200,))
            if r.random() < 0.1:
                cur.execute("SAVEPOINT s; INSERT INTO cw VALUES (%s, 1000); ROLLBACK TO s", (w,))
            conn.commit()
        conn.close()
    expected = [0] * 6
    threads = [threading.Thread(target=write, args=(w,)) for w in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert server.value("SELECT kda.wait('cw')")
    assert server.sql("SELECT w, n, s FROM cw_v ORDER BY w") == [(w, n, n) for w, n in enumerate(expected)]


def test_more_groups_than_memory(server):
    """Groups leave the cache of 1 MB and are read back."""
    server.sql("CREATE STREAM many (k int, v int); CREATE CONTINUOUS VIEW many_v AS SELECT k, count(*) n, sum(v) s FROM many GROUP BY k")
    for i in range(6):
        server.sql("INSERT INTO many SELECT (i * 7919) %% 60000, 1 FROM generate_series(1, 40000) i" % ())
        assert server.value("SELECT kda.wait('many', '60 s')")
    assert server.value("SELECT state_bytes < 3 * 1024 * 1024 FROM kda.queries WHERE name = 'many_v'")
    assert server.sql("SELECT count(*), sum(n), sum(s), min(n), max(n) FROM many_v") == [(40000, 240000, 240000, 6, 6)]


def test_million_row_copy_in_bounded_memory():
    pg = Postgres("copy", ["kda_stream.commit_interval = '50ms'", "fsync = off"]).start()
    pg.sql("CREATE EXTENSION kda_stream")
    pg.sql("CREATE STREAM big (k int, v int, t text); CREATE CONTINUOUS VIEW big_v AS SELECT k, count(*) n, sum(v) s FROM big GROUP BY k")
    pg.sql("CREATE STREAM big_un (k int, v int) OPTIONS (durable 'false'); CREATE CONTINUOUS VIEW big_un_v AS SELECT count(*) n, sum(v) s FROM big_un")
    pg.sql("COPY (SELECT i %% 100, 1, repeat('x', 50) FROM generate_series(1, 1000000) i) TO '%s/million'" % pg.dir)
    pg.sql("COPY big FROM '%s/million'" % pg.dir)
    pg.sql("INSERT INTO big_un SELECT i, 1 FROM generate_series(1, 100000) i")
    assert pg.value("SELECT kda.wait('big', '120 s')") and pg.value("SELECT kda.wait('big_un', '60 s')")
    assert pg.sql("SELECT count(*), sum(n), sum(s) FROM big_v") == [(100, 1000000, 1000000)]
    assert pg.sql("SELECT n, s FROM big_un_v") == [(100000, 100000)]
    with open("/proc/%d/status" % pg.workers()[0]) as f:
        peak = [int(line.split()[1]) for line in f if line.startswith("VmHWM")][0]
    assert peak < 600 * 1024, "the worker used %d kB" % peak
    pg.check_sane()
    pg.destroy()


def test_states_of_every_aggregate_are_taken_up_again(server):
    """A group that was written out and read back goes on as if it had stayed in memory."""
    columns = {"int2": "a", "int4": "b", "int8": "c", "numeric": "d", "interval": "e", "bool": "f", "text": "g", "timestamptz": "h"}
    aggregates = server.sql("""
        SELECT p.proname, t.typname FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid JOIN pg_type t ON t.oid = p.proargtypes[0]
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND a.aggkind = 'n' AND p.pronargs = 1 AND t.typname = ANY (%s)
          AND a.aggcombinefn <> 0 AND (a.aggtranstype <> 'internal'::regtype OR a.aggserialfn <> 0) ORDER BY 1, 2""", list(columns))
    calls = ["%s(%s)" % (name, columns[typename]) for name, typename in aggregates]
    if server.value("SELECT aggcombinefn <> 0 FROM pg_aggregate WHERE aggfnoid = 'array_agg(anynonarray)'::regprocedure"):
        calls += ["array_agg(d)", "array_agg(g)", "string_agg(g, ', ')"]
    assert len(calls) > 50
    text = "k, " + ", ".join("%s AS x%d" % (call, i) for i, call in enumerate(calls))
    row = "(k int, a int2, b int4, c int8, d numeric, e interval, f bool, g text, h timestamptz)"
    server.sql("CREATE STREAM every %s; CREATE TABLE every_same %s" % (row, row))
    server.sql("CREATE CONTINUOUS VIEW every_v AS SELECT %s FROM every GROUP BY k" % text)
    r = random.Random(5)
    for _ in range(4):
        values = ",".join("(%d, %d, %d, %d, %s, '%d s', %s, '%s', '2026-01-01'::timestamptz + '%d s')" % (
            r.randrange(3), r.randrange(9), r.randrange(9), r.randrange(9), r.randrange(900) / 100, r.randrange(9),
            r.choice(["true", "false", "NULL"]), r.choice("abc"), r.randrange(9)) for _ in range(20))
        server.sql("INSERT INTO every VALUES " + values)
        server.sql("INSERT INTO every_same VALUES " + values)
        assert server.value("SELECT kda.wait('every', '60 s')")
        server.sql("SELECT pg_terminate_backend(pid, 10000) FROM kda.workers WHERE kind = 'pipeline'")
    got = server.sql("SELECT * FROM every_v ORDER BY k")
    for mine, plain in zip(got, server.sql("SELECT %s FROM every_same GROUP BY k ORDER BY k" % text)):
        for call, a, b in zip(["k"] + calls, mine, plain):
            assert a == b, call
    assert len(got) == 3


def test_wait_covers_what_came_while_a_large_commit_was_being_read(server):
    server.sql("CREATE STREAM behind (v int); CREATE CONTINUOUS VIEW behind_v AS SELECT count(*) n FROM behind")
    for i in range(1, 6):
        server.sql("INSERT INTO behind SELECT g FROM generate_series(1, 10000) g")
        server.sql("INSERT INTO behind VALUES (0)")
        assert server.value("SELECT kda.wait('behind', '60 s')")
        assert server.value("SELECT n FROM behind_v") == i * 10001
