"""S3 keeps the contract of blob stores (on moto), and what it refuses is told for what it is."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from moto import mock_aws

from pipeline.errors import FatalError, RetryableError
from pipeline.storage.blobs import MissingBlobError
from pipeline.storage.s3 import S3Store, translate
from tests.unit.storage.contract import KEY, BlobStoreContract


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
        return S3Store("replays", "some/prefix")

    test_of_racing_puts_exactly_one_wins_and_its_bytes_stay = None  # moto looks and writes in two steps;
    test_of_racing_replacements_exactly_one_matches = None  # versitygw runs both


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
    with pytest.raises(kind):
        translate(error, "replays", KEY)


def test_an_endpoint_that_is_away_is_retryable_and_missing_credentials_are_not() -> None:
    with pytest.raises(RetryableError):
        translate(EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), "replays", KEY)
    with pytest.raises(FatalError, match="credentials"):
        translate(NoCredentialsError(), "replays", KEY)
