"""Blob stores behind one port. The object sink's exactness rests on `put_if_absent` and `replace_if_match` being atomic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigurationError
from pipeline.settings import Settings


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

    def delete(self, key: str) -> None:
        """Removes the key; nothing happens where there is none."""


class MissingBlobError(Exception):
    """There is no blob by this key."""


def open_store(settings: Settings) -> BlobStore:
    """The store that REPLAY_OBJECTS_URL names."""
    url = urlsplit(settings.objects)
    if url.scheme == "file":
        from pipeline.storage.directory import DirectoryStore

        return DirectoryStore(Path(unquote(url.path)))
    if url.scheme == "s3" and url.netloc:
        from pipeline.storage.s3 import S3Store

        return S3Store(url.netloc, url.path.strip("/"), endpoint=settings.objects_endpoint or None)
    raise ConfigurationError("REPLAY_OBJECTS_URL must be s3://bucket/prefix or file:///folder")
