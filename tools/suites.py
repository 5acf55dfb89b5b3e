#!/usr/bin/python3
"""The suites of tools/test, which has installed what they need: builds, runs, counts.

Every suite is a function that returns (passed, failed, skipped) and streams what it does. A suite
that can't run counts as one skip with its reason; one that ends without counting, or runs out of
its time, as one failure. Each command has a process group of its own, which is killed when its
time is up or this process is ended, so that no server outlives a test run.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COUNT = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\s*$")
started = time.monotonic()
current = None
skips = []
failures = []


class Skip(Exception):
    pass


def say(text):
    print(text, flush=True)


def stop(signum, frame):
    if current:
        kill_group(current)
    say(f"tools/test: ended by {signal.Signals(signum).name}")
    os._exit(128 + signum)


def kill_group(process):
    """TERM first, so that a runner can clean up; KILL for what stays."""
    for sig, wait in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, sig)
        except OSError:
            pass
        try:
            process.wait(timeout=wait)
            # Children of the group may be left.
            if sig == signal.SIGTERM:
                time.sleep(0.2)
        except subprocess.TimeoutExpired:
            pass


def run(command, seconds, env=None, quiet=False):
    """Runs a command with its output streamed (or kept, and its end shown on failure). Returns
    (exit status or None when its time was up, lines)."""
    global current
    full_env = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "GOSHIM", "GOMAXPROCS")}
    full_env.update(env or {})
    lines = []
    process = subprocess.Popen(command, cwd=root, env=full_env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    current = process
    late = False

    def alarm(signum, frame):
        nonlocal late
        late = True
        kill_group(process)

    signal.signal(signal.SIGALRM, alarm)
    signal.alarm(seconds)
    try:
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            lines.append(line)
            # A suite's own count is not the last line of the whole.
            if not quiet and not COUNT.match(line):
                say("  " + line)
            if late:
                break
        process.wait()
    finally:
        signal.alarm(0)
        current = None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        pass
    status = None if late else process.returncode
    if quiet and status != 0:
        for line in lines[-30:]:
            say("  " + line)
    if late:
        say(f"  (ended: longer than {seconds} s)")
    return status, lines


def counted(command, seconds, env=None):
    """A runner of ours, which ends with its count."""
    status, lines = run(command, seconds, env)
    last = next((m for m in map(COUNT.match, reversed(lines)) if m), None)
    if status is None or not last:
        return 0, 1, 0
    passed, failed, skipped = (int(n or 0) for n in last.groups())
    if status != 0 and failed == 0:
        failed = 1
    skips.extend(line for line in lines if re.match(r"skip\b", line, re.I))
    return passed, failed, skipped


def one(ok):
    return (1, 0, 0) if ok else (0, 1, 0)


def have(*programs):
    missing = [p for p in programs if not shutil.which(p)]
    if missing:
        raise Skip("not installed: " + " ".join(missing))


def exists(path, what):
    if not os.path.exists(os.path.join(root, path)):
        raise Skip(f"no {what} in the tree")


def configure(folder, options, env=None):
    """A build directory with these options; made anew when its options were others or it is half made."""
    path = os.path.join(root, folder)
    stamp = os.path.join(path, ".goshim-options")
    wanted = " ".join(options)
    try:
        with open(stamp) as f:
            if f.read() == wanted and os.path.exists(os.path.join(path, "build.ninja")):
                return True
    except OSError:
        pass
    shutil.rmtree(path, ignore_errors=True)
    status, _ = run(["meson", "setup", path, root, *options], 300, env, quiet=True)
    if status != 0:
        return False
    with open(stamp, "w") as f:
        f.write(wanted)
    return True


def build(folder, options, env=None, targets=()):
    have("meson", "ninja")
    say(f"  building in {folder}/ ({' '.join(options)})")
    if not configure(folder, options, env):
        return False, []
    status, lines = run(["ninja", "-C", os.path.join(root, folder), *targets], 600, env, quiet=True)
    return status == 0, lines


# The same words as tools/lib.sh writes, so that tools/demo and tools/test share build/.
def release():
    return build("build", ["--buildtype=release"])[0]


def need_release():
    if release_ok is not True:
        raise Skip("the release build failed")


release_ok = None


def suite_build():
    """the release build"""
    global release_ok
    release_ok = release()
    return one(release_ok)


def meson_test(folder, select, seconds, env=None):
    """`meson test` in a build directory, counted by its own summary."""
    status, lines = run(["meson", "test", "-C", os.path.join(root, folder), *select, "--print-errorlogs"], seconds, env)
    if status == 0 and any(line.startswith("No suitable tests") for line in lines):
        return 0, 0, 0
    count = {}
    for line in lines:
        m = re.match(r"(Ok|Fail|Skipped|Timeout|Unexpected Pass|Expected Fail):\s*(\d+)", line)
        if m:
            count[m.group(1)] = int(m.group(2))
    passed = count.get("Ok", 0) + count.get("Expected Fail", 0)
    failed = count.get("Fail", 0) + count.get("Timeout", 0) + count.get("Unexpected Pass", 0)
    if status != 0 and not failed:
        failed = 1
    if count.get("Skipped"):
        skips.append(f"{folder}: " + ", ".join(line.strip() for line in lines if re.search(r"\bSKIP\b", line)))
    return passed, failed, count.get("Skipped", 0)


def suite_style():
    """layering, symbols, layout"""
    counts = counted(["tools/check-style"], 120)
    if release_ok:
        counts = [a + b for a, b in zip(counts, meson_test("build", ["--no-suite", "unit"], 120))]
    return counts


def suite_tools():
    """the load generator sees through servers that lie"""
    need_release()
    return counted(["tools/test-load", "build/tools/load"], 120)


def suite_roles():
    """clang's thread-safety roles: a build without warnings"""
    have("clang", "clang++")
    options = ["--buildtype=debugoptimized", "--werror", "-Dc_args=-Wthread-safety"]
    ok, lines = build("build-clang", options, {"CC": "clang", "CXX": "clang++"})
    return one(ok and not any("warning:" in line for line in lines))


