"""The worker's life: locks, failures of every class, its processes, its bounds."""
import os
import signal
import threading
import time

import psycopg2
import pytest
from harness import LONG, Postgres, alive, wait_until

SETTINGS = ["kda_stream.retry_max_interval = '1s'"]

ROWS = "INSERT INTO %s SELECT timestamptz '2026-01-01 10:00:00+00' + i * interval '1 s', i %% 10, 1 FROM generate_series(1, %d) i"


def worker(server, column, name="kda_stream worker main of postgres"):
    return server.value("SELECT " + column + " FROM kda.workers WHERE kind = 'pipeline' AND slot = 0")


def storage(server, what, query):
    return server.value("SELECT %s::text FROM kda_storage.query WHERE rel = '%s'::regclass" % (what, query))


@pytest.fixture
def session(server):
    """A session whose transaction goes on until the test ends it."""
    conn = server.connect(autocommit=False)
    yield conn
    conn.close()


@pytest.fixture
def joined(server):
    """A stream with a joined table, a view, and a pump into a table."""
    server.sql("DROP STREAM IF EXISTS j CASCADE; DROP TABLE IF EXISTS names, sink CASCADE")
    server.sql("CREATE STREAM j (rowtime timestamptz, k int, v int); CREATE TABLE names (k int PRIMARY KEY, name text); CREATE TABLE sink (k int, v int)")
    server.sql("INSERT INTO names SELECT i, 'n' || i FROM generate_series(0, 9) i")
    server.sql("CREATE CONTINUOUS VIEW j_v AS SELECT name, count(*) n FROM j JOIN names USING (k) GROUP BY name")
    server.sql("CREATE CONTINUOUS VIEW j_all AS SELECT count(*) n FROM j")
    server.sql("CREATE PUMP j_p AS INSERT INTO sink SELECT k, v FROM j")
    server.sql(ROWS % ("j", 10))
    assert server.value("SELECT kda.wait('j')")
    return server


LOCKS = {
    "state": "LOCK TABLE {open} IN ACCESS EXCLUSIVE MODE",
    "progress": "LOCK TABLE kda_storage.query_progress IN ACCESS EXCLUSIVE MODE",
    "joined": "LOCK TABLE names IN ACCESS EXCLUSIVE MODE",
    "index": "LOCK TABLE names IN SHARE MODE; REINDEX INDEX names_pkey",
    "target": "LOCK TABLE sink IN SHARE MODE",
    "stream": "ALTER FOREIGN TABLE j ALTER COLUMN v SET STATISTICS 10; ALTER FOREIGN TABLE j ADD COLUMN x int",
    "view": "ALTER VIEW j_v SET (security_barrier = true)",
    "segment": "LOCK TABLE {inbox} IN ACCESS EXCLUSIVE MODE",
}


@pytest.mark.parametrize("what", LOCKS)
def test_a_lock_is_waited_for_in_an_empty_transaction(joined, session, what):
    server, holder = joined, session
    pid = worker(server, "pid")
    cur = holder.cursor()
    server.sql(ROWS % ("j", 10))        # on their way when the lock comes, or not
    cur.execute(LOCKS[what].format(open=storage(server, "open", "j_v"),
                                   inbox=server.value("SELECT inbox::text FROM kda_storage.stream WHERE rel = 'j'::regclass")))
    if what not in ("stream", "segment"):
        server.sql(ROWS % ("j", 10))
    else:
        # who holds it is the one who inserts
        cur.execute(ROWS % ("j", 10) if what == "segment" else "SELECT 1")
        server.sql("CREATE STREAM IF NOT EXISTS other (v int); INSERT INTO other VALUES (1)")
    if what == "view":
        # the view that users read is no part of a batch
        assert server.value("SELECT kda.wait('j')")
        holder.rollback()
    else:
        wait_until(lambda: worker(server, "waiting_for"), "the wait to be seen", 10)
        assert worker(server, "blocked_by") == [holder.info.backend_pid]
        assert worker(server, "state") == "running"
        name = {"state": storage(server, "open", "j_v"), "progress": "kda_storage.query_progress", "joined": "public.names",
                "index": "names", "target": "public.sink", "stream": "public.j"}.get(what, "kda_storage")
        assert name in worker(server, "waiting_for") and name in worker(server, "last_error")
        assert server.sql("SELECT wait_event_type, wait_event, backend_xmin, backend_xid FROM pg_stat_activity WHERE pid = %s", pid) == [
            ("Lock", "relation", None, None)]
        assert server.value("SELECT count(*) FROM pg_locks WHERE pid = %s AND granted AND locktype = 'relation'", pid) == 0
        holder.commit()
    assert server.value("SELECT kda.wait('j')")
    assert worker(server, "waiting_for") is None
    total = server.value("SELECT n FROM j_all")
    assert total == (20 if what == "stream" else 30)
    assert server.value("SELECT sum(n) FROM j_v") == total and server.value("SELECT count(*) FROM sink") == total
    assert worker(server, "pid") == pid


def test_no_user_loses_a_deadlock_to_a_worker(joined):
    """Sessions lock what a batch uses in all orders while batches run; none of them ever gets an error."""
    server = joined
    relations = ["names", "sink", storage(server, "open", "j_v"), storage(server, "open", "j_all"), "kda_storage.stream_progress"]
    stop = threading.Event()
    errors = []

    def lock(seed):
        import random
        r = random.Random(seed)
        conn = server.connect(autocommit=False)
        cur = conn.cursor()
        cur.execute("SET deadlock_timeout = '1s'")
        conn.commit()
        while not stop.is_set():
            # one at a time locks several, or two sessions would deadlock without us
            cur.execute("SELECT pg_advisory_xact_lock(1)")
            for rel in r.sample(relations, 2):
                cur.execute("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE" % rel)
                time.sleep(r.random() / 20)
            conn.commit()
            time.sleep(r.random() / 20)
        conn.close()

    def guarded(seed):
        try:
            lock(seed)
        except Exception as e:
            errors.append(e)
    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    end = time.monotonic() + (20 if LONG else 4)
    n = 10
    while time.monotonic() < end:
        server.sql(ROWS % ("j", 10))
        n += 10
    stop.set()
    for t in threads:
        t.join()
    assert errors == []
    assert server.value("SELECT kda.wait('j')")
    assert server.value("SELECT n FROM j_all") == n and server.value("SELECT count(*) FROM sink") == n


