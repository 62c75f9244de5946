"""An hour of stream leaves nothing behind: what is kept follows what is open, not what has been."""
from harness import wait_until

SETTINGS = ["fsync = off", "autovacuum = off"]

HOP = "SLIDING (INTERVAL '2' MINUTE, INTERVAL '1' MINUTE)"
CUMULATE = "CUMULATING (INTERVAL '3' MINUTE, INTERVAL '1' MINUTE)"
MATCH = "ON a.k = b.k AND b.rowtime BETWEEN a.rowtime - INTERVAL '30' SECOND AND a.rowtime + INTERVAL '1' MINUTE"
QUERIES = {
    "tumbling": "SELECT k, count(*), sum(v) FROM bs WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k",
    "tumbling_rows": "SELECT k, count(DISTINCT v) FROM bs WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k",
    "hop": "SELECT k, count(*), avg(v) FROM bs WINDOWED BY %s GROUP BY k" % HOP,
    "hop_rows": "SELECT k, percentile_cont(0.5) WITHIN GROUP (ORDER BY v) FROM bs WINDOWED BY %s GROUP BY k" % HOP,
    "cumulate": "SELECT k, count(*) FROM bs WINDOWED BY %s GROUP BY k" % CUMULATE,
    "cumulate_rows": "SELECT k, array_agg(v ORDER BY v) FROM bs WINDOWED BY %s GROUP BY k" % CUMULATE,
    "session": "SELECT k, count(*) FROM bs WINDOWED BY SESSION (INTERVAL '12' SECOND) GROUP BY k",
    "session_rows": "SELECT k, count(DISTINCT v) FROM bs WINDOWED BY SESSION (INTERVAL '12' SECOND) GROUP BY k",
    "stagger": "SELECT k, count(*) FROM bs WINDOWED BY STAGGER (PARTITION BY k RANGE INTERVAL '1' MINUTE)",
    "over_range": "SELECT k, avg(v) OVER (PARTITION BY k RANGE INTERVAL '1' MINUTE PRECEDING) FROM bs",
    "over_rows": "SELECT k, avg(v) OVER (PARTITION BY k % 5 ROWS 10 PRECEDING) FROM bs",
    "joined": "SELECT a.k, b.v FROM bs a JOIN bt b " + MATCH,
    "joined_left": "SELECT a.k, b.v FROM bs a LEFT JOIN bt b " + MATCH,
    "joined_full": "SELECT a.k, b.v FROM bs a FULL JOIN bt b " + MATCH,
    "joined_windowed": "SELECT a.k, count(*) FROM bs a JOIN bt b %s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY a.k" % MATCH,
    "of_view": "SELECT count(*) FROM tumbling WINDOWED BY TUMBLING (INTERVAL '5' MINUTE)",
    "both": "SELECT k, count(*) FROM (SELECT k, v FROM bs UNION ALL SELECT k, v FROM bt) u WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k",
}
KEYS = 40


def tables(server, pattern):
    """Storage tables of those names, vacuumed: rows of all, bytes of all with their indexes, and each one's."""
    names = [r[0] for r in server.sql("SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'kda_storage'::regnamespace AND relkind = 'r' AND relname ~ %s ORDER BY 1", pattern)]
    assert names
    for name in names:
        server.sql("VACUUM " + name)
    each = {name: server.sql("SELECT (SELECT count(*) FROM %s), pg_table_size('%s') + pg_indexes_size('%s')" % (name, name, name))[0] for name in names}
    return sum(f[0] for f in each.values()), sum(f[1] for f in each.values()), each


def states(server):
    """What is kept of windows and joins; rows of OVER are pruned by the thousand and looked at apart."""
    ids = server.sql("SELECT string_agg(query_id::text, '|') FROM kda_storage.query WHERE rel::text LIKE 'over%%'" % ())[0][0]
    return tables(server, "^(open|left|right|keys?)_(?!(%s)$)" % ids), tables(server, "^open_(%s)$" % ids)


