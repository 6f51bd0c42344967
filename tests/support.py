"""What tests share: waiting for a condition, and saying that a prerequisite is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

Found = TypeVar("Found")
LOOK_EVERY_S = 0.05


def eventually(look: Callable[[], Found], *, within_s: float, why: str) -> Found:
    """Looks until what is seen is true (not empty, not None) and returns it; fails with `why` when the time is up."""
    until = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > until:
            pytest.fail(f"not within {within_s:.0f} s: {why}; last seen: {found!r}")
        time.sleep(LOOK_EVERY_S)


def need(there: object, what: str) -> None:
    """A prerequisite that the machine may lack: the test is skipped with the reason, and fails where CI=true."""
    if there:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"prerequisite missing: {what}")
    pytest.skip(f"prerequisite missing: {what}")
