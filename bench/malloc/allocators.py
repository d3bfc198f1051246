# SPDX-License-Identifier: MIT
"""The allocators that are compared: where they are, what they are preloaded with, and their versions."""
import os
import pathlib
import subprocess

LIBRARIES = pathlib.Path("/usr/lib/x86_64-linux-gnu")
TO_BEAT = "mimalloc"            # ratios are to this one


class Allocator:
    def __init__(self, name, library, version, **environment):
        self.name, self.library, self.version, self.environment = name, str(library), version, environment

    @property
    def is_firn(self):
        return self.name.startswith("firn")

    def variables(self, **more):
        """The environment of a program that uses it."""
        return {**os.environ, **self.environment, **more, "LD_PRELOAD": self.library}


def debian_version(package):
    done = subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True, check=False)
    return f"Debian {done.stdout}" if done.returncode == 0 and done.stdout else "unknown"


def library(pattern):
    others = LIBRARIES.parent.glob("*-linux-gnu")
    for folder in (LIBRARIES, *others, pathlib.Path("/usr/lib64"), pathlib.Path("/usr/lib")):
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    return None


def known(build, extra, notes):
    """All that are there; what is missing goes into @notes.  @extra: "name=/path.so ..."."""
    found = []
    # glibc is preloaded as well: some programs are linked with another allocator (Debian's redis with jemalloc).
    peers = (("glibc", "libc.so.6", "libc6", {}),
             ("jemalloc", "libjemalloc.so.2", "libjemalloc2", {}),
             ("jemalloc-1s", "libjemalloc.so.2", "libjemalloc2",
              {"MALLOC_CONF": "dirty_decay_ms:1000,muzzy_decay_ms:0"}),
             ("tcmalloc", "libtcmalloc_minimal.so.4", "libtcmalloc-minimal4", {}),
             (TO_BEAT, "libmimalloc.so.2*", "libmimalloc2.0", {}))
    for name, pattern, package, environment in peers:
        path = library(pattern)
        if path:
            found.append(Allocator(name, path, debian_version(package), **environment))
        else:
            notes.append(f"{name} is left out: no {pattern} (Debian: {package})")
    for word in (extra or "").split():
        name, _, path = word.partition("=")
        if name and pathlib.Path(path).is_file():
            found.append(Allocator(name, pathlib.Path(path).resolve(), "given by FIRN_BENCH_EXTRA"))
        else:
            notes.append(f"FIRN_BENCH_EXTRA: {word} is left out: not name=/path/of/library.so")
    firn = build / "libfirnmalloc.so"
    if firn.is_file():
        found.append(Allocator("firn", firn, "this"))
        found.append(Allocator("firn-nofold", firn, "this", FIRN_MALLOC_FOLD="0"))
    else:
        notes.append(f"firn is left out: {firn} is not there")
    return found
