# SPDX-License-Identifier: MIT
"""Bad input and bad surroundings: one line on stderr, the documented exit code, the target untouched."""
import os
import random
import shutil
import signal
import socket
import subprocess
import time

import pytest

import harness
from harness import (DONE, FAILED, KERNEL, LOST, NO_AGENT, NO_TARGET, NOBODY, NOT_PERMITTED, REFUSED, STORE, USAGE,
                     assert_no_trace, assert_same, settle, snapshot, state_of, wait_until)


def refused(result, *codes):
    assert result.code in codes, f"want exit {codes}: {result}"
    assert result.out == "", f"output beside an error: {result}"
    return result.one_line_error()


@pytest.fixture
def still(firn, victims):
    """A small victim and its snapshot; afterwards it must be the same."""
    v = victims("heap", "--mib", 16)
    settle(v.pid)
    v.snap = snapshot(v.pid)
    v.anon = harness.anon_kib(v.pid)
    return v


def untouched(firn, v, brought_back=False):
    """@brought_back: a part may have been dropped and have come back; pages of zeros hold no memory then."""
    assert_same(v.snap, v.pid)
    assert brought_back or harness.anon_kib(v.pid) >= v.anon, "some of its memory went"
    v.cmd("verify")
    if firn.agent:
        assert_no_trace(firn, v.pid)


# Targets

@pytest.mark.parametrize("verb", ["freeze", "evict", "thaw"])
def test_no_such_process(firn, verb):
    pid = int(harness.read("/proc/sys/kernel/pid_max")) - 1
    while os.path.exists(f"/proc/{pid}"):
        pid -= 1
    refused(firn.run(verb, pid), NO_TARGET)


@pytest.mark.parametrize("text", ["0", "-1", "abc", "12x", "99999999999999999999", "", "1.5", "0x10"])
def test_not_a_pid(firn, text):
    refused(firn.run("freeze", text), USAGE, NO_TARGET)


@pytest.mark.parametrize("args", [[], ["freeze"], ["melt", "1"], ["freeze", "--nonsense", "1"], ["thaw"],
                                  ["freeze", "--tree"], ["show"]])
def test_usage(firn, args):
    result = firn.run(*args)
    assert result.code == USAGE, result
    assert result.err, result


def test_a_later_verb(firn):
    result = firn.run("peek", 1)
    assert result.code == USAGE and "later version" in result.err, result


@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_init(firn, verb):
    refused(firn.run(verb, 1), REFUSED)


def test_a_kernel_thread(firn):
    for name in os.listdir("/proc"):
        if name.isdigit() and harness.stat_fields(name) and int(harness.stat_fields(name)[6]) & 0x200000:
            break
    else:
        pytest.skip("no kernel thread is visible here")
    refused(firn.run("freeze", name), REFUSED)


@pytest.mark.parametrize("who", ["agent", "keeper"])
@pytest.mark.parametrize("verb", ["freeze", "evict"])
def test_the_agent_itself(firn, victims, who, verb):
    firn.start()
    refused(firn.run(verb, getattr(firn, who).pid), REFUSED)
    v = victims("heap", "--mib", 4)
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    v.cmd("verify")


def test_firn_itself_and_its_ancestors(firn):
    firn.start()
    # The shell that waits for the command, and the test runner above it.
    for script in ('"$0" freeze $$; exit $?', '"$0" freeze ' + str(os.getpid()) + '; exit $?', 'exec "$0" freeze $$'):
        result = firn._call(["sh", "-c", script, harness.FIRN], 30)
        refused(result, REFUSED)


def test_a_zombie(firn):
    child = subprocess.Popen(["true"])
    wait_until(lambda: state_of(child.pid) == "Z", 10, "a zombie")
    refused(firn.run("freeze", child.pid), REFUSED, NO_TARGET)
    child.wait()


def test_a_thread_is_not_a_process(firn, victims):
    v = victims("signals")
    tid = int(v.cmd("tid"))
    refused(firn.run("freeze", tid), NO_TARGET, REFUSED)
    v.cmd("verify")


