# SPDX-License-Identifier: MIT
"""Every victim in every mode.  Control, without Firn, comes first: it must pass, or the others mean nothing."""
import os
import signal
import time

import pytest

import harness
from harness import assert_no_trace, assert_same, anon_kib, settle, snapshot, state_of, wait_until


class Kind:
    def __init__(self, *args, prog=None, still=True, maps=True, drop=0.5, user=None, long_modes=(), look="touch-random"):
        self.args, self.prog, self.still, self.maps, self.drop = args, prog, still, maps, drop
        self.user, self.long_modes, self.look = user, long_modes, look


# still: nothing runs between two commands, so all of /proc can be compared.
# maps: looking at the memory leaves the mappings as they are.
# drop: of its private memory, at least this part must be gone after a freeze.
SLOW = ("freeze-cont", "evict-thaw-touching", "agent-killed-frozen", "cycles", "calls", "agent-killed-touching")
KINDS = {
    "heap": Kind("--mib", 512, drop=0.9, long_modes=SLOW),
    "small": Kind("--mib", 48, prog="heap", drop=0.8),
    "big": Kind(drop=0.95, long_modes=SLOW + ("agent-killed", "evict")),
    "sparse": Kind(drop=0.9),
    "vmas": Kind(maps=False, long_modes=("freeze-cont", "agent-killed-frozen", "agent-killed-touching", "calls")),
    "threads": Kind(still=False, maps=False, drop=0.3),
    "hugepages": Kind("--mib", 128, drop=0.9),
    "stack": Kind(maps=False, drop=0.2),
    "forker": Kind(drop=0.8),
    "layout": Kind(maps=False, drop=0.6, look="layout-touch"),
    "seccomp": Kind(still=False, drop=0.7),
    "nonroot": Kind("--nobody", "--mib", 48, prog="heap", drop=0.8),
    "nobody": Kind("--mib", 48, prog="heap", drop=0.8, user=harness.NOBODY),
}


def mode_control(firn, v, kind):
    v.cmd("verify")
    for _ in range(2):
        v.cmd(kind.look)
        if v.name != "seccomp":
            v.cmd("mutate")
        v.cmd("touch-order")
        v.cmd("verify")


def take(firn, v, kind, verb):
    """Freeze or evict, and see that its memory went."""
    before = anon_kib(v.pid)
    target = getattr(firn, verb)(v.pid)
    if verb == "freeze":
        # Its SIGSTOP is before it; it may not have had a processor to take it.
        wait_until(lambda: state_of(v.pid) in "TD", 10, "it is stopped")
        after = anon_kib(v.pid)
        assert after <= before * (1 - kind.drop), f"of {before} KiB, {after} KiB stayed"
    assert harness.status_of(v.pid)["TracerPid"] == "0"
    assert len(firn.packs()) == 1, firn.packs()
    assert target["pid"] == v.pid and target["pages"]["total"] > 0
    return target


def finish(firn, v, kind, snap=None):
    assert_no_trace(firn, v.pid)
    if snap:
        # It has worked in between: not the registers of its waiting calls.
        assert_same(snap, v.pid, calls=False, maps=kind.maps)
    v.cmd("verify")


def look_over(v, kind, calls):
    return snapshot(v.pid, calls=calls and kind.still, maps=kind.maps)


def mode_freeze(firn, v, kind):
    snap = snapshot(v.pid, calls=kind.still)
    take(firn, v, kind, "freeze")
    v.send("verify")
    assert v.silent(0.3), "a frozen process answered"
    firn.thaw(v.pid)
    v.reply()
    assert_no_trace(firn, v.pid)
    # Once more with nothing in between: the same in every respect, mappings too.
    if kind.maps or v.name == "vmas":
        snap = snapshot(v.pid, calls=kind.still)
        take(firn, v, kind, "freeze")
        firn.thaw(v.pid)
        assert_no_trace(firn, v.pid)
        assert_same(snap, v.pid, calls=kind.still)
    v.cmd("verify")
    v.cmd(kind.look)
    if v.name != "seccomp":
        v.cmd("mutate")
    v.cmd("verify")


