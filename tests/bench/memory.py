"""A worker's memory while 200,000 sessions pass through its real state keeping and 10,000 are alive: flat."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import settings
from pipeline.model.batches import Metadata, RecorderBatch
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs, PinnedIds
from pipeline.workers.assigned import Assigned, Touched
from pipeline.workers.breaker import Breaker
from pipeline.workers.keeping import Sessions
from pipeline.workers.rules import Rules
from pipeline.workers.sessionize import RELEASE_MARGIN_MS
from pipeline.workers.store import Partition

SESSIONS, ALIVE = 200_000, 10_000
TOLD_AT = (20_000, 50_000, 100_000, 150_000, 200_000)
BEGINS_MS = 1_795_449_000_000
EVENTS = 3
TIDY_EVERY = 20
"""Housekeepings while one generation of sessions passes."""

PAGE_BYTES = 4096
RULES = Rules()


@dataclass
class _Message:
    offset: int
    value: bytes
    timestamp: float
    topic: str = "replay.batches"
    partition: int = 0
    key: bytes = b""


class Nowhere:
    """Outputs that are counted and let go, as acked messages are."""

    def __init__(self) -> None:
        self.cleans = self.updates = self.states = 0

    def clean(self, *_: Any) -> None:
        self.cleans += 1

    def session(self, *_: Any) -> None:
        self.updates += 1

    def dead_letter(self, *_: Any) -> None:
        raise AssertionError("nothing here is unreadable")

    def state(self, *_: Any) -> None:
        self.states += 1


def passing(sessions: int, alive: int, outputs: Nowhere) -> Iterator[tuple[int, Assigned]]:
    """(sessions passed so far, the keeping) after each housekeeping. A session is one batch; its state is held
    for the grace, so `alive` of them are held at any time."""
    codec = Codecs(catalogue(settings.load({})), PinnedIds("replay.")).batches
    keeping = Sessions()
    breaker = Breaker(consecutive_max=1, percent_max=0)
    assigned = Assigned(1, {0: Partition(0, keeping)}, outputs, codec, RULES, breaker, lambda _: 0)
    every_ms = (RULES.session_grace_ms + RELEASE_MARGIN_MS) // alive
    for number in range(sessions):
        at_ms = BEGINS_MS + number * every_ms
        touched: Touched = {}
        assigned.record(_Message(number, codec.encode(_batch(number, at_ms)), at_ms / 1000), touched)
        assigned.write_states(touched)
        if (number + 1) % (alive // TIDY_EVERY) == 0:
            assigned.tidy(at_ms, lambda _: True)
            yield number + 1, assigned


def _batch(number: int, at_ms: int) -> RecorderBatch:
    lines = [
        b'{"type":"click","timestamp":%d,"data":{"x":%d,"y":5,"target":"button#buy","text":"Buy"}}' % (at_ms + n, n)
        for n in range(EVENTS)
    ]
    return RecorderBatch(
        tenant="acme", session_id=f"session-{number:08}-2f9c", window_id=f"window-{number:08}", user_id=f"user-{number:08}",
        batch_id=f"batch-{number:08}", sequence=0, source="portable", client_version="1.0", imported=False,
        final=False, sent_at=at_ms, received_at=at_ms,
        metadata=Metadata(user_agent="Mozilla/5.0 (X11; Linux x86_64)", url=f"http://shop.example.test/product?id={number % 100}"),
        first_event_at=at_ms, last_event_at=at_ms + len(lines) - 1, event_count=len(lines), payload=b"\n".join(lines),
    )  # fmt: skip


def resident_mib() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / (1 << 20)


def main() -> None:
    begun = time.monotonic()
    print(f"before: {resident_mib():.0f} MiB resident")
    for passed, assigned in passing(SESSIONS, ALIVE, Nowhere()):
        if passed in (ALIVE, *TOLD_AT):
            live = len(assigned.partitions[0].sessions)
            print(f"{passed:>7,} sessions passed, {live:,} alive: {resident_mib():.1f} MiB resident", flush=True)
    print(f"{SESSIONS / (time.monotonic() - begun):,.0f} batches/s, state keeping and decoding included")


if __name__ == "__main__":
    main()
