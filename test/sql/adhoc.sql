-- SELECT with windows outside of continuous queries: once, over the rows that the stream's buffer holds, all windows shown.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE STREAM s (rowtime timestamptz, k text, v int);
CREATE STREAM arrivals (k text, v int);
CREATE TABLE same (LIKE s);
CREATE TABLE names (k text PRIMARY KEY, name text);
INSERT INTO names VALUES ('a', 'Anna'), ('b', 'Bert');
CREATE FUNCTION equal(a text, b text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE r boolean;
BEGIN
	EXECUTE format('SELECT NOT EXISTS ((%1$s) EXCEPT ALL (%2$s)) AND NOT EXISTS ((%2$s) EXCEPT ALL (%1$s))', a, b) INTO r;
	RETURN r;
END $$;
-- out of order, with gaps, and a row that comes twice
INSERT INTO s SELECT timestamptz '2026-01-01 10:00:00+00' + ((i * 37) % 101) * interval '11 s', (ARRAY['a', 'b', NULL])[1 + i % 3], i FROM generate_series(0, 60) i;
INSERT INTO s SELECT timestamptz '2026-01-01 10:00:00+00', 'a', 99;
INSERT INTO same SELECT * FROM s;
INSERT INTO arrivals VALUES ('a', 1), ('b', 2);

-- each kind gives what plain SQL gives
CREATE VIEW expected_sessions AS
	SELECT min(rowtime) AS s, max(rowtime) + interval '60 s' AS e, k, count(*) AS n, sum(v) AS v
	FROM (SELECT *, sum(new) OVER (PARTITION BY k ORDER BY rowtime) AS nth FROM
		(SELECT *, (rowtime - lag(rowtime) OVER (PARTITION BY k ORDER BY rowtime) <= interval '60 s') IS NOT TRUE AS is_new,
			CASE WHEN rowtime - lag(rowtime) OVER (PARTITION BY k ORDER BY rowtime) <= interval '60 s' THEN 0 ELSE 1 END AS new FROM same) x) y
	GROUP BY k, nth;
SELECT equal($$SELECT window_start, window_end, k, count(*), sum(v) FROM s WINDOWED BY TUMBLING (INTERVAL '2' MINUTES, INTERVAL '10' SECONDS) GROUP BY k$$,
		$$SELECT w, w + '2 min', k, count(*), sum(v) FROM same, kda.tumble_start(rowtime, '2 min', '10 s') w GROUP BY w, k$$) AS tumbling,
	equal($$SELECT window_start, window_end, k, count(DISTINCT v), string_agg(k, ',' ORDER BY v) FROM s WINDOWED BY SLIDING (INTERVAL '4' MINUTE, INTERVAL '2' MINUTE) GROUP BY k HAVING count(*) > 1$$,
		$$SELECT window_start, window_end, k, count(DISTINCT v), string_agg(k, ',' ORDER BY v) FROM same, kda.hop_windows(rowtime, '4 min', '2 min') GROUP BY 1, 2, k HAVING count(*) > 1$$) AS sliding,
	equal($$SELECT window_end, count(*) FROM s WINDOWED BY CUMULATING (INTERVAL '4' MINUTE, INTERVAL '1' MINUTE)$$,
		$$SELECT window_end, count(*) FROM same, kda.cumulate_windows(rowtime, '4 min', '1 min') GROUP BY window_start, window_end$$) AS cumulating,
	equal($$SELECT window_start, window_end, k, count(*), sum(v) FROM s WINDOWED BY SESSION (INTERVAL '60' SECOND) GROUP BY k$$, 'TABLE expected_sessions') AS session,
	equal($$SELECT window_start, window_end, k, count(*), sum(v) FROM TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(rowtime), INTERVAL '60' SECONDS)) GROUP BY window_start, window_end, k$$, 'TABLE expected_sessions') AS table_session;
