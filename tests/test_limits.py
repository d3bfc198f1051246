# SPDX-License-Identifier: MIT
"""What a user who is not root cannot make the agent do; and what an agent that ends leaves behind: nothing."""
import json
import os
import signal
import socket
import subprocess
import threading

import pytest

from harness import NOBODY, read, status_of, user_args, wait_until
from test_socket import Client

AT_ONCE = 16        # requests of one user
CONNECTIONS = 64    # of one user

# Ask for many things at once, each on a connection of its own; then go away in the middle.
MANY = """
import json, select, socket, sys
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    return s
call = {"method": "org.firn.Agent.Freeze", "parameters": {"targets": [{"pid": int(sys.argv[2])}], "dryRun": False}}
socks = []
for _ in range(int(sys.argv[3])):
    socks.append(connect())
    socks[-1].sendall(json.dumps(call).encode() + b"\\0")
answered = []
while len(answered) < int(sys.argv[3]) - int(sys.argv[4]):
    ready = select.select([s for s in socks if s not in answered], [], [], 20)[0]
    assert ready, "no answer"
    for s in ready:
        text = s.recv(1 << 16)
        assert b"too-many" in text, text
        answered.append(s)
for s in socks:
    s.close()
s = connect()
s.sendall(json.dumps(call).encode() + b"\\0")
print(json.dumps({"refused": len(answered), "then": s.recv(1 << 16).rstrip(b"\\0").decode()}))
"""


@pytest.fixture
def slow(firn):
    """A freeze takes its time: the hook before it does."""
    firn.configure(f"[rule slow]\nuid = {NOBODY}\nbefore-freeze = sleep 3\nhook-timeout = 20s\n")
    firn.start()
    return firn


def as_nobody(firn, *args):
    return json.loads(firn._call([*user_args(NOBODY), "/usr/bin/python3", "-c", MANY,
                                  os.path.join(firn.runtime, "firn.sock"), *map(str, args)], 60).out)


def test_requests_of_one_user(slow, victims):
    """A bound on those that are under way; a client that goes away does not make room for more.  Root is not concerned."""
    mine = victims("heap", "--mib", 8, user=NOBODY)
    said = as_nobody(slow, mine.pid, 24, AT_ONCE)
    assert said["refused"] == 24 - AT_ONCE
    assert "too-many" in said["then"], said
    ours = victims("heap", "--mib", 8)
    slow.freeze(ours.pid)
    slow.thaw(ours.pid)

    def ended():
        """All that were let in: one froze it, the others found it frozen."""
        text = slow.ok("stats", "--format", "openmetrics").out
        return sum(int(line.split()[1]) for line in text.splitlines()
                   if line.startswith(("firn_operations_total{", "firn_failures_total{"))
                   and 'verb="freeze"' in line) == AT_ONCE + 1
    wait_until(ended, 30, "all requests have ended")
    slow.ok("thaw", mine.pid, user=NOBODY)
    mine.cmd("verify")


def test_connections_of_one_user(slow):
    """Others, root above all, still get in."""
    script = ("import socket, sys\n"
              "socks, open = [], 0\n"
              "for _ in range(400):\n"
              "    s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(sys.argv[1]); socks.append(s)\n"
              "    try:\n"
              "        s.sendall(b'{\"method\":\"org.firn.Agent.Ping\"}\\0'); open += bool(s.recv(4096))\n"
              "    except OSError:\n"
              "        pass\n"
              "print('ready', open, flush=True)\n"
              "sys.stdin.read()\n")
    with subprocess.Popen([*user_args(NOBODY), "/usr/bin/python3", "-c", script, os.path.join(slow.runtime, "firn.sock")],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout.readline().split() == ["ready", str(CONNECTIONS)]
        assert slow.list() == []
        p.stdin.close()


def test_unread_answers(firn):
    """Who calls and does not read is not listened to meanwhile; when it reads, every call was answered."""
    firn.start()
    call = b'{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"org.firn.Agent"}}\0'
    n = 4000
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.path.join(firn.runtime, "firn.sock"))
        s.settimeout(60)
        before = status_of(firn.agent.pid)["VmHWM"]
        sender = threading.Thread(target=lambda: s.sendall(call * n), daemon=True)
        sender.start()
        sender.join(2)
        assert sender.is_alive(), "all was taken, though no answer was read"
        answers = 0
        while answers < n:
            data = s.recv(1 << 20)
            assert data
            answers += data.count(b"\0")
        sender.join(20)
    assert not sender.is_alive()
    kib = [int(text.split()[0]) for text in (before, status_of(firn.agent.pid)["VmHWM"])]
    assert kib[1] - kib[0] < 16 << 10, kib
    assert firn.list() == []


