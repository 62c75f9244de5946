"""ALTER STREAM … RESET reaches all that is made of the stream inside a query: what came before it is judged by the old time, what came after it by the new one."""
import random

import pytest
from harness import FAULT_BINDIR, LONG, Postgres, patiently, wait_until
from test_sessions import kill_worker

SETTINGS = ["kda_stream.batch_records = 37"]

VIEWS = {
    # name: (the query's SELECT, the same over the rows between two resets)
    "joined": ("SELECT a.k, a.v, b.v AS w FROM ra a JOIN rb b ON a.k = b.k AND b.rowtime BETWEEN a.rowtime - INTERVAL '1' SECOND AND a.rowtime + INTERVAL '2' SECOND",
               "SELECT a.k, a.v, b.v FROM a JOIN b ON a.p = b.p AND a.k = b.k AND b.t BETWEEN a.t - interval '1 s' AND a.t + interval '2 s'"),
    "join_window": ("SELECT window_start AS w, a.k, count(*) AS n, sum(a.v * b.v) AS s FROM ra a JOIN rb b ON a.k = b.k AND b.rowtime BETWEEN a.rowtime AND a.rowtime + INTERVAL '2' SECOND "
                    "WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY a.k",
                    "SELECT kda.tumble_start(b.t, '10 s'), a.k, count(*), sum(a.v * b.v) FROM a JOIN b ON a.p = b.p AND a.k = b.k AND b.t BETWEEN a.t AND a.t + interval '2 s' GROUP BY a.p, 1, 2"),
    "in_both": ("SELECT window_start AS w, k, count(*) AS n, sum(v) AS s FROM (SELECT rowtime, k, v FROM ra UNION ALL SELECT rowtime, k, v FROM rb) u WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k",
             "SELECT kda.tumble_start(t, '10 s'), k, count(*), sum(v) FROM (TABLE a UNION ALL TABLE b) u GROUP BY p, 1, 2"),
    # one branch comes by way of a window of its own
    "diamond": ("SELECT window_start AS w, count(*) AS n, sum(v) AS s FROM (SELECT rowtime, v FROM ra UNION ALL SELECT window_time AS rowtime, sum(v) AS v FROM ra WINDOWED BY TUMBLING (INTERVAL '2' SECOND)) u WINDOWED BY TUMBLING (INTERVAL '10' SECOND)",
                "SELECT kda.tumble_start(t, '10 s'), count(*), sum(v) FROM (SELECT p, t, v FROM a UNION ALL SELECT p, kda.tumble_start(t, '2 s') + interval '1.999 s', sum(v) FROM a GROUP BY 1, 2) u GROUP BY p, 1"),
    "twice": ("SELECT window_start AS w, count(*) AS n, sum(s) AS s FROM (SELECT k, sum(v) AS s FROM ra WINDOWED BY TUMBLING (INTERVAL '2' SECOND) GROUP BY k) i WINDOWED BY TUMBLING (INTERVAL '10' SECOND)",
              "SELECT kda.tumble_start(t, '10 s'), count(*), sum(s) FROM (SELECT p, kda.tumble_start(t, '2 s') AS t, k, sum(v) AS s FROM a GROUP BY 1, 2, 3) i GROUP BY p, 1"),
    "over_window": ("SELECT window_start AS w, sum(s) AS s FROM (SELECT rowtime, sum(v) OVER (PARTITION BY k RANGE INTERVAL '3' SECOND PRECEDING) AS s FROM ra) i WINDOWED BY TUMBLING (INTERVAL '10' SECOND)",
                    "SELECT kda.tumble_start(t, '10 s'), sum(s) FROM (SELECT p, t, (SELECT sum(v) FROM a y "
                    "WHERE y.p = a.p AND y.k = a.k AND y.t >= a.t - interval '3 s' AND (y.t, y.id) <= (a.t, a.id)) AS s FROM a) i GROUP BY p, 1"),
    "sorted": ("SELECT k, v FROM ra ORDER BY ts WITHIN INTERVAL '1' HOUR", "SELECT k, v FROM a"),
    "inner_view": ("SELECT window_start AS w, k, sum(v) AS s FROM ra WINDOWED BY TUMBLING (INTERVAL '2' SECOND) GROUP BY k",
                   "SELECT kda.tumble_start(t, '2 s'), k, sum(v) FROM a GROUP BY p, 1, 2"),
    "outer_view": ("SELECT window_start AS w, count(*) AS n, sum(s) AS s FROM inner_view WINDOWED BY TUMBLING (INTERVAL '10' SECOND)",
                   "SELECT kda.tumble_start(t, '10 s'), count(*), sum(s) FROM (SELECT p, kda.tumble_start(t, '2 s') AS t, k, sum(v) AS s FROM a GROUP BY 1, 2, 3) i GROUP BY p, 1"),
}
# PostgreSQL has no FULL JOIN on anything but equality
NEAR = "a.p = b.p AND a.k = b.k AND b.t BETWEEN a.t - interval '1 s' AND a.t + interval '2 s'"
VIEWS["outer_joined"] = (VIEWS["joined"][0].replace(" JOIN", " FULL JOIN"),
                         "SELECT a.k, a.v, b.v FROM a JOIN b ON {0} UNION ALL SELECT k, v, NULL FROM a WHERE NOT EXISTS (SELECT FROM b WHERE {0}) "
                         "UNION ALL SELECT NULL, NULL, v FROM b WHERE NOT EXISTS (SELECT FROM a WHERE {0})".format(NEAR))


