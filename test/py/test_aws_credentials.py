"""Keys for AWS from everywhere they can come from, and signed calls that go on through faults; no secret gets out."""
import json
import os
import random
import re
import time

import pytest
from authority import Authority
from aws_parts import Gate, Program, Web, answer, build_program, bytes_of, field, moto
from harness import LONG, WORK, wait_until

FINE, AGAIN, THROTTLED, SKEWED, EXPIRED, DENIED, REFUSED = range(7)
CANARY = "canary/+" + os.urandom(12).hex()
TOKEN = "canary-token/+=" + os.urandom(12).hex()
CONNECTORS = ["credentials", "aws", "aws_reply", "retry", "sigv4", "http", "endpoint", "threads", "secret"]
ROLE = "arn:aws:iam::123456789012:role/reader"


class Caller(Program):
    def open(self, ca_pem=None, retry_max_ms=200):
        self.say("open", field(ca_pem), retry_max_ms)
        return self

    def fixed(self, name, key, secret, token=None):
        self.say("fixed", name, field(key), field(secret), field(token))

    def role(self, name, base, sts_url, arn=ROLE, external_id=None):
        self.say("role", name, base, field(arn), field(external_id), field(sts_url))

    def keys(self, name, word="keys"):
        state, *values = self.ask(word, name)
        return (state, *[bytes_of(v).decode() for v in values])

    def service(self, name, credentials, url, max_attempts=3):
        self.say("service", name, -1 if credentials is None else credentials, field(url), max_attempts)

    def call(self, service, body="{}", n=1, timeout_ms=20000):
        self.say("call", n, service, field("Kinesis_20131202.ListShards"), field(body), timeout_ms)
        answers = []
        for _ in range(n):
            trouble, status, code, message, reply = self.hear()
            answers.append((int(trouble), int(status), bytes_of(code).decode(), bytes_of(message).decode(), bytes_of(reply)))
        return answers if n > 1 else answers[0]

    def count(self, service):
        return dict(zip(("attempts", "failures", "throttled", "skew"), map(int, self.ask("count", service))))

    def close(self):
        assert self.ask("close") == ["closed"]


@pytest.fixture(scope="module")
def binary():
    return build_program("credentials", CONNECTORS, ["curl", "ssl"])


@pytest.fixture
def start(binary):
    """start(environment…) → a program; all are stopped, with what their sanitizers say."""
    running = []

    def begin(retry_max_ms=200, **environment):
        env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        program = Caller(binary, {**env, "AWS_EC2_METADATA_DISABLED": "true", **environment})
        running.append(program)
        return program.open(retry_max_ms=retry_max_ms)
    yield begin
    for program in running:
        program.close()
        program.stop()


@pytest.fixture(scope="module")
def parts():
    part = moto()
    yield part
    part.stop()


@pytest.fixture
def kinesis():
    gate = Gate({"AKID": (CANARY, None), "ASIA": (CANARY, TOKEN)}, lambda request: [answer(b'{"Shards": []}')])
    yield gate
    gate.stop()


@pytest.fixture
def sts(parts):
    gate = Gate({"AKID": (CANARY, None)}, forward=parts.port)
    yield gate
    gate.stop()


def clean(text):
    """No part of a secret that is long enough to be one."""
    assert not any(secret[i:i + 12] in text for secret in (CANARY, TOKEN) for i in range(len(secret) - 11)), text
    return text


# ---- calls

def test_a_signed_call(start, kinesis):
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.fixed(1, "ASIA", CANARY, TOKEN)
    for keys in (0, 1):
        p.service(keys, keys, kinesis.url)
        assert p.call(keys, '{"StreamName": "s"}') == (FINE, 200, "", "", b'{"Shards": []}')
        request = kinesis.requests[-1]
        assert (request["key"], request["service"], request["region"]) == (("AKID", "ASIA")[keys], "kinesis", "eu-west-1")
        assert request["body"] == b'{"StreamName": "s"}' and request["headers"]["x-amz-target"] == "Kinesis_20131202.ListShards"
        assert p.count(keys) == {"attempts": 1, "failures": 0, "throttled": 0, "skew": 0}


def test_wrong_keys(start, kinesis):
    p = start()
    p.fixed(0, "AKID", CANARY[::-1])
    p.fixed(1, "NOBODY", CANARY)
    p.fixed(2, "ASIA", CANARY, TOKEN[::-1])
    for keys, code in ((0, "InvalidSignatureException"), (1, "UnrecognizedClientException"), (2, "InvalidSignatureException")):
        p.service(keys, keys, kinesis.url)
        trouble, status, said, message, _ = p.call(keys)
        assert (trouble, status, said) == (DENIED, 400, code) and message.startswith(code + ": The "), message
        # what AWS shows of the request has the token in it
        assert TOKEN[::-1] not in clean(message)
        assert p.count(keys)["attempts"] == 1


