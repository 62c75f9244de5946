"""Runs pg_regress and pytest, and counts: the last line is "N passed, M failed"."""
import glob
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from harness import BINDIR, WORK, Postgres  # noqa: E402

here = os.path.dirname(os.path.abspath(__file__))
words = sys.argv[1:]


def regress():
    tests = sorted(os.path.basename(f)[:-4] for f in glob.glob(os.path.join(here, "../sql/*.sql")))
    if words:
        tests = [t for t in tests if any(w in t for w in words)]
    if not tests:
        return 0, 0
    server = Postgres("regress", ["kda_stream.commit_interval = '20ms'", "fsync = off"]).start()
    run = subprocess.run([os.environ["KDA_REGRESS"], "--inputdir=" + os.path.dirname(here), "--bindir=" + BINDIR,
                          "--outputdir=" + os.path.join(WORK, "regress"), "--host=" + server.sockets,
                          "--port=%d" % server.port, "--user=postgres", "--dbname=regression", *tests],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(run.stdout, flush=True)
    passed = len(re.findall(r"^(?:test .*\.\.\. ok|ok \d+)", run.stdout, re.M))
    failed = len(tests) - passed
    diffs = os.path.join(WORK, "regress/regression.diffs")
    if failed and os.path.exists(diffs):
        with open(diffs) as f:
            print(f.read()[:40000])
    try:
        server.check_sane()
    except AssertionError as e:
        print(e)
        failed += 1
    server.destroy()
    return passed, failed


def py():
    args = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA" if os.environ.get("KDA_VERBOSE") else "-rf",
            "--tb=short", "--durations=8", here]
    if words:
        args += ["-k", " or ".join(words)]
    run = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(run.stdout, flush=True)
    counts = {k: int(n) for n, k in re.findall(r"(\d+) (passed|failed|error|errors|skipped)", run.stdout.splitlines()[-1])}
    # what cannot run has failed
    failed = sum(counts.get(k, 0) for k in ("failed", "error", "errors", "skipped"))
    if run.returncode not in (0, 5) and failed == 0:
        failed = 1
    return counts.get("passed", 0), failed


passed, failed = regress()
p, f = py()
passed, failed = passed + p, failed + f
print("%d passed, %d failed" % (passed, failed))
sys.exit(1 if failed or not passed else 0)
