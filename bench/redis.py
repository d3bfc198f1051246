# SPDX-License-Identifier: MIT
"""A redis-server as a victim: what comes back is asked for by bench/getter.c, by GETs of random keys: one, 99 and
20,000, one at a time over a unix socket, so that the client takes little of the time."""
import subprocess
import time

import host
from host import Trouble
from victims import Child, Watched

KEYS_A_GB = 900_000


class Redis(Watched):
    whole = False

    def __init__(self, build, directory, cgroup, gigabytes=1):
        self.client, socket, log = None, directory / "redis.sock", directory / "redis.log"
        socket.unlink(missing_ok=True)
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                ["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(directory),
                 "--save", "", "--appendonly", "no", "--daemonize", "no"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=host.die_with_parent)
        self.pid, self.pids = self.process.pid, [self.process.pid]
        try:
            cgroup.add(self.pid)
            deadline = time.monotonic() + 20
            while not socket.exists():
                if not self.alive() or time.monotonic() > deadline:
                    raise Trouble("does not start")
                time.sleep(0.02)
            self.client = Child(None, build / "bench" / "getter", socket, int(KEYS_A_GB * gigabytes))
            self.client.reply("ready")
            self.send("fill")
            self.wait("fill")
        except (Trouble, OSError) as e:
            self.close()
            raise Trouble(f"redis-server: {e}") from e
        self.size = self.resident()

    def steps(self, _order):
        return (("first", "one"), ("hundred", "hundred"), ("next", "next"))

    def send(self, *commands):
        self.client.send(*commands)

    def wait(self, command):
        return self.client.wait(command)

    def verify(self):
        self.client.verify()

    def close(self):
        if self.client:
            self.client.close()
        super().close()
