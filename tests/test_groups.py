# SPDX-License-Identifier: MIT
"""Groups are frozen and thawed as one: all of it is stopped before any of it is evicted, or none of it is touched."""
import mmap
import os
import signal
import subprocess
import sys
import time

import pytest

import harness
from harness import (DONE, NO_AGENT, NO_TARGET, NOBODY, NOT_PERMITTED, REFUSED, USAGE, assert_no_trace, assert_same,
                     settle, snapshot, state_of, wait_until)

HIERARCHIES = ["memory", "freezer", "unified"]
LOCKED = """import ctypes, sys, time
assert ctypes.CDLL(None, use_errno=True).mlockall(3) == 0
print("ready", flush=True)
for line in sys.stdin:
    print("ok", flush=True)
"""


def states(pids):
    return [state_of(p) for p in pids]


def runs(pid):
    return state_of(pid) in "SR"


@pytest.fixture
def locked(victims):
    """A process that has nothing to evict: all its memory is locked."""
    return lambda: victims("locked", argv=[sys.executable, "-c", LOCKED])


@pytest.fixture
def crowd(victims, cgroups):
    """make(n, hierarchy) -> (cgroup, victims in it)."""
    def make(n, hierarchy="memory", name=None, **kwargs):
        group = cgroups(hierarchy, name or f"firn-group-{os.getpid()}")
        vs = [victims("heap", "--mib", 8, "--seed", i + 1, **kwargs) for i in range(n)]
        group.add(*[v.pid for v in vs])
        for v in vs:
            settle(v.pid)
        return group, vs
    return make


def whole(firn, vs):
    for v in vs:
        wait_until(lambda v=v: runs(v.pid), 10, f"{v} runs")
        v.cmd("verify")
        assert_no_trace(firn, v.pid)


def frozen_and_back(firn, vs, *selector):
    result = firn.ok("freeze", *selector, "--json")
    assert sorted(t["pid"] for t in result.targets) == sorted(v.pid for v in vs)
    assert {t["state"] for t in result.targets} == {"frozen"}
    assert len({t["group"]["id"] for t in result.targets}) == 1
    assert all(state_of(v.pid) == "T" for v in vs)
    held = firn.list()
    assert sorted(t["pid"] for t in held) == sorted(v.pid for v in vs)
    assert {t["group"]["selector"] for t in held} == {t["group"]["selector"] for t in result.targets}
    thawed = firn.ok("thaw", *selector, "--json")
    assert {t["state"] for t in thawed.targets} == {"resident"}
    assert len(thawed.targets) == len(vs)
    whole(firn, vs)


# Selectors

@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("hierarchy", HIERARCHIES)
def test_cgroup(firn, crowd, cgroups, hierarchy, absolute):
    group, vs = crowd(2, hierarchy)
    cgroups(hierarchy, f"{group.path[1:]}/below/deep").add(vs[1].pid)
    frozen_and_back(firn, vs, "--cgroup", group.dir if absolute else group.path)
    # However it is written, it is the same group.
    firn.ok("freeze", "--cgroup", group.dir + "//")
    thawed = firn.ok("thaw", "--cgroup", group.path[1:])
    assert f"--cgroup {group.path}: 2 processes" in thawed.out
    whole(firn, vs)


def test_evict(firn, crowd):
    group, vs = crowd(3)
    targets = firn.ok("evict", "--cgroup", group.path, "--json").targets
    assert [t["state"] for t in targets] == ["evicted"] * 3
    for v in vs:
        assert runs(v.pid)
        v.cmd("touch-random")
    firn.ok("thaw", "--cgroup", group.path)
    whole(firn, vs)


def test_dry_run(firn, crowd):
    group, vs = crowd(2)
    snaps = [snapshot(v.pid) for v in vs]
    out = firn.ok("freeze", "--dry-run", "--cgroup", group.path).out
    assert "2 processes" in out and out.count("would freeze") == 2
    assert firn.list() == []
    for v, snap in zip(vs, snaps):
        assert_same(snap, v.pid)
    firn.ok("freeze", "--cgroup", group.path)
    firn.ok("thaw", "--dry-run", "--cgroup", group.path)
    assert states(v.pid for v in vs) == ["T", "T"]
    firn.ok("thaw", "--cgroup", group.path)
    whole(firn, vs)


