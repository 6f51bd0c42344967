"""Redaction over every captured recording, of all clients: no typed canary leaves, and what leaves still plays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.model.events import SessionEvent, decode_payload
from pipeline.workers.state import encode_state
from tests.canaries import left_in, strings
from tests.recordings import CODECS, Captured, batches, cleaned, decoded, events_of, manifest, outcomes

CAPTURED = {each.name: each for each in manifest()}
COVERED = {"password", "email", "card", "cvv", "phone"}
NOT_COVERED = {
    "address": "free text: no pattern knows a street",
    "fullname": "free text: no pattern knows a name",
    "note": "free text: anything may stand in a note",
}
WHOLE_ONLY = {"cvv"}
"""Three digits are found anywhere by chance: they count where they are all of a string."""

PREFIX_CHARS = 8
SHORT_PREFIX_CHARS = 3
SECRETS_OF_THE_PAGES = {
    "phc_labtoken0000000000000000000000000000000",
    "redacted",
    "http://shop.example.test:8801/api/missing?token=tok_none",
}
"""What is under a telling key or parameter in recordings and no canary: posthog-js' config.token, an authorization header
that the client redacted itself, a query."""

each_recording = pytest.mark.parametrize("name", CAPTURED)


def secrets_of(captured: Captured) -> dict[str, str]:
    return {kind: canary for kind, canary in captured.typed.items() if kind in COVERED}


def bytes_out(name: str) -> bytes:
    """All that leaves the worker for a recording, as it is written to its topics."""
    parts: list[bytes] = []
    for outcome in outcomes(name):
        parts += [outcome.clean.payload, CODECS.clean.encode(outcome.clean)]
        parts += map(CODECS.sessions.encode, outcome.sessions)
        parts += [encode_state(outcome.state)] if outcome.state else []
        parts += [outcome.dead.detail.encode()] if outcome.dead else []
    return b"\n".join(parts)


def strings_out(name: str) -> set[str]:
    return {text for event in cleaned(name) for text in strings(decoded(event))}


@each_recording
def test_recording_holds_the_canaries_that_the_manifest_says(name: str) -> None:
    captured = CAPTURED[name]
    assert len(events_of(name)) == captured.events
    whole = {text for event in events_of(name) for text in strings(decoded(event))}
    raw = b"\n".join(bytes(event.data) for event in events_of(name))
    for kind in captured.found:
        assert captured.typed[kind] in whole if kind in WHOLE_ONLY else left_in(raw, [captured.typed[kind]])


def test_only_free_text_is_not_covered() -> None:
    assert {kind for each in CAPTURED.values() for kind in each.typed} == COVERED | NOT_COVERED.keys()
    assert NOT_COVERED.keys() == {"address", "fullname", "note"}
    assert {kind for each in CAPTURED.values() for kind in each.found} == COVERED | NOT_COVERED.keys()


@each_recording
def test_no_covered_canary_leaves_in_any_form(name: str) -> None:
    long = [canary for kind, canary in secrets_of(CAPTURED[name]).items() if kind not in WHOLE_ONLY]
    assert left_in(bytes_out(name), [*long, *(canary[:PREFIX_CHARS] for canary in long)]) == []


@each_recording
def test_no_string_that_leaves_is_a_covered_canary_or_its_beginning(name: str) -> None:
    secrets = secrets_of(CAPTURED[name])
    others = [canary for kind, canary in CAPTURED[name].typed.items() if kind not in COVERED]
    told = [
        (kind, text)
        for text in strings_out(name)
        for kind, canary in secrets.items()
        if len(text) >= SHORT_PREFIX_CHARS and canary.startswith(text)
        and not any(other.startswith(text) for other in others)
    ]  # fmt: skip
    assert told == []


@each_recording
def test_no_recording_is_dead_lettered(name: str) -> None:
    assert [outcome.dead for outcome in outcomes(name) if outcome.dead] == []


def sent_and_left(name: str) -> Iterator[tuple[SessionEvent, SessionEvent]]:
    """Each event as it was sent beside the one that left, where nothing is throttled: those of a batch are sorted by time."""
    for batch, outcome in zip(batches(CAPTURED[name]), outcomes(name, throttled=False), strict=True):
        sent = sorted(decode_payload(batch.payload), key=lambda each: each.timestamp)
        for before, after in zip(sent, decode_payload(outcome.clean.payload), strict=True):
            assert (before.type, before.timestamp) == (after.type, after.timestamp)
            yield before, after


def skeleton(value: Any, *, style: bool = False) -> Any:
    """What a replay is built of, without its texts: ids, tags, numbers, order and names of members; style text as it is."""
    if isinstance(value, str):
        return value if style else ""
    if isinstance(value, list):
        return [skeleton(each, style=style) for each in value]
    if not isinstance(value, dict):
        return value
    inside = value.get("tagName") == "style" or value.get("isStyle") is True
    return {
        key: inner
        if key in {"tagName", "style", "_cssText", "rr_dataURL"}
        else skeleton(
            inner, style=(inside and key in {"childNodes", "textContent"}) or (style and key == "textContent")
        )
        for key, inner in value.items()
    }


@each_recording
def test_structure_numbers_and_style_stay(name: str) -> None:
    for sent, left in sent_and_left(name):
        assert skeleton(decoded(left)) == skeleton(decoded(sent))


def changed(sent: Any, left: Any) -> Iterator[str]:
    """The strings of what was sent that are others in what left."""
    if isinstance(sent, dict):
        for key, inner in sent.items():
            yield from changed(inner, left[key])
    elif isinstance(sent, list):
        for each, after in zip(sent, left, strict=True):
            yield from changed(each, after)
    elif sent != left:
        yield sent


@each_recording
def test_only_typed_text_and_secrets_change(name: str) -> None:
    secrets = [*secrets_of(CAPTURED[name]).values(), *SECRETS_OF_THE_PAGES]
    for sent, left in sent_and_left(name):
        data = decoded(sent)
        typed = sent.type == "input" or (sent.type == 3 and data.get("source") == 5)
        for text in () if typed else changed(data, decoded(left)):
            assert left_in(text.encode(), secrets), json.dumps(text)
