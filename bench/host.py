# SPDX-License-Identifier: MIT
"""What the benchmarks need of the host: a memory cgroup, the counters of the disk, memory of processes.  Every
object undoes itself in close(), which may be called at any time and twice."""
import ctypes
import fcntl
import os
import pathlib
import struct
import subprocess
import time

MIB = 1 << 20
MADV_WILLNEED, MADV_PAGEOUT = 3, 21
SYS_PROCESS_MADVISE = 440

libc = ctypes.CDLL(None, use_errno=True)


class Trouble(Exception):
    """Something could not be set up or measured; the text says what."""


def read(path):
    return pathlib.Path(path).read_text()


def write(path, text):
    pathlib.Path(path).write_text(text)


def tool(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise Trouble(f"{words[0]}: {(done.stderr or done.stdout).strip() or done.returncode}")
    return done.stdout


def kib_of(path, *names):
    """The named "Name:  N kB" lines of a file of /proc, in bytes."""
    found = dict.fromkeys(names, 0)
    for line in read(path).splitlines():
        name = line.split(":")[0]
        if name in found:
            found[name] = int(line.split()[1]) * 1024
    return [found[name] for name in names]


def resident(pid):
    """Resident private anonymous bytes of a process."""
    return kib_of(f"/proc/{pid}/status", "RssAnon")[0]


def anonymous_ranges(pid):
    """[(address, length)] of the private anonymous mappings of a process."""
    found = []
    for line in read(f"/proc/{pid}/maps").splitlines():
        words = line.split()
        if words[1] == "rw-p" and words[4] == "0" and (len(words) == 5 or words[5] == "[heap]"):
            start, end = (int(x, 16) for x in words[0].split("-"))
            found.append((start, end - start))
    return found


def process_madvise(pid, ranges, advice):
    """Advise all of the ranges of another process; a range may take several calls."""
    pidfd = os.pidfd_open(pid)
    try:
        for address, length in ranges:
            end = address + length
            while address < end:
                vector = struct.pack("PN", address, end - address)
                done = libc.syscall(ctypes.c_long(SYS_PROCESS_MADVISE), ctypes.c_long(pidfd), vector,
                                    ctypes.c_long(1), ctypes.c_long(advice), ctypes.c_long(0))
                if done <= 0:
                    raise Trouble(f"process_madvise({advice}): {os.strerror(ctypes.get_errno())}")
                address += done
    finally:
        os.close(pidfd)


class MemoryCgroup:
    """A memory cgroup for the victim: reclaim can be made to come by."""

    def __init__(self, name):
        self.path = None
        for line in read("/proc/self/mountinfo").splitlines():
            left, right = line.split(" - ", 1)
            mount, kind, options = left.split()[4], right.split()[0], right.split()[2]
            if kind == "cgroup" and "memory" in options.split(","):
                self.v2, root = False, pathlib.Path(mount)
                break
            if kind == "cgroup2" and "memory" in read(f"{mount}/cgroup.controllers").split():
                self.v2, root = True, pathlib.Path(mount)
                break
        else:
            raise Trouble("no memory cgroup controller is mounted")
        if self.v2 and "memory" not in read(root / "cgroup.subtree_control").split():
            write(root / "cgroup.subtree_control", "+memory")
        (root / name).mkdir()
        self.path = root / name

    def add(self, pid):
        write(self.path / "cgroup.procs", str(pid))

    def reclaim(self, size):
        """Ask once; that less than @size could be had is no failure."""
        try:
            if self.v2:
                write(self.path / "memory.reclaim", str(size))
            else:
                write(self.path / "memory.force_empty", "0")
        except OSError:
            pass

    def close(self):
        deadline = time.monotonic() + 3
        while self.path:
            try:
                self.path.rmdir()
                self.path = None
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


class Disk:
    """The block layer's counters of the disk that holds a directory."""

    def __init__(self, directory):
        device = os.stat(directory).st_dev
        self.block = pathlib.Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
        if not self.block.exists():     # btrfs and others have numbers of their own: ask for the source
            source = tool("findmnt", "-n", "-o", "SOURCE", "-T", str(directory)).strip().split("[")[0]
            device = os.stat(source).st_rdev
            self.block = pathlib.Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
        self.block = self.block.resolve()
        whole = self.block.parent if (self.block / "partition").exists() else self.block
        self.name = self.block.name
        self.max_request_bytes = int(read(whole / "queue/max_sectors_kb")) * 1024
        self.rotating = read(whole / "queue/rotational").strip() == "1"
        try:
            self.model = read(whole / "device/model").strip()
        except OSError:
            self.model = "virtual" if self.name.startswith(("vd", "xvd")) else "unknown model"

    def counters(self):
        """{reads, read bytes, writes, written bytes} once nothing is in flight (or after 2 s)."""
        deadline = time.monotonic() + 2
        while True:
            f = [int(x) for x in read(self.block / "stat").split()]
            if f[8] == 0 or time.monotonic() > deadline:
                return f[0], f[2] * 512, f[4], f[6] * 512
            time.sleep(0.002)


def ceiling(build, size, percent):
    """The rate at which the processors could decode and install pages, of raw and of stored bytes."""
    words = tool(str(build / "bench" / "ceiling"), str(size), str(percent)).split()
    seconds = int(words[1]) / 1e9
    return {"ceiling_raw_rate": size / seconds, "ceiling_rate": int(words[2]) / seconds}


def extents(path):
    """How many pieces of the disk hold a file."""
    with open(path, "rb") as f:
        answer = fcntl.ioctl(f, 0xC020660B, struct.pack("=QQIIII", 0, (1 << 64) - 1, 1, 0, 0, 0))
    return struct.unpack("=QQIIII", answer)[3]


def dd_rate(path):
    """Bytes a second at which dd reads a file past the page cache."""
    start = time.monotonic()
    tool("dd", f"if={path}", "of=/dev/null", "bs=8M", "iflag=direct", "status=none")
    return os.path.getsize(path) / (time.monotonic() - start)


def drop_caches():
    os.sync()
    write("/proc/sys/vm/drop_caches", "1")


def start_time(pid):
    try:
        return read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


def parent(pid):
    try:
        return int(read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def agent_pids(runtime):
    """[(pid, start time)] of the agent and the keeper of a runtime directory."""
    found = []
    for name in ("agent.pid", "keeper.pid"):
        try:
            pid, started = (runtime / name).read_text().split()
        except (OSError, ValueError):
            continue
        found.append((int(pid), started))
    return found


def die_with_parent():
    """In a child, before exec: it is killed when the benchmark is."""
    libc.prctl(1, 9)


def machine(root, disk):
    """What a figure needs beside it."""
    cpu = "unknown"
    for line in read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    try:
        git = ["git", "-c", "safe.directory=*", "-C", str(root)]
        commit = tool(*git, "rev-parse", "--short=12", "HEAD").strip()
        if tool(*git, "status", "--porcelain", "--untracked-files=no", "--", "src", "bench").strip():
            commit += "+changes"
    except (OSError, Trouble):
        commit = "unknown"
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit,
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "memory": f"{kib_of('/proc/meminfo', 'MemTotal')[0] / (1 << 30):.1f} GiB",
        "kernel": os.uname().release,
        "disk": f"{disk.name}, {'rotating' if disk.rotating else 'solid state'}, {disk.model}",
    }
