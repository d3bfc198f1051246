# SPDX-License-Identifier: MIT
"""Who is not frozen without --force, and who is not frozen at all."""
import os
import sys

import pytest

import harness
from harness import DONE, REFUSED, USAGE, assert_no_trace, assert_same, settle, snapshot, state_of

NAMED = """import ctypes, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode())
print("ready", flush=True)
for line in sys.stdin:
    print("ok", flush=True)
"""


@pytest.fixture
def named(victims):
    """A process that goes by a name of the never-list."""
    return lambda name, **kwargs: victims(name, argv=[sys.executable, "-c", NAMED, name], **kwargs)


@pytest.mark.parametrize("verb", ["freeze", "evict"])
@pytest.mark.parametrize("name", ["sshd", "dbus-daemon", "Xorg", "systemd-journal"])
def test_force(firn, named, verb, name):
    v = named(name)
    settle(v.pid)
    snap = snapshot(v.pid)
    for more in ([], ["--dry-run"]):
        result = firn.run(verb, v.pid, *more)
        assert result.code == REFUSED, result
        line = result.one_line_error()
        assert "never-list" in line and "--force" in line, line
        assert_same(snap, v.pid)
    firn.ok(verb, v.pid, "--force", "--dry-run")
    firn.ok(verb, v.pid, "--force")
    # Its way back needs nothing.
    firn.thaw(v.pid)
    v.cmd("hello")
    assert_no_trace(firn, v.pid)


def test_one_of_a_group(firn, named, victims, cgroups):
    group = cgroups("memory", f"firn-never-{os.getpid()}")
    v, listed = victims("heap", "--mib", 8), named("dbus-broker")
    group.add(v.pid, listed.pid)
    result = firn.run("freeze", "--cgroup", group.path)
    assert result.code == REFUSED, result
    line = result.one_line_error()
    assert str(listed.pid) in line and "never-list" in line, line
    assert state_of(v.pid) == "S" and firn.list() == []
    firn.ok("freeze", "--force", "--cgroup", group.path)
    assert state_of(v.pid) == state_of(listed.pid) == "T"
    firn.ok("thaw", "--cgroup", group.path)
    v.cmd("verify")
    listed.cmd("hello")


@pytest.mark.parametrize("who", ["agent", "keeper"])
def test_an_agent_of_another_directory(firn, victims, who):
    """Its targets wait for it: never, whoever asks."""
    other = harness.Firn()
    try:
        other.start("--idle-exit", "0")
        v = victims("heap", "--mib", 8)
        other.freeze(v.pid)
        for more in ([], ["--force"]):
            result = firn.run("freeze", getattr(other, who).pid, *more)
            assert result.code == REFUSED, result
            assert "never frozen" in result.one_line_error()
        other.thaw(v.pid)
        v.cmd("verify")
    finally:
        other.close()


@pytest.mark.parametrize("who", ["init", "agent", "keeper", "kernel thread"])
def test_never_at_all(firn, who):
    firn.env["FIRN_SCOPE"] = "all"
    firn.start()
    if who == "init":
        pid = 1
    elif who == "kernel thread":
        for name in os.listdir("/proc"):
            if name.isdigit() and harness.stat_fields(name) and int(harness.stat_fields(name)[6]) & 0x200000:
                pid = int(name)
                break
        else:
            pytest.skip("no kernel thread is visible here")
    else:
        pid = getattr(firn, who).pid
    result = firn.run("freeze", "--force", pid)
    assert result.code == REFUSED, result
    result.one_line_error()


def test_force_belongs_to_freeze_and_evict(firn):
    assert firn.run("thaw", "--force", "1").code == USAGE
