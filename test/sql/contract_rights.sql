-- Whose rights count: a user needs no more for a database stream than for a table; queries run as their owner,
-- and nothing that a user has made ever runs with more.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE ROLE kda_ann;
CREATE ROLE kda_ben;
CREATE ROLE kda_team;
CREATE SCHEMA a AUTHORIZATION kda_ann;
CREATE SCHEMA b AUTHORIZATION kda_ben;
CREATE SERVER ks TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '127.0.0.1:1');

-- an ordinary user
SET ROLE kda_ann;
SET search_path = a;
CREATE STREAM s (rowtime timestamptz, k text, v int) DESCRIPTION 'mine';
CREATE REFERENCE TABLE r (k text PRIMARY KEY, name text);
INSERT INTO r VALUES ('a', 'A');
CREATE STREAM out (rowtime timestamptz, k text, n bigint);
CREATE TABLE t (k text, n bigint);
CREATE CONTINUOUS VIEW v AS SELECT s.k, r.name, count(*) n FROM s LEFT JOIN r USING (k) WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY s.k, r.name;
CREATE PUMP p AS INSERT INTO out (k, n) SELECT k, count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
CREATE PUMP pt AS INSERT INTO t SELECT k, n FROM out;
INSERT INTO s VALUES ('2026-01-01 00:00+00', 'a', 1), ('2026-01-01 00:01+00', 'b', 1);
SELECT kda.wait('s');
SELECT k, name, n FROM v ORDER BY 1;
SELECT * FROM t;
SELECT kda.watermark('s'), kda.watermark('v');
SELECT kda.definition('pt');
ALTER STREAM s PAUSE;
ALTER STREAM s RESUME;
ALTER STREAM s OPTIONS (ADD watermark '1 s');
ALTER STREAM s ADD COLUMN x int;
CREATE INDEX iv ON v (k);
CREATE INDEX iv ON v (n);
CREATE INDEX IF NOT EXISTS iv ON v (n);
DROP INDEX iv;
CREATE INDEX ON v (name);
DROP INDEX a.v_name_idx;
DROP INDEX nosuch;
ALTER CONTINUOUS VIEW v SET (retention = '1 day');
SELECT name, kind, state FROM kda.queries ORDER BY 1;
SELECT stream, state FROM kda.streams ORDER BY stream::text;
SELECT kda.resume_all();
SELECT kda.reset_statistics();
GRANT SELECT ON v TO kda_ben;
CREATE STREAM f (v int) SERVER ks;
-- what is not hers
SELECT * FROM kda_storage.query;
SELECT kda_storage.workers();
SELECT * FROM kda.emitted() AS e(a int);
SELECT '\x00'::kda.state;
SELECT kda.final('pg_catalog.avg(bigint)', 1::bigint, NULL::numeric);
SELECT kda.final('pg_catalog.avg(integer)', ARRAY[1,2]::bigint[], NULL::text);
SELECT kda.rowtime('(1,1)');
-- a view does not lead into the state of its query
DELETE FROM v;
CREATE CONTINUOUS VIEW g AS SELECT k, count(*) n FROM s GROUP BY k;
UPDATE g SET k = 'x';
CREATE CONTINUOUS VIEW rws AS SELECT k FROM s;
INSERT INTO rws VALUES ('x');
DROP CONTINUOUS VIEW g, rws;
RESET ROLE;

-- another one
SET ROLE kda_ben;
SET search_path = b, a;
SELECT * FROM v;
RESET ROLE;
GRANT USAGE ON SCHEMA a TO kda_ben;
SET ROLE kda_ben;
SELECT k, n FROM v ORDER BY 1;
SELECT * FROM s;
INSERT INTO s VALUES (now(), 'x', 1);
CREATE CONTINUOUS VIEW mine AS SELECT count(*) n FROM s;
CREATE PUMP minep AS INSERT INTO out (k) SELECT k FROM out;
ALTER STREAM s PAUSE;
ALTER STREAM s ADD COLUMN h int;
DROP STREAM s;
DROP CONTINUOUS VIEW v;
ALTER PUMP p STOP;
ALTER CONTINUOUS VIEW v STOP;
ALTER CONTINUOUS VIEW v SET (retention = '1 s');
CREATE INDEX ON v (k);
CREATE OR REPLACE STREAM s (k text);
CREATE OR REPLACE CONTINUOUS VIEW v AS SELECT 1 FROM s;
CREATE OR REPLACE REFERENCE TABLE r (k text);
SELECT kda.wait('s');
SELECT kda.advance('s', now());
SELECT kda.watermark('s');
SELECT kda.watermark('v');
SELECT kda.definition('v');
SELECT * FROM kda.explain('v');
SELECT kda.reset_statistics('v');
SELECT kda.sample('s');
SELECT name, kind, state, definition, owner FROM kda.queries;
SELECT (SELECT count(*) FROM kda.streams), (SELECT count(*) FROM kda.shards), (SELECT count(*) FROM kda.error_stream), (SELECT count(*) FROM kda.workers);
RESET ROLE;
GRANT pg_monitor TO kda_ben;
SET ROLE kda_ben;
SELECT name, definition IS NOT NULL AS shown FROM kda.queries ORDER BY 1;
SELECT (SELECT count(*) > 0 FROM kda.streams), (SELECT count(*) FROM kda.error_stream), (SELECT count(*) > 0 FROM kda.workers);
RESET ROLE;
REVOKE pg_monitor FROM kda_ben;

