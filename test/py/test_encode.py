"""From columns to bytes: the same as PostgreSQL itself says them, whatever the session's settings are."""
import io
import os
import random

import psycopg2
import pytest
from harness import LONG

ODD = ["", " ", "\\.", "NULL", "null", '"', "a,b;c", "\\", "\r\n", "\t\x01\x1f\x7f", "é€😀", "x" * 15 + '"', "y" * 16 + "\n" + "z" * 40, "k" * 10000 + "\x02"]
TIMES = ["infinity", "-infinity", "0044-03-15 12:34:56.789 BC", "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999", "10000-01-01 00:00:00",
         "1969-12-31 23:59:59.5", "2000-01-01 00:00:00", "2026-03-29 01:30:00.000001"]


def digits(rnd, n):
    return "".join(rnd.choice("0123456789") for _ in range(n))


def text(rnd):
    return rnd.choice(ODD) if rnd.random() < 0.3 else "".join(rnd.choice("ab\",;\\\n\u00e9\u4e2d ") for _ in range(rnd.randrange(30)))


def number(rnd):
    return rnd.choice(["0", "NaN", "-0.000", "1e-20", "-" + digits(rnd, 40) + "." + digits(rnd, 30), digits(rnd, 4) + "." + digits(rnd, 2), "1e300"])


def double(rnd):
    return rnd.choice(["0", "-0", "NaN", "Infinity", "-Infinity", "1e300", "5e-324", "1e15", "123456789012345680", repr(rnd.uniform(-1e6, 1e6))])


def moment(rnd):
    return rnd.choice(TIMES) if rnd.random() < 0.2 else "%04d-%02d-%02d %02d:%02d:%02d.%s" % (
        rnd.randrange(1, 9999), rnd.randrange(1, 13), rnd.randrange(1, 29), rnd.randrange(24), rnd.randrange(60), rnd.randrange(60), digits(rnd, rnd.randrange(1, 7)))


def document(rnd, depth=2):
    kind = rnd.randrange(6 if depth else 4)
    if kind == 4:
        return "[%s]" % ", ".join(document(rnd, depth - 1) for _ in range(rnd.randrange(3)))
    if kind == 5:
        return "{%s}" % ", ".join('"k%d" : %s' % (i, document(rnd, depth - 1)) for i in range(rnd.randrange(3)))
    return ["null", "true", '"a\\u00e9\\n"', "-1.50"][kind]


def one_of(*values):
    return lambda rnd: rnd.choice(values)


# column type: a value of it as text
TYPES = {
    "bool": one_of("t", "f"),
    "int2": one_of("-32768", "0", "32767"),
    "int4": one_of("-2147483648", "7", "2147483647"),
    "int8": one_of("-9223372036854775808", "9223372036854775807", "10"),
    "float4": lambda rnd: one_of("NaN", "-Infinity", "1e-40", "16777216", "0.1", "1e37", repr(rnd.uniform(-9, 9)))(rnd),
    "float8": double,
    "numeric": number,
    "numeric(12,3)": lambda rnd: digits(rnd, 5) + "." + digits(rnd, 3),
    "text": text,
    "varchar": text,
    "char(5)": one_of("", "ab", 'a"\\'),
    "name": one_of("a", 'b"'),
    "bytea": lambda rnd: "\\x" + rnd.randbytes(rnd.randrange(40)).hex(),
    "uuid": lambda rnd: rnd.randbytes(16).hex(),
    "date": one_of("infinity", "-infinity", "0044-03-15 BC", "0001-01-01", "9999-12-31", "10000-01-01", "5874897-12-31", "2024-02-29", "1900-03-01"),
    "time": one_of("00:00", "23:59:59.999999", "24:00"),
    "timetz": one_of("10:00+09", "23:59:59.5-03:30"),
    "timestamp": moment,
    "timestamptz": moment,
    "timestamptz(0)": moment,
    "interval": one_of("1 year 2 months -3 days 04:05:06.7", "-1 day", "0"),
    "json": document,
    "jsonb": document,
    "inet": one_of("10.0.0.1", "::1/64"),
    "bit varying": one_of("", "1010"),
    "oid": one_of("0", "4294967295"),
    "point": one_of("(1,-2.5)"),
    "int4range": one_of("empty", "[1,5)", "(,7)"),
    "tstzrange": one_of("[2026-01-01 00:00+00,2026-07-01 12:00+00)"),
    "tstzmultirange": one_of("{}", "{[2026-01-01 00:00+00,2026-07-01 12:00+00)}"),
    "tsvector": one_of("'a':1 'b\"':2"),
    "mood": one_of("sad", 'o"k'),
    "spoken": one_of("yes", "no"),
    "positive": one_of("1", "99"),
    "few": one_of("{}", "{1,NULL,3}"),
    "pair": one_of('(1,"x ""y"" é","2026-01-01 10:00+00",)', "(,,,)", '(2,"","infinity","(1,2)")'),
    "int4[]": one_of("{}", "{1,NULL}", "{{1,2},{3,4}}", "[5:6]={1,2}", "{{{1},{2}},{{3},{4}}}"),
    "text[]": one_of("{}", '{"a,b",NULL,"c\\"d\\\\"}'),
    "timestamptz[]": one_of('{"2026-01-01 10:00:00.5+00",infinity,NULL}'),
    "jsonb[]": one_of('{"{\\"a\\": 1}",NULL}'),
    "spoken[]": one_of("{yes,NULL}"),
    "pair[]": one_of('{"(1,x,,)",NULL}'),
    "int2vector": one_of("1 2 3", ""),
}

