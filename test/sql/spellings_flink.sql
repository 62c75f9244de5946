-- Windows as Flink SQL spells them: the same answer as plain SQL over the same rows.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE STREAM bid (bidtime timestamptz, price numeric, item text, supplier text, WATERMARK FOR bidtime AS bidtime - INTERVAL '5' SECOND);
CREATE STREAM arrivals (item text);
CREATE TABLE same (LIKE bid);
CREATE FUNCTION equal(a text, b text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE r boolean;
BEGIN
	EXECUTE format('SELECT NOT EXISTS ((%1$s) EXCEPT ALL (%2$s)) AND NOT EXISTS ((%2$s) EXCEPT ALL (%1$s))', a, b) INTO r;
	RETURN r;
END $$;

-- table functions, by position and by name
CREATE CONTINUOUS VIEW tumble AS
	SELECT window_start, window_end, SUM(price) AS total_price FROM TABLE(
		TUMBLE(TABLE bid, DESCRIPTOR(bidtime), INTERVAL '10' MINUTES))
	GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW tumble_offset AS
	SELECT window_start, window_end, item, count(*) AS n FROM TABLE(TUMBLE(TABLE public.bid, DESCRIPTOR(bidtime), INTERVAL '1' HOUR, INTERVAL '7' MINUTES))
	GROUP BY item, window_end, window_start HAVING count(*) > 1;
CREATE CONTINUOUS VIEW hop AS
	SELECT w.window_start, w.window_end, SUM(w.price) AS total_price FROM TABLE(
		HOP(DATA => TABLE bid, TIMECOL => DESCRIPTOR(bidtime), SLIDE => INTERVAL '5' MINUTES, SIZE => INTERVAL '10' MINUTES)) AS w
	GROUP BY w.window_start, w.window_end;
CREATE CONTINUOUS VIEW cumulate AS
	SELECT window_start, window_end, supplier, SUM(price) AS total_price FROM TABLE(
		CUMULATE(TABLE bid, DESCRIPTOR(bidtime), INTERVAL '2' MINUTES, INTERVAL '10' MINUTES))
	GROUP BY window_start, window_end, GROUPING SETS ((supplier), ());
CREATE CONTINUOUS VIEW by_number AS SELECT window_start, window_end, count(*) AS n FROM TUMBLE(TABLE bid, DESCRIPTOR("bidtime"), INTERVAL '1' DAY) GROUP BY 1, 2;
-- the bounds are columns: SELECT * shows them
CREATE CONTINUOUS VIEW every AS SELECT * FROM TABLE(HOP(TABLE bid, DESCRIPTOR(bidtime), INTERVAL '5' MINUTE, INTERVAL '10' MINUTE)) WHERE price > 3;
CREATE CONTINUOUS VIEW every_of AS SELECT w.*, window_closed FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(bidtime), INTERVAL '1' WEEK)) w;
-- the older group windows
CREATE CONTINUOUS VIEW group_tumble AS SELECT item, TUMBLE_START(bidtime, INTERVAL '1' MINUTE), TUMBLE_END(bidtime, INTERVAL '1' MINUTE) AS until, TUMBLE_ROWTIME(bidtime, INTERVAL '1' MINUTE) AS rt, max(price) AS top
	FROM bid GROUP BY TUMBLE(bidtime, INTERVAL '1' MINUTE), item HAVING TUMBLE_END(bidtime, INTERVAL '1' MINUTE) > timestamptz '2026-01-01 10:02+00';
CREATE CONTINUOUS VIEW group_hop AS SELECT HOP_START(bid.bidtime, INTERVAL '1' MINUTE, INTERVAL '3' MINUTE) AS s, HOP_END(bidtime, INTERVAL '1' MINUTE, INTERVAL '3' MINUTE) AS e, count(*) AS n, HOP_PROCTIME(bidtime, INTERVAL '1' MINUTE, INTERVAL '3' MINUTE) <= now() AS past
	FROM bid GROUP BY HOP(bidtime, INTERVAL '1' MINUTE, INTERVAL '3' MINUTE);
