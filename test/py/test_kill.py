"""Whatever is killed whenever: not one record is lost or counted twice."""
import json
import os
import random
import signal
import time
from collections import Counter

import psycopg2
import pytest
from harness import LONG, Feeder, Kafka, Postgres, alive, caught_up, patiently, wait_until

KILLS = 60 if LONG else 21


class Events(Feeder):
    """Events to 4 partitions; keeps count of what was delivered."""

    def __init__(self, kafka, topic, per_second=3000, seed=1):
        super().__init__(kafka, topic, per_second, seed)
        self.expected = Counter()       # (minute, country, action) -> records
        self.sums = Counter()
        self.malformed = 0
        self.second = 0.0

    def one(self, p):
        self.second += 0.01
        r = self.random
        part = r.randrange(4)
        if r.random() < 0.01:
            p.produce(self.topic, '{"ts": "broken', partition=part)
            self.malformed += 1
            return
        # out of order, within the stream's watermark
        us = int(max(0.0, self.second - r.random() * 3) * 1e6)
        at = us // 1000000
        country, action, v = r.choice("KR US JP DE".split()), r.choice(("click", "view")), r.randrange(100)
        p.produce(self.topic, json.dumps({
            "ts": "2026-01-01T%02d:%02d:%02d.%06dZ" % (at // 3600, at // 60 % 60, at % 60, us % 1000000),
            "country": country, "action": action, "value": v}), partition=part)
        self.expected[(at // 10, country, action)] += 1
        self.sums[(at // 10, country, action)] += v


def compare(server, feeder, view):
    got = server.sql("SELECT (extract(epoch FROM window_start - '2026-01-01 00:00:00+00') / 10)::int, country, action, n, s FROM %s" % view)
    counts = {(w, c, a): (n, s) for w, c, a, n, s in got}
    assert len(counts) == len(got), "a window and key appear twice"
    assert counts == {k: (n, feeder.sums[k]) for k, n in feeder.expected.items()}


def declare(server, kafka, topic, stream, view):
    server.sql("CREATE EXTENSION IF NOT EXISTS kda_stream")
    server.sql("""CREATE SERVER IF NOT EXISTS msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream
                  OPTIONS ("bootstrap.servers" '%s')""" % kafka.address)
    server.sql("""CREATE STREAM %s (rowtime timestamptz OPTIONS (path '$.ts'), country text, action text, value int)
                  SERVER msk OPTIONS (topic '%s', start 'earliest', watermark '5 seconds', max_ahead 'never')""" % (stream, topic))
    server.sql("""CREATE CONTINUOUS VIEW %s AS SELECT country, action, count(*) AS n, sum(value) AS s FROM %s
                  WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY country, action""" % (view, stream))


def check_errors(server, feeder, stream):
    assert server.sql("SELECT error_name, count(*), count(DISTINCT (shard, position)) FROM kda.error_stream "
                      "WHERE stream = %s::regclass GROUP BY 1", stream) == [("malformed", feeder.malformed, feeder.malformed)]
    assert server.value("SELECT records_late FROM kda.streams WHERE stream = %s::regclass", stream) == 0


def test_kill_9_of_everything_at_random_moments(kafka):
    kafka.create_topic("t_kill", 4)
    server = Postgres("kill", ["kda_stream.commit_interval = '20ms'", "wal_writer_delay = '10ms'"]).start()
    declare(server, kafka, "t_kill", "killed", "killed_v")
    feeder = Events(kafka, "t_kill")
    feeder.start()
    r = random.Random(int(os.environ.get("KDA_SEED", "7")))
    for i in range(KILLS):
        time.sleep(r.random() * 0.8)
        what = ("pipeline", "launcher", "postmaster")[i % 3]
        if what == "postmaster":
            server.crash()
            server.start()
        else:
            pids = wait_until(lambda: workers(server, what), "a %s to be there" % what)
            try:
                os.kill(pids[0], signal.SIGKILL)
            except ProcessLookupError:
                pass
            wait_until(lambda: not alive(pids[0]), "it to be gone")
            wait_until(server.answers, "the server to recover")
    feeder.stop()
    caught_up(server, "killed")
    compare(server, feeder, "killed_v")
    check_errors(server, feeder, "killed")
    assert "PANIC" not in server.log_text()
    server.destroy()


def workers(server, kind):
    try:
        return server.workers(kind)
    except psycopg2.Error:
        return []


def more_records(server, n=300):
    """Waits until so many more have been processed of the one stream."""
    read = "SELECT records_in FROM kda.streams"
    before = patiently(server, read)
    wait_until(lambda: patiently(server, read) >= before + n, "records to flow")


def test_terminate_and_restart_lose_nothing(kafka):
    """pg_terminate_backend, fast and immediate shutdown, reload, while records flow."""
    kafka.create_topic("t_term", 4)
    server = Postgres("term", ["kda_stream.commit_interval = '20ms'"]).start()
    declare(server, kafka, "t_term", "termed", "termed_v")
    feeder = Events(kafka, "t_term")
    feeder.start()
    for i in range(6):
        more_records(server)
        for pid in workers(server, ("pipeline", "launcher")[i % 2]):
            server.sql("SELECT pg_terminate_backend(%s)", pid)
        server.sql("SELECT pg_reload_conf()")
    for mode in ("fast", "immediate", "fast"):
        more_records(server)
        assert server.stop(mode) < 5
        server.start()
    feeder.stop()
    caught_up(server, "termed")
    compare(server, feeder, "termed_v")
    check_errors(server, feeder, "termed")
    # the launcher that was terminated is back
    wait_until(lambda: workers(server, "launcher") and workers(server, "pipeline"), "both to run")
    server.check_sane()
    server.destroy()


def test_broker_stops_and_starts(kafka):
    broker = Kafka("kafka2").start()
    broker.create_topic("t_broker", 4)
    server = Postgres("broker", ["kda_stream.commit_interval = '20ms'"]).start()
    declare(server, broker, "t_broker", "brokered", "brokered_v")
    feeder = Events(broker, "t_broker", 1000)
    feeder.start()
    time.sleep(1)
    for kill in (False, True):
        broker.stop(kill)
        wait_until(lambda: server.value("SELECT last_error FROM kda.streams"), "the trouble to show")
        assert server.value("SELECT state FROM kda.streams") == "running"
        broker.start()
        time.sleep(1)
    feeder.stop()
    caught_up(server, "brokered")
    compare(server, feeder, "brokered_v")
    check_errors(server, feeder, "brokered")
    wait_until(lambda: server.value("SELECT last_error IS NULL FROM kda.streams"), "the trouble to go")

    # a broker that is not there at the start
    broker.stop()
    server.stop("fast")
    server.start()
    time.sleep(0.5)
    feeder2 = Events(broker, "t_broker", 1000)
    broker.start()
    feeder2.expected, feeder2.sums, feeder2.malformed = feeder.expected, feeder.sums, feeder.malformed
    caught_up(server, "brokered")
    compare(server, feeder2, "brokered_v")
    server.check_sane()
    server.destroy()
    broker.stop()


def test_topic_deleted_and_made_anew_stops_the_stream(kafka):
    server = Postgres("anew", ["kda_stream.commit_interval = '20ms'"]).start()
    server.sql("CREATE EXTENSION kda_stream")
    server.sql("""CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '%s')""" % kafka.address)
    # the topic does not exist yet: that is said, and then it is read from its first record on
    server.sql("CREATE STREAM anew (v int) SERVER msk OPTIONS (topic 't_anew')")
    server.sql("CREATE CONTINUOUS VIEW anew_v AS SELECT count(*) n, sum(v) s FROM anew")
    wait_until(lambda: "does not exist" in (server.value("SELECT last_error FROM kda.streams") or ""), "the missing topic to be named")
    kafka.create_topic("t_anew")
    kafka.produce("t_anew", [{"v": 1}] * 10)
    wait_until(lambda: server.sql("SELECT n, s FROM anew_v") == [(10, 10)], "the records")
    kafka.delete_topic("t_anew")
    time.sleep(1)
    kafka.create_topic("t_anew")
    kafka.produce("t_anew", [{"v": 1}] * 3)
    wait_until(lambda: server.value("SELECT state FROM kda.streams") == "failed", "the stream to stop")
    error = server.value("SELECT last_error FROM kda.streams")
    assert "t_anew" in error and "RESUME" in error and "start" in error, error
    assert server.sql("SELECT n, s FROM anew_v") == [(10, 10)]
    # the way on that the error names
    server.sql("ALTER STREAM anew OPTIONS (ADD start 'earliest')")
    server.sql("ALTER STREAM anew RESUME")
    wait_until(lambda: server.sql("SELECT n, s FROM anew_v") == [(13, 13)], "the new topic's records")
    assert server.value("SELECT state FROM kda.streams") == "running"
    server.destroy()


def test_truncated_topic_stops_the_stream(kafka):
    """Records that were deleted at the broker before they were read are never skipped silently."""
    from confluent_kafka import KafkaError  # noqa: F401
    server = Postgres("trunc", ["kda_stream.commit_interval = '20ms'"]).start()
    server.sql("CREATE EXTENSION kda_stream")
    server.sql("""CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '%s')""" % kafka.address)
    kafka.create_topic("t_trunc", config={"segment.ms": "1000", "retention.ms": "-1", "segment.bytes": "1048576"})
    server.sql("CREATE STREAM trunc (v int) SERVER msk OPTIONS (topic 't_trunc', start 'earliest')")
    server.sql("CREATE CONTINUOUS VIEW trunc_v AS SELECT count(*) n FROM trunc")
    kafka.produce("t_trunc", [{"v": 1}] * 10)
    caught_up(server, "trunc")
    server.sql("ALTER STREAM trunc PAUSE")
    kafka.produce("t_trunc", [{"v": 1}] * 10)
    # retention takes everything
    from confluent_kafka.admin import ConfigResource
    for f in kafka.client.alter_configs([ConfigResource(ConfigResource.Type.TOPIC, "t_trunc", {"retention.ms": "1", "segment.ms": "100"})]).values():
        f.result(10)

    def low():
        kafka.produce("t_trunc", [{"v": 100}])
        from confluent_kafka import Consumer, TopicPartition
        c = Consumer({"bootstrap.servers": kafka.address, "group.id": "x"})
        try:
            return c.get_watermark_offsets(TopicPartition("t_trunc", 0), timeout=5)[0] > 12
        finally:
            c.close()
    wait_until(low, "the old segments to go", 60, 1)
    server.sql("ALTER STREAM trunc RESUME")
    wait_until(lambda: server.value("SELECT state FROM kda.streams") == "failed", "the stream to stop")
    assert "are gone" in server.value("SELECT last_error FROM kda.streams")
    assert server.value("SELECT n FROM trunc_v") == 10
    server.destroy()
