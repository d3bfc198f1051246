# SPDX-License-Identifier: MIT
"""The tables that the benchmarks print, and the file they leave.  Ratios are taken within a round, then
their median: absolute times drift, ratios of one round much less."""
import statistics

import figures
from host import MIB

# The two things that 'after firn thaw' may mean; both count from asking until the last page was touched.
WAYS = (("firn-whole", "thaw, then touch"), ("firn-thaw", "touch meanwhile"))
ORDERS = ("order", "random")
PHASES = ("plan", "stop", "walk", "gather", "write", "arm", "drop", "leave", "total")


def number(x):
    if x == 0 or abs(x) >= 100:
        return f"{x:.0f}"
    if abs(x) >= 10:
        return f"{x:.1f}"
    return f"{x:.2f}" if x >= 0.095 else f"{x:.3f}"


def middle(values):
    return number(statistics.median(values)) if values else "-"


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
        orders = (order,) if order else ORDERS
        return [r[name] for r in self.records
                if r["peer"] == peer and name in r and r["order"] in orders
                and number_of_round in (None, r["round"])]

    def ratios(self, peer, others, name, order=None):
        """Per round: this peer's median over the least of the others' medians.  A group (+) of others
        does the same there: their figures count as one peer's."""
        found = []
        for n in sorted({r["round"] for r in self.records}):
            mine = self.of(peer, name, order, n)
            theirs = [[x for key in o.split("+") for x in self.of(key, name, order, n)] for o in others]
            theirs = [statistics.median(t) for t in theirs if t]
            if mine and theirs and min(theirs) > 0:
                found.append(statistics.median(mine) / min(theirs))
        return found

    def medians(self, peer, name, order=None):
        values = self.of(peer, name, order)
        return statistics.median(values) if values else None

    def print_times(self):
        rows = [[p.name, spread(self.of(p.key, "evict_s")), middle(self.of(p.key, "free_s")),
                 spread(self.of(p.key, "first_s"), 1000), spread(self.of(p.key, "back_s", "order")),
                 spread(self.of(p.key, "back_s", "random"))] for p in self.peers]
        table("Seconds (the first page: milliseconds), median (min..max), from asking to done",
              ["", "evict", "free", "first page, ms", "all back, in order", "all back, at random"], rows)

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
            rows.append([p.name, spread(self.ratios(p.key, ["swap-fault+swap-willneed"], "evict_s"))]
                        + [spread(self.ratios(p.key, [other], "back_s", order))
                           for other in ("swap-fault", "swap-willneed") for order in ("order", "random")])
        table("Firn's time as a fraction of swap's (less is better), median of the rounds (min..max)",
              ["", "evict", "order / fault", "random / fault", "order / WILLNEED", "random / WILLNEED"], rows)

    def print_phases(self):
        cells = []
        for phase in PHASES:
            values = [r[f"evict_{phase}_ms"] for r in self.records
                      if f"evict_{phase}_ms" in r and r["order"] in ORDERS]
            if values:
                cells.append(f"{phase} {number(statistics.median(values))}")
        print("\nFirn's own phases, ms (medians): evict: " + ", ".join(cells))
        cells = []
        for key, text in WAYS:
            for phase in ("run", "whole"):
                value = self.medians(key, f"thaw_{phase}_ms")
                if value is not None:
                    cells.append(f"{phase} {number(value)} ({text})")
        print("  thaw: " + ", ".join(cells))

    def print_redis(self):
        rows = [[p.name, spread(self.of(p.key, "evict_s", "redis")),
                 spread(self.of(p.key, "first_s", "redis"), 1000), spread(self.of(p.key, "pass_s", "redis"))]
                for p in self.peers if self.of(p.key, "pass_s", "redis")]
        if rows:
            table("redis-server, 1.1 GB: seconds (100 GETs: milliseconds), median (min..max)",
                  ["", "evict", "100 GETs from asking, ms", "the next 20,000"], rows)

    def judge(self, what, limit, figures_of):
        """A row of the verdicts: the figures of both ways against a limit."""
        row = [what, f"<= {number(limit)}"]
        for key, _ in WAYS:
            figures = figures_of(key)
            if figures:
                value = statistics.median(figures)
                row += [number(value), "reaches" if value <= limit else "falls short"]
            else:
                row += ["-", "-"]
        return row

    def verdicts(self, disk, agent_bytes):
        fault, willneed, zram = ["swap-fault"], ["swap-willneed"], ["zram-fault", "zram-willneed"]
        rows = [
            self.judge("evict: time / swap's PAGEOUT call", 0.8,
                       lambda k: self.ratios(k, ["+".join(fault + willneed)], "evict_s")),
            self.judge("evict: bytes written / swap's", 0.6,
                       lambda k: self.ratios(k, ["+".join(fault + willneed)], "write_bytes")),
        ]
        for order, text, limit in (("order", "in order", 0.12), ("random", "at random", 0.03)):
            for others, name, most in ((fault, "faulting", limit), (willneed, "WILLNEED", 0.5),
                                       (zram, "zram's better way", 1.0)):
                rows.append(self.judge(f"all back, {text}: time / {name}", most,
                                       lambda k, o=others: self.ratios(k, o, "back_s", order)))
        rows += [
            self.judge("redis, 100 GETs: time / faulting", 1.0,
                       lambda k: self.ratios(k, fault, "first_s", "redis")),
            self.judge("redis, next 20,000: time / faulting", 0.15,
                       lambda k: self.ratios(k, fault, "pass_s", "redis")),
            self.judge("redis, next 20,000: time / WILLNEED", 0.5,
                       lambda k: self.ratios(k, willneed, "pass_s", "redis")),
        ]
        rows += self.stream_verdicts(disk)
        rows.append(self.judge("link metadata, % of what is evicted", 0.2, lambda k: [
            r["link_bytes"] / (r["evicted_pages"] * 4096) * 100 for r in self.records
            if r["peer"] == k and r["order"] in ORDERS and r.get("evicted_pages")]))
        rows.append(self.judge("the idle agent's memory, MiB (buffers counted)", 8,
                               lambda k: [agent_bytes / MIB] if k == WAYS[0][0] else []))
        return rows

    def stream_verdicts(self, disk):
        """The stream's rate; requests and calls above what they may be: where no fault disturbs it."""
        def records(key):
            return [r for r in self.records if r["peer"] == key == WAYS[0][0] and r["order"] in ORDERS
                    and r.get("pack_bytes")]

        def over_requests(r, what):
            least = -(-r["pack_bytes"] // disk.max_request_bytes)
            return r[f"{what}_requests"] - (least + r.get("extents", 1) + 8)

        def over_calls(r, what):
            return r.get(f"{what}_calls", 0) - max(1, -(-r["pack_bytes"] // (8 * MIB)))
        rows = [self.judge("thaw: the disk's sequential rate / the rate of stored bytes", 1.25, lambda k: [
            r["probe_rate"] * r["thaw_whole_ms"] / 1000 / r["pack_bytes"] for r in records(k)
            if r.get("thaw_whole_ms")])]
        for what, name in (("write", "evict"), ("read", "thaw")):
            rows.append(self.judge(f"{name}: {what} requests of the disk, above the limit", 0,
                                   lambda k, w=what: [over_requests(r, w) for r in records(k)]))
            rows.append(self.judge(f"{name}: {what} calls, above the limit", 0,
                                   lambda k, w=what: [over_calls(r, w) for r in records(k)]))
        return rows

    def print_verdicts(self, rows):
        head = ["", "must be"]
        for _, name in WAYS:
            head += [name, ""]
        table("What Firn has set itself (defaults, encryption on)", head, rows)

    def save(self, path, machine):
        figures.save_csv(path, machine, self.records, ["round", "peer", "order"])
