"""The contract where psql's scripts cannot show it: drivers, races, dumps, standbys, the server's log."""
import os
import subprocess
import threading
import time

import psycopg2
import pytest
from harness import BINDIR, WORK, Postgres, wait_until

SETTINGS = ["shared_preload_libraries = 'kda_stream,pg_stat_statements'", "kda_stream.max_workers = 12", "max_worker_processes = 30"]


def error(server, text, **kwargs):
    with pytest.raises(psycopg2.Error) as e:
        server.sql(text, **kwargs)
    return e.value


def pointed_at(e, text):
    """What stands where the error points."""
    return text[int(e.diag.statement_position) - 1:]


# ---- the dialect through a driver

def test_comments_may_hold_anything(server):
    """psql reads quotes and semicolons in // comments as its own; a driver sends them as they are."""
    server.sql("CREATE STREAM cm (a int, rowtime timestamptz) // don't; stop\n DESCRIPTION 'x'")
    assert server.value("SELECT obj_description('cm'::regclass)") == "x"
    assert server.sql("SELECT a, count(*) FROM cm // don't; stop\n WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY a") == []
    server.sql("SELECT 1; // it's\nCREATE STREAM cm2 (a int); // isn't it\nSELECT 2")
    assert server.value("SELECT to_regclass('cm2')") == "cm2"


def test_errors_point_into_the_text(server):
    server.sql("CREATE STREAM IF NOT EXISTS cm (a int, rowtime timestamptz)")
    for text in ("SELECT '한국어'; CREATE STREAM pt (가 int, 나 nosuch)",
                 "/* 한 */ CREATE CONTINUOUS VIEW pv AS SELECT nosuch FROM cm",
                 "SELECT 1; CREATE CONTINUOUS VIEW pv AS SELECT count(*) FROM cm WINDOWED BY TUMBLING (nosuch)",
                 "CREATE TABLE IF NOT EXISTS 표 (a int); CREATE PUMP pp AS INSERT INTO 표 (nosuch) SELECT a FROM cm",
                 "SELECT '한', nosuch FROM cm WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)"):
        assert pointed_at(error(server, text), text).startswith("nosuch"), text
        inner = error(server, "SELECT kda.execute($kda$" + text + "$kda$)")
        assert inner.diag.internal_query == text and text[int(inner.diag.internal_position) - 1:].startswith("nosuch")


def test_backslashes_when_strings_do_not_conform(server):
    server.sql("""SET standard_conforming_strings = off; SET escape_string_warning = off;""")
    conn = server.connect()
    cur = conn.cursor()
    cur.execute("SET standard_conforming_strings = off; SET escape_string_warning = off")
    cur.execute(r"CREATE STREAM bs (a int) OPTIONS (watermark '5 s\x65c'); SELECT 'a\'; CREATE STREAM b'")
    assert cur.fetchone() == ("a'; CREATE STREAM b",)
    cur.execute("SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'bs'::regclass")
    assert cur.fetchone() == (["watermark=5 sec"],)
    conn.close()


def test_transactions(server):
    conn = server.connect()
    cur = conn.cursor()
    cur.execute("BEGIN")
    for text, code in (("SELECT 1/0", "22012"), ("CREATE STREAM ab (a int)", "25P02"),
                       ("SELECT a, count(*) FROM cm WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY a", "25P02"),
                       ("CREATE STREAM ((", "42601")):
        with pytest.raises(psycopg2.Error) as e:
            cur.execute(text)
        assert e.value.pgcode == code, text
    cur.execute("ROLLBACK")
    cur.execute("BEGIN; CREATE STREAM tx (a int); CREATE CONTINUOUS VIEW txv AS SELECT count(*) FROM tx; COMMIT; SELECT to_regclass('txv')")
    assert cur.fetchone() == ("txv",)
    with pytest.raises(psycopg2.Error):
        cur.execute("CREATE STREAM tz (a int); SELECT 1/0")
    cur.execute("SELECT to_regclass('tz')")
    assert cur.fetchone() == (None,)
    # what is made in the same text is known to what follows
    cur.execute("CREATE STREAM tz (rowtime timestamptz, a int); SELECT count(*) FROM tz WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)")
    for text, code in (("BEGIN READ ONLY; CREATE STREAM ro (a int)", "25006"), ("BEGIN READ ONLY; SELECT kda.execute('DROP STREAM tz')", "25006"),
                       ("BEGIN; CREATE STREAM pt (a int); PREPARE TRANSACTION 'x'", "0A000")):
        with pytest.raises(psycopg2.Error) as e:
            cur.execute(text)
        assert e.value.pgcode in (code, "55000"), text
        cur.execute("ROLLBACK")
    conn.close()


