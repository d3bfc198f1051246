# SPDX-License-Identifier: MIT
"""What the agent decides: explain, priorities, reclaim, run, its own decisions under pressure, and what it tells."""
import hashlib
import json
import os
import time

import pytest

from harness import (FAILED, FIRN, NO_AGENT, NO_TARGET, NOBODY, NOT_PERMITTED, REFUSED, SEVERAL, STORE, USAGE, anon_kib, read, state_of,
                     status_of, wait_until)

MIB = 1 << 20

# Nobody has to have been idle or awake for long in a test.
QUICK = """
[policy]
min-idle = 0
need-min-idle = 0
min-awake = 0
quick-return = 0
min-size = 4MiB
active = 0
"""

HOLDER = """
import hashlib, random, sys
mib = int(sys.argv[1])
r = random.Random(int(sys.argv[2]))
# Half of each page is random.
data = bytearray(mib << 20)
for at in range(0, len(data), 4096):
    data[at:at + 2048] = r.randbytes(2048)
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "sum":
        print("ok", hashlib.sha256(data).hexdigest(), flush=True)
    elif line.strip() == "quit":
        print("ok", flush=True)
        break
"""


def expected(mib, seed):
    import random
    r = random.Random(seed)
    return hashlib.sha256(b"".join(r.randbytes(2048) + bytes(2048) for _ in range(mib << 8))).hexdigest()


@pytest.fixture
def config(firn_only, tmp_path):
    """write(text): the agent's configuration, read at its start."""
    directory = tmp_path / "config"
    directory.mkdir()
    firn_only.env["FIRN_CONFIG_DIR"] = str(directory)

    def write(text):
        (directory / "firn.conf").write_text(text)

    write(QUICK)
    return write


@pytest.fixture
def holders(victims):
    def start(mib, seed=1, **kwargs):
        return victims("holder", argv=["/usr/bin/python3", "-c", HOLDER, str(mib), str(seed)], **kwargs)
    return start


def explain(firn, *pids, **kwargs):
    result = firn.ok("explain", *pids, "--json", **kwargs)
    return {t["pid"]: t for t in result.targets}


def test_explain(firn, config, holders):
    low, high, small = holders(24, 1), holders(24, 2), holders(1, 3)
    firn.ok("priority", low.pid, 10)
    firn.ok("priority", high.pid, 90)
    said = explain(firn, low.pid, high.pid, small.pid)
    assert said[low.pid]["policy"]["priority"] == 10
    assert said[low.pid]["policy"]["rule"] == "set by request"
    assert said[small.pid]["policy"]["priority"] == 50
    assert said[small.pid]["policy"]["rule"].startswith("default (built in:")
    assert 24 * MIB < said[low.pid]["policy"]["private"] < 64 * MIB
    for target in said.values():
        assert target["state"] == "running" and target["policy"]["text"]
        assert "refused" not in target
    text = firn.ok("explain", low.pid).out
    assert "priority  10, set by request" in text and "evict     possible" in text, text


def test_explain_all(firn, config, holders):
    """Without a target: all in scope, those first that would give first; text and JSON in the same order."""
    large, small = holders(48, 1), holders(1, 3)
    firn.ok("priority", large.pid, 10)
    targets = firn.ok("explain", "--json").targets
    places = [t["policy"]["place"] for t in targets]
    pids = [t["pid"] for t in targets]
    assert large.pid in pids and small.pid in pids
    queued = [p for p in places if p]
    assert queued == sorted(queued) and places[:len(queued)] == queued, places
    lines = firn.ok("explain").out.splitlines()
    assert lines[0].split() == ["PID", "NAME", "STATE", "PRI", "PRIVATE", "IDLE", "GAIN", "NOW"]
    row = next(line for line in lines if line.split()[0] == str(large.pid))
    assert row.split()[2:4] == ["running", "10"], row
    reason = next(t["policy"]["reason"] for t in targets if t["pid"] == small.pid)
    assert next(line for line in lines if line.split()[0] == str(small.pid)).endswith("  " + reason)
    assert all(len(line) <= 80 for line in lines[:-1]), lines
    assert "available" in lines[-1]


