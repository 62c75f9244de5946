"""From an INSERT to a Kinesis stream: what is committed arrives, in order for each key, whoever is killed on the way."""
import collections
import json
import os
import random
import signal
import threading
import time

import psycopg2
import pytest
from aws_parts import cut, drip, failing, held, lost, moto, no_json, reset
from harness import LONG, patiently, wait_until
from kinesis_java import Reader
from kinesis_parts import ACCESS_KEY_ID, LARGEST_HASH_KEY, REGION, SECRET_ACCESS_KEY, kinesalite, partial, throttled
from test_aws_credentials import canaries, where_in_memory

KILLS = 20 if LONG else 4


@pytest.fixture(scope="module")
def kinesis():
    part = kinesalite()
    yield part
    part.stop()


@pytest.fixture(scope="module")
def seoul(server, kinesis):
    server.sql("CREATE SERVER seoul TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region '%s', endpoint '%s')" % (REGION, kinesis.url))
    server.sql("CREATE USER MAPPING FOR CURRENT_USER SERVER seoul OPTIONS (access_key_id '%s', secret_access_key '%s')" % (ACCESS_KEY_ID, SECRET_ACCESS_KEY))
    return "seoul"


def delivered(server, output, timeout=120):
    """Waits until nothing is pending."""
    wait_until(lambda: patiently(server, "SELECT pending = 0 FROM kda.outputs WHERE output = %s::regclass", output), "all of %s to be delivered" % output, timeout)


def rows(kinesis, stream):
    return [json.loads(r["data"]) for r in kinesis.get(stream)]


def test_insert(server, kinesis, seoul):
    kinesis.create_stream("sales", 2)
    server.sql("CREATE STREAM sales (rowtime timestamptz, country text, n int) SERVER seoul OPTIONS (key 'country')")
    server.sql("INSERT INTO sales VALUES ('2026-01-01 10:00:00+00', 'KR', 1), ('2026-01-01 10:00:01+00', 'KR', 2), ('2026-01-01 10:00:02+00', NULL, 3)")
    delivered(server, "sales")
    assert sorted(((r["key"], json.loads(r["data"])) for r in kinesis.get("sales")), key=lambda r: (r[0], r[1]["kda_seq"])) == [
        ("3", {"kda_seq": 3, "rowtime": "2026-01-01T10:00:02+00:00", "country": None, "n": 3}),
        ("KR", {"kda_seq": 1, "rowtime": "2026-01-01T10:00:00+00:00", "country": "KR", "n": 1}),
        ("KR", {"kda_seq": 2, "rowtime": "2026-01-01T10:00:01+00:00", "country": "KR", "n": 2})]


def test_rolled_back(server, kinesis, seoul):
    kinesis.create_stream("kept")
    server.sql("CREATE STREAM kept (n int) SERVER seoul")
    with server.connect(autocommit=False) as c, c.cursor() as cursor:
        cursor.execute("INSERT INTO kept VALUES (1)")
        c.rollback()
        cursor.execute("INSERT INTO kept VALUES (2)")
        c.commit()
    delivered(server, "kept")
    assert [r["n"] for r in rows(kinesis, "kept")] == [2]


def test_options(server, kinesis, seoul):
    kinesis.create_stream("elsewhere", 2)
    server.sql("""CREATE STREAM routed (shard_key numeric, n int) SERVER seoul
                  OPTIONS (stream 'elsewhere', explicit_hash_key 'shard_key', sequence_key 'no', ordered 'false', batch_records '2')""")
    kinesis.gate.requests.clear()
    server.sql("INSERT INTO routed SELECT CASE n %% 2 WHEN 0 THEN 0 ELSE %d END, n FROM generate_series(1, 6) n" % LARGEST_HASH_KEY)
    delivered(server, "routed")
    assert sorted((r["shard"][-1], json.loads(r["data"])["n"], json.loads(r["data"])["no"]) for r in kinesis.get("elsewhere")) == [
        ("0", 2, 2), ("0", 4, 4), ("0", 6, 6), ("1", 1, 1), ("1", 3, 3), ("1", 5, 5)]
    assert [len(r["Records"]) for r in kinesis.requests("PutRecords")] == [2, 2, 2]


def test_refused(server, kinesis, seoul):
    """What Kinesis refuses goes to the error stream with its words; the others arrive."""
    kinesis.create_stream("picky")
    server.sql("CREATE STREAM picky (k text, n int) SERVER seoul OPTIONS (key 'k')")
    server.sql("INSERT INTO picky VALUES ('a', 1), (repeat('x', 257), 2), ('b', 3)")
    delivered(server, "picky")
    assert sorted(r["n"] for r in rows(kinesis, "picky")) == [1, 3]
    name, message = server.sql("SELECT error_name, message FROM kda.error_stream WHERE stream = 'picky'::regclass")[0]
    assert name == "delivery" and "ValidationException" in message
    assert server.sql("SELECT delivered, failed FROM kda.outputs WHERE output = 'picky'::regclass") == [(2, 1)]


def test_a_missing_stream(server, kinesis, seoul):
    server.sql("CREATE STREAM later (n int) SERVER seoul")
    server.sql("INSERT INTO later VALUES (1)")
    told = wait_until(lambda: server.value("SELECT nullif(last_error, '') FROM kda.outputs WHERE output = 'later'::regclass"), "the error")
    assert told.startswith("Kinesis stream later: ResourceNotFoundException")
    kinesis.create_stream("later")
    delivered(server, "later")
    assert [r["n"] for r in rows(kinesis, "later")] == [1]


