"""The sink that writes to Kinesis: its callbacks in a server process, against both emulators behind the gate."""
import base64
import collections
import json
import os
import random
import subprocess

import pytest
from aws_parts import Gate, Program, answer, build_program, bytes_of, cut, drip, failing, field, lost, no_json, reset
from harness import WORK, Postgres
from kinesis_parts import ACCESS_KEY_ID, LARGEST_HASH_KEY, REGION, SECRET_ACCESS_KEY, kinesalite, kinesis_local, partial, throttled
from test_aws_credentials import CONNECTORS


# Bodies and answers, outside of a server.

@pytest.fixture(scope="module")
def put():
    program = Program(build_program("kinesis_put", ["kinesis_put", "aws_reply", "secret", "http", "endpoint", "threads"], ["curl", "ssl"]))
    yield program
    program.stop()


def body(put, records, stream="s", member="kda_seq", first=7):
    """records: (value, key, hash key)."""
    said = put.ask("put", first, field(stream), field(member), *[field(f) for r in records for f in r])
    return json.loads(bytes_of(said[0]))


def data(put, value, **more):
    return base64.b64decode(body(put, [(value, None, None)], **more)["Records"][0]["Data"], validate=True)


def test_body(put):
    assert body(put, [("{}", "k", None), ("{}", None, "12")], member=None) == {
        "StreamName": "s", "Records": [{"Data": "e30=", "PartitionKey": "k"}, {"Data": "e30=", "PartitionKey": "8", "ExplicitHashKey": "12"}]}
    arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/s"
    assert body(put, [], stream=arn) == {"StreamARN": arn, "Records": []}
    key = 'q"b\\s/\n\t\x01\x7f é 🙂'
    assert body(put, [("{}", key, None)])["Records"][0]["PartitionKey"] == key


def test_the_number_is_the_first_member(put):
    assert data(put, '{"a":1}') == b'{"kda_seq":7,"a":1}'
    assert data(put, ' {\n "a":1}') == b'{"kda_seq":7,"a":1}'
    assert data(put, "{}") == data(put, "{ }") == b'{"kda_seq":7}'
    assert data(put, '{"a":1}', member='a "quoted" one') == b'{"a \\u0022quoted\\u0022 one":7,"a":1}'
    assert data(put, '{"a":1}', first=2 ** 63 - 1) == b'{"kda_seq":9223372036854775807,"a":1}'
    assert data(put, '{"a":1}', member=None) == b'{"a":1}'
    # what is no object has no place for it
    for value in ("", " ", "[1]", '"{"', "1"):
        assert data(put, value) == value.encode()
    assert data(put, "{") == b'{"kda_seq":7'


def test_every_length_is_encoded(put):
    for n in [*range(12), 3070, 3071, 3072, 3073, 3074, 6144, 100000]:
        text = "".join(random.Random(n).choices("abc{}\":,é", k=n))
        assert data(put, text) == text.encode()
        assert json.loads(data(put, json.dumps({"x": text}))) == {"kda_seq": 7, "x": text}


def results(put, n, answer):
    failed, which, code, message = put.ask("results", n, field(answer if isinstance(answer, (str, bytes)) else json.dumps(answer)))
    return int(failed), which[1:], bytes_of(code).decode(), bytes_of(message).decode()


FINE = {"SequenceNumber": "1", "ShardId": "shardId-000000000000"}
THROTTLED = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded for shard shardId-000000000001"}