def test_a_row_that_somebody_has_locked_does_not_cost_him_his_transaction(server, session):
    """Locks on rows cannot be taken beforehand: the worker gives way before the user's deadlock_timeout."""
    server.sql("CREATE STREAM up (k int, v int); CREATE TABLE latest (k int PRIMARY KEY, v int)")
    server.sql("CREATE PUMP up_p AS INSERT INTO latest SELECT k, v FROM up ON CONFLICT (k) DO UPDATE SET v = excluded.v")
    server.sql("INSERT INTO up VALUES (1, 0), (2, 0)")
    assert server.value("SELECT kda.wait('up')")
    cur = session.cursor()
    cur.execute("UPDATE latest SET v = 100 WHERE k = 2")
    # the worker takes row 1, then wants row 2
    server.sql("INSERT INTO up VALUES (1, 1), (2, 1)")
    wait_until(lambda: server.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kda_stream worker' AND wait_event_type = 'Lock'"),
               "the worker to want the row", 10)
    cur.execute("UPDATE latest SET v = 100 WHERE k = 1")    # a deadlock now, if the worker stayed
    wait_until(lambda: "lock" in (worker(server, "last_error") or ""), "the worker to say so", 10)
    session.commit()
    assert server.value("SELECT kda.wait('up')")
    assert server.sql("SELECT k, v FROM latest ORDER BY k") == [(1, 1), (2, 1)]
    assert server.value("SELECT state FROM kda.queries WHERE name = 'up_p'") == "running"


def test_ddl_waits_for_no_longer_than_a_batch_and_loading_holds_nothing(joined, session):
    """A long transaction that has altered a stream: the worker waits with empty hands, other DDL goes on."""
    server = joined
    server.sql("CREATE STREAM IF NOT EXISTS free (v int)")
    session.cursor().execute("ALTER STREAM j ADD COLUMN later int")
    # makes the worker load its queries anew
    server.sql("CREATE CONTINUOUS VIEW free_v AS SELECT count(*) n FROM free")
    wait_until(lambda: "public.j" in (worker(server, "waiting_for") or ""), "the worker to wait", 10)
    server.sql("SET lock_timeout = '2s'; ALTER TABLE kda_storage.stream SET (fillfactor = 100)")
    session.commit()
    server.sql("INSERT INTO free VALUES (1)")
    assert server.value("SELECT kda.wait('free')") and server.value("SELECT n FROM free_v") == 1


# ------------------------------------------------------------ what a query's errors do

def state(server, query):
    return server.sql("SELECT state, last_error FROM kda.queries WHERE name = %s", query)[0]


def test_query_timeout_bounds_code_of_users(server):
    """A record whose evaluation takes too long is refused; a query that is always too slow fails; the others go on."""
    server.sql("CREATE STREAM slow (rowtime timestamptz, v int)")
    server.sql("CREATE FUNCTION nap(v int) RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN IF v = 1 THEN PERFORM pg_sleep(10); END IF; RETURN v; END $$")
    server.sql("CREATE CONTINUOUS VIEW slow_v AS SELECT count(nap(v)) n FROM slow")
    server.sql("CREATE CONTINUOUS VIEW slow_final AS SELECT nap(sum(v)::int) s FROM slow WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) EMIT ON WINDOW CLOSE")
    server.sql("CREATE CONTINUOUS VIEW slow_all AS SELECT count(*) n FROM slow")
    server.sql("ALTER SYSTEM SET kda_stream.query_timeout = '100ms'")
    server.sql("SELECT pg_reload_conf()")
    try:
        server.sql("INSERT INTO slow VALUES ('2026-01-01 10:00:00+00', 2), ('2026-01-01 10:01:00+00', 1), ('2026-01-01 10:02:00+00', 3), ('2026-01-01 10:03:00+00', 3)")
        assert server.value("SELECT kda.wait('slow')")
        assert server.sql("SELECT query::text, error_name, message FROM kda.error_stream WHERE stream = 'slow'::regclass ORDER BY 1") == [
            (q, "expression", "the query took longer than kda_stream.query_timeout (100 ms)") for q in ("slow_final", "slow_v")]
        assert server.value("SELECT n FROM slow_v") == 3 and server.value("SELECT n FROM slow_all") == 4
        assert server.sql("SELECT s FROM slow_final ORDER BY window_start") == [(2,), (3,)]
        server.sql("INSERT INTO slow SELECT '2026-01-01 10:04:00+00', 1 FROM generate_series(1, 100)")
        assert server.value("SELECT kda.wait('slow')")
        assert state(server, "slow_v")[0] == "failed" and "kda_stream.query_timeout" in state(server, "slow_v")[1]
        assert server.value("SELECT n FROM slow_all") == 104
    finally:
        server.sql("ALTER SYSTEM RESET kda_stream.query_timeout")
        server.sql("SELECT pg_reload_conf()")
    server.sql("DROP STREAM slow CASCADE")


@pytest.mark.parametrize("sqlstate", ["40001", "53200", "55P03", "58030", "08006", "57P01"])
def test_what_passes_by_itself_is_tried_again_unasked(server, sqlstate):
    """Nobody inserts or waits meanwhile: the worker comes back to the batch on its own."""
    server.sql("DROP STREAM IF EXISTS again CASCADE; DROP SEQUENCE IF EXISTS tries; CREATE SEQUENCE tries; CREATE STREAM again (v int)")
    server.sql("CREATE OR REPLACE FUNCTION third_time(v int) RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN "
               "IF nextval('public.tries') < 3 THEN RAISE EXCEPTION 'not yet' USING ERRCODE = '%s'; END IF; RETURN v; END $$" % sqlstate)
    server.sql("CREATE CONTINUOUS VIEW again_v AS SELECT sum(third_time(v)) s FROM again")
    server.sql("INSERT INTO again VALUES (7)")
    wait_until(lambda: server.sql("SELECT s FROM again_v") == [(7,)], "the third try", 8)
    assert server.value("SELECT last_value FROM tries") == 3
    assert worker(server, "last_error") == "not yet" and worker(server, "state") == "running"
    assert server.value("SELECT count(*) FROM kda.error_stream WHERE stream = 'again'::regclass") == 0


