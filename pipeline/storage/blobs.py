"""Blob stores behind one port. The object sink's exactness rests on `put_if_absent` and `replace_if_match` being atomic."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigurationError, ReplayError
from pipeline.settings import Settings

LEFT_OVER_AFTER_S = 3600
"""What a writer began and did not end within this time it will not end any more."""


class BlobStore(Protocol):
    """Keys are `/`-separated texts. Every method may raise RetryableError, after which it is unknown whether a write
    was applied; a missing key raises `MissingBlobError`."""

    def put_if_absent(self, key: str, body: bytes) -> bool:
        """Writes the whole blob unless the key exists. True for the one writer that won."""

    def replace_if_match(self, key: str, body: bytes, etag: str) -> bool:
        """Replaces the blob if it still has this ETag. False: read it again, it is another one, gone, or (a first try
        that was applied though its answer was lost) yours."""

    def get(self, key: str) -> tuple[bytes, str]:
        """(bytes, ETag)."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Bytes [start, start + length); fewer where the blob ends before."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys that begin with `prefix`, in order."""

    def sizes(self, prefix: str, after: str = "") -> Iterator[tuple[str, int]]:
        """(key, bytes) of the same keys, in order, read as they are asked for; only those that come after `after`."""

    def delete(self, key: str) -> None:
        """Removes the key, old versions and all; nothing happens where there is none."""

    def purge_versions(self, key: str) -> None:
        """Removes what the store keeps of earlier contents of exactly this key; what it holds now stays."""

    def sweep(self, prefix: str) -> int:
        """Removes what killed writers left half written under `prefix` LEFT_OVER_AFTER_S ago or earlier; how many."""


class MissingBlobError(Exception):
    """There is no blob by this key."""


def open_store(settings: Settings) -> BlobStore:
    """The store that REPLAY_OBJECTS_URL names. Raises ConfigurationError where a setting cannot be."""
    url = urlsplit(settings.objects)
    if url.scheme == "file":
        from pipeline.storage.directory import DirectoryStore

        return DirectoryStore(Path(unquote(url.path)))
    if url.scheme == "s3" and url.netloc:
        from pipeline.storage.s3 import S3Options, S3Store

        options = S3Options(
            addressing=settings.objects_addressing,
            sse=settings.objects_sse,
            kms_key=settings.objects_kms_key,
            conditional_put=bool(settings.objects_conditional_put),
        )
        return S3Store(url.netloc, url.path.strip("/"), endpoint=settings.objects_endpoint or None, options=options)
    raise ConfigurationError("REPLAY_OBJECTS_URL must be s3://bucket/prefix or file:///folder")


def require_conditional_put(store: BlobStore) -> None:
    """Raises ConfigurationError where a second conditional PUT of a key wins too: two sinks would overwrite each other."""
    key = f"probes/{secrets.token_hex(16)}"
    store.put_if_absent(key, b"")
    second = store.put_if_absent(key, b"")
    with suppress(ReplayError):  # a sink may do without the right to delete: an empty blob stays then
        store.delete(key)
    if second:
        raise ConfigurationError(
            "the object store does not honour If-None-Match: use one that does, or set REPLAY_OBJECTS_CONDITIONAL_PUT=0 "
            "and see to it that only one sink ever writes a partition"
        )
