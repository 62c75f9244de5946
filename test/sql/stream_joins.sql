-- Joins of streams: inner, outer, with themselves, of three; then a window over them, then a table.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET client_min_messages=warning;
CREATE STREAM orders (rowtime timestamptz, id int, item text);
CREATE STREAM pays (rowtime timestamptz, order_id int, amount numeric);
CREATE CONTINUOUS VIEW paid AS SELECT o.id, item, amount, p.rowtime - o.rowtime AS after FROM orders o JOIN pays p ON o.id = p.order_id AND p.rowtime BETWEEN o.rowtime - INTERVAL '1' MINUTE AND o.rowtime + INTERVAL '5' MINUTE;
CREATE CONTINUOUS VIEW paid2 AS SELECT o.*, p.amount FROM orders o, pays p WHERE o.id = p.order_id AND p.rowtime >= o.rowtime AND p.rowtime <= o.rowtime + INTERVAL '5' MINUTE;
CREATE CONTINUOUS VIEW left_ AS SELECT o.id, amount FROM orders o LEFT JOIN pays p ON o.id = p.order_id AND p.rowtime BETWEEN o.rowtime AND o.rowtime + INTERVAL '5' MINUTE;
CREATE CONTINUOUS VIEW full_ AS SELECT o.id, p.order_id, amount FROM orders o FULL JOIN pays p ON o.id = p.order_id AND p.rowtime BETWEEN o.rowtime AND o.rowtime + INTERVAL '5' MINUTE;
CREATE CONTINUOUS VIEW per_item AS SELECT item, count(*), sum(amount) FROM orders o JOIN pays p ON o.id = p.order_id AND p.rowtime BETWEEN o.rowtime - INTERVAL '1' MINUTE AND o.rowtime + INTERVAL '5' MINUTE WINDOWED BY TUMBLING (INTERVAL '10' MINUTE) GROUP BY item;
CREATE CONTINUOUS VIEW self_ AS SELECT a.id a, b.id b FROM orders a JOIN orders b ON a.item = b.item AND a.id < b.id AND b.rowtime BETWEEN a.rowtime - INTERVAL '2' MINUTE AND a.rowtime + INTERVAL '2' MINUTE;
CREATE STREAM ships (rowtime timestamptz, order_id int);
CREATE CONTINUOUS VIEW three AS SELECT o.id, p.amount, s.rowtime FROM orders o JOIN pays p ON o.id = p.order_id AND p.rowtime BETWEEN o.rowtime AND o.rowtime + INTERVAL '5' MINUTE JOIN ships s ON s.order_id = o.id AND s.rowtime BETWEEN o.rowtime AND o.rowtime + INTERVAL '20' MINUTE;
RESET client_min_messages;
CREATE CONTINUOUS VIEW bad AS SELECT * FROM orders o JOIN pays p ON o.id = p.order_id;
INSERT INTO orders VALUES ('2026-01-01 10:00+00',1,'a'),('2026-01-01 10:01+00',2,'b'),('2026-01-01 10:02+00',3,'a');
INSERT INTO pays VALUES ('2026-01-01 10:00:30+00',2,20),('2026-01-01 10:03+00',1,10);
SELECT kda.wait('orders'), kda.wait('pays');
INSERT INTO ships VALUES ('2026-01-01 10:05+00',1);
SELECT kda.wait('orders'), kda.wait('pays'), kda.wait('ships');
SELECT * FROM paid ORDER BY 1, 2; SELECT * FROM paid2 ORDER BY 1, 2; SELECT * FROM left_ ORDER BY 1, 2; SELECT * FROM full_ ORDER BY 1, 2; SELECT * FROM per_item ORDER BY 1, 2; SELECT * FROM self_ ORDER BY 1, 2; SELECT * FROM three ORDER BY 1, 2;
INSERT INTO orders VALUES ('2026-01-01 10:20+00',4,'c');
INSERT INTO pays VALUES ('2026-01-01 10:20+00',9,20);
SELECT kda.wait('orders'), kda.wait('pays');
SELECT * FROM left_ ORDER BY 1, 2; SELECT * FROM full_ ORDER BY 1, 2; SELECT * FROM per_item ORDER BY 1, 2; 
-- nothing is kept longer than it can match
SELECT kda.advance('orders', '2026-01-01 11:00+00'), kda.advance('pays', '2026-01-01 11:00+00'), kda.advance('ships', '2026-01-01 11:00+00');
SELECT kda.wait('orders'), kda.wait('pays'), kda.wait('ships');
SELECT sum(n) FROM (SELECT (xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM kda_storage.%I', relname), false, true, '')))[1]::text::int AS n
	FROM pg_class WHERE relname ~ '^(left|right)_' AND relkind = 'r') k;
SELECT count(*) FROM kda.error_stream WHERE stream IN ('orders'::regclass, 'pays'::regclass, 'ships'::regclass);
CREATE TABLE items (item text, price int); INSERT INTO items VALUES ('a', 5), ('c', 7);
CREATE CONTINUOUS VIEW dim_ AS SELECT o.id, p.amount, price FROM orders o JOIN pays p ON o.id = p.order_id AND p.rowtime BETWEEN o.rowtime AND o.rowtime + INTERVAL '5' MINUTE LEFT JOIN items i ON i.item = o.item;
INSERT INTO orders VALUES ('2026-01-01 11:30+00',5,'c');
INSERT INTO pays VALUES ('2026-01-01 11:31+00',5,7);
SELECT kda.wait('orders'), kda.wait('pays');
SELECT * FROM dim_ ORDER BY 1, 2;
CREATE CONTINUOUS VIEW bad AS SELECT * FROM orders o JOIN pays p USING (rowtime);
CREATE CONTINUOUS VIEW bad AS SELECT * FROM orders o JOIN items i USING (item) JOIN pays p ON o.id = p.order_id AND p.rowtime BETWEEN o.rowtime AND o.rowtime + INTERVAL '5' MINUTE;
-- late for a join: earlier than its stream's watermark
INSERT INTO orders VALUES ('2026-01-01 10:00+00', 6, 'c');
SELECT kda.wait('orders');
SELECT error_name, data_text FROM kda.error_stream WHERE stream = 'orders'::regclass;
SET client_min_messages = warning;
DROP STREAM orders, pays, ships CASCADE;
DROP TABLE items;
