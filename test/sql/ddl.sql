-- Streams and views are relations: rights, names, owners, dependencies.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE ROLE kda_alice;
CREATE ROLE kda_bob;
CREATE SCHEMA shop AUTHORIZATION kda_alice;
CREATE SCHEMA bob AUTHORIZATION kda_bob;
SET ROLE kda_alice;
CREATE STREAM shop.orders (rowtime timestamptz, item text, amount numeric);
CREATE TABLE shop.items (item text PRIMARY KEY, price numeric);
INSERT INTO shop.items VALUES ('pen', 2), ('ink', 5);
CREATE CONTINUOUS VIEW shop.revenue AS
SELECT o.item, sum(o.amount * i.price) AS revenue FROM shop.orders o JOIN shop.items i USING (item)
WINDOWED BY TUMBLING (INTERVAL '1' HOUR) GROUP BY o.item;
INSERT INTO shop.orders VALUES ('2026-01-01 10:00:00+00', 'pen', 3);
SELECT kda.wait('shop.orders');
SELECT * FROM shop.revenue;
RESET ROLE;

-- another user sees what he was granted
SET ROLE kda_bob;
SELECT * FROM shop.revenue;
INSERT INTO shop.orders VALUES ('2026-01-01 10:00:00+00', 'pen', 3);
SELECT kda.wait('shop.orders');
SELECT kda.advance('shop.orders', now());
ALTER STREAM shop.orders PAUSE;
DROP CONTINUOUS VIEW shop.revenue;
SELECT count(*) FROM kda.queries;
SELECT count(*) FROM kda_storage.query;
RESET ROLE;
GRANT USAGE ON SCHEMA shop TO kda_bob;
GRANT SELECT ON shop.revenue TO kda_bob;
GRANT INSERT ON shop.orders TO kda_bob;
SET ROLE kda_bob;
SELECT * FROM shop.revenue;
INSERT INTO shop.orders VALUES ('2026-01-01 10:00:01+00', 'ink', 1);
SELECT kda.wait('shop.orders');
SELECT name, definition IS NULL AS hidden FROM kda.queries;
SELECT count(*) FROM kda.streams;
CREATE CONTINUOUS VIEW bob.spy AS SELECT * FROM shop.orders;
SELECT kda.definition('shop.revenue');
SELECT * FROM kda.explain('shop.revenue');
RESET ROLE;

-- COMMENT, RENAME, SET SCHEMA, OWNER TO; rows go on
COMMENT ON VIEW shop.revenue IS 'money';
ALTER VIEW shop.revenue RENAME TO income;
ALTER CONTINUOUS VIEW shop.income SET SCHEMA public;
ALTER STREAM shop.orders RENAME TO purchases;
ALTER TABLE shop.items RENAME COLUMN price TO cost;
ALTER STREAM shop.purchases RENAME COLUMN amount TO quantity;
GRANT USAGE, CREATE ON SCHEMA public TO kda_alice, kda_bob;
SET ROLE kda_alice;
INSERT INTO shop.purchases VALUES ('2026-01-01 10:00:02+00', 'ink', 1);
SELECT kda.wait('shop.purchases');
SELECT * FROM income ORDER BY item;
SELECT obj_description('income'::regclass);
SELECT regexp_replace(e, 'open_\d+', 'open_N') AS plan FROM kda.explain('income') e;
RESET ROLE;
GRANT SELECT ON shop.purchases, shop.items TO kda_bob;
ALTER VIEW income OWNER TO kda_bob;
INSERT INTO shop.purchases VALUES ('2026-01-01 11:00:02+00', 'pen', 10);
SELECT kda.wait('shop.purchases');
SELECT * FROM income ORDER BY window_start, item;
SELECT relname ~ '^(batch|open|final|closed)_' AS part, relowner::regrole FROM pg_class WHERE relnamespace = 'kda_storage'::regnamespace AND relowner <> 10 ORDER BY relname;

-- columns: added while it runs; one in use cannot go
ALTER STREAM shop.purchases ADD COLUMN note text;
INSERT INTO shop.purchases VALUES ('2026-01-01 11:00:03+00', 'pen', 1, 'x');
SELECT kda.wait('shop.purchases');
SELECT revenue FROM income WHERE window_start = '2026-01-01 11:00:00+00';
SELECT quantity, note FROM shop.purchases ORDER BY rowtime DESC LIMIT 2;
ALTER STREAM shop.purchases DROP COLUMN item;
\set VERBOSITY terse
ALTER STREAM shop.purchases ALTER COLUMN quantity TYPE int;
\set VERBOSITY default
CREATE OR REPLACE STREAM shop.purchases (rowtime timestamptz, item text, quantity numeric, note text, more int) OPTIONS (watermark '1 s');
-- SET also of an option that has its default
ALTER STREAM shop.purchases OPTIONS (SET watermark '0', SET max_ahead 'never');
SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'shop.purchases'::regclass;
CREATE OR REPLACE STREAM shop.purchases (rowtime timestamptz, item int, quantity numeric, note text, more int);
CREATE OR REPLACE STREAM shop.purchases (rowtime timestamptz, item text);

-- a right that is taken away stops the query, and nothing else
CREATE CONTINUOUS VIEW other AS SELECT count(*) AS n FROM shop.purchases;
REVOKE SELECT ON shop.items FROM kda_bob;
INSERT INTO shop.purchases VALUES ('2026-01-01 11:00:04+00', 'pen', 1);
SELECT kda.wait('shop.purchases');
SELECT name, state, last_error FROM kda.queries ORDER BY name;
SELECT * FROM other;

-- OR REPLACE with another query is not there yet
CREATE OR REPLACE CONTINUOUS VIEW other AS SELECT count(*) AS n FROM shop.purchases;
CREATE OR REPLACE CONTINUOUS VIEW other AS SELECT count(*) + 1 AS n FROM shop.purchases;
CREATE OR REPLACE VIEW other AS SELECT 1 AS n;
ALTER CONTINUOUS VIEW other STOP;
ALTER CONTINUOUS VIEW other SET (retention = '1 day');
ALTER CONTINUOUS VIEW other SET (nosuch = '1 day');
CREATE CONTINUOUS VIEW second WITH (start = 'earliest') AS SELECT count(*) FROM shop.purchases;

-- PAUSE and RESUME lose nothing
ALTER STREAM shop.purchases PAUSE;
INSERT INTO shop.purchases VALUES ('2026-01-01 11:00:05+00', 'pen', 1);
SELECT kda.wait('shop.purchases', '300 ms');
SELECT state FROM kda.streams WHERE stream = 'shop.purchases'::regclass;
SELECT * FROM other;
ALTER STREAM shop.purchases RESUME;
SELECT kda.wait('shop.purchases');
SELECT * FROM other;
BEGIN;
INSERT INTO shop.purchases VALUES ('2026-01-01 11:00:05+00', 'pen', 1);
SELECT kda.wait('shop.purchases');
ROLLBACK;
DROP TABLE shop.items;
DROP STREAM other;
DROP CONTINUOUS VIEW shop.purchases;
DROP TABLE shop.items CASCADE;
DROP SCHEMA shop CASCADE;
DROP SCHEMA bob;
SELECT count(*) FROM kda.queries;
REVOKE ALL ON SCHEMA public FROM kda_alice, kda_bob;
DROP ROLE kda_alice;
DROP ROLE kda_bob;
