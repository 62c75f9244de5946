-- Rows that leave more than once: allowed_lateness, EMIT EVERY, EMIT CHANGES of windows.
SET timezone = 'UTC';
SET datestyle = 'ISO';

-- a record after its window has closed, but not more than two minutes after, corrects the result
CREATE STREAM s (rowtime timestamptz, k text, v int) OPTIONS (allowed_lateness '2 minutes', idle_timeout 'never');
CREATE TABLE log (id serial, w timestamptz, k text, n bigint, s bigint, rev int, closed boolean);
CREATE TABLE last (w timestamptz, k text, n bigint, rev int, PRIMARY KEY (w, k));
CREATE CONTINUOUS VIEW v AS SELECT k, count(*) AS n, sum(v) AS s, window_revision, window_closed FROM s
	WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW v_closed AS SELECT k, count(*) AS n FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k EMIT ON WINDOW CLOSE;
CREATE CONTINUOUS VIEW hop AS SELECT count(*) AS n, window_revision AS rev FROM s WINDOWED BY SLIDING (INTERVAL '2' MINUTE, INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW cum AS SELECT count(*) AS n, window_revision AS rev FROM s WINDOWED BY CUMULATING (INTERVAL '2' MINUTE, INTERVAL '1' MINUTE);
-- what is kept are rows; the keys of GROUP BY still tell which row is which
CREATE CONTINUOUS VIEW exact AS SELECT k, count(DISTINCT v) AS n, window_revision AS rev FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
-- nothing tells these apart: they count the corrections of their window
CREATE CONTINUOUS VIEW best AS SELECT k, v, window_revision AS rev FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) ORDER BY v DESC LIMIT 2;
CREATE PUMP to_log AS INSERT INTO log (w, k, n, s, rev, closed)
	SELECT window_start, k, count(*), sum(v), window_revision, window_closed FROM s
	WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k HAVING count(*) <> 2;
CREATE PUMP to_last AS INSERT INTO last SELECT window_start, k, count(*), window_revision FROM s
	WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k
	ON CONFLICT (w, k) DO UPDATE SET n = EXCLUDED.n, rev = EXCLUDED.rev;

INSERT INTO s VALUES ('2026-01-01 10:00:10+00', 'a', 1), ('2026-01-01 10:00:20+00', 'b', 2), ('2026-01-01 10:01:10+00', 'a', 3);
SELECT kda.wait('s');
TABLE v ORDER BY window_start, k;
TABLE log;

-- a second one for a: HAVING leaves it out now
INSERT INTO s VALUES ('2026-01-01 10:00:30+00', 'a', 10);
SELECT kda.wait('s');
-- a third one, and a group that is new; b has not changed and is not emitted again
INSERT INTO s VALUES ('2026-01-01 10:00:40+00', 'a', 10), ('2026-01-01 10:00:40+00', 'c', 7);
SELECT kda.wait('s');
TABLE v ORDER BY window_start, k;
TABLE v_closed ORDER BY window_start, k;
TABLE hop ORDER BY window_start;
TABLE cum ORDER BY window_end;
TABLE exact ORDER BY window_start, k;
TABLE best ORDER BY window_start, v DESC;
TABLE log;
TABLE last ORDER BY w, k;
-- its pump shows what is open, not what is kept for corrections
TABLE to_log;

-- a record that changes nothing is no correction
INSERT INTO s VALUES ('2026-01-01 10:00:41+00', 'a', 10);
SELECT kda.wait('s');
SELECT k, n, rev FROM exact WHERE window_start = '2026-01-01 10:00:00+00' ORDER BY k;

