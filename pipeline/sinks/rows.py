"""Clean batches → columns of `events` and `minutes`, session updates → columns of `sessions`. Pure.

What queries filter by is promoted to typed columns; the event's data stays whole beside it as JSON text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
import pyarrow as pa

from pipeline.errors import FatalError
from pipeline.model.batches import CleanBatch, SessionUpdate
from pipeline.model.events import SessionEvent
from pipeline.model.retention import expires_at_s
from pipeline.storage.blocks import events_by_part

SEQ_INDEX_BITS = 20
"""seq = source_offset * 2^20 + index: a batch of 8 MiB holds fewer events than that."""

SOURCE_OFFSET_MAX = 2 ** (64 - SEQ_INDEX_BITS) - 1
UINT32_MAX = 2**32 - 1
MESSAGE_CHARS_MAX = 1_000
MINUTE_MS = 60_000
TS_MIN_MS, TS_MAX_MS = 0, 7_258_118_399_999
"""DateTime64(3) of ClickHouse holds 1900–2299; a timestamp outside 1970–2199 is stored at the nearer end."""

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
    args: msgspec.Raw | None = None
    message: Any = None
    reason: Any = None


_read = msgspec.json.Decoder(_Data).decode


def event_rows(batches: Iterable[CleanBatch]) -> pa.Table:
    """One row an event, in source order. Raises PoisonError where a payload is broken, FatalError where seq ends."""
    columns: list[list[Any]] = [[] for _ in _EVENTS]
    appends = [column.append for column in columns]
    for batch in batches:
        expires = expires_at_s(batch.retention, batch.source_at)
        if batch.source_offset > SOURCE_OFFSET_MAX:
            raise FatalError(
                f"source partition {batch.source_partition} has reached offset {batch.source_offset}, and seq holds "
                f"{SOURCE_OFFSET_MAX}: make the raw topic anew and raise REPLAY_EPOCH"
            )
        seq = batch.source_offset << SEQ_INDEX_BITS
        for index, part, event in events_by_part(batch):
            row = (
                batch.tenant,
                batch.session_id,
                part,
                batch.window_id,
                batch.user_id,
                seq + index,
                within_datetime(event.timestamp),
                str(event.type),
                batch.source,
                batch.late,
                expires,
                *_promoted(event),
                bytes(event.data),
                batch.epoch,
                batch.source_partition,
                batch.source_offset,
                index,
            )
            for append, value in zip(appends, row, strict=True):
                append(value)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, _EVENTS, strict=True)], _EVENTS)


def _promoted(event: SessionEvent) -> tuple[str, str, str, str, str, float | None, float | None]:
    """(url, target, text, level, message, x, y); empty or None where the type has no such thing."""
    kind = event.type
    if not isinstance(kind, str):
        return "", "", "", "", "", None, None
    try:
        data = _read(event.data)
    except (msgspec.DecodeError, ValueError, RecursionError):  # not UTF-8 is a ValueError, too deep a RecursionError
        return "", "", "", "", "", None, None
    level = message = ""
    x, y = data.x, data.y
    text = data.text
    if kind == "scroll":
        x, y = data.scrollX, data.scrollY
    elif kind == "input":
        text = data.value
    elif kind == "console":
        level = _text(data.type)
        message = bytes(data.args).decode(errors="replace") if data.args is not None else ""
    elif kind == "error":
        level, message = "error", _text(data.message)
    elif kind == "promise_error":
        level, message = "error", _text(data.reason)
    return (
        _text(data.url),
        _text(data.target),
        _text(text),
        level,
        message[:MESSAGE_CHARS_MAX],
        _number(x),
        _number(y),
    )


def minute_rows(rows: pa.Table, first: int) -> pa.Table:
    """The counts of one claim: its events by tenant, minute, type and source. A claim done again has the same rows.

    One row a sorting key, or the table would keep one of several: where the events go at different times, the row goes
    with the last of them.
    """
    counts: Counter[tuple[Any, ...]] = Counter()
    goes_at: dict[tuple[Any, ...], int] = {}
    names = ("tenant", "ts", "type", "source", "epoch", "source_partition", "expires_at")
    for tenant, ts, kind, source, epoch, partition, expires in zip(
        *(
            rows.column(name).cast(pa.int64()).to_pylist() if name == "ts" else rows.column(name).to_pylist()
            for name in names
        ),
        strict=True,
    ):
        key = (tenant, ts // MINUTE_MS * (MINUTE_MS // 1000), kind, source, epoch, partition)
        counts[key] += 1
        goes_at[key] = max(expires, goes_at.get(key, 0))
    found = [
        {
            "tenant": tenant,
            "minute": minute,
            "type": kind,
            "source": source,
            "epoch": epoch,
            "source_partition": partition,
            "first": first,
            "events": n,
            "expires_at": goes_at[tenant, minute, kind, source, epoch, partition],
        }
        for (tenant, minute, kind, source, epoch, partition), n in counts.items()
    ]
    return pa.Table.from_pylist(found, _MINUTES)


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
    ]
} | {name: pa.uint32() for name in ("viewport_width", "viewport_height", "epoch", "source_partition")}
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


def within_datetime(ms: int) -> int:
    """The nearest time that the timestamp columns hold."""
    return min(max(ms, TS_MIN_MS), TS_MAX_MS)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # JSON's whole numbers have no end
        return None