@pytest.mark.parametrize("ahead", [3600, -7200, 400, 86400 * 400])
def test_a_clock_that_differs(start, kinesis, ahead):
    """The service's Date corrects it, once for all calls."""
    kinesis.ahead = ahead
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.service(0, 0, kinesis.url)
    assert p.call(0)[0] == FINE
    count = p.count(0)
    assert (count["attempts"], count["failures"]) == (2, 1) and abs(count["skew"] - ahead) <= 5
    assert p.call(0)[0] == FINE and p.count(0)["attempts"] == 3
    # and back
    kinesis.ahead = 0
    assert p.call(0)[0] == FINE and p.count(0)["attempts"] == 5


def test_a_clock_that_runs_away(start, kinesis):
    """It is corrected at once, but not for ever."""
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.service(0, 0, kinesis.url, max_attempts=3)
    kinesis.faults = [[answer(b"{}", "403 Forbidden", ["x-amzn-ErrorType: RequestTimeTooSkewed:", "Date: Wed, 01 Jan 20%02d 00:00:00 GMT" % y])] for y in range(30, 60)]
    assert p.call(0)[0] == SKEWED
    assert p.count(0)["attempts"] == 4


def test_without_a_date_it_is_the_keys(start, kinesis):
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.service(0, 0, kinesis.url)
    kinesis.faults = [[answer(b'{"__type": "InvalidSignatureException"}', "400 Bad Request")]]
    assert p.call(0)[:3] == (DENIED, 400, "InvalidSignatureException")


def failing(kinesis, status, code, headers=()):
    return kinesis.error(status, code, "not now", headers)


@pytest.mark.parametrize("fault, trouble", [
    (lambda k: failing(k, "500 Internal Server Error", "InternalFailure"), AGAIN), (lambda k: failing(k, "503 Service Unavailable", "ServiceUnavailable"), AGAIN),
    (lambda k: failing(k, "400 Bad Request", "ProvisionedThroughputExceededException"), THROTTLED), (lambda k: failing(k, "400 Bad Request", "LimitExceededException"), THROTTLED),
    (lambda k: failing(k, "429 Too Many Requests", "Whatever"), THROTTLED), (lambda k: [answer(b"<html>Bad Gateway</html>", "502 Bad Gateway")], AGAIN),
    (lambda k: [answer(b"", "504 Gateway Timeout")], AGAIN), (lambda k: [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "reset"], AGAIN),
    (lambda k: ["reset"], AGAIN), (lambda k: ["close"], AGAIN)])
def test_what_is_tried_again(start, kinesis, fault, trouble):
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.service(0, 0, kinesis.url, max_attempts=3)
    kinesis.faults = [fault(kinesis), fault(kinesis)]
    assert p.call(0)[0] == FINE
    assert p.count(0) == {"attempts": 3, "failures": 2, "throttled": 2 if trouble == THROTTLED else 0, "skew": 0}
    # and given up.  (A kept connection that ends without a word is libcurl's to open anew.)
    kinesis.faults = [fault(kinesis)] * 10
    got, status, code, message, _ = p.call(0)
    assert got == trouble and message and p.count(0)["attempts"] == 6


@pytest.mark.parametrize("fault, trouble, code, says", [
    (lambda k: failing(k, "400 Bad Request", "ResourceNotFoundException"), REFUSED, "ResourceNotFoundException", "ResourceNotFoundException: not now"),
    (lambda k: failing(k, "400 Bad Request", "ExpiredIteratorException"), REFUSED, "ExpiredIteratorException", "ExpiredIteratorException: not now"),
    (lambda k: failing(k, "400 Bad Request", "AccessDeniedException"), DENIED, "AccessDeniedException", "AccessDeniedException: not now"),
    (lambda k: [answer(b"", "413 Payload Too Large")], REFUSED, "", "HTTP status 413"),
    (lambda k: [answer(b"", "302 Found", ["Location: http://169.254.169.254/"])], REFUSED, "", "HTTP status 302: redirects are not followed"),
    (lambda k: [answer(b"<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>a &lt; b &#38; \xc3\xa9</Message></Error></ErrorResponse>", "403 Forbidden")],
     DENIED, "AccessDenied", "AccessDenied: a < b & ??"),
    (lambda k: [answer(b"<html>\r\n<h1>Blocked by \xff a proxy\x00", "403 Forbidden")], DENIED, "", "HTTP status 403: <html>  <h1>Blocked by ? a proxy"),
    (lambda k: [answer(b'{"__type": 7, "message": ["x"]}', "400 Bad Request")], REFUSED, "7", "7"),
    (lambda k: [answer(b'{"__type":', "400 Bad Request")], REFUSED, "", 'HTTP status 400: {"__type":'),
    (lambda k: [answer(b'[' * 100000, "400 Bad Request")], REFUSED, "", "HTTP status 400: " + "[" * 282),
    (lambda k: [answer(b"x" * 2000000, "400 Bad Request")], REFUSED, "", "the answer is too large"),
    (lambda k: [answer(b"{}", "400 Bad Request", ["x-amzn-ErrorType: ValidationException:http://internal.amazon.com/"])], REFUSED, "ValidationException", "ValidationException")])
