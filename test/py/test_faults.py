"""What goes wrong inside: errors of queries, DDL, locks, a full disk."""
import os
import subprocess
import threading
import time

import psycopg2
import pytest
from harness import WORK, Postgres, wait_until


def insert(server, stream, rows):
    conn = server.connect(autocommit=False)
    cur = conn.cursor()
    cur.execute("INSERT INTO %s VALUES " % stream + ", ".join(["%s"] * len(rows)), rows)
    conn.commit()
    conn.close()


def test_an_expression_that_fails_refuses_its_record_only(server):
    server.sql("CREATE STREAM div (rowtime timestamptz, k text, v int)")
    server.sql("CREATE CONTINUOUS VIEW div_v AS SELECT k, sum(100 / v) s, count(*) n FROM div GROUP BY k")
    server.sql("CREATE CONTINUOUS VIEW div_rows AS SELECT k, 100 / v q FROM div")
    server.sql("CREATE CONTINUOUS VIEW div_all AS SELECT count(*) n FROM div")
    insert(server, "div", [("2026-01-01", "ab"[i % 2], 0 if i in (7, 8, 50) else 1) for i in range(100)])
    assert server.value("SELECT kda.wait('div')")
    assert server.sql("SELECT k, s, n FROM div_v ORDER BY k") == [("a", 4800, 48), ("b", 4900, 49)]
    assert server.value("SELECT count(*) FROM div_rows") == 97
    assert server.value("SELECT n FROM div_all") == 100
    got = server.sql("SELECT query::text, error_name, message, count(*) FROM kda.error_stream WHERE stream = 'div'::regclass GROUP BY 1, 2, 3 ORDER BY 1")
    assert got == [("div_rows", "expression", "division by zero", 3), ("div_v", "expression", "division by zero", 3)]
    assert server.value("SELECT records_failed FROM kda.streams WHERE stream = 'div'::regclass") == 3
    # groups that the failing attempt had touched are right afterwards, too
    insert(server, "div", [("2026-01-01", "a", 2)])
    assert server.value("SELECT kda.wait('div')")
    assert server.sql("SELECT s, n FROM div_v WHERE k = 'a'") == [(4850, 49)]


def test_an_error_in_the_final_part_fails_that_window(server):
    server.sql("CREATE STREAM fin (rowtime timestamptz, v int)")
    server.sql("CREATE CONTINUOUS VIEW fin_ok AS SELECT count(*) n FROM fin WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)")
    server.sql("CREATE CONTINUOUS VIEW fin_v AS SELECT 100 / (sum(v) - 5) q FROM fin WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)")
    insert(server, "fin", [("2026-01-01 10:00:00+00", 5), ("2026-01-01 10:01:00+00", 6), ("2026-01-01 10:02:00+00", 7)])
    assert server.value("SELECT kda.wait('fin')")
    assert server.value("SELECT count(*) FROM fin_ok") == 3
    insert(server, "fin", [("2026-01-01 10:03:00+00", 7)])
    assert server.value("SELECT kda.wait('fin')")
    assert server.value("SELECT state FROM kda.queries WHERE name = 'fin_v'") == "running"
    assert server.sql("SELECT q FROM fin_v WHERE window_start >= '2026-01-01 10:01:00+00' ORDER BY window_start") == [(100,), (50,), (50,)]
    assert server.sql("SELECT error_name, query::text FROM kda.error_stream WHERE stream = 'fin'::regclass") == [("expression", "fin_v")]


