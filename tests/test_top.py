# SPDX-License-Identifier: MIT
"""firn top on a real terminal: tmux's."""
import os
import subprocess
import time

import pytest

from harness import FIRN, USAGE, read, wait_until


class Screen:
    def __init__(self, firn, columns, lines):
        self.tmux = ["tmux", "-L", f"firn-test-{os.getpid()}", "-f", "/dev/null"]
        self.env = {k: v for k, v in firn.env.items() if k != "TMUX"}
        self.env["TERM"] = "screen-256color"
        subprocess.run([*self.tmux, "new-session", "-d", "-x", str(columns), "-y", str(lines), f"{FIRN} top; echo ended $?; cat"],
                       env=self.env, check=True)

    def run(self, *args):
        return subprocess.run([*self.tmux, *args], env=self.env, check=True, capture_output=True, text=True).stdout

    def text(self):
        return self.run("capture-pane", "-p")

    def keys(self, *keys):
        self.run("send-keys", *keys)

    def shows(self, what, seconds=20):
        wait_until(lambda: what in self.text(), seconds, f"{what!r} on the screen:\n{self.text()}")

    def close(self):
        subprocess.run([*self.tmux, "kill-server"], env=self.env, capture_output=True)


@pytest.fixture
def screen(firn_only, victims):
    made = []

    def make(columns, lines):
        made.append(Screen(firn_only, columns, lines))
        return made[-1]
    yield make
    for s in made:
        s.close()


def row(screen, pid):
    return next((line for line in screen.text().splitlines() if line.split()[:1] == [str(pid)]), "")


def test_top(firn, screen, victims):
    """80 columns: what is chosen is frozen and thawed by a key, its priority changed; a resize; the end."""
    victim = victims("heap")
    firn.env["FIRN_SCOPE"] = f"tree:{victim.pid}"
    s = screen(80, 16)
    s.shows(f"{victim.pid} ")
    assert all(len(line) <= 80 for line in s.text().splitlines())
    assert "PRIVATE" in s.text() and "running" in row(s, victim.pid)
    s.keys("f")
    s.shows("frozen:")
    wait_until(lambda: "frozen" in row(s, victim.pid).split(), 20, "it is shown as frozen")
    assert [t["state"] for t in firn.list()] == ["frozen"]
    s.keys("-")
    s.shows("has priority 45")
    s.run("resize-window", "-x", "120", "-y", "20")
    wait_until(lambda: "NOW" in s.text(), 10, "the wide table")
    s.keys("t")
    wait_until(lambda: "running" in row(s, victim.pid), 20, "it is shown as running")
    assert not firn.list()
    victim.cmd("verify")
    s.run("resize-window", "-x", "20", "-y", "4")
    time.sleep(0.5)
    s.keys("o")
    s.keys("q")
    s.shows("ended 0")


def test_top_without_a_terminal(firn):
    result = firn.run("top")
    assert result.code == USAGE
    result.one_line_error()


def test_top_is_interrupted(firn, screen):
    """Ctrl-C is as q: the terminal is as it was, and nothing failed."""
    s = screen(80, 6)
    s.shows("PRIVATE")
    s.keys("C-c")
    s.shows("ended 0")


def test_top_on_an_unknown_terminal(firn, screen):
    """One line that says what to do, the status of nonsense, not curses' own."""
    s = screen(80, 6)
    s.shows("PRIVATE")
    s.keys("q")
    s.shows("ended 0")
    s.run("respawn-pane", "-k", f"TERM=nonsense {FIRN} top 2>&1; echo ended $?; cat")
    s.shows(f"ended {USAGE}")
    assert s.text().startswith("firn: the terminal's TERM is not known: "), s.text()


def starting_agent(firn):
    """A firnd of the test's that its client, firn, has just begun."""
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and read(f"/proc/{name}/comm") == "firnd\n" and \
                    f"FIRN_RUNTIME_DIR={firn.runtime}" in read(f"/proc/{name}/environ").split("\0"):
                return int(name)
        except OSError:
            pass
    return None


def test_interrupted_while_the_agent_starts(firn, screen):
    """Ctrl-C is for the command; the agent that it has just begun starts all the same."""
    s = screen(80, 6)
    wait_until(lambda: starting_agent(firn), 20, "firnd is begun")
    s.keys("C-c")
    s.shows("ended 0")
    wait_until(lambda: firn.agent, 20, "the agent is there")
