"""`replay retain`: what a bucket's lifecycle does, for stores without one; and the lifecycle's rules for those with one.

A class is a prefix, its keys stand in the order of their days: a listing ends at the first day that cannot have expired.
An object goes when the last record in it may go, which its manifest says (or, without one, its own trailer). Bytes go
first, then the manifest, then the index rows: whatever a crash leaves, the next run finds by the keys, and index rows
whose object is gone go by their TTL. Copies of pinned sessions lie under a prefix of their own, which is never entered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import structlog

from pipeline.errors import ConfigurationError, PoisonError
from pipeline.model.blocks import Manifest
from pipeline.model.retention import PINNED, days, expires_at_s
from pipeline.storage.blobs import BlobStore, MissingBlobError
from pipeline.storage.blocks import (
    MANIFEST_SUFFIX,
    OBJECT_SUFFIX,
    PREFIX,
    class_and_day,
    decode_manifest,
    manifest_key,
    read_manifest,
)
from pipeline.storage.clickhouse import ClickHouse

OBJECTS_AT_ONCE = 500
"""Index rows of so many objects go in one mutation."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Expired:
    """An object that may go; `size` is that of its bytes, 0 where only its manifest was left."""

    key: str
    size: int
    retention: str
    blocks: int


def classes(store: BlobStore) -> Iterator[str]:
    """The retention classes that the store has keys of, pinned among them; a listing each, of one page."""
    after = ""
    while found := next(store.sizes(PREFIX, after), None):
        retention = found[0].removeprefix(PREFIX).partition("/")[0]
        yield retention
        after = f"{PREFIX}{retention}0"  # 0 comes after /


def expired(store: BlobStore, now_s: int) -> Iterator[Expired]:
    """The objects that may go at `now_s`. What is pinned, of no known class or not ours is passed over."""
    for retention in classes(store):
        if retention == PINNED:
            continue
        try:
            days(retention)
        except ConfigurationError:
            log.warning("unknown_retention_class", retention=retention)
            continue
        yield from _expired_of(store, retention, now_s)


def _expired_of(store: BlobStore, retention: str, now_s: int) -> Iterator[Expired]:
    done = ""
    for key, size in store.sizes(f"{PREFIX}{retention}/"):
        found = class_and_day(key)
        if found is None:
            continue
        if expires_at_s(retention, found[1]) > now_s:
            return
        stem = key.removesuffix(OBJECT_SUFFIX).removesuffix(MANIFEST_SUFFIX)
        manifest = _manifest(store, stem) if stem != done else None
        done = stem
        if manifest is not None and manifest.expires_at <= now_s:
            here = size if key.endswith(OBJECT_SUFFIX) else 0
            yield Expired(stem + OBJECT_SUFFIX, here, retention, len(manifest.blocks))


def _manifest(store: BlobStore, stem: str) -> Manifest | None:
    """What the manifest says, or the object where there is none; None where neither can be read: nobody knows what it
    holds, so it stays, and is told."""
    for key, read in ((stem + MANIFEST_SUFFIX, decode_manifest), (stem + OBJECT_SUFFIX, read_manifest)):
        try:
            return read(store.get(key)[0])
        except MissingBlobError:
            continue
        except PoisonError as poison:
            log.error("object_unreadable", key=key, why=poison.reason)
    return None


def retain(store: BlobStore, warehouse: ClickHouse, now_s: int) -> Iterator[Expired]:
    """Removes what may go and tells it as it goes. Stopped anywhere, the next run does the rest."""
    found = expired(store, now_s)
    while some := list(islice(found, OBJECTS_AT_ONCE)):
        for each in some:
            store.delete(each.key)
            store.delete(manifest_key(each.key))
            yield each
        _forget(warehouse, [each.key for each in some])
    swept = store.sweep(PREFIX)
    if swept:
        log.info("left_over_writes_swept", count=swept)


def _forget(warehouse: ClickHouse, keys: list[str]) -> None:
    """Removes the index rows of objects that are gone: a mutation only where the TTL was not there before."""
    if warehouse.value("SELECT count() FROM {db}.blocks WHERE has({keys:Array(String)}, object)", keys=keys):
        warehouse.command(
            "ALTER TABLE {db}.blocks DELETE WHERE has({keys:Array(String)}, object) SETTINGS mutations_sync = 1",
            keys=keys,
        )


def lifecycle(retentions: set[str], folder: str) -> dict[str, Any]:
    """The bucket's lifecycle configuration, as `aws s3api put-bucket-lifecycle-configuration` takes it: a rule a class, and
    one for what writers and deletions leave. S3 ends a day at the next midnight UTC, as `expires_at` does. Pure."""
    under = f"{folder}/" if folder else ""
    rules: list[dict[str, Any]] = [
        {
            "ID": f"retention-{retention}",
            "Status": "Enabled",
            "Filter": {"Prefix": f"{under}{PREFIX}{retention}/"},
            "Expiration": {"Days": days(retention)},
        }
        for retention in sorted(retentions - {PINNED}, key=lambda each: (days(each), each))
    ]
    rules.append(
        {
            "ID": "left-over",
            "Status": "Enabled",
            "Filter": {"Prefix": f"{under}{PREFIX}"},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        }
    )
    return {"Rules": rules}
