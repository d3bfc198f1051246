# SPDX-License-Identifier: MIT
"""The working set: recorded, kept, laid out first, in memory before the target runs."""
import ctypes
import json
import os

import pytest

from harness import PAGE, read, state_of, wait_until, assert_no_trace, pagemap

PRESENT = 1 << 63
libc = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


# Of a victim's pages, some are zero or filled with one word: they are in no block, and in no set.
STORED = 0.6


def ask_for(pid, address):
    """Touch one page of a process from outside, by a fault that its pager answers."""
    word = ctypes.create_string_buffer(8)
    local, remote = Iovec(ctypes.addressof(word), 8), Iovec(address, 8)
    n = libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    assert n == 8, os.strerror(ctypes.get_errno())


def pages_of(v, count, skip=0):
    """Addresses of pages that an eviction takes, seven apart, from the largest anonymous mapping."""
    largest = max((tuple(int(x, 16) for x in line.split()[0].split("-"))
                   for line in read(f"/proc/{v.pid}/maps").splitlines()
                   if " rw-p " in line and line.split()[4] == "0"), key=lambda m: m[1] - m[0])
    first, last = largest
    there = [first + i * PAGE for i, w in enumerate(pagemap(v.pid, first, (last - first) // PAGE)) if w & PRESENT]
    chosen = there[skip * 7:(skip + count) * 7:7]
    assert len(chosen) == count
    return chosen


def present(pid, pages):
    return sum(bool(pagemap(pid, a, 1)[0] & PRESENT) for a in pages)


def sets(firn):
    return [n for n in os.listdir(os.path.join(firn.runtime, "private")) if n.endswith(".set")]


def test_in_memory_before_it_runs(firn, victims):
    v = victims("heap", "--mib", 64)
    pages = pages_of(v, 400)
    firn.start(FIRN_SLEEP_AT="thaw.set:3000")
    firn.evict(v.pid)
    for a in pages:
        ask_for(v.pid, a)
    assert present(v.pid, pages) == len(pages)
    target = firn.thaw(v.pid)
    assert target["pages"]["recorded"] >= len(pages) * STORED
    size = target["pages"]["workingSet"]
    assert size >= len(pages) * STORED
    frozen = firn.freeze(v.pid)
    assert frozen["pages"]["workingSet"] == size
    left = present(v.pid, pages)        # what was read as zeros, or the kernel itself needs
    assert left < len(pages) // 4
    thaw = firn.background("thaw", v.pid, "--json")
    try:
        # A part is held back; never half of it, but by a chance of one in millions.
        wait_until(lambda: present(v.pid, pages) > left + len(pages) * STORED / 2, 20, "the working set is brought in")
        assert state_of(v.pid) in "tT", "it ran before"
        thaw.communicate(timeout=60)
        assert thaw.returncode == 0
    finally:
        thaw.kill()
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_neighbours_stay_out(firn, victims):
    """What was not asked for is not in it: a fault brings back its own page while the set is recorded."""
    v = victims("heap", "--mib", 32)
    pages = pages_of(v, 100)
    firn.evict(v.pid)
    for a in pages:
        ask_for(v.pid, a)
    assert present(v.pid, [a + PAGE for a in pages]) < len(pages) // 2
    assert len(pages) * STORED <= firn.thaw(v.pid)["pages"]["workingSet"] < 3 * len(pages)
    v.cmd("verify")


def test_an_agent_killed_while_it_records(firn, victims):
    v = victims("heap", "--mib", 32)
    pages = pages_of(v, 200)
    firn.evict(v.pid)
    for a in pages[:100]:
        ask_for(v.pid, a)
    firn.kill_agent()
    firn.start()
    for a in pages[100:]:
        ask_for(v.pid, a)
    target = firn.thaw(v.pid)
    assert target["pages"]["recorded"] >= len(pages) * STORED
    firn.kill_agent()
    firn.start()
    assert firn.freeze(v.pid)["pages"]["workingSet"] == target["pages"]["workingSet"]
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_it_follows_the_target(firn, victims):
    """What is asked for now comes in, even where the set was another."""
    v = victims("heap", "--mib", 64)
    old, new = pages_of(v, 300), pages_of(v, 300, skip=300)
    for pages in (old, new):
        firn.evict(v.pid)
        for a in pages:
            ask_for(v.pid, a)
        firn.thaw(v.pid)
    assert firn.freeze(v.pid)["pages"]["workingSet"] >= len(new) * STORED
    firn.kill_agent()
    firn.start(FIRN_KILL_AT="thaw.set")
    assert firn.run("thaw", v.pid).code != 0
    firn.agent_died()
    assert present(v.pid, new) > len(new) * STORED / 2
    firn.start()
    firn.thaw(v.pid)
    v.cmd("verify")


def test_faults_use_what_the_stream_has(firn, victims):
    """Who touches everything in order while it comes back waits for the stream's reads: there are hardly any others."""
    v = victims("heap", "--mib", 64)
    pages = pages_of(v, 1500)
    firn.start(FIRN_SLEEP_AT="thaw.block:2")
    firn.evict(v.pid)
    thaw = firn.background("thaw", v.pid, "--json")
    try:
        for a in pages:
            ask_for(v.pid, a)
        out, _ = thaw.communicate(timeout=60)
        assert thaw.returncode == 0
    finally:
        thaw.kill()
    io = json.loads(out)["targets"][0]["io"]
    assert io["faults"] > 100
    assert io["readCalls"] < io["blocksRead"] / 4
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_order_does_not_matter(firn, victims):
    """Whatever the set: memory is as before, thaw after thaw, whichever way it is asked for."""
    v = victims("layout", "--seed", 77)
    for n in range(6):
        firn.evict(v.pid) if n % 2 else firn.freeze(v.pid)
        if n % 2:
            v.cmd("layout 200")
        firn.thaw(v.pid)
        v.cmd("touch-random")
        v.cmd("mutate")
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_goes_with_its_process(firn, victims):
    v, other = victims("heap", "--mib", 8), victims("heap", "--mib", 8)
    firn.evict(v.pid)
    v.cmd("verify")
    firn.thaw(v.pid)
    assert [n for n in sets(firn) if n.startswith(f"{v.pid}-")]
    v.end()
    firn.freeze(other.pid)
    firn.thaw(other.pid)
    wait_until(lambda: not [n for n in sets(firn) if n.startswith(f"{v.pid}-")], 20, "the set of what has ended goes")
    assert [n for n in sets(firn) if n.startswith(f"{other.pid}-")]


@pytest.mark.parametrize("nonsense", [b"", b"x", b"\0" * 24, b"\xff" * 4000],
                         ids=["empty", "short", "zeros", "wrong"])
def test_a_spoilt_file(firn, victims, nonsense):
    v = victims("heap", "--mib", 8)
    firn.evict(v.pid)
    v.cmd("verify")
    firn.thaw(v.pid)
    name, = sets(firn)
    with open(os.path.join(firn.runtime, "private", name), "r+b") as f:
        head = f.read(24)
        f.seek(0)
        f.truncate()
        f.write(nonsense if len(nonsense) < 100 else head + nonsense)
    assert firn.freeze(v.pid)["pages"]["workingSet"] == 0
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)
