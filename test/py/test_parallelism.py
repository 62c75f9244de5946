"""Several processes share the partitions of a stream: the same result, whatever is killed or changed meanwhile."""
import json
import os
import random
import signal
import subprocess
import time
from datetime import datetime, timedelta
from io import StringIO

import psycopg2
import pytest
from harness import BINDIR, FAULT_BINDIR, LONG, Feeder, Postgres, alive, caught_up, wait_until

SETTINGS = ["kda_stream.max_workers = 12", "max_worker_processes = 24", "kda_stream.retry_max_interval = '1s'",
            "wal_writer_delay = '10ms'"]

PARTITIONS = 4


def declare(server, name, topic, parallelism, worker="main"):
    """A stream and queries of every kind that several processes may share."""
    server.sql("CREATE STREAM {0} (rowtime timestamptz OPTIONS (path '$.ts'), id int, k text, v int, part int OPTIONS (meta 'shard')) SERVER msk "
               "OPTIONS (topic '{1}', start 'earliest', watermark '5 seconds', max_ahead 'never', parallelism '{2}', worker '{3}')".format(
                   name, topic, parallelism, worker))
    server.sql("""
        CREATE TABLE IF NOT EXISTS names (k text PRIMARY KEY, name text);
        INSERT INTO names SELECT k, 'the ' || k FROM unnest('{{a,b,c}}'::text[]) k ON CONFLICT DO NOTHING;
        CREATE TABLE {0}_table (id int, k text, v int);
        CREATE TABLE {0}_closed (at timestamptz, k text, n bigint);
        CREATE TABLE {0}_counts (k text PRIMARY KEY, n bigint, s bigint);
        CREATE TABLE {0}_windows (at timestamptz, k text, n bigint, PRIMARY KEY (at, k));
        CREATE TABLE {0}_sorted (n serial, id int, ts timestamptz);
        CREATE STREAM {0}_derived (rowtime timestamptz, k text, v int) OPTIONS (worker '{1}');
        CREATE STREAM {0}_rows (rowtime timestamptz, k text, v int) OPTIONS (worker '{1}')""".format(name, worker))
    with server.connect(autocommit=False) as conn:
        conn.cursor().execute("""
            CREATE CONTINUOUS VIEW {0}_tumbling AS SELECT k, count(*) n, sum(v) s, min(v) lo, max(v) hi, avg(v) m FROM {0}
                WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k;
            CREATE CONTINUOUS VIEW {0}_hop AS SELECT k, count(*) n, sum(v) s FROM {0}
                WINDOWED BY SLIDING (INTERVAL '30' SECOND, INTERVAL '10' SECOND) GROUP BY k;
            CREATE CONTINUOUS VIEW {0}_top AS SELECT k, sum(v) s FROM {0}
                WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k ORDER BY sum(v) DESC, k LIMIT 2;
            CREATE CONTINUOUS VIEW {0}_endless AS SELECT k, count(*) n, sum(v) s, stddev(v) d FROM {0} GROUP BY k HAVING count(*) > 0;
            CREATE CONTINUOUS VIEW {0}_all AS SELECT count(*) n, sum(v) s FROM {0};
            CREATE CONTINUOUS VIEW {0}_kept AS SELECT k, count(DISTINCT v) n, percentile_cont(0.5) WITHIN GROUP (ORDER BY v) m FROM {0}
                WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k;
            CREATE CONTINUOUS VIEW {0}_kept_hop AS SELECT count(DISTINCT k) n, array_agg(v ORDER BY v) a FROM {0}
                WINDOWED BY SLIDING (INTERVAL '20' SECOND, INTERVAL '10' SECOND);
            CREATE CONTINUOUS VIEW {0}_kept_endless AS SELECT k, count(DISTINCT v) n FROM {0} GROUP BY k;
            CREATE CONTINUOUS VIEW {0}_plain AS SELECT id, k, v FROM {0} WHERE v % 10 = 0;
            CREATE CONTINUOUS VIEW {0}_joined AS SELECT t.name, count(*) n FROM {0} s JOIN names t ON t.k = s.k
                WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY t.name;
            CREATE PUMP {0}_to_table AS INSERT INTO {0}_table SELECT id, k, v FROM {0} WHERE v % 7 = 0;
            CREATE PUMP {0}_to_closed AS INSERT INTO {0}_closed SELECT window_end, k, count(*) FROM {0}
                WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k;
            CREATE PUMP {0}_to_derived AS INSERT INTO {0}_derived (k, v) SELECT k, count(*) FROM {0}
                WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k;
            CREATE PUMP {0}_to_rows AS INSERT INTO {0}_rows SELECT rowtime, k, v FROM {0};
            -- what one process has to run: the others hand the records to it
            CREATE CONTINUOUS VIEW {0}_sessions AS SELECT k, count(*) n, sum(v) s FROM {0} WINDOWED BY SESSION (INTERVAL '0.1' SECOND) GROUP BY k;
            CREATE CONTINUOUS VIEW {0}_ids_of_sessions AS SELECT k, array_agg(id ORDER BY id) ids FROM {0}
                WHERE v % 2 = 0 WINDOWED BY SESSION (INTERVAL '0.1' SECOND) GROUP BY k;
            CREATE CONTINUOUS VIEW {0}_staggered AS SELECT part, count(*) n, sum(v) s FROM {0}
                WINDOWED BY STAGGER (PARTITION BY part RANGE INTERVAL '7' SECOND);
            CREATE CONTINUOUS VIEW {0}_arrays AS SELECT part, array_agg(id) ids FROM {0} WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY part;
            CREATE CONTINUOUS VIEW {0}_sliding AS SELECT id, count(*) OVER w n, sum(v) OVER w s FROM {0}
                WINDOW w AS (PARTITION BY k ORDER BY rowtime RANGE INTERVAL '1' SECOND PRECEDING);
            CREATE CONTINUOUS VIEW {0}_pairs AS SELECT a.id AS a, b.id AS b FROM {0} a JOIN {0} b
                ON a.k = b.k AND b.rowtime BETWEEN a.rowtime AND a.rowtime + INTERVAL '1' SECOND AND a.v % 10 = 0 AND b.v % 10 = 5;
            CREATE PUMP {0}_to_counts AS INSERT INTO {0}_counts SELECT k, count(*), sum(v) FROM {0} GROUP BY k
                ON CONFLICT (k) DO UPDATE SET n = EXCLUDED.n, s = EXCLUDED.s;
            CREATE PUMP {0}_to_windows AS INSERT INTO {0}_windows SELECT window_start, k, count(*) FROM {0}
                WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k EMIT CHANGES ON CONFLICT (at, k) DO UPDATE SET n = EXCLUDED.n;
            CREATE PUMP {0}_to_sorted AS INSERT INTO {0}_sorted (id, ts) SELECT s.id, s.rowtime FROM {0} s
                ORDER BY s.rowtime WITHIN INTERVAL '1' SECOND;
            CREATE CONTINUOUS VIEW {0}_over_plain AS SELECT k, count(*) n, sum(v) s FROM {0}_plain GROUP BY k;
            CREATE CONTINUOUS VIEW {0}_over_tumbling AS SELECT k, sum(n) n, count(*) windows FROM {0}_tumbling GROUP BY k
            """.format(name))
        conn.commit()
    server.sql("""
        CREATE CONTINUOUS VIEW {0}_derived_v AS SELECT k, sum(v) n FROM {0}_derived WINDOWED BY TUMBLING (INTERVAL '20' SECOND) GROUP BY k;
        CREATE CONTINUOUS VIEW {0}_rows_v AS SELECT k, count(*) n, sum(v) s FROM {0}_rows
            WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k""".format(name))


