# SPDX-License-Identifier: MIT
"""The installed agent as a service of systemd.  For the virtual machine of tools/check-kernels, which has nothing to lose:
these start and stop firnd.service and write into /etc/firn.
"""
import os
import shutil
import signal
import subprocess
import time

import pytest

import harness
from harness import DONE, NOBODY, Result, assert_same, settle, snapshot, state_of, wait_until

FIRN = "/usr/local/bin/firn"
DROPINS = "/run/systemd/system/firnd.service.d"
CONFIG = "/etc/firn"


def call(*argv, timeout=90):
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    return Result(argv, done.returncode, done.stdout, done.stderr)


def ok(*argv, **kwargs):
    result = call(*argv, **kwargs)
    assert result.code == 0, result
    return result


def firn(*args):
    return ok(FIRN, *args)


def prop(unit, name):
    return ok("systemctl", "show", "--value", "-p", name, unit).out.strip()


def main_pid():
    return int(prop("firnd.service", "MainPID"))


def listed():
    return {t["pid"]: t["state"] for t in firn("list", "--json").targets}


def cgroup_pids():
    group = prop("firnd.service", "ControlGroup")
    return [int(p) for p in harness.read(f"/sys/fs/cgroup{group}/cgroup.procs").split()]


class Journal:
    """What the service wrote since this was made."""

    def __init__(self):
        self.since = time.time()

    def text(self):
        return ok("journalctl", "-q", "--no-pager", "-o", "cat", "-u", "firnd.service", f"--since=@{self.since:.3f}").out

    def until(self, words, seconds=30):
        wait_until(lambda: words in self.text(), seconds, f"{words!r} in the journal, which has: {self.text()}")


@pytest.fixture(autouse=True)
def in_guest():
    """Only where systemd is the first process of a machine that is ours."""
    assert harness.read("/proc/1/comm") == "systemd\n" and os.uname().nodename == "firn-guest", \
        "for the machine of tools/check-kernels only"


@pytest.fixture
def service(victims):
    """firnd.socket listens, the service does not run yet.  Afterwards all is as before."""
    shutil.rmtree(CONFIG, ignore_errors=True)
    ok("systemctl", "start", "firnd.socket")
    yield Journal()
    shutil.rmtree(CONFIG, ignore_errors=True)
    shutil.rmtree(DROPINS, ignore_errors=True)
    ok("systemctl", "daemon-reload")
    call("systemctl", "reload", "firnd.service")
    ok("systemctl", "stop", "firnd.socket", "firnd.service")
    ok("systemctl", "reset-failed")


def configure(text):
    os.makedirs(CONFIG, exist_ok=True)
    with open(CONFIG + "/firn.conf", "w") as f:
        f.write(text)


def dropin(text):
    os.makedirs(DROPINS, exist_ok=True)
    with open(DROPINS + "/test.conf", "w") as f:
        f.write(text)
    ok("systemctl", "daemon-reload")


def test_kernel():
    """What the host's kernel is too new to show: the paths that an older one takes."""
    assert os.uname().release.startswith("6.1."), os.uname()
    result = call(FIRN, "check", "--json")
    assert result.code == DONE, result


def test_verify():
    result = ok("systemd-analyze", "verify", "--man=no", "firnd.service", "firnd.socket")
    assert result.err == "" and result.out == "", result
    assert prop("firnd.service", "LoadState") == "loaded" and prop("firnd.socket", "LoadState") == "loaded"


def test_first_command_starts_it(service, victims):
    assert prop("firnd.service", "ActiveState") == "inactive"
    assert prop("firnd.socket", "SubState") == "listening"
    assert firn("list", "--json").targets == []
    assert prop("firnd.service", "ActiveState") == "active"
    status = ok("systemctl", "status", "--no-pager", "firnd.service")
    assert "active (running)" in status.out and "/usr/local/sbin/firnd --foreground" in status.out, status
    for user in (None, NOBODY):
        v = victims("heap", "--mib", 8, user=user)
        settle(v.pid)
        snap = snapshot(v.pid)
        firn("freeze", v.pid)
        assert listed() == {v.pid: "frozen"} and state_of(v.pid) == "T"
        firn("thaw", v.pid)
        assert listed() == {}
        assert_same(snap, v.pid)
        v.cmd("verify")
    # One agent: that of the service.
    assert len(cgroup_pids()) == 2, "agent and keeper"


