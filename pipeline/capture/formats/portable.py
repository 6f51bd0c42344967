"""The portable client's batches, and whole exported recordings.

A batch: `{batchId, sessionId, windowId?, userId?, sequence?, sentAt, clientVersion?, metadata?, events, final?}`. A body is
one batch, a list of batches, or a batch a line (NDJSON).
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any

import msgspec
import orjson

from pipeline.errors import MalformedError
from pipeline.model.admission import (
    TYPE_CHARS_MAX,
    TYPE_NUMBER_MAX,
    Limits,
    build_batch,
    check_time,
    check_times,
    metadata,
)
from pipeline.model.batches import Metadata, RecorderBatch
from pipeline.model.events import repair_surrogates

RECORDING_BATCH_EVENTS = 5_000
"""A recording is cut into batches of so many events, fewer where they are large."""

REPAIRED_ESCAPES_MAX = 1 << 20
"""A body with more backslashes is not repaired: each costs a step of Python."""

_PATH = re.compile(r" - at `(.+)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
EventType = (
    Annotated[str, msgspec.Meta(min_length=1, max_length=TYPE_CHARS_MAX)]
    | Annotated[int, msgspec.Meta(ge=0, le=TYPE_NUMBER_MAX)]
)


class _Event(msgspec.Struct):
    type: EventType
    timestamp: int
    data: Any = msgspec.field(default_factory=dict)


class _Viewport(msgspec.Struct):
    width: int | float = 0
    height: int | float = 0


class _Page(msgspec.Struct, rename="camel"):
    user_agent: str = ""
    viewport: _Viewport = msgspec.field(default_factory=_Viewport)
    url: str = ""


class _Batch(msgspec.Struct, rename="camel"):
    batch_id: str
    session_id: str
    sent_at: int
    events: list[_Event]
    window_id: str | None = None
    user_id: str | None = None
    sequence: int | None = None
    client_version: str | None = None
    metadata: _Page = msgspec.field(default_factory=_Page)
    final: bool = False


class _Recording(msgspec.Struct, rename="camel"):
    session_id: str
    start_time: int
    events: list[_Event]
    user_id: str | None = None
    end_time: int | None = None
    metadata: _Page = msgspec.field(default_factory=_Page)


def decode_batches(body: bytes, *, tenant: str, received_at: int, limits: Limits) -> list[RecorderBatch]:
    """A body of POST /v1/batches → its batches, in order. Raises MalformedError or TooLargeError with the path."""
    return [
        _admit(_convert(value, _Batch, path), path, tenant=tenant, received_at=received_at, limits=limits)
        for path, value in _values(body)
    ]


def decode_recording(body: bytes, *, tenant: str, received_at: int, limits: Limits) -> list[RecorderBatch]:
    """A body of POST /v1/recordings → batches that give the recording back. The same recording gives the same batch ids,
    so that one sent twice is a repeat."""
    whole = _convert(_load(body, "$"), _Recording, "$")
    check_time(whole.start_time, "$.startTime")
    if whole.end_time is not None:
        check_time(whole.end_time, "$.endTime")
    times = [event.timestamp for event in whole.events]
    check_times(times, "$.events")
    lines = [_line(event, f"$.events[{index}]") for index, event in enumerate(whole.events)]
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{whole.session_id}\n{whole.user_id}\n".encode())
    digest.update(b"\n".join(lines))
    pieces = _pieces(lines, Limits(RECORDING_BATCH_EVENTS, limits.payload_bytes))
    return [
        build_batch(
            tenant=tenant,
            session_id=whole.session_id,
            window_id=None,
            user_id=whole.user_id,
            batch_id=f"rec-{digest.hexdigest()}/{number}",
            sequence=number,
            client_version=None,
            sent_at=whole.end_time if whole.end_time is not None else whole.start_time,
            received_at=received_at,
            metadata=_page(whole.metadata),
            times=times[start:end],
            lines=lines[start:end],
            limits=Limits(RECORDING_BATCH_EVENTS, limits.payload_bytes),
            imported=True,
            final=number == len(pieces) - 1,
        )
        for number, (start, end) in enumerate(pieces)
    ]


def _pieces(lines: list[bytes], limits: Limits) -> list[tuple[int, int]]:
    """[start, end) of pieces within the limits; an event that is too large alone is a piece, which is refused later."""
    pieces, start, size = [], 0, 0
    for index, line in enumerate(lines):
        if index > start and (index - start >= limits.events or size + len(line) + 1 > limits.payload_bytes):
            pieces.append((start, index))
            start, size = index, 0
        size += len(line) + 1
    return [*pieces, (start, len(lines))]


def _values(body: bytes) -> list[tuple[str, Any]]:
    """(path, value) of each batch in a body."""
    try:
        value = _loads(body)
    except orjson.JSONDecodeError:
        lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
        if len(lines) < 2:
            raise _not_json("$") from None
        return [(f"line {number}: $", _load(line, f"line {number}: $")) for number, line in lines]
    if isinstance(value, list):
        return [(f"$[{index}]", each) for index, each in enumerate(value)]
    return [("$", value)]


def _load(text: bytes, path: str) -> Any:
    try:
        return _loads(text)
    except orjson.JSONDecodeError:
        raise _not_json(path) from None


def _loads(text: bytes) -> Any:
    """JSON as browsers write it: the half of an emoji that a cut left over becomes U+FFFD, so the recording is kept."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "surrogate" not in error.msg or text.count(b"\\") > REPAIRED_ESCAPES_MAX:
            raise
    return orjson.loads(repair_surrogates(text))


def _not_json(path: str) -> MalformedError:
    return MalformedError("the body is not JSON (UTF-8, at most 1024 levels)", path=path)


def _convert(value: Any, kind: Any, path: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        said = str(error)
        found = _PATH.search(said)
        inner = found[1].removeprefix("$") if found else ""
        if missing := _MISSING.search(said):
            inner += f".{missing[1]}"
        raise MalformedError(_PATH.sub("", said), path=path + inner) from None


def _admit(batch: _Batch, path: str, *, tenant: str, received_at: int, limits: Limits) -> RecorderBatch:
    return build_batch(
        tenant=tenant,
        session_id=batch.session_id,
        window_id=batch.window_id,
        user_id=batch.user_id,
        batch_id=batch.batch_id,
        sequence=batch.sequence,
        client_version=batch.client_version,
        sent_at=batch.sent_at,
        received_at=received_at,
        metadata=_page(batch.metadata),
        times=[event.timestamp for event in batch.events],
        lines=[_line(event, f"{path}.events[{index}]") for index, event in enumerate(batch.events)],
        limits=limits,
        path=path,
        final=batch.final,
    )


def _line(event: _Event, path: str) -> bytes:
    try:
        return orjson.dumps({"type": event.type, "timestamp": event.timestamp, "data": event.data})
    except orjson.JSONEncodeError:  # an integer beyond 64 bits, or nesting that can be read but not written
        raise MalformedError("a number or the nesting is beyond what JSON readers take", path=path) from None


def _page(page: _Page) -> Metadata:
    return metadata(page.user_agent, int(page.viewport.width), int(page.viewport.height), page.url)
