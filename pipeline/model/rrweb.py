"""What an rrweb event says in the portable model's words: for the counts of sessions and the typed rows of the warehouse.

rrweb's numbers: types 2 full snapshot, 3 increment, 4 meta, 5 custom, 6 plugin; an increment's sources 0 mutation, 1 mouse
move, 2 interaction (of which type 2 is the click), 3 scroll, 5 input. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from pipeline.model.events import SessionEvent

Kind = Literal["click", "mousemove", "scroll", "input", "navigation", "console", "error", "change", "page"]

TYPED_KINDS: frozenset[Kind] = frozenset({"click", "input", "scroll", "navigation", "console", "error"})
"""Kinds that have a row in `events`; the replay itself is in the blocks."""

CONSOLE = "rrweb/console@1"
UNCAUGHT = "Uncaught"
"""How browsers begin the message of an error that nobody caught; rrweb's console plugin hands it on as a console error."""

_MUTATION, _MOUSE_MOVE, _INTERACTION, _SCROLL, _INPUT = 0, 1, 2, 3, 5
_CLICK = 2


class Said(msgspec.Struct, gc=False):
    """One event's meaning. `change` is any change of the page's elements, `page` an address that the client tells in
    passing (posthog's `$pageview`). x, y, url and text are as the client sent them, of any JSON type."""

    kind: Kind
    x: Any = None
    y: Any = None
    url: Any = None
    text: Any = None
    level: str = ""
    message: str = ""
    positions: int = 1
    """Of a mousemove: an event holds many."""


class _Increment(msgspec.Struct, gc=False):
    source: Any = None
    type: Any = None
    x: Any = None
    y: Any = None
    text: Any = None
    positions: msgspec.Raw = msgspec.Raw(b"null")


class _Page(msgspec.Struct, gc=False):
    href: Any = None


class _Custom(msgspec.Struct, gc=False):
    tag: Any = None
    payload: msgspec.Raw = msgspec.Raw(b"null")


class _Line(msgspec.Struct, gc=False):
    level: Any = None
    payload: Any = None


class _Plugin(msgspec.Struct, gc=False):
    plugin: Any = None
    payload: msgspec.Raw = msgspec.Raw(b"null")


_increment = msgspec.json.Decoder(_Increment).decode
_page = msgspec.json.Decoder(_Page).decode
_custom = msgspec.json.Decoder(_Custom).decode
_plugin = msgspec.json.Decoder(_Plugin).decode
_line = msgspec.json.Decoder(_Line).decode
_positions = msgspec.json.Decoder(list[msgspec.Raw]).decode
_CHANGE = Said("change")
_AS_MUTATION = b'{"source":0,'
"""As rrweb writes it; the rest of a mutation says nothing more, and may be long."""


def read(event: SessionEvent) -> Said | None:
    """None where it says nothing that counts, or is not shaped as rrweb's are. Raises msgspec.DecodeError or RecursionError
    where what must be looked at is no JSON."""
    reader = _READERS.get(event.type)
    if reader is None:
        return None
    try:
        return reader(event.data)
    except msgspec.ValidationError:
        return None


def _of_increment(raw: msgspec.Raw) -> Said | None:
    seen = bytes(raw)
    if seen.startswith(_AS_MUTATION) and seen.count(b'"source"') == 1:
        return _CHANGE
    data = _increment(raw)
    source = data.source
    if source == _MOUSE_MOVE:
        return Said("mousemove", positions=len(_positions(data.positions)))
    if source == _INPUT:
        return Said("input", text=data.text)
    if source == _SCROLL:
        return Said("scroll", x=data.x, y=data.y)
    if source == _INTERACTION and data.type == _CLICK:
        return Said("click", x=data.x, y=data.y)
    return _CHANGE if source == _MUTATION else None


def _of_snapshot(_: msgspec.Raw) -> Said:
    return _CHANGE


def _of_meta(raw: msgspec.Raw) -> Said:
    return Said("navigation", url=_page(raw).href)


def _of_custom(raw: msgspec.Raw) -> Said | None:
    data = _custom(raw)
    return Said("page", url=_page(data.payload).href) if data.tag == "$pageview" else None


def _of_plugin(raw: msgspec.Raw) -> Said | None:
    data = _plugin(raw)
    if data.plugin != CONSOLE:
        return None
    line = _line(data.payload)
    level = line.level if isinstance(line.level, str) else ""
    args = line.payload if isinstance(line.payload, list) else []
    first = args[0].removeprefix('"') if args and isinstance(args[0], str) else ""
    if level == "error" and first.startswith(UNCAUGHT):
        return Said("error", level=level, message=first.removesuffix('"'))
    return Said("console", level=level, message=msgspec.json.encode(args).decode())


_READERS: dict[str | int, Callable[[msgspec.Raw], Said | None]] = {
    2: _of_snapshot,
    3: _of_increment,
    4: _of_meta,
    5: _of_custom,
    6: _of_plugin,
}