def minute(server, n):
    """A minute of stream: keys come and go, so a state that kept keys would grow."""
    for stream in ("bs", "bt"):
        server.sql("INSERT INTO %s SELECT timestamptz '2026-01-01 10:00Z' + interval '1 minute' * %%s + interval '0.25 s' * i, i %%%% %d + %%s, i %%%% 7 FROM generate_series(0, 239) i" % (stream, KEYS),
                   n, n * KEYS if n % 2 else 0)


def go(server, first, last):
    for n in range(first, last):
        minute(server, n)
        if n % 5 == 4:
            # as autovacuum does, but at the same moments in every run
            settle(server)
            states(server)


def settle(server):
    for stream in ("bs", "bt"):
        assert server.value("SELECT kda.wait(%s, '60 s')", stream)


def close(server, n):
    for stream in ("bs", "bt"):
        server.sql("SELECT kda.advance(%s, timestamptz '2026-01-01 10:00Z' + interval '1 minute' * %s)", stream, n)
    settle(server)


def cache(server):
    """Bytes and groups in memory; what is said of queries that keep rows is their tables' size."""
    return server.sql("SELECT sum(state_bytes)::bigint, sum(groups)::bigint, sum(open_windows)::bigint FROM kda.queries WHERE name IN ('tumbling', 'hop', 'cumulate', 'session', 'stagger', 'of_view', 'joined_windowed')")[0]


def test_an_hour_leaves_nothing_behind(server):
    for stream in ("bs", "bt"):
        server.sql("CREATE STREAM %s (rowtime timestamptz, k int, v int) OPTIONS (watermark '10 seconds', idle_timeout 'never', retention '0')" % stream)
    for name, text in QUERIES.items():
        server.sql("CREATE CONTINUOUS VIEW %s AS %s" % (name, text))
    settle(server)
    empty_buffer = tables(server, "^(inbox|ring)_")[1]
    go(server, 0, 20)
    (open_rows, _, _), _ = states(server)
    open_cache = cache(server)[0]
    close(server, 25)
    wait_until(lambda: states(server)[0][0] == 0, "the state of closed windows to go")
    (_, closed_bytes, _), _ = states(server)
    closed_cache = cache(server)

    go(server, 25, 65)
    (rows, _, each), _ = states(server)
    assert open_rows > 1000 and rows <= open_rows * 1.5, "%d rows after twenty minutes, %d in an hour: %s" % (open_rows, rows, each)
    assert cache(server)[0] <= open_cache * 1.5, (open_cache, cache(server))
    close(server, 75)
    wait_until(lambda: states(server)[0][0] == 0 and states(server)[0][1] <= closed_bytes * 1.1, "the state of closed windows to go, %d bytes after twenty minutes: %s" % (closed_bytes, states(server)[0]))
    assert cache(server)[1:] == closed_cache[1:] and cache(server)[0] <= closed_cache[0] * 1.1
    over = states(server)[1]
    assert over[0] < 2 * (1000 + 2 * 240) and over[1] < 2 * 1024 * 1024, over
    # rows that have been read leave the buffers as the stream goes on, those of queries over queries included
    def buffers():
        for stream in ("bs", "bt"):
            server.sql("INSERT INTO %s VALUES (kda.watermark('%s') + interval '20 s', -1, 0)" % (stream, stream))
        settle(server)
        return tables(server, "^(inbox|ring)_")[1]
    wait_until(lambda: buffers() < empty_buffer + 1024 * 1024, "the buffers to be emptied", 90, 0.5)
    # and it was all counted
    assert server.value("SELECT sum(count) FROM tumbling WHERE k >= 0") == 60 * 240
    assert server.value("SELECT count(*) FROM over_rows WHERE k >= 0") == 60 * 240
    assert server.sql("SELECT DISTINCT state, last_error, records_late FROM kda.queries WHERE name IN %s", tuple(QUERIES)) == [("running", None, 0)]
