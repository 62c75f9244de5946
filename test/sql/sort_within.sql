-- ORDER BY … WITHIN INTERVAL: rows leave in the order of a time, held for as
-- long as others may still go before them.
SET TIME ZONE 'UTC';
SET client_min_messages = warning;
CREATE STREAM ticks (rowtime timestamptz, sym text, price int, made timestamp);
CREATE TABLE names (sym text, name text);
INSERT INTO names VALUES ('a', 'Anchor'), ('b', 'Bolt');
CREATE STREAM sorted (rowtime timestamptz, sym text, price int);
CREATE PUMP by_time AS INSERT INTO sorted (sym, price)
    SELECT STREAM sym, price FROM ticks AS t ORDER BY t.rowtime WITHIN INTERVAL '10' SECOND;
CREATE CONTINUOUS VIEW behind AS SELECT rowtime, sym, price FROM sorted;
-- Further keys sort what is of one time, whatever a join does to the order.
CREATE CONTINUOUS VIEW by_keys AS
    SELECT t.rowtime, n.name, price FROM names n JOIN ticks t ON n.sym = t.sym
    WHERE price < 9
    ORDER BY ROWTIME WITHIN INTERVAL '10' SECONDS, n.name DESC, price;
-- Another time than the stream's: by name, by number, by an expression.
CREATE CONTINUOUS VIEW by_column AS
    SELECT STREAM made AS at, sym, price, rowtime FROM ticks ORDER BY at WITHIN INTERVAL '10' SECOND;
CREATE CONTINUOUS VIEW by_expression AS
    SELECT made + INTERVAL '1' DAY, sym, price FROM ticks ORDER BY 1 WITHIN INTERVAL '10' SECOND;
-- Below windows, OVER and aggregates: what they get is sorted.
CREATE CONTINUOUS VIEW above_over AS
    SELECT STREAM sym, price, price - lag(price) OVER (PARTITION BY sym ROWS 1 PRECEDING) AS change
    FROM ticks t ORDER BY t.made WITHIN INTERVAL '10' SECOND;
CREATE CONTINUOUS VIEW above_step AS
    SELECT STREAM STEP(t.made BY INTERVAL '1' MINUTE) AS minute, n.name, count(*) AS n, sum(price) AS sum
    FROM ticks t JOIN names n ON n.sym = t.sym
    GROUP BY STEP(t.made BY INTERVAL '1' MINUTE), n.name ORDER BY t.made WITHIN INTERVAL '10' SECOND;
CREATE CONTINUOUS VIEW above_window AS
    SELECT sym, count(*) AS n FROM ticks t
    WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY sym
    ORDER BY t.rowtime WITHIN INTERVAL '10' SECOND;
CREATE CONTINUOUS VIEW above_table AS
    SELECT window_start, sym, max(price) FROM TABLE(TUMBLE(TABLE ticks, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE))
    GROUP BY window_start, window_end, sym ORDER BY rowtime WITHIN INTERVAL '10' SECOND;
-- In a subquery, over a view of windows, over UNION ALL, over joined streams.
CREATE CONTINUOUS VIEW around AS
    SELECT sym, sum(price) OVER (PARTITION BY sym ORDER BY rowtime ROWS 1 PRECEDING) AS two
    FROM (SELECT rowtime, sym, price FROM ticks ORDER BY rowtime WITHIN INTERVAL '10' SECOND) t;
CREATE CONTINUOUS VIEW over_view AS
    SELECT sym, n FROM above_window w ORDER BY w.rowtime WITHIN INTERVAL '0' SECOND, sym DESC;
CREATE CONTINUOUS VIEW over_union AS
    SELECT sym, price FROM (SELECT rowtime, sym, price FROM ticks WHERE sym = 'a'
        UNION ALL SELECT rowtime, sym, price FROM ticks WHERE sym = 'b') u
    ORDER BY u.rowtime WITHIN INTERVAL '10' SECOND, price DESC;
