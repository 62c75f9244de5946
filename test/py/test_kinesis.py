"""A Kinesis stream as a source, against two emulators behind a gate."""
import json
import os
import random
import signal
import subprocess
import threading
import time

import psycopg2
import pytest
from aws_parts import cut, failing, no_json, reset
from harness import BINDIR, LONG, caught_up, patiently, wait_until
from kinesis_parts import ACCESS_KEY_ID, LARGEST_HASH_KEY, REGION, SECRET_ACCESS_KEY, expired_iterator, kinesalite, kinesis_local, throttled

SETTINGS = ["kda_stream.retry_max_interval = '300ms'"]


@pytest.fixture(scope="module", params=[kinesis_local, kinesalite], ids=["kinesis_local", "kinesalite"])
def kinesis(request):
    part = request.param()
    yield part
    part.stop()


names = iter("s%d" % i for i in range(1000))


@pytest.fixture
def name(kinesis, server):
    """Of a stream here and there, which is gone afterwards, with a server that reads the emulator."""
    server.sql("""CREATE SERVER seoul TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region '%s', endpoint '%s');
                  CREATE USER MAPPING FOR PUBLIC SERVER seoul OPTIONS (access_key_id '%s', secret_access_key '%s')"""
               % (REGION, kinesis.url, ACCESS_KEY_ID, SECRET_ACCESS_KEY))
    yield next(names)
    server.sql("DROP SERVER seoul CASCADE")
    kinesis.gate.rules.clear()
    kinesis.gate.ahead = 0


def create(server, name, query="SELECT count(*) AS n, coalesce(sum(v), 0) AS total FROM %s", start="earliest", columns="v int", options=""):
    """The stream, and a view "seen" over it."""
    server.sql("CREATE STREAM %s (%s) SERVER seoul OPTIONS (stream '%s'%s)" % (name, columns, name, options))
    server.sql("CREATE CONTINUOUS VIEW %s_seen WITH (start = '%s') AS %s" % (name, start, query % name))


def seen(server, name):
    assert server.value("SELECT kda.wait('%s', '60 s')" % name), server.sql("SELECT state, last_error FROM kda.streams") + server.sql("SELECT * FROM kda.shards")
    return server.sql("SELECT * FROM %s_seen" % name)


def numbers(kinesis, name, *values):
    kinesis.put_many(name, [(json.dumps({"v": v}), "k%d" % v) for v in values])


def test_from_the_first_record_on(server, kinesis, name):
    kinesis.create_stream(name, 2)
    numbers(kinesis, name, *range(1, 101))
    create(server, name)
    assert seen(server, name) == [(100, 5050)]
    numbers(kinesis, name, 1000)
    assert seen(server, name) == [(101, 6050)]
    shards = server.sql("SELECT shard, position, state, millis_behind_latest FROM kda.shards WHERE stream = '%s'::regclass ORDER BY 1" % name)
    last = {s: max((int(r["sequence"]) for r in kinesis.get(name, s))) for s in ("shardId-000000000000", "shardId-000000000001")}
    assert shards == [(s, str(n), "open", 0) for s, n in last.items()]
    assert server.sql("SELECT state, last_error, millis_behind_latest, records_in FROM kda.streams") == [("running", None, 0, 101)]


def test_what_comes_after_create(server, kinesis, name):
    kinesis.create_stream(name)
    numbers(kinesis, name, 1)
    time.sleep(1.1)     # the emulators know seconds
    create(server, name, start="latest")
    numbers(kinesis, name, 2)
    assert seen(server, name) == [(1, 2)]


def test_what_comes_before_the_first_record_is_read(server, kinesis, name):
    """A crash between CREATE and the first record loses nothing, and repeats nothing."""
    # kinesalite never answers a question for a time in an empty shard
    kinesis.create_stream(name, 1 if "kinesalite" in kinesis.part.log else 2)
    numbers(kinesis, name, 1, 2, 3)
    time.sleep(1.1)
    kinesis.gate.fail(reset, "GetShardIterator", times=None)
    create(server, name, start="latest")
    server.crash()
    numbers(kinesis, name, 10)
    server.start()
    kinesis.gate.rules.clear()
    assert seen(server, name) == [(1, 10)]
    server.crash()
    numbers(kinesis, name, 20)
    server.start()
    assert seen(server, name) == [(2, 30)]


