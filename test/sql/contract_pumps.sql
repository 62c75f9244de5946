-- Pumps into streams and tables that are particular about what they take.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE STREAM src (rowtime timestamptz, k text, v int);

-- a stream with constraints, defaults, a generated column
CREATE STREAM strict (rowtime timestamptz, k varchar(3) NOT NULL, v int CHECK (v < 100), d int DEFAULT 7, g int GENERATED ALWAYS AS (v * 2) STORED);
CREATE PUMP p1 AS INSERT INTO strict (k, v) SELECT k, v FROM src;
CREATE CONTINUOUS VIEW strict_v AS SELECT k, v, d, g, rowtime FROM strict;

-- tables: ON CONFLICT with functions of the search path, an alias, identity and generated columns
CREATE SCHEMA h;
SET search_path = h, public;
CREATE FUNCTION f(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 10';
CREATE TABLE t (k text PRIMARY KEY, n bigint, id int GENERATED ALWAYS AS IDENTITY, g bigint GENERATED ALWAYS AS (n + 1) STORED, changed int DEFAULT 0);
CREATE PUMP p2 AS INSERT INTO t AS x (k, n) SELECT k, count(*) FROM src GROUP BY k
	ON CONFLICT (k) DO UPDATE SET n = f(EXCLUDED.n), changed = x.changed + 1 WHERE x.n IS DISTINCT FROM f(EXCLUDED.n);
CREATE TABLE nothing (k text PRIMARY KEY);
CREATE PUMP p3 AS INSERT INTO nothing SELECT k FROM src ON CONFLICT DO NOTHING;
CREATE TABLE over (id int GENERATED ALWAYS AS IDENTITY, k text);
CREATE PUMP p4 AS INSERT INTO over OVERRIDING SYSTEM VALUE SELECT v, k FROM src WHERE k = 'a';
CREATE TABLE uni (k text UNIQUE, ts timestamptz);
CREATE PUMP p5 AS INSERT INTO uni SELECT k, rowtime FROM src;
CREATE TABLE par (k text, v int) PARTITION BY LIST (k);
CREATE TABLE par_a PARTITION OF par FOR VALUES IN ('a', 'b');
CREATE PUMP p6 AS INSERT INTO par SELECT k, v FROM src;
CREATE TABLE logged (k text);
CREATE VIEW iv AS SELECT k FROM logged;
CREATE FUNCTION ivf() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO logged VALUES (NEW.k || '!'); RETURN NEW; END $$;
CREATE TRIGGER ivt INSTEAD OF INSERT ON iv FOR EACH ROW EXECUTE FUNCTION ivf();
CREATE PUMP p7 AS INSERT INTO iv SELECT k FROM src;
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1), (2);
CREATE TABLE child (id int REFERENCES parent, k text);
CREATE PUMP p8 AS INSERT INTO child SELECT v, k FROM src;
CREATE TYPE pair AS (a int, b text);
CREATE TABLE arr (a int[], c pair);
CREATE PUMP p9 AS INSERT INTO arr (a[2], c.b) SELECT v, k FROM src WHERE v < 3;
-- columns go by their places: they need no names of their own
CREATE TABLE literals (a text, b text, c int, d int);
CREATE PUMP p10 AS INSERT INTO literals SELECT 'x', 'y', 1, v + 1 FROM src WHERE v = 1;
-- a function sees the search path that the pump was declared under
CREATE TABLE lookup (k text, v text);
INSERT INTO lookup VALUES ('a', 'found');
CREATE FUNCTION find(key text) RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (SELECT v FROM lookup l WHERE l.k = key); END $$;
CREATE TABLE finds (v text);
CREATE PUMP p11 AS INSERT INTO finds SELECT find(k) FROM src WHERE v = 1;

