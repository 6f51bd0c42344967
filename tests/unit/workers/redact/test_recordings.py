"""Redaction over the bundled recordings: what people typed into secret fields is nowhere in inputs and forms."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache

import pytest

from pipeline.load.recordings import bundled
from pipeline.model.events import SessionEvent
from pipeline.workers.redact.portable import redact

CONFORMING, HOSTILE = "portable-browse-login-checkout", "portable-hostile-browse-login-checkout"

#: Made up for the recordings, typed letter by letter into input#password, input#card and input#cvv.
PASSWORD = {CONFORMING: "CANARY-PW-e0c3a2f1", HOSTILE: "CANARY-PW-de0ac637"}
CARD = {CONFORMING: "4111112404712003", HOSTILE: "4111116195778560"}
CVV = {CONFORMING: "285", HOSTILE: "255"}
OTHERS = {
    CONFORMING: [
        "CANARY-NOTE-dae17e",
        "canary.user.9034df@example.test",
        "Canary Person 55566",
        "460 Canary Lane 0e78",
    ],
    HOSTILE: ["CANARY-NOTE-f06b83", "canary.user.551fd3@example.test", "Canary Person 99a92", "425 Canary Lane 5bef"],
}
SECRET_FIELDS = ("input#password", "input#card", "input#cvv")


@cache
def typed(name: str) -> tuple[list[SessionEvent], list[SessionEvent], Counter[str]]:
    """(inputs and forms as received, the same as they leave, counts)."""
    received = [
        event
        for each in bundled()
        if each.name == name
        for event in each.recording.events
        if event.type in ("input", "submit")
    ]
    counts: Counter[str] = Counter()
    return received, [redact(event, counts) for event in received], counts


def text(events: list[SessionEvent]) -> str:
    return "\n".join(bytes(event.data).decode() for event in events)


def test_secrets_are_in_the_hostile_recording_as_received() -> None:
    received, _, _ = typed(HOSTILE)
    assert all(secret in text(received) for secret in (PASSWORD[HOSTILE], CARD[HOSTILE], f'"{CVV[HOSTILE]}"'))


@pytest.mark.parametrize("name", [CONFORMING, HOSTILE])
def test_no_typed_password_card_or_cvv_is_left_in_inputs_and_forms(name: str) -> None:
    _, left, _ = typed(name)
    assert PASSWORD[name] not in text(left)
    assert CARD[name] not in text(left)
    assert f'"{CVV[name]}"' not in text(left)


@pytest.mark.parametrize("name", [CONFORMING, HOSTILE])
def test_no_prefix_of_a_secret_is_left_while_it_is_typed(name: str) -> None:
    _, left, _ = typed(name)
    values = {
        json.loads(bytes(event.data))["value"]
        for event in left
        if event.type == "input" and json.loads(bytes(event.data))["target"].endswith(SECRET_FIELDS)
    }
    assert values == {"[REDACTED]"}
    assert PASSWORD[name][:9] not in text(left)
    assert f'"{CARD[name][:8]}' not in text(left)


@pytest.mark.parametrize("name", [CONFORMING, HOSTILE])
def test_what_is_no_secret_field_stays(name: str) -> None:
    received, left, _ = typed(name)
    assert [other for other in OTHERS[name] if other not in text(left)] == []
    untouched = [
        (before, after)
        for before, after in zip(received, left, strict=True)
        if before.type == "input" and not json.loads(bytes(before.data))["target"].endswith(SECRET_FIELDS)
    ]
    assert len(untouched) > 100
    assert all(bytes(before.data) == bytes(after.data) for before, after in untouched)


def test_every_redaction_is_counted_by_kind_and_method() -> None:
    _, _, counts = typed(HOSTILE)
    typed_letters = {
        "password.replace": len(PASSWORD[HOSTILE]),
        "field.replace": len(CARD[HOSTILE]) + len(CVV[HOSTILE]),
    }
    in_forms = {"key.replace": 3}
    assert dict(counts) == typed_letters | in_forms
    assert not any(secret in str(counts) for secret in (PASSWORD[HOSTILE], CARD[HOSTILE]))


def test_client_that_redacted_passwords_itself_leaves_the_names_to_us() -> None:
    _, _, counts = typed(CONFORMING)
    assert dict(counts) == {"field.replace": len(CARD[CONFORMING]) + len(CVV[CONFORMING])}
