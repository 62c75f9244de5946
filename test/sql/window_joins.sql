-- Joins of streams by window: the same as plain SQL over the same rows.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE STREAM a (rowtime timestamptz, k text, v int);
CREATE STREAM b (rowtime timestamptz, k text, w int);
CREATE STREAM c (at timestamptz, k text, z int) OPTIONS (rowtime 'at');
CREATE TABLE same_a (LIKE a);
CREATE TABLE same_b (LIKE b);
CREATE TABLE same_c (LIKE c);
CREATE TABLE names (k text, name text);
INSERT INTO names VALUES ('A', 'Ann'), ('B', 'Bob');
CREATE FUNCTION equal(a text, b text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE r boolean;
BEGIN
	EXECUTE format('SELECT NOT EXISTS ((%1$s) EXCEPT ALL (%2$s)) AND NOT EXISTS ((%2$s) EXCEPT ALL (%1$s))', a, b) INTO r;
	RETURN r;
END $$;

-- Flink's form: each side has a window, the conditions compare the bounds
CREATE CONTINUOUS VIEW inner_ AS
	SELECT L.k, v, w, L.window_start, L.window_end FROM
		(SELECT * FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES))) L
	JOIN (SELECT * FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES))) R
	ON L.k = R.k AND L.window_start = R.window_start AND L.window_end = R.window_end;
CREATE CONTINUOUS VIEW left_ AS
	SELECT window_start, k, v, w FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES)) L
	LEFT JOIN TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES)) R USING (k, window_start, window_end);
CREATE CONTINUOUS VIEW right_ AS
	SELECT R.window_start, R.k, v, w FROM (SELECT *, window_start, window_end FROM a WINDOWED BY TUMBLING (INTERVAL '5' MINUTE)) X
	RIGHT JOIN (SELECT *, window_start, window_end FROM b WINDOWED BY TUMBLING (INTERVAL '5' MINUTE)) R
	ON X.k = R.k AND X.rowtime > R.rowtime AND X.window_start = R.window_start AND X.window_end = R.window_end;
CREATE CONTINUOUS VIEW full_ AS
	SELECT COALESCE(L.window_start, R.window_start) AS s, L.k, R.k AS rk, v, w FROM
		(SELECT k, v, window_start, window_end FROM TABLE(HOP(TABLE a, DESCRIPTOR(rowtime), INTERVAL '2' MINUTES, INTERVAL '4' MINUTES)) WHERE v > 2) L
	FULL JOIN (SELECT k, w, window_start, window_end FROM TABLE(HOP(TABLE b, DESCRIPTOR(rowtime), INTERVAL '2' MINUTES, INTERVAL '4' MINUTES))) R
	ON L.k = R.k AND L.window_start = R.window_start AND L.window_end = R.window_end;
-- aggregates on the sides, above, and above that
CREATE CONTINUOUS VIEW sides AS
	SELECT window_start, window_end, k, n, m, name FROM
		(SELECT k, window_start, window_end, count(*) AS n FROM TABLE(CUMULATE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '2' MINUTES, INTERVAL '6' MINUTES)) GROUP BY window_start, window_end, k) L
	JOIN (SELECT k, window_start, window_end, sum(w) AS m FROM TABLE(CUMULATE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '2' MINUTES, INTERVAL '6' MINUTES)) GROUP BY window_start, window_end, k) R
	USING (window_start, window_end, k) LEFT JOIN names USING (k);
CREATE CONTINUOUS VIEW most AS
	SELECT s, e, max(n) AS most FROM (
		SELECT L.window_start AS s, L.window_end AS e, L.k, count(R.w) AS n FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES)) L
		LEFT JOIN TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES)) R
		ON L.k = R.k AND L.window_start = R.window_start AND L.window_end = R.window_end GROUP BY L.window_start, L.window_end, L.k) x GROUP BY s, e;
