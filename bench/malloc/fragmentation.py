# SPDX-License-Identifier: MIT
"""Memory held some seconds after the last insert, in heaps left in tatters; memory over time; what folding cost."""
import re
import subprocess
import time

import host
import meter
import plots
import throughput
from host import MIB, Trouble

SAMPLE_S = 0.05
PATIENCE_S = 40
REDIS = ((700000, "asdf1", 240), (170000, "asdf2", 492))        # keys, prefix, bytes of a value
MODES = ("random64", "random256", "shift", "regular", "kth", "longlived", "threads")
NEED_BUDGET = ("random64", "random256")         # also with more mappings than the default allows folds to use


def mappings(pid):
    return len(host.read(f"/proc/{pid}/maps").splitlines())


def own_statistics(text):
    """What Firn says at the end of a process with FIRN_MALLOC_STATS=1."""
    found = {}
    for name, pattern in (("folded_pages", r"(\d+) pages folded onto"), ("frames", r"folded onto (\d+) frames"),
                          ("fold_ms", r"folding took (\d+) us"), ("longest_pause_ms", r"longest (\d+) us"),
                          ("stops", r"; (\d+) stops")):
        match = re.search(pattern, text)
        if match:
            found[name] = int(match[1]) / 1000 if name.endswith("_ms") else int(match[1])
    match = re.search(r"barrier: (.*)", text)
    if match:
        found["barrier"] = match[1]
    return found


class Held:
    """What is held at the end of a wait, from samples; and the peak."""

    def __init__(self, sampler):
        self.samples = sampler.stop()

    def figures(self):
        last = self.samples[-1][0]
        end = [n for at, n in self.samples if at > last - 0.5]
        return {"held_mib": sum(end) / len(end) / MIB, "peak_mib": max(n for _, n in self.samples) / MIB}

    def curve(self):
        return [(round(at, 3), round(n / MIB, 3)) for at, n in self.samples]


def redis(allocator, groups, directory, part, seconds, user=0, **variables):
    """Redis evicting old keys under new ones of another size; (figures, curve)."""
    server = throughput.RedisServer(allocator, groups, directory, "--enable-debug-command", "yes", user=user,
                                    FIRN_MALLOC_STATS="1", **variables)
    try:
        limit = int(100 * part) << 20
        server.ask("CONFIG", "SET", "maxmemory", limit)
        server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        sampler, populate = server.sample(SAMPLE_S), 0
        for keys, prefix, size in REDIS:
            start = time.monotonic()
            server.ask("DEBUG", "POPULATE", int(keys * part), prefix, size)
            populate += time.monotonic() - start
            server.ask("PING")
            # Its LRU clock ticks once a second: keys of the same tick are equally old, and which go is chance.
            time.sleep(1.1)

        def used():
            return int(re.search(r"used_memory:(\d+)", server.ask("INFO", "memory"))[1])
        begun = time.monotonic()
        while time.monotonic() < begun + seconds:
            time.sleep(0.5)
            server.ask("PING")
        # On a busy machine redis has not evicted all by then: what is held would say nothing.
        if used() > limit * 1.02:
            while used() > limit * 1.02 and time.monotonic() < begun + PATIENCE_S:
                time.sleep(0.5)
            time.sleep(2)
        waited, held, vmas = time.monotonic() - begun, Held(sampler), mappings(server.process.pid)
        live = used()
        usage, log = server.end()
        return ({**held.figures(), "vmas": vmas, "live_mib": live / MIB, "waited_s": waited, "populate_s": populate,
                 "cpu_s": usage.ru_utime + usage.ru_stime, **own_statistics(log)}, held.curve())
    finally:
        server.close()


def tatters(build, mode, allocator, groups, directory, mib, seconds, user=0, **variables):
    """bench/malloc/fragments.c; (figures, curve)."""
    group, sampler = groups.new(), None
    try:
        with open(directory / "fragments.err", "w+b") as errors:
            process = meter.spawn([build / "bench" / "malloc" / "malloc-fragments", mode, mib, seconds],
                                  allocator.variables(FIRN_MALLOC_STATS="1", **variables), group, user,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
            try:
                start = time.monotonic()
                sampler, figures = meter.Sampler(group, SAMPLE_S), {}
                for line in process.stdout:
                    words = line.decode().split()
                    if words[0] == "live":
                        figures["live_mib"] = int(words[1]) / MIB
                    elif words[0] == "filled":
                        figures["populate_s"] = time.monotonic() - start
                    elif words[0] == "held":
                        break
                held = Held(sampler)
                figures["vmas"] = mappings(process.pid)
                process.stdin.write(b"\n")
                process.stdin.close()
                rest = process.stdout.read()
                process.stdout.close()
                usage = meter.reap(process, 60)
            finally:
                if process.returncode is None:
                    process.kill()
                    process.wait()
            errors.seek(0)
            text = errors.read().decode(errors="replace")
        if process.returncode != 0 or b"intact" not in rest:
            raise Trouble(f"fragments {mode}: status {process.returncode} {text.strip()[-200:]}")
        figures["cpu_s"] = usage.ru_utime + usage.ru_stime
        return {**held.figures(), **figures, **own_statistics(text)}, held.curve()
    finally:
        if sampler:
            sampler.stop()
        group.close()


def plot(where, workload, curves, note):
    """memory-<workload>.csv and .svg; @curves: {name: [(seconds, MiB)]}."""
    data = where / f"memory-{workload}.csv"
    with data.open("w", encoding="ascii") as f:
        f.write(f"# {note}\nallocator,seconds,mib\n")
        for name, curve in curves.items():
            f.writelines(f"{name},{at},{mib}\n" for at, mib in curve)
    styles = {"firn": f"lw 3 lc rgb '{plots.FIRN}'", "firn-nofold": f"lw 2 dt 2 lc rgb '{plots.FIRN}'"}
    plots.draw(
        where / f"memory-{workload}.svg",
        [f"set title '{workload}: memory held (anonymous and shmem, by cgroup)'", "set xlabel 'seconds'",
         "set ylabel 'MiB'", "set yrange [0:]"],
        {f"d{i}": [f"{at} {mib}" for at, mib in curve] for i, curve in enumerate(curves.values())},
        [f"$d{i} using 1:2 with lines {styles.get(name, 'lw 1.5')} title '{name}'" for i, name in enumerate(curves)])
