"""A session's recording, rebuilt from the replay objects: the index says which byte ranges, each block is checked by its hash."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from pipeline.errors import PoisonError
from pipeline.model.events import RecordingMetadata, SessionEvent, SessionRecording, Viewport
from pipeline.query.sessions import SessionId, parse_time
from pipeline.storage.blobs import BlobStore, MissingBlobError
from pipeline.storage.blocks import Line, read_block
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.pins import ONE_OF_EACH

READS_AT_ONCE = 8

log = structlog.get_logger()


@dataclass(frozen=True)
class BlockPlace:
    """One block of the index: where its bytes are and what they must hash to."""

    object: str
    byte_start: int
    byte_length: int
    sha256: str


@dataclass(frozen=True)
class Rebuilt:
    """A recording, and how many of its blocks could not be read."""

    recording: SessionRecording
    missing_blocks: int


def block_places(warehouse: ClickHouse, tenant: str, wanted: SessionId) -> list[BlockPlace]:
    """The session's blocks in log order."""
    rows = warehouse.rows(
        "SELECT object, byte_start, byte_length, sha256 FROM {db}.blocks "
        "WHERE tenant = {tenant:String} AND session_id = {session:String} "
        "AND ({part:String} = '' OR part = {part:String}) ORDER BY epoch, source_offset, " + ONE_OF_EACH,
        tenant=tenant,
        session=wanted.session_id,
        part=wanted.part or "",
    )
    return [
        BlockPlace(key, start, length, sha if isinstance(sha, str) else sha.decode())
        for key, start, length, sha in rows
    ]


def rebuild(store: BlobStore, places: list[BlockPlace], parts: list[dict[str, Any]]) -> Rebuilt:
    """Reads every block (at most READS_AT_ONCE at a time) and sorts the events by time, stably."""
    with ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="blocks") as pool:
        blocks = list(pool.map(lambda place: _read(store, place), places))
    lines = [line for block in blocks if block is not None for line in block]
    lines.sort(key=lambda line: line.timestamp)
    last = max(parts, key=lambda part: part["revision"])
    recording = SessionRecording(
        session_id=last["session_id"],
        user_id=last["user_id"],
        start_time=min(parse_time(part["started_at"], "") for part in parts),
        end_time=max(parse_time(part["ended_at"], "") for part in parts),
        events=[SessionEvent(line.type, line.timestamp, line.data) for line in lines],
        metadata=RecordingMetadata(
            user_agent=last["user_agent"],
            viewport=Viewport(width=last["viewport_width"], height=last["viewport_height"]),
            url=parts[0]["first_url"],
        ),
    )
    return Rebuilt(recording, sum(block is None for block in blocks))


def encode(rebuilt: Rebuilt) -> bytes:
    """The SessionRecording as JSON; `missingBlocks` stands in it only where some are missing."""
    text = msgspec.json.encode(rebuilt.recording)
    if not rebuilt.missing_blocks:
        return text
    return text[:-1] + b',"missingBlocks":%d}' % rebuilt.missing_blocks


def _read(store: BlobStore, place: BlockPlace) -> list[Line] | None:
    try:
        frame = store.get_range(place.object, place.byte_start, place.byte_length)
        return read_block(frame, place.sha256)
    except (MissingBlobError, PoisonError) as error:
        log.error("block_unreadable", object=place.object, byte_start=place.byte_start, why=type(error).__name__)
        return None
