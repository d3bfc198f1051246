# SPDX-License-Identifier: MIT
"""The programs whose time is compared: our own, and real ones from Debian."""
import os
import pathlib
import random
import shutil
import socket
import subprocess
import time

import host
import meter
from host import MIB, Trouble

HERE = pathlib.Path(__file__).resolve().parent


class Program:
    """Runs by itself from start to end.  @same: its output is the same under every allocator."""

    def __init__(self, name, words, same=True, needs=None, **variables):
        self.name, self.words, self.same, self.needs, self.variables = name, words, same, needs, variables
        self.output = None

    def missing(self):
        return None if self.needs is None or shutil.which(self.needs) else f"no {self.needs}"

    def measure(self, allocator, groups):
        figures, text, _, _ = meter.run(self.words, allocator, groups, **self.variables)
        if self.same:
            if self.output is None:
                self.output = text
            elif text != self.output:
                raise Trouble(f"{self.name} with {allocator.name}: another output than before")
        return figures


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class RedisServer:
    """A redis-server without persistence, in a group of its own; close() ends it."""

    def __init__(self, allocator, groups, directory, *words, user=0, **variables):
        self.usage, self.process, self.connection, self.sampler = None, None, None, None
        self.group, self.port = groups.new(), free_port()
        self.log = open(directory / f"redis-{allocator.name}.log", "w+b")
        try:
            self.process = meter.spawn(
                ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--dir", directory, "--save", "",
                 "--appendonly", "no", "--daemonize", "no", *words],
                allocator.variables(**variables), self.group, user, stdout=self.log, stderr=self.log)
            self.connect()
        except (OSError, Trouble):
            self.close()
            raise

    def connect(self):
        deadline = time.monotonic() + 20
        while not self.connection:
            try:
                self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=120)
                self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as e:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise Trouble(f"redis-server: does not start: {e}") from e
                time.sleep(0.02)

    def sample(self, interval=meter.SAMPLE_S):
        self.sampler = meter.Sampler(self.group, interval)
        return self.sampler

    def ask(self, *words):
        """A command; its answer: a line, or a bulk string."""
        words = [str(w).encode() for w in words]
        self.connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        data, need = b"", 0
        while not data.endswith(b"\r\n") or len(data) < need:
            piece = self.connection.recv(65536)
            if not piece:
                raise Trouble("redis-server: closed the connection")
            data += piece
            if data.startswith(b"$") and b"\r\n" in data:
                head = data.split(b"\r\n", 1)[0]
                need = len(head) + 4 + int(head[1:])
        if data.startswith(b"-"):
            raise Trouble(f"redis-server: {data.decode().strip()}")
        return data.decode().strip()

    def end(self):
        """Tell it to end; what it used, and what it wrote."""
        try:
            self.connection.sendall(b"*2\r\n$8\r\nSHUTDOWN\r\n$6\r\nNOSAVE\r\n")
        except OSError:
            pass
        self.usage = meter.reap(self.process, 20)
        self.log.seek(0)
        return self.usage, self.log.read().decode(errors="replace")

    def close(self):
        if self.connection:
            self.connection.close()
        if self.process and self.process.returncode is None and self.usage is None:
            self.process.kill()
            self.process.wait()
        if self.sampler:
            self.sampler.stop()
        if not self.log.closed:
            self.log.close()
        self.group.close()


class RedisBenchmark:
    """redis-benchmark, pipelined; memory and processor time are the server's."""
    name, same = "redis", True
    TESTS = "set,get,lpush,rpop,sadd,hset,zadd"

    def __init__(self, percent, directory):
        self.requests, self.directory = 1000 * percent, directory

    def missing(self):
        return None if shutil.which("redis-benchmark") and shutil.which("redis-server") else "no redis"

    def measure(self, allocator, groups):
        server = RedisServer(allocator, groups, self.directory)
        try:
            sampler = server.sample()
            start = time.monotonic()
            host.tool("redis-benchmark", "-p", str(server.port), "-q", "-P", "16", "-r", "100000", "-d", "120",
                      "-n", str(self.requests), "-t", self.TESTS)
            wall = time.monotonic() - start
            held = [n for _, n in sampler.stop()]
            highest = server.group.highest_usage()
            usage, _ = server.end()
            return {"wall_s": wall, "user_s": usage.ru_utime, "sys_s": usage.ru_stime,
                    "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": max(held) / MIB,
                    "mean_mib": sum(held) / len(held) / MIB, "highest_mib": highest / MIB}
        finally:
            server.close()


