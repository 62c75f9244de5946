"""Dump and restore, copies, standby, switches: what an administrator does."""
import os
import subprocess
import time

import psycopg2
import pytest
from harness import BINDIR, WORK, Postgres, free_port, note_pid, wait_until


def run(server, *args, **kwargs):
    return subprocess.run([os.path.join(BINDIR, args[0]), "-h", server.sockets, "-p", str(server.port), "-U", "postgres", *args[1:]],
                          check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


def fill(server, kafka, topic, dbname):
    server.sql("CREATE EXTENSION kda_stream", dbname=dbname)
    server.sql("""CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '%s')""" % kafka.address, dbname=dbname)
    kafka.create_topic(topic, 2)
    server.sql("""
        CREATE STREAM outside (k text, v int) SERVER msk OPTIONS (topic '%s', start 'earliest');
        CREATE STREAM inside (rowtime timestamptz, k text, v int);
        CREATE STREAM derived (rowtime timestamptz, k text, n bigint);
        CREATE TABLE target (k text, v int);
        CREATE CONTINUOUS VIEW outside_v AS SELECT k, sum(v) s FROM outside GROUP BY k;
        CREATE CONTINUOUS VIEW inside_v AS SELECT k, sum(v) s FROM inside WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
        CREATE PUMP pump AS INSERT INTO derived SELECT window_end, k, count(*) FROM inside WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
        CREATE PUMP pump2 AS INSERT INTO target SELECT k, v FROM inside;
        CREATE CONTINUOUS VIEW derived_v AS SELECT k, sum(n) s FROM derived GROUP BY k;
        CREATE INDEX ON inside_v (k);
        COMMENT ON VIEW inside_v IS 'a comment';
        """ % topic, dbname=dbname)
    kafka.produce(topic, [{"k": "ab"[i % 2], "v": i} for i in range(100)])
    server.sql("INSERT INTO inside VALUES ('2026-01-01 10:00:00+00', 'a', 1), ('2026-01-01 10:01:00+00', 'a', 2), ('2026-01-01 10:02:00+00', 'b', 3)", dbname=dbname)
    assert server.value("SELECT kda.wait('outside')", dbname=dbname) and server.value("SELECT kda.wait('inside')", dbname=dbname)


def state(server, dbname):
    return [server.sql(q, dbname=dbname) for q in (
        "SELECT k, s FROM outside_v ORDER BY 1", "SELECT window_start, k, s FROM inside_v ORDER BY 1, 2",
        "SELECT k, s FROM derived_v ORDER BY 1", "SELECT k, v FROM target ORDER BY 1, 2")]


@pytest.mark.parametrize("format", ["plain", "custom"])
def test_dump_and_restore(server, kafka, format):
    db, copy, topic = "orig_" + format, "copy_" + format, "t_dump_" + format
    server.sql("CREATE DATABASE " + db)
    fill(server, kafka, topic, db)
    before = state(server, db)
    dump = os.path.join(WORK, "dump." + format)
    run(server, "pg_dump", "-F", format, "-f", dump, db)
    server.sql("CREATE DATABASE " + copy)
    if format == "plain":
        run(server, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump, copy)
    else:
        run(server, "pg_restore", "--exit-on-error", "-j", "2", "-d", copy, dump)
    assert state(server, copy) == before
    assert server.value("SELECT obj_description('inside_v'::regclass)", dbname=copy) == "a comment"

    # database streams go on at the first row; what reads from outside is paused
    server.sql("INSERT INTO inside VALUES ('2026-01-01 10:02:30+00', 'b', 4), ('2026-01-01 10:03:00+00', 'b', 5)", dbname=copy)
    assert server.value("SELECT kda.wait('inside')", dbname=copy)
    kafka.produce(topic, [{"k": "a", "v": 1000}])
    assert server.sql("SELECT state FROM kda.streams WHERE stream = 'outside'::regclass", dbname=copy) == [("paused",)]
    assert "restored or copied" in server.log_text()
    after = state(server, copy)
    assert after[0] == before[0]
    assert after[1][-2:] == [(r[0], r[1], s) for r, s in zip(after[1][-2:], (7, 5))]
    assert len(after[1]) == 4 and after[2] == [("a", 2), ("b", 2)] and after[3] == before[3] + [("b", 4), ("b", 5)]
    assert server.value("SELECT kda.resume_all()", dbname=copy) == 1
    assert server.value("SELECT kda.wait('outside')", dbname=copy)
    total = sum(s for _, s in before[0])
    assert server.value("SELECT sum(s) FROM outside_v", dbname=copy) == total + 1000
    # the original has gone its own way
    assert server.value("SELECT kda.wait('outside')", dbname=db)
    assert server.value("SELECT sum(s) FROM outside_v", dbname=db) == total + 1000

    # dependencies are as in the original
    with pytest.raises(psycopg2.Error):
        server.sql("DROP STREAM inside", dbname=copy)
    with pytest.raises(psycopg2.Error):
        server.sql("DROP TABLE target", dbname=copy)
    server.sql("DROP STREAM inside, outside, derived CASCADE", dbname=copy)
    assert server.value("SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
                        r"WHERE nspname = 'kda_storage' AND relname ~ '_\d+[ab]?$'", dbname=copy) == 0
    # DROP DATABASE is not kept from it by our workers
    server.sql("DROP DATABASE " + copy)
    server.sql("DROP DATABASE " + db)


def test_create_database_from_template_and_rename(server, kafka):
    server.sql("CREATE DATABASE tmpl")
    fill(server, kafka, "t_tmpl", "tmpl")
    server.sql("CREATE DATABASE cloned TEMPLATE tmpl")
    assert server.value("SELECT kda.wait('inside')", dbname="tmpl")
    assert server.value("SELECT kda.resume_all()", dbname="cloned") == 1
    server.sql("INSERT INTO inside VALUES ('2026-01-01 10:05:00+00', 'z', 9)", dbname="cloned")
    assert server.value("SELECT kda.wait('inside')", dbname="cloned")
    assert server.value("SELECT s FROM inside_v WHERE k = 'z'", dbname="cloned") == 9
    assert server.value("SELECT count(*) FROM inside_v WHERE k = 'z'", dbname="tmpl") == 0
    server.sql("ALTER DATABASE cloned RENAME TO renamed")
    server.sql("INSERT INTO inside VALUES ('2026-01-01 10:05:00+00', 'z', 1)", dbname="renamed")
    assert server.value("SELECT kda.wait('inside')", dbname="renamed")
    server.sql("DROP DATABASE renamed")
    server.sql("DROP DATABASE tmpl")


def test_drop_extension_stops_the_workers(server, kafka):
    server.sql("CREATE DATABASE dropped")
    fill(server, kafka, "t_dropped", "dropped")
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'dropped' AND backend_type = 'kda_stream worker'"
    assert server.value(count) == 1
    server.sql("DROP EXTENSION kda_stream CASCADE", dbname="dropped")
    wait_until(lambda: server.value(count) == 0, "the worker to end")
    assert server.value("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'kda%'", dbname="dropped") == 0
    server.sql("CREATE EXTENSION kda_stream; CREATE STREAM s (v int); CREATE CONTINUOUS VIEW v AS SELECT sum(v) s FROM s", dbname="dropped")
    server.sql("INSERT INTO s VALUES (1)", dbname="dropped")
    assert server.value("SELECT kda.wait('s')", dbname="dropped")
    assert server.value("SELECT s FROM v", dbname="dropped") == 1
    server.sql("DROP DATABASE dropped")


def test_enabled_off_and_databases(server):
    server.sql("CREATE STREAM switch (v int); CREATE CONTINUOUS VIEW switch_v AS SELECT count(*) n FROM switch")
    server.sql("INSERT INTO switch VALUES (1)")
    assert server.value("SELECT kda.wait('switch')")
    for setting in ("kda_stream.enabled = off", "kda_stream.databases = 'elsewhere'"):
        server.sql("ALTER SYSTEM SET " + setting)
        server.sql("SELECT pg_reload_conf()")
        wait_until(lambda: not server.workers(), "the worker to stop")
        server.sql("INSERT INTO switch VALUES (1)")
        assert not server.value("SELECT kda.wait('switch', '300 ms')")
        server.sql("ALTER SYSTEM RESET " + setting.split(" ")[0])
        server.sql("SELECT pg_reload_conf()")
        assert server.value("SELECT kda.wait('switch')")
    assert server.value("SELECT n FROM switch_v") == 3


def test_workers_of_their_own(server):
    server.sql("CREATE STREAM w1 (v int) OPTIONS (worker 'second'); CREATE CONTINUOUS VIEW w1_v AS SELECT count(*) n FROM w1")
    server.sql("INSERT INTO w1 VALUES (1)")
    assert server.value("SELECT kda.wait('w1')")
    assert server.value("SELECT n FROM w1_v") == 1
    names = "SELECT array_agg(application_name) FROM pg_stat_activity WHERE backend_type = 'kda_stream worker'"
    assert "kda_stream second" in server.value(names)
    with pytest.raises(psycopg2.Error) as e:
        server.sql("CREATE STREAM w2 (v int); CREATE PUMP wp AS INSERT INTO w2 SELECT v FROM w1")
    assert "worker" in str(e.value)
    server.sql("DROP STREAM w1 CASCADE")
    wait_until(lambda: "kda_stream second" not in (server.value(names) or []), "the second worker to end")


def test_standby_shows_views(server):
    """A hot standby shows open and closed windows; after promotion its workers start."""
    primary = Postgres("primary", ["kda_stream.commit_interval = '20ms'", "wal_level = replica", "max_wal_senders = 4"])
    with open(primary.data + "/pg_hba.conf", "a") as f:
        f.write("local replication all trust\n")
    primary.start()
    primary.sql("CREATE EXTENSION kda_stream")
    primary.sql("CREATE STREAM s (rowtime timestamptz, k text); CREATE CONTINUOUS VIEW v AS SELECT k, count(*) n FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k")
    standby = Postgres("standby", initdb=False)
    run(primary, "pg_basebackup", "-D", standby.data, "-R", "-c", "fast")
    standby.configure(["hot_standby = on"])
    with open(standby.data + "/postgresql.auto.conf", "a") as f:
        f.write("port = %d\nunix_socket_directories = '%s'\n" % (standby.port, standby.sockets))
    standby.start()
    primary.sql("INSERT INTO s VALUES ('2026-01-01 10:00:00+00', 'a'), ('2026-01-01 10:01:00+00', 'a')")
    assert primary.value("SELECT kda.wait('s')")
    wait_until(lambda: standby.sql("SELECT k, n FROM v") == [("a", 1), ("a", 1)], "the standby to follow")
    assert standby.workers() == []
    with pytest.raises(psycopg2.Error) as e:
        standby.sql("CREATE STREAM x (a int)")
    assert "read-only" in str(e.value) or "recovery" in str(e.value)
    primary.stop("fast")
    standby.sql("SELECT pg_promote()")
    standby.sql("INSERT INTO s VALUES ('2026-01-01 10:01:30+00', 'a')")
    assert standby.value("SELECT kda.wait('s')")
    assert sorted(r[0] for r in standby.sql("SELECT n FROM v")) == [1, 2]
    standby.check_sane()
    standby.destroy()
    primary.destroy()


def test_not_preloaded_says_what_to_do():
    pg = Postgres("bare")
    pg.configure(["shared_preload_libraries = ''"])
    pg.start()
    with pytest.raises(psycopg2.Error) as e:
        pg.sql("CREATE EXTENSION kda_stream")
    assert "shared_preload_libraries" in str(e.value)
    pg.destroy()


def test_extended_protocol(server):
    """Prepared and parameterized statements through the extended protocol."""
    server.sql("CREATE STREAM ext (rowtime timestamptz, k text, v int)")
    script = os.path.join(WORK, "extended.sql")
    with open(script, "w") as f:
        f.write("CREATE OR REPLACE CONTINUOUS VIEW ext_v AS SELECT k, count(*) n FROM ext WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;\n"
                "\\set k 7\nINSERT INTO ext VALUES ('2026-01-01', 'k' || :k, :k);\n"
                "SELECT k, count(*) FROM ext WHERE v = :k WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;\n")
    for mode in ("simple", "extended", "prepared"):
        run(server, "pgbench", "-n", "-M", mode, "-t", "2", "-f", script, "postgres")
    assert server.value("SELECT kda.wait('ext')")
    assert server.sql("SELECT k, n FROM ext_v") == [("k7", 6)]
