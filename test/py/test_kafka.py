"""A real Kafka topic becomes a stream."""
import json
import random

import pytest
from harness import wait_until

EVENT = {"timestamp": "2025-11-10T02:31:12Z", "user_id": "u-1", "action": "click", "page": "/p/42",
         "device": "mobile", "country": "KR", "value": 1}


def rows(server, text, *args):
    return server.sql(text, *args)


def stream(server, name, columns, topic, **options):
    """CREATE STREAM on the broker, from the beginning."""
    options = {"start": "earliest", "topic": topic, **options}
    server.sql("CREATE STREAM %s (%s) SERVER msk OPTIONS (%s)" % (
        name, columns, ", ".join("%s '%s'" % (k, v.replace("'", "''")) for k, v in options.items())))


def refused(server, name):
    return server.sql("SELECT error_name, shard, position, message FROM kda.error_stream WHERE stream = %s::regclass "
                      "ORDER BY error_id", name)


def test_json_topic_to_live_view(server, kafka, msk):
    kafka.create_topic("t_live", 4)
    stream(server, "live", "rowtime timestamptz OPTIONS (path '$.timestamp'), country text, value int", "t_live")
    server.sql("CREATE CONTINUOUS VIEW live_v AS SELECT country, count(*) n, sum(value) s FROM live "
               "WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY country")
    kafka.produce("t_live", [dict(EVENT, value=i, country="KR" if i % 3 else "US") for i in range(1000)])
    assert server.value("SELECT kda.wait('live')")
    assert rows(server, "SELECT country, n, s FROM live_v ORDER BY 1") == [
        ("KR", 666, sum(i for i in range(1000) if i % 3)), ("US", 334, sum(i for i in range(1000) if not i % 3))]
    # more of them: the view follows
    kafka.produce("t_live", [dict(EVENT, value=5)])
    assert server.value("SELECT kda.wait('live')")
    assert rows(server, "SELECT n FROM live_v WHERE country = 'KR'") == [(667,)]
    # the buffer shows raw records, and the statistics count
    assert server.value("SELECT count(*) FROM live") == 1001
    assert rows(server, "SELECT state, records_in, records_failed FROM kda.streams WHERE stream = 'live'::regclass") == [
        ("running", 1001, 0)]
    assert server.value("SELECT sum(position::bigint) FROM kda.shards WHERE stream = 'live'::regclass") == 1001
    assert server.value("SELECT max(lag_records) FROM kda.shards WHERE stream = 'live'::regclass") == 0


def test_buffer_shows_records_in_their_order(server, kafka, msk):
    """Blocks of records lie where a page has room: the last ones, which are small, beside the first."""
    kafka.create_topic("t_order", 1)
    stream(server, "in_order", "n int, filler text", "t_order")
    server.sql("CREATE CONTINUOUS VIEW in_order_v AS SELECT n FROM in_order")
    r = random.Random(1)
    for n in range(16):
        kafka.produce("t_order", [{"n": n, "filler": "%x" % r.getrandbits(4 * (1700 if n < 12 else 200))}])
        assert server.value("SELECT kda.wait('in_order')")
    ring = server.value("SELECT ring FROM kda_storage.stream WHERE rel = 'in_order'::regclass")
    as_they_lie = server.value("SELECT array_agg(kda_seq ORDER BY ctid) FROM %s" % ring)
    assert len(as_they_lie) == 16 and as_they_lie != sorted(as_they_lie)
    assert server.value("SELECT array_agg(n) FROM in_order") == list(range(16))


