import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
import harness  # noqa: E402


@pytest.fixture(scope="session")
def kafka():
    broker = harness.Kafka().start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def server(request):
    """A server for the tests of one file, with the extension; short commit interval."""
    name = request.module.__name__
    pg = harness.Postgres(name, ["kda_stream.commit_interval = '20ms'"] + list(getattr(request.module, "SETTINGS", []))).start()
    pg.sql("CREATE EXTENSION kda_stream")
    yield pg
    try:
        pg.check_sane()
    finally:
        pg.destroy()


@pytest.fixture
def msk(server, kafka):
    """A foreign server over the broker."""
    server.sql("""CREATE SERVER IF NOT EXISTS msk TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream
                  OPTIONS ("bootstrap.servers" '%s')""" % kafka.address)
    return "msk"
