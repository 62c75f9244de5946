"""What a broker may do: gaps, topics made anew, damage, silence."""
import json
import os
import re
import signal
import threading
import time

import psycopg2
import pytest
from harness import LONG, Kafka, Postgres, alive, free_port, wait_until


@pytest.fixture(scope="module")
def broker():
    b = Kafka("faults", "log.cleaner.backoff.ms=50\nlog.cleaner.min.cleanable.ratio=0.01\nlog.message.timestamp.after.max.ms=9223372036854775807\n").start()
    yield b
    if b.process.poll() is None:
        b.process.send_signal(signal.SIGCONT)
    b.stop()


@pytest.fixture
def far(server, broker):
    server.sql("""CREATE SERVER IF NOT EXISTS far TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '%s')""" % broker.address)
    return server


def declare(server, name, columns="v int", query="SELECT count(*) n, sum(v) s FROM %s", **options):
    options = {"start": "earliest", "topic": name, **options}
    server.sql("CREATE STREAM %s (%s) SERVER far OPTIONS (%s)" % (name, columns, ", ".join("%s '%s'" % o for o in options.items())))
    server.sql("CREATE CONTINUOUS VIEW %s_v AS " % name + query % name)


def caught_up(server, name, timeout="30 s"):
    assert server.value("SELECT kda.wait(%s::regclass, %s)", name, timeout), server.sql("SELECT state, last_error FROM kda.streams WHERE stream = %s::regclass", name)


def status(server, name):
    return server.sql("SELECT state, coalesce(last_error, '') FROM kda.streams WHERE stream = %s::regclass", name)[0]


def fails(server, name, *words):
    wait_until(lambda: status(server, name)[0] == "failed", "%s to stop; it is %s" % (name, status(server, name)), 30)
    for word in words:
        assert word in status(server, name)[1], status(server, name)


def way_on(server, name, start="earliest"):
    server.sql("ALTER STREAM %s OPTIONS (SET start '%s')" % (name, start))
    server.sql("ALTER STREAM %s RESUME" % name)


def produce_keyed(broker, topic, pairs):
    p = broker.producer()
    for key, value in pairs:
        p.produce(topic, None if value is None else json.dumps(value), key=key)
    p.flush(30)


