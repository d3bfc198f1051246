# SPDX-License-Identifier: MIT
"""The configuration: check and show, what a wrong one does to an agent, SIGHUP; what a service manager is told."""
import json
import os
import random
import select
import signal
import socket
import subprocess

import pytest

import harness
from harness import DONE, FAILED, NOBODY, REFUSED, USAGE, Process, state_of, wait_until

BAD = "[agent]\nauto = maybe\n\n[rule a]\npriority = 200\nwake = yes\n"


def errors_of(result):
    """(file, line, message) of each line on stderr."""
    found = []
    for line in result.err.splitlines():
        prefix, path, number, message = line.split(":", 3)
        assert prefix == "firnd", line
        found.append((path.strip(), int(number), message.strip()))
    return found


# Check and show

def test_check_valid(firn):
    result = firn.ok("config", "check")
    assert "valid" in result.out and result.err == "", result
    path = firn.configure("[policy]\nlow = 1GiB\n")
    drop = firn.configure("[policy]\nhigh = 2GiB\n", "firn.conf.d/10-high.conf")
    assert firn.ok("config", "check").out.splitlines() == [path, drop, "valid"]
    found = firn.ok("config", "check", "--json").json_all()
    assert found == {"valid": True, "files": [path, drop], "errors": []}


def test_check_tells_all_errors(firn):
    path = firn.configure(BAD + "nonsense\n[agent]\n")
    drop = firn.configure("[store]\nlimit = 2Q\n", "firn.conf.d/x.conf")
    for verb in ("check", "show"):
        result = firn.run("config", verb)
        assert result.code == USAGE and result.out == "", result
        assert [(p, n) for p, n, _ in errors_of(result)] == [(path, 2), (path, 5), (path, 7), (path, 8), (drop, 2)], result
        assert all(":" in message for _, _, message in errors_of(result)), "what is wrong, and what to do"
    result = firn.run("config", "check", "--json")
    assert result.code == USAGE, result
    found = json.loads(result.out)
    assert found["valid"] is False
    assert [(e["file"], e["line"], e["message"]) for e in found["errors"]] == errors_of(result)


def test_check_unreadable(firn):
    path = firn.configure("[agent]\nauto = no\n")
    os.chmod(path, 0o666)
    result = firn.run("config", "check")
    assert result.code == USAGE and f"{path}: others than root may write to it" in result.err, result
    os.chmod(path, 0o600)
    result = firn.run("config", "check", user=NOBODY)
    assert result.code == USAGE and f"{path}: cannot be read" in result.err, result


def value(shown, section, key):
    found = [v for v in shown["values"] if (v["section"], v["key"]) == (section, key)]
    assert len(found) == 1, found
    return found[0]


def test_show(firn):
    path = firn.configure("[agent]\nprofile = embedded\n[policy]\n\nmin-idle = 90s\n[rule mine]\ncomm = redis*\npriority = 10\n")
    shown = firn.ok("config", "show", "--json", user=NOBODY).json_all()
    assert value(shown, "policy", "min-idle") == {"section": "policy", "key": "min-idle", "value": "90s",
                                                  "from": {"kind": "file", "file": path, "line": 5}}
    assert value(shown, "store", "buffer")["value"] == "4MiB"
    assert value(shown, "store", "buffer")["from"] == {"kind": "profile", "profile": "embedded"}
    assert value(shown, "agent", "auto") == {"section": "agent", "key": "auto", "value": "no", "from": {"kind": "default"}}
    assert shown["dailyBudget"]["bytes"] == 2 << 30
    rule = shown["rules"][-1]
    assert rule == {"name": "mine", "from": {"kind": "file", "file": path, "line": 6},
                    "conditions": {"comm": "redis*"}, "sets": {"priority": "10"}}
    text = firn.ok("config", "show").out
    assert f"# {path}:5" in text and "# profile embedded" in text and "[rule mine]" in text, text