def test_what_it_runs_under(service):
    """The settings took, and none of them is a filter of its own: the kernel would then refuse to suspend a target's."""
    firn("list")
    for pid in cgroup_pids():
        status = harness.status_of(pid)
        assert status["Seccomp"] == "0" and status["NoNewPrivs"] == "0", status
        assert harness.read(f"/proc/{pid}/oom_score_adj").strip() == "-1000"
    limits = harness.read(f"/proc/{main_pid()}/limits")
    assert "Max core file size        0" in limits and "Max locked memory         unlimited" in limits, limits
    group = "/sys/fs/cgroup" + prop("firnd.service", "ControlGroup")
    assert harness.read(group + "/memory.min").strip() == str(64 << 20)
    assert harness.read(group + "/memory.swap.max").strip() == "0"
    bound = int(harness.status_of(main_pid())["CapBnd"], 16)
    allowed = prop("firnd.service", "CapabilityBoundingSet").split()
    assert bin(bound).count("1") == len(allowed) and "cap_net_admin" not in allowed and not bound >> 12 & 1, f"{bound:x}"


def test_a_target_with_a_filter(service, victims):
    v = victims("seccomp", "--mib", 8)
    assert harness.status_of(v.pid)["Seccomp"] == "2"
    firn("freeze", v.pid)
    firn("thaw", v.pid)
    v.cmd("verify")
    firn("evict", v.pid)
    v.cmd("verify")
    firn("thaw", v.pid)
    v.cmd("verify")


def test_reload(service):
    firn("list")
    pid = main_pid()
    configure("[policy]\nmin-idle = 77s\n")
    ok("systemctl", "reload", "firnd.service")
    service.until("was read anew")
    shown = firn("config", "show", "--json").json_all()["values"]
    assert [v["value"] for v in shown if v["key"] == "min-idle"] == ["77s"], shown
    configure("[policy]\nmin-idle = often\n")
    ok("systemctl", "reload", "firnd.service")
    service.until("/etc/firn/firn.conf:2: ")
    service.until("the one from before stays in force")
    assert main_pid() == pid and prop("firnd.service", "ActiveState") == "active"


@pytest.mark.parametrize("whom", ["main", "all"])
def test_killed(service, victims, whom):
    """The agent, or the agent with its keeper: systemd starts another, which takes over."""
    v, w = victims("heap", "--mib", 16), victims("heap", "--mib", 16)
    firn("freeze", v.pid)
    firn("evict", w.pid)
    pid = main_pid()
    ok("systemctl", "kill", "-s", "KILL", f"--kill-whom={whom}", "firnd.service")
    wait_until(lambda: main_pid() not in (0, pid) and prop("firnd.service", "ActiveState") == "active", 60, "it runs again")
    service.until("took over 2 targets")
    assert listed() == {v.pid: "frozen", w.pid: "evicted"}
    w.cmd("verify")
    firn("thaw", "--all")
    assert listed() == {}
    v.cmd("verify")
    w.cmd("verify")
    assert prop("firnd.service", "NRestarts") == "1"
    assert len(cgroup_pids()) == 2, "no keeper of the former agent's"


def test_watchdog(service, victims):
    """An agent that runs says so; one that hangs is ended, and its targets are taken over."""
    dropin("[Service]\nWatchdogSec=6s\n")
    firn("list")
    pid = main_pid()
    first = int(prop("firnd.service", "WatchdogTimestampMonotonic"))
    wait_until(lambda: int(prop("firnd.service", "WatchdogTimestampMonotonic")) > first + 7000000, 60, "it says that it lives")
    assert main_pid() == pid and prop("firnd.service", "NRestarts") == "0"
    v = victims("heap", "--mib", 8)
    firn("evict", v.pid)
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: main_pid() not in (0, pid), 60, "the next one runs")
    assert "watchdog" in ok("journalctl", "-q", "--no-pager", "-u", "firnd.service", f"--since=@{service.since:.3f}").out.lower()
    v.cmd("verify")
    firn("thaw", v.pid)
    v.cmd("verify")


