# SPDX-License-Identifier: MIT
"""The ways out and back: each peer can page a victim out (evict), make that memory really free (settle), and
bring it back while it answers (back)."""
import os
import time

import host
from host import MIB, Trouble


class Peer:
    """Nothing goes out: what the victim takes by itself."""
    key, family = "resident", "none"

    def prepare(self, victim):
        pass

    def evict(self, victim):
        pass

    def settle(self, victim):
        pass

    def back(self, victim, order):
        """{name_s: seconds from the moment of asking until that step was done, name_pass_s: the step alone}"""
        start = time.monotonic()
        self.ask(victim)
        called = time.monotonic() - start
        return {"call_s": called, **self.follow(victim, order, start, sent=False)}

    @staticmethod
    def follow(victim, order, start, sent):
        """The steps; the first may have been sent already."""
        found = {}
        for name, command in victim.steps(order):
            if not sent:
                victim.send(command)
            sent, ns = False, victim.wait(command)
            found[f"{name}_s"], found[f"{name}_pass_s"] = time.monotonic() - start, ns / 1e9
        return found

    def ask(self, victim):
        pass

    def note(self):
        """More figures of the last scenario."""
        return {}

    def finish(self, victim):
        pass


class KernelSwap(Peer):
    """MADV_PAGEOUT to a swap area; back by faults, or by MADV_WILLNEED first."""
    family = "kernel"

    def __init__(self, key, area, cgroup, willneed):
        self.key = key
        self.area, self.cgroup, self.willneed = area, cgroup, willneed
        self.figures = {}

    def advise(self, victim, advice):
        for pid, ranges in victim.ranges():
            host.process_madvise(pid, ranges, advice)

    def prepare(self, victim):
        self.area.on()

    def evict(self, victim):
        self.advise(victim, host.MADV_PAGEOUT)

    def settle(self, victim):
        """Until reclaim has come by, the pages are in the swap cache: not free, and back at no cost."""
        base, deadline = max(4 * MIB, victim.size // 128), time.monotonic() + 20
        least = victim.size * (0.98 if victim.whole else 0.9)
        while True:
            self.cgroup.reclaim(victim.size)
            cached = host.kib_of("/proc/meminfo", "SwapCached")[0]
            swapped = sum(host.kib_of(f"/proc/{pid}/status", "VmSwap")[0] for pid in victim.pids)
            if cached < base and swapped > least:
                break
            if time.monotonic() > deadline:
                raise Trouble(f"reclaim leaves {cached // MIB} MiB in the swap cache, "
                              f"{swapped // MIB} MiB swapped out")
            time.sleep(0.01)
        self.figures = {"swap_ram_bytes": self.area.held()}

    def ask(self, victim):
        if self.willneed:
            self.advise(victim, host.MADV_WILLNEED)

    def note(self):
        return self.figures

    def finish(self, victim):
        """swapoff alone brings back one page at a time."""
        try:
            self.advise(victim, host.MADV_WILLNEED)
        except (OSError, Trouble):
            pass                # it is dead: nothing to bring back
        self.area.off()


class Firn(Peer):
    """firn evict and faults; or firn freeze and firn thaw, the touching after it or along with it."""
    family = "firn"

    def __init__(self, key, agent, disk, verb, at_once=False, options=()):
        self.key = key
        self.agent, self.disk, self.verb, self.at_once, self.options = agent, disk, verb, at_once, options
        self.figures, self.packs = {}, []

    def prepare(self, victim):
        self.figures = {"agent_idle_bytes": self.agent.resident()}
        self.agent.begin()

    def evict(self, victim):
        self.out = self.agent.run(self.verb, victim.pids, *self.options)

    def settle(self, victim):
        def total(part, name):
            return sum(t.get(part, {}).get(name, 0) for t in self.out)
        stored = total("pack", "bytes")
        self.figures |= {
            "agent_evict_bytes": self.agent.peak(), "pack_bytes": stored,
            "evicted_pages": total("pages", "total"), "link_bytes": self.agent.link_bytes(),
            "write_calls": total("io", "writeCalls"), "extents": 0,
            "calls_limit": sum(max(1, -(-t.get("pack", {}).get("bytes", 0) // (8 * MIB))) for t in self.out)}
        self.figures["ram_bytes"] = sum(t["pack"]["bytes"] for t in self.out if t.get("pack", {}).get("place") == "ram")
        self.packs = [t["pack"]["path"] for t in self.out if "pack" in t]
        for path in self.packs:
            try:
                self.figures["extents"] += host.extents(path)
            except OSError:
                pass
        self.figures["requests_limit"] = sum(
            -(-t.get("pack", {}).get("bytes", 0) // self.disk.max_request_bytes) + 8 for t in self.out
        ) + self.figures["extents"]
        if len(self.out) == 1:
            for phase, ms in self.out[0].get("ms", {}).items():
                self.figures[f"evict_{phase}_ms"] = ms

    def back(self, victim, order):
        self.agent.forget_peak()
        if not self.at_once:
            return super().back(victim, order)
        victim.send(victim.steps(order)[0][1])      # it is stopped: it obeys as soon as it runs
        start = time.monotonic()
        with self.agent.change("thaw", victim.pids) as thaw:
            try:
                found = self.follow(victim, order, start, sent=True)
                self.came_back(self.agent.result("thaw", thaw))
            finally:
                thaw.kill()
        return found

    def ask(self, victim):
        if self.verb == "freeze":
            self.came_back(self.agent.run("thaw", victim.pids))

    def came_back(self, thawed):
        self.figures["agent_thaw_bytes"] = self.agent.peak()
        for name, key in (("read_calls", "readCalls"), ("faults", "faults")):
            self.figures[name] = sum(t.get("io", {}).get(key, 0) for t in thawed)
        if len(thawed) == 1:
            for phase in ("run", "whole"):
                if phase in thawed[0].get("ms", {}):
                    self.figures[f"thaw_{phase}_ms"] = thawed[0]["ms"][phase]

    def note(self):
        return self.figures

    def finish(self, victim):
        """Whatever is still out comes back, and Firn's traces go, before the next peer."""
        if self.verb == "evict":
            still = self.agent.held(victim.pids)
            if still:
                self.agent.run("thaw", still)


class FirnBesideDd(Firn):
    """As firn-whole, with dd reading the same pack: before the thaw and, by a second link, after it, in turn."""

    def __init__(self, *words):
        super().__init__(*words)
        self.dd_first, self.copy = False, ""

    def settle(self, victim):
        super().settle(victim)
        self.dd_first = not self.dd_first
        self.copy = self.packs[0] + ".bench"
        if self.dd_first:
            self.figures["dd_rate"] = host.dd_rate(self.packs[0])
        else:
            os.link(self.packs[0], self.copy)

    def finish(self, victim):
        if not self.dd_first and os.path.exists(self.copy):
            try:
                self.figures["dd_rate"] = host.dd_rate(self.copy)
            finally:
                os.unlink(self.copy)
