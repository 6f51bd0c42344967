"""One partition through lives of a worker: crashes anywhere, records fetched again, closes and releases by the clock.

What comes out must be what a single run without a crash gives: the clean records byte for byte, and of every part the last
update, which a close by the clock may only close.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.batches import CleanBatch, RecorderBatch, SessionUpdate
from pipeline.workers.assigned import Touched
from pipeline.workers.reference import RawRecord, reference_run
from pipeline.workers.rules import Rules
from tests.unit.workers.flow import HOUR_MS, MINUTE_MS, T0, batch, line
from tests.unit.workers.test_assigned import CODEC, PARTITION, Message, Run

DAY_MS = 24 * HOUR_MS
CLICK = {"source": 2, "type": 2, "x": 1, "y": 1}
EVENTS: list[tuple[str | int, Any]] = [
    ("click", {"x": 1, "y": 1}), ("mousemove", {}), (3, CLICK), (3, {"source": 0}), (3, {"source": 2, "type": 5})]  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A record, and what happens after it."""

    session: str
    batch_id: str
    final: bool
    late_ms: int
    events: list[tuple[int, int]]
    """(which, ms from the one before)"""

    stream_ms: int
    crash: str | None
    """"in" the chunk: its outputs are out, its states are not. "after" it: both are. Then `back` records come again."""

    back: int
    tidy_at: float | None
    """By the clock, at this share of the time to the next record: above 1 the worker lags, and records wait."""


STEP = st.builds(
    Step,
    session=st.sampled_from(["s1", "s1", "s2"]),
    batch_id=st.sampled_from([f"b{n}" for n in range(9)]),
    final=st.sampled_from([False] * 7 + [True]),
    late_ms=st.sampled_from([0, 0, 0, 90, HOUR_MS, 3 * DAY_MS, 8 * DAY_MS]),
    events=st.lists(st.tuples(st.integers(0, len(EVENTS) - 1), st.sampled_from([1, 60, 2_500, HOUR_MS])), max_size=4),
    stream_ms=st.sampled_from([0, 5, 3_000, HOUR_MS, DAY_MS, DAY_MS + MINUTE_MS, DAY_MS + HOUR_MS, 31 * DAY_MS]),
    crash=st.sampled_from([None, None, "in", "after"]),
    back=st.integers(0, 3),
    tidy_at=st.none() | st.sampled_from([0.0, 0.5, 0.99, 1.0, 30.0]),
)


def records(steps: list[Step]) -> list[RawRecord]:
    found, at = [], T0
    for offset, each in enumerate(steps):
        at += each.stream_ms
        times = [sum(ms for _, ms in each.events[n + 1 :]) for n in range(len(each.events))]
        lines = [
            line(*(EVENTS[which][0], at - each.late_ms - before, EVENTS[which][1]))
            for (which, _), before in zip(each.events, times, strict=True)
        ]
        one: RecorderBatch = batch(
            each.batch_id, *lines, session_id=each.session, final=each.final, source="rrweb", sent_at=at, received_at=at
        )
        found.append(RawRecord("replay.batches", PARTITION, offset, at, b"key", CODEC.encode(one)))
    return found


def live(steps: list[Step], raw: list[RawRecord]) -> Run:
    """The worker's lives: the states of the crashed chunk are lost, committed is what was written before."""
    run, next_offset = Run(), 0
    crashed: set[int] = set()
    clock = 0
    run.restart(0)
    while next_offset < len(raw):
        offset, record, each = next_offset, raw[next_offset], steps[next_offset]
        assert run.assigned is not None
        touched: Touched = {}
        run.assigned.record(Message(offset, record.value or b"", record.timestamp_ms / 1000, key=b"key"), touched)
        next_offset += 1
        dies = each.crash is not None and offset not in crashed
        if not (dies and each.crash == "in"):
            run.assigned.write_states(touched)
        if dies:
            crashed.add(offset)
            next_offset = max(0, offset - each.back)
            run.restart(next_offset)
        elif each.tidy_at is not None:
            following = raw[next_offset].timestamp_ms if next_offset < len(raw) else record.timestamp_ms + 40 * DAY_MS
            clock = max(clock, record.timestamp_ms + int(each.tidy_at * (following - record.timestamp_ms)))
            waiting = [other for other in raw[next_offset:] if other.timestamp_ms <= clock]
            run.tidy(clock, read_up=not waiting)
    return run


def last_updates(updates: list[SessionUpdate]) -> dict[tuple[str, str], SessionUpdate]:
    last: dict[tuple[str, str], SessionUpdate] = {}
    for each in updates:
        key = (each.session_id, each.part)
        if key not in last or each.revision >= last[key].revision:
            last[key] = each
    return last


@settings(deadline=None, max_examples=150)
@given(steps=st.lists(STEP, min_size=1, max_size=14))
def test_any_lives_of_a_worker_give_what_one_life_gives(steps: list[Step]) -> None:
    raw = records(steps)
    wanted = list(reference_run(raw, CODEC, Rules()))
    run = live(steps, raw)
    by_offset: dict[int, CleanBatch] = {}
    for clean in run.outputs.cleans:
        assert by_offset.setdefault(clean.source_offset, clean) == clean, "a repeated record has the same bytes"
    assert by_offset == {outcome.clean.source_offset: outcome.clean for outcome in wanted}
    dead = {each.source_offset: each for each in run.outputs.dead}
    assert dead == {outcome.dead.source_offset: outcome.dead for outcome in wanted if outcome.dead}
    told = last_updates(run.outputs.sessions)
    expected = last_updates([update for outcome in wanted for update in outcome.sessions])
    assert told.keys() == expected.keys()
    for key, update in told.items():
        if update.revision % 2:
            closed = msgspec.structs.replace(
                expected[key], status="closed", close_reason="idle", revision=update.revision
            )
            assert (expected[key].status, update) == ("open", closed)
            assert update.revision >= expected[key].revision
        else:
            assert update == expected[key]
