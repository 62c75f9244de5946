-- Queries made of several: a view over a view, windows over windows, fan-in, a diamond.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages=warning;
CREATE STREAM s (rowtime timestamptz, k text, v int);
CREATE STREAM s2 (rowtime timestamptz, k text, v int);
CREATE CONTINUOUS VIEW one AS SELECT k, count(*) n FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW of_view AS SELECT k, sum(n) total, count(*) w FROM one WINDOWED BY TUMBLING (INTERVAL '2' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW two AS SELECT k, max(n) best FROM (SELECT k, window_start ws, count(*) n FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k) x WINDOWED BY TUMBLING (INTERVAL '2' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW ever AS SELECT max(n) FROM (SELECT k, count(*) n FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k) x;
CREATE CONTINUOUS VIEW fan AS SELECT k, count(*) n FROM (SELECT k, v FROM s UNION ALL SELECT k, v FROM s2) u WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW both_ AS SELECT k, v FROM s WHERE v > 39 UNION ALL SELECT k, v FROM s2 WHERE v > 39;
CREATE CONTINUOUS VIEW diamond AS SELECT k, sum(n) FROM (SELECT k, n FROM one UNION ALL SELECT k, total FROM of_view) d GROUP BY k;
RESET client_min_messages;
INSERT INTO s SELECT timestamptz '2026-01-01 10:00:00+00' + i * interval '7 s', chr(97 + i*i % 3), i FROM generate_series(0, 40) i;
INSERT INTO s2 SELECT timestamptz '2026-01-01 10:00:00+00' + i * interval '7 s', chr(97 + i*i % 3), i FROM generate_series(0, 40) i;
SELECT kda.wait('s'), kda.wait('s2');
SELECT * FROM one ORDER BY 1,3;
SELECT * FROM of_view ORDER BY 1,3;
SELECT * FROM two ORDER BY 1,3;
SELECT * FROM ever; SELECT * FROM fan ORDER BY 1,3; SELECT * FROM both_ ORDER BY 1,2; SELECT * FROM diamond ORDER BY 1;
SELECT name, kind, state, last_error, open_windows, groups FROM kda.queries ORDER BY name;
DROP VIEW two;
DROP STREAM s2;
DROP STREAM s CASCADE;
SELECT count(*) FROM kda_storage.query;
SELECT rel FROM kda_storage.stream;
SET client_min_messages=warning;
CREATE STREAM s (rowtime timestamptz, k text, v int);
CREATE CONTINUOUS VIEW un AS SELECT k, count(*) n FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k UNION ALL SELECT 'all', count(*) n FROM s WINDOWED BY TUMBLING (INTERVAL '2' MINUTE);
CREATE CONTINUOUS VIEW un_above AS SELECT k, n FROM (SELECT k, count(*) n FROM s WINDOWED BY TUMBLING (INTERVAL '2' MINUTE) GROUP BY k) x WHERE n > 8 UNION ALL SELECT k, n + 100 FROM (SELECT k, count(*) n FROM s WINDOWED BY TUMBLING (INTERVAL '4' MINUTE) GROUP BY k) x WHERE n > 8;
INSERT INTO s SELECT timestamptz '2026-01-01 10:00:00+00' + i * interval '7 s', chr(97 + i*i % 3), i FROM generate_series(0, 40) i;
SELECT kda.wait('s');
SELECT * FROM un ORDER BY 1,2,3;
SELECT * FROM un_above ORDER BY 1,2,3;
-- what cannot have a final result is refused
CREATE CONTINUOUS VIEW groups AS SELECT k, count(*) n FROM s GROUP BY k;
CREATE CONTINUOUS VIEW e AS SELECT n FROM groups;
CREATE CONTINUOUS VIEW e AS SELECT k FROM s UNION SELECT k FROM s2;
CREATE CONTINUOUS VIEW e AS SELECT k FROM s UNION ALL SELECT relname FROM pg_class;
CREATE CONTINUOUS VIEW e AS SELECT k, v FROM s UNION ALL SELECT k FROM s2;
CREATE CONTINUOUS VIEW e AS SELECT * FROM (SELECT *, row_number() OVER (ORDER BY n) r FROM (SELECT window_start, k, count(*) n FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k) a) b WHERE r = 1;
CREATE VIEW over_s AS SELECT * FROM s;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM s2 JOIN over_s USING (k);
SET client_min_messages = warning;
DROP STREAM s, s2 CASCADE;

-- WITH, set operations inside a window, and aggregates over all that ever came
CREATE STREAM s (rowtime timestamptz, k text, v int);
CREATE STREAM r (rowtime timestamptz, k text, v int);
CREATE TABLE known (k text);
INSERT INTO known VALUES ('c');
CREATE CONTINUOUS VIEW with_ AS WITH big (kk, vv) AS (SELECT k, v FROM s WHERE v > 1), n AS (SELECT * FROM known)
	SELECT kk, sum(vv), (SELECT count(*) FROM n) AS known FROM big WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY kk;
CREATE CONTINUOUS VIEW with_window AS WITH per_k (kk, n) AS (SELECT k, count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k)
	SELECT kk, sum(n) FROM per_k WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY kk;
CREATE CONTINUOUS VIEW both_ AS SELECT k FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) INTERSECT SELECT k FROM r WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW only_s AS SELECT k FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) EXCEPT SELECT k FROM r WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) EXCEPT SELECT k FROM known;
CREATE CONTINUOUS VIEW either_ AS SELECT k, count(*) AS n FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k
	UNION SELECT k, count(*) FROM r WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k ORDER BY n DESC, k LIMIT 3;
