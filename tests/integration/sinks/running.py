"""A sink as it runs: a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.local.parts import child_environ
from pipeline.settings import Settings


@contextmanager
def sink(settings: Settings, name: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "pipeline", "sink", name]
    with log.open("wb") as out:
        running = subprocess.Popen(command, env=child_environ(settings), stdout=out, stderr=subprocess.STDOUT)
    try:
        yield running
    finally:
        running.terminate()
        running.wait(30)