def test_the_envelope(server, kinesis, name):
    kinesis.create_stream(name)
    sequence = kinesis.put(name, '{"v": 1}', "a \u20ac")[1]
    server.sql("""CREATE STREAM %s (v int, shard text OPTIONS (meta 'shard'), place text OPTIONS (meta 'position'), key text OPTIONS (meta 'key'),
                  raw_key bytea OPTIONS (meta 'key'), at timestamptz OPTIONS (meta 'arrival')) SERVER seoul""" % name)
    server.sql("CREATE CONTINUOUS VIEW %s_seen WITH (start = 'earliest') AS SELECT v, shard, place, key, convert_from(raw_key, 'UTF8') AS raw, at > now() - interval '1 hour' AS recent FROM %s"
               % (name, name))
    assert seen(server, name) == [(1, "shardId-000000000000", sequence, "a \u20ac", "a \u20ac", True)]
    assert server.sql("SELECT v, place FROM %s" % name) == [(1, sequence)]
    with pytest.raises(psycopg2.errors.DatatypeMismatch) as e:
        server.sql("CREATE STREAM %s_2 (place bigint OPTIONS (meta 'position')) SERVER seoul" % name)
    assert "Use text." in str(e.value)


def test_refused_records_say_where_they_are(server, kinesis, name):
    kinesis.create_stream(name)
    create(server, name, columns="v int, d int", query="SELECT count(*) AS n, coalesce(sum(v / d), 0) AS total FROM %s")
    placed = [kinesis.put(name, data)[1] for data in ('{"v": 1', '{"v": "x", "d": 1}', '{"v": 1, "d": 0}', '{"v": 8, "d": 2}')]
    assert seen(server, name) == [(1, 4)]
    assert server.sql("SELECT error_name, position FROM kda.error_stream WHERE stream = '%s'::regclass ORDER BY error_id" % name) == [
        ("malformed", placed[0]), ("conversion", placed[1]), ("expression", placed[2])]
    server.sql("ALTER STREAM %s OPTIONS (ADD on_error 'stop')" % name)
    at = kinesis.put(name, "no json")[1]
    wait_until(lambda: server.value("SELECT state FROM kda.streams") == "failed", "the stream to stop")
    assert "has stopped at shard shardId-000000000000 position %s: " % at in server.value("SELECT last_error FROM kda.streams")
    server.sql("ALTER STREAM %s OPTIONS (SET on_error 'continue'); ALTER STREAM %s RESUME" % (name, name))
    assert seen(server, name) == [(1, 4)]


def test_refused_between_the_parts_of_a_query(server, kinesis, name):
    """The inner window's row passes through a stream of ours, the record passed on keeps its place."""
    kinesis.create_stream(name)
    create(server, name, columns="v int, d int", query="SELECT sum(q) AS total, count(*) AS n FROM (SELECT v, d, v / d AS q FROM %s) x")
    placed = [kinesis.put(name, data)[1] for data in ('{"v": 8, "d": 2}', '{"v": 1, "d": 0}')]
    assert seen(server, name) == [(4, 1)]
    assert server.sql("SELECT error_name, position FROM kda.error_stream WHERE stream = '%s'::regclass" % name) == [("expression", placed[1])]


def test_sample_pause_and_resume(server, kinesis, name):
    kinesis.create_stream(name, 2)
    numbers(kinesis, name, *range(20))
    server.sql("CREATE STREAM %s (v int) SERVER seoul" % name)
    got = server.sql("""SELECT shard, "position", (row_json->>'v')::int, error FROM kda.sample('%s', 100)""" % name)
    stored = {r["sequence"]: r["shard"] for r in kinesis.get(name)}
    assert sorted(g[2] for g in got) == list(range(20)) and all(stored[g[1]] == g[0] and g[3] is None for g in got)
    assert len(server.sql("SELECT * FROM kda.sample('%s', 3)" % name)) == 3
    server.sql("CREATE CONTINUOUS VIEW %s_seen WITH (start = 'earliest') AS SELECT count(*) AS n FROM %s" % (name, name))
    assert seen(server, name) == [(20,)]
    server.sql("ALTER STREAM %s PAUSE" % name)
    numbers(kinesis, name, 100)
    assert not server.value("SELECT kda.wait('%s', '1 s')" % name)
    assert server.sql("SELECT n FROM %s_seen" % name) == [(20,)]
    server.sql("ALTER STREAM %s RESUME" % name)
    assert seen(server, name) == [(21,)]


