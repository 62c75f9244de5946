-- Watermark, lateness, kda.advance.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE STREAM t (rowtime timestamptz, v int) OPTIONS (watermark '10 seconds', idle_timeout 'never');
CREATE CONTINUOUS VIEW w AS SELECT count(*) AS n, sum(v) AS s FROM t WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);

-- out of order within the watermark: counts
INSERT INTO t VALUES ('2026-01-01 10:00:30+00', 1);
INSERT INTO t VALUES ('2026-01-01 10:01:05+00', 2);
INSERT INTO t VALUES ('2026-01-01 10:00:10+00', 4);
SELECT kda.wait('t');
SELECT kda.watermark('t'), kda.watermark('w');
SELECT * FROM w ORDER BY window_start;

-- 10:01:10 closes the first minute; what comes for it then is late
INSERT INTO t VALUES ('2026-01-01 10:01:10+00', 8);
INSERT INTO t VALUES ('2026-01-01 10:00:59+00', 16);
SELECT kda.wait('t');
SELECT * FROM w ORDER BY window_start;
SELECT records_late FROM kda.streams WHERE stream = 't'::regclass;
SELECT name, records_in, records_late FROM kda.queries WHERE name = 'w';
SELECT error_name, stream, shard, data_rowtime, convert_from(data_row, 'UTF8') AS data_row FROM kda.error_stream WHERE stream = 't'::regclass;

-- within one batch the order decides
INSERT INTO t VALUES ('2026-01-01 10:05:30+00', 1), ('2026-01-01 10:01:59+00', 1);
SELECT kda.wait('t');
SELECT records_late FROM kda.streams WHERE stream = 't'::regclass;

-- kda.advance closes what is before it, is transactional and ordered
BEGIN; SELECT kda.advance('t', '2027-01-01'); ROLLBACK;
SELECT kda.advance('t', '2026-01-01 10:06:00+00');
SELECT kda.wait('t');
SELECT kda.watermark('t');
SELECT * FROM w ORDER BY window_start;
SELECT kda.advance('t', '2025-01-01');
SELECT kda.wait('t');
SELECT kda.watermark('t');

-- ALTER STREAM … RESET: the open windows are given, and time begins anew
INSERT INTO t VALUES ('2030-01-01 00:00:00+00', 1);
SELECT kda.wait('t');
ALTER STREAM t RESET;
INSERT INTO t VALUES ('2026-01-01 11:00:00+00', 32);
SELECT kda.wait('t');
SELECT kda.watermark('t');
SELECT * FROM w WHERE window_start >= '2026-01-01 10:06:00+00' ORDER BY window_start;

-- a stream without a time column: arrival time, ROWTIME can be named
CREATE STREAM arrivals (v int);
CREATE CONTINUOUS VIEW by_arrival AS SELECT count(*) AS n, min(ROWTIME) <= now() AS fine FROM arrivals WINDOWED BY TUMBLING (INTERVAL '1' DAY);
INSERT INTO arrivals VALUES (1), (2);
SELECT kda.wait('arrivals');
SELECT n, fine, window_end - window_start AS size FROM by_arrival;
SELECT ROWTIME FROM arrivals;

-- helpers
SELECT kda.tumble_start('2026-01-01 10:07:31+00', '5 min'), kda.tumble_start('2026-01-01 10:07:31+00', '5 min', '3 min'),
	kda.tumble_start('1969-12-31 23:59:59+00', '1 h'), kda.step('2026-01-01 10:07:31+00', '1 min');
-- a 7-day window starts on Thursday
SELECT extract(dow FROM kda.tumble_start('2026-01-01 10:07:31+00', '7 days')), extract(dow FROM kda.tumble_start('2026-01-01 10:07:31+00', '7 days', '4 days'));
DROP STREAM t, arrivals CASCADE;
