"""Clients' clocks: a session whose clock is wrong is shifted as a whole, and what is then too old or too new is told apart.

Pure. All times in milliseconds. A correction is a multiple of CORRECTION_STEP_MS, decided once for a session by its first
live batch: finer or repeated corrections would reorder its events.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import msgspec

from pipeline.errors import PoisonError
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


@dataclass(frozen=True)
class Where:
    """Where a raw record stood: its topic, partition, offset, and its LogAppendTime (stream time, ms)."""

    topic: str
    partition: int
    offset: int
    at_ms: int


@dataclass(frozen=True)
class Refused:
    """Those events of a batch that go to the dead letters while the others go on, as the client sent them."""

    reason: DeadReason
    detail: str
    batch: RecorderBatch


class Timed(msgspec.Struct, frozen=True, gc=False):
    """A batch's events by the corrected clock and within the age limits. `session_correction_ms` is what the session's
    state is to hold: None where no live batch has been judged yet."""

    events: list[SessionEvent]
    correction_ms: int
    session_correction_ms: int | None
    refused: Refused | None


def in_time(
    events: list[SessionEvent], batch: RecorderBatch, known_ms: int | None, where: Where, rules: Rules
) -> Timed:
    """Corrects the clock, by `known_ms` where the session has been judged already, then judges ages at stream time.
    A recording handed in whole is what it is: neither applies to it. Refused events get a batch id made of `where`.

    Raises PoisonError (too_old, too_new) where all events are outside.
    """
    if batch.imported:
        return Timed(events, 0, known_ms, None)
    correction = correction_ms(batch.sent_at, batch.received_at) if known_ms is None else known_ms
    shift(events, correction)
    first, end, why = outside(events, where.at_ms, rules)
    if why is None:
        return Timed(events, correction, correction, None)
    others = events[:first] + events[end:]
    detail = (
        f"{len(others)} of {len(events)} events are older than {rules.event_age_max_ms} ms or further than "
        f"{rules.event_ahead_max_ms} ms in the future, after a clock correction of {correction} ms"
    )
    if len(others) == len(events):
        raise PoisonError(why, detail)
    shift(others, -correction)
    alone = msgspec.structs.replace(
        batch,
        batch_id=f"outside.{rules.epoch}.{where.partition}.{where.offset}",
        final=False,
        first_event_at=others[0].timestamp,
        last_event_at=others[-1].timestamp,
        event_count=len(others),
        payload=encode_payload(others),
    )
    return Timed(events[first:end], correction, correction, Refused(why, detail, alone))


def _timestamp(event: SessionEvent) -> int:
    return event.timestamp
