"""The reference run over the bundled recordings, and what of it does not depend on how a recording is cut into batches."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec
import pytest

from pipeline import settings
from pipeline.errors import RetryableError
from pipeline.load.recordings import Bundled, bundled
from pipeline.model.batches import RecorderBatch, SessionUpdate
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs, PinnedIds
from pipeline.workers.chain import Outcome
from pipeline.workers.reference import RawRecord, process, reference_run
from pipeline.workers.rules import Rules
from tests.unit.workers.flow import T0, batch, line

CODECS = Codecs(catalogue(settings.load({})), PinnedIds("replay."))
CHUNKS = [25, 100]
THROTTLED = {"mousemove": 50, "scroll": 100}
NAMES = [each.name for each in bundled()]


@cache
def recordings() -> dict[str, Bundled]:
    return {each.name: each for each in bundled()}


def lines_of(name: str) -> list[bytes]:
    return [msgspec.json.encode(event) for event in recordings()[name].recording.events]


def batches_of(name: str, chunk: int) -> list[RecorderBatch]:
    lines = lines_of(name)
    return [
        batch(f"b{first}", *lines[first : first + chunk], session_id=name, window_id="w")
        for first in range(0, len(lines), chunk)
    ]


def raw(batches: list[RecorderBatch], partition: int = 0) -> list[RawRecord]:
    return [
        RawRecord("replay.batches", partition, n, each.last_event_at + 500, b"", CODECS.batches.encode(each))
        for n, each in enumerate(batches)
    ]


@cache
def outcomes(name: str, chunk: int) -> list[Outcome]:
    return list(reference_run(raw(batches_of(name, chunk)), CODECS.batches, Rules()))


def stored(name: str, chunk: int) -> list[dict[str, Any]]:
    return [
        json.loads(each)
        for outcome in outcomes(name, chunk)
        for each in outcome.clean.payload.split(b"\n")
        if outcome.clean.event_count
    ]


def told(name: str, chunk: int) -> dict[str, SessionUpdate]:
    return {update.part: update for outcome in outcomes(name, chunk) for update in outcome.sessions}


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("name", NAMES)
def test_every_event_of_a_recording_is_stored_or_throttled(name: str, chunk: int) -> None:
    cleans = [outcome.clean for outcome in outcomes(name, chunk)]
    assert {clean.kind for clean in cleans} == {"batch"}
    assert sum(clean.received_events for clean in cleans) == len(lines_of(name))
    assert all(clean.received_events == clean.event_count + clean.throttled for clean in cleans)
    assert len(stored(name, chunk)) == sum(clean.event_count for clean in cleans)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("name", NAMES)
def test_kept_moves_and_scrolls_are_those_of_the_naive_rule_over_the_recording(name: str, chunk: int) -> None:
    received = [json.loads(each) for each in lines_of(name)]
    for kind, gap_ms in THROTTLED.items():
        wanted: list[int] = []
        for first in range(0, len(received), chunk):
            for at in sorted(each["timestamp"] for each in received[first : first + chunk] if each["type"] == kind):
                if all(abs(at - each) >= gap_ms for each in wanted):
                    wanted.append(at)
        assert [each["timestamp"] for each in stored(name, chunk) if each["type"] == kind] == wanted


TYPED = ("input", "submit")
"""Typed values still open at a batch's end are masked; what is masked is masked in its batch's forms, too."""


@pytest.mark.parametrize("name", NAMES)
def test_events_that_are_never_throttled_do_not_depend_on_the_cut(name: str) -> None:
    small, large = ([each for each in stored(name, chunk) if each["type"] not in THROTTLED] for chunk in CHUNKS)
    received = [json.loads(each) for each in lines_of(name)]
    assert len(small) == len([each for each in received if each["type"] not in THROTTLED])
    small, large = (sorted(json.dumps(each) for each in some if each["type"] not in TYPED) for some in (small, large))
    assert small == large
    plain = {json.dumps(each) for each in received if each["type"] not in ("input", "submit", *THROTTLED)}
    assert {each for each in plain if "@" not in each and "password" not in each} <= set(small)


@pytest.mark.parametrize("name", NAMES)
def test_parts_do_not_depend_on_the_cut(name: str) -> None:
    small, large = (
        {part: msgspec.structs.replace(each, revision=0, redacted=0) for part, each in told(name, chunk).items()}
        for chunk in CHUNKS
    )
    assert list(small) == ["1"]
    assert small == large


@pytest.mark.parametrize("name", NAMES)
def test_counts_of_a_session_are_those_of_its_stored_events(name: str) -> None:
    kinds = [each["type"] for each in stored(name, 100)]
    times = [json.loads(each)["timestamp"] for each in lines_of(name)]
    part = told(name, 100)["1"]
    assert (part.started_at, part.ended_at) == (min(times), max(times))
    assert part.events == len(kinds)
    assert part.throttled == len(times) - len(kinds)
    for field, kind in [("clicks", "click"), ("inputs", "input"), ("scrolls", "scroll"), ("mouse_moves", "mousemove"),
                        ("navigations", "navigation")]:  # fmt: skip
        assert getattr(part, field) == kinds.count(kind)
    assert part.errors == kinds.count("error") + kinds.count("promise_error")


def test_recording_sent_twice_is_repeated_to_the_event() -> None:
    name = "portable-browse-login-checkout"
    once = batches_of(name, 25)
    cleans = [each.clean for each in reference_run(raw([*once, *once]), CODECS.batches, Rules())]
    assert [clean.kind for clean in cleans[len(once) :]] == ["repeat"] * len(once)
    assert sum(clean.repeated for clean in cleans) == len(lines_of(name))


def test_states_of_partitions_and_tenants_are_apart() -> None:
    one = batch("b", line("click", T0))
    other = msgspec.structs.replace(one, tenant="umbrella")
    records = [*raw([one, other]), *raw([one], partition=1)]
    assert [each.clean.kind for each in reference_run(records, CODECS.batches, Rules())] == ["batch"] * 3


def test_registry_that_is_away_is_no_poison() -> None:
    class Away:
        def decode(self, value: bytes | None) -> Any:
            raise RetryableError("away")

    with pytest.raises(RetryableError):
        process(raw([batch("b")])[0], {}, Away(), Rules())  # type: ignore[arg-type]
