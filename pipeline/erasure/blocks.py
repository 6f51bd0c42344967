"""One replay object without some sessions. Pure: bytes in, bytes of the same length out.

An erased block becomes a skippable frame of its own length, filled with zeros, so that all other blocks stay where they are
and every zstd reader still reads the object. The trailer loses the block's entry and gains as many spaces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass

import msgspec

from pipeline.model.blocks import Manifest
from pipeline.model.retention import EXPIRES_MAX_S, PINNED
from pipeline.storage.blocks import ERASED_MAGIC, assemble, decode_manifest, encode_manifest, skippable, trailer

Session = tuple[str, str]
"""(tenant, session_id)."""

_FRAME_HEAD_BYTES = 8


@dataclass(frozen=True)
class Erased:
    """An object without some sessions' blocks, its manifest without them, and how many (blocks, bytes) each had."""

    body: bytes
    manifest: Manifest
    blocks: Counter[Session]
    bytes: Counter[Session]


def erase(body: bytes, sessions: Container[Session]) -> Erased | None:
    """None where the object has no block of these sessions. Raises PoisonError where it is not an object of ours."""
    text = trailer(body)
    manifest = decode_manifest(text)
    gone = [block for block in manifest.blocks if (block.tenant, block.session_id) in sessions]
    if not gone:
        return None
    left = msgspec.structs.replace(
        manifest, blocks=tuple(block for block in manifest.blocks if (block.tenant, block.session_id) not in sessions)
    )
    written = bytearray(body)
    blocks, sizes = Counter[Session](), Counter[Session]()
    for block in gone:
        frame = skippable(ERASED_MAGIC, bytes(block.byte_length - _FRAME_HEAD_BYTES))
        written[block.byte_start : block.byte_start + block.byte_length] = frame
        blocks[block.tenant, block.session_id] += 1
        sizes[block.tenant, block.session_id] += block.byte_length
    written[len(body) - len(text) :] = encode_manifest(left).ljust(len(text))
    return Erased(bytes(written), left, blocks, sizes)


def burnt(key: str, epoch: int) -> bytes:
    """An object of nothing, for a key that the index lists and where no bytes are yet: whoever meant to put them loses."""
    manifest = Manifest(
        object=key,
        topic="",
        epoch=epoch,
        source_partition=0,
        first=0,
        last=0,
        retention=PINNED,
        expires_at=EXPIRES_MAX_S,
        blocks=(),
    )
    return assemble(manifest, [])


def holds(body: bytes, sessions: Container[Session]) -> bool:
    """Whether any block of these sessions is left in the object. Raises PoisonError as `erase` does."""
    return any((block.tenant, block.session_id) in sessions for block in decode_manifest(trailer(body)).blocks)