def test_stop(service, victims):
    """What is out comes back, and the socket starts the next one."""
    v, w = victims("heap", "--mib", 16), victims("heap", "--mib", 16)
    firn("freeze", v.pid)
    firn("evict", w.pid)
    pids = cgroup_pids()
    ok("systemctl", "stop", "firnd.service")
    assert prop("firnd.service", "Result") == "success"
    for x in (v, w):
        assert not harness.uffd_mappings(x.pid)
        x.cmd("verify")
    wait_until(lambda: not any(os.path.exists(f"/proc/{p}") for p in pids), 10, "agent and keeper end")
    assert os.listdir("/var/lib/firn/store") == []
    assert prop("firnd.socket", "ActiveState") == "active"
    assert listed() == {}
    assert main_pid() not in pids


def test_stop_leaves(service, victims):
    configure("[agent]\non-stop = leave\n")
    v, w = victims("heap", "--mib", 16), victims("heap", "--mib", 16)
    firn("freeze", v.pid)
    firn("evict", w.pid)
    ok("systemctl", "stop", "firnd.service")
    assert prop("firnd.service", "Result") == "success"
    assert state_of(v.pid) == "T"
    w.send("verify")
    assert w.silent(0.5), "it waits for its pages"
    firn("list")
    service.until("took over 2 targets")
    w.reply()
    firn("thaw", "--all")
    v.cmd("verify")
    w.cmd("verify")


def test_restart(service, victims):
    v = victims("heap", "--mib", 16)
    firn("freeze", v.pid)
    ok("systemctl", "restart", "firnd.service")
    assert prop("firnd.service", "ActiveState") == "active"
    assert listed() == {}
    v.cmd("verify")


@pytest.fixture
def other_unit():
    """A service of two processes that count into a file each."""
    name = f"firn-other-{os.getpid()}"
    files = [f"/run/{name}.{i}" for i in range(2)]
    script = "import sys,time\nb=bytearray(b'snow'*2097152)\nn=0\nwhile 1:\n n+=1\n open(sys.argv[1],'w').write(str(n))\n time.sleep(.02)\n"
    with open(f"/run/{name}.py", "w") as f:
        f.write(script)
    ok("systemd-run", "-q", f"--unit={name}", "-p", "SystemCallFilter=~@reboot", "sh", "-c",
       f"python3 /run/{name}.py {files[0]} & exec python3 /run/{name}.py {files[1]}")
    wait_until(lambda: all(os.path.exists(f) for f in files), 60, "both count")
    yield name, files
    call("systemctl", "stop", name)
    for path in (*files, f"/run/{name}.py"):
        os.unlink(path)


def counts(files):
    return [int(harness.read(f) or 0) for f in files]


def test_unit(service, other_unit):
    """A unit as one, with a filter as units have them, by its name."""
    name, files = other_unit
    group = "/sys/fs/cgroup" + prop(name, "ControlGroup")
    pids = sorted(int(p) for p in harness.read(group + "/cgroup.procs").split())
    assert len(pids) == 2
    held = sum(harness.anon_kib(p) for p in pids)
    firn("freeze", "--unit", name)
    assert listed() == dict.fromkeys(pids, "frozen")
    assert sum(harness.anon_kib(p) for p in pids) < held / 4
    before = counts(files)
    time.sleep(0.3)
    assert counts(files) == before
    assert prop(name, "ActiveState") == "active"
    firn("thaw", "--unit", name)
    assert listed() == {}
    wait_until(lambda: all(a > b for a, b in zip(counts(files), before)), 30, "both count on")
    assert call(FIRN, "freeze", "--unit", "no-such-unit").code == harness.NO_TARGET


def test_the_manager_is_refused(service):
    for pid in (1, main_pid() or None):
        if pid:
            assert call(FIRN, "freeze", "--force", pid).code == harness.REFUSED