def test_envelope_columns(server, kafka, msk):
    kafka.create_topic("t_meta", 2)
    stream(server, "meta", "v int, part int OPTIONS (meta 'shard'), pos bigint OPTIONS (meta 'position'), "
           "at timestamptz OPTIONS (meta 'arrival'), k text OPTIONS (meta 'key'), h jsonb OPTIONS (meta 'headers')", "t_meta")
    server.sql("CREATE CONTINUOUS VIEW meta_v AS SELECT v, part, pos, at, k, h, rowtime = at AS same FROM meta")
    p = kafka.producer()
    p.produce("t_meta", json.dumps({"v": 1}), key="key1", partition=1, headers=[("a", b"x"), ("b", b"\xff"), ("c", None)], timestamp=1700000000123)
    p.produce("t_meta", json.dumps({"v": 2}), partition=1)
    p.flush()
    assert server.value("SELECT kda.wait('meta')")
    got = rows(server, "SELECT v, part, pos, extract(epoch FROM at)::numeric, k, h, same FROM meta_v ORDER BY v")
    assert [float(got[0][3])] == [1700000000.123]
    assert got[0][:3] + got[0][4:] == (1, 1, 0, "key1", {"a": "x", "b": "\\xff", "c": None}, True)
    assert got[1][:3] + got[1][4:6] == (2, 1, 1, None, None)


def test_json_values(server, kafka, msk):
    """The rules of JSON to SQL; a bad record goes to the error stream, the others count."""
    kafka.create_topic("t_json")
    stream(server, "js", "i int, b bool, n numeric(5,2), f float8, t text, vc varchar(3), ts timestamptz, e timestamptz OPTIONS (time_format 'epoch'), "
           "ms timestamp OPTIONS (time_format 'epoch_ms'), d date, j jsonb, a int[], u uuid, deep text OPTIONS (path '$.x.y[1].z')", "t_json")
    server.sql("CREATE CONTINUOUS VIEW js_v AS SELECT * FROM js")
    good = [
        ({"i": 7.0, "b": True, "n": 12.345, "f": 1e2, "t": "é\n", "vc": "abc"}, "i, b, n::text, f, t, vc", (7, True, "12.35", 100.0, "é\n", "abc")),
        ({"i": "8", "b": "no", "n": "1.5", "f": "2.5", "t": 12.50, "vc": "ab  "}, "i, b, n::text, f, t, vc", (8, False, "1.50", 2.5, "12.5", "ab ")),
        ({"i": 1e2, "t": True, "b": None}, "i, t, b", (100, "true", None)),
        ({"t": {"a": [1, 2]}, "j": {"k": "v"}, "a": [1, None, 3]}, "t, j, a", ('{"a": [1, 2]}', {"k": "v"}, [1, None, 3])),
        ({"ts": "2025-01-02T03:04:05.678901+02:00", "e": 1700000000, "ms": 1700000000123, "d": "2025-06-01"},
         "ts::text, e::text, ms::text, d::text", ("2025-01-02 01:04:05.678901+00", "2023-11-14 22:13:20+00", "2023-11-14 22:13:20.123", "2025-06-01")),
        ({"ts": "2025-01-02 03:04", "e": "1700000000.5", "d": "June 1, 2025"}, "ts::text, e::text, d::text",
         ("2025-01-02 03:04:00+00", "2023-11-14 22:13:20.5+00", "2025-06-01")),
        ({"T": "by case", "x": {"y": [0, {"z": "found"}]}}, "t, deep", ("by case", "found")),
        ({"T": "by case", "t": "exact"}, "t", ("exact",)),
        ({"u": "00000000-0000-0000-0000-000000000001"}, "u::text", ("00000000-0000-0000-0000-000000000001",)),
    ]
    for i, (record, columns, expected) in enumerate(good):
        kafka.produce("t_json", [record])
        assert server.value("SELECT kda.wait('js')")
        assert rows(server, "SELECT %s FROM js_v OFFSET %d" % (columns, i)) == [expected], record
    assert refused(server, "js") == []
    kafka.produce("t_json", ['{"t": "a", "t": "b"}'])      # the last one counts
    bad = ['{"i": 1.5}', '{"i": 3000000000}', '{"b": 1}', '{"n": 12345}', '{"f": 1e999}', '{"vc": "abcd"}', '{"ts": 5}', '{"ts": "soon"}',
           '{"t": "\\u0000"}', '{"t": "\\ud800"}', '{"u": "x"}', '{"a": 5}', '{"a": ["x"]}', '{"j": "\\u0000"}', '{"i": [1]}']
    malformed = ['{"i": 1', '{"i": 01}', "[]", "5", "", '{"i": 1}}', b'{"t": "\xff"}', '{"t": "\x01"}', "{'i': 1}", '{"i": nul}', '{"i"; 1}']
    kafka.produce("t_json", bad + malformed + ['{"i": 99}'])
    assert server.value("SELECT kda.wait('js')")
    got = refused(server, "js")
    assert [r[0] for r in got] == ["conversion"] * len(bad) + ["malformed"] * (len(malformed) - 1)
    assert [int(r[2]) for r in got] == [i + len(good) + 1 for i, r in enumerate(bad + malformed) if r != ""]
    assert rows(server, "SELECT i FROM js_v WHERE i = 99") == [(99,)]
    assert rows(server, "SELECT count(*) FROM js_v") == [(len(good) + 2,)]
    assert rows(server, "SELECT records_in, records_failed, records_skipped FROM kda.streams WHERE stream = 'js'::regclass") == [
        (len(good) + 2 + len(bad) + len(malformed), len(bad) + len(malformed) - 1, 1)]


