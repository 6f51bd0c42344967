"""What a worker remembers of a session between batches, and how that is written to replay.state.

Bounded: PARTS_MAX parts, WINDOWS_MAX windows, BATCH_IDS_MAX hashed batch ids. Never a recorded value but URLs and user ids.
None of them refers to itself, so the garbage collector need not go through the states of all sessions.
"""

from __future__ import annotations

import hashlib

import msgspec

from pipeline.errors import FatalError
from pipeline.model.batches import CloseReason, Source
from pipeline.workers.redact.typed import Typed
from pipeline.workers.throttle import Stretches

PARTS_MAX = 4
WINDOWS_MAX = 16
BATCH_IDS_MAX = 512
BATCH_HASH_BYTES = 8
URLS_MAX = 50
VERSION = 3
READABLE = (1, 2, VERSION)
"""Members were only added at its end since the first of these: what an earlier state lacks has its default."""


_OTHER_VERSION = (
    "a later version wrote it. Run that one; or, to go back for good, let it read all of replay.batches, stop all workers, "
    "delete replay.state and `replay topics apply`: open sessions then begin part 1 anew, which replaces their rows"
)


class Watched(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A window whose clicks are followed: its newest event's time, and the times of those clicks that nothing answered yet."""

    window_id: str
    newest_at: int
    clicks: tuple[int, ...] = ()


class Part(msgspec.Struct, array_like=True, gc=False):
    """One part of a session: all that its SessionUpdate says. Times in ms since 1970, client's clock. A state's own part
    is never changed: see `sessionize.OpenPart`."""

    name: str
    source: Source
    started_at: int
    ended_at: int
    close_reason: CloseReason | None = None
    active_ms: int = 0
    events: int = 0
    clicks: int = 0
    rage_clicks: int = 0
    inputs: int = 0
    scrolls: int = 0
    mouse_moves: int = 0
    navigations: int = 0
    console_errors: int = 0
    errors: int = 0
    throttled: int = 0
    redacted: int = 0
    late: int = 0
    first_url: str = ""
    last_url: str = ""
    urls: tuple[str, ...] = ()
    user_agent: str = ""
    viewport_width: int = 0
    viewport_height: int = 0
    recent_clicks: tuple[tuple[int, float, float], ...] = ()
    """The last clicks of a burst that is not yet counted as rage, or of one that is: (at, x, y)."""
    dead_clicks: int = 0
    watched: tuple[Watched, ...] = ()
    """The windows used last, where the source tells what a click did."""


class Window(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One browser tab's gates, and which of its fields are sensitive."""

    window_id: str
    mousemove: Stretches = ()
    scroll: Stretches = ()
    typed: Typed = Typed()
    others: dict[str, Stretches] = {}
    """By the name that REPLAY_THROTTLE has for the type."""


class SessionState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All of one session. `applied` is the source offset up to which its outputs exist; `seen_at` is stream time; from
    `full_at_us` of stream time on its bucket is full. What the state of an earlier worker lacks has its default."""

    version: int
    tenant: str
    session_id: str
    applied: int
    seen_at: int
    user_id: str
    parts: tuple[Part, ...]
    windows: tuple[Window, ...]
    batch_ids: bytes
    full_at_us: int = 0
    clock_correction_ms: int | None = 0
    """What is added to the times of the session's live events; None until its first live batch is judged."""

    erased: bool = False
    """Nothing of the session may come in any more; there is nothing else in such a state."""

    @property
    def is_released(self) -> bool:
        """Whether it says no more than that the session was there, or is erased: every other has a part."""
        return not self.parts


class _Marker(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The record of a released session."""

    version: int
    applied: int
    seen_at: int
    erased: bool = False


def released(applied: int, seen_at: int, *, erased: bool = False) -> SessionState:
    """What is left of a session's state after its release, or its erasure; whose it was, its key says."""
    return SessionState(VERSION, "", "", applied, seen_at, "", (), (), b"", erased=erased)


_decoder = msgspec.msgpack.Decoder(SessionState)
_marker_decoder = msgspec.msgpack.Decoder(_Marker)
_encoder = msgspec.msgpack.Encoder()
_MARKER_STARTS = (_encoder.encode((0, 0, 0))[:1], _encoder.encode(_Marker(0, 0, 0))[:1])
"""Of versions 1 and 2, and of this one."""


def encode_state(state: SessionState) -> bytes:
    if state.is_released:
        return _encoder.encode(_Marker(state.version, state.applied, state.seen_at, state.erased))
    return _encoder.encode(state)


def is_marker(value: bytes) -> bool:
    """Whether it is a released session's record: an array of as many members as only those have."""
    return value.startswith(_MARKER_STARTS)


def decode_state(value: bytes) -> SessionState:
    """Raises FatalError where a later version wrote it: to guess at state would change what a repeated batch gives."""
    try:
        marker = _marker_decoder.decode(value) if is_marker(value) else None
        state = released(marker.applied, marker.seen_at, erased=marker.erased) if marker else _decoder.decode(value)
        version = marker.version if marker else state.version
    except msgspec.DecodeError as error:
        raise FatalError(f"a session's state cannot be read ({type(error).__name__}): {_OTHER_VERSION}") from None
    if version not in READABLE:
        raise FatalError(f"a session's state has version {version}, this worker reads {VERSION}: {_OTHER_VERSION}")
    return state if version == VERSION else msgspec.structs.replace(state, version=VERSION)


def batch_hash(batch_id: str) -> bytes:
    return hashlib.blake2b(batch_id.encode(), digest_size=BATCH_HASH_BYTES).digest()


def was_seen(batch_ids: bytes, hashed: bytes) -> bool:
    """Whether the hash is one of those remembered (they lie side by side)."""
    at = batch_ids.find(hashed)
    while at >= 0 and at % BATCH_HASH_BYTES:
        at = batch_ids.find(hashed, at + 1)
    return at >= 0


def remember(batch_ids: bytes, hashed: bytes) -> bytes:
    """The oldest is forgotten when there are too many."""
    return (batch_ids + hashed)[-BATCH_IDS_MAX * BATCH_HASH_BYTES :]