def test_another_users_process(firn, still):
    firn.start()
    refused(firn.run("freeze", still.pid, user=NOBODY), NOT_PERMITTED)
    refused(firn.run("evict", still.pid, user=NOBODY), NOT_PERMITTED)
    untouched(firn, still)
    # Nor may they end, see or stop what another has frozen.
    firn.freeze(still.pid)
    refused(firn.run("thaw", still.pid, user=NOBODY), NOT_PERMITTED, NO_TARGET)
    assert state_of(still.pid) == "T"
    firn.run("thaw", "--all", user=NOBODY)
    assert state_of(still.pid) == "T", "a user thawed another's process"
    firn.thaw(still.pid)
    still.cmd("verify")


def test_a_users_own_process(firn, victims):
    v = victims("heap", "--mib", 16, user=NOBODY)
    firn.start()
    firn.freeze(v.pid, user=NOBODY)
    assert state_of(v.pid) == "T"
    firn.thaw(v.pid, user=NOBODY)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_a_users_undumpable_process(firn, victims):
    """setuid left it undumpable: its own user could not ptrace it either."""
    v = victims("heap", "--mib", 16, "--nobody")
    firn.start()
    refused(firn.run("freeze", v.pid, user=NOBODY), NOT_PERMITTED)
    v.cmd("verify")


@pytest.mark.parametrize("first, second", [("freeze", "freeze"), ("freeze", "evict"), ("evict", "evict"),
                                           ("evict", "freeze")])
def test_twice(firn, victims, first, second):
    """Frozen or evicted already: refused or nothing to do, and a thaw brings it back."""
    v = victims("heap", "--mib", 16)
    getattr(firn, first)(v.pid)
    result = firn.run(second, v.pid)
    assert result.code in (DONE, REFUSED), result
    if result.code:
        result.one_line_error()
    firn.thaw(v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_thaw_what_is_not_frozen(firn, still):
    firn.start()
    result = firn.run("thaw", still.pid)
    refused(result, NO_TARGET, REFUSED)
    untouched(firn, still)


def test_traced(firn, victims, still):
    tracer = victims("tracer", still.pid)
    before = harness.status_of(still.pid)["TracerPid"]
    assert before == str(tracer.pid)
    refused(firn.run("freeze", still.pid), REFUSED)
    assert harness.status_of(still.pid)["TracerPid"] == before
    tracer.stop()
    untouched(firn, still)


@pytest.mark.parametrize("kind", ["--no-sigreturn", "--strict"])
def test_a_filter_that_would_kill(firn, victims, kind):
    """If the tracer died during an injected call, the target would too: refused, and untouched."""
    v = victims("seccomp", kind)
    settle(v.pid)
    before = snapshot(v.pid, calls=False)
    for verb in ("freeze", "evict"):
        refused(firn.run(verb, v.pid), REFUSED)
    assert_same(before, v.pid, calls=False)
    v.cmd("verify")


def test_a_vfork_in_progress(firn, victims):
    """The parent sleeps in the kernel until its child is done: refused, or done, never stuck."""
    parent = subprocess.Popen(["/usr/bin/python3", "-c", "import os, ctypes\n"
                               "c = ctypes.CDLL(None)\n"
                               "import _posixsubprocess\n"
                               "import subprocess\n"
                               "subprocess.run(['sleep', '2'])\n"
                               "print('done')"], stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.3)
        result = firn.run("freeze", parent.pid)
        assert result.code in (DONE, REFUSED, FAILED), result
        if result.code == DONE:
            firn.thaw(parent.pid)
        assert parent.communicate(timeout=20)[0] == "done\n"
    finally:
        parent.kill()
        parent.wait()


# The store

@pytest.fixture
def small_store(firn):
    """mount(mib): the state directory on a small ext4 of its own, unmounted at the end."""
    mounted = []

    def mount(mib):
        if not shutil.which("mkfs.ext4"):
            pytest.skip("no mkfs.ext4")
        image = os.path.join(firn.runtime, "image")
        with open(image, "wb") as f:
            f.truncate(mib << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image], check=True)
        place = os.path.join(firn.runtime, "mnt")
        os.mkdir(place)
        # -o loop: the loop device goes with the mount.
        done = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no loop mount here: {done.stderr.strip()}")
        mounted.append(place)
        firn.env["FIRN_STATE_DIR"] = place
        firn.store = os.path.join(place, "store")
        return place

    yield mount
    for process in list(firn.agents.values()):
        process.kill()
        process.wait_dead()
    for place in mounted:
        if subprocess.run(["umount", place]).returncode:
            subprocess.run(["umount", "-l", place])


