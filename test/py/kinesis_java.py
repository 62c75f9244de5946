"""AWS's own libraries for Kinesis as judges: KPL writes (test/kinesis/Kpl.java), KCL reads; in long test runs, they need a JDK."""
import os
import random
import subprocess
import threading

from harness import WORK, forget_pid, note_pid
from kinesis_parts import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY

SOURCES = os.path.join(WORK, "build/test/kinesis")


def jars():
    return subprocess.run([os.path.join(WORK, "build/scripts/kinesis_jars.sh")], stdout=subprocess.PIPE, check=True, text=True).stdout.strip() + "/*"


def java(program, *args):
    return ["java", "-Xmx256m", "-Djava.io.tmpdir=" + WORK, "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", jars(), os.path.join(SOURCES, program + ".java"), *map(str, args)]


def ask(program, lines, *args):
    run = subprocess.run(java(program, *args), input="".join(line + "\n" for line in lines), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
    assert run.returncode == 0, run.stderr[-4000:]
    return run.stdout.splitlines()


def kpl(kinesis, stream, records, most):
    """records: (key, hash key or None, bytes); most: as many in an aggregate.  Before them it writes one, key "first", that is no aggregate."""
    said = ask("Kpl", ["%s %s %s" % (key.encode().hex(), hash_key or "-", data.hex()) for key, hash_key, data in records],
               kinesis.tls_port, REGION, ACCESS_KEY_ID, SECRET_ACCESS_KEY, stream, most)
    assert len(said) == len(records)


def deaggregated(records):
    """records: (key, bytes); what KCL makes of each: [(key, hash key or None, bytes, sub-sequence number, aggregated?)]."""
    found = []
    for line in ask("Deaggregate", ["%s %s" % (key.encode().hex(), data.hex()) for key, data in records]):
        words = line.split(" ")
        found.append([(bytes.fromhex(words[i]).decode(), None if words[i + 1] == "-" else words[i + 1], bytes.fromhex(words[i + 2]), int(words[i + 3]), words[i + 4] == "true")
                      for i in range(0, len(words), 5)])
    return found


def cases():
    """What KPL is given for the vectors: name: (shards, most, records)."""
    chance = random.Random(20)
    return {
        "few keys": (1, 100, [("user%d" % (i % 3), None, b'{"n":%d}' % i) for i in range(10)]),
        "hash keys": (2, 100, [("k%d" % i, None if i % 3 else str(2 ** 127 + i), b"data %d" % i) for i in range(10)]),
        "keys of all lengths, any bytes": (1, 100, [("k" * 256, None, bytes(range(256))), ("ключ", None, b"\x00"), ("x", "0", b"\xf3\x89\x9a\xc2"), ("🙂", str(2 ** 128 - 1), b"\n\x00")]),
        "ten at most": (2, 10, [("k%d" % chance.randrange(5), None, chance.randbytes(chance.randrange(1, 40))) for i in range(45)]),
        "large": (1, 1000, [("k%d" % (i % 7), None, b"%d " % i + b"x" * chance.randrange(300)) for i in range(120)]),
    }


class Reader:
    """KCL, which reads a stream from its beginning: records are (shard, key, data), so far."""

    def __init__(self, kinesis, dynamodb, stream):
        self.records = []
        self.log = open(os.path.join(WORK, "kcl.log"), "w")
        self.process = subprocess.Popen(java("Kcl", "http://127.0.0.1:%d" % kinesis.port, "http://127.0.0.1:%d" % dynamodb.port, REGION, ACCESS_KEY_ID, SECRET_ACCESS_KEY, stream),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        note_pid(self.process.pid)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            words = line.rstrip("\n").split(" ")
            if len(words) == 3 and words[0].startswith("shardId-"):
                self.records.append((words[0], bytes.fromhex(words[1]).decode(), bytes.fromhex(words[2])))

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.thread.join(10)
        forget_pid(self.process.pid)
        self.log.close()
