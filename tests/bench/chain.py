"""The pure chain on one core, over every captured recording, against the same chain reading everything.

A round takes each workload once through `step`, session by session, in batches as clients send them; the Avro codec and
Kafka come on top. The baseline decodes, walks and writes anew every event that the throttle keeps: what redaction is
without a gate and without splices.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from unittest import mock

from pipeline.model.batches import RecorderBatch
from pipeline.workers import chain
from pipeline.workers.chain import Where, step
from pipeline.workers.redact.events import Redactor
from pipeline.workers.rules import Rules
from pipeline.workers.state import SessionState
from tests.bench.rounds import interleaved, tell
from tests.recordings import batch_of, events_of, manifest

ROUNDS = 7
SECONDS_A_SIDE = 0.3
RRWEB_EVENTS = 12
"""A batch of rrweb's or posthog-js' events as sent has 12 to 30 of them; the fewer, the more of the cost is the batch's."""
SMALL_BYTES = 60_000
HUGE_BYTES = 1_000_000
FULL_SNAPSHOT = 2

CHAIN, BASELINE = "chain", "chain reading everything"
_reading_everything = functools.partial(Redactor, gated=False)


def workloads() -> dict[str, list[RecorderBatch]]:
    found: dict[str, list[RecorderBatch]] = {}
    for captured in manifest():
        events, hostile = list(events_of(captured.name)), captured.name.startswith("portable-hostile")
        if captured.source != "portable":
            made = [
                batch_of(captured, at, events[at : at + RRWEB_EVENTS]) for at in range(0, len(events), RRWEB_EVENTS)
            ]
            kind = "rrweb" if captured.source == "rrweb" else "posthog-js"
            found.setdefault(f"{kind}, {RRWEB_EVENTS}", []).extend(b for b in made if len(b.payload) < SMALL_BYTES)
            found.setdefault("all but hostile and huge", []).extend(b for b in made if len(b.payload) < HUGE_BYTES)
            _snapshots(
                found, [batch_of(captured, at, [each]) for at, each in enumerate(events) if each.type == FULL_SNAPSHOT]
            )
            continue
        for size in (25, 100):
            name = f"portable, {'hostile' if hostile else 'conforming'}, {size}"
            made = [batch_of(captured, at, events[at : at + size]) for at in range(0, len(events), size)]
            found.setdefault(name, []).extend(made)
            if size == 25 and not hostile:
                found.setdefault("all but hostile and huge", []).extend(made)
    return found


def _snapshots(found: dict[str, list[RecorderBatch]], alone: list[RecorderBatch]) -> None:
    for each in alone:
        if len(each.payload) > HUGE_BYTES:
            found.setdefault("full snapshots of 3.5 MB", []).append(each)
        elif len(each.payload) > SMALL_BYTES:
            found.setdefault("full snapshots of 60 to 90 KB", []).append(each)


def main() -> None:
    for name, batches in workloads().items():
        events = sum(each.event_count for each in batches)
        size = sum(len(each.payload) for each in batches)
        rates = interleaved(
            {
                CHAIN: functools.partial(_rate, batches, Redactor),
                BASELINE: functools.partial(_rate, batches, _reading_everything),
            },
            ROUNDS,
        )
        print(f"\n{name}: {len(batches)} batches, {events:,} events, {size / events / 1000:.2f} kB an event")
        tell(rates, baseline=BASELINE, unit="events/s")
        print(f"{'':<34} {max(rates[CHAIN]) * size / events / 1e6:>11,.0f} MB/s at best", flush=True)


def _rate(batches: list[RecorderBatch], redactor: Callable[..., Redactor]) -> float:
    """Events a second of processor time, the best of those passes that fit into the time of a side."""
    with mock.patch.object(chain, "Redactor", redactor):
        until, best = time.monotonic() + SECONDS_A_SIDE, 0.0
        while not best or time.monotonic() < until:
            best = max(best, sum(each.event_count for each in batches) / _seconds(batches))
    return best


def _seconds(batches: list[RecorderBatch]) -> float:
    rules, states = Rules(), dict[str, SessionState | None]()
    begun = time.process_time()
    for offset, batch in enumerate(batches):
        where = Where("replay.batches", 0, offset, batch.received_at)
        states[batch.session_id] = step(states.get(batch.session_id), batch, where, rules).state
    return time.process_time() - begun


if __name__ == "__main__":
    main()
