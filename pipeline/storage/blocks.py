"""The replay object, byte by byte. Pure: clean batches in, bytes and manifest out; and back.

    ┌────────────┬─────────┬─────────┬─ ─ ─┬──────────────────────────┐
    │ empty zstd │ block 0 │ block 1 │     │ skippable frame: trailer │
    │ frame      │ (frame) │ (frame) │     │ (the manifest as JSON)   │
    └────────────┴─────────┴─────────┴─ ─ ─┴──────────────────────────┘
    28 B5 2F FD  28 B5 2F FD …             5E 2A 4D 18, length (4 bytes, little endian), JSON
     erased block: 50 2A 4D 18, length, …

A block is one independent zstd frame of NDJSON: all events of one (tenant, session_id, part, window_id) in the object's range
of source offsets, in log order, one a line, every line self-describing:

    {"tenant":…,"session_id":…,"part":…,"window_id":…,"timestamp":…,"type":…,"data":…}

So `zstd -dc object | jq` reads all of it, and a range read of one block takes out one session. Readers that look at the
first four bytes only (polars) see a zstd frame first; every zstd reader skips skippable frames (RFC 8878, 3.1.2). The
trailer makes the object its own index: whoever loses the race for its key takes range and blocks from it, and an index can
be rebuilt from the objects alone. An erased block is a skippable frame of the same length; it is not alive, and the trailer
names it no longer.
"""

from __future__ import annotations

import hashlib
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
import zstandard

from pipeline.errors import PoisonError
from pipeline.model.batches import CleanBatch
from pipeline.model.blocks import Block, Manifest
from pipeline.model.events import SessionEvent, decode_payload
from pipeline.model.retention import expires_at_s

LEVEL = 9
"""Objects are written once and kept for years: a tenth smaller than level 3's, and still faster than two workers give
(tests/bench/objects.py has the figures). What was written at another level is read as before."""
TRAILER_MAGIC = 0x184D2A5E
ERASED_MAGIC = 0x184D2A50
_FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
_ERASED_MAGIC = struct.pack("<I", ERASED_MAGIC)
_SKIPPABLE = struct.Struct("<II")
BLOCK_BYTES_MAX = 1 << 30
MANIFEST_SUFFIX = ".manifest.json"
OBJECT_SUFFIX = ".jsonl.zst"
OBJECTS_PREFIX = "replays/v1/"
PREFIX = f"{OBJECTS_PREFIX}retention="

_KEY = re.compile(
    rf"{re.escape(PREFIX)}([^/]+)/date=(\d{{4}}-\d{{2}}-\d{{2}})/hour=\d{{2}}/[^/]+"
    rf"(?:{re.escape(OBJECT_SUFFIX)}|{re.escape(MANIFEST_SUFFIX)})",
    re.ASCII,
)

SOURCE_AT_MAX_MS = 253_402_300_799_999
"""The end of the year 9999, the last with four digits."""

Event = TypeVar("Event")

_encoder = msgspec.json.Encoder()
EMPTY_FRAME = zstandard.ZstdCompressor().compress(b"")


class Line(msgspec.Struct, kw_only=True):
    """One line of a block; the order of the fields is the order on the line."""

    tenant: str
    session_id: str
    part: str
    window_id: str
    timestamp: int
    type: str | int
    data: msgspec.Raw


class _Head(msgspec.Struct, frozen=True):
    """What all lines of a block begin with."""

    tenant: str
    session_id: str
    part: str
    window_id: str


class _Tail(msgspec.Struct, gc=False):
    """What a line ends with: an event, in a line's order of fields."""

    timestamp: int
    type: str | int
    data: msgspec.Raw = msgspec.Raw(b"null")


_decode_tails = msgspec.json.Decoder(_Tail).decode_lines


@dataclass(frozen=True)
class Place:
    """Which objects are meant: the topic of the raw batches, its epoch, the partition."""

    topic: str
    epoch: int
    partition: int


@dataclass(frozen=True)
class PackedObject:
    """An object ready to be put, with its manifest (which its trailer repeats)."""

    body: bytes
    manifest: Manifest


