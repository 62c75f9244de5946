-- Statements of the shapes that users of Kinesis Data Analytics know, as they stand: quoted names, their types,
-- pump to pump, a reference table, an ad hoc windowed SELECT.
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE OR REPLACE STREAM "SENSOR_001" (
  "ROWTIME" TIMESTAMP,
  device  VARCHAR(16),
  kind    VARCHAR(10),
  site    VARCHAR(8),
  reading DOUBLE,
  status  TINYINT,
  payload VARBINARY(4)
) DESCRIPTION 'readings';

CREATE OR REPLACE STREAM "s_site_kind" (
  site VARCHAR(8),
  kind VARCHAR(10),
  cnt  BIGINT
);
CREATE OR REPLACE PUMP "p_site_kind" AS
INSERT INTO "s_site_kind"
SELECT site, kind, COUNT(*) AS cnt
FROM "SENSOR_001"
WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)
GROUP BY site, kind;

CREATE OR REPLACE REFERENCE TABLE "t_sites" (
  site VARCHAR(8) PRIMARY KEY
);
INSERT INTO "t_sites" VALUES ('north');
CREATE OR REPLACE STREAM "s_hot" (device VARCHAR(16), site VARCHAR(8));
CREATE OR REPLACE PUMP "p_hot" AS
INSERT INTO "s_hot"
SELECT r.device, r.site
FROM "SENSOR_001" AS r
JOIN "t_sites" t
ON r.site = t.site
WHERE r.kind = 'temp' AND r.reading > CAST(30 AS DOUBLE);

-- two ways of saying the same, one after the other, and both again: nothing happens
CREATE OR REPLACE STREAM "s_copy" (site VARCHAR(8), kind VARCHAR(10), cnt BIGINT);
CREATE OR REPLACE PUMP "p_copy" AS
INSERT INTO "s_copy"
SELECT * FROM "s_site_kind";
CREATE OR REPLACE STREAM "s_copy" (site VARCHAR(8), kind VARCHAR(10), cnt BIGINT);
create or replace pump p_copy as insert into s_copy select * from s_site_kind; // the same, in other clothes
CREATE OR REPLACE PUMP "p_copy" AS
INSERT INTO "s_copy"
SELECT site, kind, cnt FROM "s_site_kind";

INSERT INTO "SENSOR_001"
SELECT timestamp '2026-01-01 10:00:01' + i * interval '9 s', 'd' || i % 3, CASE WHEN i % 2 = 0 THEN 'temp' ELSE 'hum' END,
	CASE WHEN i % 3 = 0 THEN 'north' ELSE 'south' END, i * 4.5, i % 5, '\x0102'
FROM generate_series(0, 13) i;
SELECT kda.wait('"SENSOR_001"');
SELECT * FROM "s_site_kind" ORDER BY 1, 2, 3;
SELECT * FROM "s_copy" ORDER BY 1, 2, 3;
SELECT * FROM "s_hot" ORDER BY 1;
SELECT site, COUNT(*) c
FROM "SENSOR_001"
WHERE kind NOT IN ('hum')
WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)
GROUP BY site ORDER BY 1, 2;
-- once, too: with a NOTICE that names CREATE PUMP
INSERT INTO "s_hot"
SELECT STREAM device, MAX(site)
FROM "SENSOR_001"
WINDOWED BY TUMBLING (INTERVAL '1' HOUR)
GROUP BY device;
SELECT name, kind, state FROM kda.queries ORDER BY 1;
DROP STREAM "SENSOR_001", "s_site_kind", "s_hot", "s_copy" CASCADE;
DROP TABLE "t_sites";
