-- SESSION and STAGGER windows: windows whose bounds depend on the rows themselves.
SET timezone = 'UTC';
SET datestyle = 'ISO';

-- One watermark for all of this part: one minute behind the latest row.
CREATE STREAM clicks (rowtime timestamptz, usr text, page text, ms int) OPTIONS (watermark '1 minute', idle_timeout 'never');
CREATE CONTINUOUS VIEW visits AS SELECT usr, count(*) AS n, sum(ms) AS ms, avg(ms)::int AS avg FROM clicks WINDOWED BY SESSION (INTERVAL '10' SECOND) GROUP BY usr;
CREATE CONTINUOUS VIEW pages AS SELECT usr, count(DISTINCT page) AS pages, string_agg(page, '>' ORDER BY rowtime) AS path FROM clicks WINDOWED BY SESSION (INTERVAL '10' SECOND) GROUP BY usr;
CREATE CONTINUOUS VIEW long_visits AS SELECT usr, count(*) AS n FROM clicks WINDOWED BY SESSION (INTERVAL '10' SECOND) GROUP BY usr HAVING count(*) > 2 AND window_end - window_start > '15 s';
CREATE CONTINUOUS VIEW busy AS SELECT count(*) AS n, count(DISTINCT usr) AS users FROM clicks WINDOWED BY SESSION (INTERVAL '10' SECOND);
CREATE CONTINUOUS VIEW slow AS SELECT usr, count(*) FILTER (WHERE ms > 50) AS n, max(rowtime) AS last, window_closed AS closed, window_time, ROWTIME AS "end"
	FROM clicks WHERE ms > 5 WINDOWED BY SESSION (INTERVAL '10' SECOND) GROUP BY usr;

-- at exactly the gap a row joins, a microsecond later it begins a session of its own
INSERT INTO clicks VALUES ('2026-01-01 10:00:00+00', 'ann', '/a', 10), ('2026-01-01 10:00:10+00', 'ann', '/b', 20),
	('2026-01-01 10:00:00+00', 'bob', '/a', 30), ('2026-01-01 10:00:10.000001+00', 'bob', '/a', 40),
	('2026-01-01 10:00:05+00', NULL, '/c', 60);
SELECT kda.wait('clicks');
SELECT * FROM visits ORDER BY usr, window_start;
SELECT * FROM pages ORDER BY usr, window_start;
SELECT * FROM busy;

-- out of order: a row before a session, one after it, one between two sessions, which become one
INSERT INTO clicks VALUES ('2026-01-01 09:59:52+00', 'ann', '/0', 1);
INSERT INTO clicks VALUES ('2026-01-01 10:00:40+00', 'ann', '/e', 50), ('2026-01-01 10:00:55+00', 'ann', '/f', 60);
SELECT kda.wait('clicks');
SELECT * FROM visits WHERE usr = 'ann' ORDER BY window_start;
INSERT INTO clicks VALUES ('2026-01-01 10:00:47+00', 'ann', '/x', 70);
SELECT kda.wait('clicks');
SELECT * FROM visits WHERE usr = 'ann' ORDER BY window_start;
-- … and so the three of them
INSERT INTO clicks VALUES ('2026-01-01 10:00:30+00', 'ann', '/d', 30), ('2026-01-01 10:00:20+00', 'ann', '/c', 40);
SELECT kda.wait('clicks');
SELECT * FROM visits WHERE usr = 'ann' ORDER BY window_start;
SELECT * FROM pages WHERE usr = 'ann' ORDER BY window_start;
SELECT * FROM long_visits;
SELECT name, open_windows, groups FROM kda.queries WHERE name IN ('visits', 'pages', 'busy') ORDER BY name;

-- a restart changes nothing
SELECT count(pg_terminate_backend(pid)) FROM kda.workers WHERE kind = 'pipeline';
INSERT INTO clicks VALUES ('2026-01-01 10:00:15+00', NULL, '/d', 60);
SELECT kda.wait('clicks');
SELECT * FROM visits ORDER BY usr, window_start;

