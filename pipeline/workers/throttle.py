"""At most one mouse move in 50 ms, one scroll in 100 ms, by event time, per window: a gate that remembers where it was shut.

An event is kept when every kept one of its kind that the gate remembers lies at least the gap away, on either side. Kept
events less than two gaps apart leave no room between them: such a run is a *stretch*, and its two ends tell all about it.
So late and reordered batches neither open the gate nor lose what is theirs, and memory is a few numbers a window.
"""

from __future__ import annotations

from bisect import bisect_left

STRETCHES_MAX = 8
"""Stretches remembered a gate, the latest by event time."""

Stretches = tuple[tuple[int, int], ...]


class Gate:
    """One kind of event in one window. Made from what the state remembers; `stretches` is what it shall remember."""

    __slots__ = ("_gap", "_highs", "_lows")

    def __init__(self, gap_ms: int, stretches: Stretches = ()) -> None:
        self._gap = gap_ms
        self._lows = [low for low, _ in stretches]
        self._highs = [high for _, high in stretches]

    def admit(self, at_ms: int) -> bool:
        """Whether an event at this time is kept; if so it is remembered. A difference of exactly the gap is kept."""
        highs = self._highs
        if not highs:
            self._lows.append(at_ms)
            highs.append(at_ms)
            return True
        past = at_ms - highs[-1]
        if past >= self._gap:  # the usual case: later than all before
            if past < 2 * self._gap:
                highs[-1] = at_ms
            else:
                self._lows.append(at_ms)
                highs.append(at_ms)
                if len(highs) > STRETCHES_MAX:
                    del self._lows[0], highs[0]
            return True
        if at_ms > self._lows[-1] - self._gap:
            return False
        return self._admit_late(at_ms)

    def _admit_late(self, at_ms: int) -> bool:
        """The event lies before the last stretch: it may fit between two, or before all."""
        gap, lows, highs = self._gap, self._lows, self._highs
        after = bisect_left(lows, at_ms)  # the first stretch that begins at or after the event
        if after > 0 and at_ms < highs[after - 1] + gap:
            return False
        if after < len(lows) and at_ms > lows[after] - gap:
            return False
        joins_before = after > 0 and at_ms - highs[after - 1] < 2 * gap
        joins_after = after < len(lows) and lows[after] - at_ms < 2 * gap
        if joins_before and joins_after:
            highs[after - 1] = highs.pop(after)
            del lows[after]
        elif joins_before:
            highs[after - 1] = at_ms
        elif joins_after:
            lows[after] = at_ms
        elif len(lows) < STRETCHES_MAX:
            lows.insert(after, at_ms)
            highs.insert(after, at_ms)
        elif after > 0:
            lows.insert(after, at_ms)
            highs.insert(after, at_ms)
            del lows[0], highs[0]
        return True

    @property
    def stretches(self) -> Stretches:
        return tuple(zip(self._lows, self._highs, strict=True))
