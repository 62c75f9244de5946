"""What the AWS tests start: C programs around connector files, a web server that misbehaves as it is told, an HTTP/2 server, moto."""
import asyncio
import calendar
import http.client
import json
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from email.utils import formatdate

from harness import WORK, free_port, forget_pid, note_pid, wait_until

PARTS = os.environ["KDA_AWS_PARTS"]


def build_program(name, sources, libraries=(), sanitize=True, folder="aws"):
    """test/FOLDER/NAME.c with files of src/connector, outside of a server, under the sanitizers."""
    build, binary = os.path.join(WORK, "build"), os.path.join(WORK, name if sanitize else name + "_plain")
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if sanitize else []
    pg_config = os.environ["KDA_PG_CONFIG"]

    def ask(option):
        return subprocess.check_output([pg_config, option], text=True).strip()
    subprocess.run(["gcc", "-g", "-O1", "-Wall", "-Werror", "-no-pie", *sanitizers, "-D_GNU_SOURCE", "-DFRONTEND",
                    "-I", build + "/src", "-I", ask("--includedir-server"), "-o", binary, build + "/test/%s/%s.c" % (folder, name),
                    *[build + "/src/connector/%s.c" % s for s in sources],
                    "-L" + ask("--pkglibdir"), "-L" + ask("--libdir"), *["-l" + lib for lib in libraries],
                    "-lpgcommon", "-lpgport", "-lcrypto", "-lm", "-lpthread"], check=True)
    return binary


def field(value):
    return "-" if value is None else "." + (value.encode() if isinstance(value, str) else value).hex()


def bytes_of(text):
    return bytes.fromhex(text[1:])