def test_results(put):
    assert results(put, 2, {"FailedRecordCount": 0, "Records": [FINE, FINE]}) == (0, "nn", "", "")
    assert results(put, 3, {"FailedRecordCount": 2, "Records": [FINE, THROTTLED, {"ErrorCode": "InternalFailure"}]}) == (
        2, "nyy", "ProvisionedThroughputExceededException", "ProvisionedThroughputExceededException: Rate exceeded for shard shardId-000000000001")
    assert results(put, 1, {"Records": [{**FINE, "ErrorCode": None, "ErrorMessage": None}], "EncryptionType": "NONE"})[:2] == (0, "n")
    assert results(put, 0, {"Records": []})[0] == 0
    # who says nothing of a record has not said that it is there
    assert results(put, 2, {"Records": [FINE, {}]}) == (1, "ny", "", "the answer does not say whether a record was put")
    none = "the answer to PutRecords does not have a result for each of 2 records"
    for answer in [{"Records": [FINE]}, {"Records": [FINE] * 3}, {}, "", "{", "[]", '{"Records":', '{"Records":[', '{"Records":[%s,' % json.dumps(FINE), {"Records": {"a": 1}},
                   '{"Records":[%s,%s' % (json.dumps(FINE), json.dumps(FINE)), b"\x00\xff", '{"Records":' + "[" * 100000]:
        assert results(put, 2, answer) == (-1, "", "", none)
    assert results(put, 1, {"Records": [{"ErrorCode": "x" * 5000, "ErrorMessage": "\n\u00e9" * 5000}]})[0] == 1


