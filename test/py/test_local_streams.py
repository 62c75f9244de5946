"""Streams of the database: INSERT and COPY, and all that PostgreSQL lets one do around them."""
import io
import os
import re
import subprocess
import threading
import time

import psycopg2
import pytest
from harness import BINDIR, LONG, WORK, Postgres, wait_until

SETTINGS = ["max_prepared_transactions = 10"]


def caught_up(server, stream):
    assert server.value("SELECT kda.wait(%s::regclass)", stream)


def refused(server, text, *words):
    with pytest.raises(psycopg2.Error) as e:
        server.sql(text)
    for word in words:
        assert word in str(e.value), str(e.value)
    return e.value


def test_concurrent_writers(server):
    """Every committed row counts once, of those rolled back none, whatever the order of commits."""
    server.sql("CREATE STREAM busy (w int, v int)")
    server.sql("CREATE CONTINUOUS VIEW busy_v AS SELECT w, count(*) n, sum(v) s FROM busy GROUP BY w")
    expected, errors = {}, []

    def writer(w):
        try:
            conn = server.connect(autocommit=False)
            cur = conn.cursor()
            n = s = 0
            for i in range(60):
                rows = 1 + (i * 7 + w) % 30
                if i % 3 == 0:
                    cur.copy_expert("COPY busy FROM STDIN", io.StringIO("".join("%d\t%d\n" % (w, i) for _ in range(rows))))
                else:
                    cur.execute("INSERT INTO busy SELECT %s, %s FROM generate_series(1, %s)", (w, i, rows))
                if i % 5 == 0:
                    # a subtransaction that is rolled back, and one that is not
                    cur.execute("SAVEPOINT a; INSERT INTO busy VALUES (%s, 1000000); ROLLBACK TO a; SAVEPOINT b; INSERT INTO busy VALUES (%s, 0); RELEASE b", (w, w))
                    n += i % 4 != 0
                if i % 4 == 0:
                    conn.rollback()
                else:
                    conn.commit()
                    n, s = n + rows, s + rows * i
            expected[w] = (n, s)
            conn.close()
        except Exception as e:
            errors.append(e)
    threads = [threading.Thread(target=writer, args=(w,)) for w in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors == []
    caught_up(server, "busy")
    assert {w: (n, s) for w, n, s in server.sql("SELECT w, n, s FROM busy_v")} == expected
    assert server.value("SELECT count(*) FROM busy") == sum(n for n, _ in expected.values())


def test_a_slow_transaction_is_read_when_it_commits(server):
    server.sql("CREATE STREAM slow (v int)")
    server.sql("CREATE CONTINUOUS VIEW slow_v AS SELECT count(*) n, sum(v) s FROM slow")
    old = server.connect(autocommit=False)
    old.cursor().execute("INSERT INTO slow VALUES (1)")
    for i in range(3):
        server.sql("INSERT INTO slow VALUES (10)")
        caught_up(server, "slow")
    assert server.sql("SELECT n, s FROM slow_v") == [(3, 30)]
    server.sql("SELECT pg_terminate_backend(pid) FROM kda.workers WHERE kind = 'pipeline'")
    old.cursor().execute("INSERT INTO slow VALUES (2)")
    old.commit()
    old.close()
    wait_until(lambda: server.sql("SELECT n, s FROM slow_v") == [(5, 33)], "its rows")


def test_rows_left_out_arrive_now_and_are_never_late(server):
    """A time that is left out is the arrival: raised to the greatest so far, so that a slow transaction's rows count."""
    server.sql("CREATE STREAM arr (rowtime timestamptz, v int)")
    server.sql("CREATE CONTINUOUS VIEW arr_v AS SELECT count(*) n FROM arr WINDOWED BY TUMBLING (INTERVAL '100 milliseconds')")
    server.sql("CREATE CONTINUOUS VIEW arr_rows AS SELECT v, rowtime FROM arr")
    old = server.connect(autocommit=False)
    old.cursor().execute("INSERT INTO arr (v) VALUES (1)")
    time.sleep(0.5)
    server.sql("INSERT INTO arr (v) VALUES (2)")
    caught_up(server, "arr")
    old.cursor().execute("INSERT INTO arr VALUES (NULL, 3)")
    old.commit()
    old.close()
    caught_up(server, "arr")
    assert server.value("SELECT sum(n) FROM arr_v") == 3
    assert server.value("SELECT records_late FROM kda.streams WHERE stream = 'arr'::regclass") == 0
    assert server.sql("SELECT v FROM arr_rows WHERE rowtime IS NULL OR rowtime < (SELECT rowtime FROM arr_rows WHERE v = 2)") == []
    # looking shows a time too, and RETURNING the same one
    assert server.sql("INSERT INTO arr (v) VALUES (9) RETURNING rowtime = now(), v") == [(True, 9)]
    assert server.value("SELECT count(*) FROM arr WHERE rowtime IS NULL") == 0


def test_a_query_misses_nothing_committed_with_it(server):
    """Rows of the transaction that creates a query are counted, though the worker may wake before it hears of the query."""
    server.sql("CREATE STREAM ever (v int); CREATE CONTINUOUS VIEW ever_v AS SELECT count(*) n FROM ever")
    conn = server.connect()
    cur = conn.cursor()
    # with the processors taken, a session is now and then interrupted in the midst of its commit
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(4)]
    try:
        for i in range(80):
            cur.execute("CREATE CONTINUOUS VIEW ever_%d WITH (start = 'latest') AS SELECT count(*) n FROM ever WHERE v = %d; INSERT INTO ever VALUES (%d)" % (i, i, i))
    finally:
        for b in busy:
            b.kill()
            b.wait()
    caught_up(server, "ever")
    cur.execute(" UNION ALL ".join("SELECT %d, n FROM ever_%d WHERE n <> 1" % (i, i) for i in range(80)))
    assert cur.fetchall() == []
    conn.close()
    server.sql("DROP STREAM ever CASCADE")


