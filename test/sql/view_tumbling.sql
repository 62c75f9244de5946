-- A continuous view gives what the same SELECT gives over the same rows.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE STREAM clicks (rowtime timestamptz, country text, user_id text, v int);
CREATE TABLE all_clicks (LIKE clicks);

CREATE CONTINUOUS VIEW per_minute AS
SELECT country, count(*) AS n, count(v) AS with_v, sum(v) AS s, avg(v) AS a, min(user_id) AS first_user,
	count(*) FILTER (WHERE v > 1) AS above_one, sum(v) * 2 + count(*) AS mixed
FROM clicks
WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)
GROUP BY country;

INSERT INTO clicks VALUES
	('2026-01-01 10:00:05+00', 'KR', 'u1', 1),
	('2026-01-01 10:00:15+00', 'US', 'u2', NULL),
	('2026-01-01 10:00:10+00', 'KR', 'u0', 3),
	('2026-01-01 10:00:59.999999+00', NULL, 'u3', 2);
SELECT kda.wait('clicks');
SELECT * FROM per_minute ORDER BY window_start, country;

-- the next minute closes this one; both are shown
INSERT INTO clicks VALUES ('2026-01-01 10:01:00+00', 'KR', 'u1', 10);
INSERT INTO clicks VALUES ('2026-01-01 10:01:01+00', NULL, NULL, NULL);
SELECT kda.wait('clicks');
SELECT * FROM per_minute ORDER BY window_start, country;

-- the time of the view's rows is window_end, and it is indexed
SELECT indexdef ~ '\(kda_time\)' AS indexed FROM pg_indexes WHERE tablename LIKE 'closed_%';

-- window_start and window_end where they are named, HAVING, no GROUP BY keys
CREATE CONTINUOUS VIEW totals AS
SELECT window_end AS until, count(*) AS n FROM clicks
WINDOWED BY TUMBLING (INTERVAL '10' SECOND, INTERVAL '5' SECOND)
HAVING count(*) > 1;
INSERT INTO clicks SELECT timestamptz '2026-01-01 10:02:00+00' + i * interval '1 s', 'X', 'u', i FROM generate_series(0, 20) i;
SELECT kda.wait('clicks');
SELECT * FROM totals ORDER BY until;
\d totals

-- EMIT ON WINDOW CLOSE hides open windows
CREATE CONTINUOUS VIEW closed_only AS
SELECT count(*) AS n FROM clicks WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) EMIT ON WINDOW CLOSE;
INSERT INTO clicks VALUES ('2026-01-01 10:03:00+00', 'KR', 'u1', 1), ('2026-01-01 10:03:30+00', 'KR', 'u1', 1);
SELECT kda.wait('clicks');
SELECT * FROM closed_only ORDER BY window_start;
INSERT INTO clicks VALUES ('2026-01-01 10:04:00+00', 'KR', 'u1', 1);
SELECT kda.wait('clicks');
SELECT * FROM closed_only ORDER BY window_start;

-- many aggregates, keys of many types
CREATE STREAM wide (rowtime timestamptz, b bool, i2 int2, i8 int8, f float8, n numeric, d date, ts timestamp, u uuid, t text, vc varchar(5), by bytea, j jsonb, a int[], en name);
CREATE CONTINUOUS VIEW keys AS
SELECT b, i2, i8, f, n, d, ts, u, t, vc, by, j, a, en, count(*) AS cnt
FROM wide WINDOWED BY TUMBLING (INTERVAL '1' HOUR)
GROUP BY b, i2, i8, f, n, d, ts, u, t, vc, by, j, a, en;
CREATE CONTINUOUS VIEW aggregates AS
SELECT sum(i2) AS s2, sum(i8) AS s8, sum(f) AS sf, sum(n) AS sn, avg(f) AS af, avg(n) AS an, stddev(f) AS sd, var_pop(n) AS vp,
	corr(f, i8) AS co, bool_and(b) AS ba, bool_or(b) AS bo, max(d) AS md, min(ts) AS mt, max(t) AS mx, bit_and(i8) AS bi, every(b) AS ev,
	sum(f) FILTER (WHERE i2 > 1) AS fil
FROM wide WINDOWED BY TUMBLING (INTERVAL '1' HOUR);
INSERT INTO wide SELECT timestamptz '2026-01-01 10:00:00+00', i % 2 = 0, i % 3, i, i / 4.0, i * 1.50, date '2026-01-01' + i, timestamp '2026-01-01' + i * interval '1 h',
	('00000000-0000-0000-0000-00000000000' || i)::uuid, 'text' || i % 2, 'vc' || i, ('\x0' || i)::bytea, jsonb_build_object('k', i % 2), ARRAY[i, NULL, 3], 'nm'
FROM generate_series(1, 4) i;
INSERT INTO wide SELECT timestamptz '2026-01-01 10:00:00+00', i % 2 = 0, i % 3, i, i / 4.0, i * 1.5, date '2026-01-01' + i, timestamp '2026-01-01' + i * interval '1 h',
	('00000000-0000-0000-0000-00000000000' || i)::uuid, 'text' || i % 2, 'vc' || i, ('\x0' || i)::bytea, jsonb_build_object('k', i % 2), ARRAY[i, NULL, 3], 'nm'
FROM generate_series(1, 3) i;
SELECT kda.wait('wide');
SELECT b, i2, i8, f, n, d, t, vc, by, j, a, en, cnt FROM keys ORDER BY i8;
SELECT s2, s8, sf, sn, af, an, round(sd::numeric, 6) AS sd, round(vp, 6) AS vp, round(co::numeric, 6) AS co, ba, bo, md, mt, mx, bi, ev, fil FROM aggregates;
SELECT sum(i2) AS s2, sum(i8) AS s8, sum(f) AS sf, sum(n) AS sn, avg(f) AS af, avg(n) AS an, round(stddev(f)::numeric, 6) AS sd, round(var_pop(n), 6) AS vp,
	round(corr(f, i8)::numeric, 6) AS co, bool_and(b) AS ba, bool_or(b) AS bo, max(d) AS md, min(ts) AS mt, max(t) AS mx, bit_and(i8) AS bi, every(b) AS ev,
	sum(f) FILTER (WHERE i2 > 1) AS fil FROM wide;

DROP STREAM clicks;
DROP STREAM clicks, wide CASCADE;
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'kda_storage' AND relname ~ '_\d+[ab]?$';
DROP TABLE all_clicks;