@pytest.mark.parametrize("kind", ["copied", "direct"])
def test_store_full(firn, still, small_store, kind):
    small_store(6)
    before = os.statvfs(firn.env["FIRN_STATE_DIR"]).f_bavail
    line = refused(firn.run("freeze", f"--kind={kind}", still.pid), STORE)
    assert "space" in line.lower() or "full" in line.lower(), line
    untouched(firn, still, brought_back=True)
    assert firn.packs() == []
    after = os.statvfs(firn.env["FIRN_STATE_DIR"]).f_bavail
    assert before - after < 40, "the space did not come back"


@pytest.mark.parametrize("kind,mib", [("copied", 200), ("direct", 400)])
def test_store_full_at_the_second_slice(firn, victims, small_store, kind, mib):
    """The first 256 MiB fit, the rest does not: still whole."""
    small_store(mib)
    v = victims("heap", "--mib", 600)
    settle(v.pid)
    snap = snapshot(v.pid, calls=False)
    result = firn.run("freeze", f"--kind={kind}", v.pid)
    assert result.code == STORE, result
    result.one_line_error()
    v.cmd("verify")
    firn.thaw_all()
    assert_same(snap, v.pid, calls=False)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_store_on_tmpfs(firn, still):
    firn.env["FIRN_STATE_DIR"] = os.path.join(firn.runtime, "state")
    os.mkdir(firn.env["FIRN_STATE_DIR"])
    refused(firn.run("freeze", still.pid), STORE)
    untouched(firn, still)


def test_store_cannot_be_made(firn, still):
    """The state directory's place is a file."""
    place = os.path.join(firn.state, "file")
    open(place, "w").close()
    firn.env["FIRN_STATE_DIR"] = place
    refused(firn.run("freeze", still.pid), STORE)
    untouched(firn, still)


def test_store_read_only(firn, still):
    """Not writable even for root: mounted read-only, in a mount namespace of the agent's own."""
    os.mkdir(firn.store)
    result = firn.start(check=False, prefix=["unshare", "-m", "sh", "-c", 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && '
                         'shift && exec "$@"', "sh", firn.state], FIRN_LOG=os.path.join(firn.runtime, "log"))
    if result.code == 0:
        result = firn.run("freeze", still.pid)
    refused(result, STORE)
    untouched(firn, still)


def test_store_disappears(firn, still):
    """Removed under a running agent."""
    firn.start()
    shutil.rmtree(firn.store)
    result = firn.run("freeze", still.pid)
    if result.code == 0:
        firn.thaw(still.pid)
    else:
        refused(result, STORE)
    still.cmd("verify")
    wait_until(lambda: state_of(still.pid) == "S", 10, "it waits for the next command")


# The surroundings

def test_no_userfaultfd_device(firn, victims):
    """/dev/userfaultfd hidden from the agent, in a mount namespace of its own."""
    v = victims("heap", "--mib", 16, user=NOBODY)
    settle(v.pid)
    snap = snapshot(v.pid)
    result = firn.start(check=False, prefix=["unshare", "-m", "sh", "-c", 'mount --bind /dev/null /dev/userfaultfd && '
                                             'exec "$@"', "sh"])
    if result.code == 0:
        result = firn.run("freeze", v.pid)
    refused(result, KERNEL)
    assert_same(snap, v.pid)
    v.cmd("verify")


