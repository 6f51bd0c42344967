"""What of an event's data has a column of its own, gathered for many events at once. Pure.

A mouse move or a scroll is two numbers, and most events are one of these: their texts are one shared empty entry. What is
promoted is a text or a number of exactly that JSON type, or the column is empty: data that cannot be read promotes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa

from pipeline.model import rrweb
from pipeline.model.events import SessionEvent

MESSAGE_CHARS_MAX = 1_000

_Texts = tuple[str, str, str, str, str]
_TEXT_COLUMNS = ("url", "target", "text", "level", "message")
_NO_TEXTS: _Texts = ("", "", "", "", "")
_NO_SLOT = 0
_POINTS = frozenset({"mousemove", "scroll"})
_NUMBERS = frozenset({int, float, type(None)})
_UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
"""Not JSON as it should be; not UTF-8, which is a ValueError; too deep."""


class _Data(msgspec.Struct, gc=False):
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


_decoder = msgspec.json.Decoder(_Data)
_read, _read_lines = _decoder.decode, _decoder.decode_lines
_NOTHING = _Data()


class Promoted:
    """Columns that grow: one entry an event that was added, in that order."""

    def __init__(self) -> None:
        self._types: list[str] = []
        self._xs: list[Any] = []
        self._ys: list[Any] = []
        self._texts: list[_Texts] = [_NO_TEXTS]
        self._slots: list[int] = []
        """Of each event its place in `_texts`."""

    def add_portable(self, events: Sequence[SessionEvent]) -> None:
        """Every event has a row, by its own type."""
        kinds = [event.type for event in events]
        said = _data_of(events)
        if not set(map(type, kinds)) <= {str}:
            said = [data if isinstance(kind, str) else _NOTHING for kind, data in zip(kinds, said, strict=True)]
        self._xs += [data.scrollX if kind == "scroll" else data.x for kind, data in zip(kinds, said, strict=True)]
        self._ys += [data.scrollY if kind == "scroll" else data.y for kind, data in zip(kinds, said, strict=True)]
        slots = [_NO_SLOT] * len(events)
        for index, kind in enumerate(kinds):
            if kind not in _POINTS and said[index] is not _NOTHING:
                slots[index] = len(self._texts)
                self._texts.append(_texts(kind, said[index]))
        self._slots += slots
        self._types += map(str, kinds)

    def add_rrweb(self, events: Sequence[SessionEvent]) -> list[int]:
        """Of events by rrweb or posthog those that portable clients have a type for, by that type; returns their indices:
        the others are replayed from their block. What is called by a name (none is, today) is as portable."""
        kept = []
        for index, event in enumerate(events):
            if isinstance(event.type, str):
                self.add_portable((event,))
                kept.append(index)
                continue
            try:
                said = rrweb.read(event)
            except _UNREADABLE:
                continue
            if said is None or said.kind not in rrweb.TYPED_KINDS:
                continue
            kept.append(index)
            self._types.append(said.kind)
            self._xs.append(said.x)
            self._ys.append(said.y)
            self._slots.append(len(self._texts))
            self._texts.append((_text(said.url), "", _text(said.text), said.level, said.message[:MESSAGE_CHARS_MAX]))
        return kept

    def columns(self) -> dict[str, pa.Array]:
        """type, url, target, text, level, message (empty where there is none), x, y (null where there is none)."""
        slots = pa.array(self._slots, pa.int32())
        texts = {
            name: spread(pa.array(values, pa.string()), slots)
            for name, values in zip(_TEXT_COLUMNS, zip(*self._texts, strict=True), strict=True)
        }
        types = pa.array(self._types, pa.string()).dictionary_encode()
        return {"type": types, **texts, "x": _numbers(self._xs), "y": _numbers(self._ys)}


def spread(values: pa.Array, places: pa.Array) -> pa.Array:
    """The value at each place; texts as a dictionary, whose entries are distinct (ClickHouse relies on it)."""
    if not pa.types.is_string(values.type):
        return values.take(places)
    words = values.dictionary_encode()
    return pa.DictionaryArray.from_arrays(words.indices.take(places), words.dictionary)


def _data_of(events: Sequence[SessionEvent]) -> list[_Data]:
    """All at once: a call an event costs more than what it reads. One by one where any cannot be read."""
    try:
        return _read_lines(b"\n".join([event.data for event in events]))
    except _UNREADABLE:
        return [_data(event) for event in events]


def _data(event: SessionEvent) -> _Data:
    try:
        return _read(event.data)
    except _UNREADABLE:
        return _NOTHING


def _texts(kind: str | int, data: _Data) -> _Texts:
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
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _numbers(values: list[Any]) -> pa.Array:
    if set(map(type, values)) <= _NUMBERS:
        try:
            return pa.array(values, pa.float64())
        except pa.ArrowInvalid:  # a whole number that no float64 is exactly
            pass
    return pa.array(map(_number, values), pa.float64())


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # JSON's whole numbers have no end
        return None
