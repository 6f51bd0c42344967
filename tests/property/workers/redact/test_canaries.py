"""Secrets of every kind, in random encodings, at random places of real recordings of all clients: through the chain, none
is left in what leaves it: clean record, session updates, encoded state."""

from __future__ import annotations

import json
import random
import secrets
from collections import Counter
from functools import cache
from typing import Any

import msgspec
import pytest

from pipeline.model.batches import Metadata
from pipeline.model.events import PORTABLE_TYPES, SessionEvent
from pipeline.workers.chain import Where, step
from pipeline.workers.rules import Rules
from pipeline.workers.state import encode_state
from tests.canaries import forms, opened
from tests.planting import (
    ENCODINGS,
    FULL_SNAPSHOT,
    KINDS,
    Canary,
    among,
    at_place,
    draw,
    places,
    put,
    put_at,
    style_places,
    with_text,
)
from tests.recordings import events_of, manifest
from tests.unit.workers.flow import T0, batch

CASES_EACH = 6_000
CASES_A_BATCH = 10
STYLE_CASES = 300
DATA_BYTES_MAX = 4_000
SNAPSHOT_BYTES_MAX = 10_000
"""Larger events are the recordings' own test; here they would only be slow."""

THROTTLED = {"mousemove", "scroll"}
PLACES = {
    "snapshot text", "snapshot attribute", "mutation text", "mutation attribute", "added text", "added attribute", "input",
    "page address", "custom event", "plugin rrweb/console@1", "plugin rrweb/network@1",
}  # fmt: skip


@cache
def portable() -> dict[str, list[Any]]:
    """By type: the data of such events, of clients that redact themselves and of those that do not."""
    found: dict[str, list[Any]] = {}
    for each in manifest():
        for event in events_of(each.name) if each.source == "portable" else ():
            if event.type not in THROTTLED and len(event.data) < DATA_BYTES_MAX:
                found.setdefault(str(event.type), []).append(json.loads(bytes(event.data)))
    return found


@cache
def rrweb() -> dict[str, list[tuple[Any, Any, list[Any]]]]:
    """By the sort of place: (type, data, the paths of such places in it)."""
    found: dict[str, list[tuple[Any, Any, list[Any]]]] = {}
    for each in manifest():
        for event in () if each.source == "portable" else events_of(each.name):
            if isinstance(event.type, int) and _is_small(event):
                data = with_text(json.loads(bytes(event.data)))
                for sort, paths in places(event.type, data).items():
                    found.setdefault(sort, []).append((event.type, data, paths))
    return found


def small_snapshots() -> list[Any]:
    return [
        json.loads(bytes(event.data))
        for each in manifest()
        if each.source != "portable"
        for event in events_of(each.name)
        if event.type == FULL_SNAPSHOT and _is_small(event)
    ]


def _is_small(event: SessionEvent) -> bool:
    return len(event.data) < (SNAPSHOT_BYTES_MAX if event.type == FULL_SNAPSHOT else DATA_BYTES_MAX)


def in_portable(canary: Canary, rng: random.Random) -> tuple[str, dict[str, Any]]:
    kind = rng.choice(sorted(portable()))
    return kind, {"type": kind, "data": put(rng.choice(portable()[kind]), canary.spelled, rng)}


def in_rrweb(canary: Canary, rng: random.Random) -> tuple[str, dict[str, Any]]:
    sort = rng.choice(sorted(rrweb()))
    kind, data, paths = rng.choice(rrweb()[sort])
    return sort, {"type": kind, "data": put_at(data, rng.choice(paths), among(canary.spelled, rng))}


def left_of(lines: list[bytes], number: int, address: str, source: str) -> bytes:
    """All that the chain gives for a batch, opened."""
    raw = msgspec.structs.replace(
        batch(f"b{number}", *lines, source=source),
        metadata=Metadata(url=address, user_agent=address),
        client_version=address,
    )
    outcome = step(None, raw, Where("replay.batches", 0, number, T0 + number), Rules())
    assert outcome.state is not None
    left = [outcome.clean.payload, msgspec.json.encode(outcome.clean), msgspec.json.encode(outcome.sessions)]
    return opened(b"\n".join([*left, encode_state(outcome.state)]))


def test_there_are_recorded_events_for_every_place() -> None:
    assert rrweb().keys() == PLACES
    assert portable().keys() == set(PORTABLE_TYPES) - THROTTLED


@pytest.mark.parametrize(("source", "plant"), [("portable", in_portable), ("rrweb", in_rrweb)])
def test_no_canary_is_left(source: str, plant: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    tried: Counter[str] = Counter()
    with capsys.disabled():
        print(f"\ncanaries in {source} events: {CASES_EACH:,} cases, seed {seed}")
    for first in range(0, CASES_EACH, CASES_A_BATCH):
        lines, planted = [], []
        for at in range(CASES_A_BATCH):
            canary = draw(rng)
            place, event = plant(canary, rng)
            event["timestamp"] = T0 + first + at
            lines.append(json.dumps(event, ensure_ascii=rng.random() < 0.3, separators=(",", ":")).encode())
            planted.append((canary, place, event))
            tried.update([canary.kind, canary.encoding, place])
        in_address = draw(rng, "query", "plain")
        seen = left_of(lines, first, in_address.text, source)
        assert in_address.secret.encode() not in seen, seed
        for canary, place, event in planted:
            told = [form for form in forms(canary.secret) if form in seen]
            assert told == [], (seed, canary, place, event)
    assert {*KINDS, *ENCODINGS} <= tried.keys()
    assert tried.keys() >= (portable() if source == "portable" else rrweb()).keys()


def test_style_stays_whatever_stands_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    with capsys.disabled():
        print(f"\nstyle: {STYLE_CASES} cases, seed {seed}")
    snapshots = [(data, list(style_places(data))) for data in small_snapshots()]
    for number in range(STYLE_CASES):
        data, paths = rng.choice([each for each in snapshots if each[1]])
        path, canary = rng.choice(paths), draw(rng)
        planted = put_at(data, path, f"{at_place(data, path)} .is::after {{ content: '{canary.spelled}' }}")
        text = {"id": 1, "value": draw(rng, "email", "plain").spelled}  # so that there is something to redact beside it
        event = {"type": 2, "timestamp": T0, "data": {**planted, "note": text}}
        raw = batch(f"b{number}", json.dumps(event, separators=(",", ":")).encode(), source="rrweb")
        left = json.loads(step(None, raw, Where("replay.batches", 0, number, T0), Rules()).clean.payload)
        assert left["data"]["note"] == {"id": 1, "value": "[REDACTED]"}
        assert at_place(left["data"], path) == at_place(planted, path), (seed, path, canary)