def test_compaction_leaves_legal_gaps(far, broker):
    """The record that was read last is gone, and the ones before what comes next: nothing is wrong."""
    server = far
    broker.create_topic("compact", config={"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "100"})
    declare(server, "compact")
    produce_keyed(broker, "compact", [("k%d" % (i % 5), {"v": 1}) for i in range(20)])
    caught_up(server, "compact")
    server.sql("ALTER STREAM compact PAUSE")
    assert server.sql("SELECT n FROM compact_v") == [(20,)]
    # the same keys again, until the first ones are compacted away
    sent = 20

    def first_left():
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
        nonlocal sent
        produce_keyed(broker, "compact", [("k%d" % (sent % 5), {"v": 1})])
        sent += 1
        c = Consumer({"bootstrap.servers": broker.address, "group.id": "x", "log_level": 0})
        c.assign([TopicPartition("compact", 0, OFFSET_BEGINNING)])
        m = c.poll(5)
        c.close()
        return m and not m.error() and m.offset() > 20
    wait_until(first_left, "the topic to be compacted", 60, 0.2)
    server.sql("ALTER STREAM compact RESUME")
    caught_up(server, "compact")
    state, error = status(server, "compact")
    assert (state, error) == ("running", "")
    n = server.value("SELECT n FROM compact_v")
    assert 20 < n < sent        # those that were left
    assert server.value("SELECT position FROM kda.shards WHERE stream = 'compact'::regclass") == str(sent)
    # a tombstone is skipped and counted
    produce_keyed(broker, "compact", [("k0", None)])
    caught_up(server, "compact")
    assert server.sql("SELECT records_skipped, records_failed FROM kda.streams WHERE stream = 'compact'::regclass") == [(1, 0)]


def test_transactions_leave_gaps_that_are_passed(far, broker):
    server = far
    broker.create_topic("txn")
    declare(server, "txn")

    def lag():
        return server.sql("SELECT position, lag_records, millis_behind_latest FROM kda.shards WHERE stream = 'txn'::regclass")
    p = broker.producer(transactional_id="faults-1")
    p.init_transactions(30)
    for values, commit in (([1, 2], True), ([100], False), ([3], True), ([100, 100], False)):
        p.begin_transaction()
        for v in values:
            p.produce("txn", json.dumps({"v": v}))
        p.flush()
        p.commit_transaction(30) if commit else p.abort_transaction(30)
    caught_up(server, "txn")
    assert server.sql("SELECT n, s FROM txn_v") == [(3, 6)]
    # what is behind it and no record is no lag: 6 records and 4 markers
    wait_until(lambda: lag() == [("10", 0, 0)], "the markers to be passed")
    # records of a transaction that is still open do not count, and hold nobody who waits
    p.begin_transaction()
    p.produce("txn", json.dumps({"v": 10}))
    p.flush()
    caught_up(server, "txn")
    assert server.sql("SELECT n, s FROM txn_v") == [(3, 6)]
    # a restart goes on behind the markers
    server.sql("SELECT pg_terminate_backend(pid) FROM kda.workers WHERE kind = 'pipeline'")
    p.commit_transaction(30)
    wait_until(lambda: server.sql("SELECT n, s FROM txn_v") == [(4, 16)], "the record")
    assert status(server, "txn") == ("running", "")


def make_anew(broker, topic, records):
    broker.delete_topic(topic)
    wait_until(lambda: topic_gone(broker, topic), "the topic to go")
    broker.create_topic(topic)
    broker.produce(topic, records)


def topic_gone(broker, topic):
    return topic not in broker.client.list_topics(timeout=5).topics


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("records", [3, 10, 30])
def test_a_topic_made_anew_is_noticed(far, broker, running, records):
    """Shorter, as long and longer than what was read; while it is read, and while it is not."""
    server, name = far, "anew_%s_%d" % (running, records)
    name = name.lower()
    broker.create_topic(name)
    broker.produce(name, [{"v": 1}] * 10)
    declare(server, name)
    caught_up(server, name)
    if not running:
        server.sql("ALTER STREAM %s PAUSE" % name)
    make_anew(broker, name, [{"v": 100}] * records)
    if not running:
        server.sql("ALTER STREAM %s RESUME" % name)
    fails(server, name, name, "anew", "start", "RESUME")
    assert server.sql("SELECT n, s FROM %s_v" % name) == [(10, 10)]
    # nothing but the user's word goes on
    server.sql("ALTER STREAM %s RESUME" % name)
    fails(server, name, "anew")
    server.sql("ALTER STREAM %s OPTIONS (SET start 'earliest')" % name)
    server.sql("ALTER STREAM %s RESUME" % name)
    caught_up(server, name)
    assert server.sql("SELECT n, s FROM %s_v" % name) == [(10 + records, 10 + 100 * records)]
    assert status(server, name) == ("running", "")


def test_damaged_records_are_not_passed_over(far, broker):
    """A wrong checksum stops the partition: what follows is not read as if nothing were missing."""
    server = far
    broker.create_topic("damaged", 2)
    for part in range(2):
        for i in range(3):
            broker.produce("damaged", [{"v": 1}], partition=part)
    # the second batch of partition 0, on the broker's disk
    path = os.path.join(broker.dir, "data/damaged-0/00000000000000000000.log")
    with open(path, "r+b") as f:
        data = f.read()
        second = 12 + int.from_bytes(data[8:12], "big")
        f.seek(second + 12 + int.from_bytes(data[second + 8:second + 12], "big") - 3)
        f.write(b"X")
    declare(server, "damaged")
    wait_until(lambda: "partition 0" in status(server, "damaged")[1], "the damage to be told; " + repr(status(server, "damaged")))
    fails(server, "damaged", "offset 0 of partition 0", "CRC", "start")
    assert server.value("SELECT position FROM kda.shards WHERE stream = 'damaged'::regclass AND shard = '0'") == "1"
    assert server.value("SELECT n FROM damaged_v") == 4      # one of partition 0, three of partition 1


def test_new_partitions_are_read_from_their_beginning(far, broker):
    """Whether they come while it runs, is paused, or the server is down; whatever start says."""
    server = far
    broker.create_topic("growing", 1)
    broker.produce("growing", [{"v": 1}] * 5)
    declare(server, "growing", start="latest")
    wait_until(lambda: server.value("SELECT count(*) FROM kda.shards WHERE stream = 'growing'::regclass") == 1, "latest to be known")
    broker.add_partitions("growing", 2)
    broker.produce("growing", [{"v": 1}], partition=1)
    wait_until(lambda: server.value("SELECT n FROM growing_v") == 1, "the new partition")
    server.sql("ALTER STREAM growing PAUSE")
    broker.add_partitions("growing", 3)
    broker.produce("growing", [{"v": 1}], partition=2)
    server.sql("ALTER STREAM growing RESUME")
    wait_until(lambda: server.value("SELECT n FROM growing_v") == 2, "the partition that came while it was paused")
    server.sql("SELECT pg_terminate_backend(pid) FROM kda.workers WHERE kind = 'pipeline'")
    broker.add_partitions("growing", 4)
    broker.produce("growing", [{"v": 1}], partition=3)
    broker.produce("growing", [{"v": 1}], partition=0)
    wait_until(lambda: server.value("SELECT n FROM growing_v") == 4, "the partition that came while the worker was not there")
    caught_up(server, "growing")
    assert server.sql("SELECT shard, position FROM kda.shards WHERE stream = 'growing'::regclass ORDER BY 1") == [("0", "6"), ("1", "1"), ("2", "1"), ("3", "1")]


def test_who_reads_when(far, broker):
    """A stream reads while it has a query; 'latest' is the query's CREATE; the next first query begins where it says."""
    server = far
    broker.create_topic("when")
    server.sql("CREATE STREAM whenn (v int) SERVER far OPTIONS (topic 'when', start 'earliest')")
    broker.produce("when", [{"v": 1}] * 10)
    assert status(server, "whenn")[0] == "waiting"
    notices = server.connect()
    notices.cursor().execute("SELECT * FROM whenn")
    assert "kda.sample" in "".join(notices.notices)
    server.sql("CREATE CONTINUOUS VIEW w1 AS SELECT count(*) n FROM whenn")
    caught_up(server, "whenn")
    server.sql("CREATE CONTINUOUS VIEW w2 WITH (start = 'latest') AS SELECT count(*) n FROM whenn")
    broker.produce("when", [{"v": 1}] * 5)
    caught_up(server, "whenn")
    assert server.sql("SELECT w1.n, w2.n FROM w1, w2") == [(15, 5)]
    # without a query its position stands, and a new first query may begin anywhere
    server.sql("DROP VIEW w1, w2")
    wait_until(lambda: status(server, "whenn")[0] == "waiting", "it to wait")
    before = server.value("SELECT records_in FROM kda.streams WHERE stream = 'whenn'::regclass")
    broker.produce("when", [{"v": 1}] * 3)
    server.sql("CREATE CONTINUOUS VIEW w3 AS SELECT count(*) n FROM whenn")
    caught_up(server, "whenn")
    assert server.value("SELECT n FROM w3") == 18
    assert server.value("SELECT records_in FROM kda.streams WHERE stream = 'whenn'::regclass") == before + 18
    server.sql("DROP VIEW w3; CREATE CONTINUOUS VIEW w4 WITH (start = 'latest') AS SELECT count(*) n FROM whenn")
    wait_until(lambda: server.value("SELECT count(*) FROM kda.shards WHERE stream = 'whenn'::regclass") == 1, "latest to be known")
    broker.produce("when", [{"v": 1}] * 2)
    caught_up(server, "whenn")
    assert server.value("SELECT n FROM w4") == 2
    # nothing is missed by a pause
    server.sql("ALTER STREAM whenn PAUSE")
    assert status(server, "whenn")[0] == "paused"
    broker.produce("when", [{"v": 1}] * 4)
    assert not server.value("SELECT kda.wait('whenn', '300 ms')")
    assert server.value("SELECT n FROM w4") == 2
    server.sql("ALTER STREAM whenn RESUME")
    caught_up(server, "whenn")
    assert server.value("SELECT n FROM w4") == 6


def test_arrival_time_never_goes_back(far, broker):
    """The broker's stamp, raised to the greatest so far and lowered to now: no record is late."""
    server = far
    broker.create_topic("arrives")
    declare(server, "arrives", "v int", "SELECT v, count(*) n FROM %s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY v")
    server.sql("CREATE CONTINUOUS VIEW arrives_at WITH (start = 'earliest') AS SELECT v, rowtime t FROM arrives")
    now = int(server.value("SELECT extract(epoch FROM now()) * 1000"))
    p = broker.producer()
    for v, ms in enumerate((now - 600_000, now - 900_000, now + 7_200_000, now - 300_000)):
        p.produce("arrives", json.dumps({"v": v}), timestamp=ms)
    p.flush()
    caught_up(server, "arrives")
    rows = server.sql("SELECT v, extract(epoch FROM t) * 1000 FROM arrives_at ORDER BY v")
    times = [int(t) for _, t in rows]
    assert times[0] == times[1] == now - 600_000
    assert now <= times[2] <= times[3] < now + 60_000
    assert server.sql("SELECT sum(n) FROM arrives_v") == [(4,)]
    assert server.sql("SELECT records_late, records_failed FROM kda.streams WHERE stream = 'arrives'::regclass") == [(0, 0)]


def test_reset_after_a_clock_gone_mad(far, broker):
    server = far
    broker.create_topic("mad")
    declare(server, "mad", "rowtime timestamptz OPTIONS (path '$.t'), v int", "SELECT count(*) n FROM %s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)", max_ahead="never")
    broker.produce("mad", [{"t": "2025-01-01T00:00:01Z"}, {"t": "2999-01-01T00:00:00Z"}, {"t": "2025-01-01T00:00:02Z"}])
    caught_up(server, "mad")
    assert server.sql("SELECT window_start::text, n FROM mad_v ORDER BY 1") == [("2025-01-01 00:00:00+00", 1), ("2999-01-01 00:00:00+00", 1)]
    assert server.value("SELECT records_late FROM kda.streams WHERE stream = 'mad'::regclass") == 1
    server.sql("ALTER STREAM mad RESET")
    wait_until(lambda: server.value("SELECT kda.watermark('mad')") is None, "the watermark to be forgotten")
    broker.produce("mad", [{"t": "2025-01-01T00:01:00Z"}, {"t": "2025-01-01T00:01:01Z"}])
    caught_up(server, "mad")
    assert server.sql("SELECT window_start::text, n FROM mad_v WHERE window_start BETWEEN '2025-01-01 00:00:30+00' AND '2026-01-01'") == [("2025-01-01 00:01:00+00", 2)]
    assert server.value("SELECT kda.watermark('mad')::text") == "2025-01-01 00:01:01+00"


def test_library_threads_take_no_signals(far, broker):
    server = far
    declare_once(server, broker)
    pid = server.workers()[0]
    wait_until(lambda: len(os.listdir("/proc/%d/task" % pid)) > 3, "the library's threads")
    names = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGCHLD, signal.SIGALRM]
    for task in os.listdir("/proc/%d/task" % pid):
        try:
            with open("/proc/%d/task/%s/status" % (pid, task)) as f:
                blocked = int(re.search(r"SigBlk:\s*([0-9a-f]+)", f.read()).group(1), 16)
        except FileNotFoundError:
            continue
        for s in names:
            assert bool(blocked >> (s - 1) & 1) == (int(task) != pid), (task, s)


def declare_once(server, broker, name="steady"):
    if not server.value("SELECT to_regclass(%s)", name):
        broker.create_topic(name, 2)
        declare(server, name)
        broker.produce(name, [{"v": 1}])
        caught_up(server, name)


def test_waits_side_by_side(far, broker):
    """Each session finds its own record counted after its kda.wait, however many wait at once.

    Records that arrive while the broker is asked for its end are beyond the answer; they are no sign of another topic.
    """
    server = far
    broker.create_topic("together", 3)
    declare(server, "together", "k int", "SELECT k, count(*) n FROM %s GROUP BY k")
    errors = []

    def session(k):
        try:
            conn, p = server.connect(), broker.producer(linger_ms=0)
            cur = conn.cursor()
            for i in range(1, 61):
                p.produce("together", json.dumps({"k": k}), partition=(k + i) % 3)
                p.flush()
                cur.execute("SELECT kda.wait('together'), (SELECT 1)")
                assert cur.fetchone()[0]
                cur.execute("SELECT n FROM together_v WHERE k = %s", (k,))
                assert cur.fetchone()[0] == i
            conn.close()
        except Exception as e:
            errors.append(e)
    threads = [threading.Thread(target=session, args=(k,)) for k in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors == []


def rss(pid):
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"VmRSS:\s*(\d+)", f.read()).group(1)) // 1024