def test_answers_cut_anywhere(put):
    whole = json.dumps({"FailedRecordCount": 1, "Records": [FINE, THROTTLED]})
    for n in range(len(whole) - 2):
        assert results(put, 2, whole[:n])[0] == -1
    chance = random.Random(1)
    for _ in range(2000):
        bad = bytearray(whole.encode())
        for _ in range(chance.randint(1, 5)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        results(put, 2, bytes(bad))


def test_refusals(put):
    def refused(code, message="", status=400, n=3):
        said = put.ask("refused", n, status, field(code), field(message))
        return said[0] == "1", int(said[1])
    long = "1 validation error detected: Value 'x' at 'records.%s.member.data' failed to satisfy constraint: Member must have length less than or equal to 1048576"
    assert refused("ValidationException", long % 3) == (True, 2)
    for none in ("0", "4", "99999999999999999999", "", "-1"):
        assert refused("ValidationException", long % none) == (True, -1)
    assert refused("InvalidArgumentException", "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was 9") == (True, -1)
    assert refused("InvalidArgumentException", "StreamARN is of another region") == (False, -1)
    assert refused("", "HTTP status 413", 413) == (True, -1)
    assert refused("ResourceNotFoundException", "Stream s under account 1 not found.") == (False, -1)
    assert refused("KMSDisabledException") == (False, -1)


# The sink in a server.

@pytest.fixture(scope="module")
def local():
    part = kinesis_local()
    yield part
    part.stop()


@pytest.fixture(scope="module")
def strict():
    part = kinesalite()
    yield part
    part.stop()


@pytest.fixture(params=["local", "strict"])
def kinesis(request):
    return request.getfixturevalue(request.param)


class Taker:
    """Takes calls as large as AWS takes them, which the emulators do not, or not in a minute; keeps how large the records were."""

    def __init__(self):
        self.gate = Gate({ACCESS_KEY_ID: (SECRET_ACCESS_KEY, None)}, self.take)
        self.url = self.gate.url
        self.calls = []

    def take(self, request):
        records = json.loads(request["body"])["Records"]
        sizes = [len(base64.b64decode(r["Data"])) + len(r["PartitionKey"]) for r in records]
        if len(records) > 500 or sum(sizes) > 10 * 1024 * 1024:
            return self.gate.error("400 Bad Request", "InvalidArgumentException", "Records size exceeds 10 MB limit")
        self.calls.append(sizes)
        return [answer(json.dumps({"FailedRecordCount": 0, "Records": [{"SequenceNumber": "1", "ShardId": "shardId-000000000000"}] * len(records)}))]


@pytest.fixture
def taker():
    taker = Taker()
    yield taker
    taker.gate.stop()


@pytest.fixture(scope="module")
def server():
    pg = Postgres("test_kinesis_sink").start()
    build, library = os.path.join(WORK, "build"), os.path.join(WORK, "sink_module.so")
    include = subprocess.check_output([os.environ["KDA_PG_CONFIG"], "--includedir-server"], text=True).strip()
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-sanitize=alignment"] if os.environ.get("KDA_ASAN") else []
    subprocess.run(["gcc", "-shared", "-fPIC", "-fvisibility=hidden", "-g", "-O1", "-Wall", "-Werror", *sanitizers, "-D_GNU_SOURCE", "-I", build + "/src", "-I", include,
                    "-o", library, build + "/test/aws/sink.c", *[build + "/src/connector/%s.c" % c for c in CONNECTORS + ["aws_access", "aws_options", "kinesis_put", "kinesis_sink"]],
                    "-lcurl", "-lssl", "-lcrypto", "-lpthread"], check=True)
    pg.sql("CREATE EXTENSION kda_stream")
    pg.sql("""CREATE FUNCTION sink_run(server oid, owner oid, topic text, options text[], first bigint, size int, timeout_ms int, vals bytea[], keys bytea[], hash_keys text[])
              RETURNS text LANGUAGE c AS '%s'""" % library)
    yield pg
    try:
        pg.check_sane()
    finally:
        pg.destroy()


count = iter(range(1000))


class Output:
    """A stream of its own, and what is sent to it."""

    def __init__(self, server, kinesis, shards=1, create=True, **options):
        self.server, self.kinesis = server, kinesis
        self.stream = "out%d" % next(count)
        self.options = [x for o in options.items() for x in o]
        if create:
            kinesis.create_stream(self.stream, shards)
        kinesis.gate.requests.clear()
        kinesis.gate.rules.clear()
        name = "srv" + self.stream
        server.sql("CREATE SERVER %s TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region '%s', endpoint '%s')" % (name, REGION, kinesis.url))
        server.sql("CREATE USER MAPPING FOR postgres SERVER %s OPTIONS (access_key_id '%s', secret_access_key '%s')" % (name, ACCESS_KEY_ID, SECRET_ACCESS_KEY))
        self.oid = server.value("SELECT oid FROM pg_foreign_server WHERE srvname = %s", name)

    def run(self, values, keys=None, hash_keys=None, first=1, size=1000, timeout=60, topic=None):
        """What has become of it; it has all been done unless told otherwise."""
        values = [v if v is None or isinstance(v, bytes) else v.encode() for v in values]
        keys = keys and [k if k is None or isinstance(k, bytes) else k.encode() for k in keys]
        return json.loads(self.server.value("SELECT sink_run(%s::oid, 'postgres'::regrole, %s, %s::text[], %s::bigint, %s, %s, %s::bytea[], %s::bytea[], %s::text[])",
                                            self.oid, topic or self.stream, self.options, first, size, int(timeout * 1000), values, keys, hash_keys))

    def send(self, *args, **more):
        said = self.run(*args, **more)
        assert said["done"] == said["of"], said
        assert said["error"] == ""
        return said

    def arrived(self):
        return self.kinesis.get(self.stream)

    def numbers(self):
        return [json.loads(r["data"])["kda_seq"] for r in self.arrived()]

    def by_key(self):
        """The numbers of each key, in the order in which they have arrived."""
        found = collections.defaultdict(list)
        for r in self.arrived():
            found[r["key"]].append(json.loads(r["data"])["kda_seq"])
        return found


def rows(n):
    return ['{"n":%d}' % i for i in range(1, n + 1)]


def test_records_arrive_with_key_and_number(server, kinesis):
    out = Output(server, kinesis)
    assert out.send(['{"a":1}', '{"a":"ü"}', "{}"], ["k", "ключ", None], first=41) == {"refused": {}, "done": 1, "of": 1, "retries": 0, "error": ""}
    assert sorted((r["key"], r["data"].decode()) for r in out.arrived()) == [("43", '{"kda_seq":43}'), ("k", '{"kda_seq":41,"a":1}'), ("ключ", '{"kda_seq":42,"a":"ü"}')]
    assert len(kinesis.requests("PutRecords")) == 1


def test_without_number(server, strict):
    for options, value in [({"sequence_key": ""}, '{"a":1}'), ({"format": "csv"}, "1,2"), ({"format": "text"}, '{"a":1}'), ({"format": "json"}, "[1]")]:
        out = Output(server, strict, **options)
        out.send([value])
        assert [r["data"].decode() for r in out.arrived()] == [value]


def test_hash_keys_choose_the_shard(server, kinesis):
    out = Output(server, kinesis, shards=4)
    shards = [s["HashKeyRange"] for s in kinesis.list_shards(out.stream)]
    where = [w for s in shards for w in (s["StartingHashKey"], s["EndingHashKey"])]
    assert where[0] == "0" and where[-1] == str(LARGEST_HASH_KEY)
    out.send(rows(8), ["k"] * 8, where)
    assert {json.loads(r["data"])["n"]: r["shard"][-1] for r in out.arrived()} == dict(enumerate("00112233", 1))


def test_calls_are_as_large_as_they_may_be(server, strict):
    out = Output(server, strict, shards=3, batch_records="100", batch_bytes="2000")
    out.send(rows(1000))
    sizes = [len(r["Records"]) for r in strict.requests("PutRecords")]
    assert sum(sizes) == 1000 and max(sizes) <= 100
    bytes_of_call = [sum(len(base64.b64decode(x["Data"])) + len(x["PartitionKey"]) for x in r["Records"]) for r in strict.requests("PutRecords")]
    assert max(bytes_of_call) <= 2000 and sorted(out.numbers()) == list(range(1, 1001))


def test_one_record_of_a_key_at_a_time(server, kinesis):
    """20 keys, 15 records each, over two batches: no call has a key twice, and a key's next record is sent when the one before is acknowledged."""
    out = Output(server, kinesis, shards=2)
    keys = ["k%d" % (i % 20) for i in range(300)]
    out.send(rows(300), keys, size=150)
    calls = [[x["PartitionKey"] for x in r["Records"]] for r in kinesis.requests("PutRecords")]
    assert all(len(c) == len(set(c)) for c in calls)
    assert out.by_key() == {"k%d" % k: [i + 1 for i in range(300) if i % 20 == k] for k in range(20)}


def test_many_keys_share_calls(server, strict):
    out = Output(server, strict, shards=2)
    out.send(rows(1000), ["k%d" % i for i in range(1000)])
    assert sorted(len(r["Records"]) for r in strict.requests("PutRecords")) == [500, 500]


def test_unordered_is_all_at_once(server, strict):
    out = Output(server, strict, ordered="false")
    out.send(rows(1000), ["one key"] * 1000)
    assert sorted(len(r["Records"]) for r in strict.requests("PutRecords")) == [500, 500]
    assert sorted(out.numbers()) == list(range(1, 1001))


def test_what_fails_is_sent_again_alone(server, kinesis):
    out = Output(server, kinesis)
    kinesis.gate.fail(partial(lambda i, r: i in (1, 3)), "PutRecords")
    kinesis.gate.fail(partial(lambda i, r: i == 0, "InternalFailure", "Internal Service Failure"), "PutRecords")
    said = out.send(rows(5))
    assert [[x["PartitionKey"] for x in r["Records"]] for r in kinesis.requests("PutRecords")] == [["1", "2", "3", "4", "5"], ["2", "4"], ["2"]]
    assert sorted(out.numbers()) == [1, 2, 3, 4, 5] and said["retries"] == 2


def test_order_through_partial_failures(server, strict):
    """A third of all records fails each time: no record arrives after a later one of its key."""
    out = Output(server, strict, shards=3)
    chance = random.Random(5)
    strict.gate.fail(partial(lambda i, r: chance.random() < 0.3), "PutRecords", times=None)
    keys = ["k%d" % chance.randrange(40) for _ in range(600)]
    out.send(rows(600), keys, size=100)
    expected = collections.defaultdict(list)
    for i, k in enumerate(keys):
        expected[k].append(i + 1)
    assert out.by_key() == expected


def test_faults_of_the_network_and_of_aws(server, strict):
    """Each of these, again and again: nothing is lost, what comes twice has its number, and each key keeps its order."""
    out = Output(server, strict, shards=2)
    faults = [throttled, no_json(), failing("500 No", "InternalFailure"), reset, lost(reset), lost(no_json("502 Bad Gateway")), cut(), cut(0.9, "close"), drip(),
              partial(lambda i, r: i % 3 == 1), lambda gate, request: [b"not http at all\r\n\r\n", "close"]]
    chance = random.Random(11)
    for _ in range(20):
        for fault in chance.sample(faults, len(faults)):
            strict.gate.fail(fault, "PutRecords", after=chance.randrange(2))
    keys = ["k%d" % chance.randrange(30) for _ in range(900)]
    said = out.send(rows(900), keys, size=100, timeout=120)
    assert said["retries"] > 10
    for key, numbers in out.by_key().items():
        assert numbers == sorted(numbers) and sorted(set(numbers)) == [i + 1 for i, k in enumerate(keys) if k == key]
    assert len(out.arrived()) > 900


def test_a_lost_answer_brings_the_same_number_again(server, kinesis):
    out = Output(server, kinesis)
    kinesis.gate.fail(lost(reset), "PutRecords")
    out.send(rows(3))
    assert collections.Counter(r["data"].decode() for r in out.arrived()) == {'{"kda_seq":%d,"n":%d}' % (i, i): 2 for i in (1, 2, 3)}


def test_a_call_cut_short_by_closing(server, strict):
    out = Output(server, strict)
    strict.gate.fail(lost(lambda gate, request: [30]), "PutRecords")
    said = out.run(rows(3), timeout=1)
    assert said["done"] == 0
    # after a crash the same numbers come again
    out.send(rows(3))
    assert sorted(out.numbers()) == [1, 1, 2, 2, 3, 3]


def test_refused_records_are_refused_alone(server, strict):
    out = Output(server, strict)
    values, keys, hash_keys = rows(100), ["k%d" % i for i in range(100)], [None] * 100
    keys[9] = "x" * 300
    hash_keys[19] = str(2 ** 128)
    hash_keys[29] = "no number"
    keys[39] = b"\xff\xfe"
    values[49] = '{"a":"%s"}' % ("x" * 1024 * 1024)
    values[59] = '{"a":"%s"}' % ("x" * 10 * 1024 * 1024)
    values[69] = None
    keys[79] = ""
    said = out.send(values, keys, hash_keys)
    refused = {int(n): words for n, words in said["refused"].items()}
    assert sorted(refused) == [10, 20, 30, 40, 50, 60, 70, 80]
    assert refused[40] == "the partition key is no UTF-8 text"
    assert refused[60] == "the record has 10485784 bytes with its partition key, and Kinesis takes at most 10485760"
    assert refused[70] == "Kinesis has no tombstones"
    assert refused[20].startswith("InvalidArgumentException: Invalid ExplicitHashKey")
    assert refused[50].startswith("ValidationException: ")
    assert sorted(out.numbers()) == [n for n in range(1, 101) if n not in refused]


def test_the_next_of_a_key_follows_a_refused_one(server, strict):
    out = Output(server, strict)
    out_of_range = str(2 ** 128)
    said = out.send(rows(4), ["k"] * 4, [None, out_of_range, None, out_of_range])
    assert sorted(said["refused"]) == ["2", "4"] and out.numbers() == [1, 3]


def test_large_calls(server, taker):
    """Ten records of nearly a megabyte make one call of 10 MB, if that is wanted."""
    value = '{"a":"%s"}' % ("x" * 1000000)
    Output(server, taker, create=False, batch_bytes=str(10 * 1024 * 1024)).send([value] * 20)
    assert sorted(map(len, taker.calls)) == [10, 10]
    taker.calls.clear()
    Output(server, taker, create=False).send([value] * 20)
    assert sorted(map(len, taker.calls)) == [5, 5, 5, 5]


def test_large_records(server, taker):
    """Up to 10 MB a record, if the stream allows that: each in a call of its own."""
    largest = 10 * 1024 * 1024 - len('{"kda_seq":1,"a":""}') - len("1")
    out = Output(server, taker, create=False)
    said = out.send(['{"a":"%s"}' % ("x" * n) for n in (largest, largest + 1, 6000000, 1, 2)])
    assert said["refused"] == {"2": "the record has 10485761 bytes with its partition key, and Kinesis takes at most 10485760"}
    assert sorted(taker.calls) == [[22, 23], [6000021], [10485760]]


def test_a_stream_by_its_arn(server, local):
    out = Output(server, local)
    out.send(rows(2), topic=local.summary(out.stream)["StreamARN"])
    assert sorted(out.numbers()) == [1, 2]


def test_a_missing_stream_is_told_and_waited_for(server, kinesis):
    out = Output(server, kinesis, create=False)
    said = out.run(rows(2), timeout=1)
    assert said["done"] == 0 and said["error"].startswith("Kinesis stream %s: ResourceNotFoundException: " % out.stream) and said["retries"] > 1
    kinesis.gate.fail(lambda gate, request: kinesis.create_stream(out.stream) and gate.error("400 Bad Request", "ResourceNotFoundException", "not yet"), "PutRecords")
    out.send(rows(2))
    assert sorted(out.numbers()) == [1, 2]


def test_missing_rights_are_told_and_waited_for(server, strict):
    out = Output(server, strict)
    denied = failing("400 Bad Request", "AccessDeniedException", "User: arn:aws:iam::123456789012:user/u is not authorized to perform: kinesis:PutRecords")
    strict.gate.fail(denied, "PutRecords", times=None)
    said = out.run(rows(2), timeout=1)
    assert said["done"] == 0 and "not authorized to perform: kinesis:PutRecords" in said["error"] and said["refused"] == {}
    strict.gate.rules.clear()
    strict.gate.fail(denied, "PutRecords", times=3)
    out.send(rows(2))
    assert sorted(out.numbers()) == [1, 2]


def test_wrong_clock(server, strict):
    out = Output(server, strict)
    strict.gate.ahead = 7200
    try:
        out.send(rows(2000))
    finally:
        strict.gate.ahead = 0
    assert sorted(out.numbers()) == list(range(1, 2001))


def test_resharding_while_it_writes(server, kinesis):
    out = Output(server, kinesis)
    kinesis.gate.fail(lambda gate, request: kinesis.split(out.stream, "shardId-000000000000") and gate.good(request), "PutRecords", after=3)
    keys = ["k%d" % (i % 50) for i in range(500)]
    out.send(rows(500), keys)
    # the children's records are read after the parent's
    assert out.by_key() == {"k%d" % k: list(range(k + 1, 501, 50)) for k in range(50)}
    assert len({r["shard"] for r in out.arrived()}) == 3


def test_wrong_options(server, local):
    def error(**options):
        out = Output(server, local, create=False, **options)
        with pytest.raises(Exception) as e:
            out.run(rows(1), topic=topic)
        return str(e.value).splitlines()[0]
    topic = None
    assert error(batch_records="501") == error(batch_bytes="10485761") == 'a call of Kinesis cannot be as large as "o" says'
    assert error(headers="h") == 'option "headers" cannot be used with Kinesis'
    for topic in ("no stream", "x" * 129, "arn:aws:kinesis:eu-west-1:1:stream/", "arn:aws:sqs:eu-west-1:1:stream/s", "arn:aws:kinesis", "arn:"):
        assert error() == '"%s" is no name of a Kinesis stream' % topic