PLAIN = "SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; SET bytea_output = 'hex'; SET TimeZone = 'UTC'"
ODD_SETTINGS = "SET DateStyle = 'German, DMY'; SET IntervalStyle = 'sql_standard'; SET extra_float_digits = -3; SET bytea_output = 'escape'; SET TimeZone = 'Asia/Kathmandu'"


# what JSON says of it is not what the type's input function takes
ONE_WAY = {"spoken", "spoken[]", "int2vector"}


@pytest.fixture(scope="module")
def rows(server):
    """A stream for each format over columns of all types, and a table of random rows."""
    rnd = random.Random(os.environ.get("KDA_SEED", "encode"))
    server.sql("""
        CREATE SERVER nowhere TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" 'localhost:1');
        CREATE TYPE mood AS ENUM ('sad', 'o"k'); CREATE TYPE spoken AS ENUM ('yes', 'no');
        CREATE FUNCTION said(spoken) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT json_build_object('said', $1::text) $$;
        CREATE CAST (spoken AS json) WITH FUNCTION said(spoken);
        CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE DOMAIN few AS int[];
        CREATE TYPE pair AS (a int, "b""c" text, c timestamptz, d point)""")
    for name, options, types in (("js", "format 'json'", TYPES), ("cs", "format 'csv', delimiter ';', \"null\" 'NULL'", TYPES),
                                 ("back", "format 'json'", TYPES.keys() - ONE_WAY)):
        server.sql("CREATE STREAM %s (dropped int, %s) SERVER nowhere OPTIONS (%s); ALTER FOREIGN TABLE %s DROP dropped" % (
            name, ", ".join('"%s" %s' % (t, t) for t in types), options, name))
    server.sql("CREATE TABLE r (i serial, j js, c cs)")
    conn = server.connect()
    cur = conn.cursor()
    cur.execute(PLAIN)
    for _ in range(3000 if LONG else 300):
        values = [None if rnd.random() < 0.1 else make(rnd) for make in TYPES.values()]
        cur.execute("INSERT INTO r (j) VALUES (ROW(%s))" % ", ".join("%%s::%s" % t for t in TYPES), values)
    cur.execute("UPDATE r SET c = ROW((j).*)")
    conn.close()
    return server


@pytest.mark.parametrize("settings", [PLAIN, ODD_SETTINGS], ids=["plain", "odd"])
def test_json_is_what_to_jsonb_says(rows, settings):
    conn = rows.connect()
    cur = conn.cursor()
    cur.execute(settings)
    cur.execute("CREATE TEMP TABLE said AS SELECT i, convert_from(kda_storage.encode('js', j), 'UTF8') AS t FROM r")
    cur.execute(PLAIN)
    cur.execute("SELECT to_jsonb(j)::text, t FROM r JOIN said USING (i) WHERE to_jsonb(j) IS DISTINCT FROM t::jsonb")
    assert cur.fetchall() == []
    cur.execute("SELECT count(*), count(DISTINCT t) FROM said")
    assert min(cur.fetchone()) >= 300
    # and the stream reads what it has written; a JSON null is NULL, as a key that is missing
    cur.execute("""SELECT error_name, message, to_jsonb(j), d.r FROM r JOIN said USING (i), kda_storage.decode('back', convert_to(t, 'UTF8')) d
                   WHERE d.r IS NULL OR jsonb_strip_nulls(to_jsonb(j) - %s) IS DISTINCT FROM jsonb_strip_nulls(d.r::jsonb)""", (list(ONE_WAY),))
    assert cur.fetchall() == []
    conn.close()