def suite_unit():
    """Criterion tests of core/, with the address and undefined-behaviour sanitizers"""
    exists("preload-tests/unit", "preload-tests/unit")
    options = ["--buildtype=debug", "-Dchecks=true", "-Db_sanitize=address,undefined",
               "-Db_lundef=false"]
    have("meson", "ninja")
    say(f"  building in build-san/ ({' '.join(options)})")
    if not configure("build-san", options):
        return one(False)
    # meson builds only what the tests need: the library itself is not for sanitizers.
    counts = meson_test("build-san", ["--suite", "unit", "--timeout-multiplier", "3"], 600,
                        {"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"})
    if not any(counts):
        say("  no test in meson's suite 'unit'")
        return 0, 1, 0
    return counts


def suite_preload():
    """plain C programs, natively and under the library: plain, p1, pN, storm"""
    exists("preload-tests/run", "preload-tests/run")
    need_release()
    return counted(["preload-tests/run", "build", "-j", "2"], 840)


def suite_fleet():
    """unmodified programs: memcached, redis, python, compressors"""
    exists("preload-tests/fleet/run", "preload-tests/fleet/run")
    need_release()
    return counted(["preload-tests/fleet/run", "build"], 400)


def suite_servers():
    """unmodified servers, every answer checked: natively, preloaded, p1, storm"""
    exists("preload-tests/servers/run", "preload-tests/servers/run")
    need_release()
    return counted(["preload-tests/servers/run", "build"], 600)


def suite_gdb():
    """goroutines in gdb, live and in core files"""
    exists("preload-tests/gdb/run", "preload-tests/gdb/run")
    need_release()
    return counted(["preload-tests/gdb/run", "build"], 400)


def suite_dump():
    """goshim dump: of servers under load, all kinds of processes, and what it says to the rest"""
    exists("preload-tests/dump/run", "preload-tests/dump/run")
    need_release()
    return counted(["preload-tests/dump/run", "build"], 300)


def suite_command():
    """goshim CMD: programs that are run, and that are refused; goshim compare and its report"""
    exists("preload-tests/command/run", "preload-tests/command/run")
    need_release()
    run_, compare = (counted(["preload-tests/command/" + name, "build"], 600) for name in ("run", "compare"))
    return [a + b for a, b in zip(run_, compare)]


