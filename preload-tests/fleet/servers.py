"""Servers with threads, for preload-tests/fleet/run: each is started natively and preloaded, gets the same work from
the same clients, and must give the same answers and end in the same way.

TESTS are quick; LONG, which need more packages (packages-long), are run by --long.
"""

import contextlib
import harness as fleet
import os
import re
import signal
import subprocess
import time
from clients import files, web


def compare(scratch, start, work, created, sig=signal.SIGTERM):
    """start(folder) gives the command and what work wants to know; work(program, that) returns the answers."""
    got, note = [], ""
    for native in (True, False):
        folder = os.path.join(scratch, "native" if native else "preloaded")
        os.mkdir(folder)
        # Servers that give up root need to reach it.
        os.chmod(scratch, 0o755)
        os.chmod(folder, 0o777)
        command, extra = start(folder)
        with fleet.program(command, folder, native=native) as p:
            answers = work(p, extra)
            p.signal(sig)
            got.append((answers, p.wait(60)))
            if not native and not fleet.options.native:
                text = p.text("stderr")
                with contextlib.suppress(OSError), open(os.path.join(folder, "log")) as f:
                    text += f.read()  # some have stderr there
                counts = [int(n) for n in re.findall(r"goshim: created=(\d+)", text)]
                fleet.require(counts and max(counts) >= created, f"{p.name}: goroutines {counts}, expected {created}")
                note = f"{max(counts)} goroutines"
    fleet.require(got[0] == got[1], f"{command[0]} answers {got[1]!r:.600}, natively {got[0]!r:.600}")
    return f"answers as natively, {note}, exit status {got[1][1]}"


def config(folder, text):
    path = os.path.join(folder, "conf")
    with open(path, "w") as f:
        f.write(text)
    return path


def someone():
    """As root: whom servers become."""
    return os.geteuid() == 0


def test_haproxy(scratch):
    """Threads with an affinity each, new kernel threads forbidden (RLIMIT_NPROC), a reload under way."""

    def start(folder):
        port = fleet.free_port()
        empty = os.path.join(folder, "empty")
        os.mkdir(empty)
        user = f" user nobody\n group nogroup\n chroot {empty}\n" if someone() else ""
        conf = config(folder, f"global\n nbthread 4\n master-worker\n maxconn 500\n{user}defaults\n mode http\n"
                      " timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
                      f"frontend f\n bind 127.0.0.1:{port}\n"
                      " http-request return status 404 if { path /nothing }\n"
                      " http-request return status 200 content-type text/plain string hello\n")
        return [fleet.find("haproxy"), "-W", "-db", "-f", conf, "-p", os.path.join(folder, "pid")], port

    def work(p, port):
        fleet.connect(port, p).close()
        first = web(port, ["/", "/a", "/nothing"], clients=30)
        p.signal(signal.SIGUSR2)
        end = time.monotonic() + 30
        while p.text("stderr").count("Loading success") < 2:
            fleet.require(time.monotonic() < end, "haproxy does not reload")
            time.sleep(0.05)
        return first, web(port, ["/", "/a", "/nothing"], clients=30)

    return compare(scratch, start, work, 4)


def test_apache(scratch):
    """mpm_event: processes with 25 threads each, replaced by others under a graceful restart."""

    def start(folder):
        port = fleet.free_port()
        root, paths = files(folder)
        modules = "/usr/lib/apache2/modules"
        user = "User www-data\nGroup www-data\n" if someone() else ""
        conf = config(folder, f"ServerRoot {folder}\nServerName localhost\nPidFile {folder}/pid\n{user}"
                      f"Listen 127.0.0.1:{port}\nLoadModule mpm_event_module {modules}/mod_mpm_event.so\n"
                      f"LoadModule authz_core_module {modules}/mod_authz_core.so\nErrorLog {folder}/log\n"
                      f"KeepAliveTimeout 100\nStartServers 2\nThreadsPerChild 25\nMaxRequestWorkers 100\nDocumentRoot {root}\n"
                      f"Mutex default:{folder}\nDefaultRuntimeDir {folder}\n")
        return [fleet.find("apache2"), "-f", conf, "-DFOREGROUND"], (port, paths, os.path.join(folder, "log"))

    def work(p, extra):
        port, paths, log = extra
        def logged(what):
            with open(log) as f:
                return re.findall(what, f.read())

        fleet.connect(port, p).close()
        first = web(port, paths)
        p.signal(signal.SIGUSR1)
        end = time.monotonic() + 60
        while len(logged("resuming normal operations")) < 2:
            fleet.require(time.monotonic() < end, "apache does not restart")
            time.sleep(0.05)
        return first, web(port, paths), logged("exit signal.*")

    return compare(scratch, start, work, 25)