def mode_freeze_cont(firn, v, kind):
    """Somebody else continues it: it runs, and pages in by itself."""
    take(firn, v, kind, "freeze")
    v.kill(signal.SIGCONT)
    v.cmd(kind.look)
    firn.thaw(v.pid)
    finish(firn, v, kind)


def mode_evict(firn, v, kind):
    snap = look_over(v, kind, calls=False)
    take(firn, v, kind, "evict")
    v.cmd(kind.look)
    if v.name != "seccomp":
        v.cmd("mutate")
    v.cmd("verify")
    firn.thaw(v.pid)
    finish(firn, v, kind, None if v.name in ("forker", "layout", "threads", "stack") else snap)


def mode_evict_thaw_touching(firn, v, kind):
    take(firn, v, kind, "evict")
    v.send(kind.look)
    firn.thaw(v.pid)
    v.reply()
    finish(firn, v, kind)


def mode_agent_killed(firn, v, kind):
    """It waits for the next agent, which serves on."""
    take(firn, v, kind, "evict")
    firn.kill_agent()
    v.send(kind.look)
    v.silent(0.2)
    firn.thaw_all()
    v.reply()
    finish(firn, v, kind)


def mode_agent_killed_touching(firn, v, kind):
    """Killed while it serves faults; the next agent only serves, and thaws later."""
    take(firn, v, kind, "evict")
    v.send(kind.look)
    time.sleep(0.03)
    firn.kill_agent()
    v.silent(0.1)
    firn.start()
    v.reply()
    v.cmd("verify")
    firn.thaw(v.pid)
    finish(firn, v, kind)


def mode_agent_killed_frozen(firn, v, kind):
    snap = look_over(v, kind, calls=True)
    take(firn, v, kind, "freeze")
    firn.kill_agent()
    assert v.silent(0.1)
    firn.thaw_all()
    assert_same(snap, v.pid, calls=kind.still, maps=kind.maps)
    finish(firn, v, kind)


def mode_cycles(firn, v, kind):
    for i in range(3):
        take(firn, v, kind, "freeze")
        firn.thaw(v.pid)
        if v.name != "seccomp":
            v.cmd("mutate")
        take(firn, v, kind, "evict")
        v.cmd(kind.look)
        firn.thaw(v.pid)
        v.cmd("verify")
    finish(firn, v, kind)


def mode_calls(firn, v, kind):
    """System calls, threads and children meet pages that are away."""
    commands = ["kernel 300", "threads 4", "fork 2"]
    for command in commands:
        take(firn, v, kind, "evict")
        v.cmd(command)
        firn.thaw(v.pid)
        v.cmd("verify")
    finish(firn, v, kind)


MODES = {
    "control": mode_control,
    "freeze": mode_freeze,
    "freeze-cont": mode_freeze_cont,
    "evict": mode_evict,
    "evict-thaw-touching": mode_evict_thaw_touching,
    "agent-killed": mode_agent_killed,
    "agent-killed-touching": mode_agent_killed_touching,
    "agent-killed-frozen": mode_agent_killed_frozen,
    "cycles": mode_cycles,
    "calls": mode_calls,
}


def cases():
    for mode in MODES:
        for name, kind in KINDS.items():
            if mode == "calls" and name in ("seccomp", "threads", "stack"):
                continue
            marks = [pytest.mark.long] if mode in kind.long_modes else []
            yield pytest.param(name, mode, id=f"{mode}-{name}", marks=marks)


