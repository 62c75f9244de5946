-- Everything that the extension makes says what it is (18 counts the types of its tables and arrays, too).
SELECT pg_describe_object(classid, objid, objsubid) AS without_comment
FROM pg_depend
WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'kda_stream')
	AND obj_description(objid, classid::regclass::name) IS NULL
	AND NOT (classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type t WHERE t.oid = objid AND (t.typrelid <> 0 OR t.typelem <> 0)))
ORDER BY 1;
SELECT count(*) > 40 AS there_are_some FROM pg_depend
WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'kda_stream');
SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'kda_stream';