# the rows with the number of their session
SESSIONS = ("(SELECT *, sum(begins) OVER (PARTITION BY k ORDER BY ts) nth FROM (SELECT *, "
            "CASE WHEN ts - lag(ts) OVER (PARTITION BY k ORDER BY ts) <= interval '0.1 s' THEN 0 ELSE 1 END begins FROM {}) g) i")


def answers(name, plain):
    """(what the queries have given, the same SELECT over the table of all records), for each of them."""
    t = "(SELECT *, date_bin('10 s', ts, '2026-01-01 00:00:00+00') w FROM {0}) r".format(plain)
    return [s.format(name, t, plain) for s in (
        "SELECT window_start, k, n, s, lo, hi, m FROM {0}_tumbling | SELECT w, k, count(*), sum(v), min(v), max(v), avg(v) FROM {1} GROUP BY 1, 2",
        "SELECT window_start, k, n, s FROM {0}_hop | SELECT w - o * interval '10 s', k, count(*), sum(v) FROM {1}, generate_series(0, 2) o GROUP BY 1, 2",
        "SELECT window_start, k, s FROM {0}_top | SELECT w, k, s FROM (SELECT w, k, sum(v) s, row_number() OVER (PARTITION BY w ORDER BY sum(v) DESC, k) i FROM {1} GROUP BY 1, 2) x WHERE i <= 2",
        "SELECT k, n, s, round(d, 6) FROM {0}_endless | SELECT k, count(*), sum(v), round(stddev(v), 6) FROM {1} GROUP BY 1",
        "SELECT window_start, k, n, m FROM {0}_kept | SELECT w, k, count(DISTINCT v), percentile_cont(0.5) WITHIN GROUP (ORDER BY v) FROM {1} GROUP BY 1, 2",
        "SELECT window_start, n, a FROM {0}_kept_hop | SELECT w - o * interval '10 s', count(DISTINCT k), array_agg(v ORDER BY v) FROM {1}, generate_series(0, 1) o GROUP BY 1",
        "SELECT k, n FROM {0}_kept_endless | SELECT k, count(DISTINCT v) FROM {1} GROUP BY 1",
        "SELECT n, s FROM {0}_all | SELECT count(*), sum(v) FROM {1}",
        "SELECT id, k, v FROM {0}_plain | SELECT id, k, v FROM {1} WHERE v % 10 = 0",
        "SELECT window_start, name, n FROM {0}_joined | SELECT w, 'the ' || k, count(*) FROM {1} WHERE k IN ('a', 'b', 'c') GROUP BY 1, 2",
        "SELECT id, k, v FROM {0}_table | SELECT id, k, v FROM {1} WHERE v % 7 = 0",
        "SELECT k, n, s FROM {0}_over_plain | SELECT k, count(*), sum(v) FROM {1} WHERE v % 10 = 0 GROUP BY 1",
        "SELECT window_start, k, n, s FROM {0}_rows_v | SELECT w, k, count(*), sum(v) FROM {1} GROUP BY 1, 2",
        "SELECT window_start, window_end, k, n, s FROM {0}_sessions | "
        "SELECT min(ts), max(ts) + interval '0.1 s', k, count(*), sum(v) FROM " + SESSIONS.format("{1}") + " GROUP BY k, nth",
        "SELECT window_start, k, ids FROM {0}_ids_of_sessions | "
        "SELECT min(ts), k, array_agg(id ORDER BY id) FROM " + SESSIONS.format("(SELECT * FROM {1} WHERE v % 2 = 0) e") + " GROUP BY k, nth",
        "SELECT window_start, part, n, s FROM {0}_staggered | SELECT at, part, count(*), sum(v) FROM {1} JOIN {2}_staggered USING (id) GROUP BY 1, 2",
        # as in PostgreSQL, nothing says in which order
        "SELECT window_start, part, (SELECT array_agg(i ORDER BY i) FROM unnest(ids) i) FROM {0}_arrays | SELECT w, part, array_agg(id ORDER BY id) FROM {1} GROUP BY 1, 2",
        "SELECT a, b FROM {0}_pairs | SELECT a.id, b.id FROM {2} a JOIN {2} b ON a.k = b.k AND b.ts BETWEEN a.ts AND a.ts + interval '1 s' "
        "AND a.v % 10 = 0 AND b.v % 10 = 5",
        "SELECT k, n, s FROM {0}_counts | SELECT k, count(*), sum(v) FROM {1} GROUP BY 1",
        "SELECT at, k, n FROM {0}_windows | SELECT w, k, count(*) FROM {1} GROUP BY 1, 2",
    )]


