"""rrweb's mouse moves: one event holds a list of positions, each `timeOffset` ms from the event's timestamp.

rrweb's player takes a position's moment as timestamp + timeOffset and asks nothing of the first one's offset. So positions
can be taken out of the list, and all that stays keeps its bytes: nothing has to be shifted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import compress
from typing import Annotated, Any

import msgspec

from pipeline.workers.kinds import POSITION_SOURCES

OFFSET_MS_MAX = 86_400_000
"""A page that slept sends old positions on waking; an offset beyond this, or none, counts as 0: the event's own time."""

_Offset = Annotated[int, msgspec.Meta(ge=-OFFSET_MS_MAX, le=OFFSET_MS_MAX)]


class _Position(msgspec.Struct, gc=False):
    timeOffset: _Offset


class _Moves(msgspec.Struct, gc=False):
    source: int
    positions: list[_Position]


class _AnyPosition(msgspec.Struct, gc=False):
    timeOffset: Any = None


class _AnyMoves(msgspec.Struct, gc=False):
    source: int
    positions: list[msgspec.Raw]


class _PlainMoves(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The usual object, which has no other member."""

    source: int
    positions: list[msgspec.Raw]


_read = msgspec.json.Decoder(_Moves).decode
_read_any = msgspec.json.Decoder(_AnyMoves).decode
_read_plain = msgspec.json.Decoder(_PlainMoves).decode
_read_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_position = msgspec.json.Decoder(_AnyPosition).decode
_encode = msgspec.json.Encoder().encode


def thinned(data: msgspec.Raw, at_ms: int, admit_all: Callable[[int, list[int]], list[bool]]) -> msgspec.Raw | None:
    """An increment's data with the positions that `admit_all` lets pass, told the event's time and their offsets in order;
    the same object where that is all of them, None where it is none. What is no list of positions passes unasked. Total."""
    offsets = _offsets(data)
    if not offsets:
        return data
    kept = admit_all(at_ms, offsets)
    if False not in kept:
        return data
    return _only(data, kept) if True in kept else None


def _offsets(data: msgspec.Raw) -> list[int] | None:
    try:
        moves = _read(data)
        return [each.timeOffset for each in moves.positions] if moves.source in POSITION_SOURCES else None
    except msgspec.DecodeError:
        pass
    try:
        found = _read_any(data)
        return [_offset(each) for each in found.positions] if found.source in POSITION_SOURCES else None
    except msgspec.DecodeError:
        return None


def _offset(position: msgspec.Raw) -> int:
    try:
        offset = _read_position(position).timeOffset
    except msgspec.DecodeError:
        return 0
    if isinstance(offset, bool) or not isinstance(offset, int | float) or abs(offset) > OFFSET_MS_MAX:
        return 0
    return math.floor(offset)


def _only(data: msgspec.Raw, kept: list[bool]) -> msgspec.Raw:
    try:
        moves = _read_plain(data)
    except msgspec.DecodeError:
        members = _read_members(data)
        left = list(compress(_read_any(data).positions, kept))
        return msgspec.Raw(_encode({**members, "positions": left}))
    moves.positions = list(compress(moves.positions, kept))
    return msgspec.Raw(_encode(moves))