def test_execute_stays_in_its_transaction(server):
    server.sql("CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ BEGIN CREATE STREAM in_proc (a int); COMMIT; CREATE STREAM in_proc2 (a int); END $$")
    server.sql("CALL commits()")
    server.sql("DROP STREAM in_proc, in_proc2")
    for text, code in (("CALL commits()", "2D000"), ("COMMIT", "0A000"), ("COPY cm FROM STDIN", "0A000"),
                       ("COPY (SELECT 1) TO STDOUT", "0A000"), ("VACUUM cm", "25001")):
        assert error(server, "SELECT kda.execute('%s')" % text).pgcode == code, text
    assert server.value("SELECT to_regclass('in_proc')") is None
    server.sql("SELECT kda.execute(''); SELECT kda.execute(' -- nothing'); SELECT kda.execute('SELECT 1; SHOW timezone; EXPLAIN SELECT 1')")
    assert "one SELECT" in str(error(server, "SELECT * FROM kda.query('SELECT 1; SELECT 2') AS t(a int)"))
    assert "do not fit" in str(error(server, "SELECT * FROM kda.query('SELECT 1, 2') AS t(a int)"))


def test_without_the_door(server):
    server.sql("CREATE STREAM door (rowtime timestamptz, a int)")
    conn = server.connect()
    cur = conn.cursor()
    cur.execute("SET kda_stream.extend_grammar = off")
    for text in ("CREATE STREAM off1 (a int)", "SELECT count(*) FROM door WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)"):
        with pytest.raises(psycopg2.errors.SyntaxError):
            cur.execute(text)
    cur.execute("SELECT kda.execute('CREATE STREAM off1 (a int)')")
    cur.execute("SELECT * FROM kda.query('SELECT count(*) FROM door WINDOWED BY TUMBLING (INTERVAL ''1'' MINUTE)') AS t(n bigint)")
    conn.close()


def test_long_scripts_take_linear_time(server):
    """8000 statements in one text take no more than a few times what core needs for as many of its own."""
    def script(n, kda):
        line = "CREATE STREAM IF NOT EXISTS ls_%d (a int, b text) OPTIONS (watermark '5 seconds'); -- it's one of many\nSELECT 'CREATE STREAM ' || %d;\n"
        if not kda:
            line = "CREATE TABLE IF NOT EXISTS lt_%d (a int, b text, c interval DEFAULT '5 seconds'); -- it's one of many\nSELECT 'CREATE STREAM ' || %d;\n"
        return "".join(line % (i % 3, i) for i in range(n))

    def seconds(text):
        best = 1e9
        for _ in range(3):
            begun = time.monotonic()
            server.sql(text)
            best = min(best, time.monotonic() - begun)
        return best
    long, short, plain = seconds(script(8000, True)), seconds(script(1000, True)), seconds(script(8000, False))
    assert long < 24 * short and long < 6 * plain, (long, short, plain)


def test_logs_and_statistics_show_what_was_typed(server):
    server.sql("SELECT pg_stat_statements_reset()") if server.value("SELECT count(*) FROM pg_extension WHERE extname = 'pg_stat_statements'") else server.sql("CREATE EXTENSION pg_stat_statements")
    server.sql("SET log_statement = 'ddl'; SELECT 'before'; CREATE STREAM lg (rowtime timestamptz, a int) /* my stream */; SELECT 'after'")
    server.sql("SET log_statement = 'ddl'; CREATE CONTINUOUS VIEW lgv AS SELECT count(*) FROM lg WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)")
    log = server.log_text()
    assert log.count("statement: CREATE STREAM lg (rowtime timestamptz, a int) /* my stream */") == 1
    assert log.count("statement: CREATE CONTINUOUS VIEW lgv AS") == 1
    server.sql("SELECT a, count(*) FROM lg WHERE a > 5 WINDOWED BY TUMBLING (INTERVAL '2' MINUTE) GROUP BY a")
    texts = [r[0] for r in server.sql("SELECT query FROM pg_stat_statements WHERE query ~ 'lg'")]
    assert "CREATE STREAM lg (rowtime timestamptz, a int) /* my stream */" in texts
    assert "SELECT a, count(*) FROM lg WHERE a > $1 WINDOWED BY TUMBLING (INTERVAL '2' MINUTE) GROUP BY a" in texts
    assert not [t for t in texts if "kda_storage" in t]


