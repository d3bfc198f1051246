# SPDX-License-Identifier: MIT
"""Figures of several rounds, as text, as Markdown tables and as CSV."""
import csv
import math
import statistics


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


def spread(values, scale=1.0):
    """The median, and least and most where there are several."""
    values = [v * scale for v in values if v is not None]
    if not values:
        return "–"
    text = number(statistics.median(values))
    return text if len(values) == 1 else f"{text} ({number(min(values))}–{number(max(values))})"


def table(title, head, rows, note=""):
    lines = [f"### {title}", ""]
    if note:
        lines += [note, ""]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def save_csv(path, machine, records, first):
    """Records (dicts), a line each, under what the machine was; the columns of @first come first."""
    names = first + sorted({n for r in records for n in r} - set(first))
    with path.open("w", newline="", encoding="utf-8") as f:
        for key, value in machine.items():
            f.write(f"# {key}: {value}\n")
        out = csv.DictWriter(f, names, restval="", lineterminator="\n")
        out.writeheader()
        for r in records:
            out.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in r.items()})


def load_csv(path):
    """(machine, records) as they were saved; what reads as a number is one, an empty field is absent."""
    def value(text):
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                pass
        return text
    with path.open(newline="", encoding="utf-8") as f:
        lines = f.readlines()
    machine = dict(line[2:].rstrip("\n").split(": ", 1) for line in lines if line.startswith("# "))
    rows = csv.DictReader(line for line in lines if not line.startswith("# "))
    return machine, [{k: value(v) for k, v in row.items() if v != ""} for row in rows]
