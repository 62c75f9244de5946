"""What the tests start: a PostgreSQL with the extension, a Kafka broker.

Everything lives below KDA_WORK (test/run makes it), on ports that the kernel
gives, and is stopped by whoever started it; pids are noted so that test/run can
stop what a crashed test has left.
"""
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import psycopg2

WORK = os.environ["KDA_WORK"]
BINDIR = os.environ["KDA_BINDIR"]
FAULT_BINDIR = os.environ.get("KDA_FAULT_BINDIR")    # the same with fault points (src/runtime/fault.h)
LONG = os.environ.get("KDA_LONG") == "yes"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(condition, what, timeout=60, every=0.05):
    """Waits until condition() is true; its last value, or an error that says what was awaited."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("timed out: " + what)
        time.sleep(every)


def patiently(server, text, *args, timeout=60):
    """The value of a query, however often the server crashes meanwhile."""
    end = time.monotonic() + timeout
    while True:
        try:
            return server.value(text, *args)
        except psycopg2.Error:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def caught_up(server, stream, timeout=120):
    """Waits until all of the stream is processed, however often the server crashes meanwhile."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if patiently(server, "SELECT kda.wait(%s::regclass, '5 s')", stream):
            return
    raise AssertionError("not caught up: %s" % [server.sql("SELECT * FROM " + what) for what in ("kda.streams", "kda.workers", "kda.shards", "kda_storage.slot")])


