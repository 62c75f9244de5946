"""Whatever fails wherever in a batch: results equal the plain SELECT over the rows, refused rows are there once.

Runs on a copy of the library with fault points (src/runtime/fault.h).
"""
import os
import random
import time

import psycopg2
import pytest
from harness import FAULT_BINDIR, LONG, Postgres, patiently, wait_until

TRANSIENT = ["08006", "40001", "53100", "55P03", "57P03", "58030"]
PERMANENT = "22012"

# Where an error that does not pass by itself stops the stream; RESUME goes on.
STOPS_STREAM = ["read", "decoded", "watermark", "ring", "queries", "settled"]
# Where it stops the query for good.
STOPS_QUERY = ["write_back", "write_back_new", "close", "closed", "error_row"]
# Where nothing is lost at all: isolated, or the transaction is tried again, or the worker starts again.
PASSES = ["query", "query_done", "emit_closed", "emit_stream", "emit_table", "save", "saved", "commit", "committed", "remember"]
POINTS = STOPS_STREAM + STOPS_QUERY + PASSES

WINDOW = "kda.tumble_start(rowtime, '10 s')"


@pytest.fixture(scope="module")
def server():
    pg = Postgres("fault_points", ["kda_stream.commit_interval = '5ms'", "kda_stream.retry_max_interval = '100ms'",
                                   "kda_stream.batch_records = 60", "wal_writer_delay = '10ms'", "fsync = off"], bindir=FAULT_BINDIR).start()
    pg.sql("CREATE EXTENSION kda_stream; CREATE SCHEMA fault")
    pg.sql("CREATE FUNCTION fault.arm(text, int, text) RETURNS void LANGUAGE C STRICT AS '$libdir/kda_stream', 'kda_fault_arm'")
    pg.sql("CREATE FUNCTION fault.armed() RETURNS text LANGUAGE C AS '$libdir/kda_stream', 'kda_fault_armed'")
    pg.sql("CREATE FUNCTION fault.seen() RETURNS text LANGUAGE C AS '$libdir/kda_stream', 'kda_fault_seen'")
    yield pg
    pg.check_sane()
    pg.destroy()


class Rows:
    """Chunks of rows that go into a stream and, in the same transaction, into a table beside it."""

    def __init__(self, server, seed):
        self.server, self.random, self.at, self.chunk, self.id = server, random.Random(seed), 0.0, 0, 0
        self.refused = 0

    def row(self):
        r = self.random
        self.at += r.random()
        self.id += 1
        return "(%d, %d, '2026-01-01 00:00:00+00'::timestamptz + %f * interval '1 s', %s, %d)" % (
            self.id, self.chunk, self.at + 6 - r.random() * 5, r.choice(["NULL", "'a'", "'b'", "'c'", "'d'"]), r.randrange(20))

    def insert(self, n):
        """Commits a chunk, and knows whether it did when the server crashes over it."""
        while True:
            self.chunk += 1
            values = ", ".join(self.row() for _ in range(n))
            try:
                self.server.sql("BEGIN; INSERT INTO p (id, chunk, rowtime, k, v) VALUES %s; INSERT INTO same VALUES %s; COMMIT" % (values, values))
                return
            except psycopg2.Error:
                if patiently(self.server, "SELECT count(*) FROM same WHERE chunk = %s", self.chunk):
                    return


def create(server, msk):
    server.sql("DROP STREAM IF EXISTS p, d, outside CASCADE; DROP TABLE IF EXISTS same, copied")
    server.sql("CREATE STREAM p (id int, chunk int, rowtime timestamptz, k text, v int) OPTIONS (watermark '6 s', idle_timeout 'never')")
    server.sql("CREATE TABLE same (id int, chunk int, rowtime timestamptz, k text, v int); CREATE TABLE copied (id int PRIMARY KEY, k text)")
    server.sql("CREATE STREAM d (rowtime timestamptz, k text, n bigint)")
    server.sql("CREATE CONTINUOUS VIEW p_w AS SELECT window_start AS w, k, count(*) n, sum(v) s, avg(v) a FROM p WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k")
    server.sql("CREATE CONTINUOUS VIEW p_g AS SELECT k, count(*) n, max(rowtime) m, stddev_samp(v) sd FROM p GROUP BY k")
    server.sql("CREATE CONTINUOUS VIEW p_r AS SELECT id, k FROM p WHERE v > 5")
    server.sql("CREATE CONTINUOUS VIEW p_div AS SELECT sum(100 / (v - 7)) s, count(*) n FROM p")
    server.sql("CREATE CONTINUOUS VIEW p_se AS SELECT window_start, window_end, k, count(*) n, sum(v) s FROM p WINDOWED BY SESSION (INTERVAL '2' SECOND) GROUP BY k")
    server.sql("CREATE CONTINUOUS VIEW p_sd AS SELECT window_start, window_end, k, count(DISTINCT v) n, sum(v) s FROM p WINDOWED BY SESSION (INTERVAL '2' SECOND) GROUP BY k")
    server.sql("CREATE PUMP p_s AS INSERT INTO d (k, n) SELECT k, count(*) FROM p WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k")
    server.sql("CREATE CONTINUOUS VIEW d_v AS SELECT k, sum(n) n, count(*) c FROM d GROUP BY k")
    server.sql("CREATE PUMP p_t AS INSERT INTO copied SELECT id, k FROM p")
    server.sql("CREATE STREAM outside (id int, k text) SERVER %s OPTIONS (topic 't_points', start 'earliest')" % msk)
    server.sql("CREATE CONTINUOUS VIEW out_v AS SELECT k, count(*) n, sum(id) s FROM outside GROUP BY k")


