"""What counting and recording cost a request of memcached's: for preload-tests/bench/run. By events, whose number the metrics
know themselves, times what one costs in a loop that makes nothing else; and by runs in turn, with and without."""

import json
import os
import subprocess

import measure
import servers

ONE_P = {"GOMAXPROCS": "1"}
TRACE = ["trace", "--bytes", "4000000000", "--output", os.devnull, "--"]


def goshim(*arguments):
    return [os.path.join(measure.build, "tools", "goshim"), *arguments]


def loop(yields, recorded=False):
    """CPU ns of a system call that need not wait, or of a yield. The column `native` is goshim that counts nothing; for what
    is recorded, that records nothing."""
    def bench(kind):
        command = [os.path.join(measure.build, "preload-tests", "bench", "bench_events"), f"yields={yields}",
                   f"seconds={0.1 if measure.smoke else 0.6}"]
        if recorded and kind == "goshim":
            # The command is not to run under goshim itself.
            return measure.run(["env", "GOMAXPROCS=1", *goshim(*TRACE), *command], "native", 60)
        off = kind == "native" and not recorded
        return measure.run(command, "goshim", 60, settings={**ONE_P, "GOSHIM": "metrics=off" if off else ""})
    return bench


def made(histograms):
    """(calls, switches) so far: two events each, into the status and out of it. (A wait that ends is counted with the switch to
    whoever has waited.)"""
    n = {name: h["count"] for name, h in histograms.items()}
    return n["syscall"] + n["syscall.lost"], n["runqueue"] + sum(v for k, v in n.items() if k.startswith("wait.")) / 2


def memcached_events(kind):
    """How many of both are in a request, by the metrics. Nothing is to be compared: only the column `goshim` is of use."""
    if kind == "native":
        return {}
    with servers.server(servers.memcached_command(4), kind, settings={"GOSHIM": ""}) as (process, port):
        asked = {}
        for when in ("before", "after"):
            if when == "after":
                asked["load"] = measure.load(port, process, 100, "memcached")
            told = subprocess.run(goshim("stat", "--json", str(process.pid)), env=measure.environment("native", {}), timeout=30,
                                  stdout=subprocess.PIPE, check=True).stdout
            asked[when] = made(json.loads(told)["histograms"])
    calls, switches = ((b - a) / asked["load"]["answers_checked"] for a, b in zip(asked["before"], asked["after"]))
    return {"calls": calls, "switches": switches, "cpu_us": asked["load"]["server_cpu_us_per_request"]}


def metrics_off(kind):
    """The column `native` is goshim that counts nothing."""
    settings = {"GOSHIM": "metrics=off" if kind == "native" else ""}
    with servers.server(servers.memcached_command(4), "goshim", settings=settings) as (process, port):
        return measure.load(port, process, 100, "memcached")


ROWS = [
    ("cost_events", "memcached, a request: calls", memcached_events, "calls", "", False, None),
    ("cost_events", "  switches of goroutines", None, "switches", "", False, None),
    ("cost_call", "metrics: CPU of a call", loop(0), "ns", "ns", False, None),
    ("cost_switch", "  of a switch", loop(1), "ns", "ns", False, None),
    ("cost_call_traced", "goshim trace: CPU of a call", loop(0, True), "ns", "ns", False, None),
    ("cost_switch_traced", "  of a switch", loop(1, True), "ns", "ns", False, None),
    ("cost_metrics", "memcached, metrics: CPU", metrics_off, "server_cpu_us_per_request", "us", False, ("x", 1 / 1.01)),
    ("cost_trace", "  ... goshim trace", servers.looked_at("", True), "server_cpu_us_per_request", "us", False, ("x", 1 / 1.05)),
]


def shares(results, median):
    """Lines that say what part of a request's CPU time each is, by both ways; as [(text, figures)]."""
    def figures(name, key):
        return [[r[key] for r in results.get(name, {}).get(kind, []) if key in r] for kind in ("native", "goshim")]

    lines = []
    counts = [figures("cost_events", key)[1] for key in ("calls", "switches", "cpu_us")]
    for what, suffix, turn, most in (("metrics", "", "cost_metrics", 1), ("goshim trace", "_traced", "cost_trace", 5)):
        # The least: what others on the machine took comes on top.
        prices = [figures(f"cost_{kind}{suffix}", "ns") for kind in ("call", "switch")]
        if not all(counts) or not all(off and on for off, on in prices):
            continue
        calls, switches, cpu = map(median, counts)
        call, switch = (min(on) - min(off) for off, on in prices)
        part = (calls * call + switches * switch) / 10 / cpu
        text = (f"{what}: {calls:.2f} calls of {call:.1f} ns and {switches:.2f} switches of {switch:.1f} ns in a request of {cpu:.2f} us "
                f"are {part:.2f} % (<= {most} %: {'hit' if part <= most else 'MISSED'})")
        off, on = figures(turn, "server_cpu_us_per_request")
        ratio = median(on) / median(off) if off and on else None
        if ratio:
            text += f"; in turn: {100 * (ratio - 1):+.1f} %, rounds of one kind {100 * (max(off) / min(off) - 1):.1f} % apart"
        lines.append((text, {"what": what, "calls": calls, "switches": switches, "call_ns": call, "switch_ns": switch, "cpu_us": cpu,
                             "percent": part, "most": most, "reached": part <= most, "ratio_in_turn": ratio}))
    return lines
