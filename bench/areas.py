# SPDX-License-Identifier: MIT
"""Swap areas of the benchmarks: a file, the same behind zswap, a zram device.  Each is on only while it is
measured and undoes itself in close(), which may be called at any time and twice."""
import os
import pathlib
import re
import shutil
import signal
import subprocess

import host
from host import Trouble, kib_of, read, tool, write

SWAP_PRIORITY = "32767"         # above any swap the host has


class Swap:
    """A swap area that is on only while it is measured."""
    where = None

    def on(self):
        tool("swapon", "-p", SWAP_PRIORITY, str(self.where))

    def is_on(self):
        return any(line.split()[0] == str(self.where) for line in read("/proc/swaps").splitlines()[1:])

    def off(self):
        if self.where and self.is_on():
            tool("swapoff", str(self.where))

    def held(self):
        """Bytes of RAM that the area itself takes."""
        return 0


class SwapFile(Swap):
    def __init__(self, directory, size):
        self.where = directory / "swap"
        fd = os.open(self.where, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.close(fd)
        subprocess.run(["chattr", "+C", str(self.where)], capture_output=True, check=False)  # btrfs
        with open(self.where, "r+b") as f:
            os.posix_fallocate(f.fileno(), 0, size)
        tool("mkswap", str(self.where))
        self.on()               # so that a file system without swap files is known at once
        self.off()

    def close(self):
        self.off()
        self.where.unlink(missing_ok=True)


class Zram(Swap):
    """The first zram device if nobody uses it, else one of our own."""

    def __init__(self, directory, size):
        self.block = self.added = None
        self.mark = directory / "zram"
        control = pathlib.Path("/sys/class/zram-control")
        if not control.exists():
            subprocess.run(["modprobe", "zram"], capture_output=True, check=False)
        if not control.exists():
            raise Trouble("the kernel has no zram")
        first = pathlib.Path("/sys/block/zram0")
        if not first.exists() or int(read(first / "disksize")):
            self.added = int(read(control / "hot_add"))
            first = pathlib.Path(f"/sys/block/zram{self.added}")
        self.block = first
        self.mark.write_text(f"{first.name} {'' if self.added is None else self.added}\n")
        try:
            write(first / "comp_algorithm", "lz4")
            write(first / "disksize", str(size))
            self.where = pathlib.Path("/dev") / first.name
            tool("mkswap", str(self.where))
        except (OSError, Trouble) as e:
            self.close()
            raise Trouble(f"zram: {e}") from e

    def held(self):
        return int(read(self.block / "mm_stat").split()[2])

    def close(self):
        if not self.block:
            return
        self.off()
        write(self.block / "reset", "1")
        if self.added is not None:
            write("/sys/class/zram-control/hot_remove", str(self.added))
        self.mark.unlink(missing_ok=True)
        self.block = None

    @classmethod
    def stale(cls, mark):
        """The device that a benchmark which was killed left behind."""
        name, *added = mark.read_text().split()
        zram = cls.__new__(cls)
        zram.mark = mark
        zram.block, zram.where = pathlib.Path("/sys/block") / name, pathlib.Path("/dev") / name
        zram.added = int(added[0]) if added else None
        return zram


class Zswap(Swap):
    """The same swap file with zswap before it: by lz4 where the kernel has that, else as it is set."""
    SETTINGS = pathlib.Path("/sys/module/zswap/parameters")
    WANTED = {"compressor": "lz4", "max_pool_percent": "50", "enabled": "Y"}

    def __init__(self, directory, swap):
        if not self.SETTINGS.exists():
            raise Trouble("the kernel has no zswap")
        self.where, self.mark = swap.where, directory / "zswap"
        self.before = {name: read(self.SETTINGS / name).strip() for name in self.WANTED}
        self.mark.write_text("".join(f"{name} {value}\n" for name, value in self.before.items()))
        try:
            self.on()
            self.compressor = read(self.SETTINGS / "compressor").strip()
            self.off()
        except (OSError, Trouble) as e:
            self.close()
            raise Trouble(f"zswap: {e}") from e

    def on(self):
        for name, value in self.WANTED.items():
            try:
                write(self.SETTINGS / name, value)
            except OSError:
                if name == "enabled":
                    raise
        super().on()

    def off(self):
        super().off()
        for name in reversed(self.WANTED):
            write(self.SETTINGS / name, self.before[name])

    def held(self):
        return kib_of("/proc/meminfo", "Zswap")[0]

    def close(self):
        if self.mark.exists():
            self.off()
            self.mark.unlink()

    @classmethod
    def stale(cls, mark):
        """What a benchmark that was killed set."""
        zswap = cls.__new__(cls)
        zswap.mark, zswap.where = mark, None
        zswap.before = dict(line.split() for line in mark.read_text().splitlines())
        return zswap


def sweep_areas(directory):
    """The areas that a benchmark which was killed left in its directory."""
    if any(line.split()[0] == str(directory / "swap") for line in read("/proc/swaps").splitlines()[1:]):
        tool("swapoff", str(directory / "swap"))
    for mark, area in (("zswap", Zswap), ("zram", Zram)):
        if (directory / mark).exists():
            area.stale(directory / mark).close()


def sweep_stale(*parents):
    """What a benchmark that was killed outright left behind: swap areas off, devices reset, files away."""
    for path in (p for parent in parents for p in parent.glob("firn-bench-*-*")):
        found = re.fullmatch(r"firn-bench-(\d+)-\w+", path.name)
        if not found or os.path.exists(f"/proc/{found[1]}"):
            continue
        sweep_areas(path)
        for pid, started in host.agent_pids(path):
            if host.start_time(pid) == started:
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(path, ignore_errors=True)
        for group in pathlib.Path("/sys/fs/cgroup").glob(f"**/firn-bench-{found[1]}"):
            try:
                group.rmdir()
            except OSError:
                pass            # its victim lives on, or it has gone by itself