@pytest.mark.parametrize("how", ["Stop", "SIGTERM"])
def test_stop_in_the_middle(firn, victims, how):
    """A request is half done when the agent is to end: what it has taken comes back, and it takes nothing more."""
    firn.configure("[rule slow]\nuid = 0\nbefore-freeze = sleep 1\nhook-timeout = 20s\n")
    firn.start()
    each = [victims("heap", "--mib", 8) for _ in range(3)]
    agent, keeper = firn.agent, firn.keeper
    command = firn.background("freeze", *[v.pid for v in each])
    wait_until(firn.list, 20, "the first is frozen")
    if how == "Stop":
        Client(firn).send("org.firn.Agent.Stop")
    else:
        os.kill(agent.pid, signal.SIGTERM)
    agent.wait_dead(30)
    keeper.wait_dead(20)
    command.wait(30)
    for v in each:
        v.cmd("verify")
    assert firn.packs() == []


def test_hook_of_a_confined_root(firn, victims, tmp_path):
    """A hook may no more than its target: root without capabilities has none in its hook either."""
    log = tmp_path / "log"
    log.touch()
    log.chmod(0o666)
    for directory in (tmp_path, *tmp_path.parents):
        if str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    firn.configure(f"[rule hook]\nuid = 0\nbefore-freeze = grep ^Cap /proc/self/status >> {log}\n")
    firn.start()
    v = victims("confined", argv=["setpriv", "--bounding-set", "-all,+kill", "--inh-caps", "-all", "--",
                                  "/usr/bin/python3", "-c",
                                  "import time\nheap = bytearray(b'x' * (8 << 20))\nprint('ready', flush=True)\ntime.sleep(600)\n"])
    assert int(status_of(v.pid)["CapEff"], 16) == 1 << 5, read(f"/proc/{v.pid}/status")
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    has = dict(line.split(":\t") for line in log.read_text().splitlines())
    assert not int(has["CapEff"], 16) & ~(1 << 5) and not int(has["CapPrm"], 16) & ~(1 << 5), has
    # Who is confined by nothing may in its hook what it may.
    log.write_text("")
    free = victims("heap", "--mib", 8)
    firn.freeze(free.pid)
    firn.thaw(free.pid)
    has = dict(line.split(":\t") for line in log.read_text().splitlines())
    assert int(has["CapEff"], 16) & 1 << 21, has


def test_descriptor_that_there_is_not(firn, victims):
    """The numbers that a thread waits for are read from memory that the target changes as it likes."""
    v = victims("poller", argv=["/usr/bin/python3", "-c", """
import ctypes, os, threading, time
class Poll(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]
heap = bytearray(os.urandom(1 << 20) * 8)
r, w = os.pipe()
fds = (Poll * 2)((r, 1, 0), (-1, 1, 0))
libc = ctypes.CDLL(None)
threading.Thread(target=lambda: libc.poll(fds, 2, -1), daemon=True).start()
time.sleep(0.5)
fds[1].fd = 400000000
print("ready", w, flush=True)
os.read(0, 1)
"""])
    firn.start()
    other = victims("heap", "--mib", 8)
    firn.freeze(other.pid)
    firn.thaw(other.pid)
    before = status_of(firn.agent.pid)["VmHWM"]
    firn.ok("freeze", "--wake", v.pid)
    wait_until(lambda: firn.show(v.pid)["wake"]["watching"], 30, "it is watched")
    kib = [int(text.split()[0]) for text in (before, status_of(firn.agent.pid)["VmHWM"])]
    assert kib[1] - kib[0] < 64 << 10, kib
    firn.thaw(v.pid)
