# SPDX-License-Identifier: MIT
"""What the live tests share: an isolated agent, victims, and looks at a process from outside.

Only processes that a test started are ever signalled, by pidfd.  Everything has a deadline.
"""
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

TESTS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(TESTS)
BUILD = os.path.abspath(os.environ.get("BUILD") or os.path.join(ROOT, "build"))
FIRN = os.path.join(BUILD, "firn")
FIRND = os.path.join(BUILD, "firnd")
VICTIMS = os.path.join(BUILD, "tests", "victims")
NOBODY = 65534

# Exit codes of firn.
DONE, FAILED, USAGE, NO_TARGET, REFUSED, NOT_PERMITTED, NO_AGENT, STORE, KERNEL, LOST, SEVERAL = range(11)

PAGE = os.sysconf("SC_PAGESIZE")
# So many times as long a machine may take that is so much slower.
PATIENCE = int(os.environ.get("FIRN_TEST_PATIENCE") or 1)


class Timeout(AssertionError):
    pass


def become_subreaper():
    """Agents and keepers that lost their parent become our children, so that they can be reaped."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds * PATIENCE
    pause = 0.001
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Timeout(f"not within {seconds} s: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def read(path, mode="r"):
    with open(path, mode) as f:
        return f.read()


def stat_fields(pid):
    """Fields of /proc/PID/stat from the third (state) on, or None."""
    try:
        return read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
    except OSError:
        return None


def state_of(pid):
    fields = stat_fields(pid)
    return fields[0] if fields else None


def start_time(pid):
    fields = stat_fields(pid)
    return int(fields[19]) if fields else None


def status_of(pid):
    fields = {}
    for line in read(f"/proc/{pid}/status").splitlines():
        key, _, value = line.partition(":")
        fields[key] = value.strip()
    return fields


def anon_kib(pid):
    return int(status_of(pid)["RssAnon"].split()[0])


class Process:
    """A process by pidfd: never confused with another of the same number."""

    def __init__(self, pid, ours=True):
        self.pid = pid
        self.ours = ours        # to be reaped here; a Popen reaps its own
        self.start = start_time(pid)
        self.fd = os.pidfd_open(pid)

    def alive(self):
        return not select.select([self.fd], [], [], 0)[0]

    def kill(self, sig=signal.SIGKILL):
        try:
            signal.pidfd_send_signal(self.fd, sig)
        except ProcessLookupError:
            pass

    def wait_dead(self, seconds=20):
        if not select.select([self.fd], [], [], seconds)[0]:
            raise Timeout(f"process {self.pid} does not end")
        self.reap()

    def reap(self):
        if not self.ours:
            return
        try:
            os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pass

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Result:
    def __init__(self, args, code, out, err):
        self.args, self.code, self.out, self.err = args, code, out, err

    @property
    def json(self):
        lines = [line for line in self.out.splitlines() if line.strip()]
        assert lines, f"no JSON from {self}"
        return json.loads(lines[-1])

    def json_all(self):
        """The same where it is printed over several lines."""
        return json.loads(self.out)

    @property
    def targets(self):
        return self.json["targets"]

    @property
    def target(self):
        assert len(self.targets) == 1, f"not one target: {self}"
        return self.targets[0]

    def one_line_error(self):
        """The error as every error must be: one line that begins with the program's name."""
        lines = self.err.splitlines()
        assert len(lines) == 1, f"not one line on stderr: {self}"
        assert re.match(r"firnd?: \S", lines[0]), f"not 'firn: what is wrong: what to do': {self}"
        return lines[0]

    def __repr__(self):
        return f"<{' '.join(map(str, self.args))}: exit {self.code}\nstdout: {self.out}\nstderr: {self.err}>"


def user_args(user):
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []


