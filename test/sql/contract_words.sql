-- Which words are KDA's and where; what PostgreSQL's grammar has a use for stays PostgreSQL's.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE TABLE stream (stream int, pump int, emit text, output text, continuous bool, windowed int, reference int, changes int);
INSERT INTO stream (stream, pump, emit) VALUES (1, 2, 'e');
SELECT stream, pump, emit AS output FROM stream windowed;
SELECT stream.stream, stream + 1 AS output, stream * 2 FROM stream;
SELECT stream state FROM stream;
UPDATE stream SET stream = stream + 1, output = 'o';
CREATE FUNCTION pump(stream int) RETURNS int LANGUAGE sql AS 'SELECT stream + 1';
SELECT pump(1), pump(stream := 2);
CREATE TABLE refs (a int REFERENCES refs (a), PRIMARY KEY (a)); -- output
ALTER TABLE stream RENAME TO pump;
CREATE OPERATOR // (LEFTARG = int, RIGHTARG = int, FUNCTION = int4div);
SELECT 8 // 2 AS stream, 'pump';
SELECT 8 // 2 AS x; CREATE STREAM after_operator (a int); SELECT 9 // 3 AS y;
CREATE FUNCTION two() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END; CREATE STREAM after_atomic (a int);
DROP STREAM after_operator, after_atomic;
DROP FUNCTION pump, two;
DROP TABLE pump, refs;
DROP OPERATOR // (int, int);

-- comments of three kinds, anywhere in a KDA statement
CREATE STREAM c1 ( // not the last
  a int, /* CREATE /* nested */ ; */ -- it's; 'x
  rowtime timestamptz // last one
) // tail
DESCRIPTION 'd''x' // more
;
SELECT obj_description('c1'::regclass);
CREATE CONTINUOUS VIEW c1v AS // the view
SELECT a, count(*) // counts all
FROM c1 /* here */ WINDOWED /* a */ BY -- b
TUMBLING /* c */ ( // d
INTERVAL '1' MINUTE // e
) GROUP BY a // end
;
SELECT a, count(*) // how many
FROM c1 // stream
WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) // window
GROUP BY a;

-- KDA's type names, wherever a type stands
CREATE STREAM ty (a DOUBLE, b TINYINT, c VARBINARY(10), d BINARY, e BINARY(5), f TIMESTAMP, g VARCHAR(5), h CHAR(3), i DOUBLE PRECISION, j REAL, k BIGINT, l DECIMAL(10,2), m TIME, n DATE, o BOOLEAN, p SMALLINT, q INTERVAL, "double" int, r double[]);
ALTER STREAM ty ADD COLUMN x1 DOUBLE;
ALTER STREAM ty ADD x2 TINYINT;
ALTER STREAM ty ADD COLUMN IF NOT EXISTS x3 VARBINARY(3), ADD x4 BINARY;
ALTER STREAM ty ALTER COLUMN x2 TYPE DOUBLE;
ALTER STREAM ty ALTER x2 SET DATA TYPE TINYINT;
\d ty
CREATE CONTINUOUS VIEW tyv AS SELECT CAST(b AS DOUBLE) AS d, a::TINYINT AS t, CAST(CAST(k AS DOUBLE) AS TINYINT) AS n, c::VARBINARY(3) AS v FROM ty WHERE CAST(b AS DOUBLE) > 1;
\d tyv
CREATE REFERENCE TABLE rt (a DOUBLE PRIMARY KEY, b TINYINT DEFAULT CAST(1 AS TINYINT), c VARBINARY(3)) WITH (fillfactor = 50) DESCRIPTION 'ref';
SELECT attname, format_type(atttypid, atttypmod), reloptions FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid WHERE relname = 'rt' AND attnum > 0 ORDER BY attnum;
SELECT obj_description('rt'::regclass);
SELECT CAST(b AS DOUBLE), count(*) FROM ty WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY CAST(b AS DOUBLE);

