-- SELECT … WINDOWED BY … outside of a continuous query: once, over the buffered rows, wherever a SELECT can stand.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE STREAM "스트림" (rowtime timestamptz, a int, "컬럼" text);
CREATE STREAM arrivals (a int);
INSERT INTO "스트림" SELECT timestamptz '2026-01-01 00:00+00' + i * interval '7 s', i % 3, 'x' || i % 2 FROM generate_series(1, 20) i;
INSERT INTO arrivals VALUES (1), (2);

-- ROWTIME outside of aggregates is the window's end, inside and in WHERE the record's time
SELECT a, count(*) n, window_start, ROWTIME, min(rowtime) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY a ORDER BY window_start, a;
SELECT STREAM a, count(*) FROM "스트림" s WHERE s.rowtime > '2026-01-01 00:01:00+00' WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY a HAVING count(*) > 1 ORDER BY 1;
SELECT to_char(rowtime, 'HH24:MI') h, to_char(min(rowtime), 'HH24:MI:SS') m, count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) ORDER BY 1;
SELECT count(*), ROWTIME > '2026-01-01' AS later, max(ROWTIME) <= now() AS past FROM arrivals WHERE ROWTIME IS NOT NULL WINDOWED BY TUMBLING (INTERVAL '1' DAY);

-- in subqueries, WITH, UNION; several at once
SELECT * FROM (SELECT a, count(*) n FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY a) x WHERE n > 2 ORDER BY 1;
WITH w AS (SELECT a, count(*) n FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY a) SELECT sum(n) FROM w;
SELECT window_end, count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) UNION ALL SELECT window_start, sum(a) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '2' MINUTE) ORDER BY 1, 2;
SELECT (SELECT count(*) FROM arrivals WINDOWED BY TUMBLING (INTERVAL '1' DAY)) AS n, a FROM "스트림" WHERE a IN (SELECT a FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY a) LIMIT 1;
-- the stream need not be the first in FROM
CREATE TABLE names (a int, name text);
INSERT INTO names VALUES (0, 'zero'), (1, 'one');
SELECT n.name, count(*), window_start FROM names n JOIN "스트림" s ON s.a = n.a WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY n.name ORDER BY 1;

-- in other statements
EXPLAIN (COSTS OFF) SELECT a, count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY a;
COPY (SELECT a, count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY a ORDER BY 1) TO STDOUT;
CREATE TABLE ctas AS SELECT a, count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY a;
SELECT a, count(*) INTO into_t FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY a;
INSERT INTO ctas SELECT a, count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY a;
SELECT (SELECT count(*) FROM ctas), (SELECT count(*) FROM into_t);
BEGIN;
DECLARE c CURSOR FOR SELECT a, count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY a ORDER BY 1;
FETCH 1 FROM c;
DECLARE c2 CURSOR FOR SELECT a, count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY a ORDER BY 1, 2;
FETCH 1 FROM c2;
FETCH ALL FROM c;
COMMIT;
PREPARE by_a(int) AS SELECT a, count(*) FROM "스트림" WHERE a = $1 WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY a;
EXECUTE by_a(1);
EXECUTE by_a(2);
CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' HOUR) $$;
SELECT f();
CREATE FUNCTION fp() RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	FOR n IN SELECT count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) ORDER BY window_start LOOP
		RETURN NEXT n;
	END LOOP;
	SELECT count(*) INTO n FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' HOUR);
	RETURN NEXT n;
	CREATE STREAM inner_s (a int);
	CREATE CONTINUOUS VIEW inner_v AS SELECT count(*) FROM inner_s;
	RETURN QUERY SELECT count(*) FROM arrivals WINDOWED BY TUMBLING (INTERVAL '1' DAY);
END $$;
SELECT * FROM fp();
SELECT to_regclass('inner_v');
SELECT * FROM kda.query('SELECT a, count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL ''1'' HOUR) GROUP BY a ORDER BY 1') AS t(a int, n bigint);

-- not in what is kept parsed
CREATE FUNCTION fa() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' HOUR); END;
CREATE VIEW v AS SELECT count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' HOUR);
CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' HOUR);
CREATE RULE r AS ON SELECT TO ctas DO INSTEAD SELECT count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' HOUR);

-- what is wrong, and where: also behind characters of several bytes
/* 한국어 */ CREATE STREAM s (a nosuch);
SELECT '한국어' \; CREATE CONTINUOUS VIEW e AS SELECT "컬럼", nosuch FROM "스트림";
SELECT kda.execute($$ SELECT '한국어'; CREATE CONTINUOUS VIEW e AS SELECT "컬럼", nosuch FROM "스트림" $$);
DO $$ BEGIN /* 한 */ CREATE CONTINUOUS VIEW e AS SELECT "컬럼", nosuch FROM "스트림"; END $$;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM "스트림" /* 한 */ WINDOWED BY TUMBLING ('x');
SELECT '한', count(*), nosuch FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1 min') GROUP BY a;
SELECT '한', count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL 'x');
SELECT '한', count(*) FROM "스트림" WINDOWED BY TUMBLING (a);
SELECT count(*) FROM "스트림" GROUP BY a WINDOWED BY TUMBLING (INTERVAL '1' HOUR);
SELECT count(*) WINDOWED BY TUMBLING (INTERVAL '1' HOUR);
SELECT count(*) FROM ctas WINDOWED BY TUMBLING (INTERVAL '1' HOUR);
SELECT count(*) FROM nowhere WINDOWED BY TUMBLING (INTERVAL '1' HOUR);
SELECT count(*) FROM "스트림" WINDOWED BY;
SELECT count(*) FROM "스트림" WINDOWED BY TUMBLING ();
SELECT count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' HOUR, INTERVAL '1' MINUTE, INTERVAL '1' MINUTE);
SELECT count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '-1' HOUR);
SELECT count(*) FROM "스트림" WINDOWED BY TUMBLING (INTERVAL '1' HOUR, INTERVAL '1' HOUR);
-- a plain SELECT does not know the time of a stream that does not declare it
SELECT ROWTIME FROM arrivals;
SELECT a FROM arrivals r WHERE r.ROWTIME IS NOT NULL;
SELECT a AS rowtime FROM arrivals ORDER BY rowtime;

DROP FUNCTION f, fp;
DROP TABLE ctas, into_t, names;
DROP STREAM "스트림", arrivals, inner_s CASCADE;