def test_deferred_constraints_of_a_target(server):
    server.sql("CREATE STREAM def (k int); CREATE TABLE parent (k int PRIMARY KEY); INSERT INTO parent VALUES (1)")
    refused = {
        "k int REFERENCES parent DEFERRABLE INITIALLY DEFERRED": "def_1_k_fkey",
        "k int, UNIQUE (k) DEFERRABLE INITIALLY DEFERRED": "def_1_k_key",
    }
    for columns, constraint in refused.items():
        server.sql("CREATE TABLE def_1 (%s)" % columns)
        with pytest.raises(psycopg2.errors.FeatureNotSupported) as e:
            server.sql("CREATE PUMP def_p AS INSERT INTO def_1 SELECT k FROM def")
        assert constraint in str(e.value) and "HINT" in str(e.value)
        server.sql("DROP TABLE def_1")
    # a partition's counts as well
    server.sql("CREATE TABLE def_1 (k int) PARTITION BY LIST (k); CREATE TABLE def_1_a PARTITION OF def_1 DEFAULT; "
               "ALTER TABLE def_1_a ADD FOREIGN KEY (k) REFERENCES parent DEFERRABLE INITIALLY DEFERRED")
    with pytest.raises(psycopg2.errors.FeatureNotSupported):
        server.sql("CREATE PUMP def_p AS INSERT INTO def_1 SELECT k FROM def")
    # deferrable, but not deferred: fires at once
    server.sql("DROP TABLE def_1; CREATE TABLE def_1 (k int REFERENCES parent DEFERRABLE)")
    server.sql("CREATE PUMP def_p AS INSERT INTO def_1 SELECT k FROM def")
    server.sql("INSERT INTO def VALUES (1), (2)")
    assert server.value("SELECT kda.wait('def')")
    assert server.sql("SELECT k FROM def_1") == [(1,)]
    assert server.value("SELECT count(*) FROM kda.error_stream WHERE query = 'def_p'::regclass AND error_name = 'rejected'") == 1
    # one that comes later stops the pump, and says what it is
    server.sql("ALTER TABLE def_1 ALTER CONSTRAINT def_1_k_fkey DEFERRABLE INITIALLY DEFERRED")
    server.sql("INSERT INTO def VALUES (1)")
    assert server.value("SELECT kda.wait('def')")
    assert state(server, "def_p")[0] == "failed" and "deferred trigger" in state(server, "def_p")[1]


REVOKED = {
    # what the owner loses, the query that needs it, what its error names
    "stream": ("REVOKE SELECT ON r FROM alice", "alice.plain", "permission denied for foreign table r"),
    "joined": ("REVOKE SELECT ON r_names FROM alice", "alice.with_names", "permission denied for table r_names"),
    "function": ("REVOKE EXECUTE ON FUNCTION r_twice(int) FROM alice", "alice.with_function", "permission denied for function r_twice"),
    "table": ("REVOKE INSERT ON r_sink FROM alice", "alice.into_table", "permission denied for table r_sink"),
    "target": ("REVOKE INSERT ON r_out FROM alice", "alice.into_stream", "permission denied for foreign table r_out"),
    "owner": ("ALTER VIEW alice.with_names OWNER TO bob", "alice.with_names", "permission denied for table r_names"),
}


@pytest.mark.parametrize("what", REVOKED)
def test_a_right_that_is_taken_away_stops_that_query_only(server, what):
    server.sql("DROP SCHEMA IF EXISTS alice CASCADE; DROP STREAM IF EXISTS r, r_out CASCADE; DROP TABLE IF EXISTS r_names, r_sink; DROP FUNCTION IF EXISTS r_twice")
    for role in ("alice", "bob"):
        if not server.value("SELECT count(*) FROM pg_roles WHERE rolname = %s", role):
            server.sql("CREATE ROLE %s LOGIN" % role)
    server.sql("CREATE SCHEMA alice AUTHORIZATION alice; GRANT CREATE, USAGE ON SCHEMA alice TO bob")
    server.sql("CREATE STREAM r (k int); CREATE STREAM r_out (k int); CREATE TABLE r_names (k int, name text); CREATE TABLE r_sink (k int)")
    server.sql("CREATE FUNCTION r_twice(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 2 * $1; END'; REVOKE ALL ON FUNCTION r_twice FROM PUBLIC; GRANT EXECUTE ON FUNCTION r_twice TO alice, bob")
    server.sql("GRANT SELECT ON r, r_names TO alice; GRANT INSERT ON r_out, r_sink TO alice; GRANT SELECT ON r TO bob; INSERT INTO r_names VALUES (1, 'one'), (2, 'two')")
    server.sql("CREATE CONTINUOUS VIEW alice.plain AS SELECT k, count(*) n FROM r GROUP BY k", user="alice")
    server.sql("CREATE CONTINUOUS VIEW alice.with_names AS SELECT name, count(*) n FROM r JOIN r_names USING (k) GROUP BY name", user="alice")
    server.sql("CREATE CONTINUOUS VIEW alice.with_function AS SELECT sum(r_twice(k)) s FROM r", user="alice")
    server.sql("CREATE PUMP alice.into_table AS INSERT INTO r_sink SELECT k FROM r", user="alice")
    server.sql("CREATE PUMP alice.into_stream AS INSERT INTO r_out SELECT k FROM r", user="alice")
    server.sql("CREATE CONTINUOUS VIEW r_v AS SELECT count(*) n FROM r")
    server.sql("INSERT INTO r VALUES (1), (2)")
    assert server.value("SELECT kda.wait('r')")
    assert server.sql("SELECT name, last_error FROM kda.queries WHERE name LIKE 'alice.%%' AND state <> 'running'") == []
    statement, query, message = REVOKED[what]
    server.sql(statement)
    server.sql("INSERT INTO r VALUES (1), (2)")
    assert server.value("SELECT kda.wait('r')")
    failed = server.sql("SELECT name, last_error FROM kda.queries WHERE state = 'failed' AND (name LIKE 'alice.%%' OR name = 'r_v') ORDER BY name")
    if what == "stream":
        assert [f[0] for f in failed] == ["alice.into_stream", "alice.into_table", "alice.plain", "alice.with_function", "alice.with_names"]
    else:
        assert [f[0] for f in failed] == [query], failed
    assert all(message in f[1] for f in failed), failed
    assert server.value("SELECT n FROM r_v") == 4
    assert server.sql("SELECT n FROM alice.plain WHERE k = 1") == [(1 if what == "stream" else 2,)]
    assert server.value("SELECT count(*) FROM r_sink") == (2 if what in ("stream", "table") else 4)
    assert server.value("SELECT state FROM kda.streams WHERE stream = 'r'::regclass") == "running"


