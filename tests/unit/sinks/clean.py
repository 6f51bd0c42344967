"""Clean batches as a worker writes them, for the tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.model.batches import CleanBatch, Metadata, PartStart, SessionUpdate

AUGUST_MS = 1_788_220_799_000  # 2026-08-31T23:59:59Z
SEPTEMBER_MS = AUGUST_MS + 1_000


def batch(offset: int, events: Sequence[tuple[Any, int, Any]] = (), **more: Any) -> CleanBatch:
    """One clean batch of (type, timestamp, data) events at a source offset; `more` replaces any field."""
    lines = [
        json.dumps({"type": kind, "timestamp": at, "data": data}, separators=(",", ":")).encode()
        for kind, at, data in events
    ]
    fields: dict[str, Any] = {
        "kind": "batch",
        "tenant": "acme",
        "session_id": "s1",
        "window_id": "w1",
        "user_id": "u1",
        "batch_id": f"b{offset}",
        "sequence": None,
        "source": "portable",
        "client_version": None,
        "imported": False,
        "final": False,
        "sent_at": AUGUST_MS,
        "received_at": AUGUST_MS,
        "metadata": Metadata(),
        "first_event_at": 0,
        "last_event_at": 0,
        "event_count": len(lines),
        "payload": b"\n".join(lines),
        "epoch": 1,
        "source_partition": 0,
        "source_offset": offset,
        "source_last_offset": offset,
        "source_at": AUGUST_MS,
        "retention": "30d",
        "part": "0",
        "next_parts": (),
        "clock_correction_ms": 0,
        "received_events": len(lines),
        "throttled": 0,
        "repeated": 0,
        "erased": 0,
        "dead_lettered": 0,
        "redacted": {},
        "late": False,
    }
    return CleanBatch(**{**fields, **more})


def clicks(offset: int, times: Sequence[int] = (AUGUST_MS,), **more: Any) -> CleanBatch:
    """A batch with one click a time."""
    return batch(offset, [("click", at, {"x": n, "y": offset}) for n, at in enumerate(times)], **more)


def lost(first: int, last: int) -> CleanBatch:
    """The record a worker writes for a range that retention took before it was read."""
    return batch(first, kind="lost", source_last_offset=last)


def part_start(index: int, part: str) -> PartStart:
    return PartStart(index=index, part=part)


def update(of: CleanBatch) -> SessionUpdate:
    """What a worker tells of the session's part after this batch."""
    numbers = {field.name: 0 for field in msgspec.structs.fields(SessionUpdate) if field.type is int}
    texts = {"first_url": "", "last_url": "", "user_agent": "", "status": "open", "close_reason": None, "urls": ()}
    same = {name: getattr(of, name) for name in ("tenant", "session_id", "part", "source", "user_id", "retention",
                                                 "epoch", "source_partition")}  # fmt: skip
    times = {"started_at": of.first_event_at, "ended_at": of.last_event_at, "revision": 2 * of.source_offset}
    return SessionUpdate(**{**numbers, **texts, **same, **times, "events": of.event_count})
