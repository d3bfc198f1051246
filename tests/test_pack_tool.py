# SPDX-License-Identifier: MIT
"""tools/firn-pack, the independent reader, on packs that a real freeze wrote (encryption off: it needs no key)."""
import os
import shutil
import subprocess

import pytest

import harness

TOOL = os.path.join(harness.ROOT, "tools", "firn-pack")


def tool(*args):
    return subprocess.run(["/usr/bin/python3", TOOL, *map(str, args)], capture_output=True, text=True, timeout=110)


@pytest.fixture
def pack(firn, victims):
    for module in ("lz4", "xxhash"):
        if subprocess.run(["/usr/bin/python3", "-c", f"import {module}"], capture_output=True).returncode:
            pytest.fail(f"python3-{module} is missing: install it")
    firn.start(FIRN_ENCRYPTION="off")
    v = victims("heap", "--mib", 24)
    target = firn.freeze(v.pid)
    copy = os.path.join(firn.state, "copy.pack")
    shutil.copy(firn.packs()[0], copy)
    firn.thaw(v.pid)
    v.cmd("verify")
    return copy, target, v


def test_verify_and_list(pack):
    path, target, v = pack
    done = tool("verify", path)
    assert done.returncode == 0, done
    done = tool("list", path)
    assert done.returncode == 0, done
    assert str(v.pid) in done.stdout, done.stdout


@pytest.mark.parametrize("where", ["header", "block", "footer", "end"])
def test_damage_is_found(pack, where):
    path, target, v = pack
    size = os.path.getsize(path)
    at = {"header": 24, "block": 4096 + 300, "footer": size - 4096 + 16, "end": size // 2}[where]
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 1]))
    assert tool("verify", path).returncode != 0


def test_truncated(pack):
    path, target, v = pack
    os.truncate(path, os.path.getsize(path) - 4096)
    assert tool("verify", path).returncode != 0


def test_pages_read_back(firn, victims):
    """The tool's own idea of a page is what the target had there."""
    firn.start(FIRN_ENCRYPTION="off")
    v = victims("sparse")
    with open(f"/proc/{v.pid}/mem", "rb", buffering=0) as mem:
        base = None
        for line in harness.read(f"/proc/{v.pid}/maps").splitlines():
            first, last = (int(x, 16) for x in line.split()[0].split("-"))
            if last - first == 64 << 30:
                base = first
        assert base
        want = {}
        for i in range(0, 4096, 173):
            mem.seek(base + i * (16 << 20))
            want[base + i * (16 << 20)] = mem.read(4096)
    firn.freeze(v.pid)
    for address, page in want.items():
        done = subprocess.run(["/usr/bin/python3", TOOL, "page", firn.packs()[0], hex(address)], capture_output=True,
                              timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout == page, f"page {address:#x}"
    firn.thaw(v.pid)
    v.cmd("verify")


def test_upon_a_base(firn, victims):
    """A pack that has part of its pages in an earlier one is read with that, and not without or with another."""
    firn.start(FIRN_ENCRYPTION="off")
    v = victims("heap", "--mib", 16)
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    v.cmd("mutate 300")
    largest = max((tuple(int(x, 16) for x in line.split()[0].split("-"))
                   for line in harness.read(f"/proc/{v.pid}/maps").splitlines()
                   if " rw-p " in line and line.split()[4] == "0"), key=lambda m: m[1] - m[0])
    with open(f"/proc/{v.pid}/mem", "rb", buffering=0) as mem:
        want = {a: os.pread(mem.fileno(), 4096, a) for a in range(largest[0], largest[1], 4096 * 37)}
    target = firn.freeze(v.pid)
    upon, base = firn.packs()[0], firn.kept()[0]
    assert target["pack"]["reused"] and f"base         {os.path.basename(base)[:16]}" in tool("list", upon).stdout
    same = 0
    for address, page in list(want.items())[:20]:
        done = subprocess.run(["/usr/bin/python3", TOOL, "page", upon, hex(address)], capture_output=True, timeout=60)
        assert done.returncode or done.stdout == page, f"page {address:#x}"
        same += not done.returncode
    assert same > 10
    away = os.path.join(firn.state, "elsewhere")
    os.mkdir(away)
    shutil.copy(upon, away)
    copy = os.path.join(away, os.path.basename(upon))
    done = tool("verify", copy)
    assert done.returncode == 1 and "base" in done.stderr, done
    shutil.copy(base, away)
    done = tool("verify", copy)
    assert done.returncode == 0 and f"target {v.pid}: " in done.stdout, done
    shutil.copy(upon, os.path.join(away, os.path.basename(base)))
    assert tool("verify", copy).returncode == 1
    firn.thaw(v.pid)
    v.cmd("verify")


def test_an_encrypted_pack_tells_nothing(firn, victims):
    """No page of the target is in the file as it is, and without the key nothing is read."""
    v = victims("heap", "--mib", 24)
    firn.freeze(v.pid)
    data = harness.read(firn.packs()[0], "rb")
    # What V_TEXT pages consist of.
    assert b"\x00\x00firn" not in data and data.count(b"firn") < 4
    assert tool("verify", firn.packs()[0]).returncode != 0
    firn.thaw(v.pid)
