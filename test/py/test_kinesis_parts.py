"""The stand-ins for Kinesis do what the tests of the connectors rely on; the client is AWS's own (boto3), so that the gate is judged, too."""
import json
import os
import subprocess
import sys

import pytest
from aws_parts import PARTS, cut, drip, failing, lost, no_json, reset
from kinesis_parts import (ACCESS_KEY_ID, LARGEST_HASH_KEY, REGION, SECRET_ACCESS_KEY, Refused, expired_iterator, kinesalite, kinesis_local, partial, throttled)


@pytest.fixture(scope="module", params=[kinesis_local, kinesalite], ids=["kinesis_local", "kinesalite"])
def kinesis(request):
    part = request.param()
    yield part
    part.stop()


@pytest.fixture(autouse=True)
def as_told(request):
    """A test that needs the emulator leaves no fault behind."""
    yield
    if "kinesis" in request.fixturenames:
        gate = request.getfixturevalue("kinesis").gate
        assert not [r for r in gate.rules if r["left"]]
        gate.rules.clear()
        gate.requests.clear()


def boto(kinesis, operation, attempts=1, secret=SECRET_ACCESS_KEY, **arguments):
    """What AWS's client says through the gate: the answer, or the error's code."""
    code = """
import json, sys
import boto3, botocore
from botocore.config import Config
url, region, key, secret, operation, attempts, arguments = sys.argv[1:]
client = boto3.client("kinesis", endpoint_url=url, region_name=region, aws_access_key_id=key, aws_secret_access_key=secret,
                      config=Config(retries={"total_max_attempts": int(attempts), "mode": "standard"}))
try:
    print(json.dumps(getattr(client, operation)(**json.loads(arguments)), default=lambda o: o.decode() if isinstance(o, bytes) else str(o)))
except botocore.exceptions.ClientError as e:
    print(json.dumps(e.response["Error"]["Code"]))
except botocore.exceptions.BotoCoreError as e:
    print(json.dumps(type(e).__name__))
"""
    run = subprocess.run([sys.executable, "-c", code, kinesis.url, REGION, ACCESS_KEY_ID, secret, operation, str(attempts), json.dumps(arguments)],
                         env={"PYTHONPATH": PARTS, "PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true"}, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(run.stdout)


def test_put_and_get(kinesis):
    assert kinesis.create_stream("two", 2).startswith("arn:aws:kinesis:" + REGION)
    assert [s["ShardId"] for s in kinesis.list_shards("two")] == ["shardId-000000000000", "shardId-000000000001"]
    first, second = kinesis.put_many("two", [("low", "a", 0), ("high", "b", LARGEST_HASH_KEY)])
    assert first[0] == "shardId-000000000000" == kinesis.shard_of_hash("two", 0)
    assert second[0] == "shardId-000000000001" == kinesis.shard_of_hash("two", LARGEST_HASH_KEY)
    kinesis.put("two", "later", "c", 1)
    assert [(r["shard"][-1], r["key"], r["data"]) for r in kinesis.get("two")] == [("0", "a", b"low"), ("0", "c", b"later"), ("1", "b", b"high")]
    kinesis.delete_stream("two")
    with pytest.raises(Refused) as refused:
        kinesis.put("two", "x")
    assert refused.value.code == "ResourceNotFoundException"


def test_split_and_merge(kinesis):
    kinesis.create_stream("lineage", 1)
    kinesis.put("lineage", "before", "k", 5)
    children = kinesis.split("lineage", "shardId-000000000000")
    assert children == ["shardId-000000000001", "shardId-000000000002"]
    assert {s.get("ParentShardId") for s in kinesis.open_shards("lineage")} == {"shardId-000000000000"}
    kinesis.put("lineage", "between", "k", 5)
    assert kinesis.merge("lineage", *children) == "shardId-000000000003"
    kinesis.put("lineage", "after", "k", 5)
    assert [(r["shard"][-1], r["data"]) for r in kinesis.get("lineage")] == [("0", b"before"), ("1", b"between"), ("3", b"after")]


def test_the_gate_knows_a_signature(kinesis):
    kinesis.create_stream("signed")
    assert boto(kinesis, "put_record", StreamName="signed", Data="hello", PartitionKey="k")["ShardId"] == "shardId-000000000000"
    assert boto(kinesis, "put_record", secret="another", StreamName="signed", Data="hello", PartitionKey="k") == "InvalidSignatureException"
    kinesis.gate.ahead = 3600
    assert boto(kinesis, "put_record", StreamName="signed", Data="hello", PartitionKey="k") == "InvalidSignatureException"
    kinesis.gate.ahead = 0
    assert [r["data"] for r in kinesis.get("signed")] == [b"hello"]
    assert kinesis.requests("PutRecord")[0]["StreamName"] == "signed"


def test_faults(kinesis):
    kinesis.create_stream("faulty")
    records = [{"Data": "r%d" % i, "PartitionKey": "k%d" % i} for i in range(4)]
    for fault, said in [(throttled, "ProvisionedThroughputExceededException"), (no_json(), "503"), (failing("500 No", "InternalFailure"), "InternalFailure"),
                        (reset, "ConnectionClosedError"), (lost(reset), "ConnectionClosedError"), (cut(), "ConnectionClosedError")]:
        kinesis.gate.fail(fault, "PutRecords", after=1)
        assert boto(kinesis, "put_records", StreamName="faulty", Records=records[:1])["FailedRecordCount"] == 0
        assert boto(kinesis, "put_records", StreamName="faulty", Records=records[:1]) == said
    # what was lost or cut has been carried out
    assert len(kinesis.get("faulty")) == 8
    kinesis.gate.fail(partial(lambda i, r: i % 2), "PutRecords")
    said = boto(kinesis, "put_records", StreamName="faulty", Records=records)
    assert said["FailedRecordCount"] == 2 and [r.get("ErrorCode") for r in said["Records"]] == [None, "ProvisionedThroughputExceededException"] * 2
    assert [r["data"] for r in kinesis.get("faulty")][8:] == [b"r0", b"r2"]
    iterator = boto(kinesis, "get_shard_iterator", StreamName="faulty", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    kinesis.gate.fail(expired_iterator, "GetRecords")
    assert boto(kinesis, "get_records", ShardIterator=iterator) == "ExpiredIteratorException"
    kinesis.gate.fail(drip(), lambda request: b"Iterator" in request["body"])
    assert len(boto(kinesis, "get_records", ShardIterator=iterator)["Records"]) == 10


def test_only_kinesis_local():
    kinesis = kinesis_local()
    try:
        kinesis.create_stream("s", 2)
        kinesis.update_shard_count("s", 4)
        assert len(kinesis.list_shards("s")) == 6 and len(kinesis.open_shards("s")) == 4
        arn = kinesis.summary("s")["StreamARN"]
        consumer = kinesis.call("RegisterStreamConsumer", StreamARN=arn, ConsumerName="c")["Consumer"]
        assert consumer["ConsumerARN"].startswith(arn + "/consumer/c")
    finally:
        kinesis.stop()
