"""Batches that clients sent again, in another order, in other requests: each counts once, wherever it comes first."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from pipeline import settings
from pipeline.load.recordings import bundled
from pipeline.model.batches import CleanBatch, RecorderBatch
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs, PinnedIds
from pipeline.workers.reference import RawRecord, reference_run
from pipeline.workers.rules import Rules
from tests.property.workers.naive_throttle import Throttle
from tests.unit.workers.flow import batch

CAPTURED = Path(__file__).parents[2] / "data" / "retries" / "posthog-article-scroll.json.zst"
CODECS = Codecs(catalogue(settings.load({})), PinnedIds("replay."))
UNTHROTTLED = Rules(mousemove_gap_ms=0, scroll_gap_ms=0)
ITEMS, ITEMS_AGAIN, EVENTS = 8, 4, 100
"""Of the capture, as counted when it was taken: different items, items sent again, rrweb events in the different ones."""


@cache
def capture() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zstandard.decompress(CAPTURED.read_bytes()))
    return found


def batch_of(uuid: str) -> RecorderBatch:
    """An item of posthog's is one batch, its uuid the batch's id."""
    item = capture()["items"][uuid]
    lines = [json.dumps(each, separators=(",", ":"), ensure_ascii=False).encode() for each in item["events"]]
    ids = {"session_id": item["session_id"], "window_id": item["window_id"], "user_id": item["distinct_id"]}
    return batch(uuid, *lines, source="posthog", **ids)


def as_sent() -> list[str]:
    return [uuid for request in capture()["requests"] for uuid in request["items"]]


def portable() -> dict[str, RecorderBatch]:
    recording = next(each for each in bundled() if each.name == "portable-hostile-article-scroll").recording
    lines = [msgspec.json.encode(event) for event in recording.events]
    return {f"b{n}": batch(f"b{n}", *lines[n : n + 30]) for n in range(0, len(lines), 30)}


def run(batches: list[RecorderBatch], rules: Rules) -> list[CleanBatch]:
    at_ms = max(each.last_event_at for each in batches)
    records = [
        RawRecord("replay.batches", 0, n, at_ms + n, b"", CODECS.batches.encode(each)) for n, each in enumerate(batches)
    ]
    return [each.clean for each in reference_run(records, CODECS.batches, rules)]


def events_of(batches: list[RecorderBatch] | list[CleanBatch]) -> list[str]:
    """All events, as text that does not depend on spelling, sorted."""
    lines = [line for each in batches for line in each.payload.split(b"\n") if line]
    return sorted(json.dumps(json.loads(line), sort_keys=True) for line in lines)


def orders(names: list[str]) -> dict[str, list[str]]:
    """The same batches as sent; later ones first; each retry at once; retries of all at the end; three shuffles."""
    once = list(dict.fromkeys(names))
    found = {
        "as sent": names,
        "newest first": names[::-1],
        "each twice at once": [name for each in once for name in (each, each)],
        "all again at the end": [*once, *once],
        "all again backwards": [*once, *once[::-1]],
    }
    for seed in (1, 2, 3):
        shuffled = [*names, *once]
        random.Random(seed).shuffle(shuffled)
        found[f"shuffled {seed}"] = shuffled
    return found


def test_capture_is_the_one_that_was_counted() -> None:
    assert len(capture()["items"]) == ITEMS
    assert len(as_sent()) == ITEMS + ITEMS_AGAIN
    assert sum(len(item["events"]) for item in capture()["items"].values()) == EVENTS


def test_items_sent_again_are_counted_and_dropped() -> None:
    cleans = run([batch_of(uuid) for uuid in as_sent()], UNTHROTTLED)
    assert [clean.kind for clean in cleans].count("repeat") == ITEMS_AGAIN
    assert sum(clean.event_count for clean in cleans) == EVENTS
    again = sum(len(capture()["items"][uuid]["events"]) for uuid in as_sent()) - EVENTS
    assert sum(clean.repeated for clean in cleans) == again
    assert all(clean.payload == b"" for clean in cleans if clean.kind == "repeat")


@pytest.mark.parametrize("order", list(orders(["a", "b"])))
@pytest.mark.parametrize("client", ["posthog", "portable"])
def test_every_order_of_the_same_batches_stores_the_same_events_once(client: str, order: str) -> None:
    if client == "posthog":
        made = {uuid: batch_of(uuid) for uuid in capture()["items"]}
        names = orders(as_sent())[order]
    else:
        made = portable()
        names = orders(list(made))[order]
    cleans = run([made[name] for name in names], UNTHROTTLED)
    assert events_of(cleans) == events_of(run(list(made.values()), UNTHROTTLED))
    assert sum(clean.event_count for clean in cleans) == sum(each.event_count for each in made.values())
    assert sum(clean.repeated for clean in cleans) == sum(made[name].event_count for name in names) - sum(
        each.event_count for each in made.values()
    )


def what(event: dict[str, Any]) -> tuple[Any, int, Any]:
    data = event["data"]
    return event["type"], event["timestamp"], data.get("positions") if isinstance(data, dict) else None


@pytest.mark.parametrize("order", list(orders(["a", "b"])))
@pytest.mark.parametrize("client", ["posthog", "portable"])
def test_in_every_order_the_throttle_is_that_of_the_naive_rule(client: str, order: str) -> None:
    made = {uuid: batch_of(uuid) for uuid in capture()["items"]} if client == "posthog" else portable()
    names = orders(as_sent() if client == "posthog" else list(made))[order]
    model, seen = Throttle({"mousemove": 200}), set()
    for name, clean in zip(names, run([made[name] for name in names], Rules(mousemove_gap_ms=200)), strict=True):
        received = [] if name in seen else [json.loads(line) for line in made[name].payload.split(b"\n")]
        seen.add(name)
        wanted = model.batch("w", received)
        stored = [json.loads(line) for line in clean.payload.split(b"\n") if line]
        assert [what(each) for each in stored] == [what(each) for each in wanted]
        assert clean.throttled == len(received) - len(wanted)