CREATE CONTINUOUS VIEW of_arrivals AS SELECT count(*) AS n FROM TABLE(TUMBLE(TABLE arrivals, DESCRIPTOR(rowtime), INTERVAL '1' DAY)) GROUP BY window_start, window_end;
-- Top-N and deduplication of windows, windows over windows, by a view and in one query
CREATE CONTINUOUS VIEW top2 AS
	SELECT * FROM (
		SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY n DESC, item) AS rownum FROM (
			SELECT window_start, window_end, item, count(*) AS n FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(bidtime), INTERVAL '7' MINUTES)) GROUP BY window_start, window_end, item) x) y
	WHERE rownum <= 2;
CREATE CONTINUOUS VIEW first_of AS
	SELECT bidtime, price, item, window_start FROM (
		SELECT bidtime, price, item, window_start, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, item ORDER BY bidtime) AS rownum
		FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(bidtime), INTERVAL '5' MINUTES))) x
	WHERE rownum <= 1;
CREATE CONTINUOUS VIEW fives AS SELECT window_start, window_end, window_time AS rowtime, supplier, SUM(price) AS partial
	FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(bidtime), INTERVAL '5' MINUTES)) GROUP BY supplier, window_start, window_end;
CREATE CONTINUOUS VIEW tens AS SELECT window_start, window_end, SUM(partial) AS total FROM TABLE(TUMBLE(TABLE fives, DESCRIPTOR(rowtime), INTERVAL '10' MINUTES)) GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW per_window AS SELECT window_start, window_end, max(n) AS most FROM (
	SELECT window_start, window_end, item, count(*) AS n FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(bidtime), INTERVAL '10' MINUTES)) GROUP BY window_start, window_end, item) x GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW hours_of AS SELECT window_start AS h, sum(n) AS n FROM TABLE(TUMBLE(TABLE tumble_offset, DESCRIPTOR(window_time), INTERVAL '1' DAY)) GROUP BY window_start, window_end;
-- STEP and FLOOR of a time that a subquery hands on
CREATE CONTINUOUS VIEW handed_on AS SELECT count(*) AS n FROM (SELECT bidtime AS at, item FROM bid WHERE price > 3) b GROUP BY TUMBLE(at, INTERVAL '10' MINUTE);
SELECT attrelid::regclass AS view, string_agg(attname, ', ' ORDER BY attnum) AS columns FROM pg_attribute
	WHERE attrelid IN ('every'::regclass, 'every_of'::regclass, 'tumble'::regclass, 'group_tumble'::regclass) AND attnum > 0 GROUP BY 1 ORDER BY 1;

INSERT INTO bid SELECT timestamptz '2026-01-01 09:58:00+00' + i * interval '13 s', i % 11, (ARRAY['A', 'B', 'C'])[1 + i % 3], (ARRAY['x', 'y'])[1 + i % 2] FROM generate_series(0, 80) i;
INSERT INTO same SELECT * FROM bid;
INSERT INTO arrivals VALUES ('A'), ('B');
SELECT kda.wait('bid'), kda.wait('arrivals');

SELECT equal('TABLE tumble', $$SELECT kda.tumble_start(bidtime, '10 min'), kda.tumble_start(bidtime, '10 min') + '10 min', sum(price) FROM same GROUP BY 1, 2$$) AS tumble,
	equal('TABLE tumble_offset', $$SELECT kda.tumble_start(bidtime, '1 h', '7 min'), kda.tumble_start(bidtime, '1 h', '7 min') + '1 h', item, count(*) FROM same GROUP BY 1, 2, 3 HAVING count(*) > 1$$) AS tumble_offset,
	equal('TABLE hop', $$SELECT window_start, window_end, sum(price) FROM same, kda.hop_windows(bidtime, '10 min', '5 min') GROUP BY 1, 2$$) AS hop,
	equal('TABLE cumulate', $$SELECT window_start, window_end, supplier, sum(price) FROM same, kda.cumulate_windows(bidtime, '10 min', '2 min') GROUP BY 1, 2, GROUPING SETS ((supplier), ())$$) AS cumulate,
	equal('TABLE by_number', $$SELECT date_trunc('day', bidtime), date_trunc('day', bidtime) + '1 day', count(*) FROM same GROUP BY 1$$) AS by_number,
	equal('TABLE every', $$SELECT same.*, window_start, window_end, window_end - interval '1 ms' FROM same, kda.hop_windows(bidtime, '10 min', '5 min') WHERE price > 3$$) AS every,
	equal('TABLE every_of', $$SELECT same.*, w, w + '7 days', w + '7 days' - interval '1 ms', false FROM same, kda.tumble_start(bidtime, '7 days') w$$) AS every_of;