def declare(server):
    server.sql("DROP STREAM IF EXISTS ra, rb CASCADE; DROP TABLE IF EXISTS a, b")
    for stream in ("ra", "rb"):
        server.sql("CREATE STREAM %s (rowtime timestamptz, ts timestamptz, k text, v int) OPTIONS (watermark '1 minute', idle_timeout 'never')" % stream)
        server.sql("CREATE TABLE %s (id serial, p int, t timestamptz, k text, v int)" % stream[1])
    for name, (query, _) in VIEWS.items():
        server.sql("CREATE CONTINUOUS VIEW %s AS %s" % (name, query))


def insert(server, stream, phase, rows):
    """Rows go into the stream and, in the same transaction, into a table beside it."""
    year = 2030 if phase % 2 == 0 else 2026     # the clock goes mad and comes to its senses
    values = ["'%d-01-01 00:00:00+00'::timestamptz + %d * interval '1 ms'" % (year, t) for t, _, _ in rows]
    server.sql("BEGIN; INSERT INTO %s VALUES %s; INSERT INTO %s (p, t, k, v) VALUES %s; COMMIT" % (
        stream, ", ".join("(%s, %s, '%s', %d)" % (t, t, k, v) for t, (_, k, v) in zip(values, rows)),
        stream[1], ", ".join("(%d, %s, '%s', %d)" % (phase, t, k, v) for t, (_, k, v) in zip(values, rows))))


def make_rows(r, begin, count):
    return [(begin + r.randrange(15000), r.choice("xyz"), r.randrange(10)) for _ in range(count)]


def reset_both(server):
    server.sql("BEGIN; ALTER STREAM ra RESET; ALTER STREAM rb RESET; COMMIT")


def compare(server, what):
    assert server.value("SELECT kda.wait('ra', '120 s') AND kda.wait('rb', '120 s')")
    assert server.sql("SELECT name, state, last_error FROM kda.queries WHERE state <> 'running'") == []
    assert server.sql("SELECT name, records_late FROM kda.queries WHERE records_late > 0") == [], what
    for name, (_, text) in VIEWS.items():
        assert server.sql("(TABLE {0} EXCEPT ALL ({1})) UNION ALL (({1}) EXCEPT ALL TABLE {0}) LIMIT 5".format(name, text)) == [], "%s, %s" % (name, what)
    assert server.value("SELECT count(*) FROM kda_storage.stream JOIN kda_storage.stream_progress USING (stream_id) WHERE resets_wanted > resets_done") == 0


@pytest.mark.parametrize("seed", range(20 if LONG else 3))
def test_phases(server, seed):
    r = random.Random(seed)
    declare(server)
    for phase in range(5):
        begin = 0
        for _ in range(r.randrange(1, 6)):
            for stream in r.sample(["ra", "rb"], 2):
                insert(server, stream, phase, make_rows(r, begin, r.choice([1, 5, 20, 60])))
            begin += 10000
            dice = r.random()
            if dice < 0.15:
                kill_worker(server)
            elif dice < 0.3:
                server.sql("SELECT pg_terminate_backend(pid) FROM kda.workers WHERE kind = 'pipeline'")
            elif dice < 0.5:
                assert server.value("SELECT kda.wait('ra', '60 s')")
        reset_both(server)
        if r.random() < 0.3:
            server.sql("SELECT pg_terminate_backend(pid) FROM kda.workers WHERE kind = 'pipeline'")
    compare(server, "seed %d" % seed)
    # nothing is open any more, so all that was kept has gone
    assert server.sql("SELECT name FROM kda.queries WHERE groups > 0") == []


