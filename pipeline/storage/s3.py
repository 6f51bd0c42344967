"""A blob store in S3 or what speaks its protocol, through boto3; credentials from its standard chain.

Conditional writes (If-None-Match, If-Match) are what the sink's claims rest on: the store must honour them, of whole PUTs
and of uploads in parts alike. Every request carries a CRC32 of its body, and what comes back is checked against the one
that the store kept. A call is tried again for CALL_LIMIT_S at most, with jitter; bodies too must have come by then.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from pipeline.errors import ConfigurationError, FatalError, RetryableError
from pipeline.storage.blobs import LEFT_OVER_AFTER_S, MissingBlobError

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
CALL_LIMIT_S = 60
TRIES = 3
BACKOFF_FIRST_S = 0.2
CONNECTIONS = 16
PART_BYTES = 8 << 20
"""A larger body goes up in parts of this size, each tried again by itself. At least 5 MiB; at most 10,000 parts."""
CHUNK_BYTES = 1 << 20

_PRECONDITION_FAILED = 412
_MISSING = frozenset({"NoSuchKey", "404"})
_REFUSED = frozenset({301, 307, 400, 401, 403, 404, 405, 411, 413, 501})
_RETRYABLE_CODES = frozenset(
    {"RequestTimeout", "RequestTimeoutException", "Throttling", "RequestLimitExceeded", "NoSuchUpload"}
)
"""Told with a status that otherwise means a refusal. NoSuchUpload: somebody swept it away, and it begins anew."""

_NEXT_PAGE = {
    "list_objects_v2": {"ContinuationToken": "NextContinuationToken"},
    "list_object_versions": {"KeyMarker": "NextKeyMarker", "VersionIdMarker": "NextVersionIdMarker"},
    "list_multipart_uploads": {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"},
}
"""Where a listing goes on, by its call: request member ← member of the answer before."""

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class S3Options:
    """What the settings say of a store; empty: boto3's own choice."""

    addressing: str = ""
    sse: str = ""
    kms_key: str = ""
    conditional_put: bool = True
    part_bytes: int = PART_BYTES

    def __post_init__(self) -> None:
        if self.addressing not in {"", "path", "virtual"}:
            raise ConfigurationError("REPLAY_OBJECTS_ADDRESSING must be path or virtual, or empty")
        if self.sse not in {"", "AES256", "aws:kms"}:
            raise ConfigurationError("REPLAY_OBJECTS_SSE must be AES256 or aws:kms, or empty")
        if self.kms_key and self.sse != "aws:kms":
            raise ConfigurationError("REPLAY_OBJECTS_KMS_KEY needs REPLAY_OBJECTS_SSE=aws:kms")


PLAIN = S3Options()


class _NotMatchedError(Exception):
    """The condition of a write did not hold."""


