"""Clicks that tell of trouble: rage (three within a second and thirty pixels) and dead ones (the page did nothing). Pure."""

from __future__ import annotations

from typing import Any

from pipeline.workers.state import WINDOWS_MAX, Watched

RAGE_CLICKS = 3
RAGE_WITHIN_MS = 1_000
RAGE_WITHIN_PX = 30.0
PIXELS_MAX = 1e9

DEAD_AFTER_MS = 2_000
PENDING_MAX = 16
"""Clicks of a window that wait for an answer; of more within two seconds the oldest are not judged."""

ANSWERS = frozenset({"change", "scroll", "navigation", "input"})
"""What a page does when a click has an effect; a value that appears in a field is one."""

Clicks = tuple[tuple[int, float, float], ...]
"""(at, x, y) of the last clicks of a burst that is not yet counted as rage, or of one that is."""


def rage(recent: Clicks, at_ms: int, x: Any, y: Any) -> tuple[Clicks, bool]:
    """(the clicks to remember, whether this one is the third of a burst: a fourth belongs to it)."""
    if not _is_pixel(x) or not _is_pixel(y):
        return recent, False
    near = tuple(
        each
        for each in recent
        if 0 <= at_ms - each[0] <= RAGE_WITHIN_MS
        and abs(each[1] - x) <= RAGE_WITHIN_PX
        and abs(each[2] - y) <= RAGE_WITHIN_PX
    )
    burst = (*near, (at_ms, float(x), float(y)))[-RAGE_CLICKS:]
    return burst, len(burst) == RAGE_CLICKS and len(recent) < RAGE_CLICKS


def _is_pixel(value: object) -> bool:
    """A coordinate; JSON's integers may be longer than any float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= PIXELS_MAX


class Following:
    """One window's clicks while a batch goes through, in log order.

    A click is dead when an event of its window and part above DEAD_AFTER_MS later comes and no answer came before. One
    earlier than what the window has shown already is not judged, since its answer may have come before it; nor is one
    after which nothing comes.
    """

    __slots__ = ("_clicks", "_newest", "_watched", "_window_id", "dead")

    def __init__(self, watched: tuple[Watched, ...], window_id: str) -> None:
        own = next((each for each in watched if each.window_id == window_id), None)
        self._watched, self._window_id = watched, window_id
        self._newest, self._clicks = (own.newest_at, own.clicks) if own else (0, ())
        self.dead = 0

    @property
    def is_waiting(self) -> bool:
        """Whether a click waits for an answer: only then, and with a click, must `event` be told."""
        return bool(self._clicks)

    def event(self, at_ms: int, kind: str | None) -> None:
        """What one event says (see `pipeline.model.rrweb`); None where that is nothing. Events come sorted by time."""
        if self._clicks and at_ms - self._clicks[0] > DEAD_AFTER_MS:
            waiting = tuple(each for each in self._clicks if at_ms - each <= DEAD_AFTER_MS)
            self.dead += len(self._clicks) - len(waiting)
            self._clicks = waiting
        if kind in ANSWERS:
            if self._clicks:
                self._clicks = tuple(each for each in self._clicks if each > at_ms)
        elif kind == "click" and at_ms >= self._newest:
            self._clicks = (*self._clicks, at_ms)[-PENDING_MAX:]

    def end(self, at_ms: int) -> None:
        """The last event's time."""
        self._newest = max(self._newest, at_ms)

    @property
    def watched(self) -> tuple[Watched, ...]:
        """What to remember: this window last, the one unused longest forgotten where there are too many."""
        others = [each for each in self._watched if each.window_id != self._window_id]
        return (*others[-(WINDOWS_MAX - 1) :], Watched(self._window_id, self._newest, self._clicks))
