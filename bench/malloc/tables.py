# SPDX-License-Identifier: MIT
"""The tables, in Markdown, and results.csv.  Ratios are taken within a round, then their median: absolute times
drift, ratios of one round much less."""
import statistics

from allocators import TO_BEAT
from figures import geometric_mean, median, number, ratio, save_csv, table


class Results:
    def __init__(self):
        self.records = []

    def add(self, section, workload, allocator, number_of_round, figures, user="root"):
        self.records.append({"section": section, "workload": workload, "allocator": allocator,
                             "round": number_of_round, "user": user, **figures})

    def of(self, section, workload, allocator, name, user="root"):
        """{round: figure}"""
        return {r["round"]: r[name] for r in self.records
                if r["section"] == section and r["workload"] == workload and r["allocator"] == allocator
                and r["user"] == user and r.get(name) is not None}

    def middle(self, *what, **more):
        return median(self.of(*what, **more).values())

    def ratios(self, section, workload, allocator, other, name, user="root"):
        """Per round, this allocator's figure over the other's."""
        mine, theirs = (self.of(section, workload, a, name, user) for a in (allocator, other))
        return [mine[n] / theirs[n] for n in mine if theirs.get(n)]

    def ratio(self, *what, **more):
        return median(self.ratios(*what, **more))

    def spread(self, *what, **more):
        """(max - min) / median of the rounds, in percent."""
        values = list(self.of(*what, **more).values())
        if len(values) < 2 or not statistics.median(values):
            return None
        return (max(values) - min(values)) / statistics.median(values) * 100

    def names(self, section, key):
        return list(dict.fromkeys(r[key] for r in self.records if r["section"] == section))

    def rounds(self):
        """{section: how many}"""
        return {s: max(r["round"] for r in self.records if r["section"] == s)
                for s in dict.fromkeys(r["section"] for r in self.records)}

    def throughput(self):
        s = "throughput"
        programs, names = self.names(s, "workload"), self.names(s, "allocator")
        if not programs:
            return []
        against = [n for n in names if n == TO_BEAT or n.startswith("mimalloc")]
        tables = []
        for key, title in (("wall_s", "Time"), ("cpu_s", "Processor time, user and system")):
            columns = [n for n in names if n != TO_BEAT]
            rows, all_ratios = [], {n: [] for n in columns}
            for p in programs:
                ratios = {n: self.ratio(s, p, n, TO_BEAT, key) for n in columns}
                for n, value in ratios.items():
                    all_ratios[n].append(value)
                rows.append([p, number(self.middle(s, p, TO_BEAT, key)), number(self.spread(s, p, TO_BEAT, key))]
                            + [ratio(ratios[n]) for n in columns])
            rows.append(["**geometric mean**", "", ""] + [ratio(geometric_mean(all_ratios[n])) for n in columns])
            rows.append(["worst", "", ""] + [ratio(max((v for v in all_ratios[n] if v), default=None)) for n in columns])
            tables.append(table(f"{title}: {TO_BEAT}'s in seconds, the others' as multiples of it",
                                ["", f"{TO_BEAT}, s", "spread, %", *columns], rows))
        if "firn" in names:
            rows = []
            for other in against:
                for key, title in (("wall_s", "time"), ("cpu_s", "processor time")):
                    found = {p: self.ratio(s, p, "firn", other, key) for p in programs}
                    found = {p: v for p, v in found.items() if v}
                    if found:
                        worst = max(found, key=found.get)
                        rows.append([f"{title} / {other}'s", ratio(geometric_mean(found.values())),
                                     f"{ratio(found[worst])} ({worst})",
                                     ", ".join(p for p, v in found.items() if v > 1.25) or "none"])
            tables.append(table("Firn's time: geometric mean at most 1.05, none above 1.25",
                                ["", "geometric mean", "worst", "above 1.25"], rows))
        for key, title in (("peak_mib", "Peak memory"), ("mean_mib", "Steady (mean) memory over the run")):
            base = "jemalloc" if "jemalloc" in names else "jemalloc-1s"
            rows = [[p] + [number(self.middle(s, p, n, key)) for n in names] for p in programs]
            rows.append([f"**geometric mean of the ratios to {base}**"] + [
                ratio(geometric_mean([self.ratio(s, p, n, base, key) for p in programs])) for n in names])
            tables.append(table(f"{title}, MiB (anonymous and shmem, by cgroup)", ["", *names], rows))
        return tables

    def variants(self, section):
        return list(dict.fromkeys((r["allocator"], r["user"]) for r in self.records if r["section"] == section))

    def fragmentation(self):
        s = "fragmentation"
        workloads, variants = self.names(s, "workload"), self.variants(s)
        if not workloads:
            return []

        def label(name, user):
            return name if user == "root" else f"{name} ({user})"

        def cell(w, v, key):
            return number(self.middle(s, w, v[0], key, user=v[1]))
        tables = []
        for key, title in (("held_mib", "Memory held at the end, MiB"), ("peak_mib", "Peak, MiB"),
                           ("live_mib", "Live data, MiB"), ("waited_s", "Waited after the last insert, s"),
                           ("vmas", "Mappings at the end"), ("populate_s", "Seconds to build the heap"),
                           ("cpu_s", "Processor time of the whole run, s")):
            rows = [[w] + [cell(w, v, key) for v in variants] for w in workloads]
            tables.append(table(f"Fragmentation: {title}", ["", *(label(*v) for v in variants)], rows))
        rows = []
        for w in workloads:
            for v in variants:
                if self.middle(s, w, v[0], "fold_ms", user=v[1]) is None:
                    continue
                base = self.middle(s, w, "firn-nofold", "held_mib")
                held = self.middle(s, w, v[0], "held_mib", user=v[1])
                rows.append([w, label(*v), number(held), f"{held / base * 100:.0f} %" if base else "–",
                             cell(w, v, "vmas"), cell(w, v, "folded_pages"), cell(w, v, "frames"),
                             cell(w, v, "fold_ms"), cell(w, v, "longest_pause_ms"), cell(w, v, "stops"),
                             next((r["barrier"] for r in self.records if r["section"] == s and r["workload"] == w
                                   and (r["allocator"], r["user"]) == v and "barrier" in r), "–")])
        if rows:
            tables.append(table("Fragmentation: what folding did", [
                "", "", "held, MiB", "of unfolded", "mappings", "pages folded", "onto frames", "folding, ms of CPU",
                "longest pause, ms", "stops", "barrier"], rows))
        return tables + self.verdicts()

    def verdicts(self):
        """What Firn has set itself for redis and for 90 % random free."""
        s, rows = "fragmentation", []

        def judge(what, value, limit, unit=""):
            if value is not None:
                rows.append([what, f"{limit:g}{unit}", f"{number(value)}{unit}",
                             "reached" if value <= limit else "**falls short**"])
        for user in ("root", "nobody"):
            def mine(name, workload="redis", firn="firn", user=user):
                return self.middle(s, workload, firn, name, user=user)
            who = f"redis, {user}: "
            judge(who + "held, MiB", mine("held_mib"), 135)
            judge(who + "mappings", mine("vmas"), 12000)
            je = self.middle(s, "redis", "jemalloc-1s", "held_mib")
            if je and mine("held_mib"):
                judge(who + "held / jemalloc's with 1 s decay", mine("held_mib") / je, 0.62)
            je = self.middle(s, "redis", "jemalloc", "populate_s")
            if je and mine("populate_s"):
                judge(who + "time to populate / jemalloc's", mine("populate_s") / je, 1.05)
            judge(who + "folding, ms of CPU", mine("fold_ms"), 400)
        judge("redis, not folded: held, MiB", self.middle(s, "redis", "firn-nofold", "held_mib"), 225)
        for workload, limit in (("random64", 40), ("random256", 25)):
            base = self.middle(s, workload, "firn-nofold", "held_mib")
            for name in ("firn-46%", "firn"):
                held = self.middle(s, workload, name, "held_mib")
                if base and held:
                    judge(f"{workload}, {name}: held, % of unfolded", held / base * 100, limit, " %")
        return [table("Fragmentation: what Firn has set itself",
                      ["", "at most", "is", ""], rows)] if rows else []

    def pauses(self):
        s, variants = "pauses", self.variants("pauses")
        if not variants:
            return []
        tables = []
        for what, title in (("malloc", "malloc, every call"), ("free", "free, every call"),
                            ("stall", "a spinning thread, every stall of 20 us or more"),
                            ("own", "by Firn's own count")):
            rows = []
            for name, user in variants:
                value = [self.middle(s, "sparse", name, f"{what}_{part}_us", user=user)
                         for part in ("p50", "p99", "p999", "max")]
                if value[0] is None:
                    continue
                row = [name, user, *(number(v) for v in value)]
                if what == "stall":
                    row += [number(self.middle(s, "sparse", name, k, user=user)) for k in ("stall_n", "stalled_percent")]
                if what == "own":
                    row += [number(self.middle(s, "sparse", name, k, user=user))
                            for k in ("fold_ms", "fold_percent", "passes", "folds", "stops")]
                rows.append(row)
            head = ["", "user", "p50", "p99", "p99.9", "max"]
            head += {"stall": ["stalls", "% of the time"],
                     "own": ["folding, ms of CPU", "% of the time", "passes", "folds", "stops"]}.get(what, [])
            if rows:
                tables.append(table(f"Pauses, microseconds: {title}", head, rows))
        return tables

    def fork(self):
        s, variants = "fork", self.variants("fork")
        heaps = self.names(s, "workload")
        if not heaps:
            return []
        rows = []
        for name, user in variants:
            rows.append([name, user] + [
                f"{number(self.middle(s, h, name, 'median_ms', user=user))} "
                f"({number(self.middle(s, h, name, 'max_ms', user=user))})" for h in heaps]
                + [number(self.middle(s, h, name, "folded_pages", user=user)) for h in heaps])
        return [table("fork() with a heap of which every second MiB was freed to 90 %: ms, median (max)",
                      ["", "user", *heaps, *(f"pages folded, {h}" for h in heaps)], rows)]

    def save(self, path, machine):
        save_csv(path, machine, self.records, ["section", "workload", "allocator", "user", "round"])
