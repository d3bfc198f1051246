# SPDX-License-Identifier: MIT
"""The agent's socket, spoken to directly: good calls, nonsense, and clients that go away."""
import json
import os
import random
import socket

import pytest

import harness
from harness import state_of, wait_until


class Client:
    def __init__(self, firn):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(30)
        self.s.connect(os.path.join(firn.runtime, "firn.sock"))
        self.buffer = b""

    def send(self, method, parameters=None, **more):
        self.s.sendall(json.dumps({"method": method, "parameters": parameters or {}, **more}).encode() + b"\0")

    def receive(self):
        while b"\0" not in self.buffer:
            data = self.s.recv(65536)
            if not data:
                return None
            self.buffer += data
        text, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(text)

    def call(self, method, parameters=None, **more):
        self.send(method, parameters, **more)
        while True:
            reply = self.receive()
            if not reply or not reply.get("continues"):
                return reply

    def close(self):
        self.s.close()


@pytest.fixture
def agent(firn):
    firn.start()
    return firn


def alive(firn):
    c = Client(firn)
    reply = c.call("org.firn.Agent.Ping")
    assert reply["parameters"]["pid"] == firn.agent.pid, reply
    assert reply["parameters"]["keeper"] == firn.keeper.pid
    c.close()


def test_ping_and_info(agent):
    alive(agent)
    c = Client(agent)
    info = c.call("org.varlink.service.GetInfo")["parameters"]
    assert "org.firn.Agent" in info["interfaces"], info
    text = c.call("org.varlink.service.GetInterfaceDescription", {"interface": "org.firn.Agent"})
    for method in ("Freeze", "Evict", "Thaw", "List", "Show", "Ping", "Stop"):
        assert f"method {method}(" in text["parameters"]["description"], text


def test_unknown_methods(agent):
    c = Client(agent)
    assert c.call("org.firn.Agent.Melt")["error"] == "org.varlink.service.MethodNotFound"
    reply = c.call("com.example.Other.Method")
    assert reply["error"].startswith("org.varlink.service."), reply
    reply = c.call("org.varlink.service.GetInterfaceDescription", {"interface": "com.example.Other"})
    assert reply["error"].startswith("org.varlink.service."), reply
    alive(agent)


@pytest.mark.parametrize("parameters", [
    {}, {"targets": []}, {"targets": "1"}, {"targets": [1]}, {"targets": [{}]}, {"targets": [{"pid": "x"}]},
    {"targets": [{"pid": -5}]}, {"targets": [{"pid": 1.5}]}, {"targets": [{"pid": 2 ** 70}]}, {"targets": {"pid": 1}},
    {"targets": [{"pid": None}]}, {"targets": [{"tree": []}]}, {"targets": None}, {"targets": [{"pid": 0}]},
    {"targets": [{"cgroup": 5}]}, {"targets": [{"name": None}]}, {"targets": [{"name": "a", "pid": 1}]}, {"targets": [{"unit": {}}]},
    {"targets": [{"cgroup": "/a", "container": "abcd"}]}, {"targets": [5]}, {"targets": ["a"]}, {"targets": [{"user": "a"}]}])
def test_bad_parameters(agent, parameters):
    c = Client(agent)
    reply = c.call("org.firn.Agent.Freeze", parameters)
    assert reply is not None, "the connection was closed without an answer"
    if "error" not in reply:
        assert all("error" in t for t in reply["parameters"]["targets"]), reply
    alive(agent)


VALUES = [None, True, -1, 0, 2 ** 31, 2 ** 63 - 1, 2 ** 63, -2 ** 63, 2 ** 70, 1e300, 0.5, "", "1", "a\0b", "\x1b[2J", "%s%n", [], [[]], {},
          {"pid": 1}, [None], [{"pid": -1}], [{"pid": 2 ** 40}], [{"cgroup": "/../../.."}], [{"name": "*" * 4000}],
          [{"tree": 0}], [{"container": "../.."}], [{"pid": 1}] * 20000]


@pytest.mark.parametrize("method,keys", [
    ("Explain", ["targets"]), ("Priority", ["targets", "priority", "dryRun"]), ("Stats", ["format"]),
    ("Reclaim", ["bytes", "priority", "timeout"]), ("Run", ["need", "priority", "timeout"])])
