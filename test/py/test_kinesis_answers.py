"""A Kinesis source against a service of the tests' own: for what the emulators cannot do (forget records, lag, small pages, aggregates)."""
import base64
import hashlib
import json
import os
import re
import threading
import time

import psycopg2
import pytest
from aws_parts import Gate, answer, operation
from harness import wait_until
from kinesis_parts import ACCESS_KEY_ID, LARGEST_HASH_KEY, REGION, SECRET_ACCESS_KEY

SETTINGS = ["kda_stream.retry_max_interval = '300ms'"]
HOUR = 3600


class Service:
    """One stream.  Shards are dicts: id, parents, records [(sequence, data, key, arrival)], ended, hash range."""

    def __init__(self):
        self.lock = threading.Lock()
        self.created = 1700000000.123
        self.retention = 24
        self.shards = {}
        self.page = 10000           # records
        self.list_page = 1000
        self.say_children = True
        self.behind = None          # ms, whatever there is
        self.sequence = 4959033827149025660855969253836157109592157598913658 * 10
        self.gate = Gate({ACCESS_KEY_ID: (SECRET_ACCESS_KEY, None)}, self.answers)
        self.url = self.gate.url
        self.expired = set()
        self.iterators = 0
        self.most_running = 0

    def add_shard(self, n, parents=(), hashes=(0, LARGEST_HASH_KEY)):
        name = "shardId-%012d" % n
        self.shards[name] = {"id": name, "parents": ["shardId-%012d" % p for p in parents], "records": [], "ended": False, "hashes": hashes}
        return name

    def put(self, shard, *datas, key="k", at=None):
        with self.lock:
            places = []
            for data in datas:
                self.sequence += 16
                data = data if isinstance(data, bytes) else (data if isinstance(data, str) else json.dumps(data)).encode()
                self.shards[shard]["records"].append((self.sequence, data, key, at or time.time()))
                places.append(str(self.sequence))
            return places

    def end(self, shard):
        self.shards[shard]["ended"] = True

    def forget(self, shard, n):
        with self.lock:
            del self.shards[shard]["records"][:n]

    def answers(self, request):
        with self.lock:
            asked = json.loads(request["body"])
            said = getattr(self, operation(request))(asked)
        if isinstance(said, tuple):
            return self.gate.error("400 Bad Request", *said)
        return [answer(json.dumps(said), headers=[self.gate.date(), "Content-Type: application/x-amz-json-1.1"])]

    def DescribeStreamSummary(self, asked):
        return {"StreamDescriptionSummary": {"StreamName": asked["StreamName"], "StreamStatus": "ACTIVE", "RetentionPeriodHours": self.retention,
                                             "StreamCreationTimestamp": self.created, "EnhancedMonitoring": [{"ShardLevelMetrics": []}], "OpenShardCount": 1}}

    def ListShards(self, asked):
        assert ("NextToken" in asked) != ("StreamName" in asked)
        begin = int(asked.get("NextToken", "t0")[1:])
        shards = list(self.shards.values())
        page = []
        for s in shards[begin:begin + self.list_page]:
            one = {"ShardId": s["id"], "HashKeyRange": {"StartingHashKey": str(s["hashes"][0]), "EndingHashKey": str(s["hashes"][1])},
                   "SequenceNumberRange": {"StartingSequenceNumber": "1", **({"EndingSequenceNumber": "2"} if s["ended"] else {})}}
            for field, parent in zip(("ParentShardId", "AdjacentParentShardId"), s["parents"]):
                one[field] = parent
            page.append(one)
        more = begin + self.list_page < len(shards)
        return {"Shards": page, **({"NextToken": "t%d" % (begin + self.list_page)} if more else {})}

    def GetShardIterator(self, asked):
        shard = self.shards.get(asked["ShardId"])
        if shard is None:
            return "ResourceNotFoundException", "Shard %s in stream does not exist" % asked["ShardId"]
        kind = asked["ShardIteratorType"]
        place = {"TRIM_HORIZON": lambda: (0, 0), "AT_SEQUENCE_NUMBER": lambda: (int(asked["StartingSequenceNumber"]), 0),
                 "AT_TIMESTAMP": lambda: (0, asked["Timestamp"])}[kind]()
        self.iterators += 1
        return {"ShardIterator": "%s:%d:%.3f:%d" % (asked["ShardId"], *place, self.iterators)}

    def GetRecords(self, asked):
        if asked["ShardIterator"] in self.expired:
            return "ExpiredIteratorException", "Iterator expired."
        name, sequence, at, number = asked["ShardIterator"].split(":")
        shard = self.shards[name]
        left = [r for r in shard["records"] if r[0] >= int(sequence) and r[3] >= float(at)]
        page, left = left[:min(self.page, asked["Limit"])], left[min(self.page, asked["Limit"]):]
        said = {"MillisBehindLatest": self.behind if self.behind is not None else max(0, int((time.time() - page[-1][3]) * 1000)) if left else 0,
                "Records": [{"SequenceNumber": str(r[0]), "Data": base64.b64encode(r[1]).decode(), "PartitionKey": r[2], "ApproximateArrivalTimestamp": round(r[3], 3)}
                            for r in page]}
        if shard["ended"] and not left:
            said["NextShardIterator"] = None
            if self.say_children:
                said["ChildShards"] = [{"ShardId": c["id"], "ParentShards": c["parents"], "HashKeyRange": {}} for c in self.shards.values() if name in c["parents"]]
        else:
            self.iterators += 1
            said["NextShardIterator"] = "%s:%d:%s:%d" % (name, page[-1][0] + 1 if page else int(sequence), at if not page else "0", self.iterators)
        return said