class S3Store:
    """See `BlobStore`. Thread-safe."""

    def __init__(self, bucket: str, prefix: str, *, endpoint: str | None = None, options: S3Options = PLAIN) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._options = options
        self._written_as = {"ServerSideEncryption": options.sse} if options.sse else {}
        if options.kms_key:
            self._written_as["SSEKMSKeyId"] = options.kms_key
        self._client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"mode": "standard", "total_max_attempts": 1},  # `_do` tries again, and knows when to stop
                max_pool_connections=CONNECTIONS,
                request_checksum_calculation="when_supported",
                response_checksum_validation="when_supported",
                s3={"addressing_style": options.addressing or ("path" if endpoint else "auto")},
            ),
        )

    def put_if_absent(self, key: str, body: bytes) -> bool:
        if not self._options.conditional_put:
            return self._etag(key) is None and self._put(key, body)
        return self._put(key, body, IfNoneMatch="*")

    def replace_if_match(self, key: str, body: bytes, etag: str) -> bool:
        if not self._options.conditional_put:
            return self._etag(key) == etag and self._put(key, body)
        try:
            return self._put(key, body, IfMatch=etag)
        except MissingBlobError:
            return False

    def get(self, key: str) -> tuple[bytes, str]:
        def work(until: float) -> tuple[bytes, str]:
            answer = self._client.get_object(**self._at(key))
            return _read(answer["Body"], until), answer["ETag"]

        return self._do(key, work)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        if length <= 0:
            return b""
        span = f"bytes={start}-{start + length - 1}"

        def work(until: float) -> bytes:
            try:
                return _read(self._client.get_object(**self._at(key), Range=span)["Body"], until)
            except ClientError as error:
                if error.response["Error"]["Code"] == "InvalidRange":
                    return b""
                raise

        return self._do(key, work)

    def keys(self, prefix: str) -> Iterator[str]:
        return (key for key, _ in self.sizes(prefix))

    def sizes(self, prefix: str, after: str = "") -> Iterator[tuple[str, int]]:
        begin = {"StartAfter": self._prefix + after} if after else {}
        for page in self._pages("list_objects_v2", prefix, **begin):
            for each in page.get("Contents", ()):
                yield each["Key"].removeprefix(self._prefix), each["Size"]

    def delete(self, key: str) -> None:
        answer = self._do(key, lambda _: self._client.delete_object(**self._at(key)))
        if answer.get("DeleteMarker") or answer.get("VersionId"):  # only a bucket that keeps versions says so
            self.purge_versions(key)

    def purge_versions(self, key: str) -> None:
        """Contents first, delete markers last: a content whose marker is gone would be the current one again."""
        versions, markers = [], []
        for page in self._pages("list_object_versions", key):
            versions += [each for each in page.get("Versions", ()) if not each["IsLatest"]]
            markers += page.get("DeleteMarkers", ())
        for each in (*versions, *markers):
            if each["Key"] == self._prefix + key:
                where = {**self._at(key), "VersionId": each["VersionId"]}
                self._do(key, lambda _, where=where: self._client.delete_object(**where))  # type: ignore[misc]

    def sweep(self, prefix: str) -> int:
        too_old = datetime.now(UTC) - timedelta(seconds=LEFT_OVER_AFTER_S)
        swept = 0
        for page in self._pages("list_multipart_uploads", prefix):
            for each in page.get("Uploads", ()):
                if each["Initiated"] < too_old:
                    self._abort({"Bucket": self._bucket, "Key": each["Key"], "UploadId": each["UploadId"]})
                    swept += 1
        return swept

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _etag(self, key: str) -> str | None:
        try:
            found: str = self._do(key, lambda _: self._client.head_object(**self._at(key)))["ETag"]
        except MissingBlobError:
            return None
        return found

    def _put(self, key: str, body: bytes, **condition: str) -> bool:
        """A try may meet an earlier one that was applied though its answer was lost: "lost" is then told of a write that
        was ours. The sink reads the winner's content back, which is the same bytes."""
        try:
            if len(body) > self._options.part_bytes:
                self._put_parts(key, body, condition)
            else:
                self._do(
                    key,
                    lambda _: self._client.put_object(**self._at(key), Body=body, **condition, **self._written_as),
                )
        except _NotMatchedError:
            return False
        return True

    def _put_parts(self, key: str, body: bytes, condition: dict[str, str]) -> None:
        """Nothing is seen of the blob before the last request, which carries the condition."""
        where, size = self._at(key), self._options.part_bytes
        begun = self._do(
            key,
            lambda _: self._client.create_multipart_upload(**where, ChecksumAlgorithm="CRC32", **self._written_as),
        )
        upload = {**where, "UploadId": begun["UploadId"]}
        try:
            parts = []
            for number, start in enumerate(range(0, len(body), size), 1):
                part = {**upload, "PartNumber": number, "Body": body[start : start + size]}
                done = self._do(
                    key,
                    lambda _, part=part: self._client.upload_part(**part, ChecksumAlgorithm="CRC32"),  # type: ignore[misc]
                )
                kept = {name: done[name] for name in ("ETag", "ChecksumCRC32") if name in done}
                parts.append({"PartNumber": number, **kept})
            self._do(
                key,
                lambda _: self._client.complete_multipart_upload(
                    **upload, MultipartUpload={"Parts": parts}, **condition
                ),
            )
        except BaseException:
            self._abort(upload)
            raise

    def _abort(self, upload: dict[str, str]) -> None:
        """Parts of an upload that is not completed cost money and keep recordings; what stays now, `sweep` removes."""
        with suppress(ClientError, BotoCoreError):
            self._client.abort_multipart_upload(**upload)

    def _pages(self, what: str, prefix: str, **begin: str) -> Iterator[dict[str, Any]]:
        """The pages of a listing, each tried again by itself; none from a store that does not know what is listed."""
        where = {"Bucket": self._bucket, "Prefix": self._prefix + prefix, **begin}
        while True:
            try:
                page = self._do(prefix, lambda _, where=where: getattr(self._client, what)(**where))  # type: ignore[misc]
            except FatalError as error:
                told = error.__cause__
                if isinstance(told, ClientError) and told.response["Error"]["Code"] == "NotImplemented":
                    return
                raise
            yield page
            if not page.get("IsTruncated"):
                return
            where |= {ours: page[theirs] for ours, theirs in _NEXT_PAGE[what].items() if page.get(theirs)}

    def _do(self, key: str, work: Callable[[float], Found]) -> Found:
        """`work(until)`, tried again while that may help, TRIES times and CALL_LIMIT_S at most."""
        until = time.monotonic() + CALL_LIMIT_S
        for tried in range(1, TRIES + 1):
            try:
                return work(until)
            except (ClientError, BotoCoreError) as error:
                problem = translated(error, self._bucket, key)
                wait_s = random.uniform(0, BACKOFF_FIRST_S * 2**tried)  # noqa: S311
                over = tried == TRIES or time.monotonic() + wait_s >= until
                if over or not isinstance(problem, RetryableError):
                    raise problem from error
                time.sleep(wait_s)
        raise AssertionError("the last try returns or raises")


