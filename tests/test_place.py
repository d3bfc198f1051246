# SPDX-License-Identifier: MIT
"""Packs in memory: the same bytes come back by every way, no store is written, and a move loses nothing.

That the agent may die at each step of a move is in test_kill.py.
"""
import os
import signal
import subprocess

import pytest

import harness
from harness import STORE, USAGE, assert_no_trace, assert_same, settle, snapshot, wait_until

RAM, MOVED = "--place=ram", ("--place=ram,store", "--after=0")


def in_ram(firn):
    """The packs that are in memory."""
    try:
        return [n for n in os.listdir(os.path.join(firn.runtime, "private")) if n.endswith(".pack")]
    except FileNotFoundError:
        return []


def whole(firn, v):
    """Thawed: nothing is left, in no place."""
    v.cmd("verify")
    assert_no_trace(firn, v.pid)
    wait_until(lambda: not in_ram(firn), 5, f"the packs go: {in_ram(firn)}")


def take(firn, verb, v, *options):
    target = firn.ok(verb, v.pid, *options, "--json").target
    assert "error" not in target, target
    return target


def keep_in_ram(firn, verb, v):
    before = harness.anon_kib(v.pid)
    target = take(firn, verb, v, RAM)
    pack = target["pack"]
    assert pack["place"] == "ram" and pack["path"].startswith(firn.runtime), pack
    assert os.path.getsize(pack["path"]) == pack["bytes"]
    assert target["io"]["writeBytes"] == target["io"]["writeCalls"] == 0, "the store was written"
    assert firn.packs() == []
    assert harness.anon_kib(v.pid) < before * 0.3, "its memory stayed"
    return target


@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_ram(firn, victims, verb):
    v = victims("heap", "--mib", 48)
    settle(v.pid)
    snap = snapshot(v.pid, calls=False)
    keep_in_ram(firn, verb, v)
    if verb == "evict":
        v.cmd("touch-order")
        v.cmd("mutate")
        v.cmd("verify")
    firn.thaw(v.pid)
    whole(firn, v)
    assert_same(snap, v.pid, calls=False)


def test_ram_big(firn, victims):
    """Several slices."""
    v = victims("heap", "--mib", 600)
    keep_in_ram(firn, "freeze", v)
    firn.thaw(v.pid)
    whole(firn, v)


def test_ram_fork(firn, victims):
    """Children live on the pack too, and it goes with the last of them."""
    v = victims("forker", "--mib", 8)
    take(firn, "evict", v, RAM)
    v.cmd("hold 2")
    assert len(in_ram(firn)) == 1
    assert {t["pack"]["place"] for t in firn.list()} == {"ram"} and len(firn.list()) == 3
    firn.thaw_all()
    v.cmd("release")
    whole(firn, v)


@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_ram_agent_killed(firn, victims, verb):
    """A successor serves from the same file."""
    v = victims("heap", "--mib", 32)
    keep_in_ram(firn, verb, v)
    firn.kill_agent()
    v.send("touch-random")
    assert v.silent(0.1)
    firn.start()
    assert firn.show(v.pid)["pack"]["place"] == "ram"
    if verb == "freeze":
        firn.thaw(v.pid)
        v.reply()
    else:
        v.reply()
        v.cmd("verify")
        firn.thaw(v.pid)
    whole(firn, v)


def test_ram_needs_no_store(firn, victims):
    v = victims("heap", "--mib", 16)
    file = os.path.join(firn.state, "file")
    open(file, "w").close()
    firn.env["FIRN_STATE_DIR"] = file
    firn.env["FIRN_LOG"] = os.path.join(firn.runtime, "log")
    keep_in_ram(firn, "freeze", v)
    firn.thaw(v.pid)
    v.cmd("verify")
    assert in_ram(firn) == []


def test_list(firn, victims):
    ram, store = victims("heap", "--mib", 8), victims("heap", "--mib", 8)
    pack = keep_in_ram(firn, "freeze", ram)["pack"]
    assert firn.ok("list", "--json").json["ramBytes"] == pack["bytes"]
    firn.freeze(store.pid)
    answer = firn.ok("list", "--json").json
    assert answer["ramBytes"] == pack["bytes"], "what is in the store is not in memory"
    assert {t["pid"]: t["pack"]["place"] for t in answer["targets"]} == {ram.pid: "ram", store.pid: "store"}
    lines = firn.ok("list").out.splitlines()
    assert lines[0].split()[-1] == "PLACE"
    assert {int(line.split()[0]): line.split()[-1] for line in lines[1:]} == {ram.pid: "ram", store.pid: "store"}
    assert "(in RAM)" in firn.ok("show", ram.pid).out and "(in RAM)" not in firn.ok("show", store.pid).out
    firn.thaw_all()


def test_encryption(firn, victims):
    """What may come to a disk is encrypted: by a move, or by the kernel's swap."""
    v = victims("heap", "--mib", 8)
    swap = len(harness.read("/proc/swaps").splitlines()) > 1
    assert (take(firn, "freeze", v, RAM)["pack"]["cipher"] == "off") == (not swap)
    firn.thaw(v.pid)
    assert take(firn, "freeze", v, "--place=ram,store")["pack"]["cipher"] != "off"
    firn.thaw(v.pid)