@pytest.fixture
def service(server):
    s = Service()
    server.sql("""CREATE SERVER seoul TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region '%s', endpoint '%s');
                  CREATE USER MAPPING FOR PUBLIC SERVER seoul OPTIONS (access_key_id '%s', secret_access_key '%s')"""
               % (REGION, s.url, ACCESS_KEY_ID, SECRET_ACCESS_KEY))
    yield s
    server.sql("DROP SERVER seoul CASCADE")
    s.gate.stop()


def create(server, query="SELECT count(*) AS n, coalesce(sum(v), 0) AS total FROM s", start="earliest", columns="v int", options=""):
    server.sql("CREATE STREAM s (%s) SERVER seoul %s" % (columns, options))
    server.sql("CREATE CONTINUOUS VIEW seen WITH (start = '%s') AS %s" % (start, query))


def seen(server):
    assert server.value("SELECT kda.wait('s', '60 s')"), server.sql("SELECT * FROM kda.streams")
    return server.sql("SELECT * FROM seen")


def failure(server):
    wait_until(lambda: server.value("SELECT state FROM kda.streams") == "failed", "the stream to stop")
    return server.value("SELECT last_error FROM kda.streams")


def restart(server):
    """The worker."""
    server.sql("SELECT pg_terminate_backend(%s)", server.workers()[0])


def test_pages(server, service):
    """Of records and of shards; nothing is at its end before the service has said so."""
    service.page, service.list_page = 7, 2
    shards = [service.add_shard(n) for n in range(5)]
    for i, s in enumerate(shards):
        service.put(s, *[{"v": i} for _ in range(100)])
    create(server)
    assert seen(server) == [(500, 1000)]
    assert server.value("SELECT count(*) FROM kda.shards") == 5


def test_a_reply_that_is_cut_comes_again(server, service):
    shard = service.add_shard(0)
    service.put(shard, *[{"v": 1}] * 50)
    spoilt = iter([b'{"NextShardIterator":"x","MillisBehindLatest":0,"Records":[{"SequenceNumber":"1","Data":"eyJ2IjogMX0","PartitionKey":"k"}]}',
                   b'{"NextShardIterator":"x","MillisBehindLatest":0,"Records":[{"SequenceNumber":"x1","Data":"eyJ2IjogMX0=","PartitionKey":"k"}]}',
                   b'{"NextShardIterator":"x","MillisBehindLatest":0,"Records":[{"Data":"eyJ2IjogMX0=","PartitionKey":"k"}]}',
                   b'{"NextShardIterator":"x","MillisBehindLatest":0,"Records":[{"SequenceNumber":"1","Data":"eyJ2IjogMX0="', b"", b"null", b"[]", b'{"Records":null}', b"{" * 5000,
                   b'{"NextShardIterator":"a\\"b","MillisBehindLatest":0,"Records":[]}', b'{"Records":[' + b"[" * 100 + b"]" * 100 + b"]}"])
    service.gate.fail(lambda gate, request: [answer(next(spoilt))], "GetRecords", times=11)
    create(server)
    assert seen(server) == [(50, 50)]
    assert next(spoilt, None) is None
    assert server.value("SELECT last_error FROM kda.streams") is None
    # escapes that no service needs, and fields that it may have some day
    service.gate.fail(lambda gate, request: [answer(
        b' { "New" : [ { "a" : [1e5, null, "\\\\\\"" ] } ] , "Records" : [ { "PartitionKey" : "\\u20ac\\ud83d\\ude00" , "x":{} , "Data" : "eyJ2IjogM\\u0054\\u0042\\u0039" ,'
        b' "SequenceNumber" : "99999999999999999999999999999999999999999999999999999999" , "ApproximateArrivalTimestamp" : 1.7E9 } ] , "MillisBehindLatest" : 5 ,'
        b' "NextShardIterator" : "shardId-000000000000:99999999999999999999999999999999999999999999999999999999:0:0" }')], "GetRecords")
    wait_until(lambda: seen(server) == [(51, 60)], "the record")


