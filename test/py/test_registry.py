"""Schemas by number: from a real registry (Apicurio), and from one that misbehaves; records wait for what they need and for nothing else."""
import json
import os
import re
import subprocess
import urllib.error
import urllib.request

import psycopg2
import pytest
from aws_parts import Web, answer
from harness import free_port, forget_pid, note_pid, wait_until
from test_avro import long

PARTS = os.environ["KDA_AVRO_PARTS"]
V1 = {"type": "record", "name": "click", "fields": [{"name": "user", "type": "string"}, {"name": "n", "type": "int"}]}
V2 = {"type": "record", "name": "click", "fields": [{"name": "n", "type": "long"}, {"name": "person", "aliases": ["user"], "type": ["null", "string"]}, {"name": "page", "type": "string"}]}
JSON = "Content-Type: application/json"


def framed(number, *parts):
    return b"\0" + number.to_bytes(4, "big") + b"".join(parts)


def string(s):
    return long(len(s)) + s.encode()


class Apicurio:
    def __init__(self, folder):
        self.port = free_port()
        self.url = "http://127.0.0.1:%d/apis/ccompat/v7" % self.port
        os.makedirs(folder, exist_ok=True)
        with open(folder + "/log", "w") as log:
            self.process = subprocess.Popen(["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-Dquarkus.http.host=127.0.0.1", "-Dquarkus.http.port=%d" % self.port, "-jar",
                                             PARTS + "/registry/apicurio-registry-app-2.6.13.Final-runner.jar"], cwd=folder, stdout=log, stderr=log)
        note_pid(self.process.pid)
        wait_until(self.answers, "the registry", timeout=180)

    def answers(self):
        assert self.process.poll() is None, "the registry has ended"
        try:
            return urllib.request.urlopen(self.url + "/subjects").status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def register(self, subject, schema):
        request = urllib.request.Request("%s/subjects/%s/versions" % (self.url, subject), json.dumps({"schema": json.dumps(schema)}).encode(),
                                         {"Content-Type": "application/vnd.schemaregistry.v1+json"})
        return json.load(urllib.request.urlopen(request))["id"]

    def stop(self):
        self.process.kill()
        self.process.wait()
        forget_pid(self.process.pid)


def make_stream(server, kafka, name, url, columns, user_mapping=None, **options):
    kafka.create_topic(name)
    server.sql("DROP SERVER IF EXISTS reg_%s CASCADE; CREATE SERVER reg_%s TYPE 'schema_registry' FOREIGN DATA WRAPPER kda_stream OPTIONS (url '%s')" % (name, name, url))
    if user_mapping:
        server.sql("CREATE USER MAPPING FOR CURRENT_USER SERVER reg_%s OPTIONS (%s)" % (name, user_mapping))
    server.sql("CREATE STREAM %s (%s, pos bigint OPTIONS (meta 'position')) SERVER msk OPTIONS (format 'avro', schema_registry 'reg_%s', start 'earliest'%s)" % (
        name, columns, name, "".join(", %s '%s'" % (k, v.replace("'", "''")) for k, v in options.items())))
    server.sql("CREATE CONTINUOUS VIEW %s_v AS SELECT * FROM %s" % (name, name))


def test_records_of_two_schemas_through_a_real_registry(server, kafka, msk, tmp_path):
    registry = Apicurio(str(tmp_path))
    try:
        one, two = registry.register("clicks-value", V1), registry.register("clicks2-value", V2)
        assert one != two
        reader = {"type": "record", "name": "r", "fields": [{"name": "page", "type": "string", "default": "none"}]}
        make_stream(server, kafka, "clicks", registry.url, "\"user\" text, n int, page text", schema=json.dumps(reader))
        kafka.produce("clicks", [framed(one, string("ann"), long(1)), framed(two, long(2), long(1), string("bob"), string("/")), framed(one, string("eve"), long(3)),
                                 framed(999999, long(1)), b"", b"no header", framed(two, long(4), long(0), string("/x"))])
        assert server.value("SELECT kda.wait('clicks', '60 s')")
        assert server.sql("SELECT \"user\", n, page FROM clicks_v ORDER BY pos") == [("ann", 1, "none"), ("bob", 2, "/"), ("eve", 3, "none"), (None, 4, "/x")]
        errors = server.sql("SELECT position, error_name, message FROM kda.error_stream WHERE stream = 'clicks'::regclass ORDER BY error_id")
        assert [(p, e) for p, e, _ in errors] == [("3", "malformed"), ("5", "malformed")]
        assert re.search("schema 999999 .*the registry does not know it", errors[0][2]) and "number of a schema" in errors[1][2]
    finally:
        registry.stop()
    # what is known needs no registry, neither after a restart nor for looking into the buffer
    assert server.value("SELECT count(*) FROM clicks WHERE \"user\" IS NOT NULL") == 3
    server.stop()
    server.start()
    kafka.produce("clicks", [framed(one, string("zoe"), long(5))])
    assert server.value("SELECT kda.wait('clicks', '60 s')")
    assert server.value("SELECT n FROM clicks_v WHERE \"user\" = 'zoe'") == 5


