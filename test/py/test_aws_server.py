"""AWS's services from inside a server process: rights, sharing, cancelling, and where the secrets are."""
import os
import subprocess
import threading

import psycopg2
import pytest
from authority import Authority
from aws_parts import Gate, Web, moto
from harness import BINDIR, WORK, Postgres, wait_until
from test_aws_credentials import CONNECTORS, canaries, where_in_memory

ROLE = "arn:aws:iam::123456789012:role/reader"
SECRET, TOKEN, WRONG = canaries(3)


@pytest.fixture(scope="module")
def authority():
    return Authority("aws_server")


@pytest.fixture(scope="module")
def parts():
    part = moto()
    yield part
    part.stop()


@pytest.fixture(scope="module")
def sts(authority, parts):
    """STS over TLS, which checks signatures."""
    gate = Gate({"AKID": (SECRET, None), "TEMP": (SECRET, TOKEN), "LONG": (SECRET, canaries(1)[0] + os.urandom(3000).hex()), "test-key": ("test-secret-key", "test-session-token")}, forward=parts.port,
                certificate=authority.issue("sts") + ".both.pem")
    yield gate
    gate.stop()


@pytest.fixture(scope="module")
def server(parts):
    """On an instance, whose metadata service is moto's."""
    pg = Postgres("test_aws_server")
    environment = pg.environment
    pg.environment = lambda: {**environment(), "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:%d" % parts.port}
    pg.start()
    build, library = os.path.join(WORK, "build"), os.path.join(WORK, "aws_module.so")
    pg_config = os.environ["KDA_PG_CONFIG"]
    include = subprocess.check_output([pg_config, "--includedir-server"], text=True).strip()
    subprocess.run(["gcc", "-shared", "-fPIC", "-fvisibility=hidden", "-g", "-O1", "-Wall", "-Werror", "-D_GNU_SOURCE", "-I", build + "/src", "-I", include, "-o", library,
                    build + "/test/aws/module.c", *[build + "/src/connector/%s.c" % c for c in CONNECTORS + ["aws_access", "aws_options"]],
                    "-lcurl", "-lssl", "-lcrypto", "-lpthread"], check=True)
    pg.sql("CREATE EXTENSION kda_stream")
    pg.sql("CREATE FUNCTION who_am_i(server oid, usr oid, calls int) RETURNS text STRICT LANGUAGE c AS '%s'" % library)
    pg.sql("CREATE ROLE plain; CREATE ROLE ops; GRANT CREATE ON SCHEMA public TO plain")
    yield pg
    try:
        pg.check_sane()
    finally:
        pg.destroy()


def create(server, authority, name, sts_url, mapping=None, owner=None):
    """A server of type kinesis; mapping: the options of its owner's."""
    owner = owner or "postgres"
    server.sql("SET ROLE %s; CREATE SERVER %s TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', sts_endpoint '%s', \"ssl.ca.pem\" '%s')"
               % (owner, name, sts_url, authority.pem))
    if mapping is not None:
        server.sql("SET ROLE %s; CREATE USER MAPPING FOR %s SERVER %s OPTIONS (%s)" % (owner, owner, name, ", ".join("%s '%s'" % m for m in mapping.items())))


ASK = "SELECT who_am_i((SELECT oid FROM pg_foreign_server WHERE srvname = '%s'), '%s'::regrole, %d)"


def ask(server, name, user="postgres", calls=1):
    return server.value(ASK % (name, user, calls))


def test_keys(server, authority, sts):
    create(server, authority, "keys", sts.url, {"access_key_id": "AKID", "secret_access_key": SECRET})
    assert ask(server, "keys") == "arn:aws:sts::123456789012:user/moto"
    assert sts.requests[-1]["key"] == "AKID" and sts.requests[-1]["region"] == "eu-west-1"
    assert ask(server, "keys", calls=100).startswith("arn:aws:sts")
    server.sql("ALTER USER MAPPING FOR postgres SERVER keys OPTIONS (SET access_key_id 'TEMP', ADD session_token '%s')" % TOKEN)
    assert ask(server, "keys").startswith("arn:aws:sts") and sts.requests[-1]["key"] == "TEMP"
    # what has changed is used by the same session, too
    conn = server.connect()
    cur = conn.cursor()
    cur.execute(ASK % ("keys", "postgres", 1))
    server.sql("ALTER USER MAPPING FOR postgres SERVER keys OPTIONS (SET secret_access_key '%s')" % WRONG)
    cur.execute(ASK % ("keys", "postgres", 1))
    said = cur.fetchone()[0]
    assert said.startswith("5 InvalidSignatureException: The request signature") and WRONG not in said and TOKEN not in said
    conn.close()
    server.sql("ALTER USER MAPPING FOR postgres SERVER keys OPTIONS (SET secret_access_key '%s')" % SECRET)


