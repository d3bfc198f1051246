# SPDX-License-Identifier: MIT
"""python3 with a large heap of objects, threads and children, checking itself."""
import os

import pytest

import harness
from harness import assert_no_trace, wait_until

PROGRAM = r'''
import gc, hashlib, os, random, sys, threading, time

rng = random.Random(11)
things = []
for i in range(120000):
    things.append({"id": i, "name": f"thing {i}", "values": [rng.random() for _ in range(rng.randrange(12))],
                   "blob": rng.randbytes(rng.randrange(400)), "next": None})
for i in range(len(things)):
    things[i]["next"] = things[(i * 7919 + 1) % len(things)]


def digest():
    h = hashlib.sha256()
    at = things[0]
    for t in things:
        h.update(repr((t["id"], t["name"], t["values"], t["next"]["id"])).encode())
        h.update(t["blob"])
    return h.hexdigest()


want = digest()
ticks = [0] * 4
bad = []


def worker(n):
    mine = random.Random(n)
    local = {i: bytes([i % 256]) * 100 for i in range(2000)}
    while True:
        k = mine.randrange(2000)
        if local[k] != bytes([k % 256]) * 100:
            bad.append(("local", n, k))
        t = things[mine.randrange(len(things))]
        if t["name"] != f"thing {t['id']}":
            bad.append(("thing", n, t["id"]))
        ticks[n] += 1
        before = time.monotonic()
        time.sleep(0.002)
        if time.monotonic() - before < 0.002:
            bad.append(("sleep", n))


for n in range(4):
    threading.Thread(target=worker, args=(n,), daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    line = line.strip()
    ok = not bad
    if line == "verify":
        ok = ok and digest() == want
    elif line == "collect":
        gc.collect()
    elif line == "ticks":
        was = list(ticks)
        end = time.monotonic() + 20
        while any(a == b for a, b in zip(was, ticks)) and time.monotonic() < end:
            time.sleep(0.01)
        ok = ok and all(a != b for a, b in zip(was, ticks))
    elif line == "fork":
        pid = os.fork()
        if pid == 0:
            os._exit(0 if digest() == want else 1)
        ok = ok and digest() == want
        ok = ok and os.waitpid(pid, 0)[1] == 0
    elif line == "garbage":
        for i in range(20):
            rubbish = [bytearray(rng.randrange(100000)) for _ in range(100)]
            del rubbish
    elif line == "quit":
        print("ok bye", flush=True)
        os._exit(0)
    print("ok" if ok else f"bad {bad[:3]}", flush=True)
'''


@pytest.fixture
def python(victims):
    return victims("python3", argv=["/usr/bin/python3", "-c", PROGRAM])


def test_control(python):
    for command in ("verify", "collect", "fork", "garbage", "ticks", "verify"):
        python.cmd(command)


@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_objects_and_threads(firn, python, verb):
    for command in ("verify", "collect", "fork", "garbage"):
        getattr(firn, verb)(python.pid)
        if verb == "evict":
            python.cmd(command)
        firn.thaw(python.pid)
        assert_no_trace(firn, python.pid)
        python.cmd("ticks")
        python.cmd("verify")


def test_agent_killed(firn, python):
    firn.evict(python.pid)
    firn.kill_agent()
    python.send("verify")
    python.silent(0.2)
    firn.start()
    python.reply()
    firn.kill_agent()
    python.send("fork")
    python.silent(0.2)
    firn.thaw_all()
    python.reply()
    python.cmd("ticks")
    wait_until(lambda: firn.packs() == [], 10, "the packs go")