def test_not_root_and_no_agent(firn, victims):
    v = victims("heap", "--mib", 4, user=NOBODY)
    for verb in ("freeze", "evict", "thaw"):
        line = refused(firn.run(verb, v.pid, user=NOBODY), NO_AGENT)
        assert line.startswith("firn: no agent runs: start one as root with: sudo ") and line.endswith("firnd"), line
    assert firn.agent is None
    v.cmd("verify")


def test_list_and_show_without_an_agent(firn, still):
    result = firn.ok("list")
    assert result.out.startswith("nothing found"), result
    assert firn.ok("list", "--json").targets == []
    refused(firn.run("show", still.pid), NO_AGENT)
    assert firn.agent is None, "a look starts no agent"


def test_a_socket_that_is_not_ours(firn, still):
    """Somebody listens on the socket and talks nonsense."""
    path = os.path.join(firn.runtime, "firn.sock")
    import threading
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    os.chmod(path, 0o666)
    server.listen(5)

    def serve():
        try:
            while True:
                c, _ = server.accept()
                c.recv(4096)
                c.sendall(b"220 mail.example.org ESMTP\r\n\0")
                c.close()
        except OSError:
            pass
    threading.Thread(target=serve, daemon=True).start()
    try:
        refused(firn.run("show", still.pid), NO_AGENT, FAILED)
        result = firn.run("freeze", still.pid, user=NOBODY)
        refused(result, NO_AGENT, FAILED)
    finally:
        server.close()
    untouched(firn, still)


@pytest.mark.parametrize("what", ["file", "directory", "stale"])
def test_the_socket_is_something_else(firn, still, what):
    """A file, a directory, or the socket of an agent long dead, in the socket's place."""
    path = os.path.join(firn.runtime, "firn.sock")
    if what == "file":
        open(path, "w").close()
    elif what == "directory":
        os.mkdir(path)
    else:
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.close()
    result = firn.run("freeze", still.pid, "--json")
    if result.code == 0:
        firn.thaw(still.pid)
    else:
        result = firn.run("freeze", still.pid)
        refused(result, NO_AGENT, FAILED)
    assert what != "stale" or result.code == 0, result
    assert_same(still.snap, still.pid)
    still.cmd("verify")


def test_agent_pid_file_is_nonsense(firn, still):
    for text in ("", "nonsense\n", "1 1\n", "99999999 5\n", f"{os.getpid()} 1\n"):
        with open(os.path.join(firn.runtime, "agent.pid"), "w") as f:
            f.write(text)
        firn.freeze(still.pid)
        firn.thaw(still.pid)
        agent, keeper = firn.agent, firn.keeper
        agent.kill()
        agent.wait_dead()
        keeper.kill()
        keeper.wait_dead()
    still.cmd("verify")


def test_two_agents(firn, still):
    """The second finds the first and leaves it alone; so do ten at once."""
    firn.start()
    first = firn.agent.pid
    result = firn.start(check=False)
    assert result.code == 0, result
    assert firn.agent.pid == first
    firn.kill_agent()
    procs = [subprocess.Popen([harness.FIRND], env=firn.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE) for _ in range(10)]
    for p in procs:
        err = p.communicate(timeout=30)[1]
        assert p.returncode == 0, err
    pids = []
    for name in os.listdir("/proc"):
        if name.isdigit() and (harness.stat_fields(name) or ["Z"])[0] != "Z":
            try:
                if os.readlink(f"/proc/{name}/exe") == harness.FIRND and \
                        f"FIRN_RUNTIME_DIR={firn.runtime}".encode() in harness.read(f"/proc/{name}/environ", "rb"):
                    pids.append(int(name))
            except OSError:
                pass
    allowed = {firn.agent.pid, firn.keeper.pid} | {p.pid for p in firn.agents.values()}
    assert set(pids) <= allowed, f"agents beside the one: {set(pids) - allowed}"
    firn.freeze(still.pid)
    firn.thaw(still.pid)
    still.cmd("verify")


