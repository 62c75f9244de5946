-- Windows that slide by row: a row's result needs the rows before it, and
-- leaves when the watermark says that no row before it can still come.
SET client_min_messages = warning;
CREATE STREAM t (rowtime timestamptz, k text, v int);
-- Standard SQL: a window by name, ROWS and RANGE, lag.
CREATE CONTINUOUS VIEW standard AS
    SELECT rowtime, k, v, avg(v) OVER w AS avg, count(*) OVER w AS n,
           sum(v) OVER (PARTITION BY k ORDER BY rowtime
                        ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS sum3,
           lag(v) OVER (PARTITION BY k ORDER BY rowtime ROWS 2 PRECEDING) AS before
    FROM t
    WINDOW w AS (PARTITION BY k ORDER BY rowtime
                 RANGE BETWEEN INTERVAL '1' MINUTE PRECEDING AND CURRENT ROW);
-- KDA's: the order is rowtime, said by nobody.
CREATE CONTINUOUS VIEW kda_words AS
    SELECT STREAM k, v, avg(v) OVER w AS avg,
           count(*) OVER (PARTITION BY k ROWS 2 PRECEDING) AS n
    FROM t
    WINDOW w AS (PARTITION BY k RANGE INTERVAL '1' MINUTE PRECEDING);
CREATE CONTINUOUS VIEW above_average AS
    SELECT k, v FROM (SELECT k, v, avg(v) OVER (PARTITION BY k
                      RANGE INTERVAL '1' MINUTE PRECEDING) AS avg FROM t) x
    WHERE v > avg;
CREATE CONTINUOUS VIEW numbered AS
    SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY rowtime) AS n FROM t;
RESET client_min_messages;
SET TIME ZONE 'UTC';

INSERT INTO t VALUES
    ('2026-01-01 10:00+00', 'a', 1), ('2026-01-01 10:00+00', 'a', 2),
    ('2026-01-01 10:00:30+00', 'a', 6), ('2026-01-01 10:00:30+00', 'b', 9),
    ('2026-01-01 10:01+00', 'a', 3), ('2026-01-01 10:01:00.000001+00', 'a', 10);
SELECT kda.wait('t');
-- Rows of one time leave together: the last one's has not passed yet.
TABLE standard;
-- One more of that time, one that comes too late, and one that closes all.
INSERT INTO t VALUES
    ('2026-01-01 10:01:00.000001+00', 'a', 100), ('2026-01-01 10:00:59+00', 'a', 10),
    ('2026-01-01 10:05+00', 'a', 7);
SELECT kda.wait('t');
TABLE standard;
TABLE kda_words;
TABLE above_average;
TABLE numbered;
SELECT error_name, data_text FROM kda.error_stream ORDER BY 2;
-- Rows that no frame can reach any more are forgotten, now and then;
-- row_number() reaches back to the first.
DO $$ BEGIN
    FOR part IN 0 .. 9 LOOP
        INSERT INTO t SELECT timestamptz '2026-01-01 11:00+00' + make_interval(secs => i), 'a', i
        FROM generate_series(part * 1000, part * 1000 + 999) i;
    END LOOP;
END $$;
SELECT kda.wait('t');
SELECT q.rel, p.groups < 5000 AS forgets
FROM kda_storage.query q JOIN kda_storage.query_progress p USING (query_id)
WHERE q.rel IN ('standard'::regclass, 'kda_words'::regclass, 'numbered'::regclass)
ORDER BY q.rel::text;
SELECT count(*), max(n), max(avg) FROM kda_words;

DROP CONTINUOUS VIEW standard;
DROP CONTINUOUS VIEW kda_words;
DROP CONTINUOUS VIEW above_average;
DROP CONTINUOUS VIEW numbered;
DROP STREAM t;

-- An error belongs to one record: what a window looks at is computed when the
-- record comes; what is made of the window, for the row that leaves.
CREATE STREAM e (rowtime timestamptz, id int, k text, v int) OPTIONS (idle_timeout 'never');
CREATE CONTINUOUS VIEW of_result AS SELECT id, 10 / sum(v) OVER (PARTITION BY k ROWS 1 PRECEDING) AS q, k || '!' AS k FROM e;
CREATE CONTINUOUS VIEW of_argument AS SELECT id, sum(10 / v) OVER (PARTITION BY upper(k) ROWS 1 PRECEDING) AS q FROM e;
INSERT INTO e VALUES ('2026-01-01 10:00+00', 1, 'a', 1), ('2026-01-01 10:01+00', 2, 'a', -1), ('2026-01-01 10:02+00', 3, 'a', 5), ('2026-01-01 10:03+00', 4, 'a', 0);
INSERT INTO e VALUES ('2026-01-01 10:04+00', 5, 'a', 0), ('2026-01-01 10:05+00', 6, 'a', 2), ('2026-01-01 10:06+00', 7, 'b', 1);
SELECT kda.wait('e');
SELECT * FROM of_result ORDER BY id;
SELECT * FROM of_argument ORDER BY id;
SELECT query, message, data_text FROM kda.error_stream WHERE query IN ('of_result'::regclass, 'of_argument'::regclass) ORDER BY 1, 3;
SELECT name, state FROM kda.queries WHERE name LIKE 'of_%' ORDER BY 1;
DROP CONTINUOUS VIEW of_result, of_argument;
DROP STREAM e;
