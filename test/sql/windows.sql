-- Sliding and cumulating windows, and whatever PostgreSQL can say about the rows of a window.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE STREAM ev (rowtime timestamptz, k text, v int, n numeric);
CREATE TABLE same (LIKE ev);

-- equal(view, select): no row is in one and not in the other
CREATE FUNCTION equal(a text, b text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE r boolean;
BEGIN
	EXECUTE format('SELECT NOT EXISTS ((%1$s) EXCEPT ALL (%2$s)) AND NOT EXISTS ((%2$s) EXCEPT ALL (%1$s))', a, b) INTO r;
	RETURN r;
END $$;

CREATE CONTINUOUS VIEW hop AS SELECT k, count(*) c, sum(v) s, avg(n) a, max(k) m, count(*) FILTER (WHERE v > 3) f
	FROM ev WINDOWED BY SLIDING (INTERVAL '3' MINUTE, INTERVAL '2' MINUTE, INTERVAL '10' SECOND) GROUP BY k HAVING count(*) > 1;
CREATE CONTINUOUS VIEW cum AS SELECT k, count(*) c, stddev_samp(v) d
	FROM ev WINDOWED BY CUMULATING (INTERVAL '6' MINUTE, INTERVAL '2' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW exact AS SELECT count(DISTINCT k) d, string_agg(k, ',' ORDER BY v, k) l, percentile_cont(0.5) WITHIN GROUP (ORDER BY v) p, mode() WITHIN GROUP (ORDER BY k) mo
	FROM ev WINDOWED BY SLIDING (INTERVAL '2' MINUTE, INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW sets AS SELECT k, v % 2 AS odd, count(*) c, grouping(k, v % 2) g
	FROM ev WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY ROLLUP (k, v % 2);
CREATE CONTINUOUS VIEW top2 AS SELECT k, sum(v) s, rank() OVER (ORDER BY sum(v) DESC NULLS LAST) r
	FROM ev WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k ORDER BY s DESC NULLS LAST, k LIMIT 2;
CREATE CONTINUOUS VIEW ties AS SELECT k, count(*) c
	FROM ev WINDOWED BY SLIDING (INTERVAL '2' MINUTE, INTERVAL '1' MINUTE) GROUP BY k ORDER BY c DESC FETCH FIRST 1 ROWS WITH TIES;
CREATE CONTINUOUS VIEW last_row AS SELECT * FROM ev WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) ORDER BY v DESC NULLS LAST, rowtime DESC LIMIT 1;
CREATE CONTINUOUS VIEW keys AS SELECT DISTINCT ON (k) k, v, window_time FROM ev WINDOWED BY TUMBLING (INTERVAL '2' MINUTE) ORDER BY k, v DESC NULLS LAST;
CREATE CONTINUOUS VIEW pairs AS SELECT DISTINCT k, v % 2 AS odd FROM ev WINDOWED BY TUMBLING (INTERVAL '2' MINUTE);
CREATE CONTINUOUS VIEW hours AS SELECT date_trunc('hour', window_start) AS h, count(*) c, window_closed AS closed
	FROM ev WINDOWED BY TUMBLING (INTERVAL '2' MINUTE) GROUP BY date_trunc('hour', window_start), window_start, window_end;
-- without a window such a query looks at all records that ever came
CREATE CONTINUOUS VIEW kinds AS SELECT DISTINCT k FROM ev;
CREATE CONTINUOUS VIEW best AS SELECT k, count(*) c FROM ev GROUP BY k ORDER BY c DESC, k LIMIT 1;
CREATE CONTINUOUS VIEW uniq AS SELECT count(DISTINCT v) u FROM ev;
SELECT * FROM uniq;

DO $$
BEGIN
	FOR i IN 1..6 LOOP
		INSERT INTO ev SELECT timestamptz '2026-01-01 09:58:00+00' + (i * 97 + j * 5) * interval '1 s', (ARRAY['a', 'b', 'c', NULL])[1 + (i * j) % 4],
			NULLIF((i * 7 + j * 3) % 11, 5), (i * j % 13) / 10.0 FROM generate_series(0, 20) j;
	END LOOP;
END $$;
INSERT INTO same SELECT * FROM ev;
SELECT kda.wait('ev');

SELECT equal('TABLE hop', $$SELECT window_start, window_end, k, count(*) c, sum(v) s, avg(n) a, max(k) m, count(*) FILTER (WHERE v > 3) f
	FROM same, kda.hop_windows(rowtime, '3 min', '2 min', '10 s') GROUP BY 1, 2, k HAVING count(*) > 1$$) AS hop,
	equal('TABLE cum', $$SELECT window_start, window_end, k, count(*) c, stddev_samp(v) d
	FROM same, kda.cumulate_windows(rowtime, '6 min', '2 min') GROUP BY 1, 2, k$$) AS cum,
	equal('TABLE exact', $$SELECT window_start, window_end, count(DISTINCT k) d, string_agg(k, ',' ORDER BY v, k) l, percentile_cont(0.5) WITHIN GROUP (ORDER BY v) p, mode() WITHIN GROUP (ORDER BY k) mo
	FROM same, kda.hop_windows(rowtime, '2 min', '1 min') GROUP BY 1, 2$$) AS exact,
	equal('TABLE sets', $$SELECT kda.tumble_start(rowtime, '1 min') w, kda.tumble_start(rowtime, '1 min') + '1 min' e, k, v % 2 AS odd, count(*) c, grouping(k, v % 2) g
	FROM same GROUP BY 1, 2, ROLLUP (k, v % 2)$$) AS sets;
SELECT equal('TABLE top2', $$SELECT w, w + '1 min', q.* FROM (SELECT DISTINCT kda.tumble_start(rowtime, '1 min') w FROM same) w,
	LATERAL (SELECT k, sum(v) s, rank() OVER (ORDER BY sum(v) DESC NULLS LAST) r FROM same WHERE kda.tumble_start(rowtime, '1 min') = w GROUP BY k ORDER BY s DESC NULLS LAST, k LIMIT 2) q$$) AS top2,
	equal('TABLE ties', $$SELECT w.*, q.* FROM (SELECT DISTINCT window_start, window_end FROM same, kda.hop_windows(rowtime, '2 min', '1 min')) w,
	LATERAL (SELECT k, count(*) c FROM same WHERE rowtime >= window_start AND rowtime < window_end GROUP BY k ORDER BY c DESC FETCH FIRST 1 ROWS WITH TIES) q$$) AS ties,
	equal('TABLE last_row', $$SELECT DISTINCT ON (1, 2) kda.tumble_start(rowtime, '1 min'), kda.tumble_start(rowtime, '1 min') + '1 min', same.* FROM same ORDER BY 1, 2, v DESC NULLS LAST, rowtime DESC$$) AS last_row,
	equal('TABLE keys', $$SELECT DISTINCT ON (w, k) w, w + '2 min', k, v, w + '2 min' - interval '1 ms' FROM same, kda.tumble_start(rowtime, '2 min') w ORDER BY w, k, v DESC NULLS LAST$$) AS keys,
	equal('TABLE pairs', $$SELECT DISTINCT w, w + '2 min', k, v % 2 FROM same, kda.tumble_start(rowtime, '2 min') w$$) AS pairs,
	equal('TABLE hours', $$SELECT date_trunc('hour', w), count(*), w + '2 min' <= (SELECT max(rowtime) FROM same) FROM same, kda.tumble_start(rowtime, '2 min') w GROUP BY w$$) AS hours,
	equal('TABLE kinds', 'SELECT DISTINCT k FROM same') AS kinds,
	equal('TABLE best', 'SELECT k, count(*) c FROM same GROUP BY k ORDER BY c DESC, k LIMIT 1') AS best,
	equal('TABLE uniq', 'SELECT count(DISTINCT v) FROM same') AS uniq;
SELECT name, state, last_error FROM kda.queries WHERE state <> 'running' OR last_error IS NOT NULL;
SELECT count(*) FROM kda.error_stream WHERE stream = 'ev'::regclass;

-- a record that is late for some of its windows counts in the others
CREATE STREAM late (rowtime timestamptz, v int);
CREATE CONTINUOUS VIEW late_hop AS SELECT count(*) n, sum(v) s FROM late WINDOWED BY SLIDING (INTERVAL '3' MINUTE, INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW late_exact AS SELECT count(DISTINCT v) n, sum(v) s FROM late WINDOWED BY SLIDING (INTERVAL '3' MINUTE, INTERVAL '1' MINUTE);
INSERT INTO late VALUES ('2026-01-01 10:00:30+00', 1), ('2026-01-01 10:02:00+00', 10), ('2026-01-01 10:01:10+00', 100), ('2026-01-01 09:58:00+00', 1000);
SELECT kda.wait('late');
SELECT * FROM late_hop ORDER BY 1;
SELECT equal('TABLE late_hop', 'TABLE late_exact') AS same;
SELECT records_late FROM kda.streams WHERE stream = 'late'::regclass;
SELECT kda.advance('late', '2026-01-01 11:00:00+00');
SELECT kda.wait('late');
SELECT equal('TABLE late_hop', 'TABLE late_exact') AS same;
SELECT open_windows, groups FROM kda.queries WHERE name LIKE 'late_%' ORDER BY name;

-- days and months of a time zone, with its changes of the clock; before 1970
CREATE STREAM far (rowtime timestamptz);
CREATE CONTINUOUS VIEW days WITH (time_zone = 'America/New_York') AS SELECT window_end - window_start AS len, count(*) n FROM far WINDOWED BY TUMBLING (INTERVAL '1' DAY);
CREATE CONTINUOUS VIEW months AS SELECT count(*) n FROM far WINDOWED BY TUMBLING (INTERVAL '1' MONTH);
CREATE CONTINUOUS VIEW weeks WITH (time_zone = 'America/New_York') AS SELECT count(*) n FROM far WINDOWED BY SLIDING (INTERVAL '14' DAY, INTERVAL '7' DAY, INTERVAL '4' DAY);
CREATE CONTINUOUS VIEW years AS SELECT count(*) n FROM far WINDOWED BY TUMBLING (INTERVAL '1' YEAR);
INSERT INTO far VALUES ('1969-12-31 23:59:59.999999+00'), ('2026-03-08 12:00:00+00'), ('2026-11-01 05:30:00+00'), ('2026-11-02 04:59:59+00'), ('2026-11-02 05:00:00+00');
SELECT kda.wait('far');
SELECT * FROM days ORDER BY 1;
SELECT * FROM months ORDER BY 1;
SELECT * FROM weeks ORDER BY 1;
SELECT * FROM years ORDER BY 1;
DROP STREAM ev, late, far CASCADE;
DROP TABLE same;
DROP FUNCTION equal;
