"""The parsers alone, under the sanitizers."""
import os
import subprocess

import pytest
from harness import LONG, WORK



@pytest.mark.parametrize("program, files", [("parse", ["json", "csv"]), ("avro", ["avro_read", "value_text", "text", "json"])])
def test_parsers_never_read_beyond_a_record(program, files):
    build, binary = os.path.join(WORK, "build"), os.path.join(WORK, "fuzz_" + program)
    pg_config = os.environ["KDA_PG_CONFIG"]

    def ask(option):
        return subprocess.run([pg_config, option], stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
    subprocess.run(["gcc", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-D_GNU_SOURCE",
                    "-I", build + "/src", "-I", ask("--includedir-server"), "-o", binary,
                    build + "/test/fuzz/%s.c" % program, *(build + "/src/format/%s.c" % f for f in files),
                    "-L" + ask("--pkglibdir"), "-L" + ask("--libdir"), "-lpgcommon", "-lpgport", "-lm"], check=True, stderr=subprocess.DEVNULL)
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")
    env.pop("LD_PRELOAD", None)
    run = subprocess.run([binary, "300" if LONG else "4"] + ([os.environ["KDA_SEED"]] if "KDA_SEED" in os.environ else []),
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    assert run.returncode == 0, run.stdout[-4000:]