CREATE CONTINUOUS VIEW hours_ AS
	SELECT k, count(*) AS n FROM (
		SELECT L.k, L.window_start, L.window_end FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES)) L
		JOIN TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES)) R
		ON L.k = R.k AND L.window_start = R.window_start AND L.window_end = R.window_end) x
	WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY k;
CREATE CONTINUOUS VIEW top_ AS
	SELECT * FROM (
		SELECT L.window_start, L.window_end, v, w, ROW_NUMBER() OVER (PARTITION BY L.window_start, L.window_end ORDER BY v + w DESC, v) AS r
		FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES)) L JOIN TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES)) R
		ON L.k = R.k AND L.window_start = R.window_start AND L.window_end = R.window_end) x WHERE r <= 2;
-- semi and anti joins
CREATE CONTINUOUS VIEW in_ AS
	SELECT k, v FROM (SELECT * FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES))) L WHERE L.k IN (
		SELECT k FROM (SELECT * FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES))) R
		WHERE L.window_start = R.window_start AND L.window_end = R.window_end);
CREATE CONTINUOUS VIEW not_exists AS
	SELECT k, v FROM (SELECT * FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES))) L WHERE NOT EXISTS (
		SELECT * FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES)) R
		WHERE R.k = L.k AND R.window_end = L.window_end AND R.window_start = L.window_start);
CREATE CONTINUOUS VIEW in_with AS
	WITH l AS (SELECT * FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES))),
		r AS (SELECT * FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES))), n AS (SELECT * FROM names)
	SELECT l.k, name, v, w FROM l JOIN r USING (k, window_start, window_end) JOIN n ON n.k = l.k;
-- three streams, one of them twice
CREATE CONTINUOUS VIEW four AS
	SELECT A1.k, A1.v, A2.v AS v2, w, z FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES)) A1, TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES)) A2,
		TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES)) B, TABLE(TUMBLE(TABLE c, DESCRIPTOR(at), INTERVAL '5' MINUTES)) C
	WHERE A1.k = A2.k AND A1.v < A2.v AND B.k = A1.k AND C.k = A1.k AND A1.window_start = A2.window_start AND A1.window_end = A2.window_end
		AND B.window_start = A2.window_start AND B.window_end = A2.window_end AND C.window_start = B.window_start AND C.window_end = B.window_end;
-- ours: one window for all
CREATE CONTINUOUS VIEW ours AS SELECT a.k, count(*) AS n, sum(v) AS v, sum(w) AS w, max(ROWTIME) AS last FROM a JOIN b ON a.k = b.k WINDOWED BY TUMBLING (INTERVAL '5' MINUTE) GROUP BY a.k HAVING count(*) > 1;
CREATE CONTINUOUS VIEW ours_full AS SELECT * FROM (SELECT k, v FROM a WHERE v > 2) x FULL JOIN (SELECT k AS kk, w FROM b) y ON x.k = y.kk WINDOWED BY SLIDING (INTERVAL '4' MINUTE, INTERVAL '2' MINUTE) EMIT ON WINDOW CLOSE;
CREATE CONTINUOUS VIEW ours_three AS SELECT name, c.k, v, w, z, window_end FROM c JOIN a USING (k) JOIN b USING (k) JOIN names USING (k) WHERE a.v > 1 AND b.w < 90 WINDOWED BY CUMULATING (INTERVAL '6' MINUTE, INTERVAL '2' MINUTE);
-- a condition that compares times bounds the join instead: the window is over the joined rows
CREATE CONTINUOUS VIEW by_time AS SELECT a.k, count(*) AS n FROM a JOIN b ON a.k = b.k AND b.rowtime BETWEEN a.rowtime - INTERVAL '3' MINUTE AND a.rowtime WINDOWED BY TUMBLING (INTERVAL '5' MINUTE) GROUP BY a.k;
CREATE TABLE target (k text, v int, w int);
CREATE PUMP into_table AS INSERT INTO target SELECT a.k, v, w FROM a JOIN b ON a.k = b.k WINDOWED BY TUMBLING (INTERVAL '5' MINUTE);
SELECT attrelid::regclass AS view, string_agg(attname, ', ' ORDER BY attnum) AS columns FROM pg_attribute
	WHERE attrelid IN ('inner_'::regclass, 'left_'::regclass, 'ours'::regclass, 'ours_full'::regclass, 'in_'::regclass) AND attnum > 0 GROUP BY 1 ORDER BY 1;

