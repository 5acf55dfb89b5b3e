"""multiprocessing with threads in the parent: children by fork, forkserver and spawn, pools, queues, locks, values, pipes
and a manager; each child makes threads, and children of its own."""

import concurrent.futures
import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time


def digest(n):
    """By four threads, each a part."""
    parts = [None] * 4

    def part(i):
        parts[i] = hashlib.sha256(b"%d %d" % (n, i)).hexdigest()

    threads = [threading.Thread(target=part, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def worker(kind, n, queue, lock, value, pipe):
    for _ in range(50):
        with lock:
            value.value += 1
    pid = os.fork()
    if pid == 0:
        os._exit(len(digest(n)))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    pipe.send((n, digest(n), status))
    queue.put(n)
    sys.exit(n + 1)


def trial(kind):
    context = multiprocessing.get_context(kind)
    lock, value, queue = context.Lock(), context.Value("i", 0, lock=False), context.Queue()
    pipes, children = [], []
    for n in range(4):
        ours, theirs = context.Pipe()
        child = context.Process(target=worker, args=(kind, n, queue, lock, value, theirs))
        child.start()
        theirs.close()
        pipes.append(ours)
        children.append(child)
    got = [p.recv() for p in pipes]
    assert got == [(n, digest(n), 64) for n in range(4)], got
    assert sorted(queue.get(timeout=60) for _ in children) == [0, 1, 2, 3]
    for child in children:
        child.join(60)
    assert [c.exitcode for c in children] == [1, 2, 3, 4], [c.exitcode for c in children]
    assert value.value == 200, value.value
    with context.Pool(3) as pool:
        assert pool.map(digest, range(30)) == [digest(n) for n in range(30)]
        assert list(pool.imap(digest, range(10), 3)) == [digest(n) for n in range(10)]
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(digest, range(10))) == [digest(n) for n in range(10)]
    with context.Manager() as manager:
        shared = manager.dict(a=1)
        shared["b"] = 2
        assert dict(shared) == {"a": 1, "b": 2}
    killed = context.Process(target=time.sleep, args=(100,))
    killed.start()
    killed.terminate()
    killed.join(60)
    assert killed.exitcode == -15, killed.exitcode


def company(over, counts):
    """What runs beside: locks, memory and commands."""
    while not over.is_set():
        counts.append(hashlib.sha256(bytes(2000)).digest())
        del counts[:-10]
        if subprocess.run(["true"]).returncode:
            os._exit(9)
        time.sleep(0.001)


def main():
    over = threading.Event()
    threads = [threading.Thread(target=company, args=(over, []), daemon=True) for _ in range(3)]
    threads += [threading.Thread(target=over.wait, daemon=True) for _ in range(20)]
    for t in threads:
        t.start()
    for kind in ("fork", "forkserver", "spawn"):
        trial(kind)
        print(kind, flush=True)
    over.set()
    for t in threads:
        t.join()


if __name__ == "__main__":
    main()
