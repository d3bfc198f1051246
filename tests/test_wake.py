# SPDX-License-Identifier: MIT
"""Wake on use: a frozen process comes back by itself when there is something for it to do, and only then."""
import os
import random
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time

import pytest

from harness import read, settle, state_of, wait_until
from wake_harness import (Client, HEAD, SAY, SERVERS, freeze, nothing_left, python, server, stays_frozen, tick, watched,
                          woken)


# --- What wakes, and what it then answers.


@pytest.mark.parametrize("kind", SERVERS)
def test_connection(firn, python, kind):
    """A new connection, and a line on one that was there, wake each kind of server; it is frozen in between."""
    v = server(python, kind)
    old = Client(v.address)
    old.ask("before")
    freeze(firn, v.pid)
    watched(firn, v.pid)
    stays_frozen(firn, v.pid)
    new = Client(v.address)
    if kind == "accept":
        old.close()                     # it serves one at a time
        new.ask("new")
        old = new
    else:
        new.ask("new")
    w = woken(firn, v.pid)
    assert w["by"] == ("end" if kind == "accept" else "connection"), w
    if kind not in ("accept", "threads"):
        assert w["local"] == "127.0.0.1:%d" % v.port
    freeze(firn, v.pid)
    watched(firn, v.pid)
    old.ask("again")
    w = woken(firn, v.pid)
    assert w["by"] == "data" and w["local"] == "127.0.0.1:%d" % v.port, w
    assert w["peer"] == "%s:%d" % old.sock.getsockname(), w
    assert w["fd"] in [int(n) for n in os.listdir(f"/proc/{v.pid}/fd")]
    assert abs(w["at"] / 1000 - time.time()) < 60
    nothing_left(firn)


@pytest.mark.parametrize("kind", ["select", "edge", "sleeps", "members"])
@pytest.mark.limit(240)
def test_no_byte_is_lost(firn, python, kind):
    """Numbered lines, sent before, while and after it is frozen, at random instants, come back in their order."""
    v = server(python, kind)
    seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
    print("seed", seed)
    rng = random.Random(seed)
    clients = [Client(v.address, timeout=60) for _ in range(3)]
    sent = [0, 0, 0]
    got = [0, 0, 0]

    def send():
        k = rng.randrange(3)
        for _ in range(rng.randrange(1, 20)):
            clients[k].send(f"{k} {sent[k]} " + "x" * rng.randrange(200))
            sent[k] += 1

    def collect():
        for k in range(3):
            while got[k] < sent[k]:
                line = clients[k].line().split()
                assert line[:2] == [str(k), str(got[k])], (line, got)
                got[k] += 1

    for round in range(12):
        command = firn.background("freeze", "--wake", v.pid)
        for _ in range(rng.randrange(4)):
            time.sleep(rng.random() * 0.03)
            send()
        out, err = command.communicate(timeout=60)
        assert command.returncode == 0, (out, err)
        time.sleep(rng.random() * 0.05)
        send()
        collect()                       # whatever woke it
        woken(firn, v.pid)
    assert min(sent) > 0
    nothing_left(firn)