def test_not_understood(firn, victims):
    v = victims("heap", "--mib", 8)
    for options in (("--place=disk",), ("--place",), ("--after=3",), (RAM, "--after=3"), ("--place=ram,store", "--after=x")):
        result = firn.run("freeze", *options, v.pid)
        assert result.code == USAGE, result
        result.one_line_error()
    v.cmd("verify")


# Little memory

@pytest.fixture
def small_runtime(firn):
    """mount(mib): the agent's directory on a small tmpfs of its own, unmounted at the end."""
    mounted = []

    def mount(mib):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=755", "tmpfs", firn.runtime],
                              capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no mount here: {done.stderr.strip()}")
        mounted.append(firn.runtime)

    yield mount
    for process in list(firn.agents.values()):
        process.kill()
        process.wait_dead()
    for place in mounted:
        subprocess.run(["umount", "-l", place])


@pytest.mark.parametrize("mib, reason", [(20, "before"), (44, "while it is written")])
@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_ram_full(firn, victims, small_runtime, verb, mib, reason):
    """Too little for it, as is seen before it is begun, or only when it is not small enough: nothing happens to it."""
    small_runtime(mib)
    v = victims("heap", "--mib", 64)
    settle(v.pid)
    snap = snapshot(v.pid)
    anon = harness.anon_kib(v.pid)
    result = firn.run(verb, RAM, v.pid)
    assert result.code == STORE and result.out == "", (reason, result)
    assert "memory" in result.one_line_error() or "tmpfs" in result.err
    assert_same(snap, v.pid)
    # Slices that were dropped before came back, but for pages of zeros.
    assert harness.anon_kib(v.pid) >= anon * (1 if reason == "before" else 0.9), "some of its memory went"
    whole(firn, v)
    # The agent is as it was.
    take(firn, verb, v)
    firn.thaw(v.pid)
    whole(firn, v)


def test_no_room_begins_in_the_store(firn, victims, small_runtime):
    small_runtime(20)
    v = victims("heap", "--mib", 64)
    assert take(firn, "freeze", v, *MOVED)["pack"]["place"] == "store"
    firn.thaw(v.pid)
    whole(firn, v)


# Moves

def moved(firn, v):
    wait_until(lambda: firn.show(v.pid)["pack"]["place"] == "store", 30, "the pack is moved")
    pack = firn.show(v.pid)["pack"]
    wait_until(lambda: not in_ram(firn), 5, "its memory is given back")
    assert firn.packs() == [pack["path"]] and os.path.getsize(pack["path"]) == pack["bytes"]
    assert firn.ok("list", "--json").json["ramBytes"] == 0
    return firn.show(v.pid)


@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_move(firn, victims, verb):
    v = victims("heap", "--mib", 48)
    assert take(firn, verb, v, *MOVED)["io"]["writeBytes"] == 0
    target = moved(firn, v)
    assert target["io"]["writeBytes"] == target["pack"]["bytes"], "wear is counted"
    if verb == "evict":
        v.cmd("touch-random")
        v.cmd("verify")
    firn.thaw(v.pid)
    whole(firn, v)


def test_not_before_its_time(firn, victims):
    v = victims("heap", "--mib", 8)
    target = take(firn, "freeze", v, "--place=ram,store", "--after=3600")
    assert target["pack"]["moveAfter"] == 3600
    other = victims("heap", "--mib", 8)
    take(firn, "freeze", other, *MOVED)
    moved_of_other = lambda: firn.show(other.pid)["pack"]["place"] == "store"
    wait_until(moved_of_other, 30, "the other is moved")
    assert firn.show(v.pid)["pack"]["place"] == "ram"
    firn.thaw_all()
    whole(firn, v)


def test_move_under_load(firn, victims):
    """Faults, forks and system calls meet the pack while it moves."""
    firn.start(FIRN_SLEEP_AT="move.piece:40")
    v = victims("heap", "--mib", 160)
    take(firn, "evict", v, *MOVED)
    for command in ("touch-random", "kernel 300", "fork 2", "verify"):
        v.cmd(command)
    moved(firn, v)
    v.cmd("verify")
    firn.thaw(v.pid)
    whole(firn, v)


def test_thaw_while_it_moves(firn, victims):
    firn.start(FIRN_SLEEP_AT="move.piece:500")
    v = victims("heap", "--mib", 96)
    take(firn, "freeze", v, *MOVED)
    wait_until(lambda: firn.packs(), 30, "the move begins")
    firn.thaw(v.pid)
    whole(firn, v)


def test_store_fails(firn, victims):
    """A store that cannot take it: it stays in memory, and comes back from there."""
    v = victims("heap", "--mib", 16)
    agent = firn.start() and firn.agent
    take(firn, "freeze", v, "--place=ram,store", "--after=4")
    agent.kill(signal.SIGSTOP)
    os.rename(firn.store, firn.store + ".away")
    agent.kill(signal.SIGCONT)
    wait_until(lambda: "cannot be moved" in harness.read(firn.env["FIRN_LOG"]), 30, "the log says so")
    assert firn.show(v.pid)["pack"]["place"] == "ram"
    os.rename(firn.store + ".away", firn.store)
    firn.thaw(v.pid)
    whole(firn, v)
