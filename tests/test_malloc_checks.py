# SPDX-License-Identifier: MIT
"""The allocator built with -Dmalloc_checks=full: it verifies its invariants after every operation, and ends a
program that misuses its memory.  tests/unit/test_malloc_check.c breaks each invariant by hand."""
import os
import signal
import subprocess

import pytest

import harness

CHECKS = os.path.join(harness.ROOT, "build-mallocchecks")
SEEDS = [1, 20260101]


@pytest.fixture(scope="module")
def library():
    done = subprocess.run(["make", "-s", "-C", harness.ROOT, "mallocchecks"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return os.path.join(CHECKS, "libfirnmalloc.so")


def run(library, *command, **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith("FIRN_MALLOC_")}
    env.update(environment, LD_PRELOAD=library)
    return subprocess.run(command, env=env, capture_output=True, text=True, errors="replace")


def model(tmp_path):
    """The model program: built with the rest, or here."""
    path = os.path.join(harness.BUILD, "tests/malloc/model")
    if os.path.exists(path):
        return path
    path = str(tmp_path / "model")
    subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-I", os.path.join(harness.ROOT, "include"), "-o", path,
                    os.path.join(harness.ROOT, "tests/malloc/model.c"), "-lpthread"], check=True)
    return path


@pytest.mark.limit(300)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threads, operations", [(1, 60000), (24, 12000)])
def test_model(library, tmp_path, threads, operations, seed):
    done = run(library, model(tmp_path), str(threads), str(operations), str(seed))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "firn-malloc" not in done.stderr


@pytest.mark.limit(300)
@pytest.mark.parametrize("region", [64, 2048])
def test_model_with_large_regions(library, tmp_path, region):
    done = run(library, model(tmp_path), "8", "12000", "3", FIRN_MALLOC_REGION=str(region))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.limit(300)
def test_python(library):
    """A real program, every object of it a checked block."""
    work = "import json; d = {str(i): list(range(i % 40)) for i in range(1500)}; [d.pop(k) for k in list(d)[::3]];" \
           "print(len(json.loads(json.dumps(d))))"
    done = run(library, "/usr/bin/python3", "-c", work, PYTHONMALLOC="malloc")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1000\n", "")


MISUSE = {
    "overflow": ("p = malloc(33); memset(p, 1, 34); free(p)", "overflow: byte 0 behind the block of 33 bytes"),
    "double-free": ("p = malloc(40); q = malloc(40); free(p); free(q); free(p)", "double free of 0x"),
    "middle": ("free(malloc(4000) + 16)", "which is not the start of an allocation"),
    "foreign": ("free(ctypes.addressof(ctypes.create_string_buffer(8192)) + 4096)", "which"),
    "write-after-free": ("p = malloc(200); free(p); memset(p + 50, 1, 1); [malloc(200) for i in range(1000)]",
                         "write after free: byte 50"),
    "wrong-size": ("p = malloc(20); lib.free_sized.argtypes = [ctypes.c_void_p, ctypes.c_size_t]; lib.free_sized(p, 21)",
                   "as 21 bytes, which was allocated with 20"),
}


@pytest.mark.parametrize("name", MISUSE)
def test_misuse(library, name):
    what, says = MISUSE[name]
    program = f"""
import ctypes
lib = ctypes.CDLL(None)
malloc, free = lib.malloc, lib.free
malloc.restype = ctypes.c_void_p
malloc.argtypes = [ctypes.c_size_t]
free.argtypes = [ctypes.c_void_p]
memset = ctypes.memset
{what}
"""
    done = run(library, "/usr/bin/python3", "-c", program)
    assert done.returncode == -signal.SIGABRT, (done.returncode, done.stderr)
    assert "firn-malloc: " in done.stderr and says in done.stderr, done.stderr
