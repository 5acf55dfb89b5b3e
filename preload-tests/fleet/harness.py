"""What preload-tests/fleet and preload-tests/servers run programs with: a process natively or preloaded, what the
library and the kernel say of it, and a runner of tests that each have a bound. Only processes started here are ended, by
their process group."""

import contextlib
import importlib.machinery
import importlib.util
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

here = os.path.dirname(os.path.abspath(__file__))
loader = importlib.machinery.SourceFileLoader("preload_run", os.path.join(here, "..", "run"))
sys.dont_write_bytecode = True
preload_run = importlib.util.module_from_spec(importlib.util.spec_from_loader("preload_run", loader))
loader.exec_module(preload_run)

# Kernel threads beyond GOMAXPROCS: sysmon, the template thread, a signal thread, and some stuck in the kernel.
SPARE_THREADS = 10
BOUND = 150

options = None


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def require(condition, message):
    if not condition:
        raise Failure(message)


class Program:
    """A process of a group of its own. Its output goes to files in its scratch directory."""

    running = []

    def __init__(self, command, cwd, native=False, schedtrace=100, stdin=subprocess.DEVNULL, name=None):
        self.command, self.native = command, native or options.native
        self.name = name or os.path.basename(command[0])
        env = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "GOSHIM", "GOMAXPROCS")}
        # env(1) sets the variable for the program alone.
        prefix = []
        if not self.native:
            goshim = f"schedtrace={schedtrace},exitstats" + (",storm" if options.storm else "")
            prefix = ["/usr/bin/env", f"LD_PRELOAD={options.library}", f"GOMAXPROCS={options.procs}", f"GOSHIM={goshim}"]
        self.files = tempfile.mkdtemp(prefix="out-", dir=cwd)
        with open(self.path("stdout"), "wb") as out, open(self.path("stderr"), "wb") as err:
            self.proc = subprocess.Popen(prefix + command, cwd=cwd, env=env, stdin=stdin, stdout=out, stderr=err,
                                         start_new_session=True)
        self.pid = self.proc.pid
        Program.running.append(self)

    def path(self, stream):
        return os.path.join(self.files, stream)

    def text(self, stream):
        with open(self.path(stream), errors="replace") as f:
            return f.read()

    def alive(self):
        return self.proc.poll() is None

    def signal(self, sig):
        os.kill(self.pid, sig)

    def wait(self, timeout=30):
        try:
            return self.proc.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} does not end within {timeout} s\n" + preload_run.backtraces(self.pid))

    def end(self):
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        self.proc.wait()
        if self in Program.running:
            Program.running.remove(self)

    def tail(self):
        lines = [l for l in self.text("stderr").splitlines() if not l.startswith("SCHED ")][-8:]
        return "; ".join(lines)[-1500:]

    # What the library and the kernel say.

    def kernel_threads(self):
        with open(f"/proc/{self.pid}/status") as f:
            return int(re.search(r"^Threads:\s+(\d+)", f.read(), re.M).group(1))

    def sched(self):
        """The latest schedtrace line as a dict, or None."""
        lines = [l for l in self.text("stderr").splitlines() if l.startswith("SCHED ") and "goroutines=" in l]
        return dict((k, int(v)) for k, v in re.findall(r"(\w+)=(\d+)", lines[-1])) if lines else None

    def exitstats(self):
        lines = [l for l in self.text("stderr").splitlines() if l.startswith("goshim: ") and "created=" in l]
        return dict((k, int(v)) for k, v in re.findall(r"(\w+)=(\d+)", lines[-1])) if lines else None

    def check_goroutines(self, goroutines, limit=None):
        """While it works: at least so many goroutines, and GOMAXPROCS kernel threads and a few (limit). Returns a note."""
        if self.native:
            return f"{self.kernel_threads()} kernel threads"
        limit = options.procs + (limit or SPARE_THREADS) * (2 if options.storm else 1)
        end = time.monotonic() + 5
        while True:
            sched, threads = self.sched(), self.kernel_threads()
            if sched and sched["goroutines"] >= goroutines and threads <= limit:
                return f"{sched['goroutines']} goroutines on {threads} kernel threads"
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        require(sched, f"no schedtrace line from {self.name}: passed through? {self.tail()}")
        require(sched["goroutines"] >= goroutines,
                f"{self.name}: {sched['goroutines']} goroutines, expected {goroutines} or more")
        raise Failure(f"{self.name}: {threads} kernel threads for {sched['goroutines']} goroutines, limit {limit}")

    def check_exitstats(self, created, limit=None):
        """After it ended: at least so many goroutines were created. Returns a note."""
        if self.native:
            return "native"
        # Also from programs that close their stderr in an atexit handler (coreutils, xz).
        stats = self.exitstats()
        require(stats, f"no exitstats line from {self.name}: passed through? {self.tail()}")
        require(stats["created"] >= created, f"{self.name}: {stats['created']} goroutines created, expected {created}")
        limit = options.procs + (limit or SPARE_THREADS) * (2 if options.storm else 1)
        require(stats.get("threads", 0) <= limit, f"{self.name}: {stats.get('threads')} kernel threads, limit {limit}")
        return f"{stats['created']} goroutines created, {stats.get('threads')} kernel threads"


