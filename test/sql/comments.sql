-- Everything that the extension makes says what it is.
SELECT pg_describe_object(classid, objid, objsubid) AS without_comment
FROM pg_depend
WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'kda_stream')
	AND obj_description(objid, classid::regclass::name) IS NULL
ORDER BY 1;
SELECT count(*) > 40 AS there_are_some FROM pg_depend
WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'kda_stream');
SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'kda_stream';
