"""Sessions and their parts, in log order: the client's session id is a claim, which gaps and length cut into parts.

A gap above `session_gap_ms` (one of exactly that still belongs) or a part longer than `session_length_ms` begins the next
part; parts count on, never merge, never renumber. An event earlier than the current part belongs to the latest remembered
part that began at or before it, or to the oldest remembered; if that part is closed the event is late.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import msgspec

from pipeline.model import rrweb
from pipeline.model.batches import CloseReason, Metadata, SessionUpdate, Source
from pipeline.model.events import SessionEvent
from pipeline.workers.clicks import Following, rage
from pipeline.workers.rules import Rules
from pipeline.workers.state import PARTS_MAX, URLS_MAX, Part, SessionState

ACTIVE_GAP_MS = 5_000
URL_CHARS_MAX = 1_024
"""A longer URL is cut in a session's record, whole in its event: 4 parts of 52 URLs of 4-byte characters stay below the
1 MiB that replay.state and replay.sessions take."""


class _Data(msgspec.Struct):
    """The members that a session's counts need."""

    url: Any = None
    type: Any = None
    x: Any = None
    y: Any = None


_COUNTED = {
    "mousemove": "mouse_moves",
    "scroll": "scrolls",
    "click": "clicks",
    "input": "inputs",
    "navigation": "navigations",
    "error": "errors",
    "promise_error": "errors",
}
_LOOKED_INTO = frozenset({"click", "console", "navigation", "initial_state"})

_read = msgspec.json.Decoder(_Data).decode


class OpenPart:
    """A part while a batch is added to it. `part` is the state's own until `own` makes it ours: only then may it change."""

    __slots__ = ("is_own", "part")

    def __init__(self, part: Part, *, is_own: bool = False) -> None:
        self.part, self.is_own = part, is_own

    def own(self) -> Part:
        if not self.is_own:
            self.part, self.is_own = copy(self.part), True
        return self.part

    def add(
        self,
        events: list[SessionEvent],
        *,
        late: bool,
        throttled: int,
        redacted: int,
        rrweb_window: str | None = None,
    ) -> None:
        """Counts what is kept of a run, and what was done to it; `rrweb_window` is the window of a client of rrweb's."""
        part = self.own()
        part.throttled += throttled
        part.redacted += redacted
        part.events += len(events)
        part.late += late * len(events)
        if rrweb_window is not None:
            self._follow(events, rrweb_window)
        kinds = [event.type for event in events]
        told = set(kinds)
        for kind in told & _COUNTED.keys():
            name = _COUNTED[kind]  # type: ignore[index]
            setattr(part, name, getattr(part, name) + kinds.count(kind))
        if told & _LOOKED_INTO:
            for event in events:
                if event.type in _LOOKED_INTO:
                    self._look_into(event)

    def _look_into(self, event: SessionEvent) -> None:
        """Data that is no object counts by its type alone."""
        try:
            data = _read(event.data)
        except msgspec.ValidationError:
            return
        if event.type == "click":
            self._click(event.timestamp, data.x, data.y)
        elif event.type == "console":
            self.part.console_errors += data.type == "error"
        else:
            self.visit(data.url)

    def _follow(self, events: list[SessionEvent], window_id: str) -> None:
        """Counts what rrweb's events say, and follows what the window's clicks do."""
        if not events:
            return
        following = Following(self.part.watched, window_id)
        for event in events:
            said = rrweb.read(event)
            if following.is_waiting or (said is not None and said.kind == "click"):
                following.event(event.timestamp, said.kind if said else None)
            if said is not None and said.kind != "change":
                self._hear(said, event.timestamp)
        following.end(events[-1].timestamp)
        self.part.dead_clicks += following.dead
        self.part.watched = following.watched

    def _hear(self, said: rrweb.Said, at_ms: int) -> None:
        kind, part = said.kind, self.part
        if kind == "click":
            part.clicks += 1
            self._click(at_ms, said.x, said.y)
        elif kind == "mousemove":
            part.mouse_moves += said.positions
        elif kind == "console":
            part.console_errors += said.level == "error"
        elif kind in _COUNTED:
            setattr(part, _COUNTED[kind], getattr(part, _COUNTED[kind]) + 1)
        if kind in ("navigation", "page"):
            self.visit(said.url)

    def visit(self, url: object) -> None:
        if not isinstance(url, str) or not url:
            return
        url, part = url[:URL_CHARS_MAX], self.part
        part.first_url = part.first_url or url
        part.last_url = url
        if url not in part.urls and len(part.urls) < URLS_MAX:
            part.urls = (*part.urls, url)

    def _click(self, at_ms: int, x: Any, y: Any) -> None:
        self.part.recent_clicks, is_rage = rage(self.part.recent_clicks, at_ms, x, y)
        self.part.rage_clicks += is_rage