def test_fetched_records_stay_within_their_memory(broker):
    """What waits to be processed is bounded by fetch_memory for all streams of a worker, whatever the backlog."""
    pg = Postgres("memory", ["kda_stream.commit_interval = '20ms'", "kda_stream.fetch_memory = '16MB'", "kda_stream.batch_bytes = '2MB'", "shared_buffers = '16MB'"]).start()
    pg.sql("CREATE EXTENSION kda_stream")
    pg.sql("""CREATE SERVER far TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '%s')""" % broker.address)
    broker.create_topic("heavy", 8)
    for part in range(8):
        broker.produce("heavy", ['{"v": 1, "pad": "%s"}' % os.urandom(2500).hex()] * 3000, partition=part)     # 120 MB
    broker.create_topic("light")
    broker.produce("light", [{"v": 1}])
    for s in ("a", "b", "c"):
        pg.sql("CREATE STREAM light_%s (v int) SERVER far OPTIONS (topic 'light', start 'earliest'); CREATE CONTINUOUS VIEW light_%s_v AS SELECT count(*) n FROM light_%s" % (s, s, s))
        caught_up(pg, "light_" + s)
    pid = pg.workers()[0]
    before = rss(pid)
    pg.sql("CREATE STREAM heavy (v int) SERVER far OPTIONS (topic 'heavy', start 'earliest', retention '0'); CREATE CONTINUOUS VIEW heavy_v AS SELECT count(*) n FROM heavy")
    most = [0]

    def done():
        most[0] = max(most[0], rss(pid))
        return pg.value("SELECT n FROM heavy_v") == 24000
    wait_until(done, "all of it", 60, 0.02)
    assert pg.workers() == [pid]
    # the sanitizer keeps freed memory for a while
    assert most[0] - before < (400 if os.environ.get("KDA_ASAN") else 60), (before, most[0])
    pg.destroy()


