"""Measures how fast events go from a topic into continuous views; bench/README.md says what each figure is."""
import argparse
import contextlib
import os
import platform
import socket
import subprocess
import sys
import threading
import time

from harness import BINDIR, WORK, Kafka, Postgres, forget_pid, free_port, note_pid, wait_until

PARTITIONS = 4
COLUMNS = """(rowtime timestamptz OPTIONS (path '$.timestamp'), user_id varchar(64), action varchar(20),
              page varchar(256), country varchar(8), value integer)"""
QUERY = """SELECT country, action, count(*) AS n, sum(value) AS total FROM events
           WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY country, action"""
ENCODINGS = [("JSON", "format 'json'"), ("CSV", "format 'csv'")]
TICK = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
MEASURED, OTHER = CORES[0], CORES[-1]


@contextlib.contextmanager
def core(n):
    """What is started inside runs on that core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {n})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid):
    """Of a process with all its threads."""
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def program(name, *args):
    return subprocess.run([os.path.join(WORK, "bin", name), *map(str, args)], check=True, stdout=subprocess.PIPE,
                          text=True).stdout.split()


def say(text=""):
    print(text, flush=True)


class Bench:
    def __init__(self, events, views):
        self.events = events
        self.views = views
        self.bare = None
        with core(OTHER):
            self.kafka = Kafka().start()
            self.kafka.create_topic("events", PARTITIONS)
            # about forty windows, of 120 groups each
            self.per_minute = max(events // 40, 1000)
            begun = time.monotonic()
            self.bytes = float(program("produce", self.kafka.address, "events", PARTITIONS, events, self.per_minute)[0])
        say("%s, PostgreSQL %s, %d cores" % (cpu_name(), self.version(), len(CORES)))
        say("%s events of %.0f bytes on average in %d partitions, written in %.1f s" %
            (format(events, ","), self.bytes, PARTITIONS, time.monotonic() - begun))
        say()

    def version(self):
        return subprocess.run([BINDIR + "/postgres", "--version"], stdout=subprocess.PIPE, text=True).stdout.split()[2]

    @contextlib.contextmanager
    def server(self, *settings, pinned=True):
        with core(MEASURED) if pinned else contextlib.nullcontext():
            pg = Postgres("server", ["max_wal_size = '16GB'", "checkpoint_timeout = '1h'", *settings]).start()
        try:
            pg.sql("CREATE EXTENSION kda_stream")
            pg.sql("""CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream
                      OPTIONS ("bootstrap.servers" '%s')""" % self.kafka.address)
            pg.sql("""CREATE FUNCTION bench_read(regclass, bigint, text[], OUT wall float8, OUT cpu float8)
                      LANGUAGE C AS '%s/bin/inside', 'kda_bench_read';
                      CREATE FUNCTION bench_parse(text, int) RETURNS float8
                      LANGUAGE C AS '%s/bin/inside', 'kda_bench_parse';
                      CREATE FUNCTION bench_encode(regclass, record, int, OUT bytes float8, OUT ns float8)
                      LANGUAGE C AS '%s/bin/inside', 'kda_bench_encode'""" % (WORK, WORK, WORK))
            yield pg
            pg.check_sane()
        finally:
            pg.destroy()
            subprocess.run(["rm", "-rf", pg.dir])

    def stream(self, pg, retention, topic="events", start="earliest", parallelism=1):
        pg.sql("""CREATE STREAM events %s SERVER msk
                  OPTIONS (topic '%s', start '%s', watermark '5 seconds', parallelism '%d'%s)""" %
               (COLUMNS, topic, start, parallelism, "" if retention is None else ", retention '%s'" % retention))
        wait_until(lambda: len(pg.workers()) == parallelism, "the processes to start")

    def row(self, name, wall, cpu, events=None):
        events = events or self.events
        per_cpu = events / cpu
        if name == "bare C program":
            self.bare = per_cpu
        say("%-46s %6.2f M/s wall %6.2f M/s CPU %7.0f ns %s" %
            (name, events / wall / 1e6, per_cpu / 1e6, cpu / events * 1e9,
             "%6.0f %%" % (100 * per_cpu / self.bare) if self.bare else ""))
        return per_cpu

    def consume(self, *args):
        """The fastest of three: the others were disturbed."""
        runs = []
        for _ in range(3):
            with core(MEASURED):
                runs.append([float(x) for x in program("consume", self.kafka.address, "events", PARTITIONS, self.events, *args)])
        return min(runs, key=lambda r: r[1])

    def run_views(self, pg, retention, n, parallelism=1):
        """Reads all events into n views; wall and CPU seconds, WAL bytes, and what kda.workers says."""
        self.stream(pg, retention, parallelism=parallelism)
        # together: they start with the same record
        wal = pg.value("SELECT pg_current_wal_lsn()")
        pids = pg.workers()
        before = pg.sql("SELECT sum(commits), sum(commit_ms) FROM kda.workers WHERE kind = 'pipeline'")[0]
        cpu = sum(map(cpu_seconds, pids))
        first = None
        pg.sql(";".join("CREATE CONTINUOUS VIEW v%d AS %s" % (i, QUERY) for i in range(n)))
        conn = pg.connect()
        cur = conn.cursor()
        while True:
            cur.execute("SELECT records_in FROM kda_storage.stream_progress WHERE stream_id = "
                        "(SELECT stream_id FROM kda_storage.stream WHERE rel = 'events'::regclass)")
            seen = cur.fetchone()[0]
            now = time.monotonic()
            if seen > 0 and first is None:
                first = (seen, now)
            if seen >= self.events:
                break
            time.sleep(0.02)
        cpu = sum(map(cpu_seconds, pids)) - cpu
        conn.close()
        wall = (now - first[1]) * self.events / max(self.events - first[0], 1)
        after = pg.sql("SELECT sum(commits), sum(commit_ms) FROM kda.workers WHERE kind = 'pipeline'")[0]
        wal = pg.value("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %s)", wal)
        commits = int(after[0] - before[0])
        return wall, cpu, float(wal), commits, (after[1] - before[1]) / max(commits, 1)

    def check(self, pg, path):
        """The view has what the bare program has counted."""
        got = {(int(w.timestamp()) // 60, c, a): (n, s) for w, c, a, n, s in
               pg.sql("SELECT window_start, country, action, n, total FROM v0")}
        with open(path) as f:
            expected = {(int(m), c, a): (int(n), int(s)) for m, c, a, n, s in (line.rstrip("\n").split(",") for line in f)}
        if got != expected:
            wrong = [k for k in got.keys() | expected.keys() if got.get(k) != expected.get(k)]
            say(pg.sql("SELECT error_name, shard, count(*), min(data_rowtime), max(data_rowtime), min(position::bigint), max(position::bigint) FROM kda.error_stream GROUP BY 1, 2"))
            say(pg.sql("SELECT * FROM kda.streams"))
            say(pg.sql("SELECT * FROM kda.shards"))
            say(pg.sql("SELECT * FROM kda.queries"))
            raise AssertionError("the view differs from what the bare program has counted in %d of %d groups: %s" % (
                len(wrong), len(expected), [(k, got.get(k), expected.get(k)) for k in sorted(wrong)[:5]]))

    # ---- parts

    def bare_part(self):
        say("The path, step by step (ns: CPU time per event; %: events per CPU-second, of the bare program's)")
        self.row("raw consumption in C", *self.consume())
        self.row("bare C program", *self.consume(WORK + "/counted"))
        with self.server() as pg:
            self.stream(pg, "0")
            for name, columns in (("our connector", None), ("our connector and decoder", "{rowtime,action,country,value}")):
                runs = [pg.sql("SELECT * FROM bench_read('events', %s, %s)", self.events, columns)[0] for _ in range(3)]
                self.row(name, *min(runs, key=lambda r: r[1]))

    def view_part(self):
        details = []
        for name, retention in (("continuous view, retention '0'", "0"), ("continuous view, default retention", None)):
            runs = []
            for _ in range(3 if retention else 1):
                with self.server() as pg:
                    runs.append(self.run_views(pg, retention, 1))
                    self.check(pg, WORK + "/counted")
            best = min(runs, key=lambda r: r[1])
            self.row(name, *best[:2])
            details.append((name, best))
        say()
        for name, (wall, cpu, wal, commits, commit_ms) in details:
            say("%s: %.2f WAL bytes per event; %d commits of %.0f events, %.1f ms each on average" %
                (name, wal / self.events, commits, self.events / commits, commit_ms))

    def kinesis_part(self):
        """The same view over a Kinesis stream that is played from memory."""
        shards, pages, page = 40, max(self.events // 400000, 1), 10000
        port = free_port()
        with core(OTHER):
            replay = subprocess.Popen([sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "replay.py"), str(port), str(shards), str(pages)])
        note_pid(replay.pid)

        def answers():
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", port)) == 0
        try:
            wait_until(answers, "the replay server")
            with self.server() as pg:
                pg.sql("""CREATE SERVER seoul TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', endpoint 'http://127.0.0.1:%d');
                          CREATE USER MAPPING FOR PUBLIC SERVER seoul OPTIONS (access_key_id 'AK', secret_access_key 'secret');
                          CREATE STREAM events %s SERVER seoul OPTIONS (retention '0', start 'earliest', watermark '5 seconds')""" % (port, COLUMNS))
                wait_until(lambda: len(pg.workers()) == 1, "the worker to start")
                pid = pg.workers()[0]
                cpu, begun = cpu_seconds(pid), time.monotonic()
                pg.sql("CREATE CONTINUOUS VIEW v0 AS " + QUERY)
                total = shards * pages * page
                wait_until(lambda: pg.value("SELECT records_in FROM kda.streams WHERE stream = 'events'::regclass") >= total, "the records", 600)
                self.row("Kinesis, continuous view, retention '0'", time.monotonic() - begun, cpu_seconds(pid) - cpu, total)
        finally:
            replay.kill()
            replay.wait()
            forget_pid(replay.pid)

    def latency_part(self):
        """At a moderate pace: how far behind is the view?"""
        say()
        say("At 20,000 events a second (commit_interval 200ms), how old is the newest event that the view shows")
        self.kafka.create_topic("paced", PARTITIONS)
        with self.server() as pg:
            self.stream(pg, None, "paced", "latest")
            pg.sql("CREATE CONTINUOUS VIEW v0 AS " + QUERY)
            pid = pg.workers()[0]
            producer = threading.Thread(target=program, args=("produce", self.kafka.address, "paced", PARTITIONS, 240000, 1, 20000))
            producer.start()
            wait_until(lambda: pg.value("SELECT sum(n) > 0 FROM v0"), "the first events")
            conn = pg.connect()
            cur = conn.cursor()
            ages = []
            before = pg.sql("SELECT commits, commit_ms FROM kda.workers WHERE pid = %s", pid)[0]
            cpu, begun = cpu_seconds(pid), time.monotonic()
            while time.monotonic() - begun < 8:
                cur.execute("SELECT extract(epoch FROM clock_timestamp() - max(last_arrival))::float8 * 1000 FROM kda_storage.shard")
                ages.append(cur.fetchone()[0])
                time.sleep(0.007)
            cpu, wall = cpu_seconds(pid) - cpu, time.monotonic() - begun
            after = pg.sql("SELECT commits, commit_ms FROM kda.workers WHERE pid = %s", pid)[0]
            conn.close()
            producer.join()
        ages.sort()
        say("  half of the time at most %.0f ms, 99 %% of it %.0f ms; %.1f commits a second of %.2f ms each; %.1f %% of a core" %
            (ages[len(ages) // 2], ages[int(len(ages) * 0.99)], (after[0] - before[0]) / wall,
             (after[1] - before[1]) / max(after[0] - before[0], 1), 100 * cpu / wall))

    def views_part(self):
        say()
        everything, self.events = self.events, min(self.events, 1000000)
        cost = {}
        for n in (1, self.views):
            with self.server() as pg:
                cost[n] = self.run_views(pg, "0", n)
        wall, cpu, wal, commits, _ = cost[self.views]
        one = cost[1]
        say("%d continuous views on one stream: %.2f µs CPU per event, %.1f ns per event and extra view; %.1f WAL bytes per event" %
            (self.views, cpu / self.events * 1e6, (cpu - one[1]) / self.events / (self.views - 1) * 1e9, wal / self.events))
        self.events = everything

    def slots_part(self):
        """The same view with its partitions divided over processes, on all cores, which the broker shares."""
        say()
        self.consume(WORK + "/counted")
        rates = {}
        for n in (1, 2):
            runs = []
            for _ in range(3):
                with self.server(pinned=False) as pg:
                    runs.append(self.run_views(pg, "0", 1, n))
                    wait_until(lambda: pg.value("SELECT kda.wait('events')"), "all of it")
                    self.check(pg, WORK + "/counted")
            wall, cpu = min(r[0] for r in runs), min(r[1] for r in runs)
            self.row("continuous view, parallelism %d" % n, wall, cpu)
            rates[n] = (self.events / wall, self.events / cpu)
        say("parallelism 2 to 1: %.2f times the events per second, %.2f times those per CPU second" %
            (rates[2][0] / rates[1][0], rates[2][1] / rates[1][1]))

    def parse_part(self):
        """A statement without KDA words: what the detour of the parser adds to it."""
        say()
        ns = {}
        for door in ("off", "on"):
            with self.server("kda_stream.extend_grammar = " + door) as pg:
                pg.sql("SELECT bench_parse('SELECT 1', 1000)")
                ns[door] = min(pg.value("SELECT bench_parse('SELECT 1', 1000000)") for _ in range(5))
                if door == "on":
                    conn = pg.connect()
                    cur = conn.cursor()
                    cur.execute("SELECT pg_backend_pid()")
                    pid = cur.fetchone()[0]
                    for _ in range(2000):
                        cur.execute("SELECT 1")
                    cpu, n = cpu_seconds(pid), 100000
                    for _ in range(n):
                        cur.execute("SELECT 1")
                    select1 = (cpu_seconds(pid) - cpu) / n * 1e9
                    conn.close()
        say("SELECT 1 without KDA words: parsing %.0f ns, %.0f ns through the detour; the statement costs the server %.0f ns: %+.2f %%" %
            (ns["off"], ns["on"], select1, 100 * (ns["on"] - ns["off"]) / select1))

    def sink_part(self):
        """Rows into a topic: the sink of outputs by itself, beside the library."""
        say()
        say("Rows of 100 bytes into a topic (rows per CPU-second of the program; %: of librdkafka's alone)")
        raw = None
        for name, mode in (("librdkafka's produce call alone", "raw"), ("our sink, at least once", "least"), ("our sink, exactly once", "once")):
            runs = []
            for n in range(3):
                topic = "sink_%s_%d" % (mode, n)
                self.kafka.create_topic(topic, PARTITIONS)
                with core(MEASURED):
                    runs.append(tuple(map(float, program("sink", mode, self.kafka.address, topic, self.events // 4))))
                self.kafka.delete_topic(topic)
            rate, wall = max(runs)
            raw = raw or rate
            say("%-34s %12.0f rows per CPU-second %6.1f %%   %6.2f s" % (name, rate, 100 * rate / raw, wall))


    def encode_part(self):
        """A row of about a hundred bytes as it leaves, in each format."""
        say()
        say("Rows as they leave (CPU time of one)")
        with self.server() as pg:
            for name, options in ENCODINGS:
                pg.sql("CREATE STREAM sent (rowtime timestamptz, country varchar(8), action varchar(20), n bigint, total numeric, mean float8) "
                       "SERVER msk OPTIONS (%s)" % options)
                runs = [pg.sql("""SELECT bytes, ns FROM bench_encode('sent', ROW('2026-01-01 10:00:00.123+00', 'KR', 'page_view', 12345, 6789.50, 0.55)::sent,
                                  2000000)""")[0] for _ in range(3)]
                size, ns = min(runs, key=lambda r: r[1])
                say("%-46s %6.2f M/s CPU %7.0f ns, %.0f bytes" % (name, 1e3 / ns, ns, size))
                pg.sql("DROP FOREIGN TABLE sent")


def cpu_name():
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def main():
    parts = ["bare", "view", "kinesis", "latency", "views", "slots", "parse", "encode", "sink"]
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=4000000)
    parser.add_argument("--views", type=int, default=100)
    parser.add_argument("parts", nargs="*", metavar="part", help=" ".join(parts))
    args = parser.parse_args()
    wanted = args.parts or parts
    if "view" in wanted and "bare" not in wanted:
        wanted.insert(0, "bare")
    bench = Bench(args.events, args.views)
    try:
        for part in parts:
            if part in wanted:
                getattr(bench, part + "_part")()
    finally:
        bench.kafka.stop()


main()
