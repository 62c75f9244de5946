"""Signature version 4: AWS's public vectors byte for byte, and AWS's own signer (botocore) over random requests."""
import datetime
import glob
import os
import random
import sys

import pytest

from aws_parts import Program, build_program, bytes_of, field
from harness import LONG

BOTOCORE = os.environ["KDA_BOTOCORE"]
SUITE = os.path.join(BOTOCORE, "tests/unit/auth/aws4_testsuite")
VECTORS = sorted(os.path.relpath(os.path.dirname(f), SUITE) for f in glob.glob(SUITE + "/**/*.req", recursive=True))
AT = 1440938160     # 20150830T123600Z, the time of AWS's vectors


@pytest.fixture(scope="module")
def signer():
    """signer(time, expires, flags, fields…) → canonical request, string to sign, authorization, query; under the sanitizers."""
    program = Program(build_program("sigv4", ["sigv4", "secret"]))

    def sign(time, expires, flags, *fields):
        answer = program.ask(time, expires, flags, *map(field, fields))
        assert len(answer) == 4, answer
        return [bytes_of(a).decode() for a in answer]
    yield sign
    program.stop()


def read(vector, kind):
    with open(os.path.join(SUITE, vector, os.path.basename(vector) + "." + kind), encoding="utf-8", newline="") as f:
        return f.read().replace("\r", "")


def parse(text):
    """A request of the suite: method, path, query, headers, body."""
    head, _, body = text.partition("\n\n")
    first, *lines = head.split("\n")
    method, target = first[:first.index(" ")], first[first.index(" ") + 1:first.rindex(" ")]
    path, _, query = target.partition("?")
    headers = []
    for line in lines:
        if line[:1] == " ":         # a value of several lines
            headers[-1][1] += "\n" + line
        elif line:
            headers.append(list(line.split(":", 1)))
    return method, path, query, headers, body


@pytest.mark.parametrize("vector", VECTORS)
def test_vectors_of_aws(signer, vector):
    method, path, query, headers, body = parse(read(vector, "req"))
    canonical = read(vector, "creq")
    token = [line.split(":", 1)[1] for line in canonical.split("\n") if line.startswith("x-amz-security-token:")]
    answer = signer(AT, 0, 0, "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token[0] if token else None,
                    "us-east-1", "service", None, method, path, query, body, *[x for h in headers for x in h])
    assert answer[0] == canonical
    assert answer[1] == read(vector, "sts")
    assert answer[2] == read(vector, "authz")


def test_there_are_vectors():
    assert len(VECTORS) == 34      # of this release of botocore


def random_request(r):
    def text(n, alphabet):
        return "".join(r.choice(alphabet) for _ in range(r.randrange(n)))
    some = "abcXYZ019-_.~ /+=&%?#@:é日\U0001f600"
    from urllib.parse import quote
    path = "/" + "/".join(r.choice([".", "..", "", "a", quote(text(8, some), safe="~"), quote(text(8, some), safe="~")]) for _ in range(r.randrange(5)))
    query = "&".join("%s=%s" % (quote("k%d" % i + text(6, some), safe="-_.~"), quote(text(9, some), safe="-_.~")) for i in r.sample(range(9), r.randrange(6)))
    headers = [("Host", "kinesis.%s.amazonaws.com" % text(5, "abc"))]
    headers += [("X-%d-%s" % (i, text(9, "abcABC-")), text(20, "ab \tcé") or "x") for i in range(r.randrange(5))]
    body = bytes(r.randrange(256) for _ in range(r.randrange(300)))
    keys = ("AK" + text(20, "ABC234"), text(41, "abcXYZ+/="), text(200, "abcXYZ+/=") + "T" if r.random() < 0.5 else None)
    return r.choice(["GET", "POST", "PUT"]), path, query, headers, body, keys, r.randrange(0, 4102444800)


def test_as_botocore_signs(signer, monkeypatch):
    """Random requests, in headers and in the query."""
    monkeypatch.syspath_prepend(BOTOCORE)
    import botocore.auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    assert botocore.__file__.startswith(BOTOCORE) and sys.modules["botocore"]
    seed = int(os.environ.get("KDA_SEED", random.randrange(1000000)))
    r = random.Random(seed)
    for i in range(5000 if LONG else 500):
        method, path, query, headers, body, keys, time = random_request(r)
        now = datetime.datetime.fromtimestamp(time, datetime.timezone.utc)
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: now)
        for expires in (0, r.randrange(1, 604801)):
            if expires:
                body = b""      # botocore makes parameters of it
            where = "seed %d, request %d: %r" % (seed, i, (method, path, query, headers, keys, time, expires))
            theirs = AWSRequest(method, "https://" + headers[0][1] + path + ("?" + query if query else ""), data=body)
            for name, value in headers:
                theirs.headers[name] = value
            credentials = Credentials(*keys)
            auth = botocore.auth.SigV4QueryAuth(credentials, "kinesis", "eu-west-1", expires=expires) if expires else \
                botocore.auth.SigV4Auth(credentials, "kinesis", "eu-west-1")
            auth.add_auth(theirs)
            ours = signer(time, expires, 0, *keys, "eu-west-1", "kinesis", None, method, path, query or None, body,
                          *[x for h in headers for x in h])
            if expires:
                assert ours[3] == theirs.url.partition("?")[2], where
            else:
                assert ours[2] == theirs.headers["Authorization"], where
                assert ours[0].split("\n")[-1] and "x-amz-date:" + theirs.headers["X-Amz-Date"] in ours[0], where


def test_path_as_it_is(signer):
    """S3 wants the path of the wire: neither encoded again nor cleaned."""
    args = (None, "us-east-1", "s3", "UNSIGNED-PAYLOAD", "GET", "/a//./b%20c", None, None, "Host", "b.s3.amazonaws.com")
    canonical = signer(AT, 0, 1, "AK", "secret", *args)[0]
    assert canonical.split("\n")[1] == "/a//./b%20c"
    assert canonical.endswith("\nUNSIGNED-PAYLOAD")
