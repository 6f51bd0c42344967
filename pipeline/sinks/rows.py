"""Clean batches → columns of `events` and `minutes`, session updates → columns of `sessions`. Pure.

What queries filter by is promoted to typed columns; the event's data stays whole beside it as JSON text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import FatalError
from pipeline.model import rrweb
from pipeline.model.batches import CleanBatch, SessionUpdate
from pipeline.model.events import SessionEvent
from pipeline.model.retention import expires_at_s
from pipeline.storage.blocks import events_by_part
from pipeline.storage.times import within_datetime

SEQ_INDEX_BITS = 20
"""seq = source_offset * 2^20 + index: a batch of 8 MiB holds fewer events than that."""

SOURCE_OFFSET_MAX = 2 ** (64 - SEQ_INDEX_BITS) - 1
UINT32_MAX = 2**32 - 1
MESSAGE_CHARS_MAX = 1_000
MINUTE_MS = 60_000

_TS = pa.timestamp("ms", "UTC")
_EVENTS = pa.schema(
    [
        ("tenant", pa.string()),
        ("session_id", pa.string()),
        ("part", pa.string()),
        ("window_id", pa.string()),
        ("user_id", pa.string()),
        ("seq", pa.uint64()),
        ("ts", _TS),
        ("type", pa.string()),
        ("source", pa.string()),
        ("late", pa.bool_()),
        ("expires_at", pa.uint32()),
        ("url", pa.string()),
        ("target", pa.string()),
        ("text", pa.string()),
        ("level", pa.string()),
        ("message", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("data", pa.binary()),
        ("epoch", pa.uint32()),
        ("source_partition", pa.uint32()),
        ("source_offset", pa.uint64()),
        ("event_index", pa.uint32()),
        ("clock_correction_ms", pa.int64()),
    ]
)
_MINUTES = pa.schema(
    [
        ("tenant", pa.string()),
        ("minute", pa.uint32()),
        ("type", pa.string()),
        ("source", pa.string()),
        ("epoch", pa.uint32()),
        ("source_partition", pa.uint32()),
        ("first", pa.uint64()),
        ("events", pa.uint64()),
        ("expires_at", pa.uint32()),
    ]
)


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


def event_rows(batches: Iterable[CleanBatch]) -> pa.Table:
    """One row an event, in source order; of rrweb's events those that portable clients have a type for, by that type. Raises PoisonError where a payload is broken, FatalError where seq ends.

    What a batch's events share is laid out once a batch and repeated by index; only what differs is touched event by event.
    """
    shared: list[tuple[Any, ...]] = []
    batch_of: list[int] = []
    own: list[tuple[Any, ...]] = []
    for number, batch in enumerate(batches):
        if batch.source_offset > SOURCE_OFFSET_MAX:
            raise FatalError(
                f"source partition {batch.source_partition} has reached offset {batch.source_offset}, and seq holds "
                f"{SOURCE_OFFSET_MAX}: make the raw topic anew and raise REPLAY_EPOCH"
            )
        shared.append(_shared(batch))
        before = len(own)
        seq = batch.source_offset << SEQ_INDEX_BITS
        columns_of = _portable if batch.source == "portable" else _rrweb
        own += [
            (part, seq + index, within_datetime(event.timestamp), *promoted, bytes(event.data), index)
            for index, part, event in events_by_part(batch)
            if (promoted := columns_of(event)) is not None
        ]
        batch_of += [number] * (len(own) - before)
    taken = pa.array(batch_of, pa.int64())
    columns = {name: column.take(taken) for name, column in _columns(_SHARED, shared).items()} | _columns(_OWN, own)
    return pa.table([columns[name] for name in _EVENTS.names], _EVENTS)


_SHARED = ("tenant", "session_id", "window_id", "user_id", "source", "late", "expires_at", "epoch", "source_partition",
           "source_offset", "clock_correction_ms")  # fmt: skip
_OWN = ("part", "seq", "ts", "type", "url", "target", "text", "level", "message", "x", "y", "data", "event_index")


def _shared(batch: CleanBatch) -> tuple[Any, ...]:
    """The columns `_SHARED` of every event of a batch."""
    return (
        batch.tenant,
        batch.session_id,
        batch.window_id,
        batch.user_id,
        batch.source,
        batch.late,
        expires_at_s(batch.retention, batch.source_at),
        batch.epoch,
        batch.source_partition,
        batch.source_offset,
        batch.clock_correction_ms,
    )


def _columns(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> dict[str, pa.Array]:
    """Rows → Arrow columns by name, typed as in `events`."""
    values = zip(*rows, strict=True) if rows else ((),) * len(names)
    return {name: pa.array(column, _EVENTS.field(name).type) for name, column in zip(names, values, strict=True)}


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


def minute_rows(rows: pa.Table, first: int) -> pa.Table:
    """The counts of one claim: its events by tenant, minute, type and source. A claim done again has the same rows.

    One row a sorting key, or the table would keep one of several: where the events go at different times, the row goes
    with the last of them.
    """
    minute = pc.multiply(pc.divide(rows.column("ts").cast(pa.int64()), MINUTE_MS), MINUTE_MS // 1000)
    keys = ["tenant", "minute", "type", "source", "epoch", "source_partition"]
    counted = (
        rows.append_column("minute", minute.cast(pa.uint32()))
        .group_by(keys, use_threads=False)
        .aggregate([("seq", "count"), ("expires_at", "max")])
    )
    columns = {name: counted.column(name) for name in keys} | {
        "first": pa.repeat(pa.scalar(first, pa.uint64()), counted.num_rows),
        "events": counted.column("seq_count").cast(pa.uint64()),
        "expires_at": counted.column("expires_at_max"),
    }
    return pa.table([columns[name] for name in _MINUTES.names], _MINUTES)


def session_rows(updates: Iterable[tuple[SessionUpdate, int]]) -> pa.Table:
    """(update, its stream time in ms) → rows of `sessions`."""
    rows = []
    for update, at_ms in updates:
        row = msgspec.structs.asdict(update)
        row["close_reason"] = update.close_reason or ""
        row["urls"] = list(update.urls)
        row["expires_at"] = expires_at_s(update.retention, at_ms)
        for name in ("started_at", "ended_at"):
            row[name] = within_datetime(row[name])
        for name in ("viewport_width", "viewport_height"):
            row[name] = min(max(row[name], 0), UINT32_MAX)
        rows.append(row)
    return pa.Table.from_pylist(rows, _SESSIONS)


def user_rows(updates: Iterable[tuple[SessionUpdate, int]]) -> pa.Table:
    """Whose the sessions are; a session without a known user has no row."""
    rows = [
        {
            "tenant": update.tenant,
            "session_id": update.session_id,
            "user_id": update.user_id,
            "revision": update.revision,
            "expires_at": expires_at_s(update.retention, at_ms),
        }
        for update, at_ms in updates
        if update.user_id != ANONYMOUS
    ]
    return pa.Table.from_pylist(rows, _USERS)


ANONYMOUS = "anonymous"
_NUMBERS = {
    name: pa.uint64()
    for name in [
        "revision",
        "duration_ms",
        "active_ms",
        "events",
        "clicks",
        "rage_clicks",
        "inputs",
        "scrolls",
        "mouse_moves",
        "navigations",
        "console_errors",
        "errors",
        "throttled",
        "redacted",
        "late",
        "dead_clicks",
    ]
} | {name: pa.uint32() for name in ("viewport_width", "viewport_height", "epoch", "source_partition")}
_NUMBERS["clock_correction_ms"] = pa.int64()
_SESSIONS = pa.schema(
    [
        (
            name,
            _NUMBERS.get(name)
            or {"started_at": _TS, "ended_at": _TS, "urls": pa.list_(pa.string())}.get(name, pa.string()),
        )
        for name in (field.name for field in msgspec.structs.fields(SessionUpdate))
    ]
    + [("expires_at", pa.uint32())]
)
_USERS = pa.schema(
    [
        ("tenant", pa.string()),
        ("session_id", pa.string()),
        ("user_id", pa.string()),
        ("revision", pa.uint64()),
        ("expires_at", pa.uint32()),
    ]
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
