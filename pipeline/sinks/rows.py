"""Clean batches → columns of `events` and `minutes`, session updates → columns of `sessions`. Pure.

What queries filter by is promoted to typed columns; the event's data stays whole beside it as JSON text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import FatalError
from pipeline.model.batches import CleanBatch, SessionUpdate
from pipeline.model.retention import expires_at_s
from pipeline.sinks.promoted import Promoted, spread
from pipeline.storage.blocks import events_of, parts_of
from pipeline.storage.times import TS_MAX_MS, TS_MIN_MS, within_datetime

SEQ_INDEX_BITS = 20
"""seq = source_offset * 2^20 + index: a batch of 8 MiB holds fewer events than that."""

SOURCE_OFFSET_MAX = 2 ** (64 - SEQ_INDEX_BITS) - 1
UINT32_MAX = 2**32 - 1
MINUTE_MS = 60_000

_TS = pa.timestamp("ms", "UTC")
_WORD = pa.dictionary(pa.int32(), pa.string())
"""Texts that repeat travel as a dictionary of distinct ones and an index a row: a third of the time of an insert."""
_EVENTS = pa.schema(
    [
        ("tenant", _WORD),
        ("session_id", _WORD),
        ("part", _WORD),
        ("window_id", _WORD),
        ("user_id", _WORD),
        ("seq", pa.uint64()),
        ("ts", _TS),
        ("type", _WORD),
        ("source", _WORD),
        ("late", pa.bool_()),
        ("expires_at", pa.uint32()),
        ("url", _WORD),
        ("target", _WORD),
        ("text", _WORD),
        ("level", _WORD),
        ("message", _WORD),
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


def event_rows(batches: Iterable[CleanBatch]) -> pa.Table:
    """One row an event, in source order; of rrweb's events those that portable clients have a type for, by that type.

    Raises PoisonError where a payload is broken, FatalError where seq ends. What a batch's events share is laid out once a
    batch and repeated by index; only what differs is touched event by event.
    """
    shared: list[tuple[Any, ...]] = []
    batch_of: list[int] = []
    parts: list[str] = []
    part_of: list[int] = []
    indices: list[int] = []
    times: list[int] = []
    data = _Binaries()
    promoted = Promoted()
    for number, batch in enumerate(batches):
        shared.append(_shared(batch))
        events = events_of(batch)
        kept: Sequence[int] = range(len(events))
        if batch.source == "portable":
            promoted.add_portable(events)
        else:
            kept = promoted.add_rrweb(events)
            events = [events[index] for index in kept]
        batch_of += [number] * len(kept)
        indices += kept
        for part, begin, end in parts_of(batch):
            part_of += [len(parts)] * (bisect_left(kept, end) - bisect_left(kept, begin))
            parts.append(part)
        times += [event.timestamp for event in events]
        data.add([event.data for event in events])
    taken = pa.array(batch_of, pa.int32())
    columns = {name: spread(column, taken) for name, column in _columns(_SHARED, shared).items()} | promoted.columns()
    columns["part"] = spread(pa.array(parts, pa.string()), pa.array(part_of, pa.int32()))
    columns["event_index"] = pa.array(indices, pa.uint32())
    columns["seq"] = pc.add(
        pc.shift_left(columns["source_offset"], pa.scalar(SEQ_INDEX_BITS, pa.uint64())),
        columns["event_index"].cast(pa.uint64()),
    )
    columns["ts"] = _within_datetime(times)
    columns["data"] = data.column()
    return pa.table([columns[name] for name in _EVENTS.names], _EVENTS)


_SHARED = ("tenant", "session_id", "window_id", "user_id", "source", "late", "expires_at", "epoch", "source_partition",
           "source_offset", "clock_correction_ms")  # fmt: skip


def _shared(batch: CleanBatch) -> tuple[Any, ...]:
    """The columns `_SHARED` of every event of a batch."""
    if batch.source_offset > SOURCE_OFFSET_MAX:
        raise FatalError(
            f"source partition {batch.source_partition} has reached offset {batch.source_offset}, and seq holds "
            f"{SOURCE_OFFSET_MAX}: make the raw topic anew and raise REPLAY_EPOCH"
        )
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
    """Rows → Arrow columns by name, of plain types."""
    values = zip(*rows, strict=True) if rows else ((),) * len(names)
    types = (_EVENTS.field(name).type for name in names)
    return {
        name: pa.array(column, pa.string() if kind == _WORD else kind)
        for name, column, kind in zip(names, values, types, strict=True)
    }


def _within_datetime(times: list[int]) -> pa.Array:
    try:
        found = pa.array(times, pa.int64())
    except OverflowError:
        return pa.array(map(within_datetime, times), pa.int64()).cast(_TS)
    least, most = pa.scalar(TS_MIN_MS, pa.int64()), pa.scalar(TS_MAX_MS, pa.int64())
    return pc.min_element_wise(pc.max_element_wise(found, least), most).cast(_TS)


class _Binaries:
    """A binary column that grows. Joined by the batch, so that no event is kept: an object a value costs more."""

    def __init__(self) -> None:
        self._joined: list[bytes] = []
        self._lengths: list[int] = []

    def add(self, values: list[msgspec.Raw]) -> None:
        self._joined.append(b"".join(values))
        self._lengths += map(len, values)

    def column(self) -> pa.Array:
        offsets = pa.array(accumulate(self._lengths, initial=0), pa.int32())
        buffers = [None, offsets.buffers()[1], pa.py_buffer(b"".join(self._joined))]
        return pa.BinaryArray.from_buffers(pa.binary(), len(self._lengths), buffers)


def minute_rows(rows: pa.Table, first: int) -> pa.Table:
    """The counts of one claim: its events by tenant, minute, type and source. A claim done again has the same rows.

    One row a sorting key, or the table would keep one of several: where the events go at different times, the row goes
    with the last of them.
    """
    minute = pc.multiply(pc.divide(rows.column("ts").cast(pa.int64()), MINUTE_MS), MINUTE_MS // 1000)
    keys = ["tenant", "minute", "type", "source", "epoch", "source_partition"]
    counted = (
        rows.select(["tenant", "type", "source", "epoch", "source_partition", "seq", "expires_at"])
        .append_column("minute", minute.cast(pa.uint32()))
        .group_by(keys, use_threads=False)
        .aggregate([("seq", "count"), ("expires_at", "max")])
    )
    columns = {name: counted.column(name) for name in keys} | {
        "first": pa.repeat(pa.scalar(first, pa.uint64()), counted.num_rows),
        "events": counted.column("seq_count").cast(pa.uint64()),
        "expires_at": counted.column("expires_at_max"),
    }
    return pa.table([columns[name].cast(_MINUTES.field(name).type) for name in _MINUTES.names], _MINUTES)


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