-- The watermark reaches the end of bob's second session, 10:00:20.000001: it is still open, for a row at that very time would join.
SELECT kda.advance('clicks', '2026-01-01 10:00:20.000001+00');
SELECT kda.wait('clicks');
SELECT * FROM slow ORDER BY usr, last;
INSERT INTO clicks VALUES ('2026-01-01 10:00:20.000001+00', 'bob', '/z', 50);
-- earlier than the watermark: late, although the session of the others is still open
INSERT INTO clicks VALUES ('2026-01-01 10:00:20+00', 'bob', '/late', 50), ('2026-01-01 10:00:20+00', NULL, '/late', 50);
SELECT kda.wait('clicks');
SELECT * FROM slow ORDER BY usr, last;
SELECT records_late FROM kda.streams WHERE stream = 'clicks'::regclass;
SELECT error_name, data_rowtime, data_text FROM kda.error_stream WHERE stream = 'clicks'::regclass ORDER BY error_id;
-- all of them end; nothing is kept of them
SELECT kda.advance('clicks', '2026-01-01 10:02:00+00');
SELECT kda.wait('clicks');
SELECT * FROM slow ORDER BY usr, last;
SELECT * FROM pages ORDER BY usr, window_start;
SELECT * FROM busy ORDER BY window_start;
SELECT name, open_windows, groups FROM kda.queries WHERE name IN ('visits', 'pages', 'busy') ORDER BY name;

-- RESET gives what is open
INSERT INTO clicks VALUES ('2026-01-01 10:05:00+00', 'cid', '/a', 1);
SELECT kda.wait('clicks');
ALTER STREAM clicks RESET;
INSERT INTO clicks VALUES ('2025-01-01 10:00:00+00', 'cid', '/old', 2);
SELECT kda.wait('clicks');
SELECT usr, last, closed FROM slow WHERE usr = 'cid';
SELECT window_start, usr, n FROM visits WHERE usr = 'cid' ORDER BY 1;
DROP STREAM clicks CASCADE;

-- Whatever can be said about the rows of a session: each session of a key is a window of its own.
CREATE STREAM ev (rowtime timestamptz, k int, v int) OPTIONS (idle_timeout 'never', watermark '1 hour');
CREATE CONTINUOUS VIEW firsts AS SELECT k, v, rowtime FROM ev WINDOWED BY SESSION (INTERVAL '1' MINUTE) ORDER BY rowtime, v LIMIT 2;
CREATE CONTINUOUS VIEW ranks AS SELECT k, sum(v) AS s, rank() OVER (ORDER BY sum(v) DESC) AS r FROM ev WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k ORDER BY s LIMIT 1;
CREATE CONTINUOUS VIEW by_expr AS SELECT window_start, window_end, k % 2 AS odd, array_agg(v ORDER BY v) AS vs, mode() WITHIN GROUP (ORDER BY k) AS m FROM ev WHERE window_end - window_start > '1 minute' WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k % 2;
CREATE CONTINUOUS VIEW tags AS SELECT t, count(*) AS n FROM ev, unnest(ARRAY[k, v]) AS t WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY t;
CREATE CONTINUOUS VIEW best AS SELECT * FROM (SELECT window_start, window_end, k, sum(v) AS s, row_number() OVER (PARTITION BY window_start, window_end ORDER BY sum(v) DESC) AS n
	FROM ev WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k) q WHERE n = 1;
