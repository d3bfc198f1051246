# SPDX-License-Identifier: MIT
"""Runs a program in a memory cgroup of its own and measures it: time, processor time, memory held.

Memory held is anonymous memory and shmem: frames of a memfd count as shmem, once, however many pages map them,
whereas VmRSS counts them once for every page and Pss misses those that nobody has touched since they were
mapped.  The cgroup's own peak counter holds the page cache and kernel memory too, so the peak is that of
samples."""
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import host
from host import MIB, Trouble

SAMPLE_S = 0.01
SHORT_S = 0.002
NOBODY = 65534


class Groups:
    """Where the runs' cgroups are made."""

    PREFIX = "firn-bench-malloc-"

    def __init__(self):
        self.count, self.top = 0, host.MemoryCgroup(f"{self.PREFIX}{os.getpid()}")
        self.sweep_stale()
        if self.top.v2:
            host.write(self.top.path / "cgroup.subtree_control", "+memory")

    def sweep_stale(self):
        """The groups of benchmarks that were killed."""
        for group in self.top.path.parent.glob(self.PREFIX + "*"):
            if os.path.exists(f"/proc/{group.name.removeprefix(self.PREFIX)}"):
                continue
            for path in (*group.glob("*/"), group):
                try:
                    path.rmdir()
                except OSError:
                    pass        # somebody lives in it

    def new(self):
        self.count += 1
        path = self.top.path / str(self.count)
        path.mkdir()
        return Group(path, self.top.v2)

    def close(self):
        self.top.close()


class Group:
    COUNTED = {False: (b"rss", b"shmem"), True: (b"anon", b"shmem")}

    def __init__(self, path, v2):
        self.path, self.v2 = path, v2
        names = self.COUNTED[v2]
        self.pattern = re.compile(rb"^(?:" + b"|".join(names) + rb") (\d+)$", re.M)
        self.stat = os.open(path / "memory.stat", os.O_RDONLY)
        self.procs = str(path / "cgroup.procs")

    def held(self):
        """Bytes of anonymous memory and shmem."""
        return sum(int(n) for n in self.pattern.findall(os.pread(self.stat, 8192, 0)))

    def highest_usage(self):
        """The kernel's own peak, page cache and kernel memory included; 0 where it has none."""
        try:
            return int(host.read(self.path / ("memory.peak" if self.v2 else "memory.max_usage_in_bytes")))
        except OSError:
            return 0

    def close(self):
        if self.stat is None:
            return
        os.close(self.stat)
        self.stat = None
        deadline = time.monotonic() + 3
        while True:
            try:
                self.path.rmdir()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


class Sampler(threading.Thread):
    """Samples what a group holds until it is told to stop: [(seconds since the start, bytes)]."""

    def __init__(self, group, interval=SAMPLE_S):
        super().__init__(daemon=True)
        self.group, self.interval, self.samples = group, interval, []
        self.begun, self.over = time.monotonic(), threading.Event()
        self.start()

    def run(self):
        while True:
            at = time.monotonic() - self.begun
            self.samples.append((at, self.group.held()))
            # Closer at first: a short run has a peak too.
            if self.over.wait(min(self.interval, SHORT_S) if at < 10 * SHORT_S else self.interval):
                return

    def stop(self):
        self.over.set()
        self.join()
        return self.samples


def spawn(words, environment, group, user=0, **how):
    """Start a program in @group, as @user; it dies with the benchmark."""
    def before_exec():
        fd = os.open(group.procs, os.O_WRONLY)
        os.write(fd, b"0")
        os.close(fd)
        if user:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        host.die_with_parent()
    return subprocess.Popen([str(w) for w in words], env=environment, preexec_fn=before_exec,
                            **{"stdin": subprocess.DEVNULL, **how})


def reap(process, seconds):
    """Wait for its end, @seconds at most; what it used."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def run(words, allocator, groups, user=0, seconds=120, interval=SAMPLE_S, directory=None, **variables):
    """A program from start to end; (figures, its standard output, its standard error, samples)."""
    group, sampler, process = groups.new(), None, None
    try:
        with open(pathlib.Path(directory or "/tmp") / f"firn-bench-{os.getpid()}.out", "w+b") as out, \
                open(pathlib.Path(directory or "/tmp") / f"firn-bench-{os.getpid()}.err", "w+b") as err:
            try:
                process = spawn(words, allocator.variables(**variables), group, user, stdout=out, stderr=err)
                start = time.monotonic()
                sampler = Sampler(group, interval)
                usage = reap(process, seconds)
                wall = time.monotonic() - start
                samples = sampler.stop()
                highest = group.highest_usage()
                out.seek(0)
                err.seek(0)
                text, errors = out.read().decode(errors="replace"), err.read().decode(errors="replace")
            finally:
                os.unlink(out.name)
                os.unlink(err.name)
    finally:
        if process and process.returncode is None:
            process.kill()
            process.wait()
        if sampler:
            sampler.stop()
        group.close()
    if process.returncode != 0:
        why = f"status {process.returncode}"
        if process.returncode < 0:
            why = signal.Signals(-process.returncode).name
        last = (errors.strip().splitlines() or [""])[-1]
        raise Trouble(f"{pathlib.Path(str(words[0])).name} with {allocator.name}: {why} {last}".rstrip())
    held = [n for _, n in samples[:-1]] or [samples[0][1]]
    return ({"wall_s": wall, "user_s": usage.ru_utime, "sys_s": usage.ru_stime,
             "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": max(held) / MIB,
             "mean_mib": sum(held) / len(held) / MIB, "highest_mib": highest / MIB}, text, errors, samples)