# ---- where a query begins

def test_latest_means_the_snapshot_of_create(server):
    """Rows of every transaction that has not committed when CREATE runs, its own included; none that had."""
    server.sql("CREATE STREAM st (v int)")
    server.sql("INSERT INTO st VALUES (1)")
    other = server.connect(autocommit=False)
    other.cursor().execute("INSERT INTO st VALUES (2)")
    server.sql("BEGIN; INSERT INTO st VALUES (4); CREATE CONTINUOUS VIEW st1 AS SELECT sum(v) s FROM st; INSERT INTO st VALUES (8); COMMIT")
    assert server.value("SELECT kda.wait('st')") and server.value("SELECT s FROM st1") == 12
    other.commit()
    assert server.value("SELECT kda.wait('st')") and server.value("SELECT s FROM st1") == 14
    # the same for a further query of a running stream
    other.cursor().execute("INSERT INTO st VALUES (32)")
    server.sql("CREATE CONTINUOUS VIEW st2 AS SELECT sum(v) s FROM st")
    other.commit()
    server.sql("INSERT INTO st VALUES (64)")
    assert server.value("SELECT kda.wait('st')")
    assert (server.value("SELECT s FROM st1"), server.value("SELECT s FROM st2")) == (110, 96)
    for start in ("earliest", "trim_horizon", "2026-01-01"):
        e = error(server, "CREATE CONTINUOUS VIEW st3 WITH (start = '%s') AS SELECT sum(v) s FROM st" % start)
        assert e.pgcode == "0A000" and "latest" in e.diag.message_hint


def test_rows_committed_while_create_is_under_way_count(server):
    """CREATE has run but not committed; records that the worker has read by then are processed again with the new query."""
    server.sql("CREATE STREAM un (v int); CREATE CONTINUOUS VIEW un1 AS SELECT count(*) n FROM un")
    server.sql("INSERT INTO un VALUES (1)")
    assert server.value("SELECT kda.wait('un')")
    creator = server.connect(autocommit=False)
    creator.cursor().execute("CREATE CONTINUOUS VIEW un2 AS SELECT count(*) n FROM un")
    for _ in range(5):
        server.sql("INSERT INTO un VALUES (1)")
    wait_until(lambda: server.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = ANY (%s)", server.workers()) > 0 or
               server.value("SELECT last_error IS NOT NULL FROM kda.workers WHERE kind = 'pipeline' LIMIT 1"), "the worker to meet the uncommitted CREATE")
    creator.commit()
    server.sql("INSERT INTO un VALUES (1)")
    assert server.value("SELECT kda.wait('un')")
    assert (server.value("SELECT n FROM un1"), server.value("SELECT n FROM un2")) == (7, 6)


def test_queries_created_at_once_see_the_same(server):
    """Many sessions create queries while rows pour in: each query has all rows from its snapshot on."""
    server.sql("CREATE STREAM rc (v int); CREATE CONTINUOUS VIEW rc_all AS SELECT count(*) n FROM rc")
    stop = threading.Event()
    inserted = [0]

    def pour():
        conn = server.connect()
        cur = conn.cursor()
        while not stop.is_set():
            cur.execute("INSERT INTO rc VALUES (1)")
            inserted[0] += 1
        conn.close()
    writer = threading.Thread(target=pour)
    writer.start()
    seen = []
    try:
        for i in range(12):
            conn = server.connect(autocommit=False)
            cur = conn.cursor()
            cur.execute("CREATE CONTINUOUS VIEW rc_%d AS SELECT count(*) n FROM rc" % i)
            # what this snapshot sees is what the query does not count; one writer commits in order
            cur.execute("SELECT count(*) FROM rc")
            seen.append(cur.fetchone()[0])
            conn.commit()
            conn.close()
    finally:
        stop.set()
        writer.join()
    assert server.value("SELECT kda.wait('rc')")
    assert server.value("SELECT n FROM rc_all") == inserted[0]
    for i, before in enumerate(seen):
        n = server.value("SELECT n FROM rc_%d" % i)
        # rows may have come between CREATE's snapshot and our count of them
        assert n >= inserted[0] - before, (i, n, inserted[0], before)