@pytest.mark.limit(300)
@pytest.mark.parametrize("name, mode", list(cases()))
def test_victim(name, mode, request, victims):
    kind = KINDS[name]
    if kind.user or kind.prog == "heap" and "--nobody" in kind.args or name == "seccomp":
        if os.geteuid() != 0:
            pytest.skip("needs root: it becomes another user")
    firn = request.getfixturevalue("firn") if mode != "control" else None
    v = victims(kind.prog or name, *kind.args, user=kind.user)
    if kind.still and mode != "control":
        settle(v.pid)
    MODES[mode](firn, v, kind)
    v.end()


def spoiling(victims, how):
    v = victims("heap", "--mib", 8)
    v.cmd("verify")
    v.cmd(f"spoil {how}")
    v.send("verify")
    assert v.line(20).startswith("bad 1 pages")


@pytest.mark.parametrize("how", ["page", "word"])
def test_a_spoiled_page_is_found(victims, how):
    """The oracle itself: a page that became zero, or one bit of one word."""
    spoiling(victims, how)


def test_huge_pages_come_back(firn, victims):
    """After a thaw, huge pages are collapsed again."""
    if "[never]" in harness.read("/sys/kernel/mm/transparent_hugepage/enabled"):
        pytest.skip("transparent huge pages are off")
    v = victims("hugepages", "--mib", 64)

    def huge():
        return sum(int(line.split()[1]) for line in harness.read(f"/proc/{v.pid}/smaps").splitlines()
                   if line.startswith("AnonHugePages:"))
    before = huge()
    assert before >= 32 << 10
    firn.freeze(v.pid)
    assert huge() == 0
    firn.thaw(v.pid)
    if not harness.pagemap_scans():
        v.cmd("verify")
        return
    assert huge() >= before * 3 // 4, f"huge pages: {before} KiB before, {huge()} KiB now"
    v.cmd("verify")


def test_no_huge_pages_of_what_was_given_back(firn, victims):
    """What the target gives back while it is evicted does not return with a huge page."""
    v = victims("hugepages", "--mib", 64)
    before = anon_kib(v.pid)
    firn.evict(v.pid)
    v.cmd("give-back")
    firn.thaw(v.pid)
    assert anon_kib(v.pid) < before * 3 // 4
    v.cmd("verify")


def test_sparse_holes_stay_zero(firn, victims):
    v = victims("sparse")
    before = anon_kib(v.pid)
    firn.evict(v.pid)
    v.cmd("holes 3000")
    firn.thaw(v.pid)
    assert anon_kib(v.pid) < before + 4096, "thawing made memory where there was none"
    v.cmd("holes 3000")
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_stack_grows_after_evict(firn, victims):
    v = victims("stack")
    for _ in range(2):
        firn.evict(v.pid)
        v.cmd("grow 3000")
        v.cmd("tgrow")
        firn.thaw(v.pid)
        v.cmd("unwind")
    assert_no_trace(firn, v.pid)


def test_threads_make_progress(firn, victims):
    v = victims("threads")
    for verb in ("freeze", "evict", "freeze"):
        getattr(firn, verb)(v.pid)
        if verb == "evict":
            v.cmd("alive")
        firn.thaw(v.pid)
        v.cmd("alive")
    v.cmd("verify")


def test_threads_end_while_evicted(firn, victims):
    """64 threads exit and are joined while their stacks and tid words are away."""
    v = victims("threads")
    for _ in range(3):
        firn.evict(v.pid)
        v.cmd("verify")
        firn.thaw(v.pid)


@pytest.mark.parametrize("seed", range(1, 6))
def test_layout(firn, victims, seed):
    """The address space changes at random while its pages are away, cycle after cycle."""
    v = victims("layout", "--seed", seed)
    for _ in range(3):
        firn.evict(v.pid)
        v.cmd("layout 400")
        v.cmd("verify")
        v.cmd("layout 200")
        firn.thaw(v.pid)
        v.cmd("verify")
        v.cmd("layout 100")
    assert_no_trace(firn, v.pid)


