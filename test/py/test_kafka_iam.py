"""Sign-in at Amazon MSK with IAM: tokens beside botocore's, and a real broker that asks the test who has signed (test/kafka/MskValidator.java)."""
import base64
import datetime
import os
import random
import subprocess
import sys
import time
from urllib.parse import parse_qs, urlsplit

import psycopg2
import pytest
from authority import Authority
from aws_parts import Program, Web, answer, build_program, bytes_of, field
from harness import Kafka, free_port, wait_until
from test_kafka_sink import SOURCES, Sink, numbers, read

sys.path.insert(0, os.environ["KDA_BOTOCORE"])
SECRET = "canary-%s" % os.urandom(16).hex()
OTHER = "canary-%s" % os.urandom(16).hex()
REGION = "eu-west-1"


def presign(key, secret, session, region, at):
    """What Amazon's own clients make a token of."""
    from unittest import mock
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    request = AWSRequest("GET", "https://kafka.%s.amazonaws.com/" % region, params={"Action": "kafka-cluster:Connect"})
    when = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
    with mock.patch("botocore.auth.get_current_datetime", lambda *a, **k: when.replace(tzinfo=None)):
        SigV4QueryAuth(Credentials(key, secret, session), "kafka-cluster", region, expires=900).add_auth(request)
    return request.url


def url_of(token):
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()


def parameters(url):
    return {name: values for name, values in parse_qs(urlsplit(url).query, strict_parsing=True).items()}


@pytest.fixture(scope="module")
def binary():
    return build_program("sink", SOURCES, ["rdkafka"], folder="kafka")


def test_tokens_are_those_of_amazons_signer(binary):
    program = Program(binary)
    chance = random.Random(1)
    for n in range(200):
        key = "AKIA" + "".join(chance.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16))
        secret = "".join(chance.choices("abcXYZ019+/=", k=40))
        session = "".join(chance.choices("abcXYZ019+/=", k=chance.choice([10, 400, 1500]))) if n % 2 else None
        region = chance.choice(["us-east-1", "eu-west-1", "ap-northeast-2", "us-gov-west-1"])
        at = chance.randrange(1000000000, 4000000000)
        program.say("keys", field(region), field(key), field(secret), field(session))
        token = bytes_of(program.ask("token", at)[0]).decode()
        assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        ours, theirs = url_of(token), presign(key, secret, session, region, at)
        assert urlsplit(ours)[:3] == urlsplit(theirs)[:3] == ("https", "kafka.%s.amazonaws.com" % region, "/")
        assert parameters(ours) == {**parameters(theirs), "User-Agent": ["kda_stream"]}
        assert secret not in ours
    program.stop()


