"""Index and bucket, walked side by side: each object once, with what both know of it, in the order of keys.

Both sides are read in pages and merged by key, so what is held does not grow with them. They are read while sinks write:
what was flushed in between may be seen on one side only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

from pipeline.storage.blobs import BlobStore
from pipeline.storage.blocks import MANIFEST_SUFFIX, OBJECT_SUFFIX, OBJECTS_PREFIX
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.index import PAGE_ROWS, indexed
from pipeline.storage.index_rows import IndexRow


@dataclass(frozen=True)
class Standing:
    """An object's key, the bytes of the object and of its manifest (None: there is none), and its rows of the index by n."""

    key: str
    size: int | None
    manifest_size: int | None
    rows: list[IndexRow] = field(default_factory=list)


@dataclass(frozen=True)
class Stranger:
    """A key under the objects' prefix that is neither an object's nor a manifest's."""

    key: str


def walk(store: BlobStore, warehouse: ClickHouse, *, page_rows: int = PAGE_ROWS) -> Iterator[Standing | Stranger]:
    """Everything that the bucket has under OBJECTS_PREFIX or the index names. Raises RetryableError."""
    listed = _listed(store)
    known = (
        (key, list(rows)) for key, rows in groupby(indexed(warehouse, page_rows=page_rows), lambda row: row.object)
    )
    in_bucket, in_index = next(listed, None), next(known, None)
    while in_bucket is not None or in_index is not None:
        if isinstance(in_bucket, Stranger):
            yield in_bucket
            in_bucket = next(listed, None)
        elif in_bucket is None or (in_index is not None and in_index[0] < in_bucket.key):
            assert in_index is not None
            yield Standing(in_index[0], None, None, in_index[1])
            in_index = next(known, None)
        elif in_index is None or in_bucket.key < in_index[0]:
            yield in_bucket
            in_bucket = next(listed, None)
        else:
            yield Standing(in_bucket.key, in_bucket.size, in_bucket.manifest_size, in_index[1])
            in_bucket, in_index = next(listed, None), next(known, None)


def _listed(store: BlobStore) -> Iterator[Standing | Stranger]:
    """Objects with their manifests, which lie side by side: `…-<first>.` is followed by a suffix, never by a digit."""
    for stem, group in groupby(store.sizes(OBJECTS_PREFIX), lambda each: _stem(each[0])):
        sizes = dict(group)
        if stem is None:
            yield from (Stranger(key) for key in sizes)
        else:
            key = stem + OBJECT_SUFFIX
            yield Standing(key, sizes.get(key), sizes.get(stem + MANIFEST_SUFFIX))


def _stem(key: str) -> str | None:
    for suffix in (OBJECT_SUFFIX, MANIFEST_SUFFIX):
        if key.endswith(suffix):
            return key.removesuffix(suffix)
    return None