def test_one_side_alone(server):
    """The other stream goes on with its own time, and its rows match what comes after."""
    server.sql("DROP STREAM IF EXISTS sa, sb CASCADE")
    server.sql("CREATE STREAM sa (rowtime timestamptz, k int, v int) OPTIONS (idle_timeout 'never'); CREATE STREAM sb (rowtime timestamptz, k int, w int) OPTIONS (idle_timeout 'never')")
    server.sql("CREATE CONTINUOUS VIEW one AS SELECT sa.k, v, w FROM sa LEFT JOIN sb ON sa.k = sb.k AND sb.rowtime BETWEEN sa.rowtime - INTERVAL '10' SECOND AND sa.rowtime")
    server.sql("INSERT INTO sb VALUES ('2026-01-01 10:00:00', 1, 1)")
    server.sql("INSERT INTO sa VALUES ('2030-01-01 10:00:00', 1, 10)")
    server.sql("ALTER STREAM sa RESET")
    server.sql("INSERT INTO sb VALUES ('2026-01-01 10:00:20', 1, 2)")
    server.sql("INSERT INTO sa VALUES ('2026-01-01 10:00:21', 1, 20)")
    assert server.value("SELECT kda.wait('sa') AND kda.wait('sb')")
    assert server.sql("SELECT k, v, w FROM one ORDER BY v") == [(1, 10, None), (1, 20, 2)]
    server.sql("DROP STREAM sa, sb CASCADE")


def test_one_side_again_and_again(server):
    """Each time the other stream stands at its place for that reset, however many are under way: what comes after it would be forgotten before it."""
    server.sql("CREATE STREAM sa (rowtime timestamptz, k int, v int) OPTIONS (idle_timeout 'never'); CREATE STREAM sb (rowtime timestamptz, k int, w int) OPTIONS (idle_timeout 'never')")
    server.sql("CREATE CONTINUOUS VIEW one AS SELECT sa.k, v, w FROM sa LEFT JOIN sb ON sa.k = sb.k AND sb.rowtime BETWEEN sa.rowtime - INTERVAL '10' SECOND AND sa.rowtime")
    for i in range(15):
        at = "'2026-01-01 10:00:00+00'::timestamptz + %d * interval '1 minute'" % i
        server.sql("INSERT INTO sb VALUES (%s, %d, 0)" % (at, i))
        server.sql("INSERT INTO sa VALUES ('2030-01-01', %d, 0)" % i)       # its clock goes mad
        server.sql("ALTER STREAM sa RESET")
        server.sql("INSERT INTO sb VALUES (%s + interval '30 s', %d, 1)" % (at, i))
        server.sql("INSERT INTO sa VALUES (%s + interval '31 s', %d, 1)" % (at, i))
    assert server.value("SELECT kda.wait('sa') AND kda.wait('sb')")
    assert server.sql("SELECT k, v, w FROM one ORDER BY k, v") == [row for i in range(15) for row in ((i, 0, None), (i, 1, 1))]
    server.sql("DROP STREAM sa, sb CASCADE")


def test_concurrent_sessions(server):
    """Two RESETs whose transactions overlap, while one of the streams has much to read: neither stream waits for ever for the other."""
    server.sql("CREATE STREAM sa (rowtime timestamptz, v int) OPTIONS (idle_timeout 'never'); CREATE STREAM sb (rowtime timestamptz, v int) OPTIONS (idle_timeout 'never')")
    server.sql("CREATE CONTINUOUS VIEW of_both AS SELECT sum(v) AS s FROM (SELECT rowtime, v FROM sa UNION ALL SELECT rowtime, v FROM sb) u WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)")
    for _ in range(5):
        first = server.connect(autocommit=False)
        first.cursor().execute("ALTER STREAM sb RESET")
        server.sql("INSERT INTO sa SELECT '2026-01-01', 1 FROM generate_series(1, 1500); INSERT INTO sb VALUES ('2026-01-01', 1)")
        server.sql("ALTER STREAM sa RESET")
        first.commit()
        first.close()
    assert server.value("SELECT kda.wait('sa', '60 s') AND kda.wait('sb', '60 s')")
    assert server.value("SELECT sum(s) FROM of_both") == 5 * 1501
    server.sql("DROP STREAM sa, sb CASCADE")