class Msk:
    """A broker with one way in, and what it asks."""

    def __init__(self):
        self.authority = Authority("msk")
        self.keys = {}          # access key id: secret
        self.tokens = set()
        self.refused = 0
        self.web = Web(self.check)
        port = free_port()
        self.address = "127.0.0.1:%d" % port
        source = os.path.join(os.environ["KDA_WORK"], "build/test/kafka/MskValidator.java")
        classes = os.path.join(os.environ["KDA_WORK"], "msk_classes")
        subprocess.run(["javac", "-d", classes, "-cp", os.environ["KDA_JARS"] + "/*", source], check=True)
        extra = ["listener.security.protocol.map=PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,MSK:SASL_SSL",
                 "ssl.keystore.type=PEM", "ssl.keystore.location=%s.both.pem" % self.authority.issue("broker"),
                 "listener.name.msk.sasl.enabled.mechanisms=OAUTHBEARER",
                 "listener.name.msk.oauthbearer.sasl.server.callback.handler.class=MskValidator",
                 "listener.name.msk.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;",
                 # a session ends, and whoever wants to go on signs in again
                 "listener.name.msk.oauthbearer.connections.max.reauth.ms=3000"]
        self.kafka = Kafka("msk", "\n".join(extra) + "\n", env={
            "KAFKA_LISTENERS": "MSK://" + self.address, "KAFKA_CLASSPATH": classes, "KDA_MSK_CHECK": self.web.url}).start()
        self.options = {"bootstrap.servers": self.address, "ssl.ca.pem": self.authority.pem, "sasl.mechanisms": "AWS_MSK_IAM"}

    def check(self, request):
        token = request["body"].decode()
        url = url_of(token)
        found = parameters(url)
        key, day, region, service, _ = found["X-Amz-Credential"][0].split("/")
        at = datetime.datetime.strptime(found["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()
        good = (key in self.keys and abs(time.time() - at) < 900 and found["Action"] == ["kafka-cluster:Connect"] and region == REGION and
                found["X-Amz-Signature"] == parameters(presign(key, self.keys[key], found.get("X-Amz-Security-Token", [None])[0], region, at))["X-Amz-Signature"])
        if not good:
            self.refused += 1
            return [answer("", "403 Forbidden")]
        self.tokens.add(token)
        return [answer("arn:aws:iam::123456789012:user/" + key)]


@pytest.fixture(scope="module")
def msk_iam():
    msk = Msk()
    yield msk
    msk.kafka.stop()
    msk.web.stop()


def sql_options(pairs):
    return ", ".join("\"%s\" '%s'" % pair for pair in pairs.items())


def nothing_leaked(server, msk):
    """Neither keys nor tokens are where people look."""
    text = server.log_text() + repr(server.sql("SELECT * FROM kda.streams")) + repr(server.sql("SELECT * FROM kda.shards")) + repr(server.sql("SELECT * FROM kda.workers"))
    for secret in [SECRET, OTHER, "X-Amz-Signature", *msk.tokens]:
        assert secret not in text


def test_reading(server, msk_iam):
    msk_iam.keys["AKIAREADER"] = SECRET
    msk_iam.kafka.create_topic("r")
    msk_iam.kafka.produce("r", [{"v": 1}, {"v": 2}])
    server.sql("CREATE SERVER iam TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (%s)" % sql_options({**msk_iam.options, "region": REGION}))
    server.sql("CREATE USER MAPPING FOR CURRENT_USER SERVER iam OPTIONS (access_key_id 'AKIAREADER', secret_access_key '%s')" % OTHER)
    server.sql("CREATE STREAM r (v int) SERVER iam OPTIONS (start 'earliest')")
    server.sql("CREATE CONTINUOUS VIEW r_v AS SELECT sum(v) s FROM r")

    def last_error():
        return server.value("SELECT last_error FROM kda.streams WHERE stream = 'r'::regclass") or ""
    wait_until(lambda: "uthentication" in last_error(), "the wrong key to be noticed; got " + last_error())
    with pytest.raises(psycopg2.Error) as e:
        server.sql("SELECT * FROM kda.sample('r', 10, '5 s')")
    assert OTHER not in str(e.value) and "X-Amz" not in str(e.value)
    # what the worker has is not asked again: the mapping has become another one
    server.sql("ALTER USER MAPPING FOR CURRENT_USER SERVER iam OPTIONS (SET secret_access_key '%s')" % SECRET)
    wait_until(lambda: server.value("SELECT s FROM r_v") == 3, "the records; got " + last_error())
    assert server.value("SELECT count(*) FROM kda.sample('r')") == 2
    # the broker ends sessions; it goes on
    for n in range(3):
        time.sleep(2)
        msk_iam.kafka.produce("r", [{"v": 10}])
    wait_until(lambda: server.value("SELECT s FROM r_v") == 33, "the records of later sessions")
    nothing_leaked(server, msk_iam)


def test_writing(msk_iam, binary):
    msk_iam.keys["AKIAWRITER"] = SECRET
    msk_iam.kafka.create_topic("w", 3)

    class IamSink(Sink):
        def __init__(self, once, key, secret):
            self.program = Program(binary)
            for name, value in msk_iam.options.items():
                self.program.say("option", field(name), field(value))
            self.keys(key, secret)
            self.program.say("open", field("w"), field("iam-%d" % once), int(once), 0, 0, 0, 500)

        def keys(self, key, secret):
            self.program.say("keys", field(REGION), field(key), field(secret), field(None))
    for once in (True, False):
        before = len(read(msk_iam.kafka, "w"))
        sink = IamSink(once, "AKIAWRITER", OTHER)
        state = sink.until(lambda s: s["error"], "the wrong key to be noticed")
        assert OTHER not in state["error"] and "X-Amz" not in state["error"] and not state["failed"] and not state["ready"]
        sink.keys("AKIAWRITER", SECRET)
        sink.ready()
        for n in range(5):
            time.sleep(1)
            sink.count(n * 100 + 1, 100)
            assert sink.done() == (n * 100 + 100, {})
        # other keys, while it runs; the old ones end
        tokens = len(msk_iam.tokens)
        msk_iam.keys["AKIANEXT%d" % once] = OTHER
        sink.keys("AKIANEXT%d" % once, OTHER)
        sink.state()
        msk_iam.keys["AKIAWRITER"] = "another"
        for n in range(5, 10):
            time.sleep(1)
            sink.count(n * 100 + 1, 100)
            assert sink.done() == (n * 100 + 100, {})
        assert len(msk_iam.tokens) > tokens
        msk_iam.keys["AKIAWRITER"] = SECRET
        sink.close()
        found = numbers(read(msk_iam.kafka, "w"))
        assert len(found) == before + 1000 if once else set(found) >= set(range(1, 1001))


@pytest.mark.parametrize("statement, error, hint", [
    ("CREATE SERVER x TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" 'b:9098', \"sasl.mechanisms\" 'AWS_MSK_IAM')",
     'a server of type "kafka" needs option "region"', "region"),
    ("CREATE SERVER x TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" 'b:9098', region 'eu-west-1')",
     'option "region" is for sign-in with AWS\'s keys only', "AWS_MSK_IAM"),
    ("CREATE SERVER x TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" 'b:9098', region 'eu-west-1', \"sasl.mechanisms\" 'AWS_MSK_IAM', \"security.protocol\" 'SASL_PLAINTEXT')",
     'security.protocol "SASL_PLAINTEXT" does not go with sasl.mechanisms "AWS_MSK_IAM"', "SASL_SSL"),
    ("CREATE SERVER x TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" 'b:9098', region 'no where', \"sasl.mechanisms\" 'AWS_MSK_IAM')",
     'invalid value for option "region"', None),
    ("CREATE USER MAPPING FOR CURRENT_USER SERVER has_iam OPTIONS (\"sasl.username\" 'u', \"sasl.password\" 'p')",
     'invalid option "sasl.username" of a user mapping', "access_key_id"),
    ("CREATE USER MAPPING FOR CURRENT_USER SERVER has_none OPTIONS (access_key_id 'AKIA', secret_access_key 's')",
     'option "access_key_id" is for sign-in with AWS\'s keys only', "AWS_MSK_IAM"),
    ("CREATE USER MAPPING FOR CURRENT_USER SERVER has_iam OPTIONS (access_key_id 'AKIA')",
     'option "access_key_id" needs option "secret_access_key"', "session_token"),
])
def test_options(server, statement, error, hint):
    server.sql("CREATE SERVER IF NOT EXISTS has_iam TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" 'b:9098', region 'eu-west-1', \"sasl.mechanisms\" 'AWS_MSK_IAM')")
    server.sql("CREATE SERVER IF NOT EXISTS has_none TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" 'b:9092')")
    with pytest.raises(psycopg2.Error) as e:
        server.sql(statement)
    assert error in str(e.value)
    assert hint is None or hint in e.value.diag.message_hint
