# SPDX-License-Identifier: MIT
"""What the tests of waking on use share: servers and clients, and looks at what watches a frozen process.

Everything that wakes is done from outside, while the process is stopped; what it then answers shows that nothing was
lost, read or answered in its place.
"""
import os
import random
import signal
import socket
import subprocess
import tempfile
import time

import pytest

from harness import USAGE, assert_no_trace, read, settle, state_of, wait_until

HEAP = "heap = bytearray(os.urandom(1 << 20) * 8)\n"
HEAD = "import ctypes, os, select, selectors, signal, socket, struct, sys, threading, time\nlibc = ctypes.CDLL(None)\n" + HEAP
# A line to a descriptor by itself: the test reads them through the pipe.
SAY = "def say(text):\n    os.write(1, text.encode() + b'\\n')\n"

# Servers that answer each line with the same line, each waiting in another call.
SERVERS = {
    "accept": """
while True:
    c, _ = s.accept()
    while (d := c.recv(4096)):
        c.sendall(d)
    c.close()
""",
    "select": """
conns = []
while True:
    for f in select.select([s] + conns, [], [])[0]:
        if f is s:
            conns.append(s.accept()[0])
        elif (d := f.recv(4096)):
            f.sendall(d)
        else:
            conns.remove(f)
            f.close()
""",
    "poll": """
p, conns = select.poll(), {}
p.register(s, select.POLLIN)
while True:
    for fd, ev in p.poll():
        if fd == s.fileno():
            c = s.accept()[0]
            conns[c.fileno()] = c
            p.register(c, select.POLLIN)
        elif (d := conns[fd].recv(4096)):
            conns[fd].sendall(d)
        else:
            p.unregister(fd)
            conns.pop(fd).close()
""",
    "epoll": """
p, conns = select.epoll(), {}
p.register(s, select.EPOLLIN)
while True:
    for fd, ev in p.poll():
        if fd == s.fileno():
            c = s.accept()[0]
            conns[c.fileno()] = c
            p.register(c, select.EPOLLIN)
        elif (d := conns[fd].recv(4096)):
            conns[fd].sendall(d)
        else:
            p.unregister(fd)
            conns.pop(fd).close()
""",
    # Edge-triggered, always ready to be written to, as many event loops do it; and ticking.
    "edge": """
p, conns = select.epoll(), {}
s.setblocking(False)
p.register(s, select.EPOLLIN | select.EPOLLET)
while True:
    for fd, ev in p.poll(0.1):
        try:
            while fd == s.fileno():
                c = s.accept()[0]
                c.setblocking(False)
                conns[c.fileno()] = c
                p.register(c, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
            while (d := conns[fd].recv(4096)):
                conns[fd].sendall(d)
            p.unregister(fd)
            conns.pop(fd).close()
        except BlockingIOError:
            pass
""",
    # Waits for nothing but the time.
    "sleeps": """
conns = []
s.setblocking(False)
while True:
    time.sleep(0.05)
    try:
        c = s.accept()[0]
        c.setblocking(False)
        conns.append(c)
    except BlockingIOError:
        pass
    for c in list(conns):
        try:
            d = c.recv(4096)
            if d:
                c.sendall(d)
            else:
                conns.remove(c)
                c.close()
        except BlockingIOError:
            pass
""",
    # A thread for each connection.
    "threads": """
def serve(c):
    while (d := c.recv(4096)):
        c.sendall(d)
    c.close()
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
""",
    # The epoll descriptor has a member that cannot be polled from outside, and one that ticks.
    "members": """
p, conns = select.epoll(), {}
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
mask = (ctypes.c_uint64 * 1)(1 << signal.SIGUSR1 - 1)
sigfd = libc.signalfd(-1, mask, 0o4000)
tick = libc.timerfd_create(1, 0o4000)
libc.timerfd_settime(tick, 0, struct.pack("qqqq", 0, 50000000, 0, 50000000), None)
p.register(sigfd, select.EPOLLIN)
p.register(tick, select.EPOLLIN)
p.register(s, select.EPOLLIN)
while True:
    for fd, ev in p.poll():
        if fd == s.fileno():
            c = s.accept()[0]
            conns[c.fileno()] = c
            p.register(c, select.EPOLLIN)
        elif fd == tick:
            os.read(tick, 8)
        elif fd == sigfd:
            say("signal %d" % struct.unpack("I", os.read(sigfd, 128)[:4]))
        elif (d := conns[fd].recv(4096)):
            conns[fd].sendall(d)
        else:
            p.unregister(fd)
            conns.pop(fd).close()
""",
}


