# SPDX-License-Identifier: MIT
"""The tables, in Markdown, and results.csv.  Ratios are taken within a round, then their median: absolute times
drift, ratios of one round much less."""
import csv
import math
import statistics

from allocators import TO_BEAT

LIMITS = "limit"


def number(x):
    if x is None:
        return "–"
    if x == 0 or abs(x) >= 100:
        return f"{x:.0f}"
    if abs(x) >= 10:
        return f"{x:.1f}"
    return f"{x:.2f}" if abs(x) >= 0.095 else f"{x:.3f}"


def ratio(x):
    return "–" if x is None else f"{x:.2f}"


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def geometric_mean(values):
    values = [v for v in values if v]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def table(title, head, rows, note=""):
    lines = [f"### {title}", ""]
    if note:
        lines += [note, ""]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


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
        for key, title in (("peak_mib", "Peak memory"), ("mean_mib", "Mean memory over the run")):
            base = "jemalloc"
            rows = [[p] + [number(self.middle(s, p, n, key)) for n in names] for p in programs]
            rows.append([f"**geometric mean of the ratios to {base}**"] + [
                ratio(geometric_mean([self.ratio(s, p, n, base, key) for p in programs])) for n in names])
            tables.append(table(f"{title}, MiB (anonymous and shmem, by cgroup)", ["", *names], rows))
        return tables

    def save(self, path, machine):
        names = ["section", "workload", "allocator", "user", "round"]
        names += sorted({n for r in self.records for n in r} - set(names))
        with path.open("w", newline="", encoding="utf-8") as f:
            for key, value in machine.items():
                f.write(f"# {key}: {value}\n")
            out = csv.DictWriter(f, names, restval="", lineterminator="\n")
            out.writeheader()
            for r in self.records:
                out.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in r.items()})
