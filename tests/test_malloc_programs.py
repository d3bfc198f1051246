# SPDX-License-Identifier: MIT
"""Real programs under the allocator, folding all the time: what they say is what they say without it."""
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess

import pytest

import harness
from harness import ROOT, wait_until
from malloc_harness import LIBRARY, environment, run

# Folding as often as it can be done.
EAGER = {"FIRN_MALLOC_PERIOD_MS": "20", "FIRN_MALLOC_AGE": "0", "FIRN_MALLOC_STATS": "1", "TEST_FOLDS": "",
         "FIRN_MALLOC_CPU_PERCENT": "100"}


def need(name):
    path = shutil.which(name, path="/usr/bin:/bin:/usr/sbin")
    if not path:
        pytest.skip(f"{name} is not installed")
    return path


def folds_in(err):
    """Folds of all processes that printed statistics."""
    return sum(int(n) for n in re.findall(r"^firn-malloc: .* passes, (\d+) folds", err, re.M))


def without_statistics(err):
    return "".join(line for line in err.splitlines(True) if not line.startswith("firn-malloc: "))


def same(argv, folds=True, errors=True, **kwargs):
    """Run without and with the library: code and output are the same."""
    before = run(argv, "control", **kwargs)
    after = run(argv, "eager", **{**kwargs, **EAGER})
    assert after.code == before.code == 0, (before, after)
    assert after.out == before.out, (before, after)
    if errors:
        assert without_statistics(after.err) == before.err, (before, after)
    assert "firn-malloc: " in after.err, "the library was not loaded, or has no statistics"
    if folds:
        assert folds_in(after.err) > 0, f"nothing was folded: {after.err[-2000:]}"
    return after


# sqlite

def statements(rows):
    """A few thousand statements with all that makes sqlite allocate."""
    rng = random.Random(5)
    yield "PRAGMA journal_mode=MEMORY; PRAGMA cache_size=-20000;"
    yield "CREATE TABLE a(id INTEGER PRIMARY KEY, name TEXT, n INT, body BLOB); CREATE INDEX a_name ON a(name);"
    yield "CREATE TABLE b(a INT, t TEXT);"
    for i in range(rows):
        name = f"name{rng.randrange(rows)}"
        yield f"INSERT INTO a(name, n, body) VALUES('{name}', {rng.randrange(10**6)}, x'{rng.randbytes(rng.randrange(1, 300)).hex()}');"
        if i % 3 == 0:
            yield f"INSERT INTO b VALUES({rng.randrange(1, i + 2)}, '{'t' * rng.randrange(200)}');"
        if i % 7 == 0:
            yield f"DELETE FROM a WHERE id = {rng.randrange(1, i + 2)};"
        if i % 5 == 0:
            yield f"UPDATE a SET body = body || body, name = name || 'x' WHERE id = {rng.randrange(1, i + 2)} AND length(body) < 2000;"
        if i % 500 == 0:
            yield "SELECT count(*), sum(n), sum(length(body)), group_concat(substr(name, 1, 3)) FROM a WHERE n % 7 = 3;"
            yield "SELECT a.name, count(*), sum(length(b.t)) FROM a JOIN b ON b.a = a.id GROUP BY a.name ORDER BY 2 DESC, 1 LIMIT 20;"
    yield "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x < 50000) SELECT sum(x), max(hex(x*x)) FROM c;"
    yield "SELECT json_group_array(name) FROM (SELECT name FROM a ORDER BY name, id LIMIT 1000);"
    yield "REINDEX; VACUUM; PRAGMA integrity_check; SELECT id, name, n, hex(body) FROM a ORDER BY n, id; SELECT * FROM b ORDER BY a, t;"


def sqlite(rows):
    path = need("sqlite3")
    done = same([path, ":memory:"], folds=False, stdin="\n".join(statements(rows)))
    assert len(done.out) > rows * 100 and "ok\n" in done.out


def test_sqlite():
    sqlite(4000)


@pytest.mark.long
@pytest.mark.limit(600)
def test_sqlite_long():
    sqlite(100000)


# Perl