def suite_stat():
    """goshim stat and goshim locks: processes that know the answer, and those that are no more"""
    exists("preload-tests/stat/run", "preload-tests/stat/run")
    need_release()
    stat, locks = (counted([f"preload-tests/{name}/run", "build"], 300) for name in ("stat", "locks"))
    return [a + b for a, b in zip(stat, locks)]


def suite_top():
    """goshim top: processes that know the answer, in a terminal of tmux's: keys, sizes, ends"""
    exists("preload-tests/top/run", "preload-tests/top/run")
    need_release()
    return counted(["preload-tests/top/run", "build"], 300)


def suite_trace():
    """goshim trace and the flight recorder: events of processes that know the answer, the format, and what is lost"""
    exists("preload-tests/trace/run", "preload-tests/trace/run")
    need_release()
    trace, flight = (counted([f"preload-tests/{name}/run", "build"], 300) for name in ("trace", "flight"))
    return [a + b for a, b in zip(trace, flight)]


def suite_profile():
    """goshim profile: programs that know what they do, a browser that looks at the picture"""
    exists("preload-tests/profile/run", "preload-tests/profile/run")
    need_release()
    return counted(["preload-tests/profile/run", "build"], 300)


def suite_dumps():
    """a thousand dumps of each loaded server"""
    exists("preload-tests/dump/run", "preload-tests/dump/run")
    need_release()
    return counted(["preload-tests/dump/run", "build", "--only", "storm", "--dumps", "1000"], 1200)


def suite_demo():
    """tools/demo, shortened, and what it says to bad usage"""
    need_release()
    have("memcached")
    passed = failed = 0
    status, lines = run(["tools/demo", "--no-install", "--rounds", "1", "--seconds", "1"], 120)
    ok = status == 0 and any("none wrong" in line for line in lines) and any("SCHED " in line for line in lines) and \
        all(os.path.getsize(os.path.join(root, "build", "demo-" + name, "report.html")) > 10000
            for name in ("memcached", "thread-per-connection"))
    passed, failed = passed + ok, failed + (not ok)
    for bad in (["--rounds", "0"], ["--seconds", "x"], ["--connections"], ["--nonsense"]):
        status, lines = run(["tools/demo", *bad], 20, quiet=True)
        ok = status == 2 and len(lines) == 1
        if not ok:
            say(f"  FAIL tools/demo {' '.join(bad)}: status {status}, {len(lines)} lines")
        passed, failed = passed + ok, failed + (not ok)
    return passed, failed, 0


def suite_bench():
    """the benchmark programs run and count right (no timed assertions)"""
    exists("preload-tests/bench/run", "preload-tests/bench/run")
    need_release()
    return counted(["preload-tests/bench/run", "--build", "build", "--smoke"], 300)


def suite_repeat():
    """the preload suite five times over"""
    exists("preload-tests/run", "preload-tests/run")
    need_release()
    return counted(["preload-tests/run", "build", "--repeat", "5"], 3600)


def suite_kernel():
    """the preload suite in kernel mode, where all is as without the library"""
    exists("preload-tests/run", "preload-tests/run")
    need_release()
    return counted(["preload-tests/run", "build", "-j", "2", "--mode", "kernel"], 900)


def suite_debug():
    """the preload suite with a debug build: lock ranks and run-time contracts checked"""
    exists("preload-tests/run", "preload-tests/run")
    if not build("build-debug", ["--buildtype=debug", "-Dchecks=true"])[0]:
        return one(False)
    return counted(["preload-tests/run", "build-debug"], 1800)


def million_preemptions():
    """Registers are checked in every goroutine, again and again, until the library has counted a million preemptions."""
    env = {"LD_PRELOAD": os.path.join(root, "build/shim/libgoshim.so"), "GOMAXPROCS": "4", "GOSHIM": "storm,exitstats",
           "GOSHIM_TEST_SECONDS": "60", "GOSHIM_TEST_MODE": "storm"}
    preemptions = 0
    for _ in range(30):
        status, lines = run(["build/preload-tests/preempt_registers"], 600, env, quiet=True)
        preemptions += sum(map(int, re.findall(r"\bpreempted=(\d+)", "\n".join(lines))))
        if status != 0 or preemptions >= 1000000:
            break
    say(f"  preempt_registers: {preemptions} preemptions, status {status}")
    return one(status == 0 and preemptions >= 1000000)