INSERT INTO a SELECT timestamptz '2026-01-01 10:00:00+00' + i * interval '41 s', chr(65 + i % 4), i FROM generate_series(0, 30) i;
INSERT INTO b SELECT timestamptz '2026-01-01 10:01:00+00' + i * interval '67 s', chr(65 + i * i % 5), i FROM generate_series(0, 20) i;
INSERT INTO c SELECT timestamptz '2026-01-01 10:02:00+00' + i * interval '59 s', chr(65 + i % 3), i FROM generate_series(0, 20) i;
INSERT INTO same_a SELECT * FROM a;
INSERT INTO same_b SELECT * FROM b;
INSERT INTO same_c SELECT * FROM c;
SELECT kda.wait('a'), kda.wait('b'), kda.wait('c');
CREATE VIEW aw AS SELECT *, kda.tumble_start(rowtime, '5 min') AS s FROM same_a;
CREATE VIEW bw AS SELECT *, kda.tumble_start(rowtime, '5 min') AS s FROM same_b;
CREATE VIEW cw AS SELECT *, kda.tumble_start(at, '5 min') AS s FROM same_c;
-- with windows open and closed, then all closed
CREATE FUNCTION compare() RETURNS TABLE (name text, is_equal boolean) LANGUAGE sql AS $f$ VALUES
	('inner_', equal('TABLE inner_', 'SELECT k, v, w, s, s + ''5 min'' FROM aw JOIN bw USING (k, s)')),
	('left_', equal('TABLE left_', 'SELECT s, k, v, w FROM aw LEFT JOIN bw USING (k, s)')),
	('right_', equal('TABLE right_', 'SELECT bw.s, bw.k, v, w FROM aw RIGHT JOIN bw ON aw.k = bw.k AND aw.s = bw.s AND aw.rowtime > bw.rowtime')),
	('full_', equal('SELECT s, k, rk, v, w FROM full_', $$WITH l AS (SELECT * FROM same_a, kda.hop_windows(rowtime, '4 min', '2 min') WHERE v > 2), r AS (SELECT * FROM same_b, kda.hop_windows(rowtime, '4 min', '2 min')) SELECT coalesce(l.window_start, r.window_start), l.k, r.k, v, w FROM l FULL JOIN r ON l.k = r.k AND l.window_start = r.window_start$$)),
	('sides', equal('TABLE sides', $$SELECT l.*, m, name FROM (SELECT window_start, window_end, k, count(*) FROM same_a, kda.cumulate_windows(rowtime, '6 min', '2 min') GROUP BY 1, 2, 3) l JOIN (SELECT window_start, window_end, k, sum(w) AS m FROM same_b, kda.cumulate_windows(rowtime, '6 min', '2 min') GROUP BY 1, 2, 3) r USING (window_start, window_end, k) LEFT JOIN names USING (k)$$)),
	('most', equal('SELECT s, e, most FROM most', $$SELECT s, s + '5 min', max(n) FROM (SELECT s, k, count(w) AS n FROM aw LEFT JOIN bw USING (k, s) GROUP BY 1, 2) x GROUP BY 1, 2$$)),
	('top_', equal('SELECT window_start, v, w, r FROM top_', $$SELECT * FROM (SELECT s, v, w, row_number() OVER (PARTITION BY s ORDER BY v + w DESC, v) AS r FROM aw JOIN bw USING (k, s)) x WHERE r <= 2$$)),
	('in_', equal('SELECT k, v FROM in_', 'SELECT k, v FROM aw WHERE (k, s) IN (SELECT k, s FROM bw)')),
	('not_exists', equal('SELECT k, v FROM not_exists', 'SELECT k, v FROM aw WHERE (k, s) NOT IN (SELECT k, s FROM bw)')),
	('in_with', equal('SELECT k, name, v, w FROM in_with', 'SELECT k, name, v, w FROM aw JOIN bw USING (k, s) JOIN names USING (k)')),
	('four', equal('SELECT k, v, v2, w, z FROM four', 'SELECT x.k, x.v, y.v, w, z FROM aw x JOIN aw y USING (k, s) JOIN bw USING (k, s) JOIN cw USING (k, s) WHERE x.v < y.v')),
	('ours', equal('SELECT window_start, k, n, v, w, last FROM ours', 'SELECT s, k, count(*), sum(v), sum(w), max(greatest(aw.rowtime, bw.rowtime)) FROM aw JOIN bw USING (k, s) GROUP BY 1, 2 HAVING count(*) > 1')),
	('ours_three', equal('SELECT name, k, v, w, z, window_end FROM ours_three', $$SELECT name, k, v, w, z, x.window_end FROM (same_c CROSS JOIN kda.cumulate_windows(at, '6 min', '2 min')) x (at, k, z, window_start, window_end) JOIN (same_a CROSS JOIN kda.cumulate_windows(rowtime, '6 min', '2 min')) y (t, k, v, window_start, window_end) USING (k, window_start, window_end) JOIN (same_b CROSS JOIN kda.cumulate_windows(rowtime, '6 min', '2 min')) z (t, k, w, window_start, window_end) USING (k, window_start, window_end) JOIN names USING (k) WHERE v > 1 AND w < 90$$)),
	('by_time', equal('SELECT window_start, k, n FROM by_time', $$SELECT kda.tumble_start(greatest(a.rowtime, b.rowtime), '5 min'), a.k, count(*) FROM same_a a JOIN same_b b ON a.k = b.k AND b.rowtime BETWEEN a.rowtime - interval '3 min' AND a.rowtime GROUP BY 1, 2$$)) $f$;