def test_prepared_transactions(server):
    server.sql("CREATE STREAM prep (v int)")
    server.sql("CREATE CONTINUOUS VIEW prep_v AS SELECT count(*) n, sum(v) s FROM prep")
    for name in ("p1", "p2"):
        conn = server.connect(autocommit=False)
        conn.cursor().execute("INSERT INTO prep VALUES (1); SAVEPOINT a; INSERT INTO prep VALUES (2); RELEASE a; PREPARE TRANSACTION '%s'" % name)
        conn.close()
    server.sql("INSERT INTO prep VALUES (10)")
    caught_up(server, "prep")
    assert server.sql("SELECT n, s FROM prep_v") == [(1, 10)]
    # over a restart, too
    server.stop("fast")
    server.start()
    server.sql("COMMIT PREPARED 'p1'")
    wait_until(lambda: server.sql("SELECT n, s FROM prep_v") == [(3, 13)], "COMMIT PREPARED to wake the worker", 5)
    server.sql("ROLLBACK PREPARED 'p2'")
    server.sql("INSERT INTO prep VALUES (10)")
    caught_up(server, "prep")
    assert server.sql("SELECT n, s FROM prep_v") == [(4, 23)]
    # DDL of ours cannot be prepared
    conn = server.connect(autocommit=False)
    with pytest.raises(psycopg2.errors.FeatureNotSupported):
        conn.cursor().execute("CREATE STREAM prep2 (v int); PREPARE TRANSACTION 'p3'")
    conn.close()


def test_defaults_constraints_and_generated_columns(server):
    server.sql("CREATE TYPE colour AS ENUM ('red', 'green'); CREATE DOMAIN small AS int CHECK (VALUE < 100)")
    server.sql("""CREATE FOREIGN TABLE kinds (id int DEFAULT 7, twice int GENERATED ALWAYS AS (id * 2) STORED, t text NOT NULL, c colour, s small, a int[], j jsonb,
                  n numeric(6,2), CHECK (length(t) < 5)) SERVER kda""")
    server.sql("CREATE CONTINUOUS VIEW kinds_v AS SELECT id, twice, t, c, s, a, j, n FROM kinds")
    server.sql("""INSERT INTO kinds (t, c, s, a, j, n) VALUES ('x', 'red', 5, '{1,2}', '{"k": 1}', 1.005)""")
    server.sql("INSERT INTO kinds (id, t) VALUES (1, 'y'), (DEFAULT, 'z')")
    assert server.sql("INSERT INTO kinds (id, t) VALUES (3, 'r') RETURNING id, twice, t, c") == [(3, 6, "r", None)]
    conn = server.connect()
    conn.cursor().copy_expert("COPY kinds (t, id) FROM STDIN", io.StringIO("c\t4\n"))
    conn.close()
    refused(server, "INSERT INTO kinds (id) VALUES (1)", "not-null")
    refused(server, "INSERT INTO kinds (t) VALUES ('too long')", "check constraint")
    refused(server, "INSERT INTO kinds (t, s) VALUES ('x', 100)", "small")
    refused(server, "INSERT INTO kinds (t, twice) VALUES ('x', 100)", "twice")
    refused(server, "INSERT INTO kinds (t) VALUES ('ok'), (NULL)", "not-null")
    caught_up(server, "kinds")
    assert server.sql("SELECT id, twice, t, c::text, s, a, j, n::text FROM kinds_v ORDER BY id, t") == [
        (1, 2, "y", None, None, None, None, None), (3, 6, "r", None, None, None, None, None), (4, 8, "c", None, None, None, None, None),
        (7, 14, "x", "red", 5, [1, 2], {"k": 1}, "1.01"), (7, 14, "z", None, None, None, None, None)]
    for text, word in (("UPDATE kinds SET id = 1", "update"), ("DELETE FROM kinds", "delete"), ("TRUNCATE kinds", "truncate"),
                       ("INSERT INTO kinds (t) VALUES ('x') ON CONFLICT DO NOTHING", "ON CONFLICT"), ("SELECT * FROM kinds FOR UPDATE", "")):
        if word:
            refused(server, text, word)
    # a wide row goes out of line and comes back whole
    server.sql("CREATE STREAM wide (v text); CREATE CONTINUOUS VIEW wide_v AS SELECT md5(v) h, length(v) l FROM wide")
    server.sql("INSERT INTO wide SELECT string_agg(md5(i::text), '') FROM generate_series(1, 100000) i")
    server.sql("CREATE TABLE source AS SELECT string_agg(md5(i::text), '') v FROM generate_series(1, 50000) i; INSERT INTO wide SELECT v FROM source; DROP TABLE source")
    caught_up(server, "wide")
    assert server.value("SELECT count(*) FROM wide_v JOIN (SELECT md5(v) h, length(v) l FROM wide) w USING (h, l)") == 2
    assert server.sql("SELECT l FROM wide_v ORDER BY l") == [(1600000,), (3200000,)]