-- window_end + 2 minutes: from here on it is late
INSERT INTO s VALUES ('2026-01-01 10:03:00+00', 'z', 1);
SELECT kda.wait('s');
INSERT INTO s VALUES ('2026-01-01 10:00:50+00', 'a', 1000);
SELECT kda.wait('s');
TABLE v ORDER BY window_start, k;
-- of a hop it counts in the windows that are not past yet
TABLE hop ORDER BY window_start;
SELECT error_name, data_text FROM kda.error_stream WHERE stream = 's'::regclass;
SELECT name, records_late FROM kda.queries WHERE name IN ('v', 'hop', 'to_log') ORDER BY name;
-- what no correction can reach any more is forgotten
SELECT kda.advance('s', '2026-01-01 11:00:00+00');
SELECT kda.wait('s');
SELECT name, open_windows, groups FROM kda.queries WHERE name IN ('v', 'hop', 'cum', 'exact', 'best', 'to_log') ORDER BY name;
SELECT k, n, s, window_revision, window_closed FROM v WHERE window_start = '2026-01-01 10:00:00+00' ORDER BY k;
DROP STREAM s CASCADE;

-- further queries: of a view, and of a SELECT below another one, they get the rows that are final
CREATE STREAM s (rowtime timestamptz, k text) OPTIONS (allowed_lateness '2 minutes', idle_timeout 'never');
CREATE STREAM d (rowtime timestamptz, k text, n bigint, rev int);
CREATE CONTINUOUS VIEW base AS SELECT k, count(*) AS n FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW of_view AS SELECT window_start, sum(n) AS n, count(*) AS rows FROM base WINDOWED BY TUMBLING (INTERVAL '2' MINUTE);
CREATE CONTINUOUS VIEW of_select AS SELECT window_start, sum(n) AS n, count(*) AS rows FROM
	(SELECT k, count(*) AS n FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k) x WINDOWED BY TUMBLING (INTERVAL '2' MINUTE);
-- a stream that a pump writes has each revision as a record
CREATE PUMP p AS INSERT INTO d (k, n, rev) SELECT k, count(*), window_revision FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW of_stream AS SELECT max(n) AS n, count(*) AS rows, max(rev) AS rev FROM d WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) EMIT ON WINDOW CLOSE;
INSERT INTO s VALUES ('2026-01-01 10:00:10+00', 'a'), ('2026-01-01 10:01:10+00', 'a');
SELECT kda.wait('s');
INSERT INTO s VALUES ('2026-01-01 10:00:30+00', 'a'), ('2026-01-01 10:02:30+00', 'a');
SELECT kda.wait('s');
-- its watermark is less two minutes
SELECT kda.watermark('d');
TABLE base ORDER BY 1;
TABLE of_view;
INSERT INTO s VALUES ('2026-01-01 10:01:40+00', 'a'), ('2026-01-01 10:05:00+00', 'a');
SELECT kda.wait('s');
TABLE base ORDER BY 1;
TABLE of_view;
TABLE of_select;
TABLE of_stream ORDER BY 1;
SELECT count(*) FROM kda.error_stream WHERE stream IN ('s'::regclass, 'd'::regclass);

-- RESET closes what is open, and nothing is corrected any more
ALTER STREAM s RESET;
SELECT kda.wait('s');
TABLE base ORDER BY 1;

-- what cannot be corrected says so
CREATE CONTINUOUS VIEW e AS SELECT count(*), window_revision + 1 AS r FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT k, count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k HAVING window_revision > 0;
ALTER STREAM d OPTIONS (SET allowed_lateness '1 minute');
-- another value is no trouble, where corrections are provided for
ALTER STREAM s OPTIONS (SET allowed_lateness '1 minute');
DROP STREAM s, d CASCADE;