SELECT * FROM compare() WHERE NOT is_equal;
SELECT count(*) FROM target;
-- once, over what the buffers hold
CREATE TABLE once AS SELECT a.k, v, w FROM a JOIN b ON a.k = b.k WINDOWED BY TUMBLING (INTERVAL '5' MINUTE);
CREATE TABLE once_flink AS SELECT L.k, v, w FROM (SELECT * FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES))) L
	JOIN (SELECT * FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '5' MINUTES))) R ON L.k = R.k AND L.window_start = R.window_start AND L.window_end = R.window_end;
SELECT equal('TABLE once', 'SELECT k, v, w FROM aw JOIN bw USING (k, s)') AS once, equal('TABLE once_flink', 'TABLE once') AS once_flink;
SELECT a.k, v, w FROM a LEFT JOIN b ON a.k = b.k WINDOWED BY TUMBLING (INTERVAL '5' MINUTE);
SELECT kda.advance('a', '2026-01-01 12:00:00+00'), kda.advance('b', '2026-01-01 12:00:00+00'), kda.advance('c', '2026-01-01 12:00:00+00');
SELECT kda.wait('a'), kda.wait('b'), kda.wait('c');
SELECT * FROM compare();
SELECT equal('SELECT k, v, kk, w FROM ours_full', 'SELECT k, v, rk, w FROM full_') AS ours_full,
	equal('TABLE target', 'SELECT k, v, w FROM aw JOIN bw USING (k, s)') AS target,
	equal('SELECT window_start, k, n FROM hours_', $$SELECT kda.tumble_start(s, '1 hour'), k, count(*) FROM aw JOIN bw USING (k, s) GROUP BY 1, 2$$) AS hours;
