"""The worker's life: locks, failures of every class, its processes, its bounds."""
import os
import signal
import threading
import time

import psycopg2
import pytest
from harness import LONG, Postgres, alive, wait_until

SETTINGS = ["kda_stream.retry_max_interval = '1s'"]

ROWS = "INSERT INTO %s SELECT timestamptz '2026-01-01 10:00:00+00' + i * interval '1 s', i %% 10, 1 FROM generate_series(1, %d) i"


def worker(server, column, name="kda_stream worker main of postgres"):
    return server.value("SELECT " + column + " FROM kda.workers WHERE kind = 'pipeline' AND slot = 0")


def storage(server, what, query):
    return server.value("SELECT %s::text FROM kda_storage.query WHERE rel = '%s'::regclass" % (what, query))


@pytest.fixture
def session(server):
    """A session whose transaction goes on until the test ends it."""
    conn = server.connect(autocommit=False)
    yield conn
    conn.close()


@pytest.fixture
def joined(server):
    """A stream with a joined table, a view, and a pump into a table."""
    server.sql("DROP STREAM IF EXISTS j CASCADE; DROP TABLE IF EXISTS names, sink CASCADE")
    server.sql("CREATE STREAM j (rowtime timestamptz, k int, v int); CREATE TABLE names (k int PRIMARY KEY, name text); CREATE TABLE sink (k int, v int)")
    server.sql("INSERT INTO names SELECT i, 'n' || i FROM generate_series(0, 9) i")
    server.sql("CREATE CONTINUOUS VIEW j_v AS SELECT name, count(*) n FROM j JOIN names USING (k) GROUP BY name")
    server.sql("CREATE CONTINUOUS VIEW j_all AS SELECT count(*) n FROM j")
    server.sql("CREATE PUMP j_p AS INSERT INTO sink SELECT k, v FROM j")
    server.sql(ROWS % ("j", 10))
    assert server.value("SELECT kda.wait('j')")
    return server


LOCKS = {
    "state": "LOCK TABLE {open} IN ACCESS EXCLUSIVE MODE",
    "progress": "LOCK TABLE kda_storage.query_progress IN ACCESS EXCLUSIVE MODE",
    "joined": "LOCK TABLE names IN ACCESS EXCLUSIVE MODE",
    "index": "LOCK TABLE names IN SHARE MODE; REINDEX INDEX names_pkey",
    "target": "LOCK TABLE sink IN SHARE MODE",
    "stream": "ALTER FOREIGN TABLE j ALTER COLUMN v SET STATISTICS 10; ALTER FOREIGN TABLE j ADD COLUMN x int",
    "view": "ALTER VIEW j_v SET (security_barrier = true)",
    "segment": "LOCK TABLE {inbox} IN ACCESS EXCLUSIVE MODE",
}


@pytest.mark.parametrize("what", LOCKS)
def test_a_lock_is_waited_for_in_an_empty_transaction(joined, session, what):
    server, holder = joined, session
    pid = worker(server, "pid")
    cur = holder.cursor()
    server.sql(ROWS % ("j", 10))        # on their way when the lock comes, or not
    cur.execute(LOCKS[what].format(open=storage(server, "open", "j_v"),
                                   inbox=server.value("SELECT inbox::text FROM kda_storage.stream WHERE rel = 'j'::regclass")))
    if what not in ("stream", "segment"):
        server.sql(ROWS % ("j", 10))
    else:
        # who holds it is the one who inserts
        cur.execute(ROWS % ("j", 10) if what == "segment" else "SELECT 1")
        server.sql("CREATE STREAM IF NOT EXISTS other (v int); INSERT INTO other VALUES (1)")
    if what == "view":
        # the view that users read is no part of a batch
        assert server.value("SELECT kda.wait('j')")
        holder.rollback()
    else:
        wait_until(lambda: worker(server, "waiting_for"), "the wait to be seen", 10)
        assert worker(server, "blocked_by") == [holder.info.backend_pid]
        assert worker(server, "state") == "running"
        name = {"state": storage(server, "open", "j_v"), "progress": "kda_storage.query_progress", "joined": "public.names",
                "index": "names", "target": "public.sink", "stream": "public.j"}.get(what, "kda_storage")
        assert name in worker(server, "waiting_for") and name in worker(server, "last_error")
        assert server.sql("SELECT wait_event_type, wait_event, backend_xmin, backend_xid FROM pg_stat_activity WHERE pid = %s", pid) == [
            ("Lock", "relation", None, None)]
        assert server.value("SELECT count(*) FROM pg_locks WHERE pid = %s AND granted AND locktype = 'relation'", pid) == 0
        holder.commit()
    assert server.value("SELECT kda.wait('j')")
    assert worker(server, "waiting_for") is None
    total = server.value("SELECT n FROM j_all")
    assert total == (20 if what == "stream" else 30)
    assert server.value("SELECT sum(n) FROM j_v") == total and server.value("SELECT count(*) FROM sink") == total
    assert worker(server, "pid") == pid