def difference(server, view, text):
    return server.sql("(TABLE %s EXCEPT ALL (%s)) UNION ALL ((%s) EXCEPT ALL TABLE %s) LIMIT 5" % (view, text, text, view))


def compare(server, outside):
    assert server.sql("SELECT name, last_error FROM kda.queries WHERE state <> 'running'") == []
    assert difference(server, "p_w", "SELECT %s, k, count(*), sum(v), avg(v) FROM same GROUP BY 1, 2" % WINDOW) == []
    sessions = ("SELECT min(rowtime), max(rowtime) + interval '2 s', k, %s, sum(v) FROM (SELECT *, count(*) FILTER (WHERE apart) OVER (PARTITION BY k ORDER BY rowtime, id) AS i "
                "FROM (SELECT *, rowtime - lag(rowtime) OVER (PARTITION BY k ORDER BY rowtime, id) > '2 s' AS apart FROM same) a) b GROUP BY k, i")
    assert difference(server, "p_se", sessions % "count(*)") == []
    assert difference(server, "p_sd", sessions % "count(DISTINCT v)") == []
    assert difference(server, "p_g", "SELECT k, count(*), max(rowtime), stddev_samp(v) FROM same GROUP BY 1") == []
    assert difference(server, "p_r", "SELECT id, k FROM same WHERE v > 5") == []
    assert difference(server, "copied", "SELECT id, k FROM same") == []
    assert difference(server, "p_div", "SELECT sum(100 / (v - 7)), count(*) FROM same WHERE v <> 7") == []
    # refused once each; which they are is in their data
    assert server.sql("SELECT error_name, query::text, message, count(*), count(DISTINCT data_text::json ->> 'id') FROM kda.error_stream "
                      "WHERE stream = 'p'::regclass GROUP BY 1, 2, 3") == [
        ("expression", "p_div", "division by zero", n, n) for n in [server.value("SELECT count(*) FROM same WHERE v = 7")]]
    # closed windows, and only these, have gone on into the derived stream
    closed = "SELECT k, count(*) n FROM same WHERE %s + interval '10 s' <= kda.watermark('p') GROUP BY %s, k" % (WINDOW, WINDOW)
    assert difference(server, "d_v", "SELECT k, sum(n), count(*) FROM (%s) c GROUP BY 1" % closed) == []
    assert server.sql("SELECT k, n, s FROM out_v ORDER BY k") == sorted(
        (k, len(ids), sum(ids)) for k, ids in outside.items() if k != "malformed")
    n = len(outside["malformed"])
    assert server.sql("SELECT error_name, count(*), count(DISTINCT (shard, position)) FROM kda.error_stream "
                      "WHERE stream = 'outside'::regclass GROUP BY 1") == ([("malformed", n, n)] if n else [])
    assert server.value("SELECT sum(records_late) FROM kda.streams") == 0


def catch_up(server, may_fail, what):
    """All rows are in; streams that the fault has stopped are resumed."""
    for _ in range(100):
        try:
            for failed, in server.sql("SELECT stream::text FROM kda.streams WHERE state = 'failed'"):
                assert may_fail, what
                server.sql("ALTER STREAM %s RESUME" % failed)
            if server.value("SELECT kda.wait('p', '0.3 s')") and server.value("SELECT kda.wait('outside', '0.3 s')"):
                return
        except psycopg2.Error:
            time.sleep(0.05)
    raise AssertionError("not caught up after %s: %s" % (what, patiently(server, "SELECT array_agg(w::text) FROM kda.workers w")))


