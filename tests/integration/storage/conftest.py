"""A running S3 server, and buckets of a test's own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from pipeline.local import process
from tests import s3
from tests.support import eventually

START_LIMIT_S = 30.0


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    folder = tmp_path_factory.mktemp("s3")
    server = s3.a_server()
    running = process.start(server.command(folder), dict(os.environ), folder / "versitygw.log")
    try:
        eventually(server.answers, within_s=START_LIMIT_S, why="the S3 server answers")
        yield server
    finally:
        running.terminate()
        running.wait(10)


@pytest.fixture
def bucket(s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket; the environment holds the credentials, as in production."""
    for name, value in s3_server.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    name = f"replays-{secrets.token_hex(4)}"
    s3_server.make_bucket(name)
    return name
