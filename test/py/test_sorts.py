"""ORDER BY … WITHIN against a model of its own, and joins as of a time against plain SQL: any data, any cut, any restart, several shards, a restored copy."""
import random

import pytest
from harness import LONG, wait_until
from test_contract import run
from test_sessions import at, feed, same

SETTINGS = ["kda_stream.batch_records = 53"]


def in_order(rows, time, slack, keys=lambda row: ()):
    """Rows that are not later than the slack, by time, further keys and arrival; how many were; those that have left."""
    greatest = None
    taken, late = [], 0
    for arrival, row in enumerate(rows):
        t = time(row)
        if greatest is not None and t < greatest - slack:
            late += 1
        else:
            taken.append((t, keys(row), arrival, row))
            greatest = t if greatest is None else max(greatest, t)
    taken.sort(key=lambda x: x[:3])
    strict = bool(keys(rows[0]))
    left = [x for x in taken if (x[0] < greatest - slack if strict else x[0] <= greatest - slack)]
    return [x[3] for x in taken], late, [x[3] for x in left]


def make_rows(r, count, slack):
    """(time, k, other time, v, pad): both times rise with jumps back, often to one that was there."""
    rows, now, other = [], 0, 10 ** 12
    for _ in range(count):
        step = r.choice([0, 1, slack // 7 + 1, slack // 2, slack]) // r.choice([1, 1, 3])
        now += step
        other += r.choice([step, 0, slack // 3])
        back = r.choice([0, 0, slack // 7 + 1, slack // 2, slack, slack + 1, r.randrange(2 * slack + 1)])
        rows.append((now - back, r.choice("abc"), other - r.choice([back, 0, slack]), r.randrange(100), "x" * r.choice([0, 30])))
    return rows


def sent(rows):
    """As the streams get them: the second time as microseconds since the epoch."""
    return [(t, k, at(o), v, pad) for t, k, o, v, pad in rows]


COLUMNS = "rowtime, k, ts, v"
TABLE = "CREATE TABLE %s (n bigserial, rowtime timestamptz, k text, ts timestamptz, v int)"


def got(server, table):
    return server.sql("SELECT %s FROM %s WHERE k <> 'z' ORDER BY n" % (COLUMNS, table))


def want(rows):
    return [(at(t), k, at(o), v) for t, k, o, v, _ in rows]


@pytest.mark.parametrize("seed", range(30 if LONG else 4))
def test_sorted(server, seed):
    r = random.Random(seed)
    within = r.choice([0, 1000, 5_000_000])
    delay = r.choice([0, 0, within // 2])
    rows = make_rows(r, 700, within + delay or 1000)
    server.sql("DROP STREAM IF EXISTS so CASCADE; DROP TABLE IF EXISTS so_time, so_ties, so_other, so_other_ties, so_over, so_names")
    server.sql("CREATE STREAM so (rowtime timestamptz, k text, ts timestamptz, v int, pad text) OPTIONS (watermark '%d us', idle_timeout 'never')" % delay)
    server.sql("CREATE TABLE so_names (k text, name text); INSERT INTO so_names VALUES ('a', 'A'), ('b', 'B'), ('c', 'C')")
    for table in ("so_time", "so_ties", "so_other", "so_other_ties"):
        server.sql(TABLE % table)
    server.sql("CREATE TABLE so_over (n bigserial, k text, ts timestamptz, v int, sum bigint, before bigint)")
    sort = "WITHIN INTERVAL '%d us'" % within
    pump = "CREATE PUMP p_%s AS INSERT INTO %s (" + COLUMNS + ") SELECT STREAM " + COLUMNS + " FROM so ORDER BY %s"
    server.sql(pump % ("so_time", "so_time", "so.rowtime " + sort))
    server.sql(pump % ("so_other", "so_other", "so.ts " + sort))
    # the planner may turn the rows of a join around
    server.sql("CREATE PUMP p_so_ties AS INSERT INTO so_ties (%s) SELECT STREAM rowtime, so.k, ts, v FROM so_names n JOIN so ON n.k = so.k ORDER BY rowtime %s, lower(n.name) DESC, v" % (COLUMNS, sort))
    server.sql("CREATE PUMP p_so_other_ties AS INSERT INTO so_other_ties (%s) SELECT STREAM rowtime, so.k, ts, v FROM so_names n JOIN so ON n.k = so.k WHERE v %% 10 <> 9 ORDER BY 3 %s, v DESC" % (COLUMNS, sort))
    server.sql("CREATE PUMP p_so_over AS INSERT INTO so_over (k, ts, v, sum, before) SELECT STREAM k, ts, v, sum(v) OVER (PARTITION BY k ROWS 2 PRECEDING), count(*) OVER (RANGE INTERVAL '1000 us' PRECEDING) FROM so ORDER BY so.ts %s" % sort)
    server.sql("CREATE CONTINUOUS VIEW so_window AS SELECT k, count(*) AS n, sum(v) AS s FROM so WINDOWED BY TUMBLING (INTERVAL '7000 us') GROUP BY k ORDER BY so.ts %s" % sort)
    server.sql("CREATE CONTINUOUS VIEW so_view AS SELECT k, v FROM so ORDER BY so.rowtime %s" % sort)

    feed(server, r, "so", sent(rows))
    assert server.value("SELECT kda.wait('so', '60 s')")
    same(server.sql("SELECT DISTINCT state, last_error FROM kda.queries"), [("running", None)], seed)
    rank = {"a": 3, "b": 2, "c": 1}
    by_time, late, time_left = in_order(rows, lambda x: x[0], within + delay)
    by_ties, _, ties_left = in_order(rows, lambda x: x[0], within + delay, lambda x: (rank[x[1]], x[3]))
    by_other, other_late, other_left = in_order(rows, lambda x: x[2], within)
    other_ties = [x for x in in_order(rows, lambda x: x[2], within, lambda x: (-x[3],))[0] if x[3] % 10 != 9]
    other_ties_left = [x for x in in_order(rows, lambda x: x[2], within, lambda x: (-x[3],))[2] if x[3] % 10 != 9]
    same(got(server, "so_time"), want(time_left), seed)
    same(got(server, "so_ties"), want(ties_left), seed)
    same(got(server, "so_other"), want(other_left), seed)
    same(got(server, "so_other_ties"), want(other_ties_left), seed)
    same(server.value("SELECT records_late FROM kda.queries WHERE name = 'p_so_time'"), late, seed)
    same(server.value("SELECT records_late FROM kda.queries WHERE name = 'p_so_other'"), other_late, seed)

    # a last one lets all of them leave, and is held itself where others of its time might come
    server.sql("INSERT INTO so VALUES ('2027-01-01', 'z', '2027-01-01', 0)")
    assert server.value("SELECT kda.wait('so', '60 s')")
    same(got(server, "so_time"), want(by_time), seed)
    same(got(server, "so_ties"), want(by_ties), seed)
    same(got(server, "so_other"), want(by_other), seed)
    same(got(server, "so_other_ties"), want(other_ties), seed)
    same(server.sql("SELECT * FROM so_view WHERE k <> 'z'"), [(x[1], x[3]) for x in by_time], seed)
    over = []
    same(server.sql("DELETE FROM so_over WHERE k = 'z' RETURNING k"), [("z",)] if within == 0 else [], seed)
    for i, x in enumerate(by_other):
        mine = [y[3] for y in by_other[:i + 1] if y[1] == x[1]][-3:]
        over.append((x[1], at(x[2]), x[3], sum(mine), sum(x[2] - y[2] <= 1000 for y in by_other[:i + 1])))
    same(server.sql("SELECT k, ts, v, sum, before FROM so_over ORDER BY n"), over, seed)
    windows = {}
    for x in by_other:
        n, s = windows.get((x[2] // 7000, x[1]), (0, 0))
        windows[(x[2] // 7000, x[1])] = (n + 1, s + x[3])
    same(sorted(server.sql("SELECT k, n, s FROM so_window WHERE k <> 'z'")), sorted((k, n, s) for (_, k), (n, s) in windows.items()), seed)
    same(server.value("SELECT max(groups)::int <= 1 FROM kda.queries WHERE name IN ('p_so_time', 'p_so_ties', 'p_so_other', 'so_view')"), True, seed)


@pytest.mark.parametrize("seed", range(10 if LONG else 2))
def test_shards(server, kafka, msk, seed):
    """By another time than the record's: each shard is judged by what it has brought itself, rows leave by the slowest."""
    r = random.Random(100 + seed)
    topic = "so_%d" % seed
    kafka.create_topic(topic, 3)
    server.sql("CREATE STREAM %s (k text, ts timestamptz, v int) SERVER msk OPTIONS (start 'earliest', idle_timeout 'never')" % topic)
    server.sql("CREATE TABLE %s_out (n bigserial, k text, ts timestamptz, v int)" % topic)
    server.sql("CREATE PUMP %s_p AS INSERT INTO %s_out (k, ts, v) SELECT STREAM k, ts, v FROM %s s ORDER BY s.ts WITHIN INTERVAL '1' SECOND, v, k" % (topic, topic, topic))
    shards = [make_rows(r, 300, 1_000_000) for _ in range(3)]
    end = max(row[2] for rows in shards for row in rows) + 1
    for number, rows in enumerate(shards):
        rows.append((0, str(number), end, 0, ""))
    for part in range(4):
        for number in r.sample(range(3), 3):
            kafka.produce(topic, [{"k": k, "ts": at(o).isoformat(), "v": v} for _, k, o, v, _ in shards[number][part * 76:(part + 1) * 76]], partition=number, enable_idempotence="true")
        if r.random() < 0.5:
            assert server.value("SELECT kda.wait(%s, '60 s')", topic)
        if r.random() < 0.3:
            server.sql("SELECT pg_terminate_backend(pid) FROM kda.workers WHERE kind = 'pipeline'")
    assert server.value("SELECT kda.wait(%s, '60 s')", topic)
    judged = [in_order(rows, lambda x: x[2], 1_000_000) for rows in shards]
    same(server.sql("SELECT records_in, records_late FROM kda.streams WHERE stream = %s::regclass", topic), [(903, sum(late for _, late, _ in judged))], seed)
    everything = sorted((at(o), v, k) for taken, _, _ in judged for _, k, o, v, _ in taken)
    same(server.sql("SELECT ts, v, k FROM %s_out ORDER BY n" % topic), [x for x in everything if x[0] < at(end - 1_000_000)], seed)


@pytest.mark.parametrize("seed", range(20 if LONG else 2))
def test_as_of(server, seed):
    """What plain SQL gives with the condition written out."""
    r = random.Random(200 + seed)
    rows = [(r.randrange(1000), r.choice("abcd"), r.randrange(2), r.randrange(9), "") for _ in range(600)]
    server.sql("DROP STREAM IF EXISTS ao CASCADE; DROP TABLE IF EXISTS ao_rates, ao_ranges, ao_out")
    server.sql("CREATE STREAM ao (rowtime timestamptz, k text, j int, v int, pad text) OPTIONS (watermark '1 s', idle_timeout 'never', retention '1 day')")
    server.sql("CREATE TABLE ao_rates (k text, rate int, valid_from timestamptz, valid_to timestamptz); CREATE INDEX ON ao_rates (k, valid_from)")
    server.sql("CREATE TABLE ao_ranges (j int, name text, held tstzrange)")
    for k in "abc":
        for rate in range(5):
            a, b = sorted(r.sample(range(1000), 2))
            server.sql("INSERT INTO ao_rates VALUES (%s, %s, %s, %s)", k, rate, r.choice([at(a), at(a), None]), r.choice([at(b), at(b), None]))
            server.sql("INSERT INTO ao_ranges VALUES (%%s, %%s, tstzrange(%%s, %%s, '%s'))" % r.choice(["[)", "(]", "[]"]), rate % 2, k + str(rate), r.choice([at(a), None]), r.choice([at(b), None]))
    select = "SELECT s.rowtime, s.k, s.v, r.rate, g.name FROM ao s LEFT JOIN ao_rates %s r ON r.k = s.k %s JOIN ao_ranges %s g ON g.j = s.j %s"
    as_of = "FOR SYSTEM_TIME AS OF s.rowtime"
    typed = select % (as_of, "", as_of, "")
    written = select % ("", "AND (r.valid_from IS NULL OR r.valid_from <= s.rowtime) AND (r.valid_to IS NULL OR r.valid_to > s.rowtime)", "", "AND g.held @> s.rowtime")
    server.sql("CREATE CONTINUOUS VIEW ao_rows AS " + typed)
    server.sql("CREATE CONTINUOUS VIEW ao_sums AS SELECT k, name, count(*) n, sum(v * rate) s FROM (%s) x WINDOWED BY TUMBLING (INTERVAL '100 us') GROUP BY k, name" % typed)
    server.sql("CREATE TABLE ao_out (rowtime timestamptz, k text, v int, rate int, name text)")
    server.sql("CREATE PUMP ao_p AS INSERT INTO ao_out " + typed)
    feed(server, r, "ao", rows)
    assert server.value("SELECT kda.wait('ao', '60 s')")
    for name in ("ao_rows", "ao_out"):
        same(server.sql("(TABLE %s EXCEPT ALL %s) UNION ALL (%s EXCEPT ALL TABLE %s)" % (name, written, written, name)), [], seed)
    same(server.sql("%s EXCEPT ALL %s" % (typed, written)), [], seed)
    same(server.sql("SELECT count(*) FROM (%s) x" % typed), server.sql("SELECT count(*) FROM ao_rows"), seed)
    sums = "SELECT date_bin('100 us', rowtime, '2000-01-01 UTC') w, k, name, count(*) n, sum(v * rate) s FROM (%s) x GROUP BY 1, 2, 3" % written
    same(server.sql("SELECT window_start, k, name, n, s FROM ao_sums EXCEPT ALL %s" % sums), [], seed)
    same(server.sql("SELECT count(*) FROM (%s) x" % sums), server.sql("SELECT count(*) FROM ao_sums"), seed)


def test_idle(server):
    """Nothing comes any more: what is held leaves as time goes by, by the stream's time and by another one."""
    server.sql("CREATE STREAM si (ts timestamptz, id int) OPTIONS (idle_timeout '100 ms')")
    server.sql("CREATE CONTINUOUS VIEW si_other AS SELECT id FROM si ORDER BY si.ts WITHIN INTERVAL '0.5' SECOND")
    server.sql("CREATE CONTINUOUS VIEW si_time AS SELECT id FROM si ORDER BY si.ROWTIME WITHIN INTERVAL '0.5' SECOND")
    server.sql("INSERT INTO si VALUES (%s, 1), (%s, 2)", at(1000), at(0))
    wait_until(lambda: server.sql("TABLE si_other") == [(2,), (1,)] and server.sql("TABLE si_time") == [(1,), (2,)], "rows to leave")


def test_dump(server):
    """A restored copy goes on where the dump was taken: with what was held, and with what is late."""
    server.sql("CREATE DATABASE d_sorted")
    server.sql("CREATE EXTENSION kda_stream", dbname="d_sorted")
    server.sql("""CREATE STREAM s (rowtime timestamptz, k text, ts timestamptz, v int) OPTIONS (idle_timeout 'never');
        CREATE TABLE rates (k text, rate int, valid_from timestamptz, valid_to timestamptz);
        INSERT INTO rates VALUES ('a', 1, NULL, '2026-01-01 10:00:10Z'), ('a', 2, '2026-01-01 10:00:10Z', NULL);
        CREATE CONTINUOUS VIEW sorted AS SELECT k, v FROM s ORDER BY s.ts WITHIN INTERVAL '10' SECOND, v DESC;
        CREATE CONTINUOUS VIEW rated AS SELECT v, rate FROM s JOIN rates FOR SYSTEM_TIME AS OF s.rowtime r ON r.k = s.k;
        CREATE CONTINUOUS VIEW windows AS SELECT k, count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '10' SECOND) GROUP BY k ORDER BY s.ts WITHIN INTERVAL '10' SECOND;
        INSERT INTO s SELECT t, 'a', t, i FROM generate_series(1, 20) i, LATERAL (SELECT timestamptz '2026-01-01 10:00Z' + i * interval '1 s' AS t) t""", dbname="d_sorted")
    assert server.value("SELECT kda.wait('s')", dbname="d_sorted")
    dump = run(server, "pg_dump", "d_sorted").stdout
    server.sql("CREATE DATABASE d_sorted_again")
    run(server, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "d_sorted_again", stdin=dump)
    for db in ("d_sorted", "d_sorted_again"):
        assert server.sql("TABLE sorted", dbname=db) == [("a", i) for i in range(1, 10)]
        server.sql("INSERT INTO s VALUES ('2026-01-01 10:00:21Z', 'a', '2026-01-01 10:00:09Z', 100), ('2026-01-01 10:00:21Z', 'a', '2026-01-01 10:00:10Z', 101), ('2026-01-01 11:00Z', 'a', '2026-01-01 11:00Z', 102)", dbname=db)
        assert server.value("SELECT kda.wait('s')", dbname=db)
        assert server.sql("TABLE sorted", dbname=db) == [("a", i) for i in range(1, 10)] + [("a", 101)] + [("a", i) for i in range(10, 21)]
        assert server.sql("SELECT v, rate FROM rated ORDER BY v", dbname=db) == [(i, 1 if i < 10 else 2) for i in list(range(1, 21)) + [100, 101, 102]]
        assert server.sql("SELECT * FROM windows ORDER BY window_start", dbname=db)[0][2:] == ("a", 9)
        assert server.value("SELECT records_late FROM kda.queries WHERE name = 'sorted'", dbname=db) == 1
        server.sql("DROP DATABASE " + db)
