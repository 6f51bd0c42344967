"""Both stores filled by the real sink: the index on the real engine, the objects in each kind of blob store in turn."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from moto import mock_aws

from pipeline.query.recording import block_places, lines
from pipeline.query.sessions import SessionId
from pipeline.settings import Settings
from pipeline.sinks.delivery import Taken
from pipeline.sinks.objects import ObjectStore
from pipeline.storage.blobs import BlobStore, open_store
from pipeline.storage.blocks import OBJECT_SUFFIX
from pipeline.storage.clickhouse import ClickHouse
from tests.integration.storage.conftest import bucket, s3_server  # noqa: F401
from tests.unit.sinks import clean
from tests.unit.sinks.clean import AUGUST_MS

clicks = functools.partial(clean.clicks, retention="9y")
SESSIONS = [f"s{number}" for number in range(6)]


@dataclasses.dataclass(frozen=True)
class Stores:
    """Both stores, and how to fill and read them."""

    settings: Settings
    blobs: BlobStore
    warehouse: ClickHouse
    sink: ObjectStore

    def flush(self, partition: int, mark: int, batches: list) -> None:
        self.sink.flush(partition, mark, [Taken(each, each.source_offset) for each in batches])

    def objects(self) -> list[str]:
        return [key for key in self.blobs.keys("") if key.endswith(OBJECT_SUFFIX)]

    def change(self, key: str, body: bytes) -> None:
        assert self.blobs.replace_if_match(key, body, self.blobs.get(key)[1])

    def recordings(self) -> dict[str, bytes]:
        """Each session's recording as the API sends it."""
        with ThreadPoolExecutor(4) as pool:
            return {
                session: b"".join(
                    lines(self.blobs, pool, block_places(self.warehouse, "acme", SessionId(session, None)))
                )
                for session in SESSIONS
            }

    def index(self) -> list[tuple]:
        return sorted(self.warehouse.rows("SELECT * FROM {db}.blocks"))


@pytest.fixture(params=["directory", "moto", "versitygw"])
def empty(request: pytest.FixtureRequest, with_tables: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    """Nothing in either store yet."""
    if request.param == "directory":
        yield _stores(with_tables)
    elif request.param == "versitygw":
        name, server = request.getfixturevalue("bucket"), request.getfixturevalue("s3_server")
        yield _stores(
            dataclasses.replace(with_tables, objects_url=f"s3://{name}/deep", objects_endpoint=server.endpoint)
        )
    else:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        with mock_aws():
            boto3.client("s3").create_bucket(Bucket="replays")
            yield _stores(dataclasses.replace(with_tables, objects_url="s3://replays/deep"))


def _stores(settings: Settings) -> Stores:
    blobs = open_store(settings)
    return Stores(settings, blobs, ClickHouse(settings), ObjectStore(settings, blobs))


@pytest.fixture
def stores(empty: Stores) -> Stores:
    """Two partitions, two flushes each, two retention classes: eight objects that share six sessions, two blocks each."""
    for partition in range(2):
        for flush in range(2):
            first = 8 * flush
            empty.flush(
                partition,
                first - 1,
                [
                    clicks(
                        first + n, [AUGUST_MS + 1_000 * flush + n, AUGUST_MS + 1_000 * flush + n + 100],
                        session_id=SESSIONS[3 * partition + n % 3], retention="5y" if n % 4 > 1 else "9y",
                        source_partition=partition, window_id=f"w{n % 2}",
                    )
                    for n in range(4)
                ],
            )  # fmt: skip
    return empty
