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
CREATE FUNCTION rows_of(name) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint; BEGIN EXECUTE format('SELECT count(*) FROM kda_storage.%I', $1) INTO n; RETURN n; END $$;
SELECT sum(rows_of(relname)) FROM pg_class WHERE relname ~ '^(left|right)_' AND relkind = 'r';
DROP FUNCTION rows_of;
SELECT count(*) FROM kda.error_stream WHERE stream IN ('orders'::regclass, 'pays'::regclass, 'ships'::regclass);
CREATE TABLE items (item text, price int); INSERT INTO items VALUES ('a', 5), ('c', 7);
CREATE CONTINUOUS VIEW dim_ AS SELECT o.id, p.amount, price FROM orders o JOIN pays p ON o.id = p.order_id AND p.rowtime BETWEEN o.rowtime AND o.rowtime + INTERVAL '5' MINUTE LEFT JOIN items i ON i.item = o.item;
INSERT INTO orders VALUES ('2026-01-01 11:30+00',5,'c');
INSERT INTO pays VALUES ('2026-01-01 11:31+00',5,7);
SELECT kda.wait('orders'), kda.wait('pays');
SELECT * FROM dim_ ORDER BY 1, 2;
-- the side of an outer join that would have to wait for records
CREATE CONTINUOUS VIEW bad AS SELECT o.id FROM items i LEFT JOIN orders o ON i.item = o.item JOIN pays p ON o.id = p.order_id AND p.rowtime BETWEEN o.rowtime AND o.rowtime + INTERVAL '5' MINUTE;
CREATE CONTINUOUS VIEW bad AS SELECT id FROM orders o LEFT JOIN pays p USING (item);
CREATE CONTINUOUS VIEW bad AS SELECT * FROM orders a JOIN orders b USING (id);
-- late for a join: earlier than its stream's watermark
INSERT INTO orders VALUES ('2026-01-01 10:00+00', 6, 'c');
SELECT kda.wait('orders');
SELECT error_name, data_text FROM kda.error_stream WHERE stream = 'orders'::regclass;
SET client_min_messages = warning;
DROP STREAM orders, pays, ships CASCADE;
DROP TABLE items;

-- KDA: a window on one side, the other has its current row
CREATE STREAM o (rowtime timestamptz, k text, v int) OPTIONS (watermark '10 minutes');
CREATE STREAM t (rowtime timestamptz, k text, w int) OPTIONS (watermark '10 minutes');
CREATE CONTINUOUS VIEW before_o AS SELECT STREAM o.v, t.w FROM o JOIN t OVER (RANGE INTERVAL '1' MINUTE PRECEDING) AS t ON o.k = t.k;
CREATE CONTINUOUS VIEW before_t AS SELECT STREAM o.v, t.w FROM o OVER w AS o, t WHERE o.k = t.k WINDOW w AS (RANGE INTERVAL '1' MINUTE PRECEDING);
CREATE CONTINUOUS VIEW after_o AS SELECT STREAM o.v, t.w FROM o LEFT JOIN t OVER (RANGE INTERVAL '1' MINUTE FOLLOWING) AS t ON o.k = t.k;
CREATE CONTINUOUS VIEW around_o AS SELECT STREAM o.v, t.w FROM o JOIN t OVER (RANGE BETWEEN INTERVAL '1' MINUTE PRECEDING AND INTERVAL '30' SECOND FOLLOWING) AS t ON o.k = t.k;
CREATE CONTINUOUS VIEW current_o AS SELECT STREAM o.v, t.w FROM o OVER (RANGE CURRENT ROW) AS o JOIN t OVER (RANGE INTERVAL '1' MINUTE PRECEDING) AS t ON o.k = t.k;
CREATE CONTINUOUS VIEW using_o AS SELECT STREAM k, o.v, t.w FROM o FULL JOIN t OVER (RANGE INTERVAL '1' MINUTE PRECEDING) AS t USING (k);
CREATE CONTINUOUS VIEW using_both AS SELECT STREAM k, v, w FROM o OVER (RANGE INTERVAL '1' MINUTE PRECEDING) AS o JOIN t OVER (RANGE INTERVAL '30' SECOND PRECEDING) AS t USING (k);
CREATE CONTINUOUS VIEW current_alone AS SELECT STREAM x.v FROM o OVER (RANGE CURRENT ROW) AS x WHERE v > 1;
-- the current row's time is the result's: STEP of it is a window
CREATE CONTINUOUS VIEW minutes_of_o AS SELECT STREAM o.k, STEP(o.ROWTIME BY INTERVAL '60' SECOND) AS minute, sum(t.w) AS w
	FROM o JOIN t OVER (RANGE INTERVAL '1' MINUTE PRECEDING) AS t ON o.k = t.k GROUP BY o.k, STEP(o.ROWTIME BY INTERVAL '60' SECOND);