-- rights that are given, and taken away while the query runs
GRANT SELECT ON a.s, a.r TO kda_ben;
GRANT INSERT (k, n) ON a.out TO kda_ben;
ALTER TABLE a.r ENABLE ROW LEVEL SECURITY;
CREATE POLICY not_a ON a.r FOR SELECT TO kda_ben USING (k <> 'a');
INSERT INTO a.r VALUES ('b', 'B');
SET ROLE kda_ben;
CREATE CONTINUOUS VIEW mine AS SELECT count(*) n FROM s;
CREATE PUMP minep AS INSERT INTO out (rowtime, k) SELECT rowtime, 'ben' FROM s;
CREATE PUMP minep AS INSERT INTO out (k, n) SELECT 'ben', 1 FROM s;
CREATE CONTINUOUS VIEW rls AS SELECT s.k, r.name, count(*) n FROM s JOIN r USING (k) GROUP BY s.k, r.name;
RESET ROLE;
INSERT INTO a.s VALUES ('2026-01-01 00:01:30+00', 'a', 1), ('2026-01-01 00:01:30+00', 'b', 1);
SELECT kda.wait('a.s');
SELECT * FROM b.mine;
SELECT * FROM b.rls;
SELECT count(*) FROM a.out WHERE k = 'ben';
REVOKE INSERT (n) ON a.out FROM kda_ben;
INSERT INTO a.s VALUES ('2026-01-01 00:01:31+00', 'a', 1);
SELECT kda.wait('a.s');
SELECT name, state, last_error FROM kda.queries ORDER BY 1;
REVOKE SELECT ON a.s FROM kda_ben;
INSERT INTO a.s VALUES ('2026-01-01 00:01:32+00', 'a', 1);
SELECT kda.wait('a.s');
SELECT name, state, last_error FROM kda.queries ORDER BY 1;

-- a new owner has all of it
GRANT kda_team TO kda_ann;
GRANT CREATE, USAGE ON SCHEMA a TO kda_team;
GRANT SELECT ON a.s, a.r TO kda_team;
SET ROLE kda_ann;
DO $$ BEGIN ALTER CONTINUOUS VIEW a.v OWNER TO kda_ben; EXCEPTION WHEN insufficient_privilege THEN RAISE NOTICE 'refused'; END $$;
ALTER CONTINUOUS VIEW a.v OWNER TO kda_team;
RESET ROLE;
SELECT relowner::regrole, count(*) FROM pg_class WHERE relnamespace = 'kda_storage'::regnamespace AND relkind IN ('r', 'v') AND relowner <> 10 GROUP BY 1 ORDER BY 1::text;
DROP OWNED BY kda_ben;
REASSIGN OWNED BY kda_ann TO kda_team;
SELECT relowner::regrole, count(*) FROM pg_class WHERE relnamespace = 'kda_storage'::regnamespace AND relkind IN ('r', 'v') AND relowner <> 10 GROUP BY 1 ORDER BY 1::text;
INSERT INTO a.s VALUES ('2026-01-01 00:01:33+00', 'b', 1);
SELECT kda.wait('a.s');
SELECT name, state, owner FROM kda.queries ORDER BY 1;
SELECT n FROM a.v WHERE k = 'b';
\set VERBOSITY terse
DROP OWNED BY kda_team CASCADE;
DROP OWNED BY kda_ann CASCADE;
\set VERBOSITY default
SELECT count(*) FROM kda.queries;
SELECT count(*) FROM pg_class WHERE relnamespace = 'kda_storage'::regnamespace AND relname ~ '_\d+[ab]?$';

