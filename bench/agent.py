# SPDX-License-Identifier: MIT
"""An agent of the benchmark's own, with directories of its own, used by the command line alone."""
import json
import os
import signal
import socket
import subprocess
import time

import host
from host import Trouble

REPLY_SECONDS = 180


class Agent:
    def __init__(self, build, runtime, state, *options):
        self.firn, self.runtime, self.store = build / "firn", runtime, state / "store"
        self.environment = {**os.environ, "FIRN_RUNTIME_DIR": str(runtime), "FIRN_STATE_DIR": str(state),
                            "FIRN_SCOPE": f"tree:{os.getpid()}"}
        done = subprocess.run([str(build / "firnd"), "--idle-exit", "900", *options], env=self.environment,
                              capture_output=True, text=True, check=False, timeout=30)
        if done.returncode != 0:
            self.close()
            raise Trouble(f"firnd does not start: {done.stderr.strip()}")
        self.idle_bytes = 0

    def start(self, *words):
        return subprocess.Popen([str(self.firn), *(str(w) for w in words), "--json"], env=self.environment,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True)

    def change(self, verb, pids, *options):
        """Start a verb on children of ours, and on nobody else."""
        for pid in pids:
            if host.parent(pid) != os.getpid():
                raise Trouble(f"process {pid} is not the benchmark's child")
        return self.start(verb, *options, *pids)

    def result(self, verb, process):
        """The targets of a firn command that was started."""
        try:
            out, err = process.communicate(timeout=REPLY_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Trouble(f"firn {verb} does not end") from None
        if process.returncode != 0:
            raise Trouble(f"firn {verb}: {err.strip() or process.returncode}")
        return json.loads(out)["targets"]

    def run(self, verb, pids, *options):
        with self.change(verb, pids, *options) as process:
            return self.result(verb, process)

    def held(self, pids):
        """Those of @pids that are frozen or evicted."""
        with self.start("list") as process:
            out, _ = process.communicate(timeout=REPLY_SECONDS)
        targets = json.loads(out or '{"targets":[]}')["targets"]
        return [t["pid"] for t in targets if t["pid"] in pids and t["state"] != "resident"]

    def shared_bytes(self):
        return sum(f.stat().st_blocks * 512 for f in self.runtime.rglob("*") if f.is_file())

    def forget_kept(self):
        """The next eviction is a first one: packs that are kept of earlier ones are deleted, which the agent notices."""
        for record in (self.runtime / "private").glob("*.base"):
            (self.store / (record.stem.split("-")[2] + ".pack")).unlink(missing_ok=True)

    def begin(self):
        """What it holds from here on is the next target's."""
        self.forget_kept()
        self.idle_bytes = self.shared_bytes()
        self.forget_peak()

    def link_bytes(self):
        """What the runtime directory (tmpfs) holds more than at begin()."""
        return self.shared_bytes() - self.idle_bytes

    def pids(self):
        return host.agent_pids(self.runtime)

    def status(self):
        return f"/proc/{self.pids()[0][0]}/status"

    def resident(self):
        """Resident bytes now."""
        return host.kib_of(self.status(), "VmRSS")[0]

    def forget_peak(self):
        host.write(self.status().replace("status", "clear_refs"), "5")

    def peak(self):
        """The most resident bytes since forget_peak()."""
        return host.kib_of(self.status(), "VmHWM")[0]

    def log(self):
        try:
            return (self.runtime / "agent.log").read_text(errors="replace").splitlines()[-6:]
        except OSError:
            return []

    def close(self):
        """Asked to end, then made sure, by pid and start time."""
        processes = self.pids()
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(20)
                s.connect(str(self.runtime / "firn.sock"))
                s.sendall(b'{"method":"org.firn.Agent.Stop"}\0')
                s.recv(4096)
        except OSError:
            pass
        deadline = time.monotonic() + 5
        for pid, started in processes:
            while host.start_time(pid) == started and time.monotonic() < deadline:
                time.sleep(0.02)
            if host.start_time(pid) == started:
                os.kill(pid, signal.SIGKILL)