def test_owner_changes_take_effect_at_the_next_batch(server):
    """Row level security of a joined table is the new owner's."""
    server.sql("DROP ROLE IF EXISTS carl, dora")
    server.sql("CREATE ROLE carl; CREATE ROLE dora; CREATE STREAM own (k int); CREATE TABLE seen (k int, who text); "
               "ALTER TABLE seen ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON seen USING (who = current_user); "
               "GRANT SELECT ON own, seen TO carl, dora; INSERT INTO seen VALUES (1, 'carl'), (2, 'dora'), (3, 'dora')")
    server.sql("GRANT CREATE ON SCHEMA public TO carl, dora")
    server.sql("CREATE CONTINUOUS VIEW own_v AS SELECT who, count(*) n FROM own JOIN seen USING (k) GROUP BY who")
    server.sql("ALTER VIEW own_v OWNER TO carl")
    server.sql("INSERT INTO own VALUES (1), (2), (3)")
    assert server.value("SELECT kda.wait('own')")
    assert server.sql("SELECT who, n FROM own_v") == [("carl", 1)]
    server.sql("ALTER VIEW own_v OWNER TO dora")
    server.sql("INSERT INTO own VALUES (1), (2), (3)")
    assert server.value("SELECT kda.wait('own')")
    assert server.sql("SELECT who, n FROM own_v ORDER BY who") == [("carl", 1), ("dora", 2)]
    server.sql("DROP STREAM own CASCADE; DROP TABLE seen")


def test_a_row_that_a_view_or_stream_cannot_take_is_refused_alone(server):
    server.sql("CREATE STREAM fit (v int); CREATE STREAM fit_out (c varchar(2))")
    server.sql("CREATE CONTINUOUS VIEW fit_v AS SELECT v FROM fit")
    server.sql("CREATE PUMP fit_p AS INSERT INTO fit_out SELECT v::text FROM fit")
    server.sql("CREATE CONTINUOUS VIEW fit_out_v AS SELECT c FROM fit_out")
    server.sql("CREATE INDEX ON fit_v ((100 / v))")
    for _ in range(2):
        server.sql("INSERT INTO fit VALUES (1), (0), (2), (1000), (3)")
        assert server.value("SELECT kda.wait('fit')")
    assert server.sql("SELECT v, count(*) FROM fit_v GROUP BY v ORDER BY v") == [(1, 2), (2, 2), (3, 2), (1000, 2)]
    assert server.sql("SELECT c, count(*) FROM fit_out_v GROUP BY c ORDER BY c") == [("0", 2), ("1", 2), ("2", 2), ("3", 2)]
    assert server.sql("SELECT query::text, error_name, message, count(*) FROM kda.error_stream WHERE stream = 'fit'::regclass GROUP BY 1, 2, 3 ORDER BY 1") == [
        ("fit_p", "rejected", "value too long for type character varying(2)", 2), ("fit_v", "rejected", "division by zero", 2)]
    assert server.sql("SELECT name FROM kda.queries WHERE name LIKE 'fit%%' AND state <> 'running'") == []


# ------------------------------------------------------------ processes

def launcher(server):
    return server.value("SELECT pid FROM kda.workers WHERE kind = 'launcher'")


