# SPDX-License-Identifier: MIT
"""The allocator in its process: forks of every kind, limits, filters, tracers, descriptors, core dumps."""
import os
import re
import resource
import shutil
import struct
import subprocess
import tempfile
import time

import pytest

import harness
from harness import NOBODY, wait_until
from malloc_harness import LIBRARY, PROGRAMS, cases_of, environment, passes, program, run

EVERY = ["control", "plain", "eager"]
FORKS = ["both-write", "parent-frees", "child-frees", "nested", "of-threads", "many-forks", "look-only", "vfork", "spawns", "clone-vm"]


@pytest.mark.parametrize("mood", EVERY)
@pytest.mark.parametrize("case", FORKS)
def test_forks(case, mood):
    passes("proc-fork", case, mood)


@pytest.mark.parametrize("case", ["of-threads", "many-forks", "look-only", "vfork", "clone-vm"])
def test_forks_of_another_user(case):
    """Without the kernel's write protection: threads are stopped, or nothing is folded."""
    need_root()
    passes("proc-fork", case, "eager", user=NOBODY, TEST_FOLDS="")


WORLD = ["nothing-seen", "closes", "daemon", "reaps", "blocked"]


@pytest.mark.parametrize("mood", EVERY)
@pytest.mark.parametrize("case", WORLD)
def test_world(case, mood):
    passes("proc-world", case, mood)


@pytest.mark.parametrize("case", WORLD)
def test_world_of_another_user(case):
    need_root()
    passes("proc-world", case, "eager", user=NOBODY, TEST_FOLDS="")


@pytest.mark.parametrize("mood", EVERY)
def test_before_main_and_after_it(mood):
    for args in [[], ["thread"]]:
        assert passes("proc-world", "ends", mood, *args).out == "ended\n"


HELPER = ["seen", "fork", "raw-clone", "exec", "exit", "unshare", "seccomp"]


@pytest.mark.parametrize("mood", ["control", "eager"])
@pytest.mark.parametrize("case", HELPER)
def test_beside_a_helper(case, mood):
    """As root: without the kernel's write protection every helper is waited for."""
    need_root()
    passes("proc-helper", case, mood)


@pytest.mark.parametrize("mood", EVERY)
def test_libraries_come_and_go(mood):
    passes("proc-world", "libraries", mood, os.path.join(PROGRAMS, "life.so"))


def test_no_case_is_forgotten():
    assert set(cases_of("proc-fork")) == set(FORKS)
    assert set(cases_of("proc-helper")) == set(HELPER)
    assert set(cases_of("proc-world")) == set(WORLD) | {"ends", "libraries", "core", "steady"}
    assert set(cases_of("proc-limits")) == {"usable", "usable-growing", "usable-after", "works", "no-file-size", "lock-all", "lock-folded",
                                            "seccomp", "seccomp-one", "seccomp-strict", "other-user", "no-tracing",
                                            "no-processes", "no-descriptors"}


def need_root():
    if os.geteuid() != 0:
        pytest.skip("needs root")


# Limits

@pytest.mark.parametrize("case", [["usable", 24], ["usable", 100], ["usable", 500], ["usable", 5000], ["usable", 20000], ["usable", 40000], ["usable", 100000],
                                  ["usable", 1000000], ["usable", 10000000], ["usable-growing"], ["usable-after"]],
                         ids=lambda c: "-".join(map(str, c)))
def test_small_address_space(case):
    """As much can be had as with the C library's malloc, within a quarter.  A limit on data counts what is private and
    writable, as vm.overcommit_memory=2 does for the whole system, which no test may set."""
    for which, mib in ((resource.RLIMIT_AS, 64), (resource.RLIMIT_AS, 256), (resource.RLIMIT_DATA, 100)):
        if mib != 64 and case[-1] in (24, 100, 500):
            continue        # takes long, and the size does not matter
        limits = [(which, mib << 20)]
        there = int(passes("proc-limits", case[0], "control", *case[1:], limits=limits).out)
        here = int(passes("proc-limits", case[0], "plain", *case[1:], limits=limits).out)
        assert here >= 0.75 * there - 1, f"{here} MB in place of {there} of {mib}, limit {which}"


@pytest.mark.parametrize("mood", EVERY)
def test_works_in_a_small_address_space(mood):
    for which, mib in ((resource.RLIMIT_AS, 256), (resource.RLIMIT_AS, 400), (resource.RLIMIT_DATA, 200)):
        passes("proc-limits", "works", mood, limits=[(which, mib << 20)], TEST_FOLDS="")


@pytest.mark.parametrize("mood", EVERY)
@pytest.mark.parametrize("hard", [[], ["hard"]], ids=["soft", "hard"])
def test_no_file_may_grow(hard, mood):
    assert "SIGXFSZ" not in passes("proc-limits", "no-file-size", mood, *hard, TEST_FOLDS="").err
    passes("proc-limits", "no-file-size", mood, *hard, limits=[(resource.RLIMIT_FSIZE, 0)], TEST_FOLDS="")


