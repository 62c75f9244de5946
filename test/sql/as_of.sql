-- JOIN t FOR SYSTEM_TIME AS OF s.rowtime: the rows of a table that held at the
-- time of the record.
SET TIME ZONE 'UTC';
SET client_min_messages = warning;
CREATE STREAM orders (rowtime timestamptz, id int, currency text, amount numeric);
-- valid_from and valid_to: half-open, NULL is open.
CREATE TABLE rates (currency text, rate numeric, valid_from timestamptz, valid_to timestamptz);
CREATE INDEX ON rates (currency, valid_from);
INSERT INTO rates VALUES
    ('EUR', 1.1, NULL, '2026-01-01 12:00+00'), ('EUR', 1.2, '2026-01-01 12:00+00', NULL),
    ('JPY', 0.01, '2026-01-01 11:00+00', '2026-01-01 13:00+00');
-- The only column of type tstzrange.
CREATE TABLE clerks (shift text, clerk text, valid tstzrange);
INSERT INTO clerks VALUES ('day', 'Ann', '(,2026-01-01 12:00+00)'), ('day', 'Bob', '[2026-01-01 12:00+00,)');

CREATE CONTINUOUS VIEW converted AS
    SELECT o.id, o.currency, o.amount * r.rate AS usd
    FROM orders AS o
    LEFT JOIN rates FOR SYSTEM_TIME AS OF o.rowtime AS r ON r.currency = o.currency;
-- Several of them; the stream's own name, no name, ROWTIME; with an alias or without.
CREATE CONTINUOUS VIEW several AS
    SELECT orders.*, rate, clerk FROM orders
    JOIN rates FOR SYSTEM_TIME AS OF orders.ROWTIME ON rates.currency = orders.currency
    JOIN clerks FOR SYSTEM_TIME AS OF rowtime c ON c.shift = 'day';
CREATE CONTINUOUS VIEW of_comma AS
    SELECT o.id, r.rate FROM orders o, rates FOR SYSTEM_TIME AS OF o.rowtime r WHERE r.currency = o.currency;
CREATE CONTINUOUS VIEW of_using AS
    SELECT id, currency, rate FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.rowtime r USING (currency);
CREATE CONTINUOUS VIEW renamed AS
    SELECT o.id, r.b FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.rowtime AS r (a, b, c, d) ON r.a = o.currency;
CREATE CONTINUOUS VIEW table_first AS
    SELECT o.id, r.rate FROM rates FOR SYSTEM_TIME AS OF o.rowtime r RIGHT JOIN orders o ON r.currency = o.currency;
CREATE CONTINUOUS VIEW nested AS
    SELECT o.id, r.rate, c.clerk
    FROM orders o JOIN (rates FOR SYSTEM_TIME AS OF o.rowtime r CROSS JOIN clerks c) ON r.currency = o.currency;
-- With windows, over a view, over windows of a subquery, and beside a stream join.
CREATE CONTINUOUS VIEW hourly AS
    SELECT r.currency, sum(o.amount * r.rate) AS usd FROM orders o
    JOIN rates FOR SYSTEM_TIME AS OF o.rowtime r ON r.currency = o.currency
    WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY r.currency;
CREATE CONTINUOUS VIEW over_view AS
    SELECT h.window_end, h.currency, r.rate
    FROM hourly h JOIN rates FOR SYSTEM_TIME AS OF h.rowtime r ON r.currency = h.currency;
CREATE CONTINUOUS VIEW over_subquery AS
    SELECT h.window_end, h.currency, h.n, r.rate
    FROM (SELECT window_end, currency, count(*) AS n FROM orders
          WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY currency) h
    JOIN rates FOR SYSTEM_TIME AS OF h.rowtime r ON r.currency = h.currency;
CREATE CONTINUOUS VIEW pairs AS
    SELECT a.id, b.id AS next, r.rate FROM orders a
    JOIN orders b ON b.currency = a.currency AND b.rowtime > a.rowtime
                  AND b.rowtime <= a.rowtime + INTERVAL '1' MINUTE
    JOIN rates FOR SYSTEM_TIME AS OF b.rowtime r ON r.currency = a.currency;
