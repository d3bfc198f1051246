# SPDX-License-Identifier: MIT
"""A target that is evicted again writes what changed: the pack of the eviction before is kept, and looked into."""
import os
import random
import signal

import pytest

import harness
from harness import DONE, LOST, PAGE, assert_no_trace, wait_until

MIB = 1 << 20


def changed(v, share):
    """Change about so much of its pages."""
    pages = int(v.cmd("verify").split()[0])
    v.cmd(f"mutate {int(pages * share)}")
    return pages


def first_time(firn, v):
    """Evicted and thawed once: what that wrote."""
    target = firn.freeze(v.pid)
    assert "base" not in target["pack"]
    firn.thaw(v.pid)
    assert len(firn.kept()) == 1
    assert_no_trace(firn, v.pid)
    return target


@pytest.mark.parametrize("share", [0, 0.01, 0.1])
def test_bytes_written(firn, victims, share):
    v = victims("heap", "--mib", 128)
    first = first_time(firn, v)
    pages = changed(v, share)
    again = firn.freeze(v.pid)
    assert again["pack"]["base"] == first["pack"]["generation"]
    # Its libraries' pages and stacks change by themselves; the index is a few bytes for each page.
    limit = pages * share * PAGE + first["pages"]["total"] * 8 + 2 * MIB
    assert again["io"]["writeBytes"] < limit, f"{again['io']} of {first['io']}"
    assert again["io"]["writeBytes"] == os.path.getsize(firn.packs()[0])
    assert again["pack"]["reused"] > (1 - share) * 0.9 * 0.6 * pages * PAGE
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)
    assert firn.kept() == [first["pack"]["path"]]
    assert firn.ok("list", "--json").json["keptBytes"] == first["pack"]["bytes"]


def test_mostly_changed(firn, victims):
    """More than half of it is new: the next one is whole again, and is what the one after is compared with."""
    v = victims("heap", "--mib", 32)
    first = first_time(firn, v)
    changed(v, 2)
    second = firn.freeze(v.pid)
    assert second["pack"]["base"] == first["pack"]["generation"]
    firn.thaw(v.pid)
    assert firn.kept() == []
    third = firn.freeze(v.pid)
    assert "base" not in third["pack"]
    firn.thaw(v.pid)
    assert firn.kept() == [third["pack"]["path"]]
    fourth = firn.freeze(v.pid)
    assert fourth["pack"]["base"] == third["pack"]["generation"]
    assert fourth["io"]["writeBytes"] < third["io"]["writeBytes"] / 8
    firn.thaw(v.pid)
    v.cmd("verify")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cipher", ["aes-256-ocb", "off"])
def test_many_rounds(firn, victims, seed, cipher):
    """Every page as the victim's own table says, whatever happens between evictions."""
    firn.start(FIRN_ENCRYPTION=cipher)
    rng = random.Random(seed)
    v = victims("heap", "--mib", 24, "--seed", 77 + seed)
    reused = 0
    for _ in range(12):
        target = (firn.freeze if rng.random() < 0.5 else firn.evict)(v.pid)
        reused += target["pack"].get("reused", 0)
        if target["state"] == "evicted":
            for command in rng.sample(["touch-random", "fork 2", "mutate 300", "kernel 50", "touch-order"], rng.randrange(3)):
                v.cmd(command)
        if rng.random() < 0.2:
            firn.kill_agent()
            firn.start(FIRN_ENCRYPTION=cipher)
        firn.thaw(v.pid)
        for command in rng.sample(["mutate 50", "mutate 2000", "fork 1", "verify"], rng.randrange(3)):
            v.cmd(command)
    assert reused, "it was about reuse"
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


