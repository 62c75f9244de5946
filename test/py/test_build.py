"""The library itself: what it shows to the linker, and that it could open the parser's door."""
import subprocess

from harness import BINDIR


def test_no_symbol_without_our_prefix(server):
    """Others' libraries live in the same process: out go the functions that SQL names, and what core looks up."""
    folder = subprocess.check_output([BINDIR + "/pg_config", "--pkglibdir"], text=True).strip()
    symbols = {line.split()[-1] for line in
               subprocess.check_output(["nm", "-D", "--defined-only", folder + "/kda_stream.so"], text=True).splitlines()}
    functions = {"kda_" + s[len("pg_finfo_kda_"):] for s in symbols if s.startswith("pg_finfo_kda_")}
    processes = {"kda_launcher_main", "kda_worker_main", "kda_probe_main", "kda_deliver_main"}
    assert symbols == functions | {"pg_finfo_" + f for f in functions} | processes | {"_PG_init", "Pg_magic_func"}
    assert functions == {r[0] for r in server.sql(
        "SELECT DISTINCT prosrc FROM pg_proc JOIN pg_language l ON l.oid = prolang WHERE lanname = 'c' AND probin = '$libdir/kda_stream'")}


def test_the_door_is_open(server):
    """Bare KDA statements work on this server, not only kda.execute()."""
    server.sql("CREATE STREAM door (v int)")
    assert "does not extend the grammar" not in server.log_text()