def test_what_is_not(start, kinesis, fault, trouble, code, says):
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.service(0, 0, kinesis.url)
    kinesis.faults = [fault(kinesis)]
    got = p.call(0)
    assert (got[0], got[2], got[3]) == (trouble, code, says)
    assert p.count(0)["attempts"] == 1


def test_pauses_grow_and_are_bounded(start):
    p = start()

    def pauses(attempts, first, most, at_least=0):
        return list(map(int, p.ask("retry", attempts, first, most, at_least)[:-1]))
    for _ in range(20):
        got = pauses(0, 100, 1000)
        assert len(got) == 20
        for pause, full in zip(got, [100, 200, 400, 800] + [1000] * 16):
            assert full / 2 <= pause <= full, got
    # by chance, so that who failed together does not come back together
    assert len({tuple(pauses(0, 10000, 1000000)) for _ in range(10)}) == 10
    assert len(pauses(4, 100, 1000)) == 4 and pauses(4, 100, 1000)[-1] == -1 and pauses(1, 100, 1000) == [-1]
    # what the other side asks for, up to the limit
    assert pauses(2, 100, 1000, 700)[0] == 700 and pauses(2, 100, 1000, 3600000)[0] == 1000


def test_a_service_that_asks_for_a_pause(start, kinesis):
    p = start(retry_max_ms=400)
    p.fixed(0, "AKID", CANARY)
    p.service(0, 0, kinesis.url)
    kinesis.faults = [failing(kinesis, "503 No", "ServiceUnavailable", ["Retry-After: 3600"])]
    begun = time.monotonic()
    assert p.call(0)[0] == FINE
    assert 0.4 <= time.monotonic() - begun < 30


def test_two_hundred_calls(start, kinesis):
    kinesis.faults = [failing(kinesis, "400 Bad Request", "ProvisionedThroughputExceededException") if i % 3 == 0 else [answer(b"{}")] for i in range(200)]
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.service(0, 0, kinesis.url)
    assert {c[0] for c in p.call(0, n=200)} == {FINE}
    assert p.count(0)["throttled"] == 67


def test_nobody_listens(start):
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.service(0, 0, "http://127.0.0.1:1", max_attempts=2)
    trouble, status, _, message, _ = p.call(0)
    assert (trouble, status) == (AGAIN, 0) and "127.0.0.1" in message


# ---- roles

def test_a_role(start, sts, kinesis):
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.role(1, 0, sts.url, external_id="a b&c=ü")
    state, key, secret, token = p.keys(1)
    assert state == "ready" and sts.keys[key] == (secret, token)
    request = sts.requests[-1]
    assert (request["key"], request["service"]) == ("AKID", "sts")
    from urllib.parse import parse_qs
    assert parse_qs(request["body"].decode()) == {"Action": ["AssumeRole"], "Version": ["2011-06-15"], "RoleArn": [ROLE], "RoleSessionName": ["kda_stream"], "ExternalId": ["a b&c=ü"]}
    kinesis.keys.update(sts.keys)
    p.service(0, 1, kinesis.url)
    assert p.call(0)[0] == FINE and kinesis.requests[-1]["key"] == key
    assert len(sts.requests) == 1


def test_a_role_over_a_role(start, sts):
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.role(1, 0, sts.url)
    p.role(2, 1, sts.url, arn=ROLE + "2")
    assert p.keys(2)[0] == "ready"
    first, second = sts.requests
    assert first["key"] == "AKID" and second["key"] in sts.keys and second["key"] != "AKID" and second["headers"]["x-amz-security-token"]