def test_keys_that_change(server, kinesis, seoul):
    """Wrong keys are told, and nothing is refused for them; those of ALTER USER MAPPING are used at once."""
    kinesis.create_stream("rekeyed")
    server.sql("CREATE SERVER other TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region '%s', endpoint '%s')" % (REGION, kinesis.url))
    server.sql("CREATE USER MAPPING FOR CURRENT_USER SERVER other OPTIONS (access_key_id '%s', secret_access_key 'not/the/one')" % ACCESS_KEY_ID)
    server.sql("CREATE STREAM rekeyed (n int) SERVER other; INSERT INTO rekeyed VALUES (1)")
    told = wait_until(lambda: server.value("SELECT nullif(last_error, '') FROM kda.outputs WHERE output = 'rekeyed'::regclass"), "the error")
    assert "InvalidSignatureException" in told and "not/the/one" not in told
    server.sql("ALTER USER MAPPING FOR CURRENT_USER SERVER other OPTIONS (SET secret_access_key '%s')" % SECRET_ACCESS_KEY)
    delivered(server, "rekeyed")
    assert [r["n"] for r in rows(kinesis, "rekeyed")] == [1]
    assert server.sql("SELECT failed, last_error FROM kda.outputs WHERE output = 'rekeyed'::regclass") in ([(0, None)], [(0, "")])


def test_no_secret_in_a_core_dump_of_the_deliver_worker(server, kinesis):
    """While a call is under way the secret is in memory that a core dump leaves out, and nowhere else; nor is it in the log."""
    secret = canaries(1)[0]
    kinesis.create_stream("discreet")
    kinesis.gate.keys["AKIDCANARY"] = (secret, None)
    server.sql("CREATE SERVER discreet TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region '%s', endpoint '%s')" % (REGION, kinesis.url))
    server.sql("CREATE USER MAPPING FOR CURRENT_USER SERVER discreet OPTIONS (access_key_id 'AKIDCANARY', secret_access_key '%s')" % secret)
    go_on = threading.Event()
    begun = len(kinesis.gate.requests)
    kinesis.gate.fail(held(go_on.is_set), "PutRecords")
    server.sql("CREATE STREAM discreet (n int) SERVER discreet; INSERT INTO discreet VALUES (1)")
    wait_until(lambda: len(kinesis.gate.requests) > begun, "a call")
    dumped, kept = where_in_memory(server.workers("deliver")[0], [secret.encode()], shared=False)
    go_on.set()
    assert not any(dumped.values()) and all(kept.values()), (dumped, kept)
    delivered(server, "discreet")
    assert secret not in server.log_text()


@pytest.fixture
def killed(server, kinesis, seoul):
    """A stream of 3 shards that has got many rows while its deliver worker, or the whole server, was killed and the network failed; what was committed."""
    kinesis.create_stream("killed", 3)
    server.sql("CREATE STREAM killed (k text, id int) SERVER seoul OPTIONS (key 'k')")
    server.sql("CREATE TABLE committed (id int PRIMARY KEY, k text)")
    chance = random.Random(3)
    faults = [throttled, no_json(), failing("500 No", "InternalFailure"), reset, lost(reset), lost(no_json()), cut(), drip(), partial(lambda i, r: i % 3 == 1)]
    kinesis.gate.fail(lambda gate, request: chance.choice(faults)(gate, request) if chance.random() < 0.2 else gate.good(request), "PutRecords", times=None)
    size, done = 200, 0
    for kill in range(KILLS):
        for _ in range(3):
            try:
                server.sql("WITH new AS (INSERT INTO committed SELECT i, 'k' || i %% 25 FROM generate_series(%s, %s) i RETURNING id, k) INSERT INTO killed (k, id) SELECT k, id FROM new ORDER BY id",
                           done + 1, done + size)
            except psycopg2.Error:
                patiently(server, "SELECT 1")       # it was crashing; whether this was committed is in the table
            done += size
        pid = patiently(server, "SELECT max(pid) FROM kda.workers WHERE kind = 'deliver'")
        time.sleep(chance.random() * 0.2)
        if pid:
            os.kill(pid, signal.SIGKILL if kill % 2 else signal.SIGTERM)
    delivered(server, "killed", 300)
    kinesis.gate.rules.clear()
    expected = collections.defaultdict(list)
    for i, k in server.sql("SELECT id, k FROM committed ORDER BY id"):
        expected[k].append(i)
    assert sum(map(len, expected.values())) > size
    return expected


def judge(expected, arrived):
    """arrived: (key, row) in the order of each shard.  Nothing is lost, twice means with the same number, and a key's order is that of its rows."""
    numbers, found = {}, collections.defaultdict(list)
    for key, row in arrived:
        assert row["k"] == key and numbers.setdefault(row["kda_seq"], row["id"]) == row["id"]
        if row["id"] not in found[key]:
            found[key].append(row["id"])
    assert len(numbers) == sum(map(len, found.values())), "a row came with two numbers"
    assert found == expected


def test_kills(server, kinesis, killed):
    judge(killed, [(r["key"], json.loads(r["data"])) for r in kinesis.get("killed")])
    if LONG:
        dynamodb = moto()
        reader = Reader(kinesis, dynamodb, "killed")
        try:
            total = len(kinesis.get("killed"))
            # it takes two minutes to make its tables and to find that nobody else has its leases
            wait_until(lambda: len(reader.records) >= total, "KCL to read %d records; see kcl.log" % total, 600)
            judge(killed, [(key, json.loads(data)) for _, key, data in reader.records])
        finally:
            reader.stop()
            dynamodb.stop()