def test_explain_refusal(firn, config):
    """What the engine would refuse is said, with the reason that evict gives: here, who asks."""
    pid = os.getpid()
    refusal = firn.run("evict", pid, "--json").target["error"]
    assert explain(firn, pid)[pid]["refused"]["reason"] == refusal["reason"]
    assert "evict     possible" not in firn.ok("explain", pid).out


def test_explain_unknown(firn, config):
    result = firn.run("explain", 4194303)
    assert result.code == NO_TARGET
    result.one_line_error()


def test_explain_several(firn, config, holders):
    """One of several that is not there: said, and the others are told of."""
    victim = holders(1)
    result = firn.run("explain", 4194303, victim.pid)
    assert result.code == SEVERAL and "there is no process 4194303" in result.one_line_error(), result
    assert result.out.startswith(f"{victim.pid} ") and "evict     possible" in result.out
    answer = firn.run("explain", victim.pid, 4194303, "--json")
    assert answer.code == SEVERAL and [t.get("error", {}).get("reason") for t in answer.targets] == [None, "no-process"]


def kernel_thread():
    return next((int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) > 1 and status_of(p)["PPid"] == "2"), None)


@pytest.mark.parametrize("verb", [["explain"], ["priority"]])
def test_whom_one_may_ask_about(firn, config, victims, verb):
    """What is out of scope, a thread, or the kernel's: refused with the reason, and nothing is remembered of it."""
    def ask(pid):
        result = firn.run(*verb, pid, *([10] if verb == ["priority"] else []))
        return result.code, result.one_line_error()

    victim = victims("threads")
    code, said = ask(1)
    assert code == REFUSED and "outside of what the agent is confined to" in said
    tid = next(int(t) for t in os.listdir(f"/proc/{victim.pid}/task") if int(t) != victim.pid)
    code, said = ask(tid)
    assert code == NO_TARGET and said == f"firn: {tid} is a thread: give its process {victim.pid}"
    code, said = ask(4194303)
    assert code == NO_TARGET and said.startswith("firn: there is no process 4194303: ")
    assert not os.path.exists(os.path.join(firn.runtime, "private", "book"))


def test_explain_kernel_thread(firn, config):
    pid = kernel_thread()
    if not pid:
        pytest.skip("no kernel thread is visible here")
    for args in (["explain", pid], ["priority", pid, 10]):
        result = firn.run(*args)
        assert result.code == REFUSED and "is a kernel thread" in result.one_line_error(), result


def test_explain_zombie(firn, config, victims):
    """What has ended and waits for its parent: explained, and refused as by evict."""
    parent = victims("parent", argv=["/usr/bin/python3", "-c", "import subprocess, sys; p = subprocess.Popen(['true']); "
                                     "print('ready', p.pid, flush=True); sys.stdin.read()"])
    pid = int(parent.ready_line.split()[1])
    wait_until(lambda: state_of(pid) == "Z", 20, "it is a zombie")
    target = explain(firn, pid)[pid]
    assert target["policy"]["action"] == "none" and target["policy"]["reason"] == "refused"
    assert target["refused"]["reason"] == firn.run("evict", pid, "--json").target["error"]["reason"]
    text = firn.ok("explain", pid).out
    assert "its parent has to wait for it" in text and "possible" not in text, text


def test_explain_out(firn, config, holders):
    """Of what is out already it is not said that it can be evicted."""
    victim = holders(24)
    firn.freeze(victim.pid)
    text = firn.ok("explain", victim.pid).out
    assert "by a user's request" in text and "evict " not in text and "gain" not in text, text
    firn.thaw(victim.pid)


def test_explain_never(firn, config, holders):
    """An eviction by request needs --force: so explain does not say that it is possible."""
    config(QUICK + "[rule held]\ncomm = python3\nnever = yes\n")
    victim = holders(8)
    target = explain(firn, victim.pid)[victim.pid]
    assert target["policy"]["reason"] == "never" and target["refused"]["reason"] == "never"
    assert "--force" in firn.ok("explain", victim.pid).out