def test_columns_come_and_go(server):
    server.sql("CREATE STREAM cols (a int, b text, c int, d varchar(5))")
    server.sql("CREATE CONTINUOUS VIEW cols_v AS SELECT a, c FROM cols")
    server.sql("INSERT INTO cols VALUES (1, 'x', 10, 'd')")
    refused(server, "ALTER STREAM cols DROP COLUMN a", "depend")
    server.sql("ALTER STREAM cols DROP COLUMN b")
    server.sql("INSERT INTO cols VALUES (2, 20, 'e')")
    server.sql("ALTER STREAM cols ADD COLUMN f int; ALTER FOREIGN TABLE cols DROP COLUMN d, ADD COLUMN g text DEFAULT 'g'")
    server.sql("INSERT INTO cols VALUES (3, 30, 300); INSERT INTO cols VALUES (4, 40, 400, 'h')")
    caught_up(server, "cols")
    assert server.sql("SELECT a, c FROM cols_v ORDER BY a") == [(1, 10), (2, 20), (3, 30), (4, 40)]
    assert server.sql("SELECT * FROM cols ORDER BY a") == [(1, 10, None, None), (2, 20, None, None), (3, 30, 300, "g"), (4, 40, 400, "h")]
    refused(server, "ALTER FOREIGN TABLE cols ALTER COLUMN a TYPE bigint", "view")
    server.sql("ALTER FOREIGN TABLE cols ALTER COLUMN f TYPE text")
    server.sql("INSERT INTO cols VALUES (5, 50, 'five')")
    server.sql("ALTER STREAM cols RENAME COLUMN c TO cc; ALTER STREAM cols RENAME TO columns_; INSERT INTO columns_ (cc, a) VALUES (60, 6)")
    caught_up(server, "columns_")
    assert server.sql("SELECT a, f FROM columns_ WHERE a >= 4 ORDER BY a") == [(4, "400"), (5, "five"), (6, None)]
    assert server.value("SELECT sum(c) FROM cols_v") == 210
    # a query that is created now reads what there is
    server.sql("CREATE CONTINUOUS VIEW cols_w WITH (start = 'latest') AS SELECT f, g FROM columns_; INSERT INTO columns_ VALUES (7, 70, 'seven', 'G')")
    caught_up(server, "columns_")
    assert server.sql("SELECT f, g FROM cols_w") == [("seven", "G")]


