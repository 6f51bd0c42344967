"""A real S3 server: versitygw, built once from its pinned module with the Go toolchain of the dev extra."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pipeline import settings as settings_table
from pipeline.local import process
from pipeline.local.ports import free_ports
from tests.support import eventually, need

VERSION = "v1.8.0"
MODULE = f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"
BUILD_LIMIT_S = 900
START_LIMIT_S = 30.0


@dataclasses.dataclass(frozen=True)
class S3Server:
    """Where it listens and what it takes; requests of boto3's standard chain find the credentials in the environment."""

    endpoint: str
    access_key: str
    secret_key: str


@pytest.fixture(scope="session")
def versitygw() -> Path:
    folder = settings_table.load().cache / f"versitygw-{VERSION}"
    binary = folder / "versitygw"
    if not binary.exists():
        beside = Path(sys.executable).with_name("go")
        go = str(beside) if beside.exists() else shutil.which("go")
        need(go, "a Go toolchain to build the S3 server with")
        folder.mkdir(parents=True, exist_ok=True)
        built = subprocess.run(
            [str(go), "install", MODULE],
            env={**os.environ, "GOBIN": str(folder), "GOFLAGS": "-modcacherw"},
            capture_output=True,
            text=True,
            timeout=BUILD_LIMIT_S,
            check=False,
        )
        need(built.returncode == 0, f"{MODULE}: {built.stderr[-500:]}")
    return binary


@pytest.fixture(scope="session")
def s3_server(versitygw: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("s3")
    for name in ("data", "sidecar"):
        (folder / name).mkdir()
    (port,) = free_ports(1)
    server = S3Server(f"http://127.0.0.1:{port}", secrets.token_hex(8), secrets.token_hex(16))
    command = [
        str(versitygw), "--port", f"127.0.0.1:{port}", "--access", server.access_key, "--secret", server.secret_key,
        "posix", "--sidecar", str(folder / "sidecar"), str(folder / "data"),
    ]  # fmt: skip
    running = process.start(command, dict(os.environ), folder / "versitygw.log")
    try:
        eventually(lambda: _answers(server), within_s=START_LIMIT_S, why="the S3 server answers")
        yield server
    finally:
        running.terminate()
        running.wait(10)


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket; the environment holds the credentials, as in production."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    name = f"replays-{secrets.token_hex(4)}"
    _client(s3_server).create_bucket(Bucket=name)
    return name


def _client(server: S3Server):
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}),
    )


def _answers(server: S3Server) -> bool:
    try:
        _client(server).list_buckets()
    except (ClientError, BotoCoreError):
        return False
    return True