class Feeder(threading.Thread):
    """Produces records to a topic at a steady rate until told to stop, or as fast as it can (per_second None) until it says so itself: one() makes one."""

    def __init__(self, kafka, topic, per_second, seed):
        super().__init__(daemon=True)
        self.kafka, self.topic, self.rate = kafka, topic, per_second
        self.random = random.Random(seed)
        self.stopping = threading.Event()
        self.error = None

    def one(self, producer):
        raise NotImplementedError

    def run(self):
        try:
            p = self.kafka.producer(enable_idempotence="true", linger_ms=2)
            while not self.stopping.is_set():
                begun = time.monotonic()
                for _ in range(self.rate // 20 if self.rate else 100):
                    if self.stopping.is_set():
                        break
                    self.one(p)
                    p.poll(0)
                if self.rate:
                    self.stopping.wait(max(0, 0.05 - (time.monotonic() - begun)))
            p.flush(60)
        except Exception as e:
            self.error = e

    def stop(self):
        if self.rate:
            self.stopping.set()
        self.join(120)
        assert self.error is None, self.error


def note_pid(pid):
    with open(os.path.join(WORK, "pids", str(pid)), "w") as f:
        f.write(str(pid))


def forget_pid(pid):
    try:
        os.unlink(os.path.join(WORK, "pids", str(pid)))
    except FileNotFoundError:
        pass


class Postgres:
    """A server of its own; settings are lines of postgresql.conf, preload a library that its processes load first."""

    def __init__(self, name, settings=(), initdb=True, basedir=None, bindir=BINDIR, preload=None):
        self.bindir = bindir
        self.preload = preload
        self.dir = os.path.join(basedir or WORK, name)
        self.data = os.path.join(self.dir, "data")
        self.log = os.path.join(self.dir, "log")
        self.port = free_port()
        self.sockets = os.path.join(WORK, "s%d" % self.port)
        os.makedirs(self.dir, exist_ok=True)
        os.makedirs(self.sockets, exist_ok=True)
        if initdb:
            subprocess.run([BINDIR + "/initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "--no-sync",
                            "-E", "UTF8", "--locale=C.UTF-8"], check=True, stdout=subprocess.DEVNULL)
            self.configure(settings)

    def configure(self, settings):
        with open(self.data + "/postgresql.conf", "a") as f:
            f.write("\n".join([
                "shared_preload_libraries = 'kda_stream'",
                "listen_addresses = ''",
                "unix_socket_directories = '%s'" % self.sockets,
                "port = %d" % self.port,
                "max_connections = 40",
                "timezone = 'UTC'",
                "log_line_prefix = '%m [%p] %b '",
                "log_timezone = 'UTC'",
                *settings]) + "\n")

    def environment(self):
        env = dict(os.environ)
        if os.environ.get("KDA_ASAN"):
            env["LD_PRELOAD"] = os.environ["KDA_ASAN"]
            env["ASAN_OPTIONS"] = "detect_leaks=0:abort_on_error=1:disable_coredump=1:log_path=%s/asan" % self.dir
            env["UBSAN_OPTIONS"] = "print_stacktrace=1:abort_on_error=1:log_path=%s/ubsan" % self.dir
        if self.preload:
            env["LD_PRELOAD"] = ":".join(filter(None, (env.get("LD_PRELOAD"), self.preload)))
        return env

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen([self.bindir + "/postgres", "-D", self.data], stdout=log, stderr=log,
                                            env=self.environment(), start_new_session=True)
        note_pid(self.process.pid)
        wait_until(self.answers, "the server to start; see " + self.log, 60)
        return self

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError("the server has ended:\n" + self.log_text()[-3000:])
        try:
            self.connect().close()
            return True
        except psycopg2.OperationalError:
            return False

    def stop(self, mode="fast", timeout=60):
        sig = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        begun = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.wait(timeout)
        forget_pid(self.process.pid)
        return time.monotonic() - begun

    def crash(self):
        """kill -9 of the postmaster; its children notice."""
        # stopped first: then no child is begun after they have been counted
        self.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: open("/proc/%d/stat" % self.process.pid).read().rpartition(")")[2].split()[0] == "T", "the postmaster to stand still")
        children = self.children()
        self.process.kill()
        self.process.wait()
        forget_pid(self.process.pid)
        try:
            wait_until(lambda: not any(alive(p) for p in children), "the children to end", 30)
        except AssertionError as e:
            raise AssertionError("%s\n%s" % (e, "\n".join(what_it_does(p) for p in children if alive(p))))
        try:
            os.unlink(self.data + "/postmaster.pid")
        except FileNotFoundError:
            pass

    def children(self):
        out = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], stdout=subprocess.PIPE, text=True)
        return [int(p) for p in out.stdout.split()]

    def destroy(self):
        self.stop("immediate")
        shutil.rmtree(self.sockets, ignore_errors=True)

    def connect(self, dbname="postgres", user="postgres", autocommit=True):
        conn = psycopg2.connect(host=self.sockets, port=self.port, dbname=dbname, user=user, connect_timeout=10,
                                options="-c statement_timeout=180s")     # no test hangs for ever
        conn.autocommit = autocommit
        return conn

    def sql(self, text, *args, dbname="postgres", user="postgres"):
        """Runs statements; rows of the last one, if it has any."""
        conn = self.connect(dbname, user)
        try:
            cur = conn.cursor()
            cur.execute(text, args or None)
            return cur.fetchall() if cur.description else None
        finally:
            conn.close()

    def value(self, text, *args, **kwargs):
        rows = self.sql(text, *args, **kwargs)
        return rows[0][0] if rows else None

    def psql(self, script, dbname="postgres", user="postgres", *options):
        return subprocess.run([BINDIR + "/psql", "-X", "-h", self.sockets, "-p", str(self.port), "-U", user, *options,
                               dbname], input=script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def log_text(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def workers(self, kind="pipeline"):
        return [r[0] for r in self.sql("SELECT pid FROM kda.workers WHERE kind = %s AND pid IS NOT NULL", kind)]

    def check_sane(self):
        """Nothing has crashed that nobody has killed."""
        text = self.log_text()
        for bad in ("PANIC", "TRAP:", "was terminated by signal 11", "was terminated by signal 6"):
            assert bad not in text, "%s in the log:\n%s" % (bad, text[-4000:])
        for f in os.listdir(self.dir):
            if f.startswith(("asan", "ubsan")):
                with open(os.path.join(self.dir, f)) as report:
                    raise AssertionError(report.read()[:6000])


def alive(pid):
    try:
        os.kill(pid, 0)
        with open("/proc/%d/stat" % pid) as f:
            return f.read().split(")")[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def what_it_does(pid):
    """For the message of a failure."""
    def read(name):
        try:
            with open("/proc/%d/%s" % (pid, name)) as f:
                return f.read().replace("\0", " ").strip()
        except OSError as e:
            return str(e)
    state = [line for line in read("status").split("\n") if line.startswith(("State", "Threads", "SigPnd", "ShdPnd", "SigBlk"))]
    return "%d %s: %s; in %s, system call %s" % (pid, read("cmdline"), ", ".join(state).replace("\t", " "), read("wchan"), read("syscall"))


class Kafka:
    """A real broker, KRaft in one process; extra: properties, env: see scripts/kafka.sh."""

    def __init__(self, name="kafka", extra="", env=None):
        self.env = env or {}
        self.dir = os.path.join(WORK, name)
        os.makedirs(self.dir, exist_ok=True)
        self.port = free_port()
        self.address = "127.0.0.1:%d" % self.port
        self.log = os.path.join(self.dir, "log")
        self.process = None
        if extra:
            with open(self.dir + "/extra.properties", "w") as f:
                f.write(extra)

    def start(self, wait=True):
        env = dict(os.environ, KDA_CACHE=os.path.dirname(os.environ["KDA_JARS"]), **self.env)
        with open(self.log, "a") as log:
            self.process = subprocess.Popen([os.path.join(WORK, "build/scripts/kafka.sh"), "start", self.dir, str(self.port)],
                                            stdout=log, stderr=log, env=env, start_new_session=True)
        note_pid(self.process.pid)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self):
        wait_until(self.answers, "the broker to start; see " + self.log, 90, 0.2)

    def answers(self):
        if self.process.poll() is not None:
            with open(self.log) as f:
                raise AssertionError("the broker has ended:\n" + f.read()[-3000:])
        from confluent_kafka.admin import AdminClient
        try:
            self.client = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
            self.client.list_topics(timeout=2)
            return True
        except Exception:
            return False

    def stop(self, kill=False):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self.process.wait(60)
        if self.process:
            forget_pid(self.process.pid)

    def create_topic(self, name, partitions=1, config=None):
        from confluent_kafka.admin import NewTopic
        for future in self.client.create_topics([NewTopic(name, partitions, 1, config=config or {})]).values():
            future.result(30)

    def delete_topic(self, name):
        for future in self.client.delete_topics([name]).values():
            future.result(30)
        wait_until(lambda: name not in self.client.list_topics(timeout=5).topics, "the topic to go")

    def add_partitions(self, name, total):
        from confluent_kafka.admin import NewPartitions
        for future in self.client.create_partitions([NewPartitions(name, total)]).values():
            future.result(30)

    def producer(self, **config):
        from confluent_kafka import Producer
        return Producer({"bootstrap.servers": self.address, "linger.ms": 5, "log_level": 0,
                         **{k.replace("_", "."): v for k, v in config.items()}})

    def produce(self, topic, values, partition=None, **config):
        """values: str, bytes, or objects that become JSON."""
        p = self.producer(**config)
        for v in values:
            if not isinstance(v, (bytes, str)):
                v = json.dumps(v)
            args = {} if partition is None else {"partition": partition}
            while True:
                try:
                    p.produce(topic, v, **args)
                    break
                except BufferError:
                    p.poll(0.1)
        p.flush(60)