def test_trouble_passes(server, kinesis, name):
    kinesis.create_stream(name, 2)
    create(server, name)
    total = n = 0
    assert seen(server, name) == [(0, 0)]
    for fault in (expired_iterator, throttled, failing("500 Internal Server Error", "InternalFailure"), no_json(), reset, cut(0.5), cut(0.9, "close"),
                  failing("400 Bad Request", "KMSThrottlingException"), failing("400 Bad Request", "SomethingNewException")):
        kinesis.gate.fail(fault, "GetRecords", times=3)
        kinesis.gate.fail(fault, "GetShardIterator", times=2)
        n += 10
        numbers(kinesis, name, *range(total, total + 10))
        total += 10
        assert seen(server, name) == [(n, sum(range(total)))]
    kinesis.gate.rules.clear()
    assert server.sql("SELECT state, last_error FROM kda.streams") == [("running", None)]
    # what does not pass is shown
    kinesis.gate.fail(failing("400 Bad Request", "AccessDeniedException", "User is not authorized to perform: kinesis:GetRecords"), "GetRecords", times=None)
    wait_until(lambda: "AccessDeniedException" in (server.value("SELECT last_error FROM kda.streams") or ""), "the error to be shown")
    assert not server.value("SELECT kda.wait('%s', '500 ms')" % name)
    kinesis.gate.rules.clear()
    wait_until(lambda: server.value("SELECT last_error FROM kda.streams") is None, "the error to go")


def test_a_clock_that_differs(server, kinesis, name):
    kinesis.create_stream(name)
    kinesis.gate.ahead = 3600
    numbers(kinesis, name, 7)
    create(server, name)
    assert seen(server, name) == [(1, 7)]
    kinesis.gate.ahead = 0
    numbers(kinesis, name, 8)
    assert seen(server, name) == [(2, 15)]


def test_split_and_merge(server, kinesis, name):
    """Records of a key stay in order across the shards that it goes through, also when they are all read at once."""
    kinesis.create_stream(name)
    server.sql("CREATE STREAM %s (k text, v int) SERVER seoul" % name)
    keys = ["k%d" % i for i in range(8)]
    n = 0

    def put():
        nonlocal n
        for _ in range(5):
            kinesis.put_many(name, [(json.dumps({"k": k, "v": n}), k) for k in keys])
            n += 1
    put()
    server.sql("CREATE TABLE %s_rows (id bigserial, k text, v int)" % name)
    server.sql("CREATE PUMP %s_pump STARTED WITH (start = 'earliest') AS INSERT INTO %s_rows (k, v) SELECT k, v FROM %s" % (name, name, name))

    def check():
        assert server.value("SELECT kda.wait('%s', '60 s')" % name)
        rows = server.sql("SELECT k, v FROM %s_rows ORDER BY id" % name)
        assert {k: [v for k2, v in rows if k2 == k] for k in keys} == {k: list(range(n)) for k in keys}
    check()
    # while it runs
    children = kinesis.split(name, "shardId-000000000000")
    put()
    check()
    # all of this is found at once
    server.sql("ALTER STREAM %s PAUSE" % name)
    child = kinesis.merge(name, *children)
    put()
    children = kinesis.split(name, child)
    put()
    grandchildren = kinesis.split(name, children[0])
    put()
    server.sql("ALTER STREAM %s RESUME" % name)
    check()
    states = dict(server.sql("SELECT shard, state FROM kda.shards WHERE stream = '%s'::regclass" % name))
    live = {children[1], *grandchildren}
    assert {s for s, state in states.items() if state != "closed"} == live and len(states) == 8
    server.crash()
    server.start()
    put()
    check()


def test_everything_is_found_at_once_from_the_beginning(server, kinesis, name):
    kinesis.create_stream(name)
    numbers(kinesis, name, *range(10))
    children = kinesis.split(name, "shardId-000000000000")
    numbers(kinesis, name, *range(10, 20))
    kinesis.merge(name, *children)
    numbers(kinesis, name, *range(20, 30))
    create(server, name)
    assert seen(server, name) == [(30, sum(range(30)))]


def test_a_stream_that_is_created_anew(server, kinesis, name):
    kinesis.create_stream(name)
    numbers(kinesis, name, 1, 2, 3)
    create(server, name)
    assert seen(server, name) == [(3, 6)]
    server.sql("ALTER STREAM %s PAUSE" % name)
    kinesis.delete_stream(name)
    time.sleep(1.1)
    kinesis.create_stream(name)
    numbers(kinesis, name, 10)
    server.sql("ALTER STREAM %s RESUME" % name)
    wait_until(lambda: server.value("SELECT state FROM kda.streams") == "failed", "the stream to stop")
    assert "created anew" in server.value("SELECT last_error FROM kda.streams")
    assert server.sql("SELECT * FROM %s_seen" % name) == [(3, 6)]
    server.sql("ALTER STREAM %s OPTIONS (ADD start 'earliest')" % name)
    server.sql("ALTER STREAM %s RESUME" % name)
    assert seen(server, name) == [(4, 16)]
    # while it is read
    kinesis.delete_stream(name)
    wait_until(lambda: server.value("SELECT last_error FROM kda.streams"), "trouble")
    time.sleep(1.1)
    kinesis.create_stream(name)
    wait_until(lambda: server.value("SELECT state FROM kda.streams") == "failed", "the stream to stop")
    assert "created anew" in server.value("SELECT last_error FROM kda.streams")


