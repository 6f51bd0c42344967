"""S3 keeps the contract of blob stores on a real server, races among them; the settings lead to it."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.errors import FatalError
from pipeline.settings import Settings
from pipeline.storage.blobs import open_store
from pipeline.storage.s3 import S3Store
from tests.s3 import Server
from tests.unit.storage.contract import KEY, BlobStoreContract


class TestS3StoreOnARealServer(BlobStoreContract):
    @pytest.fixture
    def store(self, bucket: str, s3_server: Server) -> S3Store:
        return S3Store(bucket, "some/prefix", endpoint=s3_server.endpoint)


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