INSERT INTO o VALUES ('2026-01-01 10:00:00Z', 'x', 1), ('2026-01-01 10:01:00Z', 'x', 2), ('2026-01-01 10:02:00Z', 'x', 3);
INSERT INTO t VALUES ('2026-01-01 10:00:00Z', 'x', 100), ('2026-01-01 10:00:50Z', 'x', 150), ('2026-01-01 10:01:20Z', 'x', 220);
SELECT kda.wait('o'), kda.wait('t');
SELECT * FROM before_o ORDER BY 1, 2; SELECT * FROM before_t ORDER BY 1, 2; SELECT * FROM around_o ORDER BY 1, 2; SELECT * FROM current_o ORDER BY 1, 2; SELECT * FROM current_alone ORDER BY 1;
SELECT * FROM minutes_of_o ORDER BY 2;
SELECT kda.advance('o', '2026-01-01 11:00:00Z'), kda.advance('t', '2026-01-01 11:00:00Z');
SELECT kda.wait('o'), kda.wait('t');
SELECT * FROM after_o ORDER BY 1, 2;
SELECT * FROM using_o ORDER BY 2, 3; SELECT * FROM using_both ORDER BY 2, 3;
-- times that are not declared
CREATE STREAM p (id int, v int);
CREATE STREAM q (id int, w int);
CREATE CONTINUOUS VIEW times AS SELECT STREAM p.ROWTIME AS of_p, q.ROWTIME AS of_q, ROWTIME AS of_both, p.id FROM p LEFT JOIN q OVER (RANGE INTERVAL '1' MINUTE PRECEDING) AS q ON p.id = q.id;
CREATE CONTINUOUS VIEW all_of AS SELECT *, q.ROWTIME IS NULL AS alone FROM p JOIN q ON p.id = q.id - 1 AND q.rowtime BETWEEN p.rowtime - INTERVAL '1' HOUR AND p.rowtime + INTERVAL '1' HOUR;
CREATE CONTINUOUS VIEW all_of AS SELECT p.*, w, q.ROWTIME IS NULL AS alone FROM p JOIN q ON p.id = q.id AND q.rowtime BETWEEN p.rowtime - INTERVAL '1' HOUR AND p.rowtime + INTERVAL '1' HOUR
	WHERE p.rowtime > '2020-01-01';
CREATE CONTINUOUS VIEW three_times AS SELECT p.id, q2.rowtime >= q1.rowtime AS later FROM p JOIN q q1 ON p.id = q1.id AND q1.rowtime BETWEEN p.rowtime - INTERVAL '1' HOUR AND p.rowtime + INTERVAL '1' HOUR
	JOIN q q2 ON q2.id = q1.id AND q2.rowtime BETWEEN q1.rowtime - INTERVAL '1' HOUR AND q1.rowtime + INTERVAL '1' HOUR;
INSERT INTO q VALUES (1, 10);
SELECT kda.wait('q');
INSERT INTO p VALUES (1, 100);
SELECT kda.wait('p'), kda.wait('q');
SELECT of_p >= of_q AS q_first, of_p = of_both AS later, id FROM times; SELECT * FROM all_of; SELECT * FROM three_times;
-- windowed sides that are joined by the times of their rows
CREATE CONTINUOUS VIEW sides AS SELECT x.kk, x.n, y.n2 FROM (SELECT k, count(*) FROM o WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k) x (kk, n)
	JOIN (SELECT k, count(*) FROM t WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k) y (k, n2) ON x.kk = y.k AND x.rowtime = y.rowtime;