def suite_soak():
    """a crowd on each kind of object for ten seconds; storms of forks and of signals for twenty; a million preemptions; twenty rounds of the demo's load"""
    need_release()
    have("memcached")
    total = counted(["preload-tests/run", "build", "--only", "^soak_(objects|threads)$", "--mode", "p8", "--mode", "storm8",
                     "--timeout", "400"], 900, {"GOSHIM_TEST_SECONDS": "10"})
    storms = counted(["preload-tests/run", "build", "--only", "^(fork|signal)_storm$", "--mode", "plain", "--mode", "pN",
                      "--mode", "storm", "--timeout", "100"], 600, {"GOSHIM_TEST_SECONDS": "20"})
    total = [a + b for a, b in zip(total, storms)]
    total = [a + b for a, b in zip(total, million_preemptions())]
    status, _ = run(["tools/demo", "--no-install", "--rounds", "20", "--seconds", "10"], 900)
    return [a + b for a, b in zip(total, one(status == 0))]


def suite_runtimes():
    """more servers and language runtimes"""
    need_release()
    return counted(["preload-tests/fleet/run", "build", "--long"], 1200)


def suite_loads():
    """the suite `servers` with twenty seconds of each load"""
    need_release()
    return counted(["preload-tests/servers/run", "build", "--long"], 3000)


def suite_figures():
    """preload-tests/bench in full: the table"""
    exists("preload-tests/bench/run", "preload-tests/bench/run")
    need_release()
    status, _ = run(["preload-tests/bench/run", "--build", "build"], 1800)
    return one(status == 0)


SUITES = ["build", "style", "tools", "roles", "unit", "preload", "fleet", "servers", "gdb", "dump", "command", "stat", "top", "trace", "profile", "bench", "demo"]
LONG = ["debug", "kernel", "repeat", "soak", "runtimes", "loads", "dumps", "figures"]


def main(argv):
    chosen, everything = [], False
    while argv:
        arg = argv.pop(0)
        if arg == "--all":
            everything = True
        elif arg == "--list":
            for name in SUITES + LONG:
                say(f"{name:8} {globals()['suite_' + name].__doc__}" + (" (--all)" if name in LONG else ""))
            return 0
        elif arg == "--only" and argv:
            name = argv.pop(0)
            if name not in SUITES + LONG:
                print(f"test: --only {name}: no such suite; there are {' '.join(SUITES + LONG)}", file=sys.stderr)
                return 2
            chosen.append(name)
        else:
            print(f"test: {arg}: unknown option", file=sys.stderr)
            return 2
    names = [n for n in SUITES + LONG if n in chosen] if chosen else SUITES + (LONG if everything else [])
    # These alone do without the release build.
    if "build" not in names and set(names) - {"roles", "unit", "debug"}:
        names.insert(0, "build")
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, stop)

    total = [0, 0, 0]
    for name in names:
        suite = globals()["suite_" + name]
        begin = time.monotonic()
        say(f"== {name}: {suite.__doc__}")
        try:
            counts = suite()
        except Skip as why:
            counts = (0, 0, 1)
            skips.append(f"{name}: {why}")
        except OSError as why:
            counts = (0, 1, 0)
            say(f"  {why}")
        if counts[1]:
            failures.append(f"{name} ({counts[1]})")
        total = [a + b for a, b in zip(total, counts)]
        say(f"== {name}: {counts[0]} ok, {counts[1]} not, {counts[2]} left out; {time.monotonic() - begin:.0f} s, "
            f"{time.monotonic() - started:.0f} s in all")
    if skips:
        say("skipped:")
        for line in skips:
            say("  " + line)
    if failures:
        say("failed in: " + ", ".join(failures))
    say(f"{total[0]} passed, {total[1]} failed" + (f", {total[2]} skipped" if total[2] else ""))
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
