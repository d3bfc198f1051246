# SPDX-License-Identifier: MIT
"""The victim, and what is measured on it: each peer can page it out (evict), make that memory really
free (settle), and bring it back while it is touched (back)."""
import json
import os
import select
import signal
import socket
import subprocess
import time

import host
from host import MIB, Trouble

REPLY_SECONDS = 120


class Victim:
    """The process that is paged out, in a memory cgroup of its own."""

    def __init__(self, program, size, cgroup):
        self.process = subprocess.Popen([str(program), str(size)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, bufsize=0)
        self.pid, self.pending = self.process.pid, b""
        cgroup.add(self.pid)    # before it has touched a page
        try:
            address, self.size = (int(x) for x in self.reply("ready"))
            self.ranges = [(address, self.size)]
            self.send("fill")
            self.sum = int(self.reply("fill")[1])
        except Trouble:
            self.close()
            raise

    def send(self, *commands):
        self.process.stdin.write("".join(c + "\n" for c in commands).encode())

    def reply(self, command):
        """The two words that answer @command."""
        deadline = time.monotonic() + REPLY_SECONDS
        while b"\n" not in self.pending:
            if not select.select([self.process.stdout], [], [], deadline - time.monotonic())[0]:
                raise Trouble(f"the victim does not answer to {command}")
            piece = os.read(self.process.stdout.fileno(), 4096)
            if not piece:
                raise Trouble(f"the victim died, answering to {command}: exit status {self.process.wait()}")
            self.pending += piece
        line, self.pending = self.pending.split(b"\n", 1)
        words = line.decode().split()
        if words[0] != command:
            raise Trouble(f"the victim answers {words[0]} to {command}")
        return words[1:]

    def touched(self, command):
        """Waits for a touch pass over all pages; nanoseconds.  What it read must be what fill wrote."""
        ns, total = (int(x) for x in self.reply(command))
        if total != self.sum:
            raise Trouble("the victim read wrong bytes: the pages came back wrong")
        return ns

    def verify(self):
        self.send("verify")
        wrong = int(self.reply("verify")[1])
        if wrong:
            raise Trouble(f"{wrong} pages of the victim are not what they were")

    def resident(self):
        return host.resident(self.pid)

    def alive(self):
        return self.process.poll() is None

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Peer:
    """Demand paging by default: the victim touches, and faults do the rest."""
    kernel = False

    def prepare(self, victim):
        pass

    def settle(self, victim):
        pass

    def back(self, victim, order):
        """From the moment of asking: seconds until one page was touched, seconds until all were, and
        the nanoseconds of the touch pass alone."""
        start = time.monotonic()
        self.ask(victim)
        victim.send("one", order)
        victim.reply("one")
        first = time.monotonic() - start
        pass_ns = victim.touched(order)
        return first, time.monotonic() - start, pass_ns

    def ask(self, victim):
        pass

    def note(self):
        """More figures of the last scenario."""
        return {}

    def finish(self, victim):
        pass


class KernelSwap(Peer):
    """MADV_PAGEOUT to a swap area; back by faults, or by MADV_WILLNEED first."""
    kernel = True

    def __init__(self, key, name, area, cgroup, willneed):
        self.key, self.name = key, name
        self.area, self.cgroup, self.willneed = area, cgroup, willneed
        self.figures = {}

    def prepare(self, victim):
        self.area.on()

    def evict(self, victim):
        host.process_madvise(victim.pid, victim.ranges, host.MADV_PAGEOUT)

    def settle(self, victim):
        """Until reclaim has come by, the pages are in the swap cache: not free, and back at no cost."""
        base, deadline = 4 * MIB, time.monotonic() + 10
        while True:
            self.cgroup.reclaim(victim.size)
            cached = host.kib_of("/proc/meminfo", "SwapCached")[0]
            swapped, = host.kib_of(f"/proc/{victim.pid}/status", "VmSwap")
            if cached < base and swapped > victim.size * 0.98:
                break
            if time.monotonic() > deadline:
                raise Trouble(f"reclaim leaves {cached // MIB} MiB in the swap cache, "
                              f"{swapped // MIB} MiB swapped out")
            time.sleep(0.01)
        self.figures = {"swap_ram_bytes": self.area.held()}

    def ask(self, victim):
        if self.willneed:
            host.process_madvise(victim.pid, victim.ranges, host.MADV_WILLNEED)

    def note(self):
        return self.figures

    def finish(self, victim):
        """swapoff alone brings back one page at a time."""
        try:
            host.process_madvise(victim.pid, victim.ranges, host.MADV_WILLNEED)
        except (OSError, Trouble):
            pass                # it is dead: nothing to bring back
        self.area.off()


class Firn(Peer):
    """firn evict and faults; or firn freeze and firn thaw, the touching after it or along with it."""

    def __init__(self, key, name, agent, verb, at_once=False):
        self.key, self.name = key, name
        self.agent, self.verb, self.at_once = agent, verb, at_once
        self.figures = {}

    def evict(self, victim):
        self.figures = {}
        self.out = self.agent.run(self.verb, victim.pid)

    def settle(self, victim):
        pack = self.out.get("pack", {})
        self.figures["pack_bytes"] = pack.get("bytes", 0)
        self.figures["evicted_pages"] = self.out.get("pages", {}).get("total", 0)
        self.figures["write_calls"] = self.out.get("io", {}).get("writeCalls", 0)
        self.figures["link_bytes"] = self.agent.link_bytes()
        try:
            self.figures["extents"] = host.extents(pack["path"])
        except (KeyError, OSError):
            pass
        for phase, ms in self.out.get("ms", {}).items():
            self.figures[f"evict_{phase}_ms"] = ms

    def back(self, victim, order):
        if not self.at_once:
            return super().back(victim, order)
        victim.send("one", order)       # it is stopped: it obeys as soon as it runs
        start = time.monotonic()
        with self.agent.start("thaw", victim.pid) as thaw:
            try:
                victim.reply("one")
                first = time.monotonic() - start
                pass_ns = victim.touched(order)
                whole = time.monotonic() - start
                self.came_back(self.agent.result("thaw", thaw))
            finally:
                thaw.kill()
        return first, whole, pass_ns

    def ask(self, victim):
        if self.verb == "freeze":
            start = time.monotonic()
            thawed = self.agent.run("thaw", victim.pid)
            self.figures["thaw_call_ms"] = (time.monotonic() - start) * 1000
            self.came_back(thawed)

    def came_back(self, thawed):
        self.figures["read_calls"] = thawed.get("io", {}).get("readCalls", 0)
        self.figures["faults"] = thawed.get("io", {}).get("faults", 0)
        for phase in ("run", "whole", "total"):
            if phase in thawed.get("ms", {}):
                self.figures[f"thaw_{phase}_ms"] = thawed["ms"][phase]

    def note(self):
        return self.figures

    def finish(self, victim):
        """Whatever is still out comes back, and Firn's traces go, before the next peer."""
        if self.verb == "evict" and self.agent.holds(victim.pid):
            self.agent.run("thaw", victim.pid)


class Agent:
    """A firnd of our own, with directories of our own."""

    def __init__(self, build, runtime, state):
        self.firn, self.runtime = build / "firn", runtime
        self.environment = {**os.environ, "FIRN_RUNTIME_DIR": str(runtime), "FIRN_STATE_DIR": str(state)}
        done = subprocess.run([str(build / "firnd"), "--idle-exit", "900"], env=self.environment,
                              capture_output=True, text=True, check=False, timeout=30)
        if done.returncode != 0:
            self.close()
            raise Trouble(f"firnd does not start: {done.stderr.strip()}")
        self.idle_link_bytes = self.shared_bytes()

    def start(self, *words):
        return subprocess.Popen([str(self.firn), *(str(w) for w in words), "--json"], env=self.environment,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True)

    def result(self, verb, process):
        """The one target of a firn command that was started."""
        try:
            out, err = process.communicate(timeout=REPLY_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Trouble(f"firn {verb} does not end") from None
        if process.returncode != 0:
            raise Trouble(f"firn {verb}: {err.strip() or process.returncode}")
        targets = json.loads(out)["targets"]
        return targets[0] if targets else {}

    def run(self, verb, pid):
        with self.start(verb, pid) as process:
            return self.result(verb, process)

    def holds(self, pid):
        with self.start("list") as process:
            out, _ = process.communicate(timeout=REPLY_SECONDS)
        targets = json.loads(out or '{"targets":[]}')["targets"]
        return any(t["pid"] == pid and t["state"] != "resident" for t in targets)

    def shared_bytes(self):
        return sum(f.stat().st_blocks * 512 for f in self.runtime.rglob("*") if f.is_file())

    def link_bytes(self):
        """What the runtime directory (tmpfs) holds for the target."""
        return self.shared_bytes() - self.idle_link_bytes

    def pids(self):
        return host.agent_pids(self.runtime)

    def resident(self):
        """(all, anonymous) resident bytes of the agent."""
        return host.kib_of(f"/proc/{self.pids()[0][0]}/status", "VmRSS", "RssAnon")

    def log(self):
        try:
            return (self.runtime / "agent.log").read_text(errors="replace").splitlines()[-6:]
        except OSError:
            return []

    def close(self):
        """Asked to end, then made sure, by pid and start time."""
        processes = self.pids()
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(20)
                s.connect(str(self.runtime / "firn.sock"))
                s.sendall(b'{"method":"org.firn.Agent.Stop"}\0')
                s.recv(4096)
        except OSError:
            pass
        deadline = time.monotonic() + 5
        for pid, started in processes:
            while host.start_time(pid) == started and time.monotonic() < deadline:
                time.sleep(0.02)
            if host.start_time(pid) == started:
                os.kill(pid, signal.SIGKILL)