def test_name(firn, victims):
    """By its name, or its program's; nobody out of the agent's scope, and not who asks."""
    vs = [victims("heap", "--mib", 8), victims("sparse")]
    for v in vs:
        settle(v.pid)
    out = firn.ok("freeze", "--name", "hea[p]").out
    assert "--name hea[p]: 1 process\n" in out
    assert states(v.pid for v in vs)[0] == "T" and runs(vs[1].pid)
    firn.ok("thaw", "--name", "hea[p]")
    firn.ok("freeze", "--name", "*")
    assert all(state_of(v.pid) == "T" for v in vs)
    assert runs(os.getpid())
    firn.ok("thaw", "--name", "*")
    vs[0].cmd("verify")
    python = subprocess.Popen([sys.executable, "-c", "import time, ctypes\nctypes.CDLL(None).prctl(15, b'other name')\n"
                               "print('x', flush=True)\ntime.sleep(600)"], stdout=subprocess.PIPE)
    try:
        python.stdout.read(1)
        exe = os.path.basename(os.readlink(f"/proc/{python.pid}/exe"))
        for pattern in ("other n?me", exe):
            assert [t["pid"] for t in firn.ok("freeze", "--name", pattern, "--json").targets] == [python.pid]
            firn.ok("thaw", "--name", pattern)
    finally:
        python.kill()
        python.wait()


