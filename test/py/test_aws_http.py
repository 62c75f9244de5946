"""The HTTP client and the rules of endpoints: real TLS and HTTP/2 servers, and one that misbehaves in every way."""
import os
import subprocess
import time

import pytest
from authority import Authority
from aws_parts import Program, Web, answer, build_program, bytes_of, field, http2_server
from harness import free_port, wait_until

SOURCES = ["http", "endpoint", "threads", "secret"]
RESULTS = ["answered", "unreachable", "timed out", "untrusted", "forbidden", "too large", "no memory", "broken"]
USER, PROXY, MACHINE = 0, 1, 2


class Client(Program):
    def open(self, ca_file=None, ca_pem=None, proxy=None, connections=0, http2=False):
        self.say("open", field(ca_file), field(ca_pem), field(proxy), connections, int(http2))
        self.n = 0
        return self

    def send(self, url, method="GET", body=None, headers=(), reach=USER, timeout_ms=20000, limit=1 << 20, delay_ms=0):
        self.n += 1
        self.say("send", self.n, reach, timeout_ms, limit, delay_ms, method, field(url), field(body),
                 *[field(x) for h in headers for x in h])
        return self.n

    def wait(self, name):
        number, result, status, error, head, body = self.ask("wait", name)
        assert int(number) == name
        return RESULTS[int(result)], int(status), bytes_of(error).decode(), bytes_of(head).decode("latin-1"), bytes_of(body)

    def get(self, url, **options):
        name = self.send(url, **options)
        outcome = self.wait(name)
        self.say("free", name)
        return outcome

    def close(self, deadline_ms=10000):
        assert self.ask("close", deadline_ms) == ["closed"]


@pytest.fixture(scope="module")
def program():
    return build_program("http", SOURCES, ["curl", "ssl"])


