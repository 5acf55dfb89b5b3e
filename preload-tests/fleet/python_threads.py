"""Threads in Python, checked from inside: locks, queues, pools, timers, locals, subprocesses. Prints OK at the end."""

import asyncio
import concurrent.futures
import hashlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
import zlib


def check(condition, what):
    if not condition:
        print("FAILED:", what)
        sys.stdout.flush()
        os._exit(1)


def counting():
    lock, count = threading.Lock(), [0]

    def add():
        for _ in range(2000):
            with lock:
                count[0] += 1

    threads = [threading.Thread(target=add) for _ in range(32)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    check(count[0] == 64000, f"counted {count[0]}")


def queues():
    q, out = queue.Queue(maxsize=10), queue.SimpleQueue()

    def work():
        while (item := q.get()) is not None:
            out.put(item * item)
            q.task_done()
        q.task_done()

    threads = [threading.Thread(target=work) for _ in range(20)]
    for t in threads:
        t.start()
    for i in range(3000):
        q.put(i)
    q.join()
    for _ in threads:
        q.put(None)
    for t in threads:
        t.join()
    check(sum(out.get() for _ in range(3000)) == sum(i * i for i in range(3000)), "queue sum")
    start = time.monotonic()
    try:
        queue.Queue().get(timeout=0.1)
        check(False, "get of an empty queue")
    except queue.Empty:
        check(0.09 < time.monotonic() - start < 5, "timeout of get")


def primitives():
    event, cond, barrier = threading.Event(), threading.Condition(), threading.Barrier(10)
    sem, local = threading.BoundedSemaphore(3), threading.local()
    inside, peak, ready, ranks = [0], [0], [0], []
    check(not event.wait(0.05), "event before it is set")

    def run(n):
        local.n = n
        event.wait()
        for _ in range(20):
            with sem:
                inside[0] += 1
                peak[0] = max(peak[0], inside[0])
                time.sleep(0.0005)
                inside[0] -= 1
            check(local.n == n, "thread-local value")
        ranks.append(barrier.wait())
        with cond:
            ready[0] += 1
            cond.notify_all()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(10)]
    for t in threads:
        t.start()
    event.set()
    with cond:
        check(cond.wait_for(lambda: ready[0] == 10, timeout=30), "condition")
    for t in threads:
        t.join()
    check(peak[0] <= 3, f"{peak[0]} inside a semaphore of 3")
    check(sorted(ranks) == list(range(10)), "barrier ranks")
    fired = threading.Event()
    threading.Timer(0.05, fired.set).start()
    check(fired.wait(10), "timer")
    rlock = threading.RLock()
    with rlock, rlock:
        t = threading.Thread(target=lambda: check(not rlock.acquire(timeout=0.05), "rlock of another"))
        t.start()
        t.join()


def pools():
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        data = [os.urandom(20000) for _ in range(100)]
        digests = list(pool.map(lambda d: hashlib.sha256(d).hexdigest(), data))
        check(digests == [hashlib.sha256(d).hexdigest() for d in data], "digests")
        packed = list(pool.map(lambda d: zlib.decompress(zlib.compress(d)), data))
        check(packed == data, "zlib")
        failing = pool.submit(lambda: 1 / 0)
        check(isinstance(failing.exception(), ZeroDivisionError), "exception of a future")


def square(n):
    return n * n, os.getpid()


def processes():
    with concurrent.futures.ProcessPoolExecutor(4) as pool:
        results = list(pool.map(square, range(200), chunksize=5))
    check([r[0] for r in results] == [n * n for n in range(200)], "process pool")
    check(os.getpid() not in {r[1] for r in results}, "work in other processes")


def subprocesses():
    def run(n):
        got = subprocess.run(["sh", "-c", f"cat; echo {n}; exit {n % 5}"], input=b"in\n", stdout=subprocess.PIPE)
        check(got.stdout == f"in\n{n}\n".encode() and got.returncode == n % 5, f"subprocess {n}: {got}")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for f in [pool.submit(run, n) for n in range(40)]:
            f.result()
    start = time.monotonic()
    try:
        subprocess.run(["sleep", "20"], timeout=0.2)
        check(False, "timeout of a subprocess")
    except subprocess.TimeoutExpired:
        check(time.monotonic() - start < 10, "timeout of a subprocess in time")


def sockets():
    server = socket.create_server(("127.0.0.1", 0), backlog=100)

    def serve(conn):
        with conn:
            while data := conn.recv(1000):
                conn.sendall(data.upper())

    def accept():
        for _ in range(50):
            threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()

    def client(n):
        with socket.create_connection(server.getsockname(), timeout=30) as c:
            for i in range(20):
                c.sendall(f"message {n} {i};".encode())
                got = b""
                while not got.endswith(b";"):
                    got += c.recv(100)
                check(got == f"MESSAGE {n} {i};".encode(), "echo")

    clients = [threading.Thread(target=client, args=(n,)) for n in range(50)]
    for t in clients:
        t.start()
    for t in clients + [acceptor]:
        t.join()
    server.close()


def event_loop():
    async def main():
        loop = asyncio.get_running_loop()
        results = await asyncio.gather(*[loop.run_in_executor(None, time.sleep, 0.01) for _ in range(50)],
                                       *[asyncio.sleep(0.01, n) for n in range(50)])
        check(results[50:] == list(range(50)), "asyncio")
        proc = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE)
        out, _ = await proc.communicate()
        check(out == b"hello\n" and proc.returncode == 0, "asyncio subprocess")

    asyncio.run(main())


def many_blocked():
    gate = threading.Event()
    threads = [threading.Thread(target=gate.wait) for _ in range(300)]
    for t in threads:
        t.start()
    # The runner looks at this process's kernel threads now.
    print("300 threads blocked", flush=True)
    sys.stdin.readline()
    gate.set()
    for t in threads:
        t.join()


for step in (counting, queues, primitives, pools, processes, subprocesses, sockets, event_loop, many_blocked):
    print(step.__name__, flush=True)
    step()
print("OK", flush=True)