@pytest.mark.parametrize("mood", EVERY)
def test_locked_memory(mood):
    need_root()
    for flags in (1, 2, 3):
        passes("proc-limits", "lock-all", mood, flags)
    passes("proc-limits", "lock-folded", mood)


def test_locked_memory_within_a_limit():
    """mlockall beyond RLIMIT_MEMLOCK fails for the program; one that is not root locks within it."""
    need_root()
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if 0 <= hard < 256 << 20:
        pytest.skip("the limit on locked memory is low here")
    done = run([*harness.user_args(NOBODY), program("proc-limits"), "lock-all", 1], "eager",
               limits=[(resource.RLIMIT_MEMLOCK, 256 << 20)])
    assert done.code == 0, done


@pytest.mark.parametrize("how", ["prctl", "syscall", "threads", "exec"])
@pytest.mark.parametrize("action", ["kill", "eperm"])
def test_seccomp(action, how):
    for mood in EVERY:
        passes("proc-limits", "seccomp", mood, action, how, **({"TEST_FOLDS": ""} if how == "exec" else {}))


@pytest.mark.parametrize("mood", EVERY)
def test_seccomp_of_one_thread(mood):
    passes("proc-limits", "seccomp-one", mood)
    passes("proc-limits", "seccomp-strict", mood)


def test_seccomp_that_says_no():
    """Told to fold under a filter, and not allowed to: nothing is folded, nothing breaks."""
    for how in ("prctl", "threads"):
        passes("proc-limits", "seccomp", "eager", "eperm", how, FIRN_MALLOC_SECCOMP="1")


@pytest.mark.parametrize("mood", EVERY)
def test_other_user(mood):
    need_root()
    passes("proc-limits", "other-user", mood)
    passes("proc-limits", "other-user", mood, "dumpable")


def read_or(path, other):
    return harness.read(path).strip() if os.path.exists(path) else other


@pytest.mark.parametrize("mood", EVERY)
def test_nobody_may_trace(mood):
    """A user whose threads can be kept from writing in no way."""
    need_root()
    if read_or("/proc/sys/vm/unprivileged_userfaultfd", "0") != "0" or os.path.exists("/dev/userfaultfd") and \
            os.stat("/dev/userfaultfd").st_mode & 0o006:
        pytest.skip("any user may write-protect memory here")
    passes("proc-limits", "no-tracing", mood, user=NOBODY, FIRN_MALLOC_SECCOMP="1")
    if int(read_or("/proc/sys/kernel/yama/ptrace_scope", "0")):
        passes("proc-limits", "no-tracing", mood, "yama", user=NOBODY)


def compiled(directory, name, *args):
    path = os.path.join(directory, name)
    source = os.path.join(harness.ROOT, "tests/malloc", name + ".c")
    subprocess.run(["cc", "-D_GNU_SOURCE", "-fno-builtin", "-I", os.path.join(harness.ROOT, "include"), "-o", path, source, *args], check=True)
    os.chmod(path, 0o4755)
    return path


def test_set_user_id():
    """The loader leaves a preloaded library out of a program that gets more rights; one that is linked with it takes no switches."""
    need_root()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        if os.statvfs(directory).f_flag & os.ST_NOSUID:
            pytest.skip("/var/tmp is mounted nosuid")
        os.chmod(directory, 0o755)
        shutil.copy(LIBRARY, os.path.join(directory, "libfirnmalloc.so.0"))
        os.symlink("libfirnmalloc.so.0", os.path.join(directory, "libfirnmalloc.so"))
        preloaded = compiled(directory, "privileged")
        linked = compiled(directory, "linked", "-L", directory, "-lfirnmalloc", "-Wl,-rpath," + directory)
        for mode, outcome in ((0o755, "firn 65534\n"), (0o4755, "libc 0\n")):
            os.chmod(preloaded, mode)
            done = run([preloaded], "plain", user=NOBODY, FIRN_MALLOC_STATS="1")
            assert done.code == 0 and done.out == outcome, done
            assert ("firn-malloc" in done.err) == (mode == 0o755), done
        for mode in (0o755, 0o4755):
            os.chmod(linked, mode)
            done = run([linked], "control", user=NOBODY, FIRN_MALLOC_STATS="1")
            assert done.code == 0 and ("firn-malloc" in done.err) == (mode == 0o755), done


@pytest.mark.parametrize("mood", EVERY)
def test_nothing_more(mood):
    """No process, no descriptor can be had any more."""
    passes("proc-limits", "no-processes", mood, 65000 if os.geteuid() == 0 else 0)
    passes("proc-limits", "no-descriptors", mood, TEST_FOLDS="")


# Tracers

