-- What test_random_queries.py has found, each made small.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages = warning;
CREATE STREAM s (rowtime timestamptz, id int, k text, v int) OPTIONS (idle_timeout 'never');
CREATE TABLE d (k text);
INSERT INTO d VALUES ('c'), ('b'), ('a');
ANALYZE d;

-- frames that end before the row; a frame that ends at the row's own time does not see what came later
CREATE CONTINUOUS VIEW before_row AS SELECT id, sum(v) OVER (ORDER BY rowtime ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING) AS r,
	sum(v) OVER (RANGE BETWEEN INTERVAL '2' MINUTE PRECEDING AND INTERVAL '1' MINUTE PRECEDING) AS t,
	count(*) OVER (RANGE BETWEEN INTERVAL '0' SECOND PRECEDING AND INTERVAL '0' SECOND PRECEDING) AS own FROM s;
-- EXISTS and IN are joins, which give the rows of a batch in an order of their own: rows of one time keep that of their arrival
CREATE CONTINUOUS VIEW known AS SELECT id, sum(id) OVER (ORDER BY rowtime ROWS 1 PRECEDING) AS two FROM s WHERE EXISTS (SELECT FROM d WHERE d.k = s.k);
CREATE CONTINUOUS VIEW staggered AS SELECT count(*) AS n, max(id) AS last FROM s WHERE EXISTS (SELECT FROM d WHERE d.k = s.k)
	WINDOWED BY STAGGER (PARTITION BY v > 0 RANGE INTERVAL '30' SECOND);
-- a window function over an aggregate that is not shown, in a session
CREATE CONTINUOUS VIEW ranked AS SELECT sum(v) AS v, rank() OVER (ORDER BY count(*)) AS r FROM s WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k;
-- grouped by their bounds, sessions of several keys are one window
CREATE CONTINUOUS VIEW by_bounds AS SELECT window_start, window_end, sum(n) AS n, count(*) AS keys FROM
	(SELECT window_start, window_end, k, count(*) AS n FROM s WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k) x GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW long_ones AS SELECT * FROM (SELECT window_start, k, count(*) AS n FROM s WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k) x WHERE n > 1;

INSERT INTO s VALUES ('2026-01-01 10:00+00', 1, 'a', 1), ('2026-01-01 10:00+00', 2, 'b', 1), ('2026-01-01 10:00+00', 3, 'c', 1),
	('2026-01-01 10:01+00', 4, 'a', 10), ('2026-01-01 10:01+00', 5, 'c', 10), ('2026-01-01 10:01:40+00', 6, 'b', 100), ('2026-01-01 10:01:20+00', 7, 'b', 100),
	('2026-01-01 10:02:30+00', 8, 'a', 1000);
SELECT kda.wait('s');
SELECT * FROM before_row ORDER BY id;
SELECT * FROM known ORDER BY id;
SELECT kda.advance('s', '2026-01-01 12:00+00');
SELECT kda.wait('s');
SELECT * FROM staggered ORDER BY window_start;
SELECT * FROM ranked ORDER BY v;
SELECT * FROM by_bounds ORDER BY window_start;
SELECT * FROM long_ones ORDER BY window_start, k;

-- The other stream is so far ahead that a row is passed when it comes: it leaves at once, before the window that it belongs to closes.
CREATE STREAM l (rowtime timestamptz, id int) OPTIONS (idle_timeout 'never');
CREATE STREAM r (rowtime timestamptz, id int) OPTIONS (idle_timeout 'never');
CREATE CONTINUOUS VIEW unmatched AS SELECT count(*) AS n, count(r.id) AS matched FROM l LEFT JOIN r ON l.id = r.id AND r.rowtime = l.rowtime
	WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
INSERT INTO r VALUES ('2026-01-01 10:00+00', 1), ('2026-01-01 11:00+00', 9);
SELECT kda.wait('r');
INSERT INTO l VALUES ('2026-01-01 10:00+00', 1);
SELECT kda.wait('l');
INSERT INTO l VALUES ('2026-01-01 10:00:30+00', 2);
SELECT kda.wait('l');
INSERT INTO l VALUES ('2026-01-01 10:05+00', 3);
SELECT kda.wait('l');
SELECT * FROM unmatched ORDER BY window_start;
SELECT name, state, last_error FROM kda.queries WHERE state <> 'running' OR last_error IS NOT NULL;
SELECT error_name, message, data_text FROM kda.error_stream WHERE error_name <> 'late';
DROP STREAM s, l, r CASCADE;
DROP TABLE d;

-- a pump whose query begins with WITH; one that passes rows on in the order in which they came, whatever the plan
SET client_min_messages = warning;
CREATE STREAM s (rowtime timestamptz, id int, k text) OPTIONS (idle_timeout 'never');
CREATE STREAM passed (id int, k text) OPTIONS (idle_timeout 'never');
CREATE TABLE d (k text, name text);
INSERT INTO d VALUES ('c', 'see'), ('b', 'bee'), ('a', 'ay');
ANALYZE d;
CREATE TABLE named (id int, name text);
CREATE PUMP names AS INSERT INTO named WITH n AS (SELECT k, upper(name) AS name FROM d) SELECT id, name FROM s JOIN n USING (k) ON CONFLICT DO NOTHING;
CREATE PUMP pass AS INSERT INTO passed SELECT id, k FROM s WHERE k IN (SELECT d.k FROM d);
CREATE CONTINUOUS VIEW in_order AS SELECT id, array_agg(k) OVER (ROWS 2 PRECEDING) AS last_three FROM passed;
INSERT INTO s VALUES ('2026-01-01 10:00+00', 1, 'a'), ('2026-01-01 10:00+00', 2, 'b'), ('2026-01-01 10:00+00', 3, 'c'), ('2026-01-01 10:00+00', 4, 'x');
SELECT kda.wait('s');
SELECT kda.wait('passed');
SELECT * FROM named ORDER BY id;
SELECT * FROM in_order ORDER BY id;
DROP STREAM s, passed CASCADE;
DROP TABLE d, named;
