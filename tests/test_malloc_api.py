# SPDX-License-Identifier: MIT
"""The allocator's interface: each function, each size, each error; threads, signals; a model at random."""
import os
import random
import re
import signal
import xml.etree.ElementTree

import pytest

from harness import NOBODY
from malloc_harness import cases_of, passes, program, run

EVERY = ["control", "plain", "eager"]
CASES = {
    "api-sizes": ["alignment", "usable", "zero", "limits", "overflow", "bad-alignment", "resize", "resize-walk", "calloc-zero",
                  "calloc-folded", "errno", "no-memory"],
    "api-names": ["names", "mixed", "library", "info", "trim"],
    "api-threads": ["remote", "exit-while-freed", "many-threads", "destructors", "destructor-only", "cancel", "main-ends",
                    "signal-frees", "signal-balanced", "signal-threads", "small-stacks"],
    "api-wrap": ["wrapped"],
    "cxx": ["forms", "objects", "no-memory", "thread-locals"],
}


@pytest.mark.parametrize("mood", EVERY)
@pytest.mark.parametrize("name,case", [(n, c) for n, all in CASES.items() for c in all])
def test_interface(name, case, mood):
    passes(name, case, mood)


def test_no_case_is_forgotten():
    for name, cases in CASES.items():
        assert set(cases_of(name)) - {"tell"} == set(cases)
    assert set(cases_of("api-errors")) == set(ERRORS)


@pytest.mark.parametrize("mood", EVERY)
def test_linked(mood):
    """Linked with it, and preloaded besides."""
    assert passes("linked", "all", mood).out.count(".") == 2


@pytest.mark.parametrize("mood", EVERY)
def test_what_it_tells(mood):
    """malloc_info writes XML, malloc_stats text to standard error."""
    done = passes("api-names", "tell", mood)
    tree = xml.etree.ElementTree.fromstring(done.out)
    assert tree.tag == "malloc" and tree.get("version")
    assert done.err.strip()


# Case -> what the message says.  An address is named where it is the allocator's own or nobody's.
DOUBLE = r"double free of "
FOREIGN = r"free of (0x[0-9a-f]+), which was not allocated here"
MIDDLE = r"(free|realloc) of (0x[0-9a-f]+), which is not the start of an allocation|" + FOREIGN
ERRORS = {
    "twice": DOUBLE, "twice-later": DOUBLE, "twice-much-later": DOUBLE, "twice-by-threads": DOUBLE, "twice-folded": DOUBLE,
    "foreign-static": FOREIGN, "foreign-stack": FOREIGN, "foreign-map": FOREIGN, "foreign-low": FOREIGN, "foreign-wild": FOREIGN,
    "middle": MIDDLE, "odd": MIDDLE, "never": DOUBLE + "|" + MIDDLE,
    "realloc-freed": DOUBLE + "|realloc of (0x[0-9a-f]+), which", "realloc-foreign": "realloc of (0x[0-9a-f]+), which was not",
}
SIZES = [24, 64, 448, 600, 5000, 40000, 300000, 9000000]


def ended_with(done, message):
    assert done.code == -signal.SIGABRT, done
    lines = [line for line in done.err.splitlines() if line.startswith("firn-malloc: ")]
    assert len(lines) == 1, done
    assert re.fullmatch(f"firn-malloc: (.*)({message}).*", lines[0]), done
    return lines[0]


@pytest.mark.parametrize("case", ERRORS)
def test_misuse(case):
    """The process is ended, by abort and with one line that says what was wrong."""
    sized = case.startswith("twice") and case != "twice-folded" or case in ("middle", "odd", "never", "realloc-freed")
    for size in SIZES if sized else [64]:
        if case == "never" and size > 30000:
            continue
        message = ERRORS[case] + ("|" + FOREIGN if size > 30000 else "") + \
            ("|realloc of (0x[0-9a-f]+), which" if case == "realloc-freed" else "")
        done = run([program("api-errors"), case, size], "plain", limits=[(4, 0)])
        line = ended_with(done, message)
        # Foreign pointers are named at once.
        if case.startswith("foreign") or case == "realloc-foreign":
            assert re.search(r"about (0x[0-9a-f]+)", done.out)[1] in line


# The model.  A failing run says its seed: FIRN_MODEL_SEED=n runs that one.
SEEDS = [1, 2, 3]


def model(mood, threads, operations, seed=None, timeout=100, **env):
    seed = seed or int(os.environ.get("FIRN_MODEL_SEED", 0)) or random.SystemRandom().randrange(1, 10**9)
    done = run([program("model"), threads, operations, seed], mood, timeout=timeout, **env)
    assert done.code == 0 and f"seed {seed}\n" in done.out, (env, done)
    numbers = dict(re.findall(r"(\S+) (\d+)", done.out))
    if mood not in ("control", "off"):
        assert int(numbers["folds"]) > 0, f"nothing was folded: {done}"
    return numbers


@pytest.mark.parametrize("mood", EVERY + ["off"])
@pytest.mark.parametrize("threads", [1, 24])
def test_model(threads, mood):
    model(mood, threads, 12000 if threads > 1 else 60000)


@pytest.mark.parametrize("region", [16, 64, 512, 2048])
def test_model_regions(region):
    """Regions larger than objects: several objects to a bit."""
    model("eager", 24, 8000, FIRN_MALLOC_REGION=str(region))
    model("eager", 1, 30000, FIRN_MALLOC_REGION=str(region))


@pytest.mark.parametrize("tier", ["wp", "tracer"])
def test_model_barriers(tier):
    if tier == "wp" and os.geteuid() != 0:
        pytest.skip("needs root")
    model("eager", 24, 12000, FIRN_MALLOC_BARRIER=tier)


def test_model_of_another_user():
    if os.geteuid() != 0:
        pytest.skip("needs root")
    model("eager", 24, 12000, user=NOBODY)


@pytest.mark.parametrize("seed", SEEDS)
def test_model_seeds(seed):
    """The same each time; a seed that finds something is added to them."""
    model("eager", 8, 6000, seed)


@pytest.mark.long
@pytest.mark.limit(1800)
@pytest.mark.parametrize("env", [{}, {"FIRN_MALLOC_REGION": "2048"}, {"FIRN_MALLOC_BARRIER": "tracer"},
                                 {"FIRN_MALLOC_BACKGROUND": "1"}, {"FIRN_MALLOC_DECAY_MS": "1"}], ids=str)
def test_model_long(env):
    for _ in range(10):
        model("eager", 24, 120000, timeout=300, **env)
