"""What leaves: outboxes, sealed batches and the deliver worker, over a sink whose other side is a file (test/sink/file_sink.c).

The file has a line for each record that was delivered, in order: number, key, value, headers, explicit hash key, seconds.
"""
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import namedtuple

import psycopg2
import pytest
from harness import FAULT_BINDIR, LONG, WORK, Postgres, alive, patiently, wait_until

KILLS = 40 if LONG else 12
Record = namedtuple("Record", "number key value headers hash_key time")


def build_sink():
    library = os.path.join(WORK, "file_sink.so")
    if not os.path.exists(library):
        include = subprocess.check_output([os.environ["KDA_PG_CONFIG"], "--includedir-server"], text=True).strip()
        build = os.path.join(WORK, "build")
        subprocess.run(["gcc", "-shared", "-fPIC", "-g", "-O1", "-Wall", "-Werror", "-I", build + "/src", "-I", include,
                        build + "/test/sink/file_sink.c", "-o", library + ".new"], check=True)
        os.rename(library + ".new", library)
    return library


def start(name, settings=(), **kwargs):
    pg = Postgres(name, ["kda_stream.commit_interval = '20ms'", "shared_preload_libraries = 'kda_stream,%s'" % build_sink(),
                         "max_prepared_transactions = 5", "kda_stream.retry_max_interval = '500ms'", *settings], **kwargs).start()
    pg.sql("CREATE EXTENSION kda_stream")
    pg.sql("CREATE SERVER f TYPE 'file' FOREIGN DATA WRAPPER kda_stream")
    return pg


@pytest.fixture(scope="module")
def server():
    pg = start("outbox")
    yield pg
    try:
        pg.check_sane()
    finally:
        pg.destroy()


