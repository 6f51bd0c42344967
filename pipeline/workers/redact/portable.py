"""The portable model's input and submit events."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec

from pipeline.model.events import SessionEvent
from pipeline.workers.redact.names import is_sensitive, is_sensitive_target

REDACTED = "[REDACTED]"
REDACTED_TYPES = frozenset({"input", "submit"})
"""Types that `redact` may change."""
_NOTHING_TOLD = (None, "", REDACTED)
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class _Input(msgspec.Struct):
    target: Any = None
    value: Any = None
    inputType: Any = None


_peek = msgspec.json.Decoder(_Input).decode


def redact(event: SessionEvent, counts: Counter[str]) -> SessionEvent:
    """The event as it may leave. Bytes of an event that needs nothing are its own; `counts` gains `<kind>.<method>`.

    Raises msgspec.DecodeError where the data is not JSON.
    """
    if event.type == "input":
        return _input(event, counts)
    if event.type == "submit":
        return _submit(event, counts)
    return event


def _input(event: SessionEvent, counts: Counter[str]) -> SessionEvent:
    try:
        seen = _peek(event.data)
    except msgspec.ValidationError:  # no object, or a number beyond every float, which may not hide a password
        if isinstance(_decode(event.data), dict):
            raise
        return event
    password = isinstance(seen.inputType, str) and seen.inputType.strip().lower() == "password"
    if not (password or is_sensitive_target(seen.target)):
        return event
    if seen.value in _NOTHING_TOLD:
        return _as_read(event)
    data = _decode(event.data)
    data["value"] = REDACTED
    counts["password.replace" if password else "field.replace"] += 1
    return SessionEvent(event.type, event.timestamp, msgspec.Raw(_encode(data)))


def _as_read(event: SessionEvent) -> SessionEvent:
    """The event itself; but where a name stands twice in an object, only the last one, which is what readers take and
    what was looked at: an earlier one could be the secret."""
    twice = False

    def look(members: list[tuple[str, Any]]) -> None:
        nonlocal twice
        twice = twice or len({name for name, _ in members}) < len(members)

    json.loads(bytes(event.data), object_pairs_hook=look, parse_int=str, parse_float=str)
    if not twice:
        return event
    return SessionEvent(event.type, event.timestamp, msgspec.Raw(_encode(_decode(event.data))))


def _submit(event: SessionEvent, counts: Counter[str]) -> SessionEvent:
    data = _decode(event.data)
    form = data.get("formData") if isinstance(data, dict) else None
    before = counts.total()
    cleaned = _form(form, counts)
    if counts.total() == before:
        return _as_read(event)
    return SessionEvent(event.type, event.timestamp, msgspec.Raw(_encode({**data, "formData": cleaned})))


def _form(value: Any, counts: Counter[str]) -> Any:
    """Replaces what stands under a sensitive key, at any depth (the decoder bounds it)."""
    if isinstance(value, list):
        return [_form(each, counts) for each in value]
    if not isinstance(value, dict):
        return value
    cleaned = {}
    for key, inner in value.items():
        if is_sensitive(key) and inner not in _NOTHING_TOLD:
            counts["key.replace"] += 1
            cleaned[key] = REDACTED
        else:
            cleaned[key] = _form(inner, counts)
    return cleaned