def test_many_partitions(far, broker):
    server = far
    n = 1000 if LONG else 300
    broker.create_topic("many", n)
    p = broker.producer()
    for i in range(n * 10):
        p.produce("many", json.dumps({"v": i}), partition=i % n)
    p.flush(60)
    declare(server, "many")
    caught_up(server, "many", "60 s")
    assert server.sql("SELECT n, s FROM many_v") == [(n * 10, sum(range(n * 10)))]
    assert server.value("SELECT count(*) FROM kda.shards WHERE stream = 'many'::regclass AND position = '10' AND lag_records = 0") == n
    broker.produce("many", [{"v": 0}] * 50)
    begun = time.monotonic()
    caught_up(server, "many")
    assert server.value("SELECT n FROM many_v") == n * 10 + 50
    server.sql("DROP STREAM many CASCADE")


def test_sample(far, broker):
    """The last records of each partition, with what is wrong with them; it moves nothing."""
    server = far
    broker.create_topic("sampled", 3)
    server.sql("CREATE STREAM sampled (v int, k text OPTIONS (meta 'key'), h jsonb OPTIONS (meta 'headers')) SERVER far OPTIONS (topic 'sampled')")
    assert server.sql("SELECT * FROM kda.sample('sampled')") == []
    for part in range(3):
        broker.produce("sampled", [{"v": part * 100 + i} for i in range(20)] + ["broken", '{"v": "x"}'], partition=part)
    produce_keyed(broker, "sampled", [("tomb", None)])
    got = server.sql("SELECT shard, position::int, row_json, error, data FROM kda.sample('sampled', 100)")
    assert len(got) == 67
    by_shard = {s: sorted(r[1:] for r in got if r[0] == s and r[4] is not None) for s in "012"}
    for part in range(3):
        rows = by_shard[str(part)]
        assert [r[0] for r in rows] == list(range(22))
        assert rows[3][1] == {"v": part * 100 + 3, "k": None, "h": None}
        assert rows[20][2].startswith("malformed") and rows[21][2].startswith("conversion") and bytes(rows[20][3]) == b"broken"
    # the last ones of each, and no more than asked
    got = server.sql("SELECT shard, position::int FROM kda.sample('sampled', 4)")
    assert len(got) == 4 and all(p >= 18 for _, p in got)
    for call, word in (("kda.sample('sampled', 0)", "between"), ("kda.sample('pg_class')", "not a stream")):
        with pytest.raises(psycopg2.Error) as e:
            server.sql("SELECT * FROM " + call)
        assert word in str(e.value)
    server.sql("CREATE STREAM unsampled (v int) SERVER far OPTIONS (topic 'nowhere')")
    with pytest.raises(psycopg2.Error) as e:
        server.sql("SELECT * FROM kda.sample('unsampled')")
    assert "nowhere" in str(e.value) and e.value.diag.message_hint
    server.sql("CREATE ROLE peeper")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        server.sql("SET ROLE peeper; SELECT * FROM kda.sample('sampled')")
    assert server.value("SELECT count(*) FROM kda.shards WHERE stream = 'sampled'::regclass") == 0


