-- Pumps: into streams, into tables, one after the other; the statements that KDA users have.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE OR REPLACE STREAM "clicks_raw" (
  "ROWTIME" TIMESTAMP,
  user_id VARCHAR(64), action VARCHAR(20), page VARCHAR(256), country VARCHAR(8), "value" INTEGER
);

CREATE OR REPLACE STREAM "by_country" (
  country VARCHAR(8),
  action  VARCHAR(20),
  cnt     BIGINT
);
CREATE OR REPLACE PUMP "p_by_country" AS
INSERT INTO "by_country"
SELECT country, action, COUNT(*) AS cnt
FROM "clicks_raw"
WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)
GROUP BY country, action;

CREATE OR REPLACE REFERENCE TABLE "allowed" (
  country VARCHAR(8) PRIMARY KEY
);
INSERT INTO allowed VALUES ('KR');
CREATE OR REPLACE STREAM "allowed_clicks" (
  user_id VARCHAR(64),
  country VARCHAR(8)
);
CREATE OR REPLACE PUMP "p_allowed" AS
INSERT INTO "allowed_clicks"
SELECT e.user_id, e.country
FROM "clicks_raw" AS e
JOIN "allowed" r
ON e.country = r.country
WHERE e.action = 'click';

-- pump to pump: each minute's counts, summed per five minutes; SELECT STREAM is KDA's spelling
CREATE OR REPLACE STREAM "five" (rowtime timestamptz, country VARCHAR(8), total BIGINT);
CREATE OR REPLACE PUMP "p_five" AS
INSERT INTO "five" (country, total)
SELECT STREAM country, SUM(cnt)
FROM "by_country"
WINDOWED BY TUMBLING (INTERVAL '5' MINUTE)
GROUP BY country;

-- into tables: windows once, running groups with ON CONFLICT, records as they come
CREATE TABLE minutes (until timestamptz, country text, n bigint);
CREATE PUMP p_minutes AS INSERT INTO minutes SELECT window_end, country, count(*) FROM clicks_raw WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY country;
CREATE TABLE per_user (user_id text PRIMARY KEY, n bigint, changed int DEFAULT 0);
CREATE PUMP p_user AS INSERT INTO per_user (user_id, n) SELECT user_id, count(*) FROM clicks_raw GROUP BY user_id
	ON CONFLICT (user_id) DO UPDATE SET n = EXCLUDED.n, changed = per_user.changed + 1;
CREATE TABLE strict (user_id text NOT NULL, v int CHECK (v < 100));
CREATE PUMP p_strict AS INSERT INTO strict SELECT user_id, "value" FROM clicks_raw;

INSERT INTO clicks_raw VALUES
	('2026-01-01 10:00:01', 'u1', 'click', '/a', 'KR', 1),
	('2026-01-01 10:00:02', 'u2', 'view', '/a', 'KR', 2),
	('2026-01-01 10:00:03', 'u1', 'click', '/b', 'US', 3),
	('2026-01-01 10:01:04', 'u3', 'click', '/b', 'KR', 4);
SELECT kda.wait('clicks_raw');
SELECT * FROM by_country ORDER BY 1, 2;
SELECT * FROM allowed_clicks ORDER BY 1;
SELECT * FROM minutes ORDER BY 1, 2;
SELECT * FROM per_user ORDER BY 1;
-- a pump shows its open windows
SELECT * FROM p_by_country ORDER BY 1, 2;

INSERT INTO clicks_raw VALUES ('2026-01-01 10:02:00', 'u1', 'click', '/a', 'KR', 500), ('2026-01-01 10:02:00', NULL, 'click', '/a', 'KR', 5), ('2026-01-01 10:02:01', 'u1', 'click', '/a', 'KR', 6);
INSERT INTO clicks_raw VALUES ('2026-01-01 10:05:00', 'u1', 'click', '/a', 'KR', 7);
INSERT INTO clicks_raw VALUES ('2026-01-01 10:05:59', 'u1', 'click', '/a', 'KR', 8);
SELECT kda.wait('clicks_raw');
SELECT * FROM minutes ORDER BY 1, 2;
SELECT user_id, n FROM per_user ORDER BY 1;
-- rows that the table refuses are in the error stream
SELECT * FROM strict ORDER BY v;
SELECT error_name, message, convert_from(data_row, 'UTF8') AS data_row, query FROM kda.error_stream WHERE stream = 'clicks_raw'::regclass ORDER BY error_id;
SELECT * FROM five ORDER BY 1, 2;
SELECT kda.watermark('by_country'), kda.watermark('clicks_raw');
SELECT name, kind, state FROM kda.queries ORDER BY 1;

-- running the script again changes nothing
CREATE OR REPLACE STREAM "by_country" (
  country VARCHAR(8),
  action  VARCHAR(20),
  cnt     BIGINT
);
CREATE OR REPLACE PUMP "p_by_country" AS
INSERT INTO "by_country"
SELECT country, action, COUNT(*) AS cnt
FROM "clicks_raw"
WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)
GROUP BY country, action;
CREATE OR REPLACE REFERENCE TABLE "allowed" (
  country VARCHAR(8) PRIMARY KEY,
  since date
);
SELECT * FROM allowed;

-- an ad hoc windowed SELECT: once, over the buffered rows
SELECT country, COUNT(*) c
FROM "clicks_raw"
WHERE country NOT IN ('DE')
WINDOWED BY TUMBLING (INTERVAL '5' MINUTE)
GROUP BY country ORDER BY 1, 2;

-- refused: a cycle, and what does not fit
CREATE PUMP p_cycle AS INSERT INTO clicks_raw (user_id) SELECT country FROM five;
CREATE PUMP p_bad AS INSERT INTO minutes SELECT country FROM clicks_raw;
CREATE PUMP p_stopped STOPPED AS INSERT INTO strict SELECT user_id, 1 FROM clicks_raw;
SELECT state FROM kda.queries WHERE name = 'p_stopped';
ALTER PUMP p_stopped START;
ALTER PUMP p_nowhere START;
DROP STREAM by_country;
DROP PUMP p_five;
DROP PUMP per_user;
DROP STREAM clicks_raw, by_country, allowed_clicks, five CASCADE;
DROP TABLE allowed, minutes, per_user, strict;
