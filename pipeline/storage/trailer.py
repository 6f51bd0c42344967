"""An object's own manifest, read from its end by range requests."""

from __future__ import annotations

from pipeline.errors import PoisonError
from pipeline.model.blocks import Manifest
from pipeline.storage.blobs import BlobStore
from pipeline.storage.blocks import decode_manifest, trailer

TAIL_BYTES = 64 << 10
"""What is asked for first: the trailer of some 150 blocks."""
TAIL_GROWTH = 16


def read_from_end(store: BlobStore, key: str, size: int) -> Manifest:
    """The manifest in the trailer of an object of `size` bytes: its live blocks, an erasure takes the others out.

    Raises PoisonError where the object has no trailer (it was cut short or is not ours), MissingBlobError, RetryableError.
    """
    length = TAIL_BYTES
    while True:
        tail = store.get_range(key, max(size - length, 0), min(length, size))
        try:
            return decode_manifest(trailer(tail))
        except PoisonError:
            if length >= size:
                raise
        length *= TAIL_GROWTH
