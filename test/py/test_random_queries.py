"""Random queries over random rows, cut anywhere and with restarts: what they show is what plain SQL gives.

Each seed makes streams, a hundred queries on them, and rows. KDA_SEED=n runs one seed only.
"""
import io
import json
import os
import random
from datetime import datetime, timedelta, timezone

import psycopg2
import psycopg2.extras
import pytest
from harness import LONG
from random_queries import COLUMNS, DIMENSIONS, HOUR, MINUTE, SECOND, Generator, State, literal, spell
from test_sessions import kill_worker

SETTINGS = ["kda_stream.batch_records = 37", "kda_stream.state_cache = '1MB'", "fsync = off", "max_connections = 60"]
QUERIES = 100           # of a seed
PARALLELISM = (1, 2, 3)    # of the streams over a broker: one of these each

SEEDS = [int(os.environ["KDA_SEED"])] if "KDA_SEED" in os.environ else range(25 if LONG else 1)
END = datetime(2090, 1, 1, tzinfo=timezone.utc)


class Stream:
    def __init__(self, r, name, shards):
        self.name, self.shards = name, shards
        self.time = r.choice(["rowtime", "rowtime", "ts"])
        self.lateness = 0                   # allowed_lateness, in microseconds
        self.marks = [None] * shards        # watermark of each shard
        self.rows = []                      # as the table of them has them: seq, time, wm, columns

    def watermark(self):
        return None if None in self.marks else min(self.marks)