def copy_database(server, original, copy):
    tools = dict(env={**os.environ, "PGHOST": server.sockets, "PGPORT": str(server.port), "PGUSER": "postgres"}, check=True)
    dump = os.path.join(WORK, original + ".sql")
    subprocess.run([BINDIR + "/pg_dump", "-f", dump, original], **tools)
    server.sql("CREATE DATABASE " + copy)
    subprocess.run([BINDIR + "/psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump, copy], stdout=subprocess.DEVNULL, **tools)


def test_a_restored_stream_keeps_its_columns_apart(server):
    """Columns that had been dropped leave gaps in the numbers, and a dump has none: unread rows must not be mixed up."""
    server.sql("CREATE DATABASE gaps")
    server.sql("CREATE EXTENSION kda_stream; CREATE STREAM g (a int, gone text, b int, gone2 int, c text); ALTER STREAM g DROP COLUMN gone, DROP COLUMN gone2", dbname="gaps")
    server.sql("CREATE CONTINUOUS VIEW g_v AS SELECT a, b, c FROM g; ALTER STREAM g PAUSE; INSERT INTO g VALUES (1, 2, 'three')", dbname="gaps")
    copy_database(server, "gaps", "gaps_copy")
    assert server.sql("SELECT a, b, c FROM g", dbname="gaps_copy") == [(1, 2, "three")]
    server.sql("INSERT INTO g VALUES (4, 5, 'six')", dbname="gaps_copy")
    server.sql("ALTER STREAM g ADD COLUMN d int; INSERT INTO g VALUES (7, 8, 'nine', 10); ALTER STREAM g RESUME", dbname="gaps_copy")
    assert server.value("SELECT kda.wait('g')", dbname="gaps_copy")
    assert server.sql("SELECT a, b, c FROM g_v ORDER BY a", dbname="gaps_copy") == [(1, 2, "three"), (4, 5, "six"), (7, 8, "nine")]
    assert server.sql("SELECT a, b, c, d FROM g ORDER BY a", dbname="gaps_copy") == [(1, 2, "three", None), (4, 5, "six", None), (7, 8, "nine", 10)]
    server.sql("DROP DATABASE gaps_copy WITH (FORCE)")
    server.sql("DROP DATABASE gaps WITH (FORCE)")


def test_a_restored_stream_loses_no_unread_row():
    """Neither one that is written while the copy is taken over, nor of rows that many sessions have written."""
    server = Postgres("unread", ["kda_stream.commit_interval = '20ms'", "kda_stream.batch_records = 7"]).start()
    server.sql("CREATE DATABASE unread")
    server.sql("CREATE EXTENSION kda_stream; CREATE STREAM u (v int); CREATE CONTINUOUS VIEW u_v AS SELECT count(*) n, sum(v) s FROM u",
               dbname="unread")
    server.sql("INSERT INTO u VALUES (1000)", dbname="unread")
    assert server.value("SELECT kda.wait('u')", dbname="unread")
    server.sql("ALTER STREAM u PAUSE", dbname="unread")
    for i in range(40):
        server.sql("INSERT INTO u VALUES (%s)", i, dbname="unread")
    server.sql("ALTER SYSTEM SET kda_stream.databases = 'unread'")
    server.sql("SELECT pg_reload_conf()")
    copy_database(server, "unread", "unread_copy")
    conn = server.connect("unread_copy", autocommit=False)
    conn.cursor().execute("SELECT pg_current_xact_id()")
    origin = "SELECT origin FROM kda_storage.stream"
    before = server.value(origin, dbname="unread_copy")
    server.sql("ALTER SYSTEM RESET kda_stream.databases")
    server.sql("SELECT pg_reload_conf()")
    wait_until(lambda: server.value(origin, dbname="unread_copy") != before, "the copy to be taken over")
    conn.cursor().execute("INSERT INTO u VALUES (100000)")      # with a number that is older than the copy's position
    conn.commit()
    conn.close()
    server.sql("ALTER STREAM u RESUME", dbname="unread_copy")
    assert server.value("SELECT kda.wait('u')", dbname="unread_copy")
    assert server.sql("SELECT n, s FROM u_v", dbname="unread_copy") == [(42, 1000 + 780 + 100000)]
    server.check_sane()
    server.destroy()


def test_a_restored_query_begins_where_it_was_created(server):
    """Of rows that nobody has read yet, those committed before a query's CREATE are not its own, in the copy as in the original."""
    server.sql("CREATE DATABASE begins")
    conn = server.connect("begins", autocommit=False)
    sql = lambda text: server.sql(text, dbname="begins")
    sql("CREATE EXTENSION kda_stream; CREATE STREAM b (rowtime timestamptz, v int) OPTIONS (idle_timeout 'never')")
    sql("CREATE CONTINUOUS VIEW b_0 AS SELECT sum(v) FROM b; INSERT INTO b VALUES ('2026-01-01 10:00:00', 1)")
    assert server.value("SELECT kda.wait('b')", dbname="begins")
    sql("ALTER STREAM b PAUSE")
    conn.cursor().execute("INSERT INTO b VALUES ('2026-01-01 10:01:00', 2)")     # the oldest transaction that has not been read
    sql("INSERT INTO b VALUES ('2026-01-01 10:05:00', 4)")
    sql("CREATE CONTINUOUS VIEW b_1 AS SELECT sum(v) FROM b")
    sql("CREATE CONTINUOUS VIEW b_windows AS SELECT window_start, sum(v) FROM b WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)")
    sql("INSERT INTO b VALUES ('2026-01-01 10:05:00', 8)")
    conn.commit()
    conn.close()
    sql("CREATE CONTINUOUS VIEW b_2 WITH (start = 'latest') AS SELECT sum(v) FROM b")
    sql("CREATE CONTINUOUS VIEW b_pairs AS SELECT l.v, r.v AS w FROM b l JOIN b r ON l.v <= r.v AND r.rowtime BETWEEN l.rowtime - INTERVAL '1' HOUR AND l.rowtime + INTERVAL '1' HOUR")
    sql("INSERT INTO b VALUES ('2026-01-01 10:05:00', 16), ('2026-01-01 10:05:00', 32)")
    copy_database(server, "begins", "begins_copy")
    for db in ("begins", "begins_copy"):
        server.sql("INSERT INTO b VALUES ('2026-01-01 10:05:00', 64); ALTER STREAM b RESUME", dbname=db)
        assert server.value("SELECT kda.wait('b')", dbname=db)
        assert [server.value("SELECT sum FROM b_%d" % i, dbname=db) for i in range(3)] == [127, 2 + 8 + 16 + 32 + 64, 16 + 32 + 64], db
        # rows are judged in the same order: 2 comes before what would have made it late
        assert server.sql("SELECT window_start::time::text, sum FROM b_windows ORDER BY 1", dbname=db) == [("10:01:00", 2), ("10:05:00", 8 + 16 + 32 + 64)], db
        assert server.sql("SELECT v, w FROM b_pairs ORDER BY 1, 2", dbname=db) == [(16, 16), (16, 32), (16, 64), (32, 32), (32, 64), (64, 64)], db
        server.sql("DROP DATABASE %s WITH (FORCE)" % db)


def test_a_restored_stream_reads_nothing_twice():
    """A dump while a great commit is being read in pieces, by a query that began with the first row."""
    server = Postgres("pieces", ["kda_stream.commit_interval = '20ms'", "kda_stream.batch_records = 10"]).start()
    server.sql("CREATE DATABASE pieces")
    sql = lambda text: server.sql(text, dbname="pieces")
    sql("CREATE EXTENSION kda_stream; CREATE STREAM p (v int); INSERT INTO p SELECT generate_series(1, 20000)")
    sql("CREATE CONTINUOUS VIEW p_v WITH (start = 'earliest') AS SELECT count(*) n, sum(v) s FROM p")
    wait_until(lambda: server.value("SELECT n FROM p_v", dbname="pieces") > 0, "the first piece")
    sql("ALTER STREAM p PAUSE")
    assert server.value("SELECT n FROM p_v", dbname="pieces") < 20000
    sql("INSERT INTO p VALUES (1000000)")
    copy_database(server, "pieces", "pieces_copy")
    server.sql("ALTER SYSTEM SET kda_stream.batch_records = 1000")
    server.sql("SELECT pg_reload_conf()")
    for db in ("pieces", "pieces_copy"):
        server.sql("ALTER STREAM p RESUME", dbname=db)
        assert server.value("SELECT kda.wait('p')", dbname=db)
        assert server.sql("SELECT n, s FROM p_v", dbname=db) == [(20001, 200010000 + 1000000)], db
    server.check_sane()
    server.destroy()


def test_rows_inserted_into_a_restored_stream_are_read(server):
    """Transaction numbers of the original mean nothing in the copy, whose own may be smaller; and a transaction may be older than the adoption."""
    server.sql("CREATE DATABASE aged")
    server.sql("CREATE EXTENSION kda_stream; CREATE STREAM g (a int); CREATE CONTINUOUS VIEW g_v AS SELECT a FROM g", dbname="aged")
    for i in range(3):
        server.sql("INSERT INTO g VALUES (%d)" % i, dbname="aged")
    assert server.value("SELECT kda.wait('g')", dbname="aged")
    server.sql("ALTER STREAM g PAUSE; INSERT INTO g VALUES (3)", dbname="aged")
    dump = os.path.join(WORK, "aged.sql")
    young = Postgres("young", ["kda_stream.commit_interval = '20ms'", "kda_stream.enabled = off"]).start()
    for pg, args in ((server, ("pg_dump", "-f", dump, "aged")), (young, ("createdb", "copy")), (young, ("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump, "copy"))):
        subprocess.run([os.path.join(BINDIR, args[0]), "-h", pg.sockets, "-p", str(pg.port), "-U", "postgres", *args[1:]], check=True, stdout=subprocess.DEVNULL)
    # in the copy everything after the restore looks as if the original had read it long ago
    young.sql("UPDATE kda_storage.stream_progress SET snapshot1 = '900000:900000:' WHERE snapshot1 IS NOT NULL", dbname="copy")
    early = young.connect(dbname="copy")
    early.autocommit = False
    early.cursor().execute("SELECT pg_current_xact_id()")
    young.sql("INSERT INTO g VALUES (4)", dbname="copy")        # adopts
    early.cursor().execute("INSERT INTO g VALUES (5)")
    early.commit()
    early.close()
    young.sql("ALTER STREAM g RESUME", dbname="copy")
    young.sql("ALTER SYSTEM SET kda_stream.enabled = on")
    young.sql("SELECT pg_reload_conf()")
    assert young.value("SELECT kda.wait('g')", dbname="copy")
    assert young.sql("SELECT a FROM g_v ORDER BY a", dbname="copy") == [(0,), (1,), (2,), (4,), (5,)]
    assert young.sql("SELECT a FROM g ORDER BY a", dbname="copy") == [(0,), (1,), (2,), (3,), (4,), (5,)]
    young.stop()
    server.sql("DROP DATABASE aged WITH (FORCE)")


def test_refused_between_the_parts_of_a_query(server):
    """What is late or fails in a later part of a query is reported of the user's record, wherever it was found."""
    server.sql("CREATE STREAM part_a (rowtime timestamptz, k text, v int) OPTIONS (idle_timeout 'never');"
               "CREATE STREAM part_b (rowtime timestamptz, k text, v int) OPTIONS (idle_timeout 'never')")
    server.sql("CREATE CONTINUOUS VIEW part_v AS SELECT k, count(*) AS n, sum(10 / v) AS s FROM "
               "(SELECT rowtime, k, v FROM part_a UNION ALL SELECT rowtime, 'b' || k, v + 1 FROM (SELECT rowtime, k, v FROM part_b WHERE v < 10) i) u "
               "WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k")
    for stream in ("part_a", "part_b"):
        server.sql("INSERT INTO %s VALUES ('2026-01-01 10:00:00', 'x', 1), ('2026-01-01 10:05:00', 'y', 2)" % stream)
        caught_up(server, stream)
    server.sql("INSERT INTO part_a VALUES ('2026-01-01 10:00:00', 'late', 1), ('2026-01-01 10:05:00', 'zero', 0)")
    caught_up(server, "part_a")
    server.sql("INSERT INTO part_b VALUES ('2026-01-01 10:00:00', 'late', 2), ('2026-01-01 10:05:00', 'zero', -1)")
    caught_up(server, "part_b")
    errors = "SELECT stream::text, error_name, shard, position IS NOT NULL, data_row IS NOT NULL, data_text::json ->> 'k' FROM kda.error_stream WHERE stream IN ('part_a'::regclass, 'part_b'::regclass) ORDER BY error_id"
    expected = [("part_a", "expression", "local", True, True, "zero"), ("part_a", "late", "local", True, True, "late"),
                ("part_b", "expression", "local", True, True, "bzero"), ("part_b", "late", "local", True, True, "blate")]
    assert server.sql(errors) == expected
    assert server.sql("SELECT DISTINCT query::text FROM kda.error_stream WHERE stream IN ('part_a'::regclass, 'part_b'::regclass)") == [("part_v",)]
    assert server.value("SELECT count(*) FROM kda.error_stream WHERE stream::text LIKE 'kda_storage.%'") == 0
    assert server.sql("SELECT stream::text, records_in, records_late, records_failed FROM kda.streams WHERE stream::text LIKE 'part\\_%' ORDER BY 1") == [
        ("part_a", 4, 1, 1), ("part_b", 4, 1, 1)]
    assert server.sql("SELECT k, n, s FROM part_v ORDER BY window_start, k") == [("bx", 1, 5), ("x", 1, 10), ("by", 1, 3), ("y", 1, 5)]
    # and it is there when the query has gone
    server.sql("DROP VIEW part_v")
    assert server.sql(errors) == expected
    server.sql("DROP STREAM part_a, part_b CASCADE")


def test_triggers_and_partitions(server):
    server.sql("CREATE STREAM trig (v int, note text)")
    server.sql("CREATE CONTINUOUS VIEW trig_v AS SELECT v, note FROM trig")
    server.sql("CREATE TABLE log_of_trig (v int, op text)")
    server.sql("""
        CREATE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.v < 0 THEN RETURN NULL; END IF; NEW.note := 'seen'; RETURN NEW; END $$;
        CREATE FUNCTION after_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log_of_trig VALUES (NEW.v, TG_OP || ' ' || NEW.note); RETURN NULL; END $$;
        CREATE FUNCTION at_statement() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log_of_trig VALUES (0, TG_WHEN); RETURN NULL; END $$;
        CREATE TRIGGER b BEFORE INSERT ON trig FOR EACH ROW EXECUTE FUNCTION before_row();
        CREATE TRIGGER a AFTER INSERT ON trig FOR EACH ROW EXECUTE FUNCTION after_row();
        CREATE TRIGGER s AFTER INSERT ON trig FOR EACH STATEMENT EXECUTE FUNCTION at_statement()""")
    server.sql("INSERT INTO trig VALUES (1), (-1), (2)")
    conn = server.connect()
    conn.cursor().copy_expert("COPY trig (v) FROM STDIN", io.StringIO("3\n-3\n"))
    conn.close()
    caught_up(server, "trig")
    assert server.sql("SELECT v, note FROM trig_v ORDER BY v") == [(1, "seen"), (2, "seen"), (3, "seen")]
    assert server.sql("SELECT v, op FROM log_of_trig ORDER BY v, op") == [(0, "AFTER"), (0, "AFTER"), (1, "INSERT seen"), (2, "INSERT seen"), (3, "INSERT seen")]
    # a trigger may itself insert into a stream
    server.sql("""CREATE TABLE orders (id int); CREATE STREAM order_events (id int); CREATE CONTINUOUS VIEW order_v AS SELECT count(*) n FROM order_events;
        CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO order_events VALUES (NEW.id); RETURN NULL; END $$;
        CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION tell()""")
    server.sql("INSERT INTO orders SELECT generate_series(1, 500)")
    caught_up(server, "order_events")
    assert server.value("SELECT n FROM order_v") == 500
    # a stream as one partition beside a table
    server.sql("""
        CREATE TABLE parent (kind text, v int) PARTITION BY LIST (kind);
        CREATE TABLE parent_t PARTITION OF parent FOR VALUES IN ('t');
        CREATE FOREIGN TABLE parent_s (v int, kind text) SERVER kda;
        ALTER TABLE parent ATTACH PARTITION parent_s FOR VALUES IN ('s');
        CREATE CONTINUOUS VIEW parent_v AS SELECT kind, sum(v) s FROM parent_s GROUP BY kind""")
    server.sql("INSERT INTO parent VALUES ('t', 1), ('s', 10), ('t', 2), ('s', 20)")
    conn = server.connect()
    conn.cursor().copy_expert("COPY parent FROM STDIN", io.StringIO("".join("%s\t%d\n" % ("st"[i % 2], i) for i in range(100))))
    conn.close()
    refused(server, "INSERT INTO parent_s VALUES (1, 't')", "partition constraint")
    caught_up(server, "parent_s")
    assert server.sql("SELECT kind, s FROM parent_v") == [("s", 30 + sum(range(0, 100, 2)))]
    assert server.value("SELECT sum(v) FROM parent") == 33 + sum(range(100))


def test_rights(server):
    server.sql("CREATE ROLE writer; CREATE ROLE reader; CREATE STREAM mine (v int); CREATE CONTINUOUS VIEW mine_v AS SELECT sum(v) s FROM mine")
    server.sql("GRANT INSERT ON mine TO writer; GRANT SELECT ON mine TO reader")
    server.sql("SET ROLE writer; INSERT INTO mine VALUES (1)")
    assert server.value("SET ROLE writer; SELECT kda.wait('mine')")
    refused(server, "SET ROLE writer; SELECT * FROM mine", "permission denied")
    refused(server, "SET ROLE reader; INSERT INTO mine VALUES (1)", "permission denied")
    assert server.sql("SET ROLE reader; SELECT v FROM mine") == [(1,)]
    refused(server, "SET ROLE writer; SELECT * FROM kda_storage.stream", "permission denied")
    refused(server, "SET ROLE writer; ALTER STREAM mine PAUSE", "must be owner")
    server.sql("CREATE SCHEMA s AUTHORIZATION writer; SET ROLE writer; CREATE STREAM s.own (v int); CREATE CONTINUOUS VIEW s.own_v AS SELECT count(*) n FROM s.own; INSERT INTO s.own VALUES (1)")
    caught_up(server, "s.own")
    assert server.value("SELECT n FROM s.own_v") == 1


def test_a_large_copy_in_bounded_memory(server):
    """One transaction of many rows is read in pieces, each committed; a kill in between counts nothing twice."""
    n = 1_000_000 if LONG else 300_000
    server.sql("CREATE STREAM large (k int, v int)")
    server.sql("CREATE CONTINUOUS VIEW large_v AS SELECT k % 10 k, count(*) n, sum(v) s FROM large GROUP BY 1")
    server.sql("ALTER SYSTEM SET kda_stream.batch_records = 20000")
    server.sql("SELECT pg_reload_conf()")
    pid = server.workers()[0]
    conn = server.connect()
    class Rows(io.TextIOBase):
        at = 0
        def read(self, size=8192):
            if self.at >= n:
                return ""
            to = min(n, self.at + 1000)
            text = "".join("%d\t%d\n" % (i, i) for i in range(self.at, to))
            self.at = to
            return text
    conn.cursor().copy_expert("COPY large FROM STDIN", Rows())
    conn.close()
    wait_until(lambda: 0 < (server.value("SELECT sum(n) FROM large_v") or 0), "the first piece", 30, 0.005)
    server.sql("SELECT pg_terminate_backend(%s)", pid)
    caught_up(server, "large")
    assert server.sql("SELECT k, n, s FROM large_v ORDER BY k") == [(k, n // 10, sum(range(k, n, 10))) for k in range(10)]
    with open("/proc/%d/status" % wait_until(server.workers, "a worker")[0]) as f:
        assert int(re.search(r"VmHWM:\s*(\d+)", f.read()).group(1)) < 250_000
    server.sql("ALTER SYSTEM RESET kda_stream.batch_records")
    server.sql("SELECT pg_reload_conf()")
    server.sql("DROP STREAM large CASCADE")


def test_durable(server):
    """After a crash the rows of a durable stream are there, of the other one none; queries go on in both."""
    server.sql("CREATE STREAM kept (v int); CREATE STREAM fleeting (v int) OPTIONS (durable 'false')")
    for s in ("kept", "fleeting"):
        server.sql("CREATE CONTINUOUS VIEW %s_v AS SELECT count(*) n, sum(v) s FROM %s; INSERT INTO %s VALUES (1), (2)" % (s, s, s))
        caught_up(server, s)
        # committed and not read yet
        server.sql("ALTER STREAM %s PAUSE; INSERT INTO %s VALUES (10)" % (s, s))
    server.crash()
    server.start()
    server.sql("ALTER STREAM kept RESUME; ALTER STREAM fleeting RESUME; INSERT INTO kept VALUES (100); INSERT INTO fleeting VALUES (100)")
    caught_up(server, "kept")
    caught_up(server, "fleeting")
    assert server.sql("SELECT n, s FROM kept_v") == [(4, 113)]
    assert server.sql("SELECT n, s FROM fleeting_v") == [(3, 103)]
    assert server.sql("SELECT sum(v) FROM kept") == [(113,)] and server.sql("SELECT sum(v) FROM fleeting") == [(100,)]
    # it can be changed, and is what it says
    persistence = "SELECT string_agg(DISTINCT relpersistence::text, '') FROM pg_class WHERE oid IN (SELECT unnest(ARRAY[inbox, inbox2])::oid FROM kda_storage.stream WHERE rel = %s::regclass)"
    assert server.value(persistence, "fleeting") == "u"
    server.sql("ALTER STREAM fleeting OPTIONS (SET durable 'true'); INSERT INTO fleeting VALUES (1000)")
    assert server.value(persistence, "fleeting") == "p"
    caught_up(server, "fleeting")
    assert server.sql("SELECT n, s FROM fleeting_v") == [(4, 1103)]


def test_a_full_buffer_refuses_and_recovers():
    """Rows that a query has still to see never leave: beyond buffer_size INSERT gets 53400.  What was read makes room, whatever the retention."""
    pg = Postgres("fullbuf", ["kda_stream.commit_interval = '20ms'", "kda_stream.buffer_size = '2MB'"]).start()
    pg.sql("CREATE EXTENSION kda_stream")
    pg.sql("CREATE STREAM f (v int, pad text); CREATE CONTINUOUS VIEW f_v AS SELECT count(*) n FROM f")
    insert = "INSERT INTO f SELECT i, repeat('x', 500) FROM generate_series(1, 1000) i"
    pg.sql("ALTER STREAM f PAUSE")
    sent = 0
    with pytest.raises(psycopg2.Error) as e:
        for _ in range(100):
            pg.sql(insert)
            sent += 1000
    assert e.value.pgcode == "53400" and "buffer_size" in str(e.value) and e.value.diag.message_hint
    assert 2000 < sent < 20000
    refused(pg, "INSERT INTO f VALUES (1)", "full")
    pg.sql("ALTER STREAM f RESUME")
    caught_up(pg, "f")
    assert pg.value("SELECT n FROM f_v") == sent

    def room():
        try:
            pg.sql("INSERT INTO f VALUES (1)")
            return True
        except psycopg2.Error as e:
            assert e.pgcode == "53400"
            return False
    wait_until(room, "room to be made", 20)
    # many times the buffer, at full speed: now and then refused, never lost
    sent += 1
    for _ in range(40):
        while True:
            try:
                pg.sql(insert)
                sent += 1000
                break
            except psycopg2.Error as e:
                assert e.pgcode == "53400"
                time.sleep(0.02)
    caught_up(pg, "f")
    assert pg.value("SELECT n FROM f_v") == sent
    # without a query rows go by age and size, and nobody is refused for long
    pg.sql("CREATE STREAM unread (v int, pad text) OPTIONS (retention '0')")
    for _ in range(15):
        wait_until(lambda: inserted(pg, "INSERT INTO unread SELECT i, repeat('x', 500) FROM generate_series(1, 1000) i"), "room in an unread stream", 20)
    size = "SELECT sum(pg_total_relation_size(r)) FROM (SELECT unnest(ARRAY[inbox, inbox2]) r FROM kda_storage.stream WHERE rel = 'unread'::regclass) x"
    assert pg.value(size) < 8_000_000
    pg.check_sane()
    pg.destroy()


def inserted(pg, text):
    try:
        pg.sql(text)
        return True
    except psycopg2.Error as e:
        assert e.pgcode == "53400"
        return False


def test_explain_and_plans(server):
    server.sql("CREATE STREAM ex (v int); INSERT INTO ex SELECT generate_series(1, 100)")
    assert "Foreign Scan on ex" in server.sql("EXPLAIN (COSTS OFF) SELECT * FROM ex")[0][0]
    server.sql("EXPLAIN INSERT INTO ex VALUES (1); EXPLAIN ANALYZE INSERT INTO ex VALUES (1)")
    assert server.value("SELECT count(*) FROM ex") == 101
    # scanned again and again, joined with itself, in a subquery, by a cursor, by parallel plans
    assert server.value("SELECT count(*) FROM ex a JOIN ex b USING (v) WHERE EXISTS (SELECT 1 FROM ex c WHERE c.v = a.v + 1)") == 102
    assert server.value("SET enable_hashjoin = off; SET enable_mergejoin = off; SELECT count(*) FROM ex a, ex b WHERE a.v = b.v") == 103
    assert server.value("SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SELECT sum(v) FROM ex") == 5051
    conn = server.connect(autocommit=False)
    cur = conn.cursor()
    cur.execute("DECLARE c SCROLL CURSOR FOR SELECT v FROM ex ORDER BY v; FETCH 3 FROM c")
    cur.execute("FETCH BACKWARD 1 FROM c")
    assert cur.fetchall() == [(1,)]
    conn.rollback()
    conn.close()
    refused(server, "CREATE INDEX ON ex (v)", "foreign table")
