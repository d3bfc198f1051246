# SPDX-License-Identifier: MIT
"""No visible interruption: blocking calls, signals, and the identity of a process over many cycles."""
import os
import random
import signal
import time

import pytest

import harness
from harness import assert_no_trace, assert_same, settle, snapshot, state_of, wait_until


@pytest.mark.parametrize("verb", ["control", "freeze", "evict"])
def test_no_call_is_interrupted(request, victims, verb):
    """30 blocking calls, each in a thread of its own, across stops of 0.3 to 0.5 s."""
    v = victims("eintr")
    rng = random.Random(7)
    if verb == "control":
        time.sleep(2)
        v.cmd("status")
        v.cmd("release")
        return
    firn = request.getfixturevalue("firn")
    for _ in range(6):
        getattr(firn, verb)(v.pid)
        time.sleep(rng.uniform(0.3, 0.5))
        firn.thaw(v.pid)
        time.sleep(rng.uniform(0.05, 0.4))
        v.cmd("status")
    # Long enough for each to end its last interrupted wait.
    time.sleep(1.5)
    v.cmd("status")
    v.cmd("release")
    assert_no_trace(firn, v.pid)


@pytest.mark.parametrize("kind", ["--aio", "--uring"])
def test_asynchronous_io_is_refused_or_not_interrupted(firn, victims, kind):
    try:
        v = victims("eintr", kind)
    except AssertionError as e:
        if "setup" in str(e):
            pytest.skip(f"this kernel has no {kind[2:]}")
        raise
    for _ in range(3):
        result = firn.run("freeze", v.pid, "--json")
        if result.code == harness.REFUSED:
            assert state_of(v.pid) == "S"
            break
        assert result.code == 0, result
        time.sleep(0.4)
        firn.thaw(v.pid)
        time.sleep(0.3)
    time.sleep(1.2)
    v.cmd("status")
    v.cmd("release")


def counts(v):
    words = v.cmd("counts").split()
    return {k: int(n) for k, n in zip(words[::2], words[1::2])}


@pytest.mark.parametrize("to", ["process", "thread"])
@pytest.mark.parametrize("rounds", [5])
def test_a_signal_during_the_stop_still_interrupts(firn, victims, to, rounds):
    """epoll_pwait ends with EINTR after the handler ran once; without a signal it goes on unseen."""
    v = victims("signals")
    tid = int(v.cmd("tid"))
    for _ in range(rounds):
        v.cmd("reset")
        firn.freeze(v.pid)
        firn.thaw(v.pid)
        time.sleep(0.05)
        c = counts(v)
        assert (c["usr1"], c["eintr"], c["other"], c["cont"]) == (0, 0, 0, 0), c
        firn.freeze(v.pid)
        if to == "process":
            v.kill(signal.SIGUSR1)
        else:
            import ctypes
            assert ctypes.CDLL(None).syscall(234 if os.uname().machine == "x86_64" else 131, v.pid, tid,
                                             int(signal.SIGUSR1)) == 0
        time.sleep(0.05)
        assert state_of(v.pid) == "T"
        firn.thaw(v.pid)
        wait_until(lambda: counts(v)["eintr"] >= 1, 5, f"the call ends: {counts(v)}")
        c = counts(v)
        assert (c["usr1"], c["eintr"], c["other"], c["cont"], c["pending"], c["waiting"]) == (1, 1, 0, 0, 1, 1), c
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_a_signal_while_evicted(firn, victims):
    v = victims("signals")
    for _ in range(3):
        v.cmd("reset")
        firn.evict(v.pid)
        v.kill(signal.SIGUSR1)
        wait_until(lambda: counts(v)["eintr"] >= 1, 5, "the call ends")
        firn.thaw(v.pid)
        c = counts(v)
        assert (c["usr1"], c["eintr"], c["other"], c["cont"], c["pending"]) == (1, 1, 0, 0, 1), c
    v.cmd("verify")


def test_an_alarm_during_the_stop(firn, victims):
    """A timer that ends while the target is frozen is delivered once, afterwards."""
    v = victims("signals")
    v.cmd("alarm 200")
    firn.freeze(v.pid)
    time.sleep(0.4)
    firn.thaw(v.pid)
    wait_until(lambda: counts(v)["eintr"] >= 1, 5, "the call ends")
    c = counts(v)
    assert (c["alarm"], c["eintr"], c["usr1"], c["cont"]) == (1, 1, 0, 0), c


def test_a_stopped_target_stays_stopped(firn, victims):
    """Who was stopped by somebody else is stopped after the thaw too."""
    v = victims("signals")
    v.kill(signal.SIGSTOP)
    wait_until(lambda: state_of(v.pid) == "T", 5, "it stops")
    result = firn.run("freeze", v.pid, "--json")
    if result.code == 0:
        firn.thaw(v.pid)
        time.sleep(0.1)
    else:
        assert result.code == harness.REFUSED, result
    assert state_of(v.pid) == "T", "the thaw continued what another had stopped"
    v.kill(signal.SIGCONT)
    v.cmd("verify")
    assert counts(v)["cont"] == 1
    assert_no_trace(firn, v.pid)


def test_stop_signals_while_frozen(firn, victims):
    """SIGTERM sent to a frozen target ends it at the thaw, as it would a stopped one."""
    v = victims("heap", "--mib", 8)
    firn.freeze(v.pid)
    v.kill(signal.SIGTERM)
    firn.run("thaw", v.pid)
    v.process.wait_dead(10)
    assert v.proc.wait() == -signal.SIGTERM
    wait_until(lambda: firn.packs() == [], 10, f"the pack goes: {firn.packs()}")


@pytest.mark.parametrize("verb, cycles", [("freeze", 200), ("evict", 60)])
@pytest.mark.limit(240)
def test_identity(firn, victims, verb, cycles):
    """200 cycles, and nothing at all is different: mappings, descriptors, signals, timers, calls, code."""
    v = victims("identity")
    settle(v.pid)
    firn.start()
    agent = firn.agent
    getattr(firn, verb)(v.pid)
    firn.thaw(v.pid)
    settle(v.pid)
    snap = snapshot(v.pid)
    agent_fds = len(os.listdir(f"/proc/{agent.pid}/fd"))
    for i in range(cycles):
        getattr(firn, verb)(v.pid)
        firn.thaw(v.pid)
        if i % 50 == 0:
            assert_same(snap, v.pid)
    assert_same(snap, v.pid)
    v.cmd("verify")
    assert firn.agent.pid == agent.pid, "the agent was another"
    now = len(os.listdir(f"/proc/{agent.pid}/fd"))
    assert now <= agent_fds + 1, f"descriptors of the agent: {agent_fds} -> {now}"
    assert_no_trace(firn, v.pid)


def test_first_cycle_leaves_no_difference(firn, victims):
    v = victims("identity")
    settle(v.pid)
    snap = snapshot(v.pid)
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    assert_same(snap, v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)
