"""What lies on replay.clean and replay.sessions in a round, drawn from its seed. Pure.

First the truth is drawn: one clean batch a source offset, no hole. Then what crashed and sleeping workers leave on the topic is
added to it: repeats, copies above a hole, lost ranges that begin too early, records of another epoch. What the stores must
hold follows from the truth alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import msgspec

from pipeline.model.batches import CleanBatch, SessionUpdate
from tests.unit.sinks import clean

RECORDS = {1: 160, 4: 50}
"""Of one partition, by the number of partitions: enough flushes for every strike to meet its request."""
EVENTS_MAX = 5
EPOCH = 1
RETENTIONS = ("10y", "20y", "30y")
"""Long ones, or the rows go as soon as they come."""
SESSIONS = 6
KINDS = ("click", "input", "mousemove", "my-own")
HOUR_MS = 3_600_000
NOISE = 0.06


@dataclass(frozen=True)
class Log:
    """Of one partition."""

    truth: tuple[CleanBatch, ...]
    written: tuple[CleanBatch, ...]
    """replay.clean, record by record."""
    updates: tuple[SessionUpdate, ...]
    """replay.sessions, record by record."""


def draw(seed: int, partitions: int) -> list[Log]:
    return [_partition(random.Random(f"log {seed} {n}"), n, RECORDS[partitions]) for n in range(partitions)]


def _partition(rng: random.Random, number: int, records: int) -> Log:
    truth: list[CleanBatch] = []
    offset = 0
    while len(truth) < records:
        truth.append(_batch(rng, number, offset))
        offset = truth[-1].source_last_offset + 1
    return Log(tuple(truth), tuple(_written(rng, truth)), tuple(_updates(rng, truth)))


def _batch(rng: random.Random, partition: int, offset: int) -> CleanBatch:
    session = rng.randrange(SESSIONS)
    # The hours go by, and the events lie on both sides of a month's end: an insert then has two blocks.
    at_ms = clean.AUGUST_MS + offset * HOUR_MS // 50
    own = {
        "source_partition": partition, "source_at": at_ms, "epoch": EPOCH,
        "session_id": f"s{partition}-{session}", "tenant": ("acme", "other")[session % 2],
        "window_id": rng.choice(("w1", "w2")), "retention": RETENTIONS[session % len(RETENTIONS)],
    }  # fmt: skip
    kind = rng.choices(("batch", "empty", "repeat", "dead", "lost"), (80, 6, 5, 5, 4))[0]
    if kind == "lost":
        return clean.batch(offset, kind="lost", source_last_offset=offset + rng.randint(0, 9), **own)
    if kind != "batch":
        return clean.batch(offset, kind="batch" if kind == "empty" else kind, **own)
    events = [
        (rng.choice(KINDS), clean.SEPTEMBER_MS + rng.randint(-90_000, 90_000), {"at": [partition, offset, n]})
        for n in range(rng.randint(1, EVENTS_MAX))
    ]
    part = str(1 + offset // 60)
    starts = (
        (clean.part_start(rng.randrange(1, len(events)), f"{part}b"),) if len(events) > 1 and rng.random() < 0.2 else ()
    )
    return clean.batch(offset, events, part=part, next_parts=starts, **own)


def _written(rng: random.Random, truth: list[CleanBatch]) -> list[CleanBatch]:
    found: list[CleanBatch] = []
    for n, batch in enumerate(truth):
        if rng.random() < NOISE:  # a worker that crashed before its commit does its last ones again
            found += truth[max(0, n - rng.randint(1, 12)) : n]
        if rng.random() < NOISE:  # a sleeping one's, whose first record was lost in its time-out
            found += truth[n + 1 : n + 1 + rng.randint(1, 4)]
        if rng.random() < NOISE:
            found.append(msgspec.structs.replace(batch, epoch=EPOCH + 1))
        if batch.kind == "lost" and rng.random() < 0.5:  # retention took it from where the last commit was
            first = max(0, batch.source_offset - rng.randint(1, 5))
            batch = msgspec.structs.replace(batch, source_offset=first)  # noqa: PLW2901
        found.append(batch)
    return found


def _updates(rng: random.Random, truth: list[CleanBatch]) -> list[SessionUpdate]:
    """One after each batch that has events; some are written again, behind later ones."""
    found: list[SessionUpdate] = []
    for n, batch in enumerate(batch for batch in truth if batch.event_count):
        user = rng.choice(("anonymous", "ann", "bob"))
        found.append(_update(batch, n, user))
        if rng.random() < NOISE:
            found += found[-rng.randint(1, 10) :]
    return found


def _update(batch: CleanBatch, n: int, user: str) -> SessionUpdate:
    at = batch.source_at
    return SessionUpdate(
        tenant=batch.tenant, session_id=batch.session_id, part=batch.part, revision=2 * batch.source_offset,
        status="open", close_reason=None, source="portable", user_id=user, started_at=at, ended_at=at + n, duration_ms=n,
        active_ms=n, events=n, clicks=n, rage_clicks=0, inputs=0, scrolls=0, mouse_moves=0, navigations=0,
        console_errors=0, errors=0, throttled=0, redacted=0, late=0, first_url="", last_url="", urls=(f"http://a.test/{n}",),
        user_agent="ua", viewport_width=1, viewport_height=2, retention=batch.retention, epoch=EPOCH,
        source_partition=batch.source_partition,
    )  # fmt: skip
