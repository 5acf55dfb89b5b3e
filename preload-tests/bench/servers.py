"""Servers for preload-tests/bench/run: each row starts one, loads it, and reads what it cost. Clients and what stands
behind a proxy run natively."""

import contextlib
import measure
import os
import re
import shutil
import subprocess
import tempfile
import time


def find(name):
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not path:
        raise measure.Missing(f"{name} is not installed")
    return path


@contextlib.contextmanager
def server(command_for, kind, seconds=5, settings={}):
    """(process, port) of a server that listens on a port of 127.0.0.1; ended by SIGTERM. command_for(port) names it."""
    with tempfile.TemporaryFile() as out:
        for _ in range(5):
            port = measure.free_port()
            process = measure.spawn(command_for(port), kind, out, settings=settings)
            if measure.wait_listening(port, process):
                break
            measure.children.remove(process)  # the port was taken meanwhile, or it can't run at all
        else:
            out.seek(0)
            raise measure.Failed(f"does not start: {out.read()[-300:].decode(errors='replace').strip()}")
        try:
            yield process, port
        finally:
            measure.end(process, seconds)


def echo(connections, *more):
    def bench(kind):
        with tempfile.NamedTemporaryFile() as out:
            process = measure.spawn([os.path.join(measure.build, "preload-tests", "bench", "bench_echo_server")], kind, out)
            try:
                port = None
                for _ in range(100):
                    with open(out.name) as f:
                        port = measure.pairs(f.read()).get("port")
                    if port or process.poll() is not None:
                        break
                    time.sleep(0.05)
                if not port:
                    raise measure.Failed("the server gave no port")
                figures = measure.load(int(port), process, connections, "echo", *more)
            finally:
                measure.end(process)
            with open(out.name) as f:
                served = measure.pairs(f.read())
            if served.get("connections") != connections:
                raise measure.Failed(f"the server counted {served.get('connections')} connections")
            return figures
    return bench


def memcached_command(threads):
    user = ["-u", "root"] if os.geteuid() == 0 else []
    return lambda port: [find("memcached"), "-t", str(threads), "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "256",
                         "-c", "2048", *user]


def memcached(*more):
    def bench(kind):
        with server(memcached_command(4), kind) as (process, port):
            return measure.load(port, process, 100, "memcached", *more)
    return bench


