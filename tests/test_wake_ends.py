# SPDX-License-Identifier: MIT
"""Wake on use, and what else happens meanwhile: deaths of target and agent, several targets, odd requests."""
import os
import signal
import socket
import struct
import time

import pytest

from harness import USAGE, settle, state_of, wait_until
from wake_harness import (Client, LISTEN, SERVERS, freeze, nothing_left, python, server, sockets_of, stays_frozen,
                          watched, watcher_descriptors, woken)


WAKE_POINTS = ["wake.watched", "wake.woken"]


# --- Death.


@pytest.mark.parametrize("linger", [False, True])
def test_killed_while_frozen(firn, python, linger):
    """Its connections end at once and its port is free again: no copy outlives it.  With linger it has said more than its
    peer has taken, and would wait for that if it closed: it was killed."""
    if linger:
        v = python(LISTEN + "c = s.accept()[0]\nc.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 60))\n"
                   "c.sendall(c.recv(100))\nc.setblocking(False)\n"
                   "try:\n    while True:\n        c.send(b'x' * 65536)\nexcept BlockingIOError:\n    pass\n"
                   "say('ok')\nselect.select([s, c], [], [])\n")
        v.address = ("127.0.0.1", int(v.ready_line.split()[1]))
    else:
        v = server(python, "epoll")
    c = Client(v.address)
    c.ask("before")
    if linger:
        v.reply()
    freeze(firn, v.pid)
    watched(firn, v.pid)
    assert any("socket" in x or "eventpoll" in x for t in watcher_descriptors(firn.agent.pid).values() for x in t)
    v.kill()
    c.sock.settimeout(5)
    try:
        while c.sock.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass

    def refused():
        try:
            Client(v.address).close()
        except ConnectionRefusedError:
            return True
    wait_until(refused, 5, "nobody listens")
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(v.address)
        s.listen()
    wait_until(lambda: firn.list() == [], 5, "it is forgotten")
    nothing_left(firn)


def test_agent_killed(firn, python):
    """The next agent watches on; in between, nobody holds a copy."""
    v, w = server(python, "epoll"), server(python, "sleeps")
    clients = [Client(x.address) for x in (v, w)]
    for x, c in zip((v, w), clients):
        c.ask("before")
        freeze(firn, x.pid)
        watched(firn, x.pid)
    keeper = firn.keeper.pid
    firn.kill_agent()
    assert not [x for x in sockets_of(keeper) if x in sockets_of(v.pid) + sockets_of(w.pid) and "socket" in x]
    w.kill()
    w.process.wait_dead()
    clients[1].sock.settimeout(5)
    try:
        assert clients[1].sock.recv(10) == b""
    except ConnectionResetError:
        pass
    firn.start()
    watched(firn, v.pid)
    stays_frozen(firn, v.pid, 1)
    clients[0].ask("after")
    assert woken(firn, v.pid)["by"] == "data"
    nothing_left(firn)


def test_data_while_there_was_no_agent(firn, python):
    v = server(python, "epoll")
    c = Client(v.address)
    c.ask("before")
    freeze(firn, v.pid)
    watched(firn, v.pid)
    firn.kill_agent()
    c.send("meanwhile")
    time.sleep(0.2)
    assert state_of(v.pid) == "T"
    firn.start()
    assert c.line() == "meanwhile"
    assert woken(firn, v.pid)["by"] == "data"


def test_no_other_steps(firn):
    """The next test kills the agent at each of them."""
    assert [p for p in firn.points() if p.startswith("wake.")] == WAKE_POINTS


@pytest.mark.parametrize("point", WAKE_POINTS)
def test_agent_killed_when_it_wakes(firn, python, point):
    firn.start(FIRN_KILL_AT=point)
    v = server(python, "epoll")
    c = Client(v.address)
    c.ask("before")
    firn.run("freeze", "--wake", v.pid)
    if point == "wake.woken":
        c.send("meanwhile")
    firn.agent_died()
    if point == "wake.watched":
        c.send("meanwhile")
    firn.start()
    assert c.line() == "meanwhile"
    assert woken(firn, v.pid)["by"] == "data"


# --- Several.


def test_two_that_share_a_socket(firn, python):
    """Both wait for the same connection: both come back, one answers."""
    v = python(LISTEN + "pid = os.fork()\nif pid:\n    say('ok %d' % pid)\nelse:\n"
               "    libc.prctl(1, 9, 0, 0, 0)\n" + SERVERS["threads"])
    port, child = int(v.ready_line.split()[1]), int(v.reply())
    settle(v.pid)
    for pid in (v.pid, child):
        freeze(firn, pid)
        watched(firn, pid)
    Client(("127.0.0.1", port)).ask("who")
    assert woken(firn, v.pid, alone=False)["by"] == "connection"
    assert woken(firn, child)["by"] == "connection"
    for i in range(5):
        Client(("127.0.0.1", port)).ask(f"again {i}")


