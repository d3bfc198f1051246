# SPDX-License-Identifier: MIT
"""What Firn has set itself, beside what was measured."""
from figures import median, number, spread
from host import MIB

# The two things that "after firn thaw" may mean; both count from asking until the last page was touched.
WAYS = ("firn-whole", "firn-thaw")
HEAD = ["what", "wanted", "thaw, then touch", "reached so", "touch meanwhile", "reached then"]
SYNTHETIC = ("order", "random")
HALF, REDIS, PLAIN = "50 %", "redis", "0 %"


def verdict(limit, value, least):
    if value is None:
        return "–"
    return "yes" if (value >= limit if least else value <= limit) else "no"


def judge(what, limit, figures_of, least=False):
    """A row: the figures of both ways against a limit."""
    row = [what, f"{'≥' if least else '≤'} {number(limit)}"]
    for key in WAYS:
        values = figures_of(key)
        row += [spread(values), verdict(limit, median(values), least)]
    return row


def whole_spread(values):
    if not values:
        return "–"
    return f"{median(values):.0f} ({min(values)}–{max(values)})"


def counted(what, records_of, name, limit_name):
    """A row: a count against its own limit, which depends on the bytes."""
    row = [what, None]
    for key in WAYS:
        records = [r for r in records_of(key) if name in r and limit_name in r]
        row += [whole_spread([r[name] for r in records]), verdict(0, median([r[name] - r[limit_name] for r in records]), False)]
        if records and not row[1]:
            row[1] = f"≤ {median([r[limit_name] for r in records]):.0f}"
    row[1] = row[1] or "–"
    return row


def note(r):
    text = ("Ratios within a round. \"Thaw, then touch\": the first touch comes after `firn thaw` has ended; \"touch "
            "meanwhile\": as soon as the process runs. The allocator's rows: `make bench-malloc`.")
    floor = r.ratios(REDIS, "resident", ["swap-fault"], "next_pass_s", "requests")
    if floor:
        text += (f" Redis that was never paged out takes {number(median(floor))} of faulting's time for the next "
                 "20,000: nothing that comes back can take less.")
    return text


def rows(r):
    fault, willneed, zram = ["swap-fault"], ["swap-willneed"], ["zram-fault", "zram-willneed"]
    swap = ["swap-fault+swap-willneed"]
    found = [
        judge("evict: time / swap's PAGEOUT call", 0.8, lambda k: r.ratios(HALF, k, swap, "evict_s")),
        judge("evict: bytes written / swap's", 0.6, lambda k: r.ratios(HALF, k, swap, "write_bytes")),
    ]
    for order, text, limit in (("order", "in order", 0.12), ("random", "at random", 0.03)):
        for others, name, most in ((fault, "swap's faulting", limit), (willneed, "swap's WILLNEED", 0.5),
                                   (zram, "zram's better way", 1.0)):
            found.append(judge(f"all back, {text}: time / {name}", most,
                               lambda k, o=others, n=order: r.ratios(HALF, k, o, "back_s", n)))
    sizes = [x["size_bytes"] for x in r.select(REDIS, orders=("requests",))]
    size = f", {median(sizes) / 1e9:.1f} GB" if sizes else ""
    for text, name, others, of_whom, most in (
            ("100 random GETs", "hundred_s", fault, "faulting", 1.0),
            ("the next 20,000", "next_pass_s", fault, "faulting", 0.15),
            ("the next 20,000", "next_pass_s", willneed, "WILLNEED", 0.5)):
        found.append(judge(f"redis{size}, {text}: time / swap's {of_whom}", most,
                           lambda k, o=others, n=name: r.ratios(REDIS, k, o, n, "requests")))
    found.append(judge("0 % compressible: thaw's stored bytes a second / the lesser of dd's and the processors'", 0.8,
                       lambda k: streaming(r, k), least=True))
    for what, name in (("write", "evict"), ("read", "thaw")):
        found.append(counted(f"{name}: {what} calls", lambda k: r.select(HALF, k), f"{what}_calls", "calls_limit"))
        found.append(counted(f"{name}: {what} requests of the disk", lambda k: r.select(HALF, k), f"{what}_requests",
                             "requests_limit"))
    found.append(judge("link metadata, % of what is evicted", 0.2, lambda k: [
        x["link_bytes"] / (x["evicted_pages"] * 4096) * 100 for x in r.select(HALF, k) if x.get("evicted_pages")]))
    found.append(judge("the idle agent's resident memory, MiB, buffers counted", 8, lambda k: [
        x / MIB for x in r.of(HALF, k, "agent_idle_bytes")]))
    return found


def streaming(r, key):
    found = []
    for x in r.select(PLAIN, key, ("order",)):
        ceilings = r.of(PLAIN, "ceiling", "ceiling_rate", "none", rounds=x["round"])
        if x.get("thaw_whole_ms") and x.get("dd_rate") and ceilings:
            found.append(x["pack_bytes"] / x["thaw_whole_ms"] * 1000 / min(x["dd_rate"], median(ceilings)))
    return found
