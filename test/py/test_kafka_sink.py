"""The Kafka sink against a real broker, outside of a server (test/kafka/sink.c): this file is the deliver worker, with the batches in its memory for an outbox."""
import json
import os
import random
import subprocess
import time

import pytest
from aws_parts import Program, build_program, bytes_of, field
from harness import LONG, WORK, Kafka, free_port, wait_until

SOURCES = ["kafka_sink", "kafka_sink_thread", "kafka_sink_once", "kafka_sink_least", "kafka_headers", "kafka_conf", "kafka_token", "sigv4", "secret", "retry", "threads"]
EPOCH_MS = 946684800000     # 2000-01-01 since 1970


@pytest.fixture(scope="module")
def binary():
    return build_program("sink", SOURCES, ["rdkafka"], folder="kafka")


@pytest.fixture
def topic(kafka, request):
    """A topic of three partitions, named after the test."""
    name = request.node.name.replace("[", "_").replace("]", "").replace("test_", "")
    kafka.create_topic(name, 3)
    return name


class Sink:
    """A process with a sink."""

    def __init__(self, binary, kafka, topic, once=True, identity=None, delivered=(0, 0, 0), **options):
        self.program = Program(binary)
        for name, value in {"bootstrap.servers": kafka.address, **{k.replace("_", "."): v for k, v in options.items()}}.items():
            self.program.say("option", field(name), field(str(value)))
        self.program.say("open", field(topic), field(identity or "out/" + topic), int(once), *delivered, 500)

    def state(self):
        ready, has, timeline, lsn, number, missing, retries, failed, under_way, error = self.program.ask("state")
        return {"ready": ready == "1", "mark": (int(timeline), int(lsn), int(number)) if has == "1" else None, "missing": missing == "1",
                "retries": int(retries), "failed": failed == "1", "under_way": int(under_way), "error": bytes_of(error).decode()}

    def until(self, condition, what, timeout=60):
        def look():
            state = self.state()
            return state if condition(state) else None
        return wait_until(look, what, timeout)

    def ready(self):
        return self.until(lambda s: s["ready"] or s["failed"], "the sink to be ready")

    def record(self, value, key=None, headers=None, time_us="-"):
        self.program.say("record", field(key), field(value), field(headers), time_us)

    def send(self, first, timeline=1, lsn=None):
        self.program.say("send", first, timeline, lsn or first * 8)

    def count(self, first, n, **mark):
        """A batch of n records {"n": number}, key number % 100."""
        self.program.say("count", first, n)
        self.send(first, **mark)

    def done(self, timeout=60):
        """The number and the refused records of the next batch that is done."""
        def look():
            line = self.program.ask("done")
            return line if line[0] != "-" else None
        line = wait_until(look, "a batch to be done", timeout, 0.005)
        return int(line[0]), {int(line[i]): bytes_of(line[i + 1]).decode() for i in range(2, 2 + 2 * int(line[1]), 2)}

    def close(self, deadline_ms=10000):
        took = int(self.program.ask("close", deadline_ms)[1])
        self.program.stop()
        return took

    def kill(self):
        self.program.process.kill()
        self.program.process.wait()