def test_runtime_directory_of_somebody_else(firn, still):
    """Owned by nobody: a private place it is not."""
    os.chown(firn.runtime, NOBODY, NOBODY)
    result = firn.run("freeze", still.pid)
    os.chown(firn.runtime, 0, 0)
    assert result.code in (DONE, FAILED, NO_AGENT, STORE, NOT_PERMITTED), result
    firn.run("thaw", "--all")
    still.cmd("verify")


# Damage

def flip(path, offset, count=1):
    with open(path, "r+b") as f:
        f.seek(offset)
        data = bytearray(f.read(count))
        for i in range(len(data)):
            data[i] ^= 0x40
        f.seek(offset)
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def waits_for_what_is_lost(firn, v):
    """The way of a kernel that cannot poison: whoever touches a lost page waits, and is never given other bytes."""
    v.send("verify-bus")
    wait_until(lambda: firn.show(v.pid)["pages"]["lost"] > 0, 60, "a lost page is touched")
    assert v.silent(0.5), "it went on with what is not its own"
    result = firn.run("thaw", v.pid)
    assert result.code == LOST and "cannot poison" in result.one_line_error(), result
    assert v.silent(0.5), "the thaw let it go on with what is not its own"
    assert len(firn.packs()) == 1, "the pack is kept"
    # It can be killed.
    v.stop()
    wait_until(lambda: firn.list() == [] and firn.packs() == [], 10, "target and pack go")


