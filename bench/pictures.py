# SPDX-License-Identifier: MIT
"""The plots of a run."""
from figures import median
from host import MIB
from plots import FIRN, FIRN_TOO, draw

COLOURS = {"resident": "#b0b0b0", "swap-fault": "#1f4e79", "swap-willneed": "#5b9bd5", "zswap-fault": "#2e7d32",
           "zswap-willneed": "#81c784", "zram-fault": "#8e6c00", "zram-willneed": "#e0b840", "firn-evict": "#f4b8a8",
           "firn-whole": FIRN_TOO, "firn-thaw": FIRN}


def label(text):
    return text.replace("'", "’").replace('"', "")


def quoted(text):
    return f'"{label(text)}"'


class Pictures:
    def __init__(self, where, results, names, note):
        self.where, self.r, self.names, self.note = where, results, names, note

    def title(self, text):
        return f'set title "{label(text)}\\n{label(self.note)}" noenhanced'

    def bars(self, name, title, ylabel, peers, groups):
        """@groups: [(label, {peer: value})]; on a logarithmic scale."""
        peers = [k for k in self.names if k in peers and any(values.get(k) for _, values in groups)]
        if not peers or not groups:
            return
        lines = [f"{quoted(text)} " + " ".join(f"{values[k]:.6g}" if values.get(k) else "NaN" for k in peers)
                 for text, values in groups]
        draw(self.where / name, [
            self.title(title), f"set ylabel '{ylabel}'", "set logscale y", "set style data histograms",
            "set style histogram clustered gap 1", "set style fill solid 1 noborder", "set boxwidth 0.9",
            "set xtics noenhanced", f"set xrange [-0.6:{len(groups) - 0.4}]", "set key outside bottom center maxrows 4"],
            {"d": lines}, [f"$d using {i + 2}:xtic(1) title '{label(self.names[k])}' lc rgb '{COLOURS.get(k, '#888888')}'"
                           for i, k in enumerate(peers)], "1100,500")

    def process(self):
        w = "50 %"
        if w not in self.r.workloads("process"):
            return
        peers = self.r.peers(w)
        groups = [(text, {k: self.r.middle(w, k, name, *orders) for k in peers}) for text, name, orders in (
            ("evict", "evict_s", ()), ("back, in order", "back_s", ("order",)),
            ("back, at random", "back_s", ("random",)))]
        mib = self.r.select(w)[0]["size_bytes"] // MIB
        self.bars("process.svg", f"A process of {mib} MiB, half compressible: evict it, bring all back", "seconds",
                  peers, groups)

    def latency(self):
        data, plots = {}, []
        for key, name in self.names.items():
            counts = {}
            for row in self.r.latencies:
                if row["peer"] == key:
                    counts[row["at_ns"]] = counts.get(row["at_ns"], 0) + row["touches"]
            total, seen, lines = sum(counts.values()), 0, []
            for at in sorted(counts):
                lines.append(f"{max(at, 10) / 1000} {max(total - seen, 1) / total}")
                seen += counts[at]
            if lines:
                block = f"d{len(data)}"
                data[block] = lines
                plots.append(f"${block} using 1:2 with lines lw {3 if key.startswith('firn') else 1.5} "
                             f"lc rgb '{COLOURS.get(key, '#888888')}' title '{label(name)}'")
        if data:
            draw(self.where / "latency.svg", [
                self.title("Touching every page at random: what part of the touches took longer"),
                "set xlabel 'microseconds'", "set ylabel 'part of the touches'", "set logscale xy",
                "set format '10^{%L}'", "set xrange [0.05:]"], data, plots, "1000,500")

    def content(self):
        found = [w for w in ("0 %", "50 %", "90 %") if self.r.select(w, orders=("order",))]
        if not self.r.workloads("content"):
            return
        peers = list(dict.fromkeys(k for w in self.r.workloads("content") for k in self.r.peers(w)))
        groups = [(f"{what}, {w}", {k: self.r.middle(w, k, name, "order") for k in peers})
                  for what, name in (("evict", "evict_s"), ("back", "back_s")) for w in found]
        self.bars("content.svg", "Evict it, bring all back in order: 0, 50 and 90 % compressible", "seconds", peers,
                  groups)

    def programs(self):
        found = self.r.workloads("programs")
        peers = list(dict.fromkeys(k for w in found for k in self.r.peers(w)))
        for name, title, key in (
                ("programs-first.svg", "From asking until 100 random requests were answered", "hundred_s"),
                ("programs-next.svg", "The next 20,000 random requests", "next_pass_s")):
            self.bars(name, title, "seconds", peers,
                      [(w, {k: self.r.middle(w, k, key, "requests") for k in peers}) for w in found])

    def lines(self, name, title, xlabel, ylabel, log, curves):
        """@curves: [(title, style, [(x, y)])]"""
        curves = [(t, s, [(x, y) for x, y in points if y]) for t, s, points in curves]
        curves = [c for c in curves if len(c[2]) > 1]
        if curves:
            across = [x for _, _, points in curves for x, _ in points]
            draw(self.where / name, [
                self.title(title), f"set xlabel '{xlabel}'", f"set ylabel '{ylabel}'", f"set logscale {log}",
                f"set xrange [{min(across) / 1.5}:{max(across) * 1.5}]"],
                {f"d{i}": [f"{x} {y:.6g}" for x, y in points] for i, (_, _, points) in enumerate(curves)},
                [f"$d{i} using 1:2 with linespoints pt 7 lw 2 {style} title '{label(text)}'"
                 for i, (text, style, _) in enumerate(curves)])

    def scale(self):
        sizes = [(int(w.split()[0]), w) for w in self.r.workloads("scale") if " x " not in w]
        numbers = [(int(w.split()[0]), w) for w in self.r.workloads("scale") if " x " in w]

        def points(where, peer, name, scale=1.0):
            return [(x, (self.r.middle(w, peer, name) or 0) * scale) for x, w in where]

        def link(where):
            return [(x, median([r["link_bytes"] / MIB for r in self.r.select(w, "firn-whole") if "link_bytes" in r]))
                    for x, w in where]
        for found, name, what, xlabel in ((sizes, "size", "One process, half compressible", "MiB"),
                                          (numbers, "number", "Processes of 16 MiB at once", "processes")):
            self.lines(f"scale-{name}.svg", f"{what}: time", xlabel, "seconds", "xy", [
                ("firn freeze", f"lc rgb '{FIRN}'", points(found, "firn-whole", "evict_s")),
                ("firn thaw, and all touched", f"dt 2 lc rgb '{FIRN}'", points(found, "firn-whole", "back_s")),
                ("swap, PAGEOUT", "lc rgb '#1f4e79'", points(found, "swap-willneed", "evict_s")),
                ("swap, WILLNEED and all touched", "dt 2 lc rgb '#1f4e79'", points(found, "swap-willneed", "back_s"))])
            self.lines(f"memory-{name}.svg", f"{what}: what Firn holds meanwhile", xlabel, "MiB", "xy", [
                ("agent, before", "lc rgb '#888888'", points(found, "firn-whole", "agent_idle_bytes", 1 / MIB)),
                ("agent, at most in freeze", f"lc rgb '{FIRN}'",
                 points(found, "firn-whole", "agent_evict_bytes", 1 / MIB)),
                ("agent, at most in thaw", f"dt 2 lc rgb '{FIRN}'",
                 points(found, "firn-whole", "agent_thaw_bytes", 1 / MIB)),
                ("link metadata", "lc rgb '#2e7d32'", link(found))])


def draw_all(where, results, names, note):
    for old in where.glob("*.svg"):
        old.unlink()
    pictures = Pictures(where, results, names, note)
    for part in (pictures.process, pictures.latency, pictures.content, pictures.programs, pictures.scale):
        part()