def test_records_wait_for_a_registry_that_is_down(server, kafka, msk):
    """Other streams go on; what keeps this one is said; nothing is lost or refused."""
    steps = [["reset"], [answer("busy", "503 Service Unavailable")], [answer("<html>", "200 OK")], ["close"], [answer('{"message": "who is that?"}', "401 Unauthorized", [JSON])]]
    served = []

    def handle(request):
        if faults["on"]:
            served.append(request)
            return steps[len(served) % len(steps)]
        return [answer(json.dumps({"schema": json.dumps(V1)}), "200 OK", [JSON])]
    faults = {"on": True}
    web = Web(handle)
    make_stream(server, kafka, "waits", web.url + "/some/path/", "\"user\" text, n int", "username 'ann', password 'p:w\u00e9'")
    kafka.create_topic("lively")
    server.sql("CREATE STREAM lively (v int) SERVER msk OPTIONS (start 'earliest'); CREATE CONTINUOUS VIEW lively_v AS SELECT v FROM lively")
    kafka.produce("waits", [framed(7, string("a"), long(1))] * 3)
    wait_until(lambda: len(served) >= len(steps) + 1, "attempts", timeout=120)
    kafka.produce("lively", ['{"v": 1}'])
    assert server.value("SELECT kda.wait('lively', '60 s')")
    wait_until(lambda: "schema registry" in (server.value("SELECT last_error FROM kda.streams WHERE stream = 'waits'::regclass") or ""), "the trouble is shown")
    assert server.value("SELECT state FROM kda.streams WHERE stream = 'waits'::regclass") == "running"
    assert server.value("SELECT count(*) FROM waits_v") == 0
    faults["on"] = False
    assert server.value("SELECT kda.wait('waits', '120 s')")
    assert server.value("SELECT count(*) FROM waits_v") == 3
    wait_until(lambda: not server.value("SELECT last_error FROM kda.streams WHERE stream = 'waits'::regclass"), "the trouble is over")
    assert served[0]["path"] == "/some/path/schemas/ids/7" and served[0]["headers"]["authorization"] == "Basic YW5uOnA6d8Op"
    # asked once, for three records
    assert len(web.requests) == len(served) + 1
    assert "YW5uOnA6d8Op" not in server.log_text() and "p:w" not in server.log_text()
    web.stop()


def test_answers_that_are_no_schema_refuse_their_records(server, kafka, msk):
    answers = {1: {"schema": "syntax = \"proto3\";", "schemaType": "PROTOBUF"}, 2: {"schema": "{\"type\": \"nonsense\"}"}, 3: {"schema": json.dumps(V1)}}
    web = Web(lambda request: [answer(json.dumps(answers[int(request["path"].rsplit("/", 1)[1])]), "200 OK", [JSON])])
    make_stream(server, kafka, "noschema", web.url, "\"user\" text", "token 'tok'")
    kafka.produce("noschema", [framed(1, b"x"), framed(2, b"x"), framed(3, string("fine"), long(1))])
    assert server.value("SELECT kda.wait('noschema', '60 s')")
    assert server.sql("SELECT \"user\" FROM noschema_v") == [("fine",)]
    messages = [m for m, in server.sql("SELECT message FROM kda.error_stream WHERE stream = 'noschema'::regclass ORDER BY error_id")]
    assert "PROTOBUF" in messages[0] and "nonsense" in messages[1]
    assert {r["headers"]["authorization"] for r in web.requests} == {"Bearer tok"}
    web.stop()


def test_options_of_registries(server, msk):
    def fails(sql, why):
        with pytest.raises(psycopg2.Error, match=why):
            server.sql(sql)
    create = "CREATE SERVER r1 TYPE 'schema_registry' FOREIGN DATA WRAPPER kda_stream"
    fails(create, "needs option \"url\"")
    fails(create + " OPTIONS (url 'http://registry:8081')", "invalid value for option \"url\"")
    fails(create + " OPTIONS (url 'https://169.254.169.254/')", "invalid value for option \"url\"")
    fails(create + " OPTIONS (url 'https://registry/a?b')", "invalid value for option \"url\"")
    fails(create + " OPTIONS (url 'https://registry', password 'x')", "belongs to a user mapping")
    fails(create + " OPTIONS (url 'https://registry', region 'x')", "invalid option \"region\"")
    server.sql(create + " OPTIONS (url 'https://registry/apis/ccompat/v7')")
    fails("CREATE USER MAPPING FOR CURRENT_USER SERVER r1 OPTIONS (username 'x')", "needs username and password, or token")
    fails("CREATE USER MAPPING FOR CURRENT_USER SERVER r1 OPTIONS (username 'x', password 'y', token 'z')", "needs username and password, or token")
    fails("CREATE STREAM rs (v int) SERVER r1", "cannot be on a server of type")
    fails("CREATE STREAM rs (v int) SERVER msk OPTIONS (format 'avro', schema_registry 'nobody')", "\"nobody\" is not a server of type")
    fails("CREATE STREAM rs (v int) SERVER msk OPTIONS (format 'json', schema_registry 'r1')", "cannot be used with format")
    server.sql("CREATE ROLE plain; GRANT USAGE ON FOREIGN SERVER msk TO plain; GRANT CREATE ON SCHEMA public TO plain")
    fails("SET ROLE plain; CREATE STREAM rs (v int) SERVER msk OPTIONS (format 'avro', schema_registry 'r1')", "permission denied for foreign server r1")
