-- Windows and times as Kinesis Data Analytics spells them: the same answer as plain SQL over the same rows.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE STREAM ticks (rowtime timestamptz, ticker text, price numeric, approximate_arrival timestamptz);
CREATE TABLE same (LIKE ticks);
-- a stream without a time of its own, and one that calls it otherwise
CREATE STREAM arrivals (ticker text);
CREATE STREAM named (ts timestamp, ticker text, WATERMARK FOR ts AS ts - INTERVAL '5' SECONDS);

-- equal(view, select): no row is in one and not in the other
CREATE FUNCTION equal(a text, b text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE r boolean;
BEGIN
	EXECUTE format('SELECT NOT EXISTS ((%1$s) EXCEPT ALL (%2$s)) AND NOT EXISTS ((%2$s) EXCEPT ALL (%1$s))', a, b) INTO r;
	RETURN r;
END $$;

-- STEP and FLOOR of ROWTIME in GROUP BY are windows; the same expression elsewhere is their start
CREATE CONTINUOUS VIEW step60 AS SELECT STREAM ticker, count(*) AS n, min(price) AS low FROM ticks AS t GROUP BY ticker, STEP(t.ROWTIME BY INTERVAL '60' SECOND);
CREATE CONTINUOUS VIEW floor_minute AS SELECT STREAM FLOOR(ROWTIME TO MINUTE) AS minute, ticker, count(*) AS n FROM ticks // a comment
	GROUP BY FLOOR(ticks.ROWTIME TO MINUTE), ticker HAVING FLOOR("rowtime" TO MINUTE) > timestamptz '2026-01-01 10:00+00' ORDER BY FLOOR(ROWTIME TO MINUTE), ticker LIMIT 1;
CREATE CONTINUOUS VIEW by_number AS SELECT STEP(ROWTIME BY INTERVAL '2' MINUTES), ROWTIME, count(*), max(ROWTIME) AS last FROM ticks GROUP BY 1;
CREATE CONTINUOUS VIEW otherwise AS SELECT FLOOR(ROWTIME TO MINUTE) AS m, STEP(t.ROWTIME BY INTERVAL '1' MINUTE) AS s, count(*) AS n FROM ticks t GROUP BY STEP("rowtime" BY INTERVAL '60' SECOND), FLOOR(t.rowtime TO MINUTE);
CREATE CONTINUOUS VIEW by_name AS SELECT FLOOR(ROWTIME TO HOUR) AS h, count(*) AS n FROM ticks GROUP BY h;
-- beside a window that is stated, a column's are keys
CREATE CONTINUOUS VIEW minutes_of_named AS SELECT FLOOR(ts TO MINUTE) AS m, count(*) AS n FROM named WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY FLOOR(ts TO MINUTE);
-- of another column they are keys, as in KDA's own examples
CREATE CONTINUOUS VIEW two_steps AS SELECT ticker, STEP(approximate_arrival BY INTERVAL '10' SECOND) AS arrived, count(*) AS n
	FROM ticks GROUP BY ticker, STEP(ticks.ROWTIME BY INTERVAL '60' SECOND), STEP(approximate_arrival BY INTERVAL '10' SECOND);
CREATE CONTINUOUS VIEW endless AS SELECT FLOOR(approximate_arrival TO MINUTE) AS m, count(*) AS n FROM ticks GROUP BY FLOOR(approximate_arrival TO MINUTE);
CREATE CONTINUOUS VIEW expressions AS SELECT FLOOR(ROWTIME TO DAY) AS day, CEIL(approximate_arrival TO HOUR) AS up, STEP(ROWTIME BY INTERVAL '1:30' MINUTE TO SECOND) AS s FROM ticks WHERE FLOOR(ROWTIME TO YEAR) > '1999-01-01';
CREATE CONTINUOUS VIEW weeks AS SELECT FLOOR(ROWTIME TO WEEK) AS w, count(*) AS n FROM ticks GROUP BY FLOOR(ROWTIME TO WEEK);
CREATE CONTINUOUS VIEW quarters AS SELECT FLOOR(ROWTIME TO QUARTER) AS q, count(*) AS n FROM ticks GROUP BY FLOOR(ROWTIME TO QUARTER);
CREATE CONTINUOUS VIEW of_arrivals AS SELECT STREAM FLOOR(a.ROWTIME TO DAY) <= now() AS past, count(*) AS n FROM arrivals AS a GROUP BY FLOOR(a.ROWTIME TO DAY);
CREATE CONTINUOUS VIEW of_named AS SELECT ticker, count(*) AS n FROM named GROUP BY ticker, FLOOR(ts TO MINUTE);
CREATE CONTINUOUS VIEW of_named_too AS SELECT ticker, count(*) AS n FROM named AS x GROUP BY ticker, FLOOR(x.ROWTIME TO MINUTE);
CREATE TABLE minutes (minute timestamptz, n bigint);
CREATE PUMP into_table AS INSERT INTO minutes SELECT STREAM STEP(ROWTIME BY INTERVAL '60' SECOND), count(*) FROM ticks GROUP BY STEP(ROWTIME BY INTERVAL '60' SECOND);
-- windows that reach back from each row; SELECT STREAM wherever a SELECT may stand
CREATE CONTINUOUS VIEW last_minute AS SELECT STREAM ticker, price, avg(price) OVER minute AS a, max(price) OVER (PARTITION BY ticker ROWS 3 PRECEDING) AS m
	FROM ticks WINDOW minute AS (PARTITION BY ticker RANGE INTERVAL '1' MINUTE PRECEDING);
CREATE CONTINUOUS VIEW low_and_high AS SELECT STREAM ticker, price FROM ticks WHERE price < 3 UNION ALL SELECT STREAM ticker, price + 100 FROM ticks WHERE price > 12;
CREATE CONTINUOUS VIEW busy AS SELECT STREAM * FROM (SELECT STREAM ticker, window_start, window_end, count(*) AS n FROM ticks GROUP BY ticker, STEP(ROWTIME BY INTERVAL '60' SECOND)) AS x WHERE n > 2;
CREATE STREAM news (rowtime timestamptz, ticker text);
CREATE TABLE same_news (LIKE news);
CREATE CONTINUOUS VIEW seen AS SELECT STREAM t.price, n.rowtime AS at
	FROM ticks OVER (RANGE INTERVAL '20' SECOND PRECEDING) AS t JOIN news OVER (RANGE INTERVAL '1' MINUTE PRECEDING) AS n ON t.ticker = n.ticker;
CREATE CONTINUOUS VIEW seen_too AS SELECT STREAM t.price, n.rowtime AS at
	FROM ticks OVER w AS t, news OVER w AS n WHERE t.ticker = n.ticker WINDOW w AS (RANGE INTERVAL '20' SECOND PRECEDING);
SELECT attrelid::regclass AS view, string_agg(attname, ', ' ORDER BY attnum) AS columns FROM pg_attribute
	WHERE attrelid IN ('step60'::regclass, 'floor_minute'::regclass, 'by_number'::regclass) AND attnum > 0 GROUP BY 1 ORDER BY 1;

INSERT INTO ticks SELECT timestamptz '2026-01-01 09:59:40+00' + i * interval '7 s', (ARRAY['A', 'B', 'C'])[1 + i % 3], i / 4.0,
	timestamptz '2026-01-01 10:00:00+00' + i * interval '8 s' FROM generate_series(0, 60) i;
INSERT INTO same SELECT * FROM ticks;
INSERT INTO arrivals VALUES ('A'), ('B');
INSERT INTO news SELECT timestamptz '2026-01-01 09:59:00+00' + i * interval '23 s', (ARRAY['A', 'B', 'C'])[1 + i % 3] FROM generate_series(0, 20) i;
INSERT INTO same_news SELECT * FROM news;
INSERT INTO named VALUES ('2026-01-01 10:00:59', 'A'), ('2026-01-01 10:01:00', 'A'), ('2026-01-01 10:01:59', 'A');
SELECT kda.wait('ticks'), kda.wait('arrivals'), kda.wait('named');

SELECT equal('TABLE step60', $$SELECT date_trunc('minute', rowtime), date_trunc('minute', rowtime) + '1 min', ticker, count(*), min(price) FROM same GROUP BY 1, 2, 3$$) AS step60,
	equal('TABLE floor_minute', $$SELECT DISTINCT ON (1) date_trunc('minute', rowtime), ticker, count(*) FROM same WHERE rowtime >= '2026-01-01 10:01+00' GROUP BY 1, 2 ORDER BY 1, 2$$) AS floor_minute,
	equal('TABLE by_number', $$SELECT kda.step(rowtime, '2 min'), kda.step(rowtime, '2 min') + '2 min', count(*), max(rowtime) FROM same GROUP BY 1$$) AS by_number,
	equal('TABLE otherwise', $$SELECT date_trunc('minute', rowtime), date_trunc('minute', rowtime), count(*) FROM same GROUP BY 1$$) AS otherwise,
	equal('TABLE by_name', $$SELECT date_trunc('hour', rowtime), count(*) FROM same GROUP BY 1$$) AS by_name,
	equal('TABLE two_steps', $$SELECT date_trunc('minute', rowtime), date_trunc('minute', rowtime) + '1 min', ticker, kda.step(approximate_arrival, '10 s'), count(*) FROM same GROUP BY 1, 2, 3, 4$$) AS two_steps,
	equal('TABLE endless', $$SELECT date_trunc('minute', approximate_arrival), count(*) FROM same GROUP BY 1$$) AS endless,
	equal('TABLE expressions', $$SELECT date_trunc('day', rowtime), date_trunc('hour', approximate_arrival - interval '1 us') + '1 hour', kda.tumble_start(rowtime, '90 s') FROM same$$) AS expressions;
SELECT * FROM weeks; SELECT * FROM quarters; SELECT * FROM of_arrivals;
SELECT * FROM of_named ORDER BY 1; SELECT * FROM minutes_of_named ORDER BY m; SELECT equal('TABLE of_named', 'TABLE of_named_too');
SELECT kda.advance('ticks', '2026-01-01 12:00:00+00'), kda.advance('news', '2026-01-01 12:00:00+00');
SELECT kda.wait('ticks');
SELECT kda.wait('news');
SELECT equal('TABLE last_minute', $$SELECT ticker, price, avg(price) OVER (PARTITION BY ticker ORDER BY rowtime RANGE interval '1 min' PRECEDING), max(price) OVER (PARTITION BY ticker ORDER BY rowtime ROWS 3 PRECEDING) FROM same$$) AS last_minute,
	equal('TABLE low_and_high', $$SELECT ticker, price FROM same WHERE price < 3 UNION ALL SELECT ticker, price + 100 FROM same WHERE price > 12$$) AS low_and_high,
	equal('TABLE busy', $$SELECT ticker, date_trunc('minute', rowtime), date_trunc('minute', rowtime) + '1 min', count(*) FROM same GROUP BY 1, 2 HAVING count(*) > 2$$) AS busy,
	equal('TABLE seen', $$SELECT price, n.rowtime FROM same t JOIN same_news n ON t.ticker = n.ticker AND t.rowtime BETWEEN n.rowtime - interval '20 s' AND n.rowtime + interval '1 min'$$) AS seen,
	equal('TABLE seen_too', $$SELECT price, n.rowtime FROM same t JOIN same_news n ON t.ticker = n.ticker AND t.rowtime BETWEEN n.rowtime - interval '20 s' AND n.rowtime + interval '20 s'$$) AS seen_too;
SELECT equal('TABLE minutes', $$SELECT date_trunc('minute', rowtime), count(*) FROM same GROUP BY 1$$) AS pump;
SELECT name, state, last_error FROM kda.queries WHERE state <> 'running' OR last_error IS NOT NULL;

-- the functions behind them, in ordinary SQL
SELECT STEP(timestamptz '2026-02-03 04:05:06+00' BY INTERVAL '7' MINUTES), STEP(timestamp '2026-02-03 04:05:06' BY INTERVAL '1' HOUR), STEP(timestamptz '1969-12-31 23:59:59+00' BY INTERVAL '1' DAY);
SELECT unit, kda.floor(t, unit), kda.ceil(t, unit), kda.ceil(kda.floor(t, unit), unit) = kda.floor(t, unit) AS "itself"
	FROM (VALUES (timestamptz '2026-05-06 07:08:09.5+00')) v(t), unnest(ARRAY['second', 'minute', 'hour', 'day', 'week', 'month', 'quarter', 'year']) unit;
SET timezone = 'Asia/Kolkata';
SELECT FLOOR(timestamptz '2026-02-03 04:05:06+00' TO DAY) AT TIME ZONE 'UTC' AS in_utc, FLOOR(timestamp '2026-02-03 04:05:06' TO DAY) AS plain, CEILING(date '2026-02-03' TO MONTH) AS day, kda.floor('-infinity'::timestamptz, 'day');
SET timezone = 'UTC';
SELECT kda.floor(now(), 'parsec');
CREATE VIEW ordinary AS SELECT FLOOR(rowtime TO HOUR) AS h, count(*) FROM same GROUP BY FLOOR(rowtime TO HOUR);
SELECT * FROM ordinary ORDER BY 1;

-- words that stay PostgreSQL's
CREATE TABLE words (step int, floor int, "within" int, tumble int, session int, over int, descriptor int, ceil int, system_time int);
INSERT INTO words (step, floor, within) VALUES (7, 2, 3);
SELECT step, floor, within, tumble, session, over, descriptor FROM words over;
SELECT over.step AS within, floor(1.5) step, ceil(floor + 0.5) floor FROM words over JOIN words session ON true;
CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1 - $1 % $2';
CREATE FUNCTION returns_table() RETURNS TABLE (step int, tumble text) LANGUAGE sql AS $$ SELECT 1, 'x' $$;
CREATE AGGREGATE step(int) (SFUNC = int4pl, STYPE = int);
SELECT step(step, 3), step(step ORDER BY step DESC), percentile_cont(0.5) WITHIN GROUP (ORDER BY step) FROM words GROUP BY step;
SELECT floor(extract(epoch FROM interval '26' hour)), floor(EXTRACT(day FROM '50:00'::interval day to second)), substring('abc' FOR 2), * FROM returns_table();
SELECT ticker, sum(price) OVER (ROWS 1 PRECEDING) FROM same ORDER BY rowtime LIMIT 1;
DROP FUNCTION step(int, int), returns_table();
DROP AGGREGATE step(int);

-- errors
CREATE CONTINUOUS VIEW e AS SELECT ticker, count(*) FROM ticks WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY ticker, STEP(rowtime BY INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT ticker, count(*) FROM ticks GROUP BY ticker, STEP(rowtime BY INTERVAL '1' MINUTE), FLOOR(ROWTIME TO HOUR);
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM ticks GROUP BY STEP(rowtime BY INTERVAL '-1' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM ticks GROUP BY STEP(rowtime BY price);
CREATE CONTINUOUS VIEW e AS SELECT STEP(nosuch BY INTERVAL '1' DAY) FROM ticks;
CREATE CONTINUOUS VIEW e AS SELECT FLOOR(rowtime TO PARSEC) FROM ticks;
CREATE TABLE e (a timestamptz CHECK (FLOOR(a TO DAY) = a));
SELECT STEP(1 BY 2);

-- windows in FROM that bound nothing; and what is not there yet
CREATE CONTINUOUS VIEW e AS SELECT STREAM x.ticker FROM ticks OVER (RANGE INTERVAL '1' MINUTE PRECEDING) AS x JOIN words ON true;
CREATE CONTINUOUS VIEW e AS SELECT STREAM x.ticker FROM ticks OVER (RANGE INTERVAL '1' MINUTE PRECEDING) AS x JOIN arrivals OVER (ROWS 5 PRECEDING) AS y ON x.ticker = y.ticker;
SET client_min_messages = warning;
DROP STREAM ticks, arrivals, named, news CASCADE;
DROP TABLE same, same_news, words, minutes CASCADE;
DROP FUNCTION equal;
