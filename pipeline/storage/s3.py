"""A blob store in S3 or what speaks its protocol, through boto3; credentials from its standard chain.

Conditional writes (If-None-Match, If-Match) are what the sink's claims rest on: the store must honour them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from pipeline.errors import FatalError, RetryableError
from pipeline.storage.blobs import MissingBlobError

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
TRIES = 3
CONNECTIONS = 16

_PRECONDITION_FAILED = 412
_MISSING = frozenset({"NoSuchKey", "404"})
_REFUSED = frozenset({301, 307, 400, 401, 403, 404, 405, 411, 413, 501})
_RETRYABLE_CODES = frozenset({"RequestTimeout", "RequestTimeoutException", "Throttling", "RequestLimitExceeded"})
"""Told with a status that otherwise means a refusal."""


class S3Store:
    """See `BlobStore`. Thread-safe."""

    def __init__(self, bucket: str, prefix: str, *, endpoint: str | None = None) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"mode": "standard", "total_max_attempts": TRIES},
                max_pool_connections=CONNECTIONS,
                s3={"addressing_style": "path" if endpoint else "auto"},
            ),
        )

    def put_if_absent(self, key: str, body: bytes) -> bool:
        return self._put(key, body, IfNoneMatch="*")

    def replace_if_match(self, key: str, body: bytes, etag: str) -> bool:
        try:
            return self._put(key, body, IfMatch=etag)
        except MissingBlobError:
            return False

    def get(self, key: str) -> tuple[bytes, str]:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            return answer["Body"].read(), answer["ETag"]
        except (ClientError, BotoCoreError) as error:
            self._translate(error, key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        if length <= 0:
            return b""
        span = f"bytes={start}-{start + length - 1}"
        try:
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, Range=span)[
                "Body"
            ].read()
            return body
        except ClientError as error:
            if error.response["Error"]["Code"] == "InvalidRange":
                return b""
            self._translate(error, key)
        except BotoCoreError as error:
            self._translate(error, key)

    def keys(self, prefix: str) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        try:
            for page in pages:
                for each in page.get("Contents", ()):
                    yield each["Key"].removeprefix(self._prefix)
        except (ClientError, BotoCoreError) as error:
            self._translate(error, prefix)

    def delete(self, key: str) -> None:
        try:
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)
        except (ClientError, BotoCoreError) as error:
            self._translate(error, key)

    def _put(self, key: str, body: bytes, **condition: str) -> bool:
        try:
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=body, **condition)
        except ClientError as error:
            # A retry inside boto3 may meet its own first try: "lost" is then told of a write that was ours. The sink
            # reads the winner's content back, which is the same bytes.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == _PRECONDITION_FAILED:
                return False
            self._translate(error, key)
        except BotoCoreError as error:
            self._translate(error, key)
        return True

    def _translate(self, error: ClientError | BotoCoreError, key: str) -> NoReturn:
        translate(error, self._bucket, key)


def translate(error: ClientError | BotoCoreError, bucket: str, key: str) -> NoReturn:
    """Raises what the caller must do: MissingBlobError, RetryableError, or FatalError where only a person can help.

    409 (ConditionalRequestConflict) is retryable: another write was under way, which may yet fail.
    """
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if code == "NoSuchBucket":
            raise FatalError(f"there is no bucket {bucket}: create it, or mend REPLAY_OBJECTS_URL") from error
        if code in _MISSING:
            raise MissingBlobError(key) from error
        if status in _REFUSED and code not in _RETRYABLE_CODES:
            raise FatalError(
                f"the object store refused ({status} {code}): check bucket {bucket}, credentials and permissions"
            ) from error
        raise RetryableError(f"the object store answered {status} {code}") from error
    if isinstance(error, NoCredentialsError | PartialCredentialsError | ParamValidationError):
        raise FatalError(
            f"the object store cannot be asked ({type(error).__name__}): check the credentials that boto3's standard "
            "chain finds, and REPLAY_OBJECTS_URL"
        ) from error
    raise RetryableError(f"the object store cannot be reached ({type(error).__name__})") from error