class Run(msgspec.Struct, frozen=True):
    """Neighbouring events of a batch that belong to one part: events[first:end]. They are late where the part was
    closed before them; that a later one of the same batch closes it does not count."""

    opened: OpenPart
    first: int
    end: int
    late: bool


class PartBook:
    """The parts of one session while a batch goes through; remembers which of them changed."""

    def __init__(
        self, rules: Rules, state: SessionState | None, first_name: str, source: Source, page: Metadata
    ) -> None:
        self._rules = rules
        self._source: Source = source
        self._page = page
        self._first_name = first_name
        self.parts = [OpenPart(part) for part in state.parts] if state else []

    def runs(self, events: list[SessionEvent]) -> list[Run]:
        """Gives every event, kept or not, to its part. Events come sorted by time."""
        found: list[Run] = []
        end = 0
        while end < len(events):
            first, opened = end, self._part_of(events[end].timestamp)
            late = opened.part.close_reason is not None
            end = self._run_end(opened, events, first)
            found.append(Run(opened, first, end, late))
        return found

    def _run_end(self, opened: OpenPart, events: list[SessionEvent], first: int) -> int:
        """Takes the event at `first` and those after it that belong to the same part; returns where the next begins. Every
        event, kept or not, is a moment at which somebody was there."""
        part = opened.own()
        began_at, newest_at = events[first].timestamp, events[-1].timestamp
        part.started_at = min(part.started_at, began_at)
        gap_ms, last_at = self._rules.session_gap_ms, part.started_at + self._rules.session_length_ms
        pause_ms = min(ACTIVE_GAP_MS, gap_ms)
        if opened is not self.parts[-1]:
            last_at = -1  # an earlier part: whether the next event is its own must be asked again
        if part.ended_at <= newest_at <= min(part.ended_at + pause_ms, last_at):  # most batches: no pause in them
            part.active_ms += newest_at - part.ended_at
            part.ended_at = newest_at
            return len(events)
        ended_at, end = part.ended_at, first
        while end < len(events):
            at_ms = events[end].timestamp
            since_ms = at_ms - ended_at
            if end > first and (since_ms > gap_ms or at_ms > last_at):
                break
            if since_ms > 0:
                if since_ms <= ACTIVE_GAP_MS:
                    part.active_ms += since_ms
                ended_at = at_ms
            end += 1
        part.ended_at = ended_at
        return end

    def _part_of(self, at_ms: int) -> OpenPart:
        """The part that an event at this time belongs to, begun now where it must be."""
        current = self.parts[-1] if self.parts else None
        if current is None:
            return self._begin(self._first_name, at_ms)
        if at_ms < current.part.started_at:
            return self._earlier(at_ms)
        reason = self._why_over(current.part, at_ms)
        if reason is None:
            return current
        if current.part.close_reason is None:
            current.own().close_reason = reason
        return self._begin(_next_name(current.part.name), at_ms)

    def current(self, at_ms: int) -> OpenPart:
        """The part that a batch without events belongs to."""
        opened = self.parts[-1] if self.parts else self._begin(self._first_name, at_ms)
        opened.own()
        return opened

    def _why_over(self, part: Part, at_ms: int) -> CloseReason | None:
        if at_ms - part.ended_at > self._rules.session_gap_ms:
            return "idle"
        if at_ms - part.started_at > self._rules.session_length_ms:
            return "max_duration"
        return None

    def _earlier(self, at_ms: int) -> OpenPart:
        for opened in reversed(self.parts):
            if opened.part.started_at <= at_ms:
                return opened
        return self.parts[0]

    def _begin(self, name: str, at_ms: int) -> OpenPart:
        page = self._page
        part = Part(
            name,
            self._source,
            at_ms,
            at_ms,
            user_agent=page.user_agent,
            viewport_width=page.viewport_width,
            viewport_height=page.viewport_height,
        )
        opened = OpenPart(part, is_own=True)
        opened.visit(page.url)
        self.parts.append(opened)
        return opened

    def frozen(self) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
        """(the parts to remember, all parts that changed), in order."""
        parts = tuple([opened.part for opened in self.parts])
        return parts[-PARTS_MAX:], tuple([opened.part for opened in self.parts if opened.is_own])