SELECT name, state, last_error FROM kda.queries WHERE state <> 'running' OR last_error IS NOT NULL;
-- nothing is kept of closed windows
SELECT sum(n) FROM (SELECT (xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM kda_storage.%I', relname), false, true, '')))[1]::text::int AS n
	FROM pg_class WHERE relname ~ '^open_' AND relkind = 'r') k;

-- late is what its own stream says: b is ahead of a
INSERT INTO b VALUES ('2026-01-01 12:10:00+00', 'A', 1000);
SELECT kda.wait('b');
INSERT INTO b VALUES ('2026-01-01 12:01:00+00', 'A', 1001), ('2026-01-01 12:09:00+00', 'A', 1002);
INSERT INTO a VALUES ('2026-01-01 12:01:00+00', 'A', 2001), ('2026-01-01 12:09:00+00', 'A', 2009), ('2026-01-01 12:20:00+00', 'A', 2020);
INSERT INTO b VALUES ('2026-01-01 12:20:00+00', 'A', 1020);
SELECT kda.wait('a'), kda.wait('b');
SELECT * FROM left_ WHERE v > 2000 ORDER BY v, w;

-- what does not join within one window
CREATE CONTINUOUS VIEW e AS SELECT L.k FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) L JOIN TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) R ON L.k = R.k AND L.window_start = R.window_start;
CREATE CONTINUOUS VIEW e AS SELECT L.k FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) L LEFT JOIN TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) R ON L.k = R.k WHERE L.window_start = R.window_start AND L.window_end = R.window_end;
CREATE CONTINUOUS VIEW e AS SELECT * FROM (SELECT * FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE))) L WHERE k IN (SELECT k FROM TABLE(HOP(TABLE b, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE, INTERVAL '2' MINUTE)) R WHERE L.window_start = R.window_start AND L.window_end = R.window_end);
CREATE CONTINUOUS VIEW e AS SELECT L.k FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) L JOIN TABLE(HOP(TABLE b, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE, INTERVAL '2' MINUTE)) R ON L.k = R.k;
CREATE CONTINUOUS VIEW e AS SELECT L.k FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) L JOIN TABLE(TUMBLE(TABLE b, DESCRIPTOR(w), INTERVAL '1' MINUTE)) R ON L.k = R.k AND L.window_start = R.window_start AND L.window_end = R.window_end;
CREATE CONTINUOUS VIEW e AS SELECT L.k, count(*) FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) L JOIN TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) R USING (k, window_start, window_end) GROUP BY L.k;
CREATE CONTINUOUS VIEW e AS SELECT L.window_start, count(*) FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) L FULL JOIN TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) R USING (k, window_start, window_end) GROUP BY L.window_start, L.window_end;
CREATE CONTINUOUS VIEW e AS SELECT row_number() OVER (ORDER BY v) FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) L JOIN TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) R USING (k, window_start, window_end);
CREATE CONTINUOUS VIEW e AS SELECT * FROM (SELECT * FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE))) L WHERE k IN (SELECT k FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) R WHERE L.window_start = R.window_start);
CREATE CONTINUOUS VIEW e AS SELECT n.k FROM names n LEFT JOIN TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) L ON n.k = L.k LEFT JOIN TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) R ON L.window_start = R.window_start AND L.window_end = R.window_end;
CREATE CONTINUOUS VIEW e AS SELECT n.k FROM names n LEFT JOIN a ON n.k = a.k LEFT JOIN b ON b.k = a.k WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT j.v FROM (a JOIN b USING (k)) AS j WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT a.k FROM a JOIN b ON b.k = a.k WINDOWED BY SESSION (INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT a.k FROM a JOIN b ON b.k = a.k GROUP BY a.k, STEP(a.rowtime BY INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT L.k FROM TABLE(SESSION(TABLE a PARTITION BY k, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) L JOIN TABLE(SESSION(TABLE b PARTITION BY k, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) R USING (k, window_start);
SET client_min_messages = warning;
DROP VIEW aw, bw, cw;
DROP FUNCTION compare;
DROP STREAM a, b, c CASCADE;
DROP TABLE same_a, same_b, same_c, names, target, once, once_flink CASCADE;
DROP FUNCTION equal;