def test_from_the_first_row(server):
    """A query that begins with rows that are there already comes to the RESETs among them."""
    server.sql("CREATE STREAM sc (rowtime timestamptz, v int) OPTIONS (idle_timeout 'never')")
    server.sql("INSERT INTO sc VALUES ('2030-01-01', 1); ALTER STREAM sc RESET; INSERT INTO sc VALUES ('2029-01-01', 2); ALTER STREAM sc RESET; INSERT INTO sc VALUES ('2028-01-01', 4)")
    for _ in range(2):
        server.sql("CREATE CONTINUOUS VIEW sc_1 WITH (start = 'earliest') AS SELECT sum(v) AS s FROM sc WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)")
        assert server.value("SELECT kda.wait('sc')")
        assert server.sql("SELECT s FROM sc_1 ORDER BY s") == [(1,), (2,), (4,)]
        server.sql("DROP VIEW sc_1")
    server.sql("DROP STREAM sc CASCADE")


def test_before_the_first_query(server):
    """A stream that nothing reads forgets its time, too."""
    server.sql("CREATE STREAM sc (rowtime timestamptz, v int) OPTIONS (idle_timeout 'never'); SELECT kda.advance('sc', '2030-01-01')")
    server.sql("CREATE CONTINUOUS VIEW sc_1 AS SELECT count(*) FROM sc WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)")
    assert server.value("SELECT kda.wait('sc')")
    server.sql("SELECT kda.advance('sc', '2031-01-01')")
    assert server.value("SELECT kda.wait('sc')") and server.value("SELECT kda.watermark('sc') = '2031-01-01'")
    server.sql("DROP VIEW sc_1; ALTER STREAM sc RESET")
    server.sql("CREATE CONTINUOUS VIEW sc_1 AS SELECT count(*) FROM sc WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)")
    server.sql("INSERT INTO sc VALUES ('2026-01-01', 1)")
    assert server.value("SELECT kda.wait('sc')")
    assert server.value("SELECT sum(count) FROM sc_1") == 1
    server.sql("DROP STREAM sc CASCADE")


def test_several_at_once(server):
    """Several of them wait in the inbox."""
    server.sql("CREATE STREAM sd (rowtime timestamptz, v int) OPTIONS (idle_timeout 'never')")
    server.sql("CREATE CONTINUOUS VIEW sd_1 AS SELECT sum(n) AS n FROM (SELECT count(*) AS n FROM sd WINDOWED BY TUMBLING (INTERVAL '1' SECOND)) s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)")
    server.sql("BEGIN; %s; COMMIT" % "; ".join("INSERT INTO sd VALUES ('%d-01-01', 1); ALTER STREAM sd RESET" % (2030 - i) for i in range(20)))
    assert server.value("SELECT kda.wait('sd')")
    assert server.sql("SELECT count(*), sum(n) FROM sd_1") == [(20, 20)]
    server.sql("DROP STREAM sd CASCADE")


def test_killed_at_each_step():
    """kill -9, and an error that passes, in each of the transactions that a RESET goes through."""
    server = Postgres("reset_faults", ["kda_stream.commit_interval = '5ms'", "kda_stream.retry_max_interval = '100ms'", "fsync = off",
                                       "kda_stream.batch_records = 20"], bindir=FAULT_BINDIR).start()
    try:
        server.sql("CREATE EXTENSION kda_stream; CREATE SCHEMA fault")
        server.sql("CREATE FUNCTION fault.arm(text, int, text) RETURNS void LANGUAGE C STRICT AS '$libdir/kda_stream', 'kda_fault_arm'")
        server.sql("CREATE FUNCTION fault.armed() RETURNS text LANGUAGE C AS '$libdir/kda_stream', 'kda_fault_armed'")
        r = random.Random(1)
        declare(server)
        steps = [("reset", nth, action) for nth in range(1, 8) for action in ("kill", "40001")]
        for phase, (point, nth, action) in enumerate(steps if LONG else steps[::3]):
            for stream in ("ra", "rb"):
                insert(server, stream, phase, make_rows(r, 0, 50))
            server.sql("SELECT fault.arm(%s, %s, %s)", point, nth, action)
            reset_both(server)
            wait_until(lambda: patiently(server, "SELECT coalesce(fault.armed(), '') = ''"), "the fault at %s %d" % (point, nth))
            wait_until(lambda: patiently(server, "SELECT kda.wait('ra', '5 s') AND kda.wait('rb', '5 s')"), "it to go on")
        compare(server, "after faults")
    finally:
        server.destroy()
