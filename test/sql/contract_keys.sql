-- Every type that can be hashed as a group key, every built-in aggregate that can be combined: what the view gives is
-- what the same SELECT gives over the same rows, equal values of different looks included.
SET timezone = 'UTC';
CREATE EXTENSION citext;
CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pt AS (x int, y text);
CREATE DOMAIN posint AS int CHECK (value > 0);
CREATE STREAM k (rowtime timestamptz, n numeric, ct citext, tc text COLLATE ci, f8 float8, f4 float4, c pt, a text[], r int4range, mr int4multirange, m mood, j jsonb, u uuid, i inet, ci cidr, bo bool, ti time, tz timetz, iv interval, mac macaddr, dom posint, ch char(5), by bytea, o oid, na name, xx xid8, l pg_lsn);
CREATE TABLE kt (LIKE k);
DO $$
DECLARE
	col text;
BEGIN
	FOR col IN SELECT attname FROM pg_attribute WHERE attrelid = 'k'::regclass AND attnum > 1 LOOP
		EXECUTE format('CREATE CONTINUOUS VIEW g_%s AS SELECT %I, count(*) cnt FROM k GROUP BY %I', col, col, col);
		EXECUTE format('CREATE CONTINUOUS VIEW w_%s AS SELECT %I, count(*) cnt FROM k WINDOWED BY TUMBLING (INTERVAL ''1'' MINUTE) GROUP BY %I', col, col, col);
	END LOOP;
END $$;
INSERT INTO kt SELECT timestamptz '2026-01-01' + i * interval '11 s',
 (ARRAY[1, 1.0, 1.00, 2, 'NaN', NULL]::numeric[])[1 + i % 6], (ARRAY['a','A','b',NULL])[1 + i % 4], (ARRAY['x','X','y',NULL])[1 + i % 4],
 (ARRAY[0, '-0', 'NaN', 'NaN', 'inf', NULL]::float8[])[1 + i % 6], (ARRAY[0, '-0', 'NaN', 'NaN', 'inf', NULL]::float4[])[1 + i % 6],
 CASE WHEN i % 5 = 0 THEN NULL WHEN i % 5 = 1 THEN ROW(NULL, NULL)::pt ELSE ROW(i % 2, 'a')::pt END, CASE WHEN i % 4 > 0 THEN ARRAY['a', NULL, (i % 3)::text] END,
 CASE WHEN i % 4 > 0 THEN int4range(i % 3, i % 3 + 2, '[]') END, CASE WHEN i % 4 > 0 THEN int4multirange(int4range(i % 3, i % 3 + 2)) END, (ARRAY['sad','ok','happy',NULL])[1 + i % 4]::mood,
 (ARRAY['{"a":1,"b":1.0}','{"b":1.00,"a":1}','1','null',NULL]::jsonb[])[1 + i % 5], ('00000000-0000-0000-0000-00000000000' || i % 3)::uuid, (ARRAY['10.0.0.1','10.0.0.1/32','10.0.0.1/8','::1',NULL]::inet[])[1 + i % 5],
 (ARRAY['10.0.0.0/8','10.0.0.0/24']::cidr[])[1 + i % 2], i % 2 = 0, time '10:00' + i % 3 * interval '1 h', (ARRAY['10:00+00','11:00+01','10:00+01']::timetz[])[1 + i % 3],
 (ARRAY['1 day','24 hours','1 mon','30 days',NULL]::interval[])[1 + i % 5], ('08:00:2b:01:02:0' || i % 3)::macaddr, 1 + i % 3, (ARRAY['ab','ab  ','c'])[1 + i % 3]::char(5), ('\x0' || i % 3)::bytea, i % 3, ('n' || i % 3)::name, (i % 3)::text::xid8, ('0/' || i % 3)::pg_lsn
FROM generate_series(1, 60) i;
INSERT INTO k SELECT * FROM kt WHERE rowtime < '2026-01-01 00:05' ORDER BY rowtime;
SELECT kda.wait('k');
INSERT INTO k SELECT * FROM kt WHERE rowtime >= '2026-01-01 00:05' ORDER BY rowtime;
SELECT kda.wait('k');
DO $$
DECLARE
	col text;
	bad int;
	n int := 0;
	window_ text := 'kda.tumble_start(rowtime, ''1 min'')';