@pytest.fixture
def client(program):
    c = Client(program, env={**os.environ, "https_proxy": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1", "SSL_CERT_FILE": "/dev/null"})
    yield c
    c.stop()


@pytest.fixture(scope="module")
def authority():
    return Authority("http")


# ---- endpoints

@pytest.mark.parametrize("url, means", [
    ("https://kinesis.eu-west-1.amazonaws.com", "https://kinesis.eu-west-1.amazonaws.com kinesis.eu-west-1.amazonaws.com /"),
    ("HTTPS://Kinesis.Example.COM:8443/", "https://kinesis.example.com:8443 kinesis.example.com:8443 /"),
    ("https://vpce-1.kinesis.example:443", "https://vpce-1.kinesis.example vpce-1.kinesis.example /"),
    ("https://10.1.2.3", "https://10.1.2.3 10.1.2.3 /"), ("https://192.168.0.1:4566", "https://192.168.0.1:4566 192.168.0.1:4566 /"),
    ("https://[fd12::1]:8443", "https://[fd12::1]:8443 [fd12::1]:8443 /"),
    ("http://localhost:4566", "http://localhost:4566 localhost:4566 /"), ("http://127.0.0.1:4566/", "http://127.0.0.1:4566 127.0.0.1:4566 /"),
    ("http://[::1]:80", "http://[::1] [::1] /"), ("http://2130706433:1", "http://127.0.0.1:1 127.0.0.1:1 /"), ("http://127.1", "http://127.0.0.1 127.0.0.1 /"),
    ("http://[::ffff:127.0.0.1]:9", "http://[::ffff:127.0.0.1]:9 [::ffff:127.0.0.1]:9 /")])
def test_endpoints(client, url, means):
    assert client.ask("parse", USER, field(url)) == ["ok", *means.split(" ")]


@pytest.mark.parametrize("url, why", [
    ("kinesis.eu-west-1.amazonaws.com", "https://"), ("ftp://x", "https://"), ("file:///etc/passwd", "https://"), ("", "https://"), (" https://x", "https://"),
    ("http://example.com", "TLS"), ("http://10.0.0.1", "TLS"), ("http://localhost.example.com", "TLS"), ("http://127.0.0.1.", "TLS"),
    ("https://u:p@example.com", "user name"), ("https://u@example.com", "user name"), ("https://example.com@169.254.169.254", "user name"),
    ("https://example.com/#x", "fragment"), ("https://example.com#@169.254.169.254/", "user name|fragment|host"),
    ("https://example.com/path", "end after"), ("https://example.com?x=1", "end after"), ("https://example.com\\@169.254.169.254", "user name|host"),
    ("https://", "host"), ("https://:443", "host"), ("https://a b", "host"), ("https://a\tb", "host"), ("https://a%2eb", "host"), ("https://ä.example", "host"),
    ("https://x:0", "host"), ("https://x:65536", "host"), ("https://x:", "host"), ("https://x:44a", "host"), ("https://[::1", "host"), ("https://[fe80::1%25eth0]", "host"),
    ("https://" + "a" * 300, "host"), ("https://-x", "host"), ("https://.", "host"),
    # the metadata service, in every spelling
    ("https://169.254.169.254", "metadata"), ("http://169.254.169.254", "metadata"), ("https://2852039166", "metadata"), ("https://0xA9FEA9FE", "metadata"),
    ("https://0251.0376.0251.0376", "metadata"), ("https://169.254.43518", "metadata"), ("https://169.16689662", "metadata"), ("https://169.254.170.2", "metadata"),
    ("https://[fd00:ec2::254]", "metadata"), ("https://[FD00:0EC2:0:0:0:0:0:254]", "metadata"), ("https://[fe80::1]", "metadata"), ("https://[febf::1]", "metadata"),
    ("https://[::ffff:169.254.169.254]", "metadata"), ("https://[::ffff:a9fe:a9fe]", "metadata"), ("https://[::169.254.169.254]", "metadata"),
    ("https://[64:ff9b::a9fe:a9fe]", "metadata"), ("https://[2002:a9fe:a9fe::1]", "metadata"), ("https://100.100.100.200", "metadata"),
    ("https://0.0.0.0", "one machine"), ("http://0", "one machine"), ("https://[::]", "one machine"), ("https://224.0.0.1", "one machine"),
    ("https://255.255.255.255", "one machine"), ("https://[ff02::1]", "one machine")])
def test_no_endpoints(client, url, why):
    answer = client.ask("parse", USER, field(url))
    assert answer[0] == "no" and any(w in " ".join(answer) for w in why.split("|")), answer


def test_the_machine_reaches_metadata_services(client):
    ok = lambda url: client.ask("parse", MACHINE, field(url))[0] == "ok"    # noqa: E731
    assert ok("http://169.254.169.254/latest/api/token") and ok("http://[fd00:ec2::254]") and ok("http://169.254.170.2/v2/credentials/1?a=b") and ok("http://127.0.0.1:51679/x")
    assert not ok("http://example.com/x") and not ok("http://10.0.0.1/") and not ok("http://0.0.0.0/")


def test_proxies(client):
    ok = lambda url: client.ask("parse", PROXY, field(url))[0] == "ok"    # noqa: E731
    assert ok("http://proxy.example.com:3128") and ok("https://proxy.example.com") and ok("http://10.0.0.1:8080") and ok("http://127.0.0.1:3128")
    assert not ok("socks5://proxy:1080") and not ok("http://169.254.169.254:80") and not ok("http://u:p@proxy") and not ok("http://proxy/path") and not ok("http://0.0.0.0")


def test_names_that_mean_a_metadata_service(client, authority):
    """What a name means is known only when it is connected to."""
    client.open()
    for name in ("metadata.example", "metadata6.example", "mapped.example"):
        assert client.get("https://%s/latest/" % name)[0] == "forbidden"
    # any other may be meant
    with_tls = Web(lambda request: [answer("here")], authority.issue("named", "DNS:here.example") + ".both.pem")
    client.close()
    client.open(ca_pem=authority.pem)
    assert client.get("https://here.example:%d/" % with_tls.port)[4] == b"here"
    with_tls.stop()
    client.close()


# ---- a web server in good health

@pytest.fixture(scope="module")
def good():
    def handler(request):
        if request["path"] == "/later":
            return [0.3, answer("later")]
        if request["path"] == "/chunks":
            return [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 0.05, b"6\r\n world\r\n0\r\n\r\n"]
        if request["path"] == "/interim":
            return [b"HTTP/1.1 100 Continue\r\nX-A: interim\r\n\r\n", answer("done", headers=["X-B: final"])]
        if request["path"].startswith("/status/"):
            return [answer("for a reason", request["path"][8:] + " No")]
        if request["path"] == "/moved":
            return [answer("", "302 Found", ["Location: http://169.254.169.254/latest/"])]
        return [answer(b"%s %s %s" % (request["method"].encode(), request["path"].encode(), request["body"]), headers=["Date: Wed, 01 Jan 2025 00:00:00 GMT", "x-two: 1", "X-Two:  2 "])]
    web = Web(handler)
    yield web
    web.stop()


def test_an_exchange(client, good):
    client.open()
    result, status, error, head, body = client.get(good.url + "/a%20b?c=d&e", method="POST", body=b"\x00\xff{}", headers=[("Content-Type", "application/x-amz-json-1.1"), ("X-Amz-Target", "Kinesis.ListShards")])
    assert (result, status, error, body) == ("answered", 200, "", b"POST /a%20b?c=d&e \x00\xff{}")
    assert "Date: Wed, 01 Jan 2025" in head
    sent = good.requests[-1]["headers"]
    assert sent == {"host": "127.0.0.1:%d" % good.port, "user-agent": "kda_stream/1.0", "content-type": "application/x-amz-json-1.1", "x-amz-target": "Kinesis.ListShards", "content-length": "4"}
    assert client.get(good.url + "/x", method="PUT")[4] == b"PUT /x "
    assert client.get(good.url + "/x")[4] == b"GET /x "
    assert client.get(good.url + "/chunks")[4] == b"hello world"
    result, status, error, head, body = client.get(good.url + "/interim")
    assert body == b"done" and "X-B: final" in head and "interim" not in head
    for status in (400, 403, 404, 429, 500, 503):
        assert client.get(good.url + "/status/%d" % status)[:2] == ("answered", status)
    client.close()


def test_no_redirect_is_followed(client, good):
    client.open()
    assert client.get(good.url + "/moved")[:2] == ("answered", 302)
    client.close()


def test_connections_are_kept_and_shared(client, good):
    client.open(connections=8)
    before = good.connections
    for i in range(20):
        assert client.get(good.url + "/%d" % i)[0] == "answered"
    assert good.connections == before + 1
    names = [client.send(good.url + "/later") for _ in range(40)]
    assert {client.wait(n)[4] for n in names} == {b"later"}
    assert good.connections <= before + 8
    client.close()


def test_two_hundred_at_once(client):
    """As many shards: no thread each, none waits for another."""
    threads = []

    def all_there():
        if together.open_now >= 200:
            threads.append(len(os.listdir("/proc/%d/task" % client.process.pid)))
        return together.open_now >= 200
    together = Web(lambda request: [all_there, answer("together")])
    client.open(connections=200)
    names = [client.send(together.url + "/") for _ in range(200)]
    assert {client.wait(n)[4] for n in names} == {b"together"}
    assert max(threads) <= 2
    for n in names:
        client.say("free", n)
    client.close()
    together.stop()


def test_a_request_that_waits_for_its_time(client, good):
    client.open()
    late, early = client.send(good.url + "/late", delay_ms=300), client.send(good.url + "/early")
    assert int(client.ask("any")[0]) == early
    client.wait(late)
    assert [r["path"] for r in good.requests[-2:]] == ["/early", "/late"]
    # what waits can be given up, and is never sent
    client.say("free", client.send(good.url + "/never", delay_ms=60000))
    client.close()
    assert "/never" not in [r["path"] for r in good.requests]


def test_what_is_given_up_is_cancelled(client, good):
    gone = []
    hanging = Web(lambda request: [gone.append(1) or b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", 30])
    client.open()
    name = client.send(hanging.url + "/")
    wait_until(lambda: gone, "the request to arrive")
    client.say("free", name)
    assert client.get(good.url + "/still")[4] == b"GET /still "
    # and so is everything when the client is closed: at once
    client.send(hanging.url + "/")
    wait_until(lambda: len(gone) == 2, "the request to arrive")
    client.send(good.url + "/x", delay_ms=10000)
    begun = time.monotonic()
    client.close()
    assert time.monotonic() - begun < 5
    hanging.stop()


def test_headers_cannot_be_broken(client, good):
    client.open()
    for value in ("a\r\nX-Evil: 1", "a\nb", "\x00"[:0] + "a\x01"):
        assert client.get(good.url + "/", headers=[("X-A", value)])[0] == "broken"
    client.close()


# ---- one that is not

def test_answers_that_break_off(client):
    kinds = {"/reset-head": [b"HTTP/1.1 200 OK\r\nContent-Le", "reset"], "/reset-body": [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "reset"],
             "/short-body": [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "close"], "/short-chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhalf", "close"],
             "/no-last-chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "close"], "/no-length": [b"HTTP/1.1 200 OK\r\n\r\nhalf", "close"], "/nothing": ["close"], "/reset": ["reset"]}
    bad = Web(lambda request: kinds[request["path"]])
    client.open()
    for path in kinds:
        result, status, error, head, body = client.get(bad.url + path)
        assert result == "unreachable" and error, path
    bad.stop()
    # nobody listens
    assert client.get("http://127.0.0.1:%d/" % free_port())[0] == "unreachable"
    client.close()


def test_what_is_not_http(client):
    kinds = {"/binary": [b"\x16\x03\x01" * 100, "close"], "/old": [b"just text, as HTTP/0.9 had it", "close"]}
    bad = Web(lambda request: kinds[request["path"]])
    client.open()
    for path in kinds:
        assert client.get(bad.url + path)[0] in ("broken", "unreachable"), path
    bad.stop()
    client.close()


def test_answers_that_are_too_large(client):
    kinds = {"/said": [b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", 20],
             "/grown": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"] + [b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 50 + [20],
             "/many-headers": [b"HTTP/1.1 200 OK\r\n"] + [b"X-%d: %s\r\n" % (i, b"y" * 500) for i in range(200)] + [20],
             "/long-header": [b"HTTP/1.1 200 OK\r\nX-A: " + b"y" * 500000 + b"\r\n", 20],
             "/just-right": [answer(b"x" * 100000)], "/one-too-many": [answer(b"x" * 100001)]}
    bad = Web(lambda request: kinds[request["path"]])
    client.open()
    for path, expected in {"/said": "too large", "/grown": "too large", "/many-headers": "too large", "/long-header": "too large|no memory",
                           "/one-too-many": "too large", "/just-right": "answered"}.items():
        result, status, error, head, body = client.get(bad.url + path, limit=100000)
        assert result in expected.split("|"), (path, result, error)
        assert len(body) <= 100000
    bad.stop()
    client.close()


def test_answers_that_take_too_long(client):
    drip = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"] + [b"x", 0.05] * 1000
    slow = Web(lambda request: drip if request["path"] == "/drip" else [30])
    client.open()
    for path in ("/drip", "/silence"):
        assert client.get(slow.url + path, timeout_ms=400)[0] == "timed out"
    slow.stop()
    client.close()


def test_a_kept_connection_that_was_closed_meanwhile(client):
    once = Web(lambda request: [answer("once"), "close"])
    client.open()
    for _ in range(5):
        assert client.get(once.url + "/", method="POST", body="x")[4] == b"once"
    once.stop()
    client.close()


def test_memory_that_runs_out(authority):
    """Requests fail, the client goes on; without the sanitizers, which need memory of their own."""
    sizes = {"/big": b"x" * 2000000, "/huge": b"x" * 20000000}
    big = Web(lambda request: [answer(sizes.get(request["path"], b"small"))], authority.issue("big") + ".both.pem")
    # what is freed goes back to the system, and nothing is kept in reserve
    env = {**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    client = Client(build_program("http", SOURCES, ["curl", "ssl"], sanitize=False), env)
    client.open(ca_pem=authority.pem)
    assert client.get(big.url + "/small")[4] == b"small"
    for room in (20000000, 5000000, 1000000, 300000, 100000, 1):
        client.say("memory", room)
        names = [client.send(big.url + path, limit=3000000) for path in ("/big", "/small") * 4]
        outcomes = [client.wait(n) for n in names]
        for n in names:
            client.say("free", n)
        client.say("memory", 0)
        assert {o[0] for o in outcomes} <= {"answered", "no memory", "unreachable", "untrusted"}, [o[0] for o in outcomes]
        assert all(o[4] in (b"small", b"x" * 2000000) for o in outcomes if o[0] == "answered")
    # more than there ever was
    client.say("memory", 1000000)
    assert client.get(big.url + "/huge", limit=30000000)[0] == "no memory"
    client.say("memory", 0)
    assert client.get(big.url + "/huge", limit=30000000)[4] == b"x" * 20000000
    client.close()
    client.stop()
    big.stop()


# ---- TLS, HTTP/2, proxy

def test_tls_is_verified(client, authority):
    other = Authority("http_other")
    right = Web(lambda request: [answer("secure")], authority.issue("right") + ".both.pem")
    wrong_name = Web(lambda request: [answer("secure")], authority.issue("wrong_name", "DNS:example.com") + ".both.pem")
    stranger = Web(lambda request: [answer("secure")], other.issue("stranger") + ".both.pem")
    outdated = Web(lambda request: [answer("secure")], authority.issue("outdated", days=0) + ".both.pem")
    wait_until(lambda: subprocess.run(["openssl", "x509", "-checkend", "0", "-noout", "-in", authority.dir + "/outdated.pem"], stdout=subprocess.DEVNULL).returncode == 1,
               "the certificate to be outdated")
    for options in ({"ca_pem": authority.pem}, {"ca_file": authority.dir + "/ca.pem"}):
        client.open(**options)
        assert client.get(right.url + "/")[4] == b"secure"
        for bad in (wrong_name, stranger, outdated):
            result, status, error, head, body = client.get(bad.url + "/")
            assert (result, body) == ("untrusted", b"") and error
        client.close()
    # the system's certificates do not know ours; no certificates, no trust
    for options in ({}, {"ca_file": "/nonexistent"}, {"ca_pem": "nonsense"}):
        client.open(**options)
        assert client.get(right.url + "/")[0] in ("untrusted", "unreachable")
        client.close()
    assert not wrong_name.requests and not stranger.requests and not outdated.requests
    for web in (right, wrong_name, stranger, outdated):
        web.stop()


def test_http2(client, authority):
    server = http2_server(authority.issue("h2"))
    url = "https://127.0.0.1:%d" % server.port
    client.open(ca_pem=authority.pem)
    assert client.get(url + "/x")[4].startswith(b"1.1 GET /x 0")
    client.close()
    client.open(ca_pem=authority.pem, http2=True)
    assert client.get(url + "/x", method="POST", body=b"z" * 300000)[4].startswith(b"2 POST /x 300000")
    # many requests share a connection
    names = [client.send(url + "/slow/%d" % i) for i in range(50)]
    answers = [client.wait(n)[4].decode().split(" ") for n in names]
    assert [a[0] for a in answers] == ["2"] * 50
    assert len({a[-1] for a in answers}) == 1
    client.close()
    # a server that cannot
    plain = Web(lambda request: [answer("one")], authority.issue("h1") + ".both.pem")
    client.open(ca_pem=authority.pem, http2=True)
    assert client.get(plain.url + "/")[4] == b"one"
    client.close()
    plain.stop()
    server.stop()


def test_a_proxy_only_if_configured(client, authority, good):
    """The environment of this program names one that nobody listens at."""
    target = Web(lambda request: [answer("through")], authority.issue("target", "DNS:service.example") + ".both.pem")
    seen = []

    def handler(request):
        seen.append(request)
        return ["close"]
    proxy = Web(handler)
    client.open(ca_pem=authority.pem, proxy=proxy.url)
    assert client.get("https://service.example:443/x", headers=[("X-Secret", "s")])[0] == "unreachable"
    assert (seen[0]["method"], seen[0]["path"]) == ("CONNECT", "service.example:443") and "x-secret" not in seen[0]["headers"]
    # this machine is reached without
    assert client.get(good.url + "/x")[4] == b"GET /x "
    assert len(seen) == 1
    client.close()
    # a proxy is no way to the metadata service either
    client.open(proxy="http://169.254.169.254:80")
    assert client.get("https://service.example/")[0] == "forbidden"
    client.close()
    target.stop()
    proxy.stop()
