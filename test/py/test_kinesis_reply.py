"""Reading what Kinesis answers, outside of a server and under the sanitizers: against Python's own JSON and base64, and with what no service would say."""
import base64
import json
import random

import pytest
from aws_parts import Program, build_program, bytes_of, field
from harness import LONG
from test_kinesis_answers import aggregate


@pytest.fixture(scope="module")
def program():
    p = Program(build_program("kinesis_reply", ["kinesis_reply", "kinesis_kpl"]))
    yield p
    p.stop()


def page(program, text):
    """None, or (iterator, behind, children, records, whole)."""
    first = program.ask("page", field(text))
    if first == ["no"]:
        return None
    records = []
    while True:
        words = program.hear()
        if len(words) == 1:
            return bytes_of(first[1]), int(first[2]), [bytes_of(c) for c in first[3:]], records, words[0] == "end"
        records.append((words[0], bytes_of(words[1]), int(words[2]), bytes_of(words[3])))


def random_bytes(rnd, most):
    return bytes(rnd.randrange(256) for _ in range(rnd.randrange(most)))


def random_answer(rnd):
    """As Python sees it, and as text with spaces, escapes and fields in any order."""
    records = []
    for _ in range(rnd.randrange(6)):
        key = "".join(chr(rnd.choice([rnd.randrange(32, 127), rnd.randrange(0x80, 0xD800), rnd.randrange(0x10000, 0x110000), 0x22, 0x5c, 9])) for _ in range(rnd.randrange(1, 20)))
        parts = None
        data = random_bytes(rnd, 50)
        if rnd.random() < 0.3:
            parts = [("p%d" % rnd.randrange(3), random_bytes(rnd, 20)) for _ in range(rnd.randrange(1, 5))]
            data = aggregate(*parts)
        records.append((str(rnd.getrandbits(186)), key, rnd.randrange(10 ** 12, 2 * 10 ** 12), data, parts))
    fields = [("Records", [dict(rnd.sample(list({"SequenceNumber": s, "PartitionKey": k, "ApproximateArrivalTimestamp": at / 1000, "Data": base64.b64encode(d).decode(),
                                                 "EncryptionType": "NONE", "New": [{}, [], {"a": [1, "]\\\\"]}]}.items()), 6)) for s, k, at, d, _ in records]),
              ("NextShardIterator", rnd.choice([None, "AAAA" + "x" * rnd.randrange(300)])), ("MillisBehindLatest", rnd.randrange(10 ** 9)),
              ("ChildShards", [{"ShardId": "shardId-%d" % i, "ParentShards": ["a", "b"], "HashKeyRange": {"StartingHashKey": "0"}} for i in range(rnd.randrange(3))])]
    rnd.shuffle(fields)
    said = dict(fields)
    text = json.dumps(said, ensure_ascii=rnd.random() < 0.5, indent=rnd.choice([None, None, 1]))
    expected = []
    for s, k, at, d, parts in records:
        expected += [(s, k.encode(), at, d)] if parts is None else [("%s/%d" % (s, i), pk.encode(), at, pd) for i, (pk, pd) in enumerate(parts)]
    return said, text, expected


def test_pages(program):
    rnd = random.Random(1)
    for _ in range(1000):
        said, text, expected = random_answer(rnd)
        assert page(program, text) == ((said["NextShardIterator"] or "").encode(), said["MillisBehindLatest"], [c["ShardId"].encode() for c in said["ChildShards"]], expected, True), text


