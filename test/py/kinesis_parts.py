"""What stands in for Kinesis: two emulators (kinesis-local, which knows enhanced fan-out and large records, and kinesalite, which is strict), each behind a gate."""
import base64
import json
import os
import urllib.error
import urllib.request

from aws_parts import Gate, Part, accepts, answer, failing, operation, whole
from harness import free_port, wait_until

FOLDER = os.path.join(os.environ["KDA_KINESIS_PARTS"], "node_modules")
REGION = "eu-west-1"
ACCESS_KEY_ID, SECRET_ACCESS_KEY = "AKIDKINESIS", "a-secret-of-the-tests/0123456789abcdefgh"
SERVICE = "Kinesis_20131202."
LARGEST_HASH_KEY = 2 ** 128 - 1


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__("%s: %s" % (code, message))
        self.code = code


class Kinesis:
    """
    An emulator, and the gate before it: what is tested goes through the gate (url), while these helpers go straight to
    the emulator (port), without being counted, checked or failed.  What an emulator changes within a stream is complete
    when a helper returns.
    """

    def __init__(self, part, certificate=None):
        self.part = part
        self.port = part.port
        part.wait_for(self.answers)
        self.gate = Gate({ACCESS_KEY_ID: (SECRET_ACCESS_KEY, None)}, forward=part.port, certificate=certificate)
        self.url = self.gate.url

    def answers(self):
        if not accepts(self.port):
            return False
        try:
            return "StreamNames" in self.call("ListStreams")
        except (OSError, Refused):
            return False

    def stop(self):
        self.gate.stop()
        self.part.stop()

    def requests(self, *operations):
        """What has come through the gate of these operations: each the JSON that was asked."""
        return [json.loads(r["body"]) for r in self.gate.requests if operation(r) in operations]

    def call(self, name, **arguments):
        request = urllib.request.Request("http://127.0.0.1:%d/" % self.port, json.dumps(arguments).encode(), {
            "X-Amz-Target": SERVICE + name, "Content-Type": "application/x-amz-json-1.1", "X-Amz-Date": "20260101T000000Z",
            "Authorization": "AWS4-HMAC-SHA256 Credential=%s/20260101/%s/kinesis/aws4_request, SignedHeaders=host;x-amz-date, Signature=unchecked" % (ACCESS_KEY_ID, REGION)})
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.loads(reply.read() or b"{}")
        except urllib.error.HTTPError as e:
            said = json.loads(e.read() or b"{}")
            raise Refused(said.get("__type", "?").split("#")[-1], said.get("message", ""))

    def summary(self, stream):
        return self.call("DescribeStreamSummary", StreamName=stream)["StreamDescriptionSummary"]

    def wait_until_active(self, stream):
        wait_until(lambda: self.summary(stream)["StreamStatus"] == "ACTIVE", "stream %s to be active" % stream)

    def create_stream(self, stream, shards=1):
        """Its ARN."""
        self.call("CreateStream", StreamName=stream, ShardCount=shards)
        self.wait_until_active(stream)
        return self.summary(stream)["StreamARN"]

    def delete_stream(self, stream):
        self.call("DeleteStream", StreamName=stream)
        wait_until(lambda: stream not in self.call("ListStreams")["StreamNames"], "stream %s to be gone" % stream)

    def list_shards(self, stream):
        """All of them, open and closed, as ListShards says it."""
        page = self.call("ListShards", StreamName=stream)
        shards = page["Shards"]
        while page.get("NextToken"):
            page = self.call("ListShards", NextToken=page["NextToken"])
            shards += page["Shards"]
        return shards

    def open_shards(self, stream):
        return [s for s in self.list_shards(stream) if not s["SequenceNumberRange"].get("EndingSequenceNumber")]

    def shard_of_hash(self, stream, hash_key):
        """The open shard that such a hash key goes to."""
        return next(s["ShardId"] for s in self.open_shards(stream)
                    if int(s["HashKeyRange"]["StartingHashKey"]) <= hash_key <= int(s["HashKeyRange"]["EndingHashKey"]))

    def put(self, stream, data, key="k", hash_key=None):
        """One record; (shard, sequence number)."""
        more = {} if hash_key is None else {"ExplicitHashKey": str(hash_key)}
        reply = self.call("PutRecord", StreamName=stream, PartitionKey=key, Data=encoded(data), **more)
        return reply["ShardId"], reply["SequenceNumber"]

    def put_many(self, stream, records):
        """(data, key) or (data, key, hash key) each; [(shard, sequence number)]."""
        placed = []
        for i in range(0, len(records), 500):
            asked = [{"Data": encoded(r[0]), "PartitionKey": r[1], **({"ExplicitHashKey": str(r[2])} if len(r) > 2 else {})} for r in records[i:i + 500]]
            reply = self.call("PutRecords", StreamName=stream, Records=asked)
            assert reply.get("FailedRecordCount", 0) == 0, reply
            placed += [(r["ShardId"], r["SequenceNumber"]) for r in reply["Records"]]
        return placed

    def get(self, stream, shard=None):
        """All records of the stream or of a shard, in order within each shard: {shard, sequence, key, data, arrival}."""
        if shard is None:
            return [r for s in self.list_shards(stream) for r in self.get(stream, s["ShardId"])]
        iterator = self.call("GetShardIterator", StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        found = []
        while iterator:
            reply = self.call("GetRecords", ShardIterator=iterator)
            found += [{"shard": shard, "sequence": r["SequenceNumber"], "key": r["PartitionKey"], "data": base64.b64decode(r["Data"]),
                       "arrival": r["ApproximateArrivalTimestamp"]} for r in reply["Records"]]
            iterator = reply.get("NextShardIterator")
            if not reply["Records"] and reply["MillisBehindLatest"] == 0:
                break
        return found

    def split(self, stream, shard, at=None):
        """In the middle, or so that the second child begins at a hash key; the children."""
        before = {s["ShardId"] for s in self.list_shards(stream)}
        if at is None:
            r = next(s["HashKeyRange"] for s in self.list_shards(stream) if s["ShardId"] == shard)
            at = (int(r["StartingHashKey"]) + int(r["EndingHashKey"])) // 2 + 1
        self.call("SplitShard", StreamName=stream, ShardToSplit=shard, NewStartingHashKey=str(at))
        self.wait_until_active(stream)
        return sorted({s["ShardId"] for s in self.list_shards(stream)} - before)

    def merge(self, stream, shard, adjacent):
        """The child."""
        before = {s["ShardId"] for s in self.list_shards(stream)}
        self.call("MergeShards", StreamName=stream, ShardToMerge=shard, AdjacentShardToMerge=adjacent)
        self.wait_until_active(stream)
        return ({s["ShardId"] for s in self.list_shards(stream)} - before).pop()

    def update_shard_count(self, stream, count):
        """kinesis-local only."""
        self.call("UpdateShardCount", StreamName=stream, TargetShardCount=count, ScalingType="UNIFORM_SCALING")
        self.wait_until_active(stream)
        wait_until(lambda: len(self.open_shards(stream)) == count, "%d shards" % count)


def kinesis_local(certificate=None, **settings):
    """settings: further variables of its environment.  tls_port: it speaks TLS there itself, with a certificate of its own."""
    tls_port = free_port()
    quick = {name + "_DURATION": "20ms" for name in ("CREATE_STREAM", "DELETE_STREAM", "REGISTER_STREAM_CONSUMER", "DEREGISTER_STREAM_CONSUMER", "MERGE_SHARDS",
                                                     "SPLIT_SHARD", "UPDATE_SHARD_COUNT", "UPDATE_STREAM_MODE")}
    part = Part("kinesis_local", env={"KINESIS_MOCK_CERT_PATH": FOLDER + "/kinesis-local/server.json", "KINESIS_MOCK_TLS_PORT": str(tls_port), "SHARD_LIMIT": "500",
                                      **quick, **settings},
                command=lambda port: ["env", "KINESIS_MOCK_PLAIN_PORT=%d" % port, "node", FOLDER + "/kinesis-local/main.js"])
    kinesis = Kinesis(part, certificate)
    kinesis.tls_port = tls_port
    return kinesis


def kinesalite(certificate=None):
    part = Part("kinesalite", env={"AWS_REGION": REGION}, command=lambda port: [
        "node", "-e", "require(process.argv[1])({createStreamMs: 20, deleteStreamMs: 20, updateStreamMs: 20, shardLimit: 500}).listen(+process.argv[2], '127.0.0.1')",
        FOLDER + "/kinesalite", str(port)])
    return Kinesis(part, certificate)


def encoded(data):
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


# Faults of Kinesis's own, for Gate.fail(); aws_parts has those of any service.

throttled = failing("400 Bad Request", "ProvisionedThroughputExceededException",
                    "Rate exceeded for shard shardId-000000000000 in stream s under account 123456789012.")
expired_iterator = failing("400 Bad Request", "ExpiredIteratorException",
                           "Iterator expired. The iterator was created at time Thu Jan 01 00:00:00 UTC 2026 while right now it is Thu Jan 01 00:06:00 UTC 2026 "
                           "which is further in the future than the tolerated delay of 300000 milliseconds.")


def partial(which, code="ProvisionedThroughputExceededException", message="Rate exceeded for shard shardId-000000000000 in stream s under account 123456789012."):
    """PutRecords: the records that which(index, record) says fail, the others are put."""
    async def steps(gate, request):
        asked = json.loads(request["body"])
        failed = [which(i, r) for i, r in enumerate(asked["Records"])]
        good = [r for r, f in zip(asked["Records"], failed) if not f]
        placed = []
        if good:
            reply = await whole(gate.good({**request, "body": json.dumps({**asked, "Records": good}).encode()}))
            head, _, body = reply.partition(b"\r\n\r\n")
            said = json.loads(body)
            if "Records" not in said:
                yield reply         # it has refused them all
                return
            placed = said["Records"]
        placed = iter(placed)
        results = [{"ErrorCode": code, "ErrorMessage": message} if f else next(placed) for f in failed]
        said = {"FailedRecordCount": sum(bool(r.get("ErrorCode")) for r in results), "Records": results}
        yield answer(json.dumps(said), headers=[gate.date(), "Content-Type: application/x-amz-json-1.1"])
    return steps

