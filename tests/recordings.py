"""Every captured recording, of all clients, and its way through the chain as it would go in: in batches, encoded."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from pipeline import settings
from pipeline.load.recordings import bundled
from pipeline.model.batches import Metadata, RecorderBatch, Source
from pipeline.model.events import SessionEvent, decode_payload, encode_payload
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs, PinnedIds
from pipeline.workers.chain import Outcome
from pipeline.workers.reference import RawRecord, reference_run
from pipeline.workers.rules import Rules

DATA = Path(__file__).with_name("data") / "recordings"
BYTES_MAX = 64 << 20
CODECS = Codecs(catalogue(settings.load({})), PinnedIds("replay."))
SENT_AFTER_MS = 500


class Captured(msgspec.Struct, frozen=True):
    """One line of the manifest. `typed`: canaries by class that the journey typed or navigated to; `found`: the classes that
    the events hold as captured, as `<event> <path>`: count. What a client masked itself is typed but not found."""

    name: str
    source: Source
    journey: str
    client_version: str
    events: int
    typed: dict[str, str]
    found: dict[str, dict[str, int]]

    @property
    def batch_events(self) -> int:
        return 25 if self.source == "portable" else 30


def manifest() -> list[Captured]:
    return msgspec.json.decode((DATA / "manifest.json").read_bytes(), type=list[Captured])


@functools.cache
def events_of(name: str) -> tuple[SessionEvent, ...]:
    """The events as captured, data unread. Portable recordings are those of the bundle."""
    if name.startswith("portable"):
        return tuple(next(each.recording.events for each in bundled() if each.name == name))
    packed = (DATA / f"{name}.jsonl.zst").read_bytes()
    return tuple(decode_payload(zstandard.ZstdDecompressor().decompress(packed, max_output_size=BYTES_MAX)))


def page_of(name: str) -> Metadata:
    """What the client's batches say of the page: its first URL."""
    first = next((data for data in map(decoded, events_of(name)) if {"href", "url"} & data.keys()), {})
    return Metadata(
        user_agent="Mozilla/5.0",
        viewport_width=1280,
        viewport_height=800,
        url=first.get("href") or first.get("url") or "",
    )


def decoded(event: SessionEvent) -> dict[str, Any]:
    """An event's data; every recorder here makes an object of it."""
    data = msgspec.json.decode(event.data)
    return data if isinstance(data, dict) else {}


def batches(captured: Captured) -> list[RecorderBatch]:
    """As a client sends them: in order, some events each."""
    events, size = events_of(captured.name), captured.batch_events
    return [
        batch_of(captured, first // size, list(events[first : first + size])) for first in range(0, len(events), size)
    ]


def batch_of(captured: Captured, number: int, events: list[SessionEvent]) -> RecorderBatch:
    times = [event.timestamp for event in events]
    sent_at = max(times) + SENT_AFTER_MS
    return RecorderBatch(
        tenant="acme", session_id=captured.name, window_id="w1", user_id="anonymous", batch_id=f"b{number}", sequence=number,
        source=captured.source, client_version=captured.client_version, imported=False, final=False, sent_at=sent_at,
        received_at=sent_at, metadata=page_of(captured.name), first_event_at=min(times), last_event_at=max(times),
        event_count=len(events), payload=encode_payload(events),
    )  # fmt: skip


UNTHROTTLED = Rules(mousemove_gap_ms=0, scroll_gap_ms=0)


@functools.cache
def outcomes(captured_name: str, *, throttled: bool = True) -> tuple[Outcome, ...]:
    """What the pure chain makes of a recording, batch by batch, from the bytes of replay.batches."""
    captured = next(each for each in manifest() if each.name == captured_name)
    records = [
        RawRecord("replay.batches", 0, n, each.received_at, b"", CODECS.batches.encode(each))
        for n, each in enumerate(batches(captured))
    ]
    return tuple(reference_run(records, CODECS.batches, Rules() if throttled else UNTHROTTLED))


def cleaned(name: str) -> list[SessionEvent]:
    """A recording's events as the chain lets them out."""
    return [event for outcome in outcomes(name) for event in decode_payload(outcome.clean.payload)]