-- what does not fit is said now, with its place
CREATE TABLE deferred (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION name_free() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CREATE PUMP bad AS INSERT INTO deferred SELECT v FROM src;
EXCEPTION WHEN feature_not_supported THEN RAISE NOTICE '%', regexp_replace(SQLERRM, '_\d+"', '_N"');
END $$;
SELECT name_free();
CREATE PUMP bad AS INSERT INTO over SELECT v, k FROM src WHERE k = 'b';
CREATE PUMP bad AS INSERT INTO p2 SELECT k, 1 FROM src;
CREATE PUMP bad AS INSERT INTO t (k, nosuch) SELECT k, 1 FROM src;
CREATE PUMP bad AS INSERT INTO t (k, n) SELECT k, count(*), 1 FROM src GROUP BY k;
CREATE PUMP bad AS INSERT INTO t (n, k) SELECT k, count(*) FROM src GROUP BY k;
CREATE PUMP bad AS INSERT INTO t (k, n) SELECT k, 1 FROM src ON CONFLICT (nosuch) DO NOTHING;
CREATE PUMP bad AS INSERT INTO strict SELECT rowtime, k, v FROM src ON CONFLICT DO NOTHING;
CREATE PUMP bad AS INSERT INTO t SELECT FROM src;
RESET search_path;

INSERT INTO src VALUES ('2026-01-01 00:00:01+00', 'a', 1), ('2026-01-01 00:00:02+00', NULL, 2), ('2026-01-01 00:00:03+00', 'toolong', 3),
	('2026-01-01 00:00:04+00', 'b', 400), ('2026-01-01 00:00:05+00', 'a', 5), ('2026-01-01 00:00:06+00', 'c', 6);
SELECT kda.wait('src');
SELECT * FROM strict;
SELECT * FROM strict_v;
SELECT k, n, g, changed FROM h.t ORDER BY k;
SELECT * FROM h.nothing ORDER BY k;
SELECT * FROM h.over;
SELECT * FROM h.uni ORDER BY ts;
SELECT * FROM h.par;
SELECT * FROM h.logged;
SELECT * FROM h.child;
SELECT * FROM h.arr;
SELECT * FROM h.literals;
SELECT * FROM h.finds;
-- each refused row is in the error stream, for each pump
SELECT query, error_name, message, data_text FROM kda.error_stream WHERE stream = 'src'::regclass ORDER BY query::text, error_id;
SELECT name, state, last_error FROM kda.queries WHERE state <> 'running' ORDER BY 1;

-- names may change while it runs
ALTER TABLE h.t RENAME COLUMN n TO m;
ALTER TABLE h.t RENAME COLUMN k TO "Key";
ALTER TABLE h.t RENAME TO t2;
ALTER TABLE h.t2 SET SCHEMA public;
ALTER FUNCTION h.f SET SCHEMA public;
ALTER FUNCTION f RENAME TO ff;
ALTER PUMP h.p2 RENAME TO pp2;
ALTER STREAM strict RENAME COLUMN v TO vv;
ALTER STREAM strict RENAME COLUMN k TO kk;
ALTER STREAM strict ADD COLUMN last text DEFAULT 'z';
ALTER STREAM src RENAME COLUMN k TO key;
ALTER STREAM src RENAME TO source;
ALTER TABLE h.uni ADD COLUMN extra int DEFAULT 3;
INSERT INTO source VALUES ('2026-01-01 00:00:07+00', 'a', 7), ('2026-01-01 00:00:08+00', 'n', 8);
SELECT kda.wait('source');
SELECT * FROM strict WHERE vv > 6;
SELECT * FROM strict_v WHERE v > 6;
SELECT "Key", m, g, changed FROM t2 ORDER BY 1;
SELECT * FROM h.uni WHERE k = 'n';
SELECT name, state FROM kda.queries WHERE state <> 'running';

-- and what it needs cannot go
ALTER TABLE t2 DROP COLUMN m;
DROP TABLE t2;
DROP FUNCTION ff(bigint);
ALTER STREAM strict DROP COLUMN vv;
ALTER TABLE t2 DROP COLUMN m CASCADE;
SELECT to_regclass('h.pp2'), to_regclass('t2');
DROP STREAM strict;
DROP STREAM strict CASCADE;

-- three pumps in a row, two of them into one stream: its watermark is the smaller of their sources'
CREATE STREAM a (rowtime timestamptz, v int) OPTIONS (idle_timeout 'never');
CREATE STREAM b (rowtime timestamptz, v int) OPTIONS (idle_timeout 'never');
CREATE STREAM merged (rowtime timestamptz, v int) OPTIONS (idle_timeout 'never');
CREATE STREAM sums (rowtime timestamptz, s bigint) OPTIONS (idle_timeout 'never');
CREATE PUMP pa AS INSERT INTO merged SELECT rowtime, v FROM a;
CREATE PUMP pb AS INSERT INTO merged SELECT rowtime, v FROM b;
CREATE PUMP ps AS INSERT INTO sums (s) SELECT sum(v) FROM merged WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW total AS SELECT sum(s) AS s, max(rowtime) AS until FROM sums;
INSERT INTO a VALUES ('2026-01-01 00:00:10+00', 1), ('2026-01-01 00:05:00+00', 2);
SELECT kda.wait('a');
SELECT kda.watermark('a'), kda.watermark('b'), kda.watermark('merged');
SELECT * FROM sums;
INSERT INTO b VALUES ('2026-01-01 00:00:20+00', 10), ('2026-01-01 00:01:00+00', 20);
SELECT kda.wait('b');
SELECT kda.watermark('merged'), kda.watermark('sums');
SELECT * FROM sums;
SELECT * FROM total;
CREATE PUMP pc AS INSERT INTO a SELECT rowtime, s FROM sums;
CREATE PUMP pc AS INSERT INTO merged SELECT * FROM merged;

\set VERBOSITY terse
DROP STREAM source, a, b, merged, sums CASCADE;
DROP SCHEMA h CASCADE;
DROP TABLE t2;
DROP FUNCTION ff;
SELECT count(*) FROM kda.queries;
