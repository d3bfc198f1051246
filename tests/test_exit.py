# SPDX-License-Identifier: MIT
"""A target that ends, executes or is killed while its memory is away: the agent clears up after it."""
import os
import signal
import subprocess
import time

import pytest

import harness
from harness import assert_no_trace, wait_until


def cleared(firn, pid, fds):
    def clear():
        return firn.packs() == [] and not [t for t in firn.list() if t["pid"] == pid]
    wait_until(clear, 10, f"packs {firn.packs()}, list {firn.list()}")

    def closed():
        return len(os.listdir(f"/proc/{firn.agent.pid}/fd")) <= fds + 1
    try:
        wait_until(closed, 5, f"the agent has {fds} descriptors as before")
    except AssertionError:
        subprocess.run(["ls", "-l", f"/proc/{firn.agent.pid}/fd"], check=False)
        raise


@pytest.fixture
def agent_fds(firn, victims):
    """Its descriptors after a first whole cycle."""
    v = victims("exiter", "--mib", 4)
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    firn.evict(v.pid)
    firn.thaw(v.pid)
    v.end()
    time.sleep(0.1)
    return len(os.listdir(f"/proc/{firn.agent.pid}/fd"))


@pytest.mark.parametrize("how", ["exit 0", "exit-full 3", "abort"])
def test_ends_while_evicted(firn, victims, agent_fds, how):
    v = victims("exiter")
    firn.evict(v.pid)
    v.send(how)
    v.process.wait_dead()
    want = {"exit 0": 0, "exit-full 3": 3, "abort": -9}[how]
    assert v.proc.wait() == want
    cleared(firn, v.pid, agent_fds)


@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_killed(firn, victims, agent_fds, verb):
    v = victims("exiter")
    getattr(firn, verb)(v.pid)
    v.kill()
    v.process.wait_dead()
    v.proc.wait()
    cleared(firn, v.pid, agent_fds)
    result = firn.run("thaw", v.pid)
    assert result.code == harness.NO_TARGET, result
    result.one_line_error()


def test_killed_and_not_reaped(firn, victims, agent_fds):
    """Its parent does not look at it: a zombie has no memory to bring back."""
    v = victims("exiter")
    firn.freeze(v.pid)
    signal.pidfd_send_signal(v.process.fd, signal.SIGKILL)
    wait_until(lambda: harness.state_of(v.pid) == "Z", 10, "it dies")
    cleared(firn, v.pid, agent_fds)


def test_execs_while_evicted(firn, victims, agent_fds):
    """The new program is another memory: nothing of the old one is served or kept."""
    v = victims("exiter")
    firn.evict(v.pid)
    v.send("exec")
    assert v.line(20).startswith("ready")
    v.cmd("verify")
    cleared(firn, v.pid, agent_fds)
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_main_thread_leaves_while_evicted(firn, victims):
    """The leader is a zombie, other threads live on."""
    v = victims("exiter")
    firn.evict(v.pid)
    v.cmd("leave")
    v.cmd("touch-random")
    result = firn.run("thaw", v.pid, "--json")
    if result.code:
        firn.thaw_all()
    v.cmd("verify")
    wait_until(lambda: firn.packs() == [], 10, "the pack goes")


def test_agent_killed_then_target_killed(firn, victims):
    """Nobody is left to serve: the next agent deletes the pack."""
    v = victims("exiter")
    firn.freeze(v.pid)
    firn.kill_agent()
    v.kill()
    v.process.wait_dead()
    v.proc.wait()
    firn.start()
    wait_until(lambda: firn.packs() == [], 10, f"the pack goes: {firn.packs()}")
    assert firn.list() == []


def test_pid_is_not_confused(firn, victims):
    """Each target is told from another by its start time; many short lives leave nothing behind."""
    for _ in range(5):
        v = victims("exiter", "--mib", 2)
        firn.evict(v.pid)
        v.send("exit 0")
        v.process.wait_dead()
        v.proc.wait()
    wait_until(lambda: firn.packs() == [], 10, "the packs go")


def test_stop_method_thaws_everything(firn, victims):
    """SIGTERM to the agent: everything is thawed, then it ends and leaves nothing."""
    frozen, evicted = victims("heap", "--mib", 8), victims("heap", "--mib", 8)
    firn.freeze(frozen.pid)
    firn.evict(evicted.pid)
    agent, keeper = firn.agent, firn.keeper
    agent.kill(signal.SIGTERM)
    agent.wait_dead(30)
    for v in (frozen, evicted):
        v.cmd("verify")
        assert harness.status_of(v.pid)["TracerPid"] == "0"
        assert not harness.uffd_mappings(v.pid)
    assert firn.packs() == []
    if keeper:
        keeper.wait_dead(10)