def _next_name(name: str) -> str:
    """`1` → `2`; `L40` → `L40.2` → `L40.3`: what follows a part that began without state counts on under its name."""
    if name.isdigit():
        return str(int(name) + 1)
    stem, _, number = name.partition(".")
    return f"{stem}.{int(number or '1') + 1}"


def update(part: Part, state: SessionState, rules: Rules, partition: int, revision: int) -> SessionUpdate:
    """What is told of a part. Pure: the same part, state and revision give the same update."""
    return SessionUpdate(
        tenant=state.tenant,
        session_id=state.session_id,
        part=part.name,
        revision=revision,
        status="closed" if part.close_reason else "open",
        close_reason=part.close_reason,
        source=part.source,
        user_id=state.user_id,
        started_at=part.started_at,
        ended_at=part.ended_at,
        duration_ms=part.ended_at - part.started_at,
        active_ms=part.active_ms,
        events=part.events,
        clicks=part.clicks,
        rage_clicks=part.rage_clicks,
        inputs=part.inputs,
        scrolls=part.scrolls,
        mouse_moves=part.mouse_moves,
        navigations=part.navigations,
        console_errors=part.console_errors,
        errors=part.errors,
        throttled=part.throttled,
        redacted=part.redacted,
        late=part.late,
        first_url=part.first_url,
        last_url=part.last_url,
        urls=part.urls,
        user_agent=part.user_agent,
        viewport_width=part.viewport_width,
        viewport_height=part.viewport_height,
        retention=rules.retention_of(state.tenant),
        epoch=rules.epoch,
        source_partition=partition,
        dead_clicks=part.dead_clicks,
        clock_correction_ms=state.clock_correction_ms or 0,
    )


def close_by_clock(state: SessionState, rules: Rules, partition: int, now_ms: int) -> SessionUpdate | None:
    """The update that closes an idle session where no batch comes to do it; its content depends on the state alone.

    It changes no state: whether it ran changes no later decision.
    """
    if not state.parts or now_ms - state.seen_at <= rules.session_gap_ms:
        return None
    part = state.parts[-1]
    if part.close_reason is not None:
        return None
    closed = msgspec.structs.replace(part, close_reason="idle")
    return update(closed, state, rules, partition, 2 * state.applied + 1)


RELEASE_MARGIN_MS = 600_000
"""How far the worker's clock may be ahead of the broker's before a released state could have counted."""


def may_be_released(state: SessionState, rules: Rules, now_ms: int) -> bool:
    """Whether, by the worker's clock, no record to come can still find this state within its grace."""
    return is_past_grace(state, rules, now_ms - RELEASE_MARGIN_MS)


def is_past_grace(state: SessionState, rules: Rules, now_ms: int) -> bool:
    """From then on the state counts no more, whether or not it was released already: the session begins anew, and as it
    was there before (see `is_remembered`) in a part of its own."""
    return now_ms - state.seen_at > rules.session_grace_ms


def is_remembered(state: SessionState, rules: Rules, now_ms: int) -> bool:
    """Whether it still counts that the session was there."""
    return now_ms - state.seen_at <= rules.session_memory_ms