-- what is made otherwise waits for late records: OVER, joins, UNION ALL, sessions of several keys in one row
CREATE STREAM s (rowtime timestamptz, k text, v int) OPTIONS (allowed_lateness '2 minutes', idle_timeout 'never');
CREATE STREAM d (rowtime timestamptz, k text, v int) OPTIONS (idle_timeout 'never');
CREATE CONTINUOUS VIEW minute AS SELECT rowtime::time AS t, v, sum(v) OVER (ORDER BY rowtime RANGE INTERVAL '1' MINUTE PRECEDING) FROM s;
CREATE CONTINUOUS VIEW joined AS SELECT a.rowtime::time AS t, a.v, b.v AS w FROM s a LEFT JOIN d b ON a.k = b.k AND b.rowtime BETWEEN a.rowtime - INTERVAL '1' MINUTE AND a.rowtime;
CREATE CONTINUOUS VIEW fan_in AS SELECT window_start::time AS t, count(*) FROM (SELECT k FROM s UNION ALL SELECT k FROM d) u WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW mixed AS SELECT window_start::time AS t, count(DISTINCT v), window_closed AS closed FROM TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
INSERT INTO d VALUES ('2026-01-01 10:00:00+00', 'a', 100), ('2026-01-01 10:01:00+00', 'a', 101), ('2026-01-01 10:09:00+00', 'a', 102);
INSERT INTO s VALUES ('2026-01-01 10:00:10+00', 'a', 1), ('2026-01-01 10:02:00+00', 'a', 2);
SELECT kda.wait('s'), kda.wait('d');
TABLE minute;
TABLE joined ORDER BY t, v;
TABLE mixed ORDER BY t;
-- 10:00:20 has been waited for; 10:04:00 ends that, and 10:00:40 is too late
INSERT INTO s VALUES ('2026-01-01 10:00:20+00', 'a', 3), ('2026-01-01 10:04:00+00', 'b', 9), ('2026-01-01 10:02:00+00', 'a', 10), ('2026-01-01 10:00:40+00', 'a', 99);
SELECT kda.wait('s'), kda.wait('d');
TABLE minute;
TABLE joined ORDER BY t, v;
TABLE mixed ORDER BY t;
SELECT kda.advance('s', '2026-01-01 11:00:00+00'), kda.advance('d', '2026-01-01 11:00:00+00');
SELECT kda.wait('s'), kda.wait('d');
TABLE minute;
TABLE joined ORDER BY t, v;
TABLE fan_in ORDER BY t;
TABLE mixed ORDER BY t;
SELECT name, records_late FROM kda.queries ORDER BY name;
-- less at any time; not more where what it would match has gone
ALTER STREAM s OPTIONS (SET allowed_lateness '1 minute');
ALTER STREAM s OPTIONS (SET allowed_lateness '3 minutes');
DROP STREAM s, d CASCADE;