def test_records_that_have_left(server, service):
    shard = service.add_shard(0)
    service.put(shard, *[{"v": n} for n in range(1, 11)])
    create(server)
    assert seen(server) == [(10, 55)]
    # all of it has been read a moment ago: nothing can be missing
    service.forget(shard, 10)
    restart(server)
    service.put(shard, {"v": 100})
    assert seen(server) == [(11, 155)]
    # two days ago
    server.sql("ALTER STREAM s PAUSE")
    server.sql("UPDATE kda_storage.shard SET complete_to = complete_to - interval '2 days', last_arrival = last_arrival - interval '2 days'")
    restart(server)
    service.forget(shard, 1)
    last = service.put(shard, {"v": 1000}, {"v": 2000})
    server.sql("ALTER STREAM s RESUME")
    message = failure(server)
    assert re.match(r'records of shard shardId-000000000000 of stream "s" that came after 20.* \(position %d\) may be gone: the stream keeps them for 24 hours; ALTER STREAM' %
                    (int(last[0]) - 16), message), message
    server.sql("ALTER STREAM s RESUME")
    failure(server)
    server.sql("ALTER STREAM s OPTIONS (ADD start 'earliest')")
    server.sql("ALTER STREAM s RESUME")
    assert seen(server) == [(13, 3155)]


def test_a_record_that_is_another_one(server, service):
    shard = service.add_shard(0)
    service.put(shard, {"v": 1})
    create(server)
    assert seen(server) == [(1, 1)]
    server.sql("ALTER STREAM s PAUSE")
    sequence, _, key, at = service.shards[shard]["records"][0]
    service.shards[shard]["records"][0] = (sequence, b'{"v": 2}', key, at)
    server.sql("ALTER STREAM s RESUME")
    assert "is not the one that was read: the stream was created anew" in failure(server)


def test_a_creation_time_that_is_another_one(server, service):
    shard = service.add_shard(0)
    service.put(shard, {"v": 1})
    create(server)
    assert seen(server) == [(1, 1)]
    service.created += 0.001
    restart(server)
    assert "was deleted and created anew" in failure(server)


def test_a_shard_that_leaves_unread(server, service):
    shard = service.add_shard(0)
    service.add_shard(1)
    service.put(shard, {"v": 1})
    create(server)
    assert seen(server) == [(1, 1)]
    server.sql("ALTER STREAM s PAUSE")
    del service.shards[shard]
    server.sql("ALTER STREAM s RESUME")
    assert "shard shardId-000000000000 has left the stream before it was read to its end" in failure(server)


def test_a_closed_shard_is_forgotten_when_it_leaves(server, service):
    parent = service.add_shard(0)
    service.put(parent, {"v": 1})
    create(server)
    assert seen(server) == [(1, 1)]
    child = service.add_shard(1, [0])
    service.put(child, {"v": 10})
    service.end(parent)
    assert seen(server) == [(2, 11)]
    assert server.sql("SELECT shard, state FROM kda.shards ORDER BY 1") == [(parent, "closed"), (child, "open")]
    del service.shards[parent]
    restart(server)
    service.put(child, {"v": 100})
    assert seen(server) == [(3, 111)]
    wait_until(lambda: server.sql("SELECT shard FROM kda.shards") == [(child,)], "the closed one to go")


