"""The index rebuilt from the bucket alone: from each object's manifest, or from the object itself where that is gone.

Only what is missing goes in, by the sink's own guarded insert, object by object, so it may run beside sinks and be run
again. `alone`, while no sink runs, many objects share an insert, which is far faster. Nothing is taken out of the index:
what has no bytes any more, `replay verify` tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from pipeline.errors import PoisonError, RetryableError
from pipeline.model.blocks import Manifest
from pipeline.storage.ahead import Limits, read_ahead
from pipeline.storage.blobs import BlobStore, MissingBlobError
from pipeline.storage.blocks import decode_manifest, encode_manifest, manifest_key
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.index import BlockIndex
from pipeline.storage.trailer import TAIL_BYTES, read_from_end
from pipeline.upkeep.walk import Standing, Stranger, walk

LIMITS = Limits(reads=8, read_bytes=32 << 20)
ROWS_AT_ONCE = 20_000
"""In one insert, where many objects may share it."""
WAITS_S = (1.0, 5.0, 20.0, 60.0)
"""Between tries to insert, where the warehouse cannot take it now."""

log = structlog.get_logger()


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
    alone: bool = False,
    progress: Callable[[Rebuilt, str], None] = lambda _rebuilt, _key: None,
) -> Rebuilt:
    """Completes index and manifests. Raises RetryableError where a store is away: run it again, it goes on."""
    run = _Run(store, BlockIndex(warehouse), now_s=now_s, alone=alone)
    try:
        with ThreadPoolExecutor(LIMITS.reads, thread_name_prefix="reindex") as pool:
            jobs = ((each, _bytes_of(each)) for each in _objects(store, warehouse))
            for standing, found in read_ahead(pool, partial(_read, store), jobs, LIMITS):
                run.take(standing, found)
                progress(run.rebuilt, standing.key)
        run.insert()
    finally:
        run.index.close()
    return run.rebuilt


class _Run:
    """One walk: what was done so far, and which objects' rows are still to go in."""

    def __init__(self, store: BlobStore, index: BlockIndex, *, now_s: int, alone: bool) -> None:
        self.rebuilt, self.index = Rebuilt(), index
        self._store, self._now_s, self._alone = store, now_s, alone
        self._waiting: list[Manifest] = []
        self._rows = 0

    def take(self, standing: Standing, found: _Found | PoisonError | None) -> None:
        """The manifest first, then the index: as the sink does."""
        if found is None:
            return
        self.rebuilt.objects += 1
        if isinstance(found, PoisonError):
            self.rebuilt.unreadable.append(standing.key)
            return
        if found.manifest.expires_at <= self._now_s:
            self.rebuilt.expired_objects += 1
            return
        self._complete_manifest(standing.key, found)
        blocks, known = found.manifest.blocks, {row.n for row in standing.rows}
        self.rebuilt.blocks += len(blocks)
        if any(block.n not in known for block in blocks):
            self._waiting.append(found.manifest)
            self._rows += len(blocks)
            if not self._alone or self._rows >= ROWS_AT_ONCE:
                self.insert()

    def _complete_manifest(self, key: str, found: _Found) -> None:
        if found.beside:
            return
        body = encode_manifest(found.manifest)
        if found.etag is None:
            self.rebuilt.manifests_added += self._store.put_if_absent(manifest_key(key), body)
        else:
            self.rebuilt.manifests_mended += self._store.replace_if_match(manifest_key(key), body, found.etag)

    def insert(self) -> None:
        """What waits goes in. Tries for a while where the warehouse cannot take it now."""
        for wait_s in (*WAITS_S, None):
            try:
                if self._alone and self._waiting:
                    self.rebuilt.blocks_added += self.index.complete_alone(self._waiting)
                else:
                    self.rebuilt.blocks_added += sum(self.index.complete(each) for each in self._waiting)
                break
            except RetryableError as error:
                if wait_s is None:
                    raise
                log.warning("reindex_waits", seconds=wait_s, why=str(error))
                time.sleep(wait_s)
        self._waiting, self._rows = [], 0


def _objects(store: BlobStore, warehouse: ClickHouse) -> Iterator[Standing]:
    """What has bytes: rows and manifests alone lead nowhere."""
    for each in walk(store, warehouse):
        if not isinstance(each, Stranger) and each.size is not None:
            yield each


def _bytes_of(standing: Standing) -> int:
    return (standing.manifest_size or 0) + TAIL_BYTES


def _read(store: BlobStore, standing: Standing) -> _Found | PoisonError | None:
    """The object's manifest, or why there is none; None where the object was deleted since it was listed."""
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
