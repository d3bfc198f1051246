# SPDX-License-Identifier: MIT
"""How long threads wait for the allocator while it folds, and how long fork takes."""
import meter

HEAPS_MIB = (50, 200, 400)


def lines(text):
    """{name: value} of "name value" lines."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2:
            found[words[0]] = int(words[1])
    return found


def pauses(build, allocator, groups, seconds, mib, traffic_seconds, user=0):
    figures, text, _, _ = meter.run([build / "bench" / "malloc" / "malloc-pauses", seconds, mib, traffic_seconds],
                                    allocator, groups, user, seconds + 60, 0.1)
    got = lines(text)
    found = {"cpu_s": figures["cpu_s"], "peak_mib": figures["peak_mib"], "wall_s": got["wall_ns"] / 1e9,
             "stalled_percent": got["stall_total"] / got["spun_ns"] * 100, "stall_n": got["stall_n"]}
    for what in ("malloc", "free", "stall", "own"):
        for part in ("p50", "p99", "p999", "max"):
            if f"{what}_{part}" in got:
                found[f"{what}_{part}_us"] = got[f"{what}_{part}"] / 1000
    if "fold_ns" in got:
        found["fold_ms"] = got["fold_ns"] / 1e6
        found["fold_percent"] = got["fold_ns"] / got["wall_ns"] * 100
        found.update((k, got[k]) for k in ("passes", "folds", "stops", "barrier"))
    return found


def fork(build, mib, allocator, groups, user=0):
    _, text, _, _ = meter.run([build / "bench" / "malloc" / "malloc-forks", mib], allocator, groups, user)
    got = lines(text)
    found = {f"{part}_ms": got[f"{part}_ns"] / 1e6 for part in ("first", "median", "max")}
    found.update((k, got[k]) for k in ("folded_pages", "frames") if k in got)
    return found
