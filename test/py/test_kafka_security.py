"""TLS and SASL with a real broker; secrets are nowhere but in the user mapping."""
import os
import subprocess

import psycopg2
import pytest
from authority import Authority, read
from harness import BINDIR, Kafka, Postgres, free_port, wait_until

# found nowhere by chance
SECRET = "canary-%s" % os.urandom(8).hex()
WRONG = "canary-%s" % os.urandom(8).hex()
KEY_PASSWORD = "canary-%s" % os.urandom(8).hex()

# where the system's librdkafka is too old for SCRAM with this broker
NEWER = os.environ.get("KDA_LIBRDKAFKA")


class Secure:
    """The broker, with a listener for each way in; "alice" may do all, "bob" nothing."""

    def __init__(self):
        self.authority = Authority("right")
        self.other = Authority("wrong")
        broker = self.authority.issue("broker")
        self.client = self.authority.issue("client", password=KEY_PASSWORD)
        self.ports = {name: free_port() for name in ("TLS", "MUTUAL", "SASL", "BOTH")}
        plain = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="admin" password="x" user_alice="%s" user_bob="bob";' % SECRET
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        extra = ["listener.security.protocol.map=PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,MUTUAL:SSL,SASL:SASL_PLAINTEXT,BOTH:SASL_SSL",
                 "ssl.keystore.type=PEM", "ssl.keystore.location=%s.both.pem" % broker,
                 "ssl.truststore.type=PEM", "ssl.truststore.location=%s/ca.pem" % self.authority.dir,
                 "listener.name.mutual.ssl.client.auth=required",
                 "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                 "super.users=User:ANONYMOUS;User:CN=client;User:alice"]
        for name in ("sasl", "both"):
            extra += ["listener.name.%s.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512" % name,
                      "listener.name.%s.plain.sasl.jaas.config=%s" % (name, plain),
                      "listener.name.%s.scram-sha-256.sasl.jaas.config=%s" % (name, scram),
                      "listener.name.%s.scram-sha-512.sasl.jaas.config=%s" % (name, scram)]
        self.kafka = Kafka("secure", "\n".join(extra) + "\n", env={
            "KAFKA_LISTENERS": ",".join("%s://127.0.0.1:%d" % p for p in self.ports.items()),
            "KAFKA_FORMAT": " ".join("--add-scram SCRAM-SHA-%d=[name=alice,password=%s]" % (n, SECRET) for n in (256, 512))}).start()

    def address(self, name):
        return "127.0.0.1:%d" % self.ports[name]


@pytest.fixture(scope="module")
def secure():
    s = Secure()
    yield s
    s.kafka.stop()


@pytest.fixture(scope="module")
def scram_server(server):
    if not NEWER:
        yield server
        return
    pg = Postgres("scram", ["kda_stream.commit_interval = '20ms'"], preload=NEWER).start()
    pg.sql("CREATE EXTENSION kda_stream")
    yield pg
    pg.check_sane()
    pg.destroy()


def options(pairs):
    return ", ".join("\"%s\" '%s'" % (k, v.replace("'", "''")) for k, v in pairs.items())


def declare(server, secure, name, where, server_options, user_options):
    """A server, the mapping, a stream of two records, a view."""
    secure.kafka.create_topic("t_" + name)
    secure.kafka.produce("t_" + name, [{"v": 1}, {"v": 2}])
    server.sql("CREATE SERVER s_%s TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (%s)" % (
        name, options({"bootstrap.servers": secure.address(where), **server_options})))
    if user_options:
        server.sql("CREATE USER MAPPING FOR CURRENT_USER SERVER s_%s OPTIONS (%s)" % (name, options(user_options)))
    server.sql("CREATE STREAM %s (v int) SERVER s_%s OPTIONS (topic 't_%s', start 'earliest')" % (name, name, name))
    server.sql("CREATE CONTINUOUS VIEW %s_v AS SELECT sum(v) s FROM %s" % (name, name))


def last_error(server, name):
    return server.value("SELECT last_error FROM kda.streams WHERE stream = %s::regclass", name) or ""


def comes(server, name):
    wait_until(lambda: server.value("SELECT s FROM %s_v" % name) == 3, "the records of %s; last error: %s" % (name, last_error(server, name)), 30)
    assert server.value("SELECT kda.wait(%s::regclass)", name)
    wait_until(lambda: last_error(server, name) == "", "the trouble to go")
    assert server.value("SELECT state FROM kda.streams WHERE stream = %s::regclass", name) == "running"


def sasl(mechanism, tls=None):
    return {"security.protocol": "SASL_SSL" if tls else "SASL_PLAINTEXT", "sasl.mechanism": mechanism, **({"ssl.ca.pem": tls} if tls else {})}


ALICE = {"sasl.username": "alice", "sasl.password": SECRET}


def test_tls(server, secure):
    declare(server, secure, "tls_pem", "TLS", {"security.protocol": "SSL", "ssl.ca.pem": secure.authority.pem}, None)
    declare(server, secure, "tls_file", "TLS", {"security.protocol": "SSL", "ssl.ca.location": secure.authority.dir + "/ca.pem"}, None)
    comes(server, "tls_pem")
    comes(server, "tls_file")


def test_client_certificates(server, secure):
    mutual = {"security.protocol": "SSL", "ssl.ca.pem": secure.authority.pem}
    declare(server, secure, "mutual", "MUTUAL", mutual, {
        "ssl.certificate.pem": read(secure.client + ".pem"), "ssl.key.pem": read(secure.client + ".enc.key"), "ssl.key.password": KEY_PASSWORD})
    comes(server, "mutual")
    # none: the broker hangs up
    declare(server, secure, "unknown", "MUTUAL", mutual, None)
    wait_until(lambda: "certificate" in last_error(server, "unknown") or "SSL" in last_error(server, "unknown"), "the trouble to show")
    # the key cannot be read
    server.sql("CREATE USER MAPPING FOR CURRENT_USER SERVER s_unknown OPTIONS (%s)" % options(
        {"ssl.certificate.pem": read(secure.client + ".pem"), "ssl.key.pem": read(secure.client + ".enc.key"), "ssl.key.password": WRONG}))
    wait_until(lambda: "ssl.key.pem" in last_error(server, "unknown"), "the key to be named", 30)
    server.sql("ALTER USER MAPPING FOR CURRENT_USER SERVER s_unknown OPTIONS (SET \"ssl.key.password\" '%s')" % KEY_PASSWORD)
    comes(server, "unknown")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("tls", [False, True])
def test_sasl(server, scram_server, secure, mechanism, tls):
    if mechanism != "PLAIN":
        server = scram_server
    name = "sasl_%s_%s" % (mechanism.lower().replace("-", "_"), tls)
    declare(server, secure, name.lower(), "BOTH" if tls else "SASL", sasl(mechanism, secure.authority.pem if tls else None), ALICE)
    comes(server, name.lower())


def test_a_wrong_password_is_said_and_corrected(server, scram_server, secure):
    for mechanism, pg in (("PLAIN", server), ("SCRAM-SHA-512", scram_server)):
        name = "wrong_" + mechanism[:5].lower()
        declare(pg, secure, name, "SASL", sasl(mechanism), {**ALICE, "sasl.password": WRONG})
        wait_until(lambda: "uthentication failed" in last_error(pg, name), "the reason; got " + last_error(pg, name), 30)
        assert pg.value("SELECT state FROM kda.streams WHERE stream = %s::regclass", name) == "running"
        # kda.sample says so as an error, with a way out
        with pytest.raises(psycopg2.Error) as e:
            pg.sql("SELECT * FROM kda.sample(%s::regclass, 10, '8 s')", name)
        assert "uthentication failed" in str(e.value) and e.value.pgcode == "HV00N" and "user mapping" in e.value.diag.message_hint
        # it still says so, and does not give up
        assert "uthentication failed" in last_error(pg, name)
        pg.sql("ALTER USER MAPPING FOR CURRENT_USER SERVER s_%s OPTIONS (SET \"sasl.password\" '%s')" % (name, SECRET))
        comes(pg, name)
        assert pg.value("SELECT count(*) FROM kda.sample(%s::regclass)", name) == 2
    # a mapping that goes is not used any longer; one that comes is used at once
    server.sql("DROP USER MAPPING FOR CURRENT_USER SERVER s_wrong_plain")
    wait_until(lambda: last_error(server, "wrong_plain") != "", "the missing password to be missed")
    secure.kafka.produce("t_wrong_plain", [{"v": 10}])
    server.sql("CREATE USER MAPPING FOR PUBLIC SERVER s_wrong_plain OPTIONS (%s)" % options(ALICE))
    wait_until(lambda: server.value("SELECT s FROM wrong_plain_v") == 13, "the new record", 30)
    if NEWER:
        # the system's library cannot do it: the message says that it may not be the password
        declare(server, secure, "old_library", "SASL", sasl("SCRAM-SHA-256"), ALICE)
        wait_until(lambda: "too old" in last_error(server, "old_library"), "the reason; got " + last_error(server, "old_library"), 30)


def test_a_wrong_authority_is_said_and_corrected(server, secure):
    declare(server, secure, "ca", "BOTH", sasl("PLAIN", secure.other.pem), ALICE)
    wait_until(lambda: "certificate" in last_error(server, "ca"), "the reason; got " + last_error(server, "ca"), 30)
    with pytest.raises(psycopg2.Error) as e:
        server.sql("SELECT * FROM kda.sample('ca')")
    assert "certificate" in str(e.value)
    server.sql("ALTER SERVER s_ca OPTIONS (SET \"ssl.ca.pem\" '%s')" % secure.authority.pem)
    comes(server, "ca")
    # a broker whose certificate is for another name
    assert "certificate" not in last_error(server, "ca")
    server.sql("ALTER SERVER s_ca OPTIONS (SET \"bootstrap.servers\" 'localhost:%d')" % secure.ports["BOTH"])
    wait_until(lambda: "certificate" in last_error(server, "ca"), "the other name to be noticed", 30)


def test_a_topic_that_may_not_be_read(server, secure):
    declare(server, secure, "forbidden", "SASL", sasl("PLAIN"), {"sasl.username": "bob", "sasl.password": "bob"})
    wait_until(lambda: "authorization failed" in last_error(server, "forbidden").lower(), "the reason; got " + last_error(server, "forbidden"), 30)
    assert "t_forbidden" in last_error(server, "forbidden")
    assert server.value("SELECT state FROM kda.streams WHERE stream = 'forbidden'::regclass") == "running"
    server.sql("ALTER USER MAPPING FOR CURRENT_USER SERVER s_forbidden OPTIONS (SET \"sasl.username\" 'alice', SET \"sasl.password\" '%s')" % SECRET)
    comes(server, "forbidden")


def test_ways_to_authenticate_are_checked_at_once(server):
    def refused(text):
        with pytest.raises(psycopg2.Error) as e:
            server.sql("CREATE SERVER nope TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" 'x:1', %s)" % text)
        return str(e.value)
    # the library's own default would run kinit
    assert "needs property" in refused("\"security.protocol\" 'SASL_PLAINTEXT'")
    assert "SCRAM-SHA-256" in refused("\"security.protocol\" 'SASL_PLAINTEXT', \"sasl.mechanism\" 'GSSAPI'")
    assert "SCRAM-SHA-256" in refused("\"sasl.mechanisms\" 'OAUTHBEARER'")
    assert "invalid value" in refused("\"security.protocol\" 'SSH'")
    for name in ("sasl.kerberos.kinit.cmd", "plugin.library.paths", "group.id", "enable.auto.commit", "check.crcs", "fetch.max.bytes", "log_level"):
        assert "cannot be set" in refused("\"%s\" '1'" % name), name
    server.sql("CREATE ROLE plain_user; GRANT USAGE ON FOREIGN DATA WRAPPER kda_stream TO plain_user")
    with pytest.raises(psycopg2.Error) as e:
        server.sql("SET ROLE plain_user; CREATE SERVER nope TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" 'x:1', \"ssl.ca.location\" '/etc/passwd')")
    assert "pg_read_server_files" in str(e.value)


def test_secrets_are_refused_where_they_do_not_belong(server):
    server.sql("CREATE SERVER place TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" 'x:1'); CREATE STREAM placed (v int) SERVER place")
    for statement in (
            "CREATE SERVER p2 TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" 'x:1', \"sasl.password\" '%s')",
            "ALTER SERVER place OPTIONS (ADD \"sasl.password\" '%s')", "ALTER SERVER place OPTIONS (ADD \"ssl.key.password\" '%s')",
            "ALTER SERVER place OPTIONS (ADD \"ssl.key.pem\" '%s')", "ALTER SERVER place OPTIONS (ADD \"sasl.username\" '%s')",
            "CREATE STREAM p3 (v int) SERVER place OPTIONS (\"sasl.password\" '%s')", "CREATE STREAM p3 (v int OPTIONS (\"sasl.password\" '%s')) SERVER place",
            "CREATE FOREIGN TABLE p3 (v int) SERVER place OPTIONS (password '%s')", "ALTER STREAM placed OPTIONS (ADD \"sasl.password\" '%s')",
            "ALTER FOREIGN TABLE placed ALTER v OPTIONS (ADD \"client_secret\" '%s')", "ALTER FOREIGN DATA WRAPPER kda_stream OPTIONS (ADD password '%s')",
            "SELECT kda.execute($x$ CREATE STREAM p3 (v int) SERVER place OPTIONS (\"sasl.password\" '%s') $x$)",
            "DO $do$ BEGIN EXECUTE $x$ CREATE STREAM p3 (v int) SERVER place OPTIONS (\"sasl.password\" '%s') $x$; END $do$",
            "DO $do$ BEGIN EXECUTE $x$ ALTER SERVER place OPTIONS (ADD \"sasl.password\" '%s') $x$; END $do$",
            # in the right place, but wrong
            "CREATE USER MAPPING FOR CURRENT_USER SERVER place OPTIONS (\"sasl.passwort\" '%s')", "CREATE USER MAPPING FOR CURRENT_USER SERVER place OPTIONS (\"ssl.key.pem\" '%s', x '')",
            "CREATE USER MAPPING FOR CURRENT_USER SERVER place OPTIONS (\"sasl.password\" '%s', \"bootstrap.servers\" 'x')",
            "CREATE USER MAPPING FOR CURRENT_USER SERVER kda OPTIONS (\"sasl.password\" '%s')",
            "DO $do$ BEGIN EXECUTE $x$ CREATE USER MAPPING FOR CURRENT_USER SERVER place OPTIONS (\"sasl.passwort\" '%s') $x$; END $do$"):
        with pytest.raises(psycopg2.Error) as e:
            server.sql(statement % SECRET)
        assert SECRET not in e.value.diag.message_primary + (e.value.diag.message_detail or "") + (e.value.diag.message_hint or ""), statement
        assert SECRET not in server.log_text(), statement


@pytest.mark.parametrize("which", ["server", "scram_server"])
def test_no_secret_is_anywhere(request, secure, which):
    """Runs last: after all that went right and wrong above."""
    server = request.getfixturevalue(which)
    needles = [SECRET, WRONG, KEY_PASSWORD] + read(secure.client + ".enc.key").splitlines()[1:3]
    found = [(n, where) for n in needles for where, text in {
        "log": server.log_text(),
        "activity": repr(server.sql("SELECT * FROM pg_stat_activity WHERE pid <> pg_backend_pid()")),
        "settings": repr(server.sql("SELECT name, setting FROM pg_settings"))}.items() if n in text]
    relations = [r[0] for r in server.sql("SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace::regnamespace::text IN ('kda', 'kda_storage') AND relkind IN ('r', 'v', 'f')")]
    assert "kda.streams" in relations and "kda_storage.stream" in relations
    for relation in relations:
        text = repr(server.sql("SELECT t::text FROM %s t" % relation))
        found += [(n, relation) for n in needles if n in text]
    for table in ("pg_foreign_server", "pg_foreign_table", "pg_attribute", "pg_description"):
        text = repr(server.sql("SELECT t::text FROM pg_catalog.%s t" % table))
        found += [(n, table) for n in needles if n in text]
    dump = subprocess.run([BINDIR + "/pg_dump", "-h", server.sockets, "-p", str(server.port), "-U", "postgres", "postgres"],
                          check=True, stdout=subprocess.PIPE, text=True).stdout
    statements = dump.split(";\n")
    assert sum(SECRET in s for s in statements if "CREATE USER MAPPING" in s) > 3
    found += [(n, "dump: " + s) for n in needles for s in statements if n in s and "CREATE USER MAPPING" not in s]
    assert found == []
    # whoever may not see the mapping sees no secret of it
    server.sql("DROP ROLE IF EXISTS nobody; CREATE ROLE nobody; GRANT pg_monitor TO nobody")
    assert SECRET not in repr(server.sql("SET ROLE nobody; SELECT * FROM pg_user_mappings"))