def test_what_is_no_page(program):
    """Whatever comes, nothing is read beyond it; a record that is given is whole."""
    rnd = random.Random()
    seed = rnd.randrange(10 ** 9)
    rnd = random.Random(seed)
    for _ in range(100000 if LONG else 3000):
        text = bytearray(random_answer(rnd)[1].encode())
        for _ in range(rnd.randrange(1, 4)):
            at = rnd.randrange(len(text) + 1)
            what = rnd.randrange(4)
            if what == 0:
                del text[at:at + rnd.choice([1, 1, 5, 10000])]
            elif what == 1 and at < len(text):
                text[at] = rnd.choice(b'"\\{}[],:0e.\x00u=\xff')
            elif what == 2:
                text[at:at] = rnd.choice([b'"', b"\\", b"\\u", b"\\ud800", b"{", b"]", b",", b"null", b"=" * 4, b"9" * 200])
            else:
                text[at:at] = text[at // 2:at]
        page(program, bytes(text))
        for other in ("shards", "summary"):
            program.ask(other, field(bytes(text)))


@pytest.mark.parametrize("text, says", [
    ("", False), ("{", False), ("{}", False), ('{"Records":[]}', True), (' {"Records" : [ ] } ', True), ('{"Records":{}}', False), ('{"Records":[}', False),
    ('{"Records":[],}', False), ('{"Records":[],"MillisBehindLatest":"1"}', False), ('{"Records":[]', False), ('{"Records":[' + "[" * 65 + "]" * 65 + "]}", False),
])
def test_structure(program, text, says):
    assert (page(program, text) is not None) == says


@pytest.mark.parametrize("record, good", [
    ('{"SequenceNumber":"1","Data":""}', True), ('{"SequenceNumber":"01","Data":""}', False), ('{"SequenceNumber":"","Data":""}', False), ('{"SequenceNumber":1,"Data":""}', False),
    ('{"SequenceNumber":"%s","Data":""}' % ("1" * 129), True), ('{"SequenceNumber":"%s","Data":""}' % ("1" * 130), False), ('{"Data":""}', False), ('{"SequenceNumber":"1"}', False),
    ('{"SequenceNumber":"1","Data":"YQ=="}', True), ('{"SequenceNumber":"1","Data":"YQ="}', False), ('{"SequenceNumber":"1","Data":"Y==="}', False),
    ('{"SequenceNumber":"1","Data":"YQ==YQ=="}', False), ('{"SequenceNumber":"1","Data":"Y\\u0051=="}', True), ('{"SequenceNumber":"1","Data":"Y-=="}', False),
    ('{"SequenceNumber":"1","Data":"","PartitionKey":"\\ud800"}', False), ('{"SequenceNumber":"1","Data":"","ApproximateArrivalTimestamp":"x"}', False),
])
def test_records(program, record, good):
    iterator, behind, children, records, whole = page(program, '{"Records":[%s]}' % record)
    assert whole == good and len(records) == good


@pytest.mark.parametrize("said, ms", [("1.441215410867E9", 1441215410867), ("1441215410.867", 1441215410867), ("1441215410", 1441215410000), ("1e3", 1000000), ("0.0005", 1),
                                      ("1.5e-3", 2), ("null", -1), ("1441215410.8669998", 1441215410867)])
def test_times(program, said, ms):
    assert page(program, '{"Records":[{"SequenceNumber":"1","Data":"","ApproximateArrivalTimestamp":%s}]}' % said)[3][0][2] == ms


def test_base64(program):
    rnd = random.Random(2)
    for n in list(range(40)) + [1000]:
        data = bytes(rnd.randrange(256) for _ in range(n))
        assert bytes_of(program.ask("base64", field(base64.b64encode(data)))[1]) == data
    for bad in ("a", "ab", "abc", "a===", "ab=c", "====", "ab\n=", "abcd=", "ab==abcd", "\u00e4bc"):
        assert program.ask("base64", field(bad)) == ["no"], bad


def test_hash_keys(program):
    for good in ("0", "340282366920938463463374607431768211455", "000000000000000000000000000000000000001"):
        assert program.ask("hash", field(good)) == ["yes"]
    for bad in ("", "x", "-1", "340282366920938463463374607431768211456", "999999999999999999999999999999999999999", "1" * 40):
        assert program.ask("hash", field(bad)) == ["no"]


def test_shards_and_summary(program):
    shard = {"ShardId": "s", "ParentShardId": "a", "AdjacentParentShardId": None, "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "9"},
             "SequenceNumberRange": {"StartingSequenceNumber": "1", "EndingSequenceNumber": None}}
    assert program.ask("shards", field(json.dumps({"Shards": [shard] * 3, "NextToken": "t"}))) == ["yes", field("t"), "3"]
    assert program.ask("shards", field(json.dumps({"NextToken": None, "Shards": []}))) == ["yes", ".", "0"]
    for bad in ("{}", '{"Shards":[{}]}', '{"Shards":[{"ShardId":1}]}', '{"Shards":[1]}', "[]"):
        assert program.ask("shards", field(bad)) == ["no"]
    summary = {"StreamName": "s", "StreamStatus": "ACTIVE", "RetentionPeriodHours": 24, "StreamCreationTimestamp": 1700000000.5, "EnhancedMonitoring": [{"ShardLevelMetrics": []}]}
    assert program.ask("summary", field(json.dumps({"StreamDescriptionSummary": summary}))) == ["yes", field("ACTIVE"), "1700000000500", "24"]
    for bad in ("{}", '{"StreamDescriptionSummary":[]}', '{"StreamDescriptionSummary":{"StreamStatus":1}}'):
        assert program.ask("summary", field(bad)) == ["no"]


def test_speed():
    """Far more than the 300,000 records a CPU-second that a worker has to read."""
    p = Program(build_program("kinesis_reply", ["kinesis_reply", "kinesis_kpl"], sanitize=False))
    rnd = random.Random(3)
    records = [{"ApproximateArrivalTimestamp": 1.7E9 + i, "Data": base64.b64encode(json.dumps({"user": rnd.randrange(10 ** 9), "text": "x" * 120}).encode()).decode(),
                "PartitionKey": "key-%d" % rnd.randrange(10 ** 6), "SequenceNumber": str(rnd.getrandbits(186))} for i in range(2000)]
    n, size, seconds = p.ask("speed", field(json.dumps({"MillisBehindLatest": 0, "NextShardIterator": "x", "Records": records})), 100)
    p.stop()
    assert int(n) == 200000
    print("%d records a CPU-second" % (int(n) / float(seconds)))
    assert int(n) / float(seconds) > 300000