PERL = r"""
use strict; use warnings;
my $seed = 1; sub r { $seed = ($seed * 1103515245 + 12345) % 2147483648; return $seed % $_[0]; }
my (%h, @a);
for my $i (1 .. $ARGV[0]) {
    my $k = "key" . r(30000);
    push @{$h{$k}{list}}, "v" x r(200);
    $h{$k}{n} += $i;
    delete $h{"key" . r(30000)} if $i % 3 == 0;
    push @a, { i => $i, s => join(",", map { r(9) } 1 .. r(20)) };
    splice(@a, r(scalar @a), 1 + r(5)) if @a > 20000;
}
for my $round (1 .. 3) {
    # Nine of ten go, here and there; then there is other work.
    for my $k (sort keys %h) { delete $h{$k} if r(10); }
    my %other = map { $_ => "o" x r(50) } 1 .. 30000;
    for my $i (1 .. 100000) { my $s = "t" x r(100); $other{r(30000)} = $s; }
    for my $i (1 .. $ARGV[0] / 3) { push @{$h{"more" . r(30000)}{list}}, "w" x r(200); }
}
my $text = join("\n", map { "$_:@{[$h{$_}{n} || 0]}:" . join("|", map { length } @{$h{$_}{list} || []}) } sort keys %h);
my $copy = $text; my $n = ($copy =~ s/(\d+)\|(\d+)/$2-$1/g);
print length($text), " $n\n", $copy, "\n", join(";", map { "$_->{i}=$_->{s}" } @a), "\n";
my @sorted = sort { $a cmp $b } map { scalar reverse } split /\n/, $copy;
print scalar(@sorted), " $sorted[0]\n", sprintf("%s", join("", @sorted[0 .. 99])), "\n";
if (my $pid = fork) { waitpid($pid, 0); print "child $?\n"; } else { %h = (); @a = (); exit 3; }
"""


def test_perl():
    same([need("perl"), "-e", PERL, 60000], PERL_HASH_SEED="0", PERL_PERTURB_KEYS="0")


# Python

PYTHON = r"""
import gc, hashlib, json, random, re, sys, threading, zlib
rng = random.Random(7)
store, out = {}, hashlib.sha256()
lock = threading.Lock()
def work(k):
    r = random.Random(k)
    mine = {}
    for i in range(int(sys.argv[1])):
        mine[r.randrange(4000)] = [r.random(), str(i) * r.randrange(30), {"k": [j for j in range(r.randrange(12))]}]
        if i % 5 == 0:
            mine.pop(r.randrange(4000), None)
        if i % 3000 == 0:
            s = json.dumps(mine, sort_keys=True)
            assert json.loads(s) == {str(a): b for a, b in mine.items()}
            assert zlib.decompress(zlib.compress(s.encode())) == s.encode()
            gc.collect()
    with lock:
        store[k] = mine
threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
for k in sorted(store):
    text = json.dumps(store[k], sort_keys=True)
    out.update(text.encode())
    print(k, len(text), len(re.findall(r"\d+\.\d+", text)), out.hexdigest())
"""


def test_python():
    same([need("python3"), "-c", PYTHON, 8000], folds=False, PYTHONMALLOC="malloc", PYTHONHASHSEED="0")


PYTHON_TESTS = ["test_dict", "test_list", "test_set", "test_fork1", "test_thread", "test_struct", "test_deque"]
# Those that take seconds, and end the same way each time.
PYTHON_TESTS_LONG = [f"test_{name}" for name in """
array ast asyncgen asynchat asyncio asyncore atexit audit binascii buffer bufio builtin bytes bz2 calendar capi codecs collections compile
concurrent_futures configparser context contextlib coroutines cprofile csv ctypes dataclasses datetime dbm decimal defaultdict descr
dictviews difflib dis doctest eintr email embed enum epoll exceptions faulthandler fcntl file file_eintr fileio finalization float fractions
frame fstring gc generators genericalias glob gzip hash hashlib heapq http_cookiejar httplib httpservers import importlib inspect io
ipaddress iter json long lzma mailbox marshal math memoryio memoryview minidom mmap multibytecodec multiprocessing_fork
multiprocessing_spawn openpty ordered_dict os pathlib pdb pickle picklebuffer plistlib poll popen posix pprint pstats pty py_compile pyclbr
pydoc pyexpat random re repl resource runpy sax select shelve shutil signal sort sqlite3 statistics structseq subprocess super support
symtable syntax sys sys_settrace tempfile threading threading_local threadsignals time tokenize traceback tracemalloc tuple types typing
unicode unicodedata wait3 wait4 weakref xml_etree_c zlib""".split()]


