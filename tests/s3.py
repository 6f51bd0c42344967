"""A real S3 server: versitygw, built once from its pinned module with the Go toolchain of the dev extra."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pipeline import settings as settings_table
from pipeline.local.ports import free_ports
from tests.support import need

VERSION = "v1.8.0"
MODULE = f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"
BUILD_LIMIT_S = 900
REGION = "us-east-1"


def binary() -> str:
    """The server's program, built if need be; the test is skipped where that cannot be."""
    folder = settings_table.load().cache / f"versitygw-{VERSION}"
    program = folder / "versitygw"
    if not program.exists():
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
    return str(program)


@dataclass(frozen=True)
class Server:
    """How to run it on a port of the loopback, and to ask it."""

    binary: str
    port: int
    access_key: str
    secret_key: str

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """Where boto3's standard chain finds the credentials, as in production."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
        }

    def command(self, folder: Path) -> tuple[str, ...]:
        """Serves what lies in `folder`."""
        for name in ("data", "sidecar", "versions"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        return (
            self.binary, "--port", f"127.0.0.1:{self.port}", "--access", self.access_key, "--secret", self.secret_key,
            "posix", "--sidecar", str(folder / "sidecar"), "--versioning-dir", str(folder / "versions"),
            str(folder / "data"),
        )  # fmt: skip

    def answers(self) -> bool:
        try:
            self.client().list_buckets()
        except (ClientError, BotoCoreError):
            return False
        return True

    def make_bucket(self, name: str) -> None:
        """Makes the bucket unless it is there."""
        if name not in {each["Name"] for each in self.client().list_buckets()["Buckets"]}:
            self.client().create_bucket(Bucket=name)

    def client(self) -> Any:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}),
        )


def a_server() -> Server:
    """One on a free port, with credentials of its own; nothing runs yet."""
    return Server(binary(), free_ports(1)[0], secrets.token_hex(8), secrets.token_hex(16))
