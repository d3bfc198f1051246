# SPDX-License-Identifier: MIT
"""The figures of a run and the tables made of them.  Ratios are taken within a round, then their median: absolute
times drift, ratios of one round much less.  A cell is the median (least–most)."""
import itertools
import statistics

import pictures
import wanted
from figures import load_csv, median, number, save_csv, spread, table
from host import MIB

ORDERS = ("order", "random")
ANSWERS = ("requests",)
PHASES = ("plan", "stop", "walk", "gather", "write", "arm", "drop", "leave", "total")
WAITED_NS = 3000                # a touch that took longer waited for more than an entry in the page table
KEYS = ["part", "workload", "round", "peer", "order"]


def percentile(pairs, part):
    """Of [(nanoseconds, count)]: microseconds; the middle of the bucket."""
    total, seen = sum(n for _, n in pairs), 0
    for ns, n in sorted(pairs):
        seen += n
        if seen >= total * part:
            return ns * 1.06 / 1000
    return None


class Results:
    def __init__(self):
        self.records, self.latencies = [], []

    def add(self, record):
        self.records.append(record)

    def add_latencies(self, place, pairs):
        """The histogram of a pass; its summary."""
        self.latencies += [{**place, "at_ns": ns, "touches": n} for ns, n in pairs]
        waited = [(ns, n) for ns, n in pairs if ns >= WAITED_NS]
        found = {"touches": sum(n for _, n in pairs), "waits": sum(n for _, n in waited),
                 "touch_p50_us": percentile(pairs, 0.5), "touch_p99_us": percentile(pairs, 0.99),
                 "touch_max_us": max(pairs)[0] / 1000}
        if waited:
            found |= {"wait_p50_us": percentile(waited, 0.5), "wait_p99_us": percentile(waited, 0.99)}
        return found

    def select(self, workload, peer=None, orders=ORDERS, rounds=None):
        return [r for r in self.records if r["workload"] == workload and peer in (None, r["peer"])
                and r["order"] in orders and rounds in (None, r["round"])]

    def of(self, workload, peer, name, *orders, rounds=None):
        return [r[name] for r in self.select(workload, peer, orders or ORDERS, rounds) if name in r]

    def middle(self, *what, **more):
        return median(self.of(*what, **more))

    def ratios(self, workload, peer, others, name, *orders):
        """Per round: this peer's median over the least of the others' medians.  A group (+) of others
        does the same there: their figures count as one peer's."""
        found = []
        for n in sorted({r["round"] for r in self.records if r["workload"] == workload}):
            mine = self.of(workload, peer, name, *orders, rounds=n)
            theirs = [[x for key in o.split("+") for x in self.of(workload, key, name, *orders, rounds=n)]
                      for o in others]
            theirs = [statistics.median(t) for t in theirs if t]
            if mine and theirs and min(theirs) > 0:
                found.append(statistics.median(mine) / min(theirs))
        return found

    def peers(self, workload):
        return list(dict.fromkeys(r["peer"] for r in self.records if r["workload"] == workload
                                  and r["peer"] != "ceiling"))

    def workloads(self, part):
        return list(dict.fromkeys(r["workload"] for r in self.records if r["part"] == part))


