"""What travels on replay.batches, replay.clean, replay.sessions and replay.dead_letters, as records.

The Avro schemas in `schemas/` are the contract and carry the doc of every field; these structs have the same fields
in the same order, one for one (a test compares them). Times are milliseconds since 1970 UTC. A payload is compact
NDJSON: one event a line, `{"type":…,"timestamp":…,"data":{…}}`, no newline at its end, empty when there is no event.
None of them refers to itself, so the garbage collector need not look at them.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

ID_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)
BATCH_ID_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,128}(?:/[0-9]{1,6})?", re.ASCII)

Source = Literal["portable", "rrweb", "posthog"]
CleanKind = Literal["batch", "repeat", "dead", "erased", "lost"]
Status = Literal["open", "closed"]
DeadReason = Literal[
    "not_avro",
    "unknown_schema",
    "bad_envelope",
    "bad_payload",
    "too_deep",
    "too_large",
    "too_old",
    "too_new",
    "unexpected",
    "rejected_row",
]
CloseReason = Literal["idle", "max_duration", "ended", "erased"]


def is_id(text: object) -> bool:
    """Whether it can be a tenant, session or window id: 1–128 characters of `[A-Za-z0-9_.:-]`."""
    return isinstance(text, str) and ID_PATTERN.fullmatch(text) is not None


def is_batch_id(text: object) -> bool:
    """An id, and `/k` after it for the k-th piece of a batch that was split."""
    return isinstance(text, str) and BATCH_ID_PATTERN.fullmatch(text) is not None


def session_key(tenant: str, session_id: str) -> bytes:
    """The Kafka key of everything that belongs to one session: `tenant:session_id`."""
    return f"{tenant}:{session_id}".encode()


class Metadata(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The page as the client described it; empty or 0 where it did not."""

    user_agent: str = ""
    viewport_width: int = 0
    viewport_height: int = 0
    url: str = ""


class RecorderBatch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """replay.batches: what one client sent at once for one session and window, decoded and admitted, not yet safe."""

    tenant: str
    session_id: str
    window_id: str
    user_id: str
    batch_id: str
    sequence: int | None
    source: Source
    client_version: str | None
    imported: bool
    final: bool
    sent_at: int
    received_at: int
    metadata: Metadata
    first_event_at: int
    last_event_at: int
    event_count: int
    payload: bytes


class ErasureRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """On replay.batches, at its place in the order: forget this session; what stands before goes, what comes after is refused."""

    tenant: str
    session_id: str
    erasure_id: str
    asked_at: int


class PartStart(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """From event `index` of the payload on, events belong to `part`."""

    index: int
    part: str


class CleanBatch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """replay.clean: what the worker made of exactly one source offset (or, kind `lost`, of a range that retention took).

    received_events = event_count + throttled + repeated + erased + dead_lettered, always.
    """

    kind: CleanKind
    tenant: str
    session_id: str
    window_id: str
    user_id: str
    batch_id: str
    sequence: int | None
    source: Source
    client_version: str | None
    imported: bool
    final: bool
    sent_at: int
    received_at: int
    metadata: Metadata
    first_event_at: int
    last_event_at: int
    event_count: int
    payload: bytes
    epoch: int
    source_partition: int
    source_offset: int
    source_last_offset: int
    source_at: int
    retention: str
    part: str
    next_parts: tuple[PartStart, ...]
    clock_correction_ms: int
    received_events: int
    throttled: int
    repeated: int
    erased: int
    dead_lettered: int
    redacted: dict[str, int]
    late: bool


class SessionUpdate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """replay.sessions: one part of a session as known after `revision`; a later revision replaces an earlier one."""

    tenant: str
    session_id: str
    part: str
    revision: int
    status: Status
    close_reason: CloseReason | None
    source: Source
    user_id: str
    started_at: int
    ended_at: int
    duration_ms: int
    active_ms: int
    events: int
    clicks: int
    rage_clicks: int
    inputs: int
    scrolls: int
    mouse_moves: int
    navigations: int
    console_errors: int
    errors: int
    throttled: int
    redacted: int
    late: int
    first_url: str
    last_url: str
    urls: tuple[str, ...]
    user_agent: str
    viewport_width: int
    viewport_height: int
    retention: str
    epoch: int
    source_partition: int
    dead_clicks: int = 0
    clock_correction_ms: int = 0


class Erasure(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """replay.erasures: nothing of this session is left in the stores."""

    tenant: str
    session_id: str
    erasure_id: str
    asked_at: int
    erased_at: int
    epoch: int
    source_partition: int
    source_offset: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """replay.dead_letters: a record that could not be processed, its bytes and where it stood."""

    stage: Literal["worker", "warehouse", "objects"]
    reason: str
    detail: str
    epoch: int
    source_topic: str
    source_partition: int
    source_offset: int
    source_at: int
    event_count: int
    key: bytes | None
    value: bytes