def test_tree_wakes_as_one(firn, python):
    """What wakes one of them wakes all."""
    v = python(LISTEN + "pid = os.fork()\nif pid:\n    say('ok %d' % pid)\n    os.wait()\nlibc.prctl(1, 9, 0, 0, 0)\n" +
               SERVERS["select"])
    port, child = int(v.ready_line.split()[1]), int(v.reply())
    settle(child)
    targets = firn.ok("freeze", "--wake", "--tree", v.pid, "--json").targets
    assert {t["pid"] for t in targets} == {v.pid, child}
    for pid in (v.pid, child):
        watched(firn, pid)
    Client(("127.0.0.1", port)).ask("there")
    assert woken(firn, child, alone=False)["by"] == "connection"
    w = woken(firn, v.pid)
    assert (w["by"], w["number"]) == ("group", child)


def test_tree_after_the_agent_was_killed(firn, python):
    """The next agent knows who belongs together."""
    v = python(LISTEN + "pid = os.fork()\nif pid:\n    say('ok %d' % pid)\n    os.wait()\nlibc.prctl(1, 9, 0, 0, 0)\n" +
               SERVERS["select"])
    port, child = int(v.ready_line.split()[1]), int(v.reply())
    settle(child)
    firn.ok("freeze", "--wake", "--tree", v.pid, "--json")
    firn.kill_agent()
    firn.start()
    for pid in (v.pid, child):
        watched(firn, pid)
        stays_frozen(firn, pid, 0.3)
    Client(("127.0.0.1", port)).ask("there")
    assert woken(firn, child, alone=False)["by"] == "connection"
    assert woken(firn, v.pid)["by"] == "group"


def test_show(firn, python):
    """One epoll descriptor stands for all that its owner waits for."""
    v = server(python, "epoll")
    freeze(firn, v.pid)
    t = watched(firn, v.pid)
    assert t["wake"]["descriptors"] == 1 and t["wake"]["leftOut"] == 0 and t["wake"]["hidden"] == 0
    text = firn.ok("show", v.pid).out
    assert "wake      on use; watched, 1 descriptor\n" in text
    firn.thaw(v.pid)


def test_pids_wake_alone(firn, python):
    """Several PIDs of one request are no group."""
    v, w = server(python, "epoll"), server(python, "epoll")
    freeze(firn, v.pid, w.pid)
    for x in (v, w):
        watched(firn, x.pid)
    Client(v.address).ask("there")
    woken(firn, v.pid, alone=False)
    stays_frozen(firn, w.pid, 1)
    firn.thaw(w.pid)


# --- The rest.


def test_without_wake_it_stays(firn, python):
    v = server(python, "epoll")
    t = firn.freeze(v.pid)
    assert "wake" not in t
    c = Client(v.address)
    c.send("there")
    stays_frozen(firn, v.pid)
    firn.thaw(v.pid)
    assert c.line() == "there"


def test_thawed_by_hand(firn, python):
    """The watch ends with the thaw, before it runs."""
    v = server(python, "epoll")
    c = Client(v.address)
    c.ask("before")
    freeze(firn, v.pid)
    watched(firn, v.pid)
    firn.thaw(v.pid)
    nothing_left(firn)
    c.ask("after")
    assert firn.run("show", v.pid).code != 0     # nothing woke it


def test_usage(firn, python):
    v = server(python, "epoll")
    result = firn.run("evict", "--wake", v.pid)
    assert result.code == USAGE and "--wake" in result.one_line_error()
    result = firn.run("thaw", "--wake", v.pid)
    assert result.code == USAGE
    assert firn.run("freeze", "--wake", "--wake", v.pid).code == USAGE
    assert state_of(v.pid) == "S"


def test_stopped_before(firn, python):
    """One that somebody had stopped would not run if it were woken: it stays."""
    v = server(python, "epoll")
    os.kill(v.pid, signal.SIGSTOP)
    wait_until(lambda: state_of(v.pid) == "T", 5, "it is stopped")
    firn.ok("freeze", "--wake", v.pid)
    c = Client(v.address)
    c.send("there")
    stays_frozen(firn, v.pid)
    firn.thaw(v.pid)
    assert state_of(v.pid) == "T"
    os.kill(v.pid, signal.SIGCONT)
    assert c.line() == "there"


def test_more_descriptors_than_may_be_copied(firn, python):
    """It says so, and watches the rest."""
    v = python("a = [socket.socketpair() for _ in range(100)]\nsay('ready')\nwhile True:\n    time.sleep(0.05)\n"
               "    for x, y in a:\n        try:\n            say('ok ' + x.recv(10, 0x40).decode())\n"
               "        except BlockingIOError:\n            pass\n")
    firn.start(prefix=["prlimit", "--nofile=60:60"])
    freeze(firn, v.pid)
    t = watched(firn, v.pid)
    assert t["wake"]["leftOut"] > 100 and t["wake"]["descriptors"] > 10, t["wake"]
    assert "cannot be watched (Too many open files)" in firn.log()
    os.kill(v.pid, signal.SIGCONT)
    assert woken(firn, v.pid)["by"] == "continued"