@pytest.mark.long
@pytest.mark.limit(600)
@pytest.mark.parametrize("seed", range(100, 140))
def test_layout_long(firn, victims, seed):
    v = victims("layout", "--seed", seed)
    for i in range(6):
        firn.evict(v.pid)
        v.cmd("layout 1500")
        if i % 2:
            firn.kill_agent()
            v.send("layout-touch 300")
            firn.start()
            v.reply()
        v.cmd("touch-random")
        firn.thaw(v.pid)
        v.cmd("layout-touch 500")
    assert_no_trace(firn, v.pid)


@pytest.mark.parametrize("command", ["grow-split 3", "protect-part"])
@pytest.mark.parametrize("evicted", [False, True])
def test_one_change(request, victims, command, evicted):
    """Single changes of layout that once went wrong, alone."""
    v = victims("layout", "--seed", 1)
    if evicted:
        firn = request.getfixturevalue("firn")
        firn.evict(v.pid)
    v.cmd(command, timeout=20)
    v.cmd("verify", timeout=40)
    if evicted:
        firn.thaw(v.pid)
        v.cmd("verify")
        assert_no_trace(firn, v.pid)


def test_layout_while_thawing(firn, victims):
    v = victims("layout")
    for _ in range(4):
        firn.evict(v.pid)
        v.send("layout 500")
        firn.thaw(v.pid)
        v.reply()
        v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_layout_agent_killed(firn, victims):
    v = victims("layout")
    firn.evict(v.pid)
    v.send("layout 1000")
    for _ in range(4):
        time.sleep(0.02)
        if firn.agent:
            firn.kill_agent()
        firn.start()
    v.reply()
    v.cmd("verify")
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


@pytest.mark.parametrize("what", ["fork 4", "fork-write", "fork-exit 30", "vfork-exec 5", "fork-exec"])
def test_fork_while_evicted(firn, victims, what):
    v = victims("forker")
    firn.evict(v.pid)
    v.cmd(what)
    v.cmd("verify")
    firn.thaw(v.pid)
    assert_no_trace(firn, v.pid)
    v.cmd("verify")


@pytest.mark.parametrize("event", ["nothing", "thaw", "kill", "kill-thaw-all", "kill-keep"])
def test_children_outlive_the_eviction(firn, victims, event):
    """Children made while evicted look at their memory only after something happened."""
    v = victims("forker")
    firn.evict(v.pid)
    child = int(v.cmd("hold 3"))
    if event == "thaw":
        firn.thaw(v.pid)
    elif event == "kill":
        firn.kill_agent()
        firn.start()
    elif event == "kill-thaw-all":
        firn.kill_agent()
        firn.thaw_all()
    elif event == "kill-keep":
        firn.kill_agent()
        v.send("release")
        v.silent(0.2)
        firn.start()
        v.reply()
        v.cmd("hold 1")
    v.cmd("release")
    assert not os.path.exists(f"/proc/{child}")
    v.cmd("verify")
    firn.thaw_all()
    assert_no_trace(firn, v.pid)
    v.cmd("verify")


def test_forks_while_thawing(firn, victims):
    v = victims("forker")
    for _ in range(4):
        firn.evict(v.pid)
        v.send("fork 4")
        firn.thaw(v.pid)
        v.reply()
        v.cmd("verify")
    firn.thaw_all()
    assert_no_trace(firn, v.pid)


@pytest.mark.parametrize("cipher", ["off", "aes-256-gcm", "aes-256-ocb"])
def test_ciphers(firn, victims, cipher):
    v = victims("heap", "--mib", 32)
    firn.start(FIRN_ENCRYPTION=cipher)
    target = firn.freeze(v.pid)
    assert target["pack"]["cipher"] == cipher
    firn.thaw(v.pid)
    v.cmd("verify")
    firn.evict(v.pid)
    firn.kill_agent()
    firn.start(FIRN_ENCRYPTION=cipher)
    v.cmd("touch-random")
    firn.thaw(v.pid)
    v.cmd("verify")