def test_a_role(server, authority, sts):
    create(server, authority, "role", sts.url, {"access_key_id": "AKID", "secret_access_key": SECRET, "role_arn": ROLE, "external_id": "us-1"})
    n = len(sts.requests)
    assert ask(server, "role", calls=50) == "arn:aws:sts::123456789012:assumed-role/reader/kda_stream"
    # one refresh for all
    assert len(sts.requests) == n + 51 and b"ExternalId=us-1" in sts.requests[n]["body"]
    # the mapping of PUBLIC, where a user has none
    server.sql("DROP USER MAPPING FOR postgres SERVER role; CREATE USER MAPPING FOR PUBLIC SERVER role OPTIONS (access_key_id 'AKID', secret_access_key '%s')" % SECRET)
    assert ask(server, "role") == "arn:aws:sts::123456789012:user/moto"


def test_who_may_use_the_machine(server, authority, sts):
    def refused(name):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege) as e:
            ask(server, name, "plain")
        return 'server "%s" cannot use the machine\'s credentials' % name in str(e.value)
    create(server, authority, "admins", sts.url)
    assert ask(server, "admins") == "arn:aws:sts::123456789012:user/moto" and sts.requests[-1]["key"] == "test-key"
    create(server, authority, "plains", sts.url, owner="plain")
    create(server, authority, "plains_role", sts.url, {"role_arn": ROLE}, owner="plain")
    assert refused("plains") and refused("plains_role")
    server.sql("ALTER SYSTEM SET kda_stream.machine_credentials_role = 'ops'")
    server.sql("SELECT pg_reload_conf()")
    wait_until(lambda: server.value("SHOW kda_stream.machine_credentials_role") == "ops", "the parameter")
    assert refused("plains") and refused("plains_role")
    server.sql("GRANT ops TO plain")
    assert ask(server, "plains", "plain").startswith("arn:aws:sts")
    assert ask(server, "plains_role", "plain") == "arn:aws:sts::123456789012:assumed-role/reader/kda_stream"
    server.sql("REVOKE ops FROM plain")
    assert refused("plains")
    # a role of which nobody can be a member
    server.sql("DROP ROLE ops")
    assert refused("plains")
    server.sql("ALTER SYSTEM RESET kda_stream.machine_credentials_role")
    server.sql("SELECT pg_reload_conf()")


def threads(pid):
    return len(os.listdir("/proc/%d/task" % pid))


def test_abort_cancels(server, authority):
    hanging = Web(lambda request: [60], certificate=authority.issue("hanging") + ".both.pem")
    create(server, authority, "hanging", hanging.url, {"access_key_id": "AKID", "secret_access_key": SECRET})
    conn = server.connect()
    cur = conn.cursor()
    cur.execute("SET statement_timeout = '300ms'")
    pid = conn.info.backend_pid
    for _ in range(3):
        with pytest.raises(psycopg2.errors.QueryCanceled):
            cur.execute(ASK % ("hanging", "postgres", 20))
        wait_until(lambda: threads(pid) == 1, "the thread to end")
    wait_until(lambda: hanging.open_now == 0, "the connections to be closed")
    conn.close()
    # so does the end of the session, in the middle of it
    conn = server.connect()
    pid = conn.info.backend_pid

    def wait():
        with pytest.raises(psycopg2.Error):
            conn.cursor().execute(ASK % ("hanging", "postgres", 20))
    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: hanging.open_now == 20, "the connections")
    server.sql("SELECT pg_terminate_backend(%d)" % pid)
    thread.join(30)
    wait_until(lambda: hanging.open_now == 0 and not os.path.exists("/proc/%d" % pid), "the session to end")
    hanging.stop()


