"""The manifest read from an object's end: the same as from the whole of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.erasure.blocks import erase
from pipeline.errors import PoisonError
from pipeline.storage.blobs import MissingBlobError
from pipeline.storage.blocks import PackedObject, Place, pack
from pipeline.storage.directory import DirectoryStore
from pipeline.storage.trailer import TAIL_BYTES, read_from_end
from tests.unit.sinks.clean import AUGUST_MS, batch

PLACE = Place("replay.batches", 1, 0)


class CountingStore(DirectoryStore):
    """Counts bytes that were read, and requests."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.requests = self.bytes = 0

    def get_range(self, key: str, start: int, length: int) -> bytes:
        found = super().get_range(key, start, length)
        self.requests += 1
        self.bytes += len(found)
        return found


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


@pytest.mark.parametrize(
    ("blocks", "bytes_a_block", "requests", "bytes_max"),
    [(3, 10, 1, TAIL_BYTES), (3, 2_000_000, 1, TAIL_BYTES), (1_000, 2_000, 2, 17 * TAIL_BYTES)],
    ids=["small", "large", "many blocks"],
)
def test_it_is_what_the_whole_object_says_and_only_the_end_is_read(
    tmp_path: Path, blocks: int, bytes_a_block: int, requests: int, bytes_max: int
) -> None:
    made, store = packed(blocks, bytes_a_block), CountingStore(tmp_path)
    store.put_if_absent("o", made.body)
    assert read_from_end(store, "o", len(made.body)) == made.manifest
    assert store.requests == requests
    assert store.bytes <= bytes_max


def test_erased_blocks_are_left_out(tmp_path: Path) -> None:
    made, store = packed(3, 2_000_000), DirectoryStore(tmp_path)
    done = erase(made.body, {("acme", "s1")})
    assert done is not None
    store.put_if_absent("o", done.body)
    assert [block.session_id for block in read_from_end(store, "o", len(made.body)).blocks] == ["s0", "s2"]


@pytest.mark.parametrize("size", [0, 1, TAIL_BYTES, 20 * TAIL_BYTES])
def test_what_has_no_trailer_is_refused(tmp_path: Path, size: int) -> None:
    store = DirectoryStore(tmp_path)
    store.put_if_absent("o", os.urandom(size))
    with pytest.raises(PoisonError, match="no trailer"):
        read_from_end(store, "o", size)


def test_a_missing_object_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingBlobError):
        read_from_end(DirectoryStore(tmp_path), "o", 10)
