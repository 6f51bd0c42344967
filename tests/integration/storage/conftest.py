"""A running S3 server, and buckets of a test's own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from pipeline.keys import KeyFile
from pipeline.query.server import make_app
from pipeline.settings import Settings
from tests import s3, services
from tests.integration.storage.stores import TENANT, Client, Stores


@pytest.fixture
def stores(with_tables: Settings, engine: Settings) -> Iterator[Stores]:
    found = Stores(with_tables, engine)
    yield found
    found.warehouse.close()


@pytest.fixture
def reader(stores: Stores) -> Client:
    """The API, by the tenant's read key."""
    keys = KeyFile(stores.settings.keys)
    keys.ensure(TENANT)
    return Client(make_app(stores.settings), keys.first(TENANT).read)


@pytest.fixture
def admin(reader: Client, stores: Stores) -> Client:
    """The same by the tenant's admin key."""
    return Client(reader.app, KeyFile(stores.settings.keys).first(TENANT).admin)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    server, service = services.s3_server(tmp_path_factory.mktemp("s3") / "server")
    with service.running():
        yield server


@pytest.fixture
def bucket(s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket; the environment holds the credentials, as in production."""
    for name, value in s3_server.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    name = f"replays-{secrets.token_hex(4)}"
    s3_server.make_bucket(name)
    return name