def test_children_that_are_listed_late(server, service):
    """A shard is closed once its children are known; before, nothing may go past them."""
    parent, other = service.add_shard(0), service.add_shard(1)
    at = time.time()
    service.put(parent, {"t": 10}, at=at)
    service.put(other, {"t": 1000}, at=at)
    create(server, columns="t int, rowtime timestamptz OPTIONS (path '$.t', time_format 'epoch')", options="OPTIONS (idle_timeout 'never')",
           query="SELECT count(*) AS n FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)")
    assert server.value("SELECT kda.wait('s')")
    mark = server.value("SELECT watermark FROM kda.streams")
    assert mark.timestamp() == 10
    child = "shardId-%012d" % 2
    service.add_shard(2, [0])
    # it ends, says so, but the list does not have the child yet
    real = service.ListShards
    service.ListShards = lambda asked: {"Shards": [s for s in real(asked)["Shards"] if s["ShardId"] != child]}
    service.put(parent, {"t": 20}, at=at)
    service.end(parent)
    n = len(service.gate.requests)
    wait_until(lambda: [operation(r) for r in service.gate.requests[n:]].count("ListShards") > 1, "the list to be read again")
    wait_until(lambda: server.value("SELECT watermark FROM kda.streams").timestamp() == 20, "the last record of the parent")
    assert server.value("SELECT count(*) FROM kda.shards WHERE state = 'closed'") == 0
    assert not server.value("SELECT kda.wait('s', '500 ms')")
    del service.ListShards
    # nothing has come from the child: time stands where the parent has left it
    wait_until(lambda: server.value("SELECT count(*) FROM kda.shards WHERE state = 'closed'") == 1, "the parent to be closed")
    assert server.value("SELECT watermark FROM kda.streams").timestamp() == 20
    service.put(child, {"t": 70}, {"t": 30}, at=at)
    service.put(child, {"t": 130}, at=at)
    assert server.value("SELECT kda.wait('s')")
    assert server.sql("SELECT extract(epoch FROM window_start)::int, n FROM seen ORDER BY 1") == [(0, 2), (60, 1), (120, 1), (960, 1)]
    assert server.value("SELECT watermark FROM kda.streams").timestamp() == 130
    assert server.value("SELECT records_late FROM kda.streams") == 1     # 30 after 70


def test_a_child_holds_nothing_while_it_waits(server, service):
    """The parent has a day of records before it."""
    parent = service.add_shard(0)
    service.add_shard(1, [0])
    service.put(parent, *[{"t": 60 * n} for n in range(100)])
    create(server, columns="t int, rowtime timestamptz OPTIONS (path '$.t', time_format 'epoch')", options="OPTIONS (idle_timeout 'never')",
           query="SELECT count(*) AS n FROM s WINDOWED BY TUMBLING (INTERVAL '1' MINUTE)")
    wait_until(lambda: server.value("SELECT watermark FROM kda.streams"), "a watermark")
    wait_until(lambda: server.value("SELECT watermark FROM kda.streams").timestamp() == 99 * 60, "the parent's")
    assert server.value("SELECT count(*) FROM kda.shards") == 1
    service.end(parent)
    service.put("shardId-000000000001", {"t": 6000})
    assert server.value("SELECT kda.wait('s')")
    assert server.value("SELECT watermark FROM kda.streams").timestamp() == 6000


def test_expired_iterators(server, service):
    shard = service.add_shard(0)
    service.put(shard, *[{"v": 1}] * 100)
    service.page = 10
    create(server)
    for _ in range(20):
        with service.lock:
            service.expired |= {"%s:%d:0.000:%d" % (shard, sequence, n) for sequence in [0] for n in range(1, 5)}
        time.sleep(0.01)
    assert seen(server) == [(100, 100)]
    before = service.iterators
    service.gate.fail(lambda gate, request: gate.error("400 Bad Request", "ExpiredIteratorException", "Iterator expired."), "GetRecords")
    service.put(shard, {"v": 2})
    assert seen(server) == [(101, 102)] and service.iterators > before


def test_behind(server, service):
    shard = service.add_shard(0)
    service.put(shard, {"v": 1})
    service.behind = 86400000
    create(server)
    wait_until(lambda: server.sql("SELECT * FROM seen") == [(1, 1)], "the record")
    # empty pages mean nothing as long as the service says that there is more
    assert not server.value("SELECT kda.wait('s', '1 s')")
    wait_until(lambda: server.value("SELECT millis_behind_latest FROM kda.streams") == 86400000, "the lag to be shown")
    service.behind = 0
    assert seen(server) == [(1, 1)]
    wait_until(lambda: server.value("SELECT millis_behind_latest FROM kda.streams") == 0, "the lag to go")