def test_nobody_there(broker):
    """Many streams of a server that does not answer: said, harmless, and no reason to keep a shutdown waiting."""
    port = free_port()
    pg = Postgres("nobody", ["kda_stream.commit_interval = '20ms'"]).start()
    pg.sql("CREATE EXTENSION kda_stream")
    pg.sql("""CREATE SERVER nowhere TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '127.0.0.1:%d')""" % port)
    for i in range(8):
        pg.sql("CREATE STREAM s%d (v int) SERVER nowhere; CREATE CONTINUOUS VIEW v%d AS SELECT count(*) n FROM s%d" % (i, i, i))
    pg.sql("CREATE STREAM here (v int); CREATE CONTINUOUS VIEW here_v AS SELECT count(*) n FROM here")
    for i in range(8):
        wait_until(lambda: "refused" in status(pg, "s%d" % i)[1], "the reason; got " + repr(status(pg, "s%d" % i)))
        assert status(pg, "s%d" % i)[0] == "running"
    # the others are not held up
    begun = time.monotonic()
    for i in range(5):
        pg.sql("INSERT INTO here VALUES (1)")
        assert pg.value("SELECT kda.wait('here')")
    assert time.monotonic() - begun < 5
    # DDL on them neither
    pg.sql("ALTER STREAM s0 PAUSE; ALTER STREAM s0 RESUME; DROP STREAM s1 CASCADE; ALTER STREAM s2 OPTIONS (ADD topic 'x')")
    assert pg.value("SELECT kda.wait('here')")
    begun = time.monotonic()
    with pytest.raises(psycopg2.Error) as e:
        pg.sql("SELECT * FROM kda.sample('s3', 10, '2 s')")
    assert time.monotonic() - begun < 8 and e.value.pgcode == "HV00N" and "refused" in str(e.value) and "server" in e.value.diag.message_hint
    assert pg.stop("fast") < 5
    pg.start()
    assert pg.stop("fast") < 5
    pg.check_sane()
    pg.destroy()