@pytest.mark.parametrize("mood", EVERY)
def test_run_under_strace(mood):
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    done = run(["strace", "-f", "-qq", "-e", "trace=memfd_create,clone,ptrace", "--seccomp-bpf", "-o", "/dev/null", "env",
                *(f"{k}={v}" for k, v in environment(mood).items() if k.startswith(("FIRN_", "LD_PRELOAD"))),
                program("proc-world"), "steady", 1], "control")
    assert done.code == 0 and done.out == "ready\ndone\n", done


@pytest.mark.parametrize("mood", EVERY)
def test_strace_comes_and_goes(mood):
    need_root()
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    env = environment(mood)
    with subprocess.Popen([program("proc-world"), "steady", "8"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as proc:
        try:
            assert proc.stdout.readline() == "ready\n"
            for _ in range(2):
                with subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(proc.pid)], stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL) as tracer:
                    try:
                        wait_until(lambda: proc.poll() is not None or tracer.poll() is not None or
                                   harness.status_of(proc.pid).get("TracerPid") == str(tracer.pid), 30, "strace attaches")
                        time.sleep(0.15)
                    finally:
                        tracer.terminate()
            out, err = proc.communicate(timeout=100)
            assert proc.returncode == 0 and out == "done\n", (proc.returncode, out, err)
        finally:
            proc.kill()


# Core dumps

class Core:
    """An ELF core: what is stored of the memory."""

    def __init__(self, path):
        self.file = open(path, "rb")
        head = self.file.read(64)
        assert head[:4] == b"\x7fELF"
        offset, = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        self.parts = []
        for i in range(count):
            self.file.seek(offset + i * size)
            kind, _, at, address, _, stored, _, _ = struct.unpack("<IIQQQQQQ", self.file.read(56))
            if kind == 1 and stored:
                self.parts.append((address, stored, at))
        self.parts.sort()

    def read(self, address, n):
        import bisect
        i = bisect.bisect_right(self.parts, (address, 1 << 62, 0)) - 1
        out = b""
        while len(out) < n:
            here = address + len(out)
            if i < 0 or i >= len(self.parts) or not self.parts[i][0] <= here < self.parts[i][0] + self.parts[i][1]:
                return None
            start, stored, at = self.parts[i]
            self.file.seek(at + here - start)
            out += self.file.read(min(n - len(out), start + stored - here))
            i += 1
        return out


def dump(tmp_path, mood, **env):
    """Core and table of a process that aborted; by gdb where the system pipes cores away."""
    pattern = harness.read("/proc/sys/kernel/core_pattern").strip()
    if pattern.startswith("|") or "/" in pattern:
        if not shutil.which("gcore"):
            pytest.skip("core dumps go elsewhere, and gdb is not installed")
        with subprocess.Popen([program("proc-world"), "core", "wait"], env=environment(mood, **env), cwd=tmp_path,
                              stdout=subprocess.PIPE, text=True) as proc:
            try:
                line = proc.stdout.readline()
                subprocess.run(["gcore", "-o", str(tmp_path / "core"), str(proc.pid)], check=True, capture_output=True)
            finally:
                proc.kill()
    else:
        done = run([program("proc-world"), "core"], mood, cwd=tmp_path, **env)
        assert done.code == -6, done
        line = done.out
    cores = [f for f in os.listdir(tmp_path) if f.startswith("core")]
    assert len(cores) == 1, cores
    core = Core(tmp_path / cores[0])
    objects = [line.split() for line in harness.read(tmp_path / "table").splitlines()]
    assert len(objects) > 5000
    wrong = [a for a, content in objects if core.read(int(a, 16), len(content) // 2) != bytes.fromhex(content)]
    fields = re.match(r"filter (\w+) folded (\d+)", line)
    return len(objects), wrong, int(fields[1], 16), int(fields[2])


@pytest.fixture
def dump_directory(tmp_path):
    yield tmp_path
    for f in os.listdir(tmp_path):
        os.unlink(tmp_path / f)


@pytest.mark.parametrize("mood", EVERY)
def test_core_holds_folded_pages(dump_directory, mood):
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("core dumps are forbidden here")
    n, wrong, _, folded = dump(dump_directory, mood)
    assert mood == "control" or folded > 100
    assert not wrong, f"{len(wrong)} of {n} objects are not in the core as they were, the first at {wrong[0]}"


def test_core_switch(dump_directory):
    """FIRN_MALLOC_CORE=0 leaves the filter as it was."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("core dumps are forbidden here")
    before = int(harness.read("/proc/self/coredump_filter"), 16) & ~4
    n, wrong, after, folded = dump(dump_directory, "plain", FIRN_MALLOC_CORE="0")
    assert after & ~4 == before and (after & 4) == int(harness.read("/proc/self/coredump_filter"), 16) & 4
    assert folded > 100
    assert len(wrong) > n // 20, "the switch changes nothing"
