# SPDX-License-Identifier: MIT
"""The tables that the benchmarks print, and the file they leave.  Ratios are taken within a round, then
their median: absolute times drift, ratios of one round much less."""
import csv
import statistics

from host import MIB

JUDGED = "firn-thaw"            # what 'after firn thaw' means in the verdicts: from asking to the last page
PHASES = ("plan", "stop", "walk", "gather", "write", "arm", "drop", "leave", "total")


def number(x):
    if x >= 100:
        return f"{x:.0f}"
    if x >= 10:
        return f"{x:.1f}"
    return f"{x:.2f}" if x >= 0.095 else f"{x:.3f}"


def spread(values, scale=1.0):
    if not values:
        return "-"
    low, mid, high = (number(f(values) * scale) for f in (min, statistics.median, max))
    return f"{mid} ({low}..{high})"


def table(title, head, rows):
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    print(f"\n{title}")
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:])]
        print("  " + "  ".join(cells).rstrip())


class Results:
    def __init__(self, peers):
        self.peers, self.records = peers, []

    def add(self, record):
        self.records.append(record)

    def of(self, peer, name, order=None, number_of_round=None):
        return [r[name] for r in self.records
                if r["peer"] == peer and name in r and order in (None, r["order"])
                and number_of_round in (None, r["round"])]

    def ratios(self, peer, others, name, order=None):
        """Per round: this peer's median over the least of the others' medians."""
        found = []
        for n in sorted({r["round"] for r in self.records}):
            mine = self.of(peer, name, order, n)
            theirs = [self.of(o, name, order, n) for o in others]
            theirs = [statistics.median(t) for t in theirs if t]
            if mine and theirs and min(theirs) > 0:
                found.append(statistics.median(mine) / min(theirs))
        return found

    def medians(self, peer, name, order=None):
        values = self.of(peer, name, order)
        return statistics.median(values) if values else None

    def print_times(self):
        rows = [[p.name, spread(self.of(p.key, "evict_s")), spread(self.of(p.key, "free_s")),
                 spread(self.of(p.key, "first_s"), 1000), spread(self.of(p.key, "back_s", "order")),
                 spread(self.of(p.key, "back_s", "random"))] for p in self.peers]
        table("Seconds (the first page: milliseconds), median (min..max), from asking to done",
              ["", "evict", "its memory free", "first page, ms", "all back, in order", "all back, at random"], rows)

    def print_disk(self):
        def cell(key, what, order=None):
            size, requests = (self.medians(key, f"{what}_{x}", order) for x in ("bytes", "requests"))
            return "-" if size is None else f"{size / MIB:.0f} / {requests:.0f}"

        def ram(key):
            held = self.medians(key, "swap_ram_bytes")
            return f"{held / MIB:.0f}" if held else "-"
        rows = [[p.name, cell(p.key, "write"), cell(p.key, "read", "order"), cell(p.key, "read", "random"),
                 ram(p.key)] for p in self.peers]
        table("The disk, by the block layer: MiB / requests (medians)",
              ["", "written", "read, in order", "read, at random", "kept in RAM, MiB"], rows)

    def print_ratios(self):
        rows = []
        for p in self.peers:
            if p.kernel:
                continue
            rows.append([p.name, spread(self.ratios(p.key, ["swap-fault", "swap-willneed"], "evict_s"))]
                        + [spread(self.ratios(p.key, [other], "back_s", order))
                           for other in ("swap-fault", "swap-willneed") for order in ("order", "random")])
        table("Firn's time as a fraction of swap's (less is better), median of the rounds (min..max)",
              ["", "evict", "in order / faulting", "at random / faulting", "in order / WILLNEED",
               "at random / WILLNEED"], rows)

    def print_phases(self):
        cells = []
        for phase in PHASES:
            values = [r[f"evict_{phase}_ms"] for r in self.records if f"evict_{phase}_ms" in r]
            if values:
                cells.append(f"{phase} {number(statistics.median(values))}")
        print("\nFirn's own phases, ms (medians): evict: " + ", ".join(cells))
        cells = []
        for key, text in (("firn-whole", "nobody touches"), (JUDGED, "touched meanwhile")):
            for phase in ("run", "whole"):
                value = self.medians(key, f"thaw_{phase}_ms")
                if value is not None:
                    cells.append(f"{phase} {number(value)} ({text})")
        print("  thaw: " + ", ".join(cells))

    def verdicts(self, disk, agent_bytes):
        """(what, figure, limit, reaches) lines; figure None: not measured."""
        swap, zram = ["swap-fault", "swap-willneed"], ["zram-fault", "zram-willneed"]
        rows = []

        def judge(what, figures, limit, text=number):
            value = statistics.median(figures) if figures else None
            rows.append((what, None if value is None else text(value), text(limit),
                         value is not None and value <= limit))
        evicts = [x for p in ("firn-whole", JUDGED) for x in self.ratios(p, swap, "evict_s")]
        judge("evict: time / swap's PAGEOUT call", evicts, 0.8)
        writes = [x for p in ("firn-whole", JUDGED) for x in self.ratios(p, ["swap-fault"], "write_bytes")]
        judge("evict: bytes written / swap's", writes, 0.6)
        for order, text, limit in (("order", "in order", 0.12), ("random", "at random", 0.03)):
            judge(f"all back, {text}: time / faulting", self.ratios(JUDGED, ["swap-fault"], "back_s", order), limit)
            judge(f"all back, {text}: time / WILLNEED", self.ratios(JUDGED, ["swap-willneed"], "back_s", order), 0.5)
            judge(f"all back, {text}: time / zram's better", self.ratios(JUDGED, zram, "back_s", order), 1.0)
        rows += self.stream_verdicts(disk)
        links = [r["link_bytes"] / (r["evicted_pages"] * 4096) * 100 for r in self.records
                 if r.get("evicted_pages")]
        judge("link metadata, % of what is evicted", links, 0.2)
        if agent_bytes:
            judge("the idle agent's resident memory, MiB (buffers counted)", [agent_bytes / MIB], 8)
        return rows

    def stream_verdicts(self, disk):
        rows = []
        thaws = [r for r in self.records if r["peer"] == "firn-whole" and r.get("thaw_whole_ms")]
        if not thaws:
            return rows
        rates = [r["pack_bytes"] / r["thaw_whole_ms"] * 1000 / r["probe_rate"] for r in thaws]
        rows.append(("thaw: stored bytes a second / the disk's sequential rate",
                     number(statistics.median(rates)), ">= 0.80", statistics.median(rates) >= 0.8))
        for what, key, requests in (("write", "evict", "write_requests"), ("read", "thaw", "read_requests")):
            over = sorted(thaws, key=lambda r: r[requests] - self.most_requests(r, disk))
            r = over[len(over) // 2]
            rows.append((f"{key}: {what} requests of the disk", number(r[requests]),
                         number(self.most_requests(r, disk)), r[requests] <= self.most_requests(r, disk)))
            over = sorted(thaws, key=lambda r: r[f"{what}_calls"])
            r = over[len(over) // 2]
            limit = max(1, -(-r["pack_bytes"] // (8 * MIB)))
            rows.append((f"{key}: {what} calls", number(r[f"{what}_calls"]), number(limit),
                         r[f"{what}_calls"] <= limit))
        return rows

    @staticmethod
    def most_requests(record, disk):
        return -(-record["pack_bytes"] // disk.max_request_bytes) + record.get("extents", 1) + 8

    def print_verdicts(self, rows):
        shown = []
        for what, figure, limit, reaches in rows:
            limit = limit if limit.startswith(">=") else f"<= {limit}"
            answer = "not measured" if figure is None else "reaches" if reaches else "falls short"
            shown.append([what, figure or "-", limit, answer])
        table("What Firn has set itself (defaults, encryption on; touching starts with firn thaw)",
              ["", "measured", "must be", ""], shown)

    def save(self, path, machine):
        names = ["round", "peer", "order"]
        names += sorted({n for r in self.records for n in r} - set(names))
        with path.open("w", newline="", encoding="utf-8") as f:
            for key, value in machine.items():
                f.write(f"# {key}: {value}\n")
            out = csv.DictWriter(f, names, restval="", lineterminator="\n")
            out.writeheader()
            for r in self.records:
                out.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in r.items()})
