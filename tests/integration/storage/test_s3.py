"""S3 keeps the contract of blob stores on a real server, races among them; the settings lead to it."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.errors import FatalError
from pipeline.settings import Settings
from pipeline.storage import s3
from pipeline.storage.blobs import open_store
from pipeline.storage.s3 import S3Options, S3Store
from tests.s3 import Server
from tests.unit.storage.contract import KEY, LARGE, PART_BYTES, BlobStoreContract, VersionedContract

IN_PARTS = S3Options(part_bytes=PART_BYTES)


class TestS3StoreOnARealServer(BlobStoreContract):
    @pytest.fixture
    def store(self, bucket: str, s3_server: Server) -> S3Store:
        return S3Store(bucket, "some/prefix", endpoint=s3_server.endpoint, options=IN_PARTS)


class TestS3StoreOfOneSink(BlobStoreContract):
    """Without conditional PUTs, which somebody else then sees to: all but the races."""

    @pytest.fixture
    def store(self, bucket: str, s3_server: Server) -> S3Store:
        options = S3Options(part_bytes=PART_BYTES, conditional_put=False)
        return S3Store(bucket, "some/prefix", endpoint=s3_server.endpoint, options=options)

    test_of_racing_puts_exactly_one_wins_and_its_bytes_stay = None
    test_of_racing_replacements_exactly_one_matches = None
    test_of_racing_large_puts_exactly_one_wins = None


class TestS3StoreThatKeepsVersions(VersionedContract):
    @pytest.fixture
    def store(self, bucket: str, s3_server: Server) -> S3Store:
        self.client, self.bucket = s3_server.client(), bucket
        self.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        return S3Store(bucket, "some/prefix", endpoint=s3_server.endpoint, options=IN_PARTS)

    def past(self, key: str) -> int:
        return past(self.client, self.bucket, f"some/prefix/{key}")

    # versitygw keeps the ETag of a deleted key beside its data and takes the key for taken; moto runs this
    test_a_deleted_blob_is_gone_and_its_key_free = None


def past(client, bucket: str, key: str) -> int:
    """Noncurrent versions, and delete markers, of exactly this key."""
    listed = client.list_object_versions(Bucket=bucket, Prefix=key)
    versions = [each for each in listed.get("Versions", ()) if not each["IsLatest"]]
    return sum(each["Key"] == key for each in [*versions, *listed.get("DeleteMarkers", ())])


def test_an_upload_that_was_not_completed_is_swept_when_it_is_old(
    bucket: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = s3_server.client()
    store = S3Store(bucket, "some/prefix", endpoint=s3_server.endpoint, options=IN_PARTS)
    where = {"Bucket": bucket, "Key": f"some/prefix/{KEY}"}
    upload = client.create_multipart_upload(**where)["UploadId"]
    client.upload_part(**where, UploadId=upload, PartNumber=1, Body=LARGE[:PART_BYTES])
    assert store.sweep("replays/") == 0
    monkeypatch.setattr(s3, "LEFT_OVER_AFTER_S", -60)  # as if a minute were enough to be left over
    assert store.sweep("elsewhere/") == 0
    assert store.sweep("replays/") == 1
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_a_lost_upload_leaves_no_parts(bucket: str, s3_server: Server) -> None:
    store = S3Store(bucket, "", endpoint=s3_server.endpoint, options=IN_PARTS)
    store.put_if_absent(KEY, b"first")
    assert store.put_if_absent(KEY, LARGE) is False
    assert not s3_server.client().list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_the_settings_open_it(home: Settings, bucket: str, s3_server: Server) -> None:
    settings = dataclasses.replace(home, objects_url=f"s3://{bucket}/deep/prefix", objects_endpoint=s3_server.endpoint)
    store = open_store(settings)
    assert store.put_if_absent(KEY, b"x") is True
    assert S3Store(bucket, "", endpoint=s3_server.endpoint).get(f"deep/prefix/{KEY}")[0] == b"x"


def test_wrong_credentials_are_fatal_and_not_shown(
    bucket: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2")
    with pytest.raises(FatalError, match="refused") as caught:
        S3Store(bucket, "", endpoint=s3_server.endpoint).put_if_absent(KEY, b"x")
    assert "hunter2" not in str(caught.value)