@pytest.mark.parametrize("seed", range(4 if LONG else 1))
def test_any_fault_anywhere_changes_no_result(server, kafka, seed):
    server.sql("""CREATE SERVER IF NOT EXISTS msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream
                  OPTIONS ("bootstrap.servers" '%s')""" % kafka.address)
    if "t_points" in kafka.client.list_topics(timeout=10).topics:
        kafka.delete_topic("t_points")
    kafka.create_topic("t_points", 2)
    create(server, "msk")
    seed = int(os.environ.get("KDA_SEED", seed))
    r = random.Random(seed)
    rows = Rows(server, seed)
    outside = {"x": [], "y": [], "malformed": []}

    cases = [(p, r.choice(TRANSIENT)) for p in POINTS]
    cases += [(p, PERMANENT) for p in STOPS_STREAM + PASSES]
    cases += [(p, "kill") for p in (POINTS if LONG else r.sample(POINTS, len(POINTS) // 2))]
    r.shuffle(cases)
    for point, action in cases:
        what = "%s at %s" % (action, point)
        patiently(server, "SELECT fault.arm(%s, %s, %s)", point, r.choice([1, 1, 2, 3, 10]), action)
        end = time.monotonic() + 60
        armed = True
        while armed:
            assert time.monotonic() < end, "%s was never reached" % what
            rows.insert(r.choice([5, 30, 100]))
            batch = []
            for _ in range(r.randrange(30)):
                key = r.choice(["x", "y", "x", "y", "malformed"])
                outside[key].append(rows.id * 100 + len(batch))
                batch.append({"id": outside[key][-1], "k": key} if key != "malformed" else '{"id": 1, "k')
            kafka.produce("t_points", batch)
            catch_up(server, action == PERMANENT and point in STOPS_STREAM, what)
            # a crash of the server has disarmed it
            armed = patiently(server, "SELECT fault.armed()")
        # it may have gone off after all rows were in
        catch_up(server, action == PERMANENT and point in STOPS_STREAM, what)
    assert set(patiently(server, "SELECT fault.seen()").split()) <= set(POINTS)
    # all windows close
    rows.at += 100
    rows.insert(1)
    wait_until(lambda: patiently(server, "SELECT kda.wait('p', '20 s')"), "the rest", 60)
    compare(server, outside)


@pytest.mark.parametrize("point", STOPS_QUERY)
def test_a_query_that_cannot_be_written_fails_alone(server, point):
    """At write-back or close no record is to blame: that query stops where it was, the others go on."""
    server.sql("DROP STREAM IF EXISTS alone CASCADE")
    server.sql("CREATE STREAM alone (rowtime timestamptz, k int, v int)")
    view = "CREATE CONTINUOUS VIEW alone_%s AS SELECT k, sum(100 / v) s FROM alone WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k"
    server.sql(view % "a")
    server.sql("CREATE CONTINUOUS VIEW alone_other AS SELECT count(*) n FROM alone")
    server.sql("INSERT INTO alone VALUES ('2026-01-01 10:00:00+00', 1, 10)")
    assert server.value("SELECT kda.wait('alone')")
    before = server.sql("SELECT frontier FROM kda_storage.query_progress JOIN kda_storage.query USING (query_id) WHERE rel = 'alone_a'::regclass")
    server.sql("SELECT fault.arm(%s, 1, %s)", point, PERMANENT)
    server.sql("INSERT INTO alone VALUES ('2026-01-01 10:00:01+00', 1, 10), ('2026-01-01 10:00:02+00', 2, 10), ('2026-01-01 10:02:00+00', 2, %s)",
               0 if point == "error_row" else 10)
    assert server.value("SELECT kda.wait('alone')")
    assert server.value("SELECT fault.armed()") is None
    failed = server.sql("SELECT name, last_error FROM kda.queries WHERE state = 'failed'")
    assert [f[0] for f in failed] == ["alone_a"] and "injected fault" in failed[0][1] and "DROP and CREATE" in failed[0][1]
    assert server.sql("SELECT frontier FROM kda_storage.query_progress JOIN kda_storage.query USING (query_id) WHERE rel = 'alone_a'::regclass") == before
    assert server.sql("SELECT k, s FROM alone_a") == [(1, 10)]
    assert server.sql("SELECT n FROM alone_other") == [(4,)]
    assert server.value("SELECT state FROM kda.streams WHERE stream = 'alone'::regclass") == "running"
    server.sql("DROP VIEW alone_a")
    server.sql(view % "a")
    server.sql("INSERT INTO alone VALUES ('2026-01-01 10:02:30+00', 3, 10)")
    assert server.value("SELECT kda.wait('alone')")
    assert server.sql("SELECT k, s FROM alone_a") == [(3, 10)]
