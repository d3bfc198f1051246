# SPDX-License-Identifier: MIT
"""The agent is killed at every named step of every verb: the target is whole, and the next agent brings it back.

Each point must be reached by some verb, or the list is not covered: the last test sees to that.
"""
import os
import subprocess

import pytest

import harness
from harness import assert_no_trace, assert_same, settle, snapshot

reached = {}
tried = set()


def points():
    try:
        out = subprocess.run([harness.FIRND, "--list-points"], capture_output=True, text=True, timeout=10)
        return out.stdout.split() if out.returncode == 0 else []
    except OSError:
        return []


POINTS = points()


def test_there_are_points():
    assert len(POINTS) > 20, "firnd --list-points names the steps"


def recover(firn, v, snap=None):
    """After the agent's end: a new one starts, thaws, and nothing is left."""
    firn.thaw_all()
    if snap:
        assert_same(snap, v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)
    # And it can be done again.
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def died(firn, point, verb):
    tried.add((point, verb))
    if firn.agent is None:
        reached.setdefault(point, set()).add(verb)
        return True
    return False


def served(firn, v):
    """Until the victim answers, or waits because the agent is dead."""
    harness.wait_until(lambda: not v.silent(0.01) or firn.agent is None, 60, f"an answer; {harness.where(v.pid)}")


@pytest.mark.parametrize("point", POINTS)
def test_freeze(firn, victims, point):
    v = victims("identity")
    settle(v.pid)
    snap = snapshot(v.pid)
    firn.start(FIRN_KILL_AT=point)
    result = firn.run("freeze", v.pid)
    if died(firn, point, "freeze"):
        assert result.code in (0, harness.NO_AGENT), result
        if result.code:
            result.one_line_error()
        recover(firn, v, snap)
    else:
        assert result.code == 0, result


@pytest.mark.parametrize("point", POINTS)
def test_evict(firn, victims, point):
    """Killed during the evict itself, or later, while faults, forks and layout changes are served."""
    v = victims("layout", "--seed", 1 + POINTS.index(point))
    firn.start(FIRN_KILL_AT=point)
    result = firn.run("evict", v.pid)
    if not died(firn, point, "evict"):
        assert result.code == 0, result
        for command in ("layout 300", "fork 1", "touch-random"):
            v.send(command)
            served(firn, v)
            if died(firn, point, "serve"):
                firn.thaw_all()
                v.reply()
                break
            v.reply()
        else:
            result = firn.run("thaw", v.pid)
            if not died(firn, point, "thaw"):
                assert result.code == 0, result
                v.cmd("verify")
                return
    recover(firn, v)


DIRECT = [p for p in POINTS if p.startswith(("freeze", "inject.pwritev", "inject.recvmsg", "inject.close", "inject.call"))]


@pytest.mark.parametrize("point", DIRECT)
def test_direct(firn, victims, point):
    """The target writes its own pages when the agent dies."""
    v = victims("identity")
    settle(v.pid)
    snap = snapshot(v.pid)
    firn.start(FIRN_KILL_AT=point)
    result = firn.run("freeze", "--kind=direct", v.pid)
    assert died(firn, point, "direct"), result
    recover(firn, v, snap)


@pytest.mark.parametrize("verb", ["freeze", pytest.param("evict", marks=pytest.mark.long)])
@pytest.mark.parametrize("point", POINTS)
def test_thaw(firn, victims, point, verb):
    """A second agent takes over a frozen or evicted target and dies while it brings it back."""
    v = victims("identity")
    settle(v.pid)
    snap = snapshot(v.pid)
    getattr(firn, verb)(v.pid)
    firn.kill_agent()
    started = firn.start(FIRN_KILL_AT=point, check=False)
    result = firn.run("thaw", v.pid) if started.code == 0 and firn.agent else None
    if died(firn, point, "thaw" if result else "start"):
        recover(firn, v, snap)
    else:
        assert result and result.code == 0, (started, result)
        assert_same(snap, v.pid)
        v.cmd("verify")


@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith(("thaw", "fault"))])
def test_working_set(firn, victims, point):
    """One that has a working set, which is brought in first."""
    v = victims("heap", "--mib", 16)
    firn.evict(v.pid)
    v.cmd("touch-random")
    firn.thaw(v.pid)
    firn.freeze(v.pid)
    firn.kill_agent()
    firn.start(FIRN_KILL_AT=point)
    result = firn.run("thaw", v.pid)
    if died(firn, point, "thaw"):
        recover(firn, v)
    else:
        assert result.code == 0, result
        v.cmd("verify")
        assert_no_trace(firn, v.pid)


AGAIN = [p for p in POINTS if p.startswith(("base", "freeze", "thaw", "fault"))]


@pytest.mark.parametrize("point", AGAIN)
def test_again(firn, victims, point):
    """Its pack was kept, and the next is made upon it: the agent dies in that eviction, or in its thaw."""
    v = victims("heap", "--mib", 16)
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    v.cmd("mutate 200")
    firn.kill_agent()
    firn.start(FIRN_KILL_AT=point)
    result = firn.run("evict", v.pid)
    if not died(firn, point, "evict again"):
        assert result.code == 0, result
        v.send("touch-random 500")
        served(firn, v)
        if died(firn, point, "serve again"):
            firn.thaw_all()
            v.reply()
        else:
            v.reply()
            result = firn.run("thaw", v.pid)
            if not died(firn, point, "thaw again"):
                assert result.code == 0, result
                v.cmd("verify")
                assert_no_trace(firn, v.pid)
                return
    recover(firn, v)
    assert len(firn.kept()) == 1


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", ["base.kept", "base.dropped"])
def test_kept(firn, victims, point, nth):
    """The agent dies when it has begun or ceased to keep a pack: nothing is left over, nothing is lost."""
    firn.start(FIRN_KILL_AT=f"{point}:{nth}")
    v = victims("heap", "--mib", 16)
    for _ in range(5):
        firn.run("freeze", v.pid)
        firn.run("thaw", v.pid)
        if firn.agent is None:
            break
        v.cmd("mutate 20000")
    assert died(firn, point, "keep")
    recover(firn, v)