@pytest.mark.parametrize("seed", range(2))
def test_layout_between(firn, victims, seed):
    """Mappings move, go and come between and during evictions."""
    v = victims("layout", "--seed", 900 + seed)
    for n in range(6):
        (firn.freeze if n % 2 else firn.evict)(v.pid)
        if not n % 2:
            v.cmd("layout 200")
        firn.thaw(v.pid)
        v.cmd("layout 100")
        v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_children_live_on_both(firn, victims):
    """Forked while it is evicted upon an earlier pack; the parent is thawed and evicted once more."""
    v = victims("forker", "--mib", 24)
    first_time(firn, v)
    v.cmd("mutate 200")
    assert firn.evict(v.pid)["pack"]["reused"]
    v.cmd("hold 2")
    firn.thaw(v.pid)
    assert len(firn.packs()) == 1, "they live on it"
    assert firn.evict(v.pid)["pack"]["reused"]
    v.cmd("fork 2")
    v.cmd("release")
    firn.thaw_all()
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_agent_killed_between(firn, victims):
    """The next agent knows of the pack, and reuses it."""
    v = victims("heap", "--mib", 32)
    first = first_time(firn, v)
    firn.kill_agent()
    firn.start()
    assert firn.kept() == [first["pack"]["path"]]
    again = firn.evict(v.pid)
    assert again["io"]["writeBytes"] < first["io"]["writeBytes"] / 8
    # And while both are needed.
    firn.kill_agent()
    firn.start()
    v.cmd("touch-random")
    shown = firn.show(v.pid)
    assert shown["pack"]["base"] == first["pack"]["generation"] and not shown["pages"]["lost"]
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_agent_and_keeper_killed_between(firn, victims):
    """The key is gone: what is kept is of no use, and goes."""
    v = victims("heap", "--mib", 32)
    first = first_time(firn, v)
    firn.keeper.kill()
    firn.kill_agent()
    firn.start()
    again = firn.freeze(v.pid)
    assert "base" not in again["pack"]
    assert again["io"]["writeBytes"] > first["io"]["writeBytes"] / 2
    firn.thaw(v.pid)
    v.cmd("verify")
    assert firn.kept() == [again["pack"]["path"]]
    assert_no_trace(firn, v.pid)