@pytest.mark.parametrize("name, key", [("dumped", "TEMP"), ("dumped_toasted", "LONG")])
def test_no_secret_in_a_core_dump_of_a_session(server, authority, sts, name, key):
    """Shared buffers have the catalog, which is PostgreSQL's; the process's own memory has nothing."""
    token = sts.keys[key][1]
    create(server, authority, name, sts.url, {"access_key_id": key, "secret_access_key": SECRET, "session_token": token, "role_arn": ROLE})
    given = len(sts.keys)
    conn = server.connect()
    cur = conn.cursor()
    cur.execute(ASK % (name, "postgres", 10))
    assert cur.fetchone()[0].startswith("arn:aws:sts") and len(sts.keys) > given
    role_secret, role_token = list(sts.keys.values())[-1]
    # of a long one its beginning is enough
    needles = [n[:40].encode() for n in (SECRET, token, role_secret, role_token)]
    dumped, kept = where_in_memory(conn.info.backend_pid, needles, shared=False)
    assert not any(dumped.values()) and not any(kept.values()), (dumped, kept)
    # while they are in use
    slow = Web(lambda request: [60], certificate=authority.issue("slow") + ".both.pem")
    server.sql("ALTER SERVER %s OPTIONS (SET sts_endpoint '%s')" % (name, slow.url))

    def wait():
        with pytest.raises(psycopg2.Error):
            cur.execute(ASK % (name, "postgres", 3))
    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: slow.requests, "a call")
    dumped, kept = where_in_memory(conn.info.backend_pid, needles[:2], shared=False)
    conn.cancel()
    thread.join(30)
    assert not any(dumped.values()) and all(kept.values()), (dumped, kept)
    conn.close()
    slow.stop()


def test_no_secret_is_shown(server, authority):
    for statement in (
            "CREATE SERVER no TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', secret_access_key '%s')",
            "CREATE SERVER no TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', session_token '%s')",
            "CREATE SERVER no TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', access_key_id '%s')",
            "CREATE SERVER no TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', endpoint 'https://user:%s@example.com')",
            "CREATE SERVER no TYPE 'kinesis' FOREIGN DATA WRAPPER kda_stream OPTIONS (region 'eu-west-1', proxy 'http://user:%s@proxy:3128')",
            "ALTER SERVER keys OPTIONS (ADD secret_access_key '%s')", "ALTER USER MAPPING FOR postgres SERVER keys OPTIONS (SET secret_access_key ' %s')",
            "ALTER USER MAPPING FOR postgres SERVER keys OPTIONS (SET access_key_id '/%s')", "ALTER USER MAPPING FOR postgres SERVER keys OPTIONS (ADD secret_acess_key '%s')",
            "CREATE USER MAPPING FOR PUBLIC SERVER keys OPTIONS (secret_access_key '%s')", "CREATE USER MAPPING FOR PUBLIC SERVER keys OPTIONS (role_arn '%s')",
            "DO $do$ BEGIN EXECUTE $x$ ALTER USER MAPPING FOR postgres SERVER keys OPTIONS (SET secret_access_key ' %s') $x$; END $do$",
            "CREATE FOREIGN TABLE no (v int) SERVER keys OPTIONS (secret_access_key '%s')"):
        with pytest.raises(psycopg2.Error) as e:
            server.sql(statement % WRONG)
        assert WRONG not in e.value.diag.message_primary + (e.value.diag.message_detail or "") + (e.value.diag.message_hint or ""), statement
    text = server.log_text()
    assert not any(s in text for s in (SECRET, TOKEN, WRONG, "test-secret-key", "test-session-token"))
    for view in ("kda.streams", "kda.workers", "kda.error_stream", "pg_foreign_server", "pg_settings"):
        rows = repr(server.sql("SELECT t::text FROM %s t" % view))
        assert SECRET not in rows and TOKEN not in rows
    dump = subprocess.run([BINDIR + "/pg_dump", "-h", server.sockets, "-p", str(server.port), "-U", "postgres", "postgres"], check=True, stdout=subprocess.PIPE, text=True).stdout
    statements = dump.split(";\n")
    assert any(SECRET in s for s in statements)
    assert not any(SECRET in s for s in statements if "CREATE USER MAPPING" not in s)