def closed_answers(name, plain):
    """Of windows that have closed."""
    t = "(SELECT *, date_bin('10 s', ts, '2026-01-01 00:00:00+00') w FROM {0}) r".format(plain)
    return [s.format(name, t) for s in (
        "SELECT at, k, n FROM {0}_closed | SELECT w + interval '10 s', k, count(*) FROM {1} "
        "WHERE w + interval '10 s' <= kda.watermark('{0}'::regclass) GROUP BY 1, 2",
        "SELECT window_start, k, n FROM {0}_derived_v | SELECT date_bin('20 s', w, '2026-01-01 00:00:00+00'), k, count(*) FROM {1} "
        "WHERE w + interval '10 s' <= kda.watermark('{0}'::regclass) GROUP BY 1, 2",
        "SELECT k, n, windows FROM {0}_over_tumbling | SELECT k, sum(n), count(*) FROM (SELECT w, k, count(*) n FROM {1} "
        "WHERE w + interval '10 s' <= kda.watermark('{0}'::regclass) GROUP BY 1, 2) c GROUP BY 1",
        "SELECT id, n, s FROM {0}_sliding | SELECT id, n, s FROM (SELECT id, ts, count(*) OVER w n, sum(v) OVER w s FROM {1} "
        "WINDOW w AS (PARTITION BY k ORDER BY ts RANGE INTERVAL '1 s' PRECEDING)) o WHERE ts <= kda.watermark('{0}'::regclass)",
        "SELECT row_number() OVER (ORDER BY n), id FROM {0}_sorted | "
        "SELECT row_number() OVER (ORDER BY ts), id FROM {1} WHERE ts <= kda.watermark('{0}'::regclass) - interval '1 s'",
    )]


def compare(server, name, plain="plain"):
    for both in answers(name, plain) + closed_answers(name, plain):
        got, want = both.split(" | ")
        # repeated rows count: EXCEPT ALL
        text = "(SELECT 'got', x::text FROM (({0}) EXCEPT ALL ({1})) x) UNION ALL (SELECT 'want', x::text FROM (({1}) EXCEPT ALL ({0})) x) LIMIT 10".format(got, want)
        # the relay follows the watermark, which may go on with the clock by now, with its next commit
        until = time.monotonic() + 10
        while (differ := server.sql(text)) and time.monotonic() < until:
            time.sleep(0.1)
        assert differ == [], (both, differ)
        assert server.value("SELECT count(*) > 0 FROM (%s) x" % want), "nothing to compare: " + want


def staggered(records, size=timedelta(seconds=7), delay=timedelta(seconds=5)):
    """The id of each record with the start of its window: the one that a record of its partition, in the order there, has opened."""
    opened, greatest = {}, {}
    for number, ts, _, _, part in records:
        t = datetime.fromisoformat(ts.replace("Z", "+00:00"))
        past = greatest.get(part, t) - delay
        starts = opened.setdefault(part, [])
        start = next((s for s in starts if s <= t < s + size and s + size > past), None)
        if start is None:
            starts.append(start := t)
        del starts[:-20]        # older ones are past
        greatest[part] = max(greatest.get(part, t), t)
        yield number, start.isoformat()