BEGIN
	FOR col IN SELECT attname FROM pg_attribute WHERE attrelid = 'k'::regclass AND attnum > 1 LOOP
		EXECUTE format('SELECT count(*) FROM (((SELECT %1$I, count(*) FROM kt GROUP BY %1$I) EXCEPT ALL TABLE g_%1$s) '
			'UNION ALL (TABLE g_%1$s EXCEPT ALL (SELECT %1$I, count(*) FROM kt GROUP BY %1$I))) x', col) INTO bad;
		IF bad > 0 THEN RAISE WARNING '%: % groups differ', col, bad; END IF;
		EXECUTE format('SELECT count(*) FROM (((SELECT %2$s, %1$I, count(*) FROM kt GROUP BY 1, 2) EXCEPT ALL SELECT window_start, %1$I, cnt FROM w_%1$s) '
			'UNION ALL (SELECT window_start, %1$I, cnt FROM w_%1$s EXCEPT ALL (SELECT %2$s, %1$I, count(*) FROM kt GROUP BY 1, 2))) x', col, window_) INTO bad;
		IF bad > 0 THEN RAISE WARNING '%: % groups of windows differ', col, bad; END IF;
		n := n + 1;
	END LOOP;
	RAISE NOTICE '% types compared', n;
END $$;
-- numbers of another scale, 0 and -0, NaN, letters of another case, NULL and a row of NULLs
SELECT round(n, 1) AS n, cnt FROM g_n ORDER BY n;
SELECT lower(ct) AS ct, cnt FROM g_ct ORDER BY 1;
SELECT lower(tc) COLLATE "C" AS tc, cnt FROM g_tc ORDER BY 1;
SELECT abs(f8) AS f8, cnt FROM g_f8 ORDER BY 1;
SELECT c, cnt, c IS NULL AS "null" FROM g_c ORDER BY 1;
CREATE STREAM unhashable (b bit(3), p point, j json, t tsvector);
DO $$
DECLARE
	col text;
BEGIN
	FOREACH col IN ARRAY '{b,p,j,t}'::text[] LOOP
		BEGIN
			EXECUTE format('CREATE CONTINUOUS VIEW bad AS SELECT count(*) FROM unhashable GROUP BY %I', col);
			RAISE NOTICE '%: kept as rows', col;
			DROP CONTINUOUS VIEW bad;
		EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%: %', SQLSTATE, SQLERRM;
		END;
	END LOOP;
END $$;

-- aggregates: each with an argument that fits
CREATE STREAM s (rowtime timestamptz, k int, i2 int2, i4 int, i8 int8, f4 float4, f8 float8, n numeric, t text, b bool, iv interval, ts timestamp, tz timestamptz, d date, m money, bi bit(8), x xid8, inet inet, r int4range, mr int4multirange, a int[], j jsonb, ch char(3), o oid, l pg_lsn, tm time, e8 name, ty tid, tt timetz, xm xml, mac macaddr);
CREATE TABLE st (LIKE s);
INSERT INTO st SELECT timestamptz '2026-01-01' + i * interval '7 s', i % 3, nullif(i % 7, 0), nullif(i % 11, 0), nullif(i, 5), i / 3.0, i / 7.0, i / 9.0, nullif('t' || i % 5, 't0'), nullif(i % 3, 2)::bool, i * interval '1 h', timestamp '2026-01-01' + i * interval '1 day', timestamptz '2026-01-01' + i * interval '1 day', date '2026-01-01' + i, i::money, (i % 256)::bit(8), i::text::xid8, ('10.0.0.' || i)::inet, int4range(i, i + 2), int4multirange(int4range(i, i + 5)), ARRAY[i, i + 1], jsonb_build_object('a', i), 'c' || i % 3, i, ('0/' || i)::pg_lsn, time '10:00' + i * interval '1 min', 'n' || i, ('(' || i || ',1)')::tid, timetz '10:00+00' + i * interval '1 min', null, ('08:00:2b:01:02:' || lpad((i % 90)::text, 2, '0'))::macaddr FROM generate_series(1, 60) i;
CREATE TABLE aggs (oid oid, sql text);
DO $$
DECLARE
	a record;
	args text;
	call text;