def test_workers_outlive_their_launcher(joined):
    """A launcher that was ended finds running workers at its start: it neither doubles nor forgets them."""
    server = joined
    pid, old = worker(server, "pid"), launcher(server)
    server.sql("SELECT pg_terminate_backend(%s)", old)
    wait_until(lambda: launcher(server) not in (None, old), "the launcher to be back", 20)
    server.sql(ROWS % ("j", 10))
    assert server.value("SELECT kda.wait('j')")
    assert worker(server, "pid") == pid and server.value(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kda_stream worker'") == 1
    # and it cares for them
    server.sql("SELECT pg_terminate_backend(%s)", pid)
    wait_until(lambda: worker(server, "pid") not in (None, pid), "the worker to be started again", 20)
    assert worker(server, "restarts") >= 1
    assert server.value("SELECT kda.wait('j')") and server.value("SELECT n FROM j_all") == 20


def test_a_worker_that_waits_for_a_lock_ends_when_it_has_to(joined, session):
    server = joined
    session.cursor().execute("LOCK TABLE names IN ACCESS EXCLUSIVE MODE")
    server.sql(ROWS % ("j", 10))
    wait_until(lambda: worker(server, "waiting_for"), "the worker to wait", 10)
    server.sql("ALTER SYSTEM SET kda_stream.enabled = off")
    server.sql("SELECT pg_reload_conf()")
    wait_until(lambda: not server.workers(), "the worker to end", 10)
    server.sql("ALTER SYSTEM RESET kda_stream.enabled")
    server.sql("SELECT pg_reload_conf()")
    wait_until(lambda: worker(server, "waiting_for"), "the next one to wait", 10)
    session.commit()
    assert server.value("SELECT kda.wait('j')") and server.value("SELECT n FROM j_all") == 20


def test_database_statements_while_its_worker_waits_or_works(server):
    """DROP, RENAME, SET TABLESPACE and TEMPLATE find no worker in the way, whatever it does."""
    server.sql("CREATE DATABASE busy_db")
    server.sql("CREATE EXTENSION kda_stream", dbname="busy_db")
    server.sql("CREATE STREAM s (v int); CREATE FUNCTION nap(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep($1 / 10.0); RETURN $1; END' STABLE; "
               "CREATE CONTINUOUS VIEW v AS SELECT sum(nap(v)) s FROM s", dbname="busy_db")
    directory = os.path.join(server.dir, "elsewhere")
    os.makedirs(directory, exist_ok=True)
    server.sql("CREATE TABLESPACE elsewhere LOCATION '%s'" % directory)
    total = 0
    name = "busy_db"
    for statement, new in (("ALTER DATABASE busy_db RENAME TO busier", "busier"), ("ALTER DATABASE busier SET TABLESPACE elsewhere", "busier"),
                           ("CREATE DATABASE twin TEMPLATE busier", "busier")):
        server.sql("INSERT INTO s VALUES (20), (1)", dbname=name)
        total += 21
        time.sleep(0.1)         # the function sleeps
        begun = time.monotonic()
        server.sql(statement)
        assert time.monotonic() - begun < 5
        name = new
        wait_until(lambda: server.value("SELECT kda.wait('s')", dbname=name), "its rows", 30)
        assert server.value("SELECT s FROM v", dbname=name) == total
    # a statement that fails lets the worker back in
    with pytest.raises(psycopg2.Error):
        server.sql("ALTER DATABASE busier RENAME TO postgres")
    server.sql("INSERT INTO s VALUES (1)", dbname=name)
    assert server.value("SELECT kda.wait('s')", dbname=name)
    for db in ("twin", "busier"):
        server.sql("INSERT INTO s VALUES (20)", dbname=db)
        server.sql("DROP DATABASE " + db)
    server.sql("DROP TABLESPACE elsewhere")


def test_fast_shutdown_in_every_state(kafka):
    """Waiting for a lock, in a function of a user, backing off, without a broker: five seconds are enough."""
    pg = Postgres("shutdown", ["kda_stream.commit_interval = '20ms'"]).start()
    pg.sql("CREATE EXTENSION kda_stream; CREATE STREAM s (v int)")
    pg.sql("CREATE FUNCTION nap(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep($1); RETURN $1; END' STABLE")
    pg.sql("CREATE FUNCTION fail(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN IF $1 = 2 THEN RAISE SQLSTATE '40001'; END IF; RETURN $1; END $$ STABLE")
    pg.sql("CREATE CONTINUOUS VIEW v AS SELECT sum(v) s FROM s")

    def locked():
        conn = pg.connect(autocommit=False)
        conn.cursor().execute("LOCK TABLE kda_storage.shard IN ACCESS EXCLUSIVE MODE")
        pg.sql("INSERT INTO s VALUES (1)")
        wait_until(lambda: worker(pg, "waiting_for"), "the wait", 10)
        return conn

    def backing_off():
        pg.sql("CREATE CONTINUOUS VIEW f AS SELECT sum(fail(v)) s FROM s")
        pg.sql("INSERT INTO s VALUES (2)")
        wait_until(lambda: worker(pg, "state") == "backing off", "the failure", 10)

    def asleep():
        pg.sql("CREATE CONTINUOUS VIEW n AS SELECT sum(nap(1000 * v)) s FROM s")
        pg.sql("INSERT INTO s VALUES (1)")
        wait_until(lambda: pg.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kda_stream worker' AND wait_event = 'PgSleep'"), "the sleep", 10)

    def no_broker():
        pg.sql("DROP VIEW f")
        for i in range(5):
            pg.sql("""CREATE SERVER gone%d TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '127.0.0.1:%d');
                      CREATE STREAM gone%d (v int) SERVER gone%d; CREATE CONTINUOUS VIEW gone%d_v AS SELECT count(*) n FROM gone%d"""
                   % (i, 1 + i, i, i, i, i))
        wait_until(lambda: pg.value("SELECT count(*) FROM kda.streams WHERE stream::text LIKE 'gone%%' AND last_error IS NOT NULL") == 5, "all to say so", 60)
    for situation in (locked, backing_off, no_broker, asleep):
        keep = situation()
        assert pg.stop("fast") < 5, situation.__name__
        if keep:
            keep.close()
        pg.start()
    pg.check_sane()
    pg.destroy()


def test_more_workers_than_slots():
    """What waits for a slot is said at CREATE and in kda.workers, and gets one that becomes free."""
    pg = Postgres("slots", ["kda_stream.commit_interval = '20ms'", "kda_stream.max_workers = 2"]).start()
    pg.sql("CREATE EXTENSION kda_stream")
    conn = pg.connect()
    cur = conn.cursor()
    for name in ("a", "b", "c"):
        cur.execute("CREATE STREAM %s (v int) OPTIONS (worker '%s'); CREATE CONTINUOUS VIEW %s_v AS SELECT count(*) n FROM %s" % (name, name, name, name))
    notices = [n for n in conn.notices if "WARNING" in n]
    assert notices and "kda_stream.max_workers" in notices[-1], conn.notices
    conn.close()
    pg.sql("INSERT INTO a VALUES (1); INSERT INTO c VALUES (1), (2)")
    assert pg.value("SELECT kda.wait('a')")
    assert not pg.value("SELECT kda.wait('c', '100 ms')")
    assert pg.sql("SELECT slot, pid, state FROM kda.workers WHERE kind = 'pipeline' AND last_error LIKE '%%\"c\"%%kda_stream.max_workers%%'") == [(None, None, "starting")]
    pg.sql("DROP STREAM b CASCADE")
    assert pg.value("SELECT kda.wait('c')") and pg.value("SELECT n FROM c_v") == 2
    assert pg.value("SELECT count(*) FROM kda.workers WHERE kind = 'pipeline'") == 2
    pg.destroy()
    # none at all from core
    pg = Postgres("noslots", ["kda_stream.commit_interval = '20ms'", "max_worker_processes = 2"]).start()
    pg.sql("CREATE EXTENSION kda_stream; CREATE STREAM a (v int); CREATE CONTINUOUS VIEW a_v AS SELECT count(*) n FROM a")
    wait_until(lambda: "max_worker_processes" in (worker(pg, "last_error") or ""), "the reason to be shown", 20)
    pg.destroy()


def test_promoted_standby_goes_on_where_the_primary_stopped(kafka):
    """The primary is killed in the middle of a topic; the standby reads on from its own copy of the positions."""
    kafka.create_topic("t_promote", 2)
    primary = Postgres("promote_primary", ["kda_stream.commit_interval = '20ms'", "max_wal_senders = 4", "fsync = off"])
    with open(primary.data + "/pg_hba.conf", "a") as f:
        f.write("local replication all trust\n")
    primary.start()
    primary.sql("CREATE EXTENSION kda_stream")
    primary.sql("""CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '%s')""" % kafka.address)
    primary.sql("CREATE STREAM s (rowtime timestamptz OPTIONS (path '$.ts'), k int) SERVER msk OPTIONS (topic 't_promote', start 'earliest', max_ahead 'never', watermark '1 min')")
    primary.sql("CREATE CONTINUOUS VIEW v AS SELECT k, count(*) n FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k")
    primary.sql("CREATE TABLE t (k int); CREATE PUMP p AS INSERT INTO t SELECT k FROM s")
    standby = Postgres("promote_standby", initdb=False)
    import subprocess
    subprocess.run([primary.bindir + "/pg_basebackup", "-h", primary.sockets, "-p", str(primary.port), "-U", "postgres", "-D", standby.data, "-R", "-c", "fast"], check=True)
    standby.configure(["hot_standby = on"])
    with open(standby.data + "/postgresql.auto.conf", "a") as f:
        f.write("port = %d\nunix_socket_directories = '%s'\n" % (standby.port, standby.sockets))
    standby.start()

    def record(i):
        return {"ts": "2026-01-01T%02d:%02d:%02dZ" % (i // 3600, i // 60 % 60, i % 60), "k": i % 5}
    produced = 0
    for _ in range(10):
        kafka.produce("t_promote", [record(produced + i) for i in range(200)])
        produced += 200
    wait_until(lambda: standby.value("SELECT count(*) FROM t") > 0, "the standby to follow")
    kafka.produce("t_promote", [record(produced + i) for i in range(200)])
    produced += 200
    primary.crash()
    at = standby.value("SELECT count(*) FROM t")
    assert 0 < at <= produced and standby.workers() == []
    standby.sql("SELECT pg_promote()")
    kafka.produce("t_promote", [record(produced + i) for i in range(200)])
    produced += 200
    wait_until(lambda: standby.value("SELECT kda.wait('s', '2 s')"), "the new primary to read on", 60)
    assert standby.sql("SELECT k, count(*) FROM t GROUP BY k ORDER BY k") == [(k, produced // 5) for k in range(5)]
    assert standby.sql("SELECT k, sum(n) FROM v GROUP BY k ORDER BY k") == [(k, produced // 5) for k in range(5)]
    assert standby.value("SELECT count(*) FROM (SELECT window_start, k FROM v GROUP BY 1, 2 HAVING count(*) > 1) d") == 0
    standby.check_sane()
    standby.destroy()


# ------------------------------------------------------------ bounds

def resident_kb(pid):
    """Without shared memory, which fills as pages of shared_buffers are touched."""
    with open("/proc/%d/status" % pid) as f:
        return [int(line.split()[1]) for line in f if line.startswith("RssAnon")][0]


def test_memory_and_state_stay_where_they_are(server):
    """Thousands of small batches through every kind of query: neither the process nor its tables grow, updates stay in their pages."""
    server.sql("CREATE STREAM st (rowtime timestamptz, k int, v int) OPTIONS (retention '0'); CREATE STREAM st_out (k int, n bigint); CREATE TABLE st_sink (k int PRIMARY KEY, v int) WITH (fillfactor = 50)")
    server.sql("CREATE CONTINUOUS VIEW st_w WITH (retention = '1 min') AS SELECT k, count(*) n, avg(v) a FROM st WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k")
    server.sql("CREATE CONTINUOUS VIEW st_g AS SELECT k, count(*) n, sum(100 / v) s, max(v::text) m FROM st GROUP BY k")
    server.sql("CREATE PUMP st_p AS INSERT INTO st_out SELECT k, count(*) FROM st WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k")
    server.sql("CREATE CONTINUOUS VIEW st_out_v AS SELECT count(*) n, sum(n) s FROM st_out")
    server.sql("CREATE PUMP st_t AS INSERT INTO st_sink SELECT k, v FROM st ON CONFLICT (k) DO UPDATE SET v = excluded.v")
    conn = server.connect()
    cur = conn.cursor()
    batches = 20000 if LONG else 2500
    sizes, progress = [], []
    commits = worker(server, "commits")
    for i in range(batches):
        # one in a hundred is refused by st_g
        cur.execute("INSERT INTO st VALUES (timestamptz '2026-01-01' + %s * interval '0.1 s', %s, %s), (timestamptz '2026-01-01' + %s * interval '0.1 s', %s, 1)",
                    (i, i % 20, i % 100, i, (i + 1) % 20))
        if i % 20 == 0:
            cur.execute("SELECT kda.wait('st')")
        if i % 500 == 0:
            # as autovacuum would: the rows of closed windows are deleted
            cur.execute("VACUUM " + storage(server, "open", "st_w"))
        if i in (batches // 3, batches - 1):
            assert server.value("SELECT kda.wait('st')")
            sizes.append(resident_kb(worker(server, "pid")))
            progress.append(server.value("SELECT pg_total_relation_size('kda_storage.stream_progress') + pg_total_relation_size('kda_storage.query_progress')"))
    conn.close()
    assert server.value("SELECT sum(n) FROM st_w") <= 2 * batches
    assert server.value("SELECT sum(n) FROM st_g") == 2 * batches - batches // 100
    assert worker(server, "commits") - commits > batches // 20
    assert sizes[1] < sizes[0] * 1.05 + 2048, "the worker grew from %d to %d kB" % tuple(sizes)
    for view in ("st_g", "st_w"):
        table = storage(server, "open", view)
        assert server.value("SELECT pg_relation_size(%s::regclass)", table) < 256 * 1024, table
    server.sql("SELECT pg_stat_force_next_flush()")
    wait_until(lambda: server.sql("SELECT relname, n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE n_tup_upd > 100 AND n_tup_hot_upd < 0.9 * n_tup_upd "
                                  "AND (schemaname = 'kda_storage' OR relname = 'st_sink')") == [], "updates to be HOT", 10)
    assert progress[1] < progress[0] * 1.5, "the tables of progress grew from %d to %d bytes" % tuple(progress)
    server.sql("DROP STREAM st, st_out CASCADE")


def test_error_stream_is_bounded(server):
    """By size and age; what leaves is counted, what stays is the newest."""
    server.sql("CREATE STREAM eb (v int); CREATE CONTINUOUS VIEW eb_v AS SELECT sum(100 / v) s, count(*) n FROM eb")
    server.sql("TRUNCATE kda_storage.error; UPDATE kda_storage.forgotten SET errors = 0, bytes = 0")
    server.sql("ALTER SYSTEM SET kda_stream.error_stream_size = '64kB'")
    server.sql("SELECT pg_reload_conf()")
    try:
        for i in range(5):
            server.sql("INSERT INTO eb SELECT 0 FROM generate_series(1, 400)")
            assert server.value("SELECT kda.wait('eb', '60 s')")
            assert server.value("SELECT bytes <= 64 * 1024 FROM kda_storage.forgotten")
        n, forgotten, bytes, first, last = server.sql(
            "SELECT count(*), (SELECT errors FROM kda_storage.forgotten), sum(bytes), min(error_id), max(error_id) FROM kda_storage.error")[0]
        assert n + forgotten == 2000 and 100 < n < 1000 and last - first + 1 == n
        assert bytes == server.value("SELECT bytes FROM kda_storage.forgotten")
        # what is too old goes, too
        server.sql("UPDATE kda_storage.error SET error_time = error_time - interval '15 days' WHERE error_id < %s", first + 50)

        def gone():
            server.sql("INSERT INTO eb VALUES (1)")
            return server.sql("SELECT min(error_id), count(*) FROM kda_storage.error") == [(first + 50, n - 50)]
        wait_until(gone, "the old rows to leave", 20, 0.2)
        assert server.value("SELECT errors FROM kda_storage.forgotten") == 2000 - n + 50
    finally:
        server.sql("ALTER SYSTEM RESET kda_stream.error_stream_size")
        server.sql("SELECT pg_reload_conf()")


def test_commit_interval_stretches_while_commits_are_dear():
    pg = Postgres("stretch", ["kda_stream.commit_interval = '2ms'", "kda_stream.commit_interval_max = '300ms'"]).start()
    pg.sql("CREATE EXTENSION kda_stream; CREATE STREAM s (k int); CREATE CONTINUOUS VIEW v AS SELECT k, count(*) n FROM s GROUP BY k")
    pg.sql("INSERT INTO s SELECT generate_series(1, 5000)")
    assert pg.value("SELECT kda.wait('s')")

    def dear():
        pg.sql("INSERT INTO s SELECT generate_series(1, 5000)")
        return worker(pg, "commit_interval_ms") >= 16

    def cheap():
        pg.sql("INSERT INTO s VALUES (1)")
        return worker(pg, "commit_interval_ms") < 16
    wait_until(dear, "the interval to stretch", 30, 0.01)
    assert worker(pg, "commit_interval_ms") <= 300
    wait_until(cheap, "it to shrink again", 30, 0.01)
    pg.destroy()


def test_who_keeps_old_rows_alive_is_named():
    """An old snapshot makes state tables grow: the commit interval stretches, kda.workers says whose it is."""
    pg = Postgres("snapshot", ["kda_stream.commit_interval = '5ms'", "kda_stream.commit_interval_max = '400ms'", "autovacuum = off"]).start()
    pg.sql("CREATE EXTENSION kda_stream; CREATE STREAM s (k int) OPTIONS (retention '0'); CREATE CONTINUOUS VIEW v AS SELECT k, count(*) n FROM s GROUP BY k")
    pg.sql("INSERT INTO s SELECT generate_series(1, 2000)")
    assert pg.value("SELECT kda.wait('s')")
    old = pg.connect(autocommit=False)
    old.cursor().execute("SET application_name = 'a BI tool'; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class")

    def named():
        pg.sql("INSERT INTO s SELECT generate_series(1, 2000)")
        return worker(pg, "held_back_by")
    who = wait_until(named, "the session to be named", 60, 0.01)
    assert "session %d " % old.info.backend_pid in who and "a BI tool" in who
    assert worker(pg, "commit_interval_ms") >= 10
    old.close()

    def calm():
        pg.sql("INSERT INTO s VALUES (1)")
        return worker(pg, "held_back_by") is None
    wait_until(calm, "it to be forgotten", 30, 0.05)
    pg.destroy()


# ------------------------------------------------------------ kda.wait, kda.advance

def test_wait_says_no_when_it_must(server):
    server.sql("CREATE STREAM wa (v int); CREATE TABLE no_stream (v int)")
    server.sql("DROP ROLE IF EXISTS nobody_special; CREATE ROLE nobody_special LOGIN")
    assert server.value("SELECT kda.wait('wa', '0')"), "nothing depends on it"
    server.sql("CREATE CONTINUOUS VIEW wa_v AS SELECT sum(v) s FROM wa")
    server.sql("CREATE STREAM wb (v int); CREATE PUMP wa_p AS INSERT INTO wb SELECT v FROM wa; CREATE CONTINUOUS VIEW wb_v AS SELECT sum(v) s FROM wb")
    for statement, user, error in (
            ("SELECT kda.wait('no_stream')", "postgres", psycopg2.errors.WrongObjectType),
            ("SELECT kda.wait('wa_v')", "postgres", psycopg2.errors.WrongObjectType),
            ("SELECT kda.wait('wa')", "nobody_special", psycopg2.errors.InsufficientPrivilege),
            ("SELECT kda.advance('wa', now())", "nobody_special", psycopg2.errors.InsufficientPrivilege),
            ("SELECT kda.advance('no_stream', now())", "postgres", psycopg2.errors.WrongObjectType),
            ("SELECT kda.advance('wa', 'infinity')", "postgres", psycopg2.errors.DatetimeFieldOverflow),
            ("BEGIN; INSERT INTO wa VALUES (1); SELECT kda.wait('wa')", "postgres", psycopg2.errors.ObjectNotInPrerequisiteState)):
        with pytest.raises(error):
            server.sql(statement, user=user)
    assert server.value("SELECT kda.wait(NULL::regclass)") is None
    server.sql("GRANT SELECT ON wa TO nobody_special; GRANT INSERT ON wb TO nobody_special")
    for stream in ("wa", "wb"):
        assert server.value("SELECT kda.wait('%s', '100000 years')" % stream, user="nobody_special")
    server.sql("INSERT INTO wa VALUES (1)")
    assert server.value("SELECT kda.wait('wa')") and server.sql("SELECT * FROM wa_v, wb_v") == [(1, 1)]
    # a paused stream: nothing of it is processed, nor of what it feeds
    server.sql("ALTER STREAM wb PAUSE; INSERT INTO wa VALUES (1)")
    begun = time.monotonic()
    assert not server.value("SELECT kda.wait('wa', '300 ms')") and time.monotonic() - begun < 5
    assert server.sql("SELECT * FROM wa_v, wb_v") == [(2, 1)]
    server.sql("ALTER STREAM wb RESUME")
    assert server.value("SELECT kda.wait('wa')") and server.sql("SELECT * FROM wa_v, wb_v") == [(2, 2)]
    # a failed query is left out
    server.sql("CREATE TABLE wt_parent (v int PRIMARY KEY); CREATE TABLE wt (v int REFERENCES wt_parent DEFERRABLE); CREATE PUMP wt_p AS INSERT INTO wt SELECT v FROM wa; ALTER TABLE wt ALTER CONSTRAINT wt_v_fkey DEFERRABLE INITIALLY DEFERRED")
    server.sql("INSERT INTO wa VALUES (1)")
    assert server.value("SELECT kda.wait('wa')")
    assert state(server, "wt_p")[0] == "failed" and server.sql("SELECT * FROM wa_v, wb_v") == [(3, 3)]


def test_waits_are_given_up_with_their_session(server):
    """Sessions that are ended while they wait leave nothing behind."""
    server.sql("CREATE STREAM wc (v int); CREATE CONTINUOUS VIEW wc_v AS SELECT sum(v) s FROM wc; ALTER STREAM wc PAUSE")
    for _ in range(3):
        conns = [server.connect() for _ in range(25)]
        threads = []
        for c in conns:
            def wait(c=c):
                with pytest.raises(psycopg2.Error):
                    c.cursor().execute("SELECT kda.wait('wc', '60 s')")
            threads.append(threading.Thread(target=wait))
            threads[-1].start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT kda.wait(''wc''%%' AND state = 'active'"
        wait_until(lambda: server.value(waiting) == len(conns), "all to wait")
        server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT kda.wait(''wc''%' AND pid <> pg_backend_pid()")
        for t in threads:
            t.join()
    server.sql("ALTER STREAM wc RESUME")
    assert server.value("SELECT kda.wait('wc')")


def test_advance_of_a_source_stream(server, msk, kafka):
    """Transactional and durable; a smaller one is ignored; goes on to derived streams, also through a crash of the worker."""
    kafka.create_topic("t_advance", 2)
    server.sql("CREATE STREAM ad (rowtime timestamptz OPTIONS (path '$.ts'), k int) SERVER msk OPTIONS (topic 't_advance', start 'earliest', idle_timeout 'never')")
    server.sql("CREATE CONTINUOUS VIEW ad_v AS SELECT count(*) n FROM ad WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) EMIT ON WINDOW CLOSE")
    server.sql("CREATE STREAM ad_out (rowtime timestamptz, n bigint); CREATE PUMP ad_p AS INSERT INTO ad_out (n) SELECT count(*) FROM ad WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)")
    server.sql("CREATE CONTINUOUS VIEW ad_h AS SELECT sum(n) s FROM ad_out WINDOWED BY TUMBLING (INTERVAL '1' HOUR) EMIT ON WINDOW CLOSE")
    kafka.produce("t_advance", [{"ts": "2026-01-01T10:00:%02dZ" % i, "k": i} for i in range(10)], partition=0)
    assert server.value("SELECT kda.wait('ad')")
    assert server.sql("SELECT n FROM ad_v") == []
    server.sql("BEGIN; SELECT kda.advance('ad', '2026-01-01 11:30:00+00'); ROLLBACK")
    assert server.value("SELECT kda.wait('ad')") and server.sql("SELECT n FROM ad_v") == []
    server.sql("SELECT kda.advance('ad', '2026-01-01 10:30:00+00')")
    wait_until(lambda: server.sql("SELECT n FROM ad_v") == [(10,)], "the window to close", 20)
    server.sql("SELECT kda.advance('ad', '2026-01-01 10:10:00+00')")
    assert server.value("SELECT kda.wait('ad')")
    assert server.value("SELECT kda.watermark('ad') = '2026-01-01 10:30:00+00'")
    server.sql("SELECT pg_terminate_backend(pid) FROM kda.workers WHERE kind = 'pipeline'; SELECT kda.advance('ad', '2026-01-01 11:30:00+00')")
    wait_until(lambda: server.sql("SELECT s FROM ad_h") == [(10,)], "the derived window to close", 20)
    # what comes before it is late
    kafka.produce("t_advance", [{"ts": "2026-01-01T10:00:00Z", "k": 1}], partition=1)
    assert server.value("SELECT kda.wait('ad')")
    assert server.sql("SELECT error_name, shard FROM kda.error_stream WHERE stream = 'ad'::regclass") == [("late", "1")]