def read(kafka, topic, uncommitted=False):
    """All messages of a topic, partition by partition, as a consumer sees them that reads only what is committed."""
    from confluent_kafka import Consumer, TopicPartition
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": "judge", "log_level": 0, "enable.partition.eof": True, "enable.auto.commit": False,
                         "isolation.level": "read_uncommitted" if uncommitted else "read_committed"})
    partitions = list(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
    messages, ended, until = {p: [] for p in partitions}, set(), time.monotonic() + 60
    while len(ended) < len(partitions):
        assert time.monotonic() < until, "the topic's end does not come"
        m = consumer.poll(1)
        if m is not None and m.error() is None:
            messages[m.partition()].append(m)
        elif m is not None:
            ended.add(m.partition())
    consumer.close()
    return [m for p in partitions for m in messages[p]]


def numbers(messages):
    return [json.loads(m.value())["n"] for m in messages]


def in_order(messages):
    """Are the numbers of each key in order?"""
    last = {}
    for m in messages:
        n = json.loads(m.value())["n"]
        if n <= last.get(m.key(), -1):
            return False
        last[m.key()] = n
    return True


@pytest.mark.parametrize("once", [True, False])
def test_what_a_record_becomes(kafka, binary, topic, once):
    sink = Sink(binary, kafka, topic, once)
    assert sink.ready()["mark"] is None
    sink.record("both", key="k", headers='{"text": "caf\\u00e9 \\"\\ud83d\\ude00\\"", "number": 1.50, "nothing": null, "flag": true, "list": [1, {"a": "]"}], "": ""}', time_us=1234567)
    sink.record(None, key="gone")                       # a tombstone
    sink.record("", key="", time_us=-EPOCH_MS * 1000)   # empty is not none; 1970-01-01
    sink.record("no key", time_us=-1)
    sink.record("early", time_us=-2 * EPOCH_MS * 1000)  # Kafka has no such time
    sink.send(1)
    assert sink.done() == (5, {})
    got = {m.value(): m for m in read(kafka, topic)}
    m = got[b"both"]
    assert m.key() == b"k" and m.timestamp() == (1, EPOCH_MS + 1234)
    assert m.headers() == [("text", "café \"\U0001f600\"".encode()), ("number", b"1.50"), ("nothing", None), ("flag", b"true"), ("list", b'[1, {"a": "]"}]'), ("", b"")]
    assert got[None].key() == b"gone" and got[None].headers() is None
    assert abs(got[None].timestamp()[1] / 1000 - time.time()) < 3600        # no time: now
    assert got[b""].key() == b"" and got[b""].timestamp()[1] == 1
    assert got[b"no key"].key() is None and got[b"no key"].timestamp()[1] == EPOCH_MS - 1
    assert got[b"early"].timestamp()[1] == 1
    sink.close()


def test_a_key_goes_where_java_would_send_it(kafka, binary, topic):
    keys = ["k%d" % i for i in range(50)]
    sink = Sink(binary, kafka, topic)
    sink.ready()
    for key in keys:
        sink.record("ours", key)
    sink.send(1)
    sink.done()
    sink.close()
    producer = kafka.producer(partitioner="murmur2_random")
    for key in keys:
        producer.produce(topic, "theirs", key)
    producer.flush(30)
    where = {(m.value(), m.key()): m.partition() for m in read(kafka, topic)}
    assert all(where[b"ours", k.encode()] == where[b"theirs", k.encode()] for k in keys) and len(set(where.values())) == 3


def test_headers_that_are_none(kafka, binary, topic):
    sink = Sink(binary, kafka, topic)
    sink.ready()
    bad = ["", "[]", '{"a"}', '{"a": }', '{"a": "b"', '{"a": "\\u12"}', '{"a": "\\ud800"}', '{"a": 1} x', '{"a": ' + "[" * 100 + "]" * 100 + "}"]
    for headers in bad + ["{}"]:
        sink.record("v", headers=headers)
    sink.send(1)
    number, refused = sink.done()
    assert number == 10 and refused == {i: "its headers are not a JSON object of names and values" for i in range(9)}
    assert len(read(kafka, topic)) == 1
    sink.close()


class Deliverer:
    """Batches of count() from 1 on, those that are done remembered as the deliver worker does: after the sink has said so, and perhaps never."""

    def __init__(self, binary, kafka, topic, once, batches, size, **options):
        self.args, self.once, self.options = (binary, kafka, topic), once, options
        self.batches, self.size = batches, size
        self.stored = 0             # batches
        self.sink = None
        self.sent = 0

    def mark(self, batch):
        return (1, ((batch - 1) * self.size + 1) * 8, batch * self.size) if batch else (0, 0, 0)

    def open(self):
        self.sink = Sink(*self.args, self.once, delivered=self.mark(self.stored), **self.options)
        state = self.sink.ready()
        assert not state["failed"], state
        if state["mark"]:
            batch = state["mark"][2] // self.size
            assert state["mark"] == self.mark(batch) and batch >= self.stored
            self.stored = batch
        else:
            assert not self.once or self.stored == 0
        self.sent = self.stored

    def step(self):
        """False: all is done."""
        if self.sent < self.batches and self.sink.state()["ready"]:
            self.sink.count(self.sent * self.size + 1, self.size)
            self.sent += 1
        line = self.sink.program.ask("done")
        if line[0] != "-":
            assert line[1] == "0"
            self.stored += 1
            assert int(line[0]) == self.stored * self.size
        return self.stored < self.batches


def deliver_through_kills(worker, kills, chance):
    """Sends all, and kills the process so many times, somewhere."""
    worker.open()
    n = 0
    while worker.step() or n < kills:
        if n < kills and (chance.random() < 0.2 or worker.stored == worker.batches):
            time.sleep(chance.random() * 0.2)       # anywhere in what the helper thread does
            worker.sink.kill()
            n += 1
            worker.open()
    worker.sink.close()


def test_exactly_once_through_kills(kafka, binary, topic):
    """kill -9 at random moments; the same batches come again with the same numbers."""
    worker = Deliverer(binary, kafka, topic, True, batches=60, size=500)
    deliver_through_kills(worker, 20, random.Random(5))
    messages = read(kafka, topic)
    assert sorted(numbers(messages)) == list(range(1, 30001)) and in_order(messages)
    assert len(read(kafka, topic, uncommitted=True)) > 30000, "no transaction was cut short: this proves nothing"


def test_at_least_once_through_kills(kafka, binary, topic):
    worker = Deliverer(binary, kafka, topic, False, batches=60, size=500)
    deliver_through_kills(worker, 10, random.Random(6))
    found = numbers(read(kafka, topic))
    assert set(found) == set(range(1, 30001)) and len(found) > 30000
    # each key's records appear first in order
    first = {}
    for m in read(kafka, topic):
        n = json.loads(m.value())["n"]
        first.setdefault(m.key(), []).append(n) if n not in first.get(m.key(), ()) else None
    assert all(ns == sorted(ns) for ns in first.values())


@pytest.mark.parametrize("once", [True, False])
def test_a_broker_that_is_killed(binary, once):
    """It comes back each time; nothing is lost, and exactly once nothing comes twice."""
    kafka = Kafka("killed_%s" % once).start()
    kafka.create_topic("t", 3)
    worker = Deliverer(binary, kafka, "t", once, batches=40, size=1000, transaction_timeout_ms=10000)
    worker.open()
    retries = 0
    chance = random.Random(7)
    for n in range(4 if LONG else 1):
        until = (n + 1) * 8
        while worker.stored < until:
            worker.step()
        time.sleep(chance.random() * 0.1)
        kafka.stop(kill=True)
        for _ in range(3):
            worker.step()
        # it says so, goes on trying, and takes what it can
        retries = worker.sink.until(lambda s: s["error"] and s["retries"] > retries, "the trouble to show")["retries"]
        if n == 1:
            time.sleep(11)          # longer than a transaction may last
        kafka.start()
    while worker.step():
        pass
    worker.sink.until(lambda s: s["error"] == "", "the trouble to go")
    worker.sink.close()
    messages = read(kafka, "t")
    assert set(numbers(messages)) == set(range(1, 40001))
    if once:
        assert len(messages) == 40000 and in_order(messages)
    kafka.stop()


def test_a_commit_that_nobody_hears_of(binary):
    """A frozen broker that goes on after the transaction's time: whatever has become of it, each record is there once."""
    import signal
    kafka = Kafka("frozen").start()
    kafka.create_topic("t", 3)
    worker = Deliverer(binary, kafka, "t", True, batches=30, size=500, transaction_timeout_ms=3000, socket_timeout_ms=1500)
    worker.open()
    for until in (5, 12, 20):
        while worker.stored < until:
            worker.step()
        worker.step()
        os.killpg(kafka.process.pid, signal.SIGSTOP)
        worker.sink.until(lambda s: s["error"], "the trouble to show")
        time.sleep(4)
        os.killpg(kafka.process.pid, signal.SIGCONT)
    while worker.step():
        pass
    worker.sink.close()
    messages = read(kafka, "t")
    assert sorted(numbers(messages)) == list(range(1, 15001)) and in_order(messages)
    kafka.stop()


def test_only_the_newest_may_deliver(kafka, binary, topic):
    """A second process with the same identity (a clone, a primary that does not know that it was replaced): the older one stops."""
    old = Sink(binary, kafka, topic)
    old.ready()
    old.count(1, 10)
    assert old.done() == (10, {})
    new = Sink(binary, kafka, topic)
    assert new.ready()["mark"] == (1, 8, 10)
    old.count(11, 10)
    state = old.until(lambda s: s["failed"], "the old one to fail")
    assert "another process delivers as \"kda_stream-out/" in state["error"] and "taken over" in state["error"] and state["under_way"] == 1 and not state["ready"]
    new.count(11, 10, timeline=2)
    assert new.done() == (20, {})
    assert sorted(numbers(read(kafka, topic))) == list(range(1, 21))
    old.close()
    new.close()


def committed(kafka, group, topic):
    """The offset that the group has committed; None: none."""
    from confluent_kafka import Consumer, TopicPartition
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": group, "log_level": 0})
    offset = consumer.committed([TopicPartition(topic, 0)], timeout=30)[0].offset
    consumer.close()
    return offset if offset >= 0 else None


def lose_mark(kafka, topic):
    """As if it had expired: Kafka forgets it with its topic."""
    kafka.delete_topic(topic)
    kafka.create_topic(topic, 3)
    wait_until(lambda: committed(kafka, "kda_stream-out/" + topic, topic) is None, "the mark to go")


def test_a_mark_that_has_gone(kafka, binary, topic):
    sink = Sink(binary, kafka, topic)
    sink.ready()
    sink.count(1, 10)
    sink.done()
    sink.close()
    assert committed(kafka, "kda_stream-out/" + topic, topic) == 10
    lose_mark(kafka, topic)
    sink = Sink(binary, kafka, topic, delivered=(1, 8, 10))
    state = sink.ready()
    assert state["mark"] is None and state["missing"] and not state["failed"]
    # goes on from what this side knows, and the mark is back
    sink.count(11, 10)
    assert sink.done() == (20, {})
    assert committed(kafka, "kda_stream-out/" + topic, topic) == 20
    sink.close()
    sink = Sink(binary, kafka, topic, delivered=(1, 8, 10))
    state = sink.ready()
    assert state["mark"] == (1, 88, 20) and not state["missing"]
    sink.close()


def test_a_mark_is_kept_alive(kafka, binary, topic):
    sink = Sink(binary, kafka, topic)
    sink.ready()
    sink.count(1, 10)
    sink.done()
    sink.state()
    lose_mark(kafka, topic)
    sink.program.say("clock", 23 * 3600)
    sink.state()
    sink.program.say("clock", 2 * 3600)
    wait_until(lambda: sink.state() and committed(kafka, "kda_stream-out/" + topic, topic) == 10, "the mark to be committed again")
    # and it sends as before
    sink.count(11, 10)
    assert sink.done() == (20, {})
    sink.close()


@pytest.mark.parametrize("once", [True, False])
def test_records_that_are_refused(kafka, binary, once):
    """Alone, and the others are delivered in order: by the library (too large for it), by the topic (too large, no key where it is compacted)."""
    topic = "refused_%s" % once
    kafka.create_topic(topic, 1, {"max.message.bytes": "4000", "cleanup.policy": "compact"})
    sink = Sink(binary, kafka, topic, once, message_max_bytes=100000)
    sink.ready()
    for n in range(1, 201):
        pad = "x" * (200000 if n == 50 else 10000 if n in (20, 100, 101) else 10)
        sink.record(json.dumps({"n": n, "pad": pad}), key=None if n in (70, 200) else "k%d" % (n % 7))
    sink.send(1)
    number, refused = sink.done()
    assert number == 200 and sorted(i + 1 for i in refused) == [20, 50, 70, 100, 101, 200]
    assert "large" in refused[19] and "message.max.bytes" in refused[49] and "large" in refused[99].lower() and refused[69]
    # a batch of the library's may be too large though none of its records is
    sink.count(201, 2000)
    assert sink.done() == (2200, {})
    sink.count(2201, 10)
    assert sink.done() == (2210, {})
    assert sink.state()["error"] == ""
    sink.close()
    messages = read(kafka, topic)
    expected = [n for n in range(1, 2211) if n not in (20, 50, 70, 100, 101, 200)]
    if once:
        assert sorted(numbers(messages)) == expected and in_order(messages)
    else:
        assert sorted(set(numbers(messages))) == expected


@pytest.mark.parametrize("once", [True, False])
def test_a_topic_that_does_not_exist(kafka, binary, once):
    topic = "later_%s" % once
    sink = Sink(binary, kafka, topic, once)
    state = sink.until(lambda s: s["error"], "the trouble to show")
    assert state["error"] == 'topic "%s" does not exist' % topic and not state["failed"] and not state["ready"]
    sink.until(lambda s: s["retries"] > 2, "further attempts")
    assert topic not in kafka.client.list_topics(timeout=10).topics        # nor is it made
    kafka.create_topic(topic)
    sink.ready()
    sink.count(1, 10)
    assert sink.done() == (10, {})
    # deleted, and made anew
    kafka.delete_topic(topic)
    sink.count(11, 10)
    sink.until(lambda s: "exist" in s["error"] or "nknown topic" in s["error"], "the trouble to show", 90)
    kafka.create_topic(topic)
    assert sink.done(120) == (20, {})
    assert sorted(set(numbers(read(kafka, topic)))) == list(range(11, 21))
    sink.close()


@pytest.mark.parametrize("once", [True, False])
def test_closing_does_not_wait(binary, once):
    """Nor does it with a broker that never answers, or with records under way."""
    kafka = Kafka("closed_%s" % once).start()
    kafka.create_topic("t")
    sink = Sink(binary, kafka, "t", once)
    sink.ready()
    for n in range(8):
        sink.count(n * 1000 + 1, 1000)
    assert sink.close() < 5000
    sink = Sink(binary, kafka, "t", once)
    sink.ready()
    kafka.stop(kill=True)
    sink.count(1, 100)
    sink.until(lambda s: s["error"], "the trouble to show")
    assert int(sink.program.ask("close", 200)[1]) < 1000
    sink.program.stop()
    # nobody has ever been there
    sink = Sink(binary, kafka, "t", once)
    state = sink.until(lambda s: s["error"], "the trouble to show")
    assert "refused" in state["error"] and not state["failed"]
    assert sink.close(3000) < 4000


class Guarded:
    """A broker where user "writer" may do what the test allows."""

    def __init__(self):
        port = free_port()
        extra = ["listener.security.protocol.map=PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT",
                 "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users=User:ANONYMOUS",
                 "listener.name.sasl.sasl.enabled.mechanisms=PLAIN",
                 'listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_writer="w";']
        self.kafka = Kafka("guarded", "\n".join(extra) + "\n", env={"KAFKA_LISTENERS": "SASL://127.0.0.1:%d" % port}).start()
        self.options = {"bootstrap.servers": "127.0.0.1:%d" % port, "security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "PLAIN", "sasl.username": "writer", "sasl.password": "w"}

        self.classes = os.path.join(WORK, "acls")
        subprocess.run(["javac", "-d", self.classes, "-cp", os.environ["KDA_JARS"] + "/*", os.path.join(WORK, "build/test/kafka/Acls.java")], check=True)

    def acls(self, what, rights):
        subprocess.run(["java", "-XX:TieredStopAtLevel=1", "-cp", self.classes + ":" + os.environ["KDA_JARS"] + "/*", "Acls", self.kafka.address, "User:writer", what,
                        *[word for right in rights for word in right]], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_the_rights_that_a_writer_needs(binary):
    """Those of docs/kafka.md are enough; without one of them the error says what is missing, and it goes on as soon as it is given."""
    guarded = Guarded()
    for once in (True, False):
        topic = "rights_%s" % once
        rights = [("TOPIC", "LITERAL", topic, "WRITE")]
        if once:
            rights += [("TOPIC", "LITERAL", topic, "READ"), ("TRANSACTIONAL_ID", "PREFIXED", "kda_stream-", "WRITE"), ("GROUP", "PREFIXED", "kda_stream-", "READ")]
        guarded.kafka.create_topic(topic)
        guarded.acls("add", rights)
        sink = Sink(binary, guarded.kafka, topic, once, **guarded.options)
        sink.ready()
        sink.count(1, 10)
        assert sink.done() == (10, {})
        sink.close()
        for n, missing in enumerate(rights):
            guarded.acls("remove", [missing])
            sink = Sink(binary, guarded.kafka, topic, once, delivered=(1, 8, 10) if n == 0 else (1, n * 80 + 8, n * 10 + 10), **guarded.options)
            state = sink.until(lambda s: s["error"] or s["ready"], "the sink to see what it may do")
            sent = state["ready"]
            if sent:
                sink.count(n * 10 + 11, 10)
                state = sink.until(lambda s: s["error"], "the trouble to show")
            assert "uthoriz" in state["error"] and not state["failed"], state
            guarded.acls("add", [missing])
            sink.ready()
            if not sent:
                sink.count(n * 10 + 11, 10)
            assert sink.done() == (n * 10 + 20, {})
            sink.close()
        found = numbers(read(guarded.kafka, topic))
        assert sorted(set(found)) == list(range(1, len(rights) * 10 + 11)) and (len(found) == len(set(found)) or not once)
    guarded.kafka.stop()