BEGIN
	FOR a IN SELECT p.oid, p.proname, p.proargtypes::oid[] AS types, aggcombinefn <> 0 AS combines FROM pg_aggregate JOIN pg_proc p ON p.oid = aggfnoid
			WHERE aggkind = 'n' AND pronamespace = 'pg_catalog'::regnamespace
				AND proname !~ 'json|xmlagg|array_agg|string_agg'	-- their results depend on the order of rows, or they refuse NULL
			ORDER BY p.oid LOOP
		SELECT string_agg(coalesce((SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = 's'::regclass AND attnum > 2 AND atttypid = t ORDER BY attnum DESC LIMIT 1),
				CASE t WHEN '"any"'::regtype THEN 'i4' WHEN 'anyelement'::regtype THEN 'i4' WHEN 'anyarray'::regtype THEN 'a' WHEN 'anynonarray'::regtype THEN 'i4'
					WHEN 'bytea'::regtype THEN 't::bytea' WHEN 'json'::regtype THEN 'j::json' WHEN 'anyrange'::regtype THEN 'r' WHEN 'anymultirange'::regtype THEN 'mr' END), ', ' ORDER BY o)
			INTO args FROM unnest(a.types) WITH ORDINALITY u(t, o);
		CONTINUE WHEN cardinality(a.types) > 0 AND args IS NULL;
		call := format('%I(%s)', a.proname, coalesce(args, '*'));
		BEGIN
			EXECUTE format('CREATE CONTINUOUS VIEW a_%s AS SELECT k, %s AS x FROM s GROUP BY k', a.oid, call);
			EXECUTE format('CREATE CONTINUOUS VIEW aw_%s AS SELECT %s AS x FROM s WINDOWED BY TUMBLING (INTERVAL ''1'' MINUTE)', a.oid, call);
			INSERT INTO aggs VALUES (a.oid, call);
		EXCEPTION WHEN feature_not_supported THEN
			IF a.combines THEN RAISE WARNING 'refused: % %', call, SQLERRM; END IF;
		END;
	END LOOP;
END $$;
INSERT INTO s SELECT * FROM st WHERE rowtime < '2026-01-01 00:03:33' ORDER BY rowtime;
SELECT kda.wait('s');
INSERT INTO s SELECT * FROM st WHERE rowtime >= '2026-01-01 00:03:33' ORDER BY rowtime;
SELECT kda.wait('s');
DO $$
DECLARE
	a record;
	bad int;
BEGIN
	FOR a IN SELECT * FROM aggs LOOP
		EXECUTE format('SELECT count(*) FROM (SELECT k, %s x FROM st GROUP BY k) a FULL JOIN a_%s b USING (k) WHERE a.x::text IS DISTINCT FROM b.x::text', a.sql, a.oid) INTO bad;
		IF bad > 0 THEN RAISE WARNING '%: % groups differ', a.sql, bad; END IF;
		EXECUTE format('SELECT count(*) FROM (SELECT kda.tumble_start(rowtime, ''1 min'') w, %s x FROM st GROUP BY 1) a FULL JOIN aw_%s b ON w = window_start WHERE a.x::text IS DISTINCT FROM b.x::text', a.sql, a.oid) INTO bad;
		IF bad > 0 THEN RAISE WARNING '%: % windows differ', a.sql, bad; END IF;
	END LOOP;
END $$;
SELECT count(*) > 100 AS many FROM aggs;
SELECT name, state, last_error FROM kda.queries WHERE state <> 'running' OR last_error IS NOT NULL;
SET client_min_messages = warning;
DROP STREAM k, s, unhashable CASCADE;
DROP TABLE kt, st, aggs;
DROP DOMAIN posint;
DROP TYPE pt, mood;
DROP EXTENSION citext;
DROP COLLATION ci;