-- sessions over all rows; conditions come before them, those on the windows after
SELECT window_start, window_end, count(*), window_closed FROM s WHERE v < 20 AND window_end > '2026-01-01 10:00:00+00' WINDOWED BY SESSION (INTERVAL '77' SECOND) ORDER BY 1;
SELECT window_start, window_end, count(*) FROM s WHERE v < 20 WINDOWED BY SESSION (INTERVAL '76' SECOND) ORDER BY 1;
-- stagger windows: a key's first row opens one; in the order of arrival
SELECT window_start, window_end, k, count(*), array_agg(v ORDER BY v) FROM s WHERE v < 20 WINDOWED BY STAGGER (PARTITION BY k RANGE INTERVAL '5' MINUTE) ORDER BY k, 1;
SELECT window_start, upper(k) AS key, count(*) FROM s WINDOWED BY STAGGER (PARTITION BY upper(k) RANGE INTERVAL '20' MINUTES) ORDER BY 2, 1;
-- rows lie in the buffer where a page has room (the last ones, which are small, beside the first), not in the order of arrival
CREATE STREAM pages (rowtime timestamptz, v int, filler text);
INSERT INTO pages SELECT timestamptz '2026-01-01 10:00+00' + i * interval '1 min', i, repeat('x', CASE WHEN i < 12 THEN 1800 ELSE 300 END) FROM generate_series(0, 15) i;
SELECT inbox FROM kda_storage.stream WHERE rel = 'pages'::regclass \gset
SELECT array_agg(c2 ORDER BY ctid) <> array_agg(c2 ORDER BY c2) AS scattered FROM :inbox;
SELECT array_agg(v) FROM pages;
SELECT window_start, array_agg(v) FROM pages WINDOWED BY STAGGER (PARTITION BY length(filler) > 0 RANGE INTERVAL '4' MINUTE) ORDER BY 1;
DROP STREAM pages;
-- of overlapping windows the one that was opened first
SELECT t, kda.stagger_start(t, '10 s') OVER (ORDER BY n) FROM (VALUES (1, timestamptz '2026-01-01 10:00:20+00'), (2, '2026-01-01 10:00:12+00'), (3, '2026-01-01 10:00:21+00'), (4, '2026-01-01 10:00:19+00'), (5, NULL), (6, '2026-01-01 10:00:30+00')) v(n, t);
-- without an aggregate: a row for each record and window
SELECT * FROM s WHERE v IN (1, 2, 9) WINDOWED BY SESSION (INTERVAL '17' SECOND) ORDER BY v;
SELECT *, window_start FROM s WHERE v IN (1, 9) WINDOWED BY SLIDING (INTERVAL '2' MINUTE, INTERVAL '1' MINUTE) ORDER BY v, window_start;
SELECT * FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(rowtime), INTERVAL '1' DAY)) AS w WHERE v = 1;

-- every spelling
SELECT STREAM k, STEP(s.ROWTIME BY INTERVAL '10' MINUTE), count(*) FROM s GROUP BY k, STEP(ROWTIME BY INTERVAL '10' MINUTE) ORDER BY 2, 1;
SELECT FLOOR(x.ROWTIME TO HOUR) AS h, count(*), max(x.rowtime), ROWTIME FROM s x GROUP BY 1;
SELECT window_start, window_end, count(*) FROM TABLE(HOP(TABLE s, DESCRIPTOR(rowtime), INTERVAL '10' MINUTES, INTERVAL '20' MINUTES)) GROUP BY window_start, window_end ORDER BY 1;
SELECT * FROM kda.query($$ SELECT TUMBLE_START(rowtime, INTERVAL '10' MINUTE), count(*) FROM s GROUP BY TUMBLE(rowtime, INTERVAL '10' MINUTE) ORDER BY 1 $$) AS t(w timestamptz, n bigint);
SELECT * FROM kda.query($$ SELECT HOP_END(rowtime, INTERVAL '10' MINUTE, INTERVAL '20' MINUTE), count(*) FROM s GROUP BY HOP(rowtime, INTERVAL '10' MINUTE, INTERVAL '20' MINUTE) ORDER BY 1 $$) AS t(w timestamptz, n bigint);
SELECT * FROM kda.query($$ SELECT k, SESSION_START(rowtime, INTERVAL '5' MINUTE), SESSION_END(rowtime, INTERVAL '5' MINUTE), count(*) FROM s GROUP BY k, SESSION(rowtime, INTERVAL '5' MINUTE) ORDER BY 1 $$) AS t(k text, w timestamptz, e timestamptz, n bigint);
SELECT * FROM kda.query($$ SELECT STREAM k, count(*) FROM s // a comment
	WINDOWED BY SESSION (INTERVAL '5' MINUTE) GROUP BY k ORDER BY 1 $$) AS t(k text, n bigint);
