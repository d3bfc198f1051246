# SPDX-License-Identifier: MIT
"""Pages that were folded hold what they held: random programs against a model, and forks of every kind."""
import os
import random
import re
import shutil
import sys

import pytest

from harness import NOBODY
from malloc_harness import program, run

EAGER = {"FIRN_MALLOC_PERIOD_MS": "5", "FIRN_MALLOC_AGE": "0", "FIRN_MALLOC_STOP_MS": "0", "FIRN_MALLOC_STATS": "1",
         "FIRN_MALLOC_CPU_PERCENT": "100"}
SEED = random.SystemRandom().randrange(1, 1 << 30)


def folds(done):
    """Page runs that were folded, from the statistics at exit."""
    return sum(int(n) for n in re.findall(r"passes, (\d+) folds", done.err))


def needs_root(tier):
    if tier == "wp" and os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.mark.parametrize("region", [16, 64, 512, 2048])
@pytest.mark.parametrize("tier,threads", [("none", 1), ("wp", 4), ("tracer", 4)])
def test_random(tier, threads, region):
    """Objects that are smaller than a region, too: several lie in one, and its bit stays until the last goes."""
    needs_root(tier)
    done = run([program("fold-random"), threads, 3, SEED], "plain", FIRN_MALLOC_BARRIER=tier, FIRN_MALLOC_REGION=str(region),
               **EAGER)
    assert done.code == 0, (SEED, done)
    assert folds(done), (SEED, done)


def test_random_as_a_user():
    done = run([program("fold-random"), 4, 3, SEED], "plain", user=NOBODY if os.geteuid() == 0 else None, **EAGER)
    assert done.code == 0, (SEED, done)
    assert folds(done), (SEED, done)


def test_off():
    """The control: nothing is folded where it is switched off."""
    done = run([program("fold-random"), 2, 1, SEED], "plain", FIRN_MALLOC_FOLD="0", **EAGER)
    assert done.code == 0, (SEED, done)
    assert not folds(done)


CHURN = """
import random, time
end, kept = time.monotonic() + 4, []
while time.monotonic() < end:
    kept = [bytes(random.randrange(20, 200)) for _ in range(100000)]
    kept = [b for b in kept if random.random() < 0.1]
    for _ in range(40):
        time.sleep(0.005)
        assert not any(map(any, kept[::50]))
"""


def test_share_of_a_processor():
    """What passes use is kept to a share: fewer are begun where it is small."""
    passes = {}
    for percent in ("1", "100"):
        done = run([sys.executable, "-c", CHURN], "plain", **{**EAGER, "FIRN_MALLOC_CPU_PERCENT": percent}, PYTHONMALLOC="malloc")
        assert done.code == 0, done
        passes[percent] = int(re.search(r"(\d+) passes", done.err).group(1))
    assert 0 < passes["1"] < passes["100"] / 2, passes


@pytest.mark.parametrize("mood", ["control", "plain", "eager"])
def test_forks(mood):
    """fork, _Fork and a raw clone: parent, child and grandchild write, free and fold what they share."""
    done = run([program("fold-fork"), 6], mood, FIRN_MALLOC_STATS="1")
    assert done.code == 0, done
    assert mood == "control" or folds(done), done


def test_valgrind():
    """It knows no process that shares all memory but is no thread: nothing is folded."""
    valgrind = shutil.which("valgrind")
    if not valgrind:
        pytest.skip("no valgrind")
    # Not one of its tools that put their own malloc in place of ours.
    done = run([valgrind, "--tool=none", "-q", program("fold-fork"), 1], "plain", FIRN_MALLOC_STATS="1", timeout=100)
    assert done.code == 0 and done.out == "ok\n", done
    assert not folds(done), done