def test_bad_parameters_of_what_decides(agent, method, keys):
    """Each member with each nonsense, and each without: an answer, and in good time.  Nothing is taken: it is all dry."""
    c = Client(agent)
    for key in keys:
        for value in VALUES:
            reply = c.call(f"org.firn.Agent.{method}", {"dryRun": True, key: value})
            assert reply is not None, (key, value)
    for oneway in (False, True):
        for _ in range(20):         # in a row, and then gone in the middle
            c.send(f"org.firn.Agent.{method}", {"dryRun": True, "targets": [{"pid": os.getpid()}]}, oneway=oneway, more=True)
    c.close()
    alive(agent)


@pytest.mark.parametrize("value", [{}, [], "no", 0, None])
def test_a_dry_run_that_is_written_wrongly(agent, victims, value):
    """It is one all the same: nothing changes."""
    v = victims("heap", "--mib", 8)
    c = Client(agent)
    for method in ("Freeze", "Evict"):
        c.call(f"org.firn.Agent.{method}", {"targets": [{"pid": v.pid}], "dryRun": value})
        assert c.call("org.firn.Agent.List")["parameters"]["targets"] == []
    c.close()
    v.cmd("verify")


def test_nothing_is_left_open(agent, victims):
    """Two hundred questions, and two hundred that are given up: no descriptor, thread or memory stays behind."""
    v = victims("heap", "--mib", 8)
    pid = agent.agent.pid

    def count():
        return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))
    calls = [("Explain", {"targets": [{"pid": v.pid}]}), ("Explain", {}), ("Stats", {}), ("Reclaim", {"bytes": 1}),
             ("Priority", {"targets": [{"pid": v.pid}], "priority": 40}), ("Run", {"need": 1, "dryRun": True})]
    c = Client(agent)
    for method, parameters in calls:
        assert "error" not in c.call(f"org.firn.Agent.{method}", parameters)
    c.close()
    before, kib = count(), harness.anon_kib(pid)
    for i in range(200):
        method, parameters = calls[i % len(calls)]
        c = Client(agent)
        c.call(f"org.firn.Agent.{method}", parameters)
        c.send(f"org.firn.Agent.{method}", parameters)
        c.close()
    wait_until(lambda: count()[0] <= before[0] and count()[1] <= before[1], 20, f"what there was before, {before}: {count()}")
    assert harness.anon_kib(pid) < kib + 4096


def test_a_long_call(agent):
    """Longer than the first buffer: taken whole."""
    missing = int(harness.read("/proc/sys/kernel/pid_max")) - 1
    c = Client(agent)
    reply = c.call("org.firn.Agent.Thaw", {"targets": [{"pid": missing - i} for i in range(1500)]})
    assert len(reply["parameters"]["targets"]) == 1500
    alive(agent)


@pytest.mark.parametrize("data", [
    b"\0", b"\0\0\0\0", b"{}\0", b"[]\0", b"null\0", b"3\0", b'"x"\0', b"{\0", b"GET / HTTP/1.0\r\n\r\n\0",
    b'{"method":3}\0', b'{"method":null,"parameters":{}}\0', b'{"method":"org.firn.Agent.Ping","parameters":[]}\0',
    b'{"method":"org.firn.Agent.Ping","parameters":3}\0', b"\xff\xfe\xfd\0", b'{"method":"\xff"}\0',
    b"[" * 100000 + b"\0", b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"\0", b"x" * (4 << 20), b'{"method":"org.firn.Ag'],
    ids=lambda data: f"{data[:12]!r}-{len(data)}".replace("\\", "_").replace("[", "(").replace("]", ")"))
def test_nonsense(agent, data):
    c = Client(agent)
    try:
        c.s.sendall(data)
        c.s.shutdown(socket.SHUT_WR)
        while c.s.recv(65536):
            pass
    except OSError:
        pass
    c.close()
    alive(agent)


def test_random_bytes(agent):
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    good = b'{"method":"org.firn.Agent.List","parameters":{}}\0'
    for _ in range(200):
        data = bytearray(good * rng.randrange(1, 4))
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        c = Client(agent)
        try:
            c.s.sendall(data)
            c.s.shutdown(socket.SHUT_WR)
            c.s.recv(65536)
        except OSError:
            pass
        c.close()
    alive(agent)


def test_one_byte_at_a_time_and_pipelined(agent):
    c = Client(agent)
    for byte in b'{"method":"org.firn.Agent.Ping","parameters":{}}\0':
        c.s.sendall(bytes([byte]))
    assert "pid" in c.receive()["parameters"]
    for _ in range(50):
        c.send("org.firn.Agent.Ping")
    for _ in range(50):
        assert "pid" in c.receive()["parameters"]


