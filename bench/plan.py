# SPDX-License-Identifier: MIT
"""What is measured: the workloads of each part."""
import dataclasses
import pathlib
import shutil

import host
from host import MIB
from redis import Redis
from victims import Many, Script, Victim

PARTS = ("process", "content", "programs", "scale")
NAMES = ("redis", "python3", "node")
PROGRAMS = pathlib.Path(__file__).resolve().parent / "programs"
OURS = ("firn-whole", "firn-thaw")
CONTENT_PEERS = ("swap-fault", "swap-willneed", "zswap-willneed", "zram-willneed", *OURS)
PROGRAM_PEERS = ("resident", "swap-fault", "swap-willneed", "zswap-fault", "zram-fault", "firn-evict", *OURS)
SHORT_PEERS = ("resident", "swap-fault", "swap-willneed", "firn-thaw")
SCALE_PEERS = ("swap-willneed", "firn-whole")
SIZES_MIB = (64, 512, 4096, 12288)
NUMBERS, EACH_MIB = (1, 10, 200), 16
SWAPPED_MIB = 4096              # larger ones are not swapped: it tells nothing new
SLOW_MIB = 2048                 # one round is enough
FEW = 3                         # rounds, where one takes long


@dataclasses.dataclass
class Workload:
    name: str
    make: callable              # (bench) -> a victim
    rounds: int
    orders: tuple = ("order",)
    peers: tuple = None         # None: all that evict
    percent: int = None         # compressible: the processors' ceiling is measured too
    beside_dd: bool = False


def process(size, percent):
    return lambda bench: Victim(bench.build / "bench" / "victim", size, percent, bench.cgroup)


def largest_swapped(given):
    """Bytes that the swap file must hold."""
    most = max(given.mib, 1536)
    if "scale" in given.only and not given.quick:
        most = max(most, SWAPPED_MIB)
    return (5 * 1024 if given.large else most) * MIB


def programs(given, few):
    part = 0.2 if given.quick else 1
    known = {
        "redis": ("redis-server", lambda b: Redis(b.build, b.state, b.cgroup, part)),
        "python3": ("python3", lambda b: Script(
            b.cgroup, shutil.which("python3"), PROGRAMS / "objects.py", int(800_000 * part))),
        "node": ("node", lambda b: Script(
            b.cgroup, shutil.which("node"), "--max-old-space-size=4096", PROGRAMS / "objects.js",
            int(1_200_000 * part))),
    }
    for name in given.programs or NAMES:
        yield known[name][0], Workload(name, known[name][1], few, ("requests",),
                                       SHORT_PEERS if given.quick else PROGRAM_PEERS)
    if given.large:
        yield "redis-server", Workload("redis 4 GB", lambda b: Redis(b.build, b.state, b.cgroup, 4), few, ("requests",),
                                       SHORT_PEERS)


def scale(given, few, state):
    """A size that would take more than half of the memory, or of the store's room, is left out."""
    room = min(host.kib_of("/proc/meminfo", "MemAvailable")[0] * 6 // 10, shutil.disk_usage(state).free // 2)
    for mib in SIZES_MIB[:2] if given.quick else SIZES_MIB:
        peers = SCALE_PEERS if mib <= SWAPPED_MIB else OURS[:1]
        yield mib * MIB <= room, Workload(f"{mib} MiB", process(mib * MIB, 50), few if mib < SLOW_MIB else 1,
                                          peers=peers)
    for count in NUMBERS[:2] if given.quick else NUMBERS:
        yield True, Workload(f"{count} x {EACH_MIB} MiB", lambda b, count=count: Many(
            count, lambda: process(EACH_MIB * MIB, 50)(b)), few, peers=SCALE_PEERS)


def workloads(part, given, state, notes):
    few, size, found = min(FEW, given.rounds), given.mib * MIB, []
    all_peers = tuple(f"{area}-{way}" for area in ("swap", "zswap", "zram") for way in ("fault", "willneed"))
    if part == "process":
        return [Workload("50 %", process(size, 50), given.rounds, ("order", "random"),
                         (*all_peers, "firn-evict", *OURS, "firn-ram"), 50)]
    if part == "content":
        return [Workload(f"{percent} %", process(size, percent), few, ("order",), CONTENT_PEERS, percent,
                         percent == 0) for percent in (0, 90)]
    if part == "programs":
        for program, workload in programs(given, few):
            if shutil.which(program):
                found.append(workload)
            else:
                notes.append(f"{workload.name} is left out: there is no {program}")
        return found
    for fits, workload in scale(given, few, state):
        if fits:
            found.append(workload)
        else:
            notes.append(f"{workload.name} is left out: too large for this host")
    return found