ID = f"{os.getpid():08x}" + "0123456789abcdef" * 3 + "01234567"
OTHER = ID[:40] + "f" * 24
PLACES = ["docker/{}", "system.slice/docker-{}.scope", "kubepods/burstable/pod12/{}", "libpod_parent/libpod-{}",
          "kubepods.slice/kubepods-pod1.slice/cri-containerd-{}.scope", "machine.slice/libpod-{}.scope/container"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("hierarchy", ["memory", "unified"])
def test_container(firn, crowd, cgroups, hierarchy, place):
    _, vs = crowd(2, hierarchy, name=f"firn-{os.getpid()}/" + place.format(ID))
    beside = cgroups(hierarchy, f"firn-{os.getpid()}/machine.slice/libpod-conmon-{OTHER}.scope")
    assert beside.dir
    frozen_and_back(firn, vs, "--container", ID)
    firn.ok("freeze", "--container", ID[:9])
    firn.ok("thaw", "--container", ID)
    whole(firn, vs)


def test_a_short_id_of_two_containers(firn, crowd, victims, cgroups):
    _, vs = crowd(1, name=f"firn-{os.getpid()}/docker/{ID}")
    w = victims("heap", "--mib", 8)
    cgroups("memory", f"firn-{os.getpid()}/docker/{OTHER}").add(w.pid)
    result = firn.run("freeze", "--container", ID[:12])
    assert result.code == NO_TARGET and "more digits" in result.one_line_error(), result
    assert runs(w.pid) and runs(vs[0].pid)
    firn.ok("freeze", "--container", ID[:41])
    assert runs(w.pid) and state_of(vs[0].pid) == "T"
    firn.ok("thaw", "--container", ID[:41])
    whole(firn, vs)


def with_systemd(firn):
    """An agent that finds systemd's directory, in a mount namespace of its own."""
    firn.start(prefix=["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /run && mkdir -p /run/systemd/system && exec "$@"',
                       "sh"])


def test_unit(firn, crowd):
    if not harness.Cgroup.available("systemd"):
        pytest.skip("no hierarchy of systemd's")
    unit = f"firn-test-{os.getpid()}.service"
    _, vs = crowd(2, "systemd", name=f"system.slice/{unit}")
    with_systemd(firn)
    frozen_and_back(firn, vs, "--unit", unit)
    frozen_and_back(firn, vs, "--unit", unit[:-len(".service")])
    result = firn.run("freeze", "--unit", "no-such-unit.service")
    assert result.code == NO_TARGET and "no such unit runs" in result.one_line_error()


def test_a_unit_of_two_users(firn, crowd, victims, cgroups):
    if not harness.Cgroup.available("systemd"):
        pytest.skip("no hierarchy of systemd's")
    unit = f"firn-test-{os.getpid()}.service"
    place = "user.slice/user-{0}.slice/user@{0}.service/app.slice/" + unit
    _, vs = crowd(1, "systemd", name=place.format(1001))
    w = victims("heap", "--mib", 8)
    cgroups("systemd", place.format(1002)).add(w.pid)
    with_systemd(firn)
    result = firn.run("freeze", "--unit", unit)
    assert result.code == NO_TARGET and "several users" in result.one_line_error(), result
    # The system's own goes first.
    x = victims("heap", "--mib", 8)
    cgroups("systemd", f"system.slice/{unit}").add(x.pid)
    frozen_and_back(firn, [x], "--unit", unit)
    whole(firn, [w, *vs])


def test_no_systemd(firn):
    if os.path.exists("/run/systemd/system"):
        pytest.skip("systemd runs here")
    result = firn.run("freeze", "--unit", "cron.service")
    assert result.code == NO_TARGET and "systemd does not run" in result.one_line_error()


@pytest.mark.parametrize("verb", ["freeze", "evict", "thaw"])
@pytest.mark.parametrize("selector, value, code", [
    ("cgroup", "/no/such/group", NO_TARGET), ("cgroup", "../..", USAGE), ("cgroup", "/a/./b", USAGE),
    ("cgroup", "/sys/fs/cgroup", NO_TARGET), ("cgroup", "/sys/fs/cgroup/memory/no-such", NO_TARGET),
    ("cgroup", "x" * 5000, USAGE), ("cgroup", "a\nb", USAGE), ("container", "abc", USAGE), ("container", "ABCDEF", USAGE),
    ("container", "0" * 65, USAGE), ("container", "fedcba9876543210", NO_TARGET), ("container", "../x", USAGE),
    ("name", "no-such-name-*", NO_TARGET), ("name", "[", NO_TARGET), ("name", "\x01", USAGE), ("name", "x" * 300, USAGE),
    ("unit", "a/b.service", USAGE), ("unit", "-", NO_TARGET), ("tree", "4194304", NO_TARGET)], ids=lambda v: str(v)[:20])
def test_odd_selectors(firn, victims, verb, selector, value, code):
    v = victims("heap", "--mib", 4)
    settle(v.pid)
    snap = snapshot(v.pid)
    result = firn.run(verb, f"--{selector}={value}")
    # What is thawed may be gone: then nothing of it is frozen.
    assert result.code in ((code, NO_TARGET) if verb == "thaw" else (code,)), result
    result.one_line_error()
    # A request of which a part makes no sense is not done in part.
    if verb != "thaw":
        result = firn.run(verb, v.pid, f"--{selector}={value}")
        if selector != "name" or code == USAGE:
            assert result.code == code, result
            assert_same(snap, v.pid)
        else:
            firn.thaw(v.pid)


def test_an_empty_cgroup(firn, cgroups):
    group = cgroups("memory", f"firn-group-{os.getpid()}")
    result = firn.run("freeze", "--cgroup", group.path)
    assert result.code == NO_TARGET and "no process" in result.one_line_error(), result


# As one

@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_one_refuses(firn, crowd, victims, verb):
    """One whose filter would end it: nobody is touched."""
    group, vs = crowd(2)
    odd = victims("seccomp", "--strict")
    group.add(odd.pid)
    settle(odd.pid)
    snaps = [(v, snapshot(v.pid)) for v in vs] + [(odd, snapshot(odd.pid, calls=False))]
    result = firn.run(verb, "--cgroup", group.path)
    assert result.code == REFUSED, result
    line = result.one_line_error()
    assert str(odd.pid) in line and "seccomp" in line and "left as they were" in line, line
    assert firn.list() == [] and firn.packs() == []
    for v, snap in snaps:
        assert_same(snap, v.pid, **({"calls": False} if v is odd else {}))
    whole(firn, vs)


@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_one_fails_when_others_are_evicted(firn, victims, cgroups, verb):
    """One may write no large file: seen when it is evicted, the last of all.  The others come back."""
    group = cgroups("memory", f"firn-group-{os.getpid()}")
    vs = [victims("heap", "--mib", 8) for _ in range(2)]
    time.sleep(0.05)
    small = victims("heap", argv=["prlimit", "--fsize=65536", os.path.join(harness.VICTIMS, "heap"), "--mib", "8"])
    vs.append(small)
    group.add(*[v.pid for v in vs])
    for v in vs:
        settle(v.pid)
    snaps = [snapshot(v.pid, calls=False) for v in vs]
    result = firn.run(verb, "--kind=direct", "--cgroup", group.path)
    assert result.code == REFUSED, result
    assert str(small.pid) in result.one_line_error()
    for v, snap in zip(vs, snaps):
        assert_same(snap, v.pid, calls=False)
    whole(firn, vs)
    assert firn.list() == [] and firn.packs() == []


def test_one_has_nothing_to_evict(firn, crowd, locked):
    """It is stopped with the others, and runs with them."""
    group, vs = crowd(2)
    l = locked()
    group.add(l.pid)
    targets = firn.ok("freeze", "--cgroup", group.path, "--json").targets
    assert sorted(t["state"] for t in targets) == ["frozen", "frozen", "held"]
    assert state_of(l.pid) == "T" and all(state_of(v.pid) == "T" for v in vs)
    assert firn.show(l.pid)["state"] == "held"
    assert "held" in firn.ok("list").out
    assert 'targets{state="held"} 1' in firn.ok("stats", "--format=openmetrics").out
    result = firn.run("freeze", l.pid)
    assert result.code == REFUSED and "already held" in result.one_line_error()
    # The next agent leaves all of it stopped.
    firn.kill_agent()
    firn.start()
    assert sorted(t["state"] for t in firn.list()) == ["frozen", "frozen", "held"]
    assert state_of(l.pid) == "T"
    firn.ok("thaw", "--cgroup", group.path)
    l.cmd("hello")
    whole(firn, vs)
    targets = firn.ok("evict", "--cgroup", group.path, "--json").targets
    assert sorted(t["state"] for t in targets) == ["evicted", "evicted", "resident"]
    l.cmd("hello")
    firn.thaw_all()
    whole(firn, vs)


def test_a_held_one_is_thawed_alone(firn, crowd, locked):
    group, vs = crowd(1)
    l = locked()
    group.add(l.pid)
    firn.ok("freeze", "--cgroup", group.path)
    firn.thaw(l.pid)
    l.cmd("hello")
    assert state_of(vs[0].pid) == "T"
    firn.thaw_all()
    whole(firn, vs)


def test_nobody_has_anything_to_evict(firn, cgroups, locked):
    group = cgroups("memory", f"firn-group-{os.getpid()}")
    l = locked()
    group.add(l.pid)
    result = firn.run("freeze", "--cgroup", group.path)
    assert result.code == REFUSED and "none of its processes has private memory" in result.one_line_error(), result
    l.cmd("hello")
    assert firn.list() == []


def test_members_change_while_frozen(firn, crowd):
    """One dies, one leaves the cgroup, the cgroup goes: the same name thaws those that are left."""
    group, vs = crowd(3)
    firn.ok("freeze", "--cgroup", group.dir)
    vs[0].kill()
    vs[0].process.wait_dead()
    vs[0].proc.wait()
    group.close()
    assert not os.path.exists(group.dir)
    thawed = firn.ok("thaw", "--cgroup", group.dir, "--json").targets
    assert sorted(t["pid"] for t in thawed) == sorted(v.pid for v in vs[1:])
    whole(firn, vs[1:])


def test_a_tree_whose_root_has_ended(firn, victims):
    v = victims("sh", argv=["sh", "-c", "sleep 600 & sleep 600 & echo ready $!; wait"])
    assert len(firn.ok("freeze", "--tree", v.pid, "--json").targets) == 3
    children = [harness.Process(int(p)) for p in harness.read(f"/proc/{v.pid}/task/{v.pid}/children").split()]
    v.kill()
    v.process.wait_dead()
    assert len(firn.ok("thaw", "--tree", v.pid, "--json").targets) == 2
    for c in children:
        assert state_of(c.pid) == "S"
        c.kill()
        c.wait_dead()
        c.close()


def test_others_were_frozen_alone(firn, crowd):
    """A thaw by name takes whatever of it is held; a freeze refuses what is held already."""
    group, vs = crowd(2)
    firn.freeze(vs[0].pid)
    result = firn.run("freeze", "--cgroup", group.path)
    assert result.code == REFUSED and "already frozen" in result.one_line_error()
    assert runs(vs[1].pid)
    assert [t["pid"] for t in firn.ok("thaw", "--cgroup", group.path, "--json").targets] == [vs[0].pid]
    whole(firn, vs)
    result = firn.run("thaw", "--cgroup", group.path)
    assert result.code == NO_TARGET
    result.one_line_error()


def test_one_that_was_stopped_stays_so(firn, crowd):
    group, vs = crowd(2)
    vs[0].kill(signal.SIGSTOP)
    wait_until(lambda: state_of(vs[0].pid) == "T", 5, "it stops")
    for verb in ("freeze", "evict"):
        firn.ok(verb, "--cgroup", group.path)
        firn.ok("thaw", "--cgroup", group.path)
        assert state_of(vs[0].pid) == "T" and runs(vs[1].pid)
    vs[0].kill(signal.SIGCONT)
    whole(firn, vs)


def test_new_members_all_the_time(firn, victims):
    """A shell that forks without end: whoever is there is stopped, nobody new appears."""
    v = victims("sh", argv=["sh", "-c", "echo ready; while :; do sleep 0.01 & sleep 0.02; done"])
    for _ in range(5):
        firn.ok("freeze", "--tree", v.pid)
        pids = {int(p) for p in harness.read(f"/proc/{v.pid}/task/{v.pid}/children").split()}
        assert state_of(v.pid) == "T" and all(state_of(p) in "TZ" for p in pids)
        time.sleep(0.1)
        assert pids == {int(p) for p in harness.read(f"/proc/{v.pid}/task/{v.pid}/children").split()}
        firn.ok("thaw", "--tree", v.pid)
        before = set(pids)
        wait_until(lambda: {int(p) for p in harness.read(f"/proc/{v.pid}/task/{v.pid}/children").split()} - before, 10,
                   "it forks on")
    assert firn.list() == []


@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_one_ends_while_the_group_is_held(firn, crowd, verb):
    group, vs = crowd(3)
    firn.start(FIRN_SLEEP_AT="group.held:1500")
    command = firn.background(verb, "--cgroup", group.path, "--json")
    wait_until(lambda: all(state_of(v.pid) == "T" for v in vs), 10, "all are held")
    vs[1].kill()
    out, err = command.communicate(timeout=60)
    assert command.returncode == DONE, (out, err)
    left = [vs[0], vs[2]]
    assert sorted(t["pid"] for t in firn.list()) == sorted(v.pid for v in left)
    firn.ok("thaw", "--cgroup", group.path)
    whole(firn, left)


def test_all_end_while_the_group_is_held(firn, crowd):
    group, vs = crowd(2)
    firn.start(FIRN_SLEEP_AT="group.held:1500")
    command = firn.background("freeze", "--cgroup", group.path)
    wait_until(lambda: all(state_of(v.pid) == "T" for v in vs), 10, "all are held")
    for v in vs:
        v.kill()
    out, err = command.communicate(timeout=60)
    assert command.returncode == NO_TARGET and len(err.splitlines()) == 1, (out, err)
    wait_until(lambda: firn.list() == [], 5, "nothing is left")


@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_one_is_continued_while_the_group_is_held(firn, crowd, verb):
    """Somebody else lets it run: then the group is not frozen as one, and not at all."""
    group, vs = crowd(3)
    firn.start(FIRN_SLEEP_AT="group.held:1500")
    command = firn.background(verb, "--cgroup", group.path)
    wait_until(lambda: all(state_of(v.pid) == "T" for v in vs), 10, "all are held")
    vs[2].kill(signal.SIGCONT)
    out, err = command.communicate(timeout=60)
    assert command.returncode == harness.FAILED and "let run by somebody else" in err, (out, err)
    whole(firn, vs)
    assert firn.list() == []


PING = """import mmap, os, sys
# Two processes pass a number back and forth; each keeps its own count where all can see it.
shared = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 4096)
there, back = os.pipe(), os.pipe()
blob = os.urandom(4 << 20)
child = os.fork()
at = 8 if child else 0
get, put = (back[0], there[1]) if child else (there[0], back[1])
number = 0
if child:
    print("ready", child, flush=True)
    os.write(put, number.to_bytes(8, "little"))
while True:
    got = int.from_bytes(os.read(get, 8), "little")
    if child and got != number:
        sys.exit("lost")
    number = got + 1 if child else got
    shared[at:at + 8] = (int.from_bytes(shared[at:at + 8], "little") + 1).to_bytes(8, "little")
    os.write(put, number.to_bytes(8, "little"))
"""


@pytest.fixture
def pair(victims, tmp_path):
    """Two processes that ping-pong over pipes; counts() -> how far each of them is."""
    path = tmp_path / "counts"
    path.write_bytes(bytes(4096))
    with open(path, "r+b") as f:
        shared = mmap.mmap(f.fileno(), 4096)
    v = victims("ping", argv=[sys.executable, "-c", PING, str(path)])
    v.child = int(v.ready_line.split()[1])
    v.counts = lambda: (shared[0:8], shared[8:16])
    wait_until(lambda: v.counts()[0] != bytes(8), 10, "they play")
    return v


@pytest.mark.parametrize("verb", ["freeze", "evict"])
@pytest.mark.parametrize("point", ["group.held", "freeze.left", "group.evicted"])
def test_nobody_advances_once_one_is_evicted(firn, pair, verb, point):
    v = pair
    both = [v.pid, v.child]
    firn.start(FIRN_SLEEP_AT=f"{point}:600")
    command = firn.background(verb, "--tree", v.pid)
    wait_until(lambda: states(both) == ["T", "T"], 20, "both are stopped")
    first, looks = v.counts(), 0
    while command.poll() is None and v.counts() == first:
        looks += 1
        time.sleep(0.01)
    if verb == "evict" and v.counts() != first:
        # Let run: then all of it has been evicted.
        assert sorted(t["pid"] for t in firn.list() if t["state"] != "held") == sorted(both)
    else:
        assert v.counts() == first, "one of them went on"
    assert looks > 10
    out, err = command.communicate(timeout=60)
    assert command.returncode == DONE, (out, err)
    if verb == "freeze":
        assert states(both) == ["T", "T"]
        assert v.counts() == first, "one of them went on"
        firn.ok("thaw", "--tree", v.pid)
    now = v.counts()
    wait_until(lambda: all(a != b for a, b in zip(now, v.counts())), 20, "both play on")
    firn.thaw_all()
    assert v.proc.poll() is None and runs(v.pid) and runs(v.child)


def test_a_pipeline(firn, victims):
    """cat into sort into wc, of a shell: the result is that of all its input."""
    v = victims("sh", argv=["sh", "-c", "echo ready; cat | tr a b | sort | uniq -c | wc -l; echo done"])
    lines = 0
    for i in range(6):
        for _ in range(1000):
            v.send(f"line a{lines}")
            lines += 1
        verb = ("freeze", "evict")[i % 2]
        n = len(firn.ok(verb, "--tree", v.pid, "--json").targets)
        assert n >= 5, n
        firn.ok("thaw", "--tree", v.pid)
    v.proc.stdin.close()
    assert v.line(30).strip() == str(lines)
    assert v.line(30) == "done"


# Users

def test_a_users_request(firn, crowd, victims):
    """Only that user's processes of a group; where there is none, it is not permitted."""
    group, vs = crowd(2)
    mine = victims("heap", "--mib", 8, user=NOBODY)
    group.add(mine.pid)
    settle(mine.pid)
    firn.start()
    targets = firn.ok("freeze", "--cgroup", group.path, "--json", user=NOBODY).targets
    assert [t["pid"] for t in targets] == [mine.pid]
    assert all(runs(v.pid) for v in vs) and state_of(mine.pid) == "T"
    firn.ok("thaw", "--cgroup", group.path, user=NOBODY)
    targets = firn.ok("freeze", "--name", "heap", "--json", user=NOBODY).targets
    assert [t["pid"] for t in targets] == [mine.pid]
    firn.ok("thaw", "--name", "heap", user=NOBODY)
    firn.ok("freeze", "--cgroup", group.path)
    # Of root's group a user brings back only what is the user's own.
    targets = firn.ok("thaw", "--cgroup", group.path, "--json", user=NOBODY).targets
    assert [t["pid"] for t in targets] == [mine.pid]
    assert all(state_of(v.pid) == "T" for v in vs)
    result = firn.run("thaw", "--cgroup", group.path, user=NOBODY)
    assert result.code == NOT_PERMITTED, result
    firn.ok("thaw", "--cgroup", group.path)
    whole(firn, [*vs, mine])
    mine.stop()
    result = firn.run("freeze", "--cgroup", group.path, user=NOBODY)
    assert result.code == NOT_PERMITTED and "none of them is yours" in result.one_line_error(), result
    result = firn.run("freeze", "--name", "heap", user=NOBODY)
    assert result.code in (NOT_PERMITTED, NO_TARGET)
    whole(firn, vs)


def test_never_in_a_group(firn, crowd):
    """The agent and its keeper are not frozen with a group either."""
    group, vs = crowd(1)
    firn.start()
    keeper = firn.keeper.pid
    group.add(keeper)
    result = firn.run("freeze", "--cgroup", group.path)
    assert result.code == REFUSED and "keeper" in result.one_line_error(), result
    whole(firn, vs)
    with open(os.path.join(os.path.dirname(group.dir), "cgroup.procs"), "w") as f:
        f.write(str(keeper))


# The agent dies

POINTS = ["freeze.planned", "freeze.stopped", "hold.said", "hold.left", "group.held", "freeze.uffd", "freeze.gathered",
          "freeze.dropped", "freeze.leaving", "freeze.left", "group.evicted", "group.kept", "group.run"]


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("verb", ["freeze", "evict"])
@pytest.mark.parametrize("point", POINTS)
def test_killed(firn, crowd, locked, point, verb, nth):
    """Wherever it dies: the next agent finds the whole group frozen, or lets all of it run; each is whole."""
    group, vs = crowd(2)
    l = locked()
    group.add(l.pid)
    firn.start(FIRN_KILL_AT=f"{point}:{nth}")
    result = firn.run(verb, "--cgroup", group.path)
    if firn.agent:
        assert result.code == 0, result
        assert nth == 2 or (verb, point) in (("evict", "group.kept"), ("freeze", "group.run")), "never reached"
        firn.kill_agent()       # it would still end itself, in what follows
        firn.ok("thaw", "--cgroup", group.path)
    else:
        assert result.code == NO_AGENT, result
        firn.start()
        kept = [t["state"] for t in firn.list()]
        if "held" in kept:
            assert sorted(kept) == ["frozen", "frozen", "held"]
            assert verb == "freeze" and point == "group.kept"
            assert all(state_of(v.pid) == "T" for v in [*vs, l])
        else:
            assert "frozen" not in kept
            assert all(runs(v.pid) for v in [*vs, l]), states(v.pid for v in [*vs, l])
            for v in vs:
                v.cmd("touch-random")
        firn.thaw_all()
    l.cmd("hello")
    whole(firn, vs)
    assert firn.list() == []
    firn.ok("freeze", "--cgroup", group.path)
    firn.ok("thaw", "--cgroup", group.path)
    whole(firn, vs)


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("point", ["thaw.set", "thaw.stopped", "thaw.cont.mask", "thaw.cont.sent", "group.run", "thaw.running",
                                   "thaw.block", "thaw.left"])
def test_killed_in_a_thaw(firn, crowd, locked, point, nth):
    group, vs = crowd(2)
    l = locked()
    group.add(l.pid)
    firn.ok("freeze", "--cgroup", group.path)
    firn.kill_agent()
    firn.start(FIRN_KILL_AT=f"{point}:{nth}")
    result = firn.run("thaw", "--cgroup", group.path)
    assert result.code == (0 if firn.agent else NO_AGENT), result
    if firn.agent:
        firn.kill_agent()       # it would still end itself, in what follows
    firn.thaw_all()
    l.cmd("hello")
    whole(firn, vs)
    assert firn.list() == []


# Verbs that do not change memory

def test_explain_and_priority(firn, crowd):
    group, vs = crowd(2)
    pids = sorted(v.pid for v in vs)
    firn.start()
    result = firn.ok("explain", "--cgroup", group.path, "--json").json
    assert sorted(t["pid"] for t in result["targets"]) == pids
    firn.ok("priority", "--cgroup", group.path, "7")
    for t in firn.ok("explain", "--name", "heap", "--json").json["targets"]:
        assert t["pid"] in pids and t["policy"]["priority"] == 7, t
    result = firn.run("priority", "--cgroup", "/no-such-group", "7")
    assert result.code == NO_TARGET and "no cgroup" in result.one_line_error()
    result = firn.run("explain", "--name", "no-such-name")
    assert result.code == NO_TARGET, result