def test_oneway(agent, victims):
    """A call that wants no answer gets none."""
    c = Client(agent)
    c.send("org.firn.Agent.Ping", oneway=True)
    c.send("org.firn.Agent.List")
    assert "targets" in c.receive()["parameters"]


def test_many_connections(agent):
    """More than a client should have: the agent still answers when they are gone."""
    many = []
    try:
        for _ in range(300):
            many.append(Client(agent))
    except OSError:
        pass
    for c in many:
        c.close()
    wait_until(lambda: not failing(agent), 5, "it answers again")


def failing(agent):
    try:
        alive(agent)
        return False
    except (OSError, AssertionError, TypeError):
        return True


def test_a_slow_client_holds_up_nobody(agent, victims):
    """One sends half a message and sleeps; one never reads its answers."""
    half = Client(agent)
    half.s.sendall(b'{"method":"org.firn.Ag')
    deaf = Client(agent)
    deaf.s.setblocking(False)
    try:
        for _ in range(20000):
            deaf.send("org.varlink.service.GetInterfaceDescription", {"interface": "org.firn.Agent"})
    except OSError:
        pass
    v = victims("heap", "--mib", 8)
    agent.freeze(v.pid)
    agent.thaw(v.pid)
    v.cmd("verify")


@pytest.mark.parametrize("method", ["Freeze", "Evict", "Thaw"])
def test_client_goes_away_in_the_middle(agent, victims, method):
    """The operation ends one way or the other, and the target is whole."""
    v = victims("heap", "--mib", 128)
    if method == "Thaw":
        agent.freeze(v.pid)
    c = Client(agent)
    c.send(f"org.firn.Agent.{method}", {"targets": [{"pid": v.pid}]}, more=True)
    c.receive()         # it has begun
    c.close()

    def runs():
        agent.thaw_all()
        return state_of(v.pid) in "SR" and not agent.list()
    wait_until(runs, 20, "it runs, and nothing of it is away")
    v.cmd("verify")


def test_progress_then_one_result(agent, victims):
    v = victims("heap", "--mib", 64)
    c = Client(agent)
    c.send("org.firn.Agent.Freeze", {"targets": [{"pid": v.pid}]}, more=True)
    while True:
        reply = c.receive()
        if not reply.get("continues"):
            break
        p = reply["parameters"]["progress"]
        assert p["pid"] == v.pid and 0 <= p["done"] <= max(p["total"], p["done"])
    target = reply["parameters"]["targets"][0]
    assert target["id"] == f"{v.pid}-{harness.start_time(v.pid)}"
    assert target["comm"] == "heap" and target["kind"] == "copied"
    c.call("org.firn.Agent.Thaw", {"all": True})
    v.cmd("verify")


def test_requests_for_one_target_at_once(agent, victims):
    """Ten clients want different things of one process."""
    v = victims("heap", "--mib", 32)
    clients = [Client(agent) for _ in range(10)]
    for i, c in enumerate(clients):
        method = ("Freeze", "Thaw", "Evict", "Thaw", "Show")[i % 5]
        c.send(f"org.firn.Agent.{method}", {"pid": v.pid} if method == "Show" else {"targets": [{"pid": v.pid}]})
    for c in clients:
        assert c.receive() is not None
    agent.thaw_all()
    v.cmd("verify")
    harness.assert_no_trace(agent, v.pid)


def test_stop(agent, victims):
    v = victims("heap", "--mib", 16)
    agent.freeze(v.pid)
    process = agent.agent
    keeper = agent.keeper
    Client(agent).call("org.firn.Agent.Stop")
    process.wait_dead(20)
    keeper.wait_dead(20)
    v.cmd("verify")
    assert agent.packs() == []


def test_stop_is_roots(agent, victims):
    script = ("import socket, json, sys\n"
              "s = socket.socket(socket.AF_UNIX)\n"
              "s.connect(sys.argv[1])\n"
              "s.sendall(b'{\"method\":\"org.firn.Agent.Stop\",\"parameters\":{}}\\0')\n"
              "print(s.recv(4096).rstrip(b'\\0').decode())\n")
    result = agent._call([*harness.user_args(harness.NOBODY), "/usr/bin/python3", "-c", script,
                          os.path.join(agent.runtime, "firn.sock")], 20)
    assert json.loads(result.out)["parameters"]["code"] == harness.NOT_PERMITTED, result
    alive(agent)