CREATE CONTINUOUS VIEW keys_ AS SELECT window_start, window_end, count(*) AS keys FROM (
	SELECT window_start, window_end, k FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) UNION SELECT window_start, window_end, k FROM r WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)) u
	GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW keys_hour AS SELECT k, count(*) AS minutes FROM (
	SELECT k FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) UNION SELECT k FROM r WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)) u
	WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY k;
CREATE CONTINUOUS VIEW total AS SELECT sum(n), max(n) FROM (SELECT k, count(*) AS n FROM s GROUP BY k) x;
CREATE CONTINUOUS VIEW often AS SELECT k, n FROM (SELECT k, count(*) AS n FROM s GROUP BY k) x WHERE n > 1;
CREATE CONTINUOUS VIEW first_of AS SELECT k, v FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY rowtime) AS n FROM s) x WHERE n = 1;
INSERT INTO s VALUES ('2026-01-01 10:00:00Z', 'a', 1), ('2026-01-01 10:00:01Z', 'c', 3), ('2026-01-01 10:00:02Z', 'b', 3);
INSERT INTO r VALUES ('2026-01-01 10:00:00Z', 'a', 2), ('2026-01-01 10:00:00Z', 'd', 2);
SELECT kda.wait('s'), kda.wait('r');
-- in another commit: changes of a group count once
INSERT INTO s VALUES ('2026-01-01 10:00:00Z', 'a', 2), ('2026-01-01 10:01:01Z', 'b', 3);
SELECT kda.wait('s');
SELECT * FROM with_ ORDER BY 1, 3; SELECT * FROM both_; SELECT * FROM only_s ORDER BY 1; SELECT * FROM either_ ORDER BY 1, 3, 4; SELECT * FROM keys_ ORDER BY 1;
SELECT kda.advance('s', '2026-01-01 12:00:00Z'), kda.advance('r', '2026-01-01 12:00:00Z');
SELECT kda.wait('s'), kda.wait('r');
SELECT * FROM with_window ORDER BY kk; SELECT * FROM both_; SELECT * FROM only_s ORDER BY 1; SELECT * FROM either_ ORDER BY 1, 3, 4; SELECT * FROM keys_ ORDER BY 1; SELECT * FROM keys_hour ORDER BY k;
SELECT * FROM total; SELECT * FROM often; SELECT * FROM first_of ORDER BY k;
SELECT name, state, last_error FROM kda.queries WHERE state <> 'running' OR last_error IS NOT NULL;
DROP STREAM s, r CASCADE;
DROP TABLE known;
