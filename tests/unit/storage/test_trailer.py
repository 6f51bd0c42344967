"""The manifest read from an object's end: the same as from the whole of it, and asked for by ranges where that is less."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from pipeline.errors import PoisonError
from pipeline.storage.blobs import MissingBlobError
from pipeline.storage.blocks import PackedObject, Place, pack, read_manifest
from pipeline.storage.directory import DirectoryStore
from pipeline.storage.trailer import TAIL_BYTES, read_from_end
from tests.unit.sinks.clean import AUGUST_MS, batch

PLACE = Place("replay.batches", 1, 0)


class CountingStore(DirectoryStore):
    """Counts bytes that were read, and requests."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.requests = self.bytes = 0

    def get(self, key: str) -> tuple[bytes, str]:
        body, etag = super().get(key)
        self._count(body)
        return body, etag

    def get_range(self, key: str, start: int, length: int) -> bytes:
        found = super().get_range(key, start, length)
        self._count(found)
        return found

    def _count(self, found: bytes) -> None:
        self.requests += 1
        self.bytes += len(found)


def packed(blocks: int, bytes_a_block: int) -> PackedObject:
    """Blocks of about that size: what is random does not get smaller than its half."""
    return pack(
        PLACE,
        "9y",
        blocks - 1,
        [
            batch(n, [("console", AUGUST_MS, {"args": [os.urandom(bytes_a_block).hex()]})], session_id=f"s{n}")
            for n in range(blocks)
        ],
    )


def erased(body: bytes, made: PackedObject, *numbers: int) -> bytes:
    changed = bytearray(body)
    for n in numbers:
        block = made.manifest.blocks[n]
        struct.pack_into("<II", changed, block.byte_start, 0x184D2A50, block.byte_length - 8)
    return bytes(changed)


@pytest.mark.parametrize(
    ("blocks", "bytes_a_block", "requests_max", "share_max"),
    [
        (3, 10, 1, 1.0),  # all of it lies in the first tail
        (3, 2_000_000, 4, 0.02),  # a tail, and the beginning of each block
        (
            1_000,
            100,
            3,
            4.0,
        ),  # a trailer longer than the first tail; blocks so small that the whole is less than their sum
    ],
    ids=["small", "large blocks", "many blocks"],
)
def test_it_is_what_the_whole_object_says(
    tmp_path: Path, blocks: int, bytes_a_block: int, requests_max: int, share_max: float
) -> None:
    made = packed(blocks, bytes_a_block)
    for body in (made.body, erased(made.body, made, 0, blocks - 1)):
        store = CountingStore(tmp_path / str(len(list(tmp_path.iterdir()))))
        store.put_if_absent("o", body)
        assert read_from_end(store, "o", len(body)) == read_manifest(body)
        assert store.requests <= requests_max
        assert store.bytes <= share_max * len(body)


def test_erased_blocks_are_left_out_wherever_they_lie(tmp_path: Path) -> None:
    made = packed(3, 2_000_000)
    store = DirectoryStore(tmp_path)
    store.put_if_absent("o", erased(made.body, made, 1))
    assert [block.n for block in read_from_end(store, "o", len(made.body)).blocks] == [0, 2]


@pytest.mark.parametrize("size", [0, 1, TAIL_BYTES, 20 * TAIL_BYTES])
def test_what_has_no_trailer_is_refused(tmp_path: Path, size: int) -> None:
    store = DirectoryStore(tmp_path)
    store.put_if_absent("o", os.urandom(size))
    with pytest.raises(PoisonError, match="no trailer"):
        read_from_end(store, "o", size)


def test_a_trailer_that_names_no_block_is_refused(tmp_path: Path) -> None:
    made = packed(3, 2_000_000)
    body = bytearray(made.body)
    body[made.manifest.blocks[1].byte_start] ^= 1
    store = DirectoryStore(tmp_path)
    store.put_if_absent("o", bytes(body))
    with pytest.raises(PoisonError, match="where none begins"):
        read_from_end(store, "o", len(body))


def test_a_missing_object_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingBlobError):
        read_from_end(DirectoryStore(tmp_path), "o", 10)