def _read(body: Any, until: float) -> bytes:
    """A whole body. Raises RetryableError where it trickles so slowly that it is not there by `until`."""
    chunks = []
    while chunk := body.read(CHUNK_BYTES):
        chunks.append(chunk)
        if time.monotonic() > until:
            body.close()
            raise RetryableError("the object store sends too slowly")
    return b"".join(chunks)


def translated(error: ClientError | BotoCoreError, bucket: str, key: str) -> Exception:
    """What the caller must do: MissingBlobError, RetryableError, or FatalError where only a person can help.

    409 (ConditionalRequestConflict) is retryable: another write was under way, which may yet fail.
    """
    if isinstance(error, ClientError):
        return _answered(error, bucket, key)
    if isinstance(error, NoCredentialsError | PartialCredentialsError | ParamValidationError):
        return FatalError(
            f"the object store cannot be asked ({type(error).__name__}): check the credentials that boto3's standard "
            "chain finds, and REPLAY_OBJECTS_URL"
        )
    return RetryableError(f"the object store cannot be reached ({type(error).__name__})")


def _answered(error: ClientError, bucket: str, key: str) -> Exception:
    code = error.response["Error"]["Code"]
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    if status == _PRECONDITION_FAILED:
        return _NotMatchedError()
    if code == "NoSuchBucket":
        return FatalError(f"there is no bucket {bucket}: create it, or mend REPLAY_OBJECTS_URL")
    if code in _MISSING:
        return MissingBlobError(key)
    if status in _REFUSED and code not in _RETRYABLE_CODES:
        return FatalError(
            f"the object store refused ({status} {code}): check bucket {bucket}, credentials and permissions"
        )
    return RetryableError(f"the object store answered {status} {code}")