INSERT INTO o VALUES ('2026-01-01 12:00:00Z', 'x', 1), ('2026-01-01 12:00:01Z', 'x', 2), ('2026-01-01 13:00:01Z', 'x', 2);
INSERT INTO t VALUES ('2026-01-01 12:00:00Z', 'x', 1), ('2026-01-01 13:00:01Z', 'x', 2);
SELECT kda.wait('o'), kda.wait('t');
SELECT * FROM sides;
SELECT name, state, last_error FROM kda.queries WHERE state <> 'running' OR last_error IS NOT NULL;
DROP STREAM o, t, p, q CASCADE;

-- merged columns, tables before streams, rows of windows
CREATE STREAM a (rowtime timestamptz, k int, v int);
CREATE STREAM b (rowtime timestamptz, k bigint, w int);
CREATE TABLE names (k int, name text);
INSERT INTO names VALUES (1, 'one'), (2, 'two');
CREATE CONTINUOUS VIEW using_ AS SELECT * FROM a FULL JOIN b USING (k, rowtime);
CREATE CONTINUOUS VIEW natural_ AS SELECT * FROM a NATURAL RIGHT JOIN b;
CREATE CONTINUOUS VIEW using_where AS SELECT k, k + 1 AS next, v, w FROM a JOIN b USING (k) WHERE b.rowtime BETWEEN a.rowtime - INTERVAL '1' MINUTE AND a.rowtime;
CREATE CONTINUOUS VIEW using_as AS SELECT u.k, j.v, name FROM (a LEFT JOIN b USING (k, rowtime) AS u) JOIN names USING (k), LATERAL (SELECT a.v) j;
CREATE CONTINUOUS VIEW alias_of_join AS SELECT j.k, j.w FROM (a JOIN b USING (k, rowtime)) AS j;
CREATE CONTINUOUS VIEW table_first AS SELECT * FROM names JOIN a USING (k) LEFT JOIN b USING (k, rowtime);
CREATE CONTINUOUS VIEW table_between AS SELECT a.v, b.w, name FROM a LEFT JOIN names n ON n.k = a.k JOIN b ON b.k = a.k AND coalesce(name, '') <> 'two' AND b.rowtime BETWEEN a.rowtime - INTERVAL '1' MINUTE AND a.rowtime + INTERVAL '1' MINUTE;
CREATE CONTINUOUS VIEW table_in_list AS SELECT n.*, v, w FROM names n, a, b WHERE n.k = a.k AND b.k = n.k AND b.rowtime BETWEEN a.rowtime - INTERVAL '1' MINUTE AND a.rowtime;
CREATE CONTINUOUS VIEW am AS SELECT window_start AS s, k, count(*) AS n FROM a WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW am2 AS SELECT window_start, window_end AS e, k, count(*) AS n FROM a WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW bm AS SELECT k, sum(w) AS w FROM b WINDOWED BY SLIDING (INTERVAL '2' MINUTE, INTERVAL '1' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW bs AS SELECT k, sum(w) AS w FROM b WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW by_end AS SELECT am2.k, e, n, w, bm.window_start FROM am2 FULL JOIN bm ON am2.k = bm.k AND am2.e = bm.window_end;
CREATE CONTINUOUS VIEW by_start AS SELECT am.k, s, n, w, bm.window_end FROM am LEFT JOIN bm ON am.k = bm.k AND am.s = bm.window_start;
CREATE CONTINUOUS VIEW ah AS SELECT window_end, count(*) AS n FROM a WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
CREATE CONTINUOUS VIEW ah2 AS SELECT max(n) AS most FROM ah WINDOWED BY TUMBLING (INTERVAL '1' HOUR);
CREATE CONTINUOUS VIEW key_not_shown AS SELECT ah.window_end AS e, n, w FROM ah JOIN bm USING (window_end);
CREATE CONTINUOUS VIEW in_minute AS SELECT a.v, n FROM a JOIN am2 ON am2.k = a.k AND a.rowtime >= am2.window_start AND a.rowtime < am2.e;
CREATE CONTINUOUS VIEW by_sessions AS SELECT k, v, w, window_start, window_end FROM TABLE(SESSION(TABLE a PARTITION BY k, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) x
	LEFT JOIN TABLE(SESSION(TABLE b PARTITION BY k, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) y USING (k, window_start, window_end);
CREATE CONTINUOUS VIEW two_windows AS SELECT x.k, v, w, x.window_end FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)) x
	JOIN TABLE(HOP(TABLE b, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE, INTERVAL '2' MINUTES)) y ON x.k = y.k AND x.window_end = y.window_end;
-- whole rows and stars show nothing of ours; NULL is NULL
CREATE CONTINUOUS VIEW whole AS SELECT a::text AS a, ROW(b.*)::text AS b, b IS NULL AS alone FROM a LEFT JOIN b ON b IS NOT NULL AND a.k = b.k AND a.rowtime = b.rowtime;
CREATE CONTINUOUS VIEW whole_below AS SELECT s::text AS s, (s).w FROM (SELECT * FROM a JOIN b USING (k, rowtime)) s;
CREATE CONTINUOUS VIEW whole_alone AS SELECT s::text AS s, ROW(s.*)::text AS r FROM (SELECT k, v FROM a) s;
CREATE CONTINUOUS VIEW whole_sides AS SELECT x.k, x::text AS x, y::text AS y, count(y) OVER (PARTITION BY x.window_start, x.window_end) AS n
	FROM (SELECT k, v, window_start, window_end FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE))) x
	LEFT JOIN (SELECT k, w, window_start, window_end FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE))) y USING (k, window_start, window_end);