def write_source(path, percent):
    """A file of C for the compiler to chew on."""
    r = random.Random(5)
    with path.open("w", encoding="ascii") as f:
        f.write("struct s { int a, b; struct s *next; };\nextern int sink(int, ...);\n")
        for i in range(percent):
            f.write(f"static int f{i}(struct s *p, int n)\n{{\n\tint x = n, y = {i};\n")
            for k in range(12):
                f.write(f"\tfor (int i{k} = 0; i{k} < n; i{k}++) {{\n\t\tx += (y ^ {r.randrange(9999)}) * p->a;\n"
                        f"\t\tif (x > {r.randrange(999)})\n\t\t\ty -= sink(x, y, p->b);\n\t\tp = p->next;\n\t}}\n")
            call = f" + f{i - 1}(p, x)" if i else ""
            f.write(f"\treturn x + y{call};\n}}\n")
        f.write(f"int all(struct s *p)\n{{\n\treturn f{percent - 1}(p, 3);\n}}\n")


def write_sql(path, percent):
    rows = 800 * percent
    r = random.Random(6)
    with path.open("w", encoding="ascii") as f:
        f.write("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INT, body TEXT);\nBEGIN;\n")
        for i in range(rows):
            f.write(f"INSERT INTO t VALUES({i},'name{r.randrange(rows)}',{r.randrange(1000)},"
                    f"'{'b' * r.randrange(10, 300)}');\n")
        f.write("COMMIT;\nCREATE INDEX ti ON t(name);\nCREATE INDEX tn ON t(n, id);\n")
        for i in range(rows // 8):
            f.write(f"SELECT count(*) FROM t WHERE name='name{r.randrange(rows)}';\n")
        for i in range(20):
            f.write(f"SELECT n, count(*), group_concat(substr(name, 5)) FROM t WHERE n%20={i} GROUP BY n "
                    "ORDER BY 2 DESC LIMIT 3;\n"
                    f"UPDATE t SET body=body||'{i}' WHERE n%20={i};\nDELETE FROM t WHERE id%97={i};\n")


def programs(build, directory, percent):
    def own(name, program, *words, **more):
        return Program(name, [build / "bench" / "malloc" / f"malloc-{program}", percent, *words], **more)

    write_source(directory / "source.c", percent)
    write_sql(directory / "statements.sql", percent)
    return [
        own("factor", "factor"),
        own("logic", "logic"),
        own("trees", "trees"),
        own("replace", "replace"),
        own("replace-2", "replace", 2),
        own("batches", "batches"),
        own("batches-2", "batches", 2),
        own("patterns", "patterns"),
        own("patterns-2", "patterns", 2, same=False),
        own("server-2", "server"),
        own("handoff-2", "handoff"),
        own("handoff-both-2", "handoff", "both"),
        own("churn-2", "churn"),
        own("exchange-2", "exchange"),
        own("sharing-active-2", "sharing", "active"),
        own("sharing-passive-2", "sharing", "passive"),
        own("growth", "growth"),
        own("large-medium", "large", "medium"),
        own("large-huge", "large", "huge"),
        RedisBenchmark(percent, directory),
        Program("python3", ["/usr/bin/python3", HERE / "programs" / "objects.py", percent], needs="/usr/bin/python3",
                PYTHONMALLOC="malloc", PYTHONHASHSEED="0"),
        Program("gcc", ["gcc", "-O1", "-S", "-o", "/dev/null", directory / "source.c"], needs="gcc"),
        Program("sqlite3", ["sqlite3", ":memory:", f".read {directory / 'statements.sql'}"], needs="sqlite3"),
        Program("perl", ["perl", HERE / "programs" / "hashes.pl", percent], needs="perl", PERL_HASH_SEED="0"),
    ]
