"""The portable event model: what recorders emit, what blocks hold, what `recording` returns.

An event's `data` stays raw JSON bytes until somebody must look inside: what is dropped or only passed on is never parsed.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

#: Types of the portable model. Others (rrweb's numbers among them) pass through as they are.
PORTABLE_TYPES = (
    "click",
    "mousemove",
    "scroll",
    "input",
    "submit",
    "navigation",
    "console",
    "error",
    "promise_error",
    "initial_state",
)


class SessionEvent(msgspec.Struct, gc=False):
    """One event, its data unread. `timestamp` is milliseconds since 1970 UTC by the client's clock."""

    type: str | int
    timestamp: int
    data: msgspec.Raw = msgspec.Raw(b"null")


class Viewport(msgspec.Struct, frozen=True, kw_only=True):
    width: int = 0
    height: int = 0


class RecordingMetadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    user_agent: str = ""
    viewport: Viewport = Viewport()
    url: str = ""


class SessionRecording(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """A whole session: the export of the browser recorder, and the answer of `GET /v1/sessions/{id}/recording`."""

    session_id: str
    user_id: str
    start_time: int
    end_time: int | None = None
    events: list[SessionEvent]
    metadata: RecordingMetadata


_LONG_LINE_BYTES = 512
_lines = msgspec.json.Decoder(SessionEvent)
_encoder = msgspec.json.Encoder()


def decode_payload(payload: bytes) -> list[SessionEvent]:
    """NDJSON → events, data unread. Raises msgspec.DecodeError (ValidationError among them) where it is not that."""
    return _lines.decode_lines(payload)


def encode_payload(events: list[SessionEvent]) -> bytes:
    """Events → NDJSON, exactly one line an event, no newline at the end; raw data is copied, not re-encoded."""
    if not events:
        return b""
    payload = _encoder.encode_lines(events)[:-1]
    if _line_breaks(payload, len(events)) == len(events) - 1:
        return payload
    return _encoder.encode_lines([_on_one_line(event) for event in events])[:-1]


def _line_breaks(payload: bytes, enough: int) -> int:
    """How many there are, counted up to `enough`. `count` goes byte by byte; `find` jumps, which pays where lines are long."""
    if len(payload) < _LONG_LINE_BYTES * enough:
        return payload.count(b"\n")
    found, at = 0, payload.find(b"\n")
    while at >= 0 and found < enough:
        found, at = found + 1, payload.find(b"\n", at + 1)
    return found


def _on_one_line(event: SessionEvent) -> SessionEvent:
    """JSON allows line breaks between tokens; a line of NDJSON does not."""
    return SessionEvent(event.type, event.timestamp, msgspec.Raw(msgspec.json.format(bytes(event.data), indent=-1)))


_HEX = rb"[0-9a-fA-F]{2}"
_ESCAPES = re.compile(rb"\\u[dD][89abAB]%b\\u[dD][c-fC-F]%b|(\\u[dD][89a-fA-F]%b)|\\." % (_HEX, _HEX, _HEX), re.S)


def repair_surrogates(text: bytes) -> bytes:
    """JSON with every lone surrogate escape made U+FFFD, the replacement character.

    JavaScript strings may hold half an emoji (a text cut at 100 characters does); UTF-8, and most JSON readers, cannot.
    """
    return _ESCAPES.sub(lambda found: rb"\ufffd" if found[1] else found[0], text)


def encode_value(value: Any) -> bytes:
    """Compact JSON of a plain value."""
    return _encoder.encode(value)
