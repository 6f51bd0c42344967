"""A session as plain lists of all that happened, recounted from the start for every answer. Slow and independent."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

REMEMBERED_PARTS, REMEMBERED_IDS, REMEMBERED_STRETCHES = 4, 512, 8
ACTIVE_GAP_MS = 5_000
SKEW_STEP_MS = 300_000
DEAD_AFTER_MS, WAITING_CLICKS = 2_000, 16

Event = dict[str, Any]


def meaning(event: Event) -> str:
    """What an event is, in the portable model's words; "change" is rrweb's news of the page, "" what does not count."""
    kind, data = event["type"], event["data"]
    if not event["rrweb"] or isinstance(kind, str):
        return "console error" if kind == "console" and data["type"] == "error" else str(kind)
    if kind == 3:
        return {(0, None): "change", (2, 2): "click", (5, None): "input"}.get((data["source"], data.get("type")), "")
    if kind == 6:
        return (
            "error" if data["payload"]["payload"][0].startswith('"Uncaught') else f"console {data['payload']['level']}"
        )
    return {2: "change", 4: "navigation"}.get(kind, "")


def dead_clicks(kept: list[Event]) -> int:
    """Of one window's events of one part, in the order of their arrival: every click judged by looking ahead from it."""

    def shown(event: Event) -> str:
        return meaning(event) if isinstance(event["type"], int) else ""

    dead = 0
    for n, click in enumerate(kept):
        at = click["timestamp"]
        if shown(click) != "click" or any(each["timestamp"] > at for each in kept[:n]):
            continue
        waiting = 1
        for m, event in enumerate(kept[n + 1 :], n + 1):
            if event["timestamp"] - at > DEAD_AFTER_MS:
                dead += 1
                break
            if event["timestamp"] >= at and shown(event) in ("change", "navigation", "input"):
                break
            newest = max(each["timestamp"] for each in kept[:m])
            waiting += shown(event) == "click" and event["timestamp"] >= newest
            if waiting > WAITING_CLICKS:
                break
    return dead


def correction(skew_ms: int) -> int:
    """The multiple of five minutes that is nearest; of two the larger."""
    if abs(skew_ms) < SKEW_STEP_MS:
        return 0
    around = [SKEW_STEP_MS * (skew_ms // SKEW_STEP_MS + n) for n in (-1, 0, 1, 2)]
    return min(around, key=lambda each: (abs(skew_ms - each), -abs(each)))


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
        kinds = [meaning(each) for each in self.kept]
        followed = {each["window"] for each in self.kept if each["rrweb"]}
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
            "console_errors": kinds.count("console error"),
            "dead_clicks": sum(
                dead_clicks([each for each in self.kept if each["rrweb"] and each["window"] == window])
                for window in followed
            ),
            "errors": kinds.count("error") + kinds.count("promise_error"),
            "throttled": self.throttled,
            "redacted": self.redacted,
            "late": self.late,
        }


class Session:
    """Batches in log order. `gaps` maps a throttled type to its gap; all times are milliseconds."""

    def __init__(
        self,
        *,
        gap_ms: int,
        length_ms: int,
        grace_ms: int,
        memory_ms: int,
        age_ms: int,
        ahead_ms: int,
        gaps: dict[str, int],
    ) -> None:
        self.gap_ms, self.length_ms, self.grace_ms, self.gaps = gap_ms, length_ms, grace_ms, gaps
        self.memory_ms, self.age_ms, self.ahead_ms = memory_ms, age_ms, ahead_ms
        self.seen_at: int | None = None
        self.forget()

    def forget(self) -> None:
        self.parts: list[Part] = []
        self.remembered = 0
        self.ids: list[str] = []
        self.user = "anonymous"
        self.kept_times: dict[tuple[str, str], list[int]] = {}
        self.clock: int | None = None

    def batch(
        self,
        offset: int,
        at_ms: int,
        batch_id: str,
        window: str,
        user: str,
        final: bool,
        events: list[Event],
        *,
        skew_ms: int,
        imported: bool,
        rrweb: bool,
    ) -> dict[str, int]:
        """Takes one batch in, whose client's clock is `skew_ms` behind; answers its account."""
        away_ms = 0 if self.seen_at is None else at_ms - self.seen_at
        forgotten = away_ms > self.grace_ms
        account = {"stored": 0, "throttled": 0, "repeated": 0, "dead": 0}
        if not forgotten and batch_id in self.ids[-REMEMBERED_IDS:]:
            self.seen_at = at_ms
            return {**account, "repeated": len(events)}
        clock = None if forgotten else self.clock
        if not imported:
            clock = correction(skew_ms) if clock is None else clock
            events = [{**each, "timestamp": each["timestamp"] + clock} for each in events]
        good = [
            each for each in events if imported or at_ms - self.age_ms <= each["timestamp"] <= at_ms + self.ahead_ms
        ]
        account["dead"] = len(events) - len(good)
        if events and not good:
            return account
        events = [{**each, "window": window, "rrweb": rrweb} for each in good]
        was_there = self.seen_at is not None and away_ms <= self.memory_ms
        if forgotten:
            self.forget()
        self.seen_at, self.clock = at_ms, clock
        self.ids.append(batch_id)
        if user != "anonymous":
            self.user = user
        newest = max((each["timestamp"] for each in events), default=at_ms)
        first_name = f"L{offset}" if was_there or (not imported and at_ms - newest > self.grace_ms) else "1"
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
        return {**account, "stored": stored, "throttled": len(events) - stored}

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