-- the older spelling of Flink, as bare SQL: the words for windows, the auxiliary functions, any container
SELECT window_start, window_end, count(*) FROM s GROUP BY HOP(rowtime, INTERVAL '10' MINUTE, INTERVAL '20' MINUTE) HAVING count(*) > 20 ORDER BY 1;
SELECT k, window_start, SESSION_END(s.rowtime, INTERVAL '5' MINUTE), count(*) FROM s GROUP BY k, SESSION(s.rowtime, INTERVAL '5' MINUTE) ORDER BY 1;
COPY (SELECT TUMBLE_START(rowtime, INTERVAL '10' MINUTE) AS w, count(*) FROM s GROUP BY TUMBLE(rowtime, INTERVAL '10' MINUTE) ORDER BY 1) TO STDOUT;
SELECT count(*) FROM same GROUP BY TUMBLE(rowtime, INTERVAL '10' MINUTE);
CREATE VIEW e AS SELECT count(*) FROM s GROUP BY TUMBLE(rowtime, INTERVAL '10' MINUTE);
-- somebody's own function of that name stays theirs
CREATE FUNCTION tumble(timestamptz, interval) RETURNS text LANGUAGE sql AS $$ SELECT 'mine' $$;
SELECT TUMBLE(rowtime, INTERVAL '10' MINUTE), count(*) FROM s GROUP BY TUMBLE(rowtime, INTERVAL '10' MINUTE);
DROP FUNCTION tumble;
-- days and months are those of UTC, whatever the session's zone is
SET timezone = 'Asia/Seoul';
SELECT window_start AT TIME ZONE 'UTC' AS day, count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' DAY);
SELECT FLOOR(rowtime TO DAY) AT TIME ZONE 'UTC' AS day, count(*) FROM s GROUP BY FLOOR(rowtime TO DAY);
SELECT STEP(rowtime BY INTERVAL '1' MONTH) AT TIME ZONE 'UTC' AS month, count(*) FROM s GROUP BY STEP(rowtime BY INTERVAL '1' MONTH);
SELECT kda.tumble_start('2026-01-31 20:00Z', '1 day') AT TIME ZONE 'UTC' AS tumble, kda.step('2026-01-31 20:00Z', '1 day') AT TIME ZONE 'UTC' AS step,
	kda.floor(timestamptz '2026-01-31 20:00Z', 'day') AT TIME ZONE 'UTC' AS floor, kda.ceil(timestamptz '2026-01-31 20:00Z', 'month') AT TIME ZONE 'UTC' AS ceil;
SET timezone = 'UTC';
-- the stream's time when it declares none
SELECT count(*), max(rowtime) <= now() AS past, min(ROWTIME) <= max(a.rowtime) AS ordered FROM arrivals a WINDOWED BY SESSION (INTERVAL '1' HOUR);
SELECT count(*), ROWTIME > now() AS not_over FROM arrivals WINDOWED BY TUMBLING (INTERVAL '1000' YEAR);

-- joins, subqueries, sets, Top-N
SELECT n.name, FLOOR(x.ROWTIME TO HOUR) AS h, count(*) FROM names n JOIN s x ON x.k = n.k GROUP BY n.name, FLOOR(x.ROWTIME TO HOUR) ORDER BY 1;
SELECT n.name, window_start, count(*), sum(x.v) FROM names n JOIN s x ON x.k = n.k WHERE v < 12 WINDOWED BY SESSION (INTERVAL '2' MINUTE) GROUP BY n.name ORDER BY 1, 2;
SELECT *, window_end FROM s x LEFT JOIN names n ON n.k = x.k WHERE v < 3 WINDOWED BY SESSION (INTERVAL '7' MINUTE) ORDER BY v;
SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY window_start, window_end ORDER BY n DESC, k) AS rank
	FROM (SELECT k, window_start, window_end, count(*) AS n FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(rowtime), INTERVAL '10' MINUTE)) GROUP BY window_start, window_end, k) x) y
	WHERE rank = 1 ORDER BY window_start;
SELECT l.window_start, l.n, r.m FROM (SELECT window_start, count(*) AS n FROM s WINDOWED BY TUMBLING (INTERVAL '10' MINUTE)) l
	JOIN (SELECT STEP(ROWTIME BY INTERVAL '10' MINUTE), max(v) AS m FROM s GROUP BY 1) r USING (window_start) ORDER BY 1;
WITH w AS (SELECT k, window_start, count(*) AS n FROM s WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY k), s AS (SELECT 'cte') SELECT * FROM w, s ORDER BY k;
SELECT k, count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY k UNION ALL SELECT 'all', count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '10' MINUTE) ORDER BY 1, 2;
SELECT count(*) FROM names WHERE EXISTS (SELECT count(*) FROM s WHERE s.k = names.k WINDOWED BY TUMBLING (INTERVAL '10' MINUTE) HAVING count(*) > 15);