CREATE CONTINUOUS VIEW over_join AS
    SELECT a.price, b.price AS later FROM ticks a JOIN ticks b ON a.sym = b.sym
        AND b.rowtime > a.rowtime AND b.rowtime <= a.rowtime + INTERVAL '10' SECOND
    ORDER BY a.made WITHIN INTERVAL '30' SECONDS, later;
-- Sorted by another time, that is the time of the rows: above a subquery and a view, too, whatever their columns are called.
CREATE CONTINUOUS VIEW sessions AS
    SELECT sym, count(*) AS n FROM (SELECT * FROM ticks ORDER BY made WITHIN INTERVAL '10' SECOND) t
    WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY sym;
CREATE CONTINUOUS VIEW sessions_of_view AS
    SELECT sym, count(*) AS n FROM by_column WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY sym;
-- An error is that of its record.
CREATE CONTINUOUS VIEW fragile AS
    SELECT sym, 8 / (price - 4) AS q FROM ticks t ORDER BY t.rowtime WITHIN INTERVAL '10' SECOND;

INSERT INTO ticks VALUES
    ('2026-01-01 10:00:05+00', 'a', 1, '2026-02-01 10:00:05'), ('2026-01-01 10:00:00+00', 'b', 2, '2026-02-01 10:00:00'),
    ('2026-01-01 10:00:03+00', 'a', 3, '2026-02-01 10:00:03'), ('2026-01-01 10:00:05+00', 'b', 4, '2026-02-01 10:00:05'),
    ('2026-01-01 10:00:14+00', 'a', 5, '2026-02-01 10:00:14');
SELECT kda.wait('ticks');
-- The greatest is 10:00:14: what is of 10:00:04 and before has left.
TABLE behind;
TABLE by_keys;
TABLE by_column;
-- Exactly so much later than the greatest is not late, and goes where it belongs; what is more so, is.
INSERT INTO ticks VALUES
    ('2026-01-01 10:00:04+00', 'a', 6, '2026-02-01 10:00:04'),
    ('2026-01-01 10:00:15+00', 'b', 7, '2026-02-01 10:00:15'),
    ('2026-01-01 10:00:05+00', 'a', 0, '2026-02-01 10:00:05'),
    ('2026-01-01 10:00:04.999999+00', 'b', 8, '2026-02-01 10:00:04.999999'),
    ('2026-01-01 10:00:20+00', 'b', 9, NULL),
    ('2026-01-01 10:02:00+00', 'a', 5, '2026-02-01 10:02:00');
SELECT kda.wait('ticks');
TABLE behind;
TABLE by_keys;
TABLE by_column;
SELECT error_name, message, data_text, query FROM kda.error_stream ORDER BY 1, 4, 3;
SELECT name, records_late, groups FROM kda.queries WHERE name IN ('by_time', 'by_keys', 'by_column') ORDER BY 1;
SELECT records_late, records_failed FROM kda.streams WHERE stream = 'ticks'::regclass;
-- A last one lets all that is held leave.
INSERT INTO ticks VALUES
    ('2026-01-02 10:00+00', 'a', 10, '2026-03-01 10:00'), ('2026-01-02 10:00:01+00', 'a', 11, '2026-03-01 10:00:01');
SELECT kda.wait('ticks');
SELECT * FROM by_keys OFFSET 6;
TABLE by_expression;
TABLE above_over;
SELECT * FROM above_step ORDER BY 1, 2;
SELECT * FROM above_window ORDER BY 1, 3;
SELECT * FROM above_table ORDER BY 1, 2;
SELECT * FROM sessions ORDER BY 1, 3;
SELECT * FROM sessions_of_view ORDER BY 1, 3;
TABLE fragile;
TABLE around;
TABLE over_view;
TABLE over_union;
TABLE over_join;
-- Once, over the buffer: ORDER BY, and no more.
SELECT sym, price FROM ticks WHERE price < 4 ORDER BY made WITHIN INTERVAL '10' SECOND, price;
SELECT * FROM kda.query($$ SELECT sym, count(*) FROM ticks GROUP BY sym ORDER BY min(rowtime) WITHIN INTERVAL '10' SECOND $$) AS t(sym text, n bigint);

