-- Queries of every kind over the same rows: a continuous view gives what the same SELECT gives over a table of them,
-- whatever is joined, grouped and computed, and however the rows are cut into batches.
SET timezone = 'UTC';
CREATE STREAM s (rowtime timestamptz, k int, v int, t text, tags text[], j jsonb);
CREATE TABLE st (LIKE s);
CREATE TABLE dim (k int PRIMARY KEY, name text, grp int);
INSERT INTO dim VALUES (0, 'zero', 1), (1, 'one', 1);
CREATE TABLE grp (grp int PRIMARY KEY, gname text);
INSERT INTO grp VALUES (1, 'g1');
CREATE VIEW dimv AS SELECT d.k, d.name, g.gname FROM dim d JOIN grp g USING (grp);
CREATE TABLE part (k int, pname text) PARTITION BY LIST (k);
CREATE TABLE part0 PARTITION OF part FOR VALUES IN (0);
CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1, 2);
INSERT INTO part SELECT i, 'p' || i FROM generate_series(0, 2) i;
CREATE EXTENSION postgres_fdw;
DO $$ BEGIN
	EXECUTE format('CREATE SERVER self FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L, port %L, dbname %L)',
		split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database());
	EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER self OPTIONS (user %L)', current_user);
END $$;
CREATE FOREIGN TABLE fdim (k int, name text) SERVER self OPTIONS (table_name 'dim');
CREATE FUNCTION lab(int) RETURNS TABLE (l text) LANGUAGE sql STABLE AS $$ SELECT 'l' || $1 $$;
CREATE FUNCTION myadd(int, int) RETURNS int LANGUAGE plpgsql IMMUTABLE STRICT AS 'BEGIN RETURN $1 + $2; END';
CREATE AGGREGATE mysum(int) (sfunc = myadd, stype = int, combinefunc = myadd, initcond = '0');
CREATE AGGREGATE nocombine(int) (sfunc = myadd, stype = int, initcond = '0');
CREATE FUNCTION fin(int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN 'is ' || $1; END $$;
CREATE AGGREGATE mytext(int) (sfunc = myadd, stype = int, combinefunc = myadd, finalfunc = fin, initcond = '0');
CREATE FUNCTION lst(anyelement, anyelement) RETURNS anyelement LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $2';
CREATE AGGREGATE mylast(anyelement) (sfunc = lst, stype = anyelement, combinefunc = lst);
CREATE TABLE q (id int, sql text);
INSERT INTO q VALUES
 (1, 'SELECT k, mysum(v) a, mytext(v) b, mylast(t) c, mylast(v) d FROM %s GROUP BY k'),
 (2, 'SELECT d.name, count(*) c, sum(s.v) x FROM %s s JOIN dim d ON d.k = s.k GROUP BY d.name'),
 (3, 'SELECT d.name, g.gname, count(*) c FROM %s s LEFT JOIN dim d ON d.k = s.k LEFT JOIN grp g ON g.grp = d.grp GROUP BY d.name, g.gname'),
 (4, 'SELECT d.name, d.gname, s.v FROM %s s JOIN dimv d USING (k)'),
 (5, 'SELECT p.pname, sum(v) x FROM %s s JOIN part p ON p.k = s.k GROUP BY p.pname'),
 (6, 'SELECT f.name, count(*) c FROM %s s LEFT JOIN fdim f ON f.k = s.k GROUP BY 1'),
 (7, 'SELECT l, count(*) c FROM %s s, LATERAL lab(s.k) GROUP BY l'),
 (8, 'SELECT l.x, count(*) c FROM %s s CROSS JOIN LATERAL (SELECT d.name || s.v AS x FROM dim d WHERE d.k = s.k) l GROUP BY l.x'),
 (9, 'SELECT tag, count(*) c FROM %s s, unnest(s.tags) tag GROUP BY tag'),
 (10, 'SELECT k, unnest(tags) tag FROM %s'),
 (11, 'SELECT k, v FROM %s s WHERE EXISTS (SELECT FROM dim d WHERE d.k = s.k) AND v > (SELECT count(*) FROM grp)'),
 (12, 'SELECT k, count(*) c FROM %s s WHERE k IN (SELECT k FROM dim) GROUP BY k HAVING count(*) > 1 AND sum(v) IS NOT NULL'),
 (13, 'SELECT CASE WHEN v > 5 THEN ''big'' ELSE ''small'' END AS size, count(*) c, count(*) FILTER (WHERE t IS NULL) f, sum(CASE WHEN k = 1 THEN v END) x FROM %s GROUP BY CASE WHEN v > 5 THEN ''big'' ELSE ''small'' END'),
 (14, 'SELECT k + 1 AS kk, count(*) c FROM %s GROUP BY k + 1'),
 (15, 'SELECT k AS kk, v %% 2 AS m, count(*) c FROM %s GROUP BY kk, 2'),
 (16, 'SELECT count(*) c, coalesce(sum(v), 0) + max(k) * 2 x, avg(v)::numeric(10,3) a, array_length(ARRAY[min(v), max(v)], 1) l FROM %s'),
 (17, 'SELECT upper(t) u, count(*) c, sum(v) * 2 + count(*) x FROM %s GROUP BY upper(t)'),
 (18, 'SELECT (j->>''a'')::int a, sum((j->>''b'')::numeric) b FROM %s GROUP BY (j->>''a'')::int'),
 (19, 'SELECT k FROM %s GROUP BY k'),
 (20, 'SELECT s.* FROM %s s WHERE t LIKE ''t%%'''),
 (21, 'SELECT s AS whole, k FROM %s s'),
 (22, 'SELECT (s).k, count(*) c FROM %s s GROUP BY (s).k'),
 (23, 'SELECT k, v, (SELECT name FROM dim d WHERE d.k = s.k) AS name FROM %s s'),
 (24, 'SELECT ROW(k, v % 2) r, count(*) c FROM %s GROUP BY ROW(k, v % 2)'),
 (25, 'SELECT a.k, count(*) c FROM (dim a JOIN grp b USING (grp)) JOIN %s s ON s.k = a.k GROUP BY a.k'),
 (26, 'SELECT d.k, sum(v) x FROM dim d RIGHT JOIN %s s ON s.k = d.k GROUP BY d.k'),
 (27, 'SELECT x.n, count(*) c FROM %s s JOIN (VALUES (0, ''a''), (1, ''b'')) x(k, n) ON x.k = s.k GROUP BY x.n'),
 (28, 'SELECT NULL::int z, count(*) c FROM %s GROUP BY 1'),
 (29, 'SELECT k, count(*) c FROM %s GROUP BY k HAVING k = 1 OR max(v) > 3'),
 (30, 'SELECT date_trunc(''minute'', rowtime) m, count(*) c FROM %s GROUP BY date_trunc(''minute'', rowtime)'),
 (31, 'SELECT k, bool_or(v > 3) b, every(v < 100) e, count(t) ct FROM %s GROUP BY k'),
 (32, 'SELECT DISTINCT k FROM %s'),
 (33, 'SELECT GREATEST(k, v) g, count(*) c FROM %s GROUP BY GREATEST(k, v)'),
 (34, 'SELECT count(DISTINCT k) c FROM %s'), (35, 'SELECT nocombine(v) c FROM %s'), (36, 'SELECT k, count(*) c FROM %s GROUP BY ROLLUP (k)'),
 (37, 'SELECT k, count(*) c FROM %s GROUP BY DISTINCT k'), (38, 'SELECT k, sum(count(*)) OVER () c FROM %s GROUP BY k'),
 (39, 'SELECT ''lit'' AS l, $$x$$ || t AS y, count(*) c FROM %s GROUP BY t'), (40, 'SELECT count(*) AS "Count", max(t COLLATE "C") AS "Max T" FROM %s'),
 (41, 'SELECT t COLLATE "C" AS t, count(*) c FROM %s GROUP BY t COLLATE "C"'), (42, 'SELECT v::varchar(1) vc, count(*)::int4 c FROM %s GROUP BY v::varchar(1)');
-- what this release does not keep up to date is refused
DO $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT * FROM q ORDER BY id LOOP
		BEGIN
			EXECUTE format('CREATE CONTINUOUS VIEW v_%s AS %s', r.id, replace(replace(r.sql, '%s', 's'), '%%', '%'));
		EXCEPTION WHEN feature_not_supported THEN
			RAISE NOTICE '%: %', r.id, SQLERRM;
			DELETE FROM q WHERE id = r.id;
		END;
	END LOOP;
END $$;
INSERT INTO st SELECT timestamptz '2026-01-01' + i * interval '7 s', i % 4, nullif(i % 11, 0), nullif('t' || i % 5, 't0'), CASE WHEN i % 3 > 0 THEN ARRAY['a', 'b' || i % 2] END, jsonb_build_object('a', i % 2, 'b', i) FROM generate_series(1, 40) i;
INSERT INTO s SELECT * FROM st WHERE rowtime < '2026-01-01 00:02:13' ORDER BY rowtime;
SELECT kda.wait('s');
INSERT INTO s SELECT * FROM st WHERE rowtime >= '2026-01-01 00:02:13' ORDER BY rowtime;
SELECT kda.wait('s');
DO $$
DECLARE
	r record;
	bad int;
	plain text;
	n int := 0;
BEGIN
	FOR r IN SELECT * FROM q LOOP
		plain := regexp_replace(replace(replace(r.sql, '%s', 'st'), '%%', '%'), 'FROM st( |$)(?!s\M)', 'FROM st s\1');
		EXECUTE format('SELECT count(*) FROM (((SELECT x::text FROM (%s) x) EXCEPT ALL (SELECT x::text FROM v_%s x)) UNION ALL ((SELECT x::text FROM v_%s x) EXCEPT ALL (SELECT x::text FROM (%s) x))) x', plain, r.id, r.id, plain) INTO bad;
		n := n + 1;
		IF bad > 0 THEN RAISE WARNING '%: % rows differ: %', r.id, bad, r.sql; END IF;
	END LOOP;
	RAISE NOTICE '% queries compared', n;
END $$;
SELECT name, state, last_error FROM kda.queries WHERE state <> 'running' OR last_error IS NOT NULL;
SELECT error_name, message, query FROM kda.error_stream WHERE stream = 's'::regclass;
\d v_40
SET client_min_messages = warning;
DROP STREAM s CASCADE;
DROP EXTENSION postgres_fdw CASCADE;
DROP VIEW dimv;
DROP TABLE st, dim, grp, part, q;
DROP AGGREGATE mysum(int), nocombine(int), mytext(int), mylast(anyelement);
DROP FUNCTION lab, myadd, fin, lst;
