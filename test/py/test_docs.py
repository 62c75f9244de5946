"""The documentation does what it says.

Every page of docs/ and README.md is run, in a database of its own:

    ```sql          given to psql, in the order of the page; what it prints is
    ```text         in the block right below (none: it prints nothing)
    ```sql norun    is only to be read
    ```json TOPIC   is first written to that topic of a real broker, a record a line
    ```csv TOPIC    the same; broker:9092 in SQL is that broker

The answer of kda.wait, if it is true, is left out.  In a text block … stands for anything.  When a page is out of date the test
shows the difference as a patch: read it, then `patch -p1 < …` corrects the page.
"""
import difflib
import glob
import json
import os
import re
import subprocess

import pytest
from harness import BINDIR, WORK

ROOT = os.path.join(WORK, "build")
PAGES = sorted(os.path.relpath(f, ROOT) for f in glob.glob(ROOT + "/docs/*.md")) + ["README.md"]
BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```\n", re.M | re.S)
MARK = "--- end of a block ---"
WAITED = " wait\n------\n t\n(1 row)\n\n"


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as f:
        return f.read()


class Psql:
    """One psql for a page, so that what is SET stays."""

    def __init__(self, server, dbname):
        self.process = subprocess.Popen(
            [BINDIR + "/psql", "-X", "-q", "-h", server.sockets, "-p", str(server.port), "-U", "postgres", dbname],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")

    def run(self, text):
        self.process.stdin.write(text + "\\echo " + MARK + "\n")
        self.process.stdin.flush()
        lines = []
        while True:
            line = self.process.stdout.readline()
            assert line, "psql has ended:\n" + "".join(lines)
            if line == MARK + "\n":
                break
            lines.append(line.rstrip() + "\n")
        text = "".join(lines).replace(WAITED, "").rstrip("\n")
        return text + "\n" if text else ""

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)


def same(printed, expected):
    if "…" not in expected:
        return printed == expected
    return re.fullmatch(".*?".join(re.escape(part) for part in expected.split("…")), printed, re.S) is not None


def keep_wildcards(printed, expected):
    """What was printed, but lines that … still fits stay as they are."""
    was, now = expected.splitlines(), printed.splitlines()
    if len(was) == len(now):
        now = [w if same(n, w) else n for w, n in zip(was, now)]
    return "".join(line + "\n" for line in now)


@pytest.mark.parametrize("page", [p for p in PAGES if "```sql\n" in read(p)])
def test_a_page_prints_what_it_says(server, request, page):
    text = read(page)
    blocks = list(BLOCK.finditer(text))
    topics = {words[1] for words in (b.group(1).split() for b in blocks) if len(words) == 2 and words[0] in ("json", "csv")}
    wanted = topics or any("broker:9092" in b.group(2) for b in blocks if b.group(1) == "sql")
    broker = request.getfixturevalue("kafka") if wanted else None
    for topic in topics:
        broker.create_topic(topic)
    dbname = "docs_" + re.sub(r"\W", "_", page.lower())
    server.sql("CREATE DATABASE " + dbname)
    server.sql("CREATE EXTENSION kda_stream", dbname=dbname)
    psql = Psql(server, dbname)
    corrected, copied = [], 0
    try:
        for i, block in enumerate(blocks):
            words = block.group(1).split()
            if len(words) == 2 and words[1] in topics:
                broker.produce(words[1], block.group(2).splitlines())
            if words != ["sql"]:
                continue
            sql = block.group(2)
            printed = psql.run(sql.replace("broker:9092", broker.address) if broker else sql)
            if broker:
                printed = printed.replace(broker.address, "broker:9092")
            end, expected = block.end(), ""
            below = blocks[i + 1] if i + 1 < len(blocks) else None
            if below and below.group(1) == "text" and text[block.end():below.start()].strip() == "":
                end, expected = below.end(), below.group(2)
            if same(printed, expected):
                continue
            corrected.append(text[copied:block.end()])
            if printed:
                corrected.append("\n```text\n" + keep_wildcards(printed, expected) + "```\n")
            copied = end
    finally:
        psql.close()
        server.sql("DROP DATABASE " + dbname)
    corrected = "".join(corrected) + text[copied:]
    if corrected != text:
        pytest.fail("\n" + "".join(difflib.unified_diff(text.splitlines(True), corrected.splitlines(True),
                                                       "a/" + page, "b/" + page)), pytrace=False)


