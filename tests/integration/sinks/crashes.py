"""A store that dies at its n-th step: before the step is done, or after it, when only the answer is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class CrashError(Exception):
    """Stands for kill -9: nothing that catches our errors may catch it."""


class Dying:
    """Passes every call on to the real thing and counts; at call `at` it raises, before or after carrying it out."""

    def __init__(
        self, real: Any, at: int, *, answer_lost: bool, counts: Callable[[str], bool] = lambda _: True
    ) -> None:
        self._real, self._left, self._answer_lost, self._counts = real, at, answer_lost, counts

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if not callable(found) or not self._counts(name):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._answer_lost:
                raise CrashError(name)
            answer = found(*args, **kwargs)
            if self._left == 0:
                raise CrashError(name)
            return answer

        return call
