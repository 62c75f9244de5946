"""Statements of our dialect, whole and broken: a broken one is an error with a place in it, never more than that."""
import glob
import os
import random
import re

import psycopg2
import pytest
from harness import LONG

HERE = os.path.dirname(os.path.abspath(__file__))
TOKEN = re.compile(r"(?:'(?:[^']|'')*'|\"[^\"]*\"|\d+\.\d+|\w+|::|=>|[<>]=|<>|\$\$|[^\s\w])\s*")


def statements():
    """Every one that the SQL tests of the dialect hold, but for what ends a transaction or waits."""
    found = []
    for name in ("spellings_kda", "spellings_flink", "adhoc", "dialect", "windows"):
        (path,) = glob.glob(os.path.join(HERE, "../sql", name + ".sql"))
        with open(path) as f:
            text = f.read()
        for statement in re.split(r";\n", text):
            statement = re.sub(r"^(--.*\n|\s)+", "", statement)
            if re.match(r"(CREATE|SELECT|INSERT|WITH|EXPLAIN|PREPARE)\b", statement) and \
                    not re.search(r"COMMIT|ROLLBACK|kda\.wait|kda\.advance|COPY", statement):
                found.append(statement)
    assert len(found) > 200
    return found


def kind(token):
    return "word" if token[0].isalpha() else "number" if token[0].isdigit() else token[0] if token[0] in "'\"" else "sign"


def broken(r, statement, words):
    """The statement with something missing, doubled, exchanged for its like, moved, or with no end."""
    tokens = TOKEN.findall(statement)
    for _ in range(r.choice([1, 1, 1, 2, 4])):
        at = r.randrange(len(tokens))
        what = r.randrange(9)
        if what == 0:
            del tokens[at]
        elif what == 1:
            tokens.insert(at, r.choice(words) + " ")
        elif what < 7:
            like = kind(tokens[at])
            tokens[at] = r.choice([w for w in words if kind(w) == like]) + " "
        elif what == 7:
            other = r.randrange(len(tokens))
            tokens[at], tokens[other] = tokens[other], tokens[at]
        else:
            tokens = tokens[:at + 1]
        if not tokens:
            return "SELECT"
    return "".join(tokens)


def run(conn, text, how):
    """Error code and message, or None."""
    with conn.cursor() as cur:
        try:
            if how == "direct":
                cur.execute(text)
            elif how == "execute":
                cur.execute("SELECT kda.execute(%s)", (text,))
            else:
                cur.execute("SELECT * FROM kda.query(%s) AS t(a text)", (text,))
        except psycopg2.Error as e:
            assert conn.closed == 0, "the session has ended: " + text
            assert e.pgcode and not e.pgcode.startswith("XX"), "%s\n%s" % (e, text)
            position = int(e.diag.statement_position or 0) if how == "direct" else int(e.diag.internal_position or 0)
            assert position <= len(text) + 1, "%s\n%s" % (e, text)
            return e.pgcode, e.diag.message_primary
        finally:
            conn.rollback()
    return None


@pytest.fixture
def objects(server):
    server.sql("CREATE STREAM ticks (rowtime timestamptz, ticker text, price numeric, approximate_arrival timestamptz)")
    server.sql("CREATE STREAM bid (bidtime timestamptz, price numeric, item text, supplier text, WATERMARK FOR bidtime AS bidtime)")
    server.sql("CREATE STREAM s (rowtime timestamptz, k text, v int)")
    server.sql("CREATE STREAM ev (rowtime timestamptz, k text, v int, n numeric)")
    server.sql("CREATE STREAM far (rowtime timestamptz)")
    server.sql("CREATE STREAM d (rowtime timestamptz, k text, x float8, n int)")
    server.sql("CREATE STREAM arrivals (k text, v int, item text, ticker text)")
    server.sql("CREATE TABLE same (rowtime timestamptz, k text, v int)")
    server.sql("CREATE TABLE names (k text, name text)")
    server.sql("INSERT INTO s SELECT timestamptz '2026-01-01 10:00+00' + i * interval '7 s', chr(97 + i % 3), i FROM generate_series(0, 40) i")
    yield
    server.sql("DROP STREAM ticks, bid, s, ev, far, d, arrivals CASCADE; DROP TABLE same, names CASCADE")


