"""A Kinesis stream as a source, against two emulators behind a gate."""
import json
import threading
import time

import pytest
from harness import wait_until
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
    assert server.value("SELECT kda.wait('%s', '60 s')" % name), server.sql("SELECT * FROM kda.streams")
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