def test_many_shards(server, service):
    shards = [service.add_shard(n) for n in range(200)]
    for i, s in enumerate(shards):
        service.put(s, {"v": i}, {"v": i})
    create(server)
    assert seen(server) == [(400, 200 * 199)]
    threads = os.listdir("/proc/%d/task" % server.workers()[0])
    assert len(threads) < 10, threads
    for s in shards:
        service.put(s, {"v": 1})
    assert seen(server) == [(600, 200 * 199 + 200)]
    assert service.gate.most_open <= 64
    # a shard is not asked more often than 5 times a second
    n, begun = len(service.gate.requests), time.monotonic()
    wait_until(lambda: time.monotonic() > begun + 2, "2 seconds")
    asked = [json.loads(r["body"])["ShardIterator"].split(":")[0] for r in service.gate.requests[n:] if operation(r) == "GetRecords"]
    assert max(asked.count(s) for s in shards) <= 11 and len(asked) < 500, len(asked)


def test_memory_is_bounded(server, service):
    """With room for one answer the shards are read one after the other."""
    running = 0
    most = 0

    def held(gate, request):
        async def steps():
            nonlocal running, most
            running += 1
            most = max(most, running)
            yield 0.01
            running -= 1
            for step in gate.good(request):
                yield step
        return steps()
    server.sql("ALTER SYSTEM SET kda_stream.fetch_memory = '20MB'")
    server.sql("SELECT pg_reload_conf()")
    try:
        service.gate.fail(held, "GetRecords", times=None)
        for n in range(8):
            service.put(service.add_shard(n), *[{"v": n, "x": "x" * 100000}] * 20)
        create(server)
        assert seen(server) == [(160, 20 * 28)]
        assert most == 1
    finally:
        server.sql("ALTER SYSTEM RESET kda_stream.fetch_memory")
        server.sql("SELECT pg_reload_conf()")


# Aggregates, by an encoder of their own: https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md

def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, value):
    return varint(number << 3) + varint(value) if isinstance(value, int) else varint(number << 3 | 2) + varint(len(value)) + value


def aggregate(*records, spoil=lambda body: body, digest=None, tags=b""):
    """records: (key, data) or (key, data, explicit hash key)."""
    keys = list(dict.fromkeys(r[0] for r in records))
    hashes = list(dict.fromkeys(str(r[2]) for r in records if len(r) > 2))
    body = b"".join(field(1, k.encode()) for k in keys) + b"".join(field(2, h.encode()) for h in hashes)
    for r in records:
        body += field(3, field(1, keys.index(r[0])) + (field(2, hashes.index(str(r[2]))) if len(r) > 2 else b"") +
                      field(3, r[1] if isinstance(r[1], bytes) else json.dumps(r[1]).encode()) + tags)
    body = spoil(body)
    return b"\xf3\x89\x9a\xc2" + body + (digest or hashlib.md5(body).digest())


def test_aggregates(server, service):
    shard = service.add_shard(0)
    create(server, columns="v int, key text OPTIONS (meta 'key'), place text OPTIONS (meta 'position')", query="SELECT v, key, place FROM s")
    first, second, third = service.put(shard, aggregate(("a", {"v": 1}), ("b", {"v": 2}), ("a", {"v": 3}, 7)), {"v": 4},
                                       aggregate(("c" * 300, {"v": 5}), tags=field(4, field(1, b"tag") + field(2, b"value"))))
    assert sorted(seen(server)) == [(1, "a", first + "/0"), (2, "b", first + "/1"), (3, "a", first + "/2"), (4, "k", second), (5, "c" * 300, third + "/0")]
    assert server.value("SELECT position FROM kda.shards") == third + "/0"
    assert sorted(server.sql("SELECT v, place FROM s")) == [(1, first + "/0"), (2, first + "/1"), (3, first + "/2"), (4, second), (5, third + "/0")]
    bad = service.put(shard, aggregate(("a", b"no json"), ("a", {"v": 6})))[0]
    seen(server)
    assert server.sql("SELECT error_name, position FROM kda.error_stream WHERE stream = 's'::regclass") == [("malformed", bad + "/0")]
    service.put(shard, aggregate())
    seen(server)
    assert server.value("SELECT count(*) FROM seen") == 6


