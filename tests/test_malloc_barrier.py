# SPDX-License-Identifier: MIT
"""The allocator's barrier: nothing is lost and nobody notices while pages are folded under running threads."""
import os
import shutil
import subprocess
import tempfile

import pytest

import harness

PROGRAMS = os.path.join(harness.BUILD, "tests", "malloc")
LIBRARY = os.path.join(harness.BUILD, "libfirnmalloc.so")

# Which tier, as whom.
ROOT = [("none", 0), ("wp", 0), ("tracer", 0)]
USER = [("none", harness.NOBODY), ("tracer", harness.NOBODY)]
SINGLE = {"none"}


def run(name, *args, env=None, seconds=100, skip=True):
    """Run a test program: exit 2 says that this host cannot do what is tested."""
    full = {k: v for k, v in os.environ.items() if not k.startswith("FIRN_")}
    full.update(env or {})
    p = subprocess.run([os.path.join(PROGRAMS, name), *map(str, args)], env=full, timeout=seconds,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(p.stdout)
    if p.returncode == 2 and skip:
        pytest.skip(p.stdout.strip().splitlines()[-1])
    assert p.returncode == 0, f"{name} {args}: status {p.returncode}\n{p.stdout}"
    return p.stdout


def as_user(tier, user):
    """What to pass; without root, only what an ordinary user may do is left."""
    if os.geteuid() != 0 and user == 0:
        if tier == "wp":
            pytest.skip("needs root")
        pytest.skip("the ordinary user's row covers it")
    return user if os.geteuid() == 0 else 0


@pytest.mark.parametrize("tier,user", ROOT + USER)
def test_folds_under_load(tier, user):
    run("barrier-fold", tier, 6000, as_user(tier, user))


@pytest.mark.long
@pytest.mark.limit(900)
@pytest.mark.parametrize("tier,user", ROOT + USER)
def test_a_hundred_thousand_folds(tier, user):
    run("barrier-fold", tier, 100000, as_user(tier, user), seconds=800)


@pytest.mark.parametrize("tier,user", ROOT[1:] + USER[1:])
def test_sixty_four_threads(tier, user):
    run("barrier-fold", tier, 2000, as_user(tier, user), 64)


# One thing at a time: the program of each case.
ALONE = {"pinned": "refuse", "locked": "refuse", "seccomp": "refuse", "traced": "refuse", "partner": "refuse", "limits": "refuse",
         "killed": "faults", "older": "faults", "faults": "faults"}
AMONG = {"hole": "faults", "signal": "threads", "flood": "threads", "futex": "threads", "vfork": "refuse", "descriptors": "threads",
         "churn": "threads"}


@pytest.mark.parametrize("tier,user", ROOT + USER)
@pytest.mark.parametrize("case", ALONE)
def test_alone_or_not(case, tier, user):
    run(f"barrier-{ALONE[case]}", case, tier, as_user(tier, user))


@pytest.mark.parametrize("tier,user", ROOT[1:] + USER[1:])
@pytest.mark.parametrize("case", AMONG)
def test_among_threads(case, tier, user):
    run(f"barrier-{AMONG[case]}", case, tier, as_user(tier, user))


def heap(tier, **switches):
    env = {"LD_PRELOAD": LIBRARY, "FIRN_MALLOC_BARRIER": tier, "FIRN_MALLOC_STOP_MS": "0"}
    env.update(switches)
    return env


@pytest.mark.parametrize("tier,user", ROOT[1:] + USER[1:])
def test_heap_under_load(tier, user):
    """The same with the allocator's own folds."""
    run("barrier-heap", "load", 1500, as_user(tier, user), env=heap(tier))


@pytest.mark.long
@pytest.mark.limit(1200)
@pytest.mark.parametrize("tier,user", ROOT[1:] + USER[1:])
def test_a_hundred_thousand_folds_of_the_heap(tier, user):
    run("barrier-heap", "load", 100000, as_user(tier, user), env=heap(tier), seconds=1100)


@pytest.mark.parametrize("tier", ["wp", "tracer"])
def test_direct_io_loses_nothing(tier):
    """Devices write where they were told to, whatever a page table says: such objects are never folded."""
    if tier == "wp" and os.geteuid() != 0:
        pytest.skip("needs root")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        run("barrier-heap", "direct", 1000, os.path.join(directory, "sectors"), env=heap(tier))


@pytest.mark.parametrize("tier", ["wp", "tracer"])
def test_under_strace_nothing_folds(tier, tmp_path):
    if not shutil.which("strace"):
        pytest.skip("no strace")
    trace = tmp_path / "trace"
    args = [shutil.which("strace"), "-f", "-qq", "-e", "trace=none", "-o", str(trace)]
    args += [item for name, value in heap(tier).items() for item in ("-E", f"{name}={value}")]
    args += [os.path.join(PROGRAMS, "barrier-heap"), "load", "1"]
    p = subprocess.run(args, timeout=100, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert p.returncode == 2 and "traces" in p.stdout, p.stdout


# A period short enough that there is something to do in the middle of nearly every wait.
OFTEN = {"LD_PRELOAD": LIBRARY, "FIRN_MALLOC_PERIOD_MS": "15", "FIRN_MALLOC_CPU_PERCENT": "100",
         "FIRN_MALLOC_DECAY_MS": "10"}


@pytest.mark.parametrize("how", ["control", "library"])
@pytest.mark.parametrize("what", ["values", "signals", "cancel", "forwards"])
def test_waiting_functions(what, how):
    """As libc's: what they return, that a signal interrupts them whenever it comes, and cancellation."""
    run("barrier-wait", what, 2, env=OFTEN if how == "library" else {}, skip=False)


@pytest.mark.long
@pytest.mark.limit(600)
@pytest.mark.parametrize("what", ["signals", "cancel"])
def test_waiting_functions_at_length(what):
    run("barrier-wait", what, 200, env=OFTEN, skip=False, seconds=500)
