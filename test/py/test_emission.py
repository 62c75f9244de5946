"""Rows that leave more than once: whatever the cut into batches, and whatever crashes, each change leaves once and the
last word is what the plain SELECT gives over the accepted rows.
"""
import os
import random
import signal
import time

import psycopg2
import pytest
from harness import FAULT_BINDIR, LONG, Postgres, patiently, wait_until

LATENESS, DELAY = 25, 3         # seconds
SETTINGS = ["kda_stream.commit_interval = '5ms'", "kda_stream.retry_max_interval = '100ms'", "kda_stream.batch_records = 37",
            "kda_stream.state_cache = '1MB'", "wal_writer_delay = '10ms'", "fsync = off"]

# name: window clause, and the windows of a time as (start, end), in seconds
WINDOWS = {
    "tumbling": ("TUMBLING (INTERVAL '10' SECOND)", lambda t: [(t // 10 * 10, t // 10 * 10 + 10)]),
    "sliding": ("SLIDING (INTERVAL '20' SECOND, INTERVAL '10' SECOND)",
                lambda t: [(s, s + 20) for s in (t // 10 * 10 - 10, t // 10 * 10)]),
    "cumulating": ("CUMULATING (INTERVAL '20' SECOND, INTERVAL '10' SECOND)",
                   lambda t: [(t // 20 * 20, t // 20 * 20 + e) for e in (10, 20) if t < t // 20 * 20 + e]),
}
# columns of a view, GROUP BY; the same is asked of the accepted rows of a window
VIEWS = [("k, count(*) AS n, sum(v) AS s", "k"), ("count(DISTINCT v) AS n, max(k) AS m", None), ("k, count(DISTINCT v) AS n", "k")]
EPOCH = "'2026-01-01 00:00:00+00'::timestamptz"


class Feed:
    """Inserts rows out of order, some of them late, and knows in which windows each counts."""

    def __init__(self, server, seed):
        self.server, self.random, self.at, self.chunk = server, random.Random(seed), 0.0, 0
        self.mark = None                                  # the shard's watermark before the next row
        self.accepted = {name: [] for name in WINDOWS}    # (window_start, window_end, k, v)
        self.late = {name: 0 for name in WINDOWS}

    def row(self):
        r = self.random
        self.at += r.random() * 1.5
        back = r.random() * 60 if r.random() < 0.3 else r.random() * 4
        return max(0, int((self.at - back) * 1000)) / 1000, r.choice([None, "a", "b", "c"]), r.randrange(5)

    def insert(self, n):
        """Commits a chunk, and knows whether it did when the server crashes over it."""
        rows = [self.row() for _ in range(n)]
        self.chunk += 1
        values = ", ".join("(%s + %s * interval '1 s', %s, %d)" % (EPOCH, t, "NULL" if k is None else "'%s'" % k, v) for t, k, v in rows)
        while True:
            try:
                self.server.sql("BEGIN; INSERT INTO s VALUES %s; INSERT INTO chunks VALUES (%d); COMMIT" % (values, self.chunk))
                break
            except psycopg2.Error:
                if patiently(self.server, "SELECT count(*) FROM chunks WHERE chunk = %s", self.chunk):
                    break
        for t, k, v in rows:
            for name, (_, windows) in WINDOWS.items():
                counts = [(s, e, k, v) for s, e in windows(t) if self.mark is None or e + LATENESS > self.mark]
                self.accepted[name] += counts
                self.late[name] += not counts
            self.mark = max(self.mark if self.mark is not None else -1e9, t - DELAY)

    def caught_up(self):
        wait_until(lambda: patiently(self.server, "SELECT kda.wait('s', '5 s')"), "the rows to be processed", 60)


def create(server):
    server.sql("DROP STREAM IF EXISTS s CASCADE; DROP TABLE IF EXISTS chunks, accepted, log, log_changes, log_every, log_having, latest, log_groups")
    server.sql("""CREATE STREAM s (rowtime timestamptz, k text, v int)
                  OPTIONS (watermark '%d s', allowed_lateness '%d s', idle_timeout 'never')""" % (DELAY, LATENESS))
    server.sql("CREATE TABLE chunks (chunk int)")
    server.sql("CREATE TABLE accepted (kind text, window_start timestamptz, window_end timestamptz, k text, v int)")
    for name, (clause, _) in WINDOWS.items():
        for i, (columns, keys) in enumerate(VIEWS):
            server.sql("CREATE CONTINUOUS VIEW %s_%d AS SELECT window_start, window_end, %s FROM s WINDOWED BY %s%s" % (
                name, i, columns, clause, " GROUP BY " + keys if keys else ""))
        server.sql("CREATE CONTINUOUS VIEW %s_every AS SELECT window_start, window_end, %s FROM s WINDOWED BY %s GROUP BY k EMIT EVERY INTERVAL '0.02' SECOND" % (
            name, VIEWS[0][0], clause))
        server.sql("CREATE CONTINUOUS VIEW %s_of AS SELECT sum(n) AS n, count(*) AS c FROM %s_0 WINDOWED BY TUMBLING (INTERVAL '1' DAY)" % (name, name))
    columns = "SELECT '%s', window_end, k, count(*), sum(v), window_revision, window_closed FROM s WINDOWED BY %s GROUP BY k"
    for log, emit, having in (("log", "", ""), ("log_changes", "EMIT CHANGES", ""), ("log_every", "EMIT EVERY INTERVAL '0.02' SECOND", ""),
                              ("log_having", "", " HAVING count(*) % 3 <> 0")):
        server.sql("CREATE TABLE %s (id bigserial, kind text, e timestamptz, k text, n bigint, s bigint, rev int, closed boolean)" % log)
        for name, (clause, _) in WINDOWS.items():
            server.sql("CREATE PUMP %s_%s AS INSERT INTO %s (kind, e, k, n, s, rev, closed) %s%s %s" % (
                log, name, log, columns % (name, clause), having, emit))
    server.sql("CREATE TABLE latest (e timestamptz, k text, n bigint, PRIMARY KEY (e, k))")
    server.sql("""CREATE PUMP to_latest AS INSERT INTO latest SELECT window_end, coalesce(k, '-'), count(*) FROM s
                  WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY coalesce(k, '-')
                  ON CONFLICT (e, k) DO UPDATE SET n = EXCLUDED.n""")
    server.sql("CREATE TABLE log_groups (id bigserial, k text, n bigint)")
    server.sql("CREATE PUMP to_log_groups AS INSERT INTO log_groups (k, n) SELECT k, count(*) FROM s GROUP BY k EMIT EVERY INTERVAL '0.02' SECOND")
    server.sql("CREATE CONTINUOUS VIEW groups_every AS SELECT k, count(*) AS n FROM s GROUP BY k EMIT EVERY INTERVAL '0.02' SECOND")


def difference(server, a, b):
    return server.sql("((%s) EXCEPT ALL (%s)) UNION ALL ((%s) EXCEPT ALL (%s)) LIMIT 5" % (a, b, b, a))


def compare(server, feed):
    conn = server.connect()
    cur = conn.cursor()
    for name, rows in feed.accepted.items():
        cur.executemany("INSERT INTO accepted VALUES (%%s, %s + %%s * interval '1 s', %s + %%s * interval '1 s', %%s, %%s)" % (EPOCH, EPOCH),
                        [(name, *row) for row in rows])
    conn.close()
    assert server.sql("SELECT name, state, last_error FROM kda.queries WHERE state <> 'running' OR last_error IS NOT NULL") == []
    for name in WINDOWS:
        of_kind = "FROM accepted WHERE kind = '%s' GROUP BY window_start, window_end" % name
        for i, (columns, keys) in enumerate(VIEWS):
            text = "SELECT window_start, window_end, %s %s%s" % (columns, of_kind, ", " + keys if keys else "")
            assert difference(server, "TABLE %s_%d" % (name, i), text) == [], (name, i)
            if i == 0:
                assert difference(server, "TABLE %s_every" % name, text) == [], name
        # what reads the view has had each row once, as it became final
        assert server.sql("SELECT n, c FROM %s_of" % name) == server.sql("SELECT sum(n), count(*) FROM %s_0" % name), name
        assert server.value("SELECT records_late FROM kda.queries WHERE name = 'log_%s'" % name) == feed.late[name]
    expected = "SELECT kind, window_end, k, count(*), sum(v) FROM accepted GROUP BY 1, 2, 3"
    for log in ("log", "log_changes", "log_every"):
        assert difference(server, "SELECT DISTINCT ON (kind, e, k) kind, e, k, n, s FROM (SELECT * FROM %s ORDER BY kind, e, k, id) l ORDER BY kind, e, k, closed DESC, rev DESC" % log,
                          expected) == [], log
        check_log(server, log, True)
    check_log(server, "log_having", False)
    assert difference(server, "SELECT e, k, n FROM latest",
                      "SELECT window_end, coalesce(k, '-'), count(*) FROM accepted WHERE kind = 'tumbling' GROUP BY 1, 2") == []
    # groups that live for ever know no late records: each state left at most once
    assert server.value("SELECT count(*) - count(DISTINCT (k, n)) FROM log_groups") == 0


def check_log(server, log, whole):
    """Of each group: open rows, the row of the close, its corrections; none is there twice or unchanged."""
    groups = {}
    for kind, e, k, n, s, rev, closed in server.sql("SELECT kind, e, k, n, s, rev, closed FROM %s ORDER BY id" % log):
        groups.setdefault((kind, e, k), []).append((closed, rev, n, s))
    corrected = 0
    for key, rows in groups.items():
        assert [r[0] for r in rows] == sorted(r[0] for r in rows), (log, key, rows)         # open ones first
        assert all(r[1] == 0 for r in rows if not r[0]), (log, key, rows)
        revisions = [r[1] for r in rows if r[0]]
        if whole:
            assert revisions == list(range(len(revisions))), (log, key, rows)
        else:
            assert revisions == sorted(set(revisions)), (log, key, rows)
        for a, b in zip(rows, rows[1:]):
            assert a[0] != b[0] or a[2:] != b[2:] or not whole, (log, key, rows)
        corrected += len(revisions) > 1
    assert corrected > 0


def finish(server, feed):
    feed.caught_up()
    server.sql("SELECT kda.advance('s', '2026-01-10 00:00:00+00')")
    feed.caught_up()
    # EMIT EVERY is behind by its interval
    text = "SELECT k, n FROM groups_every EXCEPT SELECT k, max(n) FROM log_groups GROUP BY k"
    wait_until(lambda: server.value("SELECT sum(n) FROM groups_every") == server.value("SELECT records_in FROM kda.queries WHERE name = 'groups_every'") and
               server.sql(text) == [], "the last changes to be emitted")
    compare(server, feed)
    # nothing is kept of what is final
    assert server.value("SELECT sum(open_windows) FROM kda.queries WHERE name NOT LIKE '%%\\_of'") == 0
    for table, in server.sql("SELECT shown::text FROM kda_storage.query WHERE shown IS NOT NULL AND shape = 'windows'"):
        assert server.value("SELECT count(*) FROM " + table) == 0


def worker_ends(server, how):
    try:
        for pid in server.workers():
            if how == "kill":
                os.kill(pid, signal.SIGKILL)
            else:
                server.sql("SELECT pg_terminate_backend(%s)", pid)
    except (psycopg2.Error, ProcessLookupError):
        pass


def next_worker(server):
    had = wait_until(server.workers, "a worker to be there")
    worker_ends(server, "terminate")
    wait_until(lambda: server.workers() not in ([], had), "the next worker")


@pytest.mark.parametrize("seed", range(6 if LONG else 2))
def test_any_cut_and_any_restart_gives_the_same_last_word(seed):
    server = Postgres("emission%d" % seed, SETTINGS).start()
    seed = int(os.environ.get("KDA_SEED", seed))
    server.sql("CREATE EXTENSION kda_stream")
    create(server)
    feed = Feed(server, seed)
    r = random.Random(seed)
    for _ in range(60):
        feed.insert(r.choice([1, 1, 3, 10, 40]))
        if r.random() < 0.5:
            feed.caught_up()
        chance = r.random()
        if chance < 0.08:
            worker_ends(server, "terminate")
        elif chance < 0.12:
            worker_ends(server, "kill")
    wait_until(server.answers, "the server to recover")
    finish(server, feed)
    server.destroy()


POINTS = ["close", "shown", "looked", "finished", "closed", "emit_closed", "emit_table", "write_back", "save", "commit", "committed"]


def test_any_fault_repeats_nothing():
    server = Postgres("emission_faults", SETTINGS, bindir=FAULT_BINDIR).start()
    server.sql("CREATE EXTENSION kda_stream; CREATE SCHEMA fault")
    server.sql("CREATE FUNCTION fault.arm(text, int, text) RETURNS void LANGUAGE C STRICT AS '$libdir/kda_stream', 'kda_fault_arm'")
    server.sql("CREATE FUNCTION fault.armed() RETURNS text LANGUAGE C AS '$libdir/kda_stream', 'kda_fault_armed'")
    create(server)
    seed = int(os.environ.get("KDA_SEED", 1))
    feed = Feed(server, seed)
    r = random.Random(seed)
    cases = [(p, "40001") for p in POINTS] + [(p, "kill") for p in (POINTS if LONG else r.sample(POINTS, 5))]
    r.shuffle(cases)
    for point, action in cases:
        patiently(server, "SELECT fault.arm(%s, %s, %s)", point, r.choice([1, 2, 5, 20]), action)
        end = time.monotonic() + 60
        while True:
            assert time.monotonic() < end, "%s at %s was never reached" % (action, point)
            feed.insert(r.choice([5, 20]))
            feed.caught_up()
            # a crash of the server has disarmed it
            if not patiently(server, "SELECT fault.armed()"):
                break
    finish(server, feed)
    server.check_sane()
    server.destroy()


def test_every_waits_and_a_restart_does_not_shorten_it():
    """Not more often than once in the interval, and nothing is emitted again or lost over a kill -9."""
    server = Postgres("emission_every", SETTINGS).start()
    server.sql("CREATE EXTENSION kda_stream; CREATE STREAM s (rowtime timestamptz, k text, v int); CREATE TABLE log (id bigserial, k text, n bigint)")
    server.sql("CREATE PUMP p AS INSERT INTO log (k, n) SELECT k, count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' DAY) GROUP BY k EMIT EVERY INTERVAL '1' HOUR")
    server.sql("CREATE CONTINUOUS VIEW g AS SELECT k, count(*) AS n FROM s GROUP BY k EMIT EVERY INTERVAL '1' HOUR")
    insert = "INSERT INTO s VALUES ('2026-01-01 10:00:00+00', '%s', 1)"
    server.sql(insert % "a")
    assert server.value("SELECT kda.wait('s')")
    assert server.sql("SELECT k, n FROM log") == server.sql("TABLE g") == [("a", 1)]
    server.sql(insert % "a")
    assert server.value("SELECT kda.wait('s')")
    for _ in range(2):
        server.crash()
        server.start()
        server.sql(insert % "b")
        assert server.value("SELECT kda.wait('s')")
        assert server.sql("SELECT k, n FROM log") == server.sql("TABLE g") == [("a", 1)]
    # an hour later
    server.sql("ALTER STREAM s PAUSE")
    next_worker(server)
    server.sql("UPDATE kda_storage.query_progress SET emitted_at = emitted_at - interval '1 hour'")
    next_worker(server)
    server.sql("ALTER STREAM s RESUME")
    wait_until(lambda: server.value("SELECT count(*) FROM log") == 3 and server.value("SELECT sum(n) FROM g") == 4, "the changes to be emitted")
    assert sorted(server.sql("SELECT k, n FROM log")) == [("a", 1), ("a", 2), ("b", 2)]
    assert sorted(server.sql("TABLE g")) == [("a", 2), ("b", 2)]
    server.destroy()


@pytest.mark.parametrize("point", ["close", "shown", "looked", "finished"])
def test_what_cannot_be_emitted_fails_alone(point):
    """No record is to blame: the query stops where it was, the others go on."""
    server = Postgres("emission_alone_" + point, SETTINGS, bindir=FAULT_BINDIR).start()
    server.sql("CREATE EXTENSION kda_stream; CREATE SCHEMA fault")
    server.sql("CREATE FUNCTION fault.arm(text, int, text) RETURNS void LANGUAGE C STRICT AS '$libdir/kda_stream', 'kda_fault_arm'")
    server.sql("CREATE STREAM s (rowtime timestamptz, k text) OPTIONS (allowed_lateness '1 minute', idle_timeout 'never')")
    server.sql("CREATE CONTINUOUS VIEW v AS SELECT k, count(*) AS n FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k EMIT ON WINDOW CLOSE")
    server.sql("CREATE CONTINUOUS VIEW other AS SELECT count(*) AS n FROM s")
    server.sql("INSERT INTO s VALUES ('2026-01-01 10:00:10+00', 'a'), ('2026-01-01 10:01:00+00', 'a')")
    assert server.value("SELECT kda.wait('s')")
    server.sql("SELECT fault.arm(%s, 1, '22012')", point)
    server.sql("INSERT INTO s VALUES ('2026-01-01 10:00:20+00', 'a'), ('2026-01-01 10:05:00+00', 'a')")
    assert server.value("SELECT kda.wait('s')")
    failed = server.sql("SELECT name, last_error FROM kda.queries WHERE state = 'failed'")
    assert [f[0] for f in failed] == ["v"] and "injected fault" in failed[0][1]
    assert server.sql("SELECT k, n FROM v") == [("a", 1)]
    assert server.value("SELECT n FROM other") == 4
    assert server.value("SELECT state FROM kda.streams") == "running"
    server.destroy()
