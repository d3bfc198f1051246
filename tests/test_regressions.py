# SPDX-License-Identifier: MIT
"""Faults that were once there, each in its smallest form."""
import ctypes
import os
import subprocess
import threading
import time

import pytest

import harness
from harness import REFUSED, assert_no_trace, assert_same, settle, snapshot, wait_until
from test_socket import Client

SERVICE = "org.varlink.service.GetInterfaceDescription"


def odd(victims, *args, settled=True):
    v = victims("odd", *args)
    if settled:
        settle(v.pid)
    return v


# Targets that are looked at once a second

def test_lowest_page(firn, victims):
    """The look for targets that have ended takes no page out of our hands."""
    v = odd(victims, "--low")
    firn.evict(v.pid)
    time.sleep(3)
    v.cmd("verify")
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_sibling_ends(firn, victims):
    """A child without descriptors is taken for its sibling; the sibling's end is not its own."""
    v = odd(victims)
    firn.evict(v.pid)
    v.cmd("siblings")
    firn.list()
    v.cmd("end 1")
    time.sleep(3)
    firn.list()
    v.cmd("check 0")
    firn.thaw_all()
    v.cmd("verify")


def test_sibling_ends_between_agents(firn, victims):
    """The same, and it is the next agent that looks."""
    v = odd(victims)
    firn.evict(v.pid)
    v.cmd("siblings")
    firn.list()
    firn.kill_agent()
    v.cmd("end 1")
    firn.start()
    time.sleep(1.5)
    v.cmd("check 0")
    firn.thaw_all()
    v.cmd("verify")


# The agent's own drops, and its death among them