def object_key(place: Place, retention: str, first: int, source_at_ms: int) -> str:
    """The key: date and hour come from the LogAppendTime of the object's first record, the name from its offset."""
    at = time.gmtime(min(max(source_at_ms, 0), SOURCE_AT_MAX_MS) // 1000)
    day, hour = time.strftime("%Y-%m-%d", at), time.strftime("%H", at)
    name = f"{place.topic}-{place.epoch}-{place.partition}-{first}{OBJECT_SUFFIX}"
    return f"{PREFIX}{retention}/date={day}/hour={hour}/{name}"


def class_and_day(key: str) -> tuple[str, int] | None:
    """(retention class, ms of the day's begin) of an object's or manifest's key; None where it is neither."""
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    try:
        day = datetime.strptime(found[2], "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return found[1], int(day.timestamp()) * 1000


def manifest_key(key: str) -> str:
    return key.removesuffix(OBJECT_SUFFIX) + MANIFEST_SUFFIX


def events_of(batch: CleanBatch) -> list[SessionEvent]:
    """The events of a clean batch, in order. Raises PoisonError as `events_by_part` does."""
    return _decoded(batch, decode_payload)


def parts_of(batch: CleanBatch) -> Iterator[tuple[str, int, int]]:
    """(part, start, end): which of a clean batch's events are of which part of the session."""
    return _parts(batch, batch.event_count)


def events_by_part(batch: CleanBatch) -> Iterator[tuple[int, str, SessionEvent]]:
    """(index, part, event) of every event of a clean batch, in order.

    Raises PoisonError, naming the source offset, where the payload is broken or has not as many events as it should.
    """
    events = _decoded(batch, decode_payload)
    for part, start, end in _parts(batch, len(events)):
        for index in range(start, end):
            yield index, part, events[index]


def _decoded(batch: CleanBatch, decode: Callable[[bytes], list[Event]]) -> list[Event]:
    where = f"source partition {batch.source_partition} offset {batch.source_offset}"
    try:
        events = decode(batch.payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        kind = type(error).__name__
        raise PoisonError("bad_payload", f"{where}: the clean payload is not NDJSON events ({kind})") from None
    if len(events) != batch.event_count:
        raise PoisonError("bad_payload", f"{where}: {len(events)} events in the payload, {batch.event_count} promised")
    return events


def _parts(batch: CleanBatch, count: int) -> Iterator[tuple[str, int, int]]:
    """(part, start, end): which of a batch's `count` events are of which part of the session."""
    part, start = batch.part, 0
    for upcoming in batch.next_parts:
        end = min(max(upcoming.index, start), count)
        yield part, start, end
        part, start = upcoming.part, end
    yield part, start, count


@dataclass
class _Gathered:
    """One block while it is collected: the events of its batches as text, and what the index says of them."""

    first_offset: int
    last_offset: int = -1
    texts: list[bytes] = field(default_factory=list)
    times: list[int] = field(default_factory=list)


def pack(place: Place, retention: str, last: int, batches: Iterable[CleanBatch]) -> PackedObject:
    """All of one class's batches up to source offset `last` → one object. At least one batch must have an event."""
    gathered: dict[_Head, _Gathered] = {}
    first: CleanBatch | None = None
    last_at = 0
    for batch in batches:
        first = first or batch
        last_at = max(last_at, batch.source_at)
        tails = _decoded(batch, _decode_tails)
        for part, start, end in _parts(batch, len(tails)):
            if start == end:
                continue
            head = _Head(batch.tenant, batch.session_id, part, batch.window_id)
            block = gathered.get(head)
            if block is None:
                block = gathered[head] = _Gathered(batch.source_offset)
            block.last_offset = batch.source_offset
            mine = tails if end - start == len(tails) else tails[start:end]
            block.times += [tail.timestamp for tail in mine]
            block.texts.append(_encode_tails(mine))
    assert first is not None, "an object holds at least one batch"
    frames: list[bytes] = []
    blocks, position = [], len(EMPTY_FRAME)
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
    for n, (head, block) in enumerate(gathered.items()):
        frame = compressor.compress(_lines(head, block.texts))
        frames.append(frame)
        blocks.append(
            Block(
                n=n,
                tenant=head.tenant,
                session_id=head.session_id,
                part=head.part,
                window_id=head.window_id,
                byte_start=position,
                byte_length=len(frame),
                first_ts=min(block.times),
                last_ts=max(block.times),
                event_count=len(block.times),
                sha256=hashlib.sha256(frame).hexdigest(),
                source_offset=block.first_offset,
                source_last_offset=block.last_offset,
            )
        )
        position += len(frame)
    manifest = Manifest(
        object=object_key(place, retention, first.source_offset, first.source_at),
        topic=place.topic,
        epoch=place.epoch,
        source_partition=place.partition,
        first=first.source_offset,
        last=last,
        retention=retention,
        expires_at=expires_at_s(retention, last_at),  # when the last of it may go
        blocks=tuple(blocks),
    )
    return PackedObject(assemble(manifest, frames), manifest)


def assemble(manifest: Manifest, frames: list[bytes]) -> bytes:
    """The object: the blocks' frames as they lie in the manifest, the empty one before them, the trailer behind."""
    return b"".join([EMPTY_FRAME, *frames, skippable(TRAILER_MAGIC, encode_manifest(manifest))])


_TAIL_BEGINS = b'{"timestamp":'


def _encode_tails(tails: list[_Tail]) -> bytes:
    """One line an event whatever comes: JSON allows line breaks between tokens, a line of NDJSON does not."""
    text = _encoder.encode_lines(tails)
    if text.count(b"\n") == len(tails):
        return text
    for tail in tails:
        tail.data = msgspec.Raw(msgspec.json.format(bytes(tail.data), indent=-1))
    return _encoder.encode_lines(tails)


def _lines(head: _Head, texts: list[bytes]) -> bytes:
    """The block's lines: the head, the same on all of them, is laid out once and put before every event. Only a line's
    begin has a line break before it, so that nothing within an event is taken for one."""
    begins = _encoder.encode(head)[:-1] + b"," + _TAIL_BEGINS[1:]
    text = b"\n" + b"".join(texts)
    return text.replace(b"\n" + _TAIL_BEGINS, b"\n" + begins)[1:]


def encode_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.encode(manifest)


def decode_manifest(text: bytes) -> Manifest:
    """Raises PoisonError where it is no manifest."""
    try:
        return msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as error:
        raise PoisonError("bad_manifest", f"not a manifest ({type(error).__name__})") from None


def read_manifest(body: bytes) -> Manifest:
    """The manifest that an object carries, without the blocks that were erased. Raises PoisonError where the object was
    cut short, is not ours, or has neither a block nor an erased one where its trailer says so."""
    manifest = decode_manifest(trailer(body))
    begins = {block.n: body[block.byte_start : block.byte_start + 4] for block in manifest.blocks}
    if not set(begins.values()) <= {_FRAME_MAGIC, _ERASED_MAGIC}:
        raise PoisonError("bad_object", "the object's trailer names a block where none begins")
    alive = tuple(block for block in manifest.blocks if begins[block.n] == _FRAME_MAGIC)
    return msgspec.structs.replace(manifest, blocks=alive)


def is_erased(begin: bytes) -> bool:
    """Whether a frame that begins so is an erased block."""
    return begin[:4] == _ERASED_MAGIC


def fault_of(frame: bytes, byte_length: int, sha256: str) -> str | None:
    """What is wrong with the bytes read for a block: `cut` (the object ends before the block does), `erased`, `corrupt`
    (not what its hash says); None where they are the block."""
    if len(frame) < byte_length:
        return "cut"
    if hashlib.sha256(frame).hexdigest() == sha256:
        return None
    return "erased" if is_erased(frame) else "corrupt"


def block_text(frame: bytes) -> bytes:
    """The NDJSON of one block. Raises PoisonError where it is no zstd frame."""
    try:
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=BLOCK_BYTES_MAX)
    except zstandard.ZstdError:
        raise PoisonError("bad_block", "the block is no zstd frame") from None


def read_block(frame: bytes, sha256: str) -> list[Line]:
    """The lines of one block. Raises PoisonError where the bytes are not what the index says or not a block."""
    if fault_of(frame, len(frame), sha256):
        raise PoisonError("bad_block", "the block's bytes differ from its hash in the index")
    try:
        return msgspec.json.Decoder(Line).decode_lines(block_text(frame))
    except msgspec.DecodeError as error:
        raise PoisonError("bad_block", f"the block cannot be read ({type(error).__name__})") from None


def skippable(magic: int, payload: bytes) -> bytes:
    return _SKIPPABLE.pack(magic, len(payload)) + payload


def trailer(body: bytes) -> bytes:
    """The trailer is the last frame: its magic and length must end exactly where the object ends."""
    position = body.rfind(struct.pack("<I", TRAILER_MAGIC))
    while position >= 0:
        if position + _SKIPPABLE.size <= len(body):
            _, length = _SKIPPABLE.unpack_from(body, position)
            if position + _SKIPPABLE.size + length == len(body):
                return body[position + _SKIPPABLE.size :]
        position = body.rfind(struct.pack("<I", TRAILER_MAGIC), 0, position)
    raise PoisonError("bad_object", "the object has no trailer: it was cut short or is not ours")
