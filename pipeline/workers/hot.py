"""A hot session: one that sends more bytes a second than is its due, over a long burst. It is limited whole and marked.

A token bucket in stream time: what a session sends is taken from it, time fills it up again. A batch that finds tokens left
passes whole, and may overdraw; one that finds none loses all that may be dropped. What is never dropped passes always and is
charged too, so what a session is ahead it pays back. The first event dropped leaves a marker in its place, which is stored:
no account changes, and every reader and player meets it.
"""

from __future__ import annotations

import msgspec

from pipeline.model.batches import Source
from pipeline.model.events import SessionEvent, encode_value
from pipeline.workers.kinds import may_be_dropped

MARK = "limited"
_CUSTOM = 5
_US_PER_S, _US_PER_MS = 1_000_000, 1_000


class Bucket:
    """A session's bucket while a batch goes through. `full_at_us` tells all about it between batches: the moment when it will
    be full again if nothing more is taken. `is_empty` is how the batch found it."""

    __slots__ = ("_at_us", "_bytes_per_s", "full_at_us", "is_empty")

    def __init__(self, full_at_us: int, at_ms: int, bytes_per_s: int, burst_bytes: int) -> None:
        """A rate or a burst of 0 is a bucket without a bottom."""
        self.full_at_us = full_at_us
        self._at_us = at_ms * _US_PER_MS
        self._bytes_per_s = bytes_per_s if burst_bytes else 0
        missing_us = full_at_us - self._at_us
        self.is_empty = self._bytes_per_s > 0 and missing_us >= burst_bytes * _US_PER_S // bytes_per_s

    def take(self, size: int) -> None:
        if self._bytes_per_s:
            self.full_at_us = max(self.full_at_us, self._at_us) + size * _US_PER_S // self._bytes_per_s


def limited(events: list[SessionEvent], source: Source) -> list[SessionEvent]:
    """What is left of a hot session's events: all that is never dropped, and a marker at the place of the first that was."""
    kept: list[SessionEvent] = []
    place, dropped = -1, 0
    for event in events:
        if not may_be_dropped(event):
            kept.append(event)
            continue
        dropped += 1
        if place < 0:
            place = len(kept)
            kept.append(event)
    if place >= 0:
        kept[place] = _marker(kept[place].timestamp, dropped, source)
    return kept


def _marker(at_ms: int, dropped: int, source: Source) -> SessionEvent:
    """For rrweb's players a custom event, which they hand on and do not draw."""
    if source == "portable":
        return SessionEvent(MARK, at_ms, msgspec.Raw(encode_value({"dropped": dropped})))
    return SessionEvent(_CUSTOM, at_ms, msgspec.Raw(encode_value({"tag": MARK, "payload": {"dropped": dropped}})))
