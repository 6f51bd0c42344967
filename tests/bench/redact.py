"""The chain over the bundled recordings, and the same with a redaction that reads every event: events a second and MB/s."""

from __future__ import annotations

import time
from collections import Counter

from pipeline.load.recordings import bundled
from pipeline.model.batches import Metadata, RecorderBatch
from pipeline.model.events import SessionEvent, encode_payload
from pipeline.workers.chain import Where, step
from pipeline.workers.redact.events import Redactor
from pipeline.workers.redact.rules import BUILT_IN
from pipeline.workers.redact.typed import Typed
from pipeline.workers.rules import Rules

ROUNDS = 7
AT_MS = 1_795_449_000_000


def main() -> None:
    for hostile in (False, True):
        recordings = [each.recording.events for each in bundled() if each.hostile is hostile]
        for size in (25, 100):
            sessions = [[_batch(number, at, events[at : at + size]) for at in range(0, len(events), size)]
                        for number, events in enumerate(recordings)]  # fmt: skip
            events = sum(map(len, recordings))
            size_bytes = sum(len(batch.payload) for session in sessions for batch in session)
            best = min(_seconds(sessions) for _ in range(ROUNDS))
            name = "hostile" if hostile else "conforming"
            print(f"step, {name} / {size}: {events / best:,.0f} events/s, {size_bytes / best / 1e6:.1f} MB/s")
        for gated in (True, False):
            best = min(_redact_seconds(recordings, gated) for _ in range(3))
            print(
                f"redaction alone, {'gated' if gated else 'reading all'}: {sum(map(len, recordings)) / best:,.0f} events/s"
            )


def _seconds(sessions: list[list[RecorderBatch]]) -> float:
    rules = Rules()
    begun = time.perf_counter()
    for session in sessions:
        state = None
        for offset, batch in enumerate(session):
            state = step(state, batch, Where("b", 0, offset, AT_MS), rules).state
    return time.perf_counter() - begun


def _redact_seconds(recordings: list[list[SessionEvent]], gated: bool) -> float:
    begun = time.perf_counter()
    for events in recordings:
        typed = Typed()
        for at in range(0, len(events), 25):
            redactor = Redactor(BUILT_IN, typed, Counter(), gated=gated)
            redactor.clean(events[at : at + 25])
            typed = redactor.typed
    return time.perf_counter() - begun


def _batch(number: int, at: int, events: list[SessionEvent]) -> RecorderBatch:
    times = [event.timestamp for event in events]
    return RecorderBatch(
        tenant="t", session_id=f"s{number}", window_id="w", user_id="u", batch_id=f"b{at}", sequence=None,
        source="portable", client_version=None, imported=True, final=False, sent_at=times[-1], received_at=AT_MS,
        metadata=Metadata(url="http://shop.example.test/"), first_event_at=min(times), last_event_at=max(times),
        event_count=len(events), payload=encode_payload(events),
    )  # fmt: skip


if __name__ == "__main__":
    main()