def test_nginx(scratch):
    """Files read by a pool of threads."""

    def start(folder):
        port = fleet.free_port()
        root, paths = files(folder)
        temporary = "".join(f" {n}_temp_path {folder}/{n};" for n in
                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        conf = config(folder, f"{'user www-data;' if someone() else ''} daemon off; worker_processes 2;\n"
                      f"pid {folder}/pid; error_log {folder}/log; thread_pool default threads=8;\n"
                      f"events {{ worker_connections 256; }}\nhttp {{ access_log off;{temporary}\n"
                      f"server {{ listen 127.0.0.1:{port}; root {root}; aio threads; directio 4k; }} }}\n")
        return [fleet.find("nginx"), "-c", conf], (port, paths)

    def work(p, extra):
        fleet.connect(extra[0], p).close()
        return web(*extra)

    return compare(scratch, start, work, 8)


def test_varnish(scratch):
    """A manager and a worker process with pools of hundreds of threads."""

    def start(folder):
        port = fleet.free_port()
        vcl = os.path.join(folder, "vcl")
        with open(vcl, "w") as f:
            f.write('vcl 4.1; backend none none; sub vcl_recv { return (synth(200, "fine")); }\n')
        return [fleet.find("varnishd"), "-F", "-a", f"127.0.0.1:{port}", "-f", vcl, "-n", os.path.join(folder, "v"),
                "-s", "malloc,32m", "-p", "thread_pool_min=100"], port

    def work(p, port):
        fleet.connect(port, p).close()
        # The page has a number of the request: only its status counts.
        return sorted({key[:2] for key, _ in web(port, ["/", "/a"], clients=30)})

    return compare(scratch, start, work, 200)


def test_mariadb(scratch):
    """A thread for each connection; transactions that meet; then the pool of threads."""
    notes = []
    for handling in ("one-thread-per-connection", "pool-of-threads"):

        def start(folder, handling=handling):
            data, socket = os.path.join(folder, "data"), os.path.join(folder, "socket")
            user = ["--user=nobody"] if someone() else []
            made = subprocess.run([fleet.find("mariadb-install-db"), "--no-defaults", *user, f"--datadir={data}",
                                   "--skip-test-db", "--auth-root-authentication-method=normal"],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100)
            fleet.require(made.returncode == 0, f"mariadb-install-db: {made.stdout[-500:]!r}")
            return [fleet.find("mariadbd"), "--no-defaults", *user, f"--datadir={data}", f"--socket={socket}",
                    "--skip-networking", f"--pid-file={folder}/pid", f"--thread-handling={handling}",
                    "--thread-pool-size=4", "--innodb-buffer-pool-size=32M"], socket

        def work(p, socket):
            def sql(text, *options):
                got = subprocess.run([fleet.find("mariadb"), "--no-defaults", "-S", socket, "-u", "root", "-N", *options],
                                     input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100)
                return got.returncode, got.stdout

            end = time.monotonic() + 60
            while sql("select 1;")[0] != 0:
                fleet.require(p.alive() and time.monotonic() < end, f"mariadb is not ready: {p.tail()}")
                time.sleep(0.2)
            made = sql("create database t; use t; create table a (k int primary key, n int); "
                       "insert into a select seq, 0 from seq_1_to_50;")
            fleet.require(made[0] == 0, f"mariadb: {made}")
            add = "".join(f"begin; update a set n = n + 1 where k = {k}; commit;\n" for k in range(1, 51))

            def client():
                fleet.require(sql(add, "t") == (0, b""), "mariadb: an update fails")

            fleet.in_threads([client] * 12, 100)
            return sql("select count(*), sum(n), min(n), max(n) from a;", "t"), sql("kill query 999999;")[0], \
                sql("select sleep(0.1); kill connection connection_id();")[0]

        os.mkdir(os.path.join(scratch, handling))
        os.chmod(os.path.join(scratch, handling), 0o755)
        os.chmod(scratch, 0o755)
        notes.append(compare(os.path.join(scratch, handling), start, work, 10))
    return "; ".join(notes)


TESTS = {"haproxy": test_haproxy, "apache": test_apache}
LONG = {"nginx": test_nginx, "varnish": test_varnish, "mariadb": test_mariadb}