@pytest.mark.parametrize("settings", [PLAIN, ODD_SETTINGS], ids=["plain", "odd"])
def test_csv_is_what_copy_says(rows, settings):
    conn = rows.connect()
    cur = conn.cursor()
    cur.execute(settings)
    cur.execute("CREATE TEMP TABLE said AS SELECT i, kda_storage.encode('cs', c) AS data FROM r")
    cur.execute(PLAIN)
    copied = io.BytesIO()
    cur.copy_expert("COPY (SELECT (c).* FROM r ORDER BY i) TO STDOUT (FORMAT csv, DELIMITER ';', NULL 'NULL')", copied)
    cur.execute("SELECT data FROM said ORDER BY i")
    lines = [bytes(line) for line, in cur.fetchall()]
    assert b"".join(line + b"\n" for line in lines) == copied.getvalue()
    cur.execute("""SELECT error_name, message, to_jsonb(c), d.r FROM r JOIN said USING (i), kda_storage.decode('cs', data) d
                   WHERE d.r IS NULL OR to_jsonb(c) IS DISTINCT FROM d.r::jsonb""")
    assert cur.fetchall() == []
    conn.close()


def encode(server, columns, values, options="format 'json'", types=None):
    """One row as it leaves a stream of these columns: text, None for a tombstone."""
    server.sql("CREATE SERVER IF NOT EXISTS nowhere TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" 'localhost:1')")
    server.sql("DROP FOREIGN TABLE IF EXISTS one; CREATE STREAM one (%s) SERVER nowhere OPTIONS (%s)" % (columns, options))
    data = server.value("SELECT kda_storage.encode('one', ROW(%s)::one)" % values)
    return None if data is None else bytes(data).decode()


def test_paths_are_nested_objects(server):
    """What the stream reads at a path, it writes there; columns of the envelope are not in the record."""
    assert encode(server, "v int, k text OPTIONS (meta 'key'), w int OPTIONS (path '$.a.b'), x text OPTIONS (path '$.a[''it s'']'), y int OPTIONS (path '$.\"c d\".e.f')",
                  "1, 'key', 2, '3', NULL") == '{"v":1,"a":{"b":2,"it s":"3"},"c d":{"e":{"f":null}}}'
    assert encode(server, "doc jsonb OPTIONS (path '$')", "'[1]'") == "[1]"
    assert encode(server, "v int", "7", "row_path '$[*]'") == '[{"v":7}]'
    assert encode(server, "v int OPTIONS (path '$.x.y')", "7", "row_path '$.a.items[*]'") == '{"a":{"items":[{"x":{"y":7}}]}}'
    assert encode(server, "v int", "7", "row_path '$.a.b'") == '{"a":{"b":{"v":7}}}'
    for columns, options, why in (("v int OPTIONS (path '$.a[0]')", "format 'json'", "element of an array"),
                                  ("v int OPTIONS (path '$.a'), w int OPTIONS (path '$.a.b')", "format 'json'", 'Column "v" is written there'),
                                  ("v int OPTIONS (path '$.a.b'), w int OPTIONS (path '$.a')", "format 'json'", "below it"),
                                  ("v int OPTIONS (path '$.w'), w int", "format 'json'", 'Column "v" is written there'),
                                  ("v jsonb OPTIONS (path '$'), w int", "format 'json'", 'Column "v" is written there'),
                                  ("w int, v jsonb OPTIONS (path '$')", "format 'json'", "below it"),
                                  ("v int", "row_path '$.a[*].b'", "row_path")):
        with pytest.raises(psycopg2.errors.FeatureNotSupported, match=why):
            encode(server, columns, "NULL" + ", NULL" * columns.count(", "), options)


