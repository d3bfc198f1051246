# SPDX-License-Identifier: MIT
"""Packs of kind direct: the target writes its own pages, plain and uncompressed, and they come back the same ways."""
import os
import resource
import subprocess

import pytest

import harness
from harness import REFUSED, STORE, USAGE, anon_kib, assert_no_trace, assert_same, settle, snapshot

DIRECT = "--kind=direct"
VECTORS = 1024          # of one write call
TOOL = os.path.join(harness.ROOT, "tools", "firn-pack")


def tool(*args):
    done = subprocess.run(["/usr/bin/python3", TOOL, *map(str, args)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    return done.stdout


def take(firn, verb, pid):
    target = firn.ok(verb, DIRECT, pid, "--json").target
    assert target["kind"] == "direct" and target["pack"]["cipher"] == "off", target
    assert target["pages"]["zero"] == target["pages"]["filled"] == 0, "every page is stored"
    return target


@pytest.mark.parametrize("prog", ["heap", "identity", "vmas", "stack"])
@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_whole(firn, victims, verb, prog):
    """Memory and everything else are as before: all pages back by a thaw."""
    v = victims(prog)
    settle(v.pid)
    snap = snapshot(v.pid, calls=False)
    before = anon_kib(v.pid)
    take(firn, verb, v.pid)
    assert anon_kib(v.pid) < before * 0.6
    firn.thaw(v.pid)
    assert_same(snap, v.pid, calls=False)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


@pytest.mark.parametrize("how", ["verify", "touch-random"])
def test_by_faults(firn, victims, how):
    """All pages back by touching them, in order and not."""
    v = victims("heap", "--mib", 48)
    take(firn, "evict", v.pid)
    v.cmd(how)
    shown = firn.show(v.pid)
    assert shown["io"]["faults"] > 0
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_layout(firn, victims):
    v = victims("layout", "--seed", 7)
    for _ in range(2):
        take(firn, "evict", v.pid)
        v.cmd("layout 300")
        v.cmd("verify")
        firn.thaw(v.pid)
        v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_threads(firn, victims):
    v = victims("threads")
    for verb in ("freeze", "evict"):
        take(firn, verb, v.pid)
        if verb == "evict":
            v.cmd("alive")
        firn.thaw(v.pid)
        v.cmd("alive")
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


@pytest.mark.parametrize("what", ["fork 4", "fork-write", "fork-exit 10"])
def test_fork_while_evicted(firn, victims, what):
    v = victims("forker")
    take(firn, "evict", v.pid)
    v.cmd(what)
    v.cmd("verify")
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_agent_killed(firn, victims):
    """A successor serves faults of a direct pack, and thaws it."""
    v = victims("heap", "--mib", 48)
    take(firn, "evict", v.pid)
    v.send("touch-random")
    firn.kill_agent()
    firn.start()
    v.reply()
    firn.kill_agent()
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_write_calls(firn, victims):
    """As many calls as the vectors need, header and index aside; nothing of the pages was left out or read."""
    v = victims("sparse")
    target = take(firn, "evict", v.pid)
    path = target["pack"]["path"]
    runs, end = 0, None
    for line in tool("list", path).splitlines():
        if line.startswith("  "):
            span, _ = line.split()
            start, after = span.split("-")
            runs += start != end
            end = after
    assert runs > VECTORS, "one call would do"
    assert target["io"]["writeCalls"] == 2 + -(-runs // VECTORS), (target["io"], runs)
    assert target["io"]["writeBytes"] == os.stat(path).st_size
    v.cmd("verify")
    firn.thaw(v.pid)


def test_several_slices(firn, victims):
    v = victims("heap", "--mib", 300)
    target = take(firn, "freeze", v.pid)
    assert "2 slices" in tool("list", target["pack"]["path"])
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_the_independent_reader(firn, victims):
    """It finds in the file what the target has in memory."""
    v = victims("heap", "--mib", 8)
    target = take(firn, "freeze", v.pid)
    path = target["pack"]["path"]
    assert "whole:" in tool("verify", path)
    listed = tool("list", path)
    assert "kind         direct" in listed
    spans = [line.split()[0].split("-") for line in listed.splitlines() if line.startswith("  ")]
    addresses = [int(start, 16) for start, _ in spans]
    stored = [subprocess.run(["/usr/bin/python3", TOOL, "page", path, hex(a)], capture_output=True).stdout
              for a in addresses[-4:]]
    firn.thaw(v.pid)
    with open(f"/proc/{v.pid}/mem", "rb", buffering=0) as mem:
        for a, page in list(zip(addresses[-4:], stored)):
            mem.seek(a)
            assert mem.read(harness.PAGE) == page, hex(a)


def refused(firn, v, code, word, *args):
    settle(v.pid)
    snap, before = snapshot(v.pid, calls=False), anon_kib(v.pid)
    for verb in ("freeze", "evict"):
        result = firn.run(verb, *(args or [DIRECT]), v.pid)
        assert result.code == code and word in result.one_line_error(), result
    assert_same(snap, v.pid, calls=False)
    assert anon_kib(v.pid) >= before
    v.cmd("verify")


def test_file_size_limit(firn, victims):
    """The target's own writes would fail, and SIGXFSZ might end it."""
    v = victims("heap", "--mib", 16)
    resource.prlimit(v.pid, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    refused(firn, v, REFUSED, "RLIMIT_FSIZE")
    assert firn.packs() == []
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    resource.prlimit(v.pid, resource.RLIMIT_FSIZE, (64 << 20, resource.RLIM_INFINITY))
    take(firn, "freeze", v.pid)
    firn.thaw(v.pid)
    v.cmd("verify")


def test_filter_kills_the_write(firn, victims):
    v = victims("seccomp", "--no-pwritev")
    refused(firn, v, REFUSED, "seccomp")
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_no_room_for_descriptors(firn, victims):
    """Room for the socket pair and the device, but not for the pack as well: refused, and no descriptor stays."""
    v = victims("heap", "--mib", 16)
    used = max(map(int, os.listdir(f"/proc/{v.pid}/fd"))) + 1
    resource.prlimit(v.pid, resource.RLIMIT_NOFILE, (used + 3, used + 3))
    refused(firn, v, REFUSED, "RLIMIT_NOFILE")
    assert_no_trace(firn, v.pid)


def test_store_on_tmpfs(firn, victims):
    v = victims("heap", "--mib", 16)
    firn.env["FIRN_STATE_DIR"] = os.path.join(firn.runtime, "state")
    os.mkdir(firn.env["FIRN_STATE_DIR"])
    refused(firn, v, STORE, "tmpfs")


def test_declared_encrypted(firn, victims):
    """Without it, plaintext is written on request only."""
    v = victims("heap", "--mib", 16)
    assert firn.freeze(v.pid)["kind"] == "copied"
    firn.thaw(v.pid)
    firn.kill_agent()
    firn.start("--store-encrypted")
    assert firn.freeze(v.pid)["kind"] == "direct"
    firn.thaw(v.pid)
    assert firn.ok("freeze", "--kind=copied", v.pid, "--json").target["kind"] == "copied"
    firn.thaw(v.pid)
    v.cmd("verify")


def test_unknown_kind(firn):
    result = firn.run("freeze", "--kind=other", 5)
    assert result.code == USAGE and "copied or direct" in result.one_line_error()


def test_not_in_memory(firn, victims):
    """It would take as much memory as it gives; declared encrypted or not, what goes to memory is copied."""
    v = victims("heap", "--mib", 16)
    refused(firn, v, REFUSED, "direct", DIRECT, "--place=ram")
    firn.kill_agent()
    firn.start(FIRN_STORE_ENCRYPTED="yes")
    assert firn.ok("freeze", "--place=ram", v.pid, "--json").target["kind"] == "copied"
    firn.thaw(v.pid)
    v.cmd("verify")