class Program:
    """A running C program that answers lines with lines; the sanitizers speak up at stop()."""

    def __init__(self, binary, env=None):
        environment = dict(os.environ if env is None else env)
        environment.pop("LD_PRELOAD", None)
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        note_pid(self.process.pid)

    def say(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def ask(self, *words):
        self.say(*words)
        return self.hear()

    def hear(self):
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return line.rstrip("\n").split(" ")

    def stop(self):
        self.process.stdin.close()
        status = self.process.wait(60)
        forget_pid(self.process.pid)
        assert status == 0, self.process.stderr.read()[-4000:]


class Web:
    """
    A server of the tests' own, for what a real one will not do.  handler(request) gives the steps of its answer:
    bytes to send, seconds or a condition to wait for, or "reset", "close"; it keeps the connection unless told otherwise.
    """

    def __init__(self, handler, certificate=None):
        self.handler = handler
        self.requests = []
        self.connections = 0
        self.open_now = 0
        self.most_open = 0
        self.certificate = certificate
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.ready.wait(30)
        self.url = "%s://127.0.0.1:%d" % ("https" if certificate else "http", self.port)

    def run(self):
        asyncio.set_event_loop(self.loop)
        context = None
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)

        async def start():
            self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context, limit=2 ** 20)
            self.port = self.server.sockets[0].getsockname()[1]
            self.ready.set()
        self.loop.run_until_complete(start())
        self.loop.run_forever()

    async def serve(self, reader, writer):
        self.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                method, path, _ = first.split(" ")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = {"method": method, "path": path, "headers": headers, "body": body}
                self.requests.append(request)
                for step in self.handler(request):
                    if step == "reset":
                        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        writer.transport.abort()
                        return
                    if step == "close":
                        return
                    if callable(step):
                        while not step() and not reader.at_eof():
                            await asyncio.sleep(0.02)
                    elif isinstance(step, (int, float)):
                        until = time.monotonic() + step
                        while time.monotonic() < until:
                            await asyncio.sleep(min(0.05, max(until - time.monotonic(), 0)))
                            if reader.at_eof():
                                return      # nobody waits any more
                    else:
                        writer.write(step)
                        await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            self.open_now -= 1
            writer.close()

    async def end(self):
        self.server.close()
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for t in tasks:
            t.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self):
        asyncio.run_coroutine_threadsafe(self.end(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(30)


def answer(body=b"", status="200 OK", headers=()):
    """The usual one."""
    if isinstance(body, str):
        body = body.encode()
    lines = ["HTTP/1.1 " + status, "Content-Length: %d" % len(body), *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Gate(Web):
    """
    Stands before a service as AWS does: checks signature and clock (with AWS's own signer), and misbehaves when told.
    answers(request) gives what a good request gets, or forward is the port of a real part that answers.
    """

    def __init__(self, keys, answers=None, forward=None, certificate=None):
        self.keys = keys            # access key id: (secret, token or None)
        self.answers = answers
        self.forward = forward
        self.ahead = 0              # of its clock
        self.faults = []            # each for one request: steps, before anything is looked at
        super().__init__(self.handle, certificate)

    def date(self):
        return "Date: " + formatdate(time.time() + self.ahead, usegmt=True)

    def error(self, status, code, message, headers=()):
        body = json.dumps({"__type": "com.amazonaws.kinesis#" + code, "message": message})
        return [answer(body, status, [self.date(), "Content-Type: application/x-amz-json-1.1", *headers])]

    def handle(self, request):
        if self.faults:
            return self.faults.pop(0)
        return self.refusal(request) or self.good(request)

    def refusal(self, request):
        if not os.environ["KDA_BOTOCORE"] in sys.path:
            sys.path.insert(0, os.environ["KDA_BOTOCORE"])
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
        headers = request["headers"]
        if "authorization" not in headers:
            return self.error("400 Bad Request", "MissingAuthenticationTokenException", "Missing Authentication Token")
        found = re.match(r"AWS4-HMAC-SHA256 Credential=([^/]*)/(\d{8})/([^/]*)/([^/]*)/aws4_request, SignedHeaders=([^,]*), Signature=([0-9a-f]{64})$",
                         headers["authorization"])
        assert found, headers["authorization"]
        key, day, region, service, signed, signature = found.groups()
        if key not in self.keys:
            return self.error("400 Bad Request", "UnrecognizedClientException", "The security token included in the request is invalid.")
        secret, token = self.keys[key]
        signed = signed.split(";")
        assert {"host", "x-amz-date"} <= set(signed) and ("x-amz-security-token" in signed) == ("x-amz-security-token" in headers)
        ours = AWSRequest(request["method"], "http://" + headers["host"] + request["path"], data=request["body"],
                          headers={name: headers[name] for name in signed})
        ours.context["timestamp"] = headers["x-amz-date"]
        auth = SigV4Auth(Credentials(key, secret, token), service, region)
        canonical = auth.canonical_request(ours)
        at = calendar.timegm(time.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ"))
        if abs(at - time.time() - self.ahead) > 300:
            return self.error("400 Bad Request", "InvalidSignatureException", "Signature expired: %s is now earlier than ..." % headers["x-amz-date"])
        if auth.signature(auth.string_to_sign(ours, canonical), ours) != signature or headers.get("x-amz-security-token") != token:
            # as AWS says it, with all that was signed
            return self.error("400 Bad Request", "InvalidSignatureException", "The request signature we calculated does not match the signature you provided. "
                              "Check your AWS Secret Access Key and signing method.\n\nThe Canonical String for this request should have been\n'%s'" % canonical)
        request["key"], request["service"], request["region"] = key, service, region
        return None

    def good(self, request):
        if self.answers:
            return self.answers(request)
        connection = http.client.HTTPConnection("127.0.0.1", self.forward, timeout=30)
        connection.request(request["method"], request["path"], request["body"], {k: v for k, v in request["headers"].items() if k != "content-length"})
        reply = connection.getresponse()
        body = reply.read()
        found = re.search(rb"<AccessKeyId>(.*?)</AccessKeyId>.*?<SecretAccessKey>(.*?)</SecretAccessKey>.*?<SessionToken>(.*?)</SessionToken>", body, re.S)
        if found:
            key, secret, token = (x.decode() for x in found.groups())
            self.keys[key] = (secret, token)
        return [answer(body, "%d %s" % (reply.status, reply.reason), [self.date(), "Content-Type: " + reply.headers["Content-Type"]])]


class Part:
    """A server of PARTS as a process of its own."""

    def __init__(self, name, code, args=(), env=None):
        self.port = free_port()
        self.log = os.path.join(WORK, name + ".log")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_") and k != "LD_PRELOAD"}
        environment.update({"PYTHONPATH": PARTS, **(env or {})})
        with open(self.log, "a") as log:
            self.process = subprocess.Popen([sys.executable, "-c", code, str(self.port), *args], stdout=log, stderr=log, env=environment, cwd=WORK)
        note_pid(self.process.pid)

    def wait_for(self, answers):
        def look():
            if self.process.poll() is not None:
                with open(self.log) as f:
                    raise AssertionError(f.read()[-3000:])
            return answers()
        wait_until(look, "a server to start; see " + self.log)
        return self

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        forget_pid(self.process.pid)


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def http2_server(certificate):
    """hypercorn with an application that says what came: HTTP version, method, path, number of bytes."""
    part = Part("http2", """
import asyncio, sys
from hypercorn.asyncio import serve
from hypercorn.config import Config

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    n, more = 0, True
    while more:
        message = await receive()
        n += len(message.get("body", b""))
        more = message.get("more_body", False)
    if scope["path"].startswith("/slow"):
        await asyncio.sleep(1)
    client = "%s:%s" % tuple(scope["client"])
    body = ("%s %s %s %d %s" % (scope["http_version"], scope["method"], scope["path"], n, client)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})

config = Config()
config.bind = ["127.0.0.1:" + sys.argv[1]]
config.certfile, config.keyfile = sys.argv[2] + ".pem", sys.argv[2] + ".key"
asyncio.run(serve(app, config))
""", [certificate])
    return part.wait_for(lambda: accepts(part.port))


def moto():
    """STS, and the metadata service of an instance."""
    part = Part("moto", "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])")
    return part.wait_for(lambda: accepts(part.port))