@contextlib.contextmanager
def program(*args, **kw):
    p = Program(*args, **kw)
    try:
        yield p
    except Failure as e:
        status = p.proc.poll()
        state = "still runs" if status is None else f"ended with {status}"
        raise Failure(f"{e}\n{p.name} {state}; stderr: {p.tail()}") from None
    finally:
        p.end()


def find(name):
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not path:
        raise Skip(f"{name} is not installed")
    return path


def built(name):
    path = os.path.join(options.build, "preload-tests", name)
    require(os.access(path, os.X_OK), f"not built: {path}")
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def connect(port, p, timeout=20):
    """A connection, once the program listens."""
    end = time.monotonic() + timeout
    while True:
        try:
            s = socket.create_connection(("127.0.0.1", port), timeout=30)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return s
        except OSError as e:
            require(p.alive(), f"{p.name} ended with {p.proc.poll()} before it served: {p.tail()}")
            require(time.monotonic() < end, f"{p.name} does not accept: {e}")
            time.sleep(0.05)


def wait_text(p, text, timeout=30):
    end = time.monotonic() + timeout
    while text not in p.text("stdout"):
        require(p.alive() or text in p.text("stdout"), f"{p.name} ended with {p.proc.poll()} before it said '{text}': "
                + p.text("stdout")[-300:])
        require(time.monotonic() < end, f"{p.name} does not say '{text}' but: {p.text('stdout')[-300:]}")
        time.sleep(0.02)


def in_threads(functions, timeout=60):
    """Runs them at the same time; the first exception is raised here."""
    errors = []

    def run(f):
        try:
            f()
        except Exception as e:
            errors.append(e if isinstance(e, Failure) else Failure(f"{type(e).__name__}: {e}"))

    threads = [threading.Thread(target=run, args=(f,), daemon=True) for f in functions]
    for t in threads:
        t.start()
    end = time.monotonic() + timeout
    for t in threads:
        t.join(max(0, end - time.monotonic()))
        require(not t.is_alive(), errors[0] if errors else f"clients are not served within {timeout} s")
    if errors:
        raise errors[0]


def sample(lines):
    """Text, compressible, the same each time."""
    rng = random.Random(5)
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(3000)]
    return b"\n".join(b" ".join(rng.choices(words, k=9)) for _ in range(lines))


def run_test(test, bound=BOUND):
    """(status, note, seconds). A watchdog shows the backtraces and ends the programs at the bound."""
    start = time.monotonic()
    late = []

    def too_late():
        late.append(f"not done within {bound} s")
        for p in list(Program.running):
            if p.alive():
                late.append(preload_run.backtraces(p.pid))
                p.end()

    watchdog = threading.Timer(bound, too_late)
    watchdog.daemon = True
    watchdog.start()
    try:
        with tempfile.TemporaryDirectory(prefix="goshim-fleet-") as scratch:
            note = test(scratch)
        status = "passed"
    except Skip as e:
        status, note = "skipped", str(e)
    except Failure as e:
        status, note = "failed", str(e)
    except Exception:
        status, note = "failed", traceback.format_exc()
    finally:
        watchdog.cancel()
        for p in list(Program.running):
            p.end()
    if late and status == "failed":
        note += "\n" + "\n".join(late)
    return status, note, time.monotonic() - start


def prepare(parsed):
    """The options are known: finds the library, and lets everybody have many descriptors."""
    global options
    options = parsed
    options.build = os.path.abspath(options.build)
    if not options.native:
        library = options.library or preload_run.find_library(options.build)
        if not library or not os.path.exists(library):
            sys.exit(f"no libgoshim.so in {options.build}: name it, or use --native")
        options.library = os.path.abspath(library)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20000) if hard != resource.RLIM_INFINITY else 20000, hard))


def run_tests(tests, only, repeat=1, bound=BOUND):
    """Runs those whose name matches, prints a line for each and the count, and ends."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for _ in range(repeat):
        for name, test in tests.items():
            if not re.search(only, name):
                continue
            status, note, seconds = run_test(test, bound)
            counts[status] += 1
            word = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}[status]
            print(f"{word} {name} {seconds:.1f} s: " + note.rstrip().replace("\n", "\n    "), flush=True)
    line = f"{counts['passed']} passed, {counts['failed']} failed"
    if counts["skipped"]:
        line += f", {counts['skipped']} skipped"
    print(line)
    sys.exit(1 if counts["failed"] else 0)
