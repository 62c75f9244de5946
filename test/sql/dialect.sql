-- KDA statements among ordinary ones, and what the words are not.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT 1 AS before; CREATE STREAM d (rowtime timestamptz, k text, x DOUBLE, n TINYINT, b VARBINARY(10)) DESCRIPTION 'a stream'; SELECT 2 AS after;
// a comment of KDA, before a statement of KDA
CREATE STREAM commented (a int); // and behind it
DROP STREAM commented;
SELECT obj_description('d'::regclass), format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'd'::regclass AND attnum > 0 ORDER BY attnum;
CREATE STREAM flink (ts timestamp, v int, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND);
SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'flink'::regclass;
BEGIN;
CREATE CONTINUOUS VIEW IF NOT EXISTS dv AS SELECT k, count(*) FROM d GROUP BY k;
CREATE CONTINUOUS VIEW IF NOT EXISTS dv AS SELECT k, count(*) FROM d GROUP BY k;
ROLLBACK;
SELECT to_regclass('dv');
SELECT kda.execute($$
	CREATE CONTINUOUS VIEW dv (key, n) WITH (retention = '30 days') AS SELECT k, count(*) FROM d // keys
		WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k;
	CREATE TABLE ordinary (a int);
	INSERT INTO ordinary VALUES (1), (2)
$$);
\d dv
SELECT count(*) FROM ordinary;
SELECT kda.definition('dv');
SELECT * FROM kda.query($$ SELECT k, count(*) FROM d WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY k $$) AS t(k text, n bigint);

-- words that stay PostgreSQL's
SELECT stream state FROM kda.streams WHERE stream = 'd'::regclass;
CREATE TABLE pump (stream int, continuous int, windowed int);
INSERT INTO pump (stream) VALUES (1);
SELECT stream, continuous, windowed FROM pump;
SELECT 'CREATE STREAM x (a int);' AS text, $$ WINDOWED BY $$ AS dollar, 'it''s' AS quote, E'\'; CREATE PUMP' AS escaped /* CREATE STREAM */;
DROP TABLE pump, ordinary;
DO $$ BEGIN CREATE STREAM in_plpgsql (a int); END $$;
SELECT to_regclass('in_plpgsql');
PREPARE p AS SELECT count(*) FROM d WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
EXECUTE p;

-- errors point into the text
CREATE STREAM (a int);
CREATE STREAM s (a nosuchtype);
CREATE CONTINUOUS VIEW e AS SELECT nosuch FROM d;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM d WINDOWED BY TUMBLING (INTERVAL '0' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM d WINDOWED BY TUMBLING (INTERVAL '1' MINUTE, INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM d WINDOWED BY NOTHING (INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM d WINDOWED BY SLIDING (INTERVAL '1' MINUTE, INTERVAL '5' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM d WINDOWED BY SLIDING (INTERVAL '5' MINUTE, INTERVAL '0' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM d WINDOWED BY SLIDING (INTERVAL '5' DAY, INTERVAL '1' MILLISECOND);
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM d WINDOWED BY CUMULATING (INTERVAL '5' MINUTE, INTERVAL '2' MINUTE);
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM d WINDOWED BY SLIDING (INTERVAL '2' MONTH, INTERVAL '1' MONTH);
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM d WINDOWED BY SLIDING (INTERVAL '1' MONTH, INTERVAL '1' DAY);
CREATE CONTINUOUS VIEW e WITH (time_zone = 'Nowhere/Land') AS SELECT count(*) FROM d WINDOWED BY TUMBLING (INTERVAL '1' DAY);
SELECT kda.execute('CREATE STREAM s (a int); CREATE CONTINUOUS VIEW e AS SELECT nosuch FROM s');
SELECT to_regclass('s');
CREATE CONTINUOUS VIEW e AS SELECT 1;
CREATE CONTINUOUS VIEW e AS SELECT a FROM pg_class;
CREATE CONTINUOUS VIEW e AS SELECT k FROM d UNION SELECT k FROM d;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM d WHERE x < random();
CREATE CONTINUOUS VIEW e AS SELECT a.k FROM d a JOIN d b ON a.k = b.k;
CREATE CONTINUOUS VIEW e WITH (start = 'yesterday') AS SELECT k FROM d;
CREATE CONTINUOUS VIEW e WITH (nosuch = '1') AS SELECT k FROM d;
CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM d EMIT ON WINDOW CLOSE;
CREATE PUMP e AS INSERT INTO d SELECT count(DISTINCT k)::text, 1 FROM d;
CREATE CONTINUOUS VIEW e AS SELECT k FROM d FOR UPDATE;
CREATE VIEW plain AS SELECT count(*) FROM d WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
CREATE STREAM bad (a int) OPTIONS (nosuch '1');
CREATE STREAM bad (a int) OPTIONS (watermark '-1 s');
CREATE STREAM bad (a int) OPTIONS (watermark 'soon');
CREATE STREAM bad (a int) OPTIONS (parallelism '2');
CREATE STREAM bad (a int) OPTIONS (format 'json');
CREATE STREAM bad (rowtime int);
CREATE STREAM bad (a int) OPTIONS (rowtime 'b');
CREATE STREAM bad (a int) SERVER nosuch;
CREATE OUTPUT o FROM d SERVER kda;
DROP STREAM d, flink, in_plpgsql CASCADE;
