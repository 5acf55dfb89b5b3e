"""Signals in Python: handlers run in the main thread, whatever it and others do; the runner sends SIGINT at the end."""

import os
import queue
import signal
import sys
import threading
import time

seen = []
signal.signal(signal.SIGUSR1, lambda sig, frame: seen.append(threading.current_thread() is threading.main_thread()))

stop = threading.Event()
threads = [threading.Thread(target=stop.wait) for _ in range(10)]
for t in threads:
    t.start()


def expect(n, what):
    end = time.monotonic() + 10
    while len(seen) < n and time.monotonic() < end:
        time.sleep(0.01)
    if len(seen) != n or not all(seen):
        print("FAILED:", what, seen, flush=True)
        os._exit(1)


os.kill(os.getpid(), signal.SIGUSR1)
expect(1, "kill")
signal.raise_signal(signal.SIGUSR1)
expect(2, "raise_signal")
signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
expect(3, "pthread_kill of main")
signal.pthread_kill(threads[0].ident, signal.SIGUSR1)
expect(4, "pthread_kill of a thread")
threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
time.sleep(0.3)
expect(5, "during sleep")
signal.setitimer(signal.ITIMER_REAL, 0.1)
signal.signal(signal.SIGALRM, lambda sig, frame: seen.append(True))
time.sleep(0.3)
expect(6, "alarm")

# Interrupted while main waits: for a lock, a queue, in sleep, in a loop.
for what in ("lock", "queue", "sleep", "loop"):
    print(f"interrupt {what}", flush=True)
    try:
        if what == "lock":
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
        elif what == "queue":
            queue.Queue().get()
        elif what == "sleep":
            time.sleep(30)
        else:
            while True:
                pass
        print("FAILED: not interrupted", flush=True)
        os._exit(1)
    except KeyboardInterrupt:
        pass

stop.set()
for t in threads:
    t.join()
print("interrupt the end", flush=True)
time.sleep(30)