@pytest.mark.parametrize("cipher", ["aes-256-ocb", "aes-256-gcm", "off"])
def test_damaged_blocks_touched(firn, victims, cipher):
    """Flipped bits: affected pages give SIGBUS, all others are right, none is zero by mistake."""
    v = victims("heap", "--mib", 64)
    firn.start(FIRN_ENCRYPTION=cipher)
    target = firn.evict(v.pid)
    path = firn.packs()[0]
    size = target["pack"]["bytes"]
    rng = random.Random(5)
    for _ in range(12):
        flip(path, rng.randrange(8192, size * 3 // 4))
    if not firn.poisons():
        waits_for_what_is_lost(firn, v)
        return
    words = v.cmd("verify-bus").split()
    pages, bus = int(words[0]), int(words[2])
    assert 0 < bus < pages // 4, f"{bus} of {pages} pages give SIGBUS"
    shown = firn.show(v.pid)
    assert shown["pages"]["lost"] > 0, shown
    result = firn.run("thaw", v.pid)
    assert result.code == LOST, result
    assert state_of(v.pid) == "S"
    words = v.cmd("verify-bus").split()
    assert int(words[2]) == bus, "other pages are lost now"


def test_damaged_blocks_thawed(firn, victims):
    """Found by the thaw itself: exit 9, and what is good comes back."""
    v = victims("heap", "--mib", 64)
    target = firn.freeze(v.pid)
    size = target["pack"]["bytes"]
    for i in range(8):
        flip(firn.packs()[0], 16384 + i * size // 12, 3)
    result = firn.run("thaw", v.pid)
    assert result.code == LOST, result
    result.one_line_error()
    wait_until(lambda: state_of(v.pid) == "S", 5, "it runs")
    if not firn.poisons():
        waits_for_what_is_lost(firn, v)
        return
    words = v.cmd("verify-bus").split()
    assert 0 < int(words[2]) < int(words[0]) // 4


def test_damaged_index_does_not_matter_to_a_living_agent(firn, victims):
    v = victims("heap", "--mib", 32)
    firn.freeze(v.pid)
    path = firn.packs()[0]
    flip(path, os.path.getsize(path) - 4096 + 8, 16)
    firn.thaw(v.pid)
    v.cmd("verify")


@pytest.mark.parametrize("what", ["header", "footer", "index"])
def test_damage_found_by_the_next_agent(firn, victims, what):
    """The agent died, the pack's own description is damaged: no page is wrong or zero."""
    v = victims("heap", "--mib", 32)
    firn.evict(v.pid)
    firn.kill_agent()
    path = firn.packs()[0]
    size = os.path.getsize(path)
    flip(path, {"header": 8, "footer": size - 4096 + 8, "index": size - 8192}[what], 8)
    result = firn.run("thaw", "--all")
    assert result.code in (DONE, LOST, STORE), result
    if result.code == LOST and not firn.poisons():
        waits_for_what_is_lost(firn, v)
        return
    words = v.cmd("verify-bus", timeout=30).split()
    assert result.code != DONE or int(words[2]) == 0


def test_pack_truncated(firn, victims):
    v = victims("heap", "--mib", 64)
    firn.evict(v.pid)
    path = firn.packs()[0]
    os.truncate(path, os.path.getsize(path) // 2 // 4096 * 4096)
    if not firn.poisons():
        waits_for_what_is_lost(firn, v)
        return
    # What is lost may be its own stack or its library's data: then SIGBUS ends it.  Wrong pages do not.
    v.send("verify-bus")
    try:
        line = v.line(60)
    except AssertionError:
        assert v.proc.wait(20) == -signal.SIGBUS, v.errors()
        return
    assert line.startswith("ok") and int(line.split()[3]) > 0, line
    result = firn.run("thaw", v.pid)
    assert result.code == LOST, result


def test_pack_deleted(firn, victims):
    """Deleted under a living agent: its descriptor still holds it."""
    v = victims("heap", "--mib", 32)
    firn.freeze(v.pid)
    os.unlink(firn.packs()[0])
    result = firn.run("thaw", v.pid)
    assert result.code in (DONE, LOST), result
    if result.code == LOST and not firn.poisons():
        waits_for_what_is_lost(firn, v)
        return
    words = v.cmd("verify-bus").split()
    assert result.code != DONE or int(words[2]) == 0


def test_foreign_files_in_the_store(firn, victims):
    """Nonsense packs in the store do not keep an agent from starting, nor others from coming back."""
    v = victims("heap", "--mib", 16)
    firn.evict(v.pid)
    firn.kill_agent()
    for name, data in (("00000000000000aa.pack", b""), ("00000000000000ab.pack", b"\xff" * 5000),
                       ("00000000000000ac.pack", os.urandom(70000)), ("README", b"hello\n"), ("zz.pack", b"x")):
        with open(os.path.join(firn.store, name), "wb") as f:
            f.write(data)
    os.mkdir(os.path.join(firn.store, "00000000000000ad.pack"))
    firn.thaw_all()
    v.cmd("verify")
    assert not harness.uffd_mappings(v.pid)


def test_nonsense_in_the_private_directory(firn, victims):
    v = victims("heap", "--mib", 16)
    firn.start()
    firn.kill_agent()
    private = os.path.join(firn.runtime, "private")
    for name in os.listdir(private):
        path = os.path.join(private, name)
        if os.path.isfile(path):
            size = os.path.getsize(path)
            with open(path, "r+b") as f:
                f.write(os.urandom(min(size, 8192)))
    for name in ("x", "12345", "12345-99.link"):
        with open(os.path.join(private, name), "wb") as f:
            f.write(b"\xff" * 100)
    firn.freeze(v.pid)
    firn.thaw(v.pid)
    v.cmd("verify")


def test_limits_of_the_target(firn, victims):
    """RLIMIT_NOFILE, RLIMIT_FSIZE and RLIMIT_AS at what it uses: refused, or done unseen."""
    v = victims("identity")
    settle(v.pid)
    import resource
    fds = max(harness.descriptors(v.pid)) + 1
    resource.prlimit(v.pid, resource.RLIMIT_NOFILE, (fds, fds))
    resource.prlimit(v.pid, resource.RLIMIT_FSIZE, (0, 0))
    vm = int(harness.status_of(v.pid)["VmSize"].split()[0]) * 1024
    resource.prlimit(v.pid, resource.RLIMIT_AS, (vm, vm))
    snap = snapshot(v.pid)
    for verb in ("freeze", "evict"):
        result = firn.run(verb, v.pid)
        assert result.code in (DONE, REFUSED), result
        if result.code == DONE:
            firn.thaw(v.pid)
        assert_same(snap, v.pid)
    v.cmd("verify")
    assert_no_trace(firn, v.pid)


def test_its_own_userfaultfd(firn, victims):
    """A target that uses userfaultfd itself: refused, or those ranges left alone."""
    code = ("import ctypes, os, sys, mmap, struct, fcntl\n"
            "fd = ctypes.CDLL(None).syscall(323 if os.uname().machine == 'x86_64' else 282, os.O_CLOEXEC)\n"
            "api = bytearray(struct.pack('QQQ', 0xaa, 0, 0))\n"
            "fcntl.ioctl(fd, 0xc018aa3f, api)\n"
            "m = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
            "a = ctypes.addressof(ctypes.c_char.from_buffer(m))\n"
            "r = bytearray(struct.pack('QQQQ', a, 1 << 20, 1, 0))\n"
            "fcntl.ioctl(fd, 0xc020aa00, r)\n"
            "z = bytearray(struct.pack('QQQQ', a, 1 << 20, 0, 0))\n"
            "print('ready', flush=True)\n"
            "sys.stdin.readline()\n"
            "fcntl.ioctl(fd, 0xc020aa04, z)\n"
            "assert m[:] == bytes(1 << 20)\n"
            "print('ok', flush=True)\n"
            "sys.stdin.readline()\n")
    v = victims("python3", argv=["/usr/bin/python3", "-c", code])
    fds = harness.descriptors(v.pid)
    result = firn.run("freeze", v.pid)
    assert result.code in (DONE, REFUSED), result
    if result.code == DONE:
        firn.thaw(v.pid)
    assert harness.descriptors(v.pid) == fds
    v.cmd("go")


def test_userfaultfd_of_another_process(firn, victims):
    """Its memory is watched by a userfaultfd that only its child still holds: nothing but VmFlags tells."""
    code = ("import ctypes, os, signal, sys, mmap, struct, fcntl\n"
            "libc = ctypes.CDLL(None)\n"
            "fd = libc.syscall(323 if os.uname().machine == 'x86_64' else 282, os.O_CLOEXEC)\n"
            "fcntl.ioctl(fd, 0xc018aa3f, bytearray(struct.pack('QQQ', 0xaa, 0, 0)))\n"
            "m = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
            "m[:] = bytes([7]) * (1 << 20)\n"
            "a = ctypes.addressof(ctypes.c_char.from_buffer(m))\n"
            "fcntl.ioctl(fd, 0xc020aa00, bytearray(struct.pack('QQQQ', a, 1 << 20, 1, 0)))\n"
            "if not os.fork():\n"
            "    libc.prctl(1, signal.SIGKILL)\n"
            "    while True: signal.pause()\n"
            "os.close(fd)\n"
            "print('ready', flush=True)\n"
            "sys.stdin.readline()\n"
            "assert m[:] == bytes([7]) * (1 << 20)\n"
            "print('ok', flush=True)\n"
            "sys.stdin.readline()\n")
    v = victims("python3", argv=["/usr/bin/python3", "-c", code])
    assert harness.uffd_mappings(v.pid)
    before, fds = harness.anon_kib(v.pid), harness.descriptors(v.pid)
    for verb in ("freeze", "evict"):
        assert "userfaultfd" in refused(firn.run(verb, v.pid), REFUSED)
        assert state_of(v.pid) != "T"
    assert harness.descriptors(v.pid) == fds
    assert harness.anon_kib(v.pid) >= before
    v.cmd("go")
