"""The index rebuilt from the bucket alone: from each object's manifest, or from the object itself where that is gone.

Only what is missing goes in, by the sink's own guarded insert, so it may run beside sinks and be run again. Nothing is
taken out of the index: what has no bytes any more, `replay verify` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import msgspec

from pipeline.errors import PoisonError
from pipeline.model.blocks import Manifest
from pipeline.storage.ahead import Limits, read_ahead
from pipeline.storage.blobs import BlobStore, MissingBlobError
from pipeline.storage.blocks import decode_manifest, encode_manifest, manifest_key
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.index import BlockIndex
from pipeline.storage.trailer import TAIL_BYTES, read_from_end
from pipeline.upkeep.walk import Standing, Stranger, walk

LIMITS = Limits(reads=8, read_bytes=32 << 20)


@dataclass(frozen=True)
class _Found:
    """What an object holds. `beside`: its own manifest file says so; `etag` is of the file that is there."""

    manifest: Manifest
    etag: str | None
    beside: bool


class Rebuilt(msgspec.Struct):
    """What was looked at and what was done."""

    objects: int = 0
    blocks: int = 0
    blocks_added: int = 0
    manifests_added: int = 0
    manifests_mended: int = 0
    expired_objects: int = 0
    """Past their retention: rows of theirs would go as soon as they came."""
    unreadable: list[str] = []
    """Objects that have neither a manifest nor a trailer that can be read: their blocks are not indexed."""


def reindex(
    store: BlobStore,
    warehouse: ClickHouse,
    *,
    now_s: int,
    progress: Callable[[Rebuilt, str], None] = lambda _rebuilt, _key: None,
) -> Rebuilt:
    """Completes index and manifests. Raises RetryableError where a store is away: run it again, it goes on."""
    rebuilt, index = Rebuilt(), BlockIndex(warehouse)
    try:
        with ThreadPoolExecutor(LIMITS.reads, thread_name_prefix="reindex") as pool:
            jobs = ((each, _bytes_of(each)) for each in _objects(store, warehouse))
            for standing, found in read_ahead(pool, partial(_read, store), jobs, LIMITS):
                if found is None:
                    continue  # it was deleted since it was listed
                rebuilt.objects += 1
                if isinstance(found, PoisonError):
                    rebuilt.unreadable.append(standing.key)
                elif found.manifest.expires_at <= now_s:
                    rebuilt.expired_objects += 1
                else:
                    _complete(store, index, standing, found, rebuilt)
                progress(rebuilt, standing.key)
    finally:
        index.close()
    return rebuilt


def _objects(store: BlobStore, warehouse: ClickHouse) -> Iterator[Standing]:
    """What has bytes: rows and manifests alone lead nowhere."""
    for each in walk(store, warehouse):
        if not isinstance(each, Stranger) and each.size is not None:
            yield each


def _bytes_of(standing: Standing) -> int:
    return (standing.manifest_size or 0) + TAIL_BYTES


def _read(store: BlobStore, standing: Standing) -> _Found | PoisonError | None:
    """The object's manifest, or why there is none; None where the object is gone."""
    assert standing.size is not None
    try:
        body, etag = store.get(manifest_key(standing.key)) if standing.manifest_size is not None else (b"", None)
    except MissingBlobError:
        body, etag = b"", None
    try:
        return _Found(_its_own(standing.key, decode_manifest(body)), etag, beside=True)
    except PoisonError:
        pass  # then the object itself must tell
    try:
        return _Found(_its_own(standing.key, read_from_end(store, standing.key, standing.size)), etag, beside=False)
    except PoisonError as error:
        return error
    except MissingBlobError:
        return None


def _its_own(key: str, manifest: Manifest) -> Manifest:
    if manifest.object != key:
        raise PoisonError("bad_manifest", "it is another object's")
    return manifest


def _complete(store: BlobStore, index: BlockIndex, standing: Standing, found: _Found, rebuilt: Rebuilt) -> None:
    """The manifest first, then the index: as the sink does. An erasure that comes in between wins: it knows the ETag."""
    manifest, beside = found.manifest, manifest_key(standing.key)
    if not found.beside and found.etag is None:
        rebuilt.manifests_added += store.put_if_absent(beside, encode_manifest(manifest))
    elif not found.beside and found.etag is not None:
        rebuilt.manifests_mended += store.replace_if_match(beside, encode_manifest(manifest), found.etag)
    rebuilt.blocks += len(manifest.blocks)
    known = {row.n for row in standing.rows}
    if any(block.n not in known for block in manifest.blocks):
        rebuilt.blocks_added += index.complete(manifest)