-- a view of records waits as well, if they are read further
CREATE STREAM s (rowtime timestamptz, k text, v int) OPTIONS (allowed_lateness '2 minutes', idle_timeout 'never');
CREATE CONTINUOUS VIEW records AS SELECT rowtime, k, v FROM s;
CREATE CONTINUOUS VIEW of_records AS SELECT window_start::time AS t, count(*) AS n FROM records WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
-- rows that nothing tells apart: each correction counts on
CREATE TABLE log_rows (id serial, k text, n bigint, rev int);
CREATE PUMP to_rows AS INSERT INTO log_rows (k, n, rev) SELECT k, count(*), window_revision
	FROM TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(rowtime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, k, v HAVING count(*) < 3;
INSERT INTO s VALUES ('2026-01-01 10:00:00+00', 'a', 1), ('2026-01-01 10:00:00+00', 'a', 2), ('2026-01-01 10:01:50+00', 'b', 2);
SELECT kda.wait('s');
INSERT INTO s VALUES ('2026-01-01 10:00:00+00', 'a', 1);
SELECT kda.wait('s');
INSERT INTO s VALUES ('2026-01-01 10:00:00+00', 'a', 1);
SELECT kda.wait('s');
INSERT INTO s VALUES ('2026-01-01 10:00:00+00', 'a', 2);
SELECT kda.wait('s');
SELECT * FROM log_rows ORDER BY id;
TABLE of_records ORDER BY t;
SELECT count(*) FROM kda.error_stream WHERE stream = 's'::regclass;
DROP STREAM s CASCADE;
DROP TABLE log_rows;

-- EMIT CHANGES of a pump: what has changed with a commit, and all of it on close
CREATE STREAM s (rowtime timestamptz, k text, v int) OPTIONS (idle_timeout 'never');
TRUNCATE log RESTART IDENTITY;
CREATE PUMP changes AS INSERT INTO log (w, k, n, closed) SELECT window_start, k, count(*), window_closed FROM s
	WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k HAVING count(*) <> 2 EMIT CHANGES;
CREATE TABLE log_hop (id serial, w timestamptz, n bigint, closed boolean);
CREATE PUMP changes_hop AS INSERT INTO log_hop (w, n, closed) SELECT window_start, count(*), window_closed FROM s
	WINDOWED BY SLIDING (INTERVAL '2' MINUTE, INTERVAL '1' MINUTE) EMIT CHANGES;
INSERT INTO s VALUES ('2026-01-01 10:00:10+00', 'a', 1), ('2026-01-01 10:00:20+00', 'b', 2);
SELECT kda.wait('s');
INSERT INTO s VALUES ('2026-01-01 10:00:30+00', 'a', 1);
SELECT kda.wait('s');
INSERT INTO s VALUES ('2026-01-01 10:00:40+00', 'a', 1);
SELECT kda.wait('s');
INSERT INTO s VALUES ('2026-01-01 10:01:00+00', 'c', 1);
SELECT kda.wait('s');
SELECT * FROM log ORDER BY id;
SELECT * FROM log_hop ORDER BY id;
SELECT name, groups FROM kda.queries WHERE name = 'changes';
DROP STREAM s CASCADE;

-- sessions and stagger windows: what grows, or takes in others, takes their place
CREATE STREAM s (rowtime timestamptz, k text) OPTIONS (allowed_lateness '10 minutes', idle_timeout 'never');
CREATE CONTINUOUS VIEW visits AS SELECT window_start::time AS ws, window_end::time AS we, k, count(*) AS n, window_revision AS rev, window_closed AS closed
	FROM s WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW visits_kept AS SELECT window_start::time AS ws, window_end::time AS we, k, count(DISTINCT k) AS n, window_revision AS rev
	FROM s WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW staggered AS SELECT window_start::time AS ws, window_end::time AS we, k, count(*) AS n, window_revision AS rev, window_closed AS closed
	FROM s WINDOWED BY STAGGER (PARTITION BY k RANGE INTERVAL '1' MINUTE);
CREATE TABLE log_visits (id serial, ws time, we time, k text, n bigint, rev int, closed boolean);
CREATE PUMP to_visits AS INSERT INTO log_visits (ws, we, k, n, rev, closed)
	SELECT window_start::time, window_end::time, k, count(*), window_revision, window_closed FROM s WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k;
CREATE TABLE log_early (id serial, ws time, we time, k text, n bigint, rev int, closed boolean);
CREATE PUMP to_early AS INSERT INTO log_early (ws, we, k, n, rev, closed)
	SELECT window_start::time, window_end::time, k, count(*), window_revision, window_closed FROM s WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k EMIT CHANGES;
-- a has two sessions, which b's record closes
INSERT INTO s VALUES ('2026-01-01 10:00:00+00', 'a'), ('2026-01-01 10:02:00+00', 'a'), ('2026-01-01 10:04:00+00', 'b');
SELECT kda.wait('s');
TABLE visits ORDER BY k, ws;
-- between them: they are one, with the next revision; a stagger window is corrected as any other
INSERT INTO s VALUES ('2026-01-01 10:00:30+00', 'a'), ('2026-01-01 10:01:00+00', 'a');
SELECT kda.wait('s');
TABLE visits ORDER BY k, ws;
TABLE visits_kept ORDER BY k, ws;
TABLE staggered ORDER BY k, ws;
-- it grows so far that it is open again; then it closes once more
INSERT INTO s VALUES ('2026-01-01 10:03:00+00', 'a'), ('2026-01-01 10:04:00+00', 'a');
SELECT kda.wait('s');
TABLE visits ORDER BY k, ws;
INSERT INTO s VALUES ('2026-01-01 10:05:30+00', 'b');
SELECT kda.wait('s');
TABLE visits ORDER BY k, ws;
TABLE visits_kept ORDER BY k, ws;
TABLE staggered ORDER BY k, ws;
SELECT * FROM log_visits ORDER BY id;
SELECT k, ws, we, n, rev, closed FROM log_early ORDER BY k, id;
-- final: nothing is kept
SELECT kda.advance('s', '2026-01-01 11:00:00+00');
SELECT kda.wait('s');
TABLE visits ORDER BY k, ws;
SELECT DISTINCT open_windows, groups FROM kda.queries;
DROP STREAM s CASCADE;
DROP TABLE log_visits, log_early;

-- EMIT EVERY: the first change at once, then not before an hour has passed, but on close
CREATE STREAM s (rowtime timestamptz, k text, v int) OPTIONS (idle_timeout 'never');
TRUNCATE log RESTART IDENTITY;
CREATE CONTINUOUS VIEW v AS SELECT k, sum(100 / (v - 5)) AS s, window_closed FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k EMIT EVERY INTERVAL '1' HOUR;
CREATE CONTINUOUS VIEW total AS SELECT count(*) AS n FROM s EMIT EVERY INTERVAL '1' HOUR;
CREATE CONTINUOUS VIEW kinds AS SELECT DISTINCT k FROM s EMIT EVERY INTERVAL '1' HOUR;
CREATE PUMP p AS INSERT INTO log (w, k, n, closed) SELECT window_start, k, count(*), window_closed FROM s
	WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k EMIT EVERY INTERVAL '1' HOUR;
CREATE TABLE totals (id serial, k text, n bigint);
CREATE PUMP p_total AS INSERT INTO totals (k, n) SELECT k, count(*) FROM s GROUP BY k EMIT EVERY INTERVAL '1' HOUR;
CREATE CONTINUOUS VIEW visits AS SELECT k, count(*) AS n, window_closed FROM s WINDOWED BY SESSION (INTERVAL '20' SECOND) GROUP BY k EMIT EVERY INTERVAL '1' HOUR;
TABLE total;
INSERT INTO s VALUES ('2026-01-01 10:00:10+00', 'a', 6);
SELECT kda.wait('s');
INSERT INTO s VALUES ('2026-01-01 10:00:20+00', 'a', 7), ('2026-01-01 10:00:20+00', 'b', 7);
SELECT kda.wait('s');
TABLE v;
TABLE visits;
TABLE total;
TABLE kinds;
SELECT * FROM log ORDER BY id;
SELECT * FROM totals ORDER BY id;
INSERT INTO s VALUES ('2026-01-01 10:01:00+00', 'c', 7);
SELECT kda.wait('s');
TABLE v ORDER BY k;
TABLE visits ORDER BY k;
TABLE total;
SELECT k, n, closed FROM log ORDER BY id;
SELECT * FROM totals ORDER BY id;
SELECT pg_get_viewdef('v'::regclass) LIKE '%shown%' AS shown;
-- what cannot be
CREATE CONTINUOUS VIEW e AS SELECT k FROM s EMIT EVERY INTERVAL '1' SECOND;
CREATE PUMP e AS INSERT INTO totals (k) SELECT k FROM s EMIT EVERY INTERVAL '1' SECOND;
CREATE CONTINUOUS VIEW e AS SELECT window_start, count(*) FROM TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end EMIT EVERY INTERVAL '1' SECOND;
CREATE PUMP e AS INSERT INTO totals (n) SELECT count(*) FROM TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end EMIT CHANGES;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM s EMIT EVERY INTERVAL '0' SECOND;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM s EMIT EVERY INTERVAL '1' MONTH;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM s EMIT EVERY now() - now();
SELECT name, state, last_error FROM kda.queries WHERE state <> 'running' OR last_error IS NOT NULL;
DROP STREAM s CASCADE;
DROP TABLE log, log_hop, last, totals;