def test_a_broker_that_hangs(far, broker):
    """SIGSTOP: connections stay open and nothing comes.  Runs last: it holds up the broker of this file."""
    server = far
    broker.create_topic("hangs", 2)
    for i in range(6):
        server.sql("CREATE STREAM hangs%d (rowtime timestamptz OPTIONS (path '$.t'), v int) SERVER far OPTIONS (topic 'hangs', start 'earliest', idle_timeout '12 seconds')" % i)
        server.sql("CREATE CONTINUOUS VIEW hangs%d_v AS SELECT count(*) n FROM hangs%d WINDOWED BY TUMBLING (INTERVAL '1' SECOND) EMIT ON WINDOW CLOSE" % (i, i))
    broker.produce("hangs", [{"t": "2025-01-01T00:00:00.1Z", "v": 1}], partition=0)
    broker.produce("hangs", [{"t": "2025-01-01T00:00:00.2Z", "v": 1}], partition=1)
    for i in range(6):
        caught_up(server, "hangs%d" % i)
    broker.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: status(server, "hangs0")[1] != "", "the silence to be noticed")
        # kda.sample does not outlive its own timeout by much, nor a cancel
        begun = time.monotonic()
        with pytest.raises(psycopg2.Error):
            server.sql("SET statement_timeout = '1 s'; SELECT * FROM kda.sample('hangs0')")
        with pytest.raises(psycopg2.Error) as e:
            server.sql("SELECT * FROM kda.sample('hangs0', 5, '1 s')")
        assert "server" in (e.value.diag.message_hint or "")
        assert time.monotonic() - begun < 8
        # a shard that does not answer is not idle, so no window closes
        time.sleep(12)
        assert server.sql("SELECT DISTINCT state FROM kda.shards WHERE stream = 'hangs0'::regclass") == [("open",)]
        assert server.sql("SELECT n FROM hangs0_v") == []
        # and the server goes down quickly, and up
        assert server.stop("fast") < 5
        server.start()
        wait_until(lambda: status(server, "hangs0")[1] != "", "the silence to be noticed again")
        assert server.stop("fast") < 5
        server.start()
    finally:
        broker.process.send_signal(signal.SIGCONT)
    broker.produce("hangs", [{"t": "2025-01-01T00:00:02Z", "v": 1}], partition=0)
    broker.produce("hangs", [{"t": "2025-01-01T00:00:02Z", "v": 1}], partition=1)
    for i in range(6):
        wait_until(lambda: server.sql("SELECT n FROM hangs%d_v" % i) == [(2,)], "the window of hangs%d to close" % i)
    wait_until(lambda: status(server, "hangs0") == ("running", ""), "the trouble to go")
    server.check_sane()
