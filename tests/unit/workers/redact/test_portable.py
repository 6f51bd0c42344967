"""Input and submit events: what leaves, what is counted, what keeps its bytes."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
import pytest

from pipeline.model.events import SessionEvent
from pipeline.workers.redact.portable import redact


def redacted(kind: str | int, data: bytes) -> tuple[bytes, dict[str, int]]:
    counts: Counter[str] = Counter()
    event = redact(SessionEvent(kind, 17, msgspec.Raw(data)), counts)
    assert (event.type, event.timestamp) == (kind, 17)
    return bytes(event.data), dict(counts)


@pytest.mark.parametrize("input_type", ["password", "PASSWORD", " password "])
@pytest.mark.parametrize("value", ["hunter2", "h", " ", 0, False, ["h"], {"a": "h"}])
def test_value_of_a_password_input_is_replaced(input_type: str, value: Any) -> None:
    data = {"target": "form > input#field", "value": value, "tagName": "INPUT", "inputType": input_type}
    out, counts = redacted("input", json.dumps(data).encode())
    assert json.loads(out) == {**data, "value": "[REDACTED]"}
    assert counts == {"password.replace": 1}


def test_value_of_a_field_whose_name_gives_it_away_is_replaced() -> None:
    data = {"target": "form#checkout > input#card", "value": "4", "tagName": "INPUT", "inputType": "text"}
    out, counts = redacted("input", json.dumps(data).encode())
    assert json.loads(out) == {**data, "value": "[REDACTED]"}
    assert counts == {"field.replace": 1}


@pytest.mark.parametrize(
    "data",
    [b'{ "target":"input#name" , "value":"Ann\\u0065", "inputType":"text"}',
     b'{"target":"input#password", "inputType":"password", "value":"[REDACTED]"}',
     b'{"target":"input#password", "inputType":"password", "value":""}',
     b'{"target":"input#password", "inputType":"password", "value":null}',
     b'{"target":"input#password", "inputType":"password"}',
     b'{"target":7,"inputType":[1],"value":"a"}', b"null", b"[ ]", b'"password"', b"12"],
)  # fmt: skip
def test_input_that_tells_nothing_keeps_its_bytes(data: bytes) -> None:
    assert redacted("input", data) == (data, {})


@pytest.mark.parametrize("kind", ["click", "console", "navigation", "error", "initial_state", "custom", 3])
def test_other_types_keep_their_bytes(kind: str | int) -> None:
    data = b'{ "inputType":"password","value":"x","formData":{"password":"x"}}'
    assert redacted(kind, data) == (data, {})


def test_sensitive_keys_of_a_form_are_replaced_at_any_depth_and_counted() -> None:
    form = {
        "email": "a@example.test",
        "password": "p",
        "cardNumber": "4111",
        "note": "password",
        "empty": {"cvv": "", "token": None, "secret": "[REDACTED]"},
        "steps": [{"shipping": "x", "pin": 1234}, [{"auth": {"deep": ["x"]}}]],
    }
    out, counts = redacted("submit", json.dumps({"target": "form#password", "formData": form}).encode())
    assert json.loads(out) == {
        "target": "form#password",
        "formData": {
            **form,
            "password": "[REDACTED]",
            "cardNumber": "[REDACTED]",
            "steps": [{"shipping": "x", "pin": "[REDACTED]"}, [{"auth": "[REDACTED]"}]],
        },
    }
    assert counts == {"key.replace": 4}


@pytest.mark.parametrize(
    "data",
    [b'{"target":"form", "formData":{"email":"a\\u0062", "n":1.50}}', b'{"formData":{"password":"[REDACTED]", "a": 1}}',
     b'{"formData":"password=1"}', b'{"password":"x"}', b"null", b'["password"]', b'{"formData":[[1e3]]}'],
)  # fmt: skip
def test_form_without_secrets_keeps_its_bytes(data: bytes) -> None:
    assert redacted("submit", data) == (data, {})


@pytest.mark.parametrize(
    ("kind", "data"),
    [("input", b'{"inputType":"password","value":"hunter2","value":""}'),
     ("input", b'{"target":"#pin","v\\u0061lue":"hunter2","value":"[REDACTED]"}'),
     ("submit", b'{"formData":{"password":"hunter2","password":""}}'),
     ("submit", b'{"formData":{"password":"hunter2"},"formData":{}}'),
     ("submit", b'{"formData":[{"p\\u0069n":"hunter2","pin":null}]}')],
)  # fmt: skip
def test_secret_does_not_hide_behind_a_second_member_of_its_name(kind: str, data: bytes) -> None:
    out, _ = redacted(kind, data)
    assert b"hunter2" not in out
    assert json.loads(out) == json.loads(data)


@pytest.mark.parametrize("kind", ["input", "submit"])
@pytest.mark.parametrize("data", [b'{"target":1e999,"inputType":"password","value":"hunter2"}', b"{", b""])
def test_data_that_cannot_be_read_is_refused_and_never_passed_on(kind: str, data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError) as refused:
        redacted(kind, data)
    assert "hunter2" not in str(refused.value)
