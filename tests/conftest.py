# SPDX-License-Identifier: MIT
"""Fixtures of the live tests: see harness.py."""
import os
import signal

import pytest

import harness

harness.become_subreaper()
# For the machine of tools/check-kernels: named there one by one.
collect_ignore = ["guest"]


def interrupted(signum, frame):
    """Asked to end: as by ^C, so that fixtures still clear up."""
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, interrupted)
signal.signal(signal.SIGHUP, interrupted)


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="the long tests too")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes long; only with --long")
    config.addinivalue_line("markers", "limit(seconds): a test's time limit; 120 without it")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--long"):
        return
    keep = [i for i in items if not i.get_closest_marker("long")]
    drop = [i for i in items if i.get_closest_marker("long")]
    if drop:
        config.hook.pytest_deselected(items=drop)
        items[:] = keep


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    mark = item.get_closest_marker("limit")
    seconds = (mark.args[0] if mark else 120) * harness.PATIENCE

    def too_long(signum, frame):
        raise harness.Timeout(f"the test took over {seconds} s")

    old = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def need_root():
    if os.geteuid() != 0:
        pytest.skip("needs root")


def need_uffd():
    if not os.path.exists("/dev/userfaultfd"):
        pytest.skip("this kernel has no /dev/userfaultfd")


@pytest.fixture
def victims(request):
    """start(name, args...) -> Victim; all are killed at the end, before the cgroups they are in are removed."""
    if "cgroups" in request.fixturenames:
        request.getfixturevalue("cgroups")
    started = []

    def start(*args, **kwargs):
        v = harness.Victim(*args, **kwargs)
        started.append(v)
        return v

    yield start
    for v in reversed(started):
        v.stop()


@pytest.fixture
def cgroups():
    """make(hierarchy, path) -> Cgroup; all are removed at the end."""
    need_root()
    made = []

    def make(hierarchy, path):
        if not harness.Cgroup.available(hierarchy):
            pytest.skip(f"no cgroup hierarchy {hierarchy} is mounted")
        made.append(harness.Cgroup(hierarchy, path))
        return made[-1]

    yield make
    for group in reversed(made):
        group.close()


@pytest.fixture
def firn_only():
    """An agent of the test's own.  Ends after the victims: a test that needs both asks for `firn`."""
    need_root()
    need_uffd()
    f = harness.Firn()
    yield f
    f.close()


@pytest.fixture
def firn(firn_only, victims):
    yield firn_only


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """The agent's last words with a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        f = item.funcargs.get("firn_only")
        if f:
            report.sections.append(("agent", f.log()))
