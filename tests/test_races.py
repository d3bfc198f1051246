# SPDX-License-Identifier: MIT
"""Races made certain: whoever passes a named step sleeps there, and nothing may be lost by it."""
import pytest

STEPS = ["pager.read.fault", "pager.read.remove", "pager.read.remap", "pager.read.unmap", "pager.read.fork",
         "pager.applied", "fault.found", "fault.read", "fault.copied", "fork.child"]


@pytest.mark.parametrize("step", STEPS)
def test_slow_pager(firn, victims, step):
    """Own drops, layout changes, forks and faults, with the pager late at one step."""
    v = victims("layout", "--seed", 100 + STEPS.index(step))
    firn.start(FIRN_SLEEP_AT=step + ":3")
    firn.evict(v.pid)
    v.cmd("layout 60")
    v.cmd("fork 1")
    v.cmd("touch-random")
    firn.thaw(v.pid)
    v.cmd("verify")
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    v.cmd("verify")
