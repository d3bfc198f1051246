# SPDX-License-Identifier: MIT
"""Debian's redis-server, with a client: its digest stays, and it answers while its memory is away."""
import os
import random
import shutil
import socket
import subprocess
import time

import pytest

import harness
from harness import assert_no_trace, assert_same, settle, snapshot, wait_until


class Redis:
    def __init__(self, directory):
        self.path = os.path.join(directory, "redis.sock")
        self.proc = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", self.path, "--save", "",
                                      "--appendonly", "no", "--enable-debug-command", "yes", "--dir", directory,
                                      "--maxmemory", "0"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        self.pid = self.proc.pid
        self.s = None

        def connect():
            try:
                self.s = self.connect()
                return True
            except OSError:
                return False
        wait_until(connect, 20, "redis listens")

    def connect(self):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(60)
        s.connect(self.path)
        return s.makefile("rwb")

    @staticmethod
    def encode(*words):
        out = [b"*%d\r\n" % len(words)]
        for w in words:
            w = w if isinstance(w, bytes) else str(w).encode()
            out.append(b"$%d\r\n%s\r\n" % (len(w), w))
        return b"".join(out)

    def reply(self, s=None):
        s = s or self.s
        line = s.readline()
        assert line, "redis closed the connection"
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            n = int(rest)
            return None if n < 0 else s.read(n + 2)[:-2]
        if kind == b"*":
            return [self.reply(s) for _ in range(int(rest))]
        assert kind != b"-", line
        return int(rest) if kind == b":" else rest

    def call(self, *words, s=None):
        s = s or self.s
        s.write(self.encode(*words))
        s.flush()
        return self.reply(s)

    def load(self, keys, size):
        rng = random.Random(3)
        self.truth = {}
        for first in range(0, keys, 1000):
            for i in range(first, min(keys, first + 1000)):
                value = rng.randbytes(size // 2) + b"%d " % i * (size // 2 // 8)
                self.truth[i] = value if i % 50 == 0 else None
                self.s.write(self.encode("SET", f"key:{i}", value))
            self.s.flush()
            for i in range(first, min(keys, first + 1000)):
                assert self.reply() == b"OK"
        for i in range(2000):
            self.s.write(self.encode("HSET", f"hash:{i % 50}", f"field{i}", f"value{i}"))
            self.s.write(self.encode("ZADD", f"zset:{i % 20}", i * 3 % 1001, f"member{i}"))
        self.s.flush()
        for _ in range(4000):
            self.reply()

    def digest(self):
        return self.call("DEBUG", "DIGEST")

    def stop(self):
        self.proc.kill()
        self.proc.wait()


@pytest.fixture
def redis(firn):
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    r = Redis(firn.runtime)
    try:
        r.load(60000, 2000)
        yield r
    finally:
        r.stop()


def test_digest(firn, redis):
    before = redis.digest()
    for verb in ("freeze", "evict", "freeze"):
        target = getattr(firn, verb)(redis.pid)
        assert target["pages"]["total"] * harness.PAGE > 100 << 20
        if verb == "evict":
            assert redis.digest() == before
        firn.thaw(redis.pid)
        assert redis.digest() == before
        assert_no_trace(firn, redis.pid)
        redis.call("SET", "another", verb)
        before = redis.digest()


def test_server_and_client_as_one(firn, victims):
    """A server and a client that talk without pause, in one tree: neither notices anything."""
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    path = os.path.join(firn.runtime, "pair.sock")
    v = victims("sh", argv=["sh", "-c", f"""redis-server --port 0 --unixsocket {path} --save '' --appendonly no >/dev/null &
echo ready
exec python3 -c '
import select, socket, sys, time
while True:
    try:
        s = socket.socket(socket.AF_UNIX)
        s.connect("{path}")
        break
    except OSError:
        time.sleep(0.01)
f = s.makefile("rwb")
n = 0
while True:
    n += 1
    f.write(b"*2\\r\\n$4\\r\\nINCR\\r\\n$1\\r\\na\\r\\n")
    f.flush()
    assert f.readline() == b":%d\\r\\n" % n
    if select.select([0], [], [], 0)[0]:
        sys.stdin.readline()
        print("ok", n, flush=True)
'"""])
    last = int(v.cmd("count"))
    for verb in ("freeze", "evict", "freeze"):
        targets = firn.ok(verb, "--tree", v.pid, "--json").targets
        assert len(targets) == 2
        firn.ok("thaw", "--tree", v.pid)
        now = int(v.cmd("count"))
        assert now > last
        last = now
    assert firn.list() == []
    for child in harness.read(f"/proc/{v.pid}/task/{v.pid}/children").split():
        os.kill(int(child), 9)


def test_it_answers_before_it_is_whole(firn, redis):
    firn.evict(redis.pid)
    assert redis.call("PING") == b"PONG"
    rng = random.Random(5)
    for _ in range(30):
        i = rng.randrange(1200) * 50
        assert redis.call("GET", f"key:{i}") == redis.truth[i]
    pages = firn.show(redis.pid)["pages"]
    assert pages["evicted"] > pages["total"] // 4, "almost all came back for thirty keys"
    firn.thaw(redis.pid)
    redis.digest()


def test_it_answers_during_the_thaw(firn, redis):
    """PING sent to a frozen server is answered as soon as it runs, not after the thaw's end."""
    before = redis.digest()
    for _ in range(3):
        firn.freeze(redis.pid)
        redis.s.write(redis.encode("PING"))
        redis.s.flush()
        thaw = firn.background("thaw", redis.pid, "--json")
        try:
            assert redis.reply() == b"PONG"
            for i in range(0, 5000, 50):
                assert redis.call("GET", f"key:{i}") == redis.truth[i]
            out, err = thaw.communicate(timeout=60)
            assert thaw.returncode == 0, err
        finally:
            thaw.kill()
        target = harness.Result(["thaw"], 0, out, err).target
        assert target["ms"]["run"] <= target["ms"]["whole"]
        assert redis.digest() == before


def test_clients_never_see_it(firn, redis):
    """Ten connections work across stops without an error."""
    import threading
    errors, stop, done = [], threading.Event(), []

    def client(n):
        rng = random.Random(n)
        try:
            s = redis.connect()
            count = 0
            while not stop.is_set():
                i = rng.randrange(1200) * 50
                if redis.call("GET", f"key:{i}", s=s) != redis.truth[i]:
                    errors.append(f"key:{i} is wrong")
                redis.call("INCR", f"count:{n}", s=s)
                count += 1
            assert int(redis.call("GET", f"count:{n}", s=s)) == count
            done.append(n)
        except Exception as e:
            errors.append(repr(e))
    threads = [threading.Thread(target=client, args=(n,)) for n in range(10)]
    for t in threads:
        t.start()
    try:
        for verb in ("freeze", "evict", "evict", "freeze"):
            getattr(firn, verb)(redis.pid)
            time.sleep(0.3)
            firn.thaw(redis.pid)
            time.sleep(0.2)
    finally:
        stop.set()
        for t in threads:
            t.join(60)
    assert not errors, errors[:5]
    assert len(done) == 10
    assert_no_trace(firn, redis.pid)


def test_background_save_while_evicted(firn, redis):
    """BGSAVE forks: the child reads all of the memory, most of it away."""
    before = redis.digest()
    firn.evict(redis.pid)
    redis.call("BGSAVE")
    for i in range(0, 3000, 50):
        redis.call("SET", f"key:{i}", redis.truth[i] + b"!")
    wait_until(lambda: b"rdb_bgsave_in_progress:0" in redis.call("INFO", "persistence"), 60, "the save ends")
    assert b"rdb_last_bgsave_status:ok" in redis.call("INFO", "persistence")
    firn.thaw(redis.pid)
    for i in range(0, 3000, 50):
        redis.call("SET", f"key:{i}", redis.truth[i])
    assert redis.digest() == before
    # What the child wrote is the memory at the time of the fork.
    second = Redis.__new__(Redis)
    directory = os.path.dirname(redis.path)
    second.path = os.path.join(directory, "second.sock")
    second.proc = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", second.path, "--save", "",
                                    "--enable-debug-command", "yes", "--dir", directory], stdout=subprocess.DEVNULL,
                                   stdin=subprocess.DEVNULL)
    try:
        def connect():
            try:
                second.s = second.connect()
                return second.call("PING") == b"PONG"
            except (OSError, AssertionError):
                return False
        wait_until(connect, 30, "the second server has loaded the save")
        assert second.digest() == before
    finally:
        second.stop()


def test_agent_killed(firn, redis):
    before = redis.digest()
    firn.evict(redis.pid)
    firn.kill_agent()
    redis.s.write(redis.encode("DEBUG", "DIGEST"))
    redis.s.flush()
    time.sleep(0.2)
    firn.thaw_all()
    assert redis.reply() == before
    assert redis.digest() == before
    assert_no_trace(firn, redis.pid)
