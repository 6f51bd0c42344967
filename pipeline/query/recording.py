"""A session's recording, rebuilt from the replay objects while it is sent: the index says which byte ranges, each block is
checked by its hash.

One range request a block, several ahead of what is being sent, within `Limits`; memory follows those and the blocks that
overlap in time (see `merge`), never the session's length.

A block that is not there or not what it should be is left out and told at the end, when all that can be read is sent:

    portable   the last member of the SessionRecording  "problems":[{"block":"<object>#<n>","why":"corrupt"}]
    ndjson     a last line                             {"problems":[{"block":"<object>#<n>","why":"corrupt"}]}

`why` is `missing` (no such object), `cut` (the object ends before the block does), `erased`, `corrupt` (not what its hash
says) or `unreadable` (what was hashed is no block). Without problems there is neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import structlog

from pipeline.errors import PoisonError, ReplayError
from pipeline.model.events import RecordingMetadata, SessionEvent, SessionRecording, Viewport
from pipeline.query.merge import Due, merged
from pipeline.query.sessions import SessionId, parse_time
from pipeline.storage.ahead import Limits, read_ahead
from pipeline.storage.blobs import BlobStore, MissingBlobError
from pipeline.storage.blocks import block_text, fault_of
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.pins import ONE_OF_EACH

CHUNK_BYTES = 256 << 10
LIMITS = Limits()

_decoder = msgspec.json.Decoder(SessionEvent)
"""Of a line only these three members are read: what else it tells, the index has told."""

log = structlog.get_logger()


@dataclass(frozen=True)
class BlockPlace:
    """One block of the index: where its bytes are, what they must hash to, and since when (ms) it has events. `order`
    counts the session's blocks in log order."""

    object: str
    n: int
    byte_start: int
    byte_length: int
    sha256: str
    first_ts: int
    order: int


class Problem(msgspec.Struct, frozen=True):
    """A block that is not in the recording, and why."""

    block: str
    why: str


def block_places(warehouse: ClickHouse, tenant: str, wanted: SessionId) -> list[BlockPlace]:
    """The session's blocks in log order."""
    rows = warehouse.rows(
        "SELECT object, n, byte_start, byte_length, toString(sha256), toUnixTimestamp64Milli(first_ts) FROM {db}.blocks "
        "WHERE tenant = {tenant:String} AND session_id = {session:String} "
        "AND ({part:String} = '' OR part = {part:String}) ORDER BY epoch, source_offset, " + ONE_OF_EACH,
        tenant=tenant,
        session=wanted.session_id,
        part=wanted.part or "",
    )
    return [
        BlockPlace(key, n, start, length, sha256, first_ts, order)
        for order, (key, n, start, length, sha256, first_ts) in enumerate(rows)
    ]


def recording(
    store: BlobStore, pool: Executor, places: list[BlockPlace], parts: list[dict[str, Any]]
) -> Iterator[bytes]:
    """The SessionRecording as JSON, in chunks. Raises RetryableError where the store is away."""
    last = max(parts, key=lambda part: part["revision"])
    around = SessionRecording(
        session_id=last["session_id"],
        user_id=last["user_id"],
        start_time=min(parse_time(part["started_at"], "") for part in parts),
        end_time=max(parse_time(part["ended_at"], "") for part in parts),
        events=[],
        metadata=RecordingMetadata(
            user_agent=last["user_agent"],
            viewport=Viewport(width=last["viewport_width"], height=last["viewport_height"]),
            url=parts[0]["first_url"],
        ),
    )
    head, events, tail = msgspec.json.encode(around).partition(b'"events":[')  # in a string its quotes would be escaped
    reading = _Reading(store, pool, places)
    yield from _chunks(head + events, b",", reading)
    problems = b',"problems":' + msgspec.json.encode(reading.problems) if reading.problems else b""
    yield tail.removesuffix(b"}") + problems + b"}"


def lines(store: BlobStore, pool: Executor, places: list[BlockPlace]) -> Iterator[bytes]:
    """The events as NDJSON, in chunks. Raises RetryableError where the store is away."""
    reading = _Reading(store, pool, places)
    yield from _chunks(b"", b"\n", reading)
    if reading.problems:
        yield (b"\n" if reading.sent else b"") + msgspec.json.encode({"problems": reading.problems})
    if reading.sent or reading.problems:
        yield b"\n"


def _chunks(head: bytes, between: bytes, reading: _Reading) -> Iterator[bytes]:
    """The events, `between` them what is given, after `head`."""
    encoder, chunk = msgspec.json.Encoder(), bytearray(head)
    for event in reading.events():
        if reading.sent:
            chunk += between
        encoder.encode_into(event, chunk, -1)
        reading.sent += 1
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


class _Reading:
    """One recording while it is read: how many events were sent, and which blocks have problems."""

    def __init__(self, store: BlobStore, pool: Executor, places: list[BlockPlace]) -> None:
        self._store, self._pool = store, pool
        self._places = sorted(places, key=lambda place: (place.first_ts, place.order))
        self.sent = 0
        self.problems: list[Problem] = []

    def events(self) -> Iterator[SessionEvent]:
        try:
            yield from merged(self._blocks())
        except ReplayError as error:
            log.warning("recording_cut_off", sent=self.sent, why=str(error))
            raise
        if self.problems:
            log.error("recording_incomplete", sent=self.sent, problems=len(self.problems))

    def _blocks(self) -> Iterator[Due]:
        jobs = ((place, place.byte_length) for place in self._places)
        for place, frame in read_ahead(self._pool, self._read, jobs, LIMITS):
            yield Due(place.first_ts, place.order, partial(self._load, place, frame))

    def _read(self, place: BlockPlace) -> bytes | None:
        try:
            return self._store.get_range(place.object, place.byte_start, place.byte_length)
        except MissingBlobError:
            return None

    def _load(self, place: BlockPlace, frame: bytes | None) -> tuple[list[SessionEvent], int]:
        """A block's events and the bytes of their text; none where it has a problem, which is noted."""
        why = "missing" if frame is None else fault_of(frame, place.byte_length, place.sha256)
        if frame is not None and why is None:
            try:
                text = block_text(frame)
                return _decoder.decode_lines(text), len(text)
            except (PoisonError, msgspec.DecodeError):
                why = "unreadable"
        assert why is not None
        log.error("block_unreadable", object=place.object, n=place.n, why=why)
        self.problems.append(Problem(f"{place.object}#{place.n}", why))
        return [], 0