@pytest.mark.parametrize("verb", ["freeze", "evict"])
@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith("move")])
def test_moved(firn, victims, point, verb):
    """A pack moves from memory to the store: at each step one file is whole, and the successor deletes the other."""
    v = victims("heap", "--mib", 24)
    firn.start(FIRN_KILL_AT=point)
    result = firn.run(verb, v.pid, "--place=ram,store", "--after=0")
    assert result.code in (0, harness.NO_AGENT), result
    firn.agent_died()
    assert died(firn, point, "move")
    v.send("touch-order")
    assert v.silent(0.1) or verb == "evict"
    firn.start(FIRN_SLEEP_AT="move.piece:1000")     # or it would be moved again at once
    place = "store" if point in ("move.said", "move.changed") else "ram"
    in_ram = [n for n in os.listdir(os.path.join(firn.runtime, "private")) if n.endswith(".pack")]
    assert firn.show(v.pid)["pack"]["place"] == place
    assert place == "ram" or (in_ram == [] and len(firn.packs()) == 1)
    assert place == "store" or len(in_ram) == 1
    firn.thaw(v.pid)
    v.reply()
    recover(firn, v)


@pytest.mark.parametrize("verb", ["freeze", "evict"])
@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith(("hold", "group"))])
def test_group(firn, victims, point, verb):
    """A process and its children as one; more of this in test_groups.py."""
    v = victims("forker", "--mib", 8)
    v.cmd("hold 2")
    firn.start(FIRN_KILL_AT=point)
    result = firn.run(verb, "--tree", v.pid)
    if died(firn, point, verb):
        assert result.code == harness.NO_AGENT, result
    else:
        assert result.code == 0, result
        result = firn.run("thaw", "--tree", v.pid)
        died(firn, point, "thaw")
    if firn.agent:
        firn.kill_agent()       # it would still end itself, in what follows
    firn.thaw_all()
    v.cmd("release")
    recover(firn, v)


@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith("wake")])
def test_woken(firn, victims, point):
    """Its next command is what wakes it; more of this in test_wake.py."""
    v = victims("heap", "--mib", 8)
    settle(v.pid)
    firn.start(FIRN_KILL_AT=point)
    result = firn.run("freeze", "--wake", v.pid)
    assert result.code in (0, harness.NO_AGENT), result
    v.send("verify")
    firn.agent_died()
    assert died(firn, point, "wake")
    firn.start()
    v.reply()
    harness.wait_until(lambda: firn.list() == [], 20, "it is whole")
    recover(firn, v)


FORKED = [p for p in POINTS if p.startswith(("thaw", "fork", "fault", "pager", "inject.munmap", "inject.close"))]


@pytest.mark.parametrize("point", FORKED)
def test_forked(firn, victims, point):
    """Children of the eviction still wait for their memory when the agent dies."""
    v = victims("forker", "--mib", 8)
    firn.start(FIRN_KILL_AT=point)
    armed = firn.agent.pid
    result = firn.run("evict", v.pid)
    if not died(firn, point, "evict"):
        assert result.code == 0, result
        v.send("hold 2")
        served(firn, v)
        if died(firn, point, "fork"):
            firn.start()
        v.reply()
        if not died(firn, point, "serve"):
            firn.run("thaw", v.pid)
            died(firn, point, "thaw")
        if not firn.agent:
            firn.start()
        v.cmd("release")
    if firn.agent and firn.agent.pid == armed:
        firn.kill_agent()       # it would still end itself, in what follows
    recover(firn, v)


@pytest.mark.long
@pytest.mark.parametrize("nth", [2, 3, 5, 9])
@pytest.mark.parametrize("point", POINTS)
def test_later_passes(firn, victims, point, nth):
    """Not only the first time a step is passed."""
    v = victims("layout", "--seed", 1000 + nth * 100 + POINTS.index(point))
    firn.start(FIRN_KILL_AT=f"{point}:{nth}")
    for verb in ("freeze", "thaw", "evict", None, "thaw"):
        if verb:
            firn.run(verb, v.pid)
        else:
            v.send("layout-touch 300")
            served(firn, v)
            if firn.agent is None:
                firn.thaw_all()
            v.reply()
        if firn.agent is None:
            break
    firn.thaw_all()
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_every_point_is_reached():
    """A step that no verb passes is a step that nobody tested."""
    if len({p for p, _ in tried}) < len(POINTS):
        return          # only some of the tests were asked for
    # The steps of waking have a test of their own, in test_wake_ends.py, which waits for the agent's death at each.
    missed = [p for p in POINTS if p not in reached and not p.startswith("wake.")]
    assert not missed, f"never reached: {missed}; reached: { {p: sorted(v) for p, v in reached.items()} }"