class Firn:
    """An agent of a test's own, with its own runtime directory and store."""

    count = 0

    def __init__(self, state_base="/var/tmp"):
        Firn.count += 1
        name = f"firn-t{os.getpid()}-{Firn.count}"
        self.runtime = tempfile.mkdtemp(prefix=name + "-", dir="/dev/shm")
        self.state = tempfile.mkdtemp(prefix=name + "-", dir=state_base)
        os.chmod(self.runtime, 0o755)
        os.chmod(self.state, 0o755)
        self.store = os.path.join(self.state, "store")
        self.config = os.path.join(self.state, "config")
        os.makedirs(os.path.join(self.config, "firn.conf.d"))
        self.agents = {}
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("FIRN_")}
        self.env.update(FIRN_RUNTIME_DIR=self.runtime, FIRN_STATE_DIR=self.state,
                        FIRN_CONFIG_DIR=self.config, FIRN_LOG=os.path.join(self.state, "agent.log"), LC_ALL="C.UTF-8",
                        # Nobody but what the tests start is looked at or touched; we are a subreaper.
                        FIRN_SCOPE=f"tree:{os.getpid()}")

    def configure(self, text, name="firn.conf"):
        """Write a file of the configuration, whole at once; its path."""
        path = os.path.join(self.config, name)
        with open(path + ".new", "w") as f:
            f.write(text)
        os.rename(path + ".new", path)
        return path

    # Agents

    def _pid_file(self, name):
        try:
            pid, start = read(os.path.join(self.runtime, name)).split()[:2]
        except (OSError, ValueError):
            return None
        return int(pid) if start_time(int(pid)) == int(start) else None

    def _note(self):
        """Remember the agents and keepers that exist, to end them when the test is over."""
        for name in ("agent.pid", "keeper.pid"):
            pid = self._pid_file(name)
            if pid and pid not in self.agents:
                try:
                    self.agents[pid] = Process(pid)
                except ProcessLookupError:
                    pass
        for process in self.agents.values():
            if not process.alive():
                process.reap()

    @property
    def agent(self):
        self._note()
        pid = self._pid_file("agent.pid")
        return self.agents[pid] if pid and self.agents[pid].alive() else None

    @property
    def keeper(self):
        self._note()
        pid = self._pid_file("keeper.pid")
        return self.agents[pid] if pid and self.agents[pid].alive() else None

    def start(self, *args, check=True, timeout=30, prefix=(), **env):
        """Start firnd as a daemon.  Environment by name: FIRN_KILL_AT="point"."""
        result = self._call([*prefix, FIRND, *args], timeout, env)
        if check:
            assert result.code == 0, result
            assert self.agent, f"firnd said yes, and no agent is alive: {result}"
        return result

    def kill_agent(self):
        agent = self.agent
        assert agent, "no agent to kill"
        agent.kill()
        agent.wait_dead()
        return agent

    def agent_died(self, seconds=20):
        """Wait for the end of an agent that was told to end itself."""
        wait_until(lambda: not self.agent, seconds, "the agent ends itself")

    # Commands

    def _call(self, argv, timeout, env=None, **kwargs):
        argv = [str(a) for a in argv]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                    env={**self.env, **(env or {})}, **kwargs)
            try:
                deadline = time.monotonic() + timeout
                while proc.poll() is None:
                    if time.monotonic() > deadline:
                        proc.kill()
                        proc.wait()
                        out.seek(0)
                        err.seek(0)
                        raise Timeout(f"{' '.join(argv)}: no end within {timeout} s: "
                                      f"{out.read().decode(errors='replace')} {err.read().decode(errors='replace')}")
                    self._note()
                    try:
                        proc.wait(0.02)
                    except subprocess.TimeoutExpired:
                        pass
            finally:
                if proc.poll() is None:
                    proc.kill()
                    proc.wait()
                self._note()
            out.seek(0)
            err.seek(0)
            return Result(argv, proc.returncode, out.read().decode(errors="replace"),
                          err.read().decode(errors="replace"))

    def run(self, *args, user=None, timeout=90, env=None, **kwargs):
        return self._call([*user_args(user), FIRN, *args], timeout, env, **kwargs)

    def background(self, *args, env=None):
        """The command as a Popen of its own."""
        return subprocess.Popen([FIRN, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env={**self.env, **(env or {})})

    def ok(self, *args, **kwargs):
        result = self.run(*args, **kwargs)
        assert result.code == 0, f"{result}\n{self.log()}"
        return result

    def freeze(self, pid, **kwargs):
        target = self.ok("freeze", pid, "--json", **kwargs).target
        assert target["state"] == "frozen", target
        return target

    def evict(self, pid, **kwargs):
        target = self.ok("evict", pid, "--json", **kwargs).target
        assert target["state"] == "evicted", target
        return target

    def thaw(self, pid, **kwargs):
        target = self.ok("thaw", pid, "--json", **kwargs).target
        assert target["state"] == "resident", target
        return target

    def thaw_all(self, **kwargs):
        return self.ok("thaw", "--all", "--json", **kwargs)

    def list(self):
        return self.ok("list", "--json").targets

    def show(self, pid):
        result = self.ok("show", pid, "--json").json
        return result["targets"][0] if "targets" in result else result.get("target", result)

    def poisons(self):
        """Who touches a page that cannot be read back gets SIGBUS; without UFFDIO_POISON (before Linux 6.6) it waits."""
        findings = {f["name"]: f for f in self.run("check", "--json").json_all()["findings"]}
        return findings["poison"]["verdict"] == "ok"

    def records(self):
        """Of packs that are kept for the next eviction of their process."""
        try:
            return sorted(n for n in os.listdir(os.path.join(self.runtime, "private")) if n.endswith(".base"))
        except FileNotFoundError:
            return []

    def kept(self):
        return sorted(os.path.join(self.store, n.split("-")[2].replace(".base", ".pack")) for n in self.records())

    def packs(self):
        """What is in the store, but packs that are kept."""
        try:
            names = os.listdir(self.store)
        except FileNotFoundError:
            return []
        return sorted({os.path.join(self.store, n) for n in names} - set(self.kept()))

    def log(self):
        for path in (self.env["FIRN_LOG"], os.path.join(self.runtime, "agent.log")):
            try:
                return "agent's log:\n" + read(path)[-4000:]
            except OSError:
                pass
        return "(no agent's log)"

    def points(self):
        result = self._call([FIRND, "--list-points"], 10)
        assert result.code == 0, result
        return result.out.split()

    def close(self):
        self._note()
        # The agent first: a keeper alone serves nobody, and victims are dead by now.
        for process in sorted(self.agents.values(), key=lambda p: p.pid):
            process.kill()
        stuck = []
        for process in self.agents.values():
            try:
                process.wait_dead()
            except Timeout:
                stuck.append(process.pid)
            process.close()
        shutil.rmtree(self.runtime, ignore_errors=True)
        shutil.rmtree(self.state, ignore_errors=True)
        assert not stuck, f"agents that cannot be killed: {stuck}"


class Victim:
    """A program that answers one line to each line."""

    def __init__(self, name, *args, user=None, argv=None, ready="ready", env=None, timeout=90, wait=True):
        self.name = name
        self.err = tempfile.TemporaryFile()
        self.argv = [*user_args(user), *(argv or [os.path.join(VICTIMS, name), *map(str, args)])]
        self.proc = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.err,
                                     bufsize=0, env=env)
        self.process = Process(self.proc.pid, ours=False)
        self.pid = self.proc.pid
        self.buffer = b""
        self.ready_line = None
        if wait:
            try:
                self.ready_line = self.line(timeout)
                assert self.ready_line.startswith(ready), f"{self} said {self.ready_line!r}"
            except BaseException:
                self.stop()
                raise

    def __repr__(self):
        return f"{' '.join(self.argv)} (pid {self.pid}, state {state_of(self.pid)})"

    def errors(self):
        self.err.seek(0)
        return self.err.read().decode(errors="replace")[-6000:]

    def line(self, timeout):
        deadline = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.proc.stdout], [], [], left)[0]:
                raise Timeout(f"{self}: no answer within {timeout} s; {where(self.pid)}\n{self.errors()}")
            data = os.read(self.proc.stdout.fileno(), 4096)
            if not data:
                self.process.wait_dead()
                code = self.proc.wait()
                raise AssertionError(f"{self} ended with {code}\n{self.errors()}")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode(errors="replace")

    def send(self, command):
        self.proc.stdin.write(command.encode() + b"\n")

    def reply(self, timeout=90):
        line = self.line(timeout)
        assert line.startswith("ok"), f"{self}: {line}\n{self.errors()}"
        return line[2:].strip()

    def cmd(self, command, timeout=90):
        self.send(command)
        return self.reply(timeout)

    def silent(self, seconds):
        """Nothing is answered for so long: it does not run, or waits for a page."""
        return b"\n" not in self.buffer and not select.select([self.proc.stdout], [], [], seconds)[0]

    def end(self, timeout=20):
        """Let it quit by itself: exit code 0."""
        self.send("quit")
        self.reply(timeout)
        assert self.proc.wait(timeout) == 0

    def kill(self, sig=signal.SIGKILL):
        self.process.kill(sig)

    def stop(self):
        if self.process.fd < 0:
            return
        self.process.kill()
        try:
            self.proc.wait(20)
        finally:
            self.proc.stdin.close()
            self.proc.stdout.close()
            self.process.close()
            self.err.close()


