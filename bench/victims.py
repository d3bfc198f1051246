# SPDX-License-Identifier: MIT
"""The processes that are paged out and brought back: our own, and programs that answer.

What a peer expects of a victim: pids; size (bytes that shall go); ranges() to advise about; steps(order): what is
asked of it on the way back, as (name of the figure, command); send(command), which works while it is stopped too,
and wait(command), which gives the nanoseconds it took by itself and raises Trouble where the answer is wrong."""
import os
import select
import subprocess
import time

import host
from host import Trouble

REPLY_SECONDS = 120


class Watched:
    """A process of the bench's own: self.process, self.pid."""

    def ranges(self):
        return [(self.pid, host.anonymous_ranges(self.pid))]

    def resident(self):
        return host.resident(self.pid)

    def alive(self):
        return self.process.poll() is None

    def close(self):
        self.process.kill()
        self.process.wait()


class Child(Watched):
    """A process that obeys one command a line and answers it with a line: the command, nanoseconds, a number."""

    def __init__(self, cgroup, *words):
        self.process = subprocess.Popen([str(w) for w in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        bufsize=0, preexec_fn=host.die_with_parent)
        self.pid, self.pending = self.process.pid, b""
        self.pids = [self.pid]
        if cgroup:
            cgroup.add(self.pid)        # before it has touched a page

    def send(self, *commands):
        self.process.stdin.write("".join(c + "\n" for c in commands).encode())

    def reply(self, command):
        """The words that answer @command."""
        deadline = time.monotonic() + REPLY_SECONDS
        while b"\n" not in self.pending:
            if not select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise Trouble(f"the victim does not answer to {command}")
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                raise Trouble(f"the victim died, answering to {command}: exit status {self.process.wait()}")
            self.pending += piece
        line, self.pending = self.pending.split(b"\n", 1)
        words = line.decode().split()
        if words[0] != command:
            raise Trouble(f"the victim answers {words[0]} to {command}")
        return words[1:]

    def wait(self, command):
        ns, wrong = (int(x) for x in self.reply(command))
        if wrong:
            raise Trouble(f"{wrong} wrong answers to {command}: the pages came back wrong")
        return ns

    def verify(self):
        self.send("verify")
        self.wait("verify")

    def close(self):
        super().close()
        self.process.stdin.close()
        self.process.stdout.close()


class Victim(Child):
    """bench/victim.c: all of its pages are touched."""
    whole = True                # it is back when all of its memory is

    def __init__(self, program, size, percent, cgroup):
        super().__init__(cgroup, program, size, percent)
        try:
            address, self.size = (int(x) for x in self.reply("ready"))
            self.mapping = [(address, self.size)]
            self.send("fill")
            self.sum = int(self.reply("fill")[1])
        except Trouble:
            self.close()
            raise

    def steps(self, order):
        return (("first", "one"), ("back", order))

    def ranges(self):
        return [(self.pid, self.mapping)]

    def wait(self, command):
        if command not in ("order", "random"):
            return super().wait(command) if command == "verify" else int(self.reply(command)[0])
        ns, total = (int(x) for x in self.reply(command))
        if total != self.sum:
            raise Trouble("the victim read wrong bytes: the pages came back wrong")
        return ns

    def latencies(self):
        """[(nanoseconds, touches)] of the last pass at random."""
        self.send("latency")
        return [tuple(int(x) for x in word.split(":")) for word in self.reply("latency")[2:]]


class Script(Child):
    """A heap of objects in an interpreter, of which some, chosen at random, are asked for."""
    whole = False

    def __init__(self, cgroup, *words):
        super().__init__(cgroup, *words)
        try:
            self.reply("ready")
            self.steps_alone()
        except (Trouble, OSError):
            self.close()
            raise
        self.size = self.resident()

    def steps_alone(self):
        """So that what an interpreter does at its first look is done."""
        for _, command in self.steps(None):
            self.send(command)
            self.wait(command)

    def steps(self, _order):
        return (("first", "one"), ("hundred", "hundred"), ("next", "next"))


class Many:
    """Several victims that go and come together."""
    whole = True

    def __init__(self, count, make):
        self.victims = []
        try:
            for _ in range(count):
                self.victims.append(make())
        except (Trouble, OSError):
            self.close()
            raise
        self.pids = [v.pid for v in self.victims]
        self.size = sum(v.size for v in self.victims)

    def steps(self, order):
        return self.victims[0].steps(order)

    def send(self, *commands):
        for v in self.victims:
            v.send(*commands)

    def wait(self, command):
        return max([v.wait(command) for v in self.victims])

    def verify(self):
        for v in self.victims:
            v.verify()

    def ranges(self):
        return [r for v in self.victims for r in v.ranges()]

    def resident(self):
        return sum(v.resident() for v in self.victims)

    def alive(self):
        return all(v.alive() for v in self.victims)

    def close(self):
        for v in self.victims:
            v.close()
