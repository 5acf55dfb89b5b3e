"""What the rows of preload-tests/bench/run are made with: programs started natively or preloaded, on the same CPUs."""

import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import time

CPUS = sorted(os.sched_getaffinity(0))[:2]
# Set by run.
build = library = None
smoke = False
children = []


class Failed(Exception):
    pass


class Missing(Exception):
    """A program that isn't installed."""


def environment(kind, settings):
    env = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "GOSHIM", "GOMAXPROCS")}
    if kind == "goshim":
        env["LD_PRELOAD"] = library
        # Settings under study reach the goshim rounds only.
        env.update({k: os.environ[k] for k in ("GOSHIM", "GOMAXPROCS") if k in os.environ})
        env.update(settings)
    return env


def spawn(command, kind, out, cpus=CPUS, settings={}):
    process = subprocess.Popen(command, env=environment(kind, settings), stdin=subprocess.DEVNULL, stdout=out,
                               stderr=subprocess.STDOUT, preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    children.append(process)
    return process


def end(process, seconds=5):
    """SIGTERM, and KILL when that does not do; raises if it did not."""
    process.terminate()
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Failed(f"did not end on SIGTERM within {seconds} s")
    finally:
        children.remove(process)


def end_all():
    for process in list(children):
        process.kill()
        process.wait()


def pairs(text):
    found = {}
    for line in text.splitlines():
        key, eq, value = line.partition("=")
        if eq and re.fullmatch(r"-?[\d.]+", value):
            found[key] = float(value)
    return found


def output(command, kind, seconds, **more):
    with tempfile.TemporaryFile() as out:
        process = spawn(command, kind, out, **more)
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = None
        children.remove(process)
        out.seek(0)
        text = out.read().decode(errors="replace")
    if status is None:
        raise Failed(f"longer than {seconds} s")
    if status:
        last = (text.strip().splitlines() or ["no output"])[-1]
        raise Failed(f"status {status}: {last}")
    return text


def run(command, kind, seconds, **more):
    return pairs(output(command, kind, seconds, **more))


def program(name, cpus=CPUS, settings={}, **options):
    def bench(kind):
        path = os.path.join(build, "preload-tests", "bench", "bench_" + name)
        given = {"seconds": 0.05 if smoke else 0.6, **options}
        return run([path] + [f"{k}={v}" for k, v in given.items()], kind, 240, cpus=cpus, settings=settings)
    return bench


def computing(command, against_itself=False):
    """CPU time of a program that computes in several threads. Against itself: the column `native` is goshim with slices
    that nothing outlasts, so what is seen is what preemption costs."""
    def bench(kind):
        settings = {"GOSHIM": "slice=1000000"} if against_itself and kind == "native" else {}
        got = command()
        with tempfile.TemporaryFile() as out:
            process = spawn(got, "goshim" if against_itself else kind, out, settings=settings)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            children.remove(process)
        if process.returncode:
            raise Failed(f"{got[0]}: status {process.returncode}")
        return {"cpu_ms": (used.ru_utime + used.ru_stime) * 1e3}
    return bench


def load(port, process, connections, protocol, *more):
    """The load generator, and what it says of the server, process (None: nothing)."""
    command = [os.path.join(build, "tools", "load"), "--port", str(port), "--protocol", protocol, "--connections",
               str(connections), "--seconds", "1" if smoke else "3", "--warmup", "0.1" if smoke else "0.7",
               "--wait", "5", "--timeout", "20", *(["--pid", str(process.pid)] if process else []), *more]
    return run(command, "native", 90)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def wait_listening(port, process, seconds=20):
    """False if it ended before: somebody else had the port, or it can't run at all."""
    until = time.monotonic() + seconds
    while process.poll() is None:
        if listens(port):
            # Another's server, whose port ours can't have?
            time.sleep(0.05)
            return process.poll() is None
        if time.monotonic() > until:
            raise Failed(f"does not listen within {seconds} s")
        time.sleep(0.02)
    return False


def stop(signum, frame):
    raise SystemExit(128 + signum)


def prepare():
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20000) if hard != resource.RLIM_INFINITY else 20000, hard))