def test_redis(firn, victims):
    """A real server that ticks ten times a second: asleep until it is asked, all its data there."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    v = victims("redis", argv=["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly",
                               "no"], wait=False)

    def connect():
        try:
            return Client(("127.0.0.1", port))
        except OSError:
            return None
    c = wait_until(connect, 20, "redis listens")
    values = {f"key:{i}": os.urandom(300).hex() for i in range(3000)}
    for key, value in values.items():
        c.send(f"SET {key} {value}\r")
    for _ in values:
        assert c.line() == "+OK\r"
    for old in (True, False):
        freeze(firn, v.pid)
        watched(firn, v.pid)
        stays_frozen(firn, v.pid)
        user = c if old else Client(("127.0.0.1", port))
        for key, value in values.items():
            user.send(f"GET {key}\r")
        for key, value in values.items():
            assert user.line() == "$600\r" and user.line() == value + "\r"
        assert woken(firn, v.pid)["by"] == ("data" if old else "connection")
    shown = firn.ok("show", v.pid).out
    assert "woken     by connection at descriptor" in shown and f"127.0.0.1:{port}" in shown
    assert "woken by a connection at descriptor" in firn.log()


def test_http_server(firn, victims):
    """Another real one."""
    v = victims("http", argv=["python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "0", "-d", "/proc/self"],
                ready="Serving")
    port = int(v.ready_line.split("port ")[1].split()[0])
    freeze(firn, v.pid)
    watched(firn, v.pid)
    stays_frozen(firn, v.pid)
    c = Client(("127.0.0.1", port))
    c.send("GET /comm HTTP/1.0\r\n\r")
    assert "200 OK" in c.line()
    assert woken(firn, v.pid)["by"] == "connection"


def test_forking_server(firn, python):
    """inetd's way: each connection is a child's, which the parent waits for."""
    v = python("import socketserver\nclass H(socketserver.StreamRequestHandler):\n"
               "    def handle(self):\n        for line in self.rfile:\n            self.wfile.write(line)\n"
               "s = socketserver.ForkingTCPServer(('127.0.0.1', 0), H)\n"
               "say('ready %d' % s.server_address[1])\ns.serve_forever()\n")
    address = ("127.0.0.1", int(v.ready_line.split()[1]))
    for i in range(3):
        freeze(firn, v.pid)
        watched(firn, v.pid)
        c = Client(address)
        c.ask(f"line {i}")
        c.close()
        # Its child's end wakes nobody who has not been frozen.
        assert woken(firn, v.pid)["by"] in ("connection", "child")
        time.sleep(0.7)


def test_unix_socket(firn, python):
    with tempfile.TemporaryDirectory() as d:
        v = python(f"s = socket.socket(socket.AF_UNIX); s.bind({d + '/sock'!r}); s.listen()\nsay('ready')\n" +
                   SERVERS["select"])
        for by in ("connection", "data"):
            freeze(firn, v.pid)
            watched(firn, v.pid)
            if by == "connection":
                c = Client(d + "/sock", socket.AF_UNIX)
            c.ask(by)
            w = woken(firn, v.pid)
            assert w["by"] == by and w["local"] == d + "/sock"


@pytest.mark.parametrize("family", ["udp", "unix"])
def test_datagrams(firn, python, family):
    """Each comes once, in order."""
    with tempfile.TemporaryDirectory() as d:
        path = d + "/sock"
        make = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))" if family == "udp" else \
            f"socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind({path!r})"
        v = python(f"s = {make}\nsay('ready %s' % (s.getsockname()[1] if isinstance(s.getsockname(), tuple) else 0))\n"
                   "while True:\n    say('ok ' + s.recv(100).decode())\n")
        address = ("127.0.0.1", int(v.ready_line.split()[1])) if family == "udp" else path
        c = socket.socket(socket.AF_INET if family == "udp" else socket.AF_UNIX, socket.SOCK_DGRAM)
        n = 0
        for round in range(3):
            freeze(firn, v.pid)
            watched(firn, v.pid)
            for i in range(4):
                c.sendto(str(n + i).encode(), address)
            for i in range(4):
                assert v.reply() == str(n)
                n += 1
            assert woken(firn, v.pid)["by"] == "datagram"
        c.close()


@pytest.mark.parametrize("what", ["pipe", "fifo"])
def test_cat(firn, victims, what):
    """cat(1), which waits in read: what is written to it comes out, and at the end it ends."""
    with tempfile.TemporaryDirectory() as d:
        os.mkfifo(d + "/fifo")
        if what == "fifo":
            v = victims("cat", argv=["sh", "-c", f"echo ready; exec cat {d}/fifo"])
            to = os.open(d + "/fifo", os.O_WRONLY)
        else:
            v = victims("cat", argv=["sh", "-c", "echo ready; exec cat"])
            to = os.dup(v.proc.stdin.fileno())
        wait_until(lambda: read(f"/proc/{v.pid}/comm") == "cat\n", 10, "cat runs")
        settle(v.pid)
        for i in range(3):
            freeze(firn, v.pid)
            watched(firn, v.pid)
            stays_frozen(firn, v.pid, 0.5)
            os.write(to, b"ok %d\n" % i)
            assert v.reply() == str(i)
            w = woken(firn, v.pid)
            assert w["by"] == "data" and w["fd"] == (3 if what == "fifo" else 0), w
        settle(v.pid)
        freeze(firn, v.pid)
        watched(firn, v.pid)
        os.close(to)
        v.proc.stdin.close()
        assert v.proc.wait(20) == 0


def test_room_to_write(firn, python):
    """One that waits to get rid of its output goes on when somebody takes it."""
    v = python("say('ready')\nfor i in range(200):\n    os.write(1, b'%04d' % i * 1024)\nsay('done')\nsignal.pause()\n")
    time.sleep(0.3)
    settle(v.pid)
    freeze(firn, v.pid)
    watched(firn, v.pid)
    stays_frozen(firn, v.pid, 0.7)
    data = v.buffer
    while b"done\n" not in data:
        data += os.read(v.proc.stdout.fileno(), 65536)
    assert data == b"".join(b"%04d" % i * 1024 for i in range(200)) + b"done\n"
    assert woken(firn, v.pid)["by"] == "room"


def test_eventfd(firn):
    """Written by another process that shares it."""
    fd = os.eventfd(0)
    code = HEAD + SAY + f"os.set_blocking({fd}, True)\nsay('ready')\nwhile True:\n    say('ok %d' % os.eventfd_read({fd}))\n"
    os.set_inheritable(fd, True)
    proc = subprocess.Popen(["python3", "-c", code], stdout=subprocess.PIPE, pass_fds=[fd])
    try:
        assert proc.stdout.readline() == b"ready\n"
        for i in range(1, 4):
            settle(proc.pid)
            freeze(firn, proc.pid)
            watched(firn, proc.pid)
            stays_frozen(firn, proc.pid, 0.5)
            os.eventfd_write(fd, i)
            assert proc.stdout.readline() == b"ok %d\n" % i
            assert woken(firn, proc.pid)["by"] == "event"
    finally:
        proc.kill()
        proc.wait()
        proc.stdout.close()
        os.close(fd)


# --- Time.


TIMERFD = ("t = libc.timerfd_create(1, 0)\nlibc.timerfd_settime(t, 0, struct.pack('qqqq', {every}, 0, {left}, 0), None)\n"
           "say('ready')\nwhile True:\n    os.read(t, 8)\n    say('ok tick')\n")


def test_timerfd(firn, python):
    """One shot that is far away wakes when it is due, though nobody set it anew."""
    tick(firn, 2)
    far, near = python(TIMERFD.format(every=0, left=4)), python(TIMERFD.format(every=0, left=1))
    periodic = python(TIMERFD.format(every=1, left=1))
    for v in (far, near, periodic):
        freeze(firn, v.pid)
    stays_frozen(firn, near.pid, 1.5)
    assert far.reply(20) == "tick"
    assert woken(firn, far.pid, alone=False)["by"] == "timer"
    for v in (near, periodic):
        stays_frozen(firn, v.pid, 0.3)
        firn.thaw(v.pid)
        while v.reply() != "tick":
            pass


@pytest.mark.parametrize("call", ["sleep", "select", "poll", "alarm"])
def test_timeout(firn, python, call):
    """Those of system calls, and alarms: a far one wakes; a near one is a tick."""
    tick(firn, 2)
    calls = {"sleep": "time.sleep({n})", "select": "select.select([], [], [], {n})",
             "poll": "p = select.poll(); p.poll({n} * 1000)",
             "alarm": "signal.signal(signal.SIGALRM, lambda *a: say('ok alarm')); signal.alarm({n}); signal.pause()"}
    code = "say('ready')\nwhile True:\n    " + calls[call] + "\n"
    far, near = python(code.format(n=8)), python(code.format(n=1))
    for v in (far, near):
        settle(v.pid)
        freeze(firn, v.pid)
        t = watched(firn, v.pid)
        assert ("due" in t["wake"]) == (v is far and call != "alarm"), t["wake"]
        if "due" in t["wake"]:
            assert t["wake"]["due"] < time.time() * 1000 + 8100
    w = woken(firn, far.pid, alone=False)
    assert w["by"] == ("signal" if call == "alarm" else "timeout"), w
    assert w["number"] == (signal.SIGALRM if call == "alarm" else far.pid)
    stays_frozen(firn, near.pid, 1)


# --- Signals and children.


def test_signal(firn, python):
    v = python("signal.signal(signal.SIGUSR1, lambda *a: say('ok usr1'))\nsay('ready')\nwhile True:\n    signal.pause()\n")
    for _ in range(2):
        settle(v.pid)
        freeze(firn, v.pid)
        watched(firn, v.pid)
        stays_frozen(firn, v.pid, 0.5)
        os.kill(v.pid, signal.SIGUSR1)
        assert v.reply() == "usr1"
        w = woken(firn, v.pid)
        assert (w["by"], w["number"]) == ("signal", signal.SIGUSR1)


def test_signal_that_ends_it(firn, python):
    v = python("say('ready')\nsignal.pause()\n")
    freeze(firn, v.pid)
    watched(firn, v.pid)
    os.kill(v.pid, signal.SIGTERM)
    assert v.proc.wait(20) == -signal.SIGTERM


def test_blocked_signal_wakes_nobody(firn, python):
    v = python("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\nsay('ready')\n"
               "os.read(0, 1)\nsay('ok %s' % sorted(signal.sigpending()))\n")
    settle(v.pid)
    freeze(firn, v.pid)
    watched(firn, v.pid)
    os.kill(v.pid, signal.SIGUSR1)
    stays_frozen(firn, v.pid)
    v.send("x")
    assert v.reply() == f"[{signal.SIGUSR1!r}]"
    assert woken(firn, v.pid)["by"] == "data"


@pytest.mark.parametrize("how", ["signalfd", "sigwait", "ppoll"])
def test_blocked_signal_that_it_waits_for(firn, python, how):
    """Blocked, and yet what it waits for: it is delivered once."""
    code = {"sigwait": "while True:\n    say('ok signal %d' % signal.sigwait([signal.SIGUSR1]))\n",
            "signalfd": "p = select.epoll()\nfd = libc.signalfd(-1, (ctypes.c_uint64 * 1)(1 << signal.SIGUSR1 - 1), 0)\n"
                        "p.register(fd, select.EPOLLIN)\nwhile True:\n    p.poll()\n"
                        "    say('ok signal %d' % struct.unpack('I', os.read(fd, 128)[:4]))\n",
            "ppoll": "signal.signal(signal.SIGUSR1, lambda n, f: say('ok signal %d' % n))\nempty = (ctypes.c_uint64 * 16)()\n"
                     "while True:\n    libc.ppoll(None, 0, None, empty)\n    time.sleep(0)\n"}[how]
    v = python("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\nsay('ready')\n" + code)
    for _ in range(3):
        settle(v.pid)
        freeze(firn, v.pid)
        watched(firn, v.pid)
        stays_frozen(firn, v.pid, 0.5)
        os.kill(v.pid, signal.SIGUSR1)
        assert v.reply() == f"signal {int(signal.SIGUSR1)}"
        assert woken(firn, v.pid)["by"] == "signal"
        assert v.silent(0.1)


def test_somebody_continues_it(firn, python):
    """It runs, and so it is brought back whole, and nothing of it is held any longer."""
    v = server(python, "select")
    freeze(firn, v.pid)
    watched(firn, v.pid)
    os.kill(v.pid, signal.SIGCONT)
    assert woken(firn, v.pid)["by"] == "continued"
    Client(v.address).ask("there")
    nothing_left(firn)


def test_child_ends(firn, victims):
    """A shell that waits for its child, which is not frozen."""
    v = victims("sh", argv=["sh", "-c", "echo ready; sleep 2; echo ok slept; read x"])
    settle(v.pid)
    freeze(firn, v.pid)
    watched(firn, v.pid)
    assert v.reply(20) == "slept"
    assert woken(firn, v.pid)["by"] == "child"


# --- What was there before.


def test_unread_data_is_left_alone(firn, python):
    """It waits for its input alone; what lies in a socket that it does not look at wakes nobody, now or later."""
    v = python("a, b = socket.socketpair(socket.AF_UNIX)\nb.sendall(b'unread')\nsay('ready')\n"
               "while True:\n    os.read(0, 2)\n    say('ok ' + a.recv(100, socket.MSG_PEEK).decode())\n")
    settle(v.pid)
    freeze(firn, v.pid)
    watched(firn, v.pid)
    stays_frozen(firn, v.pid, 2)
    v.send("x")
    assert v.reply() == "unread"
    assert woken(firn, v.pid)["by"] == "data"


def test_unread_data_wakes_a_ticker_once(firn, python):
    """Who looks by itself every so often may have missed it by a moment; who has looked and left it will not be woken for
    it again, but for more of it."""
    v = python("s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\nsay('ready %d' % s.getsockname()[1])\n"
               "c = s.accept()[0]\nwhile True:\n    time.sleep(0.05)\n"
               "    if len(c.recv(100, socket.MSG_PEEK)) > 6:\n        say('ok ' + c.recv(100).decode())\n")
    c = Client(("127.0.0.1", int(v.ready_line.split()[1])))
    c.sock.sendall(b"unread")
    time.sleep(0.3)
    freeze(firn, v.pid)
    assert woken(firn, v.pid)["by"] == "data"
    freeze(firn, v.pid)
    watched(firn, v.pid)
    stays_frozen(firn, v.pid, 2)
    c.sock.sendall(b" and more")
    assert v.reply() == "unread and more"
    assert woken(firn, v.pid)["by"] == "data"


@pytest.mark.parametrize("kind", ["select", "edge", "sleeps"])
def test_data_that_came_during_the_freeze(firn, python, kind):
    """Between its last look and the stop, and between the stop and the watch: it is woken at once."""
    firn.start(FIRN_SLEEP_AT="freeze.stopped:600")
    v = server(python, kind)
    c = Client(v.address)
    c.ask("before")
    command = firn.background("freeze", "--wake", v.pid)
    wait_until(lambda: state_of(v.pid) == "t", 20, "it is stopped")
    c.send("meanwhile")
    assert command.wait(30) == 0
    command.communicate()
    assert c.line() == "meanwhile"
    assert woken(firn, v.pid)["by"] == "data"
