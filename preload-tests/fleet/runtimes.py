"""Language runtimes that have threads, for preload-tests/fleet/run --long: a small program of each counts the same
natively and preloaded (preload-tests/fleet/runtimes)."""

import harness as fleet
import os
import subprocess

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "runtimes")


def same_output(scratch, command, created, limit=None):
    got, note = [], ""
    for native in (True, False):
        with fleet.program(command, scratch, native=native) as p:
            got.append((p.wait(120), p.text("stdout")))
            if not native:
                note = p.check_exitstats(created, limit)
    fleet.require(got[0][0] == 0 and got[0][1].count("\n") > 2, f"natively {got[0]!r:.900}")
    fleet.require(got[0] == got[1], f"{p.name} answers {got[1]!r:.900}, natively {got[0]!r:.900}")
    return f"output identical, {note}"


def source(name):
    return os.path.join(here, name)


def compiled(scratch, command):
    done = subprocess.run(command, cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=140)
    fleet.require(done.returncode == 0, f"{command[0]}: {done.stdout.decode(errors='replace')[-900:]}")


def test_perl(scratch):
    return same_output(scratch, [fleet.find("perl"), source("threads.pl")], 50, 40)


def test_ruby(scratch):
    return same_output(scratch, [fleet.find("ruby"), source("threads.rb")], 40, 40)


def test_node(scratch):
    return same_output(scratch, [fleet.find("node"), source("workers.js")], 12, 40)


def test_java(scratch):
    compiled(scratch, [fleet.find("javac"), "-d", scratch, source("Threads.java")])
    return same_output(scratch, [fleet.find("java"), "-Xmx256m", "-cp", scratch, "Threads"], 150, 60)


def test_openmp(scratch):
    program = os.path.join(scratch, "threads_omp")
    compiled(scratch, [fleet.find("gcc"), "-O2", "-fopenmp", "-o", program, source("threads_omp.c")])
    return same_output(scratch, [program], 20)


def test_gc(scratch):
    program = os.path.join(scratch, "threads_gc")
    compiled(scratch, [fleet.find("gcc"), "-O2", "-pthread", "-o", program, source("threads_gc.c"), "-lgc"])
    return "; ".join(same_output(scratch, [program] + steps, 12) for steps in ([], ["in steps"]))


def test_cxx20(scratch):
    program = os.path.join(scratch, "threads20")
    compiled(scratch, [fleet.find("g++"), "-std=c++20", "-O2", "-pthread", "-o", program, source("threads20.cc")])
    return same_output(scratch, [program], 240, 30)


def test_processes(scratch):
    return same_output(scratch, [fleet.find("python3"), source("processes.py")], 100)


def test_rust(scratch):
    program = os.path.join(scratch, "threads")
    compiled(scratch, [fleet.find("rustc"), "--edition=2021", "-O", "-o", program, source("threads.rs")])
    return same_output(scratch, [program], 150, 40)


LONG = {"processes": test_processes, "perl": test_perl, "ruby": test_ruby, "node": test_node, "java": test_java,
        "openmp": test_openmp, "cxx20": test_cxx20, "rust": test_rust, "gc": test_gc}