@contextlib.contextmanager
def traced(process):
    """Records process meanwhile."""
    command = os.path.join(measure.build, "tools", "goshim")
    recorder = subprocess.Popen([command, "trace", "--seconds", "60", "--output", os.devnull, str(process.pid)],
                                env=measure.environment("native", {}), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
    measure.children.append(recorder)
    try:
        yield
    finally:
        if recorder.poll() is not None:
            measure.children.remove(recorder)
            raise measure.Failed(f"goshim trace has ended with {recorder.returncode}")
        recorder.kill()
        recorder.wait()
        measure.children.remove(recorder)


def looked_at(settings, trace=False):
    """What it costs memcached that it is looked at: the column `native` is goshim without."""
    def bench(kind):
        looked = kind == "goshim"
        with server(memcached_command(4), "goshim", settings={"GOSHIM": settings if looked else ""}) as (process, port):
            with traced(process) if looked and trace else contextlib.nullcontext():
                return measure.load(port, process, 100, "memcached")
    return bench


def redis(*threads):
    def bench(kind):
        with tempfile.TemporaryDirectory() as folder:
            def command(port):
                return [find("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                        "--dir", folder, *threads]

            with server(command, kind) as (process, port):
                return measure.load(port, process, 100, "redis")
    return bench


def haproxy(kind):
    """As a proxy of TCP before a memcached."""
    with tempfile.TemporaryDirectory() as folder, server(memcached_command(1), "native") as (_, behind):
        path = os.path.join(folder, "conf")

        def command(port):
            with open(path, "w") as f:
                f.write("global\n nbthread 2\n maxconn 1000\ndefaults\n mode tcp\n timeout connect 5s\n"
                        f" timeout client 60s\n timeout server 60s\nlisten l\n bind 127.0.0.1:{port}\n"
                        f" server s 127.0.0.1:{behind}\n")
            return [find("haproxy"), "-db", "-f", path]

        with server(command, kind, 10) as (process, port):
            return measure.load(port, process, 100, "memcached")


def stunnel(kind):
    """A thread for each of 500 TLS connections, before a memcached."""
    with tempfile.TemporaryDirectory() as folder, server(memcached_command(1), "native") as (_, behind):
        conf, cert, key = (os.path.join(folder, name) for name in ("conf", "cert.pem", "key.pem"))
        subprocess.run([find("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                        "/CN=localhost", "-keyout", key, "-out", cert], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=60)

        def command(port):
            with open(conf, "w") as f:
                f.write(f"foreground = yes\npid =\ndebug = warning\nsyslog = no\n[s]\naccept = 127.0.0.1:{port}\n"
                        f"connect = 127.0.0.1:{behind}\ncert = {cert}\nkey = {key}\nTIMEOUTclose = 0\n")
            return [find("stunnel4"), conf]

        with server(command, kind, 20) as (process, port):
            return measure.load(port, process, 500, "memcached", "--tls", cert)


class Mariadb:
    """sysbench's oltp_read_write with a thread and a connection for each of 512 clients. The tables are made once; they
    are checked after each round. Commits reach the disk once a second: it is not the disk that is measured."""

    CLIENTS, TABLES, ROWS = 512, 4, 10000

    def __init__(self):
        self.folder = self.socket = None

    def native(self, command, seconds, data=None):
        done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds,
                              env=measure.environment("native", {}))
        text = done.stdout.decode(errors="replace")
        if done.returncode:
            raise measure.Failed(f"{os.path.basename(command[0])}: {text.strip()[-300:]}")
        return text

    def sql(self, text):
        return self.native([find("mariadb"), "--no-defaults", "-S", self.socket, "-u", "root", "-N"], 60, text.encode())

    def sysbench(self, what, *more):
        return self.native([find("sysbench"), "oltp_read_write", "--db-driver=mysql", f"--mysql-socket={self.socket}",
                            "--mysql-user=root", "--mysql-db=bench", f"--tables={self.TABLES}",
                            f"--table-size={self.ROWS}", "--rand-type=uniform", *more, what], 120)

    def start(self, kind, out):
        user = ["--user=nobody"] if os.geteuid() == 0 else []
        process = measure.spawn([find("mariadbd"), "--no-defaults", *user, f"--datadir={self.folder.name}/data",
                                 f"--socket={self.socket}", "--skip-networking", "--max-connections=600",
                                 "--innodb-buffer-pool-size=128M", "--innodb-flush-log-at-trx-commit=0",
                                 "--table-open-cache=4000", "--max-prepared-stmt-count=100000", "--back-log=600",
                                 f"--pid-file={self.folder.name}/pid"], kind, out)
        until = time.monotonic() + 40
        while True:
            try:
                self.sql("select 1;")
                return process
            except measure.Failed:
                if process.poll() is not None or time.monotonic() > until:
                    measure.end(process)
                    raise
                time.sleep(0.1)

    def prepare(self):
        self.folder = tempfile.TemporaryDirectory()
        self.socket = os.path.join(self.folder.name, "socket")
        os.chmod(self.folder.name, 0o777)
        user = ["--user=nobody"] if os.geteuid() == 0 else []
        self.native([find("mariadb-install-db"), "--no-defaults", *user, f"--datadir={self.folder.name}/data",
                     "--skip-test-db", "--auth-root-authentication-method=normal"], 100)
        with tempfile.TemporaryFile() as out:
            process = self.start("native", out)
            try:
                self.sql("create database bench;")
                self.sysbench("prepare")
            finally:
                measure.end(process, 60)

    def __call__(self, kind):
        find("sysbench")
        if not self.folder:
            self.prepare()
        with tempfile.TemporaryFile() as out:
            process = self.start(kind, out)
            try:
                ticks, clock = self.ticks(process), time.monotonic()
                text = self.sysbench("run", f"--threads={self.CLIENTS}", f"--time={2 if measure.smoke else 12}",
                                     "--percentile=99", "--mysql-ignore-errors=1213,1020,1205")
                ticks, clock = self.ticks(process) - ticks, time.monotonic() - clock
                checked = self.sql("".join(f"check table bench.sbtest{n + 1}; select count(*) from bench.sbtest{n + 1};"
                                           for n in range(self.TABLES)))
            finally:
                measure.end(process, 60)
        if checked.count("\tOK\n") != self.TABLES or checked.count(f"{self.ROWS}\n") != self.TABLES:
            raise measure.Failed(f"the tables are not right: {checked.strip()[-300:]}")
        rate = re.search(r"transactions:\s+(\d+)\s+\(([\d.]+) per sec", text)
        late = re.search(r"99th percentile:\s+([\d.]+)", text)
        if not rate or not late or not int(rate[1]):
            raise measure.Failed(f"sysbench: {text.strip()[-300:]}")
        return {"throughput": float(rate[2]), "p99_us": float(late[1]) * 1000,
                "server_cpu_us_per_request": ticks * 1e6 / os.sysconf("SC_CLK_TCK") / int(rate[1])}

    @staticmethod
    def ticks(process):
        with open(f"/proc/{process.pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
