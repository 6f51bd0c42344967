"""Everything that lies in a folder, as bytes and unpacked: to see that something is in no store any more.

A text that was compressed is not found by its bytes: ClickHouse's blocks (LZ4, ZSTD) and zstd's frames are opened here by
their formats alone. A test that finds nothing must have found it before by the same search.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import lz4.block
import zstandard

_HEADER = struct.Struct("<16xBII")
"""Of a block of ClickHouse: checksum, method, bytes from the method on, bytes unpacked."""
_LZ4, _ZSTD = 0x82, 0x90
_FRAME = b"\x28\xb5\x2f\xfd"


def files_with(folder: Path, text: str) -> list[str]:
    """The files below `folder` that hold the text, packed or not; those that vanish while it looks do not."""
    found = []
    paths = [Path(inside) / name for inside, _, names in os.walk(folder) for name in names]
    for path in sorted(paths):
        try:
            body = path.read_bytes()
        except OSError:
            continue
        if any(text.encode() in piece for piece in (body, *_unpacked(body))):
            found.append(path.relative_to(folder).as_posix())
    return found


def _unpacked(body: bytes) -> Iterator[bytes]:
    if body.startswith(_FRAME):
        yield zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True).read()
        return
    at = 0
    while at + _HEADER.size <= len(body):
        method, packed, size = _HEADER.unpack_from(body, at)
        block = body[at + _HEADER.size : at + 16 + packed]
        if packed < 9 or len(block) != packed - 9:
            return  # not a file of blocks
        try:
            if method == _LZ4:
                yield lz4.block.decompress(block, uncompressed_size=size)
            elif method == _ZSTD:
                yield zstandard.ZstdDecompressor().decompress(block, max_output_size=size)
        except (lz4.block.LZ4BlockError, zstandard.ZstdError):
            return
        at += 16 + packed