-- what comes out of sessions is grouped again, when they have closed
CREATE CONTINUOUS VIEW above AS SELECT count(*) AS sessions, max(n) AS longest FROM (SELECT k, count(*) AS n FROM ev WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k) q;
INSERT INTO ev VALUES ('2026-01-01 00:00:00+00', 1, 5), ('2026-01-01 00:00:30+00', 2, 6), ('2026-01-01 00:01:00+00', 1, 7), ('2026-01-01 00:05:00+00', 3, 1), ('2026-01-01 00:05:30+00', 3, 2), ('2026-01-01 00:06:00+00', 5, 3);
SELECT kda.wait('ev');
SELECT * FROM firsts ORDER BY rowtime;
SELECT * FROM ranks ORDER BY k;
SELECT * FROM by_expr ORDER BY window_start;
SELECT * FROM tags ORDER BY t, window_start;
SELECT * FROM best ORDER BY k, window_start;
SELECT * FROM above;
SELECT kda.advance('ev', '2026-01-02 00:00:00+00');
SELECT kda.wait('ev');
SELECT * FROM firsts ORDER BY rowtime;
SELECT * FROM ranks ORDER BY k;
SELECT * FROM by_expr ORDER BY window_start;
SELECT * FROM tags ORDER BY t, window_start;
SELECT * FROM best ORDER BY k, window_start;
SELECT * FROM above;
DROP STREAM ev CASCADE;

