# SPDX-License-Identifier: MIT
"""Sharing survives: pages shared with another process, locked pages, shared mappings."""
import pytest

from harness import PAGE, assert_no_trace, pagemap, wait_until

PRESENT, EXCLUSIVE = 1 << 63, 1 << 56


class Ranges:
    def __init__(self, v):
        words = v.cmd("map").split()
        self.at = {}
        while len(words) >= 3:
            self.at[words[0]] = (int(words[1], 16), int(words[2]))
            words = words[3:]
        self.child = int(words[1])


def present(pid, place):
    return sum(1 for w in pagemap(pid, *place) if w & PRESENT)


def frames(pid, place):
    return [w & ((1 << 55) - 1) for w in pagemap(pid, *place) if w & PRESENT]


@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_sharing(firn, victims, verb):
    v = victims("shared")
    r = Ranges(v)
    v.cmd("child")
    shared = {name: frames(v.pid, r.at[name]) for name in ("cow", "locked", "shm", "memfd")}
    assert all(len(shared[name]) == r.at[name][1] for name in shared), "something is not there to begin with"
    assert shared["cow"] == frames(r.child, r.at["cow"]), "parent and child do not share to begin with"
    getattr(firn, verb)(v.pid)
    assert present(v.pid, r.at["locked"]) == r.at["locked"][1], "locked pages went"
    assert frames(v.pid, r.at["cow"]) == shared["cow"], "pages shared with the child went: no memory is won"
    assert frames(v.pid, r.at["shm"]) == shared["shm"]
    assert frames(v.pid, r.at["memfd"]) == shared["memfd"]
    assert present(v.pid, r.at["own"]) < r.at["own"][1] // 20, "its own pages stayed"
    v.cmd("child") if verb == "evict" else None
    firn.thaw(v.pid)
    v.cmd("child")
    v.cmd("verify")
    for name in shared:
        assert frames(v.pid, r.at[name]) == shared[name], f"{name}: other frames after the thaw"
    assert frames(r.child, r.at["cow"]) == shared["cow"]
    assert_no_trace(firn, v.pid)


def test_tree_sharing(firn, victims):
    """Parent and child both frozen: what they share stays shared."""
    v = victims("shared")
    r = Ranges(v)
    before = frames(v.pid, r.at["cow"])
    firn.ok("freeze", "--tree", v.pid, "--json")
    firn.thaw_all()
    v.cmd("child")
    v.cmd("verify")
    after, childs = frames(v.pid, r.at["cow"]), frames(r.child, r.at["cow"])
    assert len(after) == len(before)
    assert sum(1 for a, b in zip(after, childs) if a == b) > len(before) * 0.95
    wait_until(lambda: firn.packs() == [], 5, "the packs go")
