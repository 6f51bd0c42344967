"""At most one mouse move in 50 ms, one scroll in 100 ms, others by setting, by event time, per window and type.

A gate remembers where it was shut.

An event is kept when every kept one of its kind that the gate remembers lies at least the gap away, on either side. Kept
events less than two gaps apart leave no room between them: such a run is a *stretch*, and its two ends tell all about it.
So late and reordered batches neither open the gate nor lose what is theirs, and memory is a few numbers a window.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping

from pipeline.model.events import SessionEvent
from pipeline.workers.kinds import INCREMENT, POSITION_SOURCES, SCROLL_SOURCE, is_number, source_named, source_of
from pipeline.workers.positions import thinned

STRETCHES_MAX = 8
"""Stretches remembered a gate, the latest by event time."""

Stretches = tuple[tuple[int, int], ...]
_SOURCE = re.compile(rb'\{"source":([0-9]{1,3}),').match


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


class Throttle:
    """One window's gates while a batch goes through. rrweb's moves and scrolls share the gates of the portable ones: a
    position of a move is one move."""

    def __init__(self, gaps_ms: Mapping[str, int], remembered: Mapping[str, Stretches]) -> None:
        """`gaps_ms` by name as `kinds.parse_gaps` gives them, mousemove and scroll among them."""
        self._gates = {name: Gate(gap_ms, remembered.get(name, ())) for name, gap_ms in gaps_ms.items()}
        moves, scrolls = self._gates["mousemove"].admit, self._gates["scroll"].admit
        self._moves = moves
        self._of_source = {SCROLL_SOURCE: scrolls, **dict.fromkeys(POSITION_SOURCES, moves)}
        self._of_type: dict[str | int, Callable[[int], bool]] = {"mousemove": moves, "scroll": scrolls}
        if len(self._gates) > 2:
            self._add_others()

    def _add_others(self) -> None:
        for name, gate in self._gates.items():
            source = source_named(name)
            if source is not None:
                self._of_source[source] = gate.admit
            else:
                self._of_type[int(name) if is_number(name) else name] = gate.admit

    @property
    def stretches(self) -> dict[str, Stretches]:
        """What the state shall remember, by name; a gate that nothing went through is left out."""
        return {name: found for name, gate in self._gates.items() if (found := gate.stretches)}

    def passed(self, events: list[SessionEvent]) -> list[SessionEvent]:
        """Those that the gates let pass. Where an event loses some of its positions only, its data is replaced."""
        admits = self._of_type
        return [
            event
            for event in events
            if ((kind := event.type) not in admits or admits[kind](event.timestamp))
            and (kind != INCREMENT or self._increment(event))
        ]

    def _increment(self, event: SessionEvent) -> bool:
        """Most begin with their source, which is cheap to see; a second member of that name would win with a JSON reader, so
        one is asked before anything is dropped."""
        found = _SOURCE(event.data)
        source = int(found[1]) if found else source_of(event.data)
        admit = self._of_source.get(source)  # type: ignore[arg-type]
        if admit is None:
            return True
        if source in POSITION_SOURCES:
            left = thinned(event.data, event.timestamp, admit)
            if left is None:
                return False
            event.data = left
            return True
        if found is not None and source_of(event.data) != source:
            return True
        return admit(event.timestamp)