def test_priority_of_a_tree(firn, config, victims):
    shell = victims("shell", argv=["sh", "-c", "sleep 600 & echo ready $!; cat"])
    child = int(shell.ready_line.split()[1])
    firn.ok("priority", "--tree", shell.pid, 20)
    assert explain(firn, child)[child]["policy"]["priority"] == 20
    firn.ok("priority", child, 5)
    assert explain(firn, child)[child]["policy"]["priority"] == 5
    assert explain(firn, shell.pid)[shell.pid]["policy"]["priority"] == 20


def test_priority_of_a_user(firn, config, victims):
    """Only root raises it above what the rules say."""
    firn.start()
    mine = victims("sleeper", argv=["sh", "-c", "echo ready; cat"], user=NOBODY)
    result = firn.run("priority", mine.pid, 51, user=NOBODY)
    assert result.code == NOT_PERMITTED, result
    assert "only root raises" in result.err
    firn.ok("priority", mine.pid, 40, user=NOBODY)
    firn.ok("priority", mine.pid, 45, user=NOBODY)
    ours = victims("sleeper", argv=["sh", "-c", "echo ready; cat"])
    assert firn.run("priority", ours.pid, 10, user=NOBODY).code == NOT_PERMITTED
    firn.ok("priority", mine.pid, 99)


def test_priority_outlives_the_agent(firn, config, holders):
    victim = holders(8)
    firn.ok("priority", victim.pid, 33)
    firn.kill_agent()
    assert explain(firn, victim.pid)[victim.pid]["policy"]["priority"] == 33


def test_priority_outlives_what_failed(firn, config, holders):
    """A request that was refused, by whomever, takes nothing away of what is known of a process."""
    victim = holders(8)
    firn.ok("priority", victim.pid, 33)
    assert firn.run("freeze", victim.pid, user=NOBODY).code == NOT_PERMITTED
    assert explain(firn, victim.pid)[victim.pid]["policy"]["priority"] == 33
    assert firn.run("thaw", victim.pid).code == NO_TARGET
    assert explain(firn, victim.pid)[victim.pid]["policy"]["priority"] == 33
    # Nor is it passed over afterwards, since somebody else was not permitted.
    assert explain(firn, victim.pid)[victim.pid]["policy"]["reason"] != "refused"


class Room:
    """A memory cgroup with a limit, and an agent confined to it: pressure without filling the machine."""

    def __init__(self, firn, cgroups, limit_mib):
        self.group = cgroups("memory", f"firn-policy-{os.getpid()}")
        with open(os.path.join(self.group.dir, "memory.limit_in_bytes"), "w") as f:
            f.write(str(limit_mib * MIB))
        firn.env["FIRN_SCOPE"] = f"cgroup:{self.group.dir}"

    def used_mib(self):
        return int(read(os.path.join(self.group.dir, "memory.usage_in_bytes"))) / MIB

    def available_mib(self):
        limit = int(read(os.path.join(self.group.dir, "memory.limit_in_bytes")))
        stat = dict(line.split() for line in read(os.path.join(self.group.dir, "memory.stat")).splitlines())
        return (limit - int(read(os.path.join(self.group.dir, "memory.usage_in_bytes"))) +
                int(stat["total_inactive_file"])) / MIB


@pytest.fixture
def room(firn_only, cgroups, victims):
    def make(limit_mib):
        return Room(firn_only, cgroups, limit_mib)
    return make


def enter(room):
    """A child begins in the room."""
    procs = os.path.join(room.group.dir, "cgroup.procs")

    def prefix(argv):
        return ["sh", "-c", f'echo $$ > {procs}; exec "$@"', "sh", *argv]
    return prefix


def hold_in(room, victims, mib, seed):
    return victims("holder", argv=enter(room)(["/usr/bin/python3", "-c", HOLDER, str(mib), str(seed)]))


