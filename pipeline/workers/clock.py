"""Clients' clocks: a session whose clock is wrong is shifted as a whole, and what is then too old or too new is told apart.

Pure. All times in milliseconds. A correction is a multiple of CORRECTION_STEP_MS, decided once for a session by its first
live batch: finer or repeated corrections would reorder its events.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import msgspec

from pipeline.model.batches import DeadReason, RecorderBatch
from pipeline.model.events import SessionEvent, encode_payload
from pipeline.workers.rules import Rules

CORRECTION_STEP_MS = 300_000


def correction_ms(sent_at: int, received_at: int) -> int:
    """What to add to a client's times: nothing below the step, then the multiple of it that is nearest to the skew."""
    skew_ms = received_at - sent_at
    size_ms = abs(skew_ms)
    if size_ms < CORRECTION_STEP_MS:
        return 0
    rounded_ms = (size_ms + CORRECTION_STEP_MS // 2) // CORRECTION_STEP_MS * CORRECTION_STEP_MS
    return rounded_ms if skew_ms > 0 else -rounded_ms


def shift(events: list[SessionEvent], by_ms: int) -> None:
    """Moves the events in time, in place."""
    if by_ms:
        for event in events:
            event.timestamp += by_ms


def outside(events: list[SessionEvent], at_ms: int, rules: Rules) -> tuple[int, int, DeadReason | None]:
    """Of events sorted by time: (first, end) of those within the age limits at stream time `at_ms`, and why the others
    are not: None where there are none; too_old goes before too_new. An age of exactly the limit is within."""
    oldest, newest = at_ms - rules.event_age_max_ms, at_ms + rules.event_ahead_max_ms
    if not events or oldest <= events[0].timestamp <= events[-1].timestamp <= newest:
        return 0, len(events), None
    first = bisect_left(events, oldest, key=_timestamp)
    end = bisect_right(events, newest, key=_timestamp)
    return first, end, "too_old" if first else "too_new"


def as_batch(batch: RecorderBatch, events: list[SessionEvent], batch_id: str) -> RecorderBatch:
    """The events as a batch of their own, as the client sent them: what a dead letter holds and a retry can send."""
    return msgspec.structs.replace(
        batch,
        batch_id=batch_id,
        final=False,
        first_event_at=events[0].timestamp,
        last_event_at=events[-1].timestamp,
        event_count=len(events),
        payload=encode_payload(events),
    )


def _timestamp(event: SessionEvent) -> int:
    return event.timestamp
