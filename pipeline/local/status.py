"""What runs in a home: written by the supervisor, read by `replay status`, which believes only what is still alive."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.settings import Settings


@dataclass(frozen=True)
class PartStatus:
    """One process of the stack; `pid` is None while it is down, `address` empty where it has none."""

    name: str
    pid: int | None
    ready: bool
    address: str


class StackFile:
    """`stack.json` in the home, replaced whole at each change."""

    def __init__(self, home: Path) -> None:
        self._path = home / "stack.json"

    def write(self, parts: list[PartStatus]) -> None:
        rows = [{**dataclasses.asdict(part), "created": _created(part.pid)} for part in parts]
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=".stack-")
        with os.fdopen(handle, "w") as out:
            json.dump(rows, out)
        Path(name).replace(self._path)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def read(self) -> list[PartStatus]:
        """The parts as last written; one whose process is gone, or whose pid is somebody else's now, is down."""
        try:
            rows = json.loads(self._path.read_text())
        except FileNotFoundError:
            return []
        found = []
        for row in rows:
            alive = row["pid"] is not None and row["created"] == _created(row["pid"])
            found.append(PartStatus(row["name"], row["pid"] if alive else None, row["ready"] and alive, row["address"]))
        return found


def status(settings: Settings) -> list[PartStatus]:
    """The stack of this home; empty where none was started or it was stopped cleanly."""
    return StackFile(settings.home.absolute()).read()


def _created(pid: int | None) -> float | None:
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # ended, and nobody has asked how
            return None
        return float(round(process.create_time(), 1))
    except psutil.NoSuchProcess:
        return None
