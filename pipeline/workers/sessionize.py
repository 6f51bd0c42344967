"""Sessions and their parts, in log order: the client's session id is a claim, which gaps and length cut into parts.

A gap above `session_gap_ms` (one of exactly that still belongs) or a part longer than `session_length_ms` begins the next
part; parts count on, never merge, never renumber. An event earlier than the current part belongs to the latest remembered
part that began at or before it, or to the oldest remembered; if that part is closed the event is late.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
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
    """A part while a batch is added to it; `frozen` is the part then."""

    __slots__ = ("clicks", "close_reason", "counts", "ended_at", "first_url", "last_url", "name", "part", "rage_clicks",
                 "recent_clicks", "started_at", "urls", "watched")  # fmt: skip

    def __init__(self, part: Part) -> None:
        self.part = part
        self.name = part.name
        self.started_at, self.ended_at = part.started_at, part.ended_at
        self.close_reason: CloseReason | None = part.close_reason
        self.first_url, self.last_url, self.urls = part.first_url, part.last_url, part.urls
        self.rage_clicks, self.recent_clicks, self.watched = part.rage_clicks, part.recent_clicks, part.watched
        self.counts = dict.fromkeys(
            ("active_ms", "events", "clicks", "inputs", "scrolls", "mouse_moves", "navigations", "console_errors",
             "errors", "throttled", "redacted", "late", "dead_clicks"), 0)  # fmt: skip

    def moment(self, at_ms: int) -> int:
        """Somebody did something then, whether the event is kept or not. Returns what that adds to the active time."""
        since_ms = at_ms - self.ended_at
        if since_ms > 0:
            self.ended_at = at_ms
            return since_ms if since_ms <= ACTIVE_GAP_MS else 0
        self.started_at = min(self.started_at, at_ms)
        return 0

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
        counts = self.counts
        counts["throttled"] += throttled
        counts["redacted"] += redacted
        counts["events"] += len(events)
        counts["late"] += late * len(events)
        kinds = Counter([event.type for event in events])
        for kind, name in _COUNTED.items():
            if kind in kinds:
                counts[name] += kinds[kind]
        if not kinds.keys().isdisjoint(_LOOKED_INTO):
            for event in events:
                if event.type in _LOOKED_INTO:
                    self._look_into(event)
        if rrweb_window is not None:
            self._follow(events, rrweb_window)

    def _look_into(self, event: SessionEvent) -> None:
        """Data that is no object counts by its type alone."""
        try:
            data = _read(event.data)
        except msgspec.ValidationError:
            return
        if event.type == "click":
            self._click(event.timestamp, data.x, data.y)
        elif event.type == "console":
            self.counts["console_errors"] += data.type == "error"
        else:
            self.visit(data.url)

    def _follow(self, events: list[SessionEvent], window_id: str) -> None:
        """Counts what rrweb's events say, and follows what the window's clicks do."""
        following = Following(self.watched, window_id)
        for event in events:
            said = rrweb.read(event)
            following.event(event.timestamp, said.kind if said else None)
            if said is not None:
                self._hear(said, event.timestamp)
        if events:
            self.counts["dead_clicks"] += following.dead
            self.watched = following.watched

    def _hear(self, said: rrweb.Said, at_ms: int) -> None:
        kind, counts = said.kind, self.counts
        if kind == "click":
            counts["clicks"] += 1
            self._click(at_ms, said.x, said.y)
        elif kind == "mousemove":
            counts["mouse_moves"] += said.positions
        elif kind == "console":
            counts["console_errors"] += said.level == "error"
        elif kind in _COUNTED:
            counts[_COUNTED[kind]] += 1
        if kind in ("navigation", "page"):
            self.visit(said.url)

    def visit(self, url: object) -> None:
        if not isinstance(url, str) or not url:
            return
        url = url[:URL_CHARS_MAX]
        self.first_url = self.first_url or url
        self.last_url = url
        if url not in self.urls and len(self.urls) < URLS_MAX:
            self.urls = (*self.urls, url)

    def _click(self, at_ms: int, x: Any, y: Any) -> None:
        self.recent_clicks, is_rage = rage(self.recent_clicks, at_ms, x, y)
        self.rage_clicks += is_rage

    @property
    def frozen(self) -> Part:
        part, counts = self.part, self.counts
        return msgspec.structs.replace(
            part,
            started_at=self.started_at,
            ended_at=self.ended_at,
            close_reason=self.close_reason,
            rage_clicks=self.rage_clicks,
            recent_clicks=self.recent_clicks,
            first_url=self.first_url,
            last_url=self.last_url,
            urls=self.urls,
            watched=self.watched,
            **{name: getattr(part, name) + added for name, added in counts.items()},
        )


@dataclass(frozen=True)
class Run:
    """Neighbouring events of a batch that belong to one part: events[first:end]. They are late where the part was
    closed before them; that a later one of the same batch closes it does not count."""

    part: OpenPart
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
        self.touched: set[str] = set()

    def runs(self, events: list[SessionEvent]) -> list[Run]:
        """Gives every event, kept or not, to its part. Events come sorted by time."""
        found: list[Run] = []
        gap_ms, length_ms = self._rules.session_gap_ms, self._rules.session_length_ms
        end = 0
        while end < len(events):
            first, part = end, self._part_of(events[end].timestamp)
            late = part.close_reason is not None
            active_ms = part.moment(events[first].timestamp)
            ended_at, last_at = part.ended_at, part.started_at + length_ms
            if part is not self.parts[-1]:
                last_at = -1  # an earlier part: whether the next event is its own must be asked again
            end += 1
            while end < len(events):
                at_ms = events[end].timestamp
                since_ms = at_ms - ended_at
                if since_ms > gap_ms or at_ms > last_at:
                    break
                if since_ms > 0:
                    if since_ms <= ACTIVE_GAP_MS:
                        active_ms += since_ms
                    ended_at = at_ms
                end += 1
            part.ended_at = ended_at
            part.counts["active_ms"] += active_ms
            found.append(Run(part, first, end, late))
        return found

    def _part_of(self, at_ms: int) -> OpenPart:
        """The part that an event at this time belongs to, begun now where it must be."""
        current = self.parts[-1] if self.parts else None
        if current is None:
            return self._begin(self._first_name, at_ms)
        if at_ms < current.started_at:
            return self._earlier(at_ms)
        reason = self._why_over(current, at_ms)
        if reason is None:
            return self._touch(current)
        if current.close_reason is None:
            current.close_reason = reason
            self._touch(current)
        return self._begin(_next_name(current.name), at_ms)

    def current(self, at_ms: int) -> OpenPart:
        """The part that a batch without events belongs to."""
        return self._touch(self.parts[-1]) if self.parts else self._begin(self._first_name, at_ms)

    def _why_over(self, part: OpenPart, at_ms: int) -> CloseReason | None:
        if at_ms - part.ended_at > self._rules.session_gap_ms:
            return "idle"
        if at_ms - part.started_at > self._rules.session_length_ms:
            return "max_duration"
        return None

    def _earlier(self, at_ms: int) -> OpenPart:
        for part in reversed(self.parts):
            if part.started_at <= at_ms:
                return self._touch(part)
        return self._touch(self.parts[0])

    def _touch(self, part: OpenPart) -> OpenPart:
        self.touched.add(part.name)
        return part

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
        opened = OpenPart(part)
        opened.visit(page.url)
        self.parts.append(opened)
        return self._touch(opened)

    def frozen(self) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
        """(the parts to remember, all parts that changed), in order."""
        parts = tuple(each.frozen for each in self.parts)
        return parts[-PARTS_MAX:], tuple(part for part in parts if part.name in self.touched)


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
        retention=rules.retention,
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