def test_what_is_no_aggregate(server, service):
    """It is a record like any other: here, no JSON."""
    shard = service.add_shard(0)
    one = ("a", {"v": 1})
    not_ones = [b"\xf3\x89\x9a\xc2", b"\xf3\x89\x9a\xc2" + b"x" * 15, aggregate(one, digest=b"x" * 16), aggregate(one)[:-1],
                aggregate(spoil=lambda b: b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b), aggregate(one, spoil=lambda b: b + b"\x1a\x05\x08"),
                aggregate(one, spoil=lambda b: b[:-1]), aggregate(one, spoil=lambda b: b + field(3, field(1, 7) + field(3, b"{}"))),
                aggregate(one, spoil=lambda b: b + field(3, field(1, 0))), aggregate(one, spoil=lambda b: b + field(3, field(3, b"{}"))),
                aggregate(one, spoil=lambda b: b + field(3, field(1, 0) + field(2, 0) + field(3, b"{}"))), aggregate(one, spoil=lambda b: b + field(3, 5)),
                aggregate(one, spoil=lambda b: b + b"\x80" * 12), aggregate(one, spoil=lambda b: b + b"\x1b"), aggregate(one, spoil=lambda b: b + b"\x00\x00"),
                aggregate(("a", {"v": 1}, "x")), aggregate(("a", {"v": 1}, 2 ** 128)), aggregate(("a", {"v": 1}, ""))]
    service.put(shard, *not_ones, {"v": 10})
    # fields that are not known are passed over
    service.put(shard, aggregate(one, spoil=lambda b: field(9, 3) + varint(10 << 3 | 1) + b"x" * 8 + varint(11 << 3 | 5) + b"x" * 4 + field(12, b"x") + b))
    create(server)
    assert seen(server) == [(2, 11)]
    assert server.value("SELECT count(*) FROM kda.error_stream WHERE stream = 's'::regclass AND error_name = 'malformed'") == len(not_ones)


def test_aggregates_of_another_shard(server, service):
    """As the Kinesis Client Library does it, all of such an aggregate is left out."""
    half = 2 ** 127
    low, high = service.add_shard(0, hashes=(0, half - 1)), service.add_shard(1, hashes=(half, LARGEST_HASH_KEY))
    mine = next("k%d" % n for n in range(100) if int(hashlib.md5(b"k%d" % n).hexdigest(), 16) < half)
    other = next("k%d" % n for n in range(100) if int(hashlib.md5(b"k%d" % n).hexdigest(), 16) >= half)
    service.put(low, aggregate((mine, {"v": 1}), (other, {"v": 2}, 0)), aggregate((mine, {"v": 10}), (other, {"v": 20})), aggregate((mine, {"v": 100}, half)))
    service.put(high, aggregate((other, {"v": 1000}), (mine, {"v": 2000}, LARGEST_HASH_KEY)), aggregate((mine, {"v": 5})))
    create(server)
    assert seen(server) == [(4, 3003)]


def test_a_crash_inside_of_an_aggregate(server, service):
    """Small batches: commits fall into the midst of aggregates."""
    server.sql("ALTER SYSTEM SET kda_stream.batch_records = 7")
    server.sql("SELECT pg_reload_conf()")
    try:
        shard = service.add_shard(0)
        create(server, query="SELECT count(*) AS n, coalesce(sum(v), 0) AS total, count(DISTINCT v) AS d FROM s")
        v = 0
        for _ in range(30):
            service.put(shard, aggregate(*[("k%d" % (n % 3), {"v": v + n}) for n in range(20)]))
            v += 20
        inside = 0
        for _ in range(6):
            server.crash()
            server.start()
            wait_until(lambda: server.value("SELECT position FROM kda.shards"), "a position")
            inside += not server.value("SELECT position FROM kda.shards").endswith("/19")
            time.sleep(0.03)
        assert seen(server) == [(v, sum(range(v)), v)]
        # and when it goes on behind a part that is another one
        server.sql("ALTER STREAM s PAUSE")
        sequence, _, key, at = service.shards[shard]["records"][-1]
        service.shards[shard]["records"][-1] = (sequence, aggregate(("k", {"v": 1})), key, at)
        server.sql("ALTER STREAM s RESUME")
        assert "is not the one that was read" in failure(server)
    finally:
        server.sql("ALTER SYSTEM RESET kda_stream.batch_records")
        server.sql("SELECT pg_reload_conf()")


def test_what_is_refused(server, service):
    for options, message in ((" OPTIONS (stream 'a b')", "is not the name of a Kinesis stream"), (" OPTIONS (stream 'arn:aws:sqs:eu-west-1:123456789012:stream/x')", "is not the name"),
                             (" OPTIONS (parallelism '2')", "cannot have a parallelism of 2"), (" OPTIONS (fan_out 'true')", "not part of this release"),
                             (" OPTIONS (compression 'gzip')", "cannot be used with Kinesis")):
        with pytest.raises(psycopg2.Error) as e:
            server.sql("CREATE STREAM refused (v int) SERVER seoul" + options)
        assert message in str(e.value)