def test_limits(server, kafka, msk):
    kafka.create_topic("t_limits", config={"max.message.bytes": "30000000"})
    stream(server, "limits", "v jsonb", "t_limits")
    server.sql("CREATE CONTINUOUS VIEW limits_v AS SELECT v FROM limits")
    kafka.produce("t_limits", ['{"v": %s}' % ("[" * 511 + "]" * 511), '{"v": %s}' % ("[" * 600 + "]" * 600),
                               '{"v": "%s"}' % ("x" * 17000000), '{"v": "%s"}' % ("x" * 1000000)],
                  message_max_bytes=30000000)
    assert server.value("SELECT kda.wait('limits')")
    assert [r[0] for r in refused(server, "limits")] == ["too_large", "too_large"]
    assert server.value("SELECT count(*) FROM limits_v") == 2
    # what is kept of a refused record is bounded
    assert server.value("SELECT max(length(data_row)) FROM kda.error_stream WHERE stream = 'limits'::regclass") <= 65536


def test_row_path(server, kafka, msk):
    kafka.create_topic("t_rows")
    stream(server, "rp", "a int, b text, whole jsonb OPTIONS (path '$')", "t_rows", row_path="$.items[*]")
    server.sql("CREATE CONTINUOUS VIEW rp_v AS SELECT a, b, whole FROM rp")
    kafka.produce("t_rows", [{"items": [{"a": 1, "b": "x"}, {"a": 2}]}, {"items": []}, {"other": 1}, {"items": [{"a": 3}, {"a": "bad"}]}])
    assert server.value("SELECT kda.wait('rp')")
    assert rows(server, "SELECT a, b, whole FROM rp_v ORDER BY a") == [(1, "x", {"a": 1, "b": "x"}), (2, None, {"a": 2})]
    assert [(r[0], r[2]) for r in refused(server, "rp")] == [("conversion", "3")]


def test_csv(server, kafka, msk):
    kafka.create_topic("t_csv")
    stream(server, "c", "a int, b text, c text", "t_csv", format="csv", delimiter=";", null="NULL")
    server.sql("CREATE CONTINUOUS VIEW c_v AS SELECT a, b, c FROM c")
    kafka.produce("t_csv", ['1;x;y', '2;"a;""q""\nz";NULL\r\n3;"NULL";;ignored\n\n', '4;too few', '5;"open', 'x;y;z', "", '6;;'])
    assert server.value("SELECT kda.wait('c')")
    assert rows(server, "SELECT a, b, c FROM c_v ORDER BY a") == [
        (1, "x", "y"), (2, 'a;"q"\nz', None), (3, "NULL", ""), (6, "", "")]
    assert [(r[0], r[2]) for r in refused(server, "c")] == [("malformed", "2"), ("malformed", "3"), ("conversion", "4")]

    kafka.create_topic("t_csvh")
    stream(server, "ch", "a int, b text", "t_csvh", format="csv", header="true")
    server.sql("CREATE CONTINUOUS VIEW ch_v AS SELECT a, b FROM ch")
    kafka.produce("t_csvh", ['B,z,a\nbee,0,1\n', 'a\n2'])
    assert server.value("SELECT kda.wait('ch')")
    assert rows(server, "SELECT a, b FROM ch_v ORDER BY a") == [(1, "bee"), (2, None)]