def test_readme_begins_with_the_two_commands():
    commands = [line for kind, body in BLOCK.findall(read("README.md")) if kind == "sh"
                for line in body.splitlines() if line.strip() and not line.startswith("#")]
    assert re.fullmatch(r"git clone \S+ kda_stream", commands[0])
    assert commands[1:4] == ["cd kda_stream", "make demo", "make test"]


def test_links_lead_somewhere():
    for page in PAGES + ["CONTRIBUTING.md", "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", read(page)):
            if not target.startswith(("http:", "https:")):
                path = os.path.normpath(os.path.join(os.path.dirname(page), target))
                assert os.path.exists(os.path.join(ROOT, path)), "%s: %s" % (page, target)


def test_the_house_has_the_files_that_it_shows():
    have = {os.path.basename(f) for pattern in ("src/*.[ch]", "src/*/*.[ch]", "test/*", "test/*/*", "scripts/*", "sql/*")
            for f in glob.glob(os.path.join(ROOT, pattern))}
    named = re.findall(r"\b([a-z0-9_]+\.(?:[ch]|py|sh|pl))\b", read("docs/development.md") + read("CONTRIBUTING.md"))
    assert sorted({n for n in named if n not in have}) == []
    functions = re.findall(r"`(kda_[a-z_]+)`", read("docs/development.md"))
    source = "".join(read(os.path.relpath(f, ROOT)) for f in glob.glob(ROOT + "/src/*/*.c") + glob.glob(ROOT + "/sql/*.sql"))
    assert sorted({f for f in functions if not re.search(r"\b%s\b" % f, source)}) == []


def names(text):
    """What stands in code, and the first word of it."""
    spans = re.findall(r"`([^`\n]+)`", text)
    return set(spans) | {s.split()[0] for s in spans if s.strip()}


def test_nothing_is_left_out_of_the_reference(server):
    """Every function, view, parameter and option that there is has its place in the reference."""
    reference = read("docs/sql-reference.md")
    kafka = read("docs/kafka.md")
    missing = []
    for (name,) in server.sql("SELECT DISTINCT 'kda.' || proname FROM pg_proc WHERE pronamespace = 'kda'::regnamespace "
                              "UNION SELECT 'kda.' || relname FROM pg_class WHERE relnamespace = 'kda'::regnamespace AND relkind = 'v' "
                              "UNION SELECT name FROM pg_settings WHERE name LIKE 'kda_stream.%%' ORDER BY 1"):
        if name not in reference:
            missing.append(name)
    for view, column in server.sql("SELECT relname, attname FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid "
                                   "WHERE relnamespace = 'kda'::regnamespace AND relkind = 'v' AND attnum > 0"):
        if "`%s`" % column not in reference:
            missing.append("%s.%s" % (view, column))
    listed = names(reference) | names(kafka)
    for statement in ("CREATE STREAM nothing (a int) OPTIONS (nosuch '')", "CREATE STREAM nothing (a int OPTIONS (nosuch ''))",
                      "CREATE SERVER nothing TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (nosuch '')",
                      "CREATE SERVER nothing TYPE 'kafka' FOREIGN DATA WRAPPER kda_stream OPTIONS (\"bootstrap.servers\" 'x');"
                      "CREATE USER MAPPING FOR PUBLIC SERVER nothing OPTIONS (nosuch '')"):
        hint = re.search(r"HINT: +[^:]*: (.*)\.", server.psql(statement).stdout).group(1)
        missing += [option for option in hint.split(", ") if option not in listed]
    assert missing == []


def test_metadata_names_this_version():
    meta = json.loads(read("META.json"))
    version = re.search(r"default_version = '([\d.]+)'", read("kda_stream.control")).group(1)
    assert meta["version"] == meta["provides"]["kda_stream"]["version"] == version + ".0"
    assert os.path.exists(os.path.join(ROOT, meta["provides"]["kda_stream"]["file"]))
    assert "\n## " + version in read("CHANGELOG.md")


def test_typedefs_list_is_complete():
    """scripts/typedefs.pl >typedefs.list writes it anew."""
    made = subprocess.run([ROOT + "/scripts/typedefs.pl"], cwd=ROOT, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
    assert read("typedefs.list") == made