-- containers
CREATE TABLE result (k text, n bigint);
INSERT INTO result SELECT k, count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY k;
INSERT INTO result SELECT k, count(*) FROM s GROUP BY k, FLOOR(rowtime TO HOUR);
CREATE TABLE made AS SELECT k, count(*) AS n FROM s WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY k;
SELECT equal('TABLE made UNION ALL TABLE made', 'TABLE result');
COPY (SELECT k, count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY k ORDER BY k) TO STDOUT;
EXPLAIN (COSTS OFF) SELECT count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' HOUR);
PREPARE p(interval) AS SELECT window_start, count(*) FROM s WINDOWED BY TUMBLING ($1) ORDER BY 1;
EXECUTE p('10 min');
EXECUTE p('-3 min');
BEGIN;
DECLARE c CURSOR FOR SELECT window_end, count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '10' MINUTE) ORDER BY 1;
FETCH c;
COMMIT;
DO $$
DECLARE r record; len interval = '10 min';
BEGIN
	FOR r IN SELECT window_start AS w, count(*) AS n FROM s WINDOWED BY TUMBLING (len) ORDER BY 1 LOOP
		RAISE NOTICE '% %', r.w, r.n;
	END LOOP;
END $$;
SELECT kda.execute($$ CREATE STREAM later (rowtime timestamptz, v int); INSERT INTO later VALUES ('2026-01-01 10:00+00', 1);
	CREATE TABLE kept AS SELECT n.name, sum(v) AS v, max(rowtime) AS m FROM later, names n WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY n.name $$);
TABLE kept ORDER BY 1;
BEGIN; SELECT 1 / 0; SELECT count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY nosuch; ROLLBACK;

-- not in what is stored
CREATE VIEW e AS SELECT count(*) FROM s GROUP BY STEP(rowtime BY INTERVAL '1' MINUTE);
CREATE MATERIALIZED VIEW e AS SELECT count(*) FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
CREATE FUNCTION e() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE); END;
CREATE RULE e AS ON INSERT TO result DO ALSO SELECT count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
CREATE FUNCTION rounded(timestamptz) RETURNS timestamptz BEGIN ATOMIC SELECT FLOOR($1 TO HOUR); END;
SELECT rounded('2026-01-01 10:59+00');

-- errors point into the text
SELECT count(*) FROM names WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
SELECT count(*) FROM TABLE(TUMBLE(TABLE names, DESCRIPTOR(k), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
SELECT count(*) FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(v), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
SELECT count(*) FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) GROUP BY k;
SELECT * FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) a JOIN TABLE(TUMBLE(TABLE s, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) b ON a.k = b.k;
SELECT count(*) FROM s WINDOWED BY SESSION (INTERVAL '0' MINUTE);
SELECT count(*) FROM s WINDOWED BY SESSION (INTERVAL '1' MONTH);
SELECT count(*) FROM s WINDOWED BY SESSION (make_interval(mins => 1));
SELECT count(*) FROM s WINDOWED BY SLIDING (INTERVAL '1' MINUTE);
SELECT count(*) FROM s WINDOWED BY SLIDING (INTERVAL '1' MINUTE, INTERVAL '3' MINUTE);
SELECT count(*) FROM s WINDOWED BY SLIDING (INTERVAL '1' MINUTE, 'soon');
SELECT count(*) FROM s WINDOWED BY STAGGER (k, INTERVAL '3' MINUTE);
SELECT k, count(*) FROM s WINDOWED BY STAGGER (PARTITION BY k RANGE INTERVAL '3' MINUTE) GROUP BY k;
SELECT count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) WHERE v = 1;
SELECT count(*) FROM s GROUP BY k WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
SELECT k, count(*) FROM s WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY ROLLUP (k);
SELECT count(*) FROM s, generate_series(1, 2) g WINDOWED BY SESSION (INTERVAL '1' MINUTE);
SELECT * FROM s JOIN names USING (k) WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
SELECT count(*) FROM names n LEFT JOIN s x ON x.k = n.k WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
SELECT count(*) FROM (SELECT * FROM s) x WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
SELECT count(*) WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
SELECT nosuch, count(*) FROM s WINDOWED BY SESSION (INTERVAL '1' MINUTE);
SELECT v FROM s WHERE nosuch = 3 WINDOWED BY SESSION (INTERVAL '1' MINUTE);
SELECT v, count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
SELECT * FROM kda.query($$ SELECT k, sum(v) OVER (PARTITION BY k ROWS 10 PRECEDING) FROM s $$) AS t(k text, n bigint);
SELECT * FROM s JOIN names FOR SYSTEM_TIME AS OF s.rowtime ON names.k = s.k;
SELECT * FROM s ORDER BY k, rowtime WITHIN INTERVAL '1' MINUTE;
SELECT * FROM kda.query('INSERT INTO result VALUES (1)') AS t(k text);
SELECT k, count(*) FROM s GROUP BY k, STEP(s.rowtime BY INTERVAL '10' MINUTE) ORDER BY s.rowtime WITHIN INTERVAL '1' MINUTE;
DROP STREAM s, arrivals, later CASCADE;
DROP TABLE same, names, result, made, kept CASCADE;
DROP FUNCTION equal, rounded;
