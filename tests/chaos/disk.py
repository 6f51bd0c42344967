"""A small disk that can be made full at a word: a tmpfs, shrunk to what it holds."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = "4g"
TRIES = 50


def can_mount() -> bool:
    """Whether this process may mount: root, with the capability for it."""
    with tempfile.TemporaryDirectory() as folder:
        if not _ran("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder):
            return False
        return _ran("umount", folder)


class SmallDisk:
    """A mounted tmpfs. A hidden page in it makes sure that it is never empty: size 0 would mean without limit."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def mounted(self) -> Iterator[None]:
        self._folder.mkdir(parents=True)
        assert _ran("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(self._folder))
        try:
            (self._folder / ".page").write_bytes(b" " * os.sysconf("SC_PAGESIZE"))
            yield
        finally:
            _ran("umount", "-l", str(self._folder))

    @contextmanager
    def full(self) -> Iterator[None]:
        """Not a page is left, until the context ends."""
        for _ in range(TRIES):  # a writer may be faster than the look at what is used
            there = os.statvfs(self._folder)
            if self._resized(str((there.f_blocks - there.f_bfree) * there.f_bsize)):
                break
        else:
            raise AssertionError("the small disk could not be made full")
        try:
            yield
        finally:
            assert self._resized(SIZE)

    def _resized(self, size: str) -> bool:
        return _ran("mount", "-o", f"remount,size={size}", str(self._folder))


def _ran(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