def test_a_first_query_begins_anew(server):
    server.sql("CREATE STREAM fq (v int) OPTIONS (start 'earliest'); INSERT INTO fq VALUES (1), (2)")
    server.sql("CREATE CONTINUOUS VIEW fq1 AS SELECT sum(v) s FROM fq")
    assert server.value("SELECT kda.wait('fq')") and server.value("SELECT s FROM fq1") == 3
    server.sql("DROP CONTINUOUS VIEW fq1; INSERT INTO fq VALUES (4)")
    server.sql("CREATE CONTINUOUS VIEW fq2 AS SELECT sum(v) s FROM fq")
    assert server.value("SELECT kda.wait('fq')") and server.value("SELECT s FROM fq2") == 7
    server.sql("BEGIN; CREATE CONTINUOUS VIEW fq3 WITH (start = 'latest') AS SELECT sum(v) s FROM fq; ROLLBACK; INSERT INTO fq VALUES (8)")
    assert server.value("SELECT kda.wait('fq')") and server.value("SELECT s FROM fq2") == 15


def test_complete_from_and_stopped(server):
    server.sql("CREATE STREAM cf (rowtime timestamptz, v int); INSERT INTO cf VALUES ('2026-01-01 10:30+00', 1)")
    server.sql("CREATE TABLE cft (v int)")
    server.sql("BEGIN; CREATE CONTINUOUS VIEW cf1 WITH (start = 'earliest') AS SELECT count(*) n FROM cf WINDOWED BY TUMBLING (INTERVAL '1' HOUR); "
               "CREATE PUMP cfp STOPPED AS INSERT INTO cft SELECT v FROM cf; COMMIT")
    assert server.value("SELECT kda.wait('cf')")
    server.sql("CREATE CONTINUOUS VIEW cf2 AS SELECT count(*) n FROM cf WINDOWED BY TUMBLING (INTERVAL '1' HOUR)")
    server.sql("INSERT INTO cf VALUES ('2026-01-01 10:31+00', 1), ('2026-01-01 11:31+00', 1)")
    assert server.value("SELECT kda.wait('cf')")
    assert server.sql("SELECT name, state, complete_from::text FROM kda.queries WHERE name ~ '^cf' ORDER BY 1") == [
        ("cf1", "running", None), ("cf2", "running", "2026-01-01 11:00:00+00"), ("cfp", "stopped", "infinity")]
    assert server.value("SELECT count(*) FROM cft") == 0
    for text in ("ALTER PUMP cfp START", "ALTER PUMP cfp START FROM 'latest'", "ALTER CONTINUOUS VIEW cf1 STOP", "ALTER CONTINUOUS VIEW cf1 RESTART"):
        e = error(server, text)
        assert e.pgcode == "0A000" and e.diag.message_hint
    # what is not there, or is something else, is said first
    assert error(server, "ALTER PUMP nosuch START").pgcode == "42P01"
    assert error(server, "ALTER PUMP cf1 START").pgcode == "42809"


# ---- dumps

def run(server, *args, stdin=None):
    done = subprocess.run([os.path.join(BINDIR, args[0]), "-h", server.sockets, "-p", str(server.port), "-U", "postgres", *args[1:]],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, input=stdin)
    assert done.returncode == 0, done.stderr
    return done


SHOW = ('SELECT * FROM "V w" ORDER BY 1, 3', "SELECT * FROM g ORDER BY k", "SELECT * FROM tot", "SELECT * FROM rws ORDER BY v", "SELECT * FROM over_v ORDER BY 1",
        "SELECT * FROM t ORDER BY k", "SELECT name, kind, state, owner::text, definition FROM kda.queries ORDER BY 1", "SELECT stream::text, state FROM kda.streams ORDER BY 1",
        "SELECT relowner::regrole::text, count(*) FROM pg_class WHERE relnamespace = 'kda_storage'::regnamespace AND relname ~ '_[0-9]+[ab]?$' GROUP BY 1 ORDER BY 1",
        """SELECT obj_description('"V w"'::regclass), obj_description('s'::regclass), has_table_privilege('kda_other', '"V w"', 'SELECT')""")


