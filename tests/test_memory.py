# SPDX-License-Identifier: MIT
"""What the agent itself takes."""
import harness
import pytest

KIB_ANON, KIB_ALL = 3 << 10, 10 << 10   # twice what was measured, and the libraries' share, which is the host's


@pytest.fixture
def plain():
    """A build whose memory is its own, not a sanitizer's."""
    with open(f"{harness.BUILD}/firnd", "rb") as f:
        program = f.read()
    if b"__asan_init" in program or b"__tsan_init" in program:
        pytest.skip("a sanitizer's memory is not the agent's")


def test_idle_agent_is_small(plain, firn, victims):
    """After small targets, many in one request, and a larger one, nothing large stays with the agent."""
    pids = [victims("heap", "--mib", 1).pid for _ in range(40)]
    firn.ok("freeze", *pids)
    firn.ok("thaw", *pids)
    v = victims("heap", "--mib", 64)
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    v.cmd("verify")

    def small():
        status = harness.status_of(firn.agent.pid)
        return all(int(status[key].split()[0]) <= most for key, most in (("RssAnon", KIB_ANON), ("VmRSS", KIB_ALL)))
    harness.wait_until(small, 5, f"{KIB_ANON} KiB anonymous, {KIB_ALL} KiB resident at most; "
                       f"has {harness.status_of(firn.agent.pid)}")
