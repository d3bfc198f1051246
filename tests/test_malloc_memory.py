# SPDX-License-Identifier: MIT
"""The memory of folded heaps: swap, several windows, pages that are not to be folded."""
import contextlib
import os
import shutil
import subprocess
import tempfile

import pytest

import harness
from harness import wait_until
from malloc_harness import cases_of, environment, passes, program

EVERY = ["control", "plain", "eager"]
SWAP_BYTES = 256 << 20


def test_no_case_is_forgotten():
    assert set(cases_of("proc-memory")) == {"swapped", "windows", "never-fold", "instead"}


@pytest.mark.parametrize("mood", EVERY + ["off"])
@pytest.mark.parametrize("case", ["windows", "never-fold"])
def test_memory(case, mood):
    passes("proc-memory", case, mood)


@pytest.mark.parametrize("mood", EVERY + ["off"])
def test_new_memory_in_place_of_old(mood):
    passes("proc-memory", "instead", mood, FIRN_MALLOC_DECAY_MS="3600000", TEST_FOLDS="")


@contextlib.contextmanager
def swap_file(directory):
    path = os.path.join(directory, "swap")
    with open(path, "wb") as f:
        os.posix_fallocate(f.fileno(), 0, SWAP_BYTES)
    os.chmod(path, 0o600)
    subprocess.run(["mkswap", path], check=True, capture_output=True)
    done = subprocess.run(["swapon", path], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no swap can be had here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["swapoff", path], check=True)


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


@contextlib.contextmanager
def memory_cgroup():
    """A function that moves a process in, and one that has all of its memory reclaimed."""
    for root, version, force in (("/sys/fs/cgroup", 2, "memory.reclaim"), ("/sys/fs/cgroup/memory", 1, "memory.force_empty")):
        group = os.path.join(root, f"firn-test-{os.getpid()}")
        if os.path.exists(os.path.join(root, "cgroup.controllers" if version == 2 else "memory.usage_in_bytes")):
            break
    else:
        pytest.skip("no memory cgroup is mounted")
    os.mkdir(group)
    force = os.path.join(group, force)

    def reclaim():
        # That not all could be had is no failure.
        with contextlib.suppress(OSError):
            write(force, str(SWAP_BYTES) if version == 2 else "0")

    try:
        if not os.path.exists(force):
            pytest.skip("this kernel cannot be asked to reclaim")
        yield lambda pid: write(os.path.join(group, "cgroup.procs"), str(pid)), reclaim
    finally:
        def gone():
            with contextlib.suppress(OSError):
                os.rmdir(group)
            return not os.path.exists(group)
        wait_until(gone, 10, "the cgroup is empty")


def swapped_kib(pid):
    """Of private memory, and of the heap's frames."""
    private = frames = 0
    inside = False
    for line in harness.read(f"/proc/{pid}/smaps").splitlines():
        words = line.split()
        if "-" in words[0]:
            inside = "/memfd:" in line
        elif words[0] == "Swap:" and inside:
            frames += int(words[1])
        elif words[0] == "Swap:":
            private += int(words[1])
    return private, frames


@pytest.mark.parametrize("mood", EVERY)
def test_swapped(mood):
    """Every object comes back as it was, and what is folded is swapped out as a frame."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not shutil.which("mkswap") or not shutil.which("swapon"):
        pytest.skip("mkswap is not installed")
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))
        stack.enter_context(swap_file(directory))
        add, reclaim = stack.enter_context(memory_cgroup())
        proc = subprocess.Popen([program("proc-memory"), "swapped"], env=environment(mood), stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: add(os.getpid()))
        with proc:
            try:
                for line in ("out\n", "out again\n", "out at the end\n"):
                    assert proc.stdout.readline() == line, proc.communicate()
                    reclaim()
                    private, frames = swapped_kib(proc.pid)
                    assert private > 1024
                    assert frames > 256 or mood == "control" or line != "out\n"
                    proc.stdin.write("\n")
                    proc.stdin.flush()
                _, err = proc.communicate(timeout=60)
                assert proc.returncode == 0, err
            finally:
                proc.kill()