def fill(server, db):
    server.sql("CREATE DATABASE " + db)
    for role in ("kda_dumper", "kda_other"):
        if not server.value("SELECT count(*) FROM pg_roles WHERE rolname = %s", role):
            server.sql("CREATE ROLE " + role)
    server.sql("CREATE EXTENSION kda_stream; GRANT CREATE ON SCHEMA public TO kda_dumper", dbname=db)
    server.sql("""
        SET ROLE kda_dumper;
        CREATE STREAM s (rowtime timestamptz, k text, v int) OPTIONS (watermark '1 s') DESCRIPTION 'd';
        CREATE STREAM o (rowtime timestamptz, k text, n bigint);
        CREATE TABLE t (k text PRIMARY KEY, n bigint);
        CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
        CREATE TYPE mood AS ENUM ('a', 'b');
        CREATE CONTINUOUS VIEW "V w" WITH (retention = '30 days') AS SELECT k, count(*) n, avg(f(v)) a, max('a'::mood) m FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
        CREATE INDEX ON "V w" (k);
        GRANT SELECT ON "V w" TO kda_other;
        COMMENT ON VIEW "V w" IS 'c';
        CREATE CONTINUOUS VIEW g AS SELECT k, avg(v) a, stddev(v::bigint) sd FROM s GROUP BY k;
        CREATE CONTINUOUS VIEW tot AS SELECT count(*) n FROM s;
        CREATE CONTINUOUS VIEW rws AS SELECT k, v FROM s WHERE v > 1;
        CREATE PUMP p AS INSERT INTO o (k, n) SELECT k, count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
        CREATE PUMP pt AS INSERT INTO t SELECT k, sum(n) FROM o GROUP BY k ON CONFLICT (k) DO UPDATE SET n = EXCLUDED.n;
        CREATE PUMP ps STOPPED AS INSERT INTO t SELECT k, 1 FROM s;
        CREATE VIEW over_v AS SELECT * FROM "V w" WHERE n > 1;
        INSERT INTO s VALUES ('2026-01-01 00:00:00+00', 'a', 1), ('2026-01-01 00:00:30+00', 'a', 2), ('2026-01-01 00:01:10+00', 'b', 3);
        """, dbname=db)
    assert server.value("SELECT kda.wait('s')", dbname=db)


def shown(server, db):
    return [server.sql(q, dbname=db) for q in SHOW]


def goes_on(server, db):
    server.sql("INSERT INTO s VALUES ('2026-01-01 00:02:30+00', 'a', 1)", dbname=db)
    assert server.value("SELECT kda.wait('s')", dbname=db)
    assert server.value("SELECT n FROM tot", dbname=db) == 4
    assert server.sql("SELECT k, n FROM t ORDER BY k", dbname=db) == [("a", 2), ("b", 1)]
    # and its parts go with it
    server.sql('DROP STREAM s, o CASCADE', dbname=db)
    assert server.value("SELECT count(*) FROM kda.queries", dbname=db) == 0
    assert server.value(r"SELECT count(*) FROM pg_class WHERE relnamespace = 'kda_storage'::regnamespace AND relname ~ '_\d+[ab]?$'", dbname=db) == 0


def test_dump_in_parallel_and_over_itself(server):
    fill(server, "d_orig")
    before = shown(server, "d_orig")
    folder = os.path.join(WORK, "contract.dump")
    run(server, "pg_dump", "-Fd", "-j2", "-f", folder, "d_orig")
    server.sql("CREATE DATABASE d_dir")
    run(server, "pg_restore", "-j2", "--exit-on-error", "-d", "d_dir", folder)
    assert shown(server, "d_dir") == before
    # --clean drops what it makes again, whether or not the worker has tied the parts of queries to them meanwhile
    dump = run(server, "pg_dump", "--clean", "--if-exists", "d_orig").stdout
    for tied in (False, True):
        if tied:
            assert server.value("SELECT kda.wait('s')", dbname="d_dir")
        run(server, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "d_dir", stdin=dump)
        assert shown(server, "d_dir") == before
    goes_on(server, "d_dir")
    for db in ("d_orig", "d_dir"):
        server.sql("DROP DATABASE " + db)