class Cgroup:
    """A control group of a test's own: below the test's own in a version 1 hierarchy, or of version 2."""

    ROOT = "/sys/fs/cgroup"

    def __init__(self, hierarchy, path):
        """@hierarchy: its directory there, "memory" or "unified"; @path below its root."""
        at = self.base(hierarchy)
        self.path = "/" + path
        self.dir = os.path.join(at, path)
        self.made = []
        for part in path.split("/"):
            at = os.path.join(at, part)
            if not os.path.isdir(at):
                os.mkdir(at)
                self.made.append(at)

    @staticmethod
    def available(hierarchy):
        return os.path.exists(os.path.join(Cgroup.base(hierarchy), "cgroup.procs"))

    @staticmethod
    def base(hierarchy):
        """Where version 2 is all there is, as with systemd by default, it is each of them."""
        if os.path.exists(os.path.join(Cgroup.ROOT, "cgroup.controllers")):
            return Cgroup.ROOT
        return os.path.join(Cgroup.ROOT, hierarchy)

    def add(self, *pids):
        for pid in pids:
            with open(os.path.join(self.dir, "cgroup.procs"), "w") as f:
                f.write(str(pid))

    def close(self):
        """Whoever is in it is a child of the test that was killed, or goes to the group above it."""
        for made in reversed(self.made):
            try:
                for pid in read(os.path.join(made, "cgroup.procs")).split():
                    with open(os.path.join(os.path.dirname(self.made[0]), "cgroup.procs"), "w") as f:
                        f.write(pid)
            except OSError:
                pass
            try:
                wait_until(lambda: not os.path.isdir(made) or _rmdir(made), 10, f"{made} goes")
            except Timeout:
                pass
        self.made = []