def test_text_and_bytea(server, kafka, msk):
    kafka.create_topic("t_raw")
    stream(server, "as_text", "line text, pos bigint OPTIONS (meta 'position')", "t_raw", format="text")
    stream(server, "as_bytea", "data bytea", "t_raw", format="bytea")
    server.sql("CREATE CONTINUOUS VIEW text_v AS SELECT line FROM as_text; CREATE CONTINUOUS VIEW bytea_v AS SELECT data FROM as_bytea")
    kafka.produce("t_raw", ["hello\nworld", b"\x00\xff"])
    assert server.value("SELECT kda.wait('as_text')") and server.value("SELECT kda.wait('as_bytea')")
    assert rows(server, "SELECT line FROM text_v") == [("hello\nworld",)]
    assert [bytes(r[0]) for r in rows(server, "SELECT data FROM bytea_v")] == [b"hello\nworld", b"\x00\xff"]
    assert [r[0] for r in refused(server, "as_text")] == ["malformed"]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compression(server, kafka, msk, codec):
    kafka.create_topic("t_" + codec)
    stream(server, "s_" + codec, "v int", "t_" + codec)
    server.sql("CREATE CONTINUOUS VIEW v_%s AS SELECT sum(v) s FROM s_%s" % (codec, codec))
    kafka.produce("t_" + codec, [{"v": i} for i in range(1000)], compression_type=codec)
    assert server.value("SELECT kda.wait('s_%s')" % codec)
    assert server.value("SELECT s FROM v_" + codec) == 499500


def test_start(server, kafka, msk):
    """earliest, latest and a timestamp."""
    kafka.create_topic("t_start")
    p = kafka.producer()
    for i, ms in enumerate((1700000000000, 1700000001000, 1700000002000)):
        p.produce("t_start", json.dumps({"v": i}), timestamp=ms)
    p.flush()
    for name, start in (("earliest", "earliest"), ("latest", "latest"), ("at", "2023-11-14 22:13:21+00")):
        stream(server, "st_" + name, "v int", "t_start", start=start)
        server.sql("CREATE CONTINUOUS VIEW stv_%s AS SELECT v FROM st_%s" % (name, name))
        assert server.value("SELECT kda.wait('st_%s')" % name)
    wait_until(lambda: server.value("SELECT count(*) FROM kda.shards WHERE stream = 'st_latest'::regclass") == 1, "latest to be known")
    kafka.produce("t_start", [{"v": 3}])
    for name, expected in (("earliest", [0, 1, 2, 3]), ("latest", [3]), ("at", [1, 2, 3])):
        assert server.value("SELECT kda.wait('st_%s')" % name)
        assert [r[0] for r in rows(server, "SELECT v FROM stv_%s ORDER BY v" % name)] == expected, name


def test_transactions_read_committed(server, kafka, msk):
    kafka.create_topic("t_tx")
    stream(server, "tx", "v int", "t_tx")
    server.sql("CREATE CONTINUOUS VIEW tx_v AS SELECT v FROM tx")
    p = kafka.producer(transactional_id="t1")
    p.init_transactions(30)
    for values, commit in (([1, 2], True), ([3], False), ([4], True)):
        p.begin_transaction()
        for v in values:
            p.produce("t_tx", json.dumps({"v": v}))
        p.flush()
        p.commit_transaction(30) if commit else p.abort_transaction(30)
    assert server.value("SELECT kda.wait('tx')")
    assert [r[0] for r in rows(server, "SELECT v FROM tx_v ORDER BY v")] == [1, 2, 4]


def test_sample(server, kafka, msk):
    kafka.create_topic("t_sample", 2)
    stream(server, "sam", "v int", "t_sample")
    kafka.produce("t_sample", [{"v": 1}, "broken"], partition=1)
    got = rows(server, "SELECT shard, position, row_json, error FROM kda.sample('sam', 5) ORDER BY position")
    assert got == [("1", "0", {"v": 1}, None), ("1", "1", None, got[1][3])]
    assert got[1][3].startswith("malformed")