-- A pump; partitions, and a view that shows when its rows hold.
CREATE TABLE rates_by_year (LIKE rates) PARTITION BY LIST (currency);
CREATE TABLE rates_eur PARTITION OF rates_by_year FOR VALUES IN ('EUR');
CREATE TABLE rates_rest PARTITION OF rates_by_year DEFAULT;
INSERT INTO rates_by_year TABLE rates;
CREATE VIEW shown AS SELECT currency AS c, rate, tstzrange(valid_from, valid_to) AS during FROM rates_by_year;
CREATE TABLE result (id int, rate numeric, again numeric);
CREATE PUMP to_table AS INSERT INTO result
    SELECT STREAM o.id, p.rate, v.rate FROM orders o
    JOIN rates_by_year FOR SYSTEM_TIME AS OF o.rowtime p ON p.currency = o.currency
    LEFT JOIN shown FOR SYSTEM_TIME AS OF o.rowtime v ON v.c = o.currency;

INSERT INTO orders VALUES
    ('2026-01-01 10:00+00', 1, 'EUR', 100), ('2026-01-01 10:00+00', 2, 'JPY', 100),
    ('2026-01-01 11:59:59.999999+00', 3, 'EUR', 100), ('2026-01-01 12:00+00', 4, 'EUR', 100),
    ('2026-01-01 12:00+00', 5, 'JPY', 100), ('2026-01-01 13:00+00', 6, 'JPY', 100),
    ('2026-01-01 15:00+00', 7, 'USD', 100);
SELECT kda.wait('orders');
SELECT * FROM converted ORDER BY id;
SELECT * FROM several ORDER BY id;
SELECT * FROM of_comma ORDER BY id;
SELECT * FROM of_using ORDER BY id;
SELECT * FROM renamed ORDER BY id;
SELECT * FROM table_first ORDER BY id;
SELECT * FROM nested ORDER BY 1, 3;
SELECT * FROM hourly ORDER BY 1, 3;
SELECT * FROM over_view ORDER BY 1, 2;
SELECT * FROM over_subquery ORDER BY 1, 2;
SELECT * FROM pairs ORDER BY 1, 2;
SELECT * FROM result ORDER BY 1;

-- The same once, over the buffer: without windows and with them.
SELECT o.id, r.rate FROM orders o
LEFT JOIN rates FOR SYSTEM_TIME AS OF o.rowtime r ON r.currency = o.currency ORDER BY 1;
SELECT window_start, r.rate, count(*) FROM orders o
JOIN rates FOR SYSTEM_TIME AS OF o.rowtime r ON r.currency = o.currency
WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY r.rate ORDER BY 1, 2;
SELECT * FROM kda.query($$ SELECT o.id, c.clerk FROM orders o, clerks FOR SYSTEM_TIME AS OF o.rowtime c $$)
    AS t(id int, clerk text) ORDER BY 1;
PREPARE p AS SELECT count(*) FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.rowtime r ON r.currency = o.currency;
EXECUTE p;

-- An index of the table can be used, and the statement stays what was typed.
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_seqscan = off;
SELECT * FROM kda.explain('converted') AS line WHERE line ~ 'Index|Filter';
RESET enable_hashjoin;
RESET enable_mergejoin;
RESET enable_seqscan;
SELECT kda.definition('converted');

-- Time without a column, and without a time zone: as the stream has it, or as it stands beside a timestamp.
CREATE STREAM arrivals (id int);
CREATE CONTINUOUS VIEW arrived AS
    SELECT a.id, r.rate FROM arrivals a JOIN rates FOR SYSTEM_TIME AS OF a.ROWTIME r ON r.currency = 'EUR';
CREATE STREAM seoul ("ROWTIME" timestamp, id int) OPTIONS (time_zone 'Asia/Seoul');
CREATE TABLE plain (id int, name text, valid_from timestamp, valid_to timestamp);
INSERT INTO plain VALUES (1, 'before', NULL, '2026-01-01 21:00'), (1, 'after', '2026-01-01 21:00', NULL);
CREATE CONTINUOUS VIEW zoned AS
    SELECT s."ROWTIME", r.rate, p.name FROM seoul s
    JOIN rates FOR SYSTEM_TIME AS OF s."ROWTIME" r ON r.currency = 'EUR'
    JOIN plain FOR SYSTEM_TIME AS OF s."ROWTIME" p ON p.id = s.id;
SET TIME ZONE 'America/New_York';
INSERT INTO arrivals VALUES (1);
INSERT INTO seoul VALUES ('2026-01-01 20:59', 1), ('2026-01-01 21:00', 1);
SELECT kda.wait('arrivals'), kda.wait('seoul');
SELECT * FROM arrived;
SELECT * FROM zoned ORDER BY 1;
SELECT a.id, r.rate FROM arrivals a JOIN rates FOR SYSTEM_TIME AS OF a.ROWTIME r ON r.currency = 'EUR';
SET TIME ZONE 'UTC';

