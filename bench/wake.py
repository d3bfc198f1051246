#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""From connect() to the first answer of a frozen redis-server that is woken by it; on a connection that is there, from the
request to the answer; and the same awake.

usage: bench/wake.py MEGABYTES ROUNDS [--place=ram]        (root; $BUILD or build/)
"""
import os
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests"))
import harness  # noqa: E402


def ask(sock, key):
    sock.sendall(f"GET {key}\r\n".encode())
    want, got = 1031, b""
    while len(got) < want:
        got += sock.recv(4096)


def line(name, ms):
    ms = sorted(ms)
    print(f"{name:24s} median {statistics.median(ms):7.1f} ms, p99 {ms[min(len(ms) - 1, round(0.99 * len(ms)))]:7.1f} ms, "
          f"{ms[0]:.1f} to {ms[-1]:.1f}, n {len(ms)}", flush=True)


def main():
    megabytes, rounds, options = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = s.getsockname()
    firn = harness.Firn()
    redis = subprocess.Popen(["redis-server", "--port", str(address[1]), "--bind", "127.0.0.1", "--save", "",
                              "--appendonly", "no"], stdout=subprocess.DEVNULL)
    times = {"frozen, new": [], "frozen, existing": [], "awake, new": [], "awake, existing": []}
    try:
        def connect():
            s = socket.create_connection(address, timeout=60)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return s
        old = harness.wait_until(lambda: subprocess.call(
            ["redis-cli", "-p", str(address[1]), "ping"], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL) == 0 and connect(), 20, "redis listens")
        keys = megabytes * 800
        # Half of each value is random: LZ4 makes three quarters of it.
        chunk = []
        for i in range(keys):
            value = os.urandom(512) + b"x" * 510
            chunk.append(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$1022\r\n%s\r\n" % (len(str(i)), str(i).encode(), value))
            if len(chunk) == 200 or i == keys - 1:
                old.sendall(b"".join(chunk))
                left = 5 * len(chunk)
                while left:
                    left -= len(old.recv(65536))
                chunk = []
        print(f"redis-server of {harness.anon_kib(redis.pid) / 1024:.0f} MiB")
        for i in range(rounds * 2 + 2):
            key = (i * 7919) % keys
            kind = "new" if i % 2 else "existing"
            firn.ok("freeze", "--wake", *options, redis.pid)
            harness.wait_until(lambda: firn.show(redis.pid)["wake"]["watching"], 5, "it is watched")
            for state in ("frozen", "awake"):
                start = time.monotonic()
                sock = connect() if kind == "new" else old
                ask(sock, key)
                if i >= 2:              # the first of each is a warm-up
                    times[f"{state}, {kind}"].append((time.monotonic() - start) * 1e3)
                if kind == "new":
                    sock.close()
                harness.wait_until(lambda: redis.pid not in [t["pid"] for t in firn.list()], 30, "it is whole")
        for name, ms in times.items():
            line(name, ms)
    finally:
        redis.kill()
        redis.wait()
        firn.close()


main()
