"""Records that differ from the ones before: what the decoder and the window aggregate remember must not show."""
import json
import random

from harness import LONG

TEXTS = ["", "a", "KR", "click", "purchase", "sixteen letters!", "seventeen letters", "long " * 30, "é", "日本", "quote\" and \\ back", "tab\t",
         "abcdefgh", "abcdefgi", "abcd", "abce", "ab", "aa", "aba", "abb", "  ", "\u2028", "aaaaaaaa", "aaaaaaaaa"]
KEYS = ["ts", "a", "b", "n", "other", "A", "more", "a long key that nobody expects to be so long"]


def make(r, i):
    """One record, its keys in some order, written in some way."""
    values = {"ts": "2026-01-01T00:%02d:%02d%sZ" % (i // 600 % 60, i // 10 % 60, r.choice(["", ".5", ".123456"])),
              "a": r.choice(TEXTS), "b": r.choice(TEXTS[:6]) if r.random() < 0.7 else "id-%d" % r.randrange(10000),
              "n": r.choice([1, 2.0, -3, "4", None]), "other": r.choice([{"a": "inner", "b": [1, {"a": 2}]}, [], True, "x"]),
              "A": "other case", "more": r.randrange(100), KEYS[7]: 1}
    keys = KEYS[:6] if r.random() < 0.6 else [k for k in KEYS if k in ("ts",) or r.random() < 0.8]
    if r.random() < 0.3:
        r.shuffle(keys)
    text = json.dumps({k: values[k] for k in keys}, ensure_ascii=r.random() < 0.5,
                      separators=r.choice([(",", ":"), (", ", ": "), (" , ", " :\n")]))
    if r.random() < 0.1:
        text = text.replace('"a"', '"\\u0061"', 1)
    if r.random() < 0.05:
        text = text[:-1] + ', "b" : "the last one counts"}'
    return text


def test_layouts(server, msk, kafka):
    r = random.Random(7)
    count = 60000 if LONG else 6000
    kafka.create_topic("t_layouts", 2)
    texts = []
    alike = make(r, 0)
    for i in range(count):
        if r.random() < 0.05:
            alike = make(r, i)      # then the same for a while
        texts.append(alike if r.random() < 0.5 else make(r, i))
    server.sql("""CREATE STREAM layouts (rowtime timestamptz OPTIONS (path '$.ts'), a varchar(200) OPTIONS (path '$.a'),
                  b text, n int, inner_a text OPTIONS (path '$.other.a')) SERVER msk
                  OPTIONS (topic 't_layouts', start 'earliest', watermark '1 day')""")
    server.sql("CREATE CONTINUOUS VIEW layouts_a AS SELECT a, count(*) c, sum(n) s, max(rowtime) m FROM layouts WINDOWED BY TUMBLING (INTERVAL '1' MINUTE) GROUP BY a")
    server.sql("CREATE CONTINUOUS VIEW layouts_b AS SELECT b, inner_a, count(n) c, avg(n) g FROM layouts GROUP BY b, inner_a")
    kafka.produce("t_layouts", texts)
    assert server.value("SELECT kda.wait('layouts')")
    conn = server.connect()
    cur = conn.cursor()
    cur.execute("CREATE TEMP TABLE expected (v jsonb)")
    for at in range(0, count, 500):
        cur.execute("INSERT INTO expected VALUES " + ",".join(["(%s)"] * len(texts[at:at + 500])), texts[at:at + 500])
    same = """(SELECT (v ->> 'ts')::timestamptz t, v ->> 'a' a, v ->> 'b' b, (v ->> 'n')::numeric::int n, v #>> '{other,a}' i FROM expected) x"""
    for view, text in (
            ("SELECT a, c, s, m FROM layouts_a", "SELECT a, count(*), sum(n), max(t) FROM %s GROUP BY date_trunc('minute', t), a" % same),
            ("SELECT b, inner_a, c, g FROM layouts_b", "SELECT b, i, count(n), avg(n) FROM %s GROUP BY b, i" % same)):
        cur.execute("(%s EXCEPT ALL %s) UNION ALL (%s EXCEPT ALL %s) LIMIT 5" % (view, text, text, view))
        assert cur.fetchall() == []
    conn.close()
    assert server.value("SELECT count(*) FROM kda.error_stream WHERE stream = 'layouts'::regclass") == 0