-- The table is looked up as it is when the record comes: what is added later counts from then on.
UPDATE rates SET valid_to = '2026-01-01 16:00+00' WHERE rate = 1.2;
INSERT INTO rates VALUES ('EUR', 1.3, '2026-01-01 16:00+00', NULL);
INSERT INTO orders VALUES ('2026-01-01 16:00+00', 8, 'EUR', 100);
SELECT kda.wait('orders');
SELECT * FROM converted WHERE id >= 4 AND currency = 'EUR' ORDER BY id;

-- What cannot be.
CREATE TABLE no_time (currency text, valid tsrange);
CREATE TABLE half (currency text, valid_from timestamptz);
CREATE TABLE two_ranges (currency text, a tstzrange, b tstzrange);
CREATE TABLE days (currency text, valid_from date, valid_to date);
CREATE CONTINUOUS VIEW e AS SELECT * FROM orders o JOIN no_time FOR SYSTEM_TIME AS OF o.rowtime t ON t.currency = o.currency;
CREATE CONTINUOUS VIEW e AS SELECT * FROM orders o JOIN half FOR SYSTEM_TIME AS OF o.rowtime t ON t.currency = o.currency;
CREATE CONTINUOUS VIEW e AS SELECT * FROM orders o JOIN two_ranges FOR SYSTEM_TIME AS OF o.rowtime t ON t.currency = o.currency;
CREATE CONTINUOUS VIEW e AS SELECT * FROM orders o JOIN days FOR SYSTEM_TIME AS OF o.rowtime t ON t.currency = o.currency;
CREATE CONTINUOUS VIEW e AS SELECT * FROM orders o JOIN plain FOR SYSTEM_TIME AS OF o.rowtime t ON t.id = o.id;
CREATE CONTINUOUS VIEW e AS SELECT * FROM orders o JOIN missing FOR SYSTEM_TIME AS OF o.rowtime t ON t.currency = o.currency;
CREATE CONTINUOUS VIEW e AS SELECT * FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.amount r ON r.currency = o.currency;
CREATE CONTINUOUS VIEW e AS SELECT * FROM orders o JOIN rates FOR SYSTEM_TIME AS OF r.valid_from r ON r.currency = o.currency;
CREATE CONTINUOUS VIEW e AS SELECT * FROM orders o JOIN orders FOR SYSTEM_TIME AS OF o.rowtime r ON r.currency = o.currency;
CREATE CONTINUOUS VIEW e AS SELECT * FROM orders o JOIN hourly FOR SYSTEM_TIME AS OF o.rowtime r ON r.currency = o.currency;
CREATE CONTINUOUS VIEW e AS SELECT id FROM orders o LEFT JOIN rates FOR SYSTEM_TIME AS OF o.rowtime r USING (currency);
CREATE CONTINUOUS VIEW e AS SELECT o.id FROM orders o JOIN (clerks c LEFT JOIN rates FOR SYSTEM_TIME AS OF o.rowtime r ON true) ON r.currency = o.currency;
CREATE CONTINUOUS VIEW e AS SELECT o.id FROM orders o JOIN (SELECT * FROM rates) FOR SYSTEM_TIME AS OF o.rowtime r ON r.currency = o.currency;
CREATE CONTINUOUS VIEW e AS SELECT o.id, (SELECT rate FROM rates FOR SYSTEM_TIME AS OF o.rowtime r WHERE r.currency = o.currency) FROM orders o;
CREATE CONTINUOUS VIEW e AS WITH r AS (TABLE rates) SELECT o.id FROM orders o JOIN r FOR SYSTEM_TIME AS OF o.rowtime ON r.currency = o.currency;
CREATE CONTINUOUS VIEW e AS SELECT a.id FROM arrivals a JOIN arrivals b ON a.id = b.id AND a.rowtime = b.rowtime JOIN rates FOR SYSTEM_TIME AS OF a.ROWTIME r ON true;
SELECT * FROM orders o RIGHT JOIN rates FOR SYSTEM_TIME AS OF o.rowtime r ON r.currency = o.currency;
SELECT * FROM clerks c JOIN rates FOR SYSTEM_TIME AS OF c.valid r ON true;
DROP STREAM orders, arrivals, seoul CASCADE;
DROP VIEW shown;
DROP TABLE rates, clerks, rates_by_year, result, plain, no_time, half, two_ranges, days;