def test_reclaim_in_order(firn, config, room, victims):
    """The lowest gives first, no more give than are needed, and the promise is kept."""
    r = room(400)
    held = {n: hold_in(r, victims, 80, n) for n in (10, 20, 30)}
    for priority, victim in held.items():
        firn.ok("priority", victim.pid, priority)
    before = r.available_mib()
    want = int(before) + 120
    result = firn.ok("reclaim", "--priority", 80, f"{want}M", "--json").json
    assert [t["pid"] for t in result["targets"]] == [held[10].pid, held[20].pid], result
    after = r.available_mib()
    assert after >= want * 0.95, (before, want, after, result["summary"])
    assert result["summary"]["freed"] >= 0.95 * result["summary"]["wanted"]
    assert sorted(t["pid"] for t in firn.list()) == sorted([held[10].pid, held[20].pid])
    for n, victim in held.items():
        assert victim.cmd("sum") == expected(80, n)
    firn.thaw_all()


def test_reclaim_what_is_there(firn, config, room, victims):
    r = room(400)
    victim = hold_in(r, victims, 40, 1)
    result = firn.ok("reclaim", "--priority", 80, "100M")
    assert "available already" in result.out
    assert not firn.list()
    assert victim.cmd("sum") == expected(40, 1)


def test_reclaim_falls_short(firn, config, room, victims):
    """Not enough below that priority: it fails, and has said what was given; who matters as much gave nothing."""
    r = room(400)
    low, high = hold_in(r, victims, 60, 1), hold_in(r, victims, 60, 2)
    firn.ok("priority", low.pid, 10)
    firn.ok("priority", high.pid, 50)
    want = int(r.available_mib()) + 100
    result = firn.run("reclaim", f"{want}M", "--priority", 50, "--json")
    assert result.code == FAILED, result
    answer = result.json
    assert answer["error"]["reason"] == "not-enough"
    assert "a higher --priority" in answer["error"]["message"]
    assert sum(1 for t in answer["targets"] if "error" not in t) in (0, 1)
    assert high.pid not in [t["pid"] for t in answer["targets"]]
    assert [t["pid"] for t in firn.list()] in ([low.pid], [])
    assert high.cmd("sum") == expected(60, 2) and low.cmd("sum") == expected(60, 1)
    firn.thaw_all()


def test_reclaim_dry_run(firn, config, room, victims):
    r = room(400)
    victim = hold_in(r, victims, 60, 1)
    firn.ok("priority", victim.pid, 10)
    result = firn.ok("reclaim", "--dry-run", "--priority", 80, f"{int(r.available_mib()) + 30}M")
    assert f"would evict {victim.pid}" in result.out, result
    assert not firn.list() and anon_kib(victim.pid) > 60 * 1024


def test_reclaim_of_a_user(firn, config, room, victims):
    """A user's request evicts only that user's targets."""
    r = room(400)
    roots = hold_in(r, victims, 60, 1)
    theirs = victims("holder", argv=enter(r)(["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
                                              "/usr/bin/python3", "-c", HOLDER, "60", "2"]))
    firn.start()
    for victim in (roots, theirs):
        firn.ok("priority", victim.pid, 10)
    want = int(r.available_mib()) + 30
    result = firn.ok("reclaim", f"{want}M", "--json", user=NOBODY).json
    assert [t["pid"] for t in result["targets"]] == [theirs.pid]
    assert theirs.cmd("sum") == expected(60, 2)
    firn.thaw_all()


def test_reclaim_more_than_there_is(firn, config, holders):
    """Known at once: nobody is evicted for it."""
    victim = holders(24)
    firn.ok("priority", victim.pid, 1)
    for args in (["reclaim", "--priority", 90, "100T"], ["reclaim", "--dry-run", "100T"],
                 ["run", "--need", "100T", "--", "touch", os.path.join(firn.state, "was-run")]):
        result = firn.run(*args)
        assert result.code == FAILED and "of memory that there are" in result.one_line_error(), result
    assert not firn.list() and anon_kib(victim.pid) > 24 * 1024
    assert not os.path.exists(os.path.join(firn.state, "was-run"))