class Records(Feeder):
    """Records to all partitions, which it remembers; a number of them, or until it is told to stop."""

    def __init__(self, kafka, topic, per_second=1500, seed=1, records=None):
        super().__init__(kafka, topic, per_second if records is None else None, seed)
        self.limit = records
        self.records = []
        self.second = 3.0
        self.times = set()

    def one(self, p):
        if self.limit is not None and len(self.records) >= self.limit:
            self.stopping.set()
            return
        r = self.random
        self.second += 0.01
        # out of order, within the stream's watermark; no two at once, among which the order of arrival would decide
        at = round(self.second - r.random() * 3, 6)
        while at in self.times:
            at = round(at + 0.000001, 6)
        self.times.add(at)
        ts = "2026-01-01T%02d:%02d:%09.6fZ" % (at // 3600, at // 60 % 60, at % 60)
        record = (len(self.records), ts, r.choice("abcdef"), r.randrange(1000), r.randrange(PARTITIONS))
        self.records.append(record)
        p.produce(self.topic, json.dumps(dict(zip(("id", "ts", "k", "v"), record))), partition=record[4])

    def finish(self, server, plain="plain"):
        self.stop()
        with server.connect() as conn:
            cur = conn.cursor()
            cur.execute("CREATE TABLE %s (id int, ts timestamptz, k text, v int, part int); "
                        "CREATE TABLE %s_staggered (id int, at timestamptz)" % (plain, plain))
            cur.copy_expert("COPY %s FROM STDIN" % plain, StringIO("".join("%d\t%s\t%s\t%d\t%d\n" % r for r in self.records)))
            cur.copy_expert("COPY %s_staggered FROM STDIN" % plain, StringIO("".join("%d\t%s\n" % r for r in staggered(self.records))))
            cur.execute("CREATE INDEX ON %s (k, ts); ANALYZE %s" % (plain, plain))


def own_server(name, kafka, *settings, **how):
    """One that may crash."""
    server = Postgres(name, SETTINGS + list(settings), **how).start()
    server.sql("CREATE EXTENSION kda_stream")
    server.sql("""CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '%s')""" % kafka.address)
    return server


def slots_of(server, stream):
    return [r[0] for r in server.sql("SELECT slot FROM kda.shards WHERE stream = %s::regclass ORDER BY shard", stream)]


def pipeline(server):
    try:
        return server.workers()
    except psycopg2.Error:
        return []


@pytest.mark.parametrize("parallelism", [1, 2, 3, 4])
def test_same_result_with_any_number_of_processes(server, kafka, msk, parallelism):
    topic, name, plain = "t_par%d" % parallelism, "par%d" % parallelism, "plain%d" % parallelism
    kafka.create_topic(topic, PARTITIONS)
    feeder = Records(kafka, topic, records=6000)
    declare(server, name, topic, parallelism, "w%d" % parallelism)
    feeder.start()
    feeder.finish(server, plain)
    caught_up(server, name)
    compare(server, name, plain)
    assert slots_of(server, name) == [i % parallelism for i in range(PARTITIONS)]
    assert server.sql("SELECT slot FROM kda.workers WHERE worker = 'w%d' AND state = 'running' ORDER BY 1" % parallelism) == [(i,) for i in range(parallelism)]
    assert server.value("SELECT records_late FROM kda.streams WHERE stream = %s::regclass", name) == 0
    assert server.value("SELECT records_in FROM kda.streams WHERE stream = %s::regclass", name) == 6000
    for obj in ("PUMP {0}_to_table", "PUMP {0}_to_closed", "PUMP {0}_to_derived", "PUMP {0}_to_rows", "PUMP {0}_to_counts",
                "PUMP {0}_to_windows", "PUMP {0}_to_sorted"):
        server.sql("DROP " + obj.format(name))
    server.sql("DROP STREAM {0} CASCADE; DROP STREAM {0}_derived CASCADE; DROP STREAM {0}_rows CASCADE".format(name))


def set_parallelism(server, name, n):
    server.sql("ALTER STREAM %s OPTIONS (SET parallelism '%d')" % (name, n))


def test_parallelism_changes_while_records_flow(server, kafka, msk):
    """Shards and open windows change hands; nothing is lost, nothing counts twice."""
    kafka.create_topic("t_change", PARTITIONS)
    declare(server, "change", "t_change", 1, "wc")
    feeder = Records(kafka, "t_change", seed=2)
    feeder.start()
    for n in (3, 2, 4, 1, 2, 3, 1):
        wait_until(lambda: server.value("SELECT records_in > 500 FROM kda.streams WHERE stream = 'change'::regclass"), "records to flow")
        set_parallelism(server, "change", n)
        server.sql("SELECT kda.reset_statistics('change')")
        wait_until(lambda: set(slots_of(server, "change")) == set(range(n)), "the shards to be divided")
    wait_until(lambda: server.value("SELECT records_in > 500 FROM kda.streams WHERE stream = 'change'::regclass"), "records to flow")
    feeder.finish(server, "plain_change")
    caught_up(server, "change")
    compare(server, "change", "plain_change")
    assert server.value("SELECT records_late FROM kda.streams WHERE stream = 'change'::regclass") == 0
    wait_until(lambda: server.sql("SELECT slot FROM kda.workers WHERE worker = 'wc'") == [(0,)], "the other processes to end")
    # nothing is left of windows that have closed
    server.sql("SELECT kda.advance('change', '2026-02-01 00:00:00+00')")
    caught_up(server, "change")
    for view in ("tumbling", "hop", "top", "joined", "kept", "kept_hop"):
        table = "kda_storage.open_%d" % server.value("SELECT query_id FROM kda_storage.query WHERE rel = 'change_%s'::regclass" % view)
        wait_until(lambda: server.value("SELECT count(*) FROM " + table) == 0, "nothing to be left of " + view)


def test_kill_9_of_slots_at_random_moments(kafka):
    server = own_server("slotkill", kafka, "kda_stream.commit_interval = '20ms'")
    kafka.create_topic("t_slotkill", PARTITIONS)
    seed = int(os.environ.get("KDA_SEED", "11"))
    r = random.Random(seed)
    declare(server, "slotkill", "t_slotkill", 3)
    feeder = Records(kafka, "t_slotkill", seed=seed)
    feeder.start()
    for i in range(60 if LONG else 20):
        time.sleep(r.random() * 0.8)
        what = ("process", "terminate", "postmaster", "change", "process")[i % 5]
        if what == "postmaster":
            server.crash()
            server.start()
        elif what == "change":
            wait_until(server.answers, "the server to recover")
            try:
                set_parallelism(server, "slotkill", r.randrange(1, 5))
            except psycopg2.Error:
                pass        # it may have been on its way down
        else:
            pids = wait_until(lambda: pipeline(server), "a process to be there")
            pid = r.choice(pids)
            try:
                os.kill(pid, signal.SIGKILL if what == "process" else signal.SIGTERM)
            except ProcessLookupError:
                pass
            wait_until(lambda: not alive(pid), "it to be gone")
        wait_until(server.answers, "the server to recover")
    # the postmaster may not have noticed the last one yet
    feeder.stop()
    caught_up(server, "slotkill")
    feeder.finish(server)
    caught_up(server, "slotkill")
    compare(server, "slotkill")
    assert server.value("SELECT records_late FROM kda.streams WHERE stream = 'slotkill'::regclass") == 0
    assert server.value("SELECT records_in FROM kda.streams WHERE stream = 'slotkill'::regclass") == len(feeder.records), "seed %d" % seed
    assert "PANIC" not in server.log_text()
    server.destroy()


FAULTS = ["relayed", "relay_ended", "read", "watermark", "query", "write_back", "write_back_new", "queries", "close", "emit_closed", "emit_stream", "emit_table", "closed", "settled",
          "slots_read", "slots_published", "slots_divided", "save", "saved", "commit", "committed", "remember"]
# reached only when the number of processes changes
OF_A_CHANGE = ("slots_divided", "relay_ended")


def test_faults_in_any_process_at_any_point(kafka):
    """One process fails, ends or crashes in the middle of it; the others go on from what it has committed."""
    server = own_server("slotfaults", kafka, "kda_stream.commit_interval = '10ms'", "kda_stream.batch_records = 200", "kda_stream.buffer_size = '1MB'", "fsync = off",
                        bindir=FAULT_BINDIR)
    server.sql("CREATE SCHEMA fault")
    server.sql("CREATE FUNCTION fault.arm(text, int, text) RETURNS void LANGUAGE C STRICT AS '$libdir/kda_stream', 'kda_fault_arm'")
    server.sql("CREATE FUNCTION fault.armed() RETURNS text LANGUAGE C AS '$libdir/kda_stream', 'kda_fault_armed'")
    kafka.create_topic("t_slotfaults", PARTITIONS)
    seed = int(os.environ.get("KDA_SEED", "5"))
    r = random.Random(seed)
    declare(server, "slotfaults", "t_slotfaults", 2)
    feeder = Records(kafka, "t_slotfaults", seed=seed)
    feeder.start()

    def patiently(text, *args):
        def attempt():
            try:
                return [server.value(text, *args)]
            except psycopg2.Error:
                return None
        return wait_until(attempt, "an answer")[0]

    n = 2
    for point in r.sample(FAULTS, len(FAULTS)) * (3 if LONG else 1):
        action = r.choice(["40001", "58030", "kill"])
        patiently("SELECT fault.arm(%s, %s, %s)", point, r.choice([1, 2, 5]) if point not in OF_A_CHANGE else 1, action)

        def reached():
            nonlocal n
            if patiently("SELECT fault.armed()") is None:
                return True
            if point == "slots_divided":
                n = n % 4 + 1
            elif point == "relay_ended":
                n = 1 if n > 1 and set(slots_of(server, "slotfaults")) != {0} else 3
            if point in OF_A_CHANGE:
                patiently("ALTER STREAM slotfaults OPTIONS (SET parallelism '%d')" % n)
            return False
        wait_until(reached, "%s at %s to be reached" % (action, point), 120, 0.3 if point in OF_A_CHANGE else 0.05)
        if r.random() < 0.3:
            n = r.randrange(1, 5)
            patiently("ALTER STREAM slotfaults OPTIONS (SET parallelism '%d')" % n)
        if n == 1:
            n = r.randrange(2, 5)      # the points of several processes are to be reached
            patiently("ALTER STREAM slotfaults OPTIONS (SET parallelism '%d')" % n)
    wait_until(server.answers, "the server to recover")
    feeder.finish(server)
    caught_up(server, "slotfaults")
    assert server.sql("SELECT name, last_error FROM kda.queries WHERE state <> 'running'") == [], "seed %d" % seed
    compare(server, "slotfaults")
    assert server.value("SELECT records_in FROM kda.streams WHERE stream = 'slotfaults'::regclass") == len(feeder.records), "seed %d" % seed
    server.destroy()


def test_idle_shards_wake_up_while_windows_close(kafka):
    """
    A shard that was idle brings records of any age, just when another process closes windows: each of them is
    counted in a window or refused as late, never neither.
    """
    server = own_server("slotidle", kafka, "kda_stream.commit_interval = '5ms'")
    kafka.create_topic("t_slotidle", PARTITIONS)
    server.sql("CREATE STREAM idle (rowtime timestamptz OPTIONS (path '$.ts'), k text) SERVER msk "
               "OPTIONS (topic 't_slotidle', start 'earliest', idle_timeout '20 ms', max_ahead 'never', parallelism '3')")
    server.sql("CREATE CONTINUOUS VIEW idle_v AS SELECT k, count(*) n FROM idle WINDOWED BY TUMBLING (INTERVAL '1' SECOND) GROUP BY k")
    p = kafka.producer(linger_ms=0)
    r = random.Random(int(os.environ.get("KDA_SEED", "3")))
    sent = 0
    second = 0.0
    for i in range(300 if LONG else 120):
        # one or two partitions at a time, the others fall silent
        for part in r.sample(range(PARTITIONS), r.randrange(1, 3)):
            for _ in range(20):
                second += 0.02
                at = max(0.0, second - r.random() * r.choice((0.5, 3)))
                p.produce("t_slotidle", json.dumps({"ts": "2026-01-01T00:%02d:%09.6fZ" % (at // 60, at % 60), "k": r.choice("ab")}), partition=part)
                sent += 1
        p.flush()
        if i % 40 == 39:
            pids = pipeline(server)
            if pids:
                os.kill(r.choice(pids), signal.SIGTERM)
        time.sleep(r.random() * 0.06)
    caught_up(server, "idle")
    counted = server.value("SELECT sum(n) FROM idle_v")
    late = server.value("SELECT records_late FROM kda.queries WHERE name = 'idle_v'")
    assert counted + late == sent, (counted, late, sent)
    assert server.value("SELECT records_in FROM kda.streams WHERE stream = 'idle'::regclass") == sent
    assert late > 0, "no shard has woken up behind a closed window: the test shows nothing"
    assert server.value("SELECT count(*) - count(DISTINCT (window_start, k)) FROM idle_v") == 0
    # at the end everything closes, and the result is the same
    server.sql("SELECT kda.advance('idle', '2026-02-01 00:00:00+00')")
    caught_up(server, "idle")
    assert server.value("SELECT sum(n) FROM idle_v") == counted
    table = "kda_storage.open_%d" % server.value("SELECT query_id FROM kda_storage.query")
    wait_until(lambda: server.value("SELECT count(*) FROM " + table) == 0, "the processes to forget what has closed")
    server.destroy()


def test_reset_pause_late_and_errors(server, kafka, msk):
    """What is said to a stream holds for all of its processes."""
    kafka.create_topic("t_ops", PARTITIONS)
    server.sql("CREATE STREAM ops (rowtime timestamptz OPTIONS (path '$.ts'), k text, v int) SERVER msk "
               "OPTIONS (topic 't_ops', start 'earliest', max_ahead 'never', idle_timeout 'never', parallelism '3', worker 'ops')")
    server.sql("CREATE CONTINUOUS VIEW ops_v AS SELECT k, count(*) n, 100 / sum(v) AS r FROM ops WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;"
               "CREATE CONTINUOUS VIEW ops_closed AS SELECT k, count(*) n FROM ops WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k EMIT ON WINDOW CLOSE")

    def put(at, v=1, k="a", partitions=range(PARTITIONS)):
        for p in partitions:
            kafka.produce("t_ops", [{"ts": "2026-01-01T10:%s:00Z" % at, "k": k, "v": v}], partition=p)
        caught_up(server, "ops")

    def rows(view="ops_closed"):
        return server.sql("SELECT to_char(window_start, 'MI'), k, n FROM %s ORDER BY 1, 2" % view)

    put("00")
    assert rows() == [] and server.sql("SELECT n, r FROM ops_v") == [(4, 25)]
    # all but one partition have passed the minute
    put("02", partitions=(0, 1, 2))
    assert rows() == []
    put("02", partitions=(3,))
    assert rows() == [("00", "a", 4)]
    # late: in its own shard
    put("00", partitions=(2,))
    assert server.sql("SELECT records_late FROM kda.streams WHERE stream = 'ops'::regclass") == [(1,)]
    assert rows() == [("00", "a", 4)]
    # an error in the final part: that key of that window, whichever processes have states of it
    put("02", v=-1, k="bad", partitions=(0, 1))
    put("02", v=1, k="bad", partitions=(2, 3))
    put("04")
    assert rows() == [("00", "a", 4), ("02", "a", 4), ("02", "bad", 4)]
    assert server.sql("SELECT to_char(window_start, 'MI'), k, n, r FROM ops_v WHERE window_start < '2026-01-01 10:04:00+00' ORDER BY 1, 2") == [
        ("00", "a", 4, 25), ("02", "a", 4, 25)]
    assert server.sql("SELECT error_name, message FROM kda.error_stream WHERE query = 'ops_v'::regclass") == [("expression", "division by zero")]
    # a record that cannot be decoded, in each of them
    for p in range(PARTITIONS):
        kafka.produce("t_ops", ["{"], partition=p)
    caught_up(server, "ops")
    assert server.value("SELECT count(*) FROM kda.error_stream WHERE stream = 'ops'::regclass AND error_name = 'malformed'") == 4
    # paused, none of them reads
    server.sql("ALTER STREAM ops PAUSE")
    for p in range(PARTITIONS):
        kafka.produce("t_ops", [{"ts": "2026-01-01T10:04:00Z", "k": "b", "v": 1}], partition=p)
    assert not server.value("SELECT kda.wait('ops', '300 ms')")
    server.sql("ALTER STREAM ops RESUME")
    caught_up(server, "ops")
    assert server.sql("SELECT k, n FROM ops_v WHERE window_start = '2026-01-01 10:04:00+00' ORDER BY 1") == [("a", 4), ("b", 4)]
    # RESET emits what is open in all of them, and time begins anew
    server.sql("ALTER STREAM ops RESET")
    wait_until(lambda: rows()[-2:] == [("04", "a", 4), ("04", "b", 4)], "the open windows to leave")
    caught_up(server, "ops")
    assert server.value("SELECT kda.watermark('ops')") is None
    put("01")
    assert server.sql("SELECT k, n, window_closed FROM (SELECT *, false AS window_closed FROM ops_v WHERE window_start = '2026-01-01 10:01:00+00') x") == [("a", 4, False)]
    # kda.advance closes in all of them
    server.sql("SELECT kda.advance('ops', '2026-01-01 11:00:00+00')")
    caught_up(server, "ops")
    assert ("01", "a", 4) in rows()
    # a partition that appears is read from its beginning, by one of them
    kafka.add_partitions("t_ops", 6)
    for p in (4, 5):
        kafka.produce("t_ops", [{"ts": "2026-01-01T12:00:00Z", "k": "new", "v": 1}] * 5, partition=p)
    wait_until(lambda: slots_of(server, "ops") == [0, 1, 2, 0, 1, 2], "the new partitions to be known", 120)
    caught_up(server, "ops")
    assert server.sql("SELECT n FROM ops_v WHERE k = 'new'") == [(10,)]
    server.sql("DROP STREAM ops CASCADE")
    wait_until(lambda: server.value("SELECT count(*) FROM kda.workers WHERE worker = 'ops'") == 0, "its processes to end")


def test_queries_that_one_process_runs(server, kafka, msk):
    """What is late, refused, waited for and reset, where records come by way of other processes: as if it had read them itself."""
    kafka.create_topic("t_one", PARTITIONS)
    server.sql("CREATE STREAM one (rowtime timestamptz OPTIONS (path '$.ts'), k text, v int) SERVER msk "
               "OPTIONS (topic 't_one', start 'earliest', max_ahead 'never', idle_timeout 'never', parallelism '3', worker 'one')")
    with server.connect(autocommit=False) as conn:
        conn.cursor().execute("CREATE CONTINUOUS VIEW one_sessions AS SELECT k, count(*) n, sum(100 / v) r FROM one "
                              "WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k EMIT ON WINDOW CLOSE;"
                              "CREATE CONTINUOUS VIEW one_tumbling AS SELECT k, count(*) n FROM one "
                              "WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k EMIT ON WINDOW CLOSE")
        conn.commit()

    def put(at, v=1, k="a", partitions=range(PARTITIONS)):
        for p in partitions:
            kafka.produce("t_one", [{"ts": "2026-01-01T10:%s:00Z" % at, "k": k, "v": v}], partition=p)
        caught_up(server, "one")

    def rows():
        return server.sql("SELECT to_char(window_start, 'MI'), to_char(window_end, 'MI'), k, n FROM one_sessions ORDER BY 1, 3")

    # one session, of the records of all processes
    put("00", partitions=(0, 2))
    put("01", partitions=(1, 3))
    put("05", partitions=(0, 1, 2))
    # the fourth partition holds it open
    assert rows() == []
    put("05", partitions=(3,))
    assert rows() == [("00", "02", "a", 4)]
    # late in both queries, counted and reported once; an error in this one alone, with its place
    put("00", partitions=(2,))
    put("05", v=0, partitions=(1,))
    assert server.sql("SELECT records_late, records_failed FROM kda.streams WHERE stream = 'one'::regclass") == [(1, 1)]
    assert server.sql("SELECT name, records_late FROM kda.queries WHERE name LIKE 'one\\_%' ORDER BY 1") == [("one_sessions", 1), ("one_tumbling", 1)]
    assert server.sql("SELECT error_name, stream::text, shard, position, query::text, data_text::json ->> 'k' "
                      "FROM kda.error_stream WHERE stream = 'one'::regclass ORDER BY error_id") == [
        ("late", "one", "2", "2", None, "a"), ("expression", "one", "1", "2", "one_sessions", "a")]
    # groups and state of all processes; a query's own watermark
    assert server.sql("SELECT name, groups, state_bytes > 0, watermark FROM kda.queries q WHERE name LIKE 'one\\_%' ORDER BY 1") == [
        ("one_sessions", 1, True, server.value("SELECT kda.watermark('one')")),
        ("one_tumbling", 3, True, server.value("SELECT kda.watermark('one')"))]
    # a process that is gone holds back what is not read, and nothing closes too early
    put("06", k="b", partitions=(0, 1, 2, 3))
    assert server.sql("SELECT n FROM one_sessions WHERE k = 'b'") == []
    # a further query begins with what comes from now on
    server.sql("CREATE CONTINUOUS VIEW one_later WITH (start = 'latest') AS SELECT v, count(*) OVER (ORDER BY rowtime ROWS 2 PRECEDING) n FROM one")
    put("07", v=7, k="b")
    assert server.sql("SELECT v, n FROM one_later ORDER BY n") == [(7, 1), (7, 2), (7, 3), (7, 3)]
    # RESET emits what is open in all of them, in the order of its records, and time begins anew
    server.sql("ALTER STREAM one RESET")
    wait_until(lambda: rows()[-1:] == [("06", "08", "b", 8)], "the open sessions to leave")
    caught_up(server, "one")
    assert server.value("SELECT kda.watermark('one_sessions')") is None
    put("01", k="c")
    put("04", k="c")
    assert ("01", "02", "c", 4) in rows()
    # a column that comes later is handed on, too
    server.sql("ALTER STREAM one ADD COLUMN w int")
    server.sql("CREATE CONTINUOUS VIEW one_wide WITH (start = 'latest') AS SELECT w, count(*) n FROM one WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY w")
    for p in range(PARTITIONS):
        kafka.produce("t_one", [{"ts": "2026-01-01T10:05:00Z", "k": "d", "v": 1, "w": 9}], partition=p)
    caught_up(server, "one")
    assert server.sql("SELECT w, n FROM one_wide") == [(9, 4)]
    # on_error 'stop': the stream stops, as for a record that its own process has refused
    server.sql("ALTER STREAM one OPTIONS (ADD on_error 'stop')")
    kafka.produce("t_one", [{"ts": "2026-01-01T10:06:00Z", "k": "e", "v": 0}], partition=3)
    wait_until(lambda: server.value("SELECT state FROM kda.streams WHERE stream = 'one'::regclass") == "failed", "the stream to stop")
    assert "shard 3 position" in server.value("SELECT last_error FROM kda.streams WHERE stream = 'one'::regclass")
    server.sql("ALTER STREAM one OPTIONS (SET on_error 'continue')")
    server.sql("ALTER STREAM one RESUME")
    put("07", k="e")
    assert server.sql("SELECT count(*) FROM kda.error_stream WHERE stream = 'one'::regclass AND shard = '3'") == [(1,)]
    server.sql("DROP STREAM one CASCADE")
    wait_until(lambda: server.value("SELECT count(*) FROM kda.workers WHERE worker = 'one'") == 0, "its processes to end")
    assert server.sql("SELECT relname FROM pg_class WHERE relname LIKE 'inbox%' AND relkind = 'r' AND relnamespace = 'kda_storage'::regnamespace "
                      "AND NOT EXISTS (SELECT FROM kda_storage.stream s WHERE pg_class.oid IN (s.inbox, s.inbox2))") == []


def test_reset_while_records_flow(server, kafka, msk):
    """RESET goes through all parts of a query, and comes to its end though the other processes never run out of records; each counts once, before it or after."""
    kafka.create_topic("t_flow", PARTITIONS)
    server.sql("CREATE STREAM flow (rowtime timestamptz OPTIONS (path '$.ts'), id int, k text, v int) SERVER msk "
               "OPTIONS (topic 't_flow', start 'earliest', watermark '5 seconds', max_ahead 'never', idle_timeout 'never', parallelism '2', worker 'flow')")
    once = {
        "tumbling": "SELECT k, count(*) n FROM flow WINDOWED BY TUMBLING (INTERVAL '2' SECOND) GROUP BY k",
        "sessions": "SELECT k, count(*) n FROM flow WINDOWED BY SESSION (INTERVAL '0.1' SECOND) GROUP BY k",
        "twice": "SELECT sum(n) n FROM (SELECT k, count(*) n FROM flow WINDOWED BY TUMBLING (INTERVAL '2' SECOND) GROUP BY k) i WINDOWED BY TUMBLING (INTERVAL '10' SECOND)",
        "both": "SELECT k, count(*) n FROM (SELECT rowtime, k FROM flow WHERE v < 500 UNION ALL SELECT rowtime, k FROM flow WHERE v >= 500) u "
                "WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k",
        "over": "SELECT count(n) n FROM (SELECT rowtime, count(*) OVER (PARTITION BY k RANGE INTERVAL '1' SECOND PRECEDING) n FROM flow) o WINDOWED BY TUMBLING (INTERVAL '10' SECOND)",
        "paired": "SELECT count(b.id) n FROM flow a LEFT JOIN flow b ON a.id = b.id AND b.rowtime BETWEEN a.rowtime AND a.rowtime WINDOWED BY TUMBLING (INTERVAL '10' SECOND)"}
    with server.connect(autocommit=False) as conn:
        for name, query in once.items():
            conn.cursor().execute("CREATE CONTINUOUS VIEW flow_%s AS %s" % (name, query))
        conn.commit()
    feeder = Records(kafka, "t_flow", per_second=3000, seed=5)
    feeder.start()
    for i in range(4):
        wait_until(lambda: server.value("SELECT records_in > 2000 FROM kda.streams WHERE stream = 'flow'::regclass"), "records to flow")
        server.sql("ALTER STREAM flow RESET")
        if i % 2 == 1:
            server.sql("SELECT pg_terminate_backend(pid) FROM kda.workers WHERE worker = 'flow'")
        wait_until(lambda: server.value("SELECT count(*) FROM kda_storage.stream JOIN kda_storage.stream_progress USING (stream_id) WHERE resets_wanted > resets_done") == 0, "RESET to come to its end")
        server.sql("SELECT kda.reset_statistics('flow')")
    feeder.finish(server, "plain_flow")
    caught_up(server, "flow")
    # what is open between the parts comes, too
    server.sql("ALTER STREAM flow RESET")
    wait_until(lambda: server.value("SELECT count(*) FROM kda_storage.stream JOIN kda_storage.stream_progress USING (stream_id) WHERE resets_wanted > resets_done") == 0, "the last RESET to come to its end")
    caught_up(server, "flow")
    total = len(feeder.records)
    assert server.sql("SELECT name, records_late, state FROM kda.queries WHERE name LIKE 'flow\\_%' AND (records_late > 0 OR state <> 'running')") == []
    assert {name: server.value("SELECT sum(n) FROM flow_" + name) for name in once} == {name: total for name in once}
    server.sql("DROP STREAM flow CASCADE")
    wait_until(lambda: server.value("SELECT count(*) FROM kda.workers WHERE worker = 'flow'") == 0, "its processes to end")


def test_what_is_handed_on_is_bounded(kafka):
    """When slot 0 does not take what the others hand it, they stop reading at some point, and go on when it does."""
    pg = own_server("bounded", kafka, "kda_stream.commit_interval = '5ms'", "kda_stream.batch_records = 500", "kda_stream.buffer_size = '1MB'")
    kafka.create_topic("t_bounded", PARTITIONS)
    pg.sql("CREATE STREAM bounded (rowtime timestamptz OPTIONS (path '$.ts'), k text) SERVER msk "
           "OPTIONS (topic 't_bounded', start 'earliest', max_ahead 'never', parallelism '2');"
           "CREATE CONTINUOUS VIEW bounded_v AS SELECT k, count(*) n FROM bounded WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k")
    each = 10000
    for p in range(PARTITIONS):
        kafka.produce("t_bounded", [{"ts": "2026-01-01T10:00:00Z", "k": "k%d" % p}], partition=p)
    caught_up(pg, "bounded")
    with pg.connect(autocommit=False) as conn:
        conn.cursor().execute("LOCK TABLE kda_storage.open_%d" % pg.value("SELECT query_id FROM kda_storage.query"))
        for p in range(PARTITIONS):
            kafka.produce("t_bounded", [{"ts": "2026-01-01T10:00:00Z", "k": "k%d" % p}] * each, partition=p)

        def read():
            return pg.value("SELECT sum(position::bigint) FROM kda.shards WHERE stream = 'bounded'::regclass AND slot = 1") or 0

        def stands():
            before = read()
            time.sleep(1)
            return before > 2 and read() == before
        wait_until(stands, "slot 1 to stop reading")
        assert read() < 2 * each
    caught_up(pg, "bounded")
    assert pg.sql("SELECT k, n FROM bounded_v ORDER BY k") == [("k%d" % p, each + 1) for p in range(PARTITIONS)]
    pg.destroy()


def test_processes_that_find_no_slot(kafka):
    """They are named; what they have to read waits, and comes when there is room."""
    pg = own_server("fewslots", kafka, "kda_stream.commit_interval = '20ms'", "kda_stream.max_workers = 2")
    kafka.create_topic("t_few", 3)
    conn = pg.connect()
    conn.cursor().execute("CREATE STREAM few (v int) SERVER msk OPTIONS (topic 't_few', start 'earliest', parallelism '3')")
    assert [n for n in conn.notices if "WARNING" in n and "kda_stream.max_workers" in n], conn.notices
    conn.close()
    pg.sql("CREATE CONTINUOUS VIEW few_v AS SELECT count(*) n FROM few")
    for p in range(3):
        kafka.produce("t_few", [{"v": 1}] * 10, partition=p)
    wait_until(lambda: pg.value("SELECT n FROM few_v") == 20, "two of three partitions")
    assert not pg.value("SELECT kda.wait('few', '300 ms')")
    assert pg.sql("SELECT worker, state FROM kda.workers WHERE kind = 'pipeline' AND pid IS NULL AND last_error LIKE '%kda_stream.max_workers%'") == [("main", "starting")]
    pg.sql("ALTER STREAM few OPTIONS (SET parallelism '2')")
    caught_up(pg, "few")
    assert pg.value("SELECT n FROM few_v") == 30
    assert pg.value("SELECT count(*) FROM kda.workers WHERE kind = 'pipeline'") == 2
    pg.destroy()


def test_a_restored_copy_goes_on_by_itself(server, kafka, msk):
    """States in parts come back as they were; the copy's own processes go on from there."""
    kafka.create_topic("t_dumped", PARTITIONS)
    server.sql("CREATE DATABASE dumped", dbname="postgres")
    server.sql("CREATE EXTENSION kda_stream; CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" '%s')" % kafka.address, dbname="dumped")
    server.sql("CREATE STREAM dumped (rowtime timestamptz OPTIONS (path '$.ts'), k text) SERVER msk OPTIONS (topic 't_dumped', start 'earliest', "
               "max_ahead 'never', idle_timeout 'never', parallelism '3')", dbname="dumped")
    server.sql("CREATE CONTINUOUS VIEW dumped_v AS SELECT k, count(*) n FROM dumped WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;"
               "CREATE CONTINUOUS VIEW dumped_g AS SELECT k, count(*) n FROM dumped GROUP BY k;"
               # by way of slot 0
               "CREATE CONTINUOUS VIEW dumped_s AS SELECT k, count(*) n FROM dumped WINDOWED BY SESSION (INTERVAL '30' SECOND) GROUP BY k", dbname="dumped")

    def put(second):
        for p in range(PARTITIONS):
            kafka.produce("t_dumped", [{"ts": "2026-01-01T10:0%d:00Z" % (second // 60), "k": "ab"[p % 2]}] * 3, partition=p)

    def caught_up_with(n, db):
        wait_until(lambda: server.value("SELECT kda.wait('dumped', '5 s')", dbname=db) and server.value("SELECT sum(n) FROM dumped_g", dbname=db) == n, "%d records in %s" % (n, db))

    def shown(db):
        return server.sql("SELECT window_start, k, n FROM dumped_v ORDER BY 1, 2", dbname=db) + server.sql("SELECT k, n FROM dumped_g ORDER BY 1", dbname=db) + \
            server.sql("SELECT window_start, window_end, k, n FROM dumped_s ORDER BY 1, 3", dbname=db)

    put(0)
    caught_up_with(12, "dumped")
    args = ["-h", server.sockets, "-p", str(server.port), "-U", "postgres"]
    dump = subprocess.run([BINDIR + "/pg_dump", *args, "dumped"], stdout=subprocess.PIPE, check=True).stdout
    server.sql("CREATE DATABASE restored")
    subprocess.run([BINDIR + "/psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *args, "restored"], input=dump, stdout=subprocess.DEVNULL, check=True)
    assert shown("restored") == shown("dumped")
    # the first statement on a stream starts its processes, which see that it is a copy, and pause it
    server.sql("ALTER STREAM dumped OPTIONS (SET idle_timeout '1 hour')", dbname="restored")
    wait_until(lambda: server.value("SELECT state FROM kda.streams", dbname="restored") == "paused", "the copy to be known as one")
    server.sql("ALTER STREAM dumped RESUME", dbname="restored")
    put(0)
    put(60)
    put(120)
    for db in ("dumped", "restored"):
        caught_up_with(48, db)
    assert shown("restored") == shown("dumped")
    assert server.sql("SELECT n FROM dumped_v WHERE window_start = '2026-01-01 10:00:00+00'", dbname="restored") == [(12,), (12,)]
    for db in ("dumped", "restored"):
        server.sql("DROP DATABASE " + db)
