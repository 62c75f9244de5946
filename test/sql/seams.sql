-- What belongs to one feature and is met by another: right sides of joins, RESET of what keeps rows, parts that fail.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
-- the right side of a join is a stream that is read
CREATE STREAM l (rowtime timestamptz, k int, v int) OPTIONS (idle_timeout 'never');
CREATE STREAM r (rowtime timestamptz, k int, w int) OPTIONS (idle_timeout 'never');
CREATE CONTINUOUS VIEW j AS SELECT l.k, l.v, r.w FROM l JOIN r ON l.k = r.k AND r.rowtime BETWEEN l.rowtime AND l.rowtime + INTERVAL '10' SECOND;
SELECT stream, state FROM kda.streams WHERE stream IN ('l'::regclass, 'r'::regclass) ORDER BY 1;
INSERT INTO l VALUES ('2026-01-01 10:00:00', 1, 1);
SELECT kda.wait('l');
ALTER STREAM r PAUSE;
INSERT INTO r VALUES ('2026-01-01 10:00:01', 1, 11);
-- a further query does not begin it anew
CREATE CONTINUOUS VIEW n AS SELECT count(*) FROM r WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
ALTER STREAM r RESUME;
SELECT kda.wait('r');
SELECT * FROM j;
CREATE PUMP p AS INSERT INTO r SELECT r.rowtime, l.k, l.v FROM l JOIN r ON l.k = r.k AND r.rowtime BETWEEN l.rowtime AND l.rowtime + INTERVAL '10' SECOND;
-- all of it follows a new owner, and a query is as good as its parts
CREATE ROLE regress_kda_seams;
GRANT SELECT ON l TO regress_kda_seams;
ALTER VIEW j OWNER TO regress_kda_seams;
SELECT count(*) FROM pg_depend d JOIN pg_class c ON c.oid = d.objid JOIN kda_storage.query q ON d.refobjid = q.rel
	WHERE q.stream2 = 'r'::regclass AND d.deptype = 'i' AND d.classid = 'pg_class'::regclass AND c.relowner <> 'regress_kda_seams'::regrole;
INSERT INTO r VALUES ('2026-01-01 10:00:02', 1, 12);
SELECT kda.wait('r');
SELECT name, state, last_error FROM kda.queries WHERE name IN ('j', 'n') ORDER BY 1;
DROP STREAM l, r CASCADE;
DROP ROLE regress_kda_seams;
-- RESET: what is kept leaves once, and time begins anew
CREATE STREAM c (rowtime timestamptz, k int, v int) OPTIONS (idle_timeout 'never');
CREATE STREAM d (rowtime timestamptz, k int, v int) OPTIONS (idle_timeout 'never');
CREATE CONTINUOUS VIEW sorted AS SELECT k, v FROM c ORDER BY rowtime WITHIN INTERVAL '10' SECOND;
CREATE CONTINUOUS VIEW sums AS SELECT k, v, sum(v) OVER (PARTITION BY k ORDER BY rowtime RANGE INTERVAL '1' MINUTE PRECEDING) FROM c;
CREATE PUMP copy AS INSERT INTO d SELECT rowtime, k, v FROM c;
CREATE CONTINUOUS VIEW counts AS SELECT count(*) FROM d WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
INSERT INTO c VALUES ('2030-01-01 10:00:00', 1, 1);
SELECT kda.wait('c'), kda.wait('d');
ALTER STREAM c RESET;
SELECT kda.wait('c'), kda.wait('d');
ALTER STREAM d RESET;
SELECT kda.wait('d');
INSERT INTO c VALUES ('2026-01-01 10:00:00', 1, 10);
SELECT kda.wait('c'), kda.wait('d');
ALTER STREAM c RESET;
SELECT kda.wait('c');
INSERT INTO c VALUES ('2026-01-01 10:00:01', 1, 100);
SELECT kda.wait('c'), kda.wait('d');
SELECT * FROM sorted ORDER BY v;
SELECT * FROM sums ORDER BY v;
SELECT * FROM counts ORDER BY 1;
SELECT name, records_late FROM kda.queries WHERE name IN ('sorted', 'sums', 'copy', 'counts') ORDER BY 1;
-- a sort that begins later waits for what is earlier, too
CREATE CONTINUOUS VIEW later AS SELECT k, v FROM c ORDER BY rowtime WITHIN INTERVAL '10' SECOND;
INSERT INTO c VALUES ('2026-01-01 09:59:55', 1, 7), ('2026-01-01 10:01:00', 1, 8);
SELECT kda.wait('c');
SELECT * FROM later;
DROP STREAM c, d CASCADE;
-- both sides of a join begin anew together
CREATE STREAM l (rowtime timestamptz, k int, v int) OPTIONS (idle_timeout 'never');
CREATE STREAM r (rowtime timestamptz, k int, w int) OPTIONS (idle_timeout 'never');
CREATE CONTINUOUS VIEW j AS SELECT l.k, l.v, r.w FROM l JOIN r ON l.k = r.k AND r.rowtime BETWEEN l.rowtime AND l.rowtime + INTERVAL '10' SECOND;
INSERT INTO l VALUES ('2030-01-01 10:00:00', 1, 1);
INSERT INTO r VALUES ('2030-01-01 10:00:01', 1, 11);
SELECT kda.wait('l'), kda.wait('r');
BEGIN;
ALTER STREAM l RESET;
ALTER STREAM r RESET;
INSERT INTO l VALUES ('2026-01-01 10:00:00', 1, 2);
INSERT INTO r VALUES ('2026-01-01 10:00:01', 1, 22);
COMMIT;
SELECT kda.wait('l'), kda.wait('r');
SELECT * FROM j ORDER BY v;
DROP STREAM l, r CASCADE;
-- keys whose result fails do not take others with them, also when time has gone beyond the end of their window
CREATE STREAM f (rowtime timestamptz, k int, v int) OPTIONS (idle_timeout 'never');
CREATE CONTINUOUS VIEW quotients AS SELECT k, 1 / sum(v) AS x FROM f WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k EMIT ON WINDOW CLOSE;
INSERT INTO f SELECT '2026-01-01 10:00:00', g, CASE WHEN g % 10 = 0 THEN 0 ELSE 1 END FROM generate_series(1, 100) g;
INSERT INTO f VALUES ('2026-01-01 10:05:00', 0, 1);
SELECT kda.wait('f');
SELECT count(*) FROM quotients;
SELECT count(*), min(data_rowtime), max(data_rowtime) FROM kda.error_stream WHERE stream = 'f'::regclass;
DROP STREAM f CASCADE;