class Tables:
    def __init__(self, results, names):
        self.r, self.names = results, names

    def rows(self, workload, *cells):
        """A row for each peer, in the order of their names; cells are functions of a peer's key."""
        there = self.r.peers(workload)
        known = [k for k in self.names if k in there] + [k for k in there if k not in self.names]
        return [[self.names.get(k, k), *(cell(k) for cell in cells)] for k in known]

    def cell(self, workload, name, *orders, scale=1.0):
        return lambda key: spread(self.r.of(workload, key, name, *orders), scale)

    def disk(self, workload, what, *orders):
        def text(key):
            size, requests = (self.r.middle(workload, key, f"{what}_{x}", *orders) for x in ("bytes", "requests"))
            return "–" if size is None else f"{size / MIB:.0f} / {requests:.0f}"
        return text

    def process(self):
        w = "50 %"
        if w not in self.r.workloads("process"):
            return []
        mib = self.r.select(w, orders=ORDERS)[0]["size_bytes"] // MIB
        ours = [k for k in self.names if k.startswith("firn") and k in self.r.peers(w)]
        ratios = [[self.names[k], spread(self.r.ratios(w, k, ["swap-fault+swap-willneed"], "evict_s"))]
                  + [spread(self.r.ratios(w, k, [other], "back_s", order))
                     for other in ("swap-fault", "swap-willneed", "zswap-willneed", "zram-willneed")
                     for order in ORDERS] for k in ours]
        return [
            table(f"A process of {mib} MiB, half compressible: seconds (first page: ms), from asking to done",
                  ["", "evict", "its memory free", "first page, ms", "all back, in order", "all back, at random"],
                  self.rows(w, self.cell(w, "evict_s"), self.cell(w, "free_s"), self.cell(w, "first_s", scale=1000),
                            self.cell(w, "back_s", "order"), self.cell(w, "back_s", "random"))),
            table("The disk, by the block layer: MiB / requests (medians)",
                  ["", "written", "read, in order", "read, at random", "kept in RAM, MiB"],
                  self.rows(w, self.disk(w, "write"), self.disk(w, "read", "order"), self.disk(w, "read", "random"),
                            lambda k: number((self.r.middle(w, k, "swap_ram_bytes") or self.r.middle(w, k, "ram_bytes")
                                              or 0) / MIB))),
            table("Firn's time as a fraction of the kernel's (less is better)",
                  ["", "evict / swap", *(f"{order} / {other}" for other in (
                      "swap faulting", "swap WILLNEED", "zswap WILLNEED", "zram WILLNEED")
                      for order in ("order", "random"))], ratios),
            table("Touches at random: microseconds, the clock's 0.03 included",
                  ["", f"touches over {WAITED_NS // 1000} µs", "of these: p50", "p99", "of all: p50", "p99", "most"],
                  self.rows(w, *(self.cell(w, name, "random") for name in (
                      "waits", "wait_p50_us", "wait_p99_us", "touch_p50_us", "touch_p99_us", "touch_max_us"))),
                  "The touches that are not over it found their page brought along by another's fault."),
            self.phases(w),
        ]

    def phases(self, w):
        def cells(prefix, phases):
            found = []
            for phase in phases:
                values = [v for k in self.r.peers(w) if k.startswith("firn") for v in self.r.of(
                    w, k, f"{prefix}_{phase}_ms")]
                if values:
                    found.append(f"{phase} {number(median(values))}")
            return ", ".join(found)
        return (f"Firn's own phases, ms (medians): evict: {cells('evict', PHASES)}; "
                f"thaw: {cells('thaw', ('run', 'whole'))}.\n")

    def content(self):
        found = [w for w in ("0 %", "50 %", "90 %") if self.r.select(w, orders=("order",))]
        if not self.r.workloads("content"):
            return []
        rows = []
        for w in found:
            rows += [[w, *row] for row in self.rows(
                w, self.cell(w, "evict_s", "order"), self.cell(w, "back_s", "order"), self.disk(w, "write", "order"),
                self.disk(w, "read", "order"))]
        tables = [table("Compressible to 0, 50 and 90 %: seconds, and MiB / requests of the disk",
                        ["", "", "evict", "all back, in order", "written", "read"], rows)]
        rows = []
        for w in found:
            whole = [r for r in self.r.select(w, "firn-whole", ("order",)) if r.get("thaw_whole_ms")]
            rows.append([w, spread([r["pack_bytes"] / r["thaw_whole_ms"] * 1000 for r in whole], 1e-6),
                         spread([r["dd_rate"] for r in whole if "dd_rate" in r], 1e-6),
                         spread(self.r.of(w, "ceiling", "ceiling_rate", "none"), 1e-6)])
        return tables + [table("Stored bytes, MB/s: a thaw, dd iflag=direct bs=8M of the same pack, the processors alone",
                               ["", "thaw", "dd", "decode and install from memory"], rows)]

    def programs(self):
        tables = []
        for w in self.r.workloads("programs"):
            size = median([r["size_bytes"] for r in self.r.select(w, orders=ANSWERS)])
            if size is None:
                continue
            cells = [self.cell(w, name, *ANSWERS, scale=scale) for name, scale in (
                ("evict_s", 1), ("first_s", 1000), ("hundred_s", 1000), ("next_pass_s", 1))]
            tables.append(table(
                f"{w}, {size / 1e9:.2f} GB", ["", "evict, s", "first answer, ms", "100 answers, ms",
                                              "the next 20,000, s", "written", "read"],
                self.rows(w, *cells, self.disk(w, "write", *ANSWERS), self.disk(w, "read", *ANSWERS)),
                "Random requests one after the other, from the moment of asking; the disk in MiB / requests."))
        return tables

    def scale(self):
        found = self.r.workloads("scale")
        if not found:
            return []
        rows = []
        for w in found:
            def middle(peer, name, scale=1.0, w=w):
                return spread(self.r.of(w, peer, name), scale)
            per_page = [r["link_bytes"] / r["evicted_pages"] for r in self.r.select(w, "firn-whole")
                        if r.get("evicted_pages")]
            rows.append([w, middle("firn-whole", "evict_s"), middle("swap-willneed", "evict_s"),
                         middle("firn-whole", "call_s"), middle("firn-whole", "back_s"),
                         middle("swap-willneed", "back_s"),
                         *(middle("firn-whole", f"agent_{when}_bytes", 1 / MIB) for when in ("idle", "evict", "thaw")),
                         spread(per_page)])
        return [table("Size and number: seconds, and the agent's memory",
                      ["", "firn freeze", "swap, PAGEOUT", "firn thaw", "… and all touched", "swap, WILLNEED and all touched",
                       "agent before, MiB", "at most in freeze", "at most in thaw", "link metadata, bytes a page"], rows)]


