# SPDX-License-Identifier: MIT
"""systemd's units, and the example of a configuration: what can be said of them without a systemd that runs."""
import os
import re
import subprocess

import pytest

import harness
from harness import BUILD, FIRND, ROOT

UNITS = os.path.join(BUILD, "packaging")
# Implemented by a seccomp filter (systemd.exec(5), and src/core/exec*.c): the kernel then refuses to suspend a target's.
BY_SECCOMP = {"SystemCallFilter", "SystemCallArchitectures", "SystemCallLog", "SystemCallErrorNumber",
              "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID",
              "MemoryDenyWriteExecute", "LockPersonality", "PrivateDevices", "ProtectKernelTunables",
              "ProtectKernelModules", "ProtectKernelLogs", "ProtectClock", "ProtectHostname", "DynamicUser",
              "NoNewPrivileges"}


def unit(name):
    """{key: [values]} of all sections."""
    found = {}
    for line in harness.read(os.path.join(UNITS, name)).splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def units(tmp_path):
    """Copies whose command is the one that was built."""
    for name in ("firnd.service", "firnd.socket"):
        text = harness.read(os.path.join(UNITS, name))
        (tmp_path / name).write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={FIRND}", text))
    return tmp_path


def test_verify(units):
    result = subprocess.run(["systemd-analyze", "verify", "--man=no", units / "firnd.service", units / "firnd.socket"],
                            capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == "", result
    # It does find faults.
    with open(units / "firnd.service", "a") as f:
        f.write("[Service]\nKillMode=nonsense\n")
    result = subprocess.run(["systemd-analyze", "verify", "--man=no", units / "firnd.service"], capture_output=True, text=True)
    assert "kill mode" in result.stderr, result


def test_no_seccomp():
    service = unit("firnd.service")
    assert not BY_SECCOMP & set(service)
    # What the comment tells whoever hardens it further is the same list.
    comment = set(re.findall(r"[A-Z]\w+", harness.read(os.path.join(UNITS, "firnd.service")).split("[Unit]")[0]))
    assert BY_SECCOMP - comment <= {"SystemCallErrorNumber"}


def test_hardened(units):
    """How exposed systemd finds it; with what it may not have, it cannot be much better."""
    result = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=80",
                             units / "firnd.service"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    for capability in ("SYS_MODULE", "SYS_RAWIO", "NET_ADMIN", "MKNOD", "SYS_BOOT", "BPF", "SYS_TIME"):
        assert f"✓ CapabilityBoundingSet=~CAP_{capability}" in result.stdout, capability


def test_what_it_must_have():
    service = unit("firnd.service")
    assert service["Type"] == ["notify"] and service["KillMode"] == ["process"]
    assert service["OOMScoreAdjust"] == ["-1000"] and service["WatchdogSec"] and service["MemoryMin"]
    assert service["RuntimeDirectoryPreserve"] == ["yes"]
    assert service["ExecStart"] == [service["ExecStart"][0].split()[0] + " --foreground"]
    assert unit("firnd.socket")["ListenStream"] == ["/run/firn/firn.sock"]


def test_capabilities_suffice(firn, victims):
    """An agent with those capabilities, and no other, freezes and evicts, also what is another user's."""
    allowed = ",".join("+" + c.removeprefix("CAP_").lower()
                       for line in unit("firnd.service")["CapabilityBoundingSet"] for c in line.split())
    before = int(harness.status_of("self")["CapBnd"], 16)
    firn.start(prefix=["setpriv", "--bounding-set", f"-all,{allowed}", "--inh-caps", "-all"])
    effective = int(harness.status_of(firn.agent.pid)["CapEff"], 16)
    assert effective and effective & before == effective and bin(effective).count("1") <= len(allowed.split(",")), hex(effective)
    for user in (None, harness.NOBODY):
        v = victims("heap", "--mib", 8, user=user)
        firn.freeze(v.pid)
        firn.thaw(v.pid)
        firn.evict(v.pid)
        v.cmd("verify")
        firn.thaw(v.pid)
        v.cmd("verify")


def test_capabilities_suffice_to_run(firn):
    """The same for firn run, which makes a group, and for a hook as another user."""
    allowed = ",".join("+" + c.removeprefix("CAP_").lower()
                       for line in unit("firnd.service")["CapabilityBoundingSet"] for c in line.split())
    firn.configure("[rule sleepers]\ncomm = sleep\nbefore-freeze = true\n")
    firn.start("--idle-exit", "0", prefix=["setpriv", "--bounding-set", f"-all,{allowed}", "--inh-caps", "-all"])
    command = firn.background("run", "--priority", "10", "--", "sh", "-c", "echo it runs")
    out, err = command.communicate(timeout=60)
    assert command.returncode == 0 and out == "it runs\n", (out, err)
    sleeper = subprocess.Popen([*harness.user_args(harness.NOBODY), "sleep", "1000"])
    try:
        harness.wait_until(lambda: harness.status_of(sleeper.pid)["Name"] == "sleep", 20, "it sleeps")
        firn.freeze(sleeper.pid)
        firn.thaw(sleeper.pid)
    finally:
        sleeper.kill()
        sleeper.wait()
    assert "hook" not in firn.log(), firn.log()


def test_installed(tmp_path):
    result = subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", tmp_path], capture_output=True,
                            text=True)
    assert result.returncode == 0, result
    found = {}
    for base, _, names in os.walk(tmp_path):
        for name in names:
            found[name] = os.path.join(base, name)
    for name in ("firnd", "firnd.service", "firnd.socket", "firn.conf", "firn.conf.5"):
        assert name in found, sorted(found)
    assert found["firnd.service"].endswith("/lib/systemd/system/firnd.service")
    # Nobody's own configuration is written over.
    assert "/etc/" not in found["firn.conf"]
    command = re.search(r"(?m)^ExecStart=(\S+)", harness.read(found["firnd.service"])).group(1)
    assert found["firnd"] == str(tmp_path) + command


