"""A plan of traffic: who sends which batch how, in which order. Pure: the demo carries it out and knows what to expect.

Clients are imitated as they are: most batches go over HTTP, some of them twice (a retry after a lost answer); a service
pushes straight onto Kafka; one session is handed in whole; and something that is no recording reaches the topic.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.load.recordings import Bundled, relive
from pipeline.model.events import SessionEvent, SessionRecording

Way = Literal["http", "kafka", "import", "poison"]

BATCH_EVENTS = 100
RETRY_EVERY = 10
"""Every so many HTTP batches one is sent twice."""

BROKEN_PAYLOAD = b'{"type":"click"'
BROKEN_EVENTS = 3
THROTTLED_TYPES = frozenset({"mousemove", "scroll"})


@dataclass(frozen=True)
class Sending:
    """One thing to send. `events` is empty for `poison`; an `import` carries its whole recording."""

    way: Way
    session_id: str
    user_id: str
    batch_id: str
    sequence: int
    events: tuple[SessionEvent, ...]
    recording: SessionRecording
    final: bool
    repeat: bool


@dataclass(frozen=True)
class Expected:
    """What must come out, told without the workers' rules: all but throttled types arrive whole, each event once."""

    sent: int
    repeated: int
    dead_lettered: int
    by_type: dict[str, int]
    """Events sent once each, by type: for types that are never throttled this is what must be stored."""


def plan(bundle: list[Bundled], *, run_id: str, now_ms: int, copies: int) -> list[Sending]:
    """Every recording of the bundle `copies` times, each a session of its own, interleaved as if they ran at once."""
    streams = []
    for copy, item in itertools.product(range(copies), bundle):
        session_id = f"{run_id}-{item.name}-{copy + 1}"
        lived = relive(item.recording, session_id=session_id, user_id=f"{run_id}-user-{copy + 1}", ends_at=now_ms)
        way: Way = "http"
        if copy == 0 and item.name == bundle[0].name:
            way = "import"
        elif item.name == bundle[-1].name:
            way = "kafka"
        streams.append(_session(lived, way))
    sendings = [each for round_ in itertools.zip_longest(*streams) for each in round_ if each is not None]
    sendings = _with_retries(sendings)
    first = sendings[0]
    poison = Sending(
        "poison",
        f"{run_id}-poison",
        first.user_id,
        f"{run_id}-poison",
        0,
        (),
        first.recording,
        final=False,
        repeat=False,
    )
    middle = len(sendings) // 2
    return [*sendings[:middle], poison, *sendings[middle:]]


def expected(sendings: list[Sending]) -> Expected:
    """The sums that the demo checks against what arrived."""
    by_type: Counter[str] = Counter()
    sent = repeated = dead = 0
    for each in sendings:
        if each.way == "poison":
            dead += BROKEN_EVENTS
            continue
        sent += len(each.events)
        if each.repeat:
            repeated += len(each.events)
        else:
            by_type.update(str(event.type) for event in each.events)
    return Expected(sent + dead, repeated, dead, dict(by_type))


def _session(recording: SessionRecording, way: Way) -> Iterator[Sending]:
    events = recording.events
    size = len(events) if way == "import" else BATCH_EVENTS
    starts = range(0, len(events), size)
    for sequence, start in enumerate(starts):
        yield Sending(
            way,
            recording.session_id,
            recording.user_id,
            f"b{sequence}",
            sequence,
            tuple(events[start : start + size]),
            recording,
            final=start == starts[-1],
            repeat=False,
        )


def _with_retries(sendings: list[Sending]) -> list[Sending]:
    """Every RETRY_EVERYth HTTP batch comes once more, right after the next one: later data arrives before the retry."""
    out: list[Sending] = []
    waiting: list[Sending] = []
    for number, each in enumerate(sendings, 1):
        out.append(each)
        out += waiting
        waiting = []
        if each.way == "http" and number % RETRY_EVERY == 0:
            waiting = [dataclasses.replace(each, repeat=True)]
    return out + waiting