def test_accounts_add_up(firn, victims):
    """The numbers a freeze reports agree with each other and with the pack file."""
    v = victims("heap", "--mib", 64)
    target = firn.freeze(v.pid)
    pages = target["pages"]
    assert pages["evicted"] + pages["zero"] + pages["filled"] <= pages["total"]
    assert pages["total"] * harness.PAGE >= 64 << 20
    assert pages.get("lost", 0) == 0
    assert target["memory"]["before"] - target["memory"]["after"] >= (64 << 20) * 0.9
    pack = target["pack"]
    size = os.stat(pack["path"]).st_size
    assert abs(size - pack["bytes"]) <= 8192, (size, pack)
    assert os.stat(pack["path"]).st_mode & 0o777 == 0o600
    assert os.stat(firn.store).st_mode & 0o777 == 0o700
    assert pack["bytes"] < 0.6 * pages["total"] * harness.PAGE, "half of it compresses"
    assert target["io"]["writeCalls"] == -(-size // (8 << 20)), "one write for 8 MiB"
    shown = firn.show(v.pid)
    assert shown["state"] == "frozen" and shown["pages"]["total"] == pages["total"]
    assert [t["pid"] for t in firn.list()] == [v.pid]
    target = firn.thaw(v.pid)
    assert target["pages"].get("evicted", 0) == 0
    assert target["io"]["readCalls"] <= 8 + target["io"]["faults"], "a small pack by eighths, a fault by one call"
    v.cmd("verify")


def test_few_reads_back(firn, victims):
    """One read for 8 MiB stored, and not a byte twice but for faults; with a working set, two more.  Of a whole pack: one
    that is made upon an earlier one is read from two files."""
    firn.env["FIRN_KEEP"] = "0"
    v = victims("heap", "--mib", 160)
    for known in (False, True):
        size = firn.freeze(v.pid)["pack"]["bytes"]
        assert size > 64 << 20
        io = firn.thaw(v.pid)["io"]
        assert io["readCalls"] <= -(-size // (8 << 20)) + io["faults"] + 2 * known
        assert io["readBytes"] <= size + (io["faults"] + 1) * (72 << 10) + known * (16 << 20)
    v.cmd("verify")


def test_dry_run_touches_nothing(firn, victims):
    v = victims("heap", "--mib", 16)
    settle(v.pid)
    snap = snapshot(v.pid)
    before = anon_kib(v.pid)
    for verb in ("freeze", "evict"):
        result = firn.ok(verb, v.pid, "--dry-run", "--json")
        assert result.target["pid"] == v.pid
        assert_same(snap, v.pid)
        assert anon_kib(v.pid) >= before
        assert firn.packs() == []
    firn.freeze(v.pid)
    firn.ok("thaw", v.pid, "--dry-run", "--json")
    assert state_of(v.pid) == "T"
    firn.thaw(v.pid)
    v.cmd("verify")


def test_several_targets_and_a_tree(firn, victims):
    vs = [victims("heap", "--mib", 8) for _ in range(4)]
    targets = firn.ok("freeze", *[v.pid for v in vs], "--json").targets
    assert sorted(t["pid"] for t in targets) == sorted(v.pid for v in vs)
    assert all(t["state"] == "frozen" for t in targets)
    firn.thaw_all()
    for v in vs:
        v.cmd("verify")
        assert_no_trace(firn, v.pid)
    v = victims("forker", "--mib", 8)
    child = int(v.cmd("hold 2"))
    targets = firn.ok("freeze", "--tree", v.pid, "--json").targets
    assert len(targets) == 3 and child in [t["pid"] for t in targets]
    firn.thaw_all()
    v.cmd("release")
    v.cmd("verify")
    assert firn.packs() == []


def test_one_fails_others_do_not(firn, victims):
    v = victims("heap", "--mib", 8)
    result = firn.run("freeze", v.pid, 1, "--json")
    assert result.code == harness.SEVERAL, result
    assert state_of(v.pid) == "T"
    firn.thaw(v.pid)
    v.cmd("verify")
