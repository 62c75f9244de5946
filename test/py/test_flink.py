"""Windows against Apache Flink: the same statements over the same rows, letter for letter.

Only in the long run: Flink is a download of 230 MB.  No row is late here: there
Flink is known to differ (docs/concepts.md).
"""
import os
import random
import subprocess
from datetime import datetime, timedelta

from harness import LONG, WORK

SELECTS = """
SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s, min(v) AS mi, max(v) AS ma FROM TABLE(TUMBLE(TABLE e, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, k
SELECT window_start, window_end, count(*) AS n, count(DISTINCT k) AS d FROM TABLE(TUMBLE(TABLE e, DESCRIPTOR(ts), INTERVAL '7' MINUTES, INTERVAL '90' SECOND)) GROUP BY window_start, window_end
SELECT window_start, window_end, k, count(v) AS n, sum(v) AS s FROM TABLE(HOP(TABLE e, DESCRIPTOR(ts), INTERVAL '40' SECOND, INTERVAL '2' MINUTE)) GROUP BY window_start, window_end, k
SELECT window_start, window_end, sum(v) AS s FROM TABLE(HOP(TABLE e, DESCRIPTOR(ts), INTERVAL '5' MINUTE, INTERVAL '10' MINUTE, INTERVAL '1' MINUTE)) WHERE k <> 'c' GROUP BY window_start, window_end HAVING count(*) > 2
SELECT window_start, window_end, k, count(*) AS n, max(v) AS s FROM TABLE(CUMULATE(TABLE e, DESCRIPTOR(ts), INTERVAL '2' MINUTE, INTERVAL '10' MINUTE)) GROUP BY window_start, window_end, k
SELECT window_start, window_end, k, count(*) AS n FROM TABLE(CUMULATE(TABLE e, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '6' MINUTE)) GROUP BY window_start, window_end, GROUPING SETS ((k), ())
SELECT window_start, window_end, k, count(*) AS n, sum(v) AS s FROM TABLE(SESSION(TABLE e PARTITION BY k, DESCRIPTOR(ts), INTERVAL '20' SECOND)) GROUP BY window_start, window_end, k
SELECT window_start, window_end, count(*) AS n FROM TABLE(SESSION(TABLE e, DESCRIPTOR(ts), INTERVAL '5' SECOND)) GROUP BY window_start, window_end
SELECT TUMBLE_START(ts, INTERVAL '1' HOUR) AS a, TUMBLE_END(ts, INTERVAL '1' HOUR) AS b, k, sum(v) AS s FROM e GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), k
SELECT HOP_START(ts, INTERVAL '1' MINUTE, INTERVAL '3' MINUTE) AS a, HOP_END(ts, INTERVAL '1' MINUTE, INTERVAL '3' MINUTE) AS b, count(*) AS n FROM e GROUP BY HOP(ts, INTERVAL '1' MINUTE, INTERVAL '3' MINUTE)
SELECT SESSION_START(ts, INTERVAL '30' SECOND) AS a, SESSION_END(ts, INTERVAL '30' SECOND) AS b, k, count(*) AS n FROM e GROUP BY SESSION(ts, INTERVAL '30' SECOND), k
SELECT * FROM (SELECT window_start, window_end, k, n, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY n DESC, k) AS r FROM (SELECT window_start, window_end, k, count(*) AS n FROM TABLE(TUMBLE(TABLE e, DESCRIPTOR(ts), INTERVAL '5' MINUTE)) GROUP BY window_start, window_end, k)) WHERE r <= 2
""".strip().splitlines()


def shown(value):
    """As Flink prints it."""
    if value is None:
        return "<NULL>"
    return value.strftime("%Y-%m-%d %H:%M:%S.") + "%03d" % (value.microsecond // 1000) if isinstance(value, datetime) else str(value)


def flink(rows, folder):
    """What Flink says: for each SELECT a sorted list of rows of texts."""
    os.makedirs(folder)
    with open(folder + "/e.csv", "w") as f:
        f.writelines("%s,%s,%s\n" % (shown(t), k, "null" if v is None else v) for t, k, v in rows)
    with open(folder + "/script.sql", "w") as f:
        f.write("""SET 'execution.target' = 'local'; SET 'execution.runtime-mode' = 'streaming'; SET 'table.local-time-zone' = 'UTC';
SET 'sql-client.execution.result-mode' = 'tableau'; SET 'sql-client.display.max-column-width' = '100';
CREATE TABLE e (ts TIMESTAMP(3), k STRING, v INT, WATERMARK FOR ts AS ts - INTERVAL '1' DAY)
WITH ('connector' = 'filesystem', 'path' = 'file://%s/e.csv', 'format' = 'csv', 'csv.null-literal' = 'null');
""".replace("; SET", ";\nSET") % folder + "".join(s + ";\n" for s in SELECTS))
    run = subprocess.run([os.path.join(WORK, "build/scripts/flink.sh"), "sql", folder + "/script.sql"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, timeout=900, env=dict(os.environ, KDA_CACHE=os.path.dirname(os.environ["KDA_JARS"])))
    results, rows = [], None
    for line in run.stdout.splitlines():
        if line.startswith("| op |"):
            rows = []
        elif line.startswith("| +I |"):
            rows.append(tuple(cell.strip() for cell in line.strip("|\n ").split("|"))[1:])
        elif line.startswith("Received a total of"):
            results.append(sorted(rows))
    assert len(results) == len(SELECTS), run.stdout[-5000:]
    return results


def against_flink(server):
    r = random.Random(20)
    at = datetime(2026, 1, 1, 9, 58)
    rows = []
    for _ in range(400):
        at += timedelta(milliseconds=r.choice([0, 500, 5000, 10000, 20000, 20001, 30000]))
        rows.append((at - timedelta(milliseconds=r.choice([0, 0, 0, 1000, 60000])), r.choice("abc"), r.choice([None, 1, 5, 9])))
    server.sql("CREATE STREAM e (ts timestamp, k text, v int, WATERMARK FOR ts AS ts - INTERVAL '1' DAY) OPTIONS (idle_timeout 'never')")
    for i, select in enumerate(SELECTS):
        # PostgreSQL 15 wants a name for a subquery
        server.sql("CREATE CONTINUOUS VIEW f%d AS %s" % (i, select.replace("window_end, k)) WHERE", "window_end, k) y) x WHERE")))
    done = 0
    while done < len(rows):
        part = rows[done:done + r.choice([1, 20, 100])]
        done += len(part)
        server.sql("INSERT INTO e VALUES " + ",".join("('%s', '%s', %s)" % (t, k, "NULL" if v is None else v) for t, k, v in part))
    server.sql("SELECT kda.advance('e', '2027-01-01')")
    assert server.value("SELECT kda.wait('e', '60 s')")
    for i, (select, theirs) in enumerate(zip(SELECTS, flink(rows, os.path.join(WORK, "flink")))):
        ours = sorted(tuple(shown(v.replace(tzinfo=None) if isinstance(v, datetime) else v) for v in row) for row in server.sql("TABLE f%d" % i))
        assert len(ours) > 3
        assert ours == theirs, "%s\nonly ours: %s\nonly Flink's: %s" % (select, sorted(set(ours) - set(theirs))[:5], sorted(set(theirs) - set(ours))[:5])


if LONG:
    def test_the_same_as_flink(server):
        against_flink(server)