-- Flink's TABLE (SESSION (…)): sessions are made for what PARTITION BY says, whatever is grouped by then.
CREATE STREAM bids (rowtime timestamptz, item text, price int) OPTIONS (idle_timeout 'never', watermark '1 hour');
CREATE CONTINUOUS VIEW by_item AS SELECT window_start, window_end, item, sum(price) AS s FROM TABLE (SESSION (TABLE bids PARTITION BY item, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, item;
CREATE CONTINUOUS VIEW finer AS SELECT window_start, window_end, item, price, count(*) AS n FROM TABLE (SESSION (TABLE bids PARTITION BY item, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, item, price;
-- sessions that have the same bounds are one group
CREATE CONTINUOUS VIEW by_bounds AS SELECT window_start, window_end, sum(price) AS s, array_agg(DISTINCT item) AS items FROM TABLE (SESSION (TABLE bids PARTITION BY item, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW dearest AS SELECT item, price, window_end FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY price DESC) AS n FROM TABLE (SESSION (TABLE bids PARTITION BY item, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE))) t WHERE n = 1;
-- without PARTITION BY: over all rows
CREATE CONTINUOUS VIEW together AS SELECT window_start, window_end, item, sum(price) AS s FROM TABLE (SESSION (TABLE bids, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, ROLLUP (item);
CREATE CONTINUOUS VIEW older AS SELECT item, SESSION_START(rowtime, INTERVAL '1' MINUTE) AS s, SESSION_END(rowtime, INTERVAL '1' MINUTE) AS e, sum(price) AS p FROM bids GROUP BY SESSION(rowtime, INTERVAL '1' MINUTE), item;
INSERT INTO bids VALUES ('2026-01-01 00:00:00+00', 'a', 1), ('2026-01-01 00:00:30+00', 'a', 2), ('2026-01-01 00:00:00+00', 'b', 4), ('2026-01-01 00:00:30+00', 'b', 8), ('2026-01-01 00:01:00+00', 'c', 16), ('2026-01-01 00:02:00+00', 'c', 16);
SELECT kda.advance('bids', '2026-01-01 00:02:00+00');
SELECT kda.wait('bids');
-- a and b have closed, c has not
SELECT * FROM by_item ORDER BY item;
SELECT * FROM finer ORDER BY item, price;
SELECT * FROM by_bounds ORDER BY window_end;
SELECT * FROM dearest ORDER BY item;
SELECT * FROM together ORDER BY item;
SELECT * FROM older ORDER BY item;
SELECT name, open_windows FROM kda.queries WHERE name IN ('by_item', 'finer', 'by_bounds', 'dearest', 'together', 'older') ORDER BY name;
-- a query that begins later: a session that begins within the gap of what has been missed may be a part only
CREATE CONTINUOUS VIEW later AS SELECT count(*) AS n FROM bids WINDOWED BY SESSION (INTERVAL '1' MINUTE);
INSERT INTO bids VALUES ('2026-01-01 00:03:00+00', 'a', 1);
SELECT kda.wait('bids');
SELECT l.n, l.window_start < q.complete_from AS partial, q.complete_from FROM later l, kda.queries q WHERE q.name = 'later';
DROP STREAM bids CASCADE;

-- Pumps: a session leaves when it closes; what it goes into knows that nothing earlier will come.
CREATE STREAM src (rowtime timestamptz, k text) OPTIONS (idle_timeout 'never');
CREATE STREAM sessions (k text, n bigint);
CREATE TABLE closed_sessions (k text, n bigint, distinct_k bigint, upto timestamptz);
CREATE PUMP to_stream AS INSERT INTO sessions SELECT k, count(*) FROM src WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k;
CREATE PUMP to_table AS INSERT INTO closed_sessions (k, n, distinct_k, upto) SELECT k, count(*), count(DISTINCT k) AS d, window_end FROM src WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW per_hour AS SELECT count(*) AS sessions, sum(n) AS rows FROM sessions WINDOWED BY TUMBLING (INTERVAL '1' HOUR);
INSERT INTO src VALUES ('2026-01-01 00:00:00+00', 'a'), ('2026-01-01 00:00:30+00', 'a'), ('2026-01-01 00:59:00+00', 'b'), ('2026-01-01 01:00:00+00', 'c');
SELECT kda.wait('src') AND kda.wait('sessions');
-- b's session ends at 01:00:00 and is open, so the first hour is open as well
SELECT * FROM to_stream ORDER BY k;
SELECT * FROM closed_sessions ORDER BY k;
SELECT kda.watermark('src'), kda.watermark('sessions');
SELECT sessions, rows FROM per_hour;
INSERT INTO src VALUES ('2026-01-01 01:00:00.000001+00', 'c');
SELECT kda.wait('src') AND kda.wait('sessions');
SELECT * FROM closed_sessions ORDER BY k;
SELECT kda.watermark('src'), kda.watermark('sessions');
SELECT *, window_end <= kda.watermark('sessions') AS closed FROM per_hour;
SELECT records_late FROM kda.streams WHERE stream = 'sessions'::regclass;
DROP STREAM src, sessions CASCADE;
DROP TABLE closed_sessions;

-- STAGGER: a window opens with a key's first row and has the given length.
CREATE STREAM trades (rowtime timestamptz, ticker text, price numeric) OPTIONS (watermark '1 minute', idle_timeout 'never');
CREATE CONTINUOUS VIEW counts AS SELECT STREAM ticker, count(*) AS n, avg(price) AS avg FROM trades WINDOWED BY STAGGER (PARTITION BY ticker RANGE INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW prices AS SELECT ticker, array_agg(DISTINCT price) AS prices FROM trades WINDOWED BY STAGGER (PARTITION BY ticker RANGE INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW minutes AS SELECT STREAM FLOOR(trades.ROWTIME TO MINUTE) AS minute, price > 15 AS dear, min(rowtime) AS first, count(*) AS n
	FROM trades WINDOWED BY STAGGER (PARTITION BY FLOOR(ROWTIME TO MINUTE), price > 15 RANGE INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW each AS SELECT ticker, price, window_start FROM trades WINDOWED BY STAGGER (PARTITION BY ticker RANGE INTERVAL '1' MINUTE);
INSERT INTO trades VALUES ('2026-01-01 10:00:20+00', 'AMZN', 10), ('2026-01-01 10:01:19.999999+00', 'AMZN', 12), ('2026-01-01 10:00:50+00', 'TBV', 7);
-- 10:01:20 is in no window: it opens one; 10:00:19 is in none either and opens an earlier one, which takes only what the first one does not contain
INSERT INTO trades VALUES ('2026-01-01 10:01:20+00', 'AMZN', 14), ('2026-01-01 10:00:30+00', 'AMZN', 16), ('2026-01-01 10:00:19+00', 'AMZN', 18), ('2026-01-01 10:00:40+00', 'AMZN', 20), ('2026-01-01 10:00:19.5+00', 'AMZN', 22);
SELECT kda.wait('trades');
SELECT * FROM counts ORDER BY ticker, window_start;
SELECT * FROM prices ORDER BY ticker, window_start;
SELECT * FROM minutes ORDER BY window_start;
SELECT * FROM each ORDER BY price;
SELECT count(pg_terminate_backend(pid)) FROM kda.workers WHERE kind = 'pipeline';
INSERT INTO trades VALUES ('2026-01-01 10:00:45+00', 'AMZN', 24);
-- the watermark is 10:02:00: AMZN's windows that end at 10:01:19 and 10:01:20 have closed, as TBV's
INSERT INTO trades VALUES ('2026-01-01 10:03:00+00', 'AMZN', 26);
-- a row of the time of a window that has closed opens another, unless it is late for that
INSERT INTO trades VALUES ('2026-01-01 10:01:00+00', 'AMZN', 28), ('2026-01-01 10:01:00.000001+00', 'AMZN', 30);
SELECT kda.wait('trades');
SELECT * FROM counts ORDER BY ticker, window_start;
SELECT * FROM prices ORDER BY ticker, window_start;
SELECT name, open_windows, groups, records_late FROM kda.queries WHERE name IN ('counts', 'prices') ORDER BY name;
SELECT kda.advance('trades', '2026-01-02 00:00:00+00');
SELECT kda.wait('trades');
SELECT ticker, n FROM counts ORDER BY ticker, window_start;
SELECT name, open_windows, groups FROM kda.queries WHERE name IN ('counts', 'prices') ORDER BY name;

-- what cannot be
CREATE CONTINUOUS VIEW bad AS SELECT ticker, count(*) FROM trades WINDOWED BY SESSION (INTERVAL '0' SECOND) GROUP BY ticker;
CREATE CONTINUOUS VIEW bad AS SELECT ticker, count(*) FROM trades WINDOWED BY SESSION (INTERVAL '-1' SECOND) GROUP BY ticker;
CREATE CONTINUOUS VIEW bad AS SELECT ticker, count(*) FROM trades WINDOWED BY SESSION (INTERVAL '1' MONTH) GROUP BY ticker;
CREATE CONTINUOUS VIEW bad AS SELECT ticker, count(*) FROM trades WINDOWED BY SESSION (INTERVAL '1' MINUTE, INTERVAL '1' MINUTE) GROUP BY ticker;
CREATE CONTINUOUS VIEW bad AS SELECT ticker, count(*) FROM trades WINDOWED BY SESSION () GROUP BY ticker;
CREATE CONTINUOUS VIEW bad AS SELECT ticker, count(*) FROM trades WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY ROLLUP (ticker);
CREATE CONTINUOUS VIEW bad AS SELECT count(*) FROM trades WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY price > extract(epoch FROM window_end - window_start);
CREATE CONTINUOUS VIEW bad AS SELECT ticker, count(*) FROM trades WINDOWED BY STAGGER (PARTITION BY ticker RANGE INTERVAL '1' MINUTE) GROUP BY ticker;
CREATE CONTINUOUS VIEW bad AS SELECT ticker, count(*) FROM trades WINDOWED BY STAGGER (RANGE INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW bad AS SELECT ticker, count(*) FROM trades WINDOWED BY STAGGER (PARTITION BY ticker);
CREATE CONTINUOUS VIEW bad AS SELECT ticker, price, count(*) FROM trades WINDOWED BY STAGGER (PARTITION BY ticker RANGE INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW bad AS SELECT count(*) FROM trades WINDOWED BY STAGGER (PARTITION BY ticker RANGE INTERVAL '0' MINUTE);
DROP STREAM trades CASCADE;