def python_tests(tests, tmp_path, timeout):
    """Python's own tests: the same of them pass and fail."""
    if not os.path.exists("/usr/lib/python3.11/test/test_dict.py"):
        pytest.skip("libpython3.11-testsuite is not installed")
    argv = ["/usr/bin/python3.11", "-m", "test", "-u", "none", "--timeout", "200", *tests]
    outcome = {}
    for mood, more in (("control", {}), ("eager", {k: v for k, v in EAGER.items() if k != "FIRN_MALLOC_STATS"})):
        folder = tmp_path / mood
        folder.mkdir()
        done = run([*argv, "--tempdir", folder], mood, timeout=timeout, cwd=folder, PYTHONMALLOC="malloc", **more)
        failed = re.search(r"^(\d+) tests? failed:\n((?:    .*\n)+)", done.out, re.M)
        outcome[mood] = sorted(failed[2].split()) if failed else []
        assert re.search(r"^(Tests? result|== Tests result): ", done.out, re.M), done
        assert re.search(r"^\d+ tests? OK|^All \d+ tests OK", done.out, re.M), done
    assert outcome["eager"] == outcome["control"], done


@pytest.mark.limit(300)
def test_python_tests(tmp_path):
    python_tests(PYTHON_TESTS, tmp_path, 140)


@pytest.mark.long
@pytest.mark.limit(1500)
@pytest.mark.parametrize("part", range(10))
def test_python_tests_long(tmp_path, part):
    python_tests(PYTHON_TESTS_LONG[part::10], tmp_path, 700)


# git

def test_git(tmp_path):
    """A repository with a history, made, cloned, packed and checked: the same objects, byte for byte."""
    git = need("git")
    script = r"""
set -e
export GIT_CONFIG_NOSYSTEM=1 HOME=$PWD GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git init -q -b main one; cd one
for i in 1 2 3 4 5 6; do
	for f in 1 2 3 4 5 6 7 8 9; do seq $((i * 100)) $((i * 137 + f * 400)) >file$f; done
	mkdir -p dir$i; cp file* dir$i
	git add -A
	GIT_AUTHOR_DATE="2020-01-0$i 00:00" GIT_COMMITTER_DATE="2020-01-0$i 00:00" git commit -qm "commit $i"
done
git checkout -qb side HEAD~2; echo side >side; git add side
GIT_AUTHOR_DATE="2020-02-01 00:00" GIT_COMMITTER_DATE="2020-02-01 00:00" git commit -qm side
GIT_AUTHOR_DATE="2020-02-02 00:00" GIT_COMMITTER_DATE="2020-02-02 00:00" git merge -q main -m merge
cd ..
git clone -q --no-local one two 2>&1
cd two
git -c pack.threads=2 gc -q --aggressive
git fsck --full --strict 2>&1
git log --stat -p | sha256sum
git rev-list --objects --all | sort | sha256sum
git blame file3 | tail -n 3
git diff HEAD~3 | sha256sum
git archive HEAD | sha256sum
git grep -c 77 HEAD -- 'dir*/file*' | sort
"""
    outputs = {}
    for mood, more in (("control", {}), ("eager", {k: v for k, v in EAGER.items() if k != "FIRN_MALLOC_STATS"})):
        folder = tmp_path / mood
        folder.mkdir()
        done = run(["/bin/sh", "-c", script], mood, cwd=folder, PATH="/usr/bin:/bin", **more)
        assert done.code == 0 and not done.err, done
        outputs[mood] = done.out
    assert git and outputs["control"] == outputs["eager"]
    assert len(outputs["control"].splitlines()) > 10


# gcc