SELECT equal('TABLE group_tumble', $$SELECT item, w, w + '1 min', w + '1 min' - interval '1 ms', max(price) FROM same, kda.tumble_start(bidtime, '1 min') w WHERE w >= '2026-01-01 10:02+00' GROUP BY 1, 2$$) AS group_tumble,
	equal('TABLE group_hop', $$SELECT window_start, window_end, count(*), true FROM same, kda.hop_windows(bidtime, '3 min', '1 min') GROUP BY 1, 2$$) AS group_hop;
SELECT * FROM of_arrivals;
SELECT kda.advance('bid', '2026-01-03 00:00:00+00');
SELECT kda.wait('bid');
SELECT equal('TABLE top2', $$SELECT w, w + '7 min', item, n, r FROM (SELECT *, row_number() OVER (PARTITION BY w ORDER BY n DESC, item) AS r FROM (SELECT kda.tumble_start(bidtime, '7 min') w, item, count(*) n FROM same GROUP BY 1, 2) x) y WHERE r <= 2$$) AS top2,
	equal('TABLE first_of', $$SELECT DISTINCT ON (4, 3) bidtime, price, item, kda.tumble_start(bidtime, '5 min') FROM same ORDER BY 4, 3, 1$$) AS first_of,
	equal('TABLE tens', $$SELECT kda.tumble_start(bidtime, '10 min'), kda.tumble_start(bidtime, '10 min') + '10 min', sum(price) FROM same GROUP BY 1, 2$$) AS tens,
	equal('TABLE per_window', $$SELECT w, w + '10 min', max(n) FROM (SELECT kda.tumble_start(bidtime, '10 min') w, item, count(*) n FROM same GROUP BY 1, 2) x GROUP BY 1, 2$$) AS per_window,
	equal('TABLE hours_of', $$SELECT date_trunc('day', bidtime), count(*) FROM same GROUP BY 1$$) AS hours_of,
	equal('TABLE handed_on', $$SELECT w, w + '10 min', count(*) FROM same, kda.tumble_start(bidtime, '10 min') w WHERE price > 3 GROUP BY 1, 2$$) AS handed_on;
SELECT name, state, last_error FROM kda.queries WHERE state <> 'running' OR last_error IS NOT NULL;