def sts_answer(n, seconds, key="ASIA"):
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
    return [answer("<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>%s%d</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken>"
                   "<Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>" % (key, n, CANARY, TOKEN, at))]


def test_one_refresh_for_many_before_the_end(start, kinesis):
    given = []

    def grant(request):
        given.append(request)
        kinesis.keys["ASIA%d" % len(given)] = (CANARY, TOKEN)
        return [0.2] + sts_answer(len(given), 3600 * len(given))
    sts = Gate({"AKID": (CANARY, None)}, grant)
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.role(1, 0, sts.url)
    p.service(0, 1, kinesis.url)
    assert {c[0] for c in p.call(0, n=200)} == {FINE} and len(given) == 1
    # an hour's keys: after 50 minutes they are still those, after 58 they are renewed while they are used
    kinesis.ahead = sts.ahead = 3000
    p.say("clock", 3000)
    assert {c[0] for c in p.call(0, n=50)} == {FINE} and len(given) == 1
    kinesis.ahead = sts.ahead = 3480
    p.say("clock", 3480)
    assert {c[0] for c in p.call(0, n=200)} == {FINE}
    assert "ASIA1" in {r["key"] for r in kinesis.requests[-200:]}
    wait_until(lambda: p.keys(1)[1] == "ASIA2", "the new keys")
    assert len(given) == 2
    # keys that have ended are not used: everybody waits for the one refresh
    kinesis.ahead = sts.ahead = 20000
    p.say("clock", 20000)
    n = len(kinesis.requests)
    assert {c[0] for c in p.call(0, n=200)} == {FINE}
    assert {r["key"] for r in kinesis.requests[n:]} == {"ASIA3"} and len(given) == 3
    sts.stop()


def test_keys_that_have_ended_early(start, kinesis):
    """A service says so: new ones, once."""
    given = []
    sts = Gate({"AKID": (CANARY, None)}, lambda request: given.append(1) or sts_answer(len(given), 3600))
    kinesis.keys["ASIA2"] = (CANARY, TOKEN)
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.role(1, 0, sts.url)
    p.service(0, 1, kinesis.url)
    kinesis.faults = [kinesis.error("400 Bad Request", "ExpiredTokenException", "The security token included in the request is expired")]
    assert p.call(0)[0] == FINE
    assert len(given) == 2
    # fixed keys cannot be renewed
    kinesis.faults = [kinesis.error("400 Bad Request", "ExpiredTokenException", "expired")]
    p.fixed(0, "AKID", CANARY)
    p.service(1, 0, kinesis.url)
    assert p.call(1)[:3] == (EXPIRED, 400, "ExpiredTokenException")
    sts.stop()


def test_a_role_that_is_denied_and_then_granted(start, kinesis):
    refuse = [True]
    denied = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>User is not authorized to perform: sts:AssumeRole with %s</Message></Error></ErrorResponse>" % CANARY
    sts = Gate({"AKID": (CANARY, None)}, lambda request: [answer(denied, "403 Forbidden")] if refuse else sts_answer(1, 3600))
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.role(1, 0, sts.url)
    state, error = p.keys(1)
    assert state == "none" and error.startswith('could not assume the role "%s": AccessDenied: User is not authorized' % ROLE)
    clean(error)
    p.service(0, 1, kinesis.url)
    trouble, _, _, message, _ = p.call(0)
    assert trouble == DENIED and message.startswith("could not assume the role")
    refuse.clear()
    kinesis.keys["ASIA1"] = (CANARY, TOKEN)
    wait_until(lambda: p.keys(1)[0] == "ready", "the role")
    assert p.call(0)[0] == FINE
    sts.stop()


@pytest.mark.parametrize("reply", [b"", b"{}", b"<AssumeRoleResponse>", b"<AccessKeyId>A</AccessKeyId>", b"<AccessKeyId></AccessKeyId><SecretAccessKey>x</SecretAccessKey><SessionToken>y</SessionToken>",
                                   b"<AccessKeyId>A</AccessKeyId><SecretAccessKey>x</SecretAccessKey><SessionToken>y"])
def test_an_sts_that_talks_nonsense(start, reply):
    sts = Gate({"AKID": (CANARY, None)}, lambda request: [answer(reply)])
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.role(1, 0, sts.url)
    assert p.keys(1) == ("none", 'could not assume the role "%s": the answer has no keys in it' % ROLE)
    sts.stop()


def test_a_clock_that_sts_corrects(start, parts):
    sts = Gate({"AKID": (CANARY, None)}, forward=parts.port)
    sts.ahead = 7200
    p = start()
    p.fixed(0, "AKID", CANARY)
    p.role(1, 0, sts.url)
    assert p.keys(1)[0] == "ready" and len(sts.requests) == 2
    sts.stop()