def compile_all(files, tmp_path):
    for mood, more in (("control", {}), ("eager", {k: v for k, v in EAGER.items() if k != "FIRN_MALLOC_STATS"})):
        folder = tmp_path / mood
        folder.mkdir()
        for f in files:
            out = folder / (f.replace("/", "_") + ".o")
            done = run(["/usr/bin/gcc", "-std=gnu11", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", '-DFIRN_VERSION="0"', "-DFIRN_MALLOC_CHECKS=1", "-O2", "-g", "-Wall", "-Wextra",
                        "-Isrc", "-Iinclude", "-c", "-o", out, f], mood, cwd=ROOT, **more)
            assert done.code == 0, done
    names = sorted(os.listdir(tmp_path / "control"))
    assert names == sorted(os.listdir(tmp_path / "eager")) and len(names) == len(files)
    for name in names:
        a, b = (hashlib.sha256((tmp_path / mood / name).read_bytes()).digest() for mood in ("control", "eager"))
        assert a == b, f"{name} differs"


def sources():
    return [os.path.relpath(os.path.join(d, f), ROOT) for d, _, files in os.walk(os.path.join(ROOT, "src"))
            for f in sorted(files) if f.endswith(".c") and "_aarch64" not in f]


def test_gcc(tmp_path):
    """The compiler makes of this project's sources the same objects."""
    files = sorted(sources(), key=lambda f: -os.path.getsize(os.path.join(ROOT, f)))
    compile_all(files[:5], tmp_path)


@pytest.mark.long
@pytest.mark.limit(1200)
def test_gcc_long(tmp_path):
    compile_all(sources(), tmp_path)


# node

NODE = r"""
const crypto = require('crypto'), zlib = require('zlib');
let seed = 1; const r = n => (seed = (seed * 48271) % 2147483647) % n;
const bufs = [], h = crypto.createHash('sha256');
for (let i = 0; i < 60000; i++) {
  const b = Buffer.alloc(1 + r(i % 50 ? 500 : 50000), i & 255);
  bufs[r(9000)] = b;
  if (i % 2000 === 0) { const z = zlib.gunzipSync(zlib.gzipSync(b)); if (Buffer.compare(z, b)) throw new Error('zlib'); }
}
for (const b of bufs) if (b) h.update(b);
const m = new Map(); for (let i = 0; i < 200000; i++) m.set('k' + r(50000), { i, s: 'x'.repeat(r(40)) });
h.update(JSON.stringify([...m].sort((a, b) => a[0] < b[0] ? -1 : 1)));
crypto.pbkdf2('a', 'b', 2000, 32, 'sha256', (e, k) => { h.update(k); console.log(m.size, h.digest('hex')); });
"""


def test_node():
    same([need("node"), "-e", NODE], folds=False)


# redis

class Redis:
    """A server on 127.0.0.1 with a port of its own."""

    def __init__(self, tmp_path, mood, **env):
        need("redis-server")
        # Of its own: a server begins with the file that another one saved there.
        folder = tmp_path / mood
        folder.mkdir(parents=True)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.err = open(tmp_path / f"{mood}.err", "w+")
        self.proc = subprocess.Popen(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                                      "--enable-debug-command", "yes", "--dir", str(folder), "--hz", "100"],
                                     env=environment(mood, **env), stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, stderr=self.err)
        wait_until(self.connect, 20, "redis listens")

    def connect(self):
        try:
            self.stream = socket.create_connection(("127.0.0.1", self.port), timeout=60).makefile("rwb")
            return True
        except OSError:
            return False

    def send(self, *words):
        words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        self.stream.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))

    def reply(self):
        line = self.stream.readline()
        assert line, "redis closed the connection"
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self.stream.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        assert kind != b"-", line
        return rest

    def call(self, *words):
        self.send(*words)
        self.stream.flush()
        return self.reply()

    def many(self, commands):
        batch = 0
        for c in commands:
            self.send(*c)
            batch += 1
            if batch == 500:
                self.stream.flush()
                [self.reply() for _ in range(batch)]
                batch = 0
        self.stream.flush()
        [self.reply() for _ in range(batch)]

    def stop(self):
        self.proc.send_signal(signal.SIGTERM)
        try:
            self.proc.wait(20)
        finally:
            self.proc.kill()
            self.proc.wait()
            self.err.seek(0)
            self.text = self.err.read()
            self.err.close()


