# SPDX-License-Identifier: MIT
"""What the allocator's tests share: a program is run without the library first, then under it, in several moods."""
import os
import resource
import subprocess

import pytest

from harness import BUILD, NOBODY

LIBRARY = os.path.join(BUILD, "libfirnmalloc.so")
PROGRAMS = os.path.join(BUILD, "tests", "malloc")

# The environment of each mood; None: without the library.  TEST_FOLDS=1: pages must be folded, 0: must not.
MOODS = {
    "control": None,
    "plain": {"TEST_FOLDS": "1"},
    "eager": {"TEST_FOLDS": "1", "FIRN_MALLOC_PERIOD_MS": "5", "FIRN_MALLOC_AGE": "0", "FIRN_MALLOC_STOP_MS": "0",
              "FIRN_MALLOC_CPU_PERCENT": "100"},
    "off": {"TEST_FOLDS": "0", "FIRN_MALLOC_FOLD": "0"},
}


class Done:
    def __init__(self, argv, code, out, err):
        self.argv, self.code, self.out, self.err = argv, code, out, err

    def __repr__(self):
        return f"<{' '.join(map(str, self.argv))}: {self.code}\nstdout: {self.out[-4000:]}\nstderr: {self.err[-4000:]}>"


def environment(mood, **more):
    """As it was, without anything that concerns an allocator, and with the mood's."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("FIRN_", "TEST_", "MALLOC_", "LD_PRELOAD", "GLIBC_"))}
    env["LC_ALL"] = "C.UTF-8"
    if MOODS[mood] is not None:
        env.update(MOODS[mood], LD_PRELOAD=LIBRARY)
    env.update(more)
    return env


def program(name):
    path = os.path.join(PROGRAMS, name)
    if not os.path.exists(path):
        pytest.skip(f"{name} was not built")
    return path


def cases_of(name):
    out = subprocess.run([program(name), "--list"], env=environment("control"), capture_output=True, text=True, check=True)
    return out.stdout.split()


def run(argv, mood, limits=(), timeout=100, user=None, stdin=None, text=True, cwd=None, **env):
    """Run to the end.  @limits: pairs of a resource and a number, soft and hard."""
    argv = [str(a) for a in argv]

    def before():
        for which, value in limits:
            resource.setrlimit(which, (value, value))

    options = {"user": user, "group": user, "extra_groups": []} if user else {}
    with subprocess.Popen(argv, env=environment(mood, **env), stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=before if limits else None, cwd=cwd,
                          text=text, **options) as proc:
        try:
            out, err = proc.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            proc.kill()
            out, err = proc.communicate()
            raise AssertionError(f"no end within {timeout} s: {Done(argv, None, out, err)}") from None
        except BaseException:
            proc.kill()
            raise
    return Done(argv, proc.returncode, out, err)


def passes(name, case, mood, *args, **kwargs):
    """One case of a test program, which judges itself."""
    done = run([program(name), case, *args], mood, **kwargs)
    assert done.code == 0, done
    return done