NAMES = {
    "resident": "never paged out",
    "swap-fault": "swap file, faulting", "swap-willneed": "swap file, WILLNEED",
    "zswap-fault": "zswap, faulting", "zswap-willneed": "zswap, WILLNEED",
    "zram-fault": "zram lz4, faulting", "zram-willneed": "zram lz4, WILLNEED",
    "firn-evict": "firn evict, faulting", "firn-whole": "firn thaw, then touch",
    "firn-ram": "firn thaw from memory, then touch",
    "firn-thaw": "firn thaw, touch meanwhile",
}


def rounds_of(results):
    counts = {part: len({r["round"] for r in results.records if r["part"] == part})
              for part in dict.fromkeys(r["part"] for r in results.records)}
    return ", ".join(f"{part} {n}" for part, n in counts.items())


def load(where):
    """(machine, results) that a run left."""
    results = Results()
    machine, results.records = load_csv(where / "results.csv")
    results.latencies = load_csv(where / "latency.csv")[1]
    return machine, results


def write(where, results, machine, notes, failures):
    """results.csv, latency.csv, tables.md, wanted.csv and the plots; the text of tables.md."""
    where.mkdir(parents=True, exist_ok=True)
    machine = {**machine, "rounds": rounds_of(results)}
    save_csv(where / "results.csv", machine, results.records, KEYS)
    save_csv(where / "latency.csv", machine, results.latencies, KEYS[:4])
    tables = Tables(results, NAMES)
    verdicts = wanted.rows(results)
    save_csv(where / "wanted.csv", machine, [dict(zip(wanted.HEAD, row)) for row in verdicts], list(wanted.HEAD))
    text = ["# Firn beside swap, zswap and zram", "",
            "Written by `make bench`. " + ", ".join(f"{k} {v}" for k, v in machine.items()) + ".", "",
            "Median (least–most) of the rounds; Firn with its defaults, encryption on.", ""]
    text += [f"Note: {n}.\n" for n in notes] + [f"Failed: {f}.\n" for f in failures]
    text += itertools.chain(tables.process(), tables.content(), tables.programs(), tables.scale())
    text += [table("What Firn has set itself", wanted.HEAD, verdicts, wanted.note(results))]
    text = "\n".join(text)
    (where / "tables.md").write_text(text, encoding="utf-8")
    pictures.draw_all(where, results, NAMES, f"commit {machine['commit']}, {machine['date']}")
    return text