@pytest.fixture
def python(victims):
    """start(code, ...) -> a python program that says "ready" when its code does."""
    def start(code, *args, **kwargs):
        return victims("python", argv=["python3", "-c", HEAD + SAY + code, *map(str, args)], **kwargs)
    return start


class Client:
    def __init__(self, address, family=socket.AF_INET, timeout=30):
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.sock.connect(address)
        self.buffer = b""

    def send(self, line):
        self.sock.sendall(line.encode() + b"\n")

    def line(self):
        while b"\n" not in self.buffer:
            data = self.sock.recv(65536)
            assert data, "the connection was closed"
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()

    def ask(self, line):
        self.send(line)
        assert self.line() == line

    def close(self):
        self.sock.close()


LISTEN = "s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(('127.0.0.1', 0)); s.listen(64)\nsay('ready %d' % s.getsockname()[1])\n"


def tick(firn, seconds):
    """What is shorter is a tick."""
    with open(os.path.join(firn.state, "firn.conf"), "w") as f:
        f.write(f"[agent]\nwake-tick = {seconds}s\n")
    firn.start(FIRN_CONFIG_DIR=firn.state)


def server(python, kind):
    v = python(LISTEN + SERVERS[kind])
    v.port = int(v.ready_line.split()[1])
    v.address = ("127.0.0.1", v.port)
    return v


def freeze(firn, *pids, **kwargs):
    targets = firn.ok("freeze", "--wake", *pids, "--json", **kwargs).targets
    assert all(t["state"] == "frozen" for t in targets), targets
    return targets


def watched(firn, pid):
    """Frozen, and watched."""
    def is_watched():
        t = firn.show(pid)
        return t["state"] == "frozen" and t["wake"]["watching"] and t
    return wait_until(is_watched, 10, f"{pid} is watched: {firn.log()}")


def stays_frozen(firn, pid, seconds=1.5):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert state_of(pid) == "T", f"it woke: {firn.log()}"
        time.sleep(0.02)
    assert [t["state"] for t in firn.list() if t["pid"] == pid] == ["frozen"]


def woken(firn, pid, seconds=20, alone=True):
    """It is whole again; what woke it.  @alone: nothing else is frozen."""
    def is_back():
        return pid not in [t["pid"] for t in firn.list()]
    wait_until(is_back, seconds, f"{pid} is thawed: {firn.log()}")
    t = firn.show(pid)
    assert t["state"] == "resident", t
    if alone:
        assert_no_trace(firn, pid)
    else:
        assert state_of(pid) not in "Tt"
    return t["woken"]


def watcher_descriptors(pid):
    """Of each thread of the agent that has a table of its own: what is in it."""
    tables = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            if read(f"/proc/{pid}/task/{tid}/comm") == "firnd-watch\n":
                tables[tid] = [os.readlink(f"/proc/{pid}/task/{tid}/fd/{n}")
                               for n in os.listdir(f"/proc/{pid}/task/{tid}/fd")]
        except OSError:
            pass
    return tables


def sockets_of(pid):
    return sorted(os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd"))


def nothing_left(firn):
    """No watch, and in the tables of agent and keeper nothing that was not there before the first."""
    wait_until(lambda: not watcher_descriptors(firn.agent.pid), 5, "watches end")
    for pid in (firn.agent.pid, firn.keeper.pid):
        held = [x for x in sockets_of(pid) if "eventpoll" in x or "pidfd" in x]
        assert len(held) <= 2, held      # the loop's and the pager's