def test_show_never_list(firn):
    """What the agent never freezes by itself is data that is shown."""
    rules = {r["name"]: r for r in firn.ok("config", "show", "--json").json_all()["rules"]}
    always = {bit for r in rules.values() if r["sets"].get("never") == "always"
              for bit in r["conditions"]["is"].split(" | ")}
    assert always == {"init", "agent", "keeper", "kernel-thread"}
    yes = [r["conditions"] for r in rules.values() if r["sets"].get("never") == "yes"]
    assert {"oom-score-adj": "-1000"} in yes
    assert {c["is"] for c in yes if "is" in c} == {"login-shell", "realtime", "traced", "inhibitor", "oom-omit"}
    names = {name for c in yes for name in c.get("comm", "").split(" | ")}
    assert {"sshd", "Xorg", "gnome-shell", "sway", "dbus-daemon", "systemd", "systemd-*"} <= names


@pytest.mark.parametrize("args", [["config"], ["config", "edit"], ["config", "check", "show"], ["config", "show", "1"]])
def test_usage(firn, args):
    result = firn.run(*args)
    assert result.code == USAGE and result.out == "", result
    result.one_line_error()


def test_random_bytes(firn):
    """An answer to whatever a file holds."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    path = os.path.join(firn.config, "firn.conf")
    for _ in range(40):
        with open(path, "wb") as f:
            f.write(rng.randbytes(rng.choice([1, 100, 5000])))
        result = firn.run("config", "check")
        assert result.code in (DONE, USAGE), result
        assert result.code == DONE or result.err, result


# A running agent

def log_of(firn):
    return harness.read(firn.env["FIRN_LOG"])


def hup(firn, what):
    """SIGHUP, and wait until the log says so once more."""
    before = log_of(firn).count(what)
    firn.agent.kill(signal.SIGHUP)
    wait_until(lambda: log_of(firn).count(what) > before, 20, f"the log says '{what}'")


def test_wrong_at_start(firn, victims):
    """An agent whose configuration is wrong starts all the same, says what is wrong, and thaws."""
    path = firn.configure(BAD)
    v = victims("heap", "--mib", 8)
    result = firn.start()
    assert result.err == "", result
    log = log_of(firn)
    assert f"{path}:2: auto is 'maybe'" in log and f"{path}:5: priority is '200'" in log, log
    assert "what is built in counts" in log, log
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    v.cmd("verify")


def end(firn):
    agent = firn.agent
    agent.kill(signal.SIGTERM)
    agent.wait_dead()


def test_reload(firn, victims):
    """SIGHUP reads it anew; a wrong one keeps the old one in force.  on-stop tells which one that is."""
    v = victims("heap", "--mib", 8)
    firn.start("--idle-exit", "0")
    firn.freeze(v.pid)
    firn.configure("[agent]\non-stop = leave\n")
    hup(firn, "is in force")
    path = firn.configure("[agent]\non-stop = thaw\nauto = 7\n")
    hup(firn, "the one from before stays in force")
    assert f"{path}:3: auto is '7'" in log_of(firn)
    end(firn)
    assert state_of(v.pid) == "T", "the wrong configuration counted: it was thawed"
    firn.start("--idle-exit", "0")
    assert "what is built in counts" in log_of(firn)
    firn.configure("[agent]\non-stop = thaw\n")
    hup(firn, "is in force")
    end(firn)
    v.cmd("verify")
    assert firn.packs() == []


def test_stop_leaves(firn, victims):
    """on-stop = leave: SIGTERM ends the agent alone, and the next one takes over."""
    firn.configure("[agent]\non-stop = leave\n")
    v = victims("heap", "--mib", 8)
    firn.start("--idle-exit", "0")
    firn.freeze(v.pid)
    end(firn)
    assert state_of(v.pid) == "T" and firn.keeper
    firn.thaw(v.pid)
    v.cmd("verify")
    assert firn.packs() == []


def test_scope_by_configuration(firn, victims):
    v, other = victims("heap", "--mib", 4), victims("heap", "--mib", 4)
    del firn.env["FIRN_SCOPE"]
    firn.configure(f"[agent]\nscope = tree:{v.pid}\n")
    firn.freeze(v.pid)
    result = firn.run("freeze", other.pid)
    assert result.code == REFUSED and "confined to" in result.err, result
    firn.thaw(v.pid)
    # One of the command line goes before it.
    end(firn)
    firn.start("--scope", f"tree:{other.pid}")
    firn.freeze(other.pid)
    firn.thaw(other.pid)


def test_small_buffers(firn, victims):
    """The embedded profile writes by half of its 4 MiB at a time."""
    firn.configure("[agent]\nprofile = embedded\n")
    v = victims("heap", "--mib", 96)
    target = firn.evict(v.pid)
    io = target["io"]
    assert io["writeBytes"] > 8 << 20, target
    assert io["writeBytes"] / io["writeCalls"] <= (2 << 20) + 4096, target
    firn.thaw(v.pid)
    v.cmd("verify")


# A service manager

class Manager:
    """What systemd would be: it listens to what it is told, and hands over a listening socket."""

    def __init__(self, firn, listen=False, watchdog_us=None):
        self.firn = firn
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = os.path.join(firn.runtime, "notify")
        self.told.bind(path)
        self.states = []
        self.kept = None
        self.listening = None
        env = {**firn.env, "NOTIFY_SOCKET": path}
        shell = f"exec {harness.FIRND} --foreground"
        if watchdog_us:
            env["WATCHDOG_USEC"] = str(watchdog_us)
            shell = f"export WATCHDOG_PID=$$; {shell}"
        fds = ()
        if listen:
            self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.listening.bind(os.path.join(firn.runtime, "firn.sock"))
            self.listening.listen()
            fds = (self.listening.fileno(),)
        self.shell = shell
        self.env = env
        self.fds = fds
        self.proc = None
        self.err = open(firn.env["FIRN_LOG"], "w")

    def start(self):
        fds = [(fd, "firnd.socket") for fd in self.fds] + ([(self.kept, "firn-key")] if self.kept is not None else [])
        env = dict(self.env)
        # A shell, since the agent's own PID belongs into its environment.
        shell = "".join(f"exec {50 + i}<&{fd}; exec {3 + i}<&{50 + i} {50 + i}<&-; " for i, (fd, _) in enumerate(fds))
        if fds:
            env.update(LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=":".join(name for _, name in fds))
            shell += "export LISTEN_PID=$$; "
        self.proc = subprocess.Popen(["/bin/bash", "-c", shell + self.shell], env=env,
                                     pass_fds=[fd for fd, _ in fds], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.err)
        self.until("READY=1")
        self.firn._note()
        assert self.firn.agent.pid == self.proc.pid
        return self

    def hear(self):
        while select.select([self.told], [], [], 0)[0]:
            text, fds, _, _ = socket.recv_fds(self.told, 4096, 8)
            lines = text.decode().split("\n")
            if "FDNAME=firn-key" in lines:
                if self.kept is not None:
                    os.close(self.kept)
                self.kept = fds.pop() if "FDSTORE=1" in lines else None
            for fd in fds:
                os.close(fd)
            self.states.append(text.decode())

    def until(self, state):
        def heard():
            self.hear()
            return any(state in s.split("\n") for s in self.states)
        wait_until(heard, 30, f"{state} is told")
        before, self.states = self.states, []
        return before

    def close(self):
        if self.kept is not None:
            os.close(self.kept)
        if self.proc and self.proc.poll() is None:
            Process(self.proc.pid, ours=False).kill()
            self.proc.wait()
        for s in (self.told, self.listening, self.err):
            if s:
                s.close()


@pytest.fixture
def manager(firn):
    started = []

    def start(wait=True, **kwargs):
        started.append(Manager(firn, **kwargs))
        return started[-1].start() if wait else started[-1]

    yield start
    for m in started:
        m.close()


def test_notify(firn, victims, manager):
    m = manager(watchdog_us=400000)
    m.until("WATCHDOG=1")
    m.until("WATCHDOG=1")
    firn.configure(BAD)
    os.kill(m.proc.pid, signal.SIGHUP)
    told = m.until("RELOADING=1")
    if not any("READY=1" in s for s in told):
        m.until("READY=1")
    v = victims("heap", "--mib", 8)
    firn.freeze(v.pid)
    os.kill(m.proc.pid, signal.SIGTERM)
    m.until("STOPPING=1")
    assert m.proc.wait(30) == 0
    v.cmd("verify")


def test_socket_activation(firn, victims, manager):
    """The socket that was handed over is listened to, and listens on when the agent ends."""
    m = manager(listen=True)
    v = victims("heap", "--mib", 8)
    firn.freeze(v.pid)
    os.kill(m.proc.pid, signal.SIGTERM)
    assert m.proc.wait(30) == 0
    v.cmd("verify")
    assert os.path.exists(os.path.join(firn.runtime, "firn.sock"))
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(os.path.join(firn.runtime, "firn.sock"))
    # It waits for the next agent, which answers.
    call = {"method": "org.firn.Agent.Ping", "parameters": {}}
    client.sendall(json.dumps(call).encode() + b"\0")
    m.start()
    assert select.select([client], [], [], 30)[0]
    assert json.loads(client.recv(65536).rstrip(b"\0"))["parameters"]["pid"] == m.proc.pid
    client.close()
    os.kill(m.proc.pid, signal.SIGTERM)
    assert m.proc.wait(30) == 0
    # The command waits for the agent that its connection starts, and starts none of its own.
    command = firn.background("list", "--json")
    assert select.select([m.listening], [], [], 30)[0]
    m.start()
    out, err = command.communicate(timeout=30)
    assert command.returncode == 0 and json.loads(out)["targets"] == [], err
    assert firn.agent.pid == m.proc.pid


def test_key_is_kept(firn, victims, manager):
    """Agent and keeper killed together: with the key that the manager kept, nothing is lost."""
    m = manager(listen=True)
    v, w = victims("heap", "--mib", 16), victims("heap", "--mib", 16)
    firn.freeze(v.pid)
    firn.evict(w.pid)
    keeper = firn.keeper
    keeper.kill()
    firn.agent.kill()
    m.proc.wait()
    keeper.wait_dead()
    assert m.kept, "it was not handed over"
    m.start()
    firn.thaw(v.pid)
    v.cmd("verify")
    w.cmd("verify")
    firn.thaw(w.pid)
    w.cmd("verify")
    harness.assert_no_trace(firn, v.pid)
    # With nothing out, the key is not kept any longer.
    os.kill(m.proc.pid, signal.SIGTERM)
    assert m.proc.wait(30) == 0
    m.hear()
    assert m.kept is None


@pytest.mark.parametrize("kept", ["another file", "a pipe", "another key"])
def test_wrong_key_is_kept(firn, victims, manager, kept):
    """What is kept under that name and is no key of ours: a new one is made."""
    m = manager(wait=False)
    if kept == "a pipe":
        m.kept, other = os.pipe()
        os.close(other)
    else:
        m.kept = os.memfd_create("other")
        os.write(m.kept, os.urandom(100 if kept == "another file" else 4096))
    m.start()
    v = victims("heap", "--mib", 8)
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    v.cmd("verify")


def test_no_manager(firn, tmp_path):
    """Nonsense in the environment is no reason not to run."""
    firn.start(NOTIFY_SOCKET="@", LISTEN_FDS="5", LISTEN_PID="1", WATCHDOG_USEC="x")
    firn.ok("list")
    end(firn)
    firn.start(NOTIFY_SOCKET=str(tmp_path / "nobody"), LISTEN_FDS="-1", LISTEN_PID="x")
    firn.ok("list")


def test_options_for_an_agent_that_runs(firn):
    """They would not count: that is said, and the agent stays as it is.  Without options all is well."""
    firn.start("--idle-exit", "0")
    agent = firn.agent.pid
    for args in (["--auto", "dry-run"], ["--foreground"]):
        result = firn.start(*args, check=False)
        assert result.code == FAILED, result
        assert f"as process {agent}" in result.one_line_error()
    assert firn.start().out == "" and firn.agent.pid == agent