@pytest.mark.parametrize("args", [["1GB"], ["2Q"], [""], ["-1G"], ["1G", "--priority", "101"], ["1G", "--timeout", "x"],
                                  ["99999999999999999999"], []])
def test_reclaim_nonsense(firn, config, args):
    result = firn.run("reclaim", *args)
    assert result.code == USAGE
    result.one_line_error()


def test_run(firn, config, room, victims):
    """A command with a priority, and memory for it: the agent makes room first."""
    r = room(400)
    low = hold_in(r, victims, 120, 1)
    firn.ok("priority", low.pid, 10)
    want = int(r.available_mib()) + 80
    job = firn.run("run", "--priority", 70, "--need", f"{want}M", "--", "sh", "-c", "echo $$; exit 7")
    assert job.code == 7, job
    assert [t["pid"] for t in firn.list()] == [low.pid]
    assert low.cmd("sum") == expected(120, 1)
    firn.thaw_all()


def test_run_gets_its_priority(firn, config, victims):
    firn.start()
    job = victims("job", argv=[FIRN, "run", "--priority", "71", "--", "sh", "-c", "echo ready; cat"], env=firn.env)
    assert explain(firn, job.pid)[job.pid]["policy"]["priority"] == 71


def test_run_in_a_group_of_its_own(firn, config, victims):
    """Below the one it was in; all that it starts is in it; it goes when nobody is in it any more."""
    firn.start("--idle-exit", 0)
    job = victims("job", argv=[FIRN, "run", "--priority", "71", "--", "sh", "-c", "sleep 600 & echo ready $!; exec cat"], env=firn.env)
    child = int(job.ready_line.split()[1])
    name = f"firn-run-{job.pid}"
    lines = [line for line in read(f"/proc/{job.pid}/cgroup").splitlines() if line.endswith(name)]
    if not lines:
        assert not os.path.exists("/sys/fs/cgroup/freezer") and not os.path.exists("/sys/fs/cgroup/cgroup.procs")
        pytest.skip("no hierarchy of version 2, and no freezer")
    assert set(lines) <= set(read(f"/proc/{child}/cgroup").splitlines())
    members = {t["pid"] for t in firn.ok("explain", "--cgroup", lines[0].split(":")[2], "--json").targets}
    assert {job.pid, child} <= members
    assert explain(firn, child)[child]["policy"]["priority"] == 71
    os.kill(child, 9)
    job.kill()
    job.proc.wait(20)
    left = [os.path.join(d, name) for d in ("/sys/fs/cgroup/freezer", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")]
    wait_until(lambda: not any(map(os.path.exists, left)), 20, "the groups go")


def test_no_pressure_told(firn, config, holders):
    """Where the kernel has PSI switched off, the agent says so and goes by available memory alone."""
    config(AUTO)
    victim = holders(8)
    empty = os.path.join(firn.state, "empty")
    open(empty, "w").close()
    hide = f'p=/proc/pressure/memory; mount --bind {empty} $p && mount -o remount,bind,ro $p && exec "$@"'
    firn.start(prefix=["unshare", "-m", "sh", "-c", hide, "sh"])
    wait_until(lambda: "available memory alone decides" in firn.log(), 20, "it says so")
    answer = firn.ok("explain", victim.pid, "--json").json
    assert "someHundredths" not in answer["summary"]


def test_run_without_room(firn, config, room, victims):
    """What cannot be had: the command is not run."""
    r = room(200)
    high = hold_in(r, victims, 60, 1)
    firn.ok("priority", high.pid, 90)
    result = firn.run("run", "--priority", 70, "--need", "1G", "--", "touch", os.path.join(firn.state, "was-run"))
    assert result.code == FAILED, result
    assert not os.path.exists(os.path.join(firn.state, "was-run"))


def test_dry_runs(firn, config, room, victims):
    """priority and run too: said, and nothing done."""
    r = room(400)
    victim = hold_in(r, victims, 80, 1)
    firn.ok("priority", victim.pid, 10)
    firn.ok("priority", "--dry-run", victim.pid, 99)
    assert explain(firn, victim.pid)[victim.pid]["policy"]["priority"] == 10
    mark = os.path.join(firn.state, "was-run")
    done = firn.ok("run", "--dry-run", "--priority", 70, "--need", f"{int(r.available_mib()) + 40}M", "--", "touch", mark)
    assert f"would evict {victim.pid}" in done.out and "would run touch" in done.out, done
    assert not os.path.exists(mark) and not firn.list()
    assert not os.path.exists(f"/sys/fs/cgroup/freezer/firn-run-{victim.pid}")


def test_store_limit(firn, config, holders):
    """What packs may take of the store is taken: the next one is refused, and nothing happens to it.  What is kept of a
    process that runs gives way."""
    config(QUICK + "[store]\nlimit = 4MiB\n")
    first, second = holders(16, 1), holders(16, 2)
    firn.evict(first.pid)
    result = firn.run("freeze", second.pid, "--json")
    assert result.code == STORE and result.target["error"]["reason"] == "store-limit", result
    firn.ok("freeze", "--place=ram", second.pid)
    firn.thaw_all()
    assert firn.ok("list", "--json").json["keptBytes"] > 8 * MIB
    firn.freeze(second.pid)
    assert firn.ok("list", "--json").json.get("keptBytes", 0) == 0
    firn.thaw_all()
    for n, victim in ((1, first), (2, second)):
        assert victim.cmd("sum") == expected(16, n)


def test_run_no_such_command(firn, config):
    result = firn.run("run", "--", "/no/such/command")
    assert result.code == 127
    result.one_line_error()


AUTO = """
[agent]
auto = yes
look-every = 1s
""" + QUICK + """
low = 60MiB
high = 90MiB
pressure-for = 80
psi-some = 0%
psi-full = 0%
"""


def test_pressure(firn, config, room, victims):
    """By itself, and in the order that explain told: who matters less is evicted until the high watermark."""
    config(AUTO)
    r = room(360)
    held = {n: hold_in(r, victims, 60, n) for n in (10, 20, 30)}
    for priority, victim in held.items():
        firn.ok("priority", victim.pid, priority)
    assert not firn.list()
    said = explain(firn, *(v.pid for v in held.values()))
    order = sorted((t["policy"]["place"], pid) for pid, t in said.items() if t["policy"]["place"])
    assert [pid for _, pid in order] == [held[n].pid for n in (10, 20, 30)], said
    eater = hold_in(r, victims, 120, 5)
    firn.ok("priority", eater.pid, 80)
    wait_until(lambda: firn.list(), 30, "somebody is evicted")
    wait_until(lambda: r.available_mib() >= 80, 30, f"available: {r.available_mib()}")
    out = [t["pid"] for t in sorted(firn.list(), key=lambda t: t["since"])]
    assert out == [pid for _, pid in order][:len(out)], (out, order)
    assert held[30].pid not in out and eater.pid not in out
    for n, victim in held.items():
        assert victim.cmd("sum") == expected(60, n)
    assert eater.cmd("sum") == expected(120, 5)


def test_comes_back(firn, config, room, victims):
    """When memory is there again, who is in use is brought back whole, by the agent itself."""
    config(AUTO.replace("active = 0", "active = 30s"))
    r = room(360)
    low = hold_in(r, victims, 100, 1)
    firn.start()
    firn.ok("priority", low.pid, 10)
    eater = hold_in(r, victims, 150, 5)
    firn.ok("priority", eater.pid, 80)
    more = hold_in(r, victims, 40, 6)
    firn.ok("priority", more.pid, 80)
    wait_until(lambda: [t["pid"] for t in firn.list()] == [low.pid], 30, "it is evicted")
    eater.end()
    more.end()

    def used_and_back():
        assert low.cmd("sum") == expected(100, 1)
        return not firn.list()
    wait_until(used_and_back, 40, f"it is brought back: {firn.log()}")
    stats = json.loads(firn.ok("stats", "--json").out)
    assert stats["operations"]["thaw"]["policy"] == 1 and stats["operations"]["evict"]["policy"] == 1


def test_dry_run_of_the_daemon(firn, config, room, victims):
    config(AUTO.replace("auto = yes", "auto = dry-run"))
    r = room(200)
    victim = hold_in(r, victims, 140, 1)
    firn.start()
    firn.ok("priority", victim.pid, 10)
    wait_until(lambda: "would evict" in firn.log(), 30, "it says what it would do")
    time.sleep(3)               # it goes on looking, and has nothing new to say
    assert firn.log().count("would evict") == 1
    assert not firn.list() and anon_kib(victim.pid) > 140 * 1024


def test_budget(firn, config, room, victims):
    """When the day's budget is used up nothing more is written by the agent's own decision, and explain says so."""
    config(AUTO + "[store]\ndaily-budget = 1MiB\n")
    r = room(200)
    victim = hold_in(r, victims, 140, 1)
    firn.start()
    firn.ok("priority", victim.pid, 10)
    wait_until(lambda: explain(firn, victim.pid)[victim.pid]["policy"]["reason"] == "budget", 20, "explain says budget")
    time.sleep(2)
    assert not firn.list()
    assert "budget" in firn.ok("explain", victim.pid).out


def test_budget_is_counted(firn, config, holders):
    config(QUICK + "[store]\ndaily-budget = 100MiB\n")
    victim = holders(16)
    firn.evict(victim.pid)
    stats = json.loads(firn.ok("stats", "--json").out)
    assert stats["budget_bytes"] == 100 * MIB
    assert 8 * MIB <= stats["budget_used_bytes"] < 40 * MIB
    assert explain(firn, victim.pid)[victim.pid]["policy"]["writtenToday"] == stats["budget_used_bytes"]
    firn.thaw(victim.pid)
    firn.kill_agent()
    assert json.loads(stats_text(firn))["budget_used_bytes"] == stats["budget_used_bytes"]


def stats_text(firn):
    firn.start()
    return firn.ok("stats", "--json").out


def test_stats(firn, config, holders):
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
    victim = holders(16)
    firn.evict(victim.pid)
    firn.thaw(victim.pid)
    firn.run("evict", 1)
    stats = json.loads(firn.ok("stats", "--format", "json").out)
    assert stats["operations"]["evict"]["request"] == 1
    assert stats["operations"]["thaw"]["request"] == 1
    assert stats["failures"]["evict"]["request"] == 1
    assert sum(stats["refusals"].values()) == 1
    assert stats["evicted_bytes"] > 16 * MIB - MIB
    assert stats["evict_seconds"]["count"] == 1
    text = firn.ok("stats", "--format", "openmetrics").out
    families = {f.name: f for f in openmetrics(text)}
    evictions = [s for s in families["firn_operations"].samples if s.labels == {"verb": "evict", "cause": "request"}]
    assert evictions[0].value == 1
    assert families["firn_evict_seconds"].type == "histogram"
    text = firn.ok("stats").out.splitlines()
    assert [line.split() for line in text if line.startswith("evict")] == [["evict", "1", "0", "0", "0", "1"]], text
    assert any(line.startswith("why not") and line.endswith(" 1") for line in text), text
    assert all(len(line) <= 80 for line in text), text


def test_stats_without_an_agent(firn, config):
    """There is nothing to tell, and none is started for it."""
    result = firn.run("stats")
    assert result.code == NO_AGENT
    result.one_line_error()
    assert not firn.agent


TEXTFILE = """
[agent]
metrics-textfile = {}
metrics-every = 1s
"""


def test_textfile(firn, config, holders, tmp_path):
    """The metrics as a file for node_exporter, also where the agent decides nothing by itself."""
    from prometheus_client.parser import text_string_to_metric_families as classic
    path = tmp_path / "firn.prom"
    config(QUICK + TEXTFILE.format(path))
    victim = holders(8)
    firn.evict(victim.pid)

    def evictions():
        samples = [s for f in classic(path.read_text()) for s in f.samples]
        return [s.value for s in samples if s.name == "firn_operations_total" and
                s.labels == {"verb": "evict", "cause": "request"}]

    wait_until(lambda: path.exists() and evictions() == [1], 20, "the file tells of the eviction")
    assert path.stat().st_mode & 0o7777 == 0o644
    assert "EOF" not in path.read_text()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("firn.prom")] == ["firn.prom"]


def test_textfile_that_cannot_be_written(firn, config, holders, tmp_path):
    """One line of the log, not one each time; and when it can be, it is, since the agent looks anew."""
    directory = tmp_path / "later"
    config(QUICK + TEXTFILE.format(directory / "firn.prom"))
    firn.evict(holders(8).pid)
    wait_until(lambda: "metrics cannot be written" in firn.log(), 20, "the log says so")
    time.sleep(2.5)
    assert firn.log().count("metrics cannot be written") == 1
    directory.mkdir()
    wait_until(lambda: (directory / "firn.prom").exists(), 20, "it is written")


def test_monitor(firn, config, holders):
    firn.start()
    monitor = firn.background("monitor")
    try:
        victim = holders(16)
        time.sleep(0.5)
        firn.evict(victim.pid)
        firn.thaw(victim.pid)
        events = [json.loads(monitor.stdout.readline()) for _ in range(2)]
        assert [e["event"] for e in events] == ["evict", "thaw"]
        assert all(e["target"]["pid"] == victim.pid and e["cause"] == "request" for e in events)
    finally:
        monitor.kill()
        monitor.wait()


def test_monitor_needs_root(firn, config):
    firn.start()
    assert firn.run("monitor", user=NOBODY).code == NOT_PERMITTED


def test_hooks(firn, config, holders, tmp_path):
    """Before a freeze and after a thaw, as the target's user; one that says no, or takes too long, forbids it."""
    log = tmp_path / "log"
    log.touch(mode=0o666)
    log.chmod(0o666)
    for directory in (tmp_path, *tmp_path.parents):
        if str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    config(QUICK + f"""
[rule hooks]
uid = {NOBODY}
before-freeze = echo $FIRN_EVENT $FIRN_PID $(id -u) >> {log}
after-thaw = echo $FIRN_EVENT $FIRN_PID $(id -u) >> {log}
[rule no]
uid = {NOBODY}
priority = 20
""")
    victim = holders(8, user=NOBODY)
    firn.ok("freeze", "--dry-run", victim.pid)
    assert log.read_text() == ""
    firn.freeze(victim.pid)
    assert log.read_text().split() == ["before-freeze", str(victim.pid), str(NOBODY)]
    firn.thaw(victim.pid)
    assert log.read_text().split()[3:] == ["after-thaw", str(victim.pid), str(NOBODY)]
    assert victim.cmd("sum") == expected(8, 1)


@pytest.mark.parametrize("command,reason", [("exit 1", "hook"), ("sleep 600", "hook-timeout")])
def test_hook_forbids(firn, config, holders, command, reason):
    config(QUICK + f"[rule hooks]\nuid = 0\nbefore-freeze = {command}\nhook-timeout = 300ms\n")
    victim = holders(8)
    result = firn.run("freeze", victim.pid, "--json")
    assert result.code == REFUSED and result.target["error"]["reason"] == reason, result
    assert not firn.list()
    assert victim.cmd("sum") == expected(8, 1)


def test_budget_used_up(firn, config, holders):
    """Then nothing is written for a request either; a pack in memory is not written."""
    config(QUICK + "[store]\ndaily-budget = 1MiB\n")
    first, second = holders(16, 1), holders(16, 2)
    firn.evict(first.pid)
    result = firn.run("evict", second.pid, "--json")
    assert result.code == REFUSED and result.target["error"]["reason"] == "budget", result
    assert "budget" in firn.run("evict", second.pid).one_line_error()
    firn.ok("evict", "--place=ram", second.pid)
    firn.thaw_all()
    for n, victim in ((1, first), (2, second)):
        assert victim.cmd("sum") == expected(16, n)