def spoil(path, how):
    size = os.path.getsize(path)
    if how == "deleted":
        os.unlink(path)
    elif how == "truncated":
        os.truncate(path, size // 2 // 4096 * 4096)
    elif how == "replaced":
        data = harness.read(path, "rb")
        os.unlink(path)
        with open(path, "wb") as f:
            f.write(data)
    else:
        at = {"header": 40, "footer": size - 4000, "index": size - 12288}[how]
        with open(path, "r+b") as f:
            f.seek(at)
            bits = f.read(8)
            f.seek(at)
            f.write(bytes(b ^ 0x5a for b in bits))


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("how", ["deleted", "truncated", "replaced", "header", "footer", "index"])
def test_spoiled_between(firn, victims, how, restart):
    """It is not trusted: everything is written anew."""
    v = victims("heap", "--mib", 32)
    first = first_time(firn, v)
    spoil(firn.kept()[0], how)
    if restart:
        firn.kill_agent()
        firn.start()
    again = firn.freeze(v.pid)
    if how == "replaced" and restart:
        assert again["pack"]["reused"], "the next agent finds it as it was"
    else:
        assert "base" not in again["pack"]
        assert again["io"]["writeBytes"] > first["io"]["writeBytes"] / 2
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_damaged_block(firn, victims):
    """Damage inside of a block is not seen before it is read: those pages are lost, as in any pack, and nothing of it
    is used once more."""
    v = victims("heap", "--mib", 64)
    first_time(firn, v)
    base = firn.kept()[0]
    with open(base, "r+b") as f:
        f.seek(os.path.getsize(base) // 2)
        f.write(b"\xa5" * 64)
    firn.evict(v.pid)
    words = v.cmd("verify-bus").split()
    assert 0 < int(words[2]) < int(words[0]) // 8, words
    result = firn.run("thaw", v.pid)
    assert result.code == LOST, result
    assert firn.kept() == []
    assert int(v.cmd("verify-bus").split()[2]) == int(words[2])


@pytest.fixture
def small_store(firn):
    """A store of a few MiB."""
    mounted = []

    def make(mib):
        image = os.path.join(firn.runtime, "store.img")
        with open(image, "wb") as f:
            f.truncate(mib * MIB)
        os.makedirs(firn.store, exist_ok=True)
        for argv in (["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image], ["mount", "-o", "loop", image, firn.store]):
            harness.subprocess.run(argv, check=True, timeout=60)
        mounted.append(firn.store)
        os.rmdir(os.path.join(firn.store, "lost+found"))
    yield make
    for path in mounted:
        if firn.agent:
            firn.kill_agent()
        if firn.keeper:
            firn.keeper.kill()
            wait_until(lambda: not firn.keeper, 10, "the keeper ends")
        harness.subprocess.run(["umount", path], check=True, timeout=60)


def used(firn):
    return sum(os.path.getsize(p) for p in firn.kept())


def test_share_of_the_store(firn, victims, small_store):
    """What is kept takes no more than half of what would be free without it; the oldest go first."""
    small_store(120)
    order = []
    for _ in range(6):
        v = victims("heap", "--mib", 24)
        order.append(v)
        firn.freeze(v.pid)
        firn.thaw(v.pid)
        st = os.statvfs(firn.store)
        assert used(firn) <= (st.f_bavail * st.f_frsize + used(firn)) / 2 + MIB
    pids = [int(n.split("-")[0]) for n in firn.records()]
    assert 1 < len(pids) < 6
    assert sorted(pids) == sorted(v.pid for v in order[-len(pids):])


def test_no_share(firn, victims):
    firn.start("--keep", 0)
    v = victims("heap", "--mib", 16)
    for _ in range(2):
        assert "base" not in firn.freeze(v.pid)["pack"]
        firn.thaw(v.pid)
        assert firn.kept() == firn.packs() == []


def test_room_for_an_eviction(firn, victims, small_store):
    """One that lacks room has that of what is kept."""
    small_store(100)
    kept = [victims("heap", "--mib", 32) for _ in range(2)]
    for v in kept:
        firn.freeze(v.pid)
        firn.thaw(v.pid)
    assert len(firn.kept()) == 2
    large = victims("heap", "--mib", 128)
    target = firn.freeze(large.pid)
    st = os.statvfs(firn.store)
    assert target["pack"]["bytes"] + used(firn) <= 100 * MIB
    assert len(firn.kept()) < 2
    firn.thaw(large.pid)
    for v in [*kept, large]:
        v.cmd("verify")


def test_ends_with_its_process(firn, victims):
    v = victims("heap", "--mib", 16)
    first_time(firn, v)
    v.end()
    wait_until(lambda: not firn.kept() and not firn.packs(), 20, "what was kept of it goes")


def test_ends_with_the_agent(firn, victims):
    v = victims("heap", "--mib", 16)
    first_time(firn, v)
    agent = firn.agent
    agent.kill(signal.SIGTERM)
    agent.wait_dead()
    assert firn.kept() == firn.packs() == []


def test_other_kinds(firn, victims):
    """Packs in memory and direct ones are written whole, and what was kept stays."""
    v = victims("heap", "--mib", 32)
    first = first_time(firn, v)
    for option in ("--place=ram", "--kind=direct"):
        target = firn.ok("freeze", v.pid, option, "--json").target
        assert "base" not in target["pack"]
        firn.thaw(v.pid)
        assert firn.kept() == [first["pack"]["path"]]
    assert firn.freeze(v.pid)["pack"]["reused"]
    firn.thaw(v.pid)
    v.cmd("verify")


def test_working_set_from_both(firn, victims):
    """The set is partly in the base, partly new: it is brought in before the target runs all the same."""
    v = victims("heap", "--mib", 64)
    firn.evict(v.pid)
    v.cmd("touch-random")
    firn.thaw(v.pid)
    size = 0
    for _ in range(3):
        v.cmd("mutate 400")
        target = firn.evict(v.pid)
        assert target["pages"]["workingSet"]
        size = max(size, target["pack"].get("reused", 0))
        v.cmd("touch-random")
        firn.thaw(v.pid)
        v.cmd("verify")
    assert size
    assert_no_trace(firn, v.pid)