def _rmdir(path):
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


def where(pid):
    """What each thread of a process is doing, for a message."""
    lines = []
    try:
        for tid in sorted(os.listdir(f"/proc/{pid}/task"), key=int)[:8]:
            base = f"/proc/{pid}/task/{tid}/"
            try:
                lines.append(f"{tid} {read(base + 'stat').rsplit(')', 1)[1].split()[0]} "
                             f"wchan {read(base + 'wchan')} syscall {read(base + 'syscall').split()[0]}")
            except OSError:
                pass
    except OSError:
        return "it is gone"
    return "; ".join(lines)


# A process seen from outside.

STATUS_KEYS = ("Name", "Umask", "Tgid", "PPid", "TracerPid", "Uid", "Gid", "Groups", "Threads", "SigPnd", "ShdPnd",
               "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
               "Seccomp_filters", "VmLck", "VmPin", "Cpus_allowed", "CoreDumping", "THP_enabled")


def descriptors(pid):
    table = {}
    for n in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{n}")
            info = read(f"/proc/{pid}/fdinfo/{n}")
        except OSError:
            continue
        keep = [line for line in info.splitlines() if line.split(":")[0] in ("pos", "flags")]
        table[int(n)] = (target, *keep)
    return table


def code_of(pid):
    """Digest of every executable mapping: whoever pokes code in must take it out."""
    digests = {}
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in read(f"/proc/{pid}/maps").splitlines():
            span, prot = line.split()[:2]
            first, last = (int(x, 16) for x in span.split("-"))
            if "x" not in prot or "[vsyscall]" in line:
                continue
            mem.seek(first)
            digests[span] = hashlib.sha256(mem.read(last - first)).hexdigest()
    return digests