-- IF [NOT] EXISTS
CREATE STREAM IF NOT EXISTS ty (a int);
CREATE REFERENCE TABLE IF NOT EXISTS rt (a int);
CREATE CONTINUOUS VIEW IF NOT EXISTS tyv AS SELECT a FROM ty;
CREATE PUMP IF NOT EXISTS tyv AS INSERT INTO rt SELECT a FROM ty;
ALTER STREAM IF EXISTS nosuch PAUSE;
ALTER STREAM IF EXISTS nosuch ADD COLUMN a int;
ALTER PUMP IF EXISTS nosuch STOP;
ALTER CONTINUOUS VIEW IF EXISTS nosuch RENAME TO x;
ALTER CONTINUOUS VIEW IF EXISTS nosuch SET (retention = '1 d');
DROP STREAM IF EXISTS nosuch;
DROP PUMP IF EXISTS nosuch, nosuch2;
DROP CONTINUOUS VIEW IF EXISTS nosuch;
ALTER STREAM nosuch PAUSE;
ALTER PUMP nosuch STOP;

-- one kind is not the other
ALTER PUMP tyv RENAME TO z;
ALTER CONTINUOUS VIEW ty RENAME TO z;
ALTER STREAM rt RENAME TO z;
ALTER STREAM tyv ADD COLUMN a int;
DROP STREAM rt;
DROP PUMP tyv;
DROP CONTINUOUS VIEW ty;

-- places of syntax errors
CREATE STREAM;
CREATE STREAM s;
CREATE STREAM s (a int) SERVER;
CREATE STREAM s (a int) OPTIONS (x);
CREATE STREAM s (a int) OPTIONS (watermark 5);
CREATE STREAM s (a int) WITH (x = 1);
CREATE STREAM s (a int) OPTIONS (watermark '5 s', watermark '6 s');
CREATE PUMP p AS SELECT 1;
CREATE PUMP p AS INSERT INTO t;
CREATE PUMP p AS INSERT INTO t VALUES (1);
CREATE PUMP p AS INSERT INTO rt SELECT a FROM ty RETURNING a;
CREATE PUMP p AS INSERT INTO rt SELECT a FROM ty ON CONFLICT DO NOTHING RETURNING a;
CREATE CONTINUOUS VIEW v SELECT 1;
CREATE CONTINUOUS VIEW v AS SELECT a FROM ty WHERE;
CREATE CONTINUOUS VIEW v AS SELECT a FROM ty EMIT NOTHING;
CREATE CONTINUOUS VIEW v AS SELECT a FROM ty EMIT CHANGES EMIT CHANGES;
CREATE CONTINUOUS VIEW v AS SELECT a FROM ty WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW v AS SELECT a, count(*) FROM ty GROUP BY a WINDOWED BY TUMBLING (INTERVAL '1' MINUTE);
CREATE CONTINUOUS VIEW v AS SELECT count(*) FROM ty WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) WHERE a = 1;
CREATE CONTINUOUS VIEW v WITH (retention = ) AS SELECT a FROM ty;
CREATE CONTINUOUS VIEW v AS SELECT nosuch FROM nowhere;
ALTER STREAM ty PAUSE NOW;
ALTER PUMP p;
DROP STREAM;

-- names and literals of every kind
CREATE STREAM s (a int) OPTIONS (watermark E'5 \x73ec', start U&'e\0061rliest');
SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 's'::regclass;
CREATE STREAM U&"s\0074" (U&"\0061b" int);
CREATE STREAM "Quo""ted" ("Sel.ect" int, "from" text);
CREATE CONTINUOUS VIEW "V""iew" AS SELECT "Sel.ect", "from" AS "a b" FROM "Quo""ted";
\d "V""iew"
CREATE SCHEMA "S x";
CREATE STREAM "S x"."s.t" (a int);
CREATE CONTINUOUS VIEW "S x".v AS SELECT a FROM "S x"."s.t";
SELECT name, definition FROM kda.queries WHERE name ~ 'S x';
CREATE STREAM other."S x".full2 (a int);
CREATE STREAM pg_temp.tmp (a int);
DROP STREAM s, st, "Quo""ted", c1, ty CASCADE;
\set VERBOSITY terse
DROP SCHEMA "S x" CASCADE;
DROP TABLE rt;
