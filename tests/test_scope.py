# SPDX-License-Identifier: MIT
"""An agent that is confined to a cgroup, a process tree or a user touches nobody outside."""
import os

import pytest

import harness
from harness import NO_TARGET, NOBODY, REFUSED, USAGE, assert_no_trace, assert_same, settle, snapshot, state_of

HIERARCHIES = ["memory", "freezer", "unified"]


@pytest.fixture
def outsider(victims):
    v = victims("heap", "--mib", 8)
    settle(v.pid)
    v.snap = snapshot(v.pid)
    return v


def refused_outside(firn, v, verbs=("freeze", "evict", "thaw")):
    for verb in verbs:
        result = firn.run(verb, v.pid)
        assert result.code == REFUSED, result
        line = result.one_line_error()
        assert "outside" in line and firn.env["FIRN_SCOPE"] in line, line
    assert_same(v.snap, v.pid)
    v.cmd("verify")


def works(firn, v):
    firn.freeze(v.pid)
    assert state_of(v.pid) == "T"
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_tree(firn, victims, outsider):
    v = victims("forker", "--mib", 8)
    child = int(v.cmd("hold 1"))
    firn.env["FIRN_SCOPE"] = f"tree:{v.pid}"
    refused_outside(firn, outsider)
    works(firn, v)
    firn.freeze(child)
    firn.thaw(child)
    v.cmd("release")


@pytest.mark.parametrize("hierarchy", HIERARCHIES)
@pytest.mark.parametrize("absolute", [False, True])
def test_cgroup(firn, victims, cgroups, outsider, hierarchy, absolute):
    group = cgroups(hierarchy, f"firn-scope-{os.getpid()}")
    below = cgroups(hierarchy, f"firn-scope-{os.getpid()}/below")
    v, w = victims("heap", "--mib", 8), victims("heap", "--mib", 8)
    group.add(v.pid)
    below.add(w.pid)
    firn.env["FIRN_SCOPE"] = f"cgroup:{group.dir if absolute else group.path}"
    refused_outside(firn, outsider)
    works(firn, v)
    works(firn, w)
    # It is the place that counts, at each moment; what is held may come back from anywhere.
    firn.freeze(v.pid)
    with open(os.path.join(os.path.dirname(group.dir), "cgroup.procs"), "w") as f:
        f.write(str(v.pid))
    firn.thaw(v.pid)
    v.cmd("verify")
    result = firn.run("freeze", v.pid)
    assert result.code == REFUSED and "outside" in result.one_line_error()
    v.cmd("verify")


def test_a_name_that_begins_alike_is_another_cgroup(firn, victims, cgroups, outsider):
    group = cgroups("memory", f"firn-scope-{os.getpid()}")
    cgroups("memory", f"firn-scope-{os.getpid()}1").add(outsider.pid)
    outsider.snap = snapshot(outsider.pid)
    firn.env["FIRN_SCOPE"] = f"cgroup:{group.path}"
    refused_outside(firn, outsider)


def test_user(firn, victims, outsider):
    v = victims("heap", "--mib", 8, user=NOBODY)
    firn.env["FIRN_SCOPE"] = "user:nobody"
    refused_outside(firn, outsider)
    works(firn, v)
    firn.freeze(v.pid, user=NOBODY)
    firn.thaw(v.pid, user=NOBODY)
    v.cmd("verify")


@pytest.mark.parametrize("scope, code", [("nonsense", USAGE), ("tree:", USAGE), ("tree:0", USAGE), ("cgroup:", USAGE),
                                         ("cgroup:/../x", USAGE), ("user:", USAGE), ("cgroup:/no-such-group", NO_TARGET),
                                         ("user:no-such-user", NO_TARGET), ("tree:4194304", NO_TARGET),
                                         ("user:" + "x" * 3000, USAGE)],
                         ids=lambda v: str(v)[:24])
def test_a_scope_that_makes_no_sense(firn, outsider, scope, code):
    """No agent is started: without its scope it might touch what it must not."""
    result = firn.start("--scope", scope, check=False, FIRN_SCOPE="all")
    assert result.code == code, result
    result.one_line_error()
    firn.env["FIRN_SCOPE"] = scope
    result = firn.run("freeze", outsider.pid)
    assert result.code in (code, harness.NO_AGENT), result
    result.one_line_error()
    assert not firn.agent
    assert_same(outsider.snap, outsider.pid)


def test_the_flag_goes_before_the_environment(firn, victims, outsider):
    v = victims("heap", "--mib", 8)
    firn.env["FIRN_SCOPE"] = f"tree:{v.pid}"
    firn.start("--scope", f"tree:{outsider.pid}")
    result = firn.run("freeze", v.pid)
    assert result.code == REFUSED and f"tree:{outsider.pid}" in result.one_line_error()
    works(firn, outsider)


def test_an_agent_whose_tree_has_ended_serves_what_it_holds(firn, victims):
    """The root ends; its frozen child is still thawed."""
    v = victims("sh", argv=["sh", "-c", "sleep 600 & echo ready $!; wait"])
    child = harness.Process(int(v.ready_line.split()[1]))
    firn.start("--scope", f"tree:{v.pid}")
    firn.freeze(child.pid)
    v.kill()
    v.process.wait_dead()
    firn.thaw(child.pid)
    assert state_of(child.pid) == "S"
    child.kill()
    child.wait_dead()
    child.close()
