"""Avro: what Java's reference implementation writes is read, what is written it reads; schemas change; records may be hostile."""
import datetime
import decimal
import json
import os
import random
import subprocess

import psycopg2
import pytest
from harness import LONG, WORK

PARTS = os.environ["KDA_AVRO_PARTS"]
decimal.getcontext().prec = 100
EPOCH = datetime.datetime(1970, 1, 1)


def java(*args, stdin=None):
    run = subprocess.run(["java", "-Xmx256m", "-jar", PARTS + "/avro-tools-1.11.4.jar", *args], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.returncode == 0, run.stderr.decode()[-2000:]
    return run.stdout


# ---- the least that there is to know of Avro to take files apart and to make them

def long(n):
    n = n << 1 if n >= 0 else (-n << 1) - 1
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7f | 0x80])
        n >>= 7
    return out + bytes([n])


def read_long(data, at):
    n = shift = 0
    while True:
        b = data[at]
        at += 1
        n |= (b & 0x7f) << shift
        shift += 7
        if not b & 0x80:
            return (n >> 1) ^ -(n & 1), at


def end_of(schema, data, at, names):
    """Where a value ends."""
    if isinstance(schema, list):
        branch, at = read_long(data, at)
        return end_of(schema[branch], data, at, names)
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind in names:
        schema = names[kind]
        kind = schema["type"]
    if kind == "record":
        names[schema["name"]] = schema
        for field in schema["fields"]:
            at = end_of(field["type"], data, at, names)
        return at
    if kind in ("int", "long", "enum"):
        return read_long(data, at)[1]
    if kind in ("string", "bytes"):
        n, at = read_long(data, at)
        return at + n
    if kind in ("array", "map"):
        while True:
            n, at = read_long(data, at)
            if n == 0:
                return at
            if n < 0:
                size, at = read_long(data, at)
                n = -n
            for _ in range(n):
                if kind == "map":
                    at = end_of("string", data, at, names)
                at = end_of(schema["items" if kind == "array" else "values"], data, at, names)
    return at + (schema["size"] if kind == "fixed" else {"null": 0, "boolean": 1, "float": 4, "double": 8}[kind])


def records_of(container, schema):
    """The records in an object container file that is not compressed."""
    assert container[:4] == b"Obj\x01"
    at = end_of({"type": "map", "values": "bytes"}, container, 4, {}) + 16
    found = []
    while at < len(container):
        n, at = read_long(container, at)
        _, at = read_long(container, at)
        for _ in range(n):
            end = end_of(schema, container, at, {})
            found.append(container[at:end])
            at = end
        at += 16
    return found


def container_of(records, schema_text):
    """Of records that we have written, for Java to read."""
    sync = b"kda_stream's own"
    meta = {"avro.schema": schema_text.encode(), "avro.codec": b"null"}
    head = b"Obj\x01" + long(len(meta)) + b"".join(long(len(k)) + k.encode() + long(len(v)) + v for k, v in meta.items()) + long(0) + sync
    return head + b"".join(long(1) + long(len(r)) + r + sync for r in records)


# ---- random schemas and values: (schema, make(rnd) → (as Avro's JSON, as PostgreSQL's))

def shortest(time):
    """Python writes six digits or none."""
    return time.rstrip("0").rstrip(".") if "." in time else time


