# SPDX-License-Identifier: MIT
"""The thread of FIRN_MALLOC_BACKGROUND=1."""
import os

import pytest

from malloc_harness import passes, run


@pytest.mark.skipif(os.geteuid() != 0, reason="as root pages are folded for certain")
def test_folds():
    passes("background", "folds", "plain", FIRN_MALLOC_BACKGROUND="1", FIRN_MALLOC_PERIOD_MS="50")


def test_no_thread_unless_asked_for():
    count = "import os; print(len(os.listdir('/proc/self/task')))"
    for asked, threads in (("0", "1\n"), ("1", "2\n")):
        done = run(["/usr/bin/python3", "-c", count], "plain", FIRN_MALLOC_BACKGROUND=asked)
        assert (done.code, done.out, done.err) == (0, threads, ""), done