def test_a_stream_that_comes_later(server, kinesis, name):
    create(server, name, start="latest")
    wait_until(lambda: "does not exist" in (server.value("SELECT last_error FROM kda.streams") or ""), "the error to be shown")
    kinesis.create_stream(name)
    numbers(kinesis, name, 5)
    assert seen(server, name) == [(1, 5)]


def test_an_arn(server, kinesis, name):
    arn = kinesis.create_stream(name)
    numbers(kinesis, name, 5)
    if "kinesalite" in kinesis.part.log:
        return      # knows names only
    server.sql("CREATE STREAM %s (v int) SERVER seoul OPTIONS (stream '%s')" % (name, arn))
    server.sql("CREATE CONTINUOUS VIEW %s_seen WITH (start = 'earliest') AS SELECT sum(v) AS n FROM %s" % (name, name))
    assert seen(server, name) == [(5,)]


class Putter(threading.Thread):
    """Puts numbers until told to stop, and splits and merges meanwhile."""

    def __init__(self, kinesis, name, seed):
        super().__init__(daemon=True)
        self.kinesis, self.name, self.random = kinesis, name, random.Random(seed)
        self.stopping = threading.Event()
        self.n = 0
        self.error = None

    def run(self):
        try:
            while not self.stopping.is_set():
                numbers(self.kinesis, self.name, *range(self.n, self.n + 50))
                self.n += 50
                if self.n % 1000 == 0:
                    shards = self.kinesis.open_shards(self.name)
                    if len(shards) < 4:
                        self.kinesis.split(self.name, self.random.choice(shards)["ShardId"])
                    else:
                        shards.sort(key=lambda s: int(s["HashKeyRange"]["StartingHashKey"]))
                        i = self.random.randrange(len(shards) - 1)
                        self.kinesis.merge(self.name, shards[i]["ShardId"], shards[i + 1]["ShardId"])
                self.stopping.wait(0.02)
        except Exception as e:
            self.error = e

    def stop(self):
        self.stopping.set()
        self.join(60)
        assert self.error is None, self.error


def test_killed_at_random(server, kinesis, name):
    kinesis.create_stream(name, 2)
    create(server, name, query="SELECT count(*) AS n, coalesce(sum(v), 0) AS total, count(DISTINCT v) AS d FROM %s")
    seed = random.randrange(10 ** 6)
    rnd = random.Random(seed)
    putter = Putter(kinesis, name, seed)
    putter.start()
    try:
        for i in range(40 if LONG else 8):
            time.sleep(rnd.uniform(0.2, 1.5))
            if i % 3 == 2:
                server.crash()
                server.start()
                continue
            for pid in patiently(server, "SELECT array_agg(pid) FROM kda.workers WHERE kind = 'pipeline' AND pid IS NOT NULL") or []:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
    finally:
        putter.stop()
    caught_up(server, name)
    assert server.sql("SELECT * FROM %s_seen" % name) == [(putter.n, sum(range(putter.n)), putter.n)], "seed %d" % seed


def test_a_restored_dump_is_paused(server, kinesis, name):
    kinesis.create_stream(name)
    numbers(kinesis, name, 1, 2)
    create(server, name)
    assert seen(server, name) == [(2, 3)]
    dump = subprocess.run([BINDIR + "/pg_dump", "-h", server.sockets, "-p", str(server.port), "-U", "postgres", "postgres"], stdout=subprocess.PIPE, text=True, check=True).stdout
    server.sql("CREATE DATABASE copy")
    try:
        server.psql(dump, "copy")
        wait_until(lambda: server.sql("SELECT state FROM kda.streams", dbname="copy") == [("paused",)], "the copy to be paused")
        numbers(kinesis, name, 10)
        assert seen(server, name) == [(3, 13)]
        assert server.sql("SELECT * FROM %s_seen" % name, dbname="copy") == [(2, 3)]
        # it goes on where the original was
        server.sql("ALTER STREAM %s RESUME" % name, dbname="copy")
        assert server.value("SELECT kda.wait('%s', '60 s')" % name, dbname="copy")
        assert server.sql("SELECT * FROM %s_seen" % name, dbname="copy") == [(3, 13)]
    finally:
        server.sql("DROP DATABASE copy WITH (FORCE)")
