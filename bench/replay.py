"""A Kinesis stream from memory: every shard has the same pages, made before the first question.  replay.py PORT SHARDS PAGES"""
import asyncio
import base64
import json
import random
import sys
import time

RECORDS = 10000
COUNTRIES = ["KR", "US", "DE", "JP", "BR", "IN"]
ACTIONS = ["view", "click", "purchase", "search"]


def records():
    rnd = random.Random(1)
    now = time.time()
    for i in range(RECORDS):
        event = {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 600 + i // 100)), "user_id": "u-%d" % rnd.randrange(5000),
                 "action": rnd.choice(ACTIONS), "page": "/products/%d?from=social&campaign=%d" % (rnd.randrange(100), 2025000000 + rnd.randrange(1000)),
                 "device": "mobile", "country": rnd.choice(COUNTRIES), "value": 1}
        yield {"ApproximateArrivalTimestamp": round(now, 3), "Data": base64.b64encode(json.dumps(event, separators=(",", ":")).encode()).decode(),
               "PartitionKey": event["user_id"], "SequenceNumber": str(4959033827149025660855969253836157109592 * 10 ** 16 + i)}


def main():
    port, shards, pages = map(int, sys.argv[1:])
    page = json.dumps(list(records()), separators=(",", ":")).encode()

    def say(operation, asked):
        if operation == "DescribeStreamSummary":
            return json.dumps({"StreamDescriptionSummary": {"StreamStatus": "ACTIVE", "RetentionPeriodHours": 24, "StreamCreationTimestamp": 1.7e9}}).encode(),
        if operation == "ListShards":
            return json.dumps({"Shards": [{"ShardId": "shardId-%012d" % n, "SequenceNumberRange": {"StartingSequenceNumber": "1"},
                                           "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": str(2 ** 128 - 1)}} for n in range(shards)]}).encode(),
        if operation == "GetShardIterator":
            return json.dumps({"ShardIterator": "0"}).encode(),
        n = int(asked["ShardIterator"])
        head = b'{"MillisBehindLatest":%d,"NextShardIterator":"%d","Records":' % (max(pages - n - 1, 0), min(n + 1, pages))
        return head, page if n < pages else b"[]", b"}"

    async def serve(reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
                headers = dict(line.split(": ", 1) for line in head[1:] if line)
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                names = {n.lower(): n for n in ("DescribeStreamSummary", "ListShards", "GetShardIterator", "GetRecords")}
                answer = say(names[headers["x-amz-target"].split(".")[1]], body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: %d\r\n\r\n" % sum(map(len, answer)))
                for part in answer:
                    writer.write(part)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def run():
        server = await asyncio.start_server(serve, "127.0.0.1", port)
        await server.serve_forever()
    asyncio.run(run())


main()
