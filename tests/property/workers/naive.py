"""A session as plain lists of all that happened, recounted from the start for every answer. Slow and independent."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

REMEMBERED_PARTS, REMEMBERED_IDS, REMEMBERED_STRETCHES = 4, 512, 8
ACTIVE_GAP_MS = 5_000


@dataclass
class Part:
    """One part: every moment in the order of its arrival, and every kept event."""

    name: str
    moments: list[int]
    kept: list[dict[str, Any]] = field(default_factory=list)
    throttled: int = 0
    redacted: int = 0
    late: int = 0
    closed: str | None = None

    @property
    def started_at(self) -> int:
        return min(self.moments)

    @property
    def ended_at(self) -> int:
        return max(self.moments)

    def told(self) -> dict[str, Any]:
        kinds = [each["type"] for each in self.kept]
        new_ends = [
            at - max(self.moments[:n])
            for n, at in enumerate(self.moments)
            if n and 0 < at - max(self.moments[:n]) <= ACTIVE_GAP_MS
        ]
        return {
            "status": "closed" if self.closed else "open",
            "close_reason": self.closed,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "duration_ms": self.ended_at - self.started_at,
            "active_ms": sum(new_ends),
            "events": len(kinds),
            "clicks": kinds.count("click"),
            "inputs": kinds.count("input"),
            "scrolls": kinds.count("scroll"),
            "mouse_moves": kinds.count("mousemove"),
            "navigations": kinds.count("navigation"),
            "console_errors": sum(e["type"] == "console" and e["data"]["type"] == "error" for e in self.kept),
            "errors": kinds.count("error") + kinds.count("promise_error"),
            "throttled": self.throttled,
            "redacted": self.redacted,
            "late": self.late,
        }


class Session:
    """Batches in log order. `gaps` maps a throttled type to its gap; all times are milliseconds."""

    def __init__(self, *, gap_ms: int, length_ms: int, grace_ms: int, gaps: dict[str, int]) -> None:
        self.gap_ms, self.length_ms, self.grace_ms, self.gaps = gap_ms, length_ms, grace_ms, gaps
        self.seen_at: int | None = None
        self.forget()

    def forget(self) -> None:
        self.parts: list[Part] = []
        self.remembered = 0
        self.ids: list[str] = []
        self.user = "anonymous"
        self.kept_times: dict[tuple[str, str], list[int]] = {}

    def batch(
        self, offset: int, at_ms: int, batch_id: str, window: str, user: str, final: bool, events: list[dict[str, Any]]
    ) -> dict[str, int]:
        """Takes one batch in; answers its account."""
        if self.seen_at is not None and at_ms - self.seen_at > self.grace_ms:
            self.forget()
        self.seen_at = at_ms
        if batch_id in self.ids[-REMEMBERED_IDS:]:
            return {"stored": 0, "throttled": 0, "repeated": len(events)}
        self.ids.append(batch_id)
        if user != "anonymous":
            self.user = user
        newest = max((each["timestamp"] for each in events), default=at_ms)
        first_name = f"L{offset}" if at_ms - newest > self.grace_ms else "1"
        stored = 0
        for event in sorted(events, key=lambda each: each["timestamp"]):
            part = self.part_of(event["timestamp"], first_name)
            if not self.passes(window, event):
                part.throttled += 1
                continue
            stored += 1
            part.kept.append(event)
            part.late += part.closed is not None
            part.redacted += event["type"] == "input" and event["data"]["inputType"] == "password"
        if not events and not self.parts:
            self.parts.append(Part(first_name, [at_ms]))
        if final:
            self.parts[-1].closed = self.parts[-1].closed or "ended"
        self.remembered = max(0, len(self.parts) - REMEMBERED_PARTS)
        return {"stored": stored, "throttled": len(events) - stored, "repeated": 0}

    def part_of(self, at_ms: int, first_name: str) -> Part:
        remembered = self.parts[self.remembered :]
        if not remembered:
            self.parts.append(Part(first_name, [at_ms]))
            return self.parts[-1]
        last = remembered[-1]
        if at_ms < last.started_at:
            part = next((each for each in reversed(remembered) if each.started_at <= at_ms), remembered[0])
            part.moments.append(at_ms)
            return part
        idle = at_ms - last.ended_at > self.gap_ms
        if not idle and at_ms - last.started_at <= self.length_ms:
            last.moments.append(at_ms)
            return last
        last.closed = last.closed or ("idle" if idle else "max_duration")
        stem = self.parts[0].name
        count = len(self.parts) + 1
        self.parts.append(Part(str(count) if stem == "1" else f"{stem}.{count}", [at_ms]))
        return self.parts[-1]

    def passes(self, window: str, event: dict[str, Any]) -> bool:
        kind, at = event["type"], event["timestamp"]
        if kind not in self.gaps:
            return True
        times = self.kept_times.setdefault((window, kind), [])
        if any(abs(at - each) < self.gaps[kind] for each in times):
            return False
        runs: list[list[int]] = []
        for each in sorted([*times, at]):
            if runs and each - runs[-1][-1] < 2 * self.gaps[kind]:
                runs[-1].append(each)
            else:
                runs.append([each])
        self.kept_times[window, kind] = [each for run in runs[-REMEMBERED_STRETCHES:] for each in run]
        return True


def events_of(payload: bytes) -> list[dict[str, Any]]:
    return [json.loads(each) for each in payload.split(b"\n")] if payload else []