def test_ddl_while_records_flow(server):
    server.sql("CREATE STREAM busy (rowtime timestamptz, k int, v int)")
    server.sql("CREATE TABLE names (k int PRIMARY KEY, name text)")
    server.sql("INSERT INTO names SELECT i, 'n' || i FROM generate_series(0, 9) i")
    server.sql("CREATE CONTINUOUS VIEW busy_v AS SELECT b.k, count(*) n, sum(v) s FROM busy b JOIN names USING (k) "
               "WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY b.k")
    server.sql("CREATE CONTINUOUS VIEW busy_named AS SELECT name, count(*) n FROM busy JOIN names USING (k) GROUP BY name")
    stop = threading.Event()
    total = [0]

    def feed():
        conn = server.connect()
        cur = conn.cursor()
        while not stop.is_set():
            cur.execute("INSERT INTO busy SELECT timestamptz '2026-01-01 10:00:00+00' + i * interval '1 ms', i %% 10, 1 FROM generate_series(1, 100) i" % ())
            total[0] += 100
        conn.close()
    t = threading.Thread(target=feed)
    t.start()
    try:
        open_table = server.value("SELECT 'kda_storage.open_' || query_id FROM kda_storage.query WHERE rel = 'busy_v'::regclass")
        for i in range(4):
            server.sql("ALTER TABLE names ADD COLUMN c%d int DEFAULT %d" % (i, i))
            server.sql("ALTER TABLE names RENAME COLUMN name TO name%d" % i)
            server.sql("ALTER TABLE names RENAME COLUMN name%d TO name" % i)
            server.sql("VACUUM FULL " + open_table)
            server.sql("REINDEX TABLE names")
            server.sql("ANALYZE names")
            server.sql("VACUUM FULL names")
            server.sql("REINDEX SCHEMA kda_storage")
            server.sql("CREATE CONTINUOUS VIEW temp_v AS SELECT max(v) m FROM busy")
            server.sql("CREATE INDEX idx%d ON busy_v (k)" % i)
            time.sleep(0.1)
            server.sql("ALTER STREAM busy ADD COLUMN x%d text" % i)
            server.sql("DROP VIEW temp_v")
            server.sql("DROP INDEX kda_storage.idx%d" % i)
    finally:
        stop.set()
        t.join()
    assert server.value("SELECT kda.wait('busy', '60 s')")
    assert server.sql("SELECT DISTINCT n, s FROM busy_v") == [(total[0] // 10, total[0] // 10)]
    assert server.sql("SELECT count(*), sum(n) FROM busy_named") == [(10, total[0])]
    assert server.sql("SELECT DISTINCT state FROM kda.queries WHERE name LIKE 'busy%'") == [("running",)]


def test_a_lock_is_waited_for_and_seen(server):
    server.sql("CREATE STREAM locked (rowtime timestamptz, v int)")
    server.sql("CREATE CONTINUOUS VIEW locked_v AS SELECT count(*) n FROM locked")
    insert(server, "locked", [("2026-01-01", 1)])
    assert server.value("SELECT kda.wait('locked')")
    table = server.value("SELECT 'kda_storage.open_' || query_id FROM kda_storage.query WHERE rel = 'locked_v'::regclass")
    conn = server.connect(autocommit=False)
    conn.cursor().execute("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE" % table)
    insert(server, "locked", [("2026-01-01", 1)])
    assert not server.value("SELECT kda.wait('locked', '500 ms')")
    seen = server.sql("SELECT wait_event_type FROM pg_stat_activity WHERE backend_type = 'kda_stream worker'")
    assert ("Lock",) in seen
    pid = server.workers()[0]
    conn.rollback()
    conn.close()
    assert server.value("SELECT kda.wait('locked')")
    assert server.value("SELECT n FROM locked_v") == 2
    assert server.workers() == [pid]


def test_an_idle_worker_holds_no_snapshot(server):
    time.sleep(0.3)
    assert server.sql("SELECT DISTINCT backend_xmin IS NULL, xact_start IS NULL, state FROM pg_stat_activity "
                      "WHERE backend_type = 'kda_stream worker'") == [(True, True, "idle")]
    assert server.sql("SELECT DISTINCT backend_type, application_name FROM pg_stat_activity WHERE backend_type LIKE 'kda%' ORDER BY 1") == [
        ("kda_stream launcher", "kda_stream launcher"), ("kda_stream worker", "kda_stream main")]


def test_full_disk_is_waited_out(kafka):
    lib = os.path.join(WORK, "enospc.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", lib, os.path.join(WORK, "build/test/enospc.c"), "-ldl"], check=True)
    flag = os.path.join(WORK, "disk_is_full")
    os.environ["KDA_DISK_FULL"] = flag
    try:
        pg = Postgres("full", ["kda_stream.commit_interval = '20ms'", "autovacuum = off"], preload=lib).start()
    finally:
        del os.environ["KDA_DISK_FULL"]
    pg.sql("CREATE EXTENSION kda_stream")
    pg.sql("""CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '%s')""" % kafka.address)
    kafka.create_topic("t_full", 2)
    pg.sql("CREATE STREAM full_s (k text, v int) SERVER msk OPTIONS (topic 't_full', start 'earliest')")
    pg.sql("CREATE CONTINUOUS VIEW full_v AS SELECT k, count(*) n FROM full_s GROUP BY k")
    kafka.produce("t_full", [{"k": "key%d" % (i % 5000), "v": i} for i in range(5000)])
    wait_until(lambda: pg.value("SELECT sum(n) FROM full_v") == 5000, "the first records")
    open(flag, "w").close()
    kafka.produce("t_full", [{"k": "more%d%s" % (i % 5000, "x" * 200), "v": i} for i in range(20000)])
    wait_until(lambda: "No space left" in pg.log_text(), "the disk to be full")
    wait_until(lambda: "No space left" in (pg.value("SELECT last_error FROM kda.workers WHERE kind = 'pipeline'") or ""), "it to show")
    # a first small batch may have found room in the pages that were there; after that nothing gets in, and nothing in part
    counted = "SET work_mem = '100MB'; SELECT sum(n) FROM full_v"     # looking needs no disk
    before = pg.value(counted)
    failures = pg.log_text().count("No space left")
    wait_until(lambda: pg.log_text().count("No space left") > failures + 1, "it to have tried again")
    assert 5000 <= before < 25000
    assert pg.value(counted) == before
    assert pg.value("SELECT state FROM kda.streams") == "running"
    os.unlink(flag)
    wait_until(lambda: pg.value("SELECT sum(n) FROM full_v") == 25000, "everything")
    assert pg.value("SELECT count(*) FROM full_v") == 10000
    pg.check_sane()
    pg.destroy()


def test_on_error_stop(server, msk, kafka):
    kafka.create_topic("t_stop")
    server.sql("CREATE STREAM stopper (v int) SERVER msk OPTIONS (topic 't_stop', start 'earliest', on_error 'stop')")
    server.sql("CREATE CONTINUOUS VIEW stopper_v AS SELECT sum(v) s FROM stopper")
    kafka.produce("t_stop", [{"v": 1}])
    assert server.value("SELECT kda.wait('stopper')")
    kafka.produce("t_stop", [{"v": 10}, {"v": "bad"}, {"v": 100}])
    wait_until(lambda: server.value("SELECT state FROM kda.streams WHERE stream = 'stopper'::regclass") == "failed", "it to stop")
    error = server.value("SELECT last_error FROM kda.streams WHERE stream = 'stopper'::regclass")
    assert "position 2" in error and "shard 0" in error, error
    assert server.value("SELECT s FROM stopper_v") == 1
    server.sql("ALTER STREAM stopper OPTIONS (SET on_error 'continue')")
    server.sql("ALTER STREAM stopper RESUME")
    assert server.value("SELECT kda.wait('stopper')")
    assert server.value("SELECT s FROM stopper_v") == 111


def test_max_ahead(server, msk, kafka):
    kafka.create_topic("t_ahead")
    server.sql("CREATE STREAM ahead (rowtime timestamptz OPTIONS (path '$.ts')) SERVER msk OPTIONS (topic 't_ahead', start 'earliest')")
    server.sql("CREATE CONTINUOUS VIEW ahead_v AS SELECT count(*) n FROM ahead WINDOWED BY TUMBLING (INTERVAL '1' DAY)")
    kafka.produce("t_ahead", [{"ts": "2025-01-01T00:00:00Z"}, {"ts": "2999-01-01T00:00:00Z"}, {"ts": "2025-01-01T00:00:01Z"}, {"x": 1}])
    assert server.value("SELECT kda.wait('ahead')")
    assert server.sql("SELECT n FROM ahead_v") == [(2,)]
    assert [r[0] for r in server.sql("SELECT error_name FROM kda.error_stream WHERE stream = 'ahead'::regclass ORDER BY error_id")] in (
        ["ahead", "conversion"], ["conversion", "ahead"])


def test_idle_shards_let_time_go_on(server, msk, kafka):
    """A partition without records stops holding the watermark back; the wall clock closes the last window."""
    kafka.create_topic("t_idle", 2)
    server.sql("CREATE STREAM idle (rowtime timestamptz OPTIONS (path '$.ts')) SERVER msk OPTIONS (topic 't_idle', start 'earliest', idle_timeout '500 ms')")
    server.sql("CREATE CONTINUOUS VIEW idle_v AS SELECT count(*) n FROM idle WINDOWED BY TUMBLING (INTERVAL '1' SECOND) EMIT ON WINDOW CLOSE")
    kafka.produce("t_idle", [{"ts": "2025-01-01T00:00:00Z"}, {"ts": "2025-01-01T00:00:00.5Z"}], partition=0)
    assert server.value("SELECT kda.wait('idle')")
    assert server.sql("SELECT n FROM idle_v") == []
    wait_until(lambda: server.sql("SELECT n FROM idle_v") == [(2,)], "the window to close", 15)
    assert server.sql("SELECT DISTINCT state FROM kda.shards WHERE stream = 'idle'::regclass") == [("idle",)]
