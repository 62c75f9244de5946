"""Streams that are written to Kafka: what a consumer that reads only what is committed gets."""
import json
import os
import random
import signal
import time

import psycopg2
from harness import LONG, Kafka, Postgres, alive, wait_until

KILLS = 20 if LONG else 4


def consume(kafka, topic, enough, timeout=90):
    """All committed messages of a topic, until enough(messages) says so."""
    from confluent_kafka import Consumer, TopicPartition
    c = Consumer({"bootstrap.servers": kafka.address, "group.id": "judge", "isolation.level": "read_committed",
                  "enable.auto.commit": False, "auto.offset.reset": "earliest", "log_level": 0})
    c.assign([TopicPartition(topic, p, 0) for p in kafka.client.list_topics(topic, timeout=10).topics[topic].partitions])
    messages, end = [], time.monotonic() + timeout
    while not enough(messages):
        assert time.monotonic() < end, "%d messages of %s" % (len(messages), topic)
        messages += [m for m in c.consume(1000, 0.2) if not m.error()]
    messages += [m for m in c.consume(1000, 0.5) if not m.error()]      # and nothing comes behind them
    c.close()
    return messages


def test_a_row_as_a_record(server, kafka, msk):
    kafka.create_topic("t_written", 3)
    server.sql("""CREATE STREAM written (rowtime timestamptz, k text, v int, h jsonb) SERVER msk
                  OPTIONS (topic 't_written', key 'k', headers 'h', changelog 'upsert')""")
    server.sql("""INSERT INTO written VALUES ('2026-01-01 00:00:07+00', 'a', 1, '{"trace": "x1"}'), ('2026-01-01 00:00:08+00', 'a', NULL, NULL)""")
    first, second = consume(kafka, "t_written", lambda m: len(m) >= 2)
    assert (first.key(), json.loads(first.value())) == (b"a", {"rowtime": "2026-01-01T00:00:07+00:00", "k": "a", "v": 1})
    assert first.headers() == [("trace", b"x1")] and first.timestamp()[1] == 1767225607000
    assert (second.key(), second.value()) == (b"a", None) and second.partition() == first.partition()
    wait_until(lambda: server.sql("SELECT state, delivered, pending, last_error FROM kda.outputs WHERE output = 'written'::regclass") == [("running", 2, 0, None)],
               "the server to know")


def test_rolled_back_and_read_again(server, kafka, msk):
    """What is written can be read as another stream's records; what is rolled back is in neither."""
    kafka.create_topic("t_round", 1)
    server.sql("CREATE STREAM out (k text, v int) SERVER msk OPTIONS (topic 't_round', key 'k')")
    server.sql("CREATE STREAM back (k text, v int) SERVER msk OPTIONS (topic 't_round', start 'earliest')")
    server.sql("CREATE CONTINUOUS VIEW sums AS SELECT k, sum(v) AS s FROM back GROUP BY k")
    conn = server.connect(autocommit=False)
    conn.cursor().execute("INSERT INTO out VALUES ('a', 1000)")
    conn.rollback()
    conn.close()
    server.sql("INSERT INTO out SELECT 'a', g FROM generate_series(1, 100) g")
    wait_until(lambda: server.sql("SELECT k, s FROM sums") == [("a", 5050)], "the sum to come back")
    # a stream that is read is not written by mistake
    try:
        server.sql("INSERT INTO back VALUES ('a', 1)")
        assert False
    except psycopg2.Error as e:
        assert e.pgcode == "55000" and "writable" in e.diag.message_hint


def test_each_row_once_whatever_is_killed(kafka):
    """A pump into Kafka, while deliver worker, pipeline worker, postmaster and broker are killed."""
    broker = Kafka("outputs_broker").start()
    broker.create_topic("t_once", 2)
    server = Postgres("outputs_kill", ["kda_stream.commit_interval = '20ms'", "wal_writer_delay = '10ms'", "kda_stream.retry_max_interval = '1s'"]).start()
    server.sql("CREATE EXTENSION kda_stream")
    server.sql("""CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '%s')""" % broker.address)
    server.sql("CREATE STREAM once (k text, v int) SERVER msk OPTIONS (topic 't_once', key 'k')")
    server.sql("CREATE STREAM source (v int)")
    server.sql("CREATE PUMP p AS INSERT INTO once SELECT 'k' || v % 7, v FROM source")
    r = random.Random(int(os.environ.get("KDA_SEED", "11")))
    n = 0

    def insert():
        nonlocal n
        try:
            server.sql("SET synchronous_commit = on; INSERT INTO source SELECT g FROM generate_series(%s, %s) g", n + 1, n + 500)
            n += 500
            return True
        except psycopg2.OperationalError:
            return False

    def pids(kind):
        try:
            return server.workers(kind)
        except psycopg2.Error:
            return []
    for i in range(KILLS):
        for _ in range(4):
            wait_until(insert, "an insert")
            time.sleep(r.random() * 0.2)
        what = ("deliver", "postmaster", "pipeline", "broker")[i % 4]
        if what == "postmaster":
            server.crash()
            server.start()
        elif what == "broker":
            broker.stop(kill=True)
            broker.start()
        else:
            pid = wait_until(lambda: pids(what), "a %s worker" % what)[0]
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            wait_until(lambda: not alive(pid), "it to be gone")
            wait_until(server.answers, "the server to recover")
    messages = consume(broker, "t_once", lambda m: len(m) >= n, 180)
    values = [json.loads(m.value())["v"] for m in messages]
    assert sorted(values) == list(range(1, n + 1))
    for partition in (0, 1):
        mine = [json.loads(m.value())["v"] for m in messages if m.partition() == partition]
        assert mine == sorted(mine)
    wait_until(lambda: server.sql("SELECT delivered, pending, failed FROM kda.outputs") == [(n, 0, 0)], "the server to know")
    server.check_sane()
    server.destroy()
    broker.stop()