def scalar(rnd, names):
    def simple(schema, make):
        return schema, lambda r: (lambda v: (v, v))(make(r))

    def text(r):
        return "".join(r.choice("ab\"\\\n é中😀") for _ in range(r.randrange(12)))

    def a_bytes(r, n=None):
        b = r.randbytes(r.randrange(9) if n is None else n)
        return b.decode("latin-1"), "\\x" + b.hex()

    def a_decimal(r):
        unscaled = r.choice([0, 1, -1, 127, 128, -128, -129, 255, 10**17, r.randrange(-10**30, 10**30)])
        size = (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
        return unscaled.to_bytes(size, "big", signed=True).decode("latin-1"), decimal.Decimal(unscaled).scaleb(-6)

    def moment(unit, zone):
        def make(r):
            t = EPOCH + datetime.timedelta(microseconds=r.randrange(-10**15, 10**16) // unit * unit)
            return (t - EPOCH) // datetime.timedelta(microseconds=unit), shortest(t.isoformat()) + zone
        return make

    def day(r):
        d = datetime.date(1970, 1, 1) + datetime.timedelta(r.randrange(-200000, 200000))
        return (d - datetime.date(1970, 1, 1)).days, d.isoformat()

    def clock(unit):
        def make(r):
            n = r.randrange(86400 * 10**6 // unit)
            return n, shortest((EPOCH + datetime.timedelta(microseconds=n * unit)).time().isoformat())
        return make
    n = len(names)
    names.append(n)
    return rnd.choice([
        simple("null", lambda r: None), simple("boolean", lambda r: r.random() < 0.5),
        simple("int", lambda r: r.choice([0, -1, 63, 64, 2**31 - 1, -2**31])), simple("long", lambda r: r.choice([0, 2**63 - 1, -2**63, 10**15])),
        simple("float", lambda r: r.choice([0.0, 0.5, -1.25, 3e38])), simple("double", lambda r: r.choice([0.1, -1e300, 5e-324])),
        simple("string", text), ("bytes", a_bytes), ({"type": "fixed", "name": "f%d" % n, "size": 5}, lambda r: a_bytes(r, 5)),
        simple({"type": "enum", "name": "e%d" % n, "symbols": ["A", "_b", "C1"]}, lambda r: r.choice(["A", "_b", "C1"])),
        ({"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 6}, a_decimal),
        ({"type": "int", "logicalType": "date"}, day),
        ({"type": "int", "logicalType": "time-millis"}, clock(1000)), ({"type": "long", "logicalType": "time-micros"}, clock(1)),
        ({"type": "long", "logicalType": "timestamp-millis"}, moment(1000, "+00:00")), ({"type": "long", "logicalType": "timestamp-micros"}, moment(1, "+00:00")),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, moment(1000, "")), ({"type": "long", "logicalType": "local-timestamp-micros"}, moment(1, "")),
        ({"type": "string", "logicalType": "uuid"}, lambda r: (lambda u: (u, u))("%08x-0000-4000-8000-%012x" % (r.getrandbits(32), r.getrandbits(48)))),
        ({"type": "int", "logicalType": "no such thing"}, lambda r: (7, 7)),
    ])


def branch_name(schema):
    return schema if isinstance(schema, str) else schema.get("name", schema["type"])


def any_type(rnd, names, depth):
    kind = rnd.randrange(9) if depth else 9
    if kind == 0:
        schema, make = any_type(rnd, names, depth - 1)
        return {"type": "array", "items": schema}, lambda r: tuple(map(list, zip(*[make(r) for _ in range(r.randrange(1, 4))]))) if r.random() < 0.8 else ([], [])
    if kind == 1:
        schema, make = any_type(rnd, names, depth - 1)

        def a_map(r):
            items = {"k%d é" % i: make(r) for i in range(r.randrange(3))}
            return {k: v[0] for k, v in items.items()}, {k: v[1] for k, v in items.items()}
        return {"type": "map", "values": schema}, a_map
    if kind in (2, 3):
        return record(rnd, names, depth - 1)
    if kind in (4, 5):
        schema, make = any_type(rnd, names, depth - 1)
        if isinstance(schema, list) or schema == "null":
            return schema, make
        first = rnd.random() < 0.5

        def maybe(r):
            if r.random() < 0.3:
                return None, None
            raw, said = make(r)
            return {branch_name(schema): raw}, said
        return ["null", schema] if first else [schema, "null"], maybe
    return scalar(rnd, names)


def record(rnd, names, depth):
    n = len(names)
    names.append(n)
    fields = [("f%d" % i, *any_type(rnd, names, depth)) for i in range(rnd.randrange(1, 6))]

    def make(r):
        values = {name: m(r) for name, _, m in fields}
        return {k: v[0] for k, v in values.items()}, {k: v[1] for k, v in values.items()}
    return {"type": "record", "name": "r%d" % n, "fields": [{"name": name, "type": schema} for name, schema, _ in fields]}, make


def same(a, b):
    """JSON that may differ in how numbers are written."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (int, float, decimal.Decimal)) and isinstance(b, (int, float, decimal.Decimal)) and not isinstance(a, bool) and not isinstance(b, bool):
        return a == b or (isinstance(b, float) and abs(float(a) - b) <= abs(b) * 1e-7)
    return a == b


@pytest.fixture(scope="module")
def nowhere(server):
    server.sql("CREATE SERVER nowhere TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" 'localhost:1')")
    return server


def stream(server, name, columns, schema=None, **options):
    if schema is not None:
        options["schema"] = schema if isinstance(schema, str) else json.dumps(schema)
    server.sql("DROP FOREIGN TABLE IF EXISTS %s; CREATE STREAM %s (%s) SERVER nowhere OPTIONS (format 'avro'%s)" % (
        name, name, columns, "".join(", %s '%s'" % (k, v.replace("'", "''")) for k, v in options.items())))


def decode(server, name, data):
    """A row as JSON, or (error_name, message)."""
    row, error, message = server.sql("SELECT r::text, error_name, message FROM kda_storage.decode(%s::regclass, %s)", name, psycopg2.Binary(data))[0]
    return (error, message) if error else json.loads(row, parse_float=decimal.Decimal)


def test_what_java_has_written_is_read(nowhere):
    rnd = random.Random(os.environ.get("KDA_SEED", "avro"))
    for n in range(100 if LONG else 8):
        schema, make = record(rnd, [], 4)
        values = [make(rnd) for _ in range(50)]
        path = "%s/avro_%d.avsc" % (WORK, n)
        with open(path, "w") as f:
            json.dump(schema, f)
        # escaped: the tool reads what is not in the encoding of its own
        container = java("fromjson", "--codec", "null", "--schema-file", path, "-", stdin="\n".join(json.dumps(raw) for raw, _ in values).encode())
        records = records_of(container, schema)
        assert len(records) == len(values)
        stream(nowhere, "whole", "doc jsonb OPTIONS (path '$')", schema)
        # one field alone: the others are skipped
        last = schema["fields"][-1]["name"]
        kind = [t for t in field_type if t != "null"][0] if isinstance(field_type := schema["fields"][-1]["type"], list) else field_type
        plain_bytes = kind == "bytes" or (isinstance(kind, dict) and kind["type"] == "fixed")
        stream(nowhere, "last", "doc " + ("bytea" if plain_bytes else "text") + " OPTIONS (path '$.r.%s'), after int" % last,
               {"type": "record", "name": "outer", "fields": [{"name": "r", "type": schema}, {"name": "after", "type": "int"}]})
        for data, (_, said) in zip(records, values):
            got = decode(nowhere, "whole", data)
            assert isinstance(got, dict) and same(got["doc"], said), (schema, said, got)
            got = decode(nowhere, "last", data + long(42))
            assert isinstance(got, dict) and got["after"] == 42, (schema, got)
            assert (got["doc"] is None) == (said[last] is None), (schema, said, got)


COLUMNS = """b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric, nd numeric(20,4), t text, c char(3), by bytea, u uuid, d date, tm time,
    ts timestamp, tz timestamptz, j jsonb, a int[], at text[], m mood, nested text OPTIONS (path '$.x.y'), other int OPTIONS (path '$.x.z')"""
ROWS = [
    ("true, -32768, 2147483647, -9223372036854775808, 0.1, 1e300, 1.50, -1234567890123456.7891, E'a\"\\\\ \u00e9', 'ab', '\\x00ff', "
     "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '1960-02-29', '23:59:59.999999', '1960-01-01 00:00:00.000001', '2026-01-01 10:00:00.5+00', '{\"a\": [1, null]}', "
     "'{1,NULL,3}', '{}', 'ok', 'deep', 7",
     {"b": True, "i2": -32768, "i4": 2147483647, "i8": -9223372036854775808, "f4": 0.1, "f8": 1e300, "n": "1.50",
      "nd": (-12345678901234567891).to_bytes(9, "big", signed=True).decode("latin-1"), "t": "a\"\\ \u00e9", "c": "ab ", "by": "\x00\xff",
      "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "d": -3594, "tm": 86399999999, "ts": -315619199999999, "tz": 1767261600500000, "j": "{\"a\": [1, null]}",
      "a": [{"int": 1}, None, {"int": 3}], "at": [], "m": "ok", "x": {"y": {"string": "deep"}, "z": {"int": 7}}}),
    ("false, NULL, 0, 0, 'NaN', '-Infinity', 'NaN', 0, '', '', '', NULL, '0001-01-01', '00:00', '0044-03-15 BC', '9999-12-31 23:59:59.999999+00', 'null', NULL, '{NULL}', NULL, NULL, NULL", None),
    (", ".join(["NULL"] * 22), None),
]


def test_what_is_written_java_reads(nowhere):
    """The schema is made from the columns; what the stream has written it reads again."""
    nowhere.sql("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    stream(nowhere, "w", COLUMNS)
    schema = nowhere.value("SELECT kda_storage.schema('w')")
    records = [bytes(nowhere.value("SELECT kda_storage.encode('w', ROW(%s)::w)" % values)) for values, _ in ROWS]
    path = WORK + "/avro_out.avro"
    with open(path, "wb") as f:
        f.write(container_of(records, schema))
    lines = [json.loads(line) for line in java("tojson", path).decode().splitlines()]
    assert len(lines) == len(records)
    names = {f["name"]: f["type"] for f in json.loads(schema)["fields"]}
    for line, data, (values, expected) in zip(lines, records, ROWS):
        if expected:
            for key, value in expected.items():
                got = line[key] if key == "x" else line[key][branch_name(names[key][1])]
                assert same(got, value), (key, got, value)
        assert nowhere.value("SELECT (SELECT r::jsonb FROM kda_storage.decode('w', %%s)) = jsonb_set(to_jsonb(ROW(%s)::w), '{j}', COALESCE(NULLIF(to_jsonb(ROW(%s)::w) -> 'j', 'null'), 'null'))" % (
            values, values), psycopg2.Binary(data)), (values, decode(nowhere, "w", data))
    assert all(v is None for v in lines[2].values() if not isinstance(v, dict)) and lines[2]["x"] == {"y": None, "z": None}


def test_a_schema_that_is_given_is_what_is_written(nowhere):
    fields = [("id", "long"), ("kind", {"type": "enum", "name": "k", "symbols": ["a", "b"]}), ("price", {"type": "fixed", "name": "p", "size": 4, "logicalType": "decimal", "precision": 8, "scale": 2}),
              ("at", {"type": "long", "logicalType": "timestamp-millis"}), ("Note", ["string", "null"]), ("unused", ["null", "int"]), ("raw", {"type": "fixed", "name": "r", "size": 2})]
    schema = {"type": "record", "name": "given", "fields": [{"name": n, "type": t} for n, t in fields]}
    stream(nowhere, "g", "note text, id int, at timestamptz, kind text, price numeric, raw bytea", schema)

    def encode(values):
        return bytes(nowhere.value("SELECT kda_storage.encode('g', ROW(%s)::g)" % values))
    data = encode("'x', 5, '1969-12-31 23:59:59.9995+00', 'b', -1.5, '\\x0102'")
    assert data == long(5) + long(1) + b"\xff\xff\xff\x6a" + long(-1) + long(0) + long(1) + b"x" + long(0) + b"\x01\x02"
    path = WORK + "/avro_given.avro"
    with open(path, "wb") as f:
        f.write(container_of([data], json.dumps(schema)))
    assert json.loads(java("tojson", path)) == {"id": 5, "kind": "b", "price": "\u00ff\u00ff\u00ffj", "at": -1, "Note": {"string": "x"}, "unused": None, "raw": "\x01\x02"}
    for values, why in (("NULL, NULL, now(), 'a', 1, '\\x0102'", "id.*null"), ("NULL, 1, now(), 'c', 1, '\\x0102'", "kind.*\"c\""), ("NULL, 1, now(), 'a', 1.234, '\\x0102'", "more than 2 digits"),
                        ("NULL, 1, now(), 'a', 'NaN', '\\x0102'", "finite"), ("NULL, 1, now(), 'a', 1234567.89, '\\x0102'", "more than 8 digits"), ("NULL, 1, 'infinity', 'a', 1, '\\x0102'", "infinity"),
                        ("NULL, 1, now(), 'a', 1, '\\x01'", "fixed size")):
        with pytest.raises(psycopg2.errors.DataError, match="(?s)" + why):
            encode(values)
    for columns, why in (("id int, kind text, price numeric, at timestamptz, raw bytea, more text", "\"more\" is no field"), ("id text", "cannot be written as the schema wants it"), ("at timestamptz", "field \"id\" of the schema has no column")):
        stream(nowhere, "bad", columns, schema)
        with pytest.raises(psycopg2.Error, match=why):
            nowhere.value("SELECT kda_storage.schema('bad')")
    stream(nowhere, "named", '"odd name" int, ok int OPTIONS (path \'$.a.b\')')
    with pytest.raises(psycopg2.errors.InvalidName, match="odd name"):
        nowhere.value("SELECT kda_storage.schema('named')")


def test_columns_find_their_fields(nowhere):
    """By name, in any case; by alias; at a path through records, unions and maps; what is not there is NULL."""
    schema = {"type": "record", "name": "r", "fields": [
        {"name": "UserId", "type": "int"}, {"name": "renamed", "aliases": ["old_name"], "type": "string"},
        {"name": "inner", "type": ["null", {"type": "record", "name": "i", "fields": [{"name": "x", "type": "long"}, {"name": "m", "type": {"type": "map", "values": "int"}}]}]}]}
    stream(nowhere, "f", "userid bigint, old_name text, x text OPTIONS (path '$.inner.x'), k int OPTIONS (path '$.inner.m.k'), inner_ jsonb OPTIONS (path '$.inner'), missing int", schema)
    inner = long(1) + long(9) + long(2) + long(1) + b"j" + long(1) + long(1) + b"k" + long(2) + long(0)
    assert decode(nowhere, "f", long(7) + long(1) + b"x" + inner) == {"userid": 7, "old_name": "x", "x": "9", "k": 2, "inner_": {"x": 9, "m": {"j": 1, "k": 2}}, "missing": None}
    assert decode(nowhere, "f", long(7) + long(1) + b"x" + long(0)) == {"userid": 7, "old_name": "x", "x": None, "k": None, "inner_": None, "missing": None}
    # a value that is no record
    stream(nowhere, "p", "v int OPTIONS (path '$')", '"int"')
    assert decode(nowhere, "p", long(-5)) == {"v": -5}
    stream(nowhere, "p", "v int", "int")
    assert decode(nowhere, "p", long(-5))[0] == "malformed"


def test_a_record_may_hold_itself(nowhere):
    schema = {"type": "record", "name": "list", "fields": [{"name": "v", "type": "int"}, {"name": "next", "type": ["null", "list"]}]}
    stream(nowhere, "l", "v int, second int OPTIONS (path '$.next.v'), next jsonb", schema)
    assert decode(nowhere, "l", long(1) + long(1) + long(2) + long(1) + long(3) + long(0)) == {"v": 1, "second": 2, "next": {"v": 2, "next": {"v": 3, "next": None}}}
    assert decode(nowhere, "l", (long(1) + long(1)) * 100000)[0] in ("malformed", "too_large")
    endless = {"type": "record", "name": "e", "fields": [{"name": "e", "type": "e"}]}
    stream(nowhere, "e", "e jsonb", endless)
    assert decode(nowhere, "e", b"\0")[0] == "too_large"


HOSTILE = {"type": "record", "name": "h", "fields": [
    {"name": "a", "type": {"type": "array", "items": "null"}}, {"name": "m", "type": {"type": "map", "values": "int"}}, {"name": "s", "type": "string"}, {"name": "b", "type": "bytes"},
    {"name": "u", "type": ["null", "int"]}, {"name": "e", "type": {"type": "enum", "name": "en", "symbols": ["A"]}}, {"name": "t", "type": "boolean"}]}
PARTS_OF = [long(0), long(0), long(1) + b"x", long(0), long(0), long(0), b"\x01"]


@pytest.mark.parametrize("columns", ["a jsonb, m jsonb, s text, b bytea, u int, e text, t bool", "other int"], ids=["read", "skipped"])
def test_hostile_records_are_refused(nowhere, columns):
    stream(nowhere, "h", columns, HOSTILE)
    whole = b"".join(PARTS_OF)
    assert isinstance(decode(nowhere, "h", whole), dict)
    for i, bad in ((0, long(2**62)), (0, long(-2**63)), (0, long(-1) + long(2**60)), (0, long(-1) + long(-1)), (0, b"\xff" * 12), (1, long(2**40)), (1, long(1) + long(-5)), (2, long(-1)), (2, long(2**40)), (3, long(2**31)),
                   (4, long(2)), (4, long(-1)), (5, long(1)), (5, long(-1))):
        data = b"".join(PARTS_OF[:i] + [bad] + PARTS_OF[i + 1:])
        got = decode(nowhere, "h", data)
        assert isinstance(got, tuple) and got[0] in ("malformed", "too_large"), (i, bad, got)
    for n in range(1, len(whole)):
        assert decode(nowhere, "h", whole[:n])[0] == "malformed"
    assert decode(nowhere, "h", whole + b"\0")[0] == "malformed"
    if columns != "other int":
        assert decode(nowhere, "h", whole.replace(b"x", b"\xff"))[0] == "malformed"
        assert decode(nowhere, "h", whole[:-1] + b"\x02")[0] == "malformed"


def test_bad_schemas_are_refused(nowhere):
    deep = "int"
    for _ in range(70):
        deep = {"type": "array", "items": deep}
    for schema, why in ((deep, "deeper than 64"), ([["null"]], "directly in a union"), ({"type": "record", "name": "r", "fields": [{"name": "a-b", "type": "int"}]}, "no valid name"),
                        ({"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}] * 2}, "two fields"), ({"type": "fixed", "name": "f", "size": -1}, "valid size"),
                        ("no_such_type", "not defined"), ({"type": "enum", "name": "e", "symbols": [1]}, "symbol"), (["int"] * 30000, "20000"), ({"type": "array"}, "no items"),
                        (["int", {"type": "enum", "name": "e", "symbols": []}, {"type": "fixed", "name": "e", "size": 1}], "twice")):
        with pytest.raises(psycopg2.Error, match="(?s)invalid Avro schema.*" + why):
            stream(nowhere, "x", "v int", json.dumps(schema))
    with pytest.raises(psycopg2.Error, match="too deep|stack depth|deeper"):
        stream(nowhere, "x", "v int", "[" * 100000)


