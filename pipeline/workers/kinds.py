"""What may be dropped where it is too much, and what never: by type, and for rrweb's increments by their source.

Never dropped is what the page or the session is made of: full snapshots, meta, navigations, mutations and all other changes
of the page, inputs, submits and errors. So an rrweb type or source that nobody knows yet is never dropped either.
"""

from __future__ import annotations

import re

import msgspec

from pipeline.errors import ConfigurationError
from pipeline.model.events import SessionEvent

INCREMENT = 3
SCROLL_SOURCE = 3
POSITION_SOURCES = frozenset([1, 6, 12])
"""Mouse move, touch move and drag: increments that hold a list of positions."""

_KEPT_TYPES = frozenset(["initial_state", "navigation", "input", "submit", "error", "promise_error"])
_DROPPABLE_NUMBERS = frozenset([0, 1, 5, 6])  # DOM loaded, load, custom, plugin
_DROPPABLE_SOURCES = POSITION_SOURCES | {2, SCROLL_SOURCE, 7, 11, 14}  # interaction, media, log, selection
_OWN_SETTING = frozenset(["mousemove", "scroll", "3.3", *(f"3.{source}" for source in POSITION_SOURCES)])

GAPS_MAX = 8
"""Types with a gap of their own: a session's state remembers each in every window."""
TYPE_CHARS_MAX = 64
GAP_MS_MAX = 86_400_000
_GAP = re.compile(r"([^=,]+)=([0-9]{1,9})", re.ASCII)


class _Increment(msgspec.Struct, gc=False):
    source: int


_peek = msgspec.json.Decoder(_Increment).decode


def source_of(data: msgspec.Raw) -> int | None:
    """The source that an increment names, as a JSON reader sees it; None where it names none."""
    try:
        return _peek(data).source
    except msgspec.DecodeError:
        return None


def may_be_dropped(event: SessionEvent) -> bool:
    kind = event.type
    if kind == INCREMENT:
        return source_of(event.data) in _DROPPABLE_SOURCES
    return kind in _DROPPABLE_NUMBERS if isinstance(kind, int) else kind not in _KEPT_TYPES


def parse_gaps(text: str) -> dict[str, int]:
    """`console=20,5=100,3.7=50` → gaps in ms by name, in the names' order; a gap of 0 is none.

    A name is a type; of rrweb the type's number, or `3.` and an increment's source. Raises ConfigurationError.
    """
    gaps: dict[str, int] = {}
    for item in filter(None, (each.strip() for each in text.split(","))):
        found = _GAP.fullmatch(item)
        if found is None or len(found[1].strip()) > TYPE_CHARS_MAX or int(found[2]) > GAP_MS_MAX:
            raise ConfigurationError(
                f"REPLAY_THROTTLE: write <type>=<ms> with commas between, at most {GAP_MS_MAX} ms, such as console=20,5=100"
            )
        name = found[1].strip()
        if name in gaps:
            raise ConfigurationError(f"REPLAY_THROTTLE names {name} twice")
        _check(name)
        gaps[name] = int(found[2])
    if len(gaps) > GAPS_MAX:
        raise ConfigurationError(f"REPLAY_THROTTLE names {len(gaps)} types; at most {GAPS_MAX} are remembered a window")
    return {name: gap_ms for name, gap_ms in sorted(gaps.items()) if gap_ms}


def _check(name: str) -> None:
    if name in _OWN_SETTING:
        raise ConfigurationError(
            f"REPLAY_THROTTLE: {name} goes by REPLAY_MOUSEMOVE_GAP_MS or REPLAY_SCROLL_GAP_MS, for all clients alike"
        )
    if name == str(INCREMENT):
        raise ConfigurationError("REPLAY_THROTTLE: 3 is all of rrweb's increments; name one's source, such as 3.7")
    source = source_named(name)
    if source is not None:
        droppable = name == f"{INCREMENT}.{source}" and source in _DROPPABLE_SOURCES
    elif is_number(name):
        droppable = name == str(int(name)) and int(name) in _DROPPABLE_NUMBERS
    else:
        droppable = name not in _KEPT_TYPES
    if not droppable:
        raise ConfigurationError(
            f"REPLAY_THROTTLE: {name} is never throttled; nor are full snapshots, meta, navigations, mutations, "
            "other changes of the page, inputs, submits and errors"
        )


def is_number(name: str) -> bool:
    """Whether a gap's name is an rrweb type."""
    return name.isascii() and name.isdigit()


def source_named(name: str) -> int | None:
    """The source in a gap's name `3.<source>`; None where the name is a type."""
    head, dot, source = name.partition(".")
    return int(source) if head == str(INCREMENT) and dot and is_number(source) else None