def test_new_partitions_while_running(server, kafka, msk):
    kafka.create_topic("t_grow", 1)
    stream(server, "grow", "v int", "t_grow", start="latest")
    server.sql("CREATE CONTINUOUS VIEW grow_v AS SELECT count(*) n FROM grow")
    wait_until(lambda: server.value("SELECT count(*) FROM kda.shards WHERE stream = 'grow'::regclass") == 1, "the partition")
    kafka.add_partitions("t_grow", 3)
    for part in range(3):
        kafka.produce("t_grow", [{"v": 1}] * 10, partition=part)
    wait_until(lambda: server.value("SELECT n FROM grow_v") == 30, "records of all partitions")


def test_altered_server_and_user_mapping_are_followed(server, kafka):
    """A running stream connects anew when its server or its owner's mapping changes; nothing is read twice."""
    kafka.create_topic("t_altered")
    server.sql("""CREATE SERVER altered TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" '127.0.0.1:1')""")
    server.sql("CREATE STREAM altered_s (v int) SERVER altered OPTIONS (topic 't_altered', start 'earliest')")
    server.sql("CREATE CONTINUOUS VIEW altered_v AS SELECT count(*) n FROM altered_s")
    wait_until(lambda: server.value("SELECT last_error FROM kda.streams WHERE stream = 'altered_s'::regclass"), "the trouble to show")
    kafka.produce("t_altered", [{"v": i} for i in range(10)])
    server.sql("""ALTER SERVER altered OPTIONS (SET "bootstrap.servers" '%s')""" % kafka.address)
    assert server.value("SELECT kda.wait('altered_s')")
    assert server.value("SELECT n FROM altered_v") == 10
    # a mapping that cannot work, and none again
    server.sql("""ALTER SERVER altered OPTIONS (ADD "security.protocol" 'SASL_PLAINTEXT', ADD "sasl.mechanism" 'PLAIN')""")
    server.sql("""CREATE USER MAPPING FOR CURRENT_USER SERVER altered OPTIONS ("sasl.username" 'u', "sasl.password" 'p')""")
    wait_until(lambda: server.value("SELECT last_error FROM kda.streams WHERE stream = 'altered_s'::regclass"), "the trouble to show")
    kafka.produce("t_altered", [{"v": i} for i in range(5)])
    server.sql("DROP USER MAPPING FOR CURRENT_USER SERVER altered")
    server.sql("""ALTER SERVER altered OPTIONS (DROP "security.protocol", DROP "sasl.mechanism")""")
    assert server.value("SELECT kda.wait('altered_s')")
    assert server.value("SELECT n FROM altered_v") == 15
    server.sql("DROP SERVER altered CASCADE")


def test_bad_options_are_refused(server, kafka):
    import psycopg2

    def error(text):
        with pytest.raises(psycopg2.Error) as e:
            server.sql(text)
        return str(e.value)
    assert "bootstrap.servers" in error("CREATE SERVER x TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream")
    assert "cannot be set" in error("""CREATE SERVER x TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" 'x', "enable.auto.commit" 'true')""")
    assert "has no type" in error("CREATE SERVER x FOREIGN DATA WRAPPER kda_stream")
    assert "not part of this release" in error("CREATE SERVER x TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream")
    text = error("""CREATE SERVER x TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" 'x', "sasl.password" 'geheim')""")
    assert "user mapping" in text and "geheim" not in text
    server.sql("""CREATE SERVER secure TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS ("bootstrap.servers" 'x')""")
    text = error("""CREATE USER MAPPING FOR CURRENT_USER SERVER secure OPTIONS ("sasl.passwort" 'geheim')""")
    assert "geheim" not in text
    server.sql("""CREATE USER MAPPING FOR CURRENT_USER SERVER secure OPTIONS ("sasl.username" 'u', "sasl.password" 'geheim')""")
    # neither in the log (but for what log_statement would write)
    assert "geheim" not in server.log_text()
    server.sql("DROP SERVER secure CASCADE")