-- Mallory's code: as nobody but Mallory, wherever it is hidden
CREATE ROLE kda_mallory;
CREATE SCHEMA m AUTHORIZATION kda_mallory;
CREATE TABLE public.audit (who text, what text);
GRANT INSERT ON public.audit TO PUBLIC;
SET ROLE kda_mallory;
SET search_path = m;
CREATE FUNCTION try_all(where_ text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	BEGIN SET ROLE postgres; EXCEPTION WHEN OTHERS THEN INSERT INTO public.audit VALUES (current_user, where_ || ': ' || SQLERRM); END;
	BEGIN PERFORM set_config('session_authorization', 'postgres', false); EXCEPTION WHEN OTHERS THEN INSERT INTO public.audit VALUES (current_user, where_ || ': ' || SQLERRM); END;
	BEGIN CREATE TEMP TABLE x (a int); EXCEPTION WHEN OTHERS THEN INSERT INTO public.audit VALUES (current_user, where_ || ': ' || SQLERRM); END;
	BEGIN ALTER ROLE kda_mallory SUPERUSER; EXCEPTION WHEN OTHERS THEN INSERT INTO public.audit VALUES (current_user, where_ || ': ' || SQLERRM); END;
	BEGIN PERFORM FROM kda_storage.query; EXCEPTION WHEN OTHERS THEN INSERT INTO public.audit VALUES (current_user, where_ || ': ' || SQLERRM); END;
END $$;
-- what also a read-only function, in a process that nobody sees, can leave behind
CREATE SEQUENCE as_somebody_else;
CREATE FUNCTION tell(where_ text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF current_user <> 'kda_mallory' THEN
		RAISE WARNING '% in %', current_user, where_;
		PERFORM nextval('m.as_somebody_else');
	END IF;
END $$;
CREATE FUNCTION checked(v int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM m.tell('domain'); RETURN true; END $$;
CREATE DOMAIN dom AS int CHECK (m.checked(value));
CREATE TYPE comp AS (x dom);
CREATE FUNCTION imm(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM m.tell('immutable'); RETURN v; END $$;
CREATE FUNCTION vol(v int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM m.try_all('select list'); RETURN v; END $$;
CREATE FUNCTION as_json(comp) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM m.tell('json'); RETURN '{}'; END $$;
CREATE CAST (comp AS json) WITH FUNCTION as_json(comp);
CREATE FUNCTION eq(text, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM m.tell('operator'); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE OPERATOR m.= (LEFTARG = text, RIGHTARG = text, FUNCTION = eq);
CREATE STREAM s (rowtime timestamptz, k text, v int, d dom, c comp);
-- constants of types whose input functions run code, in each part of a query
CREATE CONTINUOUS VIEW v1 AS SELECT k, '(5)'::comp AS c, '{5}'::dom[] AS a, vol(v) FROM s;
CREATE CONTINUOUS VIEW v2 AS SELECT k, count(*) n, '{5}'::dom[] AS a, imm(3) i FROM s WHERE k = 'a' GROUP BY k HAVING imm(4) = 4 AND '(5)'::comp IS NOT NULL;
CREATE CONTINUOUS VIEW v3 AS SELECT count(*) n, imm(5) i, '(5)'::comp AS c FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW v4 AS SELECT count(*) n, '(5)'::comp AS c FROM s;
CREATE TABLE t (k text);
CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM m.try_all('trigger'); RETURN NEW; END $$;
CREATE TRIGGER trg AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION trg();
CREATE PUMP p AS INSERT INTO t SELECT k FROM s ON CONFLICT DO NOTHING;
SELECT count(*) > 0 FROM kda.explain('v2');
SELECT count(*) > 0 FROM kda.explain('v3');
CREATE INDEX ON v1 (imm(length(k)), imm(6)) WHERE '(5)'::comp IS NOT NULL;
CREATE INDEX ON v3 (imm(7));
ALTER CONTINUOUS VIEW v3 SET (retention = '1 minute');
ALTER STREAM s ADD COLUMN d2 dom;
INSERT INTO s VALUES ('2026-01-01 00:00+00', 'a', 1, 1, ROW(1)), ('2026-01-01 00:10+00', 'a', 1, 1, ROW(1)), ('2026-01-01 00:00+00', 'late', 1, 1, ROW(1));
ALTER STREAM s ALTER COLUMN d2 TYPE text;
RESET ROLE;
SELECT kda.wait('m.s');
SELECT name, state, last_error FROM kda.queries ORDER BY 1;
SELECT error_name, count(*) FROM kda.error_stream WHERE stream = 'm.s'::regclass GROUP BY 1;
SELECT who, split_part(what, ':', 1) AS place, count(DISTINCT what) AS refused FROM public.audit GROUP BY 1, 2 ORDER BY 1, 2;
SELECT rolsuper FROM pg_roles WHERE rolname = 'kda_mallory';
SELECT is_called FROM m.as_somebody_else;
\set VERBOSITY terse
DROP OWNED BY kda_mallory CASCADE;
DROP SERVER ks;
DROP TABLE public.audit;
DROP ROLE kda_mallory, kda_ann, kda_ben, kda_team;
SELECT count(*) FROM kda.queries;