def redis_commands(rng, keys):
    for i in range(keys):
        yield "SET", f"k{i}", f"{i}:" + "v" * rng.randrange(400)
    for i in range(keys):
        if rng.randrange(4):
            yield "DEL", f"k{i}"
    for i in range(keys):
        yield "HSET", f"h{rng.randrange(keys // 20)}", f"f{rng.randrange(40)}", "w" * rng.randrange(150)
        yield "ZADD", f"z{i % 50}", rng.randrange(10**6), f"m{rng.randrange(3000)}"
        if i % 3 == 0:
            yield "LPUSH", f"l{i % 200}", "x" * rng.randrange(300)
        if i % 5 == 0:
            yield "RPOP", f"l{rng.randrange(200)}"
            yield "APPEND", f"k{rng.randrange(keys)}", "more"


def redis(tmp_path, keys, requests):
    need("redis-benchmark")
    digest = {}
    for mood, env in (("control", {}), ("eager", EAGER)):
        r = Redis(tmp_path, mood, **env)
        try:
            rng = random.Random(9)
            r.many(redis_commands(rng, keys))
            digest[mood] = [r.call("DEBUG", "DIGEST")]
            # A save forks; the server writes on meanwhile.
            r.call("BGSAVE")
            r.many(redis_commands(rng, keys // 4))
            wait_until(lambda: b"rdb_bgsave_in_progress:0" in r.call("INFO", "persistence"), 60, "the save ends")
            assert b"rdb_last_bgsave_status:ok" in r.call("INFO", "persistence")
            bench = subprocess.run(["redis-benchmark", "-p", str(r.port), "-n", str(requests), "-r", "20000", "-d", "300", "-P", "16", "-q", "-t",
                                    "lpush,rpush,lpop,sadd,hset,incr,mset"], capture_output=True, text=True, timeout=100)
            assert bench.returncode == 0 and "rror" not in bench.stdout + bench.stderr, bench
            r.call("MEMORY", "PURGE")
            # redis-benchmark's keys are random: they go, and what is left is what was there.
            for key in (b"mylist", b"myset", b"myhash", *r.call("KEYS", "key:*"), *r.call("KEYS", "counter:*")):
                r.call("DEL", key)
            digest[mood].append(r.call("DEBUG", "DIGEST"))
            # And what the saved file holds.
            r.call("DEBUG", "RELOAD")
            digest[mood].append(r.call("DEBUG", "DIGEST"))
        finally:
            r.stop()
        if mood == "eager":
            assert folds_in(r.text) > 100, r.text
    assert digest["eager"] == digest["control"]
    assert digest["control"][1] == digest["control"][2]


def test_redis(tmp_path):
    redis(tmp_path, 30000, 10000)


@pytest.mark.long
@pytest.mark.limit(900)
def test_redis_long(tmp_path):
    redis(tmp_path, 600000, 300000)


# This project

def unit_tests(names):
    folder = os.path.join(harness.BUILD, "tests/unit")
    tests = [t for t in (os.path.join(folder, f) for f in sorted(os.listdir(folder)) if re.fullmatch(names, f)) if os.path.isfile(t)]
    if not tests:
        pytest.skip("no unit test was built")
    env = {k: v for k, v in EAGER.items() if k != "FIRN_MALLOC_STATS"}
    for t in tests:
        before = run([t], "control", cwd=ROOT, timeout=300)
        if before.code != 0:
            continue        # for the unit tests' own run to tell
        after = run([t], "eager", cwd=ROOT, timeout=300, **env)
        assert after.code == 0, after


def test_our_unit_tests():
    """The unit tests pass under the allocator: those of the allocator's own parts bring their own."""
    unit_tests("test_(codec|client|link|proto|ring|args)")


@pytest.mark.long
@pytest.mark.limit(1200)
def test_our_unit_tests_long():
    unit_tests("test_(?!malloc)[a-z_]+")


def test_our_programs():
    """The command and the agent are under it, too."""
    firn = os.path.join(harness.BUILD, "firn")
    for args in (["--help"], ["--version"], ["list", "--help"]):
        before, after = (run([firn, *args], mood) for mood in ("control", "plain"))
        assert (before.code, before.out, before.err) == (after.code, after.out, after.err)
    assert os.path.exists(LIBRARY)