-- what does not fit
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(price), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM TABLE(TUMBLE(TABLE arrivals, DESCRIPTOR(item), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM TABLE(TUMBLE(TABLE same, DESCRIPTOR(bidtime), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(bidtime), INTERVAL '1' MINUTE));
CREATE CONTINUOUS VIEW e AS SELECT item, count(*) FROM TABLE(HOP(TABLE bid, DESCRIPTOR(bidtime), INTERVAL '1' MINUTE, INTERVAL '2' MINUTE)) GROUP BY window_end, item;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM TABLE(HOP(TABLE bid, DESCRIPTOR(bidtime), INTERVAL '10' MINUTES, INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM TABLE(HOP(TABLE bid, DESCRIPTOR(bidtime), INTERVAL '10' MINUTES)) GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM TABLE(TUMBLE(TABLE bid, INTERVAL '10' MINUTES)) GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM TABLE(TUMBLE(DATA => TABLE bid, SIZE => INTERVAL '10' MINUTES, WIDTH => 3)) GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM TABLE(TUMBLE(TABLE bid PARTITION BY item, DESCRIPTOR(bidtime), INTERVAL '10' MINUTES)) GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(bidtime), INTERVAL '10' MINUTES)) WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY window_start, window_end;
CREATE CONTINUOUS VIEW e AS SELECT TUMBLE_END(bidtime, INTERVAL '2' MINUTE), count(*) FROM bid GROUP BY TUMBLE(bidtime, INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM bid GROUP BY TUMBLE(price, INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM bid GROUP BY TUMBLE(bidtime, INTERVAL '1' MINUTE), HOP(bidtime, INTERVAL '1' MINUTE, INTERVAL '2' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT * FROM bid JOIN same FOR SYSTEM_TIME AS OF bid.bidtime AS s ON s.item = bid.item;
CREATE CONTINUOUS VIEW e AS SELECT * FROM bid JOIN same FOR SYSTEM_TIME AS OF;
-- read, and not there yet
CREATE CONTINUOUS VIEW session_of_pairs AS SELECT window_start, window_end, item, count(*) FROM TABLE(SESSION(TABLE bid PARTITION BY item, supplier, DESCRIPTOR(bidtime), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, item;
CREATE CONTINUOUS VIEW session_of_all AS SELECT SESSION_START(bidtime, INTERVAL '1' MINUTE), count(*) FROM bid GROUP BY SESSION(bidtime, INTERVAL '1' MINUTE);

-- a pasted CREATE TABLE
CREATE TABLE orders (
  `user` BIGINT NOT NULL,
  `order-id` STRING COMMENT 'x',
  price DECIMAL(10, 2), qty TINYINT, ratio DOUBLE, f FLOAT,
  tags ARRAY<STRING>,
  addr ROW<street STRING, zip INT, pos MAP<STRING, INT>>,
  order_time TIMESTAMP(3) METADATA FROM 'timestamp',
  part INT METADATA FROM 'partition' VIRTUAL,
  epoch INT METADATA FROM 'leader-epoch',
  proctime AS PROCTIME(),
  ltz TIMESTAMP_LTZ(3), t TIME(0),
  PRIMARY KEY (`user`) NOT ENFORCED,
  WATERMARK FOR order_time AS order_time - INTERVAL '5' SECOND
) WITH (
  'connector' = 'kafka', -- a comment
  'topic' = 'orders',
  'properties.bootstrap.servers' = '127.0.0.1:9092',
  'properties.group.id' = 'testGroup',
  'format' = 'json',
  'scan.startup.mode' = 'earliest-offset'
);
-- what the hint says runs
CREATE SERVER orders_server TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream
  OPTIONS ("bootstrap.servers" '127.0.0.1:9092');
CREATE STREAM orders (
  "user" bigint,
  "order-id" text,
  price numeric(10, 2),
  qty smallint,
  ratio double precision,
  f real,
  tags text[],
  addr jsonb,
  order_time timestamptz OPTIONS (meta 'arrival'),
  part int OPTIONS (meta 'shard'),
  ltz timestamptz,
  t time(0),
  WATERMARK FOR order_time AS order_time - INTERVAL '5' SECOND
) SERVER orders_server
  OPTIONS (topic 'orders', format 'json', start 'earliest');
SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'orders'::regclass;
-- secrets are not repeated
CREATE TABLE secret (a INT) WITH ('connector' = 'kafka', 'properties.bootstrap.servers' = 'b:1', 'topic' = 't', 'properties.security.protocol' = 'SASL_SSL', 'properties.sasl.jaas.config' = 'org.apache… password="x"', 'scan.startup.mode' = 'group-offsets');
CREATE TABLE IF NOT EXISTS k (a INT) PARTITIONED BY (a) WITH ('connector' = 'kinesis', 'stream.arn' = 'arn:aws:kinesis:eu:1:stream/x', 'aws.region' = 'eu', 'scan.stream.initpos' = 'TRIM_HORIZON', 'format' = 'csv');
CREATE TEMPORARY TABLE g (a INT) WITH ('connector' = 'datagen', 'rows-per-second' = '5');
SELECT kda.execute($$ CREATE TABLE t (a INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'upsert-kafka', 'topic' = 't', 'value.format' = 'raw', 'scan.startup.mode' = 'timestamp', 'scan.startup.timestamp-millis' = '1700000000000', 'properties.bootstrap.servers' = 'b:1') $$);
CREATE TABLE ours (a text DEFAULT '''connector''') WITH (fillfactor = 70);
SET client_min_messages = warning;
DROP STREAM bid, arrivals, orders CASCADE;
DROP SERVER orders_server;
DROP TABLE same, ours;
DROP FUNCTION equal;