# ---- the machine's

def test_instance(start, parts):
    """moto's metadata service."""
    p = start(AWS_EC2_METADATA_DISABLED="false", AWS_EC2_METADATA_SERVICE_ENDPOINT="http://127.0.0.1:%d" % parts.port)
    p.say("machine", 0)
    assert p.keys(0) == ("ready", "test-key", "test-secret-key", "test-session-token")


class Instance(Web):
    """A metadata service that insists on IMDSv2."""

    def __init__(self):
        self.token, self.role, self.code = "session-" + TOKEN, "web server", "Success"
        super().__init__(self.handle)

    def handle(self, request):
        base = "/latest/meta-data/iam/security-credentials/"
        if (request["method"], request["path"]) == ("PUT", "/latest/api/token"):
            if self.token is None:
                return [30]
            return [answer(self.token) if 1 <= int(request["headers"]["x-aws-ec2-metadata-token-ttl-seconds"]) <= 21600 else answer("", "400 Bad Request")]
        if request["headers"].get("x-aws-ec2-metadata-token") != self.token:
            return [answer("", "401 Unauthorized")]
        if request["path"] == base:
            return [answer(self.role) if self.role else answer("<html>404", "404 Not Found")]
        if request["path"] == base + self.role.replace(" ", "%20"):
            return [answer(json.dumps({"Code": self.code, "Type": "AWS-HMAC", "Nested": {"AccessKeyId": ["no"]}, "AccessKeyId": "ASIAI", "SecretAccessKey": CANARY,
                                       "Token": TOKEN, "Expiration": "2000-01-01T00:00:00Z"}))]
        return [answer("", "404 Not Found")]


def test_instance_as_it_should_be_asked(start):
    """Keys that the service gives are used, even if by this clock they have ended long ago."""
    imds = Instance()
    p = start(AWS_EC2_METADATA_DISABLED="", AWS_EC2_METADATA_SERVICE_ENDPOINT=imds.url + "/")
    p.say("machine", 0)
    assert p.keys(0) == ("ready", "ASIAI", CANARY, TOKEN)
    assert [r["method"] for r in imds.requests] == ["PUT", "GET", "GET"]
    assert p.keys(0)[0] == "ready" and len(imds.requests) == 3
    assert p.keys(0, "again")[0] == "ready" and len(imds.requests) == 6
    imds.stop()


def test_instance_without(start):
    imds = Instance()
    imds.role = ""
    p = start(AWS_EC2_METADATA_DISABLED="", AWS_EC2_METADATA_SERVICE_ENDPOINT=imds.url)
    p.say("machine", 0)
    assert p.keys(0) == ("none", "could not get the credentials of the instance: HTTP status 404: <html>404")
    imds.role = "late"
    wait_until(lambda: p.keys(0)[0] == "ready", "the role")
    # from inside of a container, an answer to PUT does not arrive
    imds.token = None
    state, error = p.keys(0, "again")
    assert state == "none" and "hop limit" in error
    imds.stop()


def test_no_metadata_service_wanted(start):
    p = start()
    p.say("machine", 0)
    assert p.keys(0) == ("none", "the machine has no credentials: its environment names none, and AWS_EC2_METADATA_DISABLED is set")


def test_container(start):
    """The token's file is read each time: it is renewed by others."""
    path = os.path.join(WORK, "container_token")

    def handler(request):
        if request["headers"].get("authorization") != "Bearer " + expected[0]:
            return [answer(json.dumps({"code": "AccessDenied", "message": "bad token " + request["headers"]["authorization"]}), "403 Forbidden")]
        return [answer(json.dumps({"RoleArn": ROLE, "AccessKeyId": "ASIAC", "SecretAccessKey": CANARY, "Token": TOKEN, "Expiration": "2100-01-01T00:00:00.123Z"}))]
    expected = ["one"]
    agent = Web(handler)
    with open(path, "w") as f:
        f.write("Bearer one\n")
    p = start(AWS_CONTAINER_CREDENTIALS_FULL_URI=agent.url + "/v1/credentials?x=1", AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=path, AWS_EC2_METADATA_DISABLED="")
    p.say("machine", 0)
    assert p.keys(0) == ("ready", "ASIAC", CANARY, TOKEN)
    assert agent.requests[0]["path"] == "/v1/credentials?x=1"
    expected[0] = "two"
    # one that shows what it was sent
    state, error = p.keys(0, "again")
    assert (state, error) == ("none", "could not get the credentials of the container: AccessDenied: bad token **********")
    with open(path, "w") as f:
        f.write("Bearer two")
    wait_until(lambda: p.keys(0)[0] == "ready", "the new token")
    # without a file
    p = start(AWS_CONTAINER_CREDENTIALS_FULL_URI=agent.url + "/x", AWS_CONTAINER_AUTHORIZATION_TOKEN="Bearer two")
    p.say("machine", 0)
    assert p.keys(0)[0] == "ready" and p.keys(0, "again")[0] == "ready"
    os.unlink(path)
    p = start(AWS_CONTAINER_CREDENTIALS_FULL_URI=agent.url + "/x", AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=path)
    p.say("machine", 0)
    assert p.keys(0) == ("none", 'could not get the credentials of the container: no token can be read from file "%s"' % path)
    agent.stop()