def test_times_have_the_zone_of_the_stream(server):
    columns = "t timestamptz, l timestamp, d date, e timestamptz OPTIONS (time_format 'epoch'), m timestamp OPTIONS (time_format 'epoch_ms'), g date OPTIONS (time_format 'epoch')"
    values = "'2026-07-01 10:00:00.25+00', '2026-07-01 19:00', '2026-07-01', '1969-12-31 23:59:59.5+00', '2026-01-01 09:00:00.0015', '1970-01-02'"
    assert encode(server, columns, values, "time_zone 'Asia/Seoul'") == (
        '{"t":"2026-07-01T19:00:00.25+09:00","l":"2026-07-01T19:00:00","d":"2026-07-01","e":-0.5,"m":1767225600001.5,"g":54000}')
    assert encode(server, "t timestamptz", "'1900-01-01 00:00+00'", "time_zone 'Europe/Amsterdam', format 'csv'") == "1900-01-01 00:19:32+00:19:32"


def test_csv_with_header(server):
    assert encode(server, 'a int, "b;c" text, k text OPTIONS (meta \'key\')', "1, '', NULL", "format 'csv', delimiter ';', header 'true'") == 'a;"b;c"\n1;""'


def test_text_and_bytea(server):
    """One column as it is; NULL is a tombstone."""
    assert encode(server, "rowtime timestamptz, line text", "now(), E'a\"\\n'", "format 'text'") == 'a"\n'
    assert encode(server, "v numeric", "1.50", "format 'text'") == "1.50"
    assert encode(server, "v bool", "NULL", "format 'text'") is None
    assert encode(server, "v bytea", "'\\x00413c'", "format 'bytea'") == "\0A<"
    assert encode(server, "v bytea", "NULL", "format 'bytea'") is None


def test_what_fails_leaves_the_session_as_it_was(server):
    """A cast of users that raises: the settings are put back."""
    server.sql("""CREATE TYPE broken AS ENUM ('a'); CREATE FUNCTION breaks(broken) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken'; END $$;
                  CREATE CAST (broken AS json) WITH FUNCTION breaks(broken)""")
    conn = server.connect()
    cur = conn.cursor()
    cur.execute(ODD_SETTINGS)
    cur.execute("CREATE STREAM b (v broken) SERVER nowhere; SELECT now()::text, '1 day'::interval::text, 0.1::float8::text, '\\x00'::bytea::text")
    before = cur.fetchone()[1:]
    with pytest.raises(psycopg2.Error, match="broken"):
        cur.execute("SELECT kda_storage.encode('b', ROW('a')::b)")
    cur.execute("SELECT now()::text, '1 day'::interval::text, 0.1::float8::text, '\\x00'::bytea::text")
    now = cur.fetchone()
    assert now[1:] == before and now[0].endswith("+0545")
    conn.close()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_other_encodings_leave_as_utf8(server, encoding):
    """SQL_ASCII does not know what its bytes are: JSON takes those that are UTF-8."""
    name = "enc_" + encoding.lower()
    server.sql("CREATE DATABASE %s ENCODING '%s' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0" % (name, encoding))
    server.sql("""CREATE EXTENSION kda_stream; CREATE SERVER nowhere TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" 'localhost:1');
                  CREATE STREAM j (v text) SERVER nowhere; CREATE STREAM t (v text) SERVER nowhere OPTIONS (format 'text')""", dbname=name)
    same = "E'\\xfc'" if encoding == "LATIN1" else "E'\\xc3\\xbc'"
    assert bytes(server.value("SELECT kda_storage.encode('j', ROW(%s)::j)" % same, dbname=name)) == '{"v":"\u00fc"}'.encode()
    assert bytes(server.value("SELECT kda_storage.encode('t', ROW(%s)::t)" % same, dbname=name)) == "\u00fc".encode()
    if encoding == "SQL_ASCII":
        assert bytes(server.value("SELECT kda_storage.encode('t', ROW(E'\\xfc')::t)", dbname=name)) == b"\xfc"
        with pytest.raises(psycopg2.errors.CharacterNotInRepertoire):
            server.value("SELECT kda_storage.encode('j', ROW(E'\\xfc')::j)", dbname=name)
    server.sql("DROP DATABASE %s WITH (FORCE)" % name)