class Out:
    """The other side of a stream."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.path = os.path.join(server.dir, name + ".out")

    def stream(self, columns="k text, v int", options="key 'k'"):
        self.server.sql("CREATE STREAM %s (%s) SERVER f OPTIONS (topic '%s'%s)" % (self.name, columns, self.path, options and ", " + options))
        return self

    def lines(self):
        try:
            with open(self.path) as f:
                return [line.rstrip("\n").split("\t") for line in f]
        except FileNotFoundError:
            return []

    def records(self):
        return [Record(int(n), *rest) for n, *rest in (line for line in self.lines() if line[0] != "mark")]

    def marks(self):
        return [line[1:] for line in self.lines() if line[0] == "mark"]

    def values(self):
        return [json.loads(r.value)["v"] for r in self.records()]

    def wait(self, n, timeout=60):
        wait_until(lambda: len(self.records()) >= n, "%d records to leave; %s" % (n, self.server.sql("SELECT * FROM kda.outputs")), timeout)
        return self.records()

    def row(self, columns):
        return self.server.sql("SELECT %s FROM kda.outputs WHERE output = %%s::regclass" % columns, self.name)[0]

    def settled(self):
        """Until the server knows that all is delivered."""
        wait_until(lambda: patiently(self.server, "SELECT pending = 0 FROM kda.outputs WHERE output = %s::regclass", self.name), "all to be delivered")

    def say(self, what, text=""):
        with open("%s.%s" % (self.path, what), "w") as f:
            f.write(text)

    def unsay(self, what):
        os.unlink("%s.%s" % (self.path, what))


def test_what_is_inserted_leaves_in_order(server):
    out = Out(server, "plain").stream("rowtime timestamptz, k text, v int, h jsonb, hash numeric", "key 'k', headers 'h', explicit_hash_key 'hash'")
    server.sql("""INSERT INTO plain VALUES ('2026-01-01 00:00:07+00', 'a', 1, '{"x": "y"}', 340282366920938463463374607431768211455)""")
    server.sql("INSERT INTO plain (k, v) SELECT 'b', g FROM generate_series(2, 250) g")
    records = out.wait(250)
    assert records[0] == Record(1, "a", '{"rowtime":"2026-01-01T00:00:07+00:00","k":"a","v":1}', '{"x": "y"}', "340282366920938463463374607431768211455", "1767225607")
    assert out.values() == list(range(1, 251))
    assert [r.number for r in records] == list(range(1, 251))
    # a time that was left out is that of the insert
    assert json.loads(records[1].value)["rowtime"] is not None and records[1].headers == "-"
    out.settled()
    assert out.row("stream::text, server, state, pending, delivered, failed, last_number, last_error") == ("plain", "f", "running", 0, 250, 0, 250, None)


def test_copy_and_triggers_write_too(server):
    out = Out(server, "copied").stream()
    assert "COPY 2" in server.psql("COPY copied FROM STDIN (FORMAT csv);\nx,1\ny,2\n\\.\n").stdout
    server.sql("CREATE TABLE orders (id int)")
    server.sql("CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO copied VALUES (''order'', NEW.id); RETURN NEW; END'")
    server.sql("CREATE TRIGGER tell AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION tell()")
    server.sql("INSERT INTO orders VALUES (3), (4)")
    out.wait(4)
    assert out.values() == [1, 2, 3, 4]


def test_what_is_rolled_back_never_leaves(server):
    out = Out(server, "rolled").stream()
    conn = server.connect(autocommit=False)
    cur = conn.cursor()
    cur.execute("INSERT INTO rolled VALUES ('no', 1)")
    conn.rollback()
    cur.execute("INSERT INTO rolled VALUES ('yes', 2); SAVEPOINT a; INSERT INTO rolled VALUES ('no', 3); ROLLBACK TO a;"
                "SAVEPOINT b; INSERT INTO rolled VALUES ('yes', 4); RELEASE b; INSERT INTO rolled VALUES ('yes', 5)")
    conn.commit()
    conn.close()
    server.sql("INSERT INTO rolled VALUES ('yes', 6)")
    out.wait(4)
    assert out.values() == [2, 4, 5, 6]
    assert [r.number for r in out.records()] == [1, 2, 3, 4]


def test_a_slow_transaction_is_not_passed_over(server):
    """Its numbers would be smaller than those that have left: delivered up to N would skip it."""
    out = Out(server, "slow").stream()
    server.sql("INSERT INTO slow VALUES ('first', 0)")
    conn = server.connect(autocommit=False)
    cur = conn.cursor()
    cur.execute("INSERT INTO slow VALUES ('slow', 1)")
    for v in range(2, 6):
        server.sql("INSERT INTO slow VALUES ('fast', %s)", v)
    out.wait(5)
    cur.execute("INSERT INTO slow VALUES ('slow', 6)")
    conn.commit()
    conn.close()
    out.wait(7)
    assert out.values() == [0, 2, 3, 4, 5, 1, 6]
    assert [r.number for r in out.records()] == list(range(1, 8))


def test_prepared_transactions(server):
    out = Out(server, "twophase").stream()
    server.sql("INSERT INTO twophase VALUES ('made', 0)")       # which makes its outbox
    conn = server.connect()
    conn.cursor().execute("BEGIN; INSERT INTO twophase VALUES ('kept', 1); PREPARE TRANSACTION 'kept'")
    conn.cursor().execute("BEGIN; INSERT INTO twophase VALUES ('dropped', 2); PREPARE TRANSACTION 'dropped'")
    conn.close()
    server.sql("INSERT INTO twophase VALUES ('between', 3)")
    out.wait(2)
    server.sql("ROLLBACK PREPARED 'dropped'")
    server.sql("COMMIT PREPARED 'kept'")
    out.wait(3)
    assert out.values() == [0, 3, 1]


def test_a_large_commit_leaves_in_pieces(server):
    """Batches have at most 100 records; a commit that comes meanwhile does not cut in."""
    out = Out(server, "large").stream()
    server.sql("INSERT INTO large SELECT 'k', g FROM generate_series(1, 5000) g")
    server.sql("INSERT INTO large VALUES ('k', 5001)")
    out.wait(5001)
    assert out.values() == list(range(1, 5002))
    assert len(out.marks()) >= 51


def test_refused_records_are_alone(server):
    out = Out(server, "choosy").stream("k text, v int, h jsonb", "key 'k', headers 'h'")
    out.say("refuse", '"v":13}\n"v":14}\n')
    server.sql("""INSERT INTO choosy SELECT 'k' || g, g, '{"n": "1"}' FROM generate_series(10, 16) g""")
    out.wait(5)
    out.settled()
    assert out.values() == [10, 11, 12, 15, 16]
    assert server.sql("SELECT error_name, message, position, data_text FROM kda.error_stream WHERE stream = 'choosy'::regclass ORDER BY error_id") == [
        ("delivery", "the file does not like it", "4", '{"k":"k13","v":13}'), ("delivery", "the file does not like it", "5", '{"k":"k14","v":14}')]
    assert out.row("delivered, failed, pending") == (5, 2, 0)
    # once the cause is gone they are sent again, as they were
    out.say("refuse", '"v":14}\n')
    assert server.value("SELECT kda.redrive('choosy', 'delivery')") == 2
    record = out.wait(6)[-1]
    assert (record.number, record.key, record.value, record.headers) == (8, "k13", '{"k":"k13","v":13}', '{"n": "1"}')
    wait_until(lambda: server.sql("SELECT position FROM kda.error_stream WHERE stream = 'choosy'::regclass") == [("9",)], "the other to be refused again")
    assert server.value("SELECT kda.redrive('choosy', since => now() + interval '1 hour')") == 0


def test_pause_and_resume(server):
    out = Out(server, "held").stream()
    server.sql("INSERT INTO held VALUES ('k', 1)")
    out.wait(1)
    out.settled()
    server.sql("ALTER STREAM held PAUSE")
    wait_until(lambda: out.row("state") == ("paused",), "it to be paused")
    server.sql("INSERT INTO held VALUES ('k', 2), ('k', 3)")
    assert out.row("pending, oldest_pending IS NOT NULL") == (2, True)
    server.sql("ALTER STREAM held RESUME")
    out.wait(3)
    assert out.values() == [1, 2, 3]


def test_a_sink_that_is_down_is_waited_for(server):
    out = Out(server, "downed").stream()
    out.say("down")
    server.sql("INSERT INTO downed VALUES ('k', 1)")
    wait_until(lambda: out.row("last_error, pending, retries > 0") == ("the file is down", 1, True), "the trouble to show")
    out.unsay("down")
    out.wait(1)
    wait_until(lambda: out.row("last_error, pending") == (None, 0), "the trouble to be gone")


def test_a_failed_output_waits_for_people(server):
    out = Out(server, "broken").stream()
    out.say("broken")
    server.sql("INSERT INTO broken VALUES ('k', 1)")
    wait_until(lambda: out.row("state, last_error") == ("failed", "the file is broken"), "it to fail")
    out.unsay("broken")
    server.sql("ALTER STREAM broken RESUME")
    out.wait(1)
    assert out.row("state") == ("running",)


def test_outputs_do_not_wait_for_each_other(server):
    stuck, free = Out(server, "stuck").stream(), Out(server, "free").stream()
    stuck.say("down")
    server.sql("INSERT INTO stuck VALUES ('k', 1); INSERT INTO free VALUES ('k', 1)")
    free.wait(1)
    assert stuck.records() == []
    # and one goes with what it has not delivered
    server.sql("DROP STREAM stuck")
    server.sql("INSERT INTO free VALUES ('k', 2)")
    free.wait(2)


def test_open_transactions_on_one_stream_stop_no_other(server):
    """Neither somebody who changes a stream nor one who has written his first row to it and not committed."""
    locked, begun, free = (Out(server, name).stream() for name in ("locked", "begun", "freely"))
    server.sql("INSERT INTO locked VALUES ('k', 1); INSERT INTO freely VALUES ('k', 1)")
    locked.wait(1)
    free.wait(1)
    pid = server.value("SELECT pid FROM kda.workers WHERE kind = 'deliver'")
    changing, writing = server.connect(autocommit=False), server.connect(autocommit=False)
    changing.cursor().execute("ALTER FOREIGN TABLE locked ALTER v SET NOT NULL")
    writing.cursor().execute("INSERT INTO begun VALUES ('k', 1)")
    server.sql("ALTER STREAM freely OPTIONS (ADD batch_records '10')")
    # a change of places of its segments is due as well
    server.sql("UPDATE kda_storage.output SET segment_since = '2026-01-01' WHERE rel = 'freely'::regclass")
    server.sql("INSERT INTO freely SELECT 'k', g FROM generate_series(2, 100) g")
    free.wait(100)
    free.settled()
    changing.rollback()
    writing.commit()
    begun.wait(1)
    assert server.value("SELECT pid FROM kda.workers WHERE kind = 'deliver'") == pid
    assert server.value("SELECT count(*) FROM kda.workers WHERE last_error IS NOT NULL AND kind = 'deliver'") == 0


def test_what_failed_transactions_have_written_leaves_the_outbox():
    server = start("aborted", ["kda_stream.outbox_size = '1MB'", "autovacuum = off"])
    out = Out(server, "aborts").stream("k text, v int, filler text")
    conn = server.connect(autocommit=False)
    conn.cursor().execute("INSERT INTO aborts SELECT 'k', g, repeat('x', 200) FROM generate_series(1, 10000) g")
    conn.rollback()
    # its first row, which makes the outbox, was rolled back, too
    server.sql("INSERT INTO aborts VALUES ('k', 0, '')")
    conn.cursor().execute("INSERT INTO aborts SELECT 'k', g, repeat('x', 200) FROM generate_series(1, 10000) g")
    conn.rollback()

    def room():
        try:
            server.sql("INSERT INTO aborts VALUES ('k', 1, '')")
            return True
        except psycopg2.Error as e:
            assert e.pgcode == "53400"
            return False
    wait_until(room, "room to be made")
    out.wait(2)
    assert out.values() == [0, 1]
    server.check_sane()
    server.destroy()


def test_redrive_keeps_what_is_refused_meanwhile(server):
    out = Out(server, "meanwhile").stream()
    out.say("refuse", "bad\n")
    server.sql("INSERT INTO meanwhile VALUES ('bad', 1)")
    wait_until(lambda: server.value("SELECT count(*) FROM kda.error_stream WHERE stream = 'meanwhile'::regclass") == 1, "it to be refused")
    # redrive stands before the first one while the second is refused
    holding = server.connect(autocommit=False)
    holding.cursor().execute("SELECT FROM kda_storage.refused FOR UPDATE")
    answers = []
    redrive = threading.Thread(target=lambda: answers.append(server.value("SELECT kda.redrive('meanwhile')")))
    redrive.start()
    wait_until(lambda: server.value("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0, "redrive to wait")
    server.sql("INSERT INTO meanwhile VALUES ('bad', 2)")
    wait_until(lambda: server.value("SELECT count(*) FROM kda.error_stream WHERE stream = 'meanwhile'::regclass") == 2, "the other to be refused")
    out.unsay("refuse")
    holding.rollback()
    redrive.join(60)
    assert answers == [1]
    assert server.value("SELECT kda.redrive('meanwhile')") == 1
    out.wait(2)
    assert out.values() == [1, 2]


def test_an_output_takes_no_mark_of_a_former_one():
    """Numbers of outputs begin again with the extension: what the other side keeps of a mark is not found by them."""
    server = start("former")
    Out(server, "first").stream()
    server.sql("INSERT INTO first VALUES ('k', 1)")
    identity = server.sql("SELECT output_id, identity FROM kda_storage.output")[0]
    server.sql("DROP EXTENSION kda_stream CASCADE")
    server.sql("CREATE EXTENSION kda_stream; CREATE SERVER f TYPE 'file' FOREIGN DATA WRAPPER kda_stream")
    Out(server, "second").stream()
    server.sql("INSERT INTO second VALUES ('k', 1)")
    again = server.sql("SELECT output_id, identity FROM kda_storage.output")[0]
    assert identity[0] == again[0] and identity[1] != again[1]
    server.check_sane()
    server.destroy()


def test_a_full_outbox_refuses_inserts():
    server = start("full_outbox", ["kda_stream.outbox_size = '1MB'"])
    out = Out(server, "fullbox").stream("k text, v int, filler text")
    out.say("down")
    n = 0
    with pytest.raises(psycopg2.Error) as e:
        while n < 200:
            server.sql("INSERT INTO fullbox SELECT 'k', %s * 100 + g, repeat('x', 200) FROM generate_series(0, 99) g", n)
            n += 1
    assert e.value.pgcode == "53400" and "outbox_size" in e.value.diag.message_detail and "kda.outputs" in e.value.diag.message_hint
    out.unsay("down")
    out.wait(n * 100)

    def room():
        try:
            server.sql("INSERT INTO fullbox VALUES ('k', -1, '')")
            return True
        except psycopg2.Error as e:
            assert e.pgcode == "53400"
            return False
    wait_until(room, "room to be made")
    out.wait(n * 100 + 1)
    assert out.values() == list(range(n * 100)) + [-1]
    server.check_sane()
    server.destroy()


def test_a_full_outbox_holds_pumps_back():
    server = start("pressure", ["kda_stream.outbox_size = '1MB'", "kda_stream.batch_records = 1000"])
    out = Out(server, "slowly").stream("k text, v int, filler text")
    out.say("down")
    server.sql("CREATE STREAM rows (v int)")
    server.sql("CREATE PUMP p AS INSERT INTO slowly SELECT 'k', v, repeat('x', 200) FROM rows")
    n = 30000
    server.sql("INSERT INTO rows SELECT g FROM generate_series(1, %s) g", n)
    wait_until(lambda: server.value("SELECT backpressured_ms > 0 FROM kda.streams WHERE stream = 'rows'::regclass"), "the stream to be held back")
    assert server.value("SELECT backpressured_ms > 0 FROM kda.workers WHERE kind = 'pipeline'")
    assert server.value("SELECT pg_relation_size(box) + pg_relation_size(box2) FROM kda_storage.output") < 8 * 1024 * 1024
    # others of the worker go on
    server.sql("CREATE STREAM others (v int); CREATE CONTINUOUS VIEW sums AS SELECT sum(v) AS s FROM others; INSERT INTO others VALUES (1)")
    assert server.value("SELECT kda.wait('others')") and server.value("SELECT s FROM sums") == 1
    out.unsay("down")
    out.wait(n, 120)
    assert out.values() == list(range(1, n + 1))
    server.check_sane()
    server.destroy()


def test_pumps_write(server):
    out = Out(server, "perminute").stream("rowtime timestamptz, country text, n bigint", "key 'country'")
    server.sql("CREATE STREAM visits (rowtime timestamptz, country text) OPTIONS (idle_timeout 'never')")
    server.sql("""CREATE PUMP minutes AS INSERT INTO perminute (country, n) SELECT country, count(*) FROM visits
                  WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY country""")
    server.sql("INSERT INTO visits VALUES ('2026-01-01 00:00:10+00', 'KR'), ('2026-01-01 00:00:20+00', 'KR'), ('2026-01-01 00:01:00+00', 'US')")
    record = out.wait(1)[0]
    assert (record.key, json.loads(record.value)) == ("KR", {"rowtime": "2026-01-01T00:00:59.999999+00:00", "country": "KR", "n": 2})
    assert record.time == "1767225659"


def test_create_output(server):
    out = Out(server, "sent")
    server.sql("CREATE STREAM source (k text, v int)")
    server.sql("CREATE OUTPUT sent FROM source SERVER f OPTIONS (topic '%s', key 'k') DESCRIPTION 'to a file'" % out.path)
    server.sql("INSERT INTO source VALUES ('a', 1), ('b', 2)")
    assert [(r.key, r.value) for r in out.wait(2)] == [("a", '{"k":"a","v":1}'), ("b", '{"k":"b","v":2}')]
    assert out.row("stream::text, server, state") == ("source", "f", "running")
    assert server.value("SELECT kda.definition('sent')") == \
        "CREATE OUTPUT public.sent FROM public.source SERVER f OPTIONS (topic '%s', key 'k') DESCRIPTION 'to a file'" % out.path
    server.sql("ALTER OUTPUT sent PAUSE")
    server.sql("INSERT INTO source VALUES ('c', 3)")
    wait_until(lambda: out.row("state, pending") == ("paused", 1), "it to wait")
    server.sql("ALTER OUTPUT sent RESUME")
    out.wait(3)
    server.sql("ALTER OUTPUT sent RENAME TO renamed")
    server.sql("INSERT INTO source VALUES ('d', 4)")
    out.wait(4)
    for statement, message in (("DROP STREAM source", "other objects depend"), ("INSERT INTO renamed VALUES ('x', 1)", "is an output"),
                               ("CREATE CONTINUOUS VIEW v AS SELECT count(*) FROM renamed", "cannot be read"),
                               ("DROP STREAM renamed", "is not a stream"), ("DROP OUTPUT source", "is not an output"),
                               ("CREATE OUTPUT o FROM renamed SERVER f", "is not a stream"), ("CREATE OUTPUT o FROM source SERVER kda", "is this database"),
                               ("ALTER OUTPUT renamed ADD COLUMN c int", "cannot be changed")):
        with pytest.raises(psycopg2.Error, match=message):
            server.sql(statement)
    assert "skipping" in server.psql("DROP OUTPUT IF EXISTS nothing; CREATE OUTPUT IF NOT EXISTS renamed FROM source SERVER f").stdout
    server.sql("DROP OUTPUT renamed")
    assert server.value("SELECT count(*) FROM kda_storage.query WHERE stream = 'source'::regclass") == 0
    server.sql("DROP STREAM source")




def test_notify(server):
    """Alerts without a broker; of a database stream, too."""
    conn = server.connect()
    conn.cursor().execute("LISTEN alerts")
    server.sql("CREATE STREAM alarms (k text, level int, v int) OPTIONS (notify 'alerts', key 'k, level')")
    server.sql("INSERT INTO alarms VALUES ('a', 1, 10), ('b', 2, 20)")
    out = Out(server, "loud").stream("k text, v int", "key 'k', notify 'alerts'")
    server.sql("CREATE STREAM quiet (k text, v int); CREATE PUMP shout AS INSERT INTO loud SELECT * FROM quiet WHERE v > 5; INSERT INTO quiet VALUES ('c', 1), ('d', 9)")
    out.wait(1)

    def heard():
        conn.poll()
        return len(conn.notifies) >= 3
    wait_until(heard, "three notices")
    assert [n.payload for n in conn.notifies] == ['{"k":"a","level":1}', '{"k":"b","level":2}', '{"k":"d"}']
    conn.close()


def test_upsert_makes_tombstones(server):
    out = Out(server, "latest").stream("rowtime timestamptz, a text, b int, v int", "key 'a, b', changelog 'upsert'")
    server.sql("INSERT INTO latest (a, b, v) VALUES ('x', 1, 5), ('x', 1, NULL)")
    records = out.wait(2)
    assert [r.key for r in records] == ['{"a":"x","b":1}'] * 2
    assert json.loads(records[0].value)["v"] == 5 and records[1].value == "-"


def test_an_acknowledgement_that_was_lost(server):
    """The other side has the batch and its mark, but the server crashes before it knows: sent again only where that is all that can be."""
    once, least = Out(server, "once").stream(), Out(server, "least").stream(options="key 'k', delivery 'at_least_once'")
    for out in (once, least):
        out.say("hold")
        server.sql("INSERT INTO %s SELECT 'k', g FROM generate_series(1, 3) g" % out.name)
        out.wait(3)
        assert out.row("delivered, pending") == (0, 3)
    server.crash()
    for out in (once, least):
        out.unsay("hold")
    server.start()
    for out in (once, least):
        out.settled()
        server.sql("INSERT INTO %s VALUES ('k', 4)" % out.name)
    once.wait(4)
    least.wait(7)
    assert once.values() == [1, 2, 3, 4]
    assert [(r.number, v) for r, v in zip(least.records(), least.values())] == [(1, 1), (2, 2), (3, 3), (1, 1), (2, 2), (3, 3), (4, 4)]
    assert once.row("delivered, delivered_again") == (4, 0)


def test_a_mark_that_is_not_ours(server):
    out = Out(server, "foreign_mark").stream()
    server.sql("INSERT INTO foreign_mark VALUES ('k', 1)")
    out.wait(1)
    out.settled()
    for mark, message in (("1\tFFFF/0\t9", "from the future"), ("7\t0/1\t9", "not of the history"), ("1\t0/1\t9", "no such number")):
        with open(out.path, "a") as f:
            f.write("mark\t%s\n" % mark)
        # marks are looked at when the sink is opened
        if out.row("state") == ("running",):
            server.sql("SELECT pg_terminate_backend(%s)", server.workers("deliver")[0])
        server.sql("ALTER STREAM foreign_mark RESUME")
        wait_until(lambda: message in (out.row("last_error")[0] or ""), "it to be refused")
        assert out.row("state") == ("failed",)
    # lost altogether: it goes on from what this server knows
    out.say("nomark")
    server.sql("ALTER STREAM foreign_mark RESUME")
    server.sql("INSERT INTO foreign_mark VALUES ('k', 2)")
    out.wait(2)
    assert out.values() == [1, 2]


class Writer(threading.Thread):
    """Inserts numbers in transactions of several rows, some of which are rolled back, and notes which have been committed."""

    def __init__(self, server, out, seed):
        super().__init__(daemon=True)
        self.server, self.out, self.random = server, out, random.Random(seed)
        self.seed = seed
        self.committed, self.unknown = [], []
        self.stopping = threading.Event()

    def run(self):
        v = self.seed * 1000000
        conn = None
        while not self.stopping.is_set():
            rows = list(range(v, v + self.random.randrange(1, 40)))
            v += len(rows)
            keep = self.random.random() < 0.8
            try:
                if conn is None:
                    conn = self.server.connect(autocommit=False)
                conn.cursor().execute("INSERT INTO %s SELECT 'k%d', g FROM generate_series(%d, %d) g" % (self.out.name, self.seed, rows[0], rows[-1]))
                time.sleep(self.random.random() * 0.02)
            except psycopg2.Error:
                conn = None
                time.sleep(0.05)
                continue
            try:
                if keep:
                    conn.commit()
                    self.committed += rows
                else:
                    conn.rollback()
            except psycopg2.Error:
                conn = None
                if keep:
                    self.unknown.append(rows)


def test_kill_9_at_random_moments():
    """Each row that was committed leaves exactly once, and in the order of its writer, whoever is killed."""
    server = start("outkill", ["wal_writer_delay = '10ms'"])
    out = Out(server, "killed").stream()
    server.sql("INSERT INTO killed VALUES ('made', -1)")
    writers = [Writer(server, out, seed) for seed in (1, 2, 3)]
    for w in writers:
        w.start()
    r = random.Random(int(os.environ.get("KDA_SEED", "5")))
    for i in range(KILLS):
        time.sleep(r.random() * 0.8)
        if i % 3 == 2:
            server.crash()
            server.start()
        else:
            def pids():
                try:
                    return server.workers("deliver")
                except psycopg2.Error:
                    return []
            pid = wait_until(pids, "a deliver worker to be there")[0]
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            wait_until(lambda: not alive(pid), "it to be gone")
            wait_until(server.answers, "the server to recover")
    for w in writers:
        w.stopping.set()
        w.join(60)
    out.settled()
    records, values = out.records(), out.values()
    assert [x.number for x in records] == list(range(1, len(records) + 1))
    for w in writers:
        mine = [v for v in values if v // 1000000 == w.seed]
        assert mine == sorted(set(mine))        # once each, in order
        missing = set(w.committed) - set(mine)
        assert not missing
        # whether a commit that was cut off has happened is not known, but it has as a whole
        left = set(mine) - set(w.committed)
        for rows in w.unknown:
            assert left & set(rows) in (set(), set(rows))
            left -= set(rows)
        assert not left
    assert len(out.marks()) > KILLS
    server.check_sane()
    server.destroy()


def test_a_restored_dump_is_paused(server):
    out = Out(server, "dumped").stream()
    server.sql("INSERT INTO dumped VALUES ('k', 1)")
    out.wait(1)
    out.settled()
    server.sql("ALTER STREAM dumped PAUSE")
    wait_until(lambda: out.row("state") == ("paused",), "it to stop")
    server.sql("INSERT INTO dumped VALUES ('k', 2), ('k', 3)")
    dump = os.path.join(server.dir, "dump")
    tool = lambda name, *args: subprocess.run([server.bindir + "/" + name, "-h", server.sockets, "-p", str(server.port), "-U", "postgres", *args], check=True)
    tool("pg_dump", "-Fc", "-f", dump, "postgres")
    server.sql("CREATE DATABASE restored")
    tool("pg_restore", "-d", "restored", dump)
    row = lambda: server.sql("SELECT state, pending FROM kda.outputs WHERE output = 'dumped'::regclass", dbname="restored")
    wait_until(lambda: row() == [("paused", 2)], "it to be adopted")
    server.sql("INSERT INTO dumped VALUES ('k', 4)", dbname="restored")
    assert out.values() == [1]
    server.sql("SELECT kda.resume_all()", dbname="restored")
    out.wait(4)
    assert out.values() == [1, 2, 3, 4]
    server.sql("DROP DATABASE restored")


@pytest.mark.parametrize("point", ["seal", "sealed", "sent", "delivered"])
def test_faults_at_every_step(point):
    """An error that passes, one that does not, and the end of the process, wherever the deliver worker is."""
    server = start("fault_" + point, ["kda_stream.retry_max_interval = '100ms'", "wal_writer_delay = '10ms'"], bindir=FAULT_BINDIR)
    server.sql("CREATE SCHEMA fault; CREATE FUNCTION fault.arm(text, int, text) RETURNS void LANGUAGE C STRICT AS '$libdir/kda_stream', 'kda_fault_arm'")
    server.sql("CREATE FUNCTION fault.armed() RETURNS text LANGUAGE C AS '$libdir/kda_stream', 'kda_fault_armed'")
    out = Out(server, "faulty").stream()
    server.sql("CREATE TABLE did (n int)")
    n = 0

    def insert():
        """Knows whether it has committed when the server crashes over it."""
        try:
            server.sql("BEGIN; INSERT INTO faulty SELECT 'k', g FROM generate_series(%s, %s) g; INSERT INTO did VALUES (%s); COMMIT", n + 1, n + 150, n)
            return True
        except psycopg2.OperationalError:
            return patiently(server, "SELECT count(*) FROM did WHERE n = %s", n) == 1
    for action in ("57P03", "22012", "40001", "kill"):
        server.sql("SELECT fault.arm(%s, 2, %s)", point, action)
        for _ in range(5):
            wait_until(insert, "an insert")
            n += 150
            time.sleep(0.02)
        wait_until(lambda: patiently(server, "SELECT fault.armed()") is None, "the fault to have happened")
    out.settled()
    assert out.values() == list(range(1, n + 1))
    assert [r.number for r in out.records()] == list(range(1, n + 1))
    server.check_sane()
    server.destroy()


class Standby(Postgres):
    def __init__(self, name, primary):
        super().__init__(name, initdb=False, bindir=primary.bindir)
        subprocess.run([primary.bindir + "/pg_basebackup", "-h", primary.sockets, "-p", str(primary.port), "-U", "postgres", "-D", self.data, "-R", "-c", "fast"], check=True)
        with open(self.data + "/postgresql.conf", "a") as f:
            f.write("unix_socket_directories = '%s'\nport = %d\n" % (self.sockets, self.port))


def test_promotion():
    """What the standby had heard of is not sent again; what the primary had sealed and sent after that may be, and is counted."""
    primary = start("out_primary")
    out = Out(primary, "failover").stream()
    primary.sql("INSERT INTO failover SELECT 'k', g FROM generate_series(1, 3) g")
    out.wait(3)
    out.settled()
    standby = Standby("out_standby", primary).start()
    primary.sql("INSERT INTO failover VALUES ('k', 4)")
    out.wait(4)
    out.settled()
    there = primary.value("SELECT pg_current_wal_insert_lsn()")
    wait_until(lambda: standby.value("SELECT pg_last_wal_receive_lsn() >= %s", there), "the standby to have it")
    assert standby.sql("SELECT state, delivered, pending FROM kda.outputs") == [("running", 4, 0)]
    # the standby hears no more, the primary goes on
    standby.sql("ALTER SYSTEM SET primary_conninfo = ''")
    standby.sql("SELECT pg_reload_conf()")
    wait_until(lambda: standby.value("SELECT count(*) FROM pg_stat_wal_receiver") == 0, "the standby to be alone")
    primary.sql("INSERT INTO failover VALUES ('k', 5), ('k', 6)")
    out.wait(6)
    out.settled()
    primary.stop("immediate")
    standby.sql("SELECT pg_promote()")
    out.server = standby
    wait_until(lambda: out.row("delivered_again") == (2,), "it to see how far the other has come")
    # counted once, however often it starts
    standby.crash()
    standby.start()
    standby.sql("INSERT INTO failover VALUES ('k', 7)")
    out.wait(7)
    out.settled()
    assert [(r.number, v) for r, v in zip(out.records(), out.values())] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (5, 7)]
    assert out.row("delivered, delivered_again, state") == (5, 2, "running")
    assert "2 records had been delivered by a server that this one has taken over from" in standby.log_text()
    # and from here on its marks are those of its own timeline
    standby.crash()
    standby.start()
    standby.sql("INSERT INTO failover VALUES ('k', 8)")
    out.wait(8)
    assert out.values()[-2:] == [7, 8] and out.marks()[-1][0] == "2"
    for s in (primary, standby):
        s.check_sane()
        s.destroy()


def test_rights(server):
    """An output runs as its owner; who may not see the stream sees no row of it."""
    server.sql("CREATE ROLE writer LOGIN; CREATE ROLE other LOGIN; GRANT USAGE ON FOREIGN SERVER f TO writer; GRANT CREATE ON SCHEMA public TO writer")
    path = os.path.join(server.dir, "rights.out")
    server.sql("CREATE STREAM mine (k text, v int)", user="writer")
    server.sql("CREATE OUTPUT rights FROM mine SERVER f OPTIONS (topic '%s')" % path, user="writer")
    out = Out(server, "rights")
    server.sql("INSERT INTO mine VALUES ('a', 1)", user="writer")
    out.wait(1)
    assert server.sql("SELECT output::text FROM kda.outputs", user="writer") == [("rights",)]
    assert server.sql("SELECT output::text FROM kda.outputs", user="other") == []
    for statement in ("ALTER OUTPUT rights PAUSE", "DROP OUTPUT rights", "SELECT kda.redrive('mine')"):
        with pytest.raises(psycopg2.Error, match="must be owner"):
            server.sql(statement, user="other")
    with pytest.raises(psycopg2.Error, match="permission denied"):
        server.sql("CREATE OUTPUT stolen FROM mine SERVER f", user="other")
    # with the output goes its pump
    server.sql("ALTER OUTPUT rights OWNER TO postgres")
    server.sql("INSERT INTO mine VALUES ('b', 2)", user="writer")
    out.wait(2)
    server.sql("DROP OWNED BY writer CASCADE; DROP ROLE writer, other")
    assert server.value("SELECT count(*) FROM kda_storage.output WHERE rel::oid NOT IN (SELECT oid FROM pg_class)") == 0


def test_what_is_refused(server):
    """Each with a way out."""
    out = Out(server, "strict").stream("k text, v int", "key 'k', changelog 'upsert'")
    server.sql("CREATE STREAM feed (k text, v int)")
    for statement, code, message in (
            ("CREATE PUMP e AS INSERT INTO strict SELECT message, 1 FROM kda.error_stream", "0A000", "error_stream"),
            ("CREATE PUMP e AS INSERT INTO strict SELECT k, sum(v) FROM feed GROUP BY k HAVING sum(v) > 1", "0A000", "cannot have HAVING"),
            ("INSERT INTO strict VALUES (NULL, 1)", "23502", "key"),
            ("SELECT kda.redrive('feed', 'malformed')", "0A000", "cannot be processed again"),
            ("CREATE STREAM x (v int) SERVER f OPTIONS (key 'nosuch')", "42703", "does not exist"),
            ("CREATE STREAM x (v int) SERVER f OPTIONS (changelog 'upsert')", "HV00D", "needs a key"),
            ("CREATE STREAM x (v int) SERVER f OPTIONS (headers 'v')", "42804", "headers"),
            ("CREATE STREAM x (v int) SERVER f OPTIONS (batch_bytes '5 apples')", "22023", "batch_bytes"),
            ("CREATE STREAM x (v int) OPTIONS (delivery 'exactly_once')", "HV00D", "delivery"),
            ("CREATE CONTINUOUS VIEW x AS SELECT count(*) FROM strict", "0A000", "only be written"),
            ("ALTER STREAM strict OPTIONS (SET writable 'false'); INSERT INTO strict VALUES ('a', 1)", "55000", "not writable")):
        with pytest.raises(psycopg2.Error) as e:
            server.sql(statement)
        assert (e.value.pgcode, message in str(e.value)) == (code, True), (statement, e.value.pgcode, str(e.value))
    assert out.records() == []