-- A stream whose time is the arrival, and a timestamp without time zone.
CREATE STREAM arrivals (id int, made timestamp) OPTIONS (time_zone 'Asia/Seoul');
CREATE STREAM in_order (rowtime timestamptz, id int);
CREATE PUMP arrived AS INSERT INTO in_order (id) SELECT STREAM id FROM arrivals a ORDER BY a.made WITHIN INTERVAL '1' MINUTE;
CREATE CONTINUOUS VIEW made_at AS SELECT rowtime, id FROM in_order;
INSERT INTO arrivals VALUES (1, '2026-01-01 09:00:30'), (2, '2026-01-01 09:00:00'), (3, '2026-01-01 09:05');
SELECT kda.wait('arrivals');
TABLE made_at;

-- RESET: what is held leaves, and time begins anew.
CREATE STREAM again (rowtime timestamptz, id int);
CREATE CONTINUOUS VIEW anew AS SELECT id FROM again ORDER BY again.rowtime WITHIN INTERVAL '1' MINUTE;
INSERT INTO again VALUES ('2030-01-01', 1), ('2029-12-31 23:59:30', 2);
SELECT kda.wait('again');
ALTER STREAM again RESET;
INSERT INTO again VALUES ('2026-01-01 10:00', 4), ('2026-01-01 10:00:59', 5), ('2026-01-01 10:00:30', 6), ('2026-01-01 10:05', 7);
SELECT kda.wait('again');
TABLE anew;

-- What cannot be.
CREATE CONTINUOUS VIEW e AS SELECT * FROM ticks t ORDER BY t.rowtime DESC WITHIN INTERVAL '1' MINUTE;
CREATE CONTINUOUS VIEW e AS SELECT * FROM ticks t ORDER BY sym, t.rowtime WITHIN INTERVAL '1' MINUTE;
CREATE CONTINUOUS VIEW e AS SELECT * FROM ticks t ORDER BY t.rowtime WITHIN INTERVAL '1' MONTH;
CREATE CONTINUOUS VIEW e AS SELECT * FROM ticks t ORDER BY t.rowtime WITHIN INTERVAL '-1' MINUTE;
CREATE CONTINUOUS VIEW e AS SELECT * FROM ticks t ORDER BY t.rowtime WITHIN INTERVAL '1' MINUTE LIMIT 3;
CREATE CONTINUOUS VIEW e AS SELECT DISTINCT sym FROM ticks t ORDER BY t.rowtime WITHIN INTERVAL '1' MINUTE;
CREATE CONTINUOUS VIEW e AS SELECT * FROM ticks t ORDER BY t.price WITHIN INTERVAL '1' MINUTE;
CREATE CONTINUOUS VIEW e AS SELECT * FROM ticks t ORDER BY t.made + random() * INTERVAL '1' SECOND WITHIN INTERVAL '1' MINUTE;
CREATE CONTINUOUS VIEW e AS SELECT * FROM ticks t ORDER BY t.nosuch WITHIN INTERVAL '1' MINUTE;
CREATE CONTINUOUS VIEW e AS SELECT * FROM names n ORDER BY n.sym WITHIN INTERVAL '1' MINUTE;
CREATE CONTINUOUS VIEW e AS SELECT * FROM ticks t WITHIN INTERVAL '1' MINUTE;
CREATE CONTINUOUS VIEW e AS SELECT sum(price) OVER (ORDER BY rowtime WITHIN INTERVAL '1' MINUTE) FROM ticks;
CREATE CONTINUOUS VIEW e AS SELECT sym FROM ticks UNION ALL SELECT sym FROM ticks ORDER BY 1 WITHIN INTERVAL '1' MINUTE;
CREATE CONTINUOUS VIEW e AS SELECT sym FROM ticks t ORDER BY t.rowtime WITHIN INTERVAL '1' MINUTE EMIT ON WINDOW CLOSE;
DROP STREAM ticks, sorted, arrivals, in_order, again CASCADE;
DROP TABLE names;
SELECT count(*) FROM kda_storage.sort_mark;
