"""A running S3 server, and buckets of a test's own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests import s3, services


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