def snapshot(pid, calls=True, maps=True, code=True):
    """All that a freeze must not change."""
    snap = {"fds": descriptors(pid)}
    if maps:
        snap["maps"] = read(f"/proc/{pid}/maps").splitlines()
    if code:
        snap["code"] = code_of(pid)
    status = status_of(pid)
    snap["status"] = {k: status[k] for k in STATUS_KEYS if k in status}
    for name in ("limits", "personality", "oom_score_adj", "coredump_filter", "comm", "cmdline", "environ", "timerslack_ns",
                 "cgroup"):
        try:
            snap[name] = read(f"/proc/{pid}/{name}", "rb").decode(errors="replace")
        except OSError:
            pass
    try:
        timers = read(f"/proc/{pid}/timers")
        snap["timers"] = [line for line in timers.splitlines()]
    except OSError:
        pass
    for name in ("cwd", "root", "exe"):
        snap[name] = os.readlink(f"/proc/{pid}/{name}")
    threads = {}
    for tid in sorted(os.listdir(f"/proc/{pid}/task"), key=int):
        base = f"/proc/{pid}/task/{tid}/"
        try:
            fields = dict(line.split(":", 1) for line in read(base + "status").splitlines())
            threads[tid] = {k: fields[k].strip() for k in ("Name", "SigPnd", "SigBlk", "TracerPid", "Seccomp")}
            if calls:
                threads[tid]["state"] = fields["State"].strip()
                threads[tid]["syscall"] = read(base + "syscall").strip()
        except OSError:
            pass
    snap["threads"] = threads
    return snap


def differences(before, after):
    out = []
    for key in before:
        a, b = before[key], after.get(key)
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            for k in sorted(set(a) | set(b), key=str):
                if a.get(k) != b.get(k):
                    out.append(f"{key} {k}: {a.get(k)} -> {b.get(k)}")
        elif isinstance(a, list) and isinstance(b, list):
            gone, new = [x for x in a if x not in b], [x for x in b if x not in a]
            out.append(f"{key}: {len(a)} -> {len(b)} lines; gone {gone[:6]}; new {new[:6]}")
        else:
            out.append(f"{key}: {a!r} -> {b!r}")
    return out


def settle(pid, seconds=5):
    """Wait until every thread of a still process sleeps again."""
    def sleeping():
        states = []
        for tid in os.listdir(f"/proc/{pid}/task"):
            try:
                states.append(read(f"/proc/{pid}/task/{tid}/stat").rsplit(")", 1)[1].split()[0])
            except OSError:
                pass
        return all(s in "SI" for s in states)
    wait_until(sleeping, seconds, f"all threads of {pid} sleep; {where(pid)}")


def assert_same(before, pid, **kwargs):
    """@pid is in every respect as it was: within a moment, since threads must first fall asleep again."""
    after = {}

    def same():
        after.clear()
        after.update(snapshot(pid, **kwargs))
        return not differences(before, after)
    try:
        wait_until(same, 3, "")
    except Timeout:
        raise AssertionError("the target is not as it was:\n" + "\n".join(differences(before, after))) from None


def uffd_mappings(pid):
    found, head = [], ""
    for line in read(f"/proc/{pid}/smaps").splitlines():
        if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
            head = line
        elif line.startswith("VmFlags:") and {"um", "uw", "ui"} & set(line.split()):
            found.append(head)
    return found


def assert_no_trace(firn, pid):
    """Nothing of a freeze is left in the target, the store or the agent."""
    status = status_of(pid)
    assert status["TracerPid"] == "0", f"traced by {status['TracerPid']}"
    assert status["State"][0] not in "Tt", f"still stopped: {status['State']}"
    assert not uffd_mappings(pid), f"userfaultfd still registered: {uffd_mappings(pid)[:4]}"
    ours = [fd for fd in descriptors(pid).items() if "userfaultfd" in fd[1][0] or ".pack" in fd[1][0]]
    assert not ours, f"a descriptor is left: {ours}"
    # Children that have ended are noticed within a second or two.
    wait_until(lambda: firn.packs() == [], 5, f"the packs go: {firn.packs()}")
    targets = [t for t in firn.list() if t["pid"] == pid]
    assert not targets, f"still listed: {targets}"


def pagemap(pid, address, pages):
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as f:
        f.seek(address // PAGE * 8)
        data = f.read(pages * 8)
    return [int.from_bytes(data[i:i + 8], "little") for i in range(0, len(data), 8)]


def pagemap_scans():
    """Does this kernel have PAGEMAP_SCAN (Linux 6.7)?  Without it, what was in huge pages is not known after an eviction."""
    with open("/proc/self/pagemap", "rb", buffering=0) as f:
        try:
            # size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, mask, any of, return: nothing at all.
            fcntl.ioctl(f, 0xc0606610, bytearray(struct.pack("12Q", 96, 0, PAGE, PAGE, 0, 0, 0, 0, 0, 0, 0, 1)))
        except OSError as e:
            assert e.errno == errno.ENOTTY, e
            return False
    return True


def say(text):
    print(text, file=sys.stderr)