def test_no_user_loses_a_deadlock_to_a_worker(joined):
    """Sessions lock what a batch uses in all orders while batches run; none of them ever gets an error."""
    server = joined
    relations = ["names", "sink", storage(server, "open", "j_v"), storage(server, "open", "j_all"), "kda_storage.stream_progress"]
    stop = threading.Event()
    errors = []

    def lock(seed):
        import random
        r = random.Random(seed)
        conn = server.connect(autocommit=False)
        cur = conn.cursor()
        cur.execute("SET deadlock_timeout = '1s'")
        conn.commit()
        while not stop.is_set():
            # one at a time locks several, or two sessions would deadlock without us
            cur.execute("SELECT pg_advisory_xact_lock(1)")
            for rel in r.sample(relations, 2):
                cur.execute("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE" % rel)
                time.sleep(r.random() / 20)
            conn.commit()
            time.sleep(r.random() / 20)
        conn.close()

    def guarded(seed):
        try:
            lock(seed)
        except Exception as e:
            errors.append(e)
    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    end = time.monotonic() + (20 if LONG else 4)
    n = 10
    while time.monotonic() < end:
        server.sql(ROWS % ("j", 10))
        n += 10
    stop.set()
    for t in threads:
        t.join()
    assert errors == []
    assert server.value("SELECT kda.wait('j')")
    assert server.value("SELECT n FROM j_all") == n and server.value("SELECT count(*) FROM sink") == n


def test_a_row_that_somebody_has_locked_does_not_cost_him_his_transaction(server, session):
    """Locks on rows cannot be taken beforehand: the worker gives way before the user's deadlock_timeout."""
    server.sql("CREATE STREAM up (k int, v int); CREATE TABLE latest (k int PRIMARY KEY, v int)")
    server.sql("CREATE PUMP up_p AS INSERT INTO latest SELECT k, v FROM up ON CONFLICT (k) DO UPDATE SET v = excluded.v")
    server.sql("INSERT INTO up VALUES (1, 0), (2, 0)")
    assert server.value("SELECT kda.wait('up')")
    cur = session.cursor()
    cur.execute("UPDATE latest SET v = 100 WHERE k = 2")
    # the worker takes row 1, then wants row 2
    server.sql("INSERT INTO up VALUES (1, 1), (2, 1)")
    wait_until(lambda: server.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kda_stream worker' AND wait_event_type = 'Lock'"),
               "the worker to want the row", 10)
    cur.execute("UPDATE latest SET v = 100 WHERE k = 1")    # a deadlock now, if the worker stayed
    wait_until(lambda: "lock" in (worker(server, "last_error") or ""), "the worker to say so", 10)
    session.commit()
    assert server.value("SELECT kda.wait('up')")
    assert server.sql("SELECT k, v FROM latest ORDER BY k") == [(1, 1), (2, 1)]
    assert server.value("SELECT state FROM kda.queries WHERE name = 'up_p'") == "running"


def test_ddl_waits_for_no_longer_than_a_batch_and_loading_holds_nothing(joined, session):
    """A long transaction that has altered a stream: the worker waits with empty hands, other DDL goes on."""
    server = joined
    server.sql("CREATE STREAM IF NOT EXISTS free (v int)")
    session.cursor().execute("ALTER STREAM j ADD COLUMN later int")
    # makes the worker load its queries anew
    server.sql("CREATE CONTINUOUS VIEW free_v AS SELECT count(*) n FROM free")
    wait_until(lambda: "public.j" in (worker(server, "waiting_for") or ""), "the worker to wait", 10)
    server.sql("SET lock_timeout = '2s'; ALTER TABLE kda_storage.stream SET (fillfactor = 100)")
    session.commit()
    server.sql("INSERT INTO free VALUES (1)")
    assert server.value("SELECT kda.wait('free')") and server.value("SELECT n FROM free_v") == 1
