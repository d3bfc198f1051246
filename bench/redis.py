# SPDX-License-Identifier: MIT
"""A redis-server as a victim: what comes back is asked for by GETs of random keys, one, 99 and 20,000."""
import random
import socket
import subprocess
import time

import host
from host import MIB, Trouble

KEYS_A_GB = 900_000
HALF_BYTES = 512
GETS = {"one": 1, "hundred": 99, "next": 20_000}
POOL_BYTES = 32 * MIB


class Redis:
    whole = False

    def __init__(self, directory, cgroup, gigabytes=1):
        self.keys, self.asked = int(KEYS_A_GB * gigabytes), None
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.log = directory / "redis.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory),
                 "--save", "", "--appendonly", "no", "--daemonize", "no"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=host.die_with_parent)
        self.pid, self.connection = self.process.pid, None
        self.pids = [self.pid]
        try:
            cgroup.add(self.pid)
            self.connect(port)
            self.pool = random.Random(1).randbytes(POOL_BYTES)
            self.random = random.Random(2)
            self.load()
        except (Trouble, OSError) as e:
            self.close()
            raise Trouble(f"redis-server: {e}") from e
        self.size = self.resident()

    def connect(self, port):
        deadline = time.monotonic() + 20
        while not self.connection:
            try:
                self.connection = socket.create_connection(("127.0.0.1", port), timeout=120)
                self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as e:
                if not self.alive() or time.monotonic() > deadline:
                    raise Trouble(f"does not start: {e}") from e
                time.sleep(0.02)

    def value(self, i):
        at = i * 8209 % (POOL_BYTES - HALF_BYTES)
        return self.pool[at:at + HALF_BYTES] + b"%08d" % i * (HALF_BYTES // 8)

    def receive(self, length):
        data = self.connection.recv(length)
        while len(data) < length:
            piece = self.connection.recv(length - len(data))
            if not piece:
                raise Trouble("closed the connection")
            data += piece
        return data

    def load(self):
        head = b"*3\r\n$3\r\nSET\r\n$13\r\nuser:%08d\r\n$%d\r\n"
        for first in range(0, self.keys, 1000):
            self.connection.sendall(b"".join(head % (i, 2 * HALF_BYTES) + self.value(i) + b"\r\n"
                                             for i in range(first, first + 1000)))
            if self.receive(5000) != b"+OK\r\n" * 1000:
                raise Trouble("does not take the keys")

    def ask(self, i):
        self.connection.sendall(b"*2\r\n$3\r\nGET\r\n$13\r\nuser:%08d\r\n" % i)

    def answer(self, i):
        if self.receive(2 * HALF_BYTES + 9) != b"$%d\r\n%s\r\n" % (2 * HALF_BYTES, self.value(i)):
            raise Trouble(f"GET gives a wrong value of key {i}")

    # What a peer expects of a victim.

    def steps(self, _order):
        return (("first", "one"), ("hundred", "hundred"), ("next", "next"))

    def send(self, command):
        """Of several GETs the first: there is never more than one on its way."""
        self.asked = self.random.randrange(self.keys)
        self.ask(self.asked)

    def wait(self, command):
        start = time.monotonic_ns()
        self.answer(self.asked)
        for _ in range(GETS[command] - 1):
            i = self.random.randrange(self.keys)
            self.ask(i)
            self.answer(i)
        return time.monotonic_ns() - start

    def verify(self):
        for i in range(0, self.keys, 50):
            self.ask(i)
            self.answer(i)

    def ranges(self):
        return [(self.pid, host.anonymous_ranges(self.pid))]

    def resident(self):
        return host.resident(self.pid)

    def alive(self):
        return self.process.poll() is None

    def close(self):
        if self.connection:
            self.connection.close()
        self.process.kill()
        self.process.wait()