def test_container_elsewhere(start):
    """Keys do not come over a network without TLS."""
    p = start(AWS_CONTAINER_CREDENTIALS_FULL_URI="http://credentials.example.com/x")
    p.say("machine", 0)
    state, error = p.keys(0)
    assert state == "none" and error.startswith("environment variable AWS_CONTAINER_CREDENTIALS_FULL_URI of the server is wrong: Only addresses of this machine")


def test_web_identity(start, parts, kinesis):
    """What the environment names first is used, and nothing else if that fails."""
    path = os.path.join(WORK, "web_token")
    imds = Instance()
    options = {"AWS_WEB_IDENTITY_TOKEN_FILE": path, "AWS_ROLE_ARN": ROLE, "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:%d" % parts.port,
               "AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url, "AWS_CONTAINER_CREDENTIALS_FULL_URI": imds.url + "/x"}
    p = start(**options)
    p.say("machine", 0)
    assert p.keys(0) == ("none", 'could not assume the role of the web identity: no token can be read from file "%s"' % path)
    with open(path, "w") as f:
        f.write("header.claims.signature\n")
    p = start(**options)
    p.say("machine", 0)
    state, key, secret, token = p.keys(0)
    assert state == "ready" and key.startswith("ASIA") and secret and token
    assert imds.requests == []
    # as the base of a role
    sts = Gate({key: (secret, token)}, forward=parts.port)
    p.role(1, 0, sts.url)
    assert p.keys(1)[0] == "ready" and sts.requests[0]["key"] == key
    sts.stop()
    # the request itself is not signed: the token is what counts
    seen = Web(lambda request: [answer("<E><Code>header.claims.signature</Code><Message>no header.claims.signature</Message></E>", "400 Bad Request")])
    p = start(**{**options, "AWS_ENDPOINT_URL_STS": seen.url, "AWS_ROLE_SESSION_NAME": "me"})
    p.say("machine", 0)
    assert p.keys(0) == ("none", 'could not assume the role of the web identity "%s": no %s' % (ROLE, "*" * 23))
    assert "authorization" not in seen.requests[0]["headers"]
    assert seen.requests[0]["body"].decode().endswith("&RoleSessionName=me&WebIdentityToken=header.claims.signature")
    seen.stop()
    imds.stop()


# ---- reading answers

def random_json(r, depth=0):
    kind = r.randrange(7 if depth < 4 else 5)
    if kind == 0:
        return r.choice([None, True, False, 0, -1.5e300, 12345678901234567890])
    if kind < 5:
        return "".join(r.choice('ab"\\/\n\té日\U0001f600\x7f&<') for _ in range(r.randrange(8)))
    if kind == 5:
        return [random_json(r, depth + 1) for _ in range(r.randrange(4))]
    return {random_json_key(r): random_json(r, depth + 1) for _ in range(r.randrange(5))}


def random_json_key(r):
    return r.choice(["Token", "Secret", 'q"', "\\", "", "é"])


def test_fields_of_json_as_python_reads_them(start):
    r = random.Random(int(os.environ.get("KDA_SEED", 5)))
    p = start()

    def ask(name, text):
        found, value = p.ask("json", field(name), field(text))
        return bytes_of(value).decode("utf-8", "surrogatepass") if found == "yes" else None
    for i in range(5000 if LONG else 500):
        document = {random_json_key(r): random_json(r) for _ in range(r.randrange(6))}
        text = json.dumps(document, ensure_ascii=r.random() < 0.5, indent=r.choice([None, 1]))
        for name in ("Token", 'q"', "é", "absent"):
            value = document.get(name)
            if isinstance(value, str):
                assert ask(name, text) == value, text
            elif isinstance(value, (dict, list)) or name not in document:
                assert ask(name, text) is None, text
            else:
                assert ask(name, text) == json.dumps(value), text
        # whatever is not JSON is no danger
        broken = bytearray(text.encode())
        for _ in range(r.randrange(1, 4)):
            if broken:
                broken[r.randrange(len(broken))] = r.choice(b'{}[]",:\\u\x00\xff')
        p.ask("json", field("Token"), field(bytes(broken[:r.randrange(len(broken) + 1)])))
    assert ask("a", '{"a": "\\ud83d\\ude00\\u00e9\\n"}') == "\U0001f600é\n"
    for bad in ('{"a": "\\ud83d"}', '{"a": "\\ude00x"}', '{"a": "\\u12"}', '{"a": "\\x"}', '{"a": "b', '{"a"', '"a"', "", "{" * 1000, '{"b":' + "[" * 100000 + ', "a": "x"}'):
        if bad != '{"a": "\\ude00x"}':
            assert ask("a", bad) is None, bad


def test_elements_of_xml(start):
    p = start()

    def ask(name, text):
        found, value = p.ask("xml", field(name), field(text))
        return bytes_of(value).decode() if found == "yes" else None
    assert ask("A", "<x><AB>no</AB><A>yes &amp; &lt;&#65;&#x42;&gt;&quot;&apos;</A><A>second</A></x>") == "yes & <AB>\"'"
    assert ask("A", '<A xmlns="urn:x">y</A>') == "y" and ask("A", "<A></A>") == ""
    for bad in ("", "<A", "<A>", "<A>x", "<A>x<", "<A>&amp</A>", "<A>&#x110000;</A>", "<A>&#0;</A>", "<A>&#;", "<A>&#99999999999999999999;</A>", "<A>x<B>y</B></A>", "<B>A</B>", "A>x</A>"):
        assert ask("A", bad) is None, bad
    r = random.Random(6)
    text = b"<x><A>yes &amp; &#x42;</A></x>"
    for _ in range(2000):
        broken = bytearray(text[:r.randrange(len(text) + 1)])
        if broken:
            broken[r.randrange(len(broken))] = r.randrange(256)
        p.ask("xml", field("A"), field(bytes(broken)))


def test_times(start):
    p = start()
    for text, seconds in (("2026-01-01T10:00:00Z", 1767261600), ("2026-01-01T10:00:00.999999Z", 1767261600), ("2026-01-01T10:00:00+00:00", 1767261600), ("1970-01-01T00:00:00Z", 0),
                          ("2026-13-01T10:00:00Z", -1), ("2026-01-01", -1), ("2026-01-01T10:00:00", -1), ("x", -1), ("2026-01-01T10:00:00+05:00", -1), ("-001-01-01T10:00:00Z", -1)):
        assert int(p.ask("time", field(text))[0]) == seconds, text


# ---- no secret gets out: a core dump has all memory but what is marked otherwise

def mappings(pid, shared):
    """Readable memory of a process: from, to, would it be in a core dump.  shared: also that of others."""
    found, current = [], None
    with open("/proc/%d/smaps" % pid) as f:
        for line in f:
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line)
            if head:
                current = (int(head.group(1), 16), int(head.group(2), 16), head.group(3))
            elif line.startswith("VmFlags:") and current[2].startswith("r"):
                if shared or "sh" not in line.split():
                    found.append((*current[:2], "dd" not in line.split()))
    return found


