-- The extension is made, dropped and made again; nothing stays behind.
CREATE EXTENSION kda_stream;
DROP EXTENSION kda_stream;
SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'kda%';
CREATE EXTENSION kda_stream;
