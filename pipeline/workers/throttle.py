"""At most one mouse move in 50 ms, one scroll in 100 ms, others by setting, by event time, per window and type.

A gate remembers where it was shut.

An event is kept when every kept one of its kind that the gate remembers lies at least the gap away, on either side. Kept
events less than two gaps apart leave no room between them: such a run is a *stretch*, and its two ends tell all about it.
So late and reordered batches neither open the gate nor lose what is theirs, and memory is a few numbers a window.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping

from pipeline.model.events import SessionEvent
from pipeline.workers.kinds import INCREMENT, POSITION_SOURCES, SCROLL_SOURCE, is_number, source_named, source_of
from pipeline.workers.positions import thinned

STRETCHES_MAX = 8
"""Stretches remembered a gate, the latest by event time."""

Stretches = tuple[tuple[int, int], ...]
_IN_SIGHT = {b'{"source":%d,' % each if each < 10 else b'{"source":%d' % each: each for each in range(100)}
"""The source that stands first in an increment's data, nearly always; only what begins like this is gone by without a look."""
_HEAD_BYTES = len(b'{"source":0,')
_SOURCES: frozenset[int | None] = POSITION_SOURCES | {SCROLL_SOURCE, None}


class Gate:
    """One kind of event in one window. Made from what the state remembers; `stretches` is what it shall remember."""

    __slots__ = ("_gap", "_highs", "_lows")

    def __init__(self, gap_ms: int, stretches: Stretches = ()) -> None:
        self._gap = gap_ms
        self._lows, self._highs = map(list, zip(*stretches, strict=True)) if stretches else ([], [])

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

    @property
    def shut(self) -> tuple[int, int]:
        """(from, to): no event at such a time is kept, to excluded; right after the latest kept one."""
        return (self._highs[-1], self._highs[-1] + self._gap) if self._highs else (0, 0)

    def admit_all(self, at_ms: int, offsets: list[int]) -> list[bool]:
        """Whether each event is kept, asked in order; an event's time is `at_ms` plus its offset."""
        highs, gap, kept = self._highs, self._gap, []
        for offset in offsets:
            each_ms = at_ms + offset
            if highs and gap <= each_ms - highs[-1] < 2 * gap:  # the usual case, as in `admit`
                highs[-1] = each_ms
                kept.append(True)
            else:
                kept.append(self.admit(each_ms))
        return kept

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


class Throttle:
    """One window's gates while a batch goes through. rrweb's moves and scrolls share the gates of the portable ones: a
    position of a move is one move."""

    __slots__ = ("_of_type", "_sources", "moves", "others", "scrolls")

    def __init__(self, moves: Gate, scrolls: Gate, others: Mapping[str, Gate]) -> None:
        """`others` by name, as `kinds.parse_gaps` has them."""
        self.moves, self.scrolls, self.others = moves, scrolls, others
        self._of_type: dict[str | int, Callable[[int], bool]] = {}
        self._sources = _SOURCES
        if others:
            self._of_type = {int(name) if is_number(name) else name: gate.admit for name, gate in others.items()}
            self._sources |= {source_named(name) for name in others}

    @property
    def other_stretches(self) -> dict[str, Stretches]:
        """What the state shall remember of them; a gate that nothing went through is left out."""
        if not self.others:
            return {}
        return {name: found for name, gate in self.others.items() if (found := gate.stretches)}

    def passed(self, events: list[SessionEvent]) -> list[SessionEvent]:
        """Those that the gates let pass. Where an event loses some of its positions only, its data is replaced."""
        moves, scrolls, others, kept = self.moves, self.scrolls, self._of_type, []
        shut_from, shut_to = moves.shut
        for event in events:
            kind = event.type
            if kind == "mousemove":
                at_ms = event.timestamp
                if shut_from <= at_ms < shut_to or not moves.admit(at_ms):  # most moves of a fast client
                    continue
                shut_from, shut_to = moves.shut
            elif kind == INCREMENT:
                source = _IN_SIGHT.get(bytes(event.data)[:_HEAD_BYTES])
                if source in self._sources:
                    if not self._increment(event, source):
                        continue
                    shut_from, shut_to = moves.shut
            elif kind == "scroll":
                if not scrolls.admit(event.timestamp):
                    continue
            elif others and kind in others and not others[kind](event.timestamp):
                continue
            kept.append(event)
        return kept

    def _increment(self, event: SessionEvent, in_sight: int | None) -> bool:
        """What stands first is cheap to see, but a JSON reader believes the last member of a name: before anything is
        dropped one is asked, as `thinned` does too."""
        source = in_sight if in_sight in POSITION_SOURCES else source_of(event.data)
        if source in POSITION_SOURCES:
            left = thinned(event.data, event.timestamp, self.moves.admit_all)
            if left is None:
                return False
            event.data = left
            return True
        gate = self.scrolls if source == SCROLL_SOURCE else self.others.get(f"{INCREMENT}.{source}")
        return gate is None or gate.admit(event.timestamp)
