-- Without a window: running groups, and a row per record.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE STREAM ev (rowtime timestamptz, k text, v int);
CREATE TABLE names (k text PRIMARY KEY, name text);
INSERT INTO names VALUES ('a', 'Anna'), ('b', 'Bert');

CREATE CONTINUOUS VIEW running AS SELECT k, count(*) AS n, sum(v) AS s FROM ev GROUP BY k;
CREATE CONTINUOUS VIEW total AS SELECT count(*) AS n, max(v) AS m FROM ev;
CREATE CONTINUOUS VIEW big AS SELECT rowtime, k, v * 10 AS v10 FROM ev WHERE v >= 5;
CREATE CONTINUOUS VIEW named AS SELECT e.k, n.name, e.v FROM ev e JOIN names n ON n.k = e.k;
CREATE CONTINUOUS VIEW named_left AS SELECT e.k, coalesce(n.name, '?') AS name, sum(e.v) AS s FROM ev AS e LEFT JOIN names n USING (k) GROUP BY e.k, n.name;

-- no record yet: as plain SQL, a row for the view without GROUP BY
SELECT * FROM total;
SELECT * FROM running;

INSERT INTO ev VALUES ('2026-01-01', 'a', 1), ('2026-01-01', 'b', 5), ('2026-01-01', 'c', 7), ('2026-01-02', 'a', 9);
SELECT kda.wait('ev');
SELECT * FROM running ORDER BY k;
SELECT * FROM total;
SELECT * FROM big ORDER BY v10;
SELECT * FROM named ORDER BY k, v;
SELECT * FROM named_left ORDER BY k;

-- looked up at processing time
UPDATE names SET name = 'Antonia' WHERE k = 'a';
INSERT INTO ev VALUES ('2026-01-03', 'a', 100);
SELECT kda.wait('ev');
SELECT * FROM named ORDER BY k, v;
SELECT * FROM named_left ORDER BY k, name;
SELECT * FROM running ORDER BY k;

-- rolled back rows never appear; savepoints too
BEGIN;
INSERT INTO ev VALUES ('2026-01-04', 'rolled', 1);
ROLLBACK;
BEGIN;
INSERT INTO ev VALUES ('2026-01-04', 'kept', 1);
SAVEPOINT s;
INSERT INTO ev VALUES ('2026-01-04', 'rolled', 1);
ROLLBACK TO s;
INSERT INTO ev VALUES ('2026-01-04', 'kept', 2);
COMMIT;
COPY ev FROM stdin;
2026-01-05	copied	3
\N	copied	4
\.
SELECT kda.wait('ev');
SELECT * FROM running WHERE k IN ('kept', 'copied', 'rolled') ORDER BY k;

-- the buffer of the stream, and an index on the closed rows
SELECT k, v FROM ev WHERE k IN ('kept', 'copied') ORDER BY k, v;
CREATE INDEX ON big (k);
SELECT regexp_replace(indexdef, '_\d+ ', '_N ') FROM pg_indexes WHERE indexname = 'big_k_idx';
CREATE INDEX ON running (k);
DROP STREAM ev CASCADE;
DROP TABLE names;