CREATE CONTINUOUS VIEW star_of_join AS SELECT * FROM (SELECT * FROM a x (r1, k1, v) JOIN b y (r2, k2, w) ON k1 = k2 AND r1 = r2) s;
-- a join over a join; WITH over a table; an alias of tables
CREATE CONTINUOUS VIEW over_join AS SELECT s.*, c.w AS later FROM (SELECT k, rowtime, v FROM a FULL JOIN b USING (k, rowtime)) s JOIN b c ON c.k = s.k AND c.rowtime BETWEEN s.rowtime AND s.rowtime + INTERVAL '1' MINUTE;
CREATE CONTINUOUS VIEW merged_again AS SELECT k, rowtime, v, b.w, c.w AS same FROM a FULL JOIN b USING (k, rowtime) LEFT JOIN (SELECT * FROM b WHERE w > 100) c USING (k, rowtime);
CREATE CONTINUOUS VIEW with_table AS WITH n AS (SELECT * FROM names WHERE k > 1) SELECT name, v, w FROM n JOIN a USING (k) LEFT JOIN b USING (k, rowtime);
CREATE CONTINUOUS VIEW with_below AS WITH n AS (SELECT * FROM names) SELECT s.name, s.n FROM (SELECT name, count(*) AS n FROM a JOIN n USING (k) GROUP BY name) s JOIN n USING (name);
CREATE CONTINUOUS VIEW two_tables AS SELECT j.name, j.z, v, w FROM (names JOIN (VALUES (1, 'x'), (2, 'y')) u (k, z) USING (k)) AS j JOIN a ON a.k = j.k LEFT JOIN b ON b.k = j.k AND b.rowtime = a.rowtime;
CREATE CONTINUOUS VIEW one_stream AS SELECT j.k, j.name FROM (a JOIN names USING (k)) AS j;
CREATE CONTINUOUS VIEW one_stream_m AS SELECT j.name, count(*) AS n FROM (a JOIN names USING (k)) AS j WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY j.name;
CREATE CONTINUOUS VIEW distinct_ AS SELECT DISTINCT * FROM (SELECT k FROM a JOIN names USING (k)) AS j;
-- a name of the select list goes before a merged one
CREATE CONTINUOUS VIEW ordered AS SELECT a.k, w FROM a FULL JOIN b USING (k, rowtime) ORDER BY k DESC, w LIMIT 2;
-- a window and an order by the merged time
CREATE CONTINUOUS VIEW sessions_of AS SELECT k, name, count(*) AS n FROM names JOIN a USING (k) JOIN b USING (k, rowtime) WINDOWED BY SESSION (INTERVAL '1' MINUTE) GROUP BY k, name;
CREATE CONTINUOUS VIEW staggered AS SELECT k, count(*) AS n FROM a JOIN b USING (k, rowtime) WINDOWED BY STAGGER (PARTITION BY k RANGE INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW sorted AS SELECT k, rowtime, v, w FROM a JOIN b USING (k, rowtime) ORDER BY rowtime WITHIN INTERVAL '1' MINUTE;
-- of that name, but not the time of the row
CREATE CONTINUOUS VIEW not_the_time AS SELECT k, s.rowtime FROM (SELECT k, rowtime - INTERVAL '1' HOUR AS rowtime FROM a) s;
-- a name alone is no bound, nor is the start of what has no fixed size
RESET client_min_messages;
CREATE CONTINUOUS VIEW bad AS SELECT count(b) FROM a LEFT JOIN b USING (k, rowtime);
CREATE CONTINUOUS VIEW bad AS SELECT to_jsonb(n) FROM a LEFT JOIN names n USING (k) JOIN b USING (k, rowtime);
CREATE CONTINUOUS VIEW bad AS SELECT to_jsonb(x) FROM a AS x (at) JOIN b ON b.k = x.k AND b.rowtime = x.at;
CREATE CONTINUOUS VIEW bad AS SELECT v FROM a JOIN b USING (k, rowtime) WHERE EXISTS (SELECT FROM generate_series(1, 2) i WHERE i = k);
CREATE CONTINUOUS VIEW bad AS SELECT v FROM a AS kda_join JOIN b USING (k, rowtime);
CREATE CONTINUOUS VIEW bad AS SELECT v FROM a JOIN b ON a.rowtime = b.rowtime AND random() < 0.5;
CREATE CONTINUOUS VIEW bad AS SELECT v FROM names n LEFT JOIN (a JOIN b USING (k, rowtime)) USING (k);
CREATE CONTINUOUS VIEW bad AS SELECT am.k FROM am JOIN bs ON am.k = bs.k AND am.s = bs.window_start;
CREATE CONTINUOUS VIEW bad AS SELECT am2.k FROM am2 JOIN (SELECT k, rowtime + INTERVAL '1' MONTH AS window_end FROM b) r ON am2.k = r.k AND am2.e = r.window_end;
INSERT INTO a VALUES ('2026-01-01 10:00:00Z', 1, 1), ('2026-01-01 10:00:30Z', 2, 2), ('2026-01-01 10:01:00Z', 3, 3);
INSERT INTO b VALUES ('2026-01-01 10:00:00Z', 1, 100), ('2026-01-01 10:00:40Z', 2, 200), ('2026-01-01 10:02:00Z', 3, 300);
SELECT kda.advance('a', '2026-01-02'), kda.advance('b', '2026-01-02');
SELECT kda.wait('a'), kda.wait('b');
SELECT * FROM using_ ORDER BY 2; SELECT * FROM natural_ ORDER BY 1; SELECT * FROM using_where ORDER BY 1; SELECT * FROM using_as ORDER BY 1; SELECT * FROM alias_of_join;
SELECT * FROM table_first ORDER BY 1; SELECT * FROM table_between ORDER BY 1, 2; SELECT * FROM table_in_list ORDER BY 1;
SELECT * FROM by_end ORDER BY 1, 2, 5; SELECT * FROM by_start ORDER BY 1; SELECT * FROM ah2; SELECT * FROM key_not_shown ORDER BY 1, 3; SELECT * FROM in_minute ORDER BY 1; SELECT * FROM by_sessions ORDER BY 1; SELECT * FROM two_windows ORDER BY 1;
SELECT * FROM whole ORDER BY 1; SELECT * FROM whole_below; SELECT * FROM whole_alone ORDER BY 1; SELECT * FROM whole_sides ORDER BY 1; SELECT * FROM star_of_join;
SELECT * FROM over_join ORDER BY 1, 2, 4; SELECT * FROM merged_again ORDER BY 2; SELECT * FROM with_table; SELECT * FROM with_below ORDER BY 1; SELECT * FROM two_tables ORDER BY 1; SELECT * FROM not_the_time ORDER BY 1; SELECT * FROM sessions_of; SELECT * FROM staggered; SELECT * FROM sorted; SELECT * FROM one_stream ORDER BY 1; SELECT * FROM one_stream_m ORDER BY 3; SELECT * FROM distinct_ ORDER BY 1; SELECT * FROM ordered;
SELECT name, state, last_error FROM kda.queries WHERE state <> 'running' OR last_error IS NOT NULL;
SET client_min_messages = warning;
DROP STREAM a, b CASCADE;
DROP TABLE names;
