"""Batches made by hand, and one session's way through `step`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pipeline.model.batches import Metadata, RecorderBatch, SessionUpdate
from pipeline.workers.chain import Outcome, Where, step
from pipeline.workers.rules import Rules
from pipeline.workers.state import SessionState

T0 = 1_795_448_983_000
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
PAGE = Metadata(user_agent="Mozilla/5.0", viewport_width=1280, viewport_height=800, url="http://shop.example.test/")


def line(kind: str | int, at_ms: int, data: Any = None) -> bytes:
    return json.dumps({"type": kind, "timestamp": at_ms, "data": data}, separators=(",", ":")).encode()


def batch(batch_id: str, *lines: bytes, **changed: Any) -> RecorderBatch:
    """One batch of these events; its envelope is true unless `changed` says otherwise."""
    times = [json.loads(each)["timestamp"] for each in lines]
    made = RecorderBatch(
        tenant="acme",
        session_id="s1",
        window_id="w1",
        user_id="anonymous",
        batch_id=batch_id,
        sequence=None,
        source="portable",
        client_version=None,
        imported=False,
        final=False,
        sent_at=T0,
        received_at=T0,
        metadata=PAGE,
        first_event_at=min(times, default=0),
        last_event_at=max(times, default=0),
        event_count=len(lines),
        payload=b"\n".join(lines),
    )
    return msgspec.structs.replace(made, **changed)


def place(offset: int, at_ms: int = T0) -> Where:
    return Where("replay.batches", 3, offset, at_ms)


@dataclass
class Flow:
    """One session: each batch gets the next offset and what the one before left as state."""

    rules: Rules = field(default_factory=Rules)
    state: SessionState | None = None
    offset: int = 0
    at_ms: int = T0
    parts: dict[str, SessionUpdate] = field(default_factory=dict)

    def send(self, one: RecorderBatch, at_ms: int | None = None) -> Outcome:
        self.at_ms = self.at_ms if at_ms is None else at_ms
        outcome = step(self.state, one, place(self.offset, self.at_ms), self.rules)
        self.state = outcome.state
        self.offset += 1
        self.parts.update((each.part, each) for each in outcome.sessions)
        return outcome

    def clicks(self, batch_id: str, *times: int, **changed: Any) -> Outcome:
        return self.send(batch(batch_id, *(line("click", at) for at in times), **changed))