def test_example(firn):
    """The example is valid with every '#key' taken in, and then says what counts without it."""
    text = harness.read(os.path.join(ROOT, "packaging", "firn.conf"))
    plain, rules = text.split("# A rule has conditions", 1)
    firn.configure(re.sub(r"(?m)^#(?! )([^\n]*=)", r"\1", plain))
    values = firn.ok("config", "show", "--json").json_all()["values"]
    set_here = [v for v in values if v["from"]["kind"] == "file"]
    assert len(set_here) == len(re.findall(r"(?m)^#[a-z-]+ =", plain)) > 10
    firn.configure("")
    defaults = {(v["section"], v["key"]): v["value"] for v in firn.ok("config", "show", "--json").json_all()["values"]}
    for v in set_here:
        assert v["value"] == defaults[v["section"], v["key"]], v
    firn.configure(re.sub(r"(?m)^#(?=[\[a-z])", "", rules.split("\n", 1)[1]))
    assert [r["name"] for r in firn.ok("config", "show", "--json").json_all()["rules"]][-3:] == \
        ["databases", "notebooks", "precious"]


def test_manual(firn):
    """firn.conf(5) tells of every key, with its default."""
    manual = harness.read(os.path.join(ROOT, "man", "firn.conf.5.scd"))
    shown = firn.ok("config", "show", "--json").json_all()
    for v in shown["values"]:
        line = next((line for line in manual.splitlines() if line.startswith("*") and f"*{v['key']}*" in line), None)
        assert line, f"firn.conf(5) lacks {v['key']}"
        told = [word for group in re.findall(r"\(([^)]*)\)", line) for word in group.split(", ")]
        if told:
            assert v["value"] in told, (line, v["value"])
    for key in {k for r in shown["rules"] for k in (*r["conditions"], *r["sets"])}:
        assert f"*{key}*" in manual, key