@pytest.mark.parametrize("nth", range(1, 17))
def test_killed_at_own_removal(firn, victims, nth):
    """What the agent read of its own drop is not taken for the target's by the next agent."""
    v = odd(victims)
    snap = snapshot(v.pid)
    firn.start(FIRN_KILL_AT=f"pager.read.remove:{nth}")
    result = firn.run("evict", v.pid)
    if firn.agent:
        assert result.code == 0, result
        assert nth > 8, f"the drop of five mappings has fewer than {nth} parts"
    firn.thaw_all()
    assert_same(snap, v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


# Forks

def test_dontfork_while_evicted(firn, victims):
    """What a child does not get is no part of what is followed for it; the rest is."""
    v = odd(victims)
    firn.evict(v.pid)
    v.cmd("dontfork", timeout=20)
    v.cmd("verify")
    firn.thaw_all()
    v.cmd("verify")


def test_quick_forks_while_listed(firn, victims):
    v = odd(victims)
    firn.evict(v.pid)
    v.send("forks 40")
    lists = 0
    while v.silent(0):
        result = firn.run("list", "--json", timeout=10)
        assert result.code == 0, result
        lists += 1
        assert lists < 1000
    v.reply(30)
    assert lists >= 3
    v.cmd("verify")
    firn.thaw_all(timeout=20)
    v.cmd("verify")


# What a target may tell the kernel

def test_nonsense_tid_address(firn, victims):
    v, other = odd(victims, "--tid-address"), odd(victims)
    began = time.monotonic()
    firn.evict(v.pid, timeout=8)
    firn.evict(other.pid, timeout=8)
    assert time.monotonic() - began < 5
    v.cmd("verify")
    firn.thaw(v.pid, timeout=8)
    firn.thaw(other.pid, timeout=8)
    v.cmd("verify")
    other.cmd("verify")
    assert_no_trace(firn, v.pid)


@pytest.mark.parametrize("verb", ["evict", "freeze"])
@pytest.mark.parametrize("call", ["prctl", "fcntl"])
def test_filter_in_one_thread(firn, victims, call, verb):
    """One thread would die of an injected call, and the process with it: refused, whole."""
    v = odd(victims, "--worker-filter", call)
    snap = snapshot(v.pid)
    result = firn.run(verb, v.pid, "--json")
    assert result.code == REFUSED, result
    result = firn.run(verb, v.pid)
    assert result.code == REFUSED, result
    assert "seccomp" in result.one_line_error(), result
    assert_same(snap, v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


@pytest.mark.parametrize("verb", ["evict", "freeze"])
def test_lenient_filter_in_one_thread(firn, victims, verb):
    v = odd(victims, "--worker-filter", "none")
    snap = snapshot(v.pid)
    getattr(firn, verb)(v.pid)
    firn.thaw(v.pid)
    assert_same(snap, v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


# The socket

@pytest.mark.parametrize("user", [0, harness.NOBODY])
@pytest.mark.parametrize("parameters", [
    {"interface": None}, {"interface": 7}, {"interface": {}}, {"interface": {"interface": "org.firn.Agent"}},
    {"interface": []}, {"interface": True}, {}, None, [], "org.firn.Agent"])
def test_description_of_nonsense(firn, parameters, user):
    firn.start()
    agent = firn.agent.pid
    before = os.geteuid()
    os.seteuid(user)
    try:
        c = Client(firn)
    finally:
        os.seteuid(before)
    c.s.settimeout(5)
    c.s.sendall(harness.json.dumps({"method": SERVICE, "parameters": parameters}).encode() + b"\0")
    reply = c.receive()
    assert reply and reply["error"].startswith("org.varlink.service."), reply
    reply = c.call("org.firn.Agent.Ping")
    assert reply["parameters"]["pid"] == agent == firn.agent.pid
    c.close()


# Many threads

@pytest.mark.parametrize("threads", [600, 1600])
@pytest.mark.parametrize("killed", [False, True])
def test_crowd(firn, victims, killed, threads):
    """More faults at once than an agent can note do not keep it from following the layout."""
    v = odd(victims, "--crowd", threads, settled=False)
    firn.evict(v.pid)
    if killed:
        firn.kill_agent()
    v.send("burst")
    if killed:
        time.sleep(0.2)
        firn.start()
    v.reply(25)
    v.cmd("verify", timeout=20)
    firn.thaw(v.pid)
    v.cmd("verify")


@pytest.mark.parametrize("seed", range(1, 5))
def test_holes_and_moves(firn, victims, seed):
    """A range that is moved to where another was a moment ago is not unmapped with it."""
    v = odd(victims, "--ranges", 500, "--seed", seed)
    firn.evict(v.pid)
    v.cmd("race", timeout=30)
    v.cmd("verify")
    firn.thaw(v.pid)
    v.cmd("verify")


@pytest.mark.parametrize("seed", range(1, 5))
def test_moved_where_another_left(firn, victims, seed):
    """The unmap that ends one move is told after another has taken the place."""
    v = odd(victims, "--ranges", 1000, "--seed", seed)
    firn.evict(v.pid)
    v.cmd("follow", timeout=30)
    v.cmd("verify")
    firn.thaw(v.pid)
    v.cmd("verify")


def test_main_thread_ends(firn, victims):
    v = odd(victims, "--leader")
    firn.evict(v.pid)
    thread = f"{v.pid}/task/{v.cmd('leave')}"
    v.cmd("touch-random 100")
    v.cmd("dontfork")
    v.cmd("grow-cut here")
    v.cmd("verify")
    firn.thaw(v.pid)
    v.cmd("verify")
    assert harness.uffd_mappings(thread) == []
    left = [d for d in harness.descriptors(thread).values() if "userfaultfd" in d[0] or "socket" in d[0]]
    assert not left, left
    assert "[vdso]" in harness.read(f"/proc/{thread}/maps")
    assert firn.packs() == []


# Layout

@pytest.mark.parametrize("how", ["here", "move"])
def test_grown_and_cut(firn, victims, how):
    """What is left of a mapping may be nothing but what it grew by: zero pages, no SIGBUS."""
    v = odd(victims)
    firn.evict(v.pid)
    v.cmd("grow-cut " + how, timeout=20)
    v.cmd("verify")
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_shrunk_and_grown(firn, victims):
    """What grows back into its own place, before the agent has looked at the unmap it read, is zero there."""
    v = odd(victims)
    firn.start(FIRN_SLEEP_AT="pager.read.unmap:200")
    firn.evict(v.pid)
    v.cmd("shrink-grow", timeout=20)
    v.cmd("verify")
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_grown_and_thawed(firn, victims):
    """A mapping that grew is one mapping after the thaw, though a child still holds the descriptor."""
    v = odd(victims)
    firn.evict(v.pid)
    v.cmd("grow")
    v.cmd("siblings")
    firn.thaw(v.pid)
    assert not harness.uffd_mappings(v.pid), harness.uffd_mappings(v.pid)
    v.cmd("look-grown move", timeout=20)
    v.cmd("verify")
    v.cmd("end 0")
    v.cmd("end 1")
    firn.thaw_all()
    v.cmd("verify")


def test_grown_and_agent_killed(firn, victims):
    """Whoever waits where a mapping grew, and was read of by an agent that ended, is woken by the next."""
    v = odd(victims)
    firn.evict(v.pid)
    v.cmd("verify")
    v.cmd("grow")
    firn.kill_agent()
    firn.start(FIRN_KILL_AT="pager.read.fault")
    v.send("look-grown here")
    firn.agent_died()
    firn.start()
    v.reply(10)
    v.cmd("verify")
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


# Agents and keepers that end

@pytest.mark.parametrize("first, second", [
    ("freeze.dropped", "inject.munmap.entry"), ("freeze.armed", "inject.unpark.regs"),
    ("inject.madvise.entry", "inject.munmap.exit"), ("inject.park.mask", "inject.unpark.mask"),
    ("inject.recvmsg.exit", "inject.close.entry")])
def test_killed_while_it_starts(firn, victims, first, second):
    """Whoever waits for an agent to start hears of its end."""
    v = odd(victims)
    snap = snapshot(v.pid)
    firn.start(FIRN_KILL_AT=first)
    firn.run("freeze", v.pid)
    assert not firn.agent, f"{first} was not passed"
    result = firn.start(check=False, timeout=8, FIRN_KILL_AT=second)
    assert not firn.agent, f"{second} was not passed: {result}"
    assert result.code != 0, result
    result.one_line_error()
    firn.thaw_all()
    assert_same(snap, v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)
    no_other_keeper(firn)


def read_remote(pid, address, length):
    """process_vm_readv waits for pages that are away.  (Through /proc/PID/mem they are an I/O error.)"""
    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]

    buffer = ctypes.create_string_buffer(length)
    local, remote = Vector(ctypes.addressof(buffer), length), Vector(address, length)
    call = ctypes.CDLL(None).process_vm_readv
    call.restype = ctypes.c_ssize_t
    return call(pid, ctypes.byref(local), ctypes.c_ulong(1), ctypes.byref(remote), ctypes.c_ulong(1), ctypes.c_ulong(0))


def keepers(firn):
    """Every keeper of this runtime directory, named by its file or not."""
    found = []
    wanted = b"FIRN_RUNTIME_DIR=" + firn.runtime.encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if harness.read(f"/proc/{pid}/comm") == "firn-keeper\n" and \
                    wanted in harness.read(f"/proc/{pid}/environ", "rb").split(b"\0"):
                found.append(int(pid))
        except OSError:
            pass
    return found


def no_other_keeper(firn):
    """No keeper is forgotten: each holds descriptors of every target.  Those found are ended."""
    agent, keeper = firn.agent.pid, firn.keeper.pid
    others = [pid for pid in keepers(firn) if pid not in (agent, keeper)]
    for pid in others:
        os.kill(pid, harness.signal.SIGKILL)
    assert not others, f"keepers that nobody knows of: {others}; the agent's is {keeper}"


def test_killed_while_it_starts_with_a_reader(firn, victims):
    """A whole frozen target, of which somebody reads: the fault comes as soon as it is served."""
    v = odd(victims)
    snap = snapshot(v.pid)
    firn.freeze(v.pid)
    firn.kill_agent()
    address = max((line for line in snap["maps"] if " rw-p " in line and line.split()[-1] == "0"),
                  key=lambda line: int(line.split("-")[1].split()[0], 16) - int(line.split("-")[0], 16))
    address = int(address.split("-")[0], 16)
    length = 16 * harness.PAGE
    got = []

    def reads():
        got.append(read_remote(v.pid, address, length))

    reader = threading.Thread(target=reads, daemon=True)
    reader.start()
    time.sleep(0.3)
    assert not got, "nobody serves it, and yet it was read"
    result = firn.start(check=False, timeout=8, FIRN_KILL_AT="pager.read.fault")
    firn.agent_died(5)
    assert result.code in (0, harness.NO_AGENT), result
    firn.thaw_all()
    reader.join(5)
    assert got == [length]
    assert_same(snap, v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)
    no_other_keeper(firn)


@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_keeper_ends(firn, victims, verb):
    """The agent puts another in its place, which holds all that the next agent needs."""
    v = odd(victims)
    snap = snapshot(v.pid)
    getattr(firn, verb)(v.pid)
    old = firn.keeper
    old.kill()

    def another():
        keeper = firn.keeper
        return keeper and keeper.pid != old.pid
    wait_until(another, 5, "another keeper")
    firn.kill_agent()
    assert firn.keeper, "the new keeper went with the agent"
    firn.thaw_all()
    assert_same(snap, v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_keeper_ends_with_children(firn, victims):
    """Nobody but the keeper has what children are served by."""
    v = odd(victims)
    firn.evict(v.pid)
    v.cmd("siblings")
    old = firn.keeper
    old.kill()

    def another():
        keeper = firn.keeper
        return keeper and keeper.pid != old.pid
    wait_until(another, 5, "another keeper")
    firn.kill_agent()
    v.send("check 0")
    firn.thaw_all()
    v.reply()
    v.cmd("check 1")
    v.cmd("verify")


# A frozen target whose threads are slow to stop again

@pytest.fixture
def crowded():
    """Both cores busy: who does not matter to the scheduler waits for its turn."""
    hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(2 * os.cpu_count())]
    yield
    for hog in hogs:
        hog.kill()
        hog.wait()


@pytest.mark.parametrize("round", range(5))
def test_thawed_before_it_stops(firn, victims, crowded, round):
    """Let go of at the end of a freeze, a target has its SIGSTOP before it: a thaw at once must take that back."""
    v = odd(victims)
    snap = snapshot(v.pid)
    os.sched_setaffinity(v.pid, {0})
    for tid in os.listdir(f"/proc/{v.pid}/task"):
        os.setpriority(os.PRIO_PROCESS, int(tid), 19)
    for _ in range(10):
        firn.freeze(v.pid)
        firn.thaw(v.pid)
    for tid in os.listdir(f"/proc/{v.pid}/task"):
        os.setpriority(os.PRIO_PROCESS, int(tid), 0)
        os.sched_setaffinity(int(tid), range(os.cpu_count()))
    assert_same(snap, v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


@pytest.mark.parametrize("round", range(3))
def test_tracer_dies_in_continue(firn, victims, crowded, round):
    """Let go of by a dying tracer, a thread looks as if it ran while it goes back into its group-stop."""
    v = odd(victims)
    snap = snapshot(v.pid)
    firn.freeze(v.pid)
    firn.kill_agent()
    firn.start(FIRN_KILL_AT="thaw.cont.mask")
    for tid in os.listdir(f"/proc/{v.pid}/task"):
        os.sched_setscheduler(int(tid), os.SCHED_IDLE, os.sched_param(0))
    firn.run("thaw", v.pid)
    firn.agent_died()
    firn.thaw_all()
    assert_same(snap, v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)