def where_in_memory(pid, needles, shared=True):
    """How often each is in memory that a core dump would have, and in memory that it would not."""
    dumped, kept = dict.fromkeys(needles, 0), dict.fromkeys(needles, 0)
    with open("/proc/%d/mem" % pid, "rb", 0) as mem:
        for begin, end, in_dump in mappings(pid, shared):
            if end - begin > 1 << 32:
                continue        # a sanitizer's shadow
            try:
                mem.seek(begin)
                content = mem.read(end - begin)
            except (OSError, OverflowError, ValueError):
                continue
            for needle in needles:
                (dumped if in_dump else kept)[needle] += content.count(needle)
    return dumped, kept


@pytest.fixture(scope="module")
def secure():
    """A certificate for services, and programs without the sanitizers, whose memory keeps what was freed."""
    authority = Authority("secrets")
    return authority.pem, authority.issue("aws") + ".both.pem", build_program("credentials", CONNECTORS, ["curl", "ssl"], sanitize=False)


def check_memory(secure, secrets, environment, act):
    """Lets act(program) use the secrets, and looks for them while and after it does."""
    ca_pem, _, binary = secure
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    p = Caller(binary, {**env, **environment})
    p.open(ca_pem=ca_pem)
    needles = [s.encode() for s in secrets]
    for look in act(p):
        dumped, kept = where_in_memory(p.process.pid, needles)
        assert not any(dumped.values()), (look, dumped, kept)
        if look == "in use":
            assert all(kept.values()), (look, kept)     # else this test sees nothing
    p.close()
    dumped, kept = where_in_memory(p.process.pid, needles)
    assert not any(dumped.values()) and not any(kept.values()), (dumped, kept)
    p.stop()


