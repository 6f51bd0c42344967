"""Rows of `events` made plainly, one event at a time, as the sink made them before it made columns: the reference that
the fast way is compared with, value for value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from pipeline.model import rrweb
from pipeline.model.batches import CleanBatch
from pipeline.model.events import SessionEvent
from pipeline.model.retention import expires_at_s

SEQ_PER_OFFSET = 2**20
MESSAGE_CHARS_MAX = 1_000
TS_MIN_MS, TS_MAX_MS = 0, 7_258_118_399_999


class _Data(msgspec.Struct):
    """The members of any portable event's data that have a column; all else is passed over unread."""

    url: Any = None
    target: Any = None
    text: Any = None
    value: Any = None
    x: Any = None
    y: Any = None
    scrollX: Any = None
    scrollY: Any = None
    type: Any = None
    args: msgspec.Raw = msgspec.Raw(b"")
    message: Any = None
    reason: Any = None


_read = msgspec.json.Decoder(_Data).decode
_event = msgspec.json.Decoder(SessionEvent).decode


def event_rows(batches: Iterable[CleanBatch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in _rows(batch)]


def _rows(batch: CleanBatch) -> list[dict[str, Any]]:
    found = []
    for index, line in enumerate(batch.payload.split(b"\n") if batch.payload else []):
        event = _event(line)
        promoted = _portable(event) if batch.source == "portable" else _rrweb(event)
        if promoted is None:
            continue
        kind, url, target, text, level, message, x, y = promoted
        starts = [start.part for start in batch.next_parts if start.index <= index]
        found.append(
            {
                "tenant": batch.tenant,
                "session_id": batch.session_id,
                "part": starts[-1] if starts else batch.part,
                "window_id": batch.window_id,
                "user_id": batch.user_id,
                "seq": batch.source_offset * SEQ_PER_OFFSET + index,
                "ts": min(max(event.timestamp, TS_MIN_MS), TS_MAX_MS),
                "type": kind,
                "source": batch.source,
                "late": batch.late,
                "expires_at": expires_at_s(batch.retention, batch.source_at),
                "url": url,
                "target": target,
                "text": text,
                "level": level,
                "message": message,
                "x": x,
                "y": y,
                "data": bytes(event.data),
                "epoch": batch.epoch,
                "source_partition": batch.source_partition,
                "source_offset": batch.source_offset,
                "event_index": index,
                "clock_correction_ms": batch.clock_correction_ms,
            }
        )
    return found


_Promoted = tuple[str, str, str, str, str, float | None, float | None]
"""url, target, text, level, message, x, y; empty or None where the type has no such thing."""

_NOTHING_PROMOTED: _Promoted = ("", "", "", "", "", None, None)


def _portable(event: SessionEvent) -> tuple[str, *_Promoted]:
    """The type, and what is promoted."""
    return str(event.type), *_promoted(event)


def _rrweb(event: SessionEvent) -> tuple[str, *_Promoted] | None:
    """The same of an event by rrweb or posthog; None where it has no row: it is replayed from its block. What the client's
    own types are called by name (none is, today) is as portable."""
    if isinstance(event.type, str):
        return _portable(event)
    try:
        said = rrweb.read(event)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if said is None or said.kind not in rrweb.TYPED_KINDS:
        return None
    message = said.message[:MESSAGE_CHARS_MAX]
    return said.kind, _text(said.url), "", _text(said.text), said.level, message, _number(said.x), _number(said.y)


def _promoted(event: SessionEvent) -> _Promoted:
    kind = event.type
    if not isinstance(kind, str):
        return _NOTHING_PROMOTED
    try:
        data = _read(event.data)
    except (msgspec.DecodeError, ValueError, RecursionError):  # not UTF-8 is a ValueError, too deep a RecursionError
        return _NOTHING_PROMOTED
    if kind == "mousemove":
        return "", "", "", "", "", _number(data.x), _number(data.y)
    if kind == "scroll":
        return "", "", "", "", "", _number(data.scrollX), _number(data.scrollY)
    level = message = ""
    if kind == "console":
        level = _text(data.type)
        message = bytes(data.args).decode(errors="replace")
    elif kind == "error":
        level, message = "error", _text(data.message)
    elif kind == "promise_error":
        level, message = "error", _text(data.reason)
    return (
        _text(data.url),
        _text(data.target),
        _text(data.value if kind == "input" else data.text),
        level,
        message[:MESSAGE_CHARS_MAX],
        _number(data.x),
        _number(data.y),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # JSON's whole numbers have no end
        return None
