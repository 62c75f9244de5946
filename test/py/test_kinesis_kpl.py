"""Records that AWS's Kinesis Producer Library has aggregated: the vectors in test/kinesis, and (in long runs) KPL itself."""
import base64
import collections
import hashlib
import json
import os

from harness import LONG, WORK
from kinesis_java import cases, deaggregated, kpl
from kinesis_parts import kinesis_local

FIRST = ("first", None, b"\x00")


def vectors():
    with open(os.path.join(WORK, "build/test/kinesis/kpl_records.json")) as f:
        return json.load(f)


def user_records(record):
    return [(u["key"], u["hash_key"], base64.b64decode(u["data"])) for u in record["user_records"]]


def is_complete(case, records):
    """All that KPL was given, and nothing else (it promises no order)."""
    sent = [FIRST] + cases()[case][2]
    found = [u for r in records for u in user_records(r)]
    assert collections.Counter(found) == collections.Counter(sent)


def test_vectors():
    assert sorted(vectors()["cases"]) == sorted(cases())
    for case, records in vectors()["cases"].items():
        is_complete(case, records)
        for r in records:
            data = base64.b64decode(r["data"])
            if len(r["user_records"]) > 1:
                assert data[:4] == b"\xf3\x89\x9a\xc2" and data[-16:] == hashlib.md5(data[4:-16]).digest() and r["key"] == "a"


if LONG:
    def test_kpl_writes_as_the_vectors_say():
        """And KCL reads it so.  The vectors are the file that this leaves: KDA_KEEP=1 test/run --long kpl"""
        kinesis = kinesis_local()
        made = {}
        try:
            for i, (case, (shards, most, records)) in enumerate(cases().items()):
                stream = "kpl%d" % i
                kinesis.create_stream(stream, shards)
                kpl(kinesis, stream, records, most)
                arrived = kinesis.get(stream)
                made[case] = [{"shard": r["shard"], "key": r["key"], "data": base64.b64encode(r["data"]).decode(),
                               "user_records": [{"key": u[0], "hash_key": u[1], "data": base64.b64encode(u[2]).decode()} for u in user]}
                              for r, user in zip(arrived, deaggregated([(r["key"], r["data"]) for r in arrived]))]
        finally:
            kinesis.stop()
        with open(os.path.join(WORK, "kpl_records.json"), "w") as f:
            json.dump({"made_by": "amazon-kinesis-producer 1.1.1; user_records: what amazon-kinesis-client 3.5.1 makes of them", "cases": made}, f, indent=1, ensure_ascii=False)
            f.write("\n")
        for case, records in made.items():
            is_complete(case, records)