def canaries(n):
    return ["canary" + os.urandom(20).hex() for _ in range(n)]


def pair_of_answers(key, secret, token):
    """The same keys as STS and as the metadata services give them."""
    xml = "<C><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></C>" % (key, secret, token)
    return xml, json.dumps({"AccessKeyId": key, "SecretAccessKey": secret, "Token": token, "Expiration": "2100-01-01T00:00:00Z"})


def test_fixed_keys_and_roles_in_memory(secure):
    secret, token, role_secret, role_token = canaries(4)
    sts = Gate({"AKID": (secret, token)}, lambda r: [0.1, answer(pair_of_answers("ASIA", role_secret, role_token)[0])], certificate=secure[1])
    kinesis = Gate({"AKID": (secret, token), "ASIA": (role_secret, role_token)}, lambda r: [0.1, answer(b"{}")], certificate=secure[1])
    hanging = Web(lambda r: [30], certificate=secure[1])
    echo = Web(lambda r: [answer(json.dumps(r["headers"]), "400 Bad Request")], certificate=secure[1])

    def act(p):
        p.fixed(0, "AKID", secret, token)
        p.fixed(2, "AKID", secret, token)
        p.role(1, 0, sts.url)
        for service, keys in ((0, 1), (1, 2)):
            p.service(service, keys, kinesis.url)
            assert {c[0] for c in p.call(service, n=20)} == {FINE}
            yield "in use"
            kinesis.faults = [["reset"], failing(kinesis, "500 No", "InternalFailure"), [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "close"]]
            p.call(service)
            yield "in use"
            # a service that shows what it was sent
            p.service(service, keys, echo.url)
            assert not any(s in p.call(service)[3] for s in (secret, token, role_secret, role_token))
            yield "in use"
            # in the middle of a call that is then cut off
            p.service(service, keys, hanging.url, max_attempts=1)
            n = len(hanging.requests)
            p.say("call", 3, service, field("T"), field("{}"), 2000)
            wait_until(lambda: len(hanging.requests) >= n + 3, "the calls")
            yield "in use"
            assert [p.hear()[0] for _ in range(3)] == [str(AGAIN)] * 3
    check_memory(secure, (secret, token, role_secret, role_token), {"AWS_EC2_METADATA_DISABLED": "true"}, act)
    for web in (sts, kinesis, hanging, echo):
        web.stop()


def test_machine_credentials_in_memory(secure):
    secret, token, bearer = canaries(3)
    xml, plain = pair_of_answers("ASIA", secret, token)
    kinesis = Gate({"ASIA": (secret, token)}, lambda r: [answer(b"{}")], certificate=secure[1])
    path = os.path.join(WORK, "bearer")
    with open(path, "w") as f:
        f.write(bearer)
    services = {
        "instance": Web(lambda r: [answer(bearer if r["method"] == "PUT" else "role" if r["path"].endswith("/") else plain)]),
        "container": Web(lambda r: [answer(plain if r["headers"]["authorization"] == bearer else "")], certificate=secure[1]),
        "identity": Web(lambda r: [answer(xml if bearer.encode() in r["body"] else "")], certificate=secure[1])}
    environments = {
        "instance": {"AWS_EC2_METADATA_SERVICE_ENDPOINT": services["instance"].url},
        "container": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": services["container"].url + "/c", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": path},
        "identity": {"AWS_WEB_IDENTITY_TOKEN_FILE": path, "AWS_ROLE_ARN": ROLE, "AWS_ENDPOINT_URL_STS": services["identity"].url}}

    def act(p):
        p.say("machine", 0)
        assert p.keys(0) == ("ready", "ASIA", secret, token)
        yield "in use"
        assert p.keys(0, "again")[0] == "ready"
        p.service(0, 0, kinesis.url)
        assert {c[0] for c in p.call(0, n=20)} == {FINE}
        yield "in use"
    for name, environment in environments.items():
        check_memory(secure, (secret, token, bearer), environment, act)
        services[name].stop()
    kinesis.stop()
