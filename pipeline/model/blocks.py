"""Where replay bytes are: blocks inside shared objects, and the manifest that lists an object's blocks."""

from __future__ import annotations

import msgspec


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One zstd frame of an object: all events of one session part and window in the object's range, in log order."""

    n: int
    tenant: str
    session_id: str
    part: str
    window_id: str
    byte_start: int
    byte_length: int
    first_ts: int
    last_ts: int
    event_count: int
    sha256: str
    source_offset: int
    source_last_offset: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an object holds: every batch of its retention class with a source offset in first..last, each once."""

    version: int = 1
    object: str
    topic: str
    epoch: int
    source_partition: int
    first: int
    last: int
    retention: str
    expires_at: int
    blocks: tuple[Block, ...]