class World:
    """Streams whose times are of one scale, and what sizes of windows fit it."""

    def __init__(self, seed, broker):
        r = self.r = random.Random(seed)
        self.seed = seed
        self.days = r.random() < 0.35
        if self.days:
            self.gaps = [HOUR, 5 * HOUR, 30 * HOUR]
            self.steps = [HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR]
            self.units = ["us", "day", "day", "month"]
            # changes of the clock; before 1970
            self.start = r.choice([datetime(2026, 2, 27, tzinfo=timezone.utc), datetime(2025, 10, 25, tzinfo=timezone.utc), datetime(1969, 12, 20, tzinfo=timezone.utc)])
            self.step = 3 * HOUR
        else:
            self.gaps = [10 * SECOND, 30 * SECOND, 90 * SECOND]
            self.steps = [10 * SECOND, 15 * SECOND, MINUTE, 2 * MINUTE]
            self.units = ["us"] * 12 + ["day"]
            self.start = r.choice([datetime(2026, 1, 1, tzinfo=timezone.utc), datetime(1969, 12, 31, 23, 40, tzinfo=timezone.utc)])
            self.step = 8 * SECOND
        self.delay = r.choice([0, self.step * 2, self.step * 20]) // SECOND * SECOND
        self.now = 0
        self.ids = 0
        self.streams = [Stream(r, "s1", 1), Stream(r, "s2", 1)]
        if broker:
            self.streams.append(Stream(r, "s%d_k" % seed, r.choice([1, 2, 3, 4])))
        for s in self.streams:
            s.lateness = random.Random("%d %s" % (seed, s.name)).choice([0, 0, self.step * 3, self.step * 30])

    def columns_of(self, stream):
        return "%s timestamptz, %s" % (stream.time, ", ".join("%s %s" % c for c in COLUMNS.items()))

    def row(self, stream):
        """A row that comes next: its time, then the columns."""
        r = self.r
        self.now += int(self.step * r.choice([0, 0.1, 0.5, 1, 1, 2])) // SECOND * SECOND
        if r.random() < 0.004:
            self.now += self.step * 60
        back = r.choice([0, 0, 0, r.randrange(self.step), r.randrange(self.step * 3), self.delay, r.randrange(self.delay + 1), r.randrange(self.delay + self.step * 10)])
        t = self.start + timedelta(microseconds=self.now - (back // SECOND * SECOND if r.random() < 0.7 else back))
        self.ids += 1
        if stream.shards > 1:
            # there is no order among rows of one time in several shards
            t = t.replace(microsecond=t.microsecond // 10000 * 10000 + self.ids % 10000)
        return (t, self.ids, r.choice([None, 0, 1, 1, 2, 3, 4]), r.choice([None, "", "a", "b", "C", "aa", "long" * 12]), r.choice([None, r.randrange(-9, 20), r.randrange(9)]),
                r.choice([None, r.randrange(10000) / 100, 7]), r.choice([None, r.randrange(-9, 9) / 4]), r.choice([None, True, False]),
                r.choice([None, datetime(2026, 1, 1 + r.randrange(3), r.randrange(24))]), r.choice([None, [], [1], [2, None], [1, 2, 2]]),
                r.choice([None, {"x": r.randrange(3)}, {"y": [1]}]))

    def given(self, stream, shard, row):
        """The stream has been given the row: what the table of its rows will hold."""
        mark = stream.marks[shard]
        stream.rows.append((len(stream.rows), mark, row))
        reached = row[0] - timedelta(microseconds=self.delay)
        stream.marks[shard] = reached if mark is None else max(mark, reached)

    def advanced(self, stream, t):
        stream.marks = [t if m is None else max(m, t) for m in stream.marks]


class Run:
    def __init__(self, server, kafka, world, queries=QUERIES):
        self.server, self.kafka, self.world = server, kafka, world
        self.generator = Generator(world.r, world)
        self.loaded = {}
        self.failures = []
        self.queries = [self.generator.make() for _ in range(queries)]

    def fail(self, q, what):
        self.failures.append("%s (%s)\n%s\n%s" % (q.view, q.shape, q, what))

    def state(self):
        return State({s.name: s.watermark() for s in self.world.streams}, self.server.sql)

    def create(self):
        sql, world = self.server.sql, self.world
        sql("SELECT kda.execute(%s)", "\n".join(
            "DROP STREAM IF EXISTS %s CASCADE; DROP TABLE IF EXISTS %s_in;" % (s.name, s.name) for s in world.streams))
        for row in sql("SELECT format('DROP FOREIGN TABLE %%I CASCADE', relname) FROM pg_class WHERE relkind = 'f' AND relnamespace = 'public'::regnamespace" % ()):
            sql(row[0])
        for row in sql("SELECT format('DROP TABLE %%I CASCADE', relname) FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace" % ()):
            sql(row[0])
        sql("DROP AGGREGATE IF EXISTS widest(text), widest_of_all(text), add_up(VARIADIC numeric[]); DROP FUNCTION IF EXISTS widest(text, text), add_numbers(numeric, numeric[])")
        sql(spell(DIMENSIONS, {"{start}": literal(world.start), "{step}": str(int(world.step) * 8)}))
        for s in world.streams:
            options = "idle_timeout 'never', watermark '%d us'" % world.delay + (", rowtime 'ts'" if s.time == "ts" else "")
            if s.lateness:
                options += ", allowed_lateness '%d us'" % s.lateness
            where = ""
            if s.name.endswith("_k"):
                self.kafka.create_topic(s.name, s.shards)
                where = " SERVER msk"
                options += ", start 'earliest', parallelism '%d'" % world.r.choice(PARALLELISM)
            sql("CREATE STREAM %s (%s)%s OPTIONS (%s)" % (s.name, world.columns_of(s), where, options))
            sql("CREATE TABLE %s_in (seq bigint, wm timestamptz, %s)" % (s.name, world.columns_of(s)))
        conn = self.server.connect(autocommit=False)
        cur = conn.cursor()
        made = []
        for q in self.queries:
            try:
                cur.execute("SAVEPOINT q")
                for statement in q.statements:
                    cur.execute(statement if isinstance(statement, str) else statement(self.state()))
                if q.refused:
                    self.fail(q, "is not refused")
                else:
                    made.append(q)
            except psycopg2.Error as e:
                cur.execute("ROLLBACK TO q")
                if q.refused is None or q.refused not in str(e):
                    self.fail(q, "is refused: %s" % e)
        conn.commit()
        conn.close()
        self.queries = made

    # ---- rows

    def feed(self, count, kills=0, restarts=0):
        """About so many rows of each stream, in transactions of all sizes."""
        world, r = self.world, self.world.r
        left = {s: count for s in world.streams}
        kill = {r.randrange(count * len(left)): "kill" for _ in range(kills)}
        kill.update((r.randrange(count * len(left)), "restart") for _ in range(restarts))
        done = 0
        while any(left.values()):
            s = r.choice([s for s in left if left[s]])
            n = min(left[s], r.choice([1, 2, 5, 20, 60, 150]))
            left[s] -= n
            if s.name.endswith("_k"):
                self.produce(s, n)
            else:
                self.insert(s, n)
            for at in [k for k in kill if done <= k < done + n]:
                self.disturb(kill.pop(at))
            done += n
            if r.random() < 0.05:
                self.server.sql("SELECT pg_terminate_backend(pid) FROM kda.workers WHERE kind = 'pipeline'")
            elif r.random() < 0.1:
                self.wait([s])

    def disturb(self, how):
        if how == "kill":
            kill_worker(self.server)
        else:
            self.server.stop(self.world.r.choice(["fast", "immediate"]))
            self.server.start()

    def produce(self, s, n):
        p = self.kafka.producer()
        for _ in range(n):
            row = self.world.row(s)
            # every shard gets some at once
            shard = s.marks.index(None) if None in s.marks else self.world.r.randrange(s.shards)
            record = dict(zip([s.time] + list(COLUMNS), row))
            p.produce(s.name, json.dumps(record, default=lambda v: v.isoformat()), partition=shard)
            self.world.given(s, shard, row)
        p.flush(60)

    def insert(self, s, n):
        r = self.world.r
        rows, done = [self.world.row(s) for _ in range(n)], 0
        conn = self.server.connect(autocommit=False)
        cur = conn.cursor()
        while done < n:
            some = rows[done:done + r.choice([1, 3, 10, 100])]
            if r.random() < 0.1:
                cur.execute("SAVEPOINT s")
                self.write(cur, s, [(row[0] + timedelta(days=1000),) + row[1:] for row in some])
                cur.execute("ROLLBACK TO s")
            self.write(cur, s, some)
            for row in some:
                self.world.given(s, 0, row)
            done += len(some)
            if r.random() < 0.03:
                t = self.world.start + timedelta(microseconds=self.world.now - r.randrange(self.world.delay + self.world.step * 5))
                cur.execute("SELECT kda.advance(%s, %s)", (s.name, t))
                self.world.advanced(s, t)
            if r.random() < 0.3:
                conn.commit()
        conn.commit()
        conn.close()

    def write(self, cur, s, rows):
        values = [tuple(json.dumps(v) if isinstance(v, dict) else v for v in row) for row in rows]
        if self.world.r.random() < 0.3:
            def field(v):
                if v is None:
                    return "\\N"
                if isinstance(v, list):
                    return "{%s}" % ",".join("NULL" if x is None else str(x) for x in v)
                return str(v)
            cur.copy_expert("COPY %s FROM STDIN" % s.name, io.StringIO("".join("\t".join(map(field, row)) + "\n" for row in values)))
        else:
            psycopg2.extras.execute_values(cur, "INSERT INTO %s VALUES %%s" % s.name, values, "(" + ", ".join(
                "%%s::%s" % t for t in ["timestamptz"] + list(COLUMNS.values())) + ")")

    # ---- looking

    def wait(self, streams=None):
        for s in streams or self.world.streams:
            assert self.server.value("SELECT kda.wait(%s, '60 s')", s.name), "seed %d: %s does not come to its end" % (self.world.seed, s.name)

    def check(self, when, closed=False):
        self.wait()
        # and what pumps write
        for name in self.server.sql("SELECT relname FROM pg_class WHERE relkind = 'f' AND relname LIKE '%%\\_in'" % ()):
            self.wait_for(name[0])
        conn = self.server.connect()
        cur = conn.cursor()
        for s in self.world.streams:
            rows = s.rows[self.loaded.get(s.name, 0):]
            self.loaded[s.name] = len(s.rows)
            psycopg2.extras.execute_values(cur, "INSERT INTO %s_in VALUES %%s" % s.name, [
                (seq, (mark - timedelta(microseconds=s.lateness)).isoformat() if mark else "-infinity", row[0]) + tuple(json.dumps(v) if isinstance(v, dict) else v for v in row[1:]) for seq, mark, row in rows],
                "(%s, %s::timestamptz, " + ", ".join("%%s::%s" % t for t in ["timestamptz"] + list(COLUMNS.values())) + ")")
            cur.execute("ANALYZE %s_in" % s.name)
        state = self.state()
        bad = dict(self.server.sql("SELECT name, coalesce(last_error, state) FROM kda.queries WHERE state <> 'running' OR last_error IS NOT NULL"))
        for q in list(self.queries):
            if q.skip_open and not closed:
                continue
            sql = None
            try:
                sql = q.expected(state)
                cur.execute("WITH got AS MATERIALIZED (SELECT x::text AS r FROM %s x), want AS MATERIALIZED (SELECT x::text AS r FROM (%s) x) "
                            "SELECT 'extra', * FROM (TABLE got EXCEPT ALL TABLE want) a UNION ALL SELECT 'missing', * FROM (TABLE want EXCEPT ALL TABLE got) b ORDER BY 1, 2" % (q.read, sql))
                rows = cur.fetchall()
            except psycopg2.Error as e:
                self.fail(q, "%s\n%s\n%s" % (when, e, sql))
                self.queries.remove(q)
                continue
            if q.partial and not closed:
                rows = [row for row in rows if row[0] == "extra"]
            if rows or q.view in bad:
                missing = [row for row in rows if row[0] == "missing"]
                extra = [row for row in rows if row[0] == "extra"]
                self.fail(q, "%s: %d missing, %d extra, %s\n%s\n%s\n%s" % (when, len(missing), len(extra), bad.get(q.view, ""), "\n".join(str(x)[:300] for x in missing[:4]),
                                                                     "\n".join(str(x)[:300] for x in extra[:4]), sql))
                self.queries.remove(q)
        errors = self.server.sql("SELECT error_name, message, query::text, count(*) FROM kda.error_stream WHERE error_name <> 'late' GROUP BY 1, 2, 3 LIMIT 5")
        if errors:
            self.failures.append("%s: refused records: %s" % (when, errors))
        conn.close()

    def check_once(self):
        """The windowed SELECTs as ordinary statements, over the streams' buffers."""
        conn = self.server.connect()
        cur = conn.cursor()
        state = self.state()
        for q in self.queries:
            if q.adhoc is None:
                continue
            body, expected = q.adhoc
            sql = None
            try:
                cur.execute(body)
                got = sorted(map(repr, cur.fetchall()))
                sql = expected(state)
                cur.execute(sql)
                want = sorted(map(repr, cur.fetchall()))
            except psycopg2.Error as e:
                self.fail(q, "once: %s\n%s" % (e, sql))
                continue
            if got != want:
                self.fail(q, "once: %d rows, not %d\nonly there: %s\nmissing: %s\n%s" % (len(got), len(want), [x for x in got if x not in want][:3], [x for x in want if x not in got][:3], sql))
        conn.close()

    def wait_for(self, name):
        assert self.server.value("SELECT kda.wait(%s, '60 s')", name), "seed %d: %s does not come to its end" % (self.world.seed, name)

    def close_all(self):
        for s in self.world.streams:
            self.server.sql("SELECT kda.advance(%s, %s)", s.name, END)
            self.world.advanced(s, END)

    def done(self):
        out = "\n\n".join(self.failures)
        if os.environ.get("KDA_FAILURES"):
            with open(os.environ["KDA_FAILURES"], "a") as f:
                f.write(out)
        assert not self.failures, "seed %d (KDA_SEED=%d runs it): %d failures\n%s" % (self.world.seed, self.world.seed, len(self.failures), out[:20000])


@pytest.mark.parametrize("seed", SEEDS)
def test_random_queries(server, kafka, msk, seed):
    run = Run(server, kafka, World(seed, broker=True))
    run.create()
    run.feed(120, kills=1)
    run.check("in the middle")
    run.feed(80, restarts=1)
    run.check("before the end")
    run.check_once()
    run.close_all()
    run.check("at the end", closed=True)
    run.done()
