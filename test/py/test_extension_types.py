"""Aggregates and types of other extensions: their states are kept, combined over panes, and survive a restart."""
import os

from harness import Postgres

# a PostgreSQL that does not come from Debian has no such packages
PACKAGED = os.environ["KDA_PG_CONFIG"].startswith("/usr/lib/postgresql/")

RESULTS = "k, hll_cardinality(hll_add_agg(hll_hash_integer(u))) AS u, tdigest_percentile(v, 100, 0.5) AS p, hll_cardinality(hll_union_agg(seen)) AS s"

# name: window, its start in plain SQL, what that needs in FROM, GROUP BY
WINDOWS = {
    "tumbling": ("TUMBLING (INTERVAL '1' MINUTE)", "date_trunc('minute', rowtime)", "", "k, 1"),
    "hop": ("SLIDING (INTERVAL '4' MINUTE, INTERVAL '2' MINUTE)", "date_bin('2 minutes', rowtime, '2026-01-01') - o * interval '2 minutes'", ", generate_series(0, 1) o", "k, 1"),
    "session": ("SESSION (INTERVAL '2' MINUTE)", "min(rowtime)", "", "k"),
}


def test_hll_and_tdigest():
    pg = Postgres("extensions", ["kda_stream.commit_interval = '20ms'"]).start()
    available = pg.sql("SELECT name FROM pg_available_extensions WHERE name IN ('hll', 'tdigest') ORDER BY 1")
    assert available == ([("hll",), ("tdigest",)] if PACKAGED else [])
    if available:
        pg.sql("CREATE EXTENSION kda_stream; CREATE EXTENSION hll; CREATE EXTENSION tdigest")
        pg.sql("CREATE STREAM s (rowtime timestamptz, k text, u int, v float8, seen hll) OPTIONS (idle_timeout 'never'); CREATE TABLE same (LIKE s)")
        for name, (window, _, _, _) in WINDOWS.items():
            pg.sql("CREATE CONTINUOUS VIEW %s AS SELECT window_start AS w, %s FROM s WINDOWED BY %s GROUP BY k" % (name, RESULTS, window))
        for part in range(4):
            for target in ("same", "s"):
                pg.sql("INSERT INTO %s SELECT '2026-01-01 10:00+00'::timestamptz + i * interval '1 s', 'k' || i %% 3, i %% 97, i %% 89, "
                       "hll_add(hll_empty(), hll_hash_integer(i %% 31)) FROM generate_series(%d, %d) i" % (target, part * 150, part * 150 + 149))
            assert pg.value("SELECT kda.wait('s')")
            if part == 1:
                pg.stop("immediate")
                pg.start()
        pg.sql("SELECT kda.advance('s', '2026-01-01 12:00+00')")
        assert pg.value("SELECT kda.wait('s')")
        for name, (_, start, more, group) in WINDOWS.items():
            found = pg.sql("SELECT w, k, u, s, p FROM %s ORDER BY 1, 2" % name)
            expected = pg.sql("SELECT w, k, u, s, p FROM (SELECT %s AS w, %s FROM same%s GROUP BY %s) x ORDER BY 1, 2" % (start, RESULTS, more, group))
            assert [row[:4] for row in found] == [row[:4] for row in expected] and len(expected) > 2, name
            # a digest is an approximation: combined of panes it is another one
            assert all(abs(f[4] - e[4]) <= 2 for f, e in zip(found, expected)), name
        assert pg.sql("SELECT name, last_error FROM kda.queries WHERE state <> 'running'") == []
    pg.stop()