@pytest.mark.parametrize("seed", range(20 if LONG else 2))
def test_any_text(server, objects, seed):
    r = random.Random(seed)
    whole = statements()
    words = sorted({t.strip() for s in whole for t in TOKEN.findall(s)})
    conn = server.connect(autocommit=False)
    with conn.cursor() as cur:
        cur.execute("SET statement_timeout = '20s'")
        cur.execute("SET client_min_messages = error")
        conn.commit()
    codes = set()
    for _ in range(600):
        result = run(conn, broken(r, r.choice(whole), words), r.choice(["direct", "direct", "execute", "query"]))
        codes.add(result and result[0])
    conn.close()
    assert {"42601", None} <= codes, codes


def test_places(server, objects):
    """An error stands where it is, however far on in a script, and among characters of several bytes."""
    for before in ("", "SELECT 1; ", "SELECT 'äöü€'; /* € */ "):
        for statement, word in [
            ("CREATE CONTINUOUS VIEW e AS SELECT FLOOR(nosuch TO MINUTE) FROM s", "nosuch"),
            ("CREATE CONTINUOUS VIEW e AS SELECT STEP(rowtime BY nosuch) FROM s", "nosuch"),
            ("CREATE CONTINUOUS VIEW e AS SELECT count(*) FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(v), INTERVAL '1' MINUTES)) GROUP BY window_start, window_end", "v)"),
            ("SELECT count(*) FROM s GROUP BY nosuch, STEP(rowtime BY INTERVAL '1' MINUTES)", "nosuch"),
            ("SELECT nosuch FROM s WINDOWED BY SESSION (INTERVAL '1' MINUTE)", "nosuch"),
            ("SELECT k FROM s WHERE nosuch WINDOWED BY SESSION (INTERVAL '1' MINUTE)", "nosuch"),
            ("SELECT count(*) FROM s WINDOWED BY TUMBLING (INTERVAL '-1' MINUTES)", "INTERVAL"),
            ("SELECT * FROM TABLE(HOP(TABLE s, DESCRIPTOR(rowtime), nosuch, INTERVAL '1' MINUTES)), names", "nosuch"),
        ]:
            text = before + statement
            conn = server.connect()
            with conn.cursor() as cur, pytest.raises(psycopg2.Error) as error:
                cur.execute(text)
            conn.close()
            assert int(error.value.diag.statement_position) == text.rindex(word) + 1, "%s\n%s" % (error.value, text)


KINDS = [
    ("TUMBLING (INTERVAL '50' SECOND, INTERVAL '7' SECOND)", "k"),
    ("SLIDING (INTERVAL '90' SECOND, INTERVAL '60' SECOND)", "k"),
    ("CUMULATING (INTERVAL '90' SECOND, INTERVAL '30' SECOND)", None),
]


@pytest.mark.parametrize("seed", range(10 if LONG else 2))
def test_ad_hoc_is_continuous(server, seed):
    """Over rows of which none is late, a SELECT once gives what a continuous view of the same SELECT gives."""
    r = random.Random(seed)
    server.sql("DROP STREAM IF EXISTS a CASCADE")
    server.sql("CREATE STREAM a (rowtime timestamptz, k text, v int) OPTIONS (watermark '1 hour')")
    selects = []
    for i, (window, key) in enumerate(KINDS):
        select = "SELECT window_start, window_end, %scount(*) AS n, sum(v) AS s, max(rowtime) AS m FROM a WHERE v %% 7 > 0 WINDOWED BY %s%s" % (
            key + ", " if key else "", window, " GROUP BY " + key if key else "")
        selects.append(select)
        server.sql("CREATE CONTINUOUS VIEW a%d AS %s" % (i, select))
    for _ in range(r.randrange(1, 4)):
        values = ", ".join("(timestamptz '2026-01-01 10:00+00' + interval '%d s', %s, %d)" % (
            r.randrange(3000), r.choice(["'x'", "'y'", "NULL"]), r.randrange(100)) for _ in range(r.randrange(1, 60)))
        server.sql("INSERT INTO a VALUES " + values)
    assert server.sql("SELECT kda.wait('a')") == [(True,)]
    for i, select in enumerate(selects):
        assert sorted(server.sql(select), key=str) == sorted(server.sql("TABLE a%d" % i), key=str), select
