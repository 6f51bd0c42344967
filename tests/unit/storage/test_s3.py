"""S3 keeps the contract of blob stores (on moto), and what it refuses is told for what it is."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from moto import mock_aws
from moto.core.botocore_stubber import MockRawResponse
from moto.s3.models import s3_backends

from pipeline.errors import ConfigurationError, FatalError, RetryableError
from pipeline.storage import s3
from pipeline.storage.blobs import MissingBlobError, require_conditional_put
from pipeline.storage.s3 import S3Options, S3Store, translated
from tests.integration.storage.test_s3 import past
from tests.unit.storage.contract import KEY, LARGE, PART_BYTES, BlobStoreContract, VersionedContract

IN_PARTS = S3Options(part_bytes=PART_BYTES)


@pytest.fixture(autouse=True)
def moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="replays")
        yield


class TestS3Store(BlobStoreContract):
    @pytest.fixture
    def store(self) -> S3Store:
        return S3Store("replays", "some/prefix", options=IN_PARTS)

    # moto looks and writes in two steps, and takes no If-Match at an upload's end; versitygw runs these
    test_of_racing_puts_exactly_one_wins_and_its_bytes_stay = None
    test_of_racing_replacements_exactly_one_matches = None
    test_of_racing_large_puts_exactly_one_wins = None
    test_a_large_replacement_keeps_the_condition = None


class TestS3StoreThatKeepsVersions(VersionedContract):
    @pytest.fixture
    def store(self) -> S3Store:
        boto3.client("s3").put_bucket_versioning(Bucket="replays", VersioningConfiguration={"Status": "Enabled"})
        return S3Store("replays", "some/prefix", options=IN_PARTS)

    def past(self, key: str) -> int:
        return past(boto3.client("s3"), "replays", f"some/prefix/{key}")

    test_of_racing_puts_exactly_one_wins_and_its_bytes_stay = None
    test_of_racing_replacements_exactly_one_matches = None
    test_of_racing_large_puts_exactly_one_wins = None
    test_a_large_replacement_keeps_the_condition = None


def test_keys_lie_under_the_prefix_of_the_url() -> None:
    S3Store("replays", "some/prefix").put_if_absent("a/b", b"x")
    listed = boto3.client("s3").list_objects_v2(Bucket="replays")["Contents"]
    assert [each["Key"] for each in listed] == ["some/prefix/a/b"]


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.put_if_absent(KEY, b"x"),
        lambda store: store.replace_if_match(KEY, b"x", '"e"'),
        lambda store: store.get(KEY),
        lambda store: list(store.keys("")),
    ],
)
def test_a_missing_bucket_is_fatal_and_says_what_to_do(call) -> None:
    with pytest.raises(FatalError, match="no bucket nowhere: create it, or mend REPLAY_OBJECTS_URL"):
        call(S3Store("nowhere", ""))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "InternalError", RetryableError),
        (503, "SlowDown", RetryableError),
        (503, "ServiceUnavailable", RetryableError),
        (429, "TooManyRequests", RetryableError),
        (400, "RequestTimeout", RetryableError),
        (409, "ConditionalRequestConflict", RetryableError),
        (409, "OperationAborted", RetryableError),
        (403, "AccessDenied", FatalError),
        (403, "SignatureDoesNotMatch", FatalError),
        (400, "InvalidArgument", FatalError),
        (301, "PermanentRedirect", FatalError),
        (501, "NotImplemented", FatalError),
        (404, "NoSuchBucket", FatalError),
        (404, "NoSuchKey", MissingBlobError),
    ],
)
def test_an_answer_means_what_the_caller_must_do(status: int, code: str, kind: type[Exception]) -> None:
    error = ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")  # type: ignore[typeddict-item]
    assert type(translated(error, "replays", KEY)) is kind


def test_an_endpoint_that_is_away_is_retryable_and_missing_credentials_are_not() -> None:
    away = translated(EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), "replays", KEY)
    assert isinstance(away, RetryableError)
    unknown = translated(NoCredentialsError(), "replays", KEY)
    assert isinstance(unknown, FatalError)
    assert "credentials" in str(unknown)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sse": "AES256"}, ("AES256", None)),
        ({"sse": "aws:kms"}, ("aws:kms", None)),
        ({"sse": "aws:kms", "kms_key": "alias/replays"}, ("aws:kms", "alias/replays")),
        ({}, (None, None)),
    ],
)
def test_every_write_says_how_it_is_to_be_encrypted(options: dict[str, str], told: tuple[str | None, ...]) -> None:
    store = S3Store("replays", "", options=S3Options(part_bytes=PART_BYTES, **options))  # type: ignore[arg-type]
    said = asked(store, "PutObject", "CreateMultipartUpload")
    store.put_if_absent("whole", b"x")
    store.put_if_absent("in-parts", LARGE)
    names = ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")
    assert [tuple(text(each.headers.get(name)) for name in names) for each in said] == [told, told]


def test_every_body_goes_with_its_checksum() -> None:
    store = S3Store("replays", "", options=IN_PARTS)
    said = asked(store, "PutObject", "UploadPart")
    store.put_if_absent("whole", b"123456789")
    store.put_if_absent("in-parts", LARGE)
    bodies = [b"123456789", LARGE[:PART_BYTES], LARGE[PART_BYTES : 2 * PART_BYTES], LARGE[2 * PART_BYTES :]]
    wanted = [base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode() for body in bodies]
    assert [checksum(each) for each in said] == wanted


def test_bytes_that_changed_in_the_store_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "BACKOFF_FIRST_S", 0)
    store = S3Store("replays", "")
    store.put_if_absent(KEY, b"what was written")
    kept = s3_backends["123456789012"]["aws"].buckets["replays"].keys[KEY]
    kept.value = b"what was read is"
    with pytest.raises(RetryableError, match="FlexibleChecksumError"):
        store.get(KEY)


@pytest.mark.parametrize(
    ("endpoint", "addressing", "host"),
    [
        (None, "", "replays.s3.amazonaws.com"),
        (None, "path", "s3.amazonaws.com"),
        ("http://store.example.test:9000", "", "store.example.test:9000"),
        ("http://store.example.test:9000", "virtual", "replays.store.example.test:9000"),
    ],
)
def test_the_bucket_stands_in_the_host_or_in_the_path(endpoint: str | None, addressing: str, host: str) -> None:
    store = S3Store("replays", "", endpoint=endpoint, options=S3Options(addressing=addressing))
    url = urlsplit(store._client.generate_presigned_url("get_object", Params={"Bucket": "replays", "Key": "k"}))
    assert (url.netloc, url.path) == (host, "/k" if host.startswith("replays.") else "/replays/k")


@pytest.mark.parametrize(
    ("options", "name"),
    [({"sse": "DES"}, "SSE"), ({"kms_key": "k"}, "KMS_KEY"), ({"addressing": "host"}, "ADDRESSING")],
)
def test_a_setting_that_cannot_be_is_named(options: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"REPLAY_OBJECTS_{name}"):
        S3Options(**options)  # type: ignore[arg-type]


def test_a_store_without_conditional_puts_is_refused() -> None:
    store = S3Store("replays", "")
    store._client.meta.events.register("before-send.s3.PutObject", deaf)
    with pytest.raises(ConfigurationError, match=r"If-None-Match.*REPLAY_OBJECTS_CONDITIONAL_PUT=0"):
        require_conditional_put(store)


def test_a_call_is_tried_again_until_it_may_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "BACKOFF_FIRST_S", 0)
    store = S3Store("replays", "")
    said = asked(store, "HeadObject", "GetObject", answer=busy)
    with pytest.raises(RetryableError, match="503 SlowDown"):
        store.get(KEY)
    assert len(said) == s3.TRIES
    monkeypatch.setattr(s3, "CALL_LIMIT_S", 0)
    said.clear()
    with pytest.raises(RetryableError, match="503 SlowDown"):
        store.get(KEY)
    assert len(said) == 1


def test_a_listing_that_fails_between_its_pages_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "BACKOFF_FIRST_S", 0)
    store = S3Store("replays", "")
    store._client.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 2}
    )
    keys = ["a", "b", "c", "d", "e"]
    for key in keys:
        store.put_if_absent(key, b"")
    found = store.keys("")
    first = [next(found), next(found)]
    said = asked(store, "ListObjectsV2", answer=once(busy))
    assert first + list(found) == keys
    assert len(said) == 3


def test_a_store_that_knows_neither_versions_nor_uploads_has_none() -> None:
    store = S3Store("replays", "")
    store.put_if_absent(KEY, b"x")
    said = asked(store, "ListObjectVersions", "ListMultipartUploads", answer=unknown)
    store.purge_versions(KEY)
    assert store.sweep("") == 0
    assert len(said) == 2
    assert store.get(KEY)[0] == b"x"


def asked(store: S3Store, *calls: str, answer: Callable[[Any], Any] = lambda _: None) -> list[Any]:
    """The requests of these calls, as they come; `answer` may stand in for the store."""
    said: list[Any] = []

    def see(request: Any, **_: Any) -> Any:
        said.append(request)
        return answer(request)

    for call in calls:
        store._client.meta.events.register_first(f"before-send.s3.{call}", see)
    return said


def deaf(request: Any, **_: Any) -> None:
    """As a store that does not know the header."""
    del request.headers["If-None-Match"]


def busy(request: Any) -> AWSResponse:
    return AWSResponse(request.url, 503, {}, MockRawResponse(b"<Error><Code>SlowDown</Code></Error>"))


def unknown(request: Any) -> AWSResponse:
    return AWSResponse(request.url, 501, {}, MockRawResponse(b"<Error><Code>NotImplemented</Code></Error>"))


def once(answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    answers = iter([answer])

    def say(request: Any) -> Any:
        return next(answers, lambda _: None)(request)

    return say


def text(value: bytes | str | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value


def checksum(request: Any) -> str:
    """From the header, or from the trailer that follows a body sent in chunks."""
    if found := text(request.headers.get("x-amz-checksum-crc32")):
        return found
    request.body.seek(0)
    sent = request.body.read()
    return re.search(rb"x-amz-checksum-crc32:([^\r]+)", sent)[1].decode()
