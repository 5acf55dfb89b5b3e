"""Clients of memcached, redis and web servers that know what must be answered."""

import collections
import hashlib
import harness
import http.client
import os
import random
import time
from harness import Failure, connect, require


class Memcached:
    def __init__(self, port, p):
        self.sock = connect(port, p)
        self.file = self.sock.makefile("rb")

    def send(self, data):
        self.sock.sendall(data)

    def line(self):
        line = self.file.readline()
        require(line.endswith(b"\r\n"), f"memcached closes the connection (got {line!r})")
        return line[:-2]

    def command(self, text):
        self.send(text + b"\r\n")
        return self.line()

    def store(self, verb, key, value, extra=b""):
        self.send(b"%s %s 0 0 %d%s\r\n%s\r\n" % (verb, key, len(value), extra, value))
        return self.line()

    def get(self, key, verb=b"get"):
        self.send(b"%s %s\r\n" % (verb, key))
        return self.value(key)

    def value(self, key):
        line = self.line()
        if line == b"END":
            return None
        parts = line.split()
        require(parts[0] == b"VALUE" and parts[1] == key, f"memcached answers {line!r} to a get of {key!r}")
        value = self.file.read(int(parts[3]) + 2)[:-2]
        require(self.line() == b"END", "memcached: no END after a value")
        return (value, parts[4]) if len(parts) > 4 else value


def memcached_client(port, p, number, until, counts):
    rng = random.Random(number)
    c = Memcached(port, p)
    mine = {}
    while time.monotonic() < until:
        key = b"key-%d-%d" % (number, rng.randrange(200))
        what = rng.randrange(8)
        if what < 3:
            value = rng.randbytes(rng.choice([1, 10, 100, 1000, 1000, 60000 if rng.random() < 0.1 else 300]))
            require(c.store(b"set", key, value) == b"STORED", "memcached: set not stored")
            mine[key] = value
        elif what < 6:
            got = c.get(key)
            require(got == mine.get(key), f"memcached: wrong value of {key!r}")
        elif what == 6:
            # Pipelined: many at once, answers in order.
            keys = rng.sample(sorted(mine), min(len(mine), 30))
            c.send(b"".join(b"get %s\r\n" % k for k in keys))
            for k in keys:
                require(c.value(k) == mine[k], f"memcached: wrong value of {k!r} in a pipeline")
            counts[0] += len(keys)
        else:
            require(c.command(b"delete " + key) == (b"DELETED" if key in mine else b"NOT_FOUND"), "memcached: delete")
            mine.pop(key, None)
        # One counter for everybody, by incr and by cas.
        got = c.command(b"incr shared 1")
        require(got.isdigit(), f"memcached: incr answers {got!r}")
        counts[1] += 1
        if rng.randrange(4) == 0:
            for _ in range(1000):
                value, unique = c.get(b"casked", b"gets")
                if c.store(b"cas", b"casked", b"%d" % (int(value) + 1), b" " + unique) == b"STORED":
                    counts[2] += 1
                    break
        counts[0] += 3
    c.sock.close()


class Redis:
    def __init__(self, port, p):
        self.sock = connect(port, p)
        self.file = self.sock.makefile("rb")

    def send(self, *args):
        parts = [a if isinstance(a, bytes) else str(a).encode() for a in args]
        self.sock.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in parts))

    def reply(self):
        line = self.file.readline()
        require(line.endswith(b"\r\n"), f"redis closes the connection (got {line!r})")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"-":
            return Failure(rest.decode())
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        require(kind == b"*", f"redis answers {line!r}")
        return None if rest == b"-1" else [self.reply() for _ in range(int(rest))]

    def command(self, *args):
        self.send(*args)
        answer = self.reply()
        if isinstance(answer, Failure):
            raise Failure(f"redis answers {answer} to {args[0]}")
        return answer


def redis_ready(port, p):
    c = Redis(port, p)
    end = time.monotonic() + 20
    while True:
        c.send("PING")
        answer = c.reply()
        if answer == b"PONG":
            return c
        require(time.monotonic() < end, f"redis does not get ready: {answer}")
        time.sleep(0.05)


def redis_client(port, p, number, until, counts):
    rng = random.Random(number)
    c = Redis(port, p)
    mine, length = {}, 0
    while time.monotonic() < until:
        batch = []
        for _ in range(rng.choice([1, 1, 20])):
            key = b"k:%d:%d" % (number, rng.randrange(100))
            what = rng.randrange(5)
            if what < 2:
                value = rng.randbytes(rng.choice([1, 30, 500, 20000 if rng.random() < 0.05 else 100]))
                batch.append((("SET", key, value), b"OK"))
                mine[key] = value
            elif what < 4:
                batch.append((("GET", key), mine.get(key)))
            else:
                length += 1
                batch.append((("RPUSH", b"list:%d" % number, length), length))
            batch.append((("INCR", "shared"), int))
        for args, _ in batch:
            c.send(*args)
        for args, want in batch:
            answer = c.reply()
            require(isinstance(answer, int) if want is int else answer == want,
                    f"redis: wrong answer to {args[0]} {args[1]}: {answer!r:.60}")
            counts[1] += want is int
        counts[0] += len(batch)
    require(c.command("LRANGE", b"list:%d" % number, 0, -1) == [b"%d" % i for i in range(1, length + 1)],
            "redis: a list is not what was pushed")
    c.sock.close()


def redis_bgsave(c):
    answer = c.command("BGSAVE")
    require(answer.startswith(b"Background saving"), f"redis: BGSAVE answers {answer!r}")
    end = time.monotonic() + 30
    while True:
        info = c.command("INFO", "persistence")
        if b"rdb_bgsave_in_progress:0" in info:
            break
        require(time.monotonic() < end, "redis: BGSAVE does not end")
        time.sleep(0.05)
    require(b"rdb_last_bgsave_status:ok" in info, "redis: BGSAVE failed")


def web(port, paths, clients=16, requests=30, keep=True, send=0):
    """How often each answer came, over connections that are kept, or one for each request; send: so many bytes go along."""
    answers = collections.Counter()

    def client(n):
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
        rng = random.Random(n)
        for i in range(requests):
            path = paths[(n + i) % len(paths)]
            if send:
                c.request("POST", path, rng.randbytes(send))
            else:
                c.request("GET", path, headers={} if keep else {"Connection": "close"})
            a = c.getresponse()
            answers[path, a.status, hashlib.sha256(a.read()).hexdigest()] += 1
            if a.will_close or not keep:
                c.close()
        c.close()

    harness.in_threads([lambda n=n: client(n) for n in range(clients)], 120)
    return sorted(answers.items())


def files(folder):
    """A directory with a few files to serve, the same each time."""
    root = os.path.join(folder, "www")
    os.mkdir(root)
    rng = random.Random(11)
    for name, size in (("small", 100), ("middle", 70000), ("large", 2000000)):
        with open(os.path.join(root, name), "wb") as f:
            f.write(rng.randbytes(size))
    return root, ["/small", "/middle", "/small", "/large", "/nothing"]