def test_dump_of_the_schema_alone(server):
    """Streams and tables come back; queries are rows of the extension's catalog, which is data: they are created anew."""
    fill(server, "d_schema")
    dump = run(server, "pg_dump", "--schema-only", "d_schema").stdout
    server.sql("CREATE DATABASE d_empty")
    run(server, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "d_empty", stdin=dump)
    definition = server.value("SELECT kda.definition('tot')", dbname="d_schema")
    server.sql('DROP VIEW tot; ' + definition + "; INSERT INTO s VALUES (now(), 'x', 1)", dbname="d_empty")
    assert server.value("SELECT kda.wait('s')", dbname="d_empty") and server.value("SELECT n FROM tot", dbname="d_empty") == 1
    for db in ("d_schema", "d_empty"):
        server.sql("DROP DATABASE " + db)


# ---- what a look at a stream says

def notices(conn, text):
    del conn.notices[:]
    cur = conn.cursor()
    cur.execute(text)
    rows = cur.fetchall() if cur.description else None
    return rows, "".join(conn.notices)


def test_notices_of_source_streams(kafka):
    primary = Postgres("contract_primary", ["kda_stream.commit_interval = '20ms'", "wal_level = replica", "max_wal_senders = 4"])
    with open(primary.data + "/pg_hba.conf", "a") as f:
        f.write("local replication all trust\n")
    primary.start()
    primary.sql("CREATE EXTENSION kda_stream")
    kafka.create_topic("t_notice", 1)
    kafka.produce("t_notice", [{"v": i} for i in range(3)])
    primary.sql("""CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '%s')""" % kafka.address)
    conn = primary.connect()
    notices(conn, "CREATE STREAM src (v int) SERVER msk OPTIONS (topic 't_notice')")
    rows, text = notices(conn, "SELECT * FROM src")
    assert rows == [] and "not being read" in text and "kda.sample('public.src')" in text
    # the first query at the end of the topic says what it leaves out; one at its beginning leaves nothing out
    _, text = notices(conn, "CREATE CONTINUOUS VIEW latest AS SELECT count(*) n FROM src")
    assert "not counted" in text and "earliest" in text
    primary.sql("DROP CONTINUOUS VIEW latest")
    _, text = notices(conn, "CREATE CONTINUOUS VIEW v WITH (start = 'earliest') AS SELECT count(*) n FROM src")
    assert text == ""
    assert primary.value("SELECT kda.wait('src')") and primary.value("SELECT n FROM v") == 3
    rows, text = notices(conn, "SELECT v FROM src ORDER BY v")
    assert rows == [(0,), (1,), (2,)] and text == ""
    # a rename keeps the topic
    primary.sql("ALTER STREAM src RENAME TO source")
    assert primary.value("SELECT ftoptions FROM pg_foreign_table") == ["topic=t_notice"]
    primary.sql("CREATE STREAM t_default (v int) SERVER msk; ALTER STREAM t_default RENAME TO t_other")
    assert primary.value("SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 't_other'::regclass") == ["topic=t_default"]
    _, text = notices(conn, "ALTER STREAM t_other RENAME COLUMN v TO w")
    assert "path '$.v'" in text
    conn.close()

    standby = Postgres("contract_standby", initdb=False)
    run(primary, "pg_basebackup", "-D", standby.data, "-R", "-c", "fast")
    standby.configure(["hot_standby = on"])
    with open(standby.data + "/postgresql.auto.conf", "a") as f:
        f.write("port = %d\nunix_socket_directories = '%s'\n" % (standby.port, standby.sockets))
    standby.start()
    conn = standby.connect()
    rows, text = notices(conn, "SELECT * FROM source")
    assert rows == [] and "standby" in text
    assert standby.value("SELECT n FROM v") == 3
    conn.close()
    standby.destroy()

    primary.crash()
    primary.start()
    conn = primary.connect()
    rows, text = notices(conn, "SELECT * FROM source")
    assert rows == [] and "is empty" in text
    assert primary.value("SELECT n FROM v") == 3
    conn.close()
    primary.destroy()
