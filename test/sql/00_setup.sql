-- The extension is made, dropped and made again; nothing stays behind.
CREATE EXTENSION kda_stream;
DROP EXTENSION kda_stream;
SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'kda%';
CREATE EXTENSION kda_stream;
-- every object of ours says what it is
SELECT pg_describe_object(classid, objid, objsubid)
FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid AND d.refclassid = 'pg_extension'::regclass
WHERE e.extname = 'kda_stream' AND deptype = 'e'
	AND obj_description(objid, classid::regclass::name) IS NULL
	AND pg_describe_object(classid, objid, objsubid) !~ '\[\]$|^type kda|^type _state'
ORDER BY 1;
